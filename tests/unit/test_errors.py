"""Errors: a stable reason each, and messages that quote input without repeating its tricks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.errors import (
    BusyError,
    IdtraceError,
    InputError,
    OutcomeUnknownError,
    Reason,
    RefusedError,
    VerificationError,
    quoted,
)


def test_a_reason_is_its_own_name_so_that_it_can_be_published() -> None:
    assert all(reason.name == reason.value for reason in Reason)
    assert len({str(reason) for reason in Reason}) == len(Reason)


@pytest.mark.parametrize("family", [InputError, VerificationError, RefusedError, BusyError, OutcomeUnknownError])
def test_a_family_shows_reason_detail_and_field(family: type[IdtraceError]) -> None:
    error = family(Reason.FIELD_MISSING, "it is missing", field="a.b")
    assert (error.reason, error.detail, error.field) == (Reason.FIELD_MISSING, "it is missing", "a.b")
    assert str(error) == "FIELD_MISSING: it is missing (a.b)"
    assert str(family(Reason.FIELD_MISSING, "it is missing")) == "FIELD_MISSING: it is missing"


def test_the_base_is_never_raised_itself() -> None:
    with pytest.raises(AssertionError):
        IdtraceError(Reason.INTERNAL, "")


@given(st.text(st.characters(), max_size=200))
def test_quoted_input_is_printable_encodable_and_bounded(text: str) -> None:
    shown = quoted(text)
    assert shown.isprintable()
    shown.encode()
    assert len(shown) <= 10 * 80 + 2


@pytest.mark.parametrize("trick", ["\ud800", "\x9b2J", "\u202e", "\u200b", "\x1b[2J", "a\nb", "\u2028", "\x7f"])
def test_no_trick_survives_quoting(trick: str) -> None:
    assert trick not in quoted(trick)


def test_ordinary_text_is_quoted_as_it_is() -> None:
    assert quoted("88.118/药品 1") == "'88.118/药品 1'"
    assert quoted("x" * 80) == f"'{'x' * 80}'"
    assert quoted("x" * 81) == f"'{'x' * 79}…'"
    assert quoted("abcdef", 4) == "'abc…'"

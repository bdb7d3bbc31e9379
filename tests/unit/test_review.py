"""The review of a prefix: every pair of statuses, and how old a command may be."""

from __future__ import annotations

import pytest

from idtrace.errors import Reason, RefusedError
from idtrace.statements import PrefixStatus
from registry.review import COMMAND_SECONDS_MAX, check_application, check_command_time, check_move

S = PrefixStatus
ALLOWED = {
    (S.APPLIED, S.IN_REVIEW),
    (S.APPLIED, S.REJECTED),
    (S.IN_REVIEW, S.ENABLED),
    (S.IN_REVIEW, S.REJECTED),
    (S.ENABLED, S.DISABLED),
    (S.DISABLED, S.ENABLED),
}


@pytest.mark.parametrize("wanted", S)
@pytest.mark.parametrize("current", S)
def test_only_the_drawn_moves_are_possible_and_a_refusal_lists_them(current: S, wanted: S) -> None:
    if (current, wanted) in ALLOWED:
        check_move(current, wanted)
        return
    with pytest.raises(RefusedError) as caught:
        check_move(current, wanted)
    assert (caught.value.reason, caught.value.field) == (Reason.PREFIX_STATUS_TRANSITION, "status")
    possible = [str(after) for before, after in ALLOWED if before is current]
    assert all(name in caught.value.detail for name in possible or ["nothing but a new application"])


@pytest.mark.parametrize("wanted", S)
def test_nobody_moves_a_prefix_that_nobody_applied_for(wanted: S) -> None:
    with pytest.raises(RefusedError) as caught:
        check_move(None, wanted)
    assert (caught.value.reason, caught.value.field) == (Reason.PREFIX_UNKNOWN, "prefix")


@pytest.mark.parametrize("current", [None, *S])
def test_one_applies_for_what_is_free_or_was_rejected(current: S | None) -> None:
    if current in (None, S.REJECTED):
        check_application(current)
        return
    with pytest.raises(RefusedError) as caught:
        check_application(current)
    assert (caught.value.reason, caught.value.field) == (Reason.PREFIX_STATUS_TRANSITION, "prefix")
    assert str(current) in caught.value.detail


@pytest.mark.parametrize("age", [-COMMAND_SECONDS_MAX, 0, COMMAND_SECONDS_MAX])
def test_a_fresh_command_passes_to_the_second(age: int) -> None:
    check_command_time(1_000_000, 1_000_000 + age)


@pytest.mark.parametrize("age", [-COMMAND_SECONDS_MAX - 1, COMMAND_SECONDS_MAX + 1])
def test_a_command_from_long_ago_or_from_the_future_is_stale(age: int) -> None:
    with pytest.raises(RefusedError) as caught:
        check_command_time(1_000_000, 1_000_000 + age)
    assert (caught.value.reason, caught.value.field) == (Reason.COMMAND_STALE, "issued_at")

"""Denials, receipts, enrolments, applications and commands: each comes back from its bytes, and nothing else does."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace import canonical
from idtrace.delegation import Role
from idtrace.errors import InputError, Reason, VerificationError
from idtrace.identifier import ROOT, Identifier, Prefix
from idtrace.record import TIME_MAX
from idtrace.signature import CheckBudget, Kind, Signature, Signed, sign
from idtrace.statements import (
    COMMENT_MAX,
    Application,
    Command,
    Denial,
    DenialReason,
    Enrolment,
    PrefixStatus,
    Receipt,
    check_enrolment,
    enrol,
)
from tests.core_fixtures import ITEM, LOW_ORDER, NOW, ZONE, public, reason_of, signer

R = Reason
DIGEST = bytes(range(32))
HERE = Prefix.parse(ZONE)


class Statement(Protocol):
    def payload(self) -> bytes: ...


times = st.integers(0, TIME_MAX)
zones = st.sampled_from([ROOT, Prefix.parse("88"), HERE])
items = st.sampled_from([ITEM, Identifier.parse("0042/é 药/x")])
texts = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=30)
endpoints = st.lists(st.sampled_from(["a:1", "[::1]:7001"]), max_size=4).map(tuple)
statements: st.SearchStrategy[Statement] = st.one_of(
    st.builds(Denial, items, zones, st.sampled_from(DenialReason), times, times),
    st.builds(Receipt, zones, items, st.integers(1, 2**53 - 1), st.binary(min_size=32, max_size=32), times),
    st.builds(Enrolment, zones, st.sampled_from([public("a"), public("b")]), st.sampled_from(Role)),
    st.builds(Application, zones, st.booleans(), endpoints, texts, times),
    st.builds(Command, zones, st.sampled_from(PrefixStatus), st.just("") | texts, times),
)


def parser(statement: object) -> Callable[[bytes], Statement]:
    parse: Callable[[bytes], Statement] = type(statement).parse  # type: ignore[attr-defined]  # every statement has one
    return parse


@given(statements)
def test_a_statement_comes_back_from_its_bytes(statement: Statement) -> None:
    assert parser(statement)(statement.payload()) == statement


SAMPLES: list[Any] = [
    Denial(ITEM, HERE, DenialReason.IDENTIFIER_ABSENT, NOW, NOW + 60),
    Receipt(HERE, ITEM, 1, DIGEST, NOW),
    Enrolment(HERE, public("a"), Role.NODE),
    Application(HERE, False, ("a:1",), "Li", NOW),
    Command(HERE, PrefixStatus.ENABLED, "", NOW),
]
by_kind = pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: type(s).__name__)


@by_kind
def test_no_field_is_missing_added_or_of_another_type(sample: Statement) -> None:
    fields = canonical.decode(sample.payload(), field="x")._body
    parse = parser(sample)
    for name in fields:
        without = canonical.encode({k: v for k, v in fields.items() if k != name})
        assert reason_of(partial(parse, without)) is R.FIELD_MISSING
        for wrong in ([1], {"a": 1}, "\x00", -1):
            if (name, wrong) != ("comment", "\x00"):  # a comment is any text
                assert reason_of(partial(parse, canonical.encode(fields | {name: wrong}))) is not None, (name, wrong)
    with pytest.raises(InputError) as caught:
        parse(canonical.encode(fields | {"zz": 1}))
    assert "zz" in caught.value.detail


@by_kind
def test_no_statement_is_read_as_another(sample: Statement) -> None:
    for other in SAMPLES:
        if other is not sample:
            assert reason_of(partial(parser(other), sample.payload())) is not None


@pytest.mark.parametrize(
    ("bent", "reason", "field"),
    [
        (replace(SAMPLES[0], expires=TIME_MAX + 1), R.FIELD_MALFORMED, "denial.expires"),
        (replace(SAMPLES[1], version=0), R.FIELD_MALFORMED, "receipt.version"),
        (replace(SAMPLES[1], record_hash=b""), R.FIELD_MALFORMED, "receipt.record_hash"),
        (replace(SAMPLES[3], endpoints=("a:1",) * 5), R.FIELD_TOO_LARGE, "application.endpoints"),
        (replace(SAMPLES[3], endpoints=("a:1", "A:1")), R.FIELD_MALFORMED, "application.endpoints[1]"),
        (replace(SAMPLES[3], contact=""), R.FIELD_MALFORMED, "application.contact"),
        (replace(SAMPLES[3], contact="Li\u202e"), R.IDENTIFIER_MALFORMED, "application.contact"),
        (replace(SAMPLES[3], contact="x" * (COMMENT_MAX + 1)), R.FIELD_TOO_LARGE, "application.contact"),
        (replace(SAMPLES[4], comment="x" * (COMMENT_MAX + 1)), R.FIELD_TOO_LARGE, "command.comment"),
    ],
)
def test_bounds(bent: Statement, reason: Reason, field: str) -> None:
    with pytest.raises(InputError) as caught:
        parser(bent)(bent.payload())
    assert (caught.value.reason, caught.value.field) == (reason, field)


def test_an_enrolment_proves_possession_and_costs_one_check() -> None:
    budget = CheckBudget(1)
    enrolment = check_enrolment(enrol(signer("a"), HERE, Role.RECORD), budget=budget)
    assert enrolment == Enrolment(HERE, public("a"), Role.RECORD)
    assert budget.left == 0


def asks_for(name: str, *by: str) -> Signed:
    """An enrolment of one key, signed by these."""
    payload = Enrolment(HERE, public(name), Role.ZONE).payload()
    return sign(Kind.ENROLMENT, payload, *(signer(other) for other in by))


def enrolled(key_text: str) -> Signed:
    payload = canonical.encode({"zone": ZONE, "key": key_text, "role": "zone"})
    return sign(Kind.ENROLMENT, payload, signer("a"))


IDENTITY = "ed25519:AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


@pytest.mark.parametrize(
    ("signed", "reason"),
    [
        (asks_for("a", "b"), R.PROOF_OF_POSSESSION),
        (asks_for("a", "a", "b"), R.PROOF_OF_POSSESSION),
        (asks_for("a"), R.PROOF_OF_POSSESSION),
        (
            replace(asks_for("a", "a"), payload=asks_for("a", "a").payload.replace(b'"zone":"8', b'"zone":"9')),
            R.PROOF_OF_POSSESSION,
        ),
        (replace(asks_for("a", "a"), payload_type="text/plain"), R.PROOF_OF_POSSESSION),
        (sign(Kind.COMMAND, SAMPLES[2].payload(), signer("a")), R.PROOF_OF_POSSESSION),
        (sign(Kind.ENROLMENT, SAMPLES[4].payload(), signer("a")), R.FIELD_MISSING),
        (enrolled(IDENTITY), R.KEY_LOW_ORDER),
        (enrolled("ed448:AAAA"), R.ALGORITHM_UNKNOWN),
        (enrolled("ed25519:AAAA"), R.KEY_MALFORMED),
    ],
)
def test_nobody_enrols_what_he_does_not_hold(signed: Signed, reason: Reason) -> None:
    with pytest.raises((InputError, VerificationError)) as caught:
        check_enrolment(signed, budget=CheckBudget(9), field="enrolments[0]")
    assert caught.value.reason is reason
    assert caught.value.field.startswith("enrolments[0]")


@pytest.mark.parametrize("raw", LOW_ORDER, ids=bytes.hex)
def test_a_weak_key_cannot_prove_its_own_possession(raw: bytes) -> None:
    unsigned = enrolled(f"ed25519:{b64encode(raw).decode()}")
    universal = Signature("any", "ed25519", (1).to_bytes(32, "little") + bytes(32))
    signed = replace(unsigned, signatures=(universal,))
    assert reason_of(lambda: check_enrolment(signed, budget=CheckBudget(9))) is R.KEY_LOW_ORDER


@pytest.mark.parametrize("comment", ["a\nb", "\x1b[2J", "\u202eb", " a", "e\u0301"])
def test_a_comment_is_what_a_person_sees(comment: str) -> None:
    command = Command(HERE, PrefixStatus.DISABLED, comment, NOW)
    with pytest.raises(InputError) as caught:
        Command.parse(command.payload())
    assert caught.value.field == "command.comment"


def test_a_spent_budget_is_told_from_a_missing_proof() -> None:
    proof = enrol(signer("a"), HERE, Role.NODE)
    with pytest.raises(VerificationError) as caught:
        check_enrolment(proof, budget=CheckBudget(0))
    assert caught.value.reason is R.TOO_MUCH_CRYPTO

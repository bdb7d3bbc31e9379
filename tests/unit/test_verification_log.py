"""Reports about logs: what was proven, what was not and would have been, and what a policy demands."""

from __future__ import annotations

from dataclasses import replace

import pytest

from idtrace.bundle import Bundle, Denied, Verdict
from idtrace.errors import Reason
from idtrace.logpolicy import LogPolicy
from idtrace.merkle import hash_leaf
from idtrace.tlogproof import TlogProof, verify_proof
from idtrace.verification import Report, verify_bundle
from tests.core_fixtures import NOW, anchor, bundle, denial, record, report, tombstone
from tests.log_fixtures import witness_signer
from tests.logged_fixtures import (
    CURRENT,
    LOG,
    currency_of,
    entry_of,
    log_signer,
    logged_bundle,
    proof_of,
)

R = Reason
W1, W2 = witness_signer(1), witness_signer(2)
BOTH = LogPolicy.parse(f"witness w1 {W1.key}\nwitness w2 {W2.key}\ngroup g all w1 w2\nquorum g\n".encode())
ANY = LogPolicy.parse(f"witness w1 {W1.key}\nwitness w2 {W2.key}\ngroup g any w1 w2\nquorum g\n".encode())
NONE = LogPolicy.parse(b"quorum none\n")
ABOVE = ["root key set", "delegation", "delegation", "delegation"]


def steps(of: Report) -> list[tuple[str, bool, bool]]:
    """Name, passed, made of every step after the chain."""
    return [(check.name, check.passed, check.made) for check in of.checks[len(ABOVE) :]]


def judged(of: Bundle, policy: LogPolicy, now: int = NOW) -> Report:
    return verify_bundle(of, anchor(), now=now, policy=policy)


def witnessed(*witnesses: object) -> Bundle:
    return logged_bundle(proof=proof_of(record(), signers=[log_signer(), *witnesses]))  # type: ignore[list-item]  # all are signers


def test_all_steps_are_named_in_their_order_and_say_what_they_found() -> None:
    found = judged(witnessed(W1, W2), BOTH)
    assert steps(found) == [
        ("log proof", True, True),
        ("witnesses", True, True),
        ("record", True, True),
        ("currency", True, True),
    ]
    assert [check.detail for check in found.checks[len(ABOVE) :]] == [
        f"entry 3 of 7 in {LOG}",
        "cosigned by w1, w2",
        "version 1, active, signed by zone 88.118.8",
        "version 1 is the latest in a log of 7 entries",
    ]
    assert found.logged is not None
    assert (found.logged.index, found.logged.committed_at, found.logged.checkpoint.size) == (3, NOW, 7)


def test_without_a_policy_witnesses_are_not_counted_and_nothing_fails_for_it() -> None:
    found = report(witnessed())
    assert found.verdict is Verdict.FOUND
    assert steps(found)[1] == ("witnesses", False, False)
    assert "others saw the same tree" in found.checks[len(ABOVE) + 1].detail


def test_what_is_missing_says_what_it_would_have_shown() -> None:
    bare = report(logged_bundle(proof=None, currency=None))
    assert (bare.verdict, bare.logged) == (Verdict.FOUND, None)
    assert steps(bare) == [("log proof", False, False), ("record", True, True), ("currency", False, False)]
    assert [check.reason for check in bare.checks] == [None] * len(bare.checks)
    assert "in the tree" in bare.checks[len(ABOVE)].detail
    assert "held against its log" in bare.checks[-1].detail


def test_of_a_zone_without_a_log_nothing_is_missed() -> None:
    assert steps(report(bundle())) == [("record", True, True)]


@pytest.mark.parametrize("policy", [BOTH, ANY, NONE])
def test_a_policy_demands_the_proof(policy: LogPolicy) -> None:
    for bare in (logged_bundle(proof=None), bundle()):
        bogus = judged(bare, policy)
        assert (bogus.verdict, bogus.checks[-1].reason) == (Verdict.BOGUS, R.NOT_LOGGED)
        assert steps(bogus) == [("log proof", False, True)]


@pytest.mark.parametrize(
    ("by", "policy", "reason"),
    [
        ((), NONE, None),
        ((), ANY, R.WITNESS_QUORUM),
        ((W1,), ANY, None),
        ((W1,), BOTH, R.WITNESS_QUORUM),
        ((W1, W2), BOTH, None),
        ((witness_signer(3),), ANY, R.WITNESS_QUORUM),
    ],
)
def test_a_policy_demands_its_quorum(by: tuple[object, ...], policy: LogPolicy, reason: Reason | None) -> None:
    found = judged(witnessed(*by), policy)
    assert found.valid is (reason is None)
    assert found.checks[len(ABOVE) + 1].reason is reason
    assert steps(found)[1] == ("witnesses", reason is None, True)
    assert "record" in [check.name for check in found.checks] if reason is None else found.checks[-1].reason is reason


def test_a_cosignature_from_the_future_does_not_count() -> None:
    assert not judged(witnessed(W1), ANY, NOW - 31).valid
    assert judged(witnessed(W1), ANY, NOW - 30).valid


def test_a_saved_word_that_it_was_the_latest_speaks_of_its_minute_and_fails_nothing() -> None:
    for now in (NOW - 40, NOW + 56, NOW + 80_000):
        later = report(logged_bundle(), now)
        assert later.verdict is Verdict.FOUND
        assert steps(later)[-1] == ("currency", False, False)
        assert f"{NOW - 5} to {NOW + 55}" in later.checks[-1].detail
        assert later.checks[-1].reason is None
    forged = logged_bundle(currency=currency_of(record(), by="thief"))
    assert report(forged, NOW + 80_000).checks[-1].reason is R.SIGNER_UNKNOWN


@pytest.mark.parametrize(("now", "made"), [(NOW - 35, True), (NOW - 36, False), (NOW + 55, True), (NOW + 56, False)])
def test_the_minute_of_a_currency_statement_is_exact(now: int, made: bool) -> None:
    assert report(logged_bundle(), now).checks[-1].made is made


def test_an_end_is_proven_like_any_version() -> None:
    gone = judged(logged_bundle(tombstone(), proof=proof_of(tombstone(), signers=[log_signer(), W1])), ANY)
    assert gone.verdict is Verdict.GONE
    assert steps(gone)[0] == ("log proof", True, True)


def test_a_policy_asks_nothing_of_a_denial() -> None:
    absent = logged_bundle(outcome=Denied(denial(by=CURRENT, log_size=7)), proof=None, currency=None)
    assert judged(absent, BOTH).verdict is Verdict.ABSENT


def test_a_withheld_value_leaves_every_proof_valid() -> None:
    shown = logged_bundle(replace(record(), values=()))
    assert (report(shown).verdict, report(shown).withheld) == (Verdict.FOUND, (1, 2))


def test_the_proof_is_a_c2sp_proof_with_the_same_bytes() -> None:
    text = proof_of(record()).to_text()
    again = TlogProof.parse(text.encode())
    assert again == text
    leaf = hash_leaf(entry_of(record()).to_bytes())
    assert verify_proof(again, leaf, NONE, now=NOW, log_keys=[log_signer().key]).valid

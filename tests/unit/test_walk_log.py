"""Proofs and currency statements on a walk: carried if true, a lie if false, and not missed if they are not there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from idtrace.bundle import Denied, NodeAnswer, Verdict
from idtrace.errors import Reason
from idtrace.record import Permission, Record, build_values
from resolver.effects import Answered, Ask, CacheRead, Done
from resolver.resolution import Resolution
from resolver.trust import TrustStore
from resolver.walk import Walk
from tests.core_fixtures import ITEM, NOW, ZONE, anchor, body_and_values, denial, record, salts, signed_record
from tests.logged_fixtures import CURRENT, currency_of, ending, logged_chain, proof_of

FIRST = record()
SOUND = NodeAnswer(logged_chain(), FIRST, proof_of(FIRST), currency_of(FIRST))


def walked(*answers: NodeAnswer) -> Resolution:
    """The end of a walk whose endpoints give these answers one after the other."""
    endpoints = [f"node-{n}:7000" for n in range(len(answers))]
    walk = Walk(ITEM, anchor=anchor(), root_endpoints=endpoints, floors=TrustStore(chain_seconds=300))
    walk.begin(now_ms=0)
    effect = walk.receive(CacheRead(None, None), now=NOW, now_ms=0)
    for answer in answers:
        if isinstance(effect, Ask):
            effect = walk.receive(Answered(answer), now=NOW, now_ms=1)
    assert isinstance(effect, Done)
    return effect.resolution


def test_what_was_checked_goes_into_the_bundle() -> None:
    found = walked(SOUND)
    assert found.verdict is Verdict.FOUND
    assert found.bundle is not None
    assert (found.bundle.proof, found.bundle.currency) == (SOUND.proof, SOUND.currency)


def test_the_word_that_it_is_the_latest_does_not_shorten_the_life_of_the_answer() -> None:
    assert walked(SOUND).ttl_ms == walked(replace(SOUND, currency=None)).ttl_ms == 300_000


@pytest.mark.parametrize("missing", [{"proof": None}, {"currency": None}, {"proof": None, "currency": None}])
def test_what_is_missing_is_no_lie(missing: dict[str, Any]) -> None:
    found = walked(replace(SOUND, **missing))
    assert found.verdict is Verdict.FOUND
    assert found.bundle is not None
    assert [getattr(found.bundle, name) for name in missing] == [None] * len(missing)


LIES: list[tuple[str, dict[str, Any], Reason]] = [
    ("another record's proof", {"proof": proof_of(record(version=2, previous=bytes(32)))}, Reason.PROOF_INVALID),
    ("a proof that is none", {"proof": replace(proof_of(FIRST), checkpoint=b"")}, Reason.NOTE_MALFORMED),
    ("a proof that leads elsewhere", {"proof": replace(proof_of(FIRST), path=(bytes(32),) * 3)}, Reason.PROOF_INVALID),
    ("a thief's word", {"currency": currency_of(FIRST, by="thief")}, Reason.SIGNER_UNKNOWN),
    ("an old word", {"currency": currency_of(FIRST, expires=NOW - 1, issued_at=NOW - 61)}, Reason.CURRENCY_EXPIRED),
    ("a word to come", {"currency": currency_of(FIRST, issued_at=NOW + 31)}, Reason.CURRENCY_NOT_YET_VALID),
    ("another's word", {"currency": currency_of(FIRST, version=2)}, Reason.CURRENCY_WRONG_RECORD),
    ("a log too small", {"currency": currency_of(FIRST, log_size=3)}, Reason.CURRENCY_WRONG_RECORD),
]


@pytest.mark.parametrize(("changes", "reason"), [lie[1:] for lie in LIES], ids=[lie[0] for lie in LIES])
def test_what_is_false_is_a_lie_and_an_honest_sibling_makes_it_good(changes: dict[str, Any], reason: Reason) -> None:
    false = replace(SOUND, **changes)
    bogus = walked(false)
    assert (bogus.verdict, bogus.reason, bogus.bundle) == (Verdict.BOGUS, reason, None)
    assert walked(false, SOUND).verdict is Verdict.FOUND


def test_a_key_that_has_ended_is_believed_below_its_end_and_with_a_proof_alone() -> None:
    proof = proof_of(FIRST, 2, 7)
    ended = replace(SOUND, delegations=logged_chain(ending(3)), proof=proof, currency=None)
    assert walked(ended).verdict is Verdict.FOUND
    assert walked(replace(ended, delegations=logged_chain(ending(2)))).reason is Reason.SIGNER_UNKNOWN
    assert walked(replace(ended, proof=None)).reason is Reason.SIGNER_UNKNOWN


def test_a_denial_is_signed_by_the_currency_key_where_there_is_one() -> None:
    said = denial(by=CURRENT, log_size=7)
    assert walked(NodeAnswer(logged_chain(), Denied(said))).verdict is Verdict.ABSENT
    by_node = denial(by=f"node of {ZONE}")
    assert walked(NodeAnswer(logged_chain(), Denied(by_node))).reason is Reason.SIGNER_UNKNOWN


def test_a_restricted_value_is_withheld_and_the_proof_still_holds() -> None:
    entries = [("a", b"open", Permission.PUBLIC), ("b", b"closed", Permission.RESTRICTED)]
    digests, values = build_values(entries, salts())
    body, _ = body_and_values()
    shown: Record = signed_record(replace(body, values=digests).payload(), values)
    found = walked(NodeAnswer(logged_chain(), shown, proof_of(shown), currency_of(shown)))
    assert found.bundle is not None
    assert isinstance(found.bundle.outcome, Record)
    assert found.bundle.outcome.values == values[:1]
    assert found.bundle.proof == proof_of(shown)

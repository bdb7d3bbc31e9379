"""Entries that the auditor cannot check accuse nobody, and nothing hides behind them.

The tests of the second half are attacks, one or more for each rule of the replay: an attacker who runs the log puts
an unclear entry first (keys whose signer the auditor cannot know, a zone of which the log has not spoken) and breaks
the rule under its cover.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from idtrace.audit import FINDINGS_MAX, Grade, Replay
from idtrace.auditing.findings import LogReport, Notice, Outcome
from idtrace.chain import Anchor
from idtrace.delegation import Delegation, Role, ZoneKey
from idtrace.entry import Entry, EntryKind
from idtrace.errors import Reason
from idtrace.identifier import ROOT, Identifier, Prefix
from idtrace.record import Record, RecordKind, Status
from idtrace.seal import Seal
from idtrace.signature import Kind, Signed, sign
from idtrace.statements import Currency
from tests.core_fixtures import ITEM, NOW, ZONE, anchor, delegate, delegation, public, record, revocation, signer
from tests.core_fixtures import zone_keys as usual_keys
from tests.logged_fixtures import logged
from tests.unit.test_audit import (
    CHILD,
    CHILD_ITEM,
    FIRST,
    HERE,
    NEXT,
    SECOND,
    batch,
    commanded,
    entry,
    from_the_first,
    handed_out,
    keys,
    replayed,
    written,
)

R = Reason
UNKNOWN = "zone key of 88.118 that nobody has shown us"
NEW = "record key that those keys name"
THIRD = record(ITEM, version=3, previous=NEXT.hash)
END = record(ITEM, version=3, previous=NEXT.hash, kind=RecordKind.TOMBSTONE, status=Status.RETIRED, data=())


def unclear_keys(body: Delegation | None = None, by: str = UNKNOWN) -> Entry:
    """The zone's next keys, signed by a key of its parent that the auditor has never seen."""
    return entry(EntryKind.KEYS, delegate(body or second(), by))


def second(**changes: Any) -> Delegation:
    return logged(**{"version": 2, "previous": logged().hash} | changes)


def third(**changes: Any) -> Delegation:
    return logged(version=3, previous=second().hash, **changes)


def clear(body: Delegation) -> Entry:
    return entry(EntryKind.KEYS, delegate(body))


def under_cover(*entries: Entry) -> tuple[Entry, ...]:
    """A sound beginning, keys that cannot be checked, and then these."""
    return (from_the_first(), unclear_keys(), *entries)


def graded(*entries: Entry, **given: Any) -> list[tuple[int, Grade, Reason]]:
    return [(one.index, one.grade, one.reason) for one in replayed(*entries, **given).findings]


def doubts(*indexes: int) -> list[tuple[int, Grade, Reason]]:
    return [(index, Grade.UNCLEAR, R.SIGNER_UNKNOWN) for index in indexes]


def lies(*entries: Entry, **given: Any) -> list[tuple[int, Reason]]:
    found = replayed(*entries, **given).findings
    return [(one.index, one.reason) for one in found if one.grade is Grade.MISBEHAVIOUR]


# Nobody is accused


def test_what_follows_keys_that_could_not_be_checked_is_unclear_until_the_next_that_can() -> None:
    log = [
        *under_cover(written(FIRST), *batch(3, refused=(1,)), handed_out(CHILD), commanded(f"{ZONE}.9")),
        clear(third()),
        written(NEXT),
        *(replace(one, committed_at=NOW) for one in (written(THIRD), written(record(SECOND)))),
    ]
    assert graded(*log) == doubts(1, 2, 3, 4, 5, 6, 7)


def test_a_seal_of_a_zone_that_the_log_has_not_spoken_of_is_unclear_with_its_records() -> None:
    assert graded(*batch(3, refused=(0,))) == doubts(0, 1, 2)
    log = [*batch(2), from_the_first(), written(FIRST)]
    assert graded(*log) == doubts(0, 1, 2)


def test_a_child_zone_of_unclear_keys_is_unclear_and_so_are_its_records() -> None:
    log = under_cover(handed_out(CHILD), written(record(CHILD_ITEM), zone=CHILD))
    assert graded(*log) == doubts(1, 2, 3)


def test_the_same_word_from_somebody_known_ends_the_doubt() -> None:
    assert graded(*under_cover(clear(second()), written(FIRST))) == doubts(1)
    assert replayed(*under_cover()).zone_keys(HERE) == {}
    assert replayed(*under_cover(clear(second()))).zone_keys(HERE) != {}
    assert graded(*under_cover(unclear_keys())) == doubts(1, 2)


def test_a_log_that_is_younger_than_its_zone_may_begin_in_the_middle_of_lives() -> None:
    log = [keys(), written(NEXT), written(THIRD), handed_out(CHILD, 2, bytes(32)), handed_out(f"{ZONE}.2")]
    gaps = [(1, Grade.UNCLEAR, R.VERSION_GAP), (3, Grade.UNCLEAR, R.VERSION_GAP)]
    assert graded(*log) == gaps
    late = entry(EntryKind.KEYS, delegate(second()))  # a version that names the log, and is not the first
    assert graded(late, written(NEXT), written(THIRD)) == gaps[:1]
    fourth = clear(logged(version=2, previous=delegation(ZONE).hash))
    assert graded(keys(), fourth, written(NEXT)) == [(2, Grade.UNCLEAR, R.VERSION_GAP)]


def test_a_hosted_zone_that_its_parents_log_has_handed_out_begins_there() -> None:
    version = record(CHILD_ITEM, version=2, previous=bytes(32))
    log = [keys(), handed_out(CHILD), written(version, zone=CHILD)]
    assert graded(*log) == [(2, Grade.MISBEHAVIOUR, R.VERSION_GAP)]


def test_a_statement_about_an_unclear_record_is_no_lie() -> None:
    said = Currency(ITEM, HERE, 1, FIRST.hash, 3, NOW, NOW + 60)
    assert replayed(*under_cover(written(FIRST))).against(said) is None


def test_key_sets_by_earlier_pinned_keys_are_unclear_and_end_with_the_first_by_todays() -> None:
    first = entry(EntryKind.KEYS, delegate(delegation(""), "pinned long ago"), "")
    body = delegation("", version=2, previous=delegation("").hash)
    today, thief = entry(EntryKind.KEYS, delegate(body), ""), entry(EntryKind.KEYS, delegate(body, "thief"), "")
    handed = entry(EntryKind.DELEGATION, delegate(delegation("88")), "")
    assert graded(first, handed, today, anchor=anchor()) == doubts(0, 1)
    assert graded(first, today, thief, anchor=anchor()) == [*doubts(0), (2, Grade.MISBEHAVIOUR, R.SIGNER_UNKNOWN)]


def test_a_parent_that_got_rid_of_a_thief_may_go_back_to_a_low_version() -> None:
    stolen, other = "zone of 88.118", "the other zone key of 88.118"
    outside = {Prefix.parse("88.118"): {public(name).key_id: public(name) for name in (stolen, other)}}
    forward = entry(EntryKind.KEYS, delegate(logged(version=2**53 - 1, previous=bytes(32)), stolen))
    back = entry(EntryKind.KEYS, delegate(second(), other))
    log = [from_the_first(), forward, back, written(FIRST)]
    assert graded(*log, outside=outside) == [
        (2, Grade.UNCLEAR, R.DELEGATION_ROLLED_BACK),
        (3, Grade.UNCLEAR, R.SIGNER_UNKNOWN),
    ]
    again = entry(EntryKind.KEYS, delegate(second(), stolen))
    assert lies(from_the_first(), forward, again, outside=outside) == [(2, R.DELEGATION_ROLLED_BACK)]


# Nothing hides. Each case: the attack, where the lie is, and which rule finds it


def forged(one: Record) -> Entry:
    """An entry under the name of a key that has not signed it."""
    first = one.signed.signatures[0]
    return replace(written(one), by=(replace(first, signature=bytes(32) + first.signature[32:]),))


def foreign_seal() -> Entry:
    body = Seal(Prefix.parse("88.118.9"), bytes(32), 2, NOW)
    return entry(EntryKind.SEAL, sign(Kind.SEAL, body.payload(), signer(f"record of {ZONE}")))


def junk() -> Entry:
    return entry(EntryKind.RECORD, sign(Kind.RECORD, b'{"identifier":"88"}', signer(f"record of {ZONE}")))


def other_hand(kind: Kind, body: bytes) -> Signed:
    return sign(kind, body, signer("thief"))


def half_known() -> Entry:
    """Keys with a false signature by a parent's known key, beside one that nobody can check."""
    signed = delegate(second(), "zone of 88.118", UNKNOWN)
    known, unknown = signed.signatures
    return replace(entry(EntryKind.KEYS, signed), by=(replace(known, signature=unknown.signature), unknown))


def ending_at(until: int) -> Delegation:
    kept = tuple(key for key in usual_keys(ZONE, Role) if Role.RECORD not in key.roles)
    old = ZoneKey(public(f"record of {ZONE}"), frozenset({Role.RECORD}), until)
    return second(keys=(*kept, old, ZoneKey(public(NEW), frozenset({Role.RECORD}))))


V2_AGAIN = record(ITEM, version=2, previous=FIRST.hash, status=Status.SUSPENDED)
GONE = revocation(ZONE, previous=logged().hash)
TWICE = written(record(CHILD_ITEM, f"record of {ZONE}"), zone=ZONE)
SEALED = batch(3)
ATTACKS = {
    # 1. form and time
    "rule 1: time goes back in an unclear entry": (under_cover(written(FIRST, at=NOW - 1)), 2, R.LOG_TIME),
    "rule 1: time goes back after one": (
        (from_the_first(), replace(unclear_keys(), committed_at=NOW + 9), written(FIRST)),
        2,
        R.LOG_TIME,
    ),
    # 2. signatures
    "rule 2: a record by a key that not even the unclear keys name": (
        under_cover(written(record(ITEM, "thief"))),
        2,
        R.SIGNER_UNKNOWN,
    ),
    "rule 2: a record by a key that the unclear keys no longer name": (
        (
            from_the_first(),
            unclear_keys(second(keys=tuple(k for k in usual_keys(ZONE, Role) if Role.RECORD not in k.roles))),
            written(FIRST),
        ),
        2,
        R.SIGNER_UNKNOWN,
    ),
    "rule 2: a false signature under unclear keys": (under_cover(forged(FIRST)), 2, R.SIGNATURE_INVALID),
    "rule 2: a false signature by a known key beside an unknown one": (
        (from_the_first(), half_known()),
        1,
        R.SIGNATURE_INVALID,
    ),
    "rule 2: a seal by a key that not even the unclear keys name": (
        under_cover(entry(EntryKind.SEAL, other_hand(Kind.SEAL, SEALED[0].payload))),
        2,
        R.SIGNER_UNKNOWN,
    ),
    "rule 2: a child zone by a key that not even the unclear keys name": (
        under_cover(entry(EntryKind.DELEGATION, delegate(delegation(CHILD), "thief"), ZONE)),
        2,
        R.SIGNER_UNKNOWN,
    ),
    "rule 2: a command by a key that not even the unclear keys name": (
        under_cover(commanded(CHILD, "thief")),
        2,
        R.SIGNER_UNKNOWN,
    ),
    "rule 2: too few hands for an unclear parent": (
        (
            from_the_first(),
            unclear_keys(
                second(
                    zone_threshold=2,
                    keys=(*usual_keys(ZONE, Role), ZoneKey(public("owner 2"), frozenset({Role.ZONE}))),
                )
            ),
            handed_out(CHILD),
        ),
        2,
        R.THRESHOLD_NOT_MET,
    ),
    "rule 2: a record behind the end of its key, which unclear keys say": (
        (from_the_first(), unclear_keys(ending_at(3)), written(FIRST), written(record(SECOND))),
        3,
        R.SIGNER_UNKNOWN,
    ),
    "rule 2: a record after an unclear revocation": (
        (from_the_first(), unclear_keys(GONE), written(FIRST)),
        2,
        R.DELEGATION_REVOKED,
    ),
    # 3. the body and its place
    "rule 3: a malformed body under unclear keys": (under_cover(junk()), 2, R.IDENTIFIER_MALFORMED),
    "rule 3: a malformed body of an unknown zone": ((junk(),), 0, R.IDENTIFIER_MALFORMED),
    "rule 3: another zone's identifier under unclear keys": (
        under_cover(written(record(Identifier.parse("88.118.9/X"), f"record of {ZONE}"))),
        2,
        R.RECORD_OUT_OF_ZONE,
    ),
    "rule 3: another zone's identifier by an unknown zone": (
        (written(record(Identifier.parse("88.118.9/X"))),),
        0,
        R.RECORD_OUT_OF_ZONE,
    ),
    "rule 3: an unknown zone above a known one takes its identifier": (
        (from_the_first(), written(FIRST, zone="88")),
        1,
        R.ZONE_DELEGATED,
    ),
    "rule 3: a parent's record in a zone that an unclear entry handed out": (
        under_cover(handed_out(CHILD), TWICE),
        3,
        R.ZONE_DELEGATED,
    ),
    "rule 3: a record from the future under unclear keys": (
        under_cover(written(record(ITEM, issued_at=NOW + 31))),
        2,
        R.RECORD_FROM_FUTURE,
    ),
    "rule 3: another zone's seal under unclear keys": (under_cover(foreign_seal()), 2, R.SEAL_WRONG_ZONE),
    "rule 3: an unclear command about another's prefix": (under_cover(commanded("88.118.9")), 2, R.REFERRAL_SIDEWAYS),
    "rule 3: a command of an unknown zone about another's prefix": ((commanded("88.118.9"),), 0, R.REFERRAL_SIDEWAYS),
    "rule 3: unclear keys in another zone's name": (
        (from_the_first(), entry(EntryKind.KEYS, delegate(second(), UNKNOWN), "88.118")),
        1,
        R.REFERRAL_SIDEWAYS,
    ),
    # 4. versions
    "rule 4: version 1 twice, first unclear and then by known keys": (
        (*under_cover(written(FIRST)), clear(third()), written(FIRST)),
        4,
        R.VERSION_GAP,
    ),
    "rule 4: version 2 twice, first unclear and then by known keys": (
        (from_the_first(), written(FIRST), unclear_keys(), written(NEXT), clear(third()), written(V2_AGAIN)),
        5,
        R.VERSION_GAP,
    ),
    "rule 4: version 2 twice, first by known keys and then unclear": (
        (from_the_first(), written(FIRST), written(NEXT), unclear_keys(), written(V2_AGAIN)),
        4,
        R.VERSION_GAP,
    ),
    "rule 4: a version left out under unclear keys": (
        (from_the_first(), written(FIRST), unclear_keys(), written(THIRD)),
        3,
        R.VERSION_GAP,
    ),
    "rule 4: a version left out by an unknown zone": ((written(FIRST), written(THIRD)), 1, R.VERSION_GAP),
    "rule 4: another predecessor than the unclear one": (
        (
            *under_cover(written(FIRST)),
            clear(third()),
            written(record(ITEM, version=2, previous=record(ITEM, data=("x",)).hash)),
        ),
        4,
        R.PREVIOUS_HASH_MISMATCH,
    ),
    "rule 4: life after an unclear end": (
        (
            from_the_first(),
            written(FIRST),
            written(NEXT),
            unclear_keys(),
            written(END),
            clear(third()),
            written(record(ITEM, version=4, previous=END.hash)),
        ),
        6,
        R.IDENTIFIER_RETIRED,
    ),
    "rule 4: unclear life after an end": (
        (
            from_the_first(),
            written(FIRST),
            written(NEXT),
            written(END),
            unclear_keys(),
            written(record(ITEM, version=4, previous=END.hash)),
        ),
        5,
        R.IDENTIFIER_RETIRED,
    ),
    "rule 4: another kind than the unclear one": (
        (
            *under_cover(written(FIRST)),
            clear(third()),
            written(record(ITEM, version=2, previous=FIRST.hash, kind=RecordKind.BLOCK)),
        ),
        4,
        R.KIND_CHANGED,
    ),
    "rule 4: a late beginning after unclear keys, in a zone that began here": (
        under_cover(written(NEXT)),
        2,
        R.VERSION_GAP,
    ),
    "rule 4: older keys after unclear ones": (
        (from_the_first(), unclear_keys(third()), unclear_keys(second())),
        2,
        R.DELEGATION_ROLLED_BACK,
    ),
    "rule 4: known keys that go back behind unclear ones": (
        (from_the_first(), clear(second()), unclear_keys(third()), from_the_first()),
        3,
        R.DELEGATION_ROLLED_BACK,
    ),
    "rule 4: unclear keys that do not follow": (
        (from_the_first(), unclear_keys(second(previous=bytes(32)))),
        1,
        R.PREVIOUS_HASH_MISMATCH,
    ),
    "rule 4: a child zone's version left out after an unclear one": (
        under_cover(handed_out(CHILD), handed_out(CHILD, 3, bytes(32))),
        3,
        R.VERSION_GAP,
    ),
    # 5. owners
    "rule 5: an unknown zone's identifier is registered by another": (
        (written(record(CHILD_ITEM), zone=CHILD), from_the_first(), TWICE),
        2,
        R.IDENTIFIER_TAKEN,
    ),
    "rule 5: an identifier is registered again by an unknown zone": (
        (from_the_first(), TWICE, written(record(CHILD_ITEM), zone=CHILD)),
        2,
        R.IDENTIFIER_TAKEN,
    ),
    # 6. seals
    "rule 6: a record is missing under an unclear seal": (under_cover(*SEALED[:2], *SEALED[3:]), 4, R.SEAL_PATH),
    "rule 6: the last record is missing under an unclear seal": (under_cover(*SEALED[:-1]), 2, R.SEAL_PATH),
    "rule 6: an unclear seal is followed by something else": (under_cover(*SEALED[:2], written(FIRST)), 2, R.SEAL_PATH),
    "rule 6: a false hash of an absent one under an unclear seal": (
        under_cover(replace(SEALED[0], absent=((0, bytes(32)),)), *SEALED[2:]),
        2,
        R.SEAL_PATH,
    ),
    "rule 6: a record too many under an unclear seal": (under_cover(*SEALED, SEALED[-1]), 6, R.SEAL_PATH),
    "rule 6: a record under a seal that never came": (under_cover(*SEALED[1:]), 2, R.SEAL_PATH),
    "rule 6: an unclear seal's key ends among its records": (
        (from_the_first(), unclear_keys(ending_at(4)), *SEALED),
        4,
        R.SIGNER_UNKNOWN,
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_lie_hides_behind_an_unclear_entry(attack: str) -> None:
    log, index, reason = ATTACKS[attack]
    assert (index, reason) in lies(*log)


def test_there_are_attacks_on_every_rule() -> None:
    assert {name.partition(":")[0] for name in ATTACKS} == {f"rule {n}" for n in range(1, 7)}


def test_a_form_that_is_none_is_found_after_an_unclear_entry() -> None:
    replay = Replay(outside={})
    replay.feed([unclear_keys().to_bytes(), b"junk"])
    assert [(one.grade, one.reason) for one in replay.findings][1:] == [(Grade.MISBEHAVIOUR, R.ENTRY_MALFORMED)]


def test_no_number_of_unclear_entries_crowds_out_a_lie() -> None:
    flood = [commanded(CHILD, "somebody").to_bytes()] * (FINDINGS_MAX + 200)
    replay = Replay(outside={})
    replay.feed([*flood, b"junk"])
    lie = replay.findings[-1]
    assert (lie.grade, lie.index, replay.broken) == (Grade.MISBEHAVIOUR, FINDINGS_MAX + 200, FINDINGS_MAX + 201)
    report = LogReport("http://log.example")
    for one in replay.findings:
        report.add(Notice(f"entry {one.index}", one.grade, one.reason, one.detail))
    assert report.outcome is Outcome.MISBEHAVIOUR
    assert len(report.notices) == FINDINGS_MAX + 1


def test_an_unclear_record_contradicts_a_statement_that_hides_it() -> None:
    replay = replayed(from_the_first(), written(FIRST), unclear_keys(), written(NEXT))
    finding = replay.against(Currency(ITEM, HERE, 1, FIRST.hash, 4, NOW, NOW + 60))
    assert finding is not None
    assert finding.index == 3
    invented = replay.against(Currency(ITEM, HERE, 3, THIRD.hash, 4, NOW, NOW + 60))
    assert invented is not None


def test_without_pinned_keys_the_roots_log_is_unclear_and_still_held_to_its_own_words() -> None:
    first = entry(EntryKind.KEYS, delegate(delegation("")), "")
    thief = entry(EntryKind.DELEGATION, delegate(delegation("88"), "thief"), "")
    assert graded(first, anchor=None) == doubts(0)
    assert lies(first, thief, anchor=None) == [(1, R.SIGNER_UNKNOWN)]
    assert lies(first, thief, anchor=Anchor.of(public("another"))) == [(1, R.SIGNER_UNKNOWN)]
    assert replayed(first).zones == ()
    assert replayed(first, anchor=anchor()).zones == (ROOT,)

"""The auditor's replay: a sound log gives no finding, and each broken rule gives the one that names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from idtrace import merkle
from idtrace.audit import FINDINGS_MAX, Finding, Grade, Replay
from idtrace.chain import Anchor
from idtrace.delegation import Role, ZoneKey
from idtrace.entry import Entry, EntryKind, UnderSeal
from idtrace.errors import Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Record, RecordKind, Status
from idtrace.seal import Seal, seal
from idtrace.signature import Kind, Signed, sign, signed_hash
from idtrace.statements import Command, Currency, Denial, DenialReason, PrefixStatus
from tests.core_fixtures import (
    ITEM,
    NOW,
    ZONE,
    anchor,
    delegate,
    delegation,
    public,
    record,
    revocation,
    signer,
    tombstone,
)
from tests.logged_fixtures import logged

R = Reason
HERE = Prefix.parse(ZONE)
PARENT = {Prefix.parse("88.118"): {public("zone of 88.118").key_id: public("zone of 88.118")}}
SECOND = Identifier.parse(f"{ZONE}/SN-0002")
CHILD = f"{ZONE}.1"
CHILD_ITEM = Identifier.parse(f"{CHILD}/X")


def entry(kind: EntryKind, signed: Signed, zone: str = ZONE, at: int = NOW) -> Entry:
    return Entry(kind, Prefix.parse(zone), at, signed.payload, signed.signatures)


def keys(at: int = NOW, **changes: Any) -> Entry:
    """The zone's own delegation, as its node takes it over."""
    return entry(EntryKind.KEYS, delegate(delegation(ZONE, **changes)), at=at)


def from_the_first(at: int = NOW) -> Entry:
    """The zone's keys, as version 1 and with the promise that every change of the zone stands in this log."""
    return entry(EntryKind.KEYS, delegate(logged()), at=at)


def written(one: Record, at: int = NOW, zone: str = ZONE) -> Entry:
    return entry(EntryKind.RECORD, one.signed, zone, at)


def handed_out(zone: str, version: int = 1, previous: bytes = b"") -> Entry:
    """A child zone's delegation in its parent's log."""
    body = delegation(zone, version=version, previous=previous)
    return entry(EntryKind.DELEGATION, delegate(body), str(body.parent))


def batch(count: int = 5, refused: tuple[int, ...] = (), at: int = NOW) -> list[Entry]:
    """A seal and its records, some of which the registry has refused."""
    records = [record(Identifier.parse(f"{ZONE}/B-{n}")) for n in range(count)]
    hashes = [one.hash for one in records]
    sealed = seal(hashes, HERE, signer(f"record of {ZONE}"), issued_at=NOW)
    absent = tuple((n, hashes[n]) for n in refused)
    first = Entry(EntryKind.SEAL, HERE, at, sealed[0].seal.payload, sealed[0].seal.signatures, absent)
    return [
        first,
        *(
            Entry(EntryKind.RECORD, HERE, at, one.signed.payload, UnderSeal(sealed[0].hash, n))
            for n, one in enumerate(records)
            if n not in refused
        ),
    ]


def commanded(prefix: str, by: str = f"zone of {ZONE}") -> Entry:
    """An administrator's move of a prefix."""
    body = Command(Prefix.parse(prefix), PrefixStatus.DISABLED, "", NOW)
    return entry(EntryKind.COMMAND, sign(Kind.COMMAND, body.payload(), signer(by)))


def two_of_three() -> Entry:
    """The zone's keys, two of which sign for it as a parent."""
    owners = tuple(ZoneKey(public(f"owner {n}"), frozenset({Role.ZONE})) for n in (1, 2, 3))
    others = (ZoneKey(public(f"{role} of {ZONE}"), frozenset({role})) for role in (Role.RECORD, Role.NODE))
    return keys(keys=(*owners, *others), zone_threshold=2)


def replayed(*entries: Entry, outside: Any = None, anchor: Anchor | None = None) -> Replay:
    replay = Replay(outside=PARENT if outside is None else outside, anchor=anchor)
    replay.feed([one.to_bytes() for one in entries])
    replay.end()
    return replay


def found(*entries: Entry, anchor: Anchor | None = None) -> list[tuple[int, Reason]]:
    return [(finding.index, finding.reason) for finding in replayed(*entries, anchor=anchor).findings]


FIRST = record(ITEM)
NEXT = record(ITEM, version=2, previous=FIRST.hash, status=Status.RECALLED)


def test_a_sound_log_has_no_finding_and_the_root_of_its_leaves() -> None:
    end = record(ITEM, version=3, previous=NEXT.hash, kind=RecordKind.TOMBSTONE, status=Status.RETIRED, data=())
    child = f"{ZONE}.1"
    command = sign(
        Kind.COMMAND,
        Command(Prefix.parse(child), PrefixStatus.DISABLED, "", NOW).payload(),
        signer(f"zone of {ZONE}"),
    )
    log = [
        keys(),
        written(FIRST),
        *batch(5, refused=(0, 3)),
        written(NEXT, at=NOW + 1),
        written(end, at=NOW + 1),
        handed_out(child),
        handed_out(child, 2, delegation(child).hash),
        entry(EntryKind.COMMAND, command, at=NOW + 1),
        *batch(1, at=NOW + 2),
    ]
    log = [replace(one, committed_at=max(one.committed_at, NOW + 1)) if n > 6 else one for n, one in enumerate(log)]
    log = [*log[:-2], *(replace(one, committed_at=NOW + 2) for one in log[-2:])]
    replay = Replay(outside=PARENT)
    for one in log[:-2]:
        replay.feed([one.to_bytes()])
    replay.end()
    assert replay.findings == []
    assert replay.range.root() == merkle.root_of([merkle.hash_leaf(one.to_bytes()) for one in log[:-2]])
    assert (replay.size, replay.identifiers) == (len(log) - 2, 4)


@pytest.mark.parametrize(
    ("log", "reason", "at"),
    [
        pytest.param([keys(), written(record(ITEM, "zone of 88.118"))], R.SIGNER_UNKNOWN, 1, id="somebody else's key"),
        pytest.param([from_the_first(), written(NEXT)], R.VERSION_GAP, 1, id="begins at version 2"),
        pytest.param([keys(), written(FIRST), written(FIRST)], R.VERSION_GAP, 2, id="version 1 twice"),
        pytest.param(
            [keys(), written(FIRST), written(record(ITEM, version=3, previous=FIRST.hash))],
            R.VERSION_GAP,
            2,
            id="a version left out",
        ),
        pytest.param(
            [keys(), written(FIRST), written(record(ITEM, version=2, previous=bytes(32)))],
            R.PREVIOUS_HASH_MISMATCH,
            2,
            id="another predecessor",
        ),
        pytest.param(
            [keys(), written(FIRST), written(record(ITEM, version=2, previous=FIRST.hash, kind=RecordKind.BLOCK))],
            R.KIND_CHANGED,
            2,
            id="another kind",
        ),
        pytest.param(
            [
                keys(),
                written(FIRST),
                written(
                    record(
                        ITEM, version=2, previous=FIRST.hash, kind=RecordKind.TOMBSTONE, status=Status.RETIRED, data=()
                    )
                ),
                written(record(ITEM, version=3, previous=tombstone().hash)),
            ],
            R.IDENTIFIER_RETIRED,
            3,
            id="life after the end",
        ),
        pytest.param(
            [keys(), written(record(Identifier.parse("88.118.9/X"), f"record of {ZONE}"))],
            R.RECORD_OUT_OF_ZONE,
            1,
            id="another zone's identifier",
        ),
        pytest.param(
            [keys(), handed_out(f"{ZONE}.1"), written(record(Identifier.parse(f"{ZONE}.1/X"), f"record of {ZONE}"))],
            R.ZONE_DELEGATED,
            2,
            id="a parent's record in a child zone",
        ),
        pytest.param([keys(), written(FIRST, at=NOW - 1)], R.LOG_TIME, 1, id="time goes back"),
        pytest.param(
            [keys(), written(record(ITEM, issued_at=NOW + 31))], R.RECORD_FROM_FUTURE, 1, id="dated after its commit"
        ),
        pytest.param(
            [keys(), keys(version=1, expires=NOW + 5)], R.DELEGATION_ROLLED_BACK, 1, id="keys of the same version"
        ),
        pytest.param(
            [keys(version=3, previous=bytes(32)), keys(version=2, previous=bytes(32))],
            R.DELEGATION_ROLLED_BACK,
            1,
            id="older keys",
        ),
        pytest.param(
            [keys(), keys(version=2, previous=bytes(32))], R.PREVIOUS_HASH_MISMATCH, 1, id="keys of another line"
        ),
        pytest.param(
            [from_the_first(), handed_out(f"{ZONE}.1", 2, bytes(32))],
            R.VERSION_GAP,
            1,
            id="a child zone begins at version 2",
        ),
        pytest.param(
            [keys(), handed_out(f"{ZONE}.1"), handed_out(f"{ZONE}.1", 3, bytes(32))],
            R.VERSION_GAP,
            2,
            id="a child zone's version left out",
        ),
        pytest.param(
            [keys(), entry(EntryKind.DELEGATION, delegate(delegation(f"{ZONE}.1")), "88.118")],
            R.REFERRAL_SIDEWAYS,
            1,
            id="in another zone's name",
        ),
        pytest.param(
            [
                keys(),
                written(record(CHILD_ITEM, f"record of {ZONE}")),
                handed_out(CHILD),
                written(record(CHILD_ITEM), zone=CHILD),
            ],
            R.IDENTIFIER_TAKEN,
            3,
            id="a child zone registers its parent's identifier again",
        ),
        pytest.param([keys(), commanded("88.118.9")], R.REFERRAL_SIDEWAYS, 1, id="a command about another's prefix"),
        pytest.param([keys(), commanded(ZONE)], R.REFERRAL_SIDEWAYS, 1, id="a command about the zone itself"),
        pytest.param([keys(), commanded(CHILD, "thief")], R.SIGNER_UNKNOWN, 1, id="a thief's command"),
        pytest.param(
            [two_of_three(), entry(EntryKind.DELEGATION, delegate(delegation(CHILD), "owner 1"), ZONE)],
            R.THRESHOLD_NOT_MET,
            1,
            id="too few of a parent's keys",
        ),
        pytest.param(
            [keys(), entry(EntryKind.KEYS, delegate(revocation(ZONE))), written(FIRST)],
            R.DELEGATION_REVOKED,
            2,
            id="a record after the zone was taken back",
        ),
    ],
)
def test_a_broken_rule_is_found_at_its_entry(log: list[Entry], reason: Reason, at: int) -> None:
    replay = replayed(*log)
    assert [(finding.index, finding.reason) for finding in replay.findings] == [(at, reason)]
    assert replay.findings[0].grade is Grade.MISBEHAVIOUR


@pytest.mark.parametrize(
    ("change", "where"),
    [
        pytest.param(lambda log: [*log[:2], *log[3:]], 3, id="a record is missing"),
        pytest.param(lambda log: log[:-1], 1, id="the last record is missing"),
        pytest.param(lambda log: [log[0], log[2], log[1], *log[3:]], 2, id="two records change places"),
        pytest.param(lambda log: [replace(log[0], absent=((0, bytes(32)),)), log[2], *log[3:]], 1, id="a false hash"),
        pytest.param(lambda log: [*log, log[-1]], 7, id="a record too many"),
    ],
)
def test_a_seal_is_followed_by_its_records_and_by_nothing_else(
    change: Callable[[list[Entry]], list[Entry]], where: int
) -> None:
    log = [keys(), *change(batch(5))]
    assert (where, R.SEAL_PATH) in found(*log)


def test_another_zones_seal_and_a_seal_by_another_key_are_found() -> None:
    log = batch(2)
    foreign = Seal(Prefix.parse("88.118.9"), bytes(32), 2, NOW)
    wrong = sign(Kind.SEAL, foreign.payload(), signer(f"record of {ZONE}"))
    assert found(keys(), entry(EntryKind.SEAL, wrong)) == [(1, R.SEAL_WRONG_ZONE)]
    stolen = sign(Kind.SEAL, log[0].payload, signer("record of 88.118.9"))
    assert found(keys(), entry(EntryKind.SEAL, stolen))[0] == (1, R.SIGNER_UNKNOWN)


def test_records_after_the_index_at_which_a_key_ended_are_found_and_those_before_are_not() -> None:
    usual = [ZoneKey(public(f"{role} of {ZONE}"), frozenset({role})) for role in (Role.ZONE, Role.NODE, Role.LOG)]
    old = ZoneKey(public(f"record of {ZONE}"), frozenset({Role.RECORD}), until=3)
    new = ZoneKey(public("new record key"), frozenset({Role.RECORD}))
    rotated = keys(version=2, previous=delegation(ZONE).hash, keys=(*usual, old, new), log=f"log.example/{ZONE}")
    log = [
        keys(),
        rotated,
        written(FIRST),  # 2: the old key still counts
        written(record(SECOND)),  # 3: it does not any more
        written(record(SECOND, "new record key")),
    ]
    assert found(*log) == [(3, R.SIGNER_UNKNOWN)]


def test_a_seal_whose_key_ends_among_its_records_is_found_at_the_first_that_comes_too_late() -> None:
    usual = [ZoneKey(public(f"{role} of {ZONE}"), frozenset({role})) for role in (Role.ZONE, Role.NODE, Role.LOG)]
    old = ZoneKey(public(f"record of {ZONE}"), frozenset({Role.RECORD}), until=3)
    assert found(keys(keys=(*usual, old), log=f"log.example/{ZONE}"), *batch(2))[0] == (3, R.SIGNER_UNKNOWN)


def test_a_zones_own_word_and_its_parents_are_one() -> None:
    child = delegate(delegation(CHILD))
    log = [keys(), handed_out(CHILD), entry(EntryKind.KEYS, child, CHILD), written(record(CHILD_ITEM), zone=CHILD)]
    assert found(*log) == []


def test_a_node_may_miss_a_version_of_its_own_keys_and_a_parent_none_of_its_childs() -> None:
    late = keys(version=5, previous=bytes(32))
    assert found(keys(), late, written(FIRST)) == []
    assert found(keys(), handed_out(CHILD), handed_out(CHILD, 5, bytes(32))) == [(2, R.VERSION_GAP)]


def test_the_roots_own_keys_are_checked_against_the_pinned_ones_and_each_time() -> None:
    first, second = delegation(""), delegation("", version=2, previous=delegation("").hash)
    log = [
        entry(EntryKind.KEYS, delegate(first), ""),
        entry(EntryKind.KEYS, delegate(second), ""),
        entry(EntryKind.DELEGATION, delegate(delegation("88")), ""),
    ]
    assert replayed(*log, anchor=anchor()).findings == []
    thief = entry(EntryKind.KEYS, delegate(second, "zone of "), "")
    assert found(log[0], thief, anchor=anchor()) == [(1, R.SIGNER_UNKNOWN)]
    unpinned = replayed(log[0], outside={Prefix(()): {public("zone of ").key_id: public("zone of ")}})
    assert [finding.grade for finding in unpinned.findings] == [Grade.UNCLEAR]


def test_after_keys_that_could_not_be_checked_all_is_unclear_until_the_next_that_can() -> None:
    unknown = delegate(delegation(ZONE, version=2, previous=delegation(ZONE).hash), "another zone key of 88.118")
    third = keys(version=3, previous=delegation(ZONE, version=2, previous=delegation(ZONE).hash).hash)
    replay = replayed(
        keys(), entry(EntryKind.KEYS, unknown), written(FIRST), handed_out(CHILD), third, written(record(SECOND))
    )
    assert [(finding.index, finding.grade) for finding in replay.findings] == [(n, Grade.UNCLEAR) for n in (1, 2, 3)]
    assert {finding.reason for finding in replay.findings} == {R.SIGNER_UNKNOWN}


def test_entries_of_a_zone_of_which_the_log_has_said_nothing_are_unclear() -> None:
    replay = replayed(commanded(CHILD), handed_out(CHILD), written(FIRST), outside={})
    assert [finding.grade for finding in replay.findings] == [Grade.UNCLEAR] * 3


def test_a_broken_rule_is_found_once_and_not_again_in_all_that_follows() -> None:
    third = record(ITEM, version=3, previous=NEXT.hash)
    assert found(keys(), written(NEXT), written(third)) == [(1, R.VERSION_GAP)]


def test_a_missing_key_of_a_parent_is_unclear_and_no_misbehaviour() -> None:
    replay = replayed(keys(), written(FIRST), outside={})
    assert [finding.grade for finding in replay.findings] == [Grade.UNCLEAR, Grade.UNCLEAR]


def test_findings_are_bounded_and_counted() -> None:
    replay = Replay(outside=PARENT)
    replay.feed([b"junk"] * (FINDINGS_MAX + 5))
    assert (len(replay.findings), replay.broken) == (FINDINGS_MAX, FINDINGS_MAX + 5)
    replay.feed([commanded(CHILD, "somebody").to_bytes()])
    assert [one.grade for one in replay.findings[FINDINGS_MAX:]] == [Grade.UNCLEAR]
    assert replay.findings[0] == Finding(0, Grade.MISBEHAVIOUR, R.ENTRY_MALFORMED, replay.findings[0].detail)


def test_a_statement_is_contradicted_by_an_entry_that_was_there_when_it_was_signed() -> None:
    replay = replayed(keys(), written(FIRST), written(NEXT))
    hidden = Currency(ITEM, HERE, 1, FIRST.hash, 3, NOW, NOW + 60)
    finding = replay.against(hidden)
    assert finding is not None
    assert (finding.index, finding.reason) == (2, R.STATEMENT_CONTRADICTED)
    assert replay.against(replace(hidden, log_size=2)) is None
    assert replay.against(replace(hidden, version=2)) is not None  # version 2 has another content
    assert replay.against(replace(hidden, version=2, record_hash=NEXT.hash)) is None
    assert replay.against(replace(hidden, log_size=9, version=3)) is None  # the log has not been read so far
    assert replay.against(replace(hidden, log_size=9)) is not None
    absent = Denial(ITEM, HERE, DenialReason.IDENTIFIER_ABSENT, NOW, NOW + 60, log_size=3)
    assert replay.against(absent) is not None
    assert replay.against(replace(absent, log_size=None)) is None
    assert replay.against(replace(absent, log_size=1)) is None
    assert replay.against(replace(absent, reason=DenialReason.PREFIX_DISABLED)) is None
    assert replay.against(replace(absent, identifier=SECOND)) is None


def test_a_statement_is_held_against_the_log_as_it_was_then_and_not_as_it_is() -> None:
    third = record(ITEM, version=3, previous=NEXT.hash)
    replay = replayed(keys(), written(FIRST), written(NEXT), written(record(SECOND)), written(third))
    said = Currency(ITEM, HERE, 1, FIRST.hash, 4, NOW, NOW + 60)
    hidden = replay.against(said)
    assert hidden is not None
    assert (hidden.index, "version 2 was its latest" in hidden.detail) == (2, True)
    assert replay.against(replace(said, version=2, record_hash=NEXT.hash)) is None
    invented = replay.against(replace(said, version=3, record_hash=third.hash))
    assert invented is not None
    nobody = replay.against(replace(said, identifier=Identifier.parse(f"{ZONE}/never")))
    assert nobody is not None
    assert "there was none" in nobody.detail
    assert replay.against(Denial(ITEM, HERE, DenialReason.IDENTIFIER_ABSENT, NOW, NOW + 60, log_size=0)) is None


def test_the_log_tells_which_zones_and_keys_it_has() -> None:
    replay = replayed(keys())
    assert replay.zones == (HERE,)
    assert list(replay.zone_keys(HERE)) == [public(f"zone of {ZONE}").key_id]
    assert replay.zone_keys(Prefix.parse("88.9")) == {}
    assert replayed(keys(), *batch(3)[:2], written(FIRST)).findings[0].index == 1  # a seal that was left open
    assert signed_hash(Kind.DELEGATION, keys().payload) == delegation(ZONE).hash

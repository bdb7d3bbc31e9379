"""What a zone's log shows after a thief of its parent's key is gone, and what never may come back."""

from __future__ import annotations

from idtrace.audit import Grade
from idtrace.delegation import Role, ZoneKey
from idtrace.entry import Entry, EntryKind
from idtrace.errors import Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.signature import Signed
from registry.adoption import news
from registry.authority import Authority
from tests.core_fixtures import NOW, ZONE, anchor, delegate, delegation, links, public, record, revocation, zone_keys
from tests.logged_fixtures import logged
from tests.unit.test_audit import CHILD, CHILD_ITEM, HERE, commanded, entry, from_the_first, handed_out, written
from tests.unit.test_audit_unclear import graded, lies, second

R = Reason
PARENT = "88.118"
STOLEN, KEPT = f"zone of {PARENT}", f"second zone key of {PARENT}"
KEPT_KEY = ZoneKey(public(KEPT), frozenset({Role.ZONE}))
BOTH = delegation(PARENT, keys=(*zone_keys(PARENT), KEPT_KEY))
WITHOUT = delegation(
    PARENT,
    version=2,
    previous=BOTH.hash,
    keys=(*(one for one in zone_keys(PARENT) if Role.ZONE not in one.roles), KEPT_KEY),
)
OUTSIDE = {Prefix.parse(PARENT): {public(name).key_id: public(name) for name in (STOLEN, KEPT)}}


def adopted(*words: tuple[Signed, Signed]) -> list[Entry]:
    """What a node logs that hears, one after the other, the parent's delegation and with it the zone's own."""
    authority, log = Authority(anchor(), frozenset({HERE})), []
    for parent, own in words:
        chain = news(authority, HERE, (*links()[:2], parent, own), NOW)
        assert chain is not None, "the node takes it"
        authority.adopt(HERE, chain.links)
        log.append(entry(EntryKind.KEYS, own))
    return log


def test_the_word_before_a_thiefs_comes_back_when_his_key_is_gone() -> None:
    honest = delegate(logged(), KEPT)
    thiefs = delegate(logged(version=2**53 - 1, previous=bytes(32)), STOLEN)
    log = adopted((delegate(BOTH), honest), (delegate(BOTH), thiefs), (delegate(WITHOUT), honest))
    assert graded(*log, outside=OUTSIDE) == [(2, Grade.UNCLEAR, R.DELEGATION_ROLLED_BACK)]


def test_a_word_that_names_one_which_a_thief_has_kept_from_the_node_accuses_nobody() -> None:
    hidden = logged(version=2, previous=logged().hash, endpoints=("other.example:7001",))
    last = delegate(logged(version=3, previous=hidden.hash), KEPT)
    words = ((BOTH, delegate(logged(), KEPT)), (BOTH, delegate(second(), STOLEN)), (WITHOUT, last))
    log = adopted(*((delegate(parent), own) for parent, own in words))
    assert graded(*log, outside=OUTSIDE) == [(2, Grade.UNCLEAR, R.PREVIOUS_HASH_MISMATCH)]


def test_one_key_neither_goes_back_nor_says_two_things_of_one_version() -> None:
    words = [logged(), second(), second(endpoints=("other.example:7001",))]
    log = [entry(EntryKind.KEYS, delegate(one, KEPT)) for one in words]
    assert lies(*log, outside=OUTSIDE) == [(2, R.DELEGATION_ROLLED_BACK)]
    assert lies(log[0], log[1], log[0], outside=OUTSIDE) == [(2, R.DELEGATION_ROLLED_BACK)]


def test_no_record_counts_below_a_zone_that_was_taken_back() -> None:
    below = f"{CHILD}.7"
    taken_back = entry(EntryKind.DELEGATION, delegate(revocation(CHILD)), ZONE)
    late = written(record(Identifier.parse(f"{below}/X")), zone=below)
    log = [from_the_first(), handed_out(CHILD), handed_out(below), taken_back, late]
    assert lies(*log) == [(4, R.DELEGATION_REVOKED)]
    assert lies(*log[:3], late) == []


def test_a_key_that_has_ended_does_not_come_back() -> None:
    others = tuple(one for one in zone_keys(CHILD) if Role.RECORD not in one.roles)
    log = ZoneKey(public("log of the child"), frozenset({Role.LOG}))

    def handed(version: int, previous: bytes, until: int | None) -> tuple[Entry, bytes]:
        key = ZoneKey(public(f"record of {CHILD}"), frozenset({Role.RECORD}), until)
        body = delegation(CHILD, version=version, previous=previous, keys=(*others, key, log), log="log.example/x")
        return entry(EntryKind.DELEGATION, delegate(body), ZONE), body.hash

    first, hashed = handed(1, b"", None)
    ended, hashed = handed(2, hashed, 9)
    for until, found in ((None, [(3, R.SIGNER_UNKNOWN)]), (10, [(3, R.SIGNER_UNKNOWN)]), (9, []), (8, [])):
        assert lies(from_the_first(), first, ended, handed(3, hashed, until)[0]) == found


def test_commands_and_records_of_a_zone_that_lives_stay_sound() -> None:
    log = [from_the_first(), handed_out(CHILD), commanded(f"{ZONE}.9"), written(record(CHILD_ITEM), zone=CHILD)]
    assert graded(*log) == []

"""Single lies in an honest history of a log: what is added, which of the added entries is the lie, and its reason.

Each is told by the log's own operator, who has signed a checkpoint over it, with the keys that the lie needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from idtrace.entry import Entry, EntryKind
from idtrace.errors import Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Record, RecordBody, RecordKind, Status
from idtrace.seal import Seal
from idtrace.signature import Kind, sign
from idtrace.statements import Command, PrefixStatus
from tests.core_fixtures import ZONE, delegate, delegation, record, signed_record, signer
from tests.log_histories import History, named_keys, sealed_entries

R = Reason


@dataclass(frozen=True)
class Told:
    """Entries that are added, which of them the finding has to name, and the reason."""

    entries: Sequence[Entry | bytes]
    reason: Reason
    lie: int = 0


Teller = Callable[[History], Told]


def _key(history: History, zone: str = ZONE) -> str:
    return history.zones[zone].signers(history.size)[-1]


def _written(history: History, one: Record, zone: str = ZONE, **changes: Any) -> Entry:
    return replace(history.entry(EntryKind.RECORD, zone, one.signed), **changes)


def _record(reason: Reason, make: Callable[[History, str], Record]) -> Teller:
    """A record of the zone, made with a key of it that counts."""
    return lambda history: Told([_written(history, make(history, _key(history)))], reason)


def _version(history: History, shift: int, **changes: Any) -> Record:
    """The next version of a living identifier, its number shifted."""
    which = history.pick(history.living(ZONE))
    version = RecordBody.parse(history.last[which].signed.payload).version + 1 + shift
    given: dict[str, Any] = {"version": version, "previous": history.last[which].hash if version > 1 else b""}
    return history.following(which, _key(history), **given | changes)


def _revived(history: History, by: str) -> Record:
    which = history.pick(one for one in history.ended if str(one.prefix) == ZONE)
    return history.following(which, by, kind=RecordKind.ITEM)


def _forged(history: History) -> Told:
    sound = _written(history, history.first(ZONE, _key(history)))
    assert isinstance(sound.by, tuple)
    broken = replace(sound.by[0], signature=sound.by[0].signature[:32] + bytes(32))
    return Told([replace(sound, by=(broken,))], R.SIGNATURE_INVALID)


def _by(name: str) -> Teller:
    return lambda history: Told([_written(history, history.first(ZONE, name))], R.SIGNER_UNKNOWN)


def _in_childs_name(history: History, by: str, reason: Reason, zone: str | None = None) -> Told:
    child = history.pick(history.children())
    return Told([_written(history, history.first(child, by), child if zone is None else zone)], reason)


def _of_gone(history: History) -> Told:
    gone = history.pick(history.children(standing=False))
    return Told([_written(history, history.first(gone, f"record of {gone}"), gone)], R.DELEGATION_REVOKED)


def _twice_owned(history: History) -> Told:
    """The parent registers below a prefix, hands the prefix out, and the child registers the same."""
    child = f"{ZONE}.taken"
    name = Identifier.parse(f"{child}/X")
    entries = [
        _written(history, record(name, _key(history))),
        history.entry(EntryKind.DELEGATION, ZONE, delegate(delegation(child))),
        _written(history, record(name, f"record of {child}"), child),
    ]
    return Told(entries, R.IDENTIFIER_TAKEN, 2)


def _payload(history: History, change: Callable[[bytes], bytes], reason: Reason) -> Told:
    sound = history.first(ZONE, _key(history)).signed.payload
    return Told([_written(history, signed_record(change(sound), by=_key(history)))], reason)


def _child(reason: Reason, by: str = f"zone of {ZONE}", shift: int = 1, **changes: Any) -> Teller:
    """The next word on a child zone, with its version shifted from the last one's."""

    def tell(history: History) -> Told:
        books = [history.zones[child] for child in history.children()]
        before = history.pick(book.body for book in books if book.body.version > 1)
        given: dict[str, Any] = {"version": before.version + shift, "previous": before.hash}
        body = replace(before, **given | changes)
        return Told([history.entry(EntryKind.DELEGATION, ZONE, delegate(body, by))], reason)

    return tell


def _new_child(history: History) -> Told:
    body = delegation(f"{ZONE}.late", version=2, previous=bytes(32))
    return Told([history.entry(EntryKind.DELEGATION, ZONE, delegate(body))], R.VERSION_GAP)


def _in_anothers_name(history: History) -> Told:
    child = history.pick(history.children())
    body = delegate(delegation(f"{ZONE}.side"))
    return Told([history.entry(EntryKind.DELEGATION, child, body)], R.REFERRAL_SIDEWAYS)


def _own(reason: Reason, by: str = "zone of 88.118", shift: int = 1, **changes: Any) -> Teller:
    """The zone's next own keys, with their version shifted."""

    def tell(history: History) -> Told:
        book = history.zones[ZONE]
        given: dict[str, Any] = {
            "version": book.body.version + shift,
            "previous": book.body.hash,
            "expires": history.now + 5,
        }
        body = replace(book.body, **given | changes)
        return Told([history.entry(EntryKind.KEYS, ZONE, delegate(body, by))], reason)

    return tell


def _forged_keys(history: History) -> Told:
    body = replace(history.zones[ZONE].body, version=9, keys=named_keys(ZONE, {"thief": None}))
    sound = history.entry(EntryKind.KEYS, ZONE, delegate(body))
    assert isinstance(sound.by, tuple)
    return Told([replace(sound, by=(replace(sound.by[0], signature=bytes(range(64))),))], R.SIGNATURE_INVALID)


def _command(prefix: str, by: str, reason: Reason) -> Teller:
    def tell(history: History) -> Told:
        body = Command(Prefix.parse(prefix), PrefixStatus.DISABLED, "", history.now)
        return Told([history.entry(EntryKind.COMMAND, ZONE, sign(Kind.COMMAND, body.payload(), signer(by)))], reason)

    return tell


def _seal(change: Callable[[list[Entry]], list[Entry]], lie: int, *refused: int) -> Teller:
    """A batch of five, changed."""
    return lambda history: Told(change(history.batch(ZONE, 5, frozenset(refused))), R.SEAL_PATH, lie)


def _stolen_seal(history: History) -> Told:
    batch = history.batch(ZONE, 2)
    stolen = sign(Kind.SEAL, batch[0].payload, signer("thief"))
    return Told([history.entry(EntryKind.SEAL, ZONE, stolen)], R.SIGNER_UNKNOWN)


def _foreign_seal(history: History) -> Told:
    body = Seal(Prefix.parse("88.118.9"), bytes(32), 2, history.now)
    signed = sign(Kind.SEAL, body.payload(), signer(_key(history)))
    return Told([history.entry(EntryKind.SEAL, ZONE, signed)], R.SEAL_WRONG_ZONE)


def _sealed(reason: Reason, make: Callable[[History, str], Record]) -> Teller:
    """A lie in the second record of a batch whose seal is sound."""

    def tell(history: History) -> Told:
        by = _key(history)
        batch = sealed_entries(history, ZONE, by, [history.first(ZONE, by), make(history, by), history.first(ZONE, by)])
        return Told(batch, reason, 2)

    return tell


def _two_in_one(history: History) -> Told:
    by = _key(history)
    one = history.first(ZONE, by)
    return Told(sealed_entries(history, ZONE, by, [one, one]), R.VERSION_GAP, 2)


LIES: dict[str, Teller] = {
    # form and time
    "no entry": lambda _history: Told([b"junk"], R.ENTRY_MALFORMED),
    "time goes back": lambda history: Told(
        [_written(history, history.first(ZONE, _key(history)), committed_at=_last_time(history) - 1)], R.LOG_TIME
    ),
    "no body": lambda history: _payload(history, lambda _: b"{}", R.FIELD_MISSING),
    "a body that is not canonical": lambda history: _payload(history, lambda sound: sound + b" ", R.BODY_NOT_CANONICAL),
    "a body with a field more": lambda history: _payload(
        history, lambda sound: sound[:-1] + b',"zone":""}', R.FIELD_MALFORMED
    ),
    # signatures of records
    "a record by a thief": _by("thief"),
    "a record by the zone's node key": _by(f"node of {ZONE}"),
    "a record by a key of its parent": _by("zone of 88.118"),
    "a record by a key that has ended": _by(f"record of {ZONE}"),
    "a record with a false signature": _forged,
    "a child's record by its parent's key": lambda history: _in_childs_name(history, _key(history), R.SIGNER_UNKNOWN),
    "a record of a zone that was taken back": _of_gone,
    # the place of records
    "another zone's identifier": _record(
        R.RECORD_OUT_OF_ZONE, lambda _, by: record(Identifier.parse("88.118.9/X"), by)
    ),
    "a parent's record in a child zone": lambda history: _in_childs_name(
        history, _key(history), R.ZONE_DELEGATED, ZONE
    ),
    "a record from the future": _record(
        R.RECORD_FROM_FUTURE, lambda history, by: history.first(ZONE, by, issued_at=history.now + 31)
    ),
    "an identifier with two owners": _twice_owned,
    # lives
    "a beginning at version 2": _record(
        R.VERSION_GAP, lambda history, by: history.first(ZONE, by, version=2, previous=bytes(32))
    ),
    "a version twice": _record(R.VERSION_GAP, lambda history, _: _version(history, -1, status=Status.RECALLED)),
    "a version left out": _record(R.VERSION_GAP, lambda history, _: _version(history, 1)),
    "another predecessor": _record(
        R.PREVIOUS_HASH_MISMATCH, lambda history, _: _version(history, 0, previous=bytes(range(32)))
    ),
    "another kind": _record(
        R.KIND_CHANGED, lambda history, by: history.following(_an_item(history), by, kind=RecordKind.BLOCK)
    ),
    "life after the end": _record(R.IDENTIFIER_RETIRED, _revived),
    # child zones
    "a child zone's version left out": _child(R.VERSION_GAP, shift=2),
    "a child zone's version again, with other words": _child(R.DELEGATION_ROLLED_BACK, shift=0, expires=1_900_000_009),
    "a child zone's older version": _child(R.DELEGATION_ROLLED_BACK, version=1, previous=b""),
    "a child zone's version of another line": _child(R.PREVIOUS_HASH_MISMATCH, previous=bytes(range(32))),
    "a child zone by a thief": _child(R.SIGNER_UNKNOWN, "thief"),
    "a child zone by a record key": _child(R.SIGNER_UNKNOWN, f"record of {ZONE}"),
    "a child zone that begins at version 2": _new_child,
    "a child zone in another zone's name": _in_anothers_name,
    # the zone's own keys
    "older keys": _own(R.DELEGATION_ROLLED_BACK, version=1, previous=b""),
    "the same version of the keys, with other words": _own(R.DELEGATION_ROLLED_BACK, shift=0),
    "keys of another line": _own(R.PREVIOUS_HASH_MISMATCH, previous=bytes(range(32))),
    "keys with a false signature": _forged_keys,
    # commands
    "a command by a thief": _command(f"{ZONE}.x", "thief", R.SIGNER_UNKNOWN),
    "a command about another's prefix": _command("88.118.9", f"zone of {ZONE}", R.REFERRAL_SIDEWAYS),
    # seals
    "a seal by a thief": _stolen_seal,
    "another zone's seal": _foreign_seal,
    "a sealed record is missing": _seal(lambda log: [*log[:2], *log[3:]], 2),
    "the last sealed record is missing": _seal(lambda log: log[:-1], 0),
    "two sealed records change places": _seal(lambda log: [*log[:2], log[3], log[2], *log[4:]], 2),
    "a sealed record twice": _seal(lambda log: [*log, log[-1]], 6),
    "a sealed record without its seal": _seal(lambda log: log[1:], 0),
    "a false hash for one that was refused": _seal(
        lambda log: [replace(log[0], absent=((2, bytes(32)),)), *log[1:]], 0, 2
    ),
    "one that was refused is left out": _seal(lambda log: [replace(log[0], absent=()), *log[1:]], 3, 2),
    "a sealed version left out": _sealed(R.VERSION_GAP, lambda history, _: _version(history, 1)),
    "another zone's identifier under a seal": _sealed(
        R.RECORD_OUT_OF_ZONE, lambda _, by: record(Identifier.parse("88.118.9/X"), by)
    ),
    "a sealed record twice in its batch": _two_in_one,
}


def _an_item(history: History) -> Identifier:
    kinds = {one: RecordBody.parse(history.last[one].signed.payload).kind for one in history.living(ZONE)}
    which: Identifier = history.pick(one for one, kind in kinds.items() if kind is RecordKind.ITEM)
    return which


def _last_time(history: History) -> int:
    return Entry.from_bytes(history.entries[-1]).committed_at

"""A zone that keeps a log: its chain, records with their proofs, batches under a seal, and its word for "latest"."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from idtrace.bundle import Bundle
from idtrace.checkpoint import Checkpoint
from idtrace.delegation import Delegation, Role, ZoneKey
from idtrace.entry import Entry, EntryKind, UnderSeal
from idtrace.identifier import Identifier, Prefix
from idtrace.logproof import LogProof
from idtrace.merkle import hash_leaf
from idtrace.note import Note, NoteSigner
from idtrace.record import Record, RecordBody
from idtrace.seal import seal
from idtrace.signature import Kind, Signed, sign
from idtrace.statements import Currency
from tests.core_fixtures import ITEM, NOW, ZONE, delegate, delegation, public, record, signer, with_last, zone_keys
from tests.log_fixtures import leaves, naive_path, naive_root

HERE = Prefix.parse(ZONE)
LOG = f"log.example/{ZONE}"
INDEX, SIZE = 3, 7
OWNER, CURRENT = f"record of {ZONE}", f"currency of {ZONE}"


def logged(**changes: Any) -> Delegation:
    """The delegation of a zone with a log, with some fields replaced."""
    given: dict[str, Any] = {"keys": zone_keys(ZONE, Role), "log": LOG}
    return delegation(ZONE, **given | changes)


def ending(until: int) -> Delegation:
    """The same, where the owner's record key ends at an index and another one follows it."""
    others = tuple(key for key in zone_keys(ZONE, Role) if key.roles != {Role.RECORD})
    old = ZoneKey(public(OWNER), frozenset({Role.RECORD}), until)
    return logged(keys=(*others, old, ZoneKey(public("new record key"), frozenset({Role.RECORD}))))


def logged_chain(body: Delegation | None = None) -> tuple[Signed, ...]:
    """The chain down to the zone with a log."""
    return with_last(delegate(body or logged()))


def log_signer(name: str = f"log of {ZONE}", origin: str = LOG) -> NoteSigner:
    """The key of the zone's log, or another key under its name."""
    return NoteSigner.of(origin, signer(name))


def entry_of(of: Record, **changes: Any) -> Entry:
    """The entry of a record of the zone, with some fields replaced."""
    by = of.signed.signatures if of.sealed is None else UnderSeal(of.sealed.hash, of.sealed.position)
    return replace(Entry(EntryKind.RECORD, HERE, NOW, of.signed.payload, by), **changes)


def proof_of(
    of: Record,
    index: int = INDEX,
    size: int = SIZE,
    *,
    signers: Iterable[NoteSigner] | None = None,
    origin: str = LOG,
    **changes: Any,
) -> LogProof:
    """A sound proof in a log whose other leaves are of no interest; ``changes`` are the entry's."""
    entry = entry_of(of, **changes)
    hashes = [*leaves(index), hash_leaf(entry.to_bytes()), *leaves(size - index - 1)]
    text = Checkpoint(origin, size, naive_root(hashes)).text
    by = (log_signer(),) if signers is None else signers
    note = Note(text, tuple(one.sign(text, NOW if one.key.type.is_cosignature else 0) for one in by))
    return LogProof(index, tuple(naive_path(index, hashes)), note.encode(), entry.head)


def currency_of(of: Record, by: str = CURRENT, **changes: Any) -> Signed:
    """The zone's word that a record is the latest, signed by its currency key or by the key named ``by``."""
    body = RecordBody.parse(of.signed.payload)
    said = Currency(body.identifier, HERE, body.version, of.hash, SIZE, NOW - 5, NOW + 55)
    return sign(Kind.CURRENCY, replace(said, **changes).payload(), signer(by))


def sealed_records(count: int = 5, by: str = OWNER, *, zone: str = ZONE, issued_at: int = NOW) -> tuple[Record, ...]:
    """A batch of the zone under one seal; the first of them is about ITEM."""
    names = [ITEM, *(Identifier.parse(f"{ZONE}/B-{n}") for n in range(1, count))]
    records = [record(name) for name in names]
    places = seal([one.hash for one in records], Prefix.parse(zone), signer(by), issued_at=issued_at)
    return tuple(
        Record(replace(one.signed, signatures=()), one.values, place)
        for one, place in zip(records, places, strict=True)
    )


def logged_bundle(of: Record | None = None, **changes: Any) -> Bundle:
    """A sound bundle with a proof and a currency statement, with some parts replaced."""
    shown = record() if of is None else of
    sound = Bundle(ITEM, logged_chain(), shown, proof_of(shown), currency_of(shown))
    return replace(sound, **changes)

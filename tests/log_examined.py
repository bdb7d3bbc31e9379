"""What lies in a store after a node has died, held against all that its clients were ever told.

The tree is built again from the entries alone, by hashing them; proofs are made as the node makes them and checked by
:mod:`idtrace.merkle` against roots that others were given; every rule of the log is replayed as an auditor does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from idtrace import wire
from idtrace.audit import Replay
from idtrace.chain import Anchor
from idtrace.checkpoint import Checkpoint
from idtrace.entry import Entry, EntryKind
from idtrace.errors import IdtraceError
from idtrace.merkle import CompactRange, check_consistency, check_inclusion, hash_leaf
from idtrace.note import Note, open_note
from idtrace.record import RecordBody
from idtrace.tiles import TILE_HEIGHT, tiles_of
from registry.log_reading import LogReading
from registry.storage_sqlite import SqliteStorage
from tests.logged_program import LOG_KEY, LogLedger
from tests.under_fire import version_of

ENTRIES_MAX = 1_000_000


@dataclass
class LogFound:
    """Entries and proofs that were looked at, and whatever is not as it must be; ``wrong`` is empty in a sound log."""

    entries: int = 0
    records: int = 0
    acked: int = 0
    checkpoints: int = 0
    wrong: list[str] = field(default_factory=list)

    def require(self, holds: bool, broken: str) -> None:
        if not holds:
            self.wrong.append(broken)


@dataclass
class Tree:
    """A store's log with its entries; ``roots`` of the sizes that were asked for are computed from the entries."""

    storage: SqliteStorage
    reading: LogReading
    entries: list[bytes]
    leaves: list[bytes]
    root: bytes

    @classmethod
    async def of(cls, storage: SqliteStorage) -> Tree:
        entries = await storage.log_entries(0, ENTRIES_MAX)
        leaves = [hash_leaf(entry) for entry in entries]
        root = CompactRange().extend(leaves).root()
        return cls(storage, LogReading(storage), entries, leaves, root)

    async def prove(self, index: int, payload: bytes, found: LogFound, of: str) -> None:
        """The entry at an index holds a payload, and its path leads to the newest root."""
        if index >= len(self.entries):
            found.wrong.append(f"{of}: entry {index} is gone")
            return
        found.require(Entry.from_bytes(self.entries[index]).payload == payload, f"{of}: entry {index} is another")
        try:
            path = await self.reading.inclusion(index, len(self.entries))
            check_inclusion(self.leaves[index], index, len(self.entries), path, self.root)
        except IdtraceError as error:
            found.wrong.append(f"{of}: no proof of entry {index}: {error}")


async def examine_log(file: Path, ledger: LogLedger, anchor: Anchor) -> LogFound:
    """Open a store as a node does, and look at everything in its log."""
    found = LogFound()
    storage = SqliteStorage(file)
    try:
        tree = await Tree.of(storage)
        found.entries = len(tree.entries)
        await _whole(tree, found, anchor)
        await _nothing_taken_back(tree, found, ledger.told.shown)
        await _acknowledged(tree, found, ledger)
        await _sealed(tree, found, ledger)
    finally:
        await storage.close()
    _visible_is_logged(file, tree.entries, found)
    found.wrong += [f"{key}: a repetition was answered with something else" for key in ledger.changed]
    return found


async def _whole(tree: Tree, found: LogFound, anchor: Anchor) -> None:
    """Head, checkpoint, tiles and entries are of one tree, and no rule is broken."""
    size, head = len(tree.entries), (await tree.storage.log_edge()).head
    note = Note.parse(head.note)
    open_note(note, [LOG_KEY])
    checkpoint = Checkpoint.parse(note.text)
    found.require((checkpoint.size, checkpoint.root) == (size, tree.root), "the checkpoint is not of the entries")
    found.require((head.size, head.range.root()) == (size, tree.root), "the head is not of the entries")
    found.require(await tree.storage.log_note(size) == head.note, "the head's checkpoint is not among the checkpoints")
    _, runs = CompactRange().grow(tree.leaves)
    rows = {run.level // TILE_HEIGHT: run.hashes for run in runs if run.level % TILE_HEIGHT == 0}
    for tile in tiles_of(size):
        wanted = b"".join(rows[tile.level][tile.index * 256 :][: tile.width])
        found.require(await tree.reading.tile(tile) == wanted, f"{tile.path} is another")
    replay = Replay(anchor=anchor)
    replay.feed(tree.entries)
    replay.end()
    found.wrong += [f"entry {one.index}: {one.reason}: {one.detail}" for one in replay.findings]


async def _nothing_taken_back(tree: Tree, found: LogFound, shown: dict[int, set[bytes]]) -> None:
    """Each checkpoint that anybody was shown is the beginning of the newest one."""
    size = len(tree.entries)
    found.checkpoints = len(shown)
    for old, roots in sorted(shown.items()):
        for root in roots:
            try:
                proof = await tree.reading.consistency(old, size)
                check_consistency(old, root, size, tree.root, proof)
            except IdtraceError as error:
                found.wrong.append(f"checkpoint {old} was shown and is not in the log of {size}: {error}")


async def _acknowledged(tree: Tree, found: LogFound, ledger: LogLedger) -> None:
    """Every receipt stands: record, receipt and entry are there byte for byte, and so is the proof beside it."""
    for key in sorted(ledger.acked, key=lambda key: ledger.proofs[key].index):
        identifier, record = ledger.sent[key]
        proof, checkpoint = ledger.proofs[key], Checkpoint.parse(Note.parse(ledger.proofs[key].checkpoint).text)
        found.acked += 1
        stored = await tree.storage.stored(identifier, version_of(record))
        known = (await tree.storage.earlier("", [key])).get(key)
        held = (stored.record, stored.index) if stored else None
        found.require(held == (wire.record_to_bytes(record), proof.index), f"{key}: lost, or another record")
        found.require(known is not None and known.receipt == ledger.acked[key], f"{key}: lost, or another receipt")
        entry = proof.head + record.signed.payload
        found.require(tree.entries[proof.index : proof.index + 1] == [entry], f"{key}: another entry")
        check_inclusion(hash_leaf(entry), proof.index, checkpoint.size, proof.path, checkpoint.root)
        await tree.prove(proof.index, record.signed.payload, found, key)


async def _sealed(tree: Tree, found: LogFound, ledger: LogLedger) -> None:
    """An acknowledged batch stands where it was said to; of any other there is all or nothing."""
    for key, batch in ledger.batches.items():
        names = [RecordBody.parse(record.signed.payload).identifier for record in batch.records]
        stored = [await tree.storage.stored(str(name)) for name in names]
        there = [one.index for one in stored if one is not None]
        if batch.text:
            found.acked += len(names)
            found.require(there == batch.positions, f"{key}: lost, or in other places")
            for index, record in zip(batch.positions, batch.records, strict=True):
                await tree.prove(index, record.signed.payload, found, key)
        else:
            found.require(len(there) in {0, len(names)}, f"{key}: a part of a sealed batch")


def _visible_is_logged(file: Path, entries: Iterable[bytes], found: LogFound) -> None:
    """Records and entries are one to one; the file is sound."""
    with sqlite3.connect(file) as connection:
        rows = connection.execute("SELECT identifier, log_index, record FROM version").fetchall()
        keys = connection.execute("SELECT count(*) FROM idempotency WHERE key NOT LIKE 'delegation-%'").fetchone()[0]
        found.require(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",), "the file is damaged")
    connection.close()
    found.records = len(rows)
    parsed = enumerate(Entry.from_bytes(data) for data in entries)
    logged = {index: entry.payload for index, entry in parsed if entry.kind is EntryKind.RECORD}
    visible = {index: wire.record_from_bytes(record).signed.payload for _, index, record in rows}
    found.require(logged == visible, "records and entries are not one to one")
    found.require(len(visible) == len(rows) == keys, "records, entries and keys are not one to one")

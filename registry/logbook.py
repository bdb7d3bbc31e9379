"""What a commit adds to the registry's log: entries, tiles and the next checkpoint. Pure: told the time, given the key.

A store holds a :class:`LogHead`; a batch that is being committed opens a :class:`LogDraft` on it, adds an entry for
each write that has won, and finishes with the next head. The store writes all of it together with the batch's rows, if
its head still is the one that the draft began with: so no reader ever sees a record that is not in the log, and two
sequencers on one store cannot both commit.

The last checkpoint's time never goes back; a node whose clock does refuses to commit until it has caught up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from idtrace.checkpoint import Checkpoint
from idtrace.entry import ABSENT_MAX, Entry, EntryKind, UnderSeal
from idtrace.errors import BusyError, Reason, RefusedError
from idtrace.merkle import HASH_BYTES, CompactRange, Run, hash_leaf
from idtrace.note import Note, NoteSigner
from idtrace.record import Sealed
from idtrace.seal import Seal
from idtrace.tiles import TILE_HEIGHT, TILE_WIDTH

_TILE_BYTES: Final = TILE_WIDTH * HASH_BYTES


@dataclass(frozen=True, slots=True)
class LogHead:
    """Where a log stands: its tree's compact range, its signed checkpoint (a note), and the last commit's time (s)."""

    range: CompactRange = field(default_factory=CompactRange)
    note: bytes = b""
    committed_at: int = 0

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.range.size


@dataclass(frozen=True, slots=True)
class TileRow:
    """Content of a tile as a store keeps it: level and place; 32 bytes for each of its hashes, 256 where it is full."""

    level: int
    index: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Edge:
    """A head, and the partial tiles at the right edge of its tree, by level."""

    head: LogHead = field(default_factory=LogHead)
    tiles: Mapping[int, bytes] = field(default_factory=dict)

    @staticmethod
    def partial_tiles(size: int) -> dict[int, int]:
        """Which levels of a tree of this size have a partial tile, and its place in the level."""
        found, level = {}, 0
        while size:
            if size % TILE_WIDTH:
                found[level] = size // TILE_WIDTH
            size, level = size >> TILE_HEIGHT, level + 1
        return found


@dataclass(frozen=True, slots=True)
class Appended:
    """What a store has to write: entries from ``first`` on, tiles new or wider, the next edge."""

    first: int
    entries: tuple[bytes, ...]
    tiles: tuple[TileRow, ...]
    edge: Edge


def require_few_absent(count: int) -> None:
    """Require that so many refused records of one sealed batch can be named in the seal's entry.

    Raises:
        RefusedError: SEAL_REFUSED.
    """
    if count > ABSENT_MAX:
        detail = f"{count} records of the batch cannot be registered, and a seal stands for no batch that lacks so many"
        raise RefusedError(Reason.SEAL_REFUSED, f"{detail} (at most {ABSENT_MAX})", field="items")


@dataclass(slots=True)
class _Batch:
    """A seal in a draft: where its entry stands, and the places of its records that have come."""

    slot: int
    zone_entry: Entry
    sealed_hashes: tuple[bytes, ...]
    present: set[int]


class LogWriter:
    """A log's name and key."""

    def __init__(self, signer: NoteSigner) -> None:
        self._signer = signer

    @property
    def origin(self) -> str:
        """The log's name."""
        return self._signer.key.name

    def has_signed(self, head: LogHead) -> bool:
        """Whether a log's checkpoint bears a line by this key; one by an earlier key is believed by nobody any more."""
        ours = (self._signer.key.name, self._signer.key.key_id)
        return ours in ((line.name, line.key_id) for line in Note.parse(head.note).signatures)

    def draft(self, edge: Edge, now: int) -> LogDraft:
        """Begin a batch at a time (s).

        Raises:
            BusyError: CLOCK_BACK where the clock stands before the last commit.
        """
        if now < edge.head.committed_at:
            behind = edge.head.committed_at - now
            raise BusyError(Reason.CLOCK_BACK, f"this node's clock is {behind} s behind its last commit")
        return LogDraft(edge, now, self._signer)


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a commit needs to log itself: the log's key, and the time (s)."""

    writer: LogWriter
    now: int


class LogDraft:
    """The entries of one batch, as its writes win one after the other."""

    def __init__(self, edge: Edge, now: int, signer: NoteSigner) -> None:
        self.now = now
        self.edge = edge
        self._signer = signer
        self._entries: list[Entry] = []
        self._batches: dict[bytes, _Batch] = {}

    def __len__(self) -> int:
        """Entries so far."""
        return len(self._entries)

    def add(self, entry: Entry) -> int:
        """The index that an entry will have."""
        self._entries.append(entry)
        return self.edge.head.size + len(self._entries) - 1

    def add_sealed(self, entry: Entry, sealed: Sealed, batch: tuple[bytes, ...]) -> int:
        """The index of a record under a seal, whose own entry stands before the first of them.

        ``batch`` are the record hashes of all that was sealed; those that do not come are named absent. Records of a
        seal are added in ascending order, and nothing else between them.
        """
        seal_hash = sealed.hash
        known = self._batches.get(seal_hash)
        if known is None:
            zone = Seal.parse(sealed.seal.payload).zone
            opening = Entry(EntryKind.SEAL, zone, self.now, sealed.seal.payload, sealed.seal.signatures)
            known = self._batches[seal_hash] = _Batch(len(self._entries), opening, batch, set())
            self._entries.append(opening)
        assert isinstance(entry.by, UnderSeal), "it names its seal"
        known.present.add(sealed.position)
        return self.add(entry)

    def finish(self) -> Appended:
        """Hash the entries, grow the tree, sign the checkpoint.

        Raises:
            RefusedError: SEAL_REFUSED where more of a sealed batch lack than its entry can name.
        """
        for batch in self._batches.values():
            missing = (n for n in range(len(batch.sealed_hashes)) if n not in batch.present)
            absent = tuple((n, batch.sealed_hashes[n]) for n in missing)
            require_few_absent(len(absent))
            opening = batch.zone_entry
            self._entries[batch.slot] = Entry(
                opening.kind, opening.zone, opening.committed_at, opening.payload, opening.by, absent
            )
        data = tuple(entry.to_bytes() for entry in self._entries)
        old = self.edge.head
        grown, runs = old.range.grow([hash_leaf(entry) for entry in data])
        tiles, partial = _tiles(self.edge, grown.size, runs)
        checkpoint = Checkpoint(self._signer.key.name, grown.size, grown.root())
        note = Note(checkpoint.text, (self._signer.sign(checkpoint.text),)).encode()
        return Appended(old.size, data, tiles, Edge(LogHead(grown, note, self.now), partial))


def _tiles(edge: Edge, size: int, runs: tuple[Run, ...]) -> tuple[tuple[TileRow, ...], dict[int, bytes]]:
    """Tiles that are new or wider, and the partial ones among all that the tree now has."""
    rows: list[TileRow] = []
    partial = dict(edge.tiles)
    for run in runs:
        level, within = divmod(run.level, TILE_HEIGHT)
        if within:
            continue
        content = partial.pop(level, b"") + b"".join(run.hashes)
        index = run.first // TILE_WIDTH
        for start in range(0, len(content), _TILE_BYTES):
            piece = content[start : start + _TILE_BYTES]
            rows.append(TileRow(level, index + start // _TILE_BYTES, piece))
            if len(piece) < _TILE_BYTES:
                partial[level] = piece
    assert partial.keys() == Edge.partial_tiles(size).keys(), "the edge is that of the tree"
    return tuple(rows), partial

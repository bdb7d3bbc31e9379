"""What a batch asks of the tables, what it may do, and the rows that it becomes. Pure.

**Tables.** Partitions are found without an index and stay bounded. Heads, versions and idempotency keys lie together by
*stem*, the key without its last two bytes: of serials that follow each other about a hundred share a partition and so
a statement, and no partition can hold more than two bytes can tell apart. Versions lie in buckets of 8 besides, so that
a partition of records stays at a few MB: 100 serials of 8 versions of 1 KB are 800 KB, and all 9,025 printable endings
72 MB, below the 100 MB that a partition should not exceed.

**Order.** The number of its batch is the write time of every row (``USING TIMESTAMP``), so whoever writes a batch
again, however late, changes nothing: equal times carry equal values, and older ones lose. They come in
three waves, each when the one before it is there: what is found through others; the head of the log; and what is asked
for by name (heads, grants, chains). So whoever sees a head finds the version, the key and the claims that came with it,
and the log grown by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final
from zlib import crc32

from idtrace.tiles import TILE_HEIGHT, TILE_WIDTH
from registry.cassandra_batch import Batch
from registry.logbook import Appended
from registry.storage import Claim, Earlier, Grant, Head, Outcome, Write, between

# Versions of one identifier in one partition; most identifiers never have more.
VERSIONS_PER_BUCKET: Final = 8
# Rows and bytes a statement: 65,000 rows/s at 50, and a mutation stays far below the server's limit (16 MiB) whatever
# the records' sizes.
ROWS_PER_STATEMENT: Final = 50
STATEMENT_BYTES: Final = 262_144
# Batches of one ledger in one partition of its history.
BATCHES_PER_BUCKET: Final = 10_000
# Batches in one partition of what is told to those who watch: 4 MB of full batches of 2,000 serials, 33 MB where each
# identifier has the longest name there is.
CHANGES_PER_BUCKET: Final = 64
# At most 10,000 applications wait (registry/grants.py), of a few KB each: about 1 MB a bucket.
GRANT_BUCKETS: Final = 64
# Sizes of the log in one partition of its checkpoints: 6 MB where each commit has logged one entry.
NOTES_PER_BUCKET: Final = 16_384
# Entries in one row: a fifth of a batch's rows are saved, and who wants one entry reads 8 KB and not a bundle's 130.
ENTRIES_PER_ROW: Final = 16
# In the place of a version's index in the log where it has none: a null would be a tombstone for each such row.
NOT_LOGGED: Final = -1
_STEM_BYTES: Final = 2


@dataclass(frozen=True, slots=True)
class View:
    """What the tables hold of everything that a batch of writes touches."""

    heads: Mapping[str, Head]
    used: AbstractSet[tuple[str, str]]
    delegated: AbstractSet[str]
    claimants: Mapping[Claim, str]


@dataclass(frozen=True, slots=True)
class Row:
    """One row to write: its table, and the values of its columns in their order, those of the partition first."""

    table: str
    partition: tuple[object, ...]
    rest: tuple[object, ...]


class Standing(Enum):
    """Where a swap stands that nobody has answered."""

    WON = auto()
    LOST = auto()
    OPEN = auto()  # the head is where it was: the same swap may be sent again
    PASSED = auto()  # later batches came: the history knows who came next


def standing(ours: bytes, expected: int, head: tuple[int, bytes]) -> Standing:
    """Judge the head, read serially, against a swap of ``expected`` for the next batch, ours."""
    seq, batch_id = head
    if seq == expected:
        return Standing.OPEN
    if seq == expected + 1:
        return Standing.WON if batch_id == ours else Standing.LOST
    return Standing.PASSED if seq > expected else Standing.LOST


def stem(key: str) -> bytes:
    """What keys that differ in their last two bytes alone share."""
    return key.encode()[:-_STEM_BYTES]


def by_stem(keys: Iterable[str]) -> dict[bytes, list[str]]:
    """Each key once, by its stem."""
    stems: dict[bytes, list[str]] = {}
    for key in dict.fromkeys(keys):
        stems.setdefault(stem(key), []).append(key)
    return stems


def version_bucket(identifier: str, version: int) -> tuple[bytes, int]:
    """Where a version lies: its identifier's stem, and its bucket."""
    return stem(identifier), version // VERSIONS_PER_BUCKET


def grant_bucket(prefix: str) -> int:
    """Which part of the grants a prefix lies in."""
    return crc32(prefix.encode()) % GRANT_BUCKETS


def change_bucket(seq: int) -> int:
    """Where it lies what batch ``seq`` has changed."""
    return seq // CHANGES_PER_BUCKET


def note_bucket(size: int) -> int:
    """Where the checkpoint lies that a log of this size has."""
    return size // NOTES_PER_BUCKET


def entry_row(index: int) -> int:
    """The least index that the row of an entry can have."""
    return index - index % ENTRIES_PER_ROW


def entry_bundles(first: int, end: int) -> range:
    """The bundles in which the entries from ``first`` up to ``end`` lie, without that one."""
    return range(first // TILE_WIDTH, -(-end // TILE_WIDTH))


def tile_width(size: int, level: int, place: int) -> int:
    """How many hashes a tile of a log of this size has; 0 where it is beyond the log."""
    return max(0, min(TILE_WIDTH, (size >> TILE_HEIGHT * level) - place * TILE_WIDTH))


def decide(writes: Sequence[Write], view: View) -> list[Outcome]:
    """One outcome a write, each in the light of those before it."""
    heads = {name: head.version for name, head in view.heads.items()}
    used, claimants = set(view.used), dict(view.claimants)
    outcomes = []
    for write in writes:
        outcome = _outcome(write, heads, used, view.delegated, claimants)
        if outcome is Outcome.COMMITTED:
            heads[write.identifier] = write.head.version
            used.add((write.zone, write.idempotency_key))
            claimants.update(dict.fromkeys(write.claims, write.identifier))
        outcomes.append(outcome)
    return outcomes


def _outcome(
    write: Write,
    heads: Mapping[str, int],
    used: AbstractSet[tuple[str, str]],
    delegated: AbstractSet[str],
    claimants: Mapping[Claim, str],
) -> Outcome:
    if (write.zone, write.idempotency_key) in used:
        return Outcome.KEY_USED
    if heads.get(write.identifier, 0) != write.expected:
        return Outcome.CONFLICT
    if any(prefix in delegated for prefix in between(write)):
        return Outcome.CONFLICT
    if any(claimants.get(claim, write.identifier) != write.identifier for claim in write.claims):
        return Outcome.CLAIMED
    return Outcome.COMMITTED


def decide_grant(grant: Grant, expected: Grant | None, *, used: bool, held: Grant | None, occupied: bool) -> Outcome:
    """Whether a grant may replace what is held; ``occupied``: identifiers are registered within its prefix."""
    if used:
        return Outcome.KEY_USED
    first = grant.version > 0 and (expected is None or expected.version == 0)
    return Outcome.CONFLICT if held != expected or (first and occupied) else Outcome.COMMITTED


def rows(ledger: str, batch: Batch) -> tuple[list[Row], list[Row], list[Row]]:
    """The rows of a batch: what is found through others, the head of the log, what is asked for by name.

    A key never comes twice, for two values of one time would be merged: of an identifier's versions the last is head.
    """
    first: list[Row] = []
    heads: dict[str, Head] = {}
    prefixes: set[str] = set()
    claims: dict[Claim, str] = {}
    indexes = dict(batch.indexes)
    for number, write in enumerate(batch.writes):
        partition = (ledger, *version_bucket(write.identifier, write.head.version))
        index = indexes.get(number, NOT_LOGGED)
        first.append(Row("version", partition, (write.identifier, write.head.version, write.record, index)))
        used = Earlier(write.request_hash, write.receipt)
        first.append(_used_row(ledger, write.zone, write.idempotency_key, used))
        heads[write.identifier] = write.head
        claims.update(dict.fromkeys(write.claims, write.identifier))
        prefixes.add(write.identifier.partition("/")[0])
    first += [Row("claim", (ledger, c.class_id, c.field, c.digest), (name,)) for c, name in claims.items()]
    first += [Row("occupied", (ledger, prefix), ()) for prefix in sorted(_with_ancestors(prefixes))]
    first += [_used_row(ledger, g.zone, g.idempotency_key, Earlier(g.request_hash, b"")) for g in batch.grants]
    last = [
        Row("head", (ledger, stem(name)), (name, h.version, h.record_hash, str(h.kind), str(h.status), h.issued_at))
        for name, h in heads.items()
    ]
    last += [_grant_row(ledger, granted.grant) for granted in batch.grants]
    last += [Row("chain", (ledger,), (chain.zone, list(chain.links))) for chain in batch.chains]
    if batch.appended is None:
        return first, [], last
    log_head = batch.appended.edge.head
    moved = Row("log_head", (ledger,), (log_head.range.encode(), log_head.note, log_head.committed_at))
    return first + _log_rows(ledger, batch.appended), [moved], last


def _log_rows(ledger: str, appended: Appended) -> list[Row]:
    """Entries, tiles and the checkpoint; a tile comes once, as wide as it has become."""
    head = appended.edge.head
    runs = _runs(appended.first, appended.entries)
    return [
        *(Row("log_entry", (ledger, index // TILE_WIDTH), (index, entries)) for index, entries in runs),
        *(Row("log_tile", (ledger, tile.level, tile.index), (tile.content,)) for tile in appended.tiles),
        Row("log_note", (ledger, note_bucket(head.size)), (head.size, head.note)),
    ]


def _runs(first: int, entries: Sequence[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Entries by row, each with the index of its first; no row goes over a multiple of :data:`ENTRIES_PER_ROW`."""
    end = first + len(entries)
    for start in (first, *range(entry_row(first) + ENTRIES_PER_ROW, end, ENTRIES_PER_ROW)):
        yield start, list(entries[start - first : entry_row(start) + ENTRIES_PER_ROW - first])


def _used_row(ledger: str, zone: str, key: str, earlier: Earlier) -> Row:
    return Row("idempotency", (ledger, zone, stem(key)), (key, earlier.request_hash, earlier.receipt))


def _grant_row(ledger: str, grant: Grant) -> Row:
    return Row(
        "granted",
        (ledger, grant_bucket(grant.prefix)),
        (
            grant.prefix,
            grant.status,
            grant.hosted,
            grant.comment,
            grant.changed_at,
            grant.version,
            grant.delegation,
            grant.application,
            list(grant.enrolments),
        ),
    )


def _with_ancestors(prefixes: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for prefix in prefixes:
        labels = prefix.split(".")
        found.update(".".join(labels[:n]) for n in range(1, len(labels) + 1))
    return found


def partitions(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows that can travel as one statement: of one table and partition, few and small enough."""
    groups: dict[tuple[str, tuple[object, ...]], list[Row]] = {}
    sizes: dict[tuple[str, tuple[object, ...]], int] = {}
    full: list[list[Row]] = []
    for row in rows:
        place = (row.table, row.partition)
        group = groups.setdefault(place, [])
        group.append(row)
        sizes[place] = sizes.get(place, 0) + sum(map(_bytes_of, row.rest))
        if len(group) == ROWS_PER_STATEMENT or sizes[place] >= STATEMENT_BYTES:
            full.append(groups.pop(place))
            del sizes[place]
    return [*full, *groups.values()]


def _bytes_of(value: object) -> int:
    if isinstance(value, list):
        return sum(map(len, value))
    return len(value) if isinstance(value, bytes) else 0

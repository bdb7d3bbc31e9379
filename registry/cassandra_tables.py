"""What lies in a ledger's tables, as the registry's values: one statement a partition, nothing remembered or decided.

The one row that is written here belongs to no batch (:meth:`Tables.keep_witnessed`).

A row of a batch that is half there is told like any other: what was written with it, and whether that is there as well,
is for the caller, who is given the number of its batch (the write time of its rows) where it matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from idtrace.errors import InputError, Reason, RefusedError
from idtrace.merkle import CompactRange
from idtrace.record import RecordKind, Status
from registry.cassandra_bridge import PAGE_ROWS, Bridge, each, told
from registry.cassandra_rules import (
    GRANT_BUCKETS,
    NOT_LOGGED,
    by_stem,
    change_bucket,
    entry_bundles,
    entry_row,
    grant_bucket,
    note_bucket,
    version_bucket,
)
from registry.logbook import LogHead
from registry.storage import Change, Claim, Earlier, Grant, Head, Stored, unpack_change

_GRANT: Final = "prefix, status, hosted, comment, changed_at, version, delegation, application, enrolments"
READS: Final = {
    "heads": "SELECT identifier, version, record_hash, kind, status, issued_at FROM head"
    " WHERE ledger = ? AND stem = ? AND identifier IN ?",
    "earlier": "SELECT key, request_hash, receipt, writetime(receipt) AS seq FROM idempotency"
    " WHERE ledger = ? AND zone = ? AND stem = ? AND key IN ?",
    "record": "SELECT version, record, log_index, writetime(record) AS seq FROM version"
    " WHERE ledger = ? AND stem = ? AND bucket = ? AND identifier = ? AND version = ?",
    "latest": "SELECT version, record, log_index, writetime(record) AS seq FROM version"
    " WHERE ledger = ? AND stem = ? AND bucket = ? AND identifier = ? LIMIT 1",
    "claimant": "SELECT identifier FROM claim WHERE ledger = ? AND class = ? AND field = ? AND digest = ?",
    "occupied": "SELECT prefix FROM occupied WHERE ledger = ? AND prefix = ?",
    "grants": f"SELECT {_GRANT} FROM granted WHERE ledger = ? AND bucket = ?",  # noqa: S608 - our own columns
    "grant": f"SELECT {_GRANT} FROM granted WHERE ledger = ? AND bucket = ? AND prefix = ?",  # noqa: S608 - as above
    "chains": "SELECT zone, links FROM chain WHERE ledger = ?",
    "changes": "SELECT seq, subjects FROM change WHERE ledger = ? AND bucket = ? AND seq > ? AND seq <= ?",
    "applied": "SELECT seq FROM ledger_applied WHERE ledger = ?",
    "log head": "SELECT range, note, committed_at, writetime(note) AS seq FROM log_head WHERE ledger = ?",
    "log tile": "SELECT content FROM log_tile WHERE ledger = ? AND level = ? AND place = ?",
    "log entries": "SELECT idx, run FROM log_entry WHERE ledger = ? AND bundle = ? AND idx >= ? AND idx < ?",
    "log note": "SELECT note FROM log_note WHERE ledger = ? AND bucket = ? AND size = ?",
    "witnessed": "SELECT note FROM log_witnessed WHERE ledger = ?",
    "witness": "UPDATE log_witnessed SET size = ?, note = ? WHERE ledger = ? IF size <= ?",
    "witness first": "INSERT INTO log_witnessed (ledger, size, note) VALUES (?, ?, ?) IF NOT EXISTS",
}
# A row that another has made first, between the two statements, is the only cause for another round, and comes once.
_ROUNDS: Final = 2


class Tables:
    """The tables of one ledger; ``bridge`` is asked each time, for a store that is closed has none."""

    def __init__(self, name: str, bridge: Callable[[], Bridge], prepared: Mapping[str, Any]) -> None:
        self._name = name
        self._bridge = bridge
        self._prepared = prepared

    async def _read(self, name: str, *values: object) -> list[Any]:
        return await told(self._bridge().run(self._prepared[name], (self._name, *values)))

    async def heads(self, names: Iterable[str]) -> dict[str, Head]:
        """Of each identifier that has one."""
        pages = await each(self._read("heads", stem, some) for stem, some in _pieces(by_stem(names)))
        return {
            row.identifier: Head(row.version, row.record_hash, RecordKind(row.kind), Status(row.status), row.issued_at)
            for page in pages
            for row in page
        }

    async def earlier(self, zone: str, keys: Iterable[str]) -> tuple[dict[str, Earlier], int]:
        """Keys that were used, and the number of the latest batch among theirs (0: of none)."""
        pages = await each(self._read("earlier", zone, stem, some) for stem, some in _pieces(by_stem(keys)))
        found = [row for page in pages for row in page]
        used = {row.key: Earlier(row.request_hash, row.receipt) for row in found}
        return used, max((row.seq for row in found), default=0)

    async def version(self, identifier: str, version: int) -> tuple[Stored, int] | None:
        """A version and the number of its batch."""
        return _stored(await self._read("record", *version_bucket(identifier, version), identifier, version))

    async def latest(self, identifier: str) -> tuple[Stored, int] | None:
        """The latest version of the first bucket, which mostly is the latest there is."""
        return _stored(await self._read("latest", *version_bucket(identifier, 0), identifier))

    async def claimants(self, claims: Sequence[Claim]) -> dict[Claim, str]:
        """Identifier that holds each claim that is taken."""
        asked = list(dict.fromkeys(claims))
        found = await each(self._read("claimant", claim.class_id, claim.field, claim.digest) for claim in asked)
        return {claim: rows[0].identifier for claim, rows in zip(asked, found, strict=True) if rows}

    async def occupied(self, prefix: str) -> bool:
        """Whether anything is registered in or below a prefix."""
        return bool(await self._read("occupied", prefix))

    async def grant(self, prefix: str) -> Grant | None:
        """What is held of a prefix."""
        rows = await self._read("grant", grant_bucket(prefix), prefix)
        return _grant(rows[0]) if rows else None

    async def grants(self) -> list[Grant]:
        """All of them, by prefix."""
        buckets = await each(self._read("grants", bucket) for bucket in range(GRANT_BUCKETS))
        return sorted((_grant(row) for rows in buckets for row in rows), key=lambda grant: grant.prefix)

    async def chains(self) -> dict[str, tuple[bytes, ...]]:
        """The node's own zones with their delegations."""
        return {row.zone: tuple(row.links) for row in await self._read("chains")}

    async def applied(self) -> int:
        """Number of the last batch that is known to be applied."""
        rows = await self._read("applied")
        return int(rows[0].seq) if rows else 0

    async def changes(self, after: int, last: int) -> list[Change]:
        """What the batches after ``after`` up to ``last`` have changed, as far as it is kept."""
        buckets = range(change_bucket(after + 1), change_bucket(last) + 1) if last > after else range(0)
        pages = await each(self._read("changes", bucket, after, last) for bucket in buckets)
        return [unpack_change(row.seq, row.subjects) for rows in pages for row in rows]

    async def log_head(self) -> tuple[LogHead, int]:
        """Where the log stands, and the number of the batch that brought it there.

        Raises:
            RefusedError: INTERNAL where the row holds no compact range.
        """
        rows = await self._read("log head")
        if not rows:
            return LogHead(), 0
        try:
            return LogHead(CompactRange.decode(rows[0].range), rows[0].note, rows[0].committed_at), rows[0].seq
        except InputError as error:
            raise damaged(f"its head is none: {error.detail}") from error

    async def log_tile(self, level: int, place: int) -> bytes:
        """Content of a tile, maybe of a batch that is half there; b"" for none."""
        rows = await self._read("log tile", level, place)
        return rows[0].content if rows else b""

    async def log_entries(self, first: int, end: int) -> list[tuple[int, bytes]]:
        """Index and bytes of the entries from ``first`` up to ``end`` that are there, without that one."""
        bundles = entry_bundles(first, end)
        pages = await each(self._read("log entries", bundle, entry_row(first), end) for bundle in bundles)
        found = [item for page in pages for row in page for item in enumerate(row.run, start=row.idx)]
        return [(index, entry) for index, entry in found if first <= index < end]

    async def log_note(self, size: int) -> bytes | None:
        """The checkpoint of a commit, maybe of a batch that is half there."""
        rows = await self._read("log note", note_bucket(size), size)
        return rows[0].note if rows else None

    async def witnessed(self) -> bytes | None:
        """The checkpoint that was kept last."""
        rows = await self._read("witnessed")
        return rows[0].note if rows else None

    async def keep_witnessed(self, size: int, note: bytes) -> None:
        """Keep a cosigned checkpoint unless one of a larger log is kept.

        By a lightweight transaction on a row that nothing else ever writes, and not by a batch: it decides on nothing
        but itself, and a batch would take the ledger from its writer and be told as a change, for every checkpoint.
        Nor by a plain row at the time ``size``: of two notes of one size that keeps the one whose bytes are greater,
        and the later one has more cosignatures. Sent again after a lost answer it does the same or nothing.

        Raises:
            Exception: the driver's, or NoAnswerError; nobody knows whether it is kept.
        """
        for _ in range(_ROUNDS):
            found = await self._swap("witness", size, note, self._name, size)
            if found.applied or getattr(found, "size", None) is not None:
                return
            if (await self._swap("witness first", self._name, size, note)).applied:
                return
        raise AssertionError("a row that is there and not there")

    async def _swap(self, name: str, *values: object) -> Any:
        return (await self._bridge().run(self._prepared[name], values, profile="swap"))[0]


def damaged(detail: str) -> RefusedError:
    """Why nothing is read of a log, or put on top of it, that contradicts itself: its rows were lost or changed."""
    return RefusedError(Reason.INTERNAL, f"the log in the store is damaged: {detail}", field="storage.ledger")


def _pieces(stems: Mapping[bytes, list[str]]) -> Iterator[tuple[bytes, list[str]]]:
    """One page of keys a statement: servers bound such lists, and a longer one would be read page after page anyway."""
    for stem, keys in stems.items():
        for start in range(0, len(keys), PAGE_ROWS):
            yield stem, keys[start : start + PAGE_ROWS]


def _stored(rows: Sequence[Any]) -> tuple[Stored, int] | None:
    if not rows:
        return None
    index = rows[0].log_index
    return Stored(rows[0].version, rows[0].record, None if index in {None, NOT_LOGGED} else index), rows[0].seq


def _grant(row: Any) -> Grant:
    return Grant(
        prefix=row.prefix,
        status=row.status,
        hosted=row.hosted,
        comment=row.comment,
        changed_at=row.changed_at,
        version=row.version,
        delegation=row.delegation,
        application=row.application,
        enrolments=tuple(row.enrolments or ()),
    )

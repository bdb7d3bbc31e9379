"""The store on Cassandra: every change of a registry is a batch of its ledger, and batches become true one by one.

How the guarantees of :mod:`registry.storage` are held:

1. Durable, 2. whole: a batch is true when the head is swapped to it; from then on anybody can finish it, and somebody
   does before anything else is decided. :meth:`CassandraStorage.commit` returns when it is applied on a quorum.
3. One winner, 7. one owner: what a batch is decided on was read while its predecessor was the last batch and applied,
   and it becomes true only if that still is so. One ledger a registry and not one a zone: a batch holds writes of many
   zones, a prefix that is delegated lies in two, and each would cost a swap of its own and serialise nothing.
4. Alone: a write that loses is left out of the batch. 5. Unknown is said: whatever raises has closed the view, and the
   next change begins with what the head says. 6. Append-only: rows are inserted, at their batch's time.
8. Told in order: a batch's number is its commit's, and what it has changed is a row that is written before the batch
   counts as applied; no number is told, or left out, that has not been applied.

A batch costs one swap however many writes it has. What a caller reads between two batches (the sequencer: heads and
keys) is remembered until the next one, and a swap that succeeds proves that it was right.
A batch whose writer has died between the swap and its rows is finished by the next writer or start, and before that by
any node that is up: see :mod:`registry.cassandra_settler`. Where BusyError is raised no swap was sent: nothing has
changed.
A batch's rows appear one after the other, keys before heads, so who sees a head finds all of it. Nor does a reader see
a version or a key before the head that came with it: a row's write time is the number of its batch, and one that is
newer than what is known to be applied is looked into. So whatever a caller was shown, the next decision knows as well.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from idtrace.errors import Reason, RefusedError
from idtrace.record import RecordKind, Status
from registry.cassandra_batch import Batch, Chain, Granted, StagedBatchError
from registry.cassandra_bridge import PAGE_ROWS, Bridge, each, told
from registry.cassandra_errors import DRIVER, not_done
from registry.cassandra_ledger import STATEMENTS, Ledger, row_statements
from registry.cassandra_rules import (
    GRANT_BUCKETS,
    VERSIONS_PER_BUCKET,
    View,
    by_stem,
    change_bucket,
    decide,
    decide_grant,
    grant_bucket,
    version_bucket,
)
from registry.cassandra_schema import check_schema
from registry.cassandra_settings import CassandraSettings
from registry.cassandra_settler import Settler
from registry.storage import Change, Claim, Earlier, Grant, Head, Outcome, Write, between, changes_gone, unpack_change

T = TypeVar("T")

# Every try is lost to another writer's success; so many in a row mean that the ledger has too many writers.
TRIES_MAX: Final = 32
# Longest pause before another try; doubles from a 32nd of it.
_PAUSE_SECONDS_MAX: Final = 0.4
# What is remembered between two batches: ten of the largest; a node that only reads forgets and starts over.
REMEMBERED_MAX: Final = 20_000

_GRANT: Final = "prefix, status, hosted, comment, changed_at, version, delegation, application, enrolments"
_READS: Final = {
    "heads": "SELECT identifier, version, record_hash, kind, status, issued_at FROM head"
    " WHERE ledger = ? AND stem = ? AND identifier IN ?",
    "earlier": "SELECT key, request_hash, receipt, writetime(receipt) AS seq FROM idempotency"
    " WHERE ledger = ? AND zone = ? AND stem = ? AND key IN ?",
    "record": "SELECT record, writetime(record) AS seq FROM version"
    " WHERE ledger = ? AND stem = ? AND bucket = ? AND identifier = ? AND version = ?",
    "latest": "SELECT version, record, writetime(record) AS seq FROM version"
    " WHERE ledger = ? AND stem = ? AND bucket = ? AND identifier = ? LIMIT 1",
    "claimant": "SELECT identifier FROM claim WHERE ledger = ? AND class = ? AND field = ? AND digest = ?",
    "occupied": "SELECT prefix FROM occupied WHERE ledger = ? AND prefix = ?",
    "grants": f"SELECT {_GRANT} FROM granted WHERE ledger = ? AND bucket = ?",  # noqa: S608 - our own columns
    "grant": f"SELECT {_GRANT} FROM granted WHERE ledger = ? AND bucket = ? AND prefix = ?",  # noqa: S608 - as above
    "chains": "SELECT zone, links FROM chain WHERE ledger = ?",
    "changes": "SELECT seq, subjects FROM change WHERE ledger = ? AND bucket = ? AND seq > ? AND seq <= ?",
}


class ContendedError(Exception):
    """Other writers of the ledger came first each time; nothing was written."""


class _Seen:
    """What was read since batch ``seq`` was applied and before the next is swapped; None stands for "not there"."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.heads: dict[str, Head | None] = {}
        self.earlier: dict[tuple[str, str], Earlier | None] = {}

    @property
    def full(self) -> bool:
        return len(self.heads) + len(self.earlier) > REMEMBERED_MAX


Plan = Callable[[_Seen], Awaitable[tuple[T, Batch]]]


class CassandraStorage:
    """Storage in a ledger. Owned by one event loop."""

    def __init__(self, settings: CassandraSettings) -> None:
        self._settings = settings
        self._name = settings.ledger
        self._one_at_a_time = asyncio.Lock()  # batches and grants come from different tasks
        self._bridge: Bridge | None = None
        self._prepared: dict[str, Any] = {}
        self._seen: _Seen | None = None
        self._applied = 0  # every batch up to this one is known to be applied
        self._changes: set[asyncio.Task[Any]] = set()
        self._closing = False
        self._settler: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, check that the tables are those of this program, and finish what was left unfinished.

        Raises:
            InputError: a setting is wrong, or the role may not read and modify the keyspace; the field says which.
            RefusedError: SCHEMA_MISMATCH (``idtrace store migrate``), or INTERNAL where a committed batch is lost.
            BusyError: NO_ANSWER where the ring, or a quorum of it, does not answer.
        """
        bridge = await Bridge.connect(self._settings)
        try:
            await check_schema(bridge, self._settings)
            await bridge.use(self._settings.keyspace)
            self._prepared = await bridge.prepare(STATEMENTS | row_statements() | _READS)
            self._bridge = bridge
            self._ledger = Ledger(bridge, self._prepared, self._name, self._settings.settle_seconds)
            settler = Settler(self._ledger, self._one_at_a_time, await self._ledger.settle())
            self._settler = asyncio.create_task(settler.run(), name=f"settler {self._name}")
        except BaseException as error:
            self._bridge = None
            await bridge.close()
            if isinstance(error, StagedBatchError):
                raise RefusedError(Reason.INTERNAL, str(error), field="storage.ledger") from error
            if isinstance(error, DRIVER):
                raise not_done(error, self._settings) from error
            raise

    async def heads(self, identifiers: Sequence[str]) -> dict[str, Head]:
        """See :class:`registry.storage.Storage`."""
        found = await self._heads(identifiers, self._remembering(), known=())
        return {name: head for name, head in found.items() if head is not None}

    async def _heads(self, names: Sequence[str], seen: _Seen, known: Container[str]) -> Mapping[str, Head | None]:
        """Heads, read but for those that are known; a caller's read is never answered from memory."""
        stems = by_stem(name for name in names if name not in known)
        pages = await each(self._read("heads", stem, some) for stem, some in _pieces(stems))
        seen.heads.update((name, None) for some in stems.values() for name in some)
        for row in (row for page in pages for row in page):
            seen.heads[row.identifier] = Head(
                row.version, row.record_hash, RecordKind(row.kind), Status(row.status), row.issued_at
            )
        return {name: seen.heads[name] for name in names}

    async def record(self, identifier: str, version: int = 0) -> bytes | None:
        """See :class:`registry.storage.Storage`."""
        if version:
            rows = await self._read("record", *version_bucket(identifier, version), identifier, version)
            if not rows or await self._is_applied(rows[0].seq):
                return rows[0].record if rows else None
        else:
            # Most identifiers have few versions, all in the first bucket: one read. Else the head knows.
            rows = await self._read("latest", *version_bucket(identifier, 0), identifier)
            if not rows:
                return None
            if rows[0].version < VERSIONS_PER_BUCKET - 1 and await self._is_applied(rows[0].seq):
                latest: bytes = rows[0].record
                return latest
        # Of a batch that is half there, or in a later bucket: the head decides, for it comes last.
        head = (await self.heads([identifier])).get(identifier)
        if head is None or head.version < version:
            return None
        version = version or head.version
        rows = await self._read("record", *version_bucket(identifier, version), identifier, version)
        return rows[0].record if rows else None

    async def _is_applied(self, seq: int) -> bool:
        """Whether all rows of a batch are there: who was shown one of them relies on the others."""
        if seq > self._applied:
            self._applied = max(self._applied, await self.sequence())
        return seq <= self._applied

    async def earlier(self, zone: str, idempotency_keys: Sequence[str]) -> dict[str, Earlier]:
        """See :class:`registry.storage.Storage`."""
        found = await self._earlier(zone, idempotency_keys, self._remembering(), known=(), whole=True)
        return {key: earlier for key, earlier in found.items() if earlier is not None}

    async def _earlier(
        self,
        zone: str,
        keys: Sequence[str],
        seen: _Seen,
        known: Container[tuple[str, str]],
        *,
        whole: bool = False,
    ) -> Mapping[str, Earlier | None]:
        """Keys, read but for those that are known; ``whole``: not before all that came with them is there."""
        stems = by_stem(key for key in keys if (zone, key) not in known)
        pages = await each(self._read("earlier", zone, stem, some) for stem, some in _pieces(stems))
        seen.earlier.update(((zone, key), None) for some in stems.values() for key in some)
        latest = 0
        for row in (row for page in pages for row in page):
            seen.earlier[zone, row.key] = Earlier(row.request_hash, row.receipt)
            latest = max(latest, row.seq)
        if whole and not await self._is_applied(latest):
            async with self._one_at_a_time:
                self._applied = max(self._applied, await told(self._ledger.settle()))
        return {key: seen.earlier[zone, key] for key in keys}

    async def claimants(self, claims: Sequence[Claim]) -> dict[Claim, str]:
        """See :class:`registry.storage.Storage`."""
        asked = list(dict.fromkeys(claims))
        found = await each(self._read("claimant", claim.class_id, claim.field, claim.digest) for claim in asked)
        return {claim: rows[0].identifier for claim, rows in zip(asked, found, strict=True) if rows}

    async def commit(self, writes: Sequence[Write]) -> list[Outcome]:
        """See :class:`registry.storage.Storage`."""

        async def plan(seen: _Seen) -> tuple[list[Outcome], Batch]:
            outcomes = decide(writes, await self._view(writes, seen))
            won = (w for w, outcome in zip(writes, outcomes, strict=True) if outcome is Outcome.COMMITTED)
            return outcomes, Batch(writes=tuple(won))

        return await self._change(plan) if writes else []

    async def _view(self, writes: Sequence[Write], seen: _Seen) -> View:
        heads = await self._heads([write.identifier for write in writes], seen, seen.heads)
        used: set[tuple[str, str]] = set()
        for zone in {write.zone for write in writes}:
            keys = [write.idempotency_key for write in writes if write.zone == zone]
            found = await self._earlier(zone, keys, seen, seen.earlier)
            used |= {(zone, key) for key, earlier in found.items() if earlier is not None}
        grants = await each(self._grant(prefix) for prefix in {p for write in writes for p in between(write)})
        return View(
            heads={name: head for name, head in heads.items() if head is not None},
            used=used,
            delegated={grant.prefix for grant in grants if grant is not None and grant.version > 0},
            claimants=await self.claimants([claim for write in writes for claim in write.claims]),
        )

    async def any_within(self, prefix: str) -> bool:
        """See :class:`registry.storage.Storage`."""
        return bool(await self._read("occupied", prefix))

    async def grants(self, only: Sequence[str] | None = None) -> list[Grant]:
        """See :class:`registry.storage.Storage`."""
        if only is not None:
            found = await each(self._grant(prefix) for prefix in only)
            return [grant for grant in found if grant is not None]
        buckets = await each(self._read("grants", bucket) for bucket in range(GRANT_BUCKETS))
        return sorted((_grant(row) for rows in buckets for row in rows), key=lambda grant: grant.prefix)

    async def _grant(self, prefix: str) -> Grant | None:
        rows = await self._read("grant", grant_bucket(prefix), prefix)
        return _grant(rows[0]) if rows else None

    async def put_grant(
        self, grant: Grant, expected: Grant | None, key: tuple[str, str], request_hash: bytes
    ) -> Outcome:
        """See :class:`registry.storage.Storage`."""

        async def plan(seen: _Seen) -> tuple[Outcome, Batch]:
            used = (await self._earlier(key[0], [key[1]], seen, seen.earlier))[key[1]] is not None
            held, occupied = await self._grant(grant.prefix), await self.any_within(grant.prefix)
            outcome = decide_grant(grant, expected, used=used, held=held, occupied=occupied)
            granted = (Granted(grant, *key, request_hash),) if outcome is Outcome.COMMITTED else ()
            return outcome, Batch(grants=granted)

        return await self._change(plan)

    async def chains(self) -> dict[str, tuple[bytes, ...]]:
        """See :class:`registry.storage.Storage`."""
        return {row.zone: tuple(row.links) for row in await self._read("chains")}

    async def put_chain(self, zone: str, chain: Sequence[bytes]) -> None:
        """See :class:`registry.storage.Storage`."""

        async def plan(seen: _Seen) -> tuple[None, Batch]:
            del seen
            return None, Batch(chains=(Chain(zone, tuple(chain)),))

        await self._change(plan)

    async def sequence(self) -> int:
        """See :class:`registry.storage.Storage`."""
        rows = await self._read("applied")
        return int(rows[0].seq) if rows else 0

    async def changes(self, after: int, most: int) -> list[Change]:
        """See :class:`registry.storage.Storage`. A batch that changed nothing visible is a number without subjects."""
        head = await self.sequence()
        last = min(head, after + most)
        if after > head:
            raise changes_gone(after, head)
        buckets = range(change_bucket(after + 1), change_bucket(last) + 1) if last > after else range(0)
        pages = await each(self._read("changes", bucket, after, last) for bucket in buckets)
        found = [unpack_change(row.seq, row.subjects) for rows in pages for row in rows]
        if len(found) < last - after:  # rows live for days; a batch from before there were such rows has none
            raise changes_gone(after, head)
        return found

    async def _change(self, plan: Plan[T]) -> T:
        """Decide and commit; a caller that leaves takes nothing of its change with it."""
        if self._closing:
            raise RuntimeError("the store is closed")
        change = asyncio.ensure_future(self._commit(plan))
        self._changes.add(change)
        change.add_done_callback(self._changed)
        return await asyncio.shield(change)

    def _changed(self, change: asyncio.Task[Any]) -> None:
        self._changes.discard(change)
        _ = change.cancelled() or change.exception()  # looked at, should its caller have left

    async def _commit(self, plan: Plan[T]) -> T:
        """Again and again while others come first."""
        async with self._one_at_a_time:
            for attempt in range(TRIES_MAX):
                seen, self._seen = self._seen, None  # whatever happens now: what was seen is not the latest any more
                if seen is None:
                    seen = _Seen(await told(self._ledger.settle()))
                    self._applied = max(self._applied, seen.seq)
                outcome, batch = await plan(seen)
                if not batch:
                    if await told(self._ledger.unchanged(seen.seq)):
                        self._seen = seen
                        return outcome
                elif await self._ledger.commit(seen.seq, batch):
                    self._seen = _Seen(seen.seq + 1)
                    self._applied = seen.seq + 1
                    return outcome
                longest = min(_PAUSE_SECONDS_MAX, _PAUSE_SECONDS_MAX / 32 * 2**attempt)
                await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 - keeps writers apart, no secret
            raise ContendedError(f"{TRIES_MAX} tries were lost to other writers of ledger {self._name}")

    def _remembering(self) -> _Seen:
        """Where a reader's finds go: to the next decision where that may use them, else to nobody."""
        if self._seen is not None and self._seen.full:
            self._seen = _Seen(self._seen.seq)
        return self._seen or _Seen(0)

    async def _read(self, name: str, *values: object) -> list[Any]:
        if self._bridge is None:
            raise RuntimeError("the store is closed")
        return await told(self._bridge.run(self._prepared[name], (self._name, *values)))

    async def reopen(self) -> None:
        """See :class:`registry.storage.Storage`."""
        async with self._one_at_a_time:
            self._seen = None
            if self._bridge is None:
                await self.open()
                self._closing = False
            else:
                await told(self._ledger.settle())

    async def close(self) -> None:
        """See :class:`registry.storage.Storage`."""
        self._closing = True
        await asyncio.gather(*self._changes, return_exceptions=True)
        if self._settler is not None:
            self._settler.cancel()
            await asyncio.gather(self._settler, return_exceptions=True)
        async with self._one_at_a_time:
            bridge, self._bridge, self._seen = self._bridge, None, None
            if bridge is not None:
                await bridge.close()


def _pieces(stems: Mapping[bytes, list[str]]) -> Iterator[tuple[bytes, list[str]]]:
    """One page of keys a statement: servers bound such lists, and a longer one would be read page after page anyway."""
    for stem, keys in stems.items():
        for start in range(0, len(keys), PAGE_ROWS):
            yield stem, keys[start : start + PAGE_ROWS]


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


async def open_cassandra(mapping: Mapping[str, object], base: Path) -> CassandraStorage:
    """The store of a node's table ``storage``, connected; paths in it are relative to ``base``.

    Raises:
        InputError: a setting is malformed or wrong.
        IdtraceError: see :meth:`CassandraStorage.open`.
    """
    storage = CassandraStorage(CassandraSettings.parse(mapping, base))
    await storage.open()
    return storage

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
9. Logged with it: what the log grows by is decided, signed and staged with the batch, on an edge that the swap proves
   to have been the last; a swap that is lost takes the checkpoint with it, and the next try makes another. See
   :mod:`registry.cassandra_log` for what is shown of it.

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
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from idtrace.errors import Reason, RefusedError
from registry.cassandra_batch import Batch, Chain, Granted, StagedBatchError
from registry.cassandra_bridge import Bridge, each, told
from registry.cassandra_errors import DRIVER, not_done
from registry.cassandra_ledger import STATEMENTS, Ledger, row_statements
from registry.cassandra_log import AppliedLog
from registry.cassandra_pointers import STATEMENTS as POINTER_STATEMENTS
from registry.cassandra_pointers import Pointers
from registry.cassandra_rules import VERSIONS_PER_BUCKET, View, decide, decide_grant
from registry.cassandra_schema import check_schema
from registry.cassandra_settings import CassandraSettings
from registry.cassandra_settler import Settler
from registry.cassandra_tables import READS, Tables
from registry.logbook import Appended, Edge, LogDraft, Stamp
from registry.storage import (
    Change,
    Claim,
    Delivery,
    DeliveryState,
    Earlier,
    Grant,
    Head,
    Logged,
    Mention,
    Outcome,
    Recorded,
    Stored,
    Write,
    between,
    changes_gone,
    log_write,
)

T = TypeVar("T")

# Every try is lost to another writer's success; so many in a row mean that the ledger has too many writers.
TRIES_MAX: Final = 32
# Longest pause before another try; doubles from a 32nd of it.
_PAUSE_SECONDS_MAX: Final = 0.4
# What is remembered between two batches: ten of the largest; a node that only reads forgets and starts over.
REMEMBERED_MAX: Final = 20_000

# So few entries are hashed on the loop; the hop to a thread and back makes a lone writer wait 0.2 ms longer.
HASHED_INLINE_MAX: Final = 64


class ContendedError(Exception):
    """Other writers of the ledger came first each time; nothing was written."""


class _Seen:
    """What was read since batch ``seq`` was applied and before the next is swapped; None stands for "not there"."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.heads: dict[str, Head | None] = {}
        self.earlier: dict[tuple[str, str], Earlier | None] = {}
        self.edge: Edge | None = None  # of the log

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
            prepared = await bridge.prepare(STATEMENTS | row_statements() | READS | POINTER_STATEMENTS)
            self._bridge = bridge
            self._ledger = Ledger(bridge, prepared, self._name, self._settings.settle_seconds)
            self._tables = Tables(self._name, self._open_bridge, prepared)
            self._log = AppliedLog(self._tables, self._whole)
            self._pointers = Pointers(self._name, self._open_bridge, prepared, whole=self._whole, applied=self.sequence)
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
        asked = dict.fromkeys(name for name in names if name not in known)
        found = await self._tables.heads(asked)
        seen.heads.update((name, found.get(name)) for name in asked)
        return {name: seen.heads[name] for name in names}

    async def record(self, identifier: str, version: int = 0) -> bytes | None:
        """See :class:`registry.storage.Storage`."""
        found = await self.stored(identifier, version)
        return found.record if found else None

    async def stored(self, identifier: str, version: int = 0) -> Stored | None:
        """See :class:`registry.storage.Storage`."""
        if version:
            found = await self._tables.version(identifier, version)
            if found is None or await self._is_applied(found[1]):
                return found[0] if found else None
        else:
            # Most identifiers have few versions, all in the first bucket: one read. Else the head knows.
            found = await self._tables.latest(identifier)
            if found is None:
                return None
            if found[0].version < VERSIONS_PER_BUCKET - 1 and await self._is_applied(found[1]):
                return found[0]
        # Of a batch that is half there, or in a later bucket: the head decides, for it comes last.
        head = (await self.heads([identifier])).get(identifier)
        if head is None or head.version < version:
            return None
        found = await self._tables.version(identifier, version or head.version)
        return found[0] if found else None

    async def _is_applied(self, seq: int) -> bool:
        """Whether all rows of a batch are there: who was shown one of them relies on the others."""
        if seq > self._applied:
            self._applied = max(self._applied, await self.sequence())
        return seq <= self._applied

    async def _whole(self, seq: int) -> None:
        """Wait for a batch to be applied, and apply it where its writer does not."""
        if not await self._is_applied(seq):
            async with self._one_at_a_time:  # who holds it may just have applied that batch
                await self._whole_for_writer(seq)

    async def _whole_for_writer(self, seq: int) -> None:
        if seq > self._applied:
            self._applied = max(self._applied, await told(self._ledger.settle()))

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
        asked = dict.fromkeys(key for key in keys if (zone, key) not in known)
        found, latest = await self._tables.earlier(zone, asked)
        seen.earlier.update(((zone, key), found.get(key)) for key in asked)
        if whole:
            await self._whole(latest)
        return {key: seen.earlier[zone, key] for key in keys}

    async def claimants(self, claims: Sequence[Claim]) -> dict[Claim, str]:
        """See :class:`registry.storage.Storage`."""
        return await self._tables.claimants(claims)

    async def commit(self, writes: Sequence[Write], stamp: Stamp | None = None) -> list[Outcome]:
        """See :class:`registry.storage.Storage`."""

        async def plan(seen: _Seen) -> tuple[list[Outcome], Batch]:
            draft = await self._draft(stamp, seen)
            outcomes = decide(writes, await self._view(writes, seen))
            won = [w for w, outcome in zip(writes, outcomes, strict=True) if outcome is Outcome.COMMITTED]
            if draft is None:
                return outcomes, Batch(writes=tuple(won))
            indexes = [(number, log_write(draft, write)) for number, write in enumerate(won)]
            logged = tuple((number, index) for number, index in indexes if index is not None)
            return outcomes, Batch(writes=tuple(won), appended=await _finished(draft), indexes=logged)

        return await self._change(plan) if writes else []

    async def _draft(self, stamp: Stamp | None, seen: _Seen) -> LogDraft | None:
        """A draft on the edge as it was when the last batch had been applied; should it be another, the swap is lost.

        Raises:
            BusyError: CLOCK_BACK.
        """
        if stamp is None:
            return None
        if seen.edge is None:
            seen.edge = await self._log.edge(self._whole_for_writer)
        return stamp.writer.draft(seen.edge, stamp.now)

    async def _view(self, writes: Sequence[Write], seen: _Seen) -> View:
        heads = await self._heads([write.identifier for write in writes], seen, seen.heads)
        used: set[tuple[str, str]] = set()
        for zone in {write.zone for write in writes}:
            keys = [write.idempotency_key for write in writes if write.zone == zone]
            found = await self._earlier(zone, keys, seen, seen.earlier)
            used |= {(zone, key) for key, earlier in found.items() if earlier is not None}
        grants = await each(self._tables.grant(prefix) for prefix in {p for write in writes for p in between(write)})
        return View(
            heads={name: head for name, head in heads.items() if head is not None},
            used=used,
            delegated={grant.prefix for grant in grants if grant is not None and grant.version > 0},
            claimants=await self.claimants([claim for write in writes for claim in write.claims]),
        )

    async def any_within(self, prefix: str) -> bool:
        """See :class:`registry.storage.Storage`."""
        return await self._tables.occupied(prefix)

    async def grants(self, only: Sequence[str] | None = None) -> list[Grant]:
        """See :class:`registry.storage.Storage`."""
        if only is None:
            return await self._tables.grants()
        found = await each(self._tables.grant(prefix) for prefix in only)
        return [grant for grant in found if grant is not None]

    async def put_grant(
        self,
        grant: Grant,
        expected: Grant | None,
        key: tuple[str, str],
        request_hash: bytes,
        logged: Logged | None = None,
    ) -> Outcome:
        """See :class:`registry.storage.Storage`."""

        async def plan(seen: _Seen) -> tuple[Outcome, Batch]:
            draft = await self._draft(logged.stamp if logged else None, seen)
            used = (await self._earlier(key[0], [key[1]], seen, seen.earlier))[key[1]] is not None
            held, occupied = await self._tables.grant(grant.prefix), await self.any_within(grant.prefix)
            outcome = decide_grant(grant, expected, used=used, held=held, occupied=occupied)
            if outcome is not Outcome.COMMITTED:
                return outcome, Batch()
            return outcome, Batch(grants=(Granted(grant, *key, request_hash),), appended=_entered(draft, logged))

        return await self._change(plan)

    async def chains(self) -> dict[str, tuple[bytes, ...]]:
        """See :class:`registry.storage.Storage`."""
        return await self._tables.chains()

    async def put_chain(self, zone: str, chain: Sequence[bytes], logged: Logged | None = None) -> None:
        """See :class:`registry.storage.Storage`."""

        async def plan(seen: _Seen) -> tuple[None, Batch]:
            draft = await self._draft(logged.stamp if logged else None, seen)
            return None, Batch(chains=(Chain(zone, tuple(chain)),), appended=_entered(draft, logged))

        await self._change(plan)

    async def log_edge(self) -> Edge:
        """See :class:`registry.storage.Storage`."""
        return await self._log.edge()

    async def log_tile(self, level: int, index: int) -> bytes | None:
        """See :class:`registry.storage.Storage`."""
        return await self._log.tile(level, index)

    async def log_entries(self, first: int, count: int) -> list[bytes]:
        """See :class:`registry.storage.Storage`."""
        return await self._log.entries(first, count)

    async def log_note(self, size: int) -> bytes | None:
        """See :class:`registry.storage.Storage`."""
        return await self._log.note(size)

    async def witnessed(self) -> bytes | None:
        """See :class:`registry.storage.Storage`."""
        return await self._tables.witnessed()

    async def put_witnessed(self, size: int, note: bytes) -> None:
        """See :class:`registry.storage.Storage`."""
        await self._tables.keep_witnessed(size, note)

    async def put_pointers(self, mentions: Sequence[Mention]) -> list[Mention]:
        """See :class:`registry.storage.Storage`."""

        async def plan(_: _Seen) -> tuple[list[Mention], Batch]:
            new = await self._pointers.missing(mentions)
            return list(new), Batch(pointers=new)

        return await self._change(plan)

    async def pointers(self, subject: str, after: Mention | None, most: int) -> list[Mention]:
        """See :class:`registry.storage.Storage`."""
        return await self._pointers.pointers(subject, after, most)

    async def events(self, after_sequence: int, most: int) -> list[Recorded]:
        """See :class:`registry.storage.Storage`."""
        return await self._pointers.events(after_sequence, most)

    async def events_between(
        self, start_ms: int, end_ms: int, after: tuple[int, str] | None, most: int
    ) -> list[Recorded]:
        """See :class:`registry.storage.Storage`."""
        return await self._pointers.events_between(start_ms, end_ms, after, most)

    async def deliveries(self, due_ms: int, most: int) -> list[Delivery]:
        """See :class:`registry.storage.Storage`."""
        return await self._pointers.deliveries(due_ms, most)

    async def outbox(self, state: DeliveryState, most: int) -> list[Delivery]:
        """See :class:`registry.storage.Storage`."""
        return await self._pointers.outbox(state, most)

    async def settle(self, tried: Sequence[Delivery]) -> None:
        """See :class:`registry.storage.Storage`."""
        await self._pointers.settle(tried)

    async def sequence(self) -> int:
        """See :class:`registry.storage.Storage`."""
        return await self._tables.applied()

    async def changes(self, after: int, most: int) -> list[Change]:
        """See :class:`registry.storage.Storage`. A batch that changed nothing visible is a number without subjects."""
        head = await self.sequence()
        last = min(head, after + most)
        if after > head:
            raise changes_gone(after, head)
        found = await self._tables.changes(after, last)
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
                    self._committed(seen, batch)
                    return outcome
                longest = min(_PAUSE_SECONDS_MAX, _PAUSE_SECONDS_MAX / 32 * 2**attempt)
                await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 - keeps writers apart, no secret
            raise ContendedError(f"{TRIES_MAX} tries were lost to other writers of ledger {self._name}")

    def _committed(self, seen: _Seen, batch: Batch) -> None:
        """What is known when the batch after the one that was seen is ours, and applied."""
        self._applied = seen.seq + 1
        self._seen = _Seen(seen.seq + 1)
        self._seen.edge = batch.appended.edge if batch.appended else seen.edge
        if batch.appended:
            self._log.grown(batch.appended.edge)

    def _remembering(self) -> _Seen:
        """Where a reader's finds go: to the next decision where that may use them, else to nobody."""
        if self._seen is not None and self._seen.full:
            edge, self._seen = self._seen.edge, _Seen(self._seen.seq)
            self._seen.edge = edge
        return self._seen or _Seen(0)

    def _open_bridge(self) -> Bridge:
        if self._bridge is None:
            raise RuntimeError("the store is closed")
        return self._bridge

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


def _entered(draft: LogDraft | None, logged: Logged | None) -> Appended | None:
    """What the log grows by where one entry is all of it."""
    if draft is None or logged is None:
        return None
    draft.add(logged.entry)
    return draft.finish()


async def _finished(draft: LogDraft) -> Appended | None:
    """What the log grows by; None where nobody has won: its tree and checkpoint stay as they are."""
    if len(draft) <= HASHED_INLINE_MAX:
        return draft.finish() if len(draft) else None
    return await asyncio.to_thread(draft.finish)


async def open_cassandra(mapping: Mapping[str, object], base: Path) -> CassandraStorage:
    """The store of a node's table ``storage``, connected; paths in it are relative to ``base``.

    Raises:
        InputError: a setting is malformed or wrong.
        IdtraceError: see :meth:`CassandraStorage.open`.
    """
    storage = CassandraStorage(CassandraSettings.parse(mapping, base))
    await storage.open()
    return storage

"""Pointers, the order of events and the outbox in the tables of a ledger (partitions: migrations/0005_pointers.cql).

What comes with a commit are rows of its batch (:func:`pointer_rows`, pure), so whoever finishes a dead writer's batch
writes them as well. They are shown when the batch is applied: where a row is newer than what is known to be, its batch
is waited for, or finished, and the rows are read again.

The outbox is two tables. A commit's deliveries lie under its number; a mark says up to which number nothing is left, so
that reading it never meets more tombstones than one commit has made. What has failed is parked where it can be given a
time. Neither decides anything: whoever tries one twice, or parks what another has just delivered, makes a home hear of
it once more. Marks and parked rows belong to no batch and are written at the driver's own time, which is later than any
number of a batch.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from zlib import crc32

from registry.cassandra_batch import Batch
from registry.cassandra_bridge import Bridge, each, told
from registry.cassandra_rules import Row
from registry.storage import EVENTS_A_COMMIT, Delivery, DeliveryState, Mention, Recorded, deliveries_of

MONTH_MS: Final = 30 * 86_400_000
HOUR_MS: Final = 3_600_000
COMMITS_PER_SHELF: Final = 65_536
PARKED_BUCKETS: Final = 16
# Commits that are looked through at once for what is left of them, or for their events.
COMMITS_AT_ONCE: Final = 64

COLUMNS: Final = {
    "pointer": "ledger, subject, month, time_ms, event, role, seq",
    "pointer_month": "ledger, subject, month",
    "event": "ledger, seq, position, time_ms, event",
    "event_commit": "ledger, shelf, seq",
    "event_time": "ledger, hour, time_ms, event, seq, position",
    "event_hour": "ledger, hour",
    "outbox": "ledger, seq, subject, event, time_ms, roles",
}
_PARKED: Final = "subject, event, time_ms, roles, state, attempts, since_ms, next_at_ms, error"
STATEMENTS: Final = {
    "pointer": "SELECT seq FROM pointer WHERE ledger = ? AND subject = ? AND month = ?"
    " AND time_ms = ? AND event = ? AND role = ?",
    "pointers": "SELECT time_ms, event, role, seq FROM pointer WHERE ledger = ? AND subject = ? AND month = ?"
    " AND (time_ms, event, role) > (?, ?, ?) LIMIT ?",
    "months": "SELECT month FROM pointer_month WHERE ledger = ? AND subject = ? AND month >= ?",
    "commits": "SELECT seq FROM event_commit WHERE ledger = ? AND shelf = ? AND seq >= ? AND seq <= ? LIMIT ?",
    "events": "SELECT position, time_ms, event FROM event WHERE ledger = ? AND seq = ? AND position > ?",
    "hours": "SELECT hour FROM event_hour WHERE ledger = ? AND hour >= ? AND hour <= ?",
    "events at": "SELECT time_ms, event, seq, position FROM event_time WHERE ledger = ? AND hour = ?"
    " AND (time_ms, event) > (?, ?) AND (time_ms) < (?) LIMIT ?",
    "fresh": "SELECT subject, event, time_ms, roles FROM outbox WHERE ledger = ? AND seq = ? LIMIT ?",
    "mark": "SELECT seq FROM outbox_mark WHERE ledger = ?",
    "set mark": "INSERT INTO outbox_mark (ledger, seq) VALUES (?, ?)",
    "deliver": "DELETE FROM outbox WHERE ledger = ? AND seq = ? AND subject = ? AND event = ?",
    "parked": f"SELECT {_PARKED} FROM outbox_parked WHERE ledger = ? AND bucket = ?",  # noqa: S608 - our own columns
    "park": f"INSERT INTO outbox_parked (ledger, bucket, {_PARKED}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - as above
    "unpark": "DELETE FROM outbox_parked WHERE ledger = ? AND bucket = ? AND subject = ? AND event = ?",
}


def pointer_rows(ledger: str, seq: int, batch: Batch) -> Iterator[Row]:
    """The rows of what a batch's mentions, and pointers from elsewhere, ask for."""
    pointed = [write for write in batch.writes if write.mentions]
    mentions = [*(mention for write in pointed for mention in write.mentions), *batch.pointers]
    months = dict.fromkeys((mention.subject, mention.time_ms // MONTH_MS) for mention in mentions)
    yield from (Row("pointer_month", (ledger, subject), (month,)) for subject, month in months)
    for one in dict.fromkeys(mentions):
        partition = (ledger, one.subject, one.time_ms // MONTH_MS)
        yield Row("pointer", partition, (one.time_ms, one.event, one.role, seq))
    if pointed:
        yield Row("event_commit", (ledger, seq // COMMITS_PER_SHELF), (seq,))
    hours: dict[int, None] = {}
    for position, write in enumerate(pointed):
        time_ms = write.mentions[0].time_ms
        hours[time_ms // HOUR_MS] = None
        yield Row("event", (ledger, seq), (position, time_ms, write.identifier))
        yield Row("event_time", (ledger, time_ms // HOUR_MS), (time_ms, write.identifier, seq, position))
        for due in deliveries_of(write):
            yield Row("outbox", (ledger, seq), (due.subject, due.event, due.time_ms, list(due.roles)))
    yield from (Row("event_hour", (ledger,), (hour,)) for hour in hours)


class Pointers:
    """Of one ledger. ``whole`` returns when a batch, by its number, is applied; ``applied`` tells the last that is."""

    def __init__(
        self,
        name: str,
        bridge: Callable[[], Bridge],
        prepared: Mapping[str, Any],
        *,
        whole: Callable[[int], Awaitable[object]],
        applied: Callable[[], Awaitable[int]],
    ) -> None:
        self._name = name
        self._bridge = bridge
        self._prepared = prepared
        self._whole = whole
        self._applied = applied
        self._mark: int | None = None  # as far as it is known here; it only grows

    async def _run(self, name: str, *values: object) -> list[Any]:
        return await told(self._bridge().run(self._prepared[name], (self._name, *values)))

    async def missing(self, mentions: Sequence[Mention]) -> tuple[Mention, ...]:
        """Those that are not here yet, each once; for who commits, so that all before it is applied."""
        asked = list(dict.fromkeys(mentions))
        found = await each(
            self._run("pointer", one.subject, one.time_ms // MONTH_MS, one.time_ms, one.event, one.role)
            for one in asked
        )
        return tuple(one for one, rows in zip(asked, found, strict=True) if not rows)

    async def pointers(self, subject: str, after: Mention | None, most: int) -> list[Mention]:
        """See :meth:`registry.storage.Storage.pointers`."""
        rows = await self._pointers(subject, after, most)
        last = max((row.seq for row in rows), default=0)
        if last > await self._applied():
            await self._whole(last)
            rows = [row for row in await self._pointers(subject, after, most) if row.seq <= last]
        return [Mention(subject, row.time_ms, row.event, row.role) for row in rows]

    async def _pointers(self, subject: str, after: Mention | None, most: int) -> list[Any]:
        start = (after.time_ms, after.event, after.role) if after else (-(2**63), "", "")
        first = after.time_ms // MONTH_MS if after else -(2**63)
        rows: list[Any] = []
        for month in sorted(row.month for row in await self._run("months", subject, first)):
            rows += await self._run("pointers", subject, month, *start, most - len(rows))
            if len(rows) >= most:
                break
        return rows

    async def events(self, after_sequence: int, most: int) -> list[Recorded]:
        """See :meth:`registry.storage.Storage.events`."""
        commit, position = divmod(after_sequence, EVENTS_A_COMMIT)
        applied, found = await self._applied(), list[Recorded]()
        async for seqs in self._commits(commit, applied):
            pages = await each(self._run("events", seq, position if seq == commit else -1) for seq in seqs)
            for seq, rows in zip(seqs, pages, strict=True):
                found += [Recorded(seq * EVENTS_A_COMMIT + row.position, row.time_ms, row.event) for row in rows]
            if len(found) >= most:
                break
        return found[:most]

    async def _commits(self, first: int, last: int) -> Any:
        """The commits with events from one to another, some at a time."""
        for shelf in range(first // COMMITS_PER_SHELF, last // COMMITS_PER_SHELF + 1):
            while rows := await self._run("commits", shelf, first, last, COMMITS_AT_ONCE):
                yield [row.seq for row in rows]
                first = rows[-1].seq + 1

    async def events_between(
        self, start_ms: int, end_ms: int, after: tuple[int, str] | None, most: int
    ) -> list[Recorded]:
        """See :meth:`registry.storage.Storage.events_between`."""
        rows = await self._events_between(start_ms, end_ms, after, most)
        last = max((row.seq for row in rows), default=0)
        if last > await self._applied():
            await self._whole(last)
            rows = [row for row in await self._events_between(start_ms, end_ms, after, most) if row.seq <= last]
        return [Recorded(row.seq * EVENTS_A_COMMIT + row.position, row.time_ms, row.event) for row in rows]

    async def _events_between(self, start_ms: int, end_ms: int, after: tuple[int, str] | None, most: int) -> list[Any]:
        start = max(after or (start_ms, ""), (start_ms, ""))
        rows: list[Any] = []
        hours = await self._run("hours", start[0] // HOUR_MS, (end_ms - 1) // HOUR_MS)
        for hour in sorted(row.hour for row in hours):
            rows += await self._run("events at", hour, *start, end_ms, most - len(rows))
            if len(rows) >= most:
                break
        return rows

    async def deliveries(self, due_ms: int, most: int) -> list[Delivery]:
        """See :meth:`registry.storage.Storage.deliveries`."""
        parked = [one for one in await self._parked(DeliveryState.WAITING) if one.next_at_ms <= due_ms]
        fresh = await self._fresh(most)
        return sorted([*fresh, *parked], key=lambda one: one.next_at_ms)[:most]

    async def outbox(self, state: DeliveryState, most: int) -> list[Delivery]:
        """See :meth:`registry.storage.Storage.outbox`."""
        found = await self._parked(state)
        if state is DeliveryState.WAITING and len(found) < most:
            parked = {one.key for one in found}
            found += [one for one in await self._fresh(most) if one.key not in parked]
        return found[:most]

    async def _fresh(self, most: int) -> list[Delivery]:
        """What was never tried, of the earliest commits; the mark follows where nothing is left."""
        if self._mark is None:
            rows = await self._run("mark")
            self._mark = int(rows[0].seq) if rows else 0
        applied, found, mark = await self._applied(), list[Delivery](), self._mark
        async for seqs in self._commits(self._mark + 1, applied):
            pages = await each(self._run("fresh", seq, most) for seq in seqs)
            for seq, rows in zip(seqs, pages, strict=True):
                if not rows and not found:
                    mark = seq
                found += [Delivery(row.subject, row.event, row.time_ms, tuple(row.roles), place=seq) for row in rows]
            if len(found) >= most:
                break
        if mark > self._mark:
            await self._run("set mark", mark)
            self._mark = mark
        return found[:most]

    async def _parked(self, state: DeliveryState) -> list[Delivery]:
        pages = await each(self._run("parked", bucket) for bucket in range(PARKED_BUCKETS))
        return [_delivery(row) for rows in pages for row in rows if row.state == state]

    async def settle(self, tried: Sequence[Delivery]) -> None:
        """See :meth:`registry.storage.Storage.settle`. Parked first: a delivery is never in neither table."""
        await each(self._park(one) for one in tried if one.state is not DeliveryState.DONE)
        await each(self._run("deliver", one.place, *one.key) for one in tried if one.place)
        done = [one for one in tried if one.state is DeliveryState.DONE and not one.place]
        await each(self._run("unpark", _bucket(one), *one.key) for one in done)

    async def _park(self, one: Delivery) -> None:
        values = (one.time_ms, list(one.roles), one.state, one.attempts, one.since_ms, one.next_at_ms, one.error)
        await self._run("park", _bucket(one), *one.key, *values)


def _bucket(delivery: Delivery) -> int:
    return crc32(f"{delivery.subject} {delivery.event}".encode()) % PARKED_BUCKETS


def _delivery(row: Any) -> Delivery:
    one = Delivery(row.subject, row.event, row.time_ms, tuple(row.roles), DeliveryState(row.state))
    return replace(
        one, attempts=row.attempts, since_ms=row.since_ms, next_at_ms=row.next_at_ms, error=row.error, place=0
    )

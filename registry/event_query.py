"""Event queries at a node: a page of the events that it has recorded, in order, from where the last page ended.

A query is answered out of the smallest part of the store that has all of its events: the pointers of the things that
it names, a span of event times, or a span of the order of recording. Of that a page looks at :data:`LOOKED_MAX` events
at most, so it may be short, or empty, and still have a next one. Events of other nodes are not here: who wants the
whole history of a thing asks a resolver.

When an event was recorded says the log's entry of its record, to the second. Where a node keeps no log it is the time
at which the party has signed it. Which capture job it came with is not kept.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from idtrace.epcis.query import Query, matches
from idtrace.epcis.rules import TIME_MS_MAX, TIME_MS_MIN
from idtrace.errors import BusyError, InputError, Reason
from registry.event_reading import EventReading, Found
from registry.event_sources import ByRecording, ByThing, ByTime, QueryTooLarge, Row, Source, rows_of
from registry.event_values import EventValues, ValueKind, Values
from registry.storage import EVENTS_A_COMMIT, Storage

__all__ = ["Cursor", "EventQueries", "Found", "Page", "QueryTooLarge", "ValueKind", "Values"]

# Events of one page: as many as a capture has.
PAGE_MAX: Final = 2_000
PAGE_DEFAULT: Final = 30
# Below the 4 MB of gRPC's clients; one event has 124 KiB at most.
PAGE_BYTES_MAX: Final = 2 * 1024 * 1024
# Events that one page looks at, a third of a second of plain ones; and the time that it takes, whatever they are like.
LOOKED_MAX: Final = 2_000
LOOKED_SECONDS_MAX: Final = 2.0
# Others are let in after every eight.
LOOKED_AT_ONCE: Final = 8
# The same to know whether there are more than maxEventCount, before the first page.
COUNTED_MAX: Final = 10_000
COUNTED_SECONDS_MAX: Final = 5.0
# More things than this are not asked for one by one; the span of time is read instead.
THINGS_MAX: Final = 32
# Pages that are worked on at once, each by turns, and how many more may wait for that.
QUERIES_AT_ONCE: Final = 8
QUERIES_WAITING_MAX: Final = 256
_TEXT_MAX: Final = 512


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a query has been answered: up to this position and event, with ``given`` events so far.

    ``of`` is a digest of the query, which it belongs to.
    """

    position: int
    event: str
    given: int
    of: str

    def to_text(self) -> str:
        """Letters, digits, ``-`` and ``_``; 500 at most."""
        return (
            base64.urlsafe_b64encode(f"{self.position} {self.given} {self.of} {self.event}".encode())
            .decode()
            .rstrip("=")
        )

    @classmethod
    def parse(cls, text: str, *, field: str = "nextPageToken") -> Cursor:
        """The cursor that :meth:`to_text` has written.

        Raises:
            InputError: FIELD_MALFORMED.
        """
        malformed = InputError(Reason.FIELD_MALFORMED, "this is no page of ours", field=field)
        if len(text) > _TEXT_MAX:
            raise malformed
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            position, given, of, event = data.decode().split(" ")
            cursor = cls(int(position), event, int(given), of)
        except (ValueError, binascii.Error):
            raise malformed from None
        # A store's numbers have 64 bits.
        if abs(cursor.position) >= 1 << 63 or not 0 <= cursor.given < 1 << 31:
            raise malformed
        return cursor


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a query's events, in order; ``next`` asks for those behind them, None where there are none."""

    events: tuple[Found, ...]
    next: Cursor | None


@dataclass(frozen=True, slots=True)
class _Span:
    """A source and the part of it in which a query's events lie."""

    source: Source
    start: int
    end: int


class EventQueries:
    """Answers queries out of one node's store. Belongs to one event loop."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.reading = EventReading(storage)
        self._values = EventValues(storage, self.reading)
        self._turns = asyncio.Semaphore(QUERIES_AT_ONCE)
        self._waiting = 0

    async def page(self, query: Query, after: Cursor | None, most: int) -> Page:
        """The next events of a query.

        Args:
            query: what is asked for; its ``next_page_token`` is the edge's affair and not looked at.
            after: ``next`` of the page before; None for the first.
            most: so many events at most, and not more than the query's ``per_page`` nor :data:`PAGE_MAX`.

        Raises:
            QueryTooLarge: more than ``max_event_count`` events, or too many to know.
            InputError: FIELD_MALFORMED: the cursor is another query's.
            BusyError: OVERLOADED.
        """
        digest = _digest(query)
        if after is not None and after.of != digest:
            raise InputError(Reason.FIELD_MALFORMED, "this page is of another query", field="nextPageToken")
        async with self._turn():
            span = await self._span(query)
            if after is None and query.max_event_count is not None:
                await self._require_few(query, span, query.max_event_count)
            return await self._page(query, span, after, min(most, query.per_page or most, PAGE_MAX), digest)

    async def get(self, identifier: str) -> Found | None:
        """An event that is recorded here, by the identifier of its record."""
        return await self.reading.get(identifier)

    async def distinct(self, kind: ValueKind, after: str, most: int) -> Values:
        """What the events here have in a field, each value once, sorted, those after a value; :data:`PAGE_MAX` at most.

        Raises:
            BusyError: OVERLOADED.
        """
        async with self._turn():
            return await self._values.page(kind, after, min(most, PAGE_MAX))

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._waiting >= QUERIES_WAITING_MAX:
            raise BusyError(Reason.OVERLOADED, f"{QUERIES_WAITING_MAX} queries wait to be answered; ask again")
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turns.release()

    async def _page(self, query: Query, span: _Span, after: Cursor | None, most: int, digest: str) -> Page:
        given = after.given if after else 0
        if query.event_count_limit is not None:
            most = min(most, query.event_count_limit - given)
        place = (after.position, after.event) if after else None
        found: list[Found] = []
        size = looked = 0
        clock = asyncio.get_running_loop().time
        until = clock() + LOOKED_SECONDS_MAX
        last: Row | None = None
        async with aclosing(rows_of(span.source, span.start, span.end, place, descending=query.descending)) as rows:
            async for row in rows:
                if len(found) >= most or size >= PAGE_BYTES_MAX or looked >= LOOKED_MAX or (looked and clock() > until):
                    break
                one = await self._judged(query, row)
                if one is not None:
                    found.append(one)
                    size += len(one.statement)
                last, looked = row, looked + 1
                if looked % LOOKED_AT_ONCE == 0:
                    await asyncio.sleep(0)
            else:
                last = None
        given += len(found)
        if last is None or given == query.event_count_limit:
            return Page(tuple(found), None)
        return Page(tuple(found), Cursor(last.position, last.event, given, digest))

    async def _judged(self, query: Query, row: Row) -> Found | None:
        found = await self.reading.found(row)
        return found if found is not None and matches(query, found.event, found.record_time_ms) else None

    async def _require_few(self, query: Query, span: _Span, most: int) -> None:
        looked = count = 0
        clock = asyncio.get_running_loop().time
        until = clock() + COUNTED_SECONDS_MAX
        async with aclosing(rows_of(span.source, span.start, span.end, None, descending=query.descending)) as rows:
            async for row in rows:
                if looked == COUNTED_MAX or clock() > until:
                    detail = f"whether more than {most} events meet it cannot be told from {looked} of them"
                    raise QueryTooLarge(f"{detail}: narrow it by times or things", field="maxEventCount")
                count += await self._judged(query, row) is not None
                if count > most:
                    raise QueryTooLarge(f"more than {most} events meet the query", field="maxEventCount")
                looked += 1
                if looked % LOOKED_AT_ONCE == 0:
                    await asyncio.sleep(0)

    async def _span(self, query: Query) -> _Span:
        """The part of the store to look at: it has all events that can meet the query, in the order asked for."""
        start = TIME_MS_MIN if query.time_from_ms is None else query.time_from_ms
        end = TIME_MS_MAX + 1 if query.time_until_ms is None else query.time_until_ms
        keys = _fewest(query)
        if query.order_by != "recordTime":
            if keys:
                return _Span(ByThing(self._storage, keys), start, end)
            if query.order_by == "eventTime" or (query.time_from_ms, query.time_until_ms) != (None, None):
                return _Span(ByTime(self._storage), start, end)
        first = await self._first_recorded(query.record_from_ms, 0)
        # What comes while a page is made belongs to the next one.
        head = (await self._storage.sequence() + 1) * EVENTS_A_COMMIT
        return _Span(ByRecording(self._storage), first, await self._first_recorded(query.record_until_ms, head))

    async def _first_recorded(self, at_ms: int | None, default: int) -> int:
        """The place of the first event that was recorded at this time or later: the log's times never go back.

        Where they are not the log's, nothing is known of their order, and the default is right.
        """
        if at_ms is None:
            return default
        low, high = 0, (await self._storage.sequence() + 1) * EVENTS_A_COMMIT
        while low < high:
            middle = (low + high) // 2
            rows = await self._storage.events(middle - 1, 1)
            if not rows:
                high = middle
                continue
            recorded = await self.reading.recorded_ms(rows[0].event)
            if recorded is None:
                return default
            if recorded >= at_ms:
                high = middle
            else:
                low = rows[0].sequence + 1
        return low


def _fewest(query: Query) -> tuple[str, ...]:
    """Things one of which every event of the query is about: few of them, and rather things than places."""
    choices = [one for one in query.conditions if 0 < len(one.keys) <= THINGS_MAX]
    best = min(choices, key=lambda one: (not one.name.startswith("MATCH_"), len(one.keys)), default=None)
    return tuple(sorted(best.keys)) if best else ()


def _digest(query: Query) -> str:
    """What tells two queries apart, but for how they are paged."""
    told = (
        *((one.name, one.values) for one in query.conditions),
        (query.order_by, query.descending, query.event_count_limit, query.max_event_count),
    )
    return hashlib.sha256(repr(told).encode("utf-8", "backslashreplace")).hexdigest()[:16]

"""Where the events of a query are looked for: three orders in which a store tells its events, each read both ways.

A row has a position (event time in UTC ms, or the place in the order of recording) and the event's identifier; rows are
ordered by both. Stores tell forwards only. Backwards is read in windows of positions that grow where there is little
and shrink where there is much, so that the latest of a million events cost a few dozen short reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from idtrace.errors import Reason, RefusedError
from registry.storage import Mention, Storage

# Rows of one read: 100 bytes each, and a page looks at 2,000.
READ_AT_ONCE: Final = 256
# A window of this many positions comes first: 17 minutes of event times, 256 commits.
WINDOW_FIRST: Final = 1 << 20
WINDOW_STEP: Final = 16
# Events that may share one position, a millisecond: a day of a line that writes the same time into all of them, 10 MB.
SAME_POSITION_MAX: Final = 50_000
# After every role (registry/pointers.py): all rows of an event with this one are behind.
_LAST_ROLE: Final = "~"


class QueryTooLarge(RefusedError):  # noqa: N818 - it is the standard's QueryTooLargeException
    """More events than the asker or this node wants to give in one answer (EPCIS 2.0, section 8.2.5)."""

    def __init__(self, detail: str, *, field: str = "") -> None:
        super().__init__(Reason.QUERY_TOO_LARGE, detail, field=field)


class Row(NamedTuple):
    """One event of a source: ``sequence`` is its place in the order of recording, None where the source has it not."""

    position: int
    event: str
    sequence: int | None = None


Place = tuple[int, str]


class Source(Protocol):
    """Rows with ``start <= position < end``, in order."""

    async def read(self, start: int, end: int, after: Place | None) -> tuple[list[Row], bool]:
        """The first rows of a span, those after a place, and whether there may be more."""
        ...


@dataclass(frozen=True, slots=True)
class ByRecording:
    """All events of the node; the position is the place in the order of recording."""

    storage: Storage

    async def read(self, start: int, end: int, after: Place | None) -> tuple[list[Row], bool]:
        """See :class:`Source`."""
        last = max(start - 1, after[0] if after else start - 1)
        found = await self.storage.events(last, READ_AT_ONCE)
        rows = [Row(one.sequence, one.event, one.sequence) for one in found if one.sequence < end]
        return rows, len(rows) == READ_AT_ONCE


@dataclass(frozen=True, slots=True)
class ByTime:
    """All events of the node; the position is the event time."""

    storage: Storage

    async def read(self, start: int, end: int, after: Place | None) -> tuple[list[Row], bool]:
        """See :class:`Source`."""
        if start >= end:
            return [], False
        found = await self.storage.events_between(start, end, after, READ_AT_ONCE)
        return [Row(one.time_ms, one.event, one.sequence) for one in found], len(found) == READ_AT_ONCE


@dataclass(frozen=True, slots=True)
class ByThing:
    """The events about some things, those that are recorded elsewhere as well; the position is the event time."""

    storage: Storage
    keys: tuple[str, ...]

    async def read(self, start: int, end: int, after: Place | None) -> tuple[list[Row], bool]:
        """See :class:`Source`."""
        if start >= end:
            return [], False
        pages = await asyncio.gather(*(self._pointers(key, start, after) for key in self.keys))
        # Behind the end of a page that is full, that thing has more, which would come between.
        known_to = min(
            ((page[-1].time_ms, page[-1].event) for page in pages if len(page) == READ_AT_ONCE), default=None
        )
        places = sorted({(one.time_ms, one.event) for page in pages for one in page if one.time_ms < end})
        if known_to is None:
            return [Row(*place) for place in places], False
        return [Row(*place) for place in places if place <= known_to], known_to[0] < end

    async def _pointers(self, key: str, start: int, after: Place | None) -> Sequence[Mention]:
        begins = Mention(key, start, "", "")
        last = begins if after is None else max(begins, Mention(key, *after, _LAST_ROLE))
        return await self.storage.pointers(key, last, READ_AT_ONCE)


async def rows_of(
    source: Source, start: int, end: int, after: Place | None, *, descending: bool
) -> AsyncGenerator[Row]:
    """The rows of a span from a place on, that one excluded, in order or against it.

    Raises:
        QueryTooLarge: too many events of one and the same time, backwards.
    """
    if descending:
        async for row in _backwards(source, start, end if after is None else min(end, after[0] + 1), after):
            yield row
        return
    more = True
    while more:
        rows, more = await source.read(start, end, after)
        for row in rows:
            yield row
            after = (row.position, row.event)


async def _backwards(source: Source, start: int, end: int, before: Place | None) -> AsyncGenerator[Row]:
    width = WINDOW_FIRST
    while end > start:
        low = max(start, end - width)
        rows, more = await source.read(low, end, None)
        if more and end - low > 1:
            width = max(1, (end - low) // WINDOW_STEP)
            continue
        while more:
            further, more = await source.read(low, end, (rows[-1].position, rows[-1].event))
            rows += further
            if len(rows) > SAME_POSITION_MAX:
                raise QueryTooLarge(f"more than {SAME_POSITION_MAX} events are of one time; order them the other way")
        for row in reversed(rows):
            if before is None or (row.position, row.event) < before:
                yield row
        end = low
        if len(rows) <= READ_AT_ONCE // WINDOW_STEP:
            width *= WINDOW_STEP

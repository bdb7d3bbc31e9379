"""New events, told to those who subscribe to a query: each once, in the order of recording, from where they left off.

A subscriber is a place in the order of recording and no queue: what he has not been told lies in the store. So one who
is slow, or never reads, costs nothing that grows; and one who comes back with the last place that he was told hears all
that came after it, once. One task a node looks for what is new (:meth:`EventStreams.run`): when a commit of this node
has returned, and four times a second while anybody listens, since other nodes may write the same ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from idtrace.epcis.query import Query, matches
from idtrace.errors import BusyError, Reason, RefusedError
from registry.event_query import EventQueries
from registry.event_reading import Found
from registry.event_sources import Row
from registry.storage import EVENTS_A_COMMIT, Storage

log = structlog.get_logger(__name__)

# Another node's event is told after this at most.
POLL_SECONDS: Final = 0.25
RETRY_SECONDS_MAX: Final = 2.0
# Within this time a subscriber hears something.
NEXT_WITHIN_MS: Final = 15_000
QUIET_SECONDS: Final = 10.0
# Subscribers of one node: each reads every new event, which are kept in memory for them (registry/event_reading.py).
SUBSCRIBERS_MAX: Final = 256
# One message, and one event more: what a reader that takes nothing keeps in memory, some ten times that as events.
TOLD_BYTES_MAX: Final = 131_072
# Events that are looked at for one message.
READ_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class Told:
    """Events that meet the query, in the order of recording, and the place up to which everything has been told."""

    events: tuple[Found, ...]
    sequence: int


class EventStreams:
    """The subscribers of one node. Belongs to one event loop; ``news`` is called when a commit has returned."""

    def __init__(self, storage: Storage, queries: EventQueries) -> None:
        self._storage = storage
        self._queries = queries
        self._head = 0  # number of the last commit that is known of
        self._grown = asyncio.Condition()
        self._called = asyncio.Event()
        self._followers = 0

    def news(self) -> None:
        """There may be something new in the store."""
        self._called.set()

    async def run(self) -> None:
        """Look for what is new for ever."""
        failures = 0
        while True:
            self._called.clear()
            if self._followers:
                try:
                    head = await self._storage.sequence()
                except Exception as error:  # noqa: BLE001 - the engine's own, whatever it is: it may come back
                    failures += 1
                    if failures == 1:
                        log.warning("events cannot be read", error=type(error).__name__, detail=str(error))
                    await asyncio.sleep(min(POLL_SECONDS * 2 ** min(failures, 8), RETRY_SECONDS_MAX))
                    continue
                failures = 0
                if head != self._head:
                    async with self._grown:
                        self._head = head
                        self._grown.notify_all()
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS if self._followers else None):
                    await self._called.wait()

    async def follow(self, query: Query, after: int | None) -> AsyncGenerator[Told]:
        """The events that meet a query and are recorded after a place (None: from now on), and signs of life, for ever.

        The first message comes at once. Orders and limits of the query are not looked at.

        Raises:
            BusyError: OVERLOADED: :data:`SUBSCRIBERS_MAX` listen already.
            RefusedError: CHANGES_GONE: the place is yet to come, so it is another store's.
        """
        if self._followers >= SUBSCRIBERS_MAX:
            raise BusyError(Reason.OVERLOADED, f"{SUBSCRIBERS_MAX} subscribers listen already")
        self._followers += 1
        self._called.set()
        try:
            head = (await self._storage.sequence() + 1) * EVENTS_A_COMMIT - 1
            if after is not None and after > head:
                detail = f"place {after} is yet to come, the last one is {head}"
                raise RefusedError(Reason.CHANGES_GONE, detail, field="after")
            place = head if after is None else after
            yield Told((), place)
            told_at = asyncio.get_running_loop().time()
            while True:
                before = self._head
                told = await self._next(query, place)
                quiet = asyncio.get_running_loop().time() - told_at >= QUIET_SECONDS
                if told.events or (told.sequence > place and quiet):
                    place = told.sequence
                    yield told
                    told_at = asyncio.get_running_loop().time()
                elif told.sequence > place:
                    place = told.sequence
                elif not await self._wait(before, QUIET_SECONDS - (asyncio.get_running_loop().time() - told_at)):
                    yield Told((), place)
                    told_at = asyncio.get_running_loop().time()
        finally:
            self._followers -= 1

    async def _next(self, query: Query, place: int) -> Told:
        """The next events after a place, and the place behind what was looked at."""
        found: list[Found] = []
        size = 0
        for one in await self._storage.events(place, READ_AT_ONCE):
            event = await self._queries.reading.found(Row(one.sequence, one.event, one.sequence))
            assert event is not None, "what the order of recording has is recorded here"
            place = one.sequence
            if matches(query, event.event, event.record_time_ms):
                found.append(event)
                size += len(event.statement)
                if size >= TOLD_BYTES_MAX:
                    break
        await asyncio.sleep(0)
        return Told(tuple(found), place)

    async def _wait(self, before: int, seconds: float) -> bool:
        """Wait until there are commits after the one that was known before; false where the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)), self._grown:
                await self._grown.wait_for(lambda: self._head != before)
                return True
        return False

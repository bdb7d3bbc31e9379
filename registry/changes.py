"""Tells what is committed, by whichever node, to those who watch a zone.

One task a node reads what is new in the store (:meth:`Changes.run`): when a commit of this node has returned, and four
times a second anyway, since other nodes may write the same ledger. It lets the node's own memory catch up with prefixes
that have changed, and only then lets watchers know: a resolver asks again within a millisecond, and has to be answered
by what it was told of. Watchers read from the ring, or from the store where they are behind it, each at its own pace.

While the store cannot be read nobody is told anything, not even that all is quiet, so that watchers notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Final

import structlog

from idtrace.errors import Reason, RefusedError
from idtrace.identifier import Prefix
from registry.authority import Authority
from registry.change_ring import Cursor, Ring, next_part, zones_of
from registry.grants import Grants
from registry.storage import Change, Storage, changes_gone

log = structlog.get_logger(__name__)

# Another node's commit is told after this at most; the read that finds nothing costs 15 µs on SQLite, 0.5 ms elsewhere.
POLL_SECONDS: Final = 0.25
# A store that does not answer is asked less and less often, and still soon enough that a second is not lost twice.
RETRY_SECONDS_MAX: Final = 2.0
# Within this time a watcher hears something; a sign of life is sent somewhat sooner, for the way takes time as well.
NEXT_WITHIN_MS: Final = 2_000
QUIET_SECONDS: Final = 1.5
# All is quiet only where the store has said so of late: four reads may have failed or be on their way.
STALE_SECONDS: Final = 1.0
# Subjects of one message: a full batch, 140 KB of serials and 600 KB of the longest names, below the 4 MB of clients.
PART_MAX: Final = 2_000
# Commits of one read: 1 MB of full batches.
READ_AT_ONCE: Final = 16


class Changes:
    """The commits of the store, told. Owned by the event loop's thread; ``news`` is set when a commit has returned."""

    def __init__(self, storage: Storage, authority: Authority, grants: Grants, news: asyncio.Event) -> None:
        self._storage = storage
        self._authority = authority
        self._grants = grants
        self._news = news
        self._ring = Ring(0)
        self._watchers: dict[str, set[_Watcher]] = {}  # by zone
        self._parts: dict[tuple[str, Cursor], tuple[Change, Cursor]] = {}  # many watch one zone and are told the same
        self._read_at = 0.0  # when the store was last asked and has answered, by the loop's clock

    async def begin(self) -> None:
        """Begin at the store's last commit. To be awaited before memory is loaded, so that nothing falls between."""
        self._ring = Ring(await self._storage.sequence())
        self._read_at = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Read and tell for ever."""
        failures = 0
        while True:
            self._news.clear()
            try:
                more = await self._read()
            except Exception as error:  # noqa: BLE001 - the engine's own, whatever it is: it may come back
                failures += 1
                if failures == 1:
                    log.warning("changes cannot be read", error=type(error).__name__, detail=str(error))
                await asyncio.sleep(min(POLL_SECONDS * 2 ** min(failures, 8), RETRY_SECONDS_MAX))
                continue
            if failures:
                log.info("changes can be read again", tries=failures)
                failures = 0
            if not more:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._news.wait()

    async def _read(self) -> bool:
        """Take in what is new; whether there may be more."""
        began = asyncio.get_running_loop().time()
        try:
            found = await self._storage.changes(self._ring.head, READ_AT_ONCE)
        except RefusedError as error:
            # The store was away for longer than it keeps changes, or is an older one now: nobody knows what was missed.
            log.warning("changes are lost; whoever watches begins anew", detail=error.detail)
            head = await self._storage.sequence()
            await self._grants.catch_up(None)
            self._ring = Ring(head)
            for watcher in (watcher for watchers in self._watchers.values() for watcher in watchers):
                watcher.woken.set()
            return True
        prefixes = sorted({prefix for commit in found for prefix, _ in commit.prefixes})
        if prefixes:
            await self._grants.catch_up(prefixes)
        before = self._ring.head
        self._ring.add(found)
        self._parts.clear()
        for watcher in (watcher for zone in zones_of(found) for watcher in self._watchers.get(zone, ())):
            watcher.pass_over(before)
            watcher.concerned = self._ring.head
            watcher.woken.set()
        self._read_at = began
        return len(found) == READ_AT_ONCE

    async def watch(self, zone: Prefix, after: int | None) -> AsyncGenerator[Change]:
        """What has changed in a zone since commit ``after`` (None: from now on), and signs of life, for ever.

        The first comes at once; each tells, by its number, up to where everything has been told. At most
        :data:`PART_MAX` subjects at a time, :data:`NEXT_WITHIN_MS` apart at most while the store can be read.

        Raises:
            RefusedError: NOT_AUTHORITATIVE where the node does not answer for the zone, or does so no longer;
                CHANGES_GONE where it cannot tell all that has changed.
        """
        self._require_ours(zone)
        ring = self._ring
        if after is not None and after > ring.head and after > (head := await self._storage.sequence()):
            raise changes_gone(after, head)
        watcher = _Watcher(str(zone), ring, Cursor(ring.head if after is None else after))
        watchers = self._watchers.setdefault(watcher.zone, set())
        watchers.add(watcher)
        try:
            async with aclosing(self._told(watcher, zone)) as telling:
                async for told in telling:
                    yield told
        finally:
            watchers.discard(watcher)
            if not watchers and self._watchers.get(watcher.zone) is watchers:
                del self._watchers[watcher.zone]

    async def _told(self, watcher: _Watcher, zone: Prefix) -> AsyncGenerator[Change]:
        clock = asyncio.get_running_loop().time
        quiet_until = clock()
        while True:
            if watcher.ring is not self._ring:
                raise changes_gone(watcher.cursor.sequence, self._ring.head)
            if watcher.cursor.sequence < watcher.concerned:
                part = await self._next(watcher)
                # The way through the store may be long and have nothing for this zone.
                if part.identifiers or part.prefixes or part.events or clock() >= quiet_until:
                    yield part
                    quiet_until = clock() + QUIET_SECONDS
                continue
            self._require_ours(zone)
            if await self._quiet(watcher, quiet_until):
                watcher.pass_over(self._ring.head)
                yield Change(watcher.cursor.sequence)
                quiet_until = clock() + QUIET_SECONDS

    async def _next(self, watcher: _Watcher) -> Change:
        """The part that comes after the watcher's cursor, which it moves."""
        at, key = watcher.cursor.sequence, (watcher.zone, watcher.cursor)
        known = self._parts.get(key)
        if known is None and (commits := watcher.ring.after(at, PART_MAX)) is not None:
            known = self._parts[key] = next_part(commits, watcher.zone, watcher.cursor, PART_MAX)
        elif known is None:
            # What memory has not caught up with is in the store already, and is not to be told yet.
            stored = [commit for commit in await self._stored(at) if commit.sequence <= watcher.ring.head]
            if not stored:
                raise changes_gone(at, watcher.ring.head)
            known = next_part(stored, watcher.zone, watcher.cursor, PART_MAX)
        part, watcher.cursor = known
        return part

    async def _stored(self, after: int) -> list[Change]:
        """As the store tells; a store that does not answer is waited for, and the watcher with it."""
        while True:
            try:
                return await self._storage.changes(after, READ_AT_ONCE)
            except RefusedError:
                raise
            except Exception:  # noqa: BLE001 - run() has said so in the log
                await asyncio.sleep(POLL_SECONDS)

    async def _quiet(self, watcher: _Watcher, until: float) -> bool:
        """Wait for news of the zone; true where it is time for a sign of life and the store has been read of late."""
        clock = asyncio.get_running_loop().time
        while not watcher.woken.is_set():
            left = until - clock()
            if left <= 0:
                if clock() - self._read_at < STALE_SECONDS:
                    return True
                left = POLL_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await watcher.woken.wait()
        watcher.woken.clear()
        return False

    def _require_ours(self, zone: Prefix) -> None:
        holder = self._authority.zone_of(zone)
        if holder is None or not self._authority.serves(holder):
            detail = f"this node does not answer for zone '{zone}'"
            raise RefusedError(Reason.NOT_AUTHORITATIVE, detail, field="zone")


class _Watcher:
    """One stream. Its part of ``ring`` after ``cursor`` is yet to be told; no commit after ``concerned`` has its zone.

    A ring is left for a new one when changes were lost, and then whoever has read from the old one begins anew.
    """

    __slots__ = ("concerned", "cursor", "ring", "woken", "zone")

    def __init__(self, zone: str, ring: Ring, cursor: Cursor) -> None:
        self.zone = zone
        self.ring = ring
        self.cursor = cursor
        self.concerned = ring.head  # what came between the cursor and now is not known yet
        self.woken = asyncio.Event()

    def pass_over(self, sequence: int) -> None:
        """Nothing up to here concerns the zone that has not been told; where something does, this does nothing."""
        if self.cursor.sequence >= self.concerned:
            self.cursor = max(self.cursor, Cursor(sequence))

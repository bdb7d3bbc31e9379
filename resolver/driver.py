"""Drives walks: performs their effects, lets identical questions share one walk, and keeps what they found.

The life of a question: the in-process cache, else the walk for this identifier that is in flight, else a new walk,
which looks first at what other resolvers have found out (``resolver/sharing.py``). A walk belongs to the resolver and
not to whoever asked first: an asker who goes away leaves it running for the others.

A ``fresh`` question has to see what was true when it was asked, so it never joins a walk that has begun before it; all
fresh questions that come while one is under way share the next. A thousand of them therefore cost two walks, not one.
The same goes for any question that comes after a node has said that the identifier, or a zone on the way to it, has
changed: what a walk finds that had asked before is for those who asked before, and is not kept
(``resolver/announced.py``).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Protocol

import structlog

from idtrace.bundle import Verdict
from idtrace.chain import Anchor
from idtrace.errors import BusyError, Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.signature import SignatureMemory
from resolver.cache import AnswerCache
from resolver.effects import Ask, CacheRead, Done, Event, Failed, FailureKind, Limits, ReadCache, Reply
from resolver.following import Following
from resolver.resolution import Resolution
from resolver.sharing import Found, Sharing
from resolver.trust import TrustStore
from resolver.walk import Walk

log = structlog.get_logger(__name__)

# A walk holds an identifier, a chain and a channel's stream, about 50 KiB; and 32 calls each at worst.
WALKS_MAX: Final = 1_024
# A walk to a silent endpoint lasts seconds. Where half of all walks are taken, those below one enterprise (three
# labels) may be a quarter of all: who owns a zone, or cuts one off, must not take the resolver from everybody else.
CROWDED: Final = 2
SHARE: Final = 4
_SHARE_LABELS: Final = 3
# After the shared cache has gone, kept answers are asked for again while less than a sixteenth of all walks (64) is
# under way; beyond, they are handed out as they are: the authority sees no herd, and nobody waits in one.
REVIEWS: Final = 16
# Past its time-out an upstream is cut off by us; its own cut comes first and knows better what was wrong.
_GRACE_SECONDS: Final = 0.25


class Upstream(Protocol):
    """Asks other nodes. Whatever goes wrong comes back as a reply; nothing but cancellation is raised."""

    async def ask(self, ask: Ask) -> Reply:
        """Ask the node at ``ask.endpoint`` within ``ask.timeout_ms``."""
        ...

    async def close(self) -> None:
        """Let go of every connection."""
        ...


class Watcher(Protocol):
    """Runs the watches that a :class:`~resolver.following.Following` wants."""

    def start(self) -> None:
        """Begin; questions need not wait for it."""
        ...

    async def close(self) -> None:
        """End every stream."""
        ...


@dataclass(frozen=True, slots=True)
class Clock:
    """Both clocks: ``wall`` in seconds since the Unix epoch, ``monotonic`` in seconds since whenever."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic

    def now(self) -> int:
        """Wall clock, s."""
        return int(self.wall())

    def wall_ms(self) -> int:
        """Wall clock, ms."""
        return int(self.wall() * 1000)

    def now_ms(self) -> int:
        """Monotonic, ms."""
        return int(self.monotonic() * 1000)


class Source(StrEnum):
    """Where an answer came from."""

    CACHE = "cache"
    WALK = "walk"
    SHARED = "shared"


@dataclass(frozen=True, slots=True)
class Answer:
    """A resolution as handed to one asker: its source, its age, and how long it may still be kept (ms).

    ``unfollowed_ms``: for how long it may have been out of date unheard, at most its age; None where changes are told.
    """

    resolution: Resolution
    source: Source
    age_ms: int
    ttl_ms: int
    unfollowed_ms: int | None = None


@dataclass(slots=True, eq=False)
class _Flight:
    """A walk for one identifier; ``began_ms`` is None (and ``fresh`` may still change) while it waits for its turn."""

    task: asyncio.Task[Answer]
    fresh: bool
    began_ms: int | None = None


@dataclass(slots=True)
class WalkCounters:
    """What has happened so far; read by the metrics page."""

    questions: int = 0
    joined: int = 0
    walks: int = 0
    upstream_calls: int = 0
    refused_busy: int = 0
    outrun: int = 0  # what they found was not kept: it was announced to have changed meanwhile


class Resolver:
    """Answers questions about identifiers. Belongs to one event loop."""

    def __init__(
        self,
        *,
        anchor: Anchor,
        root_endpoints: Sequence[str],
        upstream: Upstream,
        limits: Limits | None = None,
        cache: AnswerCache | None = None,
        trust: TrustStore | None = None,
        clock: Clock | None = None,
        walks_max: int = WALKS_MAX,
        sharing: Sharing | None = None,
        following: Following | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.anchor = anchor
        self.limits = limits or Limits()
        self.clock = clock or Clock()
        # Not "or": an empty cache or store is false.
        self.cache = AnswerCache() if cache is None else cache
        self.following = Following() if following is None else following
        if trust is None:
            trust = TrustStore(chain_seconds=self.limits.chain_seconds, following=self.following)
        self.trust = trust
        self.counters = WalkCounters()
        self._memory = SignatureMemory()
        self._root_endpoints = tuple(root_endpoints)
        self._upstream = upstream
        self._walks_max = walks_max
        self._sharing = sharing
        self._watcher = watcher
        # By identifier: the walk under way, and the one that fresh questions wait for. Changed only between awaits.
        self._running: dict[Identifier, _Flight] = {}
        self._waiting: dict[Identifier, _Flight] = {}
        self._by_owner: Counter[Prefix] = Counter()  # walks under way or waiting, by the first labels of the prefix

    def start(self) -> None:
        """Begin to connect to the shared cache, if there is one, and to follow; questions need not wait for that."""
        if self._sharing is not None:
            self._sharing.start()
        if self._watcher is not None:
            self._watcher.start()

    async def resolve(self, identifier: Identifier, *, fresh: bool = False) -> Answer:
        """Answer one question; ``fresh`` asks the authority even if the cache has an answer.

        Raises:
            BusyError: OVERLOADED where too many walks are under way.
        """
        self.counters.questions += 1
        hit = self.cache.get(identifier, now=self.clock.now(), now_ms=self.clock.now_ms(), fresh=fresh)
        if hit is not None and not (hit.doubtful and self.in_flight * REVIEWS < self._walks_max):
            return Answer(hit.resolution, Source.CACHE, hit.age_ms, hit.ttl_ms, hit.unfollowed_ms)
        task, joined = self._board(identifier, fresh=fresh)
        # An asker who goes away leaves the walk running for the others.
        answer = await asyncio.shield(task)
        if hit is not None and answer.resolution.bundle is None:
            # To ask again has proven nothing, and what is kept is proven.
            return Answer(hit.resolution, Source.CACHE, hit.age_ms, hit.ttl_ms, hit.unfollowed_ms)
        if not joined:
            return answer
        self.counters.joined += 1
        return replace(answer, source=Source.SHARED)

    async def close(self) -> None:
        """End every walk and every connection."""
        tasks = [flight.task for flight in (*self._running.values(), *self._waiting.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._running.clear()
        self._waiting.clear()
        if self._watcher is not None:
            await self._watcher.close()
        if self._sharing is not None:
            await self._sharing.close()
        await self._upstream.close()

    @property
    def in_flight(self) -> int:
        """Walks under way or waiting for one."""
        return len(self._running) + len(self._waiting)

    def _board(self, identifier: Identifier, *, fresh: bool) -> tuple[asyncio.Task[Answer], bool]:
        """The walk that answers this question, and whether it was there before."""
        running = self._running.get(identifier)
        if running is not None and not fresh and not self._outrun(identifier, running):
            return running.task, True
        waiting = self._waiting.get(identifier)
        if waiting is not None:
            waiting.fresh |= fresh
            return waiting.task, True
        if self.in_flight >= self._walks_max:
            self.counters.refused_busy += 1
            raise BusyError(Reason.OVERLOADED, f"{self._walks_max} walks are under way; try again")
        owner = Prefix(identifier.prefix.labels[:_SHARE_LABELS])
        if self.in_flight * CROWDED >= self._walks_max and self._by_owner[owner] * SHARE >= self._walks_max:
            self.counters.refused_busy += 1
            raise BusyError(Reason.OVERLOADED, f"{self._by_owner[owner]} walks below {owner} are under way; try again")
        self._by_owner[owner] += 1
        flights = self._running if running is None else self._waiting
        before = running.task if running is not None else None
        task = asyncio.create_task(self._fly(identifier, before), name=f"walk {identifier}")
        task.add_done_callback(_see_failure)
        task.add_done_callback(lambda _: self._leave(owner))
        # It begins with the next turn of the loop, and with what is true then.
        flights[identifier] = _Flight(task, fresh)
        return task, False

    def _outrun(self, identifier: Identifier, flight: _Flight) -> bool:
        began_ms = flight.began_ms
        return began_ms is not None and self.following.announced.since(identifier, began_ms)

    def _leave(self, owner: Prefix) -> None:
        self._by_owner[owner] -= 1
        if not self._by_owner[owner]:
            del self._by_owner[owner]

    async def _fly(self, identifier: Identifier, before: asyncio.Task[Answer] | None) -> Answer:
        """One walk, after ``before`` has ended; then whoever waits for this one may begin."""
        try:
            if before is not None:
                await asyncio.wait((before,))
                now, now_ms = self.clock.now(), self.clock.now_ms()
                failure = self.cache.get(identifier, now=now, now_ms=now_ms, fresh=True)
                if failure is not None:
                    return Answer(failure.resolution, Source.SHARED, failure.age_ms, failure.ttl_ms)
            flight = self._running[identifier]
            flight.began_ms = self.clock.now_ms()
            return await self._walk(identifier, fresh=flight.fresh, began_ms=flight.began_ms)
        finally:
            following = self._waiting.pop(identifier, None)
            if following is None:
                self._running.pop(identifier, None)
            else:
                self._running[identifier] = following

    async def _walk(self, identifier: Identifier, *, fresh: bool, began_ms: int) -> Answer:
        self.counters.walks += 1
        started_wall_ms = self.clock.wall_ms()
        walk = Walk(
            identifier,
            anchor=self.anchor,
            root_endpoints=self._root_endpoints,
            floors=self.trust,
            limits=self.limits,
            memory=self._memory,
        )
        effect = walk.begin(now_ms=began_ms)
        found: Found | None = None
        while not isinstance(effect, Done):
            if isinstance(effect, ReadCache):
                found = await self._look_up(effect, fresh=fresh)
                event: Event = self._read(effect, found)
            else:
                event = await self._ask(effect)
            effect = walk.receive(event, now=self.clock.now(), now_ms=self.clock.now_ms())
        if found is not None:
            return self._keep_found(effect.resolution, found)
        return self._keep(effect, began_ms, started_wall_ms)

    async def _look_up(self, effect: ReadCache, *, fresh: bool) -> Found | None:
        """What other resolvers have found out; in this process an answer was looked for before the walk began."""
        if self._sharing is None:
            return None
        return await self._sharing.look_up(effect.identifier, effect.zones, fresh=fresh)

    def _read(self, effect: ReadCache, found: Found | None) -> CacheRead:
        chain = self.trust.deepest(effect.zones, now=self.clock.now(), now_ms=self.clock.now_ms())
        return CacheRead(found.resolution if found else None, chain)

    async def _ask(self, ask: Ask) -> Reply:
        self.counters.upstream_calls += 1
        try:
            async with asyncio.timeout(ask.timeout_ms / 1000 + _GRACE_SECONDS):
                return await self._upstream.ask(ask)
        except TimeoutError:
            return Failed(FailureKind.TIMEOUT, f"no answer within {ask.timeout_ms} ms")

    def _keep_found(self, resolution: Resolution, found: Found) -> Answer:
        """Keep an answer of the shared cache for as long as it may be used."""
        if found.keep:
            self.cache.put(resolution, now_ms=self.clock.now_ms(), basis=found.basis)
        return Answer(resolution, Source.CACHE, found.age_ms, max(0, resolution.ttl_ms), found.unfollowed_ms)

    def _keep(self, done: Done, began_ms: int, started_wall_ms: int) -> Answer:
        """Remember what was verified, and keep the answer unless there is word, or another walk's, of a newer one."""
        resolution = done.resolution
        accepted = self.trust.accept(done)
        latest = accepted.latest and not self._may_be_older(done, began_ms)
        for zone in accepted.changed:
            self.cache.purge(zone)
        if resolution.verdict is Verdict.BOGUS:
            log.warning(
                "bogus",
                identifier=str(resolution.identifier),
                reason=str(resolution.reason),
                detail=resolution.detail,
                visited=resolution.visited,
            )
        if self._sharing is not None:
            doubts = self.following.announced.doubts_chain
            current = replace(done, learned=tuple(learned for learned in done.learned if not doubts(learned)))
            self._sharing.offer(current, started_wall_ms=started_wall_ms, latest=latest)
        now_ms = self.clock.now_ms()
        if not latest:
            return Answer(resolution, Source.WALK, 0, 0, None if done.reached is None else 0)
        if done.reached is None:
            return Answer(resolution, Source.WALK, 0, self.cache.put(resolution, now_ms=now_ms))
        basis = self.following.basis(done.reached, done.asked_ms, now_ms=now_ms)
        unfollowed_ms = basis.unfollowed_ms(now_ms)
        ttl_ms = self.cache.put(resolution, now_ms=now_ms, basis=basis)
        ttl_ms = max(0, min(ttl_ms, basis.left_ms(unfollowed_ms)))
        return Answer(resolution, Source.WALK, 0, ttl_ms, None if unfollowed_ms is None else 0)

    def _may_be_older(self, done: Done, began_ms: int) -> bool:
        """Whether what a walk has found may be older than what a node has said meanwhile."""
        announced, identifier = self.following.announced, done.resolution.identifier
        if done.reached is None:  # failed, perhaps by what has changed
            older = announced.since(identifier, began_ms)
        else:
            version = done.record.body.version if done.record is not None else 0
            older = announced.doubts(identifier, done.reached, done.asked_ms, version=version)
        self.counters.outrun += older
        return older


def _see_failure(task: asyncio.Task[Answer]) -> None:
    """Our own bug reaches whoever waits for the walk; where nobody does any more, at least the log."""
    if not task.cancelled() and task.exception() is not None:
        log.error("walk failed", walk=task.get_name(), exc_info=task.exception())

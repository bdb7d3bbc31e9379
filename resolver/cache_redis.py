"""The shared cache in Redis: one trip a turn of the event loop, bounded waiting, and word of what changes.

**One trip.** All misses of one turn go out as one ``MGET`` over all their keys, with the writes that wait, on one
connection; what is asked while a trip is under way goes with the next. Never one ``GET`` a question (111 µs each).

**Budget.** A question waits for the trip under way and for its own, each cut off after ``op_timeout_ms``: with 50 ms,
100 ms at worst if Redis is dead. Where hundreds wait, they go in turns, and whoever has waited for two time-outs goes
on without: 150 ms at worst if Redis is slow. All that only while the connection stands: a trip that fails takes it
down, and until a new one has answered a PING within the same time, questions do not wait at all. Three failures in a
row and Redis is left alone for a second; the attempt after that is the half-open one. Nobody ever waits for a write.

**Word of what changes.** ``CLIENT TRACKING ON REDIRECT … BCAST PREFIX … NOLOOP``: a second connection, subscribed to
``__redis__:invalidate``, hears of every key that another resolver writes. Both connections are asked at least once a
second; where either is lost, both are, and with them whatever the process has kept from Redis. A server that refuses
tracking (an ACL, a renamed command, a cluster) is used without: what comes from it is then kept for two seconds at
most (``UNTRACKED_MS``).

**Errors of Redis** are misses: LOADING, MOVED, MASTERDOWN and NOPERM on a reading count as a failure; OOM, MISCONF,
NOPERM and READONLY on a write cost that write. Behind Sentinel a READONLY also means that the master has moved, so it
is looked up again. Each cause is logged once, until a connection has stood for a minute.

**Whose fault.** A trip is given its time in turns of the event loop, so a process that is busy finds what has come
meanwhile before it says that Redis is slow.

**Cluster.** Keys carry no hash tag, which would put all of them on one node. So a trip is one pipeline a node, of one
MGET a slot (``mget_nonatomic``), and writes are one EVAL each. There is no tracking.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog
from redis.exceptions import RedisError

from resolver.redis_link import CONNECT_SECONDS, PING_SECONDS, ClusterLink, Link, LinkLostError, RedisPlace, ServerLink
from resolver.shared_cache import Breaker, SharedCounters
from resolver.sharing import Listener, Remove, Write

T = TypeVar("T")
log = structlog.get_logger(__name__)

# 2 KiB each; a burst of walks ends in one write each, and the store takes 64 in a millisecond.
WRITES_WAITING_MAX: Final = 4_096
WRITES_PER_TRIP: Final = 64
# 2 KiB each: half a MiB is read within a few turns of the loop, so a time-out tells of Redis and not of us.
KEYS_PER_TRIP: Final = 256
# A trip's time is counted in so many parts, each at least two turns of the loop. A trip itself takes five turns: its
# task sends, the reply is read, the task takes it, and two more until whoever waits for it has heard.
PARTS: Final = 4
# Once a connection has stood for so long, what ends it is news again.
STEADY_SECONDS: Final = 60.0
# Causes of failures that are remembered as told: a handful, unless they hold numbers that change.
CAUSES_MAX: Final = 64


@dataclass(slots=True)
class _Waiting:
    keys: Sequence[bytes]
    since: float
    after: int  # how many trips had set out before
    values: asyncio.Future[Sequence[bytes | None] | None]


class RedisCache:
    """:class:`resolver.sharing.Store` in Redis. Belongs to one event loop."""

    def __init__(self, place: RedisPlace, *, breaker: Breaker | None = None) -> None:
        self._place = place
        self._op_seconds = place.op_timeout_ms / 1000
        self._breaker = breaker or Breaker()
        self._link: Link | None = None
        self._reads: deque[_Waiting] = deque()
        self._writes: deque[Write | Remove] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._listener: Listener | None = None
        self._counters = SharedCounters()
        self._told: set[str] = set()
        self._set_out = 0

    @property
    def up(self) -> bool:
        """Whether there is a connection that has answered."""
        return self._link is not None

    @property
    def tracking(self) -> bool:
        """Whether Redis tells what changes."""
        return self._link is not None and self._link.tracking

    def start(self, listener: Listener, counters: SharedCounters) -> None:
        """Connect, and connect again, for as long as the resolver runs."""
        self._listener, self._counters = listener, counters
        self._task = asyncio.create_task(self._run(), name="redis")

    async def close(self) -> None:
        """End what runs; whoever waits gets a miss."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._release()

    async def read(self, keys: Sequence[bytes]) -> Sequence[bytes | None] | None:
        """Values, with the next trip; None where there is no connection, or it broke, or took too long."""
        if self._link is None:
            return None
        loop = asyncio.get_running_loop()
        waiting = _Waiting(keys, loop.time(), self._set_out, loop.create_future())
        self._reads.append(waiting)
        self._wake.set()
        return await waiting.values

    def write(self, change: Write | Remove) -> None:
        """With a trip to come; dropped where there is no connection."""
        if self._link is None or len(self._writes) >= WRITES_WAITING_MAX:
            self._counters.dropped += 1
            return
        self._writes.append(change)
        self._wake.set()

    # The life of a connection

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            wait_ms = self._breaker.wait_ms(int(loop.time() * 1000))
            if wait_ms:
                await asyncio.sleep(wait_ms / 1000)
            link = ClusterLink(self._place) if self._place.cluster else ServerLink(self._place)
            began = loop.time()
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await link.open()
                # Half-open: it has to be as quick as a trip has to be, and to let us read.
                await self._within(link.trip((self._place.prefix,), ()))
                if link.untracked:
                    self._tell("redis does not tell what changes", link.untracked)
                await self._serve(link)
            except (RedisError, OSError, TimeoutError, LinkLostError) as error:
                self._counters.failures += 1
                self._breaker.failed(int(loop.time() * 1000))
                if loop.time() - began > STEADY_SECONDS:
                    self._told.clear()
                self._tell("redis is lost", f"{type(error).__name__}: {str(error) or 'no answer in time'}")
            finally:
                self._link = None
                self._release()
                await link.close()

    def _tell(self, what: str, cause: str) -> None:
        """Once, not once a second for as long as it lasts."""
        if cause not in self._told:
            if len(self._told) >= CAUSES_MAX:
                self._told.clear()
            self._told.add(cause)
            log.warning(what, error=cause)

    async def _serve(self, link: Link) -> None:
        assert self._listener is not None, "start() comes first"
        listening = asyncio.create_task(link.listen(self._listener.invalidated), name="redis words")
        listening.add_done_callback(lambda _: self._wake.set())
        self._link = link
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PING_SECONDS):
                        await self._wake.wait()
                self._wake.clear()
                if listening.done():
                    listening.result()
                await self._trip(link)
                self._breaker.succeeded()
        finally:
            self._link = None
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            if link.tracking:
                self._listener.lost()

    async def _trip(self, link: Link) -> None:
        reads, keys = self._next_reads()
        changes = [self._writes.popleft() for _ in range(min(len(self._writes), WRITES_PER_TRIP))]
        try:
            # With nothing to read, the key of nobody tells whether the connection lives. Not PING: a server that cannot
            # save refuses that one as it refuses writes (MISCONF), and can be read all the same.
            values, replies = await self._within(link.trip(list(keys) or (self._place.prefix,), changes))
        except BaseException:
            self._counters.dropped += len(changes)
            for waiting in reads:
                _answer(waiting, None)
            raise
        self._counters.trips += 1
        for waiting in reads:
            _answer(waiting, [values[keys[key]] for key in waiting.keys])
        moved = False
        for change, reply in zip(changes, replies, strict=True):
            moved |= self._settle(change, reply)
        if self._reads or self._writes:
            self._wake.set()
        if moved and self._place.sentinels:
            raise LinkLostError("this is a replica now")

    def _next_reads(self) -> tuple[list[_Waiting], dict[bytes, int]]:
        """Who is served by the next trip, and where each key stands in it."""
        self._set_out += 1
        late = asyncio.get_running_loop().time() - 2 * self._op_seconds
        reads: list[_Waiting] = []
        keys: dict[bytes, int] = {}
        while self._reads and len(keys) < KEYS_PER_TRIP:
            waiting = self._reads.popleft()
            # Nobody is late for the first trip that sets out after the question: then it is the loop that was late.
            if waiting.since < late and self._set_out > waiting.after + 1:
                _answer(waiting, None)
                continue
            for key in waiting.keys:
                keys.setdefault(key, len(keys))
            reads.append(waiting)
        return reads, keys

    def _settle(self, change: Write | Remove, reply: int | Exception) -> bool:
        """Count what has become of a change; whether the server says that it is a replica."""
        if isinstance(reply, Exception):
            self._counters.refused += 1
            self._tell("redis does not take what is written", str(reply))
            return str(reply).startswith("READONLY")
        if isinstance(change, Remove):
            return False
        if reply == 0:
            self._counters.written += 1
            return False
        self._counters.superseded += 1
        assert self._listener is not None, "start() comes first"
        self._listener.superseded(change, reply - 1)
        return False

    async def _within(self, work: Awaitable[T]) -> T:
        """Cut off what takes too long; an event loop that was busy meanwhile is not Redis's fault."""
        task = asyncio.ensure_future(work)
        try:
            for _ in range(PARTS):
                await asyncio.wait((task,), timeout=self._op_seconds / PARTS)
                if task.done():
                    return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            elif not task.cancelled():
                task.exception()  # seen, even if whoever waited for it is being ended
        raise TimeoutError(f"no answer within {self._place.op_timeout_ms} ms")

    def _release(self) -> None:
        """Nobody waits for a connection that is not there."""
        while self._reads:
            _answer(self._reads.popleft(), None)
        self._counters.dropped += len(self._writes)
        self._writes.clear()


def _answer(waiting: _Waiting, values: Sequence[bytes | None] | None) -> None:
    if not waiting.values.done():  # whoever asked may have gone
        waiting.values.set_result(values)

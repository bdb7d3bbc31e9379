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
tracking (an ACL, a cluster) is used without: what comes from it is then kept for two seconds at most.

**Errors of Redis** are misses: LOADING, MOVED and MASTERDOWN on a reading count as a failure; OOM and READONLY on a
write cost that write. Behind Sentinel a READONLY also means that the master has moved, so it is looked up again.

**Cluster.** Keys carry no hash tag, which would put all of them on one node. So a trip is one pipeline a node, of one
MGET a slot (``mget_nonatomic``), and writes are one EVAL each. There is no tracking.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar, cast

import structlog
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from resolver.shared_cache import COMPARE_AND_SET, REMOVE_IF_SAME, Breaker, SharedCounters
from resolver.sharing import Listener, Remove, Write

T = TypeVar("T")
log = structlog.get_logger(__name__)

# 2 KiB each; a burst of walks ends in one write each, and the store takes 64 in a millisecond.
WRITES_WAITING_MAX: Final = 4_096
WRITES_PER_TRIP: Final = 64
# 2 KiB each: half a MiB is read within a few turns of the loop, so a time-out tells of Redis and not of us.
KEYS_PER_TRIP: Final = 256
# TCP, TLS and four questions to a Redis in another building; nobody waits for it.
CONNECT_SECONDS: Final = 2.0
# A connection without traffic may be dead.
PING_SECONDS: Final = 1.0
# How often a time-out that came late (the loop was busy, so who knows what has arrived) is given once more.
BUSY_TURNS: Final = 3

_CHANNEL: Final = b"__redis__:invalidate"
_CAS_SHA: Final = hashlib.sha1(COMPARE_AND_SET.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class RedisPlace:
    """Where Redis is and how to be let in.

    Attributes:
        url: ``redis://``, ``rediss://`` or ``unix://``; behind Sentinel only its database number counts.
        prefix: what our keys begin with.
        username: of an ACL; "" for the default user.
        password: "" for none.
        sentinels: host and port of each; empty for none.
        master_name: what Sentinel calls the master.
        cluster: whether ``url`` names a node of a cluster.
        op_timeout_ms: what one trip may take.
        tls: options of ``SSLConnection``; empty for a plain connection or the system's authorities.
    """

    url: str
    prefix: bytes = b"idt:"
    username: str = ""
    password: str = field(default="", repr=False)
    sentinels: tuple[tuple[str, int], ...] = ()
    master_name: str = ""
    cluster: bool = False
    op_timeout_ms: int = 50
    tls: tuple[tuple[str, str], ...] = ()


class LinkLostError(Exception):
    """The connection is of no use any more."""


class Link(Protocol):
    """An open connection to Redis."""

    tracking: bool

    async def trip(
        self, keys: Sequence[bytes], changes: Sequence[Write | Remove]
    ) -> tuple[Sequence[bytes | None], Sequence[int | Exception]]:
        """Values of keys, and for each change 0, 1 + the version that stands, or why it was refused."""
        ...

    async def listen(self, tell: Callable[[list[bytes] | None], None]) -> None:
        """Hand on what changes, until the connection is lost."""
        ...

    async def close(self) -> None:
        """Let go of it."""
        ...


class ServerLink:
    """Two connections to one server: one for trips, one that hears what changes."""

    def __init__(self, place: RedisPlace) -> None:
        self.tracking = False
        self._place = place
        self._trips: AbstractConnection | None = None
        self._words: AbstractConnection | None = None

    async def open(self) -> None:
        """Connect, load the script, and ask to be told of changes.

        Raises:
            RedisError, OSError: Redis is not there or does not let us in.
        """
        kind, options = await _address(self._place)
        self._words, self._trips = kind(**options), kind(**options)
        for connection in (self._words, self._trips):
            await connection.connect()  # type: ignore[no-untyped-call]  # untyped in redis-py
        await _ask(self._trips, "SCRIPT", "LOAD", COMPARE_AND_SET)
        number = await _ask(self._words, "CLIENT", "ID")
        try:
            await _ask(self._words, "SUBSCRIBE", _CHANNEL)
            tracked = ("CLIENT", "TRACKING", "ON", "REDIRECT", number, "BCAST", "PREFIX", self._place.prefix, "NOLOOP")
            await _ask(self._trips, *tracked)
        except ResponseError as error:
            log.warning("redis does not tell what changes", error=str(error))
        else:
            self.tracking = True

    async def trip(
        self, keys: Sequence[bytes], changes: Sequence[Write | Remove]
    ) -> tuple[Sequence[bytes | None], Sequence[int | Exception]]:
        """One write and one read of the socket; again where the script has been flushed."""
        assert self._trips is not None, "open() comes first"
        commands: list[tuple[Any, ...]] = [("MGET", *keys) if keys else ("PING",)]
        commands += [_command(change) for change in changes]
        values, *replies = await _pipeline(self._trips, commands)
        if isinstance(values, Exception):
            raise values
        flushed = [n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if flushed:
            again = [("SCRIPT", "LOAD", COMPARE_AND_SET), *(_command(changes[n]) for n in flushed)]
            for n, reply in zip(flushed, (await _pipeline(self._trips, again))[1:], strict=True):
                replies[n] = reply
        return (values if keys else ()), [_reply(reply) for reply in replies]

    async def listen(self, tell: Callable[[list[bytes] | None], None]) -> None:
        """Read messages; a second of silence is a PING, and one more is the end."""
        assert self._words is not None, "open() comes first"
        asked = False
        while True:
            message = await self._words.read_response(
                disable_decoding=True, timeout=PING_SECONDS, disconnect_on_error=False
            )
            if message is None:
                if asked:
                    raise LinkLostError("no answer to a PING")
                await self._words.send_command("PING", check_health=False)
                asked = True
                continue
            asked = False
            if message[0] == b"message":
                tell(message[2])

    async def close(self) -> None:
        """Drop both connections without a word."""
        for connection in (self._trips, self._words):
            if connection is not None:
                with contextlib.suppress(RedisError, OSError, asyncio.TimeoutError):
                    await connection.disconnect(nowait=True)


class ClusterLink:
    """A cluster, by way of the client that knows where each slot is."""

    def __init__(self, place: RedisPlace) -> None:
        self.tracking = False
        options: dict[str, Any] = {"username": place.username or None, "password": place.password or None}
        self._client = RedisCluster.from_url(
            place.url,
            **options,
            **dict(place.tls),
            protocol=2,
            socket_timeout=place.op_timeout_ms / 1000,
            socket_connect_timeout=CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )

    async def open(self) -> None:
        """Learn where the slots are.

        Raises:
            RedisError, OSError: no node is there or lets us in.
        """
        self._client = await self._client.initialize()

    async def trip(
        self, keys: Sequence[bytes], changes: Sequence[Write | Remove]
    ) -> tuple[Sequence[bytes | None], Sequence[int | Exception]]:
        """All nodes at the same time."""
        reading = self._client.mget_nonatomic(keys) if keys else _values_of_none()
        writing = [self._client.execute_command(*_command(change, whole=True)) for change in changes]
        values, *replies = await asyncio.gather(reading, *writing, return_exceptions=True)
        if isinstance(values, BaseException):
            raise values
        return values, [_reply(reply) for reply in replies]

    async def listen(self, tell: Callable[[list[bytes] | None], None]) -> None:
        """Nothing is told here."""
        del tell
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Drop all connections."""
        with contextlib.suppress(RedisError, OSError):
            await self._client.aclose()


@dataclass(slots=True)
class _Waiting:
    keys: Sequence[bytes]
    since: float
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
        waiting = _Waiting(keys, loop.time(), loop.create_future())
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
        told = False
        while True:
            wait_ms = self._breaker.wait_ms(int(loop.time() * 1000))
            if wait_ms:
                await asyncio.sleep(wait_ms / 1000)
            link = ClusterLink(self._place) if self._place.cluster else ServerLink(self._place)
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await link.open()
                await self._within(link.trip((), ()))  # half-open: it has to be as quick as a trip has to be
                told = False
                await self._serve(link)
            except (RedisError, OSError, TimeoutError, LinkLostError) as error:
                self._counters.failures += 1
                self._breaker.failed(int(loop.time() * 1000))
                if not told:
                    log.warning("redis is lost", error=f"{type(error).__name__}: {error}")
                told = True  # once, not once a second for as long as it lasts
            finally:
                self._link = None
                self._release()
                await link.close()

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
            self._listener.lost()

    async def _trip(self, link: Link) -> None:
        reads, keys = self._next_reads()
        changes = [self._writes.popleft() for _ in range(min(len(self._writes), WRITES_PER_TRIP))]
        try:
            values, replies = await self._within(link.trip(list(keys), changes))
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
        late = asyncio.get_running_loop().time() - 2 * self._op_seconds
        reads: list[_Waiting] = []
        keys: dict[bytes, int] = {}
        while self._reads and len(keys) < KEYS_PER_TRIP:
            waiting = self._reads.popleft()
            if waiting.since < late:
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
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work)
        try:
            for _ in range(BUSY_TURNS):
                started = loop.time()
                await asyncio.wait((task,), timeout=self._op_seconds)
                if task.done():
                    return task.result()
                if loop.time() - started < 1.5 * self._op_seconds:
                    break
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
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


async def _address(place: RedisPlace) -> tuple[type[AbstractConnection], dict[str, Any]]:
    """What to connect to now: the server itself, or the master that a sentinel names."""
    options: dict[str, Any] = dict(parse_url(place.url or "redis://"))
    kind = cast("type[AbstractConnection]", options.pop("connection_class", Connection))
    if kind is SSLConnection:
        options |= dict(place.tls)
    if place.sentinels:
        sentinel = Sentinel(place.sentinels, socket_timeout=CONNECT_SECONDS / 2, protocol=2)  # type: ignore[no-untyped-call]  # untyped in redis-py
        try:
            options["host"], options["port"] = await sentinel.discover_master(place.master_name)
        finally:
            for one in sentinel.sentinels:
                await one.aclose()
    if place.username:
        options["username"] = place.username
    if place.password:
        options["password"] = place.password
    # Time-outs are ours: one for a whole trip.
    options |= {"protocol": 2, "socket_timeout": None, "socket_connect_timeout": CONNECT_SECONDS}
    return kind, options | {"retry": Retry(NoBackoff(), 0), "driver_info": None}


def _command(change: Write | Remove, *, whole: bool = False) -> tuple[Any, ...]:
    if isinstance(change, Remove):
        return ("EVAL", REMOVE_IF_SAME, 1, change.key, change.value)
    script = ("EVAL", COMPARE_AND_SET) if whole else ("EVALSHA", _CAS_SHA)
    return (*script, 1, change.key, change.value, change.kept_ms)


def _reply(reply: Any) -> int | Exception:
    return reply if isinstance(reply, Exception) else int(reply)


async def _ask(connection: AbstractConnection, *command: Any) -> Any:
    await connection.send_command(*command, check_health=False)
    return await connection.read_response(disable_decoding=True)


async def _pipeline(connection: AbstractConnection, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Replies in order, errors among them."""
    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response(disable_decoding=True))
        except ResponseError as error:
            replies.append(error)
    return replies


async def _values_of_none() -> list[bytes | None]:
    return []

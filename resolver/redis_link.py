"""Connections to Redis: what is said over them, to one server, to the master that Sentinel names, or to a cluster.

What a user of Redis's ACL needs for this, and nothing else is said to a server (README.md has it as one line)::

    PING  MGET  EVALSHA  EVAL  SCRIPT|LOAD  GET  GETRANGE  SET  DEL  CLIENT|ID  CLIENT|TRACKING  SUBSCRIBE

The four in the middle are what the two scripts do. ``SELECT`` is added where the address names a database other than 0.
Over ``rediss://`` the server's certificate and its name are checked, against ``ssl_ca_certs`` where that is given, and
our own is shown where there is one; sentinels are then asked over TLS as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, cast

from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from resolver.shared_cache import COMPARE_AND_SET, REMOVE_IF_SAME
from resolver.sharing import Remove, Write

# TCP, TLS and four questions to a Redis in another building; nobody waits for it.
CONNECT_SECONDS: Final = 2.0
# A connection without traffic may be dead.
PING_SECONDS: Final = 1.0

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
    untracked: str  # why there is no tracking; "" where it is not to be expected

    async def trip(
        self, keys: Sequence[bytes], changes: Sequence[Write | Remove]
    ) -> tuple[Sequence[bytes | None], Sequence[int | Exception]]:
        """Values of keys (one at least), and for each change 0, 1 + the version that stands, or why it was refused."""
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
        self.untracked = ""
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
        try:
            number = await _ask(self._words, "CLIENT", "ID")
            await _ask(self._words, "SUBSCRIBE", _CHANNEL)
            tracked = ("CLIENT", "TRACKING", "ON", "REDIRECT", number, "BCAST", "PREFIX", self._place.prefix, "NOLOOP")
            await _ask(self._trips, *tracked)
        except ResponseError as error:
            self.untracked = str(error)
        else:
            self.tracking = True

    async def trip(
        self, keys: Sequence[bytes], changes: Sequence[Write | Remove]
    ) -> tuple[Sequence[bytes | None], Sequence[int | Exception]]:
        """One write and one read of the socket; again where the script has been flushed."""
        assert self._trips is not None, "open() comes first"
        commands: list[tuple[Any, ...]] = [("MGET", *keys), *map(_command, changes)]
        values, *replies = await _pipeline(self._trips, commands)
        if isinstance(values, Exception):
            raise values
        flushed = [n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if flushed:
            again = [("SCRIPT", "LOAD", COMPARE_AND_SET), *(_command(changes[n]) for n in flushed)]
            for n, reply in zip(flushed, (await _pipeline(self._trips, again))[1:], strict=True):
                replies[n] = reply
        return values, [_reply(reply) for reply in replies]

    async def listen(self, tell: Callable[[list[bytes] | None], None]) -> None:
        """Read messages; a second of silence is a PING, and one more is the end."""
        assert self._words is not None, "open() comes first"
        asked = False
        while True:
            try:
                message = await self._words.read_response(
                    disable_decoding=True, timeout=PING_SECONDS, disconnect_on_error=False
                )
            except ResponseError:
                message = ()  # it refuses a PING while it cannot save (MISCONF), and that is an answer too
            if message is None:
                if asked:
                    raise LinkLostError("no answer to a PING")
                await self._words.send_command("PING", check_health=False)
                asked = True
                continue
            asked = False
            if message[:1] == [b"message"]:
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
        self.untracked = ""
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
        reading = self._client.mget_nonatomic(keys)
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


async def _address(place: RedisPlace) -> tuple[type[AbstractConnection], dict[str, Any]]:
    """What to connect to now: the server itself, or the master that a sentinel names."""
    options: dict[str, Any] = dict(parse_url(place.url or "redis://"))
    kind = cast("type[AbstractConnection]", options.pop("connection_class", Connection))
    if kind is SSLConnection:
        options |= dict(place.tls)
    if place.sentinels:
        options["host"], options["port"] = await _master(place, tls=kind is SSLConnection)
    if place.username:
        options["username"] = place.username
    if place.password:
        options["password"] = place.password
    # Time-outs are ours: one for a whole trip.
    options |= {"protocol": 2, "socket_timeout": None, "socket_connect_timeout": CONNECT_SECONDS}
    return kind, options | {"retry": Retry(NoBackoff(), 0), "driver_info": None}


async def _master(place: RedisPlace, *, tls: bool) -> tuple[str, int]:
    """What the first sentinel that answers calls the master; one after the other, and dead ones leave time for all."""
    each_seconds = CONNECT_SECONDS / 2 / len(place.sentinels)
    asking: dict[str, Any] = {"socket_timeout": each_seconds, "socket_connect_timeout": each_seconds, "protocol": 2}
    asking |= {"retry": Retry(NoBackoff(), 0), **({"ssl": True, **dict(place.tls)} if tls else {})}
    sentinel = Sentinel(place.sentinels, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]  # untyped in redis-py
    try:
        host, port = await sentinel.discover_master(place.master_name)
        return str(host), int(port)
    finally:
        for one in sentinel.sentinels:
            await one.aclose()


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

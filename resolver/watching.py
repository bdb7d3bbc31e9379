"""Runs the watches that are wanted: one ``RegistryService.Watch`` stream each. Nothing but cancellation is raised.

========================================== ============================================================================
how a stream ends                          what comes next
========================================== ============================================================================
it breaks, or nothing comes for too long   the zone's next node, then again from the first, after 0.1 s, 0.2 s … 5 s
CHANGES_GONE, or numbers that went back    all that is known of the zone is forgotten, and the same node is asked anew
what came is malformed or about others     as if it had broken, and counted
no such method, or OVERLOADED              the next node; where all say so, again after a minute
another error                              as if it had broken
========================================== ============================================================================

A stream that broke is resumed at the node that it came from, with the number of the last message that was taken whole.
It has caught up once everything has come up to where the node stood when it was asked anew, which is asked first.
Nobody waits for a watch: until it is there, the answers of its zone are unfollowed (``resolver/following.py``).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from idtrace.canonical import INTEGER_MAX
from idtrace.errors import IdtraceError, InputError, Reason, VerificationError
from idtrace.identifier import Identifier, Prefix
from idtrace.serving.errors import error_from_rpc
from idtrace.v1 import registry_pb2
from resolver.announced import Change, Events
from resolver.following import NEXT_WITHIN_MS_MAX, NEXT_WITHIN_MS_MIN, Following, Watch
from resolver.hearing import Hearing, Message

log = structlog.get_logger(__name__)

# registry.proto: at most so many changes a message. The longest names make 540 KB of them.
CHANGES_MAX: Final = 2_000
MESSAGE_BYTES_MAX: Final = 1_048_576
# Taking a change costs 2 to 20 us, so this is a few milliseconds of the loop before others have their turn.
AT_ONCE: Final = 256
# After a cut of the network all streams come back at the same time; more at once would only wait for one another.
CONNECTS_MAX: Final = 16

_METHOD: Final = "/idtrace.v1.RegistryService/Watch"
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.enable_retries", 0),  # what comes next is decided here
    ("grpc.enable_http_proxy", 0),  # a variable of the environment must not redirect us
    ("grpc.service_config_disable_resolution", 1),  # nor may a TXT record of somebody's zone configure us
    ("grpc.use_local_subchannel_pool", 1),  # a channel that is closed closes its socket
)


class Ended(Enum):
    """How an attempt to follow has ended."""

    LOST = "lost"
    REFUSED = "refused"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to wait for what."""

    # The first message comes at once: a way round the world and a busy node.
    first_seconds: float = 2.0
    retry_seconds: float = 0.1
    retry_seconds_max: float = 5.0
    # A node that has no watches gets some with its next version, or when others have gone.
    refused_seconds: float = 60.0
    # A stream that stood for so long was no accident, so the next attempt is the first again.
    steady_seconds: float = 10.0
    # How often idle watches are looked for.
    idle_seconds: float = 5.0


class Watching:
    """One task a watch. Belongs to one event loop."""

    def __init__(
        self,
        following: Following,
        hearing: Hearing,
        *,
        now_ms: Callable[[], int],
        pace: Pace | None = None,
        connects_max: int = CONNECTS_MAX,
    ) -> None:
        self._following = following
        self._hearing = hearing
        self._now_ms = now_ms
        self._pace = pace or Pace()
        self._connects = asyncio.Semaphore(connects_max)
        self._news = asyncio.Event()
        self._tasks: dict[Watch, asyncio.Task[None]] = {}
        self._running: asyncio.Task[None] | None = None
        following.wanted = self._news.set

    def start(self) -> None:
        """Begin with what is wanted."""
        assert self._running is None, "it is started once"
        self._running = asyncio.create_task(self._run(), name="watches")

    async def close(self) -> None:
        """End every stream."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    async def _run(self) -> None:
        while True:
            self._news.clear()
            self._following.end_idle(self._now_ms())
            for watch in [watch for watch in self._tasks if not self._following.wants(watch)]:
                self._tasks.pop(watch).cancel()
            for watch in self._following.watches:
                if watch not in self._tasks:
                    task = asyncio.create_task(self._follow(watch), name=f"watch {watch.zone}")
                    task.add_done_callback(_see_failure)
                    self._tasks[watch] = task
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace.idle_seconds):
                    await self._news.wait()

    async def _follow(self, watch: Watch) -> None:
        """One watch, for as long as it is wanted."""
        clock = asyncio.get_running_loop().time
        failures = 0
        while True:
            began = clock()
            ends = [await self._attempt(watch, endpoint) for endpoint in _in_order(watch)]
            if ends and all(end is Ended.REFUSED for end in ends):
                failures = 0
                wait_seconds = self._pace.refused_seconds
            else:
                failures = 0 if clock() - began > self._pace.steady_seconds else failures + 1
                most = self._pace.retry_seconds * 2 ** min(failures, 16)
                wait_seconds = min(most, self._pace.retry_seconds_max)
            # All resolvers lose a node at the same moment, and do not come back at the same.
            await asyncio.sleep(wait_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, hides nothing

    async def _attempt(self, watch: Watch, endpoint: str) -> Ended:
        """Follow at one node until that ends; what it cannot tell any more is forgotten, and it is asked once more."""
        end = await self._stream(watch, endpoint)
        if end is Ended.GONE:
            self._hearing.gone(watch)
            end = await self._stream(watch, endpoint)
        return end

    async def _stream(self, watch: Watch, endpoint: str) -> Ended:
        # "dns:///" as in resolver/upstream.py; a channel a stream, which is closed with it.
        channel = grpc.aio.insecure_channel(f"dns:///{endpoint}", options=_OPTIONS)
        try:
            await self._listen(channel, watch, endpoint)
        except grpc.aio.AioRpcError as error:
            return self._ended(error)
        except VerificationError as error:
            if error.reason is Reason.CHANGES_GONE:
                return Ended.GONE
            return self._lied(error, watch, endpoint)
        except IdtraceError as error:
            return self._lied(error, watch, endpoint)
        except (TimeoutError, EOFError, grpc.aio.UsageError):
            return Ended.LOST
        finally:
            self._hearing.lost(watch)
            await channel.close()
        raise AssertionError("a stream has no end of its own")

    async def _listen(self, channel: grpc.aio.Channel, watch: Watch, endpoint: str) -> None:
        after = self._following.resumes(watch, endpoint)
        async with self._connects:
            # Where the node stands has to be known from before it is asked for what came since.
            stands = 0
            if after is not None:
                probe, position = await self._first(channel, watch, None)
                probe.cancel()
                stands = position.sequence
            call, message = await self._first(channel, watch, after)
        first = True
        while True:
            self._hearing.check(watch, endpoint, message)
            for start in range(0, len(message.changes), AT_ONCE):
                self._hearing.take(watch, message.changes[start : start + AT_ONCE])
                await asyncio.sleep(0)
            if message.sequence >= stands:
                self._hearing.told(watch, endpoint, message, first=first)
                first = False
            else:
                self._following.catching_up(watch, message.sequence)
            within_ms = min(max(message.next_within_ms, NEXT_WITHIN_MS_MIN), NEXT_WITHIN_MS_MAX)
            message = await _next(call, 2 * within_ms / 1000)

    async def _first(
        self, channel: grpc.aio.Channel, watch: Watch, after: int | None
    ) -> tuple[grpc.aio.UnaryStreamCall[registry_pb2.WatchRequest, bytes], Message]:
        request = registry_pb2.WatchRequest(zone=str(watch.zone))
        if after is not None:
            request.after = after
        # Parsed by us: for bytes that do not parse, grpc.aio logs a traceback and hands out None.
        method: grpc.aio.UnaryStreamMultiCallable[registry_pb2.WatchRequest, bytes]
        method = channel.unary_stream(_METHOD, request_serializer=_serialize)
        call = method(request)
        return call, await _next(call, self._pace.first_seconds)

    def _ended(self, error: grpc.aio.AioRpcError) -> Ended:
        said: IdtraceError | None = None
        with suppress(DecodeError, ValueError):
            said = error_from_rpc(error)
        if error.code() is grpc.StatusCode.UNIMPLEMENTED or (said is not None and said.reason is Reason.OVERLOADED):
            self._following.counters.refused += 1
            return Ended.REFUSED
        return Ended.GONE if said is not None and said.reason is Reason.CHANGES_GONE else Ended.LOST

    def _lied(self, error: IdtraceError, watch: Watch, endpoint: str) -> Ended:
        self._following.counters.malformed += 1
        log.warning("a watch was ended", zone=str(watch.zone), endpoint=endpoint, error=str(error))
        return Ended.LOST


async def _next(call: grpc.aio.UnaryStreamCall[registry_pb2.WatchRequest, bytes], within_seconds: float) -> Message:
    """The next message.

    Raises:
        EOFError: the node has ended the stream.
        TimeoutError: it did not come in time.
        InputError: it is malformed.
        grpc.aio.AioRpcError: as the node, or the network, says.
    """
    async with asyncio.timeout(within_seconds):
        data = await call.read()
    try:
        response = registry_pb2.WatchResponse.FromString(data) if isinstance(data, bytes) else None
    except DecodeError:
        raise InputError(Reason.ANSWER_MALFORMED, "these are not the bytes of a message") from None
    if response is None:
        raise EOFError
    if len(response.changes) > CHANGES_MAX:
        raise InputError(Reason.ANSWER_MALFORMED, f"a message has at most {CHANGES_MAX} changes", field="changes")
    changes: list[Change | Events] = []
    for start in range(0, len(response.changes), AT_ONCE):
        changes += map(_change, response.changes[start : start + AT_ONCE])
        await asyncio.sleep(0)
    return Message(response.sequence, tuple(changes), response.next_within_ms)


def _change(change: registry_pb2.Change) -> Change | Events:
    if change.version > INTEGER_MAX:
        raise InputError(Reason.FIELD_TOO_LARGE, f"a version is at most {INTEGER_MAX}", field="changes.version")
    match change.WhichOneof("subject"):
        case "identifier":
            return Change(Identifier.parse_canonical(change.identifier, field="changes.identifier"), change.version)
        case "prefix":
            return Change(Prefix.parse_canonical(change.prefix, field="changes.prefix"), change.version)
        case "events":
            return Events(Identifier.parse_canonical(change.events, field="changes.events"))
        case _:
            raise InputError(Reason.FIELD_MISSING, "a change has a subject", field="changes.subject")


def _in_order(watch: Watch) -> tuple[str, ...]:
    """The node whose stream can be resumed, then the others in the delegation's order."""
    endpoints = dict.fromkeys(watch.endpoints)
    if watch.endpoint in endpoints:
        return (watch.endpoint, *(endpoint for endpoint in endpoints if endpoint != watch.endpoint))
    return tuple(endpoints)


def _serialize(request: registry_pb2.WatchRequest) -> bytes:
    return request.SerializeToString()


def _see_failure(task: asyncio.Task[None]) -> None:
    """Our own bug: the zone stays unfollowed, and the log says why."""
    if not task.cancelled() and task.exception() is not None:
        log.error("watch failed", watch=task.get_name(), exc_info=task.exception())

"""The edge of every node: a gRPC server with limits, typed errors, health and an orderly end.

One interceptor stands before every method: it asks for a deadline, bounds the calls in flight, and turns what a
method raises into a status with details. A method therefore only parses, calls and answers. Streams need no deadline
and have bounds of their own, those of health and reflection as well; the node's own end when the node does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from idtrace.errors import BusyError, IdtraceError, InputError, Reason
from idtrace.serving.errors import abort

log = structlog.get_logger(__name__)

# HTTP/2 metadata of an honest client is a few hundred bytes; gRPC's own hard limit of 16 KiB is for cookies.
METADATA_BYTES_MAX: Final = 8_192
# Rapid reset (CVE-2023-44487) and stream floods: what one connection may hold open.
STREAMS_PER_CONNECTION_MAX: Final = 256
# A client that is silent this long has gone; mobile scanners come back with a new connection.
IDLE_MS_MAX: Final = 300_000
# Who holds a stream and has gone without a word is asked after a minute of silence, and is given up 20 s later.
KEEPALIVE_MS: Final = 60_000
KEEPALIVE_TIMEOUT_MS: Final = 20_000
# Resolvers that watch a node, each with one stream or a few. So many take 28 MB of memory, and a sign of life to each
# every 1.5 s takes 8 % of a core.
STREAMS_MAX: Final = 1_024
# Health.Watch and reflection: load balancers and people at a terminal. They are counted apart, so that neither those
# who watch nor those who probe keep the others out.
AIDING_STREAMS_MAX: Final = 128
# What an error takes to be sent where its way is free is a millisecond.
LAST_WORD_SECONDS: Final = 0.5
_EXEMPT: Final = ("/grpc.health.", "/grpc.reflection.")


@dataclass(frozen=True, slots=True)
class Edge:
    """Where a node listens and how much it takes on.

    ``message_bytes_max`` bounds one request, ``in_flight_max`` all calls at once, ``deadline_seconds_max`` any one
    call, ``streams_max`` all streams at once; ``drain_seconds`` is what calls under way get to finish after SIGTERM.
    """

    listen: str
    message_bytes_max: int
    in_flight_max: int
    deadline_seconds_max: float = 30.0
    drain_seconds: float = 5.0
    reflection: bool = False
    streams_max: int = STREAMS_MAX


class Streams:
    """The open streams of one kind, and how many there may be. Owned by the event loop."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.ending = False
        self._open: set[asyncio.Timeout] = set()

    def __len__(self) -> int:
        return len(self._open)

    async def run(self, work: Awaitable[None]) -> None:
        """Await a stream's work, which takes one place until it ends, however it ends.

        Raises:
            BusyError: SHUTTING_DOWN as soon as :meth:`end` is called.
        """
        end = asyncio.timeout(None)
        try:
            async with end:
                self._open.add(end)
                try:
                    await work
                finally:
                    self._open.discard(end)
        except TimeoutError:
            if not end.expired():
                raise
            raise BusyError(Reason.SHUTTING_DOWN, "the node is stopping") from None

    def end(self) -> None:
        """End them all, also those that wait for a client that does not read; no more are taken."""
        self.ending = True
        for stream in self._open:
            stream.reschedule(asyncio.get_running_loop().time())


class EdgeInterceptor(grpc.aio.ServerInterceptor):
    """Deadline, in-flight bound and error translation for every unary method; bounds and errors for every stream."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self.in_flight = 0
        self.refused_busy = 0
        self.streams = Streams(edge.streams_max)
        self.aiding_streams = Streams(AIDING_STREAMS_MAX)
        self._deaf = asyncio.Event()
        self._idle = asyncio.Event()  # no call is in flight
        self._idle.set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap a method; a single call of the health service passes as it is."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        aiding = method.startswith(_EXEMPT)
        if handler is None or (aiding and not handler.response_streaming):
            return handler
        inner: Any = handler.unary_unary or handler.unary_stream or handler.stream_stream
        assert inner is not None, "no method of ours takes a stream and gives one answer"
        streams = self.aiding_streams if aiding else self.streams

        async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                if handler.response_streaming:
                    return await self._stream(inner, request, context, streams)
                return await self._run(inner, request, context)
            except IdtraceError as error:
                log.info("refused", method=method, reason=str(error.reason), field=error.field)
                if error.reason is Reason.SHUTTING_DOWN:
                    await self._last_word(context, error)
                await abort(context, error)
            except (asyncio.CancelledError, grpc.aio.AbortError):
                raise
            except Exception:
                log.exception("failed", method=method)
                await abort(context, _internal())

        make = (
            grpc.unary_unary_rpc_method_handler
            if handler.unary_unary
            else grpc.unary_stream_rpc_method_handler
            if handler.unary_stream
            else grpc.stream_stream_rpc_method_handler
        )
        return make(
            guarded,
            request_deserializer=handler.request_deserializer
            if handler.request_streaming
            else _typed(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    async def _last_word(self, context: grpc.aio.ServicerContext[Any, Any], error: IdtraceError) -> NoReturn:
        """Say it in time, or let :meth:`deaf` know of a client that reads nothing, and so is not told of its end."""
        late = asyncio.get_running_loop().call_later(LAST_WORD_SECONDS, self._deaf.set)
        try:
            await abort(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception:  # gRPC's own: the call was cut off meanwhile
            if not self._deaf.is_set():
                raise
            raise asyncio.CancelledError from None
        finally:
            late.cancel()

    async def deaf(self) -> None:
        """Return when all that still goes on is streams of clients that read nothing: only to be cut off."""
        await self._deaf.wait()
        await self._idle.wait()

    async def _stream(
        self,
        inner: Callable[[Any, Any], Any],
        request: Any,
        context: grpc.aio.ServicerContext[Any, Any],
        streams: Streams,
    ) -> None:
        if isinstance(request, InputError):
            raise request
        if streams.ending:
            raise BusyError(Reason.SHUTTING_DOWN, "the node is stopping")
        if len(streams) >= streams.most:
            self.refused_busy += 1
            raise BusyError(Reason.OVERLOADED, f"{streams.most} streams are open; try again")
        await streams.run(_written(inner(request, context), context))

    async def _run(
        self,
        inner: Callable[[Any, Any], Awaitable[Any]],
        request: Any,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> Any:
        if isinstance(request, InputError):
            raise request
        remaining = context.time_remaining()
        if remaining is None:
            raise InputError(Reason.DEADLINE_MISSING, "every call needs a deadline", field="grpc-timeout")
        if self.in_flight >= self._edge.in_flight_max:
            self.refused_busy += 1
            raise BusyError(Reason.OVERLOADED, f"{self._edge.in_flight_max} calls are in flight; try again")
        self.in_flight += 1
        self._idle.clear()
        try:
            async with asyncio.timeout(min(remaining, self._edge.deadline_seconds_max)):
                return await inner(request, context)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the call took longer than its deadline")
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()


async def _written(answers: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """Send what a method yields, each when gRPC has taken the one before; a method that writes by itself is awaited."""
    if not isinstance(answers, AsyncGenerator):
        await answers
        return
    async with aclosing(answers):
        async for answer in answers:
            await context.write(answer)


def _internal() -> IdtraceError:
    return BusyError(Reason.INTERNAL, "the node failed; the operator's log has the cause")


def _typed(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Stock servers answer INTERNAL where a request does not parse; ours is the caller's fault and says so."""
    if deserialize is None:
        return None

    def parse(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return InputError(Reason.FIELD_MALFORMED, "the request is not a message of this method", field="request")

    return parse


async def serve(
    edge: Edge,
    add_services: Callable[[grpc.aio.Server], None],
    service_names: Sequence[str],
    *,
    on_ready: Callable[[str], None] | None = None,
    stop: asyncio.Event,
) -> None:
    """Serve until ``stop`` is set, then refuse new calls and let those under way finish.

    ``on_ready`` gets "host:port" with the port really bound (``listen`` may ask for port 0).

    Raises:
        InputError: FIELD_MALFORMED where the address cannot be bound.
    """
    interceptor = EdgeInterceptor(edge)
    server = grpc.aio.server(
        interceptors=(interceptor,),
        options=(
            ("grpc.max_receive_message_length", edge.message_bytes_max),
            ("grpc.max_metadata_size", METADATA_BYTES_MAX),
            ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
            ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION_MAX),
            ("grpc.max_connection_idle_ms", IDLE_MS_MAX),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.so_reuseport", 0),  # two nodes on one port would each answer half of the questions
        ),
    )
    add_services(server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    if edge.reflection:
        reflection.enable_server_reflection((*service_names, reflection.SERVICE_NAME), server)
    try:
        port = server.add_insecure_port(edge.listen)
    except RuntimeError:
        raise InputError(Reason.FIELD_MALFORMED, f"cannot listen on {edge.listen}", field="listen") from None
    await server.start()
    for name in ("", *service_names):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    bound = f"{edge.listen.rpartition(':')[0]}:{port}"
    log.info("ready", listen=bound)
    if on_ready is not None:
        on_ready(bound)
    try:
        await stop.wait()
    finally:
        await checks.enter_graceful_shutdown()
        interceptor.streams.end()
        await _drain(server, interceptor, edge.drain_seconds)
        log.info("stopped", listen=bound)


async def _drain(server: grpc.aio.Server, interceptor: EdgeInterceptor, seconds: float) -> None:
    """Let calls under way finish; clients that read nothing are cut off as soon as nobody else is left."""
    draining, deaf = asyncio.ensure_future(server.stop(seconds)), asyncio.ensure_future(interceptor.deaf())
    await asyncio.wait({draining, deaf}, return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        await server.stop(None)
    deaf.cancel()
    await draining

"""The edge of every node: a gRPC server with limits, typed errors, health and an orderly end.

One interceptor stands before every method: it asks for a deadline, bounds the calls in flight, and turns what a
method raises into a status with details. A method therefore only parses, calls and answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

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
_EXEMPT: Final = ("/grpc.health.", "/grpc.reflection.")


@dataclass(frozen=True, slots=True)
class Edge:
    """Where a node listens and how much it takes on.

    ``message_bytes_max`` bounds one request, ``in_flight_max`` all calls at once, ``deadline_seconds_max`` any one
    call; ``drain_seconds`` is what calls under way get to finish after SIGTERM.
    """

    listen: str
    message_bytes_max: int
    in_flight_max: int
    deadline_seconds_max: float = 30.0
    drain_seconds: float = 5.0
    reflection: bool = False


class EdgeInterceptor(grpc.aio.ServerInterceptor):
    """Deadline, in-flight bound and error translation for every unary method."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self.in_flight = 0
        self.refused_busy = 0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap a unary method; streams and the health service pass as they are."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or handler.unary_unary is None or method.startswith(_EXEMPT):
            return handler
        inner = handler.unary_unary

        async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                return await self._run(inner, request, context)
            except IdtraceError as error:
                log.info("refused", method=method, reason=str(error.reason), field=error.field)
                await abort(context, error)
            except (asyncio.CancelledError, grpc.aio.AbortError):
                raise
            except Exception:
                log.exception("failed", method=method)
                await abort(context, _internal())

        return grpc.unary_unary_rpc_method_handler(
            guarded,
            request_deserializer=_typed(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

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
        try:
            async with asyncio.timeout(min(remaining, self._edge.deadline_seconds_max)):
                return await inner(request, context)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the call took longer than its deadline")
        finally:
            self.in_flight -= 1


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
    server = grpc.aio.server(
        interceptors=(EdgeInterceptor(edge),),
        options=(
            ("grpc.max_receive_message_length", edge.message_bytes_max),
            ("grpc.max_metadata_size", METADATA_BYTES_MAX),
            ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
            ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION_MAX),
            ("grpc.max_connection_idle_ms", IDLE_MS_MAX),
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
        await server.stop(edge.drain_seconds)
        log.info("stopped", listen=bound)

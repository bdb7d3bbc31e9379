"""The gRPC upstream against real servers on loopback: good, refusing, busy, slow, dead, oversized and garbled ones."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from idtrace import wire
from idtrace.bundle import NodeAnswer
from idtrace.errors import BusyError, IdtraceError, Reason, RefusedError
from idtrace.identifier import Identifier, Prefix
from idtrace.serving.errors import abort
from idtrace.v1 import record_pb2, registry_pb2
from resolver.effects import Answered, Ask, Failed, FailureKind, Malformed, Reply
from resolver.upstream import ANSWER_BYTES_MAX, GrpcUpstream
from tests.simulator import Tree

ITEM = Identifier.parse("88/SN-1")
Get = Callable[[registry_pb2.RegistryServiceGetRequest, Any], Awaitable[bytes]]


def tree() -> Tree:
    built = Tree()
    built.zone("88", node="top")
    built.register(ITEM, {"name": "vial"})
    return built


@asynccontextmanager
async def registry(get: Get) -> AsyncIterator[str]:
    """A registry whose ``Get`` answers with exact bytes; yields host:port."""
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
        get, request_deserializer=registry_pb2.RegistryServiceGetRequest.FromString
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("idtrace.v1.RegistryService", {"Get": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def response(answer: NodeAnswer) -> bytes:
    return registry_pb2.RegistryServiceGetResponse(answer=wire.answer_to_pb(answer)).SerializeToString()


async def ask(get: Get, *, zone_known: str | None = "88", timeout_ms: int = 2_000) -> Reply:
    upstream = GrpcUpstream()
    async with registry(get) as endpoint:
        known = None if zone_known is None else Prefix.parse(zone_known)
        reply = await upstream.ask(Ask(endpoint, known, ITEM, timeout_ms))
        await upstream.close()
        return reply


@pytest.mark.parametrize(("zone_known", "seen"), [(None, None), ("", ""), ("88", "88")])
async def test_question_and_answer_go_through_unchanged(zone_known: str | None, seen: str | None) -> None:
    answer = tree().answer("top", ITEM, None)
    requests: list[registry_pb2.RegistryServiceGetRequest] = []

    async def get(request: registry_pb2.RegistryServiceGetRequest, context: Any) -> bytes:
        requests.append(request)
        return response(answer)

    assert await ask(get, zone_known=zone_known) == Answered(answer)
    assert requests[0].identifier == "88/SN-1"
    assert requests[0].version == 0
    assert (requests[0].known_zone if requests[0].HasField("known_zone") else None) == seen


async def test_deadline_goes_along_and_is_kept() -> None:
    remaining: list[float] = []

    async def get(request: registry_pb2.RegistryServiceGetRequest, context: Any) -> bytes:
        remaining.append(context.time_remaining())
        await asyncio.sleep(5)
        return b""

    begun = asyncio.get_running_loop().time()
    reply = await ask(get, timeout_ms=200)
    assert reply == Failed(FailureKind.TIMEOUT, "no answer within 200 ms")
    assert asyncio.get_running_loop().time() - begun < 1.5
    # grpc-timeout holds few digits and is rounded up on its way
    assert 0 < remaining[0] <= 0.21


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xff\xff", Reason.ANSWER_MALFORMED),
        (b"", Reason.ANSWER_EMPTY),
        (
            registry_pb2.RegistryServiceGetResponse(answer=record_pb2.NodeAnswer()).SerializeToString(),
            Reason.ANSWER_EMPTY,
        ),
        (
            registry_pb2.RegistryServiceGetResponse(
                answer=record_pb2.NodeAnswer(referral=record_pb2.Referral(zone="88..1"))
            ).SerializeToString(),
            Reason.IDENTIFIER_MALFORMED,
        ),
        (
            registry_pb2.RegistryServiceGetResponse(
                answer=record_pb2.NodeAnswer(delegations=[record_pb2.Signed(payload=b"x")] * 50)
            ).SerializeToString(),
            Reason.CHAIN_TOO_DEEP,
        ),
        (
            registry_pb2.RegistryServiceGetResponse(
                answer=record_pb2.NodeAnswer(record=record_pb2.Record())
            ).SerializeToString(),
            Reason.FIELD_MISSING,
        ),
    ],
)
async def test_what_is_no_answer_is_malformed_with_its_reason(data: bytes, reason: Reason) -> None:
    async def get(request: registry_pb2.RegistryServiceGetRequest, context: Any) -> bytes:
        return data

    reply = await ask(get)
    assert isinstance(reply, Malformed)
    assert reply.reason is reason


async def test_answer_beyond_the_limit_is_malformed_and_never_parsed() -> None:
    async def get(request: registry_pb2.RegistryServiceGetRequest, context: Any) -> bytes:
        return b"\x0a" * (ANSWER_BYTES_MAX + 1)

    reply = await ask(get)
    assert reply == Malformed(Reason.ANSWER_MALFORMED, f"the answer has more than {ANSWER_BYTES_MAX} bytes")


@pytest.mark.parametrize(
    ("error", "kind", "detail"),
    [
        (RefusedError(Reason.NOT_AUTHORITATIVE, "not mine"), FailureKind.REFUSED, "NOT_AUTHORITATIVE: 'not mine'"),
        (BusyError(Reason.OVERLOADED, "full"), FailureKind.BUSY, "the node is at one of its limits"),
    ],
)
async def test_typed_error_of_a_node_proves_nothing(error: IdtraceError, kind: FailureKind, detail: str) -> None:
    async def get(request: registry_pb2.RegistryServiceGetRequest, context: Any) -> bytes:
        await abort(context, error)

    assert await ask(get) == Failed(kind, detail)


@pytest.mark.parametrize(
    ("code", "details", "trailing", "kind"),
    [
        (grpc.StatusCode.INTERNAL, "boom\n\x1b[31m", (), FailureKind.UNAVAILABLE),
        (grpc.StatusCode.UNIMPLEMENTED, "", (), FailureKind.UNAVAILABLE),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "quota", (), FailureKind.BUSY),
        (grpc.StatusCode.NOT_FOUND, "x", (("grpc-status-details-bin", b"\xff\xff"),), FailureKind.UNAVAILABLE),
        (grpc.StatusCode.CANCELLED, "", (), FailureKind.UNAVAILABLE),
    ],
)
async def test_any_other_status_is_a_failure_and_never_an_exception(
    code: grpc.StatusCode, details: str, trailing: tuple[tuple[str, bytes], ...], kind: FailureKind
) -> None:
    async def get(request: registry_pb2.RegistryServiceGetRequest, context: Any) -> bytes:
        await context.abort(code, details, trailing)
        raise AssertionError("abort returned")

    reply = await ask(get)
    assert isinstance(reply, Failed)
    assert reply.kind is kind
    assert "\x1b" not in reply.detail


async def test_bug_in_a_node_is_a_failure() -> None:
    async def get(request: registry_pb2.RegistryServiceGetRequest, context: Any) -> bytes:
        raise RuntimeError("a bug")

    reply = await ask(get)
    assert isinstance(reply, Failed)
    assert reply.kind is FailureKind.UNAVAILABLE


async def test_dead_node_fails_fast_and_is_found_when_it_comes_back() -> None:
    answer = tree().answer("top", ITEM, None)

    async def get(request: registry_pb2.RegistryServiceGetRequest, context: Any) -> bytes:
        return response(answer)

    upstream = GrpcUpstream()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = f"127.0.0.1:{port}"
    begun = asyncio.get_running_loop().time()
    reply = await upstream.ask(Ask(endpoint, None, ITEM, 2_000))
    assert isinstance(reply, Failed)
    assert reply.kind is FailureKind.UNAVAILABLE
    assert asyncio.get_running_loop().time() - begun < 1.5
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(get)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("idtrace.v1.RegistryService", {"Get": handler}),)
    )
    server.add_insecure_port(endpoint)
    await server.start()
    async with asyncio.timeout(10):
        while not isinstance(reply, Answered):
            await asyncio.sleep(0.1)
            reply = await upstream.ask(Ask(endpoint, None, ITEM, 2_000))
    await upstream.close()
    await server.stop(0)


async def test_name_that_looks_like_another_address_scheme_is_a_host_name() -> None:
    upstream = GrpcUpstream()
    reply = await upstream.ask(Ask("unix:1", None, ITEM, 500))
    assert isinstance(reply, Failed)
    assert "No such file" not in reply.detail
    await upstream.close()


async def test_channels_are_reused_bounded_and_closed() -> None:
    answer = tree().answer("top", ITEM, None)

    async def get(request: registry_pb2.RegistryServiceGetRequest, context: Any) -> bytes:
        return response(answer)

    upstream = GrpcUpstream(channels_max=2)
    async with registry(get) as first, registry(get) as second, registry(get) as third:
        for endpoint in (first, second, first, third, first, second, third):
            reply = await upstream.ask(Ask(endpoint, None, ITEM, 2_000))
            assert isinstance(reply, Answered)
            assert len(upstream) <= 2
        await upstream.close()
        assert len(upstream) == 0


async def test_channel_closed_under_a_call_lets_it_finish() -> None:
    answer = tree().answer("top", ITEM, None)
    entered, leave = asyncio.Event(), asyncio.Event()

    async def get(request: registry_pb2.RegistryServiceGetRequest, context: Any) -> bytes:
        entered.set()
        await leave.wait()
        return response(answer)

    upstream = GrpcUpstream()
    async with registry(get) as endpoint:
        call = asyncio.create_task(upstream.ask(Ask(endpoint, None, ITEM, 2_000)))
        await entered.wait()
        closing = asyncio.create_task(upstream.close())
        await asyncio.sleep(0.05)
        leave.set()
        assert isinstance(await call, Answered)
        await closing


async def test_asker_who_leaves_cancels_the_call() -> None:
    gone = asyncio.Event()

    async def get(request: registry_pb2.RegistryServiceGetRequest, context: Any) -> bytes:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            gone.set()
            raise
        return b""

    upstream = GrpcUpstream()
    async with registry(get) as endpoint:
        call = asyncio.create_task(upstream.ask(Ask(endpoint, None, ITEM, 4_000)))
        await asyncio.sleep(0.2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        async with asyncio.timeout(2):
            await gone.wait()
        await upstream.close()


async def test_channel_torn_down_under_a_call_is_a_failure_and_not_a_cancellation() -> None:
    entered = asyncio.Event()

    async def get(request: registry_pb2.RegistryServiceGetRequest, context: Any) -> bytes:
        entered.set()
        await asyncio.sleep(5)
        return b""

    upstream = GrpcUpstream()
    async with registry(get) as endpoint:
        call = asyncio.create_task(upstream.ask(Ask(endpoint, None, ITEM, 4_000)))
        await entered.wait()
        await upstream._channels[endpoint].close()
        reply = await call
        assert isinstance(reply, Failed)
        assert reply.kind is FailureKind.UNAVAILABLE
        assert len(upstream) == 0
        entered.clear()
        upstream._channel(endpoint)
        await upstream._channels[endpoint].close()
        assert isinstance(await upstream.ask(Ask(endpoint, None, ITEM, 4_000)), Failed)
        assert not entered.is_set()
        await upstream.close()

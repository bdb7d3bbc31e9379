"""The edge of every node, over real gRPC: limits, deadlines, typed errors, health and the orderly end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from idtrace.canonical import BODY_BYTES_MAX
from idtrace.errors import (
    BusyError,
    IdtraceError,
    InputError,
    OutcomeUnknownError,
    Reason,
    RefusedError,
    VerificationError,
)
from idtrace.serving.edge import METADATA_BYTES_MAX, Edge, serve
from idtrace.serving.errors import error_from_rpc
from idtrace.signature import Kind, sign
from idtrace.v1 import registry_pb2, registry_pb2_grpc
from idtrace.wire import signed_to_pb
from tests.core_fixtures import signer
from tests.nodes import Nodes
from tests.registry_fixtures import until

SERVICE = "idtrace.v1.RegistryService"
GET = f"/{SERVICE}/Get"
EDGE = Edge("127.0.0.1:0", message_bytes_max=65_536, in_flight_max=4, deadline_seconds_max=5.0, drain_seconds=0.2)
Method = Callable[[Any], Awaitable[Any]]


class Registry(registry_pb2_grpc.RegistryServiceServicer):
    """A service whose Get does what the test says."""

    def __init__(self, method: Method) -> None:
        self.method = method

    async def Get(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        return await self.method(request) or registry_pb2.RegistryServiceGetResponse()

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - gRPC's name
        """Tells how often it has waited for the method, until that raises; ``after`` subjects a message."""
        for number in itertools.count():
            await self.method(request)
            names = [registry_pb2.Change(identifier="x" * 200)] * request.after
            yield registry_pb2.WatchResponse(sequence=number, changes=names)


async def at_once(request: Any) -> None:
    del request


def raising(error: BaseException) -> Method:
    async def method(request: Any) -> None:
        raise error

    return method


class Running:
    """A served edge and a client's channel to it."""

    def __init__(self, endpoint: str, channel: grpc.aio.Channel, stop: asyncio.Event, task: asyncio.Task[None]) -> None:
        self.endpoint = endpoint
        self.channel = channel
        self.stop = stop
        self.task = task
        self.stub = registry_pb2_grpc.RegistryServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)

    async def get(self, text: str = "", timeout: float | None = 5.0, metadata: Sequence[tuple[str, str]] = ()) -> Any:  # noqa: ASYNC109 - gRPC's deadline
        request = registry_pb2.RegistryServiceGetRequest(identifier=text)
        return await self.stub.Get(request, timeout=timeout, metadata=tuple(metadata))


@asynccontextmanager
async def edge(method: Method = at_once, **changes: Any) -> AsyncIterator[Running]:
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    registry = Registry(method)  # type: ignore[abstract]  # nobody calls what it does not implement

    def add(server: grpc.aio.Server) -> None:
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(registry, server)

    serving = serve(replace(EDGE, **changes), add, (SERVICE,), on_ready=ready.set_result, stop=stop)
    task = asyncio.create_task(serving)
    try:
        async with grpc.aio.insecure_channel(await asyncio.wait_for(ready, 5)) as channel:
            yield Running(ready.result(), channel, stop, task)
    finally:
        stop.set()
        await task


async def failure(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def typed(call: Awaitable[Any]) -> IdtraceError:
    error = error_from_rpc(await failure(call))
    assert error is not None
    return error


async def test_a_call_within_all_limits_passes() -> None:
    async with edge() as node:
        assert await node.get() == registry_pb2.RegistryServiceGetResponse()
        await node.get("x" * 65_000, metadata=[("x-small", "x" * 4_000)])


async def test_a_message_beyond_the_limit_is_refused_and_the_connection_goes_on() -> None:
    async with edge() as node:
        assert (await failure(node.get("x" * 65_536))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await node.get()


async def test_metadata_beyond_the_limit_is_refused_and_the_node_goes_on() -> None:
    async with edge() as node:
        error = await failure(node.get(metadata=[("x-large", "x" * METADATA_BYTES_MAX)]))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await node.get()


async def test_a_call_without_a_deadline_is_refused_before_the_method_sees_it() -> None:
    async with edge(raising(AssertionError("reached"))) as node:
        error = await typed(node.get(timeout=None))
        assert (type(error), error.reason, error.field) == (InputError, Reason.DEADLINE_MISSING, "grpc-timeout")


async def test_a_slow_method_ends_at_the_callers_deadline_and_at_the_nodes() -> None:
    ended: list[bool] = []

    async def slow(request: Any) -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ended.append(True)
            raise

    async with edge(slow, deadline_seconds_max=0.2) as node:
        begun = asyncio.get_running_loop().time()
        for seconds in (0.05, 30.0):
            assert (await failure(node.get(timeout=seconds))).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert asyncio.get_running_loop().time() - begun < 2
        await asyncio.sleep(0.05)
        assert ended == [True, True]


async def test_calls_beyond_the_bound_are_told_to_come_back_and_the_bound_is_given_back() -> None:
    release = asyncio.Event()
    running = [0]

    async def held(request: Any) -> None:
        running[0] += 1
        await release.wait()

    async with edge(held) as node:
        calls = [asyncio.create_task(node.get()) for _ in range(4)]
        await until(lambda: running[0] == 4)
        for _ in range(3):
            error = await typed(node.get())
            assert (type(error), error.reason) == (BusyError, Reason.OVERLOADED)
        assert (await node.health.Check(health_pb2.HealthCheckRequest(), timeout=5)).status == 1
        calls[0].cancel()
        release.set()
        await asyncio.gather(*calls[1:])
        await asyncio.sleep(0.05)
        await asyncio.gather(*(node.get() for _ in range(4)))


@pytest.mark.parametrize("method", ["Get", "Register", "RegisterBatch"])
@pytest.mark.parametrize("data", [b"\xff", b"\x0a\xff", b"\x0a\x02\xff\xfe", b"\x0b" * 40])
async def test_bytes_that_are_no_message_are_the_callers_fault(method: str, data: bytes) -> None:
    async with edge() as node:
        call: Any = node.channel.unary_unary(f"/{SERVICE}/{method}")
        error = await failure(call(data, timeout=5))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        parsed = error_from_rpc(error)
        assert parsed is not None
        assert (type(parsed), parsed.reason, parsed.field) == (InputError, Reason.FIELD_MALFORMED, "request")


async def test_an_unknown_method_is_unimplemented() -> None:
    async with edge() as node:
        call: Any = node.channel.unary_unary(f"/{SERVICE}/Nothing")
        assert (await failure(call(b"", timeout=5))).code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "secret", [ValueError("password=hunter2"), KeyError("hunter2"), AssertionError("hunter2"), OSError(5, "hunter2")]
)
async def test_an_unexpected_exception_tells_the_client_nothing_of_its_inside(secret: Exception) -> None:
    async with edge(raising(secret)) as node:
        error = await failure(node.get())
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "hunter2" not in repr(error.trailing_metadata()) + str(error.details())
        parsed = error_from_rpc(error)
        assert parsed is not None
        assert parsed.reason is Reason.INTERNAL
        assert (await node.health.Check(health_pb2.HealthCheckRequest(), timeout=5)).status == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError(Reason.FIELD_MALFORMED, "it is wrong", field="a.b"), grpc.StatusCode.INVALID_ARGUMENT),
        (VerificationError(Reason.SIGNER_UNKNOWN, "who?", field="record"), grpc.StatusCode.PERMISSION_DENIED),
        (RefusedError(Reason.VERSION_GAP, "a gap", field="record.version"), grpc.StatusCode.FAILED_PRECONDITION),
        (RefusedError(Reason.IDENTIFIER_TAKEN, "taken", field="record.identifier"), grpc.StatusCode.ALREADY_EXISTS),
        (RefusedError(Reason.WRITE_CONFLICT, "lost", field="record.version"), grpc.StatusCode.ABORTED),
        (RefusedError(Reason.NOT_AUTHORITATIVE, "not here", field="identifier"), grpc.StatusCode.NOT_FOUND),
        (BusyError(Reason.OVERLOADED, "busy"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (BusyError(Reason.SHUTTING_DOWN, "ending"), grpc.StatusCode.UNAVAILABLE),
        (OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, "ask again"), grpc.StatusCode.UNKNOWN),
        (
            RefusedError(Reason.VERSION_GAP, "药品\r\nx-injected: 1\tend", field="药"),
            grpc.StatusCode.FAILED_PRECONDITION,
        ),
    ],
    ids=lambda value: str(value.reason) if isinstance(value, IdtraceError) else "",
)
async def test_every_family_arrives_as_it_was_raised(error: IdtraceError, code: grpc.StatusCode) -> None:
    async with edge(raising(error)) as node:
        raised = await failure(node.get())
        assert raised.code() is code
        back = error_from_rpc(raised)
        assert back is not None
        said = (type(back), back.reason, back.detail, back.field)
        assert said == (type(error), error.reason, error.detail, error.field)
        assert "\n" not in (raised.details() or "")
        metadata = dict(raised.trailing_metadata() or ())
        status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
        info = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(info)
        assert (info.domain, info.reason) == ("idtrace.v1", str(error.reason))


async def test_a_long_detail_still_reaches_the_client_with_its_reason() -> None:
    for error in (
        InputError(Reason.FIELD_MALFORMED, "x" * 20_000, field="f"),
        InputError(Reason.FIELD_MALFORMED, "x", field="f" * 20_000),
        InputError(Reason.FIELD_MALFORMED, "药" * 5_000, field="f"),
    ):
        async with edge(raising(error)) as node:
            raised = await failure(node.get())
            assert raised.code() is grpc.StatusCode.INVALID_ARGUMENT
            back = error_from_rpc(raised)
            assert back is not None
            assert back.reason is Reason.FIELD_MALFORMED


# Health, reflection, the end


async def test_health_serves_until_the_drain_begins_and_watchers_are_told() -> None:
    async with edge(drain_seconds=2.0) as node:
        for name in ("", SERVICE):
            answer = await node.health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        unknown = node.health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=5)
        assert (await failure(unknown)).code() is grpc.StatusCode.NOT_FOUND
        watch = node.health.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=10)
        seen = aiter(watch)
        assert (await anext(seen)).status == health_pb2.HealthCheckResponse.SERVING
        node.stop.set()
        assert (await asyncio.wait_for(anext(seen), 2)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


async def test_calls_under_way_finish_during_the_drain_and_new_ones_are_refused() -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def held(request: Any) -> None:
        started.set()
        await release.wait()

    async with edge(held, drain_seconds=5.0) as node:
        under_way = asyncio.create_task(node.get())
        await started.wait()
        node.stop.set()
        await asyncio.sleep(0.1)
        async with grpc.aio.insecure_channel(node.endpoint) as late:
            call = registry_pb2_grpc.RegistryServiceStub(late).Get(
                registry_pb2.RegistryServiceGetRequest(), timeout=0.5
            )
            assert (await failure(call)).code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
        release.set()
        assert await under_way == registry_pb2.RegistryServiceGetResponse()
        await asyncio.wait_for(node.task, 2)


async def test_the_drain_ends_by_itself() -> None:
    async def stuck(request: Any) -> None:
        await asyncio.sleep(60)

    async with edge(stuck, drain_seconds=0.1) as node:
        call = asyncio.create_task(node.get())
        await asyncio.sleep(0.05)
        node.stop.set()
        await asyncio.wait_for(node.task, 3)
        await failure(call)


@pytest.mark.parametrize("on", [False, True])
async def test_reflection_is_off_unless_it_is_asked_for(on: bool) -> None:
    async with edge(reflection=True) if on else edge() as node:
        stub = reflection_pb2_grpc.ServerReflectionStub(node.channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=5)
        if not on:
            assert (await failure(anext(aiter(call)))).code() is grpc.StatusCode.UNIMPLEMENTED
            return
        names = {service.name for service in (await anext(aiter(call))).list_services_response.service}
        assert SERVICE in names
        call.cancel()


async def test_an_address_that_is_taken_or_none_is_named() -> None:
    async with edge() as node:
        for listen in (node.endpoint, "nowhere.invalid:1", "no port"):
            with pytest.raises(InputError) as caught:
                await serve(replace(EDGE, listen=listen), lambda _: None, (), stop=asyncio.Event())
            assert (caught.value.reason, caught.value.field) == (Reason.FIELD_MALFORMED, "listen")


# What a registry's own messages can do to the edge


@pytest.mark.parametrize(
    ("reason", "field", "fields"),
    [
        (Reason.IDENTIFIER_MALFORMED, "identifier", {"identifier": "no-slash"}),
        (Reason.IDENTIFIER_NOT_CANONICAL, "identifier", {"identifier": "88.A/x"}),
        (Reason.IDENTIFIER_TOO_LONG, "identifier", {"identifier": "8/" + "x" * 60_000}),
        (Reason.IDENTIFIER_MALFORMED, "known_zone", {"identifier": "88/x", "known_zone": "88."}),
        (Reason.FIELD_MALFORMED, "version", {"identifier": "88/x", "version": 2**64 - 1}),
    ],
)
async def test_a_malformed_question_names_its_field(
    tmp_path: Path, reason: Reason, field: str, fields: dict[str, Any]
) -> None:
    async with Nodes(tmp_path) as nodes:
        node = await nodes.registry("")
        error = await typed(node.registry.Get(registry_pb2.RegistryServiceGetRequest(**fields), timeout=5))
        assert (type(error), error.reason, error.field) == (InputError, reason, field)


async def test_a_body_with_a_monstrous_field_name_is_refused_with_a_reason(tmp_path: Path) -> None:
    async with Nodes(tmp_path) as nodes:
        node = await nodes.registry("")
        payload = b'{"%s":1,"identifier":"88/x"}' % (b"a" * (BODY_BYTES_MAX - 100))
        signed = sign(Kind.RECORD, payload, signer("record of "))
        request = registry_pb2.RegisterRequest(idempotency_key="key-monster")
        request.record.signed.CopyFrom(signed_to_pb(signed))
        error = await typed(node.registry.Register(request, timeout=5))
        assert len(error.field) < 1_000

"""Streams at the edge of every node, over real gRPC: bounds, typed errors, and the end of those who do not listen."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from idtrace.errors import BusyError, Reason, RefusedError
from idtrace.serving.edge import AIDING_STREAMS_MAX
from idtrace.serving.errors import error_from_rpc
from idtrace.v1 import registry_pb2, registry_pb2_grpc
from tests.integration.test_edge import SERVICE, Running, edge, failure, typed


def watch(node: Running, after: int = 0, timeout: float | None = None) -> Any:
    return node.stub.Watch(registry_pb2.WatchRequest(after=after), timeout=timeout)


async def now_and_then(request: Any) -> None:
    await asyncio.sleep(0.01)


async def test_a_stream_needs_no_deadline_outlives_the_nodes_and_ends_at_its_own() -> None:
    async with edge(now_and_then, deadline_seconds_max=0.05) as node:
        call = watch(node)
        for _ in range(20):
            await call.read()
        call.cancel()
        error = await failure(_last(watch(node, timeout=0.2)))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def _last(call: Any) -> None:
    """Read to the end."""
    while await call.read() is not grpc.aio.EOF:
        pass


async def let_in(ask: Callable[[], Any]) -> None:
    """Soon: the place of whoever has left is free when the node has heard of it."""
    async with asyncio.timeout(2):
        while True:
            try:
                assert await ask().read() is not grpc.aio.EOF
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017 - the only failure that passes
            else:
                return


@pytest.mark.parametrize("leaving", ["cancel", "deadline", "error", "connection"])
async def test_streams_have_a_bound_of_their_own_and_give_their_place_back_however_they_end(leaving: str) -> None:
    fail = asyncio.Event()

    async def method(request: Any) -> None:
        await asyncio.sleep(0.01)
        if fail.is_set():
            raise RefusedError(Reason.CHANGES_GONE, "gone", field="after")

    async with edge(method, streams_max=3, in_flight_max=1) as node:
        async with grpc.aio.insecure_channel(node.endpoint) as other:
            calls = [watch(node), watch(node)]
            seconds = 0.5 if leaving == "deadline" else None
            last = registry_pb2_grpc.RegistryServiceStub(other).Watch(registry_pb2.WatchRequest(), timeout=seconds)
            for call in (*calls, last):
                await call.read()
            refused = await typed(_last(watch(node)))
            assert (type(refused), refused.reason) == (BusyError, Reason.OVERLOADED)
            assert (await failure(node.get(timeout=0.0001))).code() is grpc.StatusCode.DEADLINE_EXCEEDED
            match leaving:
                case "cancel":
                    last.cancel()
                case "error":
                    fail.set()
                    assert (await typed(_last(last))).reason is Reason.CHANGES_GONE
                    fail.clear()
                case "deadline":
                    await failure(_last(last))
                case _:
                    assert leaving == "connection"
        await let_in(lambda: watch(node))


async def test_calls_and_streams_do_not_keep_each_other_out() -> None:
    async with edge(now_and_then, streams_max=1, in_flight_max=1) as node:
        call = watch(node)
        await call.read()
        await node.get()
        assert (await typed(_last(watch(node)))).reason is Reason.OVERLOADED
        await node.get()
        call.cancel()


@pytest.mark.parametrize(
    ("raised", "code", "reason"),
    [
        (RefusedError(Reason.CHANGES_GONE, "gone", field="after"), grpc.StatusCode.OUT_OF_RANGE, Reason.CHANGES_GONE),
        (KeyError("hunter2"), grpc.StatusCode.INTERNAL, Reason.INTERNAL),
        (TimeoutError("hunter2"), grpc.StatusCode.INTERNAL, Reason.INTERNAL),
    ],
)
async def test_what_a_stream_raises_arrives_typed_after_what_it_has_told(
    raised: Exception, code: grpc.StatusCode, reason: Reason
) -> None:
    told = itertools.count()

    async def method(request: Any) -> None:
        if next(told) == 3:
            raise raised

    async with edge(method) as node:
        call = watch(node)
        assert [(await call.read()).sequence for _ in range(3)] == [0, 1, 2]
        error = await failure(_last(call))
        parsed = error_from_rpc(error)
        assert parsed is not None
        assert (error.code(), parsed.reason) == (code, reason)
        assert "hunter2" not in repr(error.trailing_metadata()) + str(error.details())


async def test_a_stream_whose_request_is_no_message_is_the_callers_fault() -> None:
    async with edge() as node:
        call: Any = node.channel.unary_stream(f"/{SERVICE}/Watch")
        assert (await typed(_last(call(b"\xff")))).reason is Reason.FIELD_MALFORMED


async def test_at_the_end_streams_are_told_and_those_who_do_not_read_are_cut_off() -> None:
    released = asyncio.Event()

    async def method(request: Any) -> None:
        if isinstance(request, registry_pb2.RegistryServiceGetRequest):
            await released.wait()
        await asyncio.sleep(0.01)

    async with edge(method, drain_seconds=20.0) as node:
        reading, deaf = watch(node), watch(node, after=2_000)
        await reading.read()
        await deaf.read()
        under_way = asyncio.create_task(node.get())
        await asyncio.sleep(0.5)  # what is told to the deaf one is under way, and stays so
        node.stop.set()
        begun = asyncio.get_running_loop().time()
        error = await typed(_last(reading))
        assert (type(error), error.reason) == (BusyError, Reason.SHUTTING_DOWN)
        assert asyncio.get_running_loop().time() - begun < 3
        await asyncio.sleep(1)
        released.set()  # a call that is under way is not cut off with them
        await under_way
        await asyncio.wait_for(node.task, 5)
        assert (await failure(_last(deaf))).code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


async def test_health_watchers_are_bounded_and_shut_nobody_else_out() -> None:
    async with edge(now_and_then, streams_max=1) as node, grpc.aio.insecure_channel(node.endpoint) as other:
        ask = health_pb2.HealthCheckRequest(service=SERVICE)
        watchers = [node.health.Watch(ask) for _ in range(AIDING_STREAMS_MAX)]
        for watcher in watchers:
            assert (await watcher.read()).status == health_pb2.HealthCheckResponse.SERVING
        assert (await typed(_last(node.health.Watch(ask)))).reason is Reason.OVERLOADED
        assert (await node.health.Check(ask)).status == health_pb2.HealthCheckResponse.SERVING
        await let_in(lambda: registry_pb2_grpc.RegistryServiceStub(other).Watch(registry_pb2.WatchRequest()))
        watchers[0].cancel()
        await let_in(lambda: node.health.Watch(ask))

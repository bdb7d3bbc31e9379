"""Event queries and subscriptions at a real node, over gRPC: what is captured is told, and what is wrong is named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from idtrace.serving.errors import error_from_rpc
from idtrace.v1 import capture_pb2 as cb
from idtrace.v1 import capture_pb2_grpc
from tests.capture_fixtures import (
    PROCEED,
    bytes_of,
    event_record,
    identifier_of,
    observed,
    sealed_request,
    signed_request,
)
from tests.integration.test_logged_node import ZONE, tree
from tests.nodes import TIMEOUT, Node
from tests.recorded_events import at


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with tree(tmp_path) as nodes:
        yield nodes.of_zone[ZONE]


def capture_stub(node: Node) -> Any:
    return capture_pb2_grpc.CaptureServiceStub(node.channel)


def stub_of(node: Node) -> Any:
    return capture_pb2_grpc.EventServiceStub(node.channel)


def asked(**parameters: list[str]) -> cb.EventQuery:
    return cb.EventQuery(
        parameters=[cb.QueryParameter(name=name, values=values) for name, values in parameters.items()]
    )


async def captured(node: Node, *numbers: int, sealed: bool = False, **fields: Any) -> list[str]:
    """Capture events of one second each; their identifiers."""
    events = [observed(n, eventTime=at(n), **fields) for n in numbers]
    records = [event_record(ZONE, bytes_of(one)) for one in events]
    request = sealed_request(ZONE, records, f"sealed-{numbers[0]}") if sealed else signed_request(records, PROCEED)
    response = await capture_stub(node).Capture(request, timeout=TIMEOUT)
    assert all(one.HasField("captured") for one in response.results), response.results
    return [str(identifier_of(one)) for one in records]


async def told(node: Node, query: cb.EventQuery, **request: Any) -> list[cb.RecordedEvent]:
    return [one async for page in stub_of(node).Query(cb.QueryRequest(query=query, **request)) for one in page.events]


async def test_what_was_captured_alone_or_under_a_seal_is_found(node: Node) -> None:
    alone, sealed = await captured(node, 1, 2), await captured(node, 3, 4, sealed=True)
    everything = await told(node, cb.EventQuery())
    assert [one.identifier for one in everything] == [*alone, *sealed]
    assert everything[2].statement == bytes_of(observed(3, eventTime=at(3)))
    assert sorted({one.sequence for one in everything}) == [one.sequence for one in everything]
    assert all(one.record_time_ms > 1_700_000_000_000 for one in everything)
    (third,) = await told(node, asked(MATCH_epc=["idtrace:88.118.8/SN-3", "idtrace:88.118.8/SN-99"]))
    assert third == everything[2]
    latest = await told(node, asked(orderBy=["eventTime"], eventCountLimit=["2"]))
    assert [one.identifier for one in latest] == sealed[::-1]


async def test_a_caller_stops_and_goes_on_where_he_stopped(node: Node) -> None:
    kept = await captured(node, *range(25))
    read: list[str] = []
    token, pages = "", 0
    while True:
        call = stub_of(node).Query(cb.QueryRequest(query=asked(perPage=["4"]), page_token=token, most=10))
        messages = [one async for one in call]
        assert all(len(one.events) <= 4 for one in messages)
        read += [event.identifier for one in messages for event in one.events]
        token, pages = messages[-1].next_page_token, pages + 1
        if not token:
            break
    assert (read, pages) == (kept, 3)


@pytest.mark.parametrize(
    ("query", "field", "reason", "status"),
    [
        (asked(EQ_bizStap=["packing"]), "EQ_bizStap", "FIELD_MALFORMED", grpc.StatusCode.INVALID_ARGUMENT),
        (asked(GE_eventTime=["noon"]), "GE_eventTime", "FIELD_MALFORMED", grpc.StatusCode.INVALID_ARGUMENT),
        (asked(MATCH_epc=["x:y"] * 10_000), "MATCH_epc", "FIELD_TOO_LARGE", grpc.StatusCode.INVALID_ARGUMENT),
        (asked(EQ_stringValue=["x" * 100_000]), "EQ_stringValue", "FIELD_TOO_LARGE", grpc.StatusCode.INVALID_ARGUMENT),
        (asked(nextPageToken=["x"]), "nextPageToken", "FIELD_MALFORMED", grpc.StatusCode.INVALID_ARGUMENT),
        (asked(maxEventCount=["2"]), "maxEventCount", "QUERY_TOO_LARGE", grpc.StatusCode.FAILED_PRECONDITION),
        (
            cb.EventQuery(parameters=[cb.QueryParameter(name="EQ_action", values=["ADD"])] * 2),
            *("EQ_action", "FIELD_MALFORMED", grpc.StatusCode.INVALID_ARGUMENT),
        ),
        (
            cb.EventQuery(namespaces={"ex": "no namespace"}),
            *("@context", "FIELD_MALFORMED", grpc.StatusCode.INVALID_ARGUMENT),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_wrong_with_a_query_is_named(
    node: Node, query: cb.EventQuery, field: str, reason: str, status: grpc.StatusCode
) -> None:
    await captured(node, 1, 2, 3)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await told(node, query)
    known = error_from_rpc(caught.value)
    assert known is not None
    assert (caught.value.code(), known.reason, known.field) == (status, reason, field)


async def test_a_token_of_another_query_and_a_place_to_come_are_refused(node: Node) -> None:
    await captured(node, 1, 2, 3)
    call = stub_of(node).Query(cb.QueryRequest(query=asked(EQ_bizStep=["inspecting"]), most=1))
    (page,) = [one async for one in call]
    for query, token in ((asked(EQ_bizStep=["packing"]), page.next_page_token), (cb.EventQuery(), "no token")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await told(node, query, page_token=token)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    for after, status in ((1 << 40, grpc.StatusCode.OUT_OF_RANGE), ((1 << 64) - 1, grpc.StatusCode.INVALID_ARGUMENT)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub_of(node).Subscribe(cb.SubscribeRequest(after=after)).read()
        assert caught.value.code() is status


async def test_an_event_is_told_as_soon_as_it_is_captured_and_once_over_a_break(node: Node) -> None:
    request = cb.SubscribeRequest(query=asked(EQ_bizStep=["inspecting"]))
    expected: list[str] = []
    heard: list[str] = []
    for turn in range(4):
        call = stub_of(node).Subscribe(request)
        first = await asyncio.wait_for(call.read(), TIMEOUT)
        assert first.next_within_ms > 0
        request.after = max(request.after, first.sequence)
        expected += await captured(node, turn * 10, turn * 10 + 1)
        await captured(node, turn * 10 + 5, bizStep="packing")
        told_now = await asyncio.wait_for(call.read(), TIMEOUT)
        heard += [one.identifier for one in told_now.events]
        request.after = told_now.sequence
        call.cancel()  # the break; what comes meanwhile is told by the next stream
        expected += await captured(node, turn * 10 + 2, turn * 10 + 3)
    call = stub_of(node).Subscribe(request)
    while len(heard) < len(expected):
        heard += [one.identifier for one in (await asyncio.wait_for(call.read(), TIMEOUT)).events]
    call.cancel()
    assert heard == expected

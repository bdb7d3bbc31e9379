"""``idtrace events`` at a real node: what a person and a program read, and what is wrong said by its name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from idtrace.cli import events
from idtrace.cli.events import followed, parameters_of
from idtrace.cli.exits import ExitCode, Failure
from idtrace.errors import InputError, Reason
from idtrace.v1 import capture_pb2, capture_pb2_grpc
from registry import event_stream
from tests.capture_fixtures import PROCEED, bytes_of, event_record, observed, signed_request
from tests.cli import Ran, idtrace
from tests.integration.test_logged_node import ZONE, tree
from tests.nodes import TIMEOUT, Node, free_port
from tests.recorded_events import at
from tests.unit.epcis.events import plain

ROOM = {"id": "urn:epc:id:sgln:952005385.011.0"}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with tree(tmp_path) as nodes:
        yield nodes.of_zone[ZONE]


async def captured(node: Node, *fields: dict[str, Any]) -> None:
    stub: Any = capture_pb2_grpc.CaptureServiceStub(node.channel)
    records = [event_record(ZONE, bytes_of(one)) for one in fields]
    response = await stub.Capture(signed_request(records, PROCEED), timeout=TIMEOUT)
    assert all(one.HasField("captured") for one in response.results), response.results


async def run(node: Node, *arguments: object) -> Ran:
    return await asyncio.to_thread(idtrace, "events", "--node", node.endpoint, *arguments)


def told(ran: Ran) -> list[Any]:
    """The command's JSON lines; nodes in this process write their log between them."""
    lines = [json.loads(line) for line in ran.out.splitlines() if line.startswith("{")]
    return [line for line in lines if "level" not in line]


async def test_events_are_shown_to_a_person_and_told_to_a_program(node: Node) -> None:
    await captured(
        node,
        observed(1, eventTime=at(1), readPoint=ROOM),
        observed(2, eventTime=at(2), errorDeclaration={"declarationTime": at(9), "reason": "did_not_occur"}),
        plain("AggregationEvent"),
        plain("ObjectEvent")
        | {"bizStep": "storing", "action": "OBSERVE", "epcList": [], "readPoint": ROOM}
        | {"sensorElementList": [{"sensorReport": [{"type": "Temperature", "value": 5, "uom": "CEL"}]}]},
    )
    shown = await run(node)
    assert shown.code == ExitCode.OK, shown.said
    for text in (
        "2026-07-22 12:00:01",
        "88.118.8/SN-1",
        "inspecting (taken back)",
        "packing",
        "+1",
        "storing",
        "gs1.414",
    ):
        assert text in shown.said
    assert "more" not in shown.said
    ran = await run(node, "--json", "--match", "epc=idtrace:88.118.8/SN-1", "--match", "epc=idtrace:88.118.8/SN-9")
    event, end = told(ran)
    assert event["event"]["epcList"] == ["idtrace:88.118.8/SN-1"]
    assert event["identifier"].startswith(f"{ZONE}/event/")
    assert (end, event["record_time"][-5:]) == ({"events": 1, "more": False}, ".000Z")


async def test_every_way_to_ask_is_a_parameter_of_epcis(node: Node) -> None:
    sensor = [{"sensorReport": [{"type": "Temperature", "value": 46.4, "uom": "FAH"}]}]
    await captured(node, *(observed(n, eventTime=at(n)) for n in range(5)))
    await captured(
        node, observed(9, eventTime=at(9), bizLocation=ROOM, sensorElementList=sensor, **{"ext:crew": "night"})
    )
    ways: list[tuple[list[str], int]] = [
        (["--eq", "bizStep=inspecting", "--eq", "bizStep=packing"], 6),
        (["--ge", f"eventTime={at(3)}", "--lt", f"eventTime={at(5)}"], 2),
        (["--ge", "value_CEL=8", "--le", "value_CEL=8", "--gt", "value_KEL=281"], 1),
        (["--wd", f"bizLocation={ROOM['id']}"], 1),
        (["--exists", "sensorElementList"], 1),
        (["--eq", "e:crew=night", "--namespace", "e=https://ns.example.com/epcis/"], 1),
        (["--param", "eventType=AggregationEvent"], 0),
        (["--param", "orderBy=eventTime", "--param", "eventCountLimit=2"], 2),
        (["--most", "4"], 4),
    ]
    for options, count in ways:
        ran = await run(node, "--json", *options)
        assert (ran.code, told(ran)[-1]["events"]) == (ExitCode.OK, count), (options, ran.said)
    assert told(await run(node, "--json", "--most", "4"))[-1]["more"] is True
    assert told(await run(node, "--json", "--most", "6"))[-1]["more"] is False
    assert "more than these 4" in (await run(node, "--most", "4")).said
    assert "no event" in (await run(node, "--eq", "action=DELETE")).said


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (["--eq", "bizStap=packing"], "EQ_bizStap"),
        (["--ge", "eventTime=noon"], "GE_eventTime"),
        (["--match", "epc"], "--match"),
        (["--eq", "=packing"], "--eq"),
        (["--param", "nextPageToken=x"], "nextPageToken"),
        (["--namespace", "e"], "--namespace"),
        (["--after", "1"], "--after"),
        (["--exists", "nothing"], "EXISTS_nothing"),
    ],
)
def test_what_is_wrong_is_named_before_a_node_is_asked(options: list[str], field: str) -> None:
    ran = idtrace("events", "--node", f"127.0.0.1:{free_port()}", *options)
    assert ran.code == ExitCode.USAGE, ran.said
    assert f"field {field}" in ran.said


async def test_what_the_node_refuses_is_told_with_its_parameter(node: Node) -> None:
    await captured(node, *(observed(n) for n in range(3)))
    ran = await run(node, "--param", "maxEventCount=2")
    assert ran.code == ExitCode.REFUSED
    assert "QUERY_TOO_LARGE" in ran.said
    assert "maxEventCount" in ran.said


def test_a_node_that_is_not_there_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "PAUSE_SECONDS", 0.0)
    for options in ([], ["--follow"]):
        ran = idtrace("events", "--node", f"127.0.0.1:{free_port()}", "--timeout", "2", *options)
        assert ran.code == ExitCode.UNREACHABLE, ran.said


def test_an_option_that_is_given_twice_adds_an_alternative() -> None:
    given = {"--match": ["epc=a", "epc=b=c"], "--exists": ["x:y"], "--param": ["GE_quantity=1"]}
    assert parameters_of(given) == {"MATCH_epc": ["a", "b=c"], "EXISTS_x:y": [], "GE_quantity": ["1"]}
    with pytest.raises(InputError):
        parameters_of({"--lt": ["eventTime"]})


async def test_events_are_followed_from_a_place_until_there_are_enough(node: Node) -> None:
    await captured(node, *(observed(n, eventTime=at(n)) for n in range(3)))
    waiting = asyncio.ensure_future(run(node, "--follow", "--after", "0", "--most", "5", "--json"))
    await asyncio.sleep(0.2)
    await captured(node, *(observed(n, eventTime=at(n)) for n in range(3, 6)))
    ran = await waiting
    assert [one["event"]["epcList"][0][-1] for one in told(ran)] == ["0", "1", "2", "3", "4"]
    shown = await run(node, "--follow", "--after", "0", "--most", "1")
    assert "88.118.8/SN-0" in shown.said


async def test_who_ends_it_is_told_where_to_go_on(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    await captured(node, observed(1))

    monkeypatch.setattr(event_stream, "QUIET_SECONDS", 0.1)

    def interrupted(node: str, timeout: float, request: capture_pb2.SubscribeRequest) -> Iterator[Any]:
        shown = False
        for one in followed(node, timeout, request):
            if shown:
                raise KeyboardInterrupt
            yield one
            shown = bool(one.events)

    monkeypatch.setattr(events, "followed", interrupted)
    ran = await run(node, "--follow", "--after", "0")
    assert ran.code == ExitCode.OK
    assert "--follow --after 4" in ran.said


class Broken(grpc.RpcError):
    """A connection that is gone."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "gone"

    def trailing_metadata(self) -> tuple[()]:
        return ()


class Breaking:
    """A node whose first three streams bring one message each; the first ends without a word, as when it is stopped."""

    def __init__(self) -> None:
        self.asked: list[int | None] = []
        self.left: list[Any] = []

    def __call__(self, channel: Any) -> Breaking:
        return self

    def Subscribe(self, request: Any) -> Breaking:  # noqa: N802 - gRPC's name
        self.asked.append(request.after if request.HasField("after") else None)
        turn = len(self.asked)
        self.left = [capture_pb2.SubscribeResponse(sequence=turn * 10)] if turn < 4 else []
        return self

    def cancel(self) -> None: ...

    def __next__(self) -> Any:
        if self.left:
            return self.left.pop()
        raise StopIteration if len(self.asked) == 1 else Broken


async def test_a_stream_that_breaks_is_resumed_where_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Breaking()
    monkeypatch.setattr(capture_pb2_grpc, "EventServiceStub", node)
    pauses: list[float] = []
    with pytest.raises(Failure) as caught:
        for _ in followed("127.0.0.1:1", 1.0, capture_pb2.SubscribeRequest(), pauses.append):
            pass
    assert caught.value.code is ExitCode.UNREACHABLE
    assert node.asked[:4] == [None, 10, 20, 30]
    assert len(node.asked) == 3 + events.TRIES_MAX - 1, "so many tries that bring nothing, one after another"


async def test_a_stream_that_falls_silent_is_given_up(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SILENCE_SECONDS", 0.1)  # the node's next sign of life is due in 10 s
    monkeypatch.setattr(events, "TRIES_MAX", 3)
    request = capture_pb2.SubscribeRequest()

    def follow() -> list[int]:
        heard: list[int] = []
        for told in followed(node.endpoint, 1.0, request, lambda _: None):
            heard.append(told.sequence)
            if len(heard) == 3:
                break
        return heard

    assert len(await asyncio.to_thread(follow)) == 3, "each from a stream of its own"


async def test_an_event_that_is_not_its_identifiers_is_not_shown(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    await captured(node, observed(1))
    honest = capture_pb2_grpc.EventServiceStub

    class Lying:
        def __init__(self, channel: Any) -> None:
            self._stub = honest(channel)

        def Query(self, request: Any, timeout: float) -> Iterator[Any]:  # noqa: N802 - gRPC's name
            for page in self._stub.Query(request, timeout=timeout):
                for one in page.events:
                    one.statement = one.statement.replace(b"SN-1", b"SN-2")
                yield page

    monkeypatch.setattr(capture_pb2_grpc, "EventServiceStub", Lying)
    ran = await run(node, "--json")
    assert ran.code == ExitCode.BOGUS, ran.said
    assert "SN-2" not in ran.out
    assert str(Reason.ANSWER_MALFORMED) in ran.out

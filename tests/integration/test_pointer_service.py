"""What strangers may do at PointerService, what is bounded, and what the operator sees of the outbox."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from idtrace.errors import Reason
from idtrace.serving.errors import error_from_rpc
from idtrace.v1 import pointer_pb2
from registry import pointers
from registry.outbox import failed
from registry.pointer_service import caller_of
from registry.storage import DeliveryState, Mention
from registry.storage_sqlite import SqliteStorage
from tests.cli import Ran, idtrace
from tests.integration.test_pointers import listed, record, stub_of
from tests.nodes import TIMEOUT, Node, Nodes
from tests.pointing import NOW_MS, event_name, event_write
from tests.watching import Watcher

HERE = "88.118.8"
BOX, AWAY = f"{HERE}/BOX", "88.999/X-1"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """Of the party's zone, with the root's above it."""
    async with Nodes(tmp_path) as nodes:
        await nodes.registry("")
        yield await nodes.registry(HERE)


def pointer(number: int = 1, **changes: Any) -> pointer_pb2.Pointer:
    fields: dict[str, Any] = {
        "subject": BOX,
        "time_ms": NOW_MS + number,
        "event": event_name(number, "86.1.5"),
        "role": "epc",
    }
    return pointer_pb2.Pointer(**(fields | changes))


async def delivered(node: Node, *some: pointer_pb2.Pointer) -> list[bool | str]:
    response = await stub_of(node).Deliver(pointer_pb2.DeliverRequest(pointers=some), timeout=TIMEOUT)
    return [one.error.reason if one.HasField("error") else one.is_new for one in response.results]


async def refusal(call: Any) -> tuple[Reason, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    error = error_from_rpc(refused.value)
    assert error is not None, refused.value
    return error.reason, error.field


async def test_each_pointer_is_taken_or_refused_alone_and_the_same_again_is_no_news(node: Node) -> None:
    some = (pointer(1), pointer(2, subject=AWAY), pointer(3, role="owner"), pointer(1), pointer(4))
    async with Watcher.on(node.registry, HERE) as watcher:
        assert await delivered(node, *some) == [True, "NOT_AUTHORITATIVE", "FIELD_MALFORMED", True, True]
        assert await delivered(node, *some) == [False, "NOT_AUTHORITATIVE", "FIELD_MALFORMED", False, False]
        await watcher.until(lambda: any(message.changes for message in watcher.messages))
        told = [change for message in watcher.messages for change in message.changes]
        assert [(change.WhichOneof("subject"), change.events, change.version) for change in told] == [
            ("events", BOX, 0)
        ]
    assert await listed(node, BOX) == [Mention(BOX, NOW_MS + n, event_name(n, "86.1.5"), "epc") for n in (1, 4)]
    assert await listed(node, AWAY) == []


async def test_pages_are_read_one_after_the_other(node: Node) -> None:
    assert await delivered(node, *(pointer(n) for n in range(7))) == [True] * 7
    read: list[pointer_pb2.Pointer] = []
    for left in (True, True, False):
        after = read[-1] if read else None
        request = pointer_pb2.PointerServiceListRequest(subject=BOX, after=after, most=3)
        response = await stub_of(node).List(request, timeout=TIMEOUT)
        assert response.more is left
        read += response.pointers
    assert [one.time_ms - NOW_MS for one in read] == list(range(7))


async def test_calls_are_bounded_and_a_wrong_one_names_its_field(node: Node) -> None:
    stub = stub_of(node)

    async def told(method: Any, request: Any) -> tuple[Reason, str]:
        return await refusal(method(request, timeout=TIMEOUT))

    deliver, ask = pointer_pb2.DeliverRequest, pointer_pb2.PointerServiceListRequest
    assert await told(stub.Deliver, deliver()) == (Reason.BATCH_TOO_LARGE, "pointers")
    many = deliver(pointers=[pointer(n) for n in range(pointers.DELIVERED_MAX + 1)])
    assert await told(stub.Deliver, many) == (Reason.BATCH_TOO_LARGE, "pointers")
    assert await told(stub.List, ask()) == (Reason.FIELD_MISSING, "subject")
    assert await told(stub.List, ask(subject="x" * 1_025)) == (Reason.FIELD_TOO_LARGE, "subject")
    assert await told(stub.List, ask(subject=BOX, most=1_001)) == (Reason.FIELD_TOO_LARGE, "most")
    late = ask(subject=BOX, after=pointer(1, time_ms=-1))
    assert await told(stub.List, late) == (Reason.FIELD_MALFORMED, "after.time_ms")
    outbox = pointer_pb2.ListOutboxRequest(most=1_001)
    assert await told(stub.ListOutbox, outbox) == (Reason.FIELD_TOO_LARGE, "most")


async def test_a_flood_is_refused_and_what_was_taken_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pointers, "CALLER_BURST", 10)
    monkeypatch.setattr(pointers, "CALLER_PER_SECOND", 0.0)
    monkeypatch.setattr(pointers, "SUBJECT_BURST", 4)
    monkeypatch.setattr(pointers, "SUBJECT_PER_SECOND", 0.0)
    async with Nodes(tmp_path) as nodes:
        await nodes.registry("")
        node = await nodes.registry(HERE)
        assert await delivered(node, *(pointer(n) for n in range(6))) == [True] * 4 + ["OVERLOADED"] * 2
        assert await delivered(node, pointer(9, subject=f"{HERE}/BOX-2")) == [True]
        call = stub_of(node).Deliver(
            pointer_pb2.DeliverRequest(pointers=[pointer(n) for n in range(4)]), timeout=TIMEOUT
        )
        assert (await refusal(call))[0] is Reason.OVERLOADED
        assert len(await listed(node, BOX)) == 4


async def dead_letters(node: Node, count: int) -> None:
    """Deliveries that were given up, in the node's store."""
    writes = [event_write(n, (AWAY, "epc"), outbound=(AWAY,)) for n in range(count)]
    await node.end()  # so that nobody delivers them
    await record(node, *writes)
    storage = SqliteStorage(node.config.data / "registry.sqlite3")
    try:
        due = await storage.deliveries(0, count)
        await storage.settle([failed(one, "gone", now_ms=NOW_MS, chance=0.5, for_good=True) for one in due])
        assert len(await storage.outbox(DeliveryState.DEAD, count)) == count
    finally:
        await storage.close()
    await node.start()


async def run(*arguments: object) -> Ran:
    return await asyncio.to_thread(idtrace, *arguments)


async def test_the_operator_sees_what_was_given_up_and_tries_it_again(node: Node) -> None:
    outbox = ("outbox", "--node", node.endpoint)
    for words in ((), ("--dead",)):
        ran = await run(*outbox, *words)
        assert (ran.code, ran.said) == (0, ("nothing was given up" if words else "nothing waits: all is delivered"))
    await dead_letters(node, 3)
    shown = await run(*outbox, "--dead", "--json")
    assert (shown.code, shown.json["more"], shown.json["dead"]) == (0, False, True)
    item = shown.json["items"][0]
    assert (item["subject"], item["roles"], item["attempts"], item["error"]) == (AWAY, ["epc"], 1, "gone")
    ran = await run(*outbox, "--dead", "--most", 2)
    assert "there are more than these 2" in ran.err
    assert ran.out.count(AWAY) == 2
    assert (await run(*outbox, "--dead", "--retry")).code == 2
    assert (await run(*outbox, "--retry", "--json")).json == {"retried": 3}
    async with asyncio.timeout(20):
        while (await run(*outbox, "--json")).json["items"]:  # noqa: ASYNC110 - their home, the root's node, takes them now
            await asyncio.sleep(0.1)
    assert "nothing was given up" in (await run(*outbox, "--retry")).out


async def test_nobody_there_is_said_in_words() -> None:
    ran = await run("outbox", "--node", "127.0.0.1:1", "--timeout", "0.5")
    assert (ran.code, "Traceback" in ran.err) == (4, False)


@pytest.mark.parametrize(
    ("peer", "caller"),
    [
        ("ipv4:192.0.2.1:50123", "ipv4:192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:50123", "ipv6:2001:db8::/64"),
        ("ipv6:[2001:db8::2%25eth0]:50123", "ipv6:2001:db8::/64"),
        ("ipv6:what:1", "ipv6:what"),
        ("unix:", "unix"),
        ("nowhere", "nowhere"),
    ],
)
def test_a_caller_is_an_address_whatever_its_port(peer: str, caller: str) -> None:
    assert caller_of(peer) == caller

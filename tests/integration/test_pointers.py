"""Real nodes tell each other of events: what is recorded at one is pointed to at the home of each thing it is about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from idtrace.v1 import pointer_pb2, pointer_pb2_grpc
from registry.storage import Mention, Outcome, Write
from registry.storage_sqlite import SqliteStorage
from tests.nodes import TIMEOUT, Node, Nodes
from tests.pointing import NOW_MS, event_write

HERE, THERE = "88.118.8", "86.1.5"


@asynccontextmanager
async def two_branches(folder: Path) -> AsyncIterator[Nodes]:
    """Parties in two branches of the tree, each with a node of its own all the way up."""
    async with Nodes(folder) as nodes:
        for zone in ("", "88", "88.118", HERE, "86", "86.1", THERE):
            await nodes.registry(zone)
        yield nodes


async def record(node: Node, *writes: Write) -> None:
    """Commit as another process on the node's store does; the node finds it by itself."""
    storage = SqliteStorage(node.config.data / "registry.sqlite3")
    try:
        assert await storage.commit(writes) == [Outcome.COMMITTED] * len(writes)
    finally:
        await storage.close()


def stub_of(node: Node) -> Any:
    return pointer_pb2_grpc.PointerServiceStub(node.channel)


async def listed(node: Node, subject: str, **fields: Any) -> list[Mention]:
    request = pointer_pb2.PointerServiceListRequest(subject=subject, **fields)
    response = await stub_of(node).List(request, timeout=TIMEOUT)
    return [Mention(one.subject, one.time_ms, one.event, one.role) for one in response.pointers]


async def until_listed(node: Node, subject: str, count: int) -> list[Mention]:
    async with asyncio.timeout(20):
        while len(found := await listed(node, subject)) < count:  # noqa: ASYNC110 - nothing tells of another node
            await asyncio.sleep(0.05)
    return found


def pointers(*mentions: Mention) -> pointer_pb2.DeliverRequest:
    return pointer_pb2.DeliverRequest(
        pointers=[
            pointer_pb2.Pointer(subject=m.subject, time_ms=m.time_ms, event=m.event, role=m.role) for m in mentions
        ]
    )


@pytest.mark.slow
async def test_an_event_is_pointed_to_at_the_home_of_each_thing_that_it_is_about(tmp_path: Path) -> None:
    dose, box = f"{THERE}/DOSE-1", f"{HERE}/BOX-1"
    place = "urn:epc:id:sgln:952005385.011.0"
    async with two_branches(tmp_path) as nodes:
        here, there = nodes.of_zone[HERE], nodes.of_zone[THERE]
        write = event_write(1, (dose, "child"), (box, "parent"), (place, "read_point"), outbound=(dose,))
        await record(here, write)
        assert await until_listed(there, dose, 1) == [Mention(dose, NOW_MS, write.identifier, "child")]
        assert await listed(here, box) == [Mention(box, NOW_MS, write.identifier, "parent")]
        assert await listed(here, place) == [Mention(place, NOW_MS, write.identifier, "read_point")]
        assert await listed(there, place) == []  # a URI that is no identifier has no home
        async with asyncio.timeout(20):
            while (await stub_of(here).ListOutbox(pointer_pb2.ListOutboxRequest(), timeout=TIMEOUT)).items:  # noqa: ASYNC110 - nothing tells of another node
                await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_what_cannot_be_delivered_waits_until_its_home_is_back(tmp_path: Path) -> None:
    dose = f"{THERE}/DOSE-1"
    async with two_branches(tmp_path) as nodes:
        here, there = nodes.of_zone[HERE], nodes.of_zone[THERE]
        await there.end()
        await record(here, event_write(1, (dose, "epc"), outbound=(dose,)))
        async with asyncio.timeout(20):
            while True:
                items = (await stub_of(here).ListOutbox(pointer_pb2.ListOutboxRequest(), timeout=TIMEOUT)).items
                if items and items[0].attempts:
                    break
                await asyncio.sleep(0.05)
        assert (items[0].subject, list(items[0].roles)) == (dose, ["epc"])
        assert "NO_ANSWER" in items[0].error
        await there.start()
        assert len(await until_listed(there, dose, 1)) == 1

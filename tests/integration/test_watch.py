"""RegistryService.Watch over real gRPC: what resolvers hear of a node, on SQLite."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from idtrace import wire
from idtrace.bundle import Denied
from idtrace.delegation import Delegation, Role, State
from idtrace.errors import BusyError, InputError, Reason, RefusedError
from idtrace.record import Record, RecordKind, Status
from idtrace.signature import MemorySigner
from idtrace.statements import PrefixStatus
from idtrace.v1 import delegation_pb2, registry_pb2
from idtrace.v1.registry_pb2_grpc import RegistryServiceStub
from registry import server as registry_server
from registry.changes import Changes
from registry.storage_sqlite import SqliteStorage
from tests.core_fixtures import signer
from tests.nodes import TIMEOUT, Node, Nodes, key_name, make_record
from tests.registry_fixtures import until
from tests.watching import Watcher


async def tree(folder: Path, **settings: object) -> Nodes:
    nodes = Nodes(folder)
    await nodes.registry("")
    await nodes.registry("88", **settings)
    return nodes


async def change(nodes: Nodes, name: str, previous: Record, **fields: Any) -> Record:
    """Send the next version of a record; a tombstone by its own call."""
    record, stub = make_record(name, previous=previous, **fields), nodes.node_for(name).registry
    parts: Any = {"idempotency_key": f"key-{record.hash.hex()[:40]}", "record": wire.record_to_pb(record)}
    if fields.get("kind") is RecordKind.TOMBSTONE:
        await stub.Retire(registry_pb2.RetireRequest(**parts), timeout=TIMEOUT)
    else:
        await stub.Update(registry_pb2.UpdateRequest(**parts), timeout=TIMEOUT)
    return record


async def test_registrations_recalls_and_tombstones_are_told_and_can_be_read_at_once(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    async with await tree(tmp_path) as nodes:
        node = nodes.of_zone["88"]
        async with Watcher.on(node.registry, "88") as watcher:
            assert (watcher.heard, watcher.messages[0].next_within_ms) == ([], 2_000)
            record = await nodes.register("88/A", {"lot": "L1"})
            await watcher.hears(("88/A", 1))
            delays = []
            for version in range(2, 12):
                sent = time.perf_counter()
                record = await change(nodes, "88/A", record, status=Status.RECALLED)
                await watcher.hears(("88/A", version))
                delays.append(time.perf_counter() - sent)
                assert (await nodes.get("88/A", node)).outcome == record
            await change(nodes, "88/A", record, kind=RecordKind.TOMBSTONE, status=Status.RETIRED)
            await watcher.hears(("88/A", 12))
            assert watcher.heard == [("88/A", version) for version in range(1, 13)]
            record_property("watch, update to told", f"{1000 * sorted(delays)[5]:.1f} ms, {1000 * max(delays):.1f} ms")
            assert max(delays) < 1
            numbers = [message.sequence for message in watcher.messages]
            assert numbers == sorted(set(numbers))


async def test_every_change_of_a_child_is_told_and_answered_by_the_time_it_is_told(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        node = nodes.of_zone["88"]

        async def held() -> tuple[int, str]:
            request = delegation_pb2.DelegationServiceGetRequest(prefix="88.118")
            answer = await node.delegation.Get(request, timeout=TIMEOUT)
            return Delegation.parse(answer.chain[-1].payload).version, answer.status.status

        async with Watcher.on(node.registry, "88") as watcher, Watcher.on(node.registry, "88.5") as other:
            steps = [
                (nodes.delegate("88.118", ("a.example:1",), node_key_zone="88.118"), (1, "enabled")),
                (nodes.delegate("88.118", ("b.example:1",), node_key_zone="88.118"), (2, "enabled")),
                (nodes.set_status("88.118", PrefixStatus.DISABLED, "key-off-1"), (2, "disabled")),
                (nodes.set_status("88.118", PrefixStatus.ENABLED, "key-on-12"), (2, "enabled")),
            ]
            for position, (step, expected) in enumerate(steps, 1):
                task = asyncio.ensure_future(step)
                await watcher.until(lambda position=position: len(watcher.heard) == position)  # type: ignore[misc]  # this round's
                assert watcher.heard[-1] == ("88.118", expected[0])
                assert watcher.messages[-1].changes[-1].WhichOneof("subject") == "prefix"
                assert await held() == expected
                denied = isinstance((await nodes.get("88.118/A", node)).outcome, Denied)
                assert denied is (expected[1] == "disabled")
                await task
            revocation = nodes.delegate("88.118", (), node_key_zone="88.118", state=State.REVOKED, keys=())
            await revocation
            await watcher.hears(("88.118", 3))
            assert (await held())[0] == 3
            assert other.heard == []


async def test_a_watcher_hears_its_zone_alone_and_a_parent_hears_what_it_hosts(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        await nodes.host("88.118", at="88")
        node = nodes.of_zone["88"]
        async with (
            Watcher.on(node.registry, "88") as parent,
            Watcher.on(node.registry, "88.118") as hosted,
            Watcher.on(node.registry, "88.118.1") as below,
            Watcher.on(node.registry, "88.11") as beside,
        ):
            for name in ("88.118/A", "88/A", "88.118.10/A", "88.118.1/A"):
                await nodes.submit(make_record(name, by=_owner(name)), f"key-{name}", node=node)
            await parent.hears(("88.118.1/A", 1))
            await below.hears(("88.118.1/A", 1))
            # The hosting itself was committed just before, and who begins to watch then may still be told of it.
            named = [one for one in parent.heard if "/" in one[0]]
            assert named == [(name, 1) for name in ("88.118/A", "88/A", "88.118.10/A", "88.118.1/A")]
            assert [name for name, _ in hosted.heard if "/" in name] == ["88.118/A", "88.118.10/A", "88.118.1/A"]
            assert (below.heard, beside.heard) == ([("88.118.1/A", 1)], [])


def _owner(name: str) -> MemorySigner:
    return signer(key_name(Role.RECORD, "88.118" if name.startswith("88.118") else "88"))


@pytest.mark.parametrize(
    ("zone", "after", "expected"),
    [
        ("89", None, (RefusedError, Reason.NOT_AUTHORITATIVE, grpc.StatusCode.NOT_FOUND)),
        ("88.118", None, (RefusedError, Reason.NOT_AUTHORITATIVE, grpc.StatusCode.NOT_FOUND)),
        ("88.118.5", 0, (RefusedError, Reason.NOT_AUTHORITATIVE, grpc.StatusCode.NOT_FOUND)),
        ("", None, (RefusedError, Reason.NOT_AUTHORITATIVE, grpc.StatusCode.NOT_FOUND)),
        ("88.", None, (InputError, Reason.IDENTIFIER_MALFORMED, grpc.StatusCode.INVALID_ARGUMENT)),
        ("88.A", None, (InputError, Reason.IDENTIFIER_NOT_CANONICAL, grpc.StatusCode.INVALID_ARGUMENT)),
        ("88", 10_000, (RefusedError, Reason.CHANGES_GONE, grpc.StatusCode.OUT_OF_RANGE)),
        ("88", 2**64 - 1, (RefusedError, Reason.CHANGES_GONE, grpc.StatusCode.OUT_OF_RANGE)),
    ],
)
async def test_a_watch_that_cannot_be_kept_says_why(
    tmp_path: Path, zone: str, after: int | None, expected: tuple[type[Exception], Reason, grpc.StatusCode]
) -> None:
    async with await tree(tmp_path) as nodes:
        await nodes.delegate("88.118", ("elsewhere.example:1",), node_key_zone="88.118")
        watcher = Watcher(nodes.of_zone["88"].registry, zone, after)
        error = await watcher.ends()
        assert error is not None
        assert (type(error), error.reason, watcher.code) == expected
        assert error.field == ("after" if after is not None and zone == "88" else "zone")
        assert watcher.messages == []


async def test_it_hears_a_sign_of_life_in_time_and_needs_no_deadline(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        asked = asyncio.get_running_loop().time()
        async with Watcher.on(nodes.of_zone["88"].registry, "88") as watcher:
            await watcher.until(lambda: len(watcher.messages) == 4)
            times = [asked, *watcher.times]
            assert times[1] - times[0] < 1
            assert max(later - earlier for earlier, later in pairwise(times)) < 2
            assert watcher.heard == []


async def test_resuming_from_the_middle_tells_the_rest_and_past_what_is_kept_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_server, "SqliteStorage", partial(SqliteStorage, changes_kept=6))
    async with await tree(tmp_path) as nodes:
        node = nodes.of_zone["88"]
        async with Watcher.on(node.registry, "88") as watcher:
            start = watcher.sequence
            for n in range(9):
                await nodes.register(f"88/N-{n}")
            await watcher.hears(("88/N-8", 1))
            head = watcher.sequence
            assert head == start + 9
        for _ in range(2):  # from memory; then, in a node that has just started, from the store
            for known in range(head - 6, head + 1):
                async with Watcher.on(node.registry, "88", known) as again:
                    await again.until(lambda: again.sequence == head)
                    assert again.heard == [(f"88/N-{n}", 1) for n in range(9)][known - start :]
            await node.end()
            await node.start()
        late = Watcher(node.registry, "88", head - 7)
        error = await late.ends()
        assert error is not None
        assert error.reason is Reason.CHANGES_GONE


async def test_a_node_that_stops_ends_its_streams_at_once(tmp_path: Path) -> None:
    async with await tree(tmp_path, drain_seconds=30.0) as nodes:
        node = nodes.of_zone["88"]
        watchers = [Watcher(node.registry, zone) for zone in ("88", "88", "88.1")]
        for watcher in watchers:
            await watcher.until(lambda: bool(watcher.messages))  # noqa: B023 - this round's
        begun = time.perf_counter()
        await node.end()
        assert time.perf_counter() - begun < 5
        for watcher in watchers:
            error = await watcher.ends()
            assert isinstance(error, BusyError)
            assert (error.reason, watcher.code) == (Reason.SHUTTING_DOWN, grpc.StatusCode.UNAVAILABLE)


async def test_a_client_that_goes_away_is_forgotten_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Changes] = []

    def remembered(*arguments: Any) -> Changes:
        made.append(Changes(*arguments))
        return made[-1]

    async with await tree(tmp_path) as nodes:
        monkeypatch.setattr(registry_server, "Changes", remembered)
        node = nodes.of_zone["88"]
        await node.end()
        await node.start()

        def watching() -> int:
            return sum(len(watchers) for watchers in made[-1]._watchers.values())

        watchers = [Watcher(node.registry, "88") for _ in range(5)]
        async with grpc.aio.insecure_channel(node.endpoint) as channel:
            others = [Watcher(RegistryServiceStub(channel), "88.1") for _ in range(5)]
            await until(lambda: watching() == 10)
            for watcher in watchers:
                await watcher.leave()
            await until(lambda: watching() == 5, 3)
        await until(lambda: watching() == 0, 3)
        assert made[-1]._watchers == {}
        for other in others:
            await other.ends()


async def _sequence(node: Node, zone: str) -> int:
    async with Watcher.on(node.registry, zone) as watcher:
        return watcher.sequence


async def test_fifty_watchers_hear_all_of_it(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        node = nodes.of_zone["88"]
        start = await _sequence(node, "88")
        watchers = [Watcher(node.registry, "88", start) for _ in range(50)]
        for n in range(20):
            await nodes.register(f"88/N-{n}")
        for watcher in watchers:
            await watcher.hears(("88/N-19", 1))
            assert watcher.heard == [(f"88/N-{n}", 1) for n in range(20)]
            await watcher.leave()

"""Connections that break and nodes that stand still: a lost answer is never a false conflict, nor a second version."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from idtrace.delegation import Role
from idtrace.record import Record
from idtrace.statements import Receipt
from registry.cassandra_bridge import Bridge
from registry.cassandra_ledger import SwapUnknownError
from registry.cassandra_schema import fingerprint, migrate
from registry.cassandra_settings import CassandraSettings
from registry.storage import Outcome
from registry.storage_cassandra import CassandraStorage
from tests.core_fixtures import signer
from tests.engines.cassandra import CassandraCluster
from tests.integration.test_storage_contract import FIRST, OTHER, SECOND
from tests.nodes import Nodes, key_name, make_record
from tests.registry_fixtures import head_of, typed_record, until, write_of
from tests.storages import cassandra_settings

pytestmark = pytest.mark.slow


class CuttingProxy:
    """Passes bytes on. A connection that carries ``needle`` to the server is cut when the server's answer comes."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.needle = b""
        self.cut = 0
        self.serving: set[Any] = set()
        self.swallow = False  # from then on nothing comes back on any connection

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.add(asyncio.current_task())
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        marked = [False]

        async def up() -> None:
            while data := await reader.read(65_536):
                if self.needle and self.needle in data:
                    marked[0], self.needle = True, b""
                server_writer.write(data)

        async def down() -> None:
            while data := await server_reader.read(65_536):
                if marked[0]:  # the server has done it, and nobody hears of it
                    self.cut += 1
                    return
                if not self.swallow:
                    writer.write(data)

        pumps = [asyncio.create_task(up()), asyncio.create_task(down())]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for one in (server_writer, writer):
                one.close()
                with suppress(OSError):
                    await one.wait_closed()


@asynccontextmanager
async def proxied(folder: Path, **changes: object) -> AsyncIterator[tuple[CuttingProxy, CassandraSettings]]:
    """A proxy before the one node, and settings that go through it."""
    direct = await cassandra_settings(folder)
    proxy = CuttingProxy(direct.contact_points[0], direct.port)
    server = await asyncio.start_server(proxy.serve, direct.contact_points[0], 0)
    settings = await cassandra_settings(folder, **changes)
    try:
        yield proxy, replace(settings, port=server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await asyncio.gather(*proxy.serving, return_exceptions=True)


@asynccontextmanager
async def through_proxy(folder: Path, **changes: object) -> AsyncIterator[tuple[CuttingProxy, CassandraStorage]]:
    async with proxied(folder, **changes) as (proxy, settings):
        store = CassandraStorage(settings)
        try:
            await store.open()
            yield proxy, store
        finally:
            await store.close()


def cut_swaps(proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The connection that carries the next swap's batch name is cut with its answer; tells the names."""
    swaps: list[Any] = []
    once = Bridge.once

    async def cutting(bridge: Bridge, statement: Any, values: Any = (), *, profile: str) -> Any:
        if profile.startswith("swap"):
            swaps.append(values[1])
            if len(swaps) == 1:
                proxy.needle = values[1].bytes
        return await once(bridge, statement, values, profile=profile)

    monkeypatch.setattr(Bridge, "once", cutting)  # to know the batch's name before the server does
    return swaps


async def test_a_connection_that_is_cut_after_the_swap_is_a_success_and_no_conflict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with through_proxy(tmp_path) as (proxy, store):
        swaps = cut_swaps(proxy, monkeypatch)
        assert await store.commit([write_of(FIRST, "key-1"), write_of(OTHER, "key-2")]) == [Outcome.COMMITTED] * 2
        assert proxy.cut == 1
        assert len(swaps) == 1  # known from the head alone: nothing was sent twice
        assert await store.commit([write_of(SECOND, "key-3")]) == [Outcome.COMMITTED]
        assert await store.heads(["88.118.8/A"]) == {"88.118.8/A": head_of(SECOND)}


async def test_a_registration_whose_swap_was_cut_is_given_its_receipt_and_no_conflict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the whole node: over gRPC the caller sees one receipt, and the same one if it asks again."""
    async with proxied(tmp_path) as (proxy, settings), Nodes(tmp_path) as nodes:
        places = {name: getattr(settings, name) for name in ("port", "keyspace", "ledger")}
        points = list(settings.contact_points)
        await nodes.registry("", storage={"engine": "cassandra", "contact_points": points, **places})
        record = make_record("88.118.8/CUT", {"lot": "L1"}, by=signer(key_name(Role.RECORD, "")))
        swaps = cut_swaps(proxy, monkeypatch)
        first = await nodes.submit(record, "key-cut-00001")
        assert (proxy.cut, len(swaps)) == (1, 1)  # known from the head alone: nothing was sent twice
        receipt = Receipt.parse(first.receipt.signed.payload)
        assert (receipt.version, receipt.record_hash) == (1, record.hash)
        assert await nodes.submit(record, "key-cut-00001") == first
        found = (await nodes.get("88.118.8/CUT")).outcome
        assert isinstance(found, Record)
        assert found.hash == record.hash
        assert len(swaps) == 1


async def test_where_nobody_answers_the_outcome_is_unknown_and_the_key_tells_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with through_proxy(tmp_path, settle_seconds=0.5, request_timeout_seconds=0.5) as (proxy, store):
        swaps = cut_swaps(proxy, monkeypatch)
        once = store._ledger._bridge.once

        async def silent(statement: Any, values: Any = (), *, profile: str) -> Any:
            proxy.swallow = profile.startswith("swap") or proxy.swallow
            return await once(statement, values, profile=profile)

        store._ledger._bridge.once = silent  # type: ignore[method-assign]  # nothing comes back from the swap on
        with pytest.raises(SwapUnknownError):
            await store.commit([write_of(FIRST, "key-1")])
        assert len(swaps) >= 1
    other = CassandraStorage(await cassandra_settings(tmp_path))
    await other.open()
    assert await other.commit([write_of(FIRST, "key-1")]) == [Outcome.KEY_USED]  # it had happened
    await other.close()


# Three nodes


async def open_three(cluster: CassandraCluster, ledger: str) -> CassandraStorage:
    table: dict[str, object] = {
        "contact_points": cluster.contact_points,
        "port": cluster.port,
        # A standing cluster outlives a change of the tables that is not released yet.
        "keyspace": f"faults_{fingerprint()}",
        "ledger": ledger,
        "replication": {"datacenter1": 3},
    }
    settings = CassandraSettings.parse(table, Path())
    bridge = await Bridge.connect(settings)
    await migrate(bridge, settings, lambda _: None)
    await bridge.close()
    store = CassandraStorage(settings)
    await store.open()
    return store


async def write_until(stop: asyncio.Event, store: CassandraStorage, name: str, told: dict[str, Outcome]) -> int:
    """Its own and what both want, one batch after the other; tells how many tries raised."""
    number = raised = 0
    while not stop.is_set():
        number += 1
        writes = [
            write_of(typed_record(f"88.118.8/{name}-{number}"), f"own-{name}-{number}"),
            write_of(typed_record(f"88.118.8/both-{number}", {"by": name}), f"both-{name}-{number}"),
        ]
        outcomes: list[Outcome] = []
        while not outcomes:
            try:
                outcomes = await store.commit(writes)
            except Exception:  # noqa: BLE001 - whatever it is: unknown
                raised += 1
                await asyncio.sleep(0.2)
        told.update((one.identifier, outcome) for one, outcome in zip(writes, outcomes, strict=True))
    return raised


@pytest.mark.parametrize("fault", ["kill", "pause"])
async def test_two_writers_lose_nothing_and_double_nothing_while_a_node_is_gone(
    cassandra3: CassandraCluster, fault: str, record_property: Callable[[str, object], None]
) -> None:
    """Each writes its own and both want the same; a raised commit is asked again with its keys until it is told."""
    ledger = f"faults-{fault}-{time.time_ns()}"
    stores = {name: await open_three(cassandra3, ledger) for name in "ab"}
    told: dict[str, dict[str, Outcome]] = {"a": {}, "b": {}}
    stop = asyncio.Event()

    def progress() -> int:
        return len(told["a"]) + len(told["b"])

    writers = [asyncio.create_task(write_until(stop, stores[name], name, told[name])) for name in "ab"]
    await until(lambda: progress() >= 40, 60)
    began = time.monotonic()
    getattr(cassandra3, fault)(1)
    start = progress()
    await until(lambda: progress() >= start + 40, 60)
    without = f"{time.monotonic() - began:.1f} s for {progress() - start} identifiers"
    if fault == "pause":
        cassandra3.resume(1)
    start = progress()
    await until(lambda: progress() >= start + 20, 60)
    stop.set()
    raised = sum(await asyncio.wait_for(asyncio.gather(*writers), 60))
    good = {Outcome.COMMITTED, Outcome.KEY_USED}  # a key of one's own that is used: the raised try had happened
    for name in "ab":
        own = [identifier for identifier in told[name] if identifier.startswith(f"88.118.8/{name}-")]
        assert {told[name][identifier] for identifier in own} <= good
        assert len(await stores[name].heads(own)) == len(own)
    for identifier in told["a"].keys() & told["b"].keys():
        assert sum(told[name][identifier] in good for name in "ab") == 1, identifier
    record_property(f"two writers, {fault} of one node of three", f"{without}, {raised} tries raised")
    for store in stores.values():
        await store.close()

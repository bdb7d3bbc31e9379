"""RegistryService.Watch of a node that is a process of its own: killed, ended, and watched by those who never read."""

from __future__ import annotations

import asyncio
import hashlib
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from idtrace.record import RecordKind, Status
from idtrace.v1 import registry_pb2
from idtrace.v1.registry_pb2_grpc import RegistryServiceStub
from registry.storage import Head, Outcome, Write
from registry.storage_sqlite import SqliteStorage
from tests.under_fire import Client, Ledger, RegistryProgram, prepared
from tests.watching import Subject, Watcher

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
KILLS = 8
SEED = 20_261_123
ROOT_ZONE = ""


def unsigned(name: str) -> Write:
    """What a node on the same file would commit, but for the signatures, which no watcher looks at."""
    digest = hashlib.sha256(name.encode()).digest()
    head = Head(1, digest, RecordKind.ITEM, Status.ACTIVE, 1_900_000_000)
    return Write(name, 0, head, b"r", ROOT_ZONE, hashlib.sha256(name.encode()).hexdigest()[:40], digest, b"c")


async def test_nothing_is_lost_to_a_watcher_that_resumes_after_each_kill(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    program, _ = await prepared(tmp_path)
    ledger, rng = Ledger(), random.Random(SEED)
    clients = [Client(name, ledger) for name in ("a", "b")]
    heard: set[Subject] = set()
    known, worst = 0, 0.0
    try:
        for _ in range(KILLS):
            await program.start()
            working = [asyncio.create_task(client.run(program.endpoint)) for client in clients]
            async with grpc.aio.insecure_channel(program.endpoint) as channel:
                watcher = Watcher(RegistryServiceStub(channel), ROOT_ZONE, known)
                await watcher.until(lambda: bool(watcher.messages))  # noqa: B023 - this round's
                await asyncio.sleep(rng.uniform(0.05, 0.4))
                await program.kill()
                await asyncio.wait_for(asyncio.gather(*working), 20)
                await watcher.ends()
            assert watcher.error is None, "a connection that breaks is no error of the node's"
            numbers = [known, *(message.sequence for message in watcher.messages)]
            assert numbers == sorted(numbers)
            heard |= set(watcher.heard)
            known = watcher.sequence
        await program.start()
        async with (
            grpc.aio.insecure_channel(program.endpoint) as channel,
            Watcher.on(RegistryServiceStub(channel), ROOT_ZONE, known) as last,
        ):
            store = SqliteStorage(tmp_path / "root.data" / "registry.sqlite3")
            begun = time.perf_counter()
            await last.until(
                lambda: last.sequence == store._reader.execute("SELECT max(seq) FROM change").fetchone()[0]
            )
            worst = time.perf_counter() - begun
            heard |= set(last.heard)
            stored = set(store._reader.execute("SELECT identifier, version FROM version").fetchall())
            heads = set(store._reader.execute("SELECT identifier, version FROM head").fetchall())
            await store.close()
    finally:
        await program.kill()
    record_property("watch and kill -9", f"{KILLS} kills, {len(stored)} versions, {len(heard)} told, {worst:.2f} s")
    assert len(stored) > 10 * KILLS
    assert heads <= heard, "the latest version of each identifier was told"
    assert heard <= stored, "and nothing that is not there"


def resident_mb(program: RegistryProgram) -> float:
    assert program.process is not None
    status = Path(f"/proc/{program.process.pid}/status").read_text("ascii")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


async def test_those_who_never_read_cost_no_memory_and_hold_nobody_up_nor_the_nodes_end(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """30 MB of names are committed while 50 watch, ten of whom read nothing but the first message."""
    program, _ = await prepared(tmp_path)
    file = tmp_path / "root.data" / "registry.sqlite3"
    batches, size, filler = 60, 2_000, "x" * 200
    try:
        await program.start()
        async with grpc.aio.insecure_channel(program.endpoint) as channel, asyncio.timeout(200):
            stub = RegistryServiceStub(channel)
            channels = [grpc.aio.insecure_channel(program.endpoint) for _ in range(10)]
            idle = [
                RegistryServiceStub(one).Watch(registry_pb2.WatchRequest(zone=ROOT_ZONE, after=0)) for one in channels
            ]
            first: list[Any] = [await call.read() for call in idle]
            assert {message.next_within_ms for message in first} == {2_000}
            watchers = [Watcher(stub, zone, 0) for zone in ["7", *["88.118.9"] * 39]]
            reader = Watcher(stub, ROOT_ZONE, 0)
            for watcher in watchers:
                await watcher.until(lambda: bool(watcher.messages))  # noqa: B023 - this round's
            before = resident_mb(program)
            store = SqliteStorage(file)
            for batch in range(batches):
                names = [f"88.118.8/{batch:02}-{n:04}-{filler}" for n in range(size)]
                assert set(await store.commit([unsigned(name) for name in names])) == {Outcome.COMMITTED}
            await store.commit([unsigned("88.118.9/last")])
            head = await store.sequence()
            await store.close()
            for watcher in watchers[1:]:
                await watcher.hears(("88.118.9/last", 1), seconds=20)
                assert watcher.heard == [("88.118.9/last", 1)]
            await reader.until(lambda: reader.sequence == head, 60)
            grown = resident_mb(program) - before
            assert len(reader.heard) >= batches * size
            assert max(len(message.changes) for message in reader.messages) <= 2_000
            # One of those who slept wakes up, and has missed nothing.
            late: Any = first[0]
            missed = {change.identifier for change in late.changes}
            while late.sequence < head:
                late = await idle[0].read()
                missed |= {change.identifier for change in late.changes}
            assert missed == {name for name, _ in reader.heard}
            record_property("ten who never read", f"{grown:.0f} MB more after {batches * size * 215 / 1e6:.0f} MB each")
            assert grown < 120
            assert program.process is not None
            program.process.send_signal(signal.SIGTERM)
            begun = time.perf_counter()
            assert await asyncio.wait_for(program.process.wait(), 20) == 0
            record_property("end of a node with 50 watchers", f"{time.perf_counter() - begun:.1f} s")
            for watcher in (*watchers, reader):
                await watcher.ends()
            for one in channels:
                await one.close()
    finally:
        await program.kill()

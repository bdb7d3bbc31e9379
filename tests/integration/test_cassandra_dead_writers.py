"""Writers that are killed (-9) on the way, and what a node that only reads shows of their batches."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from registry.cassandra_batch import CHUNK_BYTES
from registry.cassandra_bridge import Bridge
from registry.storage import Outcome
from registry.storage_cassandra import CassandraStorage
from tests.core_fixtures import ZONE
from tests.integration.test_storage_log import sound
from tests.registry_fixtures import typed_record, until, write_of
from tests.storages import STORAGES, cassandra_settings

pytestmark = pytest.mark.slow
two_stores = STORAGES["cassandra"]
ROOT = Path(__file__).parents[2]
NAMES = [f"88.118.8/A-{n:04}" for n in range(150)]  # two stems of keys: heads come by more than one statement
# Promised: two seconds until the next look, 0.4 s of patience, and the rows. The rest is a machine with other work.
WHOLE_WITHIN_SECONDS = 20


@pytest.fixture
async def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CassandraStorage]:
    """A node that writes nothing, and sweeps each time that it looks."""
    monkeypatch.setattr("registry.cassandra_settler.SWEEP_EVERY", 1)
    async with two_stores(tmp_path) as store:
        assert isinstance(store, CassandraStorage)
        yield store


async def killed_writer(folder: Path, point: str, names: list[str]) -> None:
    settings = await cassandra_settings(folder)
    table = {
        "contact_points": list(settings.contact_points),
        "port": settings.port,
        "keyspace": settings.keyspace,
        "ledger": settings.ledger,
        "replication": {"datacenter1": 1},
    }
    command = (sys.executable, "-m", "tests.dying_writer", json.dumps(table), point, *names)
    with (folder / "writer.txt").open("wb") as output:
        writer = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=output, stderr=output)
    assert await writer.wait() == -signal.SIGKILL, (folder / "writer.txt").read_text()


class Tables:
    """Looks into the ledger's own tables."""

    def __init__(self, bridge: Bridge, keyspace: str, ledger: str) -> None:
        self._bridge, self._keyspace, self._ledger = bridge, keyspace, ledger

    async def rows(self, table: str) -> list[Any]:
        """Of this ledger; the tables of a test cluster are small enough to read them whole."""
        found = await self._bridge.run(f"SELECT * FROM {self._keyspace}.{table}")
        return [row for row in found if row.ledger == self._ledger]


@pytest.fixture
async def tables(tmp_path: Path) -> AsyncIterator[Tables]:
    settings = await cassandra_settings(tmp_path)
    bridge = await Bridge.connect(settings)
    yield Tables(bridge, settings.keyspace, settings.ledger)
    await bridge.close()


@pytest.mark.parametrize("point", ["swapped", "half", "logged"])
async def test_a_node_that_only_reads_shows_a_dead_writers_batch_whole(
    tmp_path: Path, reader: CassandraStorage, point: str, record_property: Callable[[str, object], None]
) -> None:
    await killed_writer(tmp_path, point, NAMES)
    died = time.monotonic()
    while len(await reader.heads(NAMES)) < len(NAMES):
        assert time.monotonic() < died + WHOLE_WITHIN_SECONDS
        await asyncio.sleep(0.05)
    record_property(f"a batch whose writer died ({point}) is whole for a reader", f"{time.monotonic() - died:.1f} s")
    keys = [f"key-{name}" for name in NAMES]
    assert len(await reader.earlier(ZONE, keys)) == len(keys)
    assert None not in [await reader.record(name) for name in NAMES]
    assert len(await sound(reader)) == len(NAMES)
    stored = [await reader.stored(name) for name in NAMES]
    assert [one and one.index for one in stored] == list(range(len(NAMES)))
    again = [write_of(typed_record(name), key) for name, key in zip(NAMES, keys, strict=True)]
    assert await reader.commit(again) == [Outcome.KEY_USED] * len(NAMES)


async def test_what_a_writer_staged_and_never_swapped_goes_away_once_the_head_has_passed_it(
    tmp_path: Path, reader: CassandraStorage, tables: Tables
) -> None:
    await killed_writer(tmp_path, "staged", NAMES)
    (left,) = await tables.rows("staging")
    assert [row.batch_id for row in await tables.rows("staged")] == [left.batch_id]
    for _ in range(10):  # two looks: until a head has passed it, it could still be swapped
        await asyncio.sleep(0.5)
        assert [row.batch_id for row in await tables.rows("staged")] == [left.batch_id]
    assert await reader.heads(NAMES) == {}
    assert await sound(reader) == []
    assert await reader.commit([write_of(typed_record("88.118.8/B"), "key-b")]) == [Outcome.COMMITTED]
    end = time.monotonic() + WHOLE_WITHIN_SECONDS
    while left.batch_id in {row.batch_id for row in await tables.rows("staged") + await tables.rows("staging")}:
        assert time.monotonic() < end
        await asyncio.sleep(0.1)
    assert await reader.heads([*NAMES, "88.118.8/B"]) == await reader.heads(["88.118.8/B"])
    assert await reader.commit([write_of(typed_record(NAMES[0]), f"key-{NAMES[0]}")]) == [Outcome.COMMITTED]


async def test_a_sweep_takes_nothing_that_may_still_be_needed(
    tmp_path: Path, reader: CassandraStorage, tables: Tables
) -> None:
    """Two writers and a sweep in every gap of theirs: each batch that is committed is there, whole."""
    stop = asyncio.Event()

    async def sweep() -> int:
        swept = 0
        while not stop.is_set():
            seq, behind = await reader._ledger.behind(0)
            swept += 0 if behind else await reader._ledger.sweep(seq)
        return swept

    async def write(name: str) -> None:
        async with two_stores(tmp_path) as store:
            for n in range(15):
                big = write_of(typed_record(f"88.118.8/{name}-{n}", {"n": str(n)}), f"key-{name}-{n}")
                assert await store.commit([big]) == [Outcome.COMMITTED]

    sweeping = asyncio.create_task(sweep())
    await asyncio.gather(write("P"), write("Q"))
    stop.set()
    assert await sweeping > 0
    names = [f"88.118.8/{name}-{n}" for name in "PQ" for n in range(15)]
    assert len(await reader.heads(names)) == len(names)
    assert len(await tables.rows("staged")) <= 2  # the last of each, for its next batch or the next sweep
    assert {row.after for row in await tables.rows("staging")} <= set(range(30))


async def test_a_batch_of_many_pieces_that_a_dead_writer_staged_leaves_no_piece(tmp_path: Path, tables: Tables) -> None:
    async with two_stores(tmp_path) as store:
        assert isinstance(store, CassandraStorage)
        ledger = store._ledger
        batch_id, writer = uuid.uuid4(), uuid.uuid4()
        for number in range(5):
            await ledger._stage(batch_id, number, bytes(CHUNK_BYTES))
        announced = (ledger.name, writer, 0, batch_id, 5, 1)
        await ledger._bridge.run(ledger._prepared["announce"], announced)
        assert await ledger.sweep(0) == 0
        assert len(await tables.rows("staged")) == 5
        assert await ledger.sweep(1) == 1
        assert await tables.rows("staged") == await tables.rows("staging") == []
        assert await ledger.sweep(1) == 0


async def test_a_ledger_whose_committed_bytes_are_lost_says_so_and_starts_no_more(
    tmp_path: Path, reader: CassandraStorage, tables: Tables, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of ours deletes them; should anything, nobody may go on as if the batch had never been."""
    from idtrace.errors import Reason, RefusedError

    reader._settler.cancel()  # type: ignore[union-attr]  # it would finish the batch before its bytes are lost
    await killed_writer(tmp_path, "swapped", NAMES[:3])
    (row,) = await tables.rows("staged")
    lose = "DELETE FROM {}.staged USING TIMESTAMP 2 WHERE ledger = %s AND batch_id = %s AND chunk = %s"
    await tables._bridge.run(lose.format(tables._keyspace), (row.ledger, row.batch_id, row.chunk))
    with pytest.raises(RefusedError, match="committed, and its bytes are gone") as caught:
        async with two_stores(tmp_path):
            pass
    assert (caught.value.reason, caught.value.field) == (Reason.INTERNAL, "storage.ledger")
    with pytest.raises(Exception, match="its bytes are gone"):
        await reader.commit([write_of(typed_record("88.118.8/B"), "key-b")])
    from registry.cassandra_settler import Settler

    settling = asyncio.create_task(Settler(reader._ledger, asyncio.Lock(), 0).run())
    said = ""

    def told() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return "the ledger cannot be settled" in said

    await until(told, 20)
    settling.cancel()
    await asyncio.gather(settling, return_exceptions=True)
    assert "critical" in said

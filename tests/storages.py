"""Every adapter of a registry's store, opened in a folder: what the suites of the contract run over.

An engine joins by one entry. Opening twice in one folder gives two stores on the same data where the engine keeps any
outside of the process.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from registry.cassandra_bridge import Bridge
from registry.cassandra_rules import change_bucket
from registry.cassandra_schema import fingerprint, migrate
from registry.cassandra_settings import CassandraSettings
from registry.storage import Storage
from registry.storage_cassandra import CassandraStorage
from registry.storage_sqlite import SqliteStorage
from tests.engines import EngineUnavailable, sharing
from tests.memory_storage import MemoryStorage

Opening = Callable[[Path], AbstractAsyncContextManager[Storage]]


@asynccontextmanager
async def memory(folder: Path) -> AsyncIterator[Storage]:
    """Fails at the end if its caller broke a rule. Its data live as long as the first that was opened in the folder."""
    first = _MEMORIES.get(folder)
    storage = first.another() if first else _MEMORIES.setdefault(folder, MemoryStorage())
    yield storage
    if first is None:
        del _MEMORIES[folder]
    assert storage.broken == []


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncIterator[Storage]:
    storage = SqliteStorage(folder / "registry.sqlite3")
    try:
        yield storage
    finally:
        await storage.close()


@asynccontextmanager
async def cassandra(folder: Path) -> AsyncIterator[Storage]:
    """A ledger of the folder's own, in a keyspace that all tests share; skipped where there is no Cassandra."""
    storage = CassandraStorage(await cassandra_settings(folder))
    await storage.open()
    try:
        yield storage
    finally:
        await storage.close()


async def cassandra_settings(folder: Path, **changes: object) -> CassandraSettings:
    """Of one node, with the tables made; the folder remembers its ledger."""
    try:
        cluster = await asyncio.to_thread(sharing.shared_cassandra, 1)
    except EngineUnavailable as reason:
        pytest.skip(f"not run: cassandra: {reason}")
    note = folder / "ledger"
    if not note.exists():
        note.write_text(f"test-{uuid.uuid4().hex}", "utf-8")
    table: dict[str, object] = {
        "contact_points": cluster.contact_points,
        "port": cluster.port,
        # A standing cluster outlives a change of the tables that is not released yet.
        "keyspace": f"contract_{fingerprint()}",
        "ledger": note.read_text("utf-8"),
        "replication": {"datacenter1": 1},
        "request_timeout_seconds": 10.0,  # a machine that runs all tests at once is slow, and no test is about this
    }
    settings = CassandraSettings.parse(table | changes, folder)
    place = (*settings.contact_points, settings.port, settings.keyspace)
    if place not in _MIGRATED:
        bridge = await Bridge.connect(settings)
        await migrate(bridge, settings, lambda _: None)
        await bridge.close()
        _MIGRATED.add(place)
    return settings


async def forget_changes(storage: Storage, through: int) -> None:
    """Let the store keep no change up to this one: what its limit, or time, does in the end."""
    match storage:
        case MemoryStorage():
            storage.changes_kept = await storage.sequence() - through
        case SqliteStorage():
            storage._writer.execute("DELETE FROM change WHERE seq <= ?", (through,))
        case CassandraStorage():
            assert storage._bridge is not None
            gone = "DELETE FROM change WHERE ledger = %s AND bucket = %s AND seq = %s"
            for seq in range(1, through + 1):
                await storage._bridge.run(gone, (storage._name, change_bucket(seq), seq))
        case _:
            raise AssertionError("an engine that this does not know")


_MEMORIES: Final[dict[Path, MemoryStorage]] = {}
_MIGRATED: Final[set[tuple[object, ...]]] = set()
STORAGES: Final[dict[str, Opening]] = {"memory": memory, "sqlite": sqlite, "cassandra": cassandra}

"""The three engines as the contract's program uses them: a place for an example's data, and handles on it.

A place is empty when it begins, any number of handles can be opened on it (each what a process of its own would hold),
and a handle's next change can be made to fail.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from registry.cassandra_bridge import Bridge
from registry.cassandra_settings import CassandraSettings
from registry.storage_cassandra import CassandraStorage
from registry.storage_sqlite import SqliteStorage
from tests.contract.faults import (
    BEFORE_THE_SWAP,
    REPAIRED,
    SILENCE_SECONDS,
    SINCE_THE_SWAP,
    FailingBridge,
    sqlite_fault,
)
from tests.engines import sharing
from tests.memory_storage import MemoryStorage, never, once
from tests.storages import cassandra_settings


class Place(Protocol):
    """One example's data in one engine; ``distant`` where answers take so long that several are waited for at once."""

    distant: bool = False

    async def open(self) -> Any:
        """One more handle."""
        ...

    def fail_next(self, handle: Any, number: int, *, persisted: bool) -> Callable[[], bool]:
        """Let the handle's next change raise; tells afterwards whether there was anything to strike, and stops it."""
        ...

    def annoy_next(self, handle: Any, number: int) -> None:
        """Let something go wrong in the handle's next change that the store gets over by itself."""
        del handle, number

    async def quiet(self, handle: Any) -> None:
        """Wait until a change whose caller has left is over, where ``reopen`` does not."""
        del handle

    async def end(self) -> None:
        """Close every handle, and forget the data where that costs nothing."""
        ...


class MemoryPlace(Place):
    def __init__(self, kind: type[MemoryStorage] = MemoryStorage) -> None:
        self.first = kind()

    async def open(self) -> MemoryStorage:
        return self.first.another()

    def fail_next(self, handle: MemoryStorage, number: int, *, persisted: bool) -> Callable[[], bool]:
        name = "fail_and_persist" if persisted else "fail_and_not_persist"
        hook = once()
        setattr(handle, name, hook)

        def fired() -> bool:
            setattr(handle, name, never)
            return not hook(())

        return fired

    async def quiet(self, handle: MemoryStorage) -> None:
        """Its commits run on threads that nothing but their task knows."""
        threads = [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__name__", "") == "to_thread"]
        await asyncio.gather(*threads)

    async def end(self) -> None:
        assert self.first.broken == []


class SqlitePlace(Place):
    def __init__(self, folder: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(dir=folder)
        self._handles: list[SqliteStorage] = []

    async def open(self) -> SqliteStorage:
        self._handles.append(SqliteStorage(Path(self._folder.name) / "registry.sqlite3"))
        return self._handles[-1]

    def fail_next(self, handle: SqliteStorage, number: int, *, persisted: bool) -> Callable[[], bool]:
        writer = handle._writer
        failing = sqlite_fault(writer, number, persisted=persisted)
        handle._writer = failing  # type: ignore[assignment]  # passes everything on that it does not strike

        def fired() -> bool:
            current: object = handle._writer
            if current is failing:  # not reopened since
                handle._writer = writer
            return failing.fired

        return fired

    async def end(self) -> None:
        for handle in self._handles:
            await handle.close()
        self._folder.cleanup()


class CassandraPlace(Place):
    distant = True

    def __init__(self, settings: CassandraSettings) -> None:
        self._settings = replace(settings, ledger=f"contract-{uuid.uuid4().hex}")
        self._handles: list[CassandraStorage] = []

    async def open(self) -> CassandraStorage:
        handle = CassandraStorage(self._settings)
        self._handles.append(handle)
        await handle.open()
        return handle

    def fail_next(self, handle: CassandraStorage, number: int, *, persisted: bool) -> Callable[[], bool]:
        points = SINCE_THE_SWAP if persisted else BEFORE_THE_SWAP
        point, bridge = points[number % len(points)], _bridge_of(handle)
        bridge.fail(point)
        usual = handle._ledger._settle_seconds
        if point.how.startswith("silence"):
            handle._ledger._settle_seconds = SILENCE_SECONDS

        def fired() -> bool:
            bridge.mend()
            handle._ledger._settle_seconds = usual
            return bridge.fired

        return fired

    def annoy_next(self, handle: CassandraStorage, number: int) -> None:
        _bridge_of(handle).fail(REPAIRED[number % len(REPAIRED)])

    async def end(self) -> None:
        for handle in self._handles:
            await handle.close()


def _bridge_of(handle: CassandraStorage) -> FailingBridge:
    bridge: Any = handle._bridge
    assert isinstance(bridge, FailingBridge)
    return bridge


@dataclass(frozen=True)
class Engine:
    """Its name with its version, and a new place in it."""

    name: str
    place: Callable[[], Place]


@asynccontextmanager
async def memory(kind: type[MemoryStorage] = MemoryStorage) -> AsyncIterator[Engine]:
    yield Engine("memory", lambda: MemoryPlace(kind))


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncIterator[Engine]:
    yield Engine(f"sqlite {sqlite3.sqlite_version}", lambda: SqlitePlace(folder))


@asynccontextmanager
async def cassandra(folder: Path, patch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    """One connection for all examples, a ledger for each; nobody waits for a writer to finish its own batch."""
    settings = await cassandra_settings(folder)
    bridge = await Bridge.connect(settings)
    await bridge.use(settings.keyspace)
    prepared: dict[str, Any] = {}

    class Shared:
        @staticmethod
        async def connect(_: CassandraSettings) -> FailingBridge:
            return FailingBridge(bridge, prepared)

    patch.setattr("registry.storage_cassandra.Bridge", Shared)
    patch.setattr("registry.cassandra_ledger.PATIENCE_SECONDS", 0.0)
    try:
        yield Engine(f"cassandra {sharing.shared_cassandra(1).version()}", lambda: CassandraPlace(settings))
    finally:
        await bridge.close()

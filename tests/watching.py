"""A client of RegistryService.Watch for tests: it keeps what it hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import grpc.aio

from idtrace.errors import IdtraceError
from idtrace.serving.errors import error_from_rpc
from idtrace.v1 import registry_pb2
from tests.nodes import TIMEOUT
from tests.registry_fixtures import until

Subject = tuple[str, int]


class Watcher:
    """Reads a stream until it ends; ``error`` is why it did."""

    def __init__(self, stub: Any, zone: str, after: int | None = None) -> None:
        self.call = stub.Watch(registry_pb2.WatchRequest(zone=zone, after=after))
        self.messages: list[registry_pb2.WatchResponse] = []
        self.times: list[float] = []
        self.error: IdtraceError | None = None
        self.code: grpc.StatusCode | None = None
        self._task = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def on(cls, stub: Any, zone: str, after: int | None = None) -> AsyncIterator[Self]:
        """Entered when the first message is there, or the stream has ended."""
        watcher = cls(stub, zone, after)
        try:
            await watcher.until(lambda: bool(watcher.messages))
            yield watcher
        finally:
            await watcher.leave()

    async def _read(self) -> None:
        try:
            async for message in self.call:
                self.messages.append(message)
                self.times.append(asyncio.get_running_loop().time())
        except grpc.aio.AioRpcError as error:
            self.code, self.error = error.code(), error_from_rpc(error)
        except asyncio.CancelledError:
            pass

    @property
    def sequence(self) -> int:
        """Up to where everything was told."""
        return self.messages[-1].sequence if self.messages else 0

    @property
    def heard(self) -> list[Subject]:
        """Identifiers and prefixes with their versions, in order."""
        return [(c.identifier or c.prefix, c.version) for message in self.messages for c in message.changes]

    async def until(self, holds: Callable[[], bool], seconds: float = TIMEOUT) -> None:
        """Wait until something holds or the stream has ended."""
        await until(lambda: holds() or self._task.done(), seconds)

    async def hears(self, *subjects: Subject, seconds: float = TIMEOUT) -> None:
        """Wait until all of these were told."""
        await self.until(lambda: set(subjects) <= set(self.heard), seconds)
        assert set(subjects) <= set(self.heard), (self.heard, self.error)

    async def ends(self, seconds: float = TIMEOUT) -> IdtraceError | None:
        async with asyncio.timeout(seconds):
            await self._task
        return self.error

    async def leave(self) -> None:
        self.call.cancel()
        await self._task

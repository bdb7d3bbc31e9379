"""The pieces of work that are timed: each does a number of operations against a running tree and checks the answers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import grpc.aio

from idtrace import wire
from idtrace.identifier import Identifier
from idtrace.record import SALT_BYTES, Permission, Record, RecordBody, RecordKind, Status, build_values
from idtrace.signature import Kind, Signer, sign
from idtrace.v1 import registry_pb2, registry_pb2_grpc, resolver_pb2, resolver_pb2_grpc

BATCH: Final = 2_000
RESOLVE_BATCH: Final = 256
# Calls in flight of the single-call works: enough to keep one Python server busy, few enough not to queue for long.
CONCURRENCY: Final = 64
TIMEOUT_SECONDS: Final = 30.0
MESSAGE_BYTES_MAX: Final = 33_554_432


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one work: operations done and seconds taken."""

    count: int
    seconds: float

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.count / self.seconds


class Bench:
    """Clients of one registry and one resolver, and the keys to register with."""

    def __init__(self, registry: str, resolver: str, signer: Signer, prefix: str) -> None:
        options = (
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        )
        self._channels = [grpc.aio.insecure_channel(address, options=options) for address in (registry, resolver)]
        self.registry = registry_pb2_grpc.RegistryServiceStub(self._channels[0])
        self.resolver = resolver_pb2_grpc.ResolverServiceStub(self._channels[1])
        self._signer = signer
        self._prefix = prefix
        self._made = 0
        self.registered: list[str] = []

    async def close(self) -> None:
        """Close both channels."""
        for channel in self._channels:
            await channel.close()

    def requests(self, count: int) -> list[registry_pb2.RegisterRequest]:
        """Signed registrations of dose packages with four values each; made outside the timed part."""
        now = int(time.time())
        made = []
        for _ in range(count):
            self._made += 1
            text = f"{self._prefix}/BENCH-{os.getpid()}-{self._made:08d}"
            entries = [
                ("product", b"MMR vaccine, live", Permission.PUBLIC),
                ("lot", b"2026A01", Permission.PUBLIC),
                ("expiry", b"2028-05-31", Permission.PUBLIC),
                ("storage", b"2-8 CEL", Permission.PUBLIC),
            ]
            digests, values = build_values(entries, (os.urandom(SALT_BYTES) for _ in entries))
            identifier = Identifier.parse(text)
            body = RecordBody(identifier, 1, b"", RecordKind.ITEM, Status.ACTIVE, now, 3_600, None, digests)
            record = Record(sign(Kind.RECORD, body.payload(), self._signer), values)
            made.append(registry_pb2.RegisterRequest(idempotency_key=text[-40:], record=wire.record_to_pb(record)))
            self.registered.append(text)
        return made

    async def register_batches(self, requests: Sequence[registry_pb2.RegisterRequest]) -> Sample:
        """Batches of 2,000, two under way."""
        batches = [
            registry_pb2.RegisterBatchRequest(items=requests[start : start + BATCH])
            for start in range(0, len(requests), BATCH)
        ]

        async def one(batch: registry_pb2.RegisterBatchRequest) -> None:
            response = await self.registry.RegisterBatch(batch, timeout=TIMEOUT_SECONDS)
            _require(all(result.HasField("receipt") for result in response.results), "every item has a receipt")

        return await _timed(len(requests), [partial(one, batch) for batch in batches], 2)

    async def register_singles(self, requests: Sequence[registry_pb2.RegisterRequest]) -> Sample:
        """One record a call, 64 calls in flight: group commit decides the rate."""

        async def one(request: registry_pb2.RegisterRequest) -> None:
            response = await self.registry.Register(request, timeout=TIMEOUT_SECONDS)
            _require(bool(response.receipt.signed.payload), "there is a receipt")

        return await _timed(len(requests), [partial(one, request) for request in requests], CONCURRENCY)

    async def resolve_singles(self, identifiers: Sequence[str]) -> Sample:
        """One identifier a call, 64 calls in flight."""

        async def one(text: str) -> None:
            request = resolver_pb2.ResolveRequest(text=text)
            response = await self.resolver.Resolve(request, timeout=TIMEOUT_SECONDS)
            _require(response.verdict == resolver_pb2.VERDICT_FOUND, f"{text} is found: {response.detail}")

        return await _timed(len(identifiers), [partial(one, text) for text in identifiers], CONCURRENCY)

    async def resolve_batches(self, identifiers: Sequence[str]) -> Sample:
        """256 identifiers a call, two calls in flight."""

        async def one(texts: Sequence[str]) -> None:
            items = [resolver_pb2.ResolveRequest(text=text) for text in texts]
            request = resolver_pb2.ResolveBatchRequest(items=items)
            response = await self.resolver.ResolveBatch(request, timeout=TIMEOUT_SECONDS)
            verdicts = {result.response.verdict for result in response.results}
            _require(verdicts == {resolver_pb2.VERDICT_FOUND}, "every item is found")

        pieces = [identifiers[start : start + RESOLVE_BATCH] for start in range(0, len(identifiers), RESOLVE_BATCH)]
        return await _timed(len(identifiers), [partial(one, piece) for piece in pieces], 2)


async def _timed(count: int, calls: Sequence[Callable[[], Awaitable[Any]]], concurrency: int) -> Sample:
    waiting = iter(calls)

    async def worker() -> None:
        for call in waiting:
            await call()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(calls))):
            group.create_task(worker())
    return Sample(count, time.perf_counter() - started)


def _require(holds: bool, what: str) -> None:  # noqa: FBT001 - a condition
    if not holds:
        raise RuntimeError(f"the measurement is void: {what}, and it is not")

"""A registry that fails on command, on loopback: for the client's behaviour, which a sound node would never provoke."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_status import rpc_status

from idtrace import wire
from idtrace.errors import BusyError, IdtraceError, Reason, RefusedError
from idtrace.identifier import Identifier, Prefix
from idtrace.record import RecordBody
from idtrace.serving.errors import item_error, rich_status
from idtrace.signature import Kind, sign
from idtrace.statements import Denial, DenialReason, Receipt
from idtrace.v1 import record_pb2 as pb
from idtrace.v1 import registry_pb2
from tests.core_fixtures import signer

Fault = Callable[["FakeRegistry", Any, grpc.ServicerContext], Any]


class FakeRegistry:
    """Keeps the first record of each identifier; ``faults`` are used up one a call, None being a sound answer."""

    def __init__(self) -> None:
        self.faults: list[Fault | None] = []
        self.stored: dict[str, tuple[str, bytes]] = {}
        self.receipts: dict[str, pb.Receipt] = {}
        self.records: dict[str, pb.Record] = {}
        self.asked: list[str] = []
        self.denies = DenialReason.IDENTIFIER_ABSENT
        self.batches: list[int] = []
        self.refuse: Callable[[str], IdtraceError | None] = lambda _: None
        self.address = ""
        self._lock = threading.Lock()

    def answer(self, request: Any, context: grpc.ServicerContext) -> Any:
        """RegisterBatch."""
        with self._lock:
            self.batches.append(len(request.items))
            fault = self.faults.pop(0) if self.faults else None
        return fault(self, request, context) if fault else self.register(request)

    def get(self, request: Any, _: grpc.ServicerContext) -> Any:
        """Get: the record as it was registered, or a denial."""
        with self._lock:
            self.asked.append(request.identifier)
            held = self.records.get(request.identifier)
        if held is not None:
            return registry_pb2.RegistryServiceGetResponse(answer=pb.NodeAnswer(record=held))
        zone, at = Prefix.parse("88.118.8"), int(time.time())
        said = Denial(Identifier.parse(request.identifier), zone, self.denies, at, at + 60)
        denial = pb.Denial(signed=wire.signed_to_pb(sign(Kind.DENIAL, said.payload(), signer("node of 88.118.8"))))
        return registry_pb2.RegistryServiceGetResponse(answer=pb.NodeAnswer(denial=denial))

    def register(self, request: Any) -> Any:
        with self._lock:
            return registry_pb2.RegisterBatchResponse(results=[self._result(item) for item in request.items])

    def _result(self, item: Any) -> registry_pb2.RegisterBatchResult:
        record = wire.record_from_pb(item.record)
        body = RecordBody.parse(record.signed.payload)
        name = str(body.identifier)
        error = self.refuse(name)
        if error is None and item.idempotency_key not in self.receipts:
            if name in self.stored:
                error = RefusedError(Reason.IDENTIFIER_TAKEN, f"{name} is registered already")
            else:
                self.stored[name] = (item.idempotency_key, record.hash)
                self.records[name] = item.record
                said = Receipt(Prefix.parse("88.118.8"), body.identifier, 1, record.hash, int(time.time()))
                signed = sign(Kind.RECEIPT, said.payload(), signer("node of 88.118.8"))
                self.receipts[item.idempotency_key] = pb.Receipt(signed=wire.signed_to_pb(signed))
        if error is not None:
            code, reason, field, detail = item_error(error)
            parts = registry_pb2.ItemError(code=code, reason=reason, field=field, detail=detail)
            return registry_pb2.RegisterBatchResult(error=parts)
        return registry_pb2.RegisterBatchResult(receipt=self.receipts[item.idempotency_key])


def down(_: FakeRegistry, __: Any, context: grpc.ServicerContext) -> Any:
    """Nothing is stored, nobody answers."""
    context.abort(grpc.StatusCode.UNAVAILABLE, "going away")


def lost(fake: FakeRegistry, request: Any, context: grpc.ServicerContext) -> Any:
    """Everything is stored, and the answer is lost."""
    fake.register(request)
    context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")


def busy(_: FakeRegistry, __: Any, context: grpc.ServicerContext) -> Any:
    context.abort_with_status(rpc_status.to_status(rich_status(BusyError(Reason.OVERLOADED, "too many calls"))))


def refused(_: FakeRegistry, __: Any, context: grpc.ServicerContext) -> Any:
    error = RefusedError(Reason.PREFIX_NOT_ENABLED, "prefix 88.118.8 is disabled", field="items")
    context.abort_with_status(rpc_status.to_status(rich_status(error)))


def short(fake: FakeRegistry, request: Any, _: grpc.ServicerContext) -> Any:
    """One result too few."""
    return registry_pb2.RegisterBatchResponse(results=fake.register(request).results[:-1])


def swapped(fake: FakeRegistry, request: Any, _: grpc.ServicerContext) -> Any:
    """Each item gets another one's receipt."""
    results = fake.register(request).results
    return registry_pb2.RegisterBatchResponse(results=[*results[1:], results[0]])


@contextmanager
def fake_registry() -> Iterator[FakeRegistry]:
    """One that listens."""
    fake = FakeRegistry()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    batch, get = (
        grpc.unary_unary_rpc_method_handler(
            method, request_deserializer=asked.FromString, response_serializer=answered.SerializeToString
        )
        for method, asked, answered in (
            (fake.answer, registry_pb2.RegisterBatchRequest, registry_pb2.RegisterBatchResponse),
            (fake.get, registry_pb2.RegistryServiceGetRequest, registry_pb2.RegistryServiceGetResponse),
        )
    )
    methods = {"RegisterBatch": batch, "Get": get}
    service = grpc.method_handlers_generic_handler("idtrace.v1.RegistryService", methods)
    server.add_generic_rpc_handlers((service,))
    fake.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield fake
    finally:
        server.stop(None).wait()

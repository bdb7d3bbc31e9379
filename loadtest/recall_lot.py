"""A maker's lot as it lies in a registry: records under seals, cartons of two hundred doses with a logger in each."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import islice
from typing import Any, Final

from idtrace import wire
from idtrace.cli.drafts import idempotency_key, signed_record
from idtrace.cli.recall_draft import next_recalls
from idtrace.coldchain.profiles import BUILT_IN
from idtrace.delegation import Role
from idtrace.epcis.model import Action, Event, EventType, SensorElement, SensorMetadata, SensorReport
from idtrace.epcis.statement import event_body
from idtrace.epcis.uris import uri_of
from idtrace.epcis.write import event_bytes
from idtrace.identifier import Identifier, Prefix
from idtrace.party import PARTY_TYPE, Party, PartyRole, format_party, license_identifier
from idtrace.product import PRODUCT_TYPE, Product
from idtrace.recall import Recall, recalls_identifier
from idtrace.record import SALT_BYTES, Permission, Record, RecordBody, RecordKind, Status, build_values
from idtrace.seal import seal
from idtrace.signature import Kind, Signed, signed_hash
from idtrace.template import TEMPLATE_TYPE, Template
from idtrace.v1 import registry_pb2, registry_pb2_grpc
from loadtest.change_tree import TIMEOUT_SECONDS, ChangeTree

PARENT: Final = Prefix.parse("88")
MAKER: Final = Prefix.parse("88.8")
CLASS: Final = Identifier.parse("88.8/class/v1")
LOTS: Final = ("A1", "B2")
# One commissioning speaks of so many doses: what a line packs into one carton, in an event of some 6 KB.
MADE_AT_ONCE: Final = 200
SEALED_AT_ONCE: Final = 2_000
# Each has two hundred pointers to write, and a call may take half a minute.
MAKINGS_AT_ONCE: Final = 50
# Two batches under way: the node has work while its client signs and packs.
UNDER_WAY: Final = 2
HISTORY_SECONDS: Final = 7_200
READING_SECONDS: Final = 300
_YEAR: Final = 365 * 86_400


def dose(lot: str, number: int) -> str:
    """The identifier of a dose."""
    return f"{MAKER}/{lot}-{number:07d}"


class Maker:
    """Who has made the lots, at the tree's one registry."""

    def __init__(self, tree: ChangeTree, channel: Any) -> None:
        self._tree = tree
        self._registry = registry_pb2_grpc.RegistryServiceStub(channel)
        self._recalls: tuple[Record, RecordBody] | None = None
        self._begun = int(time.time()) - HISTORY_SECONDS

    async def papers(self) -> None:
        """Zones, licence and product."""
        await self._tree.add_zones([PARENT, MAKER])
        now = int(time.time())
        licence = Party(str(MAKER), "Maker", "疫苗厂", frozenset({PartyRole.MAKER}), (), now - _YEAR, now + _YEAR)
        product = Product(str(CLASS), "Vaccine", "疫苗", str(MAKER), 1, 0, BUILT_IN["2-8"])
        await self._register(PARENT, license_identifier(PARENT, MAKER), [(PARTY_TYPE, format_party(licence))])
        values = [(PRODUCT_TYPE, product.payload()), (TEMPLATE_TYPE, Template((), open=True).payload())]
        await self._register(MAKER, CLASS, values, RecordKind.CLASS)

    async def make(self, lot: str, count: int) -> None:
        """Register so many doses and report their making."""
        await self._sealed(self._doses(lot, count))
        await self._sealed(self._makings(lot, count, self._begun), MAKINGS_AT_ONCE)

    async def measured(self, lot: str, count: int) -> None:
        """Report what the logger in each carton has measured until now."""
        await self._sealed(self._readings(lot, count, self._begun), MAKINGS_AT_ONCE)

    async def recall(self, recalls: Sequence[Recall]) -> float:
        """Publish the zone's recalls; when it was durable, monotonic s."""
        identifier = recalls_identifier(MAKER)
        salts = [os.urandom(SALT_BYTES) for _ in recalls]
        body, values = next_recalls(identifier, self._recalls, recalls, salts, int(time.time()))
        record = signed_record(body, values, self._tree.zones[MAKER].keys[Role.RECORD])
        parts: dict[str, Any] = {"idempotency_key": idempotency_key(record.signed.payload)}
        parts["record"] = wire.record_to_pb(record)
        if self._recalls is None:
            await self._registry.Register(registry_pb2.RegisterRequest(**parts), timeout=TIMEOUT_SECONDS)
        else:
            await self._registry.Update(registry_pb2.UpdateRequest(**parts), timeout=TIMEOUT_SECONDS)
        told = time.monotonic()
        self._recalls = record, body
        return told

    async def _register(
        self,
        zone: Prefix,
        identifier: Identifier,
        told: Sequence[tuple[str, bytes]],
        kind: RecordKind = RecordKind.ITEM,
    ) -> None:
        entries = [(type_, data, Permission.PUBLIC) for type_, data in told]
        digests, values = build_values(entries, (os.urandom(SALT_BYTES) for _ in entries))
        body = RecordBody(identifier, 1, b"", kind, Status.ACTIVE, int(time.time()), 3_600, None, digests)
        record = signed_record(body, values, self._tree.zones[zone].keys[Role.RECORD])
        request = registry_pb2.RegisterRequest(
            idempotency_key=idempotency_key(record.signed.payload), record=wire.record_to_pb(record)
        )
        await self._registry.Register(request, timeout=TIMEOUT_SECONDS)

    def _doses(self, lot: str, count: int) -> Iterator[registry_pb2.SealedItem]:
        at = int(time.time())
        for number in range(count):
            identifier = Identifier.parse(dose(lot, number))
            body = RecordBody(identifier, 1, b"", RecordKind.ITEM, Status.ACTIVE, at, 3_600, CLASS, ())
            yield registry_pb2.SealedItem(payload=body.payload())

    def _makings(self, lot: str, count: int, begun: int) -> Iterator[registry_pb2.SealedItem]:
        expires = time.strftime("%Y-%m-%d", time.gmtime(begun + _YEAR))
        ilmd = {"cbvmda:lotNumber": lot, "cbvmda:itemExpirationDate": expires}
        for first, epcs in _cartons(lot, count):
            made = Event(
                EventType.OBJECT, Action.ADD, begun * 1000 + first, 480, epcs=epcs, biz_step="commissioning",
                disposition="active", ilmd=ilmd,
            )  # fmt: skip
            yield _event_item(made)

    def _readings(self, lot: str, count: int, begun: int) -> Iterator[registry_pb2.SealedItem]:
        now = int(time.time())
        times = range(now, begun - READING_SECONDS, -READING_SECONDS)
        for first, epcs in _cartons(lot, count):
            device = f"urn:logger:{lot}:{first}"
            reports = tuple(
                SensorReport("Temperature", time_ms=at * 1000, device_id=device, value=Decimal(4 + n % 3), uom="CEL")
                for n, at in enumerate(times)
            )
            element = SensorElement(SensorMetadata(), reports)
            told = Event(
                EventType.OBJECT, Action.OBSERVE, now * 1000, 480, epcs=epcs, biz_step="sensor_reporting",
                sensors=(element,),
            )  # fmt: skip
            yield _event_item(told)

    async def _sealed(self, items: Iterable[registry_pb2.SealedItem], size: int = SEALED_AT_ONCE) -> None:
        """Send them in batches under seals.

        Raises:
            RuntimeError: one is refused, and then nothing that is measured means anything.
        """
        signer = self._tree.zones[MAKER].keys[Role.RECORD]
        waiting = iter(items)

        async def worker() -> None:
            while batch := list(islice(waiting, size)):
                hashes = [signed_hash(Kind.RECORD, item.payload) for item in batch]
                signed = seal(hashes, MAKER, signer, issued_at=int(time.time()))[0].seal
                request = registry_pb2.RegisterSealedRequest(
                    idempotency_key=os.urandom(16).hex(), seal=wire.signed_to_pb(signed), items=batch
                )
                response = await self._registry.RegisterSealed(request, timeout=TIMEOUT_SECONDS)
                refused = [result.error.detail for result in response.results if result.HasField("error")]
                if refused:
                    raise RuntimeError(f"the measurement is void: {refused[0]}")

        async with asyncio.TaskGroup() as group:
            for _ in range(UNDER_WAY):
                group.create_task(worker())


def _cartons(lot: str, count: int) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The first number of each carton, and the URIs of the doses in it."""
    for first in range(0, count, MADE_AT_ONCE):
        yield first, tuple(uri_of(dose(lot, number)) for number in range(first, min(count, first + MADE_AT_ONCE)))


def _event_item(event: Event) -> registry_pb2.SealedItem:
    body, values = event_body(MAKER, event_bytes(event), issued_at=int(time.time()))
    unsigned = Record(Signed(Kind.RECORD.payload_type, body.payload(), ()), values)
    return registry_pb2.SealedItem(payload=body.payload(), values=wire.record_to_pb(unsigned).values)

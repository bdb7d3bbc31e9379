"""Events as their parties send them, and the licences that let them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from idtrace import wire
from idtrace.delegation import Role
from idtrace.epcis.model import Event
from idtrace.epcis.parse import read_document
from idtrace.epcis.statement import event_body
from idtrace.epcis.write import event_bytes
from idtrace.identifier import Identifier, Prefix
from idtrace.party import PARTY_TYPE, Location, LocationKind, Party, PartyRole, format_party, license_identifier
from idtrace.record import Permission, Record, RecordBody, RecordKind, Status, build_values
from idtrace.seal import seal
from idtrace.signature import Kind, Signer, sign
from idtrace.v1 import capture_pb2, registry_pb2
from tests.core_fixtures import signer
from tests.nodes import key_name
from tests.unit.epcis.events import plain, to_bytes

# One event that the JSON ones of these tests are not.
XML = b"""<?xml version="1.0" encoding="UTF-8"?>
<epcis:EPCISDocument xmlns:epcis="urn:epcglobal:epcis:xsd:2" schemaVersion="2.0" creationDate="2026-07-22T10:31:00Z">
<EPCISBody><EventList><ObjectEvent><eventTime>2026-07-22T10:30:00Z</eventTime>
<eventTimeZoneOffset>+08:00</eventTimeZoneOffset><epcList><epc>urn:epc:id:sgtin:4012345.011111.9</epc></epcList>
<action>OBSERVE</action><bizStep>storing</bizStep></ObjectEvent></EventList></EPCISBody></epcis:EPCISDocument>"""
ROLLBACK, PROCEED = capture_pb2.ERROR_BEHAVIOUR_ROLLBACK, capture_pb2.ERROR_BEHAVIOUR_PROCEED


def event_of(fields: dict[str, Any]) -> Event:
    (event,) = read_document(to_bytes(fields)).items
    assert isinstance(event, Event), event
    return event


def bytes_of(fields: dict[str, Any]) -> bytes:
    return event_bytes(event_of(fields))


def observed(number: int, **fields: Any) -> dict[str, Any]:
    """One of many events that differ."""
    thing = {"epcList": [f"idtrace:88.118.8/SN-{number}"], "action": "OBSERVE", "bizStep": "inspecting"}
    return plain("ObjectEvent") | thing | fields


def owner(party: str) -> Signer:
    return signer(key_name(Role.RECORD, party))


def event_record(party: str, data: bytes, *, by: Signer | None = None, issued_at: int | None = None) -> Record:
    """The record of an event as its party signs it."""
    at = int(time.time()) if issued_at is None else issued_at
    body, values = event_body(Prefix.parse(party), data, issued_at=at)
    return Record(sign(Kind.RECORD, body.payload(), by or owner(party)), values)


def signed_request(records: Sequence[Record], behaviour: Any = ROLLBACK, **fields: Any) -> capture_pb2.CaptureRequest:
    signed = capture_pb2.SignedEvents(records=[wire.record_to_pb(one) for one in records])
    return capture_pb2.CaptureRequest(signed=signed, error_behaviour=behaviour, **fields)


def sealed_request(
    party: str, records: Sequence[Record], key: str = "sealed-events", behaviour: Any = ROLLBACK
) -> capture_pb2.CaptureRequest:
    """The same records under one seal by their party."""
    places = seal([one.hash for one in records], Prefix.parse(party), owner(party), issued_at=int(time.time()))
    items = [
        registry_pb2.SealedItem(payload=one.signed.payload, values=wire.record_to_pb(one).values) for one in records
    ]
    sealed = capture_pb2.SealedEvents(idempotency_key=key, seal=wire.signed_to_pb(places[0].seal), items=items)
    return capture_pb2.CaptureRequest(sealed=sealed, error_behaviour=behaviour)


def a_party(prefix: str = "88.118.8", *roles: PartyRole, **changes: Any) -> Party:
    fields: dict[str, Any] = {
        "prefix": prefix,
        "name_en": "Maker",
        "name_zh": "疫苗厂",
        "roles": frozenset(roles or (PartyRole.MAKER,)),
        "locations": (),
        "valid_from": 1_600_000_000,
        "valid_until": 2_000_000_000,
    }
    return Party(**(fields | changes))


def a_place(uri: str, kind: Any = "site", **at: Any) -> Location:
    return Location(uri, LocationKind(kind), **at)


def license_record(
    parent: str, party: Party, *, previous: Record | None = None, status: Status = Status.ACTIVE
) -> Record:
    digests, values = build_values([(PARTY_TYPE, format_party(party), Permission.PUBLIC)], [bytes(16)])
    body = RecordBody(
        identifier=license_identifier(Prefix.parse(parent), Prefix.parse(party.prefix)),
        version=RecordBody.parse(previous.signed.payload).version + 1 if previous else 1,
        previous=previous.hash if previous else b"",
        kind=RecordKind.ITEM,
        status=status,
        issued_at=int(time.time()),
        ttl_seconds=60,
        class_id=None,
        values=digests,
    )
    return Record(sign(Kind.RECORD, body.payload(), owner(parent)), values)


def identifier_of(record: Record) -> Identifier:
    return RecordBody.parse(record.signed.payload).identifier

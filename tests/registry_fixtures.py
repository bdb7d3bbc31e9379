"""Things that a registry's cores and stores take, made from the signed things of tests/core_fixtures.py."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from idtrace import wire
from idtrace.chain import Link
from idtrace.delegation import Delegation, Role
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Permission, Record, RecordBody, RecordKind, Status, build_values
from idtrace.signature import Kind, Signed, sign
from idtrace.statements import PrefixStatus, Receipt
from idtrace.template import TEMPLATE_TYPE, FieldType, Template, TemplateField
from registry.admission import ClassRecord, Intent, Proposal
from registry.authority import Authority, Child
from registry.storage import Claim, Head, Write
from tests.core_fixtures import (
    NOW,
    ZONE,
    anchor,
    delegate,
    delegation,
    links,
    salts,
    signed_record,
    signer,
    with_signature,
)

CLASS: Any = {"kind": RecordKind.CLASS}
ENDED: Any = {"kind": RecordKind.TOMBSTONE, "status": Status.RETIRED}


def body_of(record: Record) -> RecordBody:
    return RecordBody.parse(record.signed.payload)


def typed_record(
    name: str,
    values: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    *,
    previous: Record | None = None,
    previous_hash: bytes = b"",
    by: str = "",
    **changes: Any,
) -> Record:
    """A record with values of these types; the version after ``previous``. ``changes`` are fields of its body."""
    identifier = Identifier.parse(name)
    pairs = values.items() if isinstance(values, Mapping) else values
    digests, shown = build_values([(n, text.encode(), Permission.PUBLIC) for n, text in pairs], salts())
    fields: dict[str, Any] = {
        "version": body_of(previous).version + 1 if previous else 1,
        "previous": previous.hash if previous else previous_hash,
        "kind": RecordKind.ITEM,
        "status": Status.ACTIVE,
        "issued_at": NOW - 50,
        "ttl_seconds": 60,
        "class_id": None,
    }
    body = RecordBody(identifier=identifier, values=digests, **{**fields, **changes})
    return signed_record(body.payload(), shown, by or f"{Role.RECORD} of {identifier.prefix}")


def text_field(name: str, *, required: bool = False, unique: bool = False) -> TemplateField:
    return TemplateField(name, FieldType.TEXT, required=required, unique=unique)


def class_record(name: str, *fields: TemplateField, is_open: bool = False, **changes: Any) -> Record:
    """A class whose template has these fields."""
    template = Template(fields, open=is_open).payload().decode()
    return typed_record(name, {TEMPLATE_TYPE: template}, **{**CLASS, **changes})


def stored_classes(*records: Record) -> dict[Identifier, ClassRecord]:
    return {body_of(record).identifier: ClassRecord(record, body_of(record)) for record in records}


def proposal(record: Record, intent: Intent | None = None, key: str = "key-00001", zone: str = ZONE) -> Proposal:
    """As intake makes it; the intent that fits the record unless one is given."""
    body = body_of(record)
    fitting = Intent.REGISTER if body.version == 1 else Intent.UPDATE
    if body.kind is RecordKind.TOMBSTONE:
        fitting = Intent.RETIRE
    wanted = intent or fitting
    request_hash = hashlib.sha256(wanted.encode() + b"\0" + wire.record_to_bytes(record)).digest()
    return Proposal(wanted, zone, key, request_hash, record, body)


def head_of(record: Record) -> Head:
    body = body_of(record)
    return Head(body.version, record.hash, body.kind, body.status, body.issued_at)


def write_of(
    record: Record, key: str = "key-00001", *, zone: str = ZONE, claims: tuple[Claim, ...] = (), request: bytes = b""
) -> Write:
    """What a sequencer would commit for a record."""
    head = head_of(record)
    identifier = body_of(record).identifier
    receipt = Receipt(Prefix.parse(zone), identifier, head.version, head.record_hash, NOW)
    return Write(
        identifier=str(identifier),
        expected=head.version - 1,
        head=head,
        record=wire.record_to_bytes(record),
        zone=zone,
        idempotency_key=key,
        request_hash=hashlib.sha256(request or wire.record_to_bytes(record)).digest(),
        receipt=wire.signed_to_bytes(sign(Kind.RECEIPT, receipt.payload(), signer(f"{Role.NODE} of {zone}"))),
        claims=claims,
    )


def authority_for(*zones: str) -> Authority:
    """An authority whose own zones have the sound chains of core_fixtures."""
    authority = Authority(anchor(), frozenset(Prefix.parse(zone) for zone in zones))
    for zone in zones:
        authority.adopt(Prefix.parse(zone), tuple(Link.read(signed) for signed in links(zone)))
    return authority


def hand_out(authority: Authority, body: Delegation, status: PrefixStatus = PrefixStatus.ENABLED) -> Signed:
    """Put a signed delegation among the children, as after check and store."""
    signed = delegate(body)
    authority.hand_out(Child(Link.read(signed), status))
    return signed


def hosted(zone: str, **changes: Any) -> Delegation:
    """A delegation of a zone whose records stay with its parent's node."""
    return delegation(zone, hosted=True, **changes)


def mangled(signed: Signed) -> Signed:
    """One bit of the first signature flipped."""
    raw = signed.signatures[0].signature
    return with_signature(signed, bytes([*raw[:-1], raw[-1] ^ 1]))


async def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something holds, and fail after so many seconds."""
    async with asyncio.timeout(seconds):
        while True:
            if holds():
                return
            await asyncio.sleep(0.005)

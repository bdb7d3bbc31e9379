"""May this record version be committed? Pure: what is stored comes in as values, the decision goes out.

The signature over the exact bytes has been checked before (``registry/intake.py``). Here, in this order:

1. a repeated idempotency key gives the receipt that it gave before, or is refused where the request differs;
2. the call fits the record: Register brings version 1, Update a later one, Retire a tombstone;
3. the identifier is free, or lives on under the same kind; a tombstone is final;
4. version = current + 1, and ``previous`` is the hash of the current version;
5. the time is plausible: not in the future, not older than the version before, not older than a week;
6. every value is there, so that the zone's node can serve what it commits to; one that the node holds already need not
   be sent again (:func:`complete`), since even its owner cannot read back a restricted value;
7. the record is small enough for every resolver, and its body for an entry of the log where there is one;
8. the record keeps the rules of its published class, and a class record's own template is sound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from idtrace.canonical import BODY_BYTES_MAX
from idtrace.chain import CLOCK_SKEW_SECONDS
from idtrace.epcis.model import Event
from idtrace.errors import InputError, Reason, RefusedError
from idtrace.identifier import Identifier
from idtrace.record import Record, RecordBody, RecordKind, Status
from idtrace.template import CLASS_DEPTH_MAX, TEMPLATE_TYPE, Template
from registry.storage import Claim, Earlier, Head, Mention, SealedIn

# A resumed bulk load may bring last week's records; older ones would only be back-dated.
AGE_SECONDS_MAX: Final = 7 * 86_400
# Resolvers take in 262,144 bytes an answer (resolver/upstream.py): half for the values, a quarter each for the body and
# the chain. More would get a receipt and be refused by every resolver for ever. Only values count, so that a recall
# (which carries them over) always fits where the version before it did.
VALUES_BYTES_MAX: Final = 131_072
# Salt, index and lengths of a value on the wire.
VALUE_FRAME_BYTES: Final = 32


class Intent(StrEnum):
    """The call that brought the record."""

    REGISTER = "register"
    UPDATE = "update"
    RETIRE = "retire"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A record whose signature and values have been checked, on its way to admission."""

    intent: Intent
    zone: str
    idempotency_key: str
    request_hash: bytes
    record: Record
    body: RecordBody
    sealed: SealedIn | None = None
    mentions: tuple[Mention, ...] = ()  # what the event says something of, where the record is an event's
    event: Event | None = None  # the event itself, where the record is one's


@dataclass(frozen=True, slots=True)
class Admitted:
    """It may be committed, together with these claims."""

    claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True)
class Repeated:
    """It was committed before; this is the receipt of then."""

    receipt: bytes


@dataclass(frozen=True, slots=True)
class ClassRecord:
    """A stored class record, parsed."""

    record: Record
    body: RecordBody


def admit(
    proposal: Proposal,
    *,
    head: Head | None,
    earlier: Earlier | None,
    classes: Mapping[Identifier, ClassRecord],
    now: int,
    body_bytes_max: int = BODY_BYTES_MAX,
) -> Admitted | Repeated:
    """Decide. ``classes`` holds the class that the record names and the classes above it, as far as they exist.

    ``body_bytes_max`` is less where the body has to fit a log entry too.

    Raises:
        RefusedError, InputError: with the reason of the first rule that is broken.
    """
    # 1. the same request again
    if earlier is not None:
        return repeated(proposal.request_hash, earlier)
    body = proposal.body
    # 2. the call fits the record
    _check_intent(proposal.intent, body)
    # 3. the identifier is free or lives on
    _check_life(body, head)
    # 4. the version follows the current one
    _check_succession(body, head)
    # 5. plausible time
    oldest = max(head.issued_at if head else 0, now - AGE_SECONDS_MAX)
    if not oldest <= body.issued_at <= now + CLOCK_SKEW_SECONDS:
        raise RefusedError(
            Reason.ISSUED_AT_IMPLAUSIBLE,
            f"issued_at {body.issued_at} is not within {oldest} and {now + CLOCK_SKEW_SECONDS}",
            field="record.issued_at",
        )
    # 6. complete
    if len(proposal.record.values) != len(body.values):
        raise RefusedError(Reason.VALUE_MISSING, "a registration brings every value", field="record.values")
    # 7. small enough for every resolver, and for the log
    if len(proposal.record.signed.payload) > body_bytes_max:
        rule = f"a body has at most {body_bytes_max} bytes, this one {len(proposal.record.signed.payload)}"
        raise InputError(Reason.FIELD_TOO_LARGE, rule, field="record.signed.payload")
    size = sum(len(value.data) + VALUE_FRAME_BYTES for value in proposal.record.values)
    if size > VALUES_BYTES_MAX:
        rule = f"the values of a record have at most {VALUES_BYTES_MAX} bytes together, these have {size}"
        raise InputError(Reason.FIELD_TOO_LARGE, rule, field="record.values")
    # 8. in keeping with its class
    return Admitted(_check_class(proposal, classes))


def complete(proposal: Proposal, current: Record) -> Proposal:
    """The proposal with those values of the current version that it signs again, digest and all, but does not send."""
    sent = {value.index: value for value in proposal.record.values}
    held = {value.index: value for value in current.values}
    values = (
        sent[digest.index] if digest.index in sent else held[digest.index]
        for digest in proposal.body.values
        if digest.index in sent or (digest.index in held and held[digest.index].digest() == digest.digest)
    )
    return replace(proposal, record=replace(proposal.record, values=tuple(values)))


def repeated(request_hash: bytes, earlier: Earlier) -> Repeated:
    """The earlier receipt, if it answered the same request.

    Raises:
        RefusedError: IDEMPOTENCY_KEY_REUSED.
    """
    if earlier.request_hash != request_hash:
        raise RefusedError(
            Reason.IDEMPOTENCY_KEY_REUSED, "this key was used for another request", field="idempotency_key"
        )
    return Repeated(earlier.receipt)


def _check_intent(intent: Intent, body: RecordBody) -> None:
    ends = body.kind is RecordKind.TOMBSTONE
    follows = body.version > 1
    if ends != (intent is Intent.RETIRE) or (not ends and follows != (intent is Intent.UPDATE)):
        rule = "Register brings version 1, Update a later one, Retire a tombstone"
        raise InputError(Reason.FIELD_MALFORMED, rule, field="record.version")


def _check_life(body: RecordBody, head: Head | None) -> None:
    if head is None:
        if body.version > 1:
            raise RefusedError(
                Reason.IDENTIFIER_UNKNOWN, f"{body.identifier} is not registered", field="record.identifier"
            )
        return
    if head.kind is RecordKind.TOMBSTONE:
        detail = f"{body.identifier} has ended and is never used again"
        raise RefusedError(Reason.IDENTIFIER_RETIRED, detail, field="record.identifier")
    if body.version == 1:
        raise RefusedError(
            Reason.IDENTIFIER_TAKEN, f"{body.identifier} is registered already", field="record.identifier"
        )
    if body.kind not in (head.kind, RecordKind.TOMBSTONE):
        raise RefusedError(Reason.KIND_CHANGED, f"a {head.kind} stays a {head.kind}", field="record.kind")


def _check_succession(body: RecordBody, head: Head | None) -> None:
    if head is None:
        return
    if body.version != head.version + 1:
        detail = f"version {body.version} does not follow version {head.version}"
        raise RefusedError(Reason.VERSION_GAP, detail, field="record.version")
    if body.previous != head.record_hash:
        detail = f"previous is not the hash of version {head.version}"
        raise RefusedError(Reason.PREVIOUS_HASH_MISMATCH, detail, field="record.previous")


def class_lineage(first: Identifier | None, classes: Mapping[Identifier, ClassRecord]) -> tuple[ClassRecord, ...]:
    """The class named ``first`` and those above it, nearest first, all published and in one zone's hands.

    Raises:
        RefusedError: CLASS_UNKNOWN or CLASS_NOT_PUBLISHED.
    """
    lineage: list[ClassRecord] = []
    wanted = first
    while wanted is not None:
        found = classes.get(wanted)
        if found is None or found.body.kind is not RecordKind.CLASS:
            raise RefusedError(Reason.CLASS_UNKNOWN, f"{wanted} is not a class in this zone", field="record.class")
        if found.body.status is not Status.ACTIVE:
            raise RefusedError(
                Reason.CLASS_NOT_PUBLISHED, f"class {wanted} is {found.body.status}", field="record.class"
            )
        lineage.append(found)
        if len(lineage) > CLASS_DEPTH_MAX:
            raise RefusedError(
                Reason.CLASS_UNKNOWN, f"classes inherit at most {CLASS_DEPTH_MAX} deep", field="record.class"
            )
        wanted = found.body.class_id
    return tuple(lineage)


def _template_of(record: Record, body: RecordBody) -> Template:
    """The template value of a class record.

    Raises:
        InputError: TEMPLATE_MALFORMED where there is not exactly one, or what its parser says.
    """
    shown = {value.index: value.data for value in record.values}
    data = [shown[digest.index] for digest in body.values if digest.type == TEMPLATE_TYPE]
    if len(data) != 1:
        raise InputError(
            Reason.TEMPLATE_MALFORMED, f"a class has one value of type {TEMPLATE_TYPE}", field="record.values"
        )
    return Template.parse(data[0], field="template")


def _check_class(proposal: Proposal, classes: Mapping[Identifier, ClassRecord]) -> tuple[Claim, ...]:
    body, record = proposal.body, proposal.record
    lineage = () if body.kind is RecordKind.TOMBSTONE else class_lineage(body.class_id, classes)
    merged: Template | None = None
    for above in reversed(lineage):
        own = _template_of(above.record, above.body)
        merged = own if merged is None else merged.extend(own)
    if body.kind is RecordKind.CLASS:
        if len(lineage) == CLASS_DEPTH_MAX or any(above.body.identifier == body.identifier for above in lineage):
            rule = f"a class inherits from at most {CLASS_DEPTH_MAX - 1} others and not from itself"
            raise RefusedError(Reason.CLASS_UNKNOWN, rule, field="record.class")
        own = _template_of(record, body)
        if merged is not None:
            merged.extend(own)
        return ()
    if merged is None:
        return ()
    types = {digest.index: digest.type for digest in body.values}
    unique = merged.check([(types[value.index], value.data) for value in record.values])
    return tuple(Claim(_claim_class(name, lineage), name, hashlib.sha256(data).digest()) for name, data in unique)


def _claim_class(name: str, lineage: Sequence[ClassRecord]) -> str:
    """The class that declares a unique field: its items and those of every class below it share the uniqueness."""
    for above in lineage:
        if any(field.name == name for field in _template_of(above.record, above.body).fields):
            return str(above.body.identifier)
    raise AssertionError("a checked field belongs to a class")

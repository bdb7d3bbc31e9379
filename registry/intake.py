"""From what came over the wire to a proposal: whose zone, whose signature, which body.

The owner's signature over the exact bytes is checked before anything of the body is believed; the one field that is
read earlier, the identifier, only finds the zone whose keys decide, and is compared again after the check.

A sealed batch (:func:`open_sealed`) is one thing until its seal has been found to be over all that was sent; from there
on each of its records is taken, or refused, alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from idtrace.chain import Context, TrustedChain
from idtrace.errors import InputError, Reason, RefusedError, VerificationError
from idtrace.identifier import Prefix
from idtrace.merkle import BatchTree, hash_leaf
from idtrace.record import Record, RecordBody, Sealed, peek_identifier
from idtrace.scan import check_scheme
from idtrace.seal import Seal
from idtrace.signature import SIGNATURES_MAX, Kind, Signed, signed_hash
from idtrace.statements import PrefixStatus
from registry.admission import Intent, Proposal
from registry.authority import Authority
from registry.event_rules import mentions_of, read_event
from registry.storage import SealedIn

_KEY = re.compile(r"[!-~]{8,64}\Z")
# Printable ASCII of a UUID's length and more; short keys collide between a caller's own processes.
KEY_RULE: Final = "8 to 64 printable ASCII characters without spaces"


def take(
    intent: Intent,
    idempotency_key: str,
    record: Record,
    *,
    hashed: bytes,
    authority: Authority,
    now: int,
) -> Proposal:
    """Check one record and make it a proposal. ``hashed`` is :func:`request_hash` of what was sent.

    Raises:
        InputError: malformed.
        VerificationError: not signed by a record key of the zone, or a value that is not the signed one.
        RefusedError: NOT_AUTHORITATIVE, ZONE_DELEGATED or PREFIX_NOT_ENABLED.
    """
    check_key(idempotency_key)
    if record.sealed is not None:  # the log holds a seal before its records, and only as one piece with them
        rule = "a record under a seal is registered with its batch (RegisterSealed)"
        raise InputError(Reason.FIELD_MALFORMED, rule, field="record.sealed")
    return _proposal(intent, idempotency_key, record, hashed=hashed, authority=authority, now=now)


def _proposal(
    intent: Intent,
    idempotency_key: str,
    record: Record,
    *,
    hashed: bytes,
    authority: Authority,
    now: int,
    sealed: SealedIn | None = None,
) -> Proposal:
    identifier = peek_identifier(record.signed.payload)
    zone = writable_zone(identifier.prefix, authority)
    context = Context.at(now, checks=SIGNATURES_MAX, memory=authority.memory)
    chain = authority.trusted(zone, Context.at(now))
    verified = chain.check_record(record, identifier, context)
    check_rules(verified.body, zone, authority)
    return _proposed(Proposal(intent, str(zone), idempotency_key, hashed, record, verified.body, sealed))


def _proposed(proposal: Proposal) -> Proposal:
    """The proposal with its event, where the record is one's, and with what that mentions.

    Raises:
        RefusedError, InputError: as :func:`registry.event_rules.read_event`.
    """
    event = read_event(proposal.record, proposal.body)
    if event is None:
        return proposal
    return replace(proposal, event=event, mentions=mentions_of(event, proposal.body))


def check_rules(body: RecordBody, zone: Prefix, authority: Authority) -> None:
    """Check a genuine body against the rules of its scheme, and that its class is one of its zone.

    Raises:
        InputError: what :func:`idtrace.scan.check_scheme` says.
        RefusedError: CLASS_UNKNOWN.
    """
    check_scheme(body.identifier, field="record.identifier")
    class_id = body.class_id
    if class_id is not None and authority.zone_of(class_id.prefix) != zone:
        detail = f"{class_id} is not a class in zone {zone}"
        raise RefusedError(Reason.CLASS_UNKNOWN, detail, field="record.class")


def request_hash(intent: Intent, message: bytes) -> bytes:
    """SHA-256, 32 bytes, over the call and the message as sent: whether two requests with one key are the same."""
    return hashlib.sha256(intent.encode() + b"\0" + message).digest()


def check_key(idempotency_key: str) -> None:
    """Require an idempotency key.

    Raises:
        InputError: FIELD_MISSING or FIELD_MALFORMED.
    """
    if not idempotency_key:
        raise InputError(Reason.FIELD_MISSING, f"a write has a key of {KEY_RULE}", field="idempotency_key")
    if _KEY.match(idempotency_key) is None:
        raise InputError(Reason.FIELD_MALFORMED, f"the key is not {KEY_RULE}", field="idempotency_key")


def writable_zone(prefix: Prefix, authority: Authority, *, field: str = "record.identifier") -> Prefix:
    """The zone of this node that takes writes for a prefix.

    Raises:
        RefusedError: NOT_AUTHORITATIVE, ZONE_DELEGATED (another node answers) or PREFIX_NOT_ENABLED.
    """
    zone = authority.zone_of(prefix)
    if zone is None:
        detail = f"this node does not answer for prefix {prefix}"
        raise RefusedError(Reason.NOT_AUTHORITATIVE, detail, field=field)
    if not authority.serves(zone):
        detail = f"zone {zone} is delegated to another node or revoked; register there"
        raise RefusedError(Reason.ZONE_DELEGATED, detail, field=field)
    child = authority.children.get(zone)
    if child is not None and child.status is not PrefixStatus.ENABLED:
        raise RefusedError(Reason.PREFIX_NOT_ENABLED, f"prefix {zone} is {child.status}", field=field)
    return zone


@dataclass(frozen=True, slots=True)
class Batch:
    """What was sent under one seal: who keyed it, the seal, and the record hash of every body, in the order sent."""

    idempotency_key: str
    seal: Signed
    hashes: tuple[bytes, ...]
    sent_hash: bytes

    @classmethod
    def of(cls, idempotency_key: str, seal: Signed, payloads: Sequence[bytes], seal_sent: bytes) -> Batch:
        """From the bodies and the seal as sent (domain form, and the message's bytes).

        Raises:
            InputError: FIELD_MISSING or FIELD_MALFORMED: the key.
        """
        check_key(idempotency_key)
        hashes = tuple(signed_hash(Kind.RECORD, payload) for payload in payloads)
        return cls(idempotency_key, seal, hashes, hashlib.sha256(seal_sent).digest())

    def item_key(self, position: int) -> str:
        """The idempotency key of one record; the space keeps it apart from all that callers may choose."""
        return f"{self.idempotency_key} {position}"

    def item_hash(self, item_sent: bytes) -> bytes:
        """The request hash of one record, of the item as sent: no other item, and none under another seal, has it."""
        return request_hash(Intent.REGISTER, b"sealed\0" + self.sent_hash + item_sent)


@dataclass(frozen=True, slots=True)
class OpenedBatch:
    """A batch whose seal is genuine and over these very records; where each of them stands."""

    batch: Batch
    zone: Prefix
    places: tuple[Sealed, ...]


def open_sealed(batch: Batch, *, authority: Authority, now: int) -> OpenedBatch:
    """Check the seal once, for a zone that takes writes here, and that the bodies as sent are what was sealed.

    Raises:
        InputError: the seal's body is malformed.
        VerificationError: not signed by a record key of the zone, dated in the future, or SEAL_PATH where number, order
            or content of the records is not what was sealed.
        RefusedError: NOT_AUTHORITATIVE, ZONE_DELEGATED or PREFIX_NOT_ENABLED.
    """
    said = Seal.parse(batch.seal.payload).zone  # believed once the keys of that very zone have signed it
    zone = writable_zone(said, authority, field="seal.zone")
    chain = authority.trusted(zone, Context.at(now))
    seal = chain.check_seal(batch.seal, Context.at(now, checks=SIGNATURES_MAX, memory=authority.memory))
    if seal.size != len(batch.hashes):
        detail = f"{seal.size} records were sealed, and {len(batch.hashes)} were sent"
        raise VerificationError(Reason.SEAL_PATH, detail, field="seal.size")
    tree = BatchTree([hash_leaf(one) for one in batch.hashes])
    if tree.root != seal.root:
        detail = "the records as sent, in this order, are not those that were sealed"
        raise VerificationError(Reason.SEAL_PATH, detail, field="seal.root")
    places = tuple(Sealed(batch.seal, position, path) for position, path in enumerate(tree.paths()))
    return OpenedBatch(batch, zone, places)


class Taking:
    """Takes records of an opened batch at one moment (s).

    What holds for all of them is asked once: which zone a prefix belongs to, and whether the seal still counts. Drop it
    before anything else runs: it does not see what changes afterwards.
    """

    __slots__ = ("_authority", "_context", "_genuine", "_now", "_opened", "_zone", "_zones")

    def __init__(self, opened: OpenedBatch, authority: Authority, now: int) -> None:
        self._opened = opened
        self._authority = authority
        self._now = now
        self._context = Context.at(now)
        self._zone = str(opened.zone)
        self._zones: dict[Prefix, Prefix] = {}
        self._genuine: TrustedChain | None = None  # the zone's chain, once the seal has been found to count

    def take(self, record: Record, item_hash: bytes) -> Proposal:
        """Check one record, which names its place, and make it a proposal.

        Raises:
            As :func:`take`; a record of another zone is not under a seal by its keys.
        """
        place, opened = record.sealed, self._opened
        assert place is not None, "it has been given its place"
        key = opened.batch.item_key(place.position)
        sealed = SealedIn(place, opened.batch.hashes)
        identifier = peek_identifier(record.signed.payload)
        if self._zone_of(identifier.prefix) != opened.zone or not self._stands(record, place):
            return _proposal(
                Intent.REGISTER, key, record, hashed=item_hash, authority=self._authority, now=self._now, sealed=sealed
            )
        body = self._chain().check_content(record, identifier, self._context).body
        check_rules(body, opened.zone, self._authority)
        return _proposed(Proposal(Intent.REGISTER, self._zone, key, item_hash, record, body, sealed))

    def _zone_of(self, prefix: Prefix) -> Prefix:
        zone = self._zones.get(prefix)
        if zone is None:
            zone = self._zones[prefix] = writable_zone(prefix, self._authority)
        return zone

    def _stands(self, record: Record, place: Sealed) -> bool:
        """Whether it is the record that was sealed at its place, of which the batch's tree shows the path."""
        signed, batch = record.signed, self._opened.batch
        return (
            place is self._opened.places[place.position]
            and not signed.signatures
            and signed.payload_type == Kind.RECORD.payload_type
            and signed_hash(Kind.RECORD, signed.payload) == batch.hashes[place.position]
        )

    def _chain(self) -> TrustedChain:
        if self._genuine is None:
            chain = self._authority.trusted(self._opened.zone, self._context)
            memory = self._authority.memory
            chain.check_seal(self._opened.batch.seal, Context.at(self._now, checks=SIGNATURES_MAX, memory=memory))
            self._genuine = chain
        return self._genuine


def take_sealed(opened: OpenedBatch, record: Record, item_hash: bytes, *, authority: Authority, now: int) -> Proposal:
    """Check one record of an opened batch, which names its place, and make it a proposal: see :class:`Taking`."""
    return Taking(opened, authority, now).take(record, item_hash)

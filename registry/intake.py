"""From what came over the wire to a proposal: whose zone, whose signature, which body.

The owner's signature over the exact bytes is checked before anything of the body is believed; the one field that is
read earlier, the identifier, only finds the zone whose keys decide, and is compared again after the check.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from idtrace.chain import Context
from idtrace.errors import InputError, Reason, RefusedError
from idtrace.identifier import Prefix
from idtrace.record import Record, peek_identifier
from idtrace.scan import check_scheme
from idtrace.signature import SIGNATURES_MAX
from idtrace.statements import PrefixStatus
from registry.admission import Intent, Proposal
from registry.authority import Authority

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
    identifier = peek_identifier(record.signed.payload)
    zone = writable_zone(identifier.prefix, authority)
    context = Context.at(now, checks=SIGNATURES_MAX)
    chain = authority.trusted(zone, Context.at(now))
    verified = chain.check_record(record, identifier, context)
    check_scheme(identifier, field="record.identifier")
    class_id = verified.body.class_id
    if class_id is not None and authority.zone_of(class_id.prefix) != zone:
        detail = f"{class_id} is not a class in zone {zone}"
        raise RefusedError(Reason.CLASS_UNKNOWN, detail, field="record.class")
    return Proposal(intent, str(zone), idempotency_key, hashed, record, verified.body)


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


def writable_zone(prefix: Prefix, authority: Authority) -> Prefix:
    """The zone of this node that takes writes for a prefix.

    Raises:
        RefusedError: NOT_AUTHORITATIVE, ZONE_DELEGATED (another node answers) or PREFIX_NOT_ENABLED.
    """
    zone = authority.zone_of(prefix)
    if zone is None:
        detail = f"this node does not answer for prefix {prefix}"
        raise RefusedError(Reason.NOT_AUTHORITATIVE, detail, field="record.identifier")
    if not authority.serves(zone):
        detail = f"zone {zone} is delegated to another node or revoked; register there"
        raise RefusedError(Reason.ZONE_DELEGATED, detail, field="record.identifier")
    child = authority.children.get(zone)
    if child is not None and child.status is not PrefixStatus.ENABLED:
        raise RefusedError(Reason.PREFIX_NOT_ENABLED, f"prefix {zone} is {child.status}", field="record.identifier")
    return zone

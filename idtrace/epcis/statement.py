"""An event as idtrace keeps it: a record whose identifier is the hash of the event's bytes.

The reporting party's zone holds it: ``88.118.8/event/<64 hex digits>``, kind item, version 1, never changed (an error
is declared by a later event). So an event is signed by the party's record key, logged, proven, served, cached, denied
and audited by the same rules as everything else, and the same bytes are the same event however often they are captured.

The bytes are the bare event, one JSON object with the ``@context`` that it needs, in RFC 8785 canonical form. They
stand in the values 1, 2, … of type ``epcis.event``, 4,096 bytes each, the last one shorter. The CBV 2.0 hash is an
alias and no part of this: two different events can share it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final

from idtrace.errors import InputError, Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.record import (
    TTL_SECONDS_MAX,
    VALUE_BYTES_MAX,
    Permission,
    RecordBody,
    RecordKind,
    Status,
    Value,
    build_values,
)

EVENT_TYPE: Final = "epcis.event"
EVENT_PATH: Final = "event/"
# 31 values: with their frames they stay below the 128 KiB that the values of a record may have together. A pallet lists
# 1,500 cartons in this; a day of one logger at 5 minutes takes a quarter of it.
EVENT_VALUES_MAX: Final = 31
EVENT_BYTES_MAX: Final = EVENT_VALUES_MAX * VALUE_BYTES_MAX
_SUFFIX = re.compile(r"event/[0-9a-f]{64}\Z")


def event_identifier(party: Prefix, event: bytes) -> Identifier:
    """The identifier of an event that this party reports: ``party/event/HEX``, SHA-256 over domain and bytes."""
    digest = hashlib.sha256(b"idtrace/event/v1\0" + event).hexdigest()
    return Identifier.parse(f"{party}/{EVENT_PATH}{digest}")


def is_event(identifier: Identifier) -> bool:
    """Whether the identifier is one that only an event's record may have."""
    return identifier.suffix.startswith(EVENT_PATH)


def require_event_identifier(identifier: Identifier, event: bytes, *, field: str = "record.identifier") -> None:
    """Require that the identifier is the one of these bytes.

    Raises:
        InputError: FIELD_MALFORMED.
    """
    if _SUFFIX.match(identifier.suffix) is None or event_identifier(identifier.prefix, event) != identifier:
        rule = "the identifier of an event is PARTY/event/ and the SHA-256 of its bytes in lower-case hex"
        raise InputError(Reason.FIELD_MALFORMED, rule, field=field)


def split(event: bytes) -> tuple[bytes, ...]:
    """The data of the values 1, 2, … that hold an event.

    Raises:
        InputError: FIELD_TOO_LARGE.
    """
    if len(event) > EVENT_BYTES_MAX:
        rule = f"an event has at most {EVENT_BYTES_MAX} bytes, this one {len(event)}: report it in parts"
        raise InputError(Reason.FIELD_TOO_LARGE, rule, field="event")
    return tuple(event[start : start + VALUE_BYTES_MAX] for start in range(0, len(event), VALUE_BYTES_MAX))


def salt(event: bytes, index: int) -> bytes:
    """Salt of a value of an event: no secret, since events are public; so the same event gives the same digests."""
    return hashlib.sha256(b"idtrace/event-salt/v1\0" + index.to_bytes(4, "big") + event).digest()[:16]


def join(values: Iterable[Value]) -> bytes:
    """The bytes of an event out of the values of its record, in their order."""
    return b"".join(value.data for value in values)


def event_body(party: Prefix, event: bytes, *, issued_at: int) -> tuple[RecordBody, tuple[Value, ...]]:
    """The body and the values of the record that keeps an event; the party's record key signs the body.

    Caches may keep it as long as anything: it never changes. ``issued_at`` is in s.

    Raises:
        InputError: FIELD_TOO_LARGE.
    """
    pieces = split(event)
    entries = [(EVENT_TYPE, piece, Permission.PUBLIC) for piece in pieces]
    digests, values = build_values(entries, (salt(event, index) for index in range(1, len(pieces) + 1)))
    body = RecordBody(
        identifier=event_identifier(party, event),
        version=1,
        previous=b"",
        kind=RecordKind.ITEM,
        status=Status.ACTIVE,
        issued_at=issued_at,
        ttl_seconds=TTL_SECONDS_MAX,
        class_id=None,
        values=digests,
    )
    return body, values

"""Records: one signed version of what an identifier means, and the values whose digests it carries.

A body (canonical JSON) holds the values' digests and not the values, so a resolver can withhold a value that a caller
may not read and the rest still verifies (selective disclosure). ``SHA-256("idtrace/value/v1" ‖ 0x00 ‖ salt ‖ data)``
with a 16-byte salt keeps a withheld value from being guessed. Everything that gives a value its meaning (index, type,
permission, and through the body version and time) is signed, which Handle records leave open.

Body fields: ``identifier``, ``version`` (from 1, +1 each), ``previous`` (record hash of version - 1, "" for 1),
``kind``, ``status``, ``issued_at`` (s), ``ttl_seconds``, ``class`` (identifier of the class record, "" for none),
``values`` (``index``, ``type``, ``permission``, ``digest``).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from idtrace import canonical
from idtrace.canonical import BODY_BYTES_MAX, Json
from idtrace.errors import InputError, Reason, VerificationError
from idtrace.identifier import Identifier, require_visible
from idtrace.signature import Kind, Signed, signed_hash

# Handle caps a relative TTL at two days; a longer one would outlive every recall that has to overtake it.
TTL_SECONDS_MAX: Final = 172_800
# 256 digests of ~140 bytes stay well under one body; the products in use hold about 60 values a record.
VALUES_MAX: Final = 256
# Metadata strings of the product in use reach 4,000; more belongs in a file whose digest is the value.
VALUE_BYTES_MAX: Final = 4_096
VALUE_TYPE_MAX: Final = 128
VALUE_INDEX_MAX: Final = 2**31 - 1
SALT_BYTES: Final = 16
# A batch has 2,000 records; a lot of a million may be sealed in one.
SEAL_PATH_MAX: Final = 20
# Year 9999; a body's time is a count of seconds and never text that could mean two instants.
TIME_MAX: Final = 253_402_300_799


class RecordKind(StrEnum):
    """What a record is about."""

    ITEM = "item"
    CLASS = "class"
    BLOCK = "block"
    TOMBSTONE = "tombstone"


class Status(StrEnum):
    """Whether the thing may be used; ``retired`` belongs to a tombstone and to nothing else."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    RECALLED = "recalled"
    RETIRED = "retired"


class Permission(StrEnum):
    """Who may read a value."""

    PUBLIC = "public"
    RESTRICTED = "restricted"


@dataclass(frozen=True, slots=True)
class Value:
    """Clear text of one value: index, 16-byte salt, data as the owner gave it."""

    index: int
    salt: bytes
    data: bytes

    def digest(self) -> bytes:
        """SHA-256, 32 bytes, as it stands in the record."""
        return hashlib.sha256(b"idtrace/value/v1\0" + self.salt + self.data).digest()


@dataclass(frozen=True, slots=True)
class ValueDigest:
    """What a body says of one value."""

    index: int
    type: str
    permission: Permission
    digest: bytes


@dataclass(frozen=True, slots=True)
class RecordBody:
    """A parsed or newly made body. :meth:`payload` of a parsed one gives the parsed bytes again."""

    identifier: Identifier
    version: int
    previous: bytes
    kind: RecordKind
    status: Status
    issued_at: int
    ttl_seconds: int
    class_id: Identifier | None
    values: tuple[ValueDigest, ...]

    def payload(self) -> bytes:
        """Canonical bytes to sign."""
        values: list[Json] = [
            {"digest": v.digest.hex(), "index": v.index, "permission": v.permission, "type": v.type}
            for v in self.values
        ]
        return canonical.encode(
            {
                "identifier": str(self.identifier),
                "version": self.version,
                "previous": self.previous.hex(),
                "kind": self.kind,
                "status": self.status,
                "issued_at": self.issued_at,
                "ttl_seconds": self.ttl_seconds,
                "class": str(self.class_id) if self.class_id else "",
                "values": values,
            }
        )

    @classmethod
    def parse(cls, payload: bytes, *, field: str = "record") -> RecordBody:
        """Read a body; check its signature first.

        Raises:
            InputError: naming field and rule.
        """
        return _usual(payload) or cls.parse_strictly(payload, field=field)

    @classmethod
    def parse_strictly(cls, payload: bytes, *, field: str = "record") -> RecordBody:
        """What :meth:`parse` gives, by the long way, which knows every rule and says which one is broken."""
        fields = canonical.decode(payload, field=field)
        body = cls(
            identifier=fields.identifier("identifier"),
            version=fields.integer("version", least=1),
            previous=fields.digest("previous", optional=True),
            kind=fields.choice("kind", RecordKind),
            status=fields.choice("status", Status),
            issued_at=fields.integer("issued_at", most=TIME_MAX),
            ttl_seconds=fields.integer("ttl_seconds", most=TTL_SECONDS_MAX),
            class_id=fields.optional_identifier("class"),
            values=_value_digests(fields),
        )
        fields.end()
        _check_rules(body, field)
        return body


# The short way: bodies as everybody writes them, in ASCII without escapes. What it takes, the long way takes as well
# and reads the same out of it; whatever it does not take, sound or not, the long way decides. It costs a fifth.
_CHARS: Final = r"[ !#-\[\]-~]"
_EDGE: Final = r"[!#-\[\]-~]"  # a text does not begin or end with a space
_TIME: Final = "(0|[1-9][0-9]{0,11})"
_BODY: Final = re.compile(
    rf'{{"class":"({_CHARS}*)","identifier":"({_CHARS}+)","issued_at":{_TIME},"kind":"([a-z]+)",'
    rf'"previous":"((?:[0-9a-f]{{64}})?)","status":"([a-z]+)","ttl_seconds":{_TIME},"values":\[(.*)\],'
    r'"version":([1-9][0-9]{0,14})}'
)
_VALUE: Final = re.compile(
    r',{"digest":"([0-9a-f]{64})","index":([1-9][0-9]{0,9}),"permission":"(public|restricted)",'
    rf'"type":"({_EDGE}|{_EDGE}{_CHARS}{{0,126}}{_EDGE})"}}'
)
_VALUE_FIXED: Final = len(f',{{"digest":"{"0" * 64}","index":,"permission":"","type":""}}')
_KINDS: Final = {str(kind): kind for kind in RecordKind}
_STATUSES: Final = {str(status): status for status in Status}
_PERMISSIONS: Final = {str(permission): permission for permission in Permission}


@lru_cache(maxsize=16)  # a body is read for its zone, and again once its signature has been checked
def _usual(payload: bytes) -> RecordBody | None:
    """A sound body of the usual form, read; None for anything else."""
    found = _BODY.fullmatch(payload.decode()) if len(payload) <= BODY_BYTES_MAX and payload.isascii() else None
    if found is None:
        return None
    class_id, identifier, issued_at, kind, previous, status, ttl_seconds, listed, version = found.groups()
    values = _usual_values(listed)
    if values is None or kind not in _KINDS or status not in _STATUSES:
        return None
    if int(issued_at) > TIME_MAX or int(ttl_seconds) > TTL_SECONDS_MAX:
        return None
    try:
        body = RecordBody(
            Identifier.parse_canonical(identifier),
            int(version),
            bytes.fromhex(previous),
            _KINDS[kind],
            _STATUSES[status],
            int(issued_at),
            int(ttl_seconds),
            Identifier.parse_canonical(class_id) if class_id else None,
            values,
        )
        _check_rules(body, "")
    except InputError:
        return None
    return body


def _usual_values(listed: str) -> tuple[ValueDigest, ...] | None:
    """The digests of a list in the usual form, without its brackets; None for anything else."""
    if not listed:
        return ()
    found = _VALUE.findall("," + listed)
    lengths = (len(index) + len(permission) + len(type_) for _, index, permission, type_ in found)
    if len(found) > VALUES_MAX or len(found) * _VALUE_FIXED + sum(lengths) != len(listed) + 1:
        return None  # something stands between them
    values, last = [], 0
    for digest, text, permission, type_ in found:
        index = int(text)
        if not last < index <= VALUE_INDEX_MAX:
            return None
        last = index
        values.append(ValueDigest(index, type_, _PERMISSIONS[permission], bytes.fromhex(digest)))
    return tuple(values)


def peek_identifier(payload: bytes, *, field: str = "record") -> Identifier:
    """The identifier that a body claims to be about: for finding the zone whose keys decide, and for nothing else.

    Raises:
        InputError: malformed.
    """
    if (usual := _usual(payload)) is not None:
        return usual.identifier
    try:
        text = json.loads(payload)["identifier"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InputError(Reason.FIELD_MISSING, "the body names no identifier", field=f"{field}.identifier") from None
    if not isinstance(text, str):
        raise InputError(Reason.FIELD_MALFORMED, "the identifier is not a string", field=f"{field}.identifier")
    return Identifier.parse_canonical(text, field=f"{field}.identifier")


@dataclass(frozen=True, slots=True)
class Sealed:
    """Where a record stands under a batch seal: the seal as signed, the record's place, the hashes up to the root."""

    seal: Signed
    position: int
    path: tuple[bytes, ...]

    @property
    def hash(self) -> bytes:
        """SHA-256, 32 bytes, of the seal's framed body: how a log entry names it."""
        return _seal_hash(self.seal.payload)


@lru_cache(maxsize=64)  # of 300 bytes: a batch's seal is named by each of its 2,000 records
def _seal_hash(payload: bytes) -> bytes:
    return signed_hash(Kind.SEAL, payload)


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it travels: body, signatures or a seal instead of them, and the values that the reader may see.

    Proves nothing until verified.
    """

    signed: Signed
    values: tuple[Value, ...]
    sealed: Sealed | None = None

    @property
    def hash(self) -> bytes:
        """Record hash, 32 bytes: what the next version names as ``previous``."""
        return signed_hash(Kind.RECORD, self.signed.payload)


def _value_digests(fields: canonical.Fields) -> tuple[ValueDigest, ...]:
    digests: list[ValueDigest] = []
    for item in fields.objects("values", most=VALUES_MAX):
        index = item.integer("index", least=1, most=VALUE_INDEX_MAX)
        if digests and index <= digests[-1].index:
            raise InputError(
                Reason.VALUE_DUPLICATE, "indexes are unique and stand in ascending order", field=item.path("index")
            )
        type_ = item.text("type", most=VALUE_TYPE_MAX)
        require_visible(type_, what="type", field=item.path("type"))
        digests.append(ValueDigest(index, type_, item.choice("permission", Permission), item.digest("digest")))
        item.end()
    return tuple(digests)


def _check_rules(body: RecordBody, field: str) -> None:
    """Rules between fields: previous goes with version > 1; retired goes with tombstone; a tombstone is empty."""
    if (body.version == 1) != (body.previous == b""):
        rule = "version 1 has no previous hash, and every later version has one"
        raise InputError(Reason.FIELD_MALFORMED, rule, field=f"{field}.previous")
    if (body.kind is RecordKind.TOMBSTONE) != (body.status is Status.RETIRED):
        raise InputError(Reason.FIELD_MALFORMED, "a tombstone and no other kind is retired", field=f"{field}.status")
    if body.kind is RecordKind.TOMBSTONE and (body.version == 1 or body.values):
        raise InputError(
            Reason.FIELD_MALFORMED, "a tombstone ends an existing identifier and has no values", field=f"{field}.kind"
        )


def check_values(body: RecordBody, values: Sequence[Value], *, field: str = "record.values") -> tuple[int, ...]:
    """Check shown values against the signed digests.

    Returns:
        Indexes of the values that are signed but not shown (withheld), ascending.

    Raises:
        VerificationError: VALUE_DUPLICATE, VALUE_UNSIGNED (no such index in the body) or VALUE_CHANGED.
    """
    if len(values) == len(body.values) and all(map(_is_signed, values, body.values)):
        return ()  # nearly always; the signed indexes ascend
    signed = {v.index: v for v in body.values}
    last = 0
    for value in values:
        where = f"{field}[{value.index}]"
        if value.index <= last:
            raise VerificationError(
                Reason.VALUE_DUPLICATE, "values are unique and stand in ascending order", field=where
            )
        last = value.index
        digest = signed.pop(value.index, None)
        if digest is None:
            raise VerificationError(
                Reason.VALUE_UNSIGNED, f"value {value.index} is not in the signed record", field=where
            )
        if len(value.salt) != SALT_BYTES or value.digest() != digest.digest:
            raise VerificationError(
                Reason.VALUE_CHANGED, f"value {value.index} is not the one that was signed", field=where
            )
    return tuple(signed)


def withheld_public(record: Record, body: RecordBody) -> tuple[int, ...]:
    """Indexes of the values that everybody may read and that are not shown, ascending.

    Whoever has them may leave out any (a bundle shows what its giver chooses). But a node that answers has to show them
    all, and where nobody may be kept from knowing, as of recalls and events, a record without them is no answer.
    """
    shown = {value.index for value in record.values}
    return tuple(one.index for one in body.values if one.permission is Permission.PUBLIC and one.index not in shown)


def _is_signed(value: Value, digest: ValueDigest) -> bool:
    return value.index == digest.index and len(value.salt) == SALT_BYTES and value.digest() == digest.digest


def build_values(
    entries: Iterable[tuple[str, bytes, Permission]], salts: Iterable[bytes]
) -> tuple[tuple[ValueDigest, ...], tuple[Value, ...]]:
    """Number and digest values for a new body: ``(type, data, permission)`` each, with a fresh random salt each.

    Raises:
        InputError: FIELD_TOO_LARGE or FIELD_MALFORMED, naming the entry.
    """
    digests: list[ValueDigest] = []
    values: list[Value] = []
    fresh = iter(salts)
    for index, (type_, data, permission) in enumerate(entries, start=1):
        salt = next(fresh, b"")
        if len(salt) != SALT_BYTES:
            rule = f"every value has its own salt of {SALT_BYTES} bytes"
            raise InputError(Reason.FIELD_MALFORMED, rule, field=f"values[{index}]")
        if len(data) > VALUE_BYTES_MAX:
            raise InputError(
                Reason.FIELD_TOO_LARGE, f"a value has at most {VALUE_BYTES_MAX} bytes", field=f"values[{index}]"
            )
        value = Value(index, salt, data)
        values.append(value)
        digests.append(ValueDigest(index, type_, permission, value.digest()))
    return tuple(digests), tuple(values)

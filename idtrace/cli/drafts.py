"""From what a person or a line of a file asks for to a record body: pure, given salts and a time.

A body made here is read back by the strict parser before anything is signed, so that every rule of a record is
explained at the keyboard and not by a node.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from idtrace import canonical
from idtrace.errors import InputError, Reason, quoted
from idtrace.identifier import Identifier
from idtrace.record import (
    VALUES_MAX,
    Permission,
    Record,
    RecordBody,
    RecordKind,
    Status,
    Value,
    ValueDigest,
    build_values,
)
from idtrace.signature import Kind, Signer, sign, signed_hash
from idtrace.template import TEMPLATE_TYPE, Template

# An hour: what a scanner's cache may hold without asking; a recall is pushed and does not wait for it.
TTL_SECONDS_DEFAULT: Final = 3_600

Entry = tuple[str, bytes, Permission]


@dataclass(frozen=True, slots=True)
class Draft:
    """A first version as asked for: everything but salts and time."""

    identifier: Identifier
    values: tuple[Entry, ...]
    kind: RecordKind = RecordKind.ITEM
    class_id: Identifier | None = None
    ttl_seconds: int = TTL_SECONDS_DEFAULT

    def digest(self) -> bytes:
        """SHA-256, 32 bytes: the same for the same wish, wherever it stands in a file."""
        values: list[canonical.Json] = [[type_, data.hex(), permission] for type_, data, permission in self.values]
        body: dict[str, canonical.Json] = {
            "identifier": str(self.identifier),
            "values": values,
            "kind": self.kind,
            "class": str(self.class_id or ""),
            "ttl_seconds": self.ttl_seconds,
        }
        return hashlib.sha256(b"idtrace/draft/v1\0" + canonical.encode(body)).digest()

    def body(self, salts: Iterable[bytes], issued_at: int) -> tuple[RecordBody, tuple[Value, ...]]:
        """Version 1 with its values, checked by the strict parser.

        Raises:
            InputError: with the rule that it breaks.
        """
        _require_few(len(self.values))
        digests, values = build_values(self.values, salts)
        assert len(values) == len(self.values), "one salt a value"
        body = RecordBody(
            identifier=self.identifier,
            version=1,
            previous=b"",
            kind=self.kind,
            status=Status.ACTIVE,
            issued_at=issued_at,
            ttl_seconds=self.ttl_seconds,
            class_id=self.class_id,
            values=digests,
        )
        return _checked(body), values


@dataclass(frozen=True, slots=True)
class Change:
    """What a next version changes; whatever it does not name is carried over, salt and all."""

    status: Status | None = None
    values: tuple[Entry, ...] = ()
    unset: tuple[str, ...] = ()
    class_id: Identifier | None = None
    ttl_seconds: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the next version would say what the current one says."""
        return self == Change()


def next_version(
    record: Record, body: RecordBody, change: Change, salts: Iterable[bytes], issued_at: int
) -> tuple[RecordBody, tuple[Value, ...]]:
    """The version after ``record``: every value that ``change`` does not name keeps its index, salt and data.

    Raises:
        InputError: FIELD_MISSING where ``unset`` names none, or a rule of records.
    """
    new = {type_: (data, permission) for type_, data, permission in change.values}
    held = {digest.type for digest in body.values}
    for type_ in change.unset:
        if type_ not in held:
            raise InputError(Reason.FIELD_MISSING, f"there is no value of type {quoted(type_)}", field="--unset")
    shown = {value.index: value for value in record.values}
    dropped = set(new) | set(change.unset)
    kept = [digest for digest in body.values if digest.type not in dropped]
    # A restricted value is not shown here; its digest is signed again, and the node carries the value over.
    values = [shown[digest.index] for digest in kept if digest.index in shown]
    digests = list(kept)
    free = max((digest.index for digest in body.values), default=0) + 1
    for (type_, (data, permission)), salt in zip(new.items(), salts, strict=False):
        first = next((digest.index for digest in body.values if digest.type == type_), None)
        index, free = (free, free + 1) if first is None else (first, free)
        own, (made,) = build_values([(type_, data, permission)], [salt])
        value = replace(made, index=index)
        values.append(value)
        digests.append(replace(own[0], index=index))
    _require_few(len(digests))
    following = replace(
        body,
        version=body.version + 1,
        previous=record.hash,
        status=change.status or body.status,
        issued_at=max(issued_at, body.issued_at),
        ttl_seconds=body.ttl_seconds if change.ttl_seconds is None else change.ttl_seconds,
        class_id=change.class_id or body.class_id,
        values=tuple(sorted(digests, key=_index)),
    )
    return _checked(following), tuple(sorted(values, key=_index))


def tombstone(record: Record, body: RecordBody, issued_at: int) -> RecordBody:
    """The version that ends an identifier for ever."""
    return _checked(
        replace(
            body,
            version=body.version + 1,
            previous=record.hash,
            kind=RecordKind.TOMBSTONE,
            status=Status.RETIRED,
            issued_at=max(issued_at, body.issued_at),
            values=(),
        )
    )


def signed_record(body: RecordBody, values: tuple[Value, ...], signer: Signer) -> Record:
    """Sign a body."""
    return Record(sign(Kind.RECORD, body.payload(), signer), values)


def idempotency_key(payload: bytes, kind: Kind = Kind.RECORD) -> str:
    """The key of a write: the hash of what is written, 64 characters. The same bytes are the same request."""
    return signed_hash(kind, payload).hex()


def entries(assignments: Sequence[str], restricted: Iterable[str] = (), *, field: str = "--value") -> tuple[Entry, ...]:
    """Read ``TYPE=TEXT`` arguments; the text may hold more of "=".

    Raises:
        InputError: FIELD_MALFORMED or VALUE_DUPLICATE.
    """
    wanted = set(restricted)
    found: dict[str, Entry] = {}
    for assignment in assignments:
        type_, equals, text = assignment.partition("=")
        if not equals or not type_:
            raise InputError(Reason.FIELD_MALFORMED, f"{quoted(assignment)} is not TYPE=TEXT", field=field)
        if type_ in found:
            raise InputError(Reason.VALUE_DUPLICATE, f"{quoted(type_)} is given twice", field=field)
        found[type_] = (type_, text.encode(), permission_of(type_, wanted))
    if unused := wanted - set(found):
        detail = f"{quoted(min(unused))} is not among the values"
        raise InputError(Reason.FIELD_MISSING, detail, field="--restricted")
    return tuple(found.values())


def permission_of(type_: str, restricted: Iterable[str]) -> Permission:
    """Whether a value of this type is for everybody."""
    return Permission.RESTRICTED if type_ in restricted else Permission.PUBLIC


def template_entry(text: str, *, field: str) -> Entry:
    """The template value of a class record from a hand-written JSON file; ``codes``, ``required`` … may be left out.

    Raises:
        InputError: TEMPLATE_MALFORMED, or a field's own reason.
    """
    try:
        body: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(Reason.TEMPLATE_MALFORMED, "the template is not JSON", field=field) from None
    if not isinstance(body, dict) or not isinstance(body.get("fields"), list):
        raise InputError(Reason.TEMPLATE_MALFORMED, 'a template is {"fields": […], "open": false}', field=field)
    filled: list[Mapping[str, Any]] = []
    for position, item in enumerate(body["fields"]):
        if not isinstance(item, dict):
            rule = "a field is a JSON object"
            raise InputError(Reason.TEMPLATE_MALFORMED, rule, field=f"{field}.fields[{position}]")
        filled.append({"codes": [], "required": False, "unique": False, **item})
    try:
        data = canonical.encode({"open": False, **body, "fields": filled})
    except (ValueError, TypeError):
        raise InputError(Reason.TEMPLATE_MALFORMED, "the template is not plain JSON", field=field) from None
    Template.parse(data, field=field)
    return (TEMPLATE_TYPE, data, Permission.PUBLIC)


def _index(part: Value | ValueDigest) -> int:
    return part.index


def _require_few(count: int) -> None:
    if count > VALUES_MAX:
        raise InputError(Reason.FIELD_TOO_LARGE, f"a record has at most {VALUES_MAX} values", field="values")


def _checked(body: RecordBody) -> RecordBody:
    return RecordBody.parse(body.payload())

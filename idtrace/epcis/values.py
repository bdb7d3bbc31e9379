"""Single values of an event out of parsed JSON: texts, URIs, times, offsets, numbers. Each gives a value or a Fault."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar

from idtrace.epcis.context import Context, require_declared
from idtrace.epcis.model import NOTHING, Json
from idtrace.epcis.rules import (
    LIST_MAX,
    NESTING_MAX,
    TEXT_CHARS_MAX,
    TIME_MS_MAX,
    TIME_MS_MIN,
    URI_CHARS_MAX,
    Fault,
    Rule,
)
from idtrace.errors import quoted

T = TypeVar("T")
# Makes a value of parsed JSON, or raises a Fault.
Reader = Callable[[Json, Context], Any]
# By the name of a field in JSON: the attribute of the model that it becomes, and its reader.
Readers = Mapping[str, tuple[str, Reader]]

# RFC 3986, and like xsd:anyURI the letters of all scripts: a place may have a Chinese name.
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`\x00-\x1f\x7f]+\Z")
_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?)\d{0,12}(Z|[+-](?:(?:0\d|1[0-3]):[0-5]\d|14:00))\Z", re.ASCII
)
_OFFSET: Final = re.compile(r"([+-])(0\d|1[0-4]):([0-5]\d)\Z", re.ASCII)
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2})+\Z")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def text(value: Json, _context: Context) -> str:
    """A text; TYPE or SIZE otherwise."""
    if value.__class__ is not str:
        raise Fault(Rule.TYPE, "a text stands here")
    if len(value) > TEXT_CHARS_MAX:
        raise Fault(Rule.SIZE, f"a text has at most {TEXT_CHARS_MAX} characters")
    return str(value)


def uri(value: Json, _context: Context) -> str:
    """A URI as it was given; TYPE, URI or SIZE otherwise."""
    if value.__class__ is not str:
        raise Fault(Rule.TYPE, "a URI stands here, as a text")
    if len(value) > URI_CHARS_MAX:
        raise Fault(Rule.SIZE, f"a URI has at most {URI_CHARS_MAX} characters")
    if _URI.match(value) is None:
        raise Fault(Rule.URI, f"{quoted(value)} is not a URI")
    return str(value)


def uris(value: Json, context: Context) -> tuple[str, ...]:
    """A set of URIs, in its order; besides what :func:`uri` raises, TWICE."""
    items = entries(value)
    # All well-formed is the rule, and then no path is needed.
    if all(item.__class__ is str and len(item) <= URI_CHARS_MAX and _URI.match(item) for item in items):
        if len(frozenset(items)) != len(items):
            index = next(index for index, item in enumerate(items) if item in items[:index])
            raise Fault(Rule.TWICE, f"{quoted(items[index])} stands twice in this list", index)
        return tuple(items)
    for index, item in enumerate(items):
        try:
            uri(item, context)
        except Fault as fault:
            raise fault.below(index) from None
    raise AssertionError("one of them is not a URI")


def entries(value: Json) -> list[Json]:
    """The entries of a list; TYPE or SIZE otherwise."""
    if value.__class__ is not list:
        raise Fault(Rule.TYPE, "a list stands here")
    if len(value) > LIST_MAX:
        raise Fault(Rule.SIZE, f"a list has at most {LIST_MAX} entries")
    items: list[Json] = value
    return items


def members(value: Json) -> dict[str, Json]:
    """The fields of an object; TYPE otherwise."""
    if value.__class__ is not dict:
        raise Fault(Rule.TYPE, "an object stands here")
    fields: dict[str, Json] = value
    return fields


def time_ms(value: Json, _context: Context) -> int:
    """An xsd:dateTimeStamp, in UTC milliseconds; what is finer is cut off."""
    if value.__class__ is not str:
        raise Fault(Rule.TYPE, "a time stands here, as a text")
    match = _TIME.match(value)
    try:
        moment = datetime.fromisoformat(match[1] + match[2]) if match else None
    except ValueError:
        moment = None
    if moment is None:
        raise Fault(Rule.TIME, f"{quoted(value)} is not a date and time with an offset, as 2026-07-22T10:30:00Z")
    milliseconds = (moment - _EPOCH) // _MILLISECOND
    if not TIME_MS_MIN <= milliseconds <= TIME_MS_MAX:
        raise Fault(Rule.TIME, f"{quoted(value)} is not within the years 1900 and 9999")
    return milliseconds


def time_text(milliseconds: int) -> str:
    """The same moment as a text in UTC, with milliseconds."""
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03d}Z"


def offset_minutes(value: Json, _context: Context) -> int:
    """A zone offset, in minutes; OFFSET where it is not one of up to 14 hours."""
    match = _OFFSET.match(value) if isinstance(value, str) else None
    if match is None or (minutes := int(match[2]) * 60 + int(match[3])) > 14 * 60:
        raise Fault(Rule.OFFSET, "an offset is + or - and hh:mm, up to 14:00")
    return -minutes if match[1] == "-" else minutes


def offset_text(minutes: int) -> str:
    """The same offset as a text."""
    hours, rest = divmod(abs(minutes), 60)
    return f"{'-' if minutes < 0 else '+'}{hours:02d}:{rest:02d}"


def number(value: Json, _context: Context) -> Decimal:
    """A number, exactly; TYPE otherwise (true is none)."""
    if value.__class__ is int:
        return Decimal(value)
    if not isinstance(value, Decimal):
        raise Fault(Rule.TYPE, "a number stands here")
    return value


def boolean(value: Json, _context: Context) -> bool:
    """True or false; TYPE otherwise."""
    if not isinstance(value, bool):
        raise Fault(Rule.TYPE, "true or false stands here")
    return value


def hex_text(value: Json, context: Context) -> str:
    """Whole bytes in hex; TYPE, SIZE or HEX otherwise."""
    shown = text(value, context)
    if _HEX.match(shown) is None:
        raise Fault(Rule.HEX, "bytes stand here, as two hex digits each")
    return shown


def listed(value: Json, read: Callable[[Json, Context], T], context: Context) -> tuple[T, ...]:
    """What ``read`` makes of each entry of a list; besides what it raises, TYPE or SIZE."""
    found: list[T] = []
    for index, item in enumerate(entries(value)):
        try:
            found.append(read(item, context))
        except Fault as fault:
            raise fault.below(index) from None
    return tuple(found)


def member(fields: Mapping[str, Json], name: str, read: Callable[[Json, Context], T], context: Context) -> T:
    """What ``read`` makes of a field that there must be; besides what it raises, FIELD_MISSING."""
    if name not in fields:
        raise Fault(Rule.FIELD_MISSING, f"{name} is missing", name)
    try:
        return read(fields[name], context)
    except Fault as fault:
        raise fault.below(name) from None


def read_fields(fields: Mapping[str, Json], readers: Readers, context: Context) -> dict[str, Any]:
    """The values of an object's fields by the names that the model gives them; others' fields as ``extensions``.

    Raises:
        Fault: what the readers raise; of a field that is not the standard's, as :func:`foreign`.
    """
    read: dict[str, Any] = {}
    extensions: dict[str, Json] = {}
    for name, value in fields.items():
        known = readers.get(name)
        if known is None:
            extensions[name] = foreign(name, value, context)
            continue
        try:
            read[known[0]] = known[1](value, context)
        except Fault as fault:
            raise fault.below(name) from None
    read["extensions"] = extensions or NOTHING
    return read


def read_only(fields: Mapping[str, Json], readers: Readers, context: Context) -> dict[str, Any]:
    """The same where the standard has no room for others' fields; FIELD_UNKNOWN besides."""
    for name in fields:
        if name not in readers:
            raise Fault(Rule.FIELD_UNKNOWN, f"{' and '.join(readers)} stand here, and nothing else", name)
    read = read_fields(fields, readers, context)
    del read["extensions"]
    return read


def foreign(name: str, value: Json, context: Context) -> Json:
    """A field of another namespace: its name is declared, and so are the names with a prefix in it.

    Raises:
        Fault: FIELD_UNKNOWN, PREFIX_UNDECLARED or NESTING, below ``name``.
    """
    try:
        require_declared(name, context)
        if value.__class__ is dict or value.__class__ is list:
            _require_declared_within(value, context, NESTING_MAX)
    except Fault as fault:
        raise fault.below(name) from None
    return value


def _require_declared_within(value: Json, context: Context, depth: int) -> None:
    if depth == 0:
        raise Fault(Rule.NESTING, f"brackets stand within brackets more than {NESTING_MAX} deep")
    inner: Iterable[tuple[str | int, Json]] = value.items() if isinstance(value, dict) else enumerate(value)
    for step, item in inner:
        try:
            if isinstance(step, str):
                _require_name(step, context)
            if item.__class__ is dict or item.__class__ is list:
                _require_declared_within(item, context, depth - 1)
        except Fault as fault:
            raise fault.below(step) from None


def _require_name(name: str, context: Context) -> None:
    # A bare name in somebody's own structure is his own; one with a prefix refers to a namespace.
    if ":" in name:
        require_declared(name, context)
    elif name == "@context":
        raise Fault(Rule.CONTEXT_MALFORMED, "a context stands in a document or in an event, and not within a field")

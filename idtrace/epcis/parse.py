"""EPCIS 2.0 JSON documents become events: capture documents, query documents, bare events.

A document that is broken as a whole is refused; an event that is broken is refused alone, with the place, the rule and
a sentence, and the others stand. Source: EPCIS 2.0, sections 7.4 (events), 8.2 (query results), 10 (JSON and JSON-LD).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from idtrace.epcis import values
from idtrace.epcis.context import Context, read_context
from idtrace.epcis.event import read_event
from idtrace.epcis.model import NOTHING, Event, Json
from idtrace.epcis.rules import EVENTS_MAX, DocumentError, EventError, Fault, Rule
from idtrace.epcis.strictjson import decode, require_sound
from idtrace.errors import quoted

__all__ = ["DocumentError", "DocumentKind", "EventError", "Parsed", "Rule", "read_document", "read_value"]

_VERSION: Final = re.compile(r"2(\.[0-9]{1,3}){0,2}\Z")


class DocumentKind(StrEnum):
    """What stands around the events."""

    CAPTURE = "EPCISDocument"
    QUERY = "EPCISQueryDocument"
    BARE = "bare"  # one event, or a JSON list of them


@dataclass(frozen=True, slots=True)
class Parsed:
    """A document as it was read.

    Attributes:
        kind: what stands around the events.
        items: the events in their order, and in the place of each that breaks a rule what is wrong with it.
        created_ms: ``creationDate``; None for bare events, and for a query document that has none.
        schema_version: as given, "" where there is none.
        context: the document's ``@context`` as given.
        header: ``epcisHeader``, ``sender``, ``receiver``, ``instanceIdentifier``, ``id`` and fields of other
            namespaces, by name.
        query_name, subscription_id: of a query document.
    """

    kind: DocumentKind
    items: tuple[Event | EventError, ...]
    created_ms: int | None = None
    schema_version: str = ""
    context: Json = None
    header: Mapping[str, Json] = field(default_factory=lambda: NOTHING)
    query_name: str = ""
    subscription_id: str = ""

    @property
    def events(self) -> tuple[Event, ...]:
        """The events that stand."""
        return tuple(item for item in self.items if isinstance(item, Event))

    @property
    def errors(self) -> tuple[EventError, ...]:
        """What is wrong with the others."""
        return tuple(item for item in self.items if isinstance(item, EventError))


def read_document(data: bytes, *, field: str = "document", capture: bool = True) -> Parsed:
    """The events of a document.

    Args:
        data: JSON in UTF-8: an EPCISDocument, an EPCISQueryDocument, one event, or a list of events.
        field: what the document is called in errors.
        capture: hold it to the rules of the capture interface. Without, as in every query document, it is read as
            others have captured it, and a sensor attribute may stand in the metadata and in a report as well
            (conformance test TCR-53, step 29).

    Raises:
        DocumentError: the document is broken as a whole.
    """
    try:
        value, marked = decode(data)
    except Fault as fault:
        raise DocumentError(fault, field=field) from None
    return read_value(value, field=field, capture=capture, marked=marked)


def read_value(value: Json, *, field: str = "document", capture: bool = True, marked: bool = True) -> Parsed:
    """The same of a document that is decoded already: numbers int or Decimal, each as a double carries it.

    Args:
        value: the decoded JSON value.
        field: as of :func:`read_document`.
        capture: the same.
        marked: whether texts and nesting have yet to be looked at.

    Raises:
        DocumentError: the document is broken as a whole.
    """
    try:
        if isinstance(value, list):
            reading = _Reading(Context(), field, (), marked=marked, twice=not capture)
            return Parsed(DocumentKind.BARE, reading.items(value))
        fields = values.members(value)
        kind = fields.get("type")
        if kind == DocumentKind.CAPTURE:
            return _capture_document(fields, field, marked=marked, twice=not capture)
        if kind == DocumentKind.QUERY:
            return _query_document(fields, field, marked=marked)
        reading = _Reading(Context(), field, (), marked=marked, twice=not capture)
        return Parsed(DocumentKind.BARE, (reading.item(0, fields),))
    except Fault as fault:
        raise DocumentError(fault, field=field) from None


@dataclass(frozen=True, slots=True)
class _Reading:
    """How the events of one document are read.

    Attributes:
        context: what holds around them.
        field, path: what the document is called, and where in it the list of events stands.
        marked: whether something in the document is marked, and has to be looked for in each event.
        twice: see :func:`idtrace.epcis.event.read_event`.
    """

    context: Context
    field: str
    path: tuple[str, ...]
    marked: bool
    twice: bool

    def items(self, value: Json) -> tuple[Event | EventError, ...]:
        """What becomes of each entry of a list of events."""
        if not isinstance(value, list):
            raise Fault(Rule.TYPE, "a list of events stands here", *self.path)
        if len(value) > EVENTS_MAX:
            raise Fault(Rule.SIZE, f"a document has at most {EVENTS_MAX} events", *self.path)
        return tuple(self.item(index, item, index) for index, item in enumerate(value))

    def item(self, index: int, value: Json, *step: int) -> Event | EventError:
        """One event, or what is wrong with it."""
        try:
            if self.marked:
                require_sound(value)
            return read_event(value, self.context, twice=self.twice)
        except Fault as fault:
            return EventError(index, fault.below(*self.path, *step), field=self.field)


def _capture_document(fields: dict[str, Json], field: str, *, marked: bool, twice: bool) -> Parsed:
    path = ("epcisBody", "eventList")
    if marked:
        _require_sound_around(fields, path)
    context = _context(fields)
    version = _version(fields, required=True)
    created_ms = _created(fields, required=True)
    header = _header(fields, context)
    body = _object(fields, "epcisBody", path[:1])
    _require_only(body, {"eventList"}, context, path[:1])
    if "eventList" not in body:
        raise Fault(Rule.FIELD_MISSING, "a capture document has a list of events", *path)
    reading = _Reading(context, field, path, marked=marked, twice=twice)
    items = reading.items(body["eventList"])
    return Parsed(DocumentKind.CAPTURE, items, created_ms, version, fields["@context"], header)


def _query_document(fields: dict[str, Json], field: str, *, marked: bool) -> Parsed:
    path = ("epcisBody", "queryResults", "resultsBody")
    if marked:
        _require_sound_around(fields, (*path, "eventList"))
    context = _context(fields)
    version = _version(fields, required=False)
    created_ms = _created(fields, required=False)
    header = _header(fields, context)
    body = _object(fields, "epcisBody", path[:1])
    results = _object(body, "queryResults", path[:2])
    found = _object(results, "resultsBody", path)
    _require_only(body, {"queryResults"}, context, path[:1])
    _require_only(results, {"queryName", "subscriptionID", "resultsBody"}, context, path[:2])
    _require_only(found, {"eventList"}, context, path)
    if "queryName" not in results:
        raise Fault(Rule.FIELD_MISSING, "results name their query", *path[:2], "queryName")
    names = [_text(results, name, path[:2]) for name in ("queryName", "subscriptionID")]
    if "eventList" not in found:
        raise Fault(Rule.FIELD_MISSING, "results have a list of events", *path, "eventList")
    # Results were captured before, by whatever rules.
    reading = _Reading(context, field, (*path, "eventList"), marked=marked, twice=True)
    items = reading.items(found["eventList"])
    return Parsed(DocumentKind.QUERY, items, created_ms, version, fields["@context"], header, *names)


def _require_sound_around(fields: Mapping[str, Json], path: tuple[str, ...]) -> None:
    """Look for marks everywhere but in the events: there each has its own."""
    here: Json = fields
    for depth, name in enumerate(path):
        try:
            require_sound({o: value for o, value in here.items() if o != name or not isinstance(value, dict | list)})
        except Fault as fault:
            raise fault.below(*path[:depth]) from None
        here = here.get(name)
        if not isinstance(here, dict):
            return


def _context(fields: Mapping[str, Json]) -> Context:
    if "@context" not in fields:
        raise Fault(Rule.CONTEXT_MISSING, "a document has a context", "@context")
    return values.member(fields, "@context", read_context, Context())


def _version(fields: Mapping[str, Json], *, required: bool) -> str:
    if "schemaVersion" not in fields and not required:
        return ""
    version = fields.get("schemaVersion")
    if version is None:
        raise Fault(Rule.FIELD_MISSING, "a document names its schema version", "schemaVersion")
    if not isinstance(version, str) or _VERSION.match(version) is None:
        raise Fault(Rule.SCHEMA_VERSION, "only documents of EPCIS 2 are read", "schemaVersion")
    return version


def _created(fields: Mapping[str, Json], *, required: bool) -> int | None:
    if "creationDate" not in fields and not required:
        return None
    return values.member(fields, "creationDate", values.time_ms, Context())


_TEXTS: Final = ("sender", "receiver", "instanceIdentifier", "id")
_OF_DOCUMENT: Final = frozenset(("@context", "type", "schemaVersion", "creationDate", "epcisBody"))


def _header(fields: Mapping[str, Json], context: Context) -> Mapping[str, Json]:
    header: dict[str, Json] = {}
    for name, value in fields.items():
        if name in _OF_DOCUMENT:
            continue
        if name in _TEXTS:
            header[name] = _text(fields, name, ())
        elif name == "epcisHeader":
            # Master data is handed on as it is: its words are its senders' own.
            header[name] = values.member(fields, name, _master_data, context)
        else:
            header[name] = values.foreign(name, value, context)
    return header or NOTHING


def _master_data(value: Json, _context: Context) -> dict[str, Json]:
    require_sound(value)
    return values.members(value)


def _object(fields: Mapping[str, Json], name: str, path: tuple[str, ...]) -> dict[str, Json]:
    value = fields.get(name)
    if value is None:
        raise Fault(Rule.FIELD_MISSING, f"{name} is missing", *path)
    try:
        return values.members(value)
    except Fault as fault:
        raise fault.below(*path) from None


def _text(fields: Mapping[str, Json], name: str, path: tuple[str, ...]) -> str:
    try:
        return values.text(fields.get(name, ""), Context())
    except Fault as fault:
        raise fault.below(*path, name) from None


def _require_only(fields: Mapping[str, Json], known: set[str], context: Context, path: tuple[str, ...]) -> None:
    """Refuse fields that nobody would read."""
    for name, value in fields.items():
        if name in known:
            continue
        if ":" not in name:
            raise Fault(Rule.FIELD_UNKNOWN, f"{quoted(name)} does not stand here", *path, name)
        try:
            values.foreign(name, value, context)
        except Fault as fault:
            raise fault.below(*path) from None

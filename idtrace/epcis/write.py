"""Events as JSON: the bare event whose bytes are signed, and the documents in which events travel.

An event that was read is written as it was given, in the reporter's own spelling; one that was never JSON is written
from its fields. Either way the ``@context`` is the smallest that the event needs
(:func:`idtrace.epcis.context.needed`), so that the same event has the same bytes, alone or in a document. Sources:
EPCIS 2.0, section 10; RFC 8785.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

import rfc8785

from idtrace.epcis.context import STANDARD_CONTEXT, Context, needed, read_context
from idtrace.epcis.event import read_event
from idtrace.epcis.fields import event_fields
from idtrace.epcis.model import NOTHING, Event, Json
from idtrace.epcis.rules import DocumentError, Fault, Rule
from idtrace.epcis.strictjson import exact
from idtrace.epcis.values import time_text

SCHEMA_VERSION: Final = "2.0"


def event_json(event: Event) -> dict[str, Any]:
    """The bare event with the ``@context`` that it needs: text, int, float, bool, None, list and dict alone.

    Where ``event.raw`` has no more than a ``@context`` (or nothing), the event is written from its fields, and the
    prefixes of its extensions are looked up in that context.

    Raises:
        InputError: the context is not one, a number is none of JSON's, or (for an event that is written from its
            fields) the event breaks a rule of EPCIS.
    """
    try:
        context = _context_of(event)
        if "type" in event.raw:
            fields = _plain({name: value for name, value in event.raw.items() if name != "@context"})
            return {"@context": needed(event.raw, context), **fields}
        built = _plain(event_fields(event))
        written = {"@context": needed(built, context), **built}
        # What no reader would accept is not written, let alone signed; its context is checked with it.
        read_event(_exactly(written), Context(), twice=True)
    except Fault as fault:
        raise DocumentError(fault, field="event") from None
    return written


def event_bytes(event: Event) -> bytes:
    """RFC 8785 canonical bytes of the bare event: what is hashed and signed (``idtrace/epcis/statement.py``).

    ``read_document`` makes the same event of them, and for canonical bytes of an event gives them back.

    Raises:
        InputError: as :func:`event_json`; also where a text cannot be UTF-8.
    """
    written = event_json(event)
    try:
        return rfc8785.dumps(written)
    except rfc8785.CanonicalizationError:
        rule = Fault(Rule.SURROGATE, "half of a pair of code units stands alone in a text of the event")
        raise DocumentError(rule, field="event") from None


def document_json(events: Iterable[Event], created_ms: int, *, header: Mapping[str, Json] = NOTHING) -> dict[str, Any]:
    """A capture document; ``header`` as of :class:`idtrace.epcis.parse.Parsed`, without fields of other namespaces.

    Raises:
        InputError: as :func:`event_json`.
    """
    return {
        "@context": STANDARD_CONTEXT,
        "type": "EPCISDocument",
        "schemaVersion": SCHEMA_VERSION,
        "creationDate": time_text(created_ms),
        **{name: value for name, value in header.items() if ":" not in name},
        "epcisBody": {"eventList": [_inner(event) for event in events]},
    }


def query_document_json(
    query_name: str, subscription_id: str, events: Iterable[Event], created_ms: int
) -> dict[str, Any]:
    """The results of a query (section 8.2.7.1); ``subscription_id`` is "" for a poll.

    Raises:
        InputError: as :func:`event_json`.
    """
    results: dict[str, Any] = {"queryName": query_name}
    if subscription_id:
        results["subscriptionID"] = subscription_id
    results["resultsBody"] = {"eventList": [_inner(event) for event in events]}
    return {
        "@context": STANDARD_CONTEXT,
        "type": "EPCISQueryDocument",
        "schemaVersion": SCHEMA_VERSION,
        "creationDate": time_text(created_ms),
        "epcisBody": {"queryResults": results},
    }


def _inner(event: Event) -> dict[str, Any]:
    """An event inside of a document whose context is the standard's: with its own prefixes, if it has any."""
    written = event_json(event)
    context = written.pop("@context")
    return written if context == STANDARD_CONTEXT else {"@context": context[1:], **written}


def _context_of(event: Event) -> Context:
    try:
        return read_context(event.raw.get("@context", []), Context())
    except Fault as fault:
        raise fault.below("@context") from None


def _plain(value: Json) -> Any:
    """JSON as Python's own types, each number as the double or the integer that is exactly it.

    Raises:
        Fault: NUMBER.
    """
    kind = value.__class__
    if kind is str or kind is bool or value is None:
        return value
    if kind is int:
        value = Decimal(value)
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    number = exact(value) if isinstance(value, Decimal) else None
    if number is None:
        raise Fault(Rule.NUMBER, "a value is a text, a number that a double carries exactly, true, false or null")
    return number if isinstance(number, int) else float(number)


def _exactly(value: Any) -> Json:
    """The same with decimals, as a reader would have it."""
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, dict):
        return {name: _exactly(inner) for name, inner in value.items()}
    return [_exactly(inner) for inner in value] if isinstance(value, list) else value

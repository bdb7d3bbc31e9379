"""EPCIS XML, version 2.0 (and 1.2 where it says the same), read as its JSON-LD form, so that one parser judges both.

The event hash of an event is the same in both forms. XML has text alone, so fields of somebody's own come as texts;
numbers and truth values of the standard's fields come as such. Each event gets an ``@context`` of its own with the
prefixes that are in scope at it. Paths in errors are those of the JSON-LD form, whose names the XML has too.

What has no JSON-LD form is refused, by its event alone: attributes on fields of one's own (``xsi:type`` says nothing
that the text does not), text beside elements, fields of one's own without a namespace. Of the header, the standard
business document header's sender, receiver and instance identifier are read; master data are none of an event's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from idtrace.epcis.context import STANDARD_CONTEXT
from idtrace.epcis.model import Json
from idtrace.epcis.parse import Parsed, read_value
from idtrace.epcis.rules import DocumentError, EventError, Fault, Rule
from idtrace.epcis.xml_event import read_event, text_of, unwrapped
from idtrace.epcis.xml_names import EPCIS_NAMESPACES, HEADER_NAMESPACE, QUERY_NAMESPACES, STRUCTURAL
from idtrace.epcis.xml_tree import Node, read_tree


def read_document(data: bytes, *, field: str = "document", capture: bool = True) -> Parsed:
    """The events of an XML document; as :func:`idtrace.epcis.parse.read_document` for JSON.

    Raises:
        InputError: as :func:`to_json`, or the document is broken as a whole.
    """
    document, errors = to_json(data, field=field)
    parsed = read_value(document, field=field, capture=capture)
    items = tuple(errors.get(index, item) for index, item in enumerate(parsed.items))
    return replace(parsed, items=items)


def to_json(data: bytes, *, field: str = "document") -> tuple[dict[str, Json], dict[int, EventError]]:
    """The document in its JSON-LD form, and the events that have none, by their place; they stand in it as null.

    Raises:
        InputError: as :func:`read_tree`. DocumentError: not a capture or query document of EPCIS.
    """
    root = read_tree(data, field=field)
    try:
        events = _event_list(root)
        document = _document(root)
    except Fault as fault:
        raise DocumentError(fault, field=field) from None
    read: list[Json] = []
    errors: dict[int, EventError] = {}
    for index, event in enumerate(events):
        try:
            read.append(read_event(event))
        except Fault as fault:
            errors[index] = EventError(index, fault.below(*_steps(root), "eventList", index), field=field)
            read.append(None)
    _body(document)["eventList"] = read
    return document, errors


def _steps(root: Node) -> tuple[str, ...]:
    return ("epcisBody", "queryResults", "resultsBody") if root.namespace in QUERY_NAMESPACES else ("epcisBody",)


def _body(document: dict[str, Json]) -> dict[str, Json]:
    body: dict[str, Json] = document["epcisBody"]
    inner: dict[str, Json] = body.get("queryResults", {}).get("resultsBody", body)
    return inner


def _document(root: Node) -> dict[str, Json]:
    document: dict[str, Json] = {
        "@context": [STANDARD_CONTEXT],
        "type": root.local,
        "schemaVersion": "2.0",
        **{name: text for name in ("id", "creationDate") if (text := root.attributes.get(name)) is not None},
        **dict(_header(root)),
        "epcisBody": {},
    }
    if root.namespace in QUERY_NAMESPACES:
        results = _one(_one(root, "EPCISBody"), "QueryResults")
        texts = {child.local: text_of(child) for child in results.children if child.name in _QUERY_TEXTS}
        document["epcisBody"] = {"queryResults": {**texts, "resultsBody": {}}}
    return document


_QUERY_TEXTS: Final = frozenset({"queryName", "subscriptionID"})
_ROOTS: Final = {
    **{f"{{{namespace}}}EPCISDocument": ("EPCISBody", "EventList") for namespace in EPCIS_NAMESPACES},
    **{
        f"{{{namespace}}}EPCISQueryDocument": ("EPCISBody", "QueryResults", "resultsBody", "EventList")
        for namespace in QUERY_NAMESPACES
    },
}
_VERSIONS: Final = re.compile(r"(?:2\.0(?:\.[0-9]+)?|1\.[012](?:\.[0-9]+)?)\Z")


def _event_list(root: Node) -> tuple[Node, ...]:
    if root.name not in _ROOTS:
        raise Fault(Rule.DOCUMENT_TYPE, f"<{root.name[:80]}> is no EPCISDocument and no EPCISQueryDocument")
    if _VERSIONS.match(root.attributes.get("schemaVersion", "")) is None:
        raise Fault(Rule.SCHEMA_VERSION, "XML is read in version 2.0, 1.2 and below", "schemaVersion")
    node = root
    for name in _ROOTS[root.name]:
        node = _one(node, name)
    return tuple(unwrapped(node))


def _one(node: Node, local: str) -> Node:
    """The one child of this name; its namespace is the binding's or none."""
    found = [child for child in node.children if child.local == local and child.namespace in STRUCTURAL | {""}]
    if len(found) != 1:
        raise Fault(Rule.FIELD_MISSING, f"<{node.local}> has one <{local}>, not {len(found)}", local)
    return found[0]


def _header(root: Node) -> Iterator[tuple[str, str]]:
    """Sender, receiver and instance identifier of the standard business document header."""
    places = {
        ("Sender", "Identifier"): "sender",
        ("Receiver", "Identifier"): "receiver",
        ("DocumentIdentification", "InstanceIdentifier"): "instanceIdentifier",
    }
    for header in (child for child in root.children if child.name == "EPCISHeader"):
        for business in header.children:
            for part in business.children if business.namespace == HEADER_NAMESPACE else ():
                for leaf in part.children:
                    if (name := places.get((part.local, leaf.local))) is not None:
                        yield name, text_of(leaf, frozenset({"Authority"}))

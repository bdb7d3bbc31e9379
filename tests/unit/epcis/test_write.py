"""What is written is what was read, in one form; what no reader would accept is not written."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings

from idtrace.epcis.context import STANDARD_CONTEXT
from idtrace.epcis.model import Action, Event, EventType, Quantity, SensorElement, SensorMetadata, SensorReport, Typed
from idtrace.epcis.parse import DocumentError, DocumentKind, Rule, read_document
from idtrace.epcis.write import document_json, event_bytes, event_json, query_document_json
from tests.shared_data import shared_data
from tests.unit.epcis.events import BUSY, ONE, document, events, plain, to_bytes


def read(value: Any) -> Event:
    parsed = read_document(to_bytes(value), capture=False)
    assert not parsed.errors
    return parsed.events[0]


@settings(max_examples=40, suppress_health_check=BUSY)
@given(events())
def test_what_is_written_of_any_event_is_read_as_the_same_event(value: dict[str, Any]) -> None:
    event = read(value)
    written = event_bytes(event)
    again = read_document(written, capture=False)
    assert again.events == (event,)
    assert event_bytes(again.events[0]) == written
    assert rfc8785.dumps(json.loads(written, parse_int=float)) == written


@settings(max_examples=40, suppress_health_check=BUSY)
@given(events())
def test_an_event_that_was_never_json_is_written_from_its_fields(value: dict[str, Any]) -> None:
    event = read(value)
    built = replace(event, raw={"@context": event.raw["@context"]})
    assert read_document(event_bytes(built), capture=False).events == (event,)


@settings(max_examples=15, suppress_health_check=BUSY)
@given(events(), events())
def test_documents_hold_the_same_events(first: dict[str, Any], second: dict[str, Any]) -> None:
    pair = read(first), read(second)
    captured = read_document(to_bytes(document_json(pair, 1_784_716_200_250, header={"sender": "urn:x:y"})))
    assert captured.events == pair
    assert captured.header == {"sender": "urn:x:y"}
    assert captured.created_ms == 1_784_716_200_250
    assert [event_bytes(event) for event in captured.events] == [event_bytes(event) for event in pair]
    found = read_document(to_bytes(query_document_json("SimpleEventQuery", "", pair, 0)))
    assert (found.kind, found.events, found.query_name) == (DocumentKind.QUERY, pair, "SimpleEventQuery")
    assert found.subscription_id == ""
    pushed = read_document(to_bytes(query_document_json("SimpleEventQuery", "32d2aec1", pair, 0)))
    assert (pushed.subscription_id, pushed.events) == ("32d2aec1", pair)


def test_the_company_in_which_an_event_was_captured_does_not_change_its_bytes() -> None:
    alone = {**plain("ObjectEvent"), "ext:shift": "night"}
    inner = {name: value for name, value in alone.items() if name != "@context"}
    more = [{"unused": "https://unused.example/"}, *alone["@context"]]
    outside = document(inner, **{"@context": more})
    within = document({**inner, "@context": [{"ext": "https://ns.example.com/epcis/"}]})
    written = {event_bytes(read(value)) for value in (alone, outside, within)}
    assert len(written) == 1
    assert json.loads(written.pop())["@context"] == [STANDARD_CONTEXT, {"ext": "https://ns.example.com/epcis/"}]


@pytest.mark.parametrize(
    "declared",
    [
        "https://ref.gs1.org/standards/epcis/epcis-context.jsonld",
        ["https://ref.gs1.org/standards/epcis/2.0.1/epcis-context.jsonld", {"cbv": "https://ref.gs1.org/cbv/"}],
    ],
)
def test_an_event_without_extensions_needs_the_context_of_the_standard_alone(declared: Any) -> None:
    assert event_json(read({**plain("ObjectEvent"), "@context": declared}))["@context"] == STANDARD_CONTEXT


def test_a_namespace_that_differs_from_the_usual_one_is_kept() -> None:
    declared = [STANDARD_CONTEXT, {"cbv": "https://ns.gs1.org/cbv/"}]
    value = {**plain("ObjectEvent"), "@context": declared, "bizStep": "cbv:BizStep-packing"}
    assert event_json(read(value))["@context"] == declared
    assert read(value).biz_step == "packing"


@pytest.mark.parametrize("folder", ["documents", "events", "query"])
def test_conformance_files_come_back_as_they_were(folder: str) -> None:
    count = 0
    for path in sorted(shared_data(f"epcis/{folder}").glob("*.json")):
        parsed = read_document(path.read_bytes(), capture=False)
        for event in parsed.events:
            assert read_document(event_bytes(event), capture=False).events == (event,), path.name
            built = replace(event, raw={"@context": event.raw["@context"]})
            assert read_document(event_bytes(built), capture=False).events == (event,), path.name
            count += 1
    sys.stdout.write(f"{folder}: {count} events written and read again\n")
    assert count >= 3


def made(**fields: Any) -> Event:
    return Event(EventType.OBJECT, Action.OBSERVE, 1_784_716_200_250, 480, **{"epcs": (ONE,), **fields})


def test_a_made_event_is_written_with_each_number_as_it_is() -> None:
    report = SensorReport(type="Temperature", value=Decimal("5.50"), uom="CEL", string_value="")
    event = made(
        quantities=(Quantity("urn:epc:class:lgtin:4012345.012345.1", Decimal(3)),),
        sensors=(SensorElement(SensorMetadata(time_ms=0), (report,)),),
        destinations=(Typed("possessing_party", "idtrace:88.118.8"),),
        extensions={"idtrace:doses": 2},
    )
    written = event_bytes(event)
    assert read_document(written).events == (event,)
    assert b'"value":5.5' in written
    assert b'"stringValue":""' in written
    assert b'"quantity":3}' in written
    assert b'"eventTime":"2026-07-22T10:30:00.250Z","eventTimeZoneOffset":"+08:00"' in written


@pytest.mark.parametrize(
    ("event", "rule", "path"),
    [
        (made(biz_step="transforming"), Rule.VOCABULARY, "bizStep"),
        (made(parent=ONE), Rule.FIELD_OF_OTHER_EVENT, "parentID"),
        (made(epcs=()), Rule.NO_OBJECTS, ""),
        (made(extensions={"ext:a": 1}), Rule.PREFIX_UNDECLARED, "ext:a"),
        (made(extensions={"https://a.example/b": Decimal("0.1000000000000000055")}), Rule.NUMBER, ""),
        (made(extensions={"https://a.example/b": Decimal("NaN")}), Rule.NUMBER, ""),
        (made(extensions={"https://a.example/b": 0.5}), Rule.NUMBER, ""),
        (made(extensions={"https://a.example/b": 2**53 + 1}), Rule.NUMBER, ""),
        (made(extensions={"https://a.example/b": "\ud800"}), Rule.SURROGATE, ""),
        (made(raw={"@context": "https://evil.example/c"}), Rule.CONTEXT_UNKNOWN, "@context"),
    ],
)
def test_what_no_reader_would_accept_is_not_written(event: Event, rule: Rule, path: str) -> None:
    with pytest.raises(DocumentError) as refused:
        event_bytes(event)
    assert (refused.value.rule, refused.value.path) == (rule, path)
    assert refused.value.field == f"event.{path}".strip(".")

"""Whatever an event says, a query that asks for just that finds it, and knows whom the event is about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings

from idtrace.epcis.model import Event
from idtrace.epcis.parse import read_document
from idtrace.epcis.query import matches, parse
from idtrace.epcis.query_values import number_of
from idtrace.epcis.uris import mentions
from idtrace.epcis.values import time_text
from tests.shared_data import shared_data
from tests.unit.epcis.events import BUSY, document, events, to_bytes

RECORDED_MS = 1_784_700_000_000


def said(event: Event) -> Iterator[tuple[str, list[str]]]:
    """Parameters that this event has to meet, each by itself and all together."""
    yield "eventType", [event.type]
    yield "GE_eventTime", [time_text(event.time_ms)]
    yield "LT_eventTime", [time_text(event.time_ms + 1)]
    yield "GE_recordTime", [time_text(RECORDED_MS)]
    yield "LT_recordTime", [time_text(RECORDED_MS + 1)]
    classes = [one.epc_class for one in (*event.quantities, *event.child_quantities)]
    texts: dict[str, list[str]] = {
        "EQ_action": [event.action or ""],
        "EQ_bizStep": [event.biz_step],
        "EQ_disposition": [event.disposition],
        "EQ_persistentDisposition_set": [*event.set_dispositions],
        "EQ_persistentDisposition_unset": [*event.unset_dispositions],
        "EQ_eventID": [event.event_id],
        "EQ_transformationID": [event.transformation_id],
        **{f"{op}_readPoint": [event.read_point] for op in ("EQ", "WD")},
        **{f"{op}_bizLocation": [event.biz_location] for op in ("EQ", "WD")},
        "MATCH_epc": [*event.epcs, *event.children],
        "MATCH_parentID": [event.parent],
        "MATCH_inputEPC": [*event.inputs],
        "MATCH_outputEPC": [*event.outputs],
        "MATCH_anyEPC": [*event.inputs, *event.outputs, event.parent],
        "MATCH_epcClass": classes,
        "MATCH_anyEPCClass": [*(one.epc_class for one in event.output_quantities), *classes],
        "EQ_errorReason": [event.error.reason] if event.error else [],
    }
    for name, typed in (
        ("bizTransaction", event.biz_transactions),
        ("source", event.sources),
        ("destination", event.destinations),
    ):
        texts |= {f"EQ_{name}_{one.type}": [one.id] for one in typed if one.type}
    yield from ((name, found) for name, values in texts.items() if (found := [text for text in values if text]))
    yield from measured(event)
    yield from ((f"EXISTS_{name}", []) for name in list(event.extensions)[:4])
    yield from ((f"EXISTS_ILMD_{name}", []) for name in list(event.ilmd)[:4])


def measured(event: Event) -> Iterator[tuple[str, list[str]]]:
    for element in event.sensors:
        if element.metadata.start_ms is not None:
            yield "GE_startTime", [time_text(element.metadata.start_ms)]
        for report in element.reports:
            if report.type:
                yield "EQ_type", [report.type]
            if report.device_id or element.metadata.device_id:
                yield "EQ_deviceID", [report.device_id or element.metadata.device_id]
            if report.string_value:
                yield "EQ_stringValue", [report.string_value]
            value = report.value
            if value is not None and report.uom and number_of(str(value)) is not None:
                yield f"EQ_value_{report.uom}", [str(value)]
                yield f"GE_value_{report.uom}", [str(value)]


def require_found(event: Event) -> None:
    told = {subject for subject, _ in mentions(event)}
    together: dict[str, Any] = {}
    for name, values in said(event):
        query = parse({name: values}, split=False)
        assert matches(query, event, RECORDED_MS), (name, values)
        (condition,) = query.conditions
        assert not condition.keys or condition.keys & told, "else its pointers would not lead to it"
        together[name] = values
    assert matches(parse(together, split=False), event, RECORDED_MS)


@given(events())
@settings(suppress_health_check=BUSY)
def test_an_event_is_found_by_all_that_it_says(fields: dict[str, Any]) -> None:
    (event,) = read_document(to_bytes(document(fields)), capture=False).items
    assert isinstance(event, Event), event
    require_found(event)


def test_the_events_of_others_are_found_by_all_that_they_say() -> None:
    count = 0
    for path in sorted(shared_data("epcis").glob("*/*.json")):
        if path.parent.name == "invalid":
            continue
        for event in read_document(path.read_bytes(), capture=False).events:
            require_found(event)
            count += 1
    assert count > 30

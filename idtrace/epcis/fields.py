"""An event's fields as JSON, for events that were never JSON: the way back of ``event.py`` and ``sensors.py``."""

from __future__ import annotations

from typing import Any, Final

from idtrace.epcis.model import ErrorDeclaration, Event, Quantity, SensorElement, Typed
from idtrace.epcis.sensors import METADATA_FIELDS, REPORT_FIELDS
from idtrace.epcis.values import Readers, offset_text, time_text

_TIMES: Final = frozenset(("time", "startTime", "endTime"))
# Texts and lists of texts that are written as they stand, where they are not empty.
_AS_THEY_STAND: Final = (
    ("eventID", "event_id"),
    ("epcList", "epcs"),
    ("parentID", "parent"),
    ("childEPCs", "children"),
    ("inputEPCList", "inputs"),
    ("outputEPCList", "outputs"),
    ("transformationID", "transformation_id"),
    ("bizStep", "biz_step"),
    ("disposition", "disposition"),
    ("certificationInfo", "certification_info"),
    ("ilmd", "ilmd"),
)
_QUANTITIES: Final = (
    ("quantityList", "quantities"),
    ("childQuantityList", "child_quantities"),
    ("inputQuantityList", "input_quantities"),
    ("outputQuantityList", "output_quantities"),
)
_PLACES: Final = (("readPoint", "read_point"), ("bizLocation", "biz_location"))
_TYPED: Final = (
    ("bizTransactionList", "bizTransaction", "biz_transactions"),
    ("sourceList", "source", "sources"),
    ("destinationList", "destination", "destinations"),
)


def event_fields(event: Event) -> dict[str, Any]:
    """The event as JSON without a context; times in UTC with milliseconds, numbers as Decimal, lists as tuples.

    What is empty is left out, whether the event's type may have it or not: a reader decides that.
    """
    fields: dict[str, Any] = {
        "type": str(event.type),
        "eventTime": time_text(event.time_ms),
        "eventTimeZoneOffset": offset_text(event.offset_minutes),
    }
    fields.update(_optional(event))
    fields.update((name, value) for name, attribute in _AS_THEY_STAND if (value := getattr(event, attribute)))
    for name, attribute in _QUANTITIES:
        if quantities := getattr(event, attribute):
            fields[name] = [_quantity(quantity) for quantity in quantities]
    for name, attribute in _PLACES:
        if place := getattr(event, attribute):
            fields[name] = {"id": place}
    for name, target, attribute in _TYPED:
        if entries := getattr(event, attribute):
            fields[name] = [_typed(entry, target) for entry in entries]
    return {**fields, **event.extensions}


def _optional(event: Event) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if event.action is not None:
        fields["action"] = str(event.action)
    if event.record_time_ms is not None:
        fields["recordTime"] = time_text(event.record_time_ms)
    persistent = {"set": event.set_dispositions, "unset": event.unset_dispositions}
    if any(persistent.values()):
        fields["persistentDisposition"] = {name: words for name, words in persistent.items() if words}
    if event.sensors:
        fields["sensorElementList"] = [_sensor(element) for element in event.sensors]
    if event.error is not None:
        fields["errorDeclaration"] = _error(event.error)
    return fields


def _quantity(quantity: Quantity) -> dict[str, Any]:
    fields: dict[str, Any] = {"epcClass": quantity.epc_class}
    if quantity.quantity is not None:
        fields["quantity"] = quantity.quantity
    if quantity.uom:
        fields["uom"] = quantity.uom
    return fields


def _typed(entry: Typed, target: str) -> dict[str, str]:
    return {"type": entry.type, target: entry.id} if entry.type else {target: entry.id}


def _error(error: ErrorDeclaration) -> dict[str, Any]:
    fields: dict[str, Any] = {"declarationTime": time_text(error.declared_ms)}
    if error.reason:
        fields["reason"] = error.reason
    if error.corrective_event_ids:
        fields["correctiveEventIDs"] = error.corrective_event_ids
    return {**fields, **error.extensions}


def _sensor(element: SensorElement) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if metadata := _named(element.metadata, METADATA_FIELDS):
        fields["sensorMetadata"] = metadata
    fields["sensorReport"] = [_named(report, REPORT_FIELDS) for report in element.reports]
    return {**fields, **element.extensions}


def _named(source: Any, names: Readers) -> dict[str, Any]:
    """The fields of a sensor's metadata or report that are there."""
    fields: dict[str, Any] = {}
    for name, (attribute, _) in names.items():
        value = getattr(source, attribute)
        # An empty stringValue says something; every other "" stands for nothing given.
        if value is not None and (value != "" or attribute == "string_value"):
            fields[name] = time_text(value) if name in _TIMES else value
    return {**fields, **source.extensions}

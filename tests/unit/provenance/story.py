"""Events for tests of provenance, told in the words of the trade: times are minutes after a fixed moment."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from idtrace.epcis.model import (
    Action,
    ErrorDeclaration,
    Event,
    EventType,
    SensorElement,
    SensorMetadata,
    SensorReport,
    Typed,
)
from idtrace.provenance.history import Observed

T0 = 1_760_000_000_000
MINUTE = 60_000
MAKER, CARRIER, CENTRE, CLINIC = "88.118.8", "88.118.30", "88.118.20", "88.118.9"
DOSE, BOX, CARTON, PALLET = (f"{MAKER}/{name}" for name in ("SN-1", "BOX-1", "CARTON-1", "PALLET-1"))
TRUCK, LOGGER = f"{CARRIER}/TRUCK-1", f"{CARRIER}/LOGGER-1"
PLANT, STORE, FRIDGE = f"{MAKER}/PLANT", f"{CENTRE}/ROOM-1", f"{CLINIC}/FRIDGE-1"


def at(minutes: float) -> int:
    return T0 + round(minutes * MINUTE)


def uri(key: str) -> str:
    return f"idtrace:{key}" if key and ":" not in key else key


def seen_by(party: str, event: Event) -> Observed:
    said = repr((party, event)).encode()
    digest = hashlib.sha256(said).hexdigest()
    return Observed(event, f"{party}/event/{digest}", party, event.time_ms // 1000)


def make(party: str, kind: EventType, minutes: float, **fields: Any) -> Observed:
    fields = {name: value for name, value in fields.items() if value}
    for name in ("epcs", "children", "inputs", "outputs"):
        if name in fields:
            fields[name] = tuple(uri(key) for key in fields[name])
    for name in ("parent", "read_point", "biz_location"):
        if name in fields:
            fields[name] = uri(fields[name])
    action = fields.pop("action", None if kind is EventType.TRANSFORMATION else Action.OBSERVE)
    return seen_by(party, Event(kind, action, at(minutes), 480, **fields))


def about(party: str, minutes: float, step: str, *things: str, **fields: Any) -> Observed:
    return make(party, EventType.OBJECT, minutes, biz_step=step, epcs=things, **fields)


def made(minutes: float, *things: str, by: str = MAKER, place: str = PLANT) -> Observed:
    return about(by, minutes, "commissioning", *things, action=Action.ADD, biz_location=place)


def packed(party: str, minutes: float, parent: str, *children: str, step: str = "packing") -> Observed:
    return make(
        party,
        EventType.AGGREGATION,
        minutes,
        action=Action.ADD,
        parent=parent,
        children=children,
        biz_step=step,
    )


def unpacked(party: str, minutes: float, parent: str, *children: str, step: str = "unpacking") -> Observed:
    return make(
        party,
        EventType.AGGREGATION,
        minutes,
        action=Action.DELETE,
        parent=parent,
        children=children,
        biz_step=step,
    )


def fitted(party: str, minutes: float, parent: str, *children: str, action: Action = Action.ADD) -> Observed:
    return make(party, EventType.ASSOCIATION, minutes, action=action, parent=parent, children=children)


def shipped(party: str, minutes: float, to: str, *things: str, **fields: Any) -> Observed:
    ends = (Typed("possessing_party", uri_of_party(to)),) if to else ()
    return about(party, minutes, "shipping", *things, disposition="in_transit", destinations=ends, **fields)


def received(party: str, minutes: float, of: str, *things: str, place: str = "", **fields: Any) -> Observed:
    ends = (Typed("possessing_party", uri_of_party(of)),) if of else ()
    return about(party, minutes, "receiving", *things, sources=ends, biz_location=place, **fields)


def measured(
    party: str, minutes: float, thing: str, *points: tuple[float, str], device: str = "", place: str = ""
) -> Observed:
    """Temperatures, °C, each with the minute in which it was read."""
    reports = tuple(
        SensorReport(type="Temperature", time_ms=at(minute), value=Decimal(value), uom="CEL", device_id=uri(device))
        for minute, value in points
    )
    element = SensorElement(SensorMetadata(), reports)
    things = (thing,) if thing else ()
    return about(party, minutes, "sensor_reporting", *things, sensors=(element,), read_point=place)


def taken_back(observed: Observed, minutes: float, **fields: Any) -> Observed:
    event = observed.event
    changed = {name: getattr(event, name) for name in Event.__dataclass_fields__} | fields
    changed["error"] = ErrorDeclaration(at(minutes), "did_not_occur")
    return seen_by(observed.party, Event(**changed))


def uri_of_party(prefix: str) -> str:
    return f"idtrace:{prefix}"


def chain() -> list[Observed]:
    """A dose from its maker through a centre to a clinic, in box, carton, pallet and truck."""
    return [
        made(0, DOSE, BOX, CARTON, PALLET),
        packed(MAKER, 10, BOX, DOSE, f"{MAKER}/SN-2"),
        packed(MAKER, 20, CARTON, BOX, f"{MAKER}/BOX-2"),
        packed(MAKER, 30, PALLET, CARTON),
        measured(MAKER, 40, "", (5, "5.0"), (35, "5.1"), place=PLANT),
        fitted(CARRIER, -500, TRUCK, LOGGER),
        packed(CARRIER, 60, TRUCK, PALLET, step="loading"),
        shipped(MAKER, 62, CENTRE, PALLET),
        about(CARRIER, 65, "departing", PALLET),
        measured(CARRIER, 180, LOGGER, (64, "4.0"), (120, "4.5"), (200, "30"), (50, "20"), device=LOGGER),
        unpacked(CARRIER, 180, TRUCK, step="unloading"),
        received(CENTRE, 190, MAKER, PALLET, place=STORE),
        measured(CENTRE, 400, "", (185, "6.0"), (300, "6.5"), (900, "9.0"), place=STORE),
        unpacked(CENTRE, 500, PALLET),
        unpacked(CENTRE, 510, CARTON, BOX),
        shipped(CENTRE, 600, CLINIC, BOX),
        received(CLINIC, 700, CENTRE, BOX, place=FRIDGE),
        unpacked(CLINIC, 710, BOX, DOSE),
        about(CLINIC, 800, "dispensing", DOSE, disposition="dispensed"),
    ]


def after(events: Iterable[Observed], *more: Observed) -> list[Observed]:
    return [*events, *more]

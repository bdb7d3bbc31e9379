"""What is done with codes, as values that become EPCIS events and are read out of them (:mod:`idtrace.drugcode`).

``events_of`` and ``act_of`` are each other's inverse for acts of at most :data:`EVENT_CODES_MAX` codes; a longer bill
becomes several events with the same bill.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final, assert_never

from idtrace.drugcode.bills import Bill, Direction
from idtrace.drugcode.codes import code_of, identifier_of
from idtrace.epcis import uris
from idtrace.epcis.model import Action, Event, EventType, SensorElement, SensorMetadata, SensorReport, Typed

# 40 bytes each: a third of what an event may have (idtrace/epcis/statement.py).
EVENT_CODES_MAX: Final = 1_000
_BILL_PATH: Final = "/bill/"
_REPLACEMENT_PATH: Final = "/replacement/"
_TEXTS: Final = ("equipment_name", "content", "agent")


@dataclass(frozen=True, slots=True)
class Packing:
    """Codes are packed into another code, or (``unpack``) taken out; unpacking without children takes out all."""

    parent: str
    children: tuple[str, ...]
    at_ms: int
    offset_minutes: int = 480
    unpack: bool = False


@dataclass(frozen=True, slots=True)
class Replacement:
    """A new code takes the place of an old one; ``number`` is the replacement's own."""

    old: str
    new: str
    number: str
    at_ms: int
    offset_minutes: int = 480


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Codes end; ``destroyed`` with the drug itself."""

    codes: tuple[str, ...]
    at_ms: int
    offset_minutes: int = 480
    destroyed: bool = False


@dataclass(frozen=True, slots=True)
class Activation:
    """Codes begin, with what is common to them; lot and expiry "" for not told."""

    codes: tuple[str, ...]
    at_ms: int
    offset_minutes: int = 480
    lot: str = ""
    expiry: str = ""


@dataclass(frozen=True, slots=True)
class Temperatures:
    """Readings of one equipment, in store or on the way.

    Attributes:
        equipment, equipment_name: URI of the logger, vehicle or room, and what its owner calls it.
        readings: (UTC ms, °C), in order of time.
        owner, transporter, agent: whose goods, who moves them (prefixes), and for whom it reports; "" for none.
        bill: number of the outbound bill, "" in store; content: what is measured, as the platform has it.
    """

    equipment: str
    readings: tuple[tuple[int, Decimal], ...]
    offset_minutes: int = 480
    owner: str = ""
    transporter: str = ""
    bill: str = ""
    equipment_name: str = ""
    content: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True)
class Fitting:
    """Equipment is fitted to a vehicle or a room, or (``removed``) taken from it; all are URIs."""

    carrier: str
    equipment: tuple[str, ...]
    at_ms: int
    offset_minutes: int = 480
    removed: bool = False


Act = Bill | Packing | Replacement | Cancellation | Activation | Temperatures | Fitting


def uri_of(code: str) -> str:
    """``idtrace:drug.<7>/<13>``.

    Raises:
        InputError: DRUG_CODE_MALFORMED.
    """
    return uris.uri_of(str(identifier_of(code)))


def events_of(act: Act, party: str) -> tuple[Event, ...]:
    """The events by which a party (its prefix) reports an act, in order.

    Raises:
        InputError: DRUG_CODE_MALFORMED.
    """
    match act:
        case Bill():
            return _bill_events(act, party)
        case Packing():
            return (_packing_event(act),)
        case Replacement():
            return _replacement_events(act, party)
        case Cancellation() | Activation():
            return _life_events(act)
        case Temperatures():
            return (_temperature_event(act, party),)
        case Fitting():
            return (_fitting_event(act),)
        case _:
            assert_never(act)


def _fitting_event(act: Fitting) -> Event:
    action, step = (Action.DELETE, "removing") if act.removed else (Action.ADD, "installing")
    at, offset = act.at_ms, act.offset_minutes
    return Event(EventType.ASSOCIATION, action, at, offset, biz_step=step, parent=act.carrier, children=act.equipment)


def _slices(codes: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [codes[start : start + EVENT_CODES_MAX] for start in range(0, len(codes), EVENT_CODES_MAX)]


def _about(act: Bill | Cancellation | Activation, action: Action, codes: tuple[str, ...], **fields: object) -> Event:
    epcs = tuple(map(uri_of, codes))
    return Event(EventType.OBJECT, action, act.at_ms, act.offset_minutes, epcs=epcs, **fields)  # type: ignore[arg-type]  # the callers' literals


def _bill_events(bill: Bill, party: str) -> tuple[Event, ...]:
    end = (Typed("possessing_party", f"{uris.SCHEME}{bill.partner}"),)
    number = f"{uris.SCHEME}{party}{_BILL_PATH}{bill.number}"
    if bill.direction is Direction.IN:
        fields: dict[str, object] = {"biz_step": "receiving", "disposition": "in_progress", "sources": end}
        papers = (Typed("recadv", number),)
    else:
        fields = {"biz_step": "shipping", "disposition": "in_transit", "destinations": end}
        papers = (Typed("desadv", number),)
    where = {"biz_location": bill.place} if bill.place else {}
    return tuple(
        _about(bill, Action.OBSERVE, codes, biz_transactions=papers, **fields, **where) for codes in _slices(bill.codes)
    )


def _life_events(act: Cancellation | Activation) -> tuple[Event, ...]:
    action = Action.DELETE
    if isinstance(act, Activation):
        told = {"cbvmda:lotNumber": act.lot, "cbvmda:itemExpirationDate": act.expiry}
        ilmd = {name: text for name, text in told.items() if text}
        action, fields = Action.ADD, {"biz_step": "commissioning", "disposition": "active", "ilmd": ilmd}
    elif act.destroyed:
        fields = {"biz_step": "destroying", "disposition": "destroyed"}
    else:
        fields = {"biz_step": "decommissioning", "disposition": "inactive"}
    return tuple(_about(act, action, codes, **fields) for codes in _slices(act.codes))


def _packing_event(act: Packing) -> Event:
    return Event(
        EventType.AGGREGATION,
        Action.DELETE if act.unpack else Action.ADD,
        act.at_ms,
        act.offset_minutes,
        parent=uri_of(act.parent),
        children=tuple(map(uri_of, act.children)),
        biz_step="unpacking" if act.unpack else "packing",
    )


def _replacement_events(act: Replacement, party: str) -> tuple[Event, ...]:
    changed = Event(
        EventType.TRANSFORMATION,
        None,
        act.at_ms,
        act.offset_minutes,
        inputs=(uri_of(act.old),),
        outputs=(uri_of(act.new),),
        transformation_id=f"{uris.SCHEME}{party}{_REPLACEMENT_PATH}{act.number}",
        disposition="active",
    )
    return (changed, *events_of(Cancellation((act.old,), act.at_ms, act.offset_minutes), party))


def _temperature_event(act: Temperatures, party: str) -> Event:
    reports = tuple(
        SensorReport(type="Temperature", time_ms=at_ms, value=value, uom="CEL", device_id=act.equipment)
        for at_ms, value in act.readings
    )
    ends = (("owning_party", act.owner), ("possessing_party", act.transporter))
    said = {f"idtrace:{name}": text for name in _TEXTS if (text := getattr(act, name))}
    return Event(
        EventType.OBJECT,
        Action.OBSERVE,
        act.readings[-1][0],
        act.offset_minutes,
        epcs=(act.equipment,),
        biz_step="sensor_reporting",
        sources=tuple(Typed(kind, f"{uris.SCHEME}{prefix}") for kind, prefix in ends if prefix),
        biz_transactions=(Typed("desadv", f"{uris.SCHEME}{party}{_BILL_PATH}{act.bill}"),) if act.bill else (),
        sensors=(SensorElement(SensorMetadata(), reports),),
        extensions=said,
    )


def act_of(event: Event) -> Act | None:
    """The act that an event reports; None where it is none about drug codes or their equipment."""
    at, offset = event.time_ms, event.offset_minutes
    codes = tuple(code_of(uris.key(uri)) for uri in (*event.epcs, *event.children))
    match event.type:
        case EventType.TRANSFORMATION:
            return _replacement(event)
        case EventType.ASSOCIATION if event.biz_step in ("installing", "removing"):
            return Fitting(event.parent, event.children, at, offset, event.action is Action.DELETE)
        case EventType.OBJECT if event.biz_step == "sensor_reporting":
            return _temperatures(event)
        case EventType.AGGREGATION if event.action is not Action.OBSERVE and all(codes):
            parent = code_of(uris.key(event.parent))
            return Packing(parent, codes, at, offset, event.action is Action.DELETE) if parent else None
        case EventType.OBJECT if codes and all(codes):
            return _object(event, codes)
        case _:
            return None


def _object(event: Event, codes: tuple[str, ...]) -> Act | None:
    at, offset = event.time_ms, event.offset_minutes
    match event.biz_step, event.action:
        case "commissioning", Action.ADD:
            told = event.ilmd
            lot, expiry = str(told.get("cbvmda:lotNumber", "")), str(told.get("cbvmda:itemExpirationDate", ""))
            return Activation(codes, at, offset, lot, expiry)
        case (("decommissioning" | "destroying"), Action.DELETE):
            return Cancellation(codes, at, offset, event.biz_step == "destroying")
        case (("receiving" | "shipping"), Action.OBSERVE):
            return _bill(event, codes)
        case _:
            return None


def _bill(event: Event, codes: tuple[str, ...]) -> Bill | None:
    inbound = event.biz_step == "receiving"
    kind, ends = ("recadv", event.sources) if inbound else ("desadv", event.destinations)
    number = _number(event, kind)
    partner = _party(ends, "possessing_party")
    if not number or not partner:
        return None
    direction = Direction.IN if inbound else Direction.OUT
    return Bill(direction, number, event.time_ms, event.offset_minutes, partner, codes, event.biz_location)


def _replacement(event: Event) -> Replacement | None:
    if len(event.inputs) != 1 or len(event.outputs) != 1:
        return None
    old, new = (code_of(uris.key(uri)) for uri in (*event.inputs, *event.outputs))
    number = event.transformation_id.rpartition(_REPLACEMENT_PATH)[2]
    return Replacement(old, new, number, event.time_ms, event.offset_minutes) if old and new else None


def _temperatures(event: Event) -> Temperatures | None:
    reports = [one for element in event.sensors for one in element.reports]
    readings = tuple(
        (one.time_ms, one.value)
        for one in reports
        if one.type == "Temperature" and one.uom == "CEL" and one.time_ms is not None and one.value is not None
    )
    if len(event.epcs) != 1 or not readings or len(readings) != len(reports):
        return None
    said = {name: str(event.extensions.get(f"idtrace:{name}", "")) for name in _TEXTS}
    return Temperatures(
        event.epcs[0],
        readings,
        event.offset_minutes,
        _party(event.sources, "owning_party"),
        _party(event.sources, "possessing_party"),
        _number(event, "desadv"),
        **said,
    )


def _number(event: Event, kind: str) -> str:
    return next((one.id.rpartition(_BILL_PATH)[2] for one in event.biz_transactions if one.type == kind), "")


def _party(ends: tuple[Typed, ...], kind: str) -> str:
    return next((uris.party_of(one.id) or "" for one in ends if one.type == kind), "")

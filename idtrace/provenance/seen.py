"""An observed event with its URIs made keys and its place in time: what all of provenance works on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from idtrace.epcis import uris
from idtrace.epcis.model import Action, Event, EventType, Typed
from idtrace.provenance.history import Observed

# Windows of time that begin before everything or never end; far beyond any time that an event may carry.
BEGINNING: Final = -(2**62)
FOREVER: Final = 2**62
# Clocks of two parties that meet at a ramp differ by minutes: hand-held scanners and warehouse systems are set by hand
# or once a day. What is told in the wrong order within this is one hand-over and no contradiction.
CLOCK_TOLERANCE_MS: Final = 10 * 60_000

MADE: Final = "commissioning"
SHIPPED: Final = "shipping"
RECEIVED: Final = "receiving"
UNSHIPPED: Final = "void_shipping"
MEASURED: Final = "sensor_reporting"
LOADED: Final = frozenset({"loading", "unloading"})
# CBV 2.0, section 7.1: what a carrier says of goods that it has.
CARRIED: Final = frozenset({"accepting", "loading", "departing", "transporting", "arriving", "unloading"})

_GROUPING: Final = frozenset({EventType.AGGREGATION, EventType.ASSOCIATION})
# Events of one millisecond in the order in which they can follow each other; windows include both of their ends.
_RANKS: Final = {MADE: 0, SHIPPED: 4, UNSHIPPED: 5, RECEIVED: 7}


@dataclass(frozen=True, slots=True)
class Seen:
    """An event by keys.

    Attributes:
        things: objects, parent, children, inputs and outputs, classes included: whom the event is about.
        named: those, and the places and devices.
        children: of a grouping event, single things only; ``takes_all`` is a DELETE that names none.
        place: key of the business location, "" for none.
        sender, receiver: prefixes of the possessing (else owning) parties among sources and destinations, or "".
        fits: an association, by which a thing or a device is fitted to another.
    """

    observed: Observed
    at_ms: int
    order: tuple[int, int, int, str]
    things: frozenset[str]
    named: frozenset[str]
    parent: str
    children: frozenset[str]
    takes_all: bool
    inputs: tuple[str, ...]
    outputs: frozenset[str]
    place: str
    sender: str
    receiver: str
    fits: bool

    @property
    def event(self) -> Event:
        """The event itself."""
        return self.observed.event

    @property
    def party(self) -> str:
        """Who reports it."""
        return self.observed.party

    @property
    def identifier(self) -> str:
        """Of its record: the evidence."""
        return self.observed.identifier

    @property
    def groups(self) -> bool:
        """Whether it says what is inside what."""
        return self.event.type in _GROUPING

    @property
    def removes(self) -> bool:
        """Whether it takes things out."""
        return self.event.action is Action.DELETE


def seen(observed: Observed) -> Seen:
    """An event by keys."""
    event = observed.event
    grouping = event.type in _GROUPING
    children = _keys(event.children)
    parent = uris.key(event.parent) if event.parent else ""
    classes = (*event.quantities, *event.child_quantities, *event.output_quantities)
    inputs = tuple(sorted(_keys((*event.inputs, *(each.epc_class for each in event.input_quantities)))))
    outputs = _keys((*event.outputs, *(each.epc_class for each in event.output_quantities)))
    about = _keys((*event.epcs, *(each.epc_class for each in classes)))
    things = about | children | outputs | frozenset(inputs) | ({parent} if parent else frozenset())
    devices = {report.device_id for element in event.sensors for report in element.reports}
    devices |= {element.metadata.device_id for element in event.sensors}
    around = _keys(uri for uri in (event.read_point, event.biz_location, *devices) if uri)
    return Seen(
        observed=observed,
        at_ms=event.time_ms,
        order=(event.time_ms, _rank(event), observed.reported_at, observed.identifier),
        things=things,
        named=things | around,
        parent=parent,
        children=children if grouping else frozenset(),
        takes_all=grouping and event.action is Action.DELETE and not event.children and not event.child_quantities,
        inputs=inputs,
        outputs=outputs,
        place=uris.key(event.biz_location) if event.biz_location else "",
        sender=_party(event.sources),
        receiver=_party(event.destinations),
        fits=event.type is EventType.ASSOCIATION,
    )


def without_voided(events: Iterable[Observed]) -> tuple[tuple[Observed, ...], tuple[Observed, ...]]:
    """What still stands, and what does not: events that were taken back, and the declarations that took them back.

    A declaration voids the events of the same party that say the same (EPCIS 2.0, section 7.4.1.3: it repeats the event
    and adds ``errorDeclaration``); where both carry an event ID these have to agree. It never tells of a happening.
    """
    given = sorted({one.identifier: one for one in events}.values(), key=lambda one: one.identifier)
    errors: dict[tuple[str, int], list[Event]] = {}
    for one in given:
        if one.event.error is not None:
            errors.setdefault((one.party, one.event.time_ms), []).append(one.event)
    standing: list[Observed] = []
    voided: list[Observed] = []
    for one in given:
        declared = errors.get((one.party, one.event.time_ms), ()) if errors else ()
        gone = one.event.error is not None or any(_same(error, one.event) for error in declared)
        (voided if gone else standing).append(one)
    return tuple(standing), tuple(voided)


def _same(error: Event, event: Event) -> bool:
    if error.event_id and event.event_id and error.event_id != event.event_id:
        return False
    return _content(error) == _content(event)


def _content(event: Event) -> tuple[object, ...]:
    told = {"event_id", "record_time_ms", "error", "raw"}
    return tuple(getattr(event, name) for name in Event.__dataclass_fields__ if name not in told)


def _keys(of: Iterable[str]) -> frozenset[str]:
    return frozenset(uris.key(uri) for uri in of)


def _party(ends: tuple[Typed, ...]) -> str:
    for kind in ("possessing_party", "owning_party"):
        for end in ends:
            if end.type == kind:
                return uris.party_of(end.id) or ""
    return ""


def _rank(event: Event) -> int:
    if event.type is EventType.TRANSFORMATION:
        return 0
    if event.type in _GROUPING:
        return 1 if event.action is Action.DELETE else 2
    if event.biz_step in CARRIED:
        return 6
    return _RANKS.get(event.biz_step, 3)

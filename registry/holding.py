"""Who has a thing in hand, as far as the events that this node keeps tell. Pure.

A small part of what provenance does over the whole tree (``idtrace/provenance``): the node knows the events of its own
zones and the pointers to others, so it can refuse a report by a party that cannot have the thing, and mostly knows too
little to say anything. Whatever it does not know is nobody's fault: then nobody is refused.

Shipped things are on their way, in nobody's hands, until somebody receives them; a carrier has them meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from idtrace.epcis.model import Action, Event, EventType
from idtrace.epcis.uris import key
from idtrace.errors import Reason, RefusedError, quoted
from registry.reporting import step_of

# Whoever only watches, or moves what others own, need not hold it; making something brings it into hands.
HANDS_ON: Final = frozenset(
    {
        "receiving", "storing", "stocking", "picking", "reserving", "replacing", "packing", "unpacking", "repackaging",
        "shipping", "void_shipping", "staging_outbound", "dispensing", "decommissioning", "destroying",
    }
)  # fmt: skip
# A box in a carton on a pallet in a container in a vehicle is five deep.
CONTAINERS_DEEP_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Told:
    """An event about a thing or its packages: who reported it and when; ``event`` is None where another node has it."""

    time_ms: int
    identifier: str
    party: str
    event: Event | None


def things_of(event: Event) -> tuple[str, ...]:
    """Keys of the things that an event handles, each once: a package stands for what is in it.

    What an aggregation packs is handled one by one, and so is what goes into a transformation.
    """
    uris = (event.parent, *event.epcs, *event.children, *event.inputs)
    return tuple(dict.fromkeys(key(uri) for uri in uris if uri))


def check_holder(event: Event, party: str, thing: str, told: Sequence[Told]) -> None:
    """Require that nobody else has a thing in hand when a party reports that it handles it.

    Args:
        event: what is reported.
        party: prefix of who reports it.
        thing: key of one thing that it handles.
        told: the events about it and the packages that it was in, in any order.

    Raises:
        RefusedError: CUSTODY_ELSEWHERE.
    """
    if not is_hands_on(event):
        return
    holder = holder_of(thing, told, event.time_ms)
    if holder not in ("", party):
        detail = f"{quoted(thing)} is in the hands of {holder}, which has not shipped it"
        raise RefusedError(Reason.CUSTODY_ELSEWHERE, detail, field="epcList")


def is_hands_on(event: Event) -> bool:
    """Whether only who has the things can report this; to take something back needs no hand on it."""
    return event.error is None and step_of(event) in HANDS_ON


def holder_of(thing: str, told: Iterable[Told], at_ms: int) -> str:
    """Prefix of the party that had a thing in hand at a time; "" where it was on its way, or where that is unknown."""
    earlier = sorted((one for one in told if one.time_ms <= at_ms), key=lambda one: (one.time_ms, one.identifier))
    void = _void(earlier)
    inside: dict[str, str] = {}
    holder = ""
    for one in earlier:
        if one.identifier in void:
            continue
        if one.event is None:
            holder = ""
            continue
        around = {thing, *_around(thing, inside)}
        _pack(one.event, around, inside)
        named = {key(uri) for uri in (*one.event.epcs, *one.event.outputs, one.event.parent) if uri}
        if named & around:
            holder = _after(one.event, one.party, holder)
    return holder


def _after(event: Event, party: str, holder: str) -> str:
    match step_of(event):
        case "commissioning" | "transforming" | "receiving" | "void_shipping":
            return party
        case "shipping":
            return ""
        case _:
            return holder


def _around(thing: str, inside: Mapping[str, str]) -> list[str]:
    """The packages around a thing, the innermost first."""
    around: list[str] = []
    while thing in inside and len(around) < CONTAINERS_DEEP_MAX:
        thing = inside[thing]
        around.append(thing)
    return around


def _pack(event: Event, around: set[str], inside: dict[str, str]) -> None:
    if event.type is not EventType.AGGREGATION:
        return
    parent, children = key(event.parent) if event.parent else "", {key(uri) for uri in event.children}
    for one in around:
        if event.action is Action.ADD and one in children and parent:
            inside[one] = parent
        elif event.action is Action.DELETE and inside.get(one) == parent and (one in children or not children):
            del inside[one]


def _void(told: Sequence[Told]) -> set[str]:
    """Events that their own party has taken back, and the declarations that did."""
    void: set[str] = set()
    for one in told:
        if one.event is None or one.event.error is None:
            continue
        void.add(one.identifier)
        content = _content(one.event)
        void.update(
            other.identifier
            for other in told
            if other.party == one.party and other.event is not None and _content(other.event) == content
        )
    return void


def _content(event: Event) -> Event:
    return replace(event, error=None, event_id="", record_time_ms=None)

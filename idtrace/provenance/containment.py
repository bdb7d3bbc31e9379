"""What was inside what, from when until when: read off AggregationEvents and AssociationEvents, as it was at each time.

A thing has one place in each of three slots: in a package, in a vehicle (a loading list may name the inner packages
too), and fitted to something (an association). A new package ends the stay in the one before; where nobody has said
that it was taken out, that is a contradiction, unless the word comes within the tolerance of two clocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

from idtrace.epcis.model import Action
from idtrace.provenance.history import Clash, Contradiction, Inside
from idtrace.provenance.seen import CLOCK_TOLERANCE_MS, LOADED, Seen


class Slot(IntEnum):
    """In how many ways a thing can be inside something at once."""

    PACKAGE = 0
    VEHICLE = 1
    FITTED = 2


@dataclass(frozen=True, slots=True)
class Stays:
    """Where one thing was inside, by slot and in order of time, and what contradicts itself in that."""

    insides: tuple[tuple[Slot, Inside], ...] = ()
    contradictions: tuple[Contradiction, ...] = ()


@dataclass(slots=True)
class _Reading:
    child: str
    events: Sequence[Seen]
    vehicles: frozenset[str]
    now: dict[Slot, Inside] = field(default_factory=dict)
    last: dict[Slot, str] = field(default_factory=dict)  # the container of the stay that ended last
    pardoned: set[str] = field(default_factory=set)
    ended: list[tuple[Slot, Inside]] = field(default_factory=list)
    found: list[Contradiction] = field(default_factory=list)


def vehicles(events: Iterable[Seen]) -> frozenset[str]:
    """What is loaded and unloaded is a vehicle, whatever its licence says."""
    return frozenset(seen.parent for seen in events if seen.groups and seen.event.biz_step in LOADED and seen.parent)


def stays(child: str, events: Sequence[Seen], vehicles: frozenset[str]) -> Stays:
    """Every stay of a thing, out of the events in order of time that name it or empty a container."""
    reading = _Reading(child, events, vehicles)
    for position, seen in enumerate(events):
        if not seen.groups or not seen.parent:
            continue
        slot = Slot.FITTED if seen.fits else Slot.VEHICLE if seen.parent in vehicles else Slot.PACKAGE
        inside = reading.now.get(slot)
        if child in seen.children:
            if seen.removes:
                _take_out(reading, slot, inside, seen)
            else:
                _put_in(reading, slot, inside, position)
        elif seen.takes_all and inside is not None and inside.container == seen.parent:
            _end(reading, slot, inside, seen)
    still = [(slot, inside) for slot, inside in reading.now.items()]
    insides = sorted((*reading.ended, *still), key=lambda one: (one[1].start_ms, one[0], one[1].container))
    return Stays(tuple(insides), tuple(reading.found))


def _put_in(reading: _Reading, slot: Slot, inside: Inside | None, position: int) -> None:
    seen = reading.events[position]
    if inside is not None and inside.container == seen.parent:
        return  # said again
    if seen.parent == reading.child:
        _contradict(reading, Clash.CYCLE, seen, f"{reading.child} is packed into itself")
        return
    if inside is not None:
        later = _taken_out_soon(reading, inside.container, position)
        if later is None:
            detail = f"{reading.child} is packed into {seen.parent} while it is in {inside.container}"
            _contradict(reading, Clash.TWO_PARENTS, seen, detail, *inside.evidence)
        else:
            reading.pardoned.add(later.identifier)
        _end(reading, slot, inside, seen)
    reading.now[slot] = Inside(reading.child, seen.parent, seen.at_ms, None, (seen.identifier,))


def _take_out(reading: _Reading, slot: Slot, inside: Inside | None, seen: Seen) -> None:
    if inside is not None and inside.container == seen.parent:
        _end(reading, slot, inside, seen)
    elif seen.identifier not in reading.pardoned and (inside is not None or reading.last.get(slot) != seen.parent):
        # To be taken out of where it was last, once more, is the same said twice.
        where = f"it is in {inside.container}" if inside is not None else "nobody has packed it there"
        evidence = inside.evidence if inside is not None else ()
        _contradict(
            reading, Clash.NOT_INSIDE, seen, f"{reading.child} is unpacked from {seen.parent}, and {where}", *evidence
        )


def _taken_out_soon(reading: _Reading, container: str, position: int) -> Seen | None:
    """The word that a thing has left a container, where it is late by no more than two clocks may differ."""
    until_ms = reading.events[position].at_ms + CLOCK_TOLERANCE_MS
    for seen in reading.events[position + 1 :]:
        if seen.at_ms > until_ms:
            break
        if seen.parent == container and seen.event.action is Action.DELETE:
            return seen
    return None


def _end(reading: _Reading, slot: Slot, inside: Inside, seen: Seen) -> None:
    evidence = (*inside.evidence, seen.identifier)
    reading.ended.append((slot, replace(inside, end_ms=seen.at_ms, evidence=evidence)))
    reading.last[slot] = inside.container
    del reading.now[slot]


def _contradict(reading: _Reading, kind: Clash, seen: Seen, detail: str, *evidence: str) -> None:
    reading.found.append(Contradiction(kind, seen.at_ms, detail, (*evidence, seen.identifier)))

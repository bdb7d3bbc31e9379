"""What concerns a thing, and when: the thing itself, whatever it was in at that time, rooms, devices, and its sources.

One :class:`Survey` a question. Stays and readings of one thing in one window of time are worked out once and kept in a
:class:`Memo`, by the events that they rest on; so the doses of a carton share the carton's, its readings are one and
the same tuple, and whoever judges them may keep its work by that identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from idtrace.coldchain.extract import readings as readings_of
from idtrace.coldchain.readings import Reading
from idtrace.epcis.model import EventType
from idtrace.provenance.containment import Slot, Stays, stays
from idtrace.provenance.history import Clash, Contradiction, Inside, Observed
from idtrace.provenance.seen import BEGINNING, FOREVER, RECEIVED, Seen, seen

# Dose, box, carton, pallet, container, vehicle, ferry are seven; and a filling has bulk, seed lot and cell bank.
DEPTH_MAX: Final = 10
# Parts of some thousand packages; a part is a few KiB beside the events that it names.
MEMO_PARTS_MAX: Final = 65_536


class Concern(StrEnum):
    """Why a thing concerns the subject."""

    SUBJECT = "subject"
    CONTAINER = "container"
    PLACE = "place"
    DEVICE = "device"
    SOURCE = "source"


@dataclass(frozen=True, slots=True)
class Scope:
    """A thing concerns the subject in [start, end], UTC ms; ``depth`` as in :class:`~.history.Step`."""

    key: str
    concern: Concern
    start_ms: int
    end_ms: int
    depth: int


@dataclass(frozen=True, slots=True)
class Part:
    """What one thing contributes in one window.

    Attributes:
        events: events about it with what they are about and the number of packages between.
        sensed: events whose readings count, the same way; they may be told after the window.
        readings: in order of time.
        insides: stays of it and of what it was in, with the number of packages from the subject up to the container.
    """

    events: tuple[tuple[Seen, str, int], ...] = ()
    sensed: tuple[tuple[Seen, str, int], ...] = ()
    readings: tuple[Reading, ...] = ()
    insides: tuple[tuple[Slot, Inside, int], ...] = ()
    scopes: tuple[Scope, ...] = ()
    contradictions: tuple[Contradiction, ...] = ()


@dataclass(slots=True)
class Memo:
    """What is worked out once for many subjects. Not shared between threads; it forgets all where it is full."""

    seen: dict[str, Seen] = field(default_factory=dict)
    readings: dict[str, tuple[Reading, ...]] = field(default_factory=dict)
    parts: dict[Any, Any] = field(default_factory=dict)

    def keys(self, observed: Observed) -> Seen:
        """The event by keys."""
        known = self.seen.get(observed.identifier)
        if known is None or known.observed is not observed:
            known = self.seen[observed.identifier] = seen(observed)
            self.readings.pop(observed.identifier, None)
        return known

    def measured(self, one: Seen) -> tuple[Reading, ...]:
        """Its readings in order of time."""
        known = self.readings.get(one.identifier)
        if known is None:
            known = self.readings[one.identifier] = tuple(sorted(readings_of((one.observed,)), key=reading_order))
        return known

    def room(self) -> None:
        """Forget everything where there is too much of it."""
        if len(self.parts) > MEMO_PARTS_MAX or len(self.seen) > MEMO_PARTS_MAX:
            self.parts.clear()
            self.seen.clear()
            self.readings.clear()


class Survey:
    """The events of one question: what names whom, looked up once."""

    def __init__(self, events: Sequence[Seen], vehicles: frozenset[str], memo: Memo) -> None:
        self.vehicles = vehicles
        self.memo = memo
        self._events = events
        self._naming: dict[str, tuple[Seen, ...]] = {}

    def naming(self, key: str) -> tuple[Seen, ...]:
        """Events that name a thing, place or device, in order."""
        known = self._naming.get(key)
        if known is None:
            known = self._naming[key] = tuple(one for one in self._events if key in one.named)
        return known

    def stays(self, child: str) -> Stays:
        """Where a thing was inside."""
        own = [one for one in self.naming(child) if child in one.children]
        parents = {one.parent for one in own}
        emptied = {one.order: one for parent in parents for one in self.naming(parent) if one.takes_all}
        events = sorted((*own, *emptied.values()), key=lambda one: one.order)
        key = (Stays, child, self.vehicles, tuple(one.identifier for one in events))
        known = self.memo.parts.get(key)
        if known is None:
            known = self.memo.parts[key] = stays(child, events, self.vehicles)
        assert isinstance(known, Stays), "the key names its kind"
        return known

    def part(
        self,
        thing: str,
        start_ms: int = BEGINNING,
        end_ms: int = FOREVER,
        *,
        path: tuple[str, ...] = (),
        received_ms: tuple[int, ...] = (),
    ) -> Part:
        """A thing in a window of time, with all that it was in meanwhile; ``path`` are the things inside it.

        ``received_ms`` is when things inside it were received: nothing stays on a vehicle beyond that.
        """
        own = self._own(thing, start_ms, end_ms, len(path))
        receipts = tuple(sorted({*received_ms, *(one.at_ms for one, _, _ in own.events if _is_receipt(one))}))
        parts = [own]
        found = self.stays(thing)
        insides: list[tuple[Slot, Inside, int]] = []
        clashes = list(found.contradictions if not path else ())
        for slot, inside in found.insides:
            cut = _cut(slot, inside, start_ms, end_ms, receipts)
            if cut is None:
                continue
            insides.append((slot, cut, len(path) + 1))
            if cut.container in {thing, *path} or len(path) >= DEPTH_MAX:
                detail = f"{cut.container} is inside itself, by way of {thing}"
                clashes.append(Contradiction(Clash.CYCLE, cut.start_ms, detail, cut.evidence))
                continue
            until_ms = FOREVER if cut.end_ms is None else cut.end_ms
            parts.append(self.part(cut.container, cut.start_ms, until_ms, path=(*path, thing), received_ms=receipts))
        if path:
            clashes += [one for one in found.contradictions if start_ms <= one.at_ms <= end_ms]
        parts.append(Part(insides=tuple(insides), contradictions=tuple(clashes)))
        return self.joined(parts)

    def around(self, key: str, start_ms: int, end_ms: int, depth: int) -> Part:
        """A place in a window of time: what was measured there, by its own word or by the devices fitted to it."""
        scope = Scope(key, Concern.PLACE, start_ms, end_ms, depth)
        fitted = self._devices(key, start_ms, end_ms, depth)
        return self.joined([self._measured(key, start_ms, end_ms, depth, Part(scopes=(scope,))), *fitted])

    def sources(self, thing: str, path: tuple[str, ...] = ()) -> Part:
        """What a thing was made of, and of what that, backwards; no readings: what it is made of is another thing."""
        parts: list[Part] = []
        for made in self.naming(thing):
            if made.event.type is not EventType.TRANSFORMATION or thing not in made.outputs:
                continue
            for source in made.inputs:
                if source in {thing, *path} or len(path) >= DEPTH_MAX:
                    continue
                depth = -1 - len(path)
                scope = Scope(source, Concern.SOURCE, BEGINNING, made.at_ms, depth)
                about = [one for one in self.naming(source) if source in one.things and one.at_ms <= made.at_ms]
                parts.append(Part(events=tuple((one, source, depth) for one in about), scopes=(scope,)))
                parts.append(self.sources(source, (*path, thing)))
        return self.joined(parts)

    def joined(self, parts: Sequence[Part]) -> Part:
        """Parts as one; the readings of one alone stay the very tuple that they are."""
        parts = [one for one in parts if one is not _NOTHING]
        if len(parts) == 1:
            return parts[0]
        measured = {id(one.readings): one.readings for one in parts if one.readings}
        return Part(
            tuple(each for one in parts for each in one.events),
            tuple(each for one in parts for each in one.sensed),
            self._merged(tuple(measured.values())),
            tuple(each for one in parts for each in one.insides),
            tuple(each for one in parts for each in one.scopes),
            tuple(each for one in parts for each in one.contradictions),
        )

    def _merged(self, runs: tuple[tuple[Reading, ...], ...]) -> tuple[Reading, ...]:
        if len(runs) < 2:
            return runs[0] if runs else ()
        key = tuple(sorted(id(run) for run in runs))
        known = self.memo.parts.get(key)
        if known is None:
            merged = tuple(sorted({reading for run in runs for reading in run}, key=reading_order))
            # Beside the runs themselves: while they are kept, nothing else can have their identities.
            known = self.memo.parts[key] = (merged, runs)
        merged_readings: tuple[Reading, ...] = known[0]
        return merged_readings

    def _own(self, thing: str, start_ms: int, end_ms: int, depth: int) -> Part:
        concern = Concern.CONTAINER if depth else Concern.SUBJECT
        scope = Scope(thing, concern, start_ms, end_ms, depth)
        about = [
            (one, thing, depth) for one in self.naming(thing) if thing in one.things and start_ms <= one.at_ms <= end_ms
        ]
        base = self._measured(thing, start_ms, end_ms, depth, Part(events=tuple(about), scopes=(scope,)))
        return self.joined([base, *self._devices(thing, start_ms, end_ms, depth)])

    def _devices(self, key: str, start_ms: int, end_ms: int, depth: int) -> Iterable[Part]:
        """Devices that were fitted to a thing or a place, each in the time in which it was."""
        fitted = sorted({child for one in self.naming(key) if one.fits and one.parent == key for child in one.children})
        for device in fitted:
            for slot, inside in self.stays(device).insides:
                cut = _cut(slot, inside, start_ms, end_ms, ())
                if slot is Slot.FITTED and inside.container == key and cut is not None:
                    until_ms = FOREVER if cut.end_ms is None else cut.end_ms
                    scope = Scope(device, Concern.DEVICE, cut.start_ms, until_ms, depth + 1)
                    yield self._measured(device, cut.start_ms, until_ms, depth + 1, Part(scopes=(scope,)))

    def _measured(self, key: str, start_ms: int, end_ms: int, depth: int, part: Part) -> Part:
        """The part with what was measured of a thing, at a place or by a device in this window."""
        sensing = [one for one in self.naming(key) if one.event.sensors]
        if not sensing:
            return part
        memo_key = (Part, key, start_ms, end_ms, depth, tuple(one.identifier for one in sensing))
        known = self.memo.parts.get(memo_key)
        if known is None:
            events: list[tuple[Seen, str, int]] = []
            inside: set[Reading] = set()
            for one in sensing:
                due = [each for each in self.memo.measured(one) if start_ms <= each.time_ms <= end_ms]
                if due:
                    events.append((one, key, depth))
                    inside.update(due)
            known = self.memo.parts[memo_key] = (tuple(events), tuple(sorted(inside, key=reading_order)))
        sensed, measured = known
        return replace(part, sensed=sensed, readings=measured)


_NOTHING: Final = Part()


def reading_order(reading: Reading) -> tuple[Any, ...]:
    """By time, then by device, evidence, value and what it was of."""
    return (reading.time_ms, reading.device, reading.evidence, reading.celsius, reading.subject)


def _is_receipt(one: Seen) -> bool:
    return one.event.biz_step == RECEIVED


def _cut(slot: Slot, inside: Inside, start_ms: int, end_ms: int, receipts: tuple[int, ...]) -> Inside | None:
    """The stay within a window, or None; a stay on a vehicle ends where what is on it has been received."""
    start = max(start_ms, inside.start_ms)
    end = end_ms if inside.end_ms is None else min(end_ms, inside.end_ms)
    if slot is Slot.VEHICLE:
        end = min((end, *(at_ms for at_ms in receipts if at_ms > start)))
    if end < start:
        return None
    return replace(inside, start_ms=start, end_ms=None if end == FOREVER else end)

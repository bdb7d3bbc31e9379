"""What the events of a node name: the types, things, steps and places that EPCIS 2.0 lists as resources of their own.

They are gathered in the order of recording, each event once: a call reads on from where the last one has ended, so many
events at most, and who asks often finds all of them gathered. A list that could not be gathered to its end says so.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from idtrace.epcis.model import Event
from registry.event_reading import EventReading
from registry.event_sources import READ_AT_ONCE, Row
from registry.storage import Storage

# Events that one call reads on: about two seconds of work, which others are let into after every eight.
GATHERED_MAX: Final = 5_000
GATHERED_AT_ONCE: Final = 8
# Values of one kind, 100 bytes each: a maker's things are more than any node remembers, and its list says so.
VALUES_MAX: Final = 50_000


class ValueKind(StrEnum):
    """The resources of EPCIS 2.0, section 12.7.2, by their names in URLs."""

    EVENT_TYPES = "eventTypes"
    EPCS = "epcs"
    BIZ_STEPS = "bizSteps"
    BIZ_LOCATIONS = "bizLocations"
    READ_POINTS = "readPoints"
    DISPOSITIONS = "dispositions"


@dataclass(frozen=True, slots=True)
class Values:
    """Some values of one kind, sorted.

    Attributes:
        values: as they stand in events; words of CBV bare.
        more: whether others come after them.
        complete: whether all events have been gathered.
    """

    values: tuple[str, ...]
    more: bool
    complete: bool


_OF: Final[Mapping[ValueKind, Callable[[Event], Iterable[str]]]] = {
    ValueKind.EVENT_TYPES: lambda event: (event.type.value,),
    ValueKind.EPCS: lambda event: (event.parent, *event.epcs, *event.children, *event.inputs, *event.outputs),
    ValueKind.BIZ_STEPS: lambda event: (event.biz_step,),
    ValueKind.BIZ_LOCATIONS: lambda event: (event.biz_location,),
    ValueKind.READ_POINTS: lambda event: (event.read_point,),
    ValueKind.DISPOSITIONS: lambda event: (event.disposition,),
}


class EventValues:
    """The values of one store's events. Belongs to one event loop."""

    def __init__(self, storage: Storage, reading: EventReading) -> None:
        self._storage = storage
        self._reading = reading
        self._sorted: dict[ValueKind, list[str]] = {kind: [] for kind in ValueKind}
        self._known: dict[ValueKind, set[str]] = {kind: set() for kind in ValueKind}
        self._left_out: set[ValueKind] = set()
        self._upto = 0  # the place in the order of recording up to which all is gathered
        self._gathering = asyncio.Lock()

    async def page(self, kind: ValueKind, after: str, most: int) -> Values:
        """The values after one ("" for the first), at most so many."""
        async with self._gathering:
            complete = await self._gather()
        values = self._sorted[kind]
        start = bisect_right(values, after)
        found = tuple(values[start : start + most])
        return Values(found, start + most < len(values), complete and kind not in self._left_out)

    async def _gather(self) -> bool:
        """Read on; whether the end was reached."""
        looked = 0
        while looked < GATHERED_MAX:
            recorded = await self._storage.events(self._upto, READ_AT_ONCE)
            for one in recorded:
                found = await self._reading.found(Row(one.sequence, one.event, one.sequence))
                assert found is not None, "what the order of recording has is recorded here"
                self._take(found.event)
                self._upto = one.sequence
                looked += 1
                if looked % GATHERED_AT_ONCE == 0:
                    await asyncio.sleep(0)
            if len(recorded) < READ_AT_ONCE:
                return True
        return False

    def _take(self, event: Event) -> None:
        for kind, of in _OF.items():
            known = self._known[kind]
            for value in of(event):
                if not value or value in known:
                    continue
                if len(known) >= VALUES_MAX:
                    self._left_out.add(kind)
                    break
                known.add(value)
                insort(self._sorted[kind], value)

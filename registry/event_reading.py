"""An event as a node has recorded it: its bytes, what they say, its place in the order of recording, and the time.

Events never change, so the last ones that were read are kept: subscribers and pages ask for the same ones again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from idtrace import wire
from idtrace.entry import Entry
from idtrace.epcis.model import Event
from idtrace.epcis.parse import read_document
from idtrace.epcis.statement import is_event, join
from idtrace.errors import IdtraceError
from idtrace.identifier import Identifier
from idtrace.record import RecordBody
from registry.event_sources import Row
from registry.storage import Storage

# Bytes of the events that are kept; parsed they take ten times as many.
KEPT_BYTES_MAX: Final = 2 * 1024 * 1024
# What is parsed between two looks at the loop, ten events of a pallet: 5 ms. One event has 124 KiB at most.
PARSED_AT_ONCE: Final = 16 * 1024
# Events of one time whose identifiers begin as this one's: they differ in the last of 64 hex digits.
_NEIGHBOURS: Final = 16


@dataclass(frozen=True, slots=True)
class Found:
    """An event of this node.

    Attributes:
        identifier: of its record, ``PARTY/event/HEX``.
        statement: its bytes, as they were signed.
        event: what they say.
        sequence: its place in the order of recording.
        record_time_ms: when it was recorded, UTC; a multiple of 1,000, for logs count seconds.
    """

    identifier: str
    statement: bytes
    event: Event
    sequence: int
    record_time_ms: int


class EventReading:
    """Reads events out of one store. Belongs to one event loop."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._kept: OrderedDict[str, Found] = OrderedDict()
        self._kept_bytes = 0
        self._parsed_bytes = 0  # since the last look at the loop

    async def found(self, row: Row) -> Found | None:
        """The event of a row; None where it is recorded elsewhere."""
        known = self._kept.get(row.event)
        if known is not None:
            self._kept.move_to_end(row.event)
            return known
        return await self._read(row.event, row.sequence)

    async def get(self, identifier: str) -> Found | None:
        """An event by its identifier; None where there is none here, or it is no event's."""
        try:
            if not is_event(Identifier.parse_canonical(identifier)):
                return None
        except IdtraceError:
            return None
        return self._kept.get(identifier) or await self._read(identifier, None)

    async def recorded_ms(self, identifier: str) -> int | None:
        """When an event was recorded, as the log says; None where it is not logged."""
        stored = await self._storage.stored(identifier, 1)
        return None if stored is None or stored.index is None else await self._logged_ms(stored.index)

    async def _logged_ms(self, index: int) -> int:
        (entry,) = await self._storage.log_entries(index, 1)
        return Entry.from_bytes(entry).committed_at * 1000

    async def _read(self, identifier: str, sequence: int | None) -> Found | None:
        stored = await self._storage.stored(identifier, 1)
        if stored is None:
            return None
        self._parsed_bytes += len(stored.record)
        if self._parsed_bytes > PARSED_AT_ONCE:
            self._parsed_bytes = 0
            await asyncio.sleep(0)
        record = wire.record_from_bytes(stored.record)
        statement = join(record.values)
        (event,) = read_document(statement, capture=False).items
        assert isinstance(event, Event), "it was parsed before it was recorded"
        if sequence is None:
            sequence = await self._sequence(identifier, event.time_ms)
            if sequence is None:
                return None
        if stored.index is None:
            record_time_ms = RecordBody.parse(record.signed.payload).issued_at * 1000
        else:
            record_time_ms = await self._logged_ms(stored.index)
        return self._keep(Found(identifier, statement, event, sequence, record_time_ms))

    async def _sequence(self, identifier: str, time_ms: int) -> int | None:
        """Its place, looked up by its time."""
        rows = await self._storage.events_between(time_ms, time_ms + 1, (time_ms, identifier[:-1]), _NEIGHBOURS)
        return next((row.sequence for row in rows if row.event == identifier), None)

    def _keep(self, found: Found) -> Found:
        if found.identifier in self._kept:  # another has read it meanwhile
            return found
        self._kept[found.identifier] = found
        self._kept_bytes += len(found.statement)
        while self._kept_bytes > KEPT_BYTES_MAX:
            _, gone = self._kept.popitem(last=False)
            self._kept_bytes -= len(gone.statement)
        return found

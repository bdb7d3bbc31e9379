"""What happened to the doses of the demonstration, as EPCIS 2.0 documents: one of each party, as its software sends it.

Four doses, two boxes; each box in a carton on a pallet, and each pallet in a truck of its own from the maker to the
provincial centre; then both boxes in a van to a clinic. One of the trucks froze. Times are minutes before now.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

MAKER, CENTRE, CARRIER, CLINIC, STRANGER = "88.118.8", "88.118.2", "88.118.3", "88.118.4", "88.118.5"
SOUND, COPIED, RECALLED, FROZEN = (f"{MAKER}/D-{number}" for number in range(1, 5))
DOSES: Final = (SOUND, COPIED, RECALLED, FROZEN)
PRODUCT: Final = f"{MAKER}/class/mmr"
# The recall is of a lot, and one dose is of it.
LOT, LOT_RECALLED = "2026A01", "2026A02"
EXPIRY: Final = "2099-05-31"
BOXES, CARTONS, PALLETS = (
    tuple(f"{MAKER}/{name}-{number}" for number in (1, 2)) for name in ("BOX", "CARTON", "PALLET")
)
TRUCKS, VAN = tuple(f"{CARRIER}/TRUCK{number}" for number in (1, 2)), f"{CARRIER}/VAN3"
PLANT, STORE, FRIDGE, FAR_ROOM = f"{MAKER}/PLANT", f"{CENTRE}/STORE", f"{CLINIC}/FRIDGE", f"{STRANGER}/ROOM"
IN_BOX: Final = {BOXES[0]: (SOUND, COPIED, RECALLED), BOXES[1]: (FROZEN,)}

# Minutes before now.
MADE, SHIPPED, ARRIVED, SENT_ON, HERE = 1_500, 1_200, 1_000, 600, 540
FROST_FROM, FROST_UNTIL = 1_130, 1_026
GIVEN, GIVEN_AGAIN = 60, 30
# GSP 附录: every 30 minutes in a store, every 5 on the way, every 2 where it is out of range.
ROOM_MINUTES, WAY_MINUTES, ALARM_MINUTES = 30, 5, 2
CHINA: Final = dt.timezone(dt.timedelta(hours=8))


@dataclass(slots=True)
class Documents:
    """Events by party, told in relation to ``now_ms`` (UTC)."""

    now_ms: int
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def say(self, party: str, minutes: float, kind: str, step: str, **fields: Any) -> None:
        """One event that happened so many minutes before now."""
        event = {"type": kind, "eventTime": self.at(minutes), "eventTimeZoneOffset": "+08:00", "bizStep": step}
        self.events.setdefault(party, []).append(event | fields)

    def seen(self, party: str, minutes: float, step: str, things: Iterable[str], **fields: Any) -> None:
        """Things are observed, or made where ``action`` is ADD."""
        epcs = [uri(thing) for thing in things]
        self.say(party, minutes, "ObjectEvent", step, **{"action": "OBSERVE", "epcList": epcs} | fields)

    def packed(self, party: str, minutes: float, into: str, things: Iterable[str], step: str = "packing") -> None:
        """Things go into a package or a vehicle."""
        children = [uri(thing) for thing in things]
        inside = {"action": "ADD", "parentID": uri(into), "childEPCs": children}
        self.say(party, minutes, "AggregationEvent", step, **inside)

    def unpacked(self, party: str, minutes: float, parent: str, things: Iterable[str], step: str = "unpacking") -> None:
        """They come out."""
        children = [uri(thing) for thing in things]
        inside = {"action": "DELETE", "parentID": uri(parent), "childEPCs": children}
        self.say(party, minutes, "AggregationEvent", step, **inside)

    def measured(self, party: str, place: str, readings: Sequence[tuple[float, float]]) -> None:
        """One probe's readings, (minutes before now, °C), told when the last of them was made."""
        device = uri(f"{place}-probe")
        reports = [
            {"type": "Temperature", "value": value, "uom": "CEL", "time": self.at(minutes)}
            for minutes, value in readings
        ]
        sensors = [{"sensorMetadata": {"deviceID": device}, "sensorReport": reports}]
        self.seen(
            party, readings[-1][0], "sensor_reporting", (), sensorElementList=sensors, readPoint={"id": uri(place)}
        )

    def at(self, minutes: float) -> str:
        """A time in China, RFC 3339."""
        return dt.datetime.fromtimestamp(self.now_ms / 1000 - minutes * 60, CHINA).isoformat(timespec="milliseconds")

    def write(self, folder: Path) -> dict[str, Path]:
        """A file for each party, by its prefix."""
        files = {}
        for party, events in self.events.items():
            files[party] = folder / f"{party}.epcis.json"
            document = {
                "@context": ["https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld"],
                "type": "EPCISDocument",
                "schemaVersion": "2.0",
                "creationDate": self.at(0),
                "epcisBody": {"eventList": sorted(events, key=lambda event: str(event["eventTime"]))},
            }
            files[party].write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        return files


def uri(key: str) -> str:
    """An identifier as EPCIS documents write it."""
    return f"idtrace:{key}"


def tell(now_ms: int) -> Documents:
    """The whole story but for the dose that is given twice."""
    told = Documents(now_ms)
    _make(told)
    for number, truck in enumerate(TRUCKS):
        _carry(told, truck, PALLETS[number], number=number)
    _store(told)
    _bring(told)
    return told


def tell_copies(now_ms: int) -> Documents:
    """Two clinics give what bears one code, half an hour and 150 km apart."""
    told = Documents(now_ms)
    given = {"disposition": "dispensed"}
    for party, minutes, room in ((CLINIC, GIVEN, FRIDGE), (STRANGER, GIVEN_AGAIN, FAR_ROOM)):
        told.seen(party, minutes, "dispensing", (COPIED,), **given, readPoint={"id": uri(room)})
    return told


def _make(told: Documents) -> None:
    here = {"readPoint": {"id": uri(PLANT)}, "bizLocation": {"id": uri(PLANT)}, "disposition": "active"}
    told.seen(MAKER, MADE, "commissioning", (*DOSES, *BOXES, *CARTONS, *PALLETS), action="ADD", **here)
    for number in range(2):
        told.packed(MAKER, MADE - 20, BOXES[number], IN_BOX[BOXES[number]])
        told.packed(MAKER, MADE - 30, CARTONS[number], (BOXES[number],))
        told.packed(MAKER, MADE - 40, PALLETS[number], (CARTONS[number],))
    told.measured(MAKER, PLANT, steady(MADE + 10, SHIPPED - 10, ROOM_MINUTES))


def _carry(told: Documents, truck: str, pallet: str, *, number: int) -> None:
    """From the maker to the centre; the second truck froze."""
    handed(told, truck, (pallet,), MAKER, CENTRE, SHIPPED, ARRIVED)
    readings = steady(SHIPPED + 20, ARRIVED - 10, WAY_MINUTES)
    if number == 1:
        readings = [(at, value) for at, value in readings if not FROST_UNTIL <= at <= FROST_FROM]
        readings += [(at, -2.5) for at in range(FROST_FROM, FROST_UNTIL - 1, -ALARM_MINUTES)]
        readings.sort(reverse=True)
    told.measured(CARRIER, truck, readings)


def _store(told: Documents) -> None:
    for number in range(2):
        told.unpacked(CENTRE, ARRIVED - 40, PALLETS[number], (CARTONS[number],))
        told.unpacked(CENTRE, ARRIVED - 50, CARTONS[number], (BOXES[number],))
    told.measured(CENTRE, STORE, steady(ARRIVED + 10, SENT_ON - 10, ROOM_MINUTES))


def _bring(told: Documents) -> None:
    """From the centre to the clinic, where the doses come out of their boxes."""
    handed(told, VAN, BOXES, CENTRE, CLINIC, SENT_ON, HERE)
    told.measured(CARRIER, VAN, steady(SENT_ON + 20, HERE - 10, WAY_MINUTES))
    for box in BOXES:
        told.unpacked(CLINIC, HERE - 30, box, IN_BOX[box])
    told.measured(CLINIC, FRIDGE, steady(HERE + 10, 0, ROOM_MINUTES))


def handed(told: Documents, vehicle: str, things: Sequence[str], sender: str, to: str, left: int, came: int) -> None:
    """Loading, shipping, the way, receiving."""
    ends = {
        "sourceList": [{"type": "possessing_party", "source": uri(sender)}],
        "destinationList": [{"type": "possessing_party", "destination": uri(to)}],
    }
    rooms = {MAKER: PLANT, CENTRE: STORE, CLINIC: FRIDGE}
    on_way = {"disposition": "in_transit"}
    told.packed(sender, left + 6, vehicle, things, "loading")
    told.seen(sender, left, "shipping", things, **ends, **on_way, readPoint={"id": uri(rooms[sender])})
    told.seen(CARRIER, left - 3, "departing", things, **on_way)
    told.seen(CARRIER, came + 8, "arriving", things, **on_way)
    told.unpacked(CARRIER, came + 2, vehicle, things, "unloading")
    room = {"id": uri(rooms[to])}
    told.seen(to, came, "receiving", things, **ends, disposition="in_progress", readPoint=room, bizLocation=room)


def steady(first: float, last: float, every: int) -> list[tuple[float, float]]:
    """A good refrigerator: 4 to 5.4 °C, with a reading at either end."""
    times = [*range(int(first), int(last), -every), last]
    return [(at, 4 + (7 * number % 15) / 10) for number, at in enumerate(times)]

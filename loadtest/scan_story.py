"""The dose of the scan's measurement: six packages deep, 40 events, 3,000 readings, told at four nodes."""

from __future__ import annotations

from typing import Final

from idtrace.cli.demo_vaccine_events import (
    ARRIVED,
    CARRIER,
    CENTRE,
    CLINIC,
    FRIDGE,
    HERE,
    MADE,
    MAKER,
    PLANT,
    SENT_ON,
    SHIPPED,
    STORE,
    Documents,
    handed,
    uri,
)

DOSE: Final = f"{MAKER}/SCANNED-1"
EVENTS: Final = 40
READINGS: Final = 3_000
_BOX, _CARTON, _PALLET, _CONTAINER = (f"{MAKER}/SCANNED-{name}" for name in ("BOX", "CARTON", "PALLET", "CONTAINER"))
_TRUCK, _FERRY, _VAN = (f"{CARRIER}/SCANNED-{name}" for name in ("TRUCK", "FERRY", "VAN"))
PACKAGES: Final = (_BOX, _CARTON, _PALLET, _CONTAINER, _TRUCK, _FERRY)
# As many readings as a logger sends at once; its event has some 20 KB.
_SENT_AT_ONCE: Final = 250


def tell(now_ms: int) -> Documents:
    """All of it but for what changes later."""
    told = Documents(now_ms)
    here = {"readPoint": {"id": uri(PLANT)}, "bizLocation": {"id": uri(PLANT)}}
    told.seen(MAKER, MADE, "commissioning", (DOSE, _BOX, _CARTON, _PALLET, _CONTAINER), action="ADD", **here)
    for number, (inner, outer) in enumerate(zip((DOSE, _BOX, _CARTON, _PALLET), PACKAGES[:4], strict=True)):
        told.packed(MAKER, MADE - 20 - 10 * number, outer, (inner,))
    handed(told, _TRUCK, (_CONTAINER,), MAKER, CENTRE, SHIPPED, ARRIVED)
    told.packed(CARRIER, SHIPPED - 60, _FERRY, (_TRUCK,), "loading")
    told.unpacked(CARRIER, ARRIVED + 60, _FERRY, (_TRUCK,), "unloading")
    for number, (inner, outer) in enumerate(((_PALLET, _CONTAINER), (_CARTON, _PALLET), (_BOX, _CARTON))):
        told.unpacked(CENTRE, ARRIVED - 40 - 10 * number, outer, (inner,))
    handed(told, _VAN, (_BOX,), CENTRE, CLINIC, SENT_ON, HERE)
    told.unpacked(CLINIC, HERE - 30, _BOX, (DOSE,))
    _measure(told)
    for number in range(EVENTS - sum(map(len, told.events.values()))):
        look(told, HERE - 60 - number)
    return told


def look(told: Documents, minutes: float) -> None:
    """Somebody at the clinic looks after the dose: one more event about it."""
    told.seen(CLINIC, minutes, "storing", (DOSE,), readPoint={"id": uri(FRIDGE)})


def _measure(told: Documents) -> None:
    """Every half minute from its making until now, sent by each place and vehicle in parts."""
    spans = (
        (MAKER, PLANT, MADE, SHIPPED),
        (CARRIER, _TRUCK, SHIPPED, ARRIVED),
        (CENTRE, STORE, ARRIVED, SENT_ON),
        (CARRIER, _VAN, SENT_ON, HERE),
        (CLINIC, FRIDGE, HERE, 0),
    )
    for party, place, since, until in spans:
        every = MADE / READINGS
        count = round((since - until) / every)
        readings = [(since - every * number, 4 + (7 * number % 15) / 10) for number in range(count)]
        for first in range(0, count, _SENT_AT_ONCE):
            told.measured(party, place, readings[first : first + _SENT_AT_ONCE])

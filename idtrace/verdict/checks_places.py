"""Could it have been where it is said to have been? A copied code is in two places."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from idtrace.epcis.uris import key
from idtrace.provenance.history import Step
from idtrace.provenance.seen import CLOCK_TOLERANCE_MS
from idtrace.verdict.context import Context, evidence_of
from idtrace.verdict.findings import Code, Finding

EARTH_KM: Final = 6_371.0
# Freighters cruise at 850 to 920 km/h, with the wind some 1,000 over ground: nothing that carries vaccines is faster.
SPEED_KM_H: Final = 1_000
# Nobody flies a shorter way, and a longer one takes an hour on the ground at least: to load, take off, land and unload.
FLIGHT_KM: Final = 500
AIRPORT_MS: Final = 3_600_000
# Two addresses of one campus, or a licence's rounded coordinates: nearer than this is the same place.
SAME_PLACE_KM: Final = 1.0
# Told from a desk or by a device, afterwards or from afar; the place that such an event names proves no presence.
_FROM_AFAR: Final = frozenset({"sensor_reporting", "inspecting", "holding"})


def presence(context: Context) -> Iterator[Finding]:
    """At two places at once, or quicker from one to the next than anything travels.

    From each event to the next one. Only places whose position a licence tells count, and never a vehicle: an unknown
    place accuses nobody. Within what two clocks may differ it is at once, beyond it is too quick.
    """
    before: tuple[Step, tuple[float, float]] | None = None
    for step in context.about:
        at = _position(context, step)
        if at is None:
            continue
        if before is not None:
            distance = distance_km(before[1], at)
            elapsed_ms = step.at_ms - before[0].at_ms
            if distance > SAME_PLACE_KM and elapsed_ms + CLOCK_TOLERANCE_MS < travel_ms(distance):
                at_once = elapsed_ms <= CLOCK_TOLERANCE_MS
                code = Code.DOUBLE_PRESENCE if at_once else Code.IMPOSSIBLE_TRAVEL
                yield _apart(code, before[0], step, distance)
        before = (step, at)


def given_apart(context: Context) -> Iterator[Finding]:
    """Given by two clinics: an opened package goes nowhere, so its code was copied."""
    steps = [step for step in context.own if step.observed.event.biz_step == "dispensing"]
    first: dict[str, Step] = {}
    for step in steps:
        first.setdefault(step.observed.party, step)
    for one, other in zip(list(first.values())[:-1], list(first.values())[1:], strict=True):
        yield _apart(Code.DOUBLE_PRESENCE, one, other, 0.0)


def _apart(code: Code, one: Step, other: Step, distance: float) -> Finding:
    values = {
        "first": _place(one) or one.observed.party,
        "second": _place(other) or other.observed.party,
        "km": f"{distance:.0f}",
        "minutes": str(max(0, other.at_ms - one.at_ms) // 60_000),
    }
    return Finding(code, other.at_ms, values, evidence_of((one, other)))


def _place(step: Step) -> str:
    event = step.observed.event
    return key(event.read_point or event.biz_location) if event.read_point or event.biz_location else ""


def _position(context: Context, step: Step) -> tuple[float, float] | None:
    event = step.observed.event
    if event.biz_step in _FROM_AFAR:
        return None
    at = context.positions.get(key(event.read_point)) if event.read_point else None
    return at if at is not None else context.positions.get(key(event.biz_location)) if event.biz_location else None


def distance_km(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Great-circle distance of two points in WGS 84 degrees, on a sphere (within 0.6 %)."""
    (lat1, lon1), (lat2, lon2) = ((math.radians(lat), math.radians(lon)) for lat, lon in (one, other))
    half = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * EARTH_KM * math.asin(math.sqrt(min(1.0, half)))


def travel_ms(distance: float) -> int:
    """The least time in which a thing travels so many kilometres."""
    ground_ms = AIRPORT_MS if distance >= FLIGHT_KM else 0
    return int(distance * 3_600_000 / SPEED_KM_H) + ground_ms

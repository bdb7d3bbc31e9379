"""Temperatures as probes record them: a level with noise, and the disturbances that a story asks for.

A probe measures every minute and records at the interval of its mode, and every 2 minutes while it is out of range, as
GSP (附录1, 2013 No. 38) asks. Values are tenths of a degree, as loggers give them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import Final

from idtrace.epcis.model import SensorElement, SensorMetadata, SensorReport
from idtrace.simulation.model import MINUTE_MS

STORE_MINUTES: Final = 30
TRANSPORT_MINUTES: Final = 5
EXCURSION_MINUTES: Final = 2
# A day of a room is 48 readings a probe; a flight and its roads at 5 minutes are below 200.
READINGS_PER_ELEMENT_MAX: Final = 300
# An air temperature wanders back to its level in a few readings; the probes of one room share most of that.
_PERSISTENCE: Final = 0.6

Point = tuple[int, int]  # time in ms, tenths of a degree


@dataclass(frozen=True, slots=True)
class Disturbance:
    """The air goes from its level to another one and back, at this rate.

    Attributes:
        start_ms: when it begins to leave its level.
        hold_minutes: how long it stays at the other level.
        level: °C.
        rate: K per minute, there and back.
    """

    start_ms: int
    hold_minutes: int
    level: float
    rate: float = 0.5

    def end_ms(self, normal: float) -> int:
        """When it is back at the normal level."""
        return self.start_ms + int((2 * abs(self.level - normal) / self.rate + self.hold_minutes) * MINUTE_MS)

    def at(self, time_ms: int, normal: float) -> float:
        """The air's level at a time within it."""
        ramp_ms = abs(self.level - normal) / self.rate * MINUTE_MS
        into, left = time_ms - self.start_ms, self.end_ms(normal) - time_ms
        share = max(0.0, min(1.0, into / ramp_ms, left / ramp_ms))
        return normal + (self.level - normal) * share


@dataclass(frozen=True, slots=True)
class Range:
    """Where a product's cold room is held: the level it is set to, the noise, and the label's limits; °C."""

    level: float
    noise: float
    low: float
    high: float


@dataclass(slots=True)
class Probe:
    """A probe with what it has recorded."""

    device: str
    bias: float
    points: list[Point] = field(default_factory=list)
    calibrated_until: str = ""


def record(
    probes: Sequence[Probe], held: Range, start_ms: int, end_ms: int, minutes: int,
    disturbances: Sequence[Disturbance], random: Random,
) -> None:  # fmt: skip
    """Let the probes of one place record from ``start_ms`` to ``end_ms``, both included."""
    times = _times(held, start_ms, end_ms, minutes, disturbances)
    air = 0.0
    for time_ms in times:
        level = _level(held, time_ms, disturbances)
        air = _PERSISTENCE * air + random.gauss(0.0, held.noise)
        air = max(-3 * held.noise, min(3 * held.noise, air))
        for probe in probes:
            value = level + air + probe.bias + random.uniform(-0.1, 0.1)
            probe.points.append((time_ms, round(10 * value)))


def element(probe: Probe, points: Sequence[Point], *, uom: str = "CEL") -> SensorElement:
    """What a probe recorded, as one sensor element."""
    reports = tuple(
        SensorReport(type="Temperature", time_ms=time_ms, value=_in_unit(tenths, uom), uom=uom)
        for time_ms, tenths in points
    )
    extensions = {"idtrace:calibratedUntil": probe.calibrated_until} if probe.calibrated_until else {}
    return SensorElement(SensorMetadata(device_id=probe.device, extensions=extensions), reports)


def _times(
    held: Range, start_ms: int, end_ms: int, minutes: int, disturbances: Sequence[Disturbance]
) -> list[int]:  # fmt: skip
    times: list[int] = []
    time_ms, step = start_ms, minutes * MINUTE_MS
    spans = [(d.start_ms, d.end_ms(held.level)) for d in disturbances]
    while time_ms <= end_ms:
        times.append(time_ms)
        following = time_ms + step
        if any(first < following and time_ms <= last for first, last in spans):
            following = _next_in_disturbance(held, time_ms, following, disturbances)
        time_ms = following
    if times[-1] < end_ms:
        times.append(end_ms)
    return times


def _next_in_disturbance(held: Range, time_ms: int, usual_ms: int, disturbances: Sequence[Disturbance]) -> int:
    """The next record: in 2 minutes when out of range, at the crossing when that comes first, else as usual."""
    if _is_out(held, _level(held, time_ms, disturbances)):
        return time_ms + EXCURSION_MINUTES * MINUTE_MS
    for minute_ms in range(time_ms + MINUTE_MS, usual_ms, MINUTE_MS):
        if _is_out(held, _level(held, minute_ms, disturbances)):
            return minute_ms
    return usual_ms


def _is_out(held: Range, level: float) -> bool:
    # A device that sees the limit come near records more often before it is crossed: the noise may cross it alone.
    margin = 4 * held.noise + 0.4
    return level > held.high - margin if level > held.level else level < held.low + margin


def _level(held: Range, time_ms: int, disturbances: Sequence[Disturbance]) -> float:
    for disturbance in disturbances:
        if disturbance.start_ms <= time_ms <= disturbance.end_ms(held.level):
            return disturbance.at(time_ms, held.level)
    return held.level


def _in_unit(tenths: int, uom: str) -> Decimal:
    celsius = Decimal(tenths) / 10
    if uom == "KEL":
        return celsius + Decimal("273.15")
    if uom == "FAH":
        return celsius * 9 / 5 + 32
    assert uom == "CEL", uom
    return celsius


def rfc3339(time_ms: int) -> str:
    """A time as text, to the second, UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

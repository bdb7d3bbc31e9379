"""Readings as series: one a probe, each reading once, and the colder and the warmer of what it gave at one instant.

A probe is its device, if a URI names it. A name that is no URI ("1", "left") is the probe of that name at what the
reading was reported of, and a reading without a device that of the one probe there. The same reading reported twice,
or found twice because its subject was in two packages that it was reported of, is one reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import NamedTuple

from idtrace.coldchain.readings import Reading


class Point(NamedTuple):
    """What a probe gave at one instant: mostly one reading, two where a report says the least and the greatest."""

    time_ms: int
    low: Decimal
    high: Decimal
    readings: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """The readings of one probe that count, in order of time."""

    name: str
    points: tuple[Point, ...]


def probe_name(reading: Reading) -> str:
    """Which probe a reading is of."""
    return reading.device if ":" in reading.device else f"{reading.subject}\0{reading.device}"


def by_probe(readings: Iterable[Reading]) -> dict[str, list[Reading]]:
    """Each probe's readings in order of time, each once; probes in order of their names."""
    raw: dict[str, list[Reading]] = {}
    for one in readings:
        raw.setdefault(probe_name(one), []).append(one)
    return {name: _each_once(raw[name]) for name in sorted(raw)}


def _each_once(readings: list[Reading]) -> list[Reading]:
    readings.sort(key=_order)
    kept: list[Reading] = []
    for one in readings:
        if kept and (last := kept[-1]).time_ms == one.time_ms and last.celsius == one.celsius:
            if one != last:
                kept[-1] = _worse(last, one)
        else:
            kept.append(one)
    return kept


def _order(one: Reading) -> tuple[int, Decimal, str, str, int, int]:
    return (one.time_ms, one.celsius, one.evidence, one.subject, one.reported_ms, one.calibrated_until_ms or 0)


def _worse(one: Reading, other: Reading) -> Reading:
    """One reading of two that are the same: what either report says against it stays said."""
    ends = [end for end in (one.calibrated_until_ms, other.calibrated_until_ms) if end is not None]
    known = [at for at in (one.reported_ms, other.reported_ms) if at]
    return replace(
        one,
        reported_ms=min(known, default=0),
        calibrated_until_ms=min(ends, default=None),
        error=one.error or other.error,
        alarm=one.alarm or other.alarm,
    )


def points(readings: Sequence[Reading]) -> tuple[Point, ...]:
    """One probe's readings, in order of time, as points."""
    found: list[Point] = []
    for one in readings:
        if found and found[-1].time_ms == one.time_ms:
            last = found[-1]
            # Of one instant they come in order of their values.
            found[-1] = Point(one.time_ms, last.low, one.celsius, (*last.readings, one))
        else:
            found.append(Point(one.time_ms, one.celsius, one.celsius, (one,)))
    return tuple(found)

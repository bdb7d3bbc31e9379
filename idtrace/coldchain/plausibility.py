"""Whether a probe can be believed: error, clock, jump, stuck, calibration, and two probes that disagree.

What each finding does to the readings:

==================== ==================================================================================================
SENSOR_ERROR         The device says itself that it failed, or the value cannot be: the reading counts for nothing.
SENSOR_CLOCK         Measured after it was reported, or more than ``BEHIND_MS`` before: when it was is unknown, so the
                     reading counts for nothing. Two values of one probe at one instant, by two reports: both count.
SENSOR_JUMP          Further from the last believable reading than the temperature can have gone since then: counts for
                     nothing. A new level that stays becomes believable as soon as it could have been reached.
SENSOR_STUCK         The same value for too long: all but the first do not show that the dose was cold. Against it they
                     count: a value that does not move may still be true, and if it is, it forbids.
SENSOR_CALIBRATION   The reading counts: a probe out of calibration that shows frost is no reason to forget the frost.
SENSOR_DISAGREE      Both probes count, so the worse one decides.
==================== ==================================================================================================

"Counts for nothing" is meant both ways: it neither shows that the dose was cold, so the time is silent unless another
probe covers it (:mod:`idtrace.coldchain.silence`), nor that it was not. The finding stands in any case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import combinations, groupby, pairwise
from typing import Final

from idtrace.coldchain.readings import Reading
from idtrace.coldchain.report import ThermalFinding, ThermalKind, of_readings
from idtrace.coldchain.series import Point, points

_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 60 * _MINUTE_MS
# Clocks of devices and of the systems that report for them differ by minutes; less than a handover takes (10 min)
# cannot move a reading into other hands.
AHEAD_MS: Final = 10 * _MINUTE_MS
# Loggers are read out at the end of a trip or of a month, and a store's at most once a year; a clock that was reset
# says 1970 or 2000.
BEHIND_MS: Final = 400 * 24 * _HOUR_MS
# Air at a probe carried from a cold room into a summer's heat (40 K, time constant of some 4 minutes) moves by that at
# most; a dose is much slower, and a loose wire much faster.
JUMP_KELVIN_PER_MINUTE: Final = 10
# Refrigeration cycles several times an hour and doors open: at a resolution of 0.1 °C so many equal values in a row,
# over so long, are no measurement any more.
STUCK_MS: Final = 3 * _HOUR_MS
STUCK_READINGS: Final = 24
# A door or a load explains a difference of two probes for some time, noise one of some readings.
DISAGREE_MS: Final = 1 * _HOUR_MS
DISAGREE_READINGS: Final = 4
# How old the other probe's reading may be: one recording interval of a store (30 min) and its tolerance.
_COMPARABLE_MS: Final = 31 * _MINUTE_MS
# 2 probes a vehicle of 20 m³ and one more for each 20 m³ (GSP 附录3): a hall has some; each pair is a pass.
PROBES_COMPARED_MAX: Final = 16

_SOURCE: Final = "GSP 附录3 (2013 No. 38): sensors"
_ACCURACY_SOURCE: Final = "GSP 附录3 (2013 No. 38): ±0.5 °C in 0 to 40, ±1.0 °C in -25 to 0"
_CALIBRATION_SOURCE: Final = "GSP (2016) 第五十三条: calibration"


def accuracy(celsius: Decimal) -> Decimal:
    """What a probe may be wrong by, K: GSP's two classes, and what is nearest to them where GSP has none."""
    if 0 <= celsius <= 40:
        return Decimal("0.5")
    return Decimal(1) if celsius >= -25 else Decimal(2)


@dataclass(frozen=True, slots=True)
class Believed:
    """Of one probe's readings those that count against a dose, those that count for it too, and what is wrong."""

    against: list[Reading]
    both: list[Reading]
    findings: list[ThermalFinding]


def believable(readings: list[Reading], *, now_ms: int) -> Believed:
    """Judge one probe by its readings, given in order of time."""
    findings: list[ThermalFinding] = []
    kept = _drop(readings, [one.error for one in readings], ThermalKind.SENSOR_ERROR, findings)
    kept = _drop(kept, [_mistimed(one, now_ms) for one in kept], ThermalKind.SENSOR_CLOCK, findings)
    findings += _contradictions(kept)
    findings += _uncalibrated(kept)
    jumps = _jumps(kept)
    findings += _leaps(kept, jumps)
    kept = [one for is_wrong, one in zip(jumps, kept, strict=True) if not is_wrong]
    moving = _drop(kept, _stuck(kept), ThermalKind.SENSOR_STUCK, findings)
    return Believed(kept, moving, findings)


def _drop(
    readings: list[Reading], wrong: list[bool], kind: ThermalKind, findings: list[ThermalFinding]
) -> list[Reading]:
    """Those that are not wrong; each run of wrong ones becomes a finding."""
    if True not in wrong:
        return readings
    for is_wrong, run in groupby(zip(wrong, readings, strict=True), key=lambda pair: pair[0]):
        if is_wrong:
            findings.append(of_readings(kind, [one for _, one in run], _SOURCE))
    return [one for is_wrong, one in zip(wrong, readings, strict=True) if not is_wrong]


def _mistimed(one: Reading, now_ms: int) -> bool:
    if one.time_ms > now_ms + AHEAD_MS:
        return True
    return bool(one.reported_ms) and not one.reported_ms - BEHIND_MS <= one.time_ms <= one.reported_ms + AHEAD_MS


def _contradictions(readings: list[Reading]) -> list[ThermalFinding]:
    """One named probe, two reports, two values at one instant: its clock was set back, or one report is wrong."""
    found: list[ThermalFinding] = []
    for one, following in pairwise(readings):
        if (
            one.time_ms == following.time_ms
            and one.evidence != following.evidence
            and one.device
            and following.celsius - one.celsius > accuracy(one.celsius)
        ):
            found.append(of_readings(ThermalKind.SENSOR_CLOCK, [one, following], _SOURCE))
    return found


def _uncalibrated(readings: list[Reading]) -> list[ThermalFinding]:
    late = [one for one in readings if one.calibrated_until_ms is not None and one.time_ms > one.calibrated_until_ms]
    return [of_readings(ThermalKind.SENSOR_CALIBRATION, late, _CALIBRATION_SOURCE)] if late else []


def _jumps(readings: list[Reading]) -> list[bool]:
    wrong = [False] * len(readings)
    last_ms, low, high = 0, Decimal(0), Decimal(0)
    for index, one in enumerate(readings):
        value = one.celsius
        if index and one.time_ms != last_ms:
            away = value - high if value > high else low - value
            # The first minute counts whole, since a reading is refreshed once a minute.
            if away > JUMP_KELVIN_PER_MINUTE:
                minutes = Decimal(one.time_ms - last_ms) / _MINUTE_MS
                if away > JUMP_KELVIN_PER_MINUTE * minutes + 2 * accuracy(value):
                    wrong[index] = True
                    continue
        if index and one.time_ms == last_ms:
            low, high = min(low, value), max(high, value)
        else:
            last_ms, low, high = one.time_ms, value, value
    return wrong


def _leaps(readings: list[Reading], wrong: list[bool]) -> list[ThermalFinding]:
    """Each run of readings that jumped, with the last believable one before it among its extremes: whence it jumped."""
    found: list[ThermalFinding] = []
    before = Decimal(0)  # the first reading of all has nothing to jump from
    for is_wrong, pairs in groupby(zip(wrong, readings, strict=True), key=lambda pair: pair[0]):
        run = [one for _, one in pairs]
        if is_wrong:
            found.append(_spanning(of_readings(ThermalKind.SENSOR_JUMP, run, _SOURCE), (before,)))
        before = run[-1].celsius
    return found


def _spanning(finding: ThermalFinding, values: Sequence[Decimal]) -> ThermalFinding:
    """With these values among its extremes."""
    every = [value for value in (finding.minimum, finding.maximum, *values) if value is not None]
    return replace(finding, minimum=min(every), maximum=max(every))


def _stuck(readings: list[Reading]) -> list[bool]:
    wrong = [False] * len(readings)
    start = 0
    for index in range(1, len(readings) + 1):
        if index < len(readings) and readings[index].celsius == readings[start].celsius:
            continue
        long = readings[index - 1].time_ms - readings[start].time_ms if readings else 0
        if index - start >= STUCK_READINGS and long >= STUCK_MS:
            wrong[start + 1 : index] = [True] * (index - start - 1)
        start = index
    return wrong


def disagreements(probes: Mapping[str, Sequence[Reading]]) -> list[ThermalFinding]:
    """Probes at one place that differ by more than the sum of their accuracies, for too long for a door or a load."""
    places: dict[str, dict[str, list[Reading]]] = {}
    for name, readings in probes.items():
        for subject in {one.subject for one in readings}:
            places.setdefault(subject, {})[name] = [one for one in readings if one.subject == subject]
    found: list[ThermalFinding] = []
    for place in sorted(places):
        together = [points(readings) for readings in list(places[place].values())[:PROBES_COMPARED_MAX]]
        for one, other in combinations(together, 2):
            found += _disagreement(one, other)
    return found


def _disagreement(one: Sequence[Point], other: Sequence[Point]) -> list[ThermalFinding]:
    found: list[ThermalFinding] = []
    run: list[Reading] = []
    theirs: list[Decimal] = []
    following = 0
    for point in one:
        while following < len(other) and other[following].time_ms <= point.time_ms:
            following += 1
        beside = other[following - 1] if following else None
        if beside is not None and point.time_ms - beside.time_ms <= _COMPARABLE_MS and _differ(point, beside):
            run += point.readings
            theirs += (beside.low, beside.high)
            continue
        found += _lasting(run, theirs)
        run, theirs = [], []
    return found + _lasting(run, theirs)


def _differ(one: Point, other: Point) -> bool:
    apart = max(one.low - other.high, other.low - one.high)
    return apart > accuracy(one.low) + accuracy(other.low)


def _lasting(run: list[Reading], theirs: Sequence[Decimal]) -> list[ThermalFinding]:
    """A finding about one probe, with the other's values among its extremes."""
    if len(run) < DISAGREE_READINGS or run[-1].time_ms - run[0].time_ms < DISAGREE_MS:
        return []
    return [_spanning(of_readings(ThermalKind.SENSOR_DISAGREE, run, _ACCURACY_SOURCE), theirs)]

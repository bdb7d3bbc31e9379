"""Silence is an alarm: on every leg the temperature has to be recorded at the interval of its mode.

Where no reading lies in a leg it is NO_TEMPERATURE, where two are further apart than the interval SILENCE; silent
gaps that follow one another are one finding. Exactly the interval is fine, and so is a minute more
(``TOLERANCE_MS``). At either end of a leg the goods may be on their way between two rooms, so a handover's time is
fine there too, and a leg that is no longer needs no reading. After a reading out of limits the next one is due in 2
minutes. All believable readings count, of whatever probe: time is silent only if nobody recorded it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TypeAlias

from idtrace.coldchain.intervals import EXCURSION_MS, RECORDING_SOURCE, TOLERANCE_MS, handover_ms, required_ms
from idtrace.coldchain.profile import Profile
from idtrace.coldchain.readings import Leg
from idtrace.coldchain.report import ThermalFinding, ThermalKind, cited
from idtrace.coldchain.series import Probe

_GAP: TypeAlias = tuple[int, int]


def silences(
    legs: Sequence[Leg], probes: Sequence[Probe], profile: Profile, *, now_ms: int
) -> tuple[list[ThermalFinding], int | None]:
    """What was silent up to now, and when a leg that has not ended becomes silent if nothing comes (None: never)."""
    times = sorted({point.time_ms for probe in probes for point in probe.points})
    outside = frozenset(
        point.time_ms
        for probe in probes
        for point in probe.points
        if point.high > profile.high or point.low < profile.low
    )
    found: list[ThermalFinding] = []
    ends: list[int] = []
    for leg in legs:
        end_ms = min(leg.end_ms, now_ms)
        if end_ms < leg.start_ms:
            continue
        edge_ms = max(required_ms(leg.mode), handover_ms(profile)) + TOLERANCE_MS
        within = times[bisect_left(times, leg.start_ms) : bisect_right(times, end_ms)]
        last_ms = within[-1] if within else leg.start_ms
        if leg.end_ms >= now_ms and now_ms - last_ms <= edge_ms:
            ends.append(last_ms + edge_ms + 1)
        if within:
            gaps = _gaps(leg, within, end_ms, edge_ms, outside)
            found += [_finding(ThermalKind.SILENCE, leg, *gap) for gap in gaps]
        elif end_ms - leg.start_ms > edge_ms:
            found.append(_finding(ThermalKind.NO_TEMPERATURE, leg, leg.start_ms, end_ms))
    return found, min(ends, default=None)


def _gaps(leg: Leg, within: Sequence[int], end_ms: int, edge_ms: int, outside: frozenset[int]) -> list[_GAP]:
    usual_ms = required_ms(leg.mode) + TOLERANCE_MS
    due_ms = EXCURSION_MS + TOLERANCE_MS
    gaps: list[_GAP] = []
    last_ms, allowed_ms = leg.start_ms, edge_ms
    for time_ms in within:
        if time_ms - last_ms > allowed_ms:
            _add(gaps, last_ms, time_ms)
        last_ms, allowed_ms = time_ms, due_ms if time_ms in outside else usual_ms
    if end_ms - last_ms > edge_ms:
        _add(gaps, last_ms, end_ms)
    return gaps


def _add(gaps: list[_GAP], start_ms: int, end_ms: int) -> None:
    if gaps and gaps[-1][1] == start_ms:
        start_ms = gaps.pop()[0]
    gaps.append((start_ms, end_ms))


def _finding(kind: ThermalKind, leg: Leg, start_ms: int, end_ms: int) -> ThermalFinding:
    return ThermalFinding(
        kind, start_ms, end_ms, seconds=(end_ms - start_ms) // 1000, device=leg.place,
        evidence=cited(leg.evidence), source=RECORDING_SOURCE,
    )  # fmt: skip

"""Probes that cannot be believed: what each fault of a sensor does to what it has recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from idtrace.simulation.climate import Probe, rfc3339
from idtrace.simulation.model import DAY_MS, HOUR_MS, Fault
from idtrace.simulation.plan import Plan

# A loose wire: further than any lorry could be heated between two records.
_JUMP_TENTHS: Final = 1_000
_STUCK_HOURS: Final = 16
_MISTIMED: Final = 20
# Far beyond what two probes may be wrong by together: 1 K above freezing, 2 K in a freezer, 4 K below.
_APART_TENTHS: Final = {"2-8": 24, "-20": 50, "-70": 90}


def spoil(plan: Plan, faults: set[Fault], probes: Sequence[Probe], at_ms: int) -> None:
    """Let the faults of sensors happen to what these probes have recorded, from this time on."""
    if Fault.NO_TEMPERATURE in faults:
        for probe in probes:
            probe.points = []
    if Fault.SENSOR_STUCK in faults:
        for probe in probes:
            _stick(probe, at_ms)
    if Fault.SENSOR_JUMP in faults:
        _jump(probes[0], at_ms)
    if Fault.SENSOR_CLOCK in faults:
        # In the midst of its event, which happens at the time of its last reading and so tells of a time to come.
        time_ms, tenths = probes[0].points[_MISTIMED]
        probes[0].points[_MISTIMED] = (time_ms + DAY_MS, tenths)
    if Fault.SENSOR_CALIBRATION in faults:
        for probe in probes:
            probe.calibrated_until = rfc3339(plan.begin_ms - DAY_MS)
    if Fault.SENSOR_DISAGREE in faults:
        _part(plan, probes)


def _stick(probe: Probe, at_ms: int) -> None:
    until_ms = at_ms + _STUCK_HOURS * HOUR_MS
    stuck = next(tenths for time_ms, tenths in probe.points if time_ms >= at_ms)
    probe.points = [(time_ms, stuck if at_ms <= time_ms < until_ms else tenths) for time_ms, tenths in probe.points]


def _jump(probe: Probe, at_ms: int) -> None:
    index = next(index for index, (time_ms, _) in enumerate(probe.points) if time_ms >= at_ms)
    time_ms, tenths = probe.points[index]
    probe.points[index] = (time_ms, tenths + _JUMP_TENTHS)


def _part(plan: Plan, probes: Sequence[Probe]) -> None:
    half = _APART_TENTHS[plan.profile.name] // 2
    for probe, shift in zip(probes, (half, -half), strict=True):
        probe.points = [(time_ms, tenths + shift) for time_ms, tenths in probe.points]

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from random import Random

import pytest

from idtrace.simulation.climate import Disturbance, Probe, Range, element, record, rfc3339
from idtrace.simulation.geography import FAR_AWAY, MAKERS, City, beside, distance_km, travel_hours
from idtrace.simulation.model import HOUR_MS, MINUTE_MS

FRIDGE = Range(5.0, 0.25, 2.0, 8.0)


def recorded(*disturbances: Disturbance, minutes: int = 30, hours: int = 24) -> Probe:
    probe = Probe("idtrace:88.118.8/probe/1", 0.0)
    record([probe], FRIDGE, 0, hours * HOUR_MS, minutes, disturbances, Random(1))
    return probe


def test_undisturbed_air_stays_within_the_label_and_is_recorded_at_the_interval() -> None:
    points = recorded().points
    assert {following - time_ms for (time_ms, _), (following, _) in pairwise(points)} == {30 * MINUTE_MS}
    assert all(20 < tenths < 80 for _, tenths in points)
    assert len({tenths for _, tenths in points}) > 5
    assert (points[0][0], points[-1][0]) == (0, 24 * HOUR_MS)


def test_whatever_is_out_of_range_is_recorded_every_two_minutes() -> None:
    points = recorded(Disturbance(10 * HOUR_MS, 60, 15.0)).points
    out = [(time_ms, following) for (time_ms, tenths), (following, _) in pairwise(points) if not 20 <= tenths <= 80]
    assert len(out) > 30
    assert all(following - time_ms <= 2 * MINUTE_MS for time_ms, following in out)
    assert max(tenths for _, tenths in points) >= 140


@pytest.mark.parametrize("level", [-4.0, 48.0])
def test_a_disturbance_goes_there_and_back_at_its_rate(level: float) -> None:
    disturbance = Disturbance(0, 30, level, rate=1.0)
    ramp = abs(level - 5.0)
    assert disturbance.end_ms(5.0) == int((2 * ramp + 30) * MINUTE_MS)
    assert disturbance.at(0, 5.0) == 5.0
    assert disturbance.at(int((ramp + 15) * MINUTE_MS), 5.0) == pytest.approx(level)
    assert disturbance.at(disturbance.end_ms(5.0), 5.0) == 5.0


def test_units_are_converted_exactly() -> None:
    probe = Probe("d", 0.0, [(0, 51)], "2026-01-01T00:00:00Z")
    values = {uom: element(probe, probe.points, uom=uom).reports[0].value for uom in ("CEL", "KEL", "FAH")}
    assert values == {"CEL": Decimal("5.1"), "KEL": Decimal("278.25"), "FAH": Decimal("41.18")}
    assert element(probe, probe.points).metadata.extensions == {"idtrace:calibratedUntil": "2026-01-01T00:00:00Z"}
    assert rfc3339(0) == "1970-01-01T00:00:00Z"


def test_distances_are_those_of_the_map() -> None:
    beijing, shanghai = MAKERS[0], MAKERS[6]
    assert distance_km(beijing, shanghai) == pytest.approx(1_067, abs=5)
    assert distance_km(beijing, beijing) == 0
    assert travel_hours(beijing, beijing) == 0.5
    assert 18 < travel_hours(beijing, shanghai) < 22
    assert travel_hours(shanghai, FAR_AWAY) < 10  # by air
    near = beside(City("x", "x", 31.0, 121.0), 10, -20)
    assert distance_km(City("x", "x", 31.0, 121.0), near) == pytest.approx(500**0.5, rel=0.01)

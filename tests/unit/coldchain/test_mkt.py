"""Mean kinetic temperature: the published formula, and the window that is warmest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Context, Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idtrace.coldchain.mkt import Warmest, mean_kinetic, warmest
from idtrace.coldchain.readings import Leg, Mode, Reading
from idtrace.coldchain.report import ThermalKind
from idtrace.coldchain.series import Probe, by_probe, points
from tests.unit.coldchain.build import CHILLED, HOUR, MINUTE, T0, every, judged, kinds, leg, only, reading

EIGHT = Decimal(8)


def by_formula(values: Sequence[tuple[str, int]]) -> Decimal:
    """USP <1079.2> worked out in 40 digits, with its own constants: dH 83.144 kJ/mol, R 8.3144e-3 kJ/(mol K)."""
    exact = Context(prec=40)
    ratio = exact.divide(Decimal("83.144"), Decimal("8.3144e-3"))
    total = Decimal(0)
    for celsius, weight in values:
        kelvin = Decimal(celsius) + Decimal("273.15")
        total = exact.add(total, exact.multiply(Decimal(weight), exact.exp(exact.divide(-ratio, kelvin))))
    mean = exact.divide(total, Decimal(sum(weight for _, weight in values)))
    return exact.divide(ratio, -exact.ln(mean)) - Decimal("273.15")


def window(readings: Sequence[Reading], hours: int = 24, legs: Sequence[Leg] = ()) -> Warmest | None:
    probes = [Probe(name, points(each)) for name, each in by_probe(readings).items()]
    return warmest(probes, legs, EIGHT, hours)


@pytest.mark.parametrize(
    "values",
    [
        [("5", 1)],
        [("5", 1), ("25", 1)],
        [("2", 3), ("8", 2), ("30", 1)],
        [("20", 6), ("25", 3), ("40", 1)],
        [("-70", 5), ("25", 1)],
    ],
)
def test_the_formula_agrees_with_forty_digits(values: list[tuple[str, int]]) -> None:
    result = mean_kinetic((Decimal(celsius), weight) for celsius, weight in values)
    assert abs(Decimal(result) - by_formula(values)) < Decimal("1e-9")


def test_the_mean_weighs_warmth_more() -> None:
    # By hand: the mean of exp(-10000/278.15) and exp(-10000/298.15) is 1.479e-15, and 10000 / 34.1474 = 292.85 K.
    assert mean_kinetic([(Decimal(5), 1), (Decimal(25), 1)]) == pytest.approx(19.70, abs=0.005)
    assert mean_kinetic([(Decimal(25), 7)]) == pytest.approx(25, abs=1e-9)


def test_a_published_example_comes_out_as_published() -> None:
    """Isopharm, "What is Mean Kinetic Temperature?", systems.isopharm.co.uk/mean-kinetic-temperature.

    "20 °C room for 2 hours, 2 °C refrigeration for 4 hours, 25 °C loading dock for 1 hour … thermally equivalent to
    storing them at 15.7 °C for 7 hours" (R = 8.314472 J/(mol K); the energy usual in USP, 60 kJ/mol gives 14.3).
    """
    stay = [(Decimal(20), 2), (Decimal(2), 4), (Decimal(25), 1)]
    assert f"{mean_kinetic(stay):.1f}" == "15.7"


@pytest.mark.parametrize(("celsius", "exceeded"), [("7.999", False), ("8", False), ("8.001", True)])
def test_a_limit_that_is_met_exactly_is_kept(celsius: str, exceeded: bool) -> None:
    report = judged(every(30, [celsius] * 49))
    assert ("MKT_EXCEEDED" in kinds(report)) == exceeded
    if exceeded:
        found = only(report, ThermalKind.MKT_EXCEEDED)
        assert (found.maximum, found.seconds, found.readings) == (Decimal("8.001"), 86_400, 49)
        assert "1079.2" in found.source
    assert "MKT_EXCEEDED" not in kinds(judged(every(30, [celsius] * 49), profile=replace(CHILLED, mkt_high=None)))


def test_an_hour_is_no_day() -> None:
    assert window(every(30, ["20"] * 48)) is None
    assert window(every(30, ["20"] * 49)) is not None
    assert window(every(30, ["20"] * 3), hours=1) is not None


def test_cold_hours_make_good_for_warm_ones_but_not_for_frost() -> None:
    warm_hour = [*["5"] * 24, "9", "9", *["5"] * 30]
    assert "MKT_EXCEEDED" not in kinds(judged(every(30, warm_hour)))
    frost = judged(every(30, [*["5"] * 24, "-2", "-2", "-2", *["9"] * 60]))
    assert kinds(frost)[0] == "FROZEN"
    assert "MKT_EXCEEDED" in kinds(frost)


def test_the_warmest_window_slides() -> None:
    values = [*["5"] * 60, *["12"] * 30, *["5"] * 60]
    found = window(every(30, values))
    assert found is not None
    assert found.start_ms <= T0 + 60 * 30 * MINUTE
    assert found.end_ms >= T0 + 89 * 30 * MINUTE
    assert found.end_ms - found.start_ms == 24 * HOUR


def test_a_window_may_be_warmest_between_two_readings() -> None:
    """A hump of which the top lies between: the window in the middle of it begins at no reading and ends at none."""
    found = window(every(30, ["2", "20", "20.2", "2"]), hours=1)
    assert found is not None
    assert (found.start_ms - T0) % (30 * MINUTE) != 0


def test_of_two_probes_the_warmest_counts_at_every_moment() -> None:
    cool, warm = every(30, ["5"] * 49), every(30, ["9"] * 49, device="urn:device:2")
    both, alone = window([*cool, *warm]), window(warm)
    assert both is not None
    assert alone is not None
    assert both.celsius == pytest.approx(alone.celsius)
    # Half of the day by one, half by the other; neither alone has a day.
    parts = [*every(30, ["9"] * 25), *every(30, ["9"] * 25, start=720, device="urn:device:2")]
    assert window(parts) is not None
    shifted = [*every(30, ["9", "5"] * 25), *every(30, ["5", "9"] * 25, device="urn:device:2")]
    found = window(shifted)
    assert found is not None
    assert found.celsius == pytest.approx(9, abs=1e-6)


def test_silent_time_weighs_nothing_and_may_not_be_most_of_it() -> None:
    gap = [*every(30, ["9"] * 13), *every(30, ["9"] * 13, start=1080)]
    found = window(gap)
    assert found is not None
    assert found.celsius == pytest.approx(9)
    assert window([*every(30, ["9"] * 12), *every(30, ["9"] * 12, start=1110)]) is None
    hourly = every(60, ["9"] * 60)
    assert window(hourly) is None
    two = [*hourly, *every(60, ["9"] * 60, start=7, device="urn:device:2")]
    assert window(two) is None
    assert window(every(30, ["9"] * 60), legs=[Leg(T0, T0 + 60 * HOUR, Mode.TRANSPORT, "", "")]) is None


def test_absolute_zero_decays_nothing() -> None:
    assert window(every(30, [*["-273.15"] * 40, *["9"] * 20])) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(20, 300), min_size=50, max_size=70))
def test_no_window_is_warmer_than_the_warmest(tenths: list[int]) -> None:
    readings = every(30, [Decimal(one) / 10 for one in tenths])
    found = window(readings, hours=4)
    by_hand = []
    for start in range(len(tenths) - 8):
        values = [one.celsius for one in readings[start : start + 9]]
        pairs = [(value, 0.5 if index in {0, 8} else 1.0) for index, value in enumerate(values)]
        by_hand.append(mean_kinetic(pairs))
    highest = max(by_hand)
    if found is None:
        assert highest <= 8 + 1e-5
    else:
        assert found.celsius >= highest - 1e-6
        assert found.celsius <= float(max(one.celsius for one in readings)) + 1e-6


def test_a_leg_of_a_reading_each_is_no_curve() -> None:
    assert window([reading(0, "9"), reading(2000, "9", "urn:device:2")]) is None
    assert window([reading(0, "9")]) is None
    assert kinds(judged([reading(0, "9")], [leg(0, 0)])) == ["EXCURSION"]

"""Limits and durations: at, just under and just over each of them; what is joined, and what never counts twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idtrace.coldchain.excursions import Limit, stretches, total_ms
from idtrace.coldchain.profile import VVM_TYPES, Counting, ExcursionRule, Profile, Side
from idtrace.coldchain.profiles import BUILT_IN, vial_rule
from idtrace.coldchain.readings import Leg, Mode, Reading
from idtrace.coldchain.report import ThermalKind
from idtrace.coldchain.series import Probe, by_probe, points
from tests.unit.coldchain.build import CHILLED, HOUR, T0, every, judged, kinds, leg, only, reading

TYPE_2 = BUILT_IN["-20"]
UNLIMITED = replace(CHILLED, rules=(), mkt_high=None)


def wave(value: str, seconds: float, *, base: str = "5", step: float = 120) -> list[Reading]:
    """At ``base``, then at ``value`` for exactly so long (a reading each 2 minutes), then at ``base`` again.

    The way there and back takes a millisecond, which the probe would not survive; so both ends are beyond doubt.
    """
    count = int(seconds // step)
    times = [index * step for index in range(count + 1)]
    if times[-1] < seconds:
        times.append(seconds)
    inside = [reading(60 + at / 60, value, reported_ms=0) for at in times]
    return inside if base == "" else [reading(0, base), *inside]


def found(readings: Sequence[Reading], limit: Limit, legs: Sequence[Leg] = ()) -> list[tuple[int, int]]:
    """Stretches in seconds from the beginning."""
    probes = [Probe(name, points(each)) for name, each in by_probe(readings).items()]
    times = sorted({one.time_ms for one in readings})
    return [(one.start_ms - T0, one.end_ms - T0) for one in stretches(probes, legs, limit, times)]


WARM = Limit(Side.ABOVE, Decimal(8), strict=True)
HOT = Limit(Side.ABOVE, Decimal(45))
COLD = Limit(Side.BELOW, Decimal("-0.5"))


# Every rule of the usual profiles: at its limit and seconds, a thousandth of a degree and a millisecond on either side.
WHO_CASES: Sequence[tuple[Profile, str, float, str | None]] = (
    (CHILLED, "45", 3600, "TOO_WARM"),
    (CHILLED, "45", 3599.999, None),
    (CHILLED, "45", 3600.001, "TOO_WARM"),
    (CHILLED, "44.999", 3600, None),
    (CHILLED, "45.001", 3600, "TOO_WARM"),
    (CHILLED, "30", 36_000, "HEAT_CUMULATIVE"),
    (CHILLED, "30", 35_999.999, None),
    (CHILLED, "30", 36_000.001, "HEAT_CUMULATIVE"),
    (CHILLED, "29.999", 36_000, None),
    (CHILLED, "30.001", 36_000, "HEAT_CUMULATIVE"),
    (CHILLED, "-0.5", 3600, "FROZEN"),
    (CHILLED, "-0.5", 3599.999, None),
    (CHILLED, "-0.5", 3600.001, "FROZEN"),
    (CHILLED, "-0.499", 3600, None),
    (CHILLED, "-0.501", 3600, "FROZEN"),
    *(
        case
        for frozen in (TYPE_2, BUILT_IN["-70"])
        for case in (
            (frozen, "45", 3600, "TOO_WARM"),
            (frozen, "45", 3599.999, None),
            (frozen, "45", 3600.001, "TOO_WARM"),
            (frozen, "44.999", 3600, None),
            (frozen, "45.001", 3600, "TOO_WARM"),
            (frozen, "30", 36_000, "HEAT_CUMULATIVE"),
            (frozen, "30", 35_999.999, None),
            (frozen, "30", 36_000.001, "HEAT_CUMULATIVE"),
            (frozen, "29.999", 36_000, None),
            (frozen, "30.001", 36_000, "HEAT_CUMULATIVE"),
            (frozen, "10", 72_000, "HEAT_CUMULATIVE"),
            (frozen, "10", 71_999.999, None),
            (frozen, "10", 72_000.001, "HEAT_CUMULATIVE"),
            (frozen, "9.999", 72_000, None),
            (frozen, "10.001", 72_000, "HEAT_CUMULATIVE"),
        )
    ),
    (TYPE_2, "-80", 72_000, None),
)


@pytest.mark.parametrize(("profile", "value", "seconds", "kind"), WHO_CASES)
def test_who_rules_include_their_limits_and_their_seconds(
    profile: Profile, value: str, seconds: float, kind: str | None
) -> None:
    report = judged(wave(value, seconds, base=""), profile=profile)
    grave = {"TOO_WARM", "HEAT_CUMULATIVE", "FROZEN", "TOO_COLD"}
    assert {one for one in kinds(report) if one in grave} == ({kind} if kind else set())
    if kind:
        finding = only(report, ThermalKind(kind))
        assert finding.seconds == int(seconds)
        assert finding.source.startswith("WHO PQS E006")
        assert Decimal(value) in {finding.minimum, finding.maximum}


@pytest.mark.parametrize(
    ("profile", "rule"),
    [pytest.param(each, rule, id=f"{name} {rule.name}") for name, each in BUILT_IN.items() for rule in each.rules],
)
def test_every_rule_has_its_boundaries_in_the_table(profile: Profile, rule: ExcursionRule) -> None:
    """A rule that is added or changed without its cases fails here."""
    cases = {(Decimal(value), seconds): kind for one, value, seconds, kind in WHO_CASES if one is profile}
    least, moment = Decimal("0.001"), 0.001
    outward = least if rule.side is Side.ABOVE else -least
    broken = [(rule.limit, rule.seconds), (rule.limit, rule.seconds + moment), (rule.limit + outward, rule.seconds)]
    kept = [(rule.limit, rule.seconds - moment), (rule.limit - outward, rule.seconds)]
    assert all(cases.get(case) for case in broken)
    assert [cases.get(case, "not there") for case in kept] == [None, None]


@pytest.mark.parametrize("days", [days for days in VVM_TYPES if days])
def test_a_vial_monitor_bears_its_days_at_37_degrees_less_a_moment(days: int) -> None:
    monitored = replace(CHILLED, vvm=days, rules=(), mkt_high=None)
    seconds = days * 86_400

    def kind(value: str, lasting: float) -> bool:
        return "HEAT_CUMULATIVE" in kinds(judged(wave(value, lasting, base="", step=1_800), profile=monitored))

    assert kind("37", seconds)
    assert kind("37.001", seconds)
    assert kind("37", seconds + 0.001)
    assert not kind("37", seconds - 0.001)
    assert not kind("36.999", seconds)


@pytest.mark.parametrize(
    ("value", "outside"),
    [("8", False), ("8.001", True), ("7.999", False), ("2", False), ("1.999", True), ("2.001", False)],
)
def test_a_labelled_limit_is_still_inside(value: str, outside: bool) -> None:
    report = judged([reading(0, value)], profile=UNLIMITED)
    assert kinds(report) == (["EXCURSION"] if outside else [])


def test_crossing_times_are_exact_and_rounded_to_the_longer_side() -> None:
    # 5 to 11 in 30 minutes: beyond 8 for the second half; to 12: for 4/7 of 30 minutes = 1028571.43 ms
    assert found(every(30, ["5", "11", "5"]), WARM) == [(15 * 60_000, 45 * 60_000)]
    assert found(every(30, ["5", "12", "5"]), WARM) == [(1_800_000 - 1_028_572, 1_800_000 + 1_028_572)]
    assert found(every(30, ["5", "-6"]), COLD) == [(900_000, 1_800_000)]


def test_a_touch_of_a_rules_limit_is_a_stretch_of_no_length() -> None:
    assert found(every(30, ["5", "45", "5"]), HOT) == [(1_800_000, 1_800_000)]
    assert found(every(30, ["5", "8", "5"]), WARM) == []


def test_between_readings_too_far_apart_no_line_is_drawn() -> None:
    apart = every(31, ["5", "11", "5"])
    assert found(apart, WARM) == [(15.5 * 60_000, 46.5 * 60_000)]
    apart = every(31.01, ["5", "11", "5"])
    assert found(apart, WARM) == [(31.01 * 60_000, 31.01 * 60_000)]
    # In a truck as in a store: a gap that is too long for it is told as silence, and excuses no minute.
    assert found(every(20, ["5", "11"]), WARM, [leg(0, 62, Mode.TRANSPORT)]) == [(10 * 60_000, 20 * 60_000)]


def test_a_gap_between_two_hot_readings_counts_within_one_leg_and_not_between_two() -> None:
    hot = every(120, ["46", "47"])
    assert found(hot, HOT, [leg(0, 120)]) == [(0, 2 * HOUR)]
    assert found(hot, HOT, [leg(0, 60), leg(60, 120)]) == [(0, 0), (2 * HOUR, 2 * HOUR)]
    assert found(hot, HOT) == [(0, 0), (2 * HOUR, 2 * HOUR)]
    report = judged(hot, [leg(0, 120)], now=120)
    assert kinds(report)[0] == "TOO_WARM"


def test_two_probes_count_once_and_the_worse_one_counts() -> None:
    one, other = every(5, ["46"] * 7), every(5, ["46"] * 7, start=10, device="urn:device:2")
    assert found([*one, *other], HOT) == [(0, 40 * 60_000)]
    sound = every(5, ["5"] * 9, device="urn:device:3")
    assert found([*one, *sound], HOT) == [(0, 30 * 60_000)]


def test_an_excursion_goes_on_from_one_custodian_to_the_next() -> None:
    store = every(5, ["46"] * 7)
    truck = every(5, ["46"] * 7, start=45, device="urn:device:2")
    assert found([*store, *truck], HOT) == [(0, 75 * 60_000)]
    assert only(judged([*store, *truck]), ThermalKind.TOO_WARM).seconds == 4500
    # Not where something cooler was recorded between, nor over more than one recording interval.
    assert len(found([*store, *truck, reading(40, "5", "urn:device:3")], HOT)) == 2
    late = every(5, ["46"] * 7, start=61.02, device="urn:device:2")
    assert len(found([*store, *late], HOT)) == 2
    # Nor where the first had cooled down again.
    cooled = [*store, reading(30.1, "44")]
    assert len(found([*cooled, *truck], HOT)) == 2


def test_cumulative_rules_add_up_over_custodians_and_single_ones_do_not() -> None:
    four_hours = ["31"] * 121
    parts = [
        one
        for index, device in enumerate("abc")
        for one in every(2, four_hours, start=index * 600, device=f"urn:device:{device}")
    ]
    report = judged(parts)
    assert only(report, ThermalKind.HEAT_CUMULATIVE).seconds == 12 * 3600
    assert judged(parts[: 121 * 2]).findings[0].kind is not ThermalKind.HEAT_CUMULATIVE
    half_hours = [*every(2, ["46"] * 20), *every(2, ["46"] * 20, start=120)]
    assert "TOO_WARM" not in kinds(judged(half_hours))


def test_a_rule_below_is_freezing_only_where_freezing_destroys() -> None:
    tough = replace(CHILLED, freeze_sensitive=False)
    assert "TOO_COLD" in kinds(judged(wave("-1", 3600), profile=tough))
    chilly = replace(CHILLED, rules=(ExcursionRule("r", "s", Side.BELOW, Decimal(1), 60, Counting.CUMULATIVE),))
    assert "TOO_COLD" in kinds(judged(wave("1", 3600), profile=chilly))


def test_a_vial_monitor_adds_its_rule() -> None:
    monitored = replace(CHILLED, vvm=2, rules=(), mkt_high=None)
    days = 2 * 24 * 30
    assert only(judged(every(2, ["37"] * (days + 1)), profile=monitored), ThermalKind.HEAT_CUMULATIVE).source == (
        vial_rule(2).source
    )
    assert "HEAT_CUMULATIVE" not in kinds(judged(every(2, ["37"] * days), profile=monitored))


@pytest.mark.parametrize(("seconds", "spent"), [(3599, False), (3600, True), (3601, True)])
def test_the_budget_is_spent_when_it_is_reached(seconds: int, spent: bool) -> None:
    budgeted = replace(UNLIMITED, budget_seconds=3600)
    warm = every(2, ["9"] * 16)  # 30 minutes
    cold = wave("1", seconds - 1800, base="")
    cold = [replace(one, time_ms=one.time_ms + 10 * HOUR, device="urn:device:2") for one in cold]
    report = judged([*warm, *cold], profile=budgeted)
    assert ("BUDGET_SPENT" in kinds(report)) == spent
    assert report.outside_seconds == seconds


def test_warm_and_cold_at_once_spend_the_budget_once() -> None:
    both = [*every(2, ["9"] * 16), *every(2, ["1"] * 16, device="urn:device:2")]
    budgeted = replace(UNLIMITED, budget_seconds=1800)
    report = judged(both, profile=budgeted)
    assert report.outside_seconds == 1800
    assert only(report, ThermalKind.BUDGET_SPENT).seconds == 1800
    colder = judged(every(2, ["1"] * 16), profile=budgeted)
    assert only(colder, ThermalKind.BUDGET_SPENT).minimum == 1


def test_of_a_window_the_extremes_count_for_all_of_it() -> None:
    summary = [reading(at, value) for at in (0, 30) for value in ("-1", "46")]
    assert found(summary, HOT) == [(0, 1_800_000)]
    assert found(summary, COLD) == [(0, 1_800_000)]


def test_what_a_rule_forbids_is_not_told_as_a_mere_excursion_too() -> None:
    report = judged(wave("46", 3600, base=""))
    assert "EXCURSION" not in kinds(report)
    report = judged(wave("46", 1800, base=""))
    finding = only(report, ThermalKind.EXCURSION)
    assert (finding.maximum, finding.seconds, finding.readings, finding.device) == (
        Decimal(46),
        1800,
        16,
        "urn:device:1",
    )
    assert finding.evidence == ("88.118.8/event/1",)


def test_the_probe_that_went_furthest_is_named() -> None:
    both = [*every(2, ["46"] * 31), *every(2, ["48"] * 31, device="urn:device:2")]
    assert only(judged(both), ThermalKind.TOO_WARM).device == "urn:device:2"
    frozen = [*every(2, ["-3"] * 31), *every(2, ["-1"] * 31, device="urn:device:2")]
    assert only(judged(frozen), ThermalKind.FROZEN).device == "urn:device:1"


SERIES = st.lists(
    st.tuples(
        st.integers(0, 600),
        st.integers(-40, 120).map(lambda tenths: Decimal(tenths) / 10 * 4),
        st.sampled_from(["urn:d:1", "urn:d:2"]),
    ),
    min_size=1, max_size=40,
)  # fmt: skip
LIMITS = st.sampled_from([WARM, HOT, COLD, Limit(Side.BELOW, Decimal(2), strict=True)])
LEGS = st.sampled_from(
    [(), (leg(0, 700),), (leg(0, 100), leg(100, 700, Mode.TRANSPORT)), (leg(0, 400, Mode.TRANSPORT),)]
)


@settings(max_examples=300)
@given(SERIES, LIMITS, LEGS)
def test_stretches_are_in_order_apart_and_repeating_a_reading_changes_nothing(
    values: list[tuple[int, Decimal, str]], limit: Limit, legs: tuple[Leg, ...]
) -> None:
    readings = [reading(*value) for value in values]
    before = found(readings, limit, legs)
    again = [replace(one, evidence="88.118.8/event/2", subject="88.118.8/BOX") for one in readings]
    assert found([*again, *readings], limit, legs) == before
    assert all(start <= end for start, end in before)
    assert all(end < start for (_, end), (start, _) in pairwise(before))


@settings(max_examples=500)
@given(
    SERIES, LIMITS, LEGS, st.tuples(st.integers(0, 600), st.integers(0, 400), st.sampled_from(["urn:d:1", "urn:d:3"]))
)
def test_a_worse_reading_never_shortens_an_excursion(
    values: list[tuple[int, Decimal, str]], limit: Limit, legs: tuple[Leg, ...], added: tuple[int, int, str]
) -> None:
    at, by, device = added
    readings = [reading(*value) for value in values]
    worst = max if limit.side is Side.ABOVE else min
    extreme = worst(one.celsius for one in readings)
    worse = extreme + Decimal(by) / 10 * (1 if limit.side is Side.ABOVE else -1)

    def time(series: list[Reading]) -> tuple[int, int]:
        probes = [Probe(name, points(each)) for name, each in by_probe(series).items()]
        all_of = stretches(probes, legs, limit, sorted({one.time_ms for one in series}))
        return total_ms(all_of), max((one.lasted_ms for one in all_of), default=-1)

    before, after = time(readings), time([*readings, reading(at, worse, device)])
    assert after[0] >= before[0]
    assert after[1] >= before[1]


@settings(max_examples=150)
@given(st.lists(st.integers(-20, 120), min_size=2, max_size=25), LIMITS)
def test_a_naive_count_of_every_second_agrees(tenths: list[int], limit: Limit) -> None:
    """The line between readings 30 minutes apart, looked at every second: within 2 s a crossing."""
    readings = every(30, [Decimal(one) / 2 for one in tenths])
    counted = 0
    crossings = 0
    for one, following in pairwise(readings):
        a, b = float(one.celsius), float(following.celsius)
        inside = [
            (v >= limit.celsius if limit.side is Side.ABOVE else v <= limit.celsius)
            for v in (a + (b - a) * s / 1800 for s in range(1800))
        ]
        if limit.strict and a == b == float(limit.celsius):
            continue
        counted += sum(inside)
        crossings += 2
    total = sum(end - start for start, end in found(readings, limit)) / 1000
    assert abs(total - counted) <= crossings

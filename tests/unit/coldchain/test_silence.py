from __future__ import annotations

import pytest

from idtrace.coldchain.profiles import BUILT_IN
from idtrace.coldchain.readings import Mode
from idtrace.coldchain.report import ThermalKind
from tests.unit.coldchain.build import MINUTE, T0, every, judged, kinds, leg, only, reading

STORE, TRUCK = Mode.STORE, Mode.TRANSPORT


@pytest.mark.parametrize(
    ("mode", "minutes", "silent"),
    [
        (STORE, 30, False),
        (STORE, 31, False),
        (STORE, 31.001, True),
        (TRUCK, 5, False),
        (TRUCK, 6, False),
        (TRUCK, 6.001, True),
    ],
)
def test_records_are_due_at_the_interval_of_the_mode(mode: Mode, minutes: float, silent: bool) -> None:
    series = every(minutes, ["5", "5.1", "5", "5.1"])
    report = judged(series, [leg(0, 3 * minutes, mode)], now=10_000)
    assert kinds(report) == (["SILENCE"] if silent else [])


def test_out_of_range_records_are_due_every_two_minutes() -> None:
    def silent(minutes: float) -> bool:
        series = [*every(minutes, ["9", "9.1", "5"], start=2), reading(2 * minutes + 7, "5")]
        return "SILENCE" in kinds(judged([reading(0, "7.9"), *series], [leg(0, 2 * minutes + 7)], now=10_000))

    assert not silent(2)
    assert not silent(3)
    assert silent(3.001)
    cold = judged(every(4, ["1", "1", "5"]), [leg(0, 8)], now=10_000)
    assert only(cold, ThermalKind.SILENCE).seconds == 480


def test_another_probe_that_records_breaks_the_silence() -> None:
    both = [*every(50, ["5", "5.1", "5"]), *every(50, ["5", "5.1", "5"], start=25, device="urn:device:2")]
    assert kinds(judged(both, [leg(0, 125)], now=10_000)) == []


@pytest.mark.parametrize(
    ("mode", "profile", "minutes", "needs"),
    [
        (STORE, "2-8", 31, False),
        (STORE, "2-8", 31.001, True),
        (TRUCK, "2-8", 11, False),
        (TRUCK, "2-8", 11.001, True),
        (TRUCK, "-20", 6, False),
        (TRUCK, "-20", 6.001, True),
    ],
)
def test_a_leg_no_longer_than_a_handover_needs_no_reading(
    mode: Mode, profile: str, minutes: float, needs: bool
) -> None:
    report = judged([], [leg(0, minutes, mode)], profile=BUILT_IN[profile], now=10_000)
    assert kinds(report) == (["NO_TEMPERATURE"] if needs else [])
    if needs:
        found = only(report, ThermalKind.NO_TEMPERATURE)
        assert (found.start_ms, found.end_ms, found.device) == (T0, T0 + round(minutes * MINUTE), "urn:room:1")
        assert found.evidence == ("88.118.8/event/leg",)
        assert (found.minimum, found.maximum) == (None, None)


@pytest.mark.parametrize(("first", "last", "silent"), [(11, 11, 0), (11.001, 11, 1), (11, 11.001, 1), (12, 12, 2)])
def test_at_the_ends_of_a_leg_goods_may_be_on_their_way(first: float, last: float, silent: int) -> None:
    series = every(5, ["5", "5.1", "5"], start=first)
    report = judged(series, [leg(0, first + 10 + last, TRUCK)], now=10_000)
    assert len(report.findings) == silent


def test_silent_gaps_that_follow_one_another_are_one_finding() -> None:
    report = judged(every(40, ["5", "5.1", "5", "5.1"]), [leg(0, 160)], now=10_000)
    assert only(report, ThermalKind.SILENCE).seconds == 160 * 60
    apart = [*every(40, ["5", "5.1"]), reading(60, "5"), reading(100, "5.1")]
    assert kinds(judged(apart, [leg(0, 100)], now=10_000)) == ["SILENCE", "SILENCE"]


def test_each_leg_is_judged_alone_and_readings_of_its_ends_count_for_it() -> None:
    series = every(30, ["5", "5.1", "5"])
    legs = [leg(0, 30), leg(30, 60), leg(60, 200)]
    assert only(judged(series, legs, now=10_000), ThermalKind.SILENCE).start_ms == T0 + 60 * MINUTE


def test_what_has_not_happened_yet_is_not_silent() -> None:
    assert kinds(judged([], [leg(100, 500)], now=0)) == []
    assert kinds(judged([], [leg(0, 500)], now=31)) == []


@pytest.mark.parametrize(("mode", "minutes"), [(STORE, 31), (TRUCK, 11)])
def test_until_is_the_first_moment_of_silence(mode: Mode, minutes: int) -> None:
    series = every(5, ["5", "5.1"])
    open_leg = [leg(0, 6, mode)]
    report = judged(series, open_leg, now=6)
    until_ms = T0 + (5 + minutes) * MINUTE + 1
    assert report.until_ms == until_ms
    for now_ms, silent in ((until_ms - 1, False), (until_ms, True)):
        now = (now_ms - T0) / MINUTE
        later = judged(series, [leg(0, now, mode)], now=now)
        assert ("SILENCE" in kinds(later)) == silent
        assert later.until_ms == (None if silent else until_ms)


def test_until_of_a_leg_without_readings_counts_from_its_beginning() -> None:
    assert judged([], [leg(0, 5)], now=5).until_ms == T0 + 31 * MINUTE + 1
    assert judged([], [leg(0, 40)], now=40).until_ms is None
    assert judged([], [leg(0, 4)], now=5).until_ms is None
    assert judged([], [], now=5).until_ms is None
    both = [leg(0, 9), leg(0, 9, TRUCK)]
    assert judged([], both, now=9).until_ms == T0 + 11 * MINUTE + 1

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from idtrace.coldchain.plausibility import accuracy
from idtrace.coldchain.readings import Reading
from idtrace.coldchain.report import EVIDENCE_MAX, FINDINGS_PER_KIND_MAX, ThermalKind
from tests.unit.coldchain.build import CHILLED, HOUR, MINUTE, T0, every, judged, kinds, leg, only, reading

PLAIN = replace(CHILLED, mkt_high=None)
DAY = 24 * HOUR


def moving(count: int) -> list[str]:
    return [f"5.{index % 2}" for index in range(count)]


def test_a_reading_that_the_device_calls_an_error_counts_neither_way() -> None:
    report = judged([reading(0, "5"), reading(5, "-30", error=True), reading(10, "5")], [leg(0, 10)], now=10)
    assert kinds(report) == ["SENSOR_ERROR"]
    assert (report.readings, report.minimum) == (2, Decimal(5))
    silent = judged([reading(at, "5", error=True) for at in (0, 30, 60)], [leg(0, 60)], now=60)
    assert kinds(silent) == ["NO_TEMPERATURE", "SENSOR_ERROR"]
    assert only(silent, ThermalKind.SENSOR_ERROR).readings == 3


@pytest.mark.parametrize(
    ("measured", "reported", "wrong"),
    [
        (10 * MINUTE, 0, False),
        (10 * MINUTE + 1, 0, True),
        (-400 * DAY, 0, False),
        (-400 * DAY - 1, 0, True),
        (10 * MINUTE + 1, None, False),
    ],
)
def test_a_time_after_the_report_or_long_before_it_is_a_wrong_clock(
    measured: int, reported: int | None, wrong: bool
) -> None:
    one = reading(0, "50", time_ms=T0 + measured, reported_ms=0 if reported is None else T0 + reported)
    assert kinds(judged([one], profile=PLAIN)) == (["SENSOR_CLOCK"] if wrong else ["EXCURSION"])


def test_a_reading_from_the_future_of_the_judge_is_a_wrong_clock() -> None:
    late = reading(10.01, "50", reported_ms=0)
    assert kinds(judged([late], now=0)) == ["SENSOR_CLOCK"]
    assert kinds(judged([reading(10, "50", reported_ms=0)], now=0)) == ["EXCURSION"]


def test_two_values_of_one_probe_at_one_instant_are_told_and_both_count() -> None:
    def both(celsius: str, **more: str) -> list[str]:
        return kinds(judged([reading(0, "5"), reading(0, celsius, **{"evidence": "88.118.8/event/2"} | more)]))

    assert both("5.6") == ["SENSOR_CLOCK"]
    assert both("9") == ["SENSOR_CLOCK", "EXCURSION"]
    assert both("5.5") == []  # what the probe may be wrong by
    assert both("7", evidence="88.118.8/event/1") == []  # least and greatest of one report
    assert both("7", device="urn:device:2") == []
    unnamed = [reading(0, "5", ""), reading(0, "7", "", evidence="88.118.8/event/2")]
    assert kinds(judged(unnamed)) == []


@pytest.mark.parametrize(("until", "expired"), [(-1, True), (0, False), (1, False)])
def test_a_probe_is_calibrated_up_to_the_very_end(until: int, expired: bool) -> None:
    report = judged([reading(0, "5", calibrated_until_ms=T0 + until)])
    assert kinds(report) == (["SENSOR_CALIBRATION"] if expired else [])


def test_a_probe_out_of_calibration_still_counts_both_ways() -> None:
    old = [reading(at, "-1", calibrated_until_ms=0) for at in range(0, 62, 2)]
    report = judged(old, [leg(0, 60)], now=60)
    assert kinds(report) == ["FROZEN", "SENSOR_CALIBRATION", "ALARM_OPEN"]


@pytest.mark.parametrize(
    ("minutes", "celsius", "jumps"),
    [
        (1, "16", False),
        (1, "16.01", True),
        (0.1, "15", False),
        (0.1, "15.1", True),
        (5, "56.0", False),
        (5, "57.1", True),
        (2, "-17", False),
        (2, "-17.1", True),
    ],
)
def test_faster_than_air_can_change_is_a_jump(minutes: float, celsius: str, jumps: bool) -> None:
    report = judged([reading(0, "5"), reading(minutes, celsius)], profile=PLAIN)
    assert ("SENSOR_JUMP" in kinds(report)) == jumps
    assert report.readings == 2 - jumps


def test_a_spike_counts_for_nothing_and_a_level_that_stays_counts_when_it_can_have_been_reached() -> None:
    spike = every(2, ["5", "5.1", "90", "5", "5.1"])
    report = judged(spike, [leg(0, 8)], now=8)
    assert kinds(report) == ["SENSOR_JUMP"]
    assert report.maximum == Decimal("5.1")
    # 85 K away: 8.4 minutes at 10 K a minute and both accuracies
    stays = judged(every(2, ["5", *["90"] * 35]), profile=PLAIN)
    assert only(stays, ThermalKind.SENSOR_JUMP).readings == 4
    assert only(stays, ThermalKind.TOO_WARM).maximum == 90


@pytest.mark.parametrize("values", [["5", "5.1", "90", "5"], ["5", "5.1", "-90", "5"]])
def test_a_jump_tells_whence_and_whither(values: list[str]) -> None:
    found = only(judged(every(2, values)), ThermalKind.SENSOR_JUMP)
    assert [found.minimum, found.maximum] == sorted([Decimal("5.1"), Decimal(values[2])])
    assert (found.readings, found.seconds) == (1, 0)


def test_each_of_two_jumps_tells_its_own_whence() -> None:
    report = judged(every(2, ["5", "90", "6", "-90", "6"]))
    jumps = [(one.minimum, one.maximum) for one in report.findings if one.kind is ThermalKind.SENSOR_JUMP]
    assert jumps == [(Decimal(5), Decimal(90)), (Decimal(-90), Decimal(6))]


def test_a_disagreement_tells_both_probes_values() -> None:
    report = judged([*every(30, moving(5)), *(replace_by(one, "3") for one in every(30, moving(5)))])
    found = only(report, ThermalKind.SENSOR_DISAGREE)
    values = [Decimal(value) for value in moving(5)]
    assert (found.minimum, found.maximum) == (min(values), max(values) + 3)


def replace_by(one: Reading, kelvin: str) -> Reading:
    return replace(one, celsius=one.celsius + Decimal(kelvin), device="urn:device:2")


def test_least_and_greatest_of_a_window_are_no_jump() -> None:
    summary = [reading(at, value) for at in (0, 30, 30.5) for value in ("-10", "30")]
    assert "SENSOR_JUMP" not in kinds(judged(summary))


def test_the_same_value_for_too_long_is_stuck() -> None:
    assert kinds(judged(every(8, ["5"] * 24))) == ["SENSOR_STUCK"]  # 184 minutes
    assert kinds(judged(every(7.9, ["5"] * 23))) == []
    assert kinds(judged(every(7.82, ["5"] * 24))) == []  # 179.86 minutes
    assert kinds(judged(every(180 / 23, ["5"] * 24))) == ["SENSOR_STUCK"]  # 3 hours
    assert kinds(judged(every(8, ["5.1", *["5"] * 23, "5.1"]))) == []
    assert only(judged(every(8, ["5.1", *["5"] * 24, "5.1"])), ThermalKind.SENSOR_STUCK).readings == 23


def test_a_stuck_probe_counts_against_and_not_for() -> None:
    report = judged(every(30, ["5"] * 49), [leg(0, 24 * 60)], now=24 * 60)
    assert kinds(report) == ["SILENCE", "SENSOR_STUCK"]
    beside = every(30, moving(49), device="urn:device:2")
    covered = judged([*every(30, ["5"] * 49), *beside], [leg(0, 24 * 60)], now=24 * 60)
    assert kinds(covered) == ["SENSOR_STUCK"]
    assert "FROZEN" in kinds(judged(every(5, ["-1"] * 49)))


def test_two_probes_that_disagree_for_long_are_told() -> None:
    def beside(apart: str, count: int, minutes: float = 30, place: str = "88.118.8/TRUCK-1") -> list[str]:
        other = [
            reading(minutes * index, Decimal(value) + Decimal(apart), "urn:device:2", subject=place)
            for index, value in enumerate(moving(count))
        ]
        return kinds(judged([*every(minutes, moving(count)), *other]))

    assert beside("1.0", 10) == []  # the sum of both accuracies
    assert beside("1.1", 10) == ["SENSOR_DISAGREE"]
    assert beside("-1.1", 10) == ["SENSOR_DISAGREE"]
    assert beside("1.1", 3) == []  # an hour, and only three readings
    assert beside("1.1", 4) == ["SENSOR_DISAGREE"]
    assert beside("1.1", 12, 5) == []  # 55 minutes
    assert beside("1.1", 13, 5) == ["SENSOR_DISAGREE"]
    assert beside("1.1", 10, place="88.118.8/TRUCK-2") == []
    assert beside("1.1", 10, minutes=40) == ["SENSOR_DISAGREE"]


def test_probes_whose_readings_are_far_apart_in_time_are_not_compared() -> None:
    one = every(63, moving(10))
    late = every(63, ["7.0", "7.1"] * 5, start=31.5, device="urn:device:2")
    assert kinds(judged([*one, *late])) == []
    near = every(63, ["7.0", "7.1"] * 5, start=32.5, device="urn:device:2")
    assert kinds(judged([*one, *near])) == ["SENSOR_DISAGREE"]


def test_of_probes_that_disagree_the_worse_one_counts() -> None:
    report = judged([*every(5, moving(20)), *every(5, ["-1", "-1.1"] * 10, device="urn:device:2")])
    assert kinds(report)[0] == "FROZEN"
    assert "SENSOR_DISAGREE" in kinds(report)


@pytest.mark.parametrize(
    ("celsius", "kelvin"),
    [("0", "0.5"), ("40", "0.5"), ("-0.1", "1"), ("-25", "1"), ("-25.1", "2"), ("-70", "2"), ("40.1", "1")],
)
def test_accuracy_is_that_of_the_class(celsius: str, kelvin: str) -> None:
    assert accuracy(Decimal(celsius)) == Decimal(kelvin)


def test_a_name_that_is_no_uri_is_a_probe_of_its_own_at_each_place() -> None:
    def at(place: str, device: str) -> list[Reading]:
        return [replace(one, subject=place) for one in every(8, ["5"] * 12, start=4 * (place == "b"), device=device)]

    assert kinds(judged([*at("a", "left"), *at("b", "left")])) == []
    assert kinds(judged([*at("a", "urn:x"), *at("b", "urn:x")])) == []  # 24 readings of 92 minutes
    assert judged([*at("a", ""), *at("b", "")]).readings == 24


def test_one_reading_told_twice_is_one_and_keeps_all_that_is_said_against_it() -> None:
    one = reading(0, "5", reported_ms=0)
    twice = [
        one,
        replace(one, evidence="88.118.8/event/2", reported_ms=T0, calibrated_until_ms=T0 + 5, alarm=True),
        replace(one, evidence="88.118.8/event/3", reported_ms=T0 + 1, calibrated_until_ms=T0 - 1),
    ]
    report = judged(twice)
    assert (report.readings, kinds(report)) == (1, ["SENSOR_CALIBRATION", "ALARM_OPEN"])
    assert kinds(judged([*twice, replace(one, error=True)])) == ["SENSOR_ERROR"]
    assert judged(twice) == judged(twice[::-1])


def test_findings_and_evidence_are_bounded_and_the_longest_are_kept() -> None:
    many = [
        reading(40 * index + at, value, evidence=f"88.118.8/event/{index}")
        for index in range(100)
        for at, value in ((0, "5"), (20, "9" if index % 2 else "11"))
    ]
    report = judged(many, profile=PLAIN)
    assert kinds(report).count("EXCURSION") == FINDINGS_PER_KIND_MAX
    assert [one.maximum for one in report.findings if one.kind is ThermalKind.EXCURSION].count(Decimal(11)) == 50
    warm = [reading(2 * index, "46", evidence=f"88.118.8/event/{index}") for index in range(100)]
    assert len(only(judged(warm), ThermalKind.TOO_WARM).evidence) == EVIDENCE_MAX

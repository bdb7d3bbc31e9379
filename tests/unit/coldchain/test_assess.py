"""The whole: alarms and their acknowledgement, order and bounds, and what never gets better."""

from __future__ import annotations

import gc
import time
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idtrace.coldchain.alarms import Acknowledgement, Alarm, AlarmKind, acknowledged, alarm_id
from idtrace.coldchain.assess import assess, concluded, examine
from idtrace.coldchain.profiles import BUILT_IN
from idtrace.coldchain.readings import Mode, Reading
from idtrace.coldchain.report import KINDS, ThermalKind
from idtrace.verdict.findings import Code
from tests.unit.coldchain.build import CHILLED, HOUR, MINUTE, PROBE, T0, TRUCK, every, judged, kinds, leg, only, reading

DOOR = every(2, ["9"] * 8)  # 14 minutes


def word(alarm: Alarm | str, at: float = 60, party: str = "88.118.8", evidence: str = "e") -> Acknowledgement:
    name = alarm if isinstance(alarm, str) else alarm.id
    return Acknowledgement(name, party, "goods moved", T0 + round(at * MINUTE), evidence)


def test_kinds_are_codes_of_the_verdict_one_for_one() -> None:
    names = [code.value for code in Code]
    first, last = names.index("FROZEN"), names.index("ALARM_OPEN")
    assert {kind.value for kind in ThermalKind} == set(names[first : last + 1])


def test_nothing_at_all_is_an_empty_report() -> None:
    report = judged([])
    assert (report.findings, report.alarms, report.readings, report.minimum, report.until_ms) == ((), (), 0, None, None)
    assert (report.subject, report.profile) == ("88.118.8/SN-1", "2-8")


def test_a_sound_life_has_no_findings() -> None:
    random = Random(5)

    def recorded(start: int, minutes: int, count: int, device: str) -> list[Reading]:
        values = [Decimal(random.randrange(40, 60)) / 10 for _ in range(count)]
        return every(minutes, values, start=start, device=device)

    life = [
        *recorded(0, 30, 200, "urn:d:store"),
        *recorded(6000, 5, 100, "urn:d:truck-1"),
        *recorded(6000, 5, 100, "urn:d:truck-2"),
        *recorded(6510, 30, 300, "urn:d:clinic"),
    ]
    legs = [leg(0, 5990), leg(5990, 6500, Mode.TRANSPORT), leg(6500, 15_490)]
    report = judged(life, legs, now=15_490)
    assert report.findings == ()
    assert report.readings == 700
    assert report.until_ms is not None


@pytest.mark.parametrize(
    ("profile", "minutes", "celsius", "alarms"),
    [
        ("2-8", 10, "9", False),
        ("2-8", 10.001, "9", True),
        ("2-8", 10.001, "1", True),
        ("-20", 5, "-14", False),
        ("-20", 5.001, "-14", True),
    ],
)
def test_an_alarm_is_raised_by_what_lasts_longer_than_a_handover(
    profile: str, minutes: float, celsius: str, alarms: bool
) -> None:
    report = judged([reading(0, celsius), reading(minutes, celsius)], profile=BUILT_IN[profile])
    assert kinds(report) == (["ALARM_OPEN", "EXCURSION"] if alarms else ["EXCURSION"])
    assert len(report.alarms) == alarms


def test_an_alarm_says_everything() -> None:
    report = judged([reading(-2, "5"), *DOOR, reading(16, "5")])
    (alarm,) = report.alarms
    # a quarter of two minutes either way is beyond 8
    assert (alarm.kind, alarm.subject, alarm.device) == (AlarmKind.ABOVE, TRUCK, PROBE)
    assert (alarm.start_ms, alarm.end_ms, alarm.seconds, alarm.readings) == (T0, T0 + 14 * MINUTE, 14 * 60 + 60, 8)
    assert (alarm.minimum, alarm.maximum, *alarm.evidence) == (Decimal(9), Decimal(9), "88.118.8/event/1")
    assert alarm.id == alarm_id(TRUCK, AlarmKind.ABOVE, T0, PROBE)
    opened = only(report, ThermalKind.ALARM_OPEN)
    assert (opened.alarm_id, opened.start_ms, opened.seconds, opened.maximum) == (alarm.id, T0, 900, Decimal(9))
    assert only(report, ThermalKind.EXCURSION).alarm_id == alarm.id


def test_an_alarm_keeps_its_id_as_it_goes_on_and_for_every_dose() -> None:
    longer = [*DOOR, *every(2, ["46"] * 40, start=16)]
    first, later = judged(DOOR).alarms[0], judged(longer).alarms[0]
    assert first.id == later.id
    assert later.seconds > first.seconds
    assert only(judged(longer), ThermalKind.TOO_WARM).alarm_id == first.id


def test_ids_differ_in_each_of_their_parts() -> None:
    parts = [
        (TRUCK, AlarmKind.ABOVE, T0, PROBE), ("other", AlarmKind.ABOVE, T0, PROBE), (TRUCK, AlarmKind.BELOW, T0, PROBE),
        (TRUCK, AlarmKind.ABOVE, T0 + 1, PROBE), (TRUCK, AlarmKind.ABOVE, T0, ""),
    ]  # fmt: skip
    assert len({alarm_id(*each) for each in parts}) == len(parts)
    assert len(alarm_id("\ud800", AlarmKind.ABOVE, 0, "")) == 32


def test_an_acknowledged_alarm_is_not_open_and_the_excursion_names_who() -> None:
    (alarm,) = judged(DOOR).alarms
    report = judged(DOOR, acknowledgements=[word("other"), word(alarm)])
    assert kinds(report) == ["EXCURSION"]
    assert only(report, ThermalKind.EXCURSION).acknowledged_by == "88.118.8"
    assert (report.alarms[0].acknowledged_by, report.alarms[0].comment) == ("88.118.8", "goods moved")


def test_of_several_acknowledgements_the_first_after_the_beginning_counts() -> None:
    (alarm,) = judged(DOOR).alarms
    early = word(alarm, at=-0.001, party="88.118.1")
    assert "ALARM_OPEN" in kinds(judged(DOOR, acknowledgements=[early]))
    assert acknowledged(alarm, {alarm.id: early}) == alarm
    several = [word(alarm, 70, "88.118.3"), early, word(alarm, 0, "88.118.2")]
    assert judged(DOOR, acknowledgements=several).alarms[0].acknowledged_by == "88.118.2"


def test_a_rule_is_broken_whoever_acknowledges_it() -> None:
    hot = every(2, ["46"] * 31)
    (alarm,) = judged(hot).alarms
    report = judged(hot, acknowledgements=[word(alarm)])
    assert kinds(report) == ["TOO_WARM"]
    assert report.findings[0].acknowledged_by == "88.118.8"


def test_a_devices_own_alarm_is_one_however_short() -> None:
    short = [reading(0, "9", alarm=True), reading(2, "9")]
    assert kinds(judged(short)) == ["ALARM_OPEN", "EXCURSION"]
    assert judged(short).alarms[0].kind is AlarmKind.ABOVE
    inside = [reading(0, "5"), reading(2, "7.9", alarm=True), reading(4, "7.8", alarm=True), reading(6, "5")]
    report = judged(inside)
    assert kinds(report) == ["ALARM_OPEN"]
    (alarm,) = report.alarms
    assert (alarm.kind, alarm.start_ms, alarm.seconds, alarm.readings) == (AlarmKind.DEVICE, T0 + 2 * MINUTE, 120, 2)
    assert kinds(judged(inside, acknowledgements=[word(alarm)])) == []


def test_findings_are_sorted_the_gravest_first() -> None:
    mixed = [
        *every(2, ["-1"] * 31),
        *every(2, ["46"] * 31, start=200),
        reading(300, "5", error=True),
        *every(2, ["9"] * 8, start=500),
    ]
    report = judged(mixed, [leg(0, 514)], now=514)
    order = [KINDS.index(one.kind) for one in report.findings]
    assert order == sorted(order)
    assert kinds(report)[:2] == ["FROZEN", "TOO_WARM"]


def test_what_is_examined_once_is_concluded_for_each_dose() -> None:
    examined = examine(CHILLED, (), DOOR, now_ms=T0 + 10 * HOUR)
    said = [word(examined.alarms[0])]
    for subject in ("88.118.8/SN-1", "88.118.8/SN-2"):
        whole = assess(subject, CHILLED, (), DOOR, said, now_ms=T0 + 10 * HOUR)
        assert concluded(subject, examined, said) == whole
        assert whole.subject == subject
    assert concluded("x", examine(CHILLED, (), (), now_ms=T0), said).findings == ()


READINGS = st.lists(
    st.tuples(
        st.integers(0, 400),
        st.integers(-12, 100).map(lambda half: Decimal(half) / 2),
        st.sampled_from(["urn:d:1", "", "left"]),
        st.booleans(),
    ),
    max_size=40,
)


def made(values: list[tuple[int, Decimal, str, bool]]) -> list[Reading]:
    return [
        reading(at, celsius, device, alarm=alarm, evidence=f"88.118.8/event/{at % 3}")
        for at, celsius, device, alarm in values
    ]


@settings(max_examples=200, deadline=None)
@given(READINGS, st.randoms(use_true_random=False))
def test_order_and_repetition_of_readings_change_nothing(
    values: list[tuple[int, Decimal, str, bool]], random: Random
) -> None:
    readings = made(values)
    legs = [leg(0, 200), leg(200, 500, Mode.TRANSPORT)]
    before = judged(readings, legs, now=400)
    shuffled = [*readings, *readings]
    random.shuffle(shuffled)
    assert judged(shuffled, legs, now=400) == before


@settings(max_examples=300, deadline=None)
@given(READINGS, st.integers(0, 400), st.integers(0, 20), st.booleans())
def test_a_worse_reading_of_another_probe_never_improves_the_report(
    values: list[tuple[int, Decimal, str, bool]], at: int, by: int, above: bool
) -> None:
    # Worse is worse on one side: a warm reading between two cold ones shows that it was not cold all the while.
    readings = [one for one in made(values) if (one.celsius >= CHILLED.low if above else one.celsius <= CHILLED.high)]
    extremes = [one.celsius for one in readings] or [Decimal(5)]
    worse = max(extremes) + by if above else min(extremes) - by
    before = judged(readings, [leg(0, 400)], now=400)
    after = judged([*readings, reading(at, worse, "urn:d:9")], [leg(0, 400)], now=400)
    assert after.outside_seconds >= before.outside_seconds
    grave = {
        ThermalKind.FROZEN, ThermalKind.TOO_WARM, ThermalKind.HEAT_CUMULATIVE, ThermalKind.TOO_COLD,
        ThermalKind.BUDGET_SPENT,
    }  # fmt: skip
    assert {one.kind for one in before.findings} & grave <= {one.kind for one in after.findings}
    doubts = {one.kind for one in before.findings if one.kind.value.startswith("SENSOR_")}
    assert doubts <= {one.kind for one in after.findings}
    assert not after.findings == () != before.findings


def year(level: str) -> list[Reading]:
    random = Random(7)
    noise = [Decimal(random.randrange(-9, 10)) / 10 for _ in range(1500)]
    return [
        one
        for device in ("urn:d:1", "urn:d:2")
        for one in every(30, [Decimal(level) + each for each in noise], device=device)
    ]


@pytest.mark.parametrize("level", ["5", "7.5", "33"])
def test_three_thousand_readings_are_judged_quickly(level: str) -> None:
    """Some 10 to 40 ms on a machine with nothing else to do; the bound leaves room for others and for coverage."""
    readings, legs = year(level), [leg(0, 30 * 1499)]
    best, report = 10.0, judged([])
    for _ in range(5):
        gc.collect()
        began = time.process_time()
        report = judged(readings, legs, now=30 * 1499)
        best = min(best, time.process_time() - began)
    assert report.readings == 3000
    assert best < 0.5, f"{best * 1000:.0f} ms"

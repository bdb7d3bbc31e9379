from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from idtrace.coldchain.alarms import acknowledgements
from idtrace.coldchain.extract import CALIBRATED_UNTIL, readings
from idtrace.epcis.model import Action, Event, EventType, SensorElement, SensorMetadata, SensorReport
from idtrace.provenance.history import Observed
from tests.shared_data import shared_data
from tests.unit.coldchain.build import T0


def observed(*elements: SensorElement, **event: Any) -> Observed:
    fields: dict[str, Any] = {"epcs": ("idtrace:88.118.8/TRUCK-1",), "biz_step": "sensor_reporting"} | event
    made = Event(EventType.OBJECT, Action.OBSERVE, T0, 480, sensors=elements, **fields)
    return Observed(made, "88.118.8/event/1", "88.118.8", T0 // 1000)


def element(*reports: SensorReport, **metadata: Any) -> SensorElement:
    return SensorElement(SensorMetadata(**metadata), reports)


def report(value: str | None = "5", uom: str = "CEL", **more: Any) -> SensorReport:
    return SensorReport(type="Temperature", value=None if value is None else Decimal(value), uom=uom, **more)


def test_a_report_becomes_a_reading_with_its_probe_and_its_event() -> None:
    (one,) = readings([observed(element(report(time_ms=T0 - 5, device_id="urn:device:1")))])
    assert (one.time_ms, one.celsius, one.device, one.evidence) == (
        T0 - 5, Decimal(5), "urn:device:1", "88.118.8/event/1",
    )  # fmt: skip
    assert (one.subject, one.reported_ms, one.calibrated_until_ms, one.error, one.alarm) == (
        "88.118.8/TRUCK-1", T0, None, False, False,
    )  # fmt: skip


@pytest.mark.parametrize(("value", "uom"), [("46.4", "FAH"), ("281.15", "KEL"), ("8", "CEL")])
def test_units_are_converted_exactly(value: str, uom: str) -> None:
    (one,) = readings([observed(element(report(value, uom)))])
    assert one.celsius == 8


@pytest.mark.parametrize(
    ("of_report", "metadata", "times"),
    [
        ({"time_ms": T0 + 1}, {"time_ms": T0 + 2, "start_ms": T0 + 3}, [T0 + 1]),
        ({}, {"time_ms": T0 + 2}, [T0 + 2]),
        ({}, {"start_ms": T0 - 9, "end_ms": T0 - 1}, [T0 - 9, T0 - 1]),
        ({}, {"end_ms": T0 - 1}, [T0 - 1]),
        ({}, {"start_ms": T0 - 1, "end_ms": T0 - 1}, [T0 - 1]),
        ({}, {}, [T0]),
    ],
)
def test_the_nearest_time_counts(of_report: dict[str, Any], metadata: dict[str, Any], times: list[int]) -> None:
    found = readings([observed(element(report(**of_report), **metadata))])
    assert [one.time_ms for one in found] == times


def test_of_a_window_least_and_greatest_stand_at_both_ends() -> None:
    summary = report(None, min_value=Decimal(-1), max_value=Decimal(9), mean_value=Decimal(5))
    found = readings([observed(element(summary, start_ms=T0 - 100, end_ms=T0))])
    assert [(one.time_ms - T0, one.celsius) for one in found] == [
        (at, Decimal(value)) for at in (-100, 0) for value in (-1, 9)
    ]


def test_a_mean_alone_is_no_reading() -> None:
    assert readings([observed(element(report(None, mean_value=Decimal(5))))]) == ()


def test_what_is_no_temperature_is_no_reading() -> None:
    humidity = SensorReport(type="RelativeHumidity", value=Decimal(50), uom="P1")
    assert readings([observed(element(humidity)), observed()]) == ()


@pytest.mark.parametrize(
    ("value", "uom"),
    [("-273.16", "CEL"), ("-0.01", "KEL"), ("1000.1", "CEL"), ("5", "P1"), ("5", ""), ("NaN", "CEL"), ("1E+40", "CEL")],
)
def test_what_cannot_have_been_measured_is_shown_as_an_error(value: str, uom: str) -> None:
    (one,) = readings([observed(element(report(value, uom)))])
    assert one.error


def test_the_hottest_there_is_still_counts() -> None:
    (one,) = readings([observed(element(report("1000")))])
    assert not one.error


def test_error_and_alarm_are_the_devices_own_word() -> None:
    found = readings(
        [observed(element(report("5", exception="ERROR_CONDITION"), report("6", exception="ALARM_CONDITION")))]
    )
    assert [(one.error, one.alarm) for one in found] == [(True, False), (False, True)]


@pytest.mark.parametrize("where", ["report", "metadata", "element"])
def test_a_calibration_may_stand_at_each_level(where: str) -> None:
    end = {CALIBRATED_UNTIL: "2026-01-01T08:00:00+08:00"}
    of_report = report(extensions=end if where == "report" else {})
    made = SensorElement(
        SensorMetadata(extensions=end if where == "metadata" else {}), (of_report,), end if where == "element" else {}
    )
    (one,) = readings([observed(made)])
    assert one.calibrated_until_ms == T0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-01T00:00:00.250z", T0 + 250),
        ("2026-01-01", 0),
        ("2026-13-01T00:00:00Z", 0),
        ("2026-01-01T00:00:00", 0),
        ("0001-01-01T00:00:00+14:00", 0),
        (1_767_225_600, 0),
        (None, 0),
    ],
)
def test_a_calibration_that_cannot_be_read_vouches_for_nothing(text: Any, expected: int) -> None:
    (one,) = readings([observed(element(report(extensions={CALIBRATED_UNTIL: text})))])
    assert one.calibrated_until_ms is not None
    assert max(0, one.calibrated_until_ms) == expected


@pytest.mark.parametrize(
    ("event", "subject"),
    [
        ({}, "88.118.8/TRUCK-1"),
        ({"epcs": (), "parent": "idtrace:88.118.8/P"}, "88.118.8/P"),
        ({"epcs": (), "read_point": "urn:rp"}, "urn:rp"),
        ({"epcs": (), "biz_location": "urn:loc"}, "urn:loc"),
        ({"epcs": ()}, "urn:device:9"),
    ],
)
def test_a_reading_is_of_what_the_event_names(event: dict[str, Any], subject: str) -> None:
    (one,) = readings([observed(element(report(), device_id="urn:device:9"), **event)])
    assert (one.subject, one.device) == (subject, "urn:device:9")


def test_the_sample_documents_of_gs1_have_their_temperatures() -> None:
    """Values read by eye in the published file: 26 CEL with a minimum of 12 and a maximum of 27, twice."""
    text = (shared_data("epcis") / "documents" / "SensorData_and_extension.json").read_text("utf-8")
    expected = {
        (Decimal(str(one[name])), one["uom"])
        for event in json.loads(text)["epcisBody"]["eventList"]
        for sensor in event.get("sensorElementList", ())
        for one in sensor["sensorReport"]
        for name in ("value", "minValue", "maxValue")
        if one.get("type", "").endswith("Temperature") and name in one
    }
    from idtrace.epcis.parse import read_document

    parsed = read_document(text.encode())
    events = [item for item in parsed.items if isinstance(item, Event)]
    found = readings(Observed(event, "p/event/1", "p", 0) for event in events)
    assert expected
    assert {one.celsius for one in found} == {value for value, _ in expected}


ALARM = "ab" * 16


def word(**extensions: Any) -> Observed:
    names = {f"idtrace:{name}": value for name, value in extensions.items()}
    return observed(biz_step="inspecting", extensions=names)


def test_an_acknowledgement_names_alarms_signer_and_comment() -> None:
    found = acknowledgements([word(acknowledges=[ALARM, "cd"], comment="door left open, shut"), observed()])
    assert [(one.alarm_id, one.party, one.comment, one.at_ms, one.evidence) for one in found] == [
        (ALARM, "88.118.8", "door left open, shut", T0, "88.118.8/event/1"),
        ("cd", "88.118.8", "door left open, shut", T0, "88.118.8/event/1"),
    ]
    assert acknowledgements([word(acknowledges=ALARM, comment="x")])[0].alarm_id == ALARM


@pytest.mark.parametrize(
    "extensions",
    [
        {"acknowledges": ALARM},
        {"acknowledges": ALARM, "comment": " "},
        {"acknowledges": ALARM, "comment": 5},
        {"comment": "all well"},
        {"acknowledges": 7, "comment": "x"},
        {"acknowledges": [7], "comment": "x"},
    ],
)
def test_without_a_comment_or_an_alarm_nothing_is_acknowledged(extensions: dict[str, Any]) -> None:
    assert acknowledgements([word(**extensions)]) == ()


def test_only_an_inspection_acknowledges() -> None:
    said = {"idtrace:acknowledges": ALARM, "idtrace:comment": "x"}
    assert acknowledgements([observed(biz_step="storing", extensions=said)]) == ()
    aggregation = Event(EventType.AGGREGATION, Action.OBSERVE, T0, 0, biz_step="inspecting", extensions=said)
    assert acknowledgements([Observed(aggregation, "e", "p", 0)]) == ()

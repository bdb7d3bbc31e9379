"""Readings out of events: what the sensor reports of temperature say, each with its time, device and event.

What becomes a reading (EPCIS 2.0, section 7.3.7, "SensorElement"):

- ``value`` at the report's time, else the element's, else, if the element names a window (``startTime``,
  ``endTime``), at both its ends, else at the event's time.
- ``minValue`` and ``maxValue``: both count. With a window they stand at its start *and* at its end: when within it
  they were reached is not told, so the dose is taken to have had the worst of both all through.
- ``meanValue`` alone is no reading: a mean can hide a night of frost. So what has nothing else is silent.
- Units CEL, FAH and KEL, converted exactly. A unit that is none of temperature, no unit, and what is colder than
  absolute zero or hotter than any cold chain is a reading with ``error``: it is shown, and counts for nothing.
- The probe's calibration: extension ``idtrace:calibratedUntil`` of the report, the metadata or the element, RFC 3339.
  A text that is no such time is taken for a calibration that has ended: what cannot be read does not vouch for a
  probe.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Final

from idtrace.coldchain.readings import Reading
from idtrace.coldchain.units import celsius
from idtrace.epcis.model import Event, Json, SensorElement, SensorReport
from idtrace.epcis.uris import key
from idtrace.errors import InputError
from idtrace.provenance.history import Observed

TEMPERATURE: Final = frozenset({"Temperature", "gs1:Temperature", "https://gs1.org/voc/Temperature"})
CALIBRATED_UNTIL: Final = "idtrace:calibratedUntil"
# A burning truck is below it; above it is a broken wire.
CELSIUS_MAX: Final = Decimal(1000)
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)\Z")


def readings(observed: Iterable[Observed]) -> tuple[Reading, ...]:
    """All temperatures that the events report, in order of time; every report counts, whatever it was reported of."""
    found = [one for each in observed for one in _of_event(each)]
    found.sort(key=lambda one: (one.time_ms, one.device, one.celsius, one.subject, one.evidence))
    return tuple(found)


def _of_event(observed: Observed) -> Iterator[Reading]:
    event = observed.event
    for element in event.sensors:
        for report in element.reports:
            if report.type in TEMPERATURE:
                yield from _of_report(observed, element, report)


def _of_report(observed: Observed, element: SensorElement, report: SensorReport) -> Iterator[Reading]:
    event, metadata = observed.event, element.metadata
    device = key(report.device_id or metadata.device_id)
    calibrated_until_ms = _calibrated_until(element, report)
    subject = _subject(event) or device
    for value in (report.value, report.min_value, report.max_value):
        if value is None:
            continue
        degrees, error = _degrees(value, report.uom)
        for time_ms in _times(event, element, report):
            yield Reading(
                time_ms=time_ms,
                celsius=degrees,
                device=device,
                evidence=observed.identifier,
                subject=subject,
                reported_ms=event.time_ms,
                calibrated_until_ms=calibrated_until_ms,
                error=error or report.exception == "ERROR_CONDITION",
                alarm=report.exception == "ALARM_CONDITION",
            )


def _degrees(value: Decimal, uom: str) -> tuple[Decimal, bool]:
    """The value in °C, and whether it is none that a probe can have measured (then as near to it as can be shown)."""
    try:
        degrees = celsius(value, uom)
    except InputError:
        return value if value.is_finite() else Decimal(0), True
    return degrees, degrees > CELSIUS_MAX


def _times(event: Event, element: SensorElement, report: SensorReport) -> tuple[int, ...]:
    time_ms = report.time_ms if report.time_ms is not None else element.metadata.time_ms
    if time_ms is not None:
        return (time_ms,)
    ends = {one for one in (element.metadata.start_ms, element.metadata.end_ms) if one is not None}
    return tuple(sorted(ends)) or (event.time_ms,)


def _subject(event: Event) -> str:
    """What was measured: the first thing that the event names, else where it happened."""
    named = (*event.epcs[:1], event.parent, *event.outputs[:1], event.read_point, event.biz_location)
    return key(next(filter(None, named), ""))


def _calibrated_until(element: SensorElement, report: SensorReport) -> int | None:
    for extensions in (report.extensions, element.metadata.extensions, element.extensions):
        if CALIBRATED_UNTIL in extensions:
            return _rfc_3339_ms(extensions[CALIBRATED_UNTIL])
    return None


def _rfc_3339_ms(text: Json) -> int:
    """UTC ms of an RFC 3339 date-time; 0, a time long past, for anything else."""
    if not isinstance(text, str) or _RFC_3339.match(text) is None:
        return 0
    try:
        moment = datetime.fromisoformat(text.upper())
        return round(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        return 0

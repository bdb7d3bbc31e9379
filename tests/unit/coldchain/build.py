"""Series of readings for tests: times in minutes from one fixed moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from idtrace.coldchain.assess import assess
from idtrace.coldchain.profile import Profile
from idtrace.coldchain.profiles import BUILT_IN
from idtrace.coldchain.readings import Leg, Mode, Reading
from idtrace.coldchain.report import ThermalFinding, ThermalKind, ThermalReport

T0 = 1_767_225_600_000  # 2026-01-01T00:00:00Z
MINUTE = 60_000
HOUR = 60 * MINUTE
CHILLED = BUILT_IN["2-8"]
TRUCK = "88.118.8/TRUCK-1"
PROBE = "urn:device:1"


def reading(minute: float, celsius: str | Decimal, device: str = PROBE, **more: object) -> Reading:
    time_ms = T0 + round(minute * MINUTE)
    fields: dict[str, object] = {
        "time_ms": time_ms, "celsius": Decimal(celsius), "device": device, "evidence": "88.118.8/event/1",
        "subject": TRUCK, "reported_ms": time_ms,
    }  # fmt: skip
    return Reading(**(fields | more))  # type: ignore[arg-type]  # a test's own keyword arguments


def every(minutes: float, values: Iterable[str | Decimal], *, start: float = 0, device: str = PROBE) -> list[Reading]:
    return [reading(start + index * minutes, value, device) for index, value in enumerate(values)]


def leg(start: float, end: float, mode: Mode = Mode.STORE, place: str = "urn:room:1") -> Leg:
    return Leg(T0 + round(start * MINUTE), T0 + round(end * MINUTE), mode, "88.118.8", place, ("88.118.8/event/leg",))


def judged(
    readings: Iterable[Reading],
    legs: Sequence[Leg] = (),
    *,
    profile: Profile = CHILLED,
    now: float = 10_000_000,
    acknowledgements: Sequence[object] = (),
) -> ThermalReport:
    return assess(
        "88.118.8/SN-1", profile, legs, readings, acknowledgements,  # type: ignore[arg-type]  # mostly ()
        now_ms=T0 + round(now * MINUTE),
    )  # fmt: skip


def kinds(report: ThermalReport) -> list[str]:
    return [one.kind.value for one in report.findings]


def only(report: ThermalReport, kind: ThermalKind) -> ThermalFinding:
    (found,) = [one for one in report.findings if one.kind is kind]
    return found

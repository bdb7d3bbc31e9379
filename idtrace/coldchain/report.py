"""What the temperature rules found: findings by kind, each with its readings, duration, device, evidence and source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

from idtrace.coldchain.alarms import Alarm
from idtrace.coldchain.readings import Reading

# A person looks at some events and finds the rest beside them; a year of a broken room must not fill a verdict.
EVIDENCE_MAX: Final = 16
# Of each kind so many, the longest first: what a verdict needs is the worst, and that there are more.
FINDINGS_PER_KIND_MAX: Final = 64


class ThermalKind(StrEnum):
    """What was found; the names are the codes of :mod:`idtrace.verdict.findings`, and the gravest come first."""

    FROZEN = "FROZEN"
    TOO_COLD = "TOO_COLD"
    TOO_WARM = "TOO_WARM"
    HEAT_CUMULATIVE = "HEAT_CUMULATIVE"
    BUDGET_SPENT = "BUDGET_SPENT"
    MKT_EXCEEDED = "MKT_EXCEEDED"
    NO_TEMPERATURE = "NO_TEMPERATURE"
    SILENCE = "SILENCE"
    SENSOR_ERROR = "SENSOR_ERROR"
    SENSOR_CLOCK = "SENSOR_CLOCK"
    SENSOR_JUMP = "SENSOR_JUMP"
    SENSOR_STUCK = "SENSOR_STUCK"
    SENSOR_CALIBRATION = "SENSOR_CALIBRATION"
    SENSOR_DISAGREE = "SENSOR_DISAGREE"
    ALARM_OPEN = "ALARM_OPEN"
    EXCURSION = "EXCURSION"


KINDS: Final = tuple(ThermalKind)


@dataclass(frozen=True, slots=True)
class ThermalFinding:
    """One thing that was found.

    Attributes:
        start_ms, end_ms: from when to when, UTC; of a cumulative rule from the first stretch to the last.
        minimum, maximum: the coldest and the warmest reading in it, °C; None where there is none (silence). Of
            MKT_EXCEEDED, ``maximum`` is the mean kinetic temperature, rounded up to thousandths.
        seconds: how long it lasted, without what lies between its stretches; whole seconds, rounded down.
        readings: how many readings show it.
        device: the probe that shows the worst of it; of silence the place that was silent.
        evidence: identifiers of the events' records, ``EVIDENCE_MAX`` at most.
        source: the rule that it breaks.
        alarm_id, acknowledged_by: the alarm it raised, and the party that has acknowledged it; "" for none.
    """

    kind: ThermalKind
    start_ms: int
    end_ms: int
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    seconds: int = 0
    readings: int = 0
    device: str = ""
    evidence: tuple[str, ...] = ()
    source: str = ""
    alarm_id: str = ""
    acknowledged_by: str = ""


@dataclass(frozen=True, slots=True)
class ThermalReport:
    """All that was found of one thing, the gravest first.

    Attributes:
        subject: whose temperatures they are.
        profile: name of the profile it was judged by.
        findings: sorted by kind, then time; ``FINDINGS_PER_KIND_MAX`` of a kind.
        alarms: in order of time, the acknowledged ones too.
        readings: how many readings counted; ``minimum`` and ``maximum`` of them, °C.
        outside_seconds: time outside the labelled limits, all custodians together.
        until_ms: when silence becomes a finding if nothing comes; None where no recording is due any more, or it
            already is one.
    """

    subject: str
    profile: str
    findings: tuple[ThermalFinding, ...]
    alarms: tuple[Alarm, ...] = ()
    readings: int = 0
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    outside_seconds: int = 0
    until_ms: int | None = None


def of_readings(
    kind: ThermalKind, readings: list[Reading], source: str, *, end_ms: int | None = None
) -> ThermalFinding:
    """A finding about readings of one probe, given in order of time."""
    start_ms, last_ms = readings[0].time_ms, readings[-1].time_ms if end_ms is None else end_ms
    values = [one.celsius for one in readings]
    return ThermalFinding(
        kind, start_ms, last_ms, min(values), max(values), (last_ms - start_ms) // 1000, len(readings),
        readings[0].device, cited(one.evidence for one in readings), source,
    )  # fmt: skip


def cited(evidence: Iterable[str]) -> tuple[str, ...]:
    """Each event once, in order, ``EVIDENCE_MAX`` at most."""
    found: dict[str, None] = {}
    for one in evidence:
        if one and one not in found:
            found[one] = None
            if len(found) == EVIDENCE_MAX:
                break
    return tuple(found)


def sorted_findings(findings: Iterable[ThermalFinding]) -> tuple[ThermalFinding, ...]:
    """The gravest kind first, then by time; of each kind the longest, ``FINDINGS_PER_KIND_MAX`` at most."""
    by_kind: dict[ThermalKind, list[ThermalFinding]] = {}
    for one in findings:
        by_kind.setdefault(one.kind, []).append(one)
    kept: list[ThermalFinding] = []
    for kind in KINDS:
        of_kind = by_kind.get(kind, [])
        if len(of_kind) > FINDINGS_PER_KIND_MAX:
            of_kind = sorted(of_kind, key=lambda one: (-one.seconds, *_place(one)))[:FINDINGS_PER_KIND_MAX]
        kept += sorted(of_kind, key=_place)
    return tuple(kept)


def _place(one: ThermalFinding) -> tuple[int, int, str, str, tuple[str, ...], str]:
    return (one.start_ms, one.end_ms, one.device, one.source, one.evidence, one.alarm_id)

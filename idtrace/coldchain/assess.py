"""Was it always cold? All temperature rules on the readings of one thing's life.

``assess`` is ``examine`` (everything that does not depend on whose readings they are) and ``concluded`` (whose, and
who has acknowledged the alarms). Doses that shared all their packages share readings and legs, so a caller that
judges many of them examines once and concludes for each.

The steps, each in its module: which readings are one (``series``), which can be believed (``plausibility``), how long
it was beyond each limit (``excursions``), by the rules of the profile and its vial monitor here, the mean (``mkt``),
what was silent (``silence``), and who answers for it (``alarms``). How kinds are chosen:

- A rule below a limit of 0 °C or colder is FROZEN for what freezing destroys, and TOO_COLD for all else; a rule above
  is TOO_WARM if one stretch alone breaks it, HEAT_CUMULATIVE if all together do.
- BUDGET_SPENT: the time outside the labelled limits reaches what stability data allow over its life. Limits, seconds
  and budget all include themselves: what reaches them has broken them.
- EXCURSION: each stretch outside the labelled limits that no rule on one stretch forbids.
- ALARM_OPEN: an alarm is raised by an excursion that lasts longer than a handover (10 min, frozen goods 5: GSP lets
  chilled goods stand that long, so a door that is opened for them alarms nobody), or by the device's own
  ALARM_CONDITION; it is open until somebody acknowledges it.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import groupby
from typing import Final

from idtrace.coldchain.alarms import Acknowledgement, Alarm, AlarmKind, acknowledged, alarm_id
from idtrace.coldchain.excursions import Limit, Stretch, stretches, total_ms
from idtrace.coldchain.intervals import handover_ms
from idtrace.coldchain.mkt import SOURCE as MKT_SOURCE
from idtrace.coldchain.mkt import warmest
from idtrace.coldchain.plausibility import believable, disagreements
from idtrace.coldchain.profile import Counting, ExcursionRule, Profile, Side
from idtrace.coldchain.profiles import rules_of
from idtrace.coldchain.readings import Leg, Reading
from idtrace.coldchain.report import ThermalFinding, ThermalKind, ThermalReport, cited, sorted_findings
from idtrace.coldchain.series import Probe, by_probe, points
from idtrace.coldchain.silence import silences

LABEL_SOURCE: Final = "labelled storage temperature"
BUDGET_SOURCE: Final = "stability budget of the product"
ALARM_SOURCE: Final = "GSP 附录3 (2013 No. 38): alarms are dealt with and recorded"


def assess(
    subject: str,
    profile: Profile,
    legs: Sequence[Leg],
    readings: Iterable[Reading],
    acknowledgements: Iterable[Acknowledgement],
    *,
    now_ms: int,
) -> ThermalReport:
    """Judge a thing's temperatures; ``readings`` are all that applied to it, of any probe, in any order."""
    return concluded(subject, examine(profile, legs, readings, now_ms=now_ms), acknowledgements)


def concluded(subject: str, examined: ThermalReport, acknowledgements: Iterable[Acknowledgement]) -> ThermalReport:
    """What was examined, as one thing's report, with the acknowledgements of its alarms."""
    if not examined.alarms:
        return replace(examined, subject=subject)
    # The first word counts; a later one adds nothing.
    by_id: dict[str, Acknowledgement] = {}
    starts = {alarm.id: alarm.start_ms for alarm in examined.alarms}
    for one in sorted(acknowledgements, key=lambda word: (word.at_ms, word.party, word.evidence)):
        if one.at_ms >= starts.get(one.alarm_id, one.at_ms + 1):
            by_id.setdefault(one.alarm_id, one)
    findings = [
        replace(one, acknowledged_by=by_id[one.alarm_id].party) if one.alarm_id in by_id else one
        for one in examined.findings
        if one.kind is not ThermalKind.ALARM_OPEN or one.alarm_id not in by_id
    ]
    alarms = tuple(acknowledged(alarm, by_id) for alarm in examined.alarms)
    return replace(examined, subject=subject, findings=tuple(findings), alarms=alarms)


def examine(profile: Profile, legs: Sequence[Leg], readings: Iterable[Reading], *, now_ms: int) -> ThermalReport:
    """All that does not depend on whose temperatures they are: every alarm is open, the subject is ""."""
    findings: list[ThermalFinding] = []
    believed = {name: believable(of_probe, now_ms=now_ms) for name, of_probe in by_probe(readings).items()}
    for one in believed.values():
        findings += one.findings
    findings += disagreements({name: one.against for name, one in believed.items()})
    against = {name: Probe(name, points(one.against)) for name, one in believed.items()}
    probes = [probe for probe in against.values() if probe.points]
    # Mostly all that counts against it counts for it too, and making points is dear.
    recorded = [
        against[name] if one.both is one.against else Probe(name, points(one.both)) for name, one in believed.items()
    ]
    times = sorted({point.time_ms for probe in probes for point in probe.points})
    found = _Excursions(
        profile,
        stretches(probes, legs, Limit(Side.ABOVE, profile.high, strict=True), times),
        stretches(probes, legs, Limit(Side.BELOW, profile.low, strict=True), times),
    )
    broken = [
        finding
        for rule in rules_of(profile)
        for finding in _broken(profile, rule, stretches(probes, legs, Limit(rule.side, rule.limit), times))
    ]
    alarms = sorted((*found.alarms(), *_device_alarms(probes, found)), key=lambda one: (one.start_ms, one.id))
    findings += found.findings(broken, alarms)
    findings += _kinetic(probes, legs, profile)
    silent, until_ms = silences(legs, recorded, profile, now_ms=now_ms)
    findings += silent
    findings += [_open(alarm) for alarm in alarms]
    return ThermalReport(
        subject="",
        profile=profile.name,
        findings=sorted_findings(findings),
        alarms=tuple(alarms),
        readings=sum(len(point.readings) for probe in probes for point in probe.points),
        minimum=min((point.low for probe in probes for point in probe.points), default=None),
        maximum=max((point.high for probe in probes for point in probe.points), default=None),
        outside_seconds=total_ms((*found.above, *found.below)) // 1000,
        until_ms=until_ms,
    )


def _kind(profile: Profile, rule: ExcursionRule) -> ThermalKind:
    if rule.side is Side.BELOW:
        return ThermalKind.FROZEN if profile.freeze_sensitive and rule.limit <= 0 else ThermalKind.TOO_COLD
    return ThermalKind.TOO_WARM if rule.counting is Counting.SINGLE else ThermalKind.HEAT_CUMULATIVE


def _broken(profile: Profile, rule: ExcursionRule, found: list[Stretch]) -> Iterator[ThermalFinding]:
    """The rule's findings: each stretch that breaks it, or all of them together."""
    needed_ms = rule.seconds * 1000
    if rule.counting is Counting.SINGLE:
        for one in found:
            if one.lasted_ms >= needed_ms:
                yield _finding(_kind(profile, rule), rule.side, [one], rule.source)
    elif total_ms(found) >= needed_ms:
        yield _finding(_kind(profile, rule), rule.side, found, rule.source)


def _finding(kind: ThermalKind, side: Side, found: Sequence[Stretch], source: str) -> ThermalFinding:
    worst = (max if side is Side.ABOVE else min)(found, key=lambda one: one.worst.celsius)
    return ThermalFinding(
        kind=kind,
        start_ms=found[0].start_ms,
        end_ms=max(one.end_ms for one in found),
        minimum=min(one.minimum for one in found),
        maximum=max(one.maximum for one in found),
        seconds=total_ms(found) // 1000,
        readings=sum(one.readings for one in found),
        device=worst.worst.device,
        evidence=cited(each for one in (worst, *found) for each in one.evidence),
        source=source,
    )


@dataclass(frozen=True, slots=True)
class _Excursions:
    """The stretches outside the labelled limits, and what follows from them."""

    profile: Profile
    above: list[Stretch]
    below: list[Stretch]

    def sides(self) -> Iterator[tuple[Side, AlarmKind, list[Stretch]]]:
        yield Side.ABOVE, AlarmKind.ABOVE, self.above
        yield Side.BELOW, AlarmKind.BELOW, self.below

    def alarms(self) -> Iterator[Alarm]:
        for _, kind, found in self.sides():
            yield from (_alarm(kind, one) for one in found if self._alarms(one))

    def _alarms(self, one: Stretch) -> bool:
        return one.alarm or one.lasted_ms > handover_ms(self.profile)

    def findings(self, broken: list[ThermalFinding], alarms: Sequence[Alarm]) -> Iterator[ThermalFinding]:
        """What the rules found, with the alarms that it raised; excursions that none of them forbids; the budget."""
        ids = {alarm.id for alarm in alarms}
        for side, kind, found in self.sides():
            forbidden = [one for one in broken if _SIDES[one.kind] is side]
            for one in forbidden:
                within = [each for each in found if each.start_ms <= one.end_ms and one.start_ms <= each.end_ms]
                raised = next((name for each in within if (name := _alarm_id(kind, each)) in ids), "")
                yield replace(one, alarm_id=raised)
            single = [(one.start_ms, one.end_ms) for one in forbidden if one.kind is not ThermalKind.HEAT_CUMULATIVE]
            for each in found:
                if not any(start <= each.end_ms and each.start_ms <= end for start, end in single):
                    name = _alarm_id(kind, each)
                    finding = _finding(ThermalKind.EXCURSION, side, [each], LABEL_SOURCE)
                    yield replace(finding, alarm_id=name if name in ids else "")
        yield from self._budget()

    def _budget(self) -> Iterator[ThermalFinding]:
        found = sorted((*self.above, *self.below), key=lambda one: (one.start_ms, one.end_ms))
        if self.profile.budget_seconds and total_ms(found) >= self.profile.budget_seconds * 1000:
            longest = max((self.above, self.below), key=total_ms)
            side = Side.ABOVE if longest is self.above else Side.BELOW
            yield _finding(ThermalKind.BUDGET_SPENT, side, found, BUDGET_SOURCE)


_SIDES: Final = {
    ThermalKind.FROZEN: Side.BELOW,
    ThermalKind.TOO_COLD: Side.BELOW,
    ThermalKind.TOO_WARM: Side.ABOVE,
    ThermalKind.HEAT_CUMULATIVE: Side.ABOVE,
}


def _alarm_id(kind: AlarmKind, one: Stretch) -> str:
    return alarm_id(one.first_subject, kind, one.first_ms, one.first_device)


def _alarm(kind: AlarmKind, one: Stretch) -> Alarm:
    return Alarm(
        id=_alarm_id(kind, one),
        kind=kind,
        subject=one.first_subject,
        device=one.first_device,
        start_ms=one.first_ms,
        end_ms=one.last_ms,
        minimum=one.minimum,
        maximum=one.maximum,
        seconds=one.lasted_ms // 1000,
        readings=one.readings,
        evidence=one.evidence,
    )


def _device_alarms(probes: Iterable[Probe], found: _Excursions) -> Iterator[Alarm]:
    """Runs of ALARM_CONDITION while the temperature was within its limits: the device has a limit of its own."""
    spans = [(one.start_ms, one.end_ms) for one in (*found.above, *found.below)]
    for probe in probes:
        readings = [one for point in probe.points for one in point.readings]
        for alarming, group in groupby(readings, key=lambda one: one.alarm):
            if not alarming:
                continue
            run = [one for one in group if not any(start <= one.time_ms <= end for start, end in spans)]
            if run:
                first, last = run[0], run[-1]
                yield Alarm(
                    id=alarm_id(first.subject, AlarmKind.DEVICE, first.time_ms, first.device),
                    kind=AlarmKind.DEVICE,
                    subject=first.subject,
                    device=first.device,
                    start_ms=first.time_ms,
                    end_ms=last.time_ms,
                    minimum=min(one.celsius for one in run),
                    maximum=max(one.celsius for one in run),
                    seconds=(last.time_ms - first.time_ms) // 1000,
                    readings=len(run),
                    evidence=cited(one.evidence for one in run),
                )


def _open(alarm: Alarm) -> ThermalFinding:
    return ThermalFinding(
        kind=ThermalKind.ALARM_OPEN,
        start_ms=alarm.start_ms,
        end_ms=alarm.end_ms,
        minimum=alarm.minimum,
        maximum=alarm.maximum,
        seconds=alarm.seconds,
        readings=alarm.readings,
        device=alarm.device,
        evidence=alarm.evidence,
        source=ALARM_SOURCE,
        alarm_id=alarm.id,
    )


def _kinetic(probes: Sequence[Probe], legs: Sequence[Leg], profile: Profile) -> Iterator[ThermalFinding]:
    if profile.mkt_high is None:
        return
    window = warmest(probes, legs, profile.mkt_high, profile.mkt_hours)
    if window is None:
        return
    within = [
        one
        for probe in probes
        for point in probe.points[
            bisect_left(probe.points, window.start_ms, key=lambda point: point.time_ms) : bisect_right(
                probe.points, window.end_ms, key=lambda point: point.time_ms
            )
        ]
        for one in point.readings
    ]
    hottest = max(within, key=lambda one: one.celsius)
    yield ThermalFinding(
        kind=ThermalKind.MKT_EXCEEDED,
        start_ms=window.start_ms,
        end_ms=window.end_ms,
        minimum=min(one.celsius for one in within),
        maximum=Decimal(math.ceil(window.celsius * 1000)) / 1000,
        seconds=(window.end_ms - window.start_ms) // 1000,
        readings=len(within),
        device=hottest.device,
        evidence=cited((hottest.evidence, *(one.evidence for one in within))),
        source=MKT_SOURCE,
    )

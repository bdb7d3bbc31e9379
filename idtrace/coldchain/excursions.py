"""Stretches of time at or beyond a limit, out of readings: per probe, then over all probes and custodians.

Between two neighbouring readings of one probe the temperature is taken to run

- *linearly*, where they are no further apart than the recording interval of the leg: what the record was made often
  enough for. The time of crossing is worked out exactly, and rounded to the whole millisecond that makes the stretch
  longer;
- *at the milder of the two*, where they are further apart and in one leg: if both are beyond a limit, nothing shows
  that it ever came back, so all of it counts; if only one is, none of it does. A line across such a gap would count
  minutes, or excuse them, that nobody has measured; and the gap is a finding of its own
  (:mod:`idtrace.coldchain.silence`);
- *not at all* across a gap between legs: the thing was elsewhere.

A reading beyond a limit with no neighbour to go by is a stretch of no length: it is told, and adds nothing to a sum.
Nothing is prolonged beyond the last reading. So a reading that is worse than what was taken to be there only ever
adds.

Of several probes the worst counts: their stretches are united, so the same minute never counts twice. Where one
probe's readings end beyond the limit and another's begin beyond it within one recording interval, and nothing lies
between, it is one stretch: the dose went from warm to warm, whoever had it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from typing import Final

from idtrace.coldchain.intervals import STORE_MS, TOLERANCE_MS, is_bridged, same_leg
from idtrace.coldchain.profile import Side
from idtrace.coldchain.readings import Leg, Reading
from idtrace.coldchain.report import cited
from idtrace.coldchain.series import Point, Probe

# Values have 50 digits at most and times 17: products of differences are exact.
_EXACT: Final = Context(prec=160)
_JOINED_MS: Final = STORE_MS + TOLERANCE_MS


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit and a side; ``strict``: the limit itself is still inside (a label's), else it is beyond (a rule's)."""

    side: Side
    celsius: Decimal
    strict: bool = False

    def beyond(self, point: Point) -> bool:
        """Whether the worse value of a point is beyond the limit."""
        if self.side is Side.ABOVE:
            return point.high > self.celsius if self.strict else point.high >= self.celsius
        return point.low < self.celsius if self.strict else point.low <= self.celsius

    def worst(self, point: Point) -> Decimal:
        """The value of a point that counts on this side."""
        return point.high if self.side is Side.ABOVE else point.low


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of time beyond a limit.

    Attributes:
        start_ms, end_ms: with the way there and back, as far as that is known.
        first_ms, last_ms: the first and the last reading beyond the limit.
        minimum, maximum: of the readings in it.
        readings: how many of them there are.
        worst: the reading that went furthest.
        alarm: whether the device itself said ALARM_CONDITION.
        open_start, open_end: it begins or ends at a reading beyond the limit, and what was before or after is unknown.
    """

    start_ms: int
    end_ms: int
    first_ms: int
    last_ms: int
    minimum: Decimal
    maximum: Decimal
    readings: int
    worst: Reading
    evidence: tuple[str, ...]
    first_device: str
    first_subject: str
    alarm: bool
    open_start: bool
    open_end: bool

    @property
    def lasted_ms(self) -> int:
        """How long it lasted."""
        return self.end_ms - self.start_ms


def stretches(probes: Iterable[Probe], legs: Sequence[Leg], limit: Limit, times: Sequence[int]) -> list[Stretch]:
    """All stretches beyond a limit, in order, none overlapping; ``times`` are those of all readings, in order."""
    found = [one for probe in probes for one in of_probe(probe, legs, limit)]
    found.sort(key=lambda one: (one.start_ms, one.end_ms, one.first_device, one.first_subject))
    united: list[Stretch] = []
    for one in found:
        if united and _joins(united[-1], one, times):
            united[-1] = _joined(united[-1], one, limit)
        else:
            united.append(one)
    return united


def total_ms(found: Iterable[Stretch]) -> int:
    """How long stretches lasted together; overlapping ones (above one limit, below another) count once."""
    total, until_ms = 0, -(2**63)
    for start_ms, end_ms in sorted((one.start_ms, one.end_ms) for one in found):
        total += max(0, end_ms - max(start_ms, until_ms))
        until_ms = max(until_ms, end_ms)
    return total


def of_probe(probe: Probe, legs: Sequence[Leg], limit: Limit) -> list[Stretch]:
    """One probe's stretches beyond a limit, in order."""
    points, count = probe.points, len(probe.points)
    beyond = [index for index, point in enumerate(points) if limit.beyond(point)]
    found: list[Stretch] = []
    at = 0
    while at < len(beyond):
        first = at
        while at + 1 < len(beyond) and beyond[at + 1] == beyond[at] + 1 and _runs_on(points, beyond[at], legs):
            at += 1
        start, end = beyond[first], beyond[at]
        before = points[start - 1] if start else None
        after = points[end + 1] if end + 1 < count else None
        found.append(_stretch(points[start : end + 1], before, after, legs, limit))
        at += 1
    return found


def _runs_on(points: Sequence[Point], index: int, legs: Sequence[Leg]) -> bool:
    start_ms, end_ms = points[index].time_ms, points[index + 1].time_ms
    return is_bridged(start_ms, end_ms, legs) or same_leg(start_ms, end_ms, legs)


def _stretch(
    inside: Sequence[Point], before: Point | None, after: Point | None, legs: Sequence[Leg], limit: Limit
) -> Stretch:
    first, last = inside[0], inside[-1]
    start_ms, end_ms = first.time_ms, last.time_ms
    # A neighbour that is beyond the limit too, and yet no part of this, lies in another leg.
    open_start = before is None or limit.beyond(before) or not is_bridged(before.time_ms, start_ms, legs)
    open_end = after is None or limit.beyond(after) or not is_bridged(end_ms, after.time_ms, legs)
    if not open_start and before is not None:
        start_ms -= _share_ms(limit.worst(first), limit.worst(before), limit.celsius, start_ms - before.time_ms)
    if not open_end and after is not None:
        end_ms += _share_ms(limit.worst(last), limit.worst(after), limit.celsius, after.time_ms - end_ms)
    side = max if limit.side is Side.ABOVE else min
    worst_point = side(inside, key=limit.worst)
    return Stretch(
        start_ms=start_ms,
        end_ms=end_ms,
        first_ms=first.time_ms,
        last_ms=last.time_ms,
        minimum=min(point.low for point in inside),
        maximum=max(point.high for point in inside),
        readings=sum(len(point.readings) for point in inside),
        worst=worst_point.readings[-1 if limit.side is Side.ABOVE else 0],
        evidence=cited(one.evidence for point in inside for one in point.readings),
        first_device=first.readings[0].device,
        first_subject=first.readings[0].subject,
        alarm=any(one.alarm for point in inside for one in point.readings),
        open_start=open_start,
        open_end=open_end,
    )


def _share_ms(beyond: Decimal, within: Decimal, limit: Decimal, apart_ms: int) -> int:
    """For how long a line from a value beyond the limit to one within it stays beyond, rounded up to whole ms."""
    whole = _EXACT.subtract(beyond, within)
    part = _EXACT.multiply(_EXACT.subtract(beyond, limit), Decimal(apart_ms))
    quotient = _EXACT.divide_int(part, whole)
    exact = _EXACT.multiply(quotient, whole) == part
    return int(quotient) + (0 if exact else 1)


def _joins(one: Stretch, following: Stretch, times: Sequence[int]) -> bool:
    if following.start_ms <= one.end_ms:
        return True
    if not (one.open_end and following.open_start) or following.start_ms - one.end_ms > _JOINED_MS:
        return False
    # The first reading after the one's end is the other's first.
    return times[bisect_right(times, one.end_ms)] == following.start_ms


def _joined(one: Stretch, other: Stretch, limit: Limit) -> Stretch:
    last = other if other.end_ms >= one.end_ms else one
    further = (
        other.maximum > one.maximum if limit.side is Side.ABOVE else other.minimum < one.minimum
    )  # of equals the first
    return replace(
        one,
        end_ms=last.end_ms,
        first_ms=min(one.first_ms, other.first_ms),
        last_ms=max(one.last_ms, other.last_ms),
        minimum=min(one.minimum, other.minimum),
        maximum=max(one.maximum, other.maximum),
        readings=one.readings + other.readings,
        worst=other.worst if further else one.worst,
        evidence=cited((*one.evidence, *other.evidence)),
        alarm=one.alarm or other.alarm,
        open_end=last.open_end,
    )

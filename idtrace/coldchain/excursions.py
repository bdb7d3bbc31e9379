"""Stretches of time at or beyond a limit, out of readings: per probe, then over all probes and custodians.

Between two neighbouring readings of one probe the temperature is taken to run

- *linearly*, where they are no further apart than the longest recording interval there is (a store's), whatever the
  leg. The time of crossing is worked out exactly, and rounded to the whole millisecond that makes the stretch longer;
- *at the milder of the two*, where they are further apart and in one leg: if both are beyond a limit, nothing shows
  that it ever came back, so all of it counts; if only one is, none of it does. A line across such a gap would count
  minutes that nobody has measured; and the gap is a finding of its own (:mod:`idtrace.coldchain.silence`);
- *not at all* across such a gap between legs: the thing was elsewhere.

Of several probes the worst counts: their stretches are united, so the same minute never counts twice. And where one
reading beyond the limit follows upon another, of whatever probes, within one recording interval and with nothing
recorded between them, the time between counts: the dose went from warm to warm, whoever had it.

A reading beyond a limit with no neighbour to go by is a stretch of no length: it is told, and adds nothing to a sum.
Nothing is prolonged beyond the last reading.

So one more reading that is worse than all others on the side of the limit never shortens a stretch beyond it, of
whatever probe it is (a warm one between two cold ones does: it was not cold all the while). That is why a line
is drawn as far in transport as in store (were it shorter there, a reading beside the truck's departure would take a
longer line away), and why it does not matter how a probe went on after it was warm, but only whether anything was
recorded before the next warm reading.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from typing import Final

from idtrace.coldchain.intervals import STORE_MS, TOLERANCE_MS, same_leg
from idtrace.coldchain.profile import Side
from idtrace.coldchain.readings import Leg, Reading
from idtrace.coldchain.report import cited
from idtrace.coldchain.series import Point, Probe

# Values have 50 digits at most and times 17: products of differences are exact.
_EXACT: Final = Context(prec=160)
# Two readings no further apart than this belong together: the longest interval at which they may be recorded.
_NEAR_MS: Final = STORE_MS + TOLERANCE_MS


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
        if united and one.start_ms <= united[-1].end_ms:
            united[-1] = _joined(united[-1], one, limit)
        else:
            united.append(one)
    # Only now is it known which reading is the first and the last of each.
    whole: list[Stretch] = []
    for one in united:
        if whole and _follows(whole[-1], one, times):
            whole[-1] = _joined(whole[-1], one, limit)
        else:
            whole.append(one)
    return whole


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
        found.append(_stretch(points[start : end + 1], before, after, limit))
        at += 1
    return found


def _runs_on(points: Sequence[Point], index: int, legs: Sequence[Leg]) -> bool:
    start_ms, end_ms = points[index].time_ms, points[index + 1].time_ms
    return end_ms - start_ms <= _NEAR_MS or same_leg(start_ms, end_ms, legs)


def _stretch(inside: Sequence[Point], before: Point | None, after: Point | None, limit: Limit) -> Stretch:
    first, last = inside[0], inside[-1]
    start_ms = first.time_ms - (_share_ms(first, before, limit) if before is not None else 0)
    end_ms = last.time_ms + (_share_ms(last, after, limit) if after is not None else 0)
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
    )


def _share_ms(point: Point, beside: Point, limit: Limit) -> int:
    """For how long a line from a point beyond the limit to its neighbour stays beyond, rounded up to whole ms."""
    apart_ms = abs(beside.time_ms - point.time_ms)
    # A neighbour that is beyond the limit too, and yet no part of the stretch, lies in another leg.
    if limit.beyond(beside) or apart_ms > _NEAR_MS:
        return 0
    beyond, within = limit.worst(point), limit.worst(beside)
    whole = _EXACT.subtract(beyond, within)
    part = _EXACT.multiply(_EXACT.subtract(beyond, limit.celsius), Decimal(apart_ms))
    quotient = _EXACT.divide_int(part, whole)
    exact = _EXACT.multiply(quotient, whole) == part
    return int(quotient) + (0 if exact else 1)


def _follows(one: Stretch, following: Stretch, times: Sequence[int]) -> bool:
    """Whether the first reading of all after the one's last is the other's first, and near."""
    if following.first_ms - one.last_ms > _NEAR_MS:
        return False
    return times[bisect_right(times, one.last_ms)] == following.first_ms


def _joined(one: Stretch, other: Stretch, limit: Limit) -> Stretch:
    further = (
        other.maximum > one.maximum if limit.side is Side.ABOVE else other.minimum < one.minimum
    )  # of equals the first
    return replace(
        one,
        end_ms=max(one.end_ms, other.end_ms),
        first_ms=min(one.first_ms, other.first_ms),
        last_ms=max(one.last_ms, other.last_ms),
        minimum=min(one.minimum, other.minimum),
        maximum=max(one.maximum, other.maximum),
        readings=one.readings + other.readings,
        worst=other.worst if further else one.worst,
        evidence=cited((*one.evidence, *other.evidence)),
        alarm=one.alarm or other.alarm,
    )

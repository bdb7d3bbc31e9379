"""Mean kinetic temperature: the one temperature at which as much would have decayed as at all that there were.

::

    T_K = (dH/R) / -ln( mean( exp(-(dH/R) / T_i) ) )          dH/R = 83.144 kJ/mol / 8.3144 J/(mol K) = 10,000 K

Source: USP <1079.2> (before 2021 in <1160>), after Haynes, J. Pharm. Sci. 60 (1971) 927; ICH Q1A(R2), glossary. The
mean is weighted by time, over every window of the profile's length that lies within the readings; a shorter history
has none, since the mean of an hour is no mean of a day. Between neighbouring readings exp(...) runs on a straight
line, which lies above the true curve, so the result is a little too warm and never too cold. Of several probes the
warmest counts at every moment. Time that nobody recorded has no weight, and a window of which less than half was
recorded is no window: that it was silent is a finding of its own. Mean kinetic temperature is one rule more and
excuses nothing, frost and heat by the other rules least of all; frozen goods have none.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Final, NamedTuple

from idtrace.coldchain.intervals import is_bridged
from idtrace.coldchain.readings import Leg
from idtrace.coldchain.series import Probe

KELVIN: Final = 10_000.0
ZERO_CELSIUS: Final = 273.15
SOURCE: Final = "USP <1079.2>: mean kinetic temperature"
# Rounding of doubles is below a billionth of a degree, no probe sees a thousandth: a limit that is met exactly is kept.
MARGIN_KELVIN: Final = 1e-6


class Piece(NamedTuple):
    """A stretch of the warmest curve: rates of decay, 1 at the reference temperature, on a line between both ends."""

    start_ms: int
    end_ms: int
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Warmest:
    """The window with the highest mean kinetic temperature."""

    celsius: float
    start_ms: int
    end_ms: int


def mean_kinetic(values: Iterable[tuple[Decimal, float]]) -> float:
    """Mean kinetic temperature, °C, of temperatures in °C, each with its weight; the formula as it is published."""
    pairs = [(float(celsius) + ZERO_CELSIUS, weight) for celsius, weight in values]
    total = math.fsum(weight for _, weight in pairs)
    mean = math.fsum(weight * math.exp(-KELVIN / kelvin) for kelvin, weight in pairs) / total
    return KELVIN / -math.log(mean) - ZERO_CELSIUS


def warmest(probes: Sequence[Probe], legs: Sequence[Leg], limit: Decimal, hours: int) -> Warmest | None:
    """The warmest window, if its mean kinetic temperature is above the limit."""
    if all(point.high <= limit for probe in probes for point in probe.points):
        return None
    reference = float(limit) + ZERO_CELSIUS
    curve = _Curve(_pieces(probes, legs, reference))
    window_ms = hours * 3_600_000
    best, best_ms = 0.0, 0
    for start_ms in curve.starts(window_ms):
        mean = curve.mean(start_ms, window_ms)
        if mean > best:
            best, best_ms = mean, start_ms
    if best <= 0:
        return None
    celsius = 1 / (1 / reference - math.log(best) / KELVIN) - ZERO_CELSIUS
    if celsius <= float(limit) + MARGIN_KELVIN:
        return None
    return Warmest(celsius, best_ms, best_ms + window_ms)


def _rate(celsius: Decimal, reference: float) -> float:
    kelvin = float(celsius) + ZERO_CELSIUS
    return math.exp(KELVIN * (1 / reference - 1 / kelvin)) if kelvin > 0 else 0.0


def _pieces(probes: Sequence[Probe], legs: Sequence[Leg], reference: float) -> list[Piece]:
    """The warmest curve over all probes, in pieces without overlap."""
    lines = [_lines(probe, legs, reference) for probe in probes]
    if len(lines) == 1:
        return lines[0]
    edges = sorted({edge for line in lines for piece in line for edge in (piece.start_ms, piece.end_ms)})
    next_of = [0] * len(lines)
    pieces: list[Piece] = []
    for start_ms, end_ms in pairwise(edges):
        first = last = -1.0
        for index, line in enumerate(lines):
            at = next_of[index]
            while at < len(line) and line[at].end_ms <= start_ms:
                at += 1
            next_of[index] = at
            if at < len(line) and line[at].start_ms <= start_ms:
                first = max(first, _on(line[at], start_ms))
                last = max(last, _on(line[at], end_ms))
        if first >= 0:
            pieces.append(Piece(start_ms, end_ms, first, last))
    return pieces


def _lines(probe: Probe, legs: Sequence[Leg], reference: float) -> list[Piece]:
    rated = [(point.time_ms, _rate(point.high, reference)) for point in probe.points]
    return [
        Piece(start_ms, end_ms, first, last)
        for (start_ms, first), (end_ms, last) in pairwise(rated)
        if is_bridged(start_ms, end_ms, legs)
    ]


def _on(piece: Piece, time_ms: int) -> float:
    share = (time_ms - piece.start_ms) / (piece.end_ms - piece.start_ms)
    return piece.first + share * (piece.last - piece.first)


class _Curve:
    """The warmest curve, with what has decayed and been recorded up to each piece."""

    def __init__(self, pieces: list[Piece]) -> None:
        self._pieces = pieces
        self._edges = [piece.start_ms for piece in pieces]
        self._sums = [(0.0, 0)]
        for piece in pieces:
            decay, recorded_ms = self._sums[-1]
            length_ms = piece.end_ms - piece.start_ms
            decay += (piece.first + piece.last) / 2 * length_ms
            self._sums.append((decay, recorded_ms + length_ms))

    def starts(self, window_ms: int) -> list[int]:
        """Where the warmest window can begin: it begins or ends at a reading, or where both its ends are as warm."""
        if not self._pieces:
            return []
        least_ms, most_ms = self._pieces[0].start_ms, self._pieces[-1].end_ms - window_ms
        edges = {edge for piece in self._pieces for edge in (piece.start_ms, piece.end_ms)}
        edges |= {edge - window_ms for edge in edges}
        found = sorted(edge for edge in edges if least_ms <= edge <= most_ms)
        level = [self._level(one_ms, other_ms, window_ms) for one_ms, other_ms in pairwise(found)]
        return [*found, *(time_ms for time_ms in level if time_ms is not None)]

    def _level(self, one_ms: int, other_ms: int, window_ms: int) -> int | None:
        """Between two starts, where the window's mean rises no more: its end is as warm as its beginning."""
        middle_ms = (one_ms + other_ms) // 2
        ahead_ms = middle_ms + window_ms
        rises = self._rate(ahead_ms, one_ms + window_ms) - self._rate(middle_ms, one_ms)
        falls = self._rate(ahead_ms, other_ms + window_ms) - self._rate(middle_ms, other_ms)
        if rises <= 0 or falls >= 0:
            return None
        return one_ms + round((other_ms - one_ms) * rises / (rises - falls))

    def _rate(self, within_ms: int, time_ms: int) -> float:
        """The rate at a time, on the piece that holds ``within_ms``; 0 where nothing is recorded."""
        piece = self._pieces[bisect_right(self._edges, within_ms) - 1]
        return _on(piece, time_ms) if within_ms <= piece.end_ms else 0.0

    def mean(self, start_ms: int, window_ms: int) -> float:
        """Mean rate in a window, 0 where less than half of it was recorded."""
        decay_before, recorded_before = self._until(start_ms)
        decay, recorded = self._until(start_ms + window_ms)
        recorded_ms = recorded - recorded_before
        return (decay - decay_before) / recorded_ms if 2 * recorded_ms >= window_ms else 0.0

    def _until(self, time_ms: int) -> tuple[float, int]:
        index = bisect_right(self._edges, time_ms) - 1
        decay, recorded_ms = self._sums[index]
        piece = self._pieces[index]
        end_ms = min(time_ms, piece.end_ms)
        length_ms = end_ms - piece.start_ms
        return decay + (piece.first + _on(piece, end_ms)) / 2 * length_ms, recorded_ms + length_ms

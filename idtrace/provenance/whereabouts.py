"""Where a thing was, and the legs of its way on which its temperature had to be recorded.

The place is what the last event said that names one, about the thing or a package that it was in. On its way it has
none but the vehicle that it is loaded on, and three things follow from how goods are handed over:

- until it is loaded, it stands where it was shipped from;
- between the last unloading and the receiving it stands where it is received;
- where a carrier reports accepting or storing it at a place, it is there until it is loaded or leaves again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from idtrace.coldchain.readings import Leg, Mode
from idtrace.epcis.model import Action, EventType
from idtrace.provenance.custody import Custody, Way
from idtrace.provenance.history import Holding
from idtrace.provenance.seen import FOREVER, SHIPPED, Seen

_STORED_ON_THE_WAY = frozenset({"accepting", "storing"})
_LEFT_ON_THE_WAY = frozenset({"loading", "departing", "transporting"})


@dataclass(frozen=True, slots=True)
class Stretch:
    """Somewhere from ``start_ms`` to ``end_ms``, UTC ms; FOREVER for as long as is known."""

    place: str
    start_ms: int
    end_ms: int


def places(events: Sequence[tuple[Seen, int]], ways: Sequence[Way], on_board: Sequence[Stretch]) -> tuple[Stretch, ...]:
    """Places in order of time, without the time on board of a vehicle and the times of which nothing is known."""
    marks: list[tuple[int, int, str]] = []
    for order, (seen, _) in enumerate(events):
        step = seen.event.biz_step
        if any(way.start_ms <= seen.at_ms < _end(way.end_ms) for way in ways):
            if step in _STORED_ON_THE_WAY and seen.place:
                marks.append((seen.at_ms, order, seen.place))
            elif step in _LEFT_ON_THE_WAY:
                marks.append((seen.at_ms, order, ""))
        elif seen.place and step != SHIPPED:
            marks.append((seen.at_ms, order, seen.place))
    for way in ways:
        during = [one for one in on_board if way.start_ms <= one.start_ms and one.start_ms < _end(way.end_ms)]
        marks.append((min((one.start_ms for one in during), default=way.start_ms), -1, ""))
        if way.end_ms is not None:
            left_ms = max(
                (one.end_ms for one in on_board if way.start_ms < one.end_ms <= way.end_ms), default=way.end_ms
            )
            marks.append((left_ms, len(events), way.place))
    found: list[Stretch] = []
    for (start_ms, _, place), (end_ms, _, _) in pairwise([*sorted(marks), (FOREVER, 0, "")]):
        if place and end_ms > start_ms:
            found += _without(Stretch(place, start_ms, end_ms), on_board)
    return tuple(_united(found))


def ended(events: Iterable[tuple[Seen, int]]) -> int | None:
    """When the thing itself came to its end: an ObjectEvent DELETE (EPCIS 2.0, section 7.4.2)."""
    for seen, depth in events:
        if depth == 0 and seen.event.type is EventType.OBJECT and seen.event.action is Action.DELETE:
            return seen.at_ms
    return None


def legs(
    events: Sequence[tuple[Seen, int]],
    custody: Custody,
    stood: Sequence[Stretch],
    on_board: Sequence[Stretch],
    *,
    now_ms: int,
) -> tuple[Leg, ...]:
    """Stretches of one mode, place and custodian, from the making (or the first holding) to its end or to now.

    On board of a vehicle, or on its way without a place, it is transported; anywhere else it is stored.
    """
    first = custody.holdings[0].start_ms if custody.holdings else now_ms
    start_ms = first if custody.made_ms is None else custody.made_ms
    over_ms = ended(events)
    end_ms = now_ms if over_ms is None else min(now_ms, over_ms)
    told: dict[int, str] = {}
    for seen, _ in events:
        told.setdefault(seen.at_ms, seen.identifier)
    edges = {start_ms, end_ms}
    for stretch in (*stood, *on_board):
        edges |= {stretch.start_ms, stretch.end_ms}
    for way in custody.ways:
        edges |= {way.start_ms, _end(way.end_ms)}
    for holding in custody.holdings:
        edges |= {holding.start_ms, _end(holding.end_ms)}
    cuts = sorted(edge for edge in edges if start_ms <= edge <= end_ms)
    found: list[Leg] = []
    for begin, end in pairwise(cuts):
        mode, place = _mode(begin, custody.ways, stood, on_board)
        leg = Leg(begin, end, mode, _custodian(begin, custody.holdings), place)
        if found and (found[-1].mode, found[-1].place) == (mode, place) and _same_hands(found[-1], leg):
            before = found.pop()
            leg = Leg(before.start_ms, end, mode, leg.custodian or before.custodian, place)
        found.append(leg)
    return tuple(_with_evidence(leg, told) for leg in found)


def _mode(at_ms: int, ways: Sequence[Way], stood: Sequence[Stretch], on_board: Sequence[Stretch]) -> tuple[Mode, str]:
    for stretch in on_board:
        if stretch.start_ms <= at_ms < stretch.end_ms:
            return Mode.TRANSPORT, stretch.place
    for stretch in stood:
        if stretch.start_ms <= at_ms < stretch.end_ms:
            return Mode.STORE, stretch.place
    moving = any(way.start_ms <= at_ms < _end(way.end_ms) for way in ways)
    return (Mode.TRANSPORT if moving else Mode.STORE), ""


def _custodian(at_ms: int, holdings: Sequence[Holding]) -> str:
    return next((one.party for one in holdings if one.start_ms <= at_ms < _end(one.end_ms)), "")


def _same_hands(before: Leg, after: Leg) -> bool:
    # Minutes between one's word and the other's are nobody's leg.
    return before.custodian in {after.custodian, ""} or not after.custodian


def _with_evidence(leg: Leg, told: dict[int, str]) -> Leg:
    evidence = dict.fromkeys(told[edge] for edge in (leg.start_ms, leg.end_ms) if edge in told)
    return Leg(leg.start_ms, leg.end_ms, leg.mode, leg.custodian, leg.place, tuple(evidence))


def _without(stretch: Stretch, taken: Sequence[Stretch]) -> list[Stretch]:
    left = [stretch]
    for other in taken:
        cut: list[Stretch] = []
        for one in left:
            if other.end_ms <= one.start_ms or one.end_ms <= other.start_ms:
                cut.append(one)
                continue
            if one.start_ms < other.start_ms:
                cut.append(Stretch(one.place, one.start_ms, other.start_ms))
            if other.end_ms < one.end_ms:
                cut.append(Stretch(one.place, other.end_ms, one.end_ms))
        left = cut
    return left


def _united(stretches: Sequence[Stretch]) -> list[Stretch]:
    found: list[Stretch] = []
    for one in stretches:
        if found and found[-1].place == one.place and found[-1].end_ms == one.start_ms:
            found[-1] = Stretch(one.place, found[-1].start_ms, one.end_ms)
        else:
            found.append(one)
    return found


def _end(end_ms: int | None) -> int:
    return FOREVER if end_ms is None else end_ms

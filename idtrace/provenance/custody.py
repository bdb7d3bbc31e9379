"""In whose hands a thing was: what its events, and those of the packages that it was in, say of handing over.

========================== ========================================================================================
event                      what it does
========================== ========================================================================================
commissioning, or the      its reporter holds it
output of a transformation
shipping                   ends the holding; from then on it is on its way to ``possessing_party``
accepting, loading,        on the way: its reporter has it meanwhile
departing, transporting,
arriving, unloading
receiving                  ends the way; its reporter holds it. The shipper may receive what nobody has accepted
void_shipping              takes a shipping back, as if it had never been
any other but measuring    has to be by the holder; on the way, the receiver may be ahead of its own paper
========================== ========================================================================================

Clocks of two parties differ by :data:`CLOCK_TOLERANCE_MS` at most: a shipping that comes so much after the receiving or
accepting that belongs to it is taken first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from idtrace.epcis.model import Action, EventType
from idtrace.provenance.history import Clash, Contradiction, Holding
from idtrace.provenance.seen import (
    CARRIED,
    CLOCK_TOLERANCE_MS,
    MADE,
    MEASURED,
    RECEIVED,
    SHIPPED,
    UNSHIPPED,
    Seen,
)

# What shows that whoever it was shipped to has it, without a word that it was received.
_USED = frozenset({SHIPPED, "dispensing"})
# A vehicle is loaded before the papers are signed: half a working day, so a night between them is none of it.
_LOADING_MS = 12 * 3_600_000
_AHEAD = frozenset({"accepting", "loading"})


@dataclass(frozen=True, slots=True)
class Way:
    """A thing was on its way between two parties; ``end_ms`` is None while it still is, ``place`` where it came to."""

    sender: str
    receiver: str
    start_ms: int
    end_ms: int | None
    place: str
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Custody:
    """Holdings and ways in order of time (a shipping that was taken back is none), and what contradicts them."""

    holdings: tuple[Holding, ...] = ()
    ways: tuple[Way, ...] = ()
    contradictions: tuple[Contradiction, ...] = ()
    made_ms: int | None = None


@dataclass(slots=True)
class _Hands:
    bystanders: frozenset[str]
    holder: Holding | None = None
    way: Way | None = None
    handled: Seen | None = None  # by the receiver, before it has received
    made: Seen | None = None
    maker: tuple[str, EventType] | None = None
    senders: set[str] = field(default_factory=set)  # of this way, where a carrier has shipped it on
    last: dict[str, int] = field(default_factory=dict)  # until when each party has held it
    holdings: list[Holding] = field(default_factory=list)
    ways: list[Way] = field(default_factory=list)
    found: list[Contradiction] = field(default_factory=list)


def custody(events: Sequence[tuple[Seen, int]], *, bystanders: frozenset[str] = frozenset()) -> Custody:
    """Whose hands a thing went through.

    Args:
        events: in order of time, each with the number of packages between (0: it names the thing itself).
        bystanders: authorities and laboratories, who report of things that they do not hold.
    """
    hands = _Hands(bystanders)
    taken: set[str] = set()
    for position, (seen, depth) in enumerate(events):
        if seen.identifier in taken:
            continue
        early = _shipping_of(hands, seen, events, position)
        if early is not None:
            taken.add(early.identifier)
            _take(hands, early, depth, seen.at_ms)
        elif hands.way is None and seen.event.biz_step in _AHEAD and _soon(events, position, _ships, _LOADING_MS):
            continue
        _take(hands, seen, depth, seen.at_ms)
    if hands.way is not None:
        if hands.handled is not None:
            _unreceived(hands, hands.way, hands.handled)
        hands.ways.append(hands.way)
    if hands.holder is not None:
        hands.holdings.append(hands.holder)
    made_ms = hands.made.at_ms if hands.made is not None else None
    return Custody(tuple(hands.holdings), tuple(hands.ways), tuple(hands.found), made_ms)


def makes(seen: Seen, depth: int) -> bool:
    """Whether the event says that the thing itself was made."""
    if depth:
        return False
    event = seen.event
    if event.type is EventType.TRANSFORMATION:
        return bool(seen.outputs)
    return event.type is EventType.OBJECT and event.action is Action.ADD and event.biz_step == MADE


def _take(hands: _Hands, seen: Seen, depth: int, at_ms: int) -> None:
    step = seen.event.biz_step
    if makes(seen, depth):
        _make(hands, seen)
    elif step == SHIPPED:
        _ship(hands, seen, at_ms)
    elif step == RECEIVED:
        _receive(hands, seen, at_ms)
    elif step == UNSHIPPED:
        _unship(hands, seen)
    elif step in CARRIED and hands.way is not None:
        _carry(hands, seen)
    elif step != MEASURED and seen.party not in hands.bystanders:
        _handle(hands, seen)


def _shipping_of(hands: _Hands, seen: Seen, events: Sequence[tuple[Seen, int]], position: int) -> Seen | None:
    """The shipping that by another clock comes after the receiving or accepting that belongs to it."""
    step, party, way = seen.event.biz_step, seen.party, hands.way
    held = hands.holder.party if hands.holder is not None else ""
    if held == party or (step != RECEIVED and (step not in CARRIED or way is not None)):
        return None
    if way is not None and way.receiver in {party, ""}:
        return None

    def fits(other: Seen) -> bool:
        to = step != RECEIVED or other.receiver in {party, ""}
        return other.event.biz_step == SHIPPED and other.party not in {party, ""} and to

    return _soon(events, position, fits, CLOCK_TOLERANCE_MS)


def _ships(seen: Seen) -> bool:
    return seen.event.biz_step == SHIPPED


def _soon(
    events: Sequence[tuple[Seen, int]], position: int, fits: Callable[[Seen], bool], within_ms: int
) -> Seen | None:
    until_ms = events[position][0].at_ms + within_ms
    for seen, _ in events[position + 1 :]:
        if seen.at_ms > until_ms:
            break
        if fits(seen):
            return seen
    return None


def _make(hands: _Hands, seen: Seen) -> None:
    made_by = (seen.party, seen.event.type)
    if hands.made is None or hands.maker is None:
        hands.made, hands.maker = seen, made_by
        if hands.holder is None and hands.way is None:
            _hold(hands, seen, seen.at_ms, (seen.identifier,))
        return
    # Filled (transformation) and then given its code (commissioning) by the same party is made once.
    if hands.maker[0] != seen.party or hands.maker[1] is seen.event.type:
        detail = f"made by {hands.maker[0]}, and made again by {seen.party}"
        _contradict(hands, Clash.MADE_TWICE, seen, detail, hands.made.identifier)


def _ship(hands: _Hands, seen: Seen, at_ms: int) -> None:
    way, holder = hands.way, hands.holder
    if way is not None and way.sender == seen.party and way.receiver == seen.receiver:
        return  # the same shipment, told of a pallet and of its cartons
    held = holder.party if holder is not None else ""
    if way is not None and held != seen.party:
        if way.receiver == seen.party:
            _unreceived(hands, way, seen)
        else:
            _not_holding(hands, seen, way.sender)
    elif holder is not None and held != seen.party:
        _not_holding(hands, seen, held)
    _release(hands, at_ms, seen.identifier)
    if way is not None:
        hands.ways.append(replace(way, end_ms=at_ms))
        hands.senders.add(way.sender)
    hands.handled = None
    hands.way = Way(seen.party, seen.receiver, at_ms, None, "", (seen.identifier,))


def _receive(hands: _Hands, seen: Seen, at_ms: int) -> None:
    way, holder = hands.way, hands.holder
    if way is None:
        if holder is not None and holder.party == seen.party:
            return  # told once more, of an inner package
        whom = f" while {holder.party} holds it" if holder is not None else ""
        evidence = holder.evidence if holder is not None else ()
        _contradict(
            hands, Clash.NO_SHIPPER, seen, f"received by {seen.party}{whom}, and nobody has shipped it", *evidence
        )
    else:
        if seen.party not in {way.receiver, way.sender} and way.receiver:
            detail = f"shipped by {way.sender} to {way.receiver}, and received by {seen.party}"
            _contradict(hands, Clash.WRONG_RECEIVER, seen, detail, *way.evidence)
        carrier = holder.party if holder is not None else ""
        if seen.sender and seen.sender not in {way.sender, carrier, *hands.senders}:
            detail = f"received by {seen.party} from {seen.sender}, and it is {way.sender} that has shipped it"
            _contradict(hands, Clash.NO_SHIPPER, seen, detail, *way.evidence)
        hands.ways.append(replace(way, end_ms=at_ms, place=seen.place, evidence=(*way.evidence, seen.identifier)))
    evidence = way.evidence if way is not None else ()
    _release(hands, at_ms, seen.identifier)
    hands.way = hands.handled = None
    hands.senders.clear()
    _hold(hands, seen, at_ms, (*evidence, seen.identifier))


def _unship(hands: _Hands, seen: Seen) -> None:
    way = hands.way
    if way is None or way.sender != seen.party:
        _handle(hands, seen)
        return
    # As if it had never been shipped: the holding before goes on.
    hands.way = hands.handled = None
    if hands.holder is None and hands.holdings and hands.holdings[-1].party == seen.party:
        before = hands.holdings.pop()
        hands.holder = replace(before, end_ms=None, evidence=(*before.evidence, seen.identifier))
    else:
        _release(hands, seen.at_ms, seen.identifier)
        _hold(hands, seen, seen.at_ms, (*way.evidence, seen.identifier))


def _carry(hands: _Hands, seen: Seen) -> None:
    if hands.holder is not None and hands.holder.party == seen.party:
        return
    if _just_held(hands, seen) and hands.way is not None and hands.way.sender != seen.party:
        return  # the one before, by a clock that is behind
    _release(hands, seen.at_ms, seen.identifier)
    _hold(hands, seen, seen.at_ms, (seen.identifier,), place="")


def _handle(hands: _Hands, seen: Seen) -> None:
    way, holder, party = hands.way, hands.holder, seen.party
    if holder is not None and holder.party == party:
        return
    if way is not None:
        if party == way.receiver:
            hands.handled = hands.handled or seen
            if seen.event.biz_step in _USED:
                _unreceived(hands, way, seen)
                hands.way = hands.handled = None
                hands.ways.append(replace(way, end_ms=seen.at_ms))
                _release(hands, seen.at_ms, seen.identifier)
                _hold(hands, seen, seen.at_ms, (seen.identifier,))
        elif party != way.sender or not _just_held(hands, seen):
            _not_holding(hands, seen, way.sender)
    elif holder is None:
        _hold(hands, seen, seen.at_ms, (seen.identifier,))  # the first that is known of it
    else:
        _not_holding(hands, seen, holder.party)


def _not_holding(hands: _Hands, seen: Seen, holder: str) -> None:
    if _just_held(hands, seen):
        return
    what = seen.event.biz_step or "a report"
    if seen.party in hands.last:
        _contradict(
            hands, Clash.OVERLAP, seen, f"{what} by {seen.party}, who had given it away; it is with {holder} now"
        )
    else:
        _contradict(hands, Clash.STRANGER, seen, f"{what} by {seen.party}, who never had it; it is with {holder}")


def _just_held(hands: _Hands, seen: Seen) -> bool:
    until_ms = hands.last.get(seen.party)
    return until_ms is not None and seen.at_ms - until_ms <= CLOCK_TOLERANCE_MS


def _unreceived(hands: _Hands, way: Way, seen: Seen) -> None:
    detail = f"shipped by {way.sender} to {way.receiver}, which has not received it: {seen.event.biz_step or 'handled'}"
    _contradict(hands, Clash.NO_RECEIPT, seen, detail, *way.evidence)


def _hold(hands: _Hands, seen: Seen, at_ms: int, evidence: tuple[str, ...], *, place: str | None = None) -> None:
    hands.holder = Holding(seen.party, at_ms, None, seen.place if place is None else place, evidence)


def _release(hands: _Hands, at_ms: int, evidence: str) -> None:
    holder = hands.holder
    if holder is not None:
        hands.last[holder.party] = at_ms
        hands.holdings.append(replace(holder, end_ms=at_ms, evidence=(*holder.evidence, evidence)))
        hands.holder = None


def _contradict(hands: _Hands, kind: Clash, seen: Seen, detail: str, *evidence: str) -> None:
    hands.found.append(Contradiction(kind, seen.at_ms, detail, (*evidence, seen.identifier)))

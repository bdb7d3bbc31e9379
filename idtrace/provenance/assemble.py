"""One thing's history out of verified events: a pure function, and the order in which the events come is no matter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from idtrace.epcis import uris
from idtrace.party import LocationKind, Party, PartyRole
from idtrace.provenance.containment import Slot, vehicles
from idtrace.provenance.custody import custody
from idtrace.provenance.history import History, Observed, Step
from idtrace.provenance.seen import FOREVER, Seen, without_voided
from idtrace.provenance.survey import Memo, Part, Scope, Survey
from idtrace.provenance.whereabouts import Stretch, legs, places

_BYSTANDERS = frozenset({PartyRole.AUTHORITY, PartyRole.LABORATORY})


@dataclass(frozen=True, slots=True)
class Assembled:
    """A history, and whom it is about in which time: what a tracer still has to ask for."""

    history: History
    scopes: tuple[Scope, ...]


def history(
    subject: str,
    observed: Iterable[Observed],
    *,
    now_ms: int,
    parties: Mapping[str, Party],
    memo: Memo | None = None,
) -> History:
    """What verified events say of a thing.

    Args:
        subject: its key.
        observed: events in any order; those that do not concern it change nothing.
        now_ms: time of asking, UTC: open legs end there.
        parties: licences by prefix; they tell vehicles from packages, and authorities from custodians.
        memo: what was worked out for other subjects with the same events; the result is the same without it. It holds
            what an identifier names for granted: the identifier of an event is the hash of its bytes.
    """
    return assemble(subject, observed, now_ms=now_ms, parties=parties, memo=memo).history


def assemble(
    subject: str,
    observed: Iterable[Observed],
    *,
    now_ms: int,
    parties: Mapping[str, Party],
    memo: Memo | None = None,
) -> Assembled:
    """As :func:`history`, with the scopes."""
    memo = Memo() if memo is None else memo
    memo.room()
    standing, voided = without_voided(observed)
    events = sorted((memo.keys(one) for one in standing), key=lambda one: one.order)
    survey = Survey(events, vehicles(events) | _licensed_vehicles(parties), memo)
    part = survey.part(subject)
    handled = _handled(part)
    bystanders = frozenset(prefix for prefix, party in parties.items() if party.roles and party.roles <= _BYSTANDERS)
    hands = custody(handled, bystanders=bystanders)
    on_board = tuple(
        Stretch(inside.container, inside.start_ms, FOREVER if inside.end_ms is None else inside.end_ms)
        for slot, inside, _ in sorted(part.insides, key=lambda one: one[1].start_ms)
        if slot is Slot.VEHICLE
    )
    stood = places(handled, hands.ways, on_board)
    around = [survey.around(one.place, one.start_ms, one.end_ms, 1) for one in stood]
    sources = survey.sources(subject)
    whole = survey.joined([part, *around, sources])
    # The same stay is found once for each way up to it.
    insides = sorted({(depth, inside.start_ms, inside.container): inside for _, inside, depth in part.insides}.items())
    made = History(
        subject=subject,
        steps=_steps(whole),
        insides=tuple(inside for _, inside in insides),
        holdings=hands.holdings,
        legs=legs(handled, hands, stood, on_board, now_ms=now_ms),
        readings=whole.readings,
        contradictions=tuple(
            sorted(
                {*part.contradictions, *hands.contradictions},
                key=lambda one: (one.at_ms, one.kind, one.detail, one.evidence),
            )
        ),
        voided=_concerning(voided, whole, memo),
        containers=tuple(dict.fromkeys(inside.container for _, inside in insides)),
        sources=tuple(dict.fromkeys(scope.key for scope in sources.scopes)),
    )
    return Assembled(made, tuple(dict.fromkeys(whole.scopes)))


def _handled(part: Part) -> list[tuple[Seen, int]]:
    """Events about the thing and the packages around it, each once and as near to the thing as it comes, in order."""
    nearest: dict[str, tuple[Seen, int]] = {}
    for one, _, depth in part.events:
        known = nearest.get(one.identifier)
        if known is None or depth < known[1]:
            nearest[one.identifier] = (one, depth)
    return sorted(nearest.values(), key=lambda each: each[0].order)


def _steps(whole: Part) -> tuple[Step, ...]:
    """Every event once: of the thing itself before its packages, of these before what it was made of."""
    nearest: dict[str, tuple[tuple[bool, bool, int, str], Seen]] = {}
    told = ((*each, False) for each in whole.events)
    # Measured in a room and told of a pallet in one event (a receiving with its logger): it is the pallet's.
    for one, via, depth, measured in (*told, *((*each, True) for each in whole.sensed)):
        rank = (depth < 0, measured, abs(depth), via)
        known = nearest.get(one.identifier)
        if known is None or rank < known[0]:
            nearest[one.identifier] = (rank, one)
    chosen = sorted(nearest.values(), key=lambda each: each[1].order)
    return tuple(
        Step(one.at_ms, one.observed, via, -distance if backwards else distance)
        for (backwards, _, distance, via), one in chosen
    )


def _concerning(voided: tuple[Observed, ...], whole: Part, memo: Memo) -> tuple[Observed, ...]:
    """Of all that was taken back, what would have concerned the thing."""
    if not voided:
        return ()
    windows: dict[str, list[Scope]] = {}
    for scope in whole.scopes:
        windows.setdefault(scope.key, []).append(scope)
    return tuple(
        one
        for one in voided
        if any(
            scope.start_ms <= one.event.time_ms <= scope.end_ms
            for key in memo.keys(one).named
            for scope in windows.get(key, ())
        )
    )


def _licensed_vehicles(parties: Mapping[str, Party]) -> frozenset[str]:
    return frozenset(
        uris.key(place.id)
        for party in parties.values()
        for place in party.locations
        if place.kind is LocationKind.VEHICLE
    )

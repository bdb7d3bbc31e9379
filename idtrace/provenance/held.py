"""Who holds many things now: things with the same events are worked out once, and shown by holder and place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from idtrace.epcis.model import Action, EventType
from idtrace.provenance.assemble import history
from idtrace.provenance.containment import vehicles
from idtrace.provenance.history import History, Observed
from idtrace.provenance.seen import RECEIVED, SHIPPED, UNSHIPPED, Seen, without_voided
from idtrace.provenance.survey import DEPTH_MAX, Memo

# Events that a row cites: a person looks at some, and all of them are in the things' own histories.
EVIDENCE_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Row:
    """Recalled doses at one holder and place.

    Attributes:
        holder: prefix of who has them by the last word of custody, "" where nobody has said; of what is on its way and
            was taken over by no carrier, who has shipped it.
        towards: prefix of who is to receive them, while they are on their way, else "".
        place: key of where they are, "" for not told.
        since_ms: of the earliest of them, UTC; 0 for unknown.
        packages: outermost packages; a dose that is in none is none.
        doses: codes (smallest packages) that are still there.
        given: codes that were dispensed, destroyed or ended there.
        acknowledged_ms: when the holder has said that it knows of the recall, None for not yet.
        evidence: some events by which they are there.
    """

    holder: str
    towards: str = ""
    place: str = ""
    since_ms: int = 0
    packages: int = 0
    doses: int = 0
    given: int = 0
    acknowledged_ms: int | None = None
    evidence: tuple[str, ...] = ()


@dataclass(slots=True)
class _Sum:
    since_ms: int
    packages: set[str] = field(default_factory=set)
    doses: int = 0
    given: int = 0
    evidence: dict[str, None] = field(default_factory=dict)


def rows(
    doses: Iterable[str], observed: Iterable[Observed], *, now_ms: int, acknowledged: Mapping[str, int]
) -> tuple[Row, ...]:
    """Where doses are now, by these events; the most doses first.

    Args:
        doses: their keys.
        observed: every event that was found about them and their packages, in any order.
        now_ms: time of asking, UTC.
        acknowledged: when each party has acknowledged the recall, by prefix.
    """
    memo = Memo()
    standing, _ = without_voided(observed)
    events = sorted((memo.keys(one) for one in standing), key=lambda one: one.order)
    wheels = vehicles(events)
    about: dict[str, list[Seen]] = {}
    for one in events:
        for thing in one.things:
            about.setdefault(thing, []).append(one)
    alike: dict[tuple[str, ...], list[str]] = {}
    for dose in doses:
        alike.setdefault(tuple(one.identifier for one in about.get(dose, ())), []).append(dose)
    sums: dict[tuple[str, str, str], _Sum] = {}
    for many in alike.values():
        made = history(many[0], _near(many[0], about, wheels), now_ms=now_ms, parties={}, memo=memo)
        _add(sums, made, len(many), wheels, memo)
    found = [
        Row(
            *where,
            one.since_ms,
            len(one.packages),
            one.doses,
            one.given,
            acknowledged.get(where[0]),
            tuple(one.evidence)[:EVIDENCE_MAX],
        )
        for where, one in sums.items()
    ]
    return tuple(sorted(found, key=lambda row: (-row.doses, -row.given, row.holder, row.towards, row.place)))


def _near(dose: str, about: Mapping[str, Sequence[Seen]], wheels: frozenset[str]) -> list[Observed]:
    """Events about a dose, and about every package that it was ever said to be in."""
    names = [dose]
    found: dict[str, Observed] = {}
    for name in names:
        for one in about.get(name, ()):
            found[one.identifier] = one.observed
            if name in one.children and one.parent not in {*names, *wheels}:
                names.append(one.parent)
    return list(found.values())


def _add(sums: dict[tuple[str, str, str], _Sum], made: History, count: int, wheels: frozenset[str], memo: Memo) -> None:
    last = made.holdings[-1] if made.holdings else None
    way = _way(made)
    holder, since_ms = "", 0
    evidence: tuple[str, ...] = ()
    if last is not None and last.end_ms is None:
        holder, since_ms, evidence = last.party, last.start_ms, last.evidence
    elif way is not None:
        holder, since_ms, evidence = way.party, way.event.time_ms, (way.identifier,)
    towards = memo.keys(way).receiver if way is not None else ""
    place = made.legs[-1].place if made.legs else ""
    one = sums.setdefault((holder, towards, place), _Sum(since_ms))
    one.since_ms = min(one.since_ms, since_ms)
    one.evidence.update(dict.fromkeys(evidence))
    if _ended(made):
        one.given += count
        return
    one.doses += count
    outermost = _outermost(made, wheels)
    if outermost != made.subject:
        one.packages.add(outermost)


def _way(made: History) -> Observed | None:
    """The shipping that it is on its way by."""
    for step in reversed(made.steps):
        if step.depth >= 0 and step.observed.event.biz_step in {SHIPPED, RECEIVED, UNSHIPPED}:
            return step.observed if step.observed.event.biz_step == SHIPPED else None
    return None


def _outermost(made: History, wheels: frozenset[str]) -> str:
    """The package that nothing but a vehicle is around."""
    name = made.subject
    for _ in range(DEPTH_MAX):
        stays = [one.container for one in made.insides if one.child == name and one.end_ms is None]
        around = next((one for one in stays if one not in wheels), None)
        if around is None:
            break
        name = around
    return name


def _ended(made: History) -> bool:
    """Whether it was given, or is no more: its own code was ended, or a package that it was in was destroyed."""
    for step in made.steps:
        event = step.observed.event
        if step.via == made.subject:
            deleted = event.type is EventType.OBJECT and event.action is Action.DELETE
            if deleted or event.biz_step in {"dispensing", "destroying"}:
                return True
        elif step.via in made.containers and event.biz_step == "destroying":
            return True
    return False

"""Who holds what is recalled: from a recall's scope to the present holders, without touching each dose's record.

========= ====================== =================================================================================
state     waits for              leaves it by
========= ====================== =================================================================================
NEW       :meth:`Search.begin`   AskPointers (of the lot, or of the things that are named; of acknowledgements)
ASKING    ``PointersRead``,      FetchEvents, AskClasses (one item of each making: is it of this product?),
          ``EventsFetched``,     AskPointers (of packages, then of a sample of what is in none), or Found
          ``ClassesRead``
ENDED     nothing
========= ====================== =================================================================================

The events that made the lot name its doses. One dose leads to its carton and that to its pallet; the pallet names its
other cartons and each of these its doses, so most doses are never asked after. What is in no package, or was taken out
of one, is: some at a time, since each may lead to a package of many. What a package's own events do not say, such as a
dose given out of a carton that nobody has reported open, is not seen here; the dose's own history shows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, assert_never

from idtrace.epcis import uris
from idtrace.epcis.lots import lot_key, made_by, master_text
from idtrace.epcis.model import Action, Event, EventType
from idtrace.provenance.containment import vehicles
from idtrace.provenance.gather import AskPointers, EventsFetched, FetchEvents, Pointer, PointersRead, Question
from idtrace.provenance.held import Row, rows
from idtrace.provenance.history import Gap, GapKind, Observed
from idtrace.provenance.seen import BEGINNING, FOREVER, Seen, without_voided
from idtrace.provenance.survey import Memo
from idtrace.recall import RECALLS_SUFFIX, Recall, ScopeKind

# Roles in which an event only happened at or beside the subject.
_BESIDE: Final = frozenset({"read_point", "biz_location", "device"})
# Asked after at once where no package is known; twice as many each time that does not help, up to the second.
_SAMPLE: Final = 16
_SAMPLE_MAX: Final = 256
_NUMBERED: Final = re.compile(r"(.*?)([0-9]+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class HolderLimits:
    """What one search may cost."""

    # Of a million doses in cartons of 100: a day's output of a large line. Each is one short question to its home.
    things: int = 12_000
    # A making names up to 1,500 doses, each carton and pallet has its packing, and a pallet some ten events more.
    events: int = 24_000
    # A pallet with a logger that reports on its own has 2,000 events in a week.
    pointers: int = 2_000
    # Doses that are asked after one by one: what a district's clinics have opened.
    alone: int = 2_000
    rounds: int = 400


@dataclass(frozen=True, slots=True)
class AskClasses:
    """Effect: resolve these things' records, and tell of what classes they are."""

    things: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClassesRead:
    """Event: the classes of each thing, its own first; () where its record names none, no entry where none was had."""

    classes: Mapping[str, tuple[str, ...]]
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """Effect: there is nothing more to ask. ``asked`` is how many subjects were asked about."""

    rows: tuple[Row, ...]
    gaps: tuple[Gap, ...]
    doses: int
    asked: int
    events: int


Effect = AskPointers | FetchEvents | AskClasses | Found
Reply = PointersRead | EventsFetched | ClassesRead


class State(Enum):
    """Where a search stands; see the module's table."""

    NEW = "new"
    ASKING = "asking"
    ENDED = "ended"


class Search:
    """One recall's holders. Call :meth:`begin`, then :meth:`receive` for each outcome until it is ``Found``."""

    def __init__(
        self, recall: Recall, *, makers: Iterable[str] = (), now_ms: int, limits: HolderLimits | None = None
    ) -> None:
        """``makers`` are prefixes that the product's verified class names: whose word of making counts.

        So does that of every party in the recalling zone; anybody else could add doses of his own to the lot.
        """
        self.state = State.NEW
        self._recall = recall
        self._makers = frozenset(makers)
        self._now_ms = now_ms
        self._limits = limits or HolderLimits()
        self._memo = Memo()
        self._asked: dict[str, None] = {}
        self._pointed: dict[str, None] = {}
        self._tried: set[str] = set()
        self._known: dict[str, Observed] = {}
        self._groupings: dict[str, Seen] = {}
        self._makings: dict[str, tuple[str, ...]] = {}  # the doses of each event that made some of the lot
        self._unsure: dict[str, str] = {}  # a dose of each making of which nothing more is known: event by dose
        self._doses: dict[str, None] = {}
        self._packages: set[str] = set()
        self._around: set[str] = set()  # packages that may have some of it inside
        self._alone = 0
        self._sample = _SAMPLE
        self._gaps: dict[Gap, None] = {}
        self._rounds = 0

    def begin(self) -> Effect:
        """The first questions."""
        assert self.state is State.NEW, "a search is about one recall"
        self.state = State.ASKING
        scope = self._recall.scope
        subjects = [f"{self._recall.zone}/{RECALLS_SUFFIX}"]
        match scope.kind:
            case ScopeKind.LOT:
                prefixes = {scope.product.partition("/")[0], self._recall.zone, *self._makers} - {""}
                subjects += [key for prefix in sorted(prefixes) if (key := lot_key(prefix, scope.lot))]
            case ScopeKind.PRODUCT:
                self._bound(scope.product, "a whole product is found by its lots: recall or ask lot by lot")
            case ScopeKind.ITEMS:
                self._doses = dict.fromkeys(scope.items)
            case ScopeKind.RANGE:
                self._doses = dict.fromkeys(self._ranged(scope.first, scope.last))
            case ScopeKind.PACKAGE:
                self._around.add(scope.package)
            case _:
                assert_never(scope.kind)
        self._asked.update(dict.fromkeys(subjects))
        return AskPointers(tuple(Question(key, BEGINNING, FOREVER, self._limits.events) for key in subjects))

    def receive(self, reply: Reply) -> Effect:
        """Take the outcome of the last effect."""
        assert self.state is State.ASKING, "nobody asked"
        self._gaps.update(dict.fromkeys(reply.gaps))
        match reply:
            case PointersRead(pointers):
                self._pointed.update(dict.fromkeys(_events(pointers)))
            case EventsFetched(observed):
                for one in observed:
                    self._take(one)
            case ClassesRead(classes):
                self._sort_out(classes)
            case _:
                assert_never(reply)
        return self._next()

    def stop(self, detail: str) -> Found:
        """End here and now, with what is known; ``detail`` says why not all is."""
        self._bound(self._recall.name, detail)
        return self._end()

    # What was heard

    def _take(self, one: Observed) -> None:
        seen = self._memo.keys(one)
        self._known[one.identifier] = one
        if seen.groups and seen.parent and not seen.fits:
            self._groupings[one.identifier] = seen
        scope = self._recall.scope
        if scope.kind is not ScopeKind.LOT or master_text(one.event.ilmd, "lotNumber") != scope.lot:
            return
        doses = tuple(dict.fromkeys(uris.key(uri) for uri in made_by(one.event)))
        if not doses:
            return
        if not self._counts(one.party):
            detail = f"{one.party} has no say over this lot, and tells that it made some"
            self._gaps[Gap(GapKind.MISFIT, one.identifier, detail)] = None
            return
        self._makings[one.identifier] = doses
        self._unsure[doses[0]] = one.identifier

    def _counts(self, party: str) -> bool:
        zone = self._recall.zone
        return zone in {"", party} or party.startswith(f"{zone}.") or party in self._makers

    def _sort_out(self, classes: Mapping[str, tuple[str, ...]]) -> None:
        """Keep the makings whose first dose is of this product; a maker may use one lot number for two."""
        for dose, event in self._unsure.items():
            told = classes.get(dose)
            if not told:
                # Better one too many than one too few: a recall holds what may be of it (idtrace/recall.py, UNKNOWN).
                kind = GapKind.UNREACHABLE if told is None else GapKind.MISFIT
                self._gaps[Gap(kind, dose, "of what product it is was not learned; it counts here")] = None
            elif self._recall.scope.product not in told:
                del self._makings[event]
                continue
            self._doses.update(dict.fromkeys(self._makings[event]))
        self._unsure.clear()

    # What to ask next

    def _next(self) -> Effect:
        self._rounds += 1
        if self._rounds > self._limits.rounds:
            self._bound(self._recall.name, f"not all was found after {self._limits.rounds} rounds")
            return self._end()
        wanted = [event for event in self._pointed if event not in self._tried]
        room = self._limits.events - len(self._tried)
        if len(wanted) > room:
            self._bound(self._recall.name, f"there are more than {self._limits.events} events about it")
            wanted = wanted[:room]
        if wanted:
            self._tried.update(wanted)
            return FetchEvents(tuple(wanted))
        if self._unsure:
            return AskClasses(tuple(self._unsure))
        for some in (self._of_packages, self._of_doses):
            questions = self._questions(some())
            if questions:
                return AskPointers(questions)
        return self._end()

    def _questions(self, keys: Iterable[str]) -> tuple[Question, ...]:
        wanted = [key for key in dict.fromkeys(keys) if key not in self._asked]
        room = self._limits.things - len(self._asked)
        if len(wanted) > room:
            self._bound(self._recall.name, f"it is in more than {self._limits.things} packages")
            wanted = wanted[:room]
        self._asked.update(dict.fromkeys(wanted))
        return tuple(Question(key, BEGINNING, FOREVER, self._limits.pointers) for key in wanted)

    def _of_packages(self) -> Iterator[str]:
        """Packages of what is recalled and those above, and what else these may hold of it."""
        wheels = vehicles(self._groupings.values())
        added = [one for one in self._groupings.values() if one.event.action is Action.ADD and one.parent not in wheels]
        parents = {one.parent for one in added}
        more = True
        while more:
            before = len(self._packages)
            self._packages |= {
                one.parent for one in added if any(c in self._packages or c in self._doses for c in one.children)
            }
            more = len(self._packages) > before
        yield from sorted(self._packages | self._around)
        for one in added:
            if one.parent not in self._packages and one.parent not in self._around:
                continue
            children = sorted(one.children)
            if any(child in self._doses for child in children):
                continue
            # One child shows whether these are packages or single things of another lot.
            inner = children if any(child in parents for child in children) else children[:1]
            self._around.update(inner)
            yield from inner

    def _of_doses(self) -> list[str]:
        """Some of the doses that are in no package, spread over all of them."""
        loose = [dose for dose in self._doses if dose not in self._asked]
        if loose:
            inside = self._inside()
            loose = [dose for dose in loose if dose not in inside]
        room = self._limits.alone - self._alone
        if not loose:
            return []
        if room <= 0:
            detail = f"{len(loose)} doses in no package were not asked after one by one; they may have gone further"
            self._bound(self._recall.name, detail)
            return []
        count = min(self._sample, room, len(loose))
        self._sample = min(2 * self._sample, _SAMPLE_MAX)
        self._alone += count
        return [loose[len(loose) * place // count] for place in range(count)]

    def _inside(self) -> Mapping[str, str]:
        """The package of each dose, by the last word about it."""
        inside: dict[str, str] = {}
        for one in sorted(self._groupings.values(), key=lambda each: each.order):
            if one.event.action is Action.ADD:
                inside.update(dict.fromkeys(one.children, one.parent))
            elif one.takes_all:
                inside = {child: parent for child, parent in inside.items() if parent != one.parent}
            else:
                for child in one.children:
                    inside.pop(child, None)
        return inside

    # The end

    def _end(self) -> Found:
        self.state = State.ENDED
        standing, _ = without_voided(self._known.values())
        doses = self._reached(frozenset(one.identifier for one in standing))
        found = rows(doses, self._known.values(), now_ms=self._now_ms, acknowledged=self._acknowledged(standing))
        gaps = sorted(self._gaps, key=lambda gap: (gap.kind, gap.subject, gap.detail, gap.node))
        return Found(found, tuple(gaps), len(doses), len(self._asked), len(self._known))

    def _reached(self, standing: frozenset[str]) -> Mapping[str, None]:
        scope = self._recall.scope
        if scope.kind is ScopeKind.LOT:
            return dict.fromkeys(dose for event, doses in self._makings.items() if event in standing for dose in doses)
        if scope.kind is ScopeKind.PACKAGE:
            return self._contents(scope.package, scope.since_s * 1000, scope.until_s * 1000 or FOREVER, standing)
        return self._doses

    def _contents(self, package: str, since_ms: int, until_ms: int, standing: frozenset[str]) -> Mapping[str, None]:
        """What was inside a package in a time, down to what holds nothing itself."""
        found: dict[str, None] = {}
        reached = [package]
        groupings = sorted(
            (one for one in self._groupings.values() if one.identifier in standing), key=lambda each: each.order
        )
        parents = {one.parent for one in groupings if one.event.action is Action.ADD}
        for name in reached:
            inside: dict[str, None] = {}
            for one in groupings:
                if one.parent != name or one.at_ms >= until_ms:
                    continue
                if one.event.action is Action.ADD:
                    inside.update(dict.fromkeys(sorted(one.children)))
                elif one.at_ms <= since_ms:
                    inside = {} if one.takes_all else {key: None for key in inside if key not in one.children}
            reached += [key for key in inside if key in parents and key not in reached]
            found.update(dict.fromkeys(key for key in inside if key not in parents))
        return found

    def _acknowledged(self, standing: Iterable[Observed]) -> dict[str, int]:
        """When each party has first said that it knows of this recall."""
        found: dict[str, int] = {}
        for one in standing:
            if acknowledges(one.event, self._recall.name):
                found[one.party] = min(found.get(one.party, FOREVER), one.event.time_ms)
        return found

    def _ranged(self, first: str, last: str) -> Iterator[str]:
        """Every identifier of a range whose numbers have one width, where they are not too many."""
        low, high = _NUMBERED.fullmatch(first), _NUMBERED.fullmatch(last)
        one_width = low is not None and high is not None and len(first) == len(last)
        if low is None or high is None or not one_width or int(high[2]) - int(low[2]) >= self._limits.alone:
            rule = f"a range is searched where its numbers have one width and are at most {self._limits.alone}"
            self._bound(first, rule)
            return
        for number in range(int(low[2]), int(high[2]) + 1):
            yield f"{low[1]}{number:0{len(low[2])}}"

    def _bound(self, subject: str, detail: str) -> None:
        self._gaps[Gap(GapKind.BOUND, subject, detail)] = None


def acknowledges(event: Event, recall: str) -> bool:
    """Whether an event is its reporter's word that it knows of a recall: held as recalled, ``idtrace:recall`` its name.

    An ObjectEvent OBSERVE, bizStep ``holding``, disposition ``recalled`` (CBV 2.0, section 7).
    """
    held = event.type is EventType.OBJECT and event.action is Action.OBSERVE and event.biz_step == "holding"
    if not held or event.disposition != "recalled":
        return False
    return any(
        value == recall and (name == "idtrace:recall" or name.endswith(("/recall", "#recall")))
        for name, value in event.extensions.items()
    )


def _events(pointers: Iterable[Pointer]) -> Iterator[str]:
    for pointer in sorted(pointers, key=lambda one: (one.time_ms, one.event)):
        if pointer.role not in _BESIDE:
            yield pointer.event

"""Gathers the events that a thing's history is made of: a pure state machine, one effect out for each outcome in.

========= ==================== ===================================================================================
state     waits for            leaves it by
========= ==================== ===================================================================================
NEW       :meth:`Gather.begin` AskPointers (the subject's)
POINTING  ``PointersRead``     FetchEvents, AskPointers (of what the events have shown it to be in), or Gathered
FETCHING  ``EventsFetched``    the same
ENDED     nothing
========= ==================== ===================================================================================

Whom to ask for next is not decided here: :func:`~idtrace.provenance.assemble.assemble` says of the events so far what
concerns the subject and when, and this asks for each such thing in that time. So what is gathered and what is assembled
agree by construction. Nothing that could not be had is left out silently: it is a :class:`~.history.Gap`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, assert_never

from idtrace.epcis import uris
from idtrace.epcis.statement import EVENT_PATH
from idtrace.provenance.assemble import assemble
from idtrace.provenance.history import Gap, GapKind, Observed
from idtrace.provenance.seen import BEGINNING, FOREVER
from idtrace.provenance.survey import DEPTH_MAX, Concern, Memo, Scope

_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class GatherLimits:
    """What one gathering may cost."""

    # A year in one store at a reading every 30 minutes, each told alone, would be 17,520: who measures tells a day's
    # readings in one event. Two weeks of transport at 5 minutes, each told alone, are 4,032.
    events: int = 4_000
    # Box, carton, pallet, vehicle at each of eight parties, and as many rooms and devices.
    things: int = 64
    # The busiest thing that concerns anybody is a truck or a room: 50 events a day are 20,000 in a year.
    pointers: int = 20_000
    # Of all things together; each takes some 400 bytes here.
    pointers_in_all: int = 60_000
    # What a container was in, and what was fitted to it, before it concerned us: a calibration lasts a year.
    lookback_ms: int = 400 * _DAY_MS
    # A truck is loaded 50 times a day, and its logger was fitted months ago: each of the two has its own number.
    earlier: int = 100
    fitted: int = 100
    # A logger is read out, and its node delivers, within a day of the way's end.
    late_ms: int = _DAY_MS
    rounds: int = 4 * DEPTH_MAX


@dataclass(frozen=True, slots=True)
class Pointer:
    """A subject's home says that an event is about it (``registry.storage.Mention``); a hint that proves nothing."""

    subject: str
    time_ms: int
    event: str
    role: str


@dataclass(frozen=True, slots=True)
class Question:
    """Pointers of a subject in [start, end], UTC ms, are wanted, at most so many."""

    subject: str
    start_ms: int
    end_ms: int
    most: int


@dataclass(frozen=True, slots=True)
class AskPointers:
    """Effect: ask each subject's home registry."""

    questions: tuple[Question, ...]

    @property
    def subjects(self) -> tuple[str, ...]:
        """Whom the questions are about."""
        return tuple(question.subject for question in self.questions)


@dataclass(frozen=True, slots=True)
class FetchEvents:
    """Effect: resolve these records and verify them."""

    identifiers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gathered:
    """Effect: there is nothing more to ask.

    ``asked`` are the subjects that were asked about, ``sources`` those that the subject was made of.
    """

    observed: tuple[Observed, ...]
    gaps: tuple[Gap, ...]
    asked: tuple[str, ...]
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PointersRead:
    """Event: what the homes said. ``gaps`` tells of those that said nothing, or not all."""

    pointers: tuple[Pointer, ...]
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True, slots=True)
class EventsFetched:
    """Event: what became of the identifiers: each is observed, or a gap says why not."""

    observed: tuple[Observed, ...]
    gaps: tuple[Gap, ...] = ()


Effect = AskPointers | FetchEvents | Gathered
Reply = PointersRead | EventsFetched


class State(Enum):
    """Where a gathering stands; see the module's table."""

    NEW = "new"
    POINTING = "pointing"
    FETCHING = "fetching"
    ENDED = "ended"


class Gather:
    """One subject's events. Call :meth:`begin`, then :meth:`receive` for each outcome until it is ``Gathered``."""

    def __init__(
        self, subject: str, *, now_ms: int, limits: GatherLimits | None = None, memo: Memo | None = None
    ) -> None:
        self.state = State.NEW
        self._subject = subject
        self._now_ms = now_ms
        self._limits = limits or GatherLimits()
        self._memo = memo or Memo()
        self._scopes: tuple[Scope, ...] = (Scope(subject, Concern.SUBJECT, BEGINNING, FOREVER, 0),)
        self._asked: dict[str, tuple[int, int]] = {}
        self._pointers: dict[str, dict[Pointer, None]] = {}
        self._in_order: dict[str, list[Pointer]] = {}
        self._held = 0
        self._known: dict[str, Observed] = {}
        self._tried: set[str] = set()
        self._gaps: dict[Gap, None] = {}
        self._rounds = 0

    def begin(self) -> Effect:
        """The first question."""
        assert self.state is State.NEW, "a gathering is about one subject"
        return self._next()

    def receive(self, reply: Reply) -> Effect:
        """Take the outcome of the last effect."""
        self._gaps.update(dict.fromkeys(reply.gaps))
        match reply:
            case PointersRead(pointers):
                assert self.state is State.POINTING, "nobody asked for pointers"
                self._keep(pointers)
            case EventsFetched(observed):
                assert self.state is State.FETCHING, "nobody asked for events"
                for one in observed:
                    if one.identifier in self._tried:
                        self._known[one.identifier] = one
                self._scopes = assemble(
                    self._subject, self._known.values(), now_ms=self._now_ms, parties={}, memo=self._memo
                ).scopes
            case _:
                assert_never(reply)
        return self._next()

    def _keep(self, pointers: Iterable[Pointer]) -> None:
        for pointer in pointers:
            kept = self._pointers.setdefault(pointer.subject, {})
            if pointer in kept:
                continue
            if self._held >= self._limits.pointers_in_all:
                self._bound(self._subject, f"more than {self._limits.pointers_in_all} pointers concern it")
                return
            kept[pointer] = None
            self._held += 1
            self._in_order.pop(pointer.subject, None)

    def _sorted(self, subject: str) -> list[Pointer]:
        """What is known of a subject, in order of time."""
        if subject not in self._in_order:
            kept = self._pointers.get(subject, ())
            self._in_order[subject] = sorted(kept, key=lambda one: (one.time_ms, one.event, one.role))
        return self._in_order[subject]

    def _next(self) -> Effect:
        """Events that are pointed to and in time come first, for they show whom else to ask about."""
        self._rounds += 1
        if self._rounds > self._limits.rounds:
            self._bound(self._subject, f"its history was not whole after {self._limits.rounds} rounds")
            return self._end()
        wanted = self._wanted()
        room = self._limits.events - len(self._tried)
        if len(wanted) > room:
            self._bound(self._subject, f"its history has more than {self._limits.events} events")
            wanted = wanted[:room]
        if wanted:
            self.state = State.FETCHING
            self._tried.update(wanted)
            return FetchEvents(tuple(wanted))
        questions = self._questions()
        if questions:
            self.state = State.POINTING
            return AskPointers(questions)
        return self._end()

    def _wanted(self) -> list[str]:
        """Events not yet asked for: pointed to in the time of a scope, or named by an error declaration."""
        wanted: dict[str, None] = {}
        for scope in self._scopes:
            pointers = self._sorted(scope.key)
            start_ms, end_ms = scope.start_ms, self._until(scope)
            wanted.update((one.event, None) for one in pointers if start_ms <= one.time_ms <= end_ms)
            if scope.start_ms > BEGINNING:
                before = [one for one in pointers if one.time_ms < start_ms]
                packed = [one for one in before if one.role in {"child", "parent"}][-self._limits.earlier :]
                fitted = [one for one in before if one.role == "fitted"][-self._limits.fitted :]
                wanted.update((one.event, None) for one in (*packed, *fitted))
        for one in self._known.values():
            if one.event.error is not None:
                corrective = (uris.key(uri) for uri in one.event.error.corrective_event_ids)
                wanted.update((key, None) for key in corrective if f"/{EVENT_PATH}" in key)
        return [event for event in wanted if event not in self._tried]

    def _questions(self) -> tuple[Question, ...]:
        """Whom nobody was asked about yet, or not in all the time in which it concerns the subject."""
        questions: list[Question] = []
        for key, (start_ms, end_ms) in self._windows().items():
            asked = self._asked.get(key)
            if asked is not None and asked[0] <= start_ms and end_ms <= asked[1]:
                continue
            if asked is None and len(self._asked) >= self._limits.things:
                self._bound(key, f"more than {self._limits.things} things concern {self._subject}")
                continue
            self._asked[key] = (start_ms, end_ms)
            questions.append(Question(key, start_ms, end_ms, self._limits.pointers))
        return tuple(questions)

    def _windows(self) -> Mapping[str, tuple[int, int]]:
        windows = dict(self._asked)
        for scope in self._scopes:
            start_ms = scope.start_ms if scope.start_ms == BEGINNING else scope.start_ms - self._limits.lookback_ms
            known = windows.get(scope.key, (start_ms, self._until(scope)))
            windows[scope.key] = (min(known[0], start_ms), max(known[1], self._until(scope)))
        return windows

    def _until(self, scope: Scope) -> int:
        """How late an event may be told that says something of this time."""
        late = scope.end_ms != FOREVER and scope.concern is not Concern.SOURCE
        return scope.end_ms + self._limits.late_ms if late else scope.end_ms

    def _end(self) -> Gathered:
        self.state = State.ENDED
        for pointer in (pointer for pointers in self._pointers.values() for pointer in pointers):
            one = self._known.get(pointer.event)
            if one is not None and pointer.subject not in self._memo.keys(one).named and not _mentions(one, pointer):
                detail = f"it says nothing of {pointer.subject}, for which it was named"
                self._gaps[Gap(GapKind.MISFIT, pointer.event, detail)] = None
        observed = tuple(sorted(self._known.values(), key=lambda one: (one.event.time_ms, one.identifier)))
        sources = dict.fromkeys(scope.key for scope in self._scopes if scope.concern is Concern.SOURCE)
        return Gathered(observed, _ordered(self._gaps), tuple(self._asked), tuple(sources))

    def _bound(self, subject: str, detail: str) -> None:
        self._gaps[Gap(GapKind.BOUND, subject, detail)] = None


def _mentions(one: Observed, pointer: Pointer) -> bool:
    """Whether an event mentions a subject as a party or a transaction, which nothing here is about."""
    return any(key == pointer.subject for key, _ in uris.mentions(one.event))


def _ordered(gaps: Iterable[Gap]) -> tuple[Gap, ...]:
    return tuple(sorted(gaps, key=lambda gap: (gap.kind, gap.subject, gap.detail, gap.node)))


def pointers_of(observed: Sequence[Observed]) -> tuple[Pointer, ...]:
    """The pointers that the nodes keep of these events: what a simulated or saved history is asked for."""
    return tuple(
        Pointer(key, one.event.time_ms, one.identifier, role)
        for one in observed
        for key, role in uris.mentions(one.event)
    )

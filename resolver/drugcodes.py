"""Asks for many drug codes at once: their records, their events and those of the packages that they were in.

A carton of codes shares nearly all of its events, so they are asked for together and each is fetched and read once;
tracing a thousand codes one by one would read the same events a thousand times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from idtrace.bundle import Bundle
from idtrace.drugcode.answers import LEVELS_MAX, Book, Entry, entry
from idtrace.errors import BusyError, Reason
from idtrace.identifier import Identifier
from idtrace.provenance.gather import Question
from idtrace.provenance.history import Gap, GapKind, Observed
from idtrace.verdict.facts import Answered
from resolver.driver import Resolver
from resolver.resolution import Resolution
from resolver.tracing import PointerSource, Run, TraceLimits

# Each may hold a thousand records and 4,000 events with their proofs.
QUERIES_MAX: Final = 4
# Of one call; half a pallet's boxes, each with a bill of its own, stay below.
EVENTS_MAX: Final = 4_000
# Events of one code or package; more than a package lives through (a vehicle is not asked about).
POINTERS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Found:
    """What could be had: the papers of each code by key, how each was answered, and the events with their proofs."""

    now_ms: int
    book: Book
    papers: dict[str, tuple[Bundle, ...]]
    unproven: dict[str, Answered]
    events: dict[str, Bundle]
    gaps: tuple[Gap, ...]

    def entries(self, keys: Sequence[str]) -> list[Entry]:
        """How each code stands; takes about a millisecond each."""
        return [entry(key, self.papers.get(key, ()), self.book, self.unproven.get(key)) for key in keys]


class DrugCodes:
    """Queries over one :class:`Resolver`. Belongs to its event loop."""

    def __init__(self, resolver: Resolver, pointers: PointerSource, limits: TraceLimits | None = None) -> None:
        self._resolver = resolver
        self._pointers = pointers
        self._limits = limits or TraceLimits()
        self._under_way = 0

    async def ask(self, codes: Sequence[Identifier]) -> Found:
        """What is known of these codes, at least one.

        Raises:
            BusyError: OVERLOADED.
        """
        if self._under_way >= QUERIES_MAX:
            raise BusyError(Reason.OVERLOADED, f"{QUERIES_MAX} queries of codes are under way; try again")
        self._under_way += 1
        try:
            return await self._ask(codes)
        finally:
            self._under_way -= 1

    async def _ask(self, codes: Sequence[Identifier]) -> Found:
        first = (await self._resolver.resolve(codes[0])).resolution
        run = Run(self._resolver, self._pointers, self._limits, first)
        gaps: list[Gap] = []
        papers: dict[str, tuple[Bundle, ...]] = {}
        unproven: dict[str, Answered] = {}
        for code, line in zip(codes, await run.each(codes, run.line), strict=True):
            own = line[0]
            papers[str(code)] = tuple(
                one.bundle for one in line if isinstance(one, Resolution) and one.bundle is not None
            )
            gaps += [one for one in line if isinstance(one, Gap)]
            if isinstance(own, Resolution) and own.bundle is None:
                unproven[str(code)] = Answered(own.verdict, reason=str(own.reason or ""))
        search = _Search(run, gaps)
        await search.upwards([str(code) for code in codes])
        await search.downwards([str(code) for code in codes])
        book = await search.book()
        return Found(run.now_ms, book, papers, unproven, dict(run.bundles), tuple(dict.fromkeys(gaps)))


class _Search:
    """Rounds of pointers and events, each subject and each event once."""

    def __init__(self, run: Run, gaps: list[Gap]) -> None:
        self._run = run
        self._gaps = gaps
        self._asked: set[str] = set()
        self._tried: set[str] = set()
        self._known: list[Observed] = []

    async def book(self) -> Book:
        """What was found so far."""
        return await asyncio.to_thread(Book.of, tuple(self._known), self._run.now_ms)

    async def upwards(self, subjects: Sequence[str]) -> None:
        """Events of these, of the packages that they were in, and so on."""
        for _ in range(LEVELS_MAX):
            await self._read(subjects)
            book = await self.book()
            near = tuple(self._asked)
            parents = {book.packed(one, name) for name in near for one in book.about.get(name, ())}
            subjects = sorted(parents - self._asked - {""})
            if not subjects:
                return

    async def downwards(self, subjects: Sequence[str]) -> None:
        """Events of the first thing in each of these, and so on: how many levels of packages lie below."""
        for _ in range(LEVELS_MAX):
            book = await self.book()
            firsts = {inside[0] for name in subjects if (inside := book.children(name))}
            subjects = sorted(firsts)
            if not subjects:
                return
            await self._read(subjects)

    async def _read(self, subjects: Sequence[str]) -> None:
        wanted = [one for one in subjects if one not in self._asked]
        self._asked.update(wanted)
        now_ms = self._run.now_ms
        read = await self._run.point([Question(one, 0, now_ms, POINTERS_MAX) for one in wanted])
        self._gaps += read.gaps
        events = [one for one in dict.fromkeys(p.event for p in read.pointers) if one not in self._tried]
        if len(self._tried) + len(events) > EVENTS_MAX:
            self._gaps.append(Gap(GapKind.BOUND, events[-1], f"more than {EVENTS_MAX} events: ask for fewer codes"))
            events = events[: EVENTS_MAX - len(self._tried)]
        self._tried.update(events)
        got = await self._run.fetch(events)
        self._gaps += got.gaps
        self._known += got.observed

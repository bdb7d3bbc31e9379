"""Traces a thing: performs what :class:`~idtrace.provenance.gather.Gather` wants, and fetches the papers beside events.

Pointers come from the subject's home registry, which is where the verified chain of a resolution of it ends; they prove
nothing. What is named by a URI and no identifier, or lies in a zone that nobody has, has no home: the nodes of those
who have reported of it are asked. Events and papers are resolved like anything else, so each comes verified and with
its proof. What cannot be had in time is a gap, and never an error: half a history that says what is missing is worth
more than none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

from idtrace.bundle import Bundle, Verdict
from idtrace.epcis import uris
from idtrace.errors import BusyError, IdtraceError, InputError, Reason, RefusedError
from idtrace.identifier import Identifier, Prefix
from idtrace.party import license_identifier
from idtrace.provenance.gather import (
    AskPointers,
    EventsFetched,
    Gather,
    Gathered,
    GatherLimits,
    Pointer,
    PointersRead,
    Question,
)
from idtrace.provenance.history import Gap, GapKind, Observed
from idtrace.provenance.reading import read_event
from idtrace.recall import RECALLS_SUFFIX
from idtrace.record import Record, RecordBody
from idtrace.template import CLASS_DEPTH_MAX
from idtrace.verdict.evidence import facts_of, maker_of, of_maker, zones_with_a_say
from idtrace.verdict.facts import Answered, Facts
from resolver.driver import Resolver
from resolver.resolution import Resolution

Given = TypeVar("Given")
Got = TypeVar("Got")

_FAILED: Final = {Verdict.UNREACHABLE: GapKind.UNREACHABLE, Verdict.BOGUS: GapKind.BOGUS}


class PointerSource(Protocol):
    """Asks a subject's home for pointers (``resolver/pointing.py``)."""

    async def ask(self, endpoints: Sequence[str], question: Question, timeout_ms: int) -> tuple[list[Pointer], bool]:
        """Pointers, and whether there are more. Raises IdtraceError where no endpoint tells."""
        ...

    async def close(self) -> None:
        """Let go of every connection."""
        ...


@dataclass(frozen=True, slots=True)
class TraceLimits:
    """What one trace may cost, beside what :class:`GatherLimits` bounds."""

    gather: GatherLimits = field(default_factory=GatherLimits)
    # A person waits so long for a history; the edge cuts any call at 30 s.
    total_ms: int = 20_000
    call_ms: int = 3_000
    # One trace takes a thirty-second of the walks that a resolver has (driver.WALKS_MAX).
    at_once: int = 32
    # Each may hold 4,000 events with their proofs, some 30 MB at worst and 1 MB as a rule.
    traces: int = 32
    # Parties of one dose: maker, three levels of distribution, clinic, and a carrier between each two; ten times that.
    parties: int = 128


@dataclass(frozen=True, slots=True)
class Traced:
    """All that was found about a thing, each with its proof.

    Attributes:
        subject, now_ms: whose history, and as of when (UTC).
        answer: of the subject's own identifier.
        observed: verified events in order of time.
        gaps: what could not be had.
        events: the bundle of each event, by identifier.
        papers: its classes, what it was made of with their classes, licences and recalls, each as it was answered.
    """

    subject: str
    now_ms: int
    answer: Resolution
    observed: tuple[Observed, ...]
    gaps: tuple[Gap, ...]
    events: dict[str, Bundle]
    papers: tuple[Resolution, ...]

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """Every proof: of the subject, of the papers, of the events."""
        found = [paper.bundle for paper in (self.answer, *self.papers) if paper.bundle is not None]
        return (*found, *(self.events[one.identifier] for one in self.observed))

    def facts(self) -> Facts:
        """What a verdict is made of; nothing but the bundles, the gaps and the time goes into it."""
        unproven = Answered(self.answer.verdict, reason=str(self.answer.reason or ""))
        return facts_of(self.subject, self.bundles, self.gaps, now_ms=self.now_ms, unproven=unproven)


class Tracer:
    """Traces over one :class:`Resolver`. Belongs to its event loop."""

    def __init__(self, resolver: Resolver, pointers: PointerSource, limits: TraceLimits | None = None) -> None:
        self._resolver = resolver
        self._pointers = pointers
        self.limits = limits or TraceLimits()
        self.under_way = 0

    async def trace(self, identifier: Identifier, *, fresh: bool = False) -> Traced:
        """The events and papers of a thing.

        Raises:
            BusyError: OVERLOADED where too many traces are under way, or the resolver has no room for the question.
        """
        if self.under_way >= self.limits.traces:
            raise BusyError(Reason.OVERLOADED, f"{self.limits.traces} traces are under way; try again")
        self.under_way += 1
        try:
            return await self._trace(identifier, fresh=fresh)
        finally:
            self.under_way -= 1

    async def _trace(self, identifier: Identifier, *, fresh: bool) -> Traced:
        answer = (await self._resolver.resolve(identifier, fresh=fresh)).resolution
        run = Run(self._resolver, self._pointers, self.limits, answer)
        gathered = await run.gather()
        papers = await run.papers(gathered)
        gaps = dict.fromkeys((*gathered.gaps, *run.gaps))
        return Traced(str(identifier), run.now_ms, answer, gathered.observed, tuple(gaps), run.bundles, tuple(papers))

    async def close(self) -> None:
        """Let go of every connection of its own."""
        await self._pointers.close()


class Run:
    """One trace (or other search through events) under way: asks and fetches on one budget of time."""

    def __init__(self, resolver: Resolver, pointers: PointerSource, limits: TraceLimits, answer: Resolution) -> None:
        self.now_ms = resolver.clock.wall_ms()
        self.bundles: dict[str, Bundle] = {}
        self.gaps: list[Gap] = []
        self._resolver = resolver
        self._pointers = pointers
        self._limits = limits
        self._answers = {str(answer.identifier): answer}
        self._subject = answer.identifier
        self._reporters: dict[str, set[str]] = {}
        self._slots = asyncio.Semaphore(limits.at_once)
        self._until = asyncio.get_running_loop().time() + limits.total_ms / 1000

    async def gather(self) -> Gathered:
        """Drive the gathering to its end; what is not there in time is a gap."""
        gather = Gather(str(self._subject), now_ms=self.now_ms, limits=self._limits.gather)
        effect = gather.begin()
        while not isinstance(effect, Gathered):
            reply: PointersRead | EventsFetched
            if isinstance(effect, AskPointers):
                reply = await self.point(effect.questions)
            else:
                reply = await self.fetch(effect.identifiers)
            # Thousands of events take a second to assemble, in which others ask.
            effect = await asyncio.to_thread(gather.receive, reply)
        return effect

    async def papers(self, gathered: Gathered) -> list[Resolution]:
        """Classes, licences and recalls: what verdicts and readers need beside the events."""
        sources = [known for one in gathered.sources if (known := _identifier(one)) is not None]
        lines = await self.each((self._subject, *sources), self.line)
        found = {str(one.identifier): one for line in lines for one in line if isinstance(one, Resolution)}
        self.gaps += [one for line in lines for one in line if isinstance(one, Gap)]
        classes = [name for name in found if name != str(self._subject)]
        wanted: dict[str, Identifier] = {}
        prefixes = _parties(gathered.observed)
        if len(prefixes) > self._limits.parties:
            detail = f"more than {self._limits.parties} parties are named"
            self.gaps.append(Gap(GapKind.BOUND, str(self._subject), detail))
        for prefix in prefixes[: self._limits.parties]:
            licence = license_identifier(Prefix(prefix.labels[:-1]), prefix)
            wanted[str(licence)] = licence
        records = [one.bundle.outcome for name, one in found.items() if name in classes and one.bundle is not None]
        makers = {maker_of(record) for record in records if isinstance(record, Record)} - {""}
        for zone in zones_with_a_say((str(self._subject), *gathered.asked, *classes, *map(of_maker, makers))):
            wanted[f"{zone}/{RECALLS_SUFFIX}"] = Identifier.parse(f"{zone}/{RECALLS_SUFFIX}")
        for answer in await self.each(wanted.values(), self._resolve):
            if isinstance(answer, Gap):
                self.gaps.append(answer)
            else:
                found[str(answer.identifier)] = answer
        return [one for name, one in found.items() if name != str(self._subject)]

    async def line(self, identifier: Identifier) -> list[Resolution | Gap]:
        """A thing's record, its class, that class's own and so on, as far as they can be had."""
        line: list[Resolution | Gap] = []
        wanted: Identifier | None = identifier
        while wanted is not None and len(line) <= CLASS_DEPTH_MAX:
            answer = await self._resolve(wanted)
            line.append(answer)
            wanted = None if isinstance(answer, Gap) else _class_of(answer)
        return line

    async def point(self, questions: Sequence[Question]) -> PointersRead:
        """What the homes of these subjects know."""
        answers = await self.each(questions, self._ask)
        pointers: list[Pointer] = []
        gaps: list[Gap] = []
        for found, missing in answers:
            pointers += found
            gaps += missing
        return PointersRead(tuple(pointers), tuple(gaps))

    async def _ask(self, question: Question) -> tuple[list[Pointer], list[Gap]]:
        """Pointers of one subject, from each of its homes."""
        homes, gaps = await self._homes(question.subject)
        found: list[Pointer] = []
        for endpoints in homes:
            try:
                pointers, more = await self._pointers.ask(endpoints, question, self.left_ms())
            except IdtraceError as error:
                kind = GapKind.REFUSED if isinstance(error, RefusedError | InputError) else GapKind.UNREACHABLE
                gaps.append(Gap(kind, question.subject, f"pointers: {error.detail}", ", ".join(endpoints)))
                continue
            found += pointers
            if more:
                detail = f"there are more than {question.most} pointers"
                gaps.append(Gap(GapKind.BOUND, question.subject, detail, ", ".join(endpoints)))
        return found, gaps

    async def _homes(self, subject: str) -> tuple[list[tuple[str, ...]], list[Gap]]:
        """Endpoints of the home of a subject, or of those who have reported of what has none, and what is missing."""
        own = _identifier(subject)
        home = await self._home(own) if own is not None else None
        if isinstance(home, Gap):
            return [], [Gap(home.kind, subject, home.detail)]
        if home is not None:
            return [home], []
        found: dict[tuple[str, ...], None] = {}
        gaps: list[Gap] = []
        for prefix in sorted(self._reporters.get(subject, ())):
            # Any name in a party's zone leads to its node, whether there is such a record or not.
            home = await self._home(Identifier.parse(f"{prefix}/{RECALLS_SUFFIX}"))
            if isinstance(home, Gap):
                gaps.append(Gap(home.kind, subject, home.detail))
            elif home is not None:
                found[home] = None
        return list(found), gaps

    async def _home(self, identifier: Identifier) -> tuple[str, ...] | Gap | None:
        """Endpoints of the deepest zone on the way to an identifier; None where that is the root: it keeps nothing."""
        answer = await self._resolve(identifier)
        if isinstance(answer, Gap):
            return replace(answer, detail=f"its home: {answer.detail}")
        chain = answer.chain
        if chain is None or (chain.zone.labels and not chain.delegation.endpoints):
            kind = _FAILED.get(answer.verdict, GapKind.MISSING)
            return Gap(kind, str(identifier), f"its home: {answer.detail}")
        return chain.delegation.endpoints if chain.zone.labels else None

    async def fetch(self, identifiers: Sequence[str]) -> EventsFetched:
        """These events, verified; ``bundles`` keeps the proof of each."""
        observed: list[Observed] = []
        gaps: list[Gap] = []
        for got in await self.each(identifiers, self._event):
            if isinstance(got, Observed):
                observed.append(got)
                for key, _ in uris.mentions(got.event):
                    self._reporters.setdefault(key, set()).add(got.party)
            else:
                gaps.append(got)
        return EventsFetched(tuple(observed), tuple(gaps))

    async def _event(self, text: str) -> Observed | Gap:
        """A verified event, or why there is none."""
        try:
            identifier = Identifier.parse(text)
        except InputError as error:
            return Gap(GapKind.UNFOUNDED, text, f"a pointer names no event: {error.detail}")
        answer = await self._resolve(identifier)
        if isinstance(answer, Gap):
            return answer
        bundle = answer.bundle
        if answer.verdict is not Verdict.FOUND or bundle is None or not isinstance(bundle.outcome, Record):
            denied = answer.verdict is Verdict.ABSENT and bundle is not None
            kind = GapKind.UNFOUNDED if denied else _FAILED.get(answer.verdict, GapKind.MISSING)
            return Gap(kind, text, answer.detail)
        try:
            observed = read_event(bundle.outcome, logged=bundle.proof is not None)
        except InputError as error:
            return Gap(GapKind.UNREADABLE, text, f"its record is no event: {error.field}: {error.detail}")
        self.bundles[text] = bundle
        return observed

    async def _resolve(self, identifier: Identifier) -> Resolution | Gap:
        known = self._answers.get(str(identifier))
        if known is not None:
            return known
        try:
            async with asyncio.timeout(self.left_ms() / 1000):
                answer = (await self._resolver.resolve(identifier)).resolution
        except TimeoutError:
            return Gap(
                GapKind.UNREACHABLE, str(identifier), f"no answer within {self._limits.total_ms} ms of this trace"
            )
        except IdtraceError as error:
            return Gap(GapKind.UNREACHABLE, str(identifier), error.detail)
        self._answers[str(identifier)] = answer
        return answer

    def let_go(self) -> None:
        """Forget the proofs of the events so far; they were verified, and a search through many has no use for them."""
        for event in self.bundles:
            self._answers.pop(event, None)
        self.bundles.clear()

    @property
    def is_over(self) -> bool:
        """Whether the time that it may take has passed."""
        return asyncio.get_running_loop().time() >= self._until

    def left_ms(self) -> int:
        """How long one more call may take."""
        left = int((self._until - asyncio.get_running_loop().time()) * 1000)
        return max(1, min(left, self._limits.call_ms))

    async def each(self, given: Iterable[Given], one: Callable[[Given], Awaitable[Got]]) -> list[Got]:
        """One call for each, so many at once, in their order."""

        async def bounded(item: Given) -> Got:
            async with self._slots:
                return await one(item)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(bounded(item)) for item in given]
        return [task.result() for task in tasks]


def _parties(observed: Iterable[Observed]) -> list[Prefix]:
    """All prefixes that report, or are named as the one who has a thing, in order."""
    named: dict[str, None] = {}
    for one in observed:
        named[one.party] = None
        for end in (*one.event.sources, *one.event.destinations):
            party = uris.party_of(end.id)
            if party:
                named[party] = None
    return [Prefix.parse(prefix) for prefix in sorted(named)]


def _class_of(answer: Resolution) -> Identifier | None:
    record = answer.bundle.outcome if answer.bundle is not None else None
    return RecordBody.parse(record.signed.payload).class_id if isinstance(record, Record) else None


def _identifier(subject: str) -> Identifier | None:
    """None for a URI that is no identifier."""
    try:
        return Identifier.parse(subject)
    except InputError:
        return None

"""Verdicts, kept warm: judged once, and answered from memory until something that they rest on has changed.

A verdict rests on the thing's own record, on the papers of everybody who touched it, on the recalls of every zone that
has a say, and on the events of the thing and of whatever it was in. It is used only while

1. nothing of that was announced to have changed since its facts were asked for (``resolver/announced.py``; events come
   through :meth:`Judging.on_events`);
2. it is *followed*: every zone that it rests on has been watched without a gap since then; else for
   ``limits.unfollowed_seconds``, like any answer;
3. time alone has not changed it (``until_ms``), and it is younger than :attr:`JudgeLimits.kept_seconds`.

What was asked for at or before an announcement is given to those who asked before it, and is not kept. A verdict that
falls is judged again in the background, so that the next scan finds it warm. Where nothing but recalls were announced,
these alone are asked for anew, and the rest is as old as it was: a lot's recall reaches every verdict of a resolver at
once, and each must not begin at the thing's events again.
"""

from __future__ import annotations

import asyncio
import gzip
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from idtrace.bundle import Verdict
from idtrace.errors import BusyError, IdtraceError, InputError, Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.provenance.history import Gap, GapKind
from idtrace.recall import RECALLS_SUFFIX
from idtrace.signature import Signer
from idtrace.verdict.evidence import facts_and_history
from idtrace.verdict.facts import Answered, Facts
from idtrace.verdict.findings import Judgement
from idtrace.verdict.judge import judge
from idtrace.verdict.policy import Policy
from idtrace.verdict.statement import VerdictFile, sign_verdict
from resolver.driver import Resolver
from resolver.effects import Learned
from resolver.following import Basis
from resolver.judge_limits import JudgeLimits
from resolver.tracing import Traced, Tracer

log = structlog.get_logger(__name__)

# Announcements of events by subject; beyond, the oldest go, and nothing that was asked for before them is kept.
EVENTS_MAX: Final = 65_536
# A verdict file compressed: 300 events take 300 KB; a client takes 32 MiB a message.
EVIDENCE_BYTES_MAX: Final = 16_777_216


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict as handed to one asker.

    Attributes:
        judgement, facts: what was judged and of what.
        traced: with every proof.
        age_ms: since its facts were asked for.
        unfollowed_ms: for how long a change may have gone unheard; None where changes are told.
        kept: whether it was answered from memory.
    """

    judgement: Judgement
    facts: Facts
    traced: Traced
    age_ms: int = 0
    unfollowed_ms: int | None = None
    kept: bool = False


@dataclass(slots=True, eq=False)
class _Entry:
    judged: Judged
    asked_ms: int  # monotonic
    identifiers: tuple[Identifier, ...]  # whose records it rests on
    subjects: tuple[str, ...]  # whose events it rests on
    bases: tuple[Basis, ...]
    used_ms: int
    renewed: dict[Identifier, int] = field(default_factory=dict)  # what was asked for later than the rest, and when


@dataclass(slots=True)
class JudgeCounters:
    """What has happened so far; read by the metrics page."""

    asked: int = 0
    warm: int = 0
    judged: int = 0
    again: int = 0  # in the background
    renewed: int = 0  # of all that were judged, those of which only the recalls were asked for
    fallen: int = 0  # kept verdicts that an announcement has ended
    outrun: int = 0  # not kept: something was announced meanwhile
    refused_busy: int = 0

    def items(self) -> tuple[tuple[str, int], ...]:
        """Name and count of each."""
        return tuple((name, getattr(self, name)) for name in self.__slots__)


@dataclass(slots=True, eq=False)
class _Flight:
    task: asyncio.Task[_Entry]
    began_ms: int


@dataclass(slots=True)
class _Heard:
    """When events of a subject were last announced (monotonic, ms)."""

    at_ms: OrderedDict[str, int] = field(default_factory=OrderedDict)
    floor_ms: int = -1  # of what was forgotten the latest

    def tell(self, subject: str, now_ms: int) -> None:
        self.at_ms[subject] = now_ms
        self.at_ms.move_to_end(subject)
        if len(self.at_ms) > EVENTS_MAX:
            self.floor_ms = max(self.floor_ms, self.at_ms.popitem(last=False)[1])

    def since(self, subject: str, asked_ms: int) -> bool:
        return self.at_ms.get(subject, self.floor_ms) >= asked_ms


class Judging:
    """Judges over one :class:`Tracer`, and keeps what was judged. Belongs to its event loop."""

    def __init__(
        self,
        resolver: Resolver,
        tracer: Tracer,
        *,
        policy: Policy | None = None,
        signer: Signer | None = None,
        limits: JudgeLimits | None = None,
    ) -> None:
        self.policy = policy or Policy()
        self.limits = limits or JudgeLimits()
        self.counters = JudgeCounters()
        self._resolver = resolver
        self._tracer = tracer
        self._signer = signer
        self._kept: OrderedDict[Identifier, _Entry] = OrderedDict()
        self._by_subject: dict[str, set[Identifier]] = {}
        self._heard = _Heard()
        self._flights: dict[Identifier, _Flight] = {}
        self._again: OrderedDict[Identifier, None] = OrderedDict()
        self._fallen: OrderedDict[Identifier, _Entry] = OrderedDict()
        self._worker: asyncio.Task[None] | None = None

    async def judge(self, identifier: Identifier, *, fresh: bool = False) -> Judged:
        """The verdict of a thing.

        Raises:
            BusyError: OVERLOADED.
        """
        self.counters.asked += 1
        entry = None if fresh else self._usable(identifier)
        if entry is not None:
            self.counters.warm += 1
            return self._given(entry, kept=True)
        entry, joined = await self._boarded(identifier, fresh=fresh)
        if joined and self._changed(entry):
            # It had asked before something was announced, and whoever comes after that has to see it.
            entry, _ = await self._boarded(identifier, fresh=False)
        return self._given(entry, kept=False)

    def on_events(self, identifier: Identifier) -> None:
        """There are more events about a subject: what rests on them falls, and is judged again."""
        subject = str(identifier)
        self._heard.tell(subject, self._resolver.clock.now_ms())
        for thing in tuple(self._by_subject.get(subject, ())):
            self._fall(thing)

    def evidence(self, judged: Judged) -> bytes:
        """The verdict file, compressed; without a key the verdict in it is not signed, and its proofs speak alone.

        Raises:
            InputError: FIELD_TOO_LARGE.
        """
        facts = judged.facts
        signers = () if self._signer is None else (self._signer,)
        signed = sign_verdict(judged.judgement, facts, *signers, issued_at=self._resolver.clock.now())
        own = judged.traced.answer
        unproven = facts.answer if own.bundle is None else None
        file = VerdictFile(signed, self.policy, judged.traced.bundles, facts.gaps, unproven)
        data = gzip.compress(file.to_json().encode(), mtime=0)
        if len(data) > EVIDENCE_BYTES_MAX:
            rule = f"the proofs of this verdict take more than {EVIDENCE_BYTES_MAX} bytes"
            raise InputError(Reason.FIELD_TOO_LARGE, rule, field="evidence")
        return data

    async def close(self) -> None:
        """End what is under way."""
        tasks: list[asyncio.Task[_Entry] | asyncio.Task[None]] = [flight.task for flight in self._flights.values()]
        if self._worker is not None:
            tasks.append(self._worker)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._flights.clear()

    def __len__(self) -> int:
        """Verdicts that are kept."""
        return len(self._kept)

    # What is kept

    def _usable(self, identifier: Identifier) -> _Entry | None:
        entry = self._kept.get(identifier)
        if entry is None:
            return None
        clock = self._resolver.clock
        now_ms, until_ms = clock.now_ms(), entry.judged.judgement.until_ms
        if self._changed(entry):
            self._fall(identifier)
            return None
        if (
            (until_ms is not None and clock.wall_ms() >= until_ms)
            or now_ms - entry.asked_ms >= self.limits.kept_seconds * 1000
            or any(basis.left_ms(basis.unfollowed_ms(now_ms)) <= 0 for basis in entry.bases)
        ):
            self._drop(identifier)
            return None
        entry.used_ms = now_ms
        self._kept.move_to_end(identifier)
        return entry

    def _changed(self, entry: _Entry) -> bool:
        return bool(self._announced(entry)) or self._told_of(entry)

    def _announced(self, entry: _Entry) -> list[Identifier]:
        """What was announced of it since it was asked for."""
        announced = self._resolver.following.announced
        return [one for one in entry.identifiers if announced.since(one, entry.renewed.get(one, entry.asked_ms))]

    def _told_of(self, entry: _Entry) -> bool:
        """Whether there are more events than it knows."""
        return any(self._heard.since(subject, entry.asked_ms) for subject in entry.subjects)

    def _given(self, entry: _Entry, *, kept: bool) -> Judged:
        now_ms = self._resolver.clock.now_ms()
        unheard = [basis.unfollowed_ms(now_ms) for basis in entry.bases]
        unfollowed_ms = max((one for one in unheard if one is not None), default=None)
        judged = entry.judged
        age_ms = now_ms - entry.asked_ms
        return Judged(judged.judgement, judged.facts, judged.traced, age_ms, unfollowed_ms, kept=kept)

    def _keep(self, identifier: Identifier, entry: _Entry) -> None:
        self._drop(identifier)
        self._fallen.pop(identifier, None)
        self._kept[identifier] = entry
        for subject in entry.subjects:
            self._by_subject.setdefault(subject, set()).add(identifier)
        if len(self._kept) > self.limits.kept:
            self._drop(next(iter(self._kept)))

    def _drop(self, identifier: Identifier) -> _Entry | None:
        entry = self._kept.pop(identifier, None)
        for subject in entry.subjects if entry is not None else ():
            things = self._by_subject[subject]
            things.discard(identifier)
            if not things:
                del self._by_subject[subject]
        return entry

    def _fall(self, identifier: Identifier) -> None:
        """An announcement has ended a verdict: judge again in the background, if anybody may ask soon."""
        entry = self._drop(identifier)
        if entry is None:
            return
        self.counters.fallen += 1
        self._fallen[identifier] = entry
        if len(self._fallen) > self.limits.again:
            self._fallen.popitem(last=False)
        now_ms = self._resolver.clock.now_ms()
        if now_ms - entry.used_ms < self.limits.idle_seconds * 1000 and len(self._again) < self.limits.again:
            self._again[identifier] = None
            if self._worker is None or self._worker.done():
                self._worker = asyncio.create_task(self._judge_again(), name="judging again")

    async def _judge_again(self) -> None:
        while self._again:
            identifier, _ = self._again.popitem(last=False)
            try:
                await self._boarded(identifier, fresh=False)
                self.counters.again += 1
            except IdtraceError as error:
                log.info("not judged again", identifier=str(identifier), reason=str(error.reason))

    # What is under way

    async def _boarded(self, identifier: Identifier, *, fresh: bool) -> tuple[_Entry, bool]:
        """What is being judged, and whether that was under way before. Who goes away leaves it to the others."""
        before = self._flights.get(identifier)
        task = self._board(identifier, fresh=fresh)
        return await asyncio.shield(task), before is not None and before.task is task

    def _board(self, identifier: Identifier, *, fresh: bool) -> asyncio.Task[_Entry]:
        flight = self._flights.get(identifier)
        if flight is not None and not fresh and not self._outrun(identifier, flight.began_ms):
            return flight.task
        if len(self._flights) >= self.limits.at_once:
            self.counters.refused_busy += 1
            raise BusyError(Reason.OVERLOADED, f"{self.limits.at_once} verdicts are being made; try again")
        began_ms = self._resolver.clock.now_ms()
        task = asyncio.create_task(self._make(identifier, began_ms, fresh=fresh), name=f"judge {identifier}")
        mine = self._flights[identifier] = _Flight(task, began_ms)
        task.add_done_callback(lambda done: self._landed(identifier, mine, done))
        return task

    def _landed(self, identifier: Identifier, flight: _Flight, done: asyncio.Task[_Entry]) -> None:
        if self._flights.get(identifier) is flight:
            del self._flights[identifier]
        if not done.cancelled() and done.exception() is not None and not isinstance(done.exception(), IdtraceError):
            log.error("judging failed", identifier=str(identifier), exc_info=done.exception())

    def _outrun(self, identifier: Identifier, began_ms: int) -> bool:
        announced = self._resolver.following.announced
        return announced.since(identifier, began_ms) or self._heard.since(str(identifier), began_ms)

    async def _make(self, identifier: Identifier, began_ms: int, *, fresh: bool) -> _Entry:
        self.counters.judged += 1
        fallen = self._fallen.pop(identifier, None)
        asked_ms, renewed = began_ms, dict[Identifier, int]()
        recalls = [] if fallen is None or fresh else self._only_recalls(fallen, began_ms)
        traced = await self._renewed(fallen.judged.traced, recalls) if fallen is not None and recalls else None
        if fallen is not None and traced is not None:
            self.counters.renewed += 1
            asked_ms, renewed = fallen.asked_ms, fallen.renewed | dict.fromkeys(recalls, began_ms)
        else:
            traced = await self._tracer.trace(identifier, fresh=fresh)
        facts, judgement, subjects = await asyncio.to_thread(judged_of, traced, self.policy)
        entry = self._entry(Judged(judgement, facts, traced), asked_ms, subjects, renewed)
        if self._changed(entry):
            self.counters.outrun += 1
        else:
            self._keep(identifier, entry)
        return entry

    def _only_recalls(self, entry: _Entry, now_ms: int) -> list[Identifier]:
        """The recalls that were announced, where nothing else is in doubt; else nothing."""
        changed = self._announced(entry)
        if (
            any(one.suffix != RECALLS_SUFFIX for one in changed)
            or self._told_of(entry)
            or now_ms - entry.asked_ms >= self.limits.kept_seconds * 1000
            or any(basis.unfollowed_ms(now_ms) is not None for basis in entry.bases)
        ):
            return []
        return changed

    async def _renewed(self, traced: Traced, recalls: list[Identifier]) -> Traced | None:
        """The same history with these recalls as they are now; None where the resolver has no room to ask for them."""
        try:
            asked = await asyncio.gather(*(self._resolver.resolve(one) for one in recalls))
        except IdtraceError:
            return None
        papers = {paper.identifier: paper for paper in traced.papers}
        papers |= {answer.resolution.identifier: answer.resolution for answer in asked}
        return replace(traced, now_ms=self._resolver.clock.wall_ms(), papers=tuple(papers.values()))

    def _entry(
        self, judged: Judged, began_ms: int, subjects: tuple[str, ...], renewed: dict[Identifier, int]
    ) -> _Entry:
        traced, following = judged.traced, self._resolver.following
        answers = (traced.answer, *traced.papers)
        identifiers = {answer.identifier for answer in answers}
        # Of an event nothing changes but the trust in its zone: one name of each zone stands for all of them.
        zones: dict[Prefix, Identifier] = {Identifier.parse(one).prefix: Identifier.parse(one) for one in traced.events}
        now_ms = self._resolver.clock.now_ms()
        # Answers out of a cache were asked for before; if they were not followed then, for no longer than this.
        short_ms = following.short_ms if following.short_ms < began_ms else 0
        bases = {
            answer.chain.zone: following.basis(
                Learned(answer.chain, began_ms - short_ms), began_ms - short_ms, now_ms=now_ms
            )
            for answer in answers
            if answer.chain is not None
        }
        ordered = tuple(sorted({*identifiers, *zones.values()}))
        return _Entry(judged, began_ms, ordered, subjects, tuple(bases.values()), now_ms, renewed)


def judged_of(traced: Traced, policy: Policy) -> tuple[Facts, Judgement, tuple[str, ...]]:
    """Facts, verdict, and the keys of everything whose events it rests on; pure."""
    gaps = [*traced.gaps]
    for paper in traced.papers:
        if paper.bundle is None:
            kind = GapKind.BOGUS if paper.verdict is Verdict.BOGUS else GapKind.UNREACHABLE
            gaps.append(Gap(kind, str(paper.identifier), paper.detail))
    answer = traced.answer
    unproven = None if answer.bundle is not None else Answered(answer.verdict, reason=str(answer.reason or ""))
    facts, made = facts_and_history(traced.subject, traced.bundles, gaps, now_ms=traced.now_ms, unproven=unproven)
    near = {traced.subject, *made.containers, *made.sources}
    near |= {step.via for step in made.steps} | {leg.place for leg in made.legs}
    return facts, judge(facts, policy, history=made), tuple(sorted(near - {""}))

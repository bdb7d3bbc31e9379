"""Finds who holds what a recall reaches: performs what :class:`~idtrace.provenance.holders.Search` wants.

On the budget and by the means of a trace (``resolver/tracing.py``): pointers from the home of each subject, events
resolved and verified like anything else. What cannot be had in time is a gap; what was found by then is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from idtrace.bundle import Bundle, Verdict
from idtrace.errors import BusyError, InputError, Reason, RefusedError, VerificationError
from idtrace.identifier import Identifier, Prefix
from idtrace.provenance.gather import AskPointers, FetchEvents
from idtrace.provenance.history import Gap, GapKind
from idtrace.provenance.holders import AskClasses, ClassesRead, Effect, Found, HolderLimits, Reply, Search
from idtrace.recall import RECALL_TYPE, Recall, ScopeKind, Thing, has_say, parse_recall, recalls_identifier
from idtrace.record import Record, RecordBody
from idtrace.verdict.evidence import maker_of
from resolver.driver import Resolver
from resolver.resolution import Resolution
from resolver.tracing import PointerSource, Run, TraceLimits

# Each may verify 24,000 events, half a minute of a core; a region has one or two recalls at a time.
SEARCHES_MAX: Final = 2


@dataclass(frozen=True, slots=True)
class HoldersLimits:
    """What one search may cost."""

    search: HolderLimits = field(default_factory=HolderLimits)
    # As long as the edge lets a call take (30 s), less what it takes to tell.
    trace: TraceLimits = field(default_factory=lambda: TraceLimits(total_ms=25_000))


@dataclass(frozen=True, slots=True)
class Held:
    """Who holds a recall's doses, as of ``now_ms`` (UTC); ``bundle`` proves the recall."""

    recall: Recall
    bundle: Bundle
    now_ms: int
    found: Found


class Holders:
    """Searches over one :class:`Resolver`. Belongs to its event loop."""

    def __init__(self, resolver: Resolver, pointers: PointerSource, limits: HoldersLimits | None = None) -> None:
        self._resolver = resolver
        self._pointers = pointers
        self.limits = limits or HoldersLimits()
        self.under_way = 0

    async def who_holds(self, zone: Prefix, name: str) -> Held:
        """Who holds what this recall reaches.

        Raises:
            BusyError: OVERLOADED where too many searches are under way; NO_ANSWER where the zone's node is silent.
            RefusedError: RECALL_ABSENT: the zone recalls nothing of this name.
            VerificationError: what the zone's node answers does not verify.
        """
        if self.under_way >= SEARCHES_MAX:
            raise BusyError(Reason.OVERLOADED, f"{SEARCHES_MAX} searches for holders are under way; try again")
        self.under_way += 1
        try:
            answer = (await self._resolver.resolve(recalls_identifier(zone))).resolution
            recall, bundle = _recall_of(answer, zone, name)
            run = Run(self._resolver, self._pointers, self.limits.trace, answer)
            return Held(recall, bundle, run.now_ms, await self._found(recall, run))
        finally:
            self.under_way -= 1

    async def _found(self, recall: Recall, run: Run) -> Found:
        makers, gaps = await _makers(recall, run)
        search = Search(recall, makers=makers, now_ms=run.now_ms, limits=self.limits.search)
        effect: Effect = search.begin()
        while not isinstance(effect, Found):
            if run.is_over:
                effect = search.stop(f"not all was found within {self.limits.trace.total_ms} ms")
                break
            effect = await self._perform(search, effect, run)
        return Found(effect.rows, (*gaps, *effect.gaps), effect.doses, effect.asked, effect.events)

    async def _perform(self, search: Search, effect: Effect, run: Run) -> Effect:
        reply: Reply
        match effect:
            case AskPointers(questions):
                reply = await run.point(questions)
            case FetchEvents(identifiers):
                reply = await run.fetch(identifiers)
                run.let_go()
            case AskClasses(things):
                reply = await _classes(things, run)
            case _:
                raise AssertionError("the search has ended")
        # Of a lot of 100,000 this computes for a second or two at its end.
        return await asyncio.to_thread(search.receive, reply)


def _recall_of(answer: Resolution, zone: Prefix, name: str) -> tuple[Recall, Bundle]:
    if answer.verdict is Verdict.BOGUS:
        raise VerificationError(answer.reason or Reason.INTERNAL, answer.detail, field="zone")
    if answer.bundle is None:
        raise BusyError(Reason.NO_ANSWER, f"the recalls of {zone}: {answer.detail}")
    record = answer.bundle.outcome
    if isinstance(record, Record):
        body = RecordBody.parse(record.signed.payload)
        of_recalls = {digest.index for digest in body.values if digest.type == RECALL_TYPE}
        for value in record.values:
            if value.index in of_recalls:
                recall = parse_recall(value.data, zone=str(zone), version=body.version)
                if recall.name == name:
                    return recall, answer.bundle
    raise RefusedError(Reason.RECALL_ABSENT, f"zone {zone} has no recall {name}", field="recall")


async def _makers(recall: Recall, run: Run) -> tuple[tuple[str, ...], list[Gap]]:
    """The maker that the recalled product's class names, where the recalling zone has a say over it."""
    if recall.scope.kind is not ScopeKind.LOT:
        return (), []
    product = recall.scope.product
    line = await run.line(Identifier.parse(product))
    gaps = [one for one in line if isinstance(one, Gap)]
    gaps += [
        Gap(GapKind.UNREACHABLE, product, f"its class is not known: {one.detail}")
        for one in line
        if isinstance(one, Resolution) and one.bundle is None
    ]
    records = [one.bundle.outcome for one in line if isinstance(one, Resolution) and one.bundle is not None]
    makers = [maker for record in records if isinstance(record, Record) and (maker := maker_of(record))]
    if not has_say(recall.zone, Thing(product, maker=makers[0] if makers else "")):
        gaps.append(
            Gap(GapKind.MISFIT, product, f"{recall.zone} has no say over this product: nobody has to follow it")
        )
        return (), gaps
    return tuple(makers[:1]), gaps


async def _classes(things: Sequence[str], run: Run) -> ClassesRead:
    """Of what classes these things are, by their own records."""
    named: list[Identifier] = []
    for thing in things:
        try:
            named.append(Identifier.parse(thing))
        except InputError:
            continue  # a URI of nobody's has no record: its making counts, and a gap says that it may not
    lines = await run.each(named, run.line)
    told: dict[str, tuple[str, ...]] = {}
    gaps: list[Gap] = []
    for one_named, line in zip(named, lines, strict=True):
        gaps += [one for one in line if isinstance(one, Gap)]
        answers = [one for one in line if isinstance(one, Resolution)]
        if answers and answers[0].verdict is not Verdict.UNREACHABLE and answers[0].verdict is not Verdict.BOGUS:
            told[str(one_named)] = tuple(str(one.identifier) for one in answers[1:])
    return ClassesRead(told, tuple(gaps))

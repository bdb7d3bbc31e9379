"""One engine beside its truth: what it answers is judged at once, and what it leaves unknown is asked after."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from idtrace import wire
from idtrace.errors import Reason, RefusedError
from registry.storage import Change, DeliveryState, Outcome, Write
from tests.contract.faults import RAISED
from tests.contract.places import Place
from tests.contract.truth import Told, Truth, zones_of
from tests.contract.wishes import CHILDREN, CLAIMS, KEYS, NAMES, PREFIXES, SUBJECTS, TIMES, ZONES, Call

# Of the identifiers that only one step has ever touched, so many are read record by record.
SAMPLED: Final = 8
# A reader beside two changes asks without a pause for so long, and then leaves them the processor.
EAGER_LAPS: Final = 5
# Changes a question; an example has fewer than this.
NEWS_MAX: Final = 500
# Of pointers, events and deliveries more than an example can have.
EVENTS_MAX: Final = 20_000
RECOVERIES: Final = ("reopen", "restart", "the other first")


class DifferenceError(AssertionError):
    """A store has not answered the truth."""


@dataclass
class Count:
    """What was run on one engine."""

    engine: str
    steps: int = 0
    examples: int = 0
    failures: int = 0
    persisted: int = 0
    differences: int = 0

    def __str__(self) -> str:
        return (
            f"{self.engine}: {self.steps:,} steps in {self.examples} examples, {self.failures} injected failures"
            f" ({self.persisted} persisted), {self.differences} differences"
        )


@dataclass(frozen=True)
class Failure:
    """Which of an engine's points fails, whether the change is durable then, and how its writer comes back."""

    point: int
    persisted: bool
    recovery: str


@dataclass
class Side:
    """Handles on one place, and what they have to answer."""

    place: Place
    count: Count
    handles: list[Any] = field(default_factory=list)
    truth: Truth = field(default_factory=Truth)
    told: list[Change] = field(default_factory=list)  # all that one has heard who watches from the first change on

    def require(self, holds: bool, said: str) -> None:
        if not holds:
            self.count.differences += 1
            raise DifferenceError(f"{self.count.engine}: {said}")

    def judge(self, call: str, arguments: Sequence[Any], answer: Any, expected: Any) -> None:
        answer, expected = _plain(call, answer), _plain(call, expected)
        if answer != expected:  # what it says takes longer than the comparison
            asked = f"{call}{tuple(arguments)!r:.300}"
            self.require(False, f"{asked} answered {answer!r:.600}, not {expected!r:.600}")

    async def ask(self, handle: int, call: str, *arguments: Any) -> Any:
        answer = await getattr(self.handles[handle], call)(*arguments)
        self.judge(call, arguments, answer, getattr(self.truth, call)(*arguments))
        return _plain(call, answer)

    async def ask_all(self, handle: int, reads: Iterable[Call]) -> None:
        if self.place.distant:
            await asyncio.gather(*(self.ask(handle, call, *arguments) for call, arguments in reads))
        else:  # a task for each costs more than most of the answers
            for call, arguments in reads:
                await self.ask(handle, call, *arguments)

    async def restart(self, handle: int) -> None:
        """What a process does that ends and starts again."""
        await self.handles[handle].close()
        self.handles[handle] = await self.place.open()

    # What is told to those who watch

    async def listen(self, handle: int) -> None:
        """Hear what is new: what has happened, in order, once."""
        last = self.told[-1].sequence if self.told else 0
        news = await self.handles[handle].changes(last, NEWS_MAX)
        self.told += news
        numbers = [last, *(change.sequence for change in news)]
        self.require(numbers == sorted(set(numbers)), f"numbers {numbers} do not rise")
        self.require(_happened(self.told) == self.truth.told, f"told {_happened(news)}, not {self.truth.told[-3:]}")
        self.require(await self.handles[handle].sequence() == numbers[-1], "the last number is not the last told")

    async def hear_again(self, handle: int) -> None:
        """Whoever asks for a part, from wherever, is told what was told before."""
        store, most = self.handles[handle], 3
        for at in {0, len(self.told) // 2, max(len(self.told) - 1, 0)}:
            after = self.told[at - 1].sequence if at else 0
            again = await store.changes(after, most)
            self.require(
                again == self.told[at : at + most], f"after {after} now {again}, before {self.told[at:][:most]}"
            )
        ahead = (self.told[-1].sequence if self.told else 0) + 1
        try:
            answer = await store.changes(ahead, 1)
        except RefusedError as error:
            self.require(error.reason is Reason.CHANGES_GONE, f"change {ahead} is yet to come: {error.reason}")
        else:
            self.require(False, f"change {ahead} is yet to come, and was answered {answer}")

    # Failures

    async def fail(self, handle: int, call: Call, failure: Failure) -> None:
        """Let a change fail. Nobody knows then whether it has happened, until the store says so, for good."""
        name, arguments = call
        persisted = failure.persisted
        happened = self.truth.copy()
        expected = getattr(happened, name)(*arguments)
        struck = self.place.fail_next(self.handles[handle], failure.point, persisted=persisted)
        try:
            answer = await getattr(self.handles[handle], name)(*arguments)
        except RAISED:
            self.require(struck(), f"{name} raised where nothing had failed")
            self.count.failures += 1
            self.count.persisted += persisted
        else:
            struck()
            self.judge(name, arguments, answer, expected)
            self.truth = happened
            return
        truths = {False: self.truth, True: happened}
        if failure.recovery == "the other first":
            if name == "commit":  # a loser has been told so, and on what has happened since it may be in order
                writes = [w for w, outcome in zip(arguments[0], expected, strict=True) if outcome is Outcome.COMMITTED]
                call = name, (writes,)
            await self._ask_again(1 - handle, call, truths)
        if failure.recovery == "restart":
            await self.restart(handle)
        else:
            await self.handles[handle].reopen()
        await self._settle(handle, call, truths)
        self.require(persisted in truths, f"{name} {'was' if persisted else 'was not'} durable and is now otherwise")
        self.truth = truths[persisted]

    async def _ask_again(self, handle: int, call: Call, truths: dict[bool, Truth]) -> None:
        """Another process is asked for the same change, before the one that failed has found back."""
        name, arguments = call
        told = await getattr(self.handles[handle], name)(*arguments)
        for persisted in list(truths):
            truths[persisted] = truths[persisted].copy()
            if getattr(truths[persisted], name)(*arguments) != told:
                del truths[persisted]
        self.require(bool(truths), f"{name} asked again was told {told!r}: neither happened nor not")

    async def _settle(self, handle: int, call: Call, truths: dict[bool, Truth]) -> None:
        """Drop the truths that the store contradicts: of a change that has altered anything one is left."""
        reads = touched(self.truth, call)
        answers = await asyncio.gather(*(getattr(self.handles[handle], name)(*given) for name, given in reads))
        for persisted, truth in list(truths.items()):
            expected = [_plain(name, getattr(truth, name)(*given)) for name, given in reads]
            if expected != [_plain(name, answer) for (name, _), answer in zip(reads, answers, strict=True)]:
                del truths[persisted]
        self.require(bool(truths), f"what {call[0]} has left is neither all of it nor nothing: {answers!r:.900}")

    # Two at once

    async def race(self, handles: tuple[int, int], calls: tuple[Call, Call]) -> None:
        """Run two changes at once, and somebody who reads beside them; some order has to explain what they are told."""
        over = asyncio.Event()
        wanted = [write for name, arguments in calls if name == "commit" for write in arguments[0]]
        watching = asyncio.create_task(self._watch(1 - handles[0], wanted, over))
        try:
            told = await asyncio.gather(
                *(getattr(self.handles[n], name)(*given) for n, (name, given) in zip(handles, calls, strict=True))
            )
        finally:
            over.set()
            await watching
        possible = []
        for order in ((0, 1), (1, 0)):
            truth = self.truth.copy()
            answers = {n: getattr(truth, calls[n][0])(*calls[n][1]) for n in order}
            if told == [answers[0], answers[1]]:
                possible.append(truth)
        self.require(bool(possible), f"no order of {calls!r:.900} explains {told!r}")
        # Of two that have nothing to do with each other the order alone tells which came first.
        heard = _happened(await self.handles[handles[0]].changes(self.told[-1].sequence if self.told else 0, NEWS_MAX))
        self.truth = next((one for one in possible if one.told[-len(heard) or len(one.told) :] == heard), possible[0])

    async def _watch(self, handle: int, writes: Sequence[Write], over: asyncio.Event) -> None:
        """Who sees a head finds its version, its receipt and its claims."""
        store = self.handles[handle]
        known = {write.record: write for versions in self.truth.writes.values() for write in versions}
        known |= {write.record: write for write in writes}
        heard = self.told[-1].sequence if self.told else 0
        for lap in count():
            if over.is_set():
                return
            for name, head in (await store.heads([write.identifier for write in writes])).items():
                record = await store.record(name, head.version)
                self.require(record in known, f"a reader saw the head of {name} and not its version {head.version}")
                self.require(wire.record_from_bytes(record).hash == head.record_hash, f"{name} has another's head")
                write = known[record]
                same = [one for one in writes if one.record == record] or [write]
                keys = [await store.earlier(one.zone, [one.idempotency_key]) for one in same]
                self.require(any(keys), f"a reader saw {name} and not its receipt")
                self.require(len(await store.claimants(write.claims)) == len(write.claims), f"{name} has no claim")
            for change in await store.changes(heard, NEWS_MAX):
                heard = change.sequence
                heads = await store.heads([name for name, _ in change.identifiers])
                for name in change.events:
                    there = bool(await store.pointers(name, None, 1))
                    self.require(there, f"change {heard} was told before a pointer of {name} could be read")
                for name, version in change.identifiers:
                    there = name in heads and heads[name].version >= version
                    self.require(there, f"change {heard} was told before version {version} of {name} could be read")
            await asyncio.sleep(0 if lap < EAGER_LAPS else 0.001)


def touched(truth: Truth, call: Call) -> list[Call]:
    """The reads that a change may have altered."""
    name, arguments = call
    if name == "put_chain":
        return [("chains", ())]
    if name == "put_pointers":
        return [("pointers", (subject, None, EVENTS_MAX)) for subject in SUBJECTS]
    if name == "put_grant":
        grant, _, (zone, key), _ = arguments
        return [("grants", ([grant.prefix],)), ("earlier", (zone, [key])), ("any_within", (grant.prefix,))]
    writes: list[Write] = arguments[0]
    names = sorted({write.identifier for write in writes})
    reads: list[Call] = [("heads", (names,))]
    for zone, keys in zones_of((write.zone, write.idempotency_key) for write in writes).items():
        reads.append(("earlier", (zone, keys)))
    for one in _sample(names):
        reads += [("record", (one, version)) for version in (0, len(truth.writes.get(one, ())) + 1)]
    reads.append(("claimants", (sorted({claim for write in writes for claim in write.claims}),)))
    about = sorted({mention.subject for write in writes for mention in write.mentions})
    reads += [("pointers", (subject, None, EVENTS_MAX)) for subject in about]
    return [*reads, ("events", (0, EVENTS_MAX)), ("outbox", (DeliveryState.WAITING, EVENTS_MAX))] if about else reads


def of_events(truth: Truth) -> list[Call]:
    """All that can be read of events, the pages of one subject among it."""
    pages = truth.pointers(SUBJECTS[0], None, EVENTS_MAX)[::3]
    return [
        *(("pointers", (subject, None, EVENTS_MAX)) for subject in SUBJECTS),
        *(("pointers", (SUBJECTS[0], after, 3)) for after in pages),
        ("events", (0, EVENTS_MAX)),
        ("events_between", (min(TIMES), max(TIMES), None, EVENTS_MAX)),
        ("events_between", (min(TIMES), max(TIMES) + 1, (TIMES[0], "88.118.9/"), 3)),
        *(("outbox", (state, EVENTS_MAX)) for state in (DeliveryState.WAITING, DeliveryState.DEAD)),
        ("deliveries", (0, EVENTS_MAX)),
        ("deliveries", (2**53, EVENTS_MAX)),
    ]


def everything(truth: Truth, *, history: bool) -> list[Call]:
    """All that can be read, old versions where ``history`` is asked for; a sample of what a step made for itself."""
    own = [name for name in truth.writes if name not in NAMES]
    reads: list[Call] = [("heads", ([*NAMES, *own],)), ("chains", ())]
    # Without a choice Cassandra reads 64 partitions.
    reads.append(("grants", ()) if history else ("grants", (sorted({*CHILDREN, *truth.granted}),)))
    for name in NAMES:
        versions = len(truth.writes.get(name, ()))
        reads += [("record", (name, n)) for n in (range(versions + 2) if history else (0, versions, versions + 1))]
    reads += [("record", (name, n)) for name in _sample(own) for n in (0, 1, len(truth.writes[name]) + 1)]
    for zone, keys in zones_of([*((zone, key) for zone in ZONES for key in KEYS), *truth.keys]).items():
        reads.append(("earlier", (zone, list(dict.fromkeys(keys)))))
    reads.append(("claimants", (sorted({*CLAIMS, *truth.owners}),)))
    return [*reads, *(("any_within", (prefix,)) for prefix in PREFIXES), *of_events(truth)]


def _sample(names: Sequence[str]) -> Sequence[str]:
    return names if len(names) <= SAMPLED else names[:: -(-len(names) // SAMPLED)]


def _happened(changes: Sequence[Change]) -> tuple[Told, ...]:
    """Without numbers, and without commits that have changed nothing that is told (a chain of an own zone)."""
    for change in changes:
        subjects = [*change.identifiers, *change.prefixes]
        assert len(dict(subjects)) == len(subjects), "one subject twice in a change"
        assert len(set(change.events)) == len(change.events), "one subject twice in a change"
    told = [Told(frozenset(c.identifiers), frozenset(c.prefixes), frozenset(c.events)) for c in changes]
    return tuple(one for one in told if one != Told())


def _plain(call: str, answer: Any) -> Any:
    """Grants and deliveries come in any order, events under numbers of their engine's."""
    if call in {"outbox", "deliveries"}:
        return sorted(answer, key=lambda one: one.key)
    if call in {"events", "events_between"}:
        return [one if isinstance(one, tuple) else (one.time_ms, one.event) for one in answer]
    return sorted(answer, key=lambda grant: grant.prefix) if call == "grants" else answer

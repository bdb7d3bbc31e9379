"""Any order of changes, announcements, losses and late replies, held against what the registries really said and when.

The model knows the whole history. Two things hold of every proven answer, by when its question was asked:

1. it shows all that had been announced to the resolver by then;
2. it shows all that had been true five seconds before (``short_ms``, and longer than a watch may be silent).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from idtrace.bundle import Verdict
from idtrace.errors import Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Record, RecordBody
from resolver.announced import Announced, Change
from resolver.cache import AnswerCache
from resolver.driver import Answer, Clock, Resolver
from resolver.effects import Ask, Reply
from resolver.following import Following, Watch
from resolver.hearing import Hearing, Message
from resolver.trust import TrustStore
from tests.following_fixtures import tree

SHORT_MS = 5_000
WITHIN_MS = 2_000
ITEMS = [Identifier.parse(f"88.118.8/SN-{number}") for number in (1, 2, 77)]  # the last one is not registered at first
ZONE, PARENT = Prefix.parse("88.118.8"), Prefix.parse("88.118")


@dataclass(eq=False)
class Question:
    identifier: Identifier
    least: int  # the version that has to be shown at least
    epoch: int  # the same for the zone's status: how many times it had changed
    task: asyncio.Task[Answer]


class HeldUpstream:
    """Nodes that answer at once, with replies that are under way until somebody lets them arrive."""

    def __init__(self, machine: Model) -> None:
        self.machine = machine
        self.under_way: list[asyncio.Event] = []

    async def ask(self, ask: Ask) -> Reply:
        before = self.machine.tree.now_ms
        reply = self.machine.tree.ask(ask)
        self.machine.tree.now_ms = before
        arrived = asyncio.Event()
        self.under_way.append(arrived)
        await arrived.wait()
        return reply

    async def close(self) -> None:
        for arrived in self.under_way:
            arrived.set()


class Model(RuleBasedStateMachine):
    @initialize()
    def build(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.tree = tree()
        clock = Clock(wall=lambda: self.tree.now, monotonic=lambda: self.tree.now_ms / 1000)
        # A small memory of announcements, so that it overflows.
        self.following = Following(
            root_endpoints=self.tree.root_endpoints,
            short_ms=SHORT_MS,
            most=8,
            announced=Announced(keep_ms=720_000, most=3),
        )
        cache, trust = AnswerCache(), TrustStore(chain_seconds=300, following=self.following)
        self.hearing = Hearing(following=self.following, cache=cache, trust=trust, clock=clock)
        self.upstream = HeldUpstream(self)
        self.resolver = Resolver(
            anchor=self.tree.anchor,
            root_endpoints=self.tree.root_endpoints,
            upstream=self.upstream,
            clock=clock,
            cache=cache,
            trust=trust,
            following=self.following,
        )
        self.questions: list[Question] = []
        self.sequence = 1
        # What was true from when on: (time in ms, version of the record) and (time in ms, disabled).
        self.versions = {item: [(0, 1 if item is not ITEMS[2] else 0)] for item in ITEMS}
        self.status = [(0, False)]
        # What was announced to the resolver, and what is still to be told on each watch.
        self.said = dict.fromkeys(ITEMS, 0)
        self.said_epoch = 0
        self.untold: dict[Prefix, list[tuple[Change, int]]] = {}
        self.waited_ms = 0
        self.checked = 0

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.run_until_complete(self.end())
            self.loop.close()

    async def end(self) -> None:
        left = [question.task for question in self.questions]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self.resolver.close()

    def turn(self) -> None:
        async def turns() -> None:
            for _ in range(12):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())
        for question in [question for question in self.questions if question.task.done()]:
            self.questions.remove(question)
            self.check(question)

    # What happens in the registries

    @rule(item=st.sampled_from(ITEMS))
    def change(self, item: Identifier) -> None:
        record = self.tree.register(item, {"name": "vial"})
        version = RecordBody.parse(record.signed.payload).version
        self.versions[item].append((self.tree.now_ms, version))
        self.untold.setdefault(ZONE, []).append((Change(item, version), 0))

    @rule()
    def enable_or_disable(self) -> None:
        disabled = not self.status[-1][1]
        self.tree.disable(ZONE, disabled=disabled)
        self.status.append((self.tree.now_ms, disabled))
        self.untold.setdefault(PARENT, []).append((Change(ZONE, 1), len(self.status) - 1))

    # What the resolver is told, or not

    def tell(self, watch: Watch, *, first: bool) -> None:
        untold = self.untold.pop(watch.zone, [])
        self.sequence += 1
        message = Message(self.sequence, tuple(change for change, _ in untold), WITHIN_MS)
        endpoint = watch.endpoints[0]
        self.hearing.check(watch, endpoint, message)
        self.hearing.take(watch, message.changes)
        self.hearing.told(watch, endpoint, message, first=first)
        for change, epoch in untold:
            if isinstance(change.subject, Identifier):
                self.said[change.subject] = max(self.said[change.subject], change.version)
            self.said_epoch = max(self.said_epoch, epoch)

    @rule(pick=st.integers(0, 7))
    def begin_resume_or_hear(self, pick: int) -> None:
        watches = self.following.watches
        if not watches:
            return
        watch = watches[pick % len(watches)]
        if watch.live(self.tree.now_ms):
            self.tell(watch, first=False)
        else:
            if watch.since_ms is None:
                self.untold.pop(watch.zone, None)  # from now on
            self.tell(watch, first=True)

    @rule()
    def hear_all(self) -> None:
        for pick in range(len(self.following)):
            self.begin_resume_or_hear(pick)

    @rule(pick=st.integers(0, 7), gone=st.booleans())
    def lose(self, pick: int, gone: bool) -> None:
        if watches := self.following.watches:
            watch = watches[pick % len(watches)]
            self.hearing.lost(watch)
            if gone:
                self.hearing.gone(watch)

    @rule(again=st.sampled_from(ITEMS), version=st.integers(0, 3))
    def tell_what_is_old(self, again: Identifier, version: int) -> None:
        """Twice, or in the wrong order: it says nothing new."""
        for watch in self.following.watches:
            if watch.zone == ZONE and watch.live(self.tree.now_ms):
                self.hearing.take(watch, (Change(again, version),))

    @rule(ms=st.sampled_from([1, 1, 1, 40, 500, 1_999, 4_000, 4_999, 5_001, 70_000]))
    def pass_time(self, ms: int) -> None:
        # A call takes a second at most: what took longer would have been cut off, by a clock that is not simulated.
        self.waited_ms += ms
        while self.upstream.under_way and self.waited_ms > 1_000:
            self.upstream.under_way.pop().set()
            self.turn()
        if not self.upstream.under_way:
            self.waited_ms = 0
        self.tree.now_ms += ms
        self.tree.now += ms // 1000

    # What is asked

    @rule(item=st.sampled_from(ITEMS), fresh=st.sampled_from([False, False, False, True]))
    def ask(self, item: Identifier, fresh: bool) -> None:
        bound = self.tree.now_ms if fresh else self.tree.now_ms - SHORT_MS
        least = max(version for at_ms, version in self.versions[item] if at_ms <= max(bound, 0))
        # A fresh question may start from a cached chain.
        known_ms = self.tree.now_ms - SHORT_MS
        epoch = max(n for n, (at_ms, _) in enumerate(self.status) if at_ms <= max(known_ms, 0))
        task = self.loop.create_task(self.resolver.resolve(item, fresh=fresh))
        self.questions.append(Question(item, max(least, self.said[item]), max(epoch, self.said_epoch), task))
        self.turn()

    @precondition(lambda self: hasattr(self, "upstream") and self.upstream.under_way)
    @rule(pick=st.integers(0, 7), count=st.integers(1, 6))
    def arrive(self, pick: int, count: int) -> None:
        for _ in range(count):
            if self.upstream.under_way:
                self.upstream.under_way.pop(pick % len(self.upstream.under_way)).set()
                self.turn()

    def check(self, question: Question) -> None:
        answer = question.task.result()
        resolution = answer.resolution
        if resolution.bundle is None:
            late = (Reason.DENIAL_EXPIRED, Reason.BUDGET_TIME)  # what was under way for a minute
            assert resolution.reason in late or resolution.verdict is Verdict.UNREACHABLE
            return
        self.checked += 1
        disabled = resolution.reason is Reason.PREFIX_DISABLED
        shown = [state for _, state in self.status[question.epoch :]]
        assert disabled in shown, f"{resolution.detail}, and it was announced not to be so any more"
        if disabled:
            return
        outcome = resolution.bundle.outcome
        version = RecordBody.parse(outcome.signed.payload).version if isinstance(outcome, Record) else 0
        assert version >= question.least, f"version {version}, and {question.least} was due"

    @invariant()
    def limits_hold(self) -> None:
        if hasattr(self, "following"):
            assert len(self.following.announced) <= 3
            assert len(self.following) <= 8


TestModel = Model.TestCase
TestModel.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)

"""The program that every store runs: any order of changes, reads, restarts, races, departures and failures.

All engines of a stage run each step side by side. Every answer is held against the engine's own truth, and where the
truths say the same (all but the winners of a race) so do the answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from registry.storage import DeliveryState
from tests.contract import wishes
from tests.contract.places import Place
from tests.contract.sides import EVENTS_MAX, RECOVERIES, Count, Failure, Side, everything, of_events, touched
from tests.contract.truth import Truth
from tests.contract.wishes import BULK_SIZES, RACES, WISH_MAX, Call

# Long enough for an identifier to outgrow a bucket of versions, short enough for 200 different stories in 10,000 steps.
STEPS_AN_EXAMPLE = 50
# Everything is read after so many steps, and at the end; what a step has touched is read at once.
STEPS_UNTIL_LOOK = 25

WISH = st.integers(0, WISH_MAX)
# Every fifth change goes through the other handle, which then knows less than it thinks.
HANDLE = st.sampled_from((0, 0, 0, 0, 1))
# Large batches now and then.
SIZE = st.sampled_from((*[0] * 16, *BULK_SIZES))
KEPT_STATES = (DeliveryState.WAITING, DeliveryState.DEAD)
CHANGES = ("commit", "commit", "commit", "put_grant", "put_chain", "put_pointers")


@dataclass
class Stage:
    """Engines to run on, the loop that their connections belong to, and what went wrong in the order of time."""

    runner: asyncio.Runner
    engines: list[tuple[Count, Callable[[], Place]]]
    failures: list[Exception] = field(default_factory=list)


class StorageProgram(RuleBasedStateMachine):
    stage: ClassVar[Stage]

    def __init__(self) -> None:
        super().__init__()
        self.sides = [Side(make(), count) for count, make in self.stage.engines]
        self.steps = self.races = 0
        self.sound = True
        self.run(self.begin())

    async def begin(self) -> None:
        for side in self.sides:
            side.handles = [await side.place.open(), await side.place.open()]
            side.count.examples += 1

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """What raises ends the example: what follows would be judged by a truth that has gone."""
        self.sound = False
        try:
            self.stage.runner.run(work)
        except Exception as error:
            error.add_note(f"at step {self.steps} of its example")
            self.stage.failures.append(error)
            raise
        self.sound = True

    def step(self, work: Coroutine[Any, Any, None]) -> None:
        self.steps += 1
        for side in self.sides:
            side.count.steps += 1
        self.run(work)
        self.run(self.each(lambda side: side.listen(self.steps % 2)))
        if self.steps % STEPS_UNTIL_LOOK == 0:
            self.run(self.look(self.steps // STEPS_UNTIL_LOOK % 2, history=False))

    @property
    def truth(self) -> Truth:
        """What all sides have in common, but for what races have made."""
        return self.sides[0].truth

    def teardown(self) -> None:
        sound = self.sound
        try:
            if sound:
                for handle in (0, 1):
                    self.run(self.look(handle, history=handle == 0))
        finally:
            self.run(self.end(sound=sound))

    async def end(self, *, sound: bool) -> None:
        for side in self.sides:
            try:
                await side.place.end()
            except Exception:
                if sound:  # else the first failure is the one to hear of
                    raise

    async def each(self, work: Callable[[Side], Coroutine[Any, Any, None]]) -> None:
        """On all sides at once."""
        await asyncio.gather(*(work(side) for side in self.sides))

    async def look(self, handle: int, *, history: bool) -> None:
        await self.each(lambda side: side.ask_all(handle, everything(side.truth, history=history)))
        if history:
            await self.each(lambda side: side.hear_again(handle))

    async def change(self, handle: int, call: Call, nuisance: int = 0) -> None:
        """One change everywhere, told the same; then what it has touched, by both handles."""
        name, arguments = call
        told: list[Any] = []

        async def work(side: Side) -> None:
            if nuisance:
                side.place.annoy_next(side.handles[handle], nuisance - 1)
            told.append(await side.ask(handle, name, *arguments))
            await side.ask_all(self.steps % 2, touched(side.truth, call))

        await self.each(work)
        for side, answer in zip(self.sides[1:], told[1:], strict=True):
            side.require(answer == told[0], f"{name} was told {answer!r}, elsewhere {told[0]!r}")

    def call_of(self, name: str, numbers: list[int]) -> Call:
        first = numbers[0] if numbers else 0
        if name == "put_grant":
            return name, wishes.grant(self.truth, first)
        if name == "put_chain":
            return name, wishes.chain(first)
        if name == "put_pointers":
            return name, (wishes.pointers(first),)
        return "commit", (wishes.batch(self.truth, numbers),)

    @rule(handle=HANDLE, numbers=st.lists(WISH, max_size=4), nuisance=st.sampled_from((0, 0, 0, 0, 0, 1, 2, 3)))
    def commit(self, handle: int, numbers: list[int], nuisance: int) -> None:
        self.step(self.change(handle, self.call_of("commit", numbers), nuisance))

    @rule(handle=HANDLE, number=WISH)
    def commit_one(self, handle: int, number: int) -> None:
        self.step(self.change(handle, self.call_of("commit", [number])))

    @rule(handle=HANDLE, number=WISH)
    def put_grant(self, handle: int, number: int) -> None:
        self.step(self.change(handle, self.call_of("put_grant", [number])))

    @rule(handle=HANDLE, number=WISH)
    def put_pointers(self, handle: int, number: int) -> None:
        self.step(self.change(handle, self.call_of("put_pointers", [number])))

    @rule(handle=HANDLE, number=WISH)
    def settle(self, handle: int, number: int) -> None:
        """What waits has been tried; done twice, for who dies in between does not know of the first time."""

        async def work(side: Side) -> None:
            kept = [await side.handles[handle].outbox(state, EVENTS_MAX) for state in KEPT_STATES]
            settled = wishes.tried([one for some in kept for one in some], number)  # each knows its own place
            for _ in range(2):
                await side.ask(handle, "settle", settled)
            await side.ask_all(1 - handle, of_events(side.truth))

        self.step(self.each(work))

    @rule(handle=HANDLE, number=st.integers(0, 1), size=SIZE)
    def put_chain_or_bulk(self, handle: int, number: int, size: int) -> None:
        call: Call = ("commit", (wishes.bulk(self.truth, size),)) if size else self.call_of("put_chain", [number])
        self.step(self.change(handle, call))

    @rule(handle=HANDLE, how=st.sampled_from(("reopen", "restart", "close and reopen")))
    def come_back(self, handle: int, how: str) -> None:
        async def work(side: Side) -> None:
            if how == "restart":
                await side.restart(handle)
                return
            if how == "close and reopen":
                await side.handles[handle].close()
            await side.handles[handle].reopen()

        self.step(self.each(work))

    @rule(kind=st.integers(0, RACES - 1), handles=st.sampled_from(((0, 1), (1, 0))), number=WISH)
    def race(self, kind: int, handles: tuple[int, int], number: int) -> None:
        self.races += 1
        calls = wishes.race(self.truth, kind, self.races, number)
        one_handle = kind == wishes.ABOUT_A_PREFIX and number % 2  # a sequencer commits while its node puts a grant

        async def work(side: Side) -> None:
            await side.race((0, 0) if one_handle else handles, calls)
            for call in calls:
                await side.ask_all(number % 2, touched(side.truth, call))

        self.step(self.each(work))

    @rule(handle=HANDLE, numbers=st.lists(WISH, min_size=1, max_size=3), turns=st.integers(0, 3))
    def leave(self, handle: int, numbers: list[int], turns: int) -> None:
        """A caller goes away: what has begun happens whole, what has not never does."""
        call = self.call_of("commit", numbers)

        async def work(side: Side) -> None:
            store = side.handles[handle]
            going = asyncio.create_task(store.commit(*call[1]))
            for _ in range(turns):
                await asyncio.sleep(0)
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)
            await side.place.quiet(store)
            await store.reopen()
            if turns:
                side.truth.commit(*call[1])
            await side.ask_all(1 - handle, touched(side.truth, call))

        self.step(self.each(work))

    @rule(
        change=st.sampled_from(CHANGES),
        handle=HANDLE,
        numbers=st.lists(WISH, min_size=1, max_size=3),
        failure=st.builds(Failure, st.integers(0, 9), st.booleans(), st.sampled_from(RECOVERIES)),
    )
    def fail(self, change: str, handle: int, numbers: list[int], failure: Failure) -> None:
        call = self.call_of(change, numbers)

        async def work(side: Side) -> None:
            await side.fail(handle, call, failure)
            for each in (0, 1):
                await side.ask_all(each, touched(side.truth, call))

        self.step(self.each(work))


def run_program(stage: Stage, steps: int, first_seed: int, *, shrink: bool = True) -> None:
    """Run at least so many steps on each engine of a stage.

    Raises:
        DifferenceError: from the smallest example that was found for it; from the first one if it does not come again.
    """
    number = first_seed
    while (left := steps - stage.engines[0][0].steps) > 0:
        program = type("StorageProgram", (StorageProgram,), {"stage": stage})
        try:
            run_state_machine_as_test(
                seed(number)(program),
                settings=settings(
                    max_examples=-(-left // STEPS_AN_EXAMPLE),
                    stateful_step_count=STEPS_AN_EXAMPLE,
                    phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
                    database=None,
                    deadline=None,
                    report_multiple_bugs=False,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        except Flaky as flaky:  # two at once do not come the same way twice
            raise (stage.failures or [flaky])[0] from flaky
        number += 1

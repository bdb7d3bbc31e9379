"""Every store runs the program of tests/contract, side by side; and the store in memory as an instrument of tests.

A run tells the seed that repeats it: ``IDTRACE_CONTRACT_SEED=…``. On a CI machine it is always the same one.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from idtrace import wire
from idtrace.record import Record
from registry.cassandra_bridge import Bridge
from registry.storage import Outcome, Write
from tests.contract import places
from tests.contract.places import Engine
from tests.contract.program import Stage, run_program
from tests.contract.sides import Count
from tests.contract.wishes import CLAIMS
from tests.memory_storage import EngineError, MemoryStorage, once
from tests.registry_fixtures import head_of, typed_record, write_of

LOCAL = ("memory", "sqlite")
ALL = (*LOCAL, "cassandra")


def seed_of_run() -> int:
    usual = 1 if os.environ.get("CI") else random.randrange(2**32)
    return int(os.environ.get("IDTRACE_CONTRACT_SEED", usual))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engines", "steps"),
    [
        pytest.param(LOCAL, 10_000, id="local", marks=pytest.mark.timeout(600)),
        pytest.param(ALL, 300, id="all", marks=pytest.mark.timeout(900)),
        pytest.param(ALL, 10_000, id="all-whole", marks=[pytest.mark.faults, pytest.mark.timeout(3_600)]),
    ],
)
def test_every_store_answers_the_truth_whatever_happens(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
    engines: tuple[str, ...],
    steps: int,
) -> None:
    """At least so many steps on each, with failures before and after each change is durable."""
    opening: dict[str, Callable[[], Any]] = {
        "memory": places.memory,
        "sqlite": lambda: places.sqlite(tmp_path),
        "cassandra": lambda: places.cassandra(tmp_path, monkeypatch),
    }
    seed = seed_of_run()

    async def enter(opened: AsyncExitStack) -> list[Engine]:
        return [await opened.enter_async_context(opening[name]()) for name in engines]

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        opened = AsyncExitStack()
        counted = [(Count(engine.name), engine.place) for engine in runner.run(enter(opened))]
        try:
            run_program(Stage(runner, counted), steps, 2595514321, shrink=False)
        finally:
            for count, _ in counted:
                record_property("contract", f"{count}, seed {seed}")
            runner.run(opened.aclose())
    for count, _ in counted:
        assert count.steps >= steps
        assert min(count.failures - count.persisted, count.persisted) >= steps // 100  # failures of both sorts
        assert count.differences == 0


async def test_a_question_that_is_cancelled_as_its_answer_comes_ends_and_does_not_go_on() -> None:
    """A store that closes cancels what it does beside, and waits for it."""

    class Answering:
        def execute_async(self, *_: object, **__: object) -> Any:
            return SimpleNamespace(has_more_pages=False, add_callbacks=lambda told, _: told([]))

    settings: Any = SimpleNamespace(request_timeout_seconds=2.0)
    bridge = Bridge(None, Answering(), settings)
    hand_out = bridge._hand_out

    def both() -> None:
        hand_out()
        asking.cancel()

    bridge._hand_out = both  # type: ignore[method-assign]  # the two in one turn of the loop
    asking = asyncio.create_task(bridge.run("SELECT"))
    await asyncio.wait([asking])
    assert asking.cancelled()


# The store in memory as an instrument of tests

FIRST = typed_record("88.118.8/A", {"lot": "L1"})
FORK = typed_record("88.118.8/A", {"lot": "L2"}, previous=FIRST)
OTHER = typed_record("88.118.8/B")


@pytest.mark.parametrize("fail", ["fail_and_persist", "fail_and_not_persist"])
async def test_a_commit_that_raised_has_happened_or_not_and_never_in_part(fail: str) -> None:
    memory = MemoryStorage()
    setattr(memory, fail, once())
    write = write_of(FIRST, "key-1", claims=CLAIMS[:1])
    with pytest.raises(EngineError):
        await memory.commit([write])
    with pytest.raises(AssertionError, match="without reopen"):
        await memory.commit([write])
    await memory.reopen()
    happened = fail == "fail_and_persist"
    there = (
        await memory.record("88.118.8/A"),
        await memory.earlier("88.118.8", ["key-1"]),
        await memory.claimants(CLAIMS[:1]),
    )
    assert [bool(part) for part in there] == [happened] * 3
    assert await memory.commit([write]) == [Outcome.KEY_USED if happened else Outcome.COMMITTED]


def broken(write: Write, **changes: Any) -> Write:
    return replace(write, **changes)


@pytest.mark.parametrize(
    ("rule", "write"),
    [
        ("another identifier", broken(write_of(FIRST), identifier="88.118.8/X")),
        ("not the record's", broken(write_of(FIRST), head=head_of(FORK), expected=1)),
        ("does not follow", broken(write_of(FIRST), expected=1)),
        ("about another", broken(write_of(FIRST), receipt=write_of(OTHER).receipt)),
        ("about another", broken(write_of(FIRST), zone="88.118")),
        ("all of its values", broken(write_of(FIRST), record=wire.record_to_bytes(Record(FIRST.signed, ())))),
        ("hash that is none", broken(write_of(FIRST), request_hash=b"short")),
    ],
)
async def test_the_store_in_memory_polices_its_caller(rule: str, write: Write) -> None:
    memory = MemoryStorage()
    with pytest.raises(AssertionError, match=rule):
        await memory.commit([write])
    assert len(memory.broken) == 1

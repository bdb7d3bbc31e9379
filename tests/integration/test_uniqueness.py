"""One owner each, whoever wants it, whatever breaks: every history of an identifier has an order that explains it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import pytest
import structlog

from registry.logbook import Stamp
from registry.storage import Outcome, Write
from registry.storage_cassandra import CassandraStorage
from tests.contention import Account, complaints, contend, writing
from tests.core_fixtures import ZONE
from tests.engines.cassandra import CassandraCluster
from tests.integration.test_storage_cassandra import Between
from tests.integration.test_storage_cassandra_faults import open_three
from tests.linearizability import Action, Operation, Told, by_key, violations
from tests.memory_storage import MemoryStorage
from tests.registry_fixtures import proposal, typed_record, until
from tests.storages import STORAGES

pytestmark = pytest.mark.slow

# Operations after which a planted bug has shown itself hundreds of times; a second's work.
SHORT_OPERATIONS = 800


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A sequencer tells of each commit that fails, at length."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


def judged(account: Account) -> str:
    """Every history has an order, or the test fails with the first that has none; what was looked at, in words."""
    began = time.monotonic()
    found = violations(account.history)
    assert not found, "\n".join(map(str, found[:3]))
    return f"{len(by_key(account.history))} histories judged in {time.monotonic() - began:.1f} s"


def told(account: Account) -> str:
    counts = account.counts()
    reads = counts[Action.READ, Told.OK]
    refused = sum(count for (_, what), count in counts.items() if what is Told.CONFLICT)
    return (
        f"{len(account.history)} operations, {account.acknowledged} acknowledged, {refused} conflicts, {reads} reads, "
        f"{account.unknown} unknown answers of which {account.resolved} writes were resolved, "
        f"longest stall {account.longest_stall_seconds():.1f} s"
    )


async def for_a_moment(account: Account) -> None:
    await until(lambda: len(account.history) >= SHORT_OPERATIONS, 60)


# --- Several sequencers on one store, and stores with a bug


class Several(MemoryStorage):
    """The store in memory, given to several sequencers: it takes their commits one by one, as an engine's locks do."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = asyncio.Lock()

    async def commit(self, writes: Sequence[Write], stamp: Stamp | None = None) -> list[Outcome]:
        async with self._turn:
            return await super().commit(writes, stamp)


class PlainWrites(Several):
    """Planted: what is there is not compared with what was expected."""

    def _apply(self, write: Write) -> Outcome:
        self._versions[write.identifier] = [*self._versions.get(write.identifier, [])[: write.expected], write.record]
        self._heads[write.identifier] = write.head
        return Outcome.COMMITTED


class AcknowledgesFirst(Several):
    """Planted: the caller hears of a commit that is still to come."""

    def __init__(self) -> None:
        super().__init__()
        self.later: set[asyncio.Task[list[Outcome]]] = set()

    async def commit(self, writes: Sequence[Write], stamp: Stamp | None = None) -> list[Outcome]:
        self.later.add(asyncio.create_task(self._later(writes, stamp)))
        return [Outcome.COMMITTED] * len(writes)

    async def _later(self, writes: Sequence[Write], stamp: Stamp | None) -> list[Outcome]:
        await asyncio.sleep(0.01)
        return await super().commit(writes, stamp)


class FalseConflicts(Several):
    """Planted: the answer to some swaps is lost, and the head that they have moved is taken for somebody else's."""

    async def commit(self, writes: Sequence[Write], stamp: Stamp | None = None) -> list[Outcome]:
        outcomes = await super().commit(writes, stamp)
        if len(self.batches) % 10:
            return outcomes
        return [Outcome.CONFLICT if outcome is Outcome.COMMITTED else outcome for outcome in outcomes]


async def test_the_order_of_a_sound_store_is_found_though_commits_fail_before_and_after_they_are_durable() -> None:
    """What follows about planted bugs is said by the same harness, which has nothing to say here."""
    storage = Several()

    def now_and_then(change: object) -> bool:
        del change
        return len(storage.batches) % 25 == 24

    def then_and_now(change: object) -> bool:
        return not now_and_then(change) and random.random() < 0.05

    storage.fail_and_persist, storage.fail_and_not_persist = now_and_then, then_and_now
    async with writing(storage, storage) as writers:
        account = await contend(writers, clients=16, identifiers=40, during=for_a_moment)
    judged(account)
    assert await complaints(storage, account) == []
    assert account.acknowledged > 50
    assert account.resolved > 0


@pytest.mark.parametrize("bug", [PlainWrites, AcknowledgesFirst, FalseConflicts])
async def test_a_planted_bug_is_found_by_the_history_alone(bug: type[Several]) -> None:
    storage = bug()
    async with writing(storage, storage) as writers:
        account = await contend(writers, clients=16, identifiers=40, during=for_a_moment)
    if isinstance(storage, AcknowledgesFirst):
        await asyncio.gather(*storage.later, return_exceptions=True)
    assert account.acknowledged > 50
    assert violations(account.history)
    assert await complaints(storage, account)


# --- Real stores


@pytest.mark.parametrize("engine", ["sqlite", "cassandra"])
async def test_two_handles_on_one_real_store_answer_in_an_order(tmp_path: Path, engine: str) -> None:
    async with AsyncExitStack() as opened:
        handles = [await opened.enter_async_context(STORAGES[engine](tmp_path)) for _ in range(2)]
        async with writing(*handles) as writers:
            account = await contend(writers, clients=16, identifiers=40, during=for_a_moment)
        judged(account)
        assert await complaints(handles[0], account) == []
    assert account.acknowledged > 50


@pytest.mark.parametrize("asks", ["reads", "asks again"])
@pytest.mark.parametrize("lives", [1, 4, 7])
async def test_what_was_shown_of_half_a_batch_the_next_decision_knows(tmp_path: Path, asks: str, lives: int) -> None:
    """A writer dies among the rows of its batch; another answers a reader, or the same key, and then an update."""
    async with AsyncExitStack() as opened:
        dead, other = [await opened.enter_async_context(STORAGES["cassandra"](tmp_path)) for _ in range(2)]
        assert isinstance(dead, CassandraStorage)
        Between(dead).lives = lives
        record = typed_record(f"{ZONE}/HOT-00000", {"by": "dead"})
        async with writing(dead, other) as (died, alive):
            called = time.monotonic_ns()
            (first,) = await died.sequencer.submit([proposal(record, key="dead-0001")])
            again = [first]
            if asks == "asks again":
                again = await alive.sequencer.submit([proposal(record, key="dead-0001")])
            account = await contend([alive], clients=1, identifiers=1, during=for_a_moment_less)
        answer = Told.OK if isinstance(again[0], bytes) else Told.UNKNOWN
        ended = min(operation.called_ns for operation in account.history)
        account.history.append(
            Operation(
                f"{ZONE}/HOT-00000", Action.REGISTER, answer, called, ended, record.hash.hex()[:20], client="dead"
            )
        )
        judged(account)


async def for_a_moment_less(account: Account) -> None:
    await until(lambda: len(account.history) >= 6, 60)


CLIENTS = 64
HOT = 2_000
# Identifiers that a client asks for at a time: 128 are in flight, half of them among the 200 that are hottest.
WIDTH = 2
WRITERS = 2
# As long as a system that pauses a machine to move it; the driver, the ring and the settling all notice in less.
PAUSE_SECONDS = 15.0
# Between two faults, so that each finds the system at work.
CALM_SECONDS = 6.0
# A lost answer is asked after for 15 s at most (cassandra_settings.SETTLE_SECONDS); twice, were two lost in a row.
STALL_SECONDS_MAX = 30.0
FAULTS = ("kill", "pause", "restart")
# Each fault once, whatever the machine; then more of them until so much time has gone.
HARM_SECONDS = 120.0


async def harm(cluster: CassandraCluster, account: Account, happened: list[str]) -> None:
    """One node at a time: killed, stopped where it stands, and restarted."""

    async def calm() -> None:
        """Wait until the clients are at work again."""
        before = account.acknowledged
        await asyncio.sleep(CALM_SECONDS)
        await until(lambda: account.acknowledged > before, STALL_SECONDS_MAX)

    await calm()
    first = time.monotonic()
    for number in count():
        if number >= len(FAULTS) and time.monotonic() - first > HARM_SECONDS:
            break
        # Another node each time, and another fault for it when it comes round again.
        fault, node = FAULTS[number % 3], (number + number // 3) % 3
        began, before = time.monotonic(), account.acknowledged
        await asyncio.to_thread(getattr(cluster, fault), node)
        if fault != "restart":
            await asyncio.sleep(PAUSE_SECONDS)
        acked, lasted = account.acknowledged - before, time.monotonic() - began
        happened.append(f"{fault} {node}: {acked} acknowledged in {lasted:.0f} s")
        await asyncio.to_thread(cluster.mend)
        await calm()


@pytest.mark.timeout(600)  # four minutes on a machine of its own
async def test_one_owner_each_though_one_node_after_another_is_killed_stopped_and_restarted(
    cassandra3: CassandraCluster, record_property: Callable[[str, object], None]
) -> None:
    """64 clients on 2,000 identifiers, through two writers of one ledger."""
    ledger = f"unique-{time.time_ns()}"
    happened: list[str] = []
    handles: list[CassandraStorage] = []
    try:
        handles.extend([await open_three(cassandra3, ledger) for _ in range(WRITERS)])
        began = time.monotonic()
        async with writing(*handles) as writers:
            account = await contend(
                writers,
                clients=CLIENTS,
                identifiers=HOT,
                width=WIDTH,
                during=lambda account: harm(cassandra3, account, happened),
            )
        record_property("contention", f"{told(account)}, {time.monotonic() - began:.0f} s")
        record_property("faults", " · ".join(happened))
        record_property("judged", judged(account))
        began = time.monotonic()
        found = await complaints(handles[0], account)
        assert found == [], found[:5]
        record_property("compared with what is stored", f"{time.monotonic() - began:.1f} s")
    finally:
        for handle in handles:
            await handle.close()
    assert len(by_key(account.history)) == HOT
    assert account.resolved > 0
    assert account.longest_stall_seconds() < STALL_SECONDS_MAX

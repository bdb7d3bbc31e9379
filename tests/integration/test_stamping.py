"""Time in a log goes forward, commit after commit; a node whose clock does not says so and commits nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from idtrace import wire
from idtrace.audit import Replay
from idtrace.chain import Link
from idtrace.delegation import Delegation, Role
from idtrace.entry import Entry, EntryKind
from idtrace.errors import BusyError, IdtraceError, OutcomeUnknownError, Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.signature import Kind, Signed, sign
from idtrace.statements import Command, PrefixStatus, enrol
from registry.delegating import Step
from registry.grants import Grants
from registry.logbook import Edge, LogWriter
from registry.sequencer import Result, Sequencer
from registry.stamping import STANDS_STILL_SECONDS, Stamper
from registry.standing import Standing
from registry.storage import Write
from tests.core_fixtures import NOW, ZONE, delegate, delegation, public, signer, zone_keys
from tests.logged_fixtures import CURRENT, LOG, log_signer
from tests.memory_storage import MemoryStorage, once
from tests.registry_fixtures import authority_for, proposal, typed_record

PARENT = "88.118"


class Clocks:
    """Both clocks, set by hand."""

    def __init__(self) -> None:
        self.wall = NOW
        self.monotonic = 100.0

    def now(self) -> int:
        return self.wall

    def tick(self) -> float:
        return self.monotonic

    def pass_seconds(self, seconds: float, wall: int | None = None) -> None:
        self.monotonic += seconds
        self.wall += int(seconds) if wall is None else wall


def stamper_of(clocks: Clocks) -> Stamper:
    return Stamper(LogWriter(log_signer()), clocks.now, clocks.tick)


@asynccontextmanager
async def running(memory: MemoryStorage, clocks: Clocks, stamper: Stamper | None = None) -> AsyncIterator[Sequencer]:
    node = signer(f"node of {ZONE}")
    sequencer = Sequencer(memory, node, clocks.now, stamper=stamper or stamper_of(clocks))
    task = asyncio.create_task(sequencer.run())
    try:
        yield sequencer
    finally:
        sequencer.close()
        await asyncio.wait_for(task, 10)
        assert memory.broken == []


def reason_of(result: Result) -> Reason | None:
    return result.reason if isinstance(result, IdtraceError) else None


async def register(sequencer: Sequencer, *numbers: int, zone: str = ZONE) -> list[Reason | None]:
    records = [typed_record(f"{zone}/N-{n}", issued_at=NOW - 1_000) for n in numbers]
    wanted = [proposal(record, key=f"key-{n:06}", zone=zone) for n, record in zip(numbers, records, strict=True)]
    return [reason_of(result) for result in await sequencer.submit(wanted)]


def kinds(memory: MemoryStorage) -> list[EntryKind]:
    return [Entry.from_bytes(entry).kind for entry in memory._log.entries]


def test_a_clock_that_stands_still_or_goes_back_stamps_nothing() -> None:
    clocks = Clocks()
    stamper = stamper_of(clocks)
    assert stamper.stamp().now == NOW
    clocks.pass_seconds(STANDS_STILL_SECONDS, wall=0)
    assert stamper.stamp().now == NOW
    clocks.pass_seconds(0.1, wall=0)
    with pytest.raises(BusyError, match="stood still for 5 s"):
        stamper.stamp()
    clocks.pass_seconds(0, wall=1)
    assert stamper.stamp().now == NOW + 1
    clocks.pass_seconds(3, wall=-1)
    with pytest.raises(BusyError, match="gone back by 1 s"):
        stamper.stamp()
    clocks.pass_seconds(3, wall=2)
    assert stamper.stamp().now == NOW + 2


async def test_what_is_committed_is_logged_in_its_order_at_the_time_of_its_receipt() -> None:
    memory, clocks = MemoryStorage(), Clocks()
    async with running(memory, clocks) as sequencer:
        assert await register(sequencer, 1, 2) == [None, None]
        clocks.pass_seconds(7)
        assert await register(sequencer, 3, 1) == [None, None]
    entries = [Entry.from_bytes(entry) for entry in memory._log.entries]
    assert [entry.committed_at for entry in entries] == [NOW, NOW, NOW + 7]
    stored = [await memory.stored(f"{ZONE}/N-{n}") for n in (1, 2, 3)]
    assert [one.index for one in stored if one] == [0, 1, 2]


@pytest.mark.parametrize("seconds", [-1, -3_600])
async def test_a_node_whose_clock_has_gone_back_commits_nothing_until_it_has_caught_up(seconds: int) -> None:
    memory, clocks = MemoryStorage(), Clocks()
    async with running(memory, clocks) as sequencer:
        assert await register(sequencer, 1) == [None]
        clocks.pass_seconds(1, wall=seconds)
        assert await register(sequencer, 2) == [Reason.CLOCK_BACK]
        assert memory._log.edge.head.size == 1
        assert await memory.stored(f"{ZONE}/N-2") is None
        clocks.pass_seconds(1, wall=-seconds)
        assert await register(sequencer, 2) == [None]


async def test_a_node_that_starts_with_a_clock_behind_its_log_commits_nothing() -> None:
    memory, clocks = MemoryStorage(), Clocks()
    async with running(memory, clocks) as sequencer:
        await register(sequencer, 1)
    late = Clocks()
    late.wall = NOW - 10
    async with running(memory, late) as sequencer:
        assert await register(sequencer, 2) == [Reason.CLOCK_BACK]
        late.pass_seconds(10)
        assert await register(sequencer, 2) == [None]


async def test_a_commit_whose_outcome_is_unknown_is_told_by_a_repetition_and_logged_once() -> None:
    for persists in (False, True):
        memory, clocks = MemoryStorage(), Clocks()
        hook = once(lambda attempt: isinstance(attempt, Sequence) and isinstance(attempt[0], Write))
        if persists:
            memory.fail_and_persist = hook
        else:
            memory.fail_and_not_persist = hook
        async with running(memory, clocks) as sequencer:
            assert await register(sequencer, 1) == [Reason.OUTCOME_UNKNOWN]
            clocks.pass_seconds(1)
            assert await register(sequencer, 1) == [None]
            assert await register(sequencer, 2) == [None]
        assert kinds(memory) == [EntryKind.RECORD] * 2


# Grants


def child_papers(version: int = 1, previous: bytes = b"") -> tuple[Delegation, list[Signed]]:
    body = delegation(ZONE, version=version, previous=previous)
    proofs = [enrol(signer(f"{key} of {ZONE}"), Prefix.parse(ZONE), key) for key in (Role.ZONE, Role.RECORD, Role.NODE)]
    return body, proofs


def grants_on(memory: MemoryStorage, clocks: Clocks, stamper: Stamper) -> Grants:
    return Grants(memory, authority_for(PARENT), public(f"node of {PARENT}").key_id, clocks.now, stamper=stamper)


async def hand_out(grants: Grants, version: int = 1, previous: bytes = b"") -> bytes:
    body, proofs = child_papers(version, previous)
    step = Step.DELEGATE if version == 1 else Step.ROTATE
    return await grants.delegate(step, f"delegate-{version}", delegate(body), proofs)


async def test_delegations_and_commands_are_logged_and_reviews_that_nobody_signs_are_not() -> None:
    memory, clocks = MemoryStorage(), Clocks()
    grants = grants_on(memory, clocks, stamper_of(clocks))
    first = await hand_out(grants)
    await hand_out(grants, 2, first)
    assert await hand_out(grants, 2, first) is not None  # a repetition
    command = Command(Prefix.parse(ZONE), PrefixStatus.DISABLED, "", NOW)
    signed = sign(Kind.COMMAND, command.payload(), signer(f"zone of {PARENT}"))
    await grants.move("disable-1", signed)
    assert kinds(memory) == [EntryKind.DELEGATION, EntryKind.DELEGATION, EntryKind.COMMAND]
    zone_key = public(f"zone of {PARENT}")
    replay = Replay(outside={Prefix.parse(PARENT): {zone_key.key_id: zone_key}})
    replay.feed(memory._log.entries)
    assert replay.findings == []


async def test_a_delegation_that_comes_while_the_clock_is_back_is_refused_and_can_be_repeated() -> None:
    memory, clocks = MemoryStorage(), Clocks()
    grants = grants_on(memory, clocks, stamper_of(clocks))
    clocks.pass_seconds(1, wall=-2)
    with pytest.raises(BusyError) as caught:
        await hand_out(grants)
    assert caught.value.reason is Reason.CLOCK_BACK
    assert await memory.grants() == []
    clocks.pass_seconds(1, wall=2)
    await hand_out(grants)
    assert kinds(memory) == [EntryKind.DELEGATION]


@pytest.mark.parametrize("persists", [False, True])
async def test_a_delegation_whose_outcome_is_unknown_is_logged_once(persists: bool) -> None:
    memory, clocks = MemoryStorage(), Clocks()
    if persists:
        memory.fail_and_persist = once()
    else:
        memory.fail_and_not_persist = once()
    grants = grants_on(memory, clocks, stamper_of(clocks))
    with pytest.raises(OutcomeUnknownError):
        await hand_out(grants)
    await hand_out(grants)
    assert kinds(memory) == [EntryKind.DELEGATION]


async def test_a_slow_batch_and_a_delegation_beside_it_keep_the_order_of_time() -> None:
    memory, clocks = MemoryStorage(), Clocks()
    stamper = stamper_of(clocks)
    grants = grants_on(memory, clocks, stamper)

    def slowly(writes: Sequence[Write]) -> None:
        clocks.pass_seconds(2)  # a second goes by between the stamp and the commit

    memory.before_commit = slowly
    async with running(memory, clocks, stamper) as sequencer:
        first, second = (register(sequencer, n, zone="88.118.9") for n in (1, 2))
        told = await asyncio.gather(first, hand_out(grants), second)
    assert [told[0], told[2]] == [[None], [None]]
    times = [Entry.from_bytes(entry).committed_at for entry in memory._log.entries]
    assert times == sorted(times)
    assert len(times) == 3


# What is said beside an answer


async def standing_on(memory: MemoryStorage, clocks: Clocks) -> Standing:
    authority = authority_for(ZONE)
    named = delegate(delegation(ZONE, version=2, previous=delegation(ZONE).hash, keys=zone_keys(ZONE, Role), log=LOG))
    authority.adopt(Prefix.parse(ZONE), (*authority.own[Prefix.parse(ZONE)][:-1], Link.read(named)))
    return Standing(
        memory,
        authority,
        log_signer().key,
        node=signer(f"node of {ZONE}"),
        currency=signer(CURRENT),
        clock=clocks.now,
        monotonic=clocks.tick,
    )


async def test_a_statement_is_signed_anew_after_half_its_life_and_for_each_version() -> None:
    memory, clocks = MemoryStorage(), Clocks()
    async with running(memory, clocks) as sequencer:
        await register(sequencer, 1)
        standing = await standing_on(memory, clocks)
        name, zone = Identifier.parse(f"{ZONE}/N-1"), Prefix.parse(ZONE)

        async def said() -> bytes:
            stored, head = await standing.latest(name)
            assert stored is not None
            signed = standing.currency(name, zone, stored, head)
            assert signed is not None
            return wire.signed_to_bytes(signed)

        first = await said()
        clocks.pass_seconds(29)
        assert await said() == first
        clocks.pass_seconds(1)
        second = await said()
        assert second != first
        clocks.pass_seconds(0, wall=-40)
        assert await said() != second  # nothing is kept from a time that is still to come


async def test_a_version_that_is_younger_than_the_head_makes_the_head_be_read_again() -> None:
    memory, clocks = MemoryStorage(), Clocks()
    async with running(memory, clocks) as sequencer:
        await register(sequencer, 1)
        standing = await standing_on(memory, clocks)
        await standing.head()
        await register(sequencer, 2)
        stored, head = await standing.latest(Identifier.parse(f"{ZONE}/N-2"))
        assert stored is not None
        assert (stored.index, head.size) == (1, 2)
        proof = await standing.proof(Prefix.parse(ZONE), stored)
        assert proof is not None
        assert await standing.proof(Prefix.parse(ZONE), stored) is proof


async def test_many_who_ask_at_once_read_the_head_once() -> None:
    memory, clocks = MemoryStorage(), Clocks()
    async with running(memory, clocks) as sequencer:
        await register(sequencer, 1)
    standing, reads = await standing_on(memory, clocks), 0
    edge = memory.log_edge

    async def slowly() -> Edge:
        nonlocal reads
        reads += 1
        await asyncio.sleep(0.01)
        return await edge()

    standing._store.log_edge = slowly  # type: ignore[method-assign]  # the store in memory, made slow
    heads = await asyncio.gather(*(standing.head() for _ in range(50)))
    assert ({head.size for head in heads}, reads) == ({1}, 1)
    clocks.pass_seconds(2)
    await asyncio.gather(*(standing.head() for _ in range(50)))
    assert reads == 2


async def test_a_store_that_cannot_be_read_costs_the_proof_and_tells_nothing_false() -> None:
    memory, clocks = MemoryStorage(), Clocks()
    async with running(memory, clocks) as sequencer:
        await register(sequencer, 1)
    standing = await standing_on(memory, clocks)
    assert await standing.index_of(Identifier.parse(f"{ZONE}/N-9"), 1) is None
    index = await standing.index_of(Identifier.parse(f"{ZONE}/N-1"), 1)
    assert index is not None
    memory._log.notes.clear()
    with pytest.raises(IdtraceError) as caught:
        await standing.commit_of(index)
    assert caught.value.reason is Reason.NOT_LOGGED

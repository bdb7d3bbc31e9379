"""What the teller of changes does with its store, its memory and its watchers, without gRPC between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import structlog.testing

from idtrace import wire
from idtrace.delegation import Delegation
from idtrace.errors import Reason, RefusedError
from idtrace.identifier import ROOT, Prefix
from registry import changes as changes_module
from registry.change_ring import Ring
from registry.changes import NEXT_WITHIN_MS, PART_MAX, POLL_SECONDS, QUIET_SECONDS, Changes
from registry.grants import Grants
from registry.storage import Change, Outcome
from tests.core_fixtures import NOW, delegate, delegation, public, revocation
from tests.integration.test_storage_contract import grant_of
from tests.memory_storage import MemoryStorage
from tests.registry_fixtures import authority_for, typed_record, until, write_of

ZONE = Prefix.parse("88.118")
CHILD = "88.118.8"


class Telling:
    """A teller over memory, and another handle on the same data: what another node does."""

    def __init__(self) -> None:
        self.storage = MemoryStorage()
        self.elsewhere = self.storage.another()
        self.news = asyncio.Event()
        self.authority = authority_for("88.118")
        self.grants = Grants(self.storage, self.authority, public("node of 88.118").key_id, lambda: NOW, self.news.set)
        self.changes = Changes(self.storage, self.authority, self.grants, self.news)
        self._count = 0

    async def commit(self, *names: str, told: bool = True) -> None:
        self._count += 1
        writes = [write_of(typed_record(name), f"{self._count}-{n}", zone="88.118") for n, name in enumerate(names)]
        assert set(await self.elsewhere.commit(writes)) == {Outcome.COMMITTED}
        if told:
            self.news.set()

    async def hand_out(self, body: Delegation, **changes: Any) -> None:
        """Another node's change of a grant, which nobody here is told of."""
        held = {grant.prefix: grant for grant in await self.elsewhere.grants()}.get(str(body.child))
        grant = grant_of(
            str(body.child), status="enabled", version=body.version, delegation=wire.signed_to_bytes(delegate(body))
        )
        self._count += 1
        key = ("88.118", f"grant-{self._count}")
        assert await self.elsewhere.put_grant(replace(grant, **changes), held, key, bytes(32)) is Outcome.COMMITTED


@asynccontextmanager
async def telling() -> AsyncIterator[Telling]:
    one = Telling()
    await one.changes.begin()
    running = asyncio.create_task(one.changes.run())
    try:
        yield one
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert one.storage.broken == []
        assert not one.changes._watchers, "a watcher has left something behind"


class Ear:
    """A watcher that reads as long as it is awake."""

    def __init__(self, stream: AsyncGenerator[Change]) -> None:
        self.stream = stream
        self.told: list[Change] = []
        self.error: RefusedError | None = None
        self.awake = asyncio.Event()
        self.awake.set()
        self.task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        try:
            async with aclosing(self.stream) as stream:
                async for change in stream:
                    self.told.append(change)
                    await self.awake.wait()
        except RefusedError as error:
            self.error = error

    @property
    def heard(self) -> list[tuple[str, int]]:
        return [subject for change in self.told for subject in (*change.prefixes, *change.identifiers)]

    async def until(self, holds: Callable[[], bool], seconds: float = 5.0) -> None:
        await until(holds, seconds)


@asynccontextmanager
async def ear(one: Telling, zone: Prefix = ZONE, after: int | None = None) -> AsyncIterator[Ear]:
    listener = Ear(one.changes.watch(zone, after))
    try:
        await until(lambda: bool(listener.told) or listener.task.done())
        yield listener
    finally:
        listener.task.cancel()
        await asyncio.gather(listener.task, return_exceptions=True)


def small_ring(monkeypatch: pytest.MonkeyPatch, commits: int) -> None:
    monkeypatch.setattr(changes_module, "Ring", partial(Ring, commits_kept=commits))


async def test_the_first_word_comes_at_once_and_says_where_the_node_stands() -> None:
    async with telling() as one:
        await one.commit("88.118.8/A")
        begun = asyncio.get_running_loop().time()
        async with ear(one) as now, ear(one, after=0) as past:
            assert asyncio.get_running_loop().time() - begun < QUIET_SECONDS / 2
            assert past.told[0] == Change(1, (("88.118.8/A", 1),))
            assert now.told[0].sequence in {0, 1}  # from now on: what another node did is heard of within the poll
            await one.commit("88.118.8/B")
            await now.until(lambda: ("88.118.8/B", 1) in now.heard)


async def test_another_nodes_commit_is_told_without_anybody_saying_so() -> None:
    async with telling() as one, ear(one) as listener:
        await one.commit("88.118.8/A", told=False)
        await listener.until(lambda: listener.heard == [("88.118.8/A", 1)], 8 * POLL_SECONDS)


async def test_a_quiet_zone_hears_a_sign_of_life_in_time_whatever_happens_elsewhere() -> None:
    async with telling() as one, ear(one, Prefix.parse("88.118.7")) as quiet:
        loop = asyncio.get_running_loop()
        heard_at = [loop.time()]
        for n in range(40):
            await one.commit(f"88.118.8/N-{n}")
            await asyncio.sleep(0.1)
            if len(quiet.told) > len(heard_at):
                heard_at.append(loop.time())
        gaps = [later - earlier for earlier, later in pairwise(heard_at)]
        assert len(gaps) >= 2
        assert max(gaps) < NEXT_WITHIN_MS / 1_000
        assert quiet.heard == []
        assert [change.sequence for change in quiet.told] == sorted({change.sequence for change in quiet.told})
        assert quiet.told[-1].sequence > 10  # and may resume from there


async def test_a_large_commit_is_told_in_parts_whose_number_comes_with_the_last() -> None:
    async with telling() as one, ear(one) as listener:
        names = [f"88.118.8/N-{n}" for n in range(PART_MAX + 1)]
        await one.commit("88.118.8/A")
        await one.commit(*names)
        await one.commit("88.118.8/Z")
        await listener.until(lambda: len(listener.heard) == len(names) + 2)
        assert max(len(change.identifiers) for change in listener.told) <= PART_MAX
        assert [name for name, _ in listener.heard] == ["88.118.8/A", *names, "88.118.8/Z"]
        cut = next(change for change in listener.told if len(change.identifiers) > 1)
        assert cut.sequence <= 1
        async with ear(one, after=cut.sequence) as again:
            await again.until(lambda: again.told[-1].sequence == 3)
            assert {*cut.identifiers} <= {*again.heard}
            assert set(names) <= {name for name, _ in again.heard}


async def test_who_reads_slowly_reads_from_the_store_and_misses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    small_ring(monkeypatch, 2)
    async with telling() as one, ear(one) as slow, ear(one) as quick, ear(one, Prefix.parse("88.118.7")) as other:
        slow.awake.clear()
        for n in range(60):
            await one.commit(f"88.118.8/N-{n}")
            if n % 10 == 0:
                await one.commit(f"88.118.7/N-{n}")
        await quick.until(lambda: quick.told[-1].sequence == 66)
        assert len(slow.told) <= 2
        slow.awake.set()
        await slow.until(lambda: slow.told[-1].sequence == 66)
        assert slow.heard == quick.heard
        assert len(quick.heard) == 66
        await other.until(lambda: len(other.heard) == 6)
        async with ear(one, after=30) as middle:
            await middle.until(lambda: middle.told[-1].sequence == 66)
            assert middle.heard == quick.heard[30:]


async def test_resuming_where_it_cannot_be_told_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    small_ring(monkeypatch, 2)
    async with telling() as one:
        for n in range(8):
            await one.commit(f"88.118.8/N-{n}")
        await until(lambda: one.changes._ring.head == 8)
        one.storage.changes_kept = 4
        for after in (0, 3, 9, 2**64 - 1):
            async with ear(one, after=after) as listener:
                assert listener.error is not None
                assert (listener.error.reason, listener.error.field) == (Reason.CHANGES_GONE, "after")
                assert listener.heard == []
        async with ear(one, after=4) as listener:
            await listener.until(lambda: listener.told[-1].sequence == 8)
            assert len(listener.heard) == 4


async def test_who_comes_from_another_node_may_know_more_than_this_one_yet() -> None:
    async with telling() as one:
        await one.commit("88.118.8/A", "88.118.8/B", told=False)
        await one.commit("88.118.8/C", told=False)
        async with ear(one, after=2) as listener:
            assert listener.error is None
            assert listener.told[0].sequence == 2
            await one.commit("88.118.8/D")
            await listener.until(lambda: listener.heard == [("88.118.8/D", 1)])
            assert listener.told[-1].sequence == 3


async def test_a_prefix_is_told_only_when_memory_knows_it() -> None:
    async with telling() as one, ear(one) as listener:
        child = Prefix.parse(CHILD)
        async with one.grants._one_at_a_time:  # a change of this node's own is under way
            await one.hand_out(delegation(CHILD))
            await one.commit("88.118.7/A")
            await asyncio.sleep(2 * POLL_SECONDS)
            assert (listener.heard, child in one.authority.children) == ([], False)
        await listener.until(lambda: (CHILD, 1) in listener.heard)
        assert one.authority.children[child].delegation.version == 1
        assert await one.storage.grants() == [one.grants.grant(child)]


async def test_what_another_node_grants_is_known_here_by_the_time_it_is_told() -> None:
    async with telling() as one:
        stream = one.changes.watch(ZONE, None)
        async with aclosing(stream):
            await anext(stream)
            status = "enabled"
            for step, body in enumerate([delegation(CHILD), delegation(CHILD), revocation(CHILD)]):
                await one.hand_out(body, status=status)
                while not (change := await anext(stream)).prefixes:
                    pass
                held = one.authority.children[Prefix.parse(CHILD)]
                assert change.prefixes == ((CHILD, body.version),)
                assert (held.delegation.version, str(held.status)) == (body.version, status)
                status = "disabled" if step == 0 else "enabled"


async def test_a_store_that_is_away_is_not_passed_off_as_quiet_and_nothing_is_lost() -> None:
    with structlog.testing.capture_logs() as logs:
        async with telling() as one, ear(one) as listener:
            await one.commit("88.118.8/A")
            await listener.until(lambda: len(listener.heard) == 1)
            one.storage.unreadable = True
            await one.commit("88.118.8/B")
            await one.hand_out(delegation("88.118.9"))
            await asyncio.sleep(0.1)
            before = len(listener.told)
            await asyncio.sleep(2 * NEXT_WITHIN_MS / 1_000)
            assert len(listener.told) <= before + 1  # one may have been due while the last answer was fresh
            assert len(listener.heard) == 1
            silent = len(listener.told)
            one.storage.unreadable = False
            await listener.until(lambda: listener.told[-1].sequence == 3)
            assert sorted(listener.heard) == [("88.118.8/A", 1), ("88.118.8/B", 1), ("88.118.9", 1)]
            assert len(listener.told) > silent
            assert Prefix.parse("88.118.9") in one.authority.children
    assert [line["event"] for line in logs] == ["changes cannot be read", "changes can be read again"]


async def test_a_slow_reader_waits_for_a_store_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    small_ring(monkeypatch, 1)
    async with telling() as one:
        for n in range(6):
            await one.commit(f"88.118.8/N-{n}")
        await until(lambda: one.changes._ring.head == 6)
        one.storage.unreadable = True
        listener = Ear(one.changes.watch(ZONE, 0))
        await asyncio.sleep(2 * POLL_SECONDS)
        assert (listener.told, listener.error) == ([], None)
        one.storage.unreadable = False
        await listener.until(lambda: len(listener.heard) == 6)
        listener.task.cancel()
        await asyncio.gather(listener.task, return_exceptions=True)


@pytest.mark.parametrize("lost", ["trimmed", "older"])
async def test_where_changes_are_lost_everybody_begins_anew_and_memory_catches_up(lost: str) -> None:
    with structlog.testing.capture_logs() as logs:
        async with telling() as one:
            await one.commit("88.118.7/A")
            async with ear(one, after=0) as listener:
                await listener.until(lambda: len(listener.heard) == 1)
                one.storage.unreadable = True
                await one.hand_out(delegation(CHILD))
                if lost == "trimmed":
                    await one.commit("88.118.7/B")
                    one.storage.changes_kept = 1
                else:
                    del one.storage._changes[:]
                await asyncio.sleep(0.1)
                one.storage.unreadable = False
                await asyncio.wait_for(listener.task, 5)
                assert listener.error is not None
                assert listener.error.reason is Reason.CHANGES_GONE
            assert Prefix.parse(CHILD) in one.authority.children
            async with ear(one) as anew:
                await one.commit("88.118.7/C")
                await anew.until(lambda: anew.heard == [("88.118.7/C", 1)])
    assert sum(line["event"].startswith("changes are lost") for line in logs) == 1


async def test_a_zone_that_is_not_ours_is_refused_and_one_that_ceases_to_be_ends() -> None:
    async with telling() as one:
        await one.hand_out(delegation("88.118.9"))
        await one.hand_out(delegation(CHILD, hosted=True), hosted=True)
        await one.grants.load()
        for zone in (ROOT, Prefix.parse("88"), Prefix.parse("88.119"), Prefix.parse("88.118.9.1")):
            async with ear(one, zone) as listener:
                assert listener.error is not None
                assert (listener.error.reason, listener.error.field) == (Reason.NOT_AUTHORITATIVE, "zone")
        async with ear(one, Prefix.parse(f"{CHILD}.1")) as below, ear(one, Prefix.parse(CHILD)) as hosted:
            await one.hand_out(revocation(CHILD))
            for listener in (below, hosted):
                await asyncio.wait_for(listener.task, 2 * NEXT_WITHIN_MS / 1_000)
                assert listener.error is not None
                assert listener.error.reason is Reason.NOT_AUTHORITATIVE
            assert hosted.heard[-1] == (CHILD, 2)

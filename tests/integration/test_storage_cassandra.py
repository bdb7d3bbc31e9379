"""What Cassandra alone can do to a batch: writers that die between swap and rows, lost answers, writers that race."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cassandra import OperationTimedOut

from idtrace import wire
from registry.cassandra_batch import CHUNK_BYTES
from registry.cassandra_bridge import Bridge
from registry.storage import Earlier, Outcome, Storage, Write
from registry.storage_cassandra import CassandraStorage, ContendedError
from tests.core_fixtures import ZONE, delegate, delegation
from tests.integration.test_storage_contract import FIRST, OTHER, SECOND, SERIAL, grant_of
from tests.registry_fixtures import head_of, typed_record, write_of
from tests.storages import STORAGES, cassandra_settings

pytestmark = pytest.mark.slow
two_stores = STORAGES["cassandra"]


@pytest.fixture(autouse=True)
def _only_writers_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements are counted here, and what a start or a writer does has to be enough without the settler."""
    monkeypatch.setattr("registry.cassandra_settler.SETTLE_EVERY_SECONDS", 3_600)


class KilledError(Exception):
    """Where a process would be no more."""


class Between:
    """Stands before a store's ledger's bridge. Hooks run around a swap; ``lives`` is how many statements follow it."""

    def __init__(self, store: CassandraStorage) -> None:
        self.bridge: Any = store._ledger._bridge
        self.lives = 10**9
        self.before: Callable[[], Awaitable[Any]] | None = None
        self.after: Callable[[], Awaitable[Any]] | None = None
        self.loses_answers = 0
        self.swaps: list[Any] = []
        store._ledger._bridge = self  # type: ignore[assignment]  # answers the two calls that a ledger makes

    async def run(self, *arguments: Any, **options: Any) -> Any:
        if self.swaps and self.lives == 0:
            raise KilledError
        self.lives -= bool(self.swaps)
        return await self.bridge.run(*arguments, **options)

    async def once(self, statement: Any, values: Any, *, profile: str) -> Any:
        if not profile.startswith("swap"):
            return await self.bridge.once(statement, values, profile=profile)
        self.swaps.append(values[1])
        before, self.before = self.before, None
        if before:
            await before()
        answer = await self.bridge.once(statement, values, profile=profile)
        after, self.after = self.after, None
        if after:
            await after()
        if self.loses_answers:
            self.loses_answers -= 1
            raise OperationTimedOut
        return answer


async def commit(store: Storage, *writes: Write) -> list[Outcome]:
    return await store.commit(writes)


@pytest.mark.parametrize("lives", [0, 1, 3, 8, 9, 10, 11])
async def test_a_batch_whose_writer_died_after_the_swap_is_finished_by_the_next_start(
    tmp_path: Path, lives: int
) -> None:
    """After the swap: two versions, one stem of keys, a claim, 3 prefixes, then heads, history, change, marker."""
    first, other = write_of(FIRST, "key-1", claims=(SERIAL,)), write_of(OTHER, "key-2")
    async with two_stores(tmp_path) as dead:
        assert isinstance(dead, CassandraStorage)
        Between(dead).lives = lives
        with suppress(KilledError):
            await commit(dead, first, other)
    async with two_stores(tmp_path) as next_start:
        assert await next_start.heads(["88.118.8/A", "88.118.8/B"]) == {
            "88.118.8/A": head_of(FIRST),
            "88.118.8/B": head_of(OTHER),
        }
        assert [await next_start.record(w.identifier) for w in (first, other)] == [first.record, other.record]
        assert await next_start.earlier(ZONE, ["key-1"]) == {"key-1": Earlier(first.request_hash, first.receipt)}
        assert await next_start.claimants([SERIAL]) == {SERIAL: "88.118.8/A"}
        assert await next_start.any_within("88.118")
        assert await commit(next_start, first, other) == [Outcome.KEY_USED] * 2
        assert await commit(next_start, write_of(SECOND, "key-3")) == [Outcome.COMMITTED]


async def test_a_grant_whose_writer_died_after_the_swap_is_finished_by_the_next_writer(tmp_path: Path) -> None:
    handed = grant_of(status="enabled", version=1, delegation=wire.signed_to_bytes(delegate(delegation(ZONE))))
    async with two_stores(tmp_path) as dead, two_stores(tmp_path) as other:
        assert isinstance(dead, CassandraStorage)
        Between(dead).lives = 0
        with pytest.raises(KilledError):
            await dead.put_grant(handed, None, ("88.118", "key-1"), bytes(32))
        below = write_of(FIRST, "key-2", zone="88.118")
        assert await commit(other, below) == [Outcome.CONFLICT]
        assert await other.grants() == [handed]
        again = await other.put_grant(handed, None, ("88.118", "key-1"), bytes(32))
        assert again is Outcome.KEY_USED


async def test_a_batch_that_was_never_swapped_has_not_happened(tmp_path: Path) -> None:
    async with two_stores(tmp_path) as dead, two_stores(tmp_path) as other:
        assert isinstance(dead, CassandraStorage)

        async def die() -> None:
            raise asyncio.CancelledError

        Between(dead).before = die
        with pytest.raises(asyncio.CancelledError):
            await commit(dead, write_of(FIRST, "key-1"))
        assert await other.heads(["88.118.8/A"]) == {}
        assert await commit(other, write_of(typed_record("88.118.8/A", {"lot": "L7"}), "key-1")) == [Outcome.COMMITTED]


async def test_rows_that_a_late_writer_writes_again_change_nothing(tmp_path: Path) -> None:
    async with two_stores(tmp_path) as late, two_stores(tmp_path) as other:
        assert isinstance(late, CassandraStorage)
        applied: list[Any] = []
        apply = late._ledger.apply

        async def remember(*arguments: Any) -> None:
            applied.append(arguments)
            await apply(*arguments)

        late._ledger.apply = remember  # type: ignore[method-assign,assignment]  # to do it again
        assert await commit(late, write_of(FIRST, "key-1", claims=(SERIAL,))) == [Outcome.COMMITTED]
        assert await commit(other, write_of(SECOND, "key-2")) == [Outcome.COMMITTED]
        await apply(*applied[0])
        for store in (late, other):
            assert await store.heads(["88.118.8/A"]) == {"88.118.8/A": head_of(SECOND)}
            await store.reopen()
        third = typed_record("88.118.8/A", previous=SECOND)
        assert await commit(late, write_of(third, "key-3")) == [Outcome.COMMITTED]


@pytest.mark.parametrize("later", [0, 1, 3])
async def test_a_swap_whose_answer_was_lost_is_known_whatever_came_later(tmp_path: Path, later: int) -> None:
    async with two_stores(tmp_path) as store, two_stores(tmp_path) as other:
        assert isinstance(store, CassandraStorage)

        async def others() -> None:
            for n in range(later):
                assert await commit(other, write_of(typed_record(f"88.118.8/L-{n}"), f"later-{n}")) == [
                    Outcome.COMMITTED
                ]

        between = Between(store)
        between.after, between.loses_answers = others, 1
        assert await commit(store, write_of(FIRST, "key-1")) == [Outcome.COMMITTED]
        assert len(between.swaps) == 1
        assert await other.heads(["88.118.8/A"]) == {"88.118.8/A": head_of(FIRST)}


@pytest.mark.parametrize("sooner", [1, 3])
async def test_a_swap_that_lost_and_whose_answer_was_lost_is_decided_again(tmp_path: Path, sooner: int) -> None:
    """The other takes the identifier, the key and the claim: each loser is told what it lost."""
    async with two_stores(tmp_path) as store, two_stores(tmp_path) as other:
        assert isinstance(store, CassandraStorage)

        async def others() -> None:
            for n in range(sooner - 1):
                await commit(other, write_of(typed_record(f"88.118.8/S-{n}"), f"sooner-{n}"))
            await commit(other, write_of(FIRST, "key-1", claims=(SERIAL,)))

        between = Between(store)
        between.before, between.loses_answers = others, 1
        told = await commit(
            store,
            write_of(typed_record("88.118.8/A", {"lot": "L9"}), "key-8"),
            write_of(typed_record("88.118.8/K"), "key-1"),
            write_of(OTHER, "key-9", claims=(SERIAL,)),
            write_of(typed_record("88.118.8/D"), "key-10"),
        )
        assert told == [Outcome.CONFLICT, Outcome.KEY_USED, Outcome.CLAIMED, Outcome.COMMITTED]
        assert len(between.swaps) == len(set(between.swaps)) == 2


async def test_a_swap_that_has_not_arrived_is_sent_again_and_is_the_same(tmp_path: Path) -> None:
    async with two_stores(tmp_path) as store:
        assert isinstance(store, CassandraStorage)

        async def lose() -> None:
            raise OperationTimedOut

        between = Between(store)
        between.before = lose
        assert await commit(store, write_of(FIRST, "key-1")) == [Outcome.COMMITTED]
        assert len(between.swaps) == 2
        assert len(set(between.swaps)) == 1


async def test_two_writers_of_one_ledger_both_make_progress_and_win_each_prize_once(tmp_path: Path) -> None:
    rounds = 12
    async with two_stores(tmp_path) as a, two_stores(tmp_path) as b:

        async def race(name: str, store: Storage) -> list[list[Outcome]]:
            told = []
            for n in range(rounds):
                claim = replace(SERIAL, digest=hashlib.sha256(b"%d" % n).digest())
                told.append(
                    await commit(
                        store,
                        write_of(typed_record(f"88.118.8/R-{n}", {"by": name}), f"key-{name}-{n}"),
                        write_of(typed_record(f"88.118.8/{name}-C-{n}"), f"claim-{name}-{n}", claims=(claim,)),
                        write_of(typed_record(f"88.118.8/{name}-K-{n}"), f"key-shared-{n}"),
                        write_of(typed_record(f"88.118.8/{name}-own-{n}"), f"own-{name}-{n}"),
                    )
                )
            return told

        told = dict(zip("ab", await asyncio.gather(race("a", a), race("b", b)), strict=True))
        for n in range(rounds):
            for prize in range(3):
                won = [name for name in "ab" if told[name][n][prize] is Outcome.COMMITTED]
                assert len(won) == 1
                if prize == 0:
                    stored = wire.record_from_bytes(await a.record(f"88.118.8/R-{n}") or b"")
                    assert [value.data.decode() for value in stored.values] == won
            assert {told[name][n][3] for name in "ab"} == {Outcome.COMMITTED}
        assert len(await b.heads([f"88.118.8/{name}-own-{n}" for name in "ab" for n in range(rounds)])) == 2 * rounds


async def test_a_delegation_and_a_write_below_it_race_and_one_of_them_loses(tmp_path: Path) -> None:
    async with two_stores(tmp_path) as a, two_stores(tmp_path) as b:
        for n in range(8):
            zone = f"88.118.{20 + n}"
            handed = grant_of(zone, version=1, delegation=wire.signed_to_bytes(delegate(delegation(zone))))
            told = await asyncio.gather(
                a.put_grant(handed, None, ("88.118", f"grant-{n}"), bytes(32)),
                commit(b, write_of(typed_record(f"{zone}/A"), f"write-{n}", zone="88.118")),
            )
            assert Counter([told[0], told[1][0]]) == {Outcome.COMMITTED: 1, Outcome.CONFLICT: 1}


async def test_a_batch_of_several_chunks_is_finished_by_another(tmp_path: Path) -> None:
    big = [
        replace(write_of(typed_record(f"88.118.8/BIG-{n}"), f"big-{n}"), record=bytes([n]) * CHUNK_BYTES)
        for n in range(4)
    ]
    async with two_stores(tmp_path) as dead, two_stores(tmp_path) as other:
        assert isinstance(dead, CassandraStorage)
        Between(dead).lives = 0
        with pytest.raises(KilledError):
            await commit(dead, *big)
        await other.reopen()
        assert [await other.record(write.identifier) for write in big] == [write.record for write in big]


async def test_versions_go_on_over_the_end_of_a_bucket(tmp_path: Path) -> None:
    async with two_stores(tmp_path) as store:
        start = write_of(FIRST, "key-0")
        for version in range(1, 18):
            head = replace(start.head, version=version)
            data = b"%d" % version
            write = replace(start, expected=version - 1, head=head, record=data, idempotency_key=f"key-{version}")
            assert await commit(store, write) == [Outcome.COMMITTED]
            assert await store.record("88.118.8/A") == data
        assert [await store.record("88.118.8/A", n) for n in range(1, 19)] == [b"%d" % n for n in range(1, 18)] + [None]


async def test_ledgers_of_one_keyspace_know_nothing_of_each_other(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with two_stores(tmp_path) as store, two_stores(tmp_path / "other") as other:
        for one in (store, other):
            assert await commit(one, write_of(FIRST, "key-1", claims=(SERIAL,))) == [Outcome.COMMITTED]


async def test_too_many_writers_are_told_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.storage_cassandra.TRIES_MAX", 2)
    async with two_stores(tmp_path) as store, two_stores(tmp_path) as other:
        assert isinstance(store, CassandraStorage)
        settle, count = store._ledger.settle, [0]

        async def overtaken() -> int:
            seq = await settle()
            count[0] += 1
            await commit(other, write_of(typed_record(f"88.118.8/O-{count[0]}"), f"other-{count[0]}"))
            return seq

        store._ledger.settle = overtaken  # type: ignore[method-assign]  # another always comes in between
        with pytest.raises(ContendedError):
            await commit(store, write_of(FIRST, "key-1"))
        assert await other.heads(["88.118.8/A"]) == {}


@pytest.mark.parametrize("delay_seconds", [0, 0.002, 0.02])
async def test_a_caller_that_leaves_takes_nothing_of_its_batch_with_it(tmp_path: Path, delay_seconds: float) -> None:
    async with two_stores(tmp_path) as store:
        writes = [write_of(typed_record(f"88.118.8/Q-{n}"), f"key-{n}") for n in range(20)]
        call = asyncio.create_task(store.commit(writes))
        await asyncio.sleep(delay_seconds)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        told = Counter(await store.commit(writes))
        # Cancelled before its first step a task has never begun.
        assert told == {Outcome.KEY_USED: 20} or (delay_seconds == 0 and told == {Outcome.COMMITTED: 20})


async def test_a_store_that_closes_does_first_what_it_was_asked_and_takes_no_more(tmp_path: Path) -> None:
    async with two_stores(tmp_path) as store:
        last = asyncio.create_task(commit(store, write_of(FIRST, "key-1")))
        await asyncio.sleep(0)
        await store.close()
        await store.close()
        assert await last == [Outcome.COMMITTED]
        with pytest.raises(RuntimeError):
            await commit(store, write_of(SECOND, "key-2"))
        with pytest.raises(RuntimeError):
            await store.record("88.118.8/A")
        await store.reopen()
        assert await store.heads(["88.118.8/A"]) == {"88.118.8/A": head_of(FIRST)}


async def test_staged_bytes_go_away_and_nothing_else_does(tmp_path: Path) -> None:
    """Of a batch that won, one that lost, and one that the next start has finished."""
    settings = await cassandra_settings(tmp_path)
    async with two_stores(tmp_path) as store, two_stores(tmp_path) as other:
        assert isinstance(store, CassandraStorage)
        between = Between(store)
        between.before = lambda: commit(other, write_of(OTHER, "key-0"))
        assert await commit(store, write_of(FIRST, "key-1")) == [Outcome.COMMITTED]
        assert await commit(store, write_of(SECOND, "key-2")) == [Outcome.COMMITTED]
        between.lives = 0
        with pytest.raises(KilledError):
            await commit(store, write_of(typed_record("88.118.8/Z"), "key-3"))
    for n in range(2):  # a start drops what the last one before it has left behind, with its own first batch
        async with two_stores(tmp_path) as later:
            assert await commit(later, write_of(typed_record(f"88.118.8/Y-{n}"), f"key-y-{n}")) == [Outcome.COMMITTED]
    bridge = await Bridge.connect(settings)
    found = await bridge.run(f"SELECT ledger, batch_id FROM {settings.keyspace}.staged")
    left = [row.batch_id for row in found if row.ledger == settings.ledger]
    await bridge.close()
    assert not set(left) & set(between.swaps)
    assert len(left) <= 2

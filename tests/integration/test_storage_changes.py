"""Guarantee 8 of registry/storage.py, held against every adapter: what is committed is told, in order and in time."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from idtrace import wire
from idtrace.errors import Reason, RefusedError
from registry.storage import Change, Outcome, Storage
from registry.storage_sqlite import SqliteStorage
from tests.core_fixtures import ZONE, delegate, delegation, links, revocation
from tests.integration.test_storage_contract import FIRST, OTHER, SECOND, SERIAL, grant_of, losing_writes
from tests.memory_storage import EngineError, MemoryStorage, once
from tests.registry_fixtures import ENDED, body_of, typed_record, write_of
from tests.storages import STORAGES, forget_changes


@pytest.fixture(params=list(STORAGES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    async with STORAGES[request.param](tmp_path) as storage:
        yield storage


async def told(store: Storage, after: int = 0, most: int = 1_000) -> list[Change]:
    """All changes, read so many at a time."""
    found: list[Change] = []
    while some := await store.changes(found[-1].sequence if found else after, most):
        assert len(some) <= most
        found += some
    numbers = [change.sequence for change in found]
    assert numbers == sorted(set(numbers))
    assert (numbers[-1] if numbers else after) == await store.sequence()
    return found


def subjects(changes: Sequence[Change]) -> list[tuple[object, object]]:
    """Without the numbers, and without what has none."""
    return [(c.identifiers, c.prefixes) for c in changes if c.identifiers or c.prefixes]


async def gone(store: Storage, after: int) -> bool:
    try:
        await store.changes(after, 1_000)
    except RefusedError as error:
        return (error.reason, error.field) == (Reason.CHANGES_GONE, "after")
    return False


async def test_an_empty_store_has_nothing_to_tell(store: Storage) -> None:
    assert (await store.sequence(), await store.changes(0, 10)) == (0, [])
    assert [await gone(store, after) for after in (1, 2**63 - 1, 2**64 - 1)] == [True] * 3


async def test_commits_are_told_whole_in_order_and_losers_are_not(store: Storage) -> None:
    end = typed_record("88.118.8/A", previous=SECOND, **ENDED)
    await store.put_grant(grant_of("88.118.9"), None, ("88.118", "key-g0"), bytes(32))
    await store.commit([write_of(typed_record("88.118.8/Z"), "key-0"), write_of(FIRST, "key-1", claims=(SERIAL,))])
    await store.commit([loser for loser, _ in losing_writes()])
    await store.commit([write_of(OTHER, "key-1"), write_of(SECOND, "key-2b"), write_of(end, "key-3")])
    assert subjects(await told(store)) == [
        ((), (("88.118.9", 0),)),
        ((("88.118.8/Z", 1), ("88.118.8/A", 1)), ()),
        ((("88.118.8/A", 3),), ()),
    ]


async def test_grants_are_told_with_their_delegations_version_and_chains_are_not(store: Storage) -> None:
    signed = [wire.signed_to_bytes(delegate(body)) for body in (delegation(ZONE), revocation(ZONE))]
    handed = grant_of(status="enabled", version=1, delegation=signed[0])
    disabled = replace(handed, status="disabled")
    revoked = replace(disabled, version=2, delegation=signed[1])
    steps = [(grant_of(), None), (handed, grant_of()), (revoked, handed), (disabled, handed), (revoked, disabled)]
    for number, (grant, expected) in enumerate(steps):
        key = ("88.118", f"key-{'same' if number in {1, 2} else number}")
        outcome = await store.put_grant(grant, expected, key, bytes(32))
        assert outcome is (Outcome.KEY_USED if number == 2 else Outcome.COMMITTED)
        assert await store.put_grant(grant, None, ("88.118", f"late-{number}"), bytes(32)) is Outcome.CONFLICT
        await store.put_chain("88", [wire.signed_to_bytes(x) for x in links("88")])
    assert subjects(await told(store)) == [((), ((ZONE, version),)) for version in (0, 1, 1, 2)]


async def test_grants_can_be_asked_for_one_by_one(store: Storage) -> None:
    for name in ("88.118.7", "88.118.8", "88.118.9"):
        await store.put_grant(grant_of(name), None, (ZONE, f"key-{name}"), bytes(32))
    some = await store.grants(["88.118.9", "88.118", "88.118.7"])
    assert sorted(grant.prefix for grant in some) == ["88.118.7", "88.118.9"]
    assert some[0] == grant_of(some[0].prefix)
    assert await store.grants([]) == []


async def test_changes_can_be_read_from_anywhere_so_many_at_a_time(store: Storage) -> None:
    for n in range(5):
        await store.commit([write_of(typed_record(f"88.118.8/N-{n}"), f"key-{n}")])
    every = await told(store)
    numbers = [change.sequence for change in every]
    assert len(every) == 5
    for most in (1, 2, 4, 5, 6):
        assert await told(store, most=most) == every
    for position, number in enumerate(numbers):
        assert await store.changes(number, 2) == every[position + 1 : position + 3]
    assert await store.changes(numbers[-1], 100) == []
    assert await gone(store, numbers[-1] + 1)
    assert await gone(store, 2**64 - 1)


async def test_numbers_survive_a_restart_and_go_on(store: Storage) -> None:
    await store.commit([write_of(FIRST, "key-1")])
    await store.put_grant(grant_of("88.118.9"), None, (ZONE, "key-2"), bytes(32))
    before = await told(store)
    await store.reopen()
    assert await told(store) == before
    await store.close()
    await store.reopen()
    assert await told(store) == before
    await store.commit([write_of(SECOND, "key-3")])
    assert (await told(store))[:-1] == before
    assert subjects(await told(store, before[-1].sequence)) == [((("88.118.8/A", 2),), ())]


async def test_what_is_not_kept_is_not_passed_over(store: Storage) -> None:
    for n in range(6):
        await store.commit([write_of(typed_record(f"88.118.8/N-{n}"), f"key-{n}")])
    every = await told(store)
    await forget_changes(store, every[2].sequence)
    assert [await gone(store, n) for n in (0, every[0].sequence, every[1].sequence)] == [True] * 3
    assert await told(store, every[2].sequence) == every[3:]
    await store.commit([write_of(typed_record("88.118.8/N-6"), "key-6")])
    assert subjects(await told(store, every[5].sequence)) == [((("88.118.8/N-6", 1),), ())]


@pytest.mark.parametrize("name", list(STORAGES))
async def test_two_writers_tell_one_story_and_nothing_before_it_can_be_read(tmp_path: Path, name: str) -> None:
    """Each reader looks up at once what it is told, on its own handle; every commit is told once, to both alike."""
    rounds, won = 12, Counter[str]()
    async with STORAGES[name](tmp_path) as one, STORAGES[name](tmp_path) as other:
        heard: dict[int, list[Change]] = {0: [], 1: []}
        done = asyncio.Event()

        async def write(store: Storage, by: str) -> None:
            for n in range(rounds):
                wanted = [typed_record(f"88.118.8/R-{n}", {"by": by}), typed_record(f"88.118.8/{by}-{n}")]
                outcomes = await store.commit([write_of(r, f"{by}-{n}-{i}") for i, r in enumerate(wanted)])
                won.update(
                    str(body_of(record).identifier)
                    for record, outcome in zip(wanted, outcomes, strict=True)
                    if outcome is Outcome.COMMITTED
                )

        async def listen(store: Storage, into: list[Change]) -> None:
            while True:
                last_round = done.is_set()
                for change in await store.changes(into[-1].sequence if into else 0, 5):
                    into.append(change)
                    heads = await store.heads([identifier for identifier, _ in change.identifiers])
                    assert all(heads[identifier].version >= version for identifier, version in change.identifiers)
                if last_round and (into[-1].sequence if into else 0) == await store.sequence():
                    return
                await asyncio.sleep(0)

        listening = [asyncio.create_task(listen(store, heard[n])) for n, store in enumerate((one, other))]
        await asyncio.gather(write(one, "a"), write(other, "b"))
        done.set()
        await asyncio.gather(*listening)
    assert heard[0] == heard[1]
    assert Counter(identifier for change in heard[0] for identifier, _ in change.identifiers) == won
    assert len(won) == sum(won.values()) == 3 * rounds


@pytest.mark.parametrize("persisted", [True, False])
async def test_a_commit_that_raised_is_told_if_and_only_if_it_can_be_read(persisted: bool) -> None:
    memory = MemoryStorage()
    await memory.commit([write_of(OTHER, "key-1")])
    setattr(memory, "fail_and_persist" if persisted else "fail_and_not_persist", once())
    with pytest.raises(EngineError):
        await memory.commit([write_of(FIRST, "key-2")])
    assert ("88.118.8/A" in await memory.heads(["88.118.8/A"])) is persisted
    assert len(await told(memory)) == 1 + persisted


async def test_a_commit_whose_change_cannot_be_kept_is_not_kept_either(tmp_path: Path) -> None:
    store = SqliteStorage(tmp_path / "registry.sqlite3")
    await store.commit([write_of(OTHER, "key-1")])
    store._writer.execute("CREATE TRIGGER full BEFORE INSERT ON change BEGIN SELECT RAISE(ABORT, 'full'); END")
    with pytest.raises(sqlite3.IntegrityError):
        await store.commit([write_of(FIRST, "key-2")])
    with pytest.raises(sqlite3.IntegrityError):
        await store.put_grant(grant_of("88.118.9"), None, (ZONE, "key-3"), bytes(32))
    store._writer.execute("DROP TRIGGER full")
    await store.reopen()
    assert (await store.heads(["88.118.8/A"]), await store.grants()) == ({}, [])
    await store.commit([write_of(FIRST, "key-2")])
    assert [change.sequence for change in await told(store)] == [1, 2]
    await store.close()


async def test_the_last_changes_are_kept_and_the_file_does_not_grow_with_the_others(tmp_path: Path) -> None:
    store = SqliteStorage(tmp_path / "registry.sqlite3", changes_kept=3)
    for n in range(10):
        await store.commit([write_of(typed_record(f"88.118.8/N-{n}"), f"key-{n}")])
    assert await gone(store, 6)
    assert [change.sequence for change in await told(store, 7)] == [8, 9, 10]
    assert store._writer.execute("SELECT count(*) FROM change").fetchone() == (3,)
    await store.close()


async def test_a_file_from_before_there_were_numbers_is_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite3"
    store = SqliteStorage(path)
    await store.commit([write_of(FIRST, "key-1")])
    await store.close()
    with sqlite3.connect(path) as file:
        file.executescript("DROP TABLE change")
    file.close()
    store = SqliteStorage(path)
    assert (await store.sequence(), await store.changes(0, 10)) == (0, [])
    await store.commit([write_of(SECOND, "key-2")])
    assert subjects(await told(store)) == [((("88.118.8/A", 2),), ())]
    await store.close()

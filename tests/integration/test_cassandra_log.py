"""The log on Cassandra: what half a batch, a lost answer, a second writer or a lost row can do to it, and must not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cassandra import OperationTimedOut

from idtrace import wire
from idtrace.errors import Reason, RefusedError
from registry.logbook import Edge, Stamp
from registry.storage import Grant, Logged, Outcome, Storage
from registry.storage_cassandra import HASHED_INLINE_MAX, CassandraStorage
from tests.core_fixtures import NOW, ZONE, links
from tests.integration.test_storage_cassandra import Between, KilledError
from tests.integration.test_storage_log import STAMP, keys_entry, logged_write, numbered, sound
from tests.registry_fixtures import typed_record
from tests.storages import STORAGES

pytestmark = pytest.mark.slow
two_stores = STORAGES["cassandra"]
# Statements after the swap of a logged batch of two: versions and keys of one stem, three prefixes, entries, a tile,
# the checkpoint; the log's head; heads, history, change; the marker.
STATEMENTS_OF_TWO = 13


@pytest.fixture(autouse=True)
def _only_writers_and_readers_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reader, a writer or a start does has to be enough without the settler; and nobody waits for the dead."""
    monkeypatch.setattr("registry.cassandra_settler.SETTLE_EVERY_SECONDS", 3_600)
    monkeypatch.setattr("registry.cassandra_ledger.PATIENCE_SECONDS", 0.05)


async def dies_after(store: Storage, lives: int) -> bool:
    """Log two more in a batch whose writer dies so many statements after the swap; whether it did."""
    assert isinstance(store, CassandraStorage)
    Between(store).lives = lives
    with suppress(KilledError):
        await store.commit(numbered(2, 100), STAMP)
        return False
    return True


def tear(store: Storage, statement: str) -> Callable[..., Any]:
    """Runs a statement on the ledger's own rows, as nothing of ours ever does."""
    assert isinstance(store, CassandraStorage)
    bridge, name = store._open_bridge(), store._name

    async def run(*values: object) -> list[Any]:
        return await bridge.run(statement, (*values, name))

    return run


@pytest.mark.parametrize("lives", range(STATEMENTS_OF_TWO + 1))
async def test_of_half_a_batch_a_reader_is_shown_nothing_of_the_log_or_all(tmp_path: Path, lives: int) -> None:
    async with two_stores(tmp_path) as dead, two_stores(tmp_path) as reader:
        await dead.commit(numbered(3), STAMP)
        before = await reader.log_edge()
        assert await dies_after(dead, lives) is (lives < STATEMENTS_OF_TWO)
        note = [await reader.log_note(size) for size in (3, 4, 5)]
        tile, entries = await reader.log_tile(0, 0), await reader.log_entries(0, 9)
        edge = await reader.log_edge()
        assert edge.head.size in {3, 5}
        assert (edge == before) is (edge.head.size == 3)
        heads = await reader.heads([write.identifier for write in numbered(2, 100)])
        assert len(heads) == edge.head.size - 3, "who is told of a head finds its records, and the other way round"
        assert note == [before.head.note, None, edge.head.note if edge.head.size == 5 else None]
        assert tile is not None
        assert (len(tile), len(entries)) == (32 * edge.head.size, edge.head.size)
        assert len(await sound(reader)) == edge.head.size


@pytest.mark.parametrize("lives", [0, 4, 8, 9, 12])
async def test_a_logged_batch_whose_writer_died_is_logged_once_by_the_next(tmp_path: Path, lives: int) -> None:
    async with two_stores(tmp_path) as dead, two_stores(tmp_path) as other:
        await dead.commit(numbered(3), STAMP)
        assert await dies_after(dead, lives)
        told = await other.commit([*numbered(2, 100), *numbered(1, 200)], STAMP)
        assert told == [Outcome.KEY_USED, Outcome.KEY_USED, Outcome.COMMITTED]
        assert len(await sound(other)) == 6
    async with two_stores(tmp_path) as later:
        stored = [await later.stored(f"88.118.8/N-{n}") for n in (0, 100, 101, 200)]
        assert [one and one.index for one in stored] == [0, 3, 4, 5]


async def test_a_logged_grant_and_chain_whose_writer_died_are_there_with_their_entries(tmp_path: Path) -> None:
    logged, grant = Logged(STAMP, keys_entry()), Grant(ZONE, "applied", False, "", NOW)
    chain = [wire.signed_to_bytes(signed) for signed in links("88")]
    for lives in (0, 2, 3, 4):
        (tmp_path / str(lives)).mkdir()
        async with two_stores(tmp_path / str(lives)) as dead, two_stores(tmp_path / str(lives)) as other:
            assert isinstance(dead, CassandraStorage)
            Between(dead).lives = lives
            with pytest.raises(KilledError):
                await dead.put_grant(grant, None, (ZONE, "key-g"), bytes(32), logged)
            if await other.grants():
                assert (await other.log_edge()).head.size == 1
            await other.put_chain("88", chain, logged)
            assert await other.grants() == [grant]
            assert len(await sound(other)) == 2


async def test_a_lost_swap_takes_its_checkpoint_with_it(tmp_path: Path) -> None:
    """Both make a checkpoint of size 4 on the edge of size 3; one is signed for nothing, and nobody ever sees it."""
    async with two_stores(tmp_path) as store, two_stores(tmp_path) as other:
        assert isinstance(store, CassandraStorage)
        await store.commit(numbered(3), STAMP)
        between, notes = Between(store), []
        commit = store._ledger.commit

        async def staged(after: int, batch: Any) -> bool:
            notes.append(batch.appended.edge.head)
            return await commit(after, batch)

        store._ledger.commit = staged  # type: ignore[method-assign]  # looks at what is staged, and passes on
        between.before = lambda: other.commit(numbered(1, 50), STAMP)
        assert await store.commit(numbered(1, 60), Stamp(STAMP.writer, NOW + 1)) == [Outcome.COMMITTED]
        assert [head.size for head in notes] == [4, 5]
        for reader in (store, other):
            assert len(await sound(reader)) == 5
            assert await reader.log_note(4) not in {None, notes[0].note}
            assert await reader.log_note(5) == notes[1].note
        last = await store.stored("88.118.8/N-60")
        assert last is not None
        assert last.index == 4


async def test_two_racing_writers_never_show_two_checkpoints_of_one_size(tmp_path: Path) -> None:
    """Three look on all the time, one of them a node that writes nothing; whatever any saw stays true to the end."""
    async with two_stores(tmp_path) as one, two_stores(tmp_path) as other, two_stores(tmp_path) as reader:
        seen: dict[int, set[bytes]] = {}
        racing = True

        async def race(name: str, store: Storage) -> None:
            for n in range(25):
                batch = [
                    logged_write(typed_record(f"88.118.8/{name}-{n}-{i}"), f"key-{name}-{n}-{i}") for i in range(3)
                ]
                assert await store.commit(batch, STAMP) == [Outcome.COMMITTED] * 3

        async def look(store: Storage) -> None:
            size = 0
            while racing:
                edge = await store.log_edge()
                assert edge.head.size >= size, "a head never goes back"
                assert {level: len(tile) // 32 for level, tile in edge.tiles.items()} == (
                    {0: edge.head.size} if edge.head.size else {}
                )
                size = edge.head.size
                seen.setdefault(size, set()).add(edge.head.note)

        looking = [asyncio.create_task(look(store)) for store in (one, other, reader)]
        await asyncio.gather(race("P", one), race("Q", other))
        racing = False
        await asyncio.gather(*looking)
        assert len(seen) > 10, "nobody looked"
        for size, notes in seen.items():
            assert notes == {await reader.log_note(size) or b""}
        assert len(await sound(reader)) == 150


async def test_a_late_writer_that_writes_again_changes_nothing_of_the_log(tmp_path: Path) -> None:
    async with two_stores(tmp_path) as late, two_stores(tmp_path) as other:
        assert isinstance(late, CassandraStorage)
        applied: list[Any] = []
        apply = late._ledger.apply

        async def remember(*arguments: Any) -> None:
            applied.append(arguments)
            await apply(*arguments)

        late._ledger.apply = remember  # type: ignore[method-assign,assignment]  # to do it again
        await late.commit(numbered(200), STAMP)
        await other.commit(numbered(200, 200), STAMP)
        before = await other.log_edge()
        await apply(*applied[0])
        assert await other.log_edge() == before
        assert len(await sound(other)) == len(await sound(late)) == 400


async def test_a_lone_writer_reads_no_edge_between_its_batches(tmp_path: Path) -> None:
    async with two_stores(tmp_path) as store:
        assert isinstance(store, CassandraStorage)
        await store.commit(numbered(3), STAMP)
        reads = [0]

        async def read() -> Any:
            reads[0] += 1
            raise AssertionError("it knows where its own log stands")

        log_head, store._tables.log_head = store._tables.log_head, read  # type: ignore[method-assign]  # counts
        await store.commit(numbered(HASHED_INLINE_MAX + 1, 3), STAMP)
        await store.commit(numbered(3, 100))
        await store.commit(numbered(3, 200), STAMP)
        store._tables.log_head = log_head  # type: ignore[method-assign]  # as it was
        assert reads == [0]
        assert len(await sound(store)) == 6 + HASHED_INLINE_MAX + 1


async def test_a_log_that_lacks_a_row_says_so_and_is_not_put_upon(tmp_path: Path) -> None:
    async with two_stores(tmp_path) as store:
        await store.commit(numbered(300), STAMP)
        assert isinstance(store, CassandraStorage)
        cases: list[tuple[str, Callable[[Storage], Awaitable[object]]]] = [
            ("DELETE FROM log_entry WHERE bundle = 0 AND idx = 16 AND ledger = %s", lambda s: s.log_entries(0, 300)),
            ("DELETE FROM log_tile WHERE level = 0 AND place = 0 AND ledger = %s", lambda s: s.log_tile(0, 0)),
            ("DELETE FROM log_tile WHERE level = 0 AND place = 1 AND ledger = %s", lambda s: s.log_edge()),
            ("UPDATE log_head SET range = 0x00 WHERE ledger = %s", lambda s: s.log_edge()),
        ]
        for statement, read in cases:
            await tear(store, statement)()
            async with two_stores(tmp_path) as later:
                with pytest.raises(RefusedError, match="the log in the store is damaged") as caught:
                    await read(later)
                assert (caught.value.reason, caught.value.field) == (Reason.INTERNAL, "storage.ledger")
        async with two_stores(tmp_path) as later:
            with pytest.raises(RefusedError, match="damaged"):
                await later.commit(numbered(1, 300), STAMP)
            assert await later.record("88.118.8/N-300") is None


async def test_versions_of_a_program_without_a_log_have_no_index(tmp_path: Path) -> None:
    async with two_stores(tmp_path) as store:
        await store.commit(numbered(1), STAMP)
        stored = await store.stored("88.118.8/N-0")
        assert stored is not None
        assert stored.index == 0
        where = "bucket = 0 AND identifier = '88.118.8/N-0' AND version = 1 AND stem = 0x" + b"88.118.8/N".hex()
        await tear(store, f"DELETE log_index FROM version WHERE {where} AND ledger = %s")()
        assert await store.stored("88.118.8/N-0") == type(stored)(1, stored.record, None)


# What witnesses have cosigned


async def test_racing_nodes_never_take_a_cosigned_checkpoint_back(tmp_path: Path) -> None:
    async with two_stores(tmp_path) as one, two_stores(tmp_path) as other:

        async def keep(store: Storage, sizes: range) -> None:
            for size in sizes:
                await store.put_witnessed(size, b"%d" % size)
                assert int(await store.witnessed() or b"0") >= size

        await asyncio.gather(keep(one, range(1, 40, 2)), keep(other, range(2, 40, 2)))
        assert await one.witnessed() == await other.witnessed() == b"39"
        assert await one.sequence() == 0, "it is no change, and takes the ledger from nobody"
        assert await one.log_edge() == Edge()


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_cosigned_checkpoint_whose_answer_was_lost_is_kept_once_it_is_told(
    tmp_path: Path, arrives: bool
) -> None:
    async with two_stores(tmp_path) as store, two_stores(tmp_path) as other:
        assert isinstance(store, CassandraStorage)
        await store.put_witnessed(3, b"three")
        bridge = store._open_bridge()
        once, lost = bridge.once, [0]

        async def loses(statement: Any, values: Any = (), *, profile: str) -> list[Any]:
            if profile == "swap" and not lost[0]:
                lost[0] = 1
                if arrives:
                    await once(statement, values, profile=profile)
                    await other.put_witnessed(5, b"five")
                raise OperationTimedOut
            return await once(statement, values, profile=profile)

        bridge.once = loses  # type: ignore[method-assign]  # one answer of a swap never comes
        await store.put_witnessed(4, b"four")
        assert lost == [1]
        assert await other.witnessed() == (b"five" if arrives else b"four")

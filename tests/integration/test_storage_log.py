"""Guarantee 9 of registry/storage.py, held against every adapter: what is committed with a stamp is logged with it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from idtrace import wire
from idtrace.checkpoint import Checkpoint
from idtrace.entry import Entry, EntryKind
from idtrace.errors import BusyError, Reason, RefusedError
from idtrace.merkle import check_consistency, check_inclusion, hash_leaf
from idtrace.note import Note, open_note
from idtrace.record import Record
from idtrace.tiles import EntryBundle, split_bundle, tiles_of
from registry.cassandra_batch import Batch
from registry.cassandra_ledger import Ledger
from registry.log_reading import LogReading
from registry.logbook import Edge, LogWriter, Stamp
from registry.storage import Claim, Grant, Logged, Outcome, SealedIn, Storage, Write
from registry.storage_cassandra import CassandraStorage
from registry.storage_sqlite import SqliteStorage
from tests.core_fixtures import NOW, ZONE, delegate, delegation, links
from tests.log_fixtures import naive_root
from tests.logged_fixtures import HERE, entry_of, log_signer, sealed_records
from tests.memory_storage import EngineError, MemoryStorage, once
from tests.registry_fixtures import typed_record, write_of
from tests.storages import STORAGES

STAMP = Stamp(LogWriter(log_signer()), NOW)
FIRST = typed_record("88.118.8/A", {"lot": "L1"})
SECOND = typed_record("88.118.8/A", {"lot": "L1"}, previous=FIRST)
OTHER = typed_record("88.118.8/B")
SERIAL = Claim("88.118.8/class.c", "serial", bytes(32))


@pytest.fixture(params=list(STORAGES))
async def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def store(engine: str, tmp_path: Path) -> AsyncIterator[Storage]:
    async with STORAGES[engine](tmp_path) as storage:
        yield storage


def logged_write(record: Record, key: str, **given: Any) -> Write:
    return replace(write_of(record, key, **given), entry=entry_of(record))


def numbered(count: int, first: int = 0) -> list[Write]:
    return [logged_write(typed_record(f"88.118.8/N-{n}"), f"key-{n}") for n in range(first, first + count)]


def keys_entry() -> Entry:
    signed = delegate(delegation(ZONE))
    return Entry(EntryKind.KEYS, HERE, NOW, signed.payload, signed.signatures)


async def entries_of(store: Storage) -> list[bytes]:
    return await store.log_entries(0, 100_000)


async def sound(store: Storage) -> list[bytes]:
    """Require that edge, notes, tiles, entries and what LogReading makes of them agree; the entries."""
    edge = await store.log_edge()
    entries = await entries_of(store)
    assert edge.head.size == len(entries)
    if not entries:
        assert edge == Edge()
        return []
    leaves = [hash_leaf(entry) for entry in entries]
    root = naive_root(leaves)
    assert edge.head.range.root() == root
    note = Note.parse(edge.head.note)
    open_note(note, [log_signer().key])
    assert Checkpoint.parse(note.text) == Checkpoint(STAMP.writer.origin, len(entries), root)
    assert await store.log_note(len(entries)) == edge.head.note
    reading = LogReading(store)
    for tile in tiles_of(len(entries)):
        assert len(await reading.tile(tile)) == tile.width * 32
        if not tile.is_full:
            assert edge.tiles[tile.level] == await store.log_tile(tile.level, tile.index)
    assert edge.tiles.keys() == Edge.partial_tiles(len(entries)).keys()
    for index in {0, len(entries) // 2, len(entries) - 1}:
        check_inclusion(leaves[index], index, len(entries), await reading.inclusion(index, len(entries)), root)
    return entries


async def test_an_empty_store_has_an_empty_log(store: Storage) -> None:
    assert await sound(store) == []
    assert [await store.log_tile(0, 0), await store.log_note(0), await store.witnessed()] == [None] * 3
    assert await store.commit([], STAMP) == []
    assert await sound(store) == []


async def test_entries_stand_in_the_order_of_the_winners_and_losers_are_not_logged(store: Storage) -> None:
    losers = [
        (logged_write(OTHER, "key-1"), Outcome.KEY_USED),
        (logged_write(typed_record("88.118.8/A", {"lot": "L9"}), "key-7"), Outcome.CONFLICT),
        (logged_write(OTHER, "key-2", claims=(SERIAL,)), Outcome.CLAIMED),
    ]
    last = typed_record("88.118.8/C")
    batch = [logged_write(FIRST, "key-1", claims=(SERIAL,)), *(w for w, _ in losers), logged_write(last, "key-9")]
    outcomes = [Outcome.COMMITTED, *(outcome for _, outcome in losers), Outcome.COMMITTED]
    assert await store.commit(batch, STAMP) == outcomes
    assert await sound(store) == [entry_of(FIRST).to_bytes(), entry_of(last).to_bytes()]
    assert await store.commit([w for w, _ in losers], STAMP) == [Outcome.KEY_USED, Outcome.CONFLICT, Outcome.CLAIMED]
    assert len(await sound(store)) == 2


async def test_a_stored_version_tells_its_index_and_what_was_not_logged_has_none(store: Storage) -> None:
    await store.commit([write_of(OTHER, "key-0")])
    await store.commit([replace(write_of(typed_record("88.118.8/C"), "key-c"), entry=None)], STAMP)
    await store.commit([logged_write(FIRST, "key-1")], STAMP)
    await store.commit([*numbered(3, 10), logged_write(SECOND, "key-A2")], STAMP)
    asked = (("A", 1), ("A", 2), ("A", 0), ("B", 0))
    told = [await store.stored(f"88.118.8/{name}", version) for name, version in asked]
    assert [(one.version, one.index) for one in told if one] == [(1, 0), (2, 4), (2, 4), (1, None)]
    uncounted = await store.stored("88.118.8/C")
    assert uncounted is not None
    assert uncounted.index is None
    assert next(one.record for one in told if one) == await store.record("88.118.8/A", 1)
    assert await store.stored("88.118.8/A", 3) is None
    assert await store.stored("88.118.8/none") is None
    entries = await sound(store)
    assert wire.record_from_bytes((told[1] or uncounted).record).signed.payload in entries[4]


async def test_records_under_a_seal_stand_behind_it_and_those_that_lose_are_named_in_it(store: Storage) -> None:
    records = sealed_records(4)
    hashes = tuple(one.hash for one in records)
    writes = []
    for n, one in enumerate(records):
        assert one.sealed is not None
        key = "key-lost" if n == 2 else f"key-sealed-{n}"
        writes.append(replace(logged_write(one, key), receipt=b"", sealed=SealedIn(one.sealed, hashes)))
    await store.commit([logged_write(OTHER, "key-lost")], STAMP)
    outcomes = await store.commit(writes, STAMP)
    assert outcomes == [Outcome.COMMITTED, Outcome.COMMITTED, Outcome.KEY_USED, Outcome.COMMITTED]
    stored = [await store.stored(write.identifier) for write in writes]
    assert [one.index if one else None for one in stored] == [2, 3, None, 4]
    entries = [Entry.from_bytes(entry) for entry in await sound(store)]
    assert [entry.kind for entry in entries] == [EntryKind.RECORD, EntryKind.SEAL, *[EntryKind.RECORD] * 3]
    assert entries[1].absent == ((2, hashes[2]),)


async def test_a_commit_without_a_stamp_leaves_the_log_as_it_is(store: Storage) -> None:
    await store.commit(numbered(2), STAMP)
    before = await store.log_edge()
    await store.commit(numbered(2, 2))
    assert await store.log_edge() == before


@pytest.mark.parametrize("again", ["reopen", "restart"])
async def test_the_edge_survives(engine: str, tmp_path: Path, again: str) -> None:
    if engine == "memory" and again == "restart":
        pytest.skip("not run: memory: its data end with it")
    async with STORAGES[engine](tmp_path) as store:
        await store.commit(numbered(300), STAMP)
        before = await store.log_edge()
        if again == "reopen":
            await store.reopen()
            assert await store.log_edge() == before
            await store.commit(numbered(300, 300), STAMP)
            assert len(await sound(store)) == 600
            return
    async with STORAGES[engine](tmp_path) as store:
        assert await store.log_edge() == before
        await store.commit(numbered(300, 300), STAMP)
        assert len(await sound(store)) == 600


async def test_every_commit_has_its_checkpoint_and_each_is_consistent_with_the_last(store: Storage) -> None:
    for first, count in ((0, 1), (1, 254), (255, 2), (257, 300)):
        await store.commit(numbered(count, first), STAMP)
    leaves = [hash_leaf(entry) for entry in await sound(store)]
    reading = LogReading(store)
    for size in (1, 255, 257):
        note = await store.log_note(size)
        assert note is not None
        assert Checkpoint.parse(Note.parse(note).text).root == naive_root(leaves[:size])
        proof = await reading.consistency(size, len(leaves))
        check_consistency(size, naive_root(leaves[:size]), len(leaves), naive_root(leaves), proof)
    assert [await store.log_note(size) for size in (0, 2, 256, 558)] == [None] * 4


async def test_a_bundle_of_entries_is_read_as_it_was_written(store: Storage) -> None:
    await store.commit(numbered(300), STAMP)
    reading, entries = LogReading(store), await entries_of(store)
    full, partial = EntryBundle(0), EntryBundle(1, 44)
    assert split_bundle(full, await reading.bundle(full)) == tuple(entries[:256])
    assert split_bundle(partial, await reading.bundle(partial)) == tuple(entries[256:])
    assert await store.log_entries(299, 50) == entries[299:]
    assert await store.log_entries(300, 50) == []


async def test_what_the_log_has_not_grown_to_is_refused(store: Storage) -> None:
    await store.commit(numbered(3), STAMP)
    reading = LogReading(store)
    for asked in (reading.bundle(EntryBundle(0, 4)), reading.bundle(EntryBundle(1, 1)), reading.inclusion(0, 4)):
        with pytest.raises(RefusedError) as caught:
            await asked
        assert caught.value.reason is Reason.NOT_LOGGED


async def test_a_clock_that_has_gone_back_writes_nothing(store: Storage) -> None:
    await store.commit(numbered(1), STAMP)
    before = (await store.log_edge(), await store.sequence(), await store.grants(), await store.chains())
    back = Stamp(STAMP.writer, NOW - 1)
    grant = Grant(ZONE, "applied", False, "", NOW)
    chain = [wire.signed_to_bytes(signed) for signed in links("88")]
    attempts: list[Callable[[], Any]] = [
        lambda: store.commit([logged_write(FIRST, "key-A")], back),
        lambda: store.put_grant(grant, None, (ZONE, "key-g"), bytes(32), Logged(back, keys_entry())),
        lambda: store.put_chain("88", chain, Logged(back, keys_entry())),
    ]
    for attempt in attempts:
        with pytest.raises(BusyError) as caught:
            await attempt()
        assert caught.value.reason is Reason.CLOCK_BACK
        await store.reopen()
    assert (await store.log_edge(), await store.sequence(), await store.grants(), await store.chains()) == before
    assert await store.record("88.118.8/A") is None
    assert await store.commit([logged_write(FIRST, "key-A")], STAMP) == [Outcome.COMMITTED]
    assert len(await sound(store)) == 2


async def test_grants_and_chains_are_logged_with_what_they_change(store: Storage) -> None:
    await store.commit(numbered(1), STAMP)
    logged = Logged(STAMP, keys_entry())
    grant = Grant(ZONE, "applied", False, "", NOW)
    assert await store.put_grant(grant, None, (ZONE, "key-g1"), bytes(32), logged) is Outcome.COMMITTED
    assert await store.put_grant(grant, None, (ZONE, "key-g2"), bytes(32), logged) is Outcome.CONFLICT
    assert await store.put_grant(grant, grant, (ZONE, "key-g1"), bytes(32), logged) is Outcome.KEY_USED
    assert len(await sound(store)) == 2
    chain = [wire.signed_to_bytes(signed) for signed in links("88")]
    await store.put_chain("88", chain, logged)
    assert (await sound(store))[1:] == [keys_entry().to_bytes()] * 2
    await store.put_chain("88", chain)
    assert len(await sound(store)) == 3


async def test_the_witnessed_checkpoint_only_grows(store: Storage) -> None:
    for size, note, kept in ((5, b"five", b"five"), (4, b"four", b"five"), (5, b"again", b"again"), (9, b"9", b"9")):
        await store.put_witnessed(size, note)
        assert await store.witnessed() == kept
    await store.reopen()
    assert await store.witnessed() == b"9"


@asynccontextmanager
async def two_handles(engine: str, folder: Path) -> AsyncIterator[tuple[Storage, Storage]]:
    async with STORAGES[engine](folder) as one, STORAGES[engine](folder) as other:
        yield one, other


async def test_two_handles_never_make_two_checkpoints_of_one_size(engine: str, tmp_path: Path) -> None:
    async with two_handles(engine, tmp_path) as handles:

        async def work(which: int) -> list[Outcome]:
            told = []
            for n in range(20):
                mine = typed_record(f"88.118.8/{which}-{n}")
                wanted = typed_record(f"88.118.8/R-{n}", {"by": str(which)})
                batch = [logged_write(wanted, f"key-{which}-{n}"), logged_write(mine, f"own-{which}-{n}")]
                told += await handles[which].commit(batch, STAMP)
            return told

        told = await asyncio.gather(work(0), work(1))
        assert sorted(outcome.name for outcomes in told for outcome in outcomes).count("COMMITTED") == 60
        # A checkpoint of a second content would break the primary key of its size, and the chain of consistency.
        entries = await sound(handles[0])
        assert entries == await sound(handles[1])
        assert len(entries) == len(set(entries)) == 60
        leaves = [hash_leaf(entry) for entry in entries]
        for size in range(61):
            note = await handles[0].log_note(size)
            if note is not None:
                assert Checkpoint.parse(Note.parse(note).text).root == naive_root(leaves[:size])


class Failing:
    """The store's connection, whose next COMMIT raises, before or after it was carried out."""

    def __init__(self, real: sqlite3.Connection, *, persists: bool) -> None:
        self._real, self._persists, self._armed = real, persists, True

    def execute(self, statement: str, given: Sequence[Any] = ()) -> sqlite3.Cursor:
        if statement == "COMMIT" and self._armed:
            self._armed = False
            if self._persists:
                self._real.execute("COMMIT")
            raise sqlite3.OperationalError("disk I/O error")
        return self._real.execute(statement, given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def fail_once(ledger: Ledger, *, persists: bool) -> None:
    """Let the next batch raise, before it is swapped or when it is applied."""
    commit = ledger.commit

    async def fails(after: int, batch: Batch) -> bool:
        ledger.commit = commit  # type: ignore[method-assign]  # it fails once
        if persists:
            assert await commit(after, batch)
        raise EngineError("the ring said no")

    ledger.commit = fails  # type: ignore[method-assign]  # until it has failed


def let_fail(store: Storage, *, persists: bool) -> None:
    match store:
        case MemoryStorage():
            if persists:
                store.fail_and_persist = once()
            else:
                store.fail_and_not_persist = once()
        case SqliteStorage():
            store._writer = Failing(store._writer, persists=persists)  # type: ignore[assignment]  # stands in for it
        case CassandraStorage():
            fail_once(store._ledger, persists=persists)
        case _:
            raise AssertionError("an engine that this does not know")


@pytest.mark.parametrize("persists", [False, True])
@pytest.mark.parametrize("what", ["commit", "grant", "chain"])
async def test_a_change_that_raises_leaves_an_edge_that_agrees_with_the_entries(
    store: Storage, what: str, persists: bool
) -> None:
    await store.commit(numbered(255), STAMP)
    let_fail(store, persists=persists)
    logged = Logged(Stamp(STAMP.writer, NOW + 1), keys_entry())
    grant, chain = Grant(ZONE, "applied", False, "", NOW), [wire.signed_to_bytes(signed) for signed in links("88")]
    changes: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "commit": lambda: store.commit(numbered(2, 255), logged.stamp),
        "grant": lambda: store.put_grant(grant, None, (ZONE, "key-g"), bytes(32), logged),
        "chain": lambda: store.put_chain("88", chain, logged),
    }
    with pytest.raises((sqlite3.OperationalError, EngineError)):
        await changes[what]()
    await store.reopen()
    added = (2 if what == "commit" else 1) if persists else 0
    assert len(await sound(store)) == 255 + added
    later = Stamp(STAMP.writer, NOW + 2)
    again = await store.commit(numbered(2, 255), later)
    assert again == [Outcome.KEY_USED if persists and what == "commit" else Outcome.COMMITTED] * 2
    await store.commit(numbered(2, 400), later)
    assert len(await sound(store)) == 259 + (1 if persists and what != "commit" else 0)


async def test_a_commit_whose_connection_goes_on_after_a_failure_makes_no_second_root(tmp_path: Path) -> None:
    """Without ``reopen``: what the handle remembers of the edge must not outlive a commit that raised."""
    store = SqliteStorage(tmp_path / "registry.sqlite3")
    await store.commit(numbered(1), STAMP)
    for n, persists in enumerate((False, True, False, True), start=1):
        let_fail(store, persists=persists)
        with pytest.raises(sqlite3.OperationalError):
            await store.commit(numbered(1, n), Stamp(STAMP.writer, NOW + n))
        await store.commit(numbered(1, 100 + n), Stamp(STAMP.writer, NOW + n))
        await sound(store)
    assert len(await sound(store)) == 7
    await store.close()

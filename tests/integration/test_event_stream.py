"""Subscriptions over every store: each event once and in order, whoever is slow, leaves, returns or writes beside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from idtrace.epcis.query import parse
from idtrace.errors import BusyError, Reason, RefusedError
from registry import event_stream
from registry.event_query import EventQueries
from registry.event_stream import EventStreams, Told
from registry.storage import EVENTS_A_COMMIT, Storage
from tests.capture_fixtures import observed
from tests.core_fixtures import NOW
from tests.memory_storage import MemoryStorage
from tests.recorded_events import keep, keep_many
from tests.storages import STORAGES

EVERYTHING = parse({})
SOON = 10.0


@pytest.fixture(params=list(STORAGES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    async with STORAGES[request.param](tmp_path) as storage:
        yield storage


@asynccontextmanager
async def running(store: Storage) -> AsyncIterator[EventStreams]:
    streams = EventStreams(store, EventQueries(store))
    task = asyncio.create_task(streams.run())
    try:
        yield streams
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def heard(telling: AsyncGenerator[Told], count: int) -> tuple[list[str], int]:
    """The next events, and the place up to which everything was told."""
    names: list[str] = []
    told = Told((), -1)
    while len(names) < count:
        told = await asyncio.wait_for(anext(telling), SOON)
        names += [one.identifier for one in told.events]
    return names, told.sequence


async def test_what_is_recorded_is_told_once_and_in_order(store: Storage) -> None:
    before = await keep_many(store, range(3))
    async with (
        running(store) as streams,
        aclosing(streams.follow(EVERYTHING, 0)) as old,
        aclosing(streams.follow(EVERYTHING, None)) as new,
    ):
        assert await heard(old, 3) == (before, (await store.events(0, 9))[-1].sequence)
        assert (await anext(new)).events == (), "who begins now hears nothing of before"
        later: list[str] = []
        for first in range(10, 40, 3):
            later += await keep_many(store, range(first, first + 3))
            streams.news()
        assert (await heard(new, 30))[0] == (await heard(old, 30))[0] == later


async def test_another_nodes_event_is_told_without_a_word_from_it(store: Storage) -> None:
    async with running(store) as streams, aclosing(streams.follow(EVERYTHING, None)) as telling:
        await anext(telling)
        waiting = asyncio.ensure_future(heard(telling, 1))
        await asyncio.sleep(0.05)
        kept = await keep(store, observed(1))  # nobody calls news()
        assert (await waiting)[0] == kept


async def test_who_comes_back_hears_all_since_and_nothing_twice(store: Storage) -> None:
    async with running(store) as streams:
        expected: list[str] = []
        told: list[str] = []
        place = 0
        for turn in range(6):
            expected += await keep_many(store, range(turn * 5, turn * 5 + 5))
            async with aclosing(streams.follow(EVERYTHING, place)) as telling:
                names, place = await heard(telling, 1)
                told += names
        async with aclosing(streams.follow(EVERYTHING, place)) as telling:
            told += (await heard(telling, len(expected) - len(told)))[0] if len(told) < len(expected) else []
        assert told == expected


async def test_only_what_meets_the_query_is_told_and_the_place_moves_on(
    store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "READ_AT_ONCE", 4)
    monkeypatch.setattr(event_stream, "QUIET_SECONDS", 0.1)
    wanted: list[str] = []
    for first in range(0, 24, 6):
        kept = await keep(
            store, *(observed(n, bizStep="packing" if n % 6 == 5 else "holding") for n in range(first, first + 6))
        )
        wanted.append(kept[-1])
    last = (await store.events(0, 100))[-1].sequence
    async with running(store) as streams:
        async with aclosing(streams.follow(parse({"EQ_bizStep": "packing"}), 0)) as telling:
            assert (await heard(telling, 4))[0] == wanted
        async with aclosing(streams.follow(parse({"EQ_bizStep": "shipping"}), 0)) as telling:
            places = [(await asyncio.wait_for(anext(telling), SOON)).sequence for _ in range(4)]
            assert places[0] == 0
            assert places == sorted(places)
            assert places[-1] == last, "signs of life tell how far everything has been looked at"


async def test_a_slow_reader_costs_the_others_and_the_memory_nothing(store: Storage) -> None:
    async with (
        running(store) as streams,
        aclosing(streams.follow(EVERYTHING, 0)) as slow,
        aclosing(streams.follow(EVERYTHING, 0)) as fast,
    ):
        await anext(slow)  # and then it does not read for long
        expected: list[str] = []
        for first in range(0, 400, 100):
            expected += await keep_many(store, range(first, first + 100))
            assert (await heard(fast, 100))[0] == expected[-100:]
        assert (await heard(slow, 400))[0] == expected


async def test_a_message_is_bounded_by_its_bytes(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "TOLD_BYTES_MAX", 2_500)
    kept = await keep_many(store, range(6), **{"ext:note": "x" * 1_000})
    async with running(store) as streams, aclosing(streams.follow(EVERYTHING, 0)) as telling:
        await anext(telling)
        sizes: list[int] = []
        names: list[str] = []
        while len(names) < 6:
            told = await anext(telling)
            sizes.append(len(told.events))
            names += [one.identifier for one in told.events]
        assert (names, sizes) == (kept, [2, 2, 2])


async def test_a_place_that_is_yet_to_come_is_another_stores(store: Storage) -> None:
    await keep(store, observed(1))
    head = (await store.sequence() + 1) * EVENTS_A_COMMIT - 1
    streams = EventStreams(store, EventQueries(store))
    assert (await anext(streams.follow(EVERYTHING, head))).sequence == head
    with pytest.raises(RefusedError) as caught:
        await anext(streams.follow(EVERYTHING, head + 1))
    assert (caught.value.reason, caught.value.field) == (Reason.CHANGES_GONE, "after")


async def test_so_many_listen_and_who_leaves_makes_room(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "SUBSCRIBERS_MAX", 2)
    streams = EventStreams(store, EventQueries(store))
    first, second = streams.follow(EVERYTHING, None), streams.follow(EVERYTHING, None)
    await anext(first)
    await anext(second)
    with pytest.raises(BusyError, match="2 subscribers"):
        await anext(streams.follow(EVERYTHING, None))
    await first.aclose()
    async with aclosing(streams.follow(EVERYTHING, None)) as third:
        await anext(third)
    await second.aclose()


async def test_nothing_is_lost_while_the_store_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "POLL_SECONDS", 0.02)
    store = MemoryStorage()
    real, broken = store.sequence, False

    async def sequence() -> int:
        if broken:
            raise OSError("the disk is away")
        return await real()

    monkeypatch.setattr(store, "sequence", sequence)
    async with running(store) as streams, aclosing(streams.follow(EVERYTHING, None)) as telling:
        await anext(telling)
        waiting = asyncio.ensure_future(heard(telling, 1))
        await asyncio.sleep(0.05)
        broken = True
        kept = await keep(store, observed(1), now=NOW)
        await asyncio.sleep(0.1)
        assert not waiting.done()
        broken = False
        assert (await waiting)[0] == kept


async def test_nobody_is_asked_while_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "POLL_SECONDS", 0.01)
    store = MemoryStorage()
    asked: list[Any] = []
    real = store.sequence

    async def sequence() -> int:
        asked.append(None)
        return await real()

    monkeypatch.setattr(store, "sequence", sequence)
    async with running(store) as streams:
        await asyncio.sleep(0.05)
        assert asked == []
        async with aclosing(streams.follow(EVERYTHING, None)) as telling:
            await anext(telling)
            await asyncio.sleep(0.05)
            assert len(asked) > 1
        await asyncio.sleep(0.03)
        count = len(asked)
        await asyncio.sleep(0.05)
        assert len(asked) == count

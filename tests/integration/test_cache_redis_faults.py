"""Whatever happens to Redis costs speed, never an answer: it dies, hangs, fills up, forgets, goes back, lies."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis
import redis.asyncio

from idtrace.bundle import Verdict
from idtrace.record import Status
from resolver.driver import Source
from resolver.redis_link import RedisPlace
from resolver.shared_cache import COMPARE_AND_SET, Entry, EntryKind, Keys, Seal, supersedes, tombstone, version_claimed
from tests.engines.redis import RedisServer
from tests.redis_fixtures import KEYS, PATIENT_MS, SHARED_KEY, Member, item, members, tree, version_of
from tests.redis_load import WORST_MS, under_load
from tests.simulator import NOW


@pytest.fixture(autouse=True)
def _empty(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()


async def found(client: redis.asyncio.Redis, key: bytes) -> bytes | None:
    value = await client.get(key)
    assert not isinstance(value, str), "nothing here is decoded"
    return value


async def stored(client: redis.asyncio.Redis, key: bytes) -> bytes:
    value = await found(client, key)
    assert value is not None
    return value


async def test_killed(redis_server: RedisServer, record_property: Callable[[str, object], None]) -> None:
    async def fault(_group: list[Member]) -> None:
        await asyncio.to_thread(redis_server.kill)
        await asyncio.sleep(1.0)

    group = await under_load(redis_server.url, record_property, "killed", fault)
    assert all(one.sharing.counters.lost >= 1 for one in group)


async def test_restarted_and_used_again(
    redis_server: RedisServer, record_property: Callable[[str, object], None]
) -> None:
    async def fault(_group: list[Member]) -> None:
        await asyncio.to_thread(redis_server.kill)
        await asyncio.to_thread(redis_server.start)
        await asyncio.sleep(1.0)
        await asyncio.sleep(1.0)

    group = await under_load(redis_server.url, record_property, "restarted", fault)
    assert all(one.sharing.counters.written > 0 for one in group)


async def paused(server: RedisServer, seconds: float, record_property: Callable[[str, object], None]) -> None:
    async def fault(_group: list[Member]) -> None:
        server.pause()
        await asyncio.sleep(seconds)
        server.resume()
        await asyncio.sleep(1.0)
        await asyncio.sleep(1.0)

    group = await under_load(server.url, record_property, f"stopped for {seconds:.0f} s", fault)
    assert all(one.sharing.counters.failures >= 2 for one in group)


async def test_stopped(redis_server: RedisServer, record_property: Callable[[str, object], None]) -> None:
    await paused(redis_server, 3.0, record_property)


@pytest.mark.faults
async def test_stopped_for_long(redis_server: RedisServer, record_property: Callable[[str, object], None]) -> None:
    await paused(redis_server, 15.0, record_property)


async def test_emptied_again_and_again(
    redis_server: RedisServer, record_property: Callable[[str, object], None]
) -> None:
    async def fault(_group: list[Member]) -> None:
        async with redis.asyncio.Redis.from_url(redis_server.url) as client:
            for _ in range(20):
                await client.flushall()
                await client.script_flush()
                await asyncio.sleep(0.02)

    group = await under_load(redis_server.url, record_property, "emptied", fault)
    assert all(one.sharing.counters.refused == 0 for one in group)  # a flushed script is loaded again


@pytest.mark.parametrize("policy", ["allkeys-lru", "noeviction"])
async def test_full(
    policy: str, tmp_path: Path, redis_server: RedisServer, record_property: Callable[[str, object], None]
) -> None:
    del redis_server  # says whether there is Redis at all
    server = RedisServer(tmp_path / "small", maxmemory="2mb")
    server.start()
    try:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("maxmemory-policy", policy)
            with contextlib.suppress(redis.ResponseError):
                for number in range(1_000):
                    client.set(f"other:{number}", bytes(4_096))

        async def fault(_group: list[Member]) -> None:
            async with redis.asyncio.Redis.from_url(server.url) as client:
                for number in range(200):
                    with contextlib.suppress(redis.ResponseError):
                        await client.set(f"churn:{number}", bytes(16_384))
                    await asyncio.sleep(0.002)

        group = await under_load(server.url, record_property, f"full, {policy}", fault)
        assert (sum(one.sharing.counters.refused for one in group) > 0) == (policy == "noeviction")
    finally:
        server.stop()


class Forwarder:
    """A port in front of servers: slow, or in front of another one from now on."""

    def __init__(self) -> None:
        self.target = 0
        self.delay = 0.0
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, out = await asyncio.open_connection("127.0.0.1", self.target)
        for source, drain in ((reader, out), (there, writer)):
            task = asyncio.create_task(self.pump(source, drain))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def pump(self, source: asyncio.StreamReader, drain: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                await asyncio.sleep(self.delay)
                drain.write(data)
        except OSError:
            pass
        finally:
            drain.close()

    def cut(self) -> None:
        for task in self.tasks:
            task.cancel()


@asynccontextmanager
async def forwarder(target: int) -> AsyncIterator[tuple[Forwarder, str]]:
    made = Forwarder()
    made.target = target
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    try:
        yield made, f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()
        made.cut()
        await asyncio.gather(*made.tasks, return_exceptions=True)


@pytest.mark.parametrize("delay_ms", [10, 40, 200])
async def test_slow(delay_ms: int, redis_server: RedisServer, record_property: Callable[[str, object], None]) -> None:
    async with forwarder(redis_server.port) as (between, url):

        async def fault(_group: list[Member]) -> None:
            between.delay = delay_ms / 2_000
            await asyncio.sleep(1.0)

        await under_load(url, record_property, f"slow by {delay_ms} ms", fault)


async def test_failover_to_an_older_replica_takes_nobody_back(tmp_path: Path, redis_server: RedisServer) -> None:
    built = tree()
    replica = RedisServer(tmp_path / "replica", replica_of=redis_server)
    replica.start()
    try:
        async with forwarder(redis_server.port) as (between, url), members(built, url) as (first, second):
            assert await first.version(item(1)) == 1
            await first.shared()
            with redis.Redis.from_url(replica.url) as client:
                await first.until(lambda: bool(client.exists(KEYS.answer(item(1)))))
                client.replicaof("NO", "ONE")
            built.register(item(1), {"name": "vial"}, status=Status.RECALLED)
            assert await first.version(item(1), fresh=True) == 2
            await first.shared()
            asked = len(built.asked)
            assert await second.version(item(1)) == 2  # from Redis: it has asked no node itself
            assert len(built.asked) == asked
            between.target = replica.port
            between.cut()
            for one in (first, second):
                await one.until(lambda: one.sharing.counters.lost == 1 and one.store.up)  # noqa: B023 - awaited here
                one.resolver.cache.drop(item(1))
                assert await one.version(item(1)) == 2
            # Whoever met the older version has put a newer one, or a tombstone, in its place.
            await second.shared()
            with redis.Redis.from_url(replica.url) as client:
                assert version_claimed(client.get(KEYS.answer(item(1)))) == 2
    finally:
        replica.stop()


async def test_replica_that_takes_no_writes_is_read(tmp_path: Path, redis_server: RedisServer) -> None:
    built = tree()
    replica = RedisServer(tmp_path / "replica", replica_of=redis_server)
    replica.start()
    try:
        async with members(built, redis_server.url, 1) as (first,), members(built, replica.url, 1) as (second,):
            await first.resolver.resolve(item(1))
            await first.shared()
            with redis.Redis.from_url(replica.url) as client:
                await first.until(lambda: bool(client.exists(KEYS.answer(item(1)))))
            assert (await second.resolver.resolve(item(1))).source is Source.CACHE
            assert (await second.resolver.resolve(item(2))).resolution.verdict is Verdict.FOUND
            await second.shared()
            assert second.sharing.counters.refused >= 1
    finally:
        replica.stop()


async def test_forged_entries_are_misses_and_are_cleared_away(redis_server: RedisServer) -> None:
    built = tree()
    async with members(built, redis_server.url) as (first, second):
        for number in (1, 2):
            await first.resolver.resolve(item(number))
        await first.shared()
        key = KEYS.answer(item(1))
        async with redis.asyncio.Redis.from_url(redis_server.url) as client:
            good, other = await stored(client, key), await stored(client, KEYS.answer(item(2)))
            forgeries = [
                b"",
                b"x",
                b"9" * 200,
                random.Random(1).randbytes(3_000),
                good[:-1],
                good[:60],
                good + b"x",
                other,
                b"9" * 16 + good[16:],
                good[:-10] + b"0123456789",
            ]
            for count, forged in enumerate(forgeries, 1):
                await client.set(key, forged)
                second.forget()
                assert await second.version(item(1)) == 1
                assert second.sharing.counters.forged == count
                await second.shared()
                await second.shared()
                assert await client.get(key) != forged  # ours stands there again
            await client.delete(key)
            await client.hset(key, "not", "a string")
            second.forget()
            assert await second.version(item(1)) == 1


async def test_replayed_entry_takes_nobody_back_who_has_seen_the_newer_and_ends_at_its_own_time(
    redis_server: RedisServer,
) -> None:
    built = tree()
    async with members(built, redis_server.url, 3) as (first, second, third):
        await first.resolver.resolve(item(1))
        await first.shared()
        key = KEYS.answer(item(1))
        async with redis.asyncio.Redis.from_url(redis_server.url) as client:
            old = await stored(client, key)
            built.register(item(1), {"name": "vial"}, status=Status.RECALLED)
            assert await first.version(item(1), fresh=True) == 2
            await first.shared()
            assert await second.version(item(1)) == 2
            for one in (first, second):
                await client.set(key, old)
                one.resolver.cache.drop(item(1))
                assert await one.version(item(1)) == 2
                assert one.sharing.counters.outdated == 1
                await one.shared()
            await client.set(key, old)
            replayed = await third.resolver.resolve(item(1))
            opened = Seal(SHARED_KEY, built.anchor).open(key, old, now=int(time.time()))
            assert isinstance(opened, Entry)
            # It never saw the newer one: what it has is as old as any cache may be, and no older.
            assert version_of(replayed) == 1
            assert replayed.ttl_ms <= (opened.expires - time.time()) * 1000 + 1_000


async def test_plain_set_leaves_stale_values_and_compare_and_set_none(
    redis_server: RedisServer, record_property: Callable[[str, object], None]
) -> None:
    """Readers that were slow write what they read before the owner's change (facts of NSDI 2013, figure 2)."""
    rounds, stale = 150, {"plain": 0, "versions": 0}
    seal, keys = Seal(SHARED_KEY, tree(0).anchor), Keys(b"race:")
    chance = random.Random(11)
    async with redis.asyncio.Redis.from_url(redis_server.url) as client:
        script = client.register_script(COMPARE_AND_SET)
        for kind in stale:
            for number in range(rounds):
                key, origin = keys.answer(item(number)), [1]

                async def put(version: int, key: bytes = key, kind: str = kind) -> None:
                    entry = Entry(EntryKind.RECORD, version, NOW * 1000, NOW + 300, b"%d" % version)
                    if kind == "plain":
                        await client.set(key, seal.seal(key, entry))
                    else:
                        await script(keys=[key], args=[seal.seal(key, entry), 60_000])

                async def reader(origin: list[int] = origin, put: Callable[[int], Awaitable[None]] = put) -> None:
                    await asyncio.sleep(chance.random() / 1_000)
                    version = origin[0]
                    await asyncio.sleep(chance.random() / 500)
                    await put(version)

                async def owner(origin: list[int] = origin, key: bytes = key, kind: str = kind) -> None:
                    await asyncio.sleep(chance.random() / 1_000)
                    origin[0] = 2
                    if kind == "plain":
                        await client.delete(key)
                    else:
                        await script(keys=[key], args=[seal.seal(key, tombstone(2)), 60_000])

                await asyncio.gather(*(reader() for _ in range(4)), owner())
                left = seal.open(key, await found(client, key), now=NOW)
                stale[kind] += isinstance(left, Entry) and left.version < origin[0]
    record_property("stale after quiet", f"plain SET {stale['plain']} of {rounds}, versions {stale['versions']}")
    assert stale["plain"] > 0
    assert stale["versions"] == 0


def entries() -> Iterator[Entry]:
    for kind in (EntryKind.RECORD, EntryKind.PREFIX, EntryKind.TOMBSTONE):
        for version in (0, 9, 10, 2**53 - 1):
            for tick in (0, 99, 100):
                yield Entry(kind, version, tick, NOW + 300, b"x")


async def test_script_orders_entries_as_the_rule_does(redis_server: RedisServer) -> None:
    seal = Seal(SHARED_KEY, tree(0).anchor)
    async with redis.asyncio.Redis.from_url(redis_server.url) as client:
        script = client.register_script(COMPARE_AND_SET)
        for held in entries():
            for entry in entries():
                await client.set(b"k", seal.seal(b"k", held))
                reply = int(await script(keys=[b"k"], args=[seal.seal(b"k", entry), 60_000]))
                assert reply == (0 if supersedes(entry, held) else held.version + 1), (entry, held)


async def test_redis_that_is_not_there_is_not_waited_for() -> None:
    built = tree()
    async with forwarder(1) as (_, url):
        from tests.redis_fixtures import member

        alone = member(built, RedisPlace(url, op_timeout_ms=PATIENT_MS))
        alone.resolver.start()
        await alone.until(lambda: alone.sharing.counters.failures >= 3)
        started = time.perf_counter()
        assert (await alone.resolver.resolve(item(1))).resolution.verdict is Verdict.FOUND
        assert time.perf_counter() - started < WORST_MS / 1000
        await alone.resolver.close()

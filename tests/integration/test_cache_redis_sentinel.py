"""Redis behind Sentinel: the master dies, a replica that knows less takes its place, and nobody is taken back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import redis

from idtrace.record import Status
from resolver.driver import Source
from resolver.redis_link import RedisPlace
from tests.engines.redis import RedisSentinel, RedisServer
from tests.redis_fixtures import KEYS, PATIENT_MS, Member, item, members, tree
from tests.redis_load import PLACE, under_load

NAME = "shared"
DOWN_AFTER_MS = 500
# Noticed, voted for, promoted, told: it takes some 2 s on a free machine.
PROMOTED_SECONDS = 30.0


@dataclass
class Watched:
    """A master, a replica that may be promoted, one that may not, and three sentinels."""

    master: RedisServer
    heir: RedisServer
    other: RedisServer
    sentinels: list[RedisSentinel]

    def place(self, op_timeout_ms: int = PATIENT_MS) -> RedisPlace:
        at = tuple(("127.0.0.1", sentinel.port) for sentinel in self.sentinels)
        return replace(PLACE, op_timeout_ms=op_timeout_ms, sentinels=at, master_name=NAME)

    def cut_off(self) -> None:
        """From here on no write reaches a replica."""
        with redis.Redis.from_url(self.master.url) as client:
            client.execute_command("ACL", "SETUSER", "default", "-psync", "-sync", "-replconf")
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")


def _until(holds: Callable[[int], bool], port: int, what: str) -> None:
    end = time.monotonic() + PROMOTED_SECONDS
    while not _answers(holds, port):
        assert time.monotonic() < end, what
        time.sleep(0.05)


def _answers(holds: Callable[[int], bool], port: int) -> bool:
    try:
        return holds(port)
    except redis.ConnectionError:
        return False  # it has only just been started


def ask(port: int, *words: str) -> Any:
    with redis.Redis(port=port, socket_timeout=2.0) as client:
        return client.execute_command(*words)


def knows_all(port: int) -> bool:
    known = ask(port, "SENTINEL", "MASTER", NAME)
    return (int(known[b"num-slaves"]), int(known[b"num-other-sentinels"])) == (2, 2)


def follows(port: int) -> bool:
    return str(ask(port, "INFO")["master_link_status"]) == "up"


@pytest.fixture
def watched(tmp_path: Path, redis_server: RedisServer) -> Iterator[Watched]:
    del redis_server  # says whether there is Redis at all
    master = RedisServer(tmp_path / "master")
    master.start()
    heir = RedisServer(tmp_path / "heir", replica_of=master, settings=["replica-priority 1"])
    other = RedisServer(tmp_path / "other", replica_of=master, settings=["replica-priority 0"])
    sentinels = [RedisSentinel(tmp_path / f"sentinel{n}", master, NAME, down_after_ms=DOWN_AFTER_MS) for n in range(3)]
    try:
        for replica in (heir, other):
            replica.start()
        for sentinel in sentinels:
            sentinel.start()
        for sentinel in sentinels:
            _until(knows_all, sentinel.port, "the sentinels do not find each other")
        for replica in (heir, other):
            _until(follows, replica.port, "a replica does not follow")
        yield Watched(master, heir, other, sentinels)
    finally:
        for sentinel in sentinels:
            sentinel.kill()
        for server in (heir, other, master):
            server.stop()


async def test_master_is_found_through_any_sentinel_that_is_alive(watched: Watched) -> None:
    await asyncio.to_thread(watched.sentinels[0].kill)
    built = tree()
    async with members(built, "", place=watched.place()) as (first, second):
        await first.resolver.resolve(item(1))
        await first.shared()
        assert (await second.resolver.resolve(item(1))).source is Source.CACHE
        assert second.store.tracking


async def test_master_dies_and_an_older_replica_takes_its_place(
    watched: Watched, record_property: Callable[[str, object], None]
) -> None:
    async def fault(group: list[Member]) -> str:
        for one in group:
            await one.until(lambda: one.sharing.counters.written > 5)  # noqa: B023 - awaited here
        watched.cut_off()
        await asyncio.sleep(1.0)  # what is written now is lost with the master
        lost = [one.sharing.counters.lost for one in group]
        killed = time.perf_counter()
        await asyncio.to_thread(watched.master.kill)
        for one, before in zip(group, lost, strict=True):
            await one.until(lambda: one.sharing.counters.lost > before and one.store.up, PROMOTED_SECONDS)  # noqa: B023 - awaited here
        again = time.perf_counter() - killed
        written = [one.sharing.counters.written for one in group]
        await asyncio.sleep(1.0)
        assert all(one.sharing.counters.written > before for one, before in zip(group, written, strict=True))
        return f"Redis again after {again:.1f} s"

    await under_load("", record_property, "master killed, older replica promoted", fault, place=watched.place())


async def test_recall_that_the_promoted_replica_has_missed_is_not_forgotten(watched: Watched) -> None:
    built = tree()
    async with members(built, "", place=watched.place()) as (first, second):
        assert await first.version(item(1)) == 1
        await first.shared()
        with redis.Redis.from_url(watched.heir.url) as client:
            await first.until(lambda: bool(client.exists(KEYS.answer(item(1)))))
        watched.cut_off()
        built.register(item(1), {"name": "vial"}, status=Status.RECALLED)
        assert await first.version(item(1), fresh=True) == 2
        await first.shared()
        assert await second.version(item(1)) == 2
        await asyncio.to_thread(watched.master.kill)
        for one in (first, second):
            await one.until(lambda: one.sharing.counters.lost == 1 and one.store.up, PROMOTED_SECONDS)  # noqa: B023 - awaited here
        with redis.Redis.from_url(watched.heir.url) as client:
            held = client.get(KEYS.answer(item(1)))
            assert isinstance(held, bytes)
            assert held.startswith(b"%016d" % 1)  # it is the older one indeed
        for one in (first, second):
            one.resolver.cache.drop(item(1))
            assert await one.version(item(1)) == 2
        await second.shared()
        with redis.Redis.from_url(watched.heir.url) as client:
            assert client.getrange(KEYS.answer(item(1)), 0, 15) == b"%016d" % 2


async def test_master_that_was_demoted_is_left_for_the_one_that_takes_writes(watched: Watched) -> None:
    built = tree()
    async with members(built, "", place=watched.place()) as (only, _):
        await asyncio.to_thread(ask, watched.sentinels[0].port, "SENTINEL", "FAILOVER", NAME)
        with redis.Redis.from_url(watched.heir.url) as client:
            await only.until(lambda: ask(watched.heir.port, "INFO")["role"] == "master", PROMOTED_SECONDS)

            def written() -> bool:
                return bool(client.exists(KEYS.answer(item(1))))

            async with asyncio.timeout(PROMOTED_SECONDS):
                while not written():
                    only.resolver.cache.drop(item(1))
                    await only.version(item(1), fresh=True)
                    await asyncio.sleep(0.1)

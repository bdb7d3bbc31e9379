"""Resolvers that share a real Redis: what one has verified the other need not ask for, and what changes is heard of."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from idtrace.bundle import Verdict
from idtrace.errors import InputError
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Status
from idtrace.serving.keyfile import write_public_key
from idtrace.verification import verify_bundle
from resolver.config import ResolverConfig
from resolver.driver import Source
from resolver.effects import Limits
from resolver.redis_link import RedisPlace
from resolver.server import build
from tests.engines.process import free_port
from tests.engines.redis import RedisServer, binary
from tests.redis_fixtures import KEYS, PATIENT_MS, item, members, tree
from tests.simulator import dead, signer

SECONDS_UNTIL_HEARD = 1.0


@pytest.fixture(autouse=True)
def _empty(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()


@pytest.fixture
def cluster_url(tmp_path: Path) -> Iterator[str]:
    """Two masters, each with half of the slots."""
    ports = [free_port() for _ in range(2)]
    started = []
    try:
        for port in ports:
            folder = tmp_path / str(port)
            folder.mkdir()
            options = {"bind": "127.0.0.1", "port": port, "cluster-port": free_port(), "dir": folder, "save": ""}
            words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
            started.append(subprocess.Popen([binary(), *words, "--cluster-enabled", "yes"], stdout=subprocess.DEVNULL))
        _join(ports)
        yield f"redis://127.0.0.1:{ports[0]}"
    finally:
        for process in started:
            process.kill()
            process.wait()


def _join(ports: list[int]) -> None:
    clients: list[Any] = [redis.Redis(port=port) for port in ports]  # what it has for CLUSTER is untyped
    for number, client in enumerate(clients):
        _until(client.ping)
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * 8192, number * 8192 + 8191)
    bus = clients[1].config_get("cluster-port")["cluster-port"]
    clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", ports[1], bus)
    for client in clients:
        _until(lambda: "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO")))  # noqa: B023 - called here
        client.close()


def _until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while True:
        with contextlib.suppress(redis.RedisError):
            if holds():
                return
        assert time.monotonic() < end, "the cluster does not come up"
        time.sleep(0.05)


async def test_second_resolver_asks_no_node_and_its_answer_verifies(redis_server: RedisServer) -> None:
    built = tree()
    async with members(built, redis_server.url) as (first, second):
        walked = await first.resolver.resolve(item(1))
        assert (walked.source, walked.resolution.upstream_calls) == (Source.WALK, 4)
        await first.shared()
        asked = len(built.asked)
        shared = await second.resolver.resolve(item(1))
        assert (shared.source, shared.resolution.verdict) == (Source.CACHE, Verdict.FOUND)
        assert 0 < shared.ttl_ms <= walked.ttl_ms
        assert shared.resolution.bundle == walked.resolution.bundle
        assert verify_bundle(shared.resolution.bundle, built.anchor, now=built.now).valid  # type: ignore[arg-type]  # FOUND has one
        assert len(built.asked) == asked
        # The chain came too: a sibling is one call to the deepest zone.
        sibling = await second.resolver.resolve(item(2))
        assert sibling.resolution.visited == ("ent:7000",)
        assert (second.sharing.counters.hits, second.sharing.counters.forged) == (1, 0)


async def test_denials_and_revocations_are_shared_and_failures_are_not(redis_server: RedisServer) -> None:
    built = tree()
    built.zone("88.118.9", node="gone")
    built.revoke("88.118.9")
    built.zone("88.118.7", node="silent")
    built.fault("silent", dead)
    names = ["88.118.8/none", "88.118.9/x", "88.118.7/x"]
    async with members(built, redis_server.url) as (first, second):
        verdicts = [(await first.resolver.resolve(Identifier.parse(name))).resolution.verdict for name in names]
        assert verdicts == [Verdict.ABSENT, Verdict.GONE, Verdict.UNREACHABLE]
        await first.shared()
        before = len(built.asked)
        absent, gone = [await second.resolver.resolve(Identifier.parse(name)) for name in names[:2]]
        assert (absent.resolution.verdict, gone.resolution.verdict) == (Verdict.ABSENT, Verdict.GONE)
        assert absent.ttl_ms <= 60_000
        assert len(built.asked) == before
        assert (await second.resolver.resolve(Identifier.parse(names[2]))).source is Source.WALK
        assert len(built.asked) > before


async def test_all_misses_of_one_turn_are_one_reading(redis_server: RedisServer) -> None:
    built = tree(100)
    async with members(built, redis_server.url) as (first, second):
        for number in range(100):  # one by one: a hundred at a time may take longer than a question may
            assert (await first.resolver.resolve(item(number))).resolution.verdict is Verdict.FOUND
        await first.shared()
        async with redis.asyncio.Redis.from_url(redis_server.url) as client:
            await client.config_resetstat()
            await asyncio.gather(*(second.resolver.resolve(item(n)) for n in range(100)))
            after = await client.info("commandstats")
        assert second.sharing.counters.hits == 100
        assert after["cmdstat_mget"]["calls"] == 1
        assert "cmdstat_get" not in after


async def test_thousand_scans_of_one_item_are_one_walk_a_resolver(redis_server: RedisServer) -> None:
    built = tree()
    async with members(built, redis_server.url, 3) as group:
        for _ in range(2):
            asked = len(built.asked)
            await asyncio.gather(*(one.resolver.resolve(item(1)) for one in group for _ in range(1_000)))
            assert len(built.asked) - asked <= 4 * len(group)
            async with redis.asyncio.Redis.from_url(redis_server.url) as client:
                await client.flushall()  # expired everywhere at once
            for one in group:
                await one.shared()
                one.resolver.cache.purge(Prefix(()))
        last = len(built.asked)
        await asyncio.gather(*(one.resolver.resolve(item(1)) for one in group for _ in range(1_000)))
        assert len(built.asked) - last <= len(group)


async def test_recall_that_one_has_seen_reaches_the_others(
    redis_server: RedisServer, record_property: Callable[[str, object], None]
) -> None:
    built = tree()
    heard: list[float] = []
    async with members(built, redis_server.url) as (first, second):
        for version in range(2, 22):
            await second.version(item(1))
            await second.shared()
            built.register(item(1), {"name": "vial"}, status=Status.RECALLED)
            assert await first.version(item(1), fresh=True) == version
            started = time.perf_counter()
            cache, clock = second.resolver.cache, second.resolver.clock
            await second.until(lambda: cache.get(item(1), now=clock.now(), now_ms=clock.now_ms()) is None)  # noqa: B023 - awaited here
            heard.append(time.perf_counter() - started)
            assert await second.version(item(1)) == version
    heard.sort()
    record_property("invalidation", f"median {heard[10] * 1000:.1f} ms, worst {heard[-1] * 1000:.1f} ms")
    assert heard[10] < SECONDS_UNTIL_HEARD


async def test_own_writes_stay_in_the_process(redis_server: RedisServer) -> None:
    async with members(tree(), redis_server.url, 1) as (only,):
        for number in range(10):
            await only.resolver.resolve(item(number))
        await only.shared()
        await only.until(lambda: only.sharing._asking is None or only.sharing._asking.done())
        await asyncio.sleep(0.05)
        assert [(await only.resolver.resolve(item(n))).source for n in range(10)] == [Source.CACHE] * 10
        assert only.resolver.cache.counters.hits == 10


async def test_revocation_that_one_has_met_purges_the_zone_everywhere(redis_server: RedisServer) -> None:
    built = tree()
    async with members(built, redis_server.url, limits=Limits(chain_seconds=2)) as (first, second):
        for number in range(5):
            await second.resolver.resolve(item(number))
        await second.shared()
        built.revoke("88.118.8")
        first.forget()
        for zone in list(second.resolver.trust._chains):
            second.resolver.trust._drop_chain(zone)
        async with redis.asyncio.Redis.from_url(redis_server.url) as client:
            await client.delete(*[KEYS.zone(zone) for zone in item(1).prefix.lineage()])
        gone = await first.resolver.resolve(Identifier.parse("88.118.8/other"))
        assert gone.resolution.verdict is Verdict.GONE
        await second.until(lambda: second.resolver.cache.counters.purged >= 5, SECONDS_UNTIL_HEARD)
        # The old answers are still in Redis: a chain below the floor is no chain.
        after = await second.resolver.resolve(item(1))
        assert after.resolution.verdict is Verdict.GONE
        assert second.sharing.counters.outdated >= 1


async def test_prefix_that_is_disabled_and_enabled_again_goes_over_the_record_both_times(
    redis_server: RedisServer,
) -> None:
    built = tree()
    built.register(item(1), {"name": "vial"})
    async with members(built, redis_server.url, 3) as (first, second, third):
        assert await first.version(item(1)) == 2
        await first.shared()
        built.disable("88.118.8")
        denied = await second.resolver.resolve(item(1), fresh=True)
        assert denied.resolution.verdict is Verdict.ABSENT
        await second.shared()
        await second.shared()
        shared = await third.resolver.resolve(item(1))
        assert (shared.resolution.verdict, shared.source) == (Verdict.ABSENT, Source.CACHE)
        built.disable("88.118.8", disabled=False)
        await asyncio.sleep(1.0)  # of this second of its signer the denial is the last word
        assert await first.version(item(1), fresh=True) == 2
        await first.shared()
        third.forget()
        assert (await third.resolver.resolve(item(1))).source is Source.CACHE
        assert await third.version(item(1)) == 2


async def test_resolvers_without_the_key_share_nothing(redis_server: RedisServer) -> None:
    built = tree()
    async with (
        members(built, redis_server.url, 1) as (ours,),
        members(built, redis_server.url, 1, shared_key=b"another operator's shared secret") as (theirs,),
    ):
        await ours.resolver.resolve(item(1))
        await ours.shared()
        assert (await theirs.resolver.resolve(item(1))).source is Source.WALK
        assert theirs.sharing.counters.forged >= 1


async def test_answers_live_no_longer_in_redis_than_they_may(redis_server: RedisServer) -> None:
    built = tree()
    built.register(item(1), {"name": "vial"}, ttl_seconds=70)
    built.register(item(2), {"name": "vial"}, ttl_seconds=0)
    async with members(built, redis_server.url, 1) as (only,):
        for number in (1, 2, 3):
            await only.resolver.resolve(item(number))
        await only.shared()
        async with redis.asyncio.Redis.from_url(redis_server.url) as client:
            assert 60_000 < await client.pttl(KEYS.answer(item(1))) <= 70_000
            assert await client.exists(KEYS.answer(item(2))) == 0
            assert 290_000 < await client.pttl(KEYS.answer(item(3))) <= 300_000


async def test_cluster_is_read_over_all_its_slots(cluster_url: str) -> None:
    built = tree()
    place = RedisPlace("", cluster=True, op_timeout_ms=PATIENT_MS)
    async with members(built, cluster_url, place=place) as (first, second):
        for number in range(10):
            await first.resolver.resolve(item(number))
        await first.shared()
        answers = [await second.resolver.resolve(item(number)) for number in range(10)]
        assert [answer.source for answer in answers] == [Source.CACHE] * 10
        assert not second.store.tracking
        assert max(answer.ttl_ms for answer in answers) <= 2_000


async def test_node_is_let_in_by_tls_and_password_as_its_configuration_says(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    del redis_server  # says whether there is Redis at all
    server = RedisServer(tmp_path / "tls", tls=True, password="a password")
    server.start()
    try:
        assert server.identity is not None
        (tmp_path / "shared.key").write_bytes(bytes(32))
        (tmp_path / "shared.key").chmod(0o600)
        write_public_key(tmp_path / "root.pub", [signer("pinned root key").public_key])
        table = {
            "url": f"rediss://127.0.0.1:{server.port}/0",
            "password_env": "REDIS_PASSWORD",
            "shared_key": "shared.key",
            "tls_ca": str(server.identity.ca),
            "op_timeout_ms": 1_000,
        }
        given = {"listen": "127.0.0.1:0", "root_key": "root.pub", "root_endpoints": ["127.0.0.1:1"], "redis": table}
        config = ResolverConfig.parse(given, tmp_path)
        with pytest.raises(InputError, match="REDIS_PASSWORD"):
            build(config, {})
        for password, lets_in in (("a password", True), ("another", False)):
            resolver = build(config, {"REDIS_PASSWORD": password})
            store: Any = resolver._sharing._store  # type: ignore[union-attr]  # it was configured
            assert password not in repr(store._place)
            resolver.start()
            async with asyncio.timeout(10):
                while not (store.up or store._counters.failures):  # noqa: ASYNC110 - what is waited for happens in Redis
                    await asyncio.sleep(0.01)
            assert (store.up, store.tracking) == (lets_in, lets_in)
            await resolver.close()
        (tmp_path / "shared.key").chmod(0o640)
        with pytest.raises(InputError, match="chmod 600"):
            build(config, {"REDIS_PASSWORD": "a password"})
        (tmp_path / "shared.key").chmod(0o600)
        (tmp_path / "shared.key").write_bytes(bytes(31))
        with pytest.raises(InputError, match="at least 32 bytes"):
            build(config, {"REDIS_PASSWORD": "a password"})
    finally:
        server.stop()

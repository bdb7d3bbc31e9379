"""What a Redis says that is there and cannot serve: loading, saving in vain, in a cluster; and a resolver too busy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
import structlog.testing

from idtrace.bundle import Verdict
from resolver.cache_redis import PARTS
from resolver.driver import Source
from resolver.redis_link import RedisPlace
from tests.engines.process import free_port
from tests.engines.redis import RedisServer
from tests.redis_fixtures import PATIENT_MS, Member, item, member, members, tree
from tests.redis_load import OP_MS, under_load
from tests.simulator import dead

# 400 keys at 10 ms each: a server that loads for four seconds, and answers meanwhile that it does.
LOADED_KEYS, KEY_DELAY_US = 400, 10_000


@pytest.fixture(autouse=True)
def _there_is_redis(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()


def causes(logs: list[structlog.typing.EventDict], event: str) -> list[str]:
    return [str(entry["error"]) for entry in logs if entry["event"] == event]


async def test_loading(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    server = RedisServer(tmp_path / "loading")
    server.start()
    slow = RedisServer(
        tmp_path / "loading",
        settings=[f"key-load-delay {KEY_DELAY_US}", "loading-process-events-interval-bytes 1024"],
    )
    try:
        with redis.Redis.from_url(server.url) as client:
            for number in range(LOADED_KEYS):
                client.set(f"other:{number}", bytes(2_048))
            client.save()

        async def fault(group: list[Member]) -> str:
            await asyncio.to_thread(server.kill)
            started = time.perf_counter()
            await asyncio.to_thread(slow.start)
            for one in group:
                await one.until(lambda: one.store.up, 30)  # noqa: B023 - awaited here
            return f"Redis again after {time.perf_counter() - started:.1f} s"

        with structlog.testing.capture_logs() as logs:
            await under_load(server.url, record_property, "loading", fault)
        assert any("loading the dataset" in cause for cause in causes(logs, "redis is lost"))
    finally:
        slow.stop()


async def test_writes_that_redis_refuses_because_it_cannot_save_cost_nothing_but_themselves(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    server = RedisServer(tmp_path / "misconf", settings=["enable-protected-configs yes"])
    server.start()
    built = tree()
    try:
        async with members(built, server.url) as (first, second):
            await first.resolver.resolve(item(1))
            await first.shared()
            with redis.Redis.from_url(server.url) as client:
                client.config_set("dir", str(gone))
                client.config_set("save", "3600 1")
                gone.rmdir()
                client.bgsave()
                await first.until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
            with structlog.testing.capture_logs() as logs:
                for number in range(2, 6):
                    assert (await first.resolver.resolve(item(number))).resolution.verdict is Verdict.FOUND
                await first.shared()
                await first.shared()
                assert (await second.resolver.resolve(item(1))).source is Source.CACHE
            assert (first.sharing.counters.refused, first.sharing.counters.failures) == (4, 0)
            (cause,) = causes(logs, "redis does not take what is written")
            assert "MISCONF" in cause
    finally:
        server.stop()


@pytest.mark.parametrize("told", [True, False])
async def test_cluster_of_one_node(*, told: bool, tmp_path: Path) -> None:
    """Said to be a cluster it is used as one; unsaid, what it refuses is a miss and the cause is named."""
    server = RedisServer(tmp_path / "cluster", settings=["cluster-enabled yes", f"cluster-port {free_port()}"])
    server.start()
    try:
        with redis.Redis.from_url(server.url) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
        built = tree()
        place = RedisPlace(f"redis://127.0.0.1:{server.port}", cluster=told, op_timeout_ms=PATIENT_MS)
        with structlog.testing.capture_logs() as logs:
            first, second = member(built, place), member(built, place)
            for one in (first, second):
                one.resolver.start()
                await one.ready()
            try:
                for number in range(10):
                    assert (await first.resolver.resolve(item(number))).resolution.verdict is Verdict.FOUND
                if told:
                    await first.shared()
                answers = [await second.resolver.resolve(item(number)) for number in range(10)]
                assert {answer.resolution.verdict for answer in answers} == {Verdict.FOUND}
                assert (sum(answer.source is Source.CACHE for answer in answers) == 10) == told
            finally:
                for one in (first, second):
                    await one.resolver.close()
        assert any("CROSSSLOT" in cause or "slot" in cause for cause in causes(logs, "redis is lost")) != told
    finally:
        server.stop()


@pytest.mark.parametrize("turn_ms", [20, 60, 200])
async def test_resolver_that_is_too_busy_does_not_blame_redis(
    turn_ms: int, redis_server: RedisServer, record_property: Callable[[str, object], None]
) -> None:
    """Each turn of the loop takes so long: longer than a fifth of a trip's time, than all of it, than four times."""
    built = tree()
    place = RedisPlace("", op_timeout_ms=OP_MS)
    async with members(built, redis_server.url, place=place) as (first, second):
        for number in range(10):
            await first.resolver.resolve(item(number))
        await first.shared()
        ended = asyncio.Event()

        async def busy() -> None:
            while not ended.is_set():
                time.sleep(turn_ms / 1000)  # noqa: ASYNC251 - it is what is tested
                await asyncio.sleep(0)

        working = asyncio.create_task(busy())
        hits, asked, end = 0, 0, time.monotonic() + 4.0
        while time.monotonic() < end:
            second.resolver.cache.drop(item(asked % 10))
            answer = await second.resolver.resolve(item(asked % 10))
            hits += answer.source is Source.CACHE
            asked += 1
        ended.set()
        await working
        record_property(
            f"redis, loop busy for {turn_ms} ms a turn", f"{hits} hits of {asked}, parts of a trip: {PARTS}"
        )
        assert (second.sharing.counters.failures, second.sharing.counters.lost) == (0, 0)
        assert hits == asked > 0


async def test_answers_kept_in_the_process_are_asked_for_again_after_the_word_is_lost(
    tmp_path: Path,
) -> None:
    server = RedisServer(tmp_path / "lost")
    server.start()
    built = tree()
    try:
        async with members(built, server.url, 1, place=RedisPlace("", op_timeout_ms=OP_MS)) as (only,):
            assert (await only.resolver.resolve(item(1))).source is Source.WALK
            assert (await only.resolver.resolve(item(1))).source is Source.CACHE
            await asyncio.to_thread(server.kill)
            await only.until(lambda: only.sharing.counters.lost == 1)
            # Somebody else may have learned of this, and could not tell.
            built.register(item(1), {"name": "vial"})
            assert await only.version(item(1)) == 2
            asked = len(built.asked)
            assert await only.version(item(1)) == 2
            assert len(built.asked) == asked  # once, and it is kept again
    finally:
        server.stop()


async def test_answer_that_cannot_be_asked_for_again_is_not_lost(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "lost")
    server.start()
    built = tree()
    try:
        async with members(built, server.url, 1, place=RedisPlace("", op_timeout_ms=OP_MS)) as (only,):
            for number in range(3):
                await only.resolver.resolve(item(number))
            await asyncio.to_thread(server.kill)
            await only.until(lambda: only.sharing.counters.lost == 1)
            for node in ("ent", "second", "top", "root"):
                built.fault(node, dead)
            answers = [await only.resolver.resolve(item(number)) for number in (0, 0, 1, 2)]
            assert {answer.resolution.verdict for answer in answers} == {Verdict.FOUND}
    finally:
        server.stop()

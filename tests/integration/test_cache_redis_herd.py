"""A thousand scans of one key that has just expired, in each of two resolver processes that share a real Redis."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import redis

from idtrace.v1 import resolver_pb2, resolver_pb2_grpc
from registry.service import RegistryService
from tests.engines.redis import RedisServer
from tests.nodes import Nodes

SCANS, CONNECTIONS = 1_000, 20
TTL_SECONDS = 10
ITEM = "88/SN-1"
PROGRAM = (sys.executable, "-c", "from idtrace.cli import main; main()", "node", "run", "--role", "resolver")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


@asynccontextmanager
async def resolver(folder: Path, name: str, root: str, redis_url: str) -> AsyncIterator[list[grpc.aio.Channel]]:
    """A resolver as a process of its own."""
    config = folder / f"{name}.toml"
    # Whether a change would be heard of is not what this is about.
    config.write_text(
        f'listen = "127.0.0.1:0"\nroot_key = "root.pub"\nroot_endpoints = ["{root}"]\n'
        # Nor is how long a busy machine takes for two thousand scans at once.
        "[limits]\nunfollowed_seconds = 300\nquestion_ms = 20000\ncall_ms = 10000\n"
        f'[redis]\nurl = "{redis_url}"\nshared_key = "shared.secret"\nop_timeout_ms = 1000\n'
    )
    with (folder / f"{name}.log").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *PROGRAM, "--config", str(config), cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=errors
        )
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().split()
        assert line[:1] == ["ready"], (folder / f"{name}.log").read_text()[-2_000:]
        async with AsyncExitStack() as channels:
            yield [await channels.enter_async_context(_connection(line[1])) for _ in range(CONNECTIONS)]
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


def _connection(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, (("grpc.use_local_subchannel_pool", 1),))


async def scan(channel: grpc.aio.Channel) -> resolver_pb2.ResolveResponse:
    stub = resolver_pb2_grpc.ResolverServiceStub(channel)
    return await stub.Resolve(resolver_pb2.ResolveRequest(text=ITEM), timeout=25)


async def test_thousand_scans_of_one_expired_key_are_one_call_a_process(
    tmp_path: Path,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    asked: list[str] = []
    answer = RegistryService.Get

    async def counted(self: RegistryService, request: Any, context: Any) -> Any:
        asked.append(request.identifier)
        return await answer(self, request, context)

    monkeypatch.setattr(RegistryService, "Get", counted)
    secret = tmp_path / "shared.secret"
    secret.write_bytes(os.urandom(32))
    secret.chmod(0o600)
    async with Nodes(tmp_path) as nodes, AsyncExitStack() as running:
        root = await nodes.registry("")
        await nodes.registry("88")
        await nodes.register(ITEM, {"name": "vial"}, ttl_seconds=TTL_SECONDS)
        processes = [
            await running.enter_async_context(resolver(tmp_path, name, root.endpoint, redis_server.url))
            for name in ("one", "two")
        ]
        for channels in processes:
            assert (await scan(channels[0])).verdict == resolver_pb2.VERDICT_FOUND
        await asyncio.sleep(TTL_SECONDS + 0.5)
        before = asked.count(ITEM)
        started = time.perf_counter()
        answers = await asyncio.gather(
            *(scan(channels[n % CONNECTIONS]) for channels in processes for n in range(SCANS))
        )
        seconds = time.perf_counter() - started
        assert {one.verdict for one in answers} == {resolver_pb2.VERDICT_FOUND}
        calls = asked.count(ITEM) - before
        # Longer than an answer lives, and every process may have had to ask again for each time that it ended.
        lives = 1 + int(seconds // TTL_SECONDS)
        record_property(
            "herd",
            f"{len(answers)} scans of one expired key in 2 processes: {calls} calls to its node, {seconds:.1f} s",
        )
        assert 1 <= calls <= len(processes) * lives

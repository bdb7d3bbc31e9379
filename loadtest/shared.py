"""``python -m loadtest.shared``: what an answer that another resolver has found costs, read from a real Redis.

Four ways to the same answers, interleaved: *shared*, as a resolver reads them; *strict*, where the bundle would be read
as a stranger's is; *naive*, a ``GET`` an answer, parsed and believed as it stands; and *walk*, what it costs to ask the
authority's node, with the chain above it known. Each once one question after the other, and once 100 at a time.

Microseconds are of the reading process's own CPU an answer, without what Redis and the nodes take. They share the
machine with it, so read the ratios rather than the figures.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from idtrace import wire
from idtrace.cli.demo import quiet_command
from idtrace.cli.demo_tree import DemoTree
from idtrace.identifier import Identifier
from idtrace.serving.keyfile import load_signer
from idtrace.v1 import record_pb2
from loadtest.work import Bench
from resolver.config import ResolverConfig
from resolver.driver import Resolver, Source
from resolver.server import build

# As many as a scanner gate has under way; all of one turn go with one trip.
TOGETHER: Final = 100
# The trip may wait for its turn on a machine that does everything at once; nothing here is about time-outs.
OP_TIMEOUT_MS: Final = 1_000
UP_SECONDS: Final = 10.0
UNFOLLOWED_SECONDS: Final = 300
_PREFIX: Final = "bench:"
_NAIVE: Final = "bench-naive:"

Way = Callable[[Identifier], Awaitable[None]]


class Ways:
    """Two resolvers that share a Redis, and the naive reader beside them."""

    def __init__(self, writer: Resolver, reader: Resolver, walker: Resolver, client: Redis) -> None:
        self.writer, self.reader, self.walker = writer, reader, walker
        self._client = client

    async def fill(self, names: Sequence[Identifier]) -> None:
        """Have the first resolver find them all, and store them for the naive reader too."""
        while not await self._arrives(names[0]):  # neither is connected at once
            await self.writer.resolve(names[0], fresh=True)
        for name in names:
            bundle = (await self.writer.resolve(name)).resolution.bundle
            assert bundle is not None, "what was registered is found"
            await self._client.set(_NAIVE + str(name), wire.bundle_to_bytes(bundle))
        for name in names:
            while not await self._arrives(name):
                await self.writer.resolve(name, fresh=True)

    async def _arrives(self, name: Identifier) -> bool:
        self.reader.cache.drop(name)
        await asyncio.sleep(0.01)
        return (await self.reader.resolve(name)).source is Source.CACHE

    async def shared(self, name: Identifier) -> None:
        """From Redis, as a resolver does."""
        self.reader.cache.drop(name)
        answer = await self.reader.resolve(name)
        assert answer.source is Source.CACHE, "it is in Redis"

    async def strict(self, name: Identifier) -> None:
        """The same, and then what a stranger's bundle costs on top: its form written again, its digest."""
        self.reader.cache.drop(name)
        answer = await self.reader.resolve(name)
        assert answer.resolution.bundle is not None, "it is in Redis"
        wire.bundle_from_bytes(wire.bundle_to_bytes(answer.resolution.bundle))

    async def naive(self, name: Identifier) -> None:
        """Whatever is stored there is the answer."""
        value: Any = await self._client.get(_NAIVE + str(name))
        record_pb2.Bundle.FromString(value)

    async def walk(self, name: Identifier) -> None:
        """Ask the node."""
        answer = await self.walker.resolve(name, fresh=True)
        assert answer.source is Source.WALK, "fresh asks"

    def all(self) -> dict[str, Way]:
        """By name."""
        return {"shared": self.shared, "strict": self.strict, "naive": self.naive, "walk": self.walk}


def _resolver(tree: DemoTree, url: str, secret: Path) -> Resolver:
    table: dict[str, object] = {
        "listen": "127.0.0.1:0",
        "root_key": str(tree.root_key),
        "root_endpoints": [tree.endpoints["root"]],
        # The answers of a bench do not change, and how soon one would hear of a change is not its question.
        "limits": {"unfollowed_seconds": UNFOLLOWED_SECONDS},
    }
    if url:
        redis = {"url": url, "shared_key": str(secret), "prefix": _PREFIX, "op_timeout_ms": OP_TIMEOUT_MS}
        table["redis"] = redis
    return build(ResolverConfig.parse(table, tree.folder), os.environ)


async def _microseconds(way: Way, names: Sequence[Identifier], together: int) -> float:
    """Of this process's CPU an answer: on a machine that others use as well, the only figure that is its own."""
    started = time.process_time()
    for at in range(0, len(names), together):
        await asyncio.gather(*(way(name) for name in names[at : at + together]))
    return (time.process_time() - started) / len(names) * 1e6


async def _names(tree: DemoTree, count: int) -> list[Identifier]:
    """Register so many."""
    bench = Bench(
        tree.endpoints["maker"], tree.endpoints["resolver-a"], load_signer(tree.owner_key("88.118.8")), "88.118.8"
    )
    try:
        await bench.register_batches(bench.requests(count))
    finally:
        await bench.close()
    return [Identifier.parse(text) for text in bench.registered]


async def _measure(tree: DemoTree, url: str, rounds: int, size: int, console: Console) -> dict[str, list[float]]:
    secret = tree.folder / "bench.secret"
    secret.write_bytes(secrets.token_bytes(32))
    secret.chmod(0o600)
    names = await _names(tree, size)
    resolvers = [_resolver(tree, url, secret), _resolver(tree, url, secret), _resolver(tree, "", secret)]
    took: dict[str, list[float]] = {}
    async with Redis.from_url(url) as client:
        try:
            for one in resolvers:
                one.start()
            ways = Ways(resolvers[0], resolvers[1], resolvers[2], client)
            async with asyncio.timeout(UP_SECONDS + size * 0.05):
                await ways.fill(names)
            for number in range(rounds + 1):  # the first one warms up
                if number:
                    console.print(f"round {number} of {rounds}", style="dim")
                for name, way in ways.all().items():
                    for together in (1, TOGETHER):
                        microseconds = await _microseconds(way, names, together)
                        if number:
                            took.setdefault(f"{name}, {together} at a time", []).append(microseconds)
        finally:
            for one in resolvers:
                await one.close()
            async for key in client.scan_iter(match="bench*"):
                await client.delete(key)
    return took


def main(
    redis: Annotated[str, typer.Option(envvar="IDTRACE_REDIS_URL", help="A Redis to fill with some keys.")],
    rounds: Annotated[int, typer.Option(help="Counted rounds.", min=1, max=100)] = 5,
    size: Annotated[int, typer.Option(help="Answers a round.", min=100, max=10_000)] = 500,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")] = None,
) -> None:
    """Measure what a shared answer costs against a naive cache and against a walk."""
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="idtrace-bench-") as folder:
        tree = DemoTree(Path(folder) / "tree", quiet_command)
        tree.prepare()
        try:
            tree.start()
            tree.delegate()
            took = asyncio.run(_measure(tree, redis, rounds, size, console))
        finally:
            tree.stop()
    rows = []
    for way, values in took.items():
        base = took[f"shared, {way.partition(', ')[2]}"]
        ratio = statistics.median(one / ours for one, ours in zip(values, base, strict=True))
        figures = (statistics.median(values), min(values), max(values))
        rows.append(
            {"way": way, **dict(zip(("median_us", "low_us", "high_us"), map(round, figures), strict=True))}
            | {"to_shared": round(ratio, 2), "rounds": len(values)}
        )
    table = Table("way", "median CPU µs", "low", "high", "to shared", title="one answer through Redis, this machine")
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("way", "median_us", "low_us", "high_us", "to_shared")))
    Console().print(table)
    if json_out is not None:
        json_out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)

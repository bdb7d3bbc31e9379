"""Questions under way while something happens to Redis, and the line that says what has become of them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from idtrace.bundle import Verdict
from idtrace.errors import BusyError
from idtrace.record import Status
from resolver.redis_link import RedisPlace
from tests.redis_fixtures import Member, item, members, tree, version_of
from tests.simulator import Tree

OP_MS = 50
PLACE = RedisPlace("", op_timeout_ms=OP_MS)
# What a whole walk through the tree of these tests may take on a machine that others use as well.
WALK_MS = 50
# A question waits for the trip under way and for its own: two time-outs, and then it walks.
BUDGET_MS = 2 * OP_MS + WALK_MS
# Where hundreds wait they go in turns, each waiting for two time-outs at most before the one of its own trip.
WORST_MS = 3 * OP_MS + 3 * WALK_MS
# One trip is counted in four parts (resolver/cache_redis.py), and each can come late by what the loop was away.
LATE_PARTS = 4
AVAILABLE_MIN = 0.999
Report = Callable[[str, object], None]


@dataclass
class Load:
    """Questions one after the other to members that keep nothing, while the truth moves on."""

    built: Tree
    group: list[Member]
    took_ms: list[float] = field(default_factory=list)
    answered: int = 0
    wrong: list[str] = field(default_factory=list)
    lag_ms: float = 0.0

    async def watch(self) -> None:
        """How long the machine keeps this event loop from running at all, which is no fault of Redis."""
        while True:
            started = time.perf_counter()
            await asyncio.sleep(0.005)
            self.lag_ms = max(self.lag_ms, (time.perf_counter() - started) * 1000 - 5)

    async def run(self, until: Callable[[], bool]) -> None:
        chance = random.Random(7)
        seen: dict[tuple[int, int], int] = {}
        while not until():
            number, who = chance.randrange(20), chance.randrange(len(self.group))
            one = self.group[who]
            one.resolver.cache.drop(item(number))
            started = time.perf_counter()
            try:
                answer = await one.resolver.resolve(item(number), fresh=chance.random() < 0.1)
            except BusyError:
                answer = None
            self.took_ms.append((time.perf_counter() - started) * 1000)
            verdict = answer.resolution.verdict if answer is not None else Verdict.UNREACHABLE
            if answer is None or verdict is Verdict.UNREACHABLE:
                continue
            self.answered += 1
            if verdict is not Verdict.FOUND:
                self.wrong.append(f"{item(number)} is {verdict}")
                continue
            version = version_of(answer)
            if version < seen.get((who, number), 0):
                self.wrong.append(f"{item(number)} went back to version {version}")
            seen[who, number] = version
            if chance.random() < 0.05:
                self.built.register(item(number), {"name": "vial"}, status=Status.SUSPENDED)
            await asyncio.sleep(0)

    def judge(self, report: Report, name: str, more: str = "") -> None:
        took = sorted(self.took_ms)
        p50, p99, worst = took[len(took) // 2], took[len(took) * 99 // 100], took[-1]
        available = self.answered / len(took)
        report(
            f"redis {name}",
            f"{len(took)} questions, {len(self.wrong)} wrong, {available * 100:.2f} % answered, p50 {p50:.1f} ms,"
            f" p99 {p99:.1f} of {BUDGET_MS} ms, worst {worst:.0f} ms (loop late by {self.lag_ms:.0f} ms){more}",
        )
        assert self.wrong == []
        assert len(took) > 15
        assert available >= AVAILABLE_MIN
        assert p99 < BUDGET_MS + self.lag_ms
        assert worst < WORST_MS + LATE_PARTS * self.lag_ms


async def under_load(
    url: str,
    report: Report,
    name: str,
    fault: Callable[[list[Member]], Awaitable[str | None]],
    *,
    place: RedisPlace = PLACE,
) -> list[Member]:
    """Two members are asked while ``fault`` happens; what it returns goes to the end of the line."""
    built = tree()
    async with members(built, url, place=replace(place, op_timeout_ms=OP_MS)) as group:
        load, ended = Load(built, group), asyncio.Event()
        running = asyncio.create_task(load.run(ended.is_set))
        watching = asyncio.create_task(load.watch())
        try:
            await asyncio.sleep(0.2)
            more = await fault(group)
            await asyncio.sleep(0.2)
        finally:
            ended.set()
            await asyncio.gather(running, return_exceptions=True)
            watching.cancel()
        running.result()
        load.judge(report, name, f", {more}" if more else "")
        return group

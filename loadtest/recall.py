"""``python -m loadtest.recall``: from a recall's statement to the last resolver's refusal, under scan load.

One registry and ten resolvers run as processes. A maker has two lots there; doses of both are scanned at every resolver
all the time, some again and again (a resolver keeps their verdicts) and some for the first time. In each round the
maker recalls one lot in one statement and, when all have refused it, ends the recall. For each resolver the time is
taken from the statement's acknowledgement to the first DO NOT USE for a dose of the lot; every question that is put to
a resolver after that, about whatever dose of the lot, has to be refused as well, and the other lot has to stay in use.
All of it shares the machine's cores, and so do its figures.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final

import grpc.aio
import typer

from idtrace.recall import Recall, Scope, ScopeKind
from idtrace.v1 import resolver_pb2, resolver_pb2_grpc
from loadtest.change_tree import ChangeTree
from loadtest.changes import quantile
from loadtest.recall_lot import CLASS, LOTS, MAKER, Maker, dose

LIMIT_SECONDS: Final = 1.0
POLL_SECONDS: Final = 0.02
# A recall that a resolver has not shown after so long is a failure, and is counted with this time.
GIVE_UP_SECONDS: Final = 20.0
CALL_SECONDS: Final = 20.0
# Doses that are scanned again and again at a resolver, half of them of each lot.
KNOWN: Final = 16
# The lot that stays in use has enough doses to choose from, and as many as the other one where that is smaller.
OTHER_MAX: Final = 20_000
# One scan in so many is of a dose that nobody has asked for here.
NEW_IN: Final = 10
MESSAGE_BYTES_MAX: Final = 33_554_432


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of it; ``scans_per_second`` is at each resolver."""

    resolvers: int = 10
    doses: int = 20_000
    rounds: int = 10
    scans_per_second: float = 5.0
    seed: int = 20_261_124


@dataclass(slots=True)
class Report:
    """Seconds of each resolver in each round, and what went wrong."""

    seconds: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)  # of each round, the last resolver's
    used_after: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)
    unseen: int = 0
    scans: int = 0
    failed_calls: int = 0
    made_seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether every resolver refused in time, and nothing was used after it or blocked without need."""
        late = bool(self.seconds) and quantile(self.seconds, 0.99) >= LIMIT_SECONDS
        return bool(self.seconds) and not (late or self.used_after or self.blocked or self.unseen)


class Measurement:
    """One run against a tree that has been started."""

    def __init__(self, plan: Plan, tree: ChangeTree) -> None:
        options = [("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)]
        self._plan = plan
        self._channels = [grpc.aio.insecure_channel(at, options=options) for at in tree.resolver_endpoints]
        self._stubs: list[Any] = [resolver_pb2_grpc.ResolverServiceStub(channel) for channel in self._channels]
        self._registry = grpc.aio.insecure_channel(tree.endpoint, options=options)
        self._maker = Maker(tree, self._registry)
        self._random = random.Random(plan.seed)
        self._recalls: list[Recall] = []
        # When each resolver has first refused a dose of the recalled lot; empty while none is recalled.
        self._refused: dict[int, float] = {}
        self._recalled = False
        self.report = Report()

    async def close(self) -> None:
        """Close the channels."""
        for channel in (*self._channels, self._registry):
            await channel.close()

    async def run(self) -> Report:
        """Make the lots, let everybody scan, recall and end the recall again and again."""
        started = time.monotonic()
        await self._maker.papers()
        for lot in LOTS:
            await self._maker.make(lot, self._count(lot))
        for lot in LOTS:
            await self._maker.measured(lot, self._count(lot))
        await self._maker.recall([])
        self.report.made_seconds = time.monotonic() - started
        sys.stderr.write(f"made in {self.report.made_seconds:.0f} s\n")
        known = [self._random.randrange(self._count(LOTS[1])) for _ in range(KNOWN // 2)]
        for number in range(len(self._stubs)):
            for lot in LOTS:
                await asyncio.gather(*(self._until_used(number, dose(lot, one)) for one in known))
        sys.stderr.write(f"all resolvers know their doses after {time.monotonic() - started:.0f} s\n")
        async with asyncio.TaskGroup() as group:
            steady = [group.create_task(self._scan_steadily(number, known)) for number in range(len(self._stubs))]
            for turn in range(self._plan.rounds):
                await self._round(turn, known)
            for task in steady:
                task.cancel()
        return self.report

    def _count(self, lot: str) -> int:
        return self._plan.doses if lot == LOTS[0] else min(self._plan.doses, OTHER_MAX)

    async def _round(self, turn: int, known: list[int]) -> None:
        scope = Scope(ScopeKind.LOT, product=str(CLASS), lot=LOTS[0])
        now = int(time.time())
        recall = Recall(str(MAKER), f"R-{turn}", scope, 1, "glass in vials", "瓶内有玻璃", now)
        self._recalled = True
        told = await self._maker.recall([*self._recalls, recall])
        await asyncio.gather(*(self._see(number, told, known) for number in range(len(self._stubs))))
        self.report.last.append(max(self._refused.values(), default=told) - told)
        sys.stderr.write(f"round {turn}: refused by all after {self.report.last[-1] * 1000:.0f} ms\n")
        await asyncio.sleep(1.0)  # what is asked now must be refused as well
        self._recalled = False
        self._refused.clear()
        self._recalls = [replace(recall, ended_at=max(int(time.time()), now))]  # one at a time: a version stays small
        await self._maker.recall(self._recalls)
        for number in range(len(self._stubs)):
            await self._until_used(number, dose(LOTS[0], known[0]))

    async def _see(self, number: int, told: float, known: list[int]) -> None:
        poll = 0
        while (asked := time.monotonic()) - told < GIVE_UP_SECONDS:
            await self._scan(number, LOTS[0], known[poll % len(known)])
            if number in self._refused:
                self.report.seconds.append(max(0.0, self._refused[number] - told))
                return
            poll += 1
            await asyncio.sleep(max(0.0, POLL_SECONDS - (time.monotonic() - asked)))
        self.report.unseen += 1
        self.report.seconds.append(GIVE_UP_SECONDS)

    async def _scan(self, number: int, lot: str, one: int) -> None:
        """Ask one resolver for one dose, and hold the answer against what has to be."""
        asked, recalled, name = time.monotonic(), self._recalled, dose(lot, one)
        try:
            answer = await self._stubs[number].Judge(resolver_pb2.JudgeRequest(text=name), timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError:
            self.report.failed_calls += 1
            return
        self.report.scans += 1
        if lot != LOTS[0]:
            if answer.use != resolver_pb2.USE_USE:
                self.report.blocked.append(f"{name} at resolver {number}: {[one.code for one in answer.findings]}")
            return
        if not (recalled and self._recalled):
            return
        if answer.use == resolver_pb2.USE_DO_NOT_USE:
            self._refused.setdefault(number, time.monotonic())
        elif answer.use == resolver_pb2.USE_USE and asked > self._refused.get(number, float("inf")):
            self.report.used_after.append(f"{name} at resolver {number}")

    async def _scan_steadily(self, number: int, known: list[int]) -> None:
        order = random.Random(f"{self._plan.seed} {number}")
        while True:
            is_new, lot = order.randrange(NEW_IN) == 0, order.choice(LOTS)
            one = order.randrange(self._count(lot)) if is_new else order.choice(known)
            await self._scan(number, lot, one)
            await asyncio.sleep(order.uniform(0.5, 1.5) / self._plan.scans_per_second)

    async def _until_used(self, number: int, name: str) -> None:
        """Wait until a resolver says USE.

        Raises:
            RuntimeError: it does not, and then nothing is measured.
        """
        answer: Any = None
        until = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < until:
            answer = await self._stubs[number].Judge(resolver_pb2.JudgeRequest(text=name), timeout=CALL_SECONDS)
            if answer.use == resolver_pb2.USE_USE:
                return
            await asyncio.sleep(POLL_SECONDS)
        said = [finding.text_en for finding in answer.findings] if answer is not None else []
        raise RuntimeError(f"{name} is not USE at resolver {number}: {said[:3]}")


async def measure(plan: Plan, folder: Path) -> Report:
    """Start everything below a folder, measure, and stop everything."""
    tree = ChangeTree(folder, plan.resolvers)
    try:
        await tree.start()
        measurement = Measurement(plan, tree)
        try:
            return await measurement.run()
        finally:
            await measurement.close()
    finally:
        await tree.stop()


def main(
    resolvers: Annotated[int, typer.Option(help="Resolver processes.", min=1, max=64)] = 10,
    doses: Annotated[int, typer.Option(help="Doses of the recalled lot.", min=100, max=9_999_999)] = 20_000,
    rounds: Annotated[int, typer.Option(help="Recalls of the lot.", min=1, max=1_000)] = 10,
    scans: Annotated[float, typer.Option(help="Scans a second at each resolver.", min=0.1, max=1_000)] = 5.0,
) -> None:
    """Measure how soon a recalled lot is refused; exit code 1 where the p99 reaches a second, or one was used after."""
    out = sys.stdout.write
    with tempfile.TemporaryDirectory(prefix="idtrace-recall-") as folder:
        plan = Plan(resolvers=resolvers, doses=doses, rounds=rounds, scans_per_second=scans)
        report = asyncio.run(measure(plan, Path(folder)))
    out(f"a lot of {doses:,} doses and another one made in {report.made_seconds:.0f} s\n")
    for name, taken in (("a resolver", report.seconds), ("the last of them", report.last)):
        figures = (statistics.median(taken), quantile(taken, 0.99), max(taken))
        p50, p99, most = (f"{seconds * 1000:.0f} ms" for seconds in figures)
        out(f"statement to refusal at {name:16} {len(taken):5}   p50 {p50:>8}   p99 {p99:>8}   max {most:>8}\n")
    out(f"{report.scans:,} scans, {report.failed_calls} calls failed, {report.unseen} refusals not seen\n")
    out(f"{len(report.used_after)} USE after a refusal {report.used_after[:5] or ''}\n")
    out(f"{len(report.blocked)} doses of the other lot blocked {report.blocked[:5] or ''}\n")
    raise typer.Exit(0 if report.good else 1)


if __name__ == "__main__":
    typer.run(main)

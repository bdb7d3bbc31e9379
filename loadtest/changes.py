"""``python -m loadtest.changes``: how long after its acknowledgement a change is seen, at every resolver, under load.

One registry and ten resolvers run as processes. Each resolver is asked steadily for a mix of all identifiers, while
the registrant recalls, suspends, re-delegates and revokes keys in mixed order. For each change and each resolver the
time is taken from the registry's acknowledgement to the first answer that shows it, asked for again every 10 ms; and
every later answer of that resolver has to show it as well. All of it shares the machine's cores, and so do its figures.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import grpc.aio
import typer

from idtrace.delegation import Delegation
from idtrace.identifier import Identifier, Prefix
from idtrace.record import RecordBody, Status
from idtrace.v1 import resolver_pb2, resolver_pb2_grpc
from loadtest.change_tree import ChangeTree

# What a scan may be out of date after a recall.
LIMIT_SECONDS: Final = 1.0
POLL_SECONDS: Final = 0.01
# A change that nobody has seen after so long is a failure, and is counted with this time.
GIVE_UP_SECONDS: Final = 10.0
# All watches are live, and what was asked for before them has been asked for again.
SETTLE_SECONDS: Final = 6.0
CALL_SECONDS: Final = 10.0


class ChangeKind(StrEnum):
    """What the registrant does."""

    RECALL = "recall"
    SUSPEND = "suspend"
    REDELEGATE = "re-delegate"
    REVOKE_KEY = "revoke key"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of it.

    Attributes:
        resolvers: processes.
        changes: in all, one victim each.
        gap_seconds: between two changes.
        asked_per_second: steady questions to each resolver.
        redis: URL of a Redis that every second resolver shares; "" for none.
        seed: of the order of things.
    """

    resolvers: int = 10
    changes: int = 200
    gap_seconds: float = 0.15
    asked_per_second: float = 15.0
    redis: str = ""
    seed: int = 20_260_730


@dataclass(slots=True)
class Victim:
    """An identifier and what becomes of it. ``seen`` is when each resolver's first answer after it had arrived."""

    kind: ChangeKind
    identifier: Identifier
    version: int = 0  # of the record or the delegation, once it has changed
    seen: dict[int, float] = field(default_factory=dict)

    def shown_in(self, response: Any) -> bool:
        """Whether an answer shows the change."""
        if self.kind in (ChangeKind.RECALL, ChangeKind.SUSPEND):
            payload = response.bundle.record.signed.payload
            return bool(payload) and RecordBody.parse(payload).version >= self.version
        delegations = response.bundle.delegations
        if self.kind is ChangeKind.REVOKE_KEY:  # its record is by a key that the zone has no longer
            return bool(response.verdict == resolver_pb2.VERDICT_BOGUS)
        return bool(delegations) and Delegation.parse(delegations[-1].payload).version >= self.version


@dataclass(slots=True)
class Report:
    """Seconds by kind, and what went wrong."""

    seconds: dict[ChangeKind, list[float]] = field(default_factory=lambda: {kind: [] for kind in ChangeKind})
    went_back: list[str] = field(default_factory=list)
    unseen: int = 0
    answers: int = 0
    failed_calls: int = 0

    @property
    def good(self) -> bool:
        """Whether every kind was seen in time, and nothing went back."""
        late = any(taken and quantile(taken, 0.99) >= LIMIT_SECONDS for taken in self.seconds.values())
        return not (late or self.went_back or self.unseen)


def quantile(values: list[float], share: float) -> float:
    """The least value that is not exceeded by this share of them."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Measurement:
    """One run against a tree that has been started."""

    def __init__(self, plan: Plan, tree: ChangeTree) -> None:
        self._plan = plan
        self._tree = tree
        self._random = random.Random(plan.seed)
        self._channels = [grpc.aio.insecure_channel(endpoint) for endpoint in tree.resolver_endpoints]
        self._stubs = [resolver_pb2_grpc.ResolverServiceStub(channel) for channel in self._channels]
        self.report = Report()
        self._victims: list[Victim] = []

    async def close(self) -> None:
        """Close the channels."""
        for channel in self._channels:
            await channel.close()

    async def run(self) -> Report:
        """Register, let everybody ask, then change one thing after another."""
        kinds = [list(ChangeKind)[number % len(ChangeKind)] for number in range(self._plan.changes)]
        self._random.shuffle(kinds)
        shared = Prefix.parse("88")
        zones = [shared]
        for number, kind in enumerate(kinds):
            own = Prefix.parse(f"z{number}")
            in_shared = kind in (ChangeKind.RECALL, ChangeKind.SUSPEND)
            self._victims.append(Victim(kind, Identifier(shared if in_shared else own, f"V-{number}")))
            zones += [] if in_shared else [own]
        await self._tree.add_zones(zones)
        await self._tree.register([victim.identifier for victim in self._victims])
        await asyncio.gather(*(self._everything(number) for number in range(len(self._stubs))))
        await asyncio.sleep(SETTLE_SECONDS)
        await asyncio.gather(*(self._everything(number) for number in range(len(self._stubs))))
        async with asyncio.TaskGroup() as group:
            steady = [group.create_task(self._ask_steadily(number)) for number in range(len(self._stubs))]
            watched = []
            for victim in self._victims:
                await self._change(victim)
                acknowledged = time.monotonic()
                watched += [group.create_task(self._see(n, victim, acknowledged)) for n in range(len(self._stubs))]
                await asyncio.sleep(self._plan.gap_seconds)
            await asyncio.gather(*watched)
            await asyncio.sleep(1.0)  # what is asked now must not go back either
            for task in steady:
                task.cancel()
        return self.report

    async def _change(self, victim: Victim) -> None:
        tree, identifier = self._tree, victim.identifier
        match victim.kind:
            case ChangeKind.RECALL:
                victim.version = await tree.update(identifier, Status.RECALLED)
            case ChangeKind.SUSPEND:
                victim.version = await tree.update(identifier, Status.SUSPENDED)
            case ChangeKind.REDELEGATE:
                victim.version = await tree.delegate(identifier.prefix)
            case ChangeKind.REVOKE_KEY:
                victim.version = await tree.revoke_key(identifier.prefix)

    async def _ask(self, number: int, victim: Victim) -> bool:
        """Ask one resolver; whether its answer shows the victim's change."""
        asked = time.monotonic()
        request = resolver_pb2.ResolveRequest(text=str(victim.identifier))
        try:
            response = await self._stubs[number].Resolve(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError:
            self.report.failed_calls += 1
            return False
        self.report.answers += 1
        shown = bool(victim.version) and victim.shown_in(response)
        first = victim.seen.get(number)
        if first is not None and asked > first and not shown:
            self.report.went_back.append(f"{victim.kind} of {victim.identifier} at resolver {number}")
        if shown:
            victim.seen.setdefault(number, time.monotonic())
        return shown

    async def _everything(self, number: int) -> None:
        for victim in self._victims:
            await self._ask(number, victim)

    async def _ask_steadily(self, number: int) -> None:
        order = random.Random(f"{self._plan.seed} {number}")
        while True:
            await self._ask(number, order.choice(self._victims))
            await asyncio.sleep(order.uniform(0.5, 1.5) / self._plan.asked_per_second)

    async def _see(self, number: int, victim: Victim, acknowledged: float) -> None:
        while (asked := time.monotonic()) - acknowledged < GIVE_UP_SECONDS:
            if await self._ask(number, victim) or number in victim.seen:
                self.report.seconds[victim.kind].append(max(0.0, victim.seen[number] - acknowledged))
                return
            await asyncio.sleep(max(0.0, POLL_SECONDS - (time.monotonic() - asked)))
        self.report.unseen += 1
        self.report.seconds[victim.kind].append(GIVE_UP_SECONDS)


async def measure(plan: Plan, folder: Path) -> Report:
    """Start everything below a folder, measure, and stop everything."""
    tree = ChangeTree(folder, plan.resolvers, plan.redis)
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
    changes: Annotated[int, typer.Option(help="Changes in all.", min=4, max=10_000)] = 200,
    redis: Annotated[str, typer.Option(help="URL of a Redis that every second resolver shares.")] = "",
) -> None:
    """Measure how soon changes are seen; exit code 1 where a p99 reaches a second, or an answer went back."""
    out = sys.stdout.write
    with tempfile.TemporaryDirectory(prefix="idtrace-changes-") as folder:
        plan = Plan(resolvers=resolvers, changes=changes, redis=redis)
        report = asyncio.run(measure(plan, Path(folder)))
    for kind, taken in report.seconds.items():
        figures = (statistics.median(taken), quantile(taken, 0.99), max(taken))
        p50, p99, most = (f"{seconds * 1000:.0f} ms" for seconds in figures)
        out(f"{kind:12} {len(taken):5} seen   p50 {p50:>8}   p99 {p99:>8}   max {most:>8}\n")
    out(f"{report.answers} answers, {report.failed_calls} calls failed, {report.unseen} changes not seen\n")
    out(f"{len(report.went_back)} answers went back {report.went_back[:5] or ''}\n")
    raise typer.Exit(0 if report.good else 1)


if __name__ == "__main__":
    typer.run(main)

"""How long it takes from the scan of a dose to its verdict: cold, warm, and after something has changed.

The nodes are processes of their own; the resolver's core runs in this one, so that what it asks and checks can be
counted. Cold is a resolver that has never asked anybody, connections and delegations included; warm a verdict that it
keeps while the nodes tell it of changes; judged again is what such a word costs; and a change is known from the moment
in which the capture of one more event is acknowledged to the first verdict that rests on it. Milliseconds of the wall
clock on a machine that all share.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from unittest import mock

from idtrace import signature
from idtrace.cli import demo_vaccine
from idtrace.cli.demo_story import quiet_command
from idtrace.cli.demo_tree import DemoTree
from idtrace.cli.demo_vaccine_events import EXPIRY, MAKER, PRODUCT, Documents
from idtrace.coldchain.extract import readings
from idtrace.identifier import Identifier
from idtrace.verdict.findings import Use
from loadtest import scan_story
from resolver.config import ResolverConfig
from resolver.driver import Resolver
from resolver.judging import Judged, Judging
from resolver.pointing import GrpcPointers
from resolver.server import build, build_judging
from resolver.tracing import Tracer
from resolver.upstream import GrpcUpstream

# Watches begin with the first question; a busy machine needs a multiple of a second for them.
FOLLOWED_SECONDS_MAX: Final = 30.0
WARM_A_ROUND: Final = 200
NAMES: Final = ("scan, cold", "scan, warm", "judged again", "a change known")
DOSE: Final = Identifier.parse(scan_story.DOSE)


@dataclass(slots=True)
class Work:
    """One way to a verdict: how long each took (ms), and what one of them costs."""

    name: str
    times_ms: list[float] = field(default_factory=list)
    signatures: list[int] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)

    def row(self) -> dict[str, object]:
        """As a line of the bench; signatures and calls are medians."""
        return {
            "work": self.name,
            "median_ms": round(statistics.median(self.times_ms), 3),
            "p99_ms": round(percentile(self.times_ms, 99), 3),
            "signature_checks": statistics.median(self.signatures),
            "upstream_calls": statistics.median(self.calls),
            "count": len(self.times_ms),
        }


@dataclass(slots=True)
class Counted:
    """What was done while it was counted."""

    signatures: int = 0
    calls: int = 0


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that at least so many per cent of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


@contextmanager
def counting() -> Iterator[Counted]:
    """Count signature checks that really compute, and calls to other nodes."""
    counted = Counted()
    valid, ask, read = signature.valid, GrpcUpstream.ask, GrpcPointers.ask

    def checked(*given: Any) -> bool:
        counted.signatures += 1
        return valid(*given)

    async def asked(self: GrpcUpstream, *given: Any) -> Any:
        counted.calls += 1
        return await ask(self, *given)

    async def pointed(self: GrpcPointers, *given: Any) -> Any:
        counted.calls += 1
        return await read(self, *given)

    with (
        mock.patch.object(signature, "valid", checked),
        mock.patch.object(GrpcUpstream, "ask", asked),
        mock.patch.object(GrpcPointers, "ask", pointed),
    ):
        yield counted


class Asker:
    """A resolver's core in this process."""

    def __init__(self, tree: DemoTree) -> None:
        table = {
            "listen": "127.0.0.1:0",
            "root_key": str(tree.root_key),
            "root_endpoints": [tree.endpoints["root"]],
        }
        config = ResolverConfig.parse(table, tree.folder)

        def on_events(identifier: Identifier) -> None:
            self.judging.on_events(identifier)  # nothing is heard before start(), and by then it is there

        self._resolver: Resolver = build(config, {}, on_events)
        self._tracer = Tracer(self._resolver, GrpcPointers())
        self.judging: Judging = build_judging(config.verdict, self._resolver, self._tracer)

    async def judge(self) -> Judged:
        """The verdict as it would be given to whoever scans it now."""
        return await self.judging.judge(DOSE)

    async def follow(self) -> None:
        """Have the nodes tell of changes, and wait until verdicts are kept for as long as they do.

        Raises:
            TimeoutError: they do not.
        """
        self._resolver.start()
        async with asyncio.timeout(FOLLOWED_SECONDS_MAX):
            judged = await self.judge()
            while not judged.kept or judged.unfollowed_ms is not None:
                await asyncio.sleep(0.05)  # as a scanner asks again: nobody but a question looks whether it is kept
                judged = await self.judge()

    async def until(self, events: int) -> Judged:
        """The first verdict that rests on so many events.

        Raises:
            TimeoutError: there is none.
        """
        async with asyncio.timeout(FOLLOWED_SECONDS_MAX):
            judged = await self.judge()
            while len(judged.facts.observed) < events:
                await asyncio.sleep(0.002)  # as above
                judged = await self.judge()
            return judged

    async def again(self) -> Judged:
        """The verdict after a word that there is more of the dose."""
        self.judging.on_events(DOSE)
        return await self.judge()

    async def close(self) -> None:
        """Let go of everything."""
        await self.judging.close()
        await self._tracer.close()
        await self._resolver.close()


async def _timed(work: Work, ask: Callable[[], Awaitable[Judged]], events: int) -> Judged:
    with counting() as counted:
        started = time.perf_counter()
        judged = await ask()
        work.times_ms.append((time.perf_counter() - started) * 1000)
    work.signatures.append(counted.signatures)
    work.calls.append(counted.calls)
    found = len(judged.facts.observed)
    if judged.judgement.use is not Use.USE or judged.judgement.findings or found != events:
        codes = [str(one.code) for one in judged.judgement.findings]
        raise RuntimeError(f"the measurement is void: {judged.judgement.use.name} for {codes} with {found} events")
    return judged


async def measure(tree: DemoTree, now_ms: int, rounds: int, tell: Callable[[str], None]) -> list[Work]:
    """All four, interleaved; each round adds one event.

    Raises:
        RuntimeError: a verdict is not the expected one, or was not given the way that is measured.
    """
    cold, warm, again, known = (Work(name) for name in NAMES)
    for number in range(rounds):
        tell(f"scanning, round {number + 1} of {rounds}")
        events = scan_story.EVENTS + number
        asker = Asker(tree)
        try:
            judged = await _timed(cold, asker.judge, events)
            measured = len(readings(judged.facts.observed))
            _require(measured == scan_story.READINGS, f"{measured} readings")
            await asker.follow()
            for _ in range(WARM_A_ROUND):
                _require((await _timed(warm, asker.judge, events)).kept, "a warm verdict is kept")
            more = Documents(now_ms)
            scan_story.look(more, 30 - number / 10)
            await asyncio.to_thread(capture, tree, more)
            await _timed(known, partial(asker.until, events + 1), events + 1)
            await _timed(again, asker.again, events + 1)
        finally:
            await asker.close()
    return [cold, warm, again, known]


def prepare(tree: DemoTree, now_ms: int) -> None:
    """Licences, the product, the dose and its events."""
    demo_vaccine.register_papers(tree)
    values = ("--value", "lot=L1", "--value", f"expiry={EXPIRY}")
    by = demo_vaccine.by(tree, MAKER)
    quiet_command("register", scan_story.DOSE, "--class", PRODUCT, *values, *by)
    documents = scan_story.tell(now_ms)
    capture(tree, documents)
    _require(demo_vaccine.delivered(tree, documents), "every pointer is delivered")


def capture(tree: DemoTree, documents: Documents) -> None:
    """Capture events at their parties' nodes.

    Raises:
        RuntimeError: one of them was known already.
    """
    for party, file in documents.write(tree.folder).items():
        journal = file.with_name(f"{file.stem}-{time.monotonic_ns()}.receipts")
        words = ("--party", party, "--journal", str(journal), *demo_vaccine.by(tree, party), "--json")
        summary = json.loads(quiet_command("capture", str(file), *words).splitlines()[-1])["summary"]
        _require(summary["captured"] == len(documents.events[party]), f"every event is new: {summary}")


def _require(holds: bool, what: str) -> None:  # noqa: FBT001 - a condition
    if not holds:
        raise RuntimeError(f"the measurement is void: {what}, and it is not")

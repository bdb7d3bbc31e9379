"""A node with a log, and a witness, whose disk fails, is full, or is the last thing they see: call by call.

A plain run is recorded first, then the same load is repeated on a fresh copy with one system call of it failing (EIO,
ENOSPC) or killing the program. After each, the program starts again without strace, all clients ask again, and what
lies in the folder is held against everything that anybody was told.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import httpx
import pytest

from idtrace.errors import OutcomeUnknownError, Reason
from idtrace.serving.errors import error_from_rpc
from tests import strace
from tests.engines.process import free_port
from tests.log_examined import examine_log
from tests.logged_program import LogClient, LoggedProgram, LoggedRoot, LogLedger, prepared_log
from tests.strace import Injection, Point
from tests.under_fire import RegistryProgram, Stub

FILES = ("registry.sqlite3", "registry.sqlite3-wal", "registry.sqlite3-shm", "registry.sqlite3-journal", "lock")
# Of each kind of call so many are met by each failure, evenly from the first to the last.
PLACES = 6
# So large that the batches go across a tile.
BATCH, SEALED = 120, 140

pytestmark = pytest.mark.skipif(bool(strace.why_not()), reason=f"not run: {strace.why_not()}")


@dataclass
class Outcome:
    """What one round has shown."""

    injection: Injection | None
    struck: bool
    acked: int
    unknown: int
    wrong: list[str] = field(default_factory=list)


class Bench:
    """A prepared folder, and rounds on copies of it."""

    def __init__(self, folder: Path, template: Path, nodes: LoggedRoot) -> None:
        self.folder = folder
        self.template = template
        self.nodes = nodes
        self.rounds = 0

    @classmethod
    async def prepared(cls, folder: Path) -> Bench:
        template = folder / "template"
        template.mkdir()
        made = await prepared_log(template)
        return cls(folder, template, made.nodes)

    def copy(self) -> LoggedProgram:
        """A node of its own on a copy of the template, with a port of its own for its log."""
        self.rounds += 1
        place = self.folder / f"round-{self.rounds}"
        shutil.copytree(self.template, place)
        config, port = place / "registry.toml", free_port()
        lines = config.read_text().splitlines()
        at = max(number for number, line in enumerate(lines) if line.startswith("listen"))
        lines[at] = f'listen = "127.0.0.1:{port}"'
        config.write_text("\n".join([*lines, ""]))
        return LoggedProgram(RegistryProgram(config), f"http://127.0.0.1:{port}", self.nodes)

    async def recorded(self) -> dict[Point, int]:
        """The calls of a run that nothing disturbs."""
        node = self.copy()
        report = node.program.config.parent / "strace.txt"
        load = Load(node)
        await load.run(strace.watching(node.store.parent, FILES, report))
        assert load.unknown == 0
        return strace.counted(report, node.store.parent)

    async def round(self, injection: Injection) -> Outcome:
        node = self.copy()
        folder, report = node.program.config.parent, node.program.config.parent / "strace.txt"
        load = Load(node, lasting=injection.how == strace.FULL)
        returncode = await load.run(injection.before(node.store.parent, report))
        struck = injection.struck(report, returncode)
        try:
            await node.program.start()
            async with grpc.aio.insecure_channel(node.program.endpoint) as channel:
                await load.client.repeat_unsure(Stub(channel))
            await load.client.ask_again(node.program.endpoint)
            await load.look()
        finally:
            await node.program.kill()
        found = await examine_log(node.store, load.ledger, self.nodes.anchor)
        expected = len(load.ledger.sent) + sum(len(batch.records) for batch in load.ledger.batches.values())
        found.require(found.acked == expected, "what was asked again was not answered")
        found.require(found.records == expected, "a record of nobody, or none of somebody")
        wrong = [f"{injection}: {one}" for one in [*load.wrong, *found.wrong]]
        if not wrong:
            shutil.rmtree(folder)
        return Outcome(injection, struck, load.acked, load.unknown, wrong)


class Load:
    """One client that does the same things each time, repeats what it was not told, and ends the node."""

    def __init__(self, node: LoggedProgram, *, lasting: bool = False) -> None:
        self.node = node
        self.lasting = lasting  # the disk does not get well again
        self.ledger = LogLedger()
        self.client = LogClient("x", self.ledger)
        self.acked = 0
        self.unknown = 0
        self.wrong: list[str] = []

    async def run(self, under: Sequence[str]) -> int:
        """Start the program under strace, load it, end it; its exit status."""
        program = self.node.program
        try:
            if await program.try_start(under):
                with suppress(GoneError):
                    await self._steps()
        finally:
            assert program.process is not None
            status = await strace.ended(program.process)
        self.acked = len(self.ledger.acked) + sum(bool(batch.text) for batch in self.ledger.batches.values())
        return status

    async def _steps(self) -> None:
        client = self.client
        async with grpc.aio.insecure_channel(self.node.program.endpoint) as channel:
            stub = Stub(channel)
            for _ in range(2):
                single = client.new()
                await self._until_told(lambda key=single: client.send(stub, key))  # type: ignore[misc]  # this one's
                many = [client.new() for _ in range(BATCH)]
                await self._until_told(lambda keys=many: client.send_batch(stub, keys))  # type: ignore[misc]  # these
                await self.look()
                sealed = client.new_batch(SEALED)
                await self._until_told(lambda key=sealed: client.send_sealed(stub, key))  # type: ignore[misc]  # this one
                following = client.new(self.ledger.sent[single][0])
                await self._until_told(lambda key=following: client.send(stub, key))  # type: ignore[misc]  # this one
                await self.look()

    async def _until_told(self, call: Callable[[], Awaitable[None]]) -> None:
        """Call; where the outcome is unknown or the node says no, call again with the same key, twice at most."""
        for _ in range(3):
            try:
                await call()
            except grpc.aio.AioRpcError as error:
                typed = error_from_rpc(error)
                if typed is None and error.code() is grpc.StatusCode.UNAVAILABLE:
                    raise GoneError from None
                if typed is None or typed.reason is not Reason.OUTCOME_UNKNOWN:
                    self.wrong.append(f"a call was answered with {error.code()}: {typed or error.details()}")
                    return
                self.unknown += 1
            except OutcomeUnknownError:
                self.unknown += 1
            else:
                return
        if self.lasting:
            raise GoneError
        self.wrong.append("one failure made three calls fail")

    async def look(self) -> None:
        """What the log shows to everybody."""
        async with httpx.AsyncClient(base_url=self.node.url, trust_env=False, timeout=5.0) as client:
            with suppress(httpx.HTTPError):
                answer = await client.get("/checkpoint")
                if answer.status_code == 200:
                    self.ledger.told.checkpoint(answer.content)


class GoneError(Exception):
    """The node has died, or its disk has."""


def figures(outcomes: Sequence[Outcome], points: dict[Point, int], begun: float) -> str:
    """What was done, for the end of the run."""
    calls = ", ".join(f"{point.syscall} {point.file} {count}" for point, count in sorted(points.items()))
    return (
        f"{len(outcomes)} injections ({sum(one.struck for one in outcomes)} struck) over {len(points)} kinds of calls "
        f"({calls}); answered before the end {sum(one.acked for one in outcomes)}, unknown outcomes "
        f"{sum(one.unknown for one in outcomes)}, wrong {sum(bool(one.wrong) for one in outcomes)}, "
        f"{time.monotonic() - begun:.0f} s"
    )


async def all_rounds(injections: Sequence[Injection], work: Callable[[Injection], Awaitable[Outcome]]) -> list[Outcome]:
    """Two rounds at a time: one waits for its disk while the other computes."""
    at_once = asyncio.Semaphore(2)

    async def one(injection: Injection) -> Outcome:
        async with at_once:
            return await work(injection)

    async with asyncio.TaskGroup() as rounds:  # where one raises, the others end what they have started
        tasks = [rounds.create_task(one(injection)) for injection in injections]
    return [task.result() for task in tasks]


def judge(outcomes: Sequence[Outcome]) -> None:
    """Nothing is wrong, and hardly an injection has missed: threads do not always share their work alike."""
    assert [wrong for one in outcomes for wrong in one.wrong] == []
    missed = [str(one.injection) for one in outcomes if not one.struck]
    assert len(missed) <= len(outcomes) // 5, missed


async def disturbed(folder: Path, choose: Callable[[dict[Point, int]], list[Injection]]) -> str:
    """Record, inject, examine; the figures."""
    begun = time.monotonic()
    bench = await Bench.prepared(folder)
    points = await bench.recorded()
    assert {"fdatasync", "pwrite64", "ftruncate", "unlink"} <= {point.syscall for point in points}
    outcomes = await all_rounds(choose(points), bench.round)
    judge(outcomes)
    return figures(outcomes, points, begun)


def some(points: dict[Point, int]) -> list[Injection]:
    """A call of each sort in the midst of the load: it is full, it fails, it is the last."""
    write, sync = Point("pwrite64", FILES[1]), Point("fdatasync", FILES[1])
    return [
        Injection(write, "ENOSPC", points[write] // 2),
        Injection(sync, "EIO", points[sync] // 2),
        Injection(write, strace.KILL, points[write] // 3),
        Injection(sync, strace.KILL, points[sync] // 2),
    ]


@pytest.mark.slow
async def test_a_log_is_whole_and_nothing_acknowledged_is_lost_when_the_disk_fails(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("log and failing calls", await disturbed(tmp_path, some))


@pytest.mark.faults
@pytest.mark.timeout(1_800)
async def test_a_log_is_whole_whichever_call_fails(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property(
        "log and failing calls, at length",
        await disturbed(tmp_path, lambda points: strace.spread(points, PLACES)),
    )

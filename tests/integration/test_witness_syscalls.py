"""A witness whose disk fails, is full, or is the last thing it sees: what it has signed, it remembers.

A plain run is recorded, then the same load is repeated on a fresh folder with one system call of it failing or killing
the program. After each it starts again without strace, and is asked to cosign forks of everything that it has cosigned
before: it has to refuse each, and to cosign the honest log from where it says that it stands.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from idtrace.note import Note
from idtrace.witnessing import read_cosignatures
from tests import strace
from tests.integration.test_log_syscalls import GoneError, Outcome, all_rounds, figures, judge
from tests.log_fixtures import ORIGIN
from tests.served_log import MemoryLog
from tests.strace import Injection, Point
from tests.witness_fixtures import WitnessProgram, asking, request

STATE = "seen.sqlite3"
FILES = (STATE, f"{STATE}-wal", f"{STATE}-shm", f"{STATE}-journal", f"{STATE}.lock")
SIZES = (5, 9, 30, 31, 300, 700)
ADD = "/add-checkpoint"
# Of each kind of call so many are met by each failure, evenly from the first to the last.
PLACES = 3

pytestmark = pytest.mark.skipif(bool(strace.why_not()), reason=f"not run: {strace.why_not()}")


class Load:
    """A log that grows and asks for a cosignature at each size; ``handed`` are the sizes that it has got one for."""

    def __init__(self, folder: Path) -> None:
        self.program = WitnessProgram(folder)
        self.log = MemoryLog()
        self.handed: list[int] = []
        self.unknown = 0
        self.wrong: list[str] = []

    async def run(self, under: Sequence[str], *, lasting: bool = False) -> int:
        """Start the witness under strace, load it, end it; its exit status."""
        program = self.program
        try:
            if await program.try_start(under=under):
                async with asking(program.url) as client:
                    with suppress(GoneError):
                        await self._steps(client, lasting=lasting)
        finally:
            assert program.process is not None
            status = await strace.ended(program.process)
        return status

    async def _steps(self, client: httpx.AsyncClient, *, lasting: bool) -> None:
        for size in SIZES:
            self.log.grow(size)
            for _ in range(3):
                try:
                    answer = await client.post(ADD, content=request(self.log, self.handed[-1] if self.handed else 0))
                except httpx.HTTPError:
                    raise GoneError from None
                if answer.status_code == 409:  # it has kept what it could not say
                    answer = await client.post(ADD, content=request(self.log, int(answer.text)))
                if answer.status_code == 200:
                    read_cosignatures(answer.content, Note.parse(self.log.note), [self.program.key])
                    self.handed.append(size)
                    break
                if answer.status_code != 503 or answer.json()["reason"] != "OUTCOME_UNKNOWN":
                    self.wrong.append(f"it answers {answer.status_code}: {answer.text}")
                self.unknown += 1
            else:
                if not lasting:
                    self.wrong.append("one failure made three requests fail")
                return

    async def examine(self) -> None:
        """Ask the restarted witness for what it must never sign, and for what it has to."""
        async with asking(self.program.url) as client:
            seen = (await client.get("/health")).json()["logs"][ORIGIN]
            last = max(self.handed, default=0)
            # What was asked for and not answered may have been remembered, and nothing else.
            if seen < last or seen not in {0, *SIZES[: len(self.handed) + 1]}:
                self.wrong.append(f"it has cosigned {last} and remembers {seen}")
            for old in self.handed:
                await self._refused(client, request(self.log.forked(old - 1, old), seen, hashes=[]), f"a fork at {old}")
                await self._refused(client, request(MemoryLog(old), old - 1), f"a tree below {old} was cosigned again")
            if seen:
                fork = self.log.forked(seen - 1, seen + 20)
                await self._refused(client, request(fork, seen), f"a fork that grows from {seen}")
            self.log.grow(max(SIZES) + 50)
            answer = await client.post(ADD, content=request(self.log, seen))
            if answer.status_code != 200:
                self.wrong.append(f"it remembers another tree of {seen} than it was shown: {answer.text}")

    async def _refused(self, client: httpx.AsyncClient, body: bytes, what: str) -> None:
        answer = await client.post(ADD, content=body)
        if answer.status_code not in {400, 409, 422} or b"\xe2\x80\x94" in answer.content:
            self.wrong.append(f"{what}: it answers {answer.status_code}")


class Bench:
    """Rounds below one folder; in each the state has to be made first, unless it ``is_made``."""

    def __init__(self, folder: Path, *, is_made: bool) -> None:
        self.folder = folder
        self.is_made = is_made
        self.rounds = 0

    async def load(self) -> Load:
        self.rounds += 1
        load = Load(self.folder / f"witness-{self.rounds}")
        if self.is_made:
            await load.program.start()
            await load.program.end(signal.SIGTERM)
        return load

    async def recorded(self) -> dict[Point, int]:
        load = await self.load()
        folder, report = load.program.config.parent, load.program.config.parent / "strace.txt"
        await load.run(strace.watching(folder, FILES, report))
        assert (load.handed, load.wrong) == (list(SIZES), [])
        return strace.counted(report, folder)

    async def round(self, injection: Injection) -> Outcome:
        load = await self.load()
        folder, report = load.program.config.parent, load.program.config.parent / "strace.txt"
        returncode = await load.run(injection.before(folder, report), lasting=injection.how == strace.FULL)
        struck = injection.struck(report, returncode)
        try:
            await load.program.start()
            await load.examine()
        finally:
            await load.program.end(signal.SIGKILL)
        if not load.wrong:
            shutil.rmtree(folder)
        return Outcome(injection, struck, len(load.handed), load.unknown, [f"{injection}: {one}" for one in load.wrong])


async def disturbed(
    folder: Path, choose: Callable[[dict[Point, int]], list[Injection]], *, is_made: bool = True
) -> str:
    """Record, inject, examine; the figures."""
    begun = time.monotonic()
    bench = Bench(folder, is_made=is_made)
    points = await bench.recorded()
    outcomes = await all_rounds(choose(points), bench.round)
    judge(outcomes)
    return figures(outcomes, points, begun)


def some(points: dict[Point, int]) -> list[Injection]:
    """A call of each sort in the midst of the load: it is full, it fails, it is the last."""
    write, sync = Point("pwrite64", f"{STATE}-wal"), Point("fdatasync", f"{STATE}-wal")
    return [
        Injection(write, "ENOSPC", points[write] // 2),
        Injection(sync, "EIO", points[sync] // 2),
        Injection(write, strace.KILL, points[write] // 2),
        Injection(sync, strace.KILL, points[sync] // 2),
    ]


@pytest.mark.slow
async def test_a_witness_never_forgets_what_it_has_signed_when_the_disk_fails(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("witness and failing calls", await disturbed(tmp_path, some))


@pytest.mark.faults
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("is_made", [True, False], ids=["a state that is there", "a state that is made"])
async def test_a_witness_never_forgets_what_it_has_signed_whichever_call_fails(
    tmp_path: Path, record_property: Callable[[str, object], None], is_made: bool
) -> None:
    record_property(
        f"witness and failing calls, at length, {'on a state that is there' if is_made else 'from the first start on'}",
        await disturbed(tmp_path, lambda points: strace.spread(points, PLACES), is_made=is_made),
    )

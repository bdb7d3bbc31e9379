"""System calls of a program that fail, or kill it, at a chosen moment: strace's fault injection on files of a folder.

strace runs beside the program (``-D``), so the program stays our child, with its own process id and exit status. It
counts the calls of each thread apart; what a plain run has counted is therefore kept as the most of any thread.
Source: strace(1), "Tampering".
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

# Whatever changes a file or a folder, or makes a change durable.
CHANGING: Final = (
    "write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,sync_file_range,fallocate,truncate,ftruncate,"
    "rename,renameat,renameat2,link,linkat,unlink,unlinkat"
)
KILL: Final = "KILL"
# A disk that is full from this call on, whatever is tried.
FULL: Final = "ENOSPC+"
# What a disk says that fails, and one that is full; a sync tells of the writes before it, so it says either.
FAILURES: Final = ("EIO", "ENOSPC", KILL)
PROBE_SECONDS: Final = 10
# A node drains for 5 s at most.
END_SECONDS: Final = 20.0
# Only calls that are asked for stop the program: a start takes 1 s in place of 3.
QUICKLY: Final = "--seccomp-bpf"
_CALL: Final = re.compile(r'^(\d+) +(\w+)\((?:\d+<([^>]+)>|(?:AT_FDCWD<[^>]*>, )?"([^"]+)")')


@cache
def why_not() -> str:
    """Why calls cannot be made to fail here; empty where they can."""
    program = shutil.which("strace")
    if program is None:
        return "strace is not installed"
    probe = [program, "-D", "-f", "-qq", QUICKLY, "-e", "trace=fsync", "-e", "inject=fsync:error=EIO", "true"]
    ran = subprocess.run(probe, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
    if ran.returncode or ran.stderr:
        return f"strace may not trace here: {ran.stderr.strip()[:200] or ran.returncode}"
    return ""


@dataclass(frozen=True, order=True)
class Point:
    """A kind of call on one file of the folder, or on the folder itself ("."), as a plain run has made it."""

    syscall: str
    file: str


@dataclass(frozen=True)
class Injection:
    """The ``nth`` call of a kind fails with an error, or is where the program dies."""

    point: Point
    how: str
    nth: int

    def __str__(self) -> str:
        return f"{self.how} at {self.point.syscall} {self.nth} of {self.point.file}"

    def before(self, folder: Path, report: Path) -> tuple[str, ...]:
        """What stands before the program's command line."""
        effect = "signal=KILL" if self.how == KILL else f"error={self.how.rstrip('+')}"
        command = _strace(self.point.syscall, report, (folder / self.point.file).resolve())
        if self.how == KILL:  # no signal can be sent where the filter of the kernel has stopped a call
            command = tuple(word for word in command if word != QUICKLY)
        return (*command, "-e", f"inject={self.point.syscall}:{effect}:when={self.nth}{'+' * (self.how == FULL)}")

    def struck(self, report: Path, returncode: int | None) -> bool:
        """Whether the call was made, and met."""
        return returncode == -9 if self.how == KILL else "(INJECTED)" in report.read_text()


def watching(folder: Path, files: Iterable[str], report: Path) -> tuple[str, ...]:
    """What stands before a command line of which every changing call on these files is to be reported."""
    folder = folder.resolve()
    return _strace(CHANGING, report, folder, *(folder / file for file in files))


async def ended(process: asyncio.subprocess.Process) -> int:
    """Ask a program to end (SIGTERM) unless it has, and wait; its exit status. What does not end is killed."""
    try:
        with suppress(ProcessLookupError):
            # Not by the object's own method: that would reap a program that has just died, and lose its exit status.
            os.kill(process.pid, signal.SIGTERM)
        return await asyncio.wait_for(process.wait(), END_SECONDS)
    except BaseException:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        raise


def _strace(calls: str, report: Path, *paths: Path) -> tuple[str, ...]:
    wanted = [word for path in paths for word in ("-P", str(path))]
    return ("strace", "-D", "-f", "-qq", "-y", QUICKLY, "-o", str(report), "-e", f"trace={calls}", *wanted)


def counted(report: Path, folder: Path) -> dict[Point, int]:
    """How often one thread has made each kind of call, the most of any."""
    by_thread = Counter[tuple[str, Point]]()
    for line in report.read_text().splitlines():
        if made := _CALL.match(line):
            thread, syscall, by_descriptor, by_path = made.groups()
            file = Path(by_descriptor or by_path).relative_to(folder.resolve())
            by_thread[thread, Point(syscall, str(file))] += 1
    points: dict[Point, int] = {}
    for (_, point), count in sorted(by_thread.items()):
        points[point] = max(points.get(point, 0), count)
    return points


def spread(points: dict[Point, int], most: int) -> list[Injection]:
    """Each failure that fits at each kind of call, at most so many times, evenly from the first call to the last."""
    chosen = []
    for point, count in sorted(points.items()):
        places = min(count, most)
        numbers = {1 + (count - 1) * n // max(places - 1, 1) for n in range(places)}
        failures = [how for how in FAILURES if how != "ENOSPC" or not point.syscall.startswith("unlink")]
        failures += [FULL] * point.syscall.startswith("pwrite")
        chosen += [Injection(point, how, nth) for how in failures for nth in sorted(numbers)]
    return chosen

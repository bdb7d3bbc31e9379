"""A program that outlives whoever started it, known by its pid and its start time.

Both stand in a file beside its log, so that any process of ours can stop, pause or kill it, and never a stranger that
was given the same pid since.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.engines import EngineFailed, EngineUnavailable

POLL_SECONDS = 0.02
KILL_SECONDS = 10.0
LOG_TAIL_BYTES = 2_000
# Below the ports that Linux gives to outgoing connections (32768 and up): nobody takes one while its owner restarts.
PORTS = range(20_000, 32_000)


class Process:
    """``<folder>/<name>.pid`` and ``<folder>/<name>.log``."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._file = folder / f"{name}.pid"
        self.log = folder / f"{name}.log"

    def start(self, command: Sequence[str | Path]) -> None:
        """Start it in a session of its own, so that Ctrl-C at a terminal is its owner's business. Not if it runs."""
        if sys.platform != "linux":
            raise EngineUnavailable("engines are started on Linux only: their processes are known by its /proc")
        if self.pid is not None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        words = [str(word) for word in command]
        # No Popen: it holds that whoever starts a program also ends it.
        pid = os.posix_spawn(
            words[0],
            words,
            {**os.environ, "LC_ALL": "C.UTF-8"},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        self._file.write_text(json.dumps({"pid": pid, "start_time": start_time(pid)}), "utf-8")

    @property
    def pid(self) -> int | None:
        """The pid while this very process runs (or is paused)."""
        try:
            noted = json.loads(self._file.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        pid = int(noted["pid"])
        return pid if start_time(pid) == noted["start_time"] is not None else None

    def send(self, number: signal.Signals) -> None:
        """Send a signal, to this very process or to nobody."""
        pid = self.pid
        if pid is None:
            return
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            # Looked at again while the handle is held: from here on the pid cannot become somebody else's.
            if self.pid == pid:
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            pass  # it ended meanwhile
        finally:
            os.close(handle)

    def terminate(self) -> None:
        """Ask it to end, even if it is paused."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)

    def stop(self, seconds: float) -> None:
        """Ask it to end and wait; past so many seconds, kill it."""
        self.terminate()
        if not self._until(lambda: self.pid is None, seconds):
            self.kill()
        self._file.unlink(missing_ok=True)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        if not self._until(lambda: self.pid is None, KILL_SECONDS):
            raise EngineFailed(f"{self.name} outlives SIGKILL")

    def pause(self) -> None:
        """Stop it where it stands; returns once it has stopped, for the signal alone is only a request."""
        self.send(signal.SIGSTOP)
        self._until(lambda: self.paused or self.pid is None, KILL_SECONDS)

    def resume(self) -> None:
        self.send(signal.SIGCONT)
        self._until(lambda: not self.paused, KILL_SECONDS)

    @property
    def paused(self) -> bool:
        pid = self.pid
        return pid is not None and _stat(pid)[0] in {"T", "t"}

    def log_tail(self) -> str:
        try:
            return self.log.read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace")
        except FileNotFoundError:
            return "(no log)"

    def _until(self, so: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not so():
            if time.monotonic() > end:
                return False
            time.sleep(POLL_SECONDS)
        return True


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none, or only its exit status is left."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # if it is a child of ours and has ended, nobody else will ask
    state, *rest = _stat(pid)
    return None if state in {"", "Z", "X"} else int(rest[18])


def _stat(pid: int) -> list[str]:
    """Fields 3 and on of /proc/PID/stat (proc(5)): after the program's name, which may hold spaces and brackets."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return [""]


def free_port(addresses: Sequence[str] = ("127.0.0.1",)) -> int:
    """A port that nothing listens on at any of these addresses.

    Raises:
        EngineUnavailable: the addresses are not this machine's.
    """
    refusal: OSError | None = None
    for port in random.SystemRandom().sample(PORTS, 100):
        try:
            for address in addresses:
                with socket.socket() as probe:
                    probe.bind((address, port))
        except OSError as error:
            refusal = error
        else:
            return port
    raise EngineUnavailable(f"no free port at {', '.join(addresses)}: {refusal}")


def listens(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=0.5):
            return True
    except OSError:
        return False

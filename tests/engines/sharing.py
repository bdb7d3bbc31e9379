"""Engines that the processes of one test run share, and those that `make engines` leaves running for all.

A run is known to its processes by an environment variable; its engines live in a folder named after the process that
leads it. Whichever test process needs an engine first starts it, the others find it, and the leader stops them all.
What a leader could not stop, because it was killed, the next run or `make engines-stop` does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from tests.engines import FOLDER, EngineUnavailable, may_install
from tests.engines.cassandra import CassandraCluster
from tests.engines.install import REDIS, install_programs
from tests.engines.process import start_time
from tests.engines.redis import RedisServer

STANDING = FOLDER / "standing"
RUN_ENV = "IDTRACE_ENGINES_RUN"
RUN_PREFIX = "run-"


def begin_run() -> None:
    """Make this process the leader of a run."""
    end_runs_without_leader()
    os.environ[RUN_ENV] = f"{RUN_PREFIX}{os.getpid()}-{start_time(os.getpid())}"


def end_run() -> None:
    """Stop what the run has started and delete its data; the leader alone calls this."""
    _end(_run_folder())
    del os.environ[RUN_ENV]


def end_runs_without_leader() -> None:
    """Stop what runs have left behind whose leader was killed."""
    for folder in FOLDER.glob(f"{RUN_PREFIX}*"):
        pid, _, started = folder.name.removeprefix(RUN_PREFIX).partition("-")
        if str(start_time(int(pid))) != started:
            _end(folder)


def _run_folder() -> Path:
    return FOLDER / os.environ[RUN_ENV]


def _end(folder: Path) -> None:
    for server in folder.glob("redis-*"):
        RedisServer(server).stop()
    for nodes in (1, 3):
        CassandraCluster(folder / f"cassandra{nodes}", nodes).stop()
    shutil.rmtree(folder, ignore_errors=True)


def shared_cassandra(nodes: Literal[1, 3]) -> CassandraCluster:
    """The cluster of `make engines` if it runs with as many nodes, else the one of this run; ready.

    Raises:
        EngineUnavailable: there is none to be had here.
    """
    cluster = standing_cassandra(nodes)
    if not cluster.running:
        cluster = CassandraCluster(_run_folder() / f"cassandra{nodes}", nodes)
    with _noted(f"cassandra{nodes}", "cassandra" + (f" x{nodes}" if nodes > 1 else "")) as versions:
        cluster.start()
        versions.append(cluster.version())
    return cluster


def own_redis(process: str) -> RedisServer:
    """A server of this test process alone: tests empty it and kill it, and it starts in no time.

    Raises:
        EngineUnavailable: there is none to be had here.
    """
    server = RedisServer(_run_folder() / f"redis-{process}")
    with _noted("redis", "redis") as versions:
        if may_install():
            install_programs(REDIS)
        server.start()
        versions.append(server.version)
    return server


def standing_redis() -> RedisServer:
    return RedisServer(STANDING / "redis")


def standing_cassandra(nodes: Literal[1, 3]) -> CassandraCluster:
    return CassandraCluster(STANDING / f"cassandra{nodes}", nodes)


@contextmanager
def _noted(file: str, name: str) -> Iterator[list[str]]:
    """Write down, for the end of the run, which version has run or why none has."""
    versions: list[str] = []
    note = _run_folder() / f"{file}.note"
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(f"{name} FAILED", "utf-8")
    try:
        yield versions
    except EngineUnavailable as reason:
        note.write_text(f"{name} not run ({reason})", "utf-8")
        raise
    note.write_text(f"{name} {versions[0]} run", "utf-8")


def outcomes() -> list[str]:
    """What has become of each engine that this run asked for: "redis 7.0.15 run"."""
    return [note.read_text("utf-8") for note in sorted(_run_folder().glob("*.note"))]

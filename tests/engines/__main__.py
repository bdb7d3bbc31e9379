"""``python -m tests.engines install | start | stop | status | nodetool``: engines that stay until they are stopped."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.engines import FOLDER, ROOT, EngineUnavailable
from tests.engines.cassandra import CassandraCluster
from tests.engines.install import CASSANDRA, REDIS, cassandra_version, install_jars, install_programs
from tests.engines.sharing import end_runs_without_leader, standing_cassandra, standing_redis

DESCRIBED = FOLDER / "engines.json"
VARIABLES = FOLDER / "engines.env"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.engines", description=__doc__)
    parser.add_argument("command", choices=["install", "start", "stop", "status", "nodetool"])
    parser.add_argument("--nodes", type=int, choices=[1, 3], default=1, help="of Cassandra (start)")
    given, rest = parser.parse_known_args()
    if rest and given.command != "nodetool":
        parser.error(f"what is {' '.join(rest)}?")
    match given.command:
        case "install":
            return install()
        case "start":
            return start(given.nodes)
        case "stop":
            return stop()
        case "status":
            return status()
        case _:
            say(running_cassandra().nodetool(*rest).rstrip())
            return 0


def install() -> int:
    """Programs and jars, nothing started; 0 if both engines can be had."""
    done = [attempt("redis", install_redis), attempt("cassandra", install_cassandra)]
    return 0 if all(done) else 1


def start(nodes: int) -> int:
    """Start what does not run yet, and describe it in var/engines; 0 if both engines run."""
    end_runs_without_leader()
    server, cluster = standing_redis(), standing_cassandra(3 if nodes == 3 else 1)
    other = standing_cassandra(1 if nodes == 3 else 3)
    if other.running:
        say(f"cassandra: stopping the cluster of {other.nodes} that ran")
        other.stop()

    def start_redis() -> str:
        install_redis()
        server.start()
        return f"{server.version} runs"

    def start_cassandra() -> str:
        install_cassandra()
        cluster.start()
        return f"{cluster.version()} runs with {cluster.nodes} node(s)"

    done = [attempt("redis", start_redis), attempt("cassandra", start_cassandra)]
    describe()
    say(f"described in {VARIABLES.relative_to(ROOT)} and {DESCRIBED.name}; `make engines-stop` stops them")
    return 0 if all(done) else 1


def stop() -> int:
    """Stop what ``start`` has started, and what killed test runs have left. Data stays until `make clean`."""
    end_runs_without_leader()
    server = standing_redis()
    if server.running:
        server.stop()
        say("redis: stopped")
    for nodes in (1, 3):
        cluster = standing_cassandra(3 if nodes == 3 else 1)
        if cluster.running:
            cluster.stop()
            say("cassandra: stopped")
    describe()
    return 0


def status() -> int:
    """What runs and how to reach it; 0 if anything does."""
    running = describe()
    if not running:
        say("no engine runs (make engines starts them)")
    return 0 if running else 1


def describe() -> dict[str, Any]:
    """Say what runs, and write it to ``engines.json`` and, as variables for a shell, to ``engines.env``."""
    running: dict[str, Any] = {}
    variables: dict[str, str] = {}
    server = standing_redis()
    if server.running and server.answers():
        running["redis"] = {"url": server.url, "version": server.version}
        variables["IDTRACE_REDIS_URL"] = server.url
        say(f"  redis      {server.url}")
    for cluster in (standing_cassandra(1), standing_cassandra(3)):
        if cluster.running:
            running["cassandra"] = {
                "contact_points": cluster.contact_points,
                "port": cluster.port,
                "nodes": cluster.nodes,
                "running": cluster.running,
            }
            variables["IDTRACE_CASSANDRA_CONTACT_POINTS"] = ",".join(cluster.contact_points)
            variables["IDTRACE_CASSANDRA_PORT"] = str(cluster.port)
            up = f"{len(cluster.running)} of {cluster.nodes} up"
            say(f"  cassandra  {', '.join(cluster.contact_points)} port {cluster.port} ({up})")
    if not running:
        DESCRIBED.unlink(missing_ok=True)
        VARIABLES.unlink(missing_ok=True)
        return running
    DESCRIBED.write_text(json.dumps(running, indent=2) + "\n", "utf-8")
    VARIABLES.write_text("".join(f"{name}={value}\n" for name, value in variables.items()), "utf-8")
    return running


def install_redis() -> str:
    install_programs(REDIS)
    return f"{standing_redis().version} is installed"


def install_cassandra() -> str:
    install_programs(CASSANDRA)
    install_jars()
    return f"{cassandra_version()} is installed"


def running_cassandra() -> CassandraCluster:
    for cluster in (standing_cassandra(1), standing_cassandra(3)):
        if cluster.running:
            return cluster
    sys.exit("no Cassandra runs (make engines starts one)")


def attempt(engine: str, action: Callable[[], str]) -> bool:
    """Do it and say how it went; false if the engine cannot be had here."""
    started = time.monotonic()
    try:
        say(f"{engine}: {action()} ({time.monotonic() - started:.1f} s)")
    except EngineUnavailable as reason:
        say(f"{engine}: not run ({reason})")
        return False
    return True


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())

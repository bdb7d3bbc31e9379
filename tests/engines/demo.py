"""``python -m tests.engines.demo``: the demonstration on a real Cassandra and a real Redis (`make demo ENGINES=1`).

Uses the Cassandra of `make engines` if it runs, else starts one and stops it at the end. Redis is always one of its
own, for the demonstration kills it. Words after the module's name go to ``idtrace demo``.
"""

from __future__ import annotations

import os
import sys

from idtrace.cli import main as idtrace
from tests.engines import EngineUnavailable, sharing
from tests.engines.cassandra import CassandraCluster
from tests.engines.redis import RedisServer

# As `idtrace` says that something does not answer.
UNAVAILABLE = 4


def main(words: list[str]) -> None:
    """Play it; ends as ``idtrace demo`` ends, or with 4 where the engines cannot be had."""
    os.environ["IDTRACE_ENGINES_INSTALL"] = "1"  # whoever asks for engines by name wants them fetched
    sharing.begin_run()
    try:
        cluster, server = engines()
        point = f"{cluster.contact_points[0]}:{cluster.port}"
        # The demonstration kills the process itself, as a fault would; what it was told is only how.
        kill = f"kill -9 {server._process.pid}"
        sys.argv = ["idtrace", "demo", "--cassandra", point, "--redis", server.url, "--kill-redis", kill, *words]
        idtrace()
    finally:
        sharing.end_run()


def engines() -> tuple[CassandraCluster, RedisServer]:
    """Both, or none: a demonstration on something else would show something else."""
    try:
        return sharing.shared_cassandra(1), sharing.own_redis("demo")
    except EngineUnavailable as reason:
        sys.stderr.write(
            f"the engines cannot be had here: {reason}\n"
            "nothing was played; `make demo` plays the same job on SQLite and needs no engine\n"
        )
        sys.exit(UNAVAILABLE)


if __name__ == "__main__":
    main(sys.argv[1:])

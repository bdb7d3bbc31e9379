"""Real engines for developers, tests and CI: redis-server and Apache Cassandra, as ordinary processes on loopback.

``python -m tests.engines start`` (``make engines``) leaves them running; the fixtures ``cassandra``, ``cassandra3`` and
``redis_server`` of tests/conftest.py use those, or start their own. Linux only: processes are known by /proc.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "var" / "engines"


class EngineUnavailable(Exception):  # noqa: N818 - no error of ours: this machine has no such engine
    """An engine cannot be had here; the text says why. Tests that need it are skipped with that reason."""


class EngineFailed(Exception):  # noqa: N818 - reads as what happened
    """An engine is here and did not do what it must: start, answer, stop. Never a reason to skip."""


def may_install() -> bool:
    """Whether a test run may fetch what is missing: on a CI machine, or where somebody has said so."""
    return os.environ.get("IDTRACE_ENGINES_INSTALL") == "1" or (bool(os.environ.get("CI")) and os.geteuid() == 0)

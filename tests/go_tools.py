"""Programs of others that judge our log: built with Go from pinned sources, or the test is skipped with the reason."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.engines import may_install

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / "var" / "tools"
LITEWITNESS = "filippo.io/torchwood/cmd/litewitness@v0.9.0"
# litewitness brings an SQLite that is compiled anew: 150 s on a busy machine.
BUILD_SECONDS = 280


def litewitness() -> Path:
    """A witness that others wrote."""
    program = TOOLS / "litewitness"
    if not program.exists():
        failed = _go(["install", LITEWITNESS], ROOT, GOBIN=str(TOOLS))
        if failed:
            pytest.skip(f"not run: litewitness: {failed}")
    return program


def fsck() -> Path:
    """The checker of tlog-tiles logs that others wrote, with our few lines around it (tests/fsck)."""
    program = TOOLS / "fsck"
    failed = _go(["build", "-o", str(program), "."], Path(__file__).parent / "fsck")
    if failed and "main.go" in failed:
        pytest.fail(f"tests/fsck does not compile: {failed}")
    if failed:
        pytest.skip(f"not run: fsck: {failed}")
    return program


def _go(arguments: list[str], folder: Path, **environment: str) -> str:
    """Run go, offline first; why it failed, or nothing."""
    program = shutil.which("go")
    if program is None:
        return "Go is not installed here"
    TOOLS.mkdir(parents=True, exist_ok=True)
    said = ""
    for offline in (True, False) if may_install() else (True,):
        settings = {**os.environ, **environment, **({"GOPROXY": "off"} if offline else {})}
        done = subprocess.run(
            [program, *arguments], cwd=folder, env=settings, capture_output=True, text=True, check=False,
            timeout=BUILD_SECONDS,
        )  # fmt: skip
        if done.returncode == 0:
            return ""
        said = " ".join(done.stderr.split())[-300:]
    return said if may_install() else f"{said} (IDTRACE_ENGINES_INSTALL=1 lets it be fetched)"

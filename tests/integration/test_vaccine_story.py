"""README's "A dose's life": its commands, in a shell, as they are written there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_docs import README

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SECTION = README[README.index("## A dose's life") : README.index("## Run a node")]
SERVE, TOLD, RECALLED = re.findall(r"^```sh\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
(DOCUMENT,) = re.findall(r"^```json\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
# What each command of the walk has to end with; every other one with 0.
EXIT_CODES = {
    "judge 88.118.8/SN-7 --resolver $RESOLVER_A --evidence-out": 8,
    "judge 88.118.8/SN-7 --resolver $RESOLVER_A --fresh": 9,
    "judge --check": 8,
}


def expected(line: str) -> int:
    return next((code for words, code in EXIT_CODES.items() if words in line), 0)


def run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", f". tree/env && {line}"],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_life_of_a_dose_goes_as_readme_tells_it(tmp_path: Path) -> None:
    (tmp_path / "made.json").write_text(DOCUMENT, encoding="utf-8")
    words = SERVE.split()[1:]
    serving = subprocess.Popen(
        [sys.executable, "-m", "idtrace", *words, "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert serving.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            line = serving.stdout.readline()
            assert line, serving.communicate()[1]
            text += line
        assert json.loads(text)["endpoints"]
        lines = [line for line in (TOLD + RECALLED).splitlines() if line.startswith("idtrace ")]
        assert len(lines) == 11
        for line in lines:
            ran = run(line, tmp_path)
            assert ran.returncode == expected(line), (line, ran.stdout, ran.stderr)
    finally:
        serving.send_signal(signal.SIGTERM)
        _, said = serving.communicate(timeout=60)
    assert serving.returncode == 0, said

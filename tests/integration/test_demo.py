"""The demonstration and the bench, played small: real processes, every claim checked, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from idtrace.cli import demo_data
from idtrace.cli.demo import run_command
from idtrace.cli.demo_tree import NODES
from loadtest import __main__ as bench

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def test_the_whole_job_holds_from_registration_to_the_offline_proof(tmp_path: Path) -> None:
    code, printed = run_command("demo", "--packages", "300", "--keep", str(tmp_path / "kept"), "--json")
    report = json.loads(printed)
    assert code == 0, printed
    assert report["holds"]
    assert len(report["steps"]) >= 17
    assert all(step["holds"] for step in report["steps"])
    names = " ".join(step["name"] for step in report["steps"])
    for shown in ("forged record", "stolen prefix", "unknown code", "verified offline", "DataMatrix", "drug trace"):
        assert shown in names
    root = str(tmp_path / "kept" / "root.key.pub")
    assert run_command("verify", str(tmp_path / "kept" / "dose.json"), "--root", root)[0] == 0
    assert run_command("verify", str(tmp_path / "kept" / "forged.json"), "--root", root)[0] == 3


def test_serve_leaves_the_tree_running_until_it_is_told_to_stop(tmp_path: Path) -> None:
    arguments = ["demo", "--serve", "--packages", "100", "--keep", str(tmp_path / "kept"), "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "idtrace", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            text += line
        served = json.loads(text)
        assert set(served["endpoints"]) == {plan.name for plan in NODES}
        resolve = served["try"][0].split()[1:]
        assert run_command(*resolve)[0] == 0
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    for name in served["endpoints"]:
        log = (tmp_path / "kept" / f"{name}.log").read_text("utf-8")
        assert "stopped" in log, f"{name} was not stopped in an orderly way"


def test_a_node_that_does_not_start_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    code, printed = run_command("demo", "--packages", "100", "--keep", str(tmp_path / "kept"))
    assert code == 4
    assert "did not start" in printed


def test_the_demo_keeps_nothing_that_is_there_already(tmp_path: Path) -> None:
    code, printed = run_command("demo", "--keep", str(tmp_path))
    assert code == 2
    assert "exists already" in printed


def test_the_bench_prints_every_work_and_writes_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    bench.main(rounds=1, size=256, json_out=figures)
    rows = json.loads(figures.read_text("utf-8"))
    assert [row["work"] for row in rows] == list(bench.UNITS)
    assert all(row["median"] > 0 and row["rounds"] == 1 for row in rows)
    assert "resolve warm" in capsys.readouterr().out


def test_the_sample_is_read_where_no_epcis_documents_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDTRACE_SHARED_DATA", str(tmp_path))
    assert demo_data.epcis_folder() is None
    found, documents, refused = demo_data.epcis_identifiers(None)
    assert (len(found), documents, refused) == (5, 1, 0)
    (tmp_path / "epcis").mkdir()
    assert demo_data.epcis_folder() == tmp_path / "epcis"
    assert os.environ["IDTRACE_SHARED_DATA"] == str(tmp_path)

"""The demonstration and the bench, played small: real processes, every claim checked, nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from idtrace.cli import demo_data, demo_engines
from idtrace.cli.demo import HOSTED_LINES, run_command
from idtrace.cli.demo_tree import NODES
from idtrace.cli.demo_vaccine_events import DOSES
from loadtest import __main__ as bench
from loadtest import scan, scan_story
from tests.engines import ROOT
from tests.engines.cassandra import CassandraCluster
from tests.engines.redis import RedisServer
from tests.nodes import free_port

# Of the vaccine story: what tests/unit/test_demo_vaccine.py counts in its documents.
EVENTS = 39

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def test_the_whole_job_holds_from_registration_to_the_offline_proof(tmp_path: Path) -> None:
    code, printed = run_command("demo", "--packages", "300", "--keep", str(tmp_path / "kept"), "--json")
    report = json.loads(printed)
    assert code == 0, printed
    assert report["holds"]
    assert len(report["steps"]) >= 29
    assert all(step["holds"] for step in report["steps"])
    names = " ".join(step["name"] for step in report["steps"])
    for shown in ("forged record", "stolen prefix", "unknown code", "verified offline", "DataMatrix", "drug trace"):
        assert shown in names
    told = {step["name"]: step["result"] for step in report["steps"]}
    for name, word in (
        ("a dose that was always cold", "USE 可以使用"),
        ("a dose that froze in a truck", "DO NOT USE 禁止使用 It froze: down to -2.5 °C"),
        ("a dose whose code was copied", "DO NOT USE 禁止使用 More doses were given (2) than it has (1)"),
        ("a dose of a lot not yet recalled", "USE 可以使用"),
        ("the same dose now", "DO NOT USE 禁止使用 Recalled by 88.118.8"),
        ("frozen dose judged again offline", "DO_NOT_USE"),
    ):
        assert told[name].startswith(word)
    root = str(tmp_path / "kept" / "root.key.pub")
    assert run_command("verify", str(tmp_path / "kept" / "dose.json"), "--root", root)[0] == 0
    assert run_command("verify", str(tmp_path / "kept" / "forged.json"), "--root", root)[0] == 3


@pytest.mark.timeout(480)  # half a minute of work, for ten processes that may have to share the machine with others
def test_the_whole_job_holds_on_a_real_cassandra_and_a_real_redis(
    cassandra: CassandraCluster, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Small, but with every claim: the engines are used, both kinds of death happen, and nothing is left behind."""
    point = f"{cassandra.contact_points[0]}:{cassandra.port}"
    pid = redis_server._process.pid
    # Packages, what the documents on this machine name, what is hosted; licences, product, doses, events, the recall.
    named, _, _ = demo_data.epcis_identifiers(demo_data.epcis_folder())
    registered = 600 + len(named) + HOSTED_LINES + 5 + 1 + len(DOSES) + EVENTS + 1
    engines = ["--cassandra", point, "--redis", redis_server.url, "--kill-redis", f"kill -9 {pid}"]
    code, printed = run_command("demo", "--packages", "600", *engines, "--json")
    report = json.loads(printed)
    assert code == 0, printed
    assert len(report["steps"]) == 37
    assert all(step["holds"] for step in report["steps"])
    names = " ".join(step["name"] for step in report["steps"])
    for shown in (
        f"Cassandra {cassandra.version()} found",
        f"Redis {redis_server.version} found",
        f"{registered} identifiers in Cassandra",
        "of them from Redis",
        "registry killed (-9) while it registered",
        "started again, it has lost nothing",
        "Redis killed half-way",
        "proof verified offline",
    ):
        assert shown in names
    assert not redis_server.answers()
    keyspace = re.search(r"idtrace_demo_[0-9a-f]+", printed)
    assert keyspace, printed
    with cassandra.connected() as session:
        left = {row.keyspace_name for row in session.execute("SELECT keyspace_name FROM system_schema.keyspaces")}
    assert keyspace[0] not in left


def test_engines_that_do_not_answer_are_named_and_nothing_else_is_played(tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    for option, value in (("--cassandra", nobody), ("--redis", f"redis://{nobody}")):
        code, printed = run_command("demo", option, value, "--keep", str(tmp_path / option))
        assert code == 4
        assert nobody in printed
        assert "nodes started" not in printed
        assert not (tmp_path / option).exists()


def test_a_redis_that_wants_a_password_is_not_taken_for_a_silent_one(redis_server: RedisServer, tmp_path: Path) -> None:
    guarded = RedisServer(redis_server.folder.parent / "redis-guarded", password="a password")
    guarded.start()
    try:
        code, printed = run_command("demo", "--redis", f"redis://127.0.0.1:{guarded.port}")
    finally:
        guarded.stop()
    assert code == 5
    assert "NOAUTH" in printed


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--redis", "http://127.0.0.1:6379"], "--redis"),
        (["--redis", f"redis://{'user:secret'}@127.0.0.1:6379"], "--redis"),
        (["--cassandra", "127.0.0.1"], "--cassandra"),
        (["--kill-redis", "true"], "--kill-redis"),
    ],
)
def test_options_for_engines_are_checked_before_anything_happens(options: list[str], named: str) -> None:
    code, printed = run_command("demo", *options)
    assert code == 2
    assert named in printed


def test_a_kill_that_does_not_kill_is_no_proof(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_engines, "KILLED_SECONDS_MAX", 0.2)
    assert not demo_engines.Engines(redis=redis_server.url, kill_redis="true").kill()
    assert redis_server.answers()


def test_make_demo_with_engines_says_plainly_where_they_cannot_be_had(tmp_path: Path) -> None:
    """No programs, no apt-get: nothing is played in their place, and the exit code says so."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.engines.demo", "--packages", "100"],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 4
    assert "the engines cannot be had here" in run.stderr
    assert "nothing was played" in run.stderr
    assert run.stdout == ""


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
    assert [row["work"] for row in rows] == [*bench.UNITS, *scan.NAMES]
    rates, scans = rows[: len(bench.UNITS)], rows[len(bench.UNITS) :]
    assert all(row["median"] > 0 and row["rounds"] == 1 for row in rates)
    assert all(0 < row["median_ms"] <= row["p99_ms"] for row in scans)
    costs = {row["work"]: (row["signature_checks"], row["upstream_calls"]) for row in scans}
    assert costs["scan, warm"] == (0, 0), "a kept verdict asks nobody and checks nothing"
    assert min(costs["scan, cold"]) > scan_story.EVENTS, "every event is asked for and proven"
    assert "resolve warm" in capsys.readouterr().out


def test_the_sample_is_read_where_no_epcis_documents_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDTRACE_SHARED_DATA", str(tmp_path))
    assert demo_data.epcis_folder() is None
    found, documents, refused = demo_data.epcis_identifiers(None)
    assert (len(found), documents, refused) == (5, 1, 0)
    (tmp_path / "epcis").mkdir()
    assert demo_data.epcis_folder() == tmp_path / "epcis"
    assert os.environ["IDTRACE_SHARED_DATA"] == str(tmp_path)

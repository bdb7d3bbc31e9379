"""The installed program as a process: it says when a node is ready, stops when told, and bears a reader that leaves."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from idtrace.cli import main
from tests.cli import idtrace, key_file
from tests.core_fixtures import PINNED
from tests.nodes import free_port

PROGRAM = [sys.executable, "-c", "from idtrace.cli import main; main()"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


def start(arguments: Sequence[object], folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        cwd=folder,
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def configuration(folder: Path, role: str, **settings: str) -> Path:
    key_file(folder, PINNED)
    key_file(folder, "node of ")
    table = {
        "registry": {
            "data": '"data"',
            "root_key": '"pinned-root.key.pub"',
            "node_key": '"node-of-.key"',
            "zones": '[""]',
            "parents": "[]",
        },
        "resolver": {"root_key": '"pinned-root.key.pub"', "root_endpoints": '["127.0.0.1:1"]'},
    }[role]
    path = folder / f"{role}.toml"
    lines = {"listen": '"127.0.0.1:0"', **table, **settings}
    path.write_text("".join(f"{name} = {value}\n" for name, value in lines.items()))
    return path


@pytest.mark.parametrize("role", ["registry", "resolver"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_node_says_when_it_is_ready_and_stops_when_told(tmp_path: Path, role: str, number: signal.Signals) -> None:
    config = configuration(tmp_path, role)
    with start(["node", "run", "--role", role, "--config", config.name], tmp_path) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(number)
        rest, errors = process.communicate(timeout=30)
    word, address = line.split()
    assert word == "ready"
    assert int(address.rpartition(":")[2]) > 0
    assert (process.returncode, rest) == (0, ""), errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("role", "settings", "field"),
    [
        ("registry", {"colour": '"red"'}, "colour"),
        ("registry", {"node_key": '"nowhere.key"'}, "nowhere.key"),
        ("registry", {"log_level": '"LOUD"'}, "log_level"),
        ("resolver", {"root_endpoints": "[]"}, "root_endpoints"),
        ("resolver", {"listen": '"127.0.0.1:1"'}, "listen"),
    ],
)
def test_a_wrong_configuration_is_explained_by_its_key(
    tmp_path: Path, role: str, settings: dict[str, str], field: str
) -> None:
    if field == "listen" and os.geteuid() == 0:
        settings = {"listen": '"203.0.113.1:7"'}
    config = configuration(tmp_path, role, **settings)
    with start(["node", "run", "--role", role, "--config", config], tmp_path) as process:
        out, errors = process.communicate(timeout=30)
    assert (process.returncode, out) == (2, "")
    assert field in errors
    assert "Traceback" not in errors


def test_what_is_no_toml_is_refused(tmp_path: Path) -> None:
    for content in (b"listen = ", b"\xff"):
        (tmp_path / "x.toml").write_bytes(content)
        ran = idtrace("node", "run", "--role", "registry", "--config", tmp_path / "x.toml")
        assert (ran.code, "not TOML" in ran.err) == (2, True)


def test_a_reader_that_leaves_is_not_answered_with_a_traceback(tmp_path: Path) -> None:
    with start(["scan", "-", "--json"], tmp_path) as process:
        process.terminate()
        process.communicate(timeout=30)
    script = f"{' '.join(map(repr, PROGRAM[:2]))} '{PROGRAM[2]}' scan - --json | head -1"
    codes = "yes 88.118/x | head -20000"
    ran = subprocess.run(
        ["bash", "-c", f"{codes} | {script}; echo ${{PIPESTATUS[2]}}"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout.splitlines()[-1] == "141"
    assert ran.stderr == ""


def test_an_old_locale_shows_escapes_and_does_not_fail(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "scan", "nonsense"],
        env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "\\u2717 malformed input" in done.stderr


@pytest.mark.parametrize("role", ["registry", "resolver"])
def test_a_node_runs_in_this_process_too(tmp_path: Path, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[str] = []
    monkeypatch.setattr("idtrace.cli.running.configure_logs", levels.append)
    port = free_port()
    config = configuration(tmp_path, role, listen=f'"127.0.0.1:{port}"', drain_seconds="0.0")

    def stop_when_it_answers() -> None:
        until(lambda: _answers(port))  # by then the signal has its handler
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop_when_it_answers)
    stopper.start()
    ran = idtrace("node", "run", "--role", role, "--config", config)
    stopper.join()
    assert ran.code == 0
    assert f"ready 127.0.0.1:{port}" in ran.out.splitlines()
    assert levels == ["INFO"]


def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_main_is_the_installed_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["idtrace", "scan", "88.118.8/SN-1", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert '"88.118.8/SN-1"' in capsys.readouterr().out

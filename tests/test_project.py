"""What holds for the repository as a whole: generated code, schema, sizes, pins, secrets, reasons, gates."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from idtrace.errors import Reason
from tests.coverage_gate import pure_files, shortfalls

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PACKAGES = ("idtrace", "registry", "resolver", "loadtest")
# Beyond these a file or a function hides what it does; both leave room for a table or a long match statement.
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
MEDIAN_LINES_MAX = 220
SLEEP_SECONDS_MAX = 1.0


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a program as a person at a terminal would: with the environment's programs, outside any other make."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "COV_"))}
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=inherited | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


def project_files() -> list[Path]:
    """Every file that is, or is about to be, committed."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    assert listed.returncode == 0, f"this is no git repository: {listed.stderr}"
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def written_by_hand(*suffixes: str) -> list[Path]:
    generated = ROOT / "idtrace" / "v1"
    return [path for path in project_files() if path.suffix in suffixes and generated not in path.parents]


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- The schema and what is generated from it


def test_generated_code_is_what_the_schema_generates(tmp_path: Path) -> None:
    made = run("make", "-s", "-o", "setup", "proto", f"OUT={tmp_path}")
    assert made.returncode == 0, made.stderr
    fresh = {path.name: path.read_bytes() for path in (tmp_path / "idtrace" / "v1").iterdir()}
    committed = {path.name: path.read_bytes() for path in (ROOT / "idtrace" / "v1").glob("*_pb2*.py*")}
    assert fresh.keys() == committed.keys(), "make proto"
    assert [name for name in fresh if fresh[name] != committed[name]] == [], "stale: make proto"


def test_generated_code_is_committed() -> None:
    listed = run("git", "ls-files", "idtrace/v1").stdout.split()
    expected = {shown(path) for path in (ROOT / "idtrace" / "v1").glob("*.py*")}
    assert expected
    assert expected <= set(listed)


def test_the_schema_folder_holds_no_python() -> None:
    """With a .py in it, ``proto`` would be a package and could stand before somebody else's of that name."""
    assert [shown(path) for path in (ROOT / "proto").rglob("*.py*")] == []


def test_the_schema_is_clean_and_breaks_no_published_client() -> None:
    assert run("buf", "lint", "proto").stdout == ""
    done = run("buf", "breaking", "proto", "--against", "proto/released.json")
    assert (done.returncode, done.stdout) == (0, "")


BREAKS: list[tuple[str, str, str, str]] = [
    ("record.proto", r"bytes payload = 2;", "bytes payload = 9;", 'Previously present field "2"'),
    ("record.proto", r"bytes payload = 2;", "string payload = 2;", 'changed type from "bytes" to "string"'),
    ("resolver.proto", r"rpc (\w+)", r"rpc Other\1", "Previously present RPC"),
]


@pytest.mark.parametrize(("file", "was", "becomes", "complaint"), BREAKS)
def test_a_breaking_change_of_the_schema_is_refused(
    file: str, was: str, becomes: str, complaint: str, tmp_path: Path
) -> None:
    proto = spoilt_schema(tmp_path, file, was, becomes)
    done = run("buf", "breaking", "proto", "--against", ROOT / "proto" / "released.json", cwd=proto.parent)
    assert done.returncode != 0
    assert complaint in done.stdout + done.stderr


def test_a_schema_entry_without_a_comment_is_refused(tmp_path: Path) -> None:
    proto = spoilt_schema(tmp_path, "record.proto", r"\nmessage Signed \{", "\nmessage Silent {}\nmessage Signed {")
    text = (proto / "idtrace" / "v1" / "record.proto").read_text("utf-8")
    assert 'Message "Silent"' not in text
    done = run("buf", "lint", "proto", cwd=proto.parent)
    assert done.returncode != 0
    assert "should have a non-empty comment" in done.stdout


def spoilt_schema(folder: Path, file: str, was: str, becomes: str) -> Path:
    proto = Path(shutil.copytree(ROOT / "proto", folder / "proto"))
    path = proto / "idtrace" / "v1" / file
    text, count = re.subn(was, becomes, path.read_text("utf-8"), count=1)
    assert count == 1, f"{file} has no {was}"
    path.write_text(text, "utf-8")
    return proto


# --- Sizes


def function_sizes(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.end_lineno - node.lineno + 1, f"{shown(path)}:{node.lineno} {node.name}"


def test_files_and_functions_stay_small(record_property: Callable[[str, object], None]) -> None:
    files = sorted(
        (len(path.read_bytes().splitlines()), shown(path)) for path in written_by_hand(".py", ".proto", ".sh")
    )
    functions = sorted(size for path in written_by_hand(".py") for size in function_sizes(path))
    ours = [lines for lines, name in files if name.startswith(PACKAGES) and not name.endswith("__init__.py")]
    record_property(
        "sizes",
        f"{len(files)} files, median of the packages {statistics.median(ours):.0f} lines;"
        f" longest {files[-1][1]} ({files[-1][0]}), {functions[-1][1]} ({functions[-1][0]})",
    )
    assert [entry for entry in files if entry[0] > FILE_LINES_MAX] == []
    assert [entry for entry in functions if entry[0] > FUNCTION_LINES_MAX] == []
    assert statistics.median(ours) <= MEDIAN_LINES_MAX


# --- What a commit must not carry


def test_every_pin_has_its_hashes_and_names_no_host() -> None:
    text = (ROOT / "requirements" / "dev.txt").read_text("utf-8")
    entries = re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    assert len(entries) > 50
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+==[^\s;]+( ; .+)? \\\n", entry), f"not pinned: {entry.splitlines()[0]}"
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), f"no hash: {entry.splitlines()[0]}"
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", text)


def test_every_dependency_of_the_project_is_pinned() -> None:
    normal = re.compile(r"[-_.]+")
    pinned = re.findall(r"^([A-Za-z0-9._-]+)==", (ROOT / "requirements" / "dev.txt").read_text("utf-8"), re.MULTILINE)
    wanted = re.findall(r'^    "([A-Za-z0-9._-]+)[=>]', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert len(wanted) > 30
    assert {normal.sub("-", name).lower() for name in wanted} <= {normal.sub("-", name).lower() for name in pinned}


# Each with a text that it must catch, in halves, so that this file carries none of them.
FORBIDDEN: dict[str, tuple[str, str]] = {
    "a path of one machine": (r"(?<![\w.~/-])/(work|root|Users|home)/\w", " /home" + "/somebody/idtrace"),
    "a private key": (
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----(\s|\\n|\\r)+[A-Za-z0-9+/]{16}",
        "-----BEGIN PRIVATE KEY" + "-----\nMC4CAQAwBQYDK2VwBCIE",
    ),
    "a package registry": (
        r"pypi\.org|pythonhosted\.org|registry\.npmjs|proxy\.golang|crates\.io|repo1?\.maven|deb\.debian\.org",
        "https://pypi" + ".org/simple",
    ),
    "an address with a password": (r"\w+://[^\s/@:'\"<>{}]+:[^\s/@'\"<>{}]+@\w", "https://user:pass" + "word@host"),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_carries(what: str) -> None:
    pattern, example = FORBIDDEN[what]
    assert re.search(pattern, example), "the pattern catches nothing"
    found = []
    for path in project_files():
        text = path.read_bytes().decode("utf-8", "replace")
        found += [f"{shown(path)}: {match[0]!r}" for match in re.finditer(pattern, text)]
    assert found == []


def test_no_merge_is_left_half_done() -> None:
    marker = re.compile(rb"^(<{7} |>{7} |={7}$)", re.MULTILINE)
    assert [shown(path) for path in project_files() if marker.search(path.read_bytes())] == []


# --- What the code says about itself


def attributes_of(path: Path, owners: tuple[str, ...]) -> set[str]:
    """Names after the dot: X of ``Reason.X``."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in owners
    }


def test_every_reason_is_given_somewhere() -> None:
    # Where reasons are defined or explained, nothing is refused.
    exempt = {ROOT / "idtrace" / "errors.py", ROOT / "idtrace" / "cli" / "hints.py"}
    used: set[str] = set()
    for path in written_by_hand(".py"):
        if path.relative_to(ROOT).parts[0] in PACKAGES and path not in exempt:
            # A denial's reason becomes the answer's by name.
            used |= attributes_of(path, ("Reason", "DenialReason"))
    assert {reason.name for reason in Reason} - used == set(), "published, yet nobody gives it"


def long_sleeps(path: Path) -> Iterator[int]:
    """Lines with a sleep that somebody waits for; a function in a function may play a node that is silent for long."""
    functions = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if hasattr(node, "returns")]
    inner = [node for outer in functions for node in ast.walk(outer) if node is not outer and hasattr(node, "returns")]
    silent = {id(node) for function in inner for node in ast.walk(function)}
    for function in functions:
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and id(node) not in silent and ast.unparse(node.func).endswith("sleep"):
                seconds = node.args[0] if node.args else None
                if isinstance(seconds, ast.Constant) and float(str(seconds.value)) > SLEEP_SECONDS_MAX:
                    yield node.lineno


def test_no_test_sleeps_long(tmp_path: Path) -> None:
    """A sleep is either too short on a busy machine or wasted on a quiet one; tests wait for what they wait for."""
    planted = tmp_path / "test_planted.py"
    planted.write_text("def test_x():\n    time.sleep(1.5)\n\n    def stub():\n        sleep(9)\n", "utf-8")
    assert list(long_sleeps(planted)) == [2]
    tests = [path for path in written_by_hand(".py") if path.relative_to(ROOT).parts[0] == "tests"]
    assert [f"{shown(path)}:{line}" for path in tests for line in long_sleeps(path)] == []


def test_every_test_file_has_a_test_that_runs() -> None:
    """A helper that pytest collects as a test file, or a test file that it never sees, is a test that cannot fail."""
    for path in written_by_hand(".py"):
        if path.relative_to(ROOT).parts[0] == "tests":
            tree = ast.parse(path.read_text("utf-8"))
            tests = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
            machines = [node for node in tree.body if isinstance(node, ast.Assign) and "TestCase" in ast.unparse(node)]
            has_tests = bool(machines) or any(name.startswith("test_") for name in tests)
            assert has_tests == path.name.startswith("test_"), f"{shown(path)} is named wrongly"


# --- The gates themselves


def report(path: str = "registry/admission.py", **changes: Any) -> dict[str, Any]:
    """A coverage report in which nothing is missing, but for the changes."""
    summary = {"num_statements": 9}
    file = {"summary": summary, "missing_lines": [], "missing_branches": []} | changes.pop("file", {})
    totals = {"percent_covered": 100.0} | changes
    return {"meta": {"branch_coverage": True}, "files": {path: file}, "totals": totals}


PURE = ["registry/admission.py"]
COVERAGE: list[tuple[str, Callable[[], dict[str, Any]], str]] = [
    ("a line", lambda: report(file={"missing_lines": [3, 7, 8]}), "nothing runs line 3, 7-8"),
    (
        "a branch",
        lambda: report(file={"missing_branches": [[5, 9], [6, -1]]}),
        "nothing goes from line 5 to 9, 6 to the",
    ),
    ("a module", lambda: report(path="registry/other.py"), "was not measured"),
    ("the rest", lambda: report(percent_covered=89.99), "overall: 90.0 % of"),
]


@pytest.mark.parametrize(("made", "complaint"), [case[1:] for case in COVERAGE], ids=[case[0] for case in COVERAGE])
def test_the_coverage_gate_sees_what_is_missing(made: Callable[[], dict[str, Any]], complaint: str) -> None:
    (line,) = shortfalls(made(), PURE)
    assert complaint in line


def test_the_coverage_gate_lets_whole_coverage_pass_and_asks_for_branches() -> None:
    assert shortfalls(report(), PURE) == []
    with pytest.raises(AssertionError, match="branches"):
        shortfalls(report() | {"meta": {"branch_coverage": False}}, PURE)


def test_the_coverage_gate_watches_the_modules_that_the_contracts_call_pure() -> None:
    pure = pure_files((ROOT / "pyproject.toml").read_text("utf-8"))
    assert {"idtrace/chain.py", "registry/admission.py", "resolver/walk.py"} <= set(pure)
    assert [path for path in pure if not (ROOT / path).is_file()] == []


def test_nothing_pure_is_taken_out_of_the_measurement() -> None:
    pure = pure_files((ROOT / "pyproject.toml").read_text("utf-8"))
    assert [path for path in pure if "pragma: no cover" in (ROOT / path).read_text("utf-8")] == []


def test_ci_runs_the_gates_and_says_what_it_leaves_out() -> None:
    ci = ROOT / ".ci" / "run"
    text = ci.read_text("utf-8")
    assert os.access(ci, os.X_OK)
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    for word in ("make check", "make test", "make demo", "not run"):
        assert word in text, f".ci/run has no {word}"


def test_the_changelog_has_a_place_for_what_is_not_released() -> None:
    assert re.search(r"^## \[?Unreleased\]?", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)


def test_the_published_schema_is_readable() -> None:
    names = {file["name"] for file in json.loads((ROOT / "proto" / "released.json").read_text("utf-8"))["file"]}
    assert {f"idtrace/v1/{path.name}" for path in (ROOT / "proto" / "idtrace" / "v1").glob("*.proto")} <= names

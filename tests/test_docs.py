"""What README.md tells people to type is there, and the command line explains itself."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from idtrace.cli.app import app
from registry.config import RegistryConfig
from registry.witness_config import WitnessConfig
from resolver.config import ResolverConfig

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
# The first run installs the pinned tools, which takes about a minute; the second is the demonstration alone.
FIRST_DEMO_SECONDS_MAX = 300
SECOND_DEMO_SECONDS_MAX = 60


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    """The commands of README's shell blocks, as words; each part of a pipe is one."""
    found: list[list[str]] = []
    for block in blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words: list[str] = []
            for word in [*lexer, ";"]:
                if word in {"|", "||", "&&", ";", "&"}:
                    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                        words.pop(0)
                    if words:
                        found.append(words)
                    words = []
                else:
                    words.append(word)
    return found


def all_commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from all_commands(child, (*path, name))


def complaint_about(words: list[str]) -> str:
    """Why ``idtrace`` would not take these words, or nothing."""
    command: Any = get_command(app)
    left = words[1:]
    while hasattr(command, "commands") and left and not left[0].startswith("-"):
        found = command.get_command(command.context_class(command, info_name=words[0]), left[0])
        if found is None:  # asked for by name: the demo is not loaded before
            return f"no command {left[0]}"
        command = found
        left.pop(0)
    context = command.context_class(command, info_name=words[0])
    try:
        values, rest, _ = command.make_parser(context).parse_args(left)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what a reader would be told
        return str(error)
    missing = [
        param.name
        for param in command.params
        if param.required and values.get(param.name) is None and not isinstance(param.envvar, str)
    ]
    return f"left over: {rest}" if rest else f"missing: {missing}" if missing else ""


def test_readme_begins_with_the_two_commands() -> None:
    assert commands()[:2] == [["make", "demo"], ["make", "test"]]


def test_every_make_target_of_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z][\w-]*):(?!=)", makefile, re.MULTILINE))
    assert {"setup", "proto", "released", "lock", "check", "test", "demo", "serve", "bench", "clean"} <= targets
    named = {word for words in commands() if words[0] == "make" for word in words[1:] if "=" not in word}
    assert named <= targets


def test_every_target_is_phony_and_every_phony_is_a_target() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    phony = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split())
    assert phony == set(re.findall(r"^([a-z][\w-]*):(?!=)", makefile, re.MULTILINE))


def test_every_idtrace_command_of_readme_is_one() -> None:
    lines = [words for words in commands() if Path(words[0]).name == "idtrace"]
    assert len(lines) > 5, "README shows how to use the program"
    assert {" ".join(words): complaint for words in lines if (complaint := complaint_about(words))} == {}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("idtrace look x", "no command look"),
        ("idtrace key renew a.key", "no command renew"),
        ("idtrace verify a.json --rooot r.pub", "No such option"),
        ("idtrace verify a.json --root", "requires an argument"),
        ("idtrace verify a.json b.json --root r.pub", "left over"),
        ("idtrace key new", "missing"),
    ],
)
def test_a_wrong_command_would_be_noticed(line: str, complaint: str) -> None:
    assert complaint in complaint_about(shlex.split(line))


def test_every_configuration_of_readme_is_one(tmp_path: Path) -> None:
    found = [tomllib.loads(block) for block in blocks("toml")]
    assert len(found) > 1, "README shows how to configure each kind of node"
    for table in found:
        if "root_endpoints" in table:
            ResolverConfig.parse(table, tmp_path)
        elif "state" in table:
            WitnessConfig.parse(table, tmp_path)
        else:
            RegistryConfig.parse(table, tmp_path)


def test_every_file_that_readme_names_is_here() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_command_explains_itself() -> None:
    runner = CliRunner()
    seen = 0
    for path, command in all_commands(get_command(app)):
        result = runner.invoke(app, [*path, "--help"], env={"COLUMNS": "120", "TERM": "dumb"})
        assert result.exit_code == 0, (path, result.output)
        assert "Usage:" in result.output, path
        assert command.help, f"idtrace {' '.join(path)} says nothing about itself"
        for param in command.params:
            assert getattr(param, "help", ""), f"idtrace {' '.join(path)}: {param.name} says nothing about itself"
        seen += 1
    assert seen > 10


@pytest.mark.parametrize("program", [["idtrace"], [sys.executable, "-m", "idtrace"]])
def test_the_installed_program_starts(program: list[str], tmp_path: Path) -> None:
    if program == ["idtrace"]:
        program = [str(Path(sys.executable).with_name("idtrace"))]
    done = subprocess.run(
        [*program, "--version"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"idtrace \d+\.\d+\.\d+\S*\n", done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(FIRST_DEMO_SECONDS_MAX + SECOND_DEMO_SECONDS_MAX + 60)
@pytest.mark.skipif(
    os.environ.get("IDTRACE_FRESH_CLONE") != "1",
    reason="installs everything once more; .ci/run plays it on a clean checkout, and IDTRACE_FRESH_CLONE=1 does here",
)
def test_make_demo_works_in_a_fresh_clone_and_leaves_nothing_running(tmp_path: Path) -> None:
    clone, mark = tmp_path / "clone", uuid.uuid4().hex
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)], check=True, timeout=60)
    kept = ("MAKE", "MFLAGS", "VIRTUAL_ENV", "PYTHON", "PYTEST", "COV_", "COVERAGE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(kept)}
    for seconds in (FIRST_DEMO_SECONDS_MAX, SECOND_DEMO_SECONDS_MAX):
        started = time.monotonic()
        done = subprocess.run(
            ["make", "demo"],
            cwd=clone,
            env=environment | {"IDTRACE_RUN": mark},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
        sys.stdout.write(f"make demo in a fresh clone: {time.monotonic() - started:.0f} s\n")
        assert (clone / ".venv" / "bin" / "idtrace").exists()
        assert running(f"IDTRACE_RUN={mark}") == []
    status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    assert status.stdout == "", "the demonstration changed the working copy"


def running(mark: str) -> list[str]:
    """Command lines of the processes that inherited the mark (Linux)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:
            continue  # it ended meanwhile, or belongs to somebody else
    return found

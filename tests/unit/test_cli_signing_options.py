"""Groups of options: a command that takes one has each of its options once, in its place, with its default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from idtrace.cli.exits import ExitCode
from idtrace.cli.signing_options import grouped, pinned
from tests.cli import Ran, idtrace, key_file
from tests.core_fixtures import PINNED, ZONE, public


@dataclass(frozen=True)
class Trip:
    """A group: one option has to be given, one has a default, one may come several times."""

    to: Annotated[str, typer.Option("--to")]
    days: Annotated[int, typer.Option("--days", min=1)] = 3
    by: Annotated[list[str] | None, typer.Option("--by")] = None


def ran(*arguments: str) -> tuple[int, list[Any]]:
    app, heard = typer.Typer(), []

    @app.command()
    @grouped
    def travel(who: str, trip: Trip, *, quick: bool = False) -> None:
        heard.extend([who, trip, quick])

    return CliRunner().invoke(app, arguments).exit_code, heard


def test_a_group_reaches_the_command_as_one_value() -> None:
    assert ran("ann", "--to", "X") == (0, ["ann", Trip("X"), False])
    given = ran("ann", "--quick", "--days", "5", "--to", "X", "--by", "sea", "--by", "air")
    assert given == (0, ["ann", Trip("X", 5, ["sea", "air"]), True])


@pytest.mark.parametrize("arguments", [("ann",), ("--to", "X"), ("ann", "--to", "X", "--days", "0"), ("ann", "--trip")])
def test_rules_of_a_groups_options_are_kept(arguments: tuple[str, ...]) -> None:
    assert ran(*arguments) == (2, [])


def test_updates_of_the_root_want_a_root_that_they_update(tmp_path: Path) -> None:
    assert pinned(None, None) is None
    with pytest.raises(typer.BadParameter, match="name what they update"):
        pinned(None, [tmp_path / "root-2.json"])
    anchor = pinned(Path(f"{key_file(tmp_path, PINNED)}.pub"), None)
    assert anchor is not None
    assert anchor.keys.keys() == {public(PINNED).key_id}


@pytest.mark.parametrize(
    "command",
    [
        ("update", f"{ZONE}/A", "--status", "recalled", "--key", "KEY", "--node", "localhost:1"),
        ("retire", f"{ZONE}/A", "--yes", "--key", "KEY", "--node", "localhost:1"),
        ("delegate", "--child", ZONE, "--key", "KEY", "--out", "OUT"),
        (
            "key",
            "rotate",
            "--zone",
            ZONE,
            "--role",
            "node",
            "--old",
            "KEY.pub",
            "--end",
            "--key",
            "KEY",
            "--out",
            "OUT",
        ),
        ("key", "revoke", "--zone", ZONE, "--role", "node", "--old", "KEY.pub", "--key", "KEY", "--out", "OUT"),
    ],
)
def test_every_command_that_signs_follows_the_root_by_its_updates(tmp_path: Path, command: tuple[str, ...]) -> None:
    key = key_file(tmp_path, "owner")
    names = {"KEY": key, "KEY.pub": Path(f"{key}.pub"), "OUT": tmp_path / "out.json"}
    arguments = [names.get(argument, argument) for argument in command]
    missing = ("--root-update", tmp_path / "nowhere.json")

    def given(*more: object) -> Ran:
        return idtrace(*arguments, *more)

    assert given(*missing).code == ExitCode.USAGE
    assert "--root-update" in given(*missing).err
    there = given("--root", f"{key_file(tmp_path, PINNED)}.pub", *missing)
    assert "nowhere.json" in there.err.replace("\n", ""), "it is read before anything is sent"

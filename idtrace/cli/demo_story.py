"""What the demonstration says while it goes on, and how it runs the commands that a user would type."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from idtrace.cli.demo_check import Prover, Tally, resolve_all
from idtrace.cli.demo_engines import Engines
from idtrace.cli.demo_tree import DemoTree
from idtrace.cli.exits import ExitCode, Failure
from idtrace.cli.output import Output, plain
from idtrace.errors import OutcomeUnknownError, Reason

# The longest name of a step; on a narrow terminal the results wrap beside it, never below it.
NAME_COLUMNS: Final = 41


@dataclass(slots=True)
class Step:
    """One line of the report: what was tried, what came out, and whether that is what has to come out."""

    name: str
    result: str
    holds: bool


@dataclass(slots=True)
class Story:
    """The demonstration under way."""

    output: Output
    tree: DemoTree
    packages: int
    steps: list[Step] = field(default_factory=list)

    @property
    def engines(self) -> Engines:
        """Where the tree keeps its records, and what its resolvers share."""
        return self.tree.engines

    def say(self, name: str, result: str, *, holds: bool = True) -> None:
        """Add a line to the report and show it as it comes."""
        self.steps.append(Step(name, result, holds))
        mark = Text("✓", style="green") if holds else Text("✗", style="bold red")
        line = Table.grid(padding=(0, 1))
        line.add_column(width=1)
        line.add_column(width=NAME_COLUMNS)
        line.add_column(overflow="fold", style="dim")
        line.add_row(mark, Text(name), plain(result))
        self.output.show(line)

    def title(self, text: str) -> None:
        """Begin an act."""
        self.output.show("", Text(text, style="bold"))

    def refused(self, name: str, reason: str, *arguments: str) -> None:
        """Add a line: a command that has to fail, and for this reason."""
        code, printed = run_command(*arguments, "--json")
        self.say(name, f"refused: {reason}", holds=code not in (ExitCode.OK, ExitCode.PROVEN_NO) and reason in printed)


def sweep(
    story: Story,
    resolver: str,
    what: str,
    texts: Sequence[str],
    prover: Prover,
    *,
    fresh: bool = False,
    told: Callable[[int], None] = lambda _: None,
) -> Tally:
    """Have a resolver resolve texts and prove every answer, with a bar; ``told`` hears how many more are proven.

    Raises:
        Failure: the resolver does not answer.
    """
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    quiet = story.output.as_json or not story.output.notes.is_terminal
    with Progress(*columns, console=story.output.notes, transient=True, disable=quiet) as progress:
        task = progress.add_task(f"resolving, {what}", total=len(texts))

        def advance(count: int) -> None:
            progress.advance(task, count)
            told(count)

        return resolve_all(story.tree.endpoints[resolver], texts, prover, advance, fresh=fresh)


def run_command(*arguments: str) -> tuple[int, str]:
    """Run one ``idtrace`` command in this process; returns its exit code and all that it printed."""
    from idtrace.cli.app import app

    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        try:
            code = typer.main.get_command(app).main(list(arguments), prog_name="idtrace", standalone_mode=False)
        except typer.BadParameter as error:
            return int(ExitCode.USAGE), str(error)
    return int(code or 0), printed.getvalue()


def quiet_command(*arguments: str) -> str:
    """Run one command that has to succeed; returns what it printed.

    Raises:
        Failure: it did not; with what it said.
    """
    code, printed = run_command(*arguments)
    if code != ExitCode.OK:
        shown = " ".join(arguments)
        error = OutcomeUnknownError(Reason.INTERNAL, f"idtrace {shown} ended with {code}: {printed[-1_000:]}")
        raise Failure(ExitCode(code) if code in tuple(ExitCode) else ExitCode.USAGE, error, title="a step failed")
    return printed


def json_command(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Run one command with ``--json``; returns its exit code and its document."""
    code, printed = run_command(*arguments, "--json")
    body: dict[str, Any] = json.loads(printed)
    return code, body


def register_file(story: Story, file: Path, zone: str, node: str) -> None:
    """Register a file with the zone's own key at a node, every receipt checked from the root key.

    Raises:
        Failure: as :func:`quiet_command`.
    """
    quiet_command(*register_words(story.tree, file, zone, node))


def register_words(tree: DemoTree, file: Path, zone: str, node: str) -> list[str]:
    """The command that registers a file, without the program's name."""
    key, root = str(tree.owner_key(zone)), str(tree.root_key)
    return ["register", "--from", str(file), "--key", key, "--node", tree.endpoints[node], "--root", root]

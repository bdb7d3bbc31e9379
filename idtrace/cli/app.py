"""The program: its commands, and the one place where their errors become words and exit codes."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import sys
from typing import Annotated, Any, Final

import typer
from rich.console import Group
from rich.padding import Padding
from rich.text import Text
from typer.core import TyperGroup

from idtrace.cli import (
    audit,
    capture,
    delegate,
    drug,
    events,
    judge,
    key,
    node,
    outbox,
    party,
    prefix,
    recall,
    register,
    resolve,
    scan,
    simulate,
    store,
    trace,
    update,
    verify,
    witness,
)
from idtrace.cli.exits import MEANINGS, ExitCode, Failure, local_code
from idtrace.cli.output import Output, failure_of, pairs
from idtrace.errors import IdtraceError, InputError, Reason

_ENVIRONMENT: Final = (
    "IDTRACE_NODE, IDTRACE_RESOLVER, IDTRACE_ROOT and IDTRACE_KEY stand in for the options of that name."
)
_DEMO: Final = "demo"


class Program(TyperGroup):
    """The top of the command tree: what its commands raise on purpose ends in a sentence, never in a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            typer.Exit: with one of :class:`ExitCode`.
        """
        ctx.obj = ctx.obj or Output()
        output: Output = ctx.obj
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except Failure as failure:
            output.failure(failure)
            raise typer.Exit(failure.code) from None
        except IdtraceError as error:
            output.failure(failure_of(error))
            raise typer.Exit(local_code(error)) from None
        except BrokenPipeError:
            _forget_stdout()
            raise typer.Exit(ExitCode.BROKEN_PIPE) from None
        except (KeyboardInterrupt, typer.Abort):
            output.note("interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except OSError as error:
            detail = error.strerror or str(error)
            output.failure(failure_of(InputError(Reason.FIELD_MALFORMED, detail, field=str(error.filename or ""))))
            raise typer.Exit(ExitCode.USAGE) from None
        return result

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands, and the demo where it is installed."""
        has_demo = importlib.util.find_spec("idtrace.cli.demo") is not None
        return [*super().list_commands(ctx), *([_DEMO] if has_demo else [])]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command by name; the demo is loaded only when it is asked for, since it brings whole nodes with it."""
        if cmd_name == _DEMO and _DEMO in self.list_commands(ctx):
            alone = typer.Typer(add_completion=False)
            alone.command(_DEMO)(importlib.import_module("idtrace.cli.demo").demo)
            return typer.main.get_command(alone)
        return super().get_command(ctx, cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The usual help, and the exit codes."""
        super().format_help(ctx, formatter)
        codes = pairs([(f"{code.value:>4}", meaning) for code, meaning in MEANINGS.items()])
        screen = Output().screen
        screen.print(Padding(Group(Text("Exit codes", style="bold"), codes, "", _ENVIRONMENT), (0, 1, 1, 1)))


app = typer.Typer(
    name="idtrace",
    cls=Program,
    help="Register, resolve and verify identifiers through a tree of nodes that nobody has to trust.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def _forget_stdout() -> None:
    """The reader (head, less) has gone: nothing is left to say, and the interpreter's own flush must not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _version(value: bool) -> None:
    if value:
        typer.echo(f"idtrace {importlib.metadata.version('idtrace')}")
        raise typer.Exit


@app.callback()
def begin(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Register, resolve and verify identifiers through a tree of nodes that nobody has to trust."""
    del version
    ctx.obj = ctx.obj or Output()


app.add_typer(key.app, name="key")
app.add_typer(prefix.app, name="prefix")
app.add_typer(party.app, name="party")
app.add_typer(drug.app, name="drug")
app.command()(delegate.delegate)
app.command()(register.register)
app.command()(capture.capture)
app.command()(update.update)
app.command()(update.retire)
app.command()(resolve.resolve)
app.command()(judge.judge)
app.command()(trace.trace)
app.command()(scan.scan)
app.command()(verify.verify)
app.command()(audit.audit)
app.command()(outbox.outbox)
app.command()(events.events)
app.command(name="simulate")(simulate.simulate_chains)
app.add_typer(recall.app, name="recall")
app.add_typer(node.app, name="node")
app.add_typer(store.app, name="store")
app.add_typer(witness.app, name="witness")

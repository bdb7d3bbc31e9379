"""``idtrace node``: run a registry or a resolver in this process until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import tomllib
from collections.abc import Callable, Coroutine
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from idtrace.cli.files import read_file
from idtrace.errors import InputError, Reason
from idtrace.serving.logs import configure_logs

app = typer.Typer(help="Run a node.", no_args_is_help=True)


class NodeRole(StrEnum):
    """Which program of the tree."""

    REGISTRY = "registry"
    RESOLVER = "resolver"


Run = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


@app.callback()
def node() -> None:
    """Run a node."""


@app.command()
def run(
    role: Annotated[NodeRole, typer.Option("--role", help="Authority for zones, or recursive resolver.")],
    config: Annotated[
        Path, typer.Option("--config", metavar="FILE.toml", help="Configuration; paths are relative to it.")
    ],
) -> None:
    """Run a node until SIGTERM or Ctrl-C. Prints "ready HOST:PORT" on stdout once it answers.

    Example: idtrace node run --role registry --config registry.toml
    """
    start = _prepared(role, _toml(config), config.resolve().parent)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_until_told(start))


def _prepared(role: NodeRole, mapping: dict[str, Any], base: Path) -> Run:
    """The node's coroutine function; only the program that runs is imported.

    Raises:
        InputError: the configuration breaks a rule.
    """
    if role is NodeRole.REGISTRY:
        import registry.config
        import registry.server

        registry_config = registry.config.RegistryConfig.parse(mapping, base)
        _configure_logs(registry_config.log_level)
        return lambda stop: registry.server.run(registry_config, on_ready=_ready, stop=stop)
    import resolver.config
    import resolver.server

    resolver_config = resolver.config.ResolverConfig.parse(mapping, base)
    _configure_logs(resolver_config.log_level)
    return lambda stop: resolver.server.run(resolver_config, on_ready=_ready, stop=stop)


def _configure_logs(level: str) -> None:
    names = logging.getLevelNamesMapping()
    if level not in names:
        raise InputError(Reason.FIELD_MALFORMED, f"log_level is one of {', '.join(names)}", field="log_level")
    configure_logs(level)


def _ready(address: str) -> None:
    """Tell whoever started us; they wait for this line."""
    sys.stdout.write(f"ready {address}\n")
    sys.stdout.flush()


async def _until_told(start: Run) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await start(stop)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvloop where it is installed (not on Windows)."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_file(path).decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(Reason.FIELD_MALFORMED, f"not TOML: {error}", field=str(path)) from None

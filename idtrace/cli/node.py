"""``idtrace node``: run a registry or a resolver in this process until it is told to stop."""

from __future__ import annotations

import gc
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from idtrace.cli.running import Start, log_from, read_toml, run_until_told, say_ready

app = typer.Typer(help="Run a node.", no_args_is_help=True)


# A batch of 2,000 records is 50,000 objects at a time without a cycle among them. By Python's own thresholds (700) they
# were gone through again and again while it was worked on, which took a fifth of a node's time.
GARBAGE_THRESHOLDS: Final = (100_000, 20, 100)


class NodeRole(StrEnum):
    """Which program of the tree."""

    REGISTRY = "registry"
    RESOLVER = "resolver"


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
    start = _prepared(role, read_toml(config), config.resolve().parent)
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    run_until_told(start)


def _prepared(role: NodeRole, mapping: dict[str, Any], base: Path) -> Start:
    """The node's coroutine function; only the program that runs is imported.

    Raises:
        InputError: the configuration breaks a rule.
    """
    if role is NodeRole.REGISTRY:
        import registry.config
        import registry.server

        registry_config = registry.config.RegistryConfig.parse(mapping, base)
        log_from(registry_config.log_level)
        return lambda stop: registry.server.run(registry_config, on_ready=say_ready, stop=stop)
    import resolver.config
    import resolver.server

    resolver_config = resolver.config.ResolverConfig.parse(mapping, base)
    log_from(resolver_config.log_level)
    return lambda stop: resolver.server.run(resolver_config, on_ready=say_ready, stop=stop)

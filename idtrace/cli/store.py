"""``idtrace store``: the tables of a registry's distributed store."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from idtrace.cli.exits import ExitCode, Failure
from idtrace.cli.files import read_file
from idtrace.cli.options import JsonOption, output_of
from idtrace.cli.output import listing
from idtrace.errors import InputError, Reason, RefusedError

T = TypeVar("T")

app = typer.Typer(help="Make and look at the tables of a registry's Cassandra.", no_args_is_help=True)

ConfigOption = Annotated[
    Path, typer.Option("--config", metavar="FILE.toml", help='A registry\'s configuration with [storage] "cassandra".')
]


@app.command()
def migrate(
    ctx: typer.Context,
    config: ConfigOption,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the statements and run none.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring the keyspace up to date. Safe to repeat, and safe if several do it at once.

    Example: idtrace store migrate --config registry.toml --dry-run
    """
    del as_json
    from registry import cassandra_schema as schema

    settings = _settings(config)
    output = output_of(ctx)
    told: list[str] = []

    async def work(bridge: Any) -> list[str]:
        if dry_run:
            left = schema.pending(schema.shipped(), await schema.applied_migrations(bridge, settings.keyspace))
            told.extend(schema.first_statements(settings) if left else ())
            told.extend(statement for migration in left for statement in migration.statements)
        else:
            left = await schema.migrate(bridge, settings, told.append)
        return [migration.name for migration in left]

    names = asyncio.run(_connected(settings, work))
    output.document({"keyspace": settings.keyspace, "dry_run": dry_run, "migrations": names, "statements": told})
    if dry_run:
        output.show(*(f"{statement};" for statement in told))
    verb = "would run" if dry_run else "ran"
    output.note(f"{verb} {', '.join(names)}" if names else "the tables are up to date")


@app.command()
def status(ctx: typer.Context, config: ConfigOption, as_json: JsonOption = False) -> None:
    """Show which migrations the keyspace has seen, and which are still to be run.

    Example: idtrace store status --config registry.toml
    """
    del as_json
    from registry import cassandra_schema as schema

    settings = _settings(config)

    async def work(bridge: Any) -> tuple[Any, Any]:
        applied = await schema.applied_migrations(bridge, settings.keyspace)
        return applied, schema.pending(schema.shipped(), applied)

    applied, left = asyncio.run(_connected(settings, work))
    rows = [
        (one.name, state, one.checksum) for state, some in (("applied", applied), ("pending", left)) for one in some
    ]
    output = output_of(ctx)
    output.document(
        {
            "keyspace": settings.keyspace,
            "migrations": [{"name": name, "state": state, "sha256": checksum} for name, state, checksum in rows],
        }
    )
    table = listing("migration", "state", "sha256")
    for name, state, checksum in rows:
        table.add_row(name, state, checksum[:16])
    output.show(table)


def _settings(config: Path) -> Any:
    """The table ``storage`` of a configuration.

    Raises:
        InputError: not TOML, not Cassandra, or a setting breaks a rule.
    """
    from registry.cassandra_settings import CassandraSettings

    try:
        table = tomllib.loads(read_file(config).decode("utf-8")).get("storage", {})
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(Reason.FIELD_MALFORMED, f"not TOML: {error}", field=str(config)) from None
    if not isinstance(table, dict) or table.get("engine") != "cassandra":
        detail = "only the engine cassandra has tables to migrate; SQLite makes its own"
        raise InputError(Reason.FIELD_MALFORMED, detail, field="storage.engine")
    return CassandraSettings.parse({k: v for k, v in table.items() if k != "engine"}, config.resolve().parent)


async def _connected(settings: Any, work: Callable[[Any], Awaitable[T]]) -> T:
    """Do something over a connection of its own.

    Raises:
        Failure: nobody answers, or the tables are not ours to change.
    """
    from registry.cassandra_bridge import NO_CONNECTION, Bridge
    from registry.cassandra_schema import SchemaError

    try:
        bridge = await Bridge.connect(settings)
    except NO_CONNECTION as error:
        detail = f"no Cassandra answers at {', '.join(settings.contact_points)}: {type(error).__name__}"
        raise Failure(ExitCode.UNREACHABLE, RefusedError(Reason.NO_ANSWER, detail)) from error
    try:
        return await work(bridge)
    except SchemaError as error:
        refused = RefusedError(Reason.WRITE_CONFLICT, str(error), field="storage.keyspace")
        raise Failure(ExitCode.REFUSED, refused) from error
    finally:
        await bridge.close()

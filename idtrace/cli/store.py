"""``idtrace store``: the tables of a registry's distributed store."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from idtrace.cli.files import read_file
from idtrace.cli.options import JsonOption, output_of
from idtrace.cli.output import listing
from idtrace.errors import InputError, Reason

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

    The role needs CREATE, ALTER, SELECT and MODIFY on the keyspace, and CREATE ON ALL KEYSPACES where it is to make it.

    Example: idtrace store migrate --config registry.toml --dry-run
    """
    del as_json
    from registry import cassandra_schema as schema

    settings = _settings(config)
    output = output_of(ctx)
    told: list[str] = []

    async def work(bridge: Any) -> tuple[list[str], str]:
        if dry_run:
            left = schema.pending(schema.shipped(), await schema.applied_migrations(bridge, settings.keyspace))
            told.extend(schema.first_statements(settings) if left else ())
            told.extend(statement for migration in left for statement in migration.statements)
        else:
            left = await schema.migrate(bridge, settings, told.append)
        advice = schema.replication_advice(settings, await schema.copies_held(bridge, settings.keyspace))
        return [migration.name for migration in left], advice

    names, advice = asyncio.run(_connected(settings, work))
    document = {"keyspace": settings.keyspace, "dry_run": dry_run, "migrations": names, "statements": told}
    output.document(document | {"advice": advice})
    if dry_run:
        output.show(*(f"{statement};" for statement in told))
    verb = "would run" if dry_run else "ran"
    output.note(f"{verb} {', '.join(names)}" if names else "the tables are up to date")
    if advice:
        output.note(advice, to_copy=True)


@app.command()
def status(ctx: typer.Context, config: ConfigOption, as_json: JsonOption = False) -> None:
    """Show which migrations the keyspace has seen, and which are still to be run.

    Example: idtrace store status --config registry.toml
    """
    del as_json
    from registry import cassandra_schema as schema

    settings = _settings(config)

    async def work(bridge: Any) -> tuple[Any, Any, str]:
        applied = await schema.applied_migrations(bridge, settings.keyspace)
        advice = schema.replication_advice(settings, await schema.copies_held(bridge, settings.keyspace))
        return applied, schema.pending(schema.shipped(), applied), advice

    applied, left, advice = asyncio.run(_connected(settings, work))
    rows = [
        (one.name, state, one.checksum) for state, some in (("applied", applied), ("pending", left)) for one in some
    ]
    output = output_of(ctx)
    output.document(
        {
            "keyspace": settings.keyspace,
            "migrations": [{"name": name, "state": state, "sha256": checksum} for name, state, checksum in rows],
            "advice": advice,
        }
    )
    table = listing("migration", "state", "sha256")
    for name, state, checksum in rows:
        table.add_row(name, state, checksum[:16])
    output.show(table)
    if advice:
        output.note(advice, to_copy=True)


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
        InputError: a setting is wrong, or the role may not do it; the field says which.
        RefusedError: SCHEMA_MISMATCH where the tables are not ours to change.
        BusyError: NO_ANSWER where the ring, or enough of it, does not answer.
    """
    from registry.cassandra_bridge import Bridge
    from registry.cassandra_errors import DRIVER, not_done

    bridge = await Bridge.connect(settings)
    try:
        return await work(bridge)
    except DRIVER as error:
        raise not_done(error, settings) from error
    finally:
        await bridge.close()

"""The tables of the store, made and changed by numbered files: ``registry/migrations/NNNN_name.cql``.

1. Keyspace and ``schema_version`` are made first, if they are not there. Two migrators may do so at once: the table's
   id is given (made from the keyspace's name), so both make the same table and not two of one name.
2. A lock row, written by a lightweight transaction, lets one migrator at a time go on; it runs out by itself.
3. What was applied has to be what the files say (SHA-256), and nothing may be newer than they are: nobody goes back.
4. Each missing file is run statement by statement and then noted. Statements are ``IF NOT EXISTS`` or repeatable, so a
   migrator that dies halfway is followed by another one. The driver waits for schema agreement after each.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from registry.cassandra_bridge import Bridge
from registry.cassandra_settings import CassandraSettings

# A file's statements take 0.1 s each on one node and 1.1 s on three; a lock that outlives its owner ends after this.
LOCK_SECONDS: Final = 300
_LOCK_TRIES: Final = 600
_PAUSE_SECONDS: Final = 0.5
_FILE_NAME: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.cql")
_NAMESPACE: Final = uuid.UUID("5f0d6a3e-30a5-4b1c-9d6a-7b6f6f0c3a11")


class SchemaError(Exception):
    """The tables are not those that this program can use; the text says what an operator has to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    statements: tuple[str, ...]
    checksum: str


@dataclass(frozen=True, slots=True)
class Applied:
    """A migration that a keyspace has seen."""

    number: int
    name: str
    checksum: str


def parse_migrations(files: Mapping[str, str]) -> tuple[Migration, ...]:
    """Migrations by file name, numbered from 1 without a gap.

    Raises:
        SchemaError: a name is malformed, or a number is missing or there twice.
    """
    found = []
    for name, text in sorted(files.items()):
        match = _FILE_NAME.fullmatch(name)
        if match is None:
            raise SchemaError(f"{name} is no migration's name: four digits, an underscore, and a name in lower case")
        found.append(Migration(int(match[1]), name, statements(text), hashlib.sha256(text.encode()).hexdigest()))
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise SchemaError("migrations are not numbered 1, 2, 3 and so on")
    return tuple(found)


def statements(text: str) -> tuple[str, ...]:
    """The statements of a file: ``--`` begins a remark, ``;`` ends a statement; neither stands in a string here."""
    plain = "\n".join(line.partition("--")[0].rstrip() for line in text.splitlines())
    return tuple(part for piece in plain.split(";") if (part := piece.strip()))


def pending(known: Sequence[Migration], applied: Sequence[Applied]) -> tuple[Migration, ...]:
    """What is still to be run.

    Raises:
        SchemaError: something that was applied is newer than this program, or has another content.
    """
    by_number = {migration.number: migration for migration in known}
    for one in sorted(applied, key=lambda one: one.number):
        migration = by_number.get(one.number)
        if migration is None:
            raise SchemaError(f"the tables are newer than this program ({one.name}); install the newer program")
        if migration.checksum != one.checksum:
            raise SchemaError(f"{one.name} was applied with another content; restore the file that was released")
    done = {one.number for one in applied}
    return tuple(migration for migration in known if migration.number not in done)


def shipped() -> tuple[Migration, ...]:
    """The migrations that came with this program."""
    folder = resources.files("registry") / "migrations"
    return parse_migrations({file.name: file.read_text("utf-8") for file in folder.iterdir() if file.is_file()})


def first_statements(settings: CassandraSettings) -> tuple[str, ...]:
    """What has to be there before anything can be noted or locked."""
    copies = ", ".join(f"'{name}': {number}" for name, number in sorted(settings.replication.items()))
    table_id = uuid.uuid5(_NAMESPACE, settings.keyspace)
    strategy = f"{{'class': 'NetworkTopologyStrategy', {copies}}}"
    columns = "(number int PRIMARY KEY, name text, checksum text, owner uuid)"
    return (
        f"CREATE KEYSPACE IF NOT EXISTS {settings.keyspace} WITH replication = {strategy}",
        f"CREATE TABLE IF NOT EXISTS {settings.keyspace}.schema_version {columns} WITH id = {table_id}",
    )


async def applied_migrations(bridge: Bridge, keyspace: str) -> tuple[Applied, ...]:
    """What a keyspace has seen; nothing where there is no such keyspace."""
    tables = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = %s AND table_name = 'schema_version'"
    if not await bridge.run(tables, (keyspace,)):
        return ()
    # Serially, one by one: these rows are written by lightweight transactions, and a range cannot be read so.
    found = []
    for number in range(1, 10_000):
        query = f"SELECT number, name, checksum FROM {keyspace}.schema_version WHERE number = %s"  # noqa: S608 - checked
        rows = await bridge.run(query, (number,), profile="serial")
        if not rows:
            break
        found.append(Applied(rows[0].number, rows[0].name, rows[0].checksum))
    return tuple(found)


async def check_schema(bridge: Bridge, keyspace: str) -> None:
    """Let a node start only on the tables that it knows.

    Raises:
        SchemaError: they are missing, older, newer or changed.
    """
    left = pending(shipped(), await applied_migrations(bridge, keyspace))
    if left:
        raise SchemaError(f"keyspace {keyspace} lacks {left[0].name}; run: idtrace store migrate --config FILE")


async def migrate(bridge: Bridge, settings: CassandraSettings, told: Callable[[str], None]) -> tuple[Migration, ...]:
    """Bring a keyspace up to date; ``told`` hears each statement before it is run.

    Raises:
        SchemaError: see :func:`pending`; or another migrator holds the lock for too long.
    """
    for statement in first_statements(settings):
        told(statement)
        await change_schema(bridge, statement)
    async with _lock(bridge, settings.keyspace):
        left = pending(shipped(), await applied_migrations(bridge, settings.keyspace))
        await bridge.use(settings.keyspace)
        for migration in left:
            for statement in migration.statements:
                told(statement)
                await change_schema(bridge, statement)
            note = (
                f"INSERT INTO {settings.keyspace}.schema_version (number, name, checksum) VALUES (%s, %s, %s)"  # noqa: S608 - checked
                " IF NOT EXISTS"
            )
            await bridge.once(note, (migration.number, migration.name, migration.checksum), profile="swap")
    return left


async def change_schema(bridge: Bridge, statement: str) -> None:
    """One statement, on a thread, for the driver waits there until all nodes agree."""
    await asyncio.to_thread(bridge.session.execute, statement, timeout=LOCK_SECONDS / 10)


@asynccontextmanager
async def _lock(bridge: Bridge, keyspace: str) -> AsyncIterator[None]:
    """Number 0 of ``schema_version``: held by one migrator at a time."""
    owner = uuid.uuid4()
    take = (
        f"INSERT INTO {keyspace}.schema_version (number, owner) VALUES (0, %s) IF NOT EXISTS USING TTL {LOCK_SECONDS}"  # noqa: S608 - checked
    )
    for _ in range(_LOCK_TRIES):
        answer: Any = (await bridge.run(take, (owner,), profile="swap"))[0]
        if answer.applied or answer.owner == owner:
            break
        await asyncio.sleep(_PAUSE_SECONDS)
    else:
        raise SchemaError("another migrator has not ended; look for it, or try again later")
    try:
        yield
    finally:
        free = f"DELETE FROM {keyspace}.schema_version WHERE number = 0 IF owner = %s"  # noqa: S608 - checked
        await bridge.once(free, (owner,), profile="swap")

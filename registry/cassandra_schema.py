"""The tables of the store, made and changed by numbered files: ``registry/migrations/NNNN_name.cql``.

1. Keyspace and ``schema_version`` are made first, if they are not there. Two migrators may do so at once: the table's
   id is given (made from the keyspace's name), so both make the same table and not two of one name. A keyspace that is
   there is left as it is, so that a role which may make none can migrate.
2. A lock row, written by a lightweight transaction, lets one migrator at a time go on; it runs out by itself.
3. What was applied has to be what the files say (SHA-256), and nothing may be newer than they are: nobody goes back.
4. Each missing file is run statement by statement and then noted. Statements are ``IF NOT EXISTS`` or repeatable, so a
   migrator that dies halfway is followed by another one. The driver waits for schema agreement after each.

Nobody changes a keyspace's replication here: rows have to be repaired afterwards, so it is an operator's work, with
words from :func:`replication_advice`.
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

import structlog

from idtrace.errors import BusyError, InputError, Reason, RefusedError, quoted
from registry.cassandra_bridge import Bridge
from registry.cassandra_settings import CassandraSettings

log = structlog.get_logger()

# A file's statements take 0.1 s each on one node and 1.1 s on three; a lock that outlives its owner ends after this.
LOCK_SECONDS: Final = 300
_LOCK_TRIES: Final = 600
_PAUSE_SECONDS: Final = 0.5
_FILE_NAME: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.cql")
_NAMESPACE: Final = uuid.UUID("5f0d6a3e-30a5-4b1c-9d6a-7b6f6f0c3a11")


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
        RefusedError: SCHEMA_MISMATCH where a name is malformed, or a number is missing or there twice.
    """
    found = []
    for name, text in sorted(files.items()):
        match = _FILE_NAME.fullmatch(name)
        if match is None:
            raise _mismatch(f"{name} is no migration's name: four digits, an underscore, and a name in lower case")
        found.append(Migration(int(match[1]), name, statements(text), hashlib.sha256(text.encode()).hexdigest()))
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise _mismatch("migrations are not numbered 1, 2, 3 and so on")
    return tuple(found)


def statements(text: str) -> tuple[str, ...]:
    """The statements of a file: ``--`` begins a remark, ``;`` ends a statement; neither stands in a string here."""
    plain = "\n".join(line.partition("--")[0].rstrip() for line in text.splitlines())
    return tuple(part for piece in plain.split(";") if (part := piece.strip()))


def pending(known: Sequence[Migration], applied: Sequence[Applied]) -> tuple[Migration, ...]:
    """What is still to be run.

    Raises:
        RefusedError: SCHEMA_MISMATCH where something that was applied is newer than this program, or was another.
    """
    by_number = {migration.number: migration for migration in known}
    for one in sorted(applied, key=lambda one: one.number):
        migration = by_number.get(one.number)
        if migration is None:
            raise _mismatch(f"the tables are newer than this program ({one.name}); install the newer program")
        if migration.checksum != one.checksum:
            raise _mismatch(f"{one.name} was applied with another content; restore the file that was released")
    done = {one.number for one in applied}
    return tuple(migration for migration in known if migration.number not in done)


def shipped() -> tuple[Migration, ...]:
    """The migrations that came with this program."""
    folder = resources.files("registry") / "migrations"
    return parse_migrations({file.name: file.read_text("utf-8") for file in folder.iterdir() if file.is_file()})


def fingerprint() -> str:
    """Of all migrations together, 12 characters: names keyspaces that may outlive changed tables."""
    return hashlib.sha256("".join(migration.checksum for migration in shipped()).encode()).hexdigest()[:12]


def first_statements(settings: CassandraSettings) -> tuple[str, ...]:
    """What has to be there before anything can be noted or locked: the keyspace, and the table of migrations."""
    table_id = uuid.uuid5(_NAMESPACE, settings.keyspace)
    columns = "(number int PRIMARY KEY, name text, checksum text, owner uuid)"
    return (
        f"CREATE KEYSPACE IF NOT EXISTS {settings.keyspace} WITH replication = {_strategy(settings)}",
        f"CREATE TABLE IF NOT EXISTS {settings.keyspace}.schema_version {columns} WITH id = {table_id}",
    )


def _strategy(settings: CassandraSettings) -> str:
    copies = ", ".join(f"'{name}': {number}" for name, number in sorted(settings.replication.items()))
    return f"{{'class': 'NetworkTopologyStrategy', {copies}}}"


async def copies_held(bridge: Bridge, keyspace: str) -> dict[str, int] | None:
    """Copies by data centre, as the keyspace has them; None where there is no such keyspace."""
    query = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = %s"
    rows = await bridge.run(query, (keyspace,))
    if not rows:
        return None
    held = {name: text for name, text in rows[0].replication.items() if name != "class"}
    return {name: int(text) for name, text in held.items() if text.isdigit()}


def replication_advice(settings: CassandraSettings, held: Mapping[str, int] | None) -> str:
    """What an operator does where the keyspace has not the copies that the settings ask for, or ""."""
    if held is None or held == settings.replication:
        return ""
    return (
        f"keyspace {settings.keyspace} has the copies {dict(sorted(held.items()))}, and storage.replication asks for"
        f" {dict(sorted(settings.replication.items()))}; to change the keyspace:"
        f" ALTER KEYSPACE {settings.keyspace} WITH replication = {_strategy(settings)}; then `nodetool repair -full"
        f" {settings.keyspace}` on every node, one data centre and one copy at a time"
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


async def check_schema(bridge: Bridge, settings: CassandraSettings) -> None:
    """Let a node start only on the tables that it knows.

    Raises:
        RefusedError: SCHEMA_MISMATCH where they are missing, older, newer or changed, or where a node that asks its own
            data centre alone finds no copies in it.
    """
    keyspace = settings.keyspace
    held = await copies_held(bridge, keyspace)
    left = pending(shipped(), await applied_migrations(bridge, keyspace) if held is not None else ())
    if left:
        lacks = "is not there" if held is None else f"lacks {left[0].name}"
        raise _mismatch(f"keyspace {keyspace} {lacks}; run: idtrace store migrate --config FILE")
    advice = replication_advice(settings, held)
    if settings.serial_consistency == "LOCAL_SERIAL" and settings.datacenter not in (held or {}):
        raise _mismatch(f"data centre {settings.datacenter} holds no copies: {advice}", field="storage.replication")
    if advice:
        log.warning("the keyspace has other copies than the settings ask for", advice=advice)


async def migrate(bridge: Bridge, settings: CassandraSettings, told: Callable[[str], None]) -> tuple[Migration, ...]:
    """Bring a keyspace up to date; ``told`` hears each statement before it is run.

    Raises:
        InputError: the keyspace is to be made, with copies that the ring has no nodes for.
        RefusedError: see :func:`pending`; WRITE_CONFLICT where another migrator holds the lock for too long.
    """
    known = await copies_held(bridge, settings.keyspace) is not None
    if not known:
        _check_copies(settings.replication, bridge.nodes())
    for statement in first_statements(settings)[1 if known else 0 :]:
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


def _check_copies(replication: Mapping[str, int], nodes: Mapping[str, int]) -> None:
    """Cassandra itself makes such a keyspace with a warning, and no quorum of it ever answers."""
    for datacenter, copies in sorted(replication.items()):
        if copies > nodes.get(datacenter, 0):
            ring = ", ".join(f"{name} ({count})" for name, count in sorted(nodes.items()))
            detail = f"setting storage.replication asks for {copies} in {quoted(datacenter)}; the ring's nodes: {ring}"
            raise InputError(Reason.FIELD_MALFORMED, detail, field="storage.replication")


async def change_schema(bridge: Bridge, statement: str) -> None:
    """One statement, on a thread, for the driver waits there until all nodes agree.

    Raises:
        BusyError: NO_ANSWER where they do not agree in the driver's 10 s.
        Exception: the driver's.
    """
    done = await asyncio.to_thread(bridge.session.execute, statement, timeout=LOCK_SECONDS / 10)
    if not done.response_future.is_schema_agreed:
        detail = (
            "the nodes of the ring do not agree on the tables (`nodetool describecluster`); mend that, and try again"
        )
        raise BusyError(Reason.NO_ANSWER, detail, field="storage.keyspace")


def _mismatch(detail: str, field: str = "storage.keyspace") -> RefusedError:
    return RefusedError(Reason.SCHEMA_MISMATCH, detail, field=field)


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
        detail = "another migrator has not ended; look for it, or try again later"
        raise RefusedError(Reason.WRITE_CONFLICT, detail, field="storage.keyspace")
    try:
        yield
    finally:
        free = f"DELETE FROM {keyspace}.schema_version WHERE number = 0 IF owner = %s"  # noqa: S608 - checked
        await bridge.once(free, (owner,), profile="swap")

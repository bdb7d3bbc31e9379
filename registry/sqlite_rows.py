"""Rows of the SQLite store ⇄ what a registry commits: the tables, and the statements on them.

Everything here runs inside a transaction of :class:`registry.storage_sqlite.SqliteStorage`, or reads on a connection of
its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

from idtrace.record import RecordKind, Status
from registry.logbook import LogDraft
from registry.storage import (
    Change,
    Claim,
    Earlier,
    Grant,
    Head,
    Outcome,
    Stored,
    Write,
    between,
    changes_gone,
    log_write,
    unpack_change,
)

# SQLite's default limit of 32,766 variables is not everywhere; 500 keys a statement is as fast.
VARIABLES_MAX: Final = 500
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS version(
    identifier TEXT NOT NULL, version INTEGER NOT NULL, record BLOB NOT NULL,
    PRIMARY KEY (identifier, version));
CREATE TABLE IF NOT EXISTS head(
    identifier TEXT PRIMARY KEY, version INTEGER NOT NULL, record_hash BLOB NOT NULL,
    kind TEXT NOT NULL, status TEXT NOT NULL, issued_at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS idempotency(
    zone TEXT NOT NULL, key TEXT NOT NULL, request_hash BLOB NOT NULL, receipt BLOB NOT NULL,
    PRIMARY KEY (zone, key));
CREATE TABLE IF NOT EXISTS claim(
    class TEXT NOT NULL, field TEXT NOT NULL, digest BLOB NOT NULL, identifier TEXT NOT NULL,
    PRIMARY KEY (class, field, digest));
CREATE TABLE IF NOT EXISTS granted(
    prefix TEXT PRIMARY KEY, status TEXT NOT NULL, hosted INTEGER NOT NULL, comment TEXT NOT NULL,
    changed_at INTEGER NOT NULL, version INTEGER NOT NULL, delegation BLOB NOT NULL, application BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS enrolment(
    prefix TEXT NOT NULL, position INTEGER NOT NULL, signed BLOB NOT NULL, PRIMARY KEY (prefix, position));
CREATE TABLE IF NOT EXISTS chain(
    zone TEXT NOT NULL, position INTEGER NOT NULL, signed BLOB NOT NULL, PRIMARY KEY (zone, position));
CREATE TABLE IF NOT EXISTS change(seq INTEGER PRIMARY KEY AUTOINCREMENT, subjects BLOB NOT NULL);
"""
# Stores that were made before records had a place in a log get the column when they are opened.
_LOG_INDEX: Final = "ALTER TABLE version ADD COLUMN log_index INTEGER"


def add_log_index(connection: sqlite3.Connection) -> None:
    """Give an older store the column; two that open it at once both want to, and one of them finds it there."""
    try:
        connection.execute(_LOG_INDEX)
    except sqlite3.OperationalError:
        if "log_index" not in {row[1] for row in connection.execute("PRAGMA table_info(version)")}:
            raise


class Rows:
    """The writes of one transaction: decided one after the other, inserted together at the end.

    ``heads`` and ``used`` are the transaction's view of what is stored, and grow with each write that wins, as do its
    own claims. One statement a table costs a third of one a row.
    """

    def __init__(
        self, writer: sqlite3.Connection, heads: dict[str, Head], used: set[tuple[str, str]], draft: LogDraft | None
    ) -> None:
        self._writer = writer
        self._heads = heads
        self._used = used
        self._draft = draft
        self._claims: dict[Claim, str] = {}
        self._delegated: dict[str, bool] = {}
        self._won: list[tuple[Write, int | None]] = []

    def apply(self, write: Write) -> Outcome:
        """Decide one write; it is not in the tables before :meth:`insert`."""
        head, key = self._heads.get(write.identifier), (write.zone, write.idempotency_key)
        if key in self._used:
            return Outcome.KEY_USED
        if (head.version if head else 0) != write.expected:
            return Outcome.CONFLICT
        if any(self._is_delegated(prefix) for prefix in between(write)):
            return Outcome.CONFLICT
        if any(self._claimant(claim) not in (None, write.identifier) for claim in write.claims):
            return Outcome.CLAIMED
        index = log_write(self._draft, write) if self._draft is not None else None
        self._won.append((write, index))
        self._claims.update(dict.fromkeys(write.claims, write.identifier))
        self._heads[write.identifier] = write.head
        self._used.add(key)
        return Outcome.COMMITTED

    def insert(self) -> list[Write]:
        """Put all that has won into the tables; the writes, in their order."""
        won, many = [write for write, _ in self._won], self._writer.executemany
        many(
            "INSERT INTO version VALUES (?, ?, ?, ?)",
            [(write.identifier, write.head.version, write.record, index) for write, index in self._won],
        )
        many(
            "INSERT OR REPLACE INTO head VALUES (?, ?, ?, ?, ?, ?)",
            [
                (write.identifier, new.version, new.record_hash, new.kind, new.status, new.issued_at)
                for write in won
                for new in (write.head,)
            ],
        )
        many(
            "INSERT INTO idempotency VALUES (?, ?, ?, ?)",
            [(write.zone, write.idempotency_key, write.request_hash, write.receipt) for write in won],
        )
        many(
            "INSERT OR IGNORE INTO claim VALUES (?, ?, ?, ?)",
            [(c.class_id, c.field, c.digest, write.identifier) for write in won for c in write.claims],
        )
        return won

    def _is_delegated(self, prefix: str) -> bool:
        if prefix not in self._delegated:
            self._delegated[prefix] = _is_delegated(self._writer, prefix)
        return self._delegated[prefix]

    def _claimant(self, claim: Claim) -> str | None:
        return self._claims.get(claim) or _claimant(self._writer, claim)


def _chunks(keys: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """``("?,?,…", keys)`` in pieces that fit one statement."""
    for start in range(0, len(keys), VARIABLES_MAX):
        piece = keys[start : start + VARIABLES_MAX]
        yield ",".join("?" * len(piece)), piece


def read_heads(connection: sqlite3.Connection, identifiers: Sequence[str]) -> dict[str, Head]:
    """Latest version of each identifier that has one."""
    heads = {}
    for marks, piece in _chunks(identifiers):
        query = (
            f"SELECT identifier, version, record_hash, kind, status, issued_at FROM head WHERE identifier IN ({marks})"  # noqa: S608 - marks are question marks
        )
        for row in connection.execute(query, piece):
            heads[row[0]] = Head(row[1], row[2], RecordKind(row[3]), Status(row[4]), row[5])
    return heads


def read_stored(connection: sqlite3.Connection, identifier: str, version: int) -> Stored | None:
    """A version, or the latest for 0."""
    query = "SELECT version, record, log_index FROM version WHERE identifier = ?"
    if version:
        row = connection.execute(f"{query} AND version = ?", (identifier, version)).fetchone()
    else:
        row = connection.execute(f"{query} ORDER BY version DESC LIMIT 1", (identifier,)).fetchone()
    return Stored(*row) if row else None


def read_earlier(connection: sqlite3.Connection, zone: str, keys: Sequence[str]) -> dict[str, Earlier]:
    """What was answered to each key that was used in the zone."""
    earlier = {}
    for marks, piece in _chunks(keys):
        query = f"SELECT key, request_hash, receipt FROM idempotency WHERE zone = ? AND key IN ({marks})"  # noqa: S608 - marks are question marks
        for row in connection.execute(query, (zone, *piece)):
            earlier[row[0]] = Earlier(row[1], row[2])
    return earlier


def _claimant(connection: sqlite3.Connection, claim: Claim) -> str | None:
    query = "SELECT identifier FROM claim WHERE class = ? AND field = ? AND digest = ?"
    row = connection.execute(query, (claim.class_id, claim.field, claim.digest)).fetchone()
    return row[0] if row else None


def read_claimants(connection: sqlite3.Connection, claims: Sequence[Claim]) -> dict[Claim, str]:
    """Identifier that holds each claim that is taken."""
    found = ((claim, _claimant(connection, claim)) for claim in claims)
    return {claim: identifier for claim, identifier in found if identifier is not None}


def _is_delegated(connection: sqlite3.Connection, prefix: str) -> bool:
    query = "SELECT 1 FROM granted WHERE prefix = ? AND version > 0"
    return connection.execute(query, (prefix,)).fetchone() is not None


def any_within(connection: sqlite3.Connection, prefix: str) -> bool:
    """Whether an identifier of this prefix, or of one below it, is registered."""
    # "." < "/" < "0" stand side by side in ASCII: one range holds "88.118.…/…" and "88.118/…", not "88.1180/…"
    query = "SELECT 1 FROM head WHERE identifier >= ? AND identifier < ? LIMIT 1"
    return connection.execute(query, (f"{prefix}.", f"{prefix}0")).fetchone() is not None


def read_grants(connection: sqlite3.Connection, prefix: str | None = None) -> dict[str, Grant]:
    """All grants by prefix, or the one of a prefix."""
    one = (prefix, prefix)
    rows = connection.execute(
        "SELECT prefix, status, hosted, comment, changed_at, version, delegation, application FROM granted"
        " WHERE ? IS NULL OR prefix = ?",
        one,
    ).fetchall()
    query = "SELECT prefix, signed FROM enrolment WHERE ? IS NULL OR prefix = ? ORDER BY prefix, position"
    enrolments = read_lists(connection, query, one)
    return {r[0]: Grant(r[0], r[1], bool(r[2]), r[3], r[4], r[5], r[6], r[7], enrolments.get(r[0], ())) for r in rows}


def write_grant(writer: sqlite3.Connection, grant: Grant) -> None:
    """Insert or replace a grant with its enrolments."""
    writer.execute(
        "INSERT OR REPLACE INTO granted VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            grant.prefix,
            grant.status,
            grant.hosted,
            grant.comment,
            grant.changed_at,
            grant.version,
            grant.delegation,
            grant.application,
        ),
    )
    writer.execute("DELETE FROM enrolment WHERE prefix = ?", (grant.prefix,))
    insert_list(writer, "enrolment", grant.prefix, grant.enrolments)


def last_sequence(connection: sqlite3.Connection) -> int:
    """Number of the last commit; 0 before the first."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'change'").fetchone()
    return int(row[0]) if row else 0


def read_changes(connection: sqlite3.Connection, after: int, most: int) -> list[Change]:
    """Numbers have no gaps: a transaction that is rolled back gives its number back."""
    query = "SELECT seq, subjects FROM change WHERE seq > ? ORDER BY seq LIMIT ?"
    rows = connection.execute(query, (after, most)).fetchall()
    if rows[0][0] != after + 1:
        raise changes_gone(after, last_sequence(connection))
    return [unpack_change(*row) for row in rows]


def read_lists(
    connection: sqlite3.Connection, query: str, given: tuple[object, ...] = ()
) -> dict[str, tuple[bytes, ...]]:
    """Rows (name, item) of a query as one tuple a name, in the query's order."""
    lists: dict[str, tuple[bytes, ...]] = {}
    for name, signed in connection.execute(query, given):
        lists[name] = (*lists.get(name, ()), signed)
    return lists


def insert_list(writer: sqlite3.Connection, table: str, name: str, items: Sequence[bytes]) -> None:
    """Put items under a name in their order."""
    rows = [(name, position, item) for position, item in enumerate(items)]
    writer.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", rows)  # noqa: S608 - table is one of our two names

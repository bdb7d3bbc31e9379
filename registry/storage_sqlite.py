"""The store on SQLite: WAL, synchronous FULL, one transaction (and so one fsync) a batch.

Ordinary rowid tables with a text key: at this row size WITHOUT ROWID loads 2 to 3 times slower and reads no faster.
Reads of few keys run inline on the event loop (14 to 23 µs, less than the 46 µs of a hop to a thread) on a connection
of their own and see whole commits only (WAL snapshot). Whatever takes longer, and everything that writes, runs on the
store's one thread, in the order of the calls, and to its end even where the caller has gone. ``BEGIN IMMEDIATE`` makes
a second process on the same file wait and then lose cleanly. Source: sqlite.org/wal.html,
sqlite.org/pragma.html#pragma_synchronous.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple

from idtrace.errors import InputError, Reason
from idtrace.record import RecordKind, Status
from registry.storage import (
    Change,
    Claim,
    Earlier,
    Grant,
    Head,
    Outcome,
    Write,
    between,
    changes_gone,
    pack_subjects,
    unpack_change,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# A second writer waits this long for the first one's batch (a few ms) before it gives up.
BUSY_TIMEOUT_SECONDS: Final = 5.0
# The switch of a new file to WAL takes a few ms; together as long as the time-out above.
WAL_TRIES: Final = 250
WAL_PAUSE_SECONDS: Final = 0.02
# SQLite's default limit of 32,766 variables is not everywhere; 500 keys a statement is as fast.
VARIABLES_MAX: Final = 500
# More keys than this are read on the thread: so many keep the loop for 0.3 ms at most.
INLINE_KEYS_MAX: Final = 16
# Commits that are still told: at most 500 a second, so two minutes at least, and nobody watches later than seconds. A
# commit takes about 30 bytes an identifier, so of full batches of 2,000 they take 4 GB beside 100 GB of records.
CHANGES_KEPT: Final = 65_536

_SCHEMA: Final = """
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


class SqliteStorage:
    """Storage in one file. Owned by the event loop's thread, but for the writer, which is the store's own thread's."""

    def __init__(self, path: Path, *, changes_kept: int = CHANGES_KEPT) -> None:
        self._path = path
        self._changes_kept = changes_kept
        self._closed = False
        self._thread = _new_thread()
        self._generation = 0  # of the writer; a reader of an earlier one is replaced where it is used
        try:
            self._open_writer()
            self._open_reader()
        except sqlite3.Error as error:
            raise InputError(Reason.FIELD_MALFORMED, f"the store cannot be used: {error}", field=str(path)) from None

    def _open_writer(self) -> None:
        self._writer = self._connect()
        self._writer.executescript(_SCHEMA)
        self._generation += 1

    def _open_reader(self) -> None:
        generation, reader = self._generation, self._connect()
        self._readers_generation, self._current_reader = generation, reader

    @property
    def _reader(self) -> sqlite3.Connection:
        """The loop's connection; only the loop's thread closes it, so no read is cut off."""
        if self._readers_generation != self._generation and not self._closed:
            self._current_reader.close()
            self._open_reader()
        return self._current_reader

    async def _on_thread(self, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Run on the store's thread, to the end even where the caller leaves."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments))

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
        )
        _use_wal(connection)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        return connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield self._writer
            self._writer.execute("COMMIT")  # the commit point: one fsync for the whole batch
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise

    async def heads(self, identifiers: Sequence[str]) -> dict[str, Head]:
        """See :class:`registry.storage.Storage`."""
        if len(identifiers) <= INLINE_KEYS_MAX:
            return _heads(self._reader, identifiers)
        return await self._on_thread(lambda: _heads(self._writer, identifiers))

    async def record(self, identifier: str, version: int = 0) -> bytes | None:
        """See :class:`registry.storage.Storage`."""
        if version:
            query = "SELECT record FROM version WHERE identifier = ? AND version = ?"
            row = self._reader.execute(query, (identifier, version)).fetchone()
        else:
            query = "SELECT record FROM version WHERE identifier = ? ORDER BY version DESC LIMIT 1"
            row = self._reader.execute(query, (identifier,)).fetchone()
        return row[0] if row else None

    async def earlier(self, zone: str, idempotency_keys: Sequence[str]) -> dict[str, Earlier]:
        """See :class:`registry.storage.Storage`."""
        if len(idempotency_keys) <= INLINE_KEYS_MAX:
            return _earlier(self._reader, zone, idempotency_keys)
        return await self._on_thread(lambda: _earlier(self._writer, zone, idempotency_keys))

    async def claimants(self, claims: Sequence[Claim]) -> dict[Claim, str]:
        """See :class:`registry.storage.Storage`."""
        if len(claims) <= INLINE_KEYS_MAX:
            return _claimants(self._reader, claims)
        return await self._on_thread(lambda: _claimants(self._writer, claims))

    async def commit(self, writes: Sequence[Write]) -> list[Outcome]:
        """See :class:`registry.storage.Storage`."""
        return await self._on_thread(self._commit, writes)

    def _commit(self, writes: Sequence[Write]) -> list[Outcome]:
        with self._transaction() as writer:
            heads = _heads(writer, [w.identifier for w in writes])
            used = {
                (zone, key)
                for zone in {w.zone for w in writes}
                for key in _earlier(writer, zone, [w.idempotency_key for w in writes if w.zone == zone])
            }
            outcomes = [_apply(writer, write, heads, used) for write in writes]
            won = [w for w, outcome in zip(writes, outcomes, strict=True) if outcome is Outcome.COMMITTED]
            if won:
                self._number(pack_subjects(won))
            return outcomes

    async def any_within(self, prefix: str) -> bool:
        """See :class:`registry.storage.Storage`."""
        return _any_within(self._reader, prefix)

    async def grants(self, only: Sequence[str] | None = None) -> list[Grant]:
        """See :class:`registry.storage.Storage`."""
        return await self._on_thread(self._grants, only)

    def _grants(self, only: Sequence[str] | None) -> list[Grant]:
        if only is None:
            return list(_grants(self._writer).values())
        return [grant for prefix in only for grant in _grants(self._writer, prefix).values()]

    async def put_grant(
        self, grant: Grant, expected: Grant | None, key: tuple[str, str], request_hash: bytes
    ) -> Outcome:
        """See :class:`registry.storage.Storage`."""
        return await self._on_thread(self._put_grant, grant, expected, key, request_hash)

    def _put_grant(self, grant: Grant, expected: Grant | None, key: tuple[str, str], request_hash: bytes) -> Outcome:
        with self._transaction() as writer:
            if _earlier(writer, key[0], [key[1]]):
                return Outcome.KEY_USED
            if _grants(writer, grant.prefix).get(grant.prefix) != expected:
                return Outcome.CONFLICT
            first = grant.version > 0 and (expected is None or expected.version == 0)
            if first and _any_within(writer, grant.prefix):
                return Outcome.CONFLICT
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
            _insert_list(writer, "enrolment", grant.prefix, grant.enrolments)
            writer.execute("INSERT INTO idempotency VALUES (?, ?, ?, ?)", (*key, request_hash, b""))
            self._number(pack_subjects((), [grant]))
            return Outcome.COMMITTED

    async def chains(self) -> dict[str, tuple[bytes, ...]]:
        """See :class:`registry.storage.Storage`."""
        query = "SELECT zone, signed FROM chain ORDER BY zone, position"
        return await self._on_thread(lambda: _lists(self._writer, query))

    async def put_chain(self, zone: str, chain: Sequence[bytes]) -> None:
        """See :class:`registry.storage.Storage`."""
        await self._on_thread(self._put_chain, zone, chain)

    def _put_chain(self, zone: str, chain: Sequence[bytes]) -> None:
        with self._transaction() as writer:
            writer.execute("DELETE FROM chain WHERE zone = ?", (zone,))
            _insert_list(writer, "chain", zone, chain)

    def _number(self, subjects: bytes) -> None:
        """Give the transaction its number, and let go of the commit that is now one too many."""
        seq = self._writer.execute("INSERT INTO change(subjects) VALUES (?)", (subjects,)).lastrowid
        assert seq is not None, "an insert has a row id"
        self._writer.execute("DELETE FROM change WHERE seq <= ?", (seq - self._changes_kept,))

    async def sequence(self) -> int:
        """See :class:`registry.storage.Storage`."""
        return _sequence(self._reader)

    async def changes(self, after: int, most: int) -> list[Change]:
        """See :class:`registry.storage.Storage`."""
        head = _sequence(self._reader)
        if after > head:
            raise changes_gone(after, head)
        # Asked four times a second and mostly for nothing; a full batch would keep the loop for a millisecond.
        return await self._on_thread(lambda: _changes(self._writer, after, most)) if after < head else []

    async def reopen(self) -> None:
        """See :class:`registry.storage.Storage`."""
        if self._closed:
            self._thread, self._closed = _new_thread(), False
        await self._on_thread(self._reopen)

    def _reopen(self) -> None:
        self._writer.close()
        self._open_writer()

    async def close(self) -> None:
        """See :class:`registry.storage.Storage`. What was asked before is done first; closing again does nothing."""
        if self._closed:
            return
        self._closed = True
        self._current_reader.close()
        try:
            await self._on_thread(self._close)
        finally:
            self._thread.shutdown(wait=False)  # it still ends what it was given

    def _close(self) -> None:
        self._writer.close()


def _new_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Two that open a new file at once both want to switch it; SQLite refuses one at once, whatever its time-out."""
    for _ in range(WAL_TRIES):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            time.sleep(WAL_PAUSE_SECONDS)
        else:
            return
    connection.execute("PRAGMA journal_mode=WAL")


def _apply(writer: sqlite3.Connection, write: Write, heads: dict[str, Head], used: set[tuple[str, str]]) -> Outcome:
    """Insert one write; ``heads`` and ``used`` are the transaction's view and grow with it."""
    head = heads.get(write.identifier)
    if (write.zone, write.idempotency_key) in used:
        return Outcome.KEY_USED
    if (head.version if head else 0) != write.expected:
        return Outcome.CONFLICT
    if any(_is_delegated(writer, prefix) for prefix in between(write)):
        return Outcome.CONFLICT
    if any(_claimant(writer, claim) not in (None, write.identifier) for claim in write.claims):
        return Outcome.CLAIMED
    new = write.head
    writer.execute("INSERT INTO version VALUES (?, ?, ?)", (write.identifier, new.version, write.record))
    writer.execute(
        "INSERT OR REPLACE INTO head VALUES (?, ?, ?, ?, ?, ?)",
        (write.identifier, new.version, new.record_hash, new.kind, new.status, new.issued_at),
    )
    writer.execute(
        "INSERT INTO idempotency VALUES (?, ?, ?, ?)",
        (write.zone, write.idempotency_key, write.request_hash, write.receipt),
    )
    for claim in write.claims:
        writer.execute(
            "INSERT OR IGNORE INTO claim VALUES (?, ?, ?, ?)",
            (claim.class_id, claim.field, claim.digest, write.identifier),
        )
    heads[write.identifier] = new
    used.add((write.zone, write.idempotency_key))
    return Outcome.COMMITTED


def _chunks(keys: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """``("?,?,…", keys)`` in pieces that fit one statement."""
    for start in range(0, len(keys), VARIABLES_MAX):
        piece = keys[start : start + VARIABLES_MAX]
        yield ",".join("?" * len(piece)), piece


def _heads(connection: sqlite3.Connection, identifiers: Sequence[str]) -> dict[str, Head]:
    heads = {}
    for marks, piece in _chunks(identifiers):
        query = (
            f"SELECT identifier, version, record_hash, kind, status, issued_at FROM head WHERE identifier IN ({marks})"  # noqa: S608 - marks are question marks
        )
        for row in connection.execute(query, piece):
            heads[row[0]] = Head(row[1], row[2], RecordKind(row[3]), Status(row[4]), row[5])
    return heads


def _earlier(connection: sqlite3.Connection, zone: str, keys: Sequence[str]) -> dict[str, Earlier]:
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


def _claimants(connection: sqlite3.Connection, claims: Sequence[Claim]) -> dict[Claim, str]:
    found = ((claim, _claimant(connection, claim)) for claim in claims)
    return {claim: identifier for claim, identifier in found if identifier is not None}


def _is_delegated(connection: sqlite3.Connection, prefix: str) -> bool:
    query = "SELECT 1 FROM granted WHERE prefix = ? AND version > 0"
    return connection.execute(query, (prefix,)).fetchone() is not None


def _any_within(connection: sqlite3.Connection, prefix: str) -> bool:
    # "." < "/" < "0" stand side by side in ASCII: one range holds "88.118.…/…" and "88.118/…", not "88.1180/…"
    query = "SELECT 1 FROM head WHERE identifier >= ? AND identifier < ? LIMIT 1"
    return connection.execute(query, (f"{prefix}.", f"{prefix}0")).fetchone() is not None


def _grants(connection: sqlite3.Connection, prefix: str | None = None) -> dict[str, Grant]:
    """All grants by prefix, or the one of a prefix."""
    one = (prefix, prefix)
    rows = connection.execute(
        "SELECT prefix, status, hosted, comment, changed_at, version, delegation, application FROM granted"
        " WHERE ? IS NULL OR prefix = ?",
        one,
    ).fetchall()
    query = "SELECT prefix, signed FROM enrolment WHERE ? IS NULL OR prefix = ? ORDER BY prefix, position"
    enrolments = _lists(connection, query, one)
    return {r[0]: Grant(r[0], r[1], bool(r[2]), r[3], r[4], r[5], r[6], r[7], enrolments.get(r[0], ())) for r in rows}


def _sequence(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'change'").fetchone()
    return int(row[0]) if row else 0


def _changes(connection: sqlite3.Connection, after: int, most: int) -> list[Change]:
    """Numbers have no gaps: a transaction that is rolled back gives its number back."""
    query = "SELECT seq, subjects FROM change WHERE seq > ? ORDER BY seq LIMIT ?"
    rows = connection.execute(query, (after, most)).fetchall()
    if rows[0][0] != after + 1:
        raise changes_gone(after, _sequence(connection))
    return [unpack_change(*row) for row in rows]


def _lists(connection: sqlite3.Connection, query: str, given: tuple[object, ...] = ()) -> dict[str, tuple[bytes, ...]]:
    lists: dict[str, tuple[bytes, ...]] = {}
    for name, signed in connection.execute(query, given):
        lists[name] = (*lists.get(name, ()), signed)
    return lists


def _insert_list(writer: sqlite3.Connection, table: str, name: str, items: Sequence[bytes]) -> None:
    rows = [(name, position, item) for position, item in enumerate(items)]
    writer.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", rows)  # noqa: S608 - table is one of our two names

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
from registry import sqlite_log, sqlite_pointers, sqlite_rows
from registry.logbook import Edge, LogDraft, Stamp
from registry.storage import (
    Change,
    Claim,
    Delivery,
    DeliveryState,
    Earlier,
    Grant,
    Head,
    Logged,
    Mention,
    Outcome,
    Recorded,
    Stored,
    Write,
    changes_gone,
    pack_subjects,
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
# More keys than this are read on the thread: so many keep the loop for 0.3 ms at most.
INLINE_KEYS_MAX: Final = 16
# Commits that are still told: at most 500 a second, so two minutes at least, and nobody watches later than seconds. A
# commit takes about 30 bytes an identifier, so of full batches of 2,000 they take 4 GB beside 100 GB of records.
CHANGES_KEPT: Final = 65_536


class SqliteStorage:
    """Storage in one file. Owned by the event loop's thread, but for the writer, which is the store's own thread's."""

    def __init__(self, path: Path, *, changes_kept: int = CHANGES_KEPT) -> None:
        self._path = path
        self._changes_kept = changes_kept
        self._closed = False
        self._thread = _new_thread()
        self._edge: Edge | None = None  # of the log after this store's last commit; the store's own thread's
        self._generation = 0  # of the writer; a reader of an earlier one is replaced where it is used
        try:
            self._open_writer()
            self._open_reader()
        except sqlite3.Error as error:
            raise InputError(Reason.FIELD_MALFORMED, f"the store cannot be used: {error}", field=str(path)) from None

    def _open_writer(self) -> None:
        self._writer = self._connect()
        self._writer.executescript(sqlite_rows.SCHEMA + sqlite_log.SCHEMA + sqlite_pointers.SCHEMA)
        sqlite_rows.add_log_index(self._writer)
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
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        self._writer.execute(begin)
        try:
            yield self._writer
            self._writer.execute("COMMIT")  # the commit point: one fsync for the whole batch
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise

    @contextmanager
    def _logging(self, stamp: Stamp | None) -> Iterator[tuple[sqlite3.Connection, LogDraft | None]]:
        """A transaction with a draft of what it logs; both become true together."""
        known, self._edge = self._edge, None  # until it is known to be committed
        edge = known
        with self._transaction() as writer:
            draft = sqlite_log.open_draft(writer, stamp, known)
            yield writer, draft
            if draft is not None and len(draft):  # where nobody has won, the tree and its checkpoint stay as they are
                appended = draft.finish()
                sqlite_log.write(writer, appended)
                edge = appended.edge
        self._edge = edge

    async def heads(self, identifiers: Sequence[str]) -> dict[str, Head]:
        """See :class:`registry.storage.Storage`."""
        if len(identifiers) <= INLINE_KEYS_MAX:
            return sqlite_rows.read_heads(self._reader, identifiers)
        return await self._on_thread(lambda: sqlite_rows.read_heads(self._writer, identifiers))

    async def record(self, identifier: str, version: int = 0) -> bytes | None:
        """See :class:`registry.storage.Storage`."""
        found = await self.stored(identifier, version)
        return found.record if found else None

    async def stored(self, identifier: str, version: int = 0) -> Stored | None:
        """See :class:`registry.storage.Storage`."""
        return sqlite_rows.read_stored(self._reader, identifier, version)

    async def earlier(self, zone: str, idempotency_keys: Sequence[str]) -> dict[str, Earlier]:
        """See :class:`registry.storage.Storage`."""
        if len(idempotency_keys) <= INLINE_KEYS_MAX:
            return sqlite_rows.read_earlier(self._reader, zone, idempotency_keys)
        return await self._on_thread(lambda: sqlite_rows.read_earlier(self._writer, zone, idempotency_keys))

    async def claimants(self, claims: Sequence[Claim]) -> dict[Claim, str]:
        """See :class:`registry.storage.Storage`."""
        if len(claims) <= INLINE_KEYS_MAX:
            return sqlite_rows.read_claimants(self._reader, claims)
        return await self._on_thread(lambda: sqlite_rows.read_claimants(self._writer, claims))

    async def commit(self, writes: Sequence[Write], stamp: Stamp | None = None) -> list[Outcome]:
        """See :class:`registry.storage.Storage`."""
        return await self._on_thread(self._commit, writes, stamp)

    def _commit(self, writes: Sequence[Write], stamp: Stamp | None) -> list[Outcome]:
        with self._logging(stamp) as (writer, draft):
            heads = sqlite_rows.read_heads(writer, [w.identifier for w in writes])
            used = {
                (zone, key)
                for zone in {w.zone for w in writes}
                for key in sqlite_rows.read_earlier(writer, zone, [w.idempotency_key for w in writes if w.zone == zone])
            }
            rows = sqlite_rows.Rows(writer, heads, used, draft)
            outcomes = [rows.apply(write) for write in writes]
            if won := rows.insert():
                sqlite_pointers.write_events(writer, self._number(pack_subjects(won)), won)
            return outcomes

    async def any_within(self, prefix: str) -> bool:
        """See :class:`registry.storage.Storage`."""
        return sqlite_rows.any_within(self._reader, prefix)

    async def grants(self, only: Sequence[str] | None = None) -> list[Grant]:
        """See :class:`registry.storage.Storage`."""
        return await self._on_thread(self._grants, only)

    def _grants(self, only: Sequence[str] | None) -> list[Grant]:
        if only is None:
            return list(sqlite_rows.read_grants(self._writer).values())
        return [grant for prefix in only for grant in sqlite_rows.read_grants(self._writer, prefix).values()]

    async def put_grant(
        self,
        grant: Grant,
        expected: Grant | None,
        key: tuple[str, str],
        request_hash: bytes,
        logged: Logged | None = None,
    ) -> Outcome:
        """See :class:`registry.storage.Storage`."""
        return await self._on_thread(self._put_grant, grant, expected, key, request_hash, logged)

    def _put_grant(
        self, grant: Grant, expected: Grant | None, key: tuple[str, str], request_hash: bytes, logged: Logged | None
    ) -> Outcome:
        with self._logging(logged.stamp if logged else None) as (writer, draft):
            if sqlite_rows.read_earlier(writer, key[0], [key[1]]):
                return Outcome.KEY_USED
            if sqlite_rows.read_grants(writer, grant.prefix).get(grant.prefix) != expected:
                return Outcome.CONFLICT
            first = grant.version > 0 and (expected is None or expected.version == 0)
            if first and sqlite_rows.any_within(writer, grant.prefix):
                return Outcome.CONFLICT
            sqlite_rows.write_grant(writer, grant)
            writer.execute("INSERT INTO idempotency VALUES (?, ?, ?, ?)", (*key, request_hash, b""))
            self._number(pack_subjects((), [grant]))
            if draft is not None and logged is not None:
                draft.add(logged.entry)
            return Outcome.COMMITTED

    async def chains(self) -> dict[str, tuple[bytes, ...]]:
        """See :class:`registry.storage.Storage`."""
        query = "SELECT zone, signed FROM chain ORDER BY zone, position"
        return await self._on_thread(lambda: sqlite_rows.read_lists(self._writer, query))

    async def put_chain(self, zone: str, chain: Sequence[bytes], logged: Logged | None = None) -> None:
        """See :class:`registry.storage.Storage`."""
        await self._on_thread(self._put_chain, zone, chain, logged)

    def _put_chain(self, zone: str, chain: Sequence[bytes], logged: Logged | None) -> None:
        with self._logging(logged.stamp if logged else None) as (writer, draft):
            writer.execute("DELETE FROM chain WHERE zone = ?", (zone,))
            sqlite_rows.insert_list(writer, "chain", zone, chain)
            if draft is not None and logged is not None:
                draft.add(logged.entry)

    async def log_edge(self) -> Edge:
        """See :class:`registry.storage.Storage`."""
        return await self._on_thread(self._log_edge)

    def _log_edge(self) -> Edge:
        with self._transaction("BEGIN") as reader:  # head and tiles of one commit, whoever else has the file open
            return sqlite_log.read_edge(reader)

    async def log_tile(self, level: int, index: int) -> bytes | None:
        """See :class:`registry.storage.Storage`."""
        return sqlite_log.read_tile(self._reader, level, index)

    async def log_entries(self, first: int, count: int) -> list[bytes]:
        """See :class:`registry.storage.Storage`."""
        return sqlite_log.read_entries(self._reader, first, count)

    async def log_note(self, size: int) -> bytes | None:
        """See :class:`registry.storage.Storage`."""
        return sqlite_log.read_note(self._reader, size)

    async def witnessed(self) -> bytes | None:
        """See :class:`registry.storage.Storage`."""
        return sqlite_log.read_witnessed(self._reader)

    async def put_witnessed(self, size: int, note: bytes) -> None:
        """See :class:`registry.storage.Storage`."""
        await self._on_thread(self._put_witnessed, size, note)

    def _put_witnessed(self, size: int, note: bytes) -> None:
        with self._transaction() as writer:
            sqlite_log.write_witnessed(writer, size, note)

    def _number(self, subjects: bytes) -> int:
        """Give the transaction its number, and let go of the commit that is now one too many."""
        seq = self._writer.execute("INSERT INTO change(subjects) VALUES (?)", (subjects,)).lastrowid
        assert seq is not None, "an insert has a row id"
        self._writer.execute("DELETE FROM change WHERE seq <= ?", (seq - self._changes_kept,))
        return seq

    async def put_pointers(self, mentions: Sequence[Mention]) -> list[Mention]:
        """See :class:`registry.storage.Storage`."""
        return await self._on_thread(self._put_pointers, mentions)

    def _put_pointers(self, mentions: Sequence[Mention]) -> list[Mention]:
        with self._transaction() as writer:
            if new := sqlite_pointers.write_pointers(writer, mentions):
                self._number(pack_subjects((), (), new))
            return new

    async def pointers(self, subject: str, after: Mention | None, most: int) -> list[Mention]:
        """See :class:`registry.storage.Storage`."""
        return await self._on_thread(lambda: sqlite_pointers.read_pointers(self._writer, subject, after, most))

    async def events(self, after_sequence: int, most: int) -> list[Recorded]:
        """See :class:`registry.storage.Storage`."""
        return await self._on_thread(lambda: sqlite_pointers.read_events(self._writer, after_sequence, most))

    async def events_between(
        self, start_ms: int, end_ms: int, after: tuple[int, str] | None, most: int
    ) -> list[Recorded]:
        """See :class:`registry.storage.Storage`."""
        read = sqlite_pointers.read_events_between
        return await self._on_thread(lambda: read(self._writer, start_ms, end_ms, after, most))

    async def deliveries(self, due_ms: int, most: int) -> list[Delivery]:
        """See :class:`registry.storage.Storage`."""
        return await self._on_thread(lambda: sqlite_pointers.read_deliveries(self._writer, due_ms, most))

    async def outbox(self, state: DeliveryState, most: int) -> list[Delivery]:
        """See :class:`registry.storage.Storage`."""
        return await self._on_thread(lambda: sqlite_pointers.read_outbox(self._writer, state, most))

    async def settle(self, tried: Sequence[Delivery]) -> None:
        """See :class:`registry.storage.Storage`."""
        await self._on_thread(self._settle, tried)

    def _settle(self, tried: Sequence[Delivery]) -> None:
        with self._transaction() as writer:
            sqlite_pointers.write_deliveries(writer, tried)

    async def sequence(self) -> int:
        """See :class:`registry.storage.Storage`."""
        return sqlite_rows.last_sequence(self._reader)

    async def changes(self, after: int, most: int) -> list[Change]:
        """See :class:`registry.storage.Storage`."""
        head = sqlite_rows.last_sequence(self._reader)
        if after > head:
            raise changes_gone(after, head)
        if after == head:
            return []  # asked four times a second, and mostly for nothing
        # A full batch would keep the loop for a millisecond.
        return await self._on_thread(lambda: sqlite_rows.read_changes(self._writer, after, most))

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

"""What a witness remembers, in one SQLite file: of each log the largest tree that it has cosigned.

The row is compared and replaced in one transaction that is on the disk (synchronous FULL) before anything is signed.
So whatever kills the witness, and whenever, it never cosigns a tree that does not continue what it has cosigned before.
The file belongs to one process: two would each keep the promise, and a copy of the file would not, so a second witness
on it is refused rather than waited for.
"""

from __future__ import annotations

import fcntl
import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from idtrace.errors import InputError, OutcomeUnknownError, Reason
from idtrace.note import Note
from idtrace.witnessing import Accepted, AddCheckpoint, Seen

# Each pair of signed checkpoints proves that the log forked, and the first one is enough; the rest show how often.
EVIDENCE_ROWS_MAX: Final = 64
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS seen(
    origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, note BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS evidence(
    origin TEXT NOT NULL, digest BLOB NOT NULL, seen_at INTEGER NOT NULL, cosigned BLOB NOT NULL,
    refused BLOB NOT NULL, PRIMARY KEY (origin, digest));
"""


class WitnessStore:
    """The file. Owned by one thread at a time; every call waits for the disk."""

    def __init__(self, path: Path) -> None:
        """Open the file, and make it where there is none.

        Raises:
            InputError: FIELD_MALFORMED (another witness runs on it, or it cannot be used).
        """
        try:
            self._lock = path.with_name(path.name + ".lock").open("ab")
        except OSError as error:
            detail = f"the state cannot be kept here: {error.strerror}"
            raise InputError(Reason.FIELD_MALFORMED, detail, field=str(path)) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released however the process ends
        except BlockingIOError:
            self._lock.close()
            raise InputError(Reason.FIELD_MALFORMED, "another witness runs on this file", field=str(path)) from None
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            if self._connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
                raise sqlite3.OperationalError("no write-ahead log on this file system")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            self.close()
            raise InputError(Reason.FIELD_MALFORMED, f"the state cannot be used: {error}", field=str(path)) from None

    def seen(self, origin: str) -> Seen:
        """The largest tree of this log that was cosigned.

        Raises:
            OutcomeUnknownError: OUTCOME_UNKNOWN (the disk fails); nothing may be signed. So do the other methods.
        """
        with self._translated():
            return self._seen(origin)

    def swap(self, accepted: Accepted) -> bool:
        """Replace ``before`` by ``after`` and have it on the disk; False if ``before`` is not what is there."""
        with self._transaction():
            if self._seen(accepted.origin) != accepted.before:
                return False
            if accepted.after != accepted.before:
                row = (accepted.origin, accepted.after.size, accepted.after.root, accepted.note.encode())
                self._connection.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)", row)
        return True

    def keep_evidence(self, request: AddCheckpoint, now: int) -> bool:
        """Keep two checkpoints of one size and two roots, both signed by the log; False where it was known."""
        origin, refused = request.checkpoint.origin, _by_log_alone(request).encode()
        digest = hashlib.sha256(request.checkpoint.text.encode()).digest()
        with self._transaction():
            count = self._connection.execute("SELECT count(*) FROM evidence WHERE origin = ?", (origin,)).fetchone()[0]
            (cosigned,) = self._connection.execute("SELECT note FROM seen WHERE origin = ?", (origin,)).fetchone()
            if count >= EVIDENCE_ROWS_MAX:
                return False
            row = (origin, digest, now, cosigned, refused)
            return self._connection.execute("INSERT OR IGNORE INTO evidence VALUES (?, ?, ?, ?, ?)", row).rowcount == 1

    def evidence(self, origin: str) -> list[tuple[Note, Note]]:
        """The pairs of signed checkpoints that show a fork of this log: what was cosigned, and what was refused."""
        query = "SELECT cosigned, refused FROM evidence WHERE origin = ? ORDER BY seen_at, digest"
        with self._translated():
            rows = self._connection.execute(query, (origin,)).fetchall()
        return [(Note.parse(cosigned), Note.parse(refused)) for cosigned, refused in rows]

    def sizes(self) -> dict[str, int]:
        """Size of the largest tree that was cosigned, by origin."""
        with self._translated():
            return dict(self._connection.execute("SELECT origin, size FROM seen ORDER BY origin").fetchall())

    def _seen(self, origin: str) -> Seen:
        row = self._connection.execute("SELECT size, root FROM seen WHERE origin = ?", (origin,)).fetchone()
        return Seen(*row) if row else Seen()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, f"the state cannot be read or kept: {error}") from None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it on the disk, or nothing and an error."""
        with self._translated():
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file and let another witness have it."""
        self._connection.close()
        self._lock.close()


def _by_log_alone(request: AddCheckpoint) -> Note:
    """The note as the log signed it: lines by strangers, of which anybody can add some, would make it another thing."""
    origin = request.checkpoint.origin
    return Note(request.note.text, tuple(line for line in request.note.signatures if line.name == origin))

"""What a witness remembers, in one SQLite file: of each log the largest tree that it has cosigned.

The row is compared and replaced in one transaction that is on the disk (synchronous FULL) before anything is signed.
So whatever kills the witness, and whenever, it never cosigns a tree that does not continue what it has cosigned before.
The file belongs to one process: two would each keep the promise, and a copy of the file would not, so a second witness
on it is refused rather than waited for.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from idtrace.errors import InputError, OutcomeUnknownError, Reason
from idtrace.note import Note
from idtrace.serving.lockfile import lock_file
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


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two checkpoints of one size and two roots, both signed by the log: it has forked.

    Attributes:
        origin: the log's name.
        seen_at: when the second one came, s since 1970.
        digest: of the second one's text, 32 bytes.
        cosigned: what the witness had cosigned.
        refused: what it has refused.
    """

    origin: str
    seen_at: int
    digest: bytes
    cosigned: Note
    refused: Note


class WitnessStore:
    """The file. Owned by one thread at a time; every call waits for the disk."""

    def __init__(self, path: Path) -> None:
        """Open the file, and make it where there is none.

        Raises:
            InputError: FIELD_MALFORMED (another witness runs on it, or it cannot be used).
        """
        lock = path.with_name(path.name + ".lock")
        self._lock = lock_file(lock, owner="another witness runs on this file", field=str(path))
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
        """Keep two checkpoints of one size and two roots, both signed by the log.

        Returns:
            False where it was known, or where the other checkpoint is no longer the last.
        """
        origin, refused = request.checkpoint.origin, _by_log_alone(request).encode()
        digest = hashlib.sha256(request.checkpoint.text.encode()).digest()
        with self._transaction():
            count = self._connection.execute("SELECT count(*) FROM evidence WHERE origin = ?", (origin,)).fetchone()[0]
            # Of a log that has grown since the request was judged, the checkpoint that contradicts it is gone.
            query = "SELECT note FROM seen WHERE origin = ? AND size = ? AND root <> ?"
            about = (origin, request.checkpoint.size, request.checkpoint.root)
            cosigned = self._connection.execute(query, about).fetchone()
            if cosigned is None or count >= EVIDENCE_ROWS_MAX:
                return False
            row = (origin, digest, now, *cosigned, refused)
            return self._connection.execute("INSERT OR IGNORE INTO evidence VALUES (?, ?, ?, ?, ?)", row).rowcount == 1

    def evidence(self, origin: str) -> list[tuple[Note, Note]]:
        """The pairs of signed checkpoints that show a fork of this log: what was cosigned, and what was refused."""
        with self._translated():
            return [(one.cosigned, one.refused) for one in _evidence(self._connection) if one.origin == origin]

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


def read_evidence(path: Path) -> list[Evidence]:
    """All evidence in a witness's file, also while the witness runs on it; nothing is written.

    Raises:
        InputError: FIELD_MALFORMED where there is no such file, or where it is none of a witness.
    """
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        with closing(connection):
            return _evidence(connection)
    except sqlite3.Error as error:
        raise InputError(Reason.FIELD_MALFORMED, f"the state cannot be read: {error}", field=str(path)) from None


def _evidence(connection: sqlite3.Connection) -> list[Evidence]:
    query = "SELECT origin, seen_at, digest, cosigned, refused FROM evidence ORDER BY origin, seen_at, digest"
    rows = connection.execute(query).fetchall()
    return [Evidence(row[0], row[1], row[2], Note.parse(row[3]), Note.parse(row[4])) for row in rows]


def _by_log_alone(request: AddCheckpoint) -> Note:
    """The note as the log signed it: lines by strangers, of which anybody can add some, would make it another thing."""
    origin = request.checkpoint.origin
    return Note(request.note.text, tuple(line for line in request.note.signatures if line.name == origin))

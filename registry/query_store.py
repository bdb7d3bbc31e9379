"""Stored queries (EPCIS 2.0, section 12.8) in a file of their own beside the node's store: durable, and bounded.

They are what this node's callers have named and no part of what is true, so on a store that several nodes share each
node has its own. A call takes a commit with fsync, a few milliseconds at most, and is rare.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from idtrace.errors import InputError, Reason, RefusedError
from registry.event_http_queries import QUERIES_MAX, StoredQuery

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS stored_query(
    name TEXT PRIMARY KEY, created_ms INTEGER NOT NULL, definition TEXT NOT NULL) WITHOUT ROWID;
"""


class QueryStore:
    """The file. Belongs to one thread."""

    def __init__(self, path: Path, clock_ms: Callable[[], int]) -> None:
        """Open the file, or make it where there is none.

        Raises:
            InputError: FIELD_MALFORMED where the file is no file of queries.
        """
        self._clock_ms = clock_ms
        self._db = sqlite3.connect(path, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise InputError(Reason.FIELD_MALFORMED, f"no file of stored queries: {error}", field=str(path)) from None

    def put(self, name: str, definition: str) -> StoredQuery:
        """Keep a new query, durably.

        Raises:
            RefusedError: QUERY_NAME_TAKEN, QUERIES_TOO_MANY.
        """
        stored = StoredQuery(name, self._clock_ms(), definition)
        ((count,),) = self._db.execute("SELECT count(*) FROM stored_query")
        if self._db.execute("SELECT 1 FROM stored_query WHERE name = ?", (name,)).fetchone() is not None:
            detail = f"there is a query {name} already; delete it first"
            raise RefusedError(Reason.QUERY_NAME_TAKEN, detail, field="name")
        if count >= QUERIES_MAX:
            detail = f"{QUERIES_MAX} queries are stored, and no more are; delete one first"
            raise RefusedError(Reason.QUERIES_TOO_MANY, detail, field="name")
        row = (stored.name, stored.created_ms, stored.definition)
        self._db.execute("INSERT INTO stored_query(name, created_ms, definition) VALUES (?, ?, ?)", row)
        return stored

    def get(self, name: str) -> StoredQuery:
        """A query by its name.

        Raises:
            RefusedError: QUERY_UNKNOWN.
        """
        found = self._db.execute("SELECT name, created_ms, definition FROM stored_query WHERE name = ?", (name,))
        row = found.fetchone()
        if row is None:
            raise _unknown()
        return StoredQuery(*row)

    def page(self, after: str, most: int) -> list[StoredQuery]:
        """Queries by name, those after one, at most so many."""
        rows = self._db.execute(
            "SELECT name, created_ms, definition FROM stored_query WHERE name > ? ORDER BY name LIMIT ?", (after, most)
        )
        return [StoredQuery(*row) for row in rows]

    def delete(self, name: str) -> None:
        """Forget a query, durably.

        Raises:
            RefusedError: QUERY_UNKNOWN.
        """
        if self._db.execute("DELETE FROM stored_query WHERE name = ?", (name,)).rowcount == 0:
            raise _unknown()

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _unknown() -> RefusedError:
    return RefusedError(Reason.QUERY_UNKNOWN, "there is no query of this name", field="name")

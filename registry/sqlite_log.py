"""The registry's log in the tables of the SQLite store; written inside the transaction of the batch that it logs."""

from __future__ import annotations

import sqlite3
from typing import Final

from idtrace.merkle import CompactRange
from registry.logbook import Appended, Edge, LogDraft, LogHead, Stamp

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS log_entry(idx INTEGER PRIMARY KEY, entry BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS log_tile(
    level INTEGER NOT NULL, place INTEGER NOT NULL, content BLOB NOT NULL, PRIMARY KEY (level, place));
CREATE TABLE IF NOT EXISTS log_head(
    one INTEGER PRIMARY KEY CHECK (one = 1), range BLOB NOT NULL, note BLOB NOT NULL, committed_at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS log_note(size INTEGER PRIMARY KEY, note BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS log_witnessed(
    one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, note BLOB NOT NULL);
"""


def read_edge(connection: sqlite3.Connection) -> Edge:
    """Head and partial tiles; call it inside a transaction, so that they are of one commit."""
    row = connection.execute("SELECT range, note, committed_at FROM log_head").fetchone()
    if row is None:
        return Edge()
    head = LogHead(CompactRange.decode(row[0]), row[1], row[2])
    tiles = {}
    for level, place in Edge.partial_tiles(head.size).items():
        tiles[level] = read_tile(connection, level, place) or b""
    return Edge(head, tiles)


def open_draft(connection: sqlite3.Connection, stamp: Stamp | None, known: Edge | None) -> LogDraft | None:
    """A draft on the log as this transaction sees it; what is known from the commit before saves reading it again.

    Raises:
        BusyError: CLOCK_BACK.
    """
    if stamp is None:
        return None
    row = connection.execute("SELECT note FROM log_head").fetchone()
    if known is None or known.head.note != (row[0] if row else b""):
        known = read_edge(connection)
    return stamp.writer.draft(known, stamp.now)


def write(connection: sqlite3.Connection, appended: Appended) -> None:
    """Put a finished draft beside the rows of its batch."""
    entries = enumerate(appended.entries, start=appended.first)
    connection.executemany("INSERT INTO log_entry VALUES (?, ?)", entries)
    tiles = ((tile.level, tile.index, tile.content) for tile in appended.tiles)
    connection.executemany("INSERT OR REPLACE INTO log_tile VALUES (?, ?, ?)", tiles)
    head = appended.edge.head
    connection.execute(
        "INSERT OR REPLACE INTO log_head VALUES (1, ?, ?, ?)", (head.range.encode(), head.note, head.committed_at)
    )
    connection.execute("INSERT INTO log_note VALUES (?, ?)", (head.size, head.note))


def read_tile(connection: sqlite3.Connection, level: int, place: int) -> bytes | None:
    """Content of a tile as wide as it now is."""
    query = "SELECT content FROM log_tile WHERE level = ? AND place = ?"
    row = connection.execute(query, (level, place)).fetchone()
    return row[0] if row else None


def read_entries(connection: sqlite3.Connection, first: int, count: int) -> list[bytes]:
    """Entries from an index on."""
    query = "SELECT entry FROM log_entry WHERE idx >= ? AND idx < ? ORDER BY idx"
    return [row[0] for row in connection.execute(query, (first, first + count))]


def read_note(connection: sqlite3.Connection, size: int) -> bytes | None:
    """The checkpoint that a commit has made."""
    row = connection.execute("SELECT note FROM log_note WHERE size = ?", (size,)).fetchone()
    return row[0] if row else None


def read_witnessed(connection: sqlite3.Connection) -> bytes | None:
    """The last checkpoint that enough witnesses have cosigned."""
    row = connection.execute("SELECT note FROM log_witnessed").fetchone()
    return row[0] if row else None


def write_witnessed(connection: sqlite3.Connection, size: int, note: bytes) -> None:
    """Keep a cosigned checkpoint unless a later one is kept."""
    connection.execute(
        "INSERT INTO log_witnessed VALUES (1, ?, ?) ON CONFLICT (one) DO UPDATE"
        " SET size = excluded.size, note = excluded.note WHERE excluded.size >= size",
        (size, note),
    )

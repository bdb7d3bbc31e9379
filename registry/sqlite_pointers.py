"""Pointers, the order of events and the outbox in the tables of the SQLite store; see :mod:`registry.sqlite_rows`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from registry.storage import (
    EVENTS_A_COMMIT,
    Delivery,
    DeliveryState,
    Mention,
    Recorded,
    Write,
    deliveries_of,
)

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS pointer(
    subject TEXT NOT NULL, time_ms INTEGER NOT NULL, event TEXT NOT NULL, role TEXT NOT NULL,
    PRIMARY KEY (subject, time_ms, event, role)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event(sequence INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, event TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS event_by_time ON event(time_ms, event);
CREATE TABLE IF NOT EXISTS outbox(
    subject TEXT NOT NULL, event TEXT NOT NULL, time_ms INTEGER NOT NULL, roles TEXT NOT NULL, state TEXT NOT NULL,
    attempts INTEGER NOT NULL, since_ms INTEGER NOT NULL, next_at_ms INTEGER NOT NULL, error TEXT NOT NULL,
    PRIMARY KEY (subject, event));
CREATE INDEX IF NOT EXISTS outbox_due ON outbox(state, next_at_ms);
"""
_DELIVERY: Final = "SELECT subject, event, time_ms, roles, state, attempts, since_ms, next_at_ms, error FROM outbox"


def write_events(writer: sqlite3.Connection, sequence: int, writes: Iterable[Write]) -> None:
    """Put beside the writes of commit ``sequence`` what their mentions ask for."""
    told = [write for write in writes if write.mentions]
    if not told:
        return
    assert len(told) <= EVENTS_A_COMMIT, "a batch has fewer"
    first = sequence * EVENTS_A_COMMIT
    writer.executemany(
        "INSERT INTO event VALUES (?, ?, ?)",
        [(first + n, write.mentions[0].time_ms, write.identifier) for n, write in enumerate(told)],
    )
    _insert(writer, (mention for write in told for mention in write.mentions))
    writer.executemany(
        "INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [_row(delivery) for write in told for delivery in deliveries_of(write)],
    )


def write_pointers(writer: sqlite3.Connection, mentions: Sequence[Mention]) -> list[Mention]:
    """Insert those that are not here yet, and tell which they were."""
    query = "SELECT 1 FROM pointer WHERE subject = ? AND time_ms = ? AND event = ? AND role = ?"
    new = [m for m in dict.fromkeys(mentions) if writer.execute(query, _pointer(m)).fetchone() is None]
    _insert(writer, new)
    return new


def _insert(writer: sqlite3.Connection, mentions: Iterable[Mention]) -> None:
    writer.executemany("INSERT OR IGNORE INTO pointer VALUES (?, ?, ?, ?)", map(_pointer, mentions))


def _pointer(mention: Mention) -> tuple[str, int, str, str]:
    return mention.subject, mention.time_ms, mention.event, mention.role


def read_pointers(connection: sqlite3.Connection, subject: str, after: Mention | None, most: int) -> list[Mention]:
    """See :meth:`registry.storage.Storage.pointers`."""
    query = "SELECT subject, time_ms, event, role FROM pointer WHERE subject = ?"
    order = " ORDER BY time_ms, event, role LIMIT ?"
    if after is None:
        return [Mention(*row) for row in connection.execute(query + order, (subject, most))]
    values = (subject, after.time_ms, after.event, after.role, most)
    return [
        Mention(*row) for row in connection.execute(f"{query} AND (time_ms, event, role) > (?, ?, ?){order}", values)
    ]


def read_events(connection: sqlite3.Connection, after_sequence: int, most: int) -> list[Recorded]:
    """See :meth:`registry.storage.Storage.events`."""
    query = "SELECT sequence, time_ms, event FROM event WHERE sequence > ? ORDER BY sequence LIMIT ?"
    return [Recorded(*row) for row in connection.execute(query, (after_sequence, most))]


def read_events_between(
    connection: sqlite3.Connection, start_ms: int, end_ms: int, after: tuple[int, str] | None, most: int
) -> list[Recorded]:
    """See :meth:`registry.storage.Storage.events_between`."""
    query = (
        "SELECT sequence, time_ms, event FROM event WHERE time_ms >= ? AND time_ms < ? AND (time_ms, event) > (?, ?)"
        " ORDER BY time_ms, event LIMIT ?"
    )
    at, name = after or (start_ms, "")
    return [Recorded(*row) for row in connection.execute(query, (start_ms, end_ms, at, name, most))]


def read_deliveries(connection: sqlite3.Connection, due_ms: int, most: int) -> list[Delivery]:
    """See :meth:`registry.storage.Storage.deliveries`."""
    query = f"{_DELIVERY} WHERE state = ? AND next_at_ms <= ? ORDER BY next_at_ms LIMIT ?"
    return [_delivery(row) for row in connection.execute(query, (DeliveryState.WAITING, due_ms, most))]


def read_outbox(connection: sqlite3.Connection, state: DeliveryState, most: int) -> list[Delivery]:
    """See :meth:`registry.storage.Storage.outbox`."""
    rows = connection.execute(f"{_DELIVERY} WHERE state = ? ORDER BY next_at_ms LIMIT ?", (state, most))
    return [_delivery(row) for row in rows]


def write_deliveries(writer: sqlite3.Connection, tried: Sequence[Delivery]) -> None:
    """See :meth:`registry.storage.Storage.settle`. One that another has done is not brought back."""
    done = [delivery.key for delivery in tried if delivery.state is DeliveryState.DONE]
    writer.executemany("DELETE FROM outbox WHERE subject = ? AND event = ?", done)
    writer.executemany(
        "UPDATE outbox SET state = ?, attempts = ?, since_ms = ?, next_at_ms = ?, error = ?"
        " WHERE subject = ? AND event = ?",
        [
            (d.state, d.attempts, d.since_ms, d.next_at_ms, d.error, *d.key)
            for d in tried
            if d.state is not DeliveryState.DONE
        ],
    )


def _row(delivery: Delivery) -> tuple[str | int, ...]:
    return (
        *delivery.key,
        delivery.time_ms,
        json.dumps(delivery.roles),
        delivery.state,
        delivery.attempts,
        delivery.since_ms,
        delivery.next_at_ms,
        delivery.error,
    )


def _delivery(row: Any) -> Delivery:
    subject, event, time_ms, roles, state, *rest = row
    return Delivery(subject, event, time_ms, tuple(json.loads(roles)), DeliveryState(state), *rest)

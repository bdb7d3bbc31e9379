"""Events in a store, as a node records them: real statements, their mentions, and a log whose clock the test holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from idtrace.epcis.uris import mentions
from idtrace.record import Record
from registry.logbook import LogWriter, Stamp
from registry.storage import Mention, Outcome, Storage, Write
from tests.capture_fixtures import bytes_of, event_of, event_record, identifier_of, observed
from tests.core_fixtures import NOW, ZONE
from tests.logged_fixtures import entry_of, log_signer
from tests.registry_fixtures import write_of

WRITER = LogWriter(log_signer())


def at(second: float) -> str:
    """An event time, so many seconds after noon."""
    return f"2026-07-22T12:{int(second) // 60:02d}:{second % 60:06.3f}Z"


def recorded(fields: dict[str, Any], *, now: int | None = NOW) -> Write:
    """The write of an event's record; its party has signed it at NOW."""
    data = bytes_of(fields)
    record: Record = event_record(ZONE, data, issued_at=NOW)
    name, event = str(identifier_of(record)), event_of(fields)
    write = write_of(record, f"key-{name[-24:]}", zone=ZONE)
    told = tuple(Mention(subject, event.time_ms, name, role) for subject, role in mentions(event))
    entry = None if now is None else replace(entry_of(record), committed_at=now)
    return replace(write, mentions=told, entry=entry)


async def keep(store: Storage, *events: dict[str, Any], now: int | None = NOW) -> list[str]:
    """Record events in one commit; their identifiers. ``now`` is the log's time (s), None for a node without a log."""
    writes = [recorded(fields, now=now) for fields in events]
    stamp = None if now is None else Stamp(WRITER, now)
    assert await store.commit(writes, stamp) == [Outcome.COMMITTED] * len(writes)
    return [write.identifier for write in writes]


async def keep_many(store: Storage, numbers: Sequence[int], **fields: Any) -> list[str]:
    """So many events of one second each, in one commit."""
    return await keep(store, *(observed(n, eventTime=at(n % 3600), **fields) for n in numbers))

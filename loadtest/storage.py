"""``python -m loadtest.storage``: how fast each engine takes batches of 2,000 first registrations, interleaved.

Three ways: SQLite in one file; Cassandra as the registry uses it (one lightweight transaction a batch); and, on the
same Cassandra, the obvious way, a lightweight transaction an identifier with its version and key written beside it.
The engines share the machine with their client, so read the ratios rather than the rates. With ``--log`` the registry's
two ways are also measured as they log what they take.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from idtrace.entry import Entry, EntryKind
from idtrace.identifier import Prefix
from idtrace.note import KeyType, NoteSigner
from idtrace.record import RecordKind, Status
from idtrace.signature import Signature
from loadtest.work import BATCH
from registry.cassandra_bridge import Bridge, each
from registry.cassandra_schema import change_schema, fingerprint, migrate
from registry.cassandra_settings import CassandraSettings
from registry.logbook import LogWriter, Stamp
from registry.storage import Head, Outcome, Storage, Write
from registry.storage_cassandra import CassandraStorage
from registry.storage_sqlite import SqliteStorage

# As a signed record with three short values and its receipt have them.
RECORD_BYTES: Final = 600
RECEIPT_BYTES: Final = 300
# An entry of the log is the signed body of its record, without the values, under a head of 170 bytes.
BODY_BYTES: Final = 350
LOGGED_AT: Final = 1_900_000_000
# In flight of the obvious way: 64 gave the most lightweight transactions a second.
OBVIOUS_IN_FLIGHT: Final = 64
_OBVIOUS_TABLE: Final = "CREATE TABLE IF NOT EXISTS bench_claim (identifier text PRIMARY KEY, record_hash blob)"
_OBVIOUS: Final = {
    "claim": "INSERT INTO bench_claim (identifier, record_hash) VALUES (?, ?) IF NOT EXISTS",
    "version": "INSERT INTO version (ledger, stem, bucket, identifier, version, record) VALUES (?, ?, 0, ?, 1, ?)",
    "key": "INSERT INTO idempotency (ledger, zone, stem, key, request_hash, receipt) VALUES (?, ?, ?, ?, ?, ?)",
}

Way = Callable[[Sequence[Write]], Awaitable[None]]


def _writes(run: str, number: int, count: int) -> list[Write]:
    """First versions of serials that follow each other, as a packing line makes them."""
    writes = []
    for n in range(count):
        name = f"88.118.8/{run}-{number:04d}-{n:06d}"
        digest = hashlib.sha256(name.encode()).digest()
        head = Head(1, digest, RecordKind.ITEM, Status.ACTIVE, LOGGED_AT)
        record, receipt = os.urandom(RECORD_BYTES), os.urandom(RECEIPT_BYTES)
        writes.append(Write(name, 0, head, record, "88.118.8", name[-32:], digest, receipt))
    return writes


def _logged(writes: Sequence[Write]) -> list[Write]:
    """The same with what each leaves in the log."""
    zone, by = Prefix.parse("88.118.8"), (Signature("00" * 16, "ed25519", os.urandom(64)),)
    return [replace(w, entry=Entry(EntryKind.RECORD, zone, LOGGED_AT, w.record[:BODY_BYTES], by)) for w in writes]


def _committing(storage: Storage, stamp: Stamp | None = None) -> Way:
    async def commit(writes: Sequence[Write]) -> None:
        # As the sequencer does: it reads, decides, and commits.
        await storage.heads([write.identifier for write in writes])
        await storage.earlier("88.118.8", [write.idempotency_key for write in writes])
        outcomes = await storage.commit(writes, stamp)
        if set(outcomes) != {Outcome.COMMITTED}:
            raise RuntimeError("the measurement is void: a first registration was not committed")

    return commit


async def _obvious(settings: CassandraSettings) -> tuple[Bridge, Way]:
    bridge = await Bridge.connect(settings)
    await bridge.use(settings.keyspace)
    await change_schema(bridge, _OBVIOUS_TABLE)
    prepared = await bridge.prepare(_OBVIOUS)

    async def one(write: Write) -> None:
        claim = (write.identifier, write.head.record_hash)
        if not (await bridge.once(prepared["claim"], claim, profile="swap"))[0].applied:
            raise RuntimeError("the measurement is void: an identifier was there already")
        await bridge.run(
            prepared["version"], (settings.ledger, write.identifier.encode(), write.identifier, write.record)
        )
        key = (
            settings.ledger,
            write.zone,
            write.idempotency_key.encode(),
            write.idempotency_key,
            write.request_hash,
            write.receipt,
        )
        await bridge.run(prepared["key"], key)

    async def commit(writes: Sequence[Write]) -> None:
        await each((one(write) for write in writes), OBVIOUS_IN_FLIGHT)

    return bridge, commit


async def _measure(settings: CassandraSettings, rounds: int, folder: Path, *, log: bool) -> dict[str, list[float]]:
    making = await Bridge.connect(settings)
    await migrate(making, settings, lambda _: None)
    await making.close()
    sqlite, cassandra = SqliteStorage(folder / "bench.sqlite3"), CassandraStorage(settings)
    await cassandra.open()
    bridge, obvious = await _obvious(settings)
    ways = {
        "SQLite": _committing(sqlite),
        "Cassandra, a swap a batch": _committing(cassandra),
        "Cassandra, a transaction an identifier": obvious,
    }
    stamp = Stamp(LogWriter(NoteSigner.from_seed("log.example/88.118.8", os.urandom(32), KeyType.ED25519)), LOGGED_AT)
    if log:
        ways |= {
            "SQLite, logged": _committing(sqlite, stamp),
            "Cassandra, a swap a batch, logged": _committing(cassandra, stamp),
        }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    try:
        for number in range(rounds + 1):
            for position, (name, commit) in enumerate(ways.items()):
                writes = _writes(f"{settings.ledger}-{position}", number, BATCH)
                if name.endswith(", logged"):
                    writes = _logged(writes)
                started = time.perf_counter()
                await commit(writes)
                if number:  # the first round warms caches and the server's compiler up
                    rates[name].append(BATCH / (time.perf_counter() - started))
    finally:
        await sqlite.close()
        await cassandra.close()
        await bridge.close()
    return rates


def main(
    contact_points: Annotated[list[str], typer.Argument(help="Addresses of a Cassandra for tests.")],
    *,
    port: Annotated[int, typer.Option(help="Of its native protocol.")] = 9042,
    copies: Annotated[int, typer.Option(help="Replication factor of the keyspace.", min=1, max=15)] = 1,
    datacenter: Annotated[str, typer.Option(help="Its data centre.")] = "datacenter1",
    rounds: Annotated[int, typer.Option(help="Counted rounds.", min=1, max=1_000)] = 5,
    log: Annotated[bool, typer.Option("--log", help="Also measure what the log costs.")] = False,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")] = None,
) -> None:
    """Measure commits of 2,000 registrations."""
    table: dict[str, object] = {
        "contact_points": contact_points,
        "port": port,
        "keyspace": f"idtrace_bench_{copies}_{fingerprint()}",
        "ledger": os.urandom(4).hex(),
        "datacenter": datacenter,
        "replication": {datacenter: copies},
    }
    with tempfile.TemporaryDirectory(prefix="idtrace-bench-") as folder:
        rates = asyncio.run(_measure(CassandraSettings.parse(table, Path(folder)), rounds, Path(folder), log=log))
    rows = [
        {
            "way": name,
            "median": round(statistics.median(values), 1),
            "low": round(min(values), 1),
            "high": round(max(values), 1),
            "unit": "registrations/s",
        }
        for name, values in rates.items()
    ]
    shown = Table("way", "median", "low", "high", "unit", title=f"batches of {BATCH:,}, all on the same cores")
    for row in rows:
        shown.add_row(str(row["way"]), *(f"{row[key]:,.0f}" for key in ("median", "low", "high")), str(row["unit"]))
    Console().print(shown)
    if json_out is not None:
        json_out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)

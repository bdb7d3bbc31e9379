"""A registry under load that is killed (SIGKILL) fifty times and started again on the same folder.

Nothing that was acknowledged may be lost or differ by a byte, nothing may be torn, and a repeated idempotency key gives
the receipt of the first time. A kill leaves the page cache alone: power cuts are synchronous=FULL's promise, not shown.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from idtrace import wire
from idtrace.chain import Context
from idtrace.identifier import Prefix
from idtrace.record import RecordBody
from idtrace.statements import Receipt
from registry.authority import verified
from registry.storage_sqlite import SqliteStorage
from tests.nodes import Nodes
from tests.under_fire import Client, Ledger, prepared, under_fire, version_of

KILLS = 50


@dataclass
class Found:
    """What the file holds after the last kill."""

    versions: int
    lost: list[str]
    torn: list[str]


async def examine(folder: Path, ledger: Ledger, nodes: Nodes) -> Found:
    """Compare the store with the ledger, and the store with itself."""
    file = folder / "root.data" / "registry.sqlite3"
    storage = SqliteStorage(file)
    lost, torn = [], []
    for key, (identifier, record) in ledger.sent.items():
        stored = await storage.record(identifier, version_of(record))
        known = (await storage.earlier("", [key])).get(key)
        whole = stored == wire.record_to_bytes(record) and known is not None
        if key in ledger.acked and not (whole and known is not None and known.receipt == ledger.acked[key]):
            lost.append(key)
        if key not in ledger.acked and not whole and known is not None:
            torn.append(key)
    await storage.close()
    with sqlite3.connect(file) as connection:
        rows = connection.execute(
            "SELECT identifier, version, record FROM version ORDER BY identifier, version"
        ).fetchall()
        heads = dict(connection.execute("SELECT identifier, version FROM head").fetchall())
        receipts = connection.execute("SELECT receipt FROM idempotency WHERE receipt != x''").fetchall()
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    torn += torn_versions(rows, heads, nodes)
    hashes = {wire.record_from_bytes(row[2]).hash for row in rows}
    receipted = {Receipt.parse(wire.signed_from_bytes(receipt).payload).record_hash for (receipt,) in receipts}
    if hashes != receipted or len(receipts) != len(rows):
        torn.append("receipts and records are not one to one")
    return Found(len(rows), lost, torn)


def torn_versions(rows: list[tuple[str, int, bytes]], heads: dict[str, int], nodes: Nodes) -> list[str]:
    """Identifiers whose records do not verify, or whose versions do not chain without a gap up to the head."""
    now = int(time.time())
    chain = verified(nodes.anchor, [nodes.delegations[""]], Context.at(now))
    assert chain.zone == Prefix(())
    torn, last, before = [], dict.fromkeys(heads, 0), dict.fromkeys(heads, b"")
    for identifier, version, stored in rows:
        record = wire.record_from_bytes(stored)
        body = chain.check_record(record, RecordBody.parse(record.signed.payload).identifier, Context.at(now)).body
        follows = (str(body.identifier), body.version, body.previous) == (identifier, version, before[identifier])
        if not follows or version != last[identifier] + 1:
            torn.append(f"{identifier} version {version}")
        last[identifier], before[identifier] = version, record.hash
    return torn + [name for name, version in heads.items() if last[name] != version]


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_nothing_acknowledged_is_lost_and_nothing_is_torn_by_fifty_kills(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    program, nodes = await prepared(tmp_path)
    ledger = Ledger()
    begun = time.monotonic()
    try:
        await under_fire(program, [Client(name, ledger) for name in "abcdef"], KILLS)
        acked = len(ledger.acked)
        found = await examine(tmp_path, ledger, nodes)
        await program.start()
        await Client("last", ledger).ask_again(program.endpoint)
    finally:
        await program.kill()
    after = await examine(tmp_path, ledger, nodes)
    seconds = time.monotonic() - begun
    counts = (
        f"kills {KILLS}, sent {len(ledger.sent)}, acked {acked}, stored {found.versions}, repeats {ledger.repeats}, "
        f"lost {len(found.lost) + len(after.lost)}, torn {len(found.torn) + len(after.torn)}, "
        f"changed receipts {len(ledger.changed)}, {seconds:.0f} s"
    )
    record_property("kill -9", counts)
    assert (found.lost, found.torn, after.lost, after.torn, ledger.changed) == ([], [], [], [], [])
    assert acked > 10 * KILLS
    assert found.versions >= acked
    assert seconds < 150

"""Witnesses are lost beyond the quorum while a node registers: what is witnessed is held, nothing else is lost."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from idtrace.checkpoint import Checkpoint
from idtrace.note import Note
from idtrace.record import Record
from registry.storage_sqlite import SqliteStorage
from tests.integration.test_logged_node import ZONE, Read, proven
from tests.integration.test_receipts import SEQUENCED, WITNESSED, Site, site

pytestmark = pytest.mark.slow
CLIENTS = 6
PHASE_SECONDS = 2.5


class Load:
    """Clients that register one identifier after the other; whatever was acknowledged is kept."""

    def __init__(self, here: Site) -> None:
        self.here = here
        self.acked: list[tuple[Record, Any]] = []
        self.slowest = 0.0
        self._ending = False

    async def client(self, name: int) -> None:
        number = 0
        while not self._ending:
            level = WITNESSED if number % 4 == 0 else SEQUENCED
            began = time.monotonic()
            self.acked.append(await self.here.register(f"L-{name}-{number}", level))
            self.slowest = max(self.slowest, time.monotonic() - began)
            number += 1

    def end(self) -> None:
        self._ending = True


async def kept(here: Site) -> Note:
    """The checkpoint that the node has published last, as it lies in its store."""
    store = SqliteStorage(here.nodes.of_zone[ZONE].config.data / "registry.sqlite3")
    try:
        note = await store.witnessed()
    finally:
        await store.close()
    assert note is not None
    return Note.parse(note)


def size(note: Note) -> int:
    return Checkpoint.parse(note.text).size


async def test_losing_the_quorum_under_load_holds_what_is_witnessed_and_loses_nothing(tmp_path: Path) -> None:
    async with site(tmp_path, wait=0.5) as here:
        load = Load(here)
        clients = [asyncio.create_task(load.client(n)) for n in range(CLIENTS)]
        await asyncio.sleep(PHASE_SECONDS)
        assert any(receipt.level == WITNESSED for _, receipt in load.acked)
        await here.down(2)
        await asyncio.sleep(0.5)  # what was on its way is there
        held, before = await kept(here), len(load.acked)
        await asyncio.sleep(PHASE_SECONDS)
        assert (await kept(here)).text == held.text, "one witness is no quorum"
        assert len(load.acked) > before, "registering goes on"
        assert {receipt.level for _, receipt in load.acked[before + CLIENTS :]} == {SEQUENCED}
        await here.up(2)
        async with asyncio.timeout(30.0):
            last = await kept(here)
            while size(last) <= size(held):
                await asyncio.sleep(0.1)
                last = await kept(here)
        load.end()
        await asyncio.gather(*clients)
        record, receipt = await here.register("last")
        assert receipt.level == WITNESSED
        read, last = await Read.of(here.nodes.of_zone[ZONE]), await kept(here)
        assert size(last) == len(read.entries), "it has caught up to the end"
        assert here.policy.witnessing(last, now=int(time.time())).met
        assert read.replay().findings == []
        for record, receipt in load.acked:
            proof = proven(receipt, record)
            assert read.entries[proof.index] == proof.head + record.signed.payload
            assert here.is_witnessed(receipt, record) == (receipt.level == WITNESSED)
        assert load.slowest < 10.0

"""Beside a store, all the time: finishes what a dead writer has committed and not applied, and sweeps up its leftovers.

A writer and a start settle their ledger before they decide anything. A node that only reads for hours does neither, and
would show half of a batch whose writer died among its rows. Here every node looks, whatever it does: where is the head
(a serial read, which also ends a swap that a dead coordinator has left open), and are its rows there?
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from registry.cassandra_batch import StagedBatchError
from registry.cassandra_ledger import Ledger

log = structlog.get_logger()

# Half a batch is seen for so long, and the time that a live writer is given. One read of one row each time, of a ring
# that does thousands a second.
SETTLE_EVERY_SECONDS: Final = 2.0
# Leftovers are a dead writer's one batch each: they cost room and nothing else, so they can wait a minute.
SWEEP_EVERY: Final = 30


class Settler:
    """One a store. ``busy`` is held by whoever commits: that one settles by itself."""

    def __init__(self, ledger: Ledger, busy: asyncio.Lock, settled: int) -> None:
        self._ledger = ledger
        self._busy = busy
        self._settled = settled

    async def run(self) -> None:
        """Look, until cancelled; what goes wrong is logged once, and once more when it has ended."""
        wrong, rounds = "", 0
        while True:
            await asyncio.sleep(SETTLE_EVERY_SECONDS)
            try:
                await self.settle()
                if rounds % SWEEP_EVERY == 0 and (swept := await self._ledger.sweep(self._settled)):
                    log.info("staged bytes of ended writers are gone", ledger=self._ledger.name, batches=swept)
                rounds += 1
            except Exception as error:  # noqa: BLE001 - a dead ring or a lost batch: readers go on, and so does this
                if wrong != type(error).__name__:
                    tell = log.critical if isinstance(error, StagedBatchError) else log.warning
                    text = f"{type(error).__name__}: {error}"
                    tell("the ledger cannot be settled", ledger=self._ledger.name, error=text)
                wrong = type(error).__name__
            else:
                if wrong:
                    log.info("the ledger can be settled again", ledger=self._ledger.name)
                wrong = ""

    async def settle(self) -> None:
        """Have the last batch applied, by whomever."""
        seq, behind = await self._ledger.behind(self._settled)
        if behind:
            async with self._busy:
                seq = await self._ledger.settle()
        self._settled = seq

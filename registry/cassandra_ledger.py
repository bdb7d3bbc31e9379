"""One ledger: its batches in order, each staged, made true by a swap of the head, and applied to the tables.

1. **Stage.** The batch's bytes are written under a random name, where nobody looks for them.
2. **Swap: the commit point.** A lightweight transaction moves the head from n to n + 1 and names the batch, if the head
   is still at n. An answer that is lost is asked after by a serial read; the same swap may be sent again, since it
   names the same batch. Where later batches have come, the history tells which was n + 1.
3. **Apply.** Rows are written at the time n + 1, the heads after all others and with them the history and what has
   changed, then how far has been applied: whoever hears of a change can read it. Whoever comes next and finds a batch
   that is not applied applies it first, so that nobody decides on half a batch.
4. **Drop.** The staged bytes go away with the next batch, or at the next start. What a writer has staged is announced
   in a row of its own, so that a sweep finds what it left behind if it dies: once the head has passed the place that a
   batch was for, its bytes are waste, whether it won or lost and whether its writer lives. No clock is asked, and no
   bytes expire: of a batch that is committed and not applied they are the only copy, however long all nodes are down.

The head is never written plainly, and no row of a batch by a lightweight transaction (CASSANDRA-13767). Servers should
run ``paxos_variant: v2`` (two round trips a swap instead of four).
"""

from __future__ import annotations

import asyncio
import random
import uuid
from typing import Any, Final

import structlog

from registry.cassandra_batch import Batch, StagedBatchError, chunks, pack, unpack
from registry.cassandra_bridge import Bridge, each, one_partition, told
from registry.cassandra_errors import PERMANENT
from registry.cassandra_pointers import COLUMNS as POINTER_COLUMNS
from registry.cassandra_pointers import pointer_rows
from registry.cassandra_rules import BATCHES_PER_BUCKET, Row, Standing, change_bucket, partitions, rows, standing
from registry.storage import pack_subjects

log = structlog.get_logger()

# A live writer applies its batch within this; only then does another do its work for it.
PATIENCE_SECONDS: Final = 0.4
_PAUSE_SECONDS: Final = 0.05

# A batch is staged under a name that is used once, so its bytes need no clock: written at 1, dropped at 2.
STATEMENTS: Final = {
    "create": "INSERT INTO ledger_head (ledger, seq, batch_id, chunks) VALUES (?, 0, ?, 0) IF NOT EXISTS",
    "head": "SELECT seq, batch_id, chunks FROM ledger_head WHERE ledger = ?",
    "swap": "UPDATE ledger_head SET seq = ?, batch_id = ?, chunks = ? WHERE ledger = ? IF seq = ?",
    "swap again": "UPDATE ledger_head SET seq = ?, batch_id = ?, chunks = ? WHERE ledger = ? IF seq = ?",
    "applied": "SELECT seq FROM ledger_applied WHERE ledger = ?",
    "apply": "INSERT INTO ledger_applied (ledger, seq) VALUES (?, ?) USING TIMESTAMP ?",
    "history": "SELECT batch_id FROM ledger_history WHERE ledger = ? AND bucket = ? AND seq = ?",
    "remember": "INSERT INTO ledger_history (ledger, bucket, seq, batch_id) VALUES (?, ?, ?, ?) USING TIMESTAMP ?",
    "tell": "INSERT INTO change (ledger, bucket, seq, subjects) VALUES (?, ?, ?, ?) USING TIMESTAMP ?",
    "stage": "INSERT INTO staged (ledger, batch_id, chunk, data) VALUES (?, ?, ?, ?) USING TIMESTAMP 1",
    "staged": "SELECT data FROM staged WHERE ledger = ? AND batch_id = ? AND chunk = ?",
    "unstage": "DELETE FROM staged USING TIMESTAMP 2 WHERE ledger = ? AND batch_id = ? AND chunk = ?",
    # Written and deleted at the time that the batch would have: a writer's next row outlives the end of its last one.
    "announce": "INSERT INTO staging (ledger, writer, after, batch_id, chunks) VALUES (?, ?, ?, ?, ?)"
    " USING TIMESTAMP ?",
    "announced": "SELECT writer, after, batch_id, chunks FROM staging WHERE ledger = ? LIMIT 100",
    "forget": "DELETE FROM staging USING TIMESTAMP ? WHERE ledger = ? AND writer = ?",
}
COLUMNS: Final = {
    "version": "ledger, stem, bucket, identifier, version, record, log_index",
    "head": "ledger, stem, identifier, version, record_hash, kind, status, issued_at",
    "idempotency": "ledger, zone, stem, key, request_hash, receipt",
    "claim": "ledger, class, field, digest, identifier",
    "occupied": "ledger, prefix",
    "granted": "ledger, bucket, prefix, status, hosted, comment, changed_at, version, delegation, application,"
    " enrolments",
    "chain": "ledger, zone, links",
    "log_entry": "ledger, bundle, idx, run",
    "log_tile": "ledger, level, place, content",
    "log_note": "ledger, bucket, size, note",
    "log_head": "ledger, range, note, committed_at",
} | POINTER_COLUMNS
_NO_BATCH: Final = uuid.UUID(int=0)


def row_statements() -> dict[str, str]:
    """An insert for each table, at a time of its own."""
    return {
        f"row {table}": f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(columns.split(',')))})"  # noqa: S608 - ours
        " USING TIMESTAMP ?"
        for table, columns in COLUMNS.items()
    }


class SwapUnknownError(Exception):
    """Nobody could be asked whether a batch has become true."""


class Ledger:
    """The order of a ledger's batches. Used by one task at a time."""

    def __init__(self, bridge: Bridge, prepared: dict[str, Any], name: str, settle_seconds: float) -> None:
        self.name = name
        self._bridge = bridge
        self._prepared = prepared
        self._settle_seconds = settle_seconds
        self._done: list[tuple[uuid.UUID, int]] = []  # staged, and not needed any more
        self._writer = uuid.uuid4()  # another one after each batch whose end is not known: its row is for the sweep

    async def settle(self) -> int:
        """The number of the last batch, once it is applied by whomever; how every start and every retry begins."""
        seq, batch_id, count = await self._head()
        if seq == 0:
            return 0
        waited = 0.0
        while await self._applied() < seq:
            if waited < PATIENCE_SECONDS:
                await asyncio.sleep(_PAUSE_SECONDS)
                waited += _PAUSE_SECONDS
                continue
            batch = await self._staged(batch_id, count)
            if batch is not None:
                log.info("finishing a batch that was committed and not applied", ledger=self.name, seq=seq)
                await self.apply(seq, batch_id, batch)
            elif await self._applied() < seq:
                raise StagedBatchError(f"batch {seq} of ledger {self.name} is committed, and its bytes are gone")
        self._done.append((batch_id, count))
        return seq

    async def behind(self, settled: int) -> tuple[int, bool]:
        """The number of the last batch, and whether it is not applied yet; ``settled`` is known to be."""
        seq, _, _ = await self._head()
        return seq, seq > settled and await self._applied() < seq

    async def sweep(self, settled: int) -> int:
        """Delete what writers have left behind that was for a place up to ``settled``, and tell how much it was."""
        found = await self._bridge.run(self._prepared["announced"], (self.name,))
        left = [row for row in found if row.after < settled and row.writer != self._writer]
        for row in left:
            if await self._drop(row.batch_id, row.chunks):
                await self._bridge.run(self._prepared["forget"], (row.after + 1, self.name, row.writer))
        return len(left)

    async def unchanged(self, seq: int) -> bool:
        """Whether this batch still is the last one."""
        return (await self._head())[0] == seq

    async def commit(self, after: int, batch: Batch) -> bool:
        """Make a batch the one after ``after``, and apply it; False if another one has come first.

        Raises:
            BusyError: NO_ANSWER before the swap was sent.
            SwapUnknownError: nobody answered in time.
            Exception: the driver's; the batch may have become true.
        """
        pieces = chunks(pack(batch))
        batch_id = uuid.uuid4()
        done, self._done = self._done, []
        announced = (self.name, self._writer, after, batch_id, len(pieces), after + 1)
        try:
            staging = [
                self._bridge.run(self._prepared["announce"], announced),
                *(self._stage(batch_id, number, data) for number, data in enumerate(pieces)),
                *(self._drop(old, count) for old, count in done),
            ]
            await told(each(staging))
            won = await self._swap(after, batch_id, len(pieces))
            if won:
                await self.apply(after + 1, batch_id, batch)
        except BaseException:
            self._done += done
            self._writer = uuid.uuid4()
            raise
        self._done.append((batch_id, len(pieces)))
        return won

    async def apply(self, seq: int, batch_id: uuid.UUID, batch: Batch) -> None:
        """Write a batch's rows; doing it twice, at once or late, does it once."""
        first, *sooner, last = rows(self.name, batch)
        first += pointer_rows(self.name, seq, batch)
        for wave in (first, *sooner):
            await each(self._write(group, seq) for group in partitions(wave))
        place = (self.name, seq // BATCHES_PER_BUCKET, seq, batch_id, seq)
        remember = self._bridge.run(self._prepared["remember"], place)
        subjects = pack_subjects(batch.writes, (granted.grant for granted in batch.grants), batch.pointers)
        tell = self._bridge.run(self._prepared["tell"], (self.name, change_bucket(seq), seq, subjects, seq))
        await each([remember, tell, *(self._write(group, seq) for group in partitions(last))])
        await self._bridge.run(self._prepared["apply"], (self.name, seq, seq))

    async def _write(self, group: list[Row], seq: int) -> None:
        statement = self._prepared[f"row {group[0].table}"]
        values = [(*row.partition, *row.rest, seq) for row in group]
        if len(values) == 1:
            await self._bridge.run(statement, values[0])
        else:
            await self._bridge.run(one_partition((statement, row) for row in values))

    async def _swap(self, after: int, batch_id: uuid.UUID, count: int) -> bool:
        """The commit point."""
        values = (after + 1, batch_id, count, self.name, after)
        deadline = asyncio.get_running_loop().time() + self._settle_seconds
        profile = "swap"
        while True:
            try:
                if (await self._bridge.once(self._prepared[profile], values, profile=profile))[0].applied:
                    return True
            except PERMANENT:
                raise
            except Exception as error:  # noqa: BLE001 - whatever the driver raises: the swap may have happened
                log.warning("the answer to a swap was lost", ledger=self.name, error=type(error).__name__)
            match standing(batch_id.bytes, after, await self._ask(deadline)):
                case Standing.WON:
                    return True
                case Standing.LOST:
                    return False
                case Standing.PASSED:
                    return await self._came_at(after + 1) == batch_id
                case Standing.OPEN:
                    _within(deadline)
                    profile = "swap again"
                    await asyncio.sleep(_PAUSE_SECONDS)

    async def _ask(self, deadline: float) -> tuple[int, bytes]:
        """The head, read serially, asked for until the deadline: this read finishes or ends what was under way."""
        while True:
            try:
                seq, batch_id, _ = await self._head(tries=1)
            except PERMANENT:
                raise
            except Exception as error:  # noqa: BLE001 - no answer: there may be one later
                _within(deadline, error)
                await asyncio.sleep(_PAUSE_SECONDS * (1 + random.random()))  # noqa: S311 - spreads tries, no secret
            else:
                return seq, batch_id.bytes

    async def _head(self, tries: int = 3) -> tuple[int, uuid.UUID, int]:
        """The head, read serially; made where there is none."""
        ask = self._bridge.run if tries > 1 else self._bridge.once
        found = await ask(self._prepared["head"], (self.name,), profile="serial")
        if not found:
            await self._bridge.once(self._prepared["create"], (self.name, _NO_BATCH), profile="swap")
            return 0, _NO_BATCH, 0
        return found[0].seq, found[0].batch_id, found[0].chunks

    async def _applied(self) -> int:
        found = await self._bridge.run(self._prepared["applied"], (self.name,))
        return int(found[0].seq) if found else 0

    async def _came_at(self, seq: int) -> uuid.UUID:
        values = (self.name, seq // BATCHES_PER_BUCKET, seq)
        found = await self._bridge.run(self._prepared["history"], values)
        batch_id: uuid.UUID = found[0].batch_id  # applied, and so remembered, before the batch after it was swapped
        return batch_id

    async def _staged(self, batch_id: uuid.UUID, count: int) -> Batch | None:
        """A staged batch; None where a piece is gone, because another has applied it in between."""
        select = self._prepared["staged"]
        found = await each(self._bridge.run(select, (self.name, batch_id, number)) for number in range(count))
        return unpack(b"".join(piece[0].data for piece in found)) if all(found) else None

    async def _stage(self, batch_id: uuid.UUID, number: int, data: bytes) -> None:
        await self._bridge.run(self._prepared["stage"], (self.name, batch_id, number, data))

    async def _drop(self, batch_id: uuid.UUID, count: int) -> bool:
        """Whether the bytes are gone; where they are not, nobody looks for them but a sweep."""
        try:
            await each(
                self._bridge.run(self._prepared["unstage"], (self.name, batch_id, number)) for number in range(count)
            )
        except Exception as error:  # noqa: BLE001 - the batch is applied or lost; its bytes are waste
            log.warning("staged bytes stay behind", ledger=self.name, batch=str(batch_id), error=type(error).__name__)
            return False
        return True


def _within(deadline: float, error: Exception | None = None) -> None:
    if asyncio.get_running_loop().time() >= deadline:
        raise SwapUnknownError("nobody has told whether the batch was committed") from error

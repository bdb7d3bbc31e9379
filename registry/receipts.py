"""Receipts as they are handed out: the node's signed word, the proof beside it, and how much stands behind both.

*Sequenced*: the proof is under the checkpoint of the record's own commit, the same bytes whenever it is asked for.
*Witnessed*: it is under the latest checkpoint that a quorum of the node's policy has cosigned, if that one covers the
record. Whoever asks for it waits until there is one, within three bounds: the call's deadline less what it takes to
answer, the node's own bound (``witness_wait_seconds``), and how many may wait at once. Where a bound is reached the
receipt is a sequenced one, in time and durable as ever; a repetition with the same key finds what has come since.
While the zone's delegation does not name this node's log, a proof convinces only who knows the log's key otherwise, and
the receipt has no level.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from idtrace import wire
from idtrace.errors import InputError, Reason
from idtrace.statements import Receipt
from idtrace.v1 import record_pb2 as pb
from registry.standing import Standing
from registry.witnesses import Witnesses

SEQUENCED: Final = pb.RECEIPT_LEVEL_SEQUENCED
WITNESSED: Final = pb.RECEIPT_LEVEL_WITNESSED
# To prove a receipt takes about 0.1 ms and its answer has to travel; on a machine that is ten times slower it holds.
ANSWER_SECONDS: Final = 0.25
ANSWER_SECONDS_ITEM: Final = 0.001
# Receipts are proven this many at a time between looks at the loop, which delays a reader by a few ms at most.
PROVEN_AT_ONCE: Final = 16


def check_level(wait_for: int) -> None:
    """Refuse a level that this node does not know, before anything is committed.

    Raises:
        InputError: FIELD_MALFORMED.
    """
    if wait_for not in pb.ReceiptLevel.values():
        raise InputError(Reason.FIELD_MALFORMED, f"there is no receipt level {wait_for}", field="wait_for")


class Receipts:
    """Hands out the receipts of one node. Belongs to one event loop.

    Args:
        standing: proofs, where the node keeps a log.
        witnesses: where its log has a policy; without them no receipt is more than sequenced.
        wait_seconds: how long one call waits for them at most.
        waiting_max: how many calls may wait at once; beyond it a call is answered as if its time were over.
    """

    def __init__(
        self, standing: Standing | None, witnesses: Witnesses | None, *, wait_seconds: float, waiting_max: int
    ) -> None:
        self._standing = standing
        self._witnesses = witnesses
        self._wait_seconds = wait_seconds
        self._waiting_max = waiting_max
        self.waiting = 0

    async def of(self, signed: Sequence[bytes], wait_for: int, due: float) -> list[pb.Receipt]:
        """Receipts with their proofs, in order; they wait once, for the last of them.

        Args:
            signed: receipts as they are stored.
            wait_for: the level asked for.
            due: tick of the loop at which the call has to be answered.
        """
        messages = [pb.Receipt(signed=pb.Signed.FromString(one)) for one in signed]
        standing = self._standing
        if standing is None:
            return messages
        indexes, named = [], []
        for message in messages:
            said = Receipt.parse(message.signed.payload)
            named.append(standing.is_log_of(said.zone))
            indexes.append(await standing.index_of(said.identifier, said.version))
        logged = [index for index in indexes if index is not None]
        if wait_for == WITNESSED and logged:
            await self.wait(max(logged), due, len(logged))
        for position, (message, index) in enumerate(zip(messages, indexes, strict=True)):
            if index is not None:
                seen = self.witnessed(index) if wait_for == WITNESSED else None
                size, note = seen or await standing.commit_of(index)
                message.proof.CopyFrom(wire.proof_to_pb(await standing.proof_under(index, size, note)))
                if named[position]:
                    message.level = WITNESSED if seen else SEQUENCED
            if position % PROVEN_AT_ONCE == 0:
                await asyncio.sleep(0)
        return messages

    def witnessed(self, index: int) -> tuple[int, bytes] | None:
        """Size and note of the latest witnessed checkpoint, if it covers an entry and is by the log's present key."""
        if self._witnesses is None or self._standing is None or self._witnesses.size <= index:
            return None
        note = self._witnesses.note
        return (self._witnesses.size, note) if self._standing.is_ours(note) else None

    async def wait(self, index: int, due: float, items: int = 1) -> None:
        """Wait until an entry is covered by a witnessed checkpoint, or until a bound is reached."""
        if self._witnesses is None or self.witnessed(index) is not None or self.waiting >= self._waiting_max:
            return
        left = due - asyncio.get_running_loop().time() - ANSWER_SECONDS - items * ANSWER_SECONDS_ITEM
        seconds = min(left, self._wait_seconds)
        if seconds <= 0:
            return
        self.waiting += 1
        try:
            await self._witnesses.until(index + 1, seconds)
        finally:
            self.waiting -= 1

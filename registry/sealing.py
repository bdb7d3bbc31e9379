"""Registration under a batch seal: one signature for up to 2,000 records, one commit, and a result for each of them.

1. The seal is checked once, against the zone's record keys and the bodies as sent; what fails here fails the call.
2. Each record is then taken or refused alone. A second one about the same identifier is refused, and so is one whose
   class comes in the same batch: all of them are decided by what was there before.
3. The sequencer commits those that are left at once and alone; refused are at most as many as the log can name.

A repetition (same key, same bytes) gives the same results: idempotency key and place make a key for each record. What
was refused before stays refused, for the reason that it has today; should it have none any more, for SEAL_CLOSED.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from idtrace import wire
from idtrace.canonical import BODY_BYTES_MAX
from idtrace.errors import (
    BusyError,
    IdtraceError,
    InputError,
    OutcomeUnknownError,
    Reason,
    RefusedError,
    VerificationError,
)
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Record, peek_identifier
from idtrace.seal import Seal
from idtrace.serving.errors import item_error
from idtrace.signature import Kind, Signed
from idtrace.v1 import record_pb2 as pb
from idtrace.v1 import registry_pb2
from registry.admission import Proposal
from registry.authority import Authority
from registry.intake import Batch, OpenedBatch, Taking, open_sealed
from registry.logbook import require_few_absent
from registry.receipts import SEQUENCED, WITNESSED, Receipts, check_level
from registry.reporters import Reporters
from registry.sequencer import BATCH_MAX, Result, Sequencer, rolled_back
from registry.standing import Standing
from registry.storage import Storage

# Records are checked so many, or so many bytes of bodies, at a time between looks at the loop, which delays a reader by
# ~4 ms with usual records; a body of the largest size takes as long alone.
CHECKED_AT_ONCE: Final = 128
CHECKED_BYTES_AT_ONCE: Final = 65_536
# An event has to be read and written again as well, which takes as long as to check so many bytes of a body.
EVENT_BYTES: Final = CHECKED_BYTES_AT_ONCE // 8
_RECORD_TYPE: Final = Kind.RECORD.payload_type
# Results that are the whole call's, and not one record's.
_OF_ALL: Final = frozenset({Reason.SEAL_REFUSED, Reason.IDEMPOTENCY_KEY_REUSED})
# What is there already is no fault of an event's.
_THERE: Final = Reason.IDENTIFIER_TAKEN


class Sealing:
    """Takes sealed batches for one node. Belongs to one event loop."""

    def __init__(
        self,
        storage: Storage,
        authority: Authority,
        sequencer: Sequencer,
        clock: Callable[[], int],
        standing: Standing | None,
        *,
        receipts: Receipts,
        reporters: Reporters,
    ) -> None:
        self._reporters = reporters
        self._storage = storage
        self._authority = authority
        self._sequencer = sequencer
        self._clock = clock
        self._standing = standing  # where the node keeps a log
        self._receipts = receipts

    async def register(
        self, request: registry_pb2.RegisterSealedRequest, due: float
    ) -> registry_pb2.RegisterSealedResponse:
        """Register a batch; see ``RegisterSealed`` of the contract. ``due``: tick at which it has to be answered.

        Raises:
            InputError: BATCH_TOO_LARGE, or the key or the seal is malformed.
            VerificationError: the seal is not genuine, or not over these records.
            RefusedError: SEAL_REFUSED, IDEMPOTENCY_KEY_REUSED, or the zone takes no writes here.
            BusyError: OVERLOADED, SHUTTING_DOWN or CLOCK_BACK.
            OutcomeUnknownError: repeat the call with the same key.
        """
        return await self.respond(await self.decide(request), request, due)

    async def decide(self, request: registry_pb2.RegisterSealedRequest, *, whole: bool = False) -> list[Result]:
        """What becomes of each record: b"" where it is committed, or why it is not.

        Args:
            request: the batch.
            whole: events of one document, of which all are kept or none (:meth:`Sequencer.submit_whole`).

        Raises:
            As :meth:`register`.
        """
        items = request.items
        check_level(request.wait_for)
        if not 0 < len(items) <= BATCH_MAX:
            detail = f"a batch has 1 to {BATCH_MAX} items, this one {len(items)}"
            raise InputError(Reason.BATCH_TOO_LARGE, detail, field="items")
        seal = wire.signed_from_pb(request.seal, "seal")
        sent = request.seal.SerializeToString(deterministic=True)
        batch = await asyncio.to_thread(Batch.of, request.idempotency_key, seal, [i.payload for i in items], sent)
        hashes = [batch.item_hash(item.SerializeToString(deterministic=True)) for item in items]
        try:
            opened = open_sealed(batch, authority=self._authority, now=self._clock())
        except (RefusedError, VerificationError) as error:
            # A prefix that was disabled since, or a key that was rotated away, does not undo what was committed.
            known, _ = await self._known(batch, Seal.parse(seal.payload).zone, hashes)
            if not known:
                raise
            return [b"" if position in known else error for position in range(len(items))]
        known, is_reused = await self._known(batch, opened.zone, hashes)
        if is_reused:
            detail = "this key was used for another batch"
            raise RefusedError(Reason.IDEMPOTENCY_KEY_REUSED, detail, field="idempotency_key")
        return await self._results(opened, items, hashes, known, whole=whole)

    async def _known(self, batch: Batch, zone: Prefix, hashes: Sequence[bytes]) -> tuple[frozenset[int], bool]:
        """Places that an earlier call with this key and these bytes has committed; and whether another has used it."""
        keys = {batch.item_key(position): position for position in range(len(hashes))}
        earlier = await self._storage.earlier(str(zone), list(keys))
        same = {keys[key] for key, answered in earlier.items() if answered.request_hash == hashes[keys[key]]}
        return frozenset(same), len(same) < len(earlier)

    async def _results(
        self,
        opened: OpenedBatch,
        items: Sequence[registry_pb2.SealedItem],
        hashes: Sequence[bytes],
        known: frozenset[int],
        *,
        whole: bool,
    ) -> list[Result]:
        """b"" for each record that is committed, or why it is not."""
        taken: dict[int, Proposal] = {}
        results: dict[int, Result] = dict.fromkeys(known, b"")
        seen: set[Identifier] = set()
        taking = Taking(opened, self._authority, self._clock())
        spent_bytes = 0
        for position, item in enumerate(items):
            spent_bytes += len(item.payload)
            if position % CHECKED_AT_ONCE == 0 or spent_bytes > CHECKED_BYTES_AT_ONCE:
                spent_bytes = 0
                await asyncio.sleep(0)
                taking = Taking(opened, self._authority, self._clock())
            if position in known:
                continue
            try:
                record = _record(item, opened, position)
                proposal = taking.take(record, hashes[position])
                _require_first(proposal.body.identifier, seen)
            except IdtraceError as error:
                results[position] = error
            else:
                taken[position] = proposal
                spent_bytes += EVENT_BYTES if proposal.event else 0
        results |= await self._unreportable(taken)
        if whole and any(isinstance(one, IdtraceError) and one.reason is not _THERE for one in results.values()):
            results |= {position: rolled_back() for position in taken if position not in results}
        left = {position: proposal for position, proposal in taken.items() if position not in results}
        if left:
            decided = await self._sequencer.submit_sealed(list(left.values()), closed=bool(known), whole=whole)
            results.update(zip(left, decided, strict=True))
        return _of_each(results)

    async def _unreportable(self, taken: Mapping[int, Proposal]) -> dict[int, Result]:
        """Of the events among them those that their party may not report, and why."""
        results: dict[int, Result] = {}
        for position, proposal in taken.items():
            try:
                await self._reporters.check(proposal)
            except IdtraceError as error:
                results[position] = error
        return results

    async def respond(
        self, results: Sequence[Result], request: registry_pb2.RegisterSealedRequest, due: float
    ) -> registry_pb2.RegisterSealedResponse:
        """What a caller is told; positions are those of the commit, in which the records stand one after the other."""
        committed = [position for position, result in enumerate(results) if not isinstance(result, IdtraceError)]
        first, checkpoint = await self._logged([request.items[position].payload for position in committed])
        zone = Seal.parse(request.seal.payload).zone
        named = bool(checkpoint) and self._standing is not None and self._standing.is_log_of(zone)
        level = SEQUENCED if named else pb.RECEIPT_LEVEL_UNSPECIFIED
        if named and request.wait_for == WITNESSED:
            last = first + len(committed) - 2  # positions begin with 1
            await self._receipts.wait(last, due)
            if seen := self._receipts.witnessed(last):
                level, checkpoint = WITNESSED, seen[1]
        at = {position: first + n if checkpoint else 0 for n, position in enumerate(committed)}
        told = [_result(result, at.get(position, 0)) for position, result in enumerate(results)]
        return registry_pb2.RegisterSealedResponse(results=told, checkpoint=checkpoint, level=level)

    async def _logged(self, payloads: Sequence[bytes]) -> tuple[int, bytes]:
        """Log position of the first of these records and the checkpoint of their commit; without a log 0 and b""."""
        if self._standing is None or not payloads:
            return 0, b""
        ends = [await self._storage.stored(str(peek_identifier(payloads[n])), 1) for n in (0, -1)]
        first, last = (stored.index if stored else None for stored in ends)
        if first is None or last is None:  # the node has begun its log since
            return 0, b""
        assert last - first == len(payloads) - 1, "one commit, and nothing between its records"
        _, checkpoint = await self._standing.commit_of(last)
        return first + 1, checkpoint


def _record(item: registry_pb2.SealedItem, opened: OpenedBatch, position: int) -> Record:
    field, payload = f"items[{position}]", item.payload
    if not 0 < len(payload) <= BODY_BYTES_MAX:
        rule = f"a body has 1 to {BODY_BYTES_MAX} bytes"
        raise InputError(Reason.FIELD_TOO_LARGE if payload else Reason.FIELD_MISSING, rule, field=f"{field}.payload")
    values = wire.values_from_pb(item.values, f"{field}.values")
    return Record(Signed(_RECORD_TYPE, payload, ()), values, opened.places[position])


def _require_first(identifier: Identifier, seen: set[Identifier]) -> None:
    if identifier in seen:
        detail = f"{identifier} stands in the batch before"
        raise RefusedError(Reason.IDENTIFIER_TAKEN, detail, field="record.identifier")
    seen.add(identifier)


def _of_each(results: Mapping[int, Result]) -> list[Result]:
    """Results in their order.

    Raises:
        RefusedError, BusyError, OutcomeUnknownError: where that is the result of all.
    """
    for result in results.values():
        if isinstance(result, BusyError | OutcomeUnknownError):
            raise result
        if isinstance(result, RefusedError) and result.reason in _OF_ALL:
            raise result
    require_few_absent(sum(isinstance(result, IdtraceError) for result in results.values()))
    return [results[position] for position in range(len(results))]


def _result(result: Result, log_position: int) -> registry_pb2.RegisterSealedResult:
    if not isinstance(result, IdtraceError):
        return registry_pb2.RegisterSealedResult(log_position=log_position)
    code, reason, field, detail = item_error(result)
    return registry_pb2.RegisterSealedResult(
        error=registry_pb2.ItemError(code=code, reason=reason, field=field, detail=detail)
    )

"""The one loop that commits: it gathers what has been proposed, decides, commits once, and only then answers.

The commit point is :meth:`Storage.commit` returning. Before it a proposal can be retried freely; after it the receipt
is durable and the same for ever. If commit raises, nobody knows: every caller of the batch is told so, the store is
reopened, and their idempotency keys will tell them what happened. Recovery is the ordinary start.

While one batch is on its way to the disk the next one gathers by itself, so batches grow with load (group commit) and
a lone write waits for nobody. A batch never holds two proposals that depend on each other (same identifier, same key,
or a class and what names it): the later one waits for the next batch and then sees the truth.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import structlog

from idtrace import wire
from idtrace.errors import BusyError, IdtraceError, OutcomeUnknownError, Reason, RefusedError
from idtrace.identifier import Identifier, Prefix
from idtrace.record import RecordBody, RecordKind
from idtrace.signature import Kind, Signer, sign
from idtrace.statements import Receipt
from idtrace.template import CLASS_DEPTH_MAX
from registry.admission import Admitted, ClassRecord, Proposal, Repeated, admit, complete, repeated
from registry.storage import Earlier, Head, Outcome, Storage, Write

log = structlog.get_logger(__name__)

# One client batch; a larger transaction only delays those who wait behind it (2,000 rows commit in ~40 ms).
BATCH_MAX: Final = 2_000
# Ten full batches wait at most; beyond that callers are told to come back (back-pressure instead of memory).
POOL_MAX: Final = 20_000

Result = bytes | IdtraceError


@dataclass(slots=True)
class _Waiting:
    """Proposals of one call and where their results go. Owned by the event loop's thread."""

    proposals: Sequence[Proposal]
    results: list[Result | None]
    done: asyncio.Future[None] = field(repr=False)


class Sequencer:
    """Owns the right to commit. One a store; two on one store are safe and slow (CONFLICT)."""

    def __init__(self, storage: Storage, signer: Signer, clock: Callable[[], int]) -> None:
        self._storage = storage
        self._signer = signer
        self._clock = clock
        self._pool: deque[tuple[_Waiting, int]] = deque()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sequencer")
        self._closing = False
        self._reopen = False  # the last commit has raised
        self.batches = 0
        self.committed = 0

    async def submit(self, proposals: Sequence[Proposal]) -> list[Result]:
        """Receipt bytes or a typed error for each proposal, in order, once its batch is durable.

        Raises:
            BusyError: OVERLOADED (nothing of this call was taken) or SHUTTING_DOWN.
        """
        if self._closing:
            raise BusyError(Reason.SHUTTING_DOWN, "the node is stopping")
        if len(self._pool) + len(proposals) > POOL_MAX:
            raise BusyError(Reason.OVERLOADED, f"{len(self._pool)} registrations are waiting; try again")
        waiting = _Waiting(proposals, [None] * len(proposals), asyncio.get_running_loop().create_future())
        self._pool.extend((waiting, position) for position in range(len(proposals)))
        self._wake.set()
        if proposals:
            await asyncio.shield(waiting.done)  # a caller that gives up does not undo what may be committed
        return [result for result in waiting.results if result is not None]

    async def run(self) -> None:
        """Commit until :meth:`close`; what was submitted before is still answered."""
        loop = asyncio.get_running_loop()
        while self._pool or not self._closing:
            if not self._pool:
                self._wake.clear()
                await self._wake.wait()
                continue
            taken = self._gather()
            proposals = [waiting.proposals[position] for waiting, position in taken]
            try:
                results = await loop.run_in_executor(self._thread, self._commit, proposals)
            except Exception as error:  # whatever the engine raises: the outcome is unknown
                log.exception("commit failed", batch=len(proposals))
                self._reopen = True
                results = [_unknown(error) for _ in proposals]
            for (waiting, position), result in zip(taken, results, strict=True):
                waiting.results[position] = result
                if None not in waiting.results and not waiting.done.done():
                    waiting.done.set_result(None)
        self._thread.shutdown()

    def close(self) -> None:
        """Take nothing more; :meth:`run` ends when the pool is empty."""
        self._closing = True
        self._wake.set()

    def _gather(self) -> list[tuple[_Waiting, int]]:
        """The next batch: from the front of the pool, up to the first proposal that depends on one before it."""
        taken: list[tuple[_Waiting, int]] = []
        identifiers: set[Identifier] = set()
        keys: set[tuple[str, str]] = set()
        while self._pool and len(taken) < BATCH_MAX:
            waiting, position = self._pool[0]
            proposal = waiting.proposals[position]
            body, key = proposal.body, (proposal.zone, proposal.idempotency_key)
            if body.identifier in identifiers or body.class_id in identifiers or key in keys:
                break
            identifiers.add(body.identifier)
            keys.add(key)
            taken.append(self._pool.popleft())
        return taken

    def _commit(self, proposals: Sequence[Proposal]) -> list[Result]:
        """On the sequencer's thread: read what is stored, decide, sign receipts, commit."""
        if self._reopen:
            self._storage.reopen()  # where this raises as well, the next batch tries again
            self._reopen = False
        now = self._clock()
        heads = self._storage.heads([str(p.body.identifier) for p in proposals])
        earlier = self._earlier(proposals)
        classes = self._classes(proposals)
        results: list[Result | None] = []
        writes: list[Write] = []
        for proposal in proposals:
            result = self._decide(proposal, heads, earlier, classes[proposal.zone], now)
            if isinstance(result, Write):
                writes.append(result)
            results.append(None if isinstance(result, Write) else result)
        outcomes = iter(zip(writes, self._storage.commit(writes) if writes else (), strict=True))
        self.batches += 1
        final: list[Result] = [self._answer(*next(outcomes)) if result is None else result for result in results]
        self.committed += sum(isinstance(result, bytes) for result in final)
        return final

    def _decide(
        self,
        proposal: Proposal,
        heads: Mapping[str, Head],
        earlier: Mapping[tuple[str, str], Earlier],
        classes: Mapping[Identifier, ClassRecord],
        now: int,
    ) -> Write | Result:
        body = proposal.body
        identifier = str(body.identifier)
        head = heads.get(identifier)
        known = earlier.get((proposal.zone, proposal.idempotency_key))
        if head is not None and len(proposal.record.values) < len(body.values):
            current = self._storage.record(identifier, head.version)
            proposal = complete(proposal, wire.record_from_bytes(current)) if current else proposal
        try:
            decision = admit(proposal, head=head, earlier=known, classes=classes, now=now)
        except IdtraceError as error:
            return error
        match decision:
            case Repeated(receipt):
                return receipt
            case Admitted(claims):
                record_hash = proposal.record.hash
                zone = Prefix.parse_canonical(proposal.zone)
                statement = Receipt(zone, body.identifier, body.version, record_hash, now)
                return Write(
                    identifier=identifier,
                    expected=head.version if head else 0,
                    head=Head(body.version, record_hash, body.kind, body.status, body.issued_at),
                    record=wire.record_to_bytes(proposal.record),
                    zone=proposal.zone,
                    idempotency_key=proposal.idempotency_key,
                    request_hash=proposal.request_hash,
                    receipt=wire.signed_to_bytes(sign(Kind.RECEIPT, statement.payload(), self._signer)),
                    claims=claims,
                )

    def _answer(self, write: Write, outcome: Outcome) -> Result:
        match outcome:
            case Outcome.COMMITTED:
                return write.receipt
            case Outcome.CONFLICT:
                detail = f"another version of {write.identifier} was committed at the same time; read it and try again"
                return RefusedError(Reason.WRITE_CONFLICT, detail, field="record.version")
            case Outcome.CLAIMED:
                taken = self._storage.claimants(write.claims)
                claim = next(claim for claim in write.claims if taken.get(claim, write.identifier) != write.identifier)
                detail = f"{claim.field} is unique in {claim.class_id} and belongs to {taken[claim]}"
                return RefusedError(Reason.CLASS_FIELD_NOT_UNIQUE, detail, field=f"values.{claim.field}")
            case Outcome.KEY_USED:
                known = self._storage.earlier(write.zone, [write.idempotency_key])[write.idempotency_key]
                try:
                    return repeated(write.request_hash, known).receipt
                except RefusedError as error:
                    return error

    def _earlier(self, proposals: Sequence[Proposal]) -> dict[tuple[str, str], Earlier]:
        earlier = {}
        for zone in {p.zone for p in proposals}:
            keys = [p.idempotency_key for p in proposals if p.zone == zone]
            earlier.update({(zone, key): found for key, found in self._storage.earlier(zone, keys).items()})
        return earlier

    def _classes(self, proposals: Sequence[Proposal]) -> dict[str, dict[Identifier, ClassRecord]]:
        """By zone: every class that is named and those above it, as stored; a zone's proposals see its own alone."""
        classes: dict[str, dict[Identifier, ClassRecord]] = {}
        for proposal in proposals:
            known = classes.setdefault(proposal.zone, {})
            zone = Prefix.parse(proposal.zone)
            wanted = proposal.body.class_id
            for _ in range(CLASS_DEPTH_MAX + 1):
                if wanted is None or not wanted.prefix.within(zone):
                    break
                found = known.get(wanted) or self._class(wanted)
                if found is None:
                    break
                known[wanted] = found
                wanted = found.body.class_id
        return classes

    def _class(self, identifier: Identifier) -> ClassRecord | None:
        stored = self._storage.record(str(identifier))
        if stored is None:
            return None
        record = wire.record_from_bytes(stored)
        body = RecordBody.parse(record.signed.payload)
        return ClassRecord(record, body) if body.kind is RecordKind.CLASS else None


def _unknown(error: Exception) -> OutcomeUnknownError:
    detail = f"the write may or may not be durable ({type(error).__name__}); repeat it with the same key"
    return OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, detail)

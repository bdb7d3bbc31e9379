"""The one loop that commits: it gathers what has been proposed, decides, commits once, and only then answers.

The commit point is :meth:`Storage.commit` returning. Before it a proposal can be retried freely; after it the receipt
is durable and the same for ever. If commit raises, nobody knows: every caller of the batch is told so, the store is
reopened, and their idempotency keys will tell them what happened. Recovery is the ordinary start.

The loop stays free for readers meanwhile: deciding and signing a batch runs on a thread of its own, and where and how
the store waits for its engine is the store's business.

While one batch is on its way to the disk the next one gathers by itself, so batches grow with load (group commit) and
a lone write waits for nobody. A batch never holds two proposals that depend on each other (same identifier, same key,
or a class and what names it): the later one waits for the next batch and then sees the truth.

What was sealed together is committed by itself and in one piece, so that its records follow their seal in the log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from idtrace import wire
from idtrace.canonical import BODY_BYTES_MAX
from idtrace.entry import LOGGED_BODY_BYTES_MAX, Entry, EntryKind, UnderSeal
from idtrace.errors import BusyError, IdtraceError, InputError, OutcomeUnknownError, Reason, RefusedError
from idtrace.identifier import Identifier, Prefix
from idtrace.record import RecordBody, RecordKind
from idtrace.signature import Kind, Signature, Signer, sign
from idtrace.statements import Receipt
from idtrace.template import CLASS_DEPTH_MAX
from registry.admission import Admitted, ClassRecord, Proposal, Repeated, admit, complete, repeated
from registry.logbook import Stamp, require_few_absent
from registry.stamping import Stamper
from registry.storage import Claim, Earlier, Head, Mention, Outcome, Storage, Write

log = structlog.get_logger(__name__)

# One client batch; a larger transaction only delays those who wait behind it (2,000 rows commit in ~40 ms).
BATCH_MAX: Final = 2_000
# Ten full batches wait at most; beyond that callers are told to come back (back-pressure instead of memory).
POOL_MAX: Final = 20_000
# Records are asked for so many at a time: a distant engine answers them side by side, and a local one, which reads them
# on the loop, keeps it for 0.4 ms at most.
READ_AT_ONCE: Final = 16
# Mentions of one commit: what watchers are told of it is one row of a distributed engine, 15 MB of the longest names,
# which takes 16 MiB. Two thousand events have room for 30 each.
MENTIONS_A_COMMIT_MAX: Final = 60_000
LATEST: Final = 0
# So few are decided on the loop (0.1 ms each): the hop to a thread and back makes a lone writer wait 0.2 ms longer.
DECIDED_INLINE_MAX: Final = 4

Result = bytes | IdtraceError
# Which subjects of an event's mentions have their home at another node (registry/pointers.py).
Away = Callable[[Iterable[Mention]], tuple[str, ...]]


@dataclass(slots=True)
class _Waiting:
    """Proposals of one call and where their results go. Owned by the event loop's thread."""

    proposals: Sequence[Proposal]
    results: list[Result | None]
    done: asyncio.Future[None] = field(repr=False)
    left: int  # results that are still to come
    sealed: bool = False
    closed: bool = False  # sealed, and committed before: nothing of it can be added
    whole: bool = False  # all of it is committed, or nothing

    @property
    def alone(self) -> bool:
        """Whether it is a batch of its own."""
        return self.sealed or self.whole


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the store holds that bears on a batch, as read before it is decided."""

    heads: Mapping[str, Head]
    earlier: Mapping[tuple[str, str], Earlier]
    classes: Mapping[str, Mapping[Identifier, ClassRecord]]  # by zone
    current: Mapping[str, bytes]  # the head's record of each identifier whose values have to be carried over


class Sequencer:
    """Owns the right to commit. One a store; two on one store are safe and slow (CONFLICT)."""

    def __init__(
        self,
        storage: Storage,
        signer: Signer,
        clock: Callable[[], int],
        on_commit: Callable[[], object] = lambda: None,
        *,
        stamper: Stamper | None = None,
        away: Away = lambda _: (),
    ) -> None:
        self._away = away
        self._on_commit = on_commit  # called when a batch may be in the store
        self._stamper = stamper  # where the node keeps a log
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
        return await self._submit(proposals)

    async def submit_whole(self, proposals: Sequence[Proposal]) -> list[Result]:
        """The same for events of a document, at most a batch, no two about one identifier: all are kept, or none is.

        What is there already, by whichever call, stands in nobody's way, since an event's identifier says all of it.
        Where another one is refused, the rest is too (ROLLED_BACK).

        Raises:
            BusyError: as :meth:`submit`.
            InputError: BATCH_TOO_LARGE where they mention more than one commit may.
        """
        return await self._submit(proposals, whole=True)

    async def submit_sealed(self, proposals: Sequence[Proposal], *, closed: bool, whole: bool = False) -> list[Result]:
        """The same for records under one seal, at most a batch, no two about one identifier; a receipt is empty.

        All that win are committed at once and alone. Where the batch was committed before, which ``closed`` says or an
        idempotency key of it shows, nothing more of it ever is (SEAL_CLOSED). Where more are refused than may be
        (SEAL_REFUSED), or a key was used for something else (IDEMPOTENCY_KEY_REUSED), that is the result of all.
        ``whole`` is as in :meth:`submit_whole`.

        Raises:
            BusyError: as :meth:`submit`.
            InputError: BATCH_TOO_LARGE where they mention more than one commit may.
        """
        return await self._submit(proposals, sealed=True, closed=closed, whole=whole)

    async def _submit(
        self, proposals: Sequence[Proposal], *, sealed: bool = False, closed: bool = False, whole: bool = False
    ) -> list[Result]:
        if self._closing:
            raise BusyError(Reason.SHUTTING_DOWN, "the node is stopping")
        if len(self._pool) + len(proposals) > POOL_MAX:
            raise BusyError(Reason.OVERLOADED, f"{len(self._pool)} registrations are waiting; try again")
        if (count := sum(len(proposal.mentions) for proposal in proposals)) > MENTIONS_A_COMMIT_MAX and (
            sealed or whole
        ):
            rule = f"events that are committed together mention at most {MENTIONS_A_COMMIT_MAX} things, these {count}"
            raise InputError(Reason.BATCH_TOO_LARGE, f"{rule}: send them in parts", field="items")
        done = asyncio.get_running_loop().create_future()
        waiting = _Waiting(proposals, [None] * len(proposals), done, len(proposals), sealed, closed, whole)
        self._pool.extend((waiting, position) for position in range(len(proposals)))
        self._wake.set()
        if proposals:
            await asyncio.shield(waiting.done)  # a caller that gives up does not undo what may be committed
        return [result for result in waiting.results if result is not None]

    async def run(self) -> None:
        """Commit until :meth:`close`; what was submitted before is still answered."""
        while self._pool or not self._closing:
            if not self._pool:
                self._wake.clear()
                await self._wake.wait()
                continue
            taken = self._gather()
            proposals = [waiting.proposals[position] for waiting, position in taken]
            try:
                results = await self._commit(proposals, closed=taken[0][0].closed, whole=taken[0][0].whole)
            except (BusyError, RefusedError) as error:  # the store knows that nothing was written
                self._reopen = True
                results = [error] * len(proposals)
            except Exception as error:  # whatever the engine raises: the outcome is unknown
                log.exception("commit failed", batch=len(proposals))
                self._reopen = True
                results = [_unknown(error) for _ in proposals]
            for (waiting, position), result in zip(taken, results, strict=True):
                waiting.results[position] = result
                waiting.left -= 1
                if not waiting.left and not waiting.done.done():
                    waiting.done.set_result(None)
        self._thread.shutdown()

    def close(self) -> None:
        """Take nothing more; :meth:`run` ends when the pool is empty."""
        self._closing = True
        self._wake.set()

    def _gather(self) -> list[tuple[_Waiting, int]]:
        """The next batch: from the front of the pool, up to the first proposal that depends on one before it."""
        if self._pool[0][0].alone:
            return [self._pool.popleft() for _ in self._pool[0][0].proposals]
        taken: list[tuple[_Waiting, int]] = []
        identifiers: set[Identifier] = set()
        keys: set[tuple[str, str]] = set()
        mentions = 0
        while self._pool and len(taken) < BATCH_MAX:
            waiting, position = self._pool[0]
            proposal = waiting.proposals[position]
            body, key = proposal.body, (proposal.zone, proposal.idempotency_key)
            if waiting.alone or body.identifier in identifiers or body.class_id in identifiers or key in keys:
                break
            mentions += len(proposal.mentions)
            if mentions > MENTIONS_A_COMMIT_MAX and taken:
                break
            identifiers.add(body.identifier)
            keys.add(key)
            taken.append(self._pool.popleft())
        return taken

    async def _commit(self, proposals: Sequence[Proposal], *, closed: bool, whole: bool) -> list[Result]:
        """Read what is stored, decide and sign receipts, commit, answer."""
        if self._reopen:
            await self._storage.reopen()  # where this raises as well, the next batch tries again
            self._reopen = False
        if self._stamper is None:
            return await self._commit_at(proposals, self._clock(), None, closed=closed, whole=whole)
        async with self._stamper.turn:
            stamp = self._stamper.stamp()
            return await self._commit_at(proposals, stamp.now, stamp, closed=closed, whole=whole)

    async def _commit_at(
        self, proposals: Sequence[Proposal], now: int, stamp: Stamp | None, *, closed: bool, whole: bool
    ) -> list[Result]:
        stored = await self._read(proposals)
        decide = partial(_decide_all, proposals, stored, now, self._signer, self._away, is_logged=stamp is not None)
        if len(proposals) <= DECIDED_INLINE_MAX:
            decided = decide()
        else:
            decided = await asyncio.get_running_loop().run_in_executor(self._thread, decide)
        if proposals[0].sealed is not None:
            decided = _as_one(decided, len(proposals[0].sealed.batch), closed=closed)
        if whole:
            decided = _all_or_none(decided)
        writes = [decision for decision in decided if isinstance(decision, Write)]
        outcomes = await self._committed(writes, stamp) if writes else []
        answers = iter(await self._answers(writes, outcomes))
        self.batches += 1
        final = [next(answers) if isinstance(decision, Write) else decision for decision in decided]
        self.committed += sum(isinstance(result, bytes) for result in final)
        return final

    async def _committed(self, writes: Sequence[Write], stamp: Stamp | None) -> list[Outcome]:
        try:
            return await self._storage.commit(writes, stamp)
        finally:
            self._on_commit()

    async def _read(self, proposals: Sequence[Proposal]) -> _Stored:
        heads = await self._storage.heads([str(p.body.identifier) for p in proposals])
        partial = {str(p.body.identifier) for p in proposals if len(p.record.values) < len(p.body.values)}
        return _Stored(
            heads,
            await self._earlier(proposals),
            await self._classes(proposals),
            await self._records({name: heads[name].version for name in partial & heads.keys()}),
        )

    async def _answers(self, writes: Sequence[Write], outcomes: Sequence[Outcome]) -> list[Result]:
        """What each write's caller is told; what stood in the way of those that lost is read for all at once."""
        told = list(zip(writes, outcomes, strict=True))
        claims = [claim for write, outcome in told if outcome is Outcome.CLAIMED for claim in write.claims]
        taken = await self._storage.claimants(claims) if claims else {}
        earlier = await self._earlier([write for write, outcome in told if outcome is Outcome.KEY_USED])
        return [_answer(write, outcome, taken, earlier) for write, outcome in told]

    async def _earlier(self, used: Iterable[Proposal | Write]) -> dict[tuple[str, str], Earlier]:
        """By zone and idempotency key: what was answered."""
        keys: dict[str, list[str]] = {}
        for item in used:
            keys.setdefault(item.zone, []).append(item.idempotency_key)
        earlier = {}
        for zone, asked in keys.items():
            found = await self._storage.earlier(zone, asked)
            earlier.update({(zone, key): known for key, known in found.items()})
        return earlier

    async def _classes(self, proposals: Sequence[Proposal]) -> dict[str, dict[Identifier, ClassRecord]]:
        """By zone: every class that is named and those above it, as stored; a zone's proposals see its own alone."""
        named: dict[str, set[Identifier | None]] = {}
        for proposal in proposals:
            named.setdefault(proposal.zone, set()).add(proposal.body.class_id)
        return {zone: await self._lineages(Prefix.parse(zone), wanted) for zone, wanted in named.items()}

    async def _lineages(self, zone: Prefix, named: Collection[Identifier | None]) -> dict[Identifier, ClassRecord]:
        known: dict[Identifier, ClassRecord] = {}
        for _ in range(CLASS_DEPTH_MAX + 1):
            wanted = {identifier for identifier in named if identifier is not None and identifier.prefix.within(zone)}
            stored = await self._records({str(identifier): LATEST for identifier in wanted - known.keys()})
            classes = (_class(record) for record in stored.values())
            known.update({found.body.identifier: found for found in classes if found is not None})
            named = {known[identifier].body.class_id for identifier in wanted & known.keys()}
        return known

    async def _records(self, wanted: Mapping[str, int]) -> dict[str, bytes]:
        """The wanted version of each identifier that has it."""
        names, records = sorted(wanted), {}
        for start in range(0, len(names), READ_AT_ONCE):
            piece = names[start : start + READ_AT_ONCE]
            found = await asyncio.gather(*(self._storage.record(name, wanted[name]) for name in piece))
            records.update({name: record for name, record in zip(piece, found, strict=True) if record is not None})
        return records


def _decide_all(
    proposals: Sequence[Proposal], stored: _Stored, now: int, signer: Signer, away: Away, *, is_logged: bool
) -> list[Write | Result]:
    return [_decide(proposal, stored, now, signer, away, is_logged=is_logged) for proposal in proposals]


def _as_one(decided: list[Write | Result], sealed: int, *, closed: bool) -> list[Write | Result]:
    """What becomes of the records of one seal, which ``sealed`` of them stand under, once each was decided alone.

    Raises:
        RefusedError: IDEMPOTENCY_KEY_REUSED or SEAL_REFUSED, for all of them.
    """
    for decision in decided:
        if isinstance(decision, RefusedError) and decision.reason is Reason.IDEMPOTENCY_KEY_REUSED:
            raise decision
    if closed or any(isinstance(decision, bytes) for decision in decided):
        detail = "the batch was committed without this record, which its seal can no longer bring; register it anew"
        late = RefusedError(Reason.SEAL_CLOSED, detail, field="items")
        return [late if isinstance(decision, Write) else decision for decision in decided]
    require_few_absent(sealed - sum(isinstance(decision, Write) for decision in decided))
    return decided


def _all_or_none(decided: list[Write | Result]) -> list[Write | Result]:
    """What becomes of the events of one document, once each was decided alone: see :meth:`Sequencer.submit_whole`."""
    if not any(isinstance(one, IdtraceError) and one.reason is not Reason.IDENTIFIER_TAKEN for one in decided):
        return decided
    return [rolled_back() if isinstance(one, Write) else one for one in decided]


def rolled_back() -> RefusedError:
    """Why an event in which nothing is wrong is not kept."""
    return RefusedError(Reason.ROLLED_BACK, "another event of the document is refused, and so nothing of it is kept")


def _decide(
    proposal: Proposal, stored: _Stored, now: int, signer: Signer, away: Away, *, is_logged: bool
) -> Write | Result:
    body = proposal.body
    identifier = str(body.identifier)
    head = stored.heads.get(identifier)
    known = stored.earlier.get((proposal.zone, proposal.idempotency_key))
    if identifier in stored.current:
        proposal = complete(proposal, wire.record_from_bytes(stored.current[identifier]))
    try:
        decision = admit(
            proposal,
            head=head,
            earlier=known,
            classes=stored.classes[proposal.zone],
            now=now,
            body_bytes_max=LOGGED_BODY_BYTES_MAX if is_logged else BODY_BYTES_MAX,
        )
    except IdtraceError as error:
        return error
    match decision:
        case Repeated(receipt):
            return receipt
        case Admitted(claims):
            zone = Prefix.parse_canonical(proposal.zone)
            signed, sealed = proposal.record.signed, proposal.record.sealed
            # Intake has found the hash at its place to be its own.
            record_hash = proposal.sealed.batch[sealed.position] if proposal.sealed and sealed else proposal.record.hash
            by: tuple[Signature, ...] | UnderSeal = signed.signatures
            if sealed is not None:  # the checkpoint is the proof, and no receipt is signed
                by, receipt = UnderSeal(sealed.hash, sealed.position), b""
            else:
                statement = Receipt(zone, body.identifier, body.version, record_hash, now)
                receipt = wire.signed_to_bytes(sign(Kind.RECEIPT, statement.payload(), signer))
            return Write(
                identifier=identifier,
                expected=head.version if head else 0,
                head=Head(body.version, record_hash, body.kind, body.status, body.issued_at),
                record=wire.record_to_bytes(proposal.record),
                zone=proposal.zone,
                idempotency_key=proposal.idempotency_key,
                request_hash=proposal.request_hash,
                receipt=receipt,
                claims=claims,
                entry=Entry(EntryKind.RECORD, zone, now, signed.payload, by) if is_logged else None,
                sealed=proposal.sealed,
                mentions=proposal.mentions,
                outbound=away(proposal.mentions),
            )


def _answer(
    write: Write, outcome: Outcome, taken: Mapping[Claim, str], earlier: Mapping[tuple[str, str], Earlier]
) -> Result:
    match outcome:
        case Outcome.COMMITTED:
            return write.receipt
        case Outcome.CONFLICT:
            detail = f"another version of {write.identifier} was committed at the same time; read it and try again"
            return RefusedError(Reason.WRITE_CONFLICT, detail, field="record.version")
        case Outcome.CLAIMED:
            claim = next(claim for claim in write.claims if taken.get(claim, write.identifier) != write.identifier)
            detail = f"{claim.field} is unique in {claim.class_id} and belongs to {taken[claim]}"
            return RefusedError(Reason.CLASS_FIELD_NOT_UNIQUE, detail, field=f"values.{claim.field}")
        case Outcome.KEY_USED:
            try:
                return repeated(write.request_hash, earlier[write.zone, write.idempotency_key]).receipt
            except RefusedError as error:
                return error


def _class(stored: bytes) -> ClassRecord | None:
    record = wire.record_from_bytes(stored)
    body = RecordBody.parse(record.signed.payload)
    return ClassRecord(record, body) if body.kind is RecordKind.CLASS else None


def _unknown(error: Exception) -> OutcomeUnknownError:
    detail = f"the write may or may not be durable ({type(error).__name__}); repeat it with the same key"
    return OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, detail)

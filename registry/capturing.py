"""Capture: events in, and what became of each; the same whoever brings them, signed by their party or by this node.

1. An event that is here already is a success, whoever captured it and however: its identifier says all of its bytes.
2. Each of the others is taken or refused alone (``registry/intake.py``, ``registry/reporters.py``). With rollback one
   refusal is everybody's.
3. What is left is committed, with rollback as one batch. Idempotency key and request hash are made of the event alone,
   so the same event signed again, a second later, gives the receipt that it had.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from idtrace.epcis import parse, write, xml_in
from idtrace.epcis.model import Event
from idtrace.epcis.parse import EventError
from idtrace.epcis.statement import EVENT_PATH, event_body, is_event, join, require_event_identifier
from idtrace.errors import BusyError, IdtraceError, InputError, Reason, RefusedError
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Record, peek_identifier
from idtrace.serving.errors import item_error
from idtrace.signature import Kind, Signer, sign
from registry.admission import Intent, Proposal
from registry.authority import Authority
from registry.capture_jobs import Job, Jobs, Refusal
from registry.intake import take
from registry.reporters import Reporters
from registry.sequencer import BATCH_MAX, Sequencer, rolled_back
from registry.storage import Storage

# To read, check and write an event takes about a millisecond: between looks at the loop readers wait for a few.
CHECKED_AT_ONCE: Final = 4
JSON_TYPES: Final = frozenset({"application/json", "application/ld+json"})
XML_TYPES: Final = frozenset({"application/xml", "text/xml"})
_THERE: Final = Reason.IDENTIFIER_TAKEN


@dataclass(frozen=True, slots=True)
class Kept:
    """An event that is durable.

    Attributes:
        identifier: of its record.
        repeated: it was here before.
        receipt: signed bytes; b"" where it is kept under a seal, or was registered by another call.
    """

    identifier: str
    repeated: bool
    receipt: bytes = b""


Fate = Kept | IdtraceError


class Capturing:
    """Takes events for one node. Belongs to one event loop."""

    def __init__(
        self,
        storage: Storage,
        authority: Authority,
        sequencer: Sequencer,
        reporters: Reporters,
        jobs: Jobs,
        *,
        clock: Callable[[], int],
        signer: Signer | None,
    ) -> None:
        self._storage = storage
        self._authority = authority
        self._sequencer = sequencer
        self._reporters = reporters
        self._clock = clock
        self._signer = signer  # where the node signs for those whose tools cannot
        self.jobs = jobs

    async def capture(self, sent: Sequence[Record | IdtraceError], *, rollback: bool) -> tuple[Job, list[Fate]]:
        """Capture events' records, 1 to 2,000 of them; an error stands for one that could not be read.

        Raises:
            InputError: BATCH_TOO_LARGE.
            BusyError: with rollback, where the node cannot decide now; else OVERLOADED or SHUTTING_DOWN.
        """
        _check_count(len(sent))
        return await self.under_job(lambda: self._fates(sent, rollback=rollback), rollback=rollback)

    async def capture_document(
        self, data: bytes, media_type: str, *, rollback: bool, party: Prefix, job: Job | None = None
    ) -> Job:
        """Capture a document, or events as they stand, and sign them as the party: for tools that sign nothing.

        Args:
            data: EPCIS 2.0, JSON-LD or XML.
            media_type: which of the two; parameters such as a charset are not looked at.
            rollback: whether one refused event is everybody's fault.
            party: whose events they are; the configured key has to be a record key of its zone.
            job: one that was begun before, so that its name could be told.

        Raises:
            InputError: the document as a whole is malformed.
            RefusedError, BusyError: as :meth:`capture_items`.
        """
        self.require_signer()
        ended, _ = await self.capture_items(read_items(data, media_type), rollback=rollback, party=party, job=job)
        return ended

    async def capture_items(
        self, items: Sequence[Event | EventError], *, rollback: bool, party: Prefix, job: Job | None = None
    ) -> tuple[Job, list[Fate]]:
        """The same of events that were read before; what became of each, in their order.

        Raises:
            RefusedError: CAPTURE_UNSIGNED where the node has no key for that.
            InputError: BATCH_TOO_LARGE: with rollback it is one batch.
            BusyError: as :meth:`capture`.
        """
        signer = self.require_signer()
        if rollback and items:
            _check_count(len(items))

        async def work() -> list[Fate]:
            return await self._pieces(await self._signed(items, party, signer), rollback=rollback)

        return await self.under_job(work, rollback=rollback, job=job)

    def require_signer(self) -> Signer:
        """The key that signs for those whose tools cannot.

        Raises:
            RefusedError: CAPTURE_UNSIGNED where the node has none.
        """
        if self._signer is None:
            detail = "this node signs nobody's events ([capture] key); send them signed"
            raise RefusedError(Reason.CAPTURE_UNSIGNED, detail, field="capture.key")
        return self._signer

    async def under_job(
        self, work: Callable[[], Awaitable[list[Fate]]], *, rollback: bool, job: Job | None = None
    ) -> tuple[Job, list[Fate]]:
        """Await what becomes of events, and keep it as a job, also if it fails or is given up."""
        job = job or self.jobs.begin(rollback=rollback)
        try:
            fates = await work()
        except BaseException as error:
            self.jobs.end(job, events=0, captured=0, errors=[_refusal(0, error)])
            raise
        errors = [_refusal(index, fate) for index, fate in enumerate(fates) if isinstance(fate, IdtraceError)]
        ended = self.jobs.end(job, events=len(fates), captured=len(fates) - len(errors), errors=errors)
        return ended, fates

    async def here(self, identifiers: Sequence[str]) -> dict[str, Kept]:
        """Those of these events that are kept already, with the receipt that their capture gave."""
        heads = await self._storage.heads(list(dict.fromkeys(identifiers)))
        return {name: Kept(name, repeated=True, receipt=await self._receipt(name)) for name in heads}

    async def _receipt(self, name: str) -> bytes:
        """In whichever zone it was: a prefix may have become a zone of its own since."""
        identifier = Identifier.parse_canonical(name)
        for zone in reversed(identifier.prefix.lineage()):
            earlier = (await self._storage.earlier(str(zone), [_key(identifier)])).get(_key(identifier))
            if earlier is not None and earlier.request_hash == _request_hash(name):
                return earlier.receipt
        return b""

    async def _pieces(self, sent: Sequence[Record | IdtraceError], *, rollback: bool) -> list[Fate]:
        fates: list[Fate] = []
        for start in range(0, len(sent), BATCH_MAX):
            try:
                fates += await self._fates(sent[start : start + BATCH_MAX], rollback=rollback)
            except IdtraceError as error:
                if not fates:
                    raise
                return fates + [error] * (len(sent) - start)  # what is durable by now is told to be
        return fates

    async def _fates(self, sent: Sequence[Record | IdtraceError], *, rollback: bool) -> list[Fate]:
        names = [_name(one) for one in sent]
        here = await self.here([name for name in names if isinstance(name, str)])
        taken: dict[str, Proposal] = {}
        fates: dict[int, Fate] = {}
        for index, (one, name) in enumerate(zip(sent, names, strict=True)):
            if isinstance(one, IdtraceError):
                fates[index] = one
            elif isinstance(name, IdtraceError):
                fates[index] = name
            elif name in here:
                fates[index] = here[name]
            elif name not in taken:
                proposal = await self._take(one, name)
                if isinstance(proposal, IdtraceError):
                    fates[index] = proposal
                else:
                    taken[name] = proposal
            if index % CHECKED_AT_ONCE == 0:
                await asyncio.sleep(0)
        committed = await self._commit(taken, fates, rollback=rollback)
        return [fates[index] if index in fates else committed[str(name)] for index, name in enumerate(names)]

    async def _take(self, record: Record, name: str) -> Proposal | IdtraceError:
        key = _key(Identifier.parse_canonical(name))
        try:
            proposal = take(
                Intent.REGISTER, key, record, hashed=_request_hash(name), authority=self._authority, now=self._clock()
            )
            await self._reporters.check(proposal)
        except IdtraceError as error:
            return error
        return proposal

    async def _commit(
        self, taken: Mapping[str, Proposal], fates: Mapping[int, Fate], *, rollback: bool
    ) -> dict[str, Fate]:
        """What becomes of the events that nothing is wrong with."""
        if rollback:
            for fate in fates.values():
                if isinstance(fate, BusyError):
                    raise fate
            if any(isinstance(fate, IdtraceError) for fate in fates.values()):
                return {name: rolled_back() for name in taken}
        submit = self._sequencer.submit_whole if rollback else self._sequencer.submit
        results = await submit(list(taken.values())) if taken else []
        committed: dict[str, Fate] = {}
        for name, result in zip(taken, results, strict=True):
            committed[name] = Kept(name, repeated=False, receipt=result) if isinstance(result, bytes) else result
        late = [name for name, fate in committed.items() if isinstance(fate, IdtraceError) and fate.reason is _THERE]
        return {**committed, **await self.here(late)} if late else committed  # somebody was faster with the same event

    async def _signed(
        self, items: Sequence[Event | EventError], party: Prefix, signer: Signer
    ) -> list[Record | IdtraceError]:
        sent: list[Record | IdtraceError] = []
        for position, item in enumerate(items):
            sent.append(item if isinstance(item, EventError) else _signed(item, party, signer, self._clock()))
            if position % CHECKED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return sent


def _signed(event: Event, party: Prefix, signer: Signer, now: int) -> Record | IdtraceError:
    try:
        body, values = event_body(party, write.event_bytes(event), issued_at=now)
    except InputError as error:
        return error
    return Record(sign(Kind.RECORD, body.payload(), signer), values)


def read_items(data: bytes, media_type: str) -> Sequence[Event | EventError]:
    """The events of a document, and in the place of each that breaks a rule what is wrong with it.

    Raises:
        InputError: the document as a whole is malformed, or of another media type.
    """
    bare = media_type.partition(";")[0].strip().lower()
    if bare in JSON_TYPES:
        return parse.read_document(data).items
    if bare in XML_TYPES:
        return xml_in.read_document(data).items
    rule = f"a document is one of {', '.join(sorted(JSON_TYPES | XML_TYPES))}"
    raise InputError(Reason.FIELD_MALFORMED, rule, field="type")


def _name(one: Record | IdtraceError) -> str | IdtraceError:
    """The identifier of an event as sent, whose bytes are what it says, or what is wrong with it."""
    if isinstance(one, IdtraceError):
        return one
    try:
        identifier = require_event(one.signed.payload)
        require_event_identifier(identifier, join(one.values))
    except InputError as error:
        return error
    return str(identifier)


def require_event(payload: bytes, *, field: str = "record") -> Identifier:
    """The identifier that a body claims to be about, which is an event's.

    Raises:
        InputError: EVENT_RECORD, or malformed.
    """
    identifier = peek_identifier(payload, field=field)
    if not is_event(identifier):
        rule = "only events are captured; other records are registered"
        raise InputError(Reason.EVENT_RECORD, rule, field=f"{field}.identifier")
    return identifier


def _key(identifier: Identifier) -> str:
    """The idempotency key of an event: 64 hex digits, the same for everybody who captures it."""
    return identifier.suffix.removeprefix(EVENT_PATH)


def _request_hash(name: str) -> bytes:
    return hashlib.sha256(b"idtrace/capture/v1\0" + name.encode()).digest()


def _check_count(count: int) -> None:
    if not 0 < count <= BATCH_MAX:
        detail = f"a capture has 1 to {BATCH_MAX} events, this one {count}"
        raise InputError(Reason.BATCH_TOO_LARGE, detail, field="events")


def _refusal(index: int, error: BaseException) -> Refusal:
    if not isinstance(error, IdtraceError):
        detail = "the node could not finish it; send the same events again"
        return Refusal(index, 2, str(Reason.OUTCOME_UNKNOWN), "", "", detail)
    return refusal(index, error)


def refusal(index: int, error: IdtraceError) -> Refusal:
    """What a caller is told of one event that is not kept."""
    code, reason, field, detail = item_error(error)
    return Refusal(index, code, reason, field, error.rule if isinstance(error, EventError) else "", detail)

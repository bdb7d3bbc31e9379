"""Captures the events of one document: signs them, sends them in batches, and keeps the receipts.

An event is known by the hash of its bytes, so a run that broke off is simply run again: what the journal has is not
sent, and what the node has is a success. With rollback a document is one batch, and an event that is malformed here
already keeps all of it from leaving.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from idtrace.chain import Anchor
from idtrace.cli.bulk import BATCH_BYTES_MAX, BATCH_LINES_MAX, item_error
from idtrace.cli.client import Node
from idtrace.cli.drafts import signed_record
from idtrace.cli.exits import ExitCode, Failure, node_code
from idtrace.cli.journal import Journal, Place, short
from idtrace.cli.show import Level, level_word
from idtrace.cli.trust import ReceiptCheck, Zones, current_record
from idtrace.epcis import parse, xml_in
from idtrace.epcis.model import Event
from idtrace.epcis.parse import EventError
from idtrace.epcis.statement import event_body
from idtrace.epcis.write import event_bytes
from idtrace.errors import IdtraceError, InputError, OutcomeUnknownError, Reason, VerificationError
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Record
from idtrace.seal import seal
from idtrace.signature import Kind, Signed, Signer, signed_hash
from idtrace.statements import Receipt
from idtrace.v1 import capture_pb2, capture_pb2_grpc, registry_pb2
from idtrace.wire import record_to_pb, signed_from_pb, signed_to_pb


class Fate(StrEnum):
    """What became of an event."""

    CAPTURED = "captured"
    ALREADY = "already"  # the journal has its receipt, or the node has the event
    REFUSED = "refused"
    MALFORMED = "malformed"
    ROLLED_BACK = "rolled back"  # nothing is wrong with it, but another event of its document is refused
    UNKNOWN = "unknown"  # the node could not decide; the next run asks again


@dataclass(frozen=True, slots=True)
class Outcome:
    """One event, settled: its number in the file from 0, and the identifier where it has one."""

    index: int
    identifier: str
    fate: Fate
    error: IdtraceError | None = None
    rule: str = ""
    receipt: Signed | None = None
    log_position: int = 0


@dataclass(frozen=True, slots=True)
class Item:
    """One event, signed by itself unless it is sealed, and ready to leave."""

    index: int
    identifier: Identifier
    record: Record

    @property
    def digest(self) -> bytes:
        """How the journal knows it, 32 bytes."""
        return hashlib.sha256(str(self.identifier).encode()).digest()

    @property
    def size(self) -> int:
        """Bytes on their way, nearly."""
        return len(self.record.signed.payload) + sum(len(value.data) + 32 for value in self.record.values)


@dataclass(frozen=True, slots=True)
class Way:
    """How documents are captured: where, by whom, under which root keys, waiting for what."""

    node: Node
    party: Prefix
    signer: Signer
    anchor: Anchor | None
    level: Level
    rollback: bool
    is_sealed: bool
    now: Callable[[], int]


def read_events(data: bytes, *, field: str) -> Sequence[Event | EventError]:
    """The events of a file: EPCIS 2.0, JSON-LD or XML, which its first character tells.

    Raises:
        InputError: the file as a whole is malformed.
    """
    is_xml = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<"
    return (xml_in.read_document if is_xml else parse.read_document)(data, field=field).items


class CaptureRun:
    """One run over one document. ``settled`` hears of every event once, in no particular order."""

    def __init__(self, way: Way, journal: Journal, settled: Callable[[Outcome], None]) -> None:
        self._way = way
        self._journal = journal
        self._settled = settled
        self._stub = capture_pb2_grpc.CaptureServiceStub(way.node.channel)
        self._check = ReceiptCheck(way.node, way.anchor)
        self._zones = Zones(way.node, way.anchor, way.now)

    def run(self, items: Sequence[Event | EventError]) -> None:
        """Capture them all.

        Raises:
            Failure: UNREACHABLE where the node stays silent.
            InputError: BATCH_TOO_LARGE: with rollback a document is one batch.
            VerificationError: a receipt or a checkpoint is not what it claims to be.
        """
        for key in tuple(self._journal.batches):  # of a run that broke off; its events are asked for again
            self._journal.finish_batch(key, (), b"", "")
        ready, spoilt = self._ready(items)
        if self._way.rollback and (spoilt or len(ready) > BATCH_LINES_MAX):
            if not spoilt:
                rule = f"with --rollback a document has at most {BATCH_LINES_MAX:,} events; --proceed takes any number"
                raise InputError(Reason.BATCH_TOO_LARGE, rule, field="FILE")
            for item in ready:
                self._settled(Outcome(item.index, str(item.identifier), Fate.ROLLED_BACK))
            return
        for batch in self._batches(ready):
            self._send(batch)

    def _ready(self, items: Sequence[Event | EventError]) -> tuple[list[Item], bool]:
        """Events that are to be sent, and whether there are some that cannot be."""
        ready: dict[Identifier, Item] = {}
        spoilt = False
        for index, event in enumerate(items):
            try:
                item = self._item(index, event)
            except InputError as error:
                spoilt = True
                rule = error.rule if isinstance(error, EventError) else ""
                self._settled(Outcome(index, "", Fate.MALFORMED, error, rule))
                continue
            if self._journal.is_done(item.digest) or item.identifier in ready:
                self._settled(Outcome(index, str(item.identifier), Fate.ALREADY))
            else:
                ready[item.identifier] = item
        return list(ready.values()), spoilt

    def _item(self, index: int, event: Event | EventError) -> Item:
        if isinstance(event, EventError):
            raise event
        body, values = event_body(self._way.party, event_bytes(event), issued_at=self._way.now())
        if self._way.is_sealed:
            return Item(index, body.identifier, Record(Signed(Kind.RECORD.payload_type, body.payload(), ()), values))
        return Item(index, body.identifier, signed_record(body, values, self._way.signer))

    def _batches(self, items: Sequence[Item]) -> Iterator[list[Item]]:
        """With rollback all of them at once; the node says where that is too much for one message."""
        batch: list[Item] = []
        size = 0
        for item in items:
            if (
                batch
                and not self._way.rollback
                and (len(batch) == BATCH_LINES_MAX or size + item.size > BATCH_BYTES_MAX)
            ):
                yield batch
                batch, size = [], 0
            batch.append(item)
            size += item.size
        if batch:
            yield batch

    def _send(self, batch: Sequence[Item]) -> None:
        way = self._way
        behaviour = capture_pb2.ERROR_BEHAVIOUR_ROLLBACK if way.rollback else capture_pb2.ERROR_BEHAVIOUR_PROCEED
        request = capture_pb2.CaptureRequest(error_behaviour=behaviour, wait_for=way.level)
        if way.is_sealed:
            request.sealed.CopyFrom(self._sealed(batch))
            rows = [short(item.digest) for item in batch]
            self._journal.begin_batch(request.sealed.idempotency_key, rows, b"")
        else:
            request.signed.records.extend(record_to_pb(item.record) for item in batch)
        try:
            response = way.node.write(self._stub.Capture, request)
        except Failure as failure:
            if failure.code is not ExitCode.REFUSED:
                raise
            for item in batch:
                self._settled(Outcome(item.index, str(item.identifier), Fate.REFUSED, failure.error))
            return
        if len(response.results) != len(batch):
            detail = f"{len(response.results)} results for {len(batch)} events"
            nonsense = OutcomeUnknownError(Reason.ANSWER_MALFORMED, detail)
            raise Failure(ExitCode.UNREACHABLE, nonsense, title=f"{way.node.address} answers nonsense")
        outcomes = [self._outcome(item, result) for item, result in zip(batch, response.results, strict=True)]
        self._keep(batch, outcomes, request, response)
        for outcome in outcomes:
            self._settled(outcome)

    def _sealed(self, batch: Sequence[Item]) -> Any:
        hashes = [item.record.hash for item in batch]
        zone = self._zones.of(self._way.party)
        signed = seal(hashes, zone, self._way.signer, issued_at=self._way.now())[0].seal
        items = [
            registry_pb2.SealedItem(payload=item.record.signed.payload, values=record_to_pb(item.record).values)
            for item in batch
        ]
        key = signed_hash(Kind.SEAL, signed.payload).hex()
        return capture_pb2.SealedEvents(idempotency_key=key, seal=signed_to_pb(signed), items=items)

    def _outcome(self, item: Item, result: Any) -> Outcome:
        name = str(item.identifier)
        if result.WhichOneof("result") == "captured":
            receipt = self._receipt(item, result.captured)
            fate = Fate.ALREADY if result.captured.repeated_event else Fate.CAPTURED
            return Outcome(item.index, name, fate, receipt=receipt, log_position=result.captured.log_position)
        error = item_error(result.refusal.error)
        if error.reason is Reason.ROLLED_BACK:
            return Outcome(item.index, name, Fate.ROLLED_BACK)
        fate = Fate.REFUSED if node_code(error) is ExitCode.REFUSED else Fate.UNKNOWN
        return Outcome(item.index, name, fate, error, result.refusal.rule)

    def _receipt(self, item: Item, captured: Any) -> Signed | None:
        """The receipt, checked; an earlier one is about the record of then, which the node is asked for.

        Raises:
            VerificationError: RECEIPT_WRONG_RECORD, or what the chain says.
            Failure: as :func:`current_record`.
        """
        if not captured.HasField("receipt"):
            return None
        way, signed = self._way, signed_from_pb(captured.receipt.signed, "receipt")
        said = Receipt.parse(signed.payload)
        record = item.record
        if captured.repeated_event and said.record_hash != record.hash:
            if said.identifier != item.identifier:
                detail = f"the receipt for {item.identifier} is about something else"
                raise VerificationError(Reason.RECEIPT_WRONG_RECORD, detail, field="receipt")
            record, _ = current_record(way.node, item.identifier, way.signer.public_key, way.anchor, way.now())
        self._check(signed, record, item.identifier, 1, way.now())
        return signed

    def _keep(self, batch: Sequence[Item], outcomes: Sequence[Outcome], request: Any, response: Any) -> None:
        """Write the journal: receipts, or places under the checkpoint."""
        receipts = [
            (item.index, item.digest, str(item.identifier), outcome.receipt)
            for item, outcome in zip(batch, outcomes, strict=True)
            if outcome.receipt is not None
        ]
        self._journal.settle(receipts)
        if not self._way.is_sealed:
            return
        places = [
            Place(number, outcome.identifier, batch[number].record.hash, outcome.log_position)
            for number, outcome in enumerate(outcomes)
            if outcome.fate is Fate.CAPTURED
        ]
        if places:
            positions = [one.log_position for one in places]
            self._zones.check_committed(self._zones.of(self._way.party), response.checkpoint, positions)
        level = level_word(response.level) if places else ""
        self._journal.finish_batch(request.sealed.idempotency_key, places, response.checkpoint, level)

"""Registers the lines of a file: batches, two of them under way, each in the journal before it leaves.

While the node works on one batch, the next one is read and signed. A batch that got no answer is sent again as the
same bytes, so the node recognises what it has; if the node stays silent the run ends, and the next run goes on.

A journal is believed only at the node that gave its receipts: another one (the real node after a rehearsal) has none of
those records, and "already" would be a lie. So the node is asked for what the first and the last receipt are about.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import grpc

from idtrace.bundle import Denied, Referred
from idtrace.cli import client
from idtrace.cli.client import Node, again, failure_of_call
from idtrace.cli.drafts import idempotency_key, signed_record
from idtrace.cli.exits import ExitCode, Failure, node_code
from idtrace.cli.journal import Held, Journal
from idtrace.cli.rows import BadLine, Line
from idtrace.cli.show import Level, level_word
from idtrace.cli.trust import ReceiptCheck
from idtrace.errors import IdtraceError, InputError, OutcomeUnknownError, Reason, RefusedError
from idtrace.record import Record
from idtrace.serving.errors import code_name, error_of
from idtrace.signature import Signed, Signer
from idtrace.statements import Denial, DenialReason
from idtrace.v1 import record_pb2, registry_pb2, registry_pb2_grpc
from idtrace.wire import answer_from_pb, record_to_pb, signed_from_pb

# The node's limit; fewer make the bar move sooner, more do not make it faster.
BATCH_LINES_MAX: Final = 2_000
# Stays below gRPC's usual 4 MiB with room for one more record of any size.
BATCH_BYTES_MAX: Final = 2_097_152
# One batch at the node, one on its way: a third would only wait.
UNDER_WAY_MAX: Final = 2
# Lines of unknown outcome that are kept until the end of the run, 2 KiB each, to be asked after once more; a node that
# leaves more than this in the dark will not know better a moment later.
UNKNOWN_KEPT_MAX: Final = 2 * BATCH_LINES_MAX

_DISABLED: Final = DenialReason.PREFIX_DISABLED
_OTHER_JOURNAL: Final = (
    "register at the node that gave the receipts, or keep those of this node in a journal of their own: --journal FILE"
)


class Fate(StrEnum):
    """What became of a line."""

    REGISTERED = "registered"
    ALREADY = "already"  # the journal has its receipt, or the same line stood earlier in the file
    REFUSED = "refused"
    MALFORMED = "malformed"
    UNKNOWN = "unknown"  # the node could not say whether it has it, twice; the next run asks with the same bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """One line, settled."""

    number: int
    identifier: str
    fate: Fate
    error: IdtraceError | None = None
    receipt: Signed | None = None
    log_position: int | None = None  # of a sealed line: index in the log plus one, 0 where there is no log


@dataclass(frozen=True, slots=True)
class Item:
    """One line, signed and ready to leave."""

    line: Line
    digest: bytes
    issued_at: int
    record: Record
    request: Any

    @property
    def identifier(self) -> str:
        """Canonical text."""
        return str(self.line.draft.identifier)


class BulkRun:
    """One run over one file. ``settled`` hears of every line once, in no particular order."""

    def __init__(
        self,
        *,
        node: Node,
        journal: Journal,
        signer: Signer,
        check: ReceiptCheck,
        clock: Callable[[], int],
        settled: Callable[[Outcome], None],
        batch_lines: int,
        wait_for: Level = record_pb2.RECEIPT_LEVEL_UNSPECIFIED,
    ) -> None:
        self._stub = registry_pb2_grpc.RegistryServiceStub(node.channel)
        self._node = node
        self._journal = journal
        self._signer = signer
        self._check = check
        self._clock = clock
        self._settled = settled
        self._batch_lines = batch_lines
        self._wait_for = wait_for
        self.levels: Counter[str] = Counter()
        self._unknown: list[Item] = []

    def run(self, lines: Iterable[Line | BadLine]) -> None:
        """Register them all.

        Raises:
            Failure: UNREACHABLE where the node stays silent, REFUSED where it refuses a batch as a whole, USAGE where
                the journal is another node's.
            InputError: the file cannot be read to its end; whatever had left by then is settled.
            VerificationError: a receipt is not what it claims to be.
        """
        require_own_journal(self._node, self._journal)
        under_way: deque[tuple[list[Item], Any]] = deque()
        try:
            for items in self._batches(lines):
                self._journal.send([(item.digest, item.issued_at) for item in items])
                if len(under_way) == UNDER_WAY_MAX:
                    self._settle(*under_way.popleft())
                future = self._stub.RegisterBatch.future(self._request(items), timeout=self._node.timeout_seconds)
                under_way.append((items, future))
        except InputError:  # the rest of the file cannot be read; what has left still gets its receipt
            while under_way:
                self._settle(*under_way.popleft())
            self._settle_unknown()
            raise
        while under_way:
            self._settle(*under_way.popleft())
        self._settle_unknown()

    def _settle_unknown(self) -> None:
        """Ask once more, with the same keys, after lines whose outcome the node could not tell."""
        left, self._unknown = self._unknown, []
        if left:
            time.sleep(client.FIRST_PAUSE_SECONDS)  # a store that has lost a batch's outcome is opened anew meanwhile
        for start in range(0, len(left), self._batch_lines):
            items = left[start : start + self._batch_lines]
            for item, error in self._take(items, self._send(items)):
                self._settled(Outcome(item.line.number, item.identifier, Fate.UNKNOWN, error))

    def _batches(self, lines: Iterable[Line | BadLine]) -> Iterator[list[Item]]:
        batch: list[Item] = []
        size = 0
        for item in self._items(lines):
            batch.append(item)
            size += item.request.ByteSize()
            if len(batch) == self._batch_lines or size >= BATCH_BYTES_MAX:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _items(self, lines: Iterable[Line | BadLine]) -> Iterator[Item]:
        started: set[bytes] = set()
        for line in lines:
            if isinstance(line, BadLine):
                self._settled(Outcome(line.number, line.text, Fate.MALFORMED, line.error))
                continue
            digest = line.draft.digest()
            if self._journal.is_done(digest) or digest in started:
                self._settled(Outcome(line.number, str(line.draft.identifier), Fate.ALREADY))
                continue
            started.add(digest)
            try:
                yield self._item(line, digest)
            except InputError as error:
                self._settled(Outcome(line.number, str(line.draft.identifier), Fate.MALFORMED, error))

    def _item(self, line: Line, digest: bytes) -> Item:
        issued_at = self._journal.issued_at(digest, self._clock())
        body, values = line.draft.body(self._journal.salts(digest), issued_at)
        record = signed_record(body, values, self._signer)
        key = idempotency_key(record.signed.payload)
        request = registry_pb2.RegisterRequest(idempotency_key=key, record=record_to_pb(record))
        return Item(line, digest, issued_at, record, request)

    def _settle(self, items: list[Item], future: Any) -> None:
        try:
            response = future.result()
        except grpc.RpcError as error:
            failure = failure_of_call(error, self._node.address)
            if failure.code is not ExitCode.UNREACHABLE:
                raise failure from None
            response = self._send(items)
        for item, doubt in self._take(items, response):
            if len(self._unknown) < UNKNOWN_KEPT_MAX:
                self._unknown.append(item)
            else:
                self._settled(Outcome(item.line.number, item.identifier, Fate.UNKNOWN, doubt))

    def _send(self, items: list[Item]) -> Any:
        return again(lambda: self._node.ask(self._stub.RegisterBatch, self._request(items)))

    def _request(self, items: list[Item]) -> Any:
        return registry_pb2.RegisterBatchRequest(items=[item.request for item in items], wait_for=self._wait_for)

    def _take(self, items: list[Item], response: Any) -> list[tuple[Item, IdtraceError]]:
        """Book the results of a batch; returns those whose outcome is unknown, which stay pending in the journal."""
        if len(response.results) != len(items):
            detail = f"{len(response.results)} results for {len(items)} items"
            nonsense = OutcomeUnknownError(Reason.ANSWER_MALFORMED, detail)
            raise Failure(ExitCode.UNREACHABLE, nonsense, title=f"{self._node.address} answers nonsense")
        receipts: list[tuple[Item, Signed]] = []
        refused: list[tuple[Item, IdtraceError]] = []
        unknown: list[tuple[Item, IdtraceError]] = []
        for item, result in zip(items, response.results, strict=True):
            if result.WhichOneof("result") == "receipt":
                signed = signed_from_pb(result.receipt.signed, "receipt")
                self._check(signed, item.record, item.line.draft.identifier, 1, self._clock())
                receipts.append((item, signed))
                self.levels[level_word(result.receipt.level)] += 1
                continue
            error = item_error(result.error)
            (refused if node_code(error) is ExitCode.REFUSED else unknown).append((item, error))
        self._journal.settle(
            [(item.line.number, item.digest, item.identifier, signed) for item, signed in receipts],
            [item.digest for item, _ in refused],
        )
        for item, signed in receipts:
            self._settled(Outcome(item.line.number, item.identifier, Fate.REGISTERED, receipt=signed))
        for item, error in refused:
            self._settled(Outcome(item.line.number, item.identifier, Fate.REFUSED, error))
        return unknown


def require_own_journal(node: Node, journal: Journal) -> None:
    """Ask the node for what the journal says that it has.

    Raises:
        Failure: USAGE where it does not hold that very record, or as :meth:`Node.ask`.
    """
    for held in journal.held():
        outcome = _held_by_node(node, held)
        if isinstance(outcome, Record) and outcome.hash == held.record_hash:
            continue
        if isinstance(outcome, Denied) and Denial.parse(outcome.signed.payload).reason is _DISABLED:
            disabled = RefusedError(Reason.PREFIX_NOT_ENABLED, f"prefix {held.identifier.prefix} is disabled")
            raise Failure(ExitCode.REFUSED, disabled, title=f"refused by {node.address}")
        said = "has another record of" if isinstance(outcome, Record) else "does not have"
        detail = f"{node.address} {said} {held.identifier}, for which {journal.path} holds a receipt"
        foreign = InputError(Reason.RECEIPT_WRONG_RECORD, detail, field=str(journal.path))
        raise Failure(ExitCode.USAGE, foreign, title="the journal is another node's", hint=_OTHER_JOURNAL)


def _held_by_node(node: Node, held: Held) -> Record | Denied | Referred:
    stub = registry_pb2_grpc.RegistryServiceStub(node.channel)
    question = registry_pb2.RegistryServiceGetRequest(identifier=str(held.identifier), version=1)
    return answer_from_pb(again(lambda: node.ask(stub.Get, question)).answer).outcome


def item_error(error: Any) -> IdtraceError:
    """What a node says of one item, as the error that a call of its own would have ended with."""
    reason = Reason(error.reason) if error.reason in tuple(Reason) else Reason.INTERNAL
    return error_of(code_name(error.code), reason, error.field, error.detail)

"""Registers the lines of a file under batch seals: one signature and one commit for up to 2,000 of them.

A sealed batch is one thing: it is repeated whole, as the same bytes, or not at all. So before it leaves, its bytes lie
beside the journal and the journal names them (:mod:`idtrace.cli.journal`); a run that finds such a batch sends it again
before it reads a line, whatever has become of the source file. What the node had refused is then read from the file
anew, and so is refused anew or by now taken.

What may become of a batch, besides a place in the log for each line or the reason why it has none:

* SEAL_REFUSED: too many of its lines cannot be registered. Nothing of it was committed, and it is cut into pieces of
  as many as a seal's entry can name, which cannot meet with this: at most one batch and three pieces.
* SEAL_CLOSED for a line: an earlier try was committed without it. It goes into a later batch, twice at most.
* refused whole for another reason (a key that is not the zone's, a disabled prefix): each of its lines is.
* no answer: the run ends, and the next one begins with this batch.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import grpc

from idtrace.cli.bulk import BATCH_BYTES_MAX, UNDER_WAY_MAX, Fate, Outcome, item_error, require_own_journal
from idtrace.cli.client import Node, again, failure_of_call
from idtrace.cli.exits import ExitCode, Failure, node_code
from idtrace.cli.journal import Journal, Place, short
from idtrace.cli.rows import BadLine, Line
from idtrace.cli.show import Level, level_word
from idtrace.cli.trust import Zones
from idtrace.entry import ABSENT_MAX
from idtrace.errors import IdtraceError, InputError, OutcomeUnknownError, Reason, RefusedError
from idtrace.identifier import Prefix
from idtrace.record import Value, peek_identifier
from idtrace.seal import Seal, seal
from idtrace.signature import Kind, Signer, signed_hash
from idtrace.v1 import record_pb2, registry_pb2, registry_pb2_grpc
from idtrace.wire import signed_to_pb

# After so many batches a line whose seal was closed each time is told to be refused.
TRIES_MAX: Final = 3
# Lines of several zones gather side by side; the largest batch leaves when together they have two batches' worth.
GATHERED_BATCHES: Final = 2


@dataclass(frozen=True, slots=True)
class Item:
    """One line as it stands in a batch: its body and values, and how often a seal was closed before it."""

    line: Line
    row: bytes
    payload: bytes
    values: tuple[Value, ...]
    tries: int = 0

    @property
    def name(self) -> str:
        """Canonical text of the identifier."""
        return str(self.line.draft.identifier)

    @property
    def size(self) -> int:
        """Bytes on their way, nearly."""
        return len(self.payload) + sum(len(value.data) + 32 for value in self.values)


@dataclass(frozen=True, slots=True)
class Batch:
    """A sealed batch: its request, its zone, and the lines that stand in it."""

    request: Any
    zone: Prefix
    items: tuple[Item, ...]


class SealedRun:
    """One run over one file. ``settled`` hears of every line once, in no particular order."""

    def __init__(
        self,
        *,
        node: Node,
        journal: Journal,
        signer: Signer,
        zones: Zones,
        clock: Callable[[], int],
        settled: Callable[[Outcome], None],
        batch_lines: int,
        wait_for: Level = record_pb2.RECEIPT_LEVEL_UNSPECIFIED,
    ) -> None:
        self._stub = registry_pb2_grpc.RegistryServiceStub(node.channel)
        self._node = node
        self._journal = journal
        self._signer = signer
        self._zones = zones
        self._clock = clock
        self._settled = settled
        self._batch_lines = batch_lines
        self._wait_for = wait_for
        self.levels: Counter[str] = Counter()
        self._under_way: deque[tuple[Batch, Any]] = deque()
        self._finished: dict[bytes, int] = {}
        self._again: list[Item] = []

    def run(self, lines: Iterable[Line | BadLine]) -> None:
        """Register them all.

        Raises:
            Failure: UNREACHABLE where the node stays silent, USAGE where the journal is another node's.
            InputError: the file cannot be read to its end; whatever had left by then is settled.
            VerificationError: a checkpoint is not what it claims to be.
        """
        require_own_journal(self._node, self._journal)
        self._finish_earlier()
        try:
            for batch in self._batches(lines):
                self._send(batch)
        except InputError:  # the rest of the file cannot be read; what has left is still settled
            self._settle_all()
            raise
        self._settle_all()
        while self._again:
            items, self._again = self._again, []
            for batch in self._sealed(items):
                self._send(batch)
            self._settle_all()

    def _finish_earlier(self) -> None:
        """Send the batches again that an earlier run left in doubt; the file's lines tell what became of them."""
        for key, rows in tuple(self._journal.batches.items()):
            request = registry_pb2.RegisterSealedRequest.FromString(self._journal.request_of(key))
            if request.idempotency_key != key or len(request.items) != len(rows):
                detail = "the bytes of an unfinished batch are not those that were about to leave"
                raise InputError(Reason.FIELD_MALFORMED, detail, field=str(self._journal.path))
            response = self._answer(request, partial(self._repeat, request))
            committed = [] if isinstance(response, IdtraceError) else self._committed(request, response)
            for place in committed:
                if not self._journal.is_done(rows[place.number]):
                    self._finished[rows[place.number]] = place.log_position
            self._close(key, committed, response)

    def _batches(self, lines: Iterable[Line | BadLine]) -> Iterator[Batch]:
        gathered: dict[Prefix, list[Item]] = {}
        size = count = 0
        for item in self._items(lines):
            zone = self._zone_of(item)
            if zone is None:
                continue
            into = gathered.setdefault(zone, [])
            into.append(item)
            size, count = size + item.size, count + 1
            is_full = len(into) == self._batch_lines or size >= BATCH_BYTES_MAX
            if is_full or count >= GATHERED_BATCHES * self._batch_lines:
                largest = max(gathered, key=lambda one: len(gathered[one]))
                leaving = gathered.pop(largest)
                size, count = size - sum(one.size for one in leaving), count - len(leaving)
                yield self._seal(leaving, largest)
        for zone, items in gathered.items():
            yield self._seal(items, zone)

    def _sealed(self, items: Sequence[Item]) -> Iterator[Batch]:
        """Batches of lines whose zones are known to have one."""
        by_zone: dict[Prefix, list[Item]] = {}
        for item in items:
            by_zone.setdefault(self._zones.of(item.line.draft.identifier.prefix), []).append(item)
        for zone, own in by_zone.items():
            for start in range(0, len(own), self._batch_lines):
                yield self._seal(own[start : start + self._batch_lines], zone)

    def _items(self, lines: Iterable[Line | BadLine]) -> Iterator[Item]:
        started: set[bytes] = set()
        for line in lines:
            if isinstance(line, BadLine):
                self._settled(Outcome(line.number, line.text, Fate.MALFORMED, line.error))
                continue
            digest, name = line.draft.digest(), str(line.draft.identifier)
            row = short(digest)
            if (position := self._finished.pop(row, None)) is not None:
                self._settled(Outcome(line.number, name, Fate.REGISTERED, log_position=position))
            elif self._journal.is_done(row) or row in started:
                self._settled(Outcome(line.number, name, Fate.ALREADY))
            else:
                started.add(row)
                try:
                    body, values = line.draft.body(self._journal.salts(digest), self._clock())
                except InputError as error:
                    self._settled(Outcome(line.number, name, Fate.MALFORMED, error))
                else:
                    yield Item(line, row, body.payload(), values)

    def _zone_of(self, item: Item) -> Prefix | None:
        try:
            return self._zones.of(item.line.draft.identifier.prefix)
        except RefusedError as error:
            self._settled(Outcome(item.line.number, item.name, Fate.REFUSED, error))
        except Failure as failure:
            if failure.code is not ExitCode.REFUSED:
                raise
            self._settled(Outcome(item.line.number, item.name, Fate.REFUSED, failure.error))
        return None

    def _seal(self, items: Sequence[Item], zone: Prefix) -> Batch:
        hashes = [signed_hash(Kind.RECORD, item.payload) for item in items]
        signed = seal(hashes, zone, self._signer, issued_at=self._clock())[0].seal
        request = registry_pb2.RegisterSealedRequest(
            idempotency_key=signed_hash(Kind.SEAL, signed.payload).hex(),
            seal=signed_to_pb(signed),
            items=[_message(item) for item in items],
            wait_for=self._wait_for,
        )
        return Batch(request, zone, tuple(items))

    def _send(self, batch: Batch) -> None:
        while len(self._under_way) >= UNDER_WAY_MAX:
            self._settle(*self._under_way.popleft())
        request = batch.request
        self._journal.begin_batch(
            request.idempotency_key, [item.row for item in batch.items], request.SerializeToString(deterministic=True)
        )
        future = self._stub.RegisterSealed.future(request, timeout=self._node.timeout_seconds)
        self._under_way.append((batch, future))

    def _settle_all(self) -> None:
        while self._under_way:
            self._settle(*self._under_way.popleft())

    def _settle(self, batch: Batch, future: Any) -> None:
        response = self._answer(batch.request, partial(self._first, batch.request, future))
        key = batch.request.idempotency_key
        if isinstance(response, IdtraceError):
            self._close(key, [], response)
            self._refused_whole(batch, response)
            return
        committed = self._committed(batch.request, response)
        self._close(key, committed, response)
        for place in committed:
            item = batch.items[place.number]
            at = place.log_position
            self._settled(Outcome(item.line.number, item.name, Fate.REGISTERED, log_position=at))
        for item, result in zip(batch.items, response.results, strict=True):
            if result.WhichOneof("result") != "log_position":
                self._refused(item, item_error(result.error))

    def _refused_whole(self, batch: Batch, error: IdtraceError) -> None:
        if error.reason is Reason.SEAL_REFUSED and len(batch.items) > ABSENT_MAX:
            for start in range(0, len(batch.items), ABSENT_MAX):
                self._send(self._seal(batch.items[start : start + ABSENT_MAX], batch.zone))
            return
        for item in batch.items:
            self._settled(Outcome(item.line.number, item.name, Fate.REFUSED, error))

    def _refused(self, item: Item, error: IdtraceError) -> None:
        if error.reason is Reason.SEAL_CLOSED and item.tries + 1 < TRIES_MAX:
            self._again.append(replace(item, tries=item.tries + 1))
            return
        self._settled(Outcome(item.line.number, item.name, Fate.REFUSED, error))

    def _first(self, request: Any, future: Any) -> Any:
        try:
            return future.result()
        except grpc.RpcError as error:
            failure = failure_of_call(error, self._node.address)
            if failure.code is not ExitCode.UNREACHABLE:
                raise failure from None
            return self._repeat(request)

    def _repeat(self, request: Any) -> Any:
        return again(lambda: self._node.ask(self._stub.RegisterSealed, request))

    def _answer(self, request: Any, call: Callable[[], Any]) -> Any:
        """The node's results, or why it refused the batch whole.

        Raises:
            Failure: UNREACHABLE: no answer, one that is none, or one that leaves a line in doubt.
        """
        try:
            response = call()
        except Failure as failure:
            if failure.code is not ExitCode.REFUSED:
                raise
            return failure.error
        if len(response.results) != len(request.items):
            detail = f"{len(response.results)} results for {len(request.items)} items"
            nonsense = OutcomeUnknownError(Reason.ANSWER_MALFORMED, detail)
            raise Failure(ExitCode.UNREACHABLE, nonsense, title=f"{self._node.address} answers nonsense")
        for result in response.results:
            if result.WhichOneof("result") != "log_position":
                error = item_error(result.error)
                if node_code(error) is not ExitCode.REFUSED:
                    raise Failure(ExitCode.UNREACHABLE, error, title=f"no answer from {self._node.address}")
        return response

    def _committed(self, request: Any, response: Any) -> list[Place]:
        """The lines that stand in the log, in their order.

        Raises:
            VerificationError: they stand nowhere that the checkpoint covers, or it is not by the zone's log.
        """
        places = []
        for number, result in enumerate(response.results):
            if result.WhichOneof("result") == "log_position":
                payload = request.items[number].payload
                name, found = str(peek_identifier(payload)), signed_hash(Kind.RECORD, payload)
                places.append(Place(number, name, found, result.log_position))
        if places:
            zone = Seal.parse(request.seal.payload).zone
            self._zones.check_committed(zone, response.checkpoint, [place.log_position for place in places])
        return places

    def _close(self, key: str, committed: Sequence[Place], response: Any) -> None:
        if isinstance(response, IdtraceError) or not committed:
            self._journal.finish_batch(key, (), b"", "")
            return
        level = level_word(response.level)
        self.levels[level] += len(committed)
        self._journal.finish_batch(key, committed, response.checkpoint, level)


def _message(item: Item) -> Any:
    values = [record_pb2.Value(index=v.index, salt=v.salt, data=v.data) for v in item.values]
    return registry_pb2.SealedItem(payload=item.payload, values=values)

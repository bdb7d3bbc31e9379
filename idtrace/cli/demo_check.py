"""Resolves many identifiers through a resolver and verifies every single proof, as an auditor in a hurry would."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from idtrace import wire
from idtrace.bundle import Bundle, Verdict
from idtrace.chain import Anchor, Context, TrustedChain
from idtrace.cli.client import connect, failure_of_call
from idtrace.cli.trust import trusted_chain
from idtrace.errors import IdtraceError, Reason, VerificationError
from idtrace.identifier import Identifier
from idtrace.record import Record
from idtrace.scan import scan
from idtrace.signature import Signed
from idtrace.v1 import resolver_pb2, resolver_pb2_grpc

# The resolver's limit; two batches under way keep both sides busy.
BATCH: Final = 256
UNDER_WAY: Final = 2
TIMEOUT_SECONDS: Final = 30.0


@dataclass(slots=True)
class Tally:
    """What came of a run: proven answers by verdict, refusals by reason, and how long the resolver took.

    ``walked`` counts the answers for which the resolver says that it has asked other nodes.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    walked: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    count: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second, verification included."""
        return self.count / self.seconds if self.seconds else 0.0

    @property
    def summary(self) -> str:
        """What came out, most frequent first: "2,566 proven", and whatever else there was by its name."""
        others = (self.verdicts + self.refused).most_common()
        told = [f"{count:,} {name}" for name, count in others if name != Verdict.FOUND]
        return ", ".join([f"{self.verdicts[Verdict.FOUND]:,} proven", *told])

    def all_found(self, expected: int) -> bool:
        """Whether every one was found and proven."""
        return self.verdicts == {Verdict.FOUND: expected} and not self.refused


class Prover:
    """Verifies bundles; a chain that many bundles share is verified once.

    ``receipted`` are record hashes by identifier: what the owner has a receipt for, and so has to be the answer.
    """

    def __init__(self, anchor: Anchor, now: int, receipted: Mapping[Identifier, bytes] | None = None) -> None:
        self._anchor = anchor
        self._now = now
        self._receipted = receipted or {}
        self._chains: dict[tuple[Signed, ...], TrustedChain] = {}

    def check(self, text: str, bundle: Bundle) -> None:
        """Check that a bundle proves a record of the identifier that stands in ``text``.

        Raises:
            VerificationError: it does not, or a receipt is about another record.
        """
        identifier = scan(text).identifier
        if not isinstance(bundle.outcome, Record):
            raise VerificationError(Reason.ANSWER_CONTRADICTS_ITSELF, "the proof holds no record", field="bundle")
        chain = self._chains.get(bundle.delegations)
        if chain is None:
            chain = trusted_chain(bundle.delegations, self._anchor, self._now)
            self._chains[bundle.delegations] = chain
        chain.check_record(bundle.outcome, identifier, Context.at(self._now))
        if self._receipted.get(identifier, bundle.outcome.hash) != bundle.outcome.hash:
            raise VerificationError(Reason.RECEIPT_WRONG_RECORD, "another record than the receipt's", field="bundle")


def resolve_all(
    address: str,
    texts: Sequence[str],
    prover: Prover,
    progress: Callable[[int], None] = lambda _: None,
    *,
    fresh: bool = False,
) -> Tally:
    """Resolve texts in batches and verify every answer on this side; ``fresh`` asks the authority, not a cache.

    Raises:
        Failure: the resolver does not answer.
    """
    tally = Tally(count=len(texts))
    started = time.perf_counter()
    with connect(address, TIMEOUT_SECONDS) as node:
        stub = resolver_pb2_grpc.ResolverServiceStub(node.channel)
        waiting: list[tuple[Sequence[str], Any]] = []
        for start in range(0, len(texts), BATCH):
            piece = texts[start : start + BATCH]
            items = [resolver_pb2.ResolveRequest(text=text, fresh=fresh) for text in piece]
            request = resolver_pb2.ResolveBatchRequest(items=items)
            waiting.append((piece, stub.ResolveBatch.future(request, timeout=TIMEOUT_SECONDS)))
            if len(waiting) == UNDER_WAY:
                _book(tally, prover, *waiting.pop(0), address)
                progress(BATCH)
        for piece, future in waiting:
            _book(tally, prover, piece, future, address)
            progress(len(piece))
    tally.seconds = time.perf_counter() - started
    return tally


def _book(tally: Tally, prover: Prover, texts: Sequence[str], future: Any, address: str) -> None:
    try:
        results = future.result().results
    except grpc.RpcError as error:
        raise failure_of_call(error, address) from None
    for text, result in zip(texts, results, strict=True):
        if result.WhichOneof("result") == "error":
            tally.refused[result.error.reason] += 1
            continue
        response = result.response
        tally.walked += response.source == resolver_pb2.SOURCE_WALK
        if response.verdict != resolver_pb2.VERDICT_FOUND:
            name = resolver_pb2.Verdict.Name(response.verdict).removeprefix("VERDICT_")
            tally.verdicts[f"{name} ({response.reason})"] += 1
            continue
        try:
            prover.check(text, wire.bundle_from_pb(response.bundle))
            tally.verdicts[Verdict.FOUND] += 1
        except IdtraceError as error:
            tally.refused[str(error.reason)] += 1

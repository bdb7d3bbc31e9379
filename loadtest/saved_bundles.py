"""A saved answer with all its proofs: how many bytes it has, and how long an offline verifier takes over it.

The answer comes from the log of :mod:`loadtest.audit_log`: a record of a sealed batch of 2,000, its inclusion proof, a
checkpoint that the log and three witnesses have signed, and the word that it was the latest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from idtrace import merkle, wire
from idtrace.bundle import Bundle
from idtrace.chain import Anchor, Context, TrustedChain
from idtrace.entry import Entry
from idtrace.logpolicy import LogPolicy
from idtrace.logproof import LogProof, check_recorded
from idtrace.note import KeyType, Note, NoteSigner
from idtrace.record import Record, RecordBody, Sealed
from idtrace.seal import seal
from idtrace.signature import Kind, SignatureMemory, Signed, sign, signed_hash
from idtrace.statements import Currency
from idtrace.tiles import node_reader
from idtrace.verification import verify_bundle
from loadtest.audit_log import BATCH, NOW, ORIGIN, ROOT, ZONE, BenchLog, chain, payload_and_values, signer

WITNESSES: Final = tuple(
    NoteSigner.of(f"witness.example/w{n}", signer(f"witness {n}"), KeyType.COSIGNATURE_ED25519) for n in (1, 2, 3)
)


def policy() -> LogPolicy:
    """Two of the three witnesses have to have seen the log."""
    log = NoteSigner.of(ORIGIN, signer(f"log of {ZONE}")).key
    lines = [
        f"log {log}",
        *(f"witness w{n} {witness.key}" for n, witness in enumerate(WITNESSES, start=1)),
        "group seen 2 w1 w2 w3",
        "quorum seen",
    ]
    return LogPolicy.parse("".join(f"{line}\n" for line in lines).encode())


def saved(log: BenchLog) -> Bundle:
    """The answer about a record in the middle of the log's first batch, with everything that belongs to it."""
    position = BATCH // 2
    index = position + 2  # behind the zone's keys and the seal
    entry = Entry.from_bytes(log.entries[index])
    size = len(log.entries)
    reader = node_reader(size, lambda tile: log.tiles[tile.level, tile.index][: tile.width * merkle.HASH_BYTES])
    path = merkle.fold(merkle.inclusion_plan(index, size), reader)
    note = Note.parse(log.edge.head.note)
    note = note.signed(*(witness.sign(note.text, NOW) for witness in WITNESSES))
    record = Record(
        Signed(Kind.RECORD.payload_type, entry.payload, ()), payload_and_values(position)[1], _place(position)
    )
    body = RecordBody.parse(entry.payload)
    said = Currency(body.identifier, ZONE, 1, record.hash, size, NOW - 5, NOW + 55)
    latest = sign(Kind.CURRENCY, said.payload(), signer(f"currency of {ZONE}"))
    return Bundle(body.identifier, chain(), record, LogProof(index, path, note.encode(), entry.head), latest)


def _place(position: int) -> Sealed:
    hashes = [signed_hash(Kind.RECORD, payload_and_values(number)[0]) for number in range(BATCH)]
    return seal(hashes, ZONE, signer(f"record of {ZONE}"), issued_at=NOW)[position]


@dataclass(frozen=True, slots=True)
class Verifiers:
    """Ways to verify one bundle; each takes all of it or raises."""

    bundle: Bundle
    anchor: Anchor
    policy: LogPolicy
    memory: SignatureMemory

    @classmethod
    def of(cls, bundle: Bundle) -> Verifiers:
        """All of them, with the pinned key of the bench's tree."""
        return cls(bundle, Anchor.of(signer(ROOT).public_key), policy(), SignatureMemory())

    @property
    def works(self) -> dict[str, Callable[[], None]]:
        """By name; ``warm`` ones have met the chain's and the seal's signatures before."""
        return {
            "verify, cold, with the policy": lambda: self.offline(self.policy),
            "verify, cold": lambda: self.offline(None),
            "steps alone, cold": lambda: self.steps(None),
            "steps alone, warm": lambda: self.steps(self.memory),
        }

    def offline(self, policy: LogPolicy | None) -> None:
        """As ``idtrace verify`` does, with a report of every step."""
        report = verify_bundle(self.bundle, self.anchor, now=NOW, policy=policy)
        assert report.valid, report.checks[-1].detail
        assert all(check.made for check in report.checks) or policy is None, "nothing was left out"

    def steps(self, memory: SignatureMemory | None) -> None:
        """The same checks without a report and without witnesses, as a resolver makes them."""
        context = Context.at(NOW, memory=memory)
        first, *others = self.bundle.delegations
        trusted = TrustedChain.begin(self.anchor, first, context)
        for link in others:
            trusted = trusted.extend(link, context)
        record, proof, currency = self.bundle.outcome, self.bundle.proof, self.bundle.currency
        assert isinstance(record, Record), "it was found"
        check_recorded(record, self.bundle.identifier, trusted, context, proof=proof, currency=currency)


def sizes(bundle: Bundle) -> dict[str, int]:
    """Bytes of the bundle in each form, and of what is in it."""
    assert bundle.proof is not None, "it has a proof"
    packed = wire.bundle_to_bytes(bundle)
    assert Bundle.from_json(bundle.to_json()) == bundle, "both forms say the same"
    return {
        "protobuf": len(packed),
        "JSON": len(bundle.to_json().encode()),
        "of it the checkpoint and its 4 signatures": len(bundle.proof.checkpoint),
    }


def microseconds(work: Callable[[], None], count: int) -> float:
    """CPU time of one turn, the mean of so many."""
    start = time.process_time()
    for _ in range(count):
        work()
    return (time.process_time() - start) / count * 1e6

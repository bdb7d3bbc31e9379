"""What the command line believes of a node: nothing that it has not checked.

Whoever signs a next version signs what the current one says, so the current one has to be genuine first: verified from
the pinned root key, or signed by the very key that signs now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from idtrace.bundle import Denied, NodeAnswer, Referred
from idtrace.chain import Anchor, Context, TrustedChain
from idtrace.checkpoint import Checkpoint
from idtrace.cli.client import Node, again
from idtrace.cli.exits import ExitCode, Failure
from idtrace.delegation import Delegation
from idtrace.errors import InputError, Reason, RefusedError, VerificationError
from idtrace.identifier import Identifier, Prefix
from idtrace.logproof import check_recorded, log_keys
from idtrace.note import Note, open_note
from idtrace.record import Record, RecordBody, check_values
from idtrace.seal import Seal, check_path
from idtrace.signature import CheckBudget, Kind, PublicKey, Signed, verify
from idtrace.statements import Receipt
from idtrace.v1 import delegation_pb2, delegation_pb2_grpc, registry_pb2, registry_pb2_grpc
from idtrace.wire import answer_from_pb, delegations_from_pb

# Prefixes of one file whose zone is remembered; an enterprise has a handful.
ZONES_KEPT_MAX: Final = 4_096


@dataclass(frozen=True, slots=True)
class Zone:
    """What a node says of a zone, unverified: the delegations from the root towards it."""

    chain: tuple[Signed, ...]


def trusted_chain(delegations: Sequence[Signed], anchor: Anchor, now: int) -> TrustedChain:
    """Verify a chain from the pinned root key down.

    Raises:
        VerificationError: CHAIN_EMPTY, or what the broken step says.
    """
    if not delegations:
        raise VerificationError(Reason.CHAIN_EMPTY, "the node shows no delegation", field="chain")
    return TrustedChain.whole(anchor, delegations, Context.at(now))


def zone_of(node: Node, prefix: Prefix) -> Zone:
    """Ask a node for the delegations down to a zone.

    Raises:
        Failure: as :meth:`Node.ask`.
        InputError: a malformed answer.
    """
    stub = delegation_pb2_grpc.DelegationServiceStub(node.channel)
    answer = node.ask(stub.Get, delegation_pb2.DelegationServiceGetRequest(prefix=str(prefix)))
    return Zone(delegations_from_pb(answer.chain, "chain"))


def current_delegation(
    chain: Sequence[Signed], child: Prefix, keys: Sequence[PublicKey], anchor: Anchor | None, now: int
) -> Delegation | None:
    """The version in force of a child's delegation; None where the node knows of none.

    Raises:
        VerificationError: it is not genuine; SIGNER_UNKNOWN where another key signed it and no root key is pinned.
    """
    if not chain:
        return None
    last = Delegation.parse(chain[-1].payload)
    if last.child != child:
        return None
    if anchor is not None:
        return trusted_chain(chain, anchor, now).delegation
    _require_own(chain[-1], Kind.DELEGATION, keys, f"the delegation of '{child}'")
    return last


def current_record(
    node: Node, identifier: Identifier, own: PublicKey | None, anchor: Anchor | None, now: int
) -> tuple[Record, RecordBody]:
    """The latest version of an identifier, genuine and with its values checked; ``own`` where there is no anchor.

    Raises:
        Failure: REFUSED where the node has no such record.
        VerificationError: the record is not genuine.
    """
    stub = registry_pb2_grpc.RegistryServiceStub(node.channel)
    answer = answer_from_pb(
        node.ask(stub.Get, registry_pb2.RegistryServiceGetRequest(identifier=str(identifier))).answer
    )
    match answer.outcome:
        case Denied():
            unknown = RefusedError(Reason.IDENTIFIER_UNKNOWN, f"{identifier} is not registered", field="identifier")
            raise Failure(ExitCode.REFUSED, unknown, title=f"refused by {node.address}")
        case Referred(zone):
            elsewhere = RefusedError(Reason.NOT_AUTHORITATIVE, f"zone {zone} is served elsewhere", field="identifier")
            hint = _where(answer.delegations)
            raise Failure(ExitCode.REFUSED, elsewhere, title=f"refused by {node.address}", hint=hint)
        case Record() as record:
            return record, _genuine(record, answer, identifier, own, anchor, now)


def _genuine(
    record: Record,
    answer: NodeAnswer,
    identifier: Identifier,
    own: PublicKey | None,
    anchor: Anchor | None,
    now: int,
) -> RecordBody:
    if anchor is not None:
        chain = trusted_chain(answer.delegations, anchor, now)
        context, proof, currency = Context.at(now), answer.proof, answer.currency
        return check_recorded(record, identifier, chain, context, proof=proof, currency=currency).body
    assert own is not None, "who pins no root key signs with a key of its own"
    _require_own_record(record, identifier, own)
    body = RecordBody.parse(record.signed.payload)
    if body.identifier != identifier:
        raise VerificationError(Reason.RECORD_WRONG_IDENTIFIER, f"the record is about {body.identifier}")
    check_values(body, record.values)
    return body


def _require_own_record(record: Record, identifier: Identifier, own: PublicKey) -> None:
    """Own work alone or under a seal: then the seal is ours, of a zone above the identifier, and over this record."""
    what = f"the current version of {identifier}"
    if record.sealed is None:
        _require_own(record.signed, Kind.RECORD, [own], what)
        return
    _require_own(record.sealed.seal, Kind.SEAL, [own], f"the seal over {what}")
    seal = Seal.parse(record.sealed.seal.payload)
    if not identifier.prefix.within(seal.zone):
        detail = f"{identifier} stands under a seal of zone {seal.zone}"
        raise VerificationError(Reason.SEAL_WRONG_ZONE, detail, field="record.seal")
    check_path(record.hash, record.sealed, seal)


def _require_own(signed: Signed, kind: Kind, keys: Sequence[PublicKey], what: str) -> None:
    try:
        verify(signed, kind, {key.key_id: key for key in keys}, budget=CheckBudget(8))
    except VerificationError as error:
        if error.reason is not Reason.SIGNER_UNKNOWN:
            raise
        hint = "pin the root key with --root, and it is verified from there"
        detail = f"{what} is signed by another key than yours"
        raise Failure(ExitCode.BOGUS, VerificationError(error.reason, detail), hint=hint) from None


def _where(delegations: Sequence[Signed]) -> str:
    try:
        last = Delegation.parse(delegations[-1].payload)
    except (IndexError, InputError):
        return ""
    return f"ask --node {last.endpoints[0]}" if last.endpoints else ""


class ReceiptCheck:
    """Checks that a receipt is about the record that was sent; with a pinned root key also that the zone signed it."""

    def __init__(self, node: Node, anchor: Anchor | None) -> None:
        self._node = node
        self._anchor = anchor
        self._chains: dict[Prefix, TrustedChain] = {}

    def __call__(self, signed: Signed, record: Record, identifier: Identifier, version: int, now: int) -> Receipt:
        """Check one receipt.

        Raises:
            VerificationError: RECEIPT_WRONG_RECORD or what the chain says.
            InputError: malformed.
        """
        receipt = Receipt.parse(signed.payload)
        if (receipt.identifier, receipt.version, receipt.record_hash) != (identifier, version, record.hash):
            detail = f"the receipt for {identifier} is about something else"
            raise VerificationError(Reason.RECEIPT_WRONG_RECORD, detail, field="receipt")
        if self._anchor is not None:
            if receipt.zone not in self._chains:
                delegations = zone_of(self._node, receipt.zone).chain
                self._chains[receipt.zone] = trusted_chain(delegations, self._anchor, now)
            self._chains[receipt.zone].check_receipt(signed, record, Context.at(now))
        return receipt


class Zones:
    """Which zone's keys seal the records of a prefix; with a pinned root key also whether its log speaks."""

    def __init__(self, node: Node, anchor: Anchor | None, now: Callable[[], int]) -> None:
        self._node = node
        self._anchor = anchor
        self._now = now
        self._zones: dict[Prefix, Prefix] = {}
        self._chains: dict[Prefix, TrustedChain] = {}

    def of(self, prefix: Prefix) -> Prefix:
        """The deepest zone above a prefix, as the node says: a wrong word makes a seal that no node takes.

        Raises:
            Failure: as :meth:`Node.ask`.
            RefusedError: PREFIX_UNKNOWN.
            VerificationError: the chain does not verify from the pinned root key.
        """
        if prefix not in self._zones:
            chain = again(lambda: zone_of(self._node, prefix)).chain
            last = Delegation.parse(chain[-1].payload) if chain else None
            if last is None or not prefix.within(last.child):
                raise RefusedError(Reason.PREFIX_UNKNOWN, f"the node knows of no zone above {prefix}", field="prefix")
            if self._anchor is not None and last.child not in self._chains:
                self._chains[last.child] = trusted_chain(chain, self._anchor, self._now())
            if len(self._zones) >= ZONES_KEPT_MAX:
                self._zones.clear()
            self._zones[prefix] = last.child
        return self._zones[prefix]

    def check_committed(self, zone: Prefix, checkpoint: bytes, positions: Sequence[int]) -> None:
        """Check the checkpoint of a sealed batch, and that it covers the places (index plus one) of its records.

        Raises:
            VerificationError: ANSWER_CONTRADICTS_ITSELF; with a pinned root key also LOG_UNKNOWN or what the note says.
            InputError: the checkpoint is malformed.
        """
        if not checkpoint and not any(positions):
            return
        note = Note.parse(checkpoint, field="checkpoint")
        said = Checkpoint.parse(note.text, field="checkpoint")
        if any(at >= after for at, after in pairwise((0, *positions))) or positions[-1] > said.size:
            detail = f"the records do not stand one after the other in a log of {said.size} entries"
            raise VerificationError(Reason.ANSWER_CONTRADICTS_ITSELF, detail, field="results")
        if self._anchor is None:
            return
        if zone not in self._chains:
            self._chains[zone] = trusted_chain(zone_of(self._node, zone).chain, self._anchor, self._now())
        chain = self._chains[zone]
        if said.origin != chain.delegation.log:
            detail = f"zone {zone} does not keep its records in the log {said.origin}"
            raise VerificationError(Reason.LOG_UNKNOWN, detail, field="checkpoint")
        open_note(note, log_keys(chain), field="checkpoint")

"""What the command line believes of a node: nothing that it has not checked.

Whoever signs a next version signs what the current one says, so the current one has to be genuine first: verified from
the pinned root key, or signed by the very key that signs now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from idtrace.bundle import Denied, NodeAnswer, Referred
from idtrace.chain import Anchor, Context, TrustedChain
from idtrace.cli.client import Node
from idtrace.cli.exits import ExitCode, Failure
from idtrace.delegation import Delegation
from idtrace.errors import InputError, Reason, RefusedError, VerificationError
from idtrace.identifier import Identifier, Prefix
from idtrace.logproof import check_recorded
from idtrace.record import Record, RecordBody, check_values
from idtrace.signature import CheckBudget, Kind, PublicKey, Signed, verify
from idtrace.statements import Receipt
from idtrace.v1 import delegation_pb2, delegation_pb2_grpc, registry_pb2, registry_pb2_grpc
from idtrace.wire import answer_from_pb, delegations_from_pb


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
    node: Node, identifier: Identifier, own: PublicKey, anchor: Anchor | None, now: int
) -> tuple[Record, RecordBody]:
    """The latest version of an identifier, genuine and with its values checked.

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
    own: PublicKey,
    anchor: Anchor | None,
    now: int,
) -> RecordBody:
    if anchor is not None:
        chain = trusted_chain(answer.delegations, anchor, now)
        context, proof, currency = Context.at(now), answer.proof, answer.currency
        return check_recorded(record, identifier, chain, context, proof=proof, currency=currency).body
    _require_own(record.signed, Kind.RECORD, [own], f"the current version of {identifier}")
    body = RecordBody.parse(record.signed.payload)
    if body.identifier != identifier:
        raise VerificationError(Reason.RECORD_WRONG_IDENTIFIER, f"the record is about {body.identifier}")
    check_values(body, record.values)
    return body


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

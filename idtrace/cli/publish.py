"""Publishes the first or the next version of a record that a command keeps, such as a licence or a zone's recalls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from idtrace.chain import Anchor
from idtrace.cli.client import Node
from idtrace.cli.drafts import idempotency_key, signed_record
from idtrace.cli.exits import Failure
from idtrace.cli.options import now
from idtrace.cli.show import Level, wait_for
from idtrace.cli.trust import ReceiptCheck, current_record
from idtrace.errors import Reason
from idtrace.identifier import Identifier
from idtrace.record import Record, RecordBody, Value
from idtrace.signature import PublicKey, Signed, Signer
from idtrace.statements import Receipt
from idtrace.v1 import registry_pb2, registry_pb2_grpc
from idtrace.wire import record_to_pb, signed_from_pb

Current = tuple[Record, RecordBody]


@dataclass(frozen=True, slots=True)
class Published:
    """What is durable now: its body, and the checked receipt with how much stands behind it."""

    body: RecordBody
    receipt: Receipt
    signed: Signed
    level: Level


def current_or_none(node: Node, identifier: Identifier, own: PublicKey | None, anchor: Anchor | None) -> Current | None:
    """The latest version, genuine (``own`` where there is no anchor); None where there has never been one.

    Raises:
        Failure: the node does not answer, or is not the one to ask.
        VerificationError: the record is not genuine.
    """
    try:
        return current_record(node, identifier, own, anchor, now())
    except Failure as failure:
        if failure.error.reason is not Reason.IDENTIFIER_UNKNOWN:
            raise
        return None


def publish(
    node: Node,
    signer: Signer,
    anchor: Anchor | None,
    identifier: Identifier,
    draft: Callable[[Current | None], tuple[RecordBody, tuple[Value, ...]]],
    *,
    witnessed: bool = False,
) -> Published:
    """Sign what ``draft`` makes of the current version, and wait until it is durable.

    Raises:
        Failure, VerificationError, InputError: of the node, of its answers, of the draft.
    """
    current = current_or_none(node, identifier, signer.public_key, anchor)
    body, values = draft(current)
    record = signed_record(body, values, signer)
    stub = registry_pb2_grpc.RegistryServiceStub(node.channel)
    parts: dict[str, Any] = {"idempotency_key": idempotency_key(record.signed.payload), "record": record_to_pb(record)}
    level = wait_for(witnessed=witnessed)
    if current is None:
        told = node.write(stub.Register, registry_pb2.RegisterRequest(**parts, wait_for=level)).receipt
    else:
        told = node.write(stub.Update, registry_pb2.UpdateRequest(**parts, wait_for=level)).receipt
    signed = signed_from_pb(told.signed, "receipt")
    receipt = ReceiptCheck(node, anchor)(signed, record, identifier, body.version, now())
    return Published(body, receipt, signed, told.level)

"""``idtrace update`` and ``idtrace retire``: the next version of an identifier, and its last one."""

from __future__ import annotations

import secrets
import sys
from typing import Annotated, Any

import typer

from idtrace.bundle import signed_to_json
from idtrace.cli.client import Node, connect
from idtrace.cli.drafts import Change, entries, idempotency_key, next_version, signed_record, tombstone
from idtrace.cli.options import (
    TIMEOUT_SECONDS,
    JsonOption,
    KeyOption,
    NodeOption,
    OptionalRootOption,
    PassphraseEnvOption,
    PassphrasePromptOption,
    TimeoutOption,
    anchor_of,
    now,
    output_of,
    signer_of,
)
from idtrace.cli.output import Output
from idtrace.cli.show import receipt_table
from idtrace.cli.trust import ReceiptCheck, current_record
from idtrace.errors import Reason, RefusedError
from idtrace.identifier import Identifier
from idtrace.record import SALT_BYTES, TTL_SECONDS_MAX, Record, RecordBody, RecordKind, Status
from idtrace.scan import scan
from idtrace.v1 import registry_pb2, registry_pb2_grpc
from idtrace.wire import record_to_pb, signed_from_pb

_STATUSES = (Status.ACTIVE, Status.SUSPENDED, Status.RECALLED)


def update(
    ctx: typer.Context,
    identifier: Annotated[str, typer.Argument(metavar="ID", help="Identifier, or any code as scanned.")],
    key: KeyOption,
    node: NodeOption,
    status: Annotated[
        str | None, typer.Option("--status", metavar="active|suspended|recalled", help="May the thing be used?")
    ] = None,
    value: Annotated[
        list[str] | None, typer.Option("--value", "-v", metavar="TYPE=TEXT", help="Add or replace a value; repeatable.")
    ] = None,
    restricted: Annotated[
        list[str] | None, typer.Option("--restricted", metavar="TYPE", help="Given values that are not for everybody.")
    ] = None,
    unset: Annotated[
        list[str] | None, typer.Option("--unset", metavar="TYPE", help="Drop a value; repeatable.")
    ] = None,
    class_: Annotated[str, typer.Option("--class", metavar="ID", help="Move it to another class.")] = "",
    ttl: Annotated[
        int | None,
        typer.Option("--ttl", metavar="SECONDS", min=0, max=TTL_SECONDS_MAX, help="How long caches keep it."),
    ] = None,
    root: OptionalRootOption = None,
    passphrase_env: PassphraseEnvOption = None,
    passphrase_prompt: PassphrasePromptOption = False,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Publish the next version of an identifier; whatever is not named stays as it is.

    Example: idtrace update 88.118.8/SN-1 --status recalled -v notice=https://maker.example/recall-7
    """
    del as_json
    output = output_of(ctx)
    if status is not None and status not in _STATUSES:
        raise typer.BadParameter(f"{status!r} is not one of {', '.join(_STATUSES)}", param_hint="--status")
    change = Change(
        status=Status(status) if status else None,
        values=entries(value or (), restricted or ()),
        unset=tuple(unset or ()),
        class_id=Identifier.parse(class_, field="--class") if class_ else None,
        ttl_seconds=ttl,
    )
    if change.is_empty:
        raise typer.BadParameter("say what changes", param_hint="--status, --value, --unset, --class or --ttl")
    wanted = scan(identifier).identifier
    signer = signer_of(key, passphrase_env, prompt=passphrase_prompt)
    anchor = anchor_of(root) if root else None
    with connect(node, timeout) as peer:
        record, body = current_record(peer, wanted, signer.public_key, anchor, now())
        _require_alive(body)
        salts = [secrets.token_bytes(SALT_BYTES) for _ in change.values]
        following, values = next_version(record, body, change, salts, now())
        stub = registry_pb2_grpc.RegistryServiceStub(peer.channel)
        check = ReceiptCheck(peer, anchor)
        _commit(output, peer, stub.Update, registry_pb2.UpdateRequest, signed_record(following, values, signer), check)


def retire(
    ctx: typer.Context,
    identifier: Annotated[str, typer.Argument(metavar="ID", help="Identifier, or any code as scanned.")],
    key: KeyOption,
    node: NodeOption,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask: it is final.")] = False,
    root: OptionalRootOption = None,
    passphrase_env: PassphraseEnvOption = None,
    passphrase_prompt: PassphrasePromptOption = False,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """End an identifier for ever with a tombstone. It can never be registered again.

    Example: idtrace retire 88.118.8/SN-1 --yes
    """
    del as_json
    output = output_of(ctx)
    wanted = scan(identifier).identifier
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter(f"{wanted} would end for ever; say --yes if that is meant", param_hint="--yes")
    signer = signer_of(key, passphrase_env, prompt=passphrase_prompt)
    anchor = anchor_of(root) if root else None
    with connect(node, timeout) as peer:
        record, body = current_record(peer, wanted, signer.public_key, anchor, now())
        _require_alive(body)
        if not yes:
            typer.confirm(f"End {wanted} (version {body.version}, {body.status}) for ever?", abort=True, err=True)
        last = signed_record(tombstone(record, body, now()), (), signer)
        stub = registry_pb2_grpc.RegistryServiceStub(peer.channel)
        _commit(output, peer, stub.Retire, registry_pb2.RetireRequest, last, ReceiptCheck(peer, anchor))


def _require_alive(body: RecordBody) -> None:
    if body.kind is RecordKind.TOMBSTONE:
        detail = f"{body.identifier} has ended and is never used again"
        raise RefusedError(Reason.IDENTIFIER_RETIRED, detail, field="identifier")


def _commit(output: Output, node: Node, method: Any, message: Any, record: Record, check: ReceiptCheck) -> None:
    body = RecordBody.parse(record.signed.payload)
    request = message(idempotency_key=idempotency_key(record.signed.payload), record=record_to_pb(record))
    signed = signed_from_pb(node.write(method, request).receipt.signed, "receipt")
    receipt = check(signed, record, body.identifier, body.version, now())
    document = {"identifier": str(body.identifier), "version": body.version, "status": body.status}
    output.document({**document, "receipt": signed_to_json(signed)})
    title = "retired" if body.kind is RecordKind.TOMBSTONE else f"now {body.status}"
    output.show(receipt_table(title, receipt))

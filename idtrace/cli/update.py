"""``idtrace update`` and ``idtrace retire``: the next version of an identifier, and its last one."""

from __future__ import annotations

import secrets
import sys
from typing import Annotated, Any

import typer

from idtrace.bundle import signed_to_json
from idtrace.cli.client import Node, connect
from idtrace.cli.drafts import Change, entries, idempotency_key, next_version, signed_record, tombstone
from idtrace.cli.options import WitnessedOption, now, output_of
from idtrace.cli.output import Output
from idtrace.cli.show import level_word, receipt_table, wait_for, warn_unless_witnessed
from idtrace.cli.signing_options import RecordSigning, grouped
from idtrace.cli.trust import ReceiptCheck, current_record
from idtrace.errors import Reason, RefusedError
from idtrace.identifier import Identifier
from idtrace.record import SALT_BYTES, TTL_SECONDS_MAX, Record, RecordBody, RecordKind, Status
from idtrace.scan import scan
from idtrace.v1 import registry_pb2, registry_pb2_grpc
from idtrace.wire import record_to_pb, signed_from_pb

_STATUSES = (Status.ACTIVE, Status.SUSPENDED, Status.RECALLED)


@grouped
def update(
    ctx: typer.Context,
    identifier: Annotated[str, typer.Argument(metavar="ID", help="Identifier, or any code as scanned.")],
    by: RecordSigning,
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
    witnessed: WitnessedOption = False,
) -> None:
    """Publish the next version of an identifier; whatever is not named stays as it is.

    Example: idtrace update 88.118.8/SN-1 --status recalled -v notice=https://maker.example/recall-7
    """
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
    signer, anchor = by.signer(), by.anchor()
    with connect(by.node, by.timeout) as peer:
        record, body = current_record(peer, wanted, signer.public_key, anchor, now())
        _require_alive(body)
        salts = [secrets.token_bytes(SALT_BYTES) for _ in change.values]
        following, values = next_version(record, body, change, salts, now())
        stub = registry_pb2_grpc.RegistryServiceStub(peer.channel)
        check = ReceiptCheck(peer, anchor)
        call = (stub.Update, registry_pb2.UpdateRequest)
        _commit(output, peer, call, signed_record(following, values, signer), check, witnessed=witnessed)


@grouped
def retire(
    ctx: typer.Context,
    identifier: Annotated[str, typer.Argument(metavar="ID", help="Identifier, or any code as scanned.")],
    by: RecordSigning,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask: it is final.")] = False,
    witnessed: WitnessedOption = False,
) -> None:
    """End an identifier for ever with a tombstone. It can never be registered again.

    Example: idtrace retire 88.118.8/SN-1 --yes
    """
    output = output_of(ctx)
    wanted = scan(identifier).identifier
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter(f"{wanted} would end for ever; say --yes if that is meant", param_hint="--yes")
    signer, anchor = by.signer(), by.anchor()
    with connect(by.node, by.timeout) as peer:
        record, body = current_record(peer, wanted, signer.public_key, anchor, now())
        _require_alive(body)
        if not yes:
            typer.confirm(f"End {wanted} (version {body.version}, {body.status}) for ever?", abort=True, err=True)
        last = signed_record(tombstone(record, body, now()), (), signer)
        stub = registry_pb2_grpc.RegistryServiceStub(peer.channel)
        call = (stub.Retire, registry_pb2.RetireRequest)
        _commit(output, peer, call, last, ReceiptCheck(peer, anchor), witnessed=witnessed)


def _require_alive(body: RecordBody) -> None:
    if body.kind is RecordKind.TOMBSTONE:
        detail = f"{body.identifier} has ended and is never used again"
        raise RefusedError(Reason.IDENTIFIER_RETIRED, detail, field="identifier")


def _commit(
    output: Output, node: Node, call: tuple[Any, Any], record: Record, check: ReceiptCheck, *, witnessed: bool
) -> None:
    method, message = call
    body = RecordBody.parse(record.signed.payload)
    key = idempotency_key(record.signed.payload)
    request = message(idempotency_key=key, record=record_to_pb(record), wait_for=wait_for(witnessed=witnessed))
    told = node.write(method, request).receipt
    signed = signed_from_pb(told.signed, "receipt")
    receipt = check(signed, record, body.identifier, body.version, now())
    document = {"identifier": str(body.identifier), "version": body.version, "status": body.status}
    output.document({**document, "receipt": signed_to_json(signed), "level": level_word(told.level)})
    title = "retired" if body.kind is RecordKind.TOMBSTONE else f"now {body.status}"
    output.show(receipt_table(title, receipt, told.level))
    warn_unless_witnessed(output, told.level, asked=witnessed)

"""``idtrace recall ack`` and ``idtrace recall status``: who knows of a recall, and what they have set aside.

An acknowledgement is an event like any other, signed by the party, logged and provable: ObjectEvent OBSERVE, bizStep
``holding``, disposition ``recalled`` (CBV 2.0, section 7), of the things that were found, and ``idtrace:recall`` is the
recall's name. It names the zone's recalls as its business transaction, so that the zone's node hears of it.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from idtrace.bundle import signed_to_json
from idtrace.cli import recall_holders
from idtrace.cli.bulk import item_error
from idtrace.cli.client import connect
from idtrace.cli.drafts import signed_record
from idtrace.cli.exits import ExitCode, Failure, node_code
from idtrace.cli.options import (
    JsonOption,
    ResolverOption,
    RootOption,
    RootUpdateOption,
    TimeoutOption,
    now,
    output_of,
    roots_of,
)
from idtrace.cli.output import listing, plain
from idtrace.cli.recall_holders import HOLDERS_SECONDS
from idtrace.cli.show import receipt_table, utc, wait_for
from idtrace.cli.signing_options import RecordSigning, grouped
from idtrace.cli.trust import ReceiptCheck
from idtrace.epcis.model import Action, Event, EventType, Typed
from idtrace.epcis.statement import event_body
from idtrace.epcis.uris import uri_of
from idtrace.epcis.write import event_bytes
from idtrace.errors import InputError, OutcomeUnknownError, Reason
from idtrace.identifier import Prefix
from idtrace.recall import NAME_MAX, recalls_identifier
from idtrace.scan import scan
from idtrace.v1 import capture_pb2, capture_pb2_grpc
from idtrace.wire import record_to_pb, signed_from_pb

# What one shelf holds; more is a carton's or a pallet's code.
THINGS_MAX: Final = 100
COMMENT_MAX: Final = 500
_COUNT_MAX: Final = 2**31


def acknowledgement(
    zone: Prefix, name: str, things: list[str], at_ms: int, *, found: int | None, quarantined: int | None, comment: str
) -> Event:
    """The event by which a party says that it knows of a recall.

    Raises:
        InputError: FIELD_TOO_LARGE, FIELD_MALFORMED, or a thing that is none.
    """
    if not 0 < len(name) <= NAME_MAX:
        raise InputError(Reason.FIELD_TOO_LARGE, f"a recall's name has 1 to {NAME_MAX} characters", field="NAME")
    if len(things) > THINGS_MAX:
        rule = f"at most {THINGS_MAX} things; give the code of the package that they are in"
        raise InputError(Reason.FIELD_TOO_LARGE, rule, field="THING")
    if len(comment) > COMMENT_MAX:
        raise InputError(Reason.FIELD_TOO_LARGE, f"a comment has at most {COMMENT_MAX} characters", field="--comment")
    recalls = uri_of(str(recalls_identifier(zone)))
    named = dict.fromkeys(uri_of(str(scan(thing).identifier)) for thing in things)
    said: dict[str, Any] = {"idtrace:recall": name, "idtrace:found": found, "idtrace:quarantined": quarantined}
    said["idtrace:comment"] = comment or None
    return Event(
        EventType.OBJECT,
        Action.OBSERVE,
        at_ms,
        0,
        # An ObjectEvent is about something: where nothing was found, about the recall itself.
        epcs=tuple(named) or (recalls,),
        biz_step="holding",
        disposition="recalled",
        biz_transactions=(Typed("", recalls),),
        extensions={key: value for key, value in said.items() if value is not None},
    )


@grouped
def acknowledge(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The recall's name.")],
    by: RecordSigning,
    zone: Annotated[str, typer.Option("--zone", metavar="PREFIX", help="The zone that recalls.")],
    party: Annotated[str, typer.Option("--party", metavar="PREFIX", help="Who acknowledges; its key signs.")],
    things: Annotated[
        list[str] | None, typer.Argument(metavar="[THING]...", help="What was found here: doses, cartons, pallets.")
    ] = None,
    found: Annotated[
        int | None, typer.Option("--found", metavar="DOSES", min=0, max=_COUNT_MAX, help="Doses that were here.")
    ] = None,
    quarantined: Annotated[
        int | None, typer.Option("--quarantined", metavar="DOSES", min=0, max=_COUNT_MAX, help="Doses set aside.")
    ] = None,
    comment: Annotated[str, typer.Option("--comment", metavar="TEXT", help="In your own words.")] = "",
) -> None:
    """Say that a party knows of a recall, and what it has found and set aside.

    Example: idtrace recall ack R-2026-01 88.118.8/C-1 --zone 88.118.8 --party 88.118.9 --found 40 --quarantined 40
    --key clinic.key --node localhost:7203
    """
    prefix, reporter = Prefix.parse(zone, field="--zone"), Prefix.parse(party, field="--party")
    at_ms = time.time_ns() // 1_000_000
    event = acknowledgement(
        prefix, name, things or [], at_ms, found=found, quarantined=quarantined, comment=comment
    )  # fmt: skip
    signer, output = by.signer(), output_of(ctx)
    body, values = event_body(reporter, event_bytes(event), issued_at=now())
    record = signed_record(body, values, signer)
    request = capture_pb2.CaptureRequest(
        error_behaviour=capture_pb2.ERROR_BEHAVIOUR_PROCEED, wait_for=wait_for(witnessed=False)
    )
    request.signed.records.append(record_to_pb(record))
    with connect(by.node, by.timeout) as peer:
        response = peer.write(capture_pb2_grpc.CaptureServiceStub(peer.channel).Capture, request)
        if len(response.results) != 1:
            nonsense = OutcomeUnknownError(Reason.ANSWER_MALFORMED, f"{len(response.results)} results for one event")
            raise Failure(ExitCode.UNREACHABLE, nonsense, title=f"{peer.address} answers nonsense")
        result = response.results[0]
        if result.WhichOneof("result") != "captured":
            error = item_error(result.refusal.error)
            raise Failure(node_code(error), error, title=f"refused by {peer.address}")
        told = result.captured.receipt
        signed = signed_from_pb(told.signed, "receipt")
        receipt = ReceiptCheck(peer, by.anchor())(signed, record, body.identifier, 1, now())
    document = {"recall": name, "zone": str(prefix), "party": str(reporter), "event": str(body.identifier)}
    output.document({**document, "receipt": signed_to_json(signed)})
    output.show(receipt_table(f"{reporter} knows of {plain(name)}", receipt, told.level))


def status(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The recall's name.")],
    zone: Annotated[str, typer.Option("--zone", metavar="PREFIX", help="The zone that recalls.")],
    resolver: ResolverOption,
    root: RootOption,
    root_update: RootUpdateOption = None,
    timeout: TimeoutOption = HOLDERS_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Show which holders have acknowledged a recall, and which have not, the most doses first.

    The exit code is 6 while a holder has not, and 4 where not all holders could be found.

    Example: idtrace recall status R-2026-01 --zone 88.118.8 --resolver localhost:7400 --root root.key.pub
    """
    del as_json
    output = output_of(ctx)
    prefix = Prefix.parse(zone, field="--zone")
    found = recall_holders.holders(resolver, timeout, prefix, name, roots_of(root, root_update).anchor)
    parties: dict[str, dict[str, Any]] = {}
    for row in found.rows:
        known = parties.setdefault(row.holder or "?", {"doses": 0, "since_ms": row.since_ms, "acknowledged_ms": None})
        known["doses"] += row.doses
        known["since_ms"] = min(known["since_ms"], row.since_ms)
        if row.HasField("acknowledged_ms"):
            known["acknowledged_ms"] = row.acknowledged_ms
    order = sorted(parties, key=lambda one: (parties[one]["acknowledged_ms"] is not None, -parties[one]["doses"], one))
    silent = [one for one in order if parties[one]["acknowledged_ms"] is None and parties[one]["doses"]]
    code = ExitCode.UNREACHABLE if found.gaps else ExitCode.PARTLY if silent else ExitCode.OK
    waiting_s = max(0, now() - found.recall.issued_at)
    output.document(
        {
            "recall": name,
            "zone": str(prefix),
            "issued_at": found.recall.issued_at,
            "holders": [{"holder": one, **parties[one]} for one in order],
            "not_acknowledged": silent,
            "gaps": len(found.gaps),
            "exit_code": int(code),
        }
    )
    table = listing("holder", "doses", "knows since")
    for one in order:
        at_ms = parties[one]["acknowledged_ms"]
        word = utc(at_ms // 1000) if at_ms is not None else Text("not yet", style="bold red")
        table.add_row(plain(one), f"{parties[one]['doses']:,}", word)
    doses = sum(parties[one]["doses"] for one in silent)
    said = f"{len(silent)} of {len(order)} holders, with {doses:,} doses, have not acknowledged it"
    output.show(table, Text(f"{said}; it was declared {waiting_s // 3600} h {waiting_s % 3600 // 60} min ago"))
    if found.gaps:
        output.show(Text(f"{len(found.gaps)} gaps: there may be more holders", style="bold"))
    raise typer.Exit(code)

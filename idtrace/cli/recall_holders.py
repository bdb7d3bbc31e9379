"""``idtrace recall who-holds``: who has what a recall reaches, by holder and place, the most doses first.

The recall itself is verified here, from the pinned root key. Where the doses are is what the resolver has made of the
events that it has verified; each row names some of them, and ``idtrace trace`` shows a single dose with every proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import grpc
import typer
from rich.console import RenderableType
from rich.text import Text

from idtrace.chain import Anchor
from idtrace.cli.client import Node, connect, failure_of_call
from idtrace.cli.exits import ExitCode, Failure
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
from idtrace.cli.show import utc
from idtrace.errors import IdtraceError, OutcomeUnknownError, Reason, VerificationError
from idtrace.identifier import Prefix
from idtrace.recall import RECALL_TYPE, Recall, parse_recall, recalls_identifier
from idtrace.record import Record, RecordBody
from idtrace.v1 import resolver_pb2, resolver_pb2_grpc
from idtrace.verification import verify_bundle
from idtrace.wire import bundle_from_pb

# A resolver takes 25 s at most (resolver/holders.py), and says then what is missing.
HOLDERS_SECONDS: Final = 30.0
# A province has some thousand clinics, each with some rooms.
PARTS_MAX: Final = 50_000
_TIME_MS_MAX: Final = 253_402_300_799_999


def ask(node: Node, zone: str, name: str) -> list[Any]:
    """The parts of the answer, the summary last.

    Raises:
        Failure: the resolver does not answer, refuses, or breaks off before the end.
    """
    stub = resolver_pb2_grpc.ResolverServiceStub(node.channel)
    request = resolver_pb2.WhoHoldsRequest(zone=zone, recall=name)
    parts: list[Any] = []
    try:
        for part in stub.WhoHolds(request, timeout=node.timeout_seconds):
            parts.append(part)
            if len(parts) > PARTS_MAX:
                break
    except grpc.RpcError as error:
        raise failure_of_call(error, node.address) from None
    if not parts or parts[-1].WhichOneof("part") != "summary":
        torn = OutcomeUnknownError(Reason.ANSWER_MALFORMED, "the answer breaks off before its end")
        raise Failure(ExitCode.UNREACHABLE, torn, title=f"{node.address} answers nonsense")
    return parts


def verified(message: Any, zone: Prefix, name: str, anchor: Anchor, at: int) -> Recall:
    """The recall of this name, proven by the record that the resolver sends with its answer.

    Raises:
        VerificationError: the record does not verify, is another's, or does not have it.
    """
    try:
        bundle = bundle_from_pb(message)
        report = verify_bundle(bundle, anchor, now=at)
        if not report.valid:
            raise VerificationError(Reason.ANSWER_MALFORMED, report.checks[-1].detail, field="recalls")
        if bundle.identifier == recalls_identifier(zone) and isinstance(bundle.outcome, Record):
            for recall in _recalls(bundle.outcome, zone):
                if recall.name == name:
                    return recall
    except IdtraceError as error:
        raise VerificationError(error.reason, f"the recall is not proven: {error.detail}", field="recalls") from None
    detail = f"what the resolver sends does not show that {zone} recalls anything as {name}"
    raise VerificationError(Reason.ANSWER_MALFORMED, detail, field="recalls")


@dataclass(frozen=True, slots=True)
class Holders:
    """The answer: the recall, proven here, and rows, gaps and summary as the resolver gives them."""

    recall: Recall
    rows: list[Any]
    gaps: list[Any]
    summary: Any


def holders(resolver: str, timeout: float, zone: Prefix, name: str, anchor: Anchor) -> Holders:
    """Ask a resolver who holds what a recall reaches, the most doses first.

    Raises:
        Failure: as :func:`ask`.
        VerificationError: as :func:`verified`.
    """
    with connect(resolver, timeout) as node:
        parts = ask(node, str(zone), name)
    recalls = [part.recalls for part in parts if part.WhichOneof("part") == "recalls"]
    recall = verified(recalls[0] if recalls else resolver_pb2.WhoHoldsResponse().recalls, zone, name, anchor, now())
    rows = [part.row for part in parts if part.WhichOneof("part") == "row"]
    gaps = [part.gap for part in parts if part.WhichOneof("part") == "gap"]
    rows.sort(key=lambda row: (-row.doses, -row.given, row.holder, row.towards, row.place))
    return Holders(recall, rows, gaps, parts[-1].summary)


def who_holds(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The recall's name, for example R-2026-01.")],
    zone: Annotated[str, typer.Option("--zone", metavar="PREFIX", help="The zone that recalls.")],
    resolver: ResolverOption,
    root: RootOption,
    root_update: RootUpdateOption = None,
    timeout: TimeoutOption = HOLDERS_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Show who has what a recall reaches, and who has acknowledged it.

    Found by way of the packages: what was given out of a carton that nobody has reported open is still counted there.

    Example: idtrace recall who-holds R-2026-01 --zone 88.118.8 --resolver localhost:7400 --root root.key.pub
    """
    del as_json
    output = output_of(ctx)
    prefix = Prefix.parse(zone, field="--zone")
    found = holders(resolver, timeout, prefix, name, roots_of(root, root_update).anchor)
    output.show(*holders_view(found.recall, found.rows, found.gaps))
    output.document(holders_json(found.recall, found.rows, found.gaps, found.summary))
    raise typer.Exit(ExitCode.UNREACHABLE if found.gaps else ExitCode.OK)


def holders_view(recall: Recall, rows: Sequence[Any], gaps: Sequence[Any]) -> list[RenderableType]:
    """For a screen of 80 columns: a table, its total, and what is missing."""
    ended = "" if recall.stands(now()) else ", which has ended"
    shown: list[RenderableType] = [Text(f"recall {plain(recall.name)} of {recall.zone}, level {recall.level}{ended}")]
    if rows:
        table = listing("holder", "place", "since", "packs", "doses", "given", "knows")
        for row in rows:
            way = f"{row.holder or '?'} → {row.towards}" if row.towards else row.holder or "?"
            table.add_row(
                plain(way), plain(_place(row)), _day(row.since_ms), str(row.packages), str(row.doses), str(row.given),
                _day(row.acknowledged_ms) if row.HasField("acknowledged_ms") else "no",
            )  # fmt: skip
        shown.append(table)
    holders = {row.holder for row in rows if row.doses}
    knowing = {row.holder for row in rows if row.doses and row.HasField("acknowledged_ms")}
    total = f"{sum(row.doses for row in rows):,} doses at {len(holders)} holders, {len(knowing)} of which know of it"
    shown.append(Text(f"{total}; {sum(row.given for row in rows):,} were given or ended"))
    if gaps:
        shown.append(Text(f"{len(gaps)} gaps: there may be more", style="bold"))
        shown += [plain(f"  {gap.kind}: {gap.subject}: {gap.detail}") for gap in gaps[:20]]
    return shown


def holders_json(recall: Recall, rows: Sequence[Any], gaps: Sequence[Any], summary: Any) -> dict[str, Any]:
    """The same for a program."""
    return {
        "recall": recall.name,
        "zone": recall.zone,
        "level": recall.level,
        "stands": recall.stands(now()),
        "now_ms": summary.now_ms,
        "holders": [
            {
                "holder": row.holder,
                "towards": row.towards,
                "place": row.place,
                "since_ms": row.since_ms,
                "packages": row.packages,
                "doses": row.doses,
                "given": row.given,
                "acknowledged_ms": row.acknowledged_ms if row.HasField("acknowledged_ms") else None,
                "evidence": list(row.evidence),
            }
            for row in rows
        ],
        "doses": sum(row.doses for row in rows),
        "given": sum(row.given for row in rows),
        "gaps": [{"kind": gap.kind, "subject": gap.subject, "detail": gap.detail, "node": gap.node} for gap in gaps],
        "exit_code": int(ExitCode.UNREACHABLE if gaps else ExitCode.OK),
    }


def _recalls(record: Record, zone: Prefix) -> list[Recall]:
    body = RecordBody.parse(record.signed.payload)
    types = {digest.index: digest.type for digest in body.values}
    return [
        parse_recall(value.data, zone=str(zone), version=body.version)
        for value in record.values
        if types.get(value.index) == RECALL_TYPE
    ]


def _place(row: Any) -> str:
    """Without the holder's own prefix, which stands beside it."""
    place: str = row.place
    own = f"{row.holder}/"
    return place.removeprefix(own) if row.holder else place


def _day(at_ms: int) -> str:
    return utc(at_ms // 1000)[:10] if 0 < at_ms <= _TIME_MS_MAX else "-"

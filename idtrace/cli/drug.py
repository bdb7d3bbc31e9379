"""``idtrace drug``: China drug trace codes: bills, packages, replacements and cancellations in, states out.

What is done becomes EPCIS events (:mod:`idtrace.drugcode`), which are captured like any others; what is asked is made
anew here of the proofs that the resolver sends, so a resolver can leave something out and cannot invent anything.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from idtrace.cli.bulk import require_own_journal
from idtrace.cli.capturing import CaptureRun, Fate, Outcome, Way, read_events
from idtrace.cli.client import connect
from idtrace.cli.drug_query import query
from idtrace.cli.exits import ExitCode
from idtrace.cli.files import read_file
from idtrace.cli.journal import Journal
from idtrace.cli.options import now, output_of
from idtrace.cli.output import Output, listing, plain
from idtrace.cli.show import wait_for
from idtrace.cli.signing_options import RecordSigning, grouped
from idtrace.drugcode.acts import Act, Activation, Cancellation, Packing, Replacement, Temperatures, events_of
from idtrace.drugcode.bills import BadRow, Bill, Direction, Head, read_csv, read_json, read_time, require_number
from idtrace.epcis.values import time_text
from idtrace.epcis.write import document_json
from idtrace.errors import InputError, Reason
from idtrace.identifier import Prefix

# 10,000 rows of a wide export.
BILL_BYTES_MAX: Final = 8_388_608
_FAILED: Final = (Fate.REFUSED, Fate.MALFORMED, Fate.ROLLED_BACK)

app = typer.Typer(help="China drug trace codes: bills, packages, states.", no_args_is_help=True)


class BillKind(StrEnum):
    """Which way."""

    IN = "in"
    OUT = "out"


PartyOption = Annotated[str, typer.Option("--party", metavar="PREFIX", help="Who reports it; its key signs.")]
AtOption = Annotated[
    str, typer.Option("--at", metavar="TIME", help="When it happened, with its offset; without it, now.")
]
CodesArgument = Annotated[list[str], typer.Argument(metavar="CODE", help="Codes of 20 digits.")]


@app.command()
@grouped
def bill(
    ctx: typer.Context,
    kind: Annotated[BillKind, typer.Argument(metavar="in|out", help="Which way the goods go.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The bill, .json or .csv (idtrace/drugcode/bills.py).")],
    by: RecordSigning,
    party: PartyOption,
    number: Annotated[str, typer.Option("--bill", metavar="NUMBER", help="Its number, for CSV.")] = "",
    partner: Annotated[str, typer.Option("--partner", metavar="PREFIX", help="From or to whom, for CSV.")] = "",
    at: AtOption = "",
    place: Annotated[str, typer.Option("--place", metavar="URI", help="Where, for CSV.")] = "",
    rollback: Annotated[
        bool, typer.Option("--rollback/--proceed", help="If a row is refused: report nothing, or the other rows.")
    ] = False,
) -> None:
    """Report an inbound or outbound bill; a row that is refused is named and the others are reported.

    Example: idtrace drug bill out CK-1.json --party 88.118.8
    """
    output = output_of(ctx)
    direction = Direction(kind)
    data = read_file(file, BILL_BYTES_MAX)
    if file.suffix.lower() == ".csv":
        try:
            lines = data.decode("utf-8-sig").splitlines(keepends=True)
        except UnicodeDecodeError:
            raise InputError(Reason.FIELD_MALFORMED, "the file is not UTF-8", field=str(file)) from None
        head = Head(number, at or time_text(now() * 1000), partner, place)
        read, bad = read_csv(lines, direction, head, field=str(file))
    else:
        read, bad = read_json(data, direction, field=str(file))
    _show_bad(output, bad)
    if not read.codes or (bad and rollback):
        output.note("nothing is reported")
        raise typer.Exit(ExitCode.PARTLY)
    code = _report(output, by, party, read, f"{kind}-{read.number}")
    raise typer.Exit(ExitCode.PARTLY if bad and code is ExitCode.OK else code)


@app.command()
@grouped
def activate(
    ctx: typer.Context,
    codes: CodesArgument,
    by: RecordSigning,
    party: PartyOption,
    lot: Annotated[str, typer.Option("--lot", help="Lot of all of them.")] = "",
    expiry: Annotated[str, typer.Option("--expiry", metavar="YYYY-MM-DD", help="Last day of use.")] = "",
    at: AtOption = "",
) -> None:
    """Activate codes. Example: idtrace drug activate 81234560000000000001 --party 88.118.8 --lot L1."""
    at_ms, offset = _time(at)
    _end(ctx, by, party, Activation(tuple(codes), at_ms, offset, lot, expiry), "activate")


@app.command()
@grouped
def pack(
    ctx: typer.Context,
    parent: Annotated[str, typer.Argument(metavar="PARENT", help="Code of the package.")],
    children: CodesArgument,
    by: RecordSigning,
    party: PartyOption,
    at: AtOption = "",
) -> None:
    """Pack codes into a package. Example: idtrace drug pack PARENT CODE CODE --party 88.118.8."""
    at_ms, offset = _time(at)
    _end(ctx, by, party, Packing(parent, tuple(children), at_ms, offset), "pack")


@app.command()
@grouped
def unpack(
    ctx: typer.Context,
    parent: Annotated[str, typer.Argument(metavar="PARENT", help="Code of the package.")],
    by: RecordSigning,
    party: PartyOption,
    children: Annotated[list[str] | None, typer.Argument(metavar="CODE", help="Without any: all of them.")] = None,
    at: AtOption = "",
) -> None:
    """Take codes out of a package. Example: idtrace drug unpack PARENT --party 88.118.2."""
    at_ms, offset = _time(at)
    _end(ctx, by, party, Packing(parent, tuple(children or ()), at_ms, offset, unpack=True), "unpack")


@app.command()
@grouped
def replace(
    ctx: typer.Context,
    old: Annotated[str, typer.Argument(metavar="OLD", help="Code that ends.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Code that takes its place; never used before.")],
    by: RecordSigning,
    party: PartyOption,
    number: Annotated[str, typer.Option("--number", metavar="NUMBER", help="Number of the replacement.")],
    at: AtOption = "",
) -> None:
    """Replace a code by another. Example: idtrace drug replace OLD NEW --number R-1 --party 88.118.8."""
    if old == new:
        raise InputError(Reason.DRUG_CODE_MALFORMED, "a code is not replaced by itself", field="NEW")
    at_ms, offset = _time(at)
    act = Replacement(old, new, require_number(number, "--number"), at_ms, offset)
    _end(ctx, by, party, act, f"replace-{number}")


@app.command()
@grouped
def cancel(
    ctx: typer.Context,
    codes: CodesArgument,
    by: RecordSigning,
    party: PartyOption,
    destroyed: Annotated[bool, typer.Option("--destroyed", help="The drug itself is destroyed.")] = False,
    at: AtOption = "",
) -> None:
    """End codes. Example: idtrace drug cancel CODE --destroyed --party 88.118.8."""
    at_ms, offset = _time(at)
    _end(ctx, by, party, Cancellation(tuple(codes), at_ms, offset, destroyed), "cancel")


@app.command()
@grouped
def temperature(
    ctx: typer.Context,
    equipment: Annotated[str, typer.Argument(metavar="URI", help="The equipment: logger, vehicle or room.")],
    readings: Annotated[list[str], typer.Argument(metavar="TIME=CELSIUS", help="2026-05-01T10:00:00+08:00=4.5 …")],
    by: RecordSigning,
    party: PartyOption,
    owner: Annotated[str, typer.Option("--owner", metavar="PREFIX", help="Whose goods.")] = "",
    transporter: Annotated[str, typer.Option("--transporter", metavar="PREFIX", help="Who moves them.")] = "",
    number: Annotated[str, typer.Option("--bill", metavar="NUMBER", help="The outbound bill; none in store.")] = "",
    name: Annotated[str, typer.Option("--name", help="What the equipment is called.")] = "",
    content: Annotated[str, typer.Option("--content", help="What is measured.")] = "",
    agent: Annotated[str, typer.Option("--agent", help="For whom it is reported.")] = "",
) -> None:
    """Report temperatures of a transport or a store."""
    told: list[tuple[int, Decimal]] = []
    offset = 0
    for one in readings:
        moment, mark, value = one.rpartition("=")
        try:
            celsius = Decimal(value)
        except InvalidOperation:
            celsius = Decimal("NaN")
        if not mark or not celsius.is_finite():
            raise InputError(Reason.FIELD_MALFORMED, "a reading is TIME=CELSIUS", field="TIME=CELSIUS")
        at_ms, offset = read_time(moment, "TIME=CELSIUS")
        told.append((at_ms, celsius))
    for prefix, field in ((owner, "--owner"), (transporter, "--transporter")):
        if prefix:
            Prefix.parse(prefix, field=field)
    if number:
        require_number(number, "--bill")
    act = Temperatures(equipment, tuple(sorted(told)), offset, owner, transporter, number, name, content, agent)
    _end(ctx, by, party, act, "temperature")


app.command()(query)


def _time(text: str) -> tuple[int, int]:
    return read_time(text or time_text(now() * 1000), "--at")


def _end(ctx: typer.Context, by: RecordSigning, party: str, act: Act, name: str) -> None:
    raise typer.Exit(_report(output_of(ctx), by, party, act, name))


def _report(output: Output, by: RecordSigning, party: str, act: Act, name: str) -> ExitCode:
    """Capture the events of an act, all or none; receipts go beside, as of ``idtrace capture``."""
    prefix = Prefix.parse(party, field="--party")
    document = json.dumps(document_json(events_of(act, str(prefix)), now() * 1000), ensure_ascii=False).encode()
    outcomes: list[Outcome] = []
    with connect(by.node, by.timeout) as peer:
        way = Way(
            peer, prefix, by.signer(), by.anchor(), wait_for(witnessed=False), rollback=True, is_sealed=False, now=now
        )
        with Journal(Path(f"{name}.idtrace-receipts.jsonl"), way.signer) as book:
            require_own_journal(way.node, book)
            CaptureRun(way, book, outcomes.append).run(read_events(document, field=name))
    return _show(output, outcomes, act)


def _show(output: Output, outcomes: Sequence[Outcome], act: Act) -> ExitCode:
    counts = Counter(one.fate for one in outcomes)
    for one in outcomes:
        body: dict[str, object] = {"event": one.index, "identifier": one.identifier, "result": one.fate}
        if one.error is not None:
            body["error"] = {"reason": one.error.reason, "path": one.error.field, "detail": one.error.detail}
            output.note(f"event {one.index}: {one.error}")
        output.line(body)
    what = f"{len(act.codes):,} codes in " if isinstance(act, Bill | Cancellation | Activation) else ""
    output.show(f"{what}{len(outcomes)} events: " + ", ".join(f"{fate} {count}" for fate, count in counts.items()))
    if counts[Fate.UNKNOWN]:
        return ExitCode.UNKNOWN
    return ExitCode.REFUSED if any(counts[fate] for fate in _FAILED) else ExitCode.OK


def _show_bad(output: Output, bad: Sequence[BadRow]) -> None:
    if not bad:
        return
    table = listing("row", "field", "text", "rule")
    for one in bad:
        table.add_row(str(one.row), one.field, plain(one.text, 40), one.rule)
        output.line({"row": one.row, "field": one.field, "text": one.text, "rule": one.rule})
    output.show(table)

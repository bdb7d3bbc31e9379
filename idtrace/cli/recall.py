"""``idtrace recall``: one signed statement that reaches every dose below it, and who has taken note of it.

All recalls of a zone stand in one record, ``ZONE/recalls``, so each new one, and each end, is its next version
(``idtrace/recall.py``). Whoever follows the zone is told at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import RenderableType
from rich.text import Text

from idtrace.bundle import signed_to_json
from idtrace.cli import recall_acknowledge, recall_holders, recall_watch
from idtrace.cli.client import connect
from idtrace.cli.files import read_file
from idtrace.cli.options import WitnessedOption, now, output_of
from idtrace.cli.output import pairs, plain
from idtrace.cli.party import moment
from idtrace.cli.publish import Current, Published, publish
from idtrace.cli.recall_draft import declared, ended, next_recalls, recalls_of, without_ended
from idtrace.cli.recall_watch import scope_text
from idtrace.cli.show import level_word, receipt_table, utc, warn_unless_witnessed
from idtrace.cli.signing_options import RecordSigning, grouped
from idtrace.errors import InputError, Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.recall import ITEMS_MAX, Recall, Scope, ScopeKind, recalls_identifier
from idtrace.record import SALT_BYTES, VALUES_MAX, RecordBody, Value
from idtrace.scan import scan

app = typer.Typer(help="Recalls: declare, end, watch, acknowledge, and see who has what.", no_args_is_help=True)
# 128 identifiers of the longest kind, with as many line ends.
ITEMS_BYTES_MAX: Final = 65_536
DAY_SECONDS: Final = 86_400
FORGET_DAYS_MIN: Final = 30

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The recall's name, for example R-2026-01.")]
ZoneOption = Annotated[str, typer.Option("--zone", metavar="PREFIX", help="The zone that recalls; its key signs.")]
ForgetOption = Annotated[
    int | None,
    typer.Option(
        "--forget-ended",
        metavar="DAYS",
        min=FORGET_DAYS_MIN,
        help="Leave out recalls that ended so long ago; earlier versions keep them.",
    ),
]


@app.callback()
def _group() -> None:
    """Recalls: declare, end, watch, acknowledge, and see who has what."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What is recalled, as options: exactly one of them, and what belongs to it."""

    product: Annotated[
        str, typer.Option("--product", metavar="CLASS", help="Every item of this class; with --lot, of that lot.")
    ] = ""
    lot: Annotated[str, typer.Option("--lot", metavar="LOT", help="A lot of --product.")] = ""
    range_: Annotated[
        tuple[str, str] | None, typer.Option("--range", metavar="FIRST LAST", help="Identifiers by their number.")
    ] = None
    package: Annotated[
        str, typer.Option("--package", metavar="CODE", help="Whatever was inside a carton, a pallet, a truck.")
    ] = ""
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="With --package: inside after this time.")] = ""
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="With --package: inside before this time.")] = ""
    items: Annotated[
        Path | None, typer.Option("--items", metavar="FILE", help=f"One code a line, at most {ITEMS_MAX}.")
    ] = None

    def scope(self) -> Scope:
        """What these options come to.

        Raises:
            typer.BadParameter: none or two of them, or one without what it needs.
            InputError: a code that is none.
        """
        given = [bool(self.product), self.range_ is not None, bool(self.package), self.items is not None]
        if sum(given) != 1:
            raise typer.BadParameter(
                "say what is recalled, one way", param_hint="--product, --range, --package, --items"
            )
        if self.lot and not self.product:
            raise typer.BadParameter("whose lot? name the class: --product", param_hint="--lot")
        if (self.since or self.until) and not self.package:
            raise typer.BadParameter("times bound what was inside a package", param_hint="--since, --until")
        if self.product:
            product = str(scan(self.product).identifier)
            return Scope(ScopeKind.LOT if self.lot else ScopeKind.PRODUCT, product=product, lot=self.lot)
        if self.range_ is not None:
            first, last = (str(scan(code).identifier) for code in self.range_)
            return Scope(ScopeKind.RANGE, first=first, last=last)
        if self.package:
            since = moment(self.since, hint="--since") if self.since else 0
            until = moment(self.until, hint="--until") if self.until else 0
            return Scope(ScopeKind.PACKAGE, package=_package(self.package), since_s=since, until_s=until)
        assert self.items is not None, "one of them is given"
        return Scope(ScopeKind.ITEMS, items=_items(self.items))


def _package(code: str) -> str:
    """An identifier as scanned; the URI of a vehicle or a pallet as it stands."""
    try:
        return str(scan(code).identifier)
    except InputError:
        if ":" not in code:
            raise
        return code


def _items(file: Path) -> tuple[str, ...]:
    lines = read_file(file, ITEMS_BYTES_MAX).decode("utf-8", "replace").splitlines()
    found: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        code = line.strip()
        if not code:
            continue
        try:
            found[str(scan(code).identifier)] = None
        except InputError as error:
            raise InputError(error.reason, error.detail, field=f"{file}:{number}") from None
    if not 0 < len(found) <= ITEMS_MAX:
        rule = f"a recall names 1 to {ITEMS_MAX} items, this file {len(found)}; more is a range, a package or a lot"
        raise InputError(Reason.FIELD_TOO_LARGE, rule, field=str(file))
    return tuple(found)


@app.command()
@grouped
def declare(
    ctx: typer.Context,
    name: NameArgument,
    by: RecordSigning,
    zone: ZoneOption,
    reach: Reach,
    level: Annotated[
        int, typer.Option("--level", metavar="1|2|3", min=1, max=3, help="1 is the gravest (药品召回管理办法).")
    ],
    reason_en: Annotated[str, typer.Option("--reason-en", metavar="TEXT", help="Why, in English.")],
    reason_zh: Annotated[str, typer.Option("--reason-zh", metavar="TEXT", help="Why, in Chinese.")],
    contact: Annotated[str, typer.Option("--contact", metavar="TEXT", help="Telephone or address for questions.")] = "",
    forget_ended: ForgetOption = None,
    witnessed: WitnessedOption = False,
) -> None:
    """Recall a lot, a product, a range, a package, or single items, in one signed statement.

    Every dose that it reaches is DO NOT USE from then on, wherever its own record lies. No record of a dose changes.

    Example: idtrace recall declare R-2026-01 --zone 88.118.8 --product 88.118.8/class/v1 --lot A1 --level 1
    --reason-en "glass in vials" --reason-zh 瓶内有玻璃 --key maker.key --node localhost:7201
    """
    prefix = Prefix.parse(zone, field="--zone")
    at = now()
    recall = Recall(str(prefix), name, reach.scope(), level, reason_en, reason_zh, at, contact=contact)
    told = _publish(by, prefix, lambda held: declared(_kept(held, forget_ended, at), recall), witnessed=witnessed)
    _show(ctx, told, recall, f"recalled as {plain(name)}", witnessed=witnessed)


@app.command()
@grouped
def end(
    ctx: typer.Context,
    name: NameArgument,
    by: RecordSigning,
    zone: ZoneOption,
    forget_ended: ForgetOption = None,
    witnessed: WitnessedOption = False,
) -> None:
    """End a recall: what it reached may be used again, if nothing else speaks against it.

    Example: idtrace recall end R-2026-01 --zone 88.118.8 --key maker.key --node localhost:7201
    """
    prefix = Prefix.parse(zone, field="--zone")
    at = now()
    left: list[Recall] = []

    def draft(held: Sequence[Recall]) -> list[Recall]:
        following = ended(held, name, at)
        left.extend(one for one in following if one.name == name)
        return _kept(following, forget_ended, at)

    told = _publish(by, prefix, draft, witnessed=witnessed)
    _show(ctx, told, left[0], f"ended {plain(name)}", witnessed=witnessed)


def _kept(recalls: Sequence[Recall], days: int | None, at: int) -> list[Recall]:
    return list(recalls) if days is None else without_ended(recalls, at - days * DAY_SECONDS)


def _publish(
    by: RecordSigning, zone: Prefix, change: Callable[[Sequence[Recall]], list[Recall]], *, witnessed: bool
) -> Published:
    identifier: Identifier = recalls_identifier(zone)

    def draft(current: Current | None) -> tuple[RecordBody, tuple[Value, ...]]:
        recalls = change(() if current is None else recalls_of(*current))
        salts = [secrets.token_bytes(SALT_BYTES) for _ in range(VALUES_MAX)]
        return next_recalls(identifier, current, recalls, salts, now())

    with connect(by.node, by.timeout) as peer:
        return publish(peer, by.signer(), by.anchor(), identifier, draft, witnessed=witnessed)


def _show(ctx: typer.Context, told: Published, recall: Recall, title: str, *, witnessed: bool) -> None:
    output = output_of(ctx)
    document: dict[str, Any] = {"identifier": str(told.body.identifier), "version": told.body.version}
    document |= {"recall": recall_watch.recall_json(recall), "receipt": signed_to_json(told.signed)}
    output.document(document | {"level": level_word(told.level)})
    rows: list[tuple[str, RenderableType]] = [
        ("recall", f"{plain(recall.name)} of {recall.zone}, level {recall.level}"),
        ("reaches", plain(scope_text(recall.scope))),
        ("because", Text(f"{plain(recall.reason_en)}  {plain(recall.reason_zh)}")),
        ("stands", f"from {utc(recall.issued_at)}" + (f" to {utc(recall.ended_at)}" if recall.ended_at else "")),
    ]
    output.show(receipt_table(title, told.receipt, told.level), pairs(rows))
    if not recall.ended_at:
        output.note(f"who has it now: idtrace recall who-holds {plain(recall.name)} --zone {recall.zone}")
    warn_unless_witnessed(output, told.level, asked=witnessed)


app.command(name="list")(recall_watch.list_)
app.command()(recall_watch.watch)
app.command(name="who-holds")(recall_holders.who_holds)
app.command()(recall_acknowledge.status)
app.command(name="ack")(recall_acknowledge.acknowledge)

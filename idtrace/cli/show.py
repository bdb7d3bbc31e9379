"""Records, chains and checks as a person reads them: every status and verdict is a word, the colour only helps."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from rich.console import RenderableType
from rich.text import Text
from rich.tree import Tree

from idtrace.bundle import Bundle, Denied, Verdict
from idtrace.checks import Check
from idtrace.cli.output import Output, listing, pairs, plain, plain_bytes
from idtrace.delegation import Delegation, State
from idtrace.errors import InputError
from idtrace.record import Permission, Record, RecordBody, Status
from idtrace.statements import Receipt
from idtrace.v1 import record_pb2
from idtrace.verification import Report

_STATUS_STYLES: Final = {
    Status.ACTIVE: "bold green",
    Status.SUSPENDED: "bold yellow",
    Status.RECALLED: "bold white on red",
    Status.RETIRED: "bold",
}
_STATUS_WORDS: Final = {
    Status.ACTIVE: "ACTIVE",
    Status.SUSPENDED: "SUSPENDED: do not use before it is active again",
    Status.RECALLED: "RECALLED: do not use",
    Status.RETIRED: "RETIRED: it has ended",
}
Level: TypeAlias = "record_pb2.ReceiptLevel.ValueType"
_LEVELS: Final = {
    record_pb2.RECEIPT_LEVEL_SEQUENCED: "sequenced",
    record_pb2.RECEIPT_LEVEL_WITNESSED: "witnessed",
}
NOT_WITNESSED: Final = "warning: durable, and not witnessed: the node has no quorum of witnesses, or it took too long"
_LEVELS_TOLD: Final = {
    "durable": "durable; the node keeps no log",
    "sequenced": "durable and in the log; no witnesses' quorum yet",
    "witnessed": "durable; the node says: in the log, and cosigned by its witnesses",
}
_VERDICT_STYLES: Final = {
    Verdict.FOUND: ("✓", "bold green"),
    Verdict.ABSENT: ("○", "bold yellow"),
    Verdict.GONE: ("○", "bold yellow"),
    Verdict.UNREACHABLE: ("?", "bold yellow"),
    Verdict.BOGUS: ("✗", "bold red"),
}


def verdict_line(verdict: Verdict, identifier: str, status: Status = Status.ACTIVE) -> Text:
    """``✓ FOUND 88.118.8/SN-1``; a thing that may not be used gets no tick although it is found."""
    mark, style = _VERDICT_STYLES[verdict]
    if verdict is Verdict.FOUND and status is not Status.ACTIVE:
        mark, style = "!", _STATUS_STYLES[status]
        return Text.assemble((f"{mark} {verdict}, {status.upper()}", style), " ", (plain(identifier), "bold"))
    return Text.assemble((f"{mark} {verdict} ", style), (plain(identifier), "bold"))


def status_text(status: Status) -> Text:
    """The status as a word with its meaning."""
    return Text(_STATUS_WORDS[status], style=_STATUS_STYLES[status])


def utc(seconds: int) -> str:
    """``2026-01-31 00:00:00 UTC``."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def span(seconds: float) -> str:
    """``250 ms``, ``42 s``, ``90 s``, ``5 min``, ``1 h``, ``12 days``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size or (seconds == size and size > 60):
            count = f"{seconds / size:.0f}"
            return f"{count} {unit.removesuffix('s') if count == '1' else unit}"
    return f"{seconds:.0f} s"


def unfollowed_text(unfollowed_ms: int) -> Text:
    """What it means that nobody tells the resolver of changes: for how long there may have been one."""
    if unfollowed_ms == 0:
        return Text("asked just now; the resolver is not being told of changes", style="yellow")
    # Tenths: it is a matter of seconds.
    age = f"up to {unfollowed_ms / 1000:.1f} s" if unfollowed_ms >= 100 else f"up to {unfollowed_ms} ms"
    return Text(f"may be {age} out of date: the resolver is not being told of changes", style="bold yellow")


def record_view(record: Record, body: RecordBody, withheld: Sequence[int]) -> list[RenderableType]:
    """A record that has passed verification: its head, then its values."""
    head: list[tuple[str, RenderableType]] = [
        ("status", status_text(body.status)),
        ("kind", f"{body.kind}, version {body.version}"),
        ("issued", utc(body.issued_at)),
        ("keep for", span(body.ttl_seconds)),
    ]
    if body.class_id is not None:
        head.append(("class", plain(str(body.class_id))))
    return [pairs(head), *_values(record, body, withheld)]


def _values(record: Record, body: RecordBody, withheld: Sequence[int]) -> list[RenderableType]:
    if not body.values:
        return []
    shown = {value.index: value.data for value in record.values}
    table = listing("", "type", "value")
    for digest in body.values:
        text = Text(plain_bytes(shown[digest.index])) if digest.index in shown else Text("withheld", style="dim italic")
        if digest.permission is Permission.RESTRICTED and digest.index in shown:
            text.append("  restricted", style="dim")
        table.add_row(Text(str(digest.index), style="dim"), Text(plain(digest.type)), text)
    note = [Text(f"{len(withheld)} of {len(body.values)} values withheld; the rest is proven", style="dim")]
    return ["", table, *(note if withheld else [])]


def chain_tree(bundle: Bundle, now: int) -> Tree | Text:
    """The delegations of a bundle from the root down, and what they end in. Says nothing about their truth."""
    top: Tree | None = None
    branch: Tree | None = None
    for signed in bundle.delegations:
        try:
            label = _link(Delegation.parse(signed.payload), now)
        except InputError:
            label = Text("unreadable delegation", style="red")
        branch = Tree(label, guide_style="dim") if branch is None else branch.add(label)
        top = top or branch
    if top is None or branch is None:
        return Text("no delegations", style="red")
    branch.add(Text(_outcome(bundle), style="bold"))
    return top


def _link(link: Delegation, now: int) -> Text:
    text = Text(str(link.child) or "root", style="bold")
    if link.state is State.REVOKED:
        return text.append("  REVOKED", style="bold red").append(f"  version {link.version}", style="dim")
    left = link.expires - now
    until = f"{span(left)} left" if left > 0 else "EXPIRED"
    details = f"  version {link.version}, until {utc(link.expires)[:10]} ({until})"
    text.append(details, style="dim" if left > 0 else "red")
    return text.append(f"  {', '.join(link.endpoints)}{'  hosted' if link.hosted else ''}", style="dim")


def _outcome(bundle: Bundle) -> str:
    kind = bundle.outcome
    if isinstance(kind, Record):
        return plain(str(bundle.identifier))
    return f"denial of {plain(str(bundle.identifier))}" if isinstance(kind, Denied) else "revocation"


def checks_table(checks: Sequence[Check]) -> RenderableType:
    """Every step of a verification with ✓ or ✗; a dot stands for what could not be checked."""
    table = listing("", "check", "finding")
    for check in checks:
        mark = Text("✓", style="green") if check.passed else Text("✗", style="bold red")
        if not check.made:
            mark = Text("·", style="dim")
        finding = Text(plain(check.detail))
        if check.reason is not None:
            finding.append(f"  {check.reason}", style="red")
        table.add_row(mark, Text(check.name), finding)
    return table


def receipt_table(title: str, receipt: Receipt, level: Level) -> RenderableType:
    """What a registrant holds in hand."""
    return pairs(
        [
            (title, Text(plain(str(receipt.identifier)), style="bold")),
            ("version", str(receipt.version)),
            ("record hash", receipt.record_hash.hex()),
            ("committed", f"{utc(receipt.committed_at)}, signed by zone {str(receipt.zone) or 'root'}"),
            ("stands", _LEVELS_TOLD[level_word(level)]),
        ]
    )


def level_word(level: Level) -> str:
    """How much stands behind a receipt (ReceiptLevel of the contract): ``witnessed``, ``sequenced`` or ``durable``."""
    return _LEVELS.get(level, "durable")


def wait_for(*, witnessed: bool) -> Level:
    """The level to ask for: the node's default, or witnessed."""
    return record_pb2.RECEIPT_LEVEL_WITNESSED if witnessed else record_pb2.RECEIPT_LEVEL_UNSPECIFIED


def warn_unless_witnessed(output: Output, level: Level, *, asked: bool) -> None:
    """Say on stderr that the witnesses were asked for and have not come; durable it is all the same."""
    if asked and level != record_pb2.RECEIPT_LEVEL_WITNESSED:
        output.note(NOT_WITNESSED)


def record_json(record: Record, body: RecordBody, withheld: Sequence[int]) -> dict[str, Any]:
    """A verified record for programs; a value's data is text, or hex where it is not UTF-8."""
    shown = {value.index: value.data for value in record.values}
    return {
        "status": body.status,
        "kind": body.kind,
        "version": body.version,
        "issued_at": body.issued_at,
        "ttl_seconds": body.ttl_seconds,
        "class": str(body.class_id or ""),
        "record_hash": record.hash.hex(),
        "values": [
            {"index": d.index, "type": d.type, "permission": d.permission, **_data_json(shown.get(d.index))}
            for d in body.values
        ],
        "withheld": list(withheld),
    }


def _data_json(data: bytes | None) -> dict[str, str]:
    if data is None:
        return {}
    try:
        return {"data": data.decode("utf-8")}
    except UnicodeDecodeError:
        return {"data_hex": data.hex()}


def report_json(report: Report) -> dict[str, Any]:
    """The steps of a verification for programs."""
    checks = [
        {"name": c.name, "passed": c.passed, "reason": c.reason or "", "detail": c.detail}
        | ({} if c.made else {"made": False})
        for c in report.checks
    ]
    body: dict[str, Any] = {"verdict": report.verdict, "valid": report.valid, "checks": checks}
    if report.record is not None:
        parsed = RecordBody.parse(report.record.signed.payload)
        body["record"] = record_json(report.record, parsed, report.withheld)
    return body

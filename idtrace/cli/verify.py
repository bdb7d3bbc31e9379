"""``idtrace verify``: is this bundle true? Needs the file and the root key, and no network."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from idtrace.bundle import Bundle, Denied, Verdict
from idtrace.chain import Anchor
from idtrace.cli.exits import verdict_code
from idtrace.cli.files import read_bundle
from idtrace.cli.options import JsonOption, RootOption, anchor_of, now, output_of
from idtrace.cli.output import Output, pairs
from idtrace.cli.show import chain_tree, checks_table, record_view, report_json, utc, verdict_line
from idtrace.delegation import Delegation
from idtrace.errors import InputError, Reason
from idtrace.record import TIME_MAX, RecordBody, Status
from idtrace.statements import Denial
from idtrace.verification import Report, verify_bundle

# Reasons that another time could cure.
_UNTIMELY: Final = frozenset(
    {
        Reason.DELEGATION_EXPIRED,
        Reason.DELEGATION_NOT_YET_VALID,
        Reason.DENIAL_EXPIRED,
        Reason.DENIAL_NOT_YET_VALID,
        Reason.RECORD_FROM_FUTURE,
    }
)


def verify(
    ctx: typer.Context,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Saved proof, in either form.")],
    root: RootOption,
    at: Annotated[
        str,
        typer.Option("--at", metavar="TIME", help="Verify as of a time such as 2026-01-31T00:00:00Z. [default: now]"),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Verify a saved proof, step by step, without any network.

    Example: idtrace verify sn-1.json --root root.key.pub --at 2026-01-31T00:00:00Z
    """
    del as_json
    output = output_of(ctx)
    anchor = anchor_of(root)
    moment = _time(at) if at else now()
    proof = read_bundle(bundle)
    report = verify_bundle(proof, anchor, now=moment)
    window = _valid_window(proof, anchor) if _is_untimely(report) else None
    body = {"identifier": str(proof.identifier), "at": moment, **report_json(report)}
    output.document(body | ({"valid_from": window[0], "valid_until": window[1]} if window else {}))
    _show(output, proof, report, moment, window)
    raise typer.Exit(verdict_code(report.verdict))


def _show(output: Output, proof: Bundle, report: Report, moment: int, window: tuple[int, int] | None) -> None:
    body = RecordBody.parse(report.record.signed.payload) if report.record else None
    output.show(verdict_line(report.verdict, str(proof.identifier), body.status if body else Status.ACTIVE))
    output.show(Text(f"as of {utc(moment)}", style="dim"), "", checks_table(report.checks))
    if report.record is not None and body is not None:
        output.show("", *record_view(report.record, body, report.withheld))
    output.show("", chain_tree(proof, moment))
    if report.verdict is not Verdict.BOGUS:
        return
    if window is None:
        output.show("", Text("This proof does not hold: do not act on it.", style="bold red"))
        return
    start, end = window
    output.show("", Text("Nothing in it is forged, but it is not valid at this time.", style="bold yellow"))
    when = dt.datetime.fromtimestamp(end, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    output.show(pairs([("valid", f"{utc(start)} to {utc(end)}"), ("to see it", f"idtrace verify … --at {when}")]))


def _is_untimely(report: Report) -> bool:
    return not report.valid and report.checks[-1].reason in _UNTIMELY


def _valid_window(proof: Bundle, anchor: Anchor) -> tuple[int, int] | None:
    """First and last second at which the bundle verifies; None where there is none.

    The times stand in bodies that nobody has verified yet, so they only say where to look: both ends are verified.
    """
    starts, ends = [0], [TIME_MAX]
    try:
        for signed in proof.delegations:
            link = Delegation.parse(signed.payload)
            starts.append(link.not_before)
            ends.append(link.expires - 1)
        if isinstance(proof.outcome, Denied):
            denial = Denial.parse(proof.outcome.signed.payload)
            starts.append(denial.issued_at)
            ends.append(denial.expires)
    except InputError:
        return None
    start, end = max(starts), min(ends)
    if start <= end and all(verify_bundle(proof, anchor, now=moment).valid for moment in (end,)):
        return start, end
    return None


def _time(text: str) -> int:
    """Seconds since the Unix epoch of an RFC 3339 time, or of a count of seconds.

    Raises:
        typer.BadParameter: no time, no offset, or out of range.
    """
    if text.isascii() and text.isdigit() and len(text) <= len(str(TIME_MAX)):
        seconds = int(text)
    else:
        try:
            moment = dt.datetime.fromisoformat(text)
        except ValueError:
            raise typer.BadParameter(
                f"{text!r} is not a time such as 2026-01-31T00:00:00Z", param_hint="--at"
            ) from None
        if moment.tzinfo is None:
            raise typer.BadParameter("say which time zone: add Z for UTC", param_hint="--at")
        seconds = int(moment.timestamp())
    if not 0 <= seconds <= TIME_MAX:
        raise typer.BadParameter("the time is out of range", param_hint="--at")
    return seconds

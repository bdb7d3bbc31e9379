"""``idtrace verify``: is this bundle true? Needs the file and the root key, and no network."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from idtrace.bundle import Bundle, Denied
from idtrace.chain import Anchor
from idtrace.cli.exits import verdict_code
from idtrace.cli.files import read_bundle
from idtrace.cli.options import JsonOption, RootOption, RootUpdateOption, now, output_of, roots_of
from idtrace.cli.output import Output, pairs
from idtrace.cli.show import chain_tree, checks_table, record_view, report_json, utc, verdict_line
from idtrace.delegation import Delegation
from idtrace.errors import InputError, Reason
from idtrace.record import TIME_MAX, Record, RecordBody, Status
from idtrace.rootkeys import RootKeys
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
    root_update: RootUpdateOption = None,
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
    roots = roots_of(root, root_update)
    moment = _time(at) if at else now()
    proof = read_bundle(bundle)
    report = verify_bundle(proof, roots.in_force_at(moment).anchor, now=moment)
    window = _window(proof, roots, moment) if _is_untimely(report, roots) else None
    body = {"identifier": str(proof.identifier), "at": moment, **report_json(report)}
    output.document(body | ({"valid_from": window[0], "valid_until": window[1]} if window else {}))
    _show(output, proof, report, moment, is_late=window is not None)
    if window is not None:
        _show_window(output, window, moment, f"idtrace verify {bundle} --root {root}")
    elif not report.valid:
        output.show("", Text("This proof does not hold: do not act on it.", style="bold red"))
    raise typer.Exit(verdict_code(report.verdict))


def _show(output: Output, proof: Bundle, report: Report, moment: int, *, is_late: bool) -> None:
    body = RecordBody.parse(report.record.signed.payload) if report.record else None
    headline = verdict_line(report.verdict, str(proof.identifier), body.status if body else Status.ACTIVE)
    output.show(Text(f"✗ NOT VALID AT THIS TIME {proof.identifier}", style="bold yellow") if is_late else headline)
    output.show(Text(f"as of {utc(moment)}", style="dim"), "", checks_table(report.checks))
    if report.record is not None and body is not None:
        output.show("", *record_view(report.record, body, report.withheld))
    output.show("", chain_tree(proof, moment))


def _show_window(output: Output, window: tuple[int, int], moment: int, command: str) -> None:
    start, end = window
    inside = dt.datetime.fromtimestamp(_nearest(moment, start, end), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    output.show("", Text("Nothing in it is forged; it was, or will be, valid at another time.", style="bold yellow"))
    output.show(pairs([("valid", f"{utc(start)} to {utc(end)}"), ("see it then", f"{command} --at {inside}")]))


def _nearest(moment: int, start: int, end: int) -> int:
    return max(start, min(moment, end))


def _is_untimely(report: Report, roots: RootKeys) -> bool:
    reason = None if report.valid else report.checks[-1].reason
    return reason in _UNTIMELY or (reason is Reason.ROOT_MISMATCH and len(roots.versions) > 1)


def _window(proof: Bundle, roots: RootKeys, moment: int) -> tuple[int, int] | None:
    """First and last second at which the bundle is valid, under the latest root keys that it is valid under."""
    end = TIME_MAX
    for version in reversed(roots.versions):
        window = _valid_window(proof, version.anchor, moment, (version.issued_at, end))
        if window is not None:
            return window
        end = version.issued_at - 1
    return None


def _valid_window(proof: Bundle, anchor: Anchor, moment: int, within: tuple[int, int]) -> tuple[int, int] | None:
    """First and last second, of those in which the root keys are in force, at which the bundle is valid.

    The times stand in bodies that nobody has verified yet, so they only say where to look: the second of the window
    that is nearest to ``moment`` has to verify.
    """
    starts, ends = [within[0]], [within[1]]
    try:
        for signed in proof.delegations:
            link = Delegation.parse(signed.payload)
            starts.append(link.not_before)
            ends.append(link.expires - 1)
        if isinstance(proof.outcome, Denied):
            denial = Denial.parse(proof.outcome.signed.payload)
            starts.append(denial.issued_at)
            ends.append(denial.expires)
        if isinstance(proof.outcome, Record):
            starts.append(RecordBody.parse(proof.outcome.signed.payload).issued_at)
    except InputError:
        return None
    start, end = max(starts), min(ends)
    if start <= end and verify_bundle(proof, anchor, now=_nearest(moment, start, end)).valid:
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

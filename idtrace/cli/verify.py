"""``idtrace verify``: is this bundle true? Needs the file and the root key, and no network.

With a policy the record has to stand in its zone's log, as enough witnesses saw it. A bundle that is genuine and shows
less than that says so in words of its own: nobody has lied, and it still is not what was asked for.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from idtrace.bundle import Bundle, Denied
from idtrace.chain import Anchor
from idtrace.checks import Check
from idtrace.cli.exits import ExitCode, verdict_code
from idtrace.cli.files import read_bundle, read_file, replace_file
from idtrace.cli.options import JsonOption, RootOption, RootUpdateOption, now, output_of, roots_of
from idtrace.cli.output import Output, pairs
from idtrace.cli.show import chain_tree, checks_table, record_view, report_json, utc, verdict_line
from idtrace.delegation import Delegation
from idtrace.errors import InputError, Reason
from idtrace.logpolicy import POLICY_BYTES_MAX, LogPolicy
from idtrace.record import TIME_MAX, Record, RecordBody, Status
from idtrace.rootkeys import RootKeys
from idtrace.statements import Currency, Denial
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
# Reasons for which a genuine bundle is not enough for a policy.
_TOO_LITTLE: Final = frozenset({Reason.NOT_LOGGED, Reason.WITNESS_QUORUM})

PolicyOption = Annotated[
    Path | None,
    typer.Option("--policy", metavar="FILE", help="Witnesses that have to have seen its log (C2SP tlog-policy)."),
]
ProofOutOption = Annotated[
    Path | None,
    typer.Option("--proof-out", metavar="FILE", help="Write the log proof as text (C2SP tlog-proof), if it is sound."),
]


def verify(
    ctx: typer.Context,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Saved proof, in either form.")],
    root: RootOption,
    root_update: RootUpdateOption = None,
    policy: PolicyOption = None,
    proof_out: ProofOutOption = None,
    at: Annotated[
        str,
        typer.Option("--at", metavar="TIME", help="Verify as of a time such as 2026-01-31T00:00:00Z. [default: now]"),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Verify a saved proof, step by step, without any network.

    Example: idtrace verify sn-1.json --root root.key.pub --at 2026-01-31T00:00:00Z

    A dot marks a step that could not be made, and says what it would have shown. With --policy the record has to be in
    its zone's log, as enough witnesses of that file saw it; a genuine proof that shows less than this ends with code 3.
    """
    del as_json
    output = output_of(ctx)
    roots = roots_of(root, root_update)
    rule = LogPolicy.parse(read_file(policy, POLICY_BYTES_MAX), field=str(policy)) if policy else None
    moment = _time(at) if at else now()
    proof = read_bundle(bundle)
    anchor = roots.in_force_at(moment).anchor
    report = verify_bundle(proof, anchor, now=moment, policy=rule)
    window = _window(proof, roots, moment) if _is_untimely(report, roots) else None
    genuine = _genuine_at_least(report, proof, anchor, moment)
    body = {"identifier": str(proof.identifier), "at": moment, **report_json(report)}
    body |= {"valid_from": window[0], "valid_until": window[1]} if window else {}
    body |= {"logged": _logged_json(report)} if report.logged else {}
    body |= {"genuine": True} if genuine else {}
    output.document(body)
    _show(output, proof, report, moment, is_late=window is not None, genuine=genuine)
    if window is not None:
        _show_window(output, window, moment, f"idtrace verify {bundle} --root {root}")
    elif genuine is not None:
        output.show("", Text("Genuine, and not all that the policy asks for.", style="bold yellow"))
        output.show(Text("Every signature holds. What is missing stands at the ✗ above.", style="dim"))
    elif not report.valid:
        output.show("", Text("This proof does not hold: do not act on it.", style="bold red"))
    written = _write_proof(output, proof, genuine or report, proof_out)
    raise typer.Exit(verdict_code(report.verdict) if written or not report.valid else ExitCode.USAGE)


def _genuine_at_least(report: Report, proof: Bundle, anchor: Anchor, moment: int) -> Report | None:
    """What the bundle shows without the policy, where it fails for showing less than that and for nothing else."""
    if report.valid or report.checks[-1].reason not in _TOO_LITTLE:
        return None
    alone = verify_bundle(proof, anchor, now=moment)
    return alone if alone.valid else None


def _logged_json(report: Report) -> dict[str, object]:
    assert report.logged is not None
    at = report.logged
    return {
        "origin": at.checkpoint.origin,
        "index": at.index,
        "size": at.checkpoint.size,
        "committed_at": at.committed_at,
    }


def _write_proof(output: Output, proof: Bundle, report: Report, path: Path | None) -> bool:
    """Write the log proof where one is asked for; false where there is no sound one to write."""
    if path is None:
        return True
    if proof.proof is None or report.logged is None:
        output.note(f"{path} was not written: the bundle has no sound log proof")
        return False
    replace_file(path, proof.proof.to_text().encode())
    output.note(f"log proof in {path}")
    return True


def _show(output: Output, proof: Bundle, report: Report, moment: int, *, is_late: bool, genuine: Report | None) -> None:
    shown = genuine or report
    body = RecordBody.parse(shown.record.signed.payload) if shown.record else None
    headline = verdict_line(report.verdict, str(proof.identifier), body.status if body else Status.ACTIVE)
    if is_late:
        headline = Text(f"✗ NOT VALID AT THIS TIME {proof.identifier}", style="bold yellow")
    elif genuine is not None:
        headline = Text(f"✗ NOT PROVEN AS THE POLICY ASKS {proof.identifier}", style="bold yellow")
    output.show(headline)
    checks = [_told(check, proof) for check in report.checks]
    output.show(Text(f"as of {utc(moment)}", style="dim"), "", checks_table(checks))
    if shown.record is not None and body is not None:
        output.show("", *record_view(shown.record, body, shown.withheld))
        if shown.logged is not None:
            output.show(pairs([("logged", f"{utc(shown.logged.committed_at)}, entry {shown.logged.index:,}")]))
    output.show("", chain_tree(proof, moment))


def _told(check: Check, proof: Bundle) -> Check:
    """A currency statement of another time, with its time in words."""
    if check.name != "currency" or check.made or proof.currency is None:
        return check
    said = Currency.parse(proof.currency.payload)
    detail = f"version {said.version} was the latest at {utc(said.issued_at)}; nothing says so for the time asked for"
    return replace(check, detail=detail)


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

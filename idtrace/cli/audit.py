"""``idtrace audit``: read a registry's whole log, trust nothing but the root key, and keep what proves a lie."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from idtrace.audit import Grade
from idtrace.auditing.auditor import Asked, LogAudit
from idtrace.auditing.evidence import EVIDENCE_BYTES_MAX, Chained, Evidence, check_evidence
from idtrace.auditing.fetching import TIMEOUT_SECONDS, LogReader
from idtrace.auditing.findings import LogReport, Notice, Outcome, gravest
from idtrace.auditing.memory import MemoryFolder
from idtrace.auditing.witnesses import WitnessRound
from idtrace.chain import Anchor, zone_name
from idtrace.cli.audit_files import read_saved
from idtrace.cli.audit_metrics import AuditMetrics
from idtrace.cli.audit_view import as_html, as_json, view
from idtrace.cli.client import connect
from idtrace.cli.exits import ExitCode, Failure
from idtrace.cli.files import read_file, replace_file
from idtrace.cli.options import JsonOption, OptionalNodeOption, RootOption, anchor_of, now, output_of
from idtrace.cli.output import Output
from idtrace.cli.running import log_from
from idtrace.cli.show import checks_table
from idtrace.cli.trust import zone_of
from idtrace.errors import BusyError, IdtraceError, InputError, Reason, VerificationError
from idtrace.identifier import Prefix
from idtrace.logpolicy import POLICY_BYTES_MAX, LogPolicy

# A terminal needs no more, and each costs a tenth of a millisecond.
_REDRAWS_A_SECOND: Final = 4


def audit(
    ctx: typer.Context,
    root: RootOption,
    zones: Annotated[list[str] | None, typer.Argument(metavar="ZONE…", help="Zones whose log is audited.")] = None,
    node: OptionalNodeOption = None,
    log: Annotated[
        list[str] | None, typer.Option("--log", metavar="URL", help="Address of the log; again for another log.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", metavar="FILE", help="Witnesses that have to have seen the log (C2SP).")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state", metavar="DIR", help="What was seen before; evidence goes there too. [default: nothing]"
        ),
    ] = None,
    sample: Annotated[
        int,
        typer.Option("--sample", metavar="N", min=0, help="Only look N entries up, drawn by chance. [default: all]"),
    ] = 0,
    statements: Annotated[
        list[Path] | None,
        typer.Option("--statements", metavar="FILE", help="Saved bundle or signed statements; again for another."),
    ] = None,
    evidence: Annotated[
        Path | None, typer.Option("--evidence", metavar="FILE", help="Check this evidence, without any network.")
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", metavar="FILE.html", help="Also write a page.")] = None,
    watch: Annotated[
        float, typer.Option("--watch", metavar="SECONDS", min=0, help="Audit again and again, with this pause.")
    ] = 0,
    metrics: Annotated[
        str, typer.Option("--metrics", metavar="HOST:PORT", help="With --watch: figures for Prometheus.")
    ] = "",
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.1, max=600, help="Longest wait for one answer.")
    ] = TIMEOUT_SECONDS,
    as_json_option: JsonOption = False,
) -> None:
    """Audit logs: nothing was taken out, changed or shown to some and not to others, and every rule was kept.

    Ends with 0: consistent; 1: misbehaviour; 2: it could not be told (something is unreachable, or a key is missing).

    Example: idtrace audit 88.118.8 --root root.key.pub --node 127.0.0.1:7001 --log http://127.0.0.1:7080 --state seen
    """
    del as_json_option
    output = output_of(ctx)
    if evidence is not None:
        raise typer.Exit(_show_evidence(output, evidence, anchor_of(root)))
    if not zones or node is None or not log:
        raise typer.BadParameter("an audit needs zones, --node and --log; or --evidence alone")
    log_from("WARNING")
    work = _Work(
        anchor_of(root),
        tuple(Prefix.parse(zone) for zone in zones),
        node,
        LogPolicy.parse(read_file(policy, POLICY_BYTES_MAX), field=str(policy)) if policy else None,
        tuple(statements or ()),
        timeout,
    )
    raise typer.Exit(_run(output, work, _Manner(list(dict.fromkeys(log)), state, sample, report, watch, metrics)))


@dataclass(frozen=True, slots=True)
class _Manner:
    """Where logs are read and what is made of it: memory, a sample or all, a page, a pause before the next time."""

    urls: list[str]
    state: Path | None
    sample: int
    page: Path | None
    pause_seconds: float
    metrics: str


def _run(output: Output, work: _Work, manner: _Manner) -> Outcome:
    folder = MemoryFolder(manner.state) if manner.state else None
    with contextlib.ExitStack() as held:
        if folder is not None:
            try:
                held.enter_context(folder.held())
            except BusyError as error:  # nothing was told: 2, as for all that an audit could not do
                raise Failure(ExitCode.USAGE, error, title="not audited") from None
        audits = [_opened(held, url, work, folder) for url in manner.urls]
        figures = AuditMetrics()
        if manner.metrics:
            output.note(f"metrics at http://{held.enter_context(figures.served(manner.metrics))}/metrics")
        while True:
            moment = now()
            reports = _once(output, audits, work, moment, manner.sample)
            paths = _kept(reports, folder or MemoryFolder(Path()))
            _tell(output, reports, paths, is_line=bool(manner.pause_seconds))
            if manner.page is not None:
                replace_file(manner.page, as_html(reports, paths, moment).encode())
            figures.take(reports, moment)
            if not manner.pause_seconds:
                return gravest(one.outcome for one in reports)
            time.sleep(manner.pause_seconds)


@dataclass(frozen=True, slots=True)
class _Work:
    """What is asked for each time: keys, zones and who tells of them, whose word counts, what is held against it."""

    anchor: Anchor
    zones: tuple[Prefix, ...]
    node: str
    policy: LogPolicy | None
    statements: tuple[Path, ...]
    timeout_seconds: float


def _opened(held: contextlib.ExitStack, url: str, work: _Work, folder: MemoryFolder | None) -> LogAudit:
    reader = LogReader(url, timeout_seconds=work.timeout_seconds)
    held.callback(reader.close)
    witnesses = WitnessRound(timeout_seconds=work.timeout_seconds) if work.policy else None
    if witnesses is not None:
        held.callback(witnesses.close)
    return LogAudit(reader, Asked(work.anchor, ()), folder, witnesses)


def _once(output: Output, audits: Sequence[LogAudit], work: _Work, moment: int, sample: int) -> list[LogReport]:
    chains, troubles = _chains(work, moment)
    asked = Asked(work.anchor, chains, work.policy, read_saved(work.statements))
    reports = []
    for one in audits:
        one.asked = asked
        with _progress(output, one.reader.url) as progress:
            reports.append(one.run(moment, sample=sample, progress=progress))
    unjudged = {saved.place for saved in asked.saved if saved.statement}.difference(*(one.judged for one in audits))
    for place in sorted(unjudged):
        detail = "none of these logs is that of its signer, or its signer's keys are not known"
        troubles.append(Notice(place, Grade.UNCLEAR, Reason.SIGNER_UNKNOWN, detail))
    read = {zone for report in reports for zone in report.zones}
    for zone in work.zones:
        place = f"zone {zone_name(zone)}"
        if zone_name(zone) not in read and not any(notice.place == place for notice in troubles):
            detail = "none of these logs is that of the zone"
            troubles.append(Notice(place, Grade.UNCLEAR, Reason.LOG_UNKNOWN, detail))
    for notice in troubles:
        reports[0].add(notice)
    return reports


def _chains(work: _Work, moment: int) -> tuple[tuple[Chained, ...], list[Notice]]:
    """The verified chain of each zone, and why there is none."""
    found: list[Chained] = []
    troubles: list[Notice] = []
    with connect(work.node, min(work.timeout_seconds, 30.0)) as node:
        for zone in work.zones:
            try:
                chained = Chained(moment, zone_of(node, zone).chain)
                reached = chained.trusted(work.anchor).zone
            except Failure as failure:
                troubles.append(_no_chain(zone, failure.error))
            except (InputError, VerificationError) as error:
                troubles.append(_no_chain(zone, error))
            else:
                if reached == zone:
                    found.append(chained)
                else:
                    unknown = InputError(Reason.CHAIN_EMPTY, f"{work.node} shows no delegation of it")
                    troubles.append(_no_chain(zone, unknown))
    return tuple(found), troubles


def _no_chain(zone: Prefix, error: IdtraceError) -> Notice:
    return Notice(f"zone {zone_name(zone)}", Grade.UNCLEAR, error.reason, f"its keys are not known: {error.detail}")


@contextlib.contextmanager
def _progress(output: Output, title: str) -> Iterator[Callable[[int, int], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} entries/s"),
        TimeRemainingColumn(),
    )
    hidden = output.as_json or not output.notes.is_terminal
    bar = Progress(*columns, console=output.notes, transient=True, disable=hidden, refresh_per_second=_REDRAWS_A_SECOND)
    task = bar.add_task(title, total=None, rate="0")
    start = time.perf_counter()

    def told(done: int, whole: int) -> None:
        rate = done / max(time.perf_counter() - start, 0.001)
        bar.update(task, completed=done, total=whole, rate=f"{rate:,.0f}")

    with bar:
        yield told


def _kept(reports: Sequence[LogReport], folder: MemoryFolder) -> dict[str, str]:
    shown = [notice.evidence for report in reports for notice in report.notices if notice.evidence is not None]
    return {one.name: str(folder.keep(one)) for one in shown}


def _tell(output: Output, reports: Sequence[LogReport], paths: dict[str, str], *, is_line: bool) -> None:
    outcome = gravest(one.outcome for one in reports)
    body = {"outcome": outcome.name.lower(), "logs": [as_json(one, paths) for one in reports]}
    if is_line:
        output.line(body)
    else:
        output.document(body)
    for one in reports:
        output.show(*view(one, paths), "")


def _show_evidence(output: Output, path: Path, anchor: Anchor) -> Outcome:
    found = Evidence.parse(read_file(path, EVIDENCE_BYTES_MAX))
    checks = check_evidence(found, anchor)
    is_shown = checks[-1].name == "contradiction" and all(check.passed for check in checks)
    steps = [{"name": c.name, "passed": c.passed, "reason": c.reason or "", "detail": c.detail} for c in checks]
    output.document({"misbehaviour": is_shown, "checks": steps})
    headline = "✗ MISBEHAVIOUR IS SHOWN" if is_shown else "? THIS SHOWS NO MISBEHAVIOUR"
    output.show(Text(headline, style="bold red" if is_shown else "bold yellow"), "", checks_table(checks))
    return Outcome.MISBEHAVIOUR if is_shown else Outcome.UNCLEAR

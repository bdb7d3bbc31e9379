"""``idtrace capture``: the events of EPCIS documents, signed as their party and kept at its node."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from idtrace.bundle import signed_to_json
from idtrace.cli.bulk import require_own_journal
from idtrace.cli.capturing import CaptureRun, Fate, Outcome, Way, read_events
from idtrace.cli.client import connect
from idtrace.cli.exits import ExitCode, Failure
from idtrace.cli.files import read_file
from idtrace.cli.journal import Journal
from idtrace.cli.options import WitnessedOption, now, output_of
from idtrace.cli.output import Output, listing, pairs, plain
from idtrace.cli.register import BATCH_SECONDS, ERRORS_SHOWN_MAX, progress_bar
from idtrace.cli.show import wait_for
from idtrace.cli.signing_options import RecordSigning, grouped
from idtrace.epcis.rules import DOCUMENT_BYTES_MAX
from idtrace.identifier import Prefix

_AGAIN: Final = "run the same command again: it goes on where it stopped, and nothing is captured twice"
_FAILED: Final = (Fate.REFUSED, Fate.MALFORMED, Fate.ROLLED_BACK)


@grouped
def capture(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="EPCIS 2.0 documents or events, JSON or XML.")],
    by: RecordSigning,
    party: Annotated[str, typer.Option("--party", metavar="PREFIX", help="Whose events they are; its key signs.")],
    rollback: Annotated[
        bool,
        typer.Option("--rollback/--proceed", help="If an event is refused: keep nothing of its file, or the others."),
    ] = True,
    seal: Annotated[
        bool, typer.Option("--seal", help="Sign the events of a call together: cheaper; the log is the receipt.")
    ] = False,
    journal: Annotated[
        Path | None, typer.Option("--journal", metavar="FILE", help="Where the receipts go, if not beside each file.")
    ] = None,
    witnessed: WitnessedOption = False,
) -> None:
    """Capture the events of files and keep the receipts.

    Example: idtrace capture day-1.json --party 88.118.8

    An event is known by the hash of its bytes: the same one captured again is a success and changes nothing. Receipts
    go to FILE.idtrace-receipts.jsonl; if a run breaks off, the same command goes on where it stopped.
    """
    if journal is not None and len(files) > 1:
        raise typer.BadParameter("several files have a journal each, beside them", param_hint="--journal")
    prefix = Prefix.parse(party, field="--party")
    report = _Report(output_of(ctx))
    with connect(by.node, max(by.timeout, BATCH_SECONDS)) as peer:
        level = wait_for(witnessed=witnessed)
        way = Way(peer, prefix, by.signer(), by.anchor(), level, rollback, seal, now)
        started = time.monotonic()
        try:
            for file in files:
                _capture_file(report, file, journal, way)
        except Failure as failure:
            if failure.code is ExitCode.UNREACHABLE:
                failure.hint = _AGAIN
            raise
    raise typer.Exit(report.end(time.monotonic() - started))


def _capture_file(report: _Report, file: Path, journal: Path | None, way: Way) -> None:
    events = read_events(read_file(file, DOCUMENT_BYTES_MAX), field=str(file))
    path = journal or Path(f"{file}.idtrace-receipts.jsonl")
    with Journal(path, way.signer) as book, progress_bar(report.output) as progress:
        require_own_journal(way.node, book)
        task = progress.add_task(f"capturing {plain(file.name, 40)}", total=len(events))

        def settled(outcome: Outcome) -> None:
            report.add(file, outcome)
            progress.advance(task)

        CaptureRun(way, book, settled).run(events)


class _Report:
    """Counts, what is wrong with which event, and the words at the end."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self._counts: Counter[Fate] = Counter()
        self._shown: list[tuple[Path, Outcome]] = []
        self._errors = 0

    def add(self, file: Path, outcome: Outcome) -> None:
        self._counts[outcome.fate] += 1
        body: dict[str, object] = {
            "file": str(file),
            "event": outcome.index,
            "identifier": outcome.identifier,
            "result": outcome.fate,
        }
        if outcome.error is not None:
            error = outcome.error
            said = {"reason": error.reason, "rule": outcome.rule, "path": error.field, "detail": error.detail}
            body["error"] = said
            self._errors += 1
            if len(self._shown) < ERRORS_SHOWN_MAX:
                self._shown.append((file, outcome))
        if outcome.receipt is not None:
            body["receipt"] = signed_to_json(outcome.receipt)
        if outcome.log_position:
            body["log_index"] = outcome.log_position - 1
        self.output.line(body)

    def end(self, seconds: float) -> ExitCode:
        failed = sum(self._counts[fate] for fate in _FAILED)
        self.output.line({"summary": {str(fate): self._counts[fate] for fate in Fate} | {"seconds": round(seconds, 3)}})
        fresh = self._counts[Fate.CAPTURED]
        rate = f" in {seconds:.1f} s, {fresh / seconds:,.0f} a second" if fresh and seconds else ""
        rows = [("captured", f"{fresh:,}{rate}")]
        rows += [(str(fate), f"{self._counts[fate]:,}") for fate in list(Fate)[1:] if self._counts[fate]]
        unknown = self._counts[Fate.UNKNOWN]
        kept = fresh + self._counts[Fate.ALREADY]
        word, style = (
            ("✓ done", "bold green")
            if not failed and not unknown
            else ("! partly done", "bold yellow")
            if kept
            else ("✗ nothing captured", "bold red")
        )
        self.output.show(Text(word, style=style), pairs(rows))
        self._show_errors()
        if unknown:
            self.output.note(f"of {unknown:,} events the node could not decide; {_AGAIN}")
            return ExitCode.UNKNOWN
        return ExitCode.PARTLY if failed else ExitCode.OK

    def _show_errors(self) -> None:
        if not self._shown:
            return
        table = listing("file", "event", "path", "rule", "what is wrong")
        for file, outcome in self._shown:
            assert outcome.error is not None, "only events with an error are shown"
            error = outcome.error
            path, rule = plain(error.field.removeprefix(f"{file}.")), outcome.rule or str(error.reason)
            table.add_row(plain(file.name), str(outcome.index), path, plain(rule), plain(error.detail))
        self.output.show("", table)
        if (more := self._errors - len(self._shown)) > 0:
            self.output.note(f"… and {more:,} more; --json tells all of them")

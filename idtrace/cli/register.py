"""``idtrace register``: one identifier, or a file of them."""

from __future__ import annotations

import csv
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TextIO

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from idtrace.bundle import signed_to_json
from idtrace.chain import Anchor
from idtrace.cli.bulk import BATCH_LINES_MAX, BulkRun, Fate, Outcome
from idtrace.cli.client import Node, connect
from idtrace.cli.drafts import (
    TTL_SECONDS_DEFAULT,
    Draft,
    entries,
    idempotency_key,
    signed_record,
    template_entry,
)
from idtrace.cli.exits import ExitCode, Failure
from idtrace.cli.files import read_file
from idtrace.cli.journal import Journal
from idtrace.cli.options import (
    TIMEOUT_SECONDS,
    JsonOption,
    KeyOption,
    NodeOption,
    OptionalRootOption,
    PassphraseEnvOption,
    PassphrasePromptOption,
    RootUpdateOption,
    TimeoutOption,
    WitnessedOption,
    now,
    output_of,
    signer_of,
)
from idtrace.cli.output import Output, listing, pairs, plain
from idtrace.cli.rows import Defaults, count_lines, read_rows
from idtrace.cli.sealed import SealedRun
from idtrace.cli.show import NOT_WITNESSED, Level, level_word, receipt_table, wait_for, warn_unless_witnessed
from idtrace.cli.signing_options import pinned
from idtrace.cli.trust import ReceiptCheck, Zones
from idtrace.errors import IdtraceError, InputError, Reason
from idtrace.identifier import Identifier
from idtrace.record import SALT_BYTES, TTL_SECONDS_MAX, RecordKind
from idtrace.scan import scan
from idtrace.signature import Signer
from idtrace.v1 import registry_pb2, registry_pb2_grpc
from idtrace.wire import record_to_pb, signed_from_pb

# A batch of 2,000 takes the node about a second; the rest is for a node that is busy.
BATCH_SECONDS: Final = 30.0
# What a person reads of a long list of complaints; the file has them all.
ERRORS_SHOWN_MAX: Final = 10
_UNFINISHED: Final = "an earlier run has not finished; first run the same command"
_AGAIN: Final = "run the same command again: it goes on where it stopped, and nothing is done twice"


IdentifierArgument = Annotated[
    str | None, typer.Argument(metavar="ID", help="Identifier, or any code as scanned (GS1, drug trace code).")
]
ValueOption = Annotated[
    list[str] | None, typer.Option("--value", "-v", metavar="TYPE=TEXT", help="A value; repeat for several.")
]
RestrictedOption = Annotated[
    list[str] | None, typer.Option("--restricted", metavar="TYPE", help="Values of this type are not for everybody.")
]
ClassOption = Annotated[str, typer.Option("--class", metavar="ID", help="Class record that the identifier belongs to.")]
TtlOption = Annotated[
    int, typer.Option("--ttl", metavar="SECONDS", min=0, max=TTL_SECONDS_MAX, help="How long caches may keep it.")
]
KindOption = Annotated[RecordKind, typer.Option("--kind", metavar="item|class|block", help="What the record is about.")]
TemplateOption = Annotated[
    Path | None, typer.Option("--template", metavar="FILE.json", help="Template of a class (with --kind class).")
]
FromOption = Annotated[
    Path | None, typer.Option("--from", metavar="FILE", help="Register every line of a .csv or .jsonl file.")
]
BatchOption = Annotated[
    int | None,
    typer.Option(
        "--batch", metavar="LINES", min=1, max=BATCH_LINES_MAX, help="Lines in one call (1,000; under a seal 2,000)."
    ),
]
SealOption = Annotated[
    bool, typer.Option("--seal", help="Sign the lines of a call together (--from): cheaper; the log is the receipt.")
]

JournalOption = Annotated[
    Path | None,
    typer.Option("--journal", metavar="FILE", help="Where the receipts of --from go, if not beside the file."),
]


def register(
    ctx: typer.Context,
    key: KeyOption,
    node: NodeOption,
    identifier: IdentifierArgument = None,
    value: ValueOption = None,
    restricted: RestrictedOption = None,
    class_: ClassOption = "",
    ttl: TtlOption = TTL_SECONDS_DEFAULT,
    kind: KindOption = RecordKind.ITEM,
    template: TemplateOption = None,
    file: FromOption = None,
    seal: SealOption = False,
    batch: BatchOption = None,
    journal: JournalOption = None,
    witnessed: WitnessedOption = False,
    root: OptionalRootOption = None,
    root_update: RootUpdateOption = None,
    passphrase_env: PassphraseEnvOption = None,
    passphrase_prompt: PassphrasePromptOption = False,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Register an identifier, or every line of a file, and keep the receipts.

    One:   idtrace register 88.118.8/SN-1 -v lot=L1 -v URL=https://maker.example/sn-1

    Many:  idtrace register --from items.csv

    A file has a header row with the column [bold]identifier[/bold]; every other column is a value. Receipts go to
    FILE.idtrace-receipts.jsonl as they arrive; if the run breaks off, the same command goes on where it stopped.
    Lines that fail stand in FILE.errors.csv with the reason. Receipts are one node's: a run at another node wants a
    journal of its own. With --seal the journal has the places in the log and its checkpoint instead of receipts.
    """
    del as_json
    output = output_of(ctx)
    if (identifier is None) == (file is None):
        raise typer.BadParameter("give one identifier, or a file with --from", param_hint="ID")
    if kind is RecordKind.TOMBSTONE:
        raise typer.BadParameter("an identifier is ended with: idtrace retire", param_hint="--kind")
    if file is None and (journal is not None or seal):
        hint = "--seal" if seal else "--journal"
        raise typer.BadParameter("only lines of a file have a journal and are sealed", param_hint=hint)
    class_id = Identifier.parse(class_, field="--class") if class_ else None
    signer = signer_of(key, passphrase_env, prompt=passphrase_prompt)
    with connect(node, timeout if file is None else max(timeout, BATCH_SECONDS)) as peer:
        anchor, level = pinned(root, root_update), wait_for(witnessed=witnessed)
        if file is not None:
            if value or template:
                raise typer.BadParameter("the values come from the file", param_hint="--value")
            defaults = Defaults(ttl, class_id, kind, frozenset(restricted or ()))
            way = _Way(peer, signer, anchor, level, batch or BATCH_LINES_MAX // (1 if seal else 2), is_sealed=seal)
            raise typer.Exit(_register_file(_Report(output, file, journal), file, defaults, way))
        assert identifier is not None
        values = entries(value or (), restricted or ())
        if template is not None:
            values += (template_entry(read_file(template).decode("utf-8", "replace"), field=str(template)),)
        draft = Draft(scan(identifier).identifier, values, kind, class_id, ttl)
        _register_one(output, draft, peer, signer, ReceiptCheck(peer, anchor), level)


def _register_one(output: Output, draft: Draft, node: Node, signer: Signer, check: ReceiptCheck, level: Level) -> None:
    at = now()
    body, values = draft.body([secrets.token_bytes(SALT_BYTES) for _ in draft.values], at)
    record = signed_record(body, values, signer)
    request = registry_pb2.RegisterRequest(
        idempotency_key=idempotency_key(record.signed.payload), record=record_to_pb(record), wait_for=level
    )
    told = node.write(registry_pb2_grpc.RegistryServiceStub(node.channel).Register, request).receipt
    signed = signed_from_pb(told.signed, "receipt")
    receipt = check(signed, record, draft.identifier, 1, at)
    body_shown = {"identifier": str(draft.identifier), "result": "registered", "level": level_word(told.level)}
    output.document({**body_shown, "receipt": signed_to_json(signed)})
    output.show(receipt_table("registered", receipt, told.level))
    warn_unless_witnessed(output, told.level, asked=bool(level))


@dataclass(frozen=True, slots=True)
class _Way:
    """How a file is registered: where, by whom, under which root keys, waiting for what, in which batches."""

    node: Node
    signer: Signer
    anchor: Anchor | None
    level: Level
    batch_lines: int
    is_sealed: bool

    def run(self, journal: Journal, settled: Callable[[Outcome], None]) -> BulkRun | SealedRun:
        """One run.

        Raises:
            InputError: an earlier run the other way is unfinished; its lines would seem to be taken by somebody else.
        """
        if self.is_sealed and journal.pending:
            raise InputError(Reason.FIELD_MALFORMED, f"{_UNFINISHED} without --seal", field=str(journal.path))
        if not self.is_sealed and journal.batches:
            raise InputError(Reason.FIELD_MALFORMED, f"{_UNFINISHED} with --seal", field=str(journal.path))
        if self.is_sealed:
            return SealedRun(
                node=self.node,
                journal=journal,
                signer=self.signer,
                zones=Zones(self.node, self.anchor, now),
                clock=now,
                settled=settled,
                batch_lines=self.batch_lines,
                wait_for=self.level,
            )
        return BulkRun(
            node=self.node,
            journal=journal,
            signer=self.signer,
            check=ReceiptCheck(self.node, self.anchor),
            clock=now,
            settled=settled,
            batch_lines=self.batch_lines,
            wait_for=self.level,
        )


def _register_file(report: _Report, file: Path, defaults: Defaults, way: _Way) -> ExitCode:
    output = report.output
    total = count_lines(file)
    report.begin()
    started = time.monotonic()
    with Journal(report.journal_file, way.signer) as journal, progress_bar(output) as progress:
        task = progress.add_task("registering", total=total)
        if journal.done:
            output.note(f"{report.journal_file.name} has {len(journal.done):,} lines: going on from there")

        def settled(outcome: Outcome) -> None:
            report.add(outcome)
            progress.advance(task)

        run = way.run(journal, settled)
        try:
            run.run(read_rows(file, defaults))
            progress.update(task, total=progress.tasks[0].completed)
        except Failure as failure:
            if failure.code is ExitCode.UNREACHABLE:
                failure.hint = _AGAIN
            raise
        except InputError:
            output.note(f"{report.registered:,} lines were registered before this; mend the file, and {_AGAIN}")
            raise
        except KeyboardInterrupt:
            output.note(_AGAIN)
            raise
        finally:
            report.close()
    code = report.end(time.monotonic() - started, run.levels)
    if way.level and sum(run.levels.values()) > run.levels["witnessed"]:
        output.note(NOT_WITNESSED)
    return code


class _Report:
    """Counts, the errors file and the words at the end."""

    def __init__(self, output: Output, file: Path, journal: Path | None) -> None:
        self.journal_file = journal or Path(f"{file}.idtrace-receipts.jsonl")
        self.errors_file = Path(f"{file}.errors.csv")
        self.output = output
        self._counts: Counter[Fate] = Counter()
        self._first_errors: list[Outcome] = []
        self._error_lines: TextIO | None = None

    def begin(self) -> None:
        """Forget the complaints of an earlier run."""
        self.errors_file.unlink(missing_ok=True)

    @property
    def registered(self) -> int:
        """Lines registered so far by this run."""
        return self._counts[Fate.REGISTERED]

    def add(self, outcome: Outcome) -> None:
        self._counts[outcome.fate] += 1
        body: dict[str, object] = {"line": outcome.number, "identifier": outcome.identifier, "result": outcome.fate}
        if outcome.error is not None:
            error = outcome.error
            self._add_error(outcome, error)
            body["error"] = {"reason": error.reason, "field": error.field, "detail": error.detail}
        if outcome.receipt is not None:
            body["receipt"] = signed_to_json(outcome.receipt)
        if outcome.log_position:
            body["log_index"] = outcome.log_position - 1
        self.output.line(body)

    def _add_error(self, outcome: Outcome, error: IdtraceError) -> None:
        if self._error_lines is None:
            self._error_lines = self.errors_file.open("w", encoding="utf-8", newline="")
            self._error_lines.write("line,identifier,reason,field,detail\n")
        cells = [outcome.number, outcome.identifier, str(error.reason), error.field, error.detail]
        csv.writer(self._error_lines, lineterminator="\n").writerow(cells)
        if len(self._first_errors) < ERRORS_SHOWN_MAX:
            self._first_errors.append(outcome)

    def close(self) -> None:
        """Close the errors file; without errors there is none."""
        if self._error_lines is not None:
            self._error_lines.close()

    def end(self, seconds: float, levels: Mapping[str, int]) -> ExitCode:
        failed = sum(self._counts[fate] for fate in (Fate.REFUSED, Fate.MALFORMED, Fate.UNKNOWN))
        counts = {str(fate): self._counts[fate] for fate in Fate}
        summary = {**counts, "seconds": round(seconds, 3), "receipts_file": str(self.journal_file)}
        summary |= {"levels": dict(levels)} if levels else {}
        self.output.line({"summary": summary | ({"errors_file": str(self.errors_file)} if failed else {})})
        fresh = self._counts[Fate.REGISTERED]
        rate = f" in {seconds:.1f} s, {fresh / seconds:,.0f} a second" if fresh and seconds else ""
        rows = [("registered", f"{fresh:,}{rate}")]
        rows += [(str(fate), f"{self._counts[fate]:,}") for fate in list(Fate)[1:] if self._counts[fate]]
        rows += [("of these", ", ".join(f"{count:,} {level}" for level, count in levels.items()))] if levels else []
        rows += [("receipts", str(self.journal_file))]
        rows += [("errors", str(self.errors_file))] if failed else []
        done = Text("✓ done", style="bold green") if not failed else Text("! partly done", style="bold yellow")
        self.output.show(done, pairs(rows))
        if failed:
            self._show_errors(failed)
        if unknown := self._counts[Fate.UNKNOWN]:
            self.output.note(f"of {unknown:,} lines the node could not say whether it has them; {_AGAIN}")
            return ExitCode.UNKNOWN
        return ExitCode.PARTLY if failed else ExitCode.OK

    def _show_errors(self, failed: int) -> None:
        table = listing("line", "identifier", "reason", "detail")
        for outcome in self._first_errors:
            assert outcome.error is not None
            error = outcome.error
            table.add_row(str(outcome.number), plain(outcome.identifier), str(error.reason), plain(error.detail))
        self.output.show("", table)
        if (more := failed - len(self._first_errors)) > 0:
            self.output.note(f"… and {more:,} more in {self.errors_file}")


def progress_bar(output: Output) -> Progress:
    """A bar on stderr while somebody looks; it leaves nothing behind."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=output.notes,
        transient=True,
        disable=output.as_json or not output.notes.is_terminal,
    )

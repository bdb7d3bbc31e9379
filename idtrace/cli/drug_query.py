"""``idtrace drug query``: where codes stand, each answer made here of proofs that are verified here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final

import grpc
import typer

from idtrace.bundle import Bundle, Verdict
from idtrace.chain import Anchor
from idtrace.cli.client import Node, connect, failure_of_call
from idtrace.cli.exits import ExitCode, Failure
from idtrace.cli.files import read_file
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
from idtrace.cli.output import Output, listing, plain
from idtrace.drugcode.answers import Book, Entry, entry
from idtrace.drugcode.codes import CODES_MAX, Rejected, code_of, identifier_of, sort_out
from idtrace.drugcode.states import State
from idtrace.epcis.statement import is_event
from idtrace.epcis.values import time_text
from idtrace.errors import IdtraceError, InputError, OutcomeUnknownError, Reason
from idtrace.provenance.history import Observed
from idtrace.provenance.reading import read_event
from idtrace.record import Record, RecordBody
from idtrace.v1 import drugcode_pb2, drugcode_pb2_grpc
from idtrace.verdict.facts import Answered
from idtrace.verification import verify_bundle
from idtrace.wire import bundle_from_pb

QUERY_SECONDS: Final = 30.0
# 1,000 codes with a record each, 4,000 events, classes, and as many gaps.
PARTS_MAX: Final = 20_000
FILE_BYTES_MAX: Final = 65_536


class Checked:
    """The proofs of an answer after our own verification."""

    def __init__(self, parts: Iterable[Any], anchor: Anchor, at: int) -> None:
        self.papers: dict[str, Bundle] = {}
        self.observed: list[Observed] = []
        self.gaps: list[str] = []
        self.forged: list[str] = []
        for part in parts:
            kind = part.WhichOneof("part")
            if kind == "proof":
                self._proof(part.proof, anchor, at)
            elif kind == "gap":
                self.gaps.append(f"{part.gap.subject}: {part.gap.detail}")

    def _proof(self, message: Any, anchor: Anchor, at: int) -> None:
        try:
            bundle = bundle_from_pb(message)
            report = verify_bundle(bundle, anchor, now=at)
            if not report.valid:
                self.forged.append(f"{bundle.identifier}: {report.checks[-1].detail}")
            elif is_event(bundle.identifier) and isinstance(bundle.outcome, Record):
                self.observed.append(read_event(bundle.outcome, logged=report.logged is not None))
            else:
                self.papers[str(bundle.identifier)] = bundle
        except IdtraceError as error:
            self.forged.append(f"a proof cannot be read: {error.detail}")

    def entries(self, codes: Iterable[str], at: int) -> list[Entry]:
        """How each code stands, by what was verified here and nothing else."""
        book = Book.of(self.observed, at * 1000)
        unknown = Answered(Verdict.UNREACHABLE, reason=str(Reason.NO_ANSWER))
        return [entry(key, self._line(key), book, unknown) for key in (str(identifier_of(code)) for code in codes)]

    def _line(self, key: str) -> list[Bundle]:
        """The record of a code and its classes."""
        line: list[Bundle] = []
        bundle = self.papers.get(key)
        while bundle is not None and bundle not in line:
            line.append(bundle)
            record = bundle.outcome
            above = RecordBody.parse(record.signed.payload).class_id if isinstance(record, Record) else None
            bundle = self.papers.get(str(above)) if above is not None else None
        return line


def ask(node: Node, codes: Iterable[str]) -> list[Any]:
    """The parts of the answer, the summary last.

    Raises:
        Failure: the resolver does not answer, refuses, or breaks off before the end.
    """
    stub = drugcode_pb2_grpc.DrugCodeServiceStub(node.channel)
    parts: list[Any] = []
    try:
        request = drugcode_pb2.QueryCodesRequest(codes=codes, proofs=True)
        for part in stub.QueryCodes(request, timeout=node.timeout_seconds):
            parts.append(part)
            if len(parts) > PARTS_MAX:
                break
    except grpc.RpcError as error:
        raise failure_of_call(error, node.address) from None
    if not parts or parts[-1].WhichOneof("part") != "summary":
        torn = OutcomeUnknownError(Reason.ANSWER_MALFORMED, "the answer breaks off before its end")
        raise Failure(ExitCode.UNREACHABLE, torn, title=f"{node.address} answers nonsense")
    return parts


def query(
    ctx: typer.Context,
    resolver: ResolverOption,
    root: RootOption,
    codes: Annotated[list[str] | None, typer.Argument(metavar="CODE", help="Codes of 20 digits.")] = None,
    root_update: RootUpdateOption = None,
    source: Annotated[Path | None, typer.Option("--from", metavar="FILE", help="Codes, one a line.")] = None,
    timeout: TimeoutOption = QUERY_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Tell where up to 1,000 codes stand, each state verified here.

    Example: idtrace drug query 81234560000000000001 --resolver localhost:7400 --root root.key.pub

    A active, I in-verified, O out-verified, C cancelled, E non-existent (a signed denial says so), ? unknown.
    """
    del as_json
    output = output_of(ctx)
    texts = list(codes or ())
    if source is not None:
        try:
            texts += [line.strip() for line in read_file(source, FILE_BYTES_MAX).decode("utf-8-sig").splitlines()]
        except UnicodeDecodeError:
            raise InputError(Reason.FIELD_MALFORMED, "the file is not UTF-8", field=str(source)) from None
    fit, rejected = sort_out(texts)
    if not texts or len(texts) > CODES_MAX:
        raise InputError(Reason.BATCH_TOO_LARGE, f"a query has 1 to {CODES_MAX:,} codes", field="CODE")
    anchor = roots_of(root, root_update).anchor
    parts: list[Any] = []
    if fit:
        with connect(resolver, timeout) as node:
            parts = ask(node, fit)
    at = now()
    checked = Checked(parts, anchor, at)
    entries = checked.entries(fit, at)
    _show(output, entries, rejected, checked)
    raise typer.Exit(_code(entries, rejected, checked))


def _code(entries: Iterable[Entry], rejected: tuple[Rejected, ...], checked: Checked) -> ExitCode:
    if checked.forged:
        return ExitCode.BOGUS
    if checked.gaps or any(one.state is State.UNKNOWN for one in entries):
        return ExitCode.UNREACHABLE
    return ExitCode.PARTLY if rejected else ExitCode.OK


def _show(output: Output, entries: list[Entry], rejected: tuple[Rejected, ...], checked: Checked) -> None:
    table = listing("code", "state", "level", "in", "lot", "expiry", "by", "at", "what is wrong")
    for one in entries:
        at = time_text(one.at_ms) if one.at_ms else ""
        wrong = ", ".join(dict.fromkeys(str(each.rule) for each in one.breaches))
        said = f"→ {_text(one.replaced_by)} {wrong}".strip() if one.replaced_by else wrong
        level = str(one.level) if one.level else ""
        table.add_row(
            _text(one.key), one.state, level, _text(one.parent), plain(one.lot), one.expiry, one.party, at, plain(said)
        )
    for bad in rejected:
        table.add_row(plain(bad.text, 24), "", "", "", "", "", "", "", bad.rule)
    output.show(table)
    counts = Counter(one.state for one in entries)
    output.show(", ".join(f"{state} {count:,}" for state, count in sorted(counts.items())))
    for missing in (*checked.forged, *checked.gaps):
        output.note(missing)
    output.document(
        {
            "codes": [_json(one) for one in entries],
            "unfit": [{"index": one.index, "text": one.text, "reason": one.why, "rule": one.rule} for one in rejected],
            "gaps": checked.gaps,
            "forged": checked.forged,
        }
    )


def _json(one: Entry) -> dict[str, Any]:
    names = ("level", "product_zh", "product_en", "lot", "expiry", "party", "at_ms")
    breaches = [
        {"rule": each.rule, "at_ms": each.at_ms, "party": each.party, "evidence": each.evidence}
        for each in one.breaches
    ]
    told = {name: getattr(one, name) for name in names}
    shown = {"code": _text(one.key), "state": one.state, "parent": _text(one.parent)}
    return {**shown, **told, "replaced_by": _text(one.replaced_by), "breaches": breaches}


def _text(key: str) -> str:
    return code_of(key) or key

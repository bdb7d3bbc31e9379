"""``idtrace trace``: where has it been? Asks a resolver for the events, and makes the history of them here.

1. the text is read here, so the question is ours and not the resolver's;
2. every event and every paper verifies from the pinned root key, and is what its identifier says;
3. the history (packages, hands, places, temperatures, contradictions) is made of these here, not taken from anybody.

So a resolver can leave something out, and can neither invent an event nor change one. What does not verify is shown as
a gap of its own, and the command then fails.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final

import grpc
import typer

from idtrace.bundle import Bundle, Verdict
from idtrace.chain import Anchor
from idtrace.cli.client import Node, connect, failure_of_call
from idtrace.cli.exits import ExitCode, Failure, verdict_code
from idtrace.cli.files import replace_file
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
from idtrace.cli.trace_view import Trail, trail_json, trail_view
from idtrace.epcis.statement import is_event
from idtrace.epcis.write import query_document_json
from idtrace.errors import IdtraceError, OutcomeUnknownError, Reason
from idtrace.party import PARTY_PATH, Party, read_license
from idtrace.provenance.assemble import history
from idtrace.provenance.history import Gap, GapKind, Observed
from idtrace.provenance.reading import read_event
from idtrace.record import Record, RecordBody
from idtrace.scan import scan
from idtrace.v1 import resolver_pb2, resolver_pb2_grpc
from idtrace.verification import Report, verify_bundle
from idtrace.wire import bundle_from_pb

# A resolver takes 20 s at most for a history (resolver/tracing.py), and says then what is missing.
TRACE_SECONDS: Final = 30.0
# As many parts as a resolver may send: 4,000 events, as many gaps and contradictions, and some hundred papers.
PARTS_MAX: Final = 20_000


def ask(node: Node, identifier: str) -> list[Any]:
    """The parts of a trace, the summary last.

    Raises:
        Failure: the resolver does not answer, refuses, or breaks off before the end.
    """
    stub = resolver_pb2_grpc.ResolverServiceStub(node.channel)
    parts: list[Any] = []
    try:
        for part in stub.Trace(resolver_pb2.TraceRequest(text=identifier), timeout=node.timeout_seconds):
            parts.append(part)
            if len(parts) > PARTS_MAX:
                break
    except grpc.RpcError as error:
        raise failure_of_call(error, node.address) from None
    if not parts or parts[-1].WhichOneof("part") != "summary":
        torn = OutcomeUnknownError(Reason.ANSWER_MALFORMED, "the history breaks off before its end")
        raise Failure(ExitCode.UNREACHABLE, torn, title=f"{node.address} answers nonsense")
    return parts


class Checked:
    """Parts of a trace after our own verification: what holds, and what does not as gaps."""

    def __init__(self, identifier: str, anchor: Anchor, at: int) -> None:
        self.identifier = identifier
        self.verdict = Verdict.UNREACHABLE  # nothing shows what the identifier is
        self.observed: dict[str, Observed] = {}
        self.parties: dict[str, Party] = {}
        self.gaps: list[Gap] = []
        self.forged = 0
        self._anchor = anchor
        self._at = at

    def take(self, parts: Iterable[Any]) -> None:
        """Verify every part that proves something, and keep the gaps that the resolver names."""
        for part in parts:
            match part.WhichOneof("part"):
                case "step":
                    self._event(part.step.bundle)
                case "paper":
                    self._paper(part.paper.bundle)
                case "gap":
                    self._gap(part.gap)
                case _:  # contradictions and the summary: both are made here
                    pass

    def _event(self, message: Any) -> None:
        got = self._verified(message)
        if got is not None:
            self._observe(*got)

    def _observe(self, bundle: Bundle, report: Report) -> None:
        if not isinstance(bundle.outcome, Record) or report.verdict is not Verdict.FOUND:
            self._forged(str(bundle.identifier), "it is given as an event, and is none")
            return
        try:
            observed = read_event(bundle.outcome, logged=report.logged is not None)
        except IdtraceError as error:
            self._forged(str(bundle.identifier), f"it is given as an event, and is none: {error.detail}")
            return
        self.observed[observed.identifier] = observed

    def _paper(self, message: Any) -> None:
        got = self._verified(message)
        if got is None:
            return
        bundle, report = got
        if is_event(bundle.identifier):
            self._observe(bundle, report)
            return
        if str(bundle.identifier) == self.identifier:
            self.verdict = report.verdict
        if bundle.identifier.suffix.startswith(PARTY_PATH) and isinstance(bundle.outcome, Record):
            try:
                party = read_license(bundle.outcome, RecordBody.parse(bundle.outcome.signed.payload))
            except IdtraceError as error:
                self.gaps.append(Gap(GapKind.UNREADABLE, str(bundle.identifier), f"no licence: {error.detail}"))
                return
            self.parties[party.prefix] = party

    def _verified(self, message: Any) -> tuple[Bundle, Report] | None:
        try:
            bundle = bundle_from_pb(message)
        except IdtraceError as error:
            self._forged(self.identifier, f"a proof cannot be read: {error.detail}")
            return None
        report = verify_bundle(bundle, self._anchor, now=self._at)
        if not report.valid:
            self._forged(str(bundle.identifier), report.checks[-1].detail)
            return None
        return bundle, report

    def _forged(self, subject: str, detail: str) -> None:
        self.forged += 1
        self.gaps.append(Gap(GapKind.BOGUS, subject, detail, "the resolver"))

    def _gap(self, gap: Any) -> None:
        kind = GapKind(gap.kind) if gap.kind in tuple(GapKind) else GapKind.REFUSED
        self.gaps.append(Gap(kind, gap.subject, gap.detail, gap.node))


def trail_of(checked: Checked, at_ms: int) -> Trail:
    """The history, made here, of what has been verified here."""
    made = history(checked.identifier, checked.observed.values(), now_ms=at_ms, parties=checked.parties)
    return Trail(made, checked.verdict, tuple(checked.gaps), checked.parties, at_ms)


def code_of(checked: Checked) -> ExitCode:
    """A forged part outweighs what is missing, and that what the tree says of the identifier."""
    if checked.forged or any(gap.kind is GapKind.BOGUS for gap in checked.gaps):
        return ExitCode.BOGUS
    return ExitCode.UNREACHABLE if checked.gaps else verdict_code(checked.verdict)


def trace(
    ctx: typer.Context,
    code: Annotated[str, typer.Argument(metavar="CODE", help="Identifier, or any code as scanned.")],
    resolver: ResolverOption,
    root: RootOption,
    root_update: RootUpdateOption = None,
    tree: Annotated[bool, typer.Option("--tree", help="Only the packages and hands that it went through.")] = False,
    table: Annotated[bool, typer.Option("--table", help="Only the events in order of time.")] = False,
    epcis: Annotated[
        Path | None, typer.Option("--epcis", metavar="FILE", help="Write the events as an EPCIS 2.0 query document.")
    ] = None,
    timeout: TimeoutOption = TRACE_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Tell where a thing has been, in what, in whose hands and how cold, and verify every event here.

    Example: idtrace trace 88.118.8/SN-1 --resolver localhost:7400 --root root.key.pub --epcis sn-1.json
    """
    del as_json
    output = output_of(ctx)
    identifier = str(scan(code).identifier)
    anchor = roots_of(root, root_update).anchor
    with connect(resolver, timeout) as node:
        parts = ask(node, identifier)
    at = now()
    checked = Checked(identifier, anchor, at)
    checked.take(parts)
    trail = trail_of(checked, at * 1000)
    width = output.screen.width
    output.show(*trail_view(trail, width, with_tree=tree or not table, with_table=table or not tree))
    output.document({**trail_json(trail), "exit_code": int(code_of(checked))})
    if epcis is not None:
        events = [step.observed.event for step in trail.history.steps]
        document = query_document_json("SimpleEventQuery", "", events, at * 1000)
        replace_file(epcis, (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode())
        output.note(f"wrote {epcis}: {len(events)} events")
    raise typer.Exit(code_of(checked))

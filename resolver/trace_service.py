"""What a trace says on the wire: steps in order of time, papers, gaps, contradictions, and the summary last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from idtrace import wire
from idtrace.errors import InputError, VerificationError
from idtrace.party import PARTY_PATH, Party, read_license
from idtrace.provenance.assemble import history
from idtrace.provenance.history import History
from idtrace.record import Record, RecordBody
from idtrace.v1 import resolver_pb2 as pb
from resolver.resolution import Resolution
from resolver.tracing import Traced


def parts(traced: Traced) -> Iterator[pb.TraceResponse]:
    """The messages of a trace, in their order."""
    told = history(traced.subject, traced.observed, now_ms=traced.now_ms, parties=licences(traced.papers))
    steps = list(_steps(traced, told))
    papers = [paper.bundle for paper in (traced.answer, *traced.papers) if paper.bundle is not None]
    # What was packed or fitted before it came near the thing is no step of its history, and explains some.
    told_already = {one.identifier for one in (*(step.observed for step in told.steps), *told.voided)}
    papers += [traced.events[one.identifier] for one in traced.observed if one.identifier not in told_already]
    yield from (pb.TraceResponse(step=step) for step in steps)
    for bundle in papers:
        yield pb.TraceResponse(paper=pb.TracePaper(bundle=wire.bundle_to_pb(bundle)))
    for gap in traced.gaps:
        yield pb.TraceResponse(gap=pb.TraceGap(kind=gap.kind, subject=gap.subject, detail=gap.detail, node=gap.node))
    for one in told.contradictions:
        found = pb.TraceContradiction(kind=one.kind, at_ms=one.at_ms, detail=one.detail, evidence=one.evidence)
        yield pb.TraceResponse(contradiction=found)
    yield pb.TraceResponse(
        summary=pb.TraceSummary(
            subject=traced.subject,
            now_ms=traced.now_ms,
            steps=len(steps),
            papers=len(papers),
            gaps=len(traced.gaps),
            contradictions=len(told.contradictions),
        )
    )


def licences(papers: tuple[Resolution, ...]) -> Mapping[str, Party]:
    """Licences by prefix; a paper that is none, or does not read as one, licenses nobody."""
    found: dict[str, Party] = {}
    for paper in papers:
        record = paper.bundle.outcome if paper.bundle is not None else None
        if not isinstance(record, Record) or not paper.identifier.suffix.startswith(PARTY_PATH):
            continue
        try:
            party = read_license(record, RecordBody.parse(record.signed.payload))
        except (InputError, VerificationError):
            continue
        found[party.prefix] = party
    return found


def _steps(traced: Traced, told: History) -> Iterator[pb.TraceStep]:
    """Steps and what was taken back, in order of time."""
    lines = [(step.at_ms, step.observed.identifier, step.via, step.depth, False) for step in told.steps]
    lines += [(one.event.time_ms, one.identifier, traced.subject, 0, True) for one in told.voided]
    for at_ms, identifier, via, depth, voided in sorted(lines, key=lambda line: line[0]):
        bundle = wire.bundle_to_pb(traced.events[identifier])
        yield pb.TraceStep(at_ms=at_ms, via=via, depth=depth, voided=voided, bundle=bundle)

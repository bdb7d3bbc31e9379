"""Who holds what on the wire: the recall's proof, rows, gaps, and the summary last."""

from __future__ import annotations

from collections.abc import Iterator

from idtrace import wire
from idtrace.errors import InputError, Reason
from idtrace.identifier import Prefix
from idtrace.recall import NAME_MAX
from idtrace.v1 import resolver_pb2 as pb
from resolver.holders import Held


def asked_recall(request: pb.WhoHoldsRequest) -> tuple[Prefix, str]:
    """The zone and the name.

    Raises:
        InputError: one is missing, too long or malformed.
    """
    if not request.recall:
        raise InputError(Reason.FIELD_MISSING, "say which recall's holders", field="recall")
    if len(request.recall) > NAME_MAX:
        raise InputError(
            Reason.FIELD_TOO_LARGE, f"the name of a recall has at most {NAME_MAX} characters", field="recall"
        )
    zone = Prefix.parse(request.zone, field="zone")
    return zone, request.recall


def holder_parts(held: Held) -> Iterator[pb.WhoHoldsResponse]:
    """The messages of an answer, in their order."""
    found = held.found
    yield pb.WhoHoldsResponse(recalls=wire.bundle_to_pb(held.bundle))
    for row in found.rows:
        yield pb.WhoHoldsResponse(
            row=pb.HolderRow(
                holder=row.holder,
                towards=row.towards,
                place=row.place,
                since_ms=row.since_ms,
                packages=row.packages,
                doses=row.doses,
                given=row.given,
                acknowledged_ms=row.acknowledged_ms,
                evidence=row.evidence,
            )
        )
    for gap in found.gaps:
        yield pb.WhoHoldsResponse(gap=pb.TraceGap(kind=gap.kind, subject=gap.subject, detail=gap.detail, node=gap.node))
    yield pb.WhoHoldsResponse(
        summary=pb.HolderSummary(
            zone=held.recall.zone,
            recall=held.recall.name,
            now_ms=held.now_ms,
            rows=len(found.rows),
            gaps=len(found.gaps),
            doses=found.doses,
            asked=found.asked,
            events=found.events,
        )
    )

"""Was it always cold, and is all of it known?"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from idtrace.epcis.statement import EVENT_PATH
from idtrace.provenance.history import GapKind
from idtrace.verdict.context import Context
from idtrace.verdict.findings import Code, Finding


def temperature(context: Context) -> Iterator[Finding]:
    """What the temperature rules found, one to one (``idtrace/coldchain/assess.py``)."""
    if context.thermal is None:
        return
    for found in context.thermal.findings:
        values = {
            "minimum": _degrees(found.minimum),
            "maximum": _degrees(found.maximum),
            "minutes": str(found.seconds // 60),
            "device": found.device or "-",
            "rule": found.source or "-",
        }
        yield Finding(Code(found.kind.value), found.start_ms, values, tuple(sorted(found.evidence)), found.source)


def _degrees(value: Decimal | None) -> str:
    return "-" if value is None else format(value.normalize(), "f")


def gaps(context: Context) -> Iterator[Finding]:
    """What could not be learned. A pointer that names an event in vain leaves nothing unknown."""
    read = {one.identifier for one in context.facts.observed}
    for gap in sorted(set(context.facts.gaps), key=lambda gap: (gap.kind, gap.subject, gap.detail, gap.node)):
        idle = gap.subject in read if gap.kind is GapKind.MISFIT else gap.kind is GapKind.UNFOUNDED
        if not idle or f"/{EVENT_PATH}" not in gap.subject:
            code = Code.HISTORY_LIMIT if gap.kind is GapKind.BOUND else Code.HISTORY_GAP
            yield Finding(code, None, {"subject": gap.subject, "kind": str(gap.kind), "detail": gap.detail})

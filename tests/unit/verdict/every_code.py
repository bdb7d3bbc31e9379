"""Stories that together show every code but those of temperature."""

from __future__ import annotations

from idtrace.bundle import Verdict
from idtrace.epcis.model import Action, ErrorDeclaration, EventType
from idtrace.provenance.history import Gap, GapKind
from idtrace.record import Status
from idtrace.verdict.facts import Answered
from tests.unit.verdict.facts_builder import (
    CLINIC,
    DOSE_URI,
    HOUR,
    MAKER,
    MINUTE,
    OTHER,
    T0,
    Story,
    dispensed,
    event,
    made,
    product,
    shipped,
    site,
    story,
)


def EVERY_CODE() -> list[Story]:  # noqa: N802 - a table that is made anew each time
    late = T0 + 4 * HOUR
    boxes = [
        event(
            T0 + n * 20 * MINUTE, "packing", type_=EventType.AGGREGATION, action=Action.ADD, epcs=(),
            parent=f"idtrace:88.118.8/BOX-{n}", children=(DOSE_URI,),
        )
        for n in (1, 2)
    ]  # fmt: skip
    wrong_way = Story()
    wrong_way.events[1] = shipped(T0 + 2 * HOUR, MAKER, OTHER)
    unshipped = Story()
    del unshipped.events[1]
    unmade = Story()
    del unmade.events[0]
    mismatch = Story()
    mismatch.events[0] = made(ilmd={"cbvmda:lotNumber": "L2"})
    answers = [Answered(verdict, reason="x") for verdict in Verdict if verdict is not Verdict.FOUND]
    answers += [Answered(Verdict.FOUND, Status.SUSPENDED), Answered(Verdict.FOUND, Status.RECALLED)]
    ends = ("stolen", "damaged", "destroyed", "expired", "recalled", "non_conformant")
    return [
        *(story(answer=answer) for answer in answers),
        *(story(event(late, "inspecting", CLINIC, disposition=end)) for end in ends),
        wrong_way, unshipped, unmade, mismatch,
        story(made(by=OTHER)),
        story(made(T0 + MINUTE)),
        story(product=None, expiry="", recalls_unknown=("88",)),
        story(event(late, "decommissioning", CLINIC, action=Action.DELETE)),
        story(dispensed(late)),
        story(dispensed(late), dispensed(late + 1)),
        story(dispensed(late), product=product(doses=5, vial_hours=1), now_ms=T0 + 9 * HOUR),
        story(parties={}),
        story(event(late, "repackaging", CLINIC)),
        story(event(late, "storing", OTHER, read_point="")),
        story(event(late, "storing", MAKER, read_point="")),
        story(shipped(late, CLINIC, MAKER)),
        story(event(late, "storing", CLINIC), event(late, "storing", CLINIC, read_point=site(OTHER))),
        story(event(late, "storing", CLINIC), event(late + HOUR, "storing", CLINIC, read_point=site(OTHER))),
        story(*boxes),
        story(event(T0 + 90 * HOUR, "storing", CLINIC)),
        story(event(late, "destroying", CLINIC, error=ErrorDeclaration(late + 1))),
        story(gaps=(Gap(GapKind.MISSING, "x", "y"), Gap(GapKind.BOUND, "x", "y"))),
    ]  # fmt: skip

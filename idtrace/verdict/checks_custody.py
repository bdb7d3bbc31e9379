"""Was it always in good hands: licences, roles, hand-overs, packages, order in time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from idtrace.party import is_late_word, may_report
from idtrace.provenance.history import IDLE_GAPS, Clash, Step
from idtrace.provenance.seen import CLOCK_TOLERANCE_MS, MEASURED, RECEIVED, SHIPPED, UNSHIPPED
from idtrace.verdict.context import Context
from idtrace.verdict.findings import Code, Finding

# What idtrace/provenance finds in packing and handing over, each by the code it comes to; what was made twice is a
# matter of being genuine, and stands there. What a later version of provenance adds is not lost: it counts as the last.
_CLASHES: Final = {
    Clash.TWO_PARENTS: Code.AGGREGATION_CONTRADICTION,
    Clash.NOT_INSIDE: Code.AGGREGATION_CONTRADICTION,
    Clash.CYCLE: Code.AGGREGATION_CONTRADICTION,
    Clash.NO_SHIPPER: Code.CUSTODY_NO_SHIPPER,
    Clash.NO_RECEIPT: Code.CUSTODY_NO_RECEIPT,
    Clash.WRONG_RECEIVER: Code.CUSTODY_WRONG_RECEIVER,
    Clash.OVERLAP: Code.CUSTODY_OVERLAP,
    Clash.STRANGER: Code.REPORTED_BY_STRANGER,
}


def contradictions(context: Context) -> Iterator[Finding]:
    """What the history itself found in packing and handing over."""
    for clash in context.history.contradictions:
        if clash.kind != Clash.MADE_TWICE:
            code = _CLASHES.get(Clash(clash.kind), Code.AGGREGATION_CONTRADICTION)
            yield Finding(code, clash.at_ms, {"detail": clash.detail}, tuple(sorted(clash.evidence)))


def on_its_way(context: Context) -> Iterator[Finding]:
    """Shipped last, and received by nobody yet: whoever scans it has not taken it over, and may not use it.

    A receiving that by its own clock came a little before the shipping is this shipping's.
    """
    moves = [step for step in context.about if step.observed.event.biz_step in {SHIPPED, RECEIVED, UNSHIPPED}]
    shipped: Step | None = None
    received: Step | None = None
    for step in moves:
        match step.observed.event.biz_step:
            case "shipping":
                late = received is not None and _is_late(step, received)
                shipped = shipped if late else step
            case _:
                shipped, received = None, step
    if shipped is not None:
        detail = f"shipped by {shipped.observed.party}, and not received by anybody yet"
        yield Finding(Code.CUSTODY_NO_RECEIPT, shipped.at_ms, {"detail": detail}, (shipped.observed.identifier,))


def _is_late(shipped: Step, received: Step) -> bool:
    return (
        received.observed.event.biz_step == RECEIVED
        and received.observed.party != shipped.observed.party
        and shipped.at_ms - received.at_ms <= CLOCK_TOLERANCE_MS
    )


def licensed(context: Context) -> Iterator[Finding]:
    """Whoever reported something held a licence when it happened, and whoever holds it now holds one now.

    The licence's own times decide, without tolerance: by the same rule nodes take events in. Where it could not be
    learned whether there is one, a gap says so.
    """
    told: set[str] = set()
    for step in context.history.steps:
        party = step.observed.party
        if party in told or party in context.strangers:
            continue  # a stranger is said to be one, licensed or not: to accuse nobody of what outsiders report
        if not _is_licensed(context, party, step.at_ms) or _is_late_told(context, step):
            told.add(party)
            yield _unlicensed(context, party, step.at_ms, (step.observed.identifier,))
    for holding in context.history.holdings:
        now_ms = context.facts.now_ms
        if holding.end_ms is None and holding.party not in told and not _is_licensed(context, holding.party, now_ms):
            told.add(holding.party)
            yield _unlicensed(context, holding.party, now_ms, holding.evidence)


def _is_licensed(context: Context, prefix: str, at_ms: int) -> bool:
    party = context.facts.parties.get(prefix)
    if party is None:
        # Not to have learned of a licence is not to have learned that there is none.
        gaps = (gap for gap in context.facts.gaps if gap.kind not in IDLE_GAPS)
        return any(gap.subject.endswith(f"/party/{prefix}") for gap in gaps)
    return party.active and party.valid_from * 1000 <= at_ms < party.valid_until * 1000


def _is_late_told(context: Context, step: Step) -> bool:
    """Whether it was told long after the licence had ended: then its date is only what somebody claims."""
    party = context.facts.parties.get(step.observed.party)
    return party is not None and is_late_word(party, step.observed.reported_at)


def strange(context: Context) -> Iterator[Finding]:
    """Who has no part in it reports of it: a mistake, a lie or a copied code, and nobody can tell which."""
    told = set()
    for step in context.about:
        event, party = step.observed.event, step.observed.party
        if party in context.strangers and event.biz_step != MEASURED and party not in told:
            told.add(party)
            detail = f"{event.biz_step or event.disposition or 'a report'} by {party}, who never had it"
            yield Finding(Code.REPORTED_BY_STRANGER, step.at_ms, {"detail": detail}, (step.observed.identifier,))


def _unlicensed(context: Context, prefix: str, at_ms: int, evidence: tuple[str, ...]) -> Finding:
    party = context.facts.parties.get(prefix)
    licence = (party.evidence,) if party is not None and party.evidence else ()
    return Finding(Code.PARTY_UNLICENSED, at_ms, {"party": prefix}, tuple(sorted({*evidence, *licence})))


def roles(context: Context) -> Iterator[Finding]:
    """A licensed party does what its role may do."""
    told: set[tuple[str, str]] = set()
    for step in context.history.steps:
        prefix, what = step.observed.party, step.observed.event.biz_step
        party = context.facts.parties.get(prefix)
        if party is None or (prefix, what) in told or may_report(party.roles, what):
            continue
        told.add((prefix, what))
        values = {"party": prefix, "roles": ", ".join(sorted(party.roles)), "step": what}
        evidence = {step.observed.identifier, *((party.evidence,) if party.evidence else ())}
        yield Finding(Code.PARTY_ROLE, step.at_ms, values, tuple(sorted(evidence)))


def in_order(context: Context) -> Iterator[Finding]:
    """Nothing happens before it was made, after now, or after it was reported; but for what clocks may differ."""
    made_ms = min((step.at_ms for step in context.made()), default=None)
    now_ms = context.facts.now_ms
    for step in context.about:
        reported_ms = step.observed.reported_at * 1000
        if step.at_ms > now_ms + CLOCK_TOLERANCE_MS:
            detail = "it is told of a time that is yet to come"
        elif step.at_ms > reported_ms + CLOCK_TOLERANCE_MS:
            detail = "it was reported before it happened"
        elif made_ms is not None and step.via == context.history.subject and step.at_ms < made_ms - CLOCK_TOLERANCE_MS:
            detail = "it happened before the thing was made"
        else:
            continue
        values = {"party": step.observed.party, "detail": detail}
        yield Finding(Code.TIME_DISORDER, step.at_ms, values, (step.observed.identifier,))

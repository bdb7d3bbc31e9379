"""Is it genuine, and is it what it says it is?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from idtrace.bundle import Verdict
from idtrace.party import PartyRole
from idtrace.provenance.history import Clash
from idtrace.record import Status
from idtrace.verdict.context import Context, evidence_of, is_under
from idtrace.verdict.findings import Code, Finding

_NO_RECORD: Final = {
    Verdict.ABSENT: Code.NOT_REGISTERED,
    Verdict.GONE: Code.ENDED,
    Verdict.UNREACHABLE: Code.UNPROVEN,
    Verdict.BOGUS: Code.FORGED,
}


def genuine(context: Context) -> Iterator[Finding]:
    """What the tree says of the identifier."""
    answer, subject = context.facts.answer, context.facts.subject
    code = _NO_RECORD.get(answer.verdict)
    if code is not None:
        yield Finding(code, values={"identifier": subject, "reason": answer.reason}, evidence=(subject,))
    elif answer.status is Status.RETIRED:
        yield Finding(Code.ENDED, values={"identifier": subject, "reason": str(answer.status)}, evidence=(subject,))
    elif answer.status is Status.SUSPENDED:
        yield Finding(Code.SUSPENDED, values={"identifier": subject}, evidence=(subject,))


def commissioned(context: Context) -> Iterator[Finding]:
    """Made once, by the owner of the identifier's zone or by the licensed maker of its product."""
    subject = context.facts.subject
    made = tuple(context.made())
    if not made and context.found:
        yield Finding(Code.NOT_COMMISSIONED, values={"identifier": subject}, evidence=(subject,))
    for step in made:
        party = step.observed.party
        if not _may_make(context, party):
            detail = f"made by {party}, which is neither its owner nor its licensed maker"
            values = {"party": party, "detail": detail}
            yield Finding(Code.COMMISSIONED_BY_STRANGER, step.at_ms, values, (step.observed.identifier,))
    for clash in context.history.contradictions:
        if clash.kind == Clash.MADE_TWICE:
            values = {"party": "", "detail": clash.detail}
            yield Finding(Code.COMMISSIONED_BY_STRANGER, clash.at_ms, values, tuple(sorted(clash.evidence)))


def _may_make(context: Context, party: str) -> bool:
    if is_under(context.facts.subject, party):
        return True
    product = context.facts.product
    if product is not None and product.maker != party:
        return False
    # Without a product nobody can tell whose it is, and PRODUCT_UNKNOWN says so: a licensed maker is not accused.
    licence = context.facts.parties.get(party)
    return licence is None or PartyRole.MAKER in licence.roles


def product_known(context: Context) -> Iterator[Finding]:
    """Without a product there are no limits to judge by."""
    if context.found and context.facts.product is None:
        subject = context.facts.subject
        yield Finding(Code.PRODUCT_UNKNOWN, values={"identifier": subject}, evidence=(subject,))


def lots_agree(context: Context) -> Iterator[Finding]:
    """The record and the events that made it name one lot and one expiry."""
    told = tuple(context.told())
    for name, said, others in (
        ("lot", context.facts.lot, [(lot, step) for lot, _, step in told]),
        ("expiry", context.facts.expiry, [(expiry, step) for _, expiry, step in told]),
    ):
        values = sorted({text for text, _ in others if text} | ({said} if said else set()))
        if len(values) > 1:
            steps = [step for text, step in others if text]
            evidence = (*evidence_of(steps), context.facts.subject)
            shown = {"field": name, "values": " / ".join(values)}
            yield Finding(Code.LOT_MISMATCH, min(step.at_ms for step in steps), shown, tuple(sorted(evidence)))

"""May it still be used: recalled, expired, ended, given, opened, on hold?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from idtrace.epcis.lots import master_text
from idtrace.epcis.model import Action, Event, EventType
from idtrace.epcis.uris import key
from idtrace.party import PartyRole
from idtrace.provenance.history import Step
from idtrace.recall import Coverage, covers
from idtrace.record import Status
from idtrace.verdict.context import CLEARS, DOUBTS, ENDING, ENDING_STEPS, Context, day, doses_of, ends_ms, evidence_of
from idtrace.verdict.findings import Code, Finding

HOUR_MS: Final = 3_600_000


def recalled(context: Context) -> Iterator[Finding]:
    """A recall that stands and reaches it; or one of which that could not be learned."""
    facts, thing = context.facts, context.thing()
    if facts.answer.status is Status.RECALLED:
        values = {"recall": "", "zone": "", "level": "?", "reason_en": "by its own record", "reason_zh": "其自身记录"}
        yield Finding(Code.RECALLED, values=values, evidence=(facts.subject,))
    for recall in facts.recalls:
        if not recall.stands(facts.now_ms // 1000):
            continue
        reached = covers(recall, thing)
        evidence = (recall.evidence,) if recall.evidence else ()
        if reached is Coverage.YES:
            values = {
                "recall": recall.name,
                "zone": recall.zone,
                "level": str(recall.level),
                "reason_en": recall.reason_en,
                "reason_zh": recall.reason_zh,
            }
            yield Finding(Code.RECALLED, recall.issued_at * 1000, values, evidence)
        elif reached is Coverage.UNKNOWN:
            values = {"zone": recall.zone, "detail": f"whether recall {recall.name} reaches it"}
            yield Finding(Code.RECALL_UNKNOWN, recall.issued_at * 1000, values, evidence)
    for zone in sorted(set(facts.recalls_unknown)):
        yield Finding(Code.RECALL_UNKNOWN, values={"zone": zone, "detail": f"the recalls of {zone or 'the root'}"})


def expired(context: Context) -> Iterator[Finding]:
    """Its last day of use, in China, has ended; or nobody says which day that is."""
    expiry, subject = context.expiry, context.facts.subject
    for step in context.made():
        stated = master_text(step.observed.event.ilmd, "itemExpirationDate")
        if stated and not day(stated):
            yield Finding(Code.EXPIRY_UNKNOWN, step.at_ms, {"identifier": subject}, (step.observed.identifier,))
    if not expiry:
        if context.found:
            yield Finding(Code.EXPIRY_UNKNOWN, values={"identifier": subject}, evidence=(subject,))
    elif context.facts.now_ms >= ends_ms(expiry):
        yield Finding(Code.EXPIRED, ends_ms(expiry), {"expiry": expiry}, (subject,))


def ended(context: Context) -> Iterator[Finding]:
    """Decommissioned, destroyed, stolen, damaged: by any word that was not taken back.

    What befalls a package befalls what is in it; but to end the code of an emptied carton ends nothing else.
    """
    for step in context.about:
        event = step.observed.event
        if step.observed.party in context.strangers:
            continue  # anybody could say so; that it was said holds (idtrace/verdict/checks_custody.py)
        if _consumes(event, step.via) and step.via == context.history.subject:
            values = _reported(step, Code.DECOMMISSIONED)
            yield Finding(Code.DECOMMISSIONED, step.at_ms, values, (step.observed.identifier,))
        deletes = event.type is EventType.OBJECT and event.action is Action.DELETE
        code = ENDING_STEPS.get(event.biz_step) if deletes or event.biz_step == "destroying" else None
        if code is None and deletes and event.biz_step != "dispensing":
            code = Code.DECOMMISSIONED
        codes = {ENDING[word] for word in (event.disposition, *event.set_dispositions) if word in ENDING}
        if code is not None and (code is not Code.DECOMMISSIONED or step.via == context.history.subject):
            codes.add(code)
        for found in sorted(codes):
            yield Finding(found, step.at_ms, _reported(step, found), (step.observed.identifier,))


def _consumes(event: Event, thing: str) -> bool:
    """Whether a transformation has made something else of it."""
    return event.type is EventType.TRANSFORMATION and any(key(uri) == thing for uri in event.inputs)


def _reported(step: Step, code: Code) -> dict[str, str]:
    party = step.observed.party
    if code is Code.RECALLED:
        return {"recall": "", "zone": party, "level": "?", "reason_en": "by an event", "reason_zh": "流通事件"}
    if code is Code.EXPIRED:
        return {"expiry": f"({party})"}
    return {"party": party, "thing": step.via}


def _given(context: Context) -> tuple[Step, ...]:
    return tuple(step for step in context.own if step.observed.event.biz_step == "dispensing")


def dispensed(context: Context) -> Iterator[Finding]:
    """All doses given, or more than there ever were: then the code was copied."""
    product, steps = context.facts.product, list(_given(context))
    if product is None:
        return
    given = sum(doses_of(step.observed.event) for step in steps)
    boxes = [s for s in context.about if s.observed.event.biz_step == "dispensing" and s.via != context.history.subject]
    if boxes:  # who gives a whole package gives all doses in it
        given, steps = given + product.doses, [*steps, *boxes]
    if not steps or given < product.doses:
        return
    code = Code.OVER_DISPENSED if given > product.doses else Code.DISPENSED
    values = {"given": str(given), "doses": str(product.doses)}
    yield Finding(code, max(step.at_ms for step in steps), values, evidence_of(steps))


def opened_until_ms(context: Context) -> int | None:
    """The last millisecond in which an opened vial may be used; None where none is open, or there is no rule."""
    product, steps = context.facts.product, _given(context)
    if product is None or not product.vial_hours or product.doses < 2 or not steps:
        return None
    return steps[0].at_ms + product.vial_hours * HOUR_MS


def vial_open(context: Context) -> Iterator[Finding]:
    """An opened multi-dose vial is used for so many hours and no longer (WHO multi-dose vial policy)."""
    until_ms = opened_until_ms(context)
    if until_ms is None or context.facts.now_ms <= until_ms:
        return
    product, steps = context.facts.product, _given(context)
    assert product is not None, "the rule is the product's"
    values = {"hours": str(product.vial_hours)}
    yield Finding(Code.VIAL_OPEN_TOO_LONG, until_ms, values, evidence_of(steps[:1]))


def on_hold(context: Context) -> Iterator[Finding]:
    """A holder's own doubt, until the same party or an authority clears it."""
    doubts: list[Step] = []
    for step in context.about:
        event = step.observed.event
        said = {event.disposition, *event.set_dispositions}
        if event.biz_step == "holding" or not DOUBTS.isdisjoint(said):
            doubts.append(step)
        elif not CLEARS.isdisjoint(said) or not DOUBTS.isdisjoint(event.unset_dispositions):
            doubts = [doubt for doubt in doubts if not _may_clear(context, step, doubt)]
    for doubt in doubts:
        event = doubt.observed.event
        values = {"party": doubt.observed.party, "doubt": event.disposition or event.biz_step}
        yield Finding(Code.ON_HOLD, doubt.at_ms, values, (doubt.observed.identifier,))


def _may_clear(context: Context, step: Step, doubt: Step) -> bool:
    party = context.facts.parties.get(step.observed.party)
    return step.observed.party == doubt.observed.party or (party is not None and PartyRole.AUTHORITY in party.roles)

"""The verdict of one thing out of facts: every check, its findings by the policy, and when time alone may change it.

The same facts give the same judgement to the byte, on every machine and in whatever order they were gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from idtrace.coldchain.alarms import acknowledgements
from idtrace.coldchain.assess import assess
from idtrace.coldchain.report import ThermalReport
from idtrace.party import PartyRole
from idtrace.provenance.assemble import history as assembled
from idtrace.provenance.history import History
from idtrace.provenance.seen import CLOCK_TOLERANCE_MS
from idtrace.verdict import checks_cold, checks_custody, checks_genuine, checks_places, checks_use, checks_withdrawn
from idtrace.verdict.context import Context, ends_ms
from idtrace.verdict.facts import Facts
from idtrace.verdict.findings import Code, Finding, Judgement, Use
from idtrace.verdict.policy import Policy

# A person reads some; a thing with more is judged by the worst of them all the same. Each has at most 512 bytes or so.
FINDINGS_MAX: Final = 256
# Events that one finding cites: a cumulative excursion of a year must not fill a screen, or a signed body.
EVIDENCE_MAX: Final = 32

Check = Callable[[Context], Iterator[Finding]]
CHECKS: Final[tuple[Check, ...]] = (
    checks_genuine.genuine,
    checks_genuine.commissioned,
    checks_genuine.product_known,
    checks_genuine.lots_agree,
    checks_use.recalled,
    checks_use.expired,
    checks_use.ended,
    checks_use.dispensed,
    checks_use.vial_open,
    checks_use.on_hold,
    checks_withdrawn.withdrawn,
    checks_custody.contradictions,
    checks_custody.on_its_way,
    checks_custody.licensed,
    checks_custody.strange,
    checks_custody.roles,
    checks_custody.in_order,
    checks_places.presence,
    checks_places.given_apart,
    checks_cold.temperature,
    checks_cold.gaps,
)
_RANK: Final = {code: rank for rank, code in enumerate(Code)}


def judge(
    facts: Facts, policy: Policy, *, history: History | None = None, thermal: ThermalReport | None = None
) -> Judgement:
    """The verdict of a thing.

    Args:
        facts: all that was learned.
        policy: what each finding comes to.
        history: of these facts, where it was made before (``idtrace/provenance/assemble.py``).
        thermal: of this history and product, where it was made before (``idtrace/coldchain/assess.py``).
    """
    made = history_of(facts) if history is None else history
    return judged(facts, policy, made, thermal_of(facts, made) if thermal is None else thermal)


def history_of(facts: Facts) -> History:
    """What the events say, up to the time of judging."""
    return assembled(facts.subject, facts.observed, now_ms=facts.now_ms, parties=facts.parties)


def thermal_of(facts: Facts, history: History) -> ThermalReport | None:
    """What the temperature rules say; None where no product tells any."""
    if facts.product is None:
        return None
    said = [one for one in acknowledgements(facts.observed) if _may_answer(facts, history, one.party)]
    return assess(facts.subject, facts.product.profile, history.legs, history.readings, said, now_ms=facts.now_ms)


def _may_answer(facts: Facts, history: History, prefix: str) -> bool:
    """Whether a party's acknowledgement counts: it is licensed, and held the thing, measured, or is an authority."""
    party = facts.parties.get(prefix)
    if party is None or not party.active:
        return False
    measuring = {one.party for one in facts.observed if one.event.sensors}
    holding = {one.party for one in history.holdings}
    return prefix in measuring | holding or PartyRole.AUTHORITY in party.roles


def judged(facts: Facts, policy: Policy, history: History, thermal: ThermalReport | None) -> Judgement:
    """The verdict out of what was worked out already."""
    context = Context.of(facts, history, thermal)
    found: dict[tuple[object, ...], Finding] = {}
    for check in CHECKS:
        for finding in check(context):
            kept = _complete(finding, policy)
            found[_order(kept, policy)] = kept
    findings = tuple(found[place] for place in sorted(found))
    use = max((policy.severity(finding.code) for finding in findings), default=Use.USE)
    return Judgement(facts.subject, use, findings[:FINDINGS_MAX], policy.hash, facts.now_ms, _until_ms(context))


def _complete(finding: Finding, policy: Policy) -> Finding:
    """With its rule, and its evidence bounded."""
    source = finding.source or policy.source(finding.code)
    return Finding(
        finding.code, finding.at_ms, dict(sorted(finding.values.items())), finding.evidence[:EVIDENCE_MAX], source
    )


def _order(finding: Finding, policy: Policy) -> tuple[int, int, int, tuple[tuple[str, str], ...], tuple[str, ...], str]:
    """The worst first, then as the codes stand, then by time; equal for equal findings and no others."""
    at_ms = -1 if finding.at_ms is None else finding.at_ms
    values = tuple(finding.values.items())
    return (-policy.severity(finding.code), _RANK[finding.code], at_ms, values, finding.evidence, finding.source)


def _until_ms(context: Context) -> int | None:
    """The next time at which, with nothing new heard, another verdict is due."""
    facts = context.facts
    times: list[int | None] = [context.thermal.until_ms if context.thermal is not None else None]
    expiry, opened = context.expiry, checks_use.opened_until_ms(context)
    times.append(ends_ms(expiry) if expiry else None)
    times.append(None if opened is None else opened + 1)
    for holding in context.history.holdings:
        party = facts.parties.get(holding.party) if holding.end_ms is None else None
        if party is not None:
            times += (party.valid_from * 1000, party.valid_until * 1000)
    times += [recall.ended_at * 1000 for recall in facts.recalls if recall.ended_at]
    times += [step.at_ms - CLOCK_TOLERANCE_MS for step in context.about]
    return min((at_ms for at_ms in times if at_ms is not None and at_ms > facts.now_ms), default=None)

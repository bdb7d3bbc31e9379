"""Was a word taken back that would have ended its use? Who froze it must not thaw it with a form.

An error declaration (EPCIS 2.0, section 7.4.1.3) voids an event for everybody, and the one who declares it is the one
who reported it. A wrong room is put right so, and so may be a giving, a destruction or a reading of -9 degrees. These
three hold until an authority or the maker has looked at the thing since and has said that it is sound.
"""

from __future__ import annotations

from collections.abc import Iterator

from idtrace.coldchain.extract import readings
from idtrace.epcis.model import Action, EventType
from idtrace.party import PartyRole
from idtrace.provenance.history import Observed
from idtrace.verdict.context import CLEARS, DOUBTS, ENDING, ENDING_STEPS, Context
from idtrace.verdict.findings import Code, Finding


def withdrawn(context: Context) -> Iterator[Finding]:
    """A grave word that was taken back, until somebody else has looked."""
    for one in context.history.voided:
        error = one.event.error
        if error is None:
            continue
        said = _grave(context, one)
        if said and not _looked_at(context, one.party, error.declared_ms):
            values = {"party": one.party, "said": said}
            yield Finding(Code.EVENT_WITHDRAWN, error.declared_ms, values, (one.identifier,))


def _grave(context: Context, one: Observed) -> str:
    """What an event says that would end or stop a thing's use, "" for nothing."""
    event = one.event
    said = {event.disposition, *event.set_dispositions}
    grave = sorted(said & (ENDING.keys() | DOUBTS))
    if grave:
        return grave[0]
    ends = event.type is EventType.OBJECT and event.action is Action.DELETE
    if ends or event.biz_step in ENDING_STEPS or event.biz_step in {"dispensing", "holding"}:
        return event.biz_step or "decommissioning"
    product = context.facts.product
    if product is not None:
        low, high = product.profile.low, product.profile.high
        beyond = [found.celsius for found in readings((one,)) if not low <= found.celsius <= high and not found.error]
        if beyond:
            return f"{max(beyond, key=lambda celsius: max(low - celsius, celsius - high)):f} °C"
    return ""


def _looked_at(context: Context, by: str, declared_ms: int) -> bool:
    """Whether an authority, or the maker about another's word, has found it sound since."""
    product = context.facts.product
    for step in context.about:
        event, prefix = step.observed.event, step.observed.party
        if step.at_ms < declared_ms or CLEARS.isdisjoint({event.disposition, *event.set_dispositions}):
            continue
        party = context.facts.parties.get(prefix)
        if party is None or not party.active:
            continue
        is_maker = product is not None and product.maker == prefix != by
        if is_maker or PartyRole.AUTHORITY in party.roles:
            return True
    return False

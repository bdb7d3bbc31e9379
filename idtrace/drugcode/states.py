"""The state of a code: what verified events and the resolution come to, and which of them the rules forbid.

======= ========================================================================================
state   means
======= ========================================================================================
A       active: its record stands, and it has been neither shipped nor received
I       in-verified: the last bill is an inbound one
O       out-verified: the last bill is an outbound one
C       cancelled: ended, destroyed, replaced by another code, or its record has ended
E       non-existent: a *signed denial* says that there is no such code
?       unknown: nobody answered, or what came does not verify. Never shown as E
======= ========================================================================================

An event that a rule forbids is named, and changes the state all the same as far as it is true: goods that a stranger
shipped are on their way. Only after the end nothing counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from idtrace.bundle import Verdict
from idtrace.epcis import uris
from idtrace.epcis.model import Action, Event, EventType
from idtrace.provenance.history import Clash, History, Step
from idtrace.provenance.seen import CLOCK_TOLERANCE_MS, seen


class State(StrEnum):
    """States as the platform's interface writes them, and one more for what is not known."""

    ACTIVE = "A"
    IN = "I"
    OUT = "O"
    CANCELLED = "C"
    NONE = "E"
    UNKNOWN = "?"


class Rule(StrEnum):
    """What the rules forbid."""

    OUT_NOT_HELD = "out_not_held"  # out-verified by one who did not hold it
    OUT_NOT_IN = "out_not_in"  # out-verified by one who was to receive it, and has not
    IN_NOT_OUT = "in_not_out"  # in-verified, and nobody has out-verified it
    IN_BY_ANOTHER = "in_by_another"  # in-verified by another than it was shipped to
    CANCEL_NOT_HELD = "cancel_not_held"  # cancelled by one who did not hold it
    USED_AFTER_END = "used_after_end"  # cancelled or replaced, and used again
    ACTIVATED_TWICE = "activated_twice"  # a code is never reused
    NOT_ACTIVATED = "not_activated"  # used, and nobody has activated it


@dataclass(frozen=True, slots=True)
class Breach:
    """An event that a rule forbids: when, by whom, and its identifier."""

    rule: Rule
    at_ms: int
    party: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a code stands.

    Attributes:
        state: by the table above.
        party, at_ms: who reported the event that made it so, and when ("" and 0: no event).
        replaced_by: key of the code that has taken its place, "" for none.
        breaches: what the rules forbid, in order of time.
    """

    state: State
    party: str = ""
    at_ms: int = 0
    replaced_by: str = ""
    breaches: tuple[Breach, ...] = ()


_ENDS: Final = frozenset({"decommissioning", "destroying"})
_UNTOUCHED: Final = frozenset({"sensor_reporting", "inspecting", "holding", "other"})
# CBV 2.0, section 7.1: what is still said of goods that have ended: they are carried away and burnt.
_AFTERWARDS: Final = _UNTOUCHED | _ENDS | {"collecting"}
_OF_CLASH: Final = {
    ("shipping", Clash.STRANGER): Rule.OUT_NOT_HELD,
    ("shipping", Clash.OVERLAP): Rule.OUT_NOT_HELD,
    ("shipping", Clash.NO_RECEIPT): Rule.OUT_NOT_IN,
    ("receiving", Clash.NO_SHIPPER): Rule.IN_NOT_OUT,
    ("receiving", Clash.WRONG_RECEIVER): Rule.IN_BY_ANOTHER,
}


def state(verdict: Verdict, history: History) -> State:
    """The state alone; see :func:`standing`."""
    return standing(verdict, history).state


def standing(verdict: Verdict, history: History) -> Standing:
    """Where a code stands.

    Args:
        verdict: of its own identifier, verified.
        history: of it (``idtrace/provenance``).
    """
    if verdict is Verdict.ABSENT:
        return Standing(State.NONE, breaches=tuple(_breaches(history)))
    if verdict not in (Verdict.FOUND, Verdict.GONE):
        return Standing(State.UNKNOWN)
    found = Standing(State.ACTIVE)
    before: list[Standing] = []
    for step in _own(history):
        changed = _changed(found, step, history.subject)
        if changed is None:
            if step.observed.event.biz_step == "void_shipping" and before and found.state is State.OUT:
                found = before.pop()
            continue
        if _belated(found, step):
            continue
        before.append(found)
        found = changed
        if found.state is State.CANCELLED:
            break
    if verdict is Verdict.GONE and found.state is not State.CANCELLED:
        found = replace(found, state=State.CANCELLED)
    return replace(found, breaches=tuple(_breaches(history)))


def _own(history: History) -> Iterator[Step]:
    """Events about the code and what it was in; not about rooms and devices, nor about what it was made of."""
    near = {history.subject, *history.containers}
    for step in history.steps:
        if step.depth >= 0 and step.via in near:
            yield step


def _changed(before: Standing, step: Step, subject: str) -> Standing | None:
    """The standing after an event; None where it changes nothing."""
    event, party = step.observed.event, step.observed.party
    if ends(event, subject):
        return Standing(State.CANCELLED, party, step.at_ms, successor(event, subject))
    if event.biz_step == "shipping":
        return Standing(State.OUT, party, step.at_ms)
    if event.biz_step == "receiving":
        return Standing(State.IN, party, step.at_ms)
    if makes(event, subject) and not before.party:
        return Standing(State.ACTIVE, party, step.at_ms)
    return None


def _belated(before: Standing, step: Step) -> bool:
    """A shipping that by another clock comes after the receiving that belongs to it (provenance has the same rule)."""
    if before.state is not State.IN or step.observed.event.biz_step != "shipping":
        return False
    return seen(step.observed).receiver == before.party and step.at_ms - before.at_ms <= CLOCK_TOLERANCE_MS


def makes(event: Event, subject: str) -> bool:
    """Whether the event activates this very code."""
    if event.type is EventType.TRANSFORMATION:
        return subject in map(uris.key, event.outputs)
    made = event.type is EventType.OBJECT and event.action is Action.ADD and event.biz_step == "commissioning"
    return made and subject in map(uris.key, event.epcs)


def ends(event: Event, subject: str) -> bool:
    """Whether the event ends this very code: cancelled, destroyed (also with its package), or replaced."""
    if event.type is EventType.TRANSFORMATION:
        return subject in map(uris.key, event.inputs)
    if event.biz_step == "destroying":
        return True
    deletes = event.type is EventType.OBJECT and event.action is Action.DELETE
    return deletes and subject in map(uris.key, event.epcs)


def successor(event: Event, subject: str) -> str:
    """Key of the code that replaces this one; "" where the event replaces none by one."""
    replaces = event.type is EventType.TRANSFORMATION and len(event.inputs) == len(event.outputs) == 1
    return uris.key(event.outputs[0]) if replaces and uris.key(event.inputs[0]) == subject else ""


def _breaches(history: History) -> Iterator[Breach]:
    clashes: dict[str, set[str]] = {}
    for one in history.contradictions:
        clashes.setdefault(one.evidence[-1], set()).add(one.kind)
    made = ended = False
    used = False
    for step in _own(history):
        event, identifier = step.observed.event, step.observed.identifier
        rules = {_OF_CLASH.get((event.biz_step, Clash(kind))) for kind in clashes.get(identifier, ())}
        if ended and (event.biz_step not in _AFTERWARDS or event.type is not EventType.OBJECT):
            rules.add(Rule.USED_AFTER_END)
        ending = ends(event, history.subject)
        if ending and clashes.get(identifier, set()) & {Clash.STRANGER, Clash.OVERLAP}:
            rules.add(Rule.CANCEL_NOT_HELD)
        if makes(event, history.subject):
            rules |= {Rule.ACTIVATED_TWICE} if made else set()
            made = True
        elif not made and not used and event.biz_step not in _UNTOUCHED:
            rules.add(Rule.NOT_ACTIVATED)
            used = True
        ended = ended or ending
        for rule in sorted(rules - {None}, key=str):
            assert rule is not None, "it was taken out"
            yield Breach(rule, step.at_ms, step.observed.party, identifier)

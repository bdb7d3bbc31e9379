"""What would have ended a thing's use does not go away by a form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from idtrace.epcis.model import Action, ErrorDeclaration
from idtrace.party import Party, PartyRole
from idtrace.provenance.history import Observed
from idtrace.verdict.findings import Code, Use
from idtrace.verdict.judge import history_of, thermal_of
from tests.unit.verdict.facts_builder import (
    CARRIER,
    CLINIC,
    HOUR,
    MAKER,
    MINUTE,
    OTHER,
    T0,
    Story,
    codes,
    dispensed,
    event,
    measured,
    observed,
    party,
    story,
    use,
)

LATE = T0 + 4 * HOUR
AUTHORITY = "88.118.1"


def declared(told: Observed, at_ms: int = LATE + 10 * MINUTE) -> Observed:
    return observed(replace(told.event, error=ErrorDeclaration(at_ms, "incorrect_data")), told.party, at_ms // 1000)


@pytest.mark.parametrize(
    "said",
    [
        dispensed(LATE),
        event(LATE, "destroying", CLINIC),
        event(LATE, "decommissioning", CLINIC, action=Action.DELETE),
        event(LATE, "", CLINIC, action=Action.DELETE),
        event(LATE, "inspecting", CLINIC, disposition="damaged"),
        event(LATE, "inspecting", CLINIC, disposition="non_conformant"),
        event(LATE, "storing", CLINIC, set_dispositions=("stolen",)),
        event(LATE, "holding", CLINIC),
    ],
)
def test_a_grave_word_that_is_taken_back_holds(said: Observed) -> None:
    told = story(said, declared(said))
    assert codes(told) == [Code.EVENT_WITHDRAWN]
    assert use(told) is Use.HOLD
    assert codes(story(declared(said))) == [Code.EVENT_WITHDRAWN], "also where what it takes back is not known"


def looked(by: str, at_ms: int = LATE + 20 * MINUTE, **changes: Any) -> Observed:
    return event(at_ms, "inspecting", by, **({"disposition": "conformant", "read_point": ""} | changes))


def test_it_holds_until_an_authority_or_the_maker_has_looked() -> None:
    said = event(LATE, "inspecting", CLINIC, disposition="damaged")
    parties = {**Story().facts().parties, AUTHORITY: party(AUTHORITY, PartyRole.AUTHORITY)}

    def told(*more: Observed) -> list[Code]:
        return codes(story(said, declared(said), *more, parties=parties))

    assert Code.EVENT_WITHDRAWN not in told(looked(AUTHORITY))
    assert Code.EVENT_WITHDRAWN not in told(looked(MAKER))
    assert Code.EVENT_WITHDRAWN in told(looked(CLINIC))
    assert Code.EVENT_WITHDRAWN in told(looked(OTHER))
    assert Code.EVENT_WITHDRAWN in told(looked("88.66"))
    assert Code.EVENT_WITHDRAWN in told(looked(AUTHORITY, LATE + MINUTE)), "it looked before"
    assert Code.EVENT_WITHDRAWN in told(looked(AUTHORITY, disposition="in_progress"))
    ended = parties | {AUTHORITY: party(AUTHORITY, PartyRole.AUTHORITY, active=False)}
    assert Code.EVENT_WITHDRAWN in codes(story(said, declared(said), looked(AUTHORITY), parties=ended))


def test_the_makers_own_word_is_not_cleared_by_itself() -> None:
    said = event(T0 + HOUR, "inspecting", MAKER, disposition="damaged")
    told = story(said, declared(said, T0 + HOUR + MINUTE), looked(MAKER, T0 + HOUR + 2 * MINUTE))
    assert codes(told) == [Code.EVENT_WITHDRAWN]


def test_a_reading_out_of_limits_is_not_told_away() -> None:
    told = Story()
    told.events[4] = cold = measured(T0 + 2 * HOUR, T0 + 5 * HOUR, CLINIC, "-9.0")
    assert told.has(Code.FROZEN)
    told.events += [declared(cold, T0 + 5 * HOUR), measured(T0 + 2 * HOUR, T0 + 5 * HOUR, CLINIC)]
    finding = told.finding(Code.EVENT_WITHDRAWN)
    assert finding is not None
    assert finding.values["said"] == "-9.0 °C"
    told.changes = {"product": None}
    assert not told.has(Code.EVENT_WITHDRAWN), "without a product nobody knows its limits, and that holds"
    inside = Story()
    sound = measured(T0 + 4 * HOUR, T0 + 5 * HOUR, CLINIC, "5")
    inside.events += [sound, declared(sound, T0 + 5 * HOUR)]
    assert not inside.has(Code.EVENT_WITHDRAWN)


# Strangers


def test_the_word_of_who_has_no_part_in_it_holds_and_decides_nothing() -> None:
    for by in ("88.66", OTHER):
        for disposition in ("stolen", "damaged", "recalled", "expired"):
            told = story(event(LATE, "inspecting", by, read_point="", disposition=disposition))
            assert codes(told) == [Code.REPORTED_BY_STRANGER] * len(codes(told))
            assert use(told) is Use.HOLD
    assert story(event(LATE, "inspecting", MAKER, read_point="", disposition="stolen")).has(Code.STOLEN)


def test_who_looks_at_things_of_others_is_no_stranger() -> None:
    for role in (PartyRole.AUTHORITY, PartyRole.LABORATORY):
        parties = {**Story().facts().parties, AUTHORITY: party(AUTHORITY, role)}
        said = event(LATE, "inspecting", AUTHORITY, read_point="", disposition="damaged")
        assert story(said, parties=parties).has(Code.DAMAGED)


def test_whom_a_holder_names_is_no_stranger() -> None:
    said = event(LATE, "inspecting", CARRIER, read_point="", disposition="damaged")
    assert not story(said).has(Code.DAMAGED)
    from idtrace.epcis.model import Typed

    ends = (Typed("possessing_party", f"idtrace:{CARRIER}"),)
    named = event(LATE - MINUTE, "storing", CLINIC, destinations=ends)
    assert story(named, said).has(Code.DAMAGED)


def test_what_was_used_up_to_make_something_else_is_gone() -> None:
    from idtrace.epcis.model import EventType

    used = event(
        LATE, "repackaging", CLINIC, type_=EventType.TRANSFORMATION, action=None, epcs=(),
        inputs=("idtrace:88.118.8/SN-1",), outputs=("idtrace:88.118.8/SN-2",),
    )  # fmt: skip
    assert story(used).has(Code.DECOMMISSIONED)


# Late words


def test_what_is_told_long_after_the_licence_ended_counts_as_told_without_one() -> None:
    ends = (T0 + 5 * HOUR) // 1000
    for after, found in ((86_399, False), (86_400, True)):
        said = event(T0 + HOUR, "storing", MAKER, reported_at=ends + after)
        parties = {**Story().facts().parties, MAKER: party(MAKER, PartyRole.MAKER, valid_until=ends)}
        told = story(said, parties=parties, now_ms=T0 + 5 * HOUR)
        assert told.has(Code.PARTY_UNLICENSED) is found


def test_a_last_day_that_cannot_be_read_is_not_a_day() -> None:
    from tests.unit.verdict.facts_builder import made

    told = Story()
    told.events[0] = made(ilmd={"cbvmda:itemExpirationDate": "31.12.2020"})
    assert codes(told) == [Code.EXPIRY_UNKNOWN]


# Alarms


def warm() -> Story:
    """Out of limits for twenty minutes: an alarm that somebody has to answer for."""
    told = Story()
    told.events[4] = measured(T0 + 2 * HOUR, LATE, CLINIC)
    told.events.append(measured(LATE + 5 * MINUTE, LATE + 25 * MINUTE, CLINIC, "9.1"))
    told.events.append(measured(LATE + 30 * MINUTE, T0 + 5 * HOUR, CLINIC))
    return told


def answered_by(by: str, **parties: Party) -> list[Code]:
    told = warm()
    facts = told.facts()
    report = thermal_of(facts, history_of(facts))
    assert report is not None
    said = {"idtrace:acknowledges": [alarm.id for alarm in report.alarms], "idtrace:comment": "the door stood open"}
    about = ("idtrace:88.118.9/fridge",)
    told.events.append(event(T0 + 5 * HOUR, "inspecting", by, epcs=about, read_point="", extensions=said))
    told.changes = {"parties": {**facts.parties, **parties}}
    return codes(told)


def test_an_alarm_is_answered_for_by_who_had_the_thing_who_measured_or_an_authority() -> None:
    assert Code.ALARM_OPEN in codes(warm())
    assert Code.ALARM_OPEN not in answered_by(CLINIC)
    assert Code.ALARM_OPEN not in answered_by(AUTHORITY, **{AUTHORITY: party(AUTHORITY, PartyRole.AUTHORITY)})
    assert Code.ALARM_OPEN in answered_by(OTHER)
    assert Code.ALARM_OPEN in answered_by("88.66")
    assert Code.ALARM_OPEN in answered_by(CLINIC, **{CLINIC: party(CLINIC, PartyRole.CLINIC, active=False)})

"""States of codes against a naive model, and what the rules forbid, by name."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.bundle import Verdict
from idtrace.drugcode.acts import Cancellation, Replacement, events_of
from idtrace.drugcode.states import Rule, State, standing, state
from idtrace.epcis.model import Action, EventType
from idtrace.provenance.assemble import history
from idtrace.provenance.history import History, Observed
from tests.unit.provenance.story import (
    CARRIER,
    CENTRE,
    CLINIC,
    MAKER,
    about,
    at,
    made,
    make,
    packed,
    received,
    seen_by,
    shipped,
)

CODE, KEY = "81234560000000000001", "drug.8123456/0000000000001"
NEW, NEW_KEY = "81234560000000000002", "drug.8123456/0000000000002"
BOX = "drug.8123456/0000000000009"


def told(*events: Observed, key: str = KEY) -> History:
    return history(key, events, now_ms=at(100_000), parties={})


def cancelled(party: str, minutes: float, **fields: bool) -> Observed:
    (event,) = events_of(Cancellation((CODE,), at(minutes), **fields), party)
    return seen_by(party, event)


def replaced(minutes: float) -> list[Observed]:
    return [seen_by(MAKER, one) for one in events_of(Replacement(CODE, NEW, "R-1", at(minutes)), MAKER)]


def rules(*events: Observed) -> list[Rule]:
    return [one.rule for one in standing(Verdict.FOUND, told(*events)).breaches]


MADE = made(0, KEY)
OUT = shipped(MAKER, 60, CENTRE, KEY)
IN = received(CENTRE, 120, MAKER, KEY)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (Verdict.ABSENT, State.NONE),
        (Verdict.UNREACHABLE, State.UNKNOWN),
        (Verdict.BOGUS, State.UNKNOWN),
        (Verdict.GONE, State.CANCELLED),
        (Verdict.FOUND, State.ACTIVE),
    ],
)
def test_only_a_signed_denial_says_that_there_is_no_such_code(verdict: Verdict, expected: State) -> None:
    assert state(verdict, told(MADE)) is expected
    assert state(verdict, told()) is expected


def test_bills_move_the_state_and_name_who_and_when() -> None:
    for events, expected, party, minutes in (
        ((MADE,), State.ACTIVE, MAKER, 0),
        ((MADE, OUT), State.OUT, MAKER, 60),
        ((MADE, OUT, IN), State.IN, CENTRE, 120),
    ):
        found = standing(Verdict.FOUND, told(*events))
        assert (found.state, found.party, found.at_ms) == (expected, party, at(minutes))
        assert found.breaches == ()


def test_a_bill_of_a_carton_moves_what_is_in_it_and_a_measuring_moves_nothing() -> None:
    events = [MADE, made(1, BOX), packed(MAKER, 10, BOX, KEY), shipped(MAKER, 60, CENTRE, BOX)]
    events.append(about(CENTRE, 70, "sensor_reporting", BOX))
    assert state(Verdict.FOUND, told(*events)) is State.OUT


def test_a_shipping_taken_back_leaves_the_state_before() -> None:
    assert state(Verdict.FOUND, told(MADE, OUT, about(MAKER, 90, "void_shipping", KEY))) is State.ACTIVE
    assert state(Verdict.FOUND, told(MADE, about(MAKER, 90, "void_shipping", KEY))) is State.ACTIVE


def test_a_shipping_by_a_clock_that_is_behind_does_not_undo_the_receiving() -> None:
    late = shipped(MAKER, 125, CENTRE, KEY)
    assert state(Verdict.FOUND, told(MADE, IN, late)) is State.IN
    again = shipped(CENTRE, 125, CLINIC, KEY)
    assert state(Verdict.FOUND, told(MADE, OUT, IN, again)) is State.OUT


def test_who_cancels_and_who_replaces_ends_the_code_and_provenance_follows_the_new_one() -> None:
    for destroyed in (False, True):
        found = standing(Verdict.FOUND, told(MADE, cancelled(MAKER, 60, destroyed=destroyed)))
        assert (found.state, found.replaced_by, found.breaches) == (State.CANCELLED, "", ())
    found = standing(Verdict.FOUND, told(MADE, *replaced(60)))
    assert (found.state, found.replaced_by, found.breaches) == (State.CANCELLED, NEW_KEY, ())
    new = told(MADE, *replaced(60), key=NEW_KEY)
    assert new.sources == (KEY,)
    assert standing(Verdict.FOUND, new).state is State.ACTIVE
    assert standing(Verdict.GONE, told(MADE, cancelled(MAKER, 60))).at_ms == at(60)


def test_a_transformation_of_many_into_many_ends_a_code_and_replaces_it_by_none() -> None:
    mixed = make(MAKER, EventType.TRANSFORMATION, 60, inputs=(KEY, BOX), outputs=(NEW_KEY,))
    found = standing(Verdict.FOUND, told(MADE, mixed))
    assert (found.state, found.replaced_by) == (State.CANCELLED, "")


def test_each_forbidden_event_is_named() -> None:
    assert rules(MADE, OUT, IN, shipped(CARRIER, 500, CLINIC, KEY)) == [Rule.OUT_NOT_HELD]
    assert rules(MADE, OUT, IN, shipped(MAKER, 500, CLINIC, KEY)) == [Rule.OUT_NOT_HELD]
    assert rules(MADE, OUT, shipped(CENTRE, 500, CLINIC, KEY)) == [Rule.OUT_NOT_IN]
    assert rules(MADE, IN) == [Rule.IN_NOT_OUT]
    assert rules(MADE, OUT, received(CLINIC, 120, MAKER, KEY)) == [Rule.IN_BY_ANOTHER]
    assert rules(MADE, cancelled(CENTRE, 60)) == [Rule.CANCEL_NOT_HELD]
    assert rules(MADE, made(60, KEY)) == [Rule.ACTIVATED_TWICE]
    assert rules(OUT, IN) == [Rule.NOT_ACTIVATED]
    assert rules(about(MAKER, 1, "inspecting", KEY)) == []
    assert rules(MADE, cancelled(MAKER, 30), OUT, IN) == [Rule.USED_AFTER_END] * 2
    assert rules(MADE, cancelled(MAKER, 30), about(MAKER, 40, "inspecting", KEY)) == []
    assert rules(MADE, *replaced(30), packed(MAKER, 40, BOX, KEY)) == [Rule.USED_AFTER_END]
    box_ended = about(MAKER, 60, "decommissioning", BOX, action=Action.DELETE)
    assert state(Verdict.FOUND, told(MADE, packed(MAKER, 10, BOX, KEY), box_ended)) is State.ACTIVE


@dataclass
class Naive:
    """The machine as one would draw it on paper, for what the rules allow."""

    state: str = "A"
    before: str = "A"
    holder: str = MAKER
    to: str = ""


STEPS = st.lists(st.sampled_from(["out", "in", "void", "cancel", "measure"]), max_size=12)


@given(STEPS)
def test_any_life_that_the_rules_allow_ends_as_the_model_and_breaks_no_rule(steps: list[str]) -> None:
    parties = [MAKER, CENTRE, CLINIC]
    model, events = Naive(), [MADE]
    for number, step in enumerate(steps, start=1):
        minutes = 60 * number
        if step == "measure":
            events.append(about(model.holder, minutes, "sensor_reporting", KEY))
        elif model.state == "C":
            continue
        elif step == "out" and model.state != "O":
            model.to = parties[(parties.index(model.holder) + 1) % 3]
            model.before, model.state = model.state, "O"
            events.append(shipped(model.holder, minutes, model.to, KEY))
        elif step == "in" and model.state == "O":
            events.append(received(model.to, minutes, model.holder, KEY))
            model.state, model.holder = "I", model.to
        elif step == "void" and model.state == "O":
            events.append(about(model.holder, minutes, "void_shipping", KEY))
            model.state = model.before
        elif step == "cancel" and model.state != "O":
            events.append(cancelled(model.holder, minutes))
            model.state = "C"
    found = standing(Verdict.FOUND, told(*events))
    assert (str(found.state), found.breaches) == (model.state, ())

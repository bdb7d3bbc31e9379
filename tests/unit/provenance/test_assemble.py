"""One history: what it is for the whole chain, and that no order of events and no memory changes it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from idtrace.coldchain.readings import Mode, Reading
from idtrace.epcis.model import Action, EventType, Quantity
from idtrace.party import Location, LocationKind, Party, PartyRole
from idtrace.provenance import survey
from idtrace.provenance.assemble import history
from idtrace.provenance.history import Observed
from idtrace.provenance.survey import Memo
from tests.unit.provenance.story import (
    BOX,
    CARRIER,
    CARTON,
    CENTRE,
    CLINIC,
    DOSE,
    FRIDGE,
    LOGGER,
    MAKER,
    MINUTE,
    PALLET,
    PLANT,
    STORE,
    T0,
    TRUCK,
    about,
    at,
    chain,
    fitted,
    made,
    make,
    measured,
    packed,
    received,
    shipped,
    unpacked,
)

NOW = at(1000)
HUB = f"{CARRIER}/HUB"


def story(*events: Observed, now_ms: int = NOW) -> list[tuple[float, float, str, str, str]]:
    legs = history(DOSE, events, now_ms=now_ms, parties={}).legs
    return [
        ((leg.start_ms - T0) / MINUTE, (leg.end_ms - T0) / MINUTE, leg.mode.value, leg.custodian, leg.place)
        for leg in legs
    ]


def read_at(found: tuple[Reading, ...]) -> list[float]:
    return [(one.time_ms - T0) / MINUTE for one in found]


def test_the_whole_chain_has_every_event_that_concerns_the_dose_and_none_beside() -> None:
    found = history(DOSE, chain(), now_ms=NOW, parties={})
    assert len(found.steps) == len(chain()) - 1  # all but the fitting of the logger, long before
    assert [(step.via, step.depth) for step in found.steps][:6] == [
        (DOSE, 0),
        (DOSE, 0),
        (BOX, 1),
        (CARTON, 2),
        (PLANT, 1),
        (PALLET, 3),
    ]
    assert found.containers == (BOX, CARTON, PALLET, TRUCK)
    assert found.contradictions == ()
    # Before the loading at 60 and after the unloading at 180 what the logger read (20 and 30 °C) is of no concern.
    assert read_at(found.readings) == [5, 35, 64, 120, 185, 300]
    assert [one.celsius for one in found.readings][2:4] == [Decimal("4.0"), Decimal("4.5")]


def test_the_legs_of_the_whole_chain_follow_without_a_hole() -> None:
    legs = history(DOSE, chain(), now_ms=NOW, parties={}).legs
    assert [(leg.mode, leg.custodian, leg.place) for leg in legs] == [
        (Mode.STORE, MAKER, PLANT),
        (Mode.TRANSPORT, CARRIER, TRUCK),
        (Mode.STORE, CARRIER, STORE),
        (Mode.STORE, CENTRE, STORE),
        (Mode.TRANSPORT, "", ""),
        (Mode.STORE, CLINIC, FRIDGE),
    ]
    assert (legs[0].start_ms, legs[-1].end_ms) == (at(0), NOW)
    assert all(one.end_ms == other.start_ms for one, other in pairwise(legs))


@given(st.permutations(chain()), st.integers(0, 18))
def test_any_order_of_events_and_any_repetition_give_the_same_history(events: Any, repeated: Any) -> None:
    expected = history(DOSE, chain(), now_ms=NOW, parties={})
    assert history(DOSE, [*events, events[repeated]], now_ms=NOW, parties={}) == expected


@given(st.lists(st.sampled_from(chain()), max_size=19), st.randoms(use_true_random=False))
def test_part_of_the_events_in_any_order_and_with_a_memo_give_the_same_history(events: Any, shuffler: Any) -> None:
    expected = history(DOSE, events, now_ms=NOW, parties={})
    memo = Memo()
    for thing in (BOX, DOSE, f"{MAKER}/SN-2"):
        shuffler.shuffle(events)
        alone = history(thing, events, now_ms=NOW, parties={})
        assert history(thing, events, now_ms=NOW, parties={}, memo=memo) == alone
    assert history(DOSE, events, now_ms=NOW, parties={}, memo=memo) == expected


def test_doses_of_one_box_share_its_readings_as_one_tuple() -> None:
    memo, other = Memo(), f"{MAKER}/SN-2"
    events = [
        made(0, DOSE, other, place=""),
        packed(MAKER, 1, BOX, DOSE, other),
        measured(MAKER, 30, BOX, *((minute, "5") for minute in range(2, 30))),
    ]
    first = history(DOSE, events, now_ms=NOW, parties={}, memo=memo)
    second = history(other, events, now_ms=NOW, parties={}, memo=memo)
    assert len(first.readings) == 28
    assert first.readings is second.readings


def test_a_full_memo_forgets_and_the_answer_is_the_same(monkeypatch: Any) -> None:
    monkeypatch.setattr(survey, "MEMO_PARTS_MAX", 1)
    memo = Memo()
    expected = history(DOSE, chain(), now_ms=NOW, parties={}, memo=memo)
    assert len(memo.parts) > 1
    assert history(DOSE, chain(), now_ms=NOW, parties={}, memo=memo) == expected


def test_a_memo_does_not_keep_what_another_event_of_that_identifier_said() -> None:
    memo, one = Memo(), measured(MAKER, 10, DOSE, (10, "5"))
    history(DOSE, [one], now_ms=NOW, parties={}, memo=memo)
    again = replace(one, event=replace(one.event))
    assert memo.keys(again).observed is again
    assert memo.measured(memo.keys(again))[0].celsius == Decimal(5)


def test_on_its_way_it_is_nowhere_but_on_the_vehicle_until_loading_where_it_was_and_after_where_it_is_received() -> (
    None
):
    events = [
        made(0, DOSE),
        shipped(MAKER, 100, CENTRE, DOSE),
        packed(CARRIER, 115, TRUCK, DOSE, step="loading"),
        unpacked(CARRIER, 200, TRUCK, DOSE, step="unloading"),
        received(CENTRE, 220, MAKER, DOSE, place=STORE),
    ]
    legs = story(*events)
    assert [(start, mode, place) for start, _, mode, _, place in legs] == [
        (0, "store", PLANT),
        (115, "transport", TRUCK),
        (200, "store", STORE),
        (220, "store", STORE),
    ]


def test_a_carrier_keeps_it_at_a_place_on_the_way_until_it_leaves_and_others_cannot_say_where_it_is() -> None:
    legs = story(
        made(0, DOSE),
        shipped(MAKER, 100, CENTRE, DOSE, biz_location=STORE),
        about(CARRIER, 120, "accepting", DOSE, biz_location=HUB),
        about(CARRIER, 150, "departing", DOSE, biz_location=HUB),
        about(CARRIER, 160, "arriving", DOSE, biz_location=STORE),
        received(CENTRE, 200, MAKER, DOSE),
    )
    assert [(start, mode, place) for start, _, mode, _, place in legs] == [
        (0, "store", PLANT),
        (100, "transport", ""),
        (120, "store", HUB),
        (150, "transport", ""),
        (200, "store", ""),
    ]


def test_a_receiving_ends_the_ride_where_nobody_has_reported_the_unloading() -> None:
    events = [
        made(0, DOSE, PALLET),
        packed(MAKER, 1, PALLET, DOSE),
        packed(CARRIER, 50, TRUCK, PALLET, step="loading"),
        shipped(MAKER, 60, CENTRE, PALLET),
        measured(CARRIER, 90, TRUCK, (70, "4"), (300, "40")),
        received(CENTRE, 200, MAKER, PALLET, place=STORE),
    ]
    found = history(DOSE, events, now_ms=NOW, parties={})
    assert read_at(found.readings) == [70]
    assert found.insides[-1].end_ms == at(200)
    assert found.legs[-1].place == STORE


def test_where_a_container_was_before_and_after_is_no_concern() -> None:
    before, later = f"{MAKER}/CARTON-8", f"{MAKER}/CARTON-9"
    events = [
        packed(MAKER, -90, before, BOX),
        unpacked(MAKER, -60, before, BOX),
        packed(MAKER, 10, BOX, DOSE),
        unpacked(MAKER, 50, BOX, DOSE),
        packed(MAKER, 90, later, BOX),
    ]
    assert history(DOSE, events, now_ms=NOW, parties={}).containers == (BOX,)


def test_it_leaves_the_vehicle_only_to_be_somewhere_else() -> None:
    van = f"{CENTRE}/VAN"
    events = [
        made(0, DOSE),
        packed(MAKER, 50, van, DOSE, step="loading"),
        about(MAKER, 60, "storing", DOSE, biz_location=STORE),
        unpacked(MAKER, 90, van, DOSE, step="unloading"),
        about(MAKER, 95, "storing", DOSE, biz_location=FRIDGE),
    ]
    assert [(start, place) for start, _, _, _, place in story(*events)] == [
        (0, PLANT),
        (50, van),
        (90, STORE),
        (95, FRIDGE),
    ]


def test_a_vehicle_that_only_its_licence_tells_is_one_and_its_own_trips_are_transport() -> None:
    van = f"{CENTRE}/VAN"
    events = [made(0, DOSE), packed(MAKER, 50, van, DOSE), unpacked(MAKER, 90, van, DOSE)]
    licence = Party(
        CENTRE,
        "Centre",
        "",
        frozenset({PartyRole.DISTRIBUTOR}),
        (Location(f"idtrace:{van}", LocationKind.VEHICLE), Location(f"idtrace:{STORE}", LocationKind.ROOM)),
        0,
        2**40,
    )
    found = history(DOSE, events, now_ms=NOW, parties={CENTRE: licence})
    assert [(leg.mode, leg.place) for leg in found.legs] == [
        (Mode.STORE, PLANT),
        (Mode.TRANSPORT, van),
        (Mode.STORE, PLANT),
    ]
    # While it was in the van, what was read in the plant is not its temperature.
    plant = measured(MAKER, 100, "", (40, "5"), (70, "25"), (95, "6"), place=PLANT)
    found = history(DOSE, [*events, plant], now_ms=NOW, parties={CENTRE: licence})
    assert read_at(found.readings) == [40, 95]


def test_a_device_counts_while_it_is_fitted_to_what_the_thing_is_in_and_at_a_place_too() -> None:
    probe = f"{CLINIC}/PROBE"
    events = [
        made(0, DOSE, place=FRIDGE),
        fitted(CLINIC, 50, FRIDGE, probe),
        fitted(CLINIC, 150, FRIDGE, probe, action=Action.DELETE),
        fitted(CLINIC, 160, BOX, probe),
        measured(CLINIC, 500, "", (40, "1"), (60, "5"), (140, "6"), (170, "1"), device=probe),
    ]
    found = history(DOSE, events, now_ms=NOW, parties={})
    assert read_at(found.readings) == [60, 140]
    assert [(step.via, step.depth) for step in found.steps if step.observed is events[-1]] == [(probe, 2)]


def test_a_reading_that_two_ways_lead_to_counts_once() -> None:
    events = [
        made(0, DOSE),
        packed(MAKER, 1, BOX, DOSE),
        fitted(MAKER, 2, BOX, LOGGER),
        measured(MAKER, 50, BOX, (10, "5"), (20, "6"), device=LOGGER, place=PLANT),
    ]
    assert read_at(history(DOSE, events, now_ms=NOW, parties={}).readings) == [10, 20]


def test_what_it_was_made_of_is_followed_backwards_and_without_end_only_once() -> None:
    bulk, seed, later = "urn:lot:bulk", "urn:lot:seed", f"{MAKER}/SN-9"
    fill = make(
        MAKER,
        EventType.TRANSFORMATION,
        -10,
        input_quantities=(Quantity(bulk),),
        outputs=[DOSE],
        output_quantities=(Quantity(seed),),
    )
    grow = make(MAKER, EventType.TRANSFORMATION, -500, inputs=[seed], outputs=[bulk])
    tested = about(MAKER, -100, "inspecting", bulk)
    after = about(MAKER, 50, "inspecting", bulk)
    other = make(MAKER, EventType.TRANSFORMATION, 60, inputs=[DOSE], outputs=[later])
    events = [grow, tested, fill, after, made(0, DOSE), other]
    found = history(DOSE, events, now_ms=NOW, parties={})
    assert found.sources == (bulk, seed)
    assert found.steps[0].depth == -1
    assert [step.observed for step in found.steps] == [grow, tested, fill, events[4], other]
    assert history(later, events, now_ms=NOW, parties={}).sources == (DOSE, bulk, seed)


def test_legs_end_with_the_thing_and_begin_with_the_first_word_of_it() -> None:
    gone = about(MAKER, 300, "destroying", DOSE, action=Action.DELETE)
    assert [leg[:2] for leg in story(made(0, DOSE), gone)] == [(0, 300)]
    assert [leg[:2] for leg in story(about(CENTRE, 20, "storing", DOSE, biz_location=STORE))] == [(20, 1000)]
    assert story(made(0, DOSE), now_ms=at(-5)) == []
    assert story() == []


def test_hands_that_are_not_known_for_minutes_make_no_leg_of_their_own() -> None:
    legs = story(made(0, DOSE), shipped(MAKER, 100, CENTRE, DOSE), about(CARRIER, 103, "departing", DOSE))
    assert [leg[:4] for leg in legs] == [(0, 100, "store", MAKER), (100, 1000, "transport", CARRIER)]


def test_a_receiving_that_carries_its_loggers_readings_is_still_the_pallets() -> None:
    """What was measured in the room as it signed must not make of it a report about the room alone."""
    plain = chain()
    receipt = next(one for one in plain if one.event.biz_step == "receiving" and one.event.biz_location)
    minute, place = (receipt.event.time_ms - T0) / MINUTE, receipt.event.biz_location
    read_out = measured(receipt.party, minute, "", (minute, "5"), device=LOGGER).event.sensors
    telling = replace(receipt, event=replace(receipt.event, sensors=read_out, read_point=place))
    events = [telling if one is receipt else one for one in plain]
    (step,) = (step for step in history(DOSE, events, now_ms=NOW, parties={}).steps if step.observed is telling)
    (before,) = (step for step in history(DOSE, plain, now_ms=NOW, parties={}).steps if step.observed is receipt)
    assert (step.via, step.depth) == (before.via, before.depth)

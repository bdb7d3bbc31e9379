"""Whose hands a thing went through: every way to hand over, and every way in which the words about it contradict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from idtrace.epcis.model import EventType, Typed
from idtrace.party import Party, PartyRole
from idtrace.provenance.assemble import history
from idtrace.provenance.history import Clash, History, Observed
from tests.unit.provenance.story import (
    BOX,
    CARRIER,
    CARTON,
    CENTRE,
    CLINIC,
    DOSE,
    FRIDGE,
    MAKER,
    MINUTE,
    STORE,
    T0,
    about,
    at,
    chain,
    made,
    make,
    measured,
    packed,
    received,
    shipped,
    taken_back,
    unpacked,
)

OTHER = "88.118.66"
AUTHORITY = Party("88.118", "A", "", frozenset({PartyRole.AUTHORITY}), (), 0, 2**40)


def told(events: Sequence[Observed], parties: dict[str, Party] | None = None) -> History:
    return history(DOSE, events, now_ms=at(10_000), parties=parties or {})


def hands(found: History) -> list[tuple[str, float, float | None]]:
    return [
        (one.party, (one.start_ms - T0) / MINUTE, None if one.end_ms is None else (one.end_ms - T0) / MINUTE)
        for one in found.holdings
    ]


def clashes(found: History) -> list[str]:
    return [one.kind for one in found.contradictions]


def sent(minutes: float = 100, *, by: str = MAKER, to: str = CENTRE) -> Observed:
    return shipped(by, minutes, to, DOSE)


def test_from_the_maker_by_a_carrier_and_a_centre_to_a_clinic() -> None:
    found = told(chain())
    assert clashes(found) == []
    assert hands(found) == [(MAKER, 0, 60), (CARRIER, 60, 190), (CENTRE, 190, 600), (CLINIC, 700, None)]
    assert [one.place for one in found.holdings][2:] == [STORE, FRIDGE]


def test_nobody_holds_it_on_its_way_where_no_carrier_says_so() -> None:
    found = told([made(0, DOSE), sent(), received(CENTRE, 200, MAKER, DOSE)])
    assert hands(found) == [(MAKER, 0, 100), (CENTRE, 200, None)]
    assert found.holdings[1].evidence[0] == found.holdings[0].evidence[-1]  # the shipping, then the receiving


def test_two_carriers_hand_over_and_the_first_may_speak_up_minutes_later() -> None:
    events = [
        made(0, DOSE),
        sent(),
        about(CARRIER, 101, "accepting", DOSE),
        about(OTHER, 150, "accepting", DOSE),
        about(CARRIER, 155, "arriving", DOSE),
        about(OTHER, 160, "transporting", DOSE),
        received(CENTRE, 200, MAKER, DOSE),
        about(OTHER, 205, "arriving", DOSE),
    ]
    found = told(events)
    assert clashes(found) == []
    assert hands(found) == [(MAKER, 0, 100), (CARRIER, 101, 150), (OTHER, 150, 200), (CENTRE, 200, None)]


def test_a_carrier_that_ships_on_to_the_next_is_no_stranger_and_the_first_sender_may_be_named() -> None:
    events = [
        made(0, DOSE),
        sent(),
        about(CARRIER, 101, "accepting", DOSE),
        shipped(CARRIER, 150, CENTRE, DOSE),
        received(CENTRE, 200, MAKER, DOSE),
    ]
    assert clashes(told(events)) == []


def test_returned_and_shipped_again() -> None:
    events = [
        made(0, DOSE),
        sent(),
        received(CENTRE, 200, MAKER, DOSE),
        shipped(CENTRE, 300, MAKER, DOSE),
        received(MAKER, 400, CENTRE, DOSE),
        sent(500),
        received(CENTRE, 600, MAKER, DOSE),
    ]
    found = told(events)
    assert clashes(found) == []
    assert [party for party, _, _ in hands(found)] == [MAKER, CENTRE, MAKER, CENTRE]


def test_what_was_never_accepted_may_be_received_by_its_sender() -> None:
    assert clashes(told([made(0, DOSE), sent(), received(MAKER, 300, "", DOSE)])) == []


def test_a_voided_shipping_leaves_the_holding_as_if_nothing_had_been() -> None:
    void = about(MAKER, 120, "void_shipping", DOSE)
    found = told([made(0, DOSE), sent(), void])
    assert clashes(found) == []
    assert hands(found) == [(MAKER, 0, None)]
    assert void.identifier in found.holdings[0].evidence
    assert [(leg.mode, leg.custodian) for leg in found.legs] == [("store", MAKER)]


def test_a_shipping_is_voided_after_a_carrier_had_it() -> None:
    events = [made(0, DOSE), sent(), about(CARRIER, 105, "accepting", DOSE), about(MAKER, 200, "void_shipping", DOSE)]
    found = told(events)
    assert clashes(found) == []
    assert hands(found) == [(MAKER, 0, 100), (CARRIER, 105, 200), (MAKER, 200, None)]


def test_what_was_not_shipped_cannot_be_voided_by_another() -> None:
    events = [made(0, DOSE), about(OTHER, 120, "void_shipping", DOSE)]
    assert clashes(told(events)) == [Clash.STRANGER]


def test_a_shipment_told_of_pallet_and_carton_is_one() -> None:
    events = [
        made(0, DOSE),
        packed(MAKER, 5, BOX, DOSE),
        packed(MAKER, 6, CARTON, BOX),
        shipped(MAKER, 100, CENTRE, CARTON),
        shipped(MAKER, 101, CENTRE, BOX),
        received(CENTRE, 200, MAKER, CARTON),
        received(CENTRE, 210, MAKER, BOX),
    ]
    found = told(events)
    assert clashes(found) == []
    assert hands(found) == [(MAKER, 0, 100), (CENTRE, 200, None)]


def test_a_part_of_a_carton_goes_on_and_the_rest_stays() -> None:
    other = f"{MAKER}/SN-2"
    events = [
        made(0, DOSE, other),
        packed(MAKER, 1, BOX, DOSE, other),
        shipped(MAKER, 100, CENTRE, BOX),
        received(CENTRE, 200, MAKER, BOX, place=STORE),
        unpacked(CENTRE, 210, BOX, other),
        shipped(CENTRE, 300, CLINIC, other),
        received(CLINIC, 400, CENTRE, other, place=FRIDGE),
    ]
    assert hands(told(events))[-1] == (CENTRE, 200, None)
    gone = history(other, events, now_ms=at(10_000), parties={})
    assert hands(gone)[-1] == (CLINIC, 400, None)
    assert gone.contradictions == ()


@pytest.mark.parametrize("late", [10, 0])
def test_a_shipping_may_be_late_by_the_clock_tolerance(late: Any) -> None:
    events = [made(0, DOSE), received(CENTRE, 100, MAKER, DOSE), sent(100 + late)]
    found = told(events)
    assert clashes(found) == []
    assert hands(found) == [(MAKER, 0, 100), (CENTRE, 100, None)]


def test_a_shipping_beyond_the_clock_tolerance_is_none_of_that_receiving() -> None:
    found = told([made(0, DOSE), received(CENTRE, 100, MAKER, DOSE), sent(110.01)])
    assert clashes(found) == [Clash.NO_SHIPPER, Clash.OVERLAP]


def test_a_late_shipping_by_who_never_received_is_drawn_forward_and_is_no_wrong_receiver() -> None:
    events = [
        made(0, DOSE),
        sent(50, to=CENTRE),
        received(CLINIC, 100, MAKER, DOSE),
        shipped(CENTRE, 105, CLINIC, DOSE),
    ]
    # The centre has shipped it on, by a clock that is ahead, and has never received it; the clinic is the right one.
    assert clashes(told(events)) == [Clash.NO_RECEIPT]


def test_a_carrier_may_depart_minutes_before_the_shipping_and_load_hours_before_it() -> None:
    early = [made(0, DOSE), about(CARRIER, 95, "departing", DOSE), sent(), received(CENTRE, 200, MAKER, DOSE)]
    assert clashes(told(early)) == []
    loads = [made(0, DOSE), about(CARRIER, 95 - 600, "loading", DOSE)]
    assert clashes(told([made(-1000, DOSE), *loads[1:], sent(), received(CENTRE, 200, MAKER, DOSE)])) == []
    never = [made(0, DOSE), about(CARRIER, 95, "loading", DOSE)]
    assert clashes(told(never)) == [Clash.STRANGER]
    far = [made(0, DOSE), about(CARRIER, 50, "departing", DOSE), sent()]
    assert clashes(told(far)) == [Clash.STRANGER]


def test_received_and_nobody_has_shipped_it() -> None:
    assert clashes(told([made(0, DOSE), received(CENTRE, 200, MAKER, DOSE)])) == [Clash.NO_SHIPPER]
    assert clashes(told([received(CENTRE, 200, MAKER, DOSE)])) == [Clash.NO_SHIPPER]


def test_received_from_another_than_has_shipped_it() -> None:
    assert clashes(told([made(0, DOSE), sent(), received(CENTRE, 200, OTHER, DOSE)])) == [Clash.NO_SHIPPER]


def test_the_owner_counts_as_the_receiver_where_no_possessor_is_named() -> None:
    ends = (Typed("location", "idtrace:somewhere"), Typed("owning_party", f"idtrace:{CENTRE}"))
    owned = about(MAKER, 100, "shipping", DOSE, destinations=ends)
    assert clashes(told([made(0, DOSE), owned, received(OTHER, 200, MAKER, DOSE)])) == [Clash.WRONG_RECEIVER]
    nobody = about(MAKER, 100, "shipping", DOSE, destinations=ends[:1])
    assert clashes(told([made(0, DOSE), nobody, received(OTHER, 200, MAKER, DOSE)])) == []


def test_received_by_another_than_it_was_shipped_to() -> None:
    found = told([made(0, DOSE), sent(), received(OTHER, 200, MAKER, DOSE)])
    assert clashes(found) == [Clash.WRONG_RECEIVER]
    assert hands(found)[-1] == (OTHER, 200, None)
    assert clashes(told([made(0, DOSE), sent(to=""), received(OTHER, 200, MAKER, DOSE)])) == []


@pytest.mark.parametrize("step", ["dispensing", "shipping"])
def test_used_or_shipped_on_and_never_received(step: Any) -> None:
    used = about(CENTRE, 200, step, DOSE)
    found = told([made(0, DOSE), sent(), used])
    assert clashes(found) == [Clash.NO_RECEIPT]
    assert found.contradictions[0].evidence[-1] == used.identifier


def test_handled_before_the_receiving_is_written_is_fine_and_without_one_is_not() -> None:
    handled = [made(0, DOSE), sent(), about(CENTRE, 200, "storing", DOSE), about(CENTRE, 201, "inspecting", DOSE)]
    assert clashes(told(handled)) == [Clash.NO_RECEIPT]
    assert clashes(told([*handled, received(CENTRE, 260, MAKER, DOSE)])) == []


def test_shipped_by_who_has_given_it_away_and_by_who_never_had_it() -> None:
    base = [made(0, DOSE), sent(), received(CENTRE, 200, MAKER, DOSE)]
    assert clashes(told([*base, sent(300, to=CLINIC)])) == [Clash.OVERLAP]
    assert clashes(told([*base, sent(300, by=OTHER, to=CLINIC)])) == [Clash.STRANGER]
    assert clashes(told([made(0, DOSE), sent(), sent(300, to=CLINIC)])) == [Clash.OVERLAP]


def test_handled_by_who_has_given_it_away_by_who_never_had_it_and_on_its_way() -> None:
    base = [made(0, DOSE), sent(), received(CENTRE, 200, MAKER, DOSE)]
    assert clashes(told([*base, about(MAKER, 300, "storing", DOSE)])) == [Clash.OVERLAP]
    assert clashes(told([*base, about(OTHER, 300, "", DOSE)])) == [Clash.STRANGER]
    way = [made(0, DOSE), sent()]
    assert clashes(told([*way, about(OTHER, 300, "storing", DOSE)])) == [Clash.STRANGER]
    assert clashes(told([*way, about(MAKER, 105, "packing", DOSE)])) == []
    assert clashes(told([*way, about(MAKER, 300, "packing", DOSE)])) == [Clash.OVERLAP]


def test_who_measures_or_inspects_by_office_need_not_hold_it() -> None:
    base = [made(0, DOSE), measured(OTHER, 10, DOSE, (9, "5")), about("88.118", 20, "holding", DOSE)]
    assert clashes(told(base, {"88.118": AUTHORITY})) == []
    assert clashes(told(base)) == [Clash.STRANGER]


def test_made_twice_by_another_or_by_the_same_and_filled_then_coded_is_once() -> None:
    assert clashes(told([made(0, DOSE), made(50, DOSE, by=OTHER)])) == [Clash.MADE_TWICE]
    assert clashes(told([made(0, DOSE), made(50, DOSE)])) == [Clash.MADE_TWICE]
    filled = make(MAKER, EventType.TRANSFORMATION, -5, inputs=["urn:lot:bulk"], outputs=[DOSE])
    assert clashes(told([filled, made(0, DOSE)])) == []


def test_made_after_it_was_handled_leaves_the_hands_as_they_are() -> None:
    events = [about(CENTRE, 0, "storing", DOSE), made(50, DOSE)]
    assert hands(told(events)) == [(CENTRE, 0, None)]


def test_an_event_that_was_taken_back_never_was() -> None:
    stray = sent(50, to=OTHER)
    base = [made(0, DOSE), sent(), received(CENTRE, 200, MAKER, DOSE)]
    back = taken_back(stray, 60)
    found = told([*base, stray, back])
    assert clashes(found) == []
    assert sorted(one.identifier for one in found.voided) == sorted([stray.identifier, back.identifier])
    by_another = Observed(back.event, f"{OTHER}/event/{'0' * 64}", OTHER, 0)
    assert stray not in told([*base, stray, by_another]).voided
    named = Observed(stray.event, *("x", MAKER, 0))
    assert named.event.event_id == ""
    other_id = taken_back(stray, 60, event_id="urn:uuid:b")
    said = Observed(type(stray.event)(**{**_fields(stray), "event_id": "urn:uuid:a"}), "88.118.8/event/a", MAKER, 0)
    assert said not in told([*base, said, other_id]).voided
    assert back in told([*base, back]).voided
    elsewhere = taken_back(made(0, f"{MAKER}/SN-77", place=""), 10)
    assert elsewhere not in told([*base, elsewhere]).voided


def _fields(observed: Observed) -> dict[str, Any]:
    return {name: getattr(observed.event, name) for name in type(observed.event).__dataclass_fields__}

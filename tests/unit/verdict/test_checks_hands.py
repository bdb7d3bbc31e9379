"""Custody, licences, roles, order and places: each code at, under and over its border."""

from __future__ import annotations

from typing import Any

import pytest

from idtrace.epcis.model import Action, EventType, Typed
from idtrace.party import Location, LocationKind, PartyRole
from idtrace.provenance.history import Gap, GapKind
from idtrace.verdict import checks_places
from idtrace.verdict.findings import Code, Use
from tests.unit.verdict.facts_builder import (
    CARRIER,
    CLINIC,
    DOSE_URI,
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
    party,
    product,
    received,
    shipped,
    site,
    story,
    use,
)
from tests.unit.verdict.test_checks import licensed, without

NOW = T0 + 5 * HOUR


# Was it always in good hands?


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, False),
        ({"active": False}, True),
        ({"valid_until": (T0 + 3 * HOUR) // 1000}, True),
        ({"valid_until": NOW // 1000}, True),
        ({"valid_until": NOW // 1000 + 1}, False),
        ({"valid_from": (T0 + 3 * HOUR) // 1000}, False),
        ({"valid_from": (T0 + 3 * HOUR) // 1000 + 1}, True),
    ],
)
def test_who_handles_it_is_licensed_then_and_who_holds_it_now(change: dict[str, Any], found: bool) -> None:
    told = story(parties=licensed(**{CLINIC: party(CLINIC, PartyRole.CLINIC, **change)}))
    assert told.has(Code.PARTY_UNLICENSED) is found
    assert told.judged().until_ms is not None


def test_a_denied_licence_accuses_and_an_unknown_one_holds() -> None:
    parties = licensed()
    del parties[CLINIC]
    assert codes(story(parties=parties)) == [Code.PARTY_UNLICENSED]
    gap = Gap(GapKind.UNREACHABLE, f"88.118/party/{CLINIC}", "no answer")
    assert codes(story(parties=parties, gaps=(gap,))) == [Code.HISTORY_GAP]


def test_a_role_does_what_it_may() -> None:
    opened = event(T0 + 4 * HOUR, "repackaging", CLINIC)
    told = story(opened)
    assert codes(told) == [Code.PARTY_ROLE]
    assert codes(story(event(T0 + 4 * HOUR, "https://example.com/own_step", CLINIC))) == []
    twice = story(opened, event(T0 + 4 * HOUR + MINUTE, "repackaging", CLINIC))
    assert len(twice.judged().findings) == 1
    bare = story(opened, parties=licensed(**{CLINIC: party(CLINIC, PartyRole.CLINIC, evidence="")}))
    assert codes(bare) == [Code.PARTY_ROLE]


def test_received_without_being_shipped_is_held() -> None:
    told = without(story(), "shipping")
    assert codes(told) == [Code.CUSTODY_NO_SHIPPER]
    assert use(told) is Use.HOLD


def test_received_by_another_than_it_was_sent_to_is_held() -> None:
    told = Story()
    told.events[1] = shipped(T0 + 2 * HOUR, MAKER, OTHER)
    assert codes(told) == [Code.CUSTODY_WRONG_RECEIVER]


def test_on_its_way_it_is_held_until_it_is_received() -> None:
    told = without(story(), "receiving")
    assert Code.CUSTODY_NO_RECEIPT in codes(told)
    back = event(T0 + 2 * HOUR + 30 * MINUTE, "void_shipping", MAKER)
    assert Code.CUSTODY_NO_RECEIPT not in codes(without(story(back), "receiving"))


@pytest.mark.parametrize(("late_ms", "found"), [(10 * MINUTE, False), (10 * MINUTE + 1, True)])
def test_a_shipping_by_a_slow_clock_still_belongs_to_its_receiving(late_ms: int, found: bool) -> None:
    told = Story()
    told.events[1] = shipped(T0 + 3 * HOUR + late_ms, MAKER, CLINIC)
    assert told.has(Code.CUSTODY_NO_RECEIPT) is found


def test_a_shipping_after_an_own_receiving_is_a_new_way() -> None:
    told = story(shipped(T0 + 3 * HOUR + MINUTE, CLINIC, MAKER))
    assert told.has(Code.CUSTODY_NO_RECEIPT)


def test_used_without_being_received_names_the_missing_receipt() -> None:
    told = without(story(dispensed(T0 + 4 * HOUR)), "receiving")
    assert told.has(Code.CUSTODY_NO_RECEIPT)


def test_a_stranger_and_a_former_holder_are_told_apart() -> None:
    assert story(event(T0 + 4 * HOUR, "storing", OTHER, read_point="")).has(Code.REPORTED_BY_STRANGER)
    assert story(event(T0 + 4 * HOUR, "storing", MAKER, read_point="")).has(Code.CUSTODY_OVERLAP)


def test_in_two_boxes_at_once_is_a_contradiction() -> None:
    boxes = [
        event(
            T0 + n * 20 * MINUTE, "packing", type_=EventType.AGGREGATION, action=Action.ADD, epcs=(),
            parent=f"idtrace:88.118.8/BOX-{n}", children=(DOSE_URI,),
        )
        for n in (1, 2)
    ]  # fmt: skip
    assert codes(story(*boxes[:1])) == []
    assert codes(story(*boxes)) == [Code.AGGREGATION_CONTRADICTION]


@pytest.mark.parametrize(("ahead_ms", "found"), [(10 * MINUTE, False), (10 * MINUTE + 1, True)])
def test_nothing_happens_in_the_future(ahead_ms: int, found: bool) -> None:
    told = story(event(NOW + ahead_ms, "storing", CLINIC))
    assert told.has(Code.TIME_DISORDER) is found


@pytest.mark.parametrize(("early_ms", "found"), [(10 * MINUTE, False), (10 * MINUTE + 1000, True)])
def test_nothing_is_reported_before_it_happens(early_ms: int, found: bool) -> None:
    at = T0 + 4 * HOUR
    told = story(event(at, "storing", CLINIC, reported_at=(at - early_ms) // 1000))
    assert told.has(Code.TIME_DISORDER) is found


@pytest.mark.parametrize(("early_ms", "found"), [(10 * MINUTE, False), (10 * MINUTE + 1, True)])
def test_nothing_happens_to_it_before_it_is_made(early_ms: int, found: bool) -> None:
    assert story(event(T0 - early_ms, "encoding", MAKER)).has(Code.TIME_DISORDER) is found


# Could it have been there?


def far(at_ms: int, by: str = CLINIC, at: str = OTHER) -> Any:
    return event(at_ms, "storing", by, read_point=site(at))


# Shanghai and Beijing are 1,067 km apart: 64 minutes, an hour on the ground, ten minutes for the clocks.
@pytest.mark.parametrize(
    ("after_ms", "code"),
    [
        (0, Code.DOUBLE_PRESENCE),
        (10 * MINUTE, Code.DOUBLE_PRESENCE),
        (10 * MINUTE + 1, Code.IMPOSSIBLE_TRAVEL),
        (113 * MINUTE, Code.IMPOSSIBLE_TRAVEL),
        (115 * MINUTE, None),
    ],
)
def test_nothing_is_in_two_places_at_once_or_flies_faster_than_a_plane(after_ms: int, code: Code | None) -> None:
    told = story(
        event(T0 + 4 * HOUR, "storing", CLINIC), far(T0 + 4 * HOUR + after_ms), now_ms=T0 + 7 * HOUR, product=None
    )
    found = set(codes(told)) & {Code.DOUBLE_PRESENCE, Code.IMPOSSIBLE_TRAVEL}
    assert found == ({code} if code else set())


def test_a_place_without_a_position_or_a_desk_far_away_accuses_nobody() -> None:
    for told in (
        story(event(T0 + 4 * HOUR, "storing", CLINIC, read_point="idtrace:88.118.6/somewhere")),
        story(event(T0 + 4 * HOUR, "inspecting", CLINIC, read_point=site(OTHER))),
        story(event(T0 + 4 * HOUR, "storing", CLINIC, read_point="", biz_location="")),
    ):
        assert codes(told) == []
    truck = Location("urn:truck:1", LocationKind.VEHICLE)
    parties = licensed(**{CARRIER: party(CARRIER, PartyRole.CARRIER, locations=(truck,))})
    assert codes(story(event(T0 + 4 * HOUR, "storing", CLINIC, read_point="urn:truck:1"), parties=parties)) == []


def test_a_business_location_shows_the_place_where_no_read_point_does() -> None:
    told = story(
        event(T0 + 4 * HOUR, "storing", CLINIC),
        event(T0 + 4 * HOUR + MINUTE, "storing", CLINIC, read_point="", biz_location=site(OTHER)),
    )
    assert told.has(Code.DOUBLE_PRESENCE)


def test_distances_are_great_circles() -> None:
    shanghai, beijing = (31.2304, 121.4737), (39.9042, 116.4074)
    assert checks_places.distance_km(shanghai, beijing) == pytest.approx(1067, abs=3)
    assert checks_places.distance_km((0.0, 179.9), (0.0, -179.9)) == pytest.approx(22.2, abs=0.1)
    assert checks_places.travel_ms(499) == 499 * 3_600
    assert checks_places.travel_ms(500) == 500 * 3_600 + HOUR


def test_given_by_two_clinics_is_a_copy() -> None:
    ten = product(doses=10)
    once = [dispensed(T0 + 4 * HOUR), dispensed(T0 + 4 * HOUR + MINUTE)]
    assert codes(story(*once, product=ten)) == []
    told = story(*once, dispensed(T0 + 4 * HOUR + 2 * MINUTE, OTHER, read_point=""), product=ten)
    assert told.has(Code.DOUBLE_PRESENCE)


def test_a_named_party_that_never_had_it_is_no_stranger() -> None:
    ends = (Typed("possessing_party", f"idtrace:{OTHER}"), Typed("location", "urn:x:1"))
    told = Story()
    told.events[3] = measured(T0, T0 + 2 * HOUR, MAKER)
    told.events.append(event(T0 + 4 * HOUR, "storing", CLINIC, destinations=ends))
    assert codes(told) == []


def test_a_receiving_closes_the_way_of_the_shipping_before_it() -> None:
    told = story(shipped(T0 + 4 * HOUR, CLINIC, MAKER), received(T0 + 4 * HOUR + 20 * MINUTE, MAKER, CLINIC))
    assert not told.has(Code.CUSTODY_NO_RECEIPT)


def test_a_holder_whose_licence_has_ended_since_may_not_hold_it() -> None:
    told = Story()
    told.events[4] = measured(T0 + 2 * HOUR, NOW - 10 * MINUTE, CLINIC)
    for ends, found in ((NOW // 1000, True), (NOW // 1000 + 1, False)):
        told.changes = {"parties": licensed(**{CLINIC: party(CLINIC, PartyRole.CLINIC, valid_until=ends)})}
        assert told.has(Code.PARTY_UNLICENSED) is found

"""Who may report what, as far as licence, role and place decide: every refusal has its reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from idtrace.epcis import vocabulary
from idtrace.epcis.model import Event
from idtrace.errors import Reason, RefusedError
from idtrace.identifier import Prefix
from idtrace.party import STEPS_OF_ROLE, Party, PartyRole
from registry.reporting import GUESTS, check_license, check_places, places_of, step_of
from tests.capture_fixtures import a_party, a_place, event_of, observed
from tests.unit.epcis.events import plain

PREFIX = Prefix.parse("88.118.8")
SECOND = 1_000


def refused(party: Party | None, event: Event, reported_at: int | None = None) -> Reason | None:
    try:
        check_license(party, PREFIX, event, event.time_ms // 1000 if reported_at is None else reported_at)
    except RefusedError as error:
        return error.reason
    return None


def an_event(**fields: Any) -> Event:
    return event_of(observed(1, **fields))


def test_every_step_of_cbv_is_somebodys_but_selling_over_a_counter() -> None:
    known = frozenset().union(*STEPS_OF_ROLE.values())
    assert vocabulary.BIZ_STEP.words - known == {"retail_selling"}
    assert known - vocabulary.BIZ_STEP.words == {"transforming"}  # our word for a type of event that needs no step


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        (PartyRole.MAKER, "commissioning", "dispensing"),
        (PartyRole.MAKER, "packing", "retail_selling"),
        (PartyRole.DISTRIBUTOR, "receiving", "commissioning"),
        (PartyRole.CARRIER, "transporting", "unpacking"),
        (PartyRole.CARRIER, "accepting", "shipping"),
        (PartyRole.CLINIC, "dispensing", "commissioning"),
        (PartyRole.LABORATORY, "sampling", "shipping"),
        (PartyRole.AUTHORITY, "holding", "receiving"),
    ],
)
def test_a_role_does_its_steps_and_no_others(role: PartyRole, may: str, may_not: str) -> None:
    party = a_party("88.118.8", role)
    assert refused(party, an_event(bizStep=may)) is None
    assert refused(party, an_event(bizStep=may_not)) is Reason.ROLE_BIZ_STEP


def test_whoever_has_two_roles_may_do_what_either_may() -> None:
    party = a_party("88.118.8", PartyRole.CARRIER, PartyRole.CLINIC)
    assert refused(party, an_event(bizStep="dispensing")) is None
    assert refused(party, an_event(bizStep="commissioning")) is Reason.ROLE_BIZ_STEP


@pytest.mark.parametrize(
    ("fields", "step"),
    [
        (plain("TransformationEvent"), "transforming"),
        (plain("ObjectEvent") | {"bizStep": "https://example.com/steps/x"}, "commissioning"),
        (plain("ObjectEvent") | {"action": "DELETE", "bizStep": "https://example.com/x"}, "decommissioning"),
        (plain("ObjectEvent") | {"action": "OBSERVE", "bizStep": "https://example.com/x"}, ""),
        (plain("AssociationEvent"), ""),
        (plain("AggregationEvent"), "packing"),
    ],
)
def test_without_a_known_step_type_and_action_say_what_was_done(fields: dict[str, Any], step: str) -> None:
    assert step_of(event_of(fields)) == step


def test_nobody_makes_things_by_leaving_the_step_out() -> None:
    made = event_of(plain("ObjectEvent") | {"bizStep": "https://example.com/x"})
    assert refused(a_party("88.118.8", PartyRole.CLINIC), made) is Reason.ROLE_BIZ_STEP
    assert refused(a_party("88.118.8", PartyRole.CARRIER), event_of(plain("AssociationEvent"))) is None


def test_a_licence_is_there_is_active_and_was_valid_when_it_happened() -> None:
    event = an_event()
    at = event.time_ms // SECOND
    assert refused(None, event) is Reason.PARTY_UNLICENSED
    assert refused(a_party(active=False), event) is Reason.PARTY_SUSPENDED
    assert refused(a_party(valid_from=at + 1), event) is Reason.LICENCE_PERIOD
    assert refused(a_party(valid_until=at), event) is Reason.LICENCE_PERIOD
    whole = replace(event, time_ms=at * SECOND)
    assert refused(a_party(valid_from=at, valid_until=at + 1), whole) is None
    assert refused(a_party(valid_until=at), replace(event, time_ms=at * SECOND - 1)) is None


OWN, FOREIGN = "idtrace:88.118.8/room-1", "idtrace:88.118.9/room-1"
GLN, OTHER_GLN = "urn:epc:id:sgln:4012345.00001.0", "urn:epc:id:sgln:4012345.00002.0"
OWNERS = places_of(a_party("88.118.9", locations=(a_place(OTHER_GLN),)))


def places(party: Party, **fields: str) -> str | None:
    """The field that is refused."""
    event = an_event(**{name: {"id": uri} for name, uri in fields.items()})
    try:
        check_places(party, event, OWNERS)
    except RefusedError as error:
        return error.field if error.reason is Reason.LOCATION_OF_ANOTHER else str(error.reason)
    return None


def test_a_place_in_the_zone_of_another_is_refused_unless_the_parent_says_it_is_shared() -> None:
    assert places(a_party(), bizLocation=OWN, readPoint=OWN) is None
    assert places(a_party(), readPoint=FOREIGN) == "readPoint.id"
    assert places(a_party(), bizLocation=FOREIGN) == "bizLocation.id"
    assert places(a_party(locations=(a_place(FOREIGN),)), bizLocation=FOREIGN, readPoint=FOREIGN) is None


def test_a_place_whose_name_tells_no_owner_is_refused_where_a_known_licence_lists_it() -> None:
    assert places(a_party(), bizLocation=GLN, readPoint="https://example.com/gate") is None
    assert places(a_party(), bizLocation=OTHER_GLN) == "bizLocation.id"
    assert places(a_party(locations=(a_place(OTHER_GLN),)), bizLocation=OTHER_GLN) is None
    assert places(a_party("88.118.9"), bizLocation=OTHER_GLN) is None


@pytest.mark.parametrize("role", PartyRole)
def test_guests_are_read_at_the_places_of_others_and_have_no_stock_there(role: PartyRole) -> None:
    party = a_party("88.118.8", role)
    assert places(party, readPoint=FOREIGN) == (None if role in GUESTS else "readPoint.id")
    assert places(party, bizLocation=FOREIGN) == "bizLocation.id"


def test_what_is_told_more_than_a_day_after_the_licence_ended_is_refused() -> None:
    event = an_event(bizStep="commissioning")
    ends = event.time_ms // 1000 + 60
    party = replace(a_party("88.118.8", PartyRole.MAKER), valid_until=ends)
    assert refused(party, event, ends + 86_399) is None
    assert refused(party, event, ends + 86_400) is Reason.LICENCE_PERIOD

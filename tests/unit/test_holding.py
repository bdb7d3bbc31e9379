"""Who has a thing in hand: by the events that a node keeps, and by nothing that it only guesses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from idtrace.errors import Reason, RefusedError
from registry.holding import CONTAINERS_DEEP_MAX, Told, check_holder, holder_of, is_hands_on, things_of
from tests.capture_fixtures import event_of
from tests.unit.epcis.events import plain

MAKER, CLINIC, VAN = "88.118.8", "88.118.9", "88.118.7"
DOSE, BOX, CARTON = "88.118.8/D-1", "88.118.8/BOX", "88.118.8/CARTON"
END = 10**14


def uri(key: str) -> str:
    return f"idtrace:{key}"


def told(minute: int, party: str, step: str, *things: str, **fields: Any) -> Told:
    action = "ADD" if step == "commissioning" else "OBSERVE"
    body = {"action": action, "epcList": [uri(one) for one in things or (DOSE,)], "bizStep": step}
    return _told(minute, party, plain("ObjectEvent") | body | fields)


def packed(minute: int, party: str, parent: str, *children: str, action: str = "ADD") -> Told:
    body: dict[str, Any] = {"action": action, "parentID": uri(parent), "bizStep": "packing"}
    return _told(minute, party, plain("AggregationEvent") | body | {"childEPCs": [uri(one) for one in children]})


def _told(minute: int, party: str, fields: dict[str, Any]) -> Told:
    event = event_of(fields | {"eventTime": f"2026-07-22T{minute // 60:02}:{minute % 60:02}:00Z"})
    return Told(event.time_ms, f"{party}/event/{minute:03}", party, event)


MADE = told(0, MAKER, "commissioning")
SHIPPED, RECEIVED = told(10, MAKER, "shipping"), told(20, CLINIC, "receiving")


def test_the_maker_holds_it_until_it_ships_and_whoever_receives_it_from_then_on() -> None:
    assert holder_of(DOSE, [], END) == ""
    assert holder_of(DOSE, [MADE], END) == MAKER
    assert holder_of(DOSE, [SHIPPED, MADE], END) == ""
    assert holder_of(DOSE, [RECEIVED, SHIPPED, MADE], END) == CLINIC
    assert holder_of(DOSE, [MADE, SHIPPED, RECEIVED], SHIPPED.time_ms - 1) == MAKER
    back = told(12, MAKER, "void_shipping")
    assert holder_of(DOSE, [MADE, SHIPPED, back], END) == MAKER
    assert holder_of(DOSE, [MADE, SHIPPED, told(12, VAN, "transporting")], END) == ""


def test_what_happens_to_a_package_happens_to_what_is_in_it_then() -> None:
    events = [MADE, packed(1, MAKER, BOX, DOSE), packed(2, MAKER, CARTON, BOX)]
    sent = told(10, MAKER, "shipping", CARTON)
    assert holder_of(DOSE, [*events, sent], END) == ""
    taken = packed(3, MAKER, CARTON, BOX, action="DELETE")
    assert holder_of(DOSE, [*events, taken, sent], END) == MAKER
    emptied = packed(3, MAKER, CARTON, action="DELETE")
    assert holder_of(DOSE, [*events, emptied, sent], END) == MAKER
    other = packed(3, MAKER, "88.118.8/OTHER", BOX, action="DELETE")
    assert holder_of(DOSE, [*events, other, sent], END) == ""
    others = packed(3, MAKER, CARTON, "88.118.8/BOX-2", action="DELETE")
    assert holder_of(DOSE, [*events, others, sent], END) == ""
    late = told(10, MAKER, "shipping", CARTON)
    assert holder_of(DOSE, [MADE, late, packed(11, MAKER, BOX, DOSE)], END) == MAKER


def test_a_nameless_pallet_takes_nothing_in() -> None:
    body = {"action": "ADD", "childEPCs": [uri(DOSE)], "bizStep": "packing", "parentID": uri(BOX)}
    event = event_of(plain("AggregationEvent") | body)
    one = Told(event.time_ms, "x/event/1", MAKER, replace(event, parent=""))
    assert holder_of(DOSE, [MADE, one, told(700, MAKER, "shipping", BOX)], END) == MAKER


def test_packages_in_a_ring_end() -> None:
    ring = [packed(1, MAKER, BOX, DOSE), packed(2, MAKER, CARTON, BOX), packed(3, MAKER, BOX, CARTON)]
    assert holder_of(DOSE, [MADE, *ring, told(10, MAKER, "shipping", CARTON)], END) == ""
    assert CONTAINERS_DEEP_MAX < 100


def test_an_event_that_another_node_keeps_leaves_the_holder_unknown() -> None:
    elsewhere = Told(SHIPPED.time_ms, "89.1/event/x", "89.1", None)
    assert holder_of(DOSE, [MADE, elsewhere], END) == ""
    assert holder_of(DOSE, [MADE, elsewhere, RECEIVED], END) == CLINIC


def test_what_its_party_has_taken_back_never_happened_and_nobody_else_can_take_it_back() -> None:
    wrong = {"errorDeclaration": {"declarationTime": "2026-07-22T03:00:00Z", "reason": "did_not_occur"}}
    void = told(10, MAKER, "shipping", **wrong)
    void = Told(void.time_ms, "88.118.8/event/void", MAKER, void.event)
    assert holder_of(DOSE, [MADE, SHIPPED, void], END) == MAKER
    stranger = Told(void.time_ms, "88.118.9/event/void", CLINIC, void.event)
    assert holder_of(DOSE, [MADE, SHIPPED, stranger], END) == ""
    assert not is_hands_on(void.event)  # type: ignore[arg-type]  # it has one


def test_transforming_makes_what_comes_out() -> None:
    fields = {"inputEPCList": [uri("88.118.8/BULK")], "outputEPCList": [uri(DOSE)]}
    mixed = plain("TransformationEvent") | fields
    mixed.pop("outputQuantityList")
    assert holder_of(DOSE, [_told(0, MAKER, mixed)], END) == MAKER
    assert things_of(event_of(mixed)) == ("88.118.8/BULK",)


def test_only_who_has_it_can_handle_it_and_anybody_may_watch() -> None:
    dispensing = told(30, CLINIC, "dispensing").event
    watching = told(30, CLINIC, "sensor_reporting").event
    assert dispensing is not None
    assert watching is not None
    with pytest.raises(RefusedError) as refused:
        check_holder(dispensing, CLINIC, DOSE, [MADE])
    assert refused.value.reason is Reason.CUSTODY_ELSEWHERE
    check_holder(dispensing, CLINIC, DOSE, [MADE, SHIPPED, RECEIVED])
    check_holder(dispensing, CLINIC, DOSE, [MADE, SHIPPED])  # a receiving may be on its way
    check_holder(dispensing, CLINIC, DOSE, [])
    check_holder(watching, CLINIC, DOSE, [MADE])


def test_a_package_is_handled_with_its_children() -> None:
    event = packed(1, MAKER, BOX, DOSE).event
    assert event is not None
    assert things_of(event) == (BOX, DOSE)

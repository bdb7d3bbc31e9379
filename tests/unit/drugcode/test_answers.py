"""Answers about codes out of verified bundles and events: package, level, lot, and what is not known."""

from __future__ import annotations

from typing import Any

import pytest

from idtrace.bundle import Bundle, Verdict
from idtrace.drugcode.acts import Activation, events_of
from idtrace.drugcode.answers import LEVELS_MAX, Book, Entry, entry, parent_of
from idtrace.drugcode.states import State
from idtrace.epcis.model import Event, EventType
from idtrace.identifier import Identifier
from idtrace.product import PRODUCT_TYPE
from idtrace.provenance.history import Observed
from idtrace.record import Permission, build_values
from idtrace.verdict.facts import Answered
from tests.core_fixtures import body_and_values, bundle, denial, denied, links, salts, signed_record
from tests.unit.provenance.story import MAKER, about, at, fitted, made, make, packed, seen_by, taken_back, unpacked
from tests.unit.verdict.facts_builder import product

CODE = "81234560000000000001"
KEY, CLASS = f"{MAKER}/SN-1", Identifier.parse(f"{MAKER}/class/v1")
BOX, CARTON, OTHER = (f"{MAKER}/{name}" for name in ("BOX", "CARTON", "OTHER"))
LATER = at(10_000)


def paper(identifier: str, *values: tuple[str, bytes], **changes: Any) -> Bundle:
    parsed = Identifier.parse(identifier)
    digests, shown = build_values([(name, data, Permission.PUBLIC) for name, data in values], salts())
    body, _ = body_and_values(parsed, (), values=digests, **changes)
    return bundle(signed_record(body.payload(), shown, f"record of {parsed.prefix}"), identifier=parsed)


def book(*events: Observed) -> Book:
    return Book.of(events, LATER)


def test_a_code_tells_its_state_package_product_and_lot() -> None:
    own = paper(KEY, ("lot", b"L1"), ("expiry", b"20270131"), class_id=CLASS)
    known = product(identifier=str(CLASS))
    above = paper(str(CLASS), (PRODUCT_TYPE, known.payload()), class_id=None)
    events = book(made(0, KEY, BOX, CARTON), packed(MAKER, 10, BOX, KEY), packed(MAKER, 20, CARTON, BOX))
    found = entry(KEY, (own, above), events)
    assert found == Entry(KEY, State.ACTIVE, 1, BOX, known.name_zh, known.name_en, "L1", "2027-01-31", MAKER, at(0))
    assert (events.level(BOX), events.level(CARTON), events.level(OTHER)) == (2, 3, 1)
    assert parent_of(events.history(CARTON)) == ""


def test_a_denial_is_e_and_silence_is_not() -> None:
    parsed = Identifier.parse(KEY)
    nothing = denied(denial(parsed, zone=MAKER), links(MAKER), parsed)
    assert entry(KEY, (nothing,), book()) == Entry(KEY, State.NONE)
    assert entry(KEY, (), book(made(0, KEY))) == Entry(KEY, State.UNKNOWN)
    assert entry(KEY, (), book(), Answered(Verdict.BOGUS)).state is State.UNKNOWN


@pytest.mark.parametrize(
    ("ilmd", "lot", "expiry"),
    [
        ({"cbvmda:lotNumber": "L9", "cbvmda:itemExpirationDate": "2027-01-31T00:00:00Z"}, "L9", "2027-01-31"),
        ({"cbvmda:lotNumber": 5, "cbvmda:itemExpirationDate": 7}, "", ""),
        ({}, "", ""),
    ],
)
def test_where_the_record_says_no_lot_the_event_that_made_it_does(ilmd: dict[str, Any], lot: str, expiry: str) -> None:
    told = about(MAKER, 0, "inspecting", KEY), made(1, KEY)
    changed = {name: getattr(told[1].event, name) for name in Event.__dataclass_fields__} | {"ilmd": ilmd}
    found = entry(KEY, (paper(KEY),), book(told[0], seen_by(MAKER, Event(**changed))))
    assert (found.lot, found.expiry) == (lot, expiry)
    bare = entry(KEY, (paper(KEY),), book())
    assert (bare.state, bare.lot, bare.at_ms) == (State.ACTIVE, "", 0)


def test_children_are_what_is_in_it_now_whatever_order_the_events_come_in() -> None:
    events = [
        packed(MAKER, 10, BOX, KEY, OTHER),
        unpacked(MAKER, 20, BOX, KEY),
        fitted(MAKER, 25, BOX, f"{MAKER}/LOGGER"),
        packed(MAKER, 5, CARTON, BOX),
        make(MAKER, EventType.AGGREGATION, 26, parent=BOX, children=(KEY,)),
    ]
    assert book(*reversed(events[:4])).children(BOX) == (OTHER,)
    assert book(*events[:4], taken_back(events[1], 40)).children(BOX) == tuple(sorted((KEY, OTHER)))
    assert book(*events, unpacked(MAKER, 30, BOX)).children(BOX) == ()
    assert entry(KEY, (paper(KEY),), book(*events[:4])).parent == ""
    # Whoever sees it inside afterwards says that it is: children and parent agree.
    assert KEY in book(*events).children(BOX)
    assert entry(KEY, (paper(KEY),), book(*events)).parent == BOX


def test_packages_in_a_ring_end() -> None:
    ring = book(packed(MAKER, 1, BOX, CARTON), packed(MAKER, 2, CARTON, BOX))
    assert ring.level(BOX) == LEVELS_MAX
    assert len(ring.near(BOX)) == 2


def test_lot_and_expiry_of_an_activation_are_read_as_they_are_written() -> None:
    key = "drug.8123456/0000000000001"
    (event,) = events_of(Activation((CODE,), at(0), lot="L1", expiry="2027-01-31"), MAKER)
    found = entry(key, (paper(key),), book(seen_by(MAKER, event)))
    assert (found.lot, found.expiry, found.state) == ("L1", "2027-01-31", State.ACTIVE)

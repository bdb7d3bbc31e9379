"""What was inside what: each slot alone, contradictions, two clocks, and random packing against a naive model."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from idtrace.epcis.model import Action
from idtrace.provenance.assemble import history
from idtrace.provenance.containment import Slot, stays, vehicles
from idtrace.provenance.history import Clash, Observed
from idtrace.provenance.seen import seen
from tests.unit.provenance.story import (
    BOX,
    CARRIER,
    CARTON,
    DOSE,
    MAKER,
    MINUTE,
    T0,
    TRUCK,
    at,
    fitted,
    made,
    packed,
    unpacked,
)


def minutes(ms: int | None) -> float | None:
    return None if ms is None else (ms - T0) / MINUTE


def read(*events: Observed, child: str = DOSE) -> tuple[list[tuple[str, str, float | None, float | None]], list[str]]:
    known = sorted((seen(one) for one in events), key=lambda one: one.order)
    found = stays(child, known, vehicles(known))
    told = [(slot.name, one.container, minutes(one.start_ms), minutes(one.end_ms)) for slot, one in found.insides]
    return told, [one.kind for one in found.contradictions]


def test_packing_begins_a_stay_and_unpacking_ends_it_with_both_as_evidence() -> None:
    pack, unpack = packed(MAKER, 1, BOX, DOSE), unpacked(MAKER, 5, BOX, DOSE)
    found = stays(DOSE, [seen(pack), seen(unpack)], frozenset())
    [(slot, inside)] = found.insides
    assert slot is Slot.PACKAGE
    assert (inside.child, inside.container, inside.start_ms, inside.end_ms) == (DOSE, BOX, at(1), at(5))
    assert inside.evidence == (pack.identifier, unpack.identifier)


def test_unpacking_without_children_takes_all_of_them_out_of_that_parent_alone() -> None:
    events = [packed(MAKER, 1, BOX, DOSE), unpacked(MAKER, 3, CARTON), unpacked(MAKER, 5, BOX)]
    assert read(*events) == ([("PACKAGE", BOX, 1, 5)], [])


def test_to_be_in_a_package_in_a_vehicle_and_fitted_to_something_at_once_is_no_contradiction() -> None:
    events = [
        packed(MAKER, 1, BOX, DOSE),
        packed(CARRIER, 2, TRUCK, DOSE, step="loading"),
        fitted(MAKER, 3, CARTON, DOSE),
    ]
    assert read(*events) == ([("PACKAGE", BOX, 1, None), ("VEHICLE", TRUCK, 2, None), ("FITTED", CARTON, 3, None)], [])


def test_packed_into_a_second_package_is_two_parents_and_the_last_word_counts() -> None:
    events = [packed(MAKER, 1, BOX, DOSE), packed(MAKER, 30, CARTON, DOSE)]
    assert read(*events) == ([("PACKAGE", BOX, 1, 30), ("PACKAGE", CARTON, 30, None)], [Clash.TWO_PARENTS])


def test_an_unpacking_that_is_late_by_the_clock_tolerance_is_none_and_one_beyond_is() -> None:
    late = [packed(MAKER, 1, BOX, DOSE), packed(MAKER, 30, CARTON, DOSE), unpacked(MAKER, 40, BOX, DOSE)]
    assert read(*late) == ([("PACKAGE", BOX, 1, 30), ("PACKAGE", CARTON, 30, None)], [])
    later = [*late[:2], unpacked(MAKER, 40.001, BOX, DOSE)]
    assert read(*later)[1] == [Clash.TWO_PARENTS, Clash.NOT_INSIDE]
    other = [*late[:2], unpacked(MAKER, 35, f"{MAKER}/BOX-9", DOSE)]
    assert read(*other)[1] == [Clash.TWO_PARENTS, Clash.NOT_INSIDE]


def test_unpacked_from_where_it_was_not_is_a_contradiction_and_changes_nothing() -> None:
    events = [packed(MAKER, 1, BOX, DOSE), unpacked(MAKER, 5, CARTON, DOSE)]
    assert read(*events) == ([("PACKAGE", BOX, 1, None)], [Clash.NOT_INSIDE])
    assert read(unpacked(MAKER, 5, CARTON, DOSE)) == ([], [Clash.NOT_INSIDE])


def test_the_same_said_twice_is_no_contradiction() -> None:
    events = [
        packed(MAKER, 1, BOX, DOSE),
        packed(MAKER, 2, BOX, DOSE, step="storing"),
        unpacked(MAKER, 5, BOX, DOSE),
        unpacked(MAKER, 7, BOX, DOSE),
    ]
    assert read(*events) == ([("PACKAGE", BOX, 1, 5)], [])


def test_a_thing_packed_into_itself_is_a_cycle_directly_and_by_way_of_another() -> None:
    assert read(packed(MAKER, 1, DOSE, DOSE)) == ([], [Clash.CYCLE])
    events = [made(0, DOSE), packed(MAKER, 1, BOX, DOSE), packed(MAKER, 2, DOSE, BOX)]
    found = history(DOSE, events, now_ms=at(10), parties={})
    assert [one.kind for one in found.contradictions] == [Clash.CYCLE]
    assert [one.container for one in found.insides] == [BOX, DOSE]


def test_events_that_group_nothing_and_groupings_without_a_parent_are_passed_over() -> None:
    nameless = unpacked(MAKER, 5, "", DOSE)
    assert read(made(0, DOSE), nameless) == ([], [])


THINGS = [f"{MAKER}/T-{number}" for number in range(4)]
PARENTS = [f"{MAKER}/P-{number}" for number in range(3)]
MOVES = st.lists(
    st.tuples(
        st.sampled_from([Action.ADD, Action.DELETE]),
        st.sampled_from(PARENTS),
        st.lists(st.sampled_from(THINGS), max_size=3, unique=True),
    ),
    max_size=25,
)


@given(MOVES, st.randoms(use_true_random=False))
def test_random_packing_agrees_with_a_table_that_is_kept_by_hand(moves: Any, shuffler: Any) -> None:
    # An hour between two events, so that no clock tolerance plays a part.
    inside: dict[str, str] = {}
    ranges: dict[str, list[tuple[str, float, float | None]]] = {thing: [] for thing in THINGS}

    def leave(thing: str, minute: int) -> None:
        parent = inside.pop(thing)
        container, start, _ = ranges[thing][-1]
        assert container == parent
        ranges[thing][-1] = (container, start, minute)

    events = []
    for number, (action, parent, children) in enumerate(moves):
        minute = 60 * number
        if action is Action.ADD:
            events.append(packed(MAKER, minute, parent, *children))
            for thing in children:
                if inside.get(thing) == parent:
                    continue
                if thing in inside:
                    leave(thing, minute)
                inside[thing] = parent
                ranges[thing].append((parent, minute, None))
        else:
            events.append(unpacked(MAKER, minute, parent, *children))
            for thing in children or THINGS:
                if inside.get(thing) == parent:
                    leave(thing, minute)
    shuffler.shuffle(events)
    for thing in THINGS:
        found = history(thing, events, now_ms=at(10_000), parties={})
        told = [(one.container, minutes(one.start_ms), minutes(one.end_ms)) for one in found.insides]
        assert told == ranges[thing]

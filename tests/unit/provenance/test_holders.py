"""Who holds what is recalled: found by packages and not by doses, whole where it can be, and open about where not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from idtrace.epcis.model import Action, Event, EventType, Typed
from idtrace.provenance.gather import AskPointers, EventsFetched, FetchEvents, Pointer, PointersRead, pointers_of
from idtrace.provenance.held import Row
from idtrace.provenance.history import Gap, GapKind, Observed
from idtrace.provenance.holders import AskClasses, ClassesRead, Found, HolderLimits, Search, acknowledges
from idtrace.recall import Recall, Scope, ScopeKind
from tests.unit.provenance.story import (
    CARRIER,
    CENTRE,
    CLINIC,
    MAKER,
    STORE,
    T0,
    TRUCK,
    about,
    at,
    make,
    packed,
    received,
    seen_by,
    shipped,
    taken_back,
    unpacked,
    uri,
)

CLASS = f"{MAKER}/class/v1"
LOT = Scope(ScopeKind.LOT, CLASS, "L1")
ILMD = {"cbvmda:lotNumber": "L1"}


def recall(scope: Scope = LOT, zone: str = MAKER, name: str = "R-1") -> Recall:
    return Recall(zone, name, scope, 1, "glass", "玻璃", T0 // 1000)


def made(minutes: float, *doses: str, by: str = MAKER, ilmd: Mapping[str, Any] | None = None) -> Observed:
    return about(by, minutes, "commissioning", *doses, action=Action.ADD, ilmd=ILMD if ilmd is None else ilmd)


def dose(number: int) -> str:
    return f"{MAKER}/SN-{number:06}"


def held(party: str, minutes: float, recall_name: str = "R-1", **changes: Any) -> Observed:
    fields: dict[str, Any] = {"disposition": "recalled", "extensions": {"idtrace:recall": recall_name}} | changes
    transaction = (Typed("", uri(f"{MAKER}/recalls")),)
    return about(party, minutes, "holding", f"{party}/X", biz_transactions=transaction, **fields)


@dataclass
class World:
    """Pointers and events of all nodes in memory, and how often each was read."""

    told: Iterable[Observed]
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    limits: HolderLimits | None = None
    makers: tuple[str, ...] = ()
    asked: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)

    def find(self, of: Recall) -> Found:
        events = {one.identifier: one for one in self.told}
        pointers: dict[str, list[Pointer]] = {}
        for pointer in pointers_of(tuple(events.values())):
            pointers.setdefault(pointer.subject, []).append(pointer)
        search = Search(of, makers=self.makers, now_ms=at(10_000), limits=self.limits)
        effect = search.begin()
        while not isinstance(effect, Found):
            match effect:
                case AskPointers(questions):
                    self.asked += [one.subject for one in questions]
                    found = [each for one in questions for each in pointers.get(one.subject, ())]
                    effect = search.receive(PointersRead(tuple(found)))
                case FetchEvents(identifiers):
                    self.fetched += identifiers
                    effect = search.receive(EventsFetched(tuple(events[one] for one in identifiers)))
                case AskClasses(things):
                    self.shown += things
                    classes = {one: self.classes.get(one, (CLASS,)) for one in things if one != "unknown"}
                    effect = search.receive(ClassesRead(classes))
        return found_once(self, effect)


def found_once(world: World, found: Found) -> Found:
    assert len(set(world.asked)) == len(world.asked), "nobody is asked twice"
    assert len(set(world.fetched)) == len(world.fetched), "nothing is fetched twice"
    return found


def row(found: Found, holder: str) -> Row:
    (one,) = [one for one in found.rows if one.holder == holder]
    return one


def places(found: Found) -> list[tuple[str, int, int]]:
    return [(one.holder, one.packages, one.doses) for one in found.rows]


HOLDERS = [f"88.118.{30 + number}" for number in range(7)]


def a_hundred_thousand() -> list[Observed]:
    """100,000 doses in 1,000 cartons on 20 pallets, which went to seven holders."""
    told = [made(n, *(dose(n * 1_000 + i) for i in range(1_000))) for n in range(100)]
    told += [
        packed(MAKER, 200, f"{MAKER}/C-{carton}", *(dose(carton * 100 + i) for i in range(100)))
        for carton in range(1_000)
    ]
    for pallet in range(20):
        name, to = f"{MAKER}/P-{pallet}", HOLDERS[pallet % 7]
        told.append(packed(MAKER, 300, name, *(f"{MAKER}/C-{pallet * 50 + i}" for i in range(50))))
        told.append(shipped(MAKER, 400, to, name))
        told.append(received(to, 500 + pallet, MAKER, name, place=f"{to}/ROOM"))
    return told


def test_a_hundred_thousand_doses_are_found_without_asking_after_each() -> None:
    world = World(a_hundred_thousand())
    found = world.find(recall())
    assert found.doses == sum(one.doses for one in found.rows) == 100_000
    assert found.gaps == ()
    assert {one.holder: (one.packages, one.doses, one.place) for one in found.rows} == {
        holder: ((3 if n < 6 else 2), (15_000 if n < 6 else 10_000), f"{holder}/ROOM")
        for n, holder in enumerate(HOLDERS)
    }
    assert [one.since_ms for one in found.rows][:1] == [at(500)]
    # One question a carton and a pallet, two about the lot, and a few doses that lead to the pallets.
    assert len(world.asked) <= 1_000 + 20 + 2 + 100
    assert len([one for one in world.asked if "/SN-" in one]) <= 100
    assert len(world.fetched) == 100 + 1_000 + 20 * 3
    assert len(world.shown) == 100


def test_of_a_pallet_that_was_opened_each_carton_is_where_it_went() -> None:
    told = [
        made(0, *(dose(n) for n in range(6))),
        *(packed(MAKER, 1, f"{MAKER}/C-{n}", dose(2 * n), dose(2 * n + 1)) for n in range(3)),
        packed(MAKER, 2, f"{MAKER}/P", *(f"{MAKER}/C-{n}" for n in range(3))),
        shipped(MAKER, 3, CENTRE, f"{MAKER}/P"),
        received(CENTRE, 4, MAKER, f"{MAKER}/P", place=STORE),
        unpacked(CENTRE, 5, f"{MAKER}/P", f"{MAKER}/C-1"),
        shipped(CENTRE, 6, CLINIC, f"{MAKER}/C-1"),
        received(CLINIC, 7, CENTRE, f"{MAKER}/C-1", place=f"{CLINIC}/FRIDGE"),
        unpacked(CLINIC, 8, f"{MAKER}/C-1"),
        about(CLINIC, 9, "dispensing", dose(2), disposition="dispensed"),
    ]
    found = World(told).find(recall())
    assert places(found) == [(CENTRE, 1, 4), (CLINIC, 0, 1)]
    assert row(found, CLINIC).given == 1
    assert row(found, CLINIC).since_ms == at(7)
    assert (row(found, CENTRE).place, row(found, CLINIC).place) == (STORE, f"{CLINIC}/FRIDGE")
    assert row(found, CENTRE).evidence != ()


def test_what_was_taken_out_of_its_carton_is_asked_after_one_by_one() -> None:
    """Far more doses than are sampled: most of those that were given are found only because cartons were opened."""
    doses = [dose(n) for n in range(400)]
    told = [made(0, *doses), *(packed(MAKER, 1, f"{MAKER}/C-{n}", *doses[100 * n : 100 * n + 100]) for n in range(4))]
    told += [unpacked(MAKER, 2, f"{MAKER}/C-0"), unpacked(MAKER, 2, f"{MAKER}/C-1", *doses[100:150])]
    told += [about(MAKER, 3, "dispensing", one) for one in (*doses[:100:2], *doses[100:150:2])]
    world = World(told)
    found = world.find(recall())
    assert [(one.packages, one.doses, one.given) for one in found.rows] == [(3, 325, 75)]
    assert found.gaps == ()
    assert len([one for one in world.asked if "/SN-" in one]) <= 150 + 2 * 16


def test_what_is_under_way_is_with_who_shipped_it_or_the_carrier_that_took_it_over() -> None:
    told = [
        made(0, dose(1), dose(2), dose(3)),
        packed(MAKER, 1, f"{MAKER}/C-1", dose(1)),
        packed(MAKER, 1, f"{MAKER}/C-2", dose(2)),
        shipped(MAKER, 3, CENTRE, f"{MAKER}/C-1"),
        shipped(MAKER, 3, CLINIC, f"{MAKER}/C-2"),
        packed(CARRIER, 4, TRUCK, f"{MAKER}/C-2", step="loading"),
        about(CARRIER, 5, "departing", f"{MAKER}/C-2"),
    ]
    world = World(told)
    found = world.find(recall())
    assert [(one.holder, one.towards, one.packages, one.doses) for one in found.rows] == [
        (CARRIER, CLINIC, 1, 1), (MAKER, "", 0, 1), (MAKER, CENTRE, 1, 1),
    ]  # fmt: skip
    assert row(found, CARRIER).place == TRUCK
    assert TRUCK not in world.asked, "a vehicle holds what is not ours, too"


def test_boxes_in_cartons_are_found_on_the_way_down() -> None:
    told = [made(0, *(dose(n) for n in range(8)))]
    told += [packed(MAKER, 1, f"{MAKER}/B-{n}", dose(2 * n), dose(2 * n + 1)) for n in range(4)]
    told += [packed(MAKER, 2, f"{MAKER}/C-{n}", f"{MAKER}/B-{2 * n}", f"{MAKER}/B-{2 * n + 1}") for n in range(2)]
    told += [packed(MAKER, 3, f"{MAKER}/P", f"{MAKER}/C-0", f"{MAKER}/C-1", f"{MAKER}/FOREIGN")]
    foreign = [f"{MAKER}/OTHER-{n}" for n in range(50)]
    told += [packed(MAKER, 0.5, f"{MAKER}/X", foreign[0]), unpacked(MAKER, 0.6, f"{MAKER}/X")]
    told += [packed(MAKER, 1, f"{MAKER}/FOREIGN", *foreign), made(0, *foreign, ilmd={"cbvmda:lotNumber": "L2"})]
    world = World(told, limits=HolderLimits(alone=1))
    found = world.find(recall())
    assert places(found) == [(MAKER, 1, 8)]
    assert found.gaps == ()
    assert len([one for one in world.asked if "/OTHER-" in one]) == 1, "one item shows what is in a foreign carton"


def test_a_lot_of_another_product_and_what_strangers_say_is_not_counted() -> None:
    other = [made(0, dose(7), dose(8)), made(1, f"{CLINIC}/X", by=CLINIC)]
    told = [made(2, dose(1)), *other]
    of_stranger = replace(other[1].event, epcs=(uri(dose(9)),))
    told.append(seen_by(CLINIC, of_stranger))
    world = World(told, classes={dose(7): (f"{MAKER}/class/v2",)})
    found = world.find(recall())
    assert (found.doses, places(found)) == (1, [(MAKER, 0, 1)])
    assert [(gap.kind, CLINIC in gap.detail) for gap in found.gaps] == [(GapKind.MISFIT, True)]
    # Its zone's parent may speak, and so may the maker that the class names.
    assert World(told, makers=(CLINIC,)).find(recall()).doses == 5
    assert World(told).find(recall(zone="88")).doses == 4


def test_what_product_it_is_may_stay_unknown_and_is_told() -> None:
    unknown = seen_by(
        MAKER, Event(EventType.OBJECT, Action.ADD, at(0), 480, epcs=("unknown",), biz_step="commissioning", ilmd=ILMD)
    )
    search = Search(recall(), now_ms=at(10))
    search.begin()
    search.receive(PointersRead((Pointer(f"{MAKER}/lot/L1", at(0), unknown.identifier, "class"),)))
    assert search.receive(EventsFetched((unknown,))) == AskClasses(("unknown",))
    asked = search.receive(ClassesRead({}, (Gap(GapKind.UNREACHABLE, "unknown", "silence"),)))
    assert isinstance(asked, AskPointers)
    found = search.receive(PointersRead(()))
    assert isinstance(found, Found)
    assert [gap.kind for gap in found.gaps] == [GapKind.UNREACHABLE, GapKind.UNREACHABLE]
    assert found.doses == 1


def test_a_dose_whose_record_names_no_product_counts_and_says_so() -> None:
    found = World([made(0, dose(1))], classes={dose(1): ()}).find(recall())
    assert (found.doses, [(gap.kind, gap.subject) for gap in found.gaps]) == (1, [(GapKind.MISFIT, dose(1))])


def test_a_making_that_was_taken_back_makes_nothing() -> None:
    wrong = made(1, dose(2))
    found = World([made(0, dose(1)), wrong, taken_back(wrong, 5)]).find(recall())
    assert found.doses == 1


def test_made_by_transformation_and_gs1_lots_are_found_by_their_keys() -> None:
    gs1 = ["urn:epc:id:sgtin:9506000.013435.S1", "urn:epc:id:sgtin:9506000.013435.S2"]
    filled = seen_by(
        MAKER,
        Event(EventType.TRANSFORMATION, None, at(0), 480, outputs=tuple(gs1), biz_step="commissioning", ilmd=ILMD),
    )
    scope = replace(LOT, product="gs1.01.09506000134352/class")
    world = World([filled], classes={"gs1.01.09506000134352/21.S1": (scope.product,)})
    found = world.find(recall(scope))
    assert "gs1.01.09506000134352/10.L1" in world.asked
    assert places(found) == [(MAKER, 0, 2)]


def test_items_and_ranges_are_asked_after_one_by_one() -> None:
    told = [made(0, *(dose(n) for n in range(20))), packed(MAKER, 1, f"{MAKER}/C", dose(3), dose(4))]
    found = World(told).find(recall(Scope(ScopeKind.ITEMS, items=(dose(3), dose(5)))))
    assert places(found) == [(MAKER, 1, 2)]
    ranged = Scope(ScopeKind.RANGE, first=dose(3), last=dose(12))
    assert World(told).find(recall(ranged)).doses == 10
    assert World(told, limits=HolderLimits(alone=10)).find(recall(ranged)).gaps == ()


@pytest.mark.parametrize(
    ("first", "last"), [(f"{MAKER}/S9", f"{MAKER}/S10"), (f"{MAKER}/SA", f"{MAKER}/SB"), (dose(0), dose(10))]
)
def test_a_range_that_is_not_searched_is_said_to_be(first: str, last: str) -> None:
    found = World([], limits=HolderLimits(alone=10)).find(recall(Scope(ScopeKind.RANGE, first=first, last=last)))
    assert (found.doses, [gap.kind for gap in found.gaps]) == (0, [GapKind.BOUND])


def test_a_whole_product_is_not_searched_and_says_so() -> None:
    found = World([]).find(recall(Scope(ScopeKind.PRODUCT, CLASS)))
    assert [(gap.kind, gap.subject) for gap in found.gaps] == [(GapKind.BOUND, CLASS)]


def test_what_was_in_a_package_in_its_time_is_found_where_it_is_now() -> None:
    told = [
        packed(MAKER, 1, f"{MAKER}/C-1", dose(1), dose(2)),
        packed(MAKER, 1, f"{MAKER}/C-2", dose(3), dose(4)),
        packed(MAKER, 2, f"{MAKER}/P", f"{MAKER}/C-1", f"{MAKER}/C-2", f"{MAKER}/C-3"),
        unpacked(MAKER, 10, f"{MAKER}/P", f"{MAKER}/C-1"),
        shipped(MAKER, 11, CENTRE, f"{MAKER}/C-1"),
        received(CENTRE, 12, MAKER, f"{MAKER}/C-1", place=STORE),
        unpacked(MAKER, 20, f"{MAKER}/P"),
        packed(MAKER, 30, f"{MAKER}/P", f"{MAKER}/C-9"),
    ]

    def inside(since: float, until: float = 0) -> list[tuple[str, int, int]]:
        scope = Scope(
            ScopeKind.PACKAGE,
            package=f"{MAKER}/P",
            since_s=at(since) // 1000,
            until_s=at(until) // 1000 if until else 0,
        )
        return places(World(told).find(recall(scope)))

    # C-3 tells nothing of what is in it, and C-9 is none that is known: each counts as one.
    assert inside(5, 25) == [(MAKER, 1, 3), (CENTRE, 1, 2)]
    assert sum(doses for _, _, doses in inside(5, 25)) == 5
    assert sum(doses for _, _, doses in inside(15, 25)) == 3
    assert sum(doses for _, _, doses in inside(25)) == 1
    assert inside(0, 1.5) == []


def test_who_has_acknowledged_is_told_with_the_time_of_the_first_word() -> None:
    told = [
        made(0, dose(1)), packed(MAKER, 1, f"{MAKER}/C", dose(1)), shipped(MAKER, 2, CENTRE, f"{MAKER}/C"),
        received(CENTRE, 3, MAKER, f"{MAKER}/C"), held(CENTRE, 30), held(CENTRE, 20), held(CENTRE, 10, "R-2"),
    ]  # fmt: skip
    assert row(World(told).find(recall()), CENTRE).acknowledged_ms == at(20)
    assert row(World(told[:4]).find(recall()), CENTRE).acknowledged_ms is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True), ({"disposition": "in_progress"}, False), ({"action": Action.ADD}, False),
        ({"extensions": {"https://idtrace.example/ns#recall": "R-1"}}, True),
        ({"extensions": {"https://idtrace.example/recall": "R-1"}}, True),
        ({"extensions": {"idtrace:recall": "R-10"}}, False), ({"extensions": {"x:recalled": "R-1"}}, False),
        ({"extensions": {}}, False),
    ],
)  # fmt: skip
def test_an_acknowledgement_is_held_as_recalled_by_its_name(changes: dict[str, Any], expected: bool) -> None:
    assert acknowledges(held(CENTRE, 1, **changes).event, "R-1") is expected
    assert not acknowledges(about(CENTRE, 1, "storing", dose(1)).event, "R-1")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"events": 1}, "more than 1 events"),
        ({"things": 2}, "more than 2 packages"),
        ({"rounds": 3}, "after 3 rounds"),
        ({"alone": 2}, "3 doses in no package"),
    ],
)
def test_what_a_limit_cuts_off_is_a_gap(limits: dict[str, int], words: str) -> None:
    told = [made(0, *(dose(n) for n in range(5))), made(1, dose(9)), packed(MAKER, 2, f"{MAKER}/C", dose(9))]
    found = World(told[:1] if "alone" in limits else told, limits=HolderLimits(**limits)).find(recall())
    assert [gap.kind for gap in found.gaps] == [GapKind.BOUND]
    assert words in found.gaps[0].detail


def test_words_that_make_nothing_or_only_happened_beside_it_lead_nowhere() -> None:
    nothing = make(MAKER, EventType.TRANSFORMATION, 0, inputs=(dose(8),), ilmd=ILMD)
    beside = about(MAKER, 3, "storing", f"{MAKER}/OTHER", biz_location=dose(1))
    world = World([made(1, dose(1)), nothing, beside])
    search = Search(recall(), now_ms=at(10))
    search.begin()
    fetch = search.receive(
        PointersRead(
            tuple(
                Pointer(f"{MAKER}/lot/L1", one.event.time_ms, one.identifier, role)
                for one, role in ((nothing, "class"), (beside, "biz_location"))
            )
        )
    )
    assert fetch == FetchEvents((nothing.identifier,))
    found = search.receive(EventsFetched((nothing,)))
    assert isinstance(found, Found)
    assert (found.doses, found.gaps) == (0, ())
    assert world.find(recall()).doses == 1
    assert beside.identifier not in world.fetched


def test_it_may_be_stopped_with_what_is_known() -> None:
    search = Search(recall(), now_ms=at(10))
    search.begin()
    found = search.stop("no time is left")
    assert (found.rows, [gap.detail for gap in found.gaps]) == ((), ["no time is left"])


def test_a_dose_of_which_nothing_is_known_is_with_nobody_and_one_destroyed_with_its_box_is_no_more() -> None:
    unknown = World([]).find(recall(Scope(ScopeKind.ITEMS, items=(dose(1),))))
    assert unknown.rows == (Row("", doses=1),)
    told = [
        made(0, dose(1), dose(2)), packed(MAKER, 1, f"{MAKER}/C", dose(1), dose(2)),
        about(MAKER, 5, "destroying", f"{MAKER}/C", action=Action.DELETE),
    ]  # fmt: skip
    assert [(one.doses, one.given) for one in World(told).find(recall()).rows] == [(0, 2)]
    deleted = [made(0, dose(1)), about(MAKER, 5, "decommissioning", dose(1), action=Action.DELETE)]
    assert [(one.doses, one.given) for one in World(deleted).find(recall()).rows] == [(0, 1)]


def test_packages_that_are_said_to_be_in_each_other_end() -> None:
    told = [made(0, dose(1)), packed(MAKER, 1, f"{MAKER}/A", dose(1), f"{MAKER}/B")]
    told += [packed(MAKER, 2, f"{MAKER}/B", f"{MAKER}/A"), make(MAKER, EventType.ASSOCIATION, 3, parent=dose(1))]
    assert World(told).find(recall()).doses == 1
    scope = Scope(ScopeKind.PACKAGE, package=f"{MAKER}/A")
    assert World(told).find(recall(scope)).doses == 1

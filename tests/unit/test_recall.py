"""What a recall reaches, at each of its borders, and how strictly it is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.canonical import encode
from idtrace.errors import InputError
from idtrace.identifier import Prefix
from idtrace.recall import (
    ITEMS_MAX,
    Coverage,
    Recall,
    Scope,
    ScopeKind,
    Thing,
    covers,
    format_recall,
    in_range,
    parse_recall,
    recalls_identifier,
)

YES, NO, UNKNOWN = Coverage.YES, Coverage.NO, Coverage.UNKNOWN
CLASS = "88.118.8/class/v1"
THING = Thing("88.118.8/SN-7", CLASS, "L1", ("88.118.8/BULK-1",), (("88.118.8/BOX", 1_000, 5_000),))
SCOPES = (
    Scope(ScopeKind.PRODUCT, CLASS),
    Scope(ScopeKind.LOT, CLASS, "L1"),
    Scope(ScopeKind.RANGE, first="88.118.8/SN-1", last="88.118.8/SN-10"),
    Scope(ScopeKind.PACKAGE, package="88.118.8/BOX", since_s=1, until_s=9),
    Scope(ScopeKind.ITEMS, items=("88.118.8/SN-7",)),
)


def recall(scope: Scope, zone: str = "88.118.8") -> Recall:
    return Recall(zone, "R-1", scope, 1, "glass", "玻璃", 100, 0, "tel:1", f"{zone}/recalls", 3)


@pytest.mark.parametrize("scope", SCOPES)
def test_every_scope_reaches_its_thing_and_comes_back_the_same(scope: Scope) -> None:
    assert covers(recall(scope), THING) is YES
    assert covers(recall(scope, "88.118"), THING) is YES
    assert covers(recall(scope, ""), THING) is YES
    assert parse_recall(format_recall(recall(scope)), zone="88.118.8", version=3) == recall(scope)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("zone", ["88.118.80", "88.118.8.1", "89", "8"])
def test_a_zone_recalls_nothing_of_others(scope: Scope, zone: str) -> None:
    assert covers(recall(scope, zone), THING) is NO


def test_what_is_unknown_of_a_thing_is_unknown_of_its_recall() -> None:
    product, lot = recall(SCOPES[0]), recall(SCOPES[1])
    assert covers(product, replace(THING, product="")) is UNKNOWN
    assert covers(lot, replace(THING, product="")) is UNKNOWN
    assert covers(lot, replace(THING, lot="")) is UNKNOWN
    assert covers(product, replace(THING, lot="")) is YES
    assert covers(lot, replace(THING, lot="L2")) is NO
    assert covers(lot, replace(THING, product="88.118.8/class/v2", lot="")) is NO


def test_what_was_made_from_a_recalled_thing_is_recalled() -> None:
    assert covers(recall(Scope(ScopeKind.ITEMS, items=("88.118.8/BULK-1",))), THING) is YES
    assert covers(recall(Scope(ScopeKind.RANGE, first="88.118.8/BULK-1", last="88.118.8/BULK-1")), THING) is YES
    assert covers(recall(Scope(ScopeKind.ITEMS, items=("88.118.8/SN-70",))), THING) is NO


GS1 = replace(THING, identifier="gs1.01.09506000134352/21.S1", sources=(), inside=())


@pytest.mark.parametrize("identifier", [GS1.identifier, "drug.8123456/0000000000001"])
@pytest.mark.parametrize("zone", ["88.118.8", "88.118", ""])
def test_the_zone_of_its_class_recalls_an_item_wherever_its_identifier_lies(identifier: str, zone: str) -> None:
    thing = replace(GS1, identifier=identifier)
    for scope in (*SCOPES[:2], Scope(ScopeKind.ITEMS, items=(identifier,)), range_of(identifier)):
        assert covers(recall(scope, zone), thing) is YES, scope
    assert covers(recall(SCOPES[1], zone), replace(thing, lot="L2")) is NO
    assert covers(recall(SCOPES[1], zone), replace(thing, lot="")) is UNKNOWN


def range_of(identifier: str) -> Scope:
    return Scope(ScopeKind.RANGE, first=identifier, last=identifier)


@pytest.mark.parametrize("zone", ["88.118.9", "88.118.80", "88.118.8.1", "gs1.01.09506000134353", "drug"])
def test_nobody_recalls_a_lot_or_an_item_of_somebody_else(zone: str) -> None:
    for scope in (*SCOPES[:2], Scope(ScopeKind.ITEMS, items=(GS1.identifier,)), range_of(GS1.identifier)):
        assert covers(recall(scope, zone), GS1) is NO, scope
        assert covers(recall(scope, zone), replace(GS1, product="")) is NO, scope


def test_who_owns_the_number_and_not_the_class_has_a_say_too() -> None:
    for zone in ("gs1.01.09506000134352", "gs1"):
        assert covers(recall(SCOPES[1], zone), GS1) is YES
        assert covers(recall(SCOPES[1], zone), replace(GS1, product="")) is UNKNOWN


def test_the_maker_that_its_class_names_recalls_it_by_the_class_of_the_number() -> None:
    thing = replace(GS1, product="gs1.01.09506000134352/class/v1", maker="88.118.8")
    lot = Scope(ScopeKind.LOT, thing.product, "L1")
    for zone, expected in (("88.118.8", YES), ("88.118", YES), ("88.118.9", NO), ("88.118.80", NO)):
        assert covers(recall(lot, zone), thing) is expected
    assert covers(recall(lot), replace(thing, maker="")) is NO
    assert covers(recall(lot), replace(thing, lot="L2")) is NO


def test_a_recall_of_a_family_reaches_the_items_of_every_class_in_it() -> None:
    thing = replace(GS1, product="88.9/class/blend", families=(CLASS, "88/class/all"))
    assert covers(recall(SCOPES[0]), thing) is YES
    assert covers(recall(Scope(ScopeKind.PRODUCT, "88/class/all"), "88"), thing) is YES
    assert covers(recall(Scope(ScopeKind.PRODUCT, "88/class/none"), "88"), thing) is NO
    assert covers(recall(Scope(ScopeKind.PRODUCT, "88.9/class/blend"), "88.10"), thing) is NO


def test_a_recalled_lot_of_what_it_was_made_of_reaches_it() -> None:
    bulk = Thing("gs1.01.1/10.B7", CLASS, "B7")
    dose = Thing("86.1/SN-1", "86.1/class/filled", "F1", (bulk.identifier, "86.1/WATER"), origins=(bulk,))
    assert covers(recall(Scope(ScopeKind.LOT, CLASS, "B7")), dose) is YES
    assert covers(recall(Scope(ScopeKind.LOT, CLASS, "B8")), dose) is NO
    assert covers(recall(Scope(ScopeKind.LOT, CLASS, "B7"), "88.9"), dose) is NO
    assert covers(recall(Scope(ScopeKind.LOT, CLASS, "B7")), replace(dose, origins=(replace(bulk, lot=""),))) is UNKNOWN
    # By its number, too, since it is of a class of the recalling zone.
    assert covers(recall(Scope(ScopeKind.ITEMS, items=(bulk.identifier,))), dose) is YES
    assert covers(recall(Scope(ScopeKind.ITEMS, items=("86.1/WATER",))), dose) is NO


@pytest.mark.parametrize(
    ("since", "until", "end", "expected"),
    [
        (4, 0, 5_000, YES), (5, 0, 5_000, NO), (5, 0, None, YES), (0, 1, 5_000, NO), (0, 2, 5_000, YES),
        (0, 0, 5_000, YES), (9, 10, None, YES),
    ],
)  # fmt: skip
def test_a_package_is_recalled_for_a_time(since: int, until: int, end: int | None, expected: Coverage) -> None:
    thing = replace(THING, inside=(("88.118.8/OTHER", 0, None), ("88.118.8/BOX", 1_000, end)))
    scope = Scope(ScopeKind.PACKAGE, package="88.118.8/BOX", since_s=since, until_s=until)
    assert covers(recall(scope), thing) is expected


def test_a_package_is_recalled_and_a_uri_of_no_zone_for_what_is_its_own() -> None:
    scope = Scope(ScopeKind.PACKAGE, package="88.118.8/SN-7")
    assert covers(recall(scope), THING) is YES
    uri = Scope(ScopeKind.PACKAGE, package="urn:epc:id:sscc:4012345.0000000001")
    inside = replace(THING, inside=((uri.package, 0, None),))
    assert covers(recall(uri), inside) is YES  # its own, in a pallet of no zone
    assert covers(replace(recall(uri), zone="88.119"), inside) is NO


@pytest.mark.parametrize(
    ("identifier", "first", "last", "expected"),
    [
        ("a/S1", "a/S1", "a/S9", True), ("a/S9", "a/S1", "a/S9", True), ("a/S10", "a/S1", "a/S9", False),
        ("a/S0", "a/S1", "a/S9", False), ("a/S007", "a/S1", "a/S10", True), ("a/T5", "a/S1", "a/S9", False),
        ("b/S5", "a/S1", "a/S9", False), ("a/5", "a/1", "a/9", True), ("a/SB", "a/SA", "a/SC", True),
        ("a/SBB", "a/SA", "a/SC", False), ("a/SD", "a/SA", "a/SC", False), ("b/SB", "a/SA", "a/SC", False),
        ("a/1B", "a/1A", "a/1C", True), ("a/S٣", "a/S1", "a/S9", False), ("a/A1", "a/AA", "a/AZ", False),
    ],
)  # fmt: skip
def test_a_range_counts_numbers_at_the_end_or_text_of_one_length(
    identifier: str, first: str, last: str, expected: bool
) -> None:
    assert in_range(identifier, first, last) is expected


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1, 12))
def test_a_range_is_the_range_of_its_numbers_whatever_their_width(one: int, low: int, high: int, width: int) -> None:
    assert in_range(f"a/S{one:0{width}}", f"a/S{low}", f"a/S{high}") is (low <= one <= high)


def test_a_recall_stands_until_the_second_it_ends() -> None:
    ended = replace(recall(SCOPES[0]), ended_at=200)
    assert (ended.stands(199), ended.stands(200), recall(SCOPES[0]).stands(10**10)) == (True, False, True)


BODY: dict[str, Any] = {
    "recall": "R-1",
    "scope": {"kind": "lot", "product": CLASS, "lot": "L1"},
    "level": 1,
    "reason": {"en": "glass", "zh": "玻璃"},
    "issued_at": 100,
    "ended_at": 0,
    "contact": "",
}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"recall": ""}, "recall.recall"),
        ({"recall": "a\u202eb"}, "recall.recall"),
        ({"level": 0}, "recall.level"),
        ({"level": 4}, "recall.level"),
        ({"reason": {"en": "x"}}, "recall.reason.zh"),
        ({"reason": {"en": "x", "zh": "y", "fr": "z"}}, "recall.reason.'fr'"),
        ({"ended_at": 99}, "recall.ended_at"),
        ({"extra": 1}, "recall.'extra'"),
        ({"scope": {"kind": "all"}}, "recall.scope.kind"),
        ({"scope": {"kind": "product", "product": CLASS, "lot": "x"}}, "recall.scope.'lot'"),
        ({"scope": {"kind": "lot", "product": "no identifier", "lot": "x"}}, "recall.scope.product"),
        ({"scope": {"kind": "range", "first": "a/S9", "last": "a/S1"}}, "recall.scope.last"),
        ({"scope": {"kind": "range", "first": "a/S1", "last": "a/T10"}}, "recall.scope.last"),
        ({"scope": {"kind": "package", "package": "a/b", "since": 5, "until": 5}}, "recall.scope.until"),
        ({"scope": {"kind": "items", "items": []}}, "recall.scope.items"),
        ({"scope": {"kind": "items", "items": ["A/b"]}}, "recall.scope.items[0]"),
        ({"scope": {"kind": "items", "items": ["a/b"] * (ITEMS_MAX + 1)}}, "recall.scope.items"),
    ],
)
def test_a_recall_is_read_strictly(change: dict[str, Any], field: str) -> None:
    parse_recall(encode(BODY), zone="88")
    with pytest.raises(InputError) as caught:
        parse_recall(encode(BODY | change), zone="88")
    assert caught.value.field == field


def test_where_recalls_stand() -> None:
    assert str(recalls_identifier(Prefix.parse("88.118"))) == "88.118/recalls"

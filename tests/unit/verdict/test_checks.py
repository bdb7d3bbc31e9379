"""Every code at, under and over its border; the sound dose has none of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from idtrace.bundle import Verdict
from idtrace.coldchain.report import ThermalFinding, ThermalKind, ThermalReport
from idtrace.epcis import lots
from idtrace.epcis.model import Action, EventType
from idtrace.party import PartyRole
from idtrace.provenance.history import Gap, GapKind
from idtrace.recall import Recall, Scope, ScopeKind
from idtrace.record import Status
from idtrace.verdict.context import day, doses_of, ends_ms
from idtrace.verdict.facts import Answered
from idtrace.verdict.findings import Code, Use
from idtrace.verdict.judge import history_of, judge
from tests.unit.verdict.facts_builder import (
    CARRIER,
    CLASS,
    CLINIC,
    DOSE,
    DOSE_URI,
    HOUR,
    MINUTE,
    OTHER,
    POLICY,
    T0,
    Story,
    codes,
    dispensed,
    event,
    made,
    measured,
    observed,
    party,
    product,
    site,
    story,
    use,
)

NOW = T0 + 5 * HOUR


def without(told: Story, step: str) -> Story:
    told.events = [one for one in told.events if one.event.biz_step != step]
    return told


def licensed(**of: Any) -> dict[str, Any]:
    parties = dict(story().facts().parties)
    return parties | of


def test_the_sound_dose_may_be_used() -> None:
    assert codes(story()) == []
    assert use(story()) is Use.USE


# Is it genuine?


@pytest.mark.parametrize(
    ("answer", "code", "expected"),
    [
        (Answered(Verdict.ABSENT, reason="IDENTIFIER_ABSENT"), Code.NOT_REGISTERED, Use.DO_NOT_USE),
        (Answered(Verdict.BOGUS, reason="SIGNATURE_INVALID"), Code.FORGED, Use.DO_NOT_USE),
        (Answered(Verdict.UNREACHABLE, reason="NO_ANSWER"), Code.UNPROVEN, Use.HOLD),
        (Answered(Verdict.GONE, reason="IDENTIFIER_RETIRED"), Code.ENDED, Use.DO_NOT_USE),
        (Answered(Verdict.FOUND, Status.RETIRED), Code.ENDED, Use.DO_NOT_USE),
        (Answered(Verdict.FOUND, Status.SUSPENDED), Code.SUSPENDED, Use.HOLD),
        (Answered(Verdict.FOUND, Status.RECALLED), Code.RECALLED, Use.DO_NOT_USE),
    ],
)
def test_what_the_tree_says_decides_first(answer: Answered, code: Code, expected: Use) -> None:
    told = story(answer=answer)
    assert code in codes(told)
    assert use(told) is expected


def test_what_has_no_record_is_not_accused_of_what_a_record_would_say() -> None:
    told = Story(events=[], changes={"answer": Answered(Verdict.ABSENT), "product": None, "lot": "", "expiry": ""})
    assert codes(told) == [Code.NOT_REGISTERED]


def test_a_dose_that_nobody_has_made_is_held() -> None:
    assert codes(without(story(), "commissioning")) == [Code.NOT_COMMISSIONED]


def test_only_its_owner_or_its_products_maker_makes_it() -> None:
    foreign = Story()
    foreign.events[0] = made(by=OTHER)
    assert foreign.has(Code.COMMISSIONED_BY_STRANGER)
    foreign.changes = {"product": product(maker=OTHER)}
    assert foreign.has(Code.COMMISSIONED_BY_STRANGER), "the maker is licensed as a clinic"
    foreign.changes = {"product": product(maker=OTHER), "parties": licensed(**{OTHER: party(OTHER, PartyRole.MAKER)})}
    assert not foreign.has(Code.COMMISSIONED_BY_STRANGER)
    # Whose product it is nobody can say: a licensed maker is not accused, and anybody else is.
    foreign.changes = {"product": None}
    assert foreign.has(Code.COMMISSIONED_BY_STRANGER)
    foreign.changes = {"product": None, "parties": licensed(**{OTHER: party(OTHER, PartyRole.MAKER)})}
    assert not foreign.has(Code.COMMISSIONED_BY_STRANGER)
    foreign.changes = {"product": None, "parties": {}}
    assert not foreign.has(Code.COMMISSIONED_BY_STRANGER)


def test_an_owner_makes_what_lies_below_its_zone_and_not_what_only_looks_so() -> None:
    below = Story(changes={"subject": "88.118.8.2/SN-1"})
    below.events[0] = made(epcs=("idtrace:88.118.8.2/SN-1",))
    assert not below.has(Code.COMMISSIONED_BY_STRANGER)
    beside = Story(changes={"subject": "88.118.80/SN-1", "product": product(maker=OTHER)})
    beside.events[0] = made(epcs=("idtrace:88.118.80/SN-1",))
    assert beside.has(Code.COMMISSIONED_BY_STRANGER)


def test_made_twice_is_a_copy() -> None:
    assert story(made(T0 + MINUTE)).has(Code.COMMISSIONED_BY_STRANGER)


def test_made_by_transformation_counts_as_made() -> None:
    filled = Story()
    filled.events[0] = event(
        T0, "commissioning", type_=EventType.TRANSFORMATION, action=None, epcs=(), inputs=("urn:bulk:1",),
        outputs=(DOSE_URI,),
    )  # fmt: skip
    assert not filled.has(Code.NOT_COMMISSIONED)
    filled.events[0] = event(
        T0, "commissioning", type_=EventType.TRANSFORMATION, action=None, epcs=(), inputs=(DOSE_URI,),
        outputs=("urn:other:1",),
    )  # fmt: skip
    assert filled.has(Code.NOT_COMMISSIONED)


def test_without_a_product_it_is_held() -> None:
    assert codes(story(product=None)) == [Code.PRODUCT_UNKNOWN]


@pytest.mark.parametrize(
    ("ilmd", "found"),
    [
        ({"cbvmda:lotNumber": "L1", "cbvmda:itemExpirationDate": "2027-05-31"}, False),
        ({"https://ref.gs1.org/cbv/mda/lotNumber": "L1", "cbvmda:itemExpirationDate": "2027-05-31T00:00:00Z"}, False),
        ({"cbvmda:lotNumber": "L2"}, True),
        ({"cbvmda:itemExpirationDate": "2027-06-01"}, True),
        ({"cbvmda:itemExpirationDate": "some day"}, False),
    ],
)
def test_record_and_making_agree_on_lot_and_expiry(ilmd: dict[str, str], found: bool) -> None:
    told = Story()
    told.events[0] = made(ilmd=ilmd)
    assert told.has(Code.LOT_MISMATCH) is found


def test_lot_and_expiry_come_from_the_making_where_the_record_says_nothing() -> None:
    told = Story(changes={"lot": "", "expiry": "", "recalls": (recall(Scope(ScopeKind.LOT, CLASS, "L1")),)})
    told.events[0] = made(ilmd={"cbvmda:lotNumber": "L1", "cbvmda:itemExpirationDate": "270531"})
    assert codes(told) == [Code.RECALLED]


# May it still be used?


def recall(scope: Scope, **changes: Any) -> Recall:
    made = Recall("88.118.8", "R-1", scope, 1, "glass", "玻璃", T0 // 1000, evidence="88.118.8/recalls", version=1)
    return replace(made, **changes)


def test_a_recall_counts_until_it_has_ended() -> None:
    scope = Scope(ScopeKind.LOT, CLASS, "L1")
    assert codes(story(recalls=(recall(scope),))) == [Code.RECALLED]
    assert codes(story(recalls=(recall(scope, ended_at=NOW // 1000),))) == []
    later = story(recalls=(recall(scope, ended_at=NOW // 1000 + 1),))
    assert codes(later) == [Code.RECALLED]
    assert later.judged().until_ms == (NOW // 1000 + 1) * 1000
    assert codes(story(recalls=(recall(Scope(ScopeKind.LOT, CLASS, "L2")),))) == []


def test_a_recall_of_a_lot_holds_what_tells_no_lot() -> None:
    told = story(lot="", recalls=(recall(Scope(ScopeKind.LOT, CLASS, "L1"), evidence=""),))
    assert codes(told) == [Code.RECALL_UNKNOWN]


def test_recalls_that_could_not_be_learned_hold() -> None:
    told = story(recalls_unknown=("88.118", "88.118"))
    assert codes(told) == [Code.RECALL_UNKNOWN]
    assert use(told) is Use.HOLD


def test_a_recalled_package_reaches_what_was_inside_at_that_time() -> None:
    box, carton = "idtrace:88.118.8/BOX-1", "idtrace:88.118.8/CARTON-1"

    def packing(at: int, child: str, parent: str, action: Action, step: str) -> Any:
        return event(at, step, type_=EventType.AGGREGATION, action=action, epcs=(), parent=parent, children=(child,))

    told = story(
        packing(T0 + 10 * MINUTE, DOSE_URI, box, Action.ADD, "packing"),
        packing(T0 + 20 * MINUTE, box, carton, Action.ADD, "packing"),
        packing(T0 + 60 * MINUTE, box, carton, Action.DELETE, "unpacking"),
    )
    within = Scope(ScopeKind.PACKAGE, package="88.118.8/CARTON-1", since_s=T0 // 1000 + 1800)
    told.changes = {"recalls": (recall(within),)}
    assert codes(told) == [Code.RECALLED]
    told.changes = {"recalls": (recall(replace(within, since_s=T0 // 1000 + 3600)),)}
    assert codes(told) == []
    told.changes = {"recalls": (recall(replace(within, since_s=0, until_s=T0 // 1000 + 1200)),)}
    assert codes(told) == []


@pytest.mark.parametrize(("late_ms", "found"), [(-1, False), (0, True), (1, True)])
def test_the_last_day_ends_at_midnight_in_china(late_ms: int, found: bool) -> None:
    end_ms = ends_ms("2026-05-31")
    assert end_ms % 86_400_000 == 16 * HOUR
    told = story(expiry="2026-05-31", product=None, now_ms=end_ms + late_ms)
    assert told.has(Code.EXPIRED) is found
    if late_ms < 0:
        assert told.judged().until_ms == end_ms


def test_an_unknown_expiry_holds() -> None:
    assert codes(story(expiry="")) == [Code.EXPIRY_UNKNOWN]


@pytest.mark.parametrize(
    ("step", "disposition", "action", "code"),
    [
        ("decommissioning", "inactive", Action.DELETE, Code.DECOMMISSIONED),
        ("", "", Action.DELETE, Code.DECOMMISSIONED),
        ("destroying", "destroyed", Action.DELETE, Code.DESTROYED),
        ("destroying", "", Action.OBSERVE, Code.DESTROYED),
        ("inspecting", "stolen", Action.OBSERVE, Code.STOLEN),
        ("inspecting", "damaged", Action.OBSERVE, Code.DAMAGED),
        ("inspecting", "expired", Action.OBSERVE, Code.EXPIRED),
        ("inspecting", "recalled", Action.OBSERVE, Code.RECALLED),
    ],
)
def test_what_has_ended_is_never_used(step: str, disposition: str, action: Action, code: Code) -> None:
    told = story(event(T0 + 4 * HOUR, step, CLINIC, action=action, disposition=disposition))
    assert codes(told) == [code]
    assert use(told) is Use.DO_NOT_USE


def test_a_persistent_disposition_ends_it_too() -> None:
    assert story(event(T0 + 4 * HOUR, "storing", CLINIC, set_dispositions=("stolen",))).has(Code.STOLEN)


def test_what_was_declared_an_error_does_not_count() -> None:
    from idtrace.epcis.model import ErrorDeclaration

    wrong = event(T0 + 4 * HOUR, "inspecting", CLINIC, disposition="stolen")
    taken_back = event(
        T0 + 4 * HOUR, "inspecting", CLINIC, disposition="stolen", error=ErrorDeclaration(T0 + 4 * HOUR + 1)
    )
    assert story(wrong).has(Code.STOLEN)
    assert codes(story(wrong, taken_back)) == [Code.EVENT_WITHDRAWN], "grave, so somebody else has to look"
    harmless = event(T0 + 4 * HOUR, "storing", CLINIC, read_point=site(OTHER))
    error = ErrorDeclaration(T0 + 4 * HOUR + 1)
    assert codes(story(harmless, observed(replace(harmless.event, error=error), CLINIC))) == []


def test_given_once_a_dose_and_no_more() -> None:
    three = product(doses=3, vial_hours=0)
    given = [dispensed(T0 + 4 * HOUR + n * MINUTE) for n in range(4)]
    assert codes(story(*given[:2], product=three)) == []
    assert codes(story(*given[:3], product=three)) == [Code.DISPENSED]
    assert codes(story(*given, product=three)) == [Code.OVER_DISPENSED]
    assert codes(story(*given[:1])) == [Code.DISPENSED]
    assert codes(story(given[0], product=None)) == [Code.PRODUCT_UNKNOWN]


def test_one_event_may_give_several_doses() -> None:
    one = dispensed(T0 + 4 * HOUR, extensions={"idtrace:doses": 3})
    assert codes(story(one, product=product(doses=3))) == [Code.DISPENSED]
    assert doses_of(dispensed(T0, extensions={"https://x.example/doses": "2"}).event) == 2
    for nonsense in ("0", "-1", "many", "²", None):
        assert doses_of(dispensed(T0, extensions={"other:x": 7, "idtrace:doses": nonsense}).event) == 1


def test_who_gives_a_whole_box_gives_what_is_in_it() -> None:
    box = "idtrace:88.118.8/BOX-1"
    packed = event(
        T0 + MINUTE, "packing", type_=EventType.AGGREGATION, action=Action.ADD, epcs=(), parent=box,
        children=(DOSE_URI,),
    )  # fmt: skip
    given = event(T0 + 4 * HOUR, "dispensing", CLINIC, epcs=(box,))
    assert story(packed, given).has(Code.DISPENSED)


@pytest.mark.parametrize(("late_ms", "found"), [(-1, False), (0, False), (1, True)])
def test_an_opened_vial_lasts_so_many_hours(late_ms: int, found: bool) -> None:
    opened = T0 + 4 * HOUR
    now_ms = opened + 6 * HOUR + late_ms
    told = story(
        dispensed(opened), measured(T0 + 5 * HOUR, now_ms, CLINIC), product=product(doses=10, vial_hours=6),
        now_ms=now_ms,
    )  # fmt: skip
    assert told.has(Code.VIAL_OPEN_TOO_LONG) is found
    if late_ms == -1:
        assert told.judged().until_ms == opened + 6 * HOUR + 1


def test_a_single_dose_or_a_product_without_the_rule_is_never_open() -> None:
    for one in (product(doses=1, vial_hours=6), product(doses=10, vial_hours=0)):
        assert not story(dispensed(T0 + 4 * HOUR), product=one, now_ms=T0 + 90 * HOUR).has(Code.VIAL_OPEN_TOO_LONG)


def test_a_hold_lasts_until_the_same_party_or_an_authority_clears_it() -> None:
    held = event(T0 + 4 * HOUR, "holding", CLINIC, disposition="non_conformant")
    assert codes(story(held)) == [Code.ON_HOLD]
    cleared = event(T0 + 4 * HOUR + MINUTE, "inspecting", CLINIC, disposition="conformant")
    assert codes(story(held, cleared)) == []
    other = event(T0 + 4 * HOUR + MINUTE, "inspecting", CARRIER, disposition="conformant")
    assert Code.ON_HOLD in codes(story(held, other))
    authority = party("88.118.5", PartyRole.AUTHORITY)
    by_authority = event(T0 + 4 * HOUR + MINUTE, "inspecting", "88.118.5", unset_dispositions=("non_conformant",))
    assert codes(story(held, by_authority, parties=licensed(**{"88.118.5": authority}))) == []
    before = event(T0 + 3 * HOUR + MINUTE, "inspecting", CLINIC, disposition="conformant")
    assert codes(story(before, held)) == [Code.ON_HOLD]


# Was it always cold, and is all of it known?


@pytest.mark.parametrize("kind", ThermalKind)
def test_what_the_temperature_rules_find_is_found_one_to_one(kind: ThermalKind) -> None:
    facts = story().facts()
    found = ThermalFinding(kind, T0, T0 + HOUR, device="urn:probe:1", evidence=("b", "a"), source="WHO")
    report = ThermalReport(DOSE, "2-8", (found,), until_ms=NOW + 7)
    judgement = judge(facts, POLICY, history=history_of(facts), thermal=report)
    assert [one.code for one in judgement.findings] == [Code(kind.value)]
    assert judgement.findings[0].evidence == ("a", "b")
    assert judgement.until_ms == NOW + 7


def test_a_frozen_dose_and_a_silent_way_are_found_end_to_end() -> None:
    cold = Story()
    cold.events[4] = measured(T0 + 2 * HOUR, T0 + 5 * HOUR, CLINIC, "-1")
    assert cold.has(Code.FROZEN)
    silent = Story()
    del silent.events[4]
    assert silent.has(Code.NO_TEMPERATURE) or silent.has(Code.SILENCE)
    assert use(silent) is not Use.USE


def test_what_could_not_be_had_holds_and_what_was_read_in_vain_does_not() -> None:
    for kind in GapKind:
        told = story(gaps=(Gap(kind, "88.118.9/event/x", "why"),))
        expected = {GapKind.UNFOUNDED: [], GapKind.BOUND: [Code.HISTORY_LIMIT]}.get(kind, [Code.HISTORY_GAP])
        assert codes(told) == expected
        assert use(told) is (Use.HOLD if expected else Use.USE)
    read = story().facts().observed[0].identifier
    assert codes(story(gaps=(Gap(GapKind.MISFIT, read, "why"),))) == []
    assert codes(story(gaps=(Gap(GapKind.UNFOUNDED, "88.118/party/88.118.9", "why"),))) == [Code.HISTORY_GAP]


# Reading master data


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2027-05-31", "2027-05-31"), ("2027-05-31T10:00:00+08:00", "2027-05-31"), ("270500", "2027-05-31"),
     ("20270531", "2027-05-31"), ("", ""), ("2027-13-01", ""), ("x", "")],
)  # fmt: skip
def test_dates_are_read_in_every_spelling(text: str, expected: str) -> None:
    assert day(text) == expected


def test_master_data_is_found_under_any_prefix_and_only_as_text() -> None:
    assert lots.master_text({"x:lotNumber": "A", "lotNumber2": "B"}, "lotNumber") == "A"
    assert lots.master_text({"lotNumber": ["A"]}, "lotNumber") == ""


def test_a_stay_that_is_told_twice_or_runs_in_circles_is_one_stay() -> None:
    from idtrace.provenance.history import History, Inside
    from idtrace.verdict.context import stays

    def inside(child: str, container: str, end_ms: int | None) -> Inside:
        return Inside(child, container, 0, end_ms, ())

    told = History("a", insides=(inside("a", "b", 9), inside("a", "b", 9), inside("b", "c", 5), inside("c", "b", 5)))
    assert set(stays(told)) == {("b", 0, 9), ("c", 0, 5), ("b", 0, 5)}
    before = History("a", insides=(inside("a", "b", 3), Inside("b", "c", 3, None, ())))
    assert set(stays(before)) == {("b", 0, 3)}

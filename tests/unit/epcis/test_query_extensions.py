"""Fields of other namespaces: found by their full names, wherever a query may look for them, and compared by type."""

from __future__ import annotations

from typing import Any

import pytest

from idtrace.epcis.model import Event
from idtrace.epcis.query import matches, parse
from idtrace.errors import InputError
from tests.unit.epcis.events import CONTEXT, ONE
from tests.unit.epcis.test_query_parameters import EPC, declared, event, sensed

NS = "https://ns.example.com/epcis/"
PLACE: dict[str, Any] = {"id": "idtrace:88.118.8/WH-1"}


def extended(value: Any) -> Event:
    return event(**{"ext:crew": value})


def nested(value: Any) -> Event:
    return event(**{"ext:shift": [[{"ext:deep": {"ext:crew": value}}]]})


FOUND: list[tuple[dict[str, Any], Event, Event]] = [
    ({"EQ_ext:crew": ["night"]}, extended("night"), extended("day")),
    ({f"EQ_{NS}crew": ["night"]}, extended("night"), nested("night")),
    ({f"EQ_{NS.rstrip('/')}#crew": ["night"]}, extended("night"), event(**{"ext:crow": "night"})),
    ({"EQ_ext:crew": ["night"]}, extended(["day", "night"]), extended({"ext:crew": "night"})),
    ({"EQ_ext:crew": ["night"]}, extended({"@value": "night"}), extended(None)),
    ({"EQ_ext:crew": ["night"]}, extended(["night"]), extended(["day", "eve"])),
    ({"EQ_ext:crew": [EPC]}, extended({"id": ONE}), extended("x")),
    ({"EQ_ext:crew": ["true"]}, extended(True), extended(False)),
    ({"EQ_ext:crew": [7]}, extended(7), extended(8)),
    ({"EQ_ext:crew": ["7.0"]}, extended("7"), extended("seven")),
    (
        {"EQ_ext:crew": ["2026-07-22T10:30:00Z"]},
        extended("2026-07-22T18:30:00+08:00"),
        extended("2026-07-22T18:30:00Z"),
    ),
    ({"GE_ext:crew": 7}, extended(7.0), extended(6)),
    ({"GT_ext:crew": 7}, extended("7.1"), extended(7)),
    ({"LE_ext:crew": 7}, extended(-1), extended("zero")),
    ({"LT_ext:crew": "2026-07-22T10:30:00Z"}, extended("2026-07-22T10:29:00Z"), extended(3)),
    ({"LT_ext:crew": "2026-07-22T10:30:00Z"}, extended("2026-07-22T10:29:00Z"), extended("yesterday")),
    ({"EXISTS_ext:crew": ""}, extended({}), event()),
    ({"EQ_INNER_ext:crew": ["night"]}, nested("night"), extended("night")),
    ({"EXISTS_INNER_ext:crew": [1]}, nested(None), extended(None)),
    ({"GE_INNER_ext:crew": 7}, event(**{"ext:shift": {"ext:crew": 7}}), nested(6)),
    ({"EQ_ILMD_cbvmda:lotNumber": ["L1"]}, event(ilmd={"cbvmda:lotNumber": "L1"}), event(**{"cbvmda:lotNumber": "L1"})),
    ({"EQ_ILMD_urn:epcglobal:cbv:mda#lotNumber": ["L1"]}, event(ilmd={"cbvmda:lotNumber": "L1"}), event()),
    ({"EQ_ILMD_urn:epcglobal:cbv:mda:lotNumber": ["L1"]}, event(ilmd={"cbvmda:lotNumber": "L1"}), event()),
    (
        {"LT_ILMD_cbvmda:itemExpirationDate": "2027-01-01T00:00:00Z"},
        event(ilmd={"cbvmda:itemExpirationDate": "2026-12-31T00:00:00Z"}),
        event(ilmd={"cbvmda:itemExpirationDate": "2027-12-31T00:00:00Z"}),
    ),
    ({"EXISTS_ILMD_ext:a": None}, event(ilmd={"ext:a": 1}), event(**{"ext:a": 1})),
    ({"EQ_INNER_ILMD_ext:b": "1"}, event(ilmd={"ext:a": {"ext:b": 1}}), event(ilmd={"ext:b": 1})),
    ({"EQ_ERROR_DECLARATION_ext:by": "QA"}, declared(**{"ext:by": "QA"}), event(**{"ext:by": "QA"})),
    ({"EXISTS_INNER_ERROR_DECLARATION_ext:by": ""}, declared(**{"ext:a": {"ext:by": 1}}), declared(**{"ext:by": 1})),
    ({"EQ_SENSORELEMENT_ext:s": "1"}, sensed({}, {"ext:s": 1}), sensed(**{"ext:s": 1})),
    ({"EQ_SENSORMETADATA_ext:s": "1"}, sensed({"ext:s": 1}), sensed({}, {"ext:s": 1})),
    ({"EQ_SENSORREPORT_ext:s": "1"}, sensed(**{"ext:s": 1}), sensed({"ext:s": 1})),
    ({"EQ_INNER_SENSORREPORT_ext:t": "1"}, sensed(**{"ext:s": {"ext:t": 1}}), sensed(**{"ext:t": 1})),
    (
        {"EQ_readPoint_ext:door": "3"},
        event(readPoint=PLACE | {"ext:door": 3}),
        event(bizLocation=PLACE | {"ext:door": 3}),
    ),
    ({"EQ_bizLocation_ext:door": "3"}, event(bizLocation=PLACE | {"ext:door": 3}), event()),
    ({"EQ_INNER_readPoint_ext:door": "3"}, event(readPoint=PLACE | {"ext:a": {"ext:door": 3}}), event()),
    ({"HASATTR_readPoint": ["ext:door"]}, event(readPoint=PLACE | {"ext:door": 3}), event(readPoint=PLACE)),
    ({"HASATTR_ext:crew": ["ext:size", "lead"]}, extended([{"lead": "Li"}, 3]), extended({"head": "Li"})),
    ({"HASATTR_ext:crew": ["lead"]}, extended({"lead": "Li"}), event(**{"ext:boat": {"lead": "Li"}})),
    (
        {"EQATTR_readPoint_ext:door": ["3"]},
        event(readPoint=PLACE | {"ext:door": 3}),
        event(readPoint=PLACE | {"ext:door": 4}),
    ),
    ({"EQATTR_ext:crew_size": ["3"]}, extended({"size": 3}), extended({"sizes": 3})),
    ({"EQATTR_ext:crew_ext:size_max": [3]}, extended({"ext:size_max": 3}), extended({"ext:size": 3})),
    ({"EQ_ATTR_ext:crew_size": ["3"]}, extended({"size": 3}), event()),
]


@pytest.mark.parametrize(
    ("parameters", "met", "missed"), FOUND, ids=lambda value: "-".join(value) if isinstance(value, dict) else ""
)
def test_a_field_of_others_is_found_where_it_was_asked_for(
    parameters: dict[str, Any], met: Event, missed: Event
) -> None:
    query = parse(parameters, namespaces={"ext": NS})
    assert matches(query, met, 0)
    assert not matches(query, missed, 0)


def test_a_prefix_is_what_it_stands_for_and_not_its_letters() -> None:
    other = event(**{"@context": [CONTEXT[0], {"mine": NS, "ext": "https://other.example.com/"}], "mine:crew": "night"})
    assert matches(parse({"EQ_ext:crew": "night"}, namespaces={"ext": NS}), other, 0)
    assert not matches(parse({"EQ_ext:crew": "night"}, namespaces={"ext": "https://other.example.com/"}), other, 0)
    # Nobody has said what it stands for: then it is the letters.
    assert matches(parse({"EQ_mine:crew": "night"}), other, 0)
    assert not matches(parse({"EQ_ext:crew": "night"}), other, 0)


def test_an_event_without_its_raw_form_has_no_fields_but_its_own() -> None:
    bare = Event(event().type, event().action, 0, 0, extensions={"cbvmda:lot": "1"})
    assert matches(parse({"EQ_cbvmda:lot": "1"}), bare, 0)
    assert not matches(parse({"HASATTR_readPoint": ["ext:door"]}), bare, 0)


@pytest.mark.parametrize("name", ["GE_ext:crew", "LT_ILMD_ext:crew"])
def test_what_has_no_order_is_not_compared(name: str) -> None:
    with pytest.raises(InputError, match="a number or a date and time") as caught:
        parse({name: "night"})
    assert caught.value.field == name

"""Under which keys a lot's making is found again, and what names no lot."""

from __future__ import annotations

from typing import Any

import pytest

from idtrace.epcis.lots import lot_key, made_by, master_text
from idtrace.epcis.model import Action, Event, EventType
from idtrace.epcis.uris import key, mentions

ILMD = {"cbvmda:itemExpirationDate": "2030-01-31", "cbvmda:lotNumber": "L1"}


def event(kind: EventType = EventType.OBJECT, action: Action | None = Action.ADD, **fields: Any) -> Event:
    return Event(kind, action, 0, 0, **({"biz_step": "commissioning", "ilmd": ILMD} | fields))


def lots(of: Event) -> list[str]:
    return [subject for subject, role in mentions(of) if role == "class"]


def test_a_making_is_kept_under_its_lot_once_for_each_prefix() -> None:
    epcs = ("idtrace:88.118.8/A", "idtrace:88.118.8/B", "urn:epc:id:sgtin:9506000.013435.S1", "urn:x:1")
    assert lots(event(epcs=epcs)) == ["88.118.8/lot/L1", "gs1.01.09506000134352/10.L1"]
    filled = event(EventType.TRANSFORMATION, None, outputs=epcs[:1], inputs=("idtrace:88.1/BULK",))
    assert lots(filled) == ["88.118.8/lot/L1"]


def test_the_key_of_a_gs1_lot_is_that_of_its_class_uri() -> None:
    assert lot_key("gs1.01.09506000134352", "L1") == key("urn:epc:class:lgtin:9506000.013435.L1")


@pytest.mark.parametrize(
    "of",
    [
        event(epcs=("idtrace:88.118.8/A",), ilmd={}),
        event(epcs=("idtrace:88.118.8/A",), ilmd={"cbvmda:lotNumber": ""}),
        event(epcs=("idtrace:88.118.8/A",), ilmd={"cbvmda:lotNumber": "x" * 300}),
        event(epcs=("idtrace:88.118.8/A",), action=Action.OBSERVE),
        event(epcs=("idtrace:88.118.8/A",), biz_step="packing"),
        event(epcs=("urn:x:1",)),
        event(),
    ],
)
def test_what_makes_nothing_of_a_lot_is_kept_under_none(of: Event) -> None:
    assert lots(of) == []


def test_master_data_is_found_by_its_name_whatever_stands_before_it() -> None:
    assert master_text(ILMD, "lotNumber") == "L1"
    assert master_text({"https://ref.gs1.org/cbv/mda/lotNumber": 7}, "lotNumber") == "7"
    assert master_text({"x:lotNumber": ["L1"]}, "lotNumber") == ""
    assert made_by(event(EventType.AGGREGATION, children=("idtrace:88.118.8/A",))) == ()

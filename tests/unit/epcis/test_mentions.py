"""Every event that is read mentions something, so each has its place among a node's events; devices fitted have two."""

from __future__ import annotations

from typing import Any

import pytest

from idtrace.epcis.model import Event
from idtrace.epcis.parse import read_document
from idtrace.epcis.uris import mentions
from tests.unit.epcis.events import plain, to_bytes

TYPES = ("ObjectEvent", "AggregationEvent", "TransactionEvent", "TransformationEvent", "AssociationEvent")
OBJECTS = (
    *("epcList", "quantityList", "childEPCs", "childQuantityList", "parentID", "bizTransactionList"),
    *("inputEPCList", "inputQuantityList", "outputEPCList", "outputQuantityList", "readPoint", "sensorElementList"),
)
TAKEN_BACK = {"declarationTime": "2026-07-23T10:30:00Z", "reason": "incorrect_data"}


def read(fields: dict[str, Any]) -> Any:
    (item,) = read_document(to_bytes(fields)).items
    return item


@pytest.mark.parametrize("action", ["ADD", "OBSERVE", "DELETE"])
@pytest.mark.parametrize("more", [{}, {"errorDeclaration": TAKEN_BACK}])
@pytest.mark.parametrize("of_type", TYPES)
def test_an_event_about_nothing_is_refused_by_name(of_type: str, action: str, more: dict[str, Any]) -> None:
    fields = plain(of_type) | more
    if "action" in fields:
        fields["action"] = action
    about_nothing = read({name: value for name, value in fields.items() if name not in OBJECTS})
    assert not isinstance(about_nothing, Event)
    empty = read({name: [] if name in OBJECTS and name != "parentID" else value for name, value in fields.items()})
    # All that is in a parent may be taken out of it, and then the event is about the parent.
    assert not isinstance(empty, Event) or mentions(empty)


@pytest.mark.parametrize("of_type", TYPES)
def test_an_event_with_one_thing_only_mentions_it(of_type: str) -> None:
    event = read(plain(of_type))
    assert isinstance(event, Event)
    assert mentions(event)


def test_an_association_is_mentioned_as_a_fitting_too() -> None:
    found = mentions(read(plain("AssociationEvent")))
    assert {role for _, role in found} >= {"parent", "child", "fitted"}
    assert {key for key, role in found if role == "fitted"} == {
        key for key, role in found if role in {"parent", "child"}
    }
    assert "fitted" not in {role for _, role in mentions(read(plain("AggregationEvent")))}

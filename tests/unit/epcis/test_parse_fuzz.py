"""Whatever stands in a document, it is read or refused, and never anything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from idtrace.epcis.parse import EventError, read_document
from idtrace.epcis.statement import EVENT_BYTES_MAX
from idtrace.epcis.write import event_bytes
from idtrace.errors import InputError
from tests.unit.epcis.events import BUSY, events, mutated_documents, plain, to_bytes


def outcome(data: bytes) -> None:
    try:
        parsed = read_document(data)
    except InputError:
        return
    for index, item in enumerate(parsed.items):
        if isinstance(item, EventError):
            assert item.index == index
            assert item.path.startswith(("epcisBody.", "[")) or len(parsed.items) == 1
        else:
            assert read_document(event_bytes(item)).events == (item,)


@settings(max_examples=60, suppress_health_check=BUSY)
@given(mutated_documents())
def test_a_mutated_document_is_read_or_refused(value: Any) -> None:
    outcome(json.dumps(value).encode())


@settings(max_examples=50, suppress_health_check=BUSY)
@given(events(), st.integers(0, 10_000), st.binary(max_size=3))
@example(plain("ObjectEvent"), 20, b'"')
def test_mutated_bytes_are_read_or_refused(value: dict[str, Any], at: int, junk: bytes) -> None:
    data = to_bytes(value)
    at %= len(data)
    outcome(data[:at] + junk + data[at + 1 :])


@settings(max_examples=50, suppress_health_check=BUSY)
@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    outcome(data)


@pytest.mark.parametrize("count", [1_500])
def test_a_pallet_of_1500_cartons_is_one_event(count: int) -> None:
    value = plain("AggregationEvent") | {"childEPCs": [f"urn:epc:id:sscc:4012345.{n:010d}" for n in range(count)]}
    (event,) = read_document(to_bytes(value)).events
    assert len(event.children) == count
    assert len(event_bytes(event)) <= EVENT_BYTES_MAX

"""From a record to an observed event: nothing but what its identifier names gets in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from idtrace.epcis.statement import event_body
from idtrace.epcis.write import event_bytes
from idtrace.errors import InputError
from idtrace.identifier import Prefix
from idtrace.provenance.history import Observed
from idtrace.provenance.reading import read_event
from idtrace.record import Record
from idtrace.signature import Signed
from tests.unit.provenance.story import BOX, DOSE, MAKER, chain, made, packed

DOCUMENT = b'{"@context":[],"type":"EPCISDocument","schemaVersion":"2.0"}'


def record(data: bytes) -> Record:
    body, values = event_body(Prefix.parse(MAKER), data, issued_at=1_770_000_000)
    return Record(Signed("application/vnd.idtrace.record.v1+json", body.payload(), ()), values)


@pytest.mark.parametrize("told", chain(), ids=lambda told: told.event.biz_step or told.event.type.value)
def test_an_event_comes_back_with_who_said_it_and_when(told: Observed) -> None:
    data = event_bytes(told.event)
    found = read_event(record(data), logged=True)
    assert found.event == told.event
    assert (found.party, found.reported_at, found.logged) == (MAKER, 1_770_000_000, True)
    assert found.identifier.startswith(f"{MAKER}/event/")


def test_a_withheld_or_changed_part_is_refused() -> None:
    whole = record(event_bytes(packed(MAKER, 1, BOX, *(f"{MAKER}/SN-{n}" for n in range(300))).event))
    assert len(whole.values) > 1
    for values in (whole.values[1:], whole.values[:-1], tuple(reversed(whole.values))):
        with pytest.raises(InputError, match="SHA-256"):
            read_event(replace(whole, values=values), logged=False)


@pytest.mark.parametrize("data", [b"[]", b"{}", b"no JSON", DOCUMENT])
def test_what_is_no_event_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        read_event(record(data), logged=False)


def test_two_events_in_one_record_are_refused() -> None:
    one = event_bytes(made(0, DOSE).event)
    with pytest.raises(InputError, match="one event"):
        read_event(record(b"[" + one + b"," + one + b"]"), logged=False)

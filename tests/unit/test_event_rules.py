"""An identifier below ``event/`` is an event's record and nothing else, whichever way it comes in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.epcis.parse import EventError
from idtrace.epcis.statement import EVENT_BYTES_MAX, EVENT_TYPE, event_body, event_identifier, salt
from idtrace.errors import InputError, Reason, RefusedError
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Permission, Record, RecordBody, RecordKind, Status, Value, build_values
from idtrace.seal import seal
from idtrace.signature import Kind, sign
from registry.admission import Intent, Proposal
from registry.event_rules import mentions_of, only_event, read_event
from registry.intake import Batch, open_sealed, request_hash, take, take_sealed
from registry.storage import SUBJECT_BYTES_MAX, Mention
from tests.capture_fixtures import bytes_of, event_of, event_record, observed
from tests.core_fixtures import NOW, signer
from tests.registry_fixtures import authority_for
from tests.unit.epcis.events import plain, to_bytes

PARTY = Prefix.parse("88.118.8")
DATA = bytes_of(observed(1))
LONG = bytes_of(observed(1, epcList=[f"idtrace:88.118.8/SERIAL-{n:06}" for n in range(300)]))


def body_of(record: Record) -> RecordBody:
    return RecordBody.parse(record.signed.payload)


def remade(data: bytes = DATA, pieces: tuple[bytes, ...] | None = None, type_: str = EVENT_TYPE, **changes: Any) -> Any:
    """An event's record with something else about it, and its body."""
    permission = changes.pop("permission", Permission.PUBLIC)
    entries = [(type_, piece, permission) for piece in (pieces if pieces is not None else (data,))]
    digests, values = build_values(entries, (salt(data, n) for n in range(1, 100)))
    body, _ = event_body(PARTY, DATA, issued_at=NOW)
    body = replace(body, identifier=event_identifier(PARTY, data), values=digests, **changes)
    record = Record(sign(Kind.RECORD, body.payload(), signer("record of 88.118.8")), values)
    return record, body


def refused(record: Record, body: RecordBody) -> tuple[Reason, str]:
    with pytest.raises((InputError, RefusedError)) as caught:
        read_event(record, body)
    return caught.value.reason, caught.value.field


@pytest.mark.parametrize("data", [DATA, LONG])
def test_an_event_as_it_has_to_be_is_read_and_mentions_what_it_names(data: bytes) -> None:
    record = event_record("88.118.8", data)
    body = body_of(record)
    event = read_event(record, body)
    assert event == only_event(data)
    assert len(record.values) == -(-len(data) // 4_096)
    assert event is not None
    mentions = mentions_of(event, body)
    assert mentions[0] == Mention(
        "88.118.8/SN-1" if data is DATA else "88.118.8/SERIAL-000000", event.time_ms, str(body.identifier), "epc"
    )


def test_other_identifiers_are_none_of_these_rules() -> None:
    record, body = remade()
    for suffix in ("SN-1", "events/x", "Event/x", "event"):
        assert read_event(record, replace(body, identifier=Identifier.parse(f"88.118.8/{suffix}"))) is None


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        (remade(kind=RecordKind.CLASS), "record.kind"),
        (remade(status=Status.RECALLED), "record.kind"),
        (remade(class_id=Identifier.parse("88.118.8/class.x")), "record.class"),
        (remade(pieces=()), "record.values"),
        (remade(pieces=(b"x",) * 32), "record.values"),
        (remade(type_="epcis.events"), "record.values[1]"),
        (remade(permission=Permission.RESTRICTED), "record.values[1]"),
        (remade(pieces=(DATA[:100], DATA[100:])), "record.values"),
    ],
)
def test_a_record_of_another_form_is_refused(changed: tuple[Record, RecordBody], field: str) -> None:
    assert refused(*changed) == (Reason.EVENT_RECORD, field)


def test_values_are_numbered_from_one_and_all_there() -> None:
    record, body = remade(LONG, (LONG[:4_096], LONG[4_096:8_192], LONG[8_192:]))
    assert refused(replace(record, values=record.values[:-1]), body) == (Reason.EVENT_RECORD, "record.values")
    second = replace(body.values[1], index=7)
    assert refused(record, replace(body, values=(body.values[0], second, body.values[2])))[0] is Reason.EVENT_RECORD


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_a_byte_that_is_another_makes_another_event_and_is_refused(at: int, by: int) -> None:
    record, body = remade()
    mutated = DATA[:at] + bytes([DATA[at] ^ by]) + DATA[at + 1 :]
    changed = replace(record, values=(Value(1, record.values[0].salt, mutated),))
    assert refused(changed, body)[0] is Reason.FIELD_MALFORMED


def test_a_later_version_is_refused_whatever_it_holds() -> None:
    record, body = remade()
    later = replace(body, version=2, previous=bytes(32))
    assert refused(record, later) == (Reason.EVENT_IMMUTABLE, "record.version")
    ended = replace(later, kind=RecordKind.TOMBSTONE, status=Status.RETIRED, values=())
    assert refused(replace(record, values=()), ended)[0] is Reason.EVENT_IMMUTABLE


@pytest.mark.parametrize("data", [b"[" + DATA + b"," + DATA + b"]", b"[]", b"[" + DATA + b"]", to_bytes(observed(1))])
def test_bytes_that_are_not_one_bare_event_in_canonical_form_are_refused(data: bytes) -> None:
    assert refused(*remade(data)) == (Reason.EVENT_RECORD, "event")


def test_a_wrong_event_is_refused_with_its_rule_and_place() -> None:
    wrong = DATA.replace(b"inspecting", b"inspectinx")
    with pytest.raises(EventError) as caught:
        read_event(*remade(wrong))
    assert caught.value.field == "event.bizStep"
    with pytest.raises(InputError):
        read_event(*remade(b"no json"))


def test_too_long_an_event_or_a_name_in_it_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        event_body(PARTY, b"x" * (EVENT_BYTES_MAX + 1), issued_at=NOW)
    assert caught.value.reason is Reason.FIELD_TOO_LARGE
    _, body = remade()
    event = replace(event_of(observed(1)), epcs=("https://example.com/" + "x" * SUBJECT_BYTES_MAX,))
    with pytest.raises(InputError) as caught:
        mentions_of(event, body)
    assert (caught.value.reason, caught.value.field) == (Reason.FIELD_TOO_LARGE, "event.epc")


def plainly(record: Record) -> Proposal:
    hashed = request_hash(Intent.REGISTER, b"sent")
    return take(Intent.REGISTER, "key-00001", record, hashed=hashed, authority=authority_for("88.118.8"), now=NOW)


def sealed(record: Record) -> Proposal:
    authority = authority_for("88.118.8")
    place = seal([record.hash], PARTY, signer("record of 88.118.8"), issued_at=NOW)[0]
    batch = Batch.of("key-00001", place.seal, [record.signed.payload], b"seal as sent")
    opened = open_sealed(batch, authority=authority, now=NOW)
    bare = Record(replace(record.signed, signatures=()), record.values, opened.places[0])
    return take_sealed(opened, bare, b"h" * 32, authority=authority, now=NOW)


@pytest.mark.parametrize("way", [plainly, sealed])
def test_both_ways_of_intake_bring_the_event_and_its_mentions_and_refuse_what_is_none(way: Any) -> None:
    event = bytes_of(plain("AggregationEvent"))
    record = event_record("88.118.8", event, by=signer("record of 88.118.8"), issued_at=NOW)
    proposal = way(record)
    assert proposal.event == only_event(event)
    assert {one.role for one in proposal.mentions} == {"parent", "child"}
    assert {one.event for one in proposal.mentions} == {str(body_of(record).identifier)}
    with pytest.raises(InputError) as caught:
        way(remade(pieces=(DATA[:100], DATA[100:]))[0])
    assert caught.value.reason is Reason.EVENT_RECORD

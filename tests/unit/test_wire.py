"""Protobuf forms: what comes in is bounded, and a bundle file has one spelling."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.bundle import BUNDLE_BYTES_MAX, Denied, NodeAnswer, Referred, Revoked
from idtrace.canonical import BODY_BYTES_MAX
from idtrace.chain import LINKS_MAX
from idtrace.errors import InputError, Reason
from idtrace.identifier import ROOT, Prefix
from idtrace.record import VALUE_BYTES_MAX, VALUE_INDEX_MAX, VALUES_MAX
from idtrace.signature import SIGNATURES_MAX
from idtrace.v1 import record_pb2 as pb
from idtrace.wire import (
    answer_from_pb,
    answer_to_pb,
    bundle_from_bytes,
    bundle_from_pb,
    bundle_to_bytes,
    bundle_to_pb,
    delegations_from_pb,
    record_from_bytes,
    record_from_pb,
    record_to_bytes,
    record_to_pb,
    signed_from_bytes,
    signed_from_pb,
    signed_to_bytes,
    signed_to_pb,
)
from tests.core_fixtures import ZONE, bundle, denial, denied, link, links, reason_of, record

R = Reason
DATA = bundle_to_bytes(bundle())
OUTCOMES = [record(), Denied(denial()), Referred(Prefix.parse(ZONE)), Referred(ROOT)]


def test_records_and_statements_come_back_from_their_bytes() -> None:
    assert record_from_bytes(record_to_bytes(record())) == record()
    assert signed_from_bytes(signed_to_bytes(denial())) == denial()


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_answers_come_back_from_their_messages(outcome: object) -> None:
    answer = NodeAnswer(links(), outcome)  # type: ignore[arg-type]  # each is one of the three
    message = pb.NodeAnswer.FromString(answer_to_pb(answer).SerializeToString())
    assert answer_from_pb(message) == answer


@pytest.mark.parametrize("zone", [ROOT, Prefix.parse(ZONE)])
def test_a_revocation_is_an_outcome_even_of_the_root(zone: Prefix) -> None:
    whole = bundle(Revoked(zone))
    assert bundle_from_bytes(bundle_to_bytes(whole)) == whole


def varint(value: int, padding: int = 0) -> bytes:
    """Base-128, with so many needless bytes at its end."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value]) if not padding else bytes([*out, value | 0x80, *[0x80] * (padding - 1), 0])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


IDENTIFIER = field(2, b"88.118.8/SN-0001")


@pytest.mark.parametrize(
    "bent",
    [
        DATA + field(99, b"hidden"),
        DATA + varint(99 << 3) + b"\x01",
        DATA + field(7, b""),
        DATA + b"\x08\x01",
        DATA.replace(b"\x08\x01", b"\x08\x81\x00", 1),
        DATA.replace(IDENTIFIER, varint(2 << 3 | 2, 1) + IDENTIFIER[1:], 1),
        DATA.replace(IDENTIFIER, IDENTIFIER[:1] + varint(16, 1) + IDENTIFIER[2:], 1),
        DATA.replace(IDENTIFIER, IDENTIFIER[:1] + varint(16, 3) + IDENTIFIER[2:], 1),
        DATA.replace(IDENTIFIER, IDENTIFIER * 2, 1),
        DATA[:2] + DATA[2 + len(IDENTIFIER) :] + IDENTIFIER,
        DATA + field(4, b""),
        DATA + field(4, field(1, field(9, b"hidden"))),
        DATA + b"\x9b\x06\x9c\x06",
        DATA * 2,
    ],
    ids=[
        "unknown field",
        "unknown number",
        "unknown small field",
        "format twice",
        "long varint as a number",
        "long varint as a tag",
        "long varint as a length",
        "longer varint as a length",
        "identifier twice",
        "fields in another order",
        "record merged with nothing",
        "unknown field deep inside",
        "unknown group",
        "bundle twice",
    ],
)
def test_a_bundle_file_has_one_spelling(bent: bytes) -> None:
    assert bent != DATA
    assert reason_of(lambda: bundle_from_bytes(bent)) in {R.BUNDLE_MALFORMED, R.BUNDLE_DIGEST}


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_typed_refusal(data: bytes) -> None:
    with pytest.raises(InputError):
        bundle_from_bytes(data)
    for read in (record_from_bytes, signed_from_bytes):
        try:
            read(data)
        except InputError:
            continue


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\xff", b"\x12\x05abc", b"\x0a\x02\xff\xff"])
def test_torn_bytes_are_malformed_and_nothing_else(data: bytes) -> None:
    assert reason_of(lambda: bundle_from_bytes(data)) is R.BUNDLE_MALFORMED
    assert reason_of(lambda: signed_from_bytes(data)) is R.FIELD_MALFORMED
    assert reason_of(lambda: record_from_bytes(data)) is R.FIELD_MALFORMED


def bent_bundle(change: Callable[[pb.Bundle], object]) -> pb.Bundle:
    message = bundle_to_pb(bundle())
    change(message)
    return message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: setattr(m, "format", 2), R.BUNDLE_MALFORMED),
        (lambda m: m.ClearField("format"), R.BUNDLE_MALFORMED),
        (lambda m: m.ClearField("record"), R.BUNDLE_MALFORMED),
        (lambda m: m.denial.SetInParent(), R.FIELD_MISSING),
        (lambda m: setattr(m.revocation, "zone", "88.A"), R.IDENTIFIER_NOT_CANONICAL),
        (lambda m: setattr(m, "identifier", ""), R.IDENTIFIER_MALFORMED),
        (lambda m: setattr(m, "identifier", "A/x"), R.IDENTIFIER_NOT_CANONICAL),
        (lambda m: setattr(m, "identifier", "88.118.8/SN-0002"), R.BUNDLE_DIGEST),
        (lambda m: m.ClearField("digest"), R.BUNDLE_DIGEST),
        (lambda m: setattr(m, "digest", m.digest + b"\0"), R.BUNDLE_DIGEST),
        (lambda m: m.delegations.pop(), R.BUNDLE_DIGEST),
        (lambda m: m.delegations.extend([m.delegations[0]] * LINKS_MAX), R.CHAIN_TOO_DEEP),
        (lambda m: m.record.values.pop(), R.BUNDLE_DIGEST),
        (lambda m: m.record.values.reverse(), R.BUNDLE_DIGEST),
    ],
)
def test_a_bundle_message_is_read_strictly(change: Callable[[pb.Bundle], object], reason: Reason) -> None:
    assert reason_of(lambda: bundle_from_pb(bent_bundle(change))) is reason


def one_value(**changes: object) -> pb.Record:
    message = record_to_pb(record())
    for name, value in changes.items():
        setattr(message.values[1], name, value)
    return message


@pytest.mark.parametrize(
    ("message", "reason", "where"),
    [
        (one_value(index=0), R.FIELD_MALFORMED, "record.values[1].index"),
        (one_value(index=VALUE_INDEX_MAX + 1), R.FIELD_MALFORMED, "record.values[1].index"),
        (one_value(salt=bytes(15)), R.FIELD_MALFORMED, "record.values[1].salt"),
        (one_value(salt=bytes(17)), R.FIELD_MALFORMED, "record.values[1].salt"),
        (one_value(data=bytes(VALUE_BYTES_MAX + 1)), R.FIELD_TOO_LARGE, "record.values[1].data"),
        (pb.Record(), R.FIELD_MISSING, "record.signed.payload"),
        (pb.Record(values=[pb.Value()] * (VALUES_MAX + 1)), R.FIELD_TOO_LARGE, "record.values"),
    ],
)
def test_values_are_bounded(message: pb.Record, reason: Reason, where: str) -> None:
    with pytest.raises(InputError) as caught:
        record_from_pb(message)
    assert (caught.value.reason, caught.value.field) == (reason, where)


def test_a_statement_is_bounded() -> None:
    most = pb.Signed(payload=bytes(BODY_BYTES_MAX), signatures=[pb.Signature()] * SIGNATURES_MAX)
    assert len(signed_from_pb(most, "x").payload) == BODY_BYTES_MAX
    too_long = pb.Signed(payload=bytes(BODY_BYTES_MAX + 1))
    assert reason_of(lambda: signed_from_pb(too_long, "x")) is R.FIELD_TOO_LARGE
    too_many = pb.Signed(payload=b"x", signatures=[pb.Signature()] * (SIGNATURES_MAX + 1))
    assert reason_of(lambda: signed_from_pb(too_many, "x")) is R.FIELD_TOO_LARGE
    assert reason_of(lambda: signed_from_pb(pb.Signed(), "x")) is R.FIELD_MISSING


def test_a_chain_is_bounded_before_any_of_it_is_read() -> None:
    nine = [signed_to_pb(link(ZONE))] * LINKS_MAX
    assert len(delegations_from_pb(nine)) == LINKS_MAX
    assert reason_of(lambda: delegations_from_pb([*nine, pb.Signed()])) is R.CHAIN_TOO_DEEP


def test_an_answer_says_something() -> None:
    assert reason_of(lambda: answer_from_pb(pb.NodeAnswer())) is R.ANSWER_EMPTY
    sideways = pb.NodeAnswer(referral=pb.Referral(zone="88.A"))
    assert reason_of(lambda: answer_from_pb(sideways)) is R.IDENTIFIER_NOT_CANONICAL
    assert reason_of(lambda: answer_from_pb(pb.NodeAnswer(denial=pb.Denial()))) is R.FIELD_MISSING
    assert reason_of(lambda: answer_from_pb(pb.NodeAnswer(record=pb.Record()))) is R.FIELD_MISSING


def test_a_file_over_two_mebibytes_is_not_even_parsed() -> None:
    valid_prefix = DATA + field(99, bytes(BUNDLE_BYTES_MAX - len(DATA)))
    assert len(valid_prefix) > BUNDLE_BYTES_MAX
    with pytest.raises(InputError, match="at most 2097152 bytes"):
        bundle_from_bytes(valid_prefix)


def test_messages_nested_beyond_any_use_are_malformed() -> None:
    deep = b""
    for _ in range(10_000):
        deep = b"\x9b\x06" + deep
    assert reason_of(lambda: bundle_from_bytes(DATA + deep)) is R.BUNDLE_MALFORMED


def test_payload_bytes_go_through_as_they_came() -> None:
    strange = pb.Signed(payload_type="t", payload=bytes(range(256)))
    assert signed_from_pb(strange, "x").payload == bytes(range(256))
    assert signed_to_pb(signed_from_pb(strange, "x")) == strange
    assert denied(denial()).outcome == Denied(denial())

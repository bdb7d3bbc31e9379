"""Records: rules between fields, digests of values, and withholding that hides data and never a lie."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import repeat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.errors import InputError, Reason, VerificationError
from idtrace.identifier import Identifier
from idtrace.record import (
    SALT_BYTES,
    TIME_MAX,
    TTL_SECONDS_MAX,
    VALUE_BYTES_MAX,
    VALUE_INDEX_MAX,
    VALUE_TYPE_MAX,
    VALUES_MAX,
    Permission,
    RecordBody,
    RecordKind,
    Status,
    Value,
    ValueDigest,
    build_values,
    check_values,
    peek_identifier,
)
from idtrace.signature import Kind, signed_hash
from tests.core_fixtures import ITEM, body_and_values, reason_of, record, salts

R = Reason
DIGEST = bytes(range(32))

visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=12)
value_digests = st.builds(
    ValueDigest,
    st.integers(1, VALUE_INDEX_MAX),
    visible,
    st.sampled_from(Permission),
    st.binary(min_size=32, max_size=32),
)


@st.composite
def bodies(draw: st.DrawFn) -> RecordBody:
    """Any body that keeps the rules."""
    kind = draw(st.sampled_from(RecordKind))
    ended = kind is RecordKind.TOMBSTONE
    version = draw(st.integers(2 if ended else 1, 2**53 - 1))
    statuses = [Status.RETIRED] if ended else [s for s in Status if s is not Status.RETIRED]
    values = () if ended else draw(st.lists(value_digests, max_size=6, unique_by=lambda v: v.index))
    return RecordBody(
        identifier=Identifier.parse(f"88.{draw(st.integers(0, 999))}/{draw(visible)}"),
        version=version,
        previous=b"" if version == 1 else draw(st.binary(min_size=32, max_size=32)),
        kind=kind,
        status=draw(st.sampled_from(statuses)),
        issued_at=draw(st.integers(0, TIME_MAX)),
        ttl_seconds=draw(st.integers(0, TTL_SECONDS_MAX)),
        class_id=draw(st.sampled_from([None, Identifier.parse("88/class")])),
        values=tuple(sorted(values, key=lambda v: v.index)),
    )


@given(bodies())
def test_a_body_comes_back_from_its_bytes(body: RecordBody) -> None:
    assert RecordBody.parse(body.payload()) == body
    assert RecordBody.parse(body.payload()).payload() == body.payload()


def changed(**changes: Any) -> Reason | None:
    body, _ = body_and_values(**changes)
    return reason_of(lambda: RecordBody.parse(body.payload()))


ENDED: dict[str, Any] = {"kind": RecordKind.TOMBSTONE, "status": Status.RETIRED, "version": 2, "previous": DIGEST}


def digest(index: int = 1, type_: str = "name") -> ValueDigest:
    return ValueDigest(index, type_, Permission.PUBLIC, DIGEST)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"version": 2, "previous": DIGEST}, None),
        ({**ENDED, "values": ()}, None),
        ({"version": 0}, R.FIELD_MALFORMED),
        ({"version": 2}, R.FIELD_MALFORMED),
        ({"previous": DIGEST}, R.FIELD_MALFORMED),
        ({"previous": DIGEST[:31]}, R.FIELD_MALFORMED),
        ({"issued_at": TIME_MAX + 1}, R.FIELD_MALFORMED),
        ({"issued_at": -1}, R.FIELD_MALFORMED),
        ({"ttl_seconds": TTL_SECONDS_MAX + 1}, R.FIELD_MALFORMED),
        ({"status": Status.RETIRED}, R.FIELD_MALFORMED),
        ({**ENDED, "status": Status.ACTIVE, "values": ()}, R.FIELD_MALFORMED),
        ({**ENDED, "version": 1, "previous": b"", "values": ()}, R.FIELD_MALFORMED),
        ({**ENDED, "values": (digest(),)}, R.FIELD_MALFORMED),
        ({"values": (digest(2), digest(1))}, R.VALUE_DUPLICATE),
        ({"values": (digest(1), digest(1))}, R.VALUE_DUPLICATE),
        ({"values": (digest(0),)}, R.FIELD_MALFORMED),
        ({"values": (digest(VALUE_INDEX_MAX + 1),)}, R.FIELD_MALFORMED),
        ({"values": (digest(type_=""),)}, R.IDENTIFIER_MALFORMED),
        ({"values": (digest(type_="na\u200bme"),)}, R.IDENTIFIER_MALFORMED),
        ({"values": (digest(type_="x" * (VALUE_TYPE_MAX + 1)),)}, R.FIELD_TOO_LARGE),
        ({"values": tuple(digest(n + 1) for n in range(VALUES_MAX))}, None),
        ({"values": tuple(digest(n + 1) for n in range(VALUES_MAX + 1))}, R.FIELD_TOO_LARGE),
    ],
)
def test_rules_of_a_body(changes: dict[str, Any], reason: Reason | None) -> None:
    assert changed(**changes) is reason


def test_a_refusal_names_the_value() -> None:
    body, _ = body_and_values(values=(digest(1), digest(1)))
    with pytest.raises(InputError) as caught:
        RecordBody.parse(body.payload(), field="record")
    assert caught.value.field == "record.values[1].index"


@given(st.integers(0, 8), st.data())
def test_any_subset_of_the_values_may_be_withheld_and_exactly_that_is_reported(count: int, data: st.DataObject) -> None:
    body, values = body_and_values(data=[f"value {n}" for n in range(count)])
    shown = data.draw(st.sets(st.sampled_from(values)) if values else st.just(set[Value]()))
    withheld = check_values(body, sorted(shown, key=lambda v: v.index))
    assert withheld == tuple(v.index for v in values if v not in shown)


@given(st.integers(0, 2), st.integers(0, 300), st.integers(1, 255))
def test_no_byte_of_a_value_may_change(which: int, at: int, mask: int) -> None:
    body, values = body_and_values(data=("a", "b" * 90, ""))
    raw = bytearray(values[which].salt + values[which].data)
    raw[at % len(raw)] ^= mask
    bent = Value(which + 1, bytes(raw[:SALT_BYTES]), bytes(raw[SALT_BYTES:]))
    with pytest.raises(VerificationError) as caught:
        check_values(body, [*values[:which], bent, *values[which + 1 :]])
    assert caught.value.reason is R.VALUE_CHANGED
    assert caught.value.field == f"record.values[{which + 1}]"


@given(st.binary(max_size=40), st.integers(0, 40))
def test_salt_and_data_cannot_be_cut_elsewhere(data: bytes, cut: int) -> None:
    digests, values = build_values([("t", data, Permission.PUBLIC)], salts())
    body = replace(body_and_values()[0], values=digests)
    whole = values[0].salt + values[0].data
    bent = Value(1, whole[:cut], whole[cut:])
    assert reason_of(lambda: check_values(body, [bent])) is (None if bent == values[0] else R.VALUE_CHANGED)


def test_a_value_s_digest_is_the_documented_one() -> None:
    value = Value(1, b"s" * 16, b"data")
    assert value.digest() == hashlib.sha256(b"idtrace/value/v1" + b"\0" + b"s" * 16 + b"data").digest()


def test_the_record_hash_is_over_the_signed_bytes_alone() -> None:
    shown = record()
    assert shown.hash == signed_hash(Kind.RECORD, shown.signed.payload)
    assert replace(shown, values=()).hash == shown.hash
    assert shown.hash != record(issued_at=1).hash


def test_built_values_are_numbered_from_one_and_check() -> None:
    body, values = body_and_values(ITEM, ["x"] * 3)
    assert [v.index for v in values] == [1, 2, 3]
    assert len({v.digest for v in body.values}) == 3  # equal data, different salts
    assert check_values(body, values) == ()


def test_a_value_too_large_is_refused_by_name() -> None:
    entry = ("t", b"x" * VALUE_BYTES_MAX, Permission.PUBLIC)
    assert len(build_values([entry], salts())[1]) == 1
    with pytest.raises(InputError) as caught:
        build_values([entry, ("t", b"x" * (VALUE_BYTES_MAX + 1), Permission.PUBLIC)], salts())
    assert (caught.value.reason, caught.value.field) == (R.FIELD_TOO_LARGE, "values[2]")


@pytest.mark.parametrize(
    "given_salts",
    [[], [b"s" * 16], [b"s" * 16, b""], repeat(b"s" * 15)],
    ids=["none", "too few", "empty", "too short"],
)
def test_no_value_is_lost_or_left_open_for_want_of_a_salt(given_salts: Any) -> None:
    entries = [("t", b"a", Permission.PUBLIC), ("t", b"b", Permission.PUBLIC)]
    assert reason_of(lambda: build_values(entries, given_salts)) is R.FIELD_MALFORMED


def test_a_body_s_identifier_can_be_peeked_at() -> None:
    assert peek_identifier(record().signed.payload) == ITEM


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", R.FIELD_MISSING),
        (b"\xff", R.FIELD_MISSING),
        (b"[]", R.FIELD_MISSING),
        (b"null", R.FIELD_MISSING),
        (b"{}", R.FIELD_MISSING),
        (b"[" * 60_000, R.FIELD_MISSING),
        (b'{"identifier":' + b"1" * 5_000 + b"}", R.FIELD_MISSING),
        (b'{"identifier":1}', R.FIELD_MALFORMED),
        (b'{"identifier":null}', R.FIELD_MALFORMED),
        (b'{"identifier":""}', R.IDENTIFIER_MALFORMED),
        (b'{"identifier":"A/x"}', R.IDENTIFIER_NOT_CANONICAL),
        (rb'{"identifier":"88/\ud800"}', R.IDENTIFIER_MALFORMED),
    ],
)
def test_a_peek_at_anything_is_typed(payload: bytes, reason: Reason) -> None:
    with pytest.raises(InputError) as caught:
        peek_identifier(payload)
    assert (caught.value.reason, caught.value.field) == (reason, "record.identifier")
    str(caught.value).encode()

"""The short ways of the write path give what the long ways give, value for value, error for error, byte for byte."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace import wire
from idtrace.canonical import BODY_BYTES_MAX, INTEGER_MAX
from idtrace.errors import InputError, Reason, VerificationError
from idtrace.identifier import LABELS_MAX, PREFIX_BYTES_MAX, Identifier, Prefix, _usual_prefix
from idtrace.record import (
    TIME_MAX,
    TTL_SECONDS_MAX,
    VALUE_INDEX_MAX,
    VALUES_MAX,
    Permission,
    Record,
    RecordBody,
    Sealed,
    Value,
    _usual,
    build_values,
    check_values,
    peek_identifier,
)
from idtrace.signature import Signature, Signed
from idtrace.statements import Receipt, _usual_receipt

HASH = "ab" * 32
BODY: dict[str, Any] = {
    "class": "",
    "identifier": "88.118.8/SN-0001",
    "issued_at": 1_900_000_000,
    "kind": "item",
    "previous": "",
    "status": "active",
    "ttl_seconds": 3_600,
    "values": [
        {"digest": HASH, "index": 1, "permission": "public", "type": "lot"},
        {"digest": "0" * 64, "index": 7, "permission": "restricted", "type": "best before"},
    ],
    "version": 1,
}
RECEIPT: dict[str, Any] = {
    "committed_at": 1_900_000_000,
    "identifier": "88.118.8/SN-0001",
    "record_hash": HASH,
    "version": 1,
    "zone": "88.118.8",
}


def packed(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8", "surrogatepass")


def outcome(read: Any, payload: bytes) -> object:
    try:
        return read(payload)
    except InputError as error:
        return (type(error), error.reason, error.detail, error.field)


def alike(payload: bytes) -> None:
    """Both ways agree; and what stands first in the body, its identifier, is the one that the strict way finds."""
    _usual.cache_clear()
    strictly = outcome(RecordBody.parse_strictly, payload)
    assert outcome(RecordBody.parse, payload) == strictly
    if isinstance(strictly, RecordBody):
        assert peek_identifier(payload) == strictly.identifier
        assert strictly.payload() == payload


VALUE = BODY["values"][0]
NUMBERS = st.sampled_from(
    [
        -1,
        0,
        1,
        2,
        10**9,
        TTL_SECONDS_MAX,
        TTL_SECONDS_MAX + 1,
        TIME_MAX,
        TIME_MAX + 1,
        10**15 - 1,
        10**15,
        INTEGER_MAX,
        INTEGER_MAX + 1,
        VALUE_INDEX_MAX,
        VALUE_INDEX_MAX + 1,
        10**400,
        1.0,
        True,
        None,
        "1",
    ]
)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(min_codepoint=0x1F, max_codepoint=0x80), max_size=140),
    st.sampled_from(
        ["", " ", " a", "a ", 'a"b', "a\\b", "a/b", "A.b/c", "88.118.8/x y", "é", "e\u0301", "\ud800", "\x7f"]
    ),
    st.sampled_from(["item", "class", "block", "tombstone", "active", "suspended", "recalled", "retired", "public"]),
    st.sampled_from([HASH, HASH.upper(), HASH[:-1], "88/" + "x" * 252, "88/" + "x" * 253, "a" * 65 + "/x", "t" * 129]),
)
LISTED = st.lists(
    st.builds(
        lambda index, changes: VALUE | {"index": index} | changes,
        st.one_of(st.integers(0, 12), NUMBERS),
        st.dictionaries(st.sampled_from(["digest", "permission", "type", "extra"]), TEXTS, max_size=1),
    ),
    max_size=4,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("class", "identifier", "kind", "previous", "status", "more"), TEXTS),
        **dict.fromkeys(("issued_at", "ttl_seconds", "version"), NUMBERS),
        "values": st.one_of(LISTED, TEXTS),
    },
)


@given(FIELDS)
def test_a_body_with_any_fields_reads_the_same_both_ways(changes: dict[str, Any]) -> None:
    alike(packed(BODY | changes))


@given(st.data())
def test_a_body_with_any_bytes_changed_reads_the_same_both_ways(data: st.DataObject) -> None:
    payload = packed(BODY)
    start = data.draw(st.integers(0, len(payload)))
    end = data.draw(st.integers(start, min(len(payload), start + 3)))
    put = data.draw(
        st.one_of(st.binary(max_size=3), st.sampled_from([b" ", b",", b'"', b"\\", b"0", b"\n", b"}", b"{"]))
    )
    alike(payload[:start] + put + payload[end:])


@given(st.permutations(list(BODY)), st.sampled_from([(",", ":"), (", ", ":"), (",", ": ")]))
def test_another_order_or_spacing_is_refused_both_ways(order: list[str], separators: tuple[str, str]) -> None:
    alike(json.dumps({name: BODY[name] for name in order}, separators=separators).encode())


@pytest.mark.parametrize(
    "payload",
    [
        packed(BODY).replace(b'"version":1', b'"version":1,"version":1'),
        packed(BODY).replace(b"lot", b"l\\u006ft"),
        packed(BODY).replace(b"},{", b"};{"),
        packed(BODY).replace(b"},{", b"}{"),
        packed(BODY).replace(b'"version":1', b'"version":01'),
        packed(BODY).replace(b'"version":1', b'"version":1.0'),
        packed(BODY).replace(b'"version":1', b'"version":\xd9\xa1'),
        packed(BODY).replace(b"SN", b"\xff\xfe"),
        b"\xef\xbb\xbf" + packed(BODY),
        packed(BODY) + b"\n",
        packed(BODY | {"values": [VALUE | {"index": n + 1} for n in range(VALUES_MAX)]}),
        packed(BODY | {"values": [VALUE | {"index": n + 1} for n in range(VALUES_MAX + 1)]}),
        packed(BODY | {"values": [VALUE | {"index": n + 1} for n in range(BODY_BYTES_MAX // 90)]}),
        packed(BODY | {"values": [VALUE, VALUE]}),
        packed(BODY | {"values": [VALUE | {"type": 'x"},{"digest":"'}]}),
        packed(BODY | {"version": 2, "previous": HASH, "kind": "tombstone", "status": "retired", "values": []}),
        packed(BODY | {"kind": "other"}),
        packed(BODY | {"class": "88/no\u0301"}),
        b"",
        b"[]",
    ],
)
def test_what_only_looks_usual_reads_the_same_both_ways(payload: bytes) -> None:
    alike(payload)


def test_the_usual_body_takes_the_short_way_and_no_other_does() -> None:
    assert _usual(packed(BODY)) == RecordBody.parse_strictly(packed(BODY))
    assert _usual(packed(BODY | {"class": "88.118.8/C"})) is not None
    for changes in (
        {"identifier": "88.118.8/\u836f"},
        {"version": 2},
        {"kind": "tombstone"},
        {"issued_at": TIME_MAX + 1},
    ):
        assert _usual(packed(BODY | changes)) is None


@given(
    st.dictionaries(st.sampled_from(["identifier", "record_hash", "zone"]), TEXTS),
    st.dictionaries(st.sampled_from(["committed_at", "version"]), NUMBERS),
)
def test_a_receipt_with_any_fields_reads_the_same_both_ways(texts: dict[str, str], numbers: dict[str, Any]) -> None:
    payload = packed(RECEIPT | texts | numbers)
    usual = _usual_receipt(payload)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("idtrace.statements._usual_receipt", lambda _: None)
        strictly = outcome(Receipt.parse, payload)
    assert usual is None or usual == strictly
    assert outcome(Receipt.parse, payload) == strictly


def test_the_usual_receipt_takes_the_short_way() -> None:
    read = _usual_receipt(packed(RECEIPT))
    assert read is not None
    assert read.payload() == packed(RECEIPT)
    assert _usual_receipt(packed(RECEIPT | {"zone": "88..8"})) is None
    assert _usual_receipt(packed(RECEIPT | {"committed_at": TIME_MAX + 1})) is None


@given(st.text("ab0.-_A\u00e9", max_size=PREFIX_BYTES_MAX + 2))
def test_a_prefix_is_remembered_only_in_its_canonical_form(text: str) -> None:
    try:
        prefix: Prefix | None = Prefix.parse_canonical(text)
    except InputError:
        prefix = None
    if text and len(text) <= PREFIX_BYTES_MAX:
        assert _usual_prefix(text) == prefix
    assert _usual_prefix(".".join("a" * (LABELS_MAX + 1))) is None


def test_as_many_prefixes_as_anybody_asks_for_are_remembered_within_a_bound() -> None:
    for number in range(5_000):
        Identifier.parse(f"88.{number}/x")
    assert _usual_prefix.cache_info().currsize <= 4_096
    assert Identifier.parse("88.0/x") == Identifier(Prefix(("88", "0")), "x")


@pytest.mark.parametrize("change", [{"data": b"other"}, {"salt": b"short"}, {"index": 9}])
def test_a_value_that_was_not_signed_is_found_among_those_that_were(change: dict[str, Any]) -> None:
    digests, values = build_values(
        [("a", b"1", Permission.PUBLIC), ("b", b"2", Permission.PUBLIC)], (os.urandom(16) for _ in range(2))
    )
    body = replace(RecordBody.parse(packed(BODY)), values=digests)
    assert check_values(body, values) == ()
    assert check_values(body, values[1:]) == (1,)
    with pytest.raises(Exception, match=r"value|VALUE") as caught:
        check_values(body, (values[0], replace(values[1], **change)))
    with pytest.raises(VerificationError) as twice:
        check_values(body, (values[0], values[0]))
    assert twice.value.reason is Reason.VALUE_DUPLICATE
    expected = Reason.VALUE_UNSIGNED if "index" in change else Reason.VALUE_CHANGED
    assert getattr(caught.value, "reason", None) is expected


SEAL = Signed("type", b"seal" * 70, (Signature("0" * 32, "ed25519", b"s" * 64),))
VALUES = st.builds(
    Value,
    st.sampled_from([0, 1, 127, 128, VALUE_INDEX_MAX]),
    st.sampled_from([b"s" * 16, b"", b"s" * 17]),
    st.sampled_from([b"", b"d", b"d" * 105, b"d" * 106, b"d" * 128, b"d" * 4_096]),
)
PATHS = st.lists(st.sampled_from([b"h" * 32, b"g" * 32, b"", b"short"]), max_size=4)


@given(
    st.binary(max_size=200),
    st.sampled_from([(), SEAL.signatures, SEAL.signatures * 8]),
    st.lists(VALUES, max_size=3),
    st.none() | st.builds(Sealed, st.just(SEAL), st.sampled_from([0, 1, 127, 128, 16_384, 2**20]), PATHS.map(tuple)),
)
def test_a_stored_record_has_the_bytes_that_protobuf_gives(
    payload: bytes, signatures: tuple[Signature, ...], values: list[Value], sealed: Sealed | None
) -> None:
    record = Record(Signed("t" if payload else "", payload, signatures), tuple(values), sealed)
    assert wire.record_to_bytes(record) == wire.record_to_pb(record).SerializeToString(deterministic=True)

"""Bundles: two forms of the same bytes, and no byte of either may change, vanish or double unnoticed."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from idtrace.bundle import BUNDLE_BYTES_MAX, Bundle, Denied, Revoked, Verdict
from idtrace.errors import InputError, Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.record import VALUE_BYTES_MAX, VALUES_MAX, Record, Value
from idtrace.signature import Signature, Signed
from idtrace.wire import bundle_from_bytes, bundle_to_bytes
from tests.core_fixtures import (
    ITEM,
    ZONE,
    bundle,
    delegate,
    denial,
    denied,
    links,
    reason_of,
    record,
    report,
    revocation,
    tombstone,
    with_last,
)

R = Reason
REVOKED = with_last(delegate(revocation(ZONE)))
KINDS = ["record", "tombstone", "denial", "revocation"]


def made(serial: int, depth: int, kind: str, values: int, withheld: int) -> Bundle:
    """A sound bundle: of this depth, outcome and number of values, of which a bit mask tells the withheld ones."""
    zone = ".".join(ZONE.split(".")[:depth])
    item = Identifier.parse(f"{zone}/SN-{serial}")
    match kind:
        case "record":
            shown = record(item, data=[f"value {n}" for n in range(values)])
            kept = tuple(v for v in shown.values if not withheld >> v.index & 1)
            return bundle(replace(shown, values=kept), identifier=item)
        case "tombstone":
            return bundle(tombstone(item), identifier=item)
        case "denial":
            return denied(denial(item, zone=zone), links(zone), item)
        case _:
            last = delegate(revocation(zone))
            return Bundle(item, (*links(zone)[:-1], last), Revoked(Prefix.parse(zone)))


def mutated(data: bytes, how: str, at: int, other: int) -> bytes:
    """One accident or attack on a file; the positions are taken modulo its length."""
    i, j = at % len(data), other % len(data)
    match how:
        case "flip":
            return data[:i] + bytes([data[i] ^ (1 << other % 8)]) + data[i + 1 :]
        case "drop":
            return data[:i] + data[i + 1 :]
        case "truncate":
            return data[:i]
        case "double":
            return data[: i + 1] + data[i:]
        case _:
            swapped = bytearray(data)
            swapped[i], swapped[j] = data[j], data[i]
            return bytes(swapped)


HOWS = ["flip", "drop", "truncate", "double", "swap"]
shapes = st.tuples(st.integers(1, 3), st.sampled_from(KINDS), st.integers(0, 6), st.integers(0, 127))
bundles = st.builds(lambda serial, shape: made(serial, *shape), st.integers(0, 2**40), shapes)


def from_file(data: bytes) -> Bundle:
    """The JSON form as a program reads it that lets bad UTF-8 through, so that the reader itself has to judge."""
    return Bundle.from_json(data.decode("utf-8", "surrogateescape"))


def accepted(read: Callable[[bytes], Bundle], data: bytes) -> bool:
    """Whether the file verifies; any exception but a typed one for malformed input goes through."""
    try:
        return report(read(data)).valid
    except InputError:
        return False


def test_of_a_thousand_bundles_no_changed_byte_is_accepted() -> None:
    seen: set[bytes] = set()

    @settings(max_examples=1_000, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
    @given(shapes, st.binary(min_size=80, max_size=80))
    def attack(shape: tuple[int, str, int, int], places: bytes) -> None:
        whole = made(len(seen), *shape)  # a serial of its own makes each bundle another one
        seen.add(whole.digest())
        assert len(seen) > 100 or report(whole).valid  # that these are sound is shown on the first hundred
        at = iter(struct.unpack(">20I", places))
        for read, data in ((bundle_from_bytes, bundle_to_bytes(whole)), (from_file, whole.to_json().encode())):
            assert read(data) == whole
            for how in HOWS:
                bent = mutated(data, how, next(at), next(at))
                assert bent == data or not accepted(read, bent), how

    attack()
    assert len(seen) >= 1_000


@pytest.mark.parametrize("kind", ["record", "revocation"])
def test_every_single_byte_counts(kind: str) -> None:
    whole = made(7, 1, kind, 1, 0)
    for read, data in ((bundle_from_bytes, bundle_to_bytes(whole)), (from_file, whole.to_json().encode())):
        for at in range(len(data)):
            for how in ("flip", "drop"):
                assert reason_of(partial(read, mutated(data, how, at, at))) is not None, (how, at)


@given(bundles)
def test_both_forms_bring_the_same_bundle_back(whole: Bundle) -> None:
    assert bundle_from_bytes(bundle_to_bytes(whole)) == whole
    assert Bundle.from_json(whole.to_json()) == whole


words = st.sampled_from(["", "a", "ab", "b", "1"])
raws = words.map(str.encode)
signatures = st.lists(st.builds(Signature, words, words, raws), max_size=2).map(tuple)
signed = st.builds(Signed, words, raws, signatures)
values = st.lists(st.builds(Value, st.integers(0, 2), raws, raws), max_size=2).map(tuple)
revoked = st.sampled_from([Revoked(Prefix.parse("88")), Revoked(Prefix.parse(""))])
outcomes = st.builds(Record, signed, values) | st.builds(Denied, signed) | revoked
anything = st.builds(Bundle, st.just(ITEM), st.lists(signed, max_size=2).map(tuple), outcomes)


@given(st.lists(anything, min_size=2, max_size=6))
def test_two_different_bundles_never_share_a_digest(many: list[Bundle]) -> None:
    assert len({one.digest() for one in many}) == len(set(many))


def shifted(one: bytes, two: bytes) -> list[tuple[bytes, bytes]]:
    """Every other cut of the same bytes in two."""
    whole = one + two
    return [(whole[:n], whole[n:]) for n in range(len(whole) + 1) if n != len(one)]


def test_no_byte_moves_between_two_parts() -> None:
    def with_value(salt: bytes, data: bytes) -> Bundle:
        return bundle(Record(links()[0], (Value(1, salt, data),)))

    def with_type(type_: bytes, payload: bytes) -> Bundle:
        return bundle(Denied(Signed(type_.decode(), payload, ())))

    def with_names(key_id: bytes, algorithm: bytes) -> Bundle:
        return bundle(Denied(Signed("t", b"p", (Signature(key_id.decode(), algorithm.decode(), b"s"),))))

    for make in (with_value, with_type, with_names):
        digests = {make(*cut).digest() for cut in [(b"abc", b"def"), *shifted(b"abc", b"def")]}
        assert len(digests) == 7
    first = links()
    as_links = Bundle(ITEM, first, Denied(first[0]))
    assert as_links.digest() != Bundle(ITEM, first[:-1], Denied(first[0])).digest()


def test_no_part_becomes_one_of_another_kind() -> None:
    """Pairs whose parts are the same in a row, so that only the counts between them tell the two apart."""
    bare, signed_once = Signed("t", b"p", ()), Signed("t", b"p", (Signature("1", "a", b"s"),))
    as_value = bundle(Record(bare, (Value(1, b"a", b"s"),)))
    assert bundle(Record(signed_once, ())).digest() != as_value.digest()
    link = Signed("record", b"P", (Signature("0", "5", b"s"),))
    inner = Record(Signed("P", b"1", ()), (Value(5, b"s", b"record"), Value(7, b"p", b"0")))
    assert bundle(Record(Signed("7", b"p", ()), ()), (link,)).digest() != bundle(inner, ()).digest()


def edited(change: Callable[[dict[str, Any]], object], whole: Bundle | None = None) -> str:
    """The JSON form with something changed in it, written again as we write it."""
    body = json.loads((whole or bundle()).to_json())
    change(body)
    return json.dumps(body, ensure_ascii=False, indent=1) + "\n"


def put(*path: Any, value: object) -> Callable[[dict[str, Any]], object]:
    def change(body: Any) -> None:
        for step in path[:-1]:
            body = body[step]
        body[path[-1]] = value

    return change


RECORD = ("record", "values", 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put("format", value="idtrace-bundle/v2"), R.BUNDLE_MALFORMED),
        (put("format", value=1), R.FIELD_MALFORMED),
        (put("identifier", value="88.118.8A/SN-0001"), R.IDENTIFIER_NOT_CANONICAL),
        (put("identifier", value="88.118.8/SN-0002"), R.BUNDLE_DIGEST),
        (put("digest", value="00" * 32), R.BUNDLE_DIGEST),
        (put("digest", value="AB" * 32), R.FIELD_MALFORMED),
        (put("extra", value=1), R.FIELD_MALFORMED),
        (put("denial", value={}), R.FIELD_MALFORMED),
        (put("revocation", value="88"), R.FIELD_MALFORMED),
        (put("record", value=None), R.FIELD_MALFORMED),
        (put("delegations", value={}), R.FIELD_MALFORMED),
        (put("delegations", value=[{}] * 10), R.FIELD_TOO_LARGE),
        (put("delegations", 0, "extra", value=1), R.FIELD_MALFORMED),
        (put("delegations", 0, "payload", value=1), R.FIELD_MALFORMED),
        (put("delegations", 0, "payload_type", value="x" * 129), R.FIELD_TOO_LARGE),
        (put("delegations", 0, "signatures", value=[{}] * 9), R.FIELD_TOO_LARGE),
        (put("delegations", 0, "signatures", 0, "extra", value=1), R.FIELD_MALFORMED),
        (put("delegations", 0, "signatures", 0, "signature", value="%%%%"), R.BUNDLE_MALFORMED),
        (put("delegations", 0, "signatures", 0, "signature", value="é"), R.BUNDLE_MALFORMED),
        (put("record", "extra", value=1), R.FIELD_MALFORMED),
        (put("record", "values", value=[{}] * (VALUES_MAX + 1)), R.FIELD_TOO_LARGE),
        (put(*RECORD, "extra", value=1), R.FIELD_MALFORMED),
        (put(*RECORD, "index", value=1.0), R.FIELD_MALFORMED),
        (put(*RECORD, "index", value=float("nan")), R.FIELD_MALFORMED),
        (put(*RECORD, "index", value=True), R.FIELD_MALFORMED),
        (put(*RECORD, "salt", value="AAA"), R.BUNDLE_MALFORMED),
    ],
)
def test_the_json_form_is_read_strictly(change: Callable[[dict[str, Any]], object], reason: Reason) -> None:
    assert reason_of(lambda: Bundle.from_json(edited(change))) is reason


TEXT = bundle().to_json()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '"x"',
        "null",
        TEXT + "\n",
        TEXT[:-1],
        "\ufeff" + TEXT,
        " " + TEXT,
        TEXT.replace("\n", "\r\n"),
        TEXT.replace('"format"', '"\\u0066ormat"'),
        TEXT.replace('"format": ', '"format": "x", "format": ', 1),
        TEXT.replace('"index": 1', '"index": 1e0'),
        TEXT.replace("88.118.8/SN-0001", "88.118.8\\/SN-0001", 1),
        "[" * 100_000,
        '{"a":' * 100_000,
        json.dumps(json.loads(TEXT)),
        TEXT.replace('"index": 1', '"index": ' + "1" * 5_000),
    ],
)
def test_only_the_text_that_we_write_is_read(text: str) -> None:
    assert text != TEXT
    assert reason_of(lambda: Bundle.from_json(text)) in {R.BUNDLE_MALFORMED, R.FIELD_MALFORMED}


def place_of(name: str) -> tuple[Any, ...]:
    signature = ("delegations", 0, "signatures", 0)
    return {
        "payload": ("delegations", 0, "payload"),
        "payload_type": ("delegations", 0, "payload_type"),
        "key_id": (*signature, "key_id"),
        "algorithm": (*signature, "algorithm"),
        "identifier": ("identifier",),
        "format": ("format",),
    }[name]


@pytest.mark.parametrize("name", ["payload", "payload_type", "key_id", "algorithm", "identifier", "format"])
@pytest.mark.parametrize("escaped", [True, False])
def test_an_unpaired_surrogate_is_malformed_wherever_it_stands(name: str, escaped: bool) -> None:
    for surrogate in ("\ud800", "\udcff", "\udfff"):
        text = edited(put(*place_of(name), value=surrogate))
        if escaped:
            text = text.replace(surrogate, f"\\u{ord(surrogate):04x}")
        with pytest.raises(InputError) as caught:
            Bundle.from_json(text)
        str(caught.value).encode()


def test_an_unpaired_surrogate_in_a_key_is_malformed() -> None:
    with pytest.raises(InputError) as caught:
        Bundle.from_json(edited(put("\ud800", value=1)))
    str(caught.value).encode()


def test_a_payload_that_is_no_text_has_no_json_form() -> None:
    torn = bundle(Denied(replace(denial(), payload=b"\xff")))
    assert not report(torn).valid
    assert reason_of(torn.to_json) is R.BUNDLE_MALFORMED


@pytest.mark.parametrize(
    "value",
    [
        Value(0, bytes(16), b""),
        Value(2**31, bytes(16), b""),
        Value(2**53 - 1, bytes(16), b""),
        Value(1, bytes(15), b""),
        Value(1, bytes(17), b""),
        Value(1, bytes(16), bytes(VALUE_BYTES_MAX + 1)),
    ],
)
def test_the_json_form_holds_nothing_that_the_binary_form_cannot(value: Value) -> None:
    text = bundle(replace(record(), values=(value,))).to_json()
    assert reason_of(lambda: Bundle.from_json(text)) in {R.FIELD_MALFORMED, R.FIELD_TOO_LARGE}


def test_a_bundle_over_two_mebibytes_is_not_even_parsed() -> None:
    assert reason_of(lambda: Bundle.from_json(" " * (BUNDLE_BYTES_MAX + 1))) is R.BUNDLE_MALFORMED
    assert reason_of(lambda: Bundle.from_json("é" * (BUNDLE_BYTES_MAX // 2 + 1))) is R.BUNDLE_MALFORMED
    assert reason_of(lambda: bundle_from_bytes(bytes(BUNDLE_BYTES_MAX + 1))) is R.BUNDLE_MALFORMED


def test_the_largest_record_fits_both_forms() -> None:
    full = record(data=["x" * VALUE_BYTES_MAX] * VALUES_MAX)
    whole = bundle(full)
    assert report(bundle_from_bytes(bundle_to_bytes(whole))).verdict is Verdict.FOUND
    assert report(Bundle.from_json(whole.to_json())).verdict is Verdict.FOUND


def test_the_json_form_is_readable() -> None:
    body = json.loads(bundle().to_json())
    assert json.loads(body["record"]["signed"]["payload"])["identifier"] == str(ITEM)
    assert base64.b64decode(body["record"]["values"][0]["data"]) == b"a"
    assert list(body) == ["format", "identifier", "delegations", "record", "digest"]

"""Bodies: one byte form for one meaning. Every other spelling of the same JSON is refused, signed or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import Any

import pytest
import rfc8785
from hypothesis import assume, given
from hypothesis import strategies as st

from idtrace import canonical
from idtrace.bundle import Bundle
from idtrace.canonical import BODY_BYTES_MAX, INTEGER_MAX, Fields, Json
from idtrace.errors import InputError, Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.signature import Kind, Signed, sign
from tests.core_fixtures import (
    ZONE,
    Lie,
    body_and_values,
    bundle,
    delegate,
    delegation,
    denial,
    denied,
    link,
    reason_of,
    signed_record,
    signer,
    with_last,
)

R = Reason
SOUND = body_and_values(data=())[0].payload()


def swap(old: bytes, new: bytes, payload: bytes = SOUND) -> bytes:
    """The sound record body with one spelling changed; what is changed has to be there."""
    assert old in payload
    return payload.replace(old, new, 1)


def nested(depth: int) -> bytes:
    return b'{"a":' + b"[" * depth + b"]" * depth + b"}"


# (name, reason, body): each is signed by the zone's own record key, so that only its form is at fault.
BODIES: list[tuple[str, Reason, Callable[[], bytes]]] = [
    ("duplicate key, last one wins", R.BODY_NOT_CANONICAL, lambda: swap(b'"version":1', b'"version":9,"version":1')),
    ("duplicate key, same value", R.BODY_NOT_CANONICAL, lambda: swap(b'"version":1', b'"version":1,"version":1')),
    ("float", R.FIELD_MALFORMED, lambda: swap(b'"version":1', b'"version":1.0')),
    ("exponent", R.FIELD_MALFORMED, lambda: swap(b'"version":1', b'"version":1e2')),
    ("capital exponent", R.FIELD_MALFORMED, lambda: swap(b'"version":1', b'"version":1E0')),
    ("minus zero", R.BODY_NOT_CANONICAL, lambda: swap(b'"ttl_seconds":3600', b'"ttl_seconds":-0')),
    ("negative", R.FIELD_MALFORMED, lambda: swap(b'"version":1', b'"version":-1')),
    ("leading zero", R.FIELD_MALFORMED, lambda: swap(b'"version":1', b'"version":01')),
    ("plus sign", R.FIELD_MALFORMED, lambda: swap(b'"version":1', b'"version":+1')),
    ("NaN", R.FIELD_MALFORMED, lambda: swap(b'"version":1', b'"version":NaN')),
    ("Infinity", R.FIELD_MALFORMED, lambda: swap(b'"version":1', b'"version":-Infinity')),
    ("2**53", R.FIELD_MALFORMED, lambda: swap(b'"version":1', b'"version":9007199254740992')),
    ("-2**53", R.FIELD_MALFORMED, lambda: swap(b'"version":1', b'"version":-9007199254740992')),
    ("ten thousand digits", R.FIELD_MALFORMED, lambda: swap(b'"version":1', b'"version":' + b"1" * 10_000)),
    ("null", R.FIELD_MALFORMED, lambda: swap(b'"class":""', b'"class":null')),
    ("true for a number", R.FIELD_MALFORMED, lambda: swap(b'"version":1', b'"version":true')),
    ("text for a number", R.FIELD_MALFORMED, lambda: swap(b'"version":1', b'"version":"1"')),
    ("number for a text", R.FIELD_MALFORMED, lambda: swap(b'"class":""', b'"class":0')),
    ("list for a choice", R.FIELD_MALFORMED, lambda: swap(b'"status":"active"', b'"status":["active"]')),
    ("object for a list", R.FIELD_MALFORMED, lambda: swap(b'"values":[]', b'"values":{}')),
    ("unknown field", R.FIELD_MALFORMED, lambda: swap(b'"version":1', b'"version":1,"zz":1')),
    ("missing field", R.FIELD_MISSING, lambda: swap(b'"kind":"item",', b"")),
    ("byte order mark", R.FIELD_MALFORMED, lambda: b"\xef\xbb\xbf" + SOUND),
    ("space inside", R.BODY_NOT_CANONICAL, lambda: swap(b'"version":1', b'"version": 1')),
    ("line feed at the end", R.BODY_NOT_CANONICAL, lambda: SOUND + b"\n"),
    ("zero byte at the end", R.FIELD_MALFORMED, lambda: SOUND + b"\0"),
    ("two bodies", R.FIELD_MALFORMED, lambda: SOUND * 2),
    ("cut", R.FIELD_MALFORMED, lambda: SOUND[:-1]),
    ("nothing", R.FIELD_MALFORMED, lambda: b""),
    ("not UTF-8", R.FIELD_MALFORMED, lambda: swap(b"SN-0001", b"SN-\xff001")),
    ("overlong UTF-8", R.FIELD_MALFORMED, lambda: swap(b"SN-0001", b"SN-\xc0\xaf01")),
    ("surrogate in UTF-8", R.FIELD_MALFORMED, lambda: swap(b"SN-0001", b"SN-\xed\xa0\x80")),
    ("UTF-16", R.FIELD_MALFORMED, lambda: SOUND.decode().encode("utf-16")),
    ("unpaired surrogate escape", R.FIELD_MALFORMED, lambda: swap(b"SN-0001", rb"SN-\ud800")),
    ("escaped ASCII", R.BODY_NOT_CANONICAL, lambda: swap(b"SN-0001", rb"\u0053N-0001")),
    ("escaped slash", R.BODY_NOT_CANONICAL, lambda: swap(b"88.118.8/", rb"88.118.8\/")),
    ("escaped key", R.BODY_NOT_CANONICAL, lambda: swap(b'"kind"', rb'"\u006bind"')),
    ("raw control character", R.FIELD_MALFORMED, lambda: swap(b"SN-0001", b"SN\t0001")),
    ("escaped control character", R.IDENTIFIER_MALFORMED, lambda: swap(b"SN-0001", rb"SN\t0001")),
    ("long form of an escape", R.BODY_NOT_CANONICAL, lambda: swap(b"SN-0001", rb"SN\u0009001")),
    (
        "keys not sorted",
        R.BODY_NOT_CANONICAL,
        lambda: json.dumps(dict(reversed(json.loads(SOUND).items())), separators=(",", ":")).encode(),
    ),
    ("upper-case digest", R.FIELD_MALFORMED, lambda: swap(b'"previous":""', b'"previous":"' + b"AB" * 32 + b'"')),
    ("digest of 63 digits", R.FIELD_MALFORMED, lambda: swap(b'"previous":""', b'"previous":"' + b"a" * 63 + b'"')),
    ("capital letters in a prefix", R.IDENTIFIER_NOT_CANONICAL, lambda: swap(b"88.118.8/", b"88.118.8A/")),
    ("a list", R.FIELD_MALFORMED, lambda: b"[]"),
    ("a string", R.FIELD_MALFORMED, lambda: b'"{}"'),
    ("a number", R.FIELD_MALFORMED, lambda: b"1"),
    ("comment", R.FIELD_MALFORMED, lambda: SOUND + b"//"),
    ("trailing comma", R.FIELD_MALFORMED, lambda: swap(b'"version":1', b'"version":1,')),
    ("single quotes", R.FIELD_MALFORMED, lambda: SOUND.replace(b'"', b"'")),
    ("5,000 nested lists", R.FIELD_MALFORMED, lambda: nested(5_000)),
    ("30,000 nested lists", R.FIELD_MALFORMED, lambda: nested(30_000)),
    ("30,000 open brackets", R.FIELD_MALFORMED, lambda: b"[" * 30_000),
    ("65,537 bytes", R.FIELD_TOO_LARGE, lambda: SOUND + b" " * (BODY_BYTES_MAX + 1 - len(SOUND))),
]


def signed_by_its_owner(make: Callable[[], bytes]) -> Bundle:
    return bundle(signed_record(make()))


LIES = [Lie(name, reason, partial(signed_by_its_owner, make)) for name, reason, make in BODIES]


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_no_spelling_but_one_is_read_even_if_its_owner_signs_it(lie: Lie) -> None:
    assert reason_of(lie.told) is lie.reason


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b":[", b": [", R.BODY_NOT_CANONICAL),
        (b'"version":1', b'"version":1,"version":1', R.BODY_NOT_CANONICAL),
        (b'"version":1', b'"version":1.0', R.FIELD_MALFORMED),
        (b'"version":1', b'"version":1,"extra":1', R.BODY_NOT_CANONICAL),
        (b'"hosted":false', b'"hosted":0', R.FIELD_MALFORMED),
        (b'"hosted":false', b'"hosted":null', R.FIELD_MALFORMED),
        (b'"keys":[{', b'"keys":[[],{', R.FIELD_MALFORMED),
        (b'"endpoints":["', b'"endpoints":[0,"', R.FIELD_MALFORMED),
    ],
)
def test_delegations_have_one_spelling_too(old: bytes, new: bytes, reason: Reason) -> None:
    payload = swap(old, new, delegation(ZONE).payload())
    signed = sign(Kind.DELEGATION, payload, signer("zone of 88.118"))
    assert reason_of(lambda: bundle(delegations=with_last(signed))) is reason


def test_denials_have_one_spelling_too() -> None:
    payload = denial().payload
    for forged in (payload.replace(b":", b": ", 1), payload + b" ", payload.replace(b"SN", rb"\u0053N")):
        signed = sign(Kind.DENIAL, forged, signer(f"node of {ZONE}"))
        assert reason_of(partial(denied, signed)) is R.BODY_NOT_CANONICAL


keys = st.text(st.characters(max_codepoint=127), max_size=5)
leaves = st.booleans() | st.integers(-INTEGER_MAX, INTEGER_MAX) | st.text(max_size=12)
branches = st.lists(leaves, max_size=3) | st.dictionaries(keys, leaves, max_size=3)
json_bodies: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    keys, leaves | branches | st.lists(branches, max_size=2), max_size=4
)


@given(json_bodies)
def test_encoding_equals_the_reference_implementation_of_rfc_8785(body: dict[str, Json]) -> None:
    assert canonical.encode(body) == rfc8785.dumps(body)


@given(json_bodies)
def test_whatever_we_encode_we_decode_again_and_to_the_same(body: dict[str, Json]) -> None:
    fields = canonical.decode(canonical.encode(body), field="x")
    assert fields._body == body


@given(json_bodies, st.integers(0, 400), st.binary(min_size=1, max_size=3))
def test_what_is_read_is_its_own_canonical_form(body: dict[str, Json], at: int, junk: bytes) -> None:
    payload = canonical.encode(body)
    mutated = payload[:at] + junk + payload[at + len(junk) :]
    try:
        fields = canonical.decode(mutated, field="x")
    except InputError:
        return
    assert canonical.encode(fields._body) == mutated


@given(st.binary(max_size=60))
def test_any_bytes_end_in_a_body_or_a_typed_refusal(payload: bytes) -> None:
    assume(payload != b"{}")
    with pytest.raises(InputError) as caught:
        canonical.decode(payload, field="x")
    assert caught.value.field == "x"


@pytest.mark.parametrize("value", [INTEGER_MAX, -INTEGER_MAX, -1, 0, 1])
def test_integers_are_read_with_their_sign(value: int) -> None:
    fields = canonical.decode(canonical.encode({"n": value}), field="x")
    assert fields.integer("n", least=-INTEGER_MAX) == value


def test_a_body_of_exactly_the_limit_is_read() -> None:
    payload = canonical.encode({"a": "x" * (BODY_BYTES_MAX - 8)})
    assert len(payload) == BODY_BYTES_MAX
    assert len(canonical.decode(payload, field="x").text("a", most=BODY_BYTES_MAX)) == BODY_BYTES_MAX - 8


class Colour(StrEnum):
    RED = "red"


def one(value: object) -> Fields:
    return Fields({"a": value}, "body")


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (lambda: one(1).text("a", most=9), R.FIELD_MALFORMED),
        (lambda: one("ab").text("a", most=1), R.FIELD_TOO_LARGE),
        (lambda: one("").text("a", most=9, least=1), R.FIELD_MALFORMED),
        (lambda: one("\ud800").text("a", most=9), R.FIELD_MALFORMED),
        (lambda: one("").text("b", most=9), R.FIELD_MISSING),
        (lambda: one("1").integer("a"), R.FIELD_MALFORMED),
        (lambda: one(1.0).integer("a"), R.FIELD_MALFORMED),
        (lambda: one(True).integer("a"), R.FIELD_MALFORMED),
        (lambda: one(0).integer("a", least=1), R.FIELD_MALFORMED),
        (lambda: one(2).integer("a", most=1), R.FIELD_MALFORMED),
        (lambda: one(1).boolean("a"), R.FIELD_MALFORMED),
        (lambda: one("blue").choice("a", Colour), R.FIELD_MALFORMED),
        (lambda: one(["red"]).choice("a", Colour), R.FIELD_MALFORMED),
        (lambda: one({}).choice("a", Colour), R.FIELD_MALFORMED),
        (lambda: one("").digest("a"), R.FIELD_MALFORMED),
        (lambda: one("a" * 65).digest("a"), R.FIELD_TOO_LARGE),
        (lambda: one("٣" * 64).digest("a"), R.FIELD_MALFORMED),
        (lambda: one("").identifier("a"), R.IDENTIFIER_MALFORMED),
        (lambda: one("A/x").optional_identifier("a"), R.IDENTIFIER_NOT_CANONICAL),
        (lambda: one("A").prefix("a"), R.IDENTIFIER_NOT_CANONICAL),
        (lambda: one([]).object("a"), R.FIELD_MALFORMED),
        (lambda: one({}).objects("a", most=9), R.FIELD_MALFORMED),
        (lambda: one([1]).objects("a", most=9), R.FIELD_MALFORMED),
        (lambda: one([{}, {}]).objects("a", most=1), R.FIELD_TOO_LARGE),
        (lambda: one([]).objects("a", most=9, least=1), R.FIELD_MALFORMED),
        (lambda: one([{}]).texts("a", most=9), R.FIELD_MALFORMED),
        (lambda: one(1).end(), R.FIELD_MALFORMED),
    ],
)
def test_each_reader_is_typed_and_bounded(read: Callable[[], object], reason: Reason) -> None:
    with pytest.raises(InputError) as caught:
        read()
    assert caught.value.reason is reason
    assert caught.value.field.startswith("body.")


def test_each_reader_reads() -> None:
    hexed = "0f" * 32
    fields = Fields(
        {"t": "x", "i": 3, "b": True, "c": "red", "d": hexed, "e": "", "id": "88/x", "no": "", "p": "", "o": {"x": 1}}
        | {"os": [{"y": 2}], "ts": ["z"]},
        "",
    )
    assert (fields.text("t", most=1), fields.integer("i"), fields.boolean("b")) == ("x", 3, True)
    assert fields.choice("c", Colour) is Colour.RED
    assert (fields.digest("d"), fields.digest("e", optional=True)) == (bytes.fromhex(hexed), b"")
    assert fields.identifier("id") == Identifier(Prefix(("88",)), "x")
    assert fields.optional_identifier("no") is None
    assert fields.prefix("p").is_root
    assert fields.object("o").path("x") == "o.x"
    assert [item.path("y") for item in fields.objects("os", most=1)] == ["os[0].y"]
    assert fields.texts("ts", most=1) == ["z"]
    fields.end()


@pytest.mark.parametrize("name", ["x" * 5_000, "\ud800", "\x1b[2J", "a\nb", "\u202e"])
def test_an_unknown_field_is_named_within_bounds_and_harmlessly(name: str) -> None:
    with pytest.raises(InputError) as caught:
        Fields({name: 1}, "body").end()
    shown = str(caught.value)
    assert len(shown) < 500
    assert shown.isprintable()


def test_a_field_is_read_once() -> None:
    fields = one("x")
    fields.text("a", most=1)
    assert reason_of(lambda: fields.text("a", most=1)) is R.FIELD_MISSING


def test_the_sound_bodies_are_read() -> None:
    assert reason_of(lambda: bundle(signed_record(SOUND))) is None
    assert reason_of(lambda: bundle(delegations=with_last(delegate(delegation(ZONE))))) is None
    assert isinstance(link(ZONE), Signed)

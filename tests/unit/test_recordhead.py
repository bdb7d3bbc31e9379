"""The short ways through a log's entries give what the long ways give, value or error, whatever the bytes are."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from idtrace.canonical import BODY_BYTES_MAX
from idtrace.entry import Entry
from idtrace.errors import InputError, Reason
from idtrace.identifier import Identifier
from idtrace.record import (
    TIME_MAX,
    TTL_SECONDS_MAX,
    VALUES_MAX,
    Permission,
    RecordBody,
    RecordKind,
    Status,
    ValueDigest,
)
from idtrace.recordhead import RecordHead, read_head
from tests.core_fixtures import ITEM, NOW, body_and_values
from tests.logged_fixtures import entry_of, sealed_records

USUAL = body_and_values()[0]
Outcome = RecordHead | Entry | tuple[Reason, str, str]


def outcome(action: Callable[[], RecordHead | Entry]) -> Outcome:
    """What came of it, errors as values; any other exception is a bug and goes through."""
    try:
        return action()
    except InputError as error:
        return error.reason, error.field, error.detail


def long_way(payload: bytes) -> RecordHead:
    body = RecordBody.parse_strictly(payload)
    return RecordHead(body.identifier, body.version, body.previous, body.kind, body.issued_at)


def agree(payload: bytes) -> Outcome:
    short, long = outcome(lambda: read_head(payload)), outcome(lambda: long_way(payload))
    assert short == long
    return short


SUFFIXES = st.one_of(
    st.text("ABCabc019-._~/:", min_size=1, max_size=12),
    st.text(min_size=1, max_size=8),
    st.sampled_from([" x", 'a"b', "a\\b", "é", "e\u0301", "\u202e", "x" * 250, "", "\ud800"]),
)
PREFIXES = st.sampled_from(["88.118.8", "88", "a" * 64, "x.y.z", "A.B", "88..8", "", ".", "1.2.3.4.5.6.7.8.9", "a_b-c"])
IDENTIFIERS = st.builds("{}/{}".format, PREFIXES, SUFFIXES)
NUMBERS = st.one_of(
    st.integers(-1, 10),
    st.sampled_from(
        [NOW, TIME_MAX, TIME_MAX + 1, TTL_SECONDS_MAX, TTL_SECONDS_MAX + 1, 9_999, 10_000, 2**31, 2**53, 10**20]
    ),
)
DIGESTS = st.sampled_from(["", "0" * 64, "ab" * 32, "AB" * 32, "0" * 63, "g" * 64, "0" * 65])
TEXTS = st.one_of(st.sampled_from(["product", "lot", "", "a b", "x" * 64, "x" * 128, "x" * 129, '"', "\\"]), SUFFIXES)
VALUES = st.fixed_dictionaries(
    {
        "digest": DIGESTS,
        "index": NUMBERS,
        "permission": st.sampled_from(["public", "restricted", "secret"]),
        "type": TEXTS,
    }
)
BODIES = st.fixed_dictionaries(
    {
        "class": st.one_of(st.just(""), IDENTIFIERS),
        "identifier": IDENTIFIERS,
        "issued_at": NUMBERS,
        "kind": st.sampled_from([*RecordKind, "thing", ""]),
        "previous": DIGESTS,
        "status": st.sampled_from([*Status, "broken"]),
        "ttl_seconds": NUMBERS,
        "values": st.lists(VALUES, max_size=3),
        "version": NUMBERS,
    }
)


def spelled(body: object, *, escaped: bool = False, ordered: bool = True, spaced: bool = False) -> bytes:
    """JSON as canonical as it is asked for."""
    separators = (", ", ": ") if spaced else (",", ":")
    text = json.dumps(body, ensure_ascii=escaped, sort_keys=ordered, separators=separators)
    return text.encode("utf-8", "surrogatepass")


@given(BODIES, st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=400)
def test_any_body_is_read_alike(body: dict[str, object], escaped: bool, ordered: bool, spaced: bool) -> None:
    agree(spelled(body, escaped=escaped, ordered=ordered, spaced=spaced))


@st.composite
def sound_bodies(draw: st.DrawFn) -> RecordBody:
    """Bodies that keep all rules; some in the usual form, some not."""
    version = draw(st.sampled_from([1, 2, 3, 10**8, 10**9 - 1, 10**9, 2**53 - 1]))
    kinds = [kind for kind in RecordKind if kind is not RecordKind.TOMBSTONE]
    suffix = draw(st.sampled_from(["SN-0001", "a/b", "x y", "é", "~!#$%&'()*+,-./:;<=>?@[]^_`{|}"]))
    body = RecordBody(
        identifier=Identifier(ITEM.prefix, suffix),
        version=version,
        previous=b"" if version == 1 else bytes(range(32)),
        kind=draw(st.sampled_from(kinds)),
        status=draw(st.sampled_from([Status.ACTIVE, Status.SUSPENDED, Status.RECALLED])),
        issued_at=draw(st.sampled_from([0, NOW, TIME_MAX])),
        ttl_seconds=draw(st.sampled_from([0, 3_600, TTL_SECONDS_MAX])),
        class_id=draw(st.sampled_from([None, Identifier.parse("88/vaccine")])),
        values=tuple(
            ValueDigest(
                index, draw(st.sampled_from(["lot", "a b", "x" * 128, "批号"])), permission, bytes([index % 256]) * 32
            )
            for index, permission in zip(
                sorted(draw(st.sets(st.integers(1, 20_000), max_size=4))),
                [Permission.PUBLIC, Permission.RESTRICTED] * 2,
                strict=False,
            )
        ),
    )
    if version > 1 and draw(st.booleans()):
        body = replace(body, kind=RecordKind.TOMBSTONE, status=Status.RETIRED, values=())
    return body


@given(sound_bodies())
@settings(max_examples=300)
def test_a_sound_body_is_read_alike_and_read(body: RecordBody) -> None:
    head = agree(body.payload())
    assert head == RecordHead(body.identifier, body.version, body.previous, body.kind, body.issued_at)


@given(sound_bodies(), st.data())
@settings(max_examples=600)
def test_a_body_with_a_few_bytes_changed_is_read_alike(body: RecordBody, data: st.DataObject) -> None:
    changed = bytearray(body.payload())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(changed) - 1))
        match data.draw(st.sampled_from(["set", "drop", "insert", "swap"])):
            case "set":
                changed[place] = data.draw(st.integers(0, 255))
            case "drop":
                del changed[place]
            case "insert":
                changed[place:place] = data.draw(
                    st.sampled_from([b"0", b" ", b"\\", b'"', b",", b"\n", b"\\u0041", b"9"])
                )
            case _:
                changed[place], changed[-1 - place] = changed[-1 - place], changed[place]
    agree(bytes(changed))


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"")
@example(b"{}")
@example(b"null")
@example(b'{"class":""')
def test_anything_else_is_refused_alike(payload: bytes) -> None:
    assert isinstance(agree(payload), tuple)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text.replace('"class":"",', '"class":"","class":"",'), id="a key twice"),
        pytest.param(lambda text: text.replace('"version":1', '"version":01'), id="a leading zero"),
        pytest.param(lambda text: text.replace('"version":1', '"version":1.0'), id="a float"),
        pytest.param(lambda text: text.replace('"version":1', '"version":1e0'), id="an exponent"),
        pytest.param(lambda text: text.replace('"version":1', '"version":2'), id="version 2 without previous"),
        pytest.param(lambda text: text.replace('"version":1', f'"version":{10**400}'), id="a number of 400 digits"),
        pytest.param(lambda text: text.replace('"version":1', '"version":true'), id="a boolean for a number"),
        pytest.param(lambda text: text.replace('"version":1}', '"version":1,"zone":""}'), id="a field too many"),
        pytest.param(lambda text: text.replace("item", "tombstone"), id="a tombstone that is active"),
        pytest.param(lambda text: text.replace("active", "retired"), id="an item that is retired"),
        pytest.param(lambda text: text.replace("item", "\\u0069tem"), id="an escape that means the same"),
        pytest.param(lambda text: text.replace('"index":2', '"index":1'), id="an index twice"),
        pytest.param(lambda text: text.replace('"index":1', '"index":3'), id="indexes that go back"),
        pytest.param(lambda text: text.replace("88.118.8/", "88.118.8"), id="no slash"),
        pytest.param(lambda text: text.replace("88.118.8/", "88.118.X/"), id="a prefix in capitals"),
        pytest.param(lambda text: text.replace('"class":""', '"class":"x"'), id="a class that is no identifier"),
        pytest.param(
            lambda text: text.replace('"class":""', '"class":"x"').replace("88.118.8/", "88.118.8"),
            id="two that are none",
        ),
        pytest.param(lambda text: text + "\n", id="a line end"),
        pytest.param(lambda text: text.replace("3600", "172801"), id="a day too long"),
        pytest.param(lambda text: text.replace(str(NOW - 50), str(TIME_MAX + 1)), id="year 10000"),
    ],
)
def test_what_nearly_has_the_usual_form_is_refused_alike(change: Callable[[str], str]) -> None:
    text = USUAL.payload().decode()
    assert change(text) != text
    assert isinstance(agree(change(text).encode()), tuple)


@pytest.mark.parametrize("count", [VALUES_MAX, VALUES_MAX + 1, 600])
def test_as_many_values_as_there_may_be_are_read_alike_and_no_more(count: int) -> None:
    one = USUAL.values[0]
    payload = replace(USUAL, values=tuple(replace(one, index=n + 1) for n in range(count))).payload()
    assert isinstance(agree(payload), RecordHead) == (count <= VALUES_MAX)
    assert (len(payload) > BODY_BYTES_MAX) == (count == 600)


def test_the_usual_form_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = USUAL.payload()
    entry = entry_of(sealed_records(2)[0]).to_bytes()
    sound = (read_head(payload), Entry.from_bytes(entry))
    monkeypatch.setattr(RecordBody, "parse", None)
    monkeypatch.setattr(Entry, "from_any_bytes", None)
    assert (read_head(payload), Entry.from_bytes(entry)) == sound


# Entries


SEALED = entry_of(sealed_records(2)[1]).to_bytes()
HEADS = st.builds(
    "idtrace/entry/v1 {} {} {}\nseal {} {}{}".format,
    st.sampled_from(["record", "seal", "keys", "thing"]),
    st.one_of(PREFIXES, st.sampled_from([".", "88.", "-8", "x" * 65, "88.118.8 "])),
    st.one_of(NUMBERS, st.sampled_from(["01", "", "1e3", "9" * 12])),
    DIGESTS,
    st.one_of(NUMBERS, st.sampled_from(["00", "", "9999999", "10000000"])),
    st.sampled_from(["\n\n", "\n", "", "\n\n\n", f"\nabsent 0 {'0' * 64}\n\n", "\r\n\r\n", "\nseal\n\n"]),
)


def entries_agree(data: bytes) -> None:
    assert outcome(lambda: Entry.from_bytes(data)) == outcome(lambda: Entry.from_any_bytes(data))


@given(HEADS, st.binary(max_size=4))
@settings(max_examples=400)
def test_any_head_of_an_entry_is_read_alike(head: str, payload: bytes) -> None:
    entries_agree(head.encode() + payload)


@given(st.integers(0, len(SEALED) - 1), st.binary(max_size=3), st.integers(0, 3))
@settings(max_examples=400)
def test_an_entry_with_a_few_bytes_changed_is_read_alike(place: int, other: bytes, cut: int) -> None:
    entries_agree(SEALED[:place] + other + SEALED[place + cut :])


def test_an_entry_under_a_seal_is_refused_alike_without_a_payload_and_after_the_last_year() -> None:
    head, separator, _ = SEALED.partition(b"\n\n")
    for data in (head + separator, SEALED.replace(str(NOW).encode(), str(TIME_MAX + 1).encode(), 1)):
        with pytest.raises(InputError):
            Entry.from_bytes(data)
        entries_agree(data)


def test_a_body_that_is_too_long_is_refused_alike_however_usual_its_form_is() -> None:
    values = tuple(ValueDigest(1_000 + n, "x" * 128, Permission.RESTRICTED, bytes(32)) for n in range(VALUES_MAX))
    payload = replace(USUAL, values=values, class_id=Identifier.parse(f"88/{'c' * 200}")).payload()
    assert len(payload) > BODY_BYTES_MAX
    assert isinstance(agree(payload), tuple)

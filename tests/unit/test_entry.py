"""Log entries: every entry comes back from its bytes, and nothing else is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace import entry as module
from idtrace.entry import (
    ABSENT_MAX,
    ENTRY_BYTES_MAX,
    HEAD_BYTES_MAX,
    LOGGED_BODY_BYTES_MAX,
    Entry,
    EntryKind,
    UnderSeal,
)
from idtrace.errors import InputError, Reason
from idtrace.identifier import ROOT, Prefix
from idtrace.record import TIME_MAX
from idtrace.signature import SIGNATURES_MAX, Kind, Signature
from tests.core_fixtures import NOW, record
from tests.logged_fixtures import entry_of, sealed_records

SEALED = sealed_records()
HASHES = st.binary(min_size=32, max_size=32)
ZONES = st.sampled_from([ROOT, Prefix.parse("88"), Prefix.parse("88.118.8"), Prefix.parse(".".join(["x" * 7] * 8))])
SIGNATURES = st.builds(
    Signature,
    st.text("0123456789abcdef", min_size=32, max_size=32),
    st.sampled_from(["ed25519", "ml-dsa-44"]),
    st.binary(min_size=1, max_size=128),
)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    kind = draw(st.sampled_from(EntryKind))
    by: tuple[Signature, ...] | UnderSeal = tuple(draw(st.lists(SIGNATURES, min_size=1, max_size=SIGNATURES_MAX)))
    absent: tuple[tuple[int, bytes], ...] = ()
    if kind is EntryKind.RECORD and draw(st.booleans()):
        by = UnderSeal(draw(HASHES), draw(st.integers(0, 9_999_999)))
    if kind is EntryKind.SEAL:
        absent = tuple(sorted(draw(st.dictionaries(st.integers(0, 9_999_999), HASHES, max_size=5)).items()))
    payload = draw(st.binary(min_size=1, max_size=200))
    return Entry(kind, draw(ZONES), draw(st.integers(0, TIME_MAX)), payload, by, absent)


@given(entries())
def test_an_entry_comes_back_from_its_bytes(entry: Entry) -> None:
    data = entry.to_bytes()
    assert data == entry.head + entry.payload
    again = Entry.from_bytes(data)
    assert again == entry
    assert again.to_bytes() == data
    assert again.signed.payload == entry.payload
    assert again.signed.signatures == (() if isinstance(entry.by, UnderSeal) else entry.by)


@given(entries(), st.data())
def test_one_byte_changed_is_another_entry_or_none(entry: Entry, data: st.DataObject) -> None:
    sound = entry.to_bytes()
    place = data.draw(st.integers(0, len(sound) - 1))
    changed = bytearray(sound)
    changed[place] ^= data.draw(st.integers(1, 255))
    try:
        again = Entry.from_bytes(bytes(changed))
    except InputError:
        return
    assert again != entry
    assert again.to_bytes() == bytes(changed)


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: f"idtrace/entry/v1 {text}".encode()))
def test_anything_else_is_a_typed_error(data: bytes) -> None:
    try:
        entry = Entry.from_bytes(data)
    except InputError:
        return
    assert entry.to_bytes() == data


SOUND = entry_of(record()).to_bytes()
HEAD, _, BODY = SOUND.partition(b"\n\n")
LINE = HEAD.split(b"\n")[1]
SEAL_LINE = b"seal " + b"a" * 64 + b" 7"
FIRST = HEAD.split(b"\n")[0]
OF_SEAL = FIRST.replace(b"record", b"seal")
GONE = b"absent %d " + b"a" * 64


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(HEAD, id="no empty line"),
        pytest.param(HEAD + b"\n\n", id="no payload"),
        pytest.param(SOUND + b"x" * ENTRY_BYTES_MAX, id="too long"),
        pytest.param(SOUND.replace(b"entry/v1", b"entry/v2"), id="another format"),
        pytest.param(SOUND.replace(b" record ", b" receipt "), id="another kind"),
        pytest.param(SOUND.replace(b"entry/v1 ", b"entry/v1  "), id="two spaces"),
        pytest.param(SOUND.replace(b" 1900000000\n", b" 01900000000\n"), id="a zero before the time"),
        pytest.param(SOUND.replace(b" 1900000000\n", b" 253402300800\n"), id="a time after the year 9999"),
        pytest.param(SOUND.replace(b" 1900000000\n", b" -1\n"), id="a negative time"),
        pytest.param(SOUND.replace(b" 1900000000\n", b"\n"), id="no time"),
        pytest.param(SOUND.replace(b" 88.118.8 ", b"  "), id="a root that is spelled as nothing"),
        pytest.param(SOUND.replace(b"\nsignature", "\nsignätur".encode()), id="not ASCII"),
        pytest.param(FIRST + b"\n\n" + BODY, id="neither signature nor seal"),
        pytest.param(b"\n".join([FIRST, *[LINE] * 9]) + b"\n\n" + BODY, id="nine signatures"),
        pytest.param(SOUND.replace(b" ed25519 ", b" ED25519 "), id="an algorithm in capitals"),
        pytest.param(HEAD[:-1] + b"!\n\n" + BODY, id="no base64"),
        pytest.param(HEAD[:-3] + b"x==\n\n" + BODY, id="base64 in another spelling"),
        pytest.param(HEAD[:-1] + b"\n\n" + BODY, id="base64 without its padding"),
        pytest.param(b"\n".join([FIRST, SEAL_LINE, LINE]) + b"\n\n" + BODY, id="a seal and a signature"),
        pytest.param(b"\n".join([FIRST, SEAL_LINE, SEAL_LINE]) + b"\n\n" + BODY, id="two seals"),
        pytest.param(b"\n".join([FIRST, SEAL_LINE[:-1] + b"07"]) + b"\n\n" + BODY, id="a zero before the place"),
        pytest.param(b"\n".join([OF_SEAL, SEAL_LINE]) + b"\n\n" + BODY, id="a seal under a seal"),
        pytest.param(b"\n".join([FIRST, LINE, GONE % 1]) + b"\n\n" + BODY, id="a record that lacks records"),
        pytest.param(b"\n".join([OF_SEAL, GONE % 1, LINE]) + b"\n\n" + BODY, id="absent before the signature"),
        pytest.param(b"\n".join([OF_SEAL, LINE, GONE % 2, GONE % 1]) + b"\n\n" + BODY, id="absent in another order"),
        pytest.param(b"\n".join([OF_SEAL, LINE, GONE % 1, GONE % 1]) + b"\n\n" + BODY, id="absent twice"),
        pytest.param(
            b"\n".join([OF_SEAL, LINE, *(GONE % n for n in range(ABSENT_MAX + 1))]) + b"\n\n" + BODY,
            id="too many absent",
        ),
    ],
)
def test_what_is_not_in_our_form_is_refused(data: bytes) -> None:
    with pytest.raises(InputError) as caught:
        Entry.from_bytes(data)
    assert caught.value.reason is Reason.ENTRY_MALFORMED


def test_a_zone_that_is_none_is_refused_for_that() -> None:
    with pytest.raises(InputError) as caught:
        Entry.from_bytes(SOUND.replace(b" 88.118.8 ", b" 88..8 "))
    assert caught.value.reason is Reason.IDENTIFIER_MALFORMED


def test_a_payload_that_begins_with_newlines_is_kept() -> None:
    entry = entry_of(record(), payload=b"\n\n{}")
    assert Entry.from_bytes(entry.to_bytes()) == entry


def test_what_is_signed_is_of_the_entrys_kind() -> None:
    kinds = [entry_of(record(), kind=kind).signed.payload_type for kind in EntryKind]
    assert kinds == [
        kind.payload_type for kind in (Kind.RECORD, Kind.SEAL, Kind.DELEGATION, Kind.DELEGATION, Kind.COMMAND)
    ]
    assert entry_of(SEALED[2]).signed == SEALED[2].signed


def test_the_largest_of_everything_fits_an_entry() -> None:
    signature = Signature("f" * 32, "ed25519", bytes(64))
    zone = Prefix.parse(".".join(["x" * 7] * 8))
    body: dict[str, Any] = {"zone": zone, "committed_at": TIME_MAX, "payload": b"x" * LOGGED_BODY_BYTES_MAX}
    largest = entry_of(record(), **body, kind=EntryKind.DELEGATION, by=(signature,) * SIGNATURES_MAX)
    assert len(largest.head) <= HEAD_BYTES_MAX
    assert Entry.from_bytes(largest.to_bytes()) == largest
    absent = tuple((9_999_999 - n, bytes(32)) for n in reversed(range(ABSENT_MAX)))
    sealing = replace(largest, kind=EntryKind.SEAL, payload=b"x" * 400, absent=absent)
    assert Entry.from_bytes(sealing.to_bytes()) == sealing


def test_a_body_that_admission_should_have_refused_is_our_own_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTRY_BYTES_MAX", len(SOUND) - 1)
    with pytest.raises(AssertionError):
        entry_of(record()).to_bytes()
    assert entry_of(record()).committed_at == NOW

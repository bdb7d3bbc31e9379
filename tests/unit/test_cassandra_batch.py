"""Staged bytes: everything that was put in comes out again, and nothing else ever does."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.merkle import CompactRange
from idtrace.record import RecordKind, Status
from registry.cassandra_batch import (
    CHUNK_BYTES,
    Batch,
    Chain,
    Granted,
    StagedBatchError,
    chunks,
    pack,
    unpack,
)
from registry.logbook import Appended, Edge, LogHead, TileRow
from registry.storage import Claim, Grant, Head, Mention, Write

INTEGERS = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(max_size=12)
DATA = st.binary(max_size=40)
HEADS = st.builds(Head, INTEGERS, DATA, st.sampled_from(RecordKind), st.sampled_from(Status), INTEGERS)
CLAIMS = st.lists(st.builds(Claim, TEXT, TEXT, DATA), max_size=3).map(tuple)
WRITES = st.builds(Write, TEXT, INTEGERS, HEADS, DATA, TEXT, TEXT, DATA, DATA, CLAIMS)
LINKS = st.lists(DATA, max_size=3).map(tuple)
GRANTS = st.builds(Grant, TEXT, TEXT, st.booleans(), TEXT, INTEGERS, INTEGERS, DATA, DATA, LINKS)
RANGES = st.integers(0, 300).map(lambda size: CompactRange().extend([bytes([size % 256]) * 32] * size))
LOG_HEADS = st.builds(LogHead, RANGES, DATA, INTEGERS)
APPENDED = st.builds(
    Appended,
    INTEGERS,
    LINKS,
    st.lists(st.builds(TileRow, INTEGERS, INTEGERS, DATA), max_size=2).map(tuple),
    st.builds(Edge, LOG_HEADS),
)
UNLOGGED = st.builds(
    Batch,
    st.lists(WRITES, max_size=4).map(tuple),
    st.lists(st.builds(Granted, GRANTS, TEXT, TEXT, DATA), max_size=2).map(tuple),
    st.lists(st.builds(Chain, TEXT, LINKS), max_size=2).map(tuple),
)


@st.composite
def logged(draw: st.DrawFn) -> Batch:
    batch = draw(UNLOGGED)
    places = draw(st.sets(st.sampled_from(range(len(batch.writes))))) if batch.writes else set()
    indexes = tuple((place, draw(INTEGERS)) for place in sorted(places))
    return replace(batch, appended=draw(APPENDED), indexes=indexes)


MENTIONS = st.lists(st.builds(Mention, TEXT, INTEGERS, TEXT, TEXT), max_size=3).map(tuple)


@st.composite
def pointed(draw: st.DrawFn) -> Batch:
    """With what events mention; who mentions nothing delivers nothing."""
    batch = draw(UNLOGGED | logged())
    mentions = [draw(MENTIONS) for _ in batch.writes]
    writes = [
        replace(write, mentions=about, outbound=tuple(one.subject for one in about[:2]))
        for write, about in zip(batch.writes, mentions, strict=True)
    ]
    return replace(batch, writes=tuple(writes), pointers=draw(MENTIONS))


BATCHES = UNLOGGED | logged() | pointed()
WRITE = Write("88/A", 0, Head(1, b"h", RecordKind.ITEM, Status.ACTIVE, 7), b"r", "88", "key", b"q", b"p")
BATCH = Batch((WRITE,), (), (Chain("88", (b"a", b"b")),))
GROWN = Appended(3, (b"e",), (TileRow(0, 0, b"t"),), Edge(LogHead(CompactRange().append(bytes(32)), b"n", 7)))
LOGGED = replace(BATCH, appended=GROWN, indexes=((0, 3),))
POINTER = Mention("88/B", 9, "88/event/e", "epc")
EVENT = replace(BATCH, writes=(replace(WRITE, mentions=(POINTER,), outbound=("88/B",)),))


def sealed(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()


@given(BATCHES)
def test_a_batch_comes_out_as_it_went_in(batch: Batch) -> None:
    assert unpack(pack(batch)) == batch
    assert bool(batch) is bool(batch.writes or batch.grants or batch.chains or batch.pointers)


@given(st.data())
def test_a_flipped_bit_or_a_missing_byte_is_never_taken(data: st.DataObject) -> None:
    packed = bytearray(pack(data.draw(st.sampled_from([BATCH, LOGGED, EVENT]))))
    at = data.draw(st.integers(0, len(packed) - 1))
    torn = bytes(packed[:at])
    packed[at] ^= 1 << data.draw(st.integers(0, 7))
    for damaged in (bytes(packed), torn):
        with pytest.raises(StagedBatchError, match="torn or damaged"):
            unpack(damaged)


@given(st.sampled_from([b"\x01", b"\x02", b"\x03"]), st.binary(max_size=80))
def test_sealed_nonsense_is_refused_and_never_crashes(kind: bytes, body: bytes) -> None:
    """Bytes before the digest are ours; a bug of an older program is all that can have made these."""
    try:
        batch = unpack(sealed(kind + body))
    except StagedBatchError:
        return
    assert pack(batch) == sealed(kind + body)


def test_a_newer_format_is_named() -> None:
    with pytest.raises(StagedBatchError, match=r"format 04: a newer program"):
        unpack(sealed(b"\x04" + pack(BATCH)[1:-32]))


def test_a_batch_without_a_log_is_staged_as_programs_without_one_read_it() -> None:
    assert (pack(BATCH)[0], pack(LOGGED)[0]) == (1, 2)
    for batch, other in ((BATCH, b"\x02"), (LOGGED, b"\x01")):
        with pytest.raises(StagedBatchError, match="malformed"):
            unpack(sealed(other + pack(batch)[1:-32]))


def test_a_batch_without_events_is_staged_as_programs_without_them_read_it() -> None:
    pointed = replace(LOGGED, pointers=(POINTER,))
    assert [pack(batch)[0] for batch in (EVENT, replace(BATCH, pointers=(POINTER,)), pointed)] == [3, 3, 3]
    assert unpack(pack(pointed)) == pointed
    for other in (b"\x01", b"\x02"):
        with pytest.raises(StagedBatchError, match="malformed"):
            unpack(sealed(other + pack(EVENT)[1:-32]))


@pytest.mark.parametrize(
    ("sound", "broken"),
    [
        (b"T\0\0\0\3I" + bytes(8), b"T\0\0\0\3I" + bytes(7) + b"\1"),  # the mentions of a second write
        (b"T\0\0\0\3I" + bytes(8), b"T\0\0\0\3I" + b"\xff" * 8),
        (b"T\0\0\0\1S\0\0\0\x0488/B", b"T\0\0\0\1B\0\0\0\x0488/B"),  # an outbound subject as bytes
        (b"S\0\0\0\3epc", b"B\0\0\0\3epc"),
    ],
)
def test_mentions_that_are_none_are_refused(sound: bytes, broken: bytes) -> None:
    packed = pack(EVENT)[:-32]
    assert packed.count(sound) == 1
    with pytest.raises(StagedBatchError, match="malformed"):
        unpack(sealed(packed.replace(sound, broken)))


def test_partial_tiles_are_not_staged_twice() -> None:
    edge = replace(GROWN.edge, tiles={0: b"t"})
    assert pack(replace(LOGGED, appended=replace(GROWN, edge=edge))) == pack(LOGGED)


@pytest.mark.parametrize(
    ("sound", "broken"),
    [
        (b"\0\0\0\0\0\0\0\1" + bytes(32), b"\0\0\0\0\0\0\0\3" + bytes(32)),  # a range that lacks a peak
        (b"T\0\0\0\2I" + bytes(8) + b"I", b"T\0\0\0\2I" + bytes(7) + b"\1I"),  # the index of a second write
        (b"T\0\0\0\2I" + bytes(8) + b"I", b"T\0\0\0\2I" + b"\xff" * 8 + b"I"),
        (b"T\0\0\0\1B\0\0\0\1e", b"T\0\0\0\1S\0\0\0\1e"),  # an entry as text
    ],
)
def test_a_log_that_is_none_is_refused(sound: bytes, broken: bytes) -> None:
    packed = pack(LOGGED)[:-32]
    assert packed.count(sound) == 1
    with pytest.raises(StagedBatchError, match="malformed"):
        unpack(sealed(packed.replace(sound, broken)))


NONE = b"T\0\0\0\0"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"T\0\0\0\3" + NONE * 3 + b"\0",  # bytes after it
        b"T\0\0\0\2" + NONE * 2,
        b"T\0\0\0\3" + NONE * 2 + b"S\0\0\0\0",  # text where a list should be
        b"T\0\0\0\3" + NONE * 2 + b"T\0\0\0\1" + b"T\0\0\0\2" + b"B\0\0\0\0" + NONE,  # a zone as bytes
        b"T\0\0\0\3" + NONE * 2 + b"T\0\0\0\1" + b"T\0\0\0\2" + b"S\0\0\0\1\xff" + NONE,  # not UTF-8
        b"T\0\0\0\3" + NONE * 2 + b"T\0\0\0\1" + b"T\0\0\0\2" + b"S\0\0\0\2x",  # cut off
        b"T\0\0\0\1" * 12 + NONE,  # too deep
        b"X\0\0\0\0",
    ],
)
def test_a_sealed_batch_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(StagedBatchError, match="malformed"):
        unpack(sealed(b"\x01" + body))


def test_a_kind_that_is_none_is_refused() -> None:
    packed = pack(BATCH)[:-32].replace(b"S\0\0\0\4item", b"S\0\0\0\4iten")
    with pytest.raises(StagedBatchError, match="malformed"):
        unpack(sealed(packed))


@pytest.mark.parametrize(("size", "pieces"), [(0, 1), (1, 1), (CHUNK_BYTES, 1), (CHUNK_BYTES + 1, 2)])
def test_chunks_are_bounded_and_lose_nothing(size: int, pieces: int) -> None:
    data = bytes(size)
    cut = chunks(data)
    assert (len(cut), b"".join(cut)) == (pieces, data)
    assert max(map(len, cut)) <= CHUNK_BYTES


def test_a_batch_differs_in_its_bytes_where_it_differs_at_all() -> None:
    assert pack(BATCH) != pack(replace(BATCH, writes=(replace(WRITE, zone=""),)))

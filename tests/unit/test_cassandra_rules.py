"""Decisions and rows of the distributed store: what SQLite decides in a transaction, decided over a view."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.entry import Entry, EntryKind
from idtrace.identifier import Prefix
from idtrace.record import RecordKind, Status
from idtrace.signature import Signature
from registry.cassandra_batch import Batch, Chain, Granted
from registry.cassandra_rules import (
    GRANT_BUCKETS,
    NOT_LOGGED,
    ROWS_PER_STATEMENT,
    STATEMENT_BYTES,
    Row,
    Standing,
    View,
    by_stem,
    change_bucket,
    decide,
    decide_grant,
    entry_bundles,
    entry_row,
    grant_bucket,
    partitions,
    rows,
    standing,
    stem,
    tile_width,
)
from registry.logbook import Appended, Edge, LogWriter
from registry.storage import Claim, Grant, Head, Outcome, Write, between
from tests.log_fixtures import log_signer

SERIAL = Claim("88/c", "serial", b"d")
HEAD = Head(1, b"h", RecordKind.ITEM, Status.ACTIVE, 7)
WRITE = Write("88.1/A", 0, HEAD, b"r", "88.1", "key-1", b"q", b"p")
NOTHING = View({}, frozenset(), frozenset(), {})
GRANT = Grant("88.1", "enabled", False, "", 7, 1, b"d")


def write(name: str = "88.1/A", version: int = 1, key: str = "key-1", *claims: Claim, zone: str = "88.1") -> Write:
    head = replace(HEAD, version=version)
    return replace(
        WRITE, identifier=name, expected=version - 1, head=head, idempotency_key=key, claims=claims, zone=zone
    )


@pytest.mark.parametrize(
    ("head", "verdict"),
    [
        ((7, b"other"), Standing.OPEN),
        ((8, b"ours"), Standing.WON),
        ((8, b"other"), Standing.LOST),
        ((9, b"other"), Standing.PASSED),
        ((6, b"other"), Standing.LOST),
    ],
)
def test_a_swap_is_judged_by_the_head(head: tuple[int, bytes], verdict: Standing) -> None:
    assert standing(b"ours", 7, head) is verdict


@given(st.lists(st.text(max_size=6)))
def test_stems_hold_each_key_once_and_few(keys: list[str]) -> None:
    stems = by_stem(keys)
    assert sorted(key for some in stems.values() for key in some) == sorted(set(keys))
    for shared, some in stems.items():
        assert all(key.encode().startswith(shared) and len(key.encode()) - len(shared) <= 2 for key in some)


def test_serials_that_follow_each_other_share_a_stem() -> None:
    assert {stem(f"88/SN-{n:06}") for n in range(100)} == {b"88/SN-0000"}


def test_a_view_decides_as_a_transaction_does() -> None:
    view = View({"88.1/A": HEAD}, {("88.1", "used")}, {"88.1.2"}, {SERIAL: "88.1/A"})
    told = {
        Outcome.COMMITTED: [
            write(version=2),
            write(version=2, key="used", zone="88"),
            write("88.1/B"),
            replace(write(version=2), claims=(SERIAL,)),
            write("88.1.2/A", zone="88.1.2"),
            write("88.1.3/A"),
        ],
        Outcome.KEY_USED: [write(version=2, key="used"), write(version=9, key="used")],
        Outcome.CONFLICT: [write(), write(version=3), write("88.1/B", 2), write("88.1.2/A"), write("88.1.2.3/A")],
        Outcome.CLAIMED: [write("88.1/B", 1, "key-2", replace(SERIAL, field="x"), SERIAL)],
    }
    for outcome, writes in told.items():
        assert [decide([one], view) for one in writes] == [[outcome]] * len(writes)


def test_a_write_is_decided_in_the_light_of_those_before_it_that_won() -> None:
    other = replace(SERIAL, field="other")
    batch = [
        write("88.1/A", 1, "k1", SERIAL),
        write("88.1/A", 1, "k2", other),  # loses, and its claim and key with it
        write("88.1/A", 2, "k3"),
        write("88.1/B", 1, "k1"),
        write("88.1/B", 1, "k4", SERIAL),
        write("88.1/B", 1, "k2", other),
    ]
    c, k = Outcome.COMMITTED, Outcome.KEY_USED
    assert decide(batch, NOTHING) == [c, Outcome.CONFLICT, c, k, Outcome.CLAIMED, c]


def test_prefixes_between_a_zone_and_its_identifier() -> None:
    assert between(write("88.1.2.3/A", zone="88.1")) == ["88.1.2", "88.1.2.3"]
    assert between(write("88.1/A.b/c", zone="88.1")) == []
    assert between(write("88.1/A", zone="")) == ["88", "88.1"]


@pytest.mark.parametrize(
    ("expected", "used", "held", "occupied", "outcome"),
    [
        (None, False, None, False, Outcome.COMMITTED),
        (None, True, None, False, Outcome.KEY_USED),
        (None, False, GRANT, False, Outcome.CONFLICT),
        (None, False, None, True, Outcome.CONFLICT),
        (replace(GRANT, version=0), False, replace(GRANT, version=0), True, Outcome.CONFLICT),
        (GRANT, False, GRANT, True, Outcome.COMMITTED),
        (GRANT, False, replace(GRANT, comment="x"), True, Outcome.CONFLICT),
    ],
)
def test_grants(expected: Grant | None, used: bool, held: Grant | None, occupied: bool, outcome: Outcome) -> None:
    assert decide_grant(GRANT, expected, used=used, held=held, occupied=occupied) is outcome


def test_an_application_may_be_filed_where_identifiers_are() -> None:
    applied = replace(GRANT, version=0)
    assert decide_grant(applied, None, used=False, held=None, occupied=True) is Outcome.COMMITTED


def test_a_batch_becomes_rows_of_which_no_key_comes_twice() -> None:
    grant = replace(GRANT, prefix="88.2", enrolments=(b"e",))
    batch = Batch(
        (
            write("88.1/A", 7, "k1", SERIAL),
            write("88.1/A", 8, "k2", SERIAL),
            write("88.1.7/B", 1, "k3"),
        ),
        (Granted(grant, "88", "k4", b"g"),),
        (Chain("88", (b"x", b"y")),),
    )
    first, nothing, last = rows("L", batch)
    assert nothing == []
    granted = ("88.2", "enabled", False, "", 7, 1, b"d", b"", [b"e"])
    assert last == [
        Row("head", ("L", stem("88.1/A")), ("88.1/A", 8, b"h", "item", "active", 7)),
        Row("head", ("L", stem("88.1.7/B")), ("88.1.7/B", 1, b"h", "item", "active", 7)),
        Row("granted", ("L", grant_bucket("88.2")), granted),
        Row("chain", ("L",), ("88", [b"x", b"y"])),
    ]
    by_table: dict[str, list[Row]] = {}
    for row in first:
        by_table.setdefault(row.table, []).append(row)
    assert [row.partition + row.rest[:2] for row in by_table["version"]] == [
        ("L", stem("88.1/A"), 0, "88.1/A", 7),
        ("L", stem("88.1/A"), 1, "88.1/A", 8),
        ("L", stem("88.1.7/B"), 0, "88.1.7/B", 1),
    ]
    assert [(row.partition[1], *row.rest) for row in by_table["idempotency"]] == [
        *(("88.1", f"k{n}", b"q", b"p") for n in (1, 2, 3)),
        ("88", "k4", b"g", b""),
    ]
    assert by_table["claim"] == [Row("claim", ("L", "88/c", "serial", b"d"), ("88.1/A",))]
    assert [row.partition[1] for row in by_table["occupied"]] == ["88", "88.1", "88.1.7"]
    assert by_table.keys() == {"version", "idempotency", "claim", "occupied"}
    assert {row.rest[-1] for row in by_table["version"]} == {NOT_LOGGED}


def test_what_a_batch_adds_to_the_log_comes_before_the_head_of_the_log_and_that_before_the_records() -> None:
    writer = LogWriter(log_signer())
    entry = Entry(EntryKind.KEYS, Prefix.parse("88"), 7, b"{}", (Signature("00" * 8, "ed25519", bytes(64)),))
    draft = writer.draft(Edge(), 7)
    for _ in range(16_380):
        draft.add(entry)
    draft = writer.draft(draft.finish().edge, 8)
    indexes = tuple((number, draft.add(entry)) for number in (0, 2, 3, 5, 6))
    grown = draft.finish()
    writes = tuple(write(f"88.1/{number}", 1, f"k{number}") for number in range(7))
    first, moved, last = rows("L", Batch(writes, appended=grown, indexes=indexes))
    head = grown.edge.head
    assert moved == [Row("log_head", ("L",), (head.range.encode(), head.note, 8))]
    assert {row.table for row in last} == {"head"}
    by_table: dict[str, list[Row]] = {}
    for row in first:
        by_table.setdefault(row.table, []).append(row)
    assert [row.rest[-1] for row in by_table["version"]] == [16_380, -1, 16_381, 16_382, -1, 16_383, 16_384]
    data = entry.to_bytes()
    assert by_table["log_entry"] == [
        Row("log_entry", ("L", 63), (16_380, [data] * 4)),
        Row("log_entry", ("L", 64), (16_384, [data])),
    ]
    tiles = by_table["log_tile"]
    widths = [(row.partition, sum(len(value) for value in row.rest if isinstance(value, bytes))) for row in tiles]
    assert widths == [(("L", 0, 63), 8_192), (("L", 0, 64), 32), (("L", 1, 0), 2_048)]
    assert by_table["log_note"] == [Row("log_note", ("L", 1), (16_385, head.note))]


@given(st.integers(0, 1_000), st.integers(1, 700))
def test_entries_are_cut_into_rows_that_a_reader_finds_by_any_index(first: int, count: int) -> None:
    entries = tuple(b"%d" % index for index in range(first, first + count))
    appended = Appended(first, entries, (), Edge())
    found, _, _ = rows("L", Batch(appended=appended))
    cut = [(row.partition[1], *row.rest) for row in found if row.table == "log_entry"]
    told: dict[int, bytes] = {}
    for bundle, at, some in cut:
        assert isinstance(at, int)
        assert isinstance(some, list)
        assert some
        told.update(enumerate(some, start=at))
        for index in range(at, at + len(some)):
            assert (index // 256, entry_row(index)) == (bundle, entry_row(at))
            assert entry_row(index) <= at
    assert told == dict(enumerate(entries, start=first))
    assert len(told) == sum(len(some) for *_, some in cut if isinstance(some, list))
    assert len(cut) <= count // 16 + 2


@pytest.mark.parametrize(
    ("size", "level", "place", "width"),
    [
        (0, 0, 0, 0),
        (1, 0, 0, 1),
        (255, 1, 0, 0),
        (256, 0, 0, 256),
        (256, 0, 1, 0),
        (256, 1, 0, 1),
        (70_000, 0, 273, 112),
        (70_000, 1, 1, 17),
        (70_000, 2, 0, 1),
        (70_000, 3, 0, 0),
        (2**40, 0, 2**32, 0),
    ],
)
def test_a_tile_is_as_wide_as_its_log_makes_it(size: int, level: int, place: int, width: int) -> None:
    assert tile_width(size, level, place) == width


@given(st.integers(0, 2**40))
def test_the_tiles_at_the_edge_are_the_partial_ones(size: int) -> None:
    for level, place in Edge.partial_tiles(size).items():
        assert 0 < tile_width(size, level, place) < 256
        assert tile_width(size, level, place + 1) == 0


@given(st.integers(0, 10**6), st.integers(1, 2_000))
def test_entries_lie_in_the_bundles_that_are_asked(first: int, count: int) -> None:
    asked = entry_bundles(first, first + count)
    assert (asked[0], asked[-1]) == (first // 256, (first + count - 1) // 256)


def test_rows_travel_together_by_partition_and_bounded() -> None:
    many = [Row("t", (n % 2,), (n,)) for n in range(3 * ROWS_PER_STATEMENT)] + [Row("u", (0,), ())]
    large = [Row("v", (0,), (bytes(STATEMENT_BYTES // 2 - n),)) for n in range(3)]
    large.append(Row("v", (0,), ([bytes(STATEMENT_BYTES // 4)] * 2,)))
    groups = partitions([*many, *large])
    half = ROWS_PER_STATEMENT // 2
    assert sorted((group[0].table, len(group)) for group in groups) == sorted(
        [*(("t", n) for n in (half, half, 2 * half, 2 * half)), ("u", 1), ("v", 1), ("v", 3)]
    )
    assert {(row.table, row.partition, str(row.rest)) for group in groups for row in group} == {
        (row.table, row.partition, str(row.rest)) for row in (*many, *large)
    }
    assert len([row for group in groups for row in group]) == len(many) + len(large)
    assert all(len({(row.table, row.partition) for row in group}) == 1 for group in groups)


def test_grants_are_spread_over_their_buckets() -> None:
    assert {grant_bucket(f"88.{n}") for n in range(2_000)} == set(range(GRANT_BUCKETS))


def test_changes_lie_together_and_not_too_many() -> None:
    assert [change_bucket(seq) for seq in (1, 63, 64, 127, 128)] == [0, 0, 1, 1, 2]

"""Decisions and rows of the distributed store: what SQLite decides in a transaction, decided over a view."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.record import RecordKind, Status
from registry.cassandra_batch import Batch, Chain, Granted
from registry.cassandra_rules import (
    GRANT_BUCKETS,
    ROWS_PER_STATEMENT,
    STATEMENT_BYTES,
    Row,
    Standing,
    View,
    by_stem,
    decide,
    decide_grant,
    grant_bucket,
    partitions,
    rows,
    standing,
    stem,
)
from registry.storage import Claim, Grant, Head, Outcome, Write, between

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
    first, second = rows("L", batch)
    assert second == [
        Row("head", ("L", stem("88.1/A")), ("88.1/A", 8, b"h", "item", "active", 7)),
        Row("head", ("L", stem("88.1.7/B")), ("88.1.7/B", 1, b"h", "item", "active", 7)),
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
    assert by_table["granted"][0].rest == ("88.2", "enabled", False, "", 7, 1, b"d", b"", [b"e"])
    assert by_table["chain"] == [Row("chain", ("L",), ("88", [b"x", b"y"]))]


def test_rows_travel_together_by_partition_and_bounded() -> None:
    many = [Row("t", (n % 2,), (n,)) for n in range(3 * ROWS_PER_STATEMENT)] + [Row("u", (0,), ())]
    large = [Row("v", (0,), (bytes(STATEMENT_BYTES // 2 - n),)) for n in range(4)]
    groups = partitions([*many, *large])
    half = ROWS_PER_STATEMENT // 2
    assert sorted((group[0].table, len(group)) for group in groups) == sorted(
        [*(("t", n) for n in (half, half, 2 * half, 2 * half)), ("u", 1), ("v", 1), ("v", 3)]
    )
    assert {(row.table, row.partition, row.rest) for group in groups for row in group} == {
        (row.table, row.partition, row.rest) for row in (*many, *large)
    }
    assert len([row for group in groups for row in group]) == len(many) + len(large)
    assert all(len({(row.table, row.partition) for row in group}) == 1 for group in groups)


def test_grants_are_spread_over_their_buckets() -> None:
    assert {grant_bucket(f"88.{n}") for n in range(2_000)} == set(range(GRANT_BUCKETS))

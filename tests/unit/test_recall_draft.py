"""The next version of a zone's recalls: what stays keeps its bytes, and nothing is ended by being forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.cli.recall_acknowledge import COMMENT_MAX, THINGS_MAX, acknowledgement
from idtrace.cli.recall_draft import declared, ended, next_recalls, recalls_of, without_ended
from idtrace.cli.recall_watch import news, read_state, recall_json, scope_text
from idtrace.epcis.statement import event_body
from idtrace.epcis.write import event_bytes
from idtrace.errors import InputError, Reason, RefusedError
from idtrace.identifier import Prefix
from idtrace.provenance.holders import acknowledges
from idtrace.recall import Recall, Scope, ScopeKind, recalls_identifier
from idtrace.record import (
    VALUES_MAX,
    Permission,
    Record,
    RecordBody,
    RecordKind,
    Value,
    build_values,
    check_values,
)
from idtrace.signature import Kind, Signed

ZONE = Prefix.parse("88.118.8")
ID = recalls_identifier(ZONE)
NOW = 1_780_000_000
SALTS = [bytes([n]) * 16 for n in range(256)]


def a_recall(name: str, **changes: object) -> Recall:
    scope = Scope(ScopeKind.ITEMS, items=("88.118.8/SN-1",))
    made = Recall(str(ZONE), name, scope, 1, "glass", "玻璃", NOW)
    return replace(made, **changes)  # type: ignore[arg-type]  # names of its fields


def record_of(body: RecordBody, values: tuple[Value, ...]) -> Record:
    return Record(Signed(Kind.RECORD.payload_type, body.payload(), ()), values)


def said(*recalls: Recall, current: tuple[Record, RecordBody] | None = None) -> tuple[Record, RecordBody]:
    body, values = next_recalls(ID, current, recalls, SALTS, NOW)
    check_values(body, values)
    return record_of(body, values), body


def names(recalls: Sequence[Recall]) -> list[str]:
    return [one.name for one in recalls]


def test_what_stays_keeps_its_value_salt_and_index() -> None:
    one, two, three = (a_recall(f"R-{n}") for n in (1, 2, 3))
    first = said(one, two)
    second = said(*ended(recalls_of(*first), "R-1", NOW + 5), three, current=first)
    assert names(recalls_of(*second)) == ["R-2", "R-1", "R-3"]
    assert second[1].version == 2
    assert second[1].previous == first[0].hash
    kept = {value.index: value for value in first[0].values}
    assert [value for value in second[0].values if kept.get(value.index) == value] == [first[0].values[1]]


def test_what_is_no_recall_and_what_is_not_shown_stays() -> None:
    first = said(a_recall("R-1"))
    entries = [("note", b"x", Permission.PUBLIC), ("secret", b"y", Permission.RESTRICTED)]
    digests, values = build_values(entries, SALTS)
    more = tuple(replace(one, index=one.index + 1) for one in digests)
    body = replace(first[1], values=(*first[1].values, *more))
    shown = (*first[0].values, replace(values[0], index=2))
    record = record_of(body, shown)
    following, kept = next_recalls(ID, (record, body), [a_recall("R-1"), a_recall("R-2")], SALTS, NOW)
    assert [digest.type for digest in following.values] == ["idtrace.recall", "note", "secret", "idtrace.recall"]
    assert check_values(following, kept) == (3,)


def test_a_recall_that_is_left_out_is_not_silently_ended() -> None:
    record, body = said(a_recall("R-1"), a_recall("R-2"))
    with pytest.raises(InputError) as refused:
        recalls_of(replace(record, values=record.values[:1]), body)
    assert refused.value.reason is Reason.VALUE_WITHHELD


def test_a_name_is_given_once_and_ended_once() -> None:
    held = [a_recall("R-1")]
    with pytest.raises(RefusedError) as taken:
        declared(held, a_recall("R-1"))
    assert taken.value.reason is Reason.IDENTIFIER_TAKEN
    assert names(declared(held, a_recall("R-2"))) == ["R-1", "R-2"]
    over = ended(held, "R-1", NOW + 5)
    assert [one.ended_at for one in over] == [NOW + 5]
    assert [one.ended_at for one in ended(held, "R-1", NOW - 5)] == [NOW], "never before it began"
    for name in ("R-1", "R-7"):
        with pytest.raises(RefusedError):
            ended(over, name, NOW + 6)


def test_recalls_are_bounded_and_those_that_ended_long_ago_make_room() -> None:
    held = [a_recall(f"R-{n}", ended_at=NOW + n) for n in range(VALUES_MAX)]
    with pytest.raises(InputError) as full:
        declared(held, a_recall("more"))
    assert full.value.reason is Reason.FIELD_TOO_LARGE
    assert len(without_ended(held, NOW + 99)) == VALUES_MAX - 100
    assert names(without_ended([a_recall("stands")], NOW)) == ["stands"]
    assert len(said(*held)[1].values) == VALUES_MAX


def test_a_zone_whose_recalls_have_ended_for_ever_recalls_nothing() -> None:
    record, body = said(a_recall("R-1"))
    with pytest.raises(RefusedError) as gone:
        next_recalls(ID, (record, replace(body, kind=RecordKind.TOMBSTONE)), [], SALTS, NOW)
    assert gone.value.reason is Reason.IDENTIFIER_RETIRED


def test_a_broken_rule_of_recalls_is_said_before_anything_is_signed() -> None:
    with pytest.raises(InputError) as refused:
        next_recalls(ID, None, [a_recall("R-1", reason_en="")], SALTS, NOW)
    assert "en" in refused.value.field


# What a watch tells


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=12))
def test_each_recall_is_told_once_and_its_end_once(changes: list[tuple[str, bool]]) -> None:
    told: dict[str, int] = {}
    held: dict[str, Recall] = {}
    heard: list[tuple[str, str]] = []
    for name, is_end in changes:
        known = held.get(name)
        if is_end and known is not None:
            held[name] = replace(known, ended_at=NOW + 1)
        elif known is None:
            held[name] = a_recall(name)
        for recall, word in list(news(held.values(), told, NOW + 2)):
            told[recall.name] = recall.ended_at
            heard.append((recall.name, word))
    assert len(heard) == len(set(heard))
    for name, recall in held.items():
        assert (name, "recalled") in heard
        assert ((name, "ended") in heard) is bool(recall.ended_at)


def test_a_state_that_is_none_is_refused_by_its_name(tmp_path: object) -> None:
    from pathlib import Path

    file = Path(str(tmp_path)) / "state"
    assert read_state(None) == read_state(file) == {}
    for text in ("", "[]", '{"told": 1}', '{"told": {"a": "x"}}'):
        file.write_text(text)
        with pytest.raises(InputError) as refused:
            read_state(file)
        assert refused.value.field == str(file)
    file.write_text('{"told": {"a": 0}}')
    assert read_state(file) == {"a": 0}


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        (Scope(ScopeKind.PRODUCT, product="88.1/c"), "every item of 88.1/c"),
        (Scope(ScopeKind.LOT, product="88.1/c", lot="A"), "lot A of 88.1/c"),
        (Scope(ScopeKind.RANGE, first="88.1/1", last="88.1/9"), "88.1/1 to 88.1/9"),
        (Scope(ScopeKind.PACKAGE, package="urn:x", since_s=1, until_s=2), "what was inside urn:x from 1970"),
        (Scope(ScopeKind.ITEMS, items=("a", "b", "c", "d")), "a, b, c and 1 more"),
    ],
)
def test_every_reach_is_said_in_a_line(scope: Scope, words: str) -> None:
    assert scope_text(scope).startswith(words)
    assert recall_json(a_recall("R", scope=scope))["scope"]["kind"] == scope.kind


# Acknowledgements


def test_an_acknowledgement_is_an_event_that_the_search_for_holders_knows() -> None:
    event = acknowledgement(ZONE, "R-1", ["88.118.8/C-1"], NOW * 1000, found=4, quarantined=0, comment="locked")
    assert acknowledges(event, "R-1")
    assert not acknowledges(event, "R-2")
    assert event.epcs == ("idtrace:88.118.8/C-1",)
    assert event.extensions == {
        "idtrace:recall": "R-1", "idtrace:found": 4, "idtrace:quarantined": 0, "idtrace:comment": "locked",
    }  # fmt: skip
    event_body(Prefix.parse("88.118.9"), event_bytes(event), issued_at=NOW)
    nothing = acknowledgement(ZONE, "R-1", [], NOW * 1000, found=None, quarantined=None, comment="")
    assert nothing.epcs == ("idtrace:88.118.8/recalls",)


@pytest.mark.parametrize(
    ("name", "things", "comment", "field"),
    [
        ("", [], "", "NAME"),
        ("x" * 65, [], "", "NAME"),
        ("R", ["88.1/x"] * (THINGS_MAX + 1), "", "THING"),
        ("R", [], "x" * (COMMENT_MAX + 1), "--comment"),
    ],
)
def test_an_acknowledgement_is_bounded(name: str, things: list[str], comment: str, field: str) -> None:
    with pytest.raises(InputError) as refused:
        acknowledgement(ZONE, name, things, NOW, found=None, quarantined=None, comment=comment)
    assert refused.value.field == field

"""Drafts and next versions: what is asked for is what is signed, and what is not named is carried over."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from idtrace.cli.drafts import (
    Change,
    Draft,
    entries,
    idempotency_key,
    next_version,
    signed_record,
    template_entry,
    tombstone,
)
from idtrace.errors import InputError, Reason
from idtrace.identifier import Identifier
from idtrace.record import Permission, Record, RecordBody, RecordKind, Status, check_values
from idtrace.template import TEMPLATE_TYPE, Template
from tests.core_fixtures import ITEM, NOW, salts, signer

DRAFT = Draft(
    ITEM,
    (
        ("lot", b"L1", Permission.PUBLIC),
        ("tester", b"Li", Permission.RESTRICTED),
        ("URL", b"https://x.example", Permission.PUBLIC),
    ),
)


def first() -> tuple[Record, RecordBody]:
    body, values = DRAFT.body(salts(), NOW)
    return signed_record(body, values, signer("record")), body


def other_salts() -> Iterator[bytes]:
    while True:
        yield b"another salt 016"


def following(change: Change, record: Record | None = None, at: int = NOW + 9) -> tuple[RecordBody, Record]:
    original, body = first()
    made, values = next_version(record or original, body, change, other_salts(), at)
    check_values(made, values)
    return made, signed_record(made, values, signer("record"))


def refused(reason: Reason, change: Change, record: Record | None = None) -> str:
    with pytest.raises(InputError) as caught:
        following(change, record)
    assert caught.value.reason is reason
    return caught.value.field


def test_the_same_wish_has_the_same_digest_and_every_other_wish_another() -> None:
    others = [
        replace(DRAFT, identifier=Identifier.parse("88.118.8/SN-2")),
        replace(DRAFT, values=DRAFT.values[:2]),
        replace(DRAFT, values=DRAFT.values[::-1]),
        replace(DRAFT, values=(("lot", b"L1", Permission.RESTRICTED), *DRAFT.values[1:])),
        replace(DRAFT, values=(("lotL", b"1", Permission.PUBLIC), *DRAFT.values[1:])),
        replace(DRAFT, kind=RecordKind.BLOCK),
        replace(DRAFT, class_id=ITEM),
        replace(DRAFT, ttl_seconds=1),
    ]
    assert replace(DRAFT).digest() == DRAFT.digest()
    assert len({draft.digest() for draft in [DRAFT, *others]}) == 1 + len(others)


def test_a_draft_becomes_a_first_version() -> None:
    record, body = first()
    assert (body.version, body.previous, body.status, body.issued_at) == (1, b"", Status.ACTIVE, NOW)
    assert RecordBody.parse(record.signed.payload) == body
    assert check_values(body, record.values) == ()


@pytest.mark.parametrize(
    "draft",
    [
        replace(DRAFT, values=(("lot", b"x" * 4_097, Permission.PUBLIC),)),
        replace(DRAFT, values=(("l\u200bot", b"x", Permission.PUBLIC),)),
        replace(DRAFT, values=(("", b"x", Permission.PUBLIC),)),
        replace(DRAFT, values=tuple((f"f{n}", b"x", Permission.PUBLIC) for n in range(257))),
        replace(DRAFT, ttl_seconds=172_801),
        replace(DRAFT, kind=RecordKind.TOMBSTONE),
    ],
    ids=["long", "invisible type", "no type", "too many", "ttl", "tombstone"],
)
def test_a_draft_that_breaks_a_rule_of_records_is_explained_before_it_is_signed(draft: Draft) -> None:
    with pytest.raises(InputError):
        draft.body(salts(), NOW)


def test_a_recall_carries_every_value_over_salt_and_all() -> None:
    record, body = first()
    made, following_record = following(Change(status=Status.RECALLED))
    assert made == replace(
        body, version=2, previous=record.hash, status=Status.RECALLED, issued_at=NOW + 9, values=body.values
    )
    assert following_record.values == record.values


def test_a_changed_value_keeps_its_index_and_gets_a_new_salt() -> None:
    record, body = first()
    made, second = following(
        Change(values=(("tester", b"Wang", Permission.PUBLIC), ("grade", b"A", Permission.PUBLIC)))
    )
    assert [(v.index, v.type, v.permission) for v in made.values] == [
        (1, "lot", Permission.PUBLIC),
        (2, "tester", Permission.PUBLIC),
        (3, "URL", Permission.PUBLIC),
        (4, "grade", Permission.PUBLIC),
    ]
    assert second.values[0] == record.values[0]
    assert (second.values[1].data, second.values[1].salt) == (b"Wang", b"another salt 016")
    assert made.ttl_seconds == body.ttl_seconds


def test_an_index_is_not_used_again_in_the_version_that_drops_it() -> None:
    made, _ = following(Change(unset=("URL",), values=(("grade", b"A", Permission.PUBLIC),)))
    assert [(v.index, v.type) for v in made.values] == [(1, "lot"), (2, "tester"), (4, "grade")]


def test_what_is_not_there_cannot_be_dropped() -> None:
    assert refused(Reason.FIELD_MISSING, Change(unset=("colour",))) == "--unset"


def test_a_withheld_value_is_signed_again_given_again_or_dropped_but_never_lost_silently() -> None:
    whole, _ = first()
    part = Record(whole.signed, (whole.values[0], whole.values[2]))
    made, carried = following(Change(status=Status.RECALLED), part)
    assert made.values == first()[1].values, "the node holds the value that the digest stands for"
    assert [value.index for value in carried.values] == [1, 3]
    made, _ = following(Change(unset=("tester",)), part)
    assert len(made.values) == 2
    made, again = following(Change(values=(("tester", b"Li", Permission.RESTRICTED),)), part)
    assert [v.index for v in made.values] == [1, 2, 3]
    assert len(again.values) == 3


def test_a_clock_that_is_behind_does_not_date_a_version_before_its_predecessor() -> None:
    assert following(Change(ttl_seconds=1), at=NOW - 100)[0].issued_at == NOW
    record, body = first()
    assert tombstone(record, body, NOW - 100).issued_at == NOW


def test_a_value_of_zero_seconds_is_a_change() -> None:
    assert not Change(ttl_seconds=0).is_empty
    assert Change().is_empty
    assert following(Change(ttl_seconds=0))[0].ttl_seconds == 0


def test_a_tombstone_ends_with_no_values() -> None:
    record, body = first()
    last = tombstone(record, body, NOW)
    assert (last.kind, last.status, last.values, last.version) == (RecordKind.TOMBSTONE, Status.RETIRED, (), 2)
    assert last.previous == record.hash


def test_the_idempotency_key_is_the_record_hash() -> None:
    record, _ = first()
    assert idempotency_key(record.signed.payload) == record.hash.hex()


def test_values_are_read_from_arguments() -> None:
    assert entries(["lot=L1", "URL=https://x.example/?a=b", "note="], ["lot"]) == (
        ("lot", b"L1", Permission.RESTRICTED),
        ("URL", b"https://x.example/?a=b", Permission.PUBLIC),
        ("note", b"", Permission.PUBLIC),
    )


@pytest.mark.parametrize(
    ("given", "restricted", "field"),
    [
        (["lot"], [], "--value"),
        (["=x"], [], "--value"),
        (["a=1", "a=2"], [], "--value"),
        (["a=1"], ["b"], "--restricted"),
    ],
)
def test_arguments_that_are_no_values_are_refused(given: list[str], restricted: list[str], field: str) -> None:
    with pytest.raises(InputError) as caught:
        entries(given, restricted)
    assert caught.value.field == field


def test_a_hand_written_template_is_filled_in() -> None:
    type_, data, permission = template_entry(
        json.dumps({"fields": [{"name": "lot", "type": "text", "required": True}]}), field="t"
    )
    assert (type_, permission) == (TEMPLATE_TYPE, Permission.PUBLIC)
    template = Template.parse(data)
    assert not template.open
    assert (template.fields[0].name, template.fields[0].required, template.fields[0].unique) == ("lot", True, False)


def test_the_shipped_template_is_one() -> None:
    text = (Path(__file__).parents[2] / "examples" / "template.json").read_text()
    assert [f.name for f in Template.parse(template_entry(text, field="t")[1]).fields] == ["lot", "made", "grade"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"fields": 1}',
        '{"fields": [1]}',
        '{"fields": [{"name": "a"}]}',
        '{"fields": [{"name": "a", "type": "text", "colour": "red"}]}',
        '{"fields": [], "open": NaN}',
        '{"fields": [], "note": 1.5}',
        '{"fields": [{"name": "a", "type": "code"}]}',
    ],
)
def test_what_is_no_template_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        template_entry(text, field="t")

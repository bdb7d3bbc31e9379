"""Codes, bills and acts: every kind of bad row by its number, and every act there and back."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.drugcode import acts
from idtrace.drugcode.acts import (
    Act,
    Activation,
    Cancellation,
    Fitting,
    Packing,
    Replacement,
    Temperatures,
    act_of,
    events_of,
)
from idtrace.drugcode.bills import ROWS_MAX, Bill, Direction, Head, read_csv, read_json, require_number
from idtrace.drugcode.codes import Unfit, code_of, identifier_of, sort_out
from idtrace.epcis.model import Action, Event, EventType
from idtrace.epcis.parse import read_document
from idtrace.epcis.write import event_bytes
from idtrace.errors import InputError, Reason

CODES = tuple(f"8123456{number:013d}" for number in range(5))
T = 1_760_000_000_000
TIME = "2026-05-01T10:00:00+08:00"
HEAD: dict[str, Any] = {"bill": "CK-1", "time": TIME, "partner": "88.118.2"}


def bill(**changes: Any) -> Any:
    return read_json(json.dumps({**HEAD, "codes": list(CODES), **changes}).encode(), Direction.OUT)


def test_each_text_that_is_no_code_has_its_reason_and_the_codes_stay_in_order() -> None:
    texts = [CODES[1], "", "8123", "x" * 20, "7" * 20, CODES[1], CODES[0], "\uff18" * 20, f" {CODES[2]}"]
    codes, rejected = sort_out(texts)
    assert codes == (CODES[1], CODES[0])
    assert [(one.index, one.why) for one in rejected] == [
        (1, Unfit.EMPTY),
        (2, Unfit.LENGTH),
        (3, Unfit.NOT_DIGITS),
        (4, Unfit.FIRST_DIGIT),
        (5, Unfit.TWICE),
        (7, Unfit.NOT_DIGITS),
        (8, Unfit.NOT_DIGITS),
    ]
    with pytest.raises(InputError, match="20 digits"):
        identifier_of("8123")


@given(st.from_regex(r"8[0-9]{19}", fullmatch=True))
def test_a_code_is_its_identifier_and_the_identifier_the_code(code: str) -> None:
    assert code_of(str(identifier_of(code))) == code


@pytest.mark.parametrize("key", ["", "88.118.8/SN-1", "drug.8123456", "drug.812345/60000000000001", "drug.8123456/1"])
def test_what_is_no_code_names_none(key: str) -> None:
    assert code_of(key) == ""


def test_bad_rows_are_named_and_the_others_stand() -> None:
    read, bad = bill(codes=[CODES[0], "8", 7, None, CODES[0], CODES[1], ["x"]])
    assert read.codes == CODES[:2]
    assert [(one.row, one.field) for one in bad] == [(row, "code") for row in (2, 3, 4, 5, 7)]
    assert [one.rule for one in bad][::3] == ["a code has 20 digits", "the code stands in the list already"]
    assert (read.at_ms, read.offset_minutes, read.partner, read.number) == (1_777_600_800_000, 480, "88.118.2", "CK-1")


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"bill": ""}, "bill.bill", Reason.FIELD_MALFORMED),
        ({"bill": "a/b"}, "bill.bill", Reason.FIELD_MALFORMED),
        ({"bill": 5}, "bill.bill", Reason.FIELD_MALFORMED),
        ({"time": "2026-05-01 10:00"}, "bill.time", Reason.FIELD_MALFORMED),
        ({"partner": ""}, "bill.partner", Reason.FIELD_MALFORMED),
        ({"place": "no uri"}, "bill.place", Reason.FIELD_MALFORMED),
        ({"codes": []}, "bill.codes", Reason.FIELD_MISSING),
        ({"codes": "8"}, "bill.codes", Reason.FIELD_MISSING),
        ({"codes": [""] * (ROWS_MAX + 1)}, "bill.codes", Reason.FIELD_TOO_LARGE),
        ({"more": 1}, "bill.'more'", Reason.FIELD_MALFORMED),
    ],
)
def test_what_is_wrong_with_a_bill_refuses_all_of_it(changes: dict[str, Any], field: str, reason: Reason) -> None:
    with pytest.raises(InputError) as refused:
        bill(**changes)
    assert (refused.value.field, refused.value.reason) == (field, reason)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"bill": "1", "bill": "2"}', b"[" * 100_000])
def test_what_is_no_bill_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        read_json(data, Direction.IN)


def test_rows_of_a_file_keep_their_numbers() -> None:
    head = Head("RK-1", TIME.replace("+08:00", "Z"), "88.118.8", "idtrace:88.118.2/A")
    lines = ["lot,code\n", f"L,{CODES[0]}\n", "\n", "L,9\n", "L\n", f"L, {CODES[1]} \n"]
    read, bad = read_csv(lines, Direction.IN, head)
    assert (read.codes, read.place, read.offset_minutes) == (CODES[:2], "idtrace:88.118.2/A", 0)
    assert [(one.row, one.text) for one in bad] == [(4, "9"), (5, "")]
    for broken in ([], ["lot\n", "L\n"], ["code,code\n"], ["code\n", '"8\n']):
        with pytest.raises(InputError):
            read_csv(broken, Direction.IN, head)
    assert require_number("A-1", "number") == "A-1"
    with pytest.raises(InputError):
        require_number("ü", "number")


ACTS: list[Act] = [
    Bill(Direction.IN, "R-1", T, 480, "88.118.8", CODES),
    Bill(Direction.OUT, "R-1", T, 0, "88.118.2", CODES, "idtrace:88.118.8/A"),
    Packing(CODES[0], CODES[1:], T),
    Packing(CODES[0], CODES[1:2], T, unpack=True),
    Packing(CODES[0], (), T, unpack=True),
    Replacement(CODES[0], CODES[1], "N-1", T),
    Cancellation(CODES[:2], T),
    Cancellation(CODES[:1], T, destroyed=True),
    Activation(CODES, T, lot="L1", expiry="2027-01-31"),
    Activation(CODES, T),
    Temperatures("idtrace:88.118.3/L-1", ((T, Decimal("4.5")), (T + 60_000, Decimal(-1)))),
    Temperatures(
        "idtrace:88.118.3/L", ((T, Decimal(4)),), 480, "88.118.8", "88.118.3", "B-1", "冷藏车", "疫苗", "代理"
    ),
    Fitting("idtrace:88.118.3/TRUCK", ("idtrace:88.118.3/L-1",), T),
    Fitting("idtrace:88.118.3/TRUCK", ("idtrace:88.118.3/L-1",), T, removed=True),
]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: type(act).__name__)
def test_an_act_becomes_events_of_epcis_and_comes_back(act: Act) -> None:
    read: list[Event] = []
    for event in events_of(act, "88.118.8"):
        (one,) = read_document(event_bytes(event)).items
        assert isinstance(one, Event), one
        read.append(one)
    assert act_of(read[0]) == act
    if isinstance(act, Replacement):
        assert act_of(read[1]) == Cancellation((act.old,), T)
    else:
        assert len(read) == 1


def test_a_long_bill_becomes_several_events_and_loses_no_code() -> None:
    codes = tuple(f"8123456{number:013d}" for number in range(2_500))
    events = events_of(Bill(Direction.OUT, "B", T, 480, "88.118.2", codes), "88.118.8")
    read = [one for one in map(act_of, events) if isinstance(one, Bill)]
    assert [len(one.codes) for one in read] == [1_000, 1_000, 500]
    assert tuple(code for one in read for code in one.codes) == codes
    assert {one.number for one in read} == {"B"}


def test_events_of_others_are_no_acts_about_codes() -> None:
    uri = acts.uri_of(CODES[0])
    thing = "idtrace:88.118.8/SN-1"
    obj, group, trans = EventType.OBJECT, EventType.AGGREGATION, EventType.TRANSFORMATION
    for event in (
        Event(obj, Action.OBSERVE, T, 0, epcs=(thing,), biz_step="shipping"),
        Event(obj, Action.OBSERVE, T, 0, epcs=(uri, thing), biz_step="shipping"),
        Event(obj, Action.OBSERVE, T, 0, epcs=(uri,), biz_step="shipping"),
        Event(obj, Action.OBSERVE, T, 0, epcs=(uri,), biz_step="storing"),
        Event(obj, Action.OBSERVE, T, 0, epcs=(uri,), biz_step="sensor_reporting"),
        Event(obj, Action.OBSERVE, T, 0),
        Event(group, Action.OBSERVE, T, 0, parent=uri, children=(uri,)),
        Event(group, Action.ADD, T, 0, parent=thing, children=(uri,)),
        Event(trans, None, T, 0, inputs=(uri, uri), outputs=(uri,)),
        Event(trans, None, T, 0, inputs=(thing,), outputs=(uri,)),
        Event(EventType.ASSOCIATION, Action.ADD, T, 0, parent=thing, children=(thing,)),
    ):
        assert act_of(event) is None

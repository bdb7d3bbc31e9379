"""Inbound and outbound bills (入库单, 出库单): lists of codes that came from somebody or go to somebody.

JSON: ``{"bill": "CK-1", "time": "2026-05-01T10:00:00+08:00", "partner": "88.118.8", "place": URI, "codes": […]}``;
``place`` may be left out. CSV: a header with the column ``code``, one code a row; the other columns of a warehouse's
own export (lot, name, …) are not read, and bill, time, partner and place are told beside the file.

A row is refused by itself, with its number, its field and the rule; the others stand. What is wrong with the bill as a
whole refuses all of it.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from idtrace.drugcode.codes import sort_out
from idtrace.epcis import values
from idtrace.epcis.context import Context
from idtrace.epcis.rules import Fault
from idtrace.errors import InputError, Reason, quoted
from idtrace.identifier import Prefix

# A truck of 24 pallets holds some hundred thousand boxes; a bill names its cartons, 10,000 at most.
ROWS_MAX: Final = 10_000
# Numbers of bills are typed by people; 64 characters are more than any warehouse system has.
_NUMBER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]{1,240}\Z")
_FIELDS: Final = ("bill", "time", "partner", "place", "codes")


class Direction(StrEnum):
    """Which way the goods go."""

    IN = "in"
    OUT = "out"


@dataclass(frozen=True, slots=True)
class Bill:
    """One bill: its number, when (UTC ms, local offset in minutes), with whom (a prefix), where ("" for none), what."""

    direction: Direction
    number: str
    at_ms: int
    offset_minutes: int
    partner: str
    codes: tuple[str, ...]
    place: str = ""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is refused; ``row`` counts from 1, in CSV the header is row 1."""

    row: int
    field: str
    text: str
    rule: str


@dataclass(frozen=True, slots=True)
class Head:
    """What a bill says beside its codes, as text."""

    number: str
    time: str
    partner: str
    place: str = ""


def read_json(data: bytes, direction: Direction, *, field: str = "bill") -> tuple[Bill, tuple[BadRow, ...]]:
    """A bill and its refused rows.

    Raises:
        InputError: FIELD_MALFORMED, FIELD_MISSING or FIELD_TOO_LARGE, with the field of the bill.
    """
    try:
        body = json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"this is no JSON: {quoted(str(error))}", field) from None
    if not isinstance(body, dict):
        raise _wrong("a bill is a JSON object", field)
    for name in body:
        if name not in _FIELDS:
            raise _wrong(f"a bill has the fields {', '.join(_FIELDS)}", f"{field}.{quoted(name)}")
    listed = body.get("codes")
    if not isinstance(listed, list):
        raise InputError(Reason.FIELD_MISSING, "codes is missing or no list", field=f"{field}.codes")
    told = {name: _text(body, name, field) for name in _FIELDS[:-1]}
    head = Head(told["bill"], told["time"], told["partner"], told["place"])
    return _bill(direction, head, tuple(enumerate(listed, start=1)), field)


def read_csv(
    lines: Iterable[str], direction: Direction, head: Head, *, field: str = "bill"
) -> tuple[Bill, tuple[BadRow, ...]]:
    """A bill out of rows, and its refused rows.

    Raises:
        InputError: as :func:`read_json`; the header has no column ``code``, or has it twice.
    """
    reader = csv.reader(lines, strict=True)
    listed: list[tuple[int, object]] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        if header.count("code") != 1:
            raise InputError(Reason.FIELD_MISSING, "the header has one column code", field=f"{field}: row 1")
        place = header.index("code")
        for row, cells in enumerate(reader, start=2):
            if cells:
                listed.append((row, cells[place].strip() if len(cells) == len(header) else None))
    except csv.Error as error:
        raise _wrong(f"a row cannot be read: {error}", f"{field}: row {len(listed) + 2}") from None
    return _bill(direction, head, tuple(listed), field)


def _bill(
    direction: Direction, head: Head, listed: tuple[tuple[int, object], ...], field: str
) -> tuple[Bill, tuple[BadRow, ...]]:
    number = head.number
    if _NUMBER.match(number) is None:
        raise _wrong("a bill's number has 1 to 64 letters, digits, '.', '_' and '-'", f"{field}.bill")
    at_ms, offset = read_time(head.time, f"{field}.time")
    partner = Prefix.parse(head.partner, field=f"{field}.partner")
    if partner.is_root:
        raise _wrong("the root is no partner", f"{field}.partner")
    if head.place and _URI.match(head.place) is None:
        raise _wrong("a place is a URI", f"{field}.place")
    if not listed:
        raise InputError(Reason.FIELD_MISSING, "a bill has at least one code", field=f"{field}.codes")
    if len(listed) > ROWS_MAX:
        raise InputError(Reason.FIELD_TOO_LARGE, f"a bill has at most {ROWS_MAX:,} codes", field=f"{field}.codes")
    bad = [
        BadRow(row, "code", "", "the row has not as many cells as the header" if one is None else "a code is a text")
        for row, one in listed
        if not isinstance(one, str)
    ]
    texts = [(row, one) for row, one in listed if isinstance(one, str)]
    codes, rejected = sort_out(text for _, text in texts)
    bad += [BadRow(texts[one.index][0], "code", one.text, one.rule) for one in rejected]
    bill = Bill(direction, number, at_ms, offset, str(partner), codes, head.place)
    return bill, tuple(sorted(bad, key=lambda one: one.row))


def read_time(text: str, field: str) -> tuple[int, int]:
    """A time with its offset, as UTC ms and minutes.

    Raises:
        InputError: FIELD_MALFORMED.
    """
    try:
        at_ms = values.time_ms(text, Context())
        offset = 0 if text.endswith("Z") else values.offset_minutes(text[-6:], Context())
    except Fault as fault:
        raise _wrong(fault.sentence, field) from None
    return at_ms, offset


def require_number(text: str, field: str) -> str:
    """The number of a bill or a replacement.

    Raises:
        InputError: FIELD_MALFORMED.
    """
    if _NUMBER.match(text) is None:
        raise _wrong("a number has 1 to 64 letters, digits, '.', '_' and '-'", field)
    return text


def _text(body: dict[str, Any], name: str, field: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str):
        raise _wrong(f"{name} is a text", f"{field}.{name}")
    return value


def _once(items: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(items)
    if len(body) != len(items):
        raise ValueError("a name stands twice in one object")
    return body


def _wrong(rule: str, field: str) -> InputError:
    return InputError(Reason.FIELD_MALFORMED, rule, field=field)

"""Lines of a bulk file: CSV or JSON lines, each a draft or a complaint that names its line.

CSV: a header row; the column ``identifier`` holds any scannable text; every other column is a value whose type is the
column's name; empty cells are left out. JSON lines: ``{"identifier": …, "values": {…}, "class": …, "ttl_seconds": …}``
where a value is text, a whole number, or ``{"data": …, "permission": "restricted"}``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from idtrace.cli.drafts import Draft, Entry, permission_of
from idtrace.errors import InputError, Reason, quoted
from idtrace.identifier import Identifier, require_visible
from idtrace.record import VALUE_TYPE_MAX, VALUES_MAX, Permission, RecordKind
from idtrace.scan import scan

# 256 values of 4 KiB with every character escaped; a longer line is another file.
LINE_CHARS_MAX: Final = 8_388_608
IDENTIFIER_COLUMN: Final = "identifier"


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for every line that does not say otherwise."""

    ttl_seconds: int
    class_id: Identifier | None = None
    kind: RecordKind = RecordKind.ITEM
    restricted: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Line:
    """A line that asks for a registration; numbers count from 1 as editors do."""

    number: int
    draft: Draft


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that nothing can be made of, with the text of its identifier as far as there is one."""

    number: int
    text: str
    error: InputError


def read_rows(path: Path, defaults: Defaults) -> Iterator[Line | BadLine]:
    """Lines of a file, by the ending of its name: .csv, .jsonl or .ndjson.

    Raises:
        InputError: FIELD_MALFORMED where the file as a whole cannot be read (header, encoding, ending).
        OSError: as the file system says.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(Reason.FIELD_MALFORMED, "the name ends in .csv, .jsonl or .ndjson", field=str(path))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from reader(file, defaults, str(path))
    except UnicodeDecodeError:
        rule = "the file is not UTF-8; a spreadsheet program saves it as 'CSV UTF-8'"
        raise InputError(Reason.FIELD_MALFORMED, rule, field=str(path)) from None


def count_lines(path: Path) -> int:
    """Line ends in a file: a good guess of its rows, for a progress bar."""
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1_048_576), b""))


def _read_csv(file: Iterable[str], defaults: Defaults, field: str) -> Iterator[Line | BadLine]:
    reader = csv.reader(file, strict=True)
    begun = 0  # line ends before the row being read: an unclosed quote is found far below the line that has it
    try:
        header = next(reader, [])
        _check_header(header, field)
        place = header.index(IDENTIFIER_COLUMN)
        begun = reader.line_num
        for cells in reader:
            begun = reader.line_num
            if cells:
                yield _csv_line(reader.line_num, header, cells, place, defaults)
    except csv.Error as error:
        detail = f"the row that begins in line {begun + 1}: {error} (is a quote left open?)"
        raise InputError(Reason.FIELD_MALFORMED, detail, field=field) from None


def _csv_line(number: int, header: list[str], cells: list[str], place: int, defaults: Defaults) -> Line | BadLine:
    text = cells[place] if place < len(cells) else ""
    try:
        _require_as_many(cells, header)
        values = tuple(
            (type_, cell.encode(), permission_of(type_, defaults.restricted))
            for type_, cell in zip(header, cells, strict=True)
            if type_ != IDENTIFIER_COLUMN and cell
        )
        return Line(number, _draft(text, values, defaults.class_id, defaults.ttl_seconds, defaults.kind))
    except InputError as error:
        return BadLine(number, text, error)


def _require_as_many(cells: list[str], header: list[str]) -> None:
    if len(cells) != len(header):
        rule = f"the line has {len(cells)} cells, the header {len(header)}"
        raise InputError(Reason.FIELD_MALFORMED, rule, field="line")


def _check_header(header: list[str], field: str) -> None:
    if IDENTIFIER_COLUMN not in header:
        other = next((mark for mark in (";", "\t") if len(header) == 1 and mark in header[0]), "")
        why = f" (the cells are separated by {other!r}; save the file with commas)" if other else ""
        rule = f"the header has no column {IDENTIFIER_COLUMN}{why}"
        raise InputError(Reason.FIELD_MISSING, rule, field=f"{field}: line 1")
    if len(header) > VALUES_MAX + 1:
        raise InputError(Reason.FIELD_TOO_LARGE, f"more than {VALUES_MAX} values", field=f"{field}: line 1")
    for position, name in enumerate(header):
        where = f"{field}: line 1, column {position + 1}"
        require_visible(name, what="column name", field=where)
        if len(name) > VALUE_TYPE_MAX:
            rule = f"a column name has at most {VALUE_TYPE_MAX} characters"
            raise InputError(Reason.FIELD_TOO_LARGE, rule, field=where)
        if name in header[:position]:
            raise InputError(Reason.VALUE_DUPLICATE, f"the column {quoted(name)} stands twice", field=where)


def _read_jsonl(file: Iterable[str], defaults: Defaults, field: str) -> Iterator[Line | BadLine]:
    del field
    for number, text in enumerate(file, start=1):
        if text.strip():
            yield _json_line(number, text, defaults)


def _json_line(number: int, text: str, defaults: Defaults) -> Line | BadLine:
    shown = ""
    try:
        body = _json_object(text)
        shown = str(body.get("identifier", ""))
        return Line(number, _json_draft(body, defaults))
    except InputError as error:
        return BadLine(number, shown, error)


def _json_object(text: str) -> dict[str, Any]:
    if len(text) > LINE_CHARS_MAX:
        raise InputError(Reason.FIELD_TOO_LARGE, f"a line has at most {LINE_CHARS_MAX} characters", field="line")
    try:
        body = json.loads(text, object_pairs_hook=_once, parse_float=_no_float, parse_constant=_no_float)
    except (ValueError, RecursionError) as error:
        raise InputError(Reason.FIELD_MALFORMED, f"not a line of JSON: {quoted(str(error))}", field="line") from None
    if not isinstance(body, dict):
        raise InputError(Reason.FIELD_MALFORMED, "a line is a JSON object", field="line")
    return body


def _json_draft(body: dict[str, Any], defaults: Defaults) -> Draft:
    if unknown := set(body) - {"identifier", "values", "class", "ttl_seconds"}:
        name = min(unknown)
        raise InputError(Reason.FIELD_MALFORMED, f"{quoted(name)} is no field; values stand under values", field=name)
    text = body.get("identifier")
    if not isinstance(text, str):
        raise InputError(Reason.FIELD_MISSING, "identifier is missing or not a string", field="identifier")
    given = body.get("values", {})
    if not isinstance(given, dict):
        raise InputError(Reason.FIELD_MALFORMED, "values is not an object", field="values")
    class_text, ttl = body.get("class", ""), body.get("ttl_seconds", defaults.ttl_seconds)
    if not isinstance(class_text, str):
        raise InputError(Reason.FIELD_MALFORMED, "class is not a string", field="class")
    if not isinstance(ttl, int) or isinstance(ttl, bool):
        raise InputError(Reason.FIELD_MALFORMED, "ttl_seconds is not a whole number", field="ttl_seconds")
    class_id = Identifier.parse(class_text, field="class") if class_text else defaults.class_id
    values = tuple(_json_value(type_, value, defaults.restricted) for type_, value in given.items())
    return _draft(text, values, class_id, ttl, defaults.kind)


def _json_value(type_: str, value: Any, restricted: frozenset[str]) -> Entry:
    field = f"values.{type_}"
    permission = permission_of(type_, restricted)
    if isinstance(value, dict):
        if not {"data"} <= set(value) <= {"data", "permission"}:
            raise InputError(Reason.FIELD_MALFORMED, "a value has data and permission", field=field)
        if value.get("permission", permission) not in tuple(Permission):
            raise InputError(Reason.FIELD_MALFORMED, "permission is public or restricted", field=field)
        permission = Permission(value.get("permission", permission))
        value = value["data"]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(Reason.FIELD_MALFORMED, "a value is text or a whole number", field=field)
    return (type_, _utf8(str(value), field), permission)


def _utf8(text: str, field: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InputError(Reason.FIELD_MALFORMED, "a value has half of a surrogate pair", field=field) from None


def _draft(
    text: str, values: tuple[Entry, ...], class_id: Identifier | None, ttl_seconds: int, kind: RecordKind
) -> Draft:
    return Draft(scan(text).identifier, values, kind, class_id, ttl_seconds)


def _once(items: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(items)
    if len(body) != len(items):
        raise ValueError("a name stands twice in one object")
    return body


def _no_float(text: str) -> Any:
    raise ValueError(f"{text[:40]} is not a whole number; write it as text")

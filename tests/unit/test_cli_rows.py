"""Bulk files: every line is a draft or a complaint with its number, and no file breaks the reader."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idtrace.cli.rows import BadLine, Defaults, Line, count_lines, read_rows
from idtrace.errors import InputError, Reason
from idtrace.identifier import Identifier
from idtrace.record import Permission

DEFAULTS = Defaults(ttl_seconds=60)
EXAMPLES = Path(__file__).parents[2] / "examples"


def read(
    tmp_path: Path, content: str | bytes, name: str = "f.csv", defaults: Defaults = DEFAULTS
) -> list[Line | BadLine]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_rows(path, defaults))


def good(row: Line | BadLine) -> Line:
    assert isinstance(row, Line), row
    return row


def bad(row: Line | BadLine) -> tuple[int, Reason, str]:
    assert isinstance(row, BadLine), row
    return row.number, row.error.reason, row.error.field


def test_columns_are_values_and_empty_cells_are_left_out(tmp_path: Path) -> None:
    rows = read(tmp_path, 'lot,identifier,URL\nL1,88.118/a,\n,88.118/b,"x,\ny"\n')
    assert [good(row).number for row in rows] == [2, 4]
    assert good(rows[0]).draft.values == (("lot", b"L1", Permission.PUBLIC),)
    assert good(rows[1]).draft.values == (("URL", b"x,\ny", Permission.PUBLIC),)
    assert good(rows[0]).draft.ttl_seconds == 60


def test_an_identifier_is_read_as_scanned(tmp_path: Path) -> None:
    (row,) = read(tmp_path, "identifier\n(01)09506000134352(21)SN-1\n")
    assert str(good(row).draft.identifier) == "gs1.01.09506000134352/21.SN-1"


def test_a_spreadsheets_byte_order_mark_and_line_ends_do_no_harm(tmp_path: Path) -> None:
    (row,) = read(tmp_path, "\ufeffidentifier,lot\r\n88.118/a,L1\r\n\r\n")
    assert good(row).draft.values == (("lot", b"L1", Permission.PUBLIC),)


def test_a_bad_line_is_named_and_the_next_one_is_read(tmp_path: Path) -> None:
    rows = read(tmp_path, "identifier,lot\nnonsense,L1\n88.118/a\n88.118/b,1,2\n,L1\n88.118/c,L1\n")
    assert [bad(row)[:2] for row in rows[:4]] == [
        (2, Reason.SCAN_UNKNOWN_SCHEME),
        (3, Reason.FIELD_MALFORMED),
        (4, Reason.FIELD_MALFORMED),
        (5, Reason.SCAN_UNKNOWN_SCHEME),
    ]
    assert good(rows[4]).number == 6


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no column identifier"),
        ("id,lot\n", "no column identifier"),
        ("identifier;lot\n", "separated by ';'"),
        ("identifier\tlot\n", "separated by"),
        ("identifier,lot,lot\n", "stands twice"),
        ("identifier,identifier\n", "stands twice"),
        ("identifier,\n", "empty"),
        ("identifier, lot\n", "space"),
        ("identifier," + "x" * 129 + "\n", "128"),
        ("identifier," + ",".join(f"f{n}" for n in range(257)) + "\n", "256"),
        ('identifier\n"88.118/a"x\n', "line 2"),
        ("identifier\n" + "x" * 200_000 + "\n", "line 2"),
        (b"identifier\n88.118/\xe7\x96\n", "UTF-8"),
        ("identifier\n88.118/\x00\n", None),
    ],
)
def test_a_file_that_is_no_table_is_refused_as_a_whole(tmp_path: Path, content: str | bytes, said: str | None) -> None:
    if said is None:
        assert [bad(row)[0] for row in read(tmp_path, content)] == [2]
        return
    with pytest.raises(InputError) as caught:
        read(tmp_path, content)
    assert said in str(caught.value)
    assert "f.csv" in caught.value.field


def test_the_ending_of_the_name_tells_the_form(tmp_path: Path) -> None:
    for name in ("f.txt", "f", "f.csv.gz"):
        with pytest.raises(InputError):
            read(tmp_path, "identifier\n", name)
    assert read(tmp_path, "identifier\n88.118/a\n", "F.CSV")
    assert read(tmp_path, '{"identifier": "88.118/a"}', "f.ndjson")


def test_json_lines_say_more_than_a_table_can(tmp_path: Path) -> None:
    line = (
        '{"identifier": "88.118/a", "class": "88.118/c", "ttl_seconds": 7,'
        ' "values": {"lot": "L1", "n": 12, "t": {"data": "Li", "permission": "restricted"}, "u": {"data": 3}}}\n'
    )
    (row,) = read(tmp_path, line, "f.jsonl")
    draft = good(row).draft
    assert draft.values == (
        ("lot", b"L1", Permission.PUBLIC),
        ("n", b"12", Permission.PUBLIC),
        ("t", b"Li", Permission.RESTRICTED),
        ("u", b"3", Permission.PUBLIC),
    )
    assert (draft.class_id, draft.ttl_seconds) == (Identifier.parse("88.118/c"), 7)


def test_defaults_hold_where_a_line_says_nothing(tmp_path: Path) -> None:
    defaults = Defaults(9, Identifier.parse("88.118/c"), restricted=frozenset({"lot"}))
    for name, content in (
        ("f.csv", "identifier,lot\n88.118/a,L1\n"),
        ("f.jsonl", '{"identifier": "88.118/a", "values": {"lot": "L1"}}'),
    ):
        draft = good(read(tmp_path, content, name, defaults)[0]).draft
        assert (draft.ttl_seconds, draft.class_id) == (9, Identifier.parse("88.118/c"))
        assert draft.values == (("lot", b"L1", Permission.RESTRICTED),)


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("nonsense", "line"),
        ("[]", "line"),
        ("[" * 100_000, "line"),
        ('{"identifier": 5}', "identifier"),
        ("{}", "identifier"),
        ('{"identifier": "88.118/a", "lot": "L1"}', "lot"),
        ('{"identifier": "88.118/a", "values": []}', "values"),
        ('{"identifier": "88.118/a", "values": {"x": 1.5}}', "line"),
        ('{"identifier": "88.118/a", "values": {"x": NaN}}', "line"),
        ('{"identifier": "88.118/a", "values": {"x": true}}', "values.x"),
        ('{"identifier": "88.118/a", "values": {"x": null}}', "values.x"),
        ('{"identifier": "88.118/a", "values": {"x": "\\ud800"}}', "values.x"),
        ('{"identifier": "88.118/a", "values": {"x": {"data": []}}}', "values.x"),
        ('{"identifier": "88.118/a", "values": {"x": {"permission": "public"}}}', "values.x"),
        ('{"identifier": "88.118/a", "values": {"x": {"data": "", "permission": "secret"}}}', "values.x"),
        ('{"identifier": "88.118/a", "values": {"x": {"data": "", "permission": []}}}', "values.x"),
        ('{"identifier": "88.118/a", "values": {"x": {"data": "", "index": 1}}}', "values.x"),
        ('{"identifier": "88.118/a", "identifier": "88.118/b"}', "line"),
        ('{"identifier": "88.118/a", "values": {"x": "1", "x": "2"}}', "line"),
        ('{"identifier": "88.118/a", "class": 5}', "class"),
        ('{"identifier": "88.118/a", "class": "nonsense"}', "class"),
        ('{"identifier": "88.118/a", "ttl_seconds": "5"}', "ttl_seconds"),
        ('{"identifier": "88.118/a", "ttl_seconds": true}', "ttl_seconds"),
    ],
)
def test_a_line_of_json_that_says_something_else_is_refused(tmp_path: Path, line: str, field: str) -> None:
    rows = read(tmp_path, f'\n{line}\n{{"identifier": "88.118/b"}}\n', "f.jsonl")
    number, _, where = bad(rows[0])
    assert (number, where) == (2, field)
    assert good(rows[1]).number == 3


def test_a_huge_line_is_refused_without_being_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idtrace.cli.rows.LINE_CHARS_MAX", 100)
    assert bad(read(tmp_path, '{"identifier": "' + "x" * 100 + '"}', "f.jsonl")[0])[1] is Reason.FIELD_TOO_LARGE


@given(content=st.binary(max_size=300), name=st.sampled_from(["f.csv", "f.jsonl"]))
@settings(max_examples=150)
def test_no_file_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str) -> None:
    folder = tmp_path_factory.mktemp("rows")
    prefix = b"identifier,a\n" if name == "f.csv" else b""
    try:
        rows = read(folder, prefix + content, name)
    except InputError:
        return
    assert all(isinstance(row, Line | BadLine) for row in rows)


@pytest.mark.parametrize("name", ["items.csv", "items.jsonl"])
def test_the_shipped_samples_are_read_whole(name: str) -> None:
    rows = [good(row) for row in read_rows(EXAMPLES / name, DEFAULTS)]
    assert len(rows) == 3
    assert count_lines(EXAMPLES / name) in {3, 4}

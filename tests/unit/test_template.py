"""Templates: what a class demands, what it inherits, and what it cannot be talked out of."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace import canonical
from idtrace.errors import InputError, Reason, RefusedError
from idtrace.record import VALUES_MAX
from idtrace.template import CODES_MAX, TEMPLATE_TYPE, FieldType, Template, TemplateField, inherited
from tests.core_fixtures import reason_of

R = Reason


def spec(
    name: str, type_: FieldType = FieldType.TEXT, *, required: bool = False, unique: bool = False, codes: Any = ()
) -> TemplateField:
    return TemplateField(name, type_, required, unique, codes)


def template(*fields: TemplateField, is_open: bool = False) -> Template:
    return Template(fields, is_open)


names = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=12)
fields = st.builds(
    lambda name, type_, required, unique, codes: spec(
        name, type_, required=required, unique=unique, codes=codes if type_ is FieldType.CODE else ()
    ),
    names,
    st.sampled_from(FieldType),
    st.booleans(),
    st.booleans(),
    st.lists(names, min_size=1, max_size=3).map(tuple),
)


@given(st.lists(fields, max_size=5, unique_by=lambda f: f.name), st.booleans())
def test_a_template_comes_back_from_its_bytes(given_fields: list[TemplateField], is_open: bool) -> None:
    made = Template(tuple(given_fields), is_open)
    assert Template.parse(made.payload()) == made


CODED = spec("c", FieldType.CODE, codes=("x",))


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (template(spec("a"), spec("a")), R.TEMPLATE_MALFORMED),
        (template(spec(TEMPLATE_TYPE)), R.TEMPLATE_MALFORMED),
        (template(spec("a", codes=("x",))), R.TEMPLATE_MALFORMED),
        (template(spec("a", FieldType.CODE)), R.TEMPLATE_MALFORMED),
        (template(spec("")), R.IDENTIFIER_MALFORMED),
        (template(spec("a\u200b")), R.IDENTIFIER_MALFORMED),
        (template(spec("x" * 129)), R.FIELD_TOO_LARGE),
        (template(spec("a", FieldType.CODE, codes=("x",) * (CODES_MAX + 1))), R.FIELD_TOO_LARGE),
        (template(*(spec(f"f{n}") for n in range(VALUES_MAX + 1))), R.FIELD_TOO_LARGE),
        (template(CODED), None),
    ],
)
def test_rules_of_a_template(made: Template, reason: Reason | None) -> None:
    assert reason_of(lambda: Template.parse(made.payload())) is reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"open": 1}, R.FIELD_MALFORMED),
        ({"fields": {}}, R.FIELD_MALFORMED),
        ({"fields": ["name"]}, R.FIELD_MALFORMED),
        ({"version": 1}, R.FIELD_MALFORMED),
        (
            {"fields": [{"name": "a", "type": "float", "required": True, "unique": True, "codes": []}]},
            R.FIELD_MALFORMED,
        ),
        ({"fields": [{"name": "a", "type": "text", "required": 1, "unique": True, "codes": []}]}, R.FIELD_MALFORMED),
        ({"fields": [{"name": "a", "type": "text", "unique": True, "codes": []}]}, R.FIELD_MISSING),
        (
            {"fields": [{"name": "a", "type": "text", "required": True, "unique": True, "codes": [], "x": 1}]},
            R.FIELD_MALFORMED,
        ),
        (
            {"fields": [{"name": "a", "type": "code", "required": True, "unique": True, "codes": [1]}]},
            R.FIELD_MALFORMED,
        ),
    ],
)
def test_a_template_is_read_strictly(change: dict[str, Any], reason: Reason) -> None:
    fields: dict[str, Any] = {"fields": [], "open": False}
    data = canonical.encode(fields | change)
    assert reason_of(lambda: Template.parse(data)) is reason


HEX = "0123456789abcdef" * 4
DATA: list[tuple[FieldType, list[str], list[str]]] = [
    (FieldType.TEXT, ["a", "药品 1", "a b"], ["", " a", "a ", "a\nb", "\u202ea", "e\u0301", "\ue000", "\x00"]),
    (
        FieldType.NUMBER,
        ["0", "-1", "12.50", "999999999999999999", "0.000000000000000001"],
        [
            "",
            "-",
            "01",
            "1.",
            ".5",
            "1e3",
            "+1",
            "1 ",
            "1\n",
            "٣",
            "NaN",
            "1,5",
            "1000000000000000000",
            "0." + "0" * 19,
        ],
    ),
    (
        FieldType.DATE,
        ["2026-01-31", "2024-02-29", "0001-01-01", "9999-12-31"],
        [
            "",
            "2026-1-31",
            "2026-02-29",
            "2026-13-01",
            "20260131",
            "2026-01-31\n",
            "2026-W05-6",
            "0000-01-01",
            "\uff12026-01-31",
        ],
    ),
    (FieldType.CODE, ["x"], ["", "X", "x ", "y"]),
    (FieldType.REFERENCE, ["88.118.8/SN-0001", "0042/0"], ["", "88", "88/", "/x", "A/x", "88/x ", "88/e\u0301"]),
    (
        FieldType.FILE,
        [f"sha256:{HEX}"],
        ["", HEX, f"sha256:{HEX[1:]}", f"sha256:{HEX.upper()}", f"sha256:{HEX}\n", f"sha1:{HEX}"],
    ),
]


@pytest.mark.parametrize(("type_", "good", "bad"), DATA, ids=[row[0].value for row in DATA])
def test_data_is_of_its_field_s_type(type_: FieldType, good: list[str], bad: list[str]) -> None:
    made = template(spec("f", type_, codes=("x",) if type_ is FieldType.CODE else ()))
    for text in good:
        assert made.check([("f", text.encode())]) == ()
    for data in (*(text.encode() for text in bad), b"\xff", b"\xed\xa0\x80"):
        with pytest.raises(RefusedError) as caught:
            made.check([("f", data)])
        assert caught.value.reason is R.CLASS_FIELD_TYPE, data
        assert caught.value.field == "values.f"


def test_every_type_of_field_has_its_rows() -> None:
    assert [row[0] for row in DATA] == list(FieldType)


def test_required_fields_have_to_be_there() -> None:
    made = template(spec("a", required=True), spec("b"))
    assert made.check([("a", b"1")]) == ()
    assert reason_of(lambda: made.check([("b", b"1")])) is R.CLASS_FIELD_REQUIRED
    assert reason_of(lambda: made.check([])) is R.CLASS_FIELD_REQUIRED


def test_a_field_stands_once() -> None:
    made = template(spec("a"))
    assert reason_of(lambda: made.check([("a", b"1"), ("a", b"1")])) is R.CLASS_FIELD_REPEATED


def test_only_an_open_class_admits_fields_that_it_does_not_name() -> None:
    values = [("a", b"1"), ("other", b"\xff"), ("other", b"\xff")]
    assert template(spec("a"), is_open=True).check(values) == ()
    assert reason_of(lambda: template(spec("a")).check(values)) is R.CLASS_FIELD_UNKNOWN


def test_a_required_field_cannot_be_met_by_another_s_case() -> None:
    made = template(spec("a", required=True), is_open=True)
    assert reason_of(lambda: made.check([("A", b"1")])) is R.CLASS_FIELD_REQUIRED


def test_unique_fields_are_handed_out_for_the_registry_to_claim() -> None:
    made = template(spec("a", unique=True), spec("b"), spec("c", unique=True), is_open=True)
    assert made.check([("c", b"3"), ("b", b"2"), ("z", b"9"), ("a", b"1")]) == (("c", b"3"), ("a", b"1"))
    assert made.check([("b", b"2")]) == ()


def test_a_child_adds_fields_and_redefines_none() -> None:
    base = template(spec("a", required=True), is_open=True)
    grown = base.extend(template(spec("b", unique=True), is_open=True))
    assert [f.name for f in grown.fields] == ["a", "b"]
    assert reason_of(lambda: grown.check([("b", b"1")])) is R.CLASS_FIELD_REQUIRED
    with pytest.raises(InputError) as caught:
        base.extend(template(spec("a")), field="class")
    assert (caught.value.reason, caught.value.field) == (R.TEMPLATE_MALFORMED, "class")


@pytest.mark.parametrize("base", [True, False])
@pytest.mark.parametrize("child", [True, False])
def test_a_class_is_open_only_where_its_whole_line_is(base: bool, child: bool) -> None:
    assert template(is_open=base).extend(template(is_open=child)).open is (base and child)


def test_the_nearest_class_s_values_hold_and_templates_are_never_inherited() -> None:
    own = {"name": b"own"}
    line = [{"name": b"class", "maker": b"class", TEMPLATE_TYPE: b"{}"}, {"maker": b"base", "country": b"base"}]
    assert inherited(own, line) == {"name": b"own", "maker": b"class", "country": b"base"}
    assert own == {"name": b"own"}


@pytest.mark.parametrize("codes", [("A", "A"), ("A", "B", "A"), ("a\n",), ("",), (" b",)])
def test_codes_are_visible_and_stand_once(codes: tuple[str, ...]) -> None:
    spec = TemplateField("grade", FieldType.CODE, required=False, unique=False, codes=codes)
    with pytest.raises(InputError) as caught:
        Template.parse(Template((spec,), open=False).payload())
    assert caught.value.field == "template.fields[0].codes"

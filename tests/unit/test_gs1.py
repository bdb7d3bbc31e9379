"""GS1 keys as identifiers: there and back by every form, one name for each key, native text under ``gs1`` checked."""

from __future__ import annotations

import pytest
from biip.checksums import gs1_standard_check_digit
from hypothesis import given, settings
from hypothesis import strategies as st

from idtrace.errors import InputError, Reason
from idtrace.gs1 import KEYS, check_elements, elements_of, identify, to_digital_link, to_element_string
from idtrace.gs1_rules import Element, Elements, check_value
from idtrace.gs1_values import CSET82, check_pair
from idtrace.identifier import Identifier
from idtrace.scan import Scheme, check_scheme, scan


def _text(most: int) -> st.SearchStrategy[str]:
    return st.one_of(
        st.text(CSET82, min_size=1, max_size=most),
        st.sampled_from(("class", "0", "21.X", "/", "..", "7040.A-1x", "%2F", "8011.1.X", "a/b", "(21)")),
    )


def _digits(least: int, most: int | None = None) -> st.SearchStrategy[str]:
    return st.text("0123456789", min_size=least, max_size=most or least)


def _checked(count: int) -> st.SearchStrategy[str]:
    return _digits(count - 1).map(lambda digits: digits + str(gs1_standard_check_digit(digits)))


def _after(start: st.SearchStrategy[str], rest: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(start, rest).map("".join)


_UIC = st.tuples(*map(st.sampled_from, ("0159", "AZ./-", "19./b", "Az0_-"))).map("".join)
_PIECE = st.integers(1, 99).flatmap(lambda total: st.integers(1, total).map(lambda piece: f"{piece:02}{total:02}"))
_COMPANY = _digits(6, 12)
_PART = _after(_COMPANY, st.text("#-/0123456789ABCXYZ", min_size=1, max_size=18))
_SERIAL = st.integers(1, 10**12 - 1).map(str)
_VALUES: dict[str, st.SearchStrategy[str]] = {
    "00": _checked(18),
    "01": _checked(14),
    "10": _text(20),
    "21": _text(20),
    "22": _text(20),
    "235": _text(28),
    "253": _after(_checked(13), st.one_of(st.just(""), _text(17))),
    "254": _text(20).filter(lambda extension: extension != "0"),
    "255": _after(_checked(13), _digits(0, 12)),
    "401": _after(_COMPANY, _text(18)),
    "402": _checked(17),
    "414": _checked(13),
    "415": _checked(13),
    "417": _checked(13),
    "7040": _UIC,
    "8003": _after(st.just("0"), _after(_checked(13), st.one_of(st.just(""), _text(16)))),
    "8004": _after(st.one_of(_COMPANY, st.just("7040")), _text(18)),
    "8006": _after(_checked(14), _PIECE),
    "8010": _PART,
    "8011": _SERIAL,
    "8013": _after(_COMPANY, _text(11)).map(lambda model: model + check_pair(model)),
    "8017": _checked(18),
    "8018": _checked(18),
    "8019": _digits(1, 10),
    "8020": _text(25),
}
_PAIRS = (
    *((key,) for key in sorted(KEYS - {"415"})),
    *(("01", qualifier) for qualifier in ("21", "10", "22", "235")),
    *(("8006", qualifier) for qualifier in ("21", "10")),
    *(("414", qualifier) for qualifier in ("254", "7040")),
    *(("8004", "7040"), ("417", "7040"), ("8010", "8011"), ("8017", "8019"), ("8018", "8019"), ("415", "8020")),
)


def _values_of(ais: tuple[str, ...]) -> st.SearchStrategy[Elements]:
    return st.tuples(*(st.tuples(st.just(ai), _VALUES[ai]) for ai in ais))


keys = st.sampled_from(_PAIRS).flatmap(_values_of)


@given(keys)
@settings(max_examples=200)
def test_a_key_has_one_identifier_and_the_identifier_one_key(elements: Elements) -> None:
    for ai, value in elements:
        check_value(ai, value)
    check_elements(elements)
    identifier, rest = identify(elements)
    assert rest == ()
    # Taking the identifier apart gives the key back, so no other key can have the same identifier.
    assert elements_of(identifier) == elements
    assert Identifier.parse_canonical(str(identifier)) == identifier
    check_scheme(identifier)


@given(keys)
@settings(max_examples=200)
def test_every_form_of_a_key_scans_to_the_same_identifier(elements: Elements) -> None:
    identifier, _ = identify(elements)
    for text in (
        str(identifier),
        str(identifier).replace("gs1.", "GS1.", 1),
        to_element_string(identifier),
        "]d2" + to_element_string(identifier),
        "]C1" + to_element_string(identifier)[1:] + "\r\n",
        "".join(f"({ai})" + value.replace("(", "\\(") for ai, value in elements),
        to_digital_link(identifier),
        to_digital_link(identifier, "http://example.com:8080/a/b"),
    ):
        scanned = scan(text)
        assert scanned.identifier == identifier, text
        assert scanned.scheme is Scheme.GS1
        assert scanned.attributes == ()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((("8004", "7040.A-1x.9"),), (("8004", "9999.9"), ("7040", "1A-x"))),
        ((("8003", "09506000134352class"),), (("8003", "09506000134352"),)),
        ((("253", "9506000134352class"),), (("253", "9506000134352"),)),
        ((("01", "09506000134352"), ("21", "class")), (("01", "09506000134352"),)),
        ((("01", "09506000134352"), ("21", "10.A")), (("01", "09506000134352"), ("10", "A"))),
        ((("8010", "4012345ABC"), ("8011", "1")), (("8010", "4012345ABC"),)),
        ((("414", "9506000134352"), ("254", "A")), (("414", "9506000134352"),)),
        ((("414", "9506000134352"),), (("417", "9506000134352"),)),
        ((("8017", "950600013435200005"),), (("8018", "950600013435200005"),)),
    ],
)
def test_keys_that_look_alike_keep_apart(first: Elements, second: Elements) -> None:
    assert identify(first)[0] != identify(second)[0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("gs1.01.09506000134353/21.X", Reason.GS1_CHECK_DIGIT),
        ("gs1.01.9506000134352/21.X", Reason.IDENTIFIER_NOT_CANONICAL),
        ("gs1.01.95060001343520/class/x", Reason.GS1_MALFORMED),
        ("gs1.01.9506000134352x/21.X", Reason.GS1_MALFORMED),
        ("gs1.01.09506000134352/X", Reason.GS1_MALFORMED),
        ("gs1.01.09506000134352/21X", Reason.GS1_MALFORMED),
        ("gs1.01.09506000134352/21.", Reason.GS1_MALFORMED),
        ("gs1.01.09506000134352/21", Reason.GS1_MALFORMED),
        ("gs1.01.09506000134352/17.260131", Reason.GS1_MALFORMED),
        ("gs1.01.09506000134352/Class", Reason.GS1_MALFORMED),
        ("gs1.01.09506000134352/21.A B", Reason.GS1_MALFORMED),
        ("gs1.01.09506000134352/21.\u00e9", Reason.GS1_MALFORMED),
        ("gs1.01.09506000134352.21/X", Reason.GS1_MALFORMED),
        ("gs1.01/09506000134352", Reason.GS1_MALFORMED),
        ("gs1/x", Reason.GS1_MALFORMED),
        ("gs1.99/x", Reason.GS1_MALFORMED),
        ("gs1.02.09506000134352/class", Reason.GS1_MALFORMED),
        ("gs1.00/106141412345678909", Reason.GS1_CHECK_DIGIT),
        ("gs1.00.106141412345678908/class", Reason.GS1_MALFORMED),
        ("gs1.414.9506000134352/class", Reason.GS1_MALFORMED),
        ("gs1.414.9506000134352/254.0", Reason.GS1_MALFORMED),
        ("gs1.414.9506000134352/254.", Reason.GS1_MALFORMED),
        ("gs1.415/9506000134352", Reason.GS1_MALFORMED),
        ("gs1.8003.9506000134352/8003.", Reason.IDENTIFIER_NOT_CANONICAL),
        ("gs1.8003.9506000134352/X", Reason.GS1_MALFORMED),
        ("gs1.8003.950600013435/8003.2X", Reason.IDENTIFIER_NOT_CANONICAL),
        ("gs1.8003.09506000134352/8003.X", Reason.GS1_CHECK_DIGIT),
        ("gs1.253.9506000134352/253.", Reason.IDENTIFIER_NOT_CANONICAL),
        ("gs1.255.9506000134352/255.X", Reason.GS1_MALFORMED),
        ("gs1.8004.7040/1A-x-9999.9", Reason.GS1_MALFORMED),
        ("gs1.8004.7040/1A-!.9999.9", Reason.GS1_MALFORMED),
        ("gs1.8004/A99", Reason.GS1_MALFORMED),
        ("gs1.8010/8011.1", Reason.GS1_MALFORMED),
        ("gs1.8010/8011.01.4012345ABC", Reason.GS1_MALFORMED),
        ("gs1.8010/4012345abc", Reason.GS1_MALFORMED),
        ("gs1.8013/1987654Ad4X4bL5ttr2310cXK", Reason.GS1_CHECK_DIGIT),
        ("gs1.8006.095060001343520302/class", Reason.GS1_MALFORMED),
    ],
)
def test_native_text_under_gs1_obeys_gs1(text: str, reason: Reason) -> None:
    identifier = Identifier.parse(text)
    with pytest.raises(InputError) as caught:
        check_scheme(identifier, field="record.identifier")
    assert (caught.value.reason, caught.value.field) == (reason, "record.identifier")
    with pytest.raises(InputError) as caught:
        scan(text)
    assert (caught.value.reason, caught.value.field) == (reason, "text")
    for writer in (to_digital_link, to_element_string):
        with pytest.raises(InputError):
            writer(identifier)


def test_what_is_not_under_gs1_has_no_gs1_form() -> None:
    with pytest.raises(InputError) as caught:
        to_digital_link(Identifier.parse("88.118.8/SN-0001"))
    assert caught.value.reason == Reason.GS1_MALFORMED


GTIN: Element = ("01", "09506000134352")


@pytest.mark.parametrize(
    ("elements", "identifier", "rest"),
    [
        ((GTIN, ("10", "L"), ("21", "S")), "gs1.01.09506000134352/21.S", (("10", "L"),)),
        ((("10", "L"), ("22", "V"), GTIN), "gs1.01.09506000134352/10.L", (("22", "V"),)),
        ((GTIN, ("10", "L"), ("235", "T")), "gs1.01.09506000134352/235.T", (("10", "L"),)),
        (
            (("00", "106141412345678908"), GTIN, ("21", "S"), ("401", "4012345X")),
            "gs1.00/106141412345678908",
            (GTIN, ("21", "S"), ("401", "4012345X")),
        ),
        ((GTIN, ("414", "9506000134352")), "gs1.01.09506000134352/class", (("414", "9506000134352"),)),
    ],
)
def test_the_most_telling_part_identifies(elements: Elements, identifier: str, rest: Elements) -> None:
    found, others = identify(elements)
    assert (str(found), others) == (identifier, rest)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ((("17", "260131"), ("10", "L")), Reason.GS1_NO_KEY),
        ((GTIN, ("8004", "4012345X")), Reason.GS1_AI_RULE),
        ((("414", "9506000134352"), ("417", "9506000134352")), Reason.GS1_AI_RULE),
        ((("414", "9506000134352"), ("254", "A"), ("7040", "1A-x")), Reason.GS1_AI_RULE),
    ],
)
def test_nothing_to_identify_or_two_things_are_refused(elements: Elements, reason: Reason) -> None:
    with pytest.raises(InputError) as caught:
        identify(elements)
    assert caught.value.reason == reason

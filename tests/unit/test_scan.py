"""Scanned text to one identifier, or to a reason: which form a text has, and that mutations never surprise."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idtrace.errors import InputError, Reason
from idtrace.identifier import Identifier
from idtrace.scan import TEXT_CHARS_MAX, Form, Scheme, check_scheme, scan, scheme_of

G: Final = "0109506000134352"  # AI 01 with a GTIN
ID: Final = "gs1.01.09506000134352"
LINK: Final = "https://id.gs1.org/01/09506000134352"

ACCEPTED = [
    # Native
    ("88.118.8/SN-0001", Form.NATIVE, "88.118.8/SN-0001"),
    ("ABC.8/x", Form.NATIVE, "abc.8/x"),
    ("]Q188.118.8/SN-0001", Form.NATIVE, "88.118.8/SN-0001"),
    ("]d088.118.8/a/b", Form.NATIVE, "88.118.8/a/b"),
    ("80044012345A/b", Form.NATIVE, "80044012345a/b"),
    ("GS1.01.09506000134352/21.X", Form.NATIVE, f"{ID}/21.X"),
    ("drug.8123456/7890123456789", Form.NATIVE, "drug.8123456/7890123456789"),
    ("drug.8123456/class", Form.NATIVE, "drug.8123456/class"),
    ("88/\u75ab\u82d7", Form.NATIVE, "88/\u75ab\u82d7"),
    # Digits alone
    ("9506000134352", Form.GTIN, f"{ID}/class"),
    ("09506000134352", Form.GTIN, f"{ID}/class"),
    ("416000336108", Form.GTIN, "gs1.01.00416000336108/class"),
    ("02345673", Form.GTIN, "gs1.01.00000002345673/class"),
    ("]E09506000134352", Form.GTIN, f"{ID}/class"),
    ("]E402345673", Form.GTIN, "gs1.01.00000002345673/class"),
    ("]I109506000134352", Form.GTIN, f"{ID}/class"),
    ("81234567890123456789", Form.DRUG_CODE, "drug.8123456/7890123456789"),
    ("]C081234567890123456789", Form.DRUG_CODE, "drug.8123456/7890123456789"),
    ("80044012345678901234", Form.DRUG_CODE, "drug.8004401/2345678901234"),
    ("]C180044012345678901234", Form.ELEMENT_STRING, "gs1.8004/4012345678901234"),
]
REFUSED = [
    ("", Reason.SCAN_UNKNOWN_SCHEME),
    ("hello", Reason.SCAN_UNKNOWN_SCHEME),
    ("x" * (TEXT_CHARS_MAX + 1), Reason.IDENTIFIER_TOO_LONG),
    ("88/" + "x" * 253, Reason.IDENTIFIER_TOO_LONG),
    # White space, line ends, characters that deceive
    (f" {G}", Reason.SCAN_UNKNOWN_SCHEME),
    (f"{G} ", Reason.GS1_MALFORMED),
    (f"{G}21X\n\n", Reason.GS1_MALFORMED),
    (f"{G}21X\n\r", Reason.GS1_MALFORMED),
    (f"{G}21X\t", Reason.GS1_MALFORMED),
    (f"{G}21\uff18", Reason.GS1_MALFORMED),
    ("\uff19506000134352", Reason.SCAN_UNKNOWN_SCHEME),
    ("9506000134352\x00", Reason.GS1_MALFORMED),
    (f"{G}21\u202eX", Reason.GS1_MALFORMED),
    (f"{G}21e\u0301", Reason.GS1_MALFORMED),
    (f"{G}21\u00e9", Reason.GS1_MALFORMED),
    ("88/e\u0301", Reason.IDENTIFIER_NOT_CANONICAL),
    ("88/\u202ex", Reason.IDENTIFIER_MALFORMED),
    ("88/x\x00", Reason.IDENTIFIER_MALFORMED),
    ("88%2F118/x", Reason.IDENTIFIER_MALFORMED),
    # Symbologies
    ("]", Reason.SCAN_UNKNOWN_SCHEME),
    ("]d", Reason.SCAN_UNKNOWN_SCHEME),
    (f"]B0{G}", Reason.SCAN_UNKNOWN_SCHEME),
    (f"]e1{G}", Reason.SCAN_UNKNOWN_SCHEME),
    (f"]d5{G}", Reason.SCAN_UNKNOWN_SCHEME),
    (f"]d1{G}21X", Reason.SCAN_UNKNOWN_SCHEME),
    (f"]d110L\x1d{G}", Reason.SCAN_UNKNOWN_SCHEME),
    ("]C09506000134352", Reason.SCAN_UNKNOWN_SCHEME),
    ("]E09506000134353", Reason.GS1_CHECK_DIGIT),
    ("]E0950600013435", Reason.GS1_MALFORMED),
    ("]E0950600013435X", Reason.GS1_MALFORMED),
    (f"]d2{LINK}", Reason.GS1_MALFORMED),
    ("]d2", Reason.GS1_MALFORMED),
    # Digits alone
    ("9506000134353", Reason.GS1_CHECK_DIGIT),
    ("95060001343520000000", Reason.GS1_NO_KEY),
    ("00106141412345678909", Reason.GS1_CHECK_DIGIT),
    ("1234567", Reason.GS1_MALFORMED),
    # Native text under a scheme, or with a prefix that reads as digits
    (f"{ID[:-1]}3/21.X", Reason.GS1_CHECK_DIGIT),
    ("drug.8123456/789012345678", Reason.DRUG_CODE_MALFORMED),
    ("drug.7123456/7890123456789", Reason.DRUG_CODE_MALFORMED),
    ("drug.7123456/class", Reason.DRUG_CODE_MALFORMED),
    ("drug.8123456/class/x", Reason.DRUG_CODE_MALFORMED),
    ("drug.8123456.1/class", Reason.DRUG_CODE_MALFORMED),
    ("drug.81234567/890123456789", Reason.DRUG_CODE_MALFORMED),
    ("drug.8123456.7/890123456789", Reason.DRUG_CODE_MALFORMED),
    ("drug/81234567890123456789", Reason.DRUG_CODE_MALFORMED),
    (f"{G}/X", Reason.GS1_MALFORMED),
]


@pytest.mark.parametrize(("text", "form", "expected"), ACCEPTED)
def test_accepted(text: str, form: Form, expected: str) -> None:
    scanned = scan(text)
    assert (str(scanned.identifier), scanned.form) == (expected, form)
    assert scanned.scheme is scheme_of(scanned.identifier)
    check_scheme(scanned.identifier)
    assert scan(expected).identifier == scanned.identifier


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_refused(text: str, reason: Reason) -> None:
    with pytest.raises(InputError) as caught:
        scan(text)
    assert (caught.value.reason, caught.value.field) == (reason, "text")
    assert caught.value.detail


def test_a_prefix_that_reads_as_an_element_string_cannot_be_registered() -> None:
    with pytest.raises(InputError) as caught:
        check_scheme(Identifier.parse(f"{G}/X"))
    assert (caught.value.reason, caught.value.field) == (Reason.IDENTIFIER_MALFORMED, "identifier")
    check_scheme(Identifier.parse(f"{G[:15]}/X"))
    assert scan(f"{G[:15]}/X").scheme is Scheme.NATIVE


_SEEDS = [text for text, *_ in (*ACCEPTED, *REFUSED) if len(text) < 200] + [
    f"]d2{G}1728013110LOT42A\x1d21S0000001",
    f"{G}21A/B",
    "00106141412345678908",
    "]C180104012345A#/-1\x1d801142",
    "800309506000134352class",
    "(01)09506000134352(21)A\\(10)B",
    "(417)9506000134352(7040)1A-x",
    f"{LINK}/22/V/10/L/21/X?17=261231&linkType=gs1:pip",
    "https://id.gs1.org/8010/4012345A%23B/8011/42",
    "urn:epc:id:sgtin:4012345.012345.a%2Fb.c%3c",
    "urn:epc:id:sgln:4012345.00011.987",
    "urn:epc:id:itip:4012345.012345.01.02.999",
    "urn:epc:idpat:grai:4012345.66666.*",
]
_PIECES = [
    "\x1d",
    "]d2",
    "(",
    ")",
    "/",
    "%2F",
    "%00",
    "%",
    "+",
    "\\",
    "*",
    ".",
    "0",
    "21",
    "8004",
    "?10=A",
    "\uff11",
    " ",
]


@st.composite
def mutated(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(_SEEDS))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        cut = draw(st.integers(0, 2))
        text = text[:at] + draw(st.sampled_from(["", *_PIECES])) + text[at + cut :]
    return text


@given(mutated())
@settings(max_examples=400)
def test_a_mutated_text_is_scanned_to_something_stable_or_refused(text: str) -> None:
    try:
        scanned = scan(text)
    except InputError as error:
        assert error.field == "text"  # noqa: PT017 - both outcomes are fine, each has its own promise
        return
    check_scheme(scanned.identifier)
    again = scan(str(scanned.identifier))
    assert (again.identifier, again.scheme) == (scanned.identifier, scanned.scheme)
    if scanned.form in {Form.NATIVE, Form.GTIN, Form.DRUG_CODE, Form.EPC_URN}:
        assert scanned.attributes == ()


@given(st.text(max_size=60))
def test_any_text_is_scanned_or_refused_as_input(text: str) -> None:
    try:
        scanned = scan(text)
    except InputError:
        return
    assert scan(str(scanned.identifier)).identifier == scanned.identifier


@given(
    st.lists(st.text("0189agsdru1", min_size=1, max_size=18), min_size=1, max_size=3).map(".".join),
    st.text("01289.classX/-", min_size=1, max_size=20),
)
def test_what_may_be_registered_scans_to_itself(prefix: str, suffix: str) -> None:
    identifier = Identifier.parse(f"{prefix}/{suffix}")
    try:
        check_scheme(identifier)
    except InputError:
        return
    assert scan(str(identifier)).identifier == identifier

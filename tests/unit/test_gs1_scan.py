"""GS1 texts to one identifier, or to a reason: by example, beside biip, and on the texts of EPCIS documents."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from biip.gs1_digital_link_uris import GS1DigitalLinkURI
from biip.gs1_messages import GS1Message

from idtrace.errors import InputError, Reason
from idtrace.gs1 import elements_of
from idtrace.scan import Form, Scheme, check_scheme, scan
from tests.shared_data import shared_data

G: Final = "0109506000134352"  # AI 01 with a GTIN
ID: Final = "gs1.01.09506000134352"
LINK: Final = "https://id.gs1.org/01/09506000134352"
FULL: Final = f"]d2{G}1728013110LOT42A\x1d21S0000001"

ACCEPTED = [
    # Element strings
    (G, Form.ELEMENT_STRING, f"{ID}/class"),
    (G + "21X", Form.ELEMENT_STRING, f"{ID}/21.X"),
    (G + "21A/B", Form.ELEMENT_STRING, f"{ID}/21.A/B"),
    (f"\x1d{G}21X", Form.ELEMENT_STRING, f"{ID}/21.X"),
    (f"]d2{G}21X", Form.ELEMENT_STRING, f"{ID}/21.X"),
    (f"]C1{G}21X", Form.ELEMENT_STRING, f"{ID}/21.X"),
    (f"]e0{G}21X", Form.ELEMENT_STRING, f"{ID}/21.X"),
    (f"]Q3{G}21X", Form.ELEMENT_STRING, f"{ID}/21.X"),
    (f"]J1\x1d{G}21X", Form.ELEMENT_STRING, f"{ID}/21.X"),
    (f"{G}21X\r\n", Form.ELEMENT_STRING, f"{ID}/21.X"),
    (f"{G}21X\r", Form.ELEMENT_STRING, f"{ID}/21.X"),
    (f"{G}21X\n", Form.ELEMENT_STRING, f"{ID}/21.X"),
    (f"{G}10LOT\x1d21X", Form.ELEMENT_STRING, f"{ID}/21.X"),
    (f"{G}\x1d21X", Form.ELEMENT_STRING, f"{ID}/21.X"),
    (f"10LOT\x1d{G}", Form.ELEMENT_STRING, f"{ID}/10.LOT"),
    (f"{G}22V1", Form.ELEMENT_STRING, f"{ID}/22.V1"),
    (f"{G}235T1", Form.ELEMENT_STRING, f"{ID}/235.T1"),
    ("00106141412345678908", Form.ELEMENT_STRING, "gs1.00/106141412345678908"),
    ("4149506000134352254A/1", Form.ELEMENT_STRING, "gs1.414.9506000134352/254.A/1"),
    ("80044012345AAbb", Form.ELEMENT_STRING, "gs1.8004/4012345AAbb"),
    ("\x1d8004401234567890", Form.ELEMENT_STRING, "gs1.8004/401234567890"),
    ("800309506000134352", Form.ELEMENT_STRING, "gs1.8003.9506000134352/class"),
    ("800309506000134352class", Form.ELEMENT_STRING, "gs1.8003.9506000134352/8003.class"),
    ("2539506000134352DOC", Form.ELEMENT_STRING, "gs1.253.9506000134352/253.DOC"),
    ("80131987654Ad4X4bL5ttr2310c2K", Form.ELEMENT_STRING, "gs1.8013/1987654Ad4X4bL5ttr2310c2K"),
    ("]C180104012345A#/-1\x1d801142", Form.ELEMENT_STRING, "gs1.8010/8011.42.4012345A#/-1"),
    # In brackets
    ("(01)09506000134352(21)X", Form.BRACKETED, f"{ID}/21.X"),
    ("(01)09506000134352(21)A\\(10)B", Form.BRACKETED, f"{ID}/21.A(10)B"),
    ("]Q1(01)09506000134352(10)L", Form.BRACKETED, f"{ID}/10.L"),
    ("(415)9506000134352(8020)REF", Form.BRACKETED, "gs1.415.9506000134352/8020.REF"),
    ("(417)9506000134352(7040)1A-x", Form.BRACKETED, "gs1.417.9506000134352/7040.1A-x"),
    # Digital Link
    (LINK, Form.DIGITAL_LINK, f"{ID}/class"),
    (f"{LINK}/21/X", Form.DIGITAL_LINK, f"{ID}/21.X"),
    (f"{LINK}/22/V/10/L/21/X", Form.DIGITAL_LINK, f"{ID}/21.X"),
    (f"{LINK}/21/a%2Fb%25", Form.DIGITAL_LINK, f"{ID}/21.a/b%"),
    (f"{LINK}/21/%252F", Form.DIGITAL_LINK, f"{ID}/21.%2F"),
    (f"{LINK}?10=LOT", Form.DIGITAL_LINK, f"{ID}/class"),
    (f"{LINK}/21/X?17=261231&linkType=gs1:pip&&x", Form.DIGITAL_LINK, f"{ID}/21.X"),
    ("HTTPS://EXAMPLE.COM/01/09506000134352/21/X", Form.DIGITAL_LINK, f"{ID}/21.X"),
    ("http://example.com:8080/some/shop/01/09506000134352/21/X", Form.DIGITAL_LINK, f"{ID}/21.X"),
    ("https://example.com/01/9506000134352", Form.DIGITAL_LINK, f"{ID}/class"),
    ("]Q1https://example.com/01/09506000134352", Form.DIGITAL_LINK, f"{ID}/class"),
    ("https://id.gs1.org/8004/4012", Form.DIGITAL_LINK, "gs1.8004/4012"),
    ("https://id.gs1.org/8010/4012345A%23B/8011/42", Form.DIGITAL_LINK, "gs1.8010/8011.42.4012345A#B"),
    ("https://id.gs1.org/01/09506000134352/10/01", Form.DIGITAL_LINK, f"{ID}/10.01"),
    # EPC URIs
    ("urn:epc:id:sgtin:4012345.012345.12", Form.EPC_URN, "gs1.01.04012345123456/21.12"),
    ("urn:epc:id:sgtin:4012345.012345.0012", Form.EPC_URN, "gs1.01.04012345123456/21.0012"),
    ("urn:epc:id:sgtin:4012345.012345.a%2Fb.c%3c", Form.EPC_URN, "gs1.01.04012345123456/21.a/b.c<"),
    ("urn:epc:id:sgtin:401234512345.0.1", Form.EPC_URN, "gs1.01.04012345123456/21.1"),
    ("urn:epc:id:sgtin:4012345.012345.*", Form.EPC_URN, "gs1.01.04012345123456/21.*"),
    ("urn:epc:id:sscc:4012345.0000000333", Form.EPC_URN, "gs1.00/040123450000003338"),
    ("urn:epc:id:sgln:4012345.00011.987", Form.EPC_URN, "gs1.414.4012345000115/254.987"),
    ("urn:epc:id:sgln:4012345.00011.0", Form.EPC_URN, "gs1.414/4012345000115"),
    ("urn:epc:id:sgln:401234500011..0", Form.EPC_URN, "gs1.414/4012345000115"),
    ("urn:epc:id:pgln:4012345.00225", Form.EPC_URN, "gs1.417/4012345002256"),
    ("urn:epc:id:grai:4012345.66666.87", Form.EPC_URN, "gs1.8003.4012345666663/8003.87"),
    ("urn:epc:id:giai:4012345.AAbb", Form.EPC_URN, "gs1.8004/4012345AAbb"),
    ("urn:epc:id:gsrn:4012345.9876540000", Form.EPC_URN, "gs1.8018/401234598765400000"),
    ("urn:epc:id:gsrnp:4012345.0000098765", Form.EPC_URN, "gs1.8017/401234500000987658"),
    ("urn:epc:id:gdti:4012345.55555.98", Form.EPC_URN, "gs1.253.4012345555554/253.98"),
    ("urn:epc:id:sgcn:4012345.99999.44", Form.EPC_URN, "gs1.255.4012345999990/255.44"),
    ("urn:epc:id:ginc:4012345.333", Form.EPC_URN, "gs1.401/4012345333"),
    ("urn:epc:id:gsin:4012345.999987654", Form.EPC_URN, "gs1.402/40123459999876541"),
    ("urn:epc:id:itip:4012345.012345.01.02.999", Form.EPC_URN, "gs1.8006.040123451234560102/21.999"),
    ("urn:epc:id:upui:4012345.012345.AB12", Form.EPC_URN, "gs1.01.04012345123456/235.AB12"),
    ("urn:epc:id:cpi:4012345.A%23B%2f-1.123", Form.EPC_URN, "gs1.8010/8011.123.4012345A#B/-1"),
    ("urn:epc:class:lgtin:4054739.099914.20160711", Form.EPC_URN, "gs1.01.04054739999148/10.20160711"),
    ("urn:epc:idpat:sgtin:4054739.099914.*", Form.EPC_URN, "gs1.01.04054739999148/class"),
    ("urn:epc:idpat:grai:4012345.66666.*", Form.EPC_URN, "gs1.8003.4012345666663/class"),
    ("urn:epc:idpat:cpi:4012345.ABC.*", Form.EPC_URN, "gs1.8010/4012345ABC"),
    ("urn:epc:idpat:itip:4012345.012345.01.02.*", Form.EPC_URN, "gs1.8006.040123451234560102/class"),
]
REFUSED = [
    # Element strings
    (f"{G[:-1]}3", Reason.GS1_CHECK_DIGIT),
    (f"{G}21X\x1d", Reason.GS1_MALFORMED),
    (f"{G}21X\x1d\x1d10L", Reason.GS1_MALFORMED),
    (f"\x1d\x1d{G}", Reason.GS1_MALFORMED),
    (f"{G}10" + "L" * 20 + "21X", Reason.GS1_MALFORMED),
    (f"{G}21X\x1d10", Reason.GS1_MALFORMED),
    (f"{G}17260230", Reason.GS1_MALFORMED),
    (f"{G}1726", Reason.GS1_MALFORMED),
    (f"{G}21X\x1d{G}", Reason.GS1_AI_RULE),
    ("\x1d21X\x1d10L", Reason.GS1_AI_RULE),
    (f"\x1d3712\x1d{G}", Reason.GS1_AI_RULE),
    ("\x1d17260131", Reason.GS1_AI_RULE),
    ("\x1d400ORDER", Reason.GS1_NO_KEY),
    ("4149506000134352254" + "0", Reason.GS1_MALFORMED),
    (f"]d2{G}8200A\x1d" + "\x1d".join(f"9{n % 10}{n}" for n in range(60)), Reason.GS1_MALFORMED),
    # In brackets
    ("(01)9506000134352", Reason.GS1_MALFORMED),
    ("(01)09506000134352(21)A(10)", Reason.GS1_MALFORMED),
    ("(01)09506000134352 (21)A", Reason.GS1_MALFORMED),
    ("(01)09506000134352(21)A\\B", Reason.GS1_MALFORMED),
    ("(011)9506000134352", Reason.GS1_MALFORMED),
    ("(1)X", Reason.GS1_MALFORMED),
    ("()", Reason.GS1_MALFORMED),
    # Digital Link
    ("https://", Reason.GS1_MALFORMED),
    ("https://id.gs1.org", Reason.GS1_NO_KEY),
    ("https://id.gs1.org/", Reason.GS1_NO_KEY),
    ("https://id.example.org/document1", Reason.GS1_NO_KEY),
    ("https://example.com/DBHKVAdpQgqrLqgA", Reason.GS1_NO_KEY),
    ("https://user@id.gs1.org/01/09506000134352", Reason.GS1_MALFORMED),
    ("https://id.gs1.\u043erg/01/09506000134352", Reason.GS1_MALFORMED),
    ("https://id.gs1.org/gtin/09506000134352/ser/X", Reason.GS1_MALFORMED),
    ("https://id.gs1.org/%30%31/09506000134352", Reason.GS1_NO_KEY),
    ("https://id.gs1.org/01%2F09506000134352", Reason.GS1_NO_KEY),
    ("https://id.gs1.org/01", Reason.GS1_MALFORMED),
    (f"{LINK}/", Reason.GS1_MALFORMED),
    (f"{LINK}/21", Reason.GS1_MALFORMED),
    (f"{LINK}/21/", Reason.GS1_MALFORMED),
    (f"{LINK}/21/X#top", Reason.GS1_MALFORMED),
    (f"{LINK}/21/%00", Reason.GS1_MALFORMED),
    (f"{LINK}/21/%2", Reason.GS1_MALFORMED),
    (f"{LINK}/21/%C3%A9", Reason.GS1_MALFORMED),
    (f"{LINK}/21/a+b%20", Reason.GS1_MALFORMED),
    (f"{LINK}/21/X/10/L", Reason.GS1_AI_RULE),
    (f"{LINK}/10/L/235/T", Reason.GS1_AI_RULE),
    (f"{LINK}/17/261231", Reason.GS1_AI_RULE),
    ("https://id.gs1.org/00/106141412345678908/21/X", Reason.GS1_AI_RULE),
    ("https://id.gs1.org/8006/095060001343520102/22/V", Reason.GS1_AI_RULE),
    (f"{LINK}/21/A/01/09506000134352/21/B", Reason.GS1_MALFORMED),
    (f"{LINK}?21=X", Reason.GS1_AI_RULE),
    (f"{LINK}?10=A&10=B", Reason.GS1_AI_RULE),
    (f"{LINK}/10/A?10=A", Reason.GS1_AI_RULE),
    (f"{LINK}?10=A+B", Reason.GS1_MALFORMED),
    (f"{LINK}?10=A;17=260131", Reason.GS1_MALFORMED),
    (f"{LINK}?999=1", Reason.GS1_MALFORMED),
    (f"{LINK}?%31%30=A", Reason.GS1_MALFORMED),
    (f"{LINK}?17=260230", Reason.GS1_MALFORMED),
    (f"{LINK}?37=1", Reason.GS1_AI_RULE),
    (LINK + "?" + "&".join(["99=A"] * 51), Reason.GS1_MALFORMED),
    ("https://id.gs1.org/414/9506000134352/254/0", Reason.GS1_MALFORMED),
    ("https://id.gs1.org/01/09506000134353", Reason.GS1_CHECK_DIGIT),
    ("https://id.gs1.org/8004/401", Reason.GS1_MALFORMED),
    # EPC URIs
    ("urn:", Reason.SCAN_UNKNOWN_SCHEME),
    ("urn:isbn:9780306406157", Reason.SCAN_UNKNOWN_SCHEME),
    ("URN:EPC:ID:SGTIN:4012345.012345.12", Reason.SCAN_UNKNOWN_SCHEME),
    ("urn:epc:id:gid:95100000.12345.400", Reason.SCAN_UNKNOWN_SCHEME),
    ("urn:epc:tag:sgtin-96:3.4012345.012345.12", Reason.SCAN_UNKNOWN_SCHEME),
    ("urn:epc:class:sgtin:4012345.012345.12", Reason.SCAN_UNKNOWN_SCHEME),
    ("urn:epc:id:sgtin:4012345.012345", Reason.GS1_MALFORMED),
    ("urn:epc:id:sgtin:4012345.012345.", Reason.GS1_MALFORMED),
    ("urn:epc:id:sgtin:4012345.12345.12", Reason.GS1_MALFORMED),
    ("urn:epc:id:sgtin:40123.01234567.12", Reason.GS1_MALFORMED),
    ("urn:epc:id:sgtin:4012345012345..12", Reason.GS1_MALFORMED),
    ("urn:epc:id:sgtin:401234501234..12", Reason.GS1_MALFORMED),
    ("urn:epc:id:sscc:4012345.0000000333.1", Reason.GS1_MALFORMED),
    ("urn:epc:id:sgtin:4012345.012345.a/b", Reason.GS1_MALFORMED),
    ("urn:epc:id:sgtin:4012345.012345.a%41", Reason.GS1_MALFORMED),
    ("urn:epc:id:sgtin:4012345.012345.%00", Reason.GS1_MALFORMED),
    ("urn:epc:id:sgtin:4012345.01234\u0665.12", Reason.GS1_MALFORMED),
    ("urn:epc:id:sgtin:4012345.012345." + "X" * 21, Reason.GS1_MALFORMED),
    ("urn:epc:id:sgcn:4012345.99999.A", Reason.GS1_MALFORMED),
    ("urn:epc:id:cpi:4012345.ABC.0123", Reason.GS1_MALFORMED),
    ("urn:epc:id:cpi:4012345.abc.123", Reason.GS1_MALFORMED),
    ("urn:epc:id:giai:4012345.", Reason.GS1_MALFORMED),
    ("urn:epc:id:itip:4012345.012345.1.02.999", Reason.GS1_MALFORMED),
    ("urn:epc:id:itip:4012345.012345.03.02.999", Reason.GS1_MALFORMED),
    ("urn:epc:idpat:sgtin:4012345.*.*", Reason.GS1_MALFORMED),
    ("urn:epc:idpat:sgtin:4012345.012345.12", Reason.GS1_MALFORMED),
]


@pytest.mark.parametrize(("text", "form", "expected"), ACCEPTED)
def test_accepted(text: str, form: Form, expected: str) -> None:
    scanned = scan(text)
    assert (str(scanned.identifier), scanned.form) == (expected, form)
    assert scanned.scheme is Scheme.GS1
    check_scheme(scanned.identifier)
    assert scan(expected).identifier == scanned.identifier


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_refused(text: str, reason: Reason) -> None:
    with pytest.raises(InputError) as caught:
        scan(text)
    assert (caught.value.reason, caught.value.field) == (reason, "text")
    assert caught.value.detail


@pytest.mark.parametrize(
    ("text", "attributes"),
    [
        (FULL, (("17", "280131"), ("10", "LOT42A"))),
        (f"{LINK}/10/L/21/X?17=261231&s=1&11=260101", (("10", "L"), ("17", "261231"), ("11", "260101"))),
        ("(00)106141412345678908(02)09506000134352(37)12", (("02", "09506000134352"), ("37", "12"))),
        (
            "https://id.gs1.org/00/106141412345678908?02=9506000134352&37=12",
            (("02", "09506000134352"), ("37", "12")),
        ),
        ("urn:epc:id:sgtin:4012345.012345.12", ()),
    ],
)
def test_what_does_not_identify_is_an_attribute(text: str, attributes: tuple[tuple[str, str], ...]) -> None:
    assert scan(text).attributes == attributes


def test_the_rule_broken_is_named() -> None:
    with pytest.raises(InputError, match=r"AI \(21\) needs AI 01 or 03 or 8006 beside it"):
        scan("(21)X")
    with pytest.raises(InputError, match=r"AI \(01\): .* has check digit 3; it should be 2"):
        scan("(01)09506000134353")


def test_biip_reads_the_same_fields_where_we_accept() -> None:
    compared = 0
    for text, form, _ in ACCEPTED:
        if form not in {Form.ELEMENT_STRING, Form.DIGITAL_LINK}:
            continue
        scanned = scan(text)
        if form is Form.DIGITAL_LINK:
            fields = GS1DigitalLinkURI.parse(text.removeprefix("]Q1")).element_strings
        else:
            fields = GS1Message.parse(text[3:] if text.startswith("]") else text).element_strings
        theirs = {(field.ai.ai, field.value) for field in fields}
        assert {*elements_of(scanned.identifier), *scanned.attributes} == theirs, text
        compared += 1
    assert compared > 35


_IDENTIFYING = ("epcList", "childEPCs", "parentID", "inputEPCList", "outputEPCList", "epcClass")
_WHERE = ("id", "source", "destination")


def _texts(value: Any, key: str = "") -> set[tuple[str, str]]:
    if isinstance(value, dict):
        return {found for name, inner in value.items() for found in _texts(inner, name)}
    if isinstance(value, list):
        return {found for inner in value for found in _texts(inner, key)}
    return {(key, value)} if key in _IDENTIFYING + _WHERE and isinstance(value, str) else set()


def test_the_identifiers_of_epcis_documents() -> None:
    found: set[tuple[str, str]] = set()
    for path in sorted(shared_data("epcis").rglob("*.json")):
        found |= _texts(json.loads(path.read_text(encoding="utf-8")))
    refused: dict[str, Reason] = {}
    for _, text in found:
        try:
            scan(text)
        except InputError as error:
            refused[text] = error.reason
    assert refused == {
        # A made-up number: the check digit of 3001345000771 is 6, so the asset type is not one.
        "https://id.example.com/8003/030013450007718765": Reason.GS1_CHECK_DIGIT,
        # A web page (a sensor's calibration certificate), not a GS1 key.
        "https://id.example.org/document1": Reason.GS1_NO_KEY,
    }
    things = {text for key, text in found if key in _IDENTIFYING}
    # 68 of 69 identifiers of things, and 97 of 99 with those of places, owners and parties.
    assert (len(things), len(things & set(refused))) == (69, 1)
    assert (len({text for _, text in found}), len(refused)) == (99, 2)

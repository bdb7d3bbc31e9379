"""EPC patterns mean what EPCIS says of them, however an event writes its things."""

from __future__ import annotations

import pytest

from idtrace.epcis.query import matches, parse
from idtrace.errors import InputError, Reason
from tests.unit.epcis.test_query_parameters import event

SERIAL = "urn:epc:id:sgtin:0614141.107346.2017"
SERIAL_LINK = "https://id.gs1.org/01/10614141073464/21/2017"
SSCC_LINK = "https://id.gs1.org/00/106141412345678908"


@pytest.mark.parametrize(
    ("pattern", "met", "missed"),
    [
        ("urn:epc:idpat:sgtin:0614141.107346.*", SERIAL, "urn:epc:id:sgtin:0614141.107347.2017"),
        ("urn:epc:idpat:sgtin:0614141.107346.*", SERIAL_LINK, "https://id.gs1.org/01/04012345123456/21/1"),
        ("urn:epc:idpat:sgtin:0614141.*.*", SERIAL_LINK, "urn:epc:id:sgtin:06141411.07346.2017"),
        ("urn:epc:idpat:sgtin:*.*.*", SERIAL_LINK, SSCC_LINK),
        ("URN:EPC:IDPAT:SGTIN:0614141.*.*", SERIAL, "idtrace:88.118.8/SN-1"),
        ("urn:epc:idpat:sgtin:0614141.107346.*", "urn:epc:id:sgtin:0614141.107346.a.b", SSCC_LINK),
        ("urn:epc:pat:sscc:0614141.*", SSCC_LINK, SERIAL),
        ("urn:epc:idpat:sscc:0614141.*", "urn:epc:id:sscc:0614141.1234567890", "urn:epc:id:sscc:0614142.1234567890"),
        ("urn:epc:idpat:sgln:0614141.12345.*", "https://id.gs1.org/414/0614141123452", SERIAL),
        (
            "urn:epc:idpat:sgln:0614141.12345.*",
            "urn:epc:id:sgln:0614141.12345.400",
            "urn:epc:id:sgln:0614141.12346.400",
        ),
        ("urn:epc:idpat:grai:0614141.12345.*", "urn:epc:id:grai:0614141.12345.400", SERIAL),
        ("urn:epc:idpat:giai:0614141.*", "urn:epc:id:giai:0614141.12.34", "https://id.gs1.org/8004/06141411234"),
    ],
)
def test_a_pattern_finds_what_begins_as_it_does(pattern: str, met: str, missed: str) -> None:
    query = parse({"MATCH_epc": [pattern]})
    assert matches(query, event(epcList=["https://example.com/other", met]), 0)
    assert not matches(query, event(epcList=[missed]), 0)
    assert query.conditions[0].keys == frozenset(), "nobody can list the things that it means"


def test_a_pattern_of_classes_finds_lots_and_itself() -> None:
    lot = {"epcClass": "https://id.gs1.org/01/04012345123456/10/998877"}
    trade_item = {"epcClass": "urn:epc:idpat:sgtin:4012345.012345.*"}
    assert matches(parse({"MATCH_epcClass": ["urn:epc:idpat:lgtin:4012345.*.*"]}), event(quantityList=[lot]), 0)
    same = parse({"MATCH_epcClass": ["urn:epc:idpat:sgtin:4012345.012345.*"]})
    assert matches(same, event(quantityList=[trade_item]), 0)
    assert not matches(same, event(quantityList=[lot]), 0)


def test_a_pattern_stands_beside_single_things() -> None:
    query = parse({"MATCH_epc": ["urn:epc:idpat:sscc:0614141.*", SERIAL]})
    assert matches(query, event(epcList=[SERIAL_LINK]), 0)
    assert matches(query, event(epcList=[SSCC_LINK]), 0)


@pytest.mark.parametrize(
    "pattern",
    [
        "urn:epc:idpat:sgtin:*.107346.2017",
        "urn:epc:idpat:sgtin:0614141.*.2017",
        "urn:epc:idpat:sgtin:*",
        "urn:epc:idpat:sgtin:0614141.1*.*",
        "urn:epc:pat:sgtin-96:3.0614141.[1-5].*",
    ],
)
def test_a_pattern_that_nobody_can_read_is_refused(pattern: str) -> None:
    with pytest.raises(InputError) as caught:
        parse({"MATCH_epc": [pattern]})
    assert (caught.value.reason, caught.value.field) == (Reason.FIELD_MALFORMED, "MATCH_epc")


def test_patterns_are_few() -> None:
    many = [f"urn:epc:idpat:sscc:06141{n:02}.*" for n in range(17)]
    assert parse({"MATCH_epc": many[:16]})
    with pytest.raises(InputError, match="at most 16 patterns"):
        parse({"MATCH_epc": many})

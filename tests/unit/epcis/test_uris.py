"""What a URI names, and that there and back again is the same."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.epcis.model import Event, EventType, Quantity, SensorElement, SensorMetadata, SensorReport, Typed
from idtrace.epcis.uris import MENTIONS_MAX, key, mentions, party_of, same, uri_of
from idtrace.errors import InputError, Reason
from idtrace.identifier import Identifier
from idtrace.scan import TEXT_CHARS_MAX

KEYS = {
    # Every EPC scheme that names a GS1 key.
    "urn:epc:id:sgtin:4012345.011111.9876": "gs1.01.04012345111118/21.9876",
    "urn:epc:id:sgtin:4012345.011111.9%2F8": "gs1.01.04012345111118/21.9/8",
    "urn:epc:id:sscc:4012345.0111111111": "gs1.00/040123451111111110",
    "urn:epc:id:sgln:4012345.00005.0": "gs1.414/4012345000054",
    "urn:epc:id:sgln:0614141.07346.1234": "gs1.414.0614141073467/254.1234",
    "urn:epc:id:pgln:4012345.00225": "gs1.417/4012345002256",
    "urn:epc:id:grai:4012345.55555.987": "gs1.8003.4012345555554/8003.987",
    "urn:epc:id:giai:4000001.111": "gs1.8004/4000001111",
    "urn:epc:id:gdti:0614141.00001.1618034": "gs1.253.0614141000012/253.1618034",
    "urn:epc:id:gsrn:0614141.0000010253": "gs1.8018/061414100000102534",
    "urn:epc:id:gsrnp:0614141.0000010253": "gs1.8017/061414100000102534",
    "urn:epc:id:gsin:0614141.000001025": "gs1.402/06141410000010257",
    "urn:epc:id:ginc:0614141.xyz3311cba": "gs1.401/0614141xyz3311cba",
    "urn:epc:id:sgcn:4012345.67890.04711": "gs1.255.4012345678901/255.04711",
    "urn:epc:id:cpi:0614141.5PQ7%2FZ43.12345": "gs1.8010/8011.12345.06141415PQ7/Z43",
    "urn:epc:id:itip:4012345.012345.01.02.987": "gs1.8006.040123451234560102/21.987",
    "urn:epc:id:upui:1234567.089456.51qIgY)%3C%26Jp3*j7'SDB": "gs1.01.01234567894560/235.51qIgY)<&Jp3*j7'SDB",
    # Classes.
    "urn:epc:class:lgtin:4012345.012345.998877": "gs1.01.04012345123456/10.998877",
    "urn:epc:idpat:sgtin:4012345.066666.*": "gs1.01.04012345666663/class",
    # Digital Links of any domain, with what is no part of the key.
    "https://id.gs1.org/01/04012345111118/21/9876": "gs1.01.04012345111118/21.9876",
    "http://shop.example.com/a/b/01/4012345111118/10/L1/21/9876?17=261231": "gs1.01.04012345111118/21.9876",
    "https://id.gs1.org/414/0614141073467/254/1234": "gs1.414.0614141073467/254.1234",
    # Our own.
    "idtrace:88.118.8/SN-1": "88.118.8/SN-1",
    "IDTRACE:88.118.A/SN-1": "88.118.a/SN-1",
    "idtrace:88.118.8/%E7%96%AB%E8%8B%97%20%231": "88.118.8/疫苗 #1",
    "idtrace:88.118.8/a/b": "88.118.8/a/b",
    "idtrace:drug.8123456/0000000000001": "drug.8123456/0000000000001",
    "idtrace:gs1.01.04012345111118/21.9876": "gs1.01.04012345111118/21.9876",
    # A party is no identifier; one spelling is its key.
    "idtrace:88.118.A": "idtrace:88.118.a",
}
STRANGERS = [
    "geo:50.9,6.9",
    "http://transaction.acme.com/po/12345678",
    "urn:epcglobal:cbv:bt:5200001000008:4711",
    "urn:epc:id:gid:95100000.12345.400",  # a scheme that is no GS1 key
    "urn:epc:id:sgtin:4012345.0111111.9876",  # a digit too many
    "https://id.gs1.org/01/04012345111119/21/9876",  # check digit
    "urn:epc:id:sgtin:4012345.011111.9876\n",
    "idtrace:",
    "idtrace:88.118.8/",
    "idtrace:88..8/SN-1",
    "idtrace:88.118.8/a%zz",
    "idtrace:88.118.8/a%FF",
    "idtrace:88.118.8/a#b",
    "idtrace:88.118.8/a?b",
    "idtrace:88.118.8/a b",
    "idtrace:drug.8123456/1",
    "idtrace:gs1.01.04012345111119/21.9876",
    "idtrace:88.118.8/" + "x" * 300,
    "idtrace:88.118.8/" + "x" * TEXT_CHARS_MAX,
    "88.118.8/SN-1",
    "",
]
SUFFIXES = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Cf", "Co", "Cn", "Zl", "Zp")), min_size=1, max_size=20
)


@pytest.mark.parametrize(("uri", "expected"), KEYS.items(), ids=str)
def test_a_uri_gives_the_key_of_what_it_names_and_the_key_a_uri_of_it(uri: str, expected: str) -> None:
    assert key(uri) == expected
    assert key(uri_of(expected)) == expected
    assert same(uri, uri_of(expected))
    assert uri_of(expected).startswith("https://id.gs1.org/" if expected.startswith("gs1.") else "idtrace:")


@pytest.mark.parametrize("uri", STRANGERS, ids=lambda uri: uri[:40])
def test_what_names_nothing_of_ours_is_its_own_key(uri: str) -> None:
    assert key(uri) == uri
    assert uri_of(uri) == ("idtrace:88.118.8/SN-1" if uri == "88.118.8/SN-1" else uri)


def test_two_spellings_of_one_place_are_the_same_and_another_place_is_not() -> None:
    assert same("urn:epc:id:sgln:4012345.00005.0", "https://any.example/414/4012345000054")
    assert not same("urn:epc:id:sgln:4012345.00005.0", "urn:epc:id:sgln:4012345.00005.1")


@pytest.mark.parametrize(
    ("uri", "party"),
    [
        ("idtrace:88.118.8", "88.118.8"),
        ("idtrace:88.118.A", "88.118.a"),
        ("idtrace:88.118.8/SN-1", None),
        ("idtrace:", None),
        ("idtrace:88..8", None),
        ("urn:epc:id:pgln:4012345.00225", None),
        ("88.118.8", None),
    ],
)
def test_a_party_is_a_prefix_without_a_suffix(uri: str, party: str | None) -> None:
    assert party_of(uri) == party


@given(st.text())
def test_no_text_makes_it_raise_and_a_key_is_its_own_key(text: str) -> None:
    for uri in (text, f"idtrace:88.1/{text}", f"urn:epc:id:{text}", f"https://x.example/{text}"):
        assert key(key(uri)) == key(uri)
        assert key(uri_of(key(uri))) == key(uri)
        party_of(uri)


@given(SUFFIXES)
def test_every_suffix_survives_its_way_into_a_uri_and_back(suffix: str) -> None:
    name = f"88.118.8/{suffix}"
    uri = uri_of(name)
    try:
        Identifier.parse_canonical(name)
    except InputError:
        assert uri == name
    else:
        assert uri.isascii()
        assert uri.startswith("idtrace:88.118.8/")
        assert key(uri) == name


def test_mentions_are_all_roles_once_each_by_key() -> None:
    link, urn = "https://id.gs1.org/01/04012345111118/21/9876", "urn:epc:id:sgtin:4012345.011111.9876"
    device = "urn:epc:id:giai:4000001.111"
    event = Event(
        EventType.OBJECT, None, 0, 0,
        epcs=(urn, link, "urn:x:1"),
        quantities=(Quantity("urn:epc:class:lgtin:4012345.012345.998877", Decimal(2)),),
        parent="idtrace:88.1/P", children=(urn,), child_quantities=(Quantity("urn:x:cq"),),
        inputs=("urn:x:in",), input_quantities=(Quantity("urn:x:iq"),),
        outputs=("urn:x:out",), output_quantities=(Quantity("urn:x:oq"),),
        read_point="urn:x:rp", biz_location="urn:x:bl",
        biz_transactions=(Typed("po", "urn:x:bt"),), sources=(Typed("location", "urn:x:s"),),
        destinations=(Typed("location", "urn:x:d"),),
        sensors=(SensorElement(SensorMetadata(device_id=device), (SensorReport(device_id=device), SensorReport())),),
    )  # fmt: skip
    item = "gs1.01.04012345111118/21.9876"
    assert mentions(event) == (
        ("88.1/P", "parent"), (item, "epc"), ("urn:x:1", "epc"), (item, "child"), ("urn:x:in", "input"),
        ("urn:x:out", "output"), ("gs1.01.04012345123456/10.998877", "class"), ("urn:x:cq", "class"),
        ("urn:x:iq", "class"), ("urn:x:oq", "class"), ("urn:x:rp", "read_point"), ("urn:x:bl", "biz_location"),
        ("urn:x:bt", "transaction"), ("urn:x:s", "source"), ("urn:x:d", "destination"),
        ("gs1.8004/4000001111", "device"),
    )  # fmt: skip


def test_more_mentions_than_allowed_are_refused_and_none_is_dropped() -> None:
    epcs = tuple(f"urn:x:{n}" for n in range(MENTIONS_MAX))
    assert len(mentions(Event(EventType.OBJECT, None, 0, 0, epcs=(*epcs, "urn:x:0")))) == MENTIONS_MAX
    with pytest.raises(InputError) as refused:
        mentions(Event(EventType.OBJECT, None, 0, 0, epcs=(*epcs, "urn:x:one more")))
    assert refused.value.reason is Reason.FIELD_TOO_LARGE

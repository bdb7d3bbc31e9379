"""The CBV 2.0 event hash: the published vectors, and what must and must not change it."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.epcis.hash import event_hash, ignored
from idtrace.epcis.prehash import DEPTH_MAX, pre_hash, web_uri
from idtrace.epcis.vocabulary import BIZ_STEP
from idtrace.errors import InputError, Reason
from tests.shared_data import shared_data

CONTEXT: Final = [
    "https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld",
    {"ex": "https://ns.example.com/epcis/", "mail": {"@id": "https://mail.example/"}, "odd": 7},
]
PLAIN: Final = {
    "type": "ObjectEvent",
    "eventTime": "2026-07-22T10:30:00.000+08:00",
    "eventTimeZoneOffset": "+08:00",
    "epcList": ["urn:epc:id:sgtin:4012345.011111.9876", "idtrace:88.118.8/SN-1"],
    "action": "OBSERVE",
    "bizStep": "shipping",
}
START: Final = (
    "eventType=ObjectEventeventTime=2026-07-22T02:30:00.000ZeventTimeZoneOffset=+08:00epcListepc="
    "https://id.gs1.org/01/04012345111118/21/9876epc=idtrace:88.118.8/SN-1action=OBSERVEbizStep="
    "https://ref.gs1.org/cbv/BizStep-shipping"
)


def after(**fields: Any) -> str:
    """What more fields add to the pre-hash string of a plain event."""
    shown = pre_hash(PLAIN | {name.replace("__", ":"): value for name, value in fields.items()}, context=CONTEXT)
    assert shown.startswith(START)
    return shown.removeprefix(START)


def test_all_published_hashes_and_pre_hashes_are_ours(
    record_property: Callable[[str, object], None],
) -> None:
    folder = shared_data("epcis-event-hash")
    hashes = pre_hashes = 0
    for file in sorted(folder.glob("*.jsonld")):
        document = json.loads(file.read_text("utf-8"), parse_float=Decimal)
        body = document["epcisBody"]
        events = body["eventList"] if "eventList" in body else body["queryResults"]["resultsBody"]["eventList"]
        expected = file.with_suffix(".hashes").read_text("utf-8").split()
        written = file.with_suffix(".prehashes").read_text("utf-8").splitlines()
        assert len(events) == len(expected) == len(written)
        for index, event in enumerate(events):
            context, ignore = document["@context"], ignored(document)
            assert event_hash(event, context=context, ignore=ignore) == expected[index], (file.name, index)
            hashes += 1
            if (file.stem, index) == ("epcisDocWithCustomSchemaInContext", 1):
                # This line is the first event's, in another order; the hash beside it is the second event's.
                assert "bizTransactionList" in written[1].partition("{")[2]
                continue
            assert pre_hash(event, context=context, ignore=ignore) == written[index], (file.name, index)
            pre_hashes += 1
    assert (hashes, pre_hashes) == (30, 29)
    counts = f"{hashes} of {hashes} hashes, {pre_hashes} of {hashes} pre-hashes, 1 line contradicts its own hash"
    record_property("CBV 2.0 event hash, vectors", counts)


def test_the_order_of_fields_and_of_lists_does_not_count() -> None:
    turned = dict(reversed(PLAIN.items())) | {"epcList": PLAIN["epcList"][::-1]}
    assert event_hash(turned, context=CONTEXT) == event_hash(PLAIN, context=CONTEXT)
    assert pre_hash(turned) == START


@pytest.mark.parametrize(
    "field",
    [
        {"eventID": "urn:uuid:1"},
        {"recordTime": "2026-07-22T10:30:00Z"},
        {"errorDeclaration": {"declarationTime": "2026-07-22T10:30:00Z", "ex:why": "1"}},
        {"comment": "x", "rdfs:comment": "y"},
        {"@context": "https://ref.gs1.org/standards/epcis/epcis-context.jsonld"},
        {"disposition": ""}, {"bizLocation": {}}, {"quantityList": []}, {"ex:none": None}, {"ex:list": []},
        {"persistentDisposition": {}}, {"sensorElementList": []}, {"bizTransactionList": []},
        {"readPoint": "text", "persistentDisposition": 1, "sourceList": ["text"], "sensorElementList": [1]},
        {"sourceList": [{"type": "", "source": None}]},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_content_does_not_count(field: dict[str, Any]) -> None:
    assert pre_hash(PLAIN | field, context=CONTEXT) == START


def test_fields_that_a_repository_adds_are_left_out_where_the_document_names_them() -> None:
    document = {"repo:ignoreFields": ["ex:hash", 1], "ex:ignoreFields": "no list", "type": "EPCISDocument"}
    assert ignored(document) == ("ex:hash",)
    assert pre_hash(PLAIN | {"ex:hash": "1"}, context=CONTEXT, ignore=ignored(document)) == START


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"certificationInfo": ["urn:x:2", "urn:x:1"]}, None),
        ({"readPoint": {"id": "geo:1,2", "ex:b": "2", "ex:a": 1}},
         "readPointid=geo:1,2{https://ns.example.com/epcis/}a=1{https://ns.example.com/epcis/}b=2"),
        ({"persistentDisposition": {"unset": ["recalled", "damaged"], "set": ["active"]}},
         ("persistentDispositionset=https://ref.gs1.org/cbv/Disp-activeunset=https://ref.gs1.org/cbv/Disp-damaged"
         "unset=https://ref.gs1.org/cbv/Disp-recalled")),
        ({"destinationList": [{"type": "location", "destination": "urn:x:d"}],
          "sourceList": [{"type": "https://ns.gs1.org/cbv/SDT-location", "source": "urn:x:s"}],
          "bizTransactionList": [{"bizTransaction": "urn:x:t"}, {"type": "po", "bizTransaction": "urn:x:a"}]},
         ("bizTransactionListbizTransaction=urn:x:ttype=https://ref.gs1.org/cbv/BTT-pobizTransaction=urn:x:a"
         "destinationListtype=https://ref.gs1.org/cbv/SDT-locationdestination=urn:x:d"
         "sourceListtype=https://ref.gs1.org/cbv/SDT-locationsource=urn:x:s")),
        ({"sensorElementList": [{"ex:e": "1", "sensorMetadata": {"time": "2026-07-22T10:30:00Z", "ex:m": "2"},
                                 "sensorReport": [{"value": Decimal("4.10"), "type": "gs1:Temperature",
                                                   "booleanValue": True, "component": "cbv:Comp-x", "ex:r": "3"},
                                                  {}]}]},
         ("sensorElementListsensorElementsensorMetadatatime=2026-07-22T10:30:00.000Z{https://ns.example.com/epcis/}m=2"
         "sensorReporttype=https://gs1.org/voc/Temperaturevalue=4.1component=https://ref.gs1.org/cbv/Comp-x"
         "booleanValue=true{https://ns.example.com/epcis/}r=3{https://ns.example.com/epcis/}e=1")),
        ({"ilmd": {"cbvmda:lotNumber": "L1", "ex:o": {"ex:list": ["b", ["a", {"ex:x": False, "bare": 1}]]}}},
         ("ilmd{https://ns.example.com/epcis/}o{https://ns.example.com/epcis/}list=a"
         "{https://ns.example.com/epcis/}list=b{https://ns.example.com/epcis/}listbare=1"
         "{https://ns.example.com/epcis/}x=false{urn:epcglobal:cbv:mda:}lotNumber=L1")),
        ({"ex:empty": "", "mail:to": "ex:value", "undeclared:x": "idtrace:88.1/X", "https://x.example/a#b": "1"},
         ("{https://mail.example/}to=https://ns.example.com/epcis/value{https://ns.example.com/epcis/}empty"
         "{https://x.example/a#}b=1{undeclared:}x=idtrace:88.1/X")),
        ({"https://ns.example.com/epcis/a": "1"}, "{https://ns.example.com/epcis/}a=1"),
        ({"idtrace:doses": 5}, "{idtrace:}doses=5"),
    ],
)  # fmt: skip
def test_each_kind_of_field_is_written_in_its_place(fields: dict[str, Any], shown: str | None) -> None:
    if shown is None:
        whole = pre_hash(PLAIN | fields)
        assert "+08:00certificationInfo=urn:x:1certificationInfo=urn:x:2epcList" in whole
    else:
        assert pre_hash(PLAIN | fields, context=CONTEXT).removeprefix(START) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("0012", "12"), ("+1", "1"), ("-0.50", "-0.5"), ("1e3", "1000"), ("1.50E+1", "15"), (".5", "0.5"), ("5.", "5"),
        ("-0", "0"), ("0.000", "0"), (Decimal("1E-7"), "0.0000001"), (10**20, "1" + "0" * 20), (1e22, "1" + "0" * 22),
        ("81234560000000000001", "81234560000000000001"), ("1e9999", "1e9999"), ("1_000", "1_000"), ("NaN", "NaN"),
        ("Infinity", "Infinity"), ("0x10", "0x10"), ("\uff11", "\uff11"), (" a ", "a"), (False, "false"),
        ("urn:epcglobal:cbv:disp:active", "https://ref.gs1.org/cbv/Disp-active"),
        ("urn:epcglobal:cbv:bt:1:2", "urn:epcglobal:cbv:bt:1:2"),
        ("https://id.gs1.de/01/04012345999990/22/V1/10/L/21/a%3Db(1)?17=261231",
         "https://id.gs1.org/01/04012345999990/21/a=b%281%29"),
        ("https://id.gs1.de/01/04012345999990/22/V1", "https://id.gs1.org/01/04012345999990"),
        ("https://id.gs1.de/01/04012345999991/21/X", "https://id.gs1.de/01/04012345999991/21/X"),
        ("gs1.00/040123451111111110", "gs1.00/040123451111111110"),
        ("gs1:Temperature", "https://gs1.org/voc/Temperature"),
        ("x" * 3000, "x" * 3000),
    ],
)  # fmt: skip
def test_values_become_canonical(value: Any, shown: str) -> None:
    assert after(ex__v=value) == f"{{https://ns.example.com/epcis/}}v={shown}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-07-22T10:30:00Z", "2026-07-22T10:30:00.000Z"),
        ("2026-07-22T10:30:00.1414999Z", "2026-07-22T10:30:00.141Z"),
        ("2026-07-22T10:30:00.1425Z", "2026-07-22T10:30:00.143Z"),
        ("2026-12-31T23:59:59.9995+00:00", "2027-01-01T00:00:00.000Z"),
        ("2026-07-22T10:30:00.1-14:00", "2026-07-23T00:30:00.100Z"),
        ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+14:00"),
        ("9999-12-31T23:59:59.9999Z", "9999-12-31T23:59:59.9999Z"),
        ("2026-02-30T10:30:00Z", "2026-02-30T10:30:00Z"),
        ("yesterday", "yesterday"),
    ],
)
def test_times_are_utc_with_milliseconds(text: str, shown: str) -> None:
    assert f"eventTime={shown}eventTimeZone" in pre_hash(PLAIN | {"eventTime": text})


def test_a_word_has_one_web_uri_however_it_is_spelled() -> None:
    spellings = ("shipping", "urn:epcglobal:cbv:bizstep:shipping", "https://ns.gs1.org/cbv/BizStep-shipping")
    assert {web_uri(one, BIZ_STEP) for one in spellings} == {"https://ref.gs1.org/cbv/BizStep-shipping"}
    assert {event_hash(PLAIN | {"bizStep": one}) for one in (*spellings, "cbv:BizStep-shipping")} == {event_hash(PLAIN)}
    assert pre_hash(PLAIN | {"bizStep": "https://a.example/step"}).endswith("bizStep=https://a.example/step")


def test_the_namespace_of_master_data_is_one_with_and_without_its_colon() -> None:
    lot = {"ilmd": {"cbvmda:lotNumber": "L"}, "@context": {"cbvmda": "urn:epcglobal:cbv:mda"}}
    assert event_hash(PLAIN | lot) == event_hash(PLAIN | {"ilmd": {"cbvmda:lotNumber": "L"}})


@pytest.mark.parametrize("kind", ["object", "list"])
def test_what_is_nested_too_deep_is_refused(kind: str) -> None:
    value: Any = "x"
    for _ in range(DEPTH_MAX + 2):
        value = {"ex:a": value} if kind == "object" else [value]
    with pytest.raises(InputError) as refused:
        pre_hash(PLAIN | {"ex:a": value}, context=CONTEXT)
    assert refused.value.reason is Reason.FIELD_MALFORMED


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*PLAIN, "sensorElementList", "ilmd", "readPoint", "sourceList"]), JSON))
def test_no_event_however_wrong_makes_it_raise(event: dict[str, Any]) -> None:
    assert event_hash(event).startswith("ni:///sha-256;")


@given(st.text(), st.text())
def test_two_texts_that_differ_by_more_than_spelling_hash_apart(one: str, other: str) -> None:
    alike = after(ex__v=one) == after(ex__v=other)
    assert alike == (
        event_hash(PLAIN | {"ex:v": one}, context=CONTEXT) == event_hash(PLAIN | {"ex:v": other}, context=CONTEXT)
    )
    if one.strip() == other.strip():
        assert alike

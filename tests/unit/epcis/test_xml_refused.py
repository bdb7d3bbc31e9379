"""XML that is refused: by its event alone where an event is wrong, as a whole where the document is."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.epcis import xml_in, xml_tree
from idtrace.epcis.hash import event_hash
from idtrace.epcis.model import Event
from idtrace.epcis.rules import EventError
from idtrace.errors import InputError, Reason
from tests.unit.epcis.test_xml_twins import TIMES, TWINS, xml

GOOD: Final = TWINS["aggregation"][0]
_SENSOR: Final = "<sensorElementList><sensorElement>{}</sensorElement></sensorElementList>"

# What stands in an ObjectEvent after its action: (XML, rule, path within the event).
REFUSED: Final = [
    ("<weight>1</weight>", "field-unknown", "weight"),
    ("<action>ADD</action>", "twice", "action"),
    ("<bizStep><x/></bizStep>", "type", "bizStep.bizStep"),
    ('<bizStep lang="en">shipping</bizStep>', "field-unknown", "bizStep"),
    ("<bizStep>shipping</bizStep><bizStep>packing</bizStep>", "twice", "bizStep"),
    ("<bizStep>flying</bizStep>", "vocabulary", "bizStep"),
    ("<quantityList><quantity/></quantityList>", "field-unknown", "quantityList"),
    ("<quantityList>3<quantityElement/></quantityList>", "type", "quantityList"),
    ("<quantityList><quantityElement><weight>1</weight></quantityElement></quantityList>", "field-unknown",
     "quantityList[0].weight"),
    (("<quantityList><quantityElement><epcClass>urn:x:1</epcClass></quantityElement><quantityElement>"
     "<epcClass>urn:x:1</epcClass><quantity>1,5</quantity></quantityElement></quantityList>"), "number",
     "quantityList[1].quantity"),
    (("<quantityList><quantityElement><epcClass>urn:x:1</epcClass><quantity>0.10000000000000000001</quantity>"
     "</quantityElement></quantityList>"), "number", "quantityList[0].quantity"),
    ("<quantityList><quantityElement><uom>KGM</uom><uom>KGM</uom></quantityElement></quantityList>", "twice",
     "quantityList[0].uom"),
    ("<readPoint>here</readPoint>", "type", "readPoint"),
    ("<readPoint><name>here</name></readPoint>", "field-unknown", "readPoint.name"),
    ('<readPoint lang="en"><id>urn:x:1</id></readPoint>', "field-unknown", "readPoint"),
    ("<persistentDisposition><put>active</put></persistentDisposition>", "field-unknown", "persistentDisposition.put"),
    ("<ilmd><lotNumber>1</lotNumber></ilmd>", "field-unknown", "ilmd.lotNumber"),
    (_SENSOR.format('<sensorReport weight="1"/>'), "field-unknown", "sensorElementList[0].sensorReport[0].weight"),
    (_SENSOR.format('<sensorReport type="x:y"/><sensorReport value="INF"/>'), "number",
     "sensorElementList[0].sensorReport[1].value"),
    (_SENSOR.format('<sensorReport booleanValue="yes" type="gs1:Temperature" uom="CEL"/>'), "type",
     "sensorElementList[0].sensorReport[0].booleanValue"),
    (_SENSOR.format("<sensorReport><x/></sensorReport>"), "type", "sensorElementList[0].sensorReport[0]"),
    (_SENSOR.format("<sensorMetadata>x</sensorMetadata>"), "type", "sensorElementList[0]"),
    (_SENSOR.format("<sensorMetadata/><sensorMetadata/>"), "twice", "sensorElementList[0].sensorMetadata"),
    (_SENSOR.format("<sensorData/>"), "field-unknown", "sensorElementList[0].sensorData"),
    ('<ex:a b="1">x</ex:a>', "field-unknown", ""),
    ("<ex:a>x<ex:b/></ex:a>", "type", ""),
    ('<n:a xmlns:n="no uri">x</n:a>', "context-malformed", "@context[1].ns1"),
]  # fmt: skip


_ONE: Final = (
    f"<ObjectEvent {{declared}}>{TIMES}<epcList><epc>urn:x:1</epc></epcList><action>ADD</action>{{field}}</ObjectEvent>"
)
_PREFIX: Final = re.compile("xmlns:([a-z0-9]+)=")


def refused(*events: str) -> EventError:
    """What is wrong with the second of three events, of which the others stand."""
    parsed = xml_in.read_document(xml(GOOD, *events, GOOD))
    first, wrong, last = parsed.items
    assert isinstance(first, Event)
    assert isinstance(last, Event)
    assert isinstance(wrong, EventError)
    assert wrong.index == 1
    return wrong


@pytest.mark.parametrize(("fields", "rule", "path"), REFUSED)
def test_a_wrong_event_is_named_with_its_rule_and_place_and_the_others_stand(fields: str, rule: str, path: str) -> None:
    wrong = refused(
        f"<ObjectEvent>{TIMES}<epcList><epc>urn:x:1</epc></epcList><action>ADD</action>{fields}</ObjectEvent>"
    )
    assert (wrong.rule, wrong.path) == (rule, f"epcisBody.eventList[1].{path}".rstrip("."))


@pytest.mark.parametrize(
    ("event", "rule"),
    [
        ("<QuantityEvent/>", "choice"),
        ("<ex:ObjectEvent/>", "choice"),
        ('<ObjectEvent id="1"/>', "field-unknown"),
        ("<ObjectEvent>text</ObjectEvent>", "type"),
        ("<ObjectEvent/>", "field-missing"),
    ],
)
def test_what_is_no_event_is_refused_alone(event: str, rule: str) -> None:
    assert refused(event).rule == rule


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("e:EPCISDocument", "e:EPCISMasterDataDocument", "document-type"),
        ("urn:epcglobal:epcis:xsd:2", "urn:epcglobal:epcis:xsd:9", "document-type"),
        ('schemaVersion="2.0"', 'schemaVersion="3.0"', "schema-version"),
        ('schemaVersion="2.0"', "", "schema-version"),
        ("EPCISBody>", "EPCISBodies>", "field-missing"),
        ("EventList>", "EventLists>", "field-missing"),
        ("<EPCISBody>", "<EPCISBody/><EPCISBody>", "field-missing"),
        (' creationDate="2026-07-22T10:30:00Z"', "", "field-missing"),
        (' creationDate="2026-07-22T10:30:00Z"', ' creationDate="today"', "time"),
    ],
)
def test_a_document_that_is_none_is_refused_as_a_whole(old: str, new: str, rule: str) -> None:
    with pytest.raises(InputError) as error:
        xml_in.read_document(xml(GOOD).decode().replace(old, new).encode(), field="upload")
    assert error.value.detail.startswith(rule)
    assert error.value.field.startswith("upload")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"<a>", b"<a></b>", b"{}", b"\xff\xfe<", b"<a>\x00</a>", b"<a b='1' b='2'/>", b"<a/><b/>",
        b"<a>&nbsp;</a>",
        b"<!DOCTYPE a><a/>", b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
        b'<!DOCTYPE a SYSTEM "http://127.0.0.1/x.dtd"><a/>',
        b'<?xml version="1.0" encoding="none"?><a/>', b'<?xml version="1.0" encoding="gbk"?><a/>',
    ],
)  # fmt: skip
def test_what_is_no_xml_or_has_a_document_type_is_refused(data: bytes) -> None:
    with pytest.raises(InputError) as error:
        xml_in.read_document(data)
    assert error.value.reason is Reason.FIELD_MALFORMED
    assert error.value.field == "document"


def test_each_limit_holds_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xml_tree, "ELEMENTS_MAX", 100)
    monkeypatch.setattr(xml_tree, "BYTES_MAX", 20_000)
    prefixes = [f'xmlns:p{n}="urn:p:{n}"' for n in range(xml_tree.PREFIXES_MAX + 1)]
    named = [f'b{n}="1"' for n in range(xml_tree.ATTRIBUTES_MAX + 1)]
    cases: dict[str, Callable[[int], bytes]] = {
        "elements": lambda n: b"<a>" + b"<b/>" * (99 + n) + b"</a>",
        "elements inside": lambda n: b"<a>" * (xml_tree.DEPTH_MAX + n) + b"</a>" * (xml_tree.DEPTH_MAX + n),
        "attributes": lambda n: f"<a {' '.join(named[: xml_tree.ATTRIBUTES_MAX + n])}/>".encode(),
        "prefixes": lambda n: f"<a {' '.join(prefixes[:40])}><b {' '.join(prefixes[40 : 64 + n])}/></a>".encode(),
        "bytes": lambda n: b"<a>" + b"x" * (20_000 - 7 + n) + b"</a>",
    }
    for what, document in cases.items():
        assert xml_tree.read_tree(document(0)).local == "a"
        with pytest.raises(InputError) as error:
            xml_tree.read_tree(document(1))
        assert error.value.reason is Reason.FIELD_TOO_LARGE
        assert what in error.value.detail


def test_prefixes_that_mean_different_things_in_two_events_stay_apart() -> None:
    one = _ONE.format(declared='xmlns:ex="urn:one:"', field="<ex:a>1</ex:a>")
    parsed = xml_in.read_document(xml(one, one.replace("urn:one:", "urn:two:"), one.replace("ex", "other")))
    hashes = [event_hash(event.raw) for event in parsed.events]
    assert hashes[0] != hashes[1]
    assert hashes[0] == hashes[2]


@pytest.mark.parametrize(
    ("declared", "prefix"),
    [
        ('xmlns:a="urn:a:"', "a"),
        ('xmlns="urn:a:"', "ns1"),  # no prefix at all
        ('xmlns:urn="urn:a:"', "ns1"),  # JSON-LD could not tell it from a scheme
        ('xmlns:gs1="urn:a:"', "ns1"),  # stands for something else in every EPCIS document
        ('xmlns:ns1="urn:b:" xmlns:urn="urn:a:"', "ns2"),
    ],
)
def test_a_field_gets_a_prefix_that_json_ld_can_declare(declared: str, prefix: str) -> None:
    field = f"<x {declared}>1</x>" if declared.startswith("xmlns=") else f"<{_PREFIX.findall(declared)[-1]}:x/>"
    written = _ONE.format(declared="" if declared.startswith("xmlns=") else declared, field=field)
    (event,) = xml_in.read_document(xml(written)).events
    assert list(event.extensions) == [f"{prefix}:x"]


@given(
    st.integers(0, 4000),
    st.binary(max_size=3) | st.sampled_from([b"<", b">", b"</ObjectEvent>", b'"', b"&lt;", b"<a/>"]),
)
def test_no_damage_makes_it_raise_anything_else(at: int, damage: bytes) -> None:
    data = xml(*(written for written, _ in TWINS.values()))
    place = at % len(data)
    with contextlib.suppress(InputError):
        xml_in.read_document(data[:place] + damage + data[place + len(damage) :])

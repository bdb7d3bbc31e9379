"""Events written by hand in XML and in JSON: they are read as the same, and hash as the same."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from idtrace.epcis import parse, xml_in, xml_out
from idtrace.epcis.hash import event_hash
from idtrace.epcis.model import Event
from tests.shared_data import shared_data

HEAD: Final = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<e:EPCISDocument xmlns:e="urn:epcglobal:epcis:xsd:2"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema"'
    ' xmlns:ex="https://ns.example.com/epcis/" xmlns:cbvmda="urn:epcglobal:cbv:mda" schemaVersion="2.0"'
    ' creationDate="2026-07-22T10:30:00Z">{header}'
    "<EPCISBody><EventList>{events}</EventList></EPCISBody></e:EPCISDocument>"
)
TIMES: Final = (
    "<eventTime>2026-07-22T10:30:00.250+08:00</eventTime><recordTime>2026-07-22T02:31:00Z</recordTime>"
    "<eventTimeZoneOffset>+08:00</eventTimeZoneOffset><eventID>urn:uuid:374d95fc-9457-4a51-bd6a-0bba133845a8</eventID>"
)
TIMES_JSON: Final = {
    "eventTime": "2026-07-22T02:30:00.250Z",
    "recordTime": "2026-07-22T10:31:00+08:00",
    "eventTimeZoneOffset": "+08:00",
    "eventID": "urn:uuid:374d95fc-9457-4a51-bd6a-0bba133845a8",
}
TWINS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "object, made, with master data and extensions": (
        f"""<ObjectEvent>{TIMES}
          <epcList>
            <epc>urn:epc:id:sgtin:4012345.011111.9876</epc><epc> idtrace:88.118.8/SN-1 </epc>
          </epcList>
          <action>ADD</action><bizStep>urn:epcglobal:cbv:bizstep:commissioning</bizStep>
          <disposition>https://ref.gs1.org/cbv/Disp-active</disposition>
          <readPoint><id>urn:epc:id:sgln:0012345.11111.400</id><ex:gate>3</ex:gate></readPoint>
          <bizLocation><id>idtrace:88.118.8/site-1</id></bizLocation>
          <bizTransactionList><bizTransaction type="urn:epcglobal:cbv:btt:po">urn:x:po:1</bizTransaction>
            <bizTransaction>urn:x:po:2</bizTransaction></bizTransactionList>
          <quantityList><quantityElement><epcClass>urn:epc:class:lgtin:4012345.012345.998877</epcClass>
            <quantity>200.50</quantity><uom>KGM</uom></quantityElement>
            <quantityElement><epcClass>urn:epc:class:lgtin:4012345.012345.1</epcClass></quantityElement></quantityList>
          <sourceList><source type="urn:epcglobal:cbv:sdt:location">urn:epc:id:sgln:4012345.00225.0</source>
          </sourceList>
          <destinationList><destination type="https://ref.gs1.org/cbv/SDT-possessing_party">idtrace:88.118.9</destination>
          </destinationList>
          <persistentDisposition><unset>urn:epcglobal:cbv:disp:recalled</unset>
            <set>urn:epcglobal:cbv:disp:completeness_verified</set></persistentDisposition>
          <ilmd><cbvmda:lotNumber>L-1</cbvmda:lotNumber>
          <ex:brand xsi:type="xsd:string">疫苗 &amp; Söhne</ex:brand></ilmd>
          <ex:empty/><ex:list xsi:type="xsd:integer">2</ex:list><ex:list>1</ex:list><ex:list><bare>x</bare></ex:list>
          <ex:deep><own:x xmlns:own="urn:own:"><own:extension>not a wrapper</own:extension></own:x></ex:deep>
          <d:doses xmlns:d="idtrace:">5</d:doses>
        </ObjectEvent>""",
        {
            "type": "ObjectEvent", **TIMES_JSON, "action": "ADD", "bizStep": "commissioning", "disposition": "active",
            "epcList": ["urn:epc:id:sgtin:4012345.011111.9876", "idtrace:88.118.8/SN-1"],
            "readPoint": {"id": "urn:epc:id:sgln:0012345.11111.400", "ex:gate": "3"},
            "bizLocation": {"id": "idtrace:88.118.8/site-1"},
            "bizTransactionList": [{"type": "po", "bizTransaction": "urn:x:po:1"}, {"bizTransaction": "urn:x:po:2"}],
            "quantityList": [
                {"epcClass": "urn:epc:class:lgtin:4012345.012345.998877", "quantity": 200.5, "uom": "KGM"},
                {"epcClass": "urn:epc:class:lgtin:4012345.012345.1"},
            ],
            "sourceList": [{"type": "location", "source": "urn:epc:id:sgln:4012345.00225.0"}],
            "destinationList": [{"type": "possessing_party", "destination": "idtrace:88.118.9"}],
            "persistentDisposition": {"set": ["completeness_verified"], "unset": ["recalled"]},
            "ilmd": {"cbvmda:lotNumber": "L-1", "ex:brand": "疫苗 & Söhne"},
            "ex:empty": "", "ex:list": ["2", "1", {"bare": "x"}],
            "ex:deep": {"own:x": {"own:extension": "not a wrapper"}}, "idtrace:doses": "5",
        },
    ),
    "object, with sensor data and an error declaration": (
        f"""<ObjectEvent>{TIMES}
          <errorDeclaration><declarationTime>2026-07-23T10:30:00Z</declarationTime>
            <reason>urn:epcglobal:cbv:er:incorrect_data</reason>
            <correctiveEventIDs><correctiveEventID>urn:uuid:1</correctiveEventID></correctiveEventIDs>
            <ex:by>QA</ex:by></errorDeclaration>
          <certificationInfo>https://example.org/cert/1</certificationInfo>
          <action>OBSERVE</action><bizStep>https://ref.gs1.org/cbv/BizStep-sensor_reporting</bizStep>
          <readPoint><id>urn:x:room</id></readPoint>
          <sensorElementList>
            <sensorElement>
              <sensorMetadata startTime="2026-07-22T10:00:00+08:00" endTime="2026-07-22T10:30:00+08:00"
                 deviceID="urn:epc:id:giai:4000001.111" ex:probe="2"/>
              <sensorReport type="gs1:Temperature" minValue="2.10" maxValue="8e0" meanValue="4" uom=" CEL "
                 component="cbv:Comp-x" ex:raw="0012"/>
              <sensorReport exception="https://gs1.org/voc/ALARM_CONDITION" booleanValue="1" stringValue=" a "
                 hexBinaryValue="F0"/>
              <ex:note>by hand</ex:note>
            </sensorElement>
            <sensorElement><sensorReport type="https://gs1.org/voc/Temperature" value="-0.5" uom="CEL"
                 time="2026-07-22T10:31:00+08:00"/></sensorElement>
          </sensorElementList>
        </ObjectEvent>""",
        {
            "type": "ObjectEvent", **TIMES_JSON, "action": "OBSERVE", "bizStep": "sensor_reporting",
            "readPoint": {"id": "urn:x:room"},
            "certificationInfo": "https://example.org/cert/1",
            "errorDeclaration": {
                "declarationTime": "2026-07-23T10:30:00Z", "reason": "incorrect_data",
                "correctiveEventIDs": ["urn:uuid:1"], "ex:by": "QA",
            },
            "sensorElementList": [
                {
                    "sensorMetadata": {
                        "startTime": "2026-07-22T02:00:00Z", "endTime": "2026-07-22T02:30:00Z",
                        "deviceID": "urn:epc:id:giai:4000001.111", "ex:probe": "2",
                    },
                    "sensorReport": [
                        {"type": "Temperature", "minValue": 2.1, "maxValue": 8, "meanValue": 4, "uom": "CEL",
                         "component": "x", "ex:raw": "0012"},
                        {"exception": "ALARM_CONDITION", "booleanValue": True, "stringValue": " a ",
                         "hexBinaryValue": "F0"},
                    ],
                    "ex:note": "by hand",
                },
                {"sensorReport": [
                    {"type": "Temperature", "value": -0.5, "uom": "CEL", "time": "2026-07-22T02:31:00Z"}]},
            ],
        },
    ),
    "aggregation": (
        f"""<AggregationEvent>{TIMES}<parentID>urn:epc:id:sscc:4047023.0111111122</parentID>
          <childEPCs><epc>urn:epc:id:sgtin:4047023.077551.98</epc><epc>urn:epc:id:sgtin:4047023.077551.97</epc></childEPCs>
          <action>ADD</action><bizStep>urn:epcglobal:cbv:bizstep:packing</bizStep>
          <childQuantityList><quantityElement><epcClass>urn:epc:idpat:sgtin:4012345.066666.*</epcClass>
          <quantity>10</quantity></quantityElement></childQuantityList></AggregationEvent>""",
        {
            "type": "AggregationEvent", **TIMES_JSON, "parentID": "urn:epc:id:sscc:4047023.0111111122",
            "childEPCs": ["urn:epc:id:sgtin:4047023.077551.98", "urn:epc:id:sgtin:4047023.077551.97"],
            "action": "ADD", "bizStep": "packing",
            "childQuantityList": [{"epcClass": "urn:epc:idpat:sgtin:4012345.066666.*", "quantity": 10}],
        },
    ),
    "association": (
        f"""<AssociationEvent>{TIMES}<parentID>idtrace:88.118.8/truck-7</parentID>
          <childEPCs><epc>urn:epc:id:giai:4000001.111</epc></childEPCs><action>DELETE</action>
          <bizStep>urn:epcglobal:cbv:bizstep:removing</bizStep></AssociationEvent>""",
        {
            "type": "AssociationEvent", **TIMES_JSON, "parentID": "idtrace:88.118.8/truck-7",
            "childEPCs": ["urn:epc:id:giai:4000001.111"], "action": "DELETE", "bizStep": "removing",
        },
    ),
    "transaction": (
        f"""<TransactionEvent>{TIMES}<bizTransactionList><bizTransaction type="https://ref.gs1.org/cbv/BTT-desadv">
          urn:epcglobal:cbv:bt:4012345000009:ASN1099</bizTransaction></bizTransactionList>
          <epcList><epc>urn:epc:id:sscc:4047023.0111111122</epc></epcList><action>ADD</action></TransactionEvent>""",
        {
            "type": "TransactionEvent", **TIMES_JSON, "action": "ADD",
            "epcList": ["urn:epc:id:sscc:4047023.0111111122"],
            "bizTransactionList": [
                {"type": "desadv", "bizTransaction": "urn:epcglobal:cbv:bt:4012345000009:ASN1099"}],
        },
    ),
    "transformation": (
        f"""<TransformationEvent>{TIMES}<inputEPCList><epc>urn:epc:id:sgtin:4012345.011122.25</epc></inputEPCList>
          <inputQuantityList><quantityElement><epcClass>urn:epc:class:lgtin:4012345.011111.4444</epcClass>
          <quantity>10</quantity><uom>KGM</uom></quantityElement></inputQuantityList>
          <outputEPCList><epc>urn:epc:id:sgtin:4012345.077889.25</epc></outputEPCList>
          <transformationID>urn:epc:id:gdti:4012345.55555.1234</transformationID>
          <ilmd><cbvmda:lotNumber>XYZ</cbvmda:lotNumber></ilmd></TransformationEvent>""",
        {
            "type": "TransformationEvent", **TIMES_JSON, "inputEPCList": ["urn:epc:id:sgtin:4012345.011122.25"],
            "inputQuantityList": [
                {"epcClass": "urn:epc:class:lgtin:4012345.011111.4444", "quantity": 10, "uom": "KGM"}],
            "outputEPCList": ["urn:epc:id:sgtin:4012345.077889.25"],
            "transformationID": "urn:epc:id:gdti:4012345.55555.1234", "ilmd": {"cbvmda:lotNumber": "XYZ"},
        },
    ),
}  # fmt: skip


def xml(*events: str, header: str = "") -> bytes:
    return HEAD.format(events="".join(events), header=header).encode()


def from_json(*events: dict[str, Any]) -> tuple[Event, ...]:
    prefixes = {"ex": "https://ns.example.com/epcis/", "own": "urn:own:"}
    document = {
        "@context": ["https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld", prefixes],
        "type": "EPCISDocument", "schemaVersion": "2.0", "creationDate": "2026-07-22T10:30:00Z",
        "epcisBody": {"eventList": list(events)},
    }  # fmt: skip
    parsed = parse.read_document(json.dumps(document).encode())
    assert not parsed.errors
    return parsed.events


@pytest.mark.parametrize("name", TWINS)
def test_twins_are_one_event_with_one_hash(name: str) -> None:
    written, twin = TWINS[name]
    parsed = xml_in.read_document(xml(written))
    assert not parsed.errors
    (event,), (expected,) = parsed.events, from_json(twin)
    assert event_hash(event.raw) == event_hash(expected.raw)
    assert event == expected


@pytest.mark.parametrize("name", TWINS)
def test_what_is_written_as_xml_is_read_as_the_same_event(name: str) -> None:
    (event,) = from_json(TWINS[name][1])
    (again,) = xml_in.read_document(xml_out.document_xml([event], 0)).events
    assert event_hash(again.raw) == event_hash(event.raw)
    assert again == event


def test_all_twins_in_one_document_and_as_results_of_a_query() -> None:
    events = from_json(*(twin for _, twin in TWINS.values()))
    document = xml_in.read_document(xml(*(written for written, _ in TWINS.values())))
    results = xml_in.read_document(xml_out.query_document_xml(events, 7, query_name="Mine", subscription_id="s & 1"))
    assert (results.kind, results.query_name, results.subscription_id, results.created_ms) == (
        parse.DocumentKind.QUERY, "Mine", "s & 1", 7,
    )  # fmt: skip
    for read in (document, results):
        assert [event_hash(event.raw) for event in read.events] == [event_hash(event.raw) for event in events]
    assert xml_in.read_document(xml_out.query_document_xml([], 0)).items == ()


def test_events_inside_the_wrappers_of_version_1_are_read() -> None:
    written = f"""<extension><TransformationEvent><eventTime>2026-07-22T10:30:00Z</eventTime>
      <eventTimeZoneOffset>+08:00</eventTimeZoneOffset>
      <baseExtension><eventID>urn:uuid:1</eventID><errorDeclaration><declarationTime>2026-07-23T10:30:00Z</declarationTime>
      </errorDeclaration></baseExtension>
      <inputEPCList><epc>urn:x:in</epc></inputEPCList>
      <outputEPCList><epc>urn:epc:id:sgtin:4012345.077889.25</epc></outputEPCList></TransformationEvent></extension>
      <ObjectEvent>{TIMES}<epcList/><action>ADD</action><extension><quantityList><quantityElement>
      <epcClass>urn:epc:class:lgtin:4012345.012345.1</epcClass></quantityElement></quantityList>
      <extension><ilmd><extension><cbvmda:lotNumber>L</cbvmda:lotNumber></extension></ilmd></extension></extension>
      </ObjectEvent>"""
    old = xml(written).replace(b"epcis:xsd:2", b"epcis:xsd:1").replace(b'Version="2.0"', b'Version="1.2"')
    parsed = xml_in.read_document(old)
    assert not parsed.errors
    first, second = parsed.events
    assert (first.event_id, first.outputs) == ("urn:uuid:1", ("urn:epc:id:sgtin:4012345.077889.25",))
    assert first.error is not None
    assert second.quantities[0].epc_class == "urn:epc:class:lgtin:4012345.012345.1"
    assert second.ilmd == {"cbvmda:lotNumber": "L"}


def test_the_header_tells_sender_receiver_and_instance() -> None:
    header = """<EPCISHeader><s:StandardBusinessDocumentHeader
      xmlns:s="http://www.unece.org/cefact/namespaces/StandardBusinessDocumentHeader">
      <s:HeaderVersion>1.0</s:HeaderVersion>
      <s:Sender><s:Identifier Authority="x">urn:epc:id:pgln:4012345.00225</s:Identifier></s:Sender>
      <s:Receiver><s:Identifier>urn:x:r</s:Identifier></s:Receiver>
      <s:DocumentIdentification><s:Standard>EPCglobal</s:Standard><s:InstanceIdentifier>17</s:InstanceIdentifier>
      </s:DocumentIdentification></s:StandardBusinessDocumentHeader><extension><x/></extension></EPCISHeader>"""
    parsed = xml_in.read_document(xml(header=header))
    assert parsed.header == {
        "sender": "urn:epc:id:pgln:4012345.00225", "receiver": "urn:x:r", "instanceIdentifier": "17",
    }  # fmt: skip


def test_every_example_document_survives_its_way_through_xml() -> None:
    events = 0
    for file in sorted(shared_data("epcis").glob("*/*.json")):
        if file.parent.name == "invalid":
            continue
        parsed = parse.read_document(file.read_bytes(), capture=False)
        again = xml_in.read_document(xml_out.document_xml(parsed.events, 0), capture=False)
        assert again.items == parsed.items, file.name
        assert [event_hash(one.raw) for one in again.events] == [event_hash(one.raw) for one in parsed.events]
        events += len(parsed.events)
    assert events == 40

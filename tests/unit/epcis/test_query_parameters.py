"""Every parameter of an event query has an event that meets it, and one that is as near as can be and does not."""

from __future__ import annotations

from typing import Any

import pytest

from idtrace.epcis.model import Event
from idtrace.epcis.parse import read_document
from idtrace.epcis.query import matches, parse
from tests.unit.epcis.events import BOX, CONTEXT, ONE, OTHER, plain, to_bytes

RECORDED_MS = 1_784_700_000_000  # 2026-07-22T06:00:00Z
EPC = "https://example.com/01/04012345111118/21/1"  # ONE, as a Digital Link of some shop
LOT, CLASS = "urn:epc:class:lgtin:4012345.012345.998877", "https://id.gs1.org/01/04012345123456/10/998877"
PLACE = "urn:epc:id:sgln:0614141.12345.400"


def event(kind: str = "ObjectEvent", /, **fields: Any) -> Event:
    (read,) = read_document(to_bytes(plain(kind) | fields), capture=False).items
    assert isinstance(read, Event), read
    return read


def sensed(metadata: dict[str, Any] | None = None, extra: dict[str, Any] | None = None, /, **report: Any) -> Event:
    element = {"sensorMetadata": metadata or {}, "sensorReport": [{"type": "Temperature", **report}], **(extra or {})}
    return event(sensorElementList=[element])


def declared(**error: Any) -> Event:
    return event(errorDeclaration={"declarationTime": "2026-07-23T00:00:00Z", **error})


def measured(name: str, uom: str = "CEL", kind: str = "Temperature") -> list[tuple[Any, ...]]:
    """What the five comparisons with 8 °C find among 5, 8 and 46.4 °F, and 9."""
    five, eight, nine = (sensed(type=kind, **{name: value}, uom=uom) for value in (5, 8, 9))
    return [
        ({f"EQ_{name}_{uom}": [8]}, eight, nine),
        ({f"EQ_{name}_{uom}": ["8.0", "9"]}, nine, five),
        ({f"GE_{name}_{uom}": 8}, eight, five),
        ({f"GT_{name}_{uom}": 8}, nine, eight),
        ({f"LE_{name}_{uom}": 8}, eight, nine),
        ({f"LT_{name}_{uom}": 8}, five, eight),
    ]


STANDARD: list[tuple[dict[str, Any], Event, Event]] = [
    ({"eventType": ["ObjectEvent"]}, event(), event("AggregationEvent")),
    ({"eventType": ["epcis:AggregationEvent", "ObjectEvent"]}, event("AggregationEvent"), event("TransactionEvent")),
    ({"GE_eventTime": "2026-07-22T10:30:00.250Z"}, event(), event(eventTime="2026-07-22T10:30:00.249Z")),
    ({"LT_eventTime": "2026-07-22T18:30:00.251+08:00"}, event(), event(eventTime="2026-07-22T10:30:00.251Z")),
    ({"EQ_action": ["ADD", "DELETE"]}, event(), event(action="OBSERVE")),
    ({"EQ_action": ["ADD"]}, event(), event("TransformationEvent")),
    ({"EQ_bizStep": ["urn:epcglobal:cbv:bizstep:commissioning"]}, event(), event(bizStep="packing")),
    ({"EQ_bizStep": ["cbv:BizStep-packing"]}, event(bizStep="https://ref.gs1.org/cbv/BizStep-packing"), event()),
    ({"EQ_bizStep": ["https://example.com/step"]}, event(bizStep="https://example.com/step"), event()),
    ({"EQ_disposition": ["in_transit"]}, event(disposition="in_transit"), event(disposition="active")),
    (
        {"EQ_persistentDisposition_set": ["recalled"]},
        event(persistentDisposition={"set": ["expired", "recalled"]}),
        event(persistentDisposition={"unset": ["recalled"]}),
    ),
    (
        {"EQ_persistentDisposition_unset": ["recalled"]},
        event(persistentDisposition={"unset": ["recalled"]}),
        event(persistentDisposition={"set": ["recalled"]}),
    ),
    ({"EQ_readPoint": [PLACE]}, event(readPoint={"id": PLACE}), event(bizLocation={"id": PLACE})),
    ({"EQ_bizLocation": [PLACE]}, event(bizLocation={"id": PLACE}), event(readPoint={"id": PLACE})),
    ({"WD_readPoint": ["urn:epc:id:sgln:0614141.12345.0"]}, event(readPoint={"id": PLACE}), event()),
    ({"WD_readPoint": [PLACE]}, event(readPoint={"id": PLACE}), event(readPoint={"id": PLACE + "1"})),
    (
        {"WD_bizLocation": ["idtrace:88.118.8/WH-1"]},
        event(bizLocation={"id": "idtrace:88.118.8/WH-1/DOCK-2"}),
        event(bizLocation={"id": "idtrace:88.118.8/WH-10"}),
    ),
    (
        {"WD_bizLocation": ["idtrace:88.118.8"]},
        event(bizLocation={"id": "idtrace:88.118.8.5/WH-1"}),
        event(bizLocation={"id": "idtrace:88.118.80/WH-1"}),
    ),
    (
        {"WD_bizLocation": ["https://example.com/a/"]},
        event(bizLocation={"id": "https://example.com/a/b"}),
        event(bizLocation={"id": "https://example.com/ab"}),
    ),
    (
        {"EQ_bizTransaction_po": ["https://example.com/po/1"]},
        event("TransactionEvent"),
        event("TransactionEvent", bizTransactionList=[{"type": "inv", "bizTransaction": "https://example.com/po/1"}]),
    ),
    (
        {"EQ_source_possessing_party": ["idtrace:88.118.8"]},
        event(sourceList=[{"type": "possessing_party", "source": "IDTRACE:88.118.8"}]),
        event(sourceList=[{"type": "owning_party", "source": "idtrace:88.118.8"}]),
    ),
    (
        {"EQ_destination_urn:epcglobal:cbv:sdt:location": [PLACE]},
        event(destinationList=[{"type": "location", "destination": PLACE}]),
        event(sourceList=[{"type": "location", "source": PLACE}]),
    ),
    (
        {"EQ_transformationID": ["https://example.com/t/1"]},
        event("TransformationEvent", transformationID="https://example.com/t/1"),
        event("TransformationEvent", transformationID="https://example.com/t/2"),
    ),
    ({"MATCH_epc": [EPC]}, event(), event(epcList=[OTHER])),
    ({"MATCH_epc": [ONE]}, event("AggregationEvent"), event("TransformationEvent")),
    ({"MATCH_epc": ["idtrace:88.118.8/SN-2"]}, event(), event("AggregationEvent")),
    ({"MATCH_parentID": [BOX]}, event("AggregationEvent"), event(epcList=[BOX])),
    ({"MATCH_inputEPC": [EPC]}, event("TransformationEvent"), event()),
    ({"MATCH_outputEPC": [OTHER]}, event("TransformationEvent", outputEPCList=[OTHER]), event("TransformationEvent")),
    ({"MATCH_anyEPC": [BOX]}, event("AggregationEvent"), event()),
    ({"MATCH_anyEPC": [EPC]}, event("TransformationEvent"), event(epcList=[OTHER])),
    ({"MATCH_epcClass": [CLASS]}, event(quantityList=[{"epcClass": LOT}]), event("TransformationEvent")),
    (
        {"MATCH_inputEPCClass": [CLASS]},
        event("TransformationEvent", inputQuantityList=[{"epcClass": LOT}]),
        event("TransformationEvent"),
    ),
    ({"MATCH_outputEPCClass": [CLASS]}, event("TransformationEvent"), event(quantityList=[{"epcClass": LOT}])),
    ({"MATCH_anyEPCClass": [CLASS]}, event("TransformationEvent"), event()),
    (
        {"MATCH_anyEPCClass": [LOT]},
        event("AggregationEvent", childQuantityList=[{"epcClass": CLASS}]),
        event("AggregationEvent"),
    ),
    ({"EQ_eventID": ["urn:uuid:1"]}, event(eventID="urn:uuid:1"), event(eventID="urn:uuid:12")),
    ({"EXISTS_errorDeclaration": None}, declared(), event()),
    ({"GE_errorDeclarationTime": "2026-07-23T00:00:00Z"}, declared(), event()),
    ({"LT_errorDeclarationTime": "2026-07-23T00:00:00.001Z"}, declared(), event()),
    (
        {"GE_errorDeclaration_Time": "2026-07-23T00:00:00Z"},
        declared(),
        declared(declarationTime="2026-07-22T23:59:59.999Z"),
    ),
    ({"EQ_errorReason": ["did_not_occur"]}, declared(reason="did_not_occur"), declared(reason="incorrect_data")),
    (
        {"EQ_correctiveEventID": ["urn:uuid:2"]},
        declared(correctiveEventIDs=["urn:uuid:1", "urn:uuid:2"]),
        declared(correctiveEventIDs=["urn:uuid:1"]),
    ),
    ({"EQ_errorReason": ["did_not_occur"]}, declared(reason="did_not_occur"), event()),
    ({"EQ_correctiveEventID": ["urn:uuid:2"]}, declared(correctiveEventIDs=["urn:uuid:2"]), event()),
    (
        {"GE_quantity": 200},
        event(quantityList=[{"epcClass": LOT, "quantity": 200}]),
        event(quantityList=[{"epcClass": LOT}]),
    ),
    ({"GT_quantity": "200"}, event(quantityList=[{"epcClass": LOT, "quantity": 200.5}]), event("TransformationEvent")),
    ({"LE_quantity": 200}, event("TransformationEvent"), event(quantityList=[{"epcClass": LOT, "quantity": 201}])),
    ({"LT_quantity": 200}, event(quantityList=[{"epcClass": LOT, "quantity": 1}]), event("TransformationEvent")),
    ({"EQ_quantity": [7, 200]}, event("TransformationEvent"), event()),
    (
        {"EQ_quantity_GRM": [200_000]},
        event("TransformationEvent"),
        event(quantityList=[{"epcClass": LOT, "quantity": 200_000}]),
    ),
    (
        {"GE_quantity_KGM": 200},
        event("TransformationEvent"),
        event(quantityList=[{"epcClass": LOT, "quantity": 999, "uom": "LTR"}]),
    ),
]
SENSORS: list[tuple[dict[str, Any], Event, Event]] = [
    ({"EXISTS_sensorElementList": ["true"]}, sensed(), event()),
    ({"EQ_type": ["gs1:Temperature"]}, sensed(), sensed(type="Pressure")),
    ({"EQ_exception": ["ALARM_CONDITION"]}, sensed(exception="ALARM_CONDITION"), sensed(exception="ERROR_CONDITION")),
    ({"EQ_component": ["x"]}, sensed(component="cbv:Comp-x"), sensed(component="y")),
    ({"EQ_deviceID": ["idtrace:88.118.8/D-1"]}, sensed(deviceID="idtrace:88.118.8/D-1"), sensed()),
    (
        {"EQ_deviceID": ["idtrace:88.118.8/D-1"]},
        sensed({"deviceID": "idtrace:88.118.8/D-1"}),
        sensed({"deviceID": ONE}),
    ),
    ({"EQ_SENSORMETADATA_deviceID": [ONE]}, sensed({"deviceID": ONE}), sensed(deviceID=ONE)),
    ({"EQ_SENSORREPORT_deviceID": [ONE]}, sensed(deviceID=ONE), sensed({"deviceID": ONE})),
    *(
        ({f"EQ_{name}": ["https://example.com/x"]}, sensed(**{name: "https://example.com/x"}), sensed())
        for name in (
            *("deviceMetadata", "rawData", "dataProcessingMethod", "bizRules", "microorganism", "chemicalSubstance"),
            *("coordinateReferenceSystem", "uriValue"),
        )
    ),
    ({"EQ_bizRules": ["https://example.com/x"]}, sensed({"bizRules": "https://example.com/x"}), sensed()),
    ({"EQ_stringValue": ["shock"]}, sensed(stringValue="shock"), sensed(stringValue="Shock")),
    ({"EQ_hexBinaryValue": ["0aff"]}, sensed(hexBinaryValue="0AFF"), sensed()),
    ({"EQ_booleanValue": True}, sensed(booleanValue=True), sensed(booleanValue=False)),
    ({"EQ_booleanValue": ["false"]}, sensed(booleanValue=False), sensed()),
    ({"GE_time": "2026-07-22T10:25:00Z"}, sensed(time="2026-07-22T10:25:00Z"), sensed(time="2026-07-22T10:24:00Z")),
    ({"LT_time": "2026-07-22T10:25:00Z"}, sensed({"time": "2026-07-22T10:24:00Z"}), sensed()),
    (
        {"GE_SENSORREPORT_time": "2026-07-22T10:25:00Z"},
        sensed(time="2026-07-22T10:25:00Z"),
        sensed({"time": "2026-07-22T10:25:00Z"}),
    ),
    (
        {"LT_SENSORMETADATA_time": "2026-07-22T10:26:00Z"},
        sensed({"time": "2026-07-22T10:25:00Z"}),
        sensed(time="2026-07-22T10:25:00Z"),
    ),
    (
        {"GE_startTime": "2026-07-22T10:25:00Z"},
        sensed({"startTime": "2026-07-22T10:25:00Z"}),
        sensed(time="2026-07-22T10:25:00Z"),
    ),
    (
        {"LT_startTime": "2026-07-22T10:25:00Z"},
        sensed({"startTime": "2026-07-22T10:24:59Z"}),
        sensed({"startTime": "2026-07-22T10:25:00Z"}),
    ),
    (
        {"GE_endTime": "2026-07-22T10:25:00Z"},
        sensed({"endTime": "2026-07-22T10:25:00Z"}),
        sensed({"startTime": "2026-07-22T10:25:00Z"}),
    ),
    (
        {"LT_endTime": "2026-07-22T10:25:00Z"},
        sensed({"endTime": "2026-07-22T10:24:00Z"}),
        sensed({"endTime": "2026-07-22T10:26:00Z"}),
    ),
    ({"GE_percRank": 50}, sensed(percRank=50, percValue=1, uom="CEL"), sensed(percRank=49, percValue=1, uom="CEL")),
    ({"EQ_percRank": [50]}, sensed(percRank=50), sensed()),
    *(one for name in ("value", "minValue", "maxValue", "meanValue", "sDev", "percValue") for one in measured(name)),
    # The same temperature in another unit, and the same number of another quantity.
    ({"EQ_value_CEL": [8]}, sensed(value=46.4, uom="FAH"), sensed(value=8, uom="FAH")),
    ({"EQ_value_KEL": [281.15]}, sensed(value=8, uom="CEL"), sensed(value=281.15, uom="CEL")),
    ({"GE_value_CEL": [8]}, sensed(value=281.15, uom="KEL"), sensed(type="RelativeHumidity", value=60, uom="P1")),
    ({"GE_value_CEL": [8]}, sensed(value=8, uom="CEL"), sensed(value=9)),
    # A difference knows no zero point.
    ({"EQ_sDev_CEL": [1]}, sensed(sDev=1.8, uom="FAH"), sensed(sDev=33.8, uom="FAH")),
    ({"EQ_sDev_KEL": [1]}, sensed(sDev=1, uom="CEL"), sensed(sDev=274.15, uom="CEL")),
    # A number that nobody can have measured is compared with nothing.
    ({"LT_value_CEL": [8]}, sensed(value=7, uom="CEL"), sensed(value=1e-40, uom="KEL")),
    ({"LT_sDev_CEL": [8]}, sensed(sDev=7, uom="CEL"), sensed(sDev=1e-40, uom="FAH")),
    ({"EQ_value_KWH": [8]}, sensed(type="Energy", value=8, uom="KWH"), sensed(type="Energy", value=8, uom="JOU")),
]


@pytest.mark.parametrize(
    ("parameters", "met", "missed"),
    [*STANDARD, *SENSORS],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_parameter_finds_what_it_says_and_nothing_else(parameters: dict[str, Any], met: Event, missed: Event) -> None:
    query = parse(parameters)
    assert matches(query, met, RECORDED_MS)
    assert not matches(query, missed, RECORDED_MS)


@pytest.mark.parametrize(
    ("name", "recorded_ms", "met"),
    [
        ("GE_recordTime", RECORDED_MS, True),
        ("GE_recordTime", RECORDED_MS - 1, False),
        ("LT_recordTime", RECORDED_MS - 1, True),
        ("LT_recordTime", RECORDED_MS, False),
    ],
)
def test_the_time_of_recording_is_what_the_node_says(name: str, recorded_ms: int, *, met: bool) -> None:
    claimed = event(recordTime="1999-01-01T00:00:00Z")  # a party's word, and no matter
    assert matches(parse({name: "2026-07-22T06:00:00Z"}), claimed, recorded_ms) is met


def test_all_parameters_hold_at_once_and_values_are_alternatives() -> None:
    query = parse({"EQ_bizStep": ["packing|commissioning"], "MATCH_epc": [f"{BOX}|{EPC}"], "EQ_action": "ADD"})
    assert matches(query, event(), 0)
    assert matches(query, event("AggregationEvent"), 0)
    assert not matches(query, event(bizStep="shipping"), 0)
    assert not matches(query, event(epcList=[OTHER]), 0)
    assert matches(parse({}), event(), 0)


def test_a_bar_in_the_text_of_a_json_body_is_a_bar() -> None:
    assert matches(parse({"EQ_stringValue": ["a|b"]}, split=False), sensed(stringValue="a|b"), 0)
    assert not matches(parse({"EQ_stringValue": ["a|b"]}), sensed(stringValue="a|b"), 0)


def test_the_query_knows_whom_its_events_are_about_and_when_they_were() -> None:
    query = parse(
        {
            "MATCH_anyEPC": [ONE, EPC],
            "EQ_readPoint": [PLACE],
            "EQ_deviceID": [OTHER],
            "EQ_bizStep": "packing",
            "GE_eventTime": "1970-01-01T00:00:01Z",
            "LT_eventTime": "1970-01-01T00:00:02Z",
            "GE_recordTime": "1970-01-01T00:00:03Z",
            "LT_recordTime": "1970-01-01T00:00:04Z",
        }
    )
    assert [sorted(one.keys) for one in query.conditions][:4] == [
        ["gs1.01.04012345111118/21.1"],
        ["gs1.414.0614141123452/254.400"],
        ["88.118.8/SN-2"],
        [],
    ]
    bounds = (query.time_from_ms, query.time_until_ms, query.record_from_ms, query.record_until_ms)
    assert bounds == (1_000, 2_000, 3_000, 4_000)


def test_a_context_of_the_query_says_what_its_prefixes_mean() -> None:
    crew = event(**{"ext:crew": "night"})
    for parameters, namespaces in (
        ({"EQ_c:crew": "night", "@context": {"c": CONTEXT[1]["ext"]}}, {}),
        ({"EQ_c:crew": "night"}, {"c": CONTEXT[1]["ext"]}),
    ):
        assert matches(parse(parameters, namespaces=namespaces), crew, 0)
    assert not matches(parse({"EQ_c:crew": "night"}), crew, 0)

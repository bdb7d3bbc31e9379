"""Documents and events are read whole, and each way to be wrong is refused by its rule at its place."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from idtrace.epcis.model import Action, EventType, Quantity, SensorMetadata, Typed
from idtrace.epcis.parse import DocumentError, DocumentKind, EventError, Parsed, Rule, read_document
from idtrace.epcis.rules import DOCUMENT_BYTES_MAX, EVENTS_MAX, LIST_MAX, TEXT_CHARS_MAX, URI_CHARS_MAX
from idtrace.errors import InputError, Reason
from tests.shared_data import shared_data
from tests.unit.epcis.events import BOX, CONTEXT, ONE, OTHER, QUANTITY, REPORT, SENSOR, document, plain, to_bytes

# Rule and path of what every event of the invalid conformance files must be refused for.
LIST = "epcisBody.eventList"
REFUSED: dict[str, list[tuple[int, Rule, str]]] = {
    "Combination_of_events_with_missing_mandatory_fields": [
        (0, Rule.FIELD_MISSING, f"{LIST}[0].action"),
        (1, Rule.FIELD_MISSING, f"{LIST}[1].eventTimeZoneOffset"),
    ],
    "Combination_of_non_standard_bizStep_and_disposition": [
        (0, Rule.VOCABULARY, f"{LIST}[0].bizStep"),
        (1, Rule.VOCABULARY, f"{LIST}[1].disposition"),
    ],
    "ObjectEvent_with_ilmd_field_without_namespace": [(0, Rule.NAMESPACE_MISSING, f"{LIST}[0].ilmd.materialType")],
    "ObjectEvent_with_invalid_certificationInfo": [(0, Rule.TYPE, f"{LIST}[0].certificationInfo[0]")],
    "ObjectEvent_with_non_standard_bizStep": [(0, Rule.VOCABULARY, f"{LIST}[0].bizStep")],
    "ObjectEvent_with_non_standard_disposition": [(0, Rule.VOCABULARY, f"{LIST}[0].disposition")],
    "ObjectEvent_with_unknown_field_in_quantityList": [
        (0, Rule.FIELD_UNKNOWN, f"{LIST}[0].quantityList[0].weight"),
    ],
    "ObjectEvent_without_identifier_list": [(0, Rule.NO_OBJECTS, f"{LIST}[0]")],
}
# The files that break conformance test TCR-53, step 29: they may be read, and the capture interface refuses them.
TWICE = {"AssociationEvent_all_possible_fields", "ObjectEvent_all_possible_fields"}


Record = Callable[[str, object], None]


def test_every_invalid_conformance_file_is_refused_by_its_rule_at_its_place(record_property: Record) -> None:
    files = {path.stem: path for path in shared_data("epcis/invalid").glob("*.json")}
    assert files.keys() == REFUSED.keys()
    for name, path in files.items():
        parsed = read_document(path.read_bytes())
        assert not parsed.events, name
        assert [(error.index, error.rule, error.path) for error in parsed.errors] == REFUSED[name], name
    record_property("EPCIS, invalid files refused by their rule", len(files))


@pytest.mark.parametrize(("folder", "least"), [("documents", 19), ("events", 3), ("query", 5)])
def test_every_valid_conformance_file_is_accepted(folder: str, least: int, record_property: Record) -> None:
    counts: Counter[str] = Counter()
    for path in sorted(shared_data(f"epcis/{folder}").glob("*.json")):
        data = path.read_bytes()
        parsed = read_document(data, capture=False)
        assert parsed.events, path.name
        assert not parsed.errors, path.name
        captured = read_document(data)
        rules = {error.rule for error in captured.errors}
        assert rules == ({Rule.SENSOR_ATTRIBUTE_TWICE} if path.stem in TWICE else set()), path.name
        counts.update(files=1, events=len(parsed.events), refused_to_capture=len(captured.errors))
    record_property(f"EPCIS, {folder}", dict(counts))
    assert counts["files"] >= least


@pytest.mark.parametrize("kind", list(EventType))
def test_a_plain_event_of_each_type_is_read_alone_in_a_list_and_in_documents(kind: EventType) -> None:
    value = plain(kind)
    results = {"queryName": "q", "subscriptionID": "s", "resultsBody": {"eventList": [value]}}
    query = document(type="EPCISQueryDocument", epcisBody={"queryResults": results})
    read = [read_document(to_bytes(form)) for form in (value, [value], document(value), query)]
    assert [parsed.kind for parsed in read] == ["bare", "bare", "EPCISDocument", "EPCISQueryDocument"]
    assert len({parsed.events[0].type for parsed in read}) == 1
    assert all(parsed.events == read[0].events for parsed in read)
    assert read[0].events[0].type is kind
    assert (read[3].query_name, read[3].subscription_id) == ("q", "s")


def test_each_field_becomes_what_the_model_says() -> None:
    value = plain("ObjectEvent") | {
        "eventTimeZoneOffset": "-03:30",
        "quantityList": [QUANTITY, {"epcClass": "urn:x:y"}],
        "bizStep": "cbv:BizStep-commissioning",
        "disposition": "urn:epcglobal:cbv:disp:active",
        "readPoint": {"id": "urn:x:gate", "ext:lane": 2},
        "sourceList": [{"type": "https://ref.gs1.org/cbv/SDT-possessing_party", "source": "idtrace:88.118.8"}],
        "bizTransactionList": [{"bizTransaction": "urn:x:1"}, {"type": "ext:waybill", "bizTransaction": "urn:x:2"}],
        "persistentDisposition": {"set": ["recalled"], "unset": ["cbv:Disp-active"]},
        "certificationInfo": "https://example.com/c",
        "ilmd": {"cbvmda:lotNumber": "A1"},
        "errorDeclaration": {"declarationTime": "1970-01-01T08:00:00.0019+08:00", "reason": "did_not_occur"},
        "sensorElementList": [{"sensorReport": [{"exception": "gs1:ALARM_CONDITION"}], "ext:x": None}],
        "ext:shift": {"ext:name": ["night", 0.1, 10**15]},
    }
    event = read_document(to_bytes(value)).events[0]
    assert (event.action, event.offset_minutes, event.time_ms % 1000) == (Action.ADD, -210, 250)
    assert event.epcs == (ONE, OTHER)
    assert event.quantities == (
        Quantity("urn:epc:class:lgtin:4012345.012345.998877", Decimal(200), "KGM"),
        Quantity("urn:x:y"),
    )
    assert (event.biz_step, event.disposition, event.read_point) == ("commissioning", "active", "urn:x:gate")
    assert event.sources == (Typed("possessing_party", "idtrace:88.118.8"),)
    assert [entry.type for entry in event.biz_transactions] == ["", "https://ns.example.com/epcis/waybill"]
    assert (event.set_dispositions, event.unset_dispositions) == (("recalled",), ("active",))
    assert (event.certification_info, event.ilmd) == (("https://example.com/c",), {"cbvmda:lotNumber": "A1"})
    assert event.error is not None
    assert (event.error.declared_ms, event.error.reason) == (1, "did_not_occur")
    assert event.sensors[0].metadata == SensorMetadata()
    assert (event.sensors[0].reports[0].exception, event.sensors[0].extensions) == ("ALARM_CONDITION", {"ext:x": None})
    assert event.extensions == {"ext:shift": {"ext:name": ["night", Decimal("0.1"), 10**15]}}


def test_one_bad_event_does_not_sink_the_others() -> None:
    bad = plain("ObjectEvent") | {"eventTime": "yesterday"}
    parsed = read_document(to_bytes(document(plain("ObjectEvent"), bad, 7, plain("TransactionEvent"))), field="body")
    assert [isinstance(item, EventError) for item in parsed.items] == [False, True, True, False]
    assert [event.type for event in parsed.events] == ["ObjectEvent", "TransactionEvent"]
    first, second = parsed.errors
    assert (first.index, first.path, first.field) == (1, f"{LIST}[1].eventTime", f"body.{LIST}[1].eventTime")
    assert (first.rule, first.reason) == (Rule.TIME, Reason.FIELD_MALFORMED)
    assert "yesterday" in first.detail
    assert (second.index, second.rule, second.path) == (2, Rule.TYPE, f"{LIST}[2]")


OBJECT, PACKED = plain("ObjectEvent"), plain("AggregationEvent")


def sensor(report: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return OBJECT | {"sensorElementList": [{"sensorMetadata": metadata, "sensorReport": [report]}]}


AT_REPORT = "sensorElementList[0].sensorReport[0]"
NESTED: Any = "deep"
for _ in range(40):
    NESTED = {"a": NESTED}
WAYS: list[tuple[Any, Rule, str]] = [
    ({name: value for name, value in OBJECT.items() if name != "type"}, Rule.FIELD_MISSING, "type"),
    (OBJECT | {"type": "QuantityEvent"}, Rule.CHOICE, "type"),
    (OBJECT | {"type": ["ObjectEvent"]}, Rule.CHOICE, "type"),
    (OBJECT | {"action": "MOVE"}, Rule.CHOICE, "action"),
    (OBJECT | {"action": ["ADD"]}, Rule.CHOICE, "action"),
    # Times and offsets
    (OBJECT | {"eventTime": 5}, Rule.TYPE, "eventTime"),
    (OBJECT | {"eventTime": "2026-07-22T10:30:00"}, Rule.TIME, "eventTime"),
    (OBJECT | {"eventTime": "2026-02-30T10:30:00Z"}, Rule.TIME, "eventTime"),
    (OBJECT | {"eventTime": "2026-07-22T10:30:60Z"}, Rule.TIME, "eventTime"),
    (OBJECT | {"eventTime": "1899-12-31T23:59:59Z"}, Rule.TIME, "eventTime"),
    (OBJECT | {"eventTime": "9999-12-31T23:59:59-14:00"}, Rule.TIME, "eventTime"),
    (OBJECT | {"eventTime": "2026-07-22T10:30:0\u0660Z"}, Rule.TIME, "eventTime"),
    (OBJECT | {"eventTimeZoneOffset": "+14:01"}, Rule.OFFSET, "eventTimeZoneOffset"),
    (OBJECT | {"eventTimeZoneOffset": "Z"}, Rule.OFFSET, "eventTimeZoneOffset"),
    (OBJECT | {"eventTimeZoneOffset": 8}, Rule.OFFSET, "eventTimeZoneOffset"),
    (OBJECT | {"recordTime": "now"}, Rule.TIME, "recordTime"),
    # Identifiers
    (OBJECT | {"epcList": ONE}, Rule.TYPE, "epcList"),
    (OBJECT | {"epcList": [ONE, 7]}, Rule.TYPE, "epcList[1]"),
    (OBJECT | {"epcList": [ONE, "not a URI"]}, Rule.URI, "epcList[1]"),
    (OBJECT | {"epcList": [ONE, OTHER, ONE]}, Rule.TWICE, "epcList[2]"),
    (OBJECT | {"epcList": ["urn:" + "x" * URI_CHARS_MAX]}, Rule.SIZE, "epcList[0]"),
    (OBJECT | {"epcList": [f"urn:x:{n}" for n in range(LIST_MAX + 1)]}, Rule.SIZE, "epcList"),
    (OBJECT | {"eventID": "374d95fc"}, Rule.URI, "eventID"),
    (OBJECT | {"certificationInfo": {}}, Rule.TYPE, "certificationInfo"),
    (OBJECT | {"readPoint": "urn:x:gate"}, Rule.TYPE, "readPoint"),
    (OBJECT | {"readPoint": {}}, Rule.FIELD_MISSING, "readPoint.id"),
    (OBJECT | {"bizLocation": {"id": "gate"}}, Rule.URI, "bizLocation.id"),
    (OBJECT | {"bizLocation": {"id": "urn:x:y", "floor": 3}}, Rule.FIELD_UNKNOWN, "bizLocation.floor"),
    # Quantities
    (OBJECT | {"quantityList": [5]}, Rule.TYPE, "quantityList[0]"),
    (OBJECT | {"quantityList": [{"quantity": 5}]}, Rule.FIELD_MISSING, "quantityList[0].epcClass"),
    (OBJECT | {"quantityList": [QUANTITY | {"quantity": True}]}, Rule.TYPE, "quantityList[0].quantity"),
    (OBJECT | {"quantityList": [QUANTITY | {"quantity": "5"}]}, Rule.TYPE, "quantityList[0].quantity"),
    (OBJECT | {"quantityList": [QUANTITY | {"uom": "kg"}]}, Rule.UOM, "quantityList[0].uom"),
    (OBJECT | {"quantityList": [QUANTITY | {"uom": 5}]}, Rule.TYPE, "quantityList[0].uom"),
    # Vocabularies
    (OBJECT | {"bizStep": 5}, Rule.TYPE, "bizStep"),
    (OBJECT | {"bizStep": "urn:epcglobal:cbv:bizstep:transforming"}, Rule.VOCABULARY, "bizStep"),
    (OBJECT | {"bizStep": "cbv:BizStep-transforming"}, Rule.VOCABULARY, "bizStep"),
    (OBJECT | {"bizStep": "ext:has a space"}, Rule.URI, "bizStep"),
    (OBJECT | {"sourceList": [{"source": "urn:x:y"}]}, Rule.FIELD_MISSING, "sourceList[0].type"),
    (OBJECT | {"destinationList": [{"type": "location"}]}, Rule.FIELD_MISSING, "destinationList[0].destination"),
    (
        OBJECT | {"bizTransactionList": [{"type": "order", "bizTransaction": "urn:x:y"}]},
        Rule.VOCABULARY,
        "bizTransactionList[0].type",
    ),
    (OBJECT | {"persistentDisposition": {}}, Rule.EMPTY, "persistentDisposition"),
    (OBJECT | {"persistentDisposition": {"set": []}}, Rule.EMPTY, "persistentDisposition.set"),
    (OBJECT | {"persistentDisposition": {"keep": []}}, Rule.FIELD_UNKNOWN, "persistentDisposition.keep"),
    (
        OBJECT | {"persistentDisposition": {"unset": ["recalled", "cbv:Disp-recalled"]}},
        Rule.TWICE,
        "persistentDisposition.unset[1]",
    ),
    # Error declarations
    (OBJECT | {"errorDeclaration": {}}, Rule.FIELD_MISSING, "errorDeclaration.declarationTime"),
    (
        OBJECT | {"errorDeclaration": {"declarationTime": "2026-07-22T10:30:00Z", "reason": "oops"}},
        Rule.VOCABULARY,
        "errorDeclaration.reason",
    ),
    (
        OBJECT | {"errorDeclaration": {"declarationTime": "2026-07-22T10:30:00Z", "why": "oops"}},
        Rule.FIELD_UNKNOWN,
        "errorDeclaration.why",
    ),
    # Sensors
    (OBJECT | {"sensorElementList": [{}]}, Rule.FIELD_MISSING, "sensorElementList[0].sensorReport"),
    (OBJECT | {"sensorElementList": [{"sensorReport": []}]}, Rule.EMPTY, "sensorElementList[0].sensorReport"),
    (OBJECT | {"sensorElementList": [SENSOR | {"x": 1}]}, Rule.FIELD_UNKNOWN, "sensorElementList[0].x"),
    (sensor({"value": 5}), Rule.SENSOR_REPORT_EMPTY, AT_REPORT),
    (sensor(REPORT | {"uom": "KGM"}), Rule.UOM, f"{AT_REPORT}.uom"),
    (sensor(REPORT | {"uom": "ZZZ"}), Rule.UOM, f"{AT_REPORT}.uom"),
    (sensor({"type": "Length", "uom": "KGM"}), Rule.UOM, f"{AT_REPORT}.uom"),
    (sensor(REPORT | {"type": "Warmth"}), Rule.VOCABULARY, f"{AT_REPORT}.type"),
    (sensor(REPORT | {"exception": "ON_FIRE"}), Rule.VOCABULARY, f"{AT_REPORT}.exception"),
    (sensor(REPORT | {"component": "w"}), Rule.VOCABULARY, f"{AT_REPORT}.component"),
    (sensor(REPORT | {"booleanValue": 1}), Rule.TYPE, f"{AT_REPORT}.booleanValue"),
    (sensor(REPORT | {"hexBinaryValue": "abc"}), Rule.HEX, f"{AT_REPORT}.hexBinaryValue"),
    (sensor(REPORT | {"stringValue": "x" * (TEXT_CHARS_MAX + 1)}), Rule.SIZE, f"{AT_REPORT}.stringValue"),
    (sensor(REPORT | {"stringValue": 5}), Rule.TYPE, f"{AT_REPORT}.stringValue"),
    (sensor(REPORT, startTime="noon"), Rule.TIME, "sensorElementList[0].sensorMetadata.startTime"),
    (sensor(REPORT, place="roof"), Rule.FIELD_UNKNOWN, "sensorElementList[0].sensorMetadata.place"),
    *(
        (sensor(REPORT | {name: value}, **{name: value}), Rule.SENSOR_ATTRIBUTE_TWICE, f"{AT_REPORT}.{name}")
        for name, value in (
            ("time", "2026-07-22T10:30:00Z"),
            *((name, "urn:x:y") for name in ("deviceID", "deviceMetadata", "rawData", "dataProcessingMethod")),
        )
    ),
    # Master data and fields of others
    (OBJECT | {"ilmd": {"lot": "A1"}}, Rule.NAMESPACE_MISSING, "ilmd.lot"),
    (OBJECT | {"ilmd": {"cbvmda:lotNumber": "A1"}, "action": "OBSERVE"}, Rule.ILMD_NOT_ALLOWED, "ilmd"),
    (PACKED | {"ilmd": {"cbvmda:lotNumber": "A1"}}, Rule.FIELD_OF_OTHER_EVENT, "ilmd"),
    (OBJECT | {"shift": "night"}, Rule.FIELD_UNKNOWN, "shift"),
    (OBJECT | {"nobody:shift": "night"}, Rule.PREFIX_UNDECLARED, "nobody:shift"),
    (OBJECT | {"ext:": "night"}, Rule.FIELD_UNKNOWN, "ext:"),
    (OBJECT | {"a\nb": 1}, Rule.FIELD_UNKNOWN, "['a\\nb']"),
    (OBJECT | {"ext:a": [{"b": {"nobody:c": 1}}]}, Rule.PREFIX_UNDECLARED, "ext:a[0].b.nobody:c"),
    (OBJECT | {"ext:a": {"@context": {"ext": "urn:other"}}}, Rule.CONTEXT_MALFORMED, "ext:a.@context"),
    (OBJECT | {"ext:a": NESTED}, Rule.NESTING, "ext:a" + ".a" * 32),
    # What a type has, must have, and must not have
    (OBJECT | {"parentID": BOX}, Rule.FIELD_OF_OTHER_EVENT, "parentID"),
    (PACKED | {"epcList": [ONE]}, Rule.FIELD_OF_OTHER_EVENT, "epcList"),
    (plain("TransformationEvent") | {"action": "ADD"}, Rule.FIELD_OF_OTHER_EVENT, "action"),
    (OBJECT | {"epcList": []}, Rule.NO_OBJECTS, ""),
    (OBJECT | {"epcList": [], "sensorElementList": [SENSOR]}, Rule.NO_OBJECTS, ""),
    (PACKED | {"childEPCs": []}, Rule.NO_OBJECTS, ""),
    ({name: value for name, value in PACKED.items() if name != "parentID"}, Rule.PARENT_MISSING, "parentID"),
    (
        {name: value for name, value in plain("AssociationEvent").items() if name != "parentID"},
        Rule.FIELD_MISSING,
        "parentID",
    ),
    (plain("TransactionEvent") | {"bizTransactionList": []}, Rule.EMPTY, "bizTransactionList"),
    (plain("TransactionEvent") | {"epcList": []}, Rule.NO_OBJECTS, ""),
    (PACKED | {"childEPCs": [ONE, ONE]}, Rule.TWICE, "childEPCs[1]"),
    (plain("TransformationEvent") | {"inputEPCList": []}, Rule.NO_OBJECTS, ""),
    (
        plain("TransformationEvent") | {"inputEPCList": [], "outputQuantityList": [], "transformationID": "urn:x:t"},
        Rule.NO_OBJECTS,
        "",
    ),
]


@pytest.mark.parametrize(("value", "rule", "path"), WAYS)
def test_a_breach_is_named_by_its_rule_at_its_place(value: Any, rule: Rule, path: str) -> None:
    (error,) = read_document(to_bytes(value)).errors
    assert (error.index, error.rule, error.path) == (0, rule, path)
    assert error.field == f"document.{path}".strip(".")
    assert error.detail.startswith(f"{rule}: ")


@pytest.mark.parametrize(
    "value",
    [
        PACKED | {"action": "DELETE", "childEPCs": []},
        {name: value for name, value in PACKED.items() if name != "parentID"} | {"action": "OBSERVE"},
        plain("TransactionEvent") | {"epcList": [], "action": "DELETE"},
        plain("TransactionEvent") | {"epcList": [], "parentID": BOX},
        OBJECT | {"epcList": [], "sensorElementList": [SENSOR], "readPoint": {"id": "urn:x:y"}},
        plain("TransformationEvent") | {"inputEPCList": [], "transformationID": "urn:x:t"},
        plain("TransformationEvent") | {"ilmd": {"cbvmda:lotNumber": "A1"}},
        sensor({"type": "ext:Shock", "uom": "KGM"}),
        sensor({"type": "Length", "uom": "ZZZ"}),
        OBJECT | {"urn:example:name": 1, "https://a.example/b": 2, "idtrace:doses": 3, "rdfs:comment": "4"},
    ],
)
def test_what_the_standard_allows_is_accepted(value: dict[str, Any]) -> None:
    parsed = read_document(to_bytes(value))
    assert not parsed.errors
    assert len(parsed.events) == 1


QUERY = {"queryResults": {"queryName": "q", "resultsBody": {"eventList": []}}}


def query(**fields: Any) -> dict[str, Any]:
    return {"@context": CONTEXT, "type": "EPCISQueryDocument", "epcisBody": QUERY} | fields


def without(value: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: inner for key, inner in value.items() if key != name}


@pytest.mark.parametrize(
    ("value", "rule", "path"),
    [
        (7, Rule.TYPE, ""),
        (without(document(), "@context"), Rule.CONTEXT_MISSING, "@context"),
        (without(document(), "schemaVersion"), Rule.FIELD_MISSING, "schemaVersion"),
        (document(schemaVersion="1.2"), Rule.SCHEMA_VERSION, "schemaVersion"),
        (document(schemaVersion=2), Rule.SCHEMA_VERSION, "schemaVersion"),
        (without(document(), "creationDate"), Rule.FIELD_MISSING, "creationDate"),
        (document(creationDate="today"), Rule.TIME, "creationDate"),
        (document(sender=5), Rule.TYPE, "sender"),
        (document(epcisHeader=[]), Rule.TYPE, "epcisHeader"),
        (document(epcisHeader=NESTED), Rule.NESTING, "epcisHeader" + ".a" * 33),
        (document(owner="me"), Rule.FIELD_UNKNOWN, "owner"),
        (without(document(), "epcisBody"), Rule.FIELD_MISSING, "epcisBody"),
        (document(epcisBody=[]), Rule.TYPE, "epcisBody"),
        (document(epcisBody={}), Rule.FIELD_MISSING, LIST),
        (document(epcisBody={"eventList": {}}), Rule.TYPE, LIST),
        (document(epcisBody={"eventList": [], "more": 1}), Rule.FIELD_UNKNOWN, "epcisBody.more"),
        (document(epcisBody={"eventList": [], "x:y": 1}), Rule.PREFIX_UNDECLARED, "epcisBody.x:y"),
        (document(*[1] * (EVENTS_MAX + 1)), Rule.SIZE, LIST),
        (query(epcisBody={}), Rule.FIELD_MISSING, "epcisBody.queryResults"),
        (
            query(epcisBody={"queryResults": {"resultsBody": {"eventList": []}}}),
            Rule.FIELD_MISSING,
            "epcisBody.queryResults.queryName",
        ),
        (
            query(epcisBody={"queryResults": {"queryName": 5, "resultsBody": {"eventList": []}}}),
            Rule.TYPE,
            "epcisBody.queryResults.queryName",
        ),
        (
            query(epcisBody={"queryResults": {"queryName": "q", "resultsBody": {}}}),
            Rule.FIELD_MISSING,
            "epcisBody.queryResults.resultsBody.eventList",
        ),
    ],
)
def test_a_document_that_is_broken_as_a_whole_is_refused(value: Any, rule: Rule, path: str) -> None:
    with pytest.raises(DocumentError) as refused:
        read_document(to_bytes(value), field="body")
    assert (refused.value.rule, refused.value.path) == (rule, path)
    assert refused.value.field == f"body.{path}".strip(".")
    assert isinstance(refused.value, InputError)


def test_a_header_is_kept_and_a_query_document_need_not_say_when_it_was_made() -> None:
    fields: dict[str, Any] = {
        "sender": "urn:x:s",
        "id": "urn:x:d",
        "epcisHeader": {"epcisMasterData": {"vocabularyList": []}},
        "https://a.example/b": [1],
    }
    parsed = read_document(to_bytes(document(**fields, **{"@context": CONTEXT})))
    assert parsed.header == fields
    assert (parsed.schema_version, parsed.context) == ("2.0", CONTEXT)
    told: Parsed = read_document(to_bytes(query()))
    assert (told.kind, told.items, told.created_ms, told.schema_version) == (DocumentKind.QUERY, (), None, "")


# What JSON can hide: the mark stands in its event, and the event beside it is read.
GOOD = json.dumps(plain("ObjectEvent")).encode()


@pytest.mark.parametrize(
    ("field", "rule", "path"),
    [
        (b'"action": "ADD", "action": "DELETE"', Rule.DUPLICATE_KEY, "action"),
        (b'"ext:a": {"b": [{"c": 1, "c": 2}]}', Rule.DUPLICATE_KEY, "ext:a.b[0].c"),
        (b'"ext:a": NaN', Rule.NUMBER, "ext:a"),
        (b'"ext:a": -Infinity', Rule.NUMBER, "ext:a"),
        (b'"ext:a": 1e400', Rule.NUMBER, "ext:a"),
        (b'"ext:a": 1e-400', Rule.NUMBER, "ext:a"),
        (b'"ext:a": 1e99999999999999999999', Rule.NUMBER, "ext:a"),
        (b'"ext:a": 0.1000000000000000055511151231257827', Rule.NUMBER, "ext:a"),
        (b'"ext:a": 9007199254740992', Rule.NUMBER, "ext:a"),
        (b'"ext:a": 1e300', Rule.NUMBER, "ext:a"),
        (b'"ext:a": 1' + b"0" * 5_000, Rule.NUMBER, "ext:a"),
        (b'"ext:a": "\\ud800"', Rule.SURROGATE, "ext:a"),
        (b'"ext:a": {"\\udFff": 1}', Rule.SURROGATE, "ext:a['\\udfff']"),
        (b'"ext:a": {"b": NaN, "c": ' + b"[" * 40 + b"]" * 40 + b"}", Rule.NUMBER, "ext:a.b"),
        (b'"ext:a": ' + b"[" * 40 + b"NaN" + b"]" * 40, Rule.NESTING, "ext:a" + "[0]" * 32),
    ],
)
def test_what_two_readers_could_read_as_two_things_is_refused(field: bytes, rule: Rule, path: str) -> None:
    bad = GOOD[:-1] + b", " + field + b"}"
    parsed = read_document(b"[" + GOOD + b"," + bad + b"]")
    assert len(parsed.events) == 1
    assert [(error.index, error.rule, error.path) for error in parsed.errors] == [(1, rule, f"[1].{path}")]


@pytest.mark.parametrize(
    ("text", "number"),
    [("26.0", 26), ("-0.0", 0), ("1e3", 1000), ("0.1", Decimal("0.1")), ("1e-300", Decimal("1e-300"))],
)
def test_a_number_is_what_it_says(text: str, number: object) -> None:
    parsed = read_document(GOOD[:-1] + b', "ext:a": ' + text.encode() + b', "ext:b": "\\ud83d\\ude00"}')
    assert parsed.events[0].extensions == {"ext:a": number, "ext:b": "😀"}


@pytest.mark.parametrize(
    ("data", "rule", "path"),
    [
        (b"", Rule.JSON, ""),
        (b"{", Rule.JSON, ""),
        (b"\xef\xbb\xbf{}", Rule.JSON, ""),
        (b'{"a": "\xff"}', Rule.JSON, ""),
        (b"[" * 100_000, Rule.NESTING, ""),
        (b" " * (DOCUMENT_BYTES_MAX + 1), Rule.SIZE, ""),
        (to_bytes(document())[:-1] + b', "sender": NaN}', Rule.NUMBER, "sender"),
        (
            to_bytes(document()).replace(b'"eventList": []', b'"eventList": [], "eventList": []'),
            Rule.DUPLICATE_KEY,
            LIST,
        ),
        (
            to_bytes(query()).replace(b'"queryName": "q"', b'"queryName": "q", "queryName": "r"'),
            Rule.DUPLICATE_KEY,
            "epcisBody.queryResults.queryName",
        ),
        (to_bytes(document()).replace(b'"eventList": []', b'"eventList": {"\\ud83d\\ude00": 1}'), Rule.TYPE, LIST),
        (to_bytes(document()).replace(b'{"eventList": []}', b'"\\ud800"'), Rule.SURROGATE, "epcisBody"),
        (to_bytes(document()).replace(b'{"eventList": []}', b'["\\ud83d\\ude00"]'), Rule.TYPE, "epcisBody"),
    ],
)
def test_what_is_not_json_for_everybody_is_refused_as_a_whole(data: bytes, rule: Rule, path: str) -> None:
    with pytest.raises(DocumentError) as refused:
        read_document(data)
    assert (refused.value.rule, refused.value.path) == (rule, path)

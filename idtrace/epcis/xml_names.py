"""Names of the XML binding: which element and attribute is which field of the JSON-LD form, and their order.

Source: EPCIS 2.0 Annex, EPCglobal-epcis-2_0.xsd and EPCglobal-epcis-query-2_0.xsd; version 1.2 has the same names, some
of them inside ``extension`` and ``baseExtension``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from idtrace.epcis.model import EventType

EPCIS_NAMESPACE: Final = "urn:epcglobal:epcis:xsd:2"
QUERY_NAMESPACE: Final = "urn:epcglobal:epcis-query:xsd:2"
HEADER_NAMESPACE: Final = "http://www.unece.org/cefact/namespaces/StandardBusinessDocumentHeader"
EPCIS_NAMESPACES: Final = frozenset({EPCIS_NAMESPACE, "urn:epcglobal:epcis:xsd:1"})
QUERY_NAMESPACES: Final = frozenset({QUERY_NAMESPACE, "urn:epcglobal:epcis-query:xsd:1"})
INSTANCE_NAMESPACE: Final = "http://www.w3.org/2001/XMLSchema-instance"
# Of the binding itself: no field of anybody's has them.
STRUCTURAL: Final = (
    EPCIS_NAMESPACES
    | QUERY_NAMESPACES
    | {
        HEADER_NAMESPACE,
        INSTANCE_NAMESPACE,
        "http://www.w3.org/2001/XMLSchema",
        "http://www.w3.org/XML/1998/namespace",
        "urn:epcglobal:xsd:1",
    }
)
# CBV 2.0 section 9: the namespace of master data ends in a colon in JSON-LD, and does not in XML.
MASTER_DATA: Final = "urn:epcglobal:cbv:mda:"
MASTER_DATA_XML: Final = "urn:epcglobal:cbv:mda"
# Of fields that idtrace adds: a scheme of its own, which needs no declaration in JSON-LD.
OWN_NAMESPACE: Final = "idtrace:"

_FIRST: Final = ("eventTime", "recordTime", "eventTimeZoneOffset", "eventID", "errorDeclaration", "certificationInfo")
_WHAT_WHERE: Final = ("bizStep", "disposition", "readPoint", "bizLocation")
_LAST: Final = ("sourceList", "destinationList", "sensorElementList", "persistentDisposition")
# The schema's order of the elements of each type.
ORDER: Final[Mapping[EventType, tuple[str, ...]]] = MappingProxyType(
    {
        EventType.OBJECT: (
            *_FIRST,
            *("epcList", "action"),
            *_WHAT_WHERE,
            *("bizTransactionList", "quantityList"),
            *_LAST,
            "ilmd",
        ),
        EventType.AGGREGATION: (
            *_FIRST,
            *("parentID", "childEPCs", "action"),
            *_WHAT_WHERE,
            *("bizTransactionList", "childQuantityList"),
            *_LAST,
        ),
        EventType.ASSOCIATION: (
            *_FIRST,
            *("parentID", "childEPCs", "childQuantityList", "action"),
            *_WHAT_WHERE,
            "bizTransactionList",
            *_LAST,
        ),
        EventType.TRANSACTION: (
            *_FIRST,
            *("bizTransactionList", "parentID", "epcList", "action"),
            *_WHAT_WHERE,
            "quantityList",
            *_LAST,
        ),
        EventType.TRANSFORMATION: (
            *_FIRST,
            *("inputEPCList", "inputQuantityList", "outputEPCList", "outputQuantityList", "transformationID"),
            *_WHAT_WHERE,
            "bizTransactionList",
            *_LAST,
            "ilmd",
        ),
    }
)
TEXTS: Final = frozenset(
    {
        *("eventTime", "recordTime", "eventTimeZoneOffset", "eventID", "certificationInfo", "action", "bizStep"),
        *("disposition", "parentID", "transformationID"),
    }
)
EPC_LISTS: Final = frozenset({"epcList", "childEPCs", "inputEPCList", "outputEPCList"})
QUANTITY_LISTS: Final = frozenset({"quantityList", "childQuantityList", "inputQuantityList", "outputQuantityList"})
TYPED_LISTS: Final[Mapping[str, str]] = MappingProxyType(
    {"bizTransactionList": "bizTransaction", "sourceList": "source", "destinationList": "destination"}
)
SENSOR_METADATA: Final = frozenset(
    {
        *("time", "startTime", "endTime", "deviceID", "deviceMetadata", "rawData", "dataProcessingMethod"),
        "bizRules",
    }
)
SENSOR_NUMBERS: Final = frozenset(
    {"value", "minValue", "maxValue", "meanValue", "sDev", "percRank", "percValue"},
)
SENSOR_REPORT: Final = SENSOR_NUMBERS | {
    *("type", "exception", "time", "deviceID", "deviceMetadata", "rawData", "dataProcessingMethod", "bizRules"),
    *("microorganism", "chemicalSubstance", "component", "stringValue", "booleanValue", "hexBinaryValue", "uriValue"),
    *("uom", "coordinateReferenceSystem"),
}

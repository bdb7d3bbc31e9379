"""Sensor elements out of parsed JSON (EPCIS 2.0, section 7.3.7)."""

from __future__ import annotations

from functools import partial
from typing import Final

from idtrace.epcis import values
from idtrace.epcis.context import Context
from idtrace.epcis.measures import require_measures, require_uom
from idtrace.epcis.model import NOTHING, Json, SensorElement, SensorMetadata, SensorReport
from idtrace.epcis.rules import Fault, Rule
from idtrace.epcis.values import Readers
from idtrace.epcis.vocabulary import COMPONENT, MEASUREMENT, SENSOR_EXCEPTION

METADATA_FIELDS: Final[Readers] = {
    "time": ("time_ms", values.time_ms),
    "startTime": ("start_ms", values.time_ms),
    "endTime": ("end_ms", values.time_ms),
    "deviceID": ("device_id", values.uri),
    "deviceMetadata": ("device_metadata", values.uri),
    "rawData": ("raw_data", values.uri),
    "dataProcessingMethod": ("data_processing_method", values.uri),
    "bizRules": ("biz_rules", values.uri),
}
REPORT_FIELDS: Final[Readers] = {
    "type": ("type", MEASUREMENT.read),
    "exception": ("exception", SENSOR_EXCEPTION.read),
    "time": ("time_ms", values.time_ms),
    "deviceID": ("device_id", values.uri),
    "deviceMetadata": ("device_metadata", values.uri),
    "rawData": ("raw_data", values.uri),
    "dataProcessingMethod": ("data_processing_method", values.uri),
    "bizRules": ("biz_rules", values.uri),
    "value": ("value", values.number),
    "component": ("component", COMPONENT.read),
    "stringValue": ("string_value", values.text),
    "booleanValue": ("boolean_value", values.boolean),
    "hexBinaryValue": ("hex_binary_value", values.hex_text),
    "uriValue": ("uri_value", values.uri),
    "minValue": ("min_value", values.number),
    "maxValue": ("max_value", values.number),
    "meanValue": ("mean_value", values.number),
    "sDev": ("s_dev", values.number),
    "percRank": ("perc_rank", values.number),
    "percValue": ("perc_value", values.number),
    "uom": ("uom", require_uom),
    "microorganism": ("microorganism", values.uri),
    "chemicalSubstance": ("chemical_substance", values.uri),
    "coordinateReferenceSystem": ("coordinate_reference_system", values.uri),
}
# What may stand with all reports or with one, and in a captured document not with both (TCR-53, step 29): a reading
# with two times could be judged by either.
SHARED: Final = ("time", "deviceID", "deviceMetadata", "rawData", "dataProcessingMethod", "bizRules")


def read_sensors(value: Json, context: Context, *, twice: bool) -> tuple[SensorElement, ...]:
    """The elements of a ``sensorElementList``; ``twice`` allows an attribute in the metadata and in a report as well.

    Raises:
        Fault: with the path within the list.
    """
    return values.listed(value, partial(_element, twice=twice), context)


def _metadata(value: Json, context: Context) -> SensorMetadata:
    return SensorMetadata(**values.read_fields(values.members(value), METADATA_FIELDS, context))


def _element(value: Json, context: Context, *, twice: bool) -> SensorElement:
    fields = values.members(value)
    metadata = SensorMetadata()
    shared: tuple[str, ...] = ()
    if "sensorMetadata" in fields:
        metadata = values.member(fields, "sensorMetadata", _metadata, context)
        shared = () if twice else tuple(name for name in SHARED if name in fields["sensorMetadata"])
    reports = values.member(fields, "sensorReport", partial(_reports, shared=shared), context)
    extensions = {
        name: values.foreign(name, inner, context)
        for name, inner in fields.items()
        if name not in {"sensorMetadata", "sensorReport"}
    }
    return SensorElement(metadata, reports, extensions or NOTHING)


def _reports(value: Json, context: Context, *, shared: tuple[str, ...]) -> tuple[SensorReport, ...]:
    reports = values.listed(value, partial(_report, shared=shared), context)
    if not reports:
        raise Fault(Rule.EMPTY, "a sensor element has at least one report")
    return reports


def _report(value: Json, context: Context, *, shared: tuple[str, ...]) -> SensorReport:
    fields = values.members(value)
    for name in shared:
        if name in fields:
            sentence = f"{name} stands in sensorMetadata as well: one of them says it"
            raise Fault(Rule.SENSOR_ATTRIBUTE_TWICE, sentence, name)
    report = SensorReport(**values.read_fields(fields, REPORT_FIELDS, context))
    if not report.type and not report.exception:
        raise Fault(Rule.SENSOR_REPORT_EMPTY, "a sensor report has a type or an exception")
    if report.uom:
        require_measures(report.type, report.uom)
    return report

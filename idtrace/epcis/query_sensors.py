"""Conditions on sensor elements (EPCIS 2.0, section 8.2.7.1): what was measured, by what, when, and how much.

Each condition looks at all reports of an event by itself. A value is compared in the unit that the parameter names:
``GE_value_CEL=8`` finds 46.4 FAH as well, and no pressure. An attribute of the metadata counts for each of its reports.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Final

from idtrace.coldchain.units import UNITS, comparable, convert, require_number
from idtrace.epcis.model import Event, SensorMetadata, SensorReport
from idtrace.epcis.query_values import COMPARISONS, Asked, Judge
from idtrace.epcis.uris import key
from idtrace.epcis.vocabulary import COMPONENT, MEASUREMENT, SENSOR_EXCEPTION, Vocabulary
from idtrace.errors import InputError

_MEASURED: Final = re.compile(r"(value|minValue|maxValue|meanValue|sDev|percValue)_([A-Z0-9]{2,3})\Z")
_ATTRIBUTES: Final[Mapping[str, str]] = {
    "value": "value",
    "minValue": "min_value",
    "maxValue": "max_value",
    "meanValue": "mean_value",
    "sDev": "s_dev",
    "percValue": "perc_value",
}
# Texts and URIs by the names of EPCIS: the attribute of the model, which of metadata and reports may have it.
_BOTH: Final = {
    "deviceID": "device_id",
    "deviceMetadata": "device_metadata",
    "rawData": "raw_data",
    "dataProcessingMethod": "data_processing_method",
    "bizRules": "biz_rules",
}
_OF_REPORT: Final = {
    "microorganism": "microorganism",
    "chemicalSubstance": "chemical_substance",
    "coordinateReferenceSystem": "coordinate_reference_system",
    "uriValue": "uri_value",
}
_PLAIN: Final = {"stringValue": "string_value", "hexBinaryValue": "hex_binary_value"}
_WORDS: Final[Mapping[str, tuple[str, Vocabulary]]] = {
    "type": ("type", MEASUREMENT),
    "component": ("component", COMPONENT),
    "exception": ("exception", SENSOR_EXCEPTION),
}
_TIMES: Final = {"time": "time_ms", "startTime": "start_ms", "endTime": "end_ms"}
_METADATA: Final = "SENSORMETADATA_"
_REPORT: Final = "SENSORREPORT_"


def sensor_judge(comparison: str, rest: str, asked: Asked) -> Judge | None:
    """The judge of a parameter ``COMPARISON_REST`` on the standard's sensor fields, None where it names none of them.

    Raises:
        InputError: FIELD_MALFORMED, FIELD_TOO_LARGE.
    """
    if (measured := _MEASURED.match(rest)) is not None:
        return _quantities(comparison, _ATTRIBUTES[measured[1]], measured[2], asked)
    if rest == "percRank":
        return _ranks(comparison, asked)
    name = rest.removeprefix(_METADATA).removeprefix(_REPORT)
    where = {"metadata": not rest.startswith(_REPORT), "report": not rest.startswith(_METADATA)}
    if name in _TIMES and comparison in {"GE", "LT"}:
        return _times(comparison, name, asked, **where)
    if name in _BOTH and comparison == "EQ":
        return _uris(_BOTH[name], asked, **where)
    return _of_reports(name, asked) if where["report"] and comparison == "EQ" else None


def _of_reports(name: str, asked: Asked) -> Judge | None:
    if name in _OF_REPORT:
        return _uris(_OF_REPORT[name], asked, metadata=False, report=True)
    if name in _PLAIN:
        attribute, texts = _PLAIN[name], frozenset(asked.texts())
        if name == "hexBinaryValue":  # 0A and 0a are the same bytes
            texts = frozenset(text.upper() for text in texts)
            return Judge(lambda event, _: any((text or "").upper() in texts for text in _texts(event, attribute)))
        return Judge(lambda event, _: any(text in texts for text in _texts(event, attribute)))
    if name == "booleanValue":
        wanted = asked.boolean()
        return Judge(lambda event, _: any(report.boolean_value is wanted for report in _reports(event)))
    if name in _WORDS:
        attribute, vocabulary = _WORDS[name]
        words = asked.words(vocabulary)
        return Judge(lambda event, _: any(text in words for text in _texts(event, attribute)))
    return None


def _reports(event: Event) -> Iterator[SensorReport]:
    for element in event.sensors:
        yield from element.reports


def _texts(event: Event, attribute: str) -> Iterator[str | None]:
    return (getattr(report, attribute) for report in _reports(event))


def _holders(event: Event, *, metadata: bool, report: bool) -> Iterator[SensorMetadata | SensorReport]:
    for element in event.sensors:
        if metadata:
            yield element.metadata
        if report:
            yield from element.reports


def _uris(attribute: str, asked: Asked, *, metadata: bool, report: bool) -> Judge:
    keys = frozenset(key(text) for text in asked.texts())

    def test(event: Event, _: int) -> bool:
        found = (getattr(one, attribute) for one in _holders(event, metadata=metadata, report=report))
        return any(key(uri) in keys for uri in found if uri)

    return Judge(test, keys if attribute == "device_id" else frozenset())


def _times(comparison: str, name: str, asked: Asked, *, metadata: bool, report: bool) -> Judge | None:
    report = report and name == "time"  # a report has no window of its own
    if not (metadata or report):
        return None
    attribute, compare, bound = _TIMES[name], COMPARISONS[comparison], asked.time_ms()

    def test(event: Event, _: int) -> bool:
        found = (getattr(one, attribute) for one in _holders(event, metadata=metadata, report=report))
        return any(compare(time_ms, bound) for time_ms in found if time_ms is not None)

    return Judge(test)


def _bounds(comparison: str, asked: Asked) -> tuple[Decimal, ...]:
    """Alternatives of EQ, and the one bound of the others."""
    if comparison != "EQ":
        asked.one()
    return asked.numbers()


def _quantities(comparison: str, attribute: str, uom: str, asked: Asked) -> Judge:
    compare, bounds = COMPARISONS[comparison], _bounds(comparison, asked)

    def test(event: Event, _: int) -> bool:
        found = (
            in_unit(value, report.uom, uom, spread=attribute == "s_dev")
            for report in _reports(event)
            if (value := getattr(report, attribute)) is not None
        )
        return any(compare(value, bound) for value in found if value is not None for bound in bounds)

    return Judge(test)


def _ranks(comparison: str, asked: Asked) -> Judge:
    compare, bounds = COMPARISONS[comparison], _bounds(comparison, asked)

    def test(event: Event, _: int) -> bool:
        ranks = (report.perc_rank for report in _reports(event))
        return any(compare(rank, bound) for rank in ranks if rank is not None for bound in bounds)

    return Judge(test)


def quantity_judge(comparison: str, uom: str, asked: Asked) -> Judge:
    """The judge of ``COMPARISON_quantity``: some of a class; ``uom`` "" compares the number whatever its unit."""
    compare, bounds = COMPARISONS[comparison], _bounds(comparison, asked)

    def test(event: Event, _: int) -> bool:
        listed = (*event.quantities, *event.child_quantities, *event.input_quantities, *event.output_quantities)
        known = ((one.quantity, one.uom) for one in listed if one.quantity is not None)
        found = (in_unit(value, unit, uom) if uom else value for value, unit in known)
        return any(compare(value, bound) for value in found if value is not None for bound in bounds)

    return Judge(test)


def in_unit(value: Decimal, uom: str, wanted: str, *, spread: bool = False) -> Decimal | None:
    """A value in the wanted unit, None where it cannot be had in it.

    A ``spread`` is a difference of two values, which knows no zero point: 1 K of it is 1 °C.
    """
    if not uom or not comparable(uom, wanted):
        return None
    try:
        if not spread or uom == wanted:
            return convert(value, uom, wanted)
        exact = Fraction(require_number(value)) * UNITS[uom].factor / UNITS[wanted].factor
    except InputError:
        return None
    return Decimal(exact.numerator) / Decimal(exact.denominator)

"""EPCIS 2.0 events as values: what the JSON and the XML binding both become.

One class for all five types (GS1 EPCIS 2.0, section 7.4): which fields a type has, must have and must not have is the
parser's business (``idtrace/epcis/parse.py``). Times are UTC milliseconds since the Unix epoch; a finer fraction than
that is kept in ``raw`` alone. URIs stand as they were given; :mod:`idtrace.epcis.uris` says which mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

# A parsed JSON value; numbers as int or Decimal, so that nothing is rounded on the way.
Json = Any
NOTHING: Final[Mapping[str, Json]] = MappingProxyType({})


def _nothing() -> Mapping[str, Json]:
    return NOTHING


class EventType(StrEnum):
    """The five types, with their names in JSON and XML."""

    OBJECT = "ObjectEvent"
    AGGREGATION = "AggregationEvent"
    ASSOCIATION = "AssociationEvent"
    TRANSACTION = "TransactionEvent"
    TRANSFORMATION = "TransformationEvent"


class Action(StrEnum):
    """What an event does to the life or the grouping of its objects; a transformation has none."""

    ADD = "ADD"
    OBSERVE = "OBSERVE"
    DELETE = "DELETE"


@dataclass(frozen=True, slots=True)
class Quantity:
    """Some of a class; without ``uom`` a count of things, without ``quantity`` an unknown amount."""

    epc_class: str
    quantity: Decimal | None = None
    uom: str = ""


@dataclass(frozen=True, slots=True)
class Typed:
    """A business transaction, source or destination: its type ("" for none given) and its URI."""

    type: str
    id: str


@dataclass(frozen=True, slots=True)
class SensorMetadata:
    """What holds for all reports of a sensor element (section 7.3.7.1)."""

    time_ms: int | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    device_id: str = ""
    device_metadata: str = ""
    raw_data: str = ""
    data_processing_method: str = ""
    biz_rules: str = ""
    extensions: Mapping[str, Json] = field(default_factory=_nothing)


@dataclass(frozen=True, slots=True)
class SensorReport:
    """One observation (section 7.3.7.2). ``type`` is a bare CBV word ("Temperature") or a URI; numbers are exact."""

    type: str = ""
    exception: str = ""
    time_ms: int | None = None
    device_id: str = ""
    device_metadata: str = ""
    raw_data: str = ""
    data_processing_method: str = ""
    biz_rules: str = ""
    value: Decimal | None = None
    component: str = ""
    string_value: str | None = None
    boolean_value: bool | None = None
    hex_binary_value: str | None = None
    uri_value: str | None = None
    min_value: Decimal | None = None
    max_value: Decimal | None = None
    mean_value: Decimal | None = None
    s_dev: Decimal | None = None
    perc_rank: Decimal | None = None
    perc_value: Decimal | None = None
    uom: str = ""
    microorganism: str = ""
    chemical_substance: str = ""
    coordinate_reference_system: str = ""
    extensions: Mapping[str, Json] = field(default_factory=_nothing)


@dataclass(frozen=True, slots=True)
class SensorElement:
    """Reports with what they share."""

    metadata: SensorMetadata
    reports: tuple[SensorReport, ...]
    extensions: Mapping[str, Json] = field(default_factory=_nothing)


@dataclass(frozen=True, slots=True)
class ErrorDeclaration:
    """The reporter's word that an earlier event is wrong (section 7.4.1.3): it is void from ``declared_ms`` on."""

    declared_ms: int
    reason: str = ""
    corrective_event_ids: tuple[str, ...] = ()
    extensions: Mapping[str, Json] = field(default_factory=_nothing)


@dataclass(frozen=True, slots=True)
class Event:
    """One event, parsed and checked.

    Attributes:
        type, action: which of the five, and what it does (None for a transformation).
        time_ms, offset_minutes: when it happened (UTC), and the local time's offset there.
        event_id: as given, "" for none; never what idtrace identifies an event by.
        epcs, quantities: of object and transaction events.
        parent: of aggregation, association and transaction events, "" for none.
        children, child_quantities: of aggregation and association events.
        inputs, input_quantities, outputs, output_quantities, transformation_id: of transformation events.
        biz_step, disposition: a bare CBV word, or the URI of somebody else's vocabulary.
        set_dispositions, unset_dispositions: persistent ones.
        read_point, biz_location: URIs, "" for none.
        ilmd: master data of what was made, by name as it stands in the event.
        extensions: fields of other namespaces on the event itself, by name as they stand in the event.
        raw: the event as parsed JSON with the ``@context`` that it was read in, from which it can be written again.
    """

    type: EventType
    action: Action | None
    time_ms: int
    offset_minutes: int
    event_id: str = ""
    record_time_ms: int | None = None
    epcs: tuple[str, ...] = ()
    quantities: tuple[Quantity, ...] = ()
    parent: str = ""
    children: tuple[str, ...] = ()
    child_quantities: tuple[Quantity, ...] = ()
    inputs: tuple[str, ...] = ()
    input_quantities: tuple[Quantity, ...] = ()
    outputs: tuple[str, ...] = ()
    output_quantities: tuple[Quantity, ...] = ()
    transformation_id: str = ""
    biz_step: str = ""
    disposition: str = ""
    set_dispositions: tuple[str, ...] = ()
    unset_dispositions: tuple[str, ...] = ()
    read_point: str = ""
    biz_location: str = ""
    biz_transactions: tuple[Typed, ...] = ()
    sources: tuple[Typed, ...] = ()
    destinations: tuple[Typed, ...] = ()
    sensors: tuple[SensorElement, ...] = ()
    ilmd: Mapping[str, Json] = field(default_factory=_nothing)
    certification_info: tuple[str, ...] = ()
    error: ErrorDeclaration | None = None
    extensions: Mapping[str, Json] = field(default_factory=_nothing)
    raw: Mapping[str, Json] = field(default_factory=_nothing, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Document:
    """A capture or query document: its events in order, and what stands around them."""

    events: tuple[Event, ...]
    created_ms: int
    schema_version: str = "2.0"
    context: Json = None
    header: Mapping[str, Json] = field(default_factory=_nothing)

"""One event out of parsed JSON: which fields a type has, must have and must not have (EPCIS 2.0, section 7.4)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from idtrace.epcis import values
from idtrace.epcis.context import Context, read_context
from idtrace.epcis.measures import require_uom
from idtrace.epcis.model import NOTHING, Action, ErrorDeclaration, Event, EventType, Json, Quantity, Typed
from idtrace.epcis.rules import Fault, Rule
from idtrace.epcis.sensors import read_sensors
from idtrace.epcis.values import Reader, Readers
from idtrace.epcis.vocabulary import (
    BIZ_STEP,
    BUSINESS_TRANSACTION,
    DISPOSITION,
    ERROR_REASON,
    SOURCE_DESTINATION,
    Vocabulary,
)
from idtrace.errors import quoted

_TYPES: Final = {str(kind): kind for kind in EventType}
_ACTIONS: Final = {str(action): action for action in Action}


def _action(value: Json, _context: Context) -> Action:
    action = _ACTIONS.get(value) if value.__class__ is str else None
    if action is None:
        raise Fault(Rule.CHOICE, "an action is ADD, OBSERVE or DELETE")
    return action


_QUANTITY: Final[Readers] = {
    "epcClass": ("epc_class", values.uri),
    "quantity": ("quantity", values.number),
    "uom": ("uom", require_uom),
}


def _quantity(value: Json, context: Context) -> Quantity:
    read = values.read_only(values.members(value), _QUANTITY, context)
    if "epc_class" not in read:
        raise Fault(Rule.FIELD_MISSING, "a quantity is of a class", "epcClass")
    return Quantity(**read)


def _quantities(value: Json, context: Context) -> tuple[Quantity, ...]:
    return values.listed(value, _quantity, context)


def _typed(target: str, vocabulary: Vocabulary, *, required: bool) -> Reader:
    """Reads a list of ``{"type": …, target: URI}``."""
    readers: Readers = {"type": ("type", vocabulary.read), target: ("id", values.uri)}

    def one(value: Json, context: Context) -> Typed:
        read = values.read_only(values.members(value), readers, context)
        if "id" not in read:
            raise Fault(Rule.FIELD_MISSING, f"{target} is missing", target)
        if required and "type" not in read:
            raise Fault(Rule.FIELD_MISSING, f"a {target} has a type", "type")
        return Typed(read.get("type", ""), read["id"])

    return lambda value, context: values.listed(value, one, context)


def _place(value: Json, context: Context) -> str:
    fields = values.members(value)
    for name, inner in fields.items():
        if name != "id":
            values.foreign(name, inner, context)
    return values.member(fields, "id", values.uri, context)


def _ilmd(value: Json, context: Context) -> Mapping[str, Json]:
    fields = values.members(value)
    for name in fields:
        if ":" not in name:
            raise Fault(Rule.NAMESPACE_MISSING, "master data has a namespace, as cbvmda:lotNumber", name)
    return {name: values.foreign(name, inner, context) for name, inner in fields.items()}


def _certification(value: Json, context: Context) -> tuple[str, ...]:
    return values.uris(value, context) if value.__class__ is list else (values.uri(value, context),)


def _dispositions(value: Json, context: Context) -> tuple[str, ...]:
    words = values.listed(value, DISPOSITION.read, context)
    if not words:
        raise Fault(Rule.EMPTY, "at least one disposition stands here")
    if len(frozenset(words)) != len(words):
        index = next(index for index, word in enumerate(words) if word in words[:index])
        raise Fault(Rule.TWICE, f"{quoted(words[index])} stands twice in this list", index)
    return words


_PERSISTENT: Final[Readers] = {
    "set": ("set_dispositions", _dispositions),
    "unset": ("unset_dispositions", _dispositions),
}


def _persistent(value: Json, context: Context) -> dict[str, Any]:
    read = values.read_only(values.members(value), _PERSISTENT, context)
    if not read:
        raise Fault(Rule.EMPTY, "set, unset or both stand here")
    return read


_ERROR: Final[Readers] = {
    "declarationTime": ("declared_ms", values.time_ms),
    "reason": ("reason", ERROR_REASON.read),
    "correctiveEventIDs": ("corrective_event_ids", values.uris),
}


def _error(value: Json, context: Context) -> ErrorDeclaration:
    fields = values.members(value)
    if "declarationTime" not in fields:
        raise Fault(Rule.FIELD_MISSING, "an error is declared at a time", "declarationTime")
    return ErrorDeclaration(**values.read_fields(fields, _ERROR, context))


_COMMON: Final[Readers] = {
    "eventTime": ("time_ms", values.time_ms),
    "eventTimeZoneOffset": ("offset_minutes", values.offset_minutes),
    "eventID": ("event_id", values.uri),
    "recordTime": ("record_time_ms", values.time_ms),
    "errorDeclaration": ("error", _error),
    "certificationInfo": ("certification_info", _certification),
    "bizStep": ("biz_step", BIZ_STEP.read),
    "disposition": ("disposition", DISPOSITION.read),
    "readPoint": ("read_point", _place),
    "bizLocation": ("biz_location", _place),
    "bizTransactionList": ("biz_transactions", _typed("bizTransaction", BUSINESS_TRANSACTION, required=False)),
    "sourceList": ("sources", _typed("source", SOURCE_DESTINATION, required=True)),
    "destinationList": ("destinations", _typed("destination", SOURCE_DESTINATION, required=True)),
}
_ACTION: Final = {"action": ("action", _action)}
_PARENT: Final = {"parentID": ("parent", values.uri)}
_BEGINNING: Final = {"ilmd": ("ilmd", _ilmd), "persistentDisposition": ("persistent", _persistent)}
_OBJECTS: Final = {"epcList": ("epcs", values.uris), "quantityList": ("quantities", _quantities)}
_CHILDREN: Final = {"childEPCs": ("children", values.uris), "childQuantityList": ("child_quantities", _quantities)}
_FIELDS: Final[Mapping[EventType, Readers]] = {
    EventType.OBJECT: {**_COMMON, **_ACTION, **_OBJECTS, **_BEGINNING},
    EventType.AGGREGATION: {**_COMMON, **_ACTION, **_PARENT, **_CHILDREN},
    EventType.ASSOCIATION: {**_COMMON, **_ACTION, **_PARENT, **_CHILDREN},
    EventType.TRANSACTION: {**_COMMON, **_ACTION, **_PARENT, **_OBJECTS},
    EventType.TRANSFORMATION: {
        **_COMMON,
        **_BEGINNING,
        "inputEPCList": ("inputs", values.uris),
        "inputQuantityList": ("input_quantities", _quantities),
        "outputEPCList": ("outputs", values.uris),
        "outputQuantityList": ("output_quantities", _quantities),
        "transformationID": ("transformation_id", values.uri),
    },
}
_ALL_FIELDS: Final = frozenset(name for fields in _FIELDS.values() for name in fields)
_REQUIRED: Final[Mapping[EventType, tuple[str, ...]]] = {
    EventType.OBJECT: ("eventTime", "eventTimeZoneOffset", "action"),
    EventType.AGGREGATION: ("eventTime", "eventTimeZoneOffset", "action"),
    EventType.ASSOCIATION: ("eventTime", "eventTimeZoneOffset", "action", "parentID"),
    EventType.TRANSACTION: ("eventTime", "eventTimeZoneOffset", "action", "bizTransactionList"),
    EventType.TRANSFORMATION: ("eventTime", "eventTimeZoneOffset"),
}


def read_event(value: Json, outer: Context, *, twice: bool = False) -> Event:
    """The event of one JSON object that stands in ``outer``.

    Args:
        value: parsed JSON (:func:`idtrace.epcis.strictjson.decode`): numbers as int or Decimal.
        outer: what the document declares.
        twice: whether a sensor attribute may stand in the metadata and in a report as well (TCR-53, step 29, is a rule
            of the capture interface; documents of others have it).

    Raises:
        Fault: with the path within the event.
    """
    fields = values.members(value)
    context = outer
    if "@context" in fields:
        context = values.member(fields, "@context", read_context, outer)
    if not context.standard:
        raise Fault(Rule.CONTEXT_MISSING, "no context of EPCIS 2.0 holds here", "@context")
    kind = _kind(fields)
    for name in _REQUIRED[kind]:
        if name not in fields:
            raise Fault(Rule.FIELD_MISSING, f"an {kind} has {name}", name)
    read = _read(fields, kind, context, twice=twice)
    event = Event(type=kind, raw={**fields, "@context": list(context.entries)}, **read)
    _require_whole(event)
    return event


def _kind(fields: Mapping[str, Json]) -> EventType:
    name = fields.get("type")
    if name is None:
        raise Fault(Rule.FIELD_MISSING, "an event has a type", "type")
    kind = _TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise Fault(Rule.CHOICE, f"the types of events are {', '.join(_TYPES)}", "type")
    return kind


def _read(fields: Mapping[str, Json], kind: EventType, context: Context, *, twice: bool) -> dict[str, Any]:
    readers = _FIELDS[kind]
    sensors = partial(read_sensors, twice=twice)
    read: dict[str, Any] = {}
    extensions: dict[str, Json] = {}
    for name, value in fields.items():
        known = readers.get(name)
        if known is not None:
            try:
                read[known[0]] = known[1](value, context)
            except Fault as fault:
                raise fault.below(name) from None
        elif name == "sensorElementList":
            read["sensors"] = values.member(fields, name, sensors, context)
        elif name in _ALL_FIELDS:
            raise Fault(Rule.FIELD_OF_OTHER_EVENT, f"an {kind} has no {name}", name)
        elif name not in {"type", "@context"}:
            extensions[name] = values.foreign(name, value, context)
    read.update(read.pop("persistent", {}))
    read.setdefault("action", None)
    read["extensions"] = extensions or NOTHING
    return read


def _require_whole(event: Event) -> None:
    """Require what a type needs beyond its single fields."""
    if event.ilmd and event.type is EventType.OBJECT and event.action is not Action.ADD:
        raise Fault(Rule.ILMD_NOT_ALLOWED, "master data of objects stands where they begin: action ADD", "ilmd")
    if event.type is EventType.TRANSACTION and not event.biz_transactions:
        raise Fault(Rule.EMPTY, "a TransactionEvent has at least one transaction", "bizTransactionList")
    if event.type is EventType.AGGREGATION and not event.parent and event.action is not Action.OBSERVE:
        raise Fault(Rule.PARENT_MISSING, "a parent may be unknown only to who observes", "parentID")
    if not _has_objects(event):
        raise Fault(Rule.NO_OBJECTS, _OBJECTS_NEEDED[event.type])


_OBJECTS_NEEDED: Final[Mapping[EventType, str]] = {
    EventType.OBJECT: "an ObjectEvent has epcList, quantityList, or sensorElementList with readPoint",
    EventType.AGGREGATION: "an AggregationEvent has childEPCs or childQuantityList; to DELETE, all may be meant",
    EventType.ASSOCIATION: "an AssociationEvent has childEPCs or childQuantityList; to DELETE, all may be meant",
    EventType.TRANSACTION: "a TransactionEvent has epcList, quantityList or parentID; to DELETE, all may be meant",
    EventType.TRANSFORMATION: "a TransformationEvent has inputs and outputs, or a transformationID with one of them",
}


def _has_objects(event: Event) -> bool:
    if event.type is EventType.TRANSFORMATION:
        inputs = bool(event.inputs or event.input_quantities)
        outputs = bool(event.outputs or event.output_quantities)
        return (inputs or outputs) if event.transformation_id else (inputs and outputs)
    if event.type is EventType.OBJECT:
        return bool(event.epcs or event.quantities or (event.sensors and event.read_point))
    named = bool(event.epcs or event.quantities or event.children or event.child_quantities)
    if event.type is EventType.TRANSACTION and event.parent:
        return True
    return named or event.action is Action.DELETE

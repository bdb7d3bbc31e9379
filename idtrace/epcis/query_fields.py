"""Conditions on the standard's own fields of events (EPCIS 2.0, section 8.2.7.1), but for those of sensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from idtrace.epcis.model import Action, Event, EventType, Typed
from idtrace.epcis.query_patterns import places_within, things
from idtrace.epcis.query_sensors import quantity_judge
from idtrace.epcis.query_values import COMPARISONS, Asked, Judge
from idtrace.epcis.rules import Fault
from idtrace.epcis.uris import key
from idtrace.epcis.vocabulary import (
    BIZ_STEP,
    BUSINESS_TRANSACTION,
    DISPOSITION,
    ERROR_REASON,
    SOURCE_DESTINATION,
    Vocabulary,
)

Texts = Callable[[Event], Iterable[str]]
_QUANTITY: Final = re.compile(r"quantity(?:_([A-Z0-9]{2,3}))?\Z")
_TYPES: Final = {
    spelling: kind.value
    for kind in EventType
    for spelling in (
        kind.value,
        *(start + kind.value for start in ("https://ref.gs1.org/epcis/", "https://ns.gs1.org/epcis/")),
    )
}
_WORDS: Final[Mapping[str, tuple[Vocabulary, Texts]]] = {
    "bizStep": (BIZ_STEP, lambda event: (event.biz_step,)),
    "disposition": (DISPOSITION, lambda event: (event.disposition,)),
    "persistentDisposition_set": (DISPOSITION, lambda event: event.set_dispositions),
    "persistentDisposition_unset": (DISPOSITION, lambda event: event.unset_dispositions),
    "errorReason": (ERROR_REASON, lambda event: () if event.error is None else (event.error.reason,)),
}
# URIs by their keys; the second tells whether the keys are among the event's mentions.
_URIS: Final[Mapping[str, tuple[Texts, bool]]] = {
    "readPoint": (lambda event: (event.read_point,), True),
    "bizLocation": (lambda event: (event.biz_location,), True),
    "transformationID": (lambda event: (event.transformation_id,), False),
    "eventID": (lambda event: (event.event_id,), False),
    "correctiveEventID": (lambda event: () if event.error is None else event.error.corrective_event_ids, False),
}
_TYPED: Final[Mapping[str, tuple[Vocabulary, Callable[[Event], tuple[Typed, ...]]]]] = {
    "bizTransaction": (BUSINESS_TRANSACTION, lambda event: event.biz_transactions),
    "source": (SOURCE_DESTINATION, lambda event: event.sources),
    "destination": (SOURCE_DESTINATION, lambda event: event.destinations),
}
_THINGS: Final[Mapping[str, Texts]] = {
    "epc": lambda event: (*event.epcs, *event.children),
    "parentID": lambda event: (event.parent,),
    "inputEPC": lambda event: event.inputs,
    "outputEPC": lambda event: event.outputs,
    "anyEPC": lambda event: (event.parent, *event.epcs, *event.children, *event.inputs, *event.outputs),
    "epcClass": lambda event: (one.epc_class for one in (*event.quantities, *event.child_quantities)),
    "inputEPCClass": lambda event: (one.epc_class for one in event.input_quantities),
    "outputEPCClass": lambda event: (one.epc_class for one in event.output_quantities),
    "anyEPCClass": lambda event: (
        one.epc_class
        for one in (*event.quantities, *event.child_quantities, *event.input_quantities, *event.output_quantities)
    ),
}
_PLACES: Final[Mapping[str, Callable[[Event], str]]] = {
    "readPoint": lambda event: event.read_point,
    "bizLocation": lambda event: event.biz_location,
}


def field_judge(comparison: str, rest: str, asked: Asked) -> Judge | None:
    """The judge of a parameter ``COMPARISON_REST``, None where it names none of these fields.

    Raises:
        InputError: FIELD_MALFORMED, FIELD_TOO_LARGE.
    """
    if asked.name == "eventType":
        return _event_type(asked)
    quantity = _QUANTITY.match(rest)
    if quantity is not None and comparison in COMPARISONS:
        return quantity_judge(comparison, quantity[1] or "", asked)
    way = _WAYS.get(comparison)
    return None if way is None else way(rest, asked)


_EXISTING: Final[Mapping[str, Callable[[Event], bool]]] = {
    "errorDeclaration": lambda event: event.error is not None,
    "sensorElementList": lambda event: bool(event.sensors),
}


def _event_type(asked: Asked) -> Judge:
    types: set[str] = set()
    for text in asked.texts():
        full = asked.context.expand(text)
        if full not in _TYPES and ":" not in full:
            raise asked.refuse(f"the types of events are {', '.join(EventType)}")
        types.add(_TYPES.get(full, full))
    return Judge(lambda event, _: event.type.value in types)


def _equal(rest: str, asked: Asked) -> Judge | None:
    if rest == "action":
        actions = frozenset(asked.texts())
        if not actions <= frozenset(Action):
            raise asked.refuse("an action is ADD, OBSERVE or DELETE")
        return Judge(lambda event, _: event.action in actions)
    if rest in _WORDS:
        vocabulary, of = _WORDS[rest]
        words = asked.words(vocabulary)
        return Judge(lambda event, _: any(word in words for word in of(event)))
    if rest in _URIS:
        of, mentioned = _URIS[rest]
        keys = frozenset(key(text) for text in asked.texts())
        return Judge(lambda event, _: any(key(uri) in keys for uri in of(event)), keys if mentioned else frozenset())
    name, underscore, kind = rest.partition("_")
    if name in _TYPED and underscore:
        return _of_type(name, kind, asked)
    return None


def _of_type(name: str, kind: str, asked: Asked) -> Judge:
    """``EQ_source_possessing_party`` and the like: the type stands in the parameter's name."""
    vocabulary, of = _TYPED[name]
    try:
        wanted = vocabulary.read(kind, asked.context)
    except Fault as fault:
        raise asked.refuse(f"{fault.rule}: {fault.sentence}") from None
    keys = frozenset(key(text) for text in asked.texts())
    return Judge(lambda event, _: any(one.type == wanted and key(one.id) in keys for one in of(event)), keys)


def _bounded(rest: str, asked: Asked) -> Judge | None:
    """Times of the event, of its recording, and of its being declared an error."""
    compare = COMPARISONS[asked.name[:2]]
    if rest == "eventTime":
        bound = asked.time_ms()
        return Judge(lambda event, _: bool(compare(event.time_ms, bound)))
    if rest == "recordTime":
        bound = asked.time_ms()
        return Judge(lambda _, recorded_ms: bool(compare(recorded_ms, bound)))
    if rest in {"errorDeclarationTime", "errorDeclaration_Time"}:  # the standard's text, and its REST binding's schema
        bound = asked.time_ms()
        return Judge(lambda event, _: event.error is not None and bool(compare(event.error.declared_ms, bound)))
    return None


def _match(rest: str, asked: Asked) -> Judge | None:
    of = _THINGS.get(rest)
    if of is None:
        return None
    meant, keys = things(asked)
    return Judge(lambda event, _: any(meant(uri, key(uri)) for uri in of(event) if uri), keys)


def _within(rest: str, asked: Asked) -> Judge | None:
    place = _PLACES.get(rest)
    if place is None:
        return None
    within = places_within(asked)
    return Judge(lambda event, _: within(place(event)))


def _exists(rest: str, asked: Asked) -> Judge | None:
    there = _EXISTING.get(rest)
    if there is None:
        return None
    asked.presence()
    return Judge(lambda event, _: there(event))


_WAYS: Final[Mapping[str, Callable[[str, Asked], Judge | None]]] = {
    "EQ": _equal,
    "GE": _bounded,
    "LT": _bounded,
    "MATCH": _match,
    "WD": _within,
    "EXISTS": _exists,
}

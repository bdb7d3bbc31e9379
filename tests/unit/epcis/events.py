"""Events to test with: a plain one of each type, and a strategy that makes all kinds."""

from __future__ import annotations

import copy
import json
from datetime import datetime
from typing import Any

from hypothesis import HealthCheck
from hypothesis import strategies as st

from idtrace.epcis import vocabulary
from idtrace.epcis.context import STANDARD_CONTEXT
from idtrace.epcis.measures import UNITS

# Whole events are much to draw, and a busy machine is slow at it.
BUSY = (HealthCheck.too_slow, HealthCheck.data_too_large)
CONTEXT: Any = [STANDARD_CONTEXT, {"ext": "https://ns.example.com/epcis/"}]
WHEN = {"eventTime": "2026-07-22T10:30:00.250Z", "eventTimeZoneOffset": "+08:00"}
QUANTITY = {"epcClass": "urn:epc:class:lgtin:4012345.012345.998877", "quantity": 200, "uom": "KGM"}
REPORT = {"type": "Temperature", "value": 5.5, "uom": "CEL"}
SENSOR = {"sensorMetadata": {"time": "2026-07-22T10:25:00Z"}, "sensorReport": [REPORT]}
ONE, OTHER, BOX = "urn:epc:id:sgtin:4012345.011111.1", "idtrace:88.118.8/SN-2", "urn:epc:id:sscc:4012345.1234567890"


def plain(kind: str) -> dict[str, Any]:
    """A plain event of a type, with its context."""
    fields: dict[str, dict[str, Any]] = {
        "ObjectEvent": {"action": "ADD", "epcList": [ONE, OTHER], "bizStep": "commissioning"},
        "AggregationEvent": {"action": "ADD", "parentID": BOX, "childEPCs": [ONE], "bizStep": "packing"},
        "AssociationEvent": {"action": "ADD", "parentID": BOX, "childEPCs": [ONE]},
        "TransactionEvent": {
            "action": "OBSERVE",
            "epcList": [ONE],
            "bizTransactionList": [{"type": "po", "bizTransaction": "https://example.com/po/1"}],
        },
        "TransformationEvent": {"inputEPCList": [ONE], "outputQuantityList": [QUANTITY]},
    }
    return {"@context": CONTEXT, "type": kind, **WHEN, **fields[kind]}


def document(*events: Any, **fields: Any) -> dict[str, Any]:
    """A capture document around events."""
    return {
        "@context": [STANDARD_CONTEXT],
        "type": "EPCISDocument",
        "schemaVersion": "2.0",
        "creationDate": "2026-07-22T10:31:00Z",
        "epcisBody": {"eventList": list(events)},
        **fields,
    }


def to_bytes(value: Any) -> bytes:
    """JSON in UTF-8, numbers as they are."""
    return json.dumps(value, ensure_ascii=False, default=float).encode()


URIS = st.one_of(
    st.integers(1, 999).map(lambda serial: f"urn:epc:id:sgtin:4012345.011111.{serial}"),
    st.integers(1, 999).map(lambda serial: f"idtrace:88.118.8/SN-{serial}"),
    st.integers(1, 999).map(lambda serial: f"https://id.gs1.org/01/04012345111118/21/{serial}"),
)
_PLACES = st.fixed_dictionaries({"id": URIS})
# RFC 8785 writes no larger integers, and a double has no other ones
_NUMBERS = st.one_of(
    st.integers(-(2**53) + 1, 2**53 - 1), st.floats(-1e15, 1e15), st.decimals(-100, 100, places=2)
).map(float)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_TIMES = st.datetimes(datetime(1901, 1, 1)).map(lambda at: at.isoformat() + "+08:00")
_JSON = st.recursive(
    st.one_of(_TEXTS, _NUMBERS, st.booleans(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "ext:b", "中"]), inner, max_size=3)
    ),
    max_leaves=6,
)
EXTENSIONS = st.dictionaries(
    st.sampled_from(["ext:one", "ext:two", "https://ns.example.com/three", "idtrace:doses"]), _JSON, max_size=2
)


def _some(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def _words(words: vocabulary.Vocabulary) -> st.SearchStrategy[str]:
    word = st.sampled_from(sorted(words.words))
    stem = st.sampled_from(["", *words.stems])
    return st.one_of(st.builds("{}{}".format, stem, word), URIS)


_QUANTITIES = st.lists(
    st.builds(
        lambda epc_class, rest: {"epcClass": epc_class, **rest},
        URIS,
        _some({"quantity": _NUMBERS, "uom": st.sampled_from(["KGM", "LTR", "H87"])}),
    ),
    max_size=3,
)
_SETS = st.lists(URIS, max_size=4, unique=True)
_MEASURED = st.one_of(
    st.sampled_from(sorted(UNITS)).flatmap(
        lambda name: st.fixed_dictionaries({"type": st.just(name), "uom": st.sampled_from(sorted(UNITS[name]))})
    ),
    st.fixed_dictionaries({"type": _words(vocabulary.MEASUREMENT)}),
    st.fixed_dictionaries({"exception": _words(vocabulary.SENSOR_EXCEPTION)}),
)
_DETAILS = _some(
    {
        "microorganism": URIS,
        "chemicalSubstance": URIS,
        "coordinateReferenceSystem": URIS,
        "component": _words(vocabulary.COMPONENT),
        "stringValue": _TEXTS,
        "booleanValue": st.booleans(),
        "hexBinaryValue": st.binary(min_size=1, max_size=4).map(bytes.hex),
        "uriValue": URIS,
        **dict.fromkeys(("value", "minValue", "maxValue", "meanValue", "sDev", "percRank", "percValue"), _NUMBERS),
    }
)
_INLINE = _some(
    {"time": _TIMES, **dict.fromkeys(("deviceID", "deviceMetadata", "rawData", "dataProcessingMethod"), URIS)}
)
_METADATA = _some({"startTime": _TIMES, "endTime": _TIMES, "bizRules": URIS})


@st.composite
def _sensors(draw: st.DrawFn) -> list[dict[str, Any]]:
    elements = []
    for _ in range(draw(st.integers(1, 2))):
        above = draw(st.booleans())
        reports = [
            {**draw(_MEASURED), **draw(_DETAILS), **({} if above else draw(_INLINE)), **draw(EXTENSIONS)}
            for _ in range(draw(st.integers(1, 2)))
        ]
        metadata = {**draw(_METADATA), **(draw(_INLINE) if above else {}), **draw(EXTENSIONS)}
        element = {"sensorReport": reports, **draw(EXTENSIONS)}
        elements.append({**element, "sensorMetadata": metadata} if metadata else element)
    return elements


_COMMON = _some(
    {
        "eventID": URIS,
        "recordTime": _TIMES,
        "bizStep": _words(vocabulary.BIZ_STEP),
        "disposition": _words(vocabulary.DISPOSITION),
        "readPoint": _PLACES,
        "bizLocation": _PLACES,
        "certificationInfo": st.one_of(URIS, _SETS),
        "errorDeclaration": st.builds(
            lambda at, rest: {"declarationTime": at, **rest},
            _TIMES,
            _some({"reason": _words(vocabulary.ERROR_REASON), "correctiveEventIDs": _SETS}),
        ),
        "bizTransactionList": st.lists(
            st.builds(
                lambda target, kind: {"bizTransaction": target, **kind},
                URIS,
                _some({"type": _words(vocabulary.BUSINESS_TRANSACTION)}),
            ),
            min_size=1,
            max_size=3,
        ),
        "sourceList": st.lists(
            st.fixed_dictionaries({"type": _words(vocabulary.SOURCE_DESTINATION), "source": URIS}), max_size=2
        ),
        "destinationList": st.lists(
            st.fixed_dictionaries({"type": _words(vocabulary.SOURCE_DESTINATION), "destination": URIS}), max_size=2
        ),
        "sensorElementList": _sensors(),
    }
)
_ILMD = st.dictionaries(st.sampled_from(["cbvmda:lotNumber", "ext:made"]), _JSON, max_size=2)
_PERSISTENT = _some(
    {
        name: st.lists(st.sampled_from(sorted(vocabulary.DISPOSITION.words)), min_size=1, max_size=3, unique=True)
        for name in ("set", "unset")
    }
).map(lambda words: words or {"set": ["recalled"]})


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    """A valid event of any type as JSON, with its context."""
    kind = draw(
        st.sampled_from(
            ["ObjectEvent", "AggregationEvent", "AssociationEvent", "TransactionEvent", "TransformationEvent"]
        )
    )
    event = {**plain(kind), **draw(_COMMON), **draw(EXTENSIONS), "eventTime": draw(_TIMES)}
    hours, minutes = draw(st.integers(-13, 13)), draw(st.integers(0, 59))
    event["eventTimeZoneOffset"] = f"{hours:+03d}:{minutes:02d}"
    if kind == "TransformationEvent":
        rest = {"inputQuantityList": _QUANTITIES, "outputEPCList": _SETS, "transformationID": URIS, "ilmd": _ILMD}
        event.update(draw(_some({**rest, "persistentDisposition": _PERSISTENT})))
        return event
    event["action"] = draw(st.sampled_from(["ADD", "OBSERVE", "DELETE"]))
    if kind == "ObjectEvent":
        event.update(draw(_some({"quantityList": _QUANTITIES, "persistentDisposition": _PERSISTENT})))
        if event["action"] == "ADD":
            event.update(draw(_some({"ilmd": _ILMD})))
    elif kind == "TransactionEvent":
        event.update(draw(_some({"quantityList": _QUANTITIES, "parentID": URIS})))
    else:
        event.update(draw(_some({"childQuantityList": _QUANTITIES})))
    return event


_JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.just([]),
    st.just({}),
    st.just(["\ud800", {"@context": 5}]),
    st.sampled_from(["@context", "urn:x:y", "ext:a", "cbv:BizStep-", "2026-07-22T10:30:00Z", "ADD", ":", "urn:"]),
)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container of a JSON value with each of its keys."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            found += [(value, key), *_places(value[key])]
    return found


@st.composite
def mutated_documents(draw: st.DrawFn, most: int = 2) -> Any:
    """A document in which something, or two things, were replaced, taken away, renamed or doubled."""
    value = copy.deepcopy(document(*draw(st.lists(events(), min_size=1, max_size=most))))
    for _ in range(draw(st.integers(1, 2))):
        inside = value.get("epcisBody") if draw(st.integers(0, 7)) else value
        there = _places(inside) or _places(value)
        container, key = there[draw(st.integers(0, 10**6)) % len(there)]
        kind = draw(st.sampled_from(["replace", "remove", "rename", "double"]))
        if kind == "remove":
            del container[key]
        elif kind == "rename" and isinstance(container, dict):
            container[draw(st.text(max_size=6))] = container.pop(key)
        elif kind == "double" and isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        else:
            container[key] = copy.deepcopy(draw(_JUNK))  # drawn lists are shared between examples
    return value

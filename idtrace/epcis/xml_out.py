"""Events as EPCIS 2.0 XML: capture documents, and query documents for who asks for them.

What is written is read by :mod:`idtrace.epcis.xml_in` as the same event, with the same event hash. Prefixes are
declared on each event, as its ``@context`` has them; words of the CBV are written as their Web URIs, since XML has no
short forms; numbers and truth values of one's own fields become texts.

Source: EPCglobal-epcis-2_0.xsd and EPCglobal-epcis-query-2_0.xsd.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import count
from typing import Final

from idtrace.epcis.model import Event, EventType, Json
from idtrace.epcis.prehash import prefixes_of, web_uri
from idtrace.epcis.values import time_text
from idtrace.epcis.vocabulary import (
    BIZ_STEP,
    BUSINESS_TRANSACTION,
    COMPONENT,
    DISPOSITION,
    ERROR_REASON,
    MEASUREMENT,
    SENSOR_EXCEPTION,
    SOURCE_DESTINATION,
    Vocabulary,
)
from idtrace.epcis.write import event_json
from idtrace.epcis.xml_names import (
    EPC_LISTS,
    EPCIS_NAMESPACE,
    MASTER_DATA,
    MASTER_DATA_XML,
    ORDER,
    OWN_NAMESPACE,
    QUANTITY_LISTS,
    QUERY_NAMESPACE,
    SENSOR_METADATA,
    SENSOR_REPORT,
    STRUCTURAL,
    TYPED_LISTS,
)
from idtrace.errors import InputError, Reason, quoted

_DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'
# XML 1.0 section 2.2: every other character cannot be written at all, not even as a reference.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPES: Final = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\r": "&#13;", "\n": "&#10;", "\t": "&#9;"}
)
# Names that all editions of XML 1.0 allow: ASCII, and the characters of Chinese. A colon would be a prefix's.
_NAME = re.compile(r"[A-Za-z_\u4e00-\u9fa5][A-Za-z0-9_.\u4e00-\u9fa5-]*\Z")
# Namespaces in XML 1.0, section 3: these two are bound, and nothing else binds them.
_NO_PREFIX: Final = frozenset({"xml", "xmlns"})
_NOT_WRITTEN: Final = frozenset({"@context", "type", "isA"})
_WORDS: Final[Mapping[str, Vocabulary]] = {
    "bizStep": BIZ_STEP,
    "disposition": DISPOSITION,
    "set": DISPOSITION,
    "unset": DISPOSITION,
    "bizTransaction": BUSINESS_TRANSACTION,
    "source": SOURCE_DESTINATION,
    "destination": SOURCE_DESTINATION,
    "reason": ERROR_REASON,
    "type": MEASUREMENT,
    "exception": SENSOR_EXCEPTION,
    "component": COMPONENT,
}


def document_xml(events: Iterable[Event], created_ms: int) -> bytes:
    """A capture document.

    Raises:
        InputError: as :func:`event_json`; FIELD_MALFORMED: a character or a name that XML does not have.
    """
    listed = "".join(_Event(event_json(event)).written() for event in events)
    root = f'epcis:EPCISDocument xmlns:epcis="{EPCIS_NAMESPACE}" schemaVersion="2.0"'
    body = f"<EPCISBody><EventList>{listed}</EventList></EPCISBody>"
    return _document(root, created_ms, body)


def query_document_xml(
    events: Iterable[Event], created_ms: int, *, query_name: str = "SimpleEventQuery", subscription_id: str = ""
) -> bytes:
    """A query document; errors as of :func:`document_xml`."""
    listed = "".join(_Event(event_json(event)).written() for event in events)
    subscription = f"<subscriptionID>{_escaped(subscription_id)}</subscriptionID>" if subscription_id else ""
    root = (
        f'epcisq:EPCISQueryDocument xmlns:epcisq="{QUERY_NAMESPACE}" xmlns:epcis="{EPCIS_NAMESPACE}" '
        'schemaVersion="2.0"'
    )
    body = (
        f"<EPCISBody><epcisq:QueryResults><queryName>{_escaped(query_name)}</queryName>{subscription}"
        f"<resultsBody><EventList>{listed}</EventList></resultsBody></epcisq:QueryResults></EPCISBody>"
    )
    return _document(root, created_ms, body)


def _document(root: str, created_ms: int, body: str) -> bytes:
    name = root.partition(" ")[0]
    text = f'{_DECLARATION}<{root} creationDate="{time_text(created_ms)}">{body}</{name}>\n'
    return text.encode()


def _escaped(text: str) -> str:
    if (forbidden := _FORBIDDEN.search(text)) is not None:
        rule = f"XML has no character {forbidden[0]!a}, which stands in {quoted(text, 40)}"
        raise InputError(Reason.FIELD_MALFORMED, rule, field="event")
    return text.translate(_ESCAPES)


def _each(value: Json) -> list[Json]:
    """The values of a list, a single value as a list of one; nothing for null."""
    if isinstance(value, list | tuple):
        return [inner for one in value for inner in _each(one)]
    return [] if value is None else [value]


def _text(value: Json) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return format(Decimal(repr(value)), "f") if isinstance(value, float) else str(value)


class _Event:
    """Writes one event; gathers the namespaces that it needs on the way."""

    def __init__(self, raw: Mapping[str, Json]) -> None:
        self._raw = raw
        self._known = prefixes_of(raw.get("@context"))
        standard = prefixes_of()
        # By prefix. What a text may abbreviate by is declared even where no name has it.
        self._declared = {
            prefix: namespace
            for prefix, namespace in self._known.items()
            if standard.get(prefix) != namespace and prefix not in _NO_PREFIX
        }

    def written(self) -> str:
        """The event's element."""
        kind = EventType(self._raw["type"])
        order = ORDER[kind]
        fields = "".join(self._standard(name, self._raw[name]) for name in order if name in self._raw)
        fields += self._own(self._raw, _NOT_WRITTEN.union(order))
        declared = "".join(
            f' xmlns:{prefix}="{_escaped(namespace)}"' for prefix, namespace in sorted(self._declared.items())
        )
        return f"<{kind}{declared}>{fields}</{kind}>"

    def _standard(self, name: str, value: Json) -> str:
        if name in EPC_LISTS:
            inner = "".join(self._element("epc", one) for one in _each(value))
        elif name in QUANTITY_LISTS:
            inner = "".join(
                self._fields("quantityElement", one, ("epcClass", "quantity", "uom")) for one in _each(value)
            )
        elif name in TYPED_LISTS:
            inner = "".join(self._typed(TYPED_LISTS[name], one) for one in _each(value))
        elif name == "sensorElementList":
            inner = "".join(self._sensor(one) for one in _each(value))
        elif name in {"readPoint", "bizLocation"}:
            return self._fields(name, value, ("id",))
        elif name == "persistentDisposition":
            return self._fields(name, value, ("unset", "set"))
        elif name == "errorDeclaration":
            return self._error(value)
        elif name == "ilmd":
            return f"<ilmd>{self._own(value, _NOT_WRITTEN)}</ilmd>"
        else:
            return "".join(self._element(name, one) for one in _each(value))
        return f"<{name}>{inner}</{name}>"

    def _element(self, name: str, value: Json) -> str:
        return f"<{name}>{_escaped(self._full(name, value))}</{name}>"

    def _full(self, name: str, value: Json) -> str:
        """A value of the standard, without short forms."""
        text = _text(value)
        prefix, colon, rest = text.partition(":")
        if colon and prefix in self._known:
            text = self._known[prefix] + rest
        return web_uri(text, _WORDS[name]) if name in _WORDS else text

    def _fields(self, name: str, value: Mapping[str, Json], names: tuple[str, ...]) -> str:
        inner = "".join(self._element(known, one) for known in names for one in _each(value.get(known)))
        return f"<{name}>{inner}{self._own(value, frozenset(names))}</{name}>"

    def _typed(self, name: str, value: Mapping[str, Json]) -> str:
        kind = f' type="{_escaped(self._full(name, value["type"]))}"' if value.get("type") else ""
        return f"<{name}{kind}>{_escaped(self._full('', value[name]))}</{name}>"

    def _error(self, value: Mapping[str, Json]) -> str:
        inner = "".join(self._element(name, value[name]) for name in ("declarationTime", "reason") if name in value)
        if corrective := "".join(self._element("correctiveEventID", one) for one in _each(value.get(_CORRECTIVE))):
            inner += f"<{_CORRECTIVE}>{corrective}</{_CORRECTIVE}>"
        inner += self._own(value, frozenset({"declarationTime", "reason", _CORRECTIVE}))
        return f"<errorDeclaration>{inner}</errorDeclaration>"

    def _sensor(self, value: Mapping[str, Json]) -> str:
        inner = ""
        if "sensorMetadata" in value:
            inner += self._attributes("sensorMetadata", value["sensorMetadata"], SENSOR_METADATA)
        for report in _each(value.get("sensorReport")):
            inner += self._attributes("sensorReport", report, SENSOR_REPORT)
        inner += self._own(value, frozenset({"sensorMetadata", "sensorReport"}))
        return f"<sensorElement>{inner}</sensorElement>"

    def _attributes(self, element: str, value: Mapping[str, Json], known: frozenset[str]) -> str:
        written = []
        for name, one in value.items():
            if name in known:
                written.append(f' {name}="{_escaped(self._full(name, one))}"')
            elif isinstance(one, Mapping | list | tuple):
                rule = f"{quoted(name)} is an object or a list, and an attribute of <{element}> holds text alone"
                raise InputError(Reason.FIELD_MALFORMED, rule, field="event")
            elif one is not None and name not in _NOT_WRITTEN:
                written.append(f' {self._name(name)}="{_escaped(_text(one))}"')
        return f"<{element}{''.join(written)}/>"

    def _own(self, value: Mapping[str, Json], without: frozenset[str]) -> str:
        """Fields of other namespaces."""
        return "".join(
            self._own_field(name, one) for name in value if name not in without for one in _each(value[name])
        )

    def _own_field(self, name: str, value: Json) -> str:
        shown = self._name(name)
        if isinstance(value, Mapping):
            return f"<{shown}>{self._own(value, frozenset())}</{shown}>"
        return f"<{shown}>{_escaped(_text(value))}</{shown}>"

    def _name(self, name: str) -> str:
        """``prefix:local`` as XML may write it, with the namespace noted."""
        prefix, colon, local = name.partition(":")
        namespace = self._known.get(prefix, "")
        if colon and not namespace:
            end = max(name.rfind(mark) for mark in "/#:") + 1
            prefix, namespace, local = "", name[:end], name[end:]
        if not colon:
            local = name
        if _NAME.match(local) is None or namespace in STRUCTURAL:
            rule = f"{quoted(name)} is no name that XML can write"
            raise InputError(Reason.FIELD_MALFORMED, rule, field="event")
        if not colon:
            return local
        namespace = MASTER_DATA_XML if namespace == MASTER_DATA else namespace
        return f"{self._prefix(prefix, namespace)}:{local}"

    def _prefix(self, prefix: str, namespace: str) -> str:
        """A prefix for a namespace: the one that is declared, else the one that was meant, else a new one."""
        declared = next((known for known, uri in self._declared.items() if uri == namespace), None)
        if declared is not None:
            return declared
        wanted = "idtrace" if namespace == OWN_NAMESPACE else prefix
        if not wanted or wanted in _NO_PREFIX:
            wanted = next(new for new in map("ns{}".format, count(1)) if new not in self._declared)
        self._declared[wanted] = namespace
        return wanted


_CORRECTIVE: Final = "correctiveEventIDs"

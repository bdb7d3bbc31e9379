"""The text that the CBV 2.0 event hash is taken of (GS1 CBV 2.0, section 8.9: "pre-hash string").

Fields in a fixed order, each as ``name=value`` with nothing between them; lists sorted as text; what is not there does
not count. Values become canonical first: times UTC with milliseconds (the fourth decimal rounds up from 5), numbers
without needless zeros, EPC URNs and Digital Links to ``https://id.gs1.org/…`` of the finest level, words of the CBV to
Web URIs, prefixes of the ``@context`` written out. A field of another namespace is ``{namespace}name``, stands in the
element that it belongs to, and is sorted. ``eventID``, ``recordTime``, ``errorDeclaration`` and comments do not count.

The text of the standard can be read in more ways than one; where its published vectors decide, they decide here:
``type`` stands before the value in a business list, an SGLN extension 0 is dropped, ``sensorElementList`` keeps its
name before ``sensorElement``, and the fields after it come in the order of their names, destinations before sources.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from idtrace.epcis.context import STANDARD_PREFIXES
from idtrace.epcis.model import Json
from idtrace.epcis.uris import key
from idtrace.epcis.vocabulary import (
    BIZ_STEP,
    BUSINESS_TRANSACTION,
    COMPONENT,
    DISPOSITION,
    MEASUREMENT,
    SENSOR_EXCEPTION,
    SOURCE_DESTINATION,
    Vocabulary,
)
from idtrace.errors import InputError, Reason
from idtrace.gs1 import GS1_LABEL, elements_of
from idtrace.identifier import Identifier
from idtrace.scan import TEXT_CHARS_MAX

# The context of EPCIS 2.0 binds these, whatever else a document declares.
_STANDARD: Final = {prefix: namespaces[0] for prefix, namespaces in STANDARD_PREFIXES.items()}
# Written without its last colon by XML and by some documents; one namespace, so one hash.
_MASTER_DATA: Final = "urn:epcglobal:cbv:mda"
# Deeper than any parser of ours lets an event through; the recursion below needs a bound of its own.
DEPTH_MAX: Final = 64
_CBV: Final = "https://ref.gs1.org/cbv/"
_URNS: Final = {
    "urn:epcglobal:cbv:bizstep:": f"{_CBV}BizStep-",
    "urn:epcglobal:cbv:disp:": f"{_CBV}Disp-",
    "urn:epcglobal:cbv:btt:": f"{_CBV}BTT-",
    "urn:epcglobal:cbv:sdt:": f"{_CBV}SDT-",
    "urn:epcglobal:cbv:er:": f"{_CBV}ER-",
}
_URN = re.compile(r"urn:epcglobal:cbv:[a-z]+:")
# As long as a double is written; an exponent beyond a double's would make gigabytes of zeros out of ten characters.
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,3})?\Z")
_TIME = re.compile(
    r"(?P<second>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})"
    r"(?:\.(?P<fraction>[0-9]+))?(?P<zone>Z|[+-][0-9]{2}:[0-9]{2})\Z"
)
# Neither hashed nor looked into, wherever they stand.
_NEVER: Final = frozenset({"@context", "comment", "rdfs:comment"})
_NOT_OF_AN_EVENT: Final = frozenset({"type", "isA", "eventID", "recordTime", "errorDeclaration"}) | _NEVER
_METADATA: Final = (
    *("time", "startTime", "endTime"),
    *("deviceID", "deviceMetadata", "rawData", "dataProcessingMethod", "bizRules"),
)
_REPORT: Final = (
    *("type", "exception", "deviceID", "deviceMetadata", "rawData", "dataProcessingMethod", "time"),
    *("microorganism", "chemicalSubstance", "value", "component", "stringValue", "booleanValue", "hexBinaryValue"),
    *("uriValue", "minValue", "maxValue", "meanValue", "sDev", "percRank", "percValue", "uom"),
    "coordinateReferenceSystem",
)
_TIMES: Final = frozenset({"eventTime", "time", "startTime", "endTime"})
# Fields of words of the CBV, which have several spellings and one Web URI.
_WORDS: Final[Mapping[str, Vocabulary]] = {
    "bizStep": BIZ_STEP,
    "disposition": DISPOSITION,
    "persistentDisposition": DISPOSITION,
    "bizTransaction": BUSINESS_TRANSACTION,
    "source": SOURCE_DESTINATION,
    "destination": SOURCE_DESTINATION,
    "type": MEASUREMENT,
    "exception": SENSOR_EXCEPTION,
    "component": COMPONENT,
}


def pre_hash(event: Mapping[str, Json], *, context: Json = None, ignore: Collection[str] = ()) -> str:
    """The pre-hash string of one event.

    Args:
        event: the event as parsed JSON, with or without an ``@context`` of its own.
        context: ``@context`` of the document that it stands in.
        ignore: names of fields of the event that do not count, as they stand in it (:func:`hash.ignored`).

    Raises:
        InputError: FIELD_MALFORMED: deeper than ``DEPTH_MAX``.
    """
    return _Writer(prefixes_of(context, event.get("@context"))).event(event, frozenset(ignore))


def prefixes_of(*contexts: Json) -> dict[str, str]:
    """Prefix to namespace of one or more ``@context`` values, outer first; the standard ones are among them."""
    found = dict(_STANDARD)
    for context in contexts:
        for part in context if isinstance(context, list | tuple) else (context,):
            for prefix, term in part.items() if isinstance(part, Mapping) else ():
                namespace = term.get("@id") if isinstance(term, Mapping) else term
                if isinstance(namespace, str):
                    found[prefix] = f"{namespace}:" if namespace == _MASTER_DATA else namespace
    return found


class _Writer:
    """Writes the fields of one event; knows its prefixes."""

    def __init__(self, prefixes: Mapping[str, str]) -> None:
        self._prefixes = prefixes

    def event(self, event: Mapping[str, Json], ignore: frozenset[str]) -> str:
        known: dict[str, Callable[[Json], Iterator[str]]] = {
            "certificationInfo": lambda value: self._plain("certificationInfo", value),
            **dict.fromkeys(("epcList", "inputEPCList", "childEPCs", "outputEPCList"), self._epcs),
            **dict.fromkeys(
                ("quantityList", "childQuantityList", "inputQuantityList", "outputQuantityList"), self._quantities
            ),
            "persistentDisposition": self._persistent,
            "readPoint": lambda value: self._object(value, ("id",)),
            "bizLocation": lambda value: self._object(value, ("id",)),
            "sensorElementList": self._sensors,
            "bizTransactionList": lambda value: self._typed("bizTransaction", value),
            "destinationList": lambda value: self._typed("destination", value),
            "sourceList": lambda value: self._typed("source", value),
        }
        parts = [f"eventType={_text(event.get('type', ''))}"]
        for name in _ORDER:
            value = event.get(name)
            if name == "ilmd":
                parts.extend(self._foreign(name, value, 1) if name in event else ())
            elif name == "certificationInfo" or name not in known:
                parts.extend(self._plain(name, value))
            elif inner := "".join(known[name](value)):
                parts.append(name + inner)
        others = _NOT_OF_AN_EVENT | ignore
        return "".join(parts) + self._extensions(event, others.union(_ORDER), 1)

    def _plain(self, name: str, value: Json) -> Iterator[str]:
        """``name=value``, once for each value of a list, sorted; nothing for an empty one."""
        yield from sorted(f"{name}={text}" for one in _each(value) if (text := self._value(one, name)))

    def _epcs(self, value: Json) -> Iterator[str]:
        return self._plain("epc", value)

    def _object(self, value: Json, names: Collection[str]) -> Iterator[str]:
        """The named fields of an object in their order, then those of other namespaces."""
        if isinstance(value, Mapping):
            for name in names:
                yield from self._plain(name, value.get(name))
            yield self._extensions(value, _NEVER.union(names), 1)

    def _quantities(self, value: Json) -> Iterator[str]:
        names = ("epcClass", "quantity", "uom")
        yield from sorted("quantityElement" + "".join(self._object(one, names)) for one in _each(value))

    def _persistent(self, value: Json) -> Iterator[str]:
        for name in ("set", "unset") if isinstance(value, Mapping) else ():
            texts = (self._value(one, "persistentDisposition") for one in _each(value.get(name)))
            yield from sorted(f"{name}={text}" for text in texts)

    def _typed(self, name: str, value: Json) -> Iterator[str]:
        """Business transactions, sources, destinations: each with its type before it."""
        entries = []
        for one in _each(value):
            if isinstance(one, Mapping):
                kind, uri = self._value(one.get("type"), name), self._value(one.get(name), "")
                entries.append((f"type={kind}" if kind else "") + (f"{name}={uri}" if uri else ""))
        yield from sorted(entries)

    def _sensors(self, value: Json) -> Iterator[str]:
        yield from sorted(f"sensorElement{self._sensor(one)}" for one in _each(value) if isinstance(one, Mapping))

    def _sensor(self, element: Mapping[str, Json]) -> str:
        parts = []
        if metadata := "".join(self._object(element.get("sensorMetadata"), _METADATA)):
            parts.append(f"sensorMetadata{metadata}")
        reports = ("".join(self._object(one, _REPORT)) for one in _each(element.get("sensorReport")))
        parts.extend(sorted(f"sensorReport{report}" for report in reports if report))
        return "".join(parts) + self._extensions(element, _NEVER | {"sensorMetadata", "sensorReport"}, 1)

    def _extensions(self, value: Mapping[str, Json], without: Collection[str], depth: int) -> str:
        """Fields that the standard does not know, sorted as they are written."""
        names = (name for name in value if name not in without)
        return "".join(sorted(part for name in names for part in self._foreign(name, value[name], depth)))

    def _foreign(self, name: str, value: Json, depth: int) -> Iterator[str]:
        """One field of another namespace; of a list, one for each value."""
        if depth > DEPTH_MAX:
            raise InputError(Reason.FIELD_MALFORMED, f"nested more than {DEPTH_MAX} deep", field=name[:80])
        for one in _each(value, depth):
            if isinstance(one, Mapping):
                yield self._name(name) + self._extensions(one, _NEVER, depth + 1)
            else:
                text = self._value(one, "")
                yield self._name(name) + (f"={text}" if text else "")

    def _name(self, name: str) -> str:
        prefix, colon, local = name.partition(":")
        if not colon:
            return name
        if prefix in self._prefixes:
            return f"{{{self._prefixes[prefix]}}}{local}"
        end = max(name.rfind(mark) for mark in "/#:") + 1
        return f"{{{name[:end]}}}{name[end:]}"

    def _value(self, value: Json, name: str) -> str:
        text = _text(value)
        if name in _TIMES:
            return _time(text)
        prefix, colon, rest = text.partition(":")
        # Our own URIs are no short forms, even where an extension has the same prefix.
        if colon and prefix in self._prefixes and prefix != "idtrace":
            text = self._prefixes[prefix] + rest
        return _canonical(web_uri(text, _WORDS[name]) if name in _WORDS else text)


_ORDER: Final = (
    *("eventTime", "eventTimeZoneOffset", "certificationInfo", "parentID", "epcList", "inputEPCList", "childEPCs"),
    *("quantityList", "childQuantityList", "inputQuantityList", "outputEPCList", "outputQuantityList", "action"),
    *("transformationID", "bizStep", "disposition", "persistentDisposition", "readPoint", "bizLocation"),
    *("sensorElementList", "bizTransactionList", "destinationList", "ilmd", "sourceList"),
)


def web_uri(text: str, vocabulary: Vocabulary) -> str:
    """The Web URI of a word of the CBV in any of its spellings, prefixes apart; any other text as it is."""
    for stem in vocabulary.stems:
        if text.startswith(stem):
            return vocabulary.stems[0] + text.removeprefix(stem)
    return vocabulary.web_uri(text)


def _each(value: Json, depth: int = 1) -> Iterator[Json]:
    """The values of a list, of lists in it too; a single value as a list of one; null is no value."""
    if depth > DEPTH_MAX:
        raise InputError(Reason.FIELD_MALFORMED, f"lists nested more than {DEPTH_MAX} deep", field="event")
    if isinstance(value, list | tuple):
        for one in value:
            yield from _each(one, depth + 1)
    elif value is not None:
        yield value


def _text(value: Json) -> str:
    """A JSON value as XML would hold it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value).strip()


def _canonical(text: str) -> str:
    if (urn := _URN.match(text)) is not None and urn[0] in _URNS:
        return _URNS[urn[0]] + text[urn.end() :]
    if _NUMBER.match(text):
        return _number(text)
    return _link(text) if len(text) <= TEXT_CHARS_MAX else text


def _number(text: str) -> str:
    """A decimal number without sign of plus, exponent and needless zeros."""
    plain = format(Decimal(text), "f")
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    sign, digits = ("-", plain[1:]) if plain.startswith("-") else ("", plain)
    digits = digits.lstrip("0")
    if digits.startswith(".") or not digits:
        digits = f"0{digits}"
    return sign + digits if digits != "0" else digits


def _time(text: str) -> str:
    """A time in UTC with milliseconds; text that is no time as it is."""
    read = _TIME.match(text)
    if read is None:
        return text
    fraction = (read["fraction"] or "").ljust(4, "0")
    milliseconds = int(fraction[:3]) + (fraction[3] >= "5")
    try:
        moment = datetime.fromisoformat(read["second"] + read["zone"]).astimezone(UTC)
        moment += timedelta(milliseconds=milliseconds)
    except (ValueError, OverflowError):
        return text
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


@lru_cache(maxsize=4_096)
def _link(text: str) -> str:
    """A GS1 key as its canonical Digital Link, without attributes and without a variant; other text as it is.

    Percent-encoded are the characters that Digital Link URI Syntax section 4 reserves, no others.
    """
    named = key(text)
    if not named.startswith(f"{GS1_LABEL}.") or text.startswith(named):
        return text
    elements = elements_of(Identifier.parse(named))
    return "https://id.gs1.org" + "".join(
        f"/{ai}/{quote(value, safe=_UNRESERVED)}" for ai, value in elements if ai != "22"
    )


_UNRESERVED: Final = "-._';="

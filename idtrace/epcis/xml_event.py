"""One event of EPCIS XML in its JSON-LD form; what has no such form is a :class:`Fault`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from itertools import count
from typing import Final

from idtrace.epcis.context import STANDARD_CONTEXT, STANDARD_PREFIXES, Context, read_context
from idtrace.epcis.model import EventType, Json
from idtrace.epcis.rules import Fault, Rule
from idtrace.epcis.strictjson import exact
from idtrace.epcis.xml_names import (
    EPC_LISTS,
    INSTANCE_NAMESPACE,
    MASTER_DATA,
    MASTER_DATA_XML,
    OWN_NAMESPACE,
    QUANTITY_LISTS,
    SENSOR_METADATA,
    SENSOR_NUMBERS,
    SENSOR_REPORT,
    STRUCTURAL,
    TEXTS,
    TYPED_LISTS,
)
from idtrace.epcis.xml_tree import Node
from idtrace.errors import quoted

_WRAPPERS: Final = frozenset({"extension", "baseExtension"})
_EVENT_TYPES: Final = frozenset(EventType)
# As many digits as xsd:decimal needs for a double, which has no exponent there.
_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,3})?\Z")
_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}
_XML_SPACE: Final = " \t\r\n"


def unwrapped(node: Node) -> Iterator[Node]:
    """Children, with those inside the wrappers by which version 1.2 extends itself."""
    for child in node.children:
        if child.name in _WRAPPERS:
            yield from unwrapped(child)
        else:
            yield child


class _Names:
    """Names of fields with a namespace, as the JSON-LD form of one event writes them."""

    def __init__(self, prefixes: Mapping[str, str]) -> None:
        # What a text of the event may abbreviate by, even if no name does.
        self._declared = {
            prefix: namespace
            for prefix, namespace in prefixes.items()
            if prefix and namespace not in STRUCTURAL and _free(prefix, namespace)
        }

    def of(self, name: str, prefixes: Mapping[str, str]) -> str:
        """``prefix:local`` for ``{namespace}local``.

        Raises:
            Fault: CONTEXT_MALFORMED: a namespace that JSON-LD cannot declare.
        """
        namespace, _, local = name[1:].rpartition("}")
        if namespace in (MASTER_DATA, MASTER_DATA_XML):
            return f"cbvmda:{local}"
        if namespace == OWN_NAMESPACE:
            return f"{OWN_NAMESPACE}{local}"
        declared = next((prefix for prefix, uri in self._declared.items() if uri == namespace), None)
        if declared is None:
            inner = (prefix for prefix, uri in prefixes.items() if uri == namespace and prefix not in self._declared)
            declared = next((prefix for prefix in inner if _free(prefix, namespace)), None)
        if declared is None:
            declared = next(new for new in map("ns{}".format, count(1)) if new not in self._declared)
        self._declared[declared] = namespace
        return f"{declared}:{local}"

    def context(self) -> Json:
        """The ``@context`` that the names need."""
        return [STANDARD_CONTEXT, self._declared] if self._declared else STANDARD_CONTEXT


def _free(prefix: str, namespace: str) -> bool:
    """Whether JSON-LD may declare this prefix so; "" and the names of schemes for example it may not."""
    if prefix in STANDARD_PREFIXES:
        return namespace in STANDARD_PREFIXES[prefix] and namespace not in (MASTER_DATA, MASTER_DATA_XML)
    try:
        read_context({prefix: namespace}, Context())
    except Fault:
        return False
    return True


def read_event(node: Node) -> dict[str, Json]:
    """One event element in its JSON-LD form.

    Raises:
        Fault: it has none.
    """
    if node.name not in _EVENT_TYPES:
        raise Fault(Rule.CHOICE, f"<{node.name[:80]}> is no type of event", "type")
    _no_attributes(node)
    _notext_of(node)
    names = _Names(node.prefixes)
    event: dict[str, Json] = {"type": node.local}
    for child in unwrapped(node):
        if child.namespace:
            _add(event, names.of(child.name, child.prefixes), _field(child, names))
        elif child.local == "certificationInfo":
            _add(event, child.local, text_of(child))
        else:
            _add_once(event, child.local, _standard(child, names))
    event["@context"] = names.context()
    return event


def _add(target: dict[str, Json], name: str, value: Json) -> None:
    """A field that may repeat: the second makes a list of it."""
    if name not in target:
        target[name] = value
    elif isinstance(target[name], list):
        target[name].append(value)
    else:
        target[name] = [target[name], value]


def _add_once(target: dict[str, Json], name: str, value: Json) -> None:
    if name in target:
        raise Fault(Rule.TWICE, f"<{name}> stands here twice", name)
    target[name] = value


def _standard(node: Node, names: _Names) -> Json:
    """A field of the standard."""
    reader = _READERS.get(node.local)
    if reader is None:
        raise Fault(Rule.FIELD_UNKNOWN, f"<{node.local[:80]}> is not an element of the standard", node.local)
    try:
        return reader(node, names)
    except Fault as fault:
        raise fault.below(node.local) from None


def _each(nodes: Iterator[Node], read: Callable[[Node], Json]) -> list[Json]:
    found = []
    for index, node in enumerate(nodes):
        try:
            found.append(read(node))
        except Fault as fault:
            raise fault.below(index) from None
    return found


def _elements(node: Node, name: str) -> Iterator[Node]:
    """The children, each of which has this name."""
    _no_attributes(node)
    _notext_of(node)
    for child in unwrapped(node):
        if child.name != name:
            raise Fault(Rule.FIELD_UNKNOWN, f"<{child.name[:80]}> where only <{name}> belongs")
        yield child


def _object(
    node: Node, names: _Names, readers: Mapping[str, Callable[[Node], Json]], *, bare: bool = False
) -> dict[str, Json]:
    """An element with elements of the standard, and with those of other namespaces; within these also ``bare`` ones."""
    _no_attributes(node)
    _notext_of(node)
    found: dict[str, Json] = {}
    for child in unwrapped(node):
        if child.namespace:
            _add(found, names.of(child.name, child.prefixes), _field(child, names))
        elif child.local in readers:
            _add_once(found, child.local, readers[child.local](child))
        elif bare:
            _add(found, child.local, _field(child, names))
        else:
            rule = f"<{child.local[:80]}> is no element of <{node.local}> and has no namespace"
            raise Fault(Rule.FIELD_UNKNOWN, rule, child.local)
    return found


def _corrective(node: Node) -> Json:
    return [text_of(child) for child in _elements(node, "correctiveEventID")]


def _persistent(node: Node) -> Json:
    found: dict[str, list[str]] = {}
    _notext_of(node)
    for child in node.children:
        if child.name not in {"set", "unset"}:
            raise Fault(Rule.FIELD_UNKNOWN, f"<{child.name[:80]}> where only <set> and <unset> belong", child.local)
        found.setdefault(child.local, []).append(text_of(child))
    return found


def _quantity(node: Node) -> Json:
    readers = {"epcClass": text_of, "quantity": _number_of, "uom": text_of}
    found: dict[str, Json] = {}
    for child in node.children:
        if child.name not in readers:
            raise Fault(Rule.FIELD_UNKNOWN, f"<{child.name[:80]}> is no element of a quantity", child.local)
        _add_once(found, child.local, readers[child.local](child))
    return found


def _typed(node: Node) -> Json:
    kind = node.attributes.get("type")
    return {
        **({} if kind is None else {"type": kind.strip(_XML_SPACE)}),
        node.local: text_of(node, frozenset({"type"})),
    }


def _sensor(node: Node, names: _Names) -> Json:
    _no_attributes(node)
    _notext_of(node)
    found: dict[str, Json] = {}
    reports: list[Json] = []
    for child in unwrapped(node):
        if child.namespace:
            _add(found, names.of(child.name, child.prefixes), _field(child, names))
        elif child.local == "sensorMetadata":
            _add_once(found, child.local, _attributes(child, names, SENSOR_METADATA))
        elif child.local == "sensorReport":
            try:
                reports.append(_attributes(child, names, SENSOR_REPORT))
            except Fault as fault:
                raise fault.below("sensorReport", len(reports)) from None
        else:
            raise Fault(Rule.FIELD_UNKNOWN, f"<{child.local[:80]}> is no part of a sensor element", child.local)
    return {**found, "sensorReport": reports}


def _attributes(node: Node, names: _Names, known: frozenset[str]) -> dict[str, Json]:
    """Sensor metadata and reports, all of whose fields are attributes."""
    _notext_of(node)
    if node.children:
        raise Fault(Rule.TYPE, f"<{node.local}> has attributes alone")
    found: dict[str, Json] = {}
    for name, text in node.attributes.items():
        if name.startswith("{"):
            found[names.of(name, node.prefixes)] = text
        elif name not in known:
            raise Fault(Rule.FIELD_UNKNOWN, f"{quoted(name)} is no attribute of <{node.local}>", name)
        elif name in SENSOR_NUMBERS:
            found[name] = _number(text, name)
        elif name == "booleanValue":
            found[name] = _BOOLEANS.get(text.strip(_XML_SPACE), text)
        else:
            found[name] = text if name == "stringValue" else text.strip(_XML_SPACE)
    return found


def _field(node: Node, names: _Names) -> Json:
    """A field of another namespace: its text, or an object of its elements."""
    _no_attributes(node)
    if not node.children:
        return node.text
    return _object(node, names, {}, bare=True)


def _number_of(node: Node) -> Json:
    return _number(text_of(node), node.local)


def _number(text: str, name: str) -> int | Decimal:
    stripped = text.strip(_XML_SPACE)
    value = exact(Decimal(stripped)) if _DECIMAL.match(stripped) else None
    if value is None:
        raise Fault(Rule.NUMBER, f"{quoted(stripped)} is not a decimal number that a double carries", name)
    return value


def text_of(node: Node, attributes: frozenset[str] = frozenset()) -> str:
    """The text of an element that has nothing else; space around it means nothing (XML Schema, whiteSpace collapse).

    Raises:
        Fault: elements in it, or attributes that are not named.
    """
    _no_attributes(node, attributes)
    if node.children:
        raise Fault(Rule.TYPE, f"<{node.local}> holds text, not elements", node.local)
    return node.text.strip(_XML_SPACE)


def _notext_of(node: Node) -> None:
    if node.text.strip(_XML_SPACE):
        raise Fault(Rule.TYPE, f"<{node.local}> has text beside its elements: {quoted(node.text.strip(), 40)}")


def _no_attributes(node: Node, known: frozenset[str] = frozenset()) -> None:
    for name in node.attributes:
        if name not in known and not name.startswith(f"{{{INSTANCE_NAMESPACE}}}"):
            raise Fault(Rule.FIELD_UNKNOWN, f"the attribute {quoted(name)} of <{node.local}> has no JSON-LD form")


def _listed(name: str) -> Callable[[Node, _Names], Json]:
    return lambda node, _names: [text_of(child) for child in _elements(node, name)]


_PLACE: Final = {"id": text_of}
_ERROR: Final = {"declarationTime": text_of, "reason": text_of, "correctiveEventIDs": _corrective}
_READERS: Final[Mapping[str, Callable[[Node, _Names], Json]]] = {
    **dict.fromkeys(TEXTS, lambda node, _names: text_of(node)),
    **dict.fromkeys(EPC_LISTS, _listed("epc")),
    **dict.fromkeys(QUANTITY_LISTS, lambda node, _names: _each(_elements(node, "quantityElement"), _quantity)),
    **dict.fromkeys(TYPED_LISTS, lambda node, _names: _each(_elements(node, TYPED_LISTS[node.local]), _typed)),
    **dict.fromkeys(("readPoint", "bizLocation"), lambda node, names: _object(node, names, _PLACE)),
    "persistentDisposition": lambda node, _names: _persistent(node),
    "sensorElementList": lambda node, names: _each(
        _elements(node, "sensorElement"), lambda child: _sensor(child, names)
    ),
    "ilmd": lambda node, names: _object(node, names, {}),
    "errorDeclaration": lambda node, names: _object(node, names, _ERROR),
}

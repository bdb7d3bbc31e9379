"""Conditions on fields that are not the standard's (EPCIS 2.0, section 8.2.7.1), as ``EQ_ex:crew``.

A field is named ``prefix:name``, by its URI, or ``namespace#name`` as in EPCIS 1. A prefix that the asker has declared,
or that the standard declares, means its namespace, whatever prefix the event has for it; any other is compared as it
stands in the event. INNER finds a field within another one, at any depth. Values are compared as numbers where the
asker gives a number, as moments where he gives a time, and else as identifiers or texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Final

from idtrace.epcis.context import STANDARD_PREFIXES, Context, read_context
from idtrace.epcis.model import Event, Json
from idtrace.epcis.query_values import COMPARISONS, Asked, Compare, Judge, number_of, time_of
from idtrace.epcis.uris import key

# Where a field stands: the event, or a part of it.
Holders = Callable[[Event], Iterator[Mapping[str, Json]]]
Named = Callable[[str, Context], bool]
_SPLIT: Final = re.compile(r"(.*[#/:])(.+)\Z", re.DOTALL)
# The spellings of one namespace, without what separates it from a name, and the one that stands for all.
_ALIASES: Final = {
    alias.rstrip("#/:"): names[0].rstrip("#/:") for names in STANDARD_PREFIXES.values() for alias in names
}
_PLACES: Final = ("readPoint", "bizLocation")
_SCOPES: Final[Mapping[str, Holders]] = {
    "ILMD_": lambda event: iter((event.ilmd,)),
    "ERROR_DECLARATION_": lambda event: iter(() if event.error is None else (event.error.extensions,)),
    "SENSORELEMENT_": lambda event: (element.extensions for element in event.sensors),
    "SENSORMETADATA_": lambda event: (element.metadata.extensions for element in event.sensors),
    "SENSORREPORT_": lambda event: (report.extensions for element in event.sensors for report in element.reports),
    "readPoint_": lambda event: _place(event, "readPoint"),
    "bizLocation_": lambda event: _place(event, "bizLocation"),
}


def extension_judge(comparison: str, rest: str, asked: Asked) -> Judge | None:
    """The judge of ``COMPARISON_REST`` on a field of another namespace, None where REST names none.

    Raises:
        InputError: FIELD_MALFORMED, FIELD_TOO_LARGE.
    """
    if comparison == "HASATTR":
        return _has_attribute(rest, asked)
    if comparison == "EQATTR":
        return _attribute_is(rest, asked)
    inner = rest.startswith("INNER_")
    name = rest.removeprefix("INNER_")
    scope = next((start for start in _SCOPES if name.startswith(start)), "")
    name = name.removeprefix(scope)
    if not _has_namespace(name) or comparison not in {*COMPARISONS, "EXISTS"}:
        return None
    holders, named = _SCOPES.get(scope, _event_fields), _named(name, asked.context)
    meets = _exists(asked) if comparison == "EXISTS" else _meets(comparison, asked)

    def test(event: Event, _: int) -> bool:
        context = _context(event)
        for fields in holders(event):
            found = _inner(fields) if inner else iter(fields.items())
            if any(named(name, context) and meets(value) for name, value in found):
                return True
        return False

    return Judge(test)


def _event_fields(event: Event) -> Iterator[Mapping[str, Json]]:
    yield event.extensions


def _place(event: Event, name: str) -> Iterator[Mapping[str, Json]]:
    place = event.raw.get(name)
    if isinstance(place, Mapping):
        yield {field: value for field, value in place.items() if field != "id"}


def _inner(fields: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    """All fields within these ones; how deep they lie was bounded when the event was read."""
    for value in fields.values():
        for part in value if isinstance(value, list | tuple) else (value,):
            if isinstance(part, Mapping):
                yield from part.items()
                yield from _inner(part)
            elif isinstance(part, list | tuple):
                yield from _inner({"": part})


def _context(event: Event) -> Context:
    return read_context(event.raw["@context"], Context()) if "@context" in event.raw else Context(standard=True)


def _has_namespace(name: str) -> bool:
    return _SPLIT.match(name) is not None and not name.startswith((":", "#"))


def _whole(name: str) -> str:
    """A field's URI in the one form in which two of them are compared: ``namespace#name``."""
    found = _SPLIT.match(name)
    stem, own = (found[1].rstrip("#/:"), found[2]) if found else ("", name)
    return f"{_ALIASES.get(stem, stem)}#{own}"


def _named(name: str, context: Context) -> Named:
    """What tells whether a field of an event, which has a context of its own, has this name."""
    prefix, _, rest = name.partition(":")
    if "#" in name or rest.startswith("//") or prefix in {"urn", "idtrace"}:
        wanted = _whole(name)
    elif context.namespace(prefix) is not None:
        wanted = _whole(context.expand(name))
    else:
        return lambda found, _: found == name
    return lambda found, own: ":" in found and _whole(own.expand(found)) == wanted


def _leaves(value: Json) -> Iterator[str | Decimal]:
    """The simple values in a field: itself, those of a list, the value or the id of an object."""
    match value:
        case bool():
            yield "true" if value else "false"
        case str():
            yield value
        case int() | Decimal():
            yield Decimal(value)
        case list() | tuple():
            for item in value:
                yield from _leaves(item)
        case Mapping():
            for name in ("@value", "#text", "id", "@id"):
                if name in value:
                    yield from _leaves(value[name])
        case _:
            return  # null


def _exists(asked: Asked) -> Callable[[Json], bool]:
    asked.presence()
    return lambda _: True


def _meets(comparison: str, asked: Asked) -> Callable[[Json], bool]:
    compare = COMPARISONS[comparison]
    if comparison != "EQ":
        asked.one()
    ways = [_way(comparison, compare, text, asked) for text in asked.texts()]
    return lambda value: any(way(leaf) for leaf in _leaves(value) for way in ways)


def _way(comparison: str, compare: Compare, text: str, asked: Asked) -> Callable[[str | Decimal], bool]:
    number, time_ms, wanted = number_of(text), time_of(text), key(text)
    if comparison != "EQ" and number is None and time_ms is None:
        raise asked.refuse("a number or a date and time with an offset stands here")

    def meets(leaf: str | Decimal) -> bool:
        if isinstance(leaf, str) and comparison == "EQ" and key(leaf) == wanted:
            return True
        if number is not None:
            found = number_of(leaf) if isinstance(leaf, str) else leaf
            return found is not None and bool(compare(found, number))
        if time_ms is None or not isinstance(leaf, str):
            return False
        moment = time_of(leaf)
        return moment is not None and bool(compare(moment, time_ms))

    return meets


def _holder_of(name: str, asked: Asked) -> Callable[[Event], Iterator[Mapping[str, Json]]] | None:
    """The objects that a field of this name has as values: a place, or a field of another namespace."""
    if name in _PLACES:
        return lambda event: _place(event, name)
    if not _has_namespace(name):
        return None
    named = _named(name, asked.context)

    def holders(event: Event) -> Iterator[Mapping[str, Json]]:
        context = _context(event)
        for found, value in event.extensions.items():
            if named(found, context):
                yield from (part for part in (value if isinstance(value, list) else [value]) if _is_object(part))

    return holders


def _is_object(value: Json) -> bool:
    return isinstance(value, Mapping)


def _has_attribute(rest: str, asked: Asked) -> Judge | None:
    """``HASATTR_field``: one of the attributes named is there, in the event itself; no master data is kept."""
    holders = _holder_of(rest, asked)
    if holders is None:
        return None
    attributes = [_attribute(name, asked) for name in asked.texts()]

    def test(event: Event, _: int) -> bool:
        context = _context(event)
        return any(named(name, context) for fields in holders(event) for name in fields for named in attributes)

    return Judge(test)


def _attribute_is(rest: str, asked: Asked) -> Judge | None:
    """``EQATTR_field_attribute``: one of the values is the attribute's."""
    # ex:crew_ex:size, readPoint_ex:dock, ex:crew_size: an attribute's own prefix has no underscore.
    before = rest.rfind(":") if rest.count(":") > 1 or rest.startswith(_PLACES) else len(rest)
    cut = rest.rfind("_", 0, before)
    holders = _holder_of(rest[:cut], asked) if cut > 0 else None
    if holders is None or not rest[cut + 1 :]:
        return None
    named, meets = _attribute(rest[cut + 1 :], asked), _meets("EQ", asked)

    def test(event: Event, _: int) -> bool:
        context = _context(event)
        found = ((name, value) for fields in holders(event) for name, value in fields.items())
        return any(named(name, context) and meets(value) for name, value in found)

    return Judge(test)


def _attribute(name: str, asked: Asked) -> Named:
    """An attribute may have a bare name: somebody's own structure."""
    return _named(name, asked.context) if _has_namespace(name) else lambda found, _: found == name

"""GS1 keys as identifiers: the mapping, its inverse, and the check of native text under ``gs1``.

==========================  =====================================  ==============================================
what                        GS1 AIs                                identifier
==========================  =====================================  ==============================================
trade item, one             01 + 21                                ``gs1.01.<gtin14>/21.<serial>``
the same, third party's     01 + 235                               ``gs1.01.<gtin14>/235.<extension>``
trade item, a lot           01 + 10                                ``gs1.01.<gtin14>/10.<lot>``
trade item, a variant       01 + 22                                ``gs1.01.<gtin14>/22.<variant>``
trade item, the class       01                                     ``gs1.01.<gtin14>/class``
piece of a trade item       8006 (+ 21 or 10)                      ``gs1.8006.<gtin14 piece total>/21.<serial>`` …
logistic unit               00                                     ``gs1.00/<sscc18>``
location                    414 (+ 254 or 7040)                    ``gs1.414/<gln13>``, ``gs1.414.<gln13>/254.<ext>``
party                       417 (+ 7040)                           ``gs1.417/<gln13>``, ``gs1.417.<gln13>/7040.<uic>``
payment slip                415 + 8020                             ``gs1.415.<gln13>/8020.<reference>``
returnable asset            8003                                   ``gs1.8003.<13 digits>/8003.<serial>``, ``/class``
document                    253                                    ``gs1.253.<13 digits>/253.<serial>``, ``/class``
coupon                      255                                    ``gs1.255.<13 digits>/255.<serial>``, ``/class``
individual asset            8004 (+ 7040)                          ``gs1.8004/<giai>``, ``gs1.8004.7040/<uic>.<giai>``
service relation            8017, 8018 (+ 8019)                    ``gs1.8018/<18>``, ``gs1.8018.<18>/8019.<srin>``
consignment, shipment       401, 402                               ``gs1.401/<ginc>``, ``gs1.402/<gsin17>``
component or part           8010 (+ 8011)                          ``gs1.8010/<cpid>``, ``gs1.8010/8011.<n>.<cpid>``
product model               8013                                   ``gs1.8013/<gmn>``
==========================  =====================================  ==============================================

Why no two keys share an identifier: a label after ``gs1`` is an AI or a number whose length its AI fixes, and a suffix
is ``class``, or one AI with a dot and then the value to the end, or the whole key. ``class`` holds no dot, a component
identifier (8010) may not hold one, and where a key could look like a tagged one (a GIAI may be ``7040.A-1x.9``; a GRAI
may have the serial ``class``) the two forms have different prefixes, or the serial is tagged by its own AI.

Of several qualifiers the most telling one identifies (serial, third party's serial, lot, variant); the others are
attributes. Of several keys in one message, an SSCC (00) wins, because a label that bears one is a logistic unit's; else
the one key of a thing; else the one key of a place or paper, which beside a thing is an attribute. Two that tie are
refused. An extension (254) of ``0`` is refused: the EPC Tag Data Standard reserves it for "no extension", and one place
has one name.

Sources: GS1 General Specifications §3 and §4; GS1 Digital Link Standard: URI Syntax §4 (keys, qualifiers, order).
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from idtrace.errors import InputError, Reason, quoted
from idtrace.gs1_rules import Element, Elements, ai_at, check_together, check_value
from idtrace.identifier import Identifier, Prefix

GS1_LABEL: Final = "gs1"
FNC1: Final = "\x1d"  # how a reader sends it: the ASCII group separator
CLASS_SUFFIX: Final = "class"

# Keys and the qualifiers that may follow them, the most telling first.
_QUALIFIERS: Final[dict[str, tuple[str, ...]]] = {
    "00": (),
    "01": ("21", "235", "10", "22"),
    "8006": ("21", "10"),  # a path may have 22 after it, but 22 requires 01, which 8006 excludes
    "8003": (),
    "8004": ("7040",),
    "8010": ("8011",),
    "253": (),
    "255": (),
    "8017": ("8019",),
    "8018": ("8019",),
    "8013": (),
    "414": ("254", "7040"),
    "417": ("7040",),
    "415": ("8020",),
    "401": (),
    "402": (),
}
KEYS: Final = frozenset(_QUALIFIERS)
_PLACES_AND_PAPERS: Final = frozenset({"414", "417", "415", "401", "402"})
_THINGS: Final = KEYS - _PLACES_AND_PAPERS - {"00"}
# A number that needs no qualifier but is then a class of things, not one thing.
_CLASSES: Final = frozenset({"01", "8006"})
# Key and serial in one value: a 13-digit number (a GRAI has a zero before it) and what follows.
_SERIAL_INSIDE: Final = {"8003": "0", "253": "", "255": ""}
_NUMBER_DIGITS: Final = 13
# Keys of text, or with nothing to add: the whole value is the suffix.
_WHOLE: Final = frozenset({"00", "401", "402", "8004", "8010", "8013", "414", "417", "8017", "8018"})
_SPLIT: Final = frozenset({"01", "8006", "414", "417", "415", "8017", "8018"})
_UIC_CHARS: Final = 4  # length of AI 7040
# GTIN-8, -12 and -13 stand in a GTIN-14 behind zeros (General Specifications §3.3.2).
GTIN_DIGITS: Final = frozenset({8, 12, 13, 14})


def gtin14(digits: str) -> str:
    """A GTIN of 8, 12, 13 or 14 digits as 14; other text unchanged, for the value check to refuse."""
    return digits.zfill(14) if len(digits) in GTIN_DIGITS else digits


def identify(elements: Elements) -> tuple[Identifier, Elements]:
    """The identifier that checked elements name, and the elements that it does not use, in their order.

    Raises:
        InputError: GS1_NO_KEY: nothing identifies. GS1_AI_RULE: two things do.
    """
    key = _key(elements)
    values = dict(elements)
    marks = [ai for ai in _QUALIFIERS[key] if ai in values]
    if len(marks) > 1 and marks[0] in {"254", "7040"}:
        raise InputError(Reason.GS1_AI_RULE, "AI (254) and AI (7040) cannot both qualify a location", field="text")
    qualifier = (marks[0], values[marks[0]]) if marks else None
    used = {key, *marks[:1]}
    return _name(key, values[key], qualifier), tuple(element for element in elements if element[0] not in used)


def _key(elements: Elements) -> str:
    ais = [ai for ai, _ in elements]
    for group in ({"00"}, _THINGS, _PLACES_AND_PAPERS):
        found = [ai for ai in ais if ai in group]
        if len(found) > 1:
            both = " and ".join(f"({ai})" for ai in found)
            raise InputError(Reason.GS1_AI_RULE, f"AIs {both} are keys of two things in one message", field="text")
        if found:
            return found[0]
    shown = ", ".join(f"({ai})" for ai in ais)
    raise InputError(Reason.GS1_NO_KEY, f"no GS1 key among the AIs {shown}", field="text")


def _name(key: str, value: str, qualifier: Element | None) -> Identifier:
    if key == "8010" and qualifier:
        return _identifier((key,), f"{qualifier[0]}.{qualifier[1]}.{value}")
    if key == "8004" and qualifier:
        return _identifier((key, qualifier[0]), f"{qualifier[1]}.{value}")
    if key in _SERIAL_INSIDE:
        start = len(_SERIAL_INSIDE[key])
        number, serial = value[start : start + _NUMBER_DIGITS], value[start + _NUMBER_DIGITS :]
        return _identifier((key, number), f"{key}.{serial}" if serial else CLASS_SUFFIX)
    if qualifier:
        return _identifier((key, value), f"{qualifier[0]}.{qualifier[1]}")
    if key in _CLASSES:
        return _identifier((key, value), CLASS_SUFFIX)
    return _identifier((key,), value)


def _identifier(labels: tuple[str, ...], suffix: str) -> Identifier:
    return Identifier(Prefix((GS1_LABEL, *labels)), suffix)


def elements_of(identifier: Identifier) -> Elements:
    """The key, and the qualifier if there is one, that an identifier under ``gs1`` names.

    Raises:
        InputError: GS1_MALFORMED, GS1_CHECK_DIGIT, GS1_AI_RULE or IDENTIFIER_NOT_CANONICAL: it names none.
    """
    elements = _take_apart(identifier)
    for ai, value in elements:
        check_value(ai, value)
    _check_extension(elements)
    check_together(elements)
    again, _ = identify(elements)
    if again != identifier:
        raise InputError(
            Reason.IDENTIFIER_NOT_CANONICAL, f"{quoted(str(identifier))}: write {quoted(str(again))}", field="text"
        )
    return elements


def _take_apart(identifier: Identifier) -> Elements:
    suffix = identifier.suffix
    tag, dot, rest = suffix.partition(".")
    elements: Elements
    match identifier.prefix.labels:
        case ("gs1", "8010") if tag == "8011" and dot:
            serial, _, part = rest.partition(".")
            elements = (("8010", part), ("8011", serial))
        case ("gs1", "8004", "7040") if suffix[_UIC_CHARS : _UIC_CHARS + 1] == ".":
            elements = (("8004", suffix[_UIC_CHARS + 1 :]), ("7040", suffix[:_UIC_CHARS]))
        case ("gs1", ai) if ai in _WHOLE:
            elements = ((ai, suffix),)
        case ("gs1", ai, number) if ai in _SERIAL_INSIDE and suffix == CLASS_SUFFIX:
            elements = ((ai, _SERIAL_INSIDE[ai] + number),)
        case ("gs1", ai, number) if ai in _SERIAL_INSIDE and tag == ai and dot:
            elements = ((ai, _SERIAL_INSIDE[ai] + number + rest),)
        case ("gs1", "01", number) if len(number) in GTIN_DIGITS - {14}:
            raise InputError(
                Reason.IDENTIFIER_NOT_CANONICAL, f"a GTIN has 14 digits: write {gtin14(number)}", field="text"
            )
        case ("gs1", ai, number) if ai in _CLASSES and suffix == CLASS_SUFFIX:
            elements = ((ai, number),)
        case ("gs1", ai, number) if ai in _SPLIT and tag in _QUALIFIERS[ai] and dot:
            elements = ((ai, number), (tag, rest))
        case _:
            raise InputError(
                Reason.GS1_MALFORMED,
                f"{quoted(str(identifier))} is no form of a GS1 key; see idtrace.gs1",
                field="text",
            )
    return elements


def _check_extension(elements: Elements) -> None:
    if ("254", "0") in elements:
        raise InputError(
            Reason.GS1_MALFORMED, "AI (254): the extension 0 means that there is none; leave it out", field="text"
        )


def check_elements(elements: Elements) -> None:
    """Check elements of one message against one another (their values are checked as they are read).

    Raises:
        InputError: GS1_AI_RULE or GS1_MALFORMED.
    """
    check_together(elements)
    _check_extension(elements)


def to_element_string(identifier: Identifier) -> str:
    """The element string of the key alone, begun with FNC1, as a GS1 symbol is.

    The FNC1 also keeps a key such as 8004 from reading as a bare number or a drug trace code.

    Raises:
        InputError: as :func:`elements_of`.
    """
    text = FNC1
    elements = elements_of(identifier)
    for ai, value in elements:
        text += ai + value
        if ai_at(ai).separator_required and (ai, value) != elements[-1]:
            text += FNC1
    return text


def to_digital_link(identifier: Identifier, domain: str = "https://id.gs1.org") -> str:
    """The GS1 Digital Link URI of the key, percent-encoded.

    Raises:
        InputError: as :func:`elements_of`.
    """
    return domain + "".join(f"/{ai}/{quote(value, safe='')}" for ai, value in elements_of(identifier))

"""GS1 Digital Link URIs, uncompressed.

``https://any.domain/any/prefix/01/09506000134352/10/LOT/21/SN?17=261231&linkType=gs1:pip``: the path ends in a key, its
qualifiers in their order, each percent-decoded once; AIs in the query are attributes, other query names are ignored.

Refused, because two readers could take two meanings from them, or because the standard dropped them: words for AIs
(``/gtin/…/ser/…``), compressed links, a key in the path prefix, a fragment (an unescaped ``#`` of a component number
would vanish), a user name, an AI twice, a qualifier in the query, a query name of digits that is no AI, an
unescaped ``+`` or ``;`` in an attribute (both have meant something else in queries).

A GTIN of 8, 12 or 13 digits is padded to 14, as the standard's syntax has long allowed.

Source: GS1 Digital Link Standard: URI Syntax §4 (grammar), RFC 3986 §2.1 (percent-encoding), §3 (parts of a URI).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NoReturn

from idtrace.errors import InputError, Reason, quoted
from idtrace.gs1 import GTIN_DIGITS, KEYS, check_elements, gtin14
from idtrace.gs1_rules import ELEMENTS_MAX, ai_at, check_value

if TYPE_CHECKING:
    from idtrace.gs1_rules import Element, Elements

_URI = re.compile(
    r"(?i:https?)://(?P<host>[A-Za-z0-9.-]+(?::[0-9]{1,5})?)(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?\Z",
    re.DOTALL,
)
_ENCODED = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*\Z")
_TRIPLET = re.compile(r"%([0-9A-Fa-f]{2})")
# Qualifiers that may follow a key, in order; several rows are alternatives.
_SEQUENCES: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "01": (("22", "10", "21"), ("235",)),
    "8006": (("22", "10", "21"),),
    "414": (("254",), ("7040",)),
    "415": (("8020",),),
    "417": (("7040",),),
    "8004": (("7040",),),
    "8010": (("8011",),),
    "8017": (("8019",),),
    "8018": (("8019",),),
}
# AIs that the standard does not admit in a query: they qualify, or make another key.
NOT_IN_QUERY: Final = re.compile(r"(?:03|21|22|235|254|704[01]|80(?:11|14|19|20|4[0-3])|8200)\Z")
# The words that version 1.0 had for keys (dropped since: they clash with path prefixes).
_WORD = re.compile(
    r"(?:gtin|itip|cpid|gln|payto|partygln|gsrnp?|gcn|sscc|gdti|ginc|gsin|grai|giai|gmn)\Z",
    re.IGNORECASE,
)
# A whole compressed link is one base64url segment: a GTIN alone takes nine characters.
_COMPRESSED = re.compile(r"(?=[^/]*[A-Z])(?=[^/]*[a-z0-9])[A-Za-z0-9_-]{9,}\Z")


def _refuse(rule: str, reason: Reason = Reason.GS1_MALFORMED) -> NoReturn:
    raise InputError(reason, rule, field="text")


def read_link(text: str) -> tuple[Elements, Elements]:
    """Read a Digital Link URI: what its path names, and the attributes of its query.

    Raises:
        InputError: GS1_MALFORMED, GS1_CHECK_DIGIT, GS1_AI_RULE, or GS1_NO_KEY (a web address, but no Digital Link).
    """
    uri = _URI.match(text)
    if uri is None or not text.isascii():
        _refuse(f"{quoted(text)} is not an http or https address of host, path and query in ASCII")
    if uri["fragment"] is not None:
        _refuse("a Digital Link has no fragment; '#' in a value is written %23")
    named = _read_path(uri["path"] or "")
    attributes = _read_query(uri["query"] or "")
    check_elements(named + attributes)
    return named, attributes


def _read_path(path: str) -> Elements:
    segments = path.split("/")[1:]
    start = _key_at(segments)
    key = segments[start]
    pairs = list(zip(segments[start::2], segments[start + 1 :: 2], strict=True))
    _check_order(key, [ai for ai, _ in pairs[1:]])
    return tuple(_element(ai, value) for ai, value in pairs)


def _key_at(segments: list[str]) -> int:
    """Where the key stands: the last place an even number of segments from the end that holds one."""
    places = [at for at in range(len(segments) % 2, len(segments), 2) if segments[at] in KEYS]
    if not places:
        words = [segment for segment in segments if _WORD.match(segment)]
        if words:
            _refuse(f"{quoted(words[0])} is a word of version 1.0; write its AI in digits")
        if any(segment in KEYS for segment in segments):
            _refuse("a GS1 key, or a qualifier after it, has no value")
        if segments and _COMPRESSED.match(segments[-1]):
            _refuse("no GS1 key in the path; a compressed Digital Link must be expanded first", Reason.GS1_NO_KEY)
        _refuse("no GS1 key in the path of this web address", Reason.GS1_NO_KEY)
    start = places[-1]
    if any(segment in KEYS for segment in segments[:start]):
        _refuse("two GS1 keys in one path")
    return start


def _check_order(key: str, qualifiers: list[str]) -> None:
    for sequence in _SEQUENCES.get(key, ((),)):
        left = iter(sequence)
        if all(qualifier in left for qualifier in qualifiers):
            return
    shown = " or ".join("/".join(sequence) for sequence in _SEQUENCES.get(key, ())) or "nothing"
    found = quoted("/".join(qualifiers))
    _refuse(f"after AI {key} a path may have {shown}, in that order, and not {found}", Reason.GS1_AI_RULE)


def _read_query(query: str) -> Elements:
    elements: list[Element] = []
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if "%" in name and _decoded(name).isdecimal():
            _refuse(f"the query name {quoted(name)} is an AI in disguise")
        if not name.isdecimal():
            continue  # linkType, context, a shop's own parameters
        if NOT_IN_QUERY.match(name):
            _refuse(f"AI {name} may not stand in the query", Reason.GS1_AI_RULE)
        if ai_at(name).ai != name:
            _refuse(f"the query name {quoted(name)} is all digits and no GS1 AI")
        if "+" in value or ";" in value:
            _refuse(f"AI {name}: '+' and ';' are written %2B and %3B in a query")
        if len(elements) == ELEMENTS_MAX:
            _refuse(f"a query has at most {ELEMENTS_MAX} AIs")
        elements.append(_element(name, value))
    return tuple(elements)


def _decoded(encoded: str) -> str:
    return _TRIPLET.sub(lambda triplet: chr(int(triplet[1], 16)), encoded)


def _element(ai: str, encoded: str) -> Element:
    if _ENCODED.match(encoded) is None:
        _refuse(f"AI {ai}: {quoted(encoded)} has a '%' without two hexadecimal digits after it")
    value = _decoded(encoded)
    if ai in {"01", "02"} and value.isdecimal() and len(value) in GTIN_DIGITS:
        value = gtin14(value)
    check_value(ai, value)
    return ai, value

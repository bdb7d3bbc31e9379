"""EPC URIs of the pure identity, and the class URIs that EPCIS uses.

``urn:epc:id:sgtin:4012345.012345.12``, ``urn:epc:class:lgtin:…``, ``urn:epc:idpat:sgtin:4012345.012345.*``. The URI
splits a GS1 key at the company prefix (6 to 12 digits) and leaves the check digit out; reading it joins the parts and
computes the digit. An SGLN extension ``0`` means none and is dropped. Of the characters of a serial number, these and
only these are percent-encoded: ``" % & / < > ?`` (and ``#`` in a component number).

Refused: schemes that map to no GS1 key (gid, usdod, adi, bic, imovn), tag and raw URIs (they say how a tag is written,
not what it is on), patterns other than a final ``*``, capitals in the fixed parts.

Sources: EPC Tag Data Standard 1.13 §6.3 (schemes), §7 (which GS1 key is which), §8 (patterns), Appendix A (escapes).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from biip.checksums import gs1_standard_check_digit

from idtrace.errors import InputError, Reason, quoted
from idtrace.gs1 import check_elements
from idtrace.gs1_rules import check_value

if TYPE_CHECKING:
    from idtrace.gs1_rules import Elements

_COMPANY = re.compile(r"[0-9]{6,12}\Z")
_DIGITS = re.compile(r"[0-9]*\Z")
_PAIR = re.compile(r"[0-9]{2}\Z")
_ESCAPED = re.compile(r"""(?:[!'()*+,\-.0-9:;=A-Z_a-z]|%2[256Ff]|%3[CcEeFf])*\Z""")
_ESCAPED_PART = re.compile(r"(?:[\-0-9A-Z]|%2[3Ff])*\Z")
_TRIPLET = re.compile(r"%([0-9A-Fa-f]{2})")
_EVERY: Final = "*"  # in a pattern: every serial, so the class


@dataclass(frozen=True, slots=True)
class _Scheme:
    """How one scheme's fields make a key.

    Attributes:
        ai: the key's AI.
        digits: company prefix and reference together; 0 where the reference is text.
        leading: whether the first digit of the reference goes before the company prefix.
        pieces: whether piece and total follow, two digits each.
        serial: AI of the last field; the key's own AI if the serial stands in the key; "" if there is none.
    """

    ai: str
    digits: int
    leading: bool = False
    pieces: bool = False
    serial: str = ""


_IDS: Final = {
    "sgtin": _Scheme("01", 13, leading=True, serial="21"),
    "upui": _Scheme("01", 13, leading=True, serial="235"),
    "itip": _Scheme("8006", 13, leading=True, pieces=True, serial="21"),
    "sscc": _Scheme("00", 17, leading=True),
    "sgln": _Scheme("414", 12, serial="254"),
    "pgln": _Scheme("417", 12),
    "grai": _Scheme("8003", 12, serial="8003"),
    "gdti": _Scheme("253", 12, serial="253"),
    "sgcn": _Scheme("255", 12, serial="255"),
    "gsrn": _Scheme("8018", 17),
    "gsrnp": _Scheme("8017", 17),
    "gsin": _Scheme("402", 16),
    "giai": _Scheme("8004", 0),
    "ginc": _Scheme("401", 0),
    "cpi": _Scheme("8010", 0, serial="8011"),
}
_CLASSES: Final = {"lgtin": _Scheme("01", 13, leading=True, serial="10")}
_PATTERNS: Final = {name: _IDS[name] for name in ("sgtin", "upui", "itip", "grai", "gdti", "sgcn", "cpi")}
_KINDS: Final = {"id": _IDS, "class": _CLASSES, "idpat": _PATTERNS}


def _refuse(rule: str, reason: Reason = Reason.GS1_MALFORMED) -> NoReturn:
    raise InputError(reason, rule, field="text")


def read_urn(text: str) -> Elements:
    """Read an EPC URI.

    Raises:
        InputError: SCAN_UNKNOWN_SCHEME (no URI of a GS1 key), GS1_MALFORMED, GS1_CHECK_DIGIT or GS1_AI_RULE.
    """
    urn, *parts = text.split(":", 4)
    if len(parts) != 4 or urn != "urn" or parts[0] != "epc":
        _refuse(f"{quoted(text)} is not urn:epc:…, in small letters", Reason.SCAN_UNKNOWN_SCHEME)
    _, kind, name, body = parts
    scheme = _KINDS.get(kind, {}).get(name)
    if scheme is None:
        _refuse(f"urn:epc:{quoted(kind)}:{quoted(name)} names no GS1 key", Reason.SCAN_UNKNOWN_SCHEME)
    elements = _read_fields(scheme, body, pattern=kind == "idpat")
    for ai, value in elements:
        check_value(ai, value)
    check_elements(elements)
    return elements


def _read_fields(scheme: _Scheme, body: str, *, pattern: bool) -> Elements:
    count = 2 + 2 * scheme.pieces + bool(scheme.serial)
    fields = body.split(".", count - 1)  # a serial, last, may hold dots of its own
    if len(fields) != count:
        _refuse(f"{quoted(body)} does not have {count} fields")
    if pattern and fields[-1] != _EVERY:
        _refuse(f"a pattern names a class only if it ends in '.{_EVERY}'")
    if _COMPANY.match(fields[0]) is None:
        _refuse(f"company prefix {quoted(fields[0])} is not 6 to 12 digits")
    key = _number(scheme, fields) if scheme.digits else _text_key(scheme, fields)
    if not scheme.serial or pattern:
        return ((scheme.ai, key),)
    serial = _decoded(fields[-1], _ESCAPED)
    if not serial:
        _refuse("the serial is empty")
    if scheme.serial == scheme.ai:
        return ((scheme.ai, key + serial),)
    if scheme.serial == "254" and serial == "0":
        return ((scheme.ai, key),)
    return ((scheme.ai, key), (scheme.serial, serial))


def _number(scheme: _Scheme, fields: list[str]) -> str:
    company, reference = fields[:2]
    if _DIGITS.match(reference) is None or len(company) + len(reference) != scheme.digits:
        _refuse(f"{quoted(company)} and {quoted(reference)} do not make {scheme.digits} digits together")
    # Where a digit leads, there are at least 13, and no company prefix has them all: the reference is not empty.
    digits = reference[0] + company + reference[1:] if scheme.leading else company + reference
    key = digits + str(gs1_standard_check_digit(digits))
    if scheme.pieces:
        if not all(_PAIR.match(field) for field in fields[2:4]):
            _refuse("piece and total do not have two digits each")
        key += fields[2] + fields[3]
    return "0" + key if scheme.ai == "8003" else key


def _text_key(scheme: _Scheme, fields: list[str]) -> str:
    reference = _decoded(fields[1], _ESCAPED_PART if scheme.ai == "8010" else _ESCAPED)
    if not reference:
        _refuse("the reference after the company prefix is empty")
    return fields[0] + reference


def _decoded(field: str, allowed: re.Pattern[str]) -> str:
    if allowed.match(field) is None:
        _refuse(f"{quoted(field)} has a character that must be escaped, or an escape that must not be one")
    return _TRIPLET.sub(lambda triplet: chr(int(triplet[1], 16)), field)

r"""Any scanned text to one identifier: :func:`scan`.

What the text is, is decided in this order, without trying one form after another:

1. One line end (CR, LF or CR LF) at the very end is dropped: keyboard-wedge readers add it, and no code can hold one.
   Nothing else is stripped.
2. A symbology identifier (``]d2``…) says what the reader saw: a GS1 symbol (element string), a GTIN symbol (8, 13 or 14
   digits), or a plain symbol (anything but an element string or bare GTIN, which plain symbols do not carry).
3. FNC1 (``\x1d``) anywhere: element string. "(" first: element string in brackets. ``http(s)://`` first: GS1 Digital
   Link. ``urn:`` first: EPC URI.
4. Digits alone: 8, 12, 13 or 14 of them are a GTIN; 20 that begin with 8 are a China drug trace code; any others are an
   element string. An SSCC with its AI also has 20 digits but begins with 00, so the two never meet. A key (8004, 401…)
   whose element string looks like either must come with its symbology identifier, FNC1 or brackets.
5. Sixteen digits first: element string (every AI with such a start has a number there). No native prefix may begin so;
   :func:`check_scheme` sees to it.
6. A "/" in it: native text. Two digits first and no "/": element string. The rest is refused.

Drug trace code: 20 digits of which the first seven name drug and package, the other thirteen the single box:
``drug.<7>/<13>``. Operators filter codes that do not begin with 8 before all else, and so does this.

Sources: GS1 General Specifications §5 (symbology identifiers, ISO/IEC 15424) and §7.8; NMPAB/T 1002-2019 (trace code).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from idtrace.errors import InputError, Reason, quoted
from idtrace.gs1 import FNC1, GTIN_DIGITS, elements_of, gtin14, identify
from idtrace.gs1_epc import read_urn
from idtrace.gs1_link import read_link
from idtrace.gs1_rules import check_value
from idtrace.gs1_text import read_printed, read_sent
from idtrace.identifier import Identifier, Prefix

if TYPE_CHECKING:
    from idtrace.gs1_rules import Elements

# A web address beyond this is cut by readers and browsers; the longest GS1 message in use is far shorter.
TEXT_CHARS_MAX: Final = 2048
DRUG_LABEL: Final = "drug"
DRUG_CODE_DIGITS: Final = 20
_DRUG_DIGITS: Final = 7
_SERIAL_DIGITS: Final = 13
DRUG_CLASS_SUFFIX: Final = "class"

_ASCII_DIGITS = re.compile(r"[0-9]+\Z")
_DRUG_CODE = re.compile(r"8[0-9]{19}\Z")
_SIXTEEN_DIGITS = re.compile(r"[0-9]{16}")
_TWO_DIGITS = re.compile(r"[0-9]{2}")
_LINK = re.compile(r"https?://", re.IGNORECASE)
_URN = re.compile(r"urn:", re.IGNORECASE)
_SYMBOLOGY = re.compile(r"\][A-Za-z][0-9a-zA-Z]")

# Symbology identifiers: GS1 messages; GTINs with their digits; plain symbols by their letter, whatever the modifier
# (A Code 39, C Code 128, L PDF417, Q QR, U MaxiCode, X other, Z none, d Data Matrix, z Aztec), of which FNC1 ones that
# are not GS1's (AIM, or with an ECI) are taken out.
_GS1_SYMBOLS: Final = frozenset({"]C1", "]e0", "]d2", "]Q3", "]J1"})
_GTIN_SYMBOLS: Final = {"]E0": 13, "]E4": 8, "]I1": 14}
_PLAIN_LETTERS: Final = frozenset("ACLQUXZdz")
_FOREIGN_FNC1: Final = frozenset({"]C2", "]d3", "]d5", "]d6", "]Q4", "]Q5", "]Q6"})


class Scheme(StrEnum):
    """Whose rules an identifier obeys."""

    NATIVE = "native"
    GS1 = "gs1"
    DRUG = "drug"


class Form(StrEnum):
    """How the text was written."""

    NATIVE = "native"
    ELEMENT_STRING = "element-string"
    BRACKETED = "bracketed"
    DIGITAL_LINK = "digital-link"
    EPC_URN = "epc-urn"
    GTIN = "gtin"
    DRUG_CODE = "drug-code"


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a scanned text says.

    Attributes:
        identifier: the one thing, class, place … that it names.
        scheme: whose rules the identifier obeys.
        form: how it was written.
        attributes: for GS1, the other AIs with their values, in order: claims of the label that nobody verified.
    """

    identifier: Identifier
    scheme: Scheme
    form: Form
    attributes: tuple[tuple[str, str], ...] = ()


def scan(text: str) -> Scanned:
    """Read any scanned text.

    Raises:
        InputError: with ``field="text"``: IDENTIFIER_*, SCAN_UNKNOWN_SCHEME, GS1_* or DRUG_CODE_MALFORMED.
    """
    if len(text) > TEXT_CHARS_MAX:
        raise InputError(
            Reason.IDENTIFIER_TOO_LONG, f"scanned text has at most {TEXT_CHARS_MAX} characters", field="text"
        )
    code = text.removesuffix("\n").removesuffix("\r")
    if code.startswith("]"):
        return _scan_symbol(code)
    if FNC1 in code:
        return _element_string(code)
    if _ASCII_DIGITS.match(code):
        return _scan_digits(code)
    if _SIXTEEN_DIGITS.match(code) or (_TWO_DIGITS.match(code) and "/" not in code):
        return _element_string(code)
    return _scan_text(code)


def _scan_symbol(text: str) -> Scanned:
    mark = _SYMBOLOGY.match(text)
    symbol, code = (mark[0], text[3:]) if mark else ("", text)
    if symbol in _GS1_SYMBOLS:
        return _element_string(code)
    if symbol in _GTIN_SYMBOLS:
        digits = _GTIN_SYMBOLS[symbol]
        if len(code) != digits or not _ASCII_DIGITS.match(code):
            raise InputError(Reason.GS1_MALFORMED, f"a symbol {symbol} holds {digits} digits", field="text")
        return _gtin(code)
    if symbol[1:2] in _PLAIN_LETTERS and symbol not in _FOREIGN_FNC1:
        if _DRUG_CODE.match(code):
            return _drug_code(code)
        if FNC1 in code or _ASCII_DIGITS.match(code) or _SIXTEEN_DIGITS.match(code):
            raise InputError(
                Reason.SCAN_UNKNOWN_SCHEME, f"{symbol} is not a GS1 symbol, so its digits are no GS1 key", field="text"
            )
        return _scan_text(code)
    raise InputError(Reason.SCAN_UNKNOWN_SCHEME, f"no rule for the symbology of {quoted(text, 20)}", field="text")


def _scan_digits(code: str) -> Scanned:
    if len(code) in GTIN_DIGITS:
        return _gtin(code)
    if _DRUG_CODE.match(code):
        return _drug_code(code)
    return _element_string(code)


def _scan_text(code: str) -> Scanned:
    if code.startswith("("):
        return _from_gs1(read_printed(code), Form.BRACKETED)
    if _LINK.match(code):
        named, attributes = read_link(code)
        identifier, unused = identify(named)
        return Scanned(identifier, Scheme.GS1, Form.DIGITAL_LINK, unused + attributes)
    if _URN.match(code):
        return _from_gs1(read_urn(code), Form.EPC_URN)
    if "/" not in code:
        raise InputError(
            Reason.SCAN_UNKNOWN_SCHEME,
            f"{quoted(code)} is no identifier, GS1 key, web address, EPC or drug trace code",
            field="text",
        )
    identifier = Identifier.parse(code, field="text")
    check_scheme(identifier, field="text")
    return Scanned(identifier, scheme_of(identifier), Form.NATIVE)


def _element_string(code: str) -> Scanned:
    return _from_gs1(read_sent(code.removeprefix(FNC1)), Form.ELEMENT_STRING)


def _from_gs1(elements: Elements, form: Form) -> Scanned:
    identifier, attributes = identify(elements)
    return Scanned(identifier, Scheme.GS1, form, attributes)


def _gtin(code: str) -> Scanned:
    number = gtin14(code)
    check_value("01", number)
    return _from_gs1((("01", number),), Form.GTIN)


def _drug_code(code: str) -> Scanned:
    identifier = Identifier(Prefix((DRUG_LABEL, code[:_DRUG_DIGITS])), code[_DRUG_DIGITS:])
    return Scanned(identifier, Scheme.DRUG, Form.DRUG_CODE)


def scheme_of(identifier: Identifier) -> Scheme:
    """The scheme whose rules an identifier must obey, by its first label."""
    match identifier.prefix.labels[0]:
        case "gs1":
            return Scheme.GS1
        case "drug":
            return Scheme.DRUG
        case _:
            return Scheme.NATIVE


def check_scheme(identifier: Identifier, *, field: str = "identifier") -> None:
    """Check an identifier against the rules of its scheme; every registered identifier passes here.

    Raises:
        InputError: GS1_* or IDENTIFIER_NOT_CANONICAL under ``gs1``, DRUG_CODE_MALFORMED under ``drug``, and
            IDENTIFIER_MALFORMED for a first label that a reader could not tell from an element string.
    """
    match scheme_of(identifier):
        case Scheme.GS1:
            try:
                elements_of(identifier)
            except InputError as error:
                raise InputError(error.reason, error.detail, field=field) from None
        case Scheme.DRUG:
            labels = identifier.prefix.labels
            # What all boxes of one drug and package share stands in a class, as with GS1; no code has such a suffix.
            suffix = "0" * _SERIAL_DIGITS if identifier.suffix == DRUG_CLASS_SUFFIX else identifier.suffix
            digits = "".join(labels[1:]) + suffix
            if len(labels) != 2 or len(labels[1]) != _DRUG_DIGITS or _DRUG_CODE.match(digits) is None:
                rule = "is not drug.<7 digits, the first an 8>/<13 digits>, nor its /class"
                raise InputError(Reason.DRUG_CODE_MALFORMED, f"{quoted(str(identifier))} {rule}", field=field)
        case _:
            if _SIXTEEN_DIGITS.match(identifier.prefix.labels[0]):
                raise InputError(
                    Reason.IDENTIFIER_MALFORMED,
                    "a first label that begins with sixteen digits reads as a GS1 element string",
                    field=field,
                )

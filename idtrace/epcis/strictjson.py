"""JSON of which two readers cannot make two things: no duplicate names, no number that a double would round.

The text is parsed once, quickly. What is wrong inside of it does not end the parsing but leaves a mark, so that the
event in which it stands can be named and the others live. Sources: RFC 8259, RFC 7493 (I-JSON), RFC 8785.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

from idtrace.canonical import INTEGER_MAX
from idtrace.epcis.model import Json
from idtrace.epcis.rules import DOCUMENT_BYTES_MAX, NESTING_MAX, Fault, Rule
from idtrace.errors import quoted

# Longer than any double at its shortest (24 characters), so what is longer does not come back as it is.
_NUMBER_CHARS_MAX: Final = 64
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
# An escape that can spell half of a pair; where it does not occur, no text has to be looked at.
_ESCAPED_SURROGATE: Final = re.compile(rb"\\u[dD][89abAB]|\\u[dD][c-fC-F]")


class _Marked:
    """Stands where something is that must not be used; its fault is raised by :func:`require_sound`."""

    __slots__ = ("rule", "sentence")

    def __init__(self, rule: Rule, sentence: str) -> None:
        self.rule = rule
        self.sentence = sentence


def decode(data: bytes) -> tuple[Json, bool]:
    """A document, and whether something within it is marked (and has to be looked for).

    Numbers are int within 2**53 and Decimal else.

    Raises:
        Fault: JSON, SIZE or NESTING.
    """
    if len(data) > DOCUMENT_BYTES_MAX:
        raise Fault(Rule.SIZE, f"a document has at most {DOCUMENT_BYTES_MAX} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Fault(Rule.JSON, "the document is not UTF-8") from None
    marks = _Marks()
    try:
        value = marks.decoder.decode(text)
    except RecursionError:
        raise Fault(Rule.NESTING, f"brackets stand within brackets more than {NESTING_MAX} deep") from None
    except ValueError as error:
        raise Fault(Rule.JSON, f"not JSON: {quoted(str(error))}") from None
    return value, marks.found or _ESCAPED_SURROGATE.search(data) is not None


class _Marks:
    """A decoder that remembers whether it has marked anything."""

    def __init__(self) -> None:
        self.found = False
        self.decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_float=self._number,
            parse_int=self._integer,
            parse_constant=self._constant,
        )

    def _object(self, pairs: list[tuple[str, Json]]) -> Json:
        fields = dict(pairs)
        if len(fields) == len(pairs):
            return fields
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                fields[name] = self._mark(Rule.DUPLICATE_KEY, f"{quoted(name)} stands twice in one object")
            seen.add(name)
        return fields

    def _integer(self, text: str) -> Json:
        if len(text) < 16:  # below 10**15, and so within 2**53
            return int(text)
        return self._number(text)

    def _number(self, text: str) -> Json:
        try:
            value = exact(Decimal(text)) if len(text) <= _NUMBER_CHARS_MAX else None
        except ArithmeticError:  # an exponent beyond all bounds
            value = None
        if value is None:
            return self._mark(Rule.NUMBER, f"no double is {quoted(text)} exactly: write it as a text")
        return value

    def _constant(self, text: str) -> Json:
        return self._mark(Rule.NUMBER, f"{text} is no number of JSON")

    def _mark(self, rule: Rule, sentence: str) -> _Marked:
        self.found = True
        return _Marked(rule, sentence)


def exact(value: Decimal) -> int | Decimal | None:
    """The number itself if the nearest double is written as it (RFC 8785, 3.2.2.3), and else None.

    So 0.1 stays 0.1, and 0.1000000000000000055 is refused, though it is nearer to what a double holds.
    """
    if not value.is_finite() or Decimal(repr(float(value))) != value:
        return None
    if value != value.to_integral_value():
        return value
    return int(value) if abs(value) <= INTEGER_MAX else None  # beyond it integers are no longer told apart


def require_sound(value: Json, depth: int = NESTING_MAX) -> None:
    """Require that nothing in it is marked, and that every text can be written in UTF-8.

    Raises:
        Fault: DUPLICATE_KEY, NUMBER, SURROGATE or NESTING, with the path within ``value``.
    """
    if depth < 0:
        raise Fault(Rule.NESTING, f"brackets stand within brackets more than {NESTING_MAX} deep")
    if isinstance(value, _Marked):
        raise Fault(value.rule, value.sentence)
    if isinstance(value, str) and _SURROGATE.search(value):
        raise Fault(Rule.SURROGATE, "half of a pair of code units stands alone in this text")
    if not isinstance(value, Mapping | list):
        return
    inner: Iterable[tuple[str | int, Json]] = value.items() if isinstance(value, Mapping) else enumerate(value)
    for step, item in inner:
        try:
            require_sound(step, depth)
            require_sound(item, depth - 1)
        except Fault as fault:
            raise fault.below(step) from None

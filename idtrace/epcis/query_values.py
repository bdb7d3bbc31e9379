"""Values of query parameters: what a URL or a JSON body gives becomes texts, numbers and times, or is refused by name.

Beside them stands what all conditions are made of: comparisons, and judges of events.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from idtrace.coldchain.units import DIGITS_MAX, EXPONENT_MAX
from idtrace.epcis import values
from idtrace.epcis.context import Context
from idtrace.epcis.model import Event
from idtrace.epcis.rules import URI_CHARS_MAX, Fault
from idtrace.epcis.vocabulary import Vocabulary
from idtrace.errors import InputError, Reason, quoted

# All values of one query together: a delivery's pallets with their boxes; a URL of 8 KB has a fifth of it.
VALUES_MAX: Final = 1_000
# A URI, as in events.
VALUE_CHARS_MAX: Final = URI_CHARS_MAX

# Judges an event; the second argument is when it was recorded (UTC ms).
Test = Callable[[Event, int], bool]
Compare = Callable[[Any, Any], bool]
# The comparisons of numbers and times by the beginning of a parameter's name.
COMPARISONS: Final[Mapping[str, Compare]] = {
    "EQ": operator.eq,
    "GT": operator.gt,
    "GE": operator.ge,
    "LT": operator.lt,
    "LE": operator.le,
}
_NUMBER: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,2})?\Z", re.ASCII)
_HALF: Final = re.compile(r"[\ud800-\udfff]")
_COUNT: Final = re.compile(r"\d{1,9}\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Judge:
    """A test, and the keys one of which every event that passes it mentions (none where that is not known)."""

    test: Test
    keys: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Asked:
    """A parameter as it was given: its name, its values as texts, and what prefixes in it stand for."""

    name: str
    values: tuple[str, ...]
    context: Context = field(default_factory=lambda: Context(standard=True))

    def refuse(self, rule: str, reason: Reason = Reason.FIELD_MALFORMED) -> InputError:
        """The refusal of this parameter, by its name."""
        return InputError(reason, rule, field=self.name)

    def texts(self) -> tuple[str, ...]:
        """One value or more, none of them empty."""
        if not self.values or not all(self.values):
            raise self.refuse("a value is missing")
        return self.values

    def one(self) -> str:
        """The only value."""
        texts = self.texts()
        if len(texts) != 1:
            raise self.refuse("this parameter has one value")
        return texts[0]

    def presence(self) -> None:
        """Require that no value is given, or one that says that something is there (8.2.7.1: a void holder)."""
        if any(value.lower() not in {"", "1", "true"} for value in self.values):
            raise self.refuse("asks whether something is there, and has no value")

    def words(self, vocabulary: Vocabulary) -> frozenset[str]:
        """Words of a vocabulary in any of their spellings, or URIs of others."""
        return frozenset(self._read(vocabulary.read, text) for text in self.texts())

    def _read(self, read: Callable[[object, Context], Any], text: str) -> Any:
        try:
            return read(text, self.context)
        except Fault as fault:
            raise self.refuse(f"{fault.rule}: {fault.sentence}") from None

    def time_ms(self) -> int:
        """The only value, a date and time with an offset, in UTC ms."""
        found: int = self._read(values.time_ms, self.one())
        return found

    def numbers(self) -> tuple[Decimal, ...]:
        """Numbers, each with 30 digits at most."""
        found = tuple(number_of(text) for text in self.texts())
        exact = tuple(number for number in found if number is not None)
        if len(exact) != len(found):
            raise self.refuse(f"numbers stand here, of {DIGITS_MAX} digits at most")
        return exact

    def count(self) -> int:
        """The only value, a whole number from 1 on."""
        text = self.one()
        if _COUNT.match(text) is None or int(text) == 0:
            raise self.refuse("a whole number from 1 to 999999999 stands here")
        return int(text)

    def boolean(self) -> bool:
        """The only value, true or false."""
        text = self.one().lower()
        if text not in {"true", "false"}:
            raise self.refuse("true or false stands here")
        return text == "true"


def number_of(text: str) -> Decimal | None:
    """The number that a text is, None where it is none that can be compared."""
    if len(text) > 2 * DIGITS_MAX or _NUMBER.match(text) is None:
        return None
    number = Decimal(text)
    _, digits, exponent = number.as_tuple()
    return number if len(digits) <= DIGITS_MAX and abs(int(exponent)) <= EXPONENT_MAX else None


def time_of(text: str) -> int | None:
    """The moment that a text is, in UTC ms, None where it is none."""
    try:
        return values.time_ms(text, Context())
    except Fault:
        return None


def asked(name: str, value: object, context: Context, *, split: bool) -> Asked:
    """A parameter out of a URL or a JSON body.

    Args:
        name: the parameter's.
        value: a text, a number, true, None, or a list of these.
        context: what prefixes stand for.
        split: whether ``a|b`` are two texts.

    Raises:
        InputError: FIELD_MALFORMED, FIELD_TOO_LARGE.
    """
    items = [] if value is None else value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if isinstance(value, Mapping | bytes | bytearray):
        raise InputError(Reason.FIELD_MALFORMED, "a text, a number, true or a list of these stands here", field=name)
    texts: list[str] = []
    for item in items:
        text = _text(name, item)
        texts += text.split("|") if split else [text]
        # Looked at while they are read, so that a flood of them is not read to its end.
        _require_sound(name, texts[-1:], len(texts))
    _require_sound(name, texts, len(texts))
    return Asked(name, tuple(texts), context)


def _require_sound(name: str, texts: Sequence[str], count: int) -> None:
    if count > VALUES_MAX:
        raise InputError(Reason.FIELD_TOO_LARGE, f"a query has at most {VALUES_MAX} values", field=name)
    if any(len(text) > VALUE_CHARS_MAX for text in texts):
        raise InputError(Reason.FIELD_TOO_LARGE, f"a value has at most {VALUE_CHARS_MAX} characters", field=name)
    # JSON can name half a character (RFC 7493, section 2.1); no event has one, and no store could look for it.
    if any(_HALF.search(text) for text in texts):
        raise InputError(Reason.FIELD_MALFORMED, "half a character stands here (a lone surrogate)", field=name)


def _text(name: str, item: object) -> str:
    match item:
        case str():
            return item
        case bool():
            return "true" if item else "false"
        case int() | float() | Decimal():
            # A whole number of more digits than a text may have is no number that anybody means, nor cheap to write.
            if isinstance(item, int) and item.bit_length() > VALUE_CHARS_MAX:
                raise InputError(Reason.FIELD_TOO_LARGE, "a number has at most 30 digits", field=name)
            return str(item)
        case _:
            rule = f"a text, a number or true stands here, not {quoted(type(item).__name__)}"
            raise InputError(Reason.FIELD_MALFORMED, rule, field=name)

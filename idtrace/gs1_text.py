r"""GS1 element strings, as readers send them and as people print them.

Sent: AI and value, AI and value …; a value without predefined length ends at FNC1 (``\x1d``) or at the end. One FNC1
may stand first, and one after any value that another follows (General Specifications §7.8.6 has decoders bear one after
a predefined length); two together, or one at the very end, are refused. A field that lacks its FNC1 is not guessed at.

Printed: ``(01)09506000134352(21)X``. A "(" in a value is written ``\(``, because AIs begin with one; ")" stands alone.

Sources: GS1 General Specifications §7.8 (processing of element strings), GS1 Barcode Syntax Engine (bracketed syntax).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NoReturn

from idtrace.errors import InputError, Reason, quoted
from idtrace.gs1 import FNC1, check_elements
from idtrace.gs1_rules import ELEMENTS_MAX, ai_at, check_value, predefined_length

if TYPE_CHECKING:
    from idtrace.gs1_rules import Element, Elements

_PRINTED = re.compile(r"\(([0-9]{2,4})\)((?:[^(\\]|\\\()*)")


def _refuse(rule: str) -> NoReturn:
    raise InputError(Reason.GS1_MALFORMED, rule, field="text")


def read_sent(text: str) -> Elements:
    """Read a message as a reader sends it, without symbology identifier and without a first FNC1.

    Raises:
        InputError: GS1_MALFORMED, GS1_CHECK_DIGIT or GS1_AI_RULE.
    """
    elements: list[Element] = []
    rest = text
    while True:
        ai = ai_at(rest).ai
        rest = rest[len(ai) :]
        length = predefined_length(ai)
        value = rest.partition(FNC1)[0] if length is None else rest[:length]
        elements.append(_checked(ai, value, elements))
        rest = rest[len(value) :]
        if not rest:
            break
        if rest[0] == FNC1:
            rest = rest[1:]
            if not rest or rest[0] == FNC1:
                _refuse("an FNC1 stands at the end, or two stand together")
    check_elements(tuple(elements))
    return tuple(elements)


def read_printed(text: str) -> Elements:
    """Read a message as printed, with its AIs in brackets.

    Raises:
        InputError: GS1_MALFORMED, GS1_CHECK_DIGIT or GS1_AI_RULE.
    """
    elements: list[Element] = []
    at: Final = len(text)
    start = 0
    while start < at:
        field = _PRINTED.match(text, start)
        if field is None:
            _refuse(f"{quoted(text[start:], 20)} is not an AI in brackets; in a value '(' is written '\\('")
        ai = ai_at(field[1]).ai
        if ai != field[1]:
            _refuse(f"({field[1]}) is not a GS1 AI")
        elements.append(_checked(ai, field[2].replace("\\(", "("), elements))
        start = field.end()
    check_elements(tuple(elements))
    return tuple(elements)


def _checked(ai: str, value: str, before: list[Element]) -> Element:
    if len(before) == ELEMENTS_MAX:
        _refuse(f"a message has at most {ELEMENTS_MAX} AIs")
    check_value(ai, value)
    return ai, value

"""Codes: which texts are drug trace codes, and why the others are none (NMPAB/T 1002-2019).

Operators filter texts that have not 20 digits, or do not begin with 8, before all else; every refusal has its reason,
so a warehouse sees at once whether a scanner, a file or a code is at fault.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from idtrace.errors import InputError, Reason, quoted
from idtrace.identifier import Identifier
from idtrace.scan import DRUG_CODE_DIGITS, DRUG_LABEL

# Codes of one query, as the national platform's interface has it.
CODES_MAX: Final = 1_000
# Sub-codes on one page of an answer, likewise.
CHILDREN_PAGE: Final = 50
_DIGITS: Final = frozenset("0123456789")
_DRUG_DIGITS: Final = 7


class Unfit(StrEnum):
    """Why a text is no code."""

    EMPTY = "empty"
    NOT_DIGITS = "not_digits"
    LENGTH = "length"  # not 20 digits
    FIRST_DIGIT = "first_digit"  # not an 8
    TWICE = "twice"  # it stands in the list already


_RULES: Final = {
    Unfit.EMPTY: "a code is missing",
    Unfit.NOT_DIGITS: "a code has digits alone",
    Unfit.LENGTH: "a code has 20 digits",
    Unfit.FIRST_DIGIT: "a code begins with 8",
    Unfit.TWICE: "the code stands in the list already",
}


@dataclass(frozen=True, slots=True)
class Rejected:
    """A text that is no code; ``index`` counts from 0."""

    index: int
    text: str
    why: Unfit

    @property
    def rule(self) -> str:
        """The rule that it breaks, as a sentence."""
        return _RULES[self.why]


def unfit(text: str) -> Unfit | None:
    """Why a text is no code; None where it is one."""
    if not text:
        return Unfit.EMPTY
    if not _DIGITS.issuperset(text):
        return Unfit.NOT_DIGITS
    if len(text) != DRUG_CODE_DIGITS:
        return Unfit.LENGTH
    return None if text[0] == "8" else Unfit.FIRST_DIGIT


def sort_out(texts: Iterable[str]) -> tuple[tuple[str, ...], tuple[Rejected, ...]]:
    """The codes in their order, each once, and what is none, each with its reason."""
    codes: dict[str, None] = {}
    rejected: list[Rejected] = []
    for index, text in enumerate(texts):
        why = unfit(text) or (Unfit.TWICE if text in codes else None)
        if why is None:
            codes[text] = None
        else:
            rejected.append(Rejected(index, text, why))
    return tuple(codes), tuple(rejected)


def identifier_of(code: str, *, field: str = "code") -> Identifier:
    """``drug.<7>/<13>`` of a code.

    Raises:
        InputError: DRUG_CODE_MALFORMED.
    """
    why = unfit(code)
    if why is not None:
        raise InputError(Reason.DRUG_CODE_MALFORMED, f"{quoted(code)}: {_RULES[why]}", field=field)
    return Identifier.parse(f"{DRUG_LABEL}.{code[:_DRUG_DIGITS]}/{code[_DRUG_DIGITS:]}")


def code_of(key: str) -> str:
    """The code that a key names, "" where it names none."""
    prefix, _, digits = key.partition("/")
    label, _, drug = prefix.partition(".")
    code = drug + digits
    return code if label == DRUG_LABEL and len(drug) == _DRUG_DIGITS and unfit(code) is None else ""

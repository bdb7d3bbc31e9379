"""Identifiers: grammar, canonical form, ancestors.

``identifier = prefix "/" suffix``, split at the FIRST "/" (a suffix may hold more of them). A prefix is dot-separated
labels, ASCII and case-insensitive, canonical in lower case; labels are strings: ``0042`` keeps its zeros. A suffix is
exact: case-sensitive, UTF-8 in NFC, no control or format characters. Lower-casing the prefix is the grammar's only
rewriting; whatever else is not canonical is refused with its rule, never repaired.

Sources: national node connection guide (prefix and suffix, lengths 64 and 255), RFC 3651 §2 (UTF-8, ASCII case folding
of prefixes), Unicode UAX #15 (NFC).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from idtrace.errors import InputError, Reason, quoted

# Lengths of the product that enterprises use today (whole 255, prefix 64): every stored form fits one index key.
IDENTIFIER_BYTES_MAX: Final = 255
PREFIX_BYTES_MAX: Final = 64
# One label a node on the way down; eight is twice the deepest tree in use and bounds every walk.
LABELS_MAX: Final = 8

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?\Z")
# Cc control, Cf format (bidi overrides, zero width), Cs surrogate, Co private use, Cn unassigned (its NFC may change),
# Zl and Zp line and paragraph separators. Zs is not listed: U+0020 alone is allowed of it, see require_visible.
_REFUSED_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


@dataclass(frozen=True, slots=True, order=True)
class Prefix:
    """A zone's name: canonical labels, or none at all for the root.

    Build one with :meth:`parse`; the constructor trusts its caller.
    """

    labels: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, *, field: str = "prefix") -> Prefix:
        """Read ``88.118.8`` (any ASCII case); "" is the root.

        Raises:
            InputError: IDENTIFIER_MALFORMED or IDENTIFIER_TOO_LONG, naming the label and the rule.
        """
        if len(text) <= PREFIX_BYTES_MAX and (usual := _usual_prefix(text)) is not None:
            return usual
        if text == "":
            return ROOT
        if len(text.encode("utf-8", "surrogatepass")) > PREFIX_BYTES_MAX:
            raise InputError(Reason.IDENTIFIER_TOO_LONG, f"a prefix has at most {PREFIX_BYTES_MAX} bytes", field=field)
        if not text.isascii():
            raise InputError(
                Reason.IDENTIFIER_MALFORMED,
                f"prefix {quoted(text)} has a character outside ASCII",
                field=field,
            )
        labels = tuple(text.lower().split("."))
        if len(labels) > LABELS_MAX:
            raise InputError(Reason.IDENTIFIER_TOO_LONG, f"a prefix has at most {LABELS_MAX} labels", field=field)
        for label in labels:
            if _LABEL.match(label) is None:
                rule = "letters, digits, '-' and '_' inside, and starts and ends with a letter or digit"
                raise InputError(
                    Reason.IDENTIFIER_MALFORMED, f"label {quoted(label)} is not made of {rule}", field=field
                )
        return cls(labels)

    @classmethod
    def parse_canonical(cls, text: str, *, field: str = "prefix") -> Prefix:
        """As :meth:`parse`, but text that is not its own canonical form is refused.

        Raises:
            InputError: as :meth:`parse`, or IDENTIFIER_NOT_CANONICAL.
        """
        prefix = cls.parse(text, field=field)
        _require_canonical(text, str(prefix), field)
        return prefix

    def __str__(self) -> str:
        return ".".join(self.labels)

    @property
    def is_root(self) -> bool:
        """Whether this is the root of the tree."""
        return not self.labels

    @property
    def depth(self) -> int:
        """Number of labels; 0 for the root."""
        return len(self.labels)

    def within(self, zone: Prefix) -> bool:
        """Whether this prefix is ``zone`` or lies below it."""
        return self.labels[: len(zone.labels)] == zone.labels

    def strictly_within(self, zone: Prefix) -> bool:
        """Whether this prefix lies below ``zone`` and is not ``zone`` itself."""
        return len(self.labels) > len(zone.labels) and self.within(zone)

    def lineage(self) -> tuple[Prefix, ...]:
        """The root, then each prefix on the way down, this one last."""
        return tuple(Prefix(self.labels[:n]) for n in range(len(self.labels) + 1))


ROOT: Final = Prefix(())


# The zones that a node meets all day come back as they were; whoever asks for others all the time makes those of
# everybody be read again, as without this memory, and nothing worse.
@lru_cache(maxsize=4_096)
def _usual_prefix(text: str) -> Prefix | None:
    """The prefix that a canonical text of at most 64 characters names; None where it is not canonical, or is none."""
    labels = tuple(text.split("."))
    if len(labels) > LABELS_MAX or any(_LABEL.match(label) is None for label in labels):
        return None
    return Prefix(labels)


@dataclass(frozen=True, slots=True, order=True)
class Identifier:
    """One canonical identifier. Build one with :meth:`parse`; the constructor trusts its caller."""

    prefix: Prefix
    suffix: str

    @classmethod
    def parse(cls, text: str, *, field: str = "identifier") -> Identifier:
        """Read native text; ASCII case of the prefix is folded, nothing else is changed.

        Raises:
            InputError: IDENTIFIER_MALFORMED, IDENTIFIER_TOO_LONG or IDENTIFIER_NOT_CANONICAL.
        """
        if len(text) > IDENTIFIER_BYTES_MAX or len(text.encode("utf-8", "surrogatepass")) > IDENTIFIER_BYTES_MAX:
            raise InputError(
                Reason.IDENTIFIER_TOO_LONG,
                f"an identifier has at most {IDENTIFIER_BYTES_MAX} bytes of UTF-8",
                field=field,
            )
        head, slash, suffix = text.partition("/")
        if not slash:
            raise InputError(
                Reason.IDENTIFIER_MALFORMED,
                f"{quoted(text)} has no '/' between prefix and suffix",
                field=field,
            )
        if not head:
            raise InputError(Reason.IDENTIFIER_MALFORMED, f"{quoted(text)} has no prefix before its '/'", field=field)
        prefix = Prefix.parse(head, field=field)
        require_visible(suffix, what="suffix", field=field)
        return cls(prefix, suffix)

    @classmethod
    def parse_canonical(cls, text: str, *, field: str = "identifier") -> Identifier:
        """As :meth:`parse`, but text that is not its own canonical form is refused (records, denials).

        Raises:
            InputError: as :meth:`parse`.
        """
        identifier = cls.parse(text, field=field)
        _require_canonical(text, str(identifier), field)
        return identifier

    def __str__(self) -> str:
        return f"{self.prefix}/{self.suffix}"


def _require_canonical(text: str, canonical: str, field: str) -> None:
    if text != canonical:
        raise InputError(
            Reason.IDENTIFIER_NOT_CANONICAL,
            f"{quoted(text)} is not canonical; write {quoted(canonical)}",
            field=field,
        )


def require_visible(text: str, *, what: str = "text", field: str = "") -> None:
    """Refuse text that people could not tell apart on a screen: empty, invisible characters, edge spaces, not NFC.

    Raises:
        InputError: IDENTIFIER_MALFORMED or IDENTIFIER_NOT_CANONICAL, saying ``what`` is wrong.
    """
    if not text:
        raise InputError(Reason.IDENTIFIER_MALFORMED, f"the {what} is empty", field=field)
    if text.isascii() and text.isprintable() and text[0] != " " and text[-1] != " ":
        return  # nearly all of them; ASCII is always NFC
    for char in text:
        category = unicodedata.category(char)
        if category in _REFUSED_CATEGORIES or (category == "Zs" and char != " "):
            raise InputError(
                Reason.IDENTIFIER_MALFORMED,
                f"the {what} has the character U+{ord(char):04X}, which is not a visible one",
                field=field,
            )
    if text[0] == " " or text[-1] == " ":
        raise InputError(Reason.IDENTIFIER_MALFORMED, f"the {what} begins or ends with a space", field=field)
    if not unicodedata.is_normalized("NFC", text):
        raise InputError(Reason.IDENTIFIER_NOT_CANONICAL, f"the {what} is not in Unicode NFC", field=field)

"""Bodies that are signed: RFC 8785 canonical JSON, restricted to what we use, read strictly.

A body is an object of strings, integers, booleans, lists and objects. There are no floats and no null, so two parsers
cannot disagree. A body that is not byte for byte its own canonical form is refused: duplicate keys, other spellings
of a number and hidden white space cannot carry a second meaning under one signature.

JSON and not protobuf, because a body has to be readable by an auditor's own tools in ten years, because every language
has a parser for it, and because protobuf has no canonical form (protobuf.dev, "Proto Serialization Is Not Canonical").
Source: RFC 8785; for our subset (ASCII keys, integers within 2**53) ``json.dumps`` with sorted keys equals it, which a
property test holds against the reference implementation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NoReturn, TypeVar

from idtrace.errors import InputError, Reason, quoted
from idtrace.identifier import IDENTIFIER_BYTES_MAX, PREFIX_BYTES_MAX, Identifier, Prefix

# A body carries names, numbers and digests, never the values themselves; 64 KiB hold 500 value digests.
BODY_BYTES_MAX: Final = 65_536
# RFC 8785 numbers are IEEE doubles: beyond 2**53 - 1 two integers could share one.
INTEGER_MAX: Final = 2**53 - 1
# Half of a UTF-16 pair: JSON can spell it, UTF-8 and a hash cannot.
_SURROGATE: Final = re.compile("[\ud800-\udfff]")

Json = str | int | bool | Sequence["Json"] | Mapping[str, "Json"]
E = TypeVar("E", bound=StrEnum)


def encode(body: Mapping[str, Json]) -> bytes:
    """The one byte form of a body built by us (integers within 2**53, ASCII keys)."""
    return _ENCODER.encode(body).encode()


def decode(payload: bytes, *, field: str) -> Fields:
    """Read a signed body.

    Raises:
        InputError: FIELD_TOO_LARGE, FIELD_MALFORMED (not JSON, or a float, null, or huge integer inside) or
            BODY_NOT_CANONICAL.
    """
    if len(payload) > BODY_BYTES_MAX:
        raise InputError(Reason.FIELD_TOO_LARGE, f"a body has at most {BODY_BYTES_MAX} bytes", field=field)
    try:
        text = payload.decode("utf-8")
        if text.startswith("\ufeff"):
            raise json.JSONDecodeError("Unexpected UTF-8 BOM (decode using utf-8-sig)", text, 0)
        body = _DECODER.decode(text)
        canonical = encode(body) if isinstance(body, dict) else b""
    except (UnicodeError, ValueError, RecursionError) as error:
        raise InputError(Reason.FIELD_MALFORMED, f"not strict JSON: {quoted(str(error))}", field=field) from None
    if not isinstance(body, dict):
        raise InputError(Reason.FIELD_MALFORMED, "a body is a JSON object", field=field)
    if canonical != payload:
        raise InputError(Reason.BODY_NOT_CANONICAL, "the body is not in RFC 8785 canonical form", field=field)
    return Fields(body, field)


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]} is not an integer")


def _integer(text: str) -> int:
    if len(text) > 17 or abs(value := int(text)) > INTEGER_MAX:
        raise ValueError(f"{text[:40]} is beyond 2**53 - 1")
    return value


# Made once: to make them anew for each body cost as much as to use them.
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
_DECODER: Final = json.JSONDecoder(parse_float=_refuse_number, parse_constant=_refuse_number, parse_int=_integer)


class Fields:
    """Reads each field of one object once, typed and bounded, and refuses what nobody asked for.

    Every method raises :class:`InputError` with the field's path.
    """

    __slots__ = ("_body", "_path")

    def __init__(self, body: Mapping[str, Any], path: str) -> None:
        self._body = dict(body)
        self._path = path

    def path(self, name: str) -> str:
        """``record.values`` for the field ``values`` of ``record``."""
        return f"{self._path}.{name}" if self._path else name

    def _take(self, name: str) -> Any:
        try:
            return self._body.pop(name)
        except KeyError:
            raise InputError(Reason.FIELD_MISSING, f"{name} is missing", field=self.path(name)) from None

    def _fail(self, name: str, rule: str, reason: Reason = Reason.FIELD_MALFORMED) -> NoReturn:
        raise InputError(reason, f"{name} {rule}", field=self.path(name))

    def text(self, name: str, *, most: int, least: int = 0) -> str:
        """A string of ``least`` to ``most`` characters."""
        value = self._take(name)
        if not isinstance(value, str):
            self._fail(name, "is not a string")
        if not value.isascii() and _SURROGATE.search(value):
            self._fail(name, "has an unpaired surrogate")
        if len(value) > most:
            self._fail(name, f"has more than {most} characters", Reason.FIELD_TOO_LARGE)
        if len(value) < least:
            self._fail(name, f"has fewer than {least} characters")
        return value

    def optional_text(self, name: str, *, most: int) -> str:
        """A string of 1 to ``most`` characters, or "" where the field is not there: there is one way to say nothing."""
        return self.text(name, most=most, least=1) if name in self._body else ""

    def optional_integer(self, name: str, *, least: int = 0, most: int = INTEGER_MAX) -> int | None:
        """An integer of ``least`` to ``most``, or None where the field is not there."""
        return self.integer(name, least=least, most=most) if name in self._body else None

    def integer(self, name: str, *, least: int = 0, most: int = INTEGER_MAX) -> int:
        """An integer of ``least`` to ``most``."""
        value = self._take(name)
        if not isinstance(value, int) or isinstance(value, bool):
            self._fail(name, "is not an integer")
        if not least <= value <= most:
            self._fail(name, f"is not within {least} and {most}")
        return value

    def boolean(self, name: str) -> bool:
        """True or false."""
        value = self._take(name)
        if not isinstance(value, bool):
            self._fail(name, "is neither true nor false")
        return value

    def choice(self, name: str, choices: type[E]) -> E:
        """One of an enumeration's texts."""
        value = self._take(name)
        try:
            return choices(value)
        except ValueError:
            self._fail(name, f"is not one of {', '.join(choices)}")

    def digest(self, name: str, *, optional: bool = False) -> bytes:
        """32 bytes as lower-case hex; "" gives b"" where optional."""
        text = self.text(name, most=64)
        if optional and text == "":
            return b""
        if len(text) != 64 or text.strip("0123456789abcdef"):
            self._fail(name, "is not a SHA-256 in lower-case hex")
        return bytes.fromhex(text)

    def identifier(self, name: str) -> Identifier:
        """A canonical identifier."""
        return Identifier.parse_canonical(self.text(name, most=IDENTIFIER_BYTES_MAX), field=self.path(name))

    def optional_identifier(self, name: str) -> Identifier | None:
        """A canonical identifier, or None for ""."""
        text = self.text(name, most=IDENTIFIER_BYTES_MAX)
        return Identifier.parse_canonical(text, field=self.path(name)) if text else None

    def prefix(self, name: str) -> Prefix:
        """A canonical prefix; "" is the root."""
        return Prefix.parse_canonical(self.text(name, most=PREFIX_BYTES_MAX), field=self.path(name))

    def object(self, name: str) -> Fields:
        """One object."""
        value = self._take(name)
        if not isinstance(value, dict):
            self._fail(name, "is not an object")
        return Fields(value, self.path(name))

    def objects(self, name: str, *, most: int, least: int = 0) -> list[Fields]:
        """A list of objects."""
        items = self._list(name, most, least)
        fields = []
        for index, item in enumerate(items):
            if not isinstance(item, dict):
                self._fail(f"{name}[{index}]", "is not an object")
            fields.append(Fields(item, self.path(f"{name}[{index}]")))
        return fields

    def texts(self, name: str, *, most: int, least: int = 0) -> list[str]:
        """A list of strings."""
        items = self._list(name, most, least)
        for index, item in enumerate(items):
            if not isinstance(item, str):
                self._fail(f"{name}[{index}]", "is not a string")
        return items

    def _list(self, name: str, most: int, least: int) -> list[Any]:
        value = self._take(name)
        if not isinstance(value, list):
            self._fail(name, "is not a list")
        if len(value) > most:
            self._fail(name, f"has more than {most} entries", Reason.FIELD_TOO_LARGE)
        if len(value) < least:
            self._fail(name, f"has fewer than {least} entries")
        return value

    def end(self) -> None:
        """Refuse fields that no reader has taken: a signer must not be able to hide a meaning."""
        for name in self._body:
            self._fail(quoted(name), "is not a field of this body")

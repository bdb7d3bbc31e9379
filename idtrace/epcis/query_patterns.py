"""Which things a value of MATCH_… means: one by its URI, or many by an EPC pattern; and what lies within a place.

Patterns are those of EPCIS 2.0, section 8.2.7.1.1: ``urn:epc:idpat:SCHEME:`` with wildcards from some field to the
last one. Serial numbers, lots, shipping containers and places (sgtin, lgtin, sscc, sgln) are recognised however the
event writes them, as URN or as Digital Link; other schemes where the event writes an EPC URN.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from idtrace.epcis.query_values import Asked
from idtrace.epcis.uris import SCHEME, key

# Each is held against all things of an event, up to 8,192 of them: 16 make a tenth of a second at the very worst.
PATTERNS_MAX: Final = 16
_PATTERN: Final = re.compile(r"urn:epc:(?:idpat|pat):([a-z0-9-]{1,16}):(.{1,256})\Z", re.IGNORECASE | re.DOTALL)
_PURE: Final = re.compile(r"urn:epc:(?:id|class):([a-z0-9-]{1,16}):(.+)\Z", re.IGNORECASE | re.DOTALL)
_GTIN: Final = re.compile(r"gs1\.01\.(\d)(\d{12})\d/(21|10)\.(.+)\Z", re.DOTALL)
_SSCC: Final = re.compile(r"gs1\.00/(\d)(\d{16})\d\Z")
_GLN: Final = re.compile(r"gs1\.414(?:/(\d{12})\d|\.(\d{12})\d/254\.(.+))\Z", re.DOTALL)
_PLACE: Final = "gs1.414/"

# Whether a thing, by its URI and its key, is meant.
Meant = Callable[[str, str], bool]


def things(asked: Asked) -> tuple[Meant, frozenset[str]]:
    """What tells whether a URI is one of those asked for, and their keys where all of them are known (else none).

    Raises:
        InputError: FIELD_MALFORMED, FIELD_TOO_LARGE.
    """
    texts = asked.texts()
    exact = frozenset(key(text) for text in texts)
    patterns = [found for text in texts if (found := _pattern(asked, text)) is not None]
    if not patterns:
        return lambda _uri, known: known in exact, exact
    if len(patterns) > PATTERNS_MAX:
        raise asked.refuse(f"at most {PATTERNS_MAX} patterns stand here")
    return lambda uri, known: known in exact or any(pattern(uri, known) for pattern in patterns), frozenset()


def places_within(asked: Asked) -> Callable[[str], bool]:
    """What tells whether a place, by its URI, is one of those asked for or lies within one of them.

    Within a place lies what is named below it: ``idtrace:88.118.8/WH-1/DOCK-2`` in ``idtrace:88.118.8/WH-1``, all
    places of a party in ``idtrace:88.118.8``, the extensions of a GLN in the GLN, ``https://…/a/b`` in ``https://…/a``.
    """
    exact = frozenset(key(text) for text in asked.texts())
    starts = tuple(start for known in exact for start in _below(known))

    def within(uri: str) -> bool:
        known = key(uri)
        return bool(uri) and (known in exact or known.startswith(starts))

    return within


def _below(known: str) -> Iterable[str]:
    if known.startswith(SCHEME):
        party = known.removeprefix(SCHEME)
        return f"{party}/", f"{party}."
    if known.startswith(_PLACE):
        return (f"gs1.414.{known.removeprefix(_PLACE)}/254.",)
    return (f"{known.rstrip('/')}/",)


def _pattern(asked: Asked, text: str) -> Meant | None:
    """The test of a pattern, None where the text is none."""
    found = _PATTERN.match(text)
    if found is None:
        return None
    scheme, wanted = found[1].lower(), found[2].split(".")
    literal = [field for field in wanted if field != "*"]
    if wanted[: len(literal)] != literal or len(wanted) < 2:
        raise asked.refuse("in a pattern wildcards stand from some field to the last one, as 0614141.107346.*")
    if any("*" in field or "[" in field for field in literal):
        raise asked.refuse("a field of a pattern is a value or *")

    def meant(uri: str, known: str) -> bool:
        fields = _fields(scheme, literal[0] if literal else "", uri, known)
        return fields is not None and len(fields) == len(wanted) and fields[: len(literal)] == literal

    return meant


def _fields(scheme: str, company: str, uri: str, known: str) -> list[str] | None:
    """The fields that an EPC of this scheme has, where its company prefix is ``company`` ("" for whichever)."""
    pure = _PURE.match(uri)
    if pure is not None:
        # A serial number may have dots of its own.
        return pure[2].split(".", 1 if scheme in {"sscc", "giai", "gsrn"} else 2) if pure[1].lower() == scheme else None
    parts = _parts(scheme, known)
    if parts is None:
        return None
    lead, digits, *rest = parts
    if not digits.startswith(company):
        return None
    return [company, lead + digits[len(company) :], *rest]


def _parts(scheme: str, known: str) -> tuple[str, ...] | None:
    """Of a GS1 key of this scheme: the digit that an EPC moves behind the company prefix, the digits, and the rest."""
    if (gtin := _GTIN.match(known)) is not None:
        return (gtin[1], gtin[2], gtin[4]) if scheme == {"21": "sgtin", "10": "lgtin"}[gtin[3]] else None
    if scheme == "sscc" and (sscc := _SSCC.match(known)) is not None:
        return sscc[1], sscc[2]
    if scheme == "sgln" and (gln := _GLN.match(known)) is not None:
        return "", gln[1] or gln[2], gln[3] or "0"
    return None

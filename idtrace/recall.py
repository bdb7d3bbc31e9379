"""Recalls: one signed statement reaches every dose below it, and no record of a dose is touched.

A zone that recalls anything has one record ``ZONE/recalls``; each of its values of type ``idtrace.recall`` is one
recall, and each new recall is one new version. So a single resolution per zone, with its currency statement, proves
what is recalled, and a denial of ``ZONE/recalls`` proves that nothing is. A recall counts for identifiers whose own
zone is this zone or lies below it; for items of a class that lies there or whose product names a maker there, wherever
their own identifiers lie (a GS1 number, a drug code: the holder of the marketing authorisation has to recall,
《药品召回管理办法》); for what was made from any of these, and for whatever was inside a package of this zone. The
class and the maker of an item are what its own verified records name, so nobody draws an item of others into a recall.
Canonical JSON::

    {"recall": "R-2026-01", "scope": {"kind": "lot", "product": CLASS-IDENTIFIER, "lot": "A1"}, "level": 1,
     "reason": {"en": …, "zh": …}, "issued_at": seconds, "ended_at": 0, "contact": …}
    scope: {"kind": "product", "product": …} | {"kind": "range", "first": IDENTIFIER, "last": IDENTIFIER}
         | {"kind": "package", "package": KEY, "since": seconds, "until": seconds or 0}
         | {"kind": "items", "items": [IDENTIFIER, …]}

A range counts by the number at the end of the suffix, whatever its width, where prefix and text before it are the same
(``SN-0007`` lies between ``SN-1`` and ``SN-10``); other suffixes are compared as text, among those of one length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from idtrace import canonical
from idtrace.canonical import Fields, Json
from idtrace.errors import InputError, Reason
from idtrace.identifier import Identifier, Prefix, require_visible
from idtrace.record import TIME_MAX

RECALL_TYPE: Final = "idtrace.recall"
RECALLS_SUFFIX: Final = "recalls"
NAME_MAX: Final = 64
# A sentence or two for a person in a clinic; whole notices stand where the contact leads.
REASON_MAX: Final = 500
CONTACT_MAX: Final = 200
LOT_MAX: Final = 64
# A key of a package may be a URI; the value that holds the recall has 4 KiB in all.
PACKAGE_MAX: Final = 512
# As many identifiers of 30 characters as one value of 4 KiB holds; more is a range, a package or a lot.
ITEMS_MAX: Final = 128
_NUMBERED: Final = re.compile(r"(.*?)([0-9]+)", re.DOTALL)


class ScopeKind(StrEnum):
    """What a recall names."""

    PRODUCT = "product"
    LOT = "lot"
    RANGE = "range"
    PACKAGE = "package"
    ITEMS = "items"


@dataclass(frozen=True, slots=True)
class Scope:
    """What is recalled; only the fields of its kind are set. Times are s since the epoch, ``until_s`` 0: no end."""

    kind: ScopeKind
    product: str = ""
    lot: str = ""
    first: str = ""
    last: str = ""
    package: str = ""
    since_s: int = 0
    until_s: int = 0
    items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recall:
    """One recall. ``level`` is 1 to 3, 1 the gravest (《药品召回管理办法》); ``ended_at`` is 0 while it stands."""

    zone: str
    name: str
    scope: Scope
    level: int
    reason_en: str
    reason_zh: str
    issued_at: int
    ended_at: int = 0
    contact: str = ""
    evidence: str = ""  # identifier of the record, ``ZONE/recalls``
    version: int = 0

    def stands(self, now_s: int) -> bool:
        """Whether it has not ended."""
        return self.ended_at == 0 or self.ended_at > now_s


class Coverage(StrEnum):
    """Whether a recall reaches a thing; UNKNOWN where the lot or the product could not be learned."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Thing:
    """What a recall may reach.

    Attributes:
        identifier: of the thing.
        product, lot: identifier of the class that its own record names, and its lot; "" for unknown.
        sources: what it was made of.
        inside: where it was inside: (container, start, end) in ms; an end of None is open.
        families: the class's own class, that class's, and so on.
        origins: those sources whose class is known.
        maker: prefix of the maker that its class's product names, "" for unknown.
    """

    identifier: str
    product: str = ""
    lot: str = ""
    sources: tuple[str, ...] = ()
    inside: tuple[tuple[str, int, int | None], ...] = ()
    families: tuple[str, ...] = ()
    origins: tuple[Thing, ...] = ()
    maker: str = ""


def covers(recall: Recall, thing: Thing) -> Coverage:
    """Whether a recall reaches a thing, whether or not it has ended.

    A zone recalls what lies in it or below it and what is of a class or by a maker that does, what was made from that,
    and what was inside a package of it, and of its own what was inside any package (an SSCC lies in no zone); of
    anything else its word does not count.
    """
    scope = recall.scope
    match scope.kind:
        case ScopeKind.PRODUCT | ScopeKind.LOT:
            found = {_covers_class(recall, one) for one in (thing, *thing.origins)}
            return next(one for one in (Coverage.YES, Coverage.UNKNOWN, Coverage.NO) if one in found)
        case ScopeKind.PACKAGE:
            since_ms, until_ms = scope.since_s * 1000, scope.until_s * 1000
            reached = (_within(scope.package, recall.zone) or has_say(recall.zone, thing)) and (
                thing.identifier == scope.package
                or any(
                    container == scope.package
                    and (until_ms == 0 or start < until_ms)
                    and (end is None or end > since_ms)
                    for container, start, end in thing.inside
                )
            )
        case ScopeKind.RANGE:
            reached = any(
                in_range(one.identifier, scope.first, scope.last) and has_say(recall.zone, one)
                for one in _descent(thing)
            )
        case ScopeKind.ITEMS:
            reached = any(one.identifier in scope.items and has_say(recall.zone, one) for one in _descent(thing))
        case _:
            assert_never(scope.kind)
    return Coverage.YES if reached else Coverage.NO


def _covers_class(recall: Recall, thing: Thing) -> Coverage:
    if not has_say(recall.zone, thing):
        return Coverage.NO
    if not thing.product:
        return Coverage.UNKNOWN
    if recall.scope.product not in {thing.product, *thing.families}:
        return Coverage.NO
    if recall.scope.kind is ScopeKind.PRODUCT:
        return Coverage.YES
    if not thing.lot:
        return Coverage.UNKNOWN
    return Coverage.YES if thing.lot == recall.scope.lot else Coverage.NO


def _descent(thing: Thing) -> Iterable[Thing]:
    """The thing and what it was made of, of which little may be known."""
    known = {one.identifier: one for one in thing.origins}
    return (thing, *(known.get(source, Thing(source)) for source in thing.sources))


def has_say(zone: str, thing: Thing) -> bool:
    """Whether the recalling zone has a say: the thing lies in it or below it, or is of a class or by a maker there."""
    maker = f"{thing.maker}/" if thing.maker else ""
    return any(_within(one, zone) for one in (thing.identifier, thing.product, *thing.families, maker))


def _within(key: str, zone: str) -> bool:
    """Whether a key is an identifier in the zone or below it; a URI lies in no zone."""
    prefix, slash, _ = key.partition("/")
    return bool(slash) and (zone in {"", prefix} or prefix.startswith(f"{zone}."))


def in_range(identifier: str, first: str, last: str) -> bool:
    """Whether an identifier lies between two others, both included."""
    numbers = [_numbered(text) for text in (first, identifier, last)]
    stems = {stem for stem, _ in numbers}
    if len(stems) == 1:
        return numbers[0][1] <= numbers[1][1] <= numbers[2][1]
    if _numbered(first)[0] == _numbered(last)[0]:
        return False
    heads = {text.partition("/")[0] for text in (first, identifier, last)}
    return len(heads) == 1 and len(first) == len(identifier) == len(last) and first <= identifier <= last


def _numbered(text: str) -> tuple[str, int]:
    """The text before the number at its end, and the number; -1 where it ends in none."""
    found = _NUMBERED.fullmatch(text)
    return (found[1], int(found[2])) if found else (text, -1)


def format_recall(recall: Recall) -> bytes:
    """Canonical JSON, the data of a value of type ``idtrace.recall``."""
    scope = recall.scope
    shown: dict[str, Json] = {"kind": scope.kind}
    match scope.kind:
        case ScopeKind.PRODUCT:
            shown |= {"product": scope.product}
        case ScopeKind.LOT:
            shown |= {"product": scope.product, "lot": scope.lot}
        case ScopeKind.RANGE:
            shown |= {"first": scope.first, "last": scope.last}
        case ScopeKind.PACKAGE:
            shown |= {"package": scope.package, "since": scope.since_s, "until": scope.until_s}
        case ScopeKind.ITEMS:
            shown |= {"items": list(scope.items)}
        case _:
            assert_never(scope.kind)
    return canonical.encode(
        {
            "recall": recall.name,
            "scope": shown,
            "level": recall.level,
            "reason": {"en": recall.reason_en, "zh": recall.reason_zh},
            "issued_at": recall.issued_at,
            "ended_at": recall.ended_at,
            "contact": recall.contact,
        }
    )


def parse_recall(data: bytes, *, zone: str, version: int = 0, field: str = "recall") -> Recall:
    """Read the data of a value of type ``idtrace.recall`` out of the record ``ZONE/recalls``.

    Raises:
        InputError: naming field and rule.
    """
    fields = canonical.decode(data, field=field)
    reason = fields.object("reason")
    recall = Recall(
        zone=zone,
        name=_visible(fields, "recall", NAME_MAX),
        scope=_scope(fields.object("scope")),
        level=fields.integer("level", least=1, most=3),
        reason_en=_visible(reason, "en", REASON_MAX),
        reason_zh=_visible(reason, "zh", REASON_MAX),
        issued_at=fields.integer("issued_at", most=TIME_MAX),
        ended_at=fields.integer("ended_at", most=TIME_MAX),
        contact=fields.text("contact", most=CONTACT_MAX),
        evidence=f"{zone}/{RECALLS_SUFFIX}",
        version=version,
    )
    reason.end()
    fields.end()
    if recall.ended_at and recall.ended_at < recall.issued_at:
        raise InputError(Reason.FIELD_MALFORMED, "a recall does not end before it begins", field=f"{field}.ended_at")
    return recall


def _visible(fields: Fields, name: str, most: int) -> str:
    text = fields.text(name, least=1, most=most)
    require_visible(text, what=name, field=fields.path(name))
    return text


def _scope(fields: Fields) -> Scope:
    kind = fields.choice("kind", ScopeKind)
    match kind:
        case ScopeKind.PRODUCT:
            scope = Scope(kind, product=str(fields.identifier("product")))
        case ScopeKind.LOT:
            scope = Scope(kind, product=str(fields.identifier("product")), lot=_visible(fields, "lot", LOT_MAX))
        case ScopeKind.RANGE:
            scope = _range(fields)
        case ScopeKind.PACKAGE:
            scope = Scope(
                kind,
                package=_visible(fields, "package", PACKAGE_MAX),
                since_s=fields.integer("since", most=TIME_MAX),
                until_s=fields.integer("until", most=TIME_MAX),
            )
            if scope.until_s and scope.until_s <= scope.since_s:
                raise InputError(Reason.FIELD_MALFORMED, "until is after since, or 0", field=fields.path("until"))
        case ScopeKind.ITEMS:
            texts = fields.texts("items", least=1, most=ITEMS_MAX)
            for index, text in enumerate(texts):
                Identifier.parse_canonical(text, field=fields.path(f"items[{index}]"))
            scope = Scope(kind, items=tuple(texts))
        case _:
            assert_never(kind)
    fields.end()
    return scope


def _range(fields: Fields) -> Scope:
    first, last = str(fields.identifier("first")), str(fields.identifier("last"))
    if not in_range(first, first, last):
        rule = "first and last differ in nothing but the number at their end, or have one length, and first comes first"
        raise InputError(Reason.FIELD_MALFORMED, rule, field=fields.path("last"))
    return Scope(ScopeKind.RANGE, first=first, last=last)


def recalls_identifier(zone: Prefix) -> Identifier:
    """The identifier of the record that holds a zone's recalls."""
    return Identifier(zone, RECALLS_SUFFIX)

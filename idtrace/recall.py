"""Recalls: one signed statement reaches every dose below it, and no record of a dose is touched.

A zone that recalls anything has one record ``ZONE/recalls``; each of its values of type ``idtrace.recall`` is one
recall, and each new recall is one new version. So a single resolution per zone, with its currency statement, proves
what is recalled, and a denial of ``ZONE/recalls`` proves that nothing is. A recall counts for identifiers whose own
zone is this zone or lies below it, for what was made from them, and for whatever was inside a package of this zone.
Canonical JSON::

    {"recall": "R-2026-01", "scope": {"kind": "lot", "product": CLASS-IDENTIFIER, "lot": "A1"}, "level": 1,
     "reason": {"en": …, "zh": …}, "issued_at": seconds, "ended_at": 0, "contact": …}
    scope: {"kind": "product", "product": …} | {"kind": "range", "first": IDENTIFIER, "last": IDENTIFIER}
         | {"kind": "package", "package": KEY, "since": seconds, "until": seconds or 0}
         | {"kind": "items", "items": [IDENTIFIER, …]}
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

RECALL_TYPE: Final = "idtrace.recall"
RECALLS_SUFFIX: Final = "recalls"


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

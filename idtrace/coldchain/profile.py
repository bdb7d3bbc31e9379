"""Temperature profiles: what a product bears, as data with its source.

Canonical JSON in a product's class record::

    {"profile": "2-8", "low": "2", "high": "8", "freeze_sensitive": true, "vvm": 14,
     "rules": [{"name": "who-type1-heat", "source": "WHO PQS E006", "side": "above", "limit": "30", "seconds": 36000,
                "mode": "cumulative"}, …],
     "budget_seconds": 259200, "mkt_high": "8", "mkt_hours": 24}
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum


class Side(StrEnum):
    """On which side of the limit a rule counts; both include the limit itself (WHO PQS E006)."""

    ABOVE = "above"
    BELOW = "below"


class Counting(StrEnum):
    """Whether one stretch alone has to last so long, or all of them together."""

    SINGLE = "single"
    CUMULATIVE = "cumulative"


@dataclass(frozen=True, slots=True)
class ExcursionRule:
    """So long at or beyond this limit is too long; inclusive in both, the limit and the seconds."""

    name: str
    source: str
    side: Side
    limit: Decimal
    seconds: int
    counting: Counting


@dataclass(frozen=True, slots=True)
class Profile:
    """What a product bears.

    Attributes:
        name: "2-8", "-20", "-70" or the maker's own.
        low, high: labelled limits, °C, inclusive: a reading of exactly ``high`` is inside.
        freeze_sensitive: whether freezing destroys it (then mean kinetic temperature excuses nothing).
        vvm: vaccine vial monitor type, days to the end point at 37 °C (2, 7, 11, 14, 30), 0 for none.
        rules: excursions that end its use, whatever else.
        budget_seconds: time outside [low, high] that stability data allow over its whole life, all custodians
            together; 0: none.
        mkt_high: highest mean kinetic temperature over any ``mkt_hours``, °C; None: no rule.
    """

    name: str
    low: Decimal
    high: Decimal
    freeze_sensitive: bool
    vvm: int
    rules: tuple[ExcursionRule, ...]
    budget_seconds: int = 0
    mkt_high: Decimal | None = None
    mkt_hours: int = 24

"""Temperature profiles: what a product bears, as data with its source.

Canonical JSON in a product's class record::

    {"profile": "2-8", "low": "2", "high": "8", "freeze_sensitive": true, "vvm": 14,
     "rules": [{"name": "who-type1-heat", "source": "WHO PQS E006", "side": "above", "limit": "30", "seconds": 36000,
                "mode": "cumulative"}, …],
     "budget_seconds": 259200, "mkt_high": "8", "mkt_hours": 24}

``mkt_high`` and ``mkt_hours`` are both there or both not. The usual profiles are in :mod:`idtrace.coldchain.profiles`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final, NoReturn

from idtrace import canonical
from idtrace.canonical import Fields, Json
from idtrace.errors import InputError, Reason

# WHO has three rules a type, a maker's stability report some more; each is a pass over the readings.
RULES_MAX: Final = 16
NAME_MAX: Final = 128
# Ten years: no vaccine keeps that long.
SECONDS_MAX: Final = 10 * 366 * 86_400
# USP <1079.2>: 24 hours for refrigerated goods, 30 days for controlled room temperature; a year is the longest in use.
MKT_HOURS_MAX: Final = 366 * 24
MKT_HOURS_USUAL: Final = 24
# Days to the end point at 37 °C (WHO PQS E006/IN05); 0: no monitor.
VVM_TYPES: Final = (0, 2, 7, 11, 14, 30)
# From liquid nitrogen, where cells are kept, to what no label allows.
CELSIUS_MIN: Final = Decimal(-200)
CELSIUS_MAX: Final = Decimal(100)
_TEXT_MAX: Final = 16
# Thousandths of a degree are finer than any probe.
_DECIMAL = re.compile(r"(?!-0\Z)-?(?:0|[1-9][0-9]{0,2})(?:\.[0-9]{0,2}[1-9])?\Z")


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
    mkt_hours: int = MKT_HOURS_USUAL


def body_of(profile: Profile) -> dict[str, Json]:
    """The profile as it stands in a product's canonical JSON."""
    body: dict[str, Json] = {
        "profile": profile.name,
        "low": decimal_text(profile.low),
        "high": decimal_text(profile.high),
        "freeze_sensitive": profile.freeze_sensitive,
        "vvm": profile.vvm,
        "rules": [
            {
                "name": rule.name,
                "source": rule.source,
                "side": rule.side,
                "limit": decimal_text(rule.limit),
                "seconds": rule.seconds,
                "mode": rule.counting,
            }
            for rule in profile.rules
        ],
        "budget_seconds": profile.budget_seconds,
    }
    if profile.mkt_high is not None:
        body |= {"mkt_high": decimal_text(profile.mkt_high), "mkt_hours": profile.mkt_hours}
    return body


def payload(profile: Profile) -> bytes:
    """The profile alone, as canonical bytes."""
    return canonical.encode(body_of(profile))


def parse(data: bytes, *, field: str = "temperature") -> Profile:
    """Read a profile that stands alone.

    Raises:
        InputError: as :func:`read`, or the bytes are no canonical JSON.
    """
    return read(canonical.decode(data, field=field))


def read(body: Fields) -> Profile:
    """Read a profile.

    Raises:
        InputError: a field is missing, malformed or unknown, or contradicts another one.
    """
    low, high = _temperature(body, "low"), _temperature(body, "high")
    if low >= high:
        _refuse(body, "high", "the upper limit lies above the lower one")
    rules = _rules(body, low, high)
    mkt_high, mkt_hours = _kinetic(body, low, high)
    profile = Profile(
        name=_name(body, "profile"),
        low=low,
        high=high,
        freeze_sensitive=body.boolean("freeze_sensitive"),
        vvm=body.integer("vvm"),
        rules=rules,
        budget_seconds=body.integer("budget_seconds", most=SECONDS_MAX),
        mkt_high=mkt_high,
        mkt_hours=mkt_hours,
    )
    if profile.vvm not in VVM_TYPES:
        _refuse(body, "vvm", f"a vaccine vial monitor is of type {', '.join(map(str, VVM_TYPES[1:]))}, or 0 for none")
    body.end()
    return profile


def _rules(body: Fields, low: Decimal, high: Decimal) -> tuple[ExcursionRule, ...]:
    rules: dict[str, ExcursionRule] = {}
    for item in body.objects("rules", most=RULES_MAX):
        rule = ExcursionRule(
            name=_name(item, "name"),
            source=_name(item, "source"),
            side=item.choice("side", Side),
            limit=_temperature(item, "limit"),
            seconds=item.integer("seconds", least=1, most=SECONDS_MAX),
            counting=item.choice("mode", Counting),
        )
        if rule.name in rules:
            _refuse(item, "name", "a rule's name stands once")
        if rule.limit < high if rule.side is Side.ABOVE else rule.limit > low:
            _refuse(item, "limit", "a rule forbids nothing within the labelled limits")
        item.end()
        rules[rule.name] = rule
    return tuple(rules.values())


def _kinetic(body: Fields, low: Decimal, high: Decimal) -> tuple[Decimal | None, int]:
    """Limit and window of the mean kinetic temperature: both fields, or neither."""
    text = body.optional_text("mkt_high", most=_TEXT_MAX)
    if not text:
        return None, MKT_HOURS_USUAL
    limit = _degrees(body, "mkt_high", text)
    if high <= 0:
        _refuse(body, "mkt_high", "mean kinetic temperature says nothing of frozen goods (USP <1079.2>)")
    if limit < low:
        _refuse(body, "mkt_high", "the highest mean kinetic temperature does not lie below the lower limit")
    return limit, body.integer("mkt_hours", least=1, most=MKT_HOURS_MAX)


def _name(body: Fields, name: str) -> str:
    text = body.text(name, most=NAME_MAX, least=1)
    if not text.isprintable() or text != text.strip():
        _refuse(body, name, "a name is printable and has no space around it")
    return text


def _temperature(body: Fields, name: str) -> Decimal:
    return _degrees(body, name, body.text(name, most=_TEXT_MAX))


def _degrees(body: Fields, name: str, text: str) -> Decimal:
    if _DECIMAL.match(text) is None:
        _refuse(body, name, "a temperature is written like -0.5 or 8: no exponent, no sign but -, no needless zero")
    value = Decimal(text)
    if not CELSIUS_MIN <= value <= CELSIUS_MAX:
        _refuse(body, name, f"a limit is within {CELSIUS_MIN} and {CELSIUS_MAX} °C")
    return value


def _refuse(body: Fields, name: str, rule: str) -> NoReturn:
    raise InputError(Reason.FIELD_MALFORMED, rule, field=body.path(name))


def decimal_text(value: Decimal) -> str:
    """A decimal in its one spelling: ``8``, ``-0.5``."""
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text

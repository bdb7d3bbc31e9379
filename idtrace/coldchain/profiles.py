"""The usual profiles, as data: WHO's excursion rules on the three temperatures at which vaccines are kept.

A maker's own stability data (``budget_seconds``, further rules) come in the product's record; these have none.
Sources: WHO PQS E006 (types of electronic shipping indicators and their alarms; WHO/IVB/05.23), WHO PQS E006/IN05
(vial monitors), USP <1079.2> (mean kinetic temperature: 24 hours for 2 to 8 °C, never for frozen goods).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from idtrace.coldchain.profile import Counting, ExcursionRule, Profile, Side

_HOUR: Final = 3_600
_DAY: Final = 24 * _HOUR
_TYPE_1: Final = "WHO PQS E006, type 1"
_TYPE_2: Final = "WHO PQS E006, type 2"
_VIAL: Final = "WHO PQS E006/IN05"

FREEZING: Final = ExcursionRule("who-freeze", _TYPE_1, Side.BELOW, Decimal("-0.5"), _HOUR, Counting.SINGLE)

# Freeze-sensitive vaccines, liquid and most of them adsorbed on aluminium salts.
TYPE_1: Final = (
    ExcursionRule("who-45", _TYPE_1, Side.ABOVE, Decimal(45), _HOUR, Counting.SINGLE),
    ExcursionRule("who-30", _TYPE_1, Side.ABOVE, Decimal(30), 10 * _HOUR, Counting.CUMULATIVE),
    FREEZING,
)
# Heat-sensitive vaccines that bear frost: lyophilised ones, oral polio vaccine.
TYPE_2: Final = (
    ExcursionRule("who-45", _TYPE_2, Side.ABOVE, Decimal(45), _HOUR, Counting.SINGLE),
    ExcursionRule("who-30", _TYPE_2, Side.ABOVE, Decimal(30), 10 * _HOUR, Counting.CUMULATIVE),
    ExcursionRule("who-10", _TYPE_2, Side.ABOVE, Decimal(10), 20 * _HOUR, Counting.CUMULATIVE),
)

BUILT_IN: Final = {
    "2-8": Profile(
        "2-8", Decimal(2), Decimal(8), freeze_sensitive=True, vvm=0, rules=TYPE_1, mkt_high=Decimal(8), mkt_hours=24
    ),
    "-20": Profile("-20", Decimal(-25), Decimal(-15), freeze_sensitive=False, vvm=0, rules=TYPE_2),
    "-70": Profile("-70", Decimal(-90), Decimal(-60), freeze_sensitive=False, vvm=0, rules=TYPE_2),
}


def vial_rule(days: int) -> ExcursionRule:
    """What a vaccine vial monitor of this type (2, 7, 11, 14, 30) bears at 37 °C before it reaches its end point.

    A vial monitor shows heat alone, so there is no such rule of frost.
    """
    return ExcursionRule(f"vvm-{days}", _VIAL, Side.ABOVE, Decimal(37), days * _DAY, Counting.CUMULATIVE)


def rules_of(profile: Profile) -> tuple[ExcursionRule, ...]:
    """All rules by which a product is judged: its own, and its vial monitor's."""
    return (*profile.rules, vial_rule(profile.vvm)) if profile.vvm else profile.rules

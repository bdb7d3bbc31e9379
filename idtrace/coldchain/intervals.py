"""How often a temperature has to be recorded (GSP 附录3, 2013 No. 38), and how long goods may be between two rooms.

Every minute a probe's value is refreshed; recorded it is at least every 30 minutes in a store, every 5 minutes in
transport, and every 2 minutes while it is out of range. Chilled goods are moved within 10 minutes, frozen ones within
5.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from idtrace.coldchain.profile import Profile
from idtrace.coldchain.readings import Leg, Mode

MINUTE_MS: Final = 60_000
STORE_MS: Final = 30 * MINUTE_MS
TRANSPORT_MS: Final = 5 * MINUTE_MS
EXCURSION_MS: Final = 2 * MINUTE_MS
HANDOVER_CHILLED_MS: Final = 10 * MINUTE_MS
HANDOVER_FROZEN_MS: Final = 5 * MINUTE_MS
# The value that is recorded was refreshed up to a minute before, and a logger may stamp either moment; so two records
# at the right interval can bear times that are so much further apart.
TOLERANCE_MS: Final = 1 * MINUTE_MS
RECORDING_SOURCE: Final = (
    "GSP 附录3 (2013 No. 38): recorded every 30 min in store, 5 min in transport, 2 min out of range"
)


def required_ms(mode: Mode) -> int:
    """The longest time between two records while the temperature is in range."""
    return STORE_MS if mode is Mode.STORE else TRANSPORT_MS


def handover_ms(profile: Profile) -> int:
    """How long goods may be on their way between two rooms, or a door open for them."""
    return HANDOVER_FROZEN_MS if profile.high <= Decimal(0) else HANDOVER_CHILLED_MS


def is_bridged(start_ms: int, end_ms: int, legs: Sequence[Leg]) -> bool:
    """Whether two neighbouring readings of a probe are close enough for a line between them.

    The interval is that of the leg in which both lie, the longest there is where none is known.
    """
    apart_ms = end_ms - start_ms
    if apart_ms <= TRANSPORT_MS + TOLERANCE_MS:
        return True
    if apart_ms > STORE_MS + TOLERANCE_MS:
        return False
    return not any(leg.mode is Mode.TRANSPORT and leg.start_ms <= start_ms and end_ms <= leg.end_ms for leg in legs)


def same_leg(start_ms: int, end_ms: int, legs: Sequence[Leg]) -> bool:
    """Whether one leg holds both times: the thing was in one place, and a probe there was always beside it."""
    return any(leg.start_ms <= start_ms and end_ms <= leg.end_ms for leg in legs)

"""What becomes of a delivery that has been tried: done, tried again later, or given up. Pure, told time and chance."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from registry.storage import DELIVERY_ERROR_MAX, Delivery, DeliveryState

# A home that restarts is back in seconds; one that is away for days is asked once an hour.
FIRST_WAIT_MS: Final = 1_000
WAIT_MS_MAX: Final = 3_600_000
# A week covers a long holiday with nobody on call. What is given up is kept, listed and tried again on demand.
GIVEN_UP_AFTER_MS: Final = 7 * 86_400_000
# A week at one an hour, and the quick ones before; a clock that jumps by years gives up no delivery that is new.
ATTEMPTS_MIN: Final = 24


def done(delivery: Delivery) -> Delivery:
    """The home has it."""
    return replace(delivery, state=DeliveryState.DONE, error="")


def failed(delivery: Delivery, error: str, *, now_ms: int, chance: float, for_good: bool = False) -> Delivery:
    """It could not be delivered; ``chance`` (0 to 1) spreads what fell at the same moment.

    Waits 1 s, 2 s, 4 s … up to an hour, each between half of that and all of it. Given up where the home will never
    take it (``for_good``), or after a week of at least 24 tries.
    """
    attempts = delivery.attempts + 1
    since_ms = delivery.since_ms or now_ms
    longest = min(FIRST_WAIT_MS * 2 ** min(attempts - 1, 32), WAIT_MS_MAX)
    gives_up = for_good or (attempts >= ATTEMPTS_MIN and now_ms - since_ms >= GIVEN_UP_AFTER_MS)
    return replace(
        delivery,
        state=DeliveryState.DEAD if gives_up else DeliveryState.WAITING,
        attempts=attempts,
        since_ms=since_ms,
        next_at_ms=now_ms + int(longest * (1 + chance) / 2),
        error=error[:DELIVERY_ERROR_MAX],
    )


def revived(delivery: Delivery, *, now_ms: int) -> Delivery:
    """Given up, and to be tried again from the beginning; what it died of stays to be read until then."""
    return replace(delivery, state=DeliveryState.WAITING, attempts=0, since_ms=0, next_at_ms=now_ms)

"""When a commit is logged: one commit after the other, by a clock that goes forward.

The times of commit in a log never go back, so the time is taken when nothing else of this node is on its way to the
store: whoever commits holds :attr:`Stamper.turn` from its stamp until its outcome. What another node does on the same
store is seen by the store itself (CLOCK_BACK; the call may simply be repeated).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from idtrace.errors import BusyError, Reason
from registry.logbook import LogWriter, Stamp

# A clock of whole seconds stands still for one; one that somebody has fixed, or whose driver has died, for longer.
STANDS_STILL_SECONDS: Final = 5.0


class Stamper:
    """Stamps of one log. Belongs to one event loop.

    Args:
        writer: the log's name and key.
        clock: wall clock, s.
        monotonic: a clock that nobody sets, s.
    """

    def __init__(self, writer: LogWriter, clock: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self.writer = writer
        self.turn = asyncio.Lock()
        self._clock = clock
        self._monotonic = monotonic
        self._seen = (clock(), monotonic())

    def stamp(self) -> Stamp:
        """The stamp of a commit that begins now; hold :attr:`turn`.

        Raises:
            BusyError: CLOCK_BACK where the clock stands behind what it showed before, or stands still.
        """
        now, tick = self._clock(), self._monotonic()
        before, since = self._seen
        if now < before:
            raise BusyError(Reason.CLOCK_BACK, f"this node's clock has gone back by {before - now} s")
        if now == before and tick - since > STANDS_STILL_SECONDS:
            raise BusyError(Reason.CLOCK_BACK, f"this node's clock has stood still for {tick - since:.0f} s")
        if now != before:
            self._seen = (now, tick)
        return Stamp(self.writer, now)

"""A long document is kept piece by piece, and what is durable is told to be, whatever becomes of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from idtrace.errors import BusyError, IdtraceError, Reason
from idtrace.record import Record
from registry.capture_jobs import Job, Refusal
from registry.capturing import Capturing, Fate, Kept
from registry.sequencer import BATCH_MAX


class Jobs:
    """Keeps nothing, and says how each ended."""

    def begin(self, *, rollback: bool) -> Job:
        return Job("j", 1, rollback)

    def end(self, job: Job, *, events: int, captured: int, errors: Sequence[Refusal]) -> Job:
        return job.finished(2, events=events, captured=captured, errors=errors)


class Crowded(Capturing):
    """Has room for so many pieces."""

    def __init__(self, pieces: int) -> None:
        nothing = cast("Any", None)
        super().__init__(nothing, nothing, nothing, nothing, cast("Any", Jobs()), clock=lambda: 1, signer=nothing)
        self.room = pieces

    async def _fates(self, sent: Sequence[Record | IdtraceError], *, rollback: bool) -> list[Fate]:
        self.room -= 1
        if self.room < 0:
            raise BusyError(Reason.OVERLOADED, "full")
        return [Kept(f"{self.room}/{index}", repeated=False) for index in range(len(sent))]

    async def whole(self, count: int) -> tuple[Job, list[Fate]]:
        sent = cast("list[Record | IdtraceError]", [None] * count)
        return await self.under_job(lambda: self._pieces(sent, rollback=False), rollback=False)


async def test_what_is_durable_is_told_to_be_when_there_is_no_room_for_the_rest() -> None:
    job, fates = await Crowded(1).whole(2 * BATCH_MAX + 1)
    assert [isinstance(fate, Kept) for fate in fates] == [True] * BATCH_MAX + [False] * (BATCH_MAX + 1)
    assert (job.events, job.captured) == (2 * BATCH_MAX + 1, BATCH_MAX)
    with pytest.raises(BusyError):
        await Crowded(0).whole(2)
    assert (await Crowded(3).whole(2 * BATCH_MAX + 1))[0].captured == 2 * BATCH_MAX + 1

"""``python -m tests.dying_deliverer POINT NTH node run …``: ``idtrace``, which kills itself (-9) on its way.

POINT is where, the NTH time that it comes there: ``commit`` before an event's commit, ``committed`` after it and before
anybody is answered, ``found`` when the home is known and not told, ``delivered`` when it has taken the pointers and
that is not kept, ``done`` in the midst of keeping it, ``waiting`` when its home did not answer and is tried again
later, ``dead`` when its home has refused it for good. A process of its own, because only a process dies with everything
that it has in hand.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

from idtrace.cli import main
from idtrace.errors import IdtraceError, InputError, Reason
from registry import delivering, sqlite_pointers
from registry.cassandra_pointers import Pointers
from registry.delivering import Delivering
from registry.sequencer import Sequencer
from registry.storage import Mention

POINTS = ("commit", "committed", "found", "delivered", "done", "waiting", "dead")


def counter(nth: int) -> Callable[[], None]:
    """Ends the process the nth time that it is called."""
    left = [nth]

    def passed() -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    return passed


def before(call: Callable[..., Any], passed: Callable[[], None]) -> Callable[..., Any]:
    """The coroutine function, which ends the process instead of its nth call."""

    async def counted(*given: Any) -> Any:
        passed()
        return await call(*given)

    return counted


def after(call: Callable[..., Any], passed: Callable[[], None], name: str = "") -> Callable[..., Any]:
    """The coroutine function, which ends the process when its nth call is over; with a name only those that have it."""

    async def counted(*given: Any) -> Any:
        answer = await call(*given)
        if not name or name in given:
            passed()
        return answer

    return counted


async def refusing(endpoint: str, mentions: Sequence[Mention]) -> list[IdtraceError | None]:
    """A home that will never take any of these."""
    del endpoint
    return [InputError(Reason.FIELD_TOO_LARGE, "never", field="pointers") for _ in mentions]


def arm(point: str, nth: int) -> None:
    """Put the end where it is wanted."""
    passed = counter(nth)
    changed: Any = {"commit": Sequencer, "committed": Sequencer, "found": Delivering, "delivered": delivering}.get(
        point
    )
    match point:
        case "commit":
            changed._committed = before(Sequencer._committed, passed)
        case "committed":
            changed._committed = after(Sequencer._committed, passed)
        case "found":
            changed._call = before(Delivering._call, passed)
        case "delivered":
            changed.deliver = after(delivering.deliver, passed)
        case "done":
            write, sqlite, cassandra = (
                sqlite_pointers.write_deliveries,
                cast("Any", sqlite_pointers),
                cast("Any", Pointers),
            )

            def writing(writer: Any, tried: Any) -> None:
                write(writer, tried)  # and not committed yet
                passed()

            sqlite.write_deliveries = writing
            cassandra._run = after(Pointers._run, passed, "deliver")  # maybe one of several
        case "waiting":
            changed = Delivering
            changed._failed = after(Delivering._failed, passed)
        case "dead":
            changed = Delivering
            delivering.deliver = refusing  # a home of a version that does not know these pointers
            changed._settle = after(Delivering._settle, passed)
        case _:
            raise ValueError(point)


if __name__ == "__main__":
    arm(sys.argv.pop(1), int(sys.argv.pop(1)))
    main()

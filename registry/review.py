"""The review of a prefix: which status may follow which.

::

    (nobody) → applied → in_review → enabled ⇄ disabled
                  ↑          ↓
                  └────── rejected

An applicant moves (nobody) and rejected to applied; every other move is the parent's administrator's, by a signed
command. A delegation that the administrator signs without an application counts as the whole review.
Source: national node guide, prefix status 4, 5, 1, 0, 3.
"""

from __future__ import annotations

from typing import Final

from idtrace.errors import Reason, RefusedError
from idtrace.statements import PrefixStatus

_MOVES: Final = {
    PrefixStatus.APPLIED: (PrefixStatus.IN_REVIEW, PrefixStatus.REJECTED),
    PrefixStatus.IN_REVIEW: (PrefixStatus.ENABLED, PrefixStatus.REJECTED),
    PrefixStatus.ENABLED: (PrefixStatus.DISABLED,),
    PrefixStatus.DISABLED: (PrefixStatus.ENABLED,),
    PrefixStatus.REJECTED: (),
}
# How far an administrator's clock may be off, and how long a command may lie in a queue; replays are also caught by
# the idempotency key and by the move itself, which cannot be made twice.
COMMAND_SECONDS_MAX: Final = 300


def check_application(current: PrefixStatus | None) -> None:
    """Whether a prefix in this status may be applied for.

    Raises:
        RefusedError: PREFIX_STATUS_TRANSITION.
    """
    if current not in (None, PrefixStatus.REJECTED):
        raise RefusedError(Reason.PREFIX_STATUS_TRANSITION, f"the prefix is {current} already", field="prefix")


def check_move(current: PrefixStatus | None, wanted: PrefixStatus) -> None:
    """Whether an administrator may move a prefix from ``current`` to ``wanted``.

    Raises:
        RefusedError: PREFIX_UNKNOWN or PREFIX_STATUS_TRANSITION, listing what is possible.
    """
    if current is None:
        raise RefusedError(Reason.PREFIX_UNKNOWN, "nobody has applied for the prefix", field="prefix")
    if wanted not in _MOVES[current]:
        possible = ", ".join(_MOVES[current]) or "nothing but a new application"
        raise RefusedError(
            Reason.PREFIX_STATUS_TRANSITION, f"{current} is not followed by {wanted}, but by {possible}", field="status"
        )


def check_command_time(issued_at: int, now: int) -> None:
    """Whether a command is fresh.

    Raises:
        RefusedError: COMMAND_STALE.
    """
    if abs(now - issued_at) > COMMAND_SECONDS_MAX:
        raise RefusedError(
            Reason.COMMAND_STALE, f"a command is signed within {COMMAND_SECONDS_MAX} s of its use", field="issued_at"
        )

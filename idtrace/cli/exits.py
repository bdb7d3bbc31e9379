"""Exit codes of every command, and what each kind of error comes to.

A script may branch on them: they are part of the contract, stand in ``idtrace --help``, and never change their meaning.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Final

from idtrace.bundle import Verdict
from idtrace.errors import (
    BusyError,
    IdtraceError,
    InputError,
    OutcomeUnknownError,
    Reason,
    RefusedError,
    VerificationError,
)


class ExitCode(IntEnum):
    """What a command's end means."""

    OK = 0
    PROVEN_NO = 1
    USAGE = 2
    BOGUS = 3
    UNREACHABLE = 4
    REFUSED = 5
    PARTLY = 6
    UNKNOWN = 7
    HOLD = 8
    DO_NOT_USE = 9
    INTERRUPTED = 130
    BROKEN_PIPE = 141


MEANINGS: Final = {
    ExitCode.OK: "done; or the identifier is found, and the proof holds",
    ExitCode.PROVEN_NO: "the answer is a proven no: absent, or gone",
    ExitCode.USAGE: "wrong usage, or malformed input",
    ExitCode.BOGUS: (
        "verification failed: somebody lies, the proof is not valid at this time, or it shows less than a policy asks"
    ),
    ExitCode.UNREACHABLE: "a node is unreachable, busy or broken; nothing is known; try again",
    ExitCode.REFUSED: "the node refused",
    ExitCode.PARTLY: "partly done: some lines of a bulk registration failed",
    ExitCode.UNKNOWN: "the outcome of some lines of a bulk registration is unknown; run the same command again",
    ExitCode.HOLD: "the verdict is HOLD: not before somebody has looked",
    ExitCode.DO_NOT_USE: "the verdict is DO NOT USE",
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.BROKEN_PIPE: "whoever read the output has gone",
}

_FAMILIES: Final[tuple[tuple[type[IdtraceError], ExitCode], ...]] = (
    (InputError, ExitCode.USAGE),
    (VerificationError, ExitCode.BOGUS),
    (RefusedError, ExitCode.REFUSED),
    (BusyError, ExitCode.UNREACHABLE),
    (OutcomeUnknownError, ExitCode.UNREACHABLE),
)
_VERDICTS: Final = {
    Verdict.FOUND: ExitCode.OK,
    Verdict.ABSENT: ExitCode.PROVEN_NO,
    Verdict.GONE: ExitCode.PROVEN_NO,
    Verdict.UNREACHABLE: ExitCode.UNREACHABLE,
    Verdict.BOGUS: ExitCode.BOGUS,
}
# Several answers, one exit code: a lie outweighs silence, silence a malformed line, and that a proven no.
_GRAVITY: Final = (
    ExitCode.OK,
    ExitCode.PROVEN_NO,
    ExitCode.USAGE,
    ExitCode.REFUSED,
    ExitCode.UNREACHABLE,
    ExitCode.BOGUS,
)
# The node's trouble and not the caller's, whatever family they travel in.
_NODE_TROUBLE: Final = frozenset({Reason.INTERNAL, Reason.SHUTTING_DOWN, Reason.OVERLOADED, Reason.OUTCOME_UNKNOWN})


class Failure(Exception):  # noqa: N818 - it ends a command; the errors are in idtrace.errors
    """Ends a command: an exit code, what went wrong, and a hint for the person at the keyboard.

    Attributes:
        code: exit code.
        error: reason, detail and field.
        title: who says so, for example "refused by 127.0.0.1:7000".
        hint: what to do next, or "".
    """

    def __init__(self, code: ExitCode, error: IdtraceError, *, title: str = "", hint: str = "") -> None:
        super().__init__(str(error))
        self.code = code
        self.error = error
        self.title = title
        self.hint = hint


def local_code(error: IdtraceError) -> ExitCode:
    """Exit code of an error that was found on this machine."""
    return next(code for family, code in _FAMILIES if isinstance(error, family))


def node_code(error: IdtraceError) -> ExitCode:
    """Exit code of an error that a node sent: trouble of its own, or a refusal, whatever it found wrong."""
    trouble = error.reason in _NODE_TROUBLE or isinstance(error, BusyError | OutcomeUnknownError)
    return ExitCode.UNREACHABLE if trouble else ExitCode.REFUSED


def verdict_code(verdict: Verdict) -> ExitCode:
    """Exit code of a verdict."""
    return _VERDICTS[verdict]


def gravest(codes: Iterable[ExitCode]) -> ExitCode:
    """The one code that stands for several answers."""
    return max(codes, key=_GRAVITY.index, default=ExitCode.OK)

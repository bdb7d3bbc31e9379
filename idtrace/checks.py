"""One step of a verification, as every report shows it."""

from __future__ import annotations

from dataclasses import dataclass

from idtrace.errors import Reason


@dataclass(frozen=True, slots=True)
class Check:
    """One step of a verification: a stable name, whether it passed, and why not.

    A step that could not be made, because what it needs is not there and nobody has asked for it, has neither passed
    nor failed: ``made`` is false, there is no reason, and the detail says what it would have shown.
    """

    name: str
    passed: bool
    detail: str
    reason: Reason | None = None
    made: bool = True

    @classmethod
    def not_made(cls, name: str, detail: str) -> Check:
        """A step that there was nothing for."""
        return cls(name, passed=False, detail=detail, made=False)

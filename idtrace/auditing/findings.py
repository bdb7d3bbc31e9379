"""What an audit has found, and what that means for whoever asked: consistent, misbehaviour, or not to be told.

MISBEHAVIOUR: something that was signed, or that was served for what is signed, is false. With ``evidence`` anybody can
be shown that the signer lied; without it somebody between the signer and us may have changed what we read, which is
somebody's lie all the same. UNCLEAR: what would decide it is missing (a key, an answer, a part of the log).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from idtrace.audit import FINDINGS_MAX, Grade
from idtrace.errors import Reason

if TYPE_CHECKING:
    from idtrace.auditing.evidence import Evidence


class Outcome(IntEnum):
    """How an audit ends; the values are the command's exit codes."""

    CONSISTENT = 0
    MISBEHAVIOUR = 1
    UNCLEAR = 2


@dataclass(frozen=True, slots=True)
class Notice:
    """One finding: where (``entry 17``, ``tile/0/000``, ``checkpoint``, a file), which rule, one sentence.

    ``evidence`` shows it to a third party.
    """

    place: str
    grade: Grade
    reason: Reason
    detail: str
    evidence: Evidence | None = None


@dataclass(slots=True)
class LogReport:
    """One log's audit.

    Attributes:
        origin: the log's name; "" where it could not be learned.
        url: where it was read.
        zones: those that were asked about and keep their changes in it, as text.
        size, root: of the checkpoint that was audited; 0 and b"" where there was none.
        seen_size: of the checkpoint that was seen before; None where none was.
        entries: how many were read and replayed, or drawn as a sample.
        sampled: whether they were a sample, and the rules between entries were not checked.
        seconds: how long reading and replaying took.
        cosigned: witnesses of the policy that cosigned the checkpoint.
        checked: what was found to be in order, a sentence each.
        notices: what was not; ``broken`` counts those beyond the thousandth of a grade too.
    """

    url: str
    origin: str = ""
    zones: tuple[str, ...] = ()
    size: int = 0
    root: bytes = b""
    seen_size: int | None = None
    entries: int = 0
    sampled: bool = False
    seconds: float = 0.0
    identifiers: int = 0
    cosigned: tuple[str, ...] = ()
    checked: list[str] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    broken: int = 0
    _of_grade: Counter[Grade] = field(default_factory=Counter)

    def add(self, notice: Notice) -> None:
        """Take a finding into the report, as far as there is room."""
        self.broken += 1
        self._of_grade[notice.grade] += 1
        if self._of_grade[notice.grade] <= FINDINGS_MAX:  # so that no number of unclear ones crowds out a lie
            self.notices.append(notice)

    @property
    def outcome(self) -> Outcome:
        """The gravest that was found."""
        return outcome_of(self.notices)


# A lie outweighs what could not be told.
_GRAVITY: Final = (Outcome.CONSISTENT, Outcome.UNCLEAR, Outcome.MISBEHAVIOUR)


def outcome_of(notices: Iterable[Notice]) -> Outcome:
    """What these findings come to."""
    grades = {notice.grade for notice in notices}
    if Grade.MISBEHAVIOUR in grades:
        return Outcome.MISBEHAVIOUR
    return Outcome.UNCLEAR if grades else Outcome.CONSISTENT


def gravest(outcomes: Iterable[Outcome]) -> Outcome:
    """The one that stands for several logs; of no log nothing can be told."""
    return max(outcomes, key=_GRAVITY.index, default=Outcome.UNCLEAR)

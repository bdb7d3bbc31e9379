"""Pointers as a node takes them in: which it has to deliver, which it accepts, and how many at a time. Pure.

A pointer says that an event is about a subject. It is a hint: who follows it asks the tree for the event and verifies
that, so a false one costs its reader a question and proves nothing. That is why anybody may deliver one unsigned, and
why all that has to be held here is how many: by caller, so that one cannot fill the disk; of one subject by caller, so
that one cannot use up what others may say of it; and of one subject in all, so that its page cannot be made endless by
many who each send little. What is here already is not counted against a subject.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Final

from idtrace.errors import BusyError, InputError, Reason, RefusedError
from idtrace.identifier import Identifier, Prefix
from registry.authority import Authority
from registry.storage import SUBJECT_BYTES_MAX, Mention, home

# What the subject is in the event (registry/storage.py, Mention).
ROLES: Final = frozenset(
    {
        *("epc", "parent", "child", "input", "output", "class", "device", "fitted"),
        *("read_point", "biz_location", "source", "destination", "transaction"),
    }
)
_EVENT = re.compile(r"event/[0-9a-f]{64}\Z")  # idtrace/epcis/statement.py
# The year 9999: what is later is no time of an event, and no calendar shows it.
TIME_MS_MAX: Final = 253_402_300_799_999
# One call: a pallet's cartons with room to spare, 400 KB of the longest names.
DELIVERED_MAX: Final = 1_000
# Of one page; a reader asks for the next from where it ended.
LISTED_MAX: Final = 1_000
# A caller may bring a day's work at once after an outage, then 200 a second: 6 GB a year of each that never rests.
CALLER_BURST: Final = 50_000
CALLER_PER_SECOND: Final = 200.0
# A lorry that reports every minute, its readings in five roles, needs a twelfth; a week of it may come at once.
SUBJECT_BURST: Final = 60_000
SUBJECT_PER_SECOND: Final = 1.0
# All callers together: as many parties as a dose has, each with such a lorry.
SUBJECT_TOTAL: Final = 10
# Callers and subjects that are remembered, 200 bytes each; one that is forgotten has its burst again.
CALLERS_KEPT: Final = 4_096
SUBJECTS_KEPT: Final = 65_536


class Allowance:
    """So much at once, and so much a second after it, for each key (a token bucket; the last ``kept`` keys)."""

    __slots__ = ("_burst", "_kept", "_left", "_per_second")

    def __init__(self, burst: int, per_second: float, kept: int) -> None:
        self._burst = float(burst)
        self._per_second = per_second
        self._kept = kept
        self._left: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # what is left, and as of when (s)

    def take(self, key: Hashable, count: int, now: float) -> bool:
        """Take so much, or nothing where less is left; ``now`` in seconds, monotonic."""
        left, since = self._left.pop(key, (self._burst, now))
        left = min(self._burst, left + max(0.0, now - since) * self._per_second)
        allowed = count <= left
        self._left[key] = (left - count if allowed else left, now)
        if len(self._left) > self._kept:
            self._left.popitem(last=False)
        return allowed

    def give_back(self, key: Hashable, count: int) -> None:
        """What was taken and not used."""
        if key in self._left:
            left, since = self._left[key]
            self._left[key] = (min(self._burst, left + count), since)


class Floods:
    """What one node lets others deliver."""

    def __init__(self) -> None:
        self._callers = Allowance(CALLER_BURST, CALLER_PER_SECOND, CALLERS_KEPT)
        self._shares = Allowance(SUBJECT_BURST, SUBJECT_PER_SECOND, SUBJECTS_KEPT)
        self._subjects = Allowance(SUBJECT_TOTAL * SUBJECT_BURST, SUBJECT_TOTAL * SUBJECT_PER_SECOND, SUBJECTS_KEPT)

    def require_caller(self, caller: str, count: int, now: float) -> None:
        """Count a call's pointers.

        Raises:
            BusyError: OVERLOADED; nothing of the call is taken.
        """
        if not self._callers.take(caller, count, now):
            raise BusyError(Reason.OVERLOADED, f"{caller} delivers more than {CALLER_PER_SECOND:.0f} pointers a second")

    def require_subject(self, caller: str, subject: str, now: float) -> None:
        """Count a pointer of a subject.

        Raises:
            BusyError: OVERLOADED.
        """
        if not self._shares.take((caller, subject), 1, now):
            detail = f"{caller} delivers more pointers of {subject} than {SUBJECT_PER_SECOND:.0f} a second"
            raise BusyError(Reason.OVERLOADED, detail, field="pointers.subject")
        if not self._subjects.take(subject, 1, now):
            self._shares.give_back((caller, subject), 1)
            detail = f"more pointers of {subject} are delivered than {SUBJECT_TOTAL * SUBJECT_PER_SECOND:.0f} a second"
            raise BusyError(Reason.OVERLOADED, detail, field="pointers.subject")

    def was_here(self, caller: str, subject: str) -> None:
        """A pointer that was counted had been delivered before."""
        self._shares.give_back((caller, subject), 1)
        self._subjects.give_back(subject, 1)


def outbound(authority: Authority, mentions: Iterable[Mention]) -> tuple[str, ...]:
    """Subjects of these mentions whose home is another node; a URI that is no identifier has none."""
    subjects = dict.fromkeys(mention.subject for mention in mentions)
    return tuple(
        name for name in subjects if (known := home(name)) is not None and not is_ours(authority, known.prefix)
    )


def is_ours(authority: Authority, prefix: Prefix) -> bool:
    """Whether this node is the home of what has this prefix."""
    zone = authority.zone_of(prefix)
    return zone is not None and authority.serves(zone)


def delivered(authority: Authority, mention: Mention) -> Mention:
    """A pointer that somebody delivers, checked.

    Raises:
        InputError: it is malformed; the field says where.
        RefusedError: NOT_AUTHORITATIVE where this node is not its subject's home.
    """
    subject = Identifier.parse_canonical(mention.subject, field="pointers.subject")
    event = Identifier.parse_canonical(mention.event, field="pointers.event")
    if _EVENT.match(event.suffix) is None:
        rule = "is not the identifier of an event: PARTY/event/ and 64 hex digits"
        raise InputError(Reason.FIELD_MALFORMED, f"{event} {rule}", field="pointers.event")
    if mention.role not in ROLES:
        raise InputError(Reason.FIELD_MALFORMED, f"a role is one of {', '.join(sorted(ROLES))}", field="pointers.role")
    if not 0 <= mention.time_ms <= TIME_MS_MAX:
        rule = f"a time is 0 to {TIME_MS_MAX} milliseconds since the Unix epoch"
        raise InputError(Reason.FIELD_MALFORMED, rule, field="pointers.time_ms")
    if not is_ours(authority, subject.prefix):
        detail = f"this node does not answer for {subject.prefix}"
        raise RefusedError(Reason.NOT_AUTHORITATIVE, detail, field="pointers.subject")
    return mention


def asked_subject(text: str) -> str:
    """A subject that somebody asks for; where it is none that is known, there simply are no pointers.

    Raises:
        InputError: FIELD_MISSING or FIELD_TOO_LARGE.
    """
    if not text:
        raise InputError(Reason.FIELD_MISSING, "say which subject's pointers", field="subject")
    if len(text.encode()) > SUBJECT_BYTES_MAX:
        raise InputError(Reason.FIELD_TOO_LARGE, f"a subject has at most {SUBJECT_BYTES_MAX} bytes", field="subject")
    return text


def page_size(asked: int, usual: int, field: str = "most") -> int:
    """How many to show: what is asked for, or the usual number for 0.

    Raises:
        InputError: FIELD_TOO_LARGE.
    """
    if asked > LISTED_MAX:
        raise InputError(Reason.FIELD_TOO_LARGE, f"a page has at most {LISTED_MAX}", field=field)
    return asked or usual

"""What nodes have said to have changed, and what that puts in doubt. Pure policy, told the time (monotonic, ms).

An announcement is not signed, so it proves nothing and raises no floor: it is a reason to ask again. The one rule, for
what is kept in this process, for walks under way and for what other resolvers share:

    Nothing that was asked for at or before the announcement of its identifier, or of a prefix on the way to it, is used
    or kept after it.

What an announced prefix puts in doubt of an answer is the delegations at and below that prefix, and the outcome; what
was heard of the prefixes above it stays. A record of the announced version, or of a later one, is not in doubt whenever
it was asked for: it shows the change.

Announcements are remembered for as long as anything may come in that was asked for before them. Where a node announces
more than fits, its own announcements make room: one for its whole zone takes their place. So nothing is ever forgotten
silently, and a flood costs the answers below the zone of whoever made it, and nobody else's.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from idtrace.chain import CLOCK_SKEW_SECONDS
from idtrace.identifier import ROOT, Identifier, Prefix
from idtrace.statements import DENIAL_SECONDS_MAX
from resolver.effects import Learned, Limits

Subject = Identifier | Prefix

# Half a KiB each with its place in the order: 32 MiB, one change for every answer that a process keeps.
ANNOUNCED_MAX: Final = 65_536


# What comes on top of how long answers and chains live: the clocks of other resolvers, and a walk that is under way.
_LATE_MS: Final = CLOCK_SKEW_SECONDS * 1000 + 30_000


@dataclass(frozen=True, slots=True)
class Change:
    """What is no longer what it was, and its latest version, of the record or the delegation; 0 where there is none."""

    subject: Subject
    version: int


@dataclass(frozen=True, slots=True)
class Events:
    """There are more events about an identifier. Its record is what it was, so nothing is put in doubt here."""

    subject: Identifier


@dataclass(frozen=True, slots=True)
class Announcement:
    """The highest version that was said of a subject, when something was last said (ms), and by which zone's watch."""

    version: int
    at_ms: int
    by: Prefix


def kept_ms(limits: Limits) -> int:
    """How long after an announcement something may come in that was asked for before it, by these limits.

    Others share an answer for as long as it lives, and a revoked chain for as long as what it has ended.
    """
    return (max(limits.answer_seconds, DENIAL_SECONDS_MAX) + limits.chain_seconds) * 1000 + _LATE_MS


class Announced:
    """Announcements by subject. ``keep_ms``: how long after one something may come in that was asked for before it."""

    def __init__(self, *, keep_ms: int, most: int = ANNOUNCED_MAX) -> None:
        self.collapsed = 0  # times that a zone took the place of what was said of it in particular
        self._keep_ms = keep_ms
        self._most = most
        self._said: dict[Subject, Announcement] = {}
        # The subjects of each watch, the one that was announced longest ago first.
        self._order: dict[Prefix, OrderedDict[Subject, None]] = {}

    def __len__(self) -> int:
        """Number of subjects."""
        return len(self._said)

    def tell(self, change: Change, *, by: Prefix, now_ms: int) -> None:
        """Take an announcement from the watch of the zone ``by``; versions that go back do not lower one."""
        self._expire(by, now_ms)
        self._put(change.subject, change.version, by, now_ms)
        if len(self._said) > self._most:
            self._collapse(now_ms)

    def since(self, identifier: Identifier, asked_ms: int) -> bool:
        """Whether the identifier or a prefix on the way to it was announced at ``asked_ms`` or later."""
        about: tuple[Subject, ...] = (identifier, *identifier.prefix.lineage())
        return any((said := self._said.get(subject)) is not None and said.at_ms >= asked_ms for subject in about)

    def doubts(self, identifier: Identifier, chain: Learned, asked_ms: int, *, version: int = 0) -> bool:
        """Whether an answer may be older than an announcement: this outcome, asked for at ``asked_ms``, on this chain.

        ``version`` is the record's; 0 for an outcome that shows none.
        """
        said = self._said.get(identifier)
        if said is not None and asked_ms <= said.at_ms and not 0 < said.version <= version:
            return True
        return self._doubted(identifier.prefix, chain, asked_ms)

    def doubts_chain(self, chain: Learned) -> bool:
        """Whether a chain may be older than the announcement of a prefix on it."""
        return self._doubted(chain.chain.zone, chain, None)

    def _doubted(self, prefix: Prefix, chain: Learned, asked_ms: int | None) -> bool:
        for zone in prefix.lineage():
            said = self._said.get(zone)
            if said is None:
                continue
            if asked_ms is not None and asked_ms <= said.at_ms:
                return True
            if any(
                heard <= said.at_ms and link.delegation.child.within(zone)
                for link, heard in zip(chain.chain.links, chain.asked_ms, strict=True)
            ):
                return True
        return False

    def _put(self, subject: Subject, version: int, by: Prefix, at_ms: int) -> None:
        before = self._said.get(subject)
        if before is not None:
            self._drop(subject, before.by)
            version = max(version, before.version)
        self._said[subject] = Announcement(version, at_ms, by)
        self._order.setdefault(by, OrderedDict())[subject] = None

    def _drop(self, subject: Subject, by: Prefix) -> None:
        del self._said[subject]
        order = self._order[by]
        del order[subject]
        if not order:
            del self._order[by]

    def _expire(self, by: Prefix, now_ms: int) -> None:
        while (order := self._order.get(by)) is not None:
            oldest = next(iter(order))
            if self._said[oldest].at_ms + self._keep_ms > now_ms:
                return
            self._drop(oldest, by)

    def _collapse(self, now_ms: int) -> None:
        """Let whoever has announced most announce the whole zone instead, as of now."""
        by = max(self._order, key=lambda zone: len(self._order[zone]))
        zones: tuple[Prefix, ...] = (by,)
        if len(self._order[by]) == 1:  # as many zones as there is room for have said one thing each: it is no flood
            by, zones = ROOT, tuple(self._order)
        for zone in zones:
            for subject in list(self._order[zone]):
                self._drop(subject, zone)
        self._put(by, 0, by, now_ms)
        self.collapsed += 1

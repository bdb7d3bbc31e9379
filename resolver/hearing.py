"""What a node tells on a watch, and what it makes this resolver forget. Told by whoever runs the streams.

A message is taken in these steps; the code carries the same numbers:

1. its number does not go back, and it speaks of nothing beside its zone, else the stream is ended;
2. each change is remembered as announced, so that nothing which was asked for before is used or kept any more;
3. what is known of it goes at once: answers and failures in this process, chains, and what is shared (where only the
   events about an identifier are more, nothing of it is in doubt: whoever has made something of them is told);
4. only then everything up to the message's number counts as told.

Nothing here is believed: whatever a node says, the worst is that something of its own zone is asked for again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from idtrace.errors import Reason, VerificationError
from idtrace.identifier import Identifier, Prefix
from resolver.announced import Change, Events
from resolver.cache import AnswerCache
from resolver.following import Following, Watch
from resolver.sharing import Sharing
from resolver.trust import TrustStore


class Clock(Protocol):
    """The driver's clock."""

    def now_ms(self) -> int:
        """Monotonic, ms."""
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """What came on a stream (registry.proto, WatchResponse)."""

    sequence: int
    changes: tuple[Change | Events, ...]
    next_within_ms: int


def _nobody(identifier: Identifier) -> None:
    del identifier


class Hearing:
    """Applies what the watches of one resolver tell. Belongs to one event loop.

    ``on_events`` is called with each identifier of which there are more events; it returns at once and raises nothing.
    """

    def __init__(
        self,
        *,
        following: Following,
        cache: AnswerCache,
        trust: TrustStore,
        clock: Clock,
        sharing: Sharing | None = None,
        on_events: Callable[[Identifier], None] = _nobody,
    ) -> None:
        self.on_events = on_events
        self._following = following
        self._cache = cache
        self._trust = trust
        self._clock = clock
        self._sharing = sharing

    def check(self, watch: Watch, endpoint: str, message: Message) -> None:
        """Step 1.

        Raises:
            VerificationError: CHANGES_GONE where the node's numbers have gone back, RECORD_OUT_OF_ZONE where it speaks
                of what is not in the zone.
        """
        after = self._following.resumes(watch, endpoint)
        if after is not None and message.sequence < after:
            detail = f"the node stands at {message.sequence}, and stood at {after}"
            raise VerificationError(Reason.CHANGES_GONE, detail, field="sequence")
        for change in message.changes:
            about = change.subject.prefix if isinstance(change.subject, Identifier) else change.subject
            if not about.within(watch.zone):
                self._following.counters.ignored += len(message.changes)
                detail = f"the watch of {watch.zone} speaks of {change.subject}"
                raise VerificationError(Reason.RECORD_OUT_OF_ZONE, detail, field="changes")

    def take(self, watch: Watch, changes: Sequence[Change | Events]) -> None:
        """Steps 2 and 3 for some of a message's changes."""
        now_ms = self._clock.now_ms()
        for change in changes:
            if isinstance(change, Events):
                self.on_events(change.subject)
                continue
            # 2. nothing older comes in any more
            self._following.announced.tell(change, by=watch.zone, now_ms=now_ms)
            # 3. and what is here goes
            if isinstance(change.subject, Identifier):
                self._forget(change.subject, change.version)
            else:
                self._forget_zone(change.subject, change.version)
        self._following.counters.announcements += len(changes)

    def told(self, watch: Watch, endpoint: str, message: Message, *, first: bool) -> None:
        """Step 4, when all changes of a message have been taken; ``first`` of its stream."""
        now_ms = self._clock.now_ms()
        if first:
            self._following.begun(watch, endpoint, now_ms=now_ms)
        self._following.heard(watch, message.sequence, next_within_ms=message.next_within_ms, now_ms=now_ms)

    def lost(self, watch: Watch) -> None:
        """The stream has ended."""
        self._following.lost(watch)

    def gone(self, watch: Watch) -> None:
        """The node cannot tell all that has changed since: forget the zone, and all below it, and begin anew."""
        self._following.gone(watch)
        self.take(watch, (Change(watch.zone, 0),))

    # What nobody here has met, others that follow the zone have met themselves, and others that do not follow it do not
    # believe for long. So a node that makes up names does not fill the store with them.

    def _forget(self, identifier: Identifier, version: int) -> None:
        met = self._cache.forget(identifier) or self._trust.record(identifier) is not None
        if met and version and self._sharing is not None:
            self._sharing.forget(identifier, version)

    def _forget_zone(self, zone: Prefix, version: int) -> None:
        met = self._cache.purge(zone) + self._trust.forget(zone) > 0 or self._trust.zone(zone) is not None
        if met and version and self._sharing is not None:
            self._sharing.forget_zone(zone, version)

"""Which zones this resolver follows, and how far it can know that nothing has changed. Pure policy, told the time.

A **watch** is a stream on which a node tells what changes in one of its zones and below it. A zone that its parent's
node keeps (hosted) has no node of its own, so the watch of the nearest zone above it that has one tells of it.

An answer rests on parts: each delegation of its chain was heard from the node of the zone above it, and the outcome
from the node of the last zone. A part is *told* while the watch of the zone that it was heard from is live, and was so
before the part was asked for: nothing can have changed since that the watch has not told. An answer is *followed* while
all of its parts are told.

What is not followed may be out of date by the time since it was last known not to be: since its watch was last heard,
or since it was asked for, if that is later or there was no watch yet. It is used for ``short_ms`` of that at most.
So a node that restarts costs nobody an answer, if it is back within that time.

A watch that comes back with all that it had missed (``resumed``) is as good as one that was never lost. Times are
monotonic, ms, and rounded down; so "before" here means strictly before, which never takes the later for the earlier.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from idtrace.delegation import State
from idtrace.identifier import Prefix
from resolver.announced import Announced, kept_ms
from resolver.effects import Learned, Limits

# A sign of life every 2 s costs the loop 100 us: 256 of them cost 1.3 % of a core.
WATCHES_MAX: Final = 256
# Nobody has asked for anything of the zone for so long; TTLs are shorter, so nothing is left that it could end.
IDLE_MS: Final = 600_000
# Whose watch was of use within this time does not give way: else a walk through many zones ends everybody's.
BUSY_MS: Final = 30_000
# Whatever a node says of its pace: a watch that would be quiet for longer could be lost for longer and nobody knew;
# and one that is late by a turn of a busy loop is not lost.
NEXT_WITHIN_MS_MIN: Final = 100
NEXT_WITHIN_MS_MAX: Final = 5_000
# "Used however old it is": for who has nobody to tell of changes, and says so with every answer.
FOR_EVER_MS: Final = 2**62


@dataclass(slots=True, eq=False)
class Watch:
    """One zone's stream as far as it has come.

    Attributes:
        zone: what it tells of, with all below.
        endpoints: nodes to ask for it, in order.
        used_ms: when an answer last rested on it.
        since_ms: from when on everything was told; None before the first message.
        heard_ms: when the last message came.
        until_ms: until when the next one has to come; 0 where the stream has ended.
        endpoint: whose stream it is or was; sequence numbers are one node's own.
        sequence: up to which number everything was told.
    """

    zone: Prefix
    endpoints: tuple[str, ...]
    used_ms: int
    since_ms: int | None = None
    heard_ms: int = 0
    until_ms: int = 0
    endpoint: str = ""
    sequence: int = 0

    def live(self, now_ms: int) -> bool:
        """Whether changes are being told."""
        return now_ms < self.until_ms

    def unknown_ms(self, asked_ms: int, now_ms: int) -> int | None:
        """For how long a part that was asked for then may have changed unheard; None: it is told."""
        if self.since_ms is None or self.since_ms >= asked_ms:
            return now_ms - asked_ms
        return None if now_ms < self.until_ms else now_ms - max(asked_ms, self.heard_ms)


@dataclass(frozen=True, slots=True)
class Basis:
    """What an answer or a chain rests on: the watches that would tell of a change, and when each part was asked for."""

    parts: tuple[tuple[Watch, int], ...]
    short_ms: int

    def unfollowed_ms(self, now_ms: int) -> int | None:
        """For how long something may have changed unheard; None: it is followed. Asking keeps the watches wanted."""
        longest: int | None = None
        for watch, asked_ms in self.parts:
            watch.used_ms = now_ms
            unknown_ms = watch.unknown_ms(asked_ms, now_ms)
            if unknown_ms is not None and (longest is None or unknown_ms > longest):
                longest = unknown_ms
        return longest

    def left_ms(self, unfollowed_ms: int | None) -> int:
        """How long it may still be used, at most 0 where it may not."""
        return FOR_EVER_MS if unfollowed_ms is None else self.short_ms - unfollowed_ms


@dataclass(slots=True)
class FollowCounters:
    """What has happened so far; read by the metrics page."""

    begun: int = 0
    resumed: int = 0
    lost: int = 0
    gone: int = 0
    refused: int = 0  # the node has no watches, or none to spare
    malformed: int = 0  # streams that were ended for what they said
    announcements: int = 0
    ignored: int = 0  # announcements of a watch about what is not its zone's
    ended: int = 0  # not of use any more

    def items(self) -> tuple[tuple[str, int], ...]:
        """Name and count of each."""
        return tuple((name, getattr(self, name)) for name in self.__slots__)


def _nobody() -> None:
    """Whoever runs the streams is not there yet, or never will be."""


@dataclass(slots=True)
class Following:
    """The watches that are wanted, by zone. Without any (``most`` 0) every answer is unfollowed.

    Attributes:
        root_endpoints: nodes of the root.
        short_ms: how long an answer that is not followed may be used.
        most: watches at once.
        wanted: called where the watches have changed.
        announced: what they have said.
    """

    root_endpoints: tuple[str, ...] = ()
    short_ms: int = FOR_EVER_MS
    most: int = 0
    wanted: Callable[[], None] = _nobody
    announced: Announced = field(default_factory=lambda: Announced(keep_ms=kept_ms(Limits())))
    counters: FollowCounters = field(default_factory=FollowCounters)
    _watches: dict[Prefix, Watch] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of watches."""
        return len(self._watches)

    @property
    def watches(self) -> tuple[Watch, ...]:
        """The watches that are wanted."""
        return tuple(self._watches.values())

    def live(self, now_ms: int) -> int:
        """How many of them tell what changes."""
        return sum(watch.live(now_ms) for watch in self._watches.values())

    # Resting on watches

    def basis(self, chain: Learned, asked_ms: int | None = None, *, now_ms: int) -> Basis:
        """What this chain rests on, and what was asked of its last zone then, if anything; wants the watches for it."""
        parts: dict[Watch, int] = {}
        teller: Watch | None = None
        for link, link_ms in zip(chain.chain.links, chain.asked_ms, strict=True):
            body = link.delegation
            if teller is None:
                below = self._watch(body.child, self.root_endpoints, now_ms)
            elif body.hosted or body.state is State.REVOKED:
                below = teller
            else:
                below = self._watch(body.child, body.endpoints, now_ms)
            # Of the root's keys the root itself tells.
            _rest(parts, teller or below, link_ms)
            teller = below
        if teller is not None and asked_ms is not None:
            _rest(parts, teller, asked_ms)
        return Basis(tuple(parts.items()), self.short_ms)

    def _watch(self, zone: Prefix, endpoints: tuple[str, ...], now_ms: int) -> Watch:
        """The watch of a zone; one that nobody runs where there is no room for it."""
        watch = self._watches.get(zone)
        if watch is not None and watch.endpoints == endpoints:
            watch.used_ms = now_ms
            return watch
        # Numbers of other nodes are other numbers: what rests on the old watch is not told by the new one.
        new = Watch(zone, endpoints, now_ms)
        if watch is not None:
            self._end(watch)
        elif len(self._watches) >= self.most and not self._give_way(now_ms):
            return new
        self._watches[zone] = new
        self.wanted()
        return new

    def _give_way(self, now_ms: int) -> bool:
        if not self._watches:
            return False
        least = min(self._watches.values(), key=lambda watch: watch.used_ms)
        if now_ms - least.used_ms < BUSY_MS:
            return False
        self._end(least)
        return True

    def end_idle(self, now_ms: int) -> None:
        """End the watches that nothing has rested on for a while."""
        for watch in self.watches:
            if now_ms - watch.used_ms >= IDLE_MS:
                self._end(watch)
                self.wanted()

    def _end(self, watch: Watch) -> None:
        del self._watches[watch.zone]
        watch.until_ms = 0
        self.counters.ended += 1

    def wants(self, watch: Watch) -> bool:
        """Whether a watch is still the one of its zone."""
        return self._watches.get(watch.zone) is watch

    # Hearing

    def resumes(self, watch: Watch, endpoint: str) -> int | None:
        """The number to resume from at this node; None where the watch begins anew there."""
        return watch.sequence if watch.since_ms is not None and watch.endpoint == endpoint else None

    def begun(self, watch: Watch, endpoint: str, *, now_ms: int) -> None:
        """The first message of a stream has been taken: what is asked for from now on is told."""
        if self.resumes(watch, endpoint) is None:
            watch.since_ms, watch.endpoint = now_ms, endpoint
            self.counters.begun += 1
        else:
            self.counters.resumed += 1

    def catching_up(self, watch: Watch, sequence: int) -> None:
        """All changes up to ``sequence`` have been taken of a stream that is resumed, and more is on its way."""
        watch.sequence = sequence

    def heard(self, watch: Watch, sequence: int, *, next_within_ms: int, now_ms: int) -> None:
        """All changes up to ``sequence`` have been taken, and the next message comes within that time."""
        within_ms = min(max(next_within_ms, NEXT_WITHIN_MS_MIN), NEXT_WITHIN_MS_MAX)
        watch.sequence, watch.heard_ms = sequence, now_ms
        watch.until_ms = now_ms + 2 * within_ms if self.wants(watch) else 0

    def lost(self, watch: Watch) -> None:
        """The stream has ended, or nothing came for too long."""
        if watch.until_ms:
            self.counters.lost += 1
        watch.until_ms = 0

    def gone(self, watch: Watch) -> None:
        """The node cannot tell what has changed meanwhile: nothing from before is told any more."""
        self.counters.gone += 1
        watch.until_ms, watch.since_ms = 0, None


def _rest(parts: dict[Watch, int], watch: Watch, asked_ms: int) -> None:
    parts[watch] = min(parts.get(watch, asked_ms), asked_ms)

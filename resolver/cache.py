"""Answers in this process's memory: what is kept, for how long, and what makes room for what. Pure policy, no I/O.

Three pools, each bounded and evicted least recently used first, so that none can push out another:

- **answers**: what an owner signed about this very identifier (a record, or the tombstone that ended it);
- **denials**: ABSENT, and GONE by a revoked zone. Anybody can make any number of these by asking for random names;
- **failures**: UNREACHABLE and BOGUS, with a back-off that grows while they last (RFC 9520, tsuNAME).

Two clocks. An entry ends when its time to live has passed on the monotonic clock (``now_ms``), so that nobody prolongs
it by setting a clock back, and at the latest at its signed expiry on the wall clock (``now``), so that a machine that
slept does not serve what has expired. An expired entry is never served.

A proven answer of which nobody would tell that it has changed is served for a short time only, as
``resolver/following.py`` says. It stays after that: where its watches are resumed, it is as good as before.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Final, TypeVar

from idtrace.bundle import Verdict
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Record
from resolver.below import Below
from resolver.following import FOR_EVER_MS, Basis
from resolver.resolution import Resolution

T = TypeVar("T")

# What an answer weighs beside its body and values: objects, keys, signature (tracemalloc: 2,040 with a body of 272),
# and what it rests on (450 with four zones).
_ENTRY_BYTES: Final = 2_250
# For an answer that nobody has to tell of: one made up, or a failure.
_NOTHING: Final = Basis((), FOR_EVER_MS)


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """Bounds of an :class:`AnswerCache`."""

    # The hot set of one site (a day of a warehouse's scans) at 2 to 3 KiB each.
    answers: int = 65_536
    # A record may be 256 KiB; without a bound on bytes a few thousand such ones would fill the machine.
    answer_bytes: int = 256 * 1024 * 1024
    # A denial lives for 60 s: 300 misses a second are held, and a flood of random names only evicts its own kind.
    denials: int = 16_384
    failures: int = 16_384
    # RFC 9520 §3.2: at least 1 s, growing, never above 5 min.
    unreachable_ms: int = 1_000
    unreachable_ms_max: int = 300_000
    # A lie costs signature checks, so it is tried again later than silence at first; but it may come from one bad node
    # of two, so no later than after Unbound's val-bogus-ttl in the end.
    bogus_ms: int = 5_000
    bogus_ms_max: int = 60_000


@dataclass(slots=True)
class Counters:
    """What has happened so far; read by the metrics page."""

    hits: int = 0
    denial_hits: int = 0
    failure_hits: int = 0
    misses: int = 0
    expired: int = 0
    evicted: int = 0
    purged: int = 0
    unfollowed: int = 0  # known, but nobody would have told of a change for too long

    def items(self) -> tuple[tuple[str, int], ...]:
        """Name and count of each."""
        return tuple((f.name, getattr(self, f.name)) for f in fields(self))


@dataclass(frozen=True, slots=True)
class Hit:
    """A usable entry: the resolution, how old it is, and how long it may still be kept.

    ``unfollowed_ms``: for how long it may have been out of date unheard, at most its age; None where changes are told.
    ``doubtful``: there may be a newer one that nobody has told of, so ask; where that proves nothing, this one stands.
    """

    resolution: Resolution
    age_ms: int
    ttl_ms: int
    unfollowed_ms: int | None = None
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A proven answer and what it rests on; both times monotonic, ms."""

    resolution: Resolution
    stored_ms: int
    until_ms: int
    size_bytes: int
    basis: Basis


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong the last time, for how long it is not tried again, and how many times in a row it did."""

    resolution: Resolution
    stored_ms: int
    until_ms: int
    in_a_row: int


class AnswerCache:
    """Resolutions by identifier."""

    def __init__(self, limits: CacheLimits | None = None) -> None:
        self.limits = limits or CacheLimits()
        self.counters = Counters()
        self.answer_bytes = 0
        self._answers: OrderedDict[Identifier, Entry] = OrderedDict()
        self._denials: OrderedDict[Identifier, Entry] = OrderedDict()
        self._failures: OrderedDict[Identifier, Failure] = OrderedDict()
        self._below: Below[Identifier] = Below()  # whatever is in one of the three
        self._doubted_ms = -1

    def __len__(self) -> int:
        """Entries of all three pools."""
        return len(self._answers) + len(self._denials) + len(self._failures)

    def get(self, identifier: Identifier, *, now: int, now_ms: int, fresh: bool = False) -> Hit | None:
        """What may be answered without asking.

        ``fresh`` passes over proven answers but not over a failure in back-off: it must not be a way to hammer a node.
        For the same reason nobody is asked to ask again about a doubtful answer while its last question has failed.
        """
        if not fresh:
            for pool in (self._answers, self._denials):
                entry = self._living(pool, identifier, now, now_ms)
                hit = self._hit(entry, now, now_ms) if entry is not None else None
                if hit is not None and hit.ttl_ms <= 0:
                    self.counters.unfollowed += 1
                elif hit is not None:
                    if pool is self._answers:
                        self.counters.hits += 1
                    else:
                        self.counters.denial_hits += 1
                    return hit
        failure = self._failures.get(identifier)
        if failure is not None and now_ms < failure.until_ms:
            self.counters.failure_hits += 1
            return Hit(failure.resolution, now_ms - failure.stored_ms, failure.until_ms - now_ms)
        self.counters.misses += 1
        return None

    def put(self, resolution: Resolution, *, now_ms: int, basis: Basis = _NOTHING) -> int:
        """Keep a resolution as its kind may be kept, and what it rests on; returns for how long, ms."""
        identifier = resolution.identifier
        if resolution.bundle is None:
            return self._put_failure(resolution, now_ms)
        self._drop(identifier)
        self._failures.pop(identifier, None)
        if resolution.ttl_ms <= 0:
            self._unlist(identifier)
            return 0
        self._below.add(identifier.prefix, identifier)
        until_ms = now_ms + resolution.ttl_ms
        if isinstance(resolution.bundle.outcome, Record):
            entry = Entry(resolution, now_ms, until_ms, _size_bytes(resolution.bundle.outcome), basis)
            self._answers[identifier] = entry
            self.answer_bytes += entry.size_bytes
            while len(self._answers) > self.limits.answers or self.answer_bytes > self.limits.answer_bytes:
                self._evict_answer()
        else:
            self._denials[identifier] = Entry(resolution, now_ms, until_ms, 0, basis)
            self._bound(self._denials, self.limits.denials)
        return resolution.ttl_ms

    def purge(self, zone: Prefix) -> int:
        """Drop whatever is known below a zone (its delegation has changed); returns how many entries."""
        before = len(self)
        for identifier in self._below.of(zone):
            self._drop(identifier)
            self._failures.pop(identifier, None)
            self._below.discard(identifier.prefix, identifier)
        purged = before - len(self)
        self.counters.purged += purged
        return purged

    def drop(self, identifier: Identifier) -> bool:
        """Forget a proven answer, if there is one: there is a newer one. A failure stays in its back-off."""
        known = identifier in self._answers or identifier in self._denials
        if known:
            self._drop(identifier)
            self._unlist(identifier)
            self.counters.purged += 1
        return known

    def forget(self, identifier: Identifier) -> bool:
        """Forget a proven answer, if there is one, and a failure: whoever answers for the identifier says so."""
        known = self.drop(identifier)
        if self._failures.pop(identifier, None) is not None:
            self._unlist(identifier)
        return known

    def doubt(self, *, now_ms: int) -> None:
        """From now on nobody can tell whether what is kept here is still the latest: ask again before using it.

        Nothing is dropped. What is proven and in force stays worth more than no answer, and to drop all of it at once
        would send all questions on at once, at the very moment at which the shared cache is gone as well.
        """
        self._doubted_ms = now_ms

    def _hit(self, entry: Entry, now: int, now_ms: int) -> Hit:
        age_ms = now_ms - entry.stored_ms
        left_ms = min(entry.until_ms - now_ms, (entry.resolution.expires - now) * 1000)
        unfollowed_ms = entry.basis.unfollowed_ms(now_ms)
        if unfollowed_ms is not None:
            left_ms = min(left_ms, entry.basis.left_ms(unfollowed_ms))
            unfollowed_ms = min(unfollowed_ms, age_ms)
        doubtful = entry.stored_ms <= self._doubted_ms
        if doubtful:
            failure = self._failures.get(entry.resolution.identifier)
            doubtful = failure is None or now_ms >= failure.until_ms
        return Hit(entry.resolution, age_ms, left_ms, unfollowed_ms, doubtful)

    def _living(
        self, pool: OrderedDict[Identifier, Entry], identifier: Identifier, now: int, now_ms: int
    ) -> Entry | None:
        entry = pool.get(identifier)
        if entry is None:
            return None
        if now_ms >= entry.until_ms or now >= entry.resolution.expires:
            self._drop(identifier)
            self._unlist(identifier)
            self.counters.expired += 1
            return None
        pool.move_to_end(identifier)
        return entry

    def _put_failure(self, resolution: Resolution, now_ms: int) -> int:
        limits = self.limits
        bogus = resolution.verdict is Verdict.BOGUS
        first, most = (
            (limits.bogus_ms, limits.bogus_ms_max) if bogus else (limits.unreachable_ms, limits.unreachable_ms_max)
        )
        before = self._failures.pop(resolution.identifier, None)
        # A name that was quiet for as long as the longest back-off starts again from the shortest.
        in_a_row = 1
        if before is not None and now_ms - before.until_ms < limits.unreachable_ms_max:
            in_a_row = before.in_a_row + 1
        backoff_ms = min(most, first << min(in_a_row - 1, 20))
        self._failures[resolution.identifier] = Failure(resolution, now_ms, now_ms + backoff_ms, in_a_row)
        self._below.add(resolution.identifier.prefix, resolution.identifier)
        self._bound(self._failures, limits.failures)
        return backoff_ms

    def _unlist(self, identifier: Identifier) -> None:
        if all(identifier not in pool for pool in (self._answers, self._denials, self._failures)):
            self._below.discard(identifier.prefix, identifier)

    def _drop(self, identifier: Identifier) -> None:
        entry = self._answers.pop(identifier, None)
        if entry is not None:
            self.answer_bytes -= entry.size_bytes
        self._denials.pop(identifier, None)

    def _evict_answer(self) -> None:
        identifier, entry = self._answers.popitem(last=False)
        self._unlist(identifier)
        self.answer_bytes -= entry.size_bytes
        self.counters.evicted += 1

    def _bound(self, pool: OrderedDict[Identifier, T], most: int) -> None:
        if len(pool) > most:
            self._unlist(pool.popitem(last=False)[0])
            self.counters.evicted += 1


def _size_bytes(record: Record) -> int:
    """What an answer weighs beyond its chain, whose links all answers of a zone share."""
    values = sum(len(value.data) + 150 for value in record.values)
    return _ENTRY_BYTES + len(record.signed.payload) + values

"""What resolvers tell each other through the shared cache, and what one believes of it.

Between the driver and a :class:`Store`: turns what a walk has verified into entries, and entries into resolutions and
chains again. Nothing here can fail a question: whatever is wrong with an entry is a miss, and a counter.

An entry is believed in these steps; the code carries the same numbers:

1. the store has something, a holder of the shared key wrote it under this very key, and it has not expired;
2. its body is what we write: a bundle about this identifier, or the links of a chain;
3. the chain hangs together, every link is in force at ``now``, and none lies below a floor of ours;
4. the outcome belongs to the chain and to the identifier, and lies below no floor: no record goes back;
5. what it proves is remembered, so that the store cannot take it back later (a replica that was promoted is older);
6. no node has said since that it has changed, and one would have said so (``resolver/following.py``): as if we had
   asked at the entry's tick, or earlier by as much as clocks may differ, on the delegations that we hold ourselves.

Zones travel beside answers: each reading takes the chains of all zones above the identifier with it, so a resolver
learns of a rotation or a revocation from whoever has met it first, and an answer that rests on the older delegation
falls with step 3. Where the store tells what has changed, a zone that changed is read at once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from idtrace import wire
from idtrace.bundle import Denied, Revoked
from idtrace.chain import TrustedChain, VerifiedRecord
from idtrace.errors import IdtraceError, Reason, VerificationError
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Record, RecordBody, check_values
from idtrace.statements import Denial, DenialReason
from resolver.cache import AnswerCache
from resolver.effects import Done, Learned, Limits
from resolver.following import Basis, Following
from resolver.resolution import Resolution, denied, recorded, revoked
from resolver.shared_bodies import SharedChains, answer_body, answer_parts, chain_body
from resolver.shared_cache import (
    SHARED_SKEW_MS,
    VALUE_BYTES_MAX,
    Entry,
    EntryKind,
    Keys,
    Miss,
    Seal,
    SharedCounters,
    identity,
    tombstone,
    version_claimed,
)
from resolver.trust import TrustStore

# Names of zones' keys, 200 bytes each: the zones of a day.
ZONE_KEYS_KEPT: Final = 4_096
# While nobody tells what has changed: as long as a scan may be stale after a recall, by a little luck less.
UNTRACKED_MS: Final = 2_000
# Keys that are waiting to be read again; beyond, answers are dropped unread, and zones are read with the next question.
DOUBTFUL_MAX: Final = 4_096
# What was written lately, 150 bytes each, to know its echo by.
WRITTEN_KEPT: Final = 16_384


class Clock(Protocol):
    """The driver's clock."""

    def now(self) -> int:
        """Wall clock, s."""
        ...

    def wall_ms(self) -> int:
        """Wall clock, ms."""
        ...

    def now_ms(self) -> int:
        """Monotonic, ms."""
        ...


@dataclass(frozen=True, slots=True)
class Write:
    """To be stored by compare-and-set."""

    key: bytes
    entry: Entry
    value: bytes
    kept_ms: int


@dataclass(frozen=True, slots=True)
class Remove:
    """To be removed if it still is this value."""

    key: bytes
    value: bytes


class Listener(Protocol):
    """Whom a store tells what happens in it."""

    def superseded(self, write: Write, held_version: int) -> None:
        """A write came too late: this version stands."""
        ...

    def invalidated(self, keys: Iterable[bytes] | None) -> None:
        """Somebody has written these keys; None for all of them."""
        ...

    def lost(self) -> None:
        """From now on the store does not tell what changes in it."""
        ...


class Store(Protocol):
    """A shared cache as the adapter gives it; nothing but cancellation is raised."""

    @property
    def up(self) -> bool:
        """Whether a reading has a chance."""
        ...

    @property
    def tracking(self) -> bool:
        """Whether it tells what changes in it."""
        ...

    def start(self, listener: Listener, counters: SharedCounters) -> None:
        """Begin to connect."""
        ...

    async def read(self, keys: Sequence[bytes]) -> Sequence[bytes | None] | None:
        """Values of keys, in one trip with all that is asked in the same turn of the loop; None: no answer."""
        ...

    def write(self, change: Write | Remove) -> None:
        """Have something stored or removed when there is time; nobody waits for it."""
        ...

    async def close(self) -> None:
        """Let go of the connections."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """An answer of the shared cache, how old it is, whether it may be kept here, what it rests on.

    ``unfollowed_ms``: for how long it may have been out of date unheard, at most its age; None where changes are told.
    """

    resolution: Resolution
    age_ms: int
    keep: bool
    basis: Basis
    unfollowed_ms: int | None


@dataclass(slots=True)
class _Reading:
    """A reading under way; ``changed`` once its key was written meanwhile, so what comes may be the older value."""

    changed: bool = False


class Sharing:
    """One resolver's side of the shared cache. Belongs to one event loop."""

    def __init__(
        self,
        store: Store,
        seal: Seal,
        *,
        cache: AnswerCache,
        trust: TrustStore,
        clock: Clock,
        limits: Limits,
        keys: Keys | None = None,
        following: Following | None = None,
    ) -> None:
        self.counters = SharedCounters()
        self._store = store
        self._seal = seal
        self._cache = cache
        self._trust = trust
        self._clock = clock
        self._limits = limits
        self._keys = keys or Keys()
        self._following = Following() if following is None else following
        self._chains = SharedChains(trust)
        self._zone_keys: OrderedDict[Prefix, bytes] = OrderedDict()
        self._reading: dict[bytes, _Reading] = {}
        self._written: OrderedDict[bytes, bytes] = OrderedDict()
        self._doubtful: set[bytes] = set()
        self._asking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect; questions are answered without the store until it is there."""
        self._store.start(self, self.counters)

    async def close(self) -> None:
        """Let go of the store."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        await self._store.close()

    # Reading

    async def look_up(self, identifier: Identifier, zones: Sequence[Prefix], *, fresh: bool) -> Found | None:
        """Take over the chains of these zones, and the answer unless ``fresh`` wants the authority's own."""
        if not self._store.up:
            return None
        key = self._keys.answer(identifier)
        reading = self._reading[key] = _Reading()
        try:
            values = await self._store.read([key, *map(self._zone_key, zones)])
        finally:
            del self._reading[key]
        if values is None:
            return None
        known = self._trust.deepest(zones, now=self._clock.now(), now_ms=self._clock.now_ms())
        for zone, value in zip(zones, values[1:], strict=True):
            if value is None:
                continue
            floor = self._trust.zone(zone)
            deeper = known is None or zone.strictly_within(known.chain.zone)
            if deeper or floor is None or version_claimed(value) > floor[0]:
                self._take_zone(zone, value)
        if fresh:
            return None
        found = self._take_answer(identifier, key, values[0])
        if found is None:
            self.counters.misses += 1
            return None
        self.counters.hits += 1
        if not self._store.tracking:
            short = replace(found.resolution, ttl_ms=min(found.resolution.ttl_ms, UNTRACKED_MS))
            return replace(found, resolution=short)
        return replace(found, keep=not reading.changed)

    def _take_zone(self, zone: Prefix, value: bytes | None) -> None:
        key = self._zone_key(zone)
        entry = self._open(key, value)
        if entry is None or entry.kind is not EntryKind.CHAIN:
            return
        try:
            # 2. and 3.
            chain, _ = self._chains.read(entry.body, now=self._clock.now())
        except IdtraceError:
            self.counters.outdated += 1
            return
        if chain.zone == zone:
            now, now_ms, wall_ms = self._clock.now(), self._clock.now_ms(), self._clock.wall_ms()
            held = self._trust.deepest((zone,), now=now, now_ms=now_ms)
            links_ms = (self._asked_ms(entry),) * len(chain.links)
            learned = Learned(chain, now_ms - max(0, wall_ms - entry.tick_ms), links_ms)
            # 5. What we have asked for ourselves, and may still use, we know better the age of.
            self._learn(learned, floors_only=held is not None and held.chain.signed == chain.signed)

    def _take_answer(self, identifier: Identifier, key: bytes, value: bytes | None) -> Found | None:
        # 1. written under this key by one of us, and alive
        entry = self._open(key, value)
        if entry is None:
            return None
        now = self._clock.now()
        try:
            resolution, record, teaches = self._judge(identifier, entry, now)
            # 5. remembered
            if teaches:
                assert resolution.chain is not None, "an answer has a chain"
                self._learn(Learned(resolution.chain, 0), floors_only=True)
            latest = self._trust.accept(Done(resolution, (), record)).latest
        except IdtraceError as error:
            self.counters.outdated += 1
            floor = self._trust.record(identifier)
            if error.reason is Reason.RECORD_ROLLED_BACK and floor is not None:
                self.forget(identifier, floor[0])
            return None
        if not latest:
            self.counters.outdated += 1
            return None
        # 6. not announced to have changed, and followed or young
        found = self._followed(resolution, entry, record)
        if found is None:
            self.counters.outdated += 1
        return found

    def _followed(self, resolution: Resolution, entry: Entry, record: VerifiedRecord | None) -> Found | None:
        now, now_ms, wall_ms = self._clock.now(), self._clock.now_ms(), self._clock.wall_ms()
        asked_ms, version = self._asked_ms(entry), record.body.version if record is not None else 0
        chain = self._held(resolution.chain, asked_ms)
        if chain is None or self._following.announced.doubts(resolution.identifier, chain, asked_ms, version=version):
            return None
        basis = self._following.basis(chain, asked_ms, now_ms=now_ms)
        unfollowed_ms = basis.unfollowed_ms(now_ms)
        left_ms = basis.left_ms(unfollowed_ms)
        if left_ms <= 0:
            return None
        age_ms = max(0, wall_ms - entry.tick_ms)
        ttl_ms = min(resolution.ttl_ms, (entry.expires - now) * 1000, left_ms)
        marked_ms = None if unfollowed_ms is None else min(unfollowed_ms, age_ms)
        return Found(replace(resolution, ttl_ms=ttl_ms), age_ms, keep=True, basis=basis, unfollowed_ms=marked_ms)

    def _asked_ms(self, entry: Entry) -> int:
        """When the entry's question was asked at the latest, on our monotonic clock: its writer's may be ahead."""
        return self._clock.now_ms() - (self._clock.wall_ms() - entry.tick_ms) - SHARED_SKEW_MS

    def _held(self, chain: TrustedChain | None, asked_ms: int) -> Learned | None:
        """These links with the times at which we have heard of them; None where we hold others, or none."""
        assert chain is not None, "an answer has a chain"
        # A revocation is nothing to start a walk from, so it is not held; the answer tells of it.
        known = chain.upto(len(chain.links) - 1) if chain.is_revoked else chain
        held = self._trust.held(known.zone)
        if held is None or held.chain.signed != known.signed:
            return None
        links_ms = (*held.asked_ms, asked_ms) if chain.is_revoked else held.asked_ms
        return Learned(chain, held.since_ms, links_ms)

    def _judge(self, identifier: Identifier, entry: Entry, now: int) -> tuple[Resolution, VerifiedRecord | None, bool]:
        """Steps 2 to 4; the last of the three says whether the chain may hold what step 5 has to remember."""
        # 2. a chain, and an outcome about this identifier
        links, rest = answer_parts(entry.body)
        said = wire.outcome_from_authenticated(rest)
        outcome = said.outcome
        # 3. a chain in force, below no floor
        chain, teaches = self._chains.read(links, now=now)
        ceiling = self._limits.answer_seconds
        # 4. an outcome of this chain about this identifier
        if said.about != str(identifier) or not identifier.prefix.within(chain.zone):
            raise VerificationError(Reason.RECORD_WRONG_IDENTIFIER, "the entry is about another", field="entry")
        if chain.is_revoked != isinstance(outcome, Revoked):
            raise VerificationError(Reason.ANSWER_CONTRADICTS_ITSELF, "a zone stands or is revoked", field="entry")
        if isinstance(outcome, Revoked):
            return revoked(identifier, chain, now=now, ceiling_seconds=ceiling), None, teaches
        if isinstance(outcome, Denied):
            denial = Denial.parse(outcome.signed.payload)
            return denied(outcome, denial, chain, now=now, ceiling_seconds=ceiling), None, teaches
        body = RecordBody.parse(outcome.signed.payload)
        floor = self._trust.record(identifier)
        if floor is not None and (body.version < floor[0] or (body.version == floor[0] and outcome.hash != floor[1])):
            reason = Reason.RECORD_ROLLED_BACK if body.version < floor[0] else Reason.RECORD_FORKED
            raise VerificationError(reason, f"version {floor[0]} was seen", field="entry")
        verified = VerifiedRecord(outcome, body, check_values(body, outcome.values))
        answer = recorded(verified, chain, now=now, ceiling_seconds=ceiling, proof=said.proof, currency=said.currency)
        return answer, verified, teaches

    def _open(self, key: bytes, value: bytes | None) -> Entry | None:
        # 1. written under this key by one of us, and alive
        entry = self._seal.open(key, value, now=self._clock.now())
        if isinstance(entry, Entry):
            return entry
        if entry is Miss.FORGED:
            self.counters.forged += 1
            assert value is not None, "what is not there is not forged"
            self._store.write(Remove(key, value))
        elif entry is Miss.EXPIRED:
            self.counters.expired += 1
        return None

    def _zone_key(self, zone: Prefix) -> bytes:
        key = self._zone_keys.get(zone)
        if key is None:
            key = self._zone_keys[zone] = self._keys.zone(zone)
            if len(self._zone_keys) > ZONE_KEYS_KEPT:
                self._zone_keys.popitem(last=False)
        return key

    def _learn(self, learned: Learned, *, floors_only: bool = False) -> None:
        for zone in self._trust.learn(learned, floors_only=floors_only):
            self._cache.purge(zone)

    # Writing

    def offer(self, done: Done, *, started_wall_ms: int, latest: bool) -> None:
        """Tell the others what a walk that began then has verified; ``latest`` as :class:`Accepted` says."""
        if not self._store.up:
            return
        now, now_ms, wall_ms = self._clock.now(), self._clock.now_ms(), self._clock.wall_ms()
        for learned in done.learned:
            chain = learned.chain
            tick_ms = wall_ms - (now_ms - learned.since_ms)
            lives_seconds = self._limits.chain_seconds
            # Of a revocation others must hear for as long as anything may rest on what was before.
            lives_seconds += self._limits.answer_seconds if chain.is_revoked else 0
            expires = min(chain.expires, tick_ms // 1000 + lives_seconds)
            body = chain_body(chain.signed)
            entry = Entry(EntryKind.CHAIN, chain.delegation.version, tick_ms, expires, body)
            self._write(self._keys.zone(chain.zone), entry, now)
        resolution = done.resolution
        if latest and resolution.bundle is not None and resolution.ttl_ms > 0:
            self._write(self._keys.answer(resolution.identifier), self._entry(done, started_wall_ms, now), now)

    def forget(self, identifier: Identifier, version: int) -> None:
        """Delete the answer: versions below this one are dead, for all resolvers, and cannot come back."""
        self._write(self._keys.answer(identifier), tombstone(version), self._clock.now())

    def forget_zone(self, zone: Prefix, version: int) -> None:
        """Delete the chain to a zone: what was asked for before now, or is below this version, is dead for all."""
        dead = replace(tombstone(version), tick_ms=self._clock.wall_ms())
        self._write(self._keys.zone(zone), dead, self._clock.now())

    def _entry(self, done: Done, started_wall_ms: int, now: int) -> Entry:
        resolution = done.resolution
        bundle = resolution.bundle
        assert bundle is not None, "only what is proven is shared"
        expires = min(resolution.expires, now + resolution.ttl_ms // 1000)
        body = answer_body(bundle)
        floor = self._trust.record(resolution.identifier)
        seen = floor[0] if floor else 0
        match bundle.outcome:
            case Record():
                assert done.record is not None, "a record was verified"
                return Entry(EntryKind.RECORD, done.record.body.version, started_wall_ms, expires, body)
            case Denied(signed):
                denial = Denial.parse(signed.payload)
                if denial.reason is DenialReason.IDENTIFIER_ABSENT:
                    return Entry(EntryKind.ABSENT, 0, started_wall_ms, expires, body)
                # It was true until the end of this second of its signer's, though not of one that is still to come.
                said_ms = min(denial.issued_at * 1000 + 999, self._clock.wall_ms())
                return Entry(EntryKind.PREFIX, seen, max(started_wall_ms, said_ms), expires, body)
            case Revoked():
                return Entry(EntryKind.PREFIX, seen, started_wall_ms, expires, body)

    def _write(self, key: bytes, entry: Entry, now: int) -> None:
        value = self._seal.seal(key, entry)
        if len(value) <= VALUE_BYTES_MAX:
            self._store.write(Write(key, entry, value, entry.kept_ms(now)))
            self._written[key] = identity(value)
            if len(self._written) > WRITTEN_KEPT:
                self._written.popitem(last=False)

    # Listening

    def superseded(self, write: Write, held_version: int) -> None:
        """What we wanted to store is old: forget it here too. What is said of a prefix goes over any version."""
        if write.entry.version >= held_version:
            return
        if write.entry.kind is EntryKind.PREFIX:
            self._write(write.key, replace(write.entry, version=held_version), self._clock.now())
            return
        if self._keys.is_zone(write.key):
            self._ask_again(write.key)
        else:
            self._changed(write.key)

    def invalidated(self, keys: Iterable[bytes] | None) -> None:
        """Drop the answers that others have written anew, and look at the zones that they have.

        A server tells us of our own writes as well (NOLOOP does not reach into a script), and one word may stand for
        two writes: so a key that we have written is read again, and what still is ours stays.
        """
        if keys is None:
            self.counters.invalidated += 1
            self._cache.doubt(now_ms=self._clock.now_ms())
            return
        for key in keys:
            self.counters.invalidated += 1
            if key in self._reading:
                self._reading[key].changed = True
            if key in self._written or self._keys.is_zone(key):
                self._ask_again(key)
            else:
                self._changed(key)

    def lost(self) -> None:
        """Nobody tells any more what others have found out: what is kept is asked for again before it is used."""
        self.counters.lost += 1
        self._cache.doubt(now_ms=self._clock.now_ms())
        for reading in self._reading.values():
            reading.changed = True

    def _ask_again(self, key: bytes) -> None:
        if len(self._doubtful) < DOUBTFUL_MAX:
            self._doubtful.add(key)
        else:
            self._changed(key)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._read_doubtful(), name="read what may have changed")

    async def _read_doubtful(self) -> None:
        while self._doubtful:
            keys = tuple(self._doubtful)
            self._doubtful.clear()
            values = await self._store.read(keys)
            if values is None:  # nobody tells what has become of them, which is no reason to lose what is proven
                self._cache.doubt(now_ms=self._clock.now_ms())
                continue
            for key, value in zip(keys, values, strict=True):
                if value is None or self._written.pop(key, b"") != identity(value):
                    self._changed(key, value)

    def _changed(self, key: bytes, value: bytes | None = None) -> None:
        about = self._keys.named(key)
        if isinstance(about, Identifier):
            self._cache.drop(about)
        elif about is not None:
            self._take_zone(about, value)

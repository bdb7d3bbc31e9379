"""What comes from the store that resolvers share is held to the same rule: nothing older than what was announced."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from idtrace.bundle import Verdict
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Status
from resolver.announced import Change
from resolver.cache import AnswerCache
from resolver.driver import Clock, Resolver, Source
from resolver.effects import Limits
from resolver.following import Following
from resolver.hearing import Hearing
from resolver.shared_cache import (
    SHARED_SKEW_MS,
    Entry,
    EntryKind,
    Keys,
    Seal,
    SharedCounters,
    supersedes,
    version_claimed,
)
from resolver.sharing import Listener, Remove, Sharing, Write
from resolver.trust import TrustStore
from tests.following_fixtures import begin, tree
from tests.integration.test_resolver_following import version
from tests.simulator import Tree, TreeUpstream, dead

ITEM, OTHER = Identifier.parse("88.118.8/SN-1"), Identifier.parse("88.118.8/SN-2")
ZONE, PARENT = Prefix.parse("88.118.8"), Prefix.parse("88.118")
KEYS = Keys()


@dataclass
class Shelf:
    """A store in memory that compares and sets as the script does; a reading waits while ``held`` is not set."""

    up: bool = True
    tracking: bool = True
    values: dict[bytes, tuple[Entry, bytes]] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    held: asyncio.Event | None = None
    dead: bool = False

    def start(self, listener: Listener, counters: SharedCounters) -> None:
        """It is there."""

    async def read(self, keys: Sequence[bytes]) -> Sequence[bytes | None] | None:
        if self.dead:
            return None
        found = [self.values[key][1] if key in self.values else None for key in keys]
        if self.held is not None:
            await self.held.wait()
        return found

    def write(self, change: Write | Remove) -> None:
        if isinstance(change, Write):
            self.writes.append(change)
            held = self.values.get(change.key)
            if held is None or supersedes(change.entry, held[0]):
                self.values[change.key] = (change.entry, change.value)

    async def close(self) -> None:
        """Nothing to close."""


class Member:
    """A resolver of several that share a shelf; ``ahead_ms`` is what its wall clock is ahead."""

    def __init__(self, built: Tree, shelf: Shelf, *, ahead_ms: int = 0) -> None:
        self.tree = built
        clock = Clock(
            wall=lambda: built.now + (built.now_ms % 1000 + ahead_ms) / 1000, monotonic=lambda: built.now_ms / 1000
        )
        self.following = Following(root_endpoints=built.root_endpoints, short_ms=5_000, most=16)
        limits, cache = Limits(), AnswerCache()
        self.trust = TrustStore(chain_seconds=300, following=self.following)
        seal = Seal(b"the same for all of one operator", built.anchor)
        self.sharing = Sharing(
            shelf, seal, cache=cache, trust=self.trust, clock=clock, limits=limits, keys=KEYS, following=self.following
        )
        self.hearing = Hearing(
            following=self.following, cache=cache, trust=self.trust, clock=clock, sharing=self.sharing
        )
        self.resolver = Resolver(
            anchor=built.anchor,
            root_endpoints=built.root_endpoints,
            upstream=TreeUpstream(built),
            limits=limits,
            cache=cache,
            trust=self.trust,
            clock=clock,
            sharing=self.sharing,
            following=self.following,
        )

    def hear(self) -> None:
        for watch in self.following.watches:
            begin(self.following, watch, self.tree.now_ms)

    def tell(self, subject: Identifier | Prefix, number: int, *, by: Prefix = ZONE) -> None:
        (watch,) = (watch for watch in self.following.watches if watch.zone == by)
        self.hearing.take(watch, (Change(subject, number),))


async def two(*, ahead_ms: int = 0) -> tuple[Tree, Shelf, Member, Member]:
    """Two that have followed every zone for longer than clocks may differ; the first one's clock may be ahead."""
    built, shelf = tree(), Shelf()
    writer, reader = Member(built, shelf, ahead_ms=ahead_ms), Member(built, shelf)
    for member in (writer, reader):
        await member.resolver.resolve(Identifier.parse("88.118.8/SN-5"), fresh=True)
    for _ in range(40):
        writer.hear()
        reader.hear()
        built.pass_time(seconds=1)
    for member in (writer, reader):  # with chains from while it was followed
        await member.resolver.resolve(Identifier.parse("88.118.8/SN-5"), fresh=True)
    for _ in range(40):
        writer.hear()
        reader.hear()
        built.pass_time(seconds=1)
    return built, shelf, writer, reader


async def test_what_another_has_found_is_followed_here_as_well() -> None:
    _, _, writer, reader = await two()
    await writer.resolver.resolve(ITEM)
    answer = await reader.resolver.resolve(ITEM)
    assert (answer.source, answer.unfollowed_ms) == (Source.CACHE, None)
    assert (await reader.resolver.resolve(ITEM)).source is Source.CACHE
    assert reader.sharing.counters.hits == 1


async def test_one_that_starts_later_is_not_fooled_by_what_lies_there() -> None:
    built, shelf, writer, _ = await two()
    await writer.resolver.resolve(ITEM)
    built.register(ITEM, status=Status.RECALLED)  # and nobody has told
    late = Member(built, shelf)
    answer = await late.resolver.resolve(ITEM)
    assert (answer.source, version(answer)) == (Source.WALK, 2)


async def test_a_clock_that_is_ahead_does_not_make_old_answers_young() -> None:
    built, shelf, writer, _ = await two(ahead_ms=SHARED_SKEW_MS - 500)
    late = Member(built, shelf)
    await late.resolver.resolve(OTHER, fresh=True)
    await writer.resolver.resolve(ITEM)
    built.pass_time(ms=10)
    built.register(ITEM, status=Status.RECALLED)
    built.pass_time(ms=10)
    late.hear()  # after the change, and before the tick that the entry bears
    built.pass_time(ms=10)
    await late.resolver.resolve(OTHER, fresh=True)
    answer = await late.resolver.resolve(ITEM)
    assert answer.unfollowed_ms is not None
    assert answer.ttl_ms <= 4_500  # of 5 s, as if it were older by all that clocks may differ
    built.pass_time(ms=4_500)
    late.hear()
    assert version(await late.resolver.resolve(ITEM)) == 2


async def test_an_announced_version_makes_what_is_below_it_a_miss_and_what_shows_it_a_hit() -> None:
    built, _, writer, reader = await two()
    await writer.resolver.resolve(ITEM)
    built.register(ITEM, status=Status.RECALLED)
    reader.tell(ITEM, 2)
    built.pass_time(ms=1)
    answer = await reader.resolver.resolve(ITEM)
    assert (answer.source, version(answer)) == (Source.WALK, 2)
    writer.tell(ITEM, 2)  # what the reader has just found shows it, whatever its clock said
    answer = await writer.resolver.resolve(ITEM)
    assert (answer.source, version(answer)) == (Source.CACHE, 2)


async def test_a_reading_under_way_brings_nothing_older_than_the_announcement() -> None:
    built, shelf, writer, reader = await two()
    await writer.resolver.resolve(ITEM)
    shelf.held = asyncio.Event()
    early = asyncio.create_task(reader.resolver.resolve(ITEM))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    built.register(ITEM, status=Status.RECALLED)
    reader.tell(ITEM, 2)
    late = asyncio.create_task(reader.resolver.resolve(ITEM))
    await asyncio.sleep(0)
    shelf.held.set()
    assert version(await early) == 2
    assert version(await late) == 2


async def test_a_registration_makes_a_shared_denial_a_miss() -> None:
    built, _, writer, reader = await two()
    missing = Identifier.parse("88.118.8/SN-99")
    assert (await writer.resolver.resolve(missing)).resolution.verdict is Verdict.ABSENT
    built.register(missing)
    reader.tell(missing, 1)
    assert (await reader.resolver.resolve(missing)).resolution.verdict is Verdict.FOUND


async def test_a_prefix_that_was_announced_makes_chains_and_answers_below_it_misses() -> None:
    built, _, writer, reader = await two()
    await writer.resolver.resolve(ITEM)
    built.disable(ZONE)
    reader.tell(ZONE, 1, by=PARENT)
    assert reader.trust.held(ZONE) is None
    answer = await reader.resolver.resolve(ITEM)
    assert (answer.source, answer.resolution.verdict) == (Source.WALK, Verdict.ABSENT)
    # What the writer offers now bears a time that may still be from before.
    writer.tell(ZONE, 1, by=PARENT)
    assert (await writer.resolver.resolve(OTHER)).source is Source.WALK


async def test_an_announcement_kills_what_was_shared_and_only_what_somebody_here_has_met() -> None:
    _, shelf, writer, reader = await two()
    await writer.resolver.resolve(ITEM)
    await reader.resolver.resolve(ITEM)
    shelf.writes.clear()
    reader.tell(ITEM, 2)
    assert [(write.key, write.entry.kind, write.entry.version) for write in shelf.writes] == [
        (KEYS.answer(ITEM), EntryKind.TOMBSTONE, 2)
    ]
    assert version_claimed(shelf.values[KEYS.answer(ITEM)][1]) == 2
    shelf.writes.clear()
    for number in range(100):
        reader.tell(Identifier.parse(f"88.118.8/NOBODY-{number}"), 2)
        reader.tell(Prefix.parse(f"88.118.8.{number}"), 2)
    assert shelf.writes == []
    reader.tell(ZONE, 2, by=PARENT)
    assert [(write.key, write.entry.kind, write.entry.version) for write in shelf.writes] == [
        (KEYS.zone(ZONE), EntryKind.TOMBSTONE, 2)
    ]
    shelf.writes.clear()
    reader.hearing.gone(next(watch for watch in reader.following.watches if watch.zone == ZONE))
    assert shelf.writes == []  # it names no version


async def test_a_revocation_is_believed_on_the_chain_above_it() -> None:
    built, _, writer, reader = await two()
    built.revoke(ZONE)
    for member in (writer, reader):
        member.tell(ZONE, 2, by=PARENT)
    assert (await writer.resolver.resolve(ITEM)).resolution.verdict is Verdict.GONE
    for _ in range(SHARED_SKEW_MS // 1000 + 5):
        built.pass_time(seconds=1)
        writer.hear()
        reader.hear()
    assert (await writer.resolver.resolve(OTHER)).resolution.verdict is Verdict.GONE
    answer = await reader.resolver.resolve(OTHER)
    assert answer.resolution.verdict is Verdict.GONE
    assert answer.unfollowed_ms is None


async def test_an_echo_that_cannot_be_looked_into_loses_no_answer() -> None:
    _, shelf, writer, _ = await two()
    await writer.resolver.resolve(ITEM)
    shelf.dead = True
    writer.sharing.invalidated([KEYS.answer(ITEM)])
    for _ in range(5):
        await asyncio.sleep(0)
    for node in ("ent", "second", "top", "root"):
        writer.tree.fault(node, dead)
    answer = await writer.resolver.resolve(ITEM)
    assert (answer.resolution.verdict, answer.source) == (Verdict.FOUND, Source.CACHE)

"""What the driver does with announcements: kept answers, walks under way, late replies, watches that come and go."""

from __future__ import annotations

import asyncio
from typing import cast

from idtrace.bundle import Verdict
from idtrace.errors import Reason
from idtrace.identifier import ROOT, Identifier, Prefix
from idtrace.record import Record, RecordBody, Status
from resolver.announced import Change
from resolver.cache import AnswerCache
from resolver.driver import Answer, Clock, Resolver, Source
from resolver.effects import Limits
from resolver.following import Following, Watch
from resolver.hearing import Hearing
from resolver.trust import TrustStore
from tests.following_fixtures import begin, tree
from tests.simulator import Tree, TreeUpstream, dead

ITEM, OTHER = Identifier.parse("88.118.8/SN-1"), Identifier.parse("88.118.8/SN-2")
ZONE, PARENT = Prefix.parse("88.118.8"), Prefix.parse("88.118")
SHORT_MS = 5_000


class Site:
    """A resolver on a simulated tree, with watches that the test runs by hand."""

    def __init__(self, most: int = 16) -> None:
        self.tree: Tree = tree()
        self.upstream = TreeUpstream(self.tree)
        clock = Clock(wall=lambda: self.tree.now, monotonic=lambda: self.tree.now_ms / 1000)
        self.following = Following(root_endpoints=self.tree.root_endpoints, short_ms=SHORT_MS, most=most)
        cache, trust = AnswerCache(), TrustStore(chain_seconds=300, following=self.following)
        self.hearing = Hearing(following=self.following, cache=cache, trust=trust, clock=clock)
        self.resolver = Resolver(
            anchor=self.tree.anchor,
            root_endpoints=self.tree.root_endpoints,
            upstream=self.upstream,
            limits=Limits(),
            cache=cache,
            trust=trust,
            clock=clock,
            following=self.following,
        )

    def hear(self) -> None:
        """Every watch that is wanted hears something, for the first time or again."""
        for watch in self.following.watches:
            begin(self.following, watch, self.tree.now_ms)

    def watch(self, zone: Prefix) -> Watch:
        (found,) = (watch for watch in self.following.watches if watch.zone == zone)
        return found

    def tell(self, subject: Identifier | Prefix, version: int, *, by: Prefix = ZONE) -> None:
        self.hearing.take(self.watch(by), (Change(subject, version),))

    async def followed(self, *items: Identifier) -> None:
        """Every zone is watched, and these answers are kept."""
        await self.resolver.resolve(ITEM)
        self.hear()
        self.tree.pass_time(ms=SHORT_MS)
        for item in items:
            self.hear()
            assert (await self.resolver.resolve(item)).unfollowed_ms is None

    async def ask(self, item: Identifier = ITEM) -> Answer:
        return await self.resolver.resolve(item)


def version(answer: Answer) -> int:
    assert answer.resolution.bundle is not None
    return RecordBody.parse(cast("Record", answer.resolution.bundle.outcome).signed.payload).version


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_fresh_zone_is_answered_at_once_and_walked_once_more_when_its_watches_live() -> None:
    site = Site()
    first = await site.ask()
    assert (first.source, first.age_ms, first.unfollowed_ms, first.ttl_ms) == (Source.WALK, 0, 0, SHORT_MS - 40)
    assert len(site.following) == 4
    site.hear()
    site.tree.pass_time(ms=2_000)
    second = await site.ask()
    assert (second.source, second.age_ms, second.unfollowed_ms, second.ttl_ms) == (Source.CACHE, 2_000, 2_000, 2_960)
    site.tree.pass_time(ms=3_000)
    site.hear()
    third = await site.ask()
    assert (third.source, third.unfollowed_ms, third.ttl_ms) == (Source.WALK, None, 300_000)
    for _ in range(50):
        site.tree.pass_time(ms=3_000)
        site.hear()
        kept = await site.ask()
        assert (kept.source, kept.unfollowed_ms) == (Source.CACHE, None)
    assert site.resolver.counters.walks == 2
    await site.resolver.close()


async def test_without_watches_an_answer_is_asked_for_again_after_the_short_time() -> None:
    site = Site(most=0)
    await site.ask()
    site.tree.pass_time(ms=SHORT_MS)
    again = await site.ask()
    assert again.source is Source.WALK
    assert again.resolution.upstream_calls == 4  # nor is the chain used any longer
    assert site.resolver.cache.counters.unfollowed == 1
    await site.resolver.close()


async def test_an_announced_identifier_is_asked_for_again_and_its_neighbours_are_not() -> None:
    site = Site()
    await site.followed(ITEM, OTHER)
    site.tree.register(ITEM, status=Status.RECALLED)
    assert (await site.ask()).source is Source.CACHE
    site.tell(ITEM, 2)
    answer = await site.ask()
    assert (answer.source, version(answer)) == (Source.WALK, 2)
    assert (await site.ask(OTHER)).source is Source.CACHE
    await site.resolver.close()


async def test_a_reply_that_set_out_before_the_announcement_is_not_kept_and_not_joined() -> None:
    site = Site()
    await site.followed(OTHER)
    arrives = site.upstream.hold_replies = asyncio.Event()
    early = asyncio.create_task(site.ask())
    await settle()  # the node has answered, and its answer is under way
    site.tree.register(ITEM, status=Status.RECALLED)
    site.tell(ITEM, 2)
    late = [asyncio.create_task(site.ask()) for _ in range(5)]
    await settle()
    site.tree.pass_time(ms=1)
    arrives.set()
    answer = await early
    assert (version(answer), answer.ttl_ms) == (1, 0)
    assert {version(await task) for task in late} == {2}
    assert version(await site.ask()) == 2
    assert site.resolver.counters.outrun == 1
    await site.resolver.close()


async def test_a_fresh_question_among_those_that_wait_makes_their_walk_fresh() -> None:
    site = Site()
    await site.followed(OTHER)
    arrives = site.upstream.hold_replies = asyncio.Event()
    early = asyncio.create_task(site.ask())
    await settle()
    site.tell(ITEM, 1)
    late = asyncio.create_task(site.ask())
    await settle()
    fresh = asyncio.create_task(site.resolver.resolve(ITEM, fresh=True))
    await settle()
    assert site.resolver._waiting[ITEM].fresh
    arrives.set()
    await asyncio.gather(early, late, fresh)
    assert site.resolver.counters.walks == 4
    await site.resolver.close()


async def test_a_reply_that_shows_the_change_already_is_kept() -> None:
    site = Site()
    await site.followed(OTHER)
    site.tree.register(ITEM, status=Status.RECALLED)
    arrives = site.upstream.hold_replies = asyncio.Event()
    early = asyncio.create_task(site.ask())
    await settle()
    site.tell(ITEM, 2)
    arrives.set()
    assert version(await early) == 2
    assert (await site.ask()).source is Source.CACHE
    await site.resolver.close()


async def test_a_registration_ends_the_denial_before_it() -> None:
    site = Site()
    missing = Identifier.parse("88.118.8/SN-99")
    await site.followed(missing)
    assert (await site.ask(missing)).resolution.verdict is Verdict.ABSENT
    site.tree.register(missing)
    site.tell(missing, 1)
    assert (await site.ask(missing)).resolution.verdict is Verdict.FOUND
    await site.resolver.close()


async def test_a_prefix_that_was_disabled_ends_chains_and_answers_below_it() -> None:
    site = Site()
    await site.followed(ITEM, OTHER)
    site.tree.disable(ZONE)
    site.tell(ZONE, 1, by=PARENT)
    for item in (ITEM, OTHER):
        answer = await site.ask(item)
        assert (answer.resolution.verdict, answer.resolution.reason) == (Verdict.ABSENT, Reason.PREFIX_DISABLED)
    site.tree.pass_time(ms=1)
    site.hear()
    await site.ask()
    site.tree.disable(ZONE, disabled=False)
    site.tell(ZONE, 1, by=PARENT)
    assert (await site.ask()).resolution.verdict is Verdict.FOUND
    await site.resolver.close()


async def test_a_rotation_under_way_makes_no_failure_that_outlives_it() -> None:
    """A walk through the old keys finds a lie; whoever asks after the announcement must not hear of it."""
    site = Site()
    await site.followed(OTHER)
    site.tree.pass_time(ms=500)
    site.hear()
    arrives = site.upstream.hold = asyncio.Event()
    early = asyncio.create_task(site.ask())
    await settle()
    site.tree.rotate(ZONE)
    site.tell(ZONE, 2, by=PARENT)
    arrives.set()
    assert (await early).resolution.verdict is Verdict.BOGUS
    assert (await site.ask()).resolution.verdict is Verdict.FOUND
    await site.resolver.close()


async def test_a_chain_that_was_learned_before_its_announcement_is_not_kept() -> None:
    site = Site()
    await site.followed(OTHER)
    site.resolver.trust.forget(PARENT)
    arrives = site.upstream.hold_replies = asyncio.Event()
    early = asyncio.create_task(site.ask())
    await settle()
    site.tell(PARENT, 2, by=Prefix.parse("88"))
    arrives.set()
    await early
    assert site.resolver.trust.held(Prefix.parse("88")) is not None
    assert site.resolver.trust.held(PARENT) is None
    assert site.resolver.trust.held(ZONE) is None
    await site.resolver.close()


async def test_a_lost_watch_leaves_answers_for_a_short_time_and_a_resumed_one_brings_them_back() -> None:
    site = Site()
    await site.followed(ITEM)
    site.tree.pass_time(seconds=100)
    site.hear()
    site.hearing.lost(site.watch(ZONE))
    site.tree.pass_time(ms=3_000)
    for zone in (ROOT, Prefix.parse("88"), PARENT):
        begin(site.following, site.watch(zone), site.tree.now_ms)
    marked = await site.ask()
    assert (marked.source, marked.unfollowed_ms, marked.ttl_ms) == (Source.CACHE, 3_000, 2_000)
    site.tree.fault("ent", dead)
    site.tree.pass_time(ms=2_000)
    gone = await site.ask()
    assert gone.resolution.verdict is Verdict.UNREACHABLE
    site.hear()  # it comes back with all that it had missed, which is nothing
    back = await site.ask()
    assert (back.source, back.unfollowed_ms) == (Source.CACHE, None)
    await site.resolver.close()


async def test_after_a_gap_the_zone_is_forgotten_and_what_lies_beside_it_is_not() -> None:
    site = Site()
    hosted = Identifier.parse("88.118.9/SN-1")
    await site.followed(ITEM, hosted)
    site.hearing.gone(site.watch(ZONE))
    assert (await site.ask()).source is Source.WALK
    assert (await site.ask(hosted)).source is Source.CACHE
    site.tree.register(hosted, status=Status.RECALLED)
    site.hearing.gone(site.watch(PARENT))
    answer = await site.ask(hosted)
    assert (answer.source, version(answer)) == (Source.WALK, 2)
    await site.resolver.close()


async def test_an_announcement_ends_a_failure_in_back_off() -> None:
    site = Site()
    await site.followed(OTHER)
    site.tree.fault("ent", dead)
    for _ in range(6):
        assert (await site.ask()).resolution.verdict is Verdict.UNREACHABLE
        site.tree.pass_time(ms=1_500)
    site.tree.fault("ent", None)
    site.hear()
    site.tree.register(ITEM, status=Status.RECALLED)
    site.tell(ITEM, 2)
    assert version(await site.ask()) == 2
    await site.resolver.close()


async def test_clocks_that_are_set_make_nothing_followed_that_was_not() -> None:
    site = Site()
    await site.followed(ITEM)
    site.tree.now -= 86_400  # the wall clock alone
    site.tree.pass_time(ms=SHORT_MS)
    for watch in site.following.watches:
        site.hearing.lost(watch)
    assert (await site.ask()).source is Source.WALK
    await site.resolver.close()

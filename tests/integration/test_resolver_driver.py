"""The driver on a real event loop over the simulated tree: shared walks, cancellation, caching, limits."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from idtrace.bundle import Verdict
from idtrace.errors import BusyError, Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Record, RecordBody, Status
from resolver.driver import Answer, Clock, Resolver, Source
from resolver.effects import Ask, Limits, Reply
from tests import simulator as sim
from tests.simulator import Tree, TreeUpstream

ITEM = Identifier.parse("88.118.8/SN-1")


def tree() -> Tree:
    built = Tree()
    built.zone("88", node="top")
    built.zone("88.118", node=("second-a", "second-b"))
    built.zone("88.118.8", node="ent")
    for number in range(1, 30):
        built.register(f"88.118.8/SN-{number}", {"name": "vial"})
    return built


def resolver_of(built: Tree, upstream: TreeUpstream | None = None, **options: object) -> Resolver:
    clock = Clock(wall=lambda: built.now, monotonic=lambda: built.now_ms / 1000)
    return Resolver(
        anchor=built.anchor,
        root_endpoints=built.root_endpoints,
        upstream=upstream or TreeUpstream(built),
        clock=clock,
        **options,  # type: ignore[arg-type]  # limits, walks_max
    )


def status(answer: Answer) -> Status:
    assert answer.resolution.bundle is not None
    return RecordBody.parse(cast("Record", answer.resolution.bundle.outcome).signed.payload).status


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_cold_then_warm_then_sibling() -> None:
    built = tree()
    resolver = resolver_of(built)
    first = await resolver.resolve(ITEM)
    assert (first.resolution.verdict, first.source, first.resolution.upstream_calls) == (Verdict.FOUND, Source.WALK, 4)
    assert first.ttl_ms == 300_000
    built.pass_time(seconds=10)
    second = await resolver.resolve(ITEM)
    assert (second.source, second.age_ms, second.ttl_ms) == (Source.CACHE, 10_000, 290_000)
    third = await resolver.resolve(Identifier.parse("88.118.8/SN-2"))
    assert third.resolution.visited == ("ent:7000",)
    assert len(built.asked) == resolver.counters.upstream_calls == 5
    await resolver.close()


async def test_a_thousand_identical_questions_are_one_walk() -> None:
    built = tree()
    resolver = resolver_of(built)
    answers = await asyncio.gather(*(resolver.resolve(ITEM) for _ in range(1_000)))
    assert {answer.resolution.verdict for answer in answers} == {Verdict.FOUND}
    assert [answer.source for answer in answers].count(Source.WALK) == 1
    assert [answer.source for answer in answers].count(Source.SHARED) == 999
    assert resolver.counters.walks == 1
    assert len(built.asked) == 4
    assert resolver.in_flight == 0
    await resolver.close()


async def test_a_thousand_fresh_questions_are_two_walks_at_most() -> None:
    built = tree()
    resolver = resolver_of(built)
    answers = await asyncio.gather(*(resolver.resolve(ITEM, fresh=True) for _ in range(1_000)))
    assert {answer.resolution.verdict for answer in answers} == {Verdict.FOUND}
    assert resolver.counters.walks == 2
    assert resolver.in_flight == 0
    await resolver.close()


async def test_fresh_question_sees_what_was_true_when_it_was_asked() -> None:
    built = tree()
    upstream = TreeUpstream(built)
    resolver = resolver_of(built, upstream)
    await resolver.resolve(Identifier.parse("88.118.8/SN-2"))
    answered = asyncio.Event()
    upstream.hold_replies = answered  # the node has answered, and its answer is under way
    early = asyncio.create_task(resolver.resolve(ITEM))
    await settle()
    built.register(ITEM, status=Status.RECALLED)
    fresh = [asyncio.create_task(resolver.resolve(ITEM, fresh=True)) for _ in range(5)]
    joined = asyncio.create_task(resolver.resolve(ITEM))
    await settle()
    answered.set()
    assert status(await early) is Status.ACTIVE
    assert status(await joined) is Status.ACTIVE
    assert {status(await task) for task in fresh} == {Status.RECALLED}
    assert status(await resolver.resolve(ITEM)) is Status.RECALLED
    assert resolver.counters.walks == 3
    await resolver.close()


async def test_first_asker_who_leaves_does_not_end_the_walk_of_the_others() -> None:
    built = tree()
    upstream = TreeUpstream(built)
    upstream.hold = asyncio.Event()
    resolver = resolver_of(built, upstream)
    first = asyncio.create_task(resolver.resolve(ITEM))
    others = [asyncio.create_task(resolver.resolve(ITEM)) for _ in range(10)]
    await settle()
    first.cancel()
    await settle()
    assert first.cancelled()
    upstream.hold.set()
    assert {(await task).resolution.verdict for task in others} == {Verdict.FOUND}
    assert resolver.counters.walks == 1
    await resolver.close()


async def test_walk_that_everybody_has_left_still_fills_the_cache() -> None:
    built = tree()
    upstream = TreeUpstream(built)
    upstream.hold = asyncio.Event()
    resolver = resolver_of(built, upstream)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(resolver.resolve(ITEM), 0.01)
    upstream.hold.set()
    for _ in range(100):
        await asyncio.sleep(0)
    assert resolver.in_flight == 0
    assert (await resolver.resolve(ITEM)).source is Source.CACHE
    await resolver.close()


async def test_different_questions_walk_at_the_same_time() -> None:
    built = tree()
    upstream = TreeUpstream(built)
    upstream.hold = asyncio.Event()
    resolver = resolver_of(built, upstream)
    tasks = [
        asyncio.create_task(resolver.resolve(Identifier.parse(f"88.118.8/SN-{number}"))) for number in range(1, 21)
    ]
    await settle()
    assert resolver.in_flight == 20
    upstream.hold.set()
    assert {(await task).resolution.verdict for task in tasks} == {Verdict.FOUND}
    await resolver.close()


async def test_too_many_walks_are_refused_and_joining_one_is_not() -> None:
    built = tree()
    upstream = TreeUpstream(built)
    upstream.hold = asyncio.Event()
    resolver = resolver_of(built, upstream, walks_max=1)
    task = asyncio.create_task(resolver.resolve(ITEM))
    joining = asyncio.create_task(resolver.resolve(ITEM))
    await settle()
    with pytest.raises(BusyError) as refused:
        await resolver.resolve(Identifier.parse("88.118.8/SN-2"))
    assert refused.value.reason is Reason.OVERLOADED
    with pytest.raises(BusyError):
        await resolver.resolve(ITEM, fresh=True)
    assert resolver.counters.refused_busy == 2
    upstream.hold.set()
    assert (await task).resolution.verdict is (await joining).resolution.verdict is Verdict.FOUND
    assert (await resolver.resolve(Identifier.parse("88.118.8/SN-2"))).resolution.verdict is Verdict.FOUND
    await resolver.close()


async def test_failure_is_in_back_off_and_fresh_questions_that_waited_share_it() -> None:
    built = tree()
    built.fault("ent", sim.dead)
    resolver = resolver_of(built)
    answers = await asyncio.gather(*(resolver.resolve(ITEM, fresh=True) for _ in range(50)))
    assert {answer.resolution.verdict for answer in answers} == {Verdict.UNREACHABLE}
    assert resolver.counters.walks == 1
    again = await resolver.resolve(ITEM)
    assert (again.source, again.ttl_ms) == (Source.CACHE, 1_000)
    built.fault("ent", None)
    built.pass_time(seconds=1)
    assert (await resolver.resolve(ITEM)).resolution.verdict is Verdict.FOUND
    await resolver.close()


async def test_upstream_that_hangs_is_cut_off() -> None:
    built = tree()
    upstream = TreeUpstream(built)
    upstream.hold = asyncio.Event()
    resolver = resolver_of(built, upstream, limits=Limits(call_ms=20))
    answer = await resolver.resolve(ITEM)
    assert (answer.resolution.verdict, answer.resolution.reason) == (Verdict.UNREACHABLE, Reason.NO_ANSWER)
    assert "no answer within 20 ms" in answer.resolution.detail
    await resolver.close()


async def test_revocation_purges_the_answers_below_the_zone() -> None:
    built = tree()
    resolver = resolver_of(built)
    await resolver.resolve(ITEM)
    built.pass_time(seconds=299)
    await resolver.resolve(Identifier.parse("88.118.8/SN-2"))
    built.revoke("88.118.8")
    built.pass_time(seconds=1)
    assert (await resolver.resolve(Identifier.parse("88.118.8/SN-3"))).resolution.verdict is Verdict.GONE
    after = await resolver.resolve(Identifier.parse("88.118.8/SN-2"))
    assert (after.source, after.resolution.verdict) == (Source.WALK, Verdict.GONE)
    assert resolver.cache.counters.purged >= 1
    await resolver.close()


async def test_our_own_bug_reaches_every_asker_and_leaves_nothing_behind() -> None:
    built = tree()
    resolver = resolver_of(built)

    def broken(tree: Tree, ask: Ask) -> Reply:
        raise RuntimeError("a bug")

    built.fault("root", broken)
    outcomes = await asyncio.gather(*(resolver.resolve(ITEM) for _ in range(3)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["a bug"] * 3
    assert resolver.in_flight == 0
    built.fault("root", None)
    assert (await resolver.resolve(ITEM)).resolution.verdict is Verdict.FOUND
    await resolver.close()


async def test_close_ends_walks_under_way_and_waiting() -> None:
    built = tree()
    upstream = TreeUpstream(built)
    upstream.hold = asyncio.Event()
    resolver = resolver_of(built, upstream)
    tasks = [asyncio.create_task(resolver.resolve(ITEM, fresh=fresh)) for fresh in (False, True)]
    await settle()
    assert resolver.in_flight == 2
    await resolver.close()
    assert resolver.in_flight == 0
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)


async def test_random_names_under_one_zone_cost_one_call_each_and_evict_no_answer() -> None:
    built = tree()
    resolver = resolver_of(built)
    await resolver.resolve(ITEM)
    for number in range(300):
        await resolver.resolve(Identifier.parse(f"88.118.8/random-{number}"))
    assert len(built.asked) == 304
    assert (await resolver.resolve(ITEM)).source is Source.CACHE
    assert resolver.trust.zone(Prefix.parse("88.118.8")) is not None
    await resolver.close()


async def test_a_silent_zone_does_not_take_the_resolver_from_the_others() -> None:
    built = tree()
    upstream = TreeUpstream(built)
    upstream.hold = asyncio.Event()
    resolver = resolver_of(built, upstream, walks_max=8)

    def flood(kind: str) -> list[asyncio.Task[Answer]]:
        names = [Identifier.parse(f"88.118.9.{n}/{kind}") for n in range(8)]
        return [asyncio.create_task(resolver.resolve(name)) for name in names]

    asked = flood("a")
    await settle()
    assert resolver.in_flight == 4
    others = [asyncio.create_task(resolver.resolve(ITEM)) for _ in range(3)]
    await settle()
    assert resolver.in_flight == 5
    upstream.hold.set()
    assert {answer.resolution.verdict for answer in await asyncio.gather(*others)} == {Verdict.FOUND}
    ended = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(end, BusyError) for end in ended] == [False] * 4 + [True] * 4
    again = await asyncio.gather(*flood("b"), return_exceptions=True)
    assert sum(isinstance(end, BusyError) for end in again) == 4, "places are given back"
    await resolver.close()

"""Kept verdicts: warm until anything that they rest on is announced, never older than what was heard before asking."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from idtrace.bundle import Bundle, Verdict
from idtrace.errors import BusyError, Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.provenance.history import Gap, GapKind
from idtrace.recall import RECALL_TYPE, Scope, ScopeKind, format_recall
from idtrace.verdict.findings import Use
from idtrace.verdict.policy import Policy
from idtrace.verdict.statement import check_verdict
from resolver.announced import Announced, Change
from resolver.driver import Clock, Resolver
from resolver.following import Following
from resolver.judge_limits import JudgeLimits
from resolver.judging import EVENTS_MAX, Judging, _Heard, judged_of
from resolver.resolution import Resolution
from resolver.tracing import Traced, Tracer
from tests.core_fixtures import NOW, anchor, public, signer, trusted
from tests.unit.verdict.test_evidence import CLASS, DOSE, KEYS, RECALL, RESOLVER, paper, papers


@dataclass
class Time:
    ms: int = 1_000_000

    def clock(self) -> Clock:
        return Clock(wall=lambda: NOW + (self.ms - 1_000_000) / 1000, monotonic=lambda: self.ms / 1000)


@dataclass
class FakeTracer:
    """Hands out what a tracer would have found, at once or when it is let go."""

    time: Time
    bundles: list[Bundle] = field(default_factory=papers)
    calls: int = 0
    gate: asyncio.Event | None = None
    fresh: list[bool] = field(default_factory=list)

    async def trace(self, identifier: Identifier, *, fresh: bool = False) -> Traced:
        self.calls += 1
        self.fresh.append(fresh)
        bundles = list(self.bundles)
        now_ms = NOW * 1000 + self.time.ms - 1_000_000
        if self.gate is not None:
            await self.gate.wait()
        return traced(identifier, bundles, now_ms)


def traced(identifier: Identifier, bundles: list[Bundle], now_ms: int = NOW * 1000) -> Traced:
    chain = trusted()
    own = next((one for one in bundles if one.identifier == identifier), None)
    events = {str(one.identifier): one for one in bundles if one.identifier.suffix.startswith("event/")}
    others = [one for one in bundles if one is not own and str(one.identifier) not in events]

    def answer(one: Bundle) -> Resolution:
        return Resolution(one.identifier, Verdict.FOUND, None, "", bundle=one, chain=chain)

    first = answer(own) if own else Resolution(identifier, Verdict.UNREACHABLE, Reason.NO_ANSWER, "nobody")
    read = judged_of_observed(events)
    return Traced(str(identifier), now_ms, first, read, (), events, tuple(map(answer, others)))


def judged_of_observed(events: dict[str, Bundle]) -> Any:
    from idtrace.provenance.reading import read_event
    from idtrace.record import Record

    return tuple(read_event(cast("Record", one.outcome), logged=False) for one in events.values())


async def turns() -> None:
    """Long enough for every task to come to its next wait."""
    for _ in range(5):
        await asyncio.sleep(0)


class Site:
    def __init__(self, **limits: int) -> None:
        self.time = Time()
        self.tracer = FakeTracer(self.time)
        self.following = Following(announced=Announced(keep_ms=600_000))
        self.resolver = SimpleNamespace(clock=self.time.clock(), following=self.following, resolve=self.resolve)
        self.resolved: list[str] = []
        self.busy = False
        self.judging = Judging(
            cast("Resolver", self.resolver), cast("Tracer", self.tracer), signer=signer(RESOLVER),
            limits=JudgeLimits(**limits),
        )  # fmt: skip
        self.follow()

    async def resolve(self, identifier: Identifier) -> Any:
        """As the resolver does it, out of what the tracer would find."""
        self.resolved.append(str(identifier))
        if self.busy:
            raise BusyError(Reason.OVERLOADED, "no room")
        (bundle,) = (one for one in self.tracer.bundles if one.identifier == identifier)
        found = Resolution(identifier, Verdict.FOUND, None, "", bundle=bundle, chain=trusted())
        return SimpleNamespace(resolution=found)

    def follow(self) -> None:
        """Every zone is watched, and has been for long."""
        self.following.most = 99
        self.following.short_ms = 5_000
        self.following.basis(self.learned(), now_ms=0)
        for watch in self.following.watches:
            watch.since_ms, watch.heard_ms, watch.until_ms = 0, self.time.ms, 10**12

    def learned(self) -> Any:
        from resolver.effects import Learned

        return Learned(trusted(), 0)

    def announce(self, subject: str, version: int = 2) -> None:
        about = Identifier.parse(subject) if "/" in subject else Prefix.parse(subject)
        self.following.announced.tell(Change(about, version), by=Prefix.parse("88"), now_ms=self.time.ms)


async def test_a_verdict_is_made_once_and_then_answered_from_memory() -> None:
    site = Site()
    first = await site.judging.judge(DOSE)
    assert (first.judgement.use, first.kept, first.age_ms) == (Use.USE, False, 0)
    site.time.ms += 2_000
    second = await site.judging.judge(DOSE)
    assert (second.judgement, second.kept, second.age_ms, second.unfollowed_ms) == (first.judgement, True, 2_000, None)
    assert site.tracer.calls == 1
    assert len(site.judging) == 1


@pytest.mark.parametrize(
    "subject",
    [
        "88.118.8/SN-0001", "88.118.8/class/v1", "88.118/party/88.118.8", "88/recalls", "88.118/recalls",
        "88.118.8/recalls", "88", "88.118", "88.118.8",
    ],
)  # fmt: skip
async def test_whatever_it_rests_on_ends_it_and_it_is_judged_again_in_the_background(subject: str) -> None:
    site = Site()
    await site.judging.judge(DOSE)
    site.time.ms += 1
    site.announce(subject)
    site.time.ms += 1
    assert not (await site.judging.judge(DOSE)).kept
    assert site.judging.counters.fallen == 1
    await asyncio.sleep(0.05)
    assert (await site.judging.judge(DOSE)).kept
    await site.judging.close()


def recall_of(lot: str) -> Bundle:
    one = replace(RECALL, scope=Scope(ScopeKind.LOT, str(CLASS), lot))
    return paper("88.118/recalls", (RECALL_TYPE, format_recall(one)))


def recalled(site: Site, lot: str) -> None:
    """The lot is recalled, and that is announced."""
    others = [one for one in site.tracer.bundles if str(one.identifier) != "88.118/recalls"]
    site.tracer.bundles = [*others, recall_of(lot)]
    site.time.ms += 1
    site.announce("88.118/recalls")
    site.time.ms += 1


async def test_a_recall_asks_for_the_recalls_alone_and_for_each_once() -> None:
    site = Site()
    assert (await site.judging.judge(DOSE)).judgement.use is Use.USE
    recalled(site, "L1")
    assert (await site.judging.judge(DOSE)).judgement.use is Use.DO_NOT_USE
    recalled(site, "L2")
    assert (await site.judging.judge(DOSE)).judgement.use is Use.USE
    assert (await site.judging.judge(DOSE)).kept
    assert (site.tracer.calls, site.resolved) == (1, ["88.118/recalls"] * 2)
    assert site.judging.counters.renewed == 2
    site.time.ms = 1_000_000 + 300_000
    site.follow()
    assert not (await site.judging.judge(DOSE)).kept, "the rest is as old as it was"
    assert site.tracer.calls == 2
    await site.judging.close()


@pytest.mark.parametrize("how", ["events", "class", "busy", "old", "unfollowed", "fresh"])
async def test_where_more_than_recalls_is_in_doubt_all_of_it_is_asked_for_again(how: str) -> None:
    site = Site()
    await site.judging.judge(DOSE)
    recalled(site, "L1")
    match how:
        case "events":
            site.judging.on_events(DOSE)
        case "class":
            site.announce("88.118.8/class/v1")
        case "busy":
            site.busy = True
        case "old":
            site.time.ms += 300_000
        case "unfollowed":
            for watch in site.following.watches:
                watch.since_ms = site.time.ms
        case _:
            assert how == "fresh"
    site.time.ms += 1
    judged = await site.judging.judge(DOSE, fresh=how == "fresh")
    assert (judged.judgement.use, site.tracer.calls, site.judging.counters.renewed) == (Use.DO_NOT_USE, 2, 0)
    await site.judging.close()


@pytest.mark.parametrize("subject", ["88.118.8/SN-0002", "88.119", "89/recalls"])
async def test_what_it_does_not_rest_on_leaves_it(subject: str) -> None:
    site = Site()
    await site.judging.judge(DOSE)
    site.time.ms += 1
    site.announce(subject)
    site.judging.on_events(Identifier.parse("88.118.8/SN-0002"))
    assert (await site.judging.judge(DOSE)).kept


async def test_more_events_end_it_at_once_and_the_next_scan_is_warm() -> None:
    site = Site()
    await site.judging.judge(DOSE)
    site.time.ms += 1
    site.judging.on_events(DOSE)
    assert len(site.judging) == 0
    site.time.ms += 1
    async with asyncio.timeout(5):
        while not len(site.judging):  # noqa: ASYNC110 - the background has no signal
            await asyncio.sleep(0.01)
    assert (await site.judging.judge(DOSE)).kept
    await turns()
    assert site.judging.counters.again == 1


async def test_what_was_asked_before_an_announcement_is_not_kept() -> None:
    site = Site()
    site.tracer.gate = asyncio.Event()
    asked = asyncio.create_task(site.judging.judge(DOSE))
    await turns()
    site.announce("88.118.8/recalls")
    site.tracer.gate.set()
    assert (await asked).judgement.use is Use.USE
    assert len(site.judging) == 0
    assert site.judging.counters.outrun == 1


@pytest.mark.parametrize("how", ["record", "events", "paper"])
async def test_who_asks_after_an_announcement_never_gets_what_was_asked_before_it(how: str) -> None:
    site = Site()
    gate = site.tracer.gate = asyncio.Event()
    before = asyncio.create_task(site.judging.judge(DOSE))
    await turns()
    # Meanwhile the dose is lost; a verdict that is under way does not know.
    site.tracer.bundles = papers(own=None)
    match how:
        case "record":
            site.announce(str(DOSE))
        case "events":
            site.judging.on_events(DOSE)
        case _:
            site.announce("88.118/recalls")
    site.time.ms += 1
    after = asyncio.create_task(site.judging.judge(DOSE))
    await turns()
    gate.set()
    assert (await before).judgement.use is Use.USE
    assert (await after).judgement.use is Use.HOLD
    await site.judging.close()


async def test_many_at_once_cost_one_and_fresh_never_joins() -> None:
    site = Site()
    gate = site.tracer.gate = asyncio.Event()
    askers = [asyncio.create_task(site.judging.judge(DOSE)) for _ in range(50)]
    await turns()
    fresh = asyncio.create_task(site.judging.judge(DOSE, fresh=True))
    await turns()
    gate.set()
    await asyncio.gather(*askers, fresh)
    assert site.tracer.calls == 2
    assert site.tracer.fresh == [False, True]
    await site.judging.judge(DOSE, fresh=True)
    assert site.tracer.calls == 3


async def test_an_asker_who_goes_away_leaves_it_to_the_others() -> None:
    site = Site()
    gate = site.tracer.gate = asyncio.Event()
    first = asyncio.create_task(site.judging.judge(DOSE))
    await turns()
    second = asyncio.create_task(site.judging.judge(DOSE))
    await turns()
    first.cancel()
    gate.set()
    assert (await second).judgement.use is Use.USE


async def test_an_unfollowed_verdict_is_used_for_seconds() -> None:
    site = Site()
    for watch in site.following.watches:
        watch.until_ms = 0
    await site.judging.judge(DOSE)
    site.time.ms += 4_999
    given = await site.judging.judge(DOSE)
    assert given.kept
    assert given.unfollowed_ms is not None
    site.time.ms += 1
    assert not (await site.judging.judge(DOSE)).kept


async def test_time_alone_ends_it_to_the_millisecond() -> None:
    site = Site(kept_seconds=100_000_000)
    first = await site.judging.judge(DOSE)
    until_ms = first.judgement.until_ms
    assert until_ms is not None
    site.time.ms += until_ms - NOW * 1000 - 1
    assert (await site.judging.judge(DOSE)).kept
    site.time.ms += 1
    assert not (await site.judging.judge(DOSE)).kept


async def test_none_is_kept_longer_than_the_ceiling() -> None:
    site = Site(kept_seconds=10)
    await site.judging.judge(DOSE)
    site.time.ms += 9_999
    assert (await site.judging.judge(DOSE)).kept
    site.time.ms += 1
    assert not (await site.judging.judge(DOSE)).kept


async def test_bounds_hold() -> None:
    site = Site(kept=1, at_once=1)
    await site.judging.judge(DOSE)
    await site.judging.judge(Identifier.parse("88.118.8/SN-0002"))
    assert len(site.judging) == 1
    gate = site.tracer.gate = asyncio.Event()
    asked = asyncio.create_task(site.judging.judge(DOSE))
    await turns()
    with pytest.raises(BusyError) as caught:
        await site.judging.judge(Identifier.parse("88.118.8/SN-0003"))
    assert caught.value.reason is Reason.OVERLOADED
    gate.set()
    await asked
    assert dict(site.judging.counters.items())["refused_busy"] == 1


async def test_nobody_waits_for_what_nobody_asks_for() -> None:
    site = Site(idle_seconds=1)
    await site.judging.judge(DOSE)
    site.time.ms += 1_000
    site.judging.on_events(DOSE)
    await asyncio.sleep(0.02)
    assert site.tracer.calls == 1


async def test_closing_ends_what_is_under_way() -> None:
    site = Site()
    site.tracer.gate = asyncio.Event()
    asked = asyncio.create_task(site.judging.judge(DOSE))
    await turns()
    await site.judging.close()
    with pytest.raises(asyncio.CancelledError):
        await asked


async def test_evidence_judges_again_to_the_same_signed_or_not() -> None:
    import gzip

    from idtrace.verdict.statement import VerdictFile

    site = Site()
    judged = await site.judging.judge(DOSE)
    file = VerdictFile.from_json(gzip.decompress(site.judging.evidence(judged)).decode())
    assert check_verdict(file, anchor(), KEYS).valid
    unsigned = Judging(cast("Resolver", site.resolver), cast("Tracer", site.tracer))
    file = VerdictFile.from_json(gzip.decompress(unsigned.evidence(judged)).decode())
    assert check_verdict(file, anchor(), {}).valid
    assert not check_verdict(file, anchor(), {public("x").key_id: public("x")}).valid
    site.tracer.bundles = []
    nothing = await site.judging.judge(DOSE, fresh=True)
    file = VerdictFile.from_json(gzip.decompress(site.judging.evidence(nothing)).decode())
    assert check_verdict(file, anchor(), KEYS).valid


def test_a_paper_that_could_not_be_had_is_a_gap_of_its_kind() -> None:
    told = traced(DOSE, papers(licence=None))
    licence = Identifier.parse("88.118/party/88.118.8")
    for verdict, kind in ((Verdict.BOGUS, GapKind.BOGUS), (Verdict.UNREACHABLE, GapKind.UNREACHABLE)):
        lost = Resolution(licence, verdict, Reason.NO_ANSWER, "why")
        facts, judgement, _ = judged_of(replace(told, papers=(*told.papers, lost)), Policy())
        assert facts.gaps == (Gap(kind, str(licence), "why"),)
        assert judgement.use is Use.HOLD


def test_forgotten_announcements_count_for_all_subjects() -> None:
    heard = _Heard()
    for n in range(EVENTS_MAX + 1):
        heard.tell(str(n), n)
    assert heard.since("never told", 0)
    assert not heard.since("never told", 1)
    assert heard.since(str(EVENTS_MAX), EVENTS_MAX)

"""The walk's states, its time to live, and that whatever peers say it ends within its limits and believes no lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idtrace.bundle import Denied, NodeAnswer, Referred, Verdict
from idtrace.delegation import Role, ZoneKey
from idtrace.errors import Reason
from idtrace.identifier import ROOT, Identifier, Prefix
from idtrace.record import Record
from idtrace.signature import Kind, sign
from idtrace.verification import verify_bundle
from resolver.effects import (
    Answered,
    Ask,
    CacheRead,
    Done,
    Event,
    Failed,
    FailureKind,
    Learned,
    Limits,
    Malformed,
    ReadCache,
)
from resolver.resolution import Resolution
from resolver.trust import TrustStore
from resolver.walk import State, Walk
from tests import simulator as sim
from tests.simulator import NOW, Client, Tree

ITEM = Identifier.parse("88.118.8/SN-1")


def tree() -> Tree:
    built = Tree()
    built.zone("88", node="top")
    built.zone("88.118", node=("second-a", "second-b"))
    built.zone("88.118.8", node="ent")
    built.register(ITEM, {"name": "vial"}, restricted={"price": "12", "buyer": "x"})
    return built


def walk(built: Tree, identifier: Identifier = ITEM, limits: Limits | None = None) -> Walk:
    return Walk(
        identifier,
        anchor=built.anchor,
        root_endpoints=built.root_endpoints,
        floors=TrustStore(chain_seconds=300),
        limits=limits,
    )


# States


def test_states_go_one_way() -> None:
    built = tree()
    walking = walk(built)
    states = [walking.state]
    assert walking.begin(now_ms=0) == ReadCache(
        ITEM, (Prefix.parse("88.118.8"), Prefix.parse("88.118"), Prefix.parse("88"), ROOT)
    )
    states.append(walking.state)
    effect = walking.receive(CacheRead(None, None), now=NOW, now_ms=0)
    assert effect == Ask("root:7000", None, ITEM, 1_000)
    states.append(walking.state)
    for _ in range(4):
        assert isinstance(effect, Ask)
        effect = walking.receive(built.ask(effect), now=NOW, now_ms=0)
    assert isinstance(effect, Done)
    states.append(walking.state)
    assert states == [State.NEW, State.READING, State.ASKING, State.ENDED]


@pytest.mark.parametrize(
    "event",
    [
        Answered(NodeAnswer((), Referred(ROOT))),
        Malformed(Reason.ANSWER_MALFORMED, "x"),
        Failed(FailureKind.TIMEOUT, "x"),
    ],
)
def test_reply_that_nobody_asked_for_is_our_own_bug(event: Event) -> None:
    walking = walk(tree())
    walking.begin(now_ms=0)
    with pytest.raises(AssertionError):
        walking.receive(event, now=NOW, now_ms=0)


def test_walk_answers_one_question() -> None:
    walking = walk(tree())
    walking.begin(now_ms=0)
    with pytest.raises(AssertionError):
        walking.begin(now_ms=0)
    walking.receive(CacheRead(None, None), now=NOW, now_ms=0)
    with pytest.raises(AssertionError):
        walking.receive(CacheRead(None, None), now=NOW, now_ms=0)


def test_cached_answer_ends_the_walk_without_a_call() -> None:
    walking = walk(tree())
    walking.begin(now_ms=0)
    held = Resolution(ITEM, Verdict.ABSENT, Reason.IDENTIFIER_ABSENT, "held", upstream_calls=4, visited=("x:1",))
    effect = walking.receive(CacheRead(held, None), now=NOW, now_ms=0)
    assert effect == Done(replace(held, upstream_calls=0, visited=()))


def test_chain_of_another_branch_is_our_own_bug() -> None:
    built = tree()
    built.zone("77", node="other")
    built.register("77/x")
    client = Client(built)
    client.resolve("77/x")
    chain = client.trust.deepest((Prefix.parse("77"),), now=built.now, now_ms=built.now_ms)
    walking = walk(built)
    walking.begin(now_ms=0)
    with pytest.raises(AssertionError):
        walking.receive(CacheRead(None, chain), now=NOW, now_ms=0)


# Budgets


def test_last_call_gets_no_more_time_than_the_question_has_left() -> None:
    built = tree()
    walking = walk(built, limits=Limits(question_ms=1_500, call_ms=1_000))
    walking.begin(now_ms=0)
    first = walking.receive(CacheRead(None, None), now=NOW, now_ms=0)
    assert isinstance(first, Ask)
    assert first.timeout_ms == 1_000
    second = walking.receive(built.ask(first), now=NOW, now_ms=900)
    assert isinstance(second, Ask)
    assert second.timeout_ms == 600


def test_signature_checks_are_one_budget_through_lies_and_restart() -> None:
    built = tree()
    built.register("88.118.8/SN-2")
    client = Client(built, limits=Limits(signature_checks=5))
    assert client.resolve("88.118/x").verdict is Verdict.ABSENT  # three links, one denial
    assert client.resolve(ITEM).verdict is Verdict.FOUND  # one link, one record
    built.pass_time(seconds=5)
    built.rotate("88.118.8")
    # The record under the old key costs no check (its signer is unknown); four links and a record cost all five.
    assert client.resolve("88.118.8/SN-2").verdict is Verdict.FOUND
    built.pass_time(seconds=5)
    zone = built.zones[Prefix.parse("88.118.8")]
    built.fault("ent", sim.once(sim.tampering(lambda t, ask, a: replace(a, outcome=sim_mangled(zone, ask)))))
    built.register("88.118.8/SN-3")
    built.rotate("88.118.8")
    resolution = client.resolve("88.118.8/SN-3")
    # One check was lost on the lie, so the record after the restart is one too many.
    assert (resolution.verdict, resolution.reason) == (Verdict.BOGUS, Reason.SIGNATURE_INVALID)


def sim_mangled(zone: sim.Zone, ask: Ask) -> Record:
    """The right record under the previous generation's key, one bit off."""
    record = zone.records[ask.identifier][-1]
    old = sim.signer(f"{zone.prefix}|{Role.RECORD}|{zone.generation - 1}")
    return Record(sim.mangled(sign(Kind.RECORD, record.signed.payload, old)), record.values)


def test_call_budget_is_not_given_back_by_a_restart() -> None:
    built = tree()
    client = Client(built, limits=Limits(upstream_calls=4))
    assert client.resolve(ITEM).upstream_calls == 4
    built.pass_time(seconds=5)
    built.fault("ent", sim.garbage)
    resolution = client.resolve("88.118.8/SN-2")
    assert resolution.upstream_calls == 4
    assert resolution.reason is Reason.ANSWER_MALFORMED


# Time to live


@pytest.mark.parametrize(
    ("ttl_seconds", "lifetime", "ceiling", "kept_seconds"),
    [(60, 1_000, 300, 60), (500, 1_000, 300, 300), (500, 100, 300, 100), (0, 1_000, 300, 0), (500, 1_000, 0, 0)],
)
def test_answer_lives_for_the_least_of_its_bounds(
    ttl_seconds: int, lifetime: int, ceiling: int, kept_seconds: int
) -> None:
    built = Tree()
    built.latency_ms = 0
    built.zone("88", node="top", lifetime=lifetime)
    built.register("88/x", ttl_seconds=ttl_seconds)
    resolution = Client(built, limits=Limits(answer_seconds=ceiling)).walk("88/x").resolution
    assert resolution.ttl_ms == kept_seconds * 1000
    assert resolution.expires == NOW + lifetime


def test_least_expiry_of_all_links_counts_and_not_the_last_one() -> None:
    built = Tree()
    built.zone("88", node="top", lifetime=50)
    built.zone("88.118", node="second", lifetime=5_000)
    built.register("88.118/x")
    resolution = Client(built).walk("88.118/x").resolution
    assert resolution.ttl_ms <= 50_000
    assert resolution.expires == NOW + 50


@pytest.mark.parametrize(
    ("seconds", "lifetime", "kept_seconds"), [(60, 1_000, 60), (30, 1_000, 30), (60, 7, 7), (0, 9, 0)]
)
def test_denial_lives_as_long_as_it_says_and_its_chain_allows(seconds: int, lifetime: int, kept_seconds: int) -> None:
    built = Tree()
    built.latency_ms = 0
    built.zone("88", node="top", lifetime=lifetime)
    zone = built.zones[Prefix.parse("88")]
    short = sim.tampering(lambda t, ask, a: replace(a, outcome=t.deny(ask.identifier, zone, seconds=seconds)))
    built.fault("top", short)
    resolution = Client(built).walk("88/none").resolution
    assert resolution.verdict is Verdict.ABSENT
    assert resolution.ttl_ms == kept_seconds * 1000


def test_chain_on_top_of_a_cached_one_inherits_its_age() -> None:
    built = tree()
    client = Client(built)
    client.resolve("88.118/x")
    begun_ms = built.now_ms - 3 * built.latency_ms
    built.pass_time(seconds=200)
    done = client.walk(ITEM)
    assert [learned.since_ms for learned in done.learned] == [begun_ms]


def test_child_that_is_asked_every_minute_does_not_prolong_its_delegation() -> None:
    built = tree()
    for number in range(2, 12):
        built.register(f"88.118.8/SN-{number}")
    client = Client(built)
    client.resolve(ITEM)
    built.revoke("88.118.8")
    built.fault("ent", sim.ghost)
    verdicts = []
    for number in range(2, 8):
        built.pass_time(seconds=60)
        verdicts.append(client.resolve(f"88.118.8/SN-{number}").verdict)
    assert verdicts == [Verdict.FOUND] * 4 + [Verdict.GONE] * 2


# What is handed on


def test_restricted_values_are_withheld_and_the_rest_still_verifies() -> None:
    built = tree()
    done = Client(built).walk(ITEM)
    bundle = done.resolution.bundle
    assert bundle is not None
    assert isinstance(bundle.outcome, Record)
    assert [value.data for value in bundle.outcome.values] == [b"vial"]
    assert done.record is not None
    assert done.record.withheld == (2, 3)
    assert done.record.record == bundle.outcome
    report = verify_bundle(bundle, built.anchor, now=built.now)
    assert report.valid
    assert report.withheld == (2, 3)


def test_a_node_that_leaves_out_what_everybody_may_read_lies() -> None:
    built = tree()

    def cut(_: Tree, __: Ask, answer: NodeAnswer) -> NodeAnswer:
        assert isinstance(answer.outcome, Record)
        return replace(answer, outcome=replace(answer.outcome, values=()))

    built.fault("ent", sim.tampering(cut))
    resolution = Client(built).walk(ITEM).resolution
    assert (resolution.verdict, resolution.reason) == (Verdict.BOGUS, Reason.VALUE_WITHHELD)


def test_links_verified_before_a_lie_are_learned() -> None:
    built = tree()
    built.fault("ent", sim.garbage)
    done = Client(built).walk(ITEM)
    assert done.resolution.verdict is Verdict.BOGUS
    assert [str(learned.chain.zone) for learned in done.learned] == ["", "88", "88.118", "88.118.8"]
    assert done.record is None


def test_what_another_walk_learns_while_an_answer_is_under_way_does_not_make_it_a_lie() -> None:
    built = tree()
    client = Client(built)
    slow = Walk(ITEM, anchor=built.anchor, root_endpoints=built.root_endpoints, floors=client.trust)
    slow.begin(now_ms=0)
    effect = slow.receive(CacheRead(None, None), now=NOW, now_ms=0)
    for _ in range(3):
        assert isinstance(effect, Ask)
        effect = slow.receive(built.ask(effect), now=NOW, now_ms=0)
    assert isinstance(effect, Ask)
    reply = built.ask(effect)
    built.register(ITEM, {"name": "recalled"})
    assert client.resolve(ITEM).detail.startswith("version 2")
    done = slow.receive(reply, now=NOW, now_ms=0)
    assert isinstance(done, Done)
    assert done.resolution.verdict is Verdict.FOUND
    assert done.resolution.detail.startswith("version 1")
    assert not client.trust.accept(done).latest


# Whatever peers answer

PEERS = ("88.118.8/SN-1", "88.118.8/none", "88.118/x", "77.1/x", "88.118.8.9.10/x")
Say = Callable[[Tree, Ask], Event]


def honest(built: Tree, ask: Ask) -> Event:
    return built.honest(ask)


def stale(built: Tree, ask: Ask) -> Event:
    return Answered(built.answer("top", ITEM, None))


def everything(built: Tree, ask: Ask) -> Event:
    return Answered(NodeAnswer(built.chain("88.118.8"), built.honest(ask).answer.outcome))


def nothing_signed(built: Tree, ask: Ask) -> Event:
    return Answered(NodeAnswer((), Referred(ask.zone_known or ROOT)))


def mangled_links(built: Tree, ask: Ask) -> Event:
    answer = built.honest(ask).answer
    return Answered(replace(answer, delegations=tuple(sim.mangled(signed) for signed in answer.delegations)))


def mangled_outcome(built: Tree, ask: Ask) -> Event:
    answer = built.honest(ask).answer
    match answer.outcome:
        case Record(signed, values):
            return Answered(replace(answer, outcome=Record(sim.mangled(signed), values)))
        case Denied(signed):
            return Answered(replace(answer, outcome=Denied(sim.mangled(signed))))
        case Referred():
            return Answered(replace(answer, outcome=Referred(Prefix.parse("88.118.8.7"))))


def others_record(built: Tree, ask: Ask) -> Event:
    record = built.zones[Prefix.parse("88.118.8")].records[ITEM][-1]
    return Answered(NodeAnswer(built.honest(ask).answer.delegations, record))


def own_branch(built: Tree, ask: Ask) -> Event:
    """An attacker who holds 88.118's zone key signs a zone of his own for whatever is asked."""
    second = built.zones[Prefix.parse("88.118")]
    key = sim.signer("attacker")
    body = replace(
        second.bodies[-1],
        child=ask.identifier.prefix,
        parent=second.prefix,
        keys=(ZoneKey(key.public_key, frozenset(Role)),),
    )
    forged = sign(Kind.DELEGATION, body.payload(), sim.signer("not the zone key"))
    return Answered(NodeAnswer((forged,), Referred(ask.identifier.prefix)))


def no_answer(built: Tree, ask: Ask) -> Event:
    return Failed(FailureKind.UNAVAILABLE, "gone")


def late(built: Tree, ask: Ask) -> Event:
    built.pass_time(ms=ask.timeout_ms)
    return Failed(FailureKind.TIMEOUT, "late")


def rubbish(built: Tree, ask: Ask) -> Event:
    return Malformed(Reason.ANSWER_MALFORMED, "rubbish")


SAYINGS: tuple[Say, ...] = (
    honest,
    honest,
    honest,
    stale,
    everything,
    nothing_signed,
    mangled_links,
    mangled_outcome,
    others_record,
    own_branch,
    no_answer,
    late,
    rubbish,
)


@settings(max_examples=400, deadline=None)
@given(
    question=st.sampled_from(PEERS),
    sayings=st.lists(st.sampled_from(SAYINGS), max_size=40),
    warm=st.booleans(),
    rotate=st.booleans(),
    age_seconds=st.integers(0, 400),
    limits=st.builds(
        Limits,
        upstream_calls=st.integers(1, 32),
        question_ms=st.integers(1, 3_000),
        signature_checks=st.integers(1, 16),
        endpoints_tried=st.integers(1, 4),
        depth=st.integers(1, 8),
    ),
)
def test_whatever_peers_answer_the_walk_ends_within_its_limits_and_proves_what_it_says(
    *, question: str, sayings: list[Say], warm: bool, rotate: bool, age_seconds: int, limits: Limits
) -> None:
    built = tree()
    client = Client(built, limits=limits)
    if warm:
        client.resolve(ITEM)
        built.pass_time(seconds=age_seconds)
    if rotate:
        built.rotate("88.118.8")
    identifier = Identifier.parse(question)
    walking = Walk(
        identifier, anchor=built.anchor, root_endpoints=built.root_endpoints, floors=client.trust, limits=limits
    )
    begun_ms = built.now_ms
    walking.begin(now_ms=begun_ms)
    chain: Learned | None = client.trust.deepest(
        reversed(identifier.prefix.lineage()), now=built.now, now_ms=built.now_ms
    )
    effect = walking.receive(CacheRead(None, chain), now=built.now, now_ms=built.now_ms)
    turns = iter(sayings)
    calls = 0
    while not isinstance(effect, Done):
        assert isinstance(effect, Ask)
        assert 0 < effect.timeout_ms <= limits.call_ms
        assert built.now_ms + effect.timeout_ms <= begun_ms + limits.question_ms
        calls += 1
        built.pass_time(ms=1)
        event = next(turns, rubbish)(built, effect)
        effect = walking.receive(event, now=built.now, now_ms=built.now_ms)
    resolution = effect.resolution
    assert calls == resolution.upstream_calls <= limits.upstream_calls
    accepted = client.trust.accept(effect)
    assert accepted.latest or resolution.bundle is None or effect.record is not None
    if resolution.verdict in {Verdict.FOUND, Verdict.ABSENT, Verdict.GONE}:
        assert resolution.bundle is not None
        report = verify_bundle(resolution.bundle, built.anchor, now=built.now)
        assert report.verdict is resolution.verdict
        assert verify_bundle(built.bundle(identifier), built.anchor, now=built.now).verdict is resolution.verdict
    else:
        assert resolution.bundle is None

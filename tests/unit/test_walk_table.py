"""The walk as a table: a tree, what is wrong with it, which nodes are asked in which order, and the verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from idtrace.bundle import NodeAnswer, Referred, Verdict
from idtrace.chain import Anchor
from idtrace.delegation import Role
from idtrace.errors import Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Status
from idtrace.signature import Kind, sign
from idtrace.verification import verify_bundle
from resolver.effects import Ask, Limits, Malformed, Reply
from tests import simulator as sim
from tests.simulator import Client, Tree

SN1, SN2, NONE, HOSTED = "88.118.8/SN-1", "88.118.8/SN-2", "88.118.8/none", "88.118.9/H-1"
DEEP = "a.b.c.d.e.f.g.h"
Change = Callable[[Tree], object]


def standard() -> Tree:
    """Root, top-level, secondary on two nodes, an enterprise, a hosted enterprise, and one delegated past a level."""
    tree = Tree()
    tree.zone("88", node="top")
    tree.zone("88.118", node=("second-a", "second-b"))
    tree.zone("88.118.8", node="ent")
    tree.zone("88.118.9", hosted=True)
    tree.zone("88.7.7", node="skip")
    tree.zone("88.118.wide", node=("w1", "w2", "w3", "w4"))
    for depth in range(1, 9):
        tree.zone(".".join(DEEP.split(".")[:depth]), node=f"n{depth}")
    for identifier in (SN1, SN2, HOSTED, "88.7.7/S", "88.118.wide/W", f"{DEEP}/bottom"):
        tree.register(identifier, {"name": "vial"})
    return tree


def nothing(_: Tree) -> None:
    pass


@dataclass(frozen=True)
class Row:
    name: str
    asks: str  # nodes in order
    verdict: Verdict
    reason: Reason | None = None
    question: str = SN1
    arrange: Change = nothing
    warm: tuple[str, ...] = ()
    after: Change = nothing
    limits: Limits | None = None

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def all_of(*changes: Change) -> Change:
    def run(tree: Tree) -> None:
        for change in changes:
            change(tree)

    return run


def fault(nodes: str, wrong: sim.Fault) -> Change:
    def run(tree: Tree) -> None:
        for node in nodes.split():
            tree.fault(node, wrong)

    return run


def lie(nodes: str, change: Callable[[Tree, Ask, NodeAnswer], NodeAnswer]) -> Change:
    return fault(nodes, sim.tampering(change))


def later(seconds: int) -> Change:
    return lambda tree: tree.pass_time(seconds=seconds)


def own_delegation(child: str, parent: str, signed_by: str) -> Callable[[Tree, Ask, NodeAnswer], NodeAnswer]:
    """The node of zone ``signed_by`` signs a delegation of ``child`` with its real zone key, and refers to it."""

    def change(tree: Tree, ask: Ask, answer: NodeAnswer) -> NodeAnswer:
        by = tree.zones[Prefix.parse(signed_by)]
        body = replace(tree.zones[Prefix.parse("88.118.8")].bodies[-1])
        body = replace(body, child=Prefix.parse(child), parent=Prefix.parse(parent))
        return NodeAnswer((sign(Kind.DELEGATION, body.payload(), by.key(Role.ZONE)),), Referred(Prefix.parse(child)))

    return change


def two_hundred_targets(tree: Tree) -> None:
    zone = tree.zones[Prefix.parse("88.118.8")]
    tree.install(zone, replace(tree.delegation(zone), endpoints=tuple(f"n{n}:1" for n in range(200))))


def moved(tree: Tree) -> None:
    """The enterprise's node moves to another machine."""
    zone = tree.zones[Prefix.parse("88.118.8")]
    zone.nodes = ("ent-new",)
    tree.delegate(zone)


def replay_first_version(tree: Tree, ask: Ask, answer: NodeAnswer) -> NodeAnswer:
    return replace(answer, delegations=(tree.zones[Prefix.parse("88.118.8")].delegations[0],))


def forked(tree: Tree, ask: Ask, answer: NodeAnswer) -> NodeAnswer:
    zone = tree.zones[Prefix.parse("88.118.8")]
    parent = zone.parent
    assert parent
    other = sim.resigned_delegation(tree, zone, parent.key(Role.ZONE), issued_at=tree.now - 5)
    return replace(answer, delegations=(other,))


def another_root(tree: Tree) -> None:
    tree.anchor = Anchor.of(sim.signer("somebody else").public_key)


def no_root(tree: Tree) -> None:
    tree.root_endpoints = ()


def fifty(tree: Tree, ask: Ask, answer: NodeAnswer) -> NodeAnswer:
    return replace(answer, delegations=answer.delegations * 50)


def bare_referral(tree: Tree, ask: Ask, answer: NodeAnswer) -> NodeAnswer:
    return replace(answer, delegations=())


def to_itself(tree: Tree, ask: Ask, answer: NodeAnswer) -> NodeAnswer:
    return NodeAnswer((), Referred(ask.zone_known or Prefix(())))


def naming(zone: str) -> Callable[[Tree, Ask, NodeAnswer], NodeAnswer]:
    return lambda tree, ask, answer: replace(answer, outcome=Referred(Prefix.parse(zone)))


def sibling(tree: Tree, ask: Ask, answer: NodeAnswer) -> NodeAnswer:
    child = Prefix.parse("88.118.9")
    return NodeAnswer((tree.zones[child].delegations[-1],), Referred(child))


def revoked_but_answering(tree: Tree, ask: Ask, answer: NodeAnswer) -> NodeAnswer:
    return replace(answer, outcome=tree.zones[Prefix.parse("88.118.8")].records[ask.identifier][-1])


def empty(tree: Tree, ask: Ask) -> Reply:
    return Malformed(Reason.ANSWER_EMPTY, "the answer says nothing")


def turned_back(tree: Tree) -> None:
    """The node of 88 answers every question with the chain down to 88 and a referral to 88."""
    zone = tree.zones[Prefix.parse("88")]
    newer = sim.resigned_delegation(
        tree, zone, tree.zones[Prefix.parse("")].key(Role.ZONE), version=2, previous=zone.bodies[-1].hash
    )
    links = (tree.chain("")[0], newer)
    tree.fault("top", sim.replaying(NodeAnswer(links, Referred(zone.prefix))))


F, A, G, U, B = Verdict.FOUND, Verdict.ABSENT, Verdict.GONE, Verdict.UNREACHABLE, Verdict.BOGUS
DOWN = "root top second-a"
BOTH = "second-a second-b"

TABLE = [
    # Ways down an honest tree
    Row("cold, three hops below the root", f"{DOWN} ent", F),
    Row("warm answer", "", F, warm=(SN1,)),
    Row("warm zone", "ent", F, question=SN2, warm=(SN1,)),
    Row("sibling zone under a cached delegation", "second-a", F, question=HOSTED, warm=(SN1,)),
    Row("hosted zone is answered by its parent", DOWN, F, question=HOSTED),
    Row("hosted zone, warm", "second-a", A, Reason.IDENTIFIER_ABSENT, "88.118.9/x", nothing, (HOSTED,)),
    Row("zone delegated past a level", "root top skip", F, question="88.7.7/S"),
    Row("eight deep", "root n1 n2 n3 n4 n5 n6 n7 n8", F, question=f"{DEEP}/bottom"),
    Row("absent in an enterprise", f"{DOWN} ent", A, Reason.IDENTIFIER_ABSENT, question=NONE),
    Row("absent at the root", "root", A, Reason.IDENTIFIER_ABSENT, question="77/x"),
    Row("absent at a level without a zone", DOWN, A, Reason.IDENTIFIER_ABSENT, question="88.118.404/x"),
    Row("denial is kept", "", A, Reason.IDENTIFIER_ABSENT, question=NONE, warm=(NONE,), after=later(59)),
    Row("denial is not kept beyond its expiry", "ent", A, Reason.IDENTIFIER_ABSENT, NONE, nothing, (NONE,), later(60)),
    Row("tombstone", f"{DOWN} ent", G, Reason.IDENTIFIER_RETIRED, arrange=lambda t: t.retire(SN1)),
    Row("recalled is found", f"{DOWN} ent", F, arrange=lambda t: t.register(SN1, status=Status.RECALLED)),
    Row("revoked zone", DOWN, G, Reason.DELEGATION_REVOKED, arrange=lambda t: t.revoke("88.118.8")),
    Row("revoked zone high up", "root top", G, Reason.DELEGATION_REVOKED, arrange=lambda t: t.revoke("88.118")),
    Row("disabled prefix", DOWN, A, Reason.PREFIX_DISABLED, arrange=lambda t: t.disable("88.118.8")),
    Row(
        "hosted prefix disabled since its chain was cached",
        "second-a",
        A,
        Reason.PREFIX_DISABLED,
        "88.118.9/x",
        nothing,
        (HOSTED,),
        lambda t: t.disable("88.118.9"),
    ),
    Row(
        "parent answers a referral to the child asked about", "root top", B, Reason.REFERRAL_UPWARD, arrange=turned_back
    ),
    Row("disabled hosted prefix", DOWN, A, Reason.PREFIX_DISABLED, HOSTED, lambda t: t.disable("88.118.9")),
    # Loops, and referrals that lead nowhere or elsewhere
    Row("fifty deep", "root", B, Reason.CHAIN_TOO_DEEP, arrange=lie("root", fifty)),
    Row("deeper than this node's limit", DOWN, U, Reason.BUDGET_DEPTH, limits=Limits(depth=2)),
    Row("node refers to itself", "root top", B, Reason.REFERRAL_UNSIGNED, arrange=lie("top", to_itself)),
    Row(
        "node delegates its own zone to itself",
        "root top",
        B,
        Reason.REFERRAL_UPWARD,
        arrange=lie("top", own_delegation("88", "88", "88")),
    ),
    Row(
        "loop: the child delegates its parent back",
        f"{DOWN} second-b",
        B,
        Reason.REFERRAL_UPWARD,
        arrange=lie(BOTH, own_delegation("88", "88.118", "88.118")),
    ),
    Row(
        "signed by one zone in the name of another",
        f"{DOWN} second-b",
        B,
        Reason.REFERRAL_SIDEWAYS,
        arrange=lie(BOTH, own_delegation("88.118.8.5", "88.118.8", "88.118")),
        question="88.118.8.5/x",
    ),
    Row("sibling's delegation", f"{DOWN} second-b", B, Reason.REFERRAL_SIDEWAYS, arrange=lie(BOTH, sibling)),
    Row(
        "delegation of somebody else's branch",
        f"{DOWN} second-b",
        B,
        Reason.REFERRAL_SIDEWAYS,
        arrange=lie(BOTH, own_delegation("77", "88.118", "88.118")),
    ),
    Row("referral beside another", f"{DOWN} second-b", B, Reason.REFERRAL_SIDEWAYS, arrange=lie(BOTH, naming("99"))),
    Row("referral up", f"{DOWN} second-b", B, Reason.REFERRAL_UPWARD, arrange=lie(BOTH, naming("88"))),
    Row("unsigned referral", f"{DOWN} second-b", B, Reason.REFERRAL_UNSIGNED, arrange=lie(BOTH, bare_referral)),
    Row("root says nothing signed", "root", B, Reason.CHAIN_EMPTY, arrange=lie("root", bare_referral)),
    Row("another root", "root", B, Reason.ROOT_MISMATCH, arrange=another_root),
    # Targets
    Row("two hundred targets", f"{DOWN} second-b", B, Reason.FIELD_TOO_LARGE, arrange=two_hundred_targets),
    Row(
        "of four targets two are tried", f"{DOWN} w1 w2", U, Reason.NO_ANSWER, "88.118.wide/W", fault("w1 w2", sim.dead)
    ),
    Row("first target dead", f"{DOWN} w1 w2", F, None, "88.118.wide/W", fault("w1", sim.dead)),
    Row("all targets dead", f"{DOWN} second-b", U, Reason.NO_ANSWER, arrange=fault(BOTH, sim.dead)),
    Row("dead root", "root", U, Reason.NO_ANSWER, arrange=fault("root", sim.dead)),
    Row("no root configured", "", U, Reason.NO_ENDPOINT, arrange=no_root),
    Row("node refuses, unsigned", f"{DOWN} ent", U, Reason.NO_ANSWER, arrange=fault("ent", sim.refusing)),
    Row("slow but within its time-out", f"{DOWN} ent", F, arrange=fault("ent", sim.slow(900))),
    Row("slow first target", f"{DOWN} second-b ent", F, arrange=fault("second-a", sim.slow(5_000))),
    Row(
        "slow targets eat the three seconds",
        f"{DOWN} ent",
        U,
        Reason.BUDGET_TIME,
        arrange=fault("root top second-a ent", sim.slow(900)),
    ),
    # Lies and silence together
    Row("lying first, honest second", f"{DOWN} second-b ent", F, arrange=lie("second-a", bare_referral)),
    Row(
        "lying first, dead second",
        f"{DOWN} second-b",
        B,
        Reason.REFERRAL_UNSIGNED,
        arrange=all_of(lie("second-a", bare_referral), fault("second-b", sim.dead)),
    ),
    Row(
        "dead first, garbage second",
        f"{DOWN} second-b",
        B,
        Reason.ANSWER_MALFORMED,
        arrange=all_of(fault("second-a", sim.dead), fault("second-b", sim.garbage)),
    ),
    Row(
        "two lies: the first one counts",
        f"{DOWN} second-b",
        B,
        Reason.REFERRAL_SIDEWAYS,
        arrange=all_of(lie("second-a", sibling), lie("second-b", bare_referral)),
    ),
    Row(
        "a lie that a sibling has made good is forgotten",
        f"{DOWN} second-b ent",
        U,
        Reason.NO_ANSWER,
        arrange=all_of(lie("second-a", sibling), fault("ent", sim.dead)),
    ),
    Row(
        "time runs out after a lie",
        f"{DOWN} ent",
        B,
        Reason.ANSWER_MALFORMED,
        arrange=fault("ent", sim.garbage),
        limits=Limits(question_ms=40),
    ),
    Row("empty answer", f"{DOWN} ent", B, Reason.ANSWER_EMPTY, arrange=fault("ent", empty)),
    Row("malformed answer", f"{DOWN} ent", B, Reason.ANSWER_MALFORMED, arrange=fault("ent", sim.garbage)),
    # Time, rotation, rollback
    Row(
        "expired delegation",
        f"{DOWN} second-b",
        B,
        Reason.DELEGATION_EXPIRED,
        arrange=lambda t: t.delegate(t.zones[Prefix.parse("88.118.8")], lifetime=0),
    ),
    Row(
        "delegation not yet valid",
        f"{DOWN} second-b",
        B,
        Reason.DELEGATION_NOT_YET_VALID,
        arrange=lambda t: t.delegate(t.zones[Prefix.parse("88.118.8")], not_before=t.now + 1),
    ),
    Row(
        "ghost: a cached child ends with its parent's signed expiry",
        "second-a second-b root top second-a second-b",
        B,
        Reason.DELEGATION_EXPIRED,
        SN2,
        lambda t: t.delegate(t.zones[Prefix.parse("88.118.8")], lifetime=100),
        (SN1,),
        later(100),
    ),
    Row(
        "ghost: a revoked child lives on for no longer than chain_seconds",
        "root top second-a",
        G,
        Reason.DELEGATION_REVOKED,
        SN2,
        nothing,
        (SN1,),
        all_of(lambda t: t.revoke("88.118.8"), later(300)),
    ),
    Row(
        "keys rotated since the chain was cached",
        f"ent {DOWN} ent",
        F,
        None,
        SN2,
        nothing,
        (SN1,),
        all_of(lambda t: t.rotate("88.118.8"), later(1)),
    ),
    Row(
        "parent's keys rotated since the chain was cached",
        "second-a second-b root top second-a",
        F,
        None,
        HOSTED,
        nothing,
        (SN1,),
        all_of(lambda t: t.rotate("88.118"), later(1)),
    ),
    Row(
        "endpoint moved since the chain was cached",
        f"ent {DOWN} ent-new",
        F,
        None,
        SN2,
        nothing,
        (SN1,),
        all_of(moved, fault("ent", sim.dead), later(1)),
    ),
    Row(
        "a chain that is a moment old is not doubted",
        "ent",
        B,
        Reason.ANSWER_MALFORMED,
        SN2,
        nothing,
        (SN1,),
        fault("ent", sim.garbage),
    ),
    Row(
        "a liar under a cached chain costs one restart and no more",
        f"ent {DOWN} ent",
        B,
        Reason.ANSWER_MALFORMED,
        SN2,
        nothing,
        (SN1,),
        all_of(fault("ent", sim.garbage), later(5)),
    ),
    Row(
        "dead under a cached chain: found dead once, not asked again",
        f"ent {DOWN}",
        U,
        Reason.NO_ANSWER,
        SN2,
        nothing,
        (SN1,),
        all_of(fault("ent", sim.dead), later(5)),
    ),
    Row(
        "lie under a cached chain and a dead root",
        "ent root",
        B,
        Reason.ANSWER_MALFORMED,
        SN2,
        nothing,
        (SN1,),
        all_of(fault("ent", sim.garbage), fault("root", sim.dead), later(5)),
    ),
    Row(
        "older version of a delegation",
        f"{DOWN} second-b",
        B,
        Reason.DELEGATION_ROLLED_BACK,
        SN2,
        moved,
        (SN1,),
        all_of(lie(BOTH, replay_first_version), later(300)),
    ),
    Row(
        "one version of a delegation with two contents",
        f"{DOWN} second-b",
        B,
        Reason.DELEGATION_FORKED,
        SN2,
        nothing,
        (SN1,),
        all_of(lie(BOTH, forked), later(300)),
    ),
    Row(
        "newer version of a delegation replaces the older",
        f"{DOWN} ent-new",
        F,
        None,
        SN2,
        nothing,
        (SN1,),
        all_of(moved, later(300)),
    ),
    Row(
        "revoked zone, and its record beside",
        f"{DOWN} second-b",
        B,
        Reason.DELEGATION_REVOKED,
        arrange=all_of(lambda t: t.revoke("88.118.8"), lie(BOTH, revoked_but_answering)),
    ),
    Row(
        "restored after a revocation",
        f"{DOWN} ent",
        F,
        arrange=all_of(lambda t: t.revoke("88.118.8"), lambda t: t.delegate(t.zones[Prefix.parse("88.118.8")])),
    ),
    # Budgets
    Row("call budget", "root top", U, Reason.BUDGET_CALLS, limits=Limits(upstream_calls=2)),
    Row("time budget", "root top", U, Reason.BUDGET_TIME, limits=Limits(question_ms=20)),
    Row("crypto budget", "root top", B, Reason.TOO_MUCH_CRYPTO, limits=Limits(signature_checks=2)),
]


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_walk_visits_and_decides(row: Row) -> None:
    tree = standard()
    row.arrange(tree)
    client = Client(tree, limits=row.limits)
    for identifier in row.warm:
        assert client.resolve(identifier).verdict in {F, A, G}
    row.after(tree)
    resolution = client.resolve(row.question)
    assert " ".join(endpoint.partition(":")[0] for endpoint in resolution.visited) == row.asks
    assert (resolution.verdict, resolution.reason) == (row.verdict, row.reason), resolution.detail
    assert resolution.upstream_calls == len(resolution.visited)
    assert resolution.detail


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_proven_verdicts_carry_a_bundle_that_proves_them_offline_and_others_carry_none(row: Row) -> None:
    tree = standard()
    row.arrange(tree)
    client = Client(tree, limits=row.limits)
    for identifier in row.warm:
        client.resolve(identifier)
    row.after(tree)
    resolution = client.resolve(row.question)
    if row.verdict in {U, B}:
        assert (resolution.bundle, resolution.chain, resolution.ttl_ms, resolution.expires) == (None, None, 0, 0)
    else:
        assert resolution.bundle is not None
        assert resolution.bundle.identifier == Identifier.parse(row.question)
        assert verify_bundle(resolution.bundle, tree.anchor, now=tree.now).verdict is row.verdict
        assert resolution.expires > tree.now


def test_table_is_big_and_its_names_differ() -> None:
    assert len(TABLE) >= 60
    assert len({row.name for row in TABLE}) == len(TABLE)

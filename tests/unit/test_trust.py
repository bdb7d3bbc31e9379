"""The trust store holds verified things alone, forgets within its bounds, and is not fooled by time or by old truth."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idtrace.bundle import Verdict
from idtrace.chain import Context, TrustedChain
from idtrace.delegation import Role, ZoneKey
from idtrace.errors import Reason
from idtrace.identifier import ROOT, Identifier, Prefix
from idtrace.signature import Kind as SignatureKind
from idtrace.signature import Signed, sign
from resolver.effects import Done, Learned
from resolver.resolution import Resolution
from resolver.trust import TrustLimits, TrustStore
from tests import simulator as sim
from tests.simulator import NOW, Client, Tree, delegation_hash

ENT = Prefix.parse("88.118.8")
SECOND = Prefix.parse("88.118")
LINEAGE = tuple(reversed(ENT.lineage()))


def tree() -> Tree:
    built = Tree()
    built.zone("88", node="top")
    built.zone("88.118", node="second")
    built.zone("88.118.8", node="ent")
    built.register("88.118.8/SN-1")
    return built


def chain_of(built: Tree, signed: tuple[Signed, ...]) -> TrustedChain:
    context = Context.at(built.now)
    chain = TrustedChain.begin(built.anchor, signed[0], context)
    for one in signed[1:]:
        chain = chain.extend(one, context)
    return chain


def learn(built: Tree, store: TrustStore, zone: str = "88.118.8", since_ms: int = 0) -> tuple[Prefix, ...]:
    """As a walk down to a zone that ends in nothing."""
    path = built.zones[Prefix.parse(zone)].path()
    chains = [chain_of(built, built.chain(above)) for above in path]
    resolution = Resolution(Identifier.parse("88.118.8/x"), Verdict.UNREACHABLE, Reason.NO_ANSWER, "dead")
    return store.accept(Done(resolution, tuple(Learned(chain, since_ms) for chain in chains))).changed


def store(chain_seconds: int = 300, **limits: int) -> TrustStore:
    return TrustStore(chain_seconds=chain_seconds, limits=replace(TrustLimits(), **limits))


# Chains


def test_deepest_usable_chain_is_found() -> None:
    built, trust = tree(), store()
    assert trust.deepest(LINEAGE, now=NOW, now_ms=0) is None
    learn(built, trust)
    found = trust.deepest(LINEAGE, now=NOW, now_ms=0)
    assert found is not None
    assert found.chain.zone == ENT
    above = trust.deepest((Prefix.parse("88.118.404"), SECOND, ROOT), now=NOW, now_ms=0)
    assert above is not None
    assert above.chain.zone == SECOND


@pytest.mark.parametrize(("age_ms", "usable"), [(0, True), (299_999, True), (300_000, False)])
def test_chain_is_used_for_chain_seconds(age_ms: int, usable: bool) -> None:
    built, trust = tree(), store()
    learn(built, trust, since_ms=1_000)
    assert (trust.deepest(LINEAGE, now=NOW, now_ms=1_000 + age_ms) is not None) is usable
    assert len(trust) == (4 if usable else 0)


def test_chain_ends_with_its_signed_expiry_however_young_it_is() -> None:
    built = Tree()
    built.zone("88", node="top", lifetime=10)
    built.zone("88.118", node="second", lifetime=5_000)
    trust = store()
    learn(built, trust, "88.118")
    zones = (SECOND, Prefix.parse("88"), ROOT)
    young = trust.deepest(zones, now=NOW + 9, now_ms=0)
    assert young is not None
    assert young.chain.zone == SECOND
    ended = trust.deepest(zones, now=NOW + 10, now_ms=0)
    assert ended is not None
    assert ended.chain.zone == ROOT


def test_clock_set_back_before_the_delegation_finds_nothing() -> None:
    built, trust = tree(), store()
    learn(built, trust)
    assert trust.deepest(LINEAGE, now=0, now_ms=0) is None


def test_chain_seconds_zero_keeps_floors_and_no_chain() -> None:
    built, trust = tree(), store(chain_seconds=0)
    learn(built, trust)
    assert trust.deepest(LINEAGE, now=NOW, now_ms=0) is None
    assert trust.zone(ENT) is not None


def test_younger_copy_of_a_chain_replaces_the_older_and_not_the_other_way() -> None:
    built, trust = tree(), store()
    learn(built, trust, since_ms=500)
    learn(built, trust, since_ms=100)
    found = trust.deepest(LINEAGE, now=NOW, now_ms=600)
    assert found is not None
    assert found.since_ms == 500
    learn(built, trust, since_ms=600)
    found = trust.deepest(LINEAGE, now=NOW, now_ms=600)
    assert found is not None
    assert found.since_ms == 600


def test_newer_delegation_drops_every_chain_through_the_older_one_and_says_which_zone_changed() -> None:
    built, trust = tree(), store()
    assert learn(built, trust) == ()
    built.delegate(built.zones[SECOND])
    assert learn(built, trust, "88.118") == (SECOND,)
    found = trust.deepest(LINEAGE, now=NOW, now_ms=0)
    assert found is not None
    assert found.chain.zone == SECOND
    assert found.chain.delegation.version == 2


def test_older_chain_that_arrives_late_is_not_kept() -> None:
    built, trust = tree(), store()
    before = chain_of(built, built.chain("88.118.8"))
    built.delegate(built.zones[SECOND])
    learn(built, trust, "88.118")
    resolution = Resolution(Identifier.parse("88.118.8/x"), Verdict.UNREACHABLE, Reason.NO_ANSWER, "dead")
    assert trust.accept(Done(resolution, (Learned(before, 0),))).changed == ()
    found = trust.deepest(LINEAGE, now=NOW, now_ms=0)
    assert found is not None
    assert found.chain.zone == SECOND


def test_of_two_contents_of_one_version_the_first_stays() -> None:
    built, trust = tree(), store()
    learn(built, trust)
    held = trust.zone(ENT)
    other = tree()
    other.zones[ENT].bodies.clear()
    other.zones[ENT].delegations.clear()
    other.delegate(other.zones[ENT], lifetime=50)
    learn(other, trust)
    assert trust.zone(ENT) == held
    found = trust.deepest(LINEAGE, now=NOW, now_ms=0)
    assert found is not None
    assert found.chain.expires > NOW + 50


def test_revoked_chain_is_no_start_but_its_floor_stays() -> None:
    built, trust = tree(), store()
    learn(built, trust)
    built.revoke(ENT)
    assert learn(built, trust) == (ENT,)
    found = trust.deepest(LINEAGE, now=NOW, now_ms=0)
    assert found is not None
    assert found.chain.zone == SECOND
    assert trust.zone(ENT) == (2, delegation_hash(built.zones[ENT].delegations[-1]))


# Floors


def test_floor_is_the_highest_version_with_its_hash() -> None:
    built, trust = tree(), store()
    learn(built, trust)
    assert trust.zone(ENT) == (1, delegation_hash(built.zones[ENT].delegations[0]))
    assert trust.zone(Prefix.parse("77")) is None


def test_record_floor_rises_and_never_falls() -> None:
    built = tree()
    client = Client(built)
    item = Identifier.parse("88.118.8/SN-1")
    old = client.walk(item)
    assert client.trust.accept(old).latest
    assert client.trust.record(item) == (1, built.zones[ENT].records[item][0].hash)
    second = built.register(item)
    assert client.trust.accept(client.walk(item)).latest
    assert client.trust.record(item) == (2, second.hash)
    assert not client.trust.accept(old).latest
    assert client.trust.record(item) == (2, second.hash)


def test_denial_that_arrives_after_the_record_is_not_the_latest_word() -> None:
    built = tree()
    client = Client(built)
    denied = client.walk("88.118.8/SN-2")
    assert client.trust.accept(denied).latest
    built.register("88.118.8/SN-2")
    client.trust.accept(client.walk("88.118.8/SN-2"))
    assert not client.trust.accept(denied).latest


def test_disabled_prefix_is_the_latest_word_although_its_records_were_seen() -> None:
    built = tree()
    client = Client(built)
    client.resolve("88.118.8/SN-1")
    built.disable("88.118.8")
    built.pass_time(seconds=400)
    assert client.trust.accept(client.walk("88.118.8/SN-1")).latest


# Fast-forward: a stolen key signs an enormous version


def fast_forward(built: Tree) -> None:
    """Whoever holds 88.118's zone key hands out version 2**53 - 1 of its child."""
    zone = built.zones[ENT]
    body = replace(built.delegation(zone), version=2**53 - 1, previous=b"\1" * 32)
    stolen = sign(SignatureKind.DELEGATION, body.payload(), built.zones[SECOND].key(Role.ZONE))
    zone.delegations.append(stolen)
    zone.bodies.append(body)


def test_floor_set_by_a_stolen_key_falls_with_that_key() -> None:
    built = tree()
    client = Client(built)
    honest = built.zones[ENT].bodies[-1]
    fast_forward(built)
    assert client.resolve("88.118.8/x").verdict is Verdict.ABSENT
    assert client.trust.zone(ENT) is not None
    # The owner notices, gets new keys from his parent, and signs the true delegation again.
    built.zones[ENT].bodies[-1] = honest
    built.rotate("88.118")
    built.pass_time(seconds=300)
    assert client.resolve("88.118.8/SN-1").verdict is Verdict.FOUND, "the walk itself shows that the thief's keys ended"
    assert client.trust.zone(ENT) == (1, built.zones[ENT].bodies[-1].hash)


def test_records_of_a_forged_child_fall_with_the_forged_delegation() -> None:
    built = tree()
    client = Client(built)
    zone, item = built.zones[ENT], Identifier.parse("88.118.8/SN-1")
    honest, genuine = zone.bodies[-1], zone.records[item][-1]
    thief = sim.signer("a thief's own record key")
    keys = tuple(ZoneKey(thief.public_key, k.roles) if Role.RECORD in k.roles else k for k in honest.keys)
    forged = replace(honest, version=2**53 - 1, previous=b"\1" * 32, keys=keys)
    zone.bodies.append(forged)
    zone.delegations.append(sign(SignatureKind.DELEGATION, forged.payload(), built.zones[SECOND].key(Role.ZONE)))
    zone.records[item].append(sim.resigned_record(genuine, thief, version=2**53 - 1, previous=b"\1" * 32))
    assert client.resolve(item).verdict is Verdict.FOUND
    zone.records[item].pop()
    zone.bodies.pop()
    zone.delegations.pop()
    built.rotate("88.118")
    built.pass_time(seconds=400)
    found = client.resolve(item)
    assert (found.verdict, found.reason) == (Verdict.FOUND, None), found.detail
    assert client.trust.record(item) == (1, genuine.hash)


def test_a_thiefs_record_that_arrives_after_his_key_has_ended_sets_no_floor() -> None:
    built = tree()
    client = Client(built)
    zone, item = built.zones[ENT], Identifier.parse("88.118.8/SN-1")
    client.resolve("88.118.8/x")
    genuine, stolen = zone.records[item][-1], zone.key(Role.RECORD)
    zone.records[item].append(sim.resigned_record(genuine, stolen, version=2**53 - 1, previous=b"\1" * 32))
    late = client.walk(item)  # verified with the old key set, and on its way
    assert late.resolution.verdict is Verdict.FOUND
    zone.records[item].pop()
    built.rotate(ENT)
    built.pass_time(seconds=400)
    client.resolve("88.118.8/y")  # another question learns of the new keys
    assert not client.trust.accept(late).latest
    assert client.trust.record(item) is None
    assert client.resolve(item, fresh=True).verdict is Verdict.FOUND


def test_floor_stays_while_one_of_its_signers_is_still_a_key_of_the_zone() -> None:
    built, trust = tree(), store()
    learn(built, trust)
    held = trust.zone(ENT)
    built.delegate(built.zones[SECOND])  # a new term with the same keys
    learn(built, trust, "88.118")
    assert trust.zone(ENT) == held


def test_record_floors_fall_with_the_record_key_that_set_them_and_not_by_a_revocation_alone() -> None:
    built = tree()
    client = Client(built)
    first, second = Identifier.parse("88.118.8/SN-1"), Identifier.parse("88.118.8/SN-2")
    built.register(second)
    built.register(second)
    client.resolve(first)
    client.resolve(second)
    built.revoke(ENT)
    built.pass_time(seconds=300)
    assert client.resolve(first).verdict is Verdict.GONE
    assert client.trust.record(first) is not None
    assert client.trust.record(second) is not None
    built.rotate(ENT)
    built.pass_time(seconds=300)
    client.resolve("88.118.8/other")
    assert client.trust.record(first) is None
    assert client.trust.record(second) is None


# Bounds


def test_bounds_hold_and_the_least_recently_used_goes_first() -> None:
    built = Tree()
    built.zone("88", node="top")
    for number in range(6):
        built.zone(f"88.{number}", node=f"n{number}")
    trust = store(chains=4, zones=5)
    for number in range(6):
        learn(built, trust, f"88.{number}")
    assert len(trust) == 4
    left = [n for n in range(6) if trust.zone(Prefix.parse(f"88.{n}"))]
    assert left == [3, 4, 5]
    assert trust.zone(ROOT)
    assert trust.zone(Prefix.parse("88"))


def test_use_keeps_a_chain_and_its_parents() -> None:
    built = Tree()
    built.zone("88", node="top")
    for number in range(4):
        built.zone(f"88.{number}", node=f"n{number}")
    trust = store(chains=4)
    learn(built, trust, "88.0")
    learn(built, trust, "88.1")
    trust.deepest((Prefix.parse("88.0"), Prefix.parse("88"), ROOT), now=NOW, now_ms=0)
    done = Learned(chain_of(built, built.chain("88.2")), 0)
    resolution = Resolution(Identifier.parse("88.2/x"), Verdict.UNREACHABLE, Reason.NO_ANSWER, "dead")
    trust.accept(Done(resolution, (done,)))
    assert trust.deepest((Prefix.parse("88.1"),), now=NOW, now_ms=0) is None
    for zone in ("88.0", "88", ""):
        assert trust.deepest((Prefix.parse(zone),), now=NOW, now_ms=0) is not None


def test_a_day_of_first_versions_evicts_no_floor_of_a_later_version() -> None:
    built = tree()
    recalled = Identifier.parse("88.118.8/SN-1")
    built.register(recalled)
    client = Client(built, trust=store(first_versions=3, later_versions=3))
    client.resolve(recalled)
    for number in range(10, 30):
        built.register(f"88.118.8/SN-{number}")
        client.resolve(f"88.118.8/SN-{number}")
    assert client.trust.record(recalled) is not None
    held = [n for n in range(10, 30) if client.trust.record(Identifier.parse(f"88.118.8/SN-{n}"))]
    assert held == [27, 28, 29]


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.sampled_from(["delegate", "rotate", "learn", "learn-second", "replay", "pass"]), max_size=12))
def test_floors_of_a_zone_never_fall_while_its_parents_keys_stay(steps: list[str]) -> None:
    built, trust = tree(), store(chain_seconds=10)
    kept = [chain_of(built, built.chain(ENT))]
    floor = 0
    for step in steps:
        match step:
            case "delegate":
                built.delegate(built.zones[ENT])
            case "rotate":
                built.rotate(ENT)
            case "learn":
                learn(built, trust, since_ms=built.now_ms)
                kept.append(chain_of(built, built.chain(ENT)))
            case "learn-second":
                learn(built, trust, "88.118", since_ms=built.now_ms)
            case "replay":
                resolution = Resolution(Identifier.parse("88.118.8/x"), Verdict.UNREACHABLE, Reason.NO_ANSWER, "")
                trust.accept(Done(resolution, tuple(Learned(chain, 0) for chain in kept)))
            case _:
                built.pass_time(seconds=4)
        held = trust.zone(ENT)
        assert held is None or held[0] >= floor
        floor = held[0] if held else floor
        found = trust.deepest(LINEAGE, now=built.now, now_ms=built.now_ms)
        assert found is None or found.chain.zone != ENT or found.chain.delegation.version == floor


def test_a_new_version_looks_at_nothing_beside_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    built, known = tree(), store()
    built.zone("88.118.9", node="evil")
    learn(built, known)
    learn(built, known, "88.118.9")
    built.rotate("88.118.9")
    evil = Prefix.parse("88.118.9")
    chain = chain_of(built, built.chain(evil))
    resolution = Resolution(Identifier.parse("88.118.9/x"), Verdict.UNREACHABLE, Reason.NO_ANSWER, "dead")

    def looked_at(*_: object) -> bool:
        raise AssertionError("every version that a zone's owner publishes would cost a look at the whole store")

    monkeypatch.setattr(Prefix, "within", looked_at)
    assert known.accept(Done(resolution, (Learned(chain, 1),))).changed == (evil,)
    assert known.deepest((evil,), now=built.now, now_ms=1) == Learned(chain, 1)
    assert known.deepest((ENT,), now=built.now, now_ms=1) is not None
    assert sorted(known._below.of(ROOT)) == sorted(known._chains)

"""Bodies of shared entries: what was taken over once is not parsed again, and is looked at anew every time."""

from __future__ import annotations

import pytest

from idtrace import wire
from idtrace.bundle import Bundle, Denied, Revoked
from idtrace.chain import Floors, NoFloors, TrustedChain
from idtrace.delegation import State
from idtrace.errors import IdtraceError, InputError, Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Record
from resolver import shared_bodies
from resolver.effects import Learned
from resolver.shared_bodies import SharedChains, answer_body, answer_parts, chain_body
from resolver.shared_cache import framed
from resolver.trust import TrustStore
from tests.simulator import NOW, Client, Tree

ZONE = "88.118.8"


def tree() -> Tree:
    built = Tree()
    for zone, node in (("88", "top"), ("88.118", "second"), (ZONE, "ent")):
        built.zone(zone, node=node)
    built.register(f"{ZONE}/SN-1", {"name": "vial", "lot": "L1"})
    return built


def bundle(built: Tree, name: str) -> Bundle:
    found = Client(built).walk(name).resolution.bundle
    assert found is not None
    return found


def learned(chain: TrustedChain) -> TrustStore:
    store = TrustStore(chain_seconds=300)
    store.learn(Learned(chain, 0))
    return store


class Watched(NoFloors):
    """Floors that can be set, and that count how often they are asked."""

    def __init__(self) -> None:
        self.zones: dict[Prefix, tuple[int, bytes]] = {}

    def zone(self, zone: Prefix) -> tuple[int, bytes] | None:
        return self.zones.get(zone)


def reason_of(chains: SharedChains, body: bytes, now: int = NOW) -> Reason:
    with pytest.raises(IdtraceError) as caught:
        chains.read(body, now=now)
    return caught.value.reason


def test_answers_of_all_three_kinds_come_back_as_they_were_written() -> None:
    built = tree()
    built.zone("88.118.9", node="gone")
    built.revoke("88.118.9")
    kinds = []
    for name in (f"{ZONE}/SN-1", f"{ZONE}/none", "88.118.9/x"):
        written = bundle(built, name)
        links, rest = answer_parts(answer_body(written))
        said = wire.outcome_from_authenticated(rest)
        chain, _ = SharedChains(NoFloors()).read(links, now=built.now)
        assert Bundle(Identifier.parse(said.about), chain.signed, said.outcome, said.proof, said.currency) == written
        kinds.append(type(said.outcome))
    assert kinds == [Record, Denied, Revoked]


def test_chain_of_an_answer_is_the_body_of_its_zone_so_both_are_found_by_the_same_bytes() -> None:
    written = bundle(tree(), f"{ZONE}/SN-1")
    assert answer_parts(answer_body(written))[0] == chain_body(written.delegations)


def test_chain_teaches_until_all_of_it_is_remembered_and_is_then_the_very_same() -> None:
    body = chain_body(bundle(tree(), f"{ZONE}/SN-1").delegations)
    store = TrustStore(chain_seconds=300)
    chains = SharedChains(store)
    first, teaches = chains.read(body, now=NOW)
    assert teaches
    assert chains.read(body, now=NOW)[1]  # nobody has remembered it
    store.learn(Learned(first, 0), floors_only=True)
    again, teaches = chains.read(body, now=NOW)
    assert not teaches
    assert again is chains.read(body, now=NOW)[0]
    assert again.signed == first.signed


@pytest.mark.parametrize("position", range(4))
def test_chain_that_is_known_falls_with_a_newer_version_of_any_of_its_links(position: int) -> None:
    floors = Watched()
    chains = SharedChains(floors)
    body = chain_body(bundle(tree(), f"{ZONE}/SN-1").delegations)
    chain, _ = chains.read(body, now=NOW)
    for zone, version_and_hash in shared_bodies.TakenOver.of(chain).floors:
        floors.zones[zone] = version_and_hash
    assert not chains.read(body, now=NOW)[1]
    delegation = chain.links[position].delegation
    floors.zones[delegation.child] = (delegation.version + 1, b"newer")
    assert reason_of(chains, body) is Reason.DELEGATION_ROLLED_BACK
    floors.zones[delegation.child] = (delegation.version, b"another of the same version")
    assert reason_of(chains, body) is Reason.DELEGATION_FORKED
    del floors.zones[delegation.child]
    assert chains.read(body, now=NOW)[1]  # forgotten: there is something to remember again


def test_chain_that_is_known_ends_with_the_first_of_its_links_and_begins_with_the_last() -> None:
    chain, _ = SharedChains(NoFloors()).read(body := chain_body(bundle(tree(), f"{ZONE}/SN-1").delegations), now=NOW)
    chains = SharedChains(learned(chain))
    chains.read(body, now=NOW)
    begins = max(link.delegation.not_before for link in chain.links)
    assert chains.read(body, now=begins)[0].zone == chains.read(body, now=chain.expires - 1)[0].zone == chain.zone
    assert reason_of(chains, body, chain.expires) is Reason.DELEGATION_EXPIRED
    assert reason_of(chains, body, begins - 1) is Reason.DELEGATION_NOT_YET_VALID


def test_revoked_zone_can_be_taken_over_and_stays_revoked() -> None:
    built = tree()
    built.revoke(ZONE)
    body = chain_body(bundle(built, f"{ZONE}/SN-1").delegations)
    floors: Floors = NoFloors()
    assert SharedChains(floors).read(body, now=built.now)[0].delegation.state is State.REVOKED


@pytest.mark.parametrize("body", [b"", b"x", framed([b"x"]), framed([b""]), framed([b"x"] * 10)])
def test_what_is_no_chain_is_refused(body: bytes) -> None:
    assert reason_of(SharedChains(NoFloors()), body) in {
        Reason.BUNDLE_MALFORMED,
        Reason.FIELD_MALFORMED,
        Reason.FIELD_MISSING,
    }


@pytest.mark.parametrize("body", [b"", b"x", framed([b"x"]), framed([b"x", b"y", b"z"])])
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(InputError, match="not a chain and an outcome"):
        answer_parts(body)


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x12\x01a"])
def test_what_is_no_outcome_is_refused(data: bytes) -> None:
    with pytest.raises(InputError) as caught:
        wire.outcome_from_authenticated(data)
    assert caught.value.reason is Reason.BUNDLE_MALFORMED


def test_no_more_chains_are_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_bodies, "CHAINS_KEPT", 2)
    built = tree()
    for zone, node in (("88.118.6", "six"), ("88.118.7", "seven")):
        built.zone(zone, node=node)
    chains = SharedChains(NoFloors())
    for zone in (ZONE, "88.118.6", "88.118.7"):
        chains.read(chain_body(bundle(built, f"{zone}/x").delegations), now=built.now)
    assert (len(chains._chains), len(chains._links)) == (2, 2)

"""Chains and watches for tests of what a resolver follows."""

from __future__ import annotations

from idtrace.chain import Context, TrustedChain
from idtrace.signature import CheckBudget
from resolver.effects import Learned
from resolver.following import Following, Watch
from resolver.trust import TrustStore
from tests.simulator import Tree


def tree() -> Tree:
    """Root, 88, 88.118 on two nodes, 88.118.8, and 88.118.9 that is hosted by 88.118."""
    built = Tree()
    built.zone("88", node="top")
    built.zone("88.118", node=("second-a", "second-b"))
    built.zone("88.118.8", node="ent")
    built.zone("88.118.9", hosted=True)
    for number in range(1, 6):
        built.register(f"88.118.8/SN-{number}", {"name": "vial"})
        built.register(f"88.118.9/SN-{number}", {"name": "vial"})
    return built


def chain_to(built: Tree, zone: str) -> TrustedChain:
    """The verified chain down to a zone."""
    context = Context(built.now, CheckBudget(16), TrustStore(chain_seconds=1))
    first, *others = built.chain(zone)
    chain = TrustedChain.begin(built.anchor, first, context)
    for signed in others:
        chain = chain.extend(signed, context)
    return chain


def learned(built: Tree, zone: str, *links_ms: int) -> Learned:
    """That chain, each link asked for at its time."""
    return Learned(chain_to(built, zone), min(links_ms), links_ms)


def begin(following: Following, watch: Watch, now_ms: int, *, sequence: int = 1, within_ms: int = 2_000) -> None:
    """The first message of a stream of the watch's first endpoint, anew or resumed."""
    following.begun(watch, watch.endpoints[0], now_ms=now_ms)
    following.heard(watch, sequence, next_within_ms=within_ms, now_ms=now_ms)

"""What a node takes over of its own zone's chain: newer than what it holds, unless what it holds was a thief's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from idtrace.canonical import INTEGER_MAX
from idtrace.chain import Anchor, Link
from idtrace.delegation import Delegation, Role, ZoneKey
from idtrace.errors import IdtraceError, Reason
from idtrace.identifier import Prefix
from idtrace.signature import Signed
from registry.adoption import news
from registry.authority import Authority
from tests.core_fixtures import NOW, PINNED, ZONE, delegate, delegation, links, public, zone_keys

HERE = Prefix.parse(ZONE)


def holding(chain: tuple[Signed, ...], root: str = PINNED) -> Authority:
    authority = Authority(Anchor.of(public(root)), frozenset({HERE}))
    authority.adopt(HERE, tuple(Link.read(signed) for signed in chain))
    return authority


def later(zone: str, **changes: Any) -> Delegation:
    """Version 2 of a delegation."""
    return delegation(zone, version=2, previous=delegation(zone).hash, **changes)


def new_zone_key(zone: str) -> tuple[ZoneKey, ...]:
    others = tuple(key for key in zone_keys(zone) if Role.ZONE not in key.roles)
    return (*others, ZoneKey(public("new zone key"), frozenset({Role.ZONE})))


def leapt(version: int = INTEGER_MAX) -> Signed:
    """What a thief of 88.118's zone key signs for its child."""
    return delegate(delegation(ZONE, version=version, previous=bytes(32)))


def refusal(authority: Authority, chain: tuple[Signed, ...]) -> Reason:
    with pytest.raises(IdtraceError) as caught:
        news(authority, HERE, chain, NOW)
    return caught.value.reason


def test_a_lower_version_by_the_same_keys_is_a_rollback() -> None:
    authority = holding((*links("88.118"), leapt()))
    assert refusal(authority, links()) is Reason.DELEGATION_ROLLED_BACK
    # nor does a new version of the parent that keeps the stolen key make it good
    kept = (*links("88"), delegate(later("88.118")), delegate(delegation(ZONE)))
    assert refusal(authority, kept) is Reason.DELEGATION_ROLLED_BACK


def test_a_nodes_own_zone_comes_back_once_the_stolen_zone_key_is_gone() -> None:
    authority = holding((*links("88.118"), leapt()))
    mended = (
        *links("88"),
        delegate(later("88.118", keys=new_zone_key("88.118"))),
        delegate(delegation(ZONE), "new zone key"),
    )
    chain = news(authority, HERE, mended, NOW)
    assert chain is not None
    assert (chain.zone, chain.delegation.version) == (HERE, 1)


def test_an_older_version_of_the_parent_voids_nothing() -> None:
    first = delegation("88.118", keys=new_zone_key("88.118"))
    authority = holding(
        (
            *links("88"),
            delegate(replace(later("88.118"), previous=first.hash)),
            leapt(3),
        )
    )
    replayed = (*links("88"), delegate(first), delegate(delegation(ZONE), "new zone key"))
    assert refusal(authority, replayed) is Reason.DELEGATION_ROLLED_BACK


def test_a_root_key_set_that_a_dropped_root_key_signed_is_no_floor() -> None:
    stolen = delegate(delegation("", version=INTEGER_MAX, previous=bytes(32)))
    chain = (stolen, *links()[1:])
    honest = (delegate(later(""), "new root"), *links()[1:])
    assert refusal(holding(chain), (delegate(later("")), *links()[1:])) is Reason.DELEGATION_ROLLED_BACK
    found = news(holding(chain, "new root"), HERE, honest, NOW)
    assert found is not None
    assert found.links[0].delegation.version == 2

"""Lies about the chain: roots, links, time, versions, revocations. A chain holds what was verified and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from idtrace.bundle import Bundle, Revoked
from idtrace.chain import CHECKS_MAX, LINKS_MAX, Anchor, Context, Link, NoFloors, TrustedChain
from idtrace.delegation import Role, ZoneKey
from idtrace.errors import Reason, VerificationError
from idtrace.identifier import ROOT, Identifier, Prefix
from idtrace.record import Record
from idtrace.signature import Signed
from idtrace.verification import verify_bundle
from tests.core_fixtures import (
    ITEM,
    NOW,
    PINNED,
    ZONE,
    Lie,
    anchor,
    bundle,
    delegate,
    delegation,
    denial,
    denied,
    last_changed,
    link,
    links,
    public,
    reason_of,
    receipt,
    record,
    report,
    revocation,
    signer,
    tombstone,
    trusted,
    with_last,
    zone_keys,
)

R = Reason
SIBLING = Identifier.parse("88.118.9/SN-0001")
PARENT = Prefix.parse("88.118")
FAR, FARTHER = Prefix.parse("77"), Prefix.parse("77.1")
REVOKED = with_last(delegate(revocation(ZONE)))


class Seen:
    """A memory of what was verified before."""

    def __init__(self, zones: dict[str, tuple[int, bytes]], records: dict[Identifier, tuple[int, bytes]]) -> None:
        self.zones = zones
        self.records = records

    def zone(self, zone: Prefix) -> tuple[int, bytes] | None:
        return self.zones.get(str(zone))

    def record(self, identifier: Identifier) -> tuple[int, bytes] | None:
        return self.records.get(identifier)


def after_zone(zone: str, version: int, content: bytes, last: Signed | None = None) -> object:
    """Verify the chain and the record, having seen this version of a zone's delegation before."""
    context = Context.at(NOW, floors=Seen({zone: (version, content)}, {}))
    return trusted(with_last(last or link(ZONE)), context).check_record(record(), ITEM, context)


def after_record(version: int, content: bytes) -> object:
    """The same, having seen this version of the record before."""
    context = Context.at(NOW, floors=Seen({}, {ITEM: (version, content)}))
    return trusted(links(), context).check_record(record(), ITEM, context)


def chained(*delegations: Signed, shown: Record | None = None) -> Bundle:
    return bundle(shown, delegations)


def rooted(first: Signed) -> Bundle:
    return chained(first, *links()[1:])


def second_changed(**changes: Any) -> Bundle:
    return chained(link(""), link("88"), delegate(delegation("88.118", **changes)), link(ZONE))


def redirected(child: Prefix, parent: Prefix, **changes: Any) -> Bundle:
    """88.118 signs a delegation that it has no right to."""
    return last_changed("zone of 88.118", child=child, parent=parent, **changes)


def rewritten(shown: Record | None = None, **changes: Any) -> Bundle:
    """The delegation says something else under the old signature."""
    return bundle(shown, with_last(replace(link(ZONE), payload=delegation(ZONE, **changes).payload())))


def revoked(zone: str, delegations: Iterable[Signed] = REVOKED, identifier: Identifier = ITEM) -> Bundle:
    return bundle(Revoked(Prefix.parse(zone)), tuple(delegations), identifier)


THIEVES = zone_keys("thief")

LIES = [
    Lie("no delegation", R.CHAIN_EMPTY, chained),
    Lie("another root", R.ROOT_MISMATCH, lambda: rooted(delegate(delegation(""), "other root"))),
    Lie("nothing is pinned", R.ROOT_MISMATCH, lambda: verify_bundle(bundle(), Anchor.of(), now=NOW)),
    Lie("root signed by its own zone key", R.ROOT_MISMATCH, lambda: rooted(delegate(delegation(""), "zone of "))),
    Lie(
        "zone in place of the root", R.ROOT_MISMATCH, lambda: chained(delegate(delegation("88"), PINNED), *links()[2:])
    ),
    Lie("revoked root", R.ROOT_MISMATCH, lambda: rooted(delegate(revocation("")))),
    Lie("root with a forged signature", R.SIGNATURE_INVALID, lambda: rooted(replace(link(""), payload=b"{}"))),
    Lie("chain without its root", R.ROOT_MISMATCH, lambda: chained(*links()[1:])),
    Lie("chain that skips a link", R.SIGNER_UNKNOWN, lambda: chained(*links("88"), link(ZONE))),
    Lie("links swapped", R.SIGNER_UNKNOWN, lambda: chained(link(""), link("88.118"), link("88"), link(ZONE))),
    Lie("links upside down", R.ROOT_MISMATCH, lambda: chained(*links()[::-1])),
    Lie("link twice", R.SIGNER_UNKNOWN, lambda: chained(*links(), link(ZONE))),
    Lie("chain of the sibling", R.SIGNER_UNKNOWN, lambda: chained(*links("88.118.9"))),
    Lie("chain that stops early", R.SIGNER_UNKNOWN, lambda: chained(*links("88.118"))),
    Lie("delegation to another tree", R.REFERRAL_SIDEWAYS, lambda: redirected(FARTHER, FAR)),
    Lie("delegation in the grandparent's name", R.REFERRAL_SIDEWAYS, lambda: redirected(Prefix.parse(ZONE), FAR)),
    Lie(
        "delegation of the parent's sibling",
        R.REFERRAL_SIDEWAYS,
        lambda: redirected(Prefix.parse("88.9"), Prefix.parse("88")),
    ),
    Lie("child beside its parent", R.REFERRAL_SIDEWAYS, lambda: redirected(Prefix.parse("88.119.8"), PARENT)),
    Lie("delegation of the zone itself", R.REFERRAL_UPWARD, lambda: redirected(PARENT, Prefix.parse("88"))),
    Lie("zone as its own child", R.REFERRAL_UPWARD, lambda: redirected(PARENT, PARENT)),
    Lie("delegation up to the root", R.REFERRAL_UPWARD, lambda: redirected(ROOT, ROOT)),
    Lie("child above its parent", R.REFERRAL_UPWARD, lambda: redirected(Prefix.parse("88"), PARENT)),
    Lie("sideways before expired", R.REFERRAL_SIDEWAYS, lambda: redirected(FARTHER, FAR, expires=NOW)),
    Lie("expired delegation", R.DELEGATION_EXPIRED, lambda: last_changed(expires=NOW)),
    Lie("expired link above a live one", R.DELEGATION_EXPIRED, lambda: second_changed(expires=NOW)),
    Lie("not yet valid", R.DELEGATION_NOT_YET_VALID, lambda: last_changed(not_before=NOW + 1)),
    Lie("not yet valid above", R.DELEGATION_NOT_YET_VALID, lambda: second_changed(not_before=NOW + 1)),
    Lie("older delegation than one seen", R.DELEGATION_ROLLED_BACK, lambda: after_zone(ZONE, 2, bytes(32))),
    Lie("older root than one seen", R.DELEGATION_ROLLED_BACK, lambda: after_zone("", 2, bytes(32))),
    Lie("back from revocation", R.DELEGATION_ROLLED_BACK, lambda: after_zone(ZONE, 2, revocation(ZONE).hash)),
    Lie(
        "other keys under a version seen",
        R.DELEGATION_FORKED,
        lambda: after_zone(ZONE, 1, delegation(ZONE).hash, delegate(delegation(ZONE, keys=THIEVES))),
    ),
    Lie("older record than one seen", R.RECORD_ROLLED_BACK, lambda: after_record(2, bytes(32))),
    Lie("record back from its tombstone", R.RECORD_ROLLED_BACK, lambda: after_record(2, tombstone().hash)),
    Lie("other content under a version seen", R.RECORD_FORKED, lambda: after_record(1, bytes(32))),
    Lie("keys swapped", R.SIGNATURE_INVALID, lambda: rewritten(record(by="record of thief"), keys=THIEVES)),
    Lie("endpoint swapped", R.SIGNATURE_INVALID, lambda: rewritten(endpoints=("thief.example:1",))),
    Lie("life extended", R.SIGNATURE_INVALID, lambda: rewritten(expires=NOW + 2 * 86_400)),
    Lie("record under a revoked zone", R.DELEGATION_REVOKED, lambda: chained(*REVOKED)),
    Lie("denial under a revoked zone", R.DELEGATION_REVOKED, lambda: denied(denial(), REVOKED)),
    Lie(
        "denial under an expired zone",
        R.DELEGATION_EXPIRED,
        lambda: replace(last_changed(expires=NOW), outcome=denied(denial()).outcome),
    ),
    Lie(
        "receipt under a revoked zone",
        R.DELEGATION_REVOKED,
        lambda: trusted(REVOKED).check_receipt(receipt(record()), record(), Context.at(NOW)),
    ),
    Lie(
        "link after a revocation",
        R.DELEGATION_REVOKED,
        lambda: revoked("88.118", (*links("88"), delegate(revocation("88.118")), link(ZONE))),
    ),
    Lie("revocation that is not there", R.ANSWER_CONTRADICTS_ITSELF, lambda: revoked(ZONE, links())),
    Lie("revocation of another zone", R.ANSWER_CONTRADICTS_ITSELF, lambda: revoked("88.118")),
    Lie("revocation beside the identifier", R.ANSWER_CONTRADICTS_ITSELF, lambda: revoked(ZONE, identifier=SIBLING)),
    Lie("revocation of the root", R.ANSWER_CONTRADICTS_ITSELF, lambda: revoked("", links(""))),
    Lie(
        "revocation by the child itself",
        R.SIGNER_UNKNOWN,
        lambda: revoked(ZONE, with_last(delegate(revocation(ZONE), f"zone of {ZONE}"))),
    ),
    Lie(
        "expired revocation",
        R.DELEGATION_EXPIRED,
        lambda: revoked(ZONE, with_last(delegate(revocation(ZONE, expires=NOW)))),
    ),
]


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_lie_is_refused_for_its_own_reason(lie: Lie) -> None:
    assert reason_of(lie.told) is lie.reason


def test_each_lie_is_told_once() -> None:
    assert len({lie.name for lie in LIES}) == len(LIES)


def test_the_same_version_and_newer_ones_are_accepted_again() -> None:
    assert after_zone(ZONE, 1, delegation(ZONE).hash)
    assert after_record(1, record().hash)
    second = delegate(delegation(ZONE, version=2, previous=delegation(ZONE).hash))
    assert after_zone(ZONE, 1, delegation(ZONE).hash, second)


def test_limits_of_time_are_exact() -> None:
    assert report(last_changed(expires=NOW + 1)).valid
    assert report(last_changed(not_before=NOW)).valid


def test_a_chain_that_was_good_is_checked_again_at_each_use() -> None:
    chain = trusted()
    later = Context.at(NOW + 86_400)
    assert reason_of(lambda: chain.check_record(record(), ITEM, later)) is R.DELEGATION_EXPIRED
    assert reason_of(lambda: chain.in_force(NOW - 101)) is R.DELEGATION_NOT_YET_VALID
    chain.in_force(NOW)


def test_a_child_never_outlives_its_parents() -> None:
    short = delegate(delegation("88", expires=NOW + 60))
    chain = trusted((link(""), short, *links()[2:]))
    assert chain.expires == NOW + 60
    assert chain.delegation.expires == NOW + 86_400


def test_extending_leaves_the_shorter_chain_as_it_was() -> None:
    shorter = trusted(links("88.118"))
    longer = shorter.extend(link(ZONE), Context.at(NOW))
    assert (shorter.zone, longer.zone) == (PARENT, Prefix.parse(ZONE))
    assert longer.signed == links()
    assert not shorter.is_revoked


def test_a_stored_link_is_read_as_it_was_verified() -> None:
    assert Link.read(link(ZONE)) == trusted().links[-1]
    assert reason_of(lambda: Link.read(record().signed)) is R.FIELD_MISSING


def test_a_chain_is_never_empty() -> None:
    with pytest.raises(AssertionError):
        TrustedChain(())


def test_a_malformed_body_names_its_link() -> None:
    rules_broken = delegate(delegation(ZONE, expires=NOW - 100))
    with pytest.raises(VerificationError) as caught:
        trusted(with_last(rules_broken))
    assert caught.value.reason is R.FIELD_MALFORMED
    assert caught.value.field == "delegation[3].expires"


def test_a_memory_that_is_empty_at_first_is_still_asked_later() -> None:
    class Growing(Seen):
        def __len__(self) -> int:
            return len(self.records)

    seen = Growing({}, {})
    context = Context.at(NOW, floors=seen)
    chain = trusted(links(), context)
    seen.records[ITEM] = (2, bytes(32))
    assert reason_of(lambda: chain.check_record(record(), ITEM, context)) is R.RECORD_ROLLED_BACK


def test_a_verifier_without_a_memory_has_seen_nothing() -> None:
    assert NoFloors().zone(ROOT) is None
    assert NoFloors().record(ITEM) is None


def deep(signatures: int) -> tuple[Signed, ...]:
    """Nine links, the most that fit, with so many signatures each."""
    zones = [str(prefix) for prefix in Prefix.parse("1.2.3.4.5.6.7.8").lineage()]
    made = []
    for zone in zones:
        owners = tuple(ZoneKey(public(f"{n} for {zone}"), frozenset({Role.ZONE})) for n in range(signatures))
        parent = zone.rpartition(".")[0]
        names = [PINNED] if not zone else [f"{n} for {parent}" for n in range(signatures)]
        made.append(delegate(delegation(zone, keys=(*owners, *zone_keys(zone)[1:])), *names))
    return tuple(made)


def test_the_deepest_chain_verifies_and_no_chain_is_deeper() -> None:
    item = Identifier.parse("1.2.3.4.5.6.7.8/X")
    context = Context.at(NOW)
    chain = trusted(deep(1), context)
    assert len(chain.links) == LINKS_MAX
    assert chain.check_record(record(item), item, context).withheld == ()
    assert context.budget.left == CHECKS_MAX - LINKS_MAX - 1
    again = delegate(delegation("1.2.3.4.5.6.7.8"), "0 for 1.2.3.4.5.6.7.8")
    assert reason_of(lambda: chain.extend(again, context)) is R.REFERRAL_UPWARD


def test_signature_checks_are_bounded_by_their_number() -> None:
    context = Context.at(NOW)
    assert reason_of(lambda: trusted(deep(3), context)) is R.TOO_MUCH_CRYPTO
    assert context.budget.left == 0
    assert reason_of(lambda: trusted(links(), Context.at(NOW, checks=3))) is R.TOO_MUCH_CRYPTO
    assert trusted(links(), Context.at(NOW, checks=4)).zone == Prefix.parse(ZONE)


def test_the_root_key_set_may_need_several_pinned_keys() -> None:
    pinned = Anchor.of(public(PINNED), public("second root"), threshold=2)
    both = delegate(delegation(""), PINNED, "second root")
    assert TrustedChain.begin(pinned, both, Context.at(NOW)).zone == ROOT
    assert reason_of(lambda: TrustedChain.begin(pinned, link(""), Context.at(NOW))) is R.THRESHOLD_NOT_MET
    assert anchor().threshold == 1
    assert anchor().keys == {signer(PINNED).public_key.key_id: public(PINNED)}

"""What a node answers for: which zone decides, whose chain it shows, and what an asker still lacks."""

from __future__ import annotations

import pytest

from idtrace.chain import Context, Link
from idtrace.errors import IdtraceError, Reason
from idtrace.identifier import ROOT, Prefix
from idtrace.statements import PrefixStatus
from registry.authority import Authority, verified
from tests.core_fixtures import NOW, anchor, delegate, delegation, link, links, reason_of, revocation
from tests.registry_fixtures import authority_for, hand_out, hosted

P = Prefix.parse


def node() -> Authority:
    """88.118 with a hosted zone, one below that, a delegated one and a revoked one."""
    authority = authority_for("88.118")
    hand_out(authority, hosted("88.118.9"))
    hand_out(authority, hosted("88.118.9.1"))
    hand_out(authority, delegation("88.118.8"))
    hand_out(authority, revocation("88.118.7"))
    return authority


@pytest.mark.parametrize(
    ("prefix", "zone", "serves"),
    [
        ("88.118", "88.118", True),
        ("88.118.5", "88.118", True),
        ("88.118.5.1", "88.118", True),
        ("88.118.9", "88.118.9", True),
        ("88.118.9.2", "88.118.9", True),
        ("88.118.9.1", "88.118.9.1", True),
        ("88.118.9.1.1", "88.118.9.1", True),
        ("88.118.8", "88.118.8", False),
        ("88.118.8.1", "88.118.8", False),
        ("88.118.7", "88.118.7", False),
        ("88.118.7.1", "88.118.7", False),
    ],
)
def test_the_deepest_zone_on_the_way_decides(prefix: str, zone: str, serves: bool) -> None:
    authority = node()
    assert authority.zone_of(P(prefix)) == P(zone)
    assert authority.serves(P(zone)) is serves


@pytest.mark.parametrize("prefix", ["", "88", "99", "99.118.9", "88.1180", "88.11"])
def test_what_lies_outside_every_zone_is_nobodys_here(prefix: str) -> None:
    authority = node()
    assert authority.zone_of(P(prefix)) is None
    assert not authority.serves(P(prefix))
    assert reason_of(lambda: authority.chain_of(P(prefix))) is Reason.NOT_AUTHORITATIVE


def test_the_roots_node_has_to_do_with_everything() -> None:
    authority = authority_for("")
    assert authority.zone_of(P("99.1")) == ROOT
    assert authority.serves(ROOT)


def test_a_revoked_hosted_zone_takes_all_that_hangs_below_it_along() -> None:
    authority = node()
    hand_out(authority, revocation("88.118.9"))
    for prefix in ("88.118.9", "88.118.9.1", "88.118.9.2"):
        zone = authority.zone_of(P(prefix))
        assert zone == P("88.118.9")
        assert not authority.serves(zone)


def test_a_disabled_prefix_takes_all_that_hangs_below_it_along() -> None:
    authority = node()
    hand_out(authority, hosted("88.118.9"), PrefixStatus.DISABLED)
    assert authority.zone_of(P("88.118.9.1")) == P("88.118.9")


def test_a_chain_runs_from_the_root_through_hosted_zones() -> None:
    authority = node()
    expected = (*links("88.118"), delegate(hosted("88.118.9")), delegate(hosted("88.118.9.1")))
    assert tuple(x.signed for x in authority.chain_of(P("88.118.9.1"))) == expected
    assert authority.trusted(P("88.118.9.1"), Context.at(NOW)).signed == expected


def test_no_chain_is_shown_before_the_own_one_is_there() -> None:
    authority = authority_for()
    hand_out(authority, hosted("88.118.9"))
    assert reason_of(lambda: authority.chain_of(P("88.118.9"))) is Reason.NOT_AUTHORITATIVE
    assert reason_of(lambda: authority.trusted(P("88.118"), Context.at(NOW))) is Reason.NOT_AUTHORITATIVE


def test_a_chain_is_verified_once_and_held_against_the_clock_every_time() -> None:
    authority = node()
    first = authority.trusted(P("88.118.9"), Context.at(NOW))
    assert authority.trusted(P("88.118.9"), Context.at(NOW, checks=0)) is first
    for now, reason in ((first.expires, Reason.DELEGATION_EXPIRED), (NOW - 101, Reason.DELEGATION_NOT_YET_VALID)):
        assert reason_of(lambda now=now: authority.trusted(P("88.118.9"), Context.at(now))) is reason  # type: ignore[misc]  # the loop's own now


def test_a_new_delegation_anywhere_above_makes_the_chain_be_verified_again() -> None:
    authority = node()
    zone = P("88.118.9.1")
    before = authority.trusted(zone, Context.at(NOW))
    authority.adopt(P("88.118"), tuple(Link.read(signed) for signed in links("88.118")))
    assert authority.trusted(zone, Context.at(NOW)) is not before
    hand_out(authority, hosted("88.118.9", endpoints=("moved.example:1",)))
    assert authority.trusted(zone, Context.at(NOW)).links[3].delegation.endpoints == ("moved.example:1",)
    hand_out(authority, revocation("88.118.9"))
    for ended in (zone, P("88.118.9")):
        assert reason_of(lambda ended=ended: authority.trusted(ended, Context.at(NOW))) is Reason.DELEGATION_REVOKED  # type: ignore[misc]  # the loop's own zone


@pytest.mark.parametrize(
    ("known", "count"),
    [
        (None, 5),
        ("", 4),
        ("88", 3),
        ("88.118", 2),
        ("88.118.9", 1),
        ("88.118.9.1", 0),
        ("88.118.8", 5),
        ("99", 5),
        ("88.118.9.1.1", 5),
    ],
)
def test_an_asker_gets_the_links_below_what_it_has_verified_and_all_where_it_is_elsewhere(
    known: str | None, count: int
) -> None:
    authority = node()
    all_links = tuple(x.signed for x in authority.chain_of(P("88.118.9.1")))
    below = authority.below(P("88.118.9.1"), None if known is None else P(known))
    assert below == all_links[len(all_links) - count :]


@pytest.mark.parametrize("zone", ["88.118.8", "88.118.7"])
def test_an_asker_who_was_sent_on_or_whose_zone_was_taken_back_gets_the_whole_chain_again(zone: str) -> None:
    authority = node()
    all_links = tuple(x.signed for x in authority.chain_of(P(zone)))
    assert authority.below(P(zone), P(zone)) == all_links
    assert authority.below(P(zone), P("88.118")) == all_links[-1:]


def test_links_that_lead_nowhere_or_elsewhere_are_no_chain() -> None:
    context = Context.at(NOW)
    with pytest.raises(IdtraceError) as caught:
        verified(anchor(), (), context)
    assert (caught.value.reason, caught.value.field) == (Reason.NOT_AUTHORITATIVE, "zone")
    assert reason_of(lambda: verified(anchor(), links()[1:], context)) is Reason.ROOT_MISMATCH
    assert reason_of(lambda: verified(anchor(), (link(""), link("88.118")), context)) is Reason.SIGNER_UNKNOWN
    assert verified(anchor(), links(), context).zone == P("88.118.8")


def test_a_child_shows_the_delegation_in_force() -> None:
    authority = node()
    assert authority.children[P("88.118.8")].delegation == delegation("88.118.8")

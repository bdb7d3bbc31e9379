"""Reports: every step that was made, in order, the first broken one last, and nothing verified after it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from idtrace.bundle import Bundle, Denied, Revoked, Verdict
from idtrace.checks import Check
from idtrace.errors import Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Status
from idtrace.signature import Signed
from idtrace.verification import Report
from tests.core_fixtures import (
    ITEM,
    NOW,
    ZONE,
    bundle,
    delegate,
    delegation,
    denial,
    denied,
    link,
    links,
    record,
    report,
    revocation,
    tombstone,
    with_last,
)

ROOT_STEP, LINK_STEP = "root key set", "delegation"
FOUR_LINKS = [ROOT_STEP, LINK_STEP, LINK_STEP, LINK_STEP]


def names(of: Report) -> list[str]:
    return [check.name for check in of.checks]


def test_a_found_record_shows_every_step_and_what_was_withheld() -> None:
    shown = record(data=["a", "b", "c"])
    kept = replace(shown, values=shown.values[1:2])
    found = report(bundle(kept))
    assert (found.verdict, found.valid, found.record, found.withheld) == (Verdict.FOUND, True, kept, (1, 3))
    assert names(found) == [*FOUR_LINKS, "record"]
    assert all(check.passed and check.reason is None for check in found.checks)
    assert [check.detail for check in found.checks] == [
        "the root, version 1, signed by the pinned root key",
        "88, version 1, signed by its parent",
        "88.118, version 1, signed by its parent",
        "88.118.8, version 1, signed by its parent",
        "version 1, active, signed by zone 88.118.8",
    ]


@pytest.mark.parametrize("status", [Status.ACTIVE, Status.SUSPENDED, Status.RECALLED])
def test_a_status_is_found_and_shown_and_no_failure(status: Status) -> None:
    found = report(bundle(record(status=status)))
    assert found.verdict is Verdict.FOUND
    assert status in found.checks[-1].detail


def test_a_tombstone_is_gone() -> None:
    gone = report(bundle(tombstone()))
    assert (gone.verdict, names(gone)) == (Verdict.GONE, [*FOUR_LINKS, "record"])
    assert gone.record == tombstone()


def test_a_denial_is_absent() -> None:
    absent = report(denied(denial()))
    assert (absent.verdict, absent.record, names(absent)) == (Verdict.ABSENT, None, [*FOUR_LINKS, "denial"])
    assert absent.checks[-1].detail == "IDENTIFIER_ABSENT, signed by zone 88.118.8"


def test_the_root_can_deny_too() -> None:
    item = Identifier.parse("99/X")
    absent = report(Bundle(item, links(""), Denied(denial(item, zone="", by="node of "))))
    assert absent.verdict is Verdict.ABSENT
    assert absent.checks[-1].detail == "IDENTIFIER_ABSENT, signed by zone the root"


@pytest.mark.parametrize("zone", ["88", "88.118", ZONE])
def test_a_revoked_zone_anywhere_above_is_gone(zone: str) -> None:
    chain = (*links(zone)[:-1], delegate(revocation(zone)))
    gone = report(Bundle(ITEM, chain, Revoked(Prefix.parse(zone))))
    assert (gone.verdict, gone.checks[-1].name) == (Verdict.GONE, "revocation")
    assert gone.checks[-1].detail == f"zone {zone} is revoked"


BROKEN: list[tuple[Bundle, list[str], Reason]] = [
    (bundle(delegations=()), [ROOT_STEP], Reason.CHAIN_EMPTY),
    (bundle(delegations=(delegate(delegation(""), "thief"), *links()[1:])), [ROOT_STEP], Reason.ROOT_MISMATCH),
    (bundle(delegations=(link(""), link("88.118"))), [ROOT_STEP, LINK_STEP], Reason.SIGNER_UNKNOWN),
    (
        bundle(delegations=with_last(delegate(delegation(ZONE, expires=NOW)))),
        FOUR_LINKS,
        Reason.DELEGATION_EXPIRED,
    ),
    (bundle(record(by="thief")), [*FOUR_LINKS, "record"], Reason.SIGNER_UNKNOWN),
    (denied(denial(by="thief")), [*FOUR_LINKS, "denial"], Reason.SIGNER_UNKNOWN),
    (bundle(Revoked(Prefix.parse(ZONE))), [*FOUR_LINKS, "revocation"], Reason.ANSWER_CONTRADICTS_ITSELF),
]


@pytest.mark.parametrize(("broken", "steps", "reason"), BROKEN)
def test_the_first_broken_step_ends_the_report_and_is_named(broken: Bundle, steps: list[str], reason: Reason) -> None:
    bogus = report(broken)
    assert (bogus.verdict, bogus.valid, bogus.record, bogus.withheld) == (Verdict.BOGUS, False, None, ())
    assert names(bogus) == steps
    assert [check.passed for check in bogus.checks] == [True] * (len(steps) - 1) + [False]
    assert bogus.checks[-1].reason is reason
    assert bogus.checks[-1].detail


def test_a_verdict_holds_for_the_time_that_was_asked() -> None:
    whole = bundle()
    assert report(whole, NOW).valid
    assert report(whole, NOW + 86_400).checks[-1].reason is Reason.DELEGATION_EXPIRED
    assert report(whole, NOW - 101).checks[-1].reason is Reason.DELEGATION_NOT_YET_VALID


def test_verifying_twice_gives_the_same_report() -> None:
    assert report(bundle()) == report(bundle())


def test_a_chain_longer_than_a_tree_is_deep_ends_at_its_first_surplus_link() -> None:
    bogus = report(bundle(delegations=links() + (link(ZONE),) * 1_000))
    assert names(bogus) == [*FOUR_LINKS, LINK_STEP]


@pytest.mark.parametrize("junk", [b"", b"{}", b"\xff", b"null", b"[" * 1_000])
def test_junk_in_place_of_any_part_is_bogus_and_never_an_exception(junk: bytes) -> None:
    torn = Signed("", junk, ())
    for broken in (bundle(delegations=(torn,)), bundle(delegations=with_last(torn)), denied(torn)):
        assert report(broken).verdict is Verdict.BOGUS
        assert isinstance(report(broken).checks[-1], Check)

"""Whatever was asked for before an announcement is in doubt after it, whatever comes in which order and how much."""

from __future__ import annotations

import pytest

from idtrace.chain import CLOCK_SKEW_SECONDS
from idtrace.identifier import Identifier, Prefix
from resolver.announced import Announced, Change, kept_ms
from resolver.effects import Learned, Limits
from tests.following_fixtures import chain_to, tree

ITEM = Identifier.parse("88.118.8/SN-1")
OTHER = Identifier.parse("88.118.8/SN-2")
ENTERPRISE, SECOND, TOP = (Prefix.parse(text) for text in ("88.118.8", "88.118", "88"))
KEEP_MS = 600_000
CHAIN = chain_to(tree(), "88.118.8")


def learned(*links_ms: int) -> Learned:
    """The chain root, 88, 88.118, 88.118.8, each link asked for at its time."""
    return Learned(CHAIN, min(links_ms), links_ms)


def told(*changes: tuple[Identifier | Prefix, int, int], most: int = 100) -> Announced:
    announced = Announced(keep_ms=KEEP_MS, most=most)
    for subject, version, at_ms in changes:
        announced.tell(Change(subject, version), by=TOP, now_ms=at_ms)
    return announced


def test_nothing_is_in_doubt_where_nothing_was_said() -> None:
    announced = told()
    assert not announced.since(ITEM, 0)
    assert not announced.doubts(ITEM, learned(0, 0, 0, 0), 0)
    assert not announced.doubts_chain(learned(0, 0, 0, 0))


@pytest.mark.parametrize(("asked_ms", "doubted"), [(99, True), (100, True), (101, False)])
def test_an_answer_from_before_or_from_the_same_moment_is_in_doubt(asked_ms: int, doubted: bool) -> None:
    announced = told((ITEM, 2, 100))
    assert announced.doubts(ITEM, learned(0, 0, 0, 0), asked_ms) is doubted
    assert announced.since(ITEM, asked_ms) is doubted
    assert not announced.doubts(OTHER, learned(0, 0, 0, 0), asked_ms)
    assert not announced.since(OTHER, asked_ms)


@pytest.mark.parametrize(("version", "doubted"), [(0, True), (1, True), (2, False), (3, False)])
def test_a_record_that_shows_the_change_is_not_in_doubt_whenever_it_was_asked_for(version: int, doubted: bool) -> None:
    assert told((ITEM, 2, 100)).doubts(ITEM, learned(0, 0, 0, 0), 50, version=version) is doubted


def test_an_announcement_without_a_version_is_met_by_no_record() -> None:
    assert told((ITEM, 0, 100)).doubts(ITEM, learned(0, 0, 0, 0), 50, version=7)


def test_versions_that_go_back_lower_nothing_and_time_goes_on() -> None:
    announced = told((ITEM, 5, 100), (ITEM, 2, 200))
    assert announced.doubts(ITEM, learned(0, 0, 0, 0), 150, version=4)
    assert not announced.doubts(ITEM, learned(0, 0, 0, 0), 150, version=5)
    assert len(announced) == 1


@pytest.mark.parametrize("zone", ["", "88", "88.118", "88.118.8"])
def test_a_prefix_on_the_way_puts_the_outcome_in_doubt(zone: str) -> None:
    announced = told((Prefix.parse(zone), 2, 100))
    assert announced.doubts(ITEM, learned(200, 200, 200, 200), 100)
    assert announced.since(ITEM, 100)
    assert not announced.doubts(ITEM, learned(200, 200, 200, 200), 101)
    # No version of a record shows that a prefix has changed.
    assert announced.doubts(ITEM, learned(200, 200, 200, 200), 100, version=99)


def test_a_prefix_beside_the_way_or_below_it_puts_nothing_in_doubt() -> None:
    announced = told(
        (Prefix.parse("88.119"), 2, 100), (Prefix.parse("88.118.8.1"), 2, 100), (Prefix.parse("8"), 2, 100)
    )
    assert not announced.doubts(ITEM, learned(0, 0, 0, 0), 0)
    assert not announced.doubts_chain(learned(0, 0, 0, 0))


@pytest.mark.parametrize(
    ("zone", "links_ms", "doubted"),
    [
        ("88.118", (0, 0, 101, 101), False),  # what was heard above it stays
        ("88.118", (0, 0, 100, 101), True),
        ("88.118", (0, 0, 101, 100), True),  # heard through the delegation that has changed
        ("88.118.8", (0, 0, 0, 101), False),
        ("", (0, 101, 101, 101), True),
        ("88.118.8.1", (0, 0, 0, 0), False),
    ],
)
def test_links_at_and_below_a_prefix_are_in_doubt(zone: str, links_ms: tuple[int, ...], doubted: bool) -> None:
    announced = told((Prefix.parse(zone), 2, 100))
    assert announced.doubts_chain(learned(*links_ms)) is doubted
    assert announced.doubts(ITEM, learned(*links_ms), 500) is doubted


def test_announcements_are_forgotten_once_nothing_older_can_come_in() -> None:
    announced = told((ITEM, 2, 100), (OTHER, 2, 200))
    announced.tell(Change(SECOND, 2), by=TOP, now_ms=100 + KEEP_MS - 1)
    assert len(announced) == 3
    announced.tell(Change(SECOND, 2), by=TOP, now_ms=100 + KEEP_MS)
    assert len(announced) == 2
    announced.tell(Change(SECOND, 2), by=TOP, now_ms=100 + 3 * KEEP_MS)
    assert len(announced) == 1
    assert announced.since(ITEM, 99 + 3 * KEEP_MS)


def test_one_that_is_said_again_is_kept_from_then_on() -> None:
    announced = told((ITEM, 2, 100), (OTHER, 2, 150), (ITEM, 3, 200))
    announced.tell(Change(SECOND, 2), by=TOP, now_ms=199 + KEEP_MS)
    assert announced.since(ITEM, 200)
    assert not announced.since(Identifier.parse("88.119/X"), 0)
    assert len(announced) == 2


def test_a_flood_is_never_forgotten_silently_and_costs_only_the_zone_of_whoever_made_it() -> None:
    announced = Announced(keep_ms=KEEP_MS, most=50)
    elsewhere = Identifier.parse("89.1/X")
    announced.tell(Change(elsewhere, 2), by=Prefix.parse("89.1"), now_ms=50)
    for number in range(50):
        assert announced.collapsed == 0
        announced.tell(Change(Identifier.parse(f"88.118.8/F-{number}"), 2), by=ENTERPRISE, now_ms=100 + number)
    assert announced.collapsed == 1
    assert len(announced) == 2  # the zone, and the other's
    for identifier in (ITEM, Identifier.parse("88.118.8/F-0")):
        assert announced.doubts(identifier, learned(0, 0, 0, 0), 149, version=2)
        assert announced.doubts(identifier, learned(200, 200, 200, 149), 149)
    assert not announced.doubts(Identifier.parse("88.118/X"), learned(0, 0, 0, 0), 0)
    assert announced.since(elsewhere, 50)
    assert not announced.since(elsewhere, 51)
    assert not announced.since(Identifier.parse("89.1/Y"), 0)


def test_the_bound_holds_although_every_zone_has_said_one_thing_only() -> None:
    announced = Announced(keep_ms=KEEP_MS, most=3)
    for number in range(4):
        zone = Prefix.parse(f"9{number}")
        announced.tell(Change(zone, 2), by=zone, now_ms=100 + number)
    assert len(announced) == 1
    assert announced.since(ITEM, 103)  # in doubt although it lies beside them, for nothing is forgotten silently
    assert not announced.since(ITEM, 104)


def test_what_two_watches_say_of_one_subject_is_one_announcement() -> None:
    announced = Announced(keep_ms=KEEP_MS, most=50)
    announced.tell(Change(ITEM, 2), by=SECOND, now_ms=100)
    announced.tell(Change(ITEM, 3), by=ENTERPRISE, now_ms=101)
    announced.tell(Change(ITEM, 2), by=SECOND, now_ms=102)
    assert len(announced) == 1
    assert announced.doubts(ITEM, learned(0, 0, 0, 0), 102, version=2)
    assert not announced.doubts(ITEM, learned(0, 0, 0, 0), 102, version=3)


def test_announcements_outlive_whatever_may_rest_on_what_was_before() -> None:
    limits = Limits(answer_seconds=700, chain_seconds=900, question_ms=30_000)
    assert kept_ms(limits) >= (700 + 900 + CLOCK_SKEW_SECONDS) * 1000 + limits.question_ms
    assert kept_ms(Limits(answer_seconds=0, chain_seconds=0)) >= 60_000  # a denial lives longer

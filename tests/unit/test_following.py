"""An answer is followed while every zone that could tell of a change does, and did before it was asked for."""

from __future__ import annotations

import pytest

from idtrace.identifier import Prefix
from resolver.following import BUSY_MS, FOR_EVER_MS, IDLE_MS, NEXT_WITHIN_MS_MAX, NEXT_WITHIN_MS_MIN, Following, Watch
from tests.following_fixtures import begin, learned, tree

SHORT_MS = 5_000


def following(most: int = 16) -> Following:
    return Following(root_endpoints=("root:7000",), short_ms=SHORT_MS, most=most)


def zones(of: Following) -> list[str]:
    return [str(watch.zone) for watch in of.watches]


def live(of: Following, now_ms: int, within_ms: int = 2_000) -> None:
    for watch in of.watches:
        begin(of, watch, now_ms, within_ms=within_ms)


def test_each_zone_with_a_node_of_its_own_is_watched_there() -> None:
    of = following()
    of.basis(learned(tree(), "88.118.8", 9, 9, 9, 9), 9, now_ms=10)
    assert {str(w.zone): w.endpoints for w in of.watches} == {
        "": ("root:7000",),
        "88": ("top:7000",),
        "88.118": ("second-a:7000", "second-b:7000"),
        "88.118.8": ("ent:7000",),
    }


def test_a_hosted_zone_is_told_of_by_the_zone_above() -> None:
    of = following()
    basis = of.basis(learned(tree(), "88.118.9", 1, 2, 3, 4), 5, now_ms=10)
    assert zones(of) == ["", "88", "88.118"]
    # The root's keys and 88 by the root, 88.118 by 88; the hosted zone and what is in it by 88.118.
    assert [(str(watch.zone), asked_ms) for watch, asked_ms in basis.parts] == [("", 1), ("88", 3), ("88.118", 4)]


def test_a_revoked_zone_is_told_of_by_the_zone_above() -> None:
    built = tree()
    built.revoke("88.118.8")
    of = following()
    basis = of.basis(learned(built, "88.118.8", 1, 2, 3, 4), 5, now_ms=10)
    assert [(str(watch.zone), asked_ms) for watch, asked_ms in basis.parts] == [("", 1), ("88", 3), ("88.118", 4)]


def test_each_part_belongs_to_whoever_was_asked_for_it() -> None:
    of = following()
    basis = of.basis(learned(tree(), "88.118.8", 1, 2, 3, 4), 5, now_ms=10)
    assert [asked_ms for _, asked_ms in basis.parts] == [1, 3, 4, 5]
    # A chain alone does not rest on what its last zone tells of itself, but makes it watched.
    basis = of.basis(learned(tree(), "88.118.8", 1, 2, 3, 4), now_ms=10)
    assert [asked_ms for _, asked_ms in basis.parts] == [1, 3, 4]
    assert len(of) == 4


def test_followed_from_before_it_was_asked_for_and_not_from_the_same_moment() -> None:
    of = following()
    chain = learned(tree(), "88.118.8", 1_001, 1_001, 1_001, 1_001)
    basis = of.basis(chain, 1_001, now_ms=1_001)
    assert basis.unfollowed_ms(1_050) == 49
    live(of, 1_000)
    assert basis.unfollowed_ms(1_050) is None
    same = of.basis(learned(tree(), "88.118.8", 1_001, 1_001, 1_001, 1_000), 1_001, now_ms=1_001)
    assert same.unfollowed_ms(1_050) == 50


@pytest.mark.parametrize("zone", ["", "88", "88.118", "88.118.8"])
def test_one_zone_that_does_not_tell_is_enough(zone: str) -> None:
    of = following()
    basis = of.basis(learned(tree(), "88.118.8", 2_000, 2_000, 2_000, 2_000), 2_000, now_ms=2_000)
    live(of, 1_000)
    for watch in of.watches:
        of.heard(watch, 1, next_within_ms=2_000, now_ms=3_000)
    assert basis.unfollowed_ms(4_000) is None
    (lost,) = (watch for watch in of.watches if str(watch.zone) == zone)
    of.lost(lost)
    assert basis.unfollowed_ms(4_000) == 1_000  # since it was last heard
    assert basis.left_ms(1_000) == SHORT_MS - 1_000
    assert of.counters.lost == 1
    of.lost(lost)
    assert of.counters.lost == 1


def test_what_was_asked_for_after_the_last_message_is_known_from_then() -> None:
    of = following()
    chain = learned(tree(), "88.118.8", 1_500, 1_500, 1_500, 1_500)
    basis = of.basis(chain, 1_500, now_ms=1_500)
    live(of, 1_000)
    for watch in of.watches:
        of.lost(watch)
    assert basis.unfollowed_ms(1_600) == 100


def test_silence_ends_it_without_a_word() -> None:
    of = following()
    basis = of.basis(learned(tree(), "88.118.8", 1_001, 1_001, 1_001, 1_001), 1_001, now_ms=1_001)
    live(of, 1_000, within_ms=500)
    assert basis.unfollowed_ms(1_999) is None
    assert basis.unfollowed_ms(2_000) == 999
    assert of.live(1_999) == 4
    assert of.live(2_000) == 0


@pytest.mark.parametrize(("said_ms", "meant_ms"), [(0, NEXT_WITHIN_MS_MIN), (2**32 - 1, NEXT_WITHIN_MS_MAX)])
def test_a_node_does_not_choose_to_be_believed_for_ever(said_ms: int, meant_ms: int) -> None:
    of = following()
    of.basis(learned(tree(), "88", 1, 1), 1, now_ms=1)
    live(of, 1_000, within_ms=said_ms)
    assert of.live(1_000 + 2 * meant_ms - 1) == 2
    assert of.live(1_000 + 2 * meant_ms) == 0


def test_a_resumed_watch_is_as_good_as_one_that_was_never_lost() -> None:
    of = following()
    basis = of.basis(learned(tree(), "88.118.8", 1_001, 1_001, 1_001, 1_001), 1_001, now_ms=1_001)
    live(of, 1_000)
    for watch in of.watches:
        of.lost(watch)
        assert of.resumes(watch, watch.endpoints[0]) == 1
        of.catching_up(watch, 7)
        assert of.resumes(watch, watch.endpoints[0]) == 7
    assert basis.unfollowed_ms(90_000) == 90_000 - 1_001
    live(of, 91_000)
    assert basis.unfollowed_ms(91_001) is None
    assert (of.counters.begun, of.counters.resumed) == (4, 4)


def test_a_watch_at_another_node_begins_anew() -> None:
    of = following()
    basis = of.basis(learned(tree(), "88.118", 1_001, 1_001, 1_001), 1_001, now_ms=1_001)
    live(of, 1_000)
    (second,) = (watch for watch in of.watches if len(watch.endpoints) == 2)
    of.lost(second)
    assert of.resumes(second, "second-b:7000") is None
    of.begun(second, "second-b:7000", now_ms=1_100)
    of.heard(second, 1, next_within_ms=2_000, now_ms=1_100)
    assert basis.unfollowed_ms(1_200) == 199
    assert of.resumes(second, "second-a:7000") is None


def test_after_a_gap_nothing_from_before_is_told() -> None:
    of = following()
    basis = of.basis(learned(tree(), "88", 1_001, 1_001), 1_001, now_ms=1_001)
    live(of, 1_000)
    for watch in of.watches:
        of.gone(watch)
        assert of.resumes(watch, watch.endpoints[0]) is None
    live(of, 1_100)
    assert basis.unfollowed_ms(1_200) == 199
    assert of.counters.gone == 2


def test_new_endpoints_are_another_watch() -> None:
    built = tree()
    of = following()
    before = of.basis(learned(built, "88", 1_001, 1_001), 1_001, now_ms=1_001)
    live(of, 1_000)
    calls: list[int] = []
    of.wanted = lambda: calls.append(1)
    top = built.zones[Prefix.parse("88")]
    top.nodes = ("moved",)
    built.delegate(top)
    after = of.basis(learned(built, "88", 1_001, 1_001), 1_001, now_ms=1_001)
    assert calls == [1]
    assert after.parts[1][0].endpoints == ("moved:7000",)
    assert before.parts[1][0] is not after.parts[1][0]
    assert before.unfollowed_ms(1_010) == 9
    assert not of.wants(before.parts[1][0])
    assert of.wants(after.parts[1][0])
    # What comes late from the old stream does not bring it back.
    of.heard(before.parts[1][0], 2, next_within_ms=2_000, now_ms=1_010)
    assert before.unfollowed_ms(1_011) == 1


def test_no_more_watches_than_there_is_room_for_and_the_busy_ones_stay() -> None:
    built = tree()
    of = following(most=3)
    of.basis(learned(built, "88.118", 1, 1, 1), 1, now_ms=1_000)
    crowded = of.basis(learned(built, "88.118.8", 1, 1, 1, 1), 1, now_ms=1_000 + BUSY_MS - 1)
    assert zones(of) == ["", "88", "88.118"]
    assert crowded.unfollowed_ms(1_000 + BUSY_MS) is not None
    # All but one have been of use since.
    of.basis(learned(built, "88", 1, 1), 1, now_ms=2_000 + BUSY_MS)
    beside = built.zone("89", node="beside")
    of.basis(learned(built, str(beside.prefix), 1, 1), 1, now_ms=1_000 + 2 * BUSY_MS)
    assert zones(of) == ["", "88", "89"]
    assert of.counters.ended == 1


def test_to_be_used_keeps_a_watch_wanted_and_idle_ones_end() -> None:
    built = tree()
    of = following()
    used = of.basis(learned(built, "88", 1, 1), 1, now_ms=1_000)
    of.basis(learned(built, "88.118", 1, 1, 1), 1, now_ms=1_000)
    used.unfollowed_ms(2_000)
    of.end_idle(1_000 + IDLE_MS - 1)
    assert len(of) == 3
    of.end_idle(1_000 + IDLE_MS)
    assert zones(of) == ["", "88"]


def test_without_watches_every_answer_is_unfollowed_and_says_so() -> None:
    of = Following(short_ms=SHORT_MS)
    basis = of.basis(learned(tree(), "88.118.8", 10, 10, 10, 10), 10, now_ms=10)
    assert len(of) == 0
    assert basis.unfollowed_ms(SHORT_MS + 9) == SHORT_MS - 1
    assert basis.left_ms(SHORT_MS) == 0
    assert Following().basis(learned(tree(), "88", 10, 10), 10, now_ms=10).left_ms(10**9) > 10**9
    assert basis.left_ms(None) == FOR_EVER_MS


def test_counters_have_names() -> None:
    of = following()
    of.counters.begun += 1
    assert dict(of.counters.items())["begun"] == 1
    assert len(of.counters.items()) == 9


def test_watches_are_told_apart_even_where_they_look_the_same() -> None:
    first, second = (Watch(Prefix.parse("88"), ("a:1",), 0) for _ in range(2))
    assert first != second
    assert len({first, second}) == 2

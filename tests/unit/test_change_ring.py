"""Recent commits: what is held, what of it a zone is told, and that no way of cutting it up loses anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.errors import Reason, RefusedError
from idtrace.identifier import Prefix
from registry.change_ring import Cursor, Ring, next_part, of_zone, zones_of
from registry.storage import Change, Mention, changes_gone, pack_subjects, unpack_change
from tests.pointing import event_write
from tests.registry_fixtures import typed_record, write_of

ZONES = ["", "88", "88.118", "88.118.8", "88.118.80", "88.1", "8", "gs1"]
prefixes = st.sampled_from([zone for zone in ZONES if zone])
versions = st.integers(0, 9)
subjects = st.tuples(
    st.lists(
        st.tuples(st.builds("{}/{}".format, prefixes, st.sampled_from(["a", "b.8", "c/88.118"])), versions), max_size=4
    ),
    st.lists(st.tuples(prefixes, versions), max_size=3),
    st.lists(st.builds("{}/{}".format, prefixes, st.sampled_from(["a", "b.8", "c/88.118"])), max_size=3),
)


Drawn = list[tuple[list[tuple[str, int]], list[tuple[str, int]], list[str]]]


def commits_of(drawn: Drawn, first: int = 1) -> list[Change]:
    return [
        Change(n, tuple(names), tuple(zones), tuple(events)) for n, (names, zones, events) in enumerate(drawn, first)
    ]


def count(*commits: Change) -> int:
    return sum(len(commit.identifiers) + len(commit.prefixes) + len(commit.events) for commit in commits)


@given(st.lists(subjects, max_size=6), st.sampled_from(ZONES), st.integers(1, 5))
def test_a_zone_is_told_all_that_lies_in_it_once_in_order_and_in_parts(drawn: Drawn, zone: str, most: int) -> None:
    commits = commits_of(drawn)
    inside = Prefix.parse(zone) if zone else Prefix(())
    cursor, told = Cursor(0), []
    while cursor.sequence < len(commits):
        part, later = next_part(commits[cursor.sequence :], zone, cursor, most)
        assert later > cursor
        assert count(part) <= most
        assert part.sequence == later.sequence
        cursor = later
        told.append(part)
    assert [name for part in told for name in part.identifiers] == [
        name
        for commit in commits
        for name in commit.identifiers
        if Prefix.parse(name[0].partition("/")[0]).within(inside)
    ]
    assert [name for part in told for name in part.prefixes] == [
        name for commit in commits for name in commit.prefixes if Prefix.parse(name[0]).within(inside)
    ]
    assert [name for part in told for name in part.events] == [
        name for commit in commits for name in commit.events if Prefix.parse(name.partition("/")[0]).within(inside)
    ]


@given(st.lists(subjects, min_size=1, max_size=8), st.sampled_from(ZONES), st.integers(1, 4), st.data())
def test_who_is_cut_off_after_any_part_and_asks_again_by_its_number_misses_nothing(
    drawn: Drawn, zone: str, most: int, data: st.DataObject
) -> None:
    commits, cursor = commits_of(drawn), Cursor(0)
    heard: set[object] = set()
    for _ in range(data.draw(st.integers(0, 10))):
        if cursor.sequence < len(commits):
            part, cursor = next_part(commits[cursor.sequence :], zone, cursor, most)
            heard |= {*part.identifiers, *part.prefixes, *part.events}
    rest, _ = next_part(commits[cursor.sequence :], zone, Cursor(cursor.sequence), 10**6)
    everything = [of_zone(commit, zone) for commit in commits]
    heard |= {*rest.identifiers, *rest.prefixes, *rest.events}
    assert heard == {s for c in everything for s in (*c.identifiers, *c.prefixes, *c.events)}


@given(st.lists(subjects, max_size=6))
def test_exactly_those_zones_are_woken_that_have_something_to_hear(drawn: Drawn) -> None:
    commits = commits_of(drawn)
    woken = zones_of(commits)
    assert {zone for zone in ZONES if any(count(of_zone(commit, zone)) for commit in commits)} == woken & set(ZONES)


def test_a_neighbour_whose_name_begins_alike_hears_nothing() -> None:
    commit = Change(1, (("88.118.80/A", 1), ("88.118.8.1/A", 1), ("88.118.8/A", 1)), (("88.118.8", 2), ("88.118", 3)))
    assert of_zone(commit, "88.118.8") == Change(1, commit.identifiers[1:], commit.prefixes[:1])
    assert of_zone(commit, "88.11") == Change(1)
    assert of_zone(commit, "") is commit


@given(st.lists(st.lists(subjects, max_size=4), max_size=6), st.integers(1, 8), st.integers(1, 4), st.integers(0, 30))
def test_the_ring_holds_the_last_commits_and_says_where_it_begins(
    adds: list[Drawn], subjects_kept: int, commits_kept: int, asked: int
) -> None:
    every: list[Change] = []
    ring = Ring(5, subjects_kept=subjects_kept, commits_kept=commits_kept)
    for drawn in adds:
        commits = commits_of(drawn, 6 + len(every))
        ring.add(commits)
        every += commits
    assert ring.head == 5 + len(every)
    found = ring.after(asked, 10**6)
    later = [commit for commit in every if commit.sequence > asked]
    if found is None:
        assert asked < ring.floor
    else:
        assert found == later
        assert len(found) <= commits_kept
        assert count(*found) <= subjects_kept
        assert ring.after(asked, 1) == later[:1]
    held = ring.after(ring.floor, 10**6)
    assert held is not None
    dropped = [commit for commit in every if commit.sequence <= ring.floor]
    if dropped:  # no more is let go than has to be
        assert count(dropped[-1], *held) > subjects_kept or len(held) == commits_kept


def test_numbers_may_have_gaps_and_none_comes_twice() -> None:
    ring = Ring(0, commits_kept=2)
    ring.add([Change(3), Change(7), Change(8)])
    assert (ring.floor, ring.head) == (3, 8)
    assert ring.after(2, 9) is None
    assert ring.after(3, 9) == ring.after(6, 9) == [Change(7), Change(8)]
    assert ring.after(7, 9) == [Change(8)]
    assert ring.after(8, 9) == ring.after(9, 9) == []
    with pytest.raises(AssertionError):
        ring.add([Change(8)])


def test_what_a_commit_changes_is_kept_with_the_last_version_of_each() -> None:
    first = typed_record("88.118.8/药-1")
    second = typed_record("88.118.8/药-1", previous=first)
    other = typed_record('88.118.8/"]]')
    packed = pack_subjects([write_of(first, "key-1"), write_of(other, "key-2"), write_of(second, "key-3")])
    assert unpack_change(9, packed) == Change(9, (("88.118.8/药-1", 2), ('88.118.8/"]]', 1)))
    assert packed.decode() == '[[["88.118.8/药-1",2],["88.118.8/\\"]]",1]],[]]'
    assert unpack_change(1, pack_subjects([])) == Change(1)
    for damaged in (b"", b"[[]]", b"{", b"\xff"):
        with pytest.raises(ValueError):  # noqa: PT011 - whichever part of it does not fit
            unpack_change(1, damaged)


def test_the_things_that_an_event_is_about_are_told_and_what_was_kept_before_there_were_events_is_still_read() -> None:
    box, dose = "88.118.8/BOX", "86.1.5/DOSE"
    write = event_write(1, (dose, "child"), (box, "parent"), ("urn:epc:id:sgln:1.2.3", "read_point"), outbound=(dose,))
    packed = pack_subjects([write])
    assert unpack_change(4, packed) == Change(4, ((write.identifier, 1),), (), (box,))
    pointer = Mention(box, 1, write.identifier, "epc")
    assert unpack_change(5, pack_subjects((), (), [pointer])) == Change(5, events=(box,))
    assert unpack_change(6, b'[[["88.118.8/A",1]],[]]') == Change(6, (("88.118.8/A", 1),))


@pytest.mark.parametrize(("after", "said"), [(8, "yet to come, the last one is 7"), (3, "not all changes after 3")])
def test_what_cannot_be_told_says_why(after: int, said: str) -> None:
    error = changes_gone(after, 7)
    assert isinstance(error, RefusedError)
    assert (error.reason, error.field) == (Reason.CHANGES_GONE, "after")
    assert said in error.detail

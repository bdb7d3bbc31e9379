"""Recent commits in memory, and what of them a watcher of a zone is told next.

A watcher is a :class:`Cursor` and no queue: what it has not been told lies in the ring, which all share, and behind the
ring in the store. So a reader that is slow, or never reads, costs nothing that grows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from registry.storage import Change

# Identifiers and prefixes in memory: at 150 bytes each 10 MB, and 33 full batches of 2,000 (two seconds of bulk load).
SUBJECTS_KEPT: Final = 65_536
# Commits of one identifier each: eight seconds of them at the 500 a second that one disk takes.
COMMITS_KEPT: Final = 4_096


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """How far a watcher has been told: all of commit ``sequence``, and ``within`` subjects of the one after it."""

    sequence: int
    within: int = 0


class Ring:
    """The last commits in order. ``head`` is the last one's number; whoever knows ``floor`` finds all later ones."""

    __slots__ = ("_commits", "_commits_kept", "_numbers", "_subjects", "_subjects_kept", "floor", "head")

    def __init__(self, head: int, *, subjects_kept: int = SUBJECTS_KEPT, commits_kept: int = COMMITS_KEPT) -> None:
        self.head = head
        self.floor = head
        self._subjects_kept = subjects_kept
        self._commits_kept = commits_kept
        self._commits: list[Change] = []
        self._numbers: list[int] = []
        self._subjects = 0

    def add(self, commits: Sequence[Change]) -> None:
        """Take the commits that follow :attr:`head`, and let go of the oldest beyond the limits."""
        for commit in commits:
            assert commit.sequence > self.head, "commits come in order, each once"
            self.head = commit.sequence
            self._commits.append(commit)
            self._numbers.append(commit.sequence)
            self._subjects += _size(commit)
        gone = 0
        while self._subjects > self._subjects_kept or len(self._commits) - gone > self._commits_kept:
            self._subjects -= _size(self._commits[gone])
            self.floor = self._numbers[gone]
            gone += 1
        del self._commits[:gone], self._numbers[:gone]

    def after(self, sequence: int, most: int) -> list[Change] | None:
        """The first commits after this number, at most so many; None where some of them are not here any more."""
        if sequence < self.floor:
            return None
        start = bisect_right(self._numbers, sequence)
        return self._commits[start : start + most]


def _size(commit: Change) -> int:
    return len(commit.identifiers) + len(commit.prefixes) + len(commit.events)


def of_zone(commit: Change, zone: str) -> Change:
    """What of a commit lies in a zone or below it; ``zone`` is canonical text, empty for the root."""
    if not zone:
        return commit
    inside = (f"{zone}/", f"{zone}.")
    return Change(
        commit.sequence,
        tuple(subject for subject in commit.identifiers if subject[0].startswith(inside)),
        tuple(subject for subject in commit.prefixes if subject[0] == zone or subject[0].startswith(inside[1])),
        tuple(subject for subject in commit.events if subject.startswith(inside)),
    )


def zones_of(commits: Iterable[Change]) -> set[str]:
    """Every zone whose watchers have something to hear, however far above what has changed."""
    prefixes = {name.partition("/")[0] for commit in commits for name, _ in commit.identifiers}
    prefixes.update(prefix for commit in commits for prefix, _ in commit.prefixes)
    prefixes.update(name.partition("/")[0] for commit in commits for name in commit.events)
    zones: set[str] = set()
    for prefix in prefixes:
        above = prefix
        while above not in zones:
            zones.add(above)
            above = above.rpartition(".")[0]
    return zones


def next_part(commits: Iterable[Change], zone: str, cursor: Cursor, most: int) -> tuple[Change, Cursor]:
    """What a watcher is told next, at most ``most`` subjects, and how far it has then been told.

    ``commits`` are those after the cursor, in order. The part's number is that of the last commit that is told with it
    to its end: who is cut off and asks again from there hears the rest of a commit, and some of it twice.
    """
    identifiers: list[tuple[str, int]] = []
    prefixes: list[tuple[str, int]] = []
    events: list[str] = []
    room = most
    for commit in commits:
        inside = of_zone(commit, zone)
        start, end = cursor.within, cursor.within + room
        prefixes += inside.prefixes[start:end]  # then identifiers, then events
        edge = len(inside.prefixes)
        identifiers += inside.identifiers[max(start - edge, 0) : max(end - edge, 0)]
        edge += len(inside.identifiers)
        events += inside.events[max(start - edge, 0) : max(end - edge, 0)]
        room = most - len(prefixes) - len(identifiers) - len(events)
        if end < _size(inside):
            cursor = Cursor(cursor.sequence, end)
            break
        cursor = Cursor(commit.sequence)
    return Change(cursor.sequence, tuple(identifiers), tuple(prefixes), tuple(events)), cursor

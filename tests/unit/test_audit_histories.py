"""Honest histories have no finding; one lie anywhere in one is found, at its entry and by its name."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idtrace import merkle
from idtrace.audit import Finding, Grade, Replay
from tests.history_lies import LIES
from tests.log_histories import OUTSIDE, History, begun

SEEDS = st.integers(0, 2**32)


def audited(entries: list[bytes], piece: int = 7) -> Replay:
    replay = Replay(outside=OUTSIDE)
    for first in range(0, len(entries), piece):
        replay.feed(entries[first : first + piece])
    replay.end()
    return replay


def lied_to(name: str, seed: int, before: int, after: int) -> tuple[History, Finding, int]:
    """A history with one lie after some honest steps, the finding that it has to give, and where honesty ended."""
    history = begun(random.Random(seed).randrange)
    for _ in range(before):
        history.step()
    told = LIES[name](history)
    honest = history.size
    history.entries += [one if isinstance(one, bytes) else one.to_bytes() for one in told.entries]
    for _ in range(after):
        history.step()
    return history, Finding(honest + told.lie, Grade.MISBEHAVIOUR, told.reason, ""), honest


@given(SEEDS, st.integers(0, 40), st.booleans())
@settings(max_examples=60, deadline=None)
def test_an_honest_history_has_no_finding_at_all(seed: int, steps: int, full: bool) -> None:
    draw = random.Random(seed).randrange
    history = begun(draw) if full else History(draw)
    if not full:
        history.begin()
    for _ in range(steps):
        history.step()
    replay = audited(history.entries)
    assert replay.findings == []
    assert replay.range.root() == merkle.root_of([merkle.hash_leaf(one) for one in history.entries])
    stand = {str(name) for name in history.last}
    assert stand <= replay._lives.keys()


@pytest.mark.parametrize("name", LIES)
@given(seed=SEEDS, before=st.integers(0, 12), after=st.integers(0, 6))
@settings(max_examples=5, deadline=None)
def test_a_lie_is_found_at_its_entry(name: str, seed: int, before: int, after: int) -> None:
    history, lie, _ = lied_to(name, seed, before, after)
    found = audited(history.entries).findings
    assert (lie.index, lie.grade, lie.reason) in [(one.index, one.grade, one.reason) for one in found]


@given(st.sampled_from(sorted(LIES)), SEEDS)
@settings(max_examples=40, deadline=None)
def test_nothing_before_a_lie_is_found(name: str, seed: int) -> None:
    history, _, honest = lied_to(name, seed, 4, 3)
    assert min(one.index for one in audited(history.entries).findings) >= honest


def test_so_many_lies_are_told() -> None:
    assert len(LIES) == 48

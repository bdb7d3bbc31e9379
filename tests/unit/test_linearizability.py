"""The judge of histories is right: it takes what can have happened and nothing else, as trying every order does."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, permutations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests import linearizability
from tests.linearizability import UNKNOWN_MAX, Action, Operation, Told, UndecidedError, judge, violations

OK, CONFLICT, UNKNOWN = Told.OK, Told.CONFLICT, Told.UNKNOWN
KEY = "88.118.8/A"


def register(value: str, called: int, returned: int, told: Told = OK) -> Operation:
    return Operation(KEY, Action.REGISTER, told, called, returned, value)


def update(expected: str, value: str, called: int, returned: int, told: Told = OK) -> Operation:
    return Operation(KEY, Action.UPDATE, told, called, returned, value, expected)


def read(value: str | None, called: int, returned: int, told: Told = OK) -> Operation:
    return Operation(KEY, Action.READ, told, called, returned, value)


GOOD = {
    "nothing at all": [],
    "one after the other": [read(None, 1, 2), register("a", 3, 4), read("a", 5, 6), update("a", "b", 7, 8)],
    "a read may see a write that has not returned": [register("a", 1, 9), read("a", 2, 3)],
    "and need not": [register("a", 1, 9), read(None, 2, 3), read("a", 4, 5)],
    "the later call came first": [register("a", 1, 9, CONFLICT), register("b", 2, 3)],
    "times that touch have no order": [register("a", 1, 5), read(None, 5, 6)],
    "a lost answer that took effect late": [register("a", 1, 2, UNKNOWN), read(None, 3, 4), read("a", 5, 6)],
    "a lost answer that never took effect": [register("a", 1, 2, UNKNOWN), read(None, 3, 4), register("b", 5, 6)],
    "a lost answer of an update between two others": [
        register("a", 1, 2),
        update("a", "b", 3, 4, UNKNOWN),
        update("b", "c", 5, 6),
        read("c", 7, 8),
    ],
    "a lost update that somebody else's made void": [
        register("a", 1, 2),
        update("a", "b", 3, 4, UNKNOWN),
        update("a", "c", 5, 6),
        read("c", 7, 8),
    ],
    "a read that told nothing": [register("a", 1, 2), read(None, 3, 4, UNKNOWN), read("a", 5, 6)],
    "a conflict with what was there only for a moment": [
        register("a", 1, 2),
        update("a", "b", 3, 20),
        update("a", "c", 4, 21, CONFLICT),
        update("b", "d", 5, 22),
    ],
}
BAD = {
    "two owners": [register("a", 1, 4), register("b", 2, 3)],
    "two updates of one version": [register("a", 1, 2), update("a", "b", 3, 6), update("a", "c", 4, 5)],
    "a stale read": [register("a", 1, 2), read(None, 3, 4)],
    "a stale read after an update": [register("a", 1, 2), update("a", "b", 3, 4), read("a", 5, 6)],
    "an acknowledged write that is lost": [register("a", 1, 2), register("b", 3, 4)],
    "an acknowledged update that is lost": [
        register("a", 1, 2),
        update("a", "b", 3, 4),
        update("a", "c", 5, 6),
        read("c", 7, 8),
    ],
    "reads that go back": [register("a", 1, 9), read("a", 2, 3), read(None, 4, 5)],
    "reads that go back under a lost answer": [register("a", 1, 2, UNKNOWN), read("a", 3, 4), read(None, 5, 6)],
    "a read of what was never written": [register("a", 1, 2), read("z", 3, 4)],
    "a read of what was refused": [register("a", 1, 2, CONFLICT), read("a", 3, 4)],
    "a refusal where nobody was": [register("a", 1, 2, CONFLICT), read(None, 3, 4)],
    "a read before its write was asked for": [read("a", 1, 2), register("a", 3, 4)],
    "an update of what was never there": [update("a", "b", 1, 2)],
    "a lost answer that took effect twice": [
        register("a", 1, 2),
        update("a", "b", 3, 4, UNKNOWN),
        update("b", "a", 5, 6),
        read("a", 7, 8),
        read("b", 9, 10),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_what_can_have_happened_is_taken(name: str) -> None:
    assert judge(GOOD[name]) is None


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_have_happened_is_refused(name: str) -> None:
    assert judge(BAD[name]) is not None


def test_a_violation_says_what_is_wrong_and_of_which_identifier() -> None:
    other = [replace(operation, key="88.118.8/B") for operation in GOOD["one after the other"]]
    (found,) = violations([*BAD["a stale read"], *other])
    assert (found.key, found.explained, found.value) == (KEY, 1, "a")
    assert [operation.action for operation in found.stuck] == [Action.READ]
    assert "after 1 operations it held a, and none of these can be next\n   [3, 4] read: None" in str(found)
    assert str(update("a", "b", 1, 2, UNKNOWN)) == " [1, 2] update a to b: UNKNOWN"
    assert str(register("a", 1, 2, CONFLICT)) == " [1, 2] register a: CONFLICT"


def test_what_would_take_too_long_is_neither_good_nor_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = [update(f"{n}", f"{n + 1}", n, n, UNKNOWN) for n in range(UNKNOWN_MAX)]
    assert judge(lost) is None
    with pytest.raises(UndecidedError, match="more than 12 writes of unknown outcome"):
        judge([*lost, register("a", 1, 2, UNKNOWN)])
    monkeypatch.setattr(linearizability, "STEPS_MAX", 5)
    with pytest.raises(UndecidedError, match="more than 5 ways to order it"):
        judge([*(register(f"{n}", 1, 2, UNKNOWN) for n in range(8)), read("z", 3, 4)])


def test_a_long_history_of_many_clients_is_judged_at_once() -> None:
    """64 clients, all open at a time: what they were told leaves one order of the writes, and no search is needed."""
    history = [register("0", 0, 64)]
    for n in range(1, 2_000):
        history.append(update(f"{n - 1}", f"{n}", n, n + 64))
        history.append(update(f"{n - 1}", f"{n}'", n, n + 64, CONFLICT))
    assert judge(history) is None
    history.append(read("5", 5_000, 5_001))
    found = judge(history)
    assert found is not None
    assert found.explained == 3_999


# --- Against a real object, and against trying every order


@st.composite
def lived(draw: st.DrawFn, *, overlap: int = 4_000, most: int = 40, answers_are_lost: bool = True) -> list[Operation]:
    """What clients of a real object were told: each call takes effect at its own moment, between call and return."""
    held: str | None = None
    history: list[Operation] = []
    for n in range(draw(st.integers(1, most))):
        moment = 1_000 * n + 10_000
        called, returned = (moment + sign * draw(st.integers(0, overlap)) for sign in (-1, 1))
        action = draw(st.sampled_from(Action))
        expected = draw(st.sampled_from([held or "", "other"])) if action is Action.UPDATE else None
        fits = action is not Action.READ and held == expected
        lost = answers_are_lost and action is not Action.READ and draw(st.integers(0, 9)) == 0
        if lost and sum(o.told is UNKNOWN for o in history) == UNKNOWN_MAX:
            lost = False
        happens = fits and not (lost and draw(st.booleans()))
        value = held if action is Action.READ else f"v{n}"
        held = value if happens else held
        told = UNKNOWN if lost else OK if fits or action is Action.READ else CONFLICT
        history.append(Operation(KEY, action, told, called, returned, value, expected))
    return history


@given(lived())
def test_whatever_a_real_object_has_told_is_taken(history: list[Operation]) -> None:
    assert judge(history) is None


@given(lived(overlap=400, most=15, answers_are_lost=False), st.data())
def test_one_answer_that_no_object_gives_is_found(history: list[Operation], data: st.DataObject) -> None:
    """Calls that do not overlap have one order, so each of these is a lie whatever comes later."""
    n = data.draw(st.integers(0, len(history) - 1))
    told = history[n]
    if told.action is Action.READ:
        values = {None, *(o.value for o in history if o.action is not Action.READ)} - {told.value}
        lie = replace(told, value=data.draw(st.sampled_from(sorted(values, key=str)))) if values else None
    else:
        lie = replace(told, told=CONFLICT if told.told is OK else OK)
    assume(lie is not None)
    assert lie is not None
    assert judge([*history[:n], lie, *history[n + 1 :]]) is not None


@given(lived(overlap=400, most=15, answers_are_lost=False))
def test_a_history_from_which_an_acknowledged_write_is_taken_away_is_found(history: list[Operation]) -> None:
    """Where somebody has seen it: a value that a later operation tells of has to come from somewhere."""
    seen = {o.expected if o.action is Action.UPDATE else o.value for o in history if o.told is OK}
    writes = [n for n, o in enumerate(history) if o.action is not Action.READ and o.told is OK and o.value in seen]
    witnessed = [
        n for n in writes if any(history[n].value in {o.expected, o.value} and o.told is OK for o in history[n + 1 :])
    ]
    assume(witnessed)
    for n in witnessed:
        assert judge(history[:n] + history[n + 1 :]) is not None


any_operation = st.builds(
    lambda action, told, called, length, value, expected: Operation(
        KEY,
        action,
        OK if action is Action.READ else told,
        called,
        called + length,
        value if action is Action.READ else value or "a",
        (expected or "a") if action is Action.UPDATE else None,
    ),
    st.sampled_from(Action),
    st.sampled_from(Told),
    st.integers(0, 12),
    st.integers(0, 8),
    st.sampled_from([None, "a", "b"]),
    st.sampled_from([None, "a", "b"]),
)


def in_some_order(history: list[Operation]) -> bool:
    """Every subset of the unknown ones as never happened, every order of the rest, by the definition."""
    lost = [n for n, operation in enumerate(history) if operation.told is UNKNOWN]
    for count in range(len(lost) + 1):
        for never in combinations(lost, count):
            rest = [operation for n, operation in enumerate(history) if n not in never]
            if any(_explains(order) for order in permutations(rest)):
                return True
    return False


def _explains(order: tuple[Operation, ...]) -> bool:
    held: str | None = None
    for n, operation in enumerate(order):
        if any(o.told is not UNKNOWN and o.returned_ns < operation.called_ns for o in order[n + 1 :]):
            return False
        fits = held == (operation.expected if operation.action is Action.UPDATE else None)
        match operation.action, operation.told:
            case Action.READ, _:
                if operation.value != held:
                    return False
            case _, Told.CONFLICT:
                if fits:
                    return False
            case _:
                if not fits:
                    return False
                held = operation.value
    return True


@given(st.lists(any_operation, min_size=1, max_size=5))
def test_the_search_says_what_trying_every_order_says(history: list[Operation]) -> None:
    assert (judge(history) is None) == in_some_order(history)

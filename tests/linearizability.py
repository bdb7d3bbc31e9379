"""Whether what callers were told of an identifier can have happened one thing after the other (linearizability).

Each identifier is judged alone, since a set of objects is linearizable if and only if each of them is (Herlihy and
Wing, TOPLAS 1990, theorem 1). The search is that of Wing and Gong (JPDC 1993) with Lowe's memory of what was tried
(Concurrency and Computation 2017): take the operations one by one, never one whose call came after the return of
another that is not taken yet, and each only where the object would have answered what its caller was told.

The object holds one value, or none. ``register`` puts a first one where there is none, ``update`` replaces the very one
that it expects, ``read`` tells it. A write that was told UNKNOWN may take effect at any later time, or never; a read
that told nothing proves nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

# Each write of unknown outcome can be at any place or nowhere: so many, all open at once, are 2^12 ways to look through
# for every order of the others. A client that asks again until it is told leaves none.
UNKNOWN_MAX: Final = 12
# Ways looked at for one identifier: seconds. A history of honest clients takes about as many as it has writes.
STEPS_MAX: Final = 500_000


class Action(Enum):
    """What a caller asked for."""

    REGISTER = auto()
    UPDATE = auto()
    READ = auto()


class Told(Enum):
    """What a caller was told: done, refused since another came first, or nothing."""

    OK = auto()
    CONFLICT = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Operation:
    """One call about one identifier. Times are of one clock, in nanoseconds.

    Attributes:
        value: what a write wanted to put there, or what a read was told (None: there is nothing).
        expected: the value that an update replaces.
        returned_ns: when its caller was told; an operation of unknown outcome has no end, whatever stands here.
    """

    key: str
    action: Action
    told: Told
    called_ns: int
    returned_ns: int
    value: str | None = None
    expected: str | None = None
    client: str = ""

    def __str__(self) -> str:
        what = {
            Action.REGISTER: f"register {self.value}",
            Action.UPDATE: f"update {self.expected} to {self.value}",
            Action.READ: "read",
        }[self.action]
        told = f"{self.value}" if self.action is Action.READ and self.told is Told.OK else self.told.name
        return f"{self.client} [{self.called_ns}, {self.returned_ns}] {what}: {told}"


@dataclass(frozen=True, slots=True)
class Violation:
    """A history that no order explains: the longest run that one does, its value then, and what cannot follow."""

    key: str
    explained: int
    value: str | None
    stuck: tuple[Operation, ...]

    def __str__(self) -> str:
        lines = "".join(f"\n  {operation}" for operation in self.stuck)
        held = f"{self.key}: after {self.explained} operations it held {self.value}"
        return f"{held}, and none of these can be next{lines}"


class UndecidedError(Exception):
    """A history with more unknown outcomes, or more ways to order it, than are looked through."""


def by_key(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """The history of each identifier."""
    histories: dict[str, list[Operation]] = {}
    for operation in operations:
        histories.setdefault(operation.key, []).append(operation)
    return histories


def violations(operations: Iterable[Operation]) -> list[Violation]:
    """Every identifier whose history no order explains.

    Raises:
        UndecidedError: a history is beyond the limits of this module; it is neither good nor bad.
    """
    judged = (judge(history) for history in by_key(operations).values())
    return [violation for violation in judged if violation is not None]


def judge(history: Sequence[Operation]) -> Violation | None:
    """None if some order explains the history of one identifier.

    Raises:
        UndecidedError: see :func:`violations`.
    """
    told = [operation for operation in history if not (operation.action is Action.READ and _unknown(operation))]
    if sum(map(_unknown, told)) > UNKNOWN_MAX:
        raise UndecidedError(f"{history[0].key}: more than {UNKNOWN_MAX} writes of unknown outcome")
    return _Search(sorted((_open_ended(operation) for operation in told), key=lambda o: o.called_ns)).run()


def _unknown(operation: Operation) -> bool:
    return operation.told is Told.UNKNOWN


def _open_ended(operation: Operation) -> Operation:
    return replace(operation, returned_ns=_NEVER) if _unknown(operation) else operation


_NEVER: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class _Way:
    """Which operations were taken (those before ``start``, and a bit for each from there on), and the value then."""

    start: int
    taken: int
    value: str | None


class _Search:
    """Depth first over the orders of one history, sorted by the time of the call."""

    def __init__(self, history: Sequence[Operation]) -> None:
        self._history = history
        self._best: tuple[int, _Way] = (-1, _Way(0, 0, None))

    def run(self) -> Violation | None:
        seen: set[_Way] = set()
        open_ways = [_Way(0, 0, None)]
        while open_ways:
            way = self._without_choice(open_ways.pop())
            if way in seen:
                continue
            seen.add(way)
            if len(seen) > STEPS_MAX:
                raise UndecidedError(f"{self._history[0].key}: more than {STEPS_MAX} ways to order it")
            if self._complete(way):
                return None
            explained = way.start + way.taken.bit_count()
            if explained > self._best[0]:
                self._best = explained, way
            open_ways.extend(self._take(way, n) for n in reversed(self._next(way, _may_write)))
        explained, way = self._best
        return Violation(
            self._history[0].key, explained, way.value, tuple(self._history[n] for n in self._next(way, _any))
        )

    def _without_choice(self, way: _Way) -> _Way:
        """Everything taken that changes nothing and is true now: it can only get harder to place later."""
        while ready := self._next(way, _changes_nothing):
            for n in ready:
                way = self._take(way, n)
        return way

    def _next(self, way: _Way, fits: Callable[[Operation, str | None], bool]) -> list[int]:
        """What can come next: called before any other that is not taken has returned."""
        found: list[int] = []
        first_return = _NEVER
        for n in range(way.start, len(self._history)):
            operation = self._history[n]
            if operation.called_ns > first_return:
                break
            if not way.taken >> (n - way.start) & 1:
                first_return = min(first_return, operation.returned_ns)
                if fits(operation, way.value):
                    found.append(n)
        return found

    def _take(self, way: _Way, n: int) -> _Way:
        operation = self._history[n]
        value = operation.value if _may_write(operation, way.value) else way.value
        start, taken = way.start, way.taken | 1 << (n - way.start)
        while taken & 1:
            start, taken = start + 1, taken >> 1
        return _Way(start, taken, value)

    def _complete(self, way: _Way) -> bool:
        """Whether all that is left is what may never have happened."""
        left = range(way.start, len(self._history))
        return all(way.taken >> (n - way.start) & 1 or _unknown(self._history[n]) for n in left)


def _any(operation: Operation, value: str | None) -> bool:
    del operation, value
    return True


def _matches(operation: Operation, value: str | None) -> bool:
    """Whether the object would do a write now."""
    return value == (operation.expected if operation.action is Action.UPDATE else None)


def _may_write(operation: Operation, value: str | None) -> bool:
    wrote = operation.action is not Action.READ and operation.told is not Told.CONFLICT
    return wrote and _matches(operation, value)


def _changes_nothing(operation: Operation, value: str | None) -> bool:
    """True now, of the kind that leaves the object as it is."""
    if operation.action is Action.READ:
        return operation.value == value
    return operation.told is Told.CONFLICT and not _matches(operation, value)

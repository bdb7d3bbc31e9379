"""Failures on demand, at every step at which an engine can fail, with the step done or left undone.

Nothing of the adapters is replaced: what breaks is the connection below them. A fault is named by whether the change
is durable afterwards; each engine has several points of either sort, and a number chooses among them. A fault may
have nothing to strike (a batch without rows inserts none): then the call ends as any other does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cassandra import OperationTimedOut, RequestValidationException
from cassandra.query import BatchStatement

from registry.cassandra_bridge import Bridge
from registry.cassandra_ledger import SwapUnknownError
from tests.memory_storage import EngineError


class InjectedError(RequestValidationException):  # type: ignore[misc]  # the driver comes without types
    """Of a kind that no layer repairs by sending again."""


# What a caller can hear of an injected failure.
RAISED: Final = (InjectedError, EngineError, SwapUnknownError)
# How long a swap is asked after that nobody will answer: once.
SILENCE_SECONDS: Final = 0.0


class FailingConnection:
    """Stands before a SQLite writer: fails once, ``instead`` of a statement or after it, then goes on as before."""

    def __init__(self, connection: sqlite3.Connection, strikes: Callable[[str, int], bool], *, instead: bool) -> None:
        self._connection = connection
        self._strikes = strikes
        self._instead = instead
        self._written = 0
        self.fired = False

    def execute(self, statement: str, *values: Any) -> Any:
        return self._run(self._connection.execute, statement, *values)

    def executemany(self, statement: str, *values: Any) -> Any:
        return self._run(self._connection.executemany, statement, *values)

    def _run(self, call: Callable[..., Any], statement: str, *values: Any) -> Any:
        verb = statement.split(maxsplit=1)[0]
        self._written += verb in {"INSERT", "DELETE", "UPDATE"}
        struck = not self.fired and self._strikes(verb, self._written)
        if struck:
            self.fired = True
            if not self._instead:
                call(statement, *values)
            raise InjectedError(f"{'instead of' if self._instead else 'after'} {verb}")
        return call(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def sqlite_fault(connection: sqlite3.Connection, number: int, *, persisted: bool) -> FailingConnection:
    """Before BEGIN; instead of the n-th change or after it; before COMMIT; after COMMIT."""
    if persisted:
        return FailingConnection(connection, lambda verb, _: verb == "COMMIT", instead=False)
    if number == 0:
        return FailingConnection(connection, lambda verb, _: verb == "BEGIN", instead=True)
    if number == 1:
        return FailingConnection(connection, lambda verb, _: verb == "COMMIT", instead=True)

    def strikes(verb: str, written: int) -> bool:
        """At a change, or before COMMIT where there were fewer."""
        return verb == "COMMIT" or (written == number // 2 and verb in {"INSERT", "DELETE"})

    # After COMMIT would be durable: of the points that may fall on it only those "instead" are left.
    return FailingConnection(connection, strikes, instead=True)


@dataclass(frozen=True)
class Point:
    """Where a statement of a ledger fails: its name, which one of that name, and how."""

    statement: str
    how: str  # instead, after, silence instead, silence after, lost, lost after
    nth: int = 0


BEFORE_THE_SWAP: Final = (
    Point("stage", "instead"),
    Point("stage", "after"),
    Point("swap", "instead"),
    Point("swap", "silence instead"),
)
SINCE_THE_SWAP: Final = (
    Point("swap", "after"),
    Point("rows", "instead"),
    Point("rows", "after", 1),
    Point("rows", "instead", 3),
    Point("rows", "after", 5),
    Point("remember", "instead"),
    Point("remember", "after"),
    Point("apply", "instead"),
    Point("apply", "after"),
    Point("swap", "silence after"),
)
# What the ledger has to get over by itself: an answer that is lost, a request that is, staged bytes that stay behind.
REPAIRED: Final = (Point("swap", "lost"), Point("swap", "lost after"), Point("unstage", "instead"))


class FailingBridge:
    """Stands for a bridge to Cassandra that many stores share: a connection costs more than an example's steps."""

    def __init__(self, bridge: Bridge, prepared: dict[str, Any]) -> None:
        self._bridge = bridge
        self._shared = prepared
        self._names: dict[int, str] = {}
        self._point: Point | None = None
        self._passed = 0
        self._silent = False
        self.fired = False

    async def prepare(self, texts: dict[str, str]) -> dict[str, Any]:
        missing = {name: text for name, text in texts.items() if name not in self._shared}
        self._shared.update(await self._bridge.prepare(missing))
        words = {name: name.partition(" ")[0] for name in texts}  # "swap again" is a swap, "row head" a row
        self._names = {id(self._shared[name]): "rows" if word == "row" else word for name, word in words.items()}
        return {name: self._shared[name] for name in texts}

    async def use(self, keyspace: str) -> None:
        """The shared session has it."""

    async def close(self) -> None:
        """The shared session outlives its stores."""

    def fail(self, point: Point) -> None:
        self._point, self._passed, self._silent, self.fired = point, 0, False, False

    def mend(self) -> None:
        self._point, self._silent = None, False

    async def run(self, statement: Any, values: Sequence[object] = (), *, profile: str = "plain") -> Any:
        return await self._send(self._bridge.run, statement, values, profile)

    async def once(self, statement: Any, values: Sequence[object] = (), *, profile: str) -> Any:
        return await self._send(self._bridge.once, statement, values, profile)

    async def _send(self, send: Callable[..., Any], statement: Any, values: Sequence[object], profile: str) -> Any:
        if self._silent:
            raise OperationTimedOut
        point = self._struck("rows" if isinstance(statement, BatchStatement) else self._names.get(id(statement), ""))
        if point is None:
            return await send(statement, values, profile=profile)
        if point.how in {"after", "silence after", "lost after"}:
            answer = await send(statement, values, profile=profile)
            if point.statement == "swap" and not answer[0].applied:  # lost to another writer: not the one to strike
                self.fail(point)
                return answer
        self._silent = point.how.startswith("silence")
        raise InjectedError(point.how) if point.how in {"instead", "after"} else OperationTimedOut()

    def _struck(self, name: str) -> Point | None:
        """The point, where this statement is the one that it names."""
        point = self._point
        if point is None or point.statement != name:
            return None
        self._passed += 1
        if self._passed <= point.nth:
            return None
        self._point, self.fired = None, True
        return point

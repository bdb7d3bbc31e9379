"""Stores with a bug planted in them: the program of tests/contract finds each, long before its steps are through."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import pytest

from registry.logbook import Stamp
from registry.storage import Delivery, DeliveryState, Earlier, Grant, Head, Mention, Outcome, Write
from tests.contract.places import MemoryPlace
from tests.contract.program import Stage, run_program
from tests.contract.sides import Count, DifferenceError
from tests.memory_storage import EngineError, Hook, MemoryStorage

# The rarest of these bugs takes some 300 steps; a program of 10,000 has ten times as many as this.
STEPS_MAX = 1_000


class LostWrite(MemoryStorage):
    """Every eighth version is told to be committed and is not kept."""

    def _apply(self, write: Write) -> Outcome:
        before = self._heads.get(write.identifier), dict(self._keys), dict(self._claims)
        outcome = super()._apply(write)
        if outcome is Outcome.COMMITTED and len(self._changes) % 8 == 7:
            self._versions[write.identifier].pop()
            head, keys, claims = before
            self._heads.pop(write.identifier) if head is None else self._heads.update({write.identifier: head})
            for held, was in ((self._keys, keys), (self._claims, claims)):
                for key in set(held) - set(was):
                    del held[key]  # type: ignore[arg-type]  # keys of either are their own
        return outcome


class TwoOwners(MemoryStorage):
    """A claim that another identifier holds goes over to the new one."""

    def _apply(self, write: Write) -> Outcome:
        outcome = super()._apply(replace(write, claims=()))
        if outcome is Outcome.COMMITTED:
            self._claims.update(dict.fromkeys(write.claims, write.identifier))
        return outcome


class NewReceipt(MemoryStorage):
    """A key that comes again is answered with the receipt of the second request."""

    def _apply(self, write: Write) -> Outcome:
        outcome = super()._apply(write)
        if outcome is Outcome.KEY_USED:
            self._keys[write.zone, write.idempotency_key] = Earlier(write.request_hash, write.receipt)
        return outcome


class HeadAhead(MemoryStorage):
    """From version 3 on the head is there, and the record is not."""

    def _apply(self, write: Write) -> Outcome:
        outcome = super()._apply(write)
        if outcome is Outcome.COMMITTED and write.head.version >= 3:
            self._versions[write.identifier].pop()
        return outcome


class OldVersionChanges(MemoryStorage):
    """A third version overwrites the first one."""

    def _apply(self, write: Write) -> Outcome:
        outcome = super()._apply(write)
        if outcome is Outcome.COMMITTED and write.head.version == 3:
            self._versions[write.identifier][0] = write.record
        return outcome


class LoserClaims(MemoryStorage):
    """A write that loses leaves its claims behind."""

    def _apply(self, write: Write) -> Outcome:
        outcome = super()._apply(write)
        for claim in write.claims:
            self._claims.setdefault(claim, write.identifier)
        return outcome


class ToldTwice(MemoryStorage):
    """Every fifth change is told again, under a number of its own."""

    def _number(self, writes: Sequence[Write], grants: Sequence[Grant] = (), pointers: Sequence[Mention] = ()) -> None:
        super()._number(writes, grants, pointers)
        if len(self._changes) % 5 == 4:
            super()._number(writes, grants, pointers)


class NotTold(MemoryStorage):
    """A change of a grant is told to nobody."""

    def _number(self, writes: Sequence[Write], grants: Sequence[Grant] = (), pointers: Sequence[Mention] = ()) -> None:
        super()._number(writes, (), pointers)


class ClaimLost(MemoryStorage):
    """A start forgets a claim."""

    def another(self) -> Self:
        for claim in list(self._claims)[-1:]:
            del self._claims[claim]
        return super().another()


class StaleHandle(MemoryStorage):
    """A handle decides on the heads that were there when it was opened."""

    def another(self) -> Self:
        other = super().another()
        other._heads = dict(self._heads)
        return other


class HalfABatch(MemoryStorage):
    """A batch that fails has stored its first write."""

    def _fail(self, hook: Hook, attempt: Any, *, reopens: bool = False) -> None:
        try:
            super()._fail(hook, attempt, reopens=reopens)
        except EngineError:
            if reopens and hook is self.fail_and_not_persist:
                self._apply(attempt[0])
            raise


class LostAfterFailure(MemoryStorage):
    """A batch that became durable as its commit failed is gone with the next reopen: a rollback where none may be."""

    def __init__(self) -> None:
        super().__init__()
        self._before: list[tuple[dict[str, Head], dict[tuple[str, str], Earlier]]] = []

    def _commit(self, writes: Sequence[Write], stamp: Stamp | None) -> list[Outcome]:
        self._before[:] = [(dict(self._heads), dict(self._keys))]
        return super()._commit(writes, stamp)

    async def reopen(self) -> None:
        if self._failed and self._before:
            heads, keys = self._before.pop()
            self._heads.clear()
            self._heads.update(heads)
            self._keys.clear()
            self._keys.update(keys)
        await super().reopen()


class DelegationForgotten(MemoryStorage):
    """A zone goes on writing below a prefix that it has handed out."""

    def _is_delegated(self, prefix: str) -> bool:
        return False


class PrefixByText(MemoryStorage):
    """88.118.80 is taken to lie in 88.118.8."""

    def _any_within(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self._heads)


class TwoWinners(MemoryStorage):
    """What is decided on was read before the batch's turn came."""

    def _commit(self, writes: Sequence[Write], stamp: Stamp | None) -> list[Outcome]:
        self._read = dict(self._heads), dict(self._keys)
        time.sleep(0.002)
        return super()._commit(writes, stamp)

    def _apply(self, write: Write) -> Outcome:
        heads, keys = self._heads, self._keys
        self._heads, self._keys = self._read
        try:
            outcome = super()._apply(write)
        finally:
            self._heads, self._keys = heads, keys
        if outcome is Outcome.COMMITTED:
            heads[write.identifier] = write.head
            keys[write.zone, write.idempotency_key] = Earlier(write.request_hash, write.receipt)
        return outcome


class DeliveryLost(MemoryStorage):
    """Of two events in one batch only the first is delivered."""

    def _point(self, writes: Sequence[Write]) -> None:
        before = set(self._outbox)
        super()._point(writes)
        for key in [key for key in self._outbox if key not in before and key[1] != writes[0].identifier]:
            del self._outbox[key]


class PointerOfALoser(MemoryStorage):
    """What an event mentions is kept though the event was refused."""

    def _apply(self, write: Write) -> Outcome:
        outcome = super()._apply(write)
        self._pointers.update(write.mentions)
        return outcome


class DeliveredTwice(MemoryStorage):
    """Pointers from elsewhere that are known are new again."""

    async def put_pointers(self, mentions: Sequence[Mention]) -> list[Mention]:
        self._pointers.difference_update(mentions[-1:])
        return await super().put_pointers(mentions)


class DeadForgotten(MemoryStorage):
    """What is given up is gone."""

    async def settle(self, tried: Sequence[Delivery]) -> None:
        await super().settle(tried)
        for one in tried:
            if one.state is DeliveryState.DEAD:
                self._outbox.pop(one.key, None)


PLANTED = [
    DeliveryLost,
    PointerOfALoser,
    DeliveredTwice,
    DeadForgotten,
    LostWrite,
    TwoOwners,
    NewReceipt,
    HeadAhead,
    OldVersionChanges,
    LoserClaims,
    ToldTwice,
    NotTold,
    ClaimLost,
    StaleHandle,
    HalfABatch,
    LostAfterFailure,
    DelegationForgotten,
    PrefixByText,
    TwoWinners,
]


@pytest.mark.parametrize("store", PLANTED, ids=lambda store: store.__name__)
def test_a_planted_bug_is_found(store: type[MemoryStorage]) -> None:
    count = Count(store.__name__)
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        stage = Stage(runner, [(count, lambda: MemoryPlace(store))])
        with pytest.raises(DifferenceError):
            run_program(stage, STEPS_MAX, 1, shrink=False)
    assert count.differences
    assert count.steps <= STEPS_MAX

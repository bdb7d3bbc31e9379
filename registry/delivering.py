"""Tells other nodes of the events that were recorded here about their things; one task a node.

Reads what is due from the outbox, finds the home of each subject, tells each home in calls of at most 1,000 pointers,
and keeps how it went. A node that dies on the way has told and not kept it, or neither: it tells again, which the home
takes as the same. Nothing here is on the way of a commit, and no home waits for another.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final

import grpc
import grpc.aio
import structlog

from idtrace.errors import IdtraceError, InputError, Reason
from idtrace.serving.errors import code_name, error_from_rpc, error_of
from idtrace.v1 import pointer_pb2, pointer_pb2_grpc
from registry.homes import OPTIONS, Home, Homes
from registry.outbox import done, failed
from registry.pointers import DELIVERED_MAX
from registry.storage import Delivery, Mention, Storage, home

log = structlog.get_logger(__name__)

# Deliveries of one round: a pallet's cartons, and the calls of a round take some seconds at most.
ROUND_MAX: Final = 2_000
# A home that answers at all does so within this; longer ones hold up the round.
CALL_SECONDS: Final = 5.0
# Prefixes that are looked for, and homes that are told, at the same time.
AT_ONCE: Final = 16
# What another node of the same store has left behind, and what is due again, is found after this.
POLL_SECONDS: Final = 1.0
RETRY_SECONDS_MAX: Final = 30.0


class Delivering:
    """Empties the outbox. Belongs to one event loop; ``news`` is set when a commit has returned."""

    def __init__(
        self,
        storage: Storage,
        homes: Homes,
        news: asyncio.Event,
        *,
        now_ms: Callable[[], int],
        chance: Callable[[], float] = random.random,
        on_commit: Callable[[], object] = lambda: None,
    ) -> None:
        self._storage = storage
        self._homes = homes
        self._news = news
        self._now_ms = now_ms
        self._chance = chance
        self._on_commit = on_commit  # called when pointers may have been kept here
        self.delivered = 0
        self.failed = 0

    async def run(self) -> None:
        """Deliver for ever; a store that does not answer is asked less and less often."""
        failures = 0
        while True:
            self._news.clear()
            wait_seconds = POLL_SECONDS
            try:
                more = await self.round()
                failures = 0
            except Exception as error:  # noqa: BLE001 - the engine's own, whatever it is: it may come back
                more = False
                failures += 1
                if failures == 1:
                    log.warning("the outbox cannot be used", error=type(error).__name__, detail=str(error))
                wait_seconds = min(POLL_SECONDS * 2 ** min(failures, 8), RETRY_SECONDS_MAX)
            if failures:
                await asyncio.sleep(wait_seconds)
            elif not more:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_seconds):
                        await self._news.wait()

    async def round(self) -> bool:
        """Try what is due, once; whether there may be more."""
        due = await self._storage.deliveries(self._now_ms(), ROUND_MAX)
        if not due:
            return False
        prefixes: dict[object, list[Delivery]] = {}
        for delivery in due:
            subject = home(delivery.subject)
            prefixes.setdefault(subject.prefix if subject else None, []).append(delivery)
        turns = asyncio.Semaphore(AT_ONCE)
        groups: dict[Home, list[Delivery]] = {}
        await asyncio.gather(*(self._place(some, groups, turns) for some in prefixes.values()))
        await asyncio.gather(*(self._tell(where, some, turns) for where, some in groups.items()))
        return len(due) == ROUND_MAX

    async def _place(
        self, deliveries: list[Delivery], groups: dict[Home, list[Delivery]], turns: asyncio.Semaphore
    ) -> None:
        """Put deliveries of one prefix to those of their home."""
        subject = home(deliveries[0].subject)
        assert subject is not None, "only what has a home is outbound"
        async with turns:
            try:
                where = await self._homes.find(subject.prefix)
            except IdtraceError as error:
                await self._failed(deliveries, f"{error.reason}: {error.detail}")
                return
            except TimeoutError:
                await self._failed(deliveries, f"{Reason.NO_ANSWER}: its home was not found in time")
                return
        groups.setdefault(where, []).extend(deliveries)

    async def _tell(self, where: Home, deliveries: list[Delivery], turns: asyncio.Semaphore) -> None:
        async with turns:
            for some in _calls(deliveries):
                if where.here:  # the subject has moved to this node since
                    await self._storage.put_pointers([mention for one in some for mention in one.mentions()])
                    self._on_commit()
                    await self._storage.settle([done(one) for one in some])
                elif not await self._call(where, some):
                    self._homes.forget(where)

    async def _call(self, where: Home, deliveries: list[Delivery]) -> bool:
        """Tell one home of some; whether it has answered."""
        said = ""
        for endpoint in where.endpoints:
            try:
                results = await deliver(endpoint, [mention for one in deliveries for mention in one.mentions()])
            except (grpc.aio.AioRpcError, TimeoutError) as error:
                said = f"{endpoint}: {_why(error)}"
            except InputError as error:
                said = f"{endpoint}: {error.reason}: {error.detail}"
            else:
                await self._answered(deliveries, results)
                return True
        await self._failed(deliveries, said or f"{Reason.NO_ANSWER}: zone '{where.zone}' names no nodes")
        return False

    async def _answered(self, deliveries: Sequence[Delivery], results: Sequence[IdtraceError | None]) -> None:
        """Keep what became of each; a delivery is done when all its pointers were taken."""
        tried, left = [], iter(results)
        now_ms = self._now_ms()
        for delivery in deliveries:
            errors = [error for error in (next(left) for _ in delivery.roles) if error is not None]
            if not errors:
                tried.append(done(delivery))
                continue
            said, for_good = f"{errors[0].reason}: {errors[0].detail}", isinstance(errors[0], InputError)
            tried.append(failed(delivery, said, now_ms=now_ms, chance=self._chance(), for_good=for_good))
            if errors[0].reason is Reason.NOT_AUTHORITATIVE:
                subject = home(delivery.subject)
                assert subject is not None, "only what has a home is outbound"
                self._homes.forget_prefix(subject.prefix)
        await self._settle(tried)

    async def _failed(self, deliveries: Sequence[Delivery], error: str) -> None:
        now_ms = self._now_ms()
        await self._settle([failed(one, error, now_ms=now_ms, chance=self._chance()) for one in deliveries])

    async def _settle(self, tried: Sequence[Delivery]) -> None:
        await self._storage.settle(tried)
        failures = [one for one in tried if one.error]
        self.failed += len(failures)
        self.delivered += len(tried) - len(failures)
        given_up = [one for one in failures if one.state == "dead"]
        if given_up:
            log.error(
                "deliveries were given up", count=len(given_up), subject=given_up[0].subject, error=given_up[0].error
            )


def _calls(deliveries: Sequence[Delivery]) -> Iterator[list[Delivery]]:
    """Deliveries of one call each: as many as its pointers allow."""
    some: list[Delivery] = []
    room = DELIVERED_MAX
    for delivery in deliveries:
        if some and len(delivery.roles) > room:
            yield some
            some, room = [], DELIVERED_MAX
        some.append(delivery)
        room -= len(delivery.roles)
    if some:
        yield some


async def deliver(endpoint: str, mentions: Sequence[Mention]) -> list[IdtraceError | None]:
    """Deliver pointers to a node; for each why it was refused, or None.

    Raises:
        grpc.aio.AioRpcError: it does not answer, or refuses all of them.
        TimeoutError: it took too long.
        InputError: ANSWER_MALFORMED.
    """
    pointers = [pointer_pb2.Pointer(subject=m.subject, time_ms=m.time_ms, event=m.event, role=m.role) for m in mentions]
    async with asyncio.timeout(2 * CALL_SECONDS), grpc.aio.insecure_channel(endpoint, options=OPTIONS) as channel:
        stub = pointer_pb2_grpc.PointerServiceStub(channel)
        response = await stub.Deliver(pointer_pb2.DeliverRequest(pointers=pointers), timeout=CALL_SECONDS)
    if response is None or len(response.results) != len(mentions):
        raise InputError(Reason.ANSWER_MALFORMED, "the answer has not one result a pointer", field="results")
    return [_error(result) for result in response.results]


def _error(result: pointer_pb2.DeliverResult) -> IdtraceError | None:
    if result.WhichOneof("result") == "is_new":
        return None
    if result.error.reason not in tuple(Reason):  # of a newer node, or none at all
        return IdtraceError(Reason.ANSWER_MALFORMED, result.error.detail)
    return error_of(code_name(result.error.code), Reason(result.error.reason), result.error.field, result.error.detail)


def _why(error: grpc.aio.AioRpcError | TimeoutError) -> str:
    if isinstance(error, TimeoutError):
        return f"{Reason.NO_ANSWER}: no answer in {2 * CALL_SECONDS:.0f} s"
    known = error_from_rpc(error)
    return f"{known.reason}: {known.detail}" if known else f"{Reason.NO_ANSWER}: {error.code().name}"

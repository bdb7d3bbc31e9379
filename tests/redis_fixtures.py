"""Resolvers that share a real Redis over a simulated tree, for the integration tests of the shared cache."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

from idtrace.identifier import Identifier
from idtrace.record import Record, RecordBody
from resolver.cache import AnswerCache
from resolver.cache_redis import RedisCache
from resolver.driver import Answer, Clock, Resolver
from resolver.effects import Limits
from resolver.redis_link import RedisPlace
from resolver.shared_cache import Keys, Seal
from resolver.sharing import Sharing
from resolver.trust import TrustStore
from tests.simulator import Tree, TreeUpstream

KEYS = Keys()
SHARED_KEY = b"the same for all of one operator"
# A busy machine is no fault of Redis: what is tested for its time says so.
PATIENT_MS = 1_000


def item(number: int) -> Identifier:
    return Identifier.parse(f"88.118.8/SN-{number}")


def tree(items: int = 20) -> Tree:
    """A tree whose clock is the real one."""
    built = Tree(now=int(time.time()))
    built.latency_ms = 0  # an ask must not move it on
    built.zone("88", node="top")
    built.zone("88.118", node="second")
    built.zone("88.118.8", node="ent")
    for number in range(items):
        built.register(item(number), {"name": "vial"})
    return built


@dataclass
class Member:
    """One resolver process, as far as Redis can tell."""

    resolver: Resolver
    sharing: Sharing
    store: RedisCache
    upstream: TreeUpstream

    async def until(self, holds: Callable[[], bool], seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not holds():  # noqa: ASYNC110 - what is waited for happens in Redis as well
                await asyncio.sleep(0.001)

    async def ready(self) -> None:
        await self.until(lambda: self.store.up)

    async def shared(self) -> None:
        """All that was to be written has been."""
        await self.until(lambda: not self.store._writes)
        await self.store.read([b"idt:z:none"])

    def forget(self) -> None:
        """As after a long time: nothing in the process but its floors."""
        self.resolver.cache.purge(Identifier.parse("88/x").prefix)
        for zone in list(self.resolver.trust._chains):
            self.resolver.trust._drop_chain(zone)

    async def version(self, identifier: Identifier, **options: Any) -> int:
        return version_of(await self.resolver.resolve(identifier, **options))


def version_of(answer: Answer) -> int:
    assert answer.resolution.bundle is not None, answer.resolution
    return RecordBody.parse(cast("Record", answer.resolution.bundle.outcome).signed.payload).version


@asynccontextmanager
async def members(
    built: Tree,
    url: str,
    count: int = 2,
    *,
    place: RedisPlace | None = None,
    limits: Limits | None = None,
    shared_key: bytes = SHARED_KEY,
) -> AsyncIterator[list[Member]]:
    made = [
        member(
            built, replace(place, url=url) if place else RedisPlace(url, op_timeout_ms=PATIENT_MS), limits, shared_key
        )
        for _ in range(count)
    ]
    try:
        for one in made:
            one.resolver.start()
        for one in made:
            await one.ready()
        yield made
    finally:
        for one in made:
            await one.resolver.close()


def member(built: Tree, place: RedisPlace, limits: Limits | None = None, shared_key: bytes = SHARED_KEY) -> Member:
    limits = limits or Limits()
    cache, trust, clock = AnswerCache(), TrustStore(chain_seconds=limits.chain_seconds), Clock()
    store, upstream = RedisCache(place), TreeUpstream(built)
    sharing = Sharing(
        store, Seal(shared_key, built.anchor), cache=cache, trust=trust, clock=clock, limits=limits, keys=KEYS
    )
    resolver = Resolver(
        anchor=built.anchor,
        root_endpoints=built.root_endpoints,
        upstream=upstream,
        limits=limits,
        cache=cache,
        trust=trust,
        clock=clock,
        sharing=sharing,
    )
    return Member(resolver, sharing, store, upstream)

"""A resolver node in front of real registry nodes: what one writes, the other finds and proves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

from idtrace import wire
from idtrace.bundle import Verdict
from idtrace.delegation import State
from idtrace.errors import Reason
from idtrace.record import Status
from idtrace.statements import PrefixStatus
from idtrace.v1 import registry_pb2, resolver_pb2, resolver_pb2_grpc
from idtrace.verification import verify_bundle
from registry.admission import VALUE_FRAME_BYTES, VALUES_BYTES_MAX
from resolver import server as resolver_server
from resolver.config import ResolverConfig
from tests.nodes import Nodes, make_record

FOUND, ABSENT = resolver_pb2.VERDICT_FOUND, resolver_pb2.VERDICT_ABSENT
GONE, UNREACHABLE = resolver_pb2.VERDICT_GONE, resolver_pb2.VERDICT_UNREACHABLE


class Asker:
    """A client of the resolver under test."""

    def __init__(self, stub: resolver_pb2_grpc.ResolverServiceAsyncStub, nodes: Nodes) -> None:
        self.stub = stub
        self.nodes = nodes

    async def resolve(self, text: str, *, fresh: bool = False) -> resolver_pb2.ResolveResponse:
        """The answer, whose proof has been verified against the root key alone."""
        response = await self.stub.Resolve(resolver_pb2.ResolveRequest(text=text, fresh=fresh), timeout=10)
        if response.verdict in {FOUND, ABSENT, GONE}:
            report = verify_bundle(wire.bundle_from_pb(response.bundle), self.nodes.anchor, now=int(time.time()))
            assert report.verdict is Verdict(resolver_pb2.Verdict.Name(response.verdict).removeprefix("VERDICT_"))
        return response


@asynccontextmanager
async def site(tmp_path: Path) -> AsyncIterator[Asker]:
    async with Nodes(tmp_path) as nodes:
        root = await nodes.registry("")
        await nodes.registry("88")
        await nodes.registry("88.118")
        await nodes.registry("88.118.8")
        await nodes.host("88.118.9", at="88.118")
        config = ResolverConfig.parse(
            {
                "listen": "127.0.0.1:0",
                "root_key": "root.pub",
                "root_endpoints": [root.endpoint],
                "drain_seconds": 0.1,
                "limits": {"chain_seconds": 0},
            },
            tmp_path,
        )
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        task = asyncio.create_task(resolver_server.run(config, on_ready=ready.set_result, stop=stop))
        channel = grpc.aio.insecure_channel(await ready)
        try:
            yield Asker(resolver_pb2_grpc.ResolverServiceStub(channel), nodes)
        finally:
            await channel.close()
            stop.set()
            await task


async def test_registered_is_found_down_four_nodes(tmp_path: Path) -> None:
    async with site(tmp_path) as asker:
        before = await asker.resolve("88.118.8/SN-1")
        assert (before.verdict, before.reason) == (ABSENT, "IDENTIFIER_ABSENT")
        record = await asker.nodes.register("88.118.8/SN-1", {"lot": "L1", "price": "12"}, restricted=("price",))
        after = await asker.resolve("88.118.8/SN-1", fresh=True)
        assert (after.verdict, after.upstream_calls) == (FOUND, 4)
        assert after.bundle.record.signed.payload == record.signed.payload
        assert [value.data for value in after.bundle.record.values] == [b"L1"]


async def test_hosted_zone_is_answered_by_its_parents_node(tmp_path: Path) -> None:
    async with site(tmp_path) as asker:
        await asker.nodes.register("88.118.9/SN-1", {"lot": "L1"})
        response = await asker.resolve("88.118.9/SN-1")
        assert (response.verdict, response.upstream_calls) == (FOUND, 3)


async def test_a_recall_is_seen_by_a_fresh_question_at_once_and_by_every_other_soon(tmp_path: Path) -> None:
    async with site(tmp_path) as asker:
        first = await asker.nodes.register("88.118.8/SN-1", {"lot": "L1"})
        assert (await asker.resolve("88.118.8/SN-1")).detail.startswith("version 1")
        recalled = make_record("88.118.8/SN-1", previous=first, status=Status.RECALLED)
        request = registry_pb2.UpdateRequest(idempotency_key="recall-0001", record=wire.record_to_pb(recalled))
        await asker.nodes.of_zone["88.118.8"].registry.Update(request, timeout=10)
        response = await asker.resolve("88.118.8/SN-1", fresh=True)
        assert (response.verdict, response.detail) == (FOUND, "version 2, recalled")
        async with asyncio.timeout(5):
            while (await asker.resolve("88.118.8/SN-1")).detail != response.detail:  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.005)


async def test_disabled_prefix_and_revoked_zone(tmp_path: Path) -> None:
    async with site(tmp_path) as asker:
        await asker.nodes.register("88.118.8/SN-1", {"lot": "L1"})
        assert (await asker.resolve("88.118.8/SN-1")).verdict == FOUND
        await asker.nodes.set_status("88.118.8", PrefixStatus.DISABLED, "disable-0001")
        disabled = await asker.resolve("88.118.8/SN-1", fresh=True)
        assert (disabled.verdict, disabled.reason) == (ABSENT, Reason.PREFIX_DISABLED)
        await asker.nodes.set_status("88.118.8", PrefixStatus.ENABLED, "enable-0001")
        assert (await asker.resolve("88.118.8/SN-1", fresh=True)).verdict == FOUND
        await asker.nodes.delegate("88.118.8", (), node_key_zone="88.118.8", state=State.REVOKED, keys=())
        revoked = await asker.resolve("88.118.8/SN-1", fresh=True)
        assert (revoked.verdict, revoked.reason) == (GONE, Reason.DELEGATION_REVOKED)


async def test_dead_enterprise_node_is_unreachable_and_never_a_lie(tmp_path: Path) -> None:
    async with site(tmp_path) as asker:
        await asker.nodes.register("88.118.8/SN-1", {"lot": "L1"})
        await asker.nodes.of_zone["88.118.8"].end()
        response = await asker.resolve("88.118.8/SN-1")
        assert (response.verdict, response.reason) == (UNREACHABLE, Reason.NO_ANSWER)


async def test_the_largest_record_that_is_registered_is_found(tmp_path: Path) -> None:
    each = 4_096
    values = {f"f{n:02}": "x" * (each - VALUE_FRAME_BYTES) for n in range(VALUES_BYTES_MAX // each)}
    async with site(tmp_path) as asker:
        await asker.nodes.register("88.118.8/LARGE", values)
        assert (await asker.resolve("88.118.8/LARGE")).verdict == FOUND

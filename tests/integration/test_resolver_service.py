"""A whole resolver node on loopback, built by its own server module, in front of gRPC registries of a signed tree."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from idtrace import wire
from idtrace.bundle import BUNDLE_BYTES_MAX, Verdict
from idtrace.errors import Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.serving.errors import error_from_rpc
from idtrace.serving.keyfile import write_public_key
from idtrace.v1 import registry_pb2, resolver_pb2, resolver_pb2_grpc
from idtrace.verification import verify_bundle
from resolver import server as resolver_server
from resolver.config import ResolverConfig
from tests import simulator as sim
from tests.simulator import Tree

NODES = ("root", "top", "second-a", "second-b", "ent", "drug")
GTIN_TEXT = "(01)09506000134352(21)12345"


@dataclass
class Site:
    """A running tree with one resolver."""

    tree: Tree
    stub: resolver_pb2_grpc.ResolverServiceAsyncStub
    endpoint: str
    raw: dict[str, bytes]  # node → exact bytes that it answers instead
    calls: list[str]

    async def resolve(self, text: str, *, fresh: bool = False) -> resolver_pb2.ResolveResponse:
        return await self.stub.Resolve(resolver_pb2.ResolveRequest(text=text, fresh=fresh), timeout=10)


async def registry_node(site: Site, node: str, stack: AsyncExitStack) -> str:
    async def get(request: registry_pb2.RegistryServiceGetRequest, context: Any) -> bytes:
        site.calls.append(node)
        if node in site.raw:
            return site.raw[node]
        known = Prefix.parse(request.known_zone) if request.HasField("known_zone") else None
        answer = site.tree.answer(node, Identifier.parse(request.identifier), known)
        return registry_pb2.RegistryServiceGetResponse(answer=wire.answer_to_pb(answer)).SerializeToString()

    handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
        get, request_deserializer=registry_pb2.RegistryServiceGetRequest.FromString
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("idtrace.v1.RegistryService", {"Get": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stack.push_async_callback(server.stop, 0)
    return f"127.0.0.1:{port}"


def plant(tree: Tree, at: dict[str, str], dead: str) -> None:
    tree.zone("88", node="top", endpoints=(at["top"],))
    tree.zone("88.118", node=("second-a", "second-b"), endpoints=(at["second-a"], at["second-b"]))
    tree.zone("88.118.8", node="ent", endpoints=(at["ent"],))
    tree.zone("88.118.9", hosted=True, endpoints=(at["second-a"],))
    tree.zone("88.118.7", node="dead", endpoints=(dead,))
    tree.zone("drug", node="drug", endpoints=(at["drug"],))
    tree.register("88.118.8/SN-1", {"name": "vial"}, restricted={"price": "12"})
    tree.register("88.118.9/SN-1", {"name": "hosted"})
    tree.register("drug.8123456/7890123456789", {"name": "dose"})


@asynccontextmanager
async def running(tmp_path: Path, **settings: object) -> AsyncIterator[Site]:
    tree = Tree(now=int(time.time()))
    async with AsyncExitStack() as stack:
        site = Site(tree, cast("resolver_pb2_grpc.ResolverServiceAsyncStub", None), "", {}, [])
        at = {node: await registry_node(site, node, stack) for node in NODES}
        plant(tree, at, dead="127.0.0.1:1")
        write_public_key(tmp_path / "root.pub", [tree.root_key.public_key])
        config = ResolverConfig.parse(
            {"listen": "127.0.0.1:0", "root_key": "root.pub", "root_endpoints": [at["root"]], "drain_seconds": 0.1}
            | settings,
            tmp_path,
        )
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        task = asyncio.create_task(resolver_server.run(config, on_ready=ready.set_result, stop=stop))
        endpoint = await ready
        channel = grpc.aio.insecure_channel(endpoint)
        site.stub = resolver_pb2_grpc.ResolverServiceStub(channel)
        site.endpoint = endpoint
        try:
            yield site
        finally:
            await channel.close()
            stop.set()
            await task


async def refused(call: Any) -> tuple[grpc.StatusCode, str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = error_from_rpc(caught.value)
    assert error is not None, caught.value
    return caught.value.code(), str(error.reason), error.field


async def test_found_with_a_proof_that_needs_no_node(tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        first = await site.resolve("88.118.8/SN-1")
        assert (first.identifier, first.verdict, first.reason) == (
            "88.118.8/SN-1",
            resolver_pb2.VERDICT_FOUND,
            "",
        )
        assert (first.source, first.upstream_calls, first.age_ms) == (resolver_pb2.SOURCE_WALK, 4, 0)
        assert 0 < first.ttl_ms <= 300_000
        bundle = wire.bundle_from_pb(first.bundle)
        assert verify_bundle(bundle, site.tree.anchor, now=site.tree.now).verdict is Verdict.FOUND
        second = await site.resolve("88.118.8/SN-1")
        assert (second.source, second.upstream_calls) == (resolver_pb2.SOURCE_CACHE, 0)
        assert second.bundle == first.bundle
        assert second.ttl_ms <= first.ttl_ms
        assert site.calls == ["root", "top", "second-a", "ent"]
        fresh = await site.resolve("88.118.8/SN-1", fresh=True)
        assert (fresh.source, fresh.upstream_calls) == (resolver_pb2.SOURCE_WALK, 1)


async def test_restricted_values_do_not_leave_the_resolver(tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        for fresh in (False, False, True):
            response = await site.resolve("88.118.8/SN-1", fresh=fresh)
            assert [value.data for value in response.bundle.record.values] == [b"vial"]
            assert b"12" not in [value.data for value in response.bundle.record.values]
            report = verify_bundle(wire.bundle_from_pb(response.bundle), site.tree.anchor, now=site.tree.now)
            assert report.valid
            assert report.withheld == (2,)


@pytest.mark.parametrize(
    ("text", "verdict", "reason"),
    [
        ("88.118.8/none", resolver_pb2.VERDICT_ABSENT, "IDENTIFIER_ABSENT"),
        ("88.118.7/x", resolver_pb2.VERDICT_UNREACHABLE, "NO_ANSWER"),
        ("88.118.9/SN-1", resolver_pb2.VERDICT_FOUND, ""),
        ("81234567890123456789", resolver_pb2.VERDICT_FOUND, ""),
        (GTIN_TEXT, resolver_pb2.VERDICT_ABSENT, "IDENTIFIER_ABSENT"),
    ],
)
async def test_scanned_text_gets_its_verdict(tmp_path: Path, text: str, verdict: int, reason: str) -> None:
    async with running(tmp_path) as site:
        response = await site.resolve(text)
        assert (response.verdict, response.reason) == (verdict, reason), response.detail
        assert response.detail
        assert response.HasField("bundle") is (verdict != resolver_pb2.VERDICT_UNREACHABLE)


async def test_gone_and_bogus_and_their_reasons(tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        site.tree.revoke("88.118.9")
        gone = await site.resolve("88.118.9/SN-1")
        assert (gone.verdict, gone.reason) == (resolver_pb2.VERDICT_GONE, "DELEGATION_REVOKED")
        assert verify_bundle(wire.bundle_from_pb(gone.bundle), site.tree.anchor, now=site.tree.now).valid
        for data, text in ((b"\xff" * 9, "88.118.8/a"), (b"\x0a" * 300_000, "88.118.8/b"), (b"", "88.118.8/c")):
            site.raw["ent"] = data
            bogus = await site.resolve(text)
            assert bogus.verdict == resolver_pb2.VERDICT_BOGUS
            assert bogus.reason in {"ANSWER_MALFORMED", "ANSWER_EMPTY"}
            assert not bogus.HasField("bundle")
            assert 0 < bogus.ttl_ms <= 5_000


async def test_one_lying_node_of_two_does_not_deny_service(tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        site.raw["second-a"] = b"\xff\xff"
        response = await site.resolve("88.118.8/SN-1")
        assert response.verdict == resolver_pb2.VERDICT_FOUND
        assert site.calls == ["root", "top", "second-a", "second-b", "ent"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "FIELD_MISSING"),
        ("x" * 2_049, "FIELD_TOO_LARGE"),
        ("号" * 700, "FIELD_TOO_LARGE"),
        ("no slash", "SCAN_UNKNOWN_SCHEME"),
        ("(01)09506000134353", "GS1_CHECK_DIGIT"),
    ],
)
async def test_text_that_is_no_identifier_is_the_callers_fault(tmp_path: Path, text: str, reason: str) -> None:
    async with running(tmp_path) as site:
        assert await refused(site.resolve(text)) == (grpc.StatusCode.INVALID_ARGUMENT, reason, "text")
        assert site.calls == []


async def test_batch_gives_each_item_its_own_result(tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        texts = ["88.118.8/SN-1", "no slash", "88.118.8/none", "88.118.7/x", "", "88.118.8/SN-1"]
        request = resolver_pb2.ResolveBatchRequest(items=[resolver_pb2.ResolveRequest(text=text) for text in texts])
        results = (await site.stub.ResolveBatch(request, timeout=10)).results
        assert [result.response.verdict for result in results] == [
            resolver_pb2.VERDICT_FOUND,
            0,
            resolver_pb2.VERDICT_ABSENT,
            resolver_pb2.VERDICT_UNREACHABLE,
            0,
            resolver_pb2.VERDICT_FOUND,
        ]
        errors = [result.error for result in results if result.HasField("error")]
        assert [(e.code, e.reason, e.field) for e in errors] == [
            (3, "SCAN_UNKNOWN_SCHEME", "items[1].text"),
            (3, "FIELD_MISSING", "items[4].text"),
        ]
        assert all(error.detail for error in errors)


@pytest.mark.parametrize(("count", "reason"), [(0, "FIELD_MISSING"), (257, "BATCH_TOO_LARGE")])
async def test_batch_is_bounded(tmp_path: Path, count: int, reason: str) -> None:
    async with running(tmp_path) as site:
        items = [resolver_pb2.ResolveRequest(text="88.118.8/SN-1")] * count
        call = site.stub.ResolveBatch(resolver_pb2.ResolveBatchRequest(items=items), timeout=10)
        assert await refused(call) == (grpc.StatusCode.INVALID_ARGUMENT, reason, "items")


async def test_full_batch_of_different_names_is_answered(tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        await site.resolve("88.118.8/SN-1")
        items = [resolver_pb2.ResolveRequest(text=f"88.118.8/none-{n}") for n in range(256)]
        response = await site.stub.ResolveBatch(resolver_pb2.ResolveBatchRequest(items=items), timeout=20)
        assert [r.response.identifier for r in response.results] == [item.text for item in items]
        assert {r.response.verdict for r in response.results} == {resolver_pb2.VERDICT_ABSENT}
        assert len(site.calls) == 4 + 256


async def test_verify_tells_every_step_and_the_first_that_fails(tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        good = wire.bundle_to_bytes(site.tree.bundle("88.118.8/SN-1"))
        response = await site.stub.Verify(resolver_pb2.VerifyRequest(bundle=good), timeout=10)
        assert response.valid
        assert response.verdict == resolver_pb2.VERDICT_FOUND
        assert [check.name for check in response.checks] == ["root key set", *["delegation"] * 3, "record"]
        late = resolver_pb2.VerifyRequest(bundle=good, at=site.tree.now + 400 * sim.DAY)
        response = await site.stub.Verify(late, timeout=10)
        assert not response.valid
        assert response.verdict == resolver_pb2.VERDICT_BOGUS
        assert response.checks[-1].reason == "DELEGATION_EXPIRED"
        assert not response.checks[-1].passed


async def test_verify_refuses_what_is_no_bundle(tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        good = wire.bundle_to_bytes(site.tree.bundle("88.118.8/SN-1"))
        torn = good[:-1] + bytes([good[-1] ^ 1])
        for data, at, reason in (
            (b"", 0, Reason.BUNDLE_MALFORMED),
            (b"\xff\xff", 0, Reason.BUNDLE_MALFORMED),
            (torn, 0, Reason.BUNDLE_DIGEST),
            (b"x" * (BUNDLE_BYTES_MAX + 1), 0, Reason.BUNDLE_MALFORMED),
            (good, -1, Reason.FIELD_MALFORMED),
        ):
            call = site.stub.Verify(resolver_pb2.VerifyRequest(bundle=data, at=at), timeout=10)
            code, said, _ = await refused(call)
            assert (code, said) == (grpc.StatusCode.INVALID_ARGUMENT, reason)


async def test_call_without_a_deadline_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        call = site.stub.Resolve(resolver_pb2.ResolveRequest(text="88.118.8/SN-1"))
        assert (await refused(call))[1] == "DEADLINE_MISSING"


async def test_a_herd_of_callers_is_one_walk(tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        responses = await asyncio.gather(*(site.resolve("88.118.8/SN-1") for _ in range(200)))
        assert {response.verdict for response in responses} == {resolver_pb2.VERDICT_FOUND}
        assert site.calls == ["root", "top", "second-a", "ent"]
        sources = [response.source for response in responses]
        assert sources.count(resolver_pb2.SOURCE_WALK) == 1


async def test_every_tree_name_is_a_verdict_of_the_contract() -> None:
    from resolver.service import _SOURCES, _VERDICTS

    assert set(_VERDICTS) == set(Verdict)
    assert set(_VERDICTS.values()) == set(resolver_pb2.Verdict.values()) - {resolver_pb2.VERDICT_UNSPECIFIED}
    assert set(_SOURCES.values()) == set(resolver_pb2.Source.values()) - {resolver_pb2.SOURCE_UNSPECIFIED}

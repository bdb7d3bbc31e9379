"""How a node learns of its zones: from honest parents, from parents that lie, and when its own disk says no."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from idtrace import wire
from idtrace.delegation import Delegation
from idtrace.errors import InputError
from idtrace.identifier import ROOT, Prefix
from idtrace.signature import Kind, Signed, sign
from idtrace.v1 import delegation_pb2, delegation_pb2_grpc
from registry.adoption import Adoption
from registry.authority import Authority
from tests.core_fixtures import NOW, anchor, delegate, delegation, link, signer
from tests.memory_storage import MemoryStorage
from tests.nodes import DAY, TIMEOUT, Node, Nodes
from tests.registry_fixtures import until

ZONE = "88.118.7"
Answer = Callable[[Sequence[Signed]], Any]


class Parent(delegation_pb2_grpc.DelegationServiceServicer):
    """Stands between a node and its real parent; honest until it is told what to say."""

    def __init__(self, real: Node | None) -> None:
        self.real = real
        self.says: Answer | None = None
        self.asked = 0
        self.heard: dict[int, tuple[Signed, ...]] = {}

    async def Get(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        self.asked += 1
        links: tuple[Signed, ...] = ()
        if self.real is not None:
            chain = (await self.real.delegation.Get(request, timeout=TIMEOUT)).chain
            links = wire.delegations_from_pb(chain)
            self.heard[Delegation.parse(links[-1].payload).version] = links
        said = self.says(links) if self.says else links
        if said is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        return delegation_pb2.DelegationServiceGetResponse(chain=[wire.signed_to_pb(signed) for signed in said])

    async def asked_again(self, times: int = 3) -> None:
        enough = self.asked + times
        await until(lambda: self.asked >= enough)


def parent_of(real: Node | None) -> Parent:
    return Parent(real)  # type: ignore[abstract]  # nobody calls what it does not implement


@asynccontextmanager
async def serving(parent: Parent) -> AsyncIterator[str]:
    server = grpc.aio.server()
    delegation_pb2_grpc.add_DelegationServiceServicer_to_server(parent, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def held(node: Node, zone: str = ZONE) -> tuple[Signed, ...]:
    """The chain that a node itself shows for its zone."""
    request = delegation_pb2.DelegationServiceGetRequest(prefix=zone)
    return wire.delegations_from_pb((await node.delegation.Get(request, timeout=TIMEOUT)).chain)


def resigned(signed: Signed, *names: str, **changes: Any) -> Signed:
    body = replace(Delegation.parse(signed.payload), **changes)
    return sign(Kind.DELEGATION, body.payload(), *(signer(name) for name in names))


async def until_refreshed(child: Node) -> None:
    """Wait for the second version of the zone below the second version of 88."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            if [Delegation.parse(signed.payload).version for signed in await held(child)] == [1, 2, 1, 2]:
                return
            await asyncio.sleep(0.02)


def now() -> int:
    return int(time.time())


LIES: dict[str, Callable[[Parent], Answer]] = {
    "the version before": lambda parent: lambda _: parent.heard[1],
    "a parent's version before": lambda parent: lambda truth: (*truth[:1], parent.heard[1][1], *truth[2:]),
    "a second content of this version": lambda _: (
        lambda truth: (
            *truth[:-1],
            resigned(truth[-1], "zone of 88.118", endpoints=("liar.example:1",)),
        )
    ),
    "signed by a thief": lambda _: lambda truth: (*truth[:-1], resigned(truth[-1], "thief", version=9)),
    "signed by the zone itself": lambda _: (
        lambda truth: (
            *truth[:-1],
            resigned(truth[-1], f"zone of {ZONE}", version=9),
        )
    ),
    "already over": lambda _: (
        lambda truth: (
            *truth[:-1],
            resigned(truth[-1], "zone of 88.118", version=9, not_before=now() - DAY, expires=now() - 1),
        )
    ),
    "a sibling's chain": lambda _: (
        lambda truth: (
            *truth[:-1],
            resigned(truth[-1], "zone of 88.118", version=9, child=Prefix.parse("88.118.6")),
        )
    ),
    "a chain that stops short": lambda _: lambda truth: truth[:-1],
    "a chain without its root": lambda _: lambda truth: truth[1:],
    "another root": lambda _: lambda truth: (resigned(truth[0], "thief"), *truth[1:]),
    "garbage": lambda _: lambda truth: (*truth[:-1], replace(truth[-1], payload=b"\xff")),
    "too much": lambda _: lambda truth: (*truth, *truth, *truth),
    "nothing": lambda _: lambda truth: (),
    "no answer": lambda _: lambda truth: None,
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_node_keeps_the_newest_true_chain_whatever_its_parent_says_now(tmp_path: Path, lie: str) -> None:
    async with Nodes(tmp_path) as nodes:
        for zone in ("", "88", "88.118"):
            await nodes.registry(zone)
        parent = parent_of(nodes.of_zone["88.118"])
        async with serving(parent) as endpoint:
            child = await nodes.registry(ZONE, parents=[endpoint])
            for zone, node in (("88", nodes.of_zone["88"]), (ZONE, child)):
                await nodes.delegate(zone, (node.endpoint,), node_key_zone=zone)
            await nodes.until_adopted(nodes.of_zone["88.118"], "88.118")
            await until_refreshed(child)
            truth = await held(child)
            parent.says = LIES[lie](parent)
            await parent.asked_again()
            assert await held(child) == truth
            await child.end()
            await child.start()
            await parent.asked_again()
            assert await held(child) == truth
            parent.says = None
            await nodes.delegate(ZONE, (child.endpoint,), node_key_zone=ZONE)
            await nodes.until_adopted(child, ZONE, version=3)


async def test_a_dead_or_ignorant_parent_does_not_stand_before_the_next_one(tmp_path: Path) -> None:
    async with Nodes(tmp_path) as nodes:
        await nodes.registry("")
        nobody, ignorant = parent_of(None), parent_of(None)
        nobody.says = lambda _: None
        async with serving(nobody) as first, serving(ignorant) as second:
            parents = [first, second, nodes.of_zone[""].endpoint]
            await asyncio.wait_for(nodes.registry("88", parents=parents), 5)
            assert nobody.asked
            assert ignorant.asked


async def test_a_node_has_zones_under_two_parents(tmp_path: Path) -> None:
    async with Nodes(tmp_path) as nodes:
        for zone in ("", "88", "77"):
            await nodes.registry(zone)
        node = await asyncio.wait_for(nodes.registry("88.118", "77.1"), 5)
        for zone in ("88.118", "77.1"):
            await nodes.register(f"{zone}/A", by=signer(f"record of {zone}"))
            assert len(await held(node, zone)) == 3


async def test_a_chain_that_could_not_be_stored_is_stored_later(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MemoryStorage()
    put, failures = memory.put_chain, [1, 2]

    async def failing(zone: str, chain: Sequence[bytes]) -> None:
        if failures:
            failures.pop()
            raise OSError("disk full")
        await put(zone, chain)

    monkeypatch.setattr(memory, "put_chain", failing)
    zone = Prefix.parse("88")
    chain = (link(""), delegate(delegation("88")))
    parent = parent_of(None)
    parent.says = lambda _: chain
    authority = Authority(anchor(), frozenset({zone}))
    async with serving(parent) as endpoint:
        task = asyncio.create_task(Adoption(memory, authority, [endpoint], lambda: NOW).run(0.02))
        try:
            expected = {"88": tuple(wire.signed_to_bytes(signed) for signed in chain)}
            await until(lambda: memory.chain("88") == expected["88"], 3)
            assert await memory.chains() == expected
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert not failures


async def test_a_second_root_node_takes_the_next_key_set_from_their_store_and_no_false_or_older_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = delegation("")
    second = delegate(replace(first, version=2, previous=first.hash, endpoints=("moved.example:1",)))
    third = replace(first, version=3, previous=bytes(32))
    authority, memory = Authority(anchor(), frozenset({ROOT})), MemoryStorage()
    written: list[Signed] = []  # by the other node, last

    async def chains() -> dict[str, tuple[bytes, ...]]:
        return {"": (wire.signed_to_bytes(written[-1]),)} if written else {}

    def held() -> list[Signed]:
        return [link.signed for link in authority.own.get(ROOT, ())]

    monkeypatch.setattr(memory, "chains", chains)
    task = asyncio.create_task(Adoption(memory, authority, [], lambda: NOW).run(0.02))
    try:
        for signed in (delegate(first), second):
            written.append(signed)
            await until(lambda: held() == written[-1:], 3)
        for wrong in (delegate(first), delegate(third, "stranger"), delegate(delegation("88"))):
            written.append(wrong)
            await asyncio.sleep(0.1)
            assert held() == [second]
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_no_proxy_of_the_environment_stands_between_a_node_and_its_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zone = Prefix.parse(ZONE)
    parent = parent_of(None)
    async with serving(parent) as address:
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        adoption = Adoption(MemoryStorage(), Authority(anchor(), frozenset({zone})), [address], lambda: NOW)
        assert await adoption._ask(address, zone) is None
    assert parent.asked == 1


async def test_a_second_node_on_one_folder_is_refused(tmp_path: Path) -> None:
    async with Nodes(tmp_path) as nodes:
        first = await nodes.registry("")
        second = Node(first.zones, first.endpoint, first.config)
        with pytest.raises(InputError, match="another node runs on this folder"):
            await second.start()
        await second.channel.close()


async def test_a_store_that_is_none_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "root.data").mkdir()
    (tmp_path / "root.data" / "registry.sqlite3").write_bytes(b"no database " * 1_000)
    async with Nodes(tmp_path) as nodes:
        with pytest.raises(InputError, match="the store cannot be used") as caught:
            await nodes.registry("")
    assert caught.value.field.endswith("registry.sqlite3")

"""Where a subject's home is: found over real nodes, never taken from one that lies, and looked for again later."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from idtrace import wire
from idtrace.chain import Link
from idtrace.errors import BusyError, IdtraceError, Reason
from idtrace.identifier import Prefix
from idtrace.v1 import delegation_pb2, delegation_pb2_grpc
from registry.authority import Authority
from registry.homes import KEPT_SECONDS, Home, Homes
from registry.service import DelegationService
from tests.nodes import Nodes

DEEP, HOSTED = Prefix.parse("86.1.5"), Prefix.parse("86.1.9")


def authority(nodes: Nodes, *own: str) -> Authority:
    """Of a node that has adopted these zones."""
    found = Authority(nodes.anchor, frozenset(Prefix.parse(zone) for zone in own))
    for zone in own:
        names = ["", *(".".join(zone.split(".")[:n]) for n in range(1, zone.count(".") + 2))]
        links = [Link.read(nodes.delegations[name]) for name in names if name in nodes.delegations]
        found.adopt(Prefix.parse(zone), tuple(links))
    return found


@asynccontextmanager
async def tree(folder: Path) -> AsyncIterator[Nodes]:
    async with Nodes(folder) as nodes:
        for zone in ("", "88", "86", "86.1", "86.1.5"):
            await nodes.registry(zone)
        await nodes.host("86.1.9", at="86.1")
        yield nodes


@pytest.mark.slow
async def test_a_home_is_found_from_anywhere_and_kept_for_a_while(tmp_path: Path) -> None:
    async with tree(tmp_path) as nodes:
        now = [int(time.time())]
        at = {zone: (nodes.of_zone[zone].endpoint,) for zone in ("", "86.1", "86.1.5")}
        homes = Homes(authority(nodes), at[""], lambda: now[0])  # of a node that has adopted nothing yet
        for homes_of in (Homes(authority(nodes, "88"), (), lambda: now[0]), homes):
            assert await homes_of.find(DEEP) == Home(DEEP, at["86.1.5"])
            assert await homes_of.find(HOSTED) == Home(HOSTED, at["86.1"])
            assert await homes_of.find(Prefix.parse("86.1.7.3")) == Home(Prefix.parse("86.1"), at["86.1"])
            assert await homes_of.find(Prefix.parse("99.1")) == Home(Prefix.parse(""), at[""])
        here = Homes(authority(nodes, "86.1.5"), (), lambda: now[0])
        assert await here.find(DEEP) == Home(DEEP, (), here=True)
        kept = Home(DEEP, at["86.1.5"])
        await nodes.of_zone["86.1.5"].end()
        assert await homes.find(DEEP) == kept  # it was heard a moment ago
        for is_whole in (True, False):
            homes.forget(kept) if is_whole else homes.forget_prefix(DEEP)
            with pytest.raises(BusyError) as silent:
                await homes.find(DEEP)
            assert silent.value.reason is Reason.NO_ANSWER
            await nodes.of_zone["86.1.5"].start()
            assert await homes.find(DEEP) == kept
            await nodes.of_zone["86.1.5"].end()
        now[0] += KEPT_SECONDS
        with pytest.raises(BusyError):
            await homes.find(DEEP)


class Liar(DelegationService):
    """Answers with what it is given."""

    def __init__(self) -> None:
        self.chain: list[Any] = []

    async def Get(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        chain = [wire.signed_to_pb(signed) for signed in self.chain]
        return delegation_pb2.DelegationServiceGetResponse(chain=chain)


@pytest.mark.slow
async def test_a_node_that_lies_of_a_home_sends_nobody_there(tmp_path: Path) -> None:
    async with tree(tmp_path) as nodes:
        server, liar = grpc.aio.server(), Liar()
        delegation_pb2_grpc.add_DelegationServiceServicer_to_server(liar, server)
        endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        try:
            homes = Homes(authority(nodes), (endpoint,), lambda: int(time.time()))
            root, top, other = (nodes.delegations[zone] for zone in ("", "86", "88"))
            for chain, reason in (
                ([top], Reason.ROOT_MISMATCH),
                ([root, other], Reason.REFERRAL_SIDEWAYS),
                ([root, nodes.delegations["86.1"]], Reason.SIGNER_UNKNOWN),
            ):
                liar.chain = chain
                with pytest.raises(IdtraceError) as refused:
                    await homes.find(DEEP)
                assert refused.value.reason is reason
            liar.chain = []  # it knows nothing: then nothing deeper than where it was asked
            assert await homes.find(DEEP) == Home(Prefix.parse(""), (endpoint,))
        finally:
            await server.stop(None)


async def test_a_zone_without_nodes_and_a_way_back_up_are_no_homes(tmp_path: Path) -> None:
    async with Nodes(tmp_path) as nodes:
        await nodes.registry("")
        with pytest.raises(BusyError):
            await Homes(authority(nodes), (), lambda: int(time.time())).find(DEEP)
        await nodes.registry("86")
        known = authority(nodes, "86")
        root = nodes.of_zone[""]
        await nodes.of_zone["86"].end()
        server, liar = grpc.aio.server(), Liar()
        delegation_pb2_grpc.add_DelegationServiceServicer_to_server(liar, server)
        assert server.add_insecure_port(nodes.of_zone["86"].endpoint)
        await server.start()
        try:
            liar.chain = [nodes.delegations[""]]
            known.own[Prefix.parse("88")] = known.own.pop(Prefix.parse("86"))  # known of, and not ours
            with pytest.raises(IdtraceError) as refused:
                await Homes(known, (root.endpoint,), lambda: int(time.time())).find(DEEP)
            assert refused.value.reason is Reason.REFERRAL_UPWARD
        finally:
            await server.stop(None)

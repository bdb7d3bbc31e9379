"""Four parties with nodes of their own, and a resolver in front of them that traces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from idtrace.epcis.write import event_bytes
from idtrace.party import Location, LocationKind, PartyRole
from idtrace.provenance.gather import pointers_of
from idtrace.provenance.history import Observed
from idtrace.provenance.reading import read_event
from idtrace.v1 import pointer_pb2, pointer_pb2_grpc, resolver_pb2, resolver_pb2_grpc
from resolver import server as resolver_server
from resolver.config import ResolverConfig
from tests.capture_fixtures import a_party, event_record, license_record
from tests.nodes import TIMEOUT, Nodes
from tests.unit.provenance.story import CARRIER, CENTRE, CLINIC, MAKER, TRUCK, uri

PARENT = "88.118"
ROLES = {
    MAKER: (PartyRole.MAKER, "Maker", "疫苗厂"),
    CARRIER: (PartyRole.CARRIER, "Carrier", "冷链物流"),
    CENTRE: (PartyRole.DISTRIBUTOR, "Centre", "疾控中心"),
    CLINIC: (PartyRole.CLINIC, "Clinic", "接种单位"),
}


@dataclass
class Site:
    """Nodes, the resolver's address, and a client of it."""

    nodes: Nodes
    resolver: str
    stub: Any

    async def tell(self, told: Iterable[Observed]) -> list[Observed]:
        """Each party records its events at its own node; they come back as the nodes now have them."""
        recorded = []
        for one in told:
            record = event_record(one.party, event_bytes(one.event))
            observed = read_event(record, logged=False)
            await self.nodes.submit(record, observed.identifier[-32:])
            recorded.append(observed)
        return recorded

    async def until_pointed(self, recorded: Iterable[Observed], subjects: Iterable[str]) -> None:
        """Wait until the home of each subject knows of every event about it."""
        pointers = pointers_of(tuple(recorded))
        for subject in subjects:
            due = {pointer.event for pointer in pointers if pointer.subject == subject}
            stub: Any = pointer_pb2_grpc.PointerServiceStub(self.nodes.node_for(subject).channel)
            async with asyncio.timeout(30):
                while True:
                    answer = await stub.List(pointer_pb2.PointerServiceListRequest(subject=subject), timeout=TIMEOUT)
                    if due <= {pointer.event for pointer in answer.pointers}:
                        break
                    await asyncio.sleep(0.05)

    async def trace(self, text: str) -> list[Any]:
        """All parts of a trace."""
        request = resolver_pb2.TraceRequest(text=text)
        return [part async for part in self.stub.Trace(request, timeout=30)]


async def license_all(nodes: Nodes) -> None:
    for prefix, (role, english, chinese) in ROLES.items():
        places = (Location(uri(TRUCK), LocationKind.VEHICLE),) if prefix == CARRIER else ()
        party = a_party(prefix, role, name_en=english, name_zh=chinese, locations=places)
        await nodes.submit(license_record(PARENT, party), f"licence-{prefix}")


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    """The root, the parent and three parties have nodes; the clinic is hosted by the parent."""
    async with Nodes(folder) as nodes:
        for zone in ("", "88", PARENT, MAKER, CARRIER, CENTRE):
            await nodes.registry(zone)
        await nodes.host(CLINIC, at=PARENT)
        await license_all(nodes)
        async with a_resolver(folder, nodes) as (address, stub):
            yield Site(nodes, address, stub)


@asynccontextmanager
async def a_resolver(folder: Path, nodes: Nodes) -> AsyncIterator[tuple[str, Any]]:
    """A resolver that begins at the root's node: its address, and a client of it."""
    config = ResolverConfig.parse(
        {
            "listen": "127.0.0.1:0",
            "root_key": "root.pub",
            "root_endpoints": [nodes.of_zone[""].endpoint],
            "drain_seconds": 0.1,
        },
        folder,
    )
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    task = asyncio.create_task(resolver_server.run(config, on_ready=ready.set_result, stop=stop))
    address = await ready
    channel = grpc.aio.insecure_channel(address)
    try:
        yield address, resolver_pb2_grpc.ResolverServiceStub(channel)
    finally:
        await channel.close()
        stop.set()
        await task

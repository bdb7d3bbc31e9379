"""Real nodes for integration tests: gRPC servers on loopback with SQLite in a temporary folder, in this event loop.

async with Nodes(tmp_path) as nodes:
    root = await nodes.registry("")                       # the root's node, with its key set installed
    await nodes.registry("88")                            # starts a node and delegates to it
    await nodes.registry("88.118")
    await nodes.host("88.118.9", at="88.118")             # 托管: the parent's node keeps the records
    receipt = await nodes.register("88.118.9/SN-1", {"lot": "L1"})
"""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from idtrace import wire
from idtrace.chain import Anchor
from idtrace.delegation import Delegation, Role, State, ZoneKey
from idtrace.identifier import Identifier, Prefix
from idtrace.record import (
    Permission,
    Record,
    RecordBody,
    RecordKind,
    Status,
    ValueDigest,
    build_values,
    peek_identifier,
)
from idtrace.serving.keyfile import write_private_key, write_public_key
from idtrace.signature import Kind, MemorySigner, Signed, Signer, sign
from idtrace.statements import Command, PrefixStatus, enrol
from idtrace.v1 import delegation_pb2, delegation_pb2_grpc, registry_pb2, registry_pb2_grpc
from registry import server as registry_server
from registry.config import RegistryConfig
from tests.core_fixtures import signer

TIMEOUT = 10.0
DAY = 86_400


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def key_name(role: Role, zone: str) -> str:
    """As in tests/core_fixtures.py: one key for each role of each zone."""
    return f"{role} of {zone}"


def private_key(name: str) -> Ed25519PrivateKey:
    return signer(name)._private


def make_record(
    identifier: str,
    values: dict[str, str] | None = None,
    *,
    by: Signer | None = None,
    previous: Record | None = None,
    restricted: tuple[str, ...] = (),
    kept: tuple[ValueDigest, ...] = (),
    **changes: Any,
) -> Record:
    """A record signed by its zone's record key (the prefix is taken for the zone), version after ``previous``."""
    parsed = Identifier.parse(identifier)
    entries = [
        (name, data.encode(), Permission.RESTRICTED if name in restricted else Permission.PUBLIC)
        for name, data in (values or {}).items()
    ]
    digests, shown = build_values(entries, (bytes([n % 256]) * 16 for n in range(len(entries))))
    fields: dict[str, Any] = {
        "identifier": parsed,
        "version": RecordBody.parse(previous.signed.payload).version + 1 if previous else 1,
        "previous": previous.hash if previous else b"",
        "kind": RecordKind.ITEM,
        "status": Status.ACTIVE,
        "issued_at": int(time.time()),
        "ttl_seconds": 60,
        "class_id": None,
        "values": kept or digests,
    }
    body = RecordBody(**(fields | changes))
    key = by or signer(key_name(Role.RECORD, str(parsed.prefix)))
    return Record(sign(Kind.RECORD, body.payload(), key), shown)


class Node:
    """One registry node under test."""

    def __init__(self, zones: tuple[str, ...], endpoint: str, config: RegistryConfig) -> None:
        self.zones = zones
        self.endpoint = endpoint
        self.config = config
        self.stop = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.channel = grpc.aio.insecure_channel(endpoint)
        self.registry = registry_pb2_grpc.RegistryServiceStub(self.channel)
        self.delegation = delegation_pb2_grpc.DelegationServiceStub(self.channel)

    async def start(self) -> None:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(
            registry_server.run(self.config, on_ready=ready.set_result, stop=self.stop), name=f"node {self.zones}"
        )
        waiting: list[asyncio.Future[Any]] = [ready, self.task]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if self.task.done():
            self.task.result()

    async def end(self) -> None:
        self.stop.set()
        if self.task is not None:
            await self.task

    async def close(self) -> None:
        await self.end()
        await self.channel.close()


class Nodes:
    """A tree of registry nodes; keys come from fixed seeds, files and stores lie below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root_key = folder / "root.pub"
        write_public_key(self.root_key, [signer("pinned root").public_key])
        self.anchor = Anchor.of(signer("pinned root").public_key)
        self.of_zone: dict[str, Node] = {}
        self.delegations: dict[str, Signed] = {}
        self._keys = 0
        self._twins: list[Node] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in {id(node): node for node in (*self._twins, *self.of_zone.values())}.values():
            await node.close()

    async def registry(self, *zones: str, **settings: object) -> Node:
        """Start a node for these zones and delegate each from its parent."""
        name = zones[0] or "root"
        node_key = self.folder / f"{name}.key"
        node_signer = key_name(Role.NODE, zones[0])
        write_private_key(node_key, private_key(node_signer), None)
        endpoint = f"127.0.0.1:{free_port()}"
        parents = sorted({self.parent(zone).endpoint for zone in zones if zone})
        config = RegistryConfig.parse(
            {
                "listen": endpoint,
                "data": f"{name}.data",
                "root_key": "root.pub",
                "node_key": node_key.name,
                "zones": list(zones),
                "parents": parents,
                "refresh_seconds": 0.1,
                "drain_seconds": 0.1,
            }
            | settings,
            self.folder,
        )
        node = Node(zones, endpoint, config)
        await node.start()
        for zone in zones:
            self.of_zone[zone] = node
            await self.delegate(zone, (endpoint,), node_key_zone=zones[0])
        for zone in zones:
            await self.until_adopted(node, zone)
        return node

    async def twin(self, node: Node) -> Node:
        """A second node for the same zones, with the same keys, on the store that the first one's settings name."""
        endpoint = f"127.0.0.1:{free_port()}"
        data = self.folder / f"twin-{len(self._twins)}.data"
        edge = replace(node.config.edge, listen=endpoint)
        twin = Node(node.zones, endpoint, replace(node.config, edge=edge, data=data))
        self._twins.append(twin)
        await twin.start()
        return twin

    async def host(self, zone: str, *, at: str) -> None:
        """Delegate a zone to the node of ``at``, which keeps its records."""
        host = self.of_zone[at]
        self.of_zone[zone] = host
        await self.delegate(zone, (host.endpoint,), hosted=True, node_key_zone=host.zones[0])

    def parent(self, zone: str) -> Node:
        return self.of_zone[self.parent_zone(zone)]

    def parent_zone(self, zone: str) -> str:
        above = zone
        while above:
            above = above.rpartition(".")[0]
            if above in self.of_zone:
                break
        return above

    def delegation(self, zone: str, endpoints: tuple[str, ...], node_key_zone: str, **changes: Any) -> Delegation:
        names = {
            Role.ZONE: key_name(Role.ZONE, zone),
            Role.RECORD: key_name(Role.RECORD, zone),
            Role.NODE: key_name(Role.NODE, node_key_zone),
        }
        now = int(time.time())
        current = self.delegations.get(zone)
        body = Delegation.parse(current.payload) if current else None
        fields: dict[str, Any] = {
            "child": Prefix.parse(zone),
            "parent": Prefix.parse(self.parent_zone(zone)),
            "version": body.version + 1 if body else 1,
            "previous": body.hash if body else b"",
            "state": State.ACTIVE,
            "hosted": False,
            "keys": tuple(ZoneKey(signer(name).public_key, frozenset({role})) for role, name in names.items()),
            "zone_threshold": 1,
            "endpoints": endpoints,
            "issued_at": now,
            "not_before": now - 60,
            "expires": now + 30 * DAY,
        }
        return Delegation(**(fields | changes))

    def parent_signer(self, zone: str) -> MemorySigner:
        return signer(key_name(Role.ZONE, self.parent_zone(zone)) if zone else "pinned root")

    def enrolments(self, body: Delegation, node_key_zone: str) -> list[Signed]:
        zone = str(body.child)
        names = [key_name(Role.ZONE, zone), key_name(Role.RECORD, zone), key_name(Role.NODE, node_key_zone)]
        by_id = {signer(name).public_key.key_id: signer(name) for name in names}
        return [
            enrol(by_id[k.key.key_id], body.child, role) for k in body.keys for role in k.roles if k.key.key_id in by_id
        ]

    async def delegate(
        self, zone: str, endpoints: tuple[str, ...], *, node_key_zone: str, hosted: bool = False, **changes: Any
    ) -> bytes:
        """Sign and submit the next version of a delegation."""
        body = self.delegation(zone, endpoints, node_key_zone, hosted=hosted, **changes)
        signed = sign(Kind.DELEGATION, body.payload(), self.parent_signer(zone))
        node = self.of_zone[""] if zone == "" else self.parent(zone)
        self._keys += 1
        parts: dict[str, Any] = {
            "idempotency_key": f"delegation-{self._keys}",
            "delegation": wire.signed_to_pb(signed),
        }
        if body.state is State.REVOKED:
            revoked = await node.delegation.Revoke(delegation_pb2.RevokeRequest(**parts), timeout=TIMEOUT)
            self.delegations[zone] = signed
            return revoked.delegation_hash
        parts["enrolments"] = [wire.signed_to_pb(e) for e in self.enrolments(body, node_key_zone)]
        made: Any
        if body.version == 1:
            made = await node.delegation.Delegate(delegation_pb2.DelegateRequest(**parts), timeout=TIMEOUT)
        else:
            made = await node.delegation.Rotate(delegation_pb2.RotateRequest(**parts), timeout=TIMEOUT)
        self.delegations[zone] = signed
        return bytes(made.delegation_hash)

    async def until_adopted(self, node: Node, zone: str, version: int = 1) -> None:
        """Wait until a node holds this version of its own zone."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                request = delegation_pb2.DelegationServiceGetRequest(prefix=zone)
                chain = (await node.delegation.Get(request, timeout=TIMEOUT)).chain
                if chain:
                    last = Delegation.parse(chain[-1].payload)
                    if str(last.child) == zone and last.version >= version:
                        return
                await asyncio.sleep(0.02)

    def node_for(self, identifier: str) -> Node:
        lineage = Identifier.parse(identifier).prefix.lineage()
        return next(self.of_zone[str(zone)] for zone in reversed(lineage) if str(zone) in self.of_zone)

    async def submit(self, record: Record, key: str, *, node: Node | None = None) -> registry_pb2.RegisterResponse:
        identifier = str(peek_identifier(record.signed.payload))
        request = registry_pb2.RegisterRequest(idempotency_key=key, record=wire.record_to_pb(record))
        return await (node or self.node_for(identifier)).registry.Register(request, timeout=TIMEOUT)

    async def register(self, identifier: str, values: dict[str, str] | None = None, **changes: Any) -> Record:
        record = make_record(identifier, values, **changes)
        await self.submit(record, f"key-{identifier}"[:64])
        return record

    async def get(self, identifier: str, node: Node | None = None, **fields: Any) -> Any:
        request = registry_pb2.RegistryServiceGetRequest(identifier=identifier, **fields)
        response = await (node or self.node_for(identifier)).registry.Get(request, timeout=TIMEOUT)
        return wire.answer_from_pb(response.answer)

    async def set_status(self, prefix: str, status: PrefixStatus, key: str, comment: str = "") -> Any:
        command = Command(Prefix.parse(prefix), status, comment, int(time.time()))
        above = self.parent_zone(prefix)
        signed = sign(Kind.COMMAND, command.payload(), signer(key_name(Role.ZONE, above)))
        request = registry_pb2.SetPrefixStatusRequest(idempotency_key=key, command=wire.signed_to_pb(signed))
        return await self.of_zone[above].registry.SetPrefixStatus(request, timeout=TIMEOUT)

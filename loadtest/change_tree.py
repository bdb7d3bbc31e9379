"""One registry and many resolvers as processes on loopback, and a registrant who changes what they tell.

The registry is the root's node and keeps every zone below it, so that one process can be asked, watched and changed.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from idtrace import wire
from idtrace.delegation import Delegation, Role, State, ZoneKey
from idtrace.identifier import ROOT, Identifier, Prefix
from idtrace.record import Record, RecordBody, RecordKind, Status
from idtrace.serving.keyfile import write_private_key, write_public_key
from idtrace.signature import Kind, MemorySigner, sign
from idtrace.statements import enrol
from idtrace.v1 import delegation_pb2, delegation_pb2_grpc, registry_pb2, registry_pb2_grpc

HOST: Final = "127.0.0.1"
READY_SECONDS_MAX: Final = 120.0
STOP_SECONDS_MAX: Final = 20.0
TIMEOUT_SECONDS: Final = 30.0
_DAY: Final = 86_400


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class Zone:
    """A zone's keys and the last version of its delegation."""

    prefix: Prefix
    keys: dict[Role, MemorySigner]
    body: Delegation | None = None


@dataclass(slots=True)
class ChangeTree:
    """The processes, by their ids; nothing else is ever stopped."""

    folder: Path
    resolvers: int
    redis: str = ""
    endpoint: str = ""
    resolver_endpoints: list[str] = field(default_factory=list)
    zones: dict[Prefix, Zone] = field(default_factory=dict)
    records: dict[Identifier, Record] = field(default_factory=dict)
    _processes: list[asyncio.subprocess.Process] = field(default_factory=list)
    _channel: grpc.aio.Channel | None = None
    _calls: int = 0

    async def start(self) -> None:
        """Start the registry, give the root its keys, and start the resolvers.

        Raises:
            RuntimeError: a process did not come up.
        """
        pinned, node_key = MemorySigner(Ed25519PrivateKey.generate()), Ed25519PrivateKey.generate()
        node = MemorySigner(node_key)
        write_public_key(self.folder / "root.pub", [pinned.public_key])
        write_private_key(self.folder / "node.key", node_key, None)
        secret = self.folder / "shared.secret"
        secret.touch(0o600)
        secret.write_bytes(os.urandom(32))
        self.endpoint = f"{HOST}:{free_port()}"
        registry = {"listen": self.endpoint, "data": "data", "root_key": "root.pub", "node_key": "node.key"}
        await self._run("registry", "registry", json_toml({**registry, "zones": [""], "parents": []}))
        self._channel = grpc.aio.insecure_channel(self.endpoint)
        self.zones[ROOT] = Zone(ROOT, {Role.NODE: node, **_fresh(Role.ZONE, Role.RECORD)})
        await self.delegate(ROOT, by=pinned)
        starts = []
        for number in range(self.resolvers):
            settings = {"listen": f"{HOST}:{free_port()}", "root_key": "root.pub", "root_endpoints": [self.endpoint]}
            self.resolver_endpoints.append(str(settings["listen"]))
            tables = f'[redis]\nurl = "{self.redis}"\nshared_key = "shared.secret"\nprefix = "chg{os.getpid()}:"\n'
            shares = self.redis and number % 2 == 0
            starts.append(self._run("resolver", f"resolver-{number}", json_toml(settings) + (tables if shares else "")))
        for start in starts:  # one after another: an import costs a second of a core
            await start

    async def stop(self) -> None:
        """End what was started here."""
        if self._channel is not None:
            await self._channel.close()
        for process in self._processes:
            if process.returncode is None:
                process.terminate()
        for process in self._processes:
            try:
                async with asyncio.timeout(STOP_SECONDS_MAX):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    async def delegate(self, prefix: Prefix, *, by: MemorySigner | None = None) -> int:
        """Sign and submit the next version of a zone's delegation; its version."""
        zone = self.zones[prefix]
        body = self._next(zone)
        self._calls += 1
        signed = sign(Kind.DELEGATION, body.payload(), by or self.zones[body.parent].keys[Role.ZONE])
        # Proofs of possession for all keys but the node's, which the root has shown.
        proofs = [enrol(key, prefix, role) for role, key in zone.keys.items()]
        parts = delegation_pb2.DelegateRequest(
            idempotency_key=f"delegation-{os.getpid()}-{self._calls}",
            delegation=wire.signed_to_pb(signed),
            enrolments=[wire.signed_to_pb(proof) for proof in proofs],
        )
        stub = delegation_pb2_grpc.DelegationServiceStub(self._open)
        if body.version == 1:
            await stub.Delegate(parts, timeout=TIMEOUT_SECONDS)
        else:
            again = delegation_pb2.RotateRequest.FromString(parts.SerializeToString())
            await stub.Rotate(again, timeout=TIMEOUT_SECONDS)
        zone.body = body
        return body.version

    async def add_zones(self, prefixes: Sequence[Prefix]) -> None:
        """New zones, each below the nearest that there is, kept by the root's node."""
        for prefix in prefixes:
            self.zones[prefix] = Zone(
                prefix, {Role.NODE: self.zones[ROOT].keys[Role.NODE], **_fresh(Role.ZONE, Role.RECORD)}
            )
            await self.delegate(prefix)

    async def revoke_key(self, prefix: Prefix) -> int:
        """Take the zone's record key out of its delegation; the new version."""
        self.zones[prefix].keys |= _fresh(Role.RECORD)
        return await self.delegate(prefix)

    async def register(self, identifiers: Sequence[Identifier]) -> None:
        """Version 1 of each."""
        for identifier in identifiers:
            await self.update(identifier, Status.ACTIVE)

    async def update(self, identifier: Identifier, status: Status) -> int:
        """The next version, with this status; returns once the registry has acknowledged it."""
        previous = self.records.get(identifier)
        version = RecordBody.parse(previous.signed.payload).version + 1 if previous else 1
        body = RecordBody(
            identifier=identifier,
            version=version,
            previous=previous.hash if previous else b"",
            kind=RecordKind.ITEM,
            status=status,
            issued_at=int(time.time()),
            ttl_seconds=300,
            class_id=None,
            values=(),
        )
        record = Record(sign(Kind.RECORD, body.payload(), self.zones[identifier.prefix].keys[Role.RECORD]), ())
        stub = registry_pb2_grpc.RegistryServiceStub(self._open)
        self._calls += 1
        key = f"record-{os.getpid()}-{self._calls}"
        if version == 1:
            first = registry_pb2.RegisterRequest(idempotency_key=key, record=wire.record_to_pb(record))
            await stub.Register(first, timeout=TIMEOUT_SECONDS)
        else:
            later = registry_pb2.UpdateRequest(idempotency_key=key, record=wire.record_to_pb(record))
            await stub.Update(later, timeout=TIMEOUT_SECONDS)
        self.records[identifier] = record
        return version

    def _above(self, prefix: Prefix) -> Prefix:
        """The nearest zone above, which hands this one out."""
        lineage = [one for one in prefix.lineage() if one in self.zones and one != prefix]
        return max(lineage, key=lambda one: len(one.labels), default=ROOT)

    @property
    def _open(self) -> grpc.aio.Channel:
        assert self._channel is not None, "start() comes first"
        return self._channel

    def _next(self, zone: Zone) -> Delegation:
        now = int(time.time())
        roles: dict[str, tuple[MemorySigner, set[Role]]] = {}
        for role, key in zone.keys.items():
            roles.setdefault(key.public_key.key_id, (key, set()))[1].add(role)
        return Delegation(
            child=zone.prefix,
            parent=self._above(zone.prefix),
            version=zone.body.version + 1 if zone.body else 1,
            previous=zone.body.hash if zone.body else b"",
            state=State.ACTIVE,
            hosted=bool(zone.prefix.labels),
            keys=tuple(ZoneKey(key.public_key, frozenset(held)) for key, held in roles.values()),
            zone_threshold=1,
            endpoints=(self.endpoint,),
            issued_at=now,
            not_before=now - 60,
            expires=now + _DAY,
        )

    async def _run(self, role: str, name: str, config: str) -> None:
        file = self.folder / f"{name}.toml"
        file.write_text(config, "utf-8")
        log = (self.folder / f"{name}.log").open("ab")
        with log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "idtrace", "node", "run", "--role", role, "--config", str(file)),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self._processes.append(process)
        assert process.stdout is not None
        async with asyncio.timeout(READY_SECONDS_MAX):
            line = await process.stdout.readline()
        if not line.startswith(b"ready "):
            said = (self.folder / f"{name}.log").read_text("utf-8", "replace")[-1_000:]
            raise RuntimeError(f"{name} did not start: {said}")


def _fresh(*roles: Role) -> dict[Role, MemorySigner]:
    return {role: MemorySigner(Ed25519PrivateKey.generate()) for role in roles}


def json_toml(settings: Mapping[str, object]) -> str:
    """Settings as TOML; for strings and lists of strings both notations are one."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())

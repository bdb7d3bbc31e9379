"""One history on each storage, through real ``idtrace node run`` processes: the answers are the same, byte for byte.

Keys, configuration, requests and the clock are the same, and Ed25519 signs the same bytes in the same way; so whatever
differs, the storage has told. The clock is the one thing that is put in place of the real one (tests/clocked_node.py):
receipts, denials and statuses hold the time, and masked they would prove less.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from idtrace.delegation import Delegation
from idtrace.serving.errors import error_from_rpc
from idtrace.serving.keyfile import write_private_key, write_public_key
from idtrace.v1 import delegation_pb2, registry_pb2
from idtrace.wire import delegations_from_pb
from registry.cassandra_bridge import Bridge
from registry.cassandra_schema import migrate
from registry.cassandra_settings import CassandraSettings
from tests.core_fixtures import PINNED, public, signer
from tests.engines.cassandra import CassandraCluster
from tests.history import DELEGATION, OK, History, Step, history, questions, the_end
from tests.nodes import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
# A busy machine takes its time; nothing here is measured.
TIMEOUT = 60.0
NODES = {"root": "", "88": "88"}


@dataclass(frozen=True)
class Answer:
    """All that a caller gets to see: the response's bytes, or the status with its details."""

    body: bytes
    code: str
    text: str
    details: bytes
    reason: str


class World:
    """A root and the node of 88 as processes, their records in one storage."""

    def __init__(self, folder: Path, storage: str) -> None:
        self.folder = folder
        self.clock = folder / "clock"
        self._storage = storage
        self._ports = {name: free_port() for name in NODES}
        self._channels: dict[str, grpc.Channel] = {}
        self._processes: dict[str, subprocess.Popen[str]] = {}
        folder.mkdir()
        write_public_key(folder / "root.pub", [public(PINNED)])
        for name, zone in NODES.items():
            write_private_key(folder / f"{name}.key", signer(f"node of {zone}")._private, None)
            parents = [f"127.0.0.1:{self._ports['root']}"] if zone else []
            lines = {
                "listen": f"127.0.0.1:{self._ports[name]}",
                "data": f"{name}.data",
                "root_key": "root.pub",
                "node_key": f"{name}.key",
                "zones": [zone],
                "parents": parents,
                "refresh_seconds": 0.05,
            }
            config = "".join(f"{key} = {value!r}\n" for key, value in lines.items())
            (folder / f"{name}.toml").write_text(config + storage.replace("LEDGER", name), "utf-8")

    def start(self, at: int) -> None:
        self._tell(at)
        for name in NODES:
            log = (self.folder / f"{name}.log").open("ab")
            words = ["node", "run", "--role", "registry", "--config", str(self.folder / f"{name}.toml")]
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "tests.clocked_node", str(self.clock), *words],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            log.close()
        for name, process in self._processes.items():
            assert process.stdout is not None
            assert process.stdout.readline().startswith("ready"), (self.folder / f"{name}.log").read_text()
            self._channels[name] = grpc.insecure_channel(f"127.0.0.1:{self._ports[name]}")

    def end(self, number: int = signal.SIGTERM) -> None:
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        for process in self._processes.values():
            process.send_signal(number)
        for process in self._processes.values():
            process.communicate(timeout=TIMEOUT)
        self._processes.clear()

    def _tell(self, at: int) -> None:
        """Set the clock; whoever reads it meanwhile reads the old time or the new."""
        part = self.clock.with_suffix(".part")
        part.write_text(str(at), "ascii")
        part.rename(self.clock)

    def play(self, step: Step) -> Answer:
        self._tell(step.at)
        call: Any = self._channels[step.node].unary_unary(step.method)
        try:
            answer = Answer(call(step.request, timeout=TIMEOUT), "OK", "", b"", OK)
        except grpc.RpcError as error:
            answer = _refusal(error)
        if step.adopted:
            self._until_adopted(step.adopted)
        return answer

    def _until_adopted(self, version: int) -> None:
        """The node of 88 asks its parent by itself, many times a second."""
        ask: Any = self._channels["88"].unary_unary(f"/{DELEGATION}/Get")
        request = delegation_pb2.DelegationServiceGetRequest(prefix="88").SerializeToString()
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            told = delegation_pb2.DelegationServiceGetResponse.FromString(ask(request, timeout=TIMEOUT))
            chain = [Delegation.parse(link.payload) for link in delegations_from_pb(told.chain, "chain")]
            if any(str(link.child) == "88" and link.version == version for link in chain):
                return
            time.sleep(0.02)
        raise AssertionError(f"88 has not heard of version {version}")


def _refusal(error: grpc.RpcError) -> Answer:
    failed: Any = error
    known = error_from_rpc(error)
    assert known is not None, str(error)
    details = dict(failed.trailing_metadata())["grpc-status-details-bin"]
    return Answer(b"", failed.code().name, failed.details(), details, str(known.reason))


@pytest.fixture
def cassandra_storage(cassandra: CassandraCluster, tmp_path: Path) -> Iterator[str]:
    """The table of a configuration; ``LEDGER`` stands for the node's name."""
    table: dict[str, object] = {
        "contact_points": cassandra.contact_points,
        "port": cassandra.port,
        "keyspace": f"same_{uuid.uuid4().hex[:12]}",
        "ledger": "LEDGER",
    }

    async def make() -> None:
        settings = CassandraSettings.parse(table | {"replication": {"datacenter1": 1}}, tmp_path)
        bridge = await Bridge.connect(settings)
        try:
            await migrate(bridge, settings, lambda _: None)
        finally:
            await bridge.close()

    asyncio.run(make())
    lines = "".join(f"{key} = {value!r}\n" for key, value in table.items())
    yield f'[storage]\nengine = "cassandra"\n{lines}replication = {{ datacenter1 = 1 }}\n'
    cassandra.drop_keyspace(str(table["keyspace"]))


@pytest.fixture
def worlds(cassandra_storage: str, tmp_path: Path) -> Iterator[tuple[World, World]]:
    both = World(tmp_path / "sqlite", ""), World(tmp_path / "cassandra", cassandra_storage)
    yield both
    for world in both:
        world.end(signal.SIGKILL)


def test_two_storages_give_the_same_answers_byte_for_byte(worlds: tuple[World, World], tmp_path: Path) -> None:
    told = history()
    asked = questions(told)
    for world in worlds:
        world.start(told.steps[0].at)
    first = {(step.method, step.request): assert_same(step, worlds) for step in told.steps}
    before = [assert_same(step, worlds) for step in asked]
    assert len({answer.body for answer in before}) > len(asked) // 3, "questions that have all one answer tell nothing"
    for world in worlds:
        world.end(signal.SIGKILL)
        world.start(asked[0].at)
    assert [assert_same(step, worlds) for step in asked] == before, "killed and started, they answer as before"
    for step in taken(told):
        again = assert_same(step, worlds)
        assert again == first[step.method, step.request], f"{step.name}: another receipt than the first time"
    for step in the_end(told):
        assert_same(step, worlds)
    for step in questions(told):
        assert_same(step, worlds)
    assert list((tmp_path / "sqlite").rglob("*.sqlite3"))
    kept = {path.name for path in (tmp_path / "cassandra").rglob("*.sqlite3")}
    assert kept <= {"capture-jobs.sqlite3"}, "beside its own list of jobs such a node keeps nothing at home"


def assert_same(step: Step, worlds: tuple[World, World]) -> Answer:
    """Play it in both worlds; returns the one answer."""
    sqlite, cassandra = (world.play(step) for world in worlds)
    assert sqlite == cassandra, step.name
    if step.expected != "?":
        assert outcome(step, sqlite) == step.expected, step.name
    return sqlite


def outcome(step: Step, answer: Answer) -> str | tuple[str, ...]:
    """The reason of a call, or of each item of a batch."""
    if isinstance(step.expected, str):
        return answer.reason
    results = registry_pb2.RegisterBatchResponse.FromString(answer.body).results
    return tuple(result.error.reason for result in results)


def taken(told: History) -> list[Step]:
    """Writes of records that were taken: sent again with their keys, they bring the same receipts for ever."""
    writes = ("/Register", "/Update", "/Retire")
    return [step for step in told.steps if step.method.endswith(writes) and step.expected == OK]

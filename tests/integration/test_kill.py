"""A registry under load that is killed (SIGKILL) fifty times and started again on the same folder.

Nothing that was acknowledged may be lost or differ by a byte, nothing may be torn, and a repeated idempotency key gives
the receipt of the first time. A kill leaves the page cache alone: power cuts are synchronous=FULL's promise, not shown.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
import pytest

from idtrace import wire
from idtrace.chain import Context
from idtrace.delegation import Role
from idtrace.identifier import Prefix
from idtrace.record import Record, RecordBody
from idtrace.serving.errors import error_from_rpc
from idtrace.serving.keyfile import write_private_key
from idtrace.statements import Receipt
from idtrace.v1 import registry_pb2, registry_pb2_grpc
from registry.authority import verified
from registry.storage_sqlite import SqliteStorage
from tests.core_fixtures import signer
from tests.nodes import Nodes, key_name, make_record, private_key
from tests.registry_fixtures import until

KILLS = 50
SEED = 20_260_728
BATCH = 100
ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-c", "from idtrace.cli import main; main()", "node", "run", "--role", "registry")
OWNER = signer(key_name(Role.RECORD, ""))


@dataclass
class Ledger:
    """What the clients sent, by key, and the receipts they were given."""

    sent: dict[str, tuple[str, Record]] = field(default_factory=dict)
    acked: dict[str, bytes] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    repeats: int = 0

    def note(self, key: str, receipt: bytes) -> None:
        if self.acked.setdefault(key, receipt) != receipt:
            self.changed.append(key)


class RegistryProgram:
    """The node as its own process; :meth:`kill` is SIGKILL to that process id alone."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.process: asyncio.subprocess.Process | None = None
        self.endpoint = ""

    async def start(self) -> None:
        with (self.config.parent / "stderr.txt").open("ab") as errors:
            self.process = await asyncio.create_subprocess_exec(
                *PROGRAM, "--config", str(self.config), cwd=ROOT, stdout=subprocess.PIPE, stderr=errors
            )
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 20)
        assert line.startswith(b"ready "), (self.config.parent / "stderr.txt").read_text()[-2_000:]
        self.endpoint = line.decode().split()[1]

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            assert await self.process.wait() == -signal.SIGKILL


Stub = registry_pb2_grpc.RegistryServiceStub


class Client:
    """Registers, in ones and in batches, updates what it registered, and repeats what it is not sure of."""

    def __init__(self, name: str, ledger: Ledger) -> None:
        self.name = name
        self.ledger = ledger
        self.rng = random.Random(f"{SEED} {name}")
        self.count = 0
        self.unsure: list[str] = []
        self.latest: dict[str, Record] = {}

    def new(self, previous: str = "") -> str:
        """Prepare a request; its key."""
        self.count += 1
        identifier = previous or f"88.118.8/{self.name}-{self.count}"
        record = make_record(identifier, {"n": str(self.count)}, by=OWNER, previous=self.latest.get(previous))
        key = f"key-{self.name}-{self.count:06}"
        self.ledger.sent[key] = (identifier, record)
        self.unsure.append(key)
        return key

    def request(self, key: str) -> registry_pb2.RegisterRequest:
        return registry_pb2.RegisterRequest(idempotency_key=key, record=wire.record_to_pb(self.ledger.sent[key][1]))

    def acknowledged(self, key: str, receipt: bytes) -> None:
        self.ledger.note(key, receipt)
        identifier, record = self.ledger.sent[key]
        known = self.latest.get(identifier)
        if known is None or version_of(record) > version_of(known):
            self.latest[identifier] = record
        if key in self.unsure:
            self.unsure.remove(key)

    async def send(self, stub: registry_pb2_grpc.RegistryServiceAsyncStub, key: str) -> None:
        request = self.request(key)
        if version_of(self.ledger.sent[key][1]) == 1:
            response = await stub.Register(request, timeout=5)
            receipt = response.receipt.signed
        else:
            update = registry_pb2.UpdateRequest(idempotency_key=key, record=request.record)
            receipt = (await stub.Update(update, timeout=5)).receipt.signed
        self.acknowledged(key, receipt.SerializeToString(deterministic=True))

    async def send_batch(self, stub: registry_pb2_grpc.RegistryServiceAsyncStub, keys: list[str]) -> None:
        items = [self.request(key) for key in keys]
        response = await stub.RegisterBatch(registry_pb2.RegisterBatchRequest(items=items), timeout=5)
        for key, result in zip(keys, response.results, strict=True):
            assert not result.HasField("error"), result
            self.acknowledged(key, result.receipt.signed.SerializeToString(deterministic=True))

    async def run(self, endpoint: str) -> None:
        """Send until the node is gone."""
        async with grpc.aio.insecure_channel(endpoint) as channel:
            stub = Stub(channel)
            with suppress_the_kill():
                for key in list(self.unsure):
                    await self.send(stub, key)
                    self.ledger.repeats += 1
                while True:
                    match self.rng.randrange(4):
                        case 0:
                            await self.send_batch(stub, [self.new() for _ in range(BATCH)])
                        case 1 if self.latest:
                            await self.send(stub, self.new(self.rng.choice(list(self.latest))))
                        case 2 if self.ledger.acked:
                            own = [key for key in list(self.ledger.acked)[-50:] if key.startswith(f"key-{self.name}-")]
                            await self.send(stub, self.rng.choice(own) if own else self.new())
                            self.ledger.repeats += bool(own)
                        case _:
                            await self.send(stub, self.new())


@contextmanager
def suppress_the_kill() -> Iterator[None]:
    """A broken connection is what a kill looks like; a typed refusal would be a bug of node or test."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error_from_rpc(error) is not None or error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise


def version_of(record: Record) -> int:
    return RecordBody.parse(record.signed.payload).version


async def prepared(folder: Path) -> tuple[RegistryProgram, Nodes]:
    """A configuration and a data folder in which the root's key set is installed already."""
    nodes = Nodes(folder)
    await nodes.registry("")
    await nodes.of_zone[""].close()
    write_private_key(folder / "node.key", private_key(key_name(Role.NODE, "")), None)
    config = folder / "registry.toml"
    settings = {"listen": "127.0.0.1:0", "data": "root.data", "root_key": "root.pub", "node_key": "node.key"}
    lines = [f'{key} = "{value}"' for key, value in settings.items()]
    config.write_text("\n".join([*lines, 'zones = [""]', 'log_level = "ERROR"', ""]))
    return RegistryProgram(config), nodes


async def under_fire(program: RegistryProgram, ledger: Ledger) -> int:
    """Start, load, kill at a random moment; as often as it has to be. Returns the kills."""
    clients = [Client(name, ledger) for name in "abcdef"]
    rng = random.Random(SEED)
    for done in range(KILLS):
        await program.start()
        working = [asyncio.create_task(client.run(program.endpoint)) for client in clients]
        before = len(ledger.acked) + ledger.repeats
        await until(lambda before=before: len(ledger.acked) + ledger.repeats > before)  # type: ignore[misc]  # this round's count
        await asyncio.sleep(rng.uniform(0.005, 0.150))
        await program.kill()
        await asyncio.wait_for(asyncio.gather(*working), 20)
        assert done < KILLS
    return KILLS


async def ask_again(program: RegistryProgram, ledger: Ledger) -> None:
    """Every version-1 request once more with its key, acknowledged or not."""
    client = Client("last", ledger)
    first = [key for key, (_, record) in ledger.sent.items() if version_of(record) == 1]
    async with grpc.aio.insecure_channel(program.endpoint) as channel:
        for start in range(0, len(first), 500):
            await client.send_batch(Stub(channel), first[start : start + 500])
        for key, (_, record) in ledger.sent.items():
            if version_of(record) > 1 and key in ledger.acked:
                await client.send(Stub(channel), key)


@dataclass
class Found:
    """What the file holds after the last kill."""

    versions: int
    lost: list[str]
    torn: list[str]


async def examine(folder: Path, ledger: Ledger, nodes: Nodes) -> Found:
    """Compare the store with the ledger, and the store with itself."""
    file = folder / "root.data" / "registry.sqlite3"
    storage = SqliteStorage(file)
    lost, torn = [], []
    for key, (identifier, record) in ledger.sent.items():
        stored = await storage.record(identifier, version_of(record))
        known = (await storage.earlier("", [key])).get(key)
        whole = stored == wire.record_to_bytes(record) and known is not None
        if key in ledger.acked and not (whole and known is not None and known.receipt == ledger.acked[key]):
            lost.append(key)
        if key not in ledger.acked and not whole and known is not None:
            torn.append(key)
    await storage.close()
    with sqlite3.connect(file) as connection:
        rows = connection.execute(
            "SELECT identifier, version, record FROM version ORDER BY identifier, version"
        ).fetchall()
        heads = dict(connection.execute("SELECT identifier, version FROM head").fetchall())
        receipts = connection.execute("SELECT receipt FROM idempotency WHERE receipt != x''").fetchall()
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    torn += torn_versions(rows, heads, nodes)
    hashes = {wire.record_from_bytes(row[2]).hash for row in rows}
    receipted = {Receipt.parse(wire.signed_from_bytes(receipt).payload).record_hash for (receipt,) in receipts}
    if hashes != receipted or len(receipts) != len(rows):
        torn.append("receipts and records are not one to one")
    return Found(len(rows), lost, torn)


def torn_versions(rows: list[tuple[str, int, bytes]], heads: dict[str, int], nodes: Nodes) -> list[str]:
    """Identifiers whose records do not verify, or whose versions do not chain without a gap up to the head."""
    now = int(time.time())
    chain = verified(nodes.anchor, [nodes.delegations[""]], Context.at(now))
    assert chain.zone == Prefix(())
    torn, last, before = [], dict.fromkeys(heads, 0), dict.fromkeys(heads, b"")
    for identifier, version, stored in rows:
        record = wire.record_from_bytes(stored)
        body = chain.check_record(record, RecordBody.parse(record.signed.payload).identifier, Context.at(now)).body
        follows = (str(body.identifier), body.version, body.previous) == (identifier, version, before[identifier])
        if not follows or version != last[identifier] + 1:
            torn.append(f"{identifier} version {version}")
        last[identifier], before[identifier] = version, record.hash
    return torn + [name for name, version in heads.items() if last[name] != version]


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_nothing_acknowledged_is_lost_and_nothing_is_torn_by_fifty_kills(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    program, nodes = await prepared(tmp_path)
    ledger = Ledger()
    begun = time.monotonic()
    try:
        kills = await under_fire(program, ledger)
        acked = len(ledger.acked)
        found = await examine(tmp_path, ledger, nodes)
        await program.start()
        await ask_again(program, ledger)
    finally:
        await program.kill()
    after = await examine(tmp_path, ledger, nodes)
    seconds = time.monotonic() - begun
    counts = (
        f"kills {kills}, sent {len(ledger.sent)}, acked {acked}, stored {found.versions}, repeats {ledger.repeats}, "
        f"lost {len(found.lost) + len(after.lost)}, torn {len(found.torn) + len(after.torn)}, "
        f"changed receipts {len(ledger.changed)}, {seconds:.0f} s"
    )
    record_property("kill -9", counts)
    assert (found.lost, found.torn, after.lost, after.torn, ledger.changed) == ([], [], [], [], [])
    assert acked > 10 * KILLS
    assert found.versions >= acked
    assert seconds < 150

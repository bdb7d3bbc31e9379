"""A registry as a program of its own that is loaded and killed: the program, the clients, and what they were told."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from idtrace import wire
from idtrace.delegation import Role
from idtrace.errors import OutcomeUnknownError, Reason
from idtrace.record import Record, RecordBody
from idtrace.serving.errors import error_from_rpc
from idtrace.serving.keyfile import write_private_key
from idtrace.v1 import record_pb2, registry_pb2, registry_pb2_grpc
from tests.core_fixtures import signer
from tests.nodes import Nodes, key_name, make_record, private_key
from tests.registry_fixtures import until

SEED = 20_260_728
BATCH = 100
ROOT = Path(__file__).parents[1]
PROGRAM = (sys.executable, "-c", "from idtrace.cli import main; main()", "node", "run", "--role", "registry")
OWNER = signer(key_name(Role.RECORD, ""))
READY_SECONDS = 20.0

Stub = registry_pb2_grpc.RegistryServiceStub
if TYPE_CHECKING:  # the type checker's alone
    AsyncStub = registry_pb2_grpc.RegistryServiceAsyncStub


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

    @property
    def said(self) -> str:
        """The end of what it has complained of."""
        return (self.config.parent / "stderr.txt").read_text()[-2_000:]

    async def start(self) -> None:
        assert await self.try_start(), self.said

    async def try_start(self, under: Sequence[str] = ()) -> bool:
        """Start it, ``under`` another program or alone; False where it has ended before it was ready."""
        with (self.config.parent / "stderr.txt").open("ab") as errors:
            self.process = await asyncio.create_subprocess_exec(
                *under, *PROGRAM, "--config", str(self.config), cwd=ROOT, stdout=subprocess.PIPE, stderr=errors
            )
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), READY_SECONDS)
        if not line.startswith(b"ready "):
            return False
        self.endpoint = line.decode().split()[1]
        return True

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            assert await self.process.wait() == -signal.SIGKILL


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

    def received(self, key: str, receipt: record_pb2.Receipt) -> None:
        """A receipt has come for this key, the first or a repeated one."""
        self.ledger.note(key, receipt.signed.SerializeToString(deterministic=True))
        identifier, record = self.ledger.sent[key]
        known = self.latest.get(identifier)
        if known is None or version_of(record) > version_of(known):
            self.latest[identifier] = record
        if key in self.unsure:
            self.unsure.remove(key)

    async def send(self, stub: AsyncStub, key: str) -> None:
        request = self.request(key)
        if version_of(self.ledger.sent[key][1]) == 1:
            self.received(key, (await stub.Register(request, timeout=5)).receipt)
        else:
            update = registry_pb2.UpdateRequest(idempotency_key=key, record=request.record)
            self.received(key, (await stub.Update(update, timeout=5)).receipt)

    async def send_batch(self, stub: AsyncStub, keys: list[str]) -> None:
        items = [self.request(key) for key in keys]
        response = await stub.RegisterBatch(registry_pb2.RegisterBatchRequest(items=items), timeout=10)
        if any(result.error.reason == Reason.OUTCOME_UNKNOWN for result in response.results):
            raise OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, "repeat the batch")
        for key, result in zip(keys, response.results, strict=True):
            assert not result.HasField("error"), result
            self.received(key, result.receipt)

    async def repeat_unsure(self, stub: AsyncStub) -> None:
        """Ask again for whatever was sent and not answered."""
        for key in list(self.unsure):
            await self.send(stub, key)
            self.ledger.repeats += 1

    async def step(self, stub: AsyncStub) -> None:
        """One more call."""
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

    async def run(self, endpoint: str) -> None:
        """Send until the node is gone."""
        async with grpc.aio.insecure_channel(endpoint) as channel:
            stub = Stub(channel)
            with suppress_the_kill():
                await self.repeat_unsure(stub)
                while True:
                    await self.step(stub)

    async def ask_again(self, endpoint: str) -> None:
        """Every version-1 request of any client once more with its key, acknowledged or not."""
        first = [key for key, (_, record) in self.ledger.sent.items() if version_of(record) == 1]
        async with grpc.aio.insecure_channel(endpoint) as channel:
            for start in range(0, len(first), 500):
                await self.send_batch(Stub(channel), first[start : start + 500])
            for key, (_, record) in self.ledger.sent.items():
                if version_of(record) > 1 and key in self.ledger.acked:
                    await self.send(Stub(channel), key)


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


def configured(folder: Path, *more: str) -> RegistryProgram:
    """The program for the root's zone on the data in ``folder``; ``more`` are lines of its configuration."""
    write_private_key(folder / "node.key", private_key(key_name(Role.NODE, "")), None)
    config = folder / "registry.toml"
    settings = {"listen": "127.0.0.1:0", "data": "root.data", "root_key": "root.pub", "node_key": "node.key"}
    lines = [f'{key} = "{value}"' for key, value in settings.items()]
    config.write_text("\n".join([*lines, 'zones = [""]', 'log_level = "ERROR"', *more, ""]))
    return RegistryProgram(config)


async def prepared(folder: Path) -> tuple[RegistryProgram, Nodes]:
    """A configuration and a data folder in which the root's key set is installed already."""
    nodes = Nodes(folder)
    await nodes.registry("")
    await nodes.of_zone[""].close()
    return configured(folder), nodes


async def nothing_more(_: int) -> None:
    """Nothing happens between two kills."""


async def under_fire(
    program: RegistryProgram,
    clients: Sequence[Client],
    kills: int,
    between: Callable[[int], Awaitable[None]] = nothing_more,
) -> None:
    """Start, load until somebody was answered, kill at a random moment; so many times. ``between`` hears which."""
    rng, ledger = random.Random(SEED), clients[0].ledger
    for done in range(kills):
        await between(done)
        await program.start()
        working = [asyncio.create_task(client.run(program.endpoint)) for client in clients]
        before = len(ledger.acked) + ledger.repeats
        await until(lambda before=before: len(ledger.acked) + ledger.repeats > before)  # type: ignore[misc]  # this round's count
        await asyncio.sleep(rng.uniform(0.005, 0.150))
        await program.kill()
        await asyncio.wait_for(asyncio.gather(*working), 20)

"""A registry that keeps a log, as a program: its keys and settings, its clients, and all that it has ever told them.

The node answers for the root's zone and logs into a log of its own, so that one program is a whole tree.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import httpx

from idtrace import wire
from idtrace.checkpoint import Checkpoint
from idtrace.delegation import Delegation, Role, ZoneKey
from idtrace.identifier import Prefix
from idtrace.logpolicy import KnownLog, KnownWitness, LogPolicy
from idtrace.logproof import LogProof
from idtrace.note import Note, NoteKey, NoteSigner, open_note
from idtrace.record import Record
from idtrace.seal import seal
from idtrace.serving.keyfile import write_private_key
from idtrace.signature import Signed
from idtrace.statements import enrol
from idtrace.v1 import record_pb2, registry_pb2
from tests.core_fixtures import signer
from tests.engines.process import free_port
from tests.nodes import Nodes, key_name, make_record, private_key
from tests.under_fire import OWNER, Client, Ledger, RegistryProgram, Stub, configured

if TYPE_CHECKING:  # the type checker's alone
    from tests.under_fire import AsyncStub

LOG = "log.example/root"
LOG_SIGNER = NoteSigner.of(LOG, signer(key_name(Role.LOG, "")))
LOG_KEY: NoteKey = LOG_SIGNER.key
ROLES = (Role.ZONE, Role.RECORD, Role.NODE, Role.CURRENCY, Role.LOG)
SEALED_BATCH = 40
LOOK_SECONDS = 0.02


class LoggedRoot(Nodes):
    """Nodes whose root zone names a log, and has a key for each role."""

    def delegation(self, zone: str, endpoints: tuple[str, ...], node_key_zone: str, **changes: Any) -> Delegation:
        keys = tuple(ZoneKey(signer(key_name(role, zone)).public_key, frozenset({role})) for role in ROLES)
        return super().delegation(zone, endpoints, node_key_zone, **{"keys": keys, "log": LOG} | changes)

    def enrolments(self, body: Delegation, node_key_zone: str) -> list[Signed]:
        by_id = {one.public_key.key_id: one for one in (signer(key_name(role, str(body.child))) for role in ROLES)}
        return [enrol(by_id[key.key.key_id], body.child, role) for key in body.keys for role in key.roles]


@dataclass
class Told:
    """Checkpoints that somebody was shown, of which none may ever be taken back.

    ``shown`` are sizes with all roots that were seen of each; ``published`` the sizes over HTTP, in their order.
    """

    shown: dict[int, set[bytes]] = field(default_factory=dict)
    published: list[int] = field(default_factory=list)
    _known: set[bytes] = field(default_factory=set)

    def checkpoint(self, note: bytes) -> Checkpoint:
        """A checkpoint was shown; it is the log's own word."""
        parsed = Note.parse(note)
        checkpoint = Checkpoint.parse(parsed.text)
        if note not in self._known:
            open_note(parsed, [LOG_KEY])
            self._known.add(note)
            self.shown.setdefault(checkpoint.size, set()).add(checkpoint.root)
        return checkpoint

    @asynccontextmanager
    async def watching(self, url: str) -> AsyncIterator[None]:
        """Look at the published checkpoint again and again; a node that is gone is no news."""

        async def look() -> None:
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=5.0) as client:
                while True:
                    with suppress(httpx.HTTPError):
                        answer = await client.get("/checkpoint")
                        if answer.status_code == 200:
                            self.published.append(self.checkpoint(answer.content).size)
                    await asyncio.sleep(LOOK_SECONDS)

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking


@dataclass
class Batch:
    """A sealed batch, and the answer to it once there was one."""

    request: registry_pb2.RegisterSealedRequest
    records: list[Record]
    positions: list[int] = field(default_factory=list)
    text: str = ""


@dataclass
class LogLedger(Ledger):
    """What the clients of a node with a log were told: receipts with their proofs, and positions of sealed records."""

    told: Told = field(default_factory=Told)
    proofs: dict[str, LogProof] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)

    def proven(self, key: str, proof: LogProof) -> None:
        """The proof beside a receipt; a repetition has to bring the very same one."""
        self.told.checkpoint(proof.checkpoint)
        if self.proofs.setdefault(key, proof) != proof:
            self.changed.append(key)

    def sealed(self, key: str, response: registry_pb2.RegisterSealedResponse) -> None:
        """The answer to a sealed batch; a repetition has to bring the very same one."""
        assert all(result.HasField("log_position") for result in response.results), response
        text = self.told.checkpoint(response.checkpoint).text
        batch, positions = self.batches[key], [result.log_position - 1 for result in response.results]
        if not batch.text:
            batch.positions, batch.text = positions, text
        elif (batch.positions, batch.text) != (positions, text):
            self.changed.append(key)


class LogClient(Client):
    """Also registers under seals, and looks at the proofs."""

    ledger: LogLedger

    def __init__(self, name: str, ledger: LogLedger) -> None:
        super().__init__(name, ledger)
        self.unsure_batches: list[str] = []

    def received(self, key: str, receipt: record_pb2.Receipt) -> None:
        super().received(key, receipt)
        self.ledger.proven(key, wire.proof_from_pb(receipt.proof))

    def new_batch(self, size: int = SEALED_BATCH) -> str:
        """Prepare a batch under one seal; its key."""
        self.count += 1
        key = f"seal-{self.name}-{self.count:06}"
        names = (f"88.118.8/{self.name}-{self.count}.{n}" for n in range(size))
        records = [make_record(name, {"n": str(self.count)}, by=OWNER) for name in names]
        places = seal([one.hash for one in records], Prefix(()), OWNER, issued_at=1_700_000_000)
        items = [
            registry_pb2.SealedItem(payload=one.signed.payload, values=wire.record_to_pb(one).values) for one in records
        ]
        asked = registry_pb2.RegisterSealedRequest(
            idempotency_key=key, seal=wire.signed_to_pb(places[0].seal), items=items
        )
        self.ledger.batches[key] = Batch(asked, records)
        self.unsure_batches.append(key)
        return key

    async def send_sealed(self, stub: AsyncStub, key: str) -> None:
        self.ledger.sealed(key, await stub.RegisterSealed(self.ledger.batches[key].request, timeout=10))
        if key in self.unsure_batches:
            self.unsure_batches.remove(key)

    async def repeat_unsure(self, stub: AsyncStub) -> None:
        await super().repeat_unsure(stub)
        for key in list(self.unsure_batches):
            await self.send_sealed(stub, key)
            self.ledger.repeats += 1

    async def step(self, stub: AsyncStub) -> None:
        if self.rng.randrange(5):
            await super().step(stub)
        else:
            await self.send_sealed(stub, self.new_batch())

    async def ask_again(self, endpoint: str) -> None:
        await super().ask_again(endpoint)
        async with grpc.aio.insecure_channel(endpoint) as channel:
            for key in list(self.ledger.batches):
                await self.send_sealed(Stub(channel), key)


@dataclass
class LoggedProgram:
    """The node's program, where it publishes its log, and the tree that it is."""

    program: RegistryProgram
    url: str
    nodes: LoggedRoot

    @property
    def store(self) -> Path:
        """The file of its store."""
        return self.program.config.parent / "root.data" / "registry.sqlite3"


async def prepared_log(folder: Path, witness: KnownWitness | None = None) -> LoggedProgram:
    """A configuration with a log, which the witness has to cosign, and data in which the zone's keys are logged."""
    for role in (Role.LOG, Role.CURRENCY):
        write_private_key(folder / f"{role}.key", private_key(key_name(role, "")), None)
    table = {"origin": LOG, "key": "log.key", "currency_key": "currency.key"}
    nodes = LoggedRoot(folder)
    await nodes.registry("", log=table)
    await nodes.of_zone[""].close()
    listen = f"127.0.0.1:{free_port()}"
    table["listen"] = listen
    if witness is not None:
        policy = LogPolicy((KnownLog(LOG_KEY),), (witness,), (), witness.name)
        (folder / "policy").write_bytes(policy.encode())
        table["policy"] = "policy"
    lines = [f'{name} = "{value}"' for name, value in table.items()]
    return LoggedProgram(configured(folder, "[log]", *lines), f"http://{listen}", nodes)

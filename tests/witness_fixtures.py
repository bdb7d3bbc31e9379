"""Witnesses for tests: in this process on a free port, or as programs that can be killed."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from idtrace.merkle import consistency_plan, fold
from idtrace.note import KeyType, Note, NoteKey, NoteSigner, private_text
from idtrace.tiles import node_reader, tiles_for
from idtrace.witnessing import AddCheckpoint
from registry.witness_server import Witness
from registry.witness_store import WitnessStore
from tests.engines.process import free_port
from tests.log_fixtures import NOW, log_signer, witness_signer
from tests.served_log import MemoryLog, on_port

READY_SECONDS = 30.0


def proof(log: MemoryLog, old: int, new: int) -> tuple[bytes, ...]:
    """As an honest log makes it."""
    plan = consistency_plan(old, new)
    contents = {}
    for tile in tiles_for(plan, new):
        row = log.rows[tile.level][tile.index * 256 :][: tile.width]
        contents[tile] = b"".join(row)
    return fold(plan, node_reader(new, contents.__getitem__))


def request(log: MemoryLog, old: int, note: Note | None = None, hashes: Sequence[bytes] | None = None) -> bytes:
    """The body that asks for a cosignature of the log as it now is."""
    asked = note or Note.parse(log.note)
    sent = proof(log, old, len(log.entries)) if hashes is None else hashes
    return AddCheckpoint.of(old, sent, asked).encode()


@asynccontextmanager
async def witness(
    state: Path,
    signers: Sequence[NoteSigner] = (),
    logs: Sequence[NoteKey] = (),
    *,
    clock: Callable[[], int] = lambda: NOW,
    listen: str = "127.0.0.1:0",
    in_flight_max: int = 64,
) -> AsyncIterator[tuple[str, Witness]]:
    """A witness in this process; yields its address and itself. Its key is w1's unless others are given."""
    by_origin: dict[str, tuple[NoteKey, ...]] = {}
    for key in logs or [log_signer().key]:
        by_origin[key.name] = (*by_origin.get(key.name, ()), key)
    pages = Witness(WitnessStore(state), by_origin, signers or [witness_signer(1)], clock, in_flight_max=in_flight_max)
    try:
        async with on_port(pages.application(), listen, counts=pages.counts) as url:
            yield url, pages
    finally:
        await pages.close()


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20.0) as client:
        yield client


class WitnessProgram:
    """``idtrace witness run`` on a folder: its key, the logs it watches, its configuration; a port of its own."""

    def __init__(self, folder: Path, name: str = "program.example/w") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "witness.toml"
        self.listen = f"127.0.0.1:{free_port()}"
        seed = hashlib.sha256(name.encode()).digest()
        self.key = NoteSigner.from_seed(name, seed, KeyType.COSIGNATURE_ED25519).key
        (folder / "witness.key").write_text(private_text(self.key, seed) + "\n")
        (folder / "witness.key").chmod(0o600)
        (folder / "logs").write_text(f"log {log_signer().key}\nquorum none\n")
        self.config.write_text(
            f'listen = "{self.listen}"\nstate = "seen.sqlite3"\nlogs = "logs"\nkeys = ["witness.key"]\n'
        )
        self.url = f"http://{self.listen}"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, dying_at: str = "") -> None:
        """Start it, and wait until it says that it is ready."""
        assert await self.try_start(dying_at), (await self.ended())[1]

    async def try_start(self, dying_at: str = "", under: Sequence[str] = ()) -> bool:
        """Start it, ``under`` another program or alone; False where it has ended before it was ready."""
        program = ["-m", "idtrace", "witness", "run", "--config", str(self.config)]
        if dying_at:
            program = ["-m", "tests.dying_witness", str(self.config), dying_at]
        self.process = await asyncio.create_subprocess_exec(
            *(*under, sys.executable, *program), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        assert self.process.stdout is not None
        return (
            await asyncio.wait_for(self.process.stdout.readline(), READY_SECONDS) == f"ready {self.listen}\n".encode()
        )

    async def second(self) -> tuple[int, str]:
        """Start another one on the same configuration, which has to end by itself; exit code and what it said."""
        other = WitnessProgram.__new__(WitnessProgram)
        other.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "idtrace", "witness", "run", "--config", str(self.config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        return await other.ended()

    async def end(self, by: signal.Signals) -> tuple[int, str]:
        """Send the signal and wait; exit code and what it said."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(by)
        return await self.ended()

    async def ended(self) -> tuple[int, str]:
        assert self.process is not None
        _, said = await asyncio.wait_for(self.process.communicate(), READY_SECONDS)
        assert self.process.returncode is not None
        return self.process.returncode, said.decode()

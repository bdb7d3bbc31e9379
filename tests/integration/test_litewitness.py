"""Beside a witness that others wrote: it cosigns our log, and of each request ours says the same as it does."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from idtrace.logpolicy import LogPolicy
from idtrace.note import KeyType, Note, NoteKey
from idtrace.witnessing import read_cosignatures
from registry.witnesses import Witnesses
from tests import go_tools
from tests.engines.process import free_port
from tests.log_fixtures import ORIGIN, checkpoint, log_signer, note_signer, signed, witness_signer
from tests.registry_fixtures import until
from tests.served_log import MemoryLog, running
from tests.witness_fixtures import request, witness

pytestmark = pytest.mark.faults
READY_SECONDS = 30.0


@dataclass(frozen=True)
class Litewitness:
    url: str
    key: NoteKey


@pytest.fixture(scope="module")
def program() -> Path:
    for needed in ("ssh-agent", "ssh-keygen", "ssh-add"):
        if shutil.which(needed) is None:
            pytest.skip(f"not run: litewitness: it keeps its key in ssh-agent, and {needed} is not installed here")
    return go_tools.litewitness()


@asynccontextmanager
async def litewitness(program: Path, folder: Path) -> AsyncIterator[Litewitness]:
    """The program on a new state that knows our log, and the agent that holds its key."""
    key, agent_socket, state = folder / "key", folder / "agent", folder / "state"
    await _ran("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    agent = await asyncio.create_subprocess_exec("ssh-agent", "-D", "-a", agent_socket, stdout=subprocess.DEVNULL)
    running_program: asyncio.subprocess.Process | None = None
    try:
        await until(agent_socket.exists, READY_SECONDS)
        environment = {**os.environ, "SSH_AUTH_SOCK": str(agent_socket)}
        await _ran("ssh-add", "-q", key, env=environment)
        listed = await _ran("ssh-keygen", "-l", "-f", key)
        listen = f"127.0.0.1:{free_port()}"
        options = {"db": state, "name": "litewitness.example/w", "key": listed.split()[1], "ssh-agent": agent_socket}
        given = [str(part) for name, value in options.items() for part in (f"-{name}", value)]
        with (folder / "log").open("wb") as said:
            running_program = await asyncio.create_subprocess_exec(
                program, *given, "-listen", listen, stdout=said, stderr=said
            )
        await _answers(f"http://{listen}/", running_program, folder / "log")
        _introduce(state)
        yield Litewitness(f"http://{listen}", _key_of(folder / "key.pub"))
    finally:
        for process in (running_program, agent):
            if process is not None:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
                await asyncio.wait_for(process.wait(), READY_SECONDS)


async def _ran(*command: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Run a program to its good end; what it said."""
    done = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, text=True, env=env)
    return done.stdout


async def _answers(url: str, program: asyncio.subprocess.Process, said: Path) -> None:
    async with asyncio.timeout(READY_SECONDS), httpx.AsyncClient(trust_env=False) as client:
        while True:
            assert program.returncode is None, f"it has ended; see {said}"
            with suppress(httpx.ConnectError):
                await client.get(url)
                return
            await asyncio.sleep(0.05)


def _introduce(state: Path) -> None:
    """What its own tool for operators does: our log, at its beginning, with its key."""
    with closing(sqlite3.connect(state)) as database:
        empty = base64.b64encode(hashlib.sha256().digest()).decode()
        database.execute("INSERT INTO log VALUES (?, 0, ?)", (ORIGIN, empty))
        database.execute("INSERT INTO key VALUES (?, ?)", (ORIGIN, str(log_signer().key)))
        database.commit()


def _key_of(public_file: Path) -> NoteKey:
    """The witness's key out of the SSH form, whose last 32 bytes are the raw key."""
    raw = base64.b64decode(public_file.read_text().split()[1])[-32:]
    return NoteKey.of("litewitness.example/w", raw, KeyType.COSIGNATURE_ED25519)


async def test_it_cosigns_our_growing_log_and_our_policy_counts_it(program: Path, tmp_path: Path) -> None:
    log = MemoryLog(5)
    async with litewitness(program, tmp_path) as other:
        rules = LogPolicy.parse(f"witness w {other.key} {other.url}\nquorum w\n".encode())
        witnesses = Witnesses(rules, log.reading, log, tmp_path / "evidence", lambda: int(time.time()))
        async with running(witnesses.run()):
            for size in (5, 6, 256, 257, 70_000):
                log.grow(size)
                witnesses.grow()
                assert await witnesses.until(size, READY_SECONDS)
        assert (witnesses.counts.failed, witnesses.counts.forked) == (0, 0)
        # A fork and a log that has lost its end, at a witness that others wrote: refused, and kept as evidence.
        for fork in (log.forked(60_000, 70_001), log.forked(60_000, 70_000), MemoryLog(300)):
            folder = tmp_path / f"evidence{fork.range.size}"
            witnesses = Witnesses(rules, fork.reading, fork, folder, lambda: int(time.time()))
            async with running(witnesses.run()):
                await until(lambda asked=witnesses: asked.counts.forked == 1, READY_SECONDS)  # type: ignore[misc] # mypy cannot infer the default
                assert fork.kept is None
            (file,) = folder.glob("fork-*.txt")
            assert fork.note.decode() in file.read_text()


# It looks at two roots of one size as at any proof that fails; the specification asks for 409 there, as we do.
DIFFERENT = {"fork, same size": (409, 422)}


def requests() -> dict[str, bytes]:
    """One after the other, to a witness that has not met the log; what each is, and its body."""
    log, longer = MemoryLog(5), MemoryLog(300)
    first = request(log, 0)
    impostor = signed(checkpoint(5), log=note_signer(ORIGIN, witness_signer(1).key.type))
    return {
        "unknown log": request(MemoryLog(5, note_signer("unknown.example/log")), 0),
        "key of somebody else": request(log, 0, note=impostor),
        "nothing": b"",
        "no number": first.replace(b"old 0", b"old -1"),
        "old above the new": request(log, 0).replace(b"old 0", b"old 6"),
        "first": first,
        "first again, from nothing": first,
        "the same size again": request(log, 5),
        "stale": request(longer, 4),
        "ahead": request(longer, 6),
        "no proof": request(longer, 5, hashes=[]),
        "false proof": request(longer, 5, hashes=[b"\1" * 32] * 9),
        "a hash too many": request(longer, 5).replace(b"\n\n", b"\n" + base64.b64encode(b"\1" * 32) + b"\n\n", 1),
        "fork, longer": request(log.forked(3, 300), 5),
        "fork, same size": request(log.forked(3, 5), 5),
        "growth": request(longer, 5),
        "growth again, from before": request(longer, 5),
        "back to the first": request(log, 5),
    }


async def test_ours_answers_every_request_as_the_other_does(program: Path, tmp_path: Path) -> None:
    (tmp_path / "lite").mkdir()
    async with (
        litewitness(program, tmp_path / "lite") as other,
        witness(tmp_path / "seen") as (ours, _),
        httpx.AsyncClient(trust_env=False, timeout=READY_SECONDS) as client,
    ):
        said = {}
        for name, body in requests().items():
            here, there = [await client.post(f"{url}/add-checkpoint", content=body) for url in (ours, other.url)]
            said[name] = (here.status_code, there.status_code)
            if here.status_code == there.status_code == 409:
                assert (here.text, here.headers["content-type"]) == (there.text, there.headers["content-type"]), name
            if here.status_code == there.status_code == 200:
                note = Note.parse(body.partition(b"\n\n")[2])
                assert read_cosignatures(there.content, note, [other.key])
                assert read_cosignatures(here.content, note, [witness_signer(1).key])
        assert {name: pair for name, pair in said.items() if pair[0] != pair[1]} == DIFFERENT, said
        assert said["first"] == said["growth"] == said["the same size again"] == (200, 200)

"""Logs for tests of what is served and witnessed: in memory, honest or forked; and applications on free ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp

from idtrace.checkpoint import Checkpoint
from idtrace.logpolicy import LogPolicy
from idtrace.merkle import CompactRange, hash_leaf
from idtrace.note import Note, NoteSigner
from idtrace.serving.http import HttpCounts, HttpLimits, serve_http
from idtrace.tiles import TILE_HEIGHT, TILE_WIDTH
from registry.log_reading import LogReading
from registry.logbook import Edge, LogHead
from tests.log_fixtures import log_signer, witness_signer


class MemoryLog:
    """A log as its store tells of it. ``failing``: what the next :meth:`put_witnessed` raises."""

    def __init__(self, size: int = 0, signer: NoteSigner | None = None) -> None:
        self.signer = signer or log_signer()
        self.entries: list[bytes] = []
        self.range = CompactRange()
        self.rows: dict[int, list[bytes]] = {}
        self.note = b""
        self.kept: tuple[int, bytes] | None = None
        self.kept_sizes: list[int] = []
        self.failing: Exception | None = None
        if size:
            self.grow(size)

    def grow(self, to: int, text: str = "entry") -> Note:
        """Append "TEXT n" up to this size, and sign."""
        new = [f"{text} {number}".encode() for number in range(len(self.entries), to)]
        self.entries += new
        self.range, runs = self.range.grow([hash_leaf(entry) for entry in new])
        for run in runs:
            level, within = divmod(run.level, TILE_HEIGHT)
            if not within:
                self.rows.setdefault(level, []).extend(run.hashes)
        body = Checkpoint(self.signer.key.name, to, self.range.root()).text
        note = Note(body, (self.signer.sign(body),))
        self.note = note.encode()
        return note

    def forked(self, at: int, to: int) -> MemoryLog:
        """Another log of the same key that agrees with this one up to a size."""
        other = MemoryLog(signer=self.signer)
        if at:
            other.grow(at)
        other.grow(to, "other entry")
        return other

    async def log_edge(self) -> Edge:
        return Edge(LogHead(self.range, self.note))

    async def log_tile(self, level: int, index: int) -> bytes | None:
        row = self.rows.get(level, [])[index * TILE_WIDTH : (index + 1) * TILE_WIDTH]
        return b"".join(row) or None

    async def log_entries(self, first: int, count: int) -> list[bytes]:
        return self.entries[first : first + count]

    async def witnessed(self) -> bytes | None:
        return self.kept[1] if self.kept else None

    async def put_witnessed(self, size: int, note: bytes) -> None:
        await asyncio.sleep(0)
        if self.failing is not None:
            raise self.failing
        if self.kept is None or size >= self.kept[0]:
            self.kept = (size, note)
            self.kept_sizes.append(size)

    @property
    def reading(self) -> LogReading:
        return LogReading(self)


def policy(*urls: str, quorum: int | str = "all", **signers: NoteSigner) -> LogPolicy:
    """A log's policy of witnesses w1, w2 … at these addresses, each with the key of its number unless one is given."""
    lines = []
    for number, url in enumerate(urls, start=1):
        signer = signers.get(f"w{number}", witness_signer(number))
        lines.append(f"witness w{number} {signer.key} {url}")
    members = " ".join(f"w{number}" for number in range(1, len(urls) + 1))
    lines += [f"group all-of-them {quorum} {members}", "quorum all-of-them", ""]
    return LogPolicy.parse("\n".join(lines).encode())


@asynccontextmanager
async def on_port(
    app: ASGIApp, listen: str = "127.0.0.1:0", limits: HttpLimits | None = None, counts: HttpCounts | None = None
) -> AsyncIterator[str]:
    """Serve an application; yields http://host:port."""
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve_http(app, listen, stop=stop, on_ready=ready.set_result, limits=limits, counts=counts)
    )
    await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        await serving
    try:
        yield f"http://{ready.result()}"
    finally:
        stop.set()
        await serving


@asynccontextmanager
async def running(task: Any) -> AsyncIterator[asyncio.Task[None]]:
    """Run a coroutine beside the test and cancel it at the end; what it raised by itself is raised."""
    started = asyncio.create_task(task)
    try:
        yield started
    finally:
        started.cancel()
        await asyncio.gather(started, return_exceptions=True)

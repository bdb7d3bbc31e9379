"""A whole site beside a test: witnesses, a tree whose zone 88.118 keeps a log, a resolver; commands run as they are.

The servers live on an event loop in a thread of their own, so a test runs commands like a person at a terminal, through
real ports, and asks the loop for the rest with :meth:`Site.call`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import structlog

from idtrace.checkpoint import Checkpoint
from idtrace.delegation import Role
from idtrace.logpolicy import Group, KnownLog, KnownWitness, LogPolicy
from idtrace.note import Note
from idtrace.record import Record
from idtrace.serving.keyfile import write_private_key
from registry.standing import HEAD_SECONDS
from resolver import server as resolver_server
from resolver.config import ResolverConfig
from tests.cli import Ran, idtrace
from tests.engines.process import free_port
from tests.integration.test_logged_node import LOG, LOG_KEY, ZONE, LoggedNodes, update
from tests.log_fixtures import witness_signer
from tests.lying_proxy import LyingProxy
from tests.nodes import Node, key_name, make_record, private_key
from tests.witness_fixtures import witness

T = TypeVar("T")

WAIT_SECONDS = 30.0
QUORUM = 2
TABLE = {"origin": LOG, "key": "log.key", "currency_key": "currency.key", "policy": "policy"}


@dataclass
class Site:
    """Everything that runs, and the commands of the people around it."""

    folder: Path
    loop: asyncio.AbstractEventLoop
    nodes: LoggedNodes
    witnesses: tuple[str, ...]
    log: str
    proxy: LyingProxy
    resolver: str = ""
    _keys: int = 0

    @property
    def node(self) -> Node:
        """The honest node of the zone."""
        return self.nodes.of_zone[ZONE]

    @property
    def root(self) -> Path:
        return self.nodes.root_key

    @property
    def policy(self) -> LogPolicy:
        """Two of the three witnesses have to have seen a checkpoint."""
        return policy_of(self.witnesses)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine where the servers are."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(WAIT_SECONDS)

    def register(self, identifier: str, node: Node | None = None, **values: str) -> Record:
        record = make_record(identifier, values or {"lot": "L1"})
        self._keys += 1
        self.call(self.nodes.submit(record, f"register-{self._keys:06}", node=node))
        return record

    def update(self, previous: Record, **changes: Any) -> Record:
        name = str(changes.pop("identifier"))
        record = make_record(name, {"lot": "L1"}, previous=previous, **changes)
        self._keys += 1
        self.call(update(self.nodes, record, f"update-{self._keys:06}"))
        return record

    def published(self) -> Note | None:
        """The checkpoint that the log shows with its cosignatures; None where there is none yet."""
        answer = httpx.get(f"{self.log}/checkpoint", trust_env=False)
        return Note.parse(answer.content) if answer.status_code == httpx.codes.OK else None

    def until_published(self, size: int) -> Note:
        """Wait until the quorum has seen so many entries, and it is shown."""
        end = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end:
            note = self.published()
            if note is not None and size_of(note) >= size:
                return note
            time.sleep(0.05)
        raise AssertionError(f"no checkpoint of {size} entries was published")

    def log_size(self) -> int:
        """Entries that the node has committed."""
        return self.call(_size_in(self.node))

    def until_witnessed(self) -> Note:
        """Wait until all that was committed is witnessed and shown, and answers bear it."""
        note = self.until_published(self.log_size())
        time.sleep(1.1 * HEAD_SECONDS)  # so old may an answer's checkpoint be
        return note

    def audit(self, *arguments: object, node: str = "", log: str = "") -> Ran:
        given = (ZONE, "--root", self.root, "--node", node or self.node.endpoint, "--log", log or self.log)
        return program("audit", *given, *arguments)

    def proves(self, evidence: Path) -> bool:
        """Whether the file shows a lie to somebody who has the root key and nothing else."""
        ran = program("audit", "--evidence", evidence, "--root", self.root, "--json")
        assert ran.code == (1 if ran.json["misbehaviour"] else 2)
        return bool(ran.json["misbehaviour"])

    def resolve(self, identifier: str, *arguments: object) -> Ran:
        given = ("--resolver", self.resolver, "--root", self.root, "--fresh")
        with silent():
            return idtrace("resolve", identifier, *given, *arguments)


def program(*arguments: object) -> Ran:
    """One command as a program of its own: an auditor's log lines do not mix with those of the servers here."""
    ran = subprocess.run(
        [sys.executable, "-m", "idtrace", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS * 2,
        check=False,
        env={**os.environ, "COLUMNS": "160", "NO_COLOR": "1"},
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@contextmanager
def silent() -> Iterator[None]:
    """Node programs log to a stream of their own; in this process they would log into a command's output."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.reset_defaults()


def size_of(note: Note) -> int:
    return Checkpoint.parse(note.text).size


def policy_of(urls: tuple[str, ...]) -> LogPolicy:
    known = tuple(KnownWitness(f"w{n}", witness_signer(n).key, url) for n, url in enumerate(urls, start=1))
    enough = Group("enough", QUORUM, tuple(one.name for one in known))
    return LogPolicy((KnownLog(LOG_KEY),), known, (enough,), "enough")


async def _size_in(node: Node) -> int:
    from registry.storage_sqlite import SqliteStorage

    store = SqliteStorage(node.config.data / "registry.sqlite3")
    try:
        return (await store.log_edge()).head.size
    finally:
        await store.close()


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """Start everything; the zone's delegation points at a proxy in front of its node, which is honest at first."""
    started: concurrent.futures.Future[Site] = concurrent.futures.Future()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    def run() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(_live(folder, started, stop))
        except BaseException as error:  # the test has to learn of it, wherever it happens
            if started.done():
                raise
            started.set_exception(error)
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    thread = threading.Thread(target=run, name="site")
    thread.start()
    try:
        yield started.result(WAIT_SECONDS * 2)
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join(WAIT_SECONDS * 2)


async def _live(folder: Path, started: concurrent.futures.Future[Site], stop: asyncio.Event) -> None:
    for role in (Role.LOG, Role.CURRENCY):
        write_private_key(folder / f"{role}.key", private_key(key_name(role, ZONE)), None)
    listen = f"127.0.0.1:{free_port()}"
    async with AsyncExitStack() as held:
        witnesses = []
        for number in (1, 2, 3):
            state = folder / f"seen-{number}"
            opened = witness(state, [witness_signer(number)], [LOG_KEY], clock=lambda: int(time.time()))
            witnesses.append((await held.enter_async_context(opened))[0])
        (folder / "policy").write_bytes(policy_of(tuple(witnesses)).encode())
        nodes = await held.enter_async_context(LoggedNodes(folder))
        root = await nodes.registry("")
        await nodes.registry("88")
        node = await nodes.registry(ZONE, log={**TABLE, "listen": listen})
        proxy = LyingProxy(node.endpoint)
        await proxy.start(f"127.0.0.1:{free_port()}")
        held.push_async_callback(proxy.stop)
        await nodes.delegate(ZONE, (proxy.address,), node_key_zone=ZONE)
        await nodes.until_adopted(node, ZONE, version=2)
        here = Site(folder, asyncio.get_running_loop(), nodes, tuple(witnesses), f"http://{listen}", proxy)
        here.resolver = await _resolver(held, folder, root.endpoint)
        started.set_result(here)
        await stop.wait()


async def _resolver(held: AsyncExitStack, folder: Path, root: str) -> str:
    settings = {
        "listen": "127.0.0.1:0",
        "root_key": "root.pub",
        "root_endpoints": [root],
        "drain_seconds": 0.1,
        "limits": {"chain_seconds": 0},
    }
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    ends = asyncio.Event()
    config = ResolverConfig.parse(settings, folder)
    task = asyncio.create_task(resolver_server.run(config, on_ready=ready.set_result, stop=ends))

    async def end() -> None:
        ends.set()
        await task

    held.push_async_callback(end)
    return await asyncio.wait_for(ready, WAIT_SECONDS)

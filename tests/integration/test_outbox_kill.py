"""A node that records events is killed (SIGKILL) at each step from commit to the end of a delivery, and started again.

The node is a process of its own, the home of what its events are about another node. No event that was acknowledged may
be missing at either or in what a resolver traces, and none may stand there twice. The steps are those of
``tests/dying_deliverer.py``: before the write, after it, before and after the delivery, while it is kept, while it
waits for a home that is away, and when it was given up.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from idtrace.record import Record, peek_identifier
from idtrace.v1 import capture_pb2_grpc, pointer_pb2, pointer_pb2_grpc, resolver_pb2
from tests.capture_fixtures import PROCEED, bytes_of, event_record, observed, signed_request
from tests.dying_deliverer import POINTS
from tests.integration.test_pointers import listed
from tests.nodes import TIMEOUT, Node, Nodes
from tests.storages import cassandra_settings
from tests.trace_site import a_resolver

ROOT = Path(__file__).parents[2]
HERE, THERE = "88.118.8", "86.1.5"
DOSES = tuple(f"{THERE}/DOSE-{n}" for n in range(3))
PLAIN = ("-c", "from idtrace.cli import main; main()")


@dataclass
class Recorder:
    """The node that is killed, and what was sent to it."""

    folder: Path
    port: int
    sent: dict[str, tuple[Record, str]] = field(default_factory=dict)  # by event: its record and its dose
    acked: set[str] = field(default_factory=set)
    process: asyncio.subprocess.Process | None = None
    kills: int = 0

    async def start(self, *armed: str) -> None:
        words = ["node", "run", "--role", "registry", "--config", str(self.folder / "here.toml")]
        program = ["-m", "tests.dying_deliverer", *armed] if armed else list(PLAIN)
        with (self.folder / "stderr.txt").open("ab") as errors:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, *program, *words, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors
            )
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 30)
        assert line.startswith(b"ready ") or armed, (self.folder / "stderr.txt").read_text()[-2_000:]

    async def capture(self, count: int) -> None:
        """New events, and all that nobody has acknowledged; a node that dies meanwhile acknowledges nothing."""
        for _ in range(count):
            number, dose = len(self.sent), DOSES[len(self.sent) % len(DOSES)]
            epcs = [f"idtrace:{dose}", f"idtrace:{HERE}/BOX-1"]
            record = event_record(
                HERE,
                bytes_of(
                    observed(number, epcList=epcs, eventTime=f"2026-07-22T10:{number // 60 % 60:02}:{number % 60:02}Z")
                ),
            )
            self.sent[str(peek_identifier(record.signed.payload))] = record, dose
        unsure = [event for event in self.sent if event not in self.acked]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            stub = capture_pb2_grpc.CaptureServiceStub(channel)
            try:
                request = signed_request([self.sent[event][0] for event in unsure], PROCEED)
                response = await stub.Capture(request, timeout=TIMEOUT)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE, error  # noqa: PT017 - another code would be a bug
                return
        assert all(one.HasField("captured") for one in response.results), response
        self.acked.update(unsure)

    async def dies(self, seconds: float = 20.0) -> None:
        assert self.process is not None
        assert await asyncio.wait_for(self.process.wait(), seconds) == -signal.SIGKILL, "it has not come to its end"
        self.kills += 1

    async def end(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


async def prepared(folder: Path, storage: dict[str, object]) -> tuple[Nodes, Recorder, Node]:
    """Both nodes' zones are adopted; the recorder's node then goes on as a program of its own."""
    nodes = Nodes(folder)
    root = await nodes.registry("")
    home = await nodes.registry(THERE)
    settings: dict[str, Any] = {"storage": storage} if storage else {}
    for dose in DOSES:
        await nodes.register(dose, {"lot": "L1"})
    here = await nodes.registry(HERE, **settings)
    await here.end()
    port = int(here.endpoint.rpartition(":")[2])
    lines = {
        "listen": here.endpoint,
        "data": f"{HERE}.data",
        "root_key": "root.pub",
        "node_key": f"{HERE}.key",
        "zones": [HERE],
        "parents": [root.endpoint],
        "log_level": "ERROR",
    }
    table = "".join(f"{key} = {value!r}\n" for key, value in storage.items())
    text = "".join(f"{key} = {value!r}\n" for key, value in lines.items())
    (folder / "here.toml").write_text(text + (f"[storage]\n{table}" if table else ""), "utf-8")
    return nodes, Recorder(folder, port), home


async def emptied(port: int) -> None:
    """All is delivered; what was given up waits for its operator, who tries it again."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel, asyncio.timeout(60):
        stub = pointer_pb2_grpc.PointerServiceStub(channel)
        await stub.RetryDead(pointer_pb2.RetryDeadRequest(), timeout=TIMEOUT)
        while True:
            if not (await stub.ListOutbox(pointer_pb2.ListOutboxRequest(), timeout=TIMEOUT)).items:
                dead = await stub.ListOutbox(pointer_pb2.ListOutboxRequest(dead=True), timeout=TIMEOUT)
                assert not dead.items, dead
                return
            await asyncio.sleep(0.1)


async def killed_at(folder: Path, storage: dict[str, object], rounds: int, seed: int) -> str:
    """Kill at each point in turn, then let it come to an end, and compare both nodes with what was acknowledged."""
    rng = random.Random(seed)
    nodes, recorder, home = await prepared(folder, storage)
    async with nodes:
        try:
            for n in range(rounds):
                point = POINTS[n % len(POINTS)]
                if point == "waiting":
                    await home.end()
                await recorder.start(point, str(rng.choice((1, 1, 2))))
                for _ in range(4):  # so often until the process has come to its end
                    await recorder.capture(rng.randint(1, 4))
                    assert recorder.process is not None
                    if recorder.process.returncode is not None:
                        break
                    await asyncio.sleep(0.3)
                await recorder.dies()
                if point == "waiting":
                    await home.start()
            await recorder.start()
            await recorder.capture(1)
            assert recorder.acked == set(recorder.sent)
            await emptied(recorder.port)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{recorder.port}") as channel:
                await compare(recorder, home, pointer_pb2_grpc.PointerServiceStub(channel))
            await trace(folder, nodes, recorder)
        finally:
            await recorder.end()
    return (
        f"{recorder.kills} kills at {len(POINTS)} points, {len(recorder.sent)} events, 0 lost, 0 doubled, seed {seed}"
    )


async def compare(recorder: Recorder, home: Node, here: Any) -> None:
    """Each dose's home points to exactly its events, and so does the recorder for what it keeps itself."""
    for dose in DOSES:
        found = [one.event for one in await listed(home, dose)]
        assert sorted(found) == sorted(event for event, (_, about) in recorder.sent.items() if about == dose)
    request = pointer_pb2.PointerServiceListRequest(subject=f"{HERE}/BOX-1")
    pointers = (await here.List(request, timeout=TIMEOUT)).pointers
    assert sorted(one.event for one in pointers) == sorted(recorder.sent)


async def trace(folder: Path, nodes: Nodes, recorder: Recorder) -> None:
    """Each dose's history is exactly its events, each once, proven."""
    async with a_resolver(folder, nodes) as (_, stub):
        for dose in DOSES:
            request = resolver_pb2.TraceRequest(text=dose)
            parts = [part async for part in stub.Trace(request, timeout=60)]
            assert [part.gap for part in parts if part.WhichOneof("part") == "gap"] == []
            steps = [part.step.bundle.identifier for part in parts if part.WhichOneof("part") == "step"]
            assert sorted(steps) == sorted(event for event, (_, about) in recorder.sent.items() if about == dose)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_no_event_is_lost_or_doubled_by_a_kill_at_each_step(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("outbox kills", await killed_at(tmp_path, {}, len(POINTS), 1))


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize(("engine", "rounds"), [("sqlite", 100), ("cassandra", 50)])
async def test_no_event_is_lost_or_doubled_by_many_kills(
    tmp_path: Path, record_property: Callable[[str, object], None], engine: str, rounds: int
) -> None:
    storage: dict[str, object] = {}
    if engine == "cassandra":
        settings = await cassandra_settings(tmp_path)
        storage = {
            "engine": "cassandra",
            "contact_points": list(settings.contact_points),
            "port": settings.port,
            "keyspace": settings.keyspace,
            "ledger": settings.ledger,
        }
    record_property("outbox kills", f"{engine}: " + await killed_at(tmp_path, storage, rounds, random.randrange(2**32)))

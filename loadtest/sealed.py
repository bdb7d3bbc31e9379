"""``python -m loadtest.sealed``: records a second, durable and logged through gRPC: signed one by one, and sealed.

One registry in a process of its own, pinned to core 0 where there are two, its client on the other one; the two ways
take turns. Beside the rate stands the processor time that the node took a record (proc(5); what it would do on a core
of its own is one over that), and of it, measured in this process: what its signatures take, made and checked one by
one, and a plain write and fsync of a batch's bytes.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from idtrace.cli.demo import quiet_command
from idtrace.cli.demo_tree import DemoTree
from idtrace.identifier import Prefix
from idtrace.seal import seal
from idtrace.serving.keyfile import load_signer
from idtrace.signature import CheckBudget, Kind, Signer, sign, signed_hash, verify
from idtrace.v1 import registry_pb2
from loadtest.work import BATCH, TIMEOUT_SECONDS, Bench, Sample

# Batches of one way in one turn, two of them under way at any time.
BATCHES: Final = 6
UNDER_WAY: Final = 2
ZONE: Final = "88.118.8"


def sealed_requests(
    requests: Sequence[registry_pb2.RegisterRequest], signer: Signer
) -> list[registry_pb2.RegisterSealedRequest]:
    """The same registrations, sealed in batches of 2,000; made outside the timed part."""
    made = []
    for start in range(0, len(requests), BATCH):
        records = [request.record for request in requests[start : start + BATCH]]
        hashes = [signed_hash(Kind.RECORD, record.signed.payload) for record in records]
        signed = seal(hashes, Prefix.parse(ZONE), signer, issued_at=int(time.time()))[0].seal
        batch = registry_pb2.RegisterSealedRequest(idempotency_key=requests[start].idempotency_key)
        batch.seal.payload_type, batch.seal.payload = signed.payload_type, signed.payload
        for one in signed.signatures:
            batch.seal.signatures.add(key_id=one.key_id, algorithm=one.algorithm, signature=one.signature)
        for record in records:
            batch.items.add(payload=record.signed.payload, values=record.values)
        made.append(batch)
    return made


async def _sealed(bench: Bench, batches: Sequence[registry_pb2.RegisterSealedRequest]) -> Sample:
    """Two batches under way, as with those that are signed one by one: the node has work while its client packs."""
    waiting = iter(batches)

    async def worker() -> None:
        for batch in waiting:
            response = await bench.registry.RegisterSealed(batch, timeout=TIMEOUT_SECONDS)
            if any(result.HasField("error") for result in response.results):
                raise RuntimeError("the measurement is void: a record was refused")

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(UNDER_WAY):
            group.create_task(worker())
    return Sample(BATCH * len(batches), time.perf_counter() - started)


async def _signed(bench: Bench, requests: Sequence[registry_pb2.RegisterRequest]) -> Sample:
    return await bench.register_batches(requests)


def _worked_seconds(pid: int) -> float:
    """Processor time that a process has taken so far (proc(5), stat: utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Way:
    """One way to register: records a second in each counted turn, and the node's processor time, s a record."""

    rates: list[float] = field(default_factory=list)
    worked: list[float] = field(default_factory=list)


async def _measure(tree: DemoTree, rounds: int) -> dict[str, Way]:
    signer = load_signer(tree.owner_key(ZONE))
    bench = Bench(tree.endpoints["maker"], tree.endpoints["resolver-a"], signer, ZONE)
    ways = {"signed one by one": Way(), "under a seal": Way()}
    pid = tree.processes["maker"].pid
    try:
        for turn in range(rounds + 1):
            one_by_one, together = bench.requests(BATCH * BATCHES), bench.requests(BATCH * BATCHES)
            batches = sealed_requests(together, signer)
            works = (partial(_signed, bench, one_by_one), partial(_sealed, bench, batches))
            for way, work in zip(ways.values(), works, strict=True):
                before = _worked_seconds(pid)
                sample = await work()
                if turn:  # the first one warms up
                    way.rates.append(sample.rate)
                    way.worked.append((_worked_seconds(pid) - before) / sample.count)
    finally:
        await bench.close()
    return ways


def _costs(folder: Path, signer: Signer) -> dict[str, float]:
    """Microseconds: one signature made, one checked, one fsync of a batch's bytes."""
    payload, count = os.urandom(350), 500
    started = time.perf_counter()
    made = [sign(Kind.RECORD, payload, signer) for _ in range(count)]
    signing = time.perf_counter() - started
    keys = {signer.public_key.key_id: signer.public_key}
    started = time.perf_counter()
    for one in made:
        verify(one, Kind.RECORD, keys, budget=CheckBudget(1))
    checking = time.perf_counter() - started
    content, syncs = os.urandom(4_000_000), []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(5):
            file.seek(0)
            file.write(content)
            started = time.perf_counter()
            os.fsync(file.fileno())
            syncs.append(time.perf_counter() - started)
    costs = {
        "signature made": signing / count,
        "signature checked": checking / count,
        "fsync": statistics.median(syncs),
    }
    return {name: seconds * 1e6 for name, seconds in costs.items()}


def main(
    rounds: Annotated[int, typer.Option(help="Counted turns.", min=1, max=100)] = 3,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")] = None,
) -> None:
    """Measure batches of 2,000 records, signed one by one and sealed."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="idtrace-bench-") as folder:
        tree = DemoTree(Path(folder) / "tree", quiet_command)
        tree.prepare()
        quiet_command("key", "new", str(tree.key("maker-log")))
        with (tree.folder / "maker.toml").open("a", encoding="utf-8") as config:
            config.write(f'\n[log]\norigin = "log.example/{ZONE}"\nkey = "{tree.key("maker-log").name}"\n')
        try:
            os.sched_setaffinity(0, cores[:1])  # the nodes inherit it
            tree.start()
            os.sched_setaffinity(0, cores[-1:])
            tree.delegate()
            ways = asyncio.run(_measure(tree, rounds))
            costs = _costs(Path(folder), load_signer(tree.owner_key(ZONE)))
        finally:
            tree.stop()
    rows: list[dict[str, object]] = []
    per_record = {"signed one by one": (1.0, 1.0), "under a seal": (1 / BATCH, 0.0)}  # checked, made
    columns = ("way", "median", "low", "high", "node's µs a record", "of it signatures", "fsync")
    shown = Table(*columns, title="records/s, batches of 2,000")
    for name, way in ways.items():
        median, worked = statistics.median(way.rates), statistics.median(way.worked)
        checked, made = per_record[name]
        signatures = checked * costs["signature checked"] + made * costs["signature made"]
        disk = costs["fsync"] / BATCH
        rows.append(
            {
                "way": name,
                "median": round(median, 1),
                "low": round(min(way.rates), 1),
                "high": round(max(way.rates), 1),
                "unit": "records/s",
                "node_us": round(worked * 1e6, 1),
                "signatures_us": round(signatures, 1),
                "fsync_us": round(disk, 2),
            }
        )
        speeds = (f"{value:,.0f}" for value in (median, min(way.rates), max(way.rates)))
        shown.add_row(name, *speeds, f"{worked * 1e6:.0f}", f"{signatures:.0f}", f"{disk:.1f}")
    Console().print(shown, costs)
    if json_out is not None:
        json_out.write_text(json.dumps({"rates": rows, "costs_us": costs}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)

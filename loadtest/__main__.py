"""``make bench``: how fast this machine registers, resolves and judges, over real processes, interleaved in one run.

The grpcio port only. Client, registry and resolver share the machine's cores, so read the ratios rather than the rates;
a figure whose range is wide says that the machine was busy.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from idtrace.cli.demo import quiet_command
from idtrace.cli.demo_tree import DemoTree
from idtrace.serving.keyfile import load_signer
from loadtest import scan
from loadtest.work import BATCH, Bench, Sample

UNITS = {
    "register, batches of 2,000": "records/s",
    "register, single calls": "records/s",
    "resolve cold, single calls": "answers/s",
    "resolve warm, single calls": "answers/s",
    "resolve cold, batches of 256": "answers/s",
    "resolve warm, batches of 256": "answers/s",
}


async def _round(bench: Bench, size: int) -> dict[str, Sample]:
    batch, single = bench.requests(2 * BATCH), bench.requests(size)
    start = len(bench.registered) - len(batch) - len(single)
    names = list(UNITS)
    samples = {names[0]: await bench.register_batches(batch), names[1]: await bench.register_singles(single)}
    fresh = bench.registered[start:]
    for_singles, for_batches = fresh[:size], fresh[size : 2 * size]
    samples[names[2]] = await bench.resolve_singles(for_singles)
    samples[names[3]] = await bench.resolve_singles(for_singles)
    samples[names[4]] = await bench.resolve_batches(for_batches)
    samples[names[5]] = await bench.resolve_batches(for_batches)
    return samples


async def _measure(tree: DemoTree, rounds: int, size: int, console: Console) -> dict[str, list[float]]:
    signer = load_signer(tree.owner_key("88.118.8"))
    bench = Bench(tree.endpoints["maker"], tree.endpoints["resolver-a"], signer, "88.118.8")
    rates: dict[str, list[float]] = {name: [] for name in UNITS}
    try:
        await _round(bench, 256)  # warm-up: imports, connections, the chain
        for number in range(1, rounds + 1):
            console.print(f"round {number} of {rounds}", style="dim")
            for name, sample in (await _round(bench, size)).items():
                rates[name].append(sample.rate)
    finally:
        await bench.close()
    return rates


def main(
    rounds: Annotated[int, typer.Option(help="Counted rounds.", min=1, max=100)] = 5,
    size: Annotated[int, typer.Option(help="Single calls a round.", min=256, max=100_000)] = 1_024,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")] = None,
) -> None:
    """Measure registration, resolution and verdicts on a tree of real processes."""
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="idtrace-bench-") as folder:
        tree = DemoTree(Path(folder) / "tree", quiet_command)
        tree.prepare()
        try:
            tree.start()
            tree.delegate()
            rates = asyncio.run(_measure(tree, rounds, size, console))
            now_ms = int(time.time() * 1000)
            scan.prepare(tree, now_ms)
            works = asyncio.run(scan.measure(tree, now_ms, rounds, lambda text: console.print(text, style="dim")))
        finally:
            tree.stop()
    rows = [
        {
            "work": name,
            "median": round(statistics.median(values), 1),
            "low": round(min(values), 1),
            "high": round(max(values), 1),
            "unit": UNITS[name],
            "rounds": len(values),
        }
        for name, values in rates.items()
    ]
    table = Table("work", "median", "low", "high", "unit", title="grpcio port, this machine, all on the same cores")
    for row in rows:
        cells = (f"{row[key]:,.0f}" for key in ("median", "low", "high"))
        table.add_row(str(row["work"]), *cells, str(row["unit"]))
    scans = [work.row() for work in works]
    Console().print(table, _scans(scans))
    if json_out is not None:
        json_out.write_text(json.dumps(rows + scans, indent=1) + "\n", encoding="utf-8")


def _scans(rows: list[dict[str, object]]) -> Table:
    title = "a dose 6 packages deep, 40 events, 3,000 readings, 4 nodes: from the scan to the verdict"
    table = Table("work", "median ms", "p99 ms", "signatures", "calls", "times", title=title)
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int | float) else str(cell) for cell in row.values()))
    return table


if __name__ == "__main__":
    typer.run(main)

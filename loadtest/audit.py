"""``python -m loadtest.audit``: how many entries of sealed batches an auditor reads in a second of one core.

Twice: the replay alone (every rule, every hash of the tree), and the whole audit with fetching, unpacking, tiles and
the check of each entry against them, over the auditor's own HTTP client but no network. Seconds are those of this
process's CPU, so that a busy machine shows less; it fails below 20,000 entries a second. In the same rounds, in turn,
also what an answer of that log costs whoever saves it and verifies it offline (:mod:`loadtest.saved_bundles`).
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from idtrace.audit import Replay
from idtrace.auditing.auditor import Asked, LogAudit, zone_keys
from idtrace.auditing.evidence import Chained
from idtrace.auditing.fetching import LogReader
from idtrace.auditing.findings import Outcome
from idtrace.chain import Anchor
from idtrace.tiles import TILE_WIDTH
from loadtest.audit_log import BATCH, NOW, ROOT, BenchLog, chain, signer
from loadtest.saved_bundles import Verifiers, microseconds, saved, sizes

# A log of the Shanghai node's daily registrations is then read in minutes, by one core.
FLOOR: Final = 20_000
# Turns of a verification that are timed together: a tenth of a second.
TURNS: Final = 100
Row = dict[str, str | int]


def _replay(log: BenchLog, asked: Asked) -> None:
    trusted = [one.trusted(asked.anchor) for one in asked.chains]
    replay = Replay(outside=zone_keys(trusted), anchor=asked.anchor)
    for first in range(0, len(log.entries), TILE_WIDTH):
        replay.feed(log.entries[first : first + TILE_WIDTH])
    replay.end()
    assert not replay.broken, "the log is sound"
    assert replay.range == log.edge.head.range, "it has been read whole"


def _audit(log: BenchLog, asked: Asked) -> None:
    audit = LogAudit(LogReader("http://log.example", transport=log.transport), asked)
    report = audit.run(NOW)
    audit.reader.close()
    assert report.outcome is Outcome.CONSISTENT, "the log is sound"
    assert report.entries == len(log.entries), "it has been read whole"


def _rate(work: Callable[[BenchLog, Asked], None], log: BenchLog, asked: Asked) -> float:
    start = time.process_time()
    work(log, asked)
    return len(log.entries) / (time.process_time() - start)


def main(
    records: Annotated[int, typer.Option(help="Records in the log.", min=BATCH, max=10_000_000)] = 70_000,
    rounds: Annotated[int, typer.Option(help="Rounds, of which the median counts.", min=1, max=100)] = 3,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")] = None,
) -> None:
    """Measure the auditor."""
    log = BenchLog.of(records)
    asked = Asked(Anchor.of(signer(ROOT).public_key), (Chained(NOW, chain()),))
    works = {"replay alone": _replay, "whole audit": _audit}
    bundle = saved(log)
    verifiers = Verifiers.of(bundle).works
    rates: dict[str, list[float]] = {name: [] for name in works}
    times: dict[str, list[float]] = {name: [] for name in verifiers}
    for _ in range(rounds):
        for name, work in works.items():
            rates[name].append(_rate(work, log, asked))
        for name, verify in verifiers.items():
            verify()  # what is warm has been met once
            times[name].append(microseconds(verify, TURNS))
    size = sum(map(len, log.entries)) / len(log.entries)
    figures: dict[str, list[Row]] = {
        f"entries a CPU second; {len(log.entries)} of {size:.0f} bytes": _rows(rates),
        "us of CPU for one saved bundle": _rows(times),
        "bytes of one saved bundle": [{"work": name, "bytes": count} for name, count in sizes(bundle).items()],
    }
    for title, rows in figures.items():
        _show(title, rows)
    if json_out is not None:
        json_out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if any(statistics.median(found) < FLOOR for found in rates.values()):
        raise typer.Exit(1)


def _rows(measured: dict[str, list[float]]) -> list[Row]:
    return [
        {"work": name, "median": round(statistics.median(found)), "low": round(min(found)), "high": round(max(found))}
        for name, found in measured.items()
    ]


def _show(title: str, rows: list[Row]) -> None:
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:,}" for value in row.values()))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)

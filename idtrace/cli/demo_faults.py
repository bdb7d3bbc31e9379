"""What the demonstration shows of servers that it did not bring along: that they are used, and what their death costs.

A registry is killed in the middle of a registration and loses nothing that it has given a receipt for; Redis is killed
in the middle of questions and no question goes without its answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from idtrace.cli.demo_check import Prover, Tally
from idtrace.cli.demo_story import Story, quiet_command, register_words, sweep
from idtrace.cli.demo_tree import NODES
from idtrace.cli.options import anchor_of, now
from idtrace.identifier import Identifier
from idtrace.statements import Receipt

# Registered while their node is killed: a fifth of what was registered before, in at least ten batches.
RETURNS_MIN: Final = 400
RETURNS_MAX: Final = 2_000
RETURNS_BATCH: Final = 50
# So many have their receipts when the node is killed; the rest are on their way or have not left.
RECEIPTS_BEFORE: Final = 100
RECEIPTS_SECONDS_MAX: Final = 60.0
POLL_SECONDS: Final = 0.01
# A machine that is very busy loses a trip to Redis to its time-out, and those questions go to the tree.
SHARED_PERCENT_MIN: Final = 90
# Asked of one resolver while Redis dies.
QUESTIONS: Final = 2_500


def found(story: Story) -> None:
    """Say which servers answer.

    Raises:
        Failure: one does not.
    """
    engines = story.engines
    if engines.cassandra:
        story.say(f"Cassandra {engines.cassandra_version()} found", f"{engines.cassandra}, keyspace {engines.name}")
    if engines.redis:
        story.say(f"Redis {engines.redis_version()} found", engines.redis)


def kept(story: Story, registered: int) -> None:
    """Every identifier has a row, and every registry a ledger of its own.

    Raises:
        Failure: Cassandra does not answer.
    """
    ledgers, rows = story.engines.ledgers(), story.engines.identifiers()
    batches = ", ".join(f"{name} {seq:,}" for name, seq in sorted(ledgers.items()))
    registries = {plan.name for plan in NODES if plan.zones}
    # Capture jobs stay in a file beside every node by design (registry/job_store.py); records must not.
    local = sorted(story.tree.folder.rglob("registry.sqlite3"))
    holds = rows == registered and set(ledgers) == registries and not local
    story.say(f"{rows:,} identifiers in Cassandra", f"batches by ledger: {batches}; none in SQLite", holds=holds)


def shared(story: Story, tally: Tally, hits_before: int) -> None:
    """A resolver that has asked nobody before had its answers from Redis, by its word and by Redis' own count."""
    untouched, hits = tally.count - tally.walked, story.engines.redis_hits() - hits_before
    holds = untouched * 100 >= tally.count * SHARED_PERCENT_MIN and hits >= untouched
    told = f"{tally.walked:,} asked of the tree; Redis counts {hits:,} hits"
    story.say(f"{untouched:,} of them from Redis", told, holds=holds)


def registry_killed(story: Story) -> None:
    """Kill it (-9) in the middle of a registration, and a start on what Cassandra has: every receipt is kept.

    Raises:
        Failure: the node does not start again, or registers no more.
    """
    tree = story.tree
    returns = tree.folder / "returns.csv"
    many = min(RETURNS_MAX, max(RETURNS_MIN, story.packages // 5))
    lines = [f"88.118.8/RETURN-{number:05d}" for number in range(1, many + 1)]
    returns.write_text("identifier,reason\n" + "".join(f"{line},carton damaged\n" for line in lines), encoding="utf-8")
    words = [*register_words(tree, returns, "88.118.8", "maker"), "--batch", str(RETURNS_BATCH)]
    silent = subprocess.DEVNULL
    command = [sys.executable, "-m", "idtrace", *words]
    with subprocess.Popen(command, stdin=silent, stdout=silent, stderr=silent) as registering:
        try:
            _await_receipts(returns, registering)
            tree.kill("maker")
            interrupted = registering.wait() != 0
        finally:
            registering.kill()  # it has ended, unless somebody has ended us
    before = _receipted(returns)
    started = time.perf_counter()
    tree.start_again("maker")
    seconds = time.perf_counter() - started
    told = f"{len(before):,} of {many:,} had their receipts; up again in {seconds:.1f} s"
    story.say("registry killed (-9) while it registered", told, holds=interrupted and 0 < len(before) < many)
    quiet_command(*words)
    after = _receipted(returns)
    receipted = _receipted(tree.folder / "manifest.csv") | after
    asked = [str(identifier) for identifier in receipted]
    tally = sweep(
        story, "resolver-a", "after the kill", asked, Prover(anchor_of(tree.root_key), now(), receipted), fresh=True
    )
    whole = before.items() <= after.items() and len(after) == many
    told = f"{len(asked):,} receipts, the authority asked for each: {tally.summary}"
    story.say("started again, it has lost nothing", told, holds=whole and tally.all_found(len(asked)))


def _await_receipts(file: Path, registering: subprocess.Popen[bytes]) -> None:
    """Wait until some lines of a file have their receipts, or whoever registers them has ended."""
    deadline = time.monotonic() + RECEIPTS_SECONDS_MAX
    while len(_receipted(file)) < RECEIPTS_BEFORE and registering.poll() is None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def redis_killed(story: Story, texts: Sequence[str]) -> None:
    """Redis dies while a resolver answers.

    Raises:
        Failure: the resolver does not answer.
    """
    asked = texts[1 :: max(1, len(texts) // QUESTIONS)]
    dead: list[bool] = []
    proven = 0

    def told(count: int) -> None:
        nonlocal proven
        proven += count
        if not dead and proven * 2 >= len(asked):
            dead.append(story.engines.kill())

    tally = sweep(story, "resolver-b", "Redis dies", asked, Prover(anchor_of(story.tree.root_key), now()), told=told)
    result = f"{tally.summary}, {tally.walked:,} asked of the tree"
    holds = dead == [True] and tally.all_found(len(asked))
    story.say(f"{len(asked):,} resolved, Redis killed half-way", result, holds=holds)


def _receipted(file: Path) -> dict[Identifier, bytes]:
    """Record hashes of which the journal of a file holds receipts, by identifier; a torn last line is not there yet."""
    journal = Path(f"{file}.idtrace-receipts.jsonl")
    text = journal.read_text("utf-8") if journal.exists() else ""
    bodies = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    receipts = [Receipt.parse(body["receipt"]["payload"].encode()) for body in bodies if "receipt" in body]
    return {receipt.identifier: receipt.record_hash for receipt in receipts}

"""A node with a log and a real witness, killed (SIGKILL) under load again and again, and so is the witness.

Nothing that was acknowledged may be lost, each of it is provable under the newest checkpoint, every checkpoint that
anybody was ever shown is the beginning of the newest one, and the witness never sees a fork. A kill leaves the page
cache alone: power cuts are synchronous=FULL's promise, not shown.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import grpc.aio
import pytest

from idtrace.logpolicy import KnownWitness
from tests.log_examined import LogFound, examine_log
from tests.logged_program import LOG, LOG_KEY, LogClient, LoggedProgram, LogLedger, prepared_log
from tests.under_fire import Stub, under_fire
from tests.witness_fixtures import WitnessProgram

# The witness dies as well in every so many rounds, a little after the node was killed.
WITNESS_DIES_EVERY = 7
PUBLISHED_SECONDS = 20.0


def prepared_witness(folder: Path) -> WitnessProgram:
    """A witness that watches the log of :mod:`tests.logged_program`."""
    witness = WitnessProgram(folder)
    (folder / "logs").write_text(f"log {LOG_KEY}\nquorum none\n")
    return witness


def seen_by(witness: WitnessProgram) -> tuple[int, bytes, int]:
    """What the witness remembers: size and root of the tree, and how many forks."""
    file = witness.config.parent / "seen.sqlite3"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        size, root = connection.execute("SELECT size, root FROM seen WHERE origin = ?", (LOG,)).fetchone() or (0, b"")
        return size, root, connection.execute("SELECT count(*) FROM evidence").fetchone()[0]


class Fire:
    """The node, its witness and its clients; what the witness has seen is noted between two rounds."""

    def __init__(self, node: LoggedProgram, witness: WitnessProgram) -> None:
        self.node = node
        self.witness = witness
        self.ledger = LogLedger()
        self.clients = [LogClient(name, self.ledger) for name in "abcdef"]
        self.witness_sizes: list[int] = []
        self.witness_deaths = 0

    def note_witness(self) -> None:
        size, root, forks = seen_by(self.witness)
        assert forks == 0, "the witness has seen a fork"
        self.witness_sizes.append(size)
        if size:
            self.ledger.told.shown.setdefault(size, set()).add(root)

    async def between(self, done: int) -> None:
        self.note_witness()
        if done % WITNESS_DIES_EVERY == WITNESS_DIES_EVERY - 1:
            await self.witness.end(signal.SIGKILL)
            self.witness_deaths += 1
            await self.witness.start()

    async def until_published(self) -> None:
        """Wait until the published checkpoint is that of the whole log, which nobody makes grow any more."""
        end = time.monotonic() + PUBLISHED_SECONDS
        while not self.ledger.told.published or self.ledger.told.published[-1] < max(self.ledger.told.shown):
            assert time.monotonic() < end, "what is committed is not witnessed and published"
            await asyncio.sleep(0.05)

    async def run(self, kills: int) -> LogFound:
        """Kill, start once more, ask for everything again; what is found then."""
        program = self.node.program
        await self.witness.start()
        try:
            async with self.ledger.told.watching(self.node.url):
                await under_fire(program, self.clients, kills, self.between)
                await program.start()
                await LogClient("last", self.ledger).ask_again(program.endpoint)
                await self.until_published()
        finally:
            await program.kill()
            await self.witness.end(signal.SIGKILL)
        self.note_witness()
        return await examine_log(self.node.store, self.ledger, self.node.nodes.anchor)


async def survives(folder: Path, kills: int) -> str:
    """Let a node and its witness live through so many kills; the figures."""
    begun = time.monotonic()
    witness = prepared_witness(folder / "witness")
    fire = Fire(await prepared_log(folder, KnownWitness("w1", witness.key, witness.url)), witness)
    found = await fire.run(kills)
    told = fire.ledger.told
    assert found.wrong == []
    assert told.published == sorted(told.published), "the published checkpoint has gone back"
    assert fire.witness_sizes == sorted(fire.witness_sizes), "the witness has gone back"
    assert fire.witness_sizes[-1] == found.entries
    assert not (folder / "root.data" / "evidence").exists(), "the witness has refused what the log has signed"
    assert found.acked >= len(fire.ledger.acked) > 10 * kills
    assert len(set(told.published)) > kills / 2, "the log was hardly ever published while it was under fire"
    return (
        f"kills {kills} (and {fire.witness_deaths} of the witness), entries {found.entries}, acked and proven "
        f"{found.acked}, repeats {fire.ledger.repeats}, checkpoints shown and consistent {found.checkpoints} "
        f"({len(set(told.published))} of them published), lost 0, changed 0, forks 0, {time.monotonic() - begun:.0f} s"
    )


DAMAGES = {
    "DELETE FROM version WHERE log_index = 5": "lost, or another record",
    "UPDATE version SET log_index = 6 WHERE log_index = 5": "records and entries are not one to one",
    "UPDATE idempotency SET receipt = x'00' WHERE key = 'key-x-000003'": "lost, or another receipt",
    "UPDATE log_entry SET entry = (SELECT entry FROM log_entry WHERE idx = 5) WHERE idx = 4": "another entry",
    "DELETE FROM log_entry WHERE idx = (SELECT max(idx) FROM log_entry)": "the checkpoint is not of the entries",
    "UPDATE log_tile SET content = zeroblob(length(content)) WHERE level = 0": "is another",
    "DELETE FROM version WHERE identifier LIKE '%.7'": "lost, or in other places",
}


@pytest.mark.slow
async def test_what_is_lost_or_changed_in_a_store_is_found(tmp_path: Path) -> None:
    node, ledger = await prepared_log(tmp_path), LogLedger()
    client = LogClient("x", ledger)
    await node.program.start()
    try:
        async with grpc.aio.insecure_channel(node.program.endpoint) as channel:
            await client.send_batch(Stub(channel), [client.new() for _ in range(10)])
            await client.send_sealed(Stub(channel), client.new_batch())
    finally:
        await node.program.kill()
    assert (await examine_log(node.store, ledger, node.nodes.anchor)).wrong == []
    whole = tmp_path / "whole"
    with closing(sqlite3.connect(node.store)) as connection, closing(sqlite3.connect(whole)) as copy:
        connection.backup(copy)
    for number, (damage, found) in enumerate(DAMAGES.items()):
        damaged = Path(shutil.copy(whole, tmp_path / f"damaged-{number}"))
        with closing(sqlite3.connect(damaged)) as connection, connection:
            assert connection.execute(damage).rowcount > 0, damage
        wrong = (await examine_log(damaged, ledger, node.nodes.anchor)).wrong
        assert any(found in one for one in wrong), (damage, wrong[:5])
    ledger.told.shown[7] = {bytes(32)}
    ledger.told.shown[9_000] = {bytes(32)}
    wrong = (await examine_log(node.store, ledger, node.nodes.anchor)).wrong
    assert [one.partition(" was shown")[0] for one in wrong] == ["checkpoint 7", "checkpoint 9000"]


@pytest.mark.slow
async def test_a_log_and_its_witness_survive_ten_kills(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("log and kill -9", await survives(tmp_path, 10))


@pytest.mark.faults
@pytest.mark.timeout(1_200)
async def test_a_log_and_its_witness_survive_two_hundred_kills(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("log and kill -9, at length", await survives(tmp_path, 200))

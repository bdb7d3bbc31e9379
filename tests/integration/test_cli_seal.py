"""``idtrace register --from FILE --seal`` at a real node with a log: every row exactly once, whatever dies when."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from idtrace.cli import client
from idtrace.cli.exits import ExitCode
from idtrace.delegation import Role
from idtrace.entry import Entry, EntryKind
from idtrace.errors import BusyError, Reason, RefusedError
from idtrace.record import peek_identifier
from registry.sealing import Sealing
from registry.sequencer import Sequencer
from tests.cli import Ran, idtrace, key_file
from tests.integration.test_logged_node import ZONE, LoggedNodes, Read, tree
from tests.nodes import key_name

ROWS = 60
OWNER = key_name(Role.RECORD, ZONE)


@pytest.fixture
async def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LoggedNodes]:
    monkeypatch.setattr(client, "FIRST_PAUSE_SECONDS", 0.0)
    async with tree(tmp_path) as built:
        yield built


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "items.csv"
    write(path, ROWS)
    return path


def write(path: Path, rows: int, stem: str = "SN") -> None:
    path.write_text("identifier,lot\n" + "".join(f"{ZONE}/{stem}-{n:04},L{n % 7}\n" for n in range(rows)))


def turn_round(path: Path) -> None:
    head, *lines = path.read_text().splitlines()
    path.write_text("\n".join([head, *reversed(lines)]) + "\n")


def command(nodes: LoggedNodes, source: Path, *more: object) -> list[str]:
    key, node = key_file(source.parent, OWNER), nodes.of_zone[ZONE].endpoint
    return [str(a) for a in ("register", "--from", source, "--seal", "--key", key, "--node", node, *more)]


def said(ran: Ran) -> list[Any]:
    """The command's JSON lines; nodes in this process write their log between them."""
    return [json.loads(line) for line in ran.out.splitlines() if line.startswith("{")]


async def register(nodes: LoggedNodes, source: Path, *more: object) -> Ran:
    return await asyncio.to_thread(idtrace, *command(nodes, source, "--batch", 20, *more))


def journal(source: Path) -> list[dict[str, Any]]:
    text = Path(f"{source}.idtrace-receipts.jsonl").read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def kept(source: Path) -> dict[str, int]:
    """Identifier and index of all that the journal says to be in the log; each once."""
    records = [one for body in journal(source) if "sealed" in body for one in body["records"]]
    assert len({identifier for _, identifier, _, _ in records}) == len(records)
    return {identifier: position - 1 for _, identifier, _, position in records}


def errors(source: Path) -> list[dict[str, str]]:
    path = Path(f"{source}.errors.csv")
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


async def logged(nodes: LoggedNodes) -> dict[str, int]:
    """Identifier and index of every record in the log; none stands there twice."""
    read = await Read.of(nodes.of_zone[ZONE])
    assert read.replay().findings == []
    found: dict[str, int] = {}
    for index, data in enumerate(read.entries):
        entry = Entry.from_bytes(data)
        if entry.kind is EntryKind.RECORD:
            name = str(peek_identifier(entry.payload))
            assert name not in found
            found[name] = index
    return found


def strays(source: Path) -> list[Path]:
    return list(source.parent.glob("*.batch-*"))


async def assert_complete(nodes: LoggedNodes, source: Path, rows: int = ROWS) -> None:
    assert kept(source) == await logged(nodes)
    assert len(kept(source)) == rows
    assert strays(source) == []


async def test_a_file_is_registered_under_seals_and_the_journal_says_where(nodes: LoggedNodes, source: Path) -> None:
    ran = await register(nodes, source, "--root", nodes.root_key)
    assert ran.code == 0, ran.said
    assert "✓ done registered 60" in ran.said
    assert "60 sequenced" in ran.said
    await assert_complete(nodes, source)
    kinds = (await Read.of(nodes.of_zone[ZONE])).kinds
    assert kinds.count(EntryKind.SEAL) == 3
    again = await register(nodes, source, "--json")
    assert said(again)[-1]["summary"]["already"] == ROWS
    assert (await Read.of(nodes.of_zone[ZONE])).kinds == kinds


async def test_refused_rows_are_listed_with_their_reason_and_the_others_registered(
    nodes: LoggedNodes, source: Path
) -> None:
    taken = source.parent / "taken.csv"
    write(taken, 3)
    taken.write_text(taken.read_text().replace("L", "other"))
    assert (await register(nodes, taken)).code == 0
    with source.open("a") as file:
        file.write("nonsense,L1\n88.999/FAR,L1\n")
    ran = await register(nodes, source, "--json")
    assert ran.code == ExitCode.PARTLY
    summary = said(ran)[-1]["summary"]
    assert (summary["registered"], summary["refused"], summary["malformed"]) == (ROWS - 3, 4, 1)
    told = {row["line"]: row["reason"] for row in errors(source)}
    assert {told[str(n)] for n in (2, 3, 4)} == {"IDENTIFIER_TAKEN"}
    assert told["62"] == "SCAN_UNKNOWN_SCHEME"
    assert set(told) == {"2", "3", "4", "62", "63"}
    placed = {line["identifier"]: line["log_index"] for line in said(ran)[:-1] if "log_index" in line}
    assert placed == kept(source)


async def test_a_batch_of_which_too_much_is_refused_is_cut_until_the_rest_is_in(
    nodes: LoggedNodes, tmp_path: Path
) -> None:
    taken, source = tmp_path / "taken.csv", tmp_path / "all.csv"
    write(taken, 800)
    taken.write_text(taken.read_text().replace("L", "other"))
    assert (await register(nodes, taken, "--batch", 2000)).code == 0
    write(source, 1_000)
    ran = await register(nodes, source, "--batch", 2000, "--json")
    assert ran.code == ExitCode.PARTLY
    summary = said(ran)[-1]["summary"]
    assert (summary["registered"], summary["refused"]) == (200, 800)
    assert {row["reason"] for row in errors(source)} == {"IDENTIFIER_TAKEN"}
    assert len(await logged(nodes)) == 1_000
    assert strays(source) == []


async def test_an_answer_that_is_lost_is_asked_for_with_the_same_bytes_in_the_next_run(
    nodes: LoggedNodes, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundly: Any = Sealing.register
    sent: list[bytes] = []

    async def lost(self: Sealing, request: Any, *given: Any) -> Any:
        await soundly(self, request, *given)
        sent.append(request.SerializeToString(deterministic=True))
        raise BusyError(Reason.OVERLOADED, "the answer is lost")

    monkeypatch.setattr(Sealing, "register", lost)
    broken = await register(nodes, source)
    assert broken.code == ExitCode.UNREACHABLE
    assert "goes on where it stopped" in broken.said
    assert len(strays(source)) == len({*sent}) > 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in strays(source))

    async def noted(self: Sealing, request: Any, *given: Any) -> Any:
        repeated.append(request.SerializeToString(deterministic=True))
        return await soundly(self, request, *given)

    repeated: list[bytes] = []
    monkeypatch.setattr(Sealing, "register", noted)
    turn_round(source)
    monkeypatch.setattr("idtrace.cli.register.now", lambda: 2_000_000_000)
    ran = await register(nodes, source, "--json")
    # Rows that had not left yet bear the other time, which no node takes; those that had are there as they were.
    assert said(ran)[-1]["summary"]["registered"] == 20 * len({*sent})
    assert {*sent} <= {*repeated}
    monkeypatch.undo()
    assert (await register(nodes, source)).code == 0
    await assert_complete(nodes, source)


async def test_a_row_whose_seal_is_closed_goes_into_a_later_batch(
    nodes: LoggedNodes, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try was committed without one row and its answer lost; by the second nothing is wrong with that row."""
    soundly = Sequencer.submit_sealed
    refused: list[Any] = []

    async def once(self: Sequencer, proposals: Any, *, closed: bool, **_: Any) -> Any:
        if refused:
            return await soundly(self, proposals, closed=closed)
        refused.append(proposals[4])
        results = list(await soundly(self, [*proposals[:4], *proposals[5:]], closed=closed))
        del results
        raise BusyError(Reason.OVERLOADED, "the answer is lost")

    monkeypatch.setattr(Sequencer, "submit_sealed", once)
    ran = await register(nodes, source)
    assert ran.code == 0, ran.said
    await assert_complete(nodes, source)
    assert (await Read.of(nodes.of_zone[ZONE])).kinds.count(EntryKind.SEAL) == 4


async def test_a_row_that_is_always_closed_out_is_refused_in_the_end(
    nodes: LoggedNodes, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def closed(self: Sequencer, proposals: Any, *, closed: bool, **_: Any) -> Any:
        nonlocal asked
        asked += 1
        return [RefusedError(Reason.SEAL_CLOSED, "closed") for _ in proposals]

    monkeypatch.setattr(Sequencer, "submit_sealed", closed)
    ran = await register(nodes, source)
    assert ran.code == ExitCode.PARTLY
    assert asked == 9
    assert {row["reason"] for row in errors(source)} == {"SEAL_CLOSED"}


async def test_a_key_that_is_not_the_zones_refuses_each_row_with_that_reason(nodes: LoggedNodes, source: Path) -> None:
    ran = await register(nodes, source, "--key", key_file(source.parent, "a thief"))
    assert ran.code == ExitCode.PARTLY
    assert len(errors(source)) == ROWS
    assert {row["reason"] for row in errors(source)} == {"SIGNER_UNKNOWN"}


async def test_a_run_without_seals_does_not_touch_what_one_with_seals_left(
    nodes: LoggedNodes, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(self: Sealing, request: Any, *given: Any) -> Any:
        raise BusyError(Reason.OVERLOADED, "too many calls")

    with monkeypatch.context() as patch:
        patch.setattr(Sealing, "register", down)
        assert (await register(nodes, source)).code == ExitCode.UNREACHABLE
    plain = [a for a in command(nodes, source) if a != "--seal"]
    ran = await asyncio.to_thread(idtrace, *plain)
    assert ran.code == ExitCode.USAGE
    assert "first run the same command with --seal" in ran.said
    assert (await register(nodes, source)).code == 0
    assert (await asyncio.to_thread(idtrace, *plain)).code == 0
    await assert_complete(nodes, source)


async def test_witnesses_that_are_not_there_are_a_warning_and_no_failure(nodes: LoggedNodes, source: Path) -> None:
    ran = await register(nodes, source, "--witnessed")
    assert ran.code == 0
    assert "durable, and not witnessed" in ran.said
    one = command(nodes, source)
    key, node = one[one.index("--key") + 1], one[one.index("--node") + 1]
    single = ("register", f"{ZONE}/ONE", "-v", "lot=1", "--key", key, "--node", node, "--witnessed")
    ran = await asyncio.to_thread(idtrace, *single)
    assert (ran.code, "durable, and not witnessed" in ran.err) == (0, True)
    name = f"{ZONE}/SN-0007"
    changed = await asyncio.to_thread(idtrace, "update", name, "-v", "lot=2", "--key", key, "--node", node, "--json")
    assert (changed.code, changed.json["version"], changed.json["level"]) == (0, 2, "sequenced")


async def test_a_run_that_is_killed_at_any_moment_goes_on_and_registers_every_row_once(
    nodes: LoggedNodes, source: Path
) -> None:
    rows = 2_000
    write(source, rows)
    program = [sys.executable, "-c", "from idtrace.cli import main; main()", *command(nodes, source, "--batch", "50")]
    dice = random.Random(20)
    killed = [await asyncio.to_thread(killed_at, dice.uniform(0, 0.15), program, source) for _ in range(6)]
    assert sum(killed) >= 2
    assert (await register(nodes, source, "--batch", 50)).code == 0
    await assert_complete(nodes, source, rows)


def killed_at(seconds: float, program: list[str], source: Path) -> bool:
    """Run it, and kill it so long after it has first written into its journal; false where it was done before."""
    path = Path(f"{source}.idtrace-receipts.jsonl")
    before = path.stat().st_size if path.exists() else 0
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(program, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        for _ in range(2_000):
            if child.poll() is not None or (path.exists() and path.stat().st_size > before):
                break
            time.sleep(0.01)
        time.sleep(seconds)
        is_running = child.poll() is None
        child.send_signal(signal.SIGKILL)
    return is_running

"""``idtrace capture`` of many events at a node that is killed (SIGKILL) at random moments and started again.

Command and node are processes of their own. Whatever died when, the command is run again until it is done; then every
event stands once at the home of its dose and once in what a resolver traces, also those that the command had written
down as captured before the kill and did not send again.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from idtrace.cli.exits import ExitCode
from idtrace.delegation import Role
from idtrace.record import peek_identifier
from idtrace.v1 import resolver_pb2
from tests.capture_fixtures import bytes_of, event_record, observed
from tests.cli import key_file
from tests.integration.test_outbox_kill import HERE, PLAIN, ROOT, THERE, Recorder, emptied, prepared
from tests.integration.test_pointers import listed
from tests.nodes import Nodes, key_name
from tests.trace_site import a_resolver
from tests.unit.epcis.events import document, to_bytes

# Few enough doses that each has many events, and enough that no history of one grows beyond what is traced.
DOSES = 40
TRACED = 5
# So often is the command run for one document; each run meets one kill at most.
RUNS_MAX = 6


def written(file: Path, numbers: range) -> dict[str, str]:
    """Write a document of these events; by event, the dose that it is about."""
    events, doses = [], {}
    for number in numbers:
        dose = f"{THERE}/VIAL-{number % DOSES}"
        at = f"2026-07-22T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}Z"
        event = observed(number, epcList=[f"idtrace:{dose}"], eventTime=at)
        events.append(event)
        doses[str(peek_identifier(event_record(HERE, bytes_of(event)).signed.payload))] = dose
    file.write_bytes(to_bytes(document(*events)))
    return doses


async def captured(folder: Path, file: Path, node: str) -> asyncio.subprocess.Process:
    """The command, begun."""
    words = ["capture", str(file), "--party", HERE, "--proceed", "--json", "--timeout", "5", "--node", node]
    key = key_file(folder, key_name(Role.RECORD, HERE))
    return await asyncio.create_subprocess_exec(
        sys.executable, *PLAIN, *words, "--key", str(key), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


async def one_document(folder: Path, file: Path, recorder: Recorder, rng: random.Random, longest: float) -> None:
    """Run the command until it is done, with a kill of the node at some moment of each run but the last ones."""
    for run in range(RUNS_MAX):
        command = await captured(folder, file, f"127.0.0.1:{recorder.port}")
        ended = asyncio.create_task(command.communicate())
        if run < RUNS_MAX - 2:
            await asyncio.wait({ended}, timeout=rng.uniform(0.4, longest))
            if not ended.done():
                assert recorder.process is not None
                recorder.process.kill()
                await recorder.dies()
                if rng.random() < 0.5:  # else the command meets the node again while it tries
                    await ended
                await recorder.start()
        _, said = await ended
        assert command.returncode in {ExitCode.OK, ExitCode.PARTLY, ExitCode.UNREACHABLE}, said[-2_000:]
        if command.returncode == ExitCode.OK:
            return
    raise AssertionError("the command has not come to its end")


async def traced(folder: Path, nodes: Nodes, doses: Mapping[str, str], rng: random.Random) -> None:
    """Some doses' histories are exactly their events, each once, proven."""
    async with a_resolver(folder, nodes) as (_, stub):
        for dose in rng.sample(sorted(set(doses.values())), TRACED):
            parts = [part async for part in stub.Trace(resolver_pb2.TraceRequest(text=dose), timeout=60)]
            steps = [part.step.bundle.identifier for part in parts if part.WhichOneof("part") == "step"]
            assert sorted(steps) == sorted(event for event, about in doses.items() if about == dose)


async def killed(folder: Path, documents: int, events: int, longest: float, seed: int) -> str:
    rng = random.Random(seed)
    nodes, recorder, home = await prepared(folder, {})
    doses: dict[str, str] = {}
    async with nodes:
        try:
            for number in range(DOSES):
                await nodes.register(f"{THERE}/VIAL-{number}", {"lot": "L1"})
            await recorder.start()
            for number in range(documents):
                file = folder / f"day-{number}.json"
                doses |= written(file, range(number * events, (number + 1) * events))
                await one_document(folder, file, recorder, rng, longest)
            await emptied(recorder.port)
            for dose in sorted(set(doses.values())):
                found = [one.event for one in await listed(home, dose)]
                assert sorted(found) == sorted(event for event, about in doses.items() if about == dose)
            await traced(folder, nodes, doses, rng)
        finally:
            await recorder.end()
    return f"{recorder.kills} kills, {len(doses)} events in {documents} documents, 0 lost, 0 doubled, seed {seed}"


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_no_event_of_a_command_is_lost_or_doubled_by_a_kill_of_its_node(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("capture kills", await killed(tmp_path, 1, 400, 1.5, 1))


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(1_800)
async def test_no_event_of_many_commands_is_lost_or_doubled_by_many_kills(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("capture kills", await killed(tmp_path, 10, 2_000, 4.0, random.randrange(2**32)))

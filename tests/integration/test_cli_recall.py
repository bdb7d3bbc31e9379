"""``idtrace recall`` on real nodes: declared, listed, watched, acknowledged, ended; and every dose follows."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from idtrace.cli.exits import ExitCode
from idtrace.delegation import Role
from idtrace.errors import Reason
from idtrace.recall import RECALL_TYPE
from idtrace.record import Record, RecordBody
from idtrace.v1 import resolver_pb2 as pb
from idtrace.wire import bundle_from_pb
from tests.cli import Ran, idtrace, key_file
from tests.integration.test_holders import CARTONS, CLASS, DOSES
from tests.integration.test_holders import told as told  # noqa: PLC0414 - a fixture
from tests.nodes import key_name
from tests.trace_site import Site
from tests.unit.provenance.story import CENTRE, CLINIC, MAKER

BECAUSE = ("--reason-en", "glass", "--reason-zh", "瓶内有玻璃")


async def run(built: Site, verb: str, *arguments: object, by: str = MAKER, **options: Any) -> Ran:
    key = key_file(built.nodes.folder, key_name(Role.RECORD, by))
    where = ("--node", built.nodes.of_zone[by].endpoint, "--root", built.nodes.root_key)
    return await asyncio.to_thread(
        idtrace, "recall", verb, *arguments, "--zone", MAKER, "--key", key, *where, **options
    )


async def ask(built: Site, verb: str, *arguments: object) -> Ran:
    where = ("--resolver", built.resolver, "--root", built.nodes.root_key, "--json")
    return await asyncio.to_thread(idtrace, "recall", verb, *arguments, *where)


async def until(built: Site, use: Any, dose: str) -> Any:
    async with asyncio.timeout(20):
        while True:
            answer = await built.stub.Judge(pb.JudgeRequest(text=dose, fresh=True), timeout=20)
            if answer.use == use:
                return answer
            await asyncio.sleep(0.1)


@pytest.mark.slow
async def test_a_recall_from_its_declaration_to_its_end(told: Site) -> None:
    scope = ("--range", DOSES[0], DOSES[3])
    ran = await run(told, "declare", "R-2", *scope, "--level", "1", *BECAUSE, "--json")
    assert ran.code == ExitCode.OK, ran.said
    assert (ran.json["version"], ran.json["recall"]["scope"]["kind"]) == (2, "range")
    answer = await until(told, pb.USE_DO_NOT_USE, DOSES[0])
    recalled = [one.text_en for one in answer.findings if one.code == "RECALLED"]
    assert any("R-2" in text for text in recalled), recalled
    listed = await ask(told, "list", MAKER)
    assert [one["recall"] for one in listed.json["recalls"]] == ["R-1", "R-2"]
    ran = await run(told, "declare", "R-2", *scope, "--level", "1", *BECAUSE)
    assert (ran.code, "another name" in ran.said) == (ExitCode.REFUSED, True)
    ran = await run(told, "end", "R-2")
    assert (ran.code, "ended R-2" in ran.said) == (ExitCode.OK, True), ran.said
    ran = await run(told, "end", "R-2")
    assert ran.code == ExitCode.REFUSED
    listed = await ask(told, "list", MAKER)
    assert [one["recall"] for one in listed.json["recalls"]] == ["R-1"]
    listed = await ask(told, "list", MAKER, "--all")
    assert [bool(one["ended_at"]) for one in listed.json["recalls"]] == [False, True]
    nothing = await ask(told, "list", CLINIC)
    assert (nothing.code, nothing.json["recalls"]) == (ExitCode.OK, [])
    answer = await told.stub.Resolve(pb.ResolveRequest(text=f"{MAKER}/recalls", fresh=True), timeout=20)
    record = cast("Record", bundle_from_pb(answer.bundle).outcome)
    body = RecordBody.parse(record.signed.payload)
    assert [digest.type for digest in body.values] == [RECALL_TYPE] * 2


@pytest.mark.slow
async def test_holders_acknowledge_and_the_status_says_who_has_not(told: Site) -> None:
    named = ("R-1", "--zone", MAKER)
    before = await ask(told, "status", *named)
    assert (before.code, before.json["not_acknowledged"]) == (ExitCode.PARTLY, [CENTRE])
    said = ("--found", "4", "--quarantined", "4", "--comment", "in the cold store, under lock")
    ran = await run(told, "ack", "R-1", CARTONS[0], "--party", CENTRE, *said, "--json", by=CENTRE)
    assert ran.code == ExitCode.OK, ran.said
    after = before
    for _ in range(100):
        after = await ask(told, "status", *named)
        if after.code == ExitCode.OK:
            break
        await asyncio.sleep(0.2)
    assert after.json["not_acknowledged"] == []
    assert {one["holder"] for one in after.json["holders"]} == {CENTRE, CLINIC}
    shown = await asyncio.to_thread(
        idtrace, "recall", "status", *named, "--resolver", told.resolver, "--root", told.nodes.root_key
    )
    assert "0 of 2 holders" in shown.said
    # Where nothing was found, the word is about the recall itself.
    ran = await run(told, "ack", "R-1", "--party", CENTRE, "--found", "0", by=CENTRE)
    assert ran.code == ExitCode.OK, ran.said
    ran = await run(told, "ack", "R-1", "--party", CENTRE, by=MAKER)
    assert ran.code == ExitCode.REFUSED


@pytest.mark.slow
async def test_a_watch_tells_each_recall_once_also_when_it_is_started_again(told: Site, tmp_path: Path) -> None:
    state, where = tmp_path / "state.json", ("--node", told.nodes.of_zone[MAKER].endpoint)
    more = (*where, "--root", str(told.nodes.root_key), "--state", str(state), "--json")

    async def watch(count: int) -> list[Any]:
        words = ("-m", "idtrace", "recall", "watch", MAKER, "--count", str(count), *more)
        started = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.PIPE)
        try:
            out, _ = await asyncio.wait_for(started.communicate(), 30)
        finally:
            if started.returncode is None:
                started.kill()
                await started.wait()
        return [(line["told"], line["recall"]) for line in map(json.loads, out.splitlines())]

    assert await watch(1) == [("recalled", "R-1")]
    watching = asyncio.create_task(watch(3))
    await asyncio.sleep(0.5)
    await run(told, "declare", "R-2", "--product", CLASS, "--level", "2", *BECAUSE)
    await run(told, "declare", "R-3", "--package", CARTONS[0], "--since", "2026-01-01", "--level", "3", *BECAUSE)
    await run(told, "end", "R-1")
    found = await watching
    # Two that came together are told together, whatever the order of their names is.
    assert found[:2] == [("recalled", "R-2"), ("recalled", "R-3")], found
    assert found[2:] == [("ended", "R-1")], found


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "one way"),
        (("--product", CLASS, "--package", CARTONS[0]), "one way"),
        (("--lot", "A1", "--package", CARTONS[0]), "whose lot"),
        (("--product", CLASS, "--since", "2026-01-01"), "package"),
        (("--range", f"{MAKER}/A-9", f"{MAKER}/B-1"), "differ in nothing but the number"),
        (("--product", "no code"), "88"),
    ],
)
def test_what_is_no_reach_is_said_before_anything_is_sent(
    tmp_path: Path, arguments: tuple[object, ...], word: str
) -> None:
    key = key_file(tmp_path, key_name(Role.RECORD, MAKER))
    more = ("--level", "1", *BECAUSE, "--zone", MAKER, "--key", key, "--node", "127.0.0.1:1", "--timeout", "0.2")
    ran = idtrace("recall", "declare", "R-9", *arguments, *more)
    assert ran.code == ExitCode.USAGE or Reason.NO_ANSWER in ran.said, ran.said
    assert "Traceback" not in ran.said


def test_a_file_of_items_names_the_line_that_is_no_code(tmp_path: Path) -> None:
    key = key_file(tmp_path, key_name(Role.RECORD, MAKER))
    more = ("--level", "1", *BECAUSE, "--zone", MAKER, "--key", key, "--node", "127.0.0.1:1", "--timeout", "0.2")
    items = tmp_path / "items.txt"
    items.write_text(f"{DOSES[0]}\n\nnot a code at all\n")
    ran = idtrace("recall", "declare", "R-9", "--items", items, *more)
    assert (ran.code, "items.txt:3" in ran.said) == (ExitCode.USAGE, True), ran.said
    items.write_text("\n".join(f"{MAKER}/SN-{n}" for n in range(129)))
    ran = idtrace("recall", "declare", "R-9", "--items", items, *more)
    assert (ran.code, "a range, a package or a lot" in ran.said) == (ExitCode.USAGE, True), ran.said

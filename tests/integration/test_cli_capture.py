"""``idtrace capture`` and ``idtrace party`` at real nodes: every event once, every refusal with its place and rule."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from idtrace.cli import capturing, client
from idtrace.cli.exits import ExitCode
from idtrace.delegation import Role
from idtrace.errors import Reason
from idtrace.party import read_license
from idtrace.record import Record, RecordBody
from tests.capture_fixtures import XML, observed
from tests.cli import Ran, idtrace, key_file
from tests.integration.test_logged_node import ZONE, LoggedNodes, tree
from tests.nodes import Nodes, key_name
from tests.unit.epcis.events import document, to_bytes


@pytest.fixture
async def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LoggedNodes]:
    monkeypatch.setattr(client, "FIRST_PAUSE_SECONDS", 0.0)
    async with tree(tmp_path) as built:
        yield built


async def run(nodes: Nodes, *arguments: object, zone: str = ZONE, root: bool = True) -> Ran:
    key = key_file(nodes.folder, key_name(Role.RECORD, zone))
    more = ["--key", key, "--node", nodes.of_zone[zone].endpoint, *(["--root", nodes.root_key] if root else [])]
    return await asyncio.to_thread(idtrace, *arguments, *more)


async def capture(nodes: Nodes, *arguments: object, **options: Any) -> Ran:
    return await run(nodes, "capture", "--party", ZONE, *arguments, **options)


def said(ran: Ran) -> list[Any]:
    """The command's JSON lines; nodes in this process write their log between them."""
    return [json.loads(line) for line in ran.out.splitlines() if line.startswith("{")]


def fates(ran: Ran) -> list[str]:
    return [line["result"] for line in said(ran) if "result" in line]


def write(path: Path, *events: Any) -> Path:
    path.write_bytes(to_bytes(document(*events)))
    return path


def forget_journal(file: Path) -> None:
    Path(f"{file}.idtrace-receipts.jsonl").unlink()


@pytest.mark.parametrize("seal", [(), ("--seal",)])
@pytest.mark.parametrize("root", [True, False])
async def test_a_document_is_captured_once_and_a_second_run_sends_nothing(
    nodes: LoggedNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seal: tuple[str, ...], *, root: bool
) -> None:
    file = write(tmp_path / "day.json", *(observed(n) for n in range(25)))
    first = await capture(nodes, file, "--json", *seal, root=root)
    assert first.code == ExitCode.OK, first.said
    assert fates(first) == ["captured"] * 25
    assert said(first)[-1]["summary"]["captured"] == 25
    monkeypatch.setattr(capturing.CaptureRun, "_send", None)  # whoever sends, fails
    again = await capture(nodes, file, "--json", *seal, root=root)
    assert (again.code, fates(again)) == (ExitCode.OK, ["already"] * 25)
    monkeypatch.undo()
    forget_journal(file)
    lost = await capture(nodes, file, "--json", *seal, root=root)
    assert (lost.code, fates(lost)) == (ExitCode.OK, ["already"] * 25)


@pytest.mark.parametrize("seal", [(), ("--seal",)])
async def test_a_run_that_breaks_off_goes_on_where_it_stopped(
    nodes: LoggedNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seal: tuple[str, ...]
) -> None:
    monkeypatch.setattr(capturing, "BATCH_LINES_MAX", 10)
    file = write(tmp_path / "day.json", *(observed(n) for n in range(25)))
    outcome, calls = capturing.CaptureRun._keep, []

    def dies(self: Any, *parts: Any) -> None:
        calls.append(1)
        if len(calls) == 2:  # the node has the second batch, and nobody has written it down
            raise KeyboardInterrupt
        outcome(self, *parts)

    monkeypatch.setattr(capturing.CaptureRun, "_keep", dies)
    broken = await capture(nodes, file, "--proceed", *seal)
    assert broken.code == ExitCode.INTERRUPTED
    monkeypatch.setattr(capturing.CaptureRun, "_keep", outcome)
    whole = await capture(nodes, file, "--proceed", "--json", *seal)
    assert whole.code == ExitCode.OK
    assert sorted(fates(whole)) == ["already"] * 20 + ["captured"] * 5


async def test_each_refused_event_is_shown_with_file_place_and_rule(nodes: LoggedNodes, tmp_path: Path) -> None:
    bad = observed(2) | {"bizStep": "no_such_step"}
    file = write(tmp_path / "day.json", observed(1), bad, observed(3))
    ran = await capture(nodes, file, "--json")
    assert ran.code == ExitCode.PARTLY
    assert sorted(fates(ran)) == ["malformed", "rolled back", "rolled back"]
    (wrong,) = [line for line in said(ran) if line.get("result") == "malformed"]
    assert (wrong["file"], wrong["event"]) == (str(file), 1)
    assert wrong["error"]["path"].endswith("epcisBody.eventList[1].bizStep")
    assert wrong["error"]["rule"]
    shown = await capture(nodes, file)
    assert "nothing captured" in shown.said
    for word in ("day.json", "epcisBody.eventList[1].bizStep", wrong["error"]["rule"]):
        assert word in shown.said
    proceeding = await capture(nodes, file, "--proceed", "--json")
    assert (proceeding.code, sorted(fates(proceeding))) == (ExitCode.PARTLY, ["captured", "captured", "malformed"])


async def test_a_key_that_is_not_the_partys_captures_nothing(nodes: LoggedNodes, tmp_path: Path) -> None:
    file = write(tmp_path / "day.json", observed(1))
    key = key_file(tmp_path, key_name(Role.RECORD, "88"))
    node = nodes.of_zone[ZONE].endpoint
    ran = await asyncio.to_thread(
        idtrace, "capture", file, "--party", ZONE, "--key", key, "--node", node, "--json", "--proceed"
    )
    assert (ran.code, fates(ran)) == (ExitCode.PARTLY, ["refused"])
    assert said(ran)[0]["error"]["reason"] == Reason.SIGNER_UNKNOWN


async def test_bare_events_lists_and_xml_are_read_and_too_many_for_one_rollback_are_not(
    nodes: LoggedNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare, listed, xml = (tmp_path / name for name in ("one.json", "list.json", "day.xml"))
    bare.write_bytes(to_bytes(observed(1)))
    listed.write_bytes(to_bytes([observed(1), observed(2), observed(2)]))
    xml.write_bytes(XML)
    ran = await capture(nodes, bare, listed, xml, "--json")
    assert ran.code == ExitCode.OK, ran.said
    assert sorted(fates(ran)) == ["already", "already", "captured", "captured", "captured"]
    monkeypatch.setattr(capturing, "BATCH_LINES_MAX", 2)
    three = await capture(nodes, write(tmp_path / "three.json", *(observed(n) for n in range(10, 13))))
    assert three.code == ExitCode.USAGE
    assert "--proceed" in three.said
    refused = await capture(nodes, bare, xml, "--journal", tmp_path / "one.journal")
    assert refused.code == ExitCode.USAGE


async def test_where_nobody_answers_the_command_says_to_run_it_again(nodes: LoggedNodes, tmp_path: Path) -> None:
    file = write(tmp_path / "day.json", observed(1))
    await nodes.of_zone[ZONE].end()
    ran = await capture(nodes, file, "--timeout", 1)
    assert ran.code == ExitCode.UNREACHABLE
    assert "run the same command again" in ran.said


async def test_a_party_is_licensed_changed_and_suspended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FRESH_SECONDS", "FRESH_SECONDS_HERE", "FRESH_SECONDS_ABSENT"):
        monkeypatch.setattr(f"registry.licensing.{name}", 0)
    async with Nodes(tmp_path) as nodes:
        await nodes.registry("")
        await nodes.registry("88")
        await nodes.registry("88.118", capture={"licences": "required"})
        await nodes.host("88.118.9", at="88.118")
        days = ("--from", "2020-01-01", "--until", "2031-01-01T00:00:00Z")
        names = ("--name-en", "Works", "--name-zh", "疫苗厂")
        place = (
            "--location",
            "idtrace:88.118.9/site-1,site,31.2304,121.4737",
            "--location",
            "idtrace:88.118.9/van,vehicle",
        )
        command = ("party", "license", "88.118.9", "--zone", "88.118", *days, *names)
        file = write(tmp_path / "day.json", observed(1, bizStep="packing"))

        async def captured() -> str:
            ran = await run(nodes, "capture", file, "--party", "88.118.9", "--proceed", "--json", zone="88.118.9")
            (line,) = [one for one in said(ran) if "result" in one]
            return str(line.get("error", {}).get("reason", line["result"]))

        assert await captured() == Reason.PARTY_UNLICENSED
        first = await run(nodes, *command, "--role", "carrier", *place, zone="88.118")
        assert first.code == ExitCode.OK, first.said
        assert "licensed" in first.said
        assert await captured() == Reason.ROLE_BIZ_STEP
        second = await run(nodes, *command, "--role", "maker", "--role", "distributor", *place, "--json", zone="88.118")
        assert said_document(second)["version"] == 2
        outcome = (await nodes.get("88.118/party/88.118.9")).outcome
        assert isinstance(outcome, Record)
        licence = read_license(outcome, RecordBody.parse(outcome.signed.payload))
        assert (licence.name_zh, [one.latitude for one in licence.locations]) == ("疫苗厂", [31.2304, None])
        assert await captured() == "captured"
        suspending = await run(nodes, "update", "88.118/party/88.118.9", "--status", "suspended", zone="88.118")
        assert suspending.code == ExitCode.OK
        write(file, observed(2))
        assert await captured() == Reason.PARTY_SUSPENDED


def said_document(ran: Ran) -> Any:
    return json.loads(ran.out[ran.out.index("{\n") :].partition("\n}")[0] + "\n}")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("--location", "idtrace:88.118.9/x,site,1"), "--location"),
        (("--location", "idtrace:88.118.9/x,planet"), "--location"),
        (("--location", "no uri"), "named by a URI"),
        (("--from", "yesterday"), "--from"),
        (("--until", "2031-01-01T00:00:00"), "time zone"),
        (("--until", "1960-01-01"), "out of range"),
        (("--zone", "88.119"), "below"),
    ],
)
def test_a_licence_that_cannot_be_is_refused_at_the_keyboard(
    tmp_path: Path, wrong: tuple[str, str], words: str
) -> None:
    options = {"--zone": "88.118", "--role": "maker", "--name-en": "W", "--from": "2020-01-01", "--until": "2031-01-01"}
    options |= {wrong[0]: wrong[1]}
    key = key_file(tmp_path, "a key")
    flat = [part for pair in options.items() for part in pair]
    ran = idtrace("party", "license", "88.118.9", *flat, "--key", key, "--node", "127.0.0.1:1")
    assert ran.code == ExitCode.USAGE
    assert words in ran.said

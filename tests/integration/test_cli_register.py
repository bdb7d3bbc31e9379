"""Bulk registration against a registry that fails on command: every line has exactly one receipt in the end."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from idtrace.cli import client, journal
from idtrace.cli.exits import ExitCode
from idtrace.errors import IdtraceError, OutcomeUnknownError, Reason, RefusedError
from idtrace.statements import DenialReason
from tests import fake_registry as faults
from tests.cli import Ran, idtrace, key_file
from tests.core_fixtures import signer
from tests.fake_registry import FakeRegistry, fake_registry

LINES = 50


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRegistry]:
    monkeypatch.setattr(client, "FIRST_PAUSE_SECONDS", 0.0)
    with fake_registry() as registry:
        yield registry


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "items.csv"
    path.write_text("identifier,lot\n" + "".join(f"88.118.8/SN-{n:04},L{n % 7}\n" for n in range(LINES)))
    return path


def register(fake: FakeRegistry, source: Path, *arguments: object, key: str = "record of 88.118.8") -> Ran:
    path = key_file(source.parent, key)
    return idtrace("register", "--from", source, "--key", path, "--node", fake.address, "--batch", 10, *arguments)


def receipts(source: Path) -> list[dict[str, Any]]:
    path = Path(f"{source}.idtrace-receipts.jsonl")
    text = path.read_text() if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]  # a run that is under way, or was killed, may have torn the last line
    return [body for body in map(json.loads, whole.splitlines()) if "receipt" in body]


def errors(source: Path) -> list[dict[str, str]]:
    path = Path(f"{source}.errors.csv")
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def assert_complete(fake: FakeRegistry, source: Path) -> None:
    """Every line has exactly one receipt, and it is the registry's."""
    found = receipts(source)
    assert sorted(body["identifier"] for body in found) == sorted(fake.stored)
    assert len(found) == LINES
    for body in found:
        key, _ = fake.stored[body["identifier"]]
        assert body["receipt"]["payload"].encode() == fake.receipts[key].signed.payload


def test_a_file_is_registered_in_batches(fake: FakeRegistry, source: Path) -> None:
    ran = register(fake, source)
    assert ran.code == 0
    assert "✓ done registered 50" in ran.said
    assert fake.batches == [10] * 5
    assert_complete(fake, source)
    assert errors(source) == []


def test_json_is_a_line_for_each_line_and_a_summary(fake: FakeRegistry, source: Path) -> None:
    ran = register(fake, source, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert [line["result"] for line in ran.lines[:-1]] == ["registered"] * LINES
    summary = ran.lines[-1]["summary"]
    assert (summary["registered"], summary["refused"]) == (LINES, 0)
    assert "errors_file" not in summary


def test_a_second_run_sends_nothing(fake: FakeRegistry, source: Path) -> None:
    register(fake, source)
    before = receipts(source)
    ran = register(fake, source)
    assert ran.code == 0
    assert "already 50" in ran.said
    assert len(fake.batches) == 5
    assert receipts(source) == before


@pytest.mark.parametrize("fault", [faults.down, faults.lost, faults.busy], ids=["down", "lost", "busy"])
@pytest.mark.parametrize("at", range(5))
def test_one_lost_call_is_repeated_and_nobody_notices(fake: FakeRegistry, source: Path, fault: Any, at: int) -> None:
    fake.faults = [*([None] * at), fault]
    assert register(fake, source).code == 0
    assert_complete(fake, source)


@pytest.mark.parametrize("fault", [faults.down, faults.lost, faults.busy], ids=["down", "lost", "busy"])
@pytest.mark.parametrize("at", range(5))
def test_a_node_that_stays_silent_ends_the_run_and_the_next_one_goes_on(
    fake: FakeRegistry, source: Path, fault: Any, at: int
) -> None:
    fake.faults = [*([None] * at), *([fault] * 12)]
    broken = register(fake, source)
    assert broken.code == ExitCode.UNREACHABLE
    assert "goes on where it stopped" in broken.said
    assert len(receipts(source)) <= at * 10
    fake.faults.clear()
    assert register(fake, source).code == 0
    assert_complete(fake, source)
    assert errors(source) == []


def test_the_next_run_repeats_the_same_bytes_although_the_clock_went_on(
    fake: FakeRegistry, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.faults = [faults.lost] * 12
    assert register(fake, source).code == ExitCode.UNREACHABLE
    assert fake.stored
    monkeypatch.setattr("idtrace.cli.register.now", lambda: 2_000_000_000)
    fake.faults.clear()
    assert register(fake, source).code == 0
    assert_complete(fake, source)


def test_lines_may_move_between_two_runs(fake: FakeRegistry, source: Path) -> None:
    fake.faults = [None, *([faults.lost] * 12)]
    register(fake, source)
    fake.faults.clear()
    head, *lines = source.read_text().splitlines()
    source.write_text("\n".join([head, *reversed(lines)]) + "\n")
    assert register(fake, source).code == 0
    assert_complete(fake, source)


def test_a_lost_journal_registers_nothing_twice(fake: FakeRegistry, source: Path) -> None:
    register(fake, source)
    stored = dict(fake.stored)
    Path(f"{source}.idtrace-receipts.jsonl").unlink()
    ran = register(fake, source)
    assert ran.code == ExitCode.PARTLY
    assert {row["reason"] for row in errors(source)} == {"IDENTIFIER_TAKEN"}
    assert fake.stored == stored


def test_bad_and_refused_lines_stand_in_the_report_and_the_rest_is_registered(fake: FakeRegistry, source: Path) -> None:
    def refuse(name: str) -> RefusedError | None:
        return RefusedError(Reason.CLASS_UNKNOWN, "no such class", field="record.class") if "SN-0007" in name else None

    fake.refuse = refuse
    with source.open("a") as file:
        file.write("nonsense,L1\n88.118.8/SN-0001,another lot\n88.118.8/SN-0002,L2\n")
    ran = register(fake, source, "--json")
    assert ran.code == ExitCode.PARTLY
    assert [(row["line"], row["reason"]) for row in sorted(errors(source), key=lambda row: int(row["line"]))] == [
        ("9", "CLASS_UNKNOWN"),
        ("52", "SCAN_UNKNOWN_SCHEME"),
        ("53", "IDENTIFIER_TAKEN"),
    ]
    summary = ran.lines[-1]["summary"]
    assert (summary["registered"], summary["already"]) == (LINES - 1, 1)
    assert summary["errors_file"].endswith(".errors.csv")
    assert {line["error"]["reason"] for line in ran.lines[:-1] if "error" in line} == {
        "CLASS_UNKNOWN",
        "SCAN_UNKNOWN_SCHEME",
        "IDENTIFIER_TAKEN",
    }


def test_a_refused_line_is_tried_again_with_a_new_time(
    fake: FakeRegistry, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.refuse = lambda _: RefusedError(Reason.PREFIX_NOT_ENABLED, "not yet")
    first = register(fake, source)
    assert first.code == ExitCode.PARTLY
    assert "and 40 more" in first.said
    fake.refuse = lambda _: None
    monkeypatch.setattr("idtrace.cli.register.now", lambda: 2_000_000_000)
    assert register(fake, source).code == 0
    assert_complete(fake, source)
    assert errors(source) == []
    sent = [line for line in Path(f"{source}.idtrace-receipts.jsonl").read_text().splitlines() if "issued_at" in line]
    assert json.loads(sent[-1])["issued_at"] == 2_000_000_000


def test_items_whose_outcome_is_unknown_are_asked_again_at_the_end(fake: FakeRegistry, source: Path) -> None:
    left = {"88.118.8/SN-0003": 1, "88.118.8/SN-0014": 1}

    def unknown(name: str) -> OutcomeUnknownError | None:
        left[name] = left.get(name, 0) - 1
        return OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, "perhaps") if left[name] >= 0 else None

    fake.refuse = unknown
    assert register(fake, source).code == 0
    assert_complete(fake, source)
    assert fake.batches == [10] * 5 + [2]


def test_items_that_stay_unknown_have_their_own_line_and_exit_code(fake: FakeRegistry, source: Path) -> None:
    fake.refuse = lambda name: OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, "perhaps") if "SN-0003" in name else None
    ran = register(fake, source)
    assert ran.code == 7
    assert "unknown 1" in ran.said
    assert "run the same command again" in ran.said
    assert "refused" not in ran.said
    assert [row["reason"] for row in errors(source)] == ["OUTCOME_UNKNOWN"]
    again = register(fake, source, "--json")
    assert again.code == ExitCode.UNKNOWN
    summary = again.lines[-1]["summary"]
    assert (summary["unknown"], summary["refused"], summary["already"]) == (1, 0, LINES - 1)
    fake.refuse = lambda _: None
    assert register(fake, source).code == 0
    assert_complete(fake, source)


def test_unknown_lines_are_asked_after_with_the_very_same_bytes(fake: FakeRegistry, source: Path) -> None:
    """The node had stored them: their keys bring the receipts back, other bytes would be refused as taken."""
    register_soundly = fake.register

    def stored_but_unsure(registry: FakeRegistry, request: Any, _: Any) -> Any:
        response = register_soundly(request)
        for result in response.results[:3]:
            result.error.code, result.error.reason, result.error.detail = 2, "OUTCOME_UNKNOWN", "perhaps"
        return response

    fake.faults = [stored_but_unsure] * 5
    assert register(fake, source).code == 0
    assert_complete(fake, source)
    assert fake.batches == [10] * 5 + [10, 5]


def test_a_refused_line_beside_an_unknown_one_does_not_hide_it(fake: FakeRegistry, source: Path) -> None:
    def refuse(name: str) -> IdtraceError | None:
        if "SN-0003" in name:
            return OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, "perhaps")
        return RefusedError(Reason.CLASS_UNKNOWN, "no such class") if "SN-0004" in name else None

    fake.refuse = refuse
    ran = register(fake, source, "--json")
    assert ran.code == ExitCode.UNKNOWN
    assert (ran.lines[-1]["summary"]["unknown"], ran.lines[-1]["summary"]["refused"]) == (1, 1)


def test_a_node_that_knows_nothing_for_sure_is_not_asked_for_ever(
    fake: FakeRegistry, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idtrace.cli.bulk.UNKNOWN_KEPT_MAX", 12)
    fake.refuse = lambda _: OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, "perhaps")
    assert register(fake, source).code == ExitCode.UNKNOWN
    assert sum(fake.batches) == LINES + 12
    assert len(errors(source)) == LINES


def test_a_file_that_ends_badly_leaves_no_unknown_line_unasked(fake: FakeRegistry, source: Path) -> None:
    left = {"88.118.8/SN-0003": 1}

    def unknown(name: str) -> OutcomeUnknownError | None:
        left[name] = left.get(name, 0) - 1
        return OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, "perhaps") if left[name] >= 0 else None

    fake.refuse = unknown
    with source.open("a") as file:
        file.write('88.118.8/SN-X,"a quote that is never closed\n')
    assert register(fake, source).code == ExitCode.USAGE
    assert len(receipts(source)) == LINES


def test_a_journal_of_another_node_is_not_believed(fake: FakeRegistry, source: Path) -> None:
    register(fake, source)
    with fake_registry() as other:
        ran = register(other, source)
        assert ran.code == ExitCode.USAGE
        assert "already" not in ran.out
        for told in (
            "the journal is another node's",
            "does not have 88.118.8/SN-",
            ".idtrace-receipts.jsonl",
            "--journal",
        ):
            assert told in ran.said
        assert other.batches == []
        other_journal = source.parent / "production.jsonl"
        assert register(other, source, "--journal", other_journal).code == 0
        assert len(other.stored) == LINES
        assert register(other, source, "--journal", other_journal).code == 0
        assert sum(other.batches) == LINES
    assert_complete(fake, source)
    assert register(fake, source).code == 0


def test_a_journal_that_two_nodes_share_is_found_out_by_its_last_receipt(fake: FakeRegistry, source: Path) -> None:
    """Part of the file at one node, the rest at another, as it could happen before journals were asked about."""
    register(fake, source)
    first = receipts(source)[0]["identifier"]
    with fake_registry() as other:
        other.records[first] = fake.records[first]
        assert register(other, source).code == ExitCode.USAGE
        assert len(other.asked) == 2
        assert other.batches == []


def test_a_node_with_another_record_of_the_same_name_is_another_node(fake: FakeRegistry, source: Path) -> None:
    register(fake, source)
    with fake_registry() as other:
        register(other, source, "--journal", source.parent / "other.jsonl")
        ran = register(other, source)
    assert ran.code == ExitCode.USAGE
    assert "has another record of" in ran.said


def test_a_disabled_prefix_says_nothing_about_the_journal(fake: FakeRegistry, source: Path) -> None:
    register(fake, source)
    fake.records.clear()
    fake.denies = DenialReason.PREFIX_DISABLED
    ran = register(fake, source)
    assert ran.code == ExitCode.REFUSED
    assert "PREFIX_NOT_ENABLED" in ran.err
    assert "another node" not in ran.said


def test_a_damaged_receipt_is_no_reason_to_believe_the_others(fake: FakeRegistry, source: Path) -> None:
    register(fake, source)
    path = Path(f"{source}.idtrace-receipts.jsonl")
    head, *lines = path.read_text().splitlines()
    bodies = [json.loads(line) for line in lines]
    last = next(body for body in reversed(bodies) if "receipt" in body)
    last["receipt"]["payload"] = last["receipt"]["payload"][:-1]
    path.write_text("\n".join([head, *map(json.dumps, bodies)]) + "\n")
    ran = register(fake, source)
    assert ran.code == ExitCode.USAGE
    assert str(path.name) in ran.said
    assert len(fake.batches) == 5


def test_a_journal_belongs_to_a_file(fake: FakeRegistry, source: Path) -> None:
    key = key_file(source.parent, "record of 88.118.8")
    ran = idtrace("register", "88.118.8/a", "--key", key, "--node", fake.address, "--journal", source.parent / "j")
    assert ran.code == ExitCode.USAGE
    assert "--journal" in ran.said


def test_a_batch_that_is_refused_as_a_whole_ends_the_run(fake: FakeRegistry, source: Path) -> None:
    fake.faults = [faults.refused]
    ran = register(fake, source)
    assert ran.code == ExitCode.REFUSED
    assert "PREFIX_NOT_ENABLED" in ran.err
    assert register(fake, source).code == 0
    assert_complete(fake, source)


def test_receipts_for_something_else_are_not_believed(fake: FakeRegistry, source: Path) -> None:
    fake.faults = [faults.swapped] * 5  # of two batches under way either may arrive first
    ran = register(fake, source)
    assert ran.code == ExitCode.BOGUS
    assert "RECEIPT_WRONG_RECORD" in ran.err
    assert receipts(source) == []


def test_an_answer_of_the_wrong_length_settles_nothing(fake: FakeRegistry, source: Path) -> None:
    fake.faults = [faults.short] * 9
    assert register(fake, source).code == ExitCode.UNREACHABLE
    fake.faults.clear()
    assert register(fake, source).code == 0
    assert_complete(fake, source)


def test_a_batch_is_bounded_by_bytes_too(fake: FakeRegistry, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idtrace.cli.bulk.BATCH_BYTES_MAX", 2_000)
    assert register(fake, source).code == 0
    assert max(fake.batches) < 10
    assert_complete(fake, source)


def test_a_value_that_breaks_a_rule_is_a_malformed_line(fake: FakeRegistry, source: Path) -> None:
    with source.open("a") as file:
        file.write(f"88.118.8/SN-9999,{'x' * 5_000}\n")
    assert register(fake, source).code == ExitCode.PARTLY
    assert [row["reason"] for row in errors(source)] == ["FIELD_TOO_LARGE"]
    assert_complete(fake, source)


def test_a_broken_file_is_refused_before_anything_is_sent(fake: FakeRegistry, tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("id,lot\n1,2\n")
    assert register(fake, path).code == ExitCode.USAGE
    assert fake.batches == []


def test_another_tool_at_the_journal_is_waited_out(fake: FakeRegistry, source: Path) -> None:
    key = signer("record of 88.118.8")
    with journal.Journal(Path(f"{source}.idtrace-receipts.jsonl"), key):
        assert register(fake, source).code == ExitCode.USAGE
    assert register(fake, source).code == 0


def test_a_run_that_is_killed_goes_on(fake: FakeRegistry, source: Path, tmp_path: Path) -> None:
    """SIGKILL while two batches are under way and one of them is stored already."""
    stored, let_go = threading.Event(), threading.Event()

    def stuck(registry: FakeRegistry, request: Any, context: Any) -> Any:
        registry.register(request)
        stored.set()
        let_go.wait(20)
        return faults.down(registry, request, context)

    fake.faults = [None, None, stuck]  # the third call leaves only when the first has its receipts
    key = key_file(tmp_path, "record of 88.118.8")
    command = ["register", "--from", source, "--key", key, "--node", fake.address, "--batch", "10"]
    program = [sys.executable, "-c", "from idtrace.cli import main; main()", *map(str, command)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(program, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        assert stored.wait(30)
        until(lambda: len(receipts(source)) == 20)
        process.send_signal(signal.SIGKILL)
    let_go.set()
    assert len(fake.stored) >= 30
    fake.faults.clear()
    assert register(fake, source).code == 0
    assert_complete(fake, source)


def test_a_registry_that_is_not_there_is_said_so(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE_SECONDS", 0.0)
    nobody = FakeRegistry()
    nobody.address = "127.0.0.1:1"
    ran = register(nobody, source)
    assert ran.code == ExitCode.UNREACHABLE
    assert "127.0.0.1:1 is unreachable" in ran.err
    one = idtrace(
        "register", "88.118.8/a", "--key", key_file(source.parent, "a"), "--node", "127.0.0.1:1", "--json", "-v", "a=b"
    )
    assert (one.code, one.json["error"]["reason"]) == (ExitCode.UNREACHABLE, "NO_ANSWER")


def test_what_left_before_the_file_turned_out_broken_has_its_receipts(fake: FakeRegistry, source: Path) -> None:
    with source.open("a") as file:
        file.write('88.118.8/SN-X,"a quote that is never closed\n')
    ran = register(fake, source)
    assert ran.code == ExitCode.USAGE
    assert f"{LINES} lines were registered before this" in ran.err
    assert f"line {LINES + 2}" in ran.err
    assert len(receipts(source)) == len(fake.stored) == LINES

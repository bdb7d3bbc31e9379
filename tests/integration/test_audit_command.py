"""``idtrace audit`` as an auditor runs it: exit codes, report, evidence, memory that outlives a kill, and metrics."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from idtrace.auditing.auditor import Asked, LogAudit
from idtrace.auditing.fetching import LogReader
from idtrace.auditing.findings import LogReport
from idtrace.auditing.memory import MemoryFolder
from idtrace.bundle import Bundle, Denied
from idtrace.checkpoint import Checkpoint
from idtrace.cli.audit_metrics import AuditMetrics
from idtrace.cli.files import write_bundle, write_signed
from idtrace.logproof import LogProof
from idtrace.merkle import CompactRange, Node, fold, hash_leaf, inclusion_plan
from idtrace.note import Note
from idtrace.signature import Kind, Signed, sign
from idtrace.statements import Denial, DenialReason
from idtrace.tiles import TILE_HEIGHT
from registry.log_http import LogPages
from tests.audited_log import (
    CHILD,
    FIRST,
    RECALLED_AT,
    SIZE,
    ServedLog,
    chained,
    child_chain,
    honest_entries,
    on_loopback,
    telling,
)
from tests.cli import idtrace, key_file
from tests.core_fixtures import ITEM, NOW, PINNED, ZONE, anchor, signer
from tests.logged_fixtures import CURRENT, HERE, LOG, currency_of, entry_of, log_signer, logged_chain
from tests.served_log import MemoryLog, on_port


@pytest.fixture
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixtures' keys count at NOW."""
    monkeypatch.setattr("idtrace.cli.audit.now", lambda: NOW)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return Path(f"{key_file(tmp_path, PINNED)}.pub")


@pytest.fixture
def node() -> Iterator[str]:
    with telling(logged_chain(), child_chain()) as address:
        yield address


@pytest.mark.usefixtures("today")
def test_an_honest_log_ends_with_0_and_says_what_was_checked(root: Path, node: str, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    with on_loopback(ServedLog()) as url:
        given = (ZONE, CHILD, "--root", root, "--node", node, "--log", url, "--state", tmp_path / "seen")
        ran = idtrace("audit", *given, "--report", page)
        assert ran.code == 0, ran.said
        assert "CONSISTENT" in ran.out
        again = idtrace("audit", *given, "--json")
    (log,) = again.json["logs"]
    assert (again.code, again.json["outcome"], log["size"], log["seen_size"]) == (0, "consistent", SIZE, SIZE)
    assert log["zones"] == [ZONE, CHILD]
    text = page.read_text("utf-8")
    assert LOG in text
    assert not re.search(r"(src|href|url)\s*[=(]", text), "a page that asks for nothing"


@pytest.mark.usefixtures("today")
def test_a_fork_ends_with_1_and_leaves_evidence_that_a_third_party_checks_alone(
    root: Path, node: str, tmp_path: Path
) -> None:
    seen, log = tmp_path / "seen", ServedLog()
    given = ("audit", ZONE, "--root", root, "--node", node, "--state", seen, "--log")
    with on_loopback(log) as url:
        assert idtrace(*given, url).code == 0
    with on_loopback(log.forked(500, 200)) as url:
        ran = idtrace(*given, url)
    assert ran.code == 1, ran.said
    (evidence,) = seen.glob("evidence_fork-*.json")
    assert evidence.name in ran.out.replace("\n", "")
    checked = idtrace("audit", "--evidence", evidence, "--root", root, "--json")
    assert (checked.code, checked.json["misbehaviour"]) == (1, True)
    stranger = Path(f"{key_file(tmp_path, 'another root')}.pub")
    assert idtrace("audit", "--evidence", evidence, "--root", stranger).code == 2
    evidence.write_text(evidence.read_text("utf-8").replace('"proof": [', '"proof": ["00",'), "utf-8")
    assert idtrace("audit", "--evidence", evidence, "--root", root).code == 2


def saved_bundle(log: ServedLog, of: Signed) -> Bundle:
    """The first version of ITEM with its proof in a log, and the zone's word that it is the latest."""
    index = RECALLED_AT - 1
    runs = CompactRange().grow([hash_leaf(one) for one in log.entries])[1]
    nodes = {Node(run.level, run.first + n): one for run in runs for n, one in enumerate(run.hashes)}
    path = fold(inclusion_plan(index, len(log.entries)), nodes.__getitem__)
    proof = LogProof(index, path, log.note().encode(), entry_of(FIRST).head)
    return Bundle(ITEM, logged_chain(), FIRST, proof, of)


@pytest.mark.usefixtures("today")
def test_a_saved_answer_that_hid_a_recall_ends_with_1_and_is_evidence(root: Path, node: str, tmp_path: Path) -> None:
    log, files = ServedLog(), (tmp_path / "saved.bundle", tmp_path / "denial.json")
    write_bundle(files[0], saved_bundle(log, currency_of(FIRST, log_size=SIZE)))
    said = Denial(ITEM, HERE, DenialReason.IDENTIFIER_ABSENT, NOW, NOW + 60, log_size=SIZE)
    write_signed(files[1], [sign(Kind.DENIAL, said.payload(), signer(CURRENT))])
    state = tmp_path / "seen"
    with on_loopback(log) as url:
        given = ("audit", ZONE, "--root", root, "--node", node, "--log", url, "--state", state)
        ran = idtrace(*given, "--statements", files[0], "--statements", files[1], "--json")
    assert ran.code == 1
    assert [one["reason"] for one in ran.json["logs"][0]["findings"]] == ["STATEMENT_CONTRADICTED"] * 2
    for one in ran.json["logs"][0]["findings"]:
        assert idtrace("audit", "--evidence", one["evidence"], "--root", root).code == 1


@pytest.mark.usefixtures("today")
def test_a_false_absence_saved_as_a_bundle_is_found(root: Path, node: str, tmp_path: Path) -> None:
    said = Denial(ITEM, HERE, DenialReason.IDENTIFIER_ABSENT, NOW, NOW + 60, log_size=SIZE)
    file = tmp_path / "absent.json"
    write_bundle(file, Bundle(ITEM, logged_chain(), Denied(sign(Kind.DENIAL, said.payload(), signer(CURRENT)))))
    with on_loopback(ServedLog()) as url:
        given = ("audit", ZONE, "--root", root, "--node", node, "--log", url, "--state", tmp_path / "seen")
        assert idtrace(*given, "--statements", file).code == 1


@pytest.mark.usefixtures("today")
def test_what_cannot_be_told_ends_with_2_and_says_why(root: Path, node: str, tmp_path: Path) -> None:
    given = ("--root", root, "--timeout", "1", "--json")
    with on_loopback(ServedLog()) as url:
        nobody = idtrace("audit", ZONE, *given, "--node", "127.0.0.1:1", "--log", url)
        unknown = idtrace("audit", ZONE, "88.118.9", *given, "--node", node, "--log", url)
        file = tmp_path / "foreign.json"
        write_signed(file, [currency_of(FIRST, by="thief", log_size=SIZE)])
        foreign = idtrace("audit", ZONE, *given, "--node", node, "--log", url, "--statements", file)
    silent = idtrace("audit", ZONE, *given, "--node", node, "--log", "http://127.0.0.1:1")
    assert [ran.code for ran in (nobody, unknown, foreign, silent)] == [2, 2, 2, 2]
    assert unknown.json["logs"][0]["findings"][0]["place"] == "zone 88.118.9"
    assert foreign.json["logs"][0]["findings"][0]["reason"] == "SIGNER_UNKNOWN"
    assert idtrace("audit", ZONE, "--root", root, "--node", node).code == 2
    assert idtrace("audit", ZONE, "--root", root, "--node", node, "--log", "ftp://x").code == 2


@pytest.mark.usefixtures("today")
def test_a_memory_that_another_audit_holds_ends_with_2(root: Path, node: str, tmp_path: Path) -> None:
    with MemoryFolder(tmp_path).held():
        ran = idtrace("audit", ZONE, "--root", root, "--node", node, "--log", "http://127.0.0.1:1", "--state", tmp_path)
    assert (ran.code, "another audit" in ran.said) == (2, True)


@pytest.mark.usefixtures("today")
def test_a_sample_and_a_changed_entry_on_a_real_connection(root: Path, node: str) -> None:
    with on_loopback(ServedLog()) as url:
        assert idtrace("audit", ZONE, "--root", root, "--node", node, "--log", url, "--sample", 5).code == 0
    with on_loopback(ServedLog().changed("tile/entries/001", 300)) as url:
        ran = idtrace("audit", ZONE, "--root", root, "--node", node, "--log", url)
    assert (ran.code, "entry 256" in ran.out) == (1, True)


PROGRAM = """
import sys
from idtrace.cli import audit
from tests.core_fixtures import NOW
audit.now = lambda: NOW
from idtrace.cli.app import app
app()
"""


@pytest.mark.slow
def test_an_audit_that_is_killed_leaves_a_memory_that_the_next_one_goes_on_from(
    root: Path, node: str, tmp_path: Path
) -> None:
    seen, log, free = tmp_path / "seen", ServedLog(), threading.Event()
    newest = f"tile/entries/{SIZE // 256:03}.p/{SIZE % 256}"  # what is before it was read by the first audit
    log.size = SIZE - 3
    given = ["audit", ZONE, "--root", str(root), "--node", node, "--state", str(seen), "--log"]
    with on_loopback(log) as url:
        first = run_program([*given, url])
        assert first.wait(60) == 0
        log.size = SIZE

        def never() -> Iterator[bytes]:
            free.wait(30)
            yield b""

        log.lies[newest] = never
        log.asked.clear()
        killed = run_program([*given, url])
        wait_for(lambda: newest in log.asked)
        killed.send_signal(signal.SIGKILL)
        killed.wait(30)
        free.set()
        del log.lies[newest]
        kept = json.loads((seen / f"{LOG.replace('/', '+')}.json").read_text("utf-8"))
        assert f"\n{SIZE}\n" in kept["checkpoint"], "what was seen was remembered before the long part"
        last = run_program([*given, url])
        assert last.wait(60) == 0
        with on_loopback(log.forked(500, 40)) as other:
            assert run_program([*given, other]).wait(60) == 1


@pytest.mark.slow
def test_a_continuous_audit_tells_figures_and_notices_growth(root: Path, node: str) -> None:
    log = ServedLog()
    log.size = SIZE - 3
    with on_loopback(log) as url:
        given = ["audit", ZONE, "--root", str(root), "--node", node, "--log", url]
        watching = run_program([*given, "--watch", "0.2", "--metrics", "127.0.0.1:0", "--json"], stdout=True)
        try:
            assert watching.stdout is not None
            first = json.loads(watching.stdout.readline())
            log.size = SIZE
            later = next(one for one in map(json.loads, watching.stdout) if one["logs"][0]["size"] == SIZE)
        finally:
            watching.terminate()
            watching.communicate(timeout=30)
    assert (first["outcome"], first["logs"][0]["entries"]) == ("consistent", SIZE - 3)
    assert (later["outcome"], later["logs"][0]["entries"]) == ("consistent", 3)


def test_metrics_are_served_in_prometheus_text() -> None:
    figures = AuditMetrics()
    with figures.served("127.0.0.1:0") as address:
        figures.take([LogReport("http://x", origin='o"', size=7, entries=5)], 1_900_000_000)
        figures.take([LogReport("http://x", origin='o"', size=9, entries=2)], 1_900_000_001)
        with urllib.request.urlopen(f"http://{address}/metrics") as answer:
            page = answer.read().decode()
    assert "idtrace_audit_runs_total 2\n" in page
    assert 'idtrace_audit_log_size{url="http://x",origin="o\\""} 9.0\n' in page
    assert 'idtrace_audit_entries_total{url="http://x",origin="o\\""} 7.0\n' in page
    assert all(re.fullmatch(r"# TYPE \S+ \S+|[a-z_]+(\{.*\})? [0-9.e+-]+", line) for line in page.splitlines())


def run_program(arguments: list[str], *, stdout: bool = False) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE if stdout else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": "."},
    )


def wait_for(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


class Grown(MemoryLog):
    """A registry's log with the entries of an audited one."""

    def take(self, entries: Sequence[bytes]) -> None:
        self.entries = list(entries)
        self.range, runs = CompactRange().grow([hash_leaf(entry) for entry in entries])
        for run in runs:
            level, within = divmod(run.level, TILE_HEIGHT)
            if not within:
                self.rows[level] = list(run.hashes)
        body = Checkpoint(LOG, len(entries), self.range.root()).text
        self.note = Note(body, (self.signer.sign(body),)).encode()


async def test_the_log_as_a_registry_serves_it_is_read_whole_and_packed() -> None:
    log = Grown(signer=log_signer())
    log.take(honest_entries())
    async with on_port(LogPages(log.reading, log, has_witnesses=False).application()) as url:
        audit = LogAudit(LogReader(url), Asked(anchor(), chained()))
        report = await asyncio.to_thread(audit.run, NOW)
        audit.reader.close()
    assert (report.notices, report.entries) == ([], SIZE)
    assert audit.reader.fetched_bytes < sum(map(len, log.entries)), "bundles came packed"

"""A new auditor reads on from where the last one stood, and from the beginning where anything speaks against it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from idtrace.audit import Replay
from idtrace.auditing.auditor import Saved, zone_keys
from idtrace.auditing.findings import LogReport
from idtrace.auditing.memory import MemoryFolder
from idtrace.auditing.snapshot import FORMAT, resumed, snapshot_of
from idtrace.chain import Anchor
from idtrace.entry import Entry
from idtrace.errors import Reason
from idtrace.record import Status
from tests.audited_log import FIRST, NEXT, SIZE, ServedLog, audited, chained, found, honest_entries, opened, written
from tests.core_fixtures import ITEM, NOW, anchor, delegate, public, record
from tests.logged_fixtures import LOG, currency_of, logged

R = Reason
THIRD = record(ITEM, version=3, previous=NEXT.hash, status=Status.ACTIVE)
SKIPPED = record(ITEM, version=4, previous=NEXT.hash, status=Status.ACTIVE)


def state_file(folder: Path) -> Path:
    (path,) = folder.glob("*.replay")
    return path


def begun() -> Replay:
    """A replay that knows the keys of the zones above, as an audit's does."""
    return Replay(anchor=anchor(), outside=zone_keys([one.trusted(anchor()) for one in chained()]))


def next_audit(log: ServedLog, folder: Path, *entries: bytes) -> LogReport:
    """Another process, after the log has grown by these."""
    log.entries += entries
    log.size = len(log.entries)
    log.asked.clear()
    return audited(log, MemoryFolder(folder))


def test_a_new_process_reads_only_what_has_come_since(tmp_path: Path) -> None:
    log = ServedLog()
    assert audited(log, MemoryFolder(tmp_path)).entries == SIZE
    report = next_audit(log, tmp_path, written(THIRD))
    assert (found(report), report.entries, report.identifiers) == ([], 1, 592)
    assert not {"tile/entries/000", "tile/entries/001"} & set(log.asked)


def test_the_next_process_judges_by_all_that_the_first_one_read(tmp_path: Path) -> None:
    log = ServedLog()
    audited(log, MemoryFolder(tmp_path))
    report = next_audit(log, tmp_path, written(SKIPPED))
    assert found(report) == [(f"entry {SIZE}", R.VERSION_GAP)]
    saved = Saved("saved", currency_of(FIRST, log_size=SIZE))
    report = audited(log, MemoryFolder(tmp_path), saved=(saved,))
    assert ("saved", R.STATEMENT_CONTRADICTED) in found(report)


def test_a_broken_rule_that_the_first_process_found_is_told_by_the_next_one_too(tmp_path: Path) -> None:
    log = ServedLog([*honest_entries(), written(SKIPPED)])
    first = audited(log, MemoryFolder(tmp_path))
    again = audited(log, MemoryFolder(tmp_path))
    assert found(first) == found(again) == [(f"entry {SIZE}", R.VERSION_GAP)]
    assert again.entries == 0


def test_a_replay_that_goes_on_from_a_file_is_the_one_that_never_stopped(tmp_path: Path) -> None:
    """At each of many places: what is written of both in the end is the same, byte for byte."""
    entries = list(honest_entries())
    whole = begun()
    whole.feed(entries)
    for stop in (1, SIZE - 5, SIZE - 3, SIZE - 2, SIZE - 1, SIZE):
        first = begun()
        first.feed(entries[:stop])
        data = snapshot_of(first, anchor())
        assert data is not None
        second = resumed(data, sha256(data), anchor())
        assert second is not None
        second.outside = whole.outside
        second.feed(entries[stop:])
        assert snapshot_of(second, anchor()) == snapshot_of(whole, anchor())
        assert (second.size, second.findings) == (whole.size, whole.findings)


def test_between_a_seal_and_its_last_record_nothing_is_saved() -> None:
    replay = begun()
    replay.feed(list(honest_entries())[:100])
    assert snapshot_of(replay, anchor()) is None


def test_what_was_unclear_is_read_again_from_the_beginning(tmp_path: Path) -> None:
    """The missing key may be known the next time, and then everything that rests on it is."""
    (stranger,) = delegate(logged(), "a former zone key of 88.118").signatures
    begins = replace(Entry.from_bytes(honest_entries()[0]), by=(stranger,)).to_bytes()
    log = ServedLog([begins, written(FIRST)])
    for _ in range(2):
        assert audited(log, MemoryFolder(tmp_path)).entries == 2
    assert list(tmp_path.glob("*.replay")) == []
    assert MemoryFolder(tmp_path).load(LOG).snapshot == ""


def test_more_findings_than_are_kept_are_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idtrace.audit.FINDINGS_MAX", 1)
    replay = begun()
    replay.feed([honest_entries()[0], written(FIRST), b"x", b"y"])
    assert (len(replay.findings), replay.broken, snapshot_of(replay, anchor())) == (1, 2, None)


def changed(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"time":1', b'"time":2', 1))


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def older(path: Path) -> None:
    path.write_bytes(json.dumps({"format": FORMAT}).encode())


@pytest.mark.parametrize("harm", [changed, torn, older, Path.unlink])
def test_a_file_that_is_not_the_one_that_was_saved_is_not_read(harm: Callable[[Path], None], tmp_path: Path) -> None:
    log = ServedLog()
    audited(log, MemoryFolder(tmp_path))
    harm(state_file(tmp_path))
    report = next_audit(log, tmp_path)
    assert (found(report), report.entries) == ([], SIZE)
    assert next_audit(log, tmp_path).entries == 0, "and is replaced by a sound one"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_another_root_key_or_form_begins_anew(tmp_path: Path) -> None:
    replay = begun()
    replay.feed(list(honest_entries()))
    data = snapshot_of(replay, anchor())
    assert data is not None
    assert resumed(data, sha256(data), anchor()) is not None
    assert resumed(data, sha256(data), Anchor.of(public("another root"))) is None
    for spoilt in (b"[]", b"{}", b"x", data.replace(b"replay/v1", b"replay/v0"), data.replace(b'"lives"', b'"live"')):
        assert resumed(spoilt, sha256(spoilt), anchor()) is None


def test_a_log_too_large_for_a_file_is_replayed_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idtrace.auditing.snapshot.IDENTIFIERS_MAX", 10)
    log = ServedLog()
    for _ in range(2):
        assert audited(log, MemoryFolder(tmp_path)).entries == SIZE


def test_the_file_is_written_again_when_the_log_has_grown_by_an_eighth_and_not_before(tmp_path: Path) -> None:
    log = ServedLog()
    log.size = SIZE - 3
    audited(log, MemoryFolder(tmp_path))
    first = state_file(tmp_path).read_bytes()
    log.size = SIZE
    audit = opened(log, MemoryFolder(tmp_path))
    assert (audit.run(NOW).entries, audit.run(NOW).entries) == (3, 0)
    assert state_file(tmp_path).read_bytes() == first
    more, last = [], NEXT
    for version in range(3, 3 + SIZE // 7):
        last = record(ITEM, version=version, previous=last.hash, status=Status.ACTIVE)
        more.append(written(last))
    assert found(next_audit(log, tmp_path, *more)) == []
    assert state_file(tmp_path).read_bytes() != first


@pytest.mark.parametrize("more", [40, 200])
def test_a_forked_log_is_found_by_the_next_process_and_does_not_touch_what_was_saved(tmp_path: Path, more: int) -> None:
    log = ServedLog()
    audited(log, MemoryFolder(tmp_path))
    saved = state_file(tmp_path).read_bytes()
    report = audited(log.forked(500, more), MemoryFolder(tmp_path))
    assert R.LOG_INCONSISTENT in {notice.reason for notice in report.notices} or more == 40
    assert report.outcome.name == "MISBEHAVIOUR"
    assert state_file(tmp_path).read_bytes() == saved
    assert found(next_audit(log, tmp_path)) == [], "the true log goes on where it was"

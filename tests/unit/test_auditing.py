"""The auditor against a log that lies in one way at a time: each lie is found, in its place, and nothing else is."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from idtrace.audit import Grade
from idtrace.auditing.findings import Outcome
from idtrace.entry import Entry
from idtrace.errors import Reason
from idtrace.identifier import Identifier
from idtrace.note import Note
from tests.audited_log import (
    CHILD,
    FIRST,
    NEXT,
    SIZE,
    ServedLog,
    audited,
    chained,
    child_chain,
    found,
    honest_entries,
    written,
)
from tests.core_fixtures import ZONE, delegate, record
from tests.log_fixtures import note_signer
from tests.logged_fixtures import LOG, logged, logged_chain

R = Reason

# The honest log


def test_an_honest_log_of_several_zones_is_consistent_and_was_read_whole() -> None:
    log = ServedLog()
    report = audited(log, chains=chained(logged_chain(), child_chain()))
    assert found(report) == []
    assert (report.outcome, report.size, report.entries, report.zones) == (
        Outcome.CONSISTENT,
        SIZE,
        SIZE,
        (ZONE, CHILD),
    )
    assert report.identifiers == SIZE - 5  # all but keys, seal, delegation, keys, and the second version of ITEM
    assert {"tile/0/000", "tile/0/001", "tile/0/002.p/85", "tile/1/000.p/2"} <= set(log.asked)


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 512])
def test_a_log_of_any_size_is_read_to_its_end(size: int) -> None:
    single = (written(record(Identifier.parse(f"{ZONE}/S-{n}"))) for n in range(size - 1))
    log = ServedLog([honest_entries()[0], *single])
    report = audited(log)
    assert (found(report), report.entries) == ([], size)


def test_an_empty_log_is_one_that_has_not_said_which_keys_its_zone_has() -> None:
    assert found(audited(ServedLog([]))) == [(f"zone {ZONE}", R.NOT_LOGGED)]


def test_packed_and_plain_answers_are_the_same() -> None:
    log = ServedLog()
    path = "tile/entries/000"
    log.instead(path, gzip.compress(log.content(path)), headers={"content-encoding": "gzip"})
    assert found(audited(log)) == []


# One lie at a time


def unsigned(note: Note) -> bytes:
    (line,) = note.signatures
    return Note(note.text, (replace(line, value=bytes(64)),)).encode()


@pytest.mark.parametrize(
    ("lie", "place", "reason", "outcome"),
    [
        pytest.param(lambda log: log.changed("tile/0/001", 40), "tile/0/001", R.TILE_MALFORMED, 1, id="a tile's byte"),
        pytest.param(
            lambda log: log.changed("tile/entries/001", 300), "entry 256", R.ENTRY_MALFORMED, 1, id="an entry's byte"
        ),
        pytest.param(
            lambda log: log.changed("tile/entries/002.p/85"), "entry 596", R.ENTRY_MALFORMED, 1, id="the last entry"
        ),
        pytest.param(
            lambda log: log.instead("tile/entries/001", log.content("tile/entries/000")),
            "entry 256",
            R.ENTRY_MALFORMED,
            1,
            id="another bundle",
        ),
        pytest.param(
            lambda log: log.changed("tile/0/002.p/85"),
            "tile/0/002.p/85, tile/1/000.p/2",
            R.TILE_MALFORMED,
            1,
            id="a partial tile's byte",
        ),
        pytest.param(
            lambda log: log.changed("tile/1/000.p/2"),
            "tile/0/002.p/85, tile/1/000.p/2",
            R.TILE_MALFORMED,
            1,
            id="an upper tile's byte",
        ),
        pytest.param(
            lambda log: log.instead("tile/0/000", log.content("tile/0/000")[:-32]),
            "tile/0/000",
            R.TILE_MALFORMED,
            1,
            id="a truncated tile",
        ),
        pytest.param(
            lambda log: log.instead("tile/entries/000", log.content("tile/entries/000")[:-9]),
            "tile/entries/000",
            R.TILE_MALFORMED,
            1,
            id="a truncated bundle",
        ),
        pytest.param(
            lambda log: log.instead("tile/entries/001", b"", status=404),
            "tile/entries/001",
            R.NO_ANSWER,
            2,
            id="entries that are not handed over",
        ),
        pytest.param(
            lambda log: log.instead("checkpoint", unsigned(log.note())),
            "checkpoint",
            R.SIGNATURE_INVALID,
            1,
            id="a signature",
        ),
        pytest.param(
            lambda log: log.instead("checkpoint", log.note().encode().replace(b"\n597\n", b"\n598\n")),
            "checkpoint",
            R.SIGNATURE_INVALID,
            1,
            id="a size that was not signed",
        ),
        pytest.param(
            lambda log: log.instead("checkpoint", log.note(root=bytes(32)).encode()),
            "tile/0/002.p/85, tile/1/000.p/2",
            R.TILE_MALFORMED,
            1,
            id="a root that its tiles have not",
        ),
        pytest.param(
            lambda log: log.instead("checkpoint", b"<html>"), "checkpoint", R.NOTE_MALFORMED, 2, id="no checkpoint"
        ),
        pytest.param(
            lambda log: log.instead("checkpoint", b"", status=302, headers={"location": "http://elsewhere.example/"}),
            "checkpoint",
            R.NO_ANSWER,
            2,
            id="a redirection",
        ),
        pytest.param(
            lambda log: log.instead("checkpoint", log.note(origin="log.example/other").encode()),
            "checkpoint",
            R.LOG_UNKNOWN,
            2,
            id="another log",
        ),
    ],
)
def test_a_lie_is_found_where_it_is(
    lie: Callable[[ServedLog], ServedLog], place: str, reason: Reason, outcome: int
) -> None:
    report = audited(lie(ServedLog()))
    assert found(report) == [(place, reason)]
    assert report.outcome == outcome
    assert report.notices[0].evidence is None, "what is not signed shows nothing to a third party"


def test_no_entry_is_believed_before_it_was_found_in_the_tree() -> None:
    """A changed entry must not be told as a broken rule, which the log's signature would stand for."""
    report = audited(ServedLog().changed("tile/entries/000", 60))
    assert [notice.place for notice in report.notices] == ["entry 0"]
    assert report.entries == 0


def test_a_checkpoint_by_an_unknown_key_is_no_misbehaviour_but_a_missing_key() -> None:
    report = audited(ServedLog(by=note_signer(LOG)))
    assert (found(report), report.outcome) == ([("checkpoint", R.SIGNER_UNKNOWN)], Outcome.UNCLEAR)


def test_a_broken_rule_in_the_log_itself_is_misbehaviour_at_its_entry() -> None:
    entries = [*honest_entries(), written(NEXT)]
    report = audited(ServedLog(entries))
    assert (found(report), report.outcome) == ([(f"entry {SIZE}", R.VERSION_GAP)], Outcome.MISBEHAVIOUR)


def test_a_missing_parents_key_leaves_it_unclear() -> None:
    """The log begins with keys that a parent's key signed which no chain of today has."""
    entries = [honest_entries()[0], written(FIRST)]
    (stranger,) = delegate(logged(), "a former zone key of 88.118").signatures
    entries[0] = replace(Entry.from_bytes(entries[0]), by=(stranger,)).to_bytes()
    report = audited(ServedLog(entries))
    assert report.outcome is Outcome.UNCLEAR
    unknown = [(f"entry {index}", R.SIGNER_UNKNOWN) for index in (0, 1)]
    assert found(report) == [(f"zone {ZONE}", R.NOT_LOGGED), *unknown]


# A server that does not want to be read


def endless() -> Iterator[bytes]:
    while True:
        yield bytes(65_536)


def dripping() -> Iterator[bytes]:
    for _ in range(200):
        time.sleep(0.02)
        yield b"x"


@pytest.mark.parametrize(
    ("path", "reason", "grade"),
    [
        ("tile/entries/000", R.ANSWER_MALFORMED, Grade.MISBEHAVIOUR),
        ("tile/0/000", R.ANSWER_MALFORMED, Grade.MISBEHAVIOUR),
        ("checkpoint", R.ANSWER_MALFORMED, Grade.MISBEHAVIOUR),
    ],
)
def test_an_endless_answer_is_cut_at_the_first_byte_too_many(path: str, reason: Reason, grade: Grade) -> None:
    log = ServedLog()
    log.lies[path] = endless
    report = audited(log)
    assert [(one.place, one.reason, one.grade) for one in report.notices] == [(path, reason, grade)]


def test_a_small_answer_that_unpacks_to_gigabytes_is_cut_too() -> None:
    bomb = gzip.compress(bytes(40_000_000))
    log = ServedLog().instead("tile/0/000", bomb, headers={"content-encoding": "gzip"})
    assert found(audited(log)) == [("tile/0/000", R.ANSWER_MALFORMED)]


@pytest.mark.parametrize(
    "headers", [{"content-encoding": "br"}, {"content-encoding": "gzip"}], ids=["another packing", "not packed at all"]
)
def test_what_cannot_be_unpacked_is_refused(headers: dict[str, str]) -> None:
    log = ServedLog()
    log.instead("tile/0/000", log.content("tile/0/000"), headers=headers)
    assert found(audited(log)) == [("tile/0/000", R.ANSWER_MALFORMED)]


def test_a_packed_answer_that_ends_too_early_is_refused() -> None:
    log = ServedLog()
    log.instead("tile/0/000", gzip.compress(log.content("tile/0/000"))[:-8], headers={"content-encoding": "gzip"})
    assert found(audited(log)) == [("tile/0/000", R.ANSWER_MALFORMED)]


def test_a_byte_now_and_then_does_not_keep_the_auditor() -> None:
    log = ServedLog()
    log.lies["tile/entries/000"] = dripping
    start = time.perf_counter()
    report = audited(log, timeout_seconds=0.2)
    assert time.perf_counter() - start < 3
    assert (found(report), report.outcome) == ([("tile/entries/000", R.NO_ANSWER)], Outcome.UNCLEAR)


def test_a_short_trouble_of_the_server_is_overcome() -> None:
    log = ServedLog()
    left = [503, 503]
    path = "tile/entries/001"

    def troubled() -> tuple[int, bytes, dict[str, str]]:
        return (left.pop(), b"", {}) if left else (200, log.content(path), {})

    log.lies[path] = troubled
    assert found(audited(log)) == []

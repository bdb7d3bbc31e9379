"""A statement that names a size from before what it hides: true of that size, and a lie when it was signed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from idtrace.auditing.auditor import Saved
from idtrace.auditing.evidence import EARLY_SECONDS, STALE_SECONDS, Contradiction, Evidence, contradicted
from idtrace.auditing.findings import LogReport, Outcome
from idtrace.entry import Entry
from idtrace.errors import Reason, VerificationError
from idtrace.identifier import Identifier
from idtrace.record import Status
from idtrace.signature import Kind, sign
from idtrace.statements import Currency, Denial, DenialReason
from tests.audited_log import (
    FIRST,
    NEXT,
    RECALLED_AT,
    SIZE,
    ServedLog,
    audited,
    found,
    holds,
    honest_entries,
    shown,
    written,
)
from tests.core_fixtures import ITEM, NOW, ZONE, record, signer
from tests.logged_fixtures import CURRENT, HERE, currency_of, entry_of

R = Reason
# The first second in which a statement has to know of the recall, whose entry was committed at NOW.
LATE = NOW + STALE_SECONDS + 1
HIDDEN = ("saved", R.STATEMENT_CONTRADICTED)


def held(saved: Saved, log: ServedLog | None = None) -> LogReport:
    return audited(log or ServedLog(), saved=(saved,))


def current(issued_at: int, log_size: int = RECALLED_AT, **changes: Any) -> Saved:
    return Saved("saved", currency_of(FIRST, log_size=log_size, issued_at=issued_at, expires=issued_at + 60, **changes))


def absent(issued_at: int, log_size: int | None, reason: DenialReason = DenialReason.IDENTIFIER_ABSENT) -> Saved:
    said = Denial(ITEM, HERE, reason, issued_at, issued_at + 60, log_size)
    return Saved("saved", sign(Kind.DENIAL, said.payload(), signer(CURRENT)))


@pytest.mark.parametrize("size", [RECALLED_AT, RECALLED_AT - 1, 1])
def test_latest_of_an_old_size_is_a_lie_once_the_log_had_grown_long_before(size: int) -> None:
    report = held(current(LATE, size))
    assert (found(report), report.outcome) == ([HIDDEN], Outcome.MISBEHAVIOUR)
    evidence = shown(report).shown
    assert isinstance(evidence, Contradiction)
    assert evidence.index == RECALLED_AT


@pytest.mark.parametrize("size", [RECALLED_AT - 1, 3, None])
def test_absent_of_an_old_size_or_of_none_is_a_lie_too(size: int | None) -> None:
    report = held(absent(LATE, size))
    assert found(report) == [HIDDEN]
    shown(report)


def test_a_statement_within_the_grace_is_no_lie_and_a_second_later_it_is() -> None:
    assert found(held(current(LATE - 1))) == []
    assert found(held(absent(LATE - 1, RECALLED_AT - 1))) == []
    assert found(held(current(LATE))) == [HIDDEN]


def test_a_denial_without_a_size_that_was_true_cannot_be_told(tmp_path: Path) -> None:
    report = held(absent(LATE - 1, None))
    assert (found(report), report.outcome) == ([("saved", R.CHECKPOINT_STALE)], Outcome.UNCLEAR)
    about_prefix = held(absent(LATE, None, DenialReason.PREFIX_DISABLED))
    assert about_prefix.outcome is Outcome.UNCLEAR


def test_what_came_long_after_an_old_statement_does_not_speak_against_it() -> None:
    """The recall was committed an hour after the statement, which names the size of its time."""
    later = replace(Entry.from_bytes(written(NEXT)), committed_at=NOW + 3_600).to_bytes()
    log = ServedLog([*honest_entries()[:RECALLED_AT], later])
    assert found(held(current(NOW), log)) == []
    assert found(held(current(NOW + 3_600 + STALE_SECONDS), log)) == []
    assert found(held(current(NOW + 3_600 + STALE_SECONDS + 1), log)) == [HIDDEN]


def test_the_size_that_had_to_be_known_is_found_to_the_entry_among_many_times() -> None:
    """Thirty versions, one a minute: each statement is held to the newest that was ten minutes old."""
    versions, entries = [FIRST], list(honest_entries()[: RECALLED_AT - 1])
    for n in range(2, 31):
        versions.append(record(ITEM, version=n, previous=versions[-1].hash, status=Status.ACTIVE))
    entries += [
        replace(Entry.from_bytes(written(one)), committed_at=NOW + 60 * n).to_bytes() for n, one in enumerate(versions)
    ]
    log = ServedLog(entries)
    for shown_version in (1, 5, 29):
        issued = NOW + 60 * shown_version + STALE_SECONDS  # the next version is then exactly ten minutes old
        said = {"version": shown_version, "record_hash": versions[shown_version - 1].hash}
        size = RECALLED_AT - 1 + shown_version
        assert found(held(current(issued, size, **said), log)) == []
        assert found(held(current(issued + 1, size, **said), log)) == [HIDDEN]


def test_evidence_of_a_stale_statement_cannot_be_made_of_a_fresh_one() -> None:
    evidence = shown(held(current(LATE)))
    assert isinstance(evidence.shown, Contradiction)
    fresh = current(LATE - 1).statement
    assert fresh is not None
    assert not holds(Evidence(replace(evidence.shown, statement=fresh), evidence.chains))


def test_a_log_that_does_not_hand_the_entries_over_leaves_it_unclear() -> None:
    log = ServedLog()
    asked: list[int] = []

    def sometimes() -> tuple[int, bytes, dict[str, str]]:
        asked.append(1)
        return (200, log.content("tile/entries/002.p/85"), {}) if len(asked) < 2 else (404, b"", {})

    log.lies["tile/entries/002.p/85"] = sometimes
    report = held(current(LATE), log)
    assert report.outcome is Outcome.UNCLEAR
    assert found(report) == [("tile/entries/002.p/85", R.NO_ANSWER)]


def test_of_a_log_that_is_no_longer_than_the_statement_says_nothing_is_looked_up() -> None:
    log = ServedLog()
    report = held(Saved("saved", currency_of(NEXT, log_size=SIZE, version=2, issued_at=LATE, expires=LATE + 60)), log)
    assert found(report) == []
    assert sum(path.startswith("tile/entries/") for path in log.asked) == 3
    other = Identifier.parse(f"{ZONE}/never")
    said = Denial(other, HERE, DenialReason.IDENTIFIER_ABSENT, LATE, LATE + 60, log_size=2)
    assert found(held(Saved("saved", sign(Kind.DENIAL, said.payload(), signer(CURRENT))))) == []


def test_what_a_later_log_of_the_zone_holds_does_not_speak_against_a_statement() -> None:
    """A statement names no log, and a zone may move to another one, in which small places hold later entries."""
    first = record(ITEM)
    later = entry_of(record(ITEM, version=2, previous=first.hash), committed_at=NOW + EARLY_SECONDS + 1)
    said = Currency.parse(currency_of(first, log_size=1_000).payload)
    with pytest.raises(VerificationError) as caught:
        contradicted(said, later.to_bytes(), 3)
    assert caught.value.reason is Reason.PROOF_INVALID
    assert contradicted(replace(said, issued_at=NOW + 1), later.to_bytes(), 3)

"""What the auditor holds a log to: checkpoints seen before and elsewhere, witnesses, statements; and the evidence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from idtrace.audit import Grade
from idtrace.auditing.auditor import Saved
from idtrace.auditing.evidence import Contradiction, Evidence, Fork, check_evidence
from idtrace.auditing.findings import Notice, Outcome, gravest, outcome_of
from idtrace.auditing.memory import MemoryFolder
from idtrace.chain import Anchor
from idtrace.delegation import Role, ZoneKey
from idtrace.entry import Entry
from idtrace.errors import BusyError, InputError, Reason
from idtrace.identifier import Identifier
from idtrace.logpolicy import LogPolicy
from idtrace.signature import Kind, sign
from idtrace.statements import Currency, Denial, DenialReason
from tests.audited_log import (
    FIRST,
    NEXT,
    RECALLED_AT,
    SIZE,
    ServedLog,
    audited,
    chained,
    found,
    holds,
    honest_entries,
    opened,
    shown,
    written,
)
from tests.core_fixtures import ITEM, NOW, ZONE, delegate, public, signer
from tests.log_fixtures import note_signer, witness_signer
from tests.logged_fixtures import CURRENT, HERE, LOG, currency_of, log_signer, logged, logged_chain

R = Reason

# Going back and forking


def test_the_last_checkpoint_is_remembered_and_what_has_grown_from_it_is_consistent(tmp_path: Path) -> None:
    log, folder = ServedLog(), MemoryFolder(tmp_path)
    log.size = SIZE - 3
    assert found(audited(log, folder)) == []
    log.size = SIZE
    report = audited(log, folder)
    assert (found(report), report.seen_size) == ([], SIZE - 3)
    assert folder.load(LOG).replayed.size == SIZE


def test_a_log_that_goes_back_is_found_and_what_it_is_held_to_stays(tmp_path: Path) -> None:
    log, folder = ServedLog(), MemoryFolder(tmp_path)
    audited(log, folder)
    log.size = SIZE - 1
    for _ in range(2):
        report = audited(log, folder)
        assert (found(report), report.outcome) == ([("checkpoint", R.CHECKPOINT_STALE)], Outcome.MISBEHAVIOUR)
    log.size = SIZE
    assert found(audited(log, folder)) == []


@pytest.mark.parametrize("more", [97, 200], ids=["the same size", "a larger one"])
def test_two_histories_of_one_log_are_evidence_with_both_signed_checkpoints(tmp_path: Path, more: int) -> None:
    log, folder = ServedLog(), MemoryFolder(tmp_path)
    audited(log, folder)
    other = log.forked(500, more)
    report = audited(other, folder)
    assert ("the checkpoint seen before", R.LOG_INCONSISTENT) in found(report)
    assert report.outcome is Outcome.MISBEHAVIOUR
    evidence = shown(report)
    assert isinstance(evidence.shown, Fork)
    assert set(evidence.shown.notes) == {log.note().encode(), other.note().encode()}
    assert folder.load(LOG).note == log.note().encode(), "the first history stays what the log is held to"
    assert shown(audited(other, folder)).name == evidence.name, "the same lie has the same file"


def test_a_smaller_history_that_contradicts_the_one_seen_before_is_evidence_where_the_old_tiles_are_there(
    tmp_path: Path,
) -> None:
    log, folder = ServedLog(), MemoryFolder(tmp_path)
    audited(log, folder)
    other = log.forked(500, 20)
    log.instead("checkpoint", other.note().encode())
    report = audited(log, folder)
    assert found(report)[:2] == [
        ("the checkpoint seen before", R.LOG_INCONSISTENT),
        ("checkpoint", R.CHECKPOINT_STALE),
    ]
    shown(report)


def test_a_split_view_shows_in_a_bundle_that_somebody_else_saved() -> None:
    log = ServedLog()
    other = log.forked(500, 20)
    saved = Saved("bundle.json", note=other.note().encode())
    report = audited(log, saved=(saved,))
    assert found(report) == [("bundle.json", R.LOG_INCONSISTENT)]
    shown(report)
    older = Saved("old.json", note=log.note(513).encode())
    assert found(audited(log, saved=(older,))) == []


def test_a_saved_checkpoint_that_nobody_of_this_log_signed_proves_nothing() -> None:
    forged = Saved("bundle.json", note=ServedLog(by=note_signer(LOG)).forked(3, 2).note().encode())
    report = audited(ServedLog(), saved=(forged,))
    assert (found(report), report.outcome) == ([("bundle.json", R.SIGNER_UNKNOWN)], Outcome.UNCLEAR)


# Witnesses


def policy(quorum: str = "w1", url: str = "") -> LogPolicy:
    return LogPolicy.parse(f"witness w1 {witness_signer(1).key} {url}\nquorum {quorum}\n".encode())


def test_too_few_cosignatures_leave_it_unclear_and_enough_are_named() -> None:
    log = ServedLog()
    report = audited(log, policy=policy())
    assert (found(report), report.outcome) == ([("checkpoint", R.WITNESS_QUORUM)], Outcome.UNCLEAR)
    log.cosigners = (witness_signer(1),)
    report = audited(log, policy=policy())
    assert (found(report), report.cosigned) == ([], ("w1",))


@pytest.mark.parametrize(
    ("status", "body", "expected", "said"),
    [
        (409, b"597\n", [("witness w1", R.LOG_INCONSISTENT)], ""),
        (409, b"two roots for the size 597\n", [("witness w1", R.LOG_INCONSISTENT)], ""),
        (422, b"bad proof\n", [("witness w1", R.LOG_INCONSISTENT)], ""),
        (409, b"400\n", [], "witness w1: has seen 400 entries"),
        (404, b"", [], "witness w1: not asked: status 404"),
        (200, b"nonsense\n", [("witness w1", R.NOTE_MALFORMED)], ""),
        (200, None, [], "witness w1: has seen this tree of 597 entries"),
    ],
)
def test_a_witness_is_asked_what_it_has_seen(
    status: int, body: bytes | None, expected: list[tuple[str, Reason]], said: str
) -> None:
    log = ServedLog()
    answer = witness_signer(1).sign(log.note().text, NOW).line.encode() if body is None else body
    asked: list[bytes] = []

    def witness(request: httpx.Request) -> httpx.Response:
        asked.append(request.content)
        return httpx.Response(status, stream=httpx.ByteStream(answer))

    report = audited(log, policy=policy("none", "http://w1.example/"), witnesses=httpx.MockTransport(witness))
    assert found(report) == expected
    assert not said or said in report.checked
    assert asked[0].startswith(b"old 597\n\n")


# Statements


def saved_currency(**changes: Any) -> Saved:
    return Saved("saved.json", currency_of(FIRST, **{"log_size": SIZE} | changes))


def test_a_newest_version_that_was_hidden_is_evidence() -> None:
    report = audited(ServedLog(), saved=(saved_currency(),))
    assert (found(report), report.outcome) == ([("saved.json", R.STATEMENT_CONTRADICTED)], Outcome.MISBEHAVIOUR)
    evidence = shown(report).shown
    assert isinstance(evidence, Contradiction)
    assert evidence.index == RECALLED_AT


def test_a_statement_that_was_true_when_it_was_signed_is_no_lie() -> None:
    report = audited(ServedLog(), saved=(saved_currency(log_size=RECALLED_AT),))
    assert found(report) == []
    assert any(line.startswith("saved.json: ") for line in report.checked)


def test_a_false_absence_is_evidence() -> None:
    said = Denial(ITEM, HERE, DenialReason.IDENTIFIER_ABSENT, NOW, NOW + 60, log_size=SIZE)
    saved = Saved("denial.json", sign(Kind.DENIAL, said.payload(), signer(CURRENT)))
    report = audited(ServedLog(), saved=(saved,))
    assert found(report) == [("denial.json", R.STATEMENT_CONTRADICTED)]
    shown(report)
    true = replace(said, identifier=Identifier.parse(f"{ZONE}/never"))
    saved = Saved("denial.json", sign(Kind.DENIAL, true.payload(), signer(CURRENT)))
    assert found(audited(ServedLog(), saved=(saved,))) == []


def test_a_version_that_the_log_never_had_is_a_lie_that_no_single_entry_shows() -> None:
    report = audited(ServedLog(), saved=(saved_currency(version=3),))
    assert (found(report), report.outcome) == ([("saved.json", R.STATEMENT_CONTRADICTED)], Outcome.MISBEHAVIOUR)
    assert report.notices[0].evidence is None


def test_what_stands_in_an_entry_that_could_not_be_checked_is_no_lie_and_what_stands_nowhere_is() -> None:
    """A key of a parent is missing, so the record under the keys that it signed is unclear, but it is there."""
    (stranger,) = delegate(logged(), "a former zone key of 88.118").signatures
    begins = replace(Entry.from_bytes(honest_entries()[0]), by=(stranger,)).to_bytes()
    served = ServedLog([begins, written(FIRST)])
    report = audited(served, saved=(saved_currency(log_size=2),))
    assert report.outcome is Outcome.UNCLEAR
    assert ("saved.json", R.STATEMENT_CONTRADICTED) not in found(report)
    report = audited(served, saved=(saved_currency(log_size=2, version=3),))
    assert report.outcome is Outcome.MISBEHAVIOUR
    assert ("saved.json", R.STATEMENT_CONTRADICTED) in found(report)


@pytest.mark.parametrize(
    ("saved", "reason"),
    [
        (saved_currency(log_size=SIZE + 1, version=2, record_hash=NEXT.hash), R.CHECKPOINT_STALE),
        (Saved("saved.json", replace(currency_of(FIRST), payload=b"{}")), R.FIELD_MISSING),
    ],
    ids=["a size that is not published yet", "no statement"],
)
def test_what_cannot_be_held_against_the_log_is_unclear(saved: Saved, reason: Reason) -> None:
    report = audited(ServedLog(), saved=(saved,))
    assert (found(report), report.outcome) == ([("saved.json", reason)], Outcome.UNCLEAR)


def test_a_forged_statement_accuses_nobody() -> None:
    forged = currency_of(FIRST, log_size=SIZE)
    broken = replace(forged.signatures[0], signature=bytes(64))
    report = audited(ServedLog(), saved=(Saved("saved.json", replace(forged, signatures=(broken,))),))
    assert (found(report), report.outcome) == ([("saved.json", R.SIGNATURE_INVALID)], Outcome.UNCLEAR)
    stranger = opened(ServedLog(), saved=(Saved("saved.json", currency_of(FIRST, by="thief", log_size=SIZE)),))
    assert found(stranger.run(NOW)) == []
    assert stranger.judged == set(), "whoever asked says that no log knows its signer"


def test_a_sample_looks_entries_up_and_judges_no_statement() -> None:
    report = audited(ServedLog(), sample=20, saved=(saved_currency(),))
    assert (found(report), report.entries, report.sampled) == ([("saved.json", R.CHECKPOINT_STALE)], 20, True)
    assert found(audited(ServedLog(), sample=10_000)) == []


def test_a_sample_of_all_entries_finds_each_that_was_changed() -> None:
    report = audited(ServedLog().changed("tile/entries/000", 60), sample=SIZE)
    assert {notice.place for notice in report.notices} == {"entry 0"}


# Evidence


def evidence_of_a_fork() -> Evidence:
    log = ServedLog()
    return shown(audited(log, saved=(Saved("x", note=log.forked(500, 20).note().encode()),)))


def test_every_changed_hash_and_signature_makes_evidence_worthless() -> None:
    for evidence in (evidence_of_a_fork(), shown(audited(ServedLog(), saved=(saved_currency(),)))):
        text = evidence.encode().decode()
        for part in ("beginning", "proof", "path", "entry", "statement"):
            at = text.find(f'"{part}"')
            if at < 0:
                continue
            place = next(n for n in range(at + len(part) + 4, len(text)) if text[n] in "0123456789abcdef")
            spoilt = text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1 :]
            assert not still_holds(spoilt), f"{part} was changed and nobody noticed"


def still_holds(text: str) -> bool:
    try:
        return holds(Evidence.parse(text.encode()))
    except InputError:
        return False


def test_evidence_against_an_honest_log_cannot_be_made_up() -> None:
    log, true = ServedLog(), evidence_of_a_fork()
    both = (log.note(500).encode(), log.note().encode())
    assert isinstance(true.shown, Fork)
    for notes in (both, (both[1], both[1]), (both[0], both[0])):
        assert not holds(replace(true, shown=replace(true.shown, notes=notes)))
    statement = shown(audited(log, saved=(saved_currency(),)))
    assert isinstance(statement.shown, Contradiction)
    for said in (currency_of(FIRST, log_size=RECALLED_AT), currency_of(NEXT, log_size=SIZE)):
        assert not holds(replace(statement, shown=replace(statement.shown, statement=said)))


def test_evidence_needs_the_right_root_key() -> None:
    checks = check_evidence(evidence_of_a_fork(), Anchor.of(public("another root")))
    assert [(check.name, check.reason) for check in checks] == [("chain", R.ROOT_MISMATCH)]


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b'{"format":"idtrace-evidence/v2"}', b"{}"])
def test_a_file_that_is_no_evidence_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        Evidence.parse(data)


# Memory


def test_an_old_log_key_counts_for_what_was_seen_under_it(tmp_path: Path) -> None:
    log, folder = ServedLog(), MemoryFolder(tmp_path)
    audited(log, folder)
    others = [key for key in logged().keys if key.key != public(f"log of {ZONE}")]
    new = ZoneKey(public("new log key"), frozenset({Role.LOG}))
    second = delegate(logged(version=2, previous=logged().hash, keys=(*others, new)))
    chains = chained((*logged_chain()[:-1], second))
    assert found(audited(log, folder, chains=chains)) == []
    rekeyed = ServedLog(by=log_signer("new log key")).forked(500, 200)
    evidence = shown(audited(rekeyed, folder, chains=chains))
    assert len(evidence.chains) == 2, "each checkpoint has the chain that names its key"


def test_damaged_memory_is_refused_and_never_begun_anew(tmp_path: Path) -> None:
    folder = MemoryFolder(tmp_path)
    audited(ServedLog(), folder)
    (path,) = tmp_path.glob("*.json")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError) as refused:
        audited(ServedLog(), folder)
    assert refused.value.field == str(path)


def test_two_audits_do_not_share_a_memory(tmp_path: Path) -> None:
    folder = MemoryFolder(tmp_path)
    with folder.held(), pytest.raises(BusyError), folder.held():
        pass
    with folder.held():
        pass


def test_a_second_run_of_one_audit_reads_only_what_has_come_since() -> None:
    log = ServedLog()
    log.size = SIZE - 3
    audit = opened(log)
    assert audit.run(NOW).entries == SIZE - 3
    log.size = SIZE
    log.asked.clear()
    report = audit.run(NOW)
    assert (found(report), report.entries) == ([], 3)
    assert "tile/entries/000" not in log.asked
    assert audit.run(NOW).entries == 0
    log.size = SIZE - 1
    assert found(audit.run(NOW)) == [("checkpoint", R.CHECKPOINT_STALE)]


def test_outcomes_weigh_a_lie_above_silence() -> None:
    lie = Notice("x", Grade.MISBEHAVIOUR, R.LOG_TIME, "")
    silence = Notice("x", Grade.UNCLEAR, R.NO_ANSWER, "")
    assert outcome_of([silence, lie]) is Outcome.MISBEHAVIOUR
    assert gravest([Outcome.CONSISTENT, Outcome.UNCLEAR]) is Outcome.UNCLEAR
    assert gravest([Outcome.UNCLEAR, Outcome.MISBEHAVIOUR]) is Outcome.MISBEHAVIOUR
    assert gravest([]) is Outcome.UNCLEAR


def test_the_entry_that_is_shown_is_the_one_in_the_tree() -> None:
    evidence = shown(audited(ServedLog(), saved=(saved_currency(),))).shown
    assert isinstance(evidence, Contradiction)
    assert evidence.entry == honest_entries()[RECALLED_AT]
    assert Currency.parse(evidence.statement.payload).version == 1

"""A client that remembers: two histories of one log are evidence, and no honest log is ever accused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from idtrace.auditing.evidence import Evidence, Fork
from idtrace.auditing.fetching import LogReader
from idtrace.auditing.memory import OTHERS_MAX, MemoryFolder
from idtrace.auditing.remembering import Held, Remembering
from idtrace.bundle import Bundle
from idtrace.checkpoint import Checkpoint
from idtrace.delegation import Role, ZoneKey
from idtrace.errors import BusyError, IdtraceError, InputError, Reason
from idtrace.logproof import LogProof
from idtrace.note import Note
from idtrace.tiles import Tile
from tests.audited_log import FIRST, SIZE, ServedLog, audited, found, holds
from tests.core_fixtures import ITEM, NOW, ZONE, anchor, delegate, public
from tests.log_fixtures import witness_signer
from tests.logged_fixtures import LOG, entry_of, log_signer, logged, logged_bundle, logged_chain

R = Reason


def answer(log: ServedLog, size: int | None = None) -> Bundle:
    """An answer whose proof bears the log's checkpoint of a size; of the proof nothing else matters here."""
    return Bundle(ITEM, logged_chain(), FIRST, LogProof(0, (), log.note(size).encode(), entry_of(FIRST).head))


def client(folder: Path, *logs: ServedLog) -> Remembering:
    readers = [LogReader("http://log.example/", transport=log.transport) for log in logs]
    return Remembering(MemoryFolder(folder), anchor(), readers)


def hold(memory: Remembering, bundle: Bundle) -> Held:
    held = memory.hold(bundle, NOW)
    assert held is not None
    return held


def kept(folder: Path) -> list[int]:
    """Sizes of the checkpoints that are kept for comparing."""
    notes = MemoryFolder(folder).load(LOG).others
    return [Checkpoint.parse(Note.parse(note).text).size for note in notes]


def proof_in(held: Held) -> Fork:
    """The evidence, which a third party has checked from the file."""
    assert held.evidence is not None
    evidence = Evidence.parse(held.evidence.read_bytes())
    assert holds(evidence)
    assert isinstance(evidence.shown, Fork)
    return evidence.shown


def test_one_size_with_two_roots_is_proof_at_once_and_without_any_address(tmp_path: Path) -> None:
    log = ServedLog()
    assert hold(client(tmp_path), answer(log)).evidence is None
    other = log.forked(500, SIZE - 500)
    held = hold(client(tmp_path), answer(other))
    assert set(proof_in(held).notes) == {log.note().encode(), other.note().encode()}
    assert kept(tmp_path) == [SIZE], "what was seen first stays, and convicts the next one too"
    assert hold(client(tmp_path), answer(other)).evidence == held.evidence


@pytest.mark.parametrize("more", [60, 700])
def test_two_sizes_of_two_histories_are_proof_where_the_larger_tree_is_served(tmp_path: Path, more: int) -> None:
    log = ServedLog()
    other = log.forked(500, more)
    bigger = max(log, other, key=lambda one: one.size)
    hold(client(tmp_path), answer(log))
    held = hold(client(tmp_path, bigger), answer(other))
    assert proof_in(held).proof


def test_without_an_address_two_sizes_are_kept_and_compared_when_there_is_one(tmp_path: Path) -> None:
    log = ServedLog()
    hold(client(tmp_path), answer(log, 550))
    other = log.forked(500, 300)
    assert hold(client(tmp_path), answer(other)) == Held(LOG, 800, compared=0, uncompared=1)
    assert kept(tmp_path) == [550, 800]
    assert proof_in(hold(client(tmp_path, other), answer(other, 790)))


def test_an_audit_with_the_same_folder_compares_what_answers_bore(tmp_path: Path) -> None:
    log = ServedLog()
    other = log.forked(500, 50)
    hold(client(tmp_path), answer(other))
    report = audited(log, MemoryFolder(tmp_path))
    assert found(report) == [("a checkpoint that an answer bore", R.LOG_INCONSISTENT)]
    (evidence,) = [notice.evidence for notice in report.notices]
    assert evidence is not None
    assert holds(evidence)


def test_an_honest_log_that_grows_is_never_accused_whatever_the_order_of_its_answers(tmp_path: Path) -> None:
    log = ServedLog()
    for size in (300, 595, 594, 300, 596, 520, SIZE):
        held = hold(client(tmp_path, log), answer(log, size))
        assert (held.evidence, held.uncompared) == (None, 0)
    assert kept(tmp_path) == [SIZE], "what is the beginning of another need not be kept"


def test_an_honest_log_whose_answers_run_ahead_of_what_it_publishes_is_not_said_to_go_back(tmp_path: Path) -> None:
    log, folder = ServedLog(), MemoryFolder(tmp_path)
    hold(client(tmp_path), answer(log))
    hold(client(tmp_path), answer(log, 400))
    log.size = SIZE - 3
    assert found(audited(log, folder)) == []
    assert kept(tmp_path) == [SIZE], "the smaller one was compared; the larger one is still to be"
    log.size = SIZE
    assert found(audited(log, folder)) == []
    assert kept(tmp_path) == []


def test_after_an_audit_answers_are_held_against_what_the_audit_saw(tmp_path: Path) -> None:
    log = ServedLog()
    audited(log, MemoryFolder(tmp_path))
    assert proof_in(hold(client(tmp_path), answer(log.forked(500, SIZE - 500))))


def test_cosignatures_that_come_and_go_make_no_other_checkpoint(tmp_path: Path) -> None:
    log = ServedLog()
    hold(client(tmp_path), answer(log))
    log.cosigners = (witness_signer(1),)
    assert hold(client(tmp_path), answer(log)).compared == 1
    assert kept(tmp_path) == [SIZE]


def test_a_checkpoint_that_the_log_did_not_sign_is_refused_and_not_kept(tmp_path: Path) -> None:
    thief = ServedLog(by=log_signer("thief"))
    with pytest.raises(IdtraceError) as refused:
        client(tmp_path).hold(answer(thief), NOW)
    assert refused.value.reason is R.SIGNER_UNKNOWN
    assert kept(tmp_path) == []


def test_an_answer_without_a_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    assert client(tmp_path).hold(logged_bundle(proof=None), NOW) is None
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_serves_lies_or_nothing_accuses_nobody(tmp_path: Path) -> None:
    log = ServedLog()
    hold(client(tmp_path), answer(log, 400))
    liar, silent = log.forked(300, 300), ServedLog()
    silent.lies = {path: lambda: (404, b"", {}) for path in ("tile/0/001.p/85", "tile/0/002.p/85", "tile/1/000.p/2")}
    held = hold(client(tmp_path, liar, silent), answer(log))
    assert (held.evidence, held.uncompared) == (None, 1)
    assert hold(client(tmp_path, liar, log), answer(log)).uncompared == 0, "the honest one of two decides"


def test_what_is_kept_is_bounded_and_the_first_one_stays(tmp_path: Path) -> None:
    log = ServedLog()
    for size in range(300, 300 + OTHERS_MAX + 5):
        hold(client(tmp_path), answer(log, size))
    sizes = kept(tmp_path)
    assert (len(sizes), sizes[0], sizes[-1]) == (OTHERS_MAX, 300, 300 + OTHERS_MAX + 4)


def test_a_folder_that_an_audit_holds_and_a_damaged_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idtrace.auditing.memory._HELD_PAUSE_SECONDS", 0.001)
    log = ServedLog()
    with MemoryFolder(tmp_path).held(), pytest.raises(BusyError):
        client(tmp_path).hold(answer(log), NOW)
    hold(client(tmp_path), answer(log))
    (path,) = tmp_path.glob("*.json")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError):
        client(tmp_path).hold(answer(log), NOW)


def test_a_memory_without_answers_checkpoints_is_read_as_before(tmp_path: Path) -> None:
    audited(ServedLog(), MemoryFolder(tmp_path))
    (path,) = tmp_path.glob("*.json")
    path.write_text(path.read_text("utf-8").replace(',\n "others": []', ""), "utf-8")
    assert MemoryFolder(tmp_path).load(LOG).others == ()


def test_a_fork_across_a_change_of_the_logs_key_is_shown_with_a_chain_for_each_key(tmp_path: Path) -> None:
    log = ServedLog()
    hold(client(tmp_path), answer(log))
    others = [key for key in logged().keys if key.key != public(f"log of {ZONE}")]
    new = ZoneKey(public("new log key"), frozenset({Role.LOG}))
    second = delegate(logged(version=2, previous=logged().hash, keys=(*others, new)))
    rekeyed = ServedLog(by=log_signer("new log key")).forked(500, SIZE - 500)
    held = hold(client(tmp_path), replace(answer(rekeyed), delegations=(*logged_chain()[:-1], second)))
    assert proof_in(held)
    assert held.evidence is not None
    assert len(Evidence.parse(held.evidence.read_bytes()).chains) == 2


def test_a_fork_seen_over_a_real_reader_that_fails_is_not_hidden_by_the_failure(tmp_path: Path) -> None:
    log = ServedLog()
    hold(client(tmp_path), answer(log))
    broken = httpx.MockTransport(lambda _: httpx.Response(500))
    reader = LogReader("http://log.example/", transport=broken)
    other = log.forked(500, SIZE - 500)
    held = Remembering(MemoryFolder(tmp_path), anchor(), [reader]).hold(answer(other), NOW)
    assert held is not None
    assert proof_in(held)


def test_an_address_that_does_not_answer_is_waited_for_once(tmp_path: Path) -> None:
    log = ServedLog()
    for size in range(SIZE - 9, SIZE):
        hold(client(tmp_path), answer(log, size))
    asked: list[Tile] = []

    class Silent:
        def tile(self, tile: Tile) -> bytes:
            asked.append(tile)
            raise BusyError(Reason.NO_ANSWER, "it took too long", field=tile.path)

    held = Remembering(MemoryFolder(tmp_path), anchor(), [Silent()]).hold(answer(log), NOW)
    assert held is not None
    assert (len(asked), held.compared, held.evidence) == (1, 0, None)


def test_a_file_that_could_not_be_read_again_loses_its_oldest_chains_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(client(tmp_path), answer(ServedLog()))
    folder = MemoryFolder(tmp_path)
    memory = folder.load(LOG)
    later = tuple(replace(memory.chains[0], as_of=NOW + n) for n in range(1, 9))
    monkeypatch.setattr("idtrace.auditing.memory.MEMORY_BYTES_MAX", len(memory.encode()) * 3)
    folder.save(replace(memory, chains=later))
    read = folder.load(LOG)
    assert 1 < len(read.chains) < len(later)
    assert read.chains == later[-len(read.chains) :]
    assert read.others == memory.others

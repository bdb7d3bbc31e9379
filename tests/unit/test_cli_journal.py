"""The journal: a second run after a crash makes the same bytes, and nobody but the key's holder can make the salts."""

import json
from itertools import islice
from pathlib import Path

import pytest

from idtrace.cli.journal import Journal, Place
from idtrace.errors import InputError
from idtrace.signature import PublicKey
from tests.core_fixtures import NOW, receipt, record, signer

KEY = signer("record of 88.118.8")
A, B, C = (bytes([n]) * 32 for n in (1, 2, 3))


def salts_of(journal: Journal, digest: bytes) -> list[bytes]:
    return list(islice(journal.salts(digest), 3))


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "f.csv.idtrace-receipts.jsonl"


def test_salts_come_out_the_same_in_the_next_run_and_differ_everywhere_else(path: Path, tmp_path: Path) -> None:
    with Journal(path, KEY) as journal:
        ours = salts_of(journal, A)
        assert len({*ours, *salts_of(journal, B)}) == 6
        assert {len(salt) for salt in ours} == {16}
    with Journal(path, KEY) as journal:
        assert salts_of(journal, A) == ours
    with Journal(tmp_path / "other", KEY) as journal:
        assert not set(salts_of(journal, A)) & set(ours)


def test_the_journal_does_not_hold_what_makes_the_salts(path: Path) -> None:
    with Journal(path, KEY) as journal:
        ours = salts_of(journal, A)
        secret = journal._secret
    text = path.read_text()
    assert secret.hex() not in text
    assert not any(salt.hex() in text for salt in ours)
    nonce = bytes.fromhex(str(lines(path)[0]["nonce"]))
    assert KEY.sign(nonce) != KEY.sign(b"idtrace/salts/v1\0" + nonce)


def test_another_key_begins_a_new_header_and_keeps_the_receipts(path: Path) -> None:
    with Journal(path, KEY) as journal:
        ours = salts_of(journal, A)
        journal.send([(A, NOW), (B, NOW)])
        journal.settle([(2, A, "x/1", receipt(record()))])
    with Journal(path, signer("another")) as journal:
        assert journal.is_done(A)
        assert journal.pending == {}
        assert salts_of(journal, A) != ours
    assert [line["key_id"] for line in lines(path) if "format" in line] == [
        KEY.public_key.key_id,
        signer("another").public_key.key_id,
    ]


class Hedged:
    """A hardware module that signs the same bytes differently each time."""

    def __init__(self) -> None:
        self.public_key: PublicKey = KEY.public_key
        self._count = 0

    def sign(self, message: bytes) -> bytes:
        self._count += 1
        return KEY.sign(message + bytes([self._count]))


def test_a_signer_that_does_not_repeat_itself_is_noticed(path: Path) -> None:
    module = Hedged()
    with Journal(path, module) as journal:
        journal.send([(A, NOW)])
    with Journal(path, module) as journal:
        assert journal.pending == {}
    assert sum("format" in line for line in lines(path)) == 2


def test_an_unfinished_line_keeps_its_time_and_a_finished_one_is_done(path: Path) -> None:
    with Journal(path, KEY) as journal:
        assert journal.issued_at(A, NOW) == NOW
        journal.send([(A, NOW), (B, NOW), (C, NOW + 1)])
        journal.settle([(2, A, "x/1", receipt(record()))], [C])
    with Journal(path, KEY) as journal:
        assert (journal.is_done(A), journal.is_done(B), journal.is_done(C)) == (True, False, False)
        assert journal.issued_at(B, NOW + 99) == NOW
        assert journal.issued_at(C, NOW + 99) == NOW + 99


def test_a_torn_last_line_is_cut_off_wherever_it_tears(path: Path) -> None:
    with Journal(path, KEY) as journal:
        journal.send([(A, NOW)])
        journal.settle([(2, A, "x/1", receipt(record()))])
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rindex(b"\n") + 1
    for cut in range(last, len(whole)):
        path.write_bytes(whole[:cut])
        with Journal(path, KEY) as journal:
            assert not journal.is_done(A)
            assert journal.issued_at(A, NOW + 9) == NOW
            journal.settle([(2, A, "x/1", receipt(record()))])
        assert path.read_bytes() == whole
    for cut in range(whole.index(b"\n")):
        path.write_bytes(whole[:cut])
        with Journal(path, KEY) as journal:
            assert (journal.done, journal.pending) == (set(), {})


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        "{}",
        "5",
        '{"format": "idtrace-receipts/v9"}',
        '{"sent": ["zz"], "issued_at": 1}',
        '{"row": 5}',
    ],
)
def test_a_damaged_line_stops_the_run_and_is_named(path: Path, line: str) -> None:
    with Journal(path, KEY):
        pass
    with path.open("a") as file:
        file.write(line + "\n")
    before = path.read_bytes()
    with pytest.raises(InputError, match="line 2 is damaged"):
        Journal(path, KEY)
    assert path.read_bytes() == before


def test_two_runs_at_once_on_one_file_are_refused(path: Path) -> None:
    with Journal(path, KEY), pytest.raises(InputError, match="another run"):
        Journal(path, KEY)
    with Journal(path, KEY):
        pass


def test_nothing_said_writes_nothing(path: Path) -> None:
    with Journal(path, KEY) as journal:
        before = path.read_bytes()
        journal.send([])
        journal.settle([])
    assert path.read_bytes() == before


def test_a_batch_is_kept_whole_until_it_is_sealed_and_its_bytes_are_the_owners_alone(path: Path) -> None:
    key, rows = "ab" * 32, [A[:16], B[:16]]
    with Journal(path, KEY) as journal:
        journal.begin_batch(key, rows, b"request")
    (kept,) = path.parent.glob("*.batch-*")
    assert kept.stat().st_mode & 0o077 == 0
    with Journal(path, KEY) as journal:
        assert journal.batches == {key: tuple(rows)}
        assert journal.request_of(key) == b"request"
        assert not journal.is_done(A)
        journal.finish_batch(key, [Place(1, "88.118.8/B", b"h" * 32, 7)], b"checkpoint\n", "sequenced")
        assert (journal.is_done(A), journal.is_done(B)) == (False, True)
    assert not kept.exists()
    with Journal(path, KEY) as journal:
        assert (journal.batches, journal.is_done(A), journal.is_done(B)) == ({}, False, True)
        assert [(str(held.identifier), held.record_hash) for held in journal.held()] == [("88.118.8/B", b"h" * 32)]


def test_a_batch_outlives_another_key_since_it_is_sent_as_it_is(path: Path) -> None:
    with Journal(path, KEY) as journal:
        journal.begin_batch("ab" * 32, [A[:16]], b"request")
    with Journal(path, signer("another")) as journal:
        assert journal.request_of("ab" * 32) == b"request"


def test_a_batch_whose_line_is_torn_never_left_and_its_bytes_are_forgotten(path: Path) -> None:
    with Journal(path, KEY) as journal:
        before = path.stat().st_size
        journal.begin_batch("ab" * 32, [A[:16]], b"request")
    whole = path.read_bytes()
    for cut in range(before, len(whole)):
        path.write_bytes(whole[:cut])
        path.with_name(f"{path.name}.batch-{'ab' * 8}").write_bytes(b"request")
        with Journal(path, KEY) as journal:
            assert journal.batches == {}
        assert list(path.parent.glob("*.batch-*")) == []


def test_a_batch_that_has_lost_its_bytes_stops_the_run(path: Path) -> None:
    with Journal(path, KEY) as journal:
        journal.begin_batch("ab" * 32, [A[:16]], b"request")
        path.with_name(f"{path.name}.batch-{'ab' * 8}").unlink()
        with pytest.raises(InputError, match="lost its bytes"):
            journal.request_of("ab" * 32)


@pytest.mark.parametrize("line", ['{"sealed": "unknown", "records": []}', '{"batch": "ab", "rows": ["zz"]}'])
def test_a_damaged_line_about_a_batch_is_named(path: Path, line: str) -> None:
    with Journal(path, KEY):
        pass
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match="line 2 is damaged"):
        Journal(path, KEY)

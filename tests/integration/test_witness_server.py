"""A witness over HTTP: it says what C2SP tlog-witness asks for, never goes back, and dies without having lied."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from idtrace.errors import OutcomeUnknownError, Reason
from idtrace.note import KeyType, Note, NoteKey, open_note
from idtrace.witnessing import REQUEST_BYTES_MAX, Accepted, AddCheckpoint, Seen, read_cosignatures
from registry.witness_store import WitnessStore
from tests.cli import idtrace
from tests.log_fixtures import NOW, ORIGIN, checkpoint, log_signer, note_signer, signed, witness_signer
from tests.registry_fixtures import until
from tests.served_log import MemoryLog
from tests.witness_fixtures import WitnessProgram, asking, request, witness

ADD = "/add-checkpoint"
TEXT, SIZE = "text/plain; charset=utf-8", "text/x.tlog.size"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with witness(tmp_path / "seen") as (url, _), asking(url) as client:
        yield client


async def cosigned(client: httpx.AsyncClient, log: MemoryLog, old: int, *keys: NoteKey) -> None:
    answer = await client.post(ADD, content=request(log, old))
    assert (answer.status_code, answer.headers["content-type"]) == (200, TEXT), answer.text
    lines = read_cosignatures(answer.content, Note.parse(log.note), keys or [witness_signer(1).key])
    assert len(lines) == max(1, len(keys))


async def refused(client: httpx.AsyncClient, body: bytes) -> tuple[int, str]:
    answer = await client.post(ADD, content=body)
    assert b"\xe2\x80\x94" not in answer.content, "a refusal carries no signature"
    assert answer.content.endswith(b"\n")
    return answer.status_code, answer.headers["content-type"]


async def test_growth_is_cosigned_and_so_is_a_repeated_request(client: httpx.AsyncClient) -> None:
    log = MemoryLog(5)
    await cosigned(client, log, 0)
    log.grow(300)
    await cosigned(client, log, 5)
    await cosigned(client, log, 300)
    log.grow(70_000)
    await cosigned(client, log, 300)
    assert (await client.get("/health")).json()["logs"] == {ORIGIN: 70_000}


async def test_the_time_of_a_cosignature_is_that_of_the_witness(client: httpx.AsyncClient) -> None:
    log = MemoryLog(5)
    lines = (await client.post(ADD, content=request(log, 0))).content
    (verified,) = open_note(Note.parse(log.note + lines), [witness_signer(1).key])
    assert verified.timestamp_seconds == NOW


async def test_a_stale_request_is_409_with_the_size_alone(client: httpx.AsyncClient) -> None:
    log = MemoryLog(5)
    await cosigned(client, log, 0)
    log.grow(9)
    for old in (0, 4, 6, 9):
        answer = await client.post(ADD, content=request(log, old))
        assert (answer.status_code, answer.headers["content-type"], answer.content) == (409, SIZE, b"5\n")
    await cosigned(client, log, 5)


async def test_forks_and_false_proofs_are_refused_and_the_state_stays(tmp_path: Path) -> None:
    log = MemoryLog(5)
    async with witness(tmp_path / "seen") as (url, pages), asking(url) as client:
        await cosigned(client, log, 0)
        fork = log.forked(3, 9)
        assert await refused(client, request(fork, 5)) == (422, TEXT)
        longer = MemoryLog(9)
        assert await refused(client, request(longer, 5, hashes=[b"\0" * 32] * 3)) == (422, TEXT)
        assert await refused(client, request(longer, 5, hashes=[])) == (422, TEXT)
        same_size = log.forked(4, 5)
        for _ in range(3):
            answer = await client.post(ADD, content=request(same_size, 5))
            assert (answer.status_code, answer.headers["content-type"]) == (409, TEXT), "another proof mends nothing"
        stranger = note_signer("stranger.example/x").sign(same_size.note.decode().partition("\n\n")[0] + "\n")
        note = Note.parse(same_size.note).signed(stranger)
        assert (await refused(client, request(same_size, 5, note=note)))[0] == 409
        assert pages.forks == 4
        await cosigned(client, longer, 5)
    with closing(WitnessStore(tmp_path / "seen")) as store:
        ((first, second),) = store.evidence(ORIGIN)
    assert (first, second) == (Note.parse(log.note), Note.parse(same_size.note))
    for note in (first, second):
        assert open_note(note, [log_signer().key])


async def test_evidence_of_a_fork_is_shown_and_exported_while_the_witness_runs(tmp_path: Path) -> None:
    program, log = WitnessProgram(tmp_path), MemoryLog(5)
    nothing = idtrace("witness", "evidence", "--config", program.config)
    assert (nothing.code, "cannot be read" in nothing.said) == (2, True)
    await program.start()
    assert idtrace("witness", "evidence", "--config", program.config, "--json").json == {"evidence": []}
    async with asking(program.url) as client:
        await cosigned(client, log, 0, program.key)
        forks = [log.forked(4, 5), log.forked(3, 5)]
        for fork in (*forks, *forks, log.forked(3, 9)):  # the last one has another size, and proves nothing by itself
            await refused(client, request(fork, 5))
    out = tmp_path / "evidence"
    export = ("witness", "evidence", "--config", program.config, "--out", out, "--json")
    assert idtrace(*export).code == 0
    shown = idtrace(*export)  # a second time it finds its files
    assert shown.code == 0, shown.said
    found = shown.json["evidence"]
    assert {one["refused"].encode() for one in found} == {fork.note for fork in forks}
    assert len(list(out.iterdir())) == 4
    for one in found:
        assert (one["log"], one["size"]) == (ORIGIN, 5)
        notes = [Note.parse((out / name).read_bytes()) for name in one["files"]]
        assert [note.encode().decode() for note in notes] == [one["cosigned"], one["refused"]]
        assert notes[0].text != notes[1].text
        for note in notes:
            assert open_note(note, [log_signer().key])
    assert (await program.end(signal.SIGTERM))[0] == 0


async def test_who_is_unknown_is_404_who_did_not_sign_403_and_what_is_malformed_400(client: httpx.AsyncClient) -> None:
    log = MemoryLog(5)
    unknown = MemoryLog(5, note_signer("unknown.example/log"))
    assert await refused(client, request(unknown, 0)) == (404, TEXT)
    impostor = signed(checkpoint(5), log=note_signer(ORIGIN, KeyType.COSIGNATURE_ED25519))
    assert await refused(client, request(log, 0, note=impostor)) == (403, TEXT)
    line = Note.parse(log.note).signatures[0]
    forged = Note(Note.parse(MemoryLog(4).note).text, (line,))
    assert await refused(client, request(log, 0, note=forged, hashes=[])) == (403, TEXT)
    body = request(log, 0)
    for malformed in (b"", b"old\n", body[4:], body.replace(b"old 0", b"old 00"), body[:-1], b"old 9" + body[5:]):
        assert await refused(client, malformed) == (400, TEXT)
    await cosigned(client, log, 0)


async def test_a_body_without_end_is_refused_before_its_end(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100 * REQUEST_BYTES_MAX:
            sent += 65_536
            yield b"x" * 65_536

    try:
        answer = await client.post(ADD, content=endless())
        assert (answer.status_code, answer.headers["connection"]) == (400, "close")
    except (httpx.WriteError, httpx.ReadError):
        pass  # the door was closed on it
    assert sent < 60 * REQUEST_BYTES_MAX
    await cosigned(client, MemoryLog(5), 0)


async def test_other_pages_and_methods_are_not_there(client: httpx.AsyncClient) -> None:
    assert (await client.get(ADD)).status_code == 405
    assert (await client.post("/", content=b"")).status_code == 404
    health = (await client.get("/health")).json()
    assert (health["status"], health["keys"]) == ("ok", [str(witness_signer(1).key)])


async def test_requests_that_cross_never_roll_the_log_back(client: httpx.AsyncClient) -> None:
    log = MemoryLog(5)
    await cosigned(client, log, 0)
    bodies = []
    for size in range(6, 26):
        log.grow(size)
        bodies.append(request(log, 5))
    answers = await asyncio.gather(*(client.post(ADD, content=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19
    (won,) = (size for size, answer in enumerate(answers, start=6) if answer.status_code == 200)
    assert {answer.text for answer in answers if answer.status_code == 409} == {f"{won}\n"}


async def test_what_the_disk_does_not_take_is_not_signed(tmp_path: Path) -> None:
    async with witness(tmp_path / "seen") as (url, pages), asking(url) as client:
        pages._store._connection.execute("PRAGMA query_only = 1")
        answer = await client.post(ADD, content=request(MemoryLog(5), 0))
        assert (answer.status_code, answer.json()["reason"]) == (503, "OUTCOME_UNKNOWN")
        pages._store._connection.execute("PRAGMA query_only = 0")
        await cosigned(client, MemoryLog(5), 0)


async def test_too_many_at_once_are_sent_away(tmp_path: Path) -> None:
    async with witness(tmp_path / "seen", in_flight_max=1) as (url, pages), asking(url) as client:
        half = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            body = request(MemoryLog(5), 0)
            yield body[:9]
            await half.wait()
            yield body[9:]

        slow = asyncio.create_task(client.post(ADD, content=slowly()))
        await until(lambda: pages._in_flight == 1)
        answer = await client.post(ADD, content=request(MemoryLog(5), 0))
        assert (answer.status_code, answer.headers["retry-after"], answer.json()["reason"]) == (503, "1", "OVERLOADED")
        half.set()
        assert (await slow).status_code == 200


async def test_two_keys_sign_each_answer_and_one_that_cannot_is_left_out(tmp_path: Path) -> None:
    signers = [witness_signer(1), witness_signer(2, KeyType.COSIGNATURE_ML_DSA_44)]
    log = MemoryLog(5)
    async with witness(tmp_path / "seen", signers) as (url, _), asking(url) as client:
        await cosigned(client, log, 0, *(signer.key for signer in signers))
        extended = signed(checkpoint(5, root=log.range.root(), extensions=("more",)))
        answer = await client.post(ADD, content=request(log, 5, note=extended))
        assert len(read_cosignatures(answer.content, extended, [signers[0].key])) == 1
        assert answer.text.count("\n") == 1
    async with witness(tmp_path / "seen", signers[1:]) as (url, _), asking(url) as client:
        assert await refused(client, request(log, 5, note=extended)) == (400, TEXT)


async def test_two_logs_and_two_keys_of_one_log_are_kept_apart(tmp_path: Path) -> None:
    other, second = note_signer("other.example/log"), note_signer(ORIGIN, KeyType.COSIGNATURE_ML_DSA_44)
    keys = [log_signer().key, other.key, second.key]
    async with witness(tmp_path / "seen", logs=keys) as (url, _), asking(url) as client:
        await cosigned(client, MemoryLog(5), 0)
        await cosigned(client, MemoryLog(7, other), 0)
        await cosigned(client, MemoryLog(9, second), 5)
        assert (await client.get("/health")).json()["logs"] == {ORIGIN: 9, "other.example/log": 7}


async def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    log = MemoryLog(5)
    async with witness(tmp_path / "seen") as (url, _), asking(url) as client:
        await cosigned(client, log, 0)
    async with witness(tmp_path / "seen") as (url, _), asking(url) as client:
        assert (await refused(client, request(log.forked(3, 5), 0)))[0] == 409
        log.grow(9)
        await cosigned(client, log, 5)


@pytest.mark.parametrize(("point", "seen"), [("judged", 5), ("stored", 9), ("signed", 9)])
async def test_a_witness_that_is_killed_on_the_way_never_goes_back(tmp_path: Path, point: str, seen: int) -> None:
    program = WitnessProgram(tmp_path)
    log = MemoryLog(5)
    await program.start()
    async with asking(program.url) as client:
        await cosigned(client, log, 0, program.key)
    assert (await program.end(signal.SIGTERM))[0] == 0
    longer, fork = MemoryLog(9), log.forked(5, 9)
    await program.start(dying_at=point)
    async with asking(program.url) as client:
        with pytest.raises(httpx.HTTPError):
            await client.post(ADD, content=request(longer, 5))
    assert (await program.ended())[0] == -signal.SIGKILL
    await program.start()
    async with asking(program.url) as client:
        answer = await client.post(ADD, content=request(longer, 0))
        assert (answer.status_code, answer.content) == (409, f"{seen}\n".encode())
        if seen == 9:
            assert (await client.post(ADD, content=request(fork, 5))).status_code == 409
            assert (await client.post(ADD, content=request(fork, 9, hashes=[]))).status_code == 409
        await cosigned(client, longer, seen, program.key)
    assert (await program.end(signal.SIGTERM))[0] == 0


async def test_a_second_witness_on_the_file_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    program = WitnessProgram(tmp_path)
    await program.start()
    code, said = await program.second()
    assert code != 0
    assert "another witness runs on this file" in " ".join(said.split())
    assert (await program.end(signal.SIGKILL))[0] == -signal.SIGKILL
    await program.start()
    code, said = await program.end(signal.SIGINT)
    assert code == 0, said


async def test_what_grew_in_between_is_no_evidence_against_the_log(tmp_path: Path) -> None:
    with closing(WitnessStore(tmp_path / "seen")) as store:
        five, nine = checkpoint(5), checkpoint(9)
        assert store.swap(Accepted(ORIGIN, Seen(), Seen(5, five.root), signed(five)))
        fork = AddCheckpoint.of(5, (), Note.parse(MemoryLog(5).forked(4, 5).note))  # judged on five, kept after nine
        assert store.swap(Accepted(ORIGIN, Seen(5, five.root), Seen(9, nine.root), signed(nine)))
        assert not store.keep_evidence(fork, NOW)
        assert store.evidence(ORIGIN) == []


async def test_a_swap_on_what_is_not_there_changes_nothing(tmp_path: Path) -> None:
    store = WitnessStore(tmp_path / "seen")
    five, nine = signed(checkpoint(5)), signed(checkpoint(9))
    to_five = Accepted(ORIGIN, Seen(), Seen(5, checkpoint(5).root), five)
    to_nine = Accepted(ORIGIN, to_five.after, Seen(9, checkpoint(9).root), nine)
    assert not store.swap(to_nine)
    assert store.swap(to_five)
    assert not store.swap(to_five)
    assert store.swap(to_nine)
    assert store.seen(ORIGIN) == to_nine.after
    store._connection.execute("BEGIN")  # as a commit that failed half-way would leave it
    with pytest.raises(OutcomeUnknownError) as caught:
        store.swap(to_nine)
    assert caught.value.reason is Reason.OUTCOME_UNKNOWN
    assert store.swap(Accepted(ORIGIN, to_nine.after, to_nine.after, nine))
    store.close()


async def test_the_state_is_on_the_disk_before_anything_is_signed(tmp_path: Path) -> None:
    store = WitnessStore(tmp_path / "seen")
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()


def test_a_key_is_made_for_its_owner_alone_and_never_over_another(tmp_path: Path) -> None:
    said = ""
    for algorithm, key_type in (
        ("ed25519", KeyType.COSIGNATURE_ED25519),
        ("ml-dsa-44", KeyType.COSIGNATURE_ML_DSA_44),
    ):
        file = tmp_path / algorithm
        made = idtrace("witness", "key", file, "--name", "w.example/1", "--algorithm", algorithm, "--json")
        assert made.code == 0, made.said
        said += made.said
        key = NoteKey.parse(made.json["vkey"])
        assert (key.name, key.type) == ("w.example/1", key_type)
        assert Path(f"{file}.pub").read_text() == f"{key}\n"
        assert file.stat().st_mode & 0o777 == 0o600
        before = file.read_bytes()
        again = idtrace("witness", "key", file, "--name", "w.example/1")
        assert again.code != 0
        assert "not overwritten" in again.said
        assert file.read_bytes() == before
    assert "PRIVATE" not in said
    bad = idtrace("witness", "key", tmp_path / "bad", "--name", "two words")
    assert bad.code != 0
    assert not (tmp_path / "bad").exists()


def test_a_configuration_that_cannot_work_is_refused_with_its_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Loggers stay what they are made first, and here that would be one that writes into a captured file.
    monkeypatch.setattr("idtrace.cli.witness.log_from", lambda _: None)
    program = WitnessProgram(tmp_path)
    whole = program.config.read_text()
    log_key, own = log_signer().key, program.key

    def said(config: str = whole, logs: str = f"log {log_key}\nquorum none\n", mode: int = 0o600) -> str:
        program.config.write_text(config)
        (tmp_path / "logs").write_text(logs)
        (tmp_path / "witness.key").chmod(mode)
        ran = idtrace("witness", "run", "--config", program.config)
        assert ran.code != 0
        return ran.said

    assert "log_levle" in said(whole + 'log_levle = "INFO"\n')
    assert "role" in said('role = "resolver"\n' + whole)
    assert "in_flight_max" in said(whole + "in_flight_max = 0\n")
    assert "nothing to witness" in said(logs="quorum none\n")
    assert "line[1]" in said(logs="log x\n")
    assert "cannot be read" in said(whole.replace('logs = "logs"', 'logs = "none"'))
    assert "chmod" in said(mode=0o644)
    assert "each key stands once" in said(whole.replace('"witness.key"', '"witness.key", "witness.key"'))
    assert "cannot listen" in said(whole.replace(program.listen, "256.0.0.1:1"))
    assert "cannot be kept" in said(whole.replace("seen.sqlite3", "no/such/folder"))
    (tmp_path / "seen.sqlite3").write_bytes(b"this is no database at all, " * 99)
    assert "cannot be used" in said()
    (tmp_path / "witness.key").write_text("PRIVATE+KEY+nonsense\n")
    assert "KEY" in said()
    assert own.type is KeyType.COSIGNATURE_ED25519

"""A log and its witnesses over HTTP: what enough of them have cosigned is kept, then published, and nothing else is."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from idtrace.checkpoint import Checkpoint
from idtrace.errors import InputError, RefusedError
from idtrace.logpolicy import LogPolicy
from idtrace.note import Note
from idtrace.witnessing import AddCheckpoint
from registry.cosigning import BACK_OFF_SECONDS_MAX
from registry.witnesses import ANSWER_BYTES_MAX, EVIDENCE_FILES_MAX, Witnesses, _write_evidence
from tests.engines.process import free_port
from tests.log_fixtures import NOW, log_signer, note_signer, witness_signer
from tests.registry_fixtures import until
from tests.served_log import MemoryLog, on_port, policy, running
from tests.witness_fixtures import WitnessProgram, witness

SECONDS = 20.0
# A witness that was away is asked again when its back-off ends, and not before.
CATCH_UP_SECONDS = BACK_OFF_SECONDS_MAX + SECONDS


@asynccontextmanager
async def asking(
    log: MemoryLog, rules: LogPolicy, folder: Path, answer_seconds: float = 5.0
) -> AsyncIterator[Witnesses]:
    """The log's side, running."""
    witnesses = Witnesses(rules, log.reading, log, folder / "evidence", lambda: NOW, answer_seconds=answer_seconds)
    async with running(witnesses.run()) as task:
        yield witnesses
        assert not task.done() or task.exception() is None, task.exception()


@asynccontextmanager
async def lying(answer: Callable[[AddCheckpoint], Awaitable[Response]]) -> AsyncIterator[str]:
    """A witness that answers as it likes."""

    async def page(request: Request) -> Response:
        return await answer(AddCheckpoint.parse(await request.body()))

    async with on_port(Starlette(routes=[Route("/add-checkpoint", page, methods=["POST"])])) as url:
        yield url


def sizes(log: MemoryLog) -> tuple[int, int]:
    """What was kept last: the size that the store was told, and that of the note."""
    assert log.kept is not None
    return log.kept[0], Checkpoint.parse(Note.parse(log.kept[1]).text).size


def evidence(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted((folder / "evidence").glob("*"))]


async def test_a_growing_log_is_witnessed_to_its_end_and_the_published_checkpoint_meets_the_policy(
    tmp_path: Path,
) -> None:
    log = MemoryLog(5)
    async with AsyncExitStack() as stack:
        urls = [
            (await stack.enter_async_context(witness(tmp_path / f"w{n}", [witness_signer(n)])))[0] for n in (1, 2, 3)
        ]
        rules = policy(*urls, quorum=2)
        witnesses = await stack.enter_async_context(asking(log, rules, tmp_path))
        assert await witnesses.until(5, SECONDS)
        for size in (6, 300, 301, 70_000, 70_001):
            log.grow(size)
            witnesses.grow()
            assert await witnesses.until(size, SECONDS)
            assert sizes(log) == (size, size)
            assert log.kept is not None
            assert rules.witnessing(Note.parse(log.kept[1]), now=NOW).met
        assert witnesses.counts.failed == witnesses.counts.forked == witnesses.counts.stale == 0
    assert log.kept_sizes == sorted(log.kept_sizes)


async def test_only_some_checkpoints_of_a_fast_log_go_out_and_the_last_one_does(tmp_path: Path) -> None:
    log = MemoryLog(1)
    async with witness(tmp_path / "w1") as (url, _), asking(log, policy(url), tmp_path) as witnesses:
        for size in range(2, 202):
            log.grow(size)
            witnesses.grow()
            await asyncio.sleep(0)
        assert await witnesses.until(201, SECONDS)
        assert witnesses.counts.asked < 100


async def test_who_waits_is_told_when_it_is_kept_and_not_before(tmp_path: Path) -> None:
    log = MemoryLog(5)
    async with witness(tmp_path / "w1") as (url, _), asking(log, policy(url), tmp_path) as witnesses:
        waiting = [asyncio.create_task(witnesses.until(size, SECONDS)) for size in (5, 3, 9)]
        assert [await task for task in waiting[:2]] == [True, True]
        assert sizes(log) == (5, 5)
        assert not waiting[2].done()
        assert await witnesses.until(9, 0.01) is False
        log.grow(9)
        witnesses.grow()
        assert await waiting[2]


async def test_what_cannot_be_kept_is_not_published_until_it_can(tmp_path: Path) -> None:
    log = MemoryLog(5)
    log.failing = OSError("the disk is full")
    async with witness(tmp_path / "w1") as (url, _), asking(log, policy(url), tmp_path) as witnesses:
        assert await witnesses.until(5, 0.5) is False
        assert (witnesses.size, log.kept_sizes) == (0, [])
        log.failing = None
        assert await witnesses.until(5, SECONDS)
    assert log.kept_sizes == [5]


@pytest.mark.timeout(240)
async def test_one_of_three_may_die_two_hold_the_log_and_it_catches_up(tmp_path: Path) -> None:
    log = MemoryLog(5)
    programs = [WitnessProgram(tmp_path / f"w{n}", f"program.example/w{n}") for n in (1, 2, 3)]
    try:
        await asyncio.gather(*(program.start() for program in programs))
        lines = [f"witness w{n} {program.key} {program.url}" for n, program in enumerate(programs)]
        rules = LogPolicy.parse("\n".join([*lines, "group g 2 w0 w1 w2", "quorum g", ""]).encode())
        clocked = Witnesses(rules, log.reading, log, tmp_path / "evidence", lambda: 4_000_000_000)
        async with running(clocked.run()):
            assert await clocked.until(5, SECONDS)
            await programs[0].end(signal.SIGKILL)
            log.grow(9)
            clocked.grow()
            assert await clocked.until(9, SECONDS), "two of three are enough"
            await programs[1].end(signal.SIGKILL)
            log.grow(300)
            clocked.grow()
            assert not await clocked.until(300, 1.5), "one of three is not"
            assert sizes(log) == (9, 9)
            log.grow(400)
            clocked.grow()
            await programs[1].start()
            assert await clocked.until(400, CATCH_UP_SECONDS), "it catches up by itself"
            assert sizes(log) == (400, 400)
            await programs[0].start()
            log.grow(500)
            clocked.grow()
            await until(lambda: log.kept is not None and len(Note.parse(log.kept[1]).signatures) == 4, CATCH_UP_SECONDS)
            assert clocked.size == 500
        assert not evidence(tmp_path)
    finally:
        for program in programs:
            await program.end(signal.SIGKILL)


async def test_a_witness_that_comes_back_is_asked_from_where_it_was(tmp_path: Path) -> None:
    log = MemoryLog(5)
    listen = f"127.0.0.1:{free_port()}"
    async with asking(log, policy(f"http://{listen}"), tmp_path) as witnesses:
        async with witness(tmp_path / "w1", listen=listen):
            assert await witnesses.until(5, SECONDS)
        log.grow(9)
        witnesses.grow()
        assert not await witnesses.until(9, 0.3)
        async with witness(tmp_path / "w1", listen=listen):
            assert await witnesses.until(9, SECONDS)


async def test_a_restarted_log_goes_on_where_it_was_and_a_forgetful_one_learns_it(tmp_path: Path) -> None:
    log = MemoryLog(5)
    async with witness(tmp_path / "w1") as (url, _):
        async with asking(log, policy(url), tmp_path) as witnesses:
            assert await witnesses.until(5, SECONDS)
        log.grow(9)
        async with asking(log, policy(url), tmp_path) as witnesses:
            await until(lambda: witnesses.size >= 5)
            assert await witnesses.until(9, SECONDS)
            assert (witnesses.counts.asked, witnesses.counts.stale) == (1, 0)
        log.kept = None
        log.grow(12)
        async with asking(log, policy(url), tmp_path) as witnesses:
            assert await witnesses.until(12, SECONDS)
            assert (witnesses.counts.asked, witnesses.counts.stale) == (2, 1)


@pytest.mark.parametrize("size", [5, 7, 4])
async def test_a_fork_is_never_published_and_kept_as_evidence(tmp_path: Path, size: int) -> None:
    """Of the same size (409), longer (422), and shorter than what was witnessed (409 with a larger size)."""
    honest = MemoryLog(5)
    async with witness(tmp_path / "w1") as (url, _):
        async with asking(honest, policy(url), tmp_path) as witnesses:
            assert await witnesses.until(5, SECONDS)
        fork = honest.forked(3, size)
        async with asking(fork, policy(url), tmp_path) as witnesses:
            await until(lambda: witnesses.counts.forked == 1, SECONDS)
            assert (witnesses.size, fork.kept) == (0, None)
    (text,) = evidence(tmp_path)
    assert fork.note.decode() in text
    assert url in text


async def test_evidence_has_both_signed_checkpoints_where_both_are_known(tmp_path: Path) -> None:
    log = MemoryLog(5)
    async with witness(tmp_path / "w1") as (url, _):
        async with asking(log, policy(url), tmp_path) as witnesses:
            assert await witnesses.until(5, SECONDS)
        fork = log.forked(3, 9)
        fork.kept = log.kept
        async with asking(fork, policy(url), tmp_path) as witnesses:
            await until(lambda: len(evidence(tmp_path)) == 1, SECONDS)
            assert witnesses.size == 5
    (text,) = evidence(tmp_path)
    first, second = text.split("refused:\n\n")[1].split("\ncosigned before:\n\n")
    assert first == fork.note.decode()
    assert log.kept is not None
    assert second == log.kept[1].decode()


def test_evidence_is_written_once_and_does_not_fill_the_disk(tmp_path: Path) -> None:
    _write_evidence(tmp_path / "fork-a.txt", b"first")
    _write_evidence(tmp_path / "fork-a.txt", b"second")
    assert (tmp_path / "fork-a.txt").read_bytes() == b"first"
    for number in range(EVIDENCE_FILES_MAX + 5):
        _write_evidence(tmp_path / f"fork-{number}.txt", b"more")
    assert len(list(tmp_path.iterdir())) == EVIDENCE_FILES_MAX


async def test_evidence_that_cannot_be_written_does_not_stop_the_log(tmp_path: Path) -> None:
    (tmp_path / "evidence").write_text("a file where the folder should be")

    async def refuses(asked: AddCheckpoint) -> Response:
        return Response(status_code=422)

    log = MemoryLog(5)
    async with (
        lying(refuses) as liar,
        witness(tmp_path / "w2", [witness_signer(2)]) as (url, _),
        asking(log, policy(liar, url, quorum=1), tmp_path) as witnesses,
    ):
        assert await witnesses.until(5, SECONDS)
        await until(lambda: witnesses.counts.forked == 1)
        log.grow(9)
        witnesses.grow()
        assert await witnesses.until(9, SECONDS)


def line(asked: AddCheckpoint, number: int = 1, at: int = NOW) -> bytes:
    return witness_signer(number).sign(asked.note.text, at).line.encode()


async def hangs(asked: AddCheckpoint) -> Response:
    await asyncio.Event().wait()
    return Response(line(asked))


async def drips(asked: AddCheckpoint) -> Response:
    async def body() -> AsyncIterator[bytes]:
        for byte in line(asked):
            yield bytes([byte])
            await asyncio.sleep(0.2)

    return StreamingResponse(body())


async def floods(asked: AddCheckpoint) -> Response:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(1_000):
            yield b"x" * ANSWER_BYTES_MAX

    return StreamingResponse(body())


async def bombs(asked: AddCheckpoint) -> Response:
    import gzip

    return Response(gzip.compress(line(asked) + b"\n" * 50_000_000), headers={"content-encoding": "gzip"})


async def forges(asked: AddCheckpoint) -> Response:
    body = witness_signer(1).sign(Checkpoint(log_signer().key.name, 4, b"\0" * 32).text, NOW)
    return Response(body.line.encode())


async def signs_with_another_key(asked: AddCheckpoint) -> Response:
    return Response(line(asked, 9))


async def has_the_name_and_not_the_key(asked: AddCheckpoint) -> Response:
    impostor = note_signer(witness_signer(1).key.name)
    return Response(impostor.sign(asked.note.text).line.encode())


async def never_decides(asked: AddCheckpoint) -> Response:
    size = 3 if asked.old_size != 3 else 2
    return Response(f"{size}\n".encode(), 409, {"content-type": "text/x.tlog.size"})


async def redirects(asked: AddCheckpoint) -> Response:
    return RedirectResponse("/elsewhere", 307)


async def is_from_the_future(asked: AddCheckpoint) -> Response:
    return Response(line(asked, at=NOW + 3_600))


@pytest.mark.parametrize(
    "answer",
    [
        hangs, drips, floods, bombs, forges, signs_with_another_key, has_the_name_and_not_the_key, never_decides,
        redirects, is_from_the_future,
    ],
)  # fmt: skip
async def test_a_witness_that_does_not_play_fair_counts_for_nothing_and_holds_nobody_up(
    tmp_path: Path, answer: Callable[[AddCheckpoint], Awaitable[Response]]
) -> None:
    log = MemoryLog(5)
    async with lying(answer) as liar, witness(tmp_path / "w2", [witness_signer(2)]) as (url, _):
        async with asking(log, policy(liar, url, quorum=1), tmp_path, answer_seconds=1.0) as witnesses:
            assert await witnesses.until(5, SECONDS)
            await until(lambda: witnesses.counts.failed > 0, SECONDS)
            log.grow(9)
            witnesses.grow()
            assert await witnesses.until(9, SECONDS)
            assert log.kept is not None
            assert {one.name for one in Note.parse(log.kept[1]).signatures} == {
                log.signer.key.name,
                "witness.example/w2",
            }
        alone = MemoryLog(5)
        async with asking(alone, policy(liar), tmp_path, answer_seconds=0.5) as witnesses:
            await until(lambda: witnesses.counts.failed > 0, SECONDS)
            assert (alone.kept, witnesses.size) == (None, 0)
    assert not evidence(tmp_path)


async def test_a_witness_that_is_not_there_or_does_not_know_us_holds_nobody_up(tmp_path: Path) -> None:
    log = MemoryLog(5)
    async with (
        witness(tmp_path / "w2", [witness_signer(2)], logs=[note_signer("other.example/log").key]) as (stranger, _),
        witness(tmp_path / "w3", [witness_signer(3)]) as (url, _),
        asking(log, policy(f"http://127.0.0.1:{free_port()}", stranger, url, quorum=1), tmp_path) as witnesses,
    ):
        assert await witnesses.until(5, SECONDS)
        await until(lambda: witnesses.counts.failed >= 2)
        assert not await witnesses.until(6, 0.6)


async def test_a_proof_that_cannot_be_made_is_the_log_s_own_failure_and_is_tried_again(tmp_path: Path) -> None:
    log = MemoryLog(5)
    async with witness(tmp_path / "w1") as (url, _), asking(log, policy(url), tmp_path) as witnesses:
        assert await witnesses.until(5, SECONDS)
        rows, log_tile = log.rows, log.log_tile

        async def gone(level: int, index: int) -> bytes | None:
            return None

        log.grow(9)
        log.log_tile = gone  # type: ignore[method-assign] # the store has lost its tiles
        witnesses.grow()
        await until(lambda: witnesses.counts.failed > 0)
        with pytest.raises(RefusedError):
            await log.reading.consistency(5, 9)
        log.log_tile = log_tile  # type: ignore[method-assign] # and found them
        assert await witnesses.until(9, SECONDS)
        assert rows


async def test_proxies_of_the_environment_are_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    log = MemoryLog(5)
    async with witness(tmp_path / "w1") as (url, _), asking(log, policy(url), tmp_path) as witnesses:
        assert await witnesses.until(5, SECONDS)


def test_a_policy_without_addresses_is_refused_when_the_node_is_built(tmp_path: Path) -> None:
    log = MemoryLog(5)
    with pytest.raises(InputError):
        Witnesses(policy(""), log.reading, log, tmp_path, lambda: NOW)

"""The log over HTTP: what the specification names is there, what is not there says so, nothing is cached wrongly."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import httpx
import pytest

from idtrace.checkpoint import Checkpoint
from idtrace.merkle import CompactRange, check_consistency, hash_leaf
from idtrace.note import Note, open_note
from idtrace.serving.http import HttpCounts, HttpLimits
from idtrace.tiles import EntryBundle, Tile, bundles_of, split_bundle, split_tile, tiles_of
from registry.log_http import LogPages, serve_log, takes_gzip
from tests.log_fixtures import log_signer
from tests.served_log import MemoryLog, on_port

SIZE = 70_000


@pytest.fixture(scope="module")
def log() -> MemoryLog:
    return MemoryLog(SIZE)


@pytest.fixture
async def client(log: MemoryLog) -> AsyncIterator[httpx.AsyncClient]:
    pages = LogPages(log.reading, log, has_witnesses=False)
    async with on_port(pages.application()) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        yield client


async def test_a_reader_who_has_only_the_key_gets_every_entry_and_the_signed_root(
    client: httpx.AsyncClient, log: MemoryLog
) -> None:
    note = Note.parse((await client.get("/checkpoint")).content)
    open_note(note, [log_signer().key])
    checkpoint = Checkpoint.parse(note.text)
    entries: list[bytes] = []
    for bundle in bundles_of(checkpoint.size):
        entries += split_bundle(bundle, (await client.get(bundle.path)).content)
    assert CompactRange().extend([hash_leaf(entry) for entry in entries]).root() == checkpoint.root
    hashes = {tile: split_tile(tile, (await client.get(tile.path)).content) for tile in tiles_of(checkpoint.size)}
    assert hashes[Tile(0, 1)][0] == hash_leaf(entries[256])
    assert len(hashes) == 274 + 2 + 1


async def test_proofs_from_the_same_reading_hold(log: MemoryLog) -> None:
    old = MemoryLog(12_345)
    proof = await log.reading.consistency(12_345, SIZE)
    check_consistency(12_345, old.range.root(), SIZE, log.range.root(), proof)


async def test_what_never_changes_is_cached_for_ever_and_the_checkpoint_never(client: httpx.AsyncClient) -> None:
    full, partial = await client.get("/tile/0/000"), await client.get("/tile/0/273.p/112")
    assert full.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert partial.headers["cache-control"] == "public, max-age=60, immutable"
    assert (full.headers["content-type"], len(full.content)) == ("application/octet-stream", 8_192)
    checkpoint = await client.get("/checkpoint")
    assert checkpoint.headers["cache-control"] == "no-cache"
    assert checkpoint.headers["content-type"] == "text/plain; charset=utf-8"
    narrower = await client.get("/tile/0/273.p/111")
    assert narrower.content == partial.content[:-32]


@pytest.mark.parametrize("path", ["/checkpoint", "/tile/0/000", "/tile/entries/000"])
async def test_who_has_it_already_gets_304_and_head_gets_no_body(client: httpx.AsyncClient, path: str) -> None:
    whole = await client.get(path)
    etag = whole.headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await client.get(path, headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert again.headers["cache-control"] == whole.headers["cache-control"]
    assert (await client.get(path, headers={"if-none-match": '"other"'})).content == whole.content
    head = await client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]


async def test_bundles_are_packed_where_asked_and_nothing_else_is(client: httpx.AsyncClient, log: MemoryLog) -> None:
    plain = await client.get("/tile/entries/000", headers={"accept-encoding": "identity"})
    async with client.stream("GET", "/tile/entries/000", headers={"accept-encoding": "gzip"}) as packed:
        raw = b"".join([piece async for piece in packed.aiter_raw()])
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == plain.headers["vary"] == "accept-encoding"
    assert gzip.decompress(raw) == plain.content
    assert packed.headers["etag"] != plain.headers["etag"]
    assert split_bundle(EntryBundle(0), plain.content) == tuple(log.entries[:256])
    tile = await client.get("/tile/0/000", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in tile.headers
    assert "vary" not in tile.headers


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        ("", False),
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("x-gzip", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzip;q=0.001", True),
        ("*", False),
        ("identity", False),
        (",;,", False),
    ],
)
def test_gzip_is_taken_only_by_who_says_so(asked: str, taken: bool) -> None:
    assert takes_gzip(asked) is taken


NOT_THERE = [
    "/",
    "/checkpoint/",
    "/tile",
    "/tile/",
    "/tile/0/274",  # not yet
    "/tile/0/273",  # not full yet
    "/tile/0/273.p/113",
    "/tile/3/000",
    "/tile/entries/273",
    "/tile/entries/274.p/1",
    "/tile/64/000",
    "/tile/-1/000",
    "/tile/0/0",
    "/tile/0/000.p/256",
    "/tile/0/000.p/0",
    "/tile/0/x000/000",
    "/tile/0/%30%30%30",  # a second name for one thing
    "/tile/0/../../checkpoint",
    "/tile/0/000/",
    "/tile/data/000",
    "/tile/" + "x001/" * 400 + "000",
    "/tile/0/x999/x999/x999/x999/x999/x999/999",
]


async def test_what_is_not_there_is_404_with_a_reason_and_stays_in_no_cache(client: httpx.AsyncClient) -> None:
    for path in NOT_THERE:
        answer = await client.get("/", extensions={"target": path.encode()})  # as it stands, without tidying
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert (answer.json()["status"], answer.json()["title"]) == (404, "Not Found")
        assert "max-age" not in answer.headers.get("cache-control", "")


async def test_only_reading_is_possible(client: httpx.AsyncClient) -> None:
    for path in ("/checkpoint", "/tile/0/000"):
        for method in ("POST", "PUT", "DELETE"):
            answer = await client.request(method, path)
            assert (answer.status_code, answer.json()["title"]) == (405, "Method Not Allowed")
            assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


async def test_with_witnesses_only_what_they_have_cosigned_is_the_checkpoint() -> None:
    log = MemoryLog(10)
    async with (
        on_port(LogPages(log.reading, log, has_witnesses=True).application()) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        nothing = await client.get("/checkpoint")
        assert (nothing.status_code, nothing.headers["cache-control"]) == (404, "no-store")
        await log.put_witnessed(10, log.note)
        witnessed = log.note
        log.grow(20)
        assert (await client.get("/checkpoint")).content == witnessed
        assert len((await client.get("/tile/0/000.p/20")).content) == 20 * 32


async def test_an_empty_log_has_no_checkpoint() -> None:
    log = MemoryLog()
    async with (
        on_port(LogPages(log.reading, log, has_witnesses=False).application()) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        assert (await client.get("/checkpoint")).status_code == 404
        log.grow(1)
        assert (await client.get("/checkpoint")).content == log.note


async def test_a_store_that_fails_or_hangs_is_an_error_and_the_port_lives(log: MemoryLog) -> None:
    broken = MemoryLog(300)

    async def fails(first: int, count: int) -> list[bytes]:
        raise OSError("the disk is gone, and so is /secret/path")

    async def hangs(level: int, index: int) -> bytes | None:
        await asyncio.sleep(60)
        return None

    broken.log_entries, broken.log_tile = fails, hangs  # type: ignore[method-assign] # faults are planted
    counts, limits = HttpCounts(), HttpLimits(request_seconds=0.3)
    async with (
        on_port(
            LogPages(broken.reading, broken, has_witnesses=False).application(), limits=limits, counts=counts
        ) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        failed = await client.get("/tile/entries/000")
        assert (failed.status_code, failed.json()["reason"]) == (500, "INTERNAL")
        assert "secret" not in failed.text
        late = await client.get("/tile/0/000")
        assert (late.status_code, late.headers["connection"]) == (503, "close")
        assert (await client.get("/checkpoint")).status_code == 200
    assert (counts.failed, counts.timed_out, counts.by_status) == (1, 1, {500: 1, 503: 1, 200: 1})


async def test_serve_log_says_where_it_listens_and_ends_when_told(log: MemoryLog) -> None:
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    pages = LogPages(log.reading, log, has_witnesses=False)
    serving = asyncio.create_task(serve_log(pages, "127.0.0.1:0", stop=stop, on_ready=ready.set_result))
    host, _, port = (await ready).rpartition(":")
    assert host == "127.0.0.1"
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"http://127.0.0.1:{port}/checkpoint")).status_code == 200
        stop.set()
        await asyncio.wait_for(serving, 5)
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://127.0.0.1:{port}/checkpoint")

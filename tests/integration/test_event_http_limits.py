"""EPCIS over HTTP under hostile hands: who may write, what a page's token opens, and how much anyone may cost."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from idtrace.errors import InputError
from registry import event_http_capture, event_http_edge, event_http_queries
from registry.capturing import Capturing
from tests.capture_fixtures import observed
from tests.event_http_fixtures import READER, Site, epcis_site
from tests.unit.epcis.events import document


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with epcis_site(tmp_path, reading="token") as opened:
        yield opened


async def test_without_a_token_nothing_is_written_and_nothing_read_where_reading_needs_one(site: Site) -> None:
    for header in ("", "Bearer", "Basic dTpw", "Bearer wrong-token-0123456789abcdef-0123", "bearer \xff"):
        for method, path in (
            ("POST", "/capture"),
            ("POST", "/events"),
            ("GET", "/capture"),
            ("POST", "/queries"),
            ("DELETE", "/queries/x"),
            ("GET", "/events"),
            ("GET", "/epcs"),
            ("GET", "/queries/x/events"),
            ("DELETE", "/nextPageToken/x"),
        ):
            answer = await site.client.request(method, path, headers=[(b"authorization", header.encode("latin-1"))])
            told = answer.json()
            assert (answer.status_code, told["type"]) == (401, "epcisException:SecurityException"), (method, path)
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert "writer-token" not in answer.text
    assert (await site.client.get("/events", headers={"authorization": f"bearer {READER}"})).status_code == 200


async def test_where_reading_is_open_only_writing_needs_a_token(tmp_path: Path) -> None:
    async with epcis_site(tmp_path, reading="open") as site, httpx.AsyncClient(trust_env=False) as anyone:
        assert (await anyone.get(f"{site.url}/events")).status_code == 200
        assert (await anyone.get(f"{site.url}/capture/unknown")).status_code == 404
        for method, path in (("POST", "/capture"), ("POST", "/events"), ("GET", "/capture"), ("POST", "/queries")):
            assert (await anyone.request(method, site.url + path)).status_code == 401


async def captured(site: Site, count: int) -> None:
    job = await site.captured(document(*(observed(number) for number in range(count))))
    assert job["capturedCount"] == count


async def test_pages_go_on_where_a_restart_has_found_their_reader(site: Site) -> None:
    await captured(site, 10)
    first = await site.client.get("/events", params={"perPage": 4, "EQ_bizStep": "inspecting"})
    assert "gs1-next-page-token-expires" in first.headers
    await site.node.end()
    await site.node.start()
    seen = [first]
    while "next" in seen[-1].links:
        seen.append(await site.client.get(seen[-1].links["next"]["url"]))
        assert seen[-1].status_code == 200
    things = [
        one["epcList"][0]
        for page in seen
        for one in page.json()["epcisBody"]["queryResults"]["resultsBody"]["eventList"]
    ]
    assert len(things) == len(set(things)) == 10


async def test_a_token_opens_only_the_request_that_it_continues_and_nothing_once_it_is_changed_or_deleted(
    site: Site,
) -> None:
    await captured(site, 3)
    answer = await site.client.get("/events", params={"perPage": 1, "EQ_bizStep": "inspecting"})
    url = answer.links["next"]["url"]
    token = httpx.URL(url).params["nextPageToken"]
    changed = ("B" if token[0] == "A" else "A") + token[1:]
    for parameters in (
        {"perPage": "1", "EQ_bizStep": "storing", "nextPageToken": token},
        {"perPage": "1", "nextPageToken": token},
        {"perPage": "1", "EQ_bizStep": "inspecting", "nextPageToken": changed},
        {"perPage": "1", "EQ_bizStep": "inspecting", "nextPageToken": token[:-4]},
        {"perPage": "1", "EQ_bizStep": "inspecting", "nextPageToken": ""},
        {"perPage": "1", "EQ_bizStep": "inspecting", "nextPageToken": "é" * 10},
    ):
        told = (await site.client.get("/events", params=parameters)).json()
        assert (told["status"], told["field"]) == (400, "nextPageToken"), parameters
        assert told["type"] == "epcisException:QueryParameterException"
    twice = await site.client.get(f"{url}&nextPageToken={token}")
    assert twice.status_code == 400
    elsewhere = await site.client.get("/bizSteps", params={"nextPageToken": token})
    assert elsewhere.status_code == 400
    assert (await site.client.get(url)).status_code == 200
    assert (await site.client.delete(f"/nextPageToken/{changed}")).status_code == 400
    assert (await site.client.delete(f"/nextPageToken/{token}")).status_code == 204
    assert (await site.client.get(url)).status_code == 410


async def test_jobs_are_listed_in_pages_the_latest_first(site: Site) -> None:
    for number in range(3):
        await site.captured(document(observed(number)))
    one = await site.client.get("/capture", params={"perPage": 2})
    two = await site.client.get(one.links["next"]["url"])
    jobs = [job["captureID"] for page in (one, two) for job in page.json()]
    assert len(jobs) == len(set(jobs)) == 3
    assert "next" not in two.links
    assert (await site.client.get("/capture", params={"since": "x"})).status_code == 400


async def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not(site: Site) -> None:
    large = b"[" + b" " * (8 * 1024 * 1024)
    announced = await site.post("/capture", large)
    assert (announced.status_code, announced.json()["type"]) == (413, "epcisException:CaptureLimitExceededException")

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield b" " * 1_048_576

    headers = {"content-type": "application/json"}
    chunked = await site.client.post("/capture", content=pieces(), headers=headers)
    assert chunked.status_code == 413
    many = document(*({} for _ in range(2_001)))
    too_many = await site.post("/capture", many)
    assert (too_many.status_code, too_many.json()["type"]) == (413, "epcisException:CaptureLimitExceededException")
    assert (await site.client.get("/events")).status_code == 200


async def test_who_sends_much_still_hears_why_it_is_refused(site: Site) -> None:
    large = b"[" + b" " * (6 * 1024 * 1024)
    for headers, status in (
        ({"authorization": "Bearer wrong-token-0123456789abcdef-0123"}, 401),
        ({"content-type": "text/csv"}, 415),
        ({"gs1-epcis-version": "1.2"}, 406),
        ({"gs1-capture-error-behaviour": "x"}, 400),
    ):
        answer = await site.client.post(
            "/capture", content=large, headers={"content-type": "application/json"} | headers
        )
        assert answer.status_code == status
        assert answer.json()["status"] == status


async def test_bodies_under_way_are_bounded_together_and_those_that_end_make_room(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = asyncio.Event()
    born = Capturing.capture_items

    async def waits(self: Capturing, *parts: Any, **more: Any) -> Any:
        await held.wait()
        return await born(self, *parts, **more)

    monkeypatch.setattr(Capturing, "capture_items", waits)
    monkeypatch.setattr(event_http_capture, "JOBS_AT_ONCE", 4)
    jobs = [await site.post("/capture", document(observed(number))) for number in range(4)]
    assert {answer.status_code for answer in jobs} == {202}
    busy = await site.post("/capture", document(observed(9)))
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
    monkeypatch.setattr(event_http_capture, "JOBS_AT_ONCE", 1_000)
    pad = b" " * 4_000_000
    large = [await site.post("/capture", json.dumps(document(observed(number))).encode() + pad) for number in range(5)]
    assert [answer.status_code for answer in large] == [202, 202, 202, 202, 503]
    held.set()
    for _ in range(200):
        again = await site.post("/capture", json.dumps(document(observed(1))).encode() + pad)
        if again.status_code == 202:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("what has ended makes no room")


async def test_a_client_that_never_ends_its_body_is_let_go_and_leaves_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_http_edge.Timed.__init__, "__defaults__", (0.3,))
    await site.node.end()
    await site.node.start()
    host, port = site.url.removeprefix("http://").split(":")
    head = f"POST /capture HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {READER}\r\ncontent-type: application/json\r\n"
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{head}content-length: 1000\r\n\r\n{{".encode())
    await writer.drain()
    async with asyncio.timeout(10):
        answer = await reader.read()
    assert b" 503 " in answer.split(b"\r\n", 1)[0]
    writer.close()
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{head}content-length: 1000\r\n\r\n{{".encode())
    await writer.drain()
    writer.close()
    assert (await site.client.get("/capture")).json() == []


async def test_a_node_without_a_key_for_others_says_so_and_still_answers_readers(tmp_path: Path) -> None:
    async with epcis_site(tmp_path, capture={}) as site:
        for path in ("/capture", "/events"):
            answer = await site.post(path, document(observed(1)))
            assert (answer.status_code, answer.json()["reason"]) == (501, "CAPTURE_UNSIGNED")
        assert await site.all_events("/events") == []


async def test_jobs_that_the_end_of_the_node_cuts_short_say_so_after_the_next_start(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(self: Capturing, *parts: Any, **more: Any) -> Any:
        return await self.under_job(asyncio.Event().wait, rollback=True, job=more["job"])  # type: ignore[arg-type] # hangs

    monkeypatch.setattr(event_http_capture, "DRAIN_SECONDS", 0.1)
    with monkeypatch.context() as patched:
        patched.setattr(Capturing, "capture_items", never)
        answer = await site.post("/capture", document(observed(1)))
        assert answer.status_code == 202
        await site.node.end()
    await site.node.start()
    job = (await site.client.get(answer.headers["location"])).json()
    assert (job["running"], job["success"]) == (False, False)
    assert job["errors"][0]["reason"] == "OUTCOME_UNKNOWN"
    assert (await site.captured(document(observed(1))))["success"]


async def test_what_fails_within_is_told_as_a_failure_and_nothing_more(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(self: object, request: object) -> None:
        raise OSError("the disk is gone, and so is /secret/path")

    monkeypatch.setattr(event_http_queries.QueryPages, "get_queries", fails)
    await site.node.end()
    await site.node.start()
    answer = await site.client.get("/queries")
    assert (answer.status_code, answer.json()["type"]) == (500, "epcisException:ImplementationException")
    assert "secret" not in answer.text
    assert (await site.client.get("/events")).status_code == 200


async def test_a_node_whose_address_is_taken_ends_and_says_so(site: Site) -> None:
    await site.node.end()
    with socket.create_server(("127.0.0.1", int(site.url.rpartition(":")[2]))):
        await site.node.start()
        assert site.node.task is not None
        with pytest.raises(InputError, match="cannot listen"):
            await asyncio.wait_for(site.node.task, 10)
    await site.node.start()
    assert (await site.client.get("/events")).status_code == 200

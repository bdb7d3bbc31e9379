"""Stored queries over HTTP: kept through a restart, bounded, run in pages, and followed without loss or repetition."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from idtrace.errors import InputError
from registry import event_http_queries, event_http_stream
from registry.event_http_queries import QUERIES_MAX
from tests.capture_fixtures import observed
from tests.event_http_fixtures import JSON, TOKEN, Site, epcis_site, events_in
from tests.unit.epcis.events import document

STREAM = {"accept": "text/event-stream"}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with epcis_site(tmp_path) as opened:
        yield opened


async def stored(site: Site, name: str = "inspected", **query: Any) -> httpx.Response:
    answer = await site.post("/queries", {"name": name, "query": query or {"EQ_bizStep": ["inspecting"]}}, JSON)
    assert answer.status_code == 201, answer.text
    return answer


async def captured(site: Site, *numbers: int, **fields: Any) -> None:
    job = await site.captured(document(*(observed(number, **fields) for number in numbers)))
    assert job["capturedCount"] == len(numbers)


def number_of(event: dict[str, Any]) -> int:
    return int(event["epcList"][0].rpartition("-")[2])


@asynccontextmanager
async def following(
    site: Site, name: str = "inspected", last: str = ""
) -> AsyncIterator[AsyncIterator[tuple[str, int | None]]]:
    """``(id, number of the thing)`` of each message; None where it has only a place."""
    headers = STREAM | ({"last-event-id": last} if last else {})

    async def messages(answer: httpx.Response) -> AsyncIterator[tuple[str, int | None]]:
        place, number = "", None
        async for line in answer.aiter_lines():
            field, _, value = line.partition(": ")
            if field == "id":
                place = value
            elif field == "data":
                (event,) = events_in(json.loads(value))
                number = number_of(event)
            elif line == "":
                yield place, number
                place, number = "", None

    async with site.client.stream("GET", f"/queries/{name}/events", headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        async with asyncio.timeout(30), aclosing(messages(answer)) as told:  # type: ignore[type-var] # a generator
            yield told


async def heard(told: AsyncIterator[tuple[str, int | None]], count: int) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    while len(found) < count:
        place, number = await anext(told)
        if number is not None:
            found.append((place, number))
    return found


async def test_a_stored_query_is_kept_through_a_restart_until_it_is_deleted(site: Site) -> None:
    answer = await stored(site)
    assert answer.headers["location"] == "/queries/inspected"
    await captured(site, *range(5))
    await captured(site, 9, bizStep="storing")
    await site.node.end()
    await site.node.start()
    assert (await site.client.get("/queries/inspected")).json() == answer.json()
    assert answer.json()["query"] == {"EQ_bizStep": ["inspecting"]}
    pages = await site.pages("/queries/inspected/events", perPage=2)
    assert [len(page) for page in pages] == [2, 2, 1]
    assert sorted(number_of(one) for page in pages for one in page) == [0, 1, 2, 3, 4]
    again = await site.post("/queries", {"name": "inspected", "query": {}}, JSON)
    assert (again.status_code, again.json()["type"]) == (409, "epcisException:ResourceAlreadyExistsException")
    assert (await site.client.delete("/queries/inspected")).status_code == 204
    for method, path in (("GET", ""), ("GET", "/events"), ("DELETE", ""), ("GET", "/subscriptions")):
        gone = await site.client.request(method, f"/queries/inspected{path}")
        assert (gone.status_code, gone.json()["type"]) == (404, "epcisException:NoSuchResourceException")


async def test_of_a_thousand_stored_queries_those_above_the_bound_are_refused(site: Site) -> None:
    told = [
        (await site.post("/queries", {"name": f"q{number:04}", "query": {"EQ_action": "ADD"}}, JSON)).status_code
        for number in range(1_000)
    ]
    assert told == [201] * QUERIES_MAX + [507] * (1_000 - QUERIES_MAX)
    names: list[str] = []
    answer = await site.client.get("/queries", params={"perPage": 100})
    while True:
        names += [one["name"] for one in answer.json()]
        if "next" not in answer.links:
            break
        answer = await site.client.get(answer.links["next"]["url"])
    assert names == [f"q{number:04}" for number in range(QUERIES_MAX)]
    await site.client.delete("/queries/q0000")
    assert (await site.post("/queries", {"name": "another", "query": {}}, JSON)).status_code == 201


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, "query"),
        (b"[]", 400, "query"),
        (b'{"name": "a", "name": "b", "query": {}}', 400, "query.name"),
        ({"name": "a/b", "query": {}}, 400, "name"),
        ({"name": "", "query": {}}, 400, "name"),
        ({"name": "x" * 65, "query": {}}, 400, "name"),
        ({"query": {}}, 400, "name"),
        ({"name": "a"}, 400, "query"),
        ({"name": "a", "query": {}, "dest": "https://example.com"}, 400, "dest"),
        ({"name": "a", "query": {"EQ_bizstep": "x"}}, 400, "EQ_bizstep"),
        ({"name": "a", "query": {"GE_eventTime": 5}}, 400, "GE_eventTime"),
        ({"name": "a", "query": {"nextPageToken": "x"}}, 400, "nextPageToken"),
        ({"name": "a", "query": {"EQ_eventID": ["x" * 2_000] * 40}}, 413, "body"),
        ({"name": "a", "query": {"MATCH_epc": ["x"] * 2_000}}, 400, "MATCH_epc"),
    ],
)
async def test_a_definition_that_is_malformed_is_refused_with_the_place(
    site: Site, body: Any, status: int, field: str
) -> None:
    answer = await site.post("/queries", body, JSON)
    assert (answer.status_code, answer.json()["field"]) == (status, field), answer.text
    assert (await site.client.get("/queries")).json() == []


async def test_numbers_of_a_definition_stay_what_they_were(site: Site) -> None:
    query = {"GE_value_CEL": 0.1, "eventCountLimit": 3}
    await stored(site, "cold", **query)
    assert (await site.client.get("/queries/cold")).json()["query"] == query
    assert (await site.client.get("/queries/cold/events")).status_code == 200
    assert (await site.post("/queries", b"{}", "text/plain")).status_code == 415


async def test_webhooks_are_refused_with_the_way_that_there_is(site: Site) -> None:
    await stored(site)
    for method, path in (("POST", ""), ("GET", ""), ("GET", "/1"), ("DELETE", "/1")):
        answer = await site.client.request(method, f"/queries/inspected/subscriptions{path}", content=b"{}")
        assert (answer.status_code, answer.json()["type"]) == (501, "epcisException:SubscribeNotPermittedException")
        assert "text/event-stream" in answer.json()["detail"]
    odd = await site.client.get("/queries/inspected/events", params={"EQ_bizStep": "storing"})
    assert (odd.status_code, odd.json()["field"]) == (400, "EQ_bizStep")


async def test_a_stream_tells_each_new_event_once_in_order_also_over_reconnects_and_a_restart(site: Site) -> None:
    await stored(site)
    await captured(site, 1, 2)
    all_heard: list[tuple[str, int]] = []
    async with following(site) as told:
        place, nothing = await anext(told)
        assert nothing is None
        await captured(site, 3, 4)
        await captured(site, 50, bizStep="storing")
        all_heard += await heard(told, 2)
    await captured(site, 5, 6, 7)  # while nobody listens
    async with following(site, last=all_heard[-1][0]) as told:
        all_heard += await heard(told, 1)
    await site.node.end()
    await site.node.start()
    await captured(site, 8)
    async with following(site, last=all_heard[-1][0]) as told:
        all_heard += await heard(told, 3)
    assert sorted(number for _, number in all_heard) == [3, 4, 5, 6, 7, 8]
    assert [int(one) for one, _ in all_heard] == sorted({int(one) for one, _ in all_heard})
    async with following(site, last="0") as told:
        assert sorted(number for _, number in await heard(told, 8)) == list(range(1, 9))
    async with following(site, last=place) as told:
        assert [number for _, number in await heard(told, 6)] == [number for _, number in all_heard]


async def test_a_place_that_there_is_not_is_refused(site: Site) -> None:
    await stored(site)
    for last in ("x", "-1", "9" * 18, "9" * 19, "1.5"):
        answer = await site.client.get("/queries/inspected/events", headers=STREAM | {"last-event-id": last})
        assert (answer.status_code, answer.json()["field"]) == (400, "last-event-id"), last
    assert (await site.client.get("/queries/none/events", headers=STREAM)).status_code == 404


async def test_streams_end_with_their_query_and_with_the_node(site: Site) -> None:
    await stored(site)
    async with following(site) as told:
        await anext(told)
        await site.client.delete("/queries/inspected")
        with pytest.raises(StopAsyncIteration):
            await heard(told, 1)
    await stored(site)
    async with following(site) as told:
        await anext(told)
        ending = asyncio.create_task(site.node.end())
        with pytest.raises(StopAsyncIteration):
            await heard(told, 1)
        await asyncio.wait_for(ending, 10)
    await site.node.start()


async def test_streams_are_bounded_and_those_that_end_make_room(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await stored(site)
    monkeypatch.setattr(event_http_queries, "STREAMS_MAX", 2)
    async with following(site) as one:
        await anext(one)
        async with following(site) as two:
            await anext(two)
            busy = await site.client.get("/queries/inspected/events", headers=STREAM)
            assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
        for _ in range(100):
            async with site.client.stream("GET", "/queries/inspected/events", headers=STREAM) as answer:
                if answer.status_code == 200:
                    return
            await asyncio.sleep(0.05)
    raise AssertionError("a stream that has ended makes no room")


async def test_who_reads_nothing_is_let_go_and_finds_the_rest_when_he_comes_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_http_stream.EventStream.__init__, "__kwdefaults__", {"slow_seconds": 0.5})
    await stored(site)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    host, port = site.url.removeprefix("http://").split(":")
    await loop.sock_connect(raw, (host, int(port)))
    head = f"GET /queries/inspected/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n"
    await loop.sock_sendall(raw, f"{head}accept: text/event-stream\r\n\r\n".encode())
    await asyncio.sleep(0.2)
    large = {"urn:example:pad": "x" * 100_000}
    for number in range(60):  # 6 MB: more than the buffers on the way hold
        assert (await site.post("/events", observed(number, **large))).status_code == 201
    received = bytearray()
    async with asyncio.timeout(20):
        while True:
            try:
                data = await loop.sock_recv(raw, 65_536)
            except ConnectionResetError:
                break
            if not data:
                break
            received += data
            await asyncio.sleep(0.05 if len(received) < 100_000 else 0)
    raw.close()
    places = [line.removeprefix("id: ") for line in received.decode(errors="ignore").splitlines() if line[:4] == "id: "]
    assert 0 < len(places) < 60
    # What has no empty line behind it has not come: no reader takes its id.
    whole = received.decode(errors="ignore").count("\n\n") - 1  # the first one is a place alone
    assert whole >= 1
    async with following(site, last=places[whole]) as told:
        rest = await heard(told, 60 - whole)
    assert [number for _, number in rest] == list(range(whole, 60))


async def test_nothing_is_lost_or_doubled_while_many_capture_and_the_reader_breaks_off_again_and_again(
    site: Site,
) -> None:
    await stored(site)
    async with following(site) as told:
        last, _ = await anext(told)

    async def many(start: int) -> None:
        for number in range(start, start + 20, 2):
            await captured(site, number, number + 1)

    capturing = asyncio.gather(*(many(start) for start in range(0, 80, 20)))
    all_heard: list[tuple[str, int]] = []
    while len(all_heard) < 80:
        async with following(site, last=all_heard[-1][0] if all_heard else last) as told:
            all_heard += await heard(told, min(7, 80 - len(all_heard)))
    await capturing
    assert sorted(number for _, number in all_heard) == list(range(80))
    places = [int(place) for place, _ in all_heard]
    assert places == sorted(set(places))


async def test_a_stream_that_the_store_cannot_serve_now_gives_its_place_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stored(site)
    with monkeypatch.context() as patched:
        patched.setattr("registry.event_stream.SUBSCRIBERS_MAX", 0)
        patched.setattr(event_http_queries, "STREAMS_MAX", 1)
        for _ in range(3):
            busy = await site.client.get("/queries/inspected/events", headers=STREAM)
            assert (busy.status_code, busy.json()["reason"]) == (503, "OVERLOADED")
    async with following(site) as told:
        await anext(told)


async def test_a_file_that_is_no_file_of_queries_keeps_the_node_from_starting(site: Site) -> None:
    await site.node.end()
    file = site.node.config.data / "stored-queries.sqlite3"
    for beside in file.parent.glob(f"{file.name}*"):
        beside.unlink()
    file.write_bytes(b"no database" * 100)
    with pytest.raises(InputError) as error:
        await site.node.start()
    assert error.value.field == str(file)
    file.unlink()
    await site.node.start()

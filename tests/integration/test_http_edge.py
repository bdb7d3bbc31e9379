"""The HTTP edge against clients that are slow, silent, greedy or malformed: each is bounded, and others are served."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from idtrace.errors import InputError
from idtrace.serving.http import HttpCounts, HttpLimits, application, serve_http
from tests.registry_fixtures import until
from tests.served_log import on_port

LIMITS = HttpLimits(connections_max=8, head_bytes_max=2_048, idle_seconds=0.3, request_seconds=1.0, drain_seconds=1)
GOOD = b"GET /page HTTP/1.1\r\nhost: x\r\n\r\n"


async def page(request: Request) -> Response:
    return Response(b"page")


async def echo(request: Request) -> Response:
    return Response(await request.body())


async def much(request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(1_000):
            yield b"x" * 1_000_000

    return StreamingResponse(body())


def pages() -> Starlette:
    routes = [Route("/page", page), Route("/echo", echo, methods=["POST"]), Route("/much", much)]
    return application(routes)


OPENED: list[Line] = []


@pytest.fixture(autouse=True)
async def closed_at_the_end() -> AsyncIterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()
    await asyncio.sleep(0)


class Line:
    """A connection on which a test says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, url: str) -> Line:
        host, _, port = url.removeprefix("http://").rpartition(":")
        line = cls(*await asyncio.open_connection(host, int(port)))
        OPENED.append(line)
        return line

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def rest(self, seconds: float = 5.0) -> bytes:
        """Everything until the other side closes."""
        try:
            return await asyncio.wait_for(self.reader.read(), seconds)
        except ConnectionResetError:
            return b""

    def close(self) -> None:
        self.writer.transport.abort()


async def test_a_connection_that_says_nothing_or_never_ends_its_header_is_closed() -> None:
    counts = HttpCounts()
    async with on_port(pages(), limits=LIMITS, counts=counts) as url:
        silent, dripping, second = [await Line.to(url) for _ in range(3)]
        await second.say(GOOD)
        head = await second.reader.readuntil(b"\r\n\r\npage")
        assert head.startswith(b"HTTP/1.1 200")

        async def drip(line: Line) -> None:
            for byte in GOOD[:-2] * 40:
                await line.say(bytes([byte]))
                await asyncio.sleep(0.05)

        drips = [asyncio.create_task(drip(line)) for line in (dripping, second)]
        ended = [await line.rest() for line in (silent, dripping, second)]
        assert ended == [b"", b"", b""]
        await asyncio.gather(*drips, return_exceptions=True)
        assert counts.idle_closed >= 3
        assert counts.requests == 1


async def test_connections_are_counted_and_those_beyond_are_refused() -> None:
    counts = HttpCounts()
    async with on_port(pages(), limits=LIMITS, counts=counts) as url:
        held = [await Line.to(url) for _ in range(LIMITS.connections_max)]
        beyond = await Line.to(url)
        await beyond.say(GOOD)
        assert await beyond.rest() == b""
        assert counts.refused_connections == 1
        for line in held:
            line.close()
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            await asyncio.sleep(0.05)
            assert (await client.get("/page")).text == "page"


async def test_who_reads_nothing_is_let_go_and_others_are_served() -> None:
    counts = HttpCounts()
    async with on_port(pages(), limits=LIMITS, counts=counts) as url:
        deaf = await Line.to(url)
        deaf.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        deaf.reader._transport.pause_reading()  # type: ignore[attr-defined] # asyncio reads ahead otherwise
        await deaf.say(b"GET /much HTTP/1.1\r\nhost: x\r\n\r\n")
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            assert (await client.get("/page")).text == "page"
        await until(lambda: counts.timed_out == 1)
        deaf.close()


async def test_a_body_that_does_not_come_ends_with_its_time() -> None:
    counts = HttpCounts()
    async with on_port(pages(), limits=LIMITS, counts=counts) as url:
        line = await Line.to(url)
        await line.say(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf")
        assert (await line.rest()).startswith(b"HTTP/1.1 503")
        assert counts.timed_out == 1


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS on a plain port
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /page\r\n\r\n",
        b"GET /page HTTP/1.1\r\n\r\n",  # no host
        b"GET /page HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 3_000 + b"\r\n\r\n",
        b"GET /" + b"y" * 3_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"GET /page HTTP/1.1\r\nhost: x\r\nx\x00: y\r\n\r\n",
    ],
)
async def test_what_is_no_request_gets_400_or_nothing_and_the_connection_ends(data: bytes) -> None:
    async with on_port(pages(), limits=LIMITS) as url:
        line = await Line.to(url)
        await line.say(data)
        said = await line.rest()
        assert not said or said.startswith(b"HTTP/1.1 4"), said
        assert b"page" not in said


async def test_an_answer_does_not_wait_for_the_client_s_acknowledgement() -> None:
    """Head and body go out in two writes, which Nagle's algorithm would hold apart by some 40 ms each time."""
    async with on_port(pages()) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        took = []
        for _ in range(20):
            began = time.perf_counter()
            await client.get("/page")
            took.append(time.perf_counter() - began)
        assert sorted(took)[len(took) // 2] < 0.03


async def test_a_stop_lets_requests_under_way_finish_and_holds_for_nobody_else() -> None:
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def slow(request: Request) -> Response:
        stop.set()
        await asyncio.sleep(0.3)
        return Response(b"done")

    app = application([Route("/slow", slow), Route("/page", page)])
    serving = asyncio.create_task(serve_http(app, "127.0.0.1:0", stop=stop, on_ready=ready.set_result))
    url = f"http://{await ready}"
    idle = await Line.to(url)
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        assert (await client.get("/slow")).text == "done"
    await asyncio.wait_for(serving, 5)
    assert await idle.rest() == b""


async def test_a_request_that_does_not_end_is_cut_off_after_the_drain() -> None:
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def endless(request: Request) -> Response:
        stop.set()
        await asyncio.sleep(60)
        return Response()

    app = application([Route("/", endless)])
    limits = HttpLimits(drain_seconds=1, request_seconds=50.0)
    serving = asyncio.create_task(serve_http(app, "127.0.0.1:0", stop=stop, on_ready=ready.set_result, limits=limits))
    line = await Line.to(f"http://{await ready}")
    await line.say(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    await asyncio.wait_for(serving, 10)
    await line.rest()


@pytest.mark.parametrize("listen", ["127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "256.1.1.1:0"])
async def test_an_address_that_cannot_be_listened_on_is_refused(listen: str) -> None:
    with pytest.raises(InputError) as caught:
        await serve_http(pages(), listen, stop=asyncio.Event())
    assert caught.value.field == "listen"


async def test_a_port_that_is_taken_is_refused_and_ipv6_is_served() -> None:
    async with on_port(pages()) as url:
        with pytest.raises(InputError):
            await serve_http(pages(), url.removeprefix("http://"), stop=asyncio.Event())
    async with on_port(pages(), "[::1]:0") as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        assert (await client.get("/page")).text == "page"

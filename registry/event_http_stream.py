"""An answer without end: pieces sent as a slow reader takes them, and no more of them kept than one.

It ends with the reader, with the node, with its query, or after ten minutes; its reader comes back with the id that he
had last. Who takes nothing for half a minute is let go.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from registry.event_http_edge import STREAM_SECONDS, allow_stream
from registry.event_http_headers import EVENT_STREAM, VERSIONS

# The socket's buffers and 64 KiB here are full then, and the reader has not taken a byte of them.
SLOW_SECONDS: Final = 30.0


class EventStream(Response):
    """Server-sent events (HTML, section 9.2). ``on_end`` is called once, however it ends."""

    def __init__(
        self,
        pieces: AsyncGenerator[bytes],
        stop: asyncio.Event,
        *,
        on_end: Callable[[EventStream], object],
        slow_seconds: float = SLOW_SECONDS,
    ) -> None:
        super().__init__(None, 200, {**VERSIONS, "cache-control": "no-store", "x-accel-buffering": "no"}, EVENT_STREAM)
        del self.headers["content-length"]
        self._pieces = pieces
        self._stop = stop
        self._on_end = on_end
        self._slow_seconds = slow_seconds
        self._ended = asyncio.Event()

    def end(self) -> None:
        """End it now."""
        self._ended.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until somebody ends it.

        Raises:
            TimeoutError: the reader takes nothing; the edge closes the connection.
        """
        allow_stream(scope)
        sending = asyncio.create_task(self._sent(send), name="event stream")
        ends = (_gone(receive), self._stop.wait(), self._ended.wait())
        waiting = [asyncio.create_task(end) for end in ends]
        try:
            done, _ = await asyncio.wait(
                {sending, *waiting}, timeout=STREAM_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if sending not in done and waiting[0] not in done:
                sending.cancel()
                await asyncio.wait({sending})
                async with asyncio.timeout(self._slow_seconds):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
            if sending in done:
                sending.result()
        finally:
            for task in (sending, *waiting):
                task.cancel()
            await asyncio.gather(sending, *waiting, return_exceptions=True)
            self._on_end(self)

    async def _sent(self, send: Send) -> None:
        async with aclosing(self._pieces) as pieces:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for piece in pieces:
                async with asyncio.timeout(self._slow_seconds):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

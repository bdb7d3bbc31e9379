"""The HTTP/1.1 edge of a node: one Starlette application behind uvicorn, with limits and an orderly end.

What uvicorn leaves open is closed here: connections are counted, a connection that says nothing (or a header byte a
minute) is let go, a request has an end, and refusals have one form, ``application/problem+json`` (RFC 9457). There is
no line in the log for a request; plain integers count them. TLS and fairness between clients are the business of the
proxy in front.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from idtrace.errors import InputError, Reason, quoted

log = structlog.get_logger(__name__)

PROBLEM_TYPE: Final = "application/problem+json"
# Connections that wait for the loop to take them; a burst, not a queue.
_BACKLOG: Final = 128
# An error message of a few hundred bytes to a client that reads takes no time at all.
_LAST_WORD_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one HTTP port takes on.

    Attributes:
        connections_max: open connections; each costs some 20 KB, and a proxy in front needs a handful.
        head_bytes_max: request line and header lines; ours have a few hundred bytes.
        idle_seconds: without a request for so long a connection is closed; also one that never ends its header.
        request_seconds: from the header of a request to the last byte of its answer.
        drain_seconds: for requests under way when the node stops.
    """

    connections_max: int = 256
    head_bytes_max: int = 8_192
    idle_seconds: float = 15.0
    request_seconds: float = 10.0
    drain_seconds: int = 3


@dataclass(slots=True)
class HttpCounts:
    """What has happened on a port since it was opened, for a page of metrics."""

    requests: int = 0
    failed: int = 0
    timed_out: int = 0
    refused_connections: int = 0
    idle_closed: int = 0
    by_status: dict[int, int] = field(default_factory=dict)


def problem(status: int, detail: str, reason: Reason | None = None, headers: dict[str, str] | None = None) -> Response:
    """A refusal as RFC 9457 writes it; ``reason`` is a member of ours."""
    body: dict[str, Any] = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if reason is not None:
        body["reason"] = reason
    return Response(json.dumps(body).encode(), status, headers, PROBLEM_TYPE)


def application(routes: Sequence[BaseRoute]) -> Starlette:
    """These pages and no others: what is not there, or fails, is said in one form, and no path has two spellings."""
    app = Starlette(routes=routes, exception_handlers={HTTPException: _problem_of, Exception: _failure})
    app.router.redirect_slashes = False
    return app


async def _problem_of(_request: Request, error: Exception) -> Response:
    """Starlette's own refusals: 404, 405."""
    assert isinstance(error, HTTPException), "registered for this class"
    return problem(error.status_code, error.detail, headers=dict(error.headers or {}))


async def _failure(_request: Request, _error: Exception) -> Response:
    """What the client hears; Starlette raises the error again, for _Guarded to log."""
    return problem(500, "the node failed; its log says why", Reason.INTERNAL, {"connection": "close"})


class _Guarded:
    """The application, told when time is up; what it raises is logged once and never shown."""

    def __init__(self, app: ASGIApp, limits: HttpLimits, counts: HttpCounts) -> None:
        self._app = app
        self._limits = limits
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                status: int = message["status"]
                self._counts.by_status[status] = self._counts.by_status.get(status, 0) + 1
            await send(message)

        self._counts.requests += 1
        if _head_bytes(scope) > self._limits.head_bytes_max:  # h11 counts only while it waits for the end
            await problem(431, "the head of the request is too long")(scope, receive, noting)
            return
        last_word: Response | None = None
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                await self._app(scope, receive, noting)
        except TimeoutError:
            self._counts.timed_out += 1
            last_word = problem(503, "the request has taken too long", headers={"connection": "close"})
        except Exception:  # the edge: whatever it is, the client hears of a failure and the node lives
            self._counts.failed += 1
            log.exception("request failed", path=quoted(scope["path"]))
        if last_word is None:
            return
        if not started:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORD_SECONDS):
                    await last_word(scope, receive, noting)
                    return
        scope.get("state", {}).get("abort", lambda: None)()


def _head_bytes(scope: Scope) -> int:
    """Bytes of the request line and the header lines, but for the method and the version."""
    lines: int = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    return lines + len(scope["raw_path"]) + len(scope["query_string"])


class _Connection(H11Protocol):
    """A connection that is one of a bounded number and does not stay without a request."""

    limits: HttpLimits
    counts: HttpCounts

    def __init__(
        self, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any], **named: Any
    ) -> None:
        super().__init__(config, server_state, {**app_state, "abort": self._abort}, **named)
        self._seen: object = None
        self._look: asyncio.TimerHandle | None = None

    def _abort(self) -> None:
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        # Head and body are two writes; without this the second waits 40 ms for the client's acknowledgement. asyncio
        # sets it itself only on sockets that were made with the protocol spelled out.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self.limits.connections_max:
            self.counts.refused_connections += 1
            transport.abort()
            return
        self._look = self.loop.call_later(self.limits.idle_seconds, self._close_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def _close_if_idle(self) -> None:
        """Close unless a request is being answered or one has come since the last look.

        uvicorn's own timer stops at the first byte of a request, so it waits for ever for the second.
        """
        answering = self.cycle is not None and not self.cycle.response_complete
        if self.cycle is self._seen and not answering:
            self.counts.idle_closed += 1
            self.transport.abort()
            return
        self._seen = self.cycle
        self._look = self.loop.call_later(self.limits.idle_seconds, self._close_if_idle)


class _Server(uvicorn.Server):
    """uvicorn without its hold on the process's signals: the node has its own, and stops all its ports together."""

    def __init__(self, config: uvicorn.Config, stop: asyncio.Event) -> None:
        super().__init__(config)
        self._stop = stop

    async def main_loop(self) -> None:
        """Renew the date header every second until told to stop; uvicorn's own looks ten times a second."""
        while not self._stop.is_set():
            await self.on_tick(0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 1.0)

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override] # a generator there
        return contextlib.nullcontext()


def _listening(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not (port.isascii() and port.isdecimal() and int(port) <= 65_535):
        raise InputError(Reason.FIELD_MALFORMED, f"{quoted(listen)} is not host:port", field="listen")
    try:
        family = socket.AF_INET6 if ":" in bare else socket.AF_INET
        return socket.create_server((bare, int(port)), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise InputError(Reason.FIELD_MALFORMED, f"cannot listen on {listen}: {error}", field="listen") from None


async def serve_http(
    app: ASGIApp,
    listen: str,
    *,
    stop: asyncio.Event,
    on_ready: Callable[[str], None] | None = None,
    limits: HttpLimits | None = None,
    counts: HttpCounts | None = None,
) -> None:
    """Serve an application on ``host:port`` (port 0: a free one) until ``stop`` is set; ``on_ready`` hears host:port.

    Raises:
        InputError: FIELD_MALFORMED where the address cannot be listened on.
    """
    bounds, counted = limits or HttpLimits(), counts or HttpCounts()
    listener = _listening(listen)
    bound = f"{listen.rpartition(':')[0]}:{listener.getsockname()[1]}"
    connection = type("Connection", (_Connection,), {"limits": bounds, "counts": counted})
    config = uvicorn.Config(
        _Guarded(app, bounds, counted),
        http=connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",  # a malformed request is the sender's business; what fails is logged by _Guarded
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=max(1, int(bounds.idle_seconds)),
        timeout_graceful_shutdown=bounds.drain_seconds,
        h11_max_incomplete_event_size=bounds.head_bytes_max,
    )
    server = _Server(config, stop)
    try:
        log.info("http ready", listen=bound)
        if on_ready is not None:
            on_ready(bound)  # connections wait in the backlog from here on
        await server.serve(sockets=[listener])
    finally:
        for left in list(server.server_state.connections):
            left.transport.abort()
        listener.close()
        log.info("http stopped", listen=bound)

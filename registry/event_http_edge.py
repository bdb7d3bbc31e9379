"""The form that all resources of the EPCIS interface share: methods, access, discovery, time, and bodies with a bound.

A request has 30 s, from its header to the last byte of its answer, but for a stream of events, which says so itself.
The bodies of all captures together are bounded, since each costs ten times its bytes once it is read: who would go
over that is asked to come again, and nobody's memory is anybody's weapon.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from idtrace.epcis.rules import DOCUMENT_BYTES_MAX
from idtrace.errors import IdtraceError
from idtrace.serving.http import HttpLimits
from registry.event_http_access import Access
from registry.event_http_headers import DISCOVERY, VERSIONS, require_versions
from registry.event_http_paging import PageTokens, Paging
from registry.event_http_problems import RETRY_AFTER_SECONDS, ProblemError, Standard, refuse

# A capture of the largest document, over a slow line, and its events checked and committed (POST /events waits).
REQUEST_SECONDS: Final = 30.0
# A stream ends then, and its reader comes back with the number that it had last: so no proxy's limit surprises it.
STREAM_SECONDS: Final = 600.0
# Two of the largest documents, or thousands of small ones; parsed they take ten times as much.
BODY_BYTES_AT_ONCE: Final = 2 * DOCUMENT_BYTES_MAX
# Of a body that is refused, before its connection is closed.
DISCARDED_BYTES_MAX: Final = 4 * DOCUMENT_BYTES_MAX
# A query definition with the longest URIs that it may name (idtrace/epcis/query.py).
SMALL_BODY_BYTES_MAX: Final = 65_536
# The path of the longest URI, every byte of it percent-encoded, and the parameters of a query beside it.
LIMITS: Final = HttpLimits(head_bytes_max=16_384, request_seconds=STREAM_SECONDS + REQUEST_SECONDS)
# Of path and query, as the standard advises servers to bound them (section 12.5); longer ones are stored queries.
TARGET_BYTES_MAX: Final = 8_192

_READ: Final = "idtrace.read"  # in a request's scope: its body has come to its end

Answer = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource: its path as Starlette writes it, and what answers each method.

    Attributes:
        reads: methods for which a caller needs what reading needs.
        writes: methods that need a token.
        discovery: what OPTIONS tells of it, to anyone.
    """

    path: str
    reads: Mapping[str, Answer] = field(default_factory=dict)
    writes: Mapping[str, Answer] = field(default_factory=dict)
    discovery: Mapping[str, str] = field(default_factory=lambda: DISCOVERY)

    def route(self, access: Access) -> Route:
        """The resource as a route; what the methods say holds for each of them alike."""
        answers = {method: (answer, access.require_reader) for method, answer in self.reads.items()}
        answers |= {method: (answer, access.require_writer) for method, answer in self.writes.items()}
        if "GET" in answers:
            answers["HEAD"] = answers["GET"]
        allow = ", ".join([*answers, "OPTIONS"])

        async def endpoint(request: Request) -> Response:
            if request.method == "OPTIONS":
                return Response(status_code=204, headers={**self.discovery, "allow": allow})
            if request.method not in answers:
                detail = f"{request.method} is not there; there are {allow}"
                raise refuse(405, Standard.IMPLEMENTATION, detail, headers={"allow": allow})
            answer, require_access = answers[request.method]
            try:
                require_access(request)
                require_versions(request)
                _require_readable(request)
                response = await answer(request)
            except (ProblemError, IdtraceError):
                await _discard(request)
                raise
            for name, value in VERSIONS.items():
                response.headers.setdefault(name, value)
            response.headers.setdefault("cache-control", "no-store")
            return response

        return Route(self.path, endpoint, methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])


def _require_readable(request: Request) -> None:
    # The token is ours, and who was given it may also send it.
    sent = [part for part in request.scope["query_string"].split(b"&") if not part.startswith(b"nextPageToken=")]
    size = len(request.scope["raw_path"]) + sum(len(part) + 1 for part in sent)
    if size > TARGET_BYTES_MAX:
        detail = f"path and parameters have {size} bytes, more than {TARGET_BYTES_MAX}: store the query (POST /queries)"
        raise refuse(414, Standard.QUERY_TOO_COMPLEX, detail, field="uri")
    try:
        unquote_to_bytes(request.scope["query_string"].replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        detail = "parameters are percent-encoded UTF-8"
        raise refuse(400, Standard.QUERY_PARAMETER, detail, field="query") from None


def path_value(request: Request, *, events: bool = True) -> tuple[str, bool]:
    """What stands behind a resource's name in the path as it was sent, and whether its events are asked for.

    ``/epcs/URI`` and, where there are such, ``/epcs/URI/events``; a URI has its slashes percent-encoded, but is
    understood where they are not.

    Raises:
        ProblemError: 404: nothing stands there, or no text.
    """
    value = request.scope["raw_path"].split(b"/", 2)[2]
    asked = events and value.endswith(b"/events")
    try:
        text = unquote(value.decode("ascii"), errors="strict").removesuffix("/events" if asked else "")
    except UnicodeDecodeError:
        text = ""
    if not text:
        raise refuse(404, Standard.NO_SUCH_RESOURCE, "a path names its resource, percent-encoded UTF-8")
    return text, asked


def paging_of(request: Request, tokens: PageTokens, now_ms: int) -> Paging:
    """The pages of a request."""
    path = request.scope["raw_path"].decode("ascii", "backslashreplace")
    return Paging(tokens, path, tuple(request.query_params.multi_items()), now_ms)


class Timed:
    """An application whose requests have a time; a stream gives itself more (:func:`allow_stream`)."""

    def __init__(self, app: ASGIApp, seconds: float = REQUEST_SECONDS) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; TimeoutError is the server's to answer (``idtrace/serving/http.py``)."""
        async with asyncio.timeout(self._seconds) as timeout:
            await self._app({**scope, "idtrace.timeout": timeout}, receive, send)


def allow_stream(scope: Scope, seconds: float = STREAM_SECONDS) -> None:
    """Let the answer of this request take as long as a stream may."""
    timeout: asyncio.Timeout = scope["idtrace.timeout"]
    timeout.reschedule(asyncio.get_running_loop().time() + seconds + REQUEST_SECONDS / 2)


class Bodies:
    """Bodies that are read or worked on, bounded together."""

    def __init__(self, at_once: int = BODY_BYTES_AT_ONCE) -> None:
        self._at_once = at_once
        self._taken = 0

    @asynccontextmanager
    async def read(self, request: Request, most: int) -> AsyncIterator[bytes]:
        """A body of at most so many bytes, which counts until the work on it has ended.

        Raises:
            ProblemError: 400 where it breaks off, 413 for one that is larger, 503 where too much is under way.
        """
        mine = 0
        pieces: list[bytes] = []
        too_much, more = _announced_refusal(request, most), True
        try:
            while more and too_much is None:
                piece, more = await _next(request)
                mine += len(piece)
                self._taken += len(piece)
                too_much = self._refusal(mine, most)
                pieces.append(piece)
            if too_much is not None:
                raise too_much
            data = b"".join(pieces)
            pieces.clear()
            yield data
        finally:
            pieces.clear()  # a refusal keeps this frame alive while the rest is discarded
            self._taken -= mine

    def _refusal(self, mine: int, most: int) -> ProblemError | None:
        if mine > most:
            return _too_large(most)
        if self._taken > self._at_once:
            headers = {"retry-after": str(RETRY_AFTER_SECONDS)}
            return refuse(503, Standard.IMPLEMENTATION, "too much is being captured; come again", headers=headers)
        return None


def _announced_refusal(request: Request, most: int) -> ProblemError | None:
    announced = request.headers.get("content-length", "0")
    fits = announced.isascii() and announced.isdecimal() and int(announced[:20]) <= most
    return None if fits else _too_large(most)


def _too_large(most: int) -> ProblemError:
    return refuse(413, Standard.CAPTURE_LIMIT, f"the body has more than {most} bytes", field="body")


async def _next(request: Request) -> tuple[bytes, bool]:
    """The next piece of a body, and whether more follow."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise refuse(400, Standard.VALIDATION, "the body breaks off", field="body")
    more: bool = message.get("more_body", False)
    request.scope[_READ] = not more
    return message.get("body", b""), more


async def _discard(request: Request) -> None:
    """Read on for a while, keeping nothing: who is still sending when a connection is closed never sees the answer."""
    left = 0 if "expect" in request.headers else DISCARDED_BYTES_MAX  # such a client asks before it sends
    with suppress(ProblemError):
        while left > 0 and request.method == "POST" and not request.scope.get(_READ):
            piece, _ = await _next(request)
            left -= len(piece)

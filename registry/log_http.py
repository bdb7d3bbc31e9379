"""The log over HTTP, as C2SP tlog-tiles lays it out: checkpoint, hash tiles, entry bundles. Anyone may read all of it.

What a path of a tile or bundle names never changes, so it is served for ever and by every cache; the checkpoint makes
the rest current, and is served anew each time. Where the log has witnesses, the checkpoint is the last one that enough
of them have cosigned: who reads the log here never sees a tree that they have not. Tiles may be ahead of it.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
from collections.abc import Callable
from typing import Final, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from idtrace.errors import InputError, RefusedError
from idtrace.serving.http import HttpCounts, HttpLimits, application, problem, serve_http
from idtrace.tiles import (
    CHECKPOINT_CACHE_CONTROL,
    CHECKPOINT_PATH,
    CHECKPOINT_TYPE,
    TILE_TYPE,
    EntryBundle,
    Tile,
    cache_control,
    parse_path,
)
from registry.log_reading import LogReading
from registry.logbook import Edge

# A bundle of 256 entries of 500 bytes takes 2 ms; what is larger would keep the loop, and goes to a thread.
GZIP_INLINE_BYTES_MAX: Final = 131_072
# Hashes do not shrink, and what fits into one packet gains nothing.
GZIP_BYTES_MIN: Final = 1_024
# Level 6 halves record bodies; above it only time is spent.
_GZIP_LEVEL: Final = 6
# 404 for a tile that will soon be there must not stay in a cache.
_NOT_YET: Final = {"cache-control": "no-store"}
_QUALITY_ZERO: Final = re.compile(r"q=0(\.0{0,3})?")


class Published(Protocol):
    """Where the checkpoints come from; see :class:`registry.storage.Storage`."""

    async def log_edge(self) -> Edge:
        """Head of the log, with its last checkpoint."""
        ...

    async def witnessed(self) -> bytes | None:
        """The last checkpoint that enough witnesses have cosigned."""
        ...


class LogPages:
    """The pages of one log. ``has_witnesses``: only what they have cosigned is shown as the checkpoint."""

    def __init__(self, reading: LogReading, published: Published, *, has_witnesses: bool) -> None:
        self._reading = reading
        self._published = published
        self._has_witnesses = has_witnesses

    def application(self) -> Starlette:
        """The log at the root of its port."""
        return application(
            [
                Route(f"/{CHECKPOINT_PATH}", self._checkpoint, methods=["GET"]),
                Route("/tile/{rest:path}", self._tile, methods=["GET"]),
            ]
        )

    async def _checkpoint(self, request: Request) -> Response:
        note = (
            await self._published.witnessed() if self._has_witnesses else (await self._published.log_edge()).head.note
        )
        if not note:
            return problem(404, "the log has no checkpoint yet", headers=_NOT_YET)
        headers = {"cache-control": CHECKPOINT_CACHE_CONTROL, "etag": _etag(note)}
        if _is_known(request.headers.get("if-none-match"), headers["etag"]):
            return Response(status_code=304, headers=headers)
        return Response(note, 200, headers, CHECKPOINT_TYPE)

    async def _tile(self, request: Request) -> Response:
        try:
            # The path as it was sent: "%30" for "0" would be a second name for one thing.
            resource = parse_path(request.scope["raw_path"].decode("ascii", "replace").removeprefix("/"))
            content = await self._content(resource)
        except (InputError, RefusedError) as error:
            return problem(404, error.detail, error.reason, _NOT_YET)
        etag = _etag(content)
        headers = {"cache-control": cache_control(resource), "etag": etag}
        packed = isinstance(resource, EntryBundle) and len(content) >= GZIP_BYTES_MIN
        if packed:
            headers["vary"] = "accept-encoding"
            if takes_gzip(request.headers.get("accept-encoding", "")):
                headers |= {"content-encoding": "gzip", "etag": f'{etag[:-1]}-gzip"'}
        if _is_known(request.headers.get("if-none-match"), headers["etag"]):
            return Response(status_code=304, headers=headers)
        if "content-encoding" in headers:
            content = await _gzipped(content)
        return Response(content, 200, headers, TILE_TYPE)

    async def _content(self, resource: Tile | EntryBundle) -> bytes:
        if isinstance(resource, Tile):
            return await self._reading.tile(resource)
        return await self._reading.bundle(resource)


def takes_gzip(accept_encoding: str) -> bool:
    """Whether a client has asked for gzip (RFC 9110 §12.5.3); "*" alone is not taken as that."""
    for one in accept_encoding.lower().split(","):
        coding, *parameters = (part.strip() for part in one.split(";"))
        if coding in {"gzip", "x-gzip"}:
            return not any(_QUALITY_ZERO.fullmatch(parameter) for parameter in parameters)
    return False


def _etag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def _is_known(if_none_match: str | None, etag: str) -> bool:
    """RFC 9110 §13.1.2: the weak comparison, for any of a list."""
    if if_none_match is None:
        return False
    known = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
    return etag in known or "*" in known


async def _gzipped(content: bytes) -> bytes:
    if len(content) <= GZIP_INLINE_BYTES_MAX:
        return gzip.compress(content, _GZIP_LEVEL, mtime=0)
    return await asyncio.to_thread(gzip.compress, content, _GZIP_LEVEL, mtime=0)


async def serve_log(
    pages: LogPages,
    listen: str,
    *,
    stop: asyncio.Event,
    on_ready: Callable[[str], None] | None = None,
    limits: HttpLimits | None = None,
    counts: HttpCounts | None = None,
) -> None:
    """Serve a log on ``host:port`` until ``stop`` is set; ``on_ready`` hears the host:port that was bound.

    Raises:
        InputError: FIELD_MALFORMED where the address cannot be listened on.
    """
    await serve_http(pages.application(), listen, stop=stop, on_ready=on_ready, limits=limits, counts=counts)

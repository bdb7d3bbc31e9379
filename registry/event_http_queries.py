"""Stored queries over HTTP (EPCIS 2.0, section 12.8): named, run in pages, and followed as streams of events.

New events are told as server-sent events (``Accept: text/event-stream``), each once and in the order of recording; the
id of each is its place there, so who comes back with ``Last-Event-ID`` hears what came after it. The standard's
webhooks are not offered: a node opens no connections to addresses that its callers choose.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, Final, NoReturn, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from idtrace.epcis.query import Query, parse
from idtrace.epcis.rules import DocumentError, Fault
from idtrace.epcis.strictjson import decode, require_sound
from idtrace.epcis.values import time_text
from idtrace.epcis.write import query_document_json
from idtrace.errors import InputError, Reason, RefusedError
from registry.event_http_edge import SMALL_BODY_BYTES_MAX, Bodies, paging_of
from registry.event_http_events import FORMS, PER_PAGE_DEFAULT, PER_PAGE_MAX, EventPages, recorded, to_bytes
from registry.event_http_headers import JSON, Form, answer_form
from registry.event_http_paging import PageTokens
from registry.event_http_problems import RETRY_AFTER_SECONDS, Standard, parameters, refuse
from registry.event_http_stream import EventStream
from registry.event_stream import EventStreams, Told

# The systems of a site have a handful each; all of them together fit into a page of 16 MB.
QUERIES_MAX: Final = 256
# Streams over HTTP at a time: half of the connections of the port, so that others always find one.
STREAMS_MAX: Final = 128
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.~-]{0,63}\Z")
_PLACE = re.compile(r"[0-9]{1,18}\Z")


@dataclass(frozen=True, slots=True)
class StoredQuery:
    """A query that somebody has named; ``definition`` is the JSON object of its parameters."""

    name: str
    created_ms: int
    definition: str


class Queries(Protocol):
    """Where stored queries are kept, durably and at most :data:`QUERIES_MAX` of them."""

    def put(self, name: str, definition: str) -> StoredQuery:
        """Keep a new query.

        Raises:
            RefusedError: QUERY_NAME_TAKEN, QUERIES_TOO_MANY.
        """
        ...

    def get(self, name: str) -> StoredQuery:
        """A query by its name.

        Raises:
            RefusedError: QUERY_UNKNOWN.
        """
        ...

    def page(self, after: str, most: int) -> list[StoredQuery]:
        """Queries by name, those after one, at most so many."""
        ...

    def delete(self, name: str) -> None:
        """Forget a query.

        Raises:
            RefusedError: QUERY_UNKNOWN.
        """
        ...


class QueryPages:
    """The resources below ``/queries``. Belongs to one event loop."""

    def __init__(
        self,
        stored: Queries,
        pages: EventPages,
        streams: EventStreams,
        tokens: PageTokens,
        now_ms: Callable[[], int],
        *,
        stop: asyncio.Event,
    ) -> None:
        self._stored = stored
        self._pages = pages
        self._streams = streams
        self._tokens = tokens
        self._now_ms = now_ms
        self._stop = stop
        self._bodies = Bodies()
        self._open: dict[str, set[EventStream]] = {}
        self._open_count = 0  # with those that are about to open

    async def post_query(self, request: Request) -> Response:
        """Store a query: 201, and where it is."""
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in {JSON, Form.JSON}:
            raise refuse(415, Standard.MEDIA_TYPE, f"a query is {JSON}", field="content-type")
        async with self._bodies.read(request, SMALL_BODY_BYTES_MAX) as data:
            name, definition = read_definition(data)
        stored = self._stored.put(name, definition)
        return JSONResponse(_query_json(stored), 201, {"location": f"/queries/{name}"})

    async def get_queries(self, request: Request) -> Response:
        """All stored queries by name, in pages."""
        paging = paging_of(request, self._tokens, self._now_ms())
        with parameters():
            paging.require_no_others()
            size = paging.size(PER_PAGE_DEFAULT, PER_PAGE_MAX)
            found = self._stored.page(paging.cursor(), size + 1)
        headers = paging.next(found[size - 1].name if len(found) > size else None)
        return JSONResponse([_query_json(one) for one in found[:size]], headers=headers)

    async def get_query(self, request: Request) -> Response:
        """One stored query."""
        return JSONResponse(_query_json(self._stored.get(request.path_params["name"])))

    async def delete_query(self, request: Request) -> Response:
        """Forget a query, and end the streams that follow it."""
        name = request.path_params["name"]
        self._stored.delete(name)
        for stream in tuple(self._open.get(name, ())):
            stream.end()
        return Response(status_code=204)

    async def get_events(self, request: Request) -> Response:
        """The events of a stored query: in pages, or as a stream of what is new."""
        stored = self._stored.get(request.path_params["name"])
        query = parse(json.loads(stored.definition), split=False)
        form = answer_form(request, (*FORMS, Form.STREAM))
        if form is Form.STREAM and request.method == "GET":
            return await self._stream(request, stored.name, query)
        with parameters():
            paging_of(request, self._tokens, self._now_ms()).require_no_others()
        return await self._pages.answer(request, query, stored.name)

    async def refuse_subscription(self, request: Request) -> NoReturn:
        """Webhooks are not offered."""
        self._stored.get(request.path_params["name"])
        detail = (
            "this node calls nobody: follow the query's events as a stream, GET /queries/{name}/events with "
            "Accept: text/event-stream, and come back with Last-Event-ID"
        )
        raise refuse(501, Standard.SUBSCRIBE_NOT_PERMITTED, detail)

    async def _stream(self, request: Request, name: str, query: Query) -> Response:
        place = last_place(request.headers.get("last-event-id", ""))
        if self._open_count >= STREAMS_MAX:
            headers = {"retry-after": str(RETRY_AFTER_SECONDS)}
            detail = f"{STREAMS_MAX} streams are open; come again"
            raise refuse(503, Standard.IMPLEMENTATION, detail, headers=headers)
        self._open_count += 1
        following = self._streams.follow(query, place)
        try:
            first = await anext(following)  # what is refused is refused with a status
        except RefusedError as error:
            self._open_count -= 1
            raise refuse(400, Standard.QUERY_PARAMETER, error.detail, field="last-event-id") from None
        except BaseException:
            self._open_count -= 1
            raise
        stream = EventStream(self._pieces(name, first, following), self._stop, on_end=partial(self._closed, name))
        self._open.setdefault(name, set()).add(stream)
        return stream

    def _closed(self, name: str, stream: EventStream) -> None:
        self._open_count -= 1
        left = self._open[name]
        left.discard(stream)
        if not left:
            del self._open[name]

    async def _pieces(self, name: str, first: Told, following: AsyncGenerator[Told]) -> AsyncGenerator[bytes]:
        async with aclosing(following):
            yield _place(first)
            async for told in following:
                for found in told.events:
                    document = to_bytes(query_document_json(name, "", [recorded(found)], self._now_ms()))
                    yield b"id: %d\ndata: %s\n\n" % (found.sequence, document)
                if not told.events:
                    yield _place(told)


def _place(told: Told) -> bytes:
    """A sign of life, with the place up to which nothing new is: every reader keeps it."""
    return b": alive\nid: %d\n\n" % told.sequence


def last_place(last_event_id: str) -> int | None:
    """The place that a reader had last; None where he begins.

    Raises:
        ProblemError: 400: no id of ours.
    """
    if not last_event_id:
        return None
    if _PLACE.match(last_event_id) is None:
        raise refuse(400, Standard.QUERY_PARAMETER, "the id is none of this node's", field="last-event-id")
    return int(last_event_id)


def read_definition(data: bytes) -> tuple[str, str]:
    """Name and parameters of a query that somebody wants stored; the parameters have been understood.

    Raises:
        InputError: the body is malformed. ProblemError: a parameter is.
    """
    try:
        body, _ = decode(data)
        require_sound(body)
    except Fault as fault:
        raise DocumentError(fault, field="query") from None
    if not isinstance(body, dict):
        raise InputError(Reason.FIELD_MALFORMED, "a query is an object with name and query", field="query")
    for member in body:
        if member not in {"name", "query"}:
            raise InputError(Reason.FIELD_MALFORMED, "a query is an object with name and query", field=member[:80])
    name, query = body.get("name"), body.get("query")
    if not isinstance(name, str) or _NAME.match(name) is None:
        rule = "a name has 1 to 64 letters, digits and characters of _.~-, and begins with one of the first two"
        raise InputError(Reason.FIELD_MALFORMED, rule, field="name")
    if not isinstance(query, dict):
        raise InputError(Reason.FIELD_MALFORMED, "the query is an object of parameters", field="query")
    definition = json.dumps(query, ensure_ascii=False, separators=(",", ":"), default=_number)
    with parameters():
        understood = parse(json.loads(definition), split=False)
    if understood.next_page_token:
        raise refuse(400, Standard.QUERY_PARAMETER, "a stored query has no page", field="nextPageToken")
    return name, definition


def _number(value: object) -> float:
    assert isinstance(value, Decimal), "the decoder makes nothing else"
    return float(value)  # exactly it, as the decoder has seen to


def _query_json(stored: StoredQuery) -> dict[str, Any]:
    return {"name": stored.name, "createdAt": time_text(stored.created_ms), "query": json.loads(stored.definition)}

"""The EPCIS interface of a node over HTTP (EPCIS 2.0, section 12): its resources, and the port that serves them.

Capture, queries, what the events name, stored queries and streams of a node's own events: the standard's way in and
out for tools that know it and nothing of idtrace. Whose events these are, that they are all there and that nobody has
changed them is told elsewhere, by their records.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from secrets import token_bytes
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from idtrace.epcis.context import STANDARD_CONTEXT
from idtrace.errors import InputError, Reason
from idtrace.identifier import Prefix
from idtrace.serving.http import HttpCounts, HttpLimits, application, serve_http
from idtrace.serving.keyfile import create_file, load_secret
from registry.capturing import Capturing
from registry.config import EventsConfig
from registry.event_http_access import Access
from registry.event_http_capture import CapturePages
from registry.event_http_edge import LIMITS, Resource, Timed
from registry.event_http_events import EventPages
from registry.event_http_headers import CAPTURE_DISCOVERY
from registry.event_http_paging import SECRET_BYTES, PageTokens
from registry.event_http_problems import add_handlers
from registry.event_http_queries import Queries, QueryPages
from registry.event_query import EventQueries
from registry.event_stream import EventStreams
from registry.event_values import ValueKind

_PAGES_FILE: Final = "event-pages.key"


class EventInterface:
    """The port of one node. Belongs to one event loop."""

    def __init__(
        self,
        config: EventsConfig,
        *,
        capturing: Capturing,
        party: Prefix | None,
        queries: EventQueries,
        streams: EventStreams,
        stored: Queries,
        data: Path,
        now_ms: Callable[[], int],
    ) -> None:
        """Read the tokens and the secret of the pages, and draw that where there is none.

        Raises:
            InputError: one of the two files cannot be used.
        """
        self._listen = config.listen
        self._access = Access.read(config.tokens, reading_open=config.reading_open)
        tokens = PageTokens(page_secret(data / _PAGES_FILE))
        self._tokens = tokens
        self._now_ms = now_ms
        self._stop = asyncio.Event()
        self._capture = CapturePages(capturing, party, tokens, now_ms)
        self._events = EventPages(queries, tokens, now_ms)
        self._queries = QueryPages(stored, self._events, streams, tokens, now_ms, stop=self._stop)

    def application(self) -> ASGIApp:
        """All resources, at the root of the port."""
        app = application([resource.route(self._access) for resource in self._resources()])
        add_handlers(app)
        return Timed(app)

    async def run(
        self,
        stop: asyncio.Event,
        on_ready: Callable[[str], None] | None = None,
        *,
        limits: HttpLimits = LIMITS,
        counts: HttpCounts | None = None,
    ) -> None:
        """Serve until ``stop`` is set; jobs under way have a while to end.

        Raises:
            InputError: the address cannot be listened on.
        """
        ending = asyncio.create_task(self._end_streams(stop))
        try:
            app = self.application()
            await serve_http(app, self._listen, stop=stop, on_ready=on_ready, limits=limits, counts=counts)
        finally:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
            self._stop.set()
            await self._capture.close()

    async def _end_streams(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._stop.set()

    def _resources(self) -> list[Resource]:
        events, capture, queries = self._events, self._capture, self._queries
        found = [
            Resource("/", reads={"GET": _root}),
            Resource(
                "/capture",
                writes={"POST": capture.post_document, "GET": capture.get_jobs},
                discovery=CAPTURE_DISCOVERY,
            ),
            Resource("/capture/{job}", reads={"GET": capture.get_job}),
            Resource(
                "/events",
                reads={"GET": events.get_events},
                writes={"POST": capture.post_event},
                discovery=CAPTURE_DISCOVERY,
            ),
            Resource("/events/{event:path}", reads={"GET": events.get_event}),
            Resource("/queries", reads={"GET": queries.get_queries}, writes={"POST": queries.post_query}),
            Resource("/queries/{name}", reads={"GET": queries.get_query}, writes={"DELETE": queries.delete_query}),
            Resource("/queries/{name}/events", reads={"GET": queries.get_events}),
            Resource("/nextPageToken/{token}", reads={"DELETE": self._delete_token}),
        ]
        no_webhooks = dict.fromkeys(("GET", "POST", "DELETE"), queries.refuse_subscription)
        found += (Resource(f"/queries/{{name}}/subscriptions{more}", reads=no_webhooks) for more in ("", "/{id}"))
        for kind in ValueKind:
            found.append(Resource(f"/{kind}", reads={"GET": events.values(kind)}))
            found.append(Resource(f"/{kind}/{{value:path}}", reads={"GET": events.member(kind)}))
        return found

    async def _delete_token(self, request: Request) -> Response:
        self._tokens.delete(request.path_params["token"], self._now_ms())
        return Response(status_code=204)


async def _root(_request: Request) -> Response:
    """What there is, for whoever looks at the root."""
    members: list[Any] = ["capture", "events", "queries", *ValueKind]
    return JSONResponse({"@context": STANDARD_CONTEXT, "@set": members})


def page_secret(path: Path) -> bytes:
    """The secret that signs tokens of pages; it is drawn where there is none, and outlives the process.

    Raises:
        InputError: FIELD_MALFORMED, KEY_MALFORMED: the file cannot be used.
    """
    if not path.exists():
        create_file(path, token_bytes(SECRET_BYTES), 0o600)
    secret = load_secret(path, least=SECRET_BYTES)
    if len(secret) != SECRET_BYTES:
        rule = f"the secret of pages has {SECRET_BYTES} bytes; without the file another is drawn"
        raise InputError(Reason.FIELD_MALFORMED, rule, field=str(path))
    return secret

"""Events over HTTP (EPCIS 2.0, section 12.7): queries by URL, single events, and what the node's events name.

An answer is a query document. Its events are as their reporters gave them, with the ``recordTime`` that the standard
wants there; the event hash of CBV leaves that out, so it is that of the event that was signed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from idtrace.epcis.context import STANDARD_CONTEXT
from idtrace.epcis.model import Event, EventType
from idtrace.epcis.query import Query, parse
from idtrace.epcis.values import time_text
from idtrace.epcis.write import event_json, query_document_json
from idtrace.epcis.xml_out import query_document_xml
from idtrace.errors import InputError
from registry.event_http_edge import paging_of, path_value
from registry.event_http_headers import JSON, JSON_LD, XML, Form, answer_form, namespaces
from registry.event_http_paging import PageTokens, Paging
from registry.event_http_problems import Standard, parameters, refuse
from registry.event_query import Cursor, EventQueries, Page
from registry.event_reading import Found
from registry.event_values import ValueKind

# As the standard's binding has it (perPage).
PER_PAGE_DEFAULT: Final = 30
PER_PAGE_MAX: Final = 1_000
# To write an event takes a fifth of a millisecond: more of them would keep the loop, and go to a thread.
WRITTEN_INLINE_MAX: Final = 32
# Pages that are looked through for an eventID, which no index has: ten thousand events.
LOOKED_THROUGH_MAX: Final = 5
SIMPLE_EVENT_QUERY: Final = "SimpleEventQuery"
FORMS: Final = (Form.JSON, Form.XML)
_PARAMETERS: Final[Mapping[ValueKind, str]] = {
    ValueKind.EVENT_TYPES: "eventType",
    ValueKind.EPCS: "MATCH_anyEPC",
    ValueKind.BIZ_STEPS: "EQ_bizStep",
    ValueKind.BIZ_LOCATIONS: "EQ_bizLocation",
    ValueKind.READ_POINTS: "EQ_readPoint",
    ValueKind.DISPOSITIONS: "EQ_disposition",
}


class EventPages:
    """The resources of a node that read its events. Belongs to one event loop."""

    def __init__(self, queries: EventQueries, tokens: PageTokens, now_ms: Callable[[], int]) -> None:
        self._queries = queries
        self._tokens = tokens
        self._now_ms = now_ms

    async def get_events(self, request: Request) -> Response:
        """The events that meet the parameters of the URL, in pages."""
        return await self.answer(request, _asked(request), SIMPLE_EVENT_QUERY)

    async def get_event(self, request: Request) -> Response:
        """One event, by the identifier of its record or by its ``eventID``; the bare event."""
        form = answer_form(request, FORMS)
        named, _ = path_value(request, events=False)
        found = await self._queries.get(named)
        if found is not None:
            return await _bare(found, form, self._now_ms(), {})
        query = _named("EQ_eventID", named)
        sharing = await self._with_event_id(query)
        if not sharing:
            raise refuse(404, Standard.NO_SUCH_RESOURCE, "this node has recorded no such event", field="eventID")
        # An event and its error declaration share their eventID: the latter says all of the first, and that it is void.
        shown = next((one for one in reversed(sharing) if one.event.error is not None), sharing[0])
        others = {"link": f'</events?EQ_eventID={quote(named, safe="")}>; rel="related"'} if len(sharing) > 1 else {}
        return await _bare(shown, form, self._now_ms(), others)

    def values(self, kind: ValueKind) -> Callable[[Request], Any]:
        """The resource that lists what the events name, such as ``/bizSteps``."""

        async def answer(request: Request) -> Response:
            paging = paging_of(request, self._tokens, self._now_ms())
            members: Sequence[str] = tuple(EventType)
            headers: dict[str, str] = {}
            with parameters():
                paging.require_no_others()
                size, after = paging.size(PER_PAGE_DEFAULT, PER_PAGE_MAX), paging.cursor()
            if kind is not ValueKind.EVENT_TYPES:
                found = await self._queries.distinct(kind, after, size)
                members = found.values
                headers = paging.next(found.values[-1] if found.more else None)
                if not found.complete:
                    headers["warning"] = '199 - "not all events of this node have been looked through"'
            body = {"@context": STANDARD_CONTEXT, "type": "Collection", "member": list(members)}
            return JSONResponse(body, headers=headers, media_type=JSON)

        return answer

    def member(self, kind: ValueKind) -> Callable[[Request], Any]:
        """The resource of one of these, such as ``/bizSteps/shipping``, and of its events below it."""

        async def answer(request: Request) -> Response:
            value, events = path_value(request)
            if kind is ValueKind.EVENT_TYPES and value not in tuple(EventType):
                detail = f"the types of events are {', '.join(EventType)}"
                raise refuse(404, Standard.NO_SUCH_RESOURCE, detail, field="eventType")
            if not events:
                return JSONResponse({"@context": STANDARD_CONTEXT, "@set": ["events"]}, media_type=JSON)
            # Path and parameters hold both, also where they name the same field.
            named = _named(_PARAMETERS[kind], value)
            asked = _asked(request)
            query = replace(asked, conditions=(*named.conditions, *asked.conditions))
            return await self.answer(request, query, SIMPLE_EVENT_QUERY)

        return answer

    async def answer(self, request: Request, query: Query, name: str) -> Response:
        """A page of a query's events, as JSON-LD or XML, with the way to the next."""
        form = answer_form(request, FORMS)
        paging = paging_of(request, self._tokens, self._now_ms())
        page = await self._page(query, paging)
        headers = paging.next(page.next.to_text() if page.next else None)
        document = await _written(_documented, page.events, name, self._now_ms(), form)
        return Response(document, 200, headers, form)

    async def _page(self, query: Query, paging: Paging) -> Page:
        with parameters():
            cursor = paging.cursor()
            after = Cursor.parse(cursor) if cursor else None
            size = paging.size(min(query.per_page or PER_PAGE_DEFAULT, PER_PAGE_MAX), PER_PAGE_MAX)
            return await self._queries.page(query, after, size)

    async def _with_event_id(self, query: Query) -> list[Found]:
        found: list[Found] = []
        after: Cursor | None = None
        for _ in range(LOOKED_THROUGH_MAX):
            page = await self._queries.page(query, after, PER_PAGE_MAX)
            found += page.events
            after = page.next
            if after is None:
                return found
        if not found:
            detail = "too many events to look through for an eventID; ask for /events?EQ_eventID=… page by page"
            raise refuse(413, Standard.QUERY_TOO_LARGE, detail, field="eventID")
        return found


def _asked(request: Request) -> Query:
    """The query of a URL's parameters; paging is not the query's affair."""
    asked: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        if name not in {"nextPageToken", "perPage"}:
            asked.setdefault(name, []).append(value)
    with parameters():
        return parse(asked, namespaces=namespaces(request))


def _named(name: str, value: str) -> Query:
    """The query of one parameter with one value, whatever stands in that."""
    with parameters():
        return parse({name: [value]}, split=False)


def recorded(found: Found) -> Event:
    """An event with the time at which it was recorded, which a reporter's own never stands for (section 7.4.1)."""
    raw = {**found.event.raw, "recordTime": time_text(found.record_time_ms)}
    return replace(found.event, record_time_ms=found.record_time_ms, raw=raw)


async def _written(write: Callable[..., bytes], events: Sequence[Found], *more: Any) -> bytes:
    if len(events) <= WRITTEN_INLINE_MAX:
        return write(events, *more)
    return await asyncio.to_thread(write, events, *more)


def _documented(events: Sequence[Found], name: str, now_ms: int, form: Form) -> bytes:
    """A query document; what no XML can say is refused, since to leave it out would be a lie."""
    shown = [recorded(found) for found in events]
    if form is Form.JSON:
        return to_bytes(query_document_json(name, "", shown, now_ms))
    try:
        return query_document_xml(shown, now_ms, query_name=name)
    except InputError as error:
        detail = f"an event of this page has no form in XML: {error.detail}"
        raise refuse(406, Standard.NOT_ACCEPTABLE, detail, field="accept") from None


async def _bare(found: Found, form: Form, now_ms: int, headers: Mapping[str, str]) -> Response:
    """One event; XML has no bare one, so there it stands in a document."""
    if form is Form.XML:
        return Response(_documented([found], SIMPLE_EVENT_QUERY, now_ms, form), 200, headers, XML)
    return Response(to_bytes(event_json(recorded(found))), 200, headers, JSON_LD)


def to_bytes(value: Any) -> bytes:
    """JSON in UTF-8, on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

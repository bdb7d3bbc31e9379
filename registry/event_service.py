"""The gRPC edge of event queries: pages of events that are here, and subscriptions to those that are still to come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any, Final

from idtrace.epcis.query import Query, parse
from idtrace.errors import InputError, Reason
from idtrace.v1 import capture_pb2 as cb
from idtrace.v1 import capture_pb2_grpc
from registry.event_query import PAGE_MAX, Cursor, EventQueries, Found
from registry.event_stream import NEXT_WITHIN_MS, EventStreams

Context = Any  # as in registry/service.py

# Places in the order of recording are numbers of 64 bits with a sign.
_PLACE_MAX: Final = (1 << 63) - 1


class EventService(capture_pb2_grpc.EventServiceServicer):
    """Tells the events of one node."""

    def __init__(self, queries: EventQueries, streams: EventStreams) -> None:
        self.queries = queries  # for other edges of the node: the same core
        self.streams = streams

    async def Query(self, request: cb.QueryRequest, context: Context) -> AsyncGenerator[cb.QueryResponse]:
        """Tell the events that meet a query, page after page."""
        query = _query(request.query)
        cursor = Cursor.parse(request.page_token, field="page_token") if request.page_token else None
        left = request.most or _PLACE_MAX
        while True:
            page = await self.queries.page(query, cursor, min(left, query.per_page or PAGE_MAX, PAGE_MAX))
            left -= len(page.events)
            token = page.next.to_text() if page.next else ""
            yield cb.QueryResponse(events=_events(page.events), next_page_token=token)
            cursor = page.next
            if cursor is None or left == 0:
                return

    async def Subscribe(self, request: cb.SubscribeRequest, context: Context) -> AsyncGenerator[cb.SubscribeResponse]:
        """Tell the events that meet a query as they are recorded."""
        after = request.after if request.HasField("after") else None
        if after is not None and after > _PLACE_MAX:
            raise InputError(Reason.FIELD_MALFORMED, "this is no place in the order of recording", field="after")
        async with aclosing(self.streams.follow(_query(request.query), after)) as following:
            async for told in following:
                yield cb.SubscribeResponse(
                    events=_events(told.events), sequence=told.sequence, next_within_ms=NEXT_WITHIN_MS
                )


def _query(asked: cb.EventQuery) -> Query:
    parameters: dict[str, list[str]] = {}
    for one in asked.parameters:
        if one.name in parameters:
            raise InputError(Reason.FIELD_MALFORMED, "this parameter stands here twice", field=one.name)
        parameters[one.name] = list(one.values)
    query = parse(parameters, namespaces=dict(asked.namespaces), split=False)
    if query.next_page_token:
        raise InputError(Reason.FIELD_MALFORMED, "the token of a page stands beside the query", field="nextPageToken")
    return query


def _events(found: Iterable[Found]) -> list[cb.RecordedEvent]:
    return [
        cb.RecordedEvent(
            identifier=one.identifier,
            statement=one.statement,
            sequence=one.sequence,
            record_time_ms=one.record_time_ms,
        )
        for one in found
    ]

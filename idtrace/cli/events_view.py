"""Events as a person or a program reads them: one line each."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from idtrace.cli.output import listing, plain
from idtrace.epcis.model import Event
from idtrace.epcis.parse import read_document
from idtrace.epcis.uris import key
from idtrace.epcis.values import time_text
from idtrace.errors import Reason, VerificationError
from idtrace.v1 import capture_pb2

# Columns of a thing's key; the rest is in --json.
_THING_CHARS: Final = 48
_EVENT_DIGITS: Final = 12


def event_of(told: capture_pb2.RecordedEvent) -> Event:
    """What an event says.

    Raises:
        VerificationError: ANSWER_MALFORMED: the node has told what is no event.
    """
    items = read_document(told.statement, field="events.statement", capture=False).items
    if len(items) != 1 or not isinstance(items[0], Event):
        raise VerificationError(Reason.ANSWER_MALFORMED, "the node tells what is no event", field="events.statement")
    return items[0]


def event_json(told: capture_pb2.RecordedEvent) -> dict[str, Any]:
    """One line of JSON: the event as it was signed, and what the node says of it."""
    return {
        "identifier": told.identifier,
        "sequence": told.sequence,
        "record_time": time_text(told.record_time_ms),
        "event": json.loads(told.statement),
    }


def _cells(told: capture_pb2.RecordedEvent) -> tuple[str, ...]:
    event = event_of(told)
    at = dt.datetime.fromtimestamp(event.time_ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    step = event.biz_step or event.type.removesuffix("Event").lower()
    error = " (taken back)" if event.error else ""
    party, _, digest = told.identifier.rpartition("/")
    return (
        at,
        plain(step) + error,
        str(event.action or "-"),
        plain(_things(event)),
        plain(key(event.read_point or event.biz_location) or "-", _THING_CHARS),
        plain(f"{party}/{digest[:_EVENT_DIGITS]}…"),
    )


def _things(event: Event) -> str:
    """The first thing that the event is about, and how many others."""
    classes = (*event.quantities, *event.child_quantities, *event.output_quantities, *event.input_quantities)
    things = [
        *(uri for uri in (event.parent,) if uri),
        *(*event.epcs, *event.children, *event.outputs, *event.inputs),
        *(one.epc_class for one in classes),
    ]
    if not things:
        return "-"
    first = plain(key(things[0]), _THING_CHARS)
    return first if len(things) == 1 else f"{first} +{len(things) - 1}"


def events_table(events: Iterable[capture_pb2.RecordedEvent]) -> Table:
    """Events in a table, in the order in which they came."""
    table = listing("time (UTC)", "step", "action", "things", "where", "event")
    for told in events:
        table.add_row(*_cells(told))
    return table


def event_line(told: capture_pb2.RecordedEvent) -> Text:
    """One event as a line of its own, for who waits for the next."""
    at, *cells = _cells(told)
    return Text.assemble((at, "dim"), "  ", "  ".join(cells), overflow="fold")

"""From a verified record to an observed event: the one way in, for resolvers and for whoever checks them."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from idtrace.epcis import parse, statement
from idtrace.epcis.model import Event
from idtrace.errors import InputError, Reason
from idtrace.provenance.history import Observed
from idtrace.record import Record, RecordBody

# A trace reads an event, its verdict reads it again out of the proofs, and so does every verdict after a change. The
# events of a dose with a long history fit in; one with 250 readings takes some 150 KB, the largest there may be 1 MB.
EVENTS_KEPT: Final = 128


@lru_cache(maxsize=EVENTS_KEPT)
def read_event(record: Record, *, logged: bool) -> Observed:
    """The event that a record holds; the record has been verified before. Reading is pure, and the last are remembered.

    Raises:
        InputError: its identifier is not the hash of its values, or they are no event.
    """
    body = RecordBody.parse(record.signed.payload)
    data = statement.join(record.values)
    statement.require_event_identifier(body.identifier, data)
    items = parse.read_document(data, field="event").items
    if len(items) != 1:
        raise InputError(Reason.FIELD_MALFORMED, "the record of an event holds one event", field="event")
    event = items[0]
    if not isinstance(event, Event):
        raise event
    return Observed(event, str(body.identifier), str(body.identifier.prefix), body.issued_at, logged)

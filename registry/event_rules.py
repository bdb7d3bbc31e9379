"""What an event's record is, whichever call brings it: its rules, and whom the event mentions. Pure.

An identifier whose suffix begins with ``event/`` is an event's and nothing else's (``idtrace/epcis/statement.py``): so
whoever reads ``PARTY/event/HEX`` has a valid event of that party, whose bytes are what the name says.
"""

from __future__ import annotations

from idtrace.epcis import parse, write
from idtrace.epcis.lots import lot_keys, made_by
from idtrace.epcis.model import Event
from idtrace.epcis.statement import EVENT_TYPE, EVENT_VALUES_MAX, is_event, join, require_event_identifier, split
from idtrace.epcis.uris import mentions
from idtrace.errors import InputError, Reason, RefusedError
from idtrace.record import Permission, Record, RecordBody, RecordKind, Status
from registry.storage import SUBJECT_BYTES_MAX, Mention


def read_event(record: Record, body: RecordBody) -> Event | None:
    """The event in a genuine record; None where the identifier is no event's.

    Raises:
        RefusedError: EVENT_IMMUTABLE: an event has one version, and an error in it is declared by a later event.
        InputError: EVENT_RECORD, or what is wrong with the event itself.
    """
    if not is_event(body.identifier):
        return None
    if body.version > 1:
        detail = "an event is neither changed nor ended; a later event with an error declaration takes it back"
        raise RefusedError(Reason.EVENT_IMMUTABLE, detail, field="record.version")
    _check_record(record, body)
    data = join(record.values)
    require_event_identifier(body.identifier, data)
    if tuple(value.data for value in record.values) != split(data):
        raise _not_a_record("every value but the last one is full", "record.values")
    return only_event(data)


def only_event(data: bytes) -> Event:
    """The one event that these bytes are, in canonical form.

    Raises:
        InputError: what :func:`idtrace.epcis.parse.read_document` says, or EVENT_RECORD.
    """
    items = parse.read_document(data, field="event").items
    if len(items) != 1:
        raise _not_a_record("a record holds one bare event, and no list or document of events", "event")
    (event,) = items
    if not isinstance(event, Event):
        raise event
    if write.event_bytes(event) != data:
        raise _not_a_record("an event's bytes are the bare event in RFC 8785 canonical form", "event")
    return event


def mentions_of(event: Event, body: RecordBody) -> tuple[Mention, ...]:
    """Of whom the event says something: a pointer for each, where that thing's registry keeps it.

    What the party makes is also kept under the party's own key of the lot, wherever the identifiers lie.

    Raises:
        InputError: FIELD_TOO_LARGE.
    """
    identifier = str(body.identifier)
    named = mentions(event)
    own = lot_keys(event, (str(body.identifier),) if made_by(event) else ())
    named += tuple((lot, "class") for lot in own if (lot, "class") not in named)
    found = tuple(Mention(subject, event.time_ms, identifier, role) for subject, role in named)
    for mention in found:
        if len(mention.subject.encode()) > SUBJECT_BYTES_MAX:
            rule = f"a URI in an event has at most {SUBJECT_BYTES_MAX} bytes"
            raise InputError(Reason.FIELD_TOO_LARGE, rule, field=f"event.{mention.role}")
    return found


def _check_record(record: Record, body: RecordBody) -> None:
    if body.kind is not RecordKind.ITEM or body.status is not Status.ACTIVE:
        raise _not_a_record("an event's record is an active item", "record.kind")
    if body.class_id is not None:
        raise _not_a_record("an event belongs to no class", "record.class")
    if not 0 < len(body.values) <= EVENT_VALUES_MAX:
        raise _not_a_record(f"an event has 1 to {EVENT_VALUES_MAX} values", "record.values")
    for position, digest in enumerate(body.values, start=1):
        if (digest.index, digest.type, digest.permission) != (position, EVENT_TYPE, Permission.PUBLIC):
            rule = f"the values of an event are public, of type {EVENT_TYPE}, and numbered from 1"
            raise _not_a_record(rule, f"record.values[{digest.index}]")
    if len(record.values) != len(body.values):
        raise _not_a_record("an event comes with all of its values", "record.values")


def _not_a_record(rule: str, field: str) -> InputError:
    return InputError(Reason.EVENT_RECORD, rule, field=field)

"""Asks, for an event on its way in, what :mod:`registry.reporting` and :mod:`registry.holding` have to know.

``[capture] licences`` says whether they are asked at all: ``required``, or ``off`` for a node whose parents give no
licences. What an event's own bytes have to be is checked everywhere (``registry/event_rules.py``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from idtrace import wire
from idtrace.epcis import parse
from idtrace.epcis.model import Event
from idtrace.epcis.statement import join
from idtrace.epcis.uris import key
from idtrace.errors import InputError, Reason, RefusedError
from idtrace.identifier import Identifier
from idtrace.record import Record
from registry.admission import Proposal
from registry.holding import Told, check_holder, is_hands_on, things_of
from registry.licensing import Licences
from registry.reporting import check_license, check_places
from registry.storage import Mention, Storage

# Things of one event whose holder is looked up, 0.3 ms each; a pallet's cartons, or the boxes of some cartons. Of a
# longer list the verdicts of the others find what is wrong.
THINGS_MAX: Final = 256
# Events about one thing and its packages: a dose has some thirty; more is a truck or a room, which nobody holds.
POINTERS_MAX: Final = 512
PACKAGES_MAX: Final = 10
# The events of some hundred shipments that are being received, 10 KiB each.
EVENTS_KEPT_MAX: Final = 1_024


class Reporters:
    """Decides who may report what at one node. Belongs to one event loop."""

    def __init__(self, storage: Storage, licences: Licences | None) -> None:
        self._storage = storage
        self._licences = licences  # None: they are not asked for
        self._events: OrderedDict[str, Event | None] = OrderedDict()

    async def check(self, proposal: Proposal) -> None:
        """Require that the party may report its event; nothing is required of other records.

        Raises:
            RefusedError: PARTY_UNLICENSED, PARTY_SUSPENDED, LICENCE_PERIOD, ROLE_BIZ_STEP, LOCATION_OF_ANOTHER or
                CUSTODY_ELSEWHERE.
            BusyError: LICENCE_UNREACHABLE.
        """
        event = proposal.event
        if self._licences is None or event is None:
            return
        prefix = proposal.body.identifier.prefix
        if str(prefix) != proposal.zone:
            detail = f"{prefix} is no zone of its own, so no key is its own"
            raise RefusedError(Reason.PARTY_UNLICENSED, detail, field="record.identifier")
        party = check_license(await self._licences.of(prefix), prefix, event, proposal.body.issued_at)
        check_places(party, event, self._licences.owners)
        if is_hands_on(event):
            for thing in things_of(event)[:THINGS_MAX]:
                told = await self._told(thing, event.time_ms)
                if told is not None:
                    check_holder(event, party.prefix, thing, told)

    async def _told(self, thing: str, at_ms: int) -> Sequence[Told] | None:
        """The events about a thing and the packages that it was in, up to a time; None where there are too many."""
        told: dict[str, Told] = {}
        asked: set[str] = set()
        wanted = [thing]
        while wanted:
            subject = wanted.pop()
            if subject in asked:
                continue
            asked.add(subject)
            pointers = await self._storage.pointers(subject, None, POINTERS_MAX)
            if len(pointers) == POINTERS_MAX or len(asked) > PACKAGES_MAX:
                return None
            for pointer in pointers:
                if pointer.time_ms <= at_ms and pointer.event not in told:
                    one = told[pointer.event] = await self._told_by(pointer)
                    parent = key(one.event.parent) if one.event is not None and one.event.parent else ""
                    if pointer.role == "child" and parent and parent not in asked:
                        wanted.append(parent)
        return list(told.values())

    async def _told_by(self, pointer: Mention) -> Told:
        identifier = Identifier.parse_canonical(pointer.event)
        return Told(pointer.time_ms, pointer.event, str(identifier.prefix), await self._event(pointer.event))

    async def _event(self, identifier: str) -> Event | None:
        """An event that is kept here; None for another node's."""
        if identifier in self._events:
            self._events.move_to_end(identifier)
            return self._events[identifier]
        stored = await self._storage.record(identifier)
        if stored is None:
            return None  # not remembered: it may be registered here yet
        event = _parsed(wire.record_from_bytes(stored))
        self._events[identifier] = event
        if len(self._events) > EVENTS_KEPT_MAX:
            self._events.popitem(last=False)
        return event


def _parsed(record: Record) -> Event | None:
    """The event in a stored record; None for one that was stored before its kind was understood."""
    try:
        items = parse.read_document(join(record.values)).items
    except InputError:
        return None
    return items[0] if items and isinstance(items[0], Event) else None

"""Who may report what: a party by its licence, its role, its places, and what it holds. Pure.

Whether the signature is by a record key of the party's own zone has been checked before (``registry/intake.py``). A
verdict checks all of this again from what is signed; the node refuses early, so that an honest party learns of a
mistake while it can still mend it.

Which role does which step stands with its sources in :mod:`idtrace.party`, for verdicts ask the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from idtrace.epcis.model import Action, Event, EventType
from idtrace.epcis.uris import key
from idtrace.errors import InputError, Reason, RefusedError, quoted
from idtrace.identifier import Identifier, Prefix
from idtrace.party import RULED_STEPS, Party, PartyRole, is_late_word, may_report

# They do their work at the places of others: a carrier is read at the gates of both sides, inspectors go in.
GUESTS: Final = frozenset({PartyRole.CARRIER, PartyRole.LABORATORY, PartyRole.AUTHORITY})
# Keys of these schemes name no zone of a party, so their owner can only be told by a licence that lists them.
_SCHEMES: Final = frozenset({"gs1", "drug"})


def step_of(event: Event) -> str:
    """The business step, or what type and action come to where none is given: made, or ended; "" where they do not.

    A step of somebody else's vocabulary says nothing to us, whatever it is called, so it counts as none.
    """
    if event.biz_step in RULED_STEPS:
        return event.biz_step
    if event.type is EventType.TRANSFORMATION:
        return "transforming"
    if event.type is EventType.OBJECT and event.action is Action.ADD:
        return "commissioning"
    if event.type is EventType.OBJECT and event.action is Action.DELETE:
        return "decommissioning"
    return ""


def check_license(party: Party | None, prefix: Prefix, event: Event, reported_at: int) -> Party:
    """Require a licence: active now, valid when it happened, not long over when it was told, and for this step.

    Args:
        party: the licence, None for none.
        prefix: whose it is.
        event: what is reported.
        reported_at: when, UTC, s.

    Raises:
        RefusedError: PARTY_UNLICENSED, PARTY_SUSPENDED, LICENCE_PERIOD or ROLE_BIZ_STEP.
    """
    if party is None:
        raise RefusedError(Reason.PARTY_UNLICENSED, f"{prefix} has no licence of its parent", field="party")
    if not party.active:
        raise RefusedError(Reason.PARTY_SUSPENDED, f"the licence of {prefix} is not active", field="party")
    if not party.valid_from * 1000 <= event.time_ms < party.valid_until * 1000:
        detail = f"the licence of {prefix} was not valid when the event happened"
        raise RefusedError(Reason.LICENCE_PERIOD, detail, field="eventTime")
    if is_late_word(party, reported_at):
        detail = f"the licence of {prefix} had ended more than a day before this was reported"
        raise RefusedError(Reason.LICENCE_PERIOD, detail, field="record.issued_at")
    step = step_of(event)
    if not may_report(party.roles, step):
        detail = f"{prefix} is licensed as {', '.join(sorted(party.roles))}, which does not do {quoted(step)}"
        raise RefusedError(Reason.ROLE_BIZ_STEP, detail, field="bizStep")
    return party


def check_places(party: Party, event: Event, owners: Mapping[str, str]) -> None:
    """Require that the places of an event are nobody else's; guests may be read at them.

    Args:
        party: who reports.
        event: what it reports.
        owners: of the places in other licences that are known here, by key: the prefix of the party.

    Raises:
        RefusedError: LOCATION_OF_ANOTHER.
    """
    own = places_of(party)
    is_guest = bool(party.roles & GUESTS)
    for name, uri in (("readPoint", event.read_point), ("bizLocation", event.biz_location)):
        if not uri or (is_guest and name == "readPoint"):
            continue
        place = key(uri)
        owner = "" if place in own else owners.get(place, "") or _zone_in(place)
        if owner and not Prefix.parse(owner).within(Prefix.parse(party.prefix)):
            detail = f"{quoted(uri)} is a place of {owner} and not of {party.prefix}"
            raise RefusedError(Reason.LOCATION_OF_ANOTHER, detail, field=f"{name}.id")


def _zone_in(place: str) -> str:
    """The prefix in whose zone a place has its identifier; "" where its name says nothing of that."""
    try:
        prefix = Identifier.parse(place).prefix
    except InputError:
        return ""
    return "" if prefix.labels[0] in _SCHEMES else str(prefix)


def places_of(party: Party) -> dict[str, str]:
    """The places of a licence, by key: whose each is."""
    return {key(place.id): party.prefix for place in party.locations}

"""Alarms and their acknowledgement: a stretch out of limits that somebody has to answer for.

An alarm cites its readings, minimum, maximum, duration, device and evidence. Which stretches raise one is decided in
:mod:`idtrace.coldchain.assess`. Its id is made of what was measured where, and not of the dose, so one
acknowledgement of a room's alarm holds for all that was in the room.

Acknowledged it is by an event of a party (GSP 附录3: whoever is alarmed acts and records it): ObjectEvent, bizStep
``inspecting``, extensions ``idtrace:acknowledges`` (an alarm's id, or a list of some) and ``idtrace:comment``, which
may not be empty. An acknowledgement from before the alarm began is none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Final

from idtrace.epcis.model import EventType, Json
from idtrace.provenance.history import Observed

ACKNOWLEDGES: Final = "idtrace:acknowledges"
COMMENT: Final = "idtrace:comment"
# One inspection of a site after a power cut: each room and vehicle with a few alarms.
ACKNOWLEDGED_MAX: Final = 256
# 128 bits: nobody finds a second alarm with the same id.
_ID_HEX: Final = 32


class AlarmKind(StrEnum):
    """What raised it: the side on which the limits were left, or the device's own word (ALARM_CONDITION)."""

    ABOVE = "above"
    BELOW = "below"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class Alarm:
    """A stretch of readings that raised an alarm.

    Attributes:
        id: 32 hex digits, see :func:`alarm_id`.
        subject: what the readings were reported of: a room, a vehicle, a box.
        start_ms, end_ms: first and last reading beyond the limit, UTC.
        seconds: how long it lasted, with the way there and back.
        acknowledged_by, comment: the party that has, and its words; "" while nobody has.
    """

    id: str
    kind: AlarmKind
    subject: str
    device: str
    start_ms: int
    end_ms: int
    minimum: Decimal
    maximum: Decimal
    seconds: int
    readings: int
    evidence: tuple[str, ...]
    acknowledged_by: str = ""
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A party's word that it has dealt with an alarm; ``evidence`` is the event's record."""

    alarm_id: str
    party: str
    comment: str
    at_ms: int
    evidence: str


def alarm_id(subject: str, kind: AlarmKind, start_ms: int, device: str) -> str:
    """The id of an alarm: a hash of what was measured, on which side, since which reading, by which device."""
    text = "\0".join((subject, kind, str(start_ms), device))
    return hashlib.sha256(b"idtrace/alarm/v1\0" + text.encode("utf-8", "surrogatepass")).hexdigest()[:_ID_HEX]


def acknowledgements(observed: Iterable[Observed]) -> tuple[Acknowledgement, ...]:
    """All acknowledgements among events, in order of time; an event without a comment acknowledges nothing."""
    found: set[Acknowledgement] = set()
    for each in observed:
        event = each.event
        if event.type is not EventType.OBJECT or event.biz_step != "inspecting":
            continue
        comment = event.extensions.get(COMMENT)
        if isinstance(comment, str) and comment.strip():
            ids = _ids(event.extensions.get(ACKNOWLEDGES))
            found |= {Acknowledgement(one, each.party, comment, event.time_ms, each.identifier) for one in ids}
    return tuple(sorted(found, key=lambda one: (one.at_ms, one.alarm_id, one.party, one.evidence)))


def _ids(value: Json) -> list[str]:
    ids = value if isinstance(value, list) else [value]
    return [one for one in ids[:ACKNOWLEDGED_MAX] if isinstance(one, str)]


def acknowledged(alarm: Alarm, by_id: Mapping[str, Acknowledgement]) -> Alarm:
    """The alarm with its acknowledgement, if there is one from after it began."""
    word = by_id.get(alarm.id)
    if word is None or word.at_ms < alarm.start_ms:
        return alarm
    return replace(alarm, acknowledged_by=word.party, comment=word.comment)

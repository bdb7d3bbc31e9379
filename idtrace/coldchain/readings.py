"""What temperature rules judge: readings, and the legs of the way on which they were due."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum


class Mode(StrEnum):
    """What was done with the thing meanwhile; decides how often its temperature has to be recorded."""

    STORE = "store"
    TRANSPORT = "transport"


@dataclass(frozen=True, slots=True, order=True)
class Reading:
    """One temperature, as a device reported it.

    Attributes:
        time_ms: when it was measured (UTC).
        celsius: in degrees Celsius, converted exactly from the unit it was reported in.
        device: URI or text that names the probe; "" where the report names none.
        evidence: identifier of the event's record that it stands in.
        subject: what it was reported of (a truck, a room, a box), canonical identifier or URI.
        reported_ms: when the event that holds it happened, 0 where that is not known.
        calibrated_until_ms: end of the probe's calibration, if the report says so.
        error: the report's own ERROR_CONDITION, or a value that no probe can have measured.
        alarm: the report's own ALARM_CONDITION.
    """

    time_ms: int
    celsius: Decimal
    device: str
    evidence: str
    subject: str = ""
    reported_ms: int = 0
    calibrated_until_ms: int | None = None
    error: bool = False
    alarm: bool = False


@dataclass(frozen=True, slots=True)
class Leg:
    """A stretch of time in one mode and one custody, in which recording was due.

    Attributes:
        start_ms, end_ms: [start, end), UTC; an open end is the time of judging.
        mode: store or transport.
        custodian: prefix of the party in whose hands it was, "" where nobody's word is known.
        place: URI of the room or the vehicle.
        evidence: identifiers of the event records that begin and end it.
    """

    start_ms: int
    end_ms: int
    mode: Mode
    custodian: str
    place: str
    evidence: tuple[str, ...] = ()

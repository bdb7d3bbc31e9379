"""Findings: what a check has found, by a stable code, and the verdict that they lead to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum


class Use(IntEnum):
    """The verdict, the worst last: of several findings the worst decides."""

    USE = 0
    HOLD = 1
    DO_NOT_USE = 2


class Code(StrEnum):
    """What was found; texts never change once published. Each has its severity in :mod:`idtrace.verdict.policy`."""

    # Is it genuine?
    NOT_REGISTERED = "NOT_REGISTERED"  # a signed denial
    FORGED = "FORGED"  # a signature lied
    UNPROVEN = "UNPROVEN"  # nobody answered
    ENDED = "ENDED"  # the identifier has ended
    SUSPENDED = "SUSPENDED"
    NOT_COMMISSIONED = "NOT_COMMISSIONED"  # nobody has reported its making
    COMMISSIONED_BY_STRANGER = "COMMISSIONED_BY_STRANGER"  # not by the owner of the identifier, or twice
    PRODUCT_UNKNOWN = "PRODUCT_UNKNOWN"
    LOT_MISMATCH = "LOT_MISMATCH"  # the record and the events name different lots or expiries
    # May it still be used?
    RECALLED = "RECALLED"
    RECALL_UNKNOWN = "RECALL_UNKNOWN"  # whether it is recalled could not be learned
    EXPIRED = "EXPIRED"
    EXPIRY_UNKNOWN = "EXPIRY_UNKNOWN"
    DECOMMISSIONED = "DECOMMISSIONED"
    DESTROYED = "DESTROYED"
    STOLEN = "STOLEN"
    DAMAGED = "DAMAGED"
    DISPENSED = "DISPENSED"  # all of its doses have been given
    OVER_DISPENSED = "OVER_DISPENSED"  # more doses given than it ever had: a copied code
    VIAL_OPEN_TOO_LONG = "VIAL_OPEN_TOO_LONG"
    EVENT_WITHDRAWN = "EVENT_WITHDRAWN"  # a word that ended its use was taken back, and nobody has looked since
    ON_HOLD = "ON_HOLD"  # a holder's own word: holding, non_conformant, damaged in doubt
    # Was it always in good hands?
    PARTY_UNLICENSED = "PARTY_UNLICENSED"
    PARTY_ROLE = "PARTY_ROLE"  # a licensed party did what its role may not do
    REPORTED_BY_STRANGER = "REPORTED_BY_STRANGER"  # by one who did not hold it
    CUSTODY_NO_SHIPPER = "CUSTODY_NO_SHIPPER"  # received, and nobody has shipped it
    CUSTODY_NO_RECEIPT = "CUSTODY_NO_RECEIPT"  # shipped, used or shipped on, and never received
    CUSTODY_WRONG_RECEIVER = "CUSTODY_WRONG_RECEIVER"  # received by another than it was shipped to
    CUSTODY_OVERLAP = "CUSTODY_OVERLAP"  # in two hands at once
    IMPOSSIBLE_TRAVEL = "IMPOSSIBLE_TRAVEL"
    DOUBLE_PRESENCE = "DOUBLE_PRESENCE"  # at two places at once: a copied code
    AGGREGATION_CONTRADICTION = "AGGREGATION_CONTRADICTION"  # in two packages, unpacked from where it was not
    TIME_DISORDER = "TIME_DISORDER"  # used before it was made, reported from the future
    # Was it always cold?
    FROZEN = "FROZEN"
    TOO_COLD = "TOO_COLD"
    TOO_WARM = "TOO_WARM"  # a rule's single excursion
    HEAT_CUMULATIVE = "HEAT_CUMULATIVE"
    BUDGET_SPENT = "BUDGET_SPENT"
    MKT_EXCEEDED = "MKT_EXCEEDED"
    EXCURSION = "EXCURSION"  # outside its limits, for less than any rule forbids
    SILENCE = "SILENCE"
    NO_TEMPERATURE = "NO_TEMPERATURE"  # a leg without a single reading
    SENSOR_STUCK = "SENSOR_STUCK"
    SENSOR_JUMP = "SENSOR_JUMP"
    SENSOR_CLOCK = "SENSOR_CLOCK"
    SENSOR_CALIBRATION = "SENSOR_CALIBRATION"
    SENSOR_DISAGREE = "SENSOR_DISAGREE"
    SENSOR_ERROR = "SENSOR_ERROR"
    ALARM_OPEN = "ALARM_OPEN"  # nobody has acknowledged an alarm
    # Is all of it known?
    HISTORY_GAP = "HISTORY_GAP"
    HISTORY_LIMIT = "HISTORY_LIMIT"


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason.

    Attributes:
        code: what was found.
        at_ms: when it happened, or began; None where it is no matter of time.
        values: what its texts are filled with (names of parties, temperatures, durations), all text.
        evidence: identifiers of the records that show it: events, licences, recalls, the item's own.
        source: the rule that it breaks, as a person can look it up ("WHO PQS E006", "GSP 附录1 第…条").
    """

    code: Code
    at_ms: int | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    evidence: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict with its reasons, the worst first; ``until_ms`` is when time alone may change it (None: never)."""

    subject: str
    use: Use
    findings: tuple[Finding, ...]
    policy: str
    now_ms: int
    until_ms: int | None = None

"""What a simulated chain is: events, licences, records of doses, and the truth about each dose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from idtrace.bundle import Verdict
from idtrace.party import Party
from idtrace.product import Product
from idtrace.provenance.history import Gap, Observed
from idtrace.recall import Recall
from idtrace.record import Status
from idtrace.verdict.facts import Answered
from idtrace.verdict.findings import Code

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60 * SECOND_MS
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS


class Fault(StrEnum):
    """What is injected. A dose that has one must never get USE."""

    # The code itself.
    UNREGISTERED = "unregistered"
    FORGED = "forged"
    UNREACHABLE = "unreachable"
    RETIRED = "retired"
    SUSPENDED = "suspended"
    LOT_MISMATCH = "lot-mismatch"
    EXPIRY_MISSING = "expiry-missing"
    PRODUCT_MISSING = "product-missing"
    NEVER_MADE = "never-made"
    MADE_TWICE = "made-twice"
    # Whether it may still be used.
    RECALLED_LOT = "recalled-lot"
    RECALLED_RANGE = "recalled-range"
    RECALLED_PACKAGE = "recalled-package"
    RECALLS_UNKNOWN = "recalls-unknown"
    EXPIRED = "expired"
    STOLEN = "stolen"
    DAMAGED = "damaged"
    ON_HOLD = "on-hold"
    DESTROYED_AND_BACK = "destroyed-and-back"
    DECOMMISSIONED = "decommissioned"
    GIVEN_ALREADY = "given-already"
    OVER_DISPENSED = "over-dispensed"
    COPIED = "copied-code"
    OPEN_TOO_LONG = "open-too-long"
    # Whose hands it was in.
    UNLICENSED = "unlicensed"
    LICENCE_ENDED = "licence-ended"
    CARRIER_OPENS = "carrier-opens"
    STRANGER = "stranger"
    NO_SHIPPER = "no-shipper"
    NO_RECEIPT = "no-receipt"
    WRONG_RECEIVER = "wrong-receiver"
    TWO_HOLDERS = "two-holders"
    IMPOSSIBLE_TRAVEL = "impossible-travel"
    TWO_PACKAGES = "two-packages"
    FROM_THE_FUTURE = "from-the-future"
    # Whether it was always cold.
    FROZEN = "frozen"
    HEAT_SPIKE = "heat-spike"
    HEAT_CUMULATIVE = "heat-cumulative"
    BUDGET_SPENT = "budget-spent"
    MKT_EXCEEDED = "mkt-exceeded"
    SILENCE_TRANSPORT = "silence-transport"
    SILENCE_STORE = "silence-store"
    NO_TEMPERATURE = "no-temperature"
    ALARM_OPEN = "alarm-open"
    SENSOR_STUCK = "sensor-stuck"
    SENSOR_JUMP = "sensor-jump"
    SENSOR_CLOCK = "sensor-clock"
    SENSOR_CALIBRATION = "sensor-calibration"
    SENSOR_DISAGREE = "sensor-disagree"
    # Whether all of it is known.
    HISTORY_GAP = "history-gap"


# The finding that must be among a dose's; where there are several, each alone names the cause.
EXPECTED: Final[Mapping[Fault, frozenset[Code]]] = {
    Fault.UNREGISTERED: frozenset({Code.NOT_REGISTERED}),
    Fault.FORGED: frozenset({Code.FORGED}),
    Fault.UNREACHABLE: frozenset({Code.UNPROVEN}),
    Fault.RETIRED: frozenset({Code.ENDED}),
    Fault.SUSPENDED: frozenset({Code.SUSPENDED}),
    Fault.LOT_MISMATCH: frozenset({Code.LOT_MISMATCH}),
    Fault.EXPIRY_MISSING: frozenset({Code.EXPIRY_UNKNOWN}),
    Fault.PRODUCT_MISSING: frozenset({Code.PRODUCT_UNKNOWN}),
    Fault.NEVER_MADE: frozenset({Code.NOT_COMMISSIONED}),
    Fault.MADE_TWICE: frozenset({Code.COMMISSIONED_BY_STRANGER}),
    Fault.RECALLED_LOT: frozenset({Code.RECALLED}),
    Fault.RECALLED_RANGE: frozenset({Code.RECALLED}),
    Fault.RECALLED_PACKAGE: frozenset({Code.RECALLED}),
    Fault.RECALLS_UNKNOWN: frozenset({Code.RECALL_UNKNOWN}),
    Fault.EXPIRED: frozenset({Code.EXPIRED}),
    Fault.STOLEN: frozenset({Code.STOLEN}),
    Fault.DAMAGED: frozenset({Code.DAMAGED}),
    Fault.ON_HOLD: frozenset({Code.ON_HOLD}),
    Fault.DESTROYED_AND_BACK: frozenset({Code.DESTROYED}),
    Fault.DECOMMISSIONED: frozenset({Code.DECOMMISSIONED}),
    Fault.GIVEN_ALREADY: frozenset({Code.DISPENSED}),
    Fault.OVER_DISPENSED: frozenset({Code.OVER_DISPENSED}),
    Fault.COPIED: frozenset({Code.DOUBLE_PRESENCE, Code.OVER_DISPENSED}),
    Fault.OPEN_TOO_LONG: frozenset({Code.VIAL_OPEN_TOO_LONG}),
    Fault.UNLICENSED: frozenset({Code.PARTY_UNLICENSED}),
    Fault.LICENCE_ENDED: frozenset({Code.PARTY_UNLICENSED}),
    Fault.CARRIER_OPENS: frozenset({Code.PARTY_ROLE}),
    Fault.STRANGER: frozenset({Code.REPORTED_BY_STRANGER}),
    Fault.NO_SHIPPER: frozenset({Code.CUSTODY_NO_SHIPPER}),
    Fault.NO_RECEIPT: frozenset({Code.CUSTODY_NO_RECEIPT}),
    Fault.WRONG_RECEIVER: frozenset({Code.CUSTODY_WRONG_RECEIVER}),
    Fault.TWO_HOLDERS: frozenset({Code.CUSTODY_OVERLAP}),
    Fault.IMPOSSIBLE_TRAVEL: frozenset({Code.IMPOSSIBLE_TRAVEL}),
    Fault.TWO_PACKAGES: frozenset({Code.AGGREGATION_CONTRADICTION}),
    Fault.FROM_THE_FUTURE: frozenset({Code.TIME_DISORDER}),
    Fault.FROZEN: frozenset({Code.FROZEN}),
    Fault.HEAT_SPIKE: frozenset({Code.TOO_WARM}),
    Fault.HEAT_CUMULATIVE: frozenset({Code.HEAT_CUMULATIVE}),
    Fault.BUDGET_SPENT: frozenset({Code.BUDGET_SPENT}),
    Fault.MKT_EXCEEDED: frozenset({Code.MKT_EXCEEDED}),
    Fault.SILENCE_TRANSPORT: frozenset({Code.SILENCE}),
    Fault.SILENCE_STORE: frozenset({Code.SILENCE}),
    Fault.NO_TEMPERATURE: frozenset({Code.NO_TEMPERATURE}),
    Fault.ALARM_OPEN: frozenset({Code.ALARM_OPEN}),
    Fault.SENSOR_STUCK: frozenset({Code.SENSOR_STUCK}),
    Fault.SENSOR_JUMP: frozenset({Code.SENSOR_JUMP}),
    Fault.SENSOR_CLOCK: frozenset({Code.SENSOR_CLOCK}),
    Fault.SENSOR_CALIBRATION: frozenset({Code.SENSOR_CALIBRATION}),
    Fault.SENSOR_DISAGREE: frozenset({Code.SENSOR_DISAGREE}),
    Fault.HISTORY_GAP: frozenset({Code.HISTORY_GAP}),
}


class Trait(StrEnum):
    """What is unusual about a dose and nothing is wrong with; it must get USE as any other."""

    RETURNED = "returned and shipped again"
    DOOR_OPENED = "short excursion, alarm acknowledged"
    CORRECTED = "typing error taken back and corrected"
    VOID_SHIPPING = "shipping taken back, shipped later"
    OPENED_VIAL = "multi-dose vial, some doses given"
    NEAR_EXPIRY = "expires within days"
    LEFT_BEHIND = "left at the province when the rest was shipped"
    RECALL_ENDED = "named by a recall that has ended"
    OTHER_RECALLED = "beside another lot that is recalled"


@dataclass(frozen=True, slots=True)
class Dose:
    """One smallest package with its own code, and the truth about it.

    Attributes:
        identifier, uri: canonical key, and how events write it.
        box: key of the box that it was made into.
        scopes: which events of the chain speak of it: the scopes of the entries (:class:`Entry`).
        answer, lot, expiry: what its record says.
        faults: what was injected; empty for a sound dose.
        traits: what is unusual about it.
        has_product: whether its class tells a product; ``recalls_unknown`` and ``gaps`` as in facts.
    """

    identifier: str
    uri: str
    box: str
    scopes: frozenset[str]
    answer: Answered
    lot: str
    expiry: str
    faults: frozenset[Fault] = frozenset()
    traits: frozenset[Trait] = frozenset()
    has_product: bool = True
    recalls_unknown: tuple[str, ...] = ()
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """An observed event, and the scope whose doses it concerns: "" for all, or a name of :attr:`Dose.scopes`."""

    scope: str
    observed: Observed


@dataclass(frozen=True, slots=True)
class Chain:
    """One simulated chain, whole: everything that the tree of nodes would answer, and the truth."""

    seed: int
    number: int
    now_ms: int
    scheme: str
    product: Product
    parties: Mapping[str, Party]
    entries: tuple[Entry, ...]
    recalls: tuple[Recall, ...]
    doses: tuple[Dose, ...]
    injected: tuple[Fault, ...] = field(default=())


FOUND: Final = Answered(Verdict.FOUND, Status.ACTIVE, version=1)

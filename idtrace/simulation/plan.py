"""What is going to happen in a chain, before any of it is told: packages, shipments, rooms and their times.

Faults change the plan (a lorry without cooling, a shipment that nobody reports); then :mod:`~.telling` makes events of
it. All times here are true; each party's clock is put on when it speaks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random

from idtrace.coldchain.profile import Profile
from idtrace.epcis import uris
from idtrace.product import Product
from idtrace.provenance.history import Gap
from idtrace.recall import Recall
from idtrace.scan import Scheme
from idtrace.simulation.catalogue import Article
from idtrace.simulation.climate import Disturbance
from idtrace.simulation.model import FOUND, HOUR_MS, MINUTE_MS, Fault, Trait
from idtrace.simulation.network import Network, Site
from idtrace.verdict.facts import Answered


@dataclass(slots=True)
class DosePlan:
    """A dose, its record, and the truth about it."""

    uri: str
    number: int
    lot: str
    expiry: str
    answer: Answered = FOUND
    recorded_lot: str | None = None  # where its record says another
    recorded_expiry: str | None = None
    never_made: bool = False
    has_product: bool = True
    recalls_unknown: tuple[str, ...] = ()
    gaps: tuple[Gap, ...] = ()
    elsewhere: list[str] = field(default_factory=list)  # scopes of where a copy of its code is seen
    faults: set[Fault] = field(default_factory=set)
    traits: set[Trait] = field(default_factory=set)

    @property
    def scope(self) -> str:
        """Of what is told of this dose alone."""
        return f"dose:{self.number}"


@dataclass(slots=True)
class Box:
    """Doses in a box; the scopes gather where it came along."""

    uri: str
    number: int
    doses: list[DosePlan]
    scopes: list[str] = field(default_factory=list)

    @property
    def scope(self) -> str:
        """Of what is told of this box and the doses in it."""
        return f"box:{self.number}"


@dataclass(slots=True)
class Carton:
    """Boxes in a carton."""

    uri: str
    number: int
    boxes: list[Box]

    @property
    def scope(self) -> str:
        """Of what is told of this carton and all in it."""
        return f"carton:{self.number}"


@dataclass(slots=True)
class Room:
    """A cold room or refrigerator in a stretch of time; one party may tell of it in several stretches."""

    scope: str
    site: Site
    start_ms: int
    end_ms: int
    probes: int
    disturbances: list[Disturbance] = field(default_factory=list)
    silences: list[tuple[int, int]] = field(default_factory=list)
    faults: set[Fault] = field(default_factory=set)
    fault_ms: int = 0  # when the fault of a probe begins


@dataclass(slots=True)
class Run:
    """A shipment on one vehicle: who, what, when, and what goes wrong on the way."""

    number: int
    sender: Site
    receiver: Site
    carrier: Site
    units: list[str]
    boxes: list[Box]
    ship_ms: int
    duration_ms: int
    disposition: str = "in_transit"
    vehicle_number: int = 0  # given when all times are known: one vehicle goes one way at a time
    named_receiver: Site | None = None  # where the papers name another
    disturbances: list[Disturbance] = field(default_factory=list)
    silences: list[tuple[int, int]] = field(default_factory=list)
    faults: set[Fault] = field(default_factory=set)
    traits: set[Trait] = field(default_factory=set)

    @property
    def scope(self) -> str:
        """Of what is told of this shipment."""
        return f"run:{self.number}"

    @property
    def receive_ms(self) -> int:
        """When it is received."""
        return self.ship_ms + self.duration_ms

    @property
    def vehicle(self) -> str:
        """What it goes on."""
        return self.carrier.vehicle(self.vehicle_number)

    def take_at_least(self, hours: float) -> None:
        """The way is so long."""
        self.duration_ms = max(self.duration_ms, int(hours * HOUR_MS))


@dataclass(slots=True)
class Group:
    """Boxes that go to one clinic in one tote, which stand alone in its refrigerator until they are judged."""

    number: int
    tote: str
    clinic: Site
    boxes: list[Box]
    run: Run
    pack_ms: int
    fridge: Room
    faults: set[Fault] = field(default_factory=set)
    traits: set[Trait] = field(default_factory=set)
    later: list[Run] = field(default_factory=list)  # its return, and its way to the second clinic
    second_fridge: Room | None = None

    @property
    def doses(self) -> list[DosePlan]:
        """All doses in it."""
        return [dose for box in self.boxes for dose in box.doses]

    @property
    def last_clinic(self) -> Site:
        """Where it is now."""
        return self.later[-1].receiver if self.later else self.clinic


@dataclass(slots=True)
class Plan:
    """A whole chain to come."""

    seed: int
    number: int
    random: Random
    scheme: Scheme
    article: Article
    product: Product
    network: Network
    begin_ms: int
    now_ms: int
    expiry: str
    pallets: list[tuple[str, list[Carton]]]
    runs: list[Run] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    rooms: list[Room] = field(default_factory=list)
    recalls: list[Recall] = field(default_factory=list)
    unlicensed: set[str] = field(default_factory=set)
    ended: dict[str, int] = field(default_factory=dict)  # licences that ended, at which second

    @property
    def profile(self) -> Profile:
        """What the product bears."""
        return self.product.profile

    @property
    def cartons(self) -> list[Carton]:
        """All cartons."""
        return [carton for _, cartons in self.pallets for carton in cartons]

    @property
    def boxes(self) -> list[Box]:
        """All boxes."""
        return [box for carton in self.cartons for box in carton.boxes]


def key(uri: str) -> str:
    """The key of a URI."""
    return uris.key(uri)


def date_text(time_ms: int) -> str:
    """The date in China, as expiry dates are written."""
    return datetime.fromtimestamp(time_ms / 1000 + 8 * 3600, UTC).strftime("%Y-%m-%d")


def minutes(count: float) -> int:
    """Minutes as ms."""
    return int(count * MINUTE_MS)

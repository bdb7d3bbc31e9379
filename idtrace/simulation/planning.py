"""Plans a chain: who packs what, which cartons go on and which stay behind, which clinic gets which boxes, and when."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Final

from idtrace.simulation import catalogue
from idtrace.simulation.catalogue import Article
from idtrace.simulation.geography import travel_hours
from idtrace.simulation.model import DAY_MS, HOUR_MS, Trait
from idtrace.simulation.network import DISTRICT, MAKER, Site, network
from idtrace.simulation.plan import Box, Carton, DosePlan, Group, Plan, Room, Run, date_text, minutes

# 2026-03-02 00:00 in China; chains begin within a year from there.
_EPOCH_MS: Final = 1_772_380_800_000
_DOSES_A_BOX: Final = 10
_BOXES_A_CARTON: Final = 5
_CARTONS_A_PALLET: Final = 12
_GROUP_BOXES: Final = (1, 2, 2, 3)
# A clinic keeps what it got for some days before anybody asks; long enough for 20 hours of anything to happen there.
_LAST_STAY_DAYS: Final = 2.2


def plan(seed: int, number: int, doses: int, article: Article) -> Plan:
    """The plan of one chain, with nothing wrong in it; the same for the same arguments, always."""
    random = Random(f"idtrace/{seed}/{number}/{doses}")
    begin_ms = _EPOCH_MS + random.randint(0, 330) * DAY_MS + random.randint(0, 12 * 60) * 60_000
    scheme = catalogue.SCHEMES[number % len(catalogue.SCHEMES)]
    near_expiry = number % 4 == 3
    parties = network(random, begin_ms)
    whole = Plan(
        seed=seed,
        number=number,
        random=random,
        scheme=scheme,
        article=article,
        product=catalogue.product(article, 1 + catalogue.ARTICLES.index(article)),
        network=parties,
        begin_ms=begin_ms,
        now_ms=0,
        expiry="",
        pallets=[],
    )
    route = _Route(whole)
    whole.pallets = _packages(whole, doses)
    route.to_province()
    route.to_district()
    last = max(group.fridge.start_ms for group in whole.groups)
    whole.now_ms = last + int((_LAST_STAY_DAYS + random.random()) * DAY_MS)
    shelf_ms = random.randint(1, 4) * DAY_MS + whole.now_ms - begin_ms if near_expiry else article.shelf_days * DAY_MS
    whole.expiry = date_text(begin_ms + shelf_ms)
    for dose in (dose for box in whole.boxes for dose in box.doses):
        dose.expiry = whole.expiry
        if near_expiry:
            dose.traits.add(Trait.NEAR_EXPIRY)
    return whole


def send_back(whole: Plan, group: Group) -> None:
    """The first clinic sends its boxes back unopened, and the district ships them to a second one."""
    random, parties = whole.random, whole.network
    back_ms = group.run.receive_ms + int(random.uniform(18, 24) * HOUR_MS)
    back = _run(whole, group.clinic, parties.district, parties.district, [group.tote], group.boxes, back_ms)
    back.disposition = "returned"
    again_ms = back.receive_ms + int(random.uniform(3, 8) * HOUR_MS)
    clinic = parties.clinic()
    again = _run(whole, parties.district, clinic, parties.district, [group.tote], group.boxes, again_ms)
    group.later = [back, again]
    group.fridge.end_ms = back_ms + 2 * HOUR_MS
    group.second_fridge = Room(f"room:{clinic.prefix}", clinic, again.receive_ms - HOUR_MS, 0, 1)
    whole.rooms.append(group.second_fridge)
    group.traits.add(Trait.RETURNED)
    for box in group.boxes:
        box.scopes += [back.scope, again.scope, group.second_fridge.scope]
    whole.now_ms = max(whole.now_ms, again.receive_ms + DAY_MS)


def give_vehicles(whole: Plan) -> None:
    """Each shipment a vehicle of its carrier that is free at that time."""
    free_ms: dict[str, list[int]] = {}
    for run in sorted(whole.runs, key=lambda each: (each.ship_ms, each.number)):
        vehicles = free_ms.setdefault(run.carrier.prefix, [])
        number = next((at for at, until in enumerate(vehicles) if until < run.ship_ms), len(vehicles))
        vehicles[number : number + 1] = [run.receive_ms + HOUR_MS]
        run.vehicle_number = number + 1


class _Route:
    def __init__(self, whole: Plan) -> None:
        self.whole = whole
        self.random = whole.random
        self.at_province_ms = 0

    def to_province(self) -> None:
        """Pallets from the maker to the province, after the lot's release."""
        whole, parties = self.whole, self.whole.network
        ship_ms = whole.begin_ms + int(self.random.uniform(1.2, 3.0) * DAY_MS)
        self._room("room:maker", parties.maker, whole.begin_ms - HOUR_MS, ship_ms + 3 * HOUR_MS, whole.boxes)
        run = _run(
            whole,
            parties.maker,
            parties.province,
            parties.carrier,
            [uri for uri, _ in whole.pallets],
            whole.boxes,
            ship_ms,
        )
        self.at_province_ms = run.receive_ms
        self._room("room:province", parties.province, run.receive_ms - HOUR_MS, 0, whole.boxes)

    def to_district(self) -> None:
        """Cartons go on in two parts; of four or more, one stays at the province."""
        whole, parties = self.whole, self.whole.network
        cartons = whole.cartons
        going = cartons[:-1] if len(cartons) >= 4 else cartons
        half = (len(going) + 1) // 2
        ship_ms = self.at_province_ms + int(self.random.uniform(0.8, 2.0) * DAY_MS)
        first = True
        for part in (going[:half], going[half:]):
            if not part:
                continue
            boxes = [box for carton in part for box in carton.boxes]
            units = [carton.uri for carton in part]
            run = _run(whole, parties.province, parties.district, parties.carrier, units, boxes, ship_ms)
            if first:
                self._room("room:district", parties.district, run.receive_ms - HOUR_MS, 0, ())
                first = False
            for box in boxes:
                box.scopes.append("room:district")
            self._to_clinics(boxes, run.receive_ms)
            ship_ms += int(self.random.uniform(0.5, 1.2) * DAY_MS)
        for carton in cartons[len(going) :]:
            for dose in (dose for box in carton.boxes for dose in box.doses):
                dose.traits.add(Trait.LEFT_BEHIND)

    def _to_clinics(self, boxes: list[Box], received_ms: int) -> None:
        whole, parties = self.whole, self.whole.network
        pack_ms = received_ms + int(self.random.uniform(6, 20) * HOUR_MS)
        left = list(boxes)
        while left:
            size = self.random.choice(_GROUP_BOXES)
            taken, left = left[:size], left[size:]
            number = len(whole.groups)
            clinic = parties.clinic()
            tote = catalogue.package_uri(DISTRICT, "tote", whole.number * 1_000 + number)
            carrier = self.random.choice((parties.carrier, parties.district))
            run = _run(whole, parties.district, clinic, carrier, [tote], taken, pack_ms + minutes(40))
            fridge = self._room(f"room:{clinic.prefix}", clinic, 0, 0, taken, probes=1)
            fridge.start_ms = run.receive_ms - HOUR_MS
            whole.groups.append(Group(number, tote, clinic, taken, run, pack_ms, fridge))
            pack_ms += minutes(self.random.uniform(10, 50))

    def _room(
        self, scope: str, site: Site, start_ms: int, end_ms: int, boxes: Iterable[Box], probes: int = 2
    ) -> Room:  # fmt: skip
        room = Room(scope, site, start_ms, end_ms, probes)
        self.whole.rooms.append(room)
        for box in boxes:
            box.scopes.append(scope)
        return room


def _run(
    whole: Plan, sender: Site, receiver: Site, carrier: Site, units: list[str], boxes: list[Box], ship_ms: int
) -> Run:  # fmt: skip
    hours = travel_hours(sender.city, receiver.city) * whole.random.uniform(1.0, 1.2)
    run = Run(len(whole.runs), sender, receiver, carrier, units, boxes, ship_ms, int(hours * HOUR_MS))
    whole.runs.append(run)
    for box in boxes:
        box.scopes.append(run.scope)
    return run


def _packages(whole: Plan, doses: int) -> list[tuple[str, list[Carton]]]:
    """Doses in boxes of 10, boxes in cartons of 5, cartons on pallets of 12."""
    base = whole.number * 1_000_000 + whole.seed % 1_000 * 1_000_000_000
    lot = f"L{whole.seed % 1000:03d}{whole.number:04d}A"
    boxes: list[Box] = []
    for first in range(0, doses, _DOSES_A_BOX):
        numbers = range(first, min(first + _DOSES_A_BOX, doses))
        made = [DosePlan(catalogue.dose_uri(whole.scheme, base + number), number, lot, "") for number in numbers]
        box = Box(catalogue.package_uri(MAKER, "box", base + first), len(boxes), made)
        box.scopes.append(box.scope)
        boxes.append(box)
    cartons: list[Carton] = []
    for first in range(0, len(boxes), _BOXES_A_CARTON):
        number = len(cartons)
        carton = Carton(catalogue.package_uri(MAKER, "carton", base + number), number, boxes[first : first + 5])
        for box in carton.boxes:
            box.scopes.append(carton.scope)
        cartons.append(carton)
    return [
        (catalogue.pallet_uri(whole.scheme, base + first), cartons[first : first + _CARTONS_A_PALLET])
        for first in range(0, len(cartons), _CARTONS_A_PALLET)
    ]

"""Tells a plan as events: making, packing, handing over, unpacking, and what probes recorded meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from idtrace.epcis.model import Action, EventType
from idtrace.simulation.catalogue import other_spelling
from idtrace.simulation.climate import STORE_MINUTES, TRANSPORT_MINUTES, Probe, record, rfc3339
from idtrace.simulation.model import DAY_MS, HOUR_MS, Fault
from idtrace.simulation.network import MAKER, Site
from idtrace.simulation.plan import Group, Plan, Room, Run, minutes
from idtrace.simulation.sensor_faults import spoil
from idtrace.simulation.voice import Voice, on_clock, possessing

# A room tells a little more than once a day; a vehicle when it arrives, in parts of at most ten hours.
_ROOM_POINTS: Final = 46
_VEHICLE_POINTS: Final = 120
_CALIBRATED_FOR_MS: Final = 300 * DAY_MS


def tell(plan: Plan, voice: Voice) -> None:
    """Everything that happened, by those who did it."""
    _make(plan, voice)
    _first_packing(plan, voice)
    for run in plan.runs:
        _ship(plan, voice, run)
    _at_province(plan, voice)
    for group in plan.groups:
        _repack(plan, voice, group)
    for room in plan.rooms:
        _measure_room(plan, voice, room)


def _make(plan: Plan, voice: Voice) -> None:
    """Bulk is made and filled; doses get their codes with it, or box by box."""
    maker, begin_ms = plan.network.maker, plan.begin_ms
    bulk = f"idtrace:{MAKER}/bulk/{plan.seed % 1000}-{plan.number}"
    here = {"read_point": maker.room, "biz_location": maker.room}
    voice.say(
        maker, begin_ms - 3 * HOUR_MS, "", EventType.OBJECT, Action.ADD, "commissioning", epcs=(bulk,),
        disposition="active", **here,
    )  # fmt: skip
    doses = [(box, dose) for box in plan.boxes for dose in box.doses if not dose.never_made]
    lots = sorted({(dose.lot, dose.expiry) for _, dose in doses})
    for position, (lot, expiry) in enumerate(lots):
        ilmd = {"cbvmda:lotNumber": lot, "cbvmda:itemExpirationDate": expiry}
        of_lot = [(box, dose) for box, dose in doses if (dose.lot, dose.expiry) == (lot, expiry)]
        at_ms = begin_ms + minutes(5 * position)
        if plan.number % 2:
            voice.say(
                maker, at_ms, f"lot:{lot}", EventType.TRANSFORMATION, None, "commissioning", inputs=(bulk,),
                outputs=tuple(dose.uri for _, dose in of_lot), disposition="active", ilmd=ilmd, **here,
            )  # fmt: skip
            continue
        for box in {id(box): box for box, _ in of_lot}.values():
            epcs = tuple(dose.uri for owner, dose in of_lot if owner is box)
            voice.say(
                maker, at_ms, box.scope, EventType.OBJECT, Action.ADD, "commissioning", epcs=epcs,
                disposition="active", ilmd=ilmd, **here,
            )  # fmt: skip


def _first_packing(plan: Plan, voice: Voice) -> None:
    maker, begin_ms = plan.network.maker, plan.begin_ms
    here: dict[str, Any] = {"disposition": "in_progress", "read_point": maker.room, "biz_location": maker.room}
    for box in plan.boxes:
        voice.pack(maker, begin_ms + minutes(60), box.scope, box.uri, (dose.uri for dose in box.doses), **here)
    for carton in plan.cartons:
        voice.pack(
            maker, begin_ms + minutes(90), carton.scope, carton.uri, (box.uri for box in carton.boxes), **here
        )  # fmt: skip
    for pallet, cartons in plan.pallets:
        voice.pack(maker, begin_ms + minutes(120), "", pallet, (carton.uri for carton in cartons), **here)


def _ship(plan: Plan, voice: Voice, run: Run) -> None:
    """Loading, shipping, the way and what was measured on it, receiving."""
    sender, carrier, receiver, scope = run.sender, run.carrier, run.receiver, run.scope
    towards = {"sources": possessing(sender), "destinations": possessing(run.named_receiver or receiver)}
    probes = _on_vehicle(plan, run)
    voice.pack(
        sender, run.ship_ms - minutes(6), scope, run.vehicle, run.units, "loading", read_point=sender.room
    )  # fmt: skip
    if Fault.NO_SHIPPER not in run.faults:
        voice.observe(
            sender, run.ship_ms, scope, "shipping", run.units, disposition=run.disposition, read_point=sender.room,
            **towards,
        )  # fmt: skip
        voice.observe(carrier, run.ship_ms + minutes(3), scope, "departing", run.units, disposition=run.disposition)
    arrived_ms = run.receive_ms - minutes(8)
    if any(probe.points for probe in probes):
        voice.sense(carrier, scope, probes, run.vehicle, _VEHICLE_POINTS)
    voice.observe(carrier, arrived_ms, scope, "arriving", run.units, disposition=run.disposition)
    voice.unpack(carrier, run.receive_ms - minutes(2), scope, run.vehicle, run.units, "unloading")
    if Fault.NO_RECEIPT not in run.faults:
        _receive(plan, voice, run)


def _receive(plan: Plan, voice: Voice, run: Run) -> None:
    """The receiver reads out the consignment's logger while it signs."""
    receiver = run.receiver
    logger = Probe(receiver.device("logger"), 0.0, calibrated_until=_calibration(plan))
    record(
        [logger], plan.article.held, run.receive_ms - minutes(10), run.receive_ms, TRANSPORT_MINUTES, (), plan.random
    )
    measured = () if Fault.NO_TEMPERATURE in run.faults else (on_clock(receiver, logger, logger.points),)
    towards = {"sources": possessing(run.sender), "destinations": possessing(receiver)}
    disposition = "returned" if run.disposition == "returned" else "in_progress"
    voice.observe(
        receiver, run.receive_ms, run.scope, "receiving", [other_spelling(unit) for unit in run.units],
        disposition=disposition, read_point=receiver.room, biz_location=receiver.room, sensors=measured, **towards,
    )  # fmt: skip


def _at_province(plan: Plan, voice: Voice) -> None:
    province = plan.network.province
    here: dict[str, Any] = {"read_point": province.room, "biz_location": province.room}
    for pallet, cartons in plan.pallets:
        children: Iterable[str] = (carton.uri for carton in cartons)
        at_ms = plan.runs[0].receive_ms + minutes(45)
        voice.unpack(province, at_ms, "", pallet, () if plan.number % 3 == 0 else children, **here)


def _repack(plan: Plan, voice: Voice, group: Group) -> None:
    """The district takes boxes out of their cartons and into a tote; the clinic takes them out of that."""
    district = plan.network.district
    here: dict[str, Any] = {"read_point": district.room, "biz_location": district.room}
    scope = group.run.scope
    of_carton = {id(box): carton for carton in plan.cartons for box in carton.boxes}
    for carton in {id(one): one for one in (of_carton[id(box)] for box in group.boxes)}.values():
        taken = [box.uri for box in group.boxes if of_carton[id(box)] is carton]
        voice.unpack(district, group.pack_ms, scope, carton.uri, taken, **here)
    voice.pack(district, group.pack_ms + minutes(5), scope, group.tote, [box.uri for box in group.boxes], **here)
    clinic, received_ms = group.last_clinic, (group.later or [group.run])[-1].receive_ms
    inside: dict[str, Any] = {"read_point": clinic.room, "biz_location": clinic.room}
    if Fault.NO_RECEIPT not in group.run.faults:
        voice.unpack(clinic, received_ms + minutes(15), scope, group.tote, [box.uri for box in group.boxes], **inside)
    voice.observe(
        clinic, received_ms + minutes(20), scope, "storing", [box.uri for box in group.boxes],
        disposition="in_progress", **inside,
    )  # fmt: skip


def _on_vehicle(plan: Plan, run: Run) -> list[Probe]:
    """Two probes from before loading until after unloading."""
    names = (f"{run.vehicle_number}a", f"{run.vehicle_number}b")
    probes = _probes(plan, run.carrier, names)
    record(
        probes, plan.article.held, run.ship_ms - minutes(20), run.receive_ms, TRANSPORT_MINUTES, run.disturbances,
        plan.random,
    )  # fmt: skip
    _silence(probes, run.silences)
    spoil(plan, run.faults, probes, run.ship_ms + run.duration_ms // 2)
    return probes


def _measure_room(plan: Plan, voice: Voice, room: Room) -> None:
    names = [f"room-{number}" for number in range(1, room.probes + 1)]
    probes = _probes(plan, room.site, names)
    end_ms = room.end_ms or plan.now_ms - minutes(6)
    record(probes, plan.article.held, room.start_ms, end_ms, STORE_MINUTES, room.disturbances, plan.random)
    _silence(probes, room.silences)
    spoil(plan, room.faults, probes, room.fault_ms)
    voice.sense(room.site, room.scope, probes, room.site.room, _ROOM_POINTS, biz_location=room.site.room)


def _probes(plan: Plan, site: Site, names: Sequence[str]) -> list[Probe]:
    until = _calibration(plan)
    return [Probe(site.device(name), plan.random.uniform(-0.15, 0.15), calibrated_until=until) for name in names]


def _calibration(plan: Plan) -> str:
    return rfc3339(plan.begin_ms + _CALIBRATED_FOR_MS)


def _silence(probes: Sequence[Probe], silences: Sequence[tuple[int, int]]) -> None:
    for probe in probes:
        probe.points = [point for point in probe.points if not any(a < point[0] < b for a, b in silences)]

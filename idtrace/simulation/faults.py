"""Faults of shipments, rooms and packages: how each is planned, and whom exactly it concerns.

A fault of a group concerns all doses of the boxes that went to one clinic together: nobody else's doses were on that
vehicle or in that refrigerator. Those of a single dose are in :mod:`~.dose_faults`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from idtrace.recall import Recall, Scope, ScopeKind
from idtrace.simulation.catalogue import Article
from idtrace.simulation.climate import Disturbance
from idtrace.simulation.geography import FAR_AWAY
from idtrace.simulation.model import DAY_MS, HOUR_MS, SECOND_MS, Fault
from idtrace.simulation.network import DISTRICT
from idtrace.simulation.plan import Group, Plan, date_text, key, minutes

_Planned = Callable[[Plan, Group], None]


def _frozen(plan: Plan, group: Group) -> None:
    """The lorry's unit freezes the load for 100 minutes."""
    _disturb_run(plan, group, -3.5, 100)


def _heat_spike(plan: Plan, group: Group) -> None:
    """Left in the sun: above 45 °C for more than an hour."""
    _disturb_run(plan, group, 48.0, 75)


def _disturb_run(plan: Plan, group: Group, level: float, hold_minutes: int) -> None:
    run = group.run
    disturbance = Disturbance(run.ship_ms + minutes(10), hold_minutes, level, rate=1.0)
    back_ms = disturbance.end_ms(plan.article.held.level)
    run.disturbances.append(disturbance)
    run.take_at_least((back_ms - run.ship_ms) / HOUR_MS + 0.5)


def _heat_cumulative(plan: Plan, group: Group) -> None:
    """Above 30 °C for 5 hours with the carrier and for 6 at the clinic: neither alone is too long."""
    _disturb_run(plan, group, 33.0, 5 * 60)
    group.fridge.disturbances.append(Disturbance(group.run.receive_ms + 5 * HOUR_MS, 6 * 60, 33.0))


def _budget_spent(plan: Plan, group: Group) -> None:
    """A refrigerator a little too warm for more than the day that stability data allow."""
    group.fridge.disturbances.append(Disturbance(group.run.receive_ms + 5 * HOUR_MS, 26 * 60, 9.6))
    assert plan.profile.budget_seconds < 26 * 3600, "the budget is a day"


def _mkt_exceeded(plan: Plan, group: Group) -> None:
    """12 °C for 22 hours: below every limit of WHO's, and too warm on average."""
    del plan
    group.fridge.disturbances.append(Disturbance(group.run.receive_ms + 5 * HOUR_MS, 22 * 60, 12.0))


def _alarm_open(plan: Plan, group: Group) -> None:
    """A refrigerator out of range for 40 minutes, and nobody has answered for it."""
    held = plan.article.held
    level = held.high + 4.0
    group.fridge.disturbances.append(Disturbance(group.run.receive_ms + 5 * HOUR_MS, 40, level, rate=0.2))


def _silence_transport(plan: Plan, group: Group) -> None:
    """Nothing was recorded for an hour of the way."""
    del plan
    run = group.run
    run.take_at_least(2)
    run.silences.append((run.ship_ms + minutes(20), run.ship_ms + minutes(80)))


def _silence_store(plan: Plan, group: Group) -> None:
    """Nothing was recorded for five hours of a night."""
    del plan
    begin_ms = group.run.receive_ms + 9 * HOUR_MS
    group.fridge.silences.append((begin_ms, begin_ms + 5 * HOUR_MS))


def _no_temperature(plan: Plan, group: Group) -> None:
    """No probe on the whole way."""
    del plan
    group.run.take_at_least(2)
    group.run.faults.add(Fault.NO_TEMPERATURE)


def _sensor_on_vehicle(fault: Fault) -> _Planned:
    def planned(plan: Plan, group: Group) -> None:
        del plan
        group.run.take_at_least(3)
        group.run.faults.add(fault)

    return planned


def _sensor_in_fridge(fault: Fault) -> _Planned:
    def planned(plan: Plan, group: Group) -> None:
        del plan
        group.fridge.faults.add(fault)
        group.fridge.fault_ms = group.run.receive_ms + 5 * HOUR_MS

    return planned


def _in_papers(fault: Fault) -> _Planned:
    def planned(plan: Plan, group: Group) -> None:
        del plan
        group.run.faults.add(fault)

    return planned


def _wrong_receiver(plan: Plan, group: Group) -> None:
    """The papers name another clinic than the one that signs."""
    group.run.named_receiver = next(site for site in plan.network.clinics if site is not group.clinic)


def _impossible_travel(plan: Plan, group: Group) -> None:
    """Received in a far-off city three quarters of an hour after it was shipped."""
    del plan
    group.clinic.city = FAR_AWAY
    group.run.duration_ms = minutes(45)


def _unlicensed(plan: Plan, group: Group) -> None:
    """The clinic has no licence at all."""
    plan.unlicensed.add(group.clinic.prefix)


def _licence_ended(plan: Plan, group: Group) -> None:
    """The clinic's licence had ended before it received."""
    plan.ended[group.clinic.prefix] = (group.run.receive_ms - 10 * DAY_MS) // SECOND_MS


def _carrier_opens(plan: Plan, group: Group) -> None:
    """A carrier, who may transport and measure, opens the tote on the way (told in :mod:`~.aftermath`)."""
    group.run.carrier = plan.network.carrier
    group.run.take_at_least(1.5)


def _expired(plan: Plan, group: Group) -> None:
    """These boxes are of an older lot, whose last day was yesterday."""
    for dose in group.doses:
        dose.lot = _other_lot(dose.lot)
        dose.expiry = date_text(plan.now_ms - DAY_MS)


def _recalled_lot(plan: Plan, group: Group) -> None:
    """These boxes are of another lot, and that one is recalled."""
    for dose in group.doses:
        dose.lot = _other_lot(dose.lot, "R")
    lot = group.doses[0].lot
    _recall(plan, _zone(plan), Scope(ScopeKind.LOT, product=plan.product.identifier, lot=lot))


def _recalled_range(plan: Plan, group: Group) -> None:
    """The codes from the first to the last of these boxes are recalled."""
    keys = sorted(key(dose.uri) for dose in group.doses)
    _recall(plan, _zone(plan), Scope(ScopeKind.RANGE, first=keys[0], last=keys[-1]))


def _recalled_package(plan: Plan, group: Group) -> None:
    """Whatever was in the tote on this way is recalled by the district."""
    begin = (group.pack_ms - HOUR_MS) // SECOND_MS
    _recall(plan, DISTRICT, Scope(ScopeKind.PACKAGE, package=key(group.tote), since_s=begin))


def _told_later(plan: Plan, group: Group) -> None:
    """What is told of it comes after all else: :mod:`~.aftermath`."""
    del plan, group


def _recall(plan: Plan, zone: str, scope: Scope) -> None:
    issued_at = (plan.now_ms - 3 * HOUR_MS) // SECOND_MS
    name = f"R-{plan.number}-{len(plan.recalls) + 1}"
    plan.recalls.append(
        Recall(
            zone, name, scope, 1, "Out of specification", "检验不合格", issued_at, evidence=f"{zone}/recalls", version=1
        )
    )


def _zone(plan: Plan) -> str:
    """The zone of the codes themselves: a recall reaches what is named in its zone or below, and nothing else."""
    return key(plan.boxes[0].doses[0].uri).partition("/")[0]


def _other_lot(lot: str, letter: str = "E") -> str:
    return lot[:-1] + letter


PLANNED: Final[Mapping[Fault, _Planned]] = {
    Fault.FROZEN: _frozen,
    Fault.NO_SHIPPER: _in_papers(Fault.NO_SHIPPER),
    Fault.SILENCE_TRANSPORT: _silence_transport,
    Fault.RECALLED_LOT: _recalled_lot,
    Fault.HEAT_CUMULATIVE: _heat_cumulative,
    Fault.UNLICENSED: _unlicensed,
    Fault.SENSOR_STUCK: _sensor_in_fridge(Fault.SENSOR_STUCK),
    Fault.WRONG_RECEIVER: _wrong_receiver,
    Fault.BUDGET_SPENT: _budget_spent,
    Fault.RECALLED_PACKAGE: _recalled_package,
    Fault.SENSOR_JUMP: _sensor_on_vehicle(Fault.SENSOR_JUMP),
    Fault.IMPOSSIBLE_TRAVEL: _impossible_travel,
    Fault.MKT_EXCEEDED: _mkt_exceeded,
    Fault.NO_RECEIPT: _in_papers(Fault.NO_RECEIPT),
    Fault.SILENCE_STORE: _silence_store,
    Fault.CARRIER_OPENS: _carrier_opens,
    Fault.HEAT_SPIKE: _heat_spike,
    Fault.RECALLED_RANGE: _recalled_range,
    Fault.NO_TEMPERATURE: _no_temperature,
    Fault.TWO_HOLDERS: _told_later,
    Fault.SENSOR_CLOCK: _sensor_in_fridge(Fault.SENSOR_CLOCK),
    Fault.EXPIRED: _expired,
    Fault.ALARM_OPEN: _alarm_open,
    Fault.LICENCE_ENDED: _licence_ended,
    Fault.SENSOR_CALIBRATION: _sensor_in_fridge(Fault.SENSOR_CALIBRATION),
    Fault.TWO_PACKAGES: _told_later,
    Fault.SENSOR_DISAGREE: _sensor_on_vehicle(Fault.SENSOR_DISAGREE),
    Fault.STOLEN: _told_later,
    Fault.STRANGER: _told_later,
}
# Rules of 2 to 8 °C; frozen vaccines bear frost, and a fault of theirs would have to heat them by 50 K and more.
_OF_FRIDGES: Final = frozenset({Fault.FROZEN, Fault.HEAT_SPIKE, Fault.HEAT_CUMULATIVE, Fault.MKT_EXCEEDED})


def can_happen(article: Article, fault: Fault) -> bool:
    """Whether the product has the rule that this fault breaks."""
    if fault is Fault.BUDGET_SPENT:
        return article.budget_seconds > 0
    return fault not in _OF_FRIDGES or article.held.level > 0


def afflict(plan: Plan, group: Group, fault: Fault) -> None:
    """Plan a fault of a group, and write the truth down."""
    PLANNED[fault](plan, group)
    group.faults.add(fault)
    for dose in group.doses:
        dose.faults.add(fault)


def ended_recall(plan: Plan) -> Recall:
    """A recall of the whole product that has ended: it concerns nobody any more."""
    issued_at = (plan.begin_ms + DAY_MS) // SECOND_MS
    scope = Scope(ScopeKind.PRODUCT, product=plan.product.identifier)
    zone = _zone(plan)
    return Recall(
        zone, f"R-{plan.number}-0", scope, 3, "Leaflet", "说明书", issued_at, issued_at + 86_400,
        evidence=f"{zone}/recalls", version=1,
    )  # fmt: skip

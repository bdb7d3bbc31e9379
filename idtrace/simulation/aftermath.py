"""What is told of groups after all else: faults that are one event too many, and corrections that are none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

from idtrace.coldchain.alarms import ACKNOWLEDGES, COMMENT, AlarmKind, alarm_id
from idtrace.epcis.model import ErrorDeclaration, EventType
from idtrace.simulation.catalogue import package_uri
from idtrace.simulation.climate import Disturbance
from idtrace.simulation.model import HOUR_MS, Fault, Trait
from idtrace.simulation.network import DISTRICT
from idtrace.simulation.plan import Group, Plan, key, minutes
from idtrace.simulation.voice import Voice, possessing

_Told = Callable[[Plan, Voice, Group], None]


def _boxes(group: Group) -> list[str]:
    return [box.uri for box in group.boxes]


def _carrier_opens(plan: Plan, voice: Voice, group: Group) -> None:
    del plan
    run = group.run
    at_ms = run.ship_ms + run.duration_ms // 2
    voice.unpack(run.carrier, at_ms, run.scope, group.tote, _boxes(group))
    voice.pack(run.carrier, at_ms + minutes(10), run.scope, group.tote, _boxes(group))


def _two_holders(plan: Plan, voice: Voice, group: Group) -> None:
    """The district still tells of boxes in its own cold room that the clinic has received."""
    district = plan.network.district
    here: dict[str, Any] = {"read_point": district.room, "biz_location": district.room}
    at_ms = group.run.receive_ms + 6 * HOUR_MS
    voice.observe(district, at_ms, group.run.scope, "storing", _boxes(group), disposition="in_progress", **here)


def _two_packages(plan: Plan, voice: Voice, group: Group) -> None:
    """Half an hour after they went into a tote, the same boxes go into another one."""
    district = plan.network.district
    other = package_uri(DISTRICT, "tote", plan.number * 1_000 + 900 + group.number)
    at_ms = group.pack_ms + minutes(25)
    voice.pack(district, at_ms, group.run.scope, other, _boxes(group), read_point=district.room)


def _stolen(plan: Plan, voice: Voice, group: Group) -> None:
    clinic = group.last_clinic
    at_ms = plan.now_ms - 8 * HOUR_MS
    voice.observe(clinic, at_ms, group.run.scope, "inspecting", _boxes(group), disposition="stolen",
                  read_point=clinic.room)  # fmt: skip


def _stranger(plan: Plan, voice: Voice, group: Group) -> None:
    """A company that never had the boxes says that it packs them."""
    at_ms = group.run.receive_ms + 7 * HOUR_MS
    voice.observe(plan.network.stranger, at_ms, group.run.scope, "storing", _boxes(group), disposition="in_progress")


TOLD: Final[Mapping[Fault, _Told]] = {
    Fault.CARRIER_OPENS: _carrier_opens,
    Fault.TWO_HOLDERS: _two_holders,
    Fault.TWO_PACKAGES: _two_packages,
    Fault.STOLEN: _stolen,
    Fault.STRANGER: _stranger,
}


def tell(plan: Plan, voice: Voice) -> None:
    """Everything of groups that comes after the plain story."""
    for group in plan.groups:
        for fault in sorted(group.faults & TOLD.keys()):
            TOLD[fault](plan, voice, group)
        if Trait.VOID_SHIPPING in group.traits:
            _ship_and_take_back(plan, voice, group)
        if Trait.CORRECTED in group.traits:
            _correct(voice, group)
        if Trait.DOOR_OPENED in group.traits:
            _acknowledge(plan, voice, group)


def open_door(plan: Plan, group: Group) -> None:
    """The refrigerator's door stands open for some minutes; somebody answers for the alarm."""
    held = plan.article.held
    level = held.high + (1.6 if held.level > 0 else 3.0)
    opened_ms = group.run.receive_ms + 5 * HOUR_MS
    group.fridge.disturbances.append(Disturbance(opened_ms, 6, level))
    group.traits.add(Trait.DOOR_OPENED)


def _ship_and_take_back(plan: Plan, voice: Voice, group: Group) -> None:
    """The tote was booked out before its lorry had come, and booked in again."""
    run, district = group.run, plan.network.district
    towards = {"sources": possessing(run.sender), "destinations": possessing(run.receiver)}
    given: dict[str, Any] = {"read_point": district.room, **towards}
    at_ms = run.ship_ms - minutes(25)
    voice.observe(district, at_ms, run.scope, "shipping", [group.tote], disposition="in_transit", **given)
    voice.observe(district, at_ms + minutes(10), run.scope, "void_shipping", [group.tote], **given)


def _correct(voice: Voice, group: Group) -> None:
    """The clinic scanned the tote into somebody else's room by mistake, says so, and gives the right one instead."""
    run = group.run
    told = next(
        entry.observed.event
        for entry in voice.entries
        if entry.scope == run.scope and entry.observed.event.biz_step == "receiving"
    )
    wrong_id = told.event_id.replace("urn:uuid:", "urn:uuid:f")[: len(told.event_id)]
    elsewhere = run.sender.room
    wrong = replace(told, event_id=wrong_id, biz_location=elsewhere, read_point=elsewhere, sensors=())
    declared_ms = told.time_ms + minutes(30)
    error = ErrorDeclaration(declared_ms, "incorrect_data", (told.event_id,))
    assert wrong.type is EventType.OBJECT, "a receiving observes"
    voice.add(run.receiver, wrong, run.scope)
    voice.add(run.receiver, replace(wrong, error=error), run.scope)


def _acknowledge(plan: Plan, voice: Voice, group: Group) -> None:
    """Whoever opened the door answers for the alarms of the refrigerator's probe: for each time that it went out."""
    site, limit = group.fridge.site, plan.article.held.high
    device = site.device("room-1")
    readings = sorted(
        (report.time_ms, report.value)
        for entry in voice.entries
        if entry.scope == group.fridge.scope
        for element in entry.observed.event.sensors
        for report in element.reports
        if report.time_ms is not None and report.value is not None
    )
    starts = [
        time_ms
        for (_, before), (time_ms, value) in pairwise(readings)
        if before <= limit < value and time_ms >= group.fridge.disturbances[0].start_ms
    ]
    alarms = [alarm_id(key(site.room), AlarmKind.ABOVE, time_ms, key(device)) for time_ms in starts]
    words = {ACKNOWLEDGES: alarms, COMMENT: "补货时开门 已关闭并复核温度"}
    at_ms = starts[-1] - site.skew_ms + 2 * HOUR_MS
    voice.observe(
        site, at_ms, group.fridge.scope, "inspecting", _boxes(group), disposition="conformant", extensions=words
    )

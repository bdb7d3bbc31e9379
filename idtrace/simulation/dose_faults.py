"""Faults of single doses: what their records say, and what is told of them alone, after all else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from idtrace.bundle import Verdict
from idtrace.epcis.model import Action, EventType
from idtrace.provenance.history import Gap, GapKind
from idtrace.record import Status
from idtrace.simulation.catalogue import Article
from idtrace.simulation.model import DAY_MS, HOUR_MS, Fault, Trait
from idtrace.simulation.network import MAKER, Site
from idtrace.simulation.plan import DosePlan, Group, Plan, minutes
from idtrace.simulation.voice import Voice
from idtrace.verdict.facts import Answered

DOSES: Final = "idtrace:doses"

_Recorded = Callable[[DosePlan], None]
_Told = Callable[[Plan, Voice, Group, DosePlan], None]


def _answer(verdict: Verdict, reason: str, status: Status | None = None) -> _Recorded:
    def recorded(dose: DosePlan) -> None:
        dose.answer = Answered(verdict, status, reason, 0 if status is None else 2)
        if verdict is not Verdict.FOUND:
            # Without a record nothing tells its lot, its expiry or its product.
            dose.recorded_lot = dose.recorded_expiry = ""
            dose.has_product = False

    return recorded


def _lot_mismatch(dose: DosePlan) -> None:
    dose.recorded_lot = dose.lot[:-1] + "X"


def _expiry_missing(dose: DosePlan) -> None:
    # Neither its record nor the event of its making says when it expires.
    dose.recorded_expiry = dose.expiry = ""


def _product_missing(dose: DosePlan) -> None:
    dose.has_product = False


def _never_made(dose: DosePlan) -> None:
    dose.never_made = True


def _recalls_unknown(dose: DosePlan) -> None:
    dose.recalls_unknown = (MAKER,)


def _history_gap(dose: DosePlan) -> None:
    event = f"{MAKER}/event/{'0' * 64}"
    dose.gaps = (Gap(GapKind.UNREACHABLE, event, "no node answered", "ent.example:7000"),)


RECORDED: Final[Mapping[Fault, _Recorded]] = {
    Fault.UNREGISTERED: _answer(Verdict.ABSENT, "IDENTIFIER_ABSENT"),
    Fault.FORGED: _answer(Verdict.BOGUS, "SIGNATURE_INVALID"),
    Fault.UNREACHABLE: _answer(Verdict.UNREACHABLE, "UNREACHABLE"),
    Fault.RETIRED: _answer(Verdict.GONE, "IDENTIFIER_RETIRED", Status.RETIRED),
    Fault.SUSPENDED: _answer(Verdict.FOUND, "", Status.SUSPENDED),
    Fault.LOT_MISMATCH: _lot_mismatch,
    Fault.EXPIRY_MISSING: _expiry_missing,
    Fault.PRODUCT_MISSING: _product_missing,
    Fault.NEVER_MADE: _never_made,
    Fault.RECALLS_UNKNOWN: _recalls_unknown,
    Fault.HISTORY_GAP: _history_gap,
}


def _ended(step: str, disposition: str, action: Action = Action.DELETE) -> _Told:
    def told(plan: Plan, voice: Voice, group: Group, dose: DosePlan) -> None:
        _at_clinic(plan, voice, group, dose, step, disposition, action=action, hours_ago=9)

    return told


def _destroyed_and_back(plan: Plan, voice: Voice, group: Group, dose: DosePlan) -> None:
    _at_clinic(plan, voice, group, dose, "destroying", "destroyed", action=Action.DELETE, hours_ago=9)
    _at_clinic(plan, voice, group, dose, "storing", "in_progress", hours_ago=4)


def _given_already(plan: Plan, voice: Voice, group: Group, dose: DosePlan) -> None:
    _give(plan, voice, group.last_clinic, dose, plan.product.doses, 2)


def _over_dispensed(plan: Plan, voice: Voice, group: Group, dose: DosePlan) -> None:
    _give(plan, voice, group.last_clinic, dose, plan.product.doses, 3)
    _give(plan, voice, group.last_clinic, dose, 1, 2)


def _copied(plan: Plan, voice: Voice, group: Group, dose: DosePlan) -> None:
    """The same code is used up at two clinics within minutes."""
    other = next(site for site in plan.network.clinics if site is not group.last_clinic)
    _give(plan, voice, group.last_clinic, dose, plan.product.doses, 2)
    _give(plan, voice, other, dose, plan.product.doses, 1.9)
    dose.elsewhere.append(f"room:{other.prefix}")


def _open_too_long(plan: Plan, voice: Voice, group: Group, dose: DosePlan) -> None:
    hours = plan.product.vial_hours + 3
    _give(plan, voice, group.last_clinic, dose, 1, hours)


def _made_twice(plan: Plan, voice: Voice, group: Group, dose: DosePlan) -> None:
    del group
    stranger = plan.network.stranger
    voice.say(
        stranger, plan.begin_ms + 5 * HOUR_MS, dose.scope, EventType.OBJECT, Action.ADD, "commissioning",
        epcs=(dose.uri,), disposition="active",
    )  # fmt: skip


def _from_the_future(plan: Plan, voice: Voice, group: Group, dose: DosePlan) -> None:
    clinic = group.last_clinic
    here = {"read_point": clinic.room, "biz_location": clinic.room}
    voice.observe(clinic, plan.now_ms + 5 * DAY_MS, dose.scope, "storing", [dose.uri], **here)


TOLD: Final[Mapping[Fault, _Told]] = {
    Fault.DESTROYED_AND_BACK: _destroyed_and_back,
    Fault.DECOMMISSIONED: _ended("decommissioning", "inactive"),
    Fault.DAMAGED: _ended("inspecting", "damaged", Action.OBSERVE),
    Fault.ON_HOLD: _ended("holding", "non_conformant", Action.OBSERVE),
    Fault.GIVEN_ALREADY: _given_already,
    Fault.OVER_DISPENSED: _over_dispensed,
    Fault.COPIED: _copied,
    Fault.OPEN_TOO_LONG: _open_too_long,
    Fault.MADE_TWICE: _made_twice,
    Fault.FROM_THE_FUTURE: _from_the_future,
}
DOSE_FAULTS: Final = (*RECORDED, *TOLD)


def can_happen(article: Article, fault: Fault) -> bool:
    """Whether the product has the rule that this fault breaks."""
    return fault is not Fault.OPEN_TOO_LONG or article.vial_hours > 0


def afflict(dose: DosePlan, fault: Fault) -> None:
    """Plan a fault of a dose, and write the truth down."""
    dose.faults.add(fault)
    if fault in RECORDED:
        RECORDED[fault](dose)


def tell(plan: Plan, voice: Voice) -> None:
    """What is told of single doses: their faults, and vials that were rightly opened."""
    for group in plan.groups:
        for dose in group.doses:
            for fault in sorted(dose.faults & TOLD.keys()):
                TOLD[fault](plan, voice, group, dose)
            if Trait.OPENED_VIAL in dose.traits:
                _give(plan, voice, group.last_clinic, dose, 1, 0.5)
                _give(plan, voice, group.last_clinic, dose, 1, 0.3)


def _give(plan: Plan, voice: Voice, clinic: Site, dose: DosePlan, doses: int, hours_ago: float) -> None:
    extensions = {DOSES: doses} if doses > 1 else {}
    voice.observe(
        clinic, plan.now_ms - minutes(60 * hours_ago), dose.scope, "dispensing", [dose.uri], disposition="dispensed",
        read_point=clinic.room, biz_location=clinic.room, extensions=extensions,
    )  # fmt: skip


def _at_clinic(
    plan: Plan, voice: Voice, group: Group, dose: DosePlan, step: str, disposition: str, *,
    hours_ago: float, action: Action = Action.OBSERVE,
) -> None:  # fmt: skip
    clinic = group.last_clinic
    voice.say(
        clinic, plan.now_ms - minutes(60 * hours_ago), dose.scope, EventType.OBJECT, action, step, epcs=(dose.uri,),
        disposition=disposition, read_point=clinic.room, biz_location=clinic.room,
    )  # fmt: skip

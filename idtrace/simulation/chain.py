"""One simulated chain from its seed: planned, afflicted, told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from idtrace.simulation import aftermath, dose_faults, faults, planning, telling
from idtrace.simulation.catalogue import ARTICLES, Article
from idtrace.simulation.model import Chain, Dose, Fault, Trait
from idtrace.simulation.plan import Box, DosePlan, Group, Plan, key
from idtrace.simulation.voice import Voice

# Two shipments and three codes with something wrong, in a chain of six clinics or more; less in a smaller one.
_GROUP_FAULTS: Final = 2
_DOSE_FAULTS: Final = 3
_GROUP_KINDS: Final = tuple(faults.PLANNED)
_DOSE_KINDS: Final = dose_faults.DOSE_FAULTS
# Groups that are unusual and sound: each of these in turn.
_UNUSUAL: Final = (Trait.RETURNED, Trait.DOOR_OPENED, Trait.CORRECTED, Trait.VOID_SHIPPING)
# Fewer than two clinics' worth have no room for a fault beside sound doses.
DOSES_MIN: Final = 60
# All doses of a lot stand in one transformation, which has to fit into one event.
DOSES_MAX: Final = 2_000


def simulate(seed: int, number: int, doses: int) -> Chain:
    """Chain ``number`` of this seed, with so many doses: the same chain for the same arguments, always.

    Kinds of faults go round, so that all of them come about in some thirty chains.
    """
    of_groups, of_doses = _turns(seed, number)
    plan = planning.plan(seed, number, doses, _article(number, of_groups, of_doses))
    voice = Voice(f"{seed}/{number}/{doses}", plan.random)
    injected = _afflict(plan, of_groups, of_doses)
    planning.give_vehicles(plan)
    telling.tell(plan, voice)
    dose_faults.tell(plan, voice)
    aftermath.tell(plan, voice)
    if number % 3 == 1:
        plan.recalls.append(faults.ended_recall(plan))
    parties = plan.network.license_all()
    for prefix, until in plan.ended.items():
        parties[prefix] = replace(parties[prefix], valid_until=until)
    for prefix in plan.unlicensed:
        del parties[prefix]
    return Chain(
        seed=seed,
        number=number,
        now_ms=plan.now_ms,
        scheme=plan.scheme,
        product=plan.product,
        parties=parties,
        entries=tuple(voice.entries),
        recalls=tuple(plan.recalls),
        doses=tuple(_dose(plan, box, dose) for box in plan.boxes for dose in box.doses),
        injected=injected,
    )


def _turns(seed: int, number: int) -> tuple[list[Fault], list[Fault]]:
    """The kinds whose turn it is in this chain, of groups and of doses."""
    turn = number + seed
    of_groups = [_GROUP_KINDS[(_GROUP_FAULTS * turn + step) % len(_GROUP_KINDS)] for step in range(_GROUP_FAULTS)]
    of_doses = [_DOSE_KINDS[(_DOSE_FAULTS * turn + step) % len(_DOSE_KINDS)] for step in range(_DOSE_FAULTS)]
    return of_groups, of_doses


def _article(number: int, of_groups: Sequence[Fault], of_doses: Sequence[Fault]) -> Article:
    """The product whose turn it is, or the next that can have all of these faults, or most of them."""
    turns = [ARTICLES[(number + step) % len(ARTICLES)] for step in range(len(ARTICLES))]
    return max(
        turns,
        key=lambda article: (
            sum(faults.can_happen(article, fault) for fault in of_groups),
            sum(dose_faults.can_happen(article, fault) for fault in of_doses),
        ),
    )


def _afflict(plan: Plan, of_groups: Sequence[Fault], of_doses: Sequence[Fault]) -> tuple[Fault, ...]:
    """Something unusual for two groups, faults for others, and faults for doses that are otherwise sound."""
    groups = list(plan.groups)
    plan.random.shuffle(groups)
    turn = plan.number + plan.seed
    injected: list[Fault] = []
    for position in range(min(2, len(groups) - 2)):
        _make_unusual(plan, groups.pop(), _UNUSUAL[(2 * turn + position) % len(_UNUSUAL)])
    for fault in of_groups:
        if len(groups) > 1 and faults.can_happen(plan.article, fault):
            faults.afflict(plan, groups.pop(), fault)
            injected.append(fault)
    sound = [dose for group in plan.groups if not group.faults and not group.later for dose in group.doses]
    plan.random.shuffle(sound)
    for fault in of_doses:
        if dose_faults.can_happen(plan.article, fault):
            dose_faults.afflict(sound.pop(), fault)
            injected.append(fault)
    if plan.product.vial_hours:
        for dose in sound[:2]:
            dose.traits.add(Trait.OPENED_VIAL)
    return tuple(injected)


def _make_unusual(plan: Plan, group: Group, trait: Trait) -> None:
    if trait is Trait.RETURNED:
        planning.send_back(plan, group)
    elif trait is Trait.DOOR_OPENED:
        aftermath.open_door(plan, group)
    group.traits.add(trait)
    for dose in group.doses:
        dose.traits.add(trait)


def _dose(plan: Plan, box: Box, dose: DosePlan) -> Dose:
    traits = set(dose.traits)
    if any(recall.ended_at for recall in plan.recalls):
        traits.add(Trait.RECALL_ENDED)
    if any(fault is Fault.RECALLED_LOT for group in plan.groups for fault in group.faults):
        traits.add(Trait.OTHER_RECALLED)
    return Dose(
        identifier=key(dose.uri),
        uri=dose.uri,
        box=key(box.uri),
        scopes=frozenset({"", dose.scope, f"lot:{dose.lot}", *box.scopes, *dose.elsewhere}),
        answer=dose.answer,
        lot=dose.lot if dose.recorded_lot is None else dose.recorded_lot,
        expiry=dose.expiry if dose.recorded_expiry is None else dose.recorded_expiry,
        faults=frozenset(dose.faults),
        traits=frozenset(traits) if not dose.faults else frozenset(),
        has_product=dose.has_product,
        recalls_unknown=dose.recalls_unknown,
        gaps=dose.gaps,
    )

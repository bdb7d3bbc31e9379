"""Gathering: finds what assembling needs and no more, stops at every bound, and names all that it could not have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.provenance.assemble import history
from idtrace.provenance.gather import (
    AskPointers,
    EventsFetched,
    FetchEvents,
    Gather,
    Gathered,
    GatherLimits,
    Pointer,
    PointersRead,
    State,
    pointers_of,
)
from idtrace.provenance.history import Gap, GapKind, Observed
from tests.unit.provenance.story import (
    BOX,
    CARRIER,
    CENTRE,
    CLINIC,
    DOSE,
    LOGGER,
    MAKER,
    STORE,
    TRUCK,
    about,
    at,
    chain,
    fitted,
    made,
    measured,
    packed,
    received,
    shipped,
    taken_back,
    unpacked,
)

NOW = at(1000)


def gather(
    world: Iterable[Observed],
    *,
    extra: tuple[Pointer, ...] = (),
    missing: frozenset[str] = frozenset(),
    limits: GatherLimits | None = None,
    subject: str = DOSE,
) -> tuple[Gathered, list[str]]:
    """Perform the effects on a world that is all in memory; what was fetched, in order."""
    by_name = {one.identifier: one for one in world}
    pointers = (*pointers_of(tuple(by_name.values())), *extra)
    machine = Gather(subject, now_ms=NOW, limits=limits)
    effect = machine.begin()
    fetched: list[str] = []
    for _ in range(200):
        match effect:
            case Gathered():
                assert machine.state is State.ENDED
                return effect, fetched
            case AskPointers(questions):
                assert effect.subjects == tuple(question.subject for question in questions)
                found = [
                    one
                    for question in questions
                    for one in pointers
                    if one.subject == question.subject and question.start_ms <= one.time_ms <= question.end_ms
                ]
                effect = machine.receive(PointersRead(tuple(found)))
            case FetchEvents(identifiers):
                assert not set(identifiers) & set(fetched), "an event is fetched once"
                fetched += identifiers
                there = [by_name[name] for name in identifiers if name in by_name and name not in missing]
                gaps = [
                    Gap(GapKind.MISSING, name, "denied")
                    for name in identifiers
                    if name not in by_name or name in missing
                ]
                effect = machine.receive(EventsFetched(tuple(there), tuple(gaps)))
    pytest.fail("it does not end")


def test_the_whole_chain_is_found_from_the_dose_alone_and_gives_the_same_history() -> None:
    got, _ = gather(chain())
    assert got.gaps == ()
    whole = history(DOSE, chain(), now_ms=NOW, parties={})
    assert history(DOSE, got.observed, now_ms=NOW, parties={}) == whole
    assert {DOSE, BOX, TRUCK, LOGGER, STORE} <= set(got.asked)


def test_what_happened_to_a_container_before_and_after_is_not_fetched() -> None:
    before = shipped(CARRIER, -5_000, CENTRE, TRUCK)
    later = about(CARRIER, 5_000, "departing", TRUCK)
    got, fetched = gather([*chain(), before, later])
    assert not {before.identifier, later.identifier} & set(fetched)
    assert len(got.observed) == len(chain())


def test_a_container_that_was_packed_before_the_thing_came_in_is_followed_all_the_same() -> None:
    events = [
        packed(MAKER, -50, BOX, f"{MAKER}/TRAY"),
        packed(MAKER, 1, f"{MAKER}/TRAY", DOSE),
        received(CENTRE, 20, MAKER, BOX),
    ]
    got, _ = gather(events)
    assert history(DOSE, got.observed, now_ms=NOW, parties={}).containers == (f"{MAKER}/TRAY", BOX)


def test_a_report_that_is_read_out_a_day_late_is_found_and_not_later() -> None:
    base = [made(0, DOSE), packed(CARRIER, 10, TRUCK, DOSE), unpacked(CARRIER, 90, TRUCK, DOSE)]
    day = measured(CARRIER, 90 + 1440, TRUCK, (50, "5"))
    late = measured(CARRIER, 90 + 1441, TRUCK, (51, "5"))
    got, _ = gather([*base, day, late])
    assert day in got.observed
    assert late not in got.observed


def test_a_missing_event_is_a_gap_and_so_is_one_that_never_was() -> None:
    world = chain()
    lost = world[1].identifier
    invented = Pointer(DOSE, at(3), f"{CLINIC}/event/{'0' * 64}", "epc")
    got, _ = gather(world, missing=frozenset({lost}), extra=(invented,))
    assert {(gap.kind, gap.subject) for gap in got.gaps} == {
        (GapKind.MISSING, lost),
        (GapKind.MISSING, invented.event),
    }


def test_an_event_that_says_nothing_of_what_it_was_named_for_is_a_misfit() -> None:
    stray = made(0, f"{MAKER}/SN-77")
    got, _ = gather([*chain(), stray], extra=(Pointer(DOSE, at(0), stray.identifier, "epc"),))
    assert [(gap.kind, gap.subject) for gap in got.gaps] == [(GapKind.MISFIT, stray.identifier)]
    found = history(DOSE, got.observed, now_ms=NOW, parties={})
    assert stray.identifier not in {step.observed.identifier for step in found.steps}


def test_a_party_that_is_asked_about_is_no_misfit() -> None:
    subject = f"idtrace:{CENTRE}"
    got, _ = gather([shipped(MAKER, 5, CENTRE, DOSE)], subject=subject)
    assert (len(got.observed), got.gaps) == (1, ())


def test_what_nobody_asked_for_is_not_kept() -> None:
    machine = Gather(DOSE, now_ms=NOW)
    assert isinstance(machine.begin(), AskPointers)
    world = {one.identifier: one for one in chain()}
    effect = machine.receive(PointersRead(pointers_of(chain()[:1])))
    assert isinstance(effect, FetchEvents)
    unasked = tuple(one for one in world.values() if one.identifier not in effect.identifiers)
    machine.receive(EventsFetched(unasked))
    assert machine._known == {}


def test_events_that_correct_an_error_are_fetched_though_nothing_points_to_them() -> None:
    right = about(MAKER, 50, "inspecting", f"{MAKER}/UNRELATED")
    wrong = about(MAKER, 40, "inspecting", DOSE)
    back = taken_back(wrong, 60)
    declared = back.event.error
    assert declared is not None
    fixed = Observed(
        type(back.event)(
            **{
                **{name: getattr(back.event, name) for name in type(back.event).__dataclass_fields__},
                "error": type(declared)(at(60), "incorrect_data", (f"idtrace:{right.identifier}", "urn:uuid:x")),
            }
        ),
        f"{MAKER}/event/{'5' * 64}",
        MAKER,
        0,
    )
    got, _ = gather([made(0, DOSE), wrong, fixed, right])
    assert right in got.observed
    assert got.gaps == ()


@pytest.mark.parametrize(
    ("limits", "subject"),
    [
        (GatherLimits(events=7), DOSE),
        (GatherLimits(things=2), None),
        (GatherLimits(rounds=3), DOSE),
        (GatherLimits(pointers_in_all=5), DOSE),
    ],
)
def test_each_bound_that_is_reached_is_a_gap(limits: Any, subject: Any) -> None:
    got, fetched = gather(chain(), limits=limits)
    bounds = [gap for gap in got.gaps if gap.kind is GapKind.BOUND]
    assert bounds
    assert subject is None or bounds[0].subject == subject
    assert len(fetched) <= limits.events
    assert len(got.asked) <= limits.things


def test_no_bound_is_reached_at_exactly_the_limit() -> None:
    got, fetched = gather(chain())
    exact = GatherLimits(events=len(fetched), things=len(got.asked))
    assert gather(chain(), limits=exact)[0].gaps == ()


def test_of_what_was_packed_or_fitted_before_only_the_latest_of_each_are_fetched() -> None:
    old = [fitted(CARRIER, -1000 + number, TRUCK, f"{CARRIER}/L-{number}") for number in range(5)]
    boxes = [packed(CARRIER, -500 + number, TRUCK, f"{CARRIER}/B-{number}") for number in range(5)]
    world = [made(0, DOSE), packed(CARRIER, 10, TRUCK, DOSE), *old, *boxes]
    got, _ = gather(world, limits=GatherLimits(earlier=2, fitted=3))
    assert [one in got.observed for one in old] == [False, False, True, True, True]
    assert [one in got.observed for one in boxes] == [False, False, False, True, True]


def test_a_device_that_was_fitted_months_ago_measures_for_what_is_loaded_today() -> None:
    """A truck is loaded every other hour since: among all that the fitting is not one of the latest."""
    hour = 60
    since = [packed(CARRIER, -2 * hour * n, TRUCK, f"{CARRIER}/B-{n}", step="loading") for n in range(1, 1_500)]
    logger = fitted(CARRIER, -3_100 * hour, TRUCK, LOGGER)
    today = [made(0, DOSE), packed(CARRIER, 10, TRUCK, DOSE, step="loading"), measured(CARRIER, 20, LOGGER, (15, "5"))]
    got, fetched = gather([logger, *since, *today])
    assert {logger.identifier, today[-1].identifier} <= set(fetched)
    assert got.gaps == ()
    (reading,) = history(DOSE, got.observed, now_ms=NOW, parties={}).readings
    assert reading.celsius == 5


@given(st.sets(st.sampled_from([one.identifier for one in chain()]), max_size=4))
def test_whatever_is_missing_is_named_or_never_met(missing: Any) -> None:
    got, fetched = gather(chain(), missing=frozenset(missing))
    assert {gap.subject for gap in got.gaps} == missing & set(fetched)
    left = [one for one in chain() if one.identifier not in missing]
    assert {one.identifier for one in got.observed} <= {one.identifier for one in left}

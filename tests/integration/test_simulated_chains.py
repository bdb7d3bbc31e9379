"""Whole chains of every product, code and fault through the verdict engine, with the truth beside them."""

from __future__ import annotations

import pytest

from idtrace.simulation.chain import simulate
from idtrace.simulation.confusion import Confusion, findings_of, judge_all
from idtrace.simulation.model import Fault, Trait
from idtrace.verdict.policy import Policy

pytestmark = pytest.mark.slow


@pytest.mark.timeout(600)
def test_no_faulty_dose_passes_no_cause_is_missed_and_no_sound_dose_is_blocked() -> None:
    confusion = Confusion()
    for confusion in judge_all((simulate(20260302, number, 200) for number in range(40)), Policy()):  # noqa: B007
        pass
    assert [(one.wrong, one.chain, one.dose, one.fault, findings_of(one.judgement)) for one in confusion.mistakes] == []
    assert set(confusion.faults) == set(Fault)
    assert set(confusion.traits) == set(Trait)
    assert confusion.faulty > 1_000

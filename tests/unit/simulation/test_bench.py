from __future__ import annotations

import dataclasses

import pytest

from idtrace.provenance.survey import Memo
from idtrace.simulation.bench import Bench, Registry, gathered
from idtrace.simulation.chain import simulate
from idtrace.simulation.confusion import ERRORS_KEPT_MAX, Confusion, Wrong, findings_of, judge_all
from idtrace.simulation.model import Chain, Dose
from idtrace.verdict.findings import Judgement, Use
from idtrace.verdict.judge import judge
from idtrace.verdict.policy import Policy

CHAINS = [simulate(9, number, 60) for number in range(8)]
POLICY = Policy()


def one_of_each(chain: Chain) -> list[Dose]:
    return list({(dose.box, dose.faults, dose.traits): dose for dose in chain.doses}.values())


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: f"chain-{chain.number}")
def test_what_is_shared_changes_no_judgement_and_neither_does_gathering_by_pointers(chain: Chain) -> None:
    bench, registry, memo = Bench(chain, POLICY), Registry(chain), Memo()
    for dose in one_of_each(chain):
        shared = bench.judge(dose)
        assert judge(bench.facts_for(dose), POLICY) == shared
        facts = gathered(chain, dose, registry, memo)
        assert facts.gaps == dose.gaps
        assert judge(facts, POLICY) == shared


def test_every_dose_of_some_chains_is_judged_as_the_truth_has_it() -> None:
    for confusion in judge_all(CHAINS, POLICY):
        assert [(one.wrong, one.chain, one.dose, findings_of(one.judgement)) for one in confusion.mistakes] == []
    assert (confusion.chains, confusion.doses) == (8, 480)
    assert confusion.sound.doses + confusion.faulty == 480
    assert sum(row.doses for row in confusion.faults.values()) == confusion.faulty > 100


def test_a_blind_engine_and_a_nervous_one_are_both_told_of() -> None:
    chain = CHAINS[0]
    faulty = next(dose for dose in chain.doses if dose.faults)
    sound = next(dose for dose in chain.doses if not dose.faults)
    seen = Bench(chain, POLICY).judge(faulty)
    blind = dataclasses.replace(seen, use=Use.USE, findings=())
    confusion = Confusion()
    confusion.add(chain, faulty, seen)
    assert not confusion.mistaken
    confusion.add(chain, faulty, blind)
    assert [one.wrong for one in confusion.mistakes] == [Wrong.PASSED, Wrong.CAUSE_MISSED]
    confusion.add(chain, sound, dataclasses.replace(seen, subject=sound.identifier))
    assert [one.wrong for one in confusion.mistakes][2:] == [Wrong.SOUND_BLOCKED]
    told = confusion.mistakes[0]
    assert (told.seed, told.chain, told.dose) == (9, 0, faulty.identifier)
    (fault,) = faulty.faults
    assert confusion.faults[fault].cause_found == 1
    assert confusion.faults[fault].by_use[Use.USE] == 1


def test_mistakes_beyond_the_bound_are_counted() -> None:
    chain = CHAINS[0]
    sound = next(dose for dose in chain.doses if not dose.faults)
    blocked = Judgement(sound.identifier, Use.HOLD, (), "", 0)
    confusion = Confusion()
    for _ in range(ERRORS_KEPT_MAX + 5):
        confusion.add(chain, sound, blocked)
    assert len(confusion.mistakes) == ERRORS_KEPT_MAX
    assert confusion.mistaken == ERRORS_KEPT_MAX + 5

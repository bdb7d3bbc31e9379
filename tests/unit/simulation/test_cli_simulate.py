from __future__ import annotations

import json
from pathlib import Path

import pytest

from idtrace.cli import simulate as command
from idtrace.epcis.parse import read_document
from idtrace.simulation.bench import Bench
from idtrace.simulation.chain import simulate
from idtrace.verdict.facts import Facts
from idtrace.verdict.findings import Judgement, Use
from idtrace.verdict.policy import Policy
from tests.cli import idtrace

SMALL = ("simulate", "--seed", "2", "--chains", "2", "--doses", "60")


def test_chains_are_listed_with_their_faults() -> None:
    ran = idtrace(*SMALL, "--json")
    assert ran.code == 0
    chain = simulate(2, 0, 60)
    row = ran.json["chains"][0]
    assert row["faults"] == list(chain.injected)
    assert row["faulty"] == sum(bool(dose.faults) for dose in chain.doses)
    assert idtrace(*SMALL, "--json").out == ran.out
    assert "Rabies" in idtrace(*SMALL).out


def test_judged_chains_are_told_as_a_matrix_and_end_well() -> None:
    ran = idtrace(*SMALL, "--judge", "--json")
    assert (ran.code, ran.json["mistaken"], ran.json["doses"]) == (0, 0, 120)
    assert ran.json["sound"]["USE"] == ran.json["sound"]["doses"] > 0
    assert sum(row["doses"] for row in ran.json["faults"].values()) == ran.json["faulty"]
    shown = idtrace(*SMALL, "--judge")
    assert shown.code == 0
    assert "faulty passed 0" in shown.said
    assert "sound: all" in shown.said


def test_an_engine_that_passes_everything_ends_in_exit_code_1_and_says_how_to_see_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def blind(facts: Facts, policy: Policy, **_: object) -> Judgement:
        return Judgement(facts.subject, Use.USE, (), policy.hash, facts.now_ms)

    monkeypatch.setattr("idtrace.simulation.bench.judge", blind)
    ran = idtrace(*SMALL, "--judge", "--json")
    assert ran.code == 1
    mistake = ran.json["mistakes"][0]
    assert mistake["wrong"] == "a faulty dose passed"
    again = f"--seed 2 --doses 60 --chain {mistake['chain']} --dose {mistake['dose']} --judge --explain"
    shown = idtrace(*SMALL, "--judge", columns=300)
    assert shown.code == 1
    assert again in shown.said
    replayed = idtrace("simulate", *again.split())
    assert replayed.code == 1


def test_one_dose_is_explained() -> None:
    chain = simulate(2, 1, 60)
    dose = next(dose for dose in chain.doses if dose.faults)
    codes = [finding.code for finding in Bench(chain, Policy()).judge(dose).findings]
    named = ("simulate", "--seed", "2", "--doses", "60", "--chain", "1", "--dose", dose.identifier)
    ran = idtrace(*named, "--explain")
    assert ran.code == 0
    assert all(code in ran.said for code in codes)
    assert "commissioning" in ran.said or "never-made" in ran.said
    told = idtrace(*named, "--json").json
    assert (told["faults"], [each["code"] for each in told["findings"]]) == (sorted(dose.faults), codes)


def test_a_dose_needs_its_chain_and_has_to_be_in_it() -> None:
    assert idtrace("simulate", "--dose", "88.118.8/V1").code == 2
    assert idtrace("simulate", "--chain", "1", "--explain").code == 2
    ran = idtrace("simulate", "--chain", "1", "--doses", "60", "--dose", "88.118.8/V1")
    assert ran.code == 2
    assert "no dose 88.118.8/V1" in ran.said


def test_files_hold_every_event_by_party_and_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idtrace.cli.simulate_files.EVENTS_A_DOCUMENT", 20)
    assert idtrace(*SMALL, "--chain", "1", "--out", tmp_path).code == 0
    chain = simulate(2, 1, 60)
    folder = tmp_path / "chain-0001"
    read = [
        (path.name.rpartition("-")[0], event)
        for path in sorted(folder.glob("88.*.json"))
        for event in read_document(path.read_bytes()).items
    ]
    assert len(read) == len(chain.entries)
    assert {(party, str(event)) for party, event in read} == {
        (entry.observed.party, str(entry.observed.event)) for entry in chain.entries
    }
    truth = json.loads((folder / "truth.json").read_text("utf-8"))
    assert {each["identifier"]: each["faults"] for each in truth["doses"]} == {
        dose.identifier: sorted(dose.faults) for dose in chain.doses
    }
    records = json.loads((folder / "records.json").read_text("utf-8"))
    assert len(records["licences"]) == len(chain.parties)
    assert len(records["recalls"]) == len(chain.recalls)
    assert command.DOSES >= 60

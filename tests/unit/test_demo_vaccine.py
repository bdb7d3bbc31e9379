"""The vaccine story: its documents say what it claims, and a verdict that is not the expected one is not hidden."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from idtrace.bundle import Verdict
from idtrace.cli import demo_vaccine
from idtrace.cli import demo_vaccine_events as told
from idtrace.cli.demo_story import Story
from idtrace.cli.demo_tree import NODES, ZONES, DemoTree
from idtrace.cli.output import Output
from idtrace.coldchain.profiles import BUILT_IN
from idtrace.epcis.model import Event
from idtrace.epcis.parse import read_document
from idtrace.party import Location, LocationKind, Party
from idtrace.product import Product
from idtrace.provenance.history import Observed
from idtrace.verdict.facts import Answered, Facts
from idtrace.verdict.findings import Use
from idtrace.verdict.judge import judge
from idtrace.verdict.policy import Policy

NOW_MS = 1_790_000_000_000
TRUCKS = tuple(Location(told.uri(one), LocationKind.VEHICLE) for one in (*told.TRUCKS, told.VAN))
PARTIES = {
    prefix: Party(
        prefix, english, chinese, frozenset({role}), TRUCKS if prefix == told.CARRIER else (), 0, 4_000_000_000
    )
    for prefix, role, english, chinese in demo_vaccine.PARTIES
}
PRODUCT = Product(told.PRODUCT, "MMR", "疫苗", told.MAKER, 1, 0, BUILT_IN["2-8"])


def observed(folder: Path, *documents: told.Documents) -> tuple[Observed, ...]:
    """The events as nodes would hand them out, read from the files."""
    found: list[Observed] = []
    for document in documents:
        for party, file in document.write(folder).items():
            for event in read_document(file.read_bytes()).items:
                assert isinstance(event, Event), event
                digest = hashlib.sha256(f"{party}{len(found)}".encode()).hexdigest()
                found.append(Observed(event, f"{party}/event/{digest}", party, event.time_ms // 1000, logged=True))
    return tuple(found)


def verdict(dose: str, events: tuple[Observed, ...]) -> tuple[Use, list[str]]:
    facts = Facts(
        subject=dose,
        now_ms=NOW_MS,
        answer=Answered(Verdict.FOUND),
        lot=told.LOT,
        expiry=told.EXPIRY,
        product=PRODUCT,
        observed=events,
        parties=PARTIES,
        recalls=(),
        recalls_unknown=(),
        gaps=(),
    )
    judgement = judge(facts, Policy())
    return judgement.use, [str(one.code) for one in judgement.findings]


def test_only_the_dose_of_the_second_truck_froze(tmp_path: Path) -> None:
    events = observed(tmp_path, told.tell(NOW_MS))
    assert len(events) == 37
    for dose in (told.SOUND, told.COPIED, told.RECALLED):
        assert verdict(dose, events) == (Use.USE, [])
    use, codes = verdict(told.FROZEN, events)
    assert use is Use.DO_NOT_USE
    assert codes == ["FROZEN", "ALARM_OPEN"]


def test_only_the_dose_that_is_given_twice_was_copied(tmp_path: Path) -> None:
    events = observed(tmp_path, told.tell(NOW_MS), told.tell_copies(NOW_MS))
    assert len(events) == 39
    assert verdict(told.SOUND, events) == (Use.USE, [])
    use, codes = verdict(told.COPIED, events)
    assert use is Use.DO_NOT_USE
    assert {"OVER_DISPENSED", "DOUBLE_PRESENCE"} <= set(codes)


def test_every_party_has_a_node_and_hosted_ones_share_their_parents() -> None:
    nodes = {plan.zone: plan.node for plan in ZONES}
    assert {nodes[prefix] for prefix, *_ in demo_vaccine.PARTIES} == {
        "maker", "centre", "carrier", "clinic", "secondary",
    }  # fmt: skip
    assert {plan.node for plan in ZONES} <= {plan.name for plan in NODES}


def story(folder: Path) -> Story:
    made = Story(Output(as_json=True), DemoTree(folder, lambda *_: None), 100)
    made.tree.endpoints = {plan.name: "127.0.0.1:1" for plan in NODES}
    return made


def answer(use: str, code: int, *codes: str, passed: bool = True) -> tuple[int, dict[str, Any]]:
    findings = [{"code": one, "en": f"because {one}"} for one in codes]
    return code, {"use": use, "findings": findings, "checks": [{"passed": passed, "made": True}]}


@pytest.mark.parametrize(
    ("given", "holds"),
    [
        (answer("DO_NOT_USE", 9, "FROZEN", "ALARM_OPEN"), True),
        (answer("USE", 0), False),
        (answer("HOLD", 8, "FROZEN"), False),
        (answer("DO_NOT_USE", 9, "EXPIRED"), False),
        (answer("DO_NOT_USE", 0, "FROZEN"), False),
        (answer("DO_NOT_USE", 9, "FROZEN", passed=False), False),
        ((3, {"error": {"reason": "VERDICT_DIFFERS"}}), False),
    ],
)
def test_a_verdict_that_is_not_the_expected_one_fails_the_demonstration(
    given: tuple[int, dict[str, Any]], holds: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_vaccine, "json_command", lambda *_: given)
    played = story(tmp_path)
    demo_vaccine.judged(played, told.FROZEN, "a dose", Use.DO_NOT_USE, "FROZEN")
    assert [step.holds for step in played.steps] == [holds]


def test_a_sound_dose_with_any_finding_fails_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_vaccine, "json_command", lambda *_: answer("USE", 0, "EXCURSION"))
    played = story(tmp_path)
    demo_vaccine.judged(played, told.SOUND, "a dose", Use.USE)
    assert not played.steps[0].holds
    assert "EXCURSION" in played.steps[0].result


def test_documents_are_whole_epcis_documents(tmp_path: Path) -> None:
    for file in told.tell(NOW_MS).write(tmp_path).values():
        body = json.loads(file.read_text("utf-8"))
        assert body["type"] == "EPCISDocument"
        times = [event["eventTime"] for event in body["epcisBody"]["eventList"]]
        assert times == sorted(times)

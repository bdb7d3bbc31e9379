"""Runs the scenario files beside it: a tree, what happens to it, and what a resolver must answer at each step.

A scenario is a YAML file that anybody can read:

    title: one sentence            why: what it is good for
    nodes:                         "<zone> at <node>[, <node>]" or "<zone> hosted by its parent"; the root is there
    registered: [<identifier>, …]
    steps: one each of
      RESOLVE: <identifier>        with EXPECT: <verdict>, and optionally BECAUSE: <reason>, STATUS: <record status>,
                                   ASKED: "<node>, <node>" or "nobody" (the nodes that were asked, in order)
      RESOLVE FRESH: <identifier>  the same, past the answers in the cache
      TIME PASSES: <n> seconds | minutes | hours | days
      REGISTER | RECALL | SUSPEND | RETIRE: <identifier>
      REVOKE | DELEGATE AGAIN | ROTATE KEYS | DISABLE | ENABLE: <zone>
      MOVE: <zone> to <node>
      NODE DIES | RECOVERS | SENDS GARBAGE | LIVES ON: <node>      LIVES ON: answers whatever its parent has decided
      NODE IS SLOW: <node> by <n> ms
      NODE REPEATS: <node>         from now on says for ever what it last said
      NODE LIES: <node> with <one of LIES>
      RESOLVER RESTARTS: forgets everything

No event loop and no network: the simulator's tree and the real walk, trust store and cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from idtrace.bundle import Denied, NodeAnswer, Referred
from idtrace.canonical import INTEGER_MAX
from idtrace.delegation import Role
from idtrace.identifier import Prefix
from idtrace.record import Record, RecordBody, RecordKind, Status
from idtrace.signature import MemorySigner
from resolver.effects import Answered, Ask
from tests import simulator as sim
from tests.simulator import Client, Tree

FILES = sorted(Path(__file__).parent.glob("*.yaml"))
UNITS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}


def _mangle(tree: Tree, ask: Ask, answer: NodeAnswer) -> NodeAnswer:
    match answer.outcome:
        case Record(signed, values):
            return replace(answer, outcome=Record(sim.mangled(signed), values))
        case Denied(signed):
            return replace(answer, outcome=Denied(sim.mangled(signed)))
        case Referred():
            return replace(answer, delegations=tuple(sim.mangled(signed) for signed in answer.delegations))


def _change_value(tree: Tree, ask: Ask, answer: NodeAnswer) -> NodeAnswer:
    assert isinstance(answer.outcome, Record)
    first, *rest = answer.outcome.values
    return replace(answer, outcome=replace(answer.outcome, values=(replace(first, data=b"saline"), *rest)))


def _claim_absent(tree: Tree, ask: Ask, answer: NodeAnswer) -> NodeAnswer:
    return replace(answer, outcome=tree.deny(ask.identifier))


def _stolen(tree: Tree, zone: Prefix, role: Role) -> MemorySigner:
    """The zone's first key for a role, which somebody else holds as well."""
    return sim.signer(f"{zone}|{role}|1")


def _greatest_version(tree: Tree, ask: Ask, answer: NodeAnswer) -> NodeAnswer:
    zone = tree.covering(ask.identifier.prefix)
    genuine = zone.records[ask.identifier][-1]
    by = _stolen(tree, zone.prefix, Role.RECORD)
    return replace(answer, outcome=sim.resigned_record(genuine, by, version=INTEGER_MAX, previous=bytes(32)))


def _greatest_delegation(tree: Tree, ask: Ask, answer: NodeAnswer) -> NodeAnswer:
    zone = tree.covering(ask.identifier.prefix)
    assert zone.parent is not None
    by = _stolen(tree, zone.parent.prefix, Role.ZONE)
    forged = sim.resigned_delegation(tree, zone, by, version=INTEGER_MAX, previous=bytes(32))
    return replace(answer, delegations=(*answer.delegations[:-1], forged))


LIES: dict[str, Callable[[Tree, Ask, NodeAnswer], NodeAnswer]] = {
    "the greatest version": _greatest_version,
    "the greatest delegation": _greatest_delegation,
    "a bad signature": _mangle,
    "a changed value": _change_value,
    "a signed denial": _claim_absent,
    "a referral without a delegation": lambda tree, ask, answer: replace(answer, delegations=()),
    "a first version": lambda tree, ask, answer: replace(
        answer, outcome=tree.covering(ask.identifier.prefix).records[ask.identifier][0]
    ),
    "an older delegation": lambda tree, ask, answer: replace(
        answer, delegations=(tree.covering(ask.identifier.prefix).delegations[0],)
    ),
}


class Scenario:
    """One file being played."""

    def __init__(self, text: str) -> None:
        script: dict[str, Any] = yaml.load(text, Loader=yaml.BaseLoader)  # 88.110 is a zone and no number
        assert set(script) == {"title", "why", "nodes", "registered", "steps"}, "the five parts of a scenario"
        self.steps: list[dict[str, Any]] = script["steps"]
        self.tree = Tree()
        for line in script["nodes"]:
            self._node(line)
        for identifier in script["registered"]:
            self._register(identifier)
        self.client = Client(self.tree)
        self.checked = 0

    def play(self) -> None:
        for number, step in enumerate(self.steps, start=1):
            verb, argument = next(iter(step.items()))
            if verb in {"RESOLVE", "RESOLVE FRESH"}:
                self._resolve(number, argument, step, fresh=verb.endswith("FRESH"))
                continue
            assert set(step) == {verb}, f"step {number}: {sorted(step)}"
            self._do(verb, str(argument))
        assert self.checked, "a scenario expects something"

    def _node(self, line: str) -> None:
        zone, at, where = line.partition(" at ")
        if at:
            self.tree.zone(zone, node=tuple(where.split(", ")))
        else:
            zone, hosted, rest = line.partition(" hosted by its parent")
            assert (hosted, rest) == (" hosted by its parent", ""), f"not a node: {line}"
            self.tree.zone(zone, hosted=True)

    def _resolve(self, number: int, identifier: str, step: dict[str, Any], *, fresh: bool) -> None:
        expected = {"EXPECT", "BECAUSE", "STATUS", "ASKED"}
        assert set(list(step)[1:]) <= expected, f"step {number}: {sorted(step)}"
        resolution = self.client.resolve(identifier, fresh=fresh)
        where = f"step {number}: {identifier}: {resolution.detail}"
        assert resolution.verdict == step["EXPECT"], where
        if "BECAUSE" in step:
            assert resolution.reason == step["BECAUSE"], where
        if "STATUS" in step:
            assert resolution.bundle is not None
            assert isinstance(resolution.bundle.outcome, Record)
            assert RecordBody.parse(resolution.bundle.outcome.signed.payload).status == step["STATUS"], where
        if "ASKED" in step:
            asked = ", ".join(endpoint.partition(":")[0] for endpoint in resolution.visited)
            assert (asked or "nobody") == step["ASKED"], where
        self.checked += 1

    def _do(self, verb: str, argument: str) -> None:
        actions: dict[str, Callable[[str], object]] = {
            "TIME PASSES": self._pass_time,
            "REGISTER": self._register,
            "RECALL": lambda identifier: self._register(identifier, status=Status.RECALLED),
            "SUSPEND": lambda identifier: self._register(identifier, status=Status.SUSPENDED),
            "RETIRE": self.tree.retire,
            "REVOKE": self.tree.revoke,
            "DELEGATE AGAIN": lambda zone: self.tree.delegate(self.tree.zones[Prefix.parse(zone)]),
            "ROTATE KEYS": self.tree.rotate,
            "DISABLE": self.tree.disable,
            "ENABLE": lambda zone: self.tree.disable(zone, disabled=False),
            "MOVE": self._move,
            "NODE DIES": lambda node: self.tree.fault(node, sim.dead),
            "NODE RECOVERS": lambda node: self.tree.fault(node, None),
            "NODE SENDS GARBAGE": lambda node: self.tree.fault(node, sim.garbage),
            "NODE LIVES ON": lambda node: self.tree.fault(node, sim.ghost),
            "NODE IS SLOW": self._slow,
            "NODE REPEATS": self._repeat,
            "NODE LIES": self._lie,
            "RESOLVER RESTARTS": self._restart,
        }
        actions[verb](argument)

    def _register(self, identifier: str, status: Status = Status.ACTIVE) -> None:
        self.tree.register(identifier, {"product": "vaccine"}, status=status, kind=RecordKind.ITEM)

    def _pass_time(self, text: str) -> None:
        count, unit = text.split()
        self.tree.pass_time(seconds=int(count) * UNITS[unit.removesuffix("s")])

    def _move(self, text: str) -> None:
        name, node = text.split(" to ")
        zone = self.tree.zones[Prefix.parse(name)]
        for old in zone.nodes:
            self.tree.fault(old, sim.dead)
        zone.nodes = (node,)
        self.tree.delegate(zone)

    def _slow(self, text: str) -> None:
        node, delay = text.removesuffix(" ms").split(" by ")
        self.tree.fault(node, sim.slow(int(delay)))

    def _repeat(self, node: str) -> None:
        last = next(ask for ask in reversed(self.tree.asked) if ask.endpoint.startswith(f"{node}:"))
        reply = self.tree.honest(last)
        assert isinstance(reply, Answered)
        self.tree.fault(node, sim.replaying(reply.answer))

    def _lie(self, text: str) -> None:
        node, _, name = text.partition(" with ")
        self.tree.fault(node, sim.tampering(LIES[name]))

    def _restart(self, what: str) -> None:
        assert what == "forgets everything"
        self.client = Client(self.tree)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_scenario(file: Path) -> None:
    Scenario(file.read_text(encoding="utf-8")).play()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_scenario_can_fail(file: Path) -> None:
    """With any one expectation changed the scenario fails: none of them is skipped."""
    script = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    for step in script["steps"]:
        for key in ("EXPECT", "BECAUSE", "STATUS", "ASKED"):
            if key in step:
                right, step[key] = step[key], "something else"
                with pytest.raises(AssertionError):
                    Scenario(yaml.safe_dump(script, sort_keys=False)).play()
                step[key] = right


def test_there_are_scenarios() -> None:
    assert len(FILES) >= 12


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [{"RESOLVE": "88/x", "EXPECTS": "ABSENT"}],
        [{"RESOLVE": "88/x"}],
        [{"RESOLV": "88/x", "EXPECT": "ABSENT"}],
        [{"NODE EXPLODES": "top"}],
    ],
)
def test_misspelt_scenario_is_no_passed_scenario(steps: list[dict[str, str]]) -> None:
    script = {"title": "t", "why": "w", "nodes": ["88 at top"], "registered": [], "steps": steps}
    with pytest.raises((AssertionError, KeyError)):
        Scenario(yaml.safe_dump(script, sort_keys=False)).play()

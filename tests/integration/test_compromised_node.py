"""A node that was broken into, between a real resolver and an honest log: what it can make anybody believe.

The thief has the node's keys, the currency key and the log's key (:mod:`tests.lying_proxy`). Each lie is told twice: to
the resolver, whose answer ``idtrace resolve`` verifies and saves; and as a bundle made of the very answer, as a
resolver that is the thief's too would hand it on. Both are held against the root key and a policy that asks for two of
three witnesses. What signatures cannot catch (a version that is kept back, an absence that is none) the auditor does.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from idtrace.bundle import Bundle, Denied, NodeAnswer, Referred, Verdict
from idtrace.cli.exits import ExitCode
from idtrace.cli.files import read_bundle
from idtrace.errors import Reason
from idtrace.identifier import Identifier
from idtrace.note import Note
from idtrace.record import Status
from idtrace.signature import Kind, sign
from idtrace.statements import Currency, Denial, DenialReason
from idtrace.verification import verify_bundle
from tests.core_fixtures import signer
from tests.integration.test_logged_node import ZONE
from tests.logged_site import Site, site, size_of
from tests.node_lies import CURRENCY, HERE, LIES, Case, Lie, other_history

pytestmark = pytest.mark.slow

R = Reason


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site")) as running:
        running.register("88/OTHER", lot="genuine, of another zone")
        running.register(f"{ZONE}/EARLY")
        early = running.until_witnessed()
        for lie in (*LIES, HONEST):
            running.register(named(lie))
        running.register(OTHER)
        running.until_witnessed()
        EARLY.append(early)
        yield running


HONEST = Lie("honest", lambda _, answer: answer, R.INTERNAL, None)
OTHER = f"{ZONE}/OTHER"
EARLY: list[Note] = []


def named(lie: Lie) -> str:
    """The identifier about which a lie is told: one for each, so that no answer is cached for another."""
    return f"{ZONE}/{zlib.crc32(lie.name.encode())}"


def asked(here: Site, lie: Lie) -> Case:
    """The honest answers, before anybody lies."""
    name = named(lie)
    answer, other, elsewhere = (here.call(here.nodes.get(one)) for one in (name, OTHER, "88/OTHER"))
    return Case(here, name, answer, other, elsewhere, EARLY[-1])


def bundle_of(case: Case, told: NodeAnswer) -> Bundle:
    """What a resolver that is the thief's as well would hand out."""
    outcome = told.outcome
    if isinstance(outcome, Referred):
        return Bundle(case.identifier, told.delegations, case.record, case.proof, case.answer.currency)
    return Bundle(case.identifier, told.delegations, outcome, told.proof, told.currency)


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.name)
def test_no_lie_is_believed_offline_and_each_is_refused_for_its_own_reason(
    here: Site, lie: Lie, tmp_path: Path
) -> None:
    case = asked(here, lie)
    saved = tmp_path / "saved.json"
    here.proxy.rewrite, here.proxy.rewritten = lambda answer: lie.change(case, answer), 0
    try:
        ran = here.resolve(case.name, "--save", saved, "--json")
    finally:
        here.proxy.rewrite = lambda answer: answer
    assert here.proxy.rewritten, "the resolver has asked the thief"
    now = int(time.time())
    if lie.resolver is None:
        assert (ran.code, ran.json["verdict"]) == (ExitCode.OK, "FOUND"), ran.said
        report = verify_bundle(read_bundle(saved), here.nodes.anchor, now=now, policy=here.policy)
        assert (report.verdict, report.checks[-1].reason) == (Verdict.BOGUS, lie.offline)
    else:
        assert (ran.code, ran.json["reason"]) == (ExitCode.BOGUS, lie.resolver), ran.said
        assert not saved.exists()
    made = bundle_of(case, lie.change(case, case.answer))
    report = verify_bundle(made, here.nodes.anchor, now=now, policy=here.policy)
    assert (report.verdict, report.checks[-1].reason) == (Verdict.BOGUS, lie.offline)


def test_the_honest_answer_through_the_same_proxy_is_believed_under_the_policy(here: Site, tmp_path: Path) -> None:
    case = asked(here, HONEST)
    saved = tmp_path / "saved.json"
    assert here.resolve(case.name, "--save", saved).code == ExitCode.OK
    report = verify_bundle(read_bundle(saved), here.nodes.anchor, now=int(time.time()), policy=here.policy)
    assert (report.verdict, [check.made for check in report.checks]) == (Verdict.FOUND, [True] * len(report.checks))
    assert bundle_of(case, case.answer) == read_bundle(saved)


# What signatures cannot catch


def told(here: Site, name: str, rewrite: Callable[[NodeAnswer], NodeAnswer], saved: Path) -> str:
    """The verdict that the resolver believes when the thief answers so; its proof is saved."""
    here.proxy.rewrite = rewrite
    try:
        ran = here.resolve(name, "--save", saved, "--json")
    finally:
        here.proxy.rewrite = lambda answer: answer
    assert saved.exists(), ran.said
    return str(ran.json["verdict"])


def convicted(here: Site, saved: Path, state: Path) -> None:
    """The audit of what was saved ends with evidence, which a third party checks with the root key alone."""
    ran = here.audit("--policy", here.folder / "policy", "--state", state, "--statements", saved, "--json")
    (log,) = ran.json["logs"]
    assert (ran.code, [one["reason"] for one in log["findings"]]) == (1, ["STATEMENT_CONTRADICTED"]), ran.said
    evidence = Path(log["findings"][0]["evidence"])
    assert evidence.parent == state
    assert here.proves(evidence)
    spoilt = state / "spoilt.json"
    spoilt.write_text(evidence.read_text("utf-8").replace('"path": [', f'"path": ["{"00" * 32}",'), "utf-8")
    assert not here.proves(spoilt)


def test_a_recall_that_is_kept_back_is_believed_once_and_convicts_the_node_with_evidence(
    here: Site, tmp_path: Path
) -> None:
    name, saved = f"{ZONE}/HIDDEN", tmp_path / "hidden.json"
    first = here.register(name)
    here.until_witnessed()
    old = here.call(here.nodes.get(name))
    here.update(first, identifier=name, status=Status.RECALLED)
    size = size_of(here.until_witnessed())

    def hides(answer: NodeAnswer) -> NodeAnswer:
        now = int(time.time())
        said = Currency(Identifier.parse(name), HERE, 1, first.hash, size, now, now + 60)
        current = sign(Kind.CURRENCY, said.payload(), signer(CURRENCY))
        return replace(answer, outcome=first, proof=old.proof, currency=current)

    assert told(here, name, hides, saved) == "FOUND"
    report = verify_bundle(read_bundle(saved), here.nodes.anchor, now=int(time.time()), policy=here.policy)
    assert report.valid, "all that is signed is true but the one word that it is the latest"
    convicted(here, saved, tmp_path / "seen")


def test_an_absence_that_is_none_is_believed_once_and_convicts_the_node_with_evidence(
    here: Site, tmp_path: Path
) -> None:
    name, saved = f"{ZONE}/THERE", tmp_path / "absent.json"
    here.register(name)
    size = size_of(here.until_witnessed())

    def denying(answer: NodeAnswer) -> NodeAnswer:
        now = int(time.time())
        said = Denial(Identifier.parse(name), HERE, DenialReason.IDENTIFIER_ABSENT, now, now + 60, size)
        denied = Denied(sign(Kind.DENIAL, said.payload(), signer(CURRENCY)))
        return replace(answer, outcome=denied, proof=None, currency=None)

    assert told(here, name, denying, saved) == "ABSENT"
    convicted(here, saved, tmp_path / "seen")


def test_a_history_of_the_thiefs_own_convicts_him_before_whoever_remembers(here: Site, tmp_path: Path) -> None:
    """Without a policy the log's own signature is believed; of one size the client has seen another tree."""
    case, memory = asked(here, HONEST), tmp_path / "remembered"
    assert here.resolve(case.name, "--remember", memory).code == ExitCode.OK
    here.proxy.rewrite = lambda answer: other_history(case, answer)
    try:
        ran = here.resolve(case.name, "--remember", memory, "--json")
    finally:
        here.proxy.rewrite = lambda answer: answer
    assert (ran.code, ran.json["reason"]) == (ExitCode.BOGUS, R.LOG_INCONSISTENT), ran.said
    (evidence,) = memory.glob("evidence_fork-*.json")
    assert here.proves(evidence)
    assert here.resolve(case.name, "--remember", memory).code == ExitCode.OK, "the honest log is not accused"


def test_an_honest_site_is_never_convicted_by_what_was_saved_of_it(here: Site, tmp_path: Path) -> None:
    files: list[object] = []
    for n, name in enumerate((named(HONEST), OTHER, f"{ZONE}/absent")):
        saved = tmp_path / f"{n}.json"
        here.resolve(name, "--save", saved)
        files += ("--statements", saved)
    ran = here.audit("--policy", here.folder / "policy", "--state", tmp_path / "seen", *files)
    assert ran.code == 0, ran.said

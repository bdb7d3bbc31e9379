"""What holds of every judgement: order is no matter, bad news never helps, policies only tighten, texts are full."""

from __future__ import annotations

import itertools
import random
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idtrace.errors import InputError, Reason
from idtrace.party import STEPS_OF_ROLE, PartyRole, may_report
from idtrace.provenance.history import Gap, GapKind, Observed
from idtrace.recall import Scope, ScopeKind
from idtrace.verdict.evidence import facts_hash
from idtrace.verdict.findings import Code, Finding, Use
from idtrace.verdict.judge import EVIDENCE_MAX, judge
from idtrace.verdict.policy import POLICY_BYTES_MAX, PUBLISHED, Policy, parse_policy
from idtrace.verdict.statement import findings_hash
from idtrace.verdict.texts import EN, TEXTS, TITLES, ZH, text
from tests.unit.verdict.facts_builder import (
    CLINIC,
    HOUR,
    MINUTE,
    OTHER,
    POLICY,
    T0,
    dispensed,
    event,
    made,
    measured,
    product,
    shipped,
    story,
)
from tests.unit.verdict.test_checks import recall

BAD = (
    made(T0 + MINUTE),
    made(by=OTHER),
    dispensed(T0 + 4 * HOUR),
    dispensed(T0 + 4 * HOUR + MINUTE, OTHER),
    event(T0 + 4 * HOUR, "storing", OTHER),
    event(T0 + 4 * HOUR, "inspecting", CLINIC, disposition="stolen"),
    event(T0 + 4 * HOUR, "holding", CLINIC),
    event(T0 + 90 * HOUR, "storing", CLINIC),
    event(T0 + 4 * HOUR, "repackaging", CLINIC),
    shipped(T0 + 4 * HOUR, CLINIC, OTHER),
    measured(T0 + 3 * HOUR, T0 + 5 * HOUR, CLINIC, "60"),
    measured(T0 + 3 * HOUR, T0 + 5 * HOUR, CLINIC, "-5"),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(BAD), unique_by=lambda one: one.identifier), st.randoms(use_true_random=False))
def test_the_same_facts_in_any_order_give_the_same_judgement_to_the_byte(
    more: list[Observed], shuffled: random.Random
) -> None:
    recalls = tuple(recall(Scope(ScopeKind.ITEMS, items=("88.118.8/SN-1",)), name=name) for name in "ab")
    gaps = tuple(Gap(GapKind.MISSING, name, "x") for name in "ab")
    told = story(*more, recalls=recalls, gaps=gaps, recalls_unknown=("88", "88.118"))
    other = story(*more, recalls=recalls[::-1], gaps=gaps[::-1], recalls_unknown=("88.118", "88"))
    shuffled.shuffle(other.events)
    other.changes["parties"] = dict(reversed(list(told.facts().parties.items())))
    assert repr(told.judged()) == repr(other.judged())
    assert findings_hash(told.judged()) == findings_hash(other.judged())
    assert facts_hash(told.facts()) == facts_hash(other.facts())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(BAD), max_size=4, unique_by=lambda one: one.identifier), st.sampled_from(BAD))
def test_one_more_bad_fact_never_makes_it_better_than_a_sound_dose_and_never_lifts_do_not_use(
    more: list[Observed], one: Observed
) -> None:
    before = story(*more).judged()
    told = story(*more)
    if one not in told.events:
        told.events.append(one)
    after = told.judged()
    assert after.use >= before.use
    assert after.use > Use.USE


@pytest.mark.parametrize(
    "change",
    [
        {"recalls_unknown": ("88.118",)},
        {"gaps": (Gap(GapKind.UNREACHABLE, "x", "y"),)},
        {"recalls": (recall(Scope(ScopeKind.ITEMS, items=("88.118.8/SN-1",))),)},
        {"expiry": "2026-01-01"},
        {"product": None},
    ],
)
def test_bad_papers_never_improve_a_verdict(change: dict[str, Any]) -> None:
    for more in ((), BAD[:3], BAD[5:8]):
        before = story(*more).judged().use
        # To lose the product is to lose what was judged by it, its doses: HOLD is the least that is left.
        least = Use.HOLD if "product" in change else before
        assert story(*more, **change).judged().use >= max(Use.HOLD, least)


def test_findings_come_the_worst_first_each_with_rule_and_bounded_evidence() -> None:
    judgement = story(*BAD, gaps=(Gap(GapKind.BOUND, "x", "y"),)).judged()
    severities = [POLICY.severity(one.code) for one in judgement.findings]
    assert severities == sorted(severities, reverse=True)
    assert judgement.use is severities[0] is Use.DO_NOT_USE
    assert all(one.source and len(one.evidence) <= EVIDENCE_MAX for one in judgement.findings)


def test_the_verdict_changes_no_sooner_than_it_says() -> None:
    told = story(expiry="2026-05-29")
    until_ms = told.judged().until_ms
    assert until_ms is not None
    told.now_ms = until_ms - 1
    assert told.judged().use is Use.USE
    told.now_ms = until_ms
    assert told.judged().use is not Use.USE


# Texts


def placeholders(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}


def test_every_code_has_a_severity_a_rule_and_a_sentence_in_both_languages() -> None:
    assert set(TEXTS) == set(Code) == set(PUBLISHED)
    assert set(TITLES) == set(Use)
    for code, (english, chinese) in TEXTS.items():
        assert english.isascii() or "°" in english, code
        assert any("\u4e00" <= char <= "\u9fff" for char in chinese), code
        assert PUBLISHED[code][1], code
        # Chinese may say less; it never says what English does not.
        assert placeholders(chinese) - {"reason_zh"} <= placeholders(english) | {"reason_en"}, code


def test_every_finding_fills_its_sentences() -> None:
    from tests.unit.verdict.every_code import EVERY_CODE

    seen: set[Code] = set()
    for told in EVERY_CODE():
        for finding in told.judged().findings:
            seen.add(finding.code)
            for language in (EN, ZH):
                assert "{" not in text(finding, language)
                assert text(finding, language)
            needed = placeholders(TEXTS[finding.code][EN]) | placeholders(TEXTS[finding.code][ZH])
            assert needed <= set(finding.values), finding.code
    thermal = {Code(code) for code in Code if list(Code).index(code) >= list(Code).index(Code.FROZEN)}
    thermal -= {Code.HISTORY_GAP, Code.HISTORY_LIMIT}
    assert seen | thermal == set(Code)


def test_temperature_sentences_use_what_the_temperature_check_gives() -> None:
    given_values = {"minimum", "maximum", "minutes", "device", "rule"}
    for code in list(Code)[list(Code).index(Code.FROZEN) : list(Code).index(Code.HISTORY_GAP)]:
        assert placeholders(TEXTS[code][EN]) | placeholders(TEXTS[code][ZH]) <= given_values, code


# Policy


def test_a_policy_raises_in_toml_and_in_json_alike() -> None:
    toml = parse_policy('name = "d3"\n[raise]\nEXCURSION = "HOLD"\n')
    assert parse_policy('{"name": "d3", "raise": {"EXCURSION": "HOLD"}}') == toml
    assert toml.severity(Code.EXCURSION) is Use.HOLD
    assert toml.severity(Code.FROZEN) is Use.DO_NOT_USE
    assert toml.hash != POLICY.hash != parse_policy('name = "d3"').hash
    assert len(POLICY.hash) == 64


@pytest.mark.parametrize("code", Code)
def test_a_policy_never_loosens(code: Code) -> None:
    for use in Use:
        if use < PUBLISHED[code][0]:
            with pytest.raises(InputError) as caught:
                parse_policy(f'name = "x"\n[raise]\n{code} = "{use.name}"\n')
            assert caught.value.reason is Reason.VERDICT_POLICY_LOOSER
            assert code in caught.value.field
        else:
            assert Policy("x", {code: use}).severity(code) is use


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("= nonsense", "policy"),
        ("{", "policy"),
        ("x" * (POLICY_BYTES_MAX + 1), "policy"),
        ('name = "x"\nextra = 1', "policy"),
        ("", "policy.name"),
        ("name = 1", "policy.name"),
        ('name = ""', "policy.name"),
        (f'name = "{"x" * 65}"', "policy.name"),
        ('name = "idtrace/1"', "policy.name"),
        ('name = "x"\nraise = 1', "policy.raise"),
        ('name = "x"\n[raise]\nNONE = "HOLD"', "policy.raise.NONE"),
        ('name = "x"\n[raise]\nFROZEN = "NEVER"', "policy.raise.FROZEN"),
        ('name = "x"\n[raise]\nFROZEN = 2', "policy.raise.FROZEN"),
        ('name = "x"\n[raise]\nEXCURSION = ["HOLD"]', "policy.raise.EXCURSION"),
        ('{"name": "\\ud800"}', "policy.name"),
        ('{"name": "a\\u0007"}', "policy.name"),
    ],
)
def test_a_broken_policy_names_its_key(body: str, field: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_policy(body)
    assert (caught.value.reason, caught.value.field) == (Reason.POLICY_MALFORMED, field)


def test_a_stricter_policy_gives_a_stricter_verdict_and_names_itself() -> None:
    strict = Policy("strict", {Code.HISTORY_GAP: Use.DO_NOT_USE})
    told = story(gaps=(Gap(GapKind.MISSING, "x", "y"),))
    assert told.judged().use is Use.HOLD
    assert told.judged(strict).use is Use.DO_NOT_USE
    assert told.judged(strict).policy == strict.hash


# Roles


def test_roles_do_what_the_law_lets_them() -> None:
    assert may_report([PartyRole.CLINIC], "dispensing")
    assert not may_report([PartyRole.DISTRIBUTOR, PartyRole.MAKER], "dispensing")
    assert not may_report([PartyRole.CARRIER], "unpacking")
    assert may_report([PartyRole.CARRIER, PartyRole.DISTRIBUTOR], "unpacking")
    assert not any(may_report([role], "retail_selling") for role in PartyRole)
    assert may_report([], "")
    assert may_report([], "https://example.com/step")
    assert all(may_report([role], step) for role, steps in STEPS_OF_ROLE.items() for step in steps)


def test_a_finding_names_what_it_is_about() -> None:
    assert Finding(Code.RECALLED).values == {}
    pairs = itertools.pairwise(Use)
    assert all(one < other for one, other in pairs)


def test_a_judgement_takes_a_history_that_was_made_before() -> None:
    from idtrace.verdict.judge import history_of, thermal_of

    facts = story(product=product(doses=2)).facts()
    made_before = history_of(facts)
    assert judge(facts, POLICY) == judge(facts, POLICY, history=made_before, thermal=thermal_of(facts, made_before))

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.coldchain.profile import Counting, ExcursionRule, Profile, Side, decimal_text, parse, payload
from idtrace.coldchain.profiles import BUILT_IN, FREEZING, rules_of, vial_rule
from idtrace.errors import InputError, Reason
from idtrace.product import Product, parse_expiry

PRODUCT = Product("88.118.8/class/hpv", "HPV vaccine", "疫苗", "88.118.8", 1, 0, BUILT_IN["2-8"])


def changed(path: str, value: Any) -> bytes:
    """The usual profile with one field changed; ``...`` takes it away."""
    body = json.loads(payload(BUILT_IN["2-8"]))
    *parents, name = path.split(".")
    at = body
    for parent in parents:
        at = at[int(parent) if parent.isdigit() else parent]
    if value is ...:
        del at[name]
    else:
        at[name] = value
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize("profile", BUILT_IN.values(), ids=BUILT_IN)
def test_a_usual_profile_survives_its_bytes(profile: Profile) -> None:
    assert parse(payload(profile)) == profile


def test_the_rules_of_who_are_as_published() -> None:
    type_1 = {(r.side, r.limit, r.seconds, r.counting) for r in BUILT_IN["2-8"].rules}
    assert type_1 == {
        (Side.ABOVE, Decimal(45), 3600, Counting.SINGLE),
        (Side.ABOVE, Decimal(30), 36_000, Counting.CUMULATIVE),
        (Side.BELOW, Decimal("-0.5"), 3600, Counting.SINGLE),
    }
    type_2 = {(r.side, r.limit, r.seconds, r.counting) for r in BUILT_IN["-20"].rules}
    assert type_2 == {
        (Side.ABOVE, Decimal(45), 3600, Counting.SINGLE),
        (Side.ABOVE, Decimal(30), 36_000, Counting.CUMULATIVE),
        (Side.ABOVE, Decimal(10), 72_000, Counting.CUMULATIVE),
    }
    assert BUILT_IN["-70"].rules == BUILT_IN["-20"].rules


def test_a_vial_monitor_is_a_rule_of_heat() -> None:
    monitored = parse(changed("vvm", 14))
    assert rules_of(monitored) == (*monitored.rules, vial_rule(14))
    assert (vial_rule(14).limit, vial_rule(14).seconds) == (Decimal(37), 14 * 86_400)
    assert rules_of(BUILT_IN["2-8"]) == BUILT_IN["2-8"].rules


@given(
    limits=st.tuples(st.decimals(-100, 0, places=3), st.decimals("0.001", 50, places=3)),
    freeze=st.booleans(),
    vvm=st.sampled_from([0, 2, 7, 11, 14, 30]),
    budget=st.integers(0, 10**6),
    rules=st.lists(
        st.tuples(
            st.sampled_from(Side), st.decimals(0, 20, places=3), st.integers(1, 10**6), st.sampled_from(Counting)
        ),
        max_size=16,
    ),
)
def test_any_profile_survives_its_bytes(
    limits: tuple[Decimal, Decimal],
    freeze: bool,
    vvm: int,
    budget: int,
    rules: list[tuple[Side, Decimal, int, Counting]],
) -> None:
    low, high = limits[0], limits[0] + limits[1]
    profile = Profile(
        "maker's own", low, high, freeze, vvm,
        tuple(
            ExcursionRule(f"r{index}", "report 7", side, high + by if side is Side.ABOVE else low - by, s, how)
            for index, (side, by, s, how) in enumerate(rules)
        ),
        budget,
        *((high, 48) if high > 0 else (None, 24)),
    )  # fmt: skip
    assert parse(payload(profile)) == profile


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("low", ..., "low"),
        ("low", 2, "low"),
        ("low", "+2", "low"),
        ("low", "2.0", "low"),
        ("low", "-0", "low"),
        ("low", "02", "low"),
        ("low", "2e0", "low"),
        ("low", "2.0001", "low"),
        ("low", "-201", "low"),
        ("high", "101", "high"),
        ("high", "2", "high"),
        ("high", "٨", "high"),
        ("vvm", 5, "vvm"),
        ("vvm", -1, "vvm"),
        ("freeze_sensitive", 1, "freeze_sensitive"),
        ("budget_seconds", -1, "budget_seconds"),
        ("budget_seconds", 10**9, "budget_seconds"),
        ("mkt_high", "1.9", "mkt_high"),
        ("mkt_high", ..., "'mkt_hours'"),
        ("mkt_hours", ..., "mkt_hours"),
        ("mkt_hours", 0, "mkt_hours"),
        ("profile", "", "profile"),
        ("profile", " 2-8", "profile"),
        ("profile", "2\u202e8", "profile"),
        ("surprise", 1, "'surprise'"),
        ("rules", {}, "rules"),
        ("rules.0.limit", "7.9", "rules[0].limit"),
        ("rules.2.limit", "2.1", "rules[2].limit"),
        ("rules.0.seconds", 0, "rules[0].seconds"),
        ("rules.0.mode", "sometimes", "rules[0].mode"),
        ("rules.0.side", "beside", "rules[0].side"),
        ("rules.1.name", "who-45", "rules[1].name"),
        ("rules.0.source", "", "rules[0].source"),
        ("rules.0.why", "x", "rules[0].'why'"),
    ],
)
def test_a_profile_that_is_wrong_names_the_field(path: str, value: Any, field: str) -> None:
    with pytest.raises(InputError) as refused:
        parse(changed(path, value))
    assert refused.value.field == f"temperature.{field}"


def test_frozen_goods_have_no_mean_kinetic_temperature() -> None:
    body = json.loads(payload(BUILT_IN["-20"])) | {"mkt_high": "-15", "mkt_hours": 24}
    with pytest.raises(InputError, match=r"1079\.2") as refused:
        parse(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
    assert refused.value.field == "temperature.mkt_high"


def test_rules_are_bounded() -> None:
    rules = json.loads(payload(BUILT_IN["2-8"]))["rules"] * 6
    with pytest.raises(InputError) as refused:
        parse(changed("rules", rules))
    assert refused.value.reason is Reason.FIELD_TOO_LARGE


def test_a_decimal_has_one_spelling() -> None:
    assert [decimal_text(Decimal(text)) for text in ("8.0", "-0.50", "-0", "1E+1", "0.0")] == [
        "8",
        "-0.5",
        "0",
        "10",
        "0",
    ]
    assert FREEZING.limit == Decimal("-0.5")


def test_a_product_survives_its_bytes() -> None:
    assert Product.parse(PRODUCT.payload(), identifier=PRODUCT.identifier) == PRODUCT


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("doses", 0, "product.doses"),
        ("doses", True, "product.doses"),
        ("vial_hours", 673, "product.vial_hours"),
        ("maker", "", "product.maker"),
        ("maker", "88..1", "product.maker"),
        ("name", {"en": "x"}, "product.name.zh"),
        ("name", {"en": "x", "zh": "x\n"}, "product.name.zh"),
        ("name", {"en": "x", "zh": "y", "fr": "z"}, "product.name.'fr'"),
        ("temperature", {}, "product.temperature.low"),
        ("colour", "red", "product.'colour'"),
    ],
)
def test_a_product_that_is_wrong_names_the_field(name: str, value: Any, field: str) -> None:
    body = json.loads(PRODUCT.payload()) | {name: value}
    data = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    with pytest.raises(InputError) as refused:
        Product.parse(data, identifier="x")
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-12-31", "2026-12-31"),
        ("20261231", "2026-12-31"),
        ("261231", "2026-12-31"),
        ("260200", "2026-02-28"),
        ("280200", "2028-02-29"),
        ("261200", "2026-12-31"),
        ("20240229", "2024-02-29"),
    ],
)
def test_an_expiry_is_its_last_day(text: str, expected: str) -> None:
    assert parse_expiry(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "2026-12", "2026-1231", "202612-31", "20260229", "261300", "20261301", "00000000", "\uff12\uff161231",
        "2026-12-31\n", "99991200",
    ],
)  # fmt: skip
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_expiry(text, field="ilmd.expiry")
    assert refused.value.field == "ilmd.expiry"

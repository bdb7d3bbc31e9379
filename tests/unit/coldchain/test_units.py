from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.coldchain.units import UNITS, celsius, comparable, convert
from idtrace.errors import InputError, Reason


@pytest.mark.parametrize(
    ("value", "uom", "to_uom", "expected"),
    [
        ("46.4", "FAH", "CEL", "8"),
        ("31.1", "FAH", "CEL", "-0.5"),
        ("113", "FAH", "CEL", "45"),
        ("-40", "FAH", "CEL", "-40"),
        ("281.15", "KEL", "CEL", "8"),
        ("272.65", "KEL", "CEL", "-0.5"),
        ("0", "KEL", "CEL", "-273.15"),
        ("-459.67", "FAH", "KEL", "0"),
        ("8", "CEL", "FAH", "46.4"),
        ("8", "CEL", "KEL", "281.15"),
        ("50", "P1", "NX", "500"),
        ("1.5", "A93", "GP", "1500"),
        ("1013.25", "A97", "ATM", "1"),
        ("36", "KMH", "MTS", "10"),
        ("1", "HUR", "MIN", "60"),
    ],
)
def test_conversions_are_exact(value: str, uom: str, to_uom: str, expected: str) -> None:
    assert convert(Decimal(value), uom, to_uom) == Decimal(expected)


@given(st.decimals(-200, 1000, places=6, allow_nan=False), st.sampled_from(["CEL", "FAH", "KEL"]))
def test_a_temperature_survives_fahrenheit_and_kelvin(value: Decimal, unit: str) -> None:
    back = convert(convert(value, "CEL", "FAH"), "FAH", "CEL")
    assert back == value
    there = convert(value, "CEL", unit)
    assert abs(convert(there, unit, "CEL") - value) < Decimal("1e-25")


@given(st.integers(-10_000, 10_000), st.integers(-2000, 2000))
def test_rounding_never_decides_a_comparison_with_a_limit(tenths_f: int, limit_tenths: int) -> None:
    fahrenheit, limit = Decimal(tenths_f) / 10, Decimal(limit_tenths) / 10
    # (F - 32) * 5 / 9 >= L, without any division
    exactly = (tenths_f - 320) * 5 >= limit_tenths * 9
    assert (convert(fahrenheit, "FAH", "CEL") >= limit) == exactly


@pytest.mark.parametrize(
    ("value", "uom", "to_uom"),
    [
        ("NaN", "CEL", "FAH"),
        ("Infinity", "CEL", "CEL"),
        ("1E+31", "CEL", "FAH"),
        ("1E-999999", "CEL", "FAH"),
        ("1" * 31, "CEL", "CEL"),
        ("1", "CEL", "P1"),
        ("1", "XYZ", "CEL"),
        ("1", "CEL", "XYZ"),
        ("1", "", "CEL"),
    ],
)
def test_what_cannot_be_converted_is_refused(value: str, uom: str, to_uom: str) -> None:
    with pytest.raises(InputError) as refused:
        convert(Decimal(value), uom, to_uom, field="GE_value_CEL")
    assert (refused.value.reason, refused.value.field) == (Reason.FIELD_MALFORMED, "GE_value_CEL")


def test_a_unit_of_somebody_else_is_comparable_with_itself_alone() -> None:
    assert convert(Decimal(3), "XYZ", "XYZ") == 3
    assert comparable("XYZ", "XYZ")
    assert not comparable("XYZ", "CEL")
    assert all(comparable("KEL", code) == (code in {"KEL", "CEL", "FAH"}) for code in UNITS)


@pytest.mark.parametrize(("value", "uom"), [("-273.15", "CEL"), ("0", "KEL"), ("-459.67", "FAH")])
def test_absolute_zero_is_the_coldest(value: str, uom: str) -> None:
    assert celsius(Decimal(value), uom) == Decimal("-273.15")
    with pytest.raises(InputError, match="colder"):
        celsius(Decimal(value) - Decimal("0.01"), uom)

"""Units of sensor values: exact conversion between the codes of UN/ECE Recommendation 20 that EPCIS reports use.

Source: UN/ECE Recommendation 20 (codes and factors), CBV 2.0 section 7.11 (which measurement type takes which code).
A unit is ``factor`` times (value + ``before``) in the base unit of its dimension. Results are exact wherever they are
finite decimals (every conversion but those that divide by 9 or 1.8); others are right to 50 digits, far beyond the
digits that a value or a limit may have, so a comparison with a limit is never decided by rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from typing import Final

from idtrace.errors import InputError, Reason, quoted

CELSIUS: Final = "CEL"
# -273.15 °C exactly (BIPM, SI Brochure, 2.3.1): nothing is colder.
ABSOLUTE_ZERO: Final = Decimal("-273.15")
# A double has 17 digits, and the greatest of them are far beyond any quantity of a cold chain; more would be somebody's
# attempt to make us calculate.
DIGITS_MAX: Final = 30
EXPONENT_MAX: Final = 30
_WORKING: Final = Context(prec=50)


@dataclass(frozen=True, slots=True)
class Unit:
    """A code: what it measures, and how its values become those of the dimension's base unit."""

    dimension: str
    factor: Fraction
    before: Fraction = Fraction(0)


def _unit(dimension: str, factor: str = "1", before: str = "0") -> Unit:
    return Unit(dimension, Fraction(factor), Fraction(before))


UNITS: Final = {
    # Temperature, in kelvin.
    "KEL": _unit("temperature"),
    "CEL": _unit("temperature", "1", "273.15"),
    "FAH": _unit("temperature", "5/9", "459.67"),
    # Absolute humidity, in g/m³ (A93 is the code of CBV; GRM per MTQ).
    "A93": _unit("mass density"),
    "GP": _unit("mass density", "1/1000"),  # mg/m³
    "GQ": _unit("mass density", "1/1000000"),  # µg/m³
    "KMQ": _unit("mass density", "1000"),  # kg/m³
    # Relative humidity and other shares, in percent.
    "P1": _unit("share"),
    "NX": _unit("share", "1/10"),  # per mille
    "59": _unit("share", "1/10000"),  # parts per million
    # Pressure, in pascal.
    "PAL": _unit("pressure"),
    "A97": _unit("pressure", "100"),  # hPa
    "KPA": _unit("pressure", "1000"),
    "MPA": _unit("pressure", "1000000"),
    "BAR": _unit("pressure", "100000"),
    "MBR": _unit("pressure", "100"),
    "ATM": _unit("pressure", "101325"),
    # Time, in seconds.
    "SEC": _unit("time"),
    "C26": _unit("time", "1/1000"),
    "MIN": _unit("time", "60"),
    "HUR": _unit("time", "3600"),
    "DAY": _unit("time", "86400"),
    # Length, in metres.
    "MTR": _unit("length"),
    "CMT": _unit("length", "1/100"),
    "MMT": _unit("length", "1/1000"),
    "KMT": _unit("length", "1000"),
    "INH": _unit("length", "0.0254"),
    "FOT": _unit("length", "0.3048"),
    # Mass, in kilograms.
    "KGM": _unit("mass"),
    "GRM": _unit("mass", "1/1000"),
    "MGM": _unit("mass", "1/1000000"),
    "TNE": _unit("mass", "1000"),
    "LBR": _unit("mass", "0.45359237"),
    # Speed, in metres per second, and acceleration in m/s².
    "MTS": _unit("speed"),
    "KMH": _unit("speed", "5/18"),
    "MSK": _unit("acceleration"),
    "K40": _unit("acceleration", "9.80665"),
    # Electric potential, in volt.
    "VLT": _unit("voltage"),
    "2Z": _unit("voltage", "1/1000"),
    # Illuminance, in lux.
    "LUX": _unit("illuminance"),
}


def comparable(uom: str, other: str) -> bool:
    """Whether values of one unit can be had in the other; every unit is comparable with itself."""
    if uom == other:
        return True
    one, two = UNITS.get(uom), UNITS.get(other)
    return one is not None and two is not None and one.dimension == two.dimension


def require_number(value: Decimal, *, field: str = "value") -> Decimal:
    """The value, if it is finite and within ``DIGITS_MAX`` and ``EXPONENT_MAX``.

    Raises:
        InputError: FIELD_MALFORMED.
    """
    if not value.is_finite():
        raise InputError(Reason.FIELD_MALFORMED, "a measured value is a finite number", field=field)
    _, digits, exponent = value.as_tuple()
    if len(digits) > DIGITS_MAX or abs(int(exponent)) > EXPONENT_MAX:
        rule = f"a measured value has at most {DIGITS_MAX} digits and an exponent within {EXPONENT_MAX}"
        raise InputError(Reason.FIELD_MALFORMED, rule, field=field)
    return value


def convert(value: Decimal, uom: str, to_uom: str, *, field: str = "value") -> Decimal:
    """A value in another unit.

    Raises:
        InputError: FIELD_MALFORMED: no usable number, an unknown unit, or units of different dimensions.
    """
    require_number(value, field=field)
    if uom == to_uom:
        return value
    if not comparable(uom, to_uom):
        rule = f"a value in {quoted(uom)} cannot be converted to {quoted(to_uom)}"
        raise InputError(Reason.FIELD_MALFORMED, rule, field=field)
    source, target = UNITS[uom], UNITS[to_uom]
    exact = (Fraction(value) + source.before) * source.factor / target.factor - target.before
    return _WORKING.divide(Decimal(exact.numerator), Decimal(exact.denominator))


def celsius(value: Decimal, uom: str, *, field: str = "value") -> Decimal:
    """A temperature in degrees Celsius.

    Raises:
        InputError: FIELD_MALFORMED: as :func:`convert`, or colder than absolute zero.
    """
    converted = convert(value, uom, CELSIUS, field=field)
    if converted < ABSOLUTE_ZERO:
        raise InputError(Reason.FIELD_MALFORMED, "nothing is colder than -273.15 °C", field=field)
    return converted

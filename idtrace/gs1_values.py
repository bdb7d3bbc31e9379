"""Rules for one value of a GS1 Application Identifier (AI): check digits, character sets, dates, small codes.

:data:`LINTERS` names each rule as the GS1 Barcode Syntax Dictionary names it, so that its published pass and fail
vectors run against ours. Each is a pure function that returns nothing, or raises ``InputError`` with the rule broken.

Out of scope, on purpose: ``iso3166*`` and ``iso4217`` (lists that change with the world, and no identifier depends on
them), ``packagetype`` and ``mediatype`` (the same), ``couponcode`` and ``couponposoffer`` (North American coupons,
which identify nothing that is traced). ``gcppos1`` and ``gcppos2`` check the digits of a company prefix but do not look
it up, because an answer must not depend on which version of a prefix table is installed.

Sources: GS1 General Specifications §7.9 (check digits and characters), §7.11 (character sets), §7.12 (two-digit years),
§3 (the AIs); ISO 5218 (sex); ISO 13616 (IBAN).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NoReturn

from biip.checksums import gs1_standard_check_digit

from idtrace.errors import InputError, Reason, quoted

if TYPE_CHECKING:
    from collections.abc import Callable

# Value of each character of set 82 in the alphanumeric check: its place in this string (General Specifications §7.9.5).
CSET82: Final = "!\"%&'()*+,-./0123456789:;<=>?ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
_CSET32: Final = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"  # of the check pair: no 0, 1, I, O, which are misread
# The longest key with a check pair is a GMN of 25 characters: 23 of data, one prime each.
_ALPHA_CHARS_MAX: Final = 25
_PRIMES: Final = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83)
# The shortest company prefix that GS1 gives out has four digits.
_COMPANY_PREFIX_DIGITS_MIN: Final = 4
# Country and check digits with a little account number; the longest national form has 34 (ISO 13616).
_IBAN_CHARS_MIN, _IBAN_CHARS_MAX = 11, 34

_DIGITS = re.compile(r"[0-9]*\Z")
_IN_CSET82 = re.compile(rf"[{re.escape(CSET82)}]*\Z")
_IN_CSET39 = re.compile(r"[#\-/0-9A-Z]*\Z")
_IN_CSET64 = re.compile(r"[A-Za-z0-9_-]*(={0,2})\Z")
_PERCENT_ENCODED = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*\Z")
_POSITION = re.compile(r"([1-9][0-9]*)/([1-9][0-9]*)\Z")
_IBAN = re.compile(r"([A-Z]{2})[0-9A-Z]*\Z")
# ISO 3166 reserves these country codes for private use, so no bank has them; XK (Kosovo) is the one that IBAN took.
_PRIVATE_COUNTRY = re.compile(r"(?!XK)(?:AA|Q[M-Z]|X[A-Z]|ZZ)\Z")


def _refuse(rule: str, value: str, reason: Reason = Reason.GS1_MALFORMED) -> NoReturn:
    raise InputError(reason, f"{quoted(value)} {rule}", field="text")


def _digits(value: str) -> None:
    if _DIGITS.match(value) is None:
        _refuse("has a character that is not one of 0 to 9", value)


def _digits_of(value: str, count: int) -> None:
    _digits(value)
    if len(value) != count:
        _refuse(f"does not have {count} digits", value)


def _csum(value: str) -> None:
    """Last digit makes the sum weighted 3, 1, 3 … from the right a multiple of ten (§7.9.1)."""
    _digits(value)
    if len(value) < 2:
        _refuse("is too short to hold a check digit", value, Reason.GS1_CHECK_DIGIT)
    right = gs1_standard_check_digit(value[:-1])
    if int(value[-1]) != right:
        _refuse(f"has check digit {value[-1]}; it should be {right}", value, Reason.GS1_CHECK_DIGIT)


def check_pair(data: str) -> str:
    """The two check characters of an alphanumeric key (§7.9.5): primes rising from the right, modulo 1021."""
    total = sum(CSET82.index(char) * prime for char, prime in zip(reversed(data), _PRIMES, strict=False)) % 1021
    return _CSET32[total >> 5] + _CSET32[total & 31]


def _csumalpha(value: str) -> None:
    if not 2 <= len(value) <= _ALPHA_CHARS_MAX:
        _refuse("is too short or too long to hold a pair of check characters", value, Reason.GS1_CHECK_DIGIT)
    _cset82(value)
    if check_pair(value[:-2]) != value[-2:]:
        _refuse("has a wrong pair of check characters", value, Reason.GS1_CHECK_DIGIT)


def _cset82(value: str) -> None:
    if _IN_CSET82.match(value) is None:
        _refuse("has a character outside the GS1 set of 82", value)


def _cset39(value: str) -> None:
    if _IN_CSET39.match(value) is None:
        _refuse("has a character outside the GS1 set of 39 (#, -, /, digits, capitals)", value)


def _cset64(value: str) -> None:
    padded = _IN_CSET64.match(value)
    if padded is None:
        _refuse("is not base64url", value)
    if padded[1] and len(value) % 3 != 0:
        _refuse("has the wrong padding", value)


def _gcppos1(value: str) -> None:
    head = value[:_COMPANY_PREFIX_DIGITS_MIN]
    if len(head) < _COMPANY_PREFIX_DIGITS_MIN or _DIGITS.match(head) is None:
        _refuse(f"does not begin with a company prefix of at least {_COMPANY_PREFIX_DIGITS_MIN} digits", value)


def _gcppos2(value: str) -> None:
    _gcppos1(value[1:])


def _hasnondigit(value: str) -> None:
    if _DIGITS.match(value) is not None:
        _refuse("has digits only", value)


def _nonzero(value: str) -> None:
    _digits(value)
    if not value.strip("0"):
        _refuse("is zero", value)


def _nozeroprefix(value: str) -> None:
    _digits(value)
    if value.startswith("0"):
        _refuse("begins with a zero", value)


def _zero(value: str) -> None:
    if not value or value.strip("0"):
        _refuse("is not zero", value)


def _hyphen(value: str) -> None:
    if not value or value.strip("-"):
        _refuse("is not a hyphen", value)


def _days(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in {4, 6, 9, 11} else 31


def _date(value: str, *, year: int, day_zero: bool) -> None:
    month, day = int(value[-4:-2]), int(value[-2:])
    if not 1 <= month <= 12:
        _refuse(f"has no such month: {value[-4:-2]}", value)
    if day > _days(year, month) or (day == 0 and not day_zero):
        _refuse(f"has no such day: {value[-2:]}", value)


def _short_date(value: str, *, day_zero: bool) -> None:
    # The century needs today's date (§7.12), which no rule here may ask for; and it decides nothing: of the years
    # that 00 can mean while scanners last, 2000 has a leap day, and 1900 and 2100 are over or out of the window.
    _digits_of(value, 6)
    _date(value, year=2000 + int(value[:2]), day_zero=day_zero)


def _long_date(value: str, *, day_zero: bool) -> None:
    _digits_of(value, 8)
    _date(value, year=int(value[:4]), day_zero=day_zero)


def _yymmdd(value: str) -> None:
    _short_date(value, day_zero=False)


def _yymmd0(value: str) -> None:
    """Day 00 means the last day of the month (§3.4)."""
    _short_date(value, day_zero=True)


def _yyyymmdd(value: str) -> None:
    _long_date(value, day_zero=False)


def _yyyymmd0(value: str) -> None:
    _long_date(value, day_zero=True)


def _at_most(value: str, digits: int, limit: int) -> None:
    _digits_of(value, digits)
    if int(value) > limit:
        _refuse(f"is more than {limit}", value)


def _hh(value: str) -> None:
    _at_most(value, 2, 23)


def _mi(value: str) -> None:
    _at_most(value, 2, 59)


def _hhmi(value: str) -> None:
    _digits_of(value, 4)
    _hh(value[:2])
    _mi(value[2:])


def _latitude(value: str) -> None:
    _at_most(value, 10, 180_0000000)  # degrees from the south pole, times ten million (§3.8)


def _longitude(value: str) -> None:
    _at_most(value, 10, 360_0000000)


def _pcenc(value: str) -> None:
    if _PERCENT_ENCODED.match(value) is None:
        _refuse("has a '%' without two hexadecimal digits after it", value)


def _pieceoftotal(value: str) -> None:
    _digits(value)
    half, odd = divmod(len(value), 2)
    if odd or not half:
        _refuse("is not a piece number and a total of the same length", value)
    piece, total = int(value[:half]), int(value[half:])
    if not 1 <= piece <= total:
        _refuse("is not a piece from 1 to the total", value)


def _posinseqslash(value: str) -> None:
    position = _POSITION.match(value)
    if position is None:
        _refuse("is not 'position/end', both without leading zeros", value)
    if int(position[1]) > int(position[2]):
        _refuse("has a position after the end", value)


def _one_of(value: str, allowed: str) -> None:
    if len(value) != 1 or value not in allowed:
        _refuse(f"is not one of {', '.join(allowed)}", value)


def _importeridx(value: str) -> None:
    """EU 2018/574: one character that is a letter, a digit, '-' or '_'."""
    if len(value) != 1 or re.match(r"[A-Za-z0-9_-]\Z", value) is None:
        _refuse("is not one letter, digit, '-' or '_'", value)


def _winding(value: str) -> None:
    _one_of(value, "019")


def _yesno(value: str) -> None:
    _one_of(value, "01")


def _iso5218(value: str) -> None:
    _one_of(value, "0129")


def _iban(value: str) -> None:
    shape = _IBAN.match(value)
    if not _IBAN_CHARS_MIN <= len(value) <= _IBAN_CHARS_MAX or shape is None or _PRIVATE_COUNTRY.match(shape[1]):
        _refuse("is not a country, two check digits and an account number", value)
    if int("".join(str(int(char, 36)) for char in value[4:] + value[:4])) % 97 != 1:
        _refuse("has wrong check digits", value, Reason.GS1_CHECK_DIGIT)


LINTERS: Final[dict[str, Callable[[str], None]]] = {
    "csetnumeric": _digits,
    "cset39": _cset39,
    "cset64": _cset64,
    "cset82": _cset82,
    "csum": _csum,
    "csumalpha": _csumalpha,
    "gcppos1": _gcppos1,
    "gcppos2": _gcppos2,
    "hasnondigit": _hasnondigit,
    "hh": _hh,
    "hhmi": _hhmi,
    "hyphen": _hyphen,
    "iban": _iban,
    "importeridx": _importeridx,
    "iso5218": _iso5218,
    "latitude": _latitude,
    "longitude": _longitude,
    "mi": _mi,
    "nonzero": _nonzero,
    "nozeroprefix": _nozeroprefix,
    "pcenc": _pcenc,
    "pieceoftotal": _pieceoftotal,
    "posinseqslash": _posinseqslash,
    "ss": _mi,
    "winding": _winding,
    "yesno": _yesno,
    "yymmd0": _yymmd0,
    "yymmdd": _yymmdd,
    "yyyymmd0": _yyyymmd0,
    "yyyymmdd": _yyyymmdd,
    "zero": _zero,
}

"""The value rules against GS1's own vectors, and our tables against GS1's own dictionary."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

import pytest
from biip.gs1_application_identifiers import GS1ApplicationIdentifier

from idtrace.errors import InputError, Reason
from idtrace.gs1 import KEYS
from idtrace.gs1_link import _SEQUENCES, NOT_IN_QUERY
from idtrace.gs1_rules import (
    _LINTS_OF,
    ai_at,
    check_together,
    check_value,
    excluded_beside,
    predefined_length,
    required_beside,
)
from idtrace.gs1_values import LINTERS, check_pair
from tests.shared_data import shared_data

# Rules that are not ours to keep, and why.
_OUT_OF_SCOPE = {
    "iso3166": "a list of countries changes with the world; no identifier holds one",
    "iso3166999": "the same",
    "iso3166alpha2": "the same",
    "iso4217": "a list of currencies, the same",
    "packagetype": "a list of package types, the same",
    "mediatype": "a list of media types, the same",
    "couponcode": "North American coupons identify nothing that is traced",
    "couponposoffer": "the same",
}
# Both refuse a prefix that their stand-in for a company prefix service does not know; we look none up.
_NEEDS_A_PREFIX_TABLE = {("gcppos1", "1234567"), ("gcppos2", "I1234567")}


def _outcome(linter: str, value: str) -> str:
    try:
        LINTERS[linter](value)
    except InputError:
        return "FAIL"
    return "PASS"


def test_the_published_vectors_pass_or_are_named_as_out_of_scope() -> None:
    lines = shared_data("gs1/lint-vectors.tsv").read_text(encoding="utf-8").splitlines()[1:]
    count: Counter[str] = Counter()
    wrong: list[str] = []
    for line in lines:
        linter, escaped, expected, *_ = line.split("\t")
        value = escaped.encode("latin-1").decode("unicode_escape")
        if linter in _OUT_OF_SCOPE:
            count[linter] += 1
        elif (linter, value) in _NEEDS_A_PREFIX_TABLE:
            count["needs a company prefix table"] += 1
        elif _outcome(linter, value) == expected:
            count["agree"] += 1
        else:
            wrong.append(line)
    assert wrong == []
    assert count == {
        "agree": 748,
        "needs a company prefix table": 2,
        "iso3166": 504,
        "iso4217": 504,
        "iso3166alpha2": 341,
        "packagetype": 221,
        "couponcode": 199,
        "mediatype": 53,
        "couponposoffer": 35,
        "iso3166999": 6,
    }
    assert sum(count.values()) == len(lines) == 2613


# What the vectors leave out: (linter, value, accepted).
@pytest.mark.parametrize(
    ("linter", "value", "accepted"),
    [
        ("csum", "9506000134352", True),
        ("csum", "9506000134353", False),
        ("csum", "0", False),
        ("csum", "", False),
        ("csum", "\uff19\uff15\uff10\uff16\uff10\uff10\uff10\uff11\uff13\uff14\uff13\uff15\uff12", False),
        ("csum", "9506000134352\n", False),
        ("csumalpha", "1987654Ad4X4bL5ttr2310c2K", True),
        ("csumalpha", "1987654Ad4X4bL5ttr2310c22K", False),
        ("csumalpha", "", False),
        ("cset82", "Aé", False),
        ("cset82", "A\n", False),
        ("cset39", "A-1/#", True),
        ("cset64", "1===", False),
        ("gcppos1", "4012345AAbb", True),
        ("gcppos1", "401A", False),
        ("gcppos1", "401", False),
        ("gcppos2", "I4012", True),
        ("gcppos2", "4A12", False),
        ("hyphen", "--", True),
        ("nonzero", "", False),
        ("nozeroprefix", "0", False),
        ("iban", "BE71096123456760", False),
        ("iban", "XK051212012345678906", True),
        ("iban", "QM051212012345678906", False),
        ("iban", "be71096123456769", False),
        ("latitude", "1800000001", False),
        ("latitude", "1800000000", True),
        ("importeridx", "", False),
        ("importeridx", "_", True),
        ("winding", "", False),
        ("yymmdd", "250229", False),
        ("yymmdd", "\uff12\uff150101", False),
        ("yymmd0", "250200", True),
        ("yymmd0", "251300", False),
        ("yyyymmdd", "19000229", False),
        ("yyyymmdd", "20000229", True),
        ("yyyymmd0", "20240200", True),
    ],
)
def test_values_that_the_vectors_leave_out(linter: str, value: str, accepted: bool) -> None:
    assert _outcome(linter, value) == ("PASS" if accepted else "FAIL")


def test_a_check_pair_is_computed() -> None:
    assert check_pair("1987654Ad4X4bL5ttr2310c") == "2K"


class _Line(NamedTuple):
    flags: str
    parts: tuple[str, ...]
    requires: tuple[str, ...]
    excludes: tuple[str, ...]
    sequences: tuple[tuple[str, ...], ...] | None


def _dictionary() -> dict[str, _Line]:
    found: dict[str, _Line] = {}
    for line in shared_data("gs1/gs1-syntax-dictionary.txt").read_text(encoding="utf-8").splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        first, _, last = words[0].partition("-")
        flags = words[1] if re.fullmatch(r"[*?]+", words[1]) else ""
        parts = tuple(word for word in words[1:] if re.match(r"\[?[NXYZ][.\d]", word))
        named = [word.partition("=") for word in words if re.match(r"(req|ex|dlpkey)\b", word)]
        requires = [value.split(",") for name, _, value in named if name == "req"]
        excludes = [value.split(",") for name, _, value in named if name == "ex"]
        paths = [
            tuple(tuple(filter(None, way.split(","))) for way in value.split("|"))
            for name, _, value in named
            if name == "dlpkey"
        ]
        assert len(requires) <= 1
        assert len(excludes) <= 1
        entry = _Line(flags, parts, tuple(*requires), tuple(*excludes), paths[0] if paths else None)
        for number in range(int(first), int(last or first) + 1):
            found[f"{number:0{len(first)}}"] = entry
    return found


def _lints(parts: tuple[str, ...]) -> set[tuple[str, int, int]]:
    """Rules of one AI by the slice that each reads; of numbers, the prefix rule says nothing beyond 'digits'."""
    rules: set[tuple[str, int, int]] = set()
    at = 0
    for part in parts:
        size, *linters = part.replace("[", "").replace("]", "").split(",")
        end = at + int(size[1:].lstrip("."))
        rules |= {
            (linter, at, end)
            for linter in linters
            if linter not in _OUT_OF_SCOPE and not (size[0] == "N" and linter.startswith("gcppos"))
        }
        at = end
    return rules


def test_our_tables_say_what_the_dictionary_says() -> None:
    dictionary = _dictionary()
    assert len(dictionary) == 541
    for ai, line in dictionary.items():
        assert set(_LINTS_OF.get(ai, ())) == _lints(line.parts), ai
        assert set(required_beside(ai)) == set(line.requires), ai
        assert set(excluded_beside(ai)) == set(line.excludes), ai
        assert (predefined_length(ai) is not None) == ("*" in line.flags), ai
        assert (NOT_IN_QUERY.match(ai) is None) == ("?" in line.flags), ai
        assert (ai in KEYS) == (line.sequences is not None), ai
        assert (line.sequences or ((),)) == _SEQUENCES.get(ai, ((),)), ai


def _fits(entry: GS1ApplicationIdentifier, value: str) -> bool:
    return re.fullmatch(entry.pattern, entry.ai + value) is not None


def test_biip_s_ais_are_as_long_as_the_dictionary_s() -> None:
    for ai, line in _dictionary().items():
        entry = ai_at(ai)
        assert entry.ai == ai
        assert entry.separator_required == ("*" not in line.flags), ai
        longest = sum(int(width) for part in line.parts for width in re.findall(r"[NXYZ](?:\.\.)?(\d+)", part))
        # A value of ones is good nearly everywhere (month 11, day 11, hour 11); a GRAI begins with 0, a temperature
        # may end in a minus sign, and a birth sequence has a slash.
        value = {"8003": "0"}.get(ai, "1") + "1" * (longest - 1)
        if ai.startswith("433"):
            value = "111111-"
        elif ai == "7258":
            value = "1/1"
        assert _fits(entry, value), ai
        assert not _fits(entry, value + "1"), ai
        if (length := predefined_length(ai)) is not None:
            assert length == longest, ai


@pytest.mark.parametrize(
    ("ai", "value", "reason"),
    [
        ("01", "09506000134353", Reason.GS1_CHECK_DIGIT),
        ("01", "9506000134352", Reason.GS1_MALFORMED),
        ("01", "\uff109506000134352", Reason.GS1_MALFORMED),
        ("30", "", Reason.GS1_MALFORMED),
        ("21", "A B", Reason.GS1_MALFORMED),
        ("21", "A" * 21, Reason.GS1_MALFORMED),
        ("17", "260230", Reason.GS1_MALFORMED),
        ("8003", "19506000134352X", Reason.GS1_MALFORMED),
        ("8006", "095060001343520302", Reason.GS1_MALFORMED),
        ("8011", "012", Reason.GS1_MALFORMED),
        ("8008", "26010124", Reason.GS1_MALFORMED),
    ],
)
def test_a_wrong_value_is_refused_and_its_ai_named(ai: str, value: str, reason: Reason) -> None:
    with pytest.raises(InputError) as caught:
        check_value(ai, value)
    assert caught.value.reason == reason
    assert f"({ai})" in caught.value.detail


@pytest.mark.parametrize("value", ["26010123", "2601012359", "260101235959"])
def test_optional_parts_may_be_left_out(value: str) -> None:
    check_value("8008", value)


def test_an_ai_is_found_by_its_first_digits() -> None:
    assert [ai_at(text).ai for text in ("99999", "0109", "3103X", "10A", "8010")] == ["99", "01", "3103", "10", "8010"]


@pytest.mark.parametrize("text", ["", "A", "0", "19", "3109", "\uff17\uff17"])
def test_what_is_no_ai_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        ai_at(text)
    assert caught.value.reason == Reason.GS1_MALFORMED


@pytest.mark.parametrize(
    ("ais", "broken"),
    [
        ("01 21", None),
        ("01 3103 17 10", None),
        ("00 02 37", None),
        ("01 30 3922", None),
        ("01 3103 3922", None),
        ("01 3922", "3922"),
        ("21", "21"),
        ("10 17", "10"),
        ("02", "02"),
        ("01 37 00 02", "01"),
        ("01 02 37", "01"),
        ("01 255", "01"),
        ("01 21 235", "21"),
        ("01 21 21", "21"),
        ("01 3103 3102", "3103"),
        ("254", "254"),
        ("415", "415"),
        ("8011", "8011"),
        ("8017 8018", "8017"),
        ("01 8041 21", "8041"),
        ("01 8041 8040 21", None),
    ],
)
def test_what_may_stand_together(ais: str, broken: str | None) -> None:
    elements = tuple((ai, "") for ai in ais.split())
    if broken is None:
        check_together(elements)
        return
    with pytest.raises(InputError) as caught:
        check_together(elements)
    assert caught.value.reason == Reason.GS1_AI_RULE
    assert caught.value.detail.startswith(f"AI ({broken})")

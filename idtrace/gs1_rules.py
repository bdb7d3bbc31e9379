"""Which Application Identifiers (AIs) there are, what each value obeys, and which AIs may stand together.

The list of AIs with their lengths and character sets is biip's (``GS1ApplicationIdentifier``). On top of it stand three
tables of our own, grouped by rule: :data:`_VALUE_RULES`, :data:`_REQUIRES`, :data:`_EXCLUDES`. biip's parsers of whole
messages and URIs are not used: they read the clock for two-digit years, strip white space, take full-width digits for
digits, only note a wrong check digit, let an AI repeat, end a variable field without its FNC1, and know no association.

Sources: GS1 General Specifications §3 (AIs), §4.13 and §4.14 (pairs that exclude or require one another), §7.8.5
(AIs of predefined length); GS1 Barcode Syntax Dictionary, which a test compares with these tables line by line.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from biip import ParseError
from biip.gs1_application_identifiers import GS1ApplicationIdentifier

from idtrace.errors import InputError, Reason, quoted
from idtrace.gs1_values import LINTERS

# One AI with its value, as printed: ("21", "SN-0001").
Element = tuple[str, str]
Elements = tuple[Element, ...]

# More fields than any label has; a message of 2,048 characters could otherwise name every AI that exists.
ELEMENTS_MAX: Final = 50

# Length of the value by the first two digits, for AIs that end without FNC1 (§7.8.5).
_PREDEFINED: Final = {
    "00": 18,
    **dict.fromkeys(("01", "02", "03"), 14),
    **dict.fromkeys(("11", "12", "13", "15", "16", "17"), 6),
    "20": 2,
    **dict.fromkeys(("31", "32", "33", "34", "35", "36"), 6),
    "41": 13,
}

# (linter, from, to, AIs): the slice of the value that the linter reads. An empty slice is an optional part left out.
# A company prefix in a numeric field needs no row: with no table to look it up in, being digits is the whole rule.
_VALUE_RULES: Final = (
    ("csum", 0, 18, "00 8017 8018"),
    ("csum", 0, 17, "402"),
    ("csum", 0, 14, "01 02 03 8006 8026"),
    ("csum", 0, 13, "253 255 410 411 412 413 414 415 416 417"),
    ("csum", 1, 14, "8003"),
    ("zero", 0, 1, "8003"),
    ("pieceoftotal", 14, 18, "8006 8026"),
    ("gcppos1", 0, 30, "401 7023 8004 8010"),
    ("gcppos1", 0, 25, "8013 8014"),
    ("csumalpha", 0, 25, "8013 8014"),
    ("hasnondigit", 0, 25, "8014"),
    ("nozeroprefix", 0, 12, "8011"),
    ("importeridx", 3, 4, "7040"),
    ("yymmd0", 0, 6, "11 12 13 15 16 17 4324 4325"),
    ("yymmdd", 0, 6, "4326 7003 7006 7007 7011 8008"),
    ("yymmdd", 6, 12, "7007"),
    ("hhmi", 6, 10, "4324 4325 7003 7011"),
    ("hh", 6, 8, "8008"),
    ("mi", 8, 10, "8008"),
    ("ss", 10, 12, "8008"),
    ("yyyymmdd", 0, 8, "7250 7251"),
    ("hhmi", 8, 12, "7251"),
    ("pcenc", 0, 35, "4300 4301 4310 4311 4320"),
    ("pcenc", 0, 70, "4302 4303 4304 4305 4306 4312 4313 4314 4315 4316 7257"),
    ("pcenc", 0, 40, "7253 7254 7259"),
    ("pcenc", 0, 90, "7256"),
    ("latitude", 0, 10, "4309"),
    ("longitude", 10, 20, "4309"),
    ("yesno", 0, 1, "4321 4322 4323"),
    ("hyphen", 6, 7, "4330 4331 4332 4333"),
    ("iso5218", 0, 1, "7252"),
    ("posinseqslash", 0, 3, "7258"),
    ("nonzero", 0, 4, "8001"),
    ("nonzero", 4, 9, "8001"),
    ("nonzero", 9, 12, "8001"),
    ("winding", 12, 13, "8001"),
    ("iban", 0, 34, "8007"),
)

# (AIs, what each needs beside it): alternatives by space, all parts of one joined by "+"; "n" is any digit.
_REQUIRES: Final = (
    ("10 11 13 15 16 20 240 241 422", "01 02 03 8006 8026"),
    ("17", "01 02 03 255 8006 8026"),
    ("242 7001", "01 02 8006 8026"),
    ("21 251 7021 8012", "01 03 8006"),
    ("243", "01 03"),
    ("22 235 337n 710 711 712 713 714 715 716 717 8001 8014 8200", "01"),
    ("30 310n 311n 312n 313n 314n 315n 316n 320n 321n 322n 323n 324n 325n 326n 327n 328n 329n", "01 02"),
    ("350n 351n 352n 356n 357n 360n 361n 364n 365n 366n", "01 02"),
    ("7002 7005 7006 7007 7008 7009 703n 8005", "01 02"),
    ("330n 331n 332n 333n 334n 335n 336n 340n 341n 342n 343n 344n 345n 346n 347n 348n 349n", "00 01"),
    ("353n 354n 355n 362n 363n 367n 368n 369n", "00 01"),
    ("423 424 425 426 7003 7010 7011 8008", "01 02 03"),
    ("8009", "00 01 03"),
    ("723n", "01 8004"),
    ("7240", "01 8006"),
    ("250", "01+21 03+21 8006+21"),
    ("427", "01+422 02+422 03+422"),
    ("7004", "01+10 03+10"),
    ("7020", "01+416 03+416 8006+416"),
    ("7022", "01+7021 03+7021 8006+7021"),
    ("8040", "01+21"),
    ("8041 8042 8043", "01+21+8040"),
    ("02 8026", "37"),
    ("37", "00+02 00+8026"),
    ("392n", "01+30 01+31nn 01+32nn 01+35nn 01+36nn"),
    ("393n 395n", "30 31nn 32nn 35nn 36nn"),
    ("390n", "255 8020"),
    ("394n 8111", "255"),
    ("12 391n 415", "8020"),
    ("8007 8020", "415"),
    ("254", "414"),
    ("403 4300 4301 4302 4304 4305 4306 4307 4308 4309 4310 4311 4312 4314 4315 4316 4317 4318 4319", "00"),
    ("4320 4321 4322 4323 4324 4325 4326 4330 4331 4332 4333 7041", "00"),
    ("4303", "4302"),
    ("4313", "4312"),
    ("7241 7242 7253 7254 7255 7256 8019", "8017 8018"),
    ("7250 7251 7252 7257 7259", "8018"),
    ("7258", "8018+7259"),
    ("8011", "8010"),
    ("8030", "00 01+21 03+21 253 255 8003 8004 8006+21 8010+8011 8017 8018"),
)

# (AIs, what may not stand beside them). Beyond these, AIs that differ in their last digit alone, the place of the
# decimal point of one measure or amount (3100 to 3959), exclude one another.
_EXCLUDES: Final = (
    ("01", "255 37"),
    ("02", "01 03"),
    ("03", "01 02 37 235"),
    ("21", "235"),
    ("255", "01 02 415 8006 8020 8026"),
    ("390n", "391n 394n 8111"),
    ("392n", "393n"),
    ("394n", "8111"),
    ("395n", "392n 393n 8005"),
    ("420", "421"),
    ("421", "4307"),
    ("422 423 424 425", "426"),
    ("4330", "4331"),
    ("4331", "4330"),
    ("4332", "4333"),
    ("4333", "4332"),
    ("7240", "03"),
    ("7250", "7251"),
    ("7251", "7250"),
    ("7253 7254 7255", "7256 7259"),
    ("7259", "7256"),
    ("8006", "01 03 37"),
    ("8017", "8018"),
    ("8018", "8017"),
    ("8026", "02 03 8006"),
)

_HEAD = re.compile(r"[0-9]{0,4}")
_LINTS_OF: Final[dict[str, list[tuple[str, int, int]]]] = {}
for _linter, _start, _stop, _ais in _VALUE_RULES:
    for _ai in _ais.split():
        _LINTS_OF.setdefault(_ai, []).append((_linter, _start, _stop))
_REQUIRES_OF: Final = {ai: needs.split() for ais, needs in _REQUIRES for ai in ais.split()}
_EXCLUDES_OF: Final = {ai: banned.split() for ais, banned in _EXCLUDES for ai in ais.split()}


@cache  # keys are two to four digits: at most 11,100 of them
def _entry(head: str) -> GS1ApplicationIdentifier | None:
    try:
        return GS1ApplicationIdentifier.extract(head)
    except ParseError:
        return None


def ai_at(text: str) -> GS1ApplicationIdentifier:
    """The AI with which ``text`` begins.

    Raises:
        InputError: GS1_MALFORMED: there is none.
    """
    head = _HEAD.match(text)
    assert head is not None, "the pattern matches the empty text"
    entry = _entry(head[0])
    if entry is None:
        raise InputError(Reason.GS1_MALFORMED, f"{quoted(text, 20)} does not begin with a GS1 AI", field="text")
    return entry


def predefined_length(ai: str) -> int | None:
    """Length of the value of an AI that ends without FNC1; None for every other AI."""
    return _PREDEFINED.get(ai[:2])


def check_value(ai: str, value: str) -> None:
    """Check one value: length, character set, and the rules of its parts.

    Raises:
        InputError: GS1_MALFORMED or GS1_CHECK_DIGIT, naming the AI.
    """
    entry = ai_at(ai)
    assert entry.ai == ai, "callers pass an AI that ai_at found"
    # biip's \d would take any Unicode digit, and two of its patterns an empty value.
    if not value or not value.isascii() or re.fullmatch(entry.pattern, ai + value) is None:
        raise InputError(
            Reason.GS1_MALFORMED,
            f"AI ({ai}) cannot have the value {quoted(value)}: its format is {entry.format}",
            field="text",
        )
    for linter, start, stop in _LINTS_OF.get(ai, ()):
        part = value[start:stop]
        if not part:
            continue
        try:
            LINTERS[linter](part)
        except InputError as error:
            raise InputError(error.reason, f"AI ({ai}): {error.detail}", field="text") from None


def _matches(pattern: str, ai: str) -> bool:
    return len(pattern) == len(ai) and all(want in {"n", got} for want, got in zip(pattern, ai, strict=True))


def required_beside(ai: str) -> tuple[str, ...]:
    """What one of must stand beside ``ai``: ``("01+21", "03+21")``; nothing for most keys."""
    return tuple(_REQUIRES_OF.get(ai, _REQUIRES_OF.get(ai[:-1] + "n", [])))


def excluded_beside(ai: str) -> tuple[str, ...]:
    """What may not stand beside ``ai``: ``("255", "37")``."""
    stem = ai[:-1] + "n"
    decimals = (stem,) if len(ai) == 4 and "3100" <= ai <= "3959" else ()
    return decimals + tuple(_EXCLUDES_OF.get(ai, _EXCLUDES_OF.get(stem, [])))


def check_together(elements: Elements) -> None:
    """Check that the AIs of one message may stand together.

    Raises:
        InputError: GS1_AI_RULE: an AI twice, or without one that it requires, or beside one that it excludes.
    """
    ais = [ai for ai, _ in elements]
    for ai in ais:
        if ais.count(ai) > 1:
            raise InputError(Reason.GS1_AI_RULE, f"AI ({ai}) stands there more than once", field="text")
        for banned in excluded_beside(ai):
            for other in ais:
                if other != ai and _matches(banned, other):
                    raise InputError(Reason.GS1_AI_RULE, f"AI ({ai}) may not stand beside AI ({other})", field="text")
        needs = required_beside(ai)
        if needs and not any(
            all(any(_matches(part, other) for other in ais) for part in need.split("+")) for need in needs
        ):
            shown = " or ".join(needs)
            raise InputError(Reason.GS1_AI_RULE, f"AI ({ai}) needs AI {shown} beside it", field="text")

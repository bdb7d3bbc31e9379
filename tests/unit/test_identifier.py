"""The grammar of identifiers: what is accepted, what is refused and why, and what parsing keeps."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.errors import InputError, Reason
from idtrace.identifier import IDENTIFIER_BYTES_MAX, LABELS_MAX, PREFIX_BYTES_MAX, ROOT, Identifier, Prefix

_LABELS = st.text("abzABZ019_-", min_size=1, max_size=6).filter(lambda text: text.strip("_-") == text)
_PREFIXES = st.lists(_LABELS, min_size=1, max_size=LABELS_MAX).map(".".join)
_SUFFIXES = (
    st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=40)
    .map(lambda text: unicodedata.normalize("NFC", text))
    .filter(lambda text: all(unicodedata.category(char)[0] not in "CZ" for char in text))
)


def refused(text: str, reason: Reason, *, canonical: bool = False) -> None:
    with pytest.raises(InputError) as caught:
        (Identifier.parse_canonical if canonical else Identifier.parse)(text, field="here")
    assert (caught.value.reason, caught.value.field) == (reason, "here")


@given(_PREFIXES, _SUFFIXES)
def test_parsing_what_was_written_gives_the_same(prefix: str, suffix: str) -> None:
    identifier = Identifier.parse(f"{prefix}/{suffix}")
    assert Identifier.parse(str(identifier)) == identifier
    assert Identifier.parse_canonical(str(identifier)) == identifier
    assert str(identifier) == f"{prefix.lower()}/{suffix}"
    assert identifier.suffix == suffix


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused_as_input(text: str) -> None:
    try:
        identifier = Identifier.parse(text)
    except InputError:
        return
    assert Identifier.parse_canonical(str(identifier)) == identifier


@pytest.mark.parametrize(
    ("text", "prefix", "suffix"),
    [
        ("88.118.8/SN-0001", "88.118.8", "SN-0001"),
        ("0042/1", "0042", "1"),
        ("A_b-c/X", "a_b-c", "X"),
        ("88/a/b//c", "88", "a/b//c"),
        ("88/\u75ab\u82d7 1", "88", "\u75ab\u82d7 1"),
        ("88/%2F", "88", "%2F"),
        ("88/a b", "88", "a b"),
        ("88/" + "x" * 252, "88", "x" * 252),
        ("1.2.3.4.5.6.7.8/x", "1.2.3.4.5.6.7.8", "x"),
    ],
)
def test_accepted(text: str, prefix: str, suffix: str) -> None:
    identifier = Identifier.parse(text)
    assert (str(identifier.prefix), identifier.suffix) == (prefix, suffix)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", Reason.IDENTIFIER_MALFORMED),
        ("88.118.8", Reason.IDENTIFIER_MALFORMED),
        ("/x", Reason.IDENTIFIER_MALFORMED),
        ("88/", Reason.IDENTIFIER_MALFORMED),
        ("88..8/x", Reason.IDENTIFIER_MALFORMED),
        (".88/x", Reason.IDENTIFIER_MALFORMED),
        ("88./x", Reason.IDENTIFIER_MALFORMED),
        ("-88/x", Reason.IDENTIFIER_MALFORMED),
        ("88-/x", Reason.IDENTIFIER_MALFORMED),
        ("8 8/x", Reason.IDENTIFIER_MALFORMED),
        ("88%2Fx/x", Reason.IDENTIFIER_MALFORMED),
        ("\uff18\uff18/x", Reason.IDENTIFIER_MALFORMED),
        ("\u0430/x", Reason.IDENTIFIER_MALFORMED),
        ("\u212a/x", Reason.IDENTIFIER_MALFORMED),
        ("88\n/x", Reason.IDENTIFIER_MALFORMED),
        ("88/x\n", Reason.IDENTIFIER_MALFORMED),
        ("88/\x00", Reason.IDENTIFIER_MALFORMED),
        ("88/a\u202eb", Reason.IDENTIFIER_MALFORMED),
        ("88/a\u200bb", Reason.IDENTIFIER_MALFORMED),
        ("88/a\ufeffb", Reason.IDENTIFIER_MALFORMED),
        ("88/a\u00a0b", Reason.IDENTIFIER_MALFORMED),
        ("88/a\u2028b", Reason.IDENTIFIER_MALFORMED),
        ("88/\ud800", Reason.IDENTIFIER_MALFORMED),
        ("88/\ue000", Reason.IDENTIFIER_MALFORMED),
        ("88/\u0378", Reason.IDENTIFIER_MALFORMED),
        ("88/ x", Reason.IDENTIFIER_MALFORMED),
        ("88/x ", Reason.IDENTIFIER_MALFORMED),
        ("88/ \u00e9", Reason.IDENTIFIER_MALFORMED),
        ("88/e\u0301", Reason.IDENTIFIER_NOT_CANONICAL),
        ("88/\u212b", Reason.IDENTIFIER_NOT_CANONICAL),
        ("88/" + "x" * 253, Reason.IDENTIFIER_TOO_LONG),
        ("88/" + "\u75ab" * 85, Reason.IDENTIFIER_TOO_LONG),
        ("x" * (PREFIX_BYTES_MAX + 1) + "/x", Reason.IDENTIFIER_TOO_LONG),
        ("1.2.3.4.5.6.7.8.9/x", Reason.IDENTIFIER_TOO_LONG),
    ],
)
def test_refused(text: str, reason: Reason) -> None:
    refused(text, reason)


def test_canonical_parsing_refuses_what_parsing_folds() -> None:
    assert Identifier.parse("GS1.01/X") == Identifier.parse("gs1.01/X")
    refused("GS1.01/X", Reason.IDENTIFIER_NOT_CANONICAL, canonical=True)
    with pytest.raises(InputError) as caught:
        Prefix.parse_canonical("Ab.c")
    assert caught.value.reason == Reason.IDENTIFIER_NOT_CANONICAL
    assert Prefix.parse_canonical("ab.c").labels == ("ab", "c")


def test_the_limits_hold_at_their_edges() -> None:
    assert len(str(Identifier.parse("x" * PREFIX_BYTES_MAX + "/" + "y" * 190))) == IDENTIFIER_BYTES_MAX
    assert Prefix.parse("a" * PREFIX_BYTES_MAX).depth == 1


def test_ancestors() -> None:
    zone, item = Prefix.parse("88.118"), Prefix.parse("88.118.8")
    assert item.lineage() == (ROOT, Prefix.parse("88"), zone, item)
    assert item.within(zone)
    assert item.strictly_within(zone)
    assert item.within(item)
    assert not item.strictly_within(item)
    assert not zone.within(item)
    assert not Prefix.parse("88.1189").within(zone)
    assert item.within(ROOT)
    assert ROOT.is_root
    assert not zone.is_root
    assert (ROOT.depth, item.depth, str(ROOT)) == (0, 3, "")
    assert Prefix.parse("") is ROOT

"""Contexts are known by name or declare prefixes, and none gives a word of the standard another meaning."""

from __future__ import annotations

from typing import Any

import pytest

from idtrace.epcis import vocabulary
from idtrace.epcis.context import ENTRIES_MAX, PREFIXES_MAX, STANDARD_CONTEXT, Context, read_context
from idtrace.epcis.measures import UNITS
from idtrace.epcis.parse import read_document
from idtrace.epcis.rules import Fault, Rule
from idtrace.epcis.vocabulary import Vocabulary
from tests.unit.epcis.events import document, plain, to_bytes


@pytest.mark.parametrize(
    ("declared", "rule", "path"),
    [
        ("https://example.com/my-context.jsonld", Rule.CONTEXT_UNKNOWN, ""),
        (["https://ref.gs1.org/standards/epcis/epcis-context.jsonld.evil"], Rule.CONTEXT_UNKNOWN, "[0]"),
        ([STANDARD_CONTEXT, 5], Rule.CONTEXT_MALFORMED, "[1]"),
        ({"@vocab": "https://example.com/"}, Rule.CONTEXT_MALFORMED, "@vocab"),
        ({"urn": "https://example.com/"}, Rule.CONTEXT_MALFORMED, "urn"),
        ({"idtrace": "https://example.com/"}, Rule.CONTEXT_MALFORMED, "idtrace"),
        ({"a b": "https://example.com/"}, Rule.CONTEXT_MALFORMED, "['a b']"),
        ({"ext": "nothing"}, Rule.CONTEXT_MALFORMED, "ext"),
        ({"ext": {"@type": "urn:x:y"}}, Rule.CONTEXT_MALFORMED, "ext"),
        ({"ext": "urn:" + "x" * 3_000}, Rule.CONTEXT_MALFORMED, "ext"),
        ([{"cbv": "https://example.com/cbv/"}], Rule.CONTEXT_PROTECTED, "[0].cbv"),
        ([{}] * (ENTRIES_MAX + 1), Rule.SIZE, ""),
        ({f"p{n}": "urn:x:y" for n in range(PREFIXES_MAX + 1)}, Rule.SIZE, ""),
    ],
)
def test_a_context_that_could_change_meanings_is_refused(declared: Any, rule: Rule, path: str) -> None:
    with pytest.raises(Fault) as refused:
        read_context(declared, Context())
    assert (refused.value.rule, refused.value.path()) == (rule, path)


@pytest.mark.parametrize(
    "url",
    [
        "https://ref.gs1.org/standards/epcis/epcis-context.jsonld",
        "https://ref.gs1.org/standards/epcis/2.0.1/epcis-context.jsonld",
        "https://gs1.github.io/EPCIS/epcis-context.jsonld",
    ],
)
def test_known_contexts_declare_the_prefixes_of_the_standard(url: str) -> None:
    context = read_context([{"@version": 1.1, "ext": {"@id": "urn:x:", "@prefix": True}}, url], Context())
    assert context.standard
    assert context.namespace("cbvmda") == "urn:epcglobal:cbv:mda:"
    assert context.namespace("nobody") is None
    assert context.expand("ext:a") == "urn:x:a"
    assert context.expand("https://a.example/b") == "https://a.example/b"
    assert context.expand("nobody:a") == "nobody:a"
    assert context.expand("bare") == "bare"
    assert Context().namespace("cbv") is None


def test_an_event_without_the_context_of_the_standard_is_refused_and_one_within_its_document_has_it() -> None:
    alone = {name: value for name, value in plain("ObjectEvent").items() if name != "@context"}
    (error,) = read_document(to_bytes(alone)).errors
    assert (error.rule, error.path) == (Rule.CONTEXT_MISSING, "@context")
    assert len(read_document(to_bytes(document(alone))).events) == 1
    inner = alone | {"@context": [{"inner": "urn:inner:"}], "inner:a": 1}
    parsed = read_document(to_bytes(document(inner, alone | {"inner:a": 1})))
    assert parsed.events[0].extensions == {"inner:a": 1}
    assert [(error.index, error.rule) for error in parsed.errors] == [(1, Rule.PREFIX_UNDECLARED)]
    wrong = alone | {"@context": ["https://example.com/c"]}
    (error,) = read_document(to_bytes(document(wrong))).errors
    assert error.path == "epcisBody.eventList[0].@context[0]"


STANDARD = read_context(STANDARD_CONTEXT, Context())
ALL = [value for value in vars(vocabulary).values() if isinstance(value, Vocabulary)]


def test_the_vocabulary_has_all_words_of_the_standard() -> None:
    assert [len(words.words) for words in (vocabulary.BIZ_STEP, vocabulary.DISPOSITION)] == [41, 33]
    assert len(ALL) == 8
    assert UNITS.keys() <= vocabulary.MEASUREMENT.words
    assert all(codes for codes in UNITS.values())
    assert UNITS["Temperature"] == {"CEL", "KEL", "FAH", "A48"}


@pytest.mark.parametrize("words", ALL, ids=lambda words: words.name)
def test_all_spellings_of_a_word_are_the_word_and_other_uris_are_left(words: Vocabulary) -> None:
    for word in words.words:
        assert words.read(word, STANDARD) == word
        assert all(words.read(stem + word, STANDARD) == word for stem in words.stems)
        assert words.read(words.web_uri(word), STANDARD) == word
        short = words.stems[0].removeprefix("https://ref.gs1.org/cbv/").removeprefix("https://gs1.org/voc/")
        prefix = "cbv" if "/cbv/" in words.stems[0] else "gs1"
        assert words.read(f"{prefix}:{short}{word}", STANDARD) == word
    assert words.read("https://example.com/own", STANDARD) == "https://example.com/own"
    assert words.web_uri("https://example.com/own") == "https://example.com/own"
    for wrong in ("own", words.stems[0] + "own", words.stems[-1] + "own", ""):
        with pytest.raises(Fault) as refused:
            words.read(wrong, STANDARD)
        assert refused.value.rule is Rule.VOCABULARY

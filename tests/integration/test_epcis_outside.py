"""Programs of others judge our XML and our event hashes: openEPCIS, run with Java, fetched with Maven on demand."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from idtrace.epcis import parse, xml_out
from idtrace.epcis.model import Event
from idtrace.epcis.prehash import pre_hash
from idtrace.epcis.write import document_json
from tests.engines import may_install
from tests.shared_data import shared_data

HERE: Final = Path(__file__).resolve().parents[1] / "epcis_java"
JARS: Final = HERE.parents[1] / "var" / "tools" / "openepcis"
MAVEN_SECONDS: Final = 240
JUDGE_SECONDS: Final = 100
# Where openEPCIS 0.9.2 and the published vectors are known to part; our hash is the vectors'. A document whose events
# have one of these is not compared: sensor data (no "sensorElementList" before "sensorElement", fields of other
# namespaces behind all else, another place), sources before destinations, GRAI links without the leading zero and
# unordered EPCs, parents of transactions behind their objects, prefixes of words not written out, time cut and not
# rounded, links whose check digit is wrong rewritten all the same.
APART: Final = re.compile(
    r'"sensorElementList"|"destinationList"|:grai:|"cbvmda:|/8003/|"type": "TransactionEvent"(?=.*"parentID")'
    r'|"bizStep": "ext1:|eventTime": "[^"]*\.[0-9]{4,}'
)


@pytest.fixture(scope="module")
def judge() -> Callable[[list[Path]], list[dict[str, Any]]]:
    """Gives files to openEPCIS; skips where it cannot be had."""
    java, compiler = shutil.which("java"), shutil.which("javac")
    if java is None or compiler is None:
        pytest.skip("not run: a Java with its compiler is not installed here")
    if not JARS.is_dir():
        _fetch()

    def ask(files: list[Path]) -> list[dict[str, Any]]:
        command = [java, "-cp", f"{JARS}/*", str(HERE / "Judge.java"), *map(str, files)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=JUDGE_SECONDS)
        assert done.returncode == 0, done.stderr[-2000:]
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(answers) == len(files)
        return answers

    return ask


def _fetch() -> None:
    maven = shutil.which("mvn")
    if maven is None or not may_install():
        pytest.skip("not run: openEPCIS is not here (Maven and IDTRACE_ENGINES_INSTALL=1 let it be fetched)")
    part = JARS.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    goal = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
    command = [maven, "-B", "-q", "-C", "-f", str(HERE / "pom.xml"), goal, f"-DoutputDirectory={part}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=MAVEN_SECONDS)
    except subprocess.TimeoutExpired:
        pytest.skip(f"not run: Maven did not fetch openEPCIS in {MAVEN_SECONDS} s")
    if done.returncode:
        pytest.skip(f"not run: Maven: {(done.stdout + done.stderr).strip()[-300:]}")
    part.rename(JARS)


def examples() -> Iterator[tuple[str, Event]]:
    files = [*shared_data("epcis").glob("*/*.json"), *shared_data("epcis-event-hash").glob("*.jsonld")]
    for file in sorted(files):
        if file.parent.name != "invalid":
            for index, event in enumerate(parse.read_document(file.read_bytes(), capture=False).events):
                yield f"{file.parent.name}-{file.stem}-{index}", event


@pytest.mark.slow
def test_the_schema_of_epcis_accepts_our_xml_and_refuses_a_wrong_one(
    judge: Callable[[list[Path]], list[dict[str, Any]]],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    files = []
    for name, event in examples():
        files.append(tmp_path / f"{name}.xml")
        files[-1].write_bytes(xml_out.document_xml([event], 0))
    wrong = tmp_path / "wrong.xml"
    wrong.write_bytes(files[0].read_bytes().replace(b"<action>OBSERVE", b"<action>LOOK").replace(b">ADD<", b">LOOK<"))
    *answers, refused = judge([*files, wrong])
    assert {file.name: answer for file, answer in zip(files, answers, strict=True) if answer != {"errors": []}} == {}
    assert "LOOK" in str(refused["errors"])
    record_property("EPCIS 2.0 XML schema", f"{len(answers)} events accepted")


@pytest.mark.slow
def test_the_hashes_of_openepcis_are_ours_where_it_follows_the_vectors(
    judge: Callable[[list[Path]], list[dict[str, Any]]],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    events = [(name, event) for name, event in examples() if not APART.search(json.dumps(event.raw, default=float))]
    files = []
    for name, event in events:
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps(document_json([event], 0)), "utf-8")
    answers = zip(events, judge(files), strict=True)
    apart = {name: answer for (name, event), answer in answers if answer.get("prehashes") != [pre_hash(event.raw)]}
    assert apart == {}
    assert len(events) >= 30
    record_property("openEPCIS event hashes", f"{len(events)} equal, events without sensors")

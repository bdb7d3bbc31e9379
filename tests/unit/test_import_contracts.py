"""Who may touch whom: every contract of pyproject.toml is held, and every contract can fail."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("idtrace", "registry", "resolver", "loadtest")
LINTER: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
CONTRACTS: dict[str, dict[str, Any]] = {contract["id"]: contract for contract in LINTER["contracts"]}

# All that the core may reach for. What is not here is asked for in a review, not slipped in.
CORE_IMPORTS = {
    "__future__",
    "base64",
    "binascii",
    "collections",
    "dataclasses",
    "datetime",
    "enum",
    "functools",
    "ipaddress",
    "hashlib",
}
CORE_IMPORTS |= {"itertools", "json", "operator", "re", "string", "struct", "typing", "unicodedata", "urllib"}
CORE_IMPORTS |= {"bisect", "csv", "decimal", "fractions", "math", "tomllib", "types", "xml"}
CORE_IMPORTS |= {"biip", "cryptography", "defusedxml", "idtrace", "rfc8785"}

# For each contract: the file that breaks it, the line it gains, importer and imported as the report names them.
Breach = tuple[str, str, str, str]
BREACHES: dict[str, list[Breach]] = {
    "rooms": [
        ("registry/config.py", "import resolver.config", "registry.config", "resolver.config"),
        ("resolver/service.py", "from registry.admission import admit", "resolver.service", "registry.admission"),
        ("registry/server.py", "from idtrace.cli import app", "registry.server", "idtrace.cli"),
        ("idtrace/serving/logs.py", "import registry.config", "idtrace.serving.logs", "registry.config"),
        ("idtrace/wire.py", "    from idtrace.serving import edge", "idtrace.wire", "idtrace.serving.edge"),
        ("idtrace/v1/__init__.py", "from idtrace import wire", "idtrace.v1", "idtrace.wire"),
        ("idtrace/cli/exits.py", "import loadtest", "idtrace.cli.exits", "loadtest"),
    ],
    "core": [
        ("idtrace/canonical.py", "import time", "idtrace.canonical", "time"),
        ("idtrace/chain.py", "    from random import random", "idtrace.chain", "random"),
        ("idtrace/record.py", "import secrets", "idtrace.record", "secrets"),
        ("idtrace/gs1_epc.py", "import os", "idtrace.gs1_epc", "os"),
        ("idtrace/scan.py", "from pathlib import Path", "idtrace.scan", "pathlib"),
        ("idtrace/signature.py", "import asyncio", "idtrace.signature", "asyncio"),
        ("idtrace/statements.py", "import socket as s", "idtrace.statements", "socket"),
        ("idtrace/template.py", "import threading", "idtrace.template", "threading"),
        ("idtrace/delegation.py", "import structlog", "idtrace.delegation", "structlog"),
        ("idtrace/bundle.py", "import grpc.aio", "idtrace.bundle", "grpc"),
        ("idtrace/verification.py", "from google.protobuf import message", "idtrace.verification", "google"),
    ],
    "simulation": [
        ("idtrace/simulation/chain.py", "import time", "idtrace.simulation.chain", "time"),
        ("idtrace/simulation/climate.py", "from secrets import randbelow", "idtrace.simulation.climate", "secrets"),
        ("idtrace/simulation/bench.py", "import redis", "idtrace.simulation.bench", "redis"),
    ],
    "decisions": [
        ("registry/admission.py", "import time", "registry.admission", "time"),
        ("registry/authority.py", "from asyncio import Event", "registry.authority", "asyncio"),
        ("registry/storage.py", "import sqlite3", "registry.storage", "sqlite3"),
        ("registry/intake.py", "import secrets", "registry.intake", "secrets"),
        ("registry/review.py", "from idtrace.serving import logs", "registry.review", "idtrace.serving"),
        ("registry/delegating.py", "from idtrace import wire", "registry.delegating", "idtrace.wire"),
        ("registry/cassandra_batch.py", "import uuid", "registry.cassandra_batch", "uuid"),
        ("registry/cassandra_rules.py", "import cassandra.query", "registry.cassandra_rules", "cassandra"),
        ("resolver/walk.py", "    from random import shuffle", "resolver.walk", "random"),
        ("resolver/trust.py", "import threading", "resolver.trust", "threading"),
        ("resolver/cache.py", "import redis", "resolver.cache", "redis"),
        ("resolver/effects.py", "import grpc", "resolver.effects", "grpc"),
        ("resolver/shared_cache.py", "import time", "resolver.shared_cache", "time"),
    ],
    "registry": [
        ("registry/sequencer.py", "from registry import service", "registry.sequencer", "registry.service"),
        ("registry/admission.py", "from registry.grants import Grants", "registry.admission", "registry.grants"),
        ("registry/storage.py", "from registry import admission", "registry.storage", "registry.admission"),
        ("registry/service.py", "from registry import server", "registry.service", "registry.server"),
        ("registry/not_on_the_list.py", "X = 1", "registry", "not_on_the_list"),
    ],
    "resolver": [
        ("resolver/walk.py", "from resolver import driver", "resolver.walk", "resolver.driver"),
        ("resolver/driver.py", "from resolver.service import ResolverService", "resolver.driver", "resolver.service"),
        ("resolver/trust.py", "from resolver import cache", "resolver.trust", "resolver.cache"),
        ("resolver/sharing.py", "from resolver import driver", "resolver.sharing", "resolver.driver"),
        ("resolver/not_on_the_list.py", "X = 1", "resolver", "not_on_the_list"),
    ],
    "adapters": [
        ("registry/sequencer.py", "import registry.storage_sqlite", "registry.sequencer", "registry.storage_sqlite"),
        ("registry/service.py", "from registry import storage_sqlite", "registry.service", "registry.storage_sqlite"),
        ("registry/grants.py", "import registry.cassandra_bridge", "registry.grants", "registry.cassandra_bridge"),
        ("idtrace/cli/node.py", "import registry.cassandra_schema", "idtrace.cli.node", "registry.cassandra_schema"),
        ("resolver/driver.py", "from resolver.upstream import GrpcUpstream", "resolver.driver", "resolver.upstream"),
        ("resolver/sharing.py", "import resolver.cache_redis", "resolver.sharing", "resolver.cache_redis"),
        ("idtrace/cli/exits.py", "from registry import storage_sqlite", "idtrace.cli.exits", "registry.storage_sqlite"),
    ],
    "engines": [
        ("registry/grants.py", "import sqlite3", "registry.grants", "sqlite3"),
        ("resolver/service.py", "import redis.asyncio", "resolver.service", "redis"),
        ("resolver/sharing.py", "import redis", "resolver.sharing", "redis"),
        ("idtrace/serving/logs.py", "from cassandra import cluster", "idtrace.serving.logs", "cassandra"),
    ],
    "generated": [
        ("registry/sequencer.py", "from idtrace.v1 import record_pb2", "registry.sequencer", "idtrace.v1.record_pb2"),
        ("registry/grants.py", "import idtrace.v1.record_pb2", "registry.grants", "idtrace.v1.record_pb2"),
        ("resolver/driver.py", "    from idtrace.v1 import resolver_pb2", "resolver.driver", "idtrace.v1.resolver_pb2"),
    ],
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The packages and their contracts, to be spoilt."""
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.pyi", "*.json")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> tuple[dict[str, str], str]:
    """The verdict on each contract, by its id, and the report as one line."""
    program = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    # The report is folded to the width of a terminal, also within names.
    report = " ".join((done.stdout + done.stderr).split())
    verdicts = {
        id_: verdict[1]
        for id_, contract in CONTRACTS.items()
        if (verdict := re.search(re.escape(contract["name"]) + r" (KEPT|BROKEN)", report))
    }
    assert done.returncode == ("BROKEN" in verdicts.values()), report
    return verdicts, report


def plant(folder: Path, breach: Breach) -> None:
    file, line, _, _ = breach
    if line.startswith(" "):  # an import within a function is an import
        line = f"def _planted():\n{line}"
    with (folder / file).open("a", encoding="utf-8") as opened:
        opened.write(f"\n\n{line}\n")


def test_every_contract_is_held(copy: Path) -> None:
    verdicts, report = lint(copy)
    assert verdicts == dict.fromkeys(CONTRACTS, "KEPT"), report


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_breach_breaks_its_contract_alone_and_is_named(contract: str, copy: Path) -> None:
    assert contract in BREACHES, f"plant a breach of the contract {contract!r}: one that never fails holds nothing"
    for breach in BREACHES[contract]:
        plant(copy, breach)
    verdicts, report = lint(copy)
    assert verdicts == dict.fromkeys(CONTRACTS, "KEPT") | {contract: "BROKEN"}, report
    for breach in BREACHES[contract]:
        _, line, importer, imported = breach
        arrow = re.escape(f"- {importer}") + r" ?-> ?" + re.escape(imported) + r"\b"
        listed = line == "X = 1" and imported in report  # exhaustive contracts list what they do not know
        assert listed or re.search(arrow, report), f"{breach} is not named in {report}"


def test_every_module_of_the_core_is_under_its_contract() -> None:
    rooms = {"__init__", "__main__", "auditing", "cli", "serving", "simulation", "v1", "wire"}
    found = {
        path.stem for path in (ROOT / "idtrace").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert {f"idtrace.{name}" for name in found - rooms} == set(CONTRACTS["core"]["source_modules"])


def test_every_other_module_of_the_nodes_is_pure_an_adapter_or_kept_from_the_engines() -> None:
    found = {f"{room}.{path.stem}" for room in ("registry", "resolver") for path in (ROOT / room).glob("[!_]*.py")}
    pure, adapters = set(CONTRACTS["decisions"]["source_modules"]), set(CONTRACTS["adapters"]["protected_modules"])
    kept = {name for name in CONTRACTS["engines"]["source_modules"] if name.startswith(("registry.", "resolver."))}
    assert found == pure | adapters | kept


def test_the_core_and_the_decisions_are_kept_from_the_same_machinery() -> None:
    rooms = {"idtrace.cli", "registry", "resolver", "loadtest"}
    assert set(CONTRACTS["core"]["forbidden_modules"]) - rooms == set(CONTRACTS["decisions"]["forbidden_modules"])


def test_the_core_imports_nothing_but_what_it_may() -> None:
    """A list of the forbidden forgets something; this list of the allowed cannot."""
    strangers = {
        f"{module}: {name}"
        for module in CONTRACTS["core"]["source_modules"]
        for file in files_of(module)
        for name in imported_roots(file)
        if name not in CORE_IMPORTS
    }
    assert not strangers


def files_of(module: str) -> list[Path]:
    """A module's file, or those of a package."""
    path = ROOT / module.replace(".", "/")
    return sorted(path.glob("**/*.py")) if path.is_dir() else [path.with_suffix(".py")]


def imported_roots(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            names.add((node.module or "").partition(".")[0])
    return names


def test_packages_hold_nothing_of_their_own() -> None:
    """An ``__init__`` is imported by everyone, so one with code would go round every contract."""
    for package in (*PACKAGES, "idtrace/v1", "idtrace/auditing", "idtrace/serving"):
        tree = ast.parse((ROOT / package / "__init__.py").read_text("utf-8"))
        assert [type(node) for node in tree.body] == [ast.Expr], f"{package}/__init__.py has more than its docstring"

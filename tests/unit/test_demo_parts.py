"""What the demonstration tells nodes about engines, and what it takes for proven."""

import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from idtrace.bundle import Verdict
from idtrace.cli.demo_check import Prover, Tally
from idtrace.cli.demo_engines import Engines
from idtrace.errors import InputError, Reason, VerificationError
from registry.cassandra_settings import CassandraSettings
from resolver.config import ResolverConfig
from tests.core_fixtures import ITEM, NOW, anchor, bundle, denial, denied, record, with_last

RESOLVER: dict[str, Any] = {"listen": "127.0.0.1:1", "root_key": "root.pub", "root_endpoints": ["127.0.0.1:2"]}


def storage_of(engines: Engines, ledger: str) -> CassandraSettings:
    """As a registry reads it."""
    table = tomllib.loads(engines.registry_tables(ledger))["storage"]
    assert table.pop("engine") == "cassandra"
    return CassandraSettings.parse(table, Path())


def test_a_registry_is_told_of_its_own_ledger_in_the_one_keyspace() -> None:
    engines = Engines("[::1]:9142", "dc-2")
    maker, top = storage_of(engines, "maker"), storage_of(engines, "top")
    assert (maker.contact_points, maker.port, maker.datacenter, maker.replication) == (
        ("::1",),
        9142,
        "dc-2",
        {"dc-2": 1},
    )
    assert (maker.ledger, top.ledger) == ("maker", "top")
    assert maker.keyspace == top.keyspace == engines.name
    assert Engines("a:1").name != Engines("a:1").name, "two demonstrations never meet"


def test_a_resolver_is_told_of_redis_and_of_the_secret(tmp_path: Path) -> None:
    engines, secret = Engines(redis="redis://localhost:6379/3"), tmp_path / "shared.secret"
    engines.prepare(secret)
    assert len(secret.read_bytes()) == 32
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    config = ResolverConfig.parse(RESOLVER | tomllib.loads(engines.resolver_tables(secret)), tmp_path)
    assert config.redis is not None
    assert (config.redis.url, config.redis.shared_key) == ("redis://localhost:6379/3", secret)


def test_without_engines_nodes_are_told_nothing(tmp_path: Path) -> None:
    engines, secret = Engines(), tmp_path / "shared.secret"
    engines.prepare(secret)
    assert engines.registry_tables("maker") == engines.resolver_tables(secret) == ""
    assert not secret.exists()


@pytest.mark.parametrize(
    "given",
    [
        {"cassandra": "localhost"},
        {"redis": "rediss://localhost:6379"},
        {"redis": "redis://:secret@localhost:6379"},
        {"redis": "redis://localhost"},
        {"kill_redis": "true"},
    ],
)
def test_what_cannot_be_used_is_refused_when_it_is_typed(given: dict[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        Engines(**given)
    assert caught.value.field == f"--{next(iter(given)).replace('_', '-')}"


def test_an_answer_is_proven_only_as_the_record_that_has_the_receipt() -> None:
    Prover(anchor(), NOW).check(str(ITEM), bundle())
    Prover(anchor(), NOW, {ITEM: record().hash}).check(str(ITEM), bundle(record()))
    with pytest.raises(VerificationError) as caught:
        Prover(anchor(), NOW, {ITEM: record(data=["else"]).hash}).check(str(ITEM), bundle(record()))
    assert caught.value.reason is Reason.RECEIPT_WRONG_RECORD


def test_neither_a_denial_nor_a_broken_chain_proves_a_record() -> None:
    for answer in (denied(denial()), bundle(record(), with_last())):
        with pytest.raises(VerificationError):
            Prover(anchor(), NOW).check(str(ITEM), answer)


def test_a_tally_hides_nothing() -> None:
    tally = Tally(count=5)
    tally.verdicts.update({Verdict.FOUND: 3, "UNREACHABLE (NO_ANSWER)": 1})
    tally.refused.update({"VALUE_CHANGED": 1})
    assert tally.summary == "3 proven, 1 UNREACHABLE (NO_ANSWER), 1 VALUE_CHANGED"
    assert not tally.all_found(3)
    assert not tally.all_found(5)
    found = Tally(count=3)
    found.verdicts.update({Verdict.FOUND: 3})
    assert found.summary == "3 proven"
    assert found.all_found(3)

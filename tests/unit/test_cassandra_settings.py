"""The table [storage] of a Cassandra, and its migrations as files: what is refused, and how it is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from idtrace.errors import InputError, Reason
from registry.cassandra_schema import (
    Applied,
    SchemaError,
    first_statements,
    parse_migrations,
    pending,
    shipped,
    statements,
)
from registry.cassandra_settings import CassandraSettings

BASE = Path("/etc/idtrace")
LEAST: dict[str, Any] = {"contact_points": ["10.0.0.1"], "ledger": "88.118"}


def parse(**changes: Any) -> CassandraSettings:
    return CassandraSettings.parse({**LEAST, **changes}, BASE)


def test_a_quorum_is_read_and_written_wherever_the_swap_asks_for_one() -> None:
    least = parse()
    assert (least.consistency, least.serial_consistency) == ("QUORUM", "SERIAL")
    assert (least.port, least.keyspace, least.datacenter) == (9042, "idtrace", "datacenter1")
    assert dict(least.replication) == {"datacenter1": 3}
    assert parse(serial_consistency="LOCAL_SERIAL").consistency == "LOCAL_QUORUM"


def test_paths_are_relative_to_the_configuration() -> None:
    paths = parse(tls_ca="ca.pem", tls_cert="node.pem", tls_key="/keys/node.key")
    assert (paths.tls_ca, paths.tls_cert, paths.tls_key) == (
        BASE / "ca.pem",
        BASE / "node.pem",
        Path("/keys/node.key"),
    )
    assert parse().tls_ca is None


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("contact_points", {"contact_points": []}),
        ("ledger", {"ledger": ""}),
        ("ledger", {"ledger": "x" * 65}),
        ("keyspace", {"keyspace": "a b"}),
        ("keyspace", {"keyspace": "1a"}),
        ("keyspace", {"keyspace": "k" * 49}),
        ("keyspace", {"keyspace": "k; DROP KEYSPACE k"}),
        ("serial_consistency", {"serial_consistency": "QUORUM"}),
        ("consistency", {"consistency": "LOCAL_QUORUM"}),
        ("consistency", {"consistency": "ONE"}),
        ("consistency", {"serial_consistency": "LOCAL_SERIAL", "consistency": "QUORUM"}),
        ("tls_cert", {"tls_ca": "a", "tls_cert": "b"}),
        ("tls_cert", {"tls_cert": "b", "tls_key": "c"}),
        ("password_env", {"username": "u"}),
        ("password_env", {"password_env": "P"}),
        ("replication", {"replication": {}}),
        ("replication", {"replication": 3}),
        ("replication", {"replication": {"dc1": 0}}),
        ("replication", {"replication": {"dc1": True}}),
        ("replication", {"replication": {"dc'1": 3}}),
        ("request_timeout_seconds", {"request_timeout_seconds": 60}),
        ("hosts", {"hosts": ["a"]}),
    ],
)
def test_a_setting_that_breaks_a_rule_is_named(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        parse(**changes)
    assert (caught.value.reason, caught.value.field) == (Reason.FIELD_MALFORMED, f"storage.{field}")


# Migrations


def test_statements_are_cut_at_semicolons_and_remarks_go() -> None:
    text = "-- first; not a statement\nCREATE TABLE a (\n  x int  -- a number\n);\n\nCREATE TABLE b (y int);\n-- end\n"
    assert statements(text) == ("CREATE TABLE a (\n  x int\n)", "CREATE TABLE b (y int)")
    assert statements("-- nothing\n;;\n") == ()


@pytest.mark.parametrize(
    "names",
    [["tables.cql"], ["0002_b.cql"], ["0001_a.cql", "0001_b.cql"], ["0001_a.cql", "0003_c.cql"], ["0001_A.cql"]],
)
def test_names_of_migrations_go_up_by_one(names: list[str]) -> None:
    with pytest.raises(SchemaError):
        parse_migrations(dict.fromkeys(names, ""))


def test_what_is_pending_and_that_nobody_goes_back() -> None:
    one, two = parse_migrations({"0001_a.cql": "A;", "0002_b.cql": "B;"})
    done = [Applied(m.number, m.name, m.checksum) for m in (one, two)]
    assert pending([one, two], []) == (one, two)
    assert pending([one, two], done[:1]) == (two,)
    assert pending([one, two], done) == ()
    with pytest.raises(SchemaError, match=r"newer than this program \(0002_b.cql\)"):
        pending([one], done)
    with pytest.raises(SchemaError, match="another content"):
        pending([one, two], [Applied(1, "0001_a.cql", "0" * 64)])


def test_the_shipped_migrations_can_be_repeated_and_name_no_keyspace() -> None:
    for migration in shipped():
        assert all(" IF NOT EXISTS " in statement for statement in migration.statements), migration.name


def test_the_first_table_is_the_same_whoever_makes_it() -> None:
    first = first_statements(parse(keyspace="Trace", replication={"b": 1, "a": 3}))
    assert first == first_statements(parse(keyspace="trace", replication={"a": 3, "b": 1}))
    assert "{'class': 'NetworkTopologyStrategy', 'a': 3, 'b': 1}" in first[0]
    assert first[1] != first_statements(parse(keyspace="other"))[1].replace("other", "trace")

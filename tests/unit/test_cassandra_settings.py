"""The table [storage] of a Cassandra, and its migrations as files: what is refused, and how it is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from idtrace.errors import InputError, Reason, RefusedError
from registry.cassandra_bridge import PAGE_ROWS, PASSWORD_BYTES_MAX, _password
from registry.cassandra_schema import (
    Applied,
    first_statements,
    parse_migrations,
    pending,
    replication_advice,
    shipped,
    statements,
)
from registry.cassandra_settings import CassandraSettings
from registry.cassandra_tables import _pieces

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
    paths = parse(tls_ca="ca.pem", tls_cert="node.pem", tls_key="/keys/node.key", username="u", password_file="p")
    assert (paths.tls_ca, paths.tls_cert, paths.tls_key, paths.password_file) == (
        BASE / "ca.pem",
        BASE / "node.pem",
        Path("/keys/node.key"),
        BASE / "p",
    )
    assert (parse().tls_ca, parse().password_file) == (None, None)


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
        ("password_env", {"password_file": "p"}),
        ("password_file", {"username": "u", "password_env": "P", "password_file": "p"}),
        ("tls_server_name", {"tls_server_name": "ring.example"}),
        ("contact_points", {"contact_points": [f"10.0.0.{n}" for n in range(6)]}),
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
    with pytest.raises(RefusedError):
        parse_migrations(dict.fromkeys(names, ""))


def test_what_is_pending_and_that_nobody_goes_back() -> None:
    one, two = parse_migrations({"0001_a.cql": "A;", "0002_b.cql": "B;"})
    done = [Applied(m.number, m.name, m.checksum) for m in (one, two)]
    assert pending([one, two], []) == (one, two)
    assert pending([one, two], done[:1]) == (two,)
    assert pending([one, two], done) == ()
    with pytest.raises(RefusedError, match=r"newer than this program \(0002_b.cql\)"):
        pending([one], done)
    with pytest.raises(RefusedError, match="another content"):
        pending([one, two], [Applied(1, "0001_a.cql", "0" * 64)])


def test_the_shipped_migrations_can_be_repeated_and_name_no_keyspace() -> None:
    for migration in shipped():
        for statement in migration.statements:
            set_again = statement.startswith("ALTER TABLE ") and " WITH " in statement
            assert " IF NOT EXISTS " in statement or set_again, migration.name


def test_the_first_table_is_the_same_whoever_makes_it() -> None:
    first = first_statements(parse(keyspace="Trace", replication={"b": 1, "a": 3}))
    assert first == first_statements(parse(keyspace="trace", replication={"a": 3, "b": 1}))
    assert "{'class': 'NetworkTopologyStrategy', 'a': 3, 'b': 1}" in first[0]
    assert first[1] != first_statements(parse(keyspace="other"))[1].replace("other", "trace")


# Secrets and pieces


def password_of(tmp_path: Path, data: bytes) -> str:
    (tmp_path / "secret").write_bytes(data)
    settings = CassandraSettings.parse({**LEAST, "username": "u", "password_file": "secret"}, tmp_path)
    return _password(settings)


def test_a_password_is_the_one_line_of_its_file(tmp_path: Path) -> None:
    for data in (b" pass word ", b" pass word \n", b" pass word \r\n"):
        assert password_of(tmp_path, data) == " pass word "
    assert password_of(tmp_path, "密码".encode()) == "密码"


@pytest.mark.parametrize("data", [b"", b"\n", b"one\ntwo\n", b"x" * (PASSWORD_BYTES_MAX + 1), b"\xff\xfe"])
def test_a_file_that_is_no_password_is_refused_and_not_quoted(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InputError) as caught:
        password_of(tmp_path, data)
    assert caught.value.field == "storage.password_file"
    assert "one" not in caught.value.detail.replace("one line", "")


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_holds_no_password_is_named(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("IDTRACE_P", raising=False)
    if value is not None:
        monkeypatch.setenv("IDTRACE_P", value)
    with pytest.raises(InputError, match="IDTRACE_P") as caught:
        _password(parse(username="u", password_env="IDTRACE_P"))
    assert caught.value.field == "storage.password_env"


def test_keys_of_one_stem_are_asked_for_a_page_at_a_time() -> None:
    keys = [f"{n:05}" for n in range(2 * PAGE_ROWS + 1)]
    pieces = list(_pieces({b"a": keys, b"b": ["x"]}))
    assert [(stem, len(piece)) for stem, piece in pieces] == [
        (b"a", PAGE_ROWS),
        (b"a", PAGE_ROWS),
        (b"a", 1),
        (b"b", 1),
    ]
    assert [key for _, piece in pieces[:3] for key in piece] == keys


def test_copies_that_differ_are_told_with_the_statement_that_an_operator_runs() -> None:
    settings = parse(replication={"b": 1, "a": 3})
    assert replication_advice(settings, None) == replication_advice(settings, {"a": 3, "b": 1}) == ""
    told = replication_advice(settings, {"a": 3})
    assert "WITH replication = {'class': 'NetworkTopologyStrategy', 'a': 3, 'b': 1};" in told
    assert "nodetool repair" in told

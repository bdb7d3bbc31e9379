"""``idtrace store`` and the start of a node, against a real Cassandra."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from idtrace.cli.app import app
from idtrace.errors import BusyError, InputError, Reason, RefusedError
from registry.cassandra_bridge import Bridge
from registry.cassandra_schema import change_schema, check_schema, migrate, shipped
from registry.cassandra_settings import CassandraSettings
from registry.storage_cassandra import open_cassandra
from tests.engines.cassandra import CassandraCluster
from tests.engines.tls import Identity
from tests.storages import cassandra_settings

pytestmark = pytest.mark.slow


@pytest.fixture
def config(cassandra: CassandraCluster, tmp_path: Path) -> Iterator[Path]:
    """A configuration whose keyspace is not there yet."""
    keyspace = f"cli_{uuid.uuid4().hex[:12]}"
    file = tmp_path / "registry.toml"
    file.write_text(
        f"""[storage]
engine = "cassandra"
contact_points = {json.dumps(cassandra.contact_points)}
port = {cassandra.port}
keyspace = "{keyspace}"
ledger = "88.118"
replication = {{ datacenter1 = 1 }}
"""
    )
    yield file
    cassandra.drop_keyspace(keyspace)


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["store", *words])


def table_of(config: Path) -> dict[str, object]:
    import tomllib

    table = tomllib.loads(config.read_text())["storage"]
    return {key: value for key, value in table.items() if key != "engine"}


def test_tables_are_shown_made_and_made_no_second_time(config: Path) -> None:
    dry = run("migrate", "--config", str(config), "--dry-run", "--json")
    assert dry.exit_code == 0, dry.output
    assert json.loads(dry.stdout)["migrations"] == [migration.name for migration in shipped()]
    pending = json.loads(run("status", "--config", str(config), "--json").stdout)
    assert {migration["state"] for migration in pending["migrations"]} == {"pending"}
    with pytest.raises(RefusedError, match=r"SCHEMA_MISMATCH: keyspace .* is not there; run: idtrace store migrate"):
        asyncio.run(open_cassandra(table_of(config), config.parent))
    made = run("migrate", "--config", str(config), "--json")
    assert json.loads(made.stdout) == json.loads(dry.stdout) | {"dry_run": False}
    again = run("migrate", "--config", str(config), "--json")
    assert json.loads(again.stdout)["migrations"] == []
    applied = json.loads(run("status", "--config", str(config), "--json").stdout)
    assert [(m["name"], m["state"]) for m in applied["migrations"]] == [(m.name, "applied") for m in shipped()]
    assert shipped()[0].name in run("status", "--config", str(config)).output


async def test_two_migrators_at_once_make_the_tables_once(config: Path) -> None:
    settings = CassandraSettings.parse(table_of(config), config.parent)

    async def one() -> int:
        bridge = await Bridge.connect(settings)
        try:
            return len(await migrate(bridge, settings, lambda _: None))
        finally:
            await bridge.close()

    assert sorted(await asyncio.gather(one(), one())) == [0, len(shipped())]
    store = await open_cassandra(table_of(config), config.parent)
    await store.close()


@pytest.mark.parametrize(
    ("number", "name", "checksum", "said"),
    [
        (1, "0001_tables.cql", "0" * 64, "another content"),
        (len(shipped()) + 1, f"{len(shipped()) + 1:04}_later.cql", "0" * 64, "newer than this program"),
    ],
)
async def test_tables_of_another_program_are_left_alone(
    config: Path, number: int, name: str, checksum: str, said: str
) -> None:
    settings = CassandraSettings.parse(table_of(config), config.parent)
    bridge = await Bridge.connect(settings)
    await migrate(bridge, settings, lambda _: None)
    where = f"{settings.keyspace}.schema_version"
    if number == 1:
        await bridge.once(f"UPDATE {where} SET checksum = %s WHERE number = 1 IF EXISTS", (checksum,), profile="swap")
    else:
        values = (number, name, checksum)
        statement = f"INSERT INTO {where} (number, name, checksum) VALUES (%s, %s, %s) IF NOT EXISTS"
        await bridge.once(statement, values, profile="swap")
    await change_schema(bridge, f"DROP TABLE {settings.keyspace}.chain")
    await bridge.close()
    with pytest.raises(RefusedError, match=said) as caught:
        await open_cassandra(table_of(config), config.parent)
    assert (caught.value.reason, caught.value.field) == (Reason.SCHEMA_MISMATCH, "storage.keyspace")
    for command in ("migrate", "status"):
        result = await asyncio.to_thread(run, command, "--config", str(config), "--json")
        assert result.exit_code == 5
        error = json.loads(result.stdout)["error"]
        assert error["reason"] == "SCHEMA_MISMATCH"
        assert said in error["detail"]


async def test_tables_of_an_older_program_are_named_with_the_fix(config: Path) -> None:
    settings = CassandraSettings.parse(table_of(config), config.parent)
    bridge = await Bridge.connect(settings)
    await migrate(bridge, settings, lambda _: None)
    last = shipped()[-1]
    older = f"DELETE FROM {settings.keyspace}.schema_version WHERE number = {last.number} IF EXISTS"
    await bridge.once(older, profile="swap")
    await bridge.close()
    with pytest.raises(RefusedError, match=f"lacks {last.name}; run: idtrace store migrate --config FILE"):
        await open_cassandra(table_of(config), config.parent)
    again = await asyncio.to_thread(run, "migrate", "--config", str(config), "--json")
    assert json.loads(again.stdout)["migrations"] == [last.name]
    store = await open_cassandra(table_of(config), config.parent)
    await store.close()


def changed(config: Path, old: str, new: str) -> None:
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("change", "field", "said", "code"),
    [
        (("datacenter1 = 1", "elsewhere = 1"), "storage.replication", "nodes: datacenter1 (1)", 2),
        (("datacenter1 = 1", "datacenter1 = 2"), "storage.replication", "2 in 'datacenter1'", 2),
        (("port =", 'datacenter = "elsewhere"\nport ='), "storage.datacenter", "data centres: datacenter1", 2),
        (("port =", 'tls_ca = "missing.pem"\nport ='), "storage.tls_ca", "No such file", 2),
        (("port =", 'tls_ca = "registry.toml"\nport ='), "storage.tls_ca", "PEM", 2),
        (("port =", 'username = "n"\npassword_env = "NO_SUCH"\nport ='), "storage.password_env", "NO_SUCH", 2),
        (("port =", 'username = "n"\npassword_file = "none"\nport ='), "storage.password_file", "No such file", 2),
        (("port =", 'username = "n"\npassword_file = "registry.toml"\nport ='), "storage.password_file", "one line", 2),
        (('["127.0.0.1"]', '["nowhere.invalid"]'), "storage.contact_points", "nowhere.invalid", 4),
    ],
)
def test_a_setting_that_does_not_fit_the_ring_is_named_in_one_line(
    config: Path, change: tuple[str, str], field: str, said: str, code: int
) -> None:
    changed(config, *change)
    result = run("migrate", "--config", str(config), "--json")
    assert (result.exit_code, result.stderr) == (code, ""), result.output
    error = json.loads(result.stdout)["error"]
    assert error["field"] == field
    assert said in error["detail"]
    with pytest.raises((BusyError, InputError, RefusedError)) as caught:
        asyncio.run(open_cassandra(table_of(config), config.parent))
    assert caught.value.field in {field, "storage.keyspace"}  # a node makes no keyspace: it misses it


def test_a_ring_without_tls_is_told_from_a_wrong_authority(config: Path, tmp_path: Path) -> None:
    Identity(tmp_path / "tls").make()
    changed(config, "port =", 'tls_ca = "tls/ca.pem"\nport =')
    error = json.loads(run("status", "--config", str(config), "--json").stdout)["error"]
    assert error["field"] == "storage.tls_ca"
    assert "speaks none" in error["detail"]


async def test_other_copies_than_the_settings_ask_for_are_told_with_the_statement_and_not_made(
    config: Path, tmp_path: Path
) -> None:
    """In the keyspace of the suites, whose tables are there; a node starts on it all the same."""
    settings = await cassandra_settings(tmp_path)
    changed(config, str(table_of(config)["keyspace"]), settings.keyspace)
    changed(config, "datacenter1 = 1", "datacenter1 = 3")
    for command in ("migrate", "status"):
        told = await asyncio.to_thread(run, command, "--config", str(config), "--json")
        assert told.exit_code == 0
        advice = json.loads(told.stdout)["advice"]
        assert "WITH replication = {'class': 'NetworkTopologyStrategy', 'datacenter1': 3}; then `nodetool" in advice
    shown = await asyncio.to_thread(run, "status", "--config", str(config))
    assert "ALTER KEYSPACE" in shown.stderr
    await (await open_cassandra(table_of(config), config.parent)).close()


async def test_a_node_that_asks_its_own_data_centre_alone_finds_copies_in_it(tmp_path: Path) -> None:
    """Else each of its reads would fail."""
    settings = await cassandra_settings(tmp_path, serial_consistency="LOCAL_SERIAL")
    bridge = await Bridge.connect(settings)
    await check_schema(bridge, settings)
    with pytest.raises(RefusedError, match=r"holds no copies.*ALTER KEYSPACE") as caught:
        await check_schema(bridge, replace(settings, datacenter="elsewhere", replication={"elsewhere": 3}))
    await bridge.close()
    assert (caught.value.reason, caught.value.field) == (Reason.SCHEMA_MISMATCH, "storage.replication")


@pytest.mark.parametrize("text", ['[storage]\nengine = "sqlite"\n', "", "storage = 1\n", "not toml"])
def test_a_configuration_without_a_cassandra_is_wrong_usage(tmp_path: Path, text: str) -> None:
    file = tmp_path / "registry.toml"
    file.write_text(text)
    assert run("status", "--config", str(file)).exit_code == 2


def test_a_ring_that_is_not_there_is_named(config: Path) -> None:
    config.write_text(config.read_text().replace("port = ", "port = 1 # "))
    assert run("status", "--config", str(config), "--json").exit_code == 4
    with pytest.raises(BusyError) as caught:
        asyncio.run(open_cassandra(table_of(config), config.parent))
    assert (caught.value.reason, caught.value.field) == (Reason.NO_ANSWER, "storage.contact_points")

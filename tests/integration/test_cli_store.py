"""``idtrace store`` and the start of a node, against a real Cassandra."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from idtrace.cli.app import app
from idtrace.errors import InputError
from registry.cassandra_bridge import Bridge
from registry.cassandra_schema import change_schema, migrate, shipped
from registry.cassandra_settings import CassandraSettings
from registry.storage_cassandra import open_cassandra
from tests.engines.cassandra import CassandraCluster

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
    with pytest.raises(InputError, match="idtrace store migrate"):
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
    [(1, "0001_tables.cql", "0" * 64, "another content"), (2, "0002_later.cql", "0" * 64, "newer than this program")],
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
    with pytest.raises(InputError, match=said):
        await open_cassandra(table_of(config), config.parent)
    result = await asyncio.to_thread(run, "migrate", "--config", str(config), "--json")
    assert result.exit_code == 5
    assert said in json.loads(result.stdout)["error"]["detail"]


@pytest.mark.parametrize("text", ['[storage]\nengine = "sqlite"\n', "", "storage = 1\n", "not toml"])
def test_a_configuration_without_a_cassandra_is_wrong_usage(tmp_path: Path, text: str) -> None:
    file = tmp_path / "registry.toml"
    file.write_text(text)
    assert run("status", "--config", str(file)).exit_code == 2


def test_a_ring_that_is_not_there_is_named(config: Path) -> None:
    config.write_text(config.read_text().replace("port = ", "port = 1 # "))
    assert run("status", "--config", str(config), "--json").exit_code == 4
    with pytest.raises(InputError) as caught:
        asyncio.run(open_cassandra(table_of(config), config.parent))
    assert caught.value.field == "storage.contact_points"

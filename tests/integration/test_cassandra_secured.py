"""A Cassandra that asks for a password, TLS and a client's certificate: what gets in, and what is said to all else."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner

from idtrace.cli.app import app
from idtrace.errors import BusyError, IdtraceError, InputError
from registry.cassandra_schema import shipped
from registry.storage import Outcome
from registry.storage_cassandra import open_cassandra
from tests.engines import EngineUnavailable
from tests.engines.cassandra import CassandraCluster
from tests.engines.tls import Identity
from tests.integration.test_storage_contract import FIRST
from tests.registry_fixtures import head_of, write_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
NODE_PASSWORD: Final = "n0de of 'secrets'"
DEPLOYER_PASSWORD: Final = "d3ploy-er"
GUESSED: Final = "gue55ed"
# What ARCHITECTURE.md tells operators to run, as the first account.
ROLES: Final = (
    f"CREATE ROLE deployer WITH PASSWORD = '{DEPLOYER_PASSWORD}' AND LOGIN = true",
    "GRANT CREATE ON ALL KEYSPACES TO deployer",
    "CREATE ROLE node WITH PASSWORD = 'n0de of ''secrets''' AND LOGIN = true",
    "CREATE ROLE stranger WITH PASSWORD = 'n0de of ''secrets''' AND LOGIN = true",
)
GRANTS: Final = ("GRANT SELECT, MODIFY ON KEYSPACE idtrace TO node",)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CassandraCluster]:
    """With the roles, and with the tables made by the one that may make them."""
    cluster = CassandraCluster(tmp_path_factory.mktemp("secured"), auth=True, mutual=True)
    try:
        cluster.start()
    except EngineUnavailable as reason:
        pytest.skip(f"not run: cassandra: {reason}")
    try:
        Identity(cluster.folder / "other").make()
        with cluster.connected() as session:
            for statement in ROLES:
                session.execute(statement)
        yield cluster
    finally:
        cluster.stop()


def table_of(cluster: CassandraCluster, **changes: object) -> dict[str, object]:
    """The table ``storage`` of a node; None takes a key away."""
    table: dict[str, object] = {
        "contact_points": cluster.contact_points,
        "port": cluster.port,
        "ledger": "88.118",
        "replication": {"datacenter1": 1},
        "username": "node",
        "password_file": "node.password",
        "tls_ca": "tls/ca.pem",
        "tls_cert": "tls/client.pem",
        "tls_key": "tls/client.key",
    }
    (cluster.folder / "node.password").write_text(f"{NODE_PASSWORD}\n")
    return {key: value for key, value in (table | changes).items() if value is not None}


def config_of(cluster: CassandraCluster, **changes: object) -> Path:
    file = cluster.folder / "registry.toml"
    table = table_of(cluster, **changes)
    copies = ", ".join(f"{name} = {number}" for name, number in dict(table.pop("replication")).items())  # type: ignore[call-overload]  # a table
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    file.write_text("\n".join(['[storage]\nengine = "cassandra"', *lines, f"replication = {{ {copies} }}\n"]))
    return file


def run(*words: str, **environment: str) -> Any:
    return CliRunner(env=environment).invoke(app, ["store", *words])


@pytest.fixture(scope="module")
def migrated(secured: CassandraCluster) -> CassandraCluster:
    """By a role that may make keyspaces, over mutual TLS, the password from the environment."""
    deployer: dict[str, Any] = {"username": "deployer", "password_file": None, "password_env": "IDTRACE_DEPLOYER"}
    config = config_of(secured, **deployer)
    environment = {"IDTRACE_DEPLOYER": DEPLOYER_PASSWORD}
    for expected in ([migration.name for migration in shipped()], []):
        made = run("migrate", "--config", str(config), "--json", **environment)
        assert made.exit_code == 0, made.output
        assert json.loads(made.stdout)["migrations"] == expected
    status = run("status", "--config", str(config), "--json", **environment)
    assert {migration["state"] for migration in json.loads(status.stdout)["migrations"]} == {"applied"}
    with secured.connected() as session:
        for statement in GRANTS:
            session.execute(statement)
    return secured


def test_a_role_with_two_grants_is_enough_for_a_node_and_too_little_to_migrate(migrated: CassandraCluster) -> None:
    async def live() -> None:
        store = await open_cassandra(table_of(migrated), migrated.folder)
        assert await store.commit([write_of(FIRST, "key-1")]) == [Outcome.COMMITTED]
        await store._ledger.sweep(1)
        await store.close()
        again = await open_cassandra(table_of(migrated, tls_server_name="localhost"), migrated.folder)
        assert await again.heads(["88.118.8/A"]) == {"88.118.8/A": head_of(FIRST)}
        assert await again.grants() == []
        assert await again.chains() == {}
        assert [change.sequence for change in await again.changes(0, 10)] == [1]
        await again.close()

    asyncio.run(live())
    config = config_of(migrated)
    assert run("status", "--config", str(config)).exit_code == 0
    refused = run("migrate", "--config", str(config), "--json")
    error = json.loads(refused.stdout)["error"]
    assert (refused.exit_code, error["field"]) == (2, "storage.username")
    assert "CREATE" in error["detail"]


def test_a_role_without_grants_is_told_which_it_lacks(migrated: CassandraCluster) -> None:
    with pytest.raises(InputError, match="GRANT SELECT, MODIFY ON KEYSPACE idtrace") as caught:
        asyncio.run(open_cassandra(table_of(migrated, username="stranger"), migrated.folder))
    assert caught.value.field == "storage.username"
    assert "stranger has no SELECT permission" in caught.value.detail


NOBODY: Final[dict[str, object]] = {"username": None, "password_file": None}
WRONG: Final[list[tuple[dict[str, object], str, str]]] = [
    ({"password_file": "guessed.password"}, "password_file", "password are incorrect"),
    ({"password_file": None, "password_env": "IDTRACE_GUESSED"}, "password_env", "password are incorrect"),
    ({"username": "nobody"}, "password_file", "'nobody'"),
    (NOBODY, "username", "is missing"),
    ({"tls_ca": "other/ca.pem"}, "tls_ca", "is not the authority"),
    ({"tls_cert": None, "tls_key": None}, "tls_cert", "is missing"),
    ({"tls_cert": "other/client.pem", "tls_key": "other/client.key"}, "tls_cert", "is refused"),
    ({"tls_key": "other/client.key"}, "tls_cert", "a certificate and its key"),
    ({"tls_server_name": "ring.example"}, "tls_server_name", "does not bear 'ring.example'"),
    ({"tls_ca": None, "tls_cert": None, "tls_key": None}, "tls_ca", "is missing"),
]


@pytest.mark.parametrize("wrong", WRONG, ids=[f"{field} {said}" for _, field, said in WRONG])
def test_what_is_wrong_is_named_and_no_password_is(
    migrated: CassandraCluster,
    wrong: tuple[dict[str, object], str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    changes, field, said = wrong
    monkeypatch.setenv("IDTRACE_GUESSED", GUESSED)
    (migrated.folder / "guessed.password").write_text(GUESSED)
    caplog.set_level("DEBUG")
    with pytest.raises(InputError) as caught:
        asyncio.run(open_cassandra(table_of(migrated, **changes), migrated.folder))
    assert caught.value.field == f"storage.{field}"
    assert said in caught.value.detail
    result = run("status", "--config", str(config_of(migrated, **changes)), "--json")
    assert (result.exit_code, result.stderr) == (2, "")
    error = json.loads(result.stdout)["error"]
    assert (error["field"], said in error["detail"]) == (caught.value.field, True)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert not any(secret in repr(chain) for secret in (GUESSED, NODE_PASSWORD))
        chain = chain.__cause__ or chain.__context__
    assert caplog.text  # the driver has said something
    assert not any(secret in caplog.text for secret in (GUESSED, NODE_PASSWORD))


async def test_a_certificate_for_another_address_is_a_stranger(migrated: CassandraCluster) -> None:
    """Somebody in between, at an address that no certificate of the ring bears."""
    tasks: set[asyncio.Task[None]] = set()

    async def passing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]  # there is one here
        far_reader, far_writer = await asyncio.open_connection(migrated.contact_points[0], migrated.port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65_536):
                sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(passing, "127.0.0.9", 0)
    changes = {"contact_points": ["127.0.0.9"], "port": server.sockets[0].getsockname()[1]}
    with pytest.raises(InputError, match="the address that the ring announces") as caught:
        await open_cassandra(table_of(migrated, **changes), migrated.folder)
    assert caught.value.field == "storage.tls_server_name"
    server.close()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"password_file": None, "password_env": "IDTRACE_GUESSED"}, 2, "storage.password_env"),
        ({"tls_ca": "other/ca.pem"}, 2, "storage.tls_ca"),
        ({"port": 1}, 4, "storage.contact_points"),
    ],
)
def test_the_program_says_it_in_a_sentence_without_a_traceback(
    migrated: CassandraCluster, changes: dict[str, object], code: int, said: str
) -> None:
    """A process of its own: here nothing has set up a log that could hide what the driver prints."""
    program = (sys.executable, "-c", "from idtrace.cli import main; main()", "store", "status", "--config")
    done = subprocess.run(
        [*program, str(config_of(migrated, **changes))],
        cwd=ROOT,
        env={**os.environ, "IDTRACE_GUESSED": GUESSED},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert said in "".join(done.stderr.split("\n"))
    assert "Traceback" not in done.stderr
    assert "cassandra.cluster" not in done.stderr
    assert GUESSED not in done.stderr
    assert len(done.stderr.splitlines()) <= 8


def test_a_passphrase_is_not_asked_for_at_the_terminal(migrated: CassandraCluster) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key((migrated.folder / "tls" / "client.key").read_bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"passphrase"),
    )
    (migrated.folder / "encrypted.key").write_bytes(encrypted)
    with pytest.raises(IdtraceError) as caught:
        asyncio.run(open_cassandra(table_of(migrated, tls_key="encrypted.key"), migrated.folder))
    assert (type(caught.value), caught.value.field) == (InputError, "storage.tls_cert")
    assert not isinstance(caught.value, BusyError)

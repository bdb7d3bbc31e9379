"""The engines that other tests lean on are real: they start, answer, die, come back, and refuse whom they must."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as driver

from tests.engines import ROOT, EngineFailed, EngineUnavailable, install, sharing
from tests.engines.cassandra import CassandraCluster
from tests.engines.process import Process, free_port, start_time
from tests.engines.redis import RedisServer

pytestmark = pytest.mark.slow
SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
# Deaf to SIGTERM, and says so before it is asked to end.
IGNORE = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
DEAF = [sys.executable, "-c", IGNORE]


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path, "sleeper")
    process.start(SLEEPER)
    yield process
    process.kill()


@pytest.fixture
def redis_options(tmp_path: Path, redis_server: RedisServer) -> Iterator[Callable[..., RedisServer]]:
    """Starts servers with options; redis_server skips the test where there is no Redis."""
    made: list[RedisServer] = []

    def start(**options: Any) -> RedisServer:
        made.append(RedisServer(tmp_path / f"redis{len(made)}", **options))
        made[-1].start()
        return made[-1]

    yield start
    for server in made:
        server.stop()


@pytest.fixture
def cassandra_options(tmp_path: Path) -> Iterator[Callable[..., CassandraCluster]]:
    made: list[CassandraCluster] = []

    def start(**options: Any) -> CassandraCluster:
        made.append(CassandraCluster(tmp_path / "cassandra", **options))
        try:
            made[-1].start()
        except EngineUnavailable as reason:
            pytest.skip(f"not run: cassandra: {reason}")
        return made[-1]

    yield start
    for cluster in made:
        cluster.stop()


# --- Processes


def test_a_second_object_on_the_same_files_is_the_same_process(sleeper: Process, tmp_path: Path) -> None:
    again = Process(tmp_path, "sleeper")
    assert again.pid == sleeper.pid is not None
    again.start(["/bin/false"])
    assert again.pid == sleeper.pid, "what runs is not started twice"
    again.stop(5)
    assert sleeper.pid is None


def test_a_stranger_with_the_same_pid_is_left_alone(sleeper: Process, tmp_path: Path) -> None:
    noted = json.loads((tmp_path / "sleeper.pid").read_text("utf-8"))
    (tmp_path / "stale.pid").write_text(json.dumps(noted | {"start_time": noted["start_time"] - 1}), "utf-8")
    stale = Process(tmp_path, "stale")
    assert stale.pid is None
    stale.kill()
    stale.stop(1)
    assert sleeper.pid == noted["pid"]


def test_a_process_that_was_killed_is_gone_though_nobody_has_asked_for_its_exit_status(sleeper: Process) -> None:
    assert sleeper.pid is not None
    os.kill(sleeper.pid, 9)
    deadline = time.monotonic() + 5
    while sleeper.pid is not None:
        assert time.monotonic() < deadline


def test_a_paused_process_is_there_and_still_stops(sleeper: Process) -> None:
    states = [sleeper.paused]
    for act in (sleeper.pause, sleeper.resume, sleeper.pause):
        act()
        states.append(sleeper.paused)
    assert states == [False, True, False, True]
    started = time.monotonic()
    sleeper.stop(30)
    assert sleeper.pid is None
    assert time.monotonic() - started < 10


def test_a_process_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    process = Process(tmp_path, "deaf")
    process.start(DEAF)
    while "deaf" not in process.log_tail():
        time.sleep(0.01)
    process.stop(0.3)
    assert process.pid is None


def test_a_free_port_is_one_that_can_be_had_at_every_address() -> None:
    with pytest.raises(EngineUnavailable, match=r"192\.0\.2\.1"):
        free_port(["127.0.0.1", "192.0.2.1"])


# --- Runs


def test_a_run_whose_leader_was_killed_is_ended_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "FOLDER", tmp_path)
    pid = os.getpid()
    left, ours = tmp_path / f"run-{pid}-1", tmp_path / f"run-{pid}-{start_time(pid)}"
    process = Process(left / "redis-gw0", "redis")
    process.start(SLEEPER)
    ours.mkdir()
    sharing.end_runs_without_leader()
    assert process.pid is None
    assert (left.exists(), ours.exists()) == (False, True)


def test_what_cannot_be_had_is_skipped_with_its_reason_and_named_at_the_end(tmp_path: Path) -> None:
    """A whole run of pytest on a machine that has neither program, and may not install it."""
    text = "def test_redis(redis_server): pass\ndef test_cassandra(cassandra): pass\n"
    (tmp_path / "test_two.py").write_text(text, "utf-8")
    hidden = {name: value for name, value in os.environ.items() if name not in {"CI", "IDTRACE_ENGINES_INSTALL"}}
    code = (
        "import sys, pathlib, pytest; from tests.engines import install, sharing;"
        f"sharing.FOLDER = install.FOLDER = pathlib.Path({str(tmp_path)!r});"
        "sharing.STANDING = sharing.FOLDER / 'standing';"
        f"sys.exit(pytest.main(['-q', '-p', 'tests.conftest', '--rootdir', {str(tmp_path)!r}, '-c', '/dev/null',"
        f" '-p', 'no:cacheprovider', '-rs', {str(tmp_path / 'test_two.py')!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=hidden | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "2 skipped" in done.stdout, done.stdout + done.stderr
    assert "engines: cassandra not run (Cassandra is not installed here" in done.stdout
    assert "· redis not run (no redis-server is installed here" in done.stdout


def test_java_that_is_too_old_is_no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "java"
    program.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n", "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(EngineUnavailable, match=r"Java 17 is asked for, and here is openjdk version .11\.0\.2"):
        install.java()


# --- Redis


def test_redis_forgets_when_it_is_killed_and_comes_back_at_the_same_address(redis_server: RedisServer) -> None:
    url = redis_server.url
    with driver.Redis.from_url(url, socket_timeout=5) as client:
        assert client.set("key", b"\x00value")
        assert client.get("key") == b"\x00value"
    redis_server.kill()
    assert not redis_server.running
    assert not redis_server.answers()
    redis_server.restart()
    assert redis_server.url == url
    with driver.Redis.from_url(url, socket_timeout=5) as client:
        assert client.get("key") is None
        assert client.info("server")["redis_version"] == redis_server.version


def test_a_paused_redis_takes_connections_and_answers_nobody(redis_server: RedisServer) -> None:
    redis_server.pause()
    with driver.Redis.from_url(redis_server.url, socket_timeout=0.2) as client, pytest.raises(driver.TimeoutError):
        client.ping()
    redis_server.resume()
    assert redis_server.answers()


def test_redis_asks_for_its_password_speaks_tls_and_keeps_its_bound(
    redis_options: Callable[..., RedisServer],
) -> None:
    server = redis_options(password="secret", tls=True, maxmemory="32mb")
    with driver.Redis.from_url(server.url, socket_timeout=5) as client:
        assert client.config_get("maxmemory") == {"maxmemory": str(32 << 20)}
    refused = server.url.replace("secret", "guessed")
    with driver.Redis.from_url(refused, socket_timeout=5) as client, pytest.raises(driver.AuthenticationError):
        client.ping()
    distrusting = server.url.partition("?")[0]
    with driver.Redis.from_url(distrusting, socket_timeout=5) as client, pytest.raises(driver.ConnectionError):
        client.ping()


def test_a_replica_of_redis_follows(redis_options: Callable[..., RedisServer]) -> None:
    first = redis_options()
    second = redis_options(replica_of=first)
    with driver.Redis.from_url(first.url) as writer, driver.Redis.from_url(second.url) as reader:
        writer.set("key", "value")
        deadline = time.monotonic() + 20
        while reader.get("key") != b"value":
            assert time.monotonic() < deadline, "the replica does not follow"
            time.sleep(0.05)


def test_a_port_that_is_taken_is_a_failure_and_no_reason_to_skip(
    redis_server: RedisServer, redis_options: Callable[..., RedisServer]
) -> None:
    with pytest.raises(EngineFailed, match="does not answer"):
        redis_options(port=redis_server.port, password="other")


# --- Cassandra

TABLE = "CREATE TABLE {}.claims (name text PRIMARY KEY, owner text)"
CLAIM = "INSERT INTO {}.claims (name, owner) VALUES (%s, %s) IF NOT EXISTS"


def test_cassandra_grants_a_claim_once(cassandra: CassandraCluster, cassandra_keyspace: str) -> None:
    with cassandra.connected() as session:
        session.execute(TABLE.format(cassandra_keyspace))
        assert session.execute(CLAIM.format(cassandra_keyspace), ["88.118", "one"]).was_applied
        assert not session.execute(CLAIM.format(cassandra_keyspace), ["88.118", "two"]).was_applied


def test_cassandra_keeps_what_it_has_and_asks_for_password_and_tls(
    cassandra_options: Callable[..., CassandraCluster],
) -> None:
    """One node for both, since each start takes seconds: claimed, stopped, started, found again; strangers refused."""
    from cassandra.auth import PlainTextAuthProvider
    from cassandra.cluster import NoHostAvailable

    cluster = cassandra_options(auth=True, tls=True)
    port = cluster.port
    cluster.create_keyspace("kept")
    with cluster.connected() as session:
        session.execute(TABLE.format("kept"))
        assert session.execute(CLAIM.format("kept"), ["88.118", "one"]).was_applied
    cluster.stop()
    assert cluster.running == []
    cluster.start()
    assert cluster.port == port
    with cluster.connected() as session:
        assert session.execute("SELECT owner FROM kept.claims WHERE name = '88.118'").one().owner == "one"

    wrong = PlainTextAuthProvider(cluster.username, "guessed")
    for options, complaint in [
        ({"auth_provider": wrong}, "Provided username cassandra and/or password are incorrect"),
        ({"auth_provider": None}, "Remote end requires authentication"),
        ({"ssl_context": None}, "NoHostAvailable|Unable to connect"),
    ]:
        with pytest.raises(NoHostAvailable, match=complaint), cluster.connected(**options, connect_timeout=5.0):
            pass


def test_three_nodes_lose_one_and_still_agree(
    cassandra3: CassandraCluster, record_property: Callable[[str, object], None]
) -> None:
    """QUORUM of three is two: killed or paused, one node takes nothing away, and what it missed it is told later."""
    from cassandra import ConsistencyLevel, Unavailable, WriteTimeout
    from cassandra.query import SimpleStatement

    keyspace = f"idtrace_{uuid.uuid4().hex}"
    cassandra3.create_keyspace(keyspace)
    with cassandra3.connected(0) as session:
        session.execute(TABLE.format(keyspace))
        cassandra3.kill(2)
        assert cassandra3.running == [0, 1]
        claimed = SimpleStatement(CLAIM.format(keyspace), consistency_level=ConsistencyLevel.QUORUM)
        assert session.execute(claimed, ["killed", "one"]).was_applied
        started = time.monotonic()
        cassandra3.restart(2)
        record_property("a killed node of three is whole again after", f"{time.monotonic() - started:.1f} s")
        cassandra3.pause(1)
        assert session.execute(claimed, ["paused", "one"]).was_applied
        cassandra3.resume(1)
        cassandra3.kill(1)
        cassandra3.kill(2)
        # WriteTimeout until the one that is left has noticed, Unavailable from then on.
        with pytest.raises((Unavailable, WriteTimeout)):
            session.execute(claimed, ["alone", "one"])
    cassandra3.mend()
    with cassandra3.connected(2) as session:
        everywhere = SimpleStatement(
            f"SELECT name FROM {keyspace}.claims WHERE name IN ('killed', 'paused')",
            consistency_level=ConsistencyLevel.ALL,
        )
        assert {row.name for row in session.execute(everywhere)} == {"killed", "paused"}
    cassandra3.drop_keyspace(keyspace)

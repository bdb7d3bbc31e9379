"""What holds for every test, and the real engines that some of them ask for."""

from __future__ import annotations

import os
import uuid
from collections.abc import Generator, Iterator
from typing import Any, Literal

import hypothesis
import pytest
import structlog

from tests.engines import EngineUnavailable, sharing
from tests.engines.cassandra import CassandraCluster
from tests.engines.redis import RedisServer

# A busy machine is not a slow program: what must be fast is measured where it matters, never by one example.
hypothesis.settings.register_profile("idtrace", deadline=None)
hypothesis.settings.load_profile("idtrace")


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, dict[str, Any] | None, Any]:
    """Reports travel between test processes as UTF-8, which a failure that quotes half a surrogate pair is not."""
    return _encodable((yield))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have measured (``record_property``) and which engines ran, for whoever reads the end of the run."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and report.when == "call":
                for name, measured in report.user_properties:
                    terminalreporter.write_line(f"{name}: {measured}")
    if engines := sharing.outcomes():
        terminalreporter.write_line(f"engines: {' · '.join(engines)}")


def _encodable(data: Any) -> Any:
    if isinstance(data, str):
        return data.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(data, dict):
        return {key: _encodable(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return type(data)(_encodable(value) for value in data)
    return data


# --- Engines (tests/engines): real ones, or the test is skipped with the reason why not

# Three nodes start in 17 to 30 s, and again after a test has killed one.
FAULTS_TIMEOUT_SECONDS = 300


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "faults: does harm at length, or to three nodes of Cassandra; `make faults`")
    if not hasattr(config, "workerinput"):
        sharing.begin_run()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        sharing.end_run()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for three nodes belongs to `make faults`."""
    for item in items:
        if "cassandra3" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.faults)
        if item.get_closest_marker("faults") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(FAULTS_TIMEOUT_SECONDS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Whatever a test has killed or paused of the shared engines runs again, first for the test's own fixtures."""
    if isinstance(item, pytest.Function):
        for engine in item.funcargs.values():
            if isinstance(engine, CassandraCluster | RedisServer):
                engine.mend()
    return (yield)


@pytest.fixture(scope="session")
def cassandra() -> CassandraCluster:
    """A cluster of one node, shared by all test processes: tests make keyspaces of their own and do it no harm."""
    return _cassandra(1)


@pytest.fixture(scope="session")
def cassandra3() -> CassandraCluster:
    """Three nodes, to be killed, paused and restarted by one test at a time."""
    if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
        pytest.skip("not run: three nodes of Cassandra want one test process (make faults)")
    return _cassandra(3)


def _cassandra(nodes: Literal[1, 3]) -> CassandraCluster:
    try:
        return sharing.shared_cassandra(nodes)
    except EngineUnavailable as reason:
        pytest.skip(f"not run: cassandra: {reason}")


@pytest.fixture(scope="session")
def cassandra_keyspace(cassandra: CassandraCluster) -> Iterator[str]:
    """An empty keyspace of this test process."""
    name = f"idtrace_{uuid.uuid4().hex}"
    cassandra.create_keyspace(name)
    yield name
    cassandra.drop_keyspace(name)


@pytest.fixture(scope="session")
def redis_server(worker_id: str) -> Iterator[RedisServer]:
    """A server of this test process: tests may empty it, pause it and kill it."""
    try:
        server = sharing.own_redis(worker_id)
    except EngineUnavailable as reason:
        pytest.skip(f"not run: redis: {reason}")
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def logs_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A node that a test starts in this process sets logging up for good; the next test gets the defaults again."""
    configure = structlog.configure

    def uncached(*settings: Any, **named: Any) -> None:
        configure(*settings, **(named | {"cache_logger_on_first_use": False}))

    monkeypatch.setattr(structlog, "configure", uncached)
    yield
    structlog.reset_defaults()

"""A node whose whole Cassandra goes away and comes back: typed errors meanwhile, and nobody has to restart the node."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from idtrace.delegation import Role
from idtrace.errors import BusyError, IdtraceError, OutcomeUnknownError, Reason
from idtrace.serving.errors import error_from_rpc
from registry.cassandra_bridge import Bridge
from registry.cassandra_schema import migrate
from registry.cassandra_settings import CassandraSettings
from registry.storage_cassandra import open_cassandra
from tests.core_fixtures import signer
from tests.engines import EngineUnavailable
from tests.engines.cassandra import CassandraCluster
from tests.nodes import Nodes, key_name, make_record

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
OWNER = signer(key_name(Role.RECORD, ""))
# Three tries of a request's two seconds, and the pauses between them.
TOLD_WITHIN_SECONDS = 15.0
# The driver tries a node every five seconds at the latest; then the store is read and settled.
BACK_WITHIN_SECONDS = 30.0


@pytest.fixture
def own_cassandra(tmp_path: Path) -> Iterator[CassandraCluster]:
    """One that a test may stop."""
    cluster = CassandraCluster(tmp_path / "cassandra")
    try:
        cluster.start()
    except EngineUnavailable as reason:
        pytest.skip(f"not run: cassandra: {reason}")
    yield cluster
    cluster.stop()


@pytest.fixture
async def storage(own_cassandra: CassandraCluster) -> dict[str, object]:
    """The table ``storage`` of a node on it, but for the engine; the tables are made."""
    table: dict[str, object] = {
        "contact_points": own_cassandra.contact_points,
        "port": own_cassandra.port,
        "ledger": "root",
        "replication": {"datacenter1": 1},
    }
    settings = CassandraSettings.parse(table, Path())
    bridge = await Bridge.connect(settings)
    await migrate(bridge, settings, lambda _: None)
    await bridge.close()
    return table


@pytest.fixture
async def nodes(tmp_path: Path, storage: dict[str, object]) -> AsyncIterator[Nodes]:
    async with Nodes(tmp_path) as nodes:
        await nodes.registry("", storage={"engine": "cassandra"} | storage)
        yield nodes


Told = tuple[type[IdtraceError], Reason]
BUSY: Told = (BusyError, Reason.NO_ANSWER)
UNKNOWN: Told = (OutcomeUnknownError, Reason.OUTCOME_UNKNOWN)


async def told(call: Any) -> Told | None:
    """The typed error that a call ends with, or None for an answer; either comes in time."""
    try:
        async with asyncio.timeout(TOLD_WITHIN_SECONDS):
            await call
    except grpc.aio.AioRpcError as failed:
        error = error_from_rpc(failed)
        if error is None:
            raise
        return type(error), error.reason
    return None


async def test_a_node_tells_what_it_can_while_its_store_is_gone_and_goes_on_when_it_is_back(
    own_cassandra: CassandraCluster,
    storage: dict[str, object],
    nodes: Nodes,
    record_property: Callable[[str, object], None],
) -> None:
    await nodes.register("88.118.8/A", {"lot": "L1"}, by=OWNER)
    await asyncio.to_thread(own_cassandra.stop)
    lost = make_record("88.118.8/B", {"lot": "L2"}, by=OWNER)
    for _ in range(2):
        assert await told(nodes.get("88.118.8/A")) == BUSY
        assert await told(nodes.submit(lost, "key-of-b")) in {BUSY, UNKNOWN}
    started = time.monotonic()
    with pytest.raises(BusyError, match="no Cassandra answers"):
        await open_cassandra(storage, Path())
    assert time.monotonic() - started < TOLD_WITHIN_SECONDS

    await asyncio.to_thread(own_cassandra.start)
    back = time.monotonic()
    while (error := await told(nodes.submit(lost, "key-of-b"))) is not None:
        assert error in {BUSY, UNKNOWN}
        assert time.monotonic() < back + BACK_WITHIN_SECONDS
        await asyncio.sleep(0.1)
    record_property("registrations go on after all of Cassandra was gone", f"{time.monotonic() - back:.1f} s")
    for name in "AB":
        assert (await nodes.get(f"88.118.8/{name}")).outcome is not None
    await nodes.register("88.118.8/C", by=OWNER)

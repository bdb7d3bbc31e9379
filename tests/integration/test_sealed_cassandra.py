"""A batch under one seal over gRPC, at a node whose store is Cassandra: the same promises as on SQLite."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from idtrace.checkpoint import Checkpoint
from idtrace.delegation import Role
from idtrace.errors import Reason
from idtrace.note import Note
from idtrace.serving.keyfile import write_private_key
from tests.integration.test_logged_node import LOG, POLICY, ZONE, LoggedNodes
from tests.integration.test_sealed import records, refusal, sealed, send, told
from tests.nodes import key_name, private_key
from tests.storages import cassandra_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def test_a_sealed_batch_is_one_commit_a_result_each_and_the_same_for_ever(tmp_path: Path) -> None:
    settings = await cassandra_settings(tmp_path)
    storage = {
        "engine": "cassandra",
        "contact_points": list(settings.contact_points),
        "port": settings.port,
        "keyspace": settings.keyspace,
        "ledger": settings.ledger,
        "request_timeout_seconds": 10.0,
    }
    for role in (Role.LOG, Role.CURRENCY):
        write_private_key(tmp_path / f"{role}.key", private_key(key_name(role, ZONE)), None)
    async with LoggedNodes(tmp_path) as nodes:
        await nodes.registry("")
        await nodes.registry("88")
        log = {"origin": LOG, "key": "log.key", "currency_key": "currency.key"}
        node = await nodes.registry(ZONE, storage=storage, log=log)
        batch = records(300)
        first = await send(nodes, sealed(batch))
        positions = [one.log_position for one in first.results]
        assert positions == list(range(positions[0], positions[0] + 300)), "they stand one after the other"
        checkpoint = Checkpoint.parse(Note.parse(first.checkpoint).text)
        assert checkpoint.size == positions[-1], "the checkpoint is that of their commit"
        assert POLICY.witnessing(Note.parse(first.checkpoint), now=int(time.time())).met
        assert await send(nodes, sealed(batch)) == first
        other = await send(nodes, sealed([*records(2), *records(3, "T")], "sealed-batch-2"))
        assert told(other)[:2] == [Reason.IDENTIFIER_TAKEN] * 2
        assert all(one.log_position for one in other.results[2:])
        assert (await refusal(nodes, sealed(records(4), "sealed-batch-1")))[0] is Reason.IDEMPOTENCY_KEY_REUSED
        await node.end()
        await node.start()
        assert await send(nodes, sealed(batch)) == first, "a restart changes nothing of it"

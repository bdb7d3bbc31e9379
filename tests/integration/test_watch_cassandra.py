"""RegistryService.Watch of two nodes on one ledger of a real Cassandra: each tells and serves what either commits."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from idtrace import wire
from idtrace.bundle import Denied, Referred
from idtrace.chain import Context
from idtrace.delegation import Delegation, State
from idtrace.errors import Reason
from idtrace.identifier import Prefix
from idtrace.statements import PrefixStatus
from idtrace.v1 import delegation_pb2
from registry.authority import verified
from registry.storage_cassandra import CassandraStorage
from tests.core_fixtures import delegate, delegation
from tests.integration.test_storage_cassandra import Between, KilledError
from tests.integration.test_storage_changes import subjects, told
from tests.integration.test_storage_contract import FIRST, OTHER, grant_of
from tests.nodes import TIMEOUT, Node, Nodes, make_record
from tests.registry_fixtures import typed_record, write_of
from tests.storages import STORAGES, cassandra_settings
from tests.watching import Watcher

pytestmark = pytest.mark.slow
two_stores = STORAGES["cassandra"]


async def two_nodes(folder: Path) -> tuple[Nodes, Node, Node]:
    """The root's node, and zone 88's twice on one ledger."""
    settings = await cassandra_settings(folder)
    table: dict[str, object] = {
        "engine": "cassandra",
        "contact_points": list(settings.contact_points),
        "port": settings.port,
        "keyspace": settings.keyspace,
        "ledger": settings.ledger,
    }
    nodes = Nodes(folder)
    await nodes.registry("")
    one = await nodes.registry("88", storage=table)
    other = await nodes.twin(one)
    await nodes.until_adopted(other, "88")
    return nodes, one, other


async def test_what_one_node_registers_the_other_tells_and_answers(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    nodes, one, other = await two_nodes(tmp_path)
    async with nodes, Watcher.on(one.registry, "88") as here, Watcher.on(other.registry, "88") as there:
        delays: list[float] = []
        for n in range(6):
            writer, reader = ((one, there), (other, here))[n % 2]
            record = make_record(f"88/N-{n}")
            begun = time.perf_counter()
            await nodes.submit(record, f"key-two-{n}", node=writer)
            await reader.hears((f"88/N-{n}", 1))
            delays.append(time.perf_counter() - begun)
            assert (await nodes.get(f"88/N-{n}", other if reader is there else one)).outcome == record
        record_property("watch across nodes", f"{1000 * sorted(delays)[3]:.0f} ms, {1000 * max(delays):.0f} ms at most")
        assert max(delays) < 2
        await here.hears(*((f"88/N-{n}", 1) for n in range(6)))
        await there.hears(*((f"88/N-{n}", 1) for n in range(6)))
        assert here.heard == there.heard
        async with Watcher.on(other.registry, "88", here.messages[0].sequence) as moved:
            await moved.hears(("88/N-5", 1))
            assert moved.heard == here.heard


async def test_what_one_node_grants_the_other_serves_by_the_time_it_tells(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    nodes, one, other = await two_nodes(tmp_path)
    async with nodes, Watcher.on(other.registry, "88") as there:
        delays: list[float] = []

        async def served(step: Any, version: int) -> tuple[int, str, Any]:
            count, begun = len(there.heard), time.perf_counter()
            await step
            await there.until(lambda: len(there.heard) > count)
            delays.append(time.perf_counter() - begun)
            assert there.heard[count:] == [("88.118", version)]
            request = delegation_pb2.DelegationServiceGetRequest(prefix="88.118")
            held = await other.delegation.Get(request, timeout=TIMEOUT)
            last = Delegation.parse(held.chain[-1].payload).version
            return last, held.status.status, (await nodes.get("88.118/A", other))

        first = nodes.delegate("88.118", ("a.example:1",), node_key_zone="88.118")
        last, status, answer = await served(first, 1)
        assert (last, status, answer.outcome) == (1, "enabled", Referred(Prefix.parse("88.118")))
        rotated = nodes.delegate("88.118", ("b.example:1",), node_key_zone="88.118")
        assert (await served(rotated, 2))[:2] == (2, "enabled")
        off = nodes.set_status("88.118", PrefixStatus.DISABLED, "key-off-two")
        last, status, answer = await served(off, 2)
        assert (last, status, isinstance(answer.outcome, Denied)) == (2, "disabled", True)
        on = nodes.set_status("88.118", PrefixStatus.ENABLED, "key-on-two1")
        assert (await served(on, 2))[:2] == (2, "enabled")
        end = nodes.delegate("88.118", (), node_key_zone="88.118", state=State.REVOKED, keys=())
        last, _, answer = await served(end, 3)
        assert last == 3
        assert verified(nodes.anchor, answer.delegations, Context.at(int(time.time()))).is_revoked
        record_property("grants across nodes", f"{1000 * max(delays):.0f} ms at most, the grant itself included")
        assert max(delays) < 2
        # The other goes on from there: its own next move is decided on what it has heard, not on what it once knew.
        nodes.of_zone["88"] = other
        await nodes.delegate("88.119", ("a.example:1",), node_key_zone="88.119")
        await there.hears(("88.119", 1))
        nodes.of_zone["88"] = one


async def test_a_node_that_comes_back_tells_what_was_committed_meanwhile(tmp_path: Path) -> None:
    nodes, one, other = await two_nodes(tmp_path)
    async with nodes:
        async with Watcher.on(one.registry, "88") as watcher:
            known = watcher.sequence
        await one.end()
        await nodes.submit(make_record("88/A"), "key-away-1", node=other)
        await nodes.submit(make_record("88/B"), "key-away-2", node=other)
        await one.start()
        async with Watcher.on(one.registry, "88", known) as back:
            await back.hears(("88/A", 1), ("88/B", 1))
            late = Watcher(one.registry, "88", back.sequence + 1)
            error = await late.ends()
            assert error is not None
            assert error.reason is Reason.CHANGES_GONE


# Batches that were committed and not applied


@pytest.mark.parametrize("lives", [0, 1, 5, 8, 9, 10, 11])
async def test_a_batch_is_told_when_it_is_applied_by_whomever_and_once(tmp_path: Path, lives: int) -> None:
    """The writer dies so many statements after the swap; what it had written is written again by the next one."""
    async with two_stores(tmp_path) as dead, two_stores(tmp_path) as other:
        assert isinstance(dead, CassandraStorage)
        await other.commit([write_of(typed_record("88.118.8/Z"), "key-0")])
        Between(dead).lives = lives
        with suppress(KilledError):
            await dead.commit([write_of(FIRST, "key-1"), write_of(OTHER, "key-2")])
        before = await told(other)
        heads = await other.heads(["88.118.8/A", "88.118.8/B"])
        assert len(before) == 1 or len(heads) == 2
        await other.put_grant(grant_of("88.118.9"), None, ("88.118", "key-3"), bytes(32))
        after = await told(other)
        assert after[: len(before)] == before
        assert [change.sequence for change in after] == [1, 2, 3]
        assert subjects(after)[1:] == [((("88.118.8/A", 1), ("88.118.8/B", 1)), ()), ((), (("88.118.9", 0),))]


async def test_a_change_that_a_late_writer_writes_again_is_the_same(tmp_path: Path) -> None:
    async with two_stores(tmp_path) as late, two_stores(tmp_path) as other:
        assert isinstance(late, CassandraStorage)
        applied: list[Any] = []
        apply = late._ledger.apply

        async def remember(*arguments: Any) -> None:
            applied.append(arguments)
            await apply(*arguments)

        late._ledger.apply = remember  # type: ignore[method-assign,assignment]  # to do it again
        handed = grant_of(version=1, delegation=wire.signed_to_bytes(delegate(delegation("88.118.8"))))
        await late.put_grant(handed, None, ("88.118", "key-1"), bytes(32))
        await other.commit([write_of(FIRST, "key-2")])
        before = await told(other)
        await apply(*applied[0])
        assert await told(other) == before
        assert subjects(before) == [((), (("88.118.8", 1),)), ((("88.118.8/A", 1),), ())]


async def test_changes_are_read_across_the_parts_that_they_lie_in(tmp_path: Path) -> None:
    async with two_stores(tmp_path) as store:
        for n in range(140):
            await store.commit([write_of(typed_record(f"88.118.8/N-{n}"), f"key-{n}")])
        every = await told(store)
        assert [change.sequence for change in every] == list(range(1, 141))
        assert await told(store, most=7) == every
        for after in (62, 63, 64, 127, 128):
            assert await store.changes(after, 2) == every[after : after + 2]


async def test_changes_live_for_days_and_go_by_themselves(tmp_path: Path) -> None:
    async with two_stores(tmp_path) as store:
        assert isinstance(store, CassandraStorage)
        await store.commit([write_of(FIRST, "key-1")])
        assert store._bridge is not None
        query = "SELECT ttl(subjects) AS left FROM change WHERE ledger = %s AND bucket = 0 AND seq = 1"
        (row,) = await store._bridge.run(query, (store._name,))
        assert 2 * 86_400 < row.left <= 3 * 86_400

"""Receipts say what stands behind them: sequenced at once, witnessed when a quorum has cosigned, and never too much."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from idtrace import wire
from idtrace.checkpoint import Checkpoint
from idtrace.delegation import Role
from idtrace.errors import Reason
from idtrace.identifier import Prefix
from idtrace.logpolicy import Group, KnownLog, KnownWitness, LogPolicy
from idtrace.merkle import hash_leaf
from idtrace.note import Note
from idtrace.record import Record
from idtrace.seal import seal
from idtrace.serving.keyfile import write_private_key
from idtrace.tlogproof import verify_proof
from idtrace.v1 import record_pb2 as pb
from idtrace.v1 import registry_pb2
from registry.server import wall_clock
from tests.core_fixtures import signer
from tests.engines.process import free_port
from tests.integration.test_logged_node import LOG, LOG_KEY, ZONE, LoggedNodes, proven
from tests.integration.test_registry import reason_of
from tests.log_fixtures import witness_signer
from tests.nodes import TIMEOUT, key_name, make_record, private_key
from tests.witness_fixtures import witness

SEQUENCED, WITNESSED = pb.RECEIPT_LEVEL_SEQUENCED, pb.RECEIPT_LEVEL_WITNESSED
WAIT_SECONDS = 3.0


class Site:
    """A node with a log, and a quorum of two witnesses of which each can be taken away and brought back."""

    def __init__(self, folder: Path, nodes: LoggedNodes) -> None:
        self.folder = folder
        self.nodes = nodes
        self.listens = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        self._up: dict[int, AsyncExitStack] = {}
        members = [KnownWitness(f"w{n}", witness_signer(n).key, f"http://{at}") for n, at in enumerate(self.listens, 1)]
        both = Group("both", 2, ("w1", "w2"))
        self.policy = LogPolicy((KnownLog(LOG_KEY),), tuple(members), (both,), "both")

    async def up(self, number: int) -> None:
        stack = AsyncExitStack()
        at, keys = self.listens[number - 1], [witness_signer(number)]
        await stack.enter_async_context(
            witness(self.folder / f"seen-{number}", keys, [LOG_KEY], clock=wall_clock, listen=at)
        )
        self._up[number] = stack

    async def down(self, number: int) -> None:
        await self._up.pop(number).aclose()

    async def register(
        self, name: str, level: pb.ReceiptLevel.ValueType = WITNESSED, *, seconds: float = TIMEOUT
    ) -> tuple[Record, Any]:
        record = make_record(f"{ZONE}/{name}", {"lot": "L1"})
        return record, await self.send(record, f"register-{name}", level, seconds=seconds)

    async def witnessed(self, name: str) -> tuple[Record, Any]:
        """A record whose receipt is witnessed, however often a busy machine has to be asked for it."""
        record, receipt = await self.register(name)
        for _ in range(20):
            if receipt.level == WITNESSED:
                return record, receipt
            receipt = await self.send(record, f"register-{name}", WITNESSED)
        raise AssertionError(f"{name} was not witnessed")

    async def send(
        self, record: Record, key: str, level: pb.ReceiptLevel.ValueType, *, seconds: float = TIMEOUT
    ) -> Any:
        request = registry_pb2.RegisterRequest(idempotency_key=key, record=wire.record_to_pb(record), wait_for=level)
        return (await self.nodes.of_zone[ZONE].registry.Register(request, timeout=seconds)).receipt

    def is_witnessed(self, receipt: Any, record: Record) -> bool:
        """Whether a stranger with the policy believes that the quorum has seen the record in the log."""
        proof = wire.proof_from_pb(receipt.proof)
        leaf = hash_leaf(proof.head + record.signed.payload)
        return verify_proof(proof.to_text(), leaf, self.policy, now=int(time.time())).valid


@asynccontextmanager
async def site(
    folder: Path, *, with_witnesses: bool = True, wait: float = WAIT_SECONDS, **settings: Any
) -> AsyncIterator[Site]:
    for role in (Role.LOG, Role.CURRENCY):
        write_private_key(folder / f"{role}.key", private_key(key_name(role, ZONE)), None)
    async with LoggedNodes(folder) as nodes:
        here = Site(folder, nodes)
        (folder / "policy").write_bytes(here.policy.encode())
        table: dict[str, object] = {"origin": LOG, "key": "log.key", "currency_key": "currency.key"}
        table |= {"policy": "policy", "witness_wait_seconds": wait} if with_witnesses else {}
        await nodes.registry("")
        await nodes.registry("88")
        await nodes.registry(ZONE, log=table, **settings)
        try:
            if with_witnesses:
                await here.up(1)
                await here.up(2)
            yield here
        finally:
            for number in list(here._up):
                await here.down(number)


async def test_a_witnessed_receipt_satisfies_a_stranger_with_the_policy_and_a_sequenced_one_says_what_it_is(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as here:
        record, receipt = await here.register("N-1")
        assert receipt.level == WITNESSED
        assert here.is_witnessed(receipt, record)
        proven(receipt, record)
        other, plain = await here.register("N-2", pb.RECEIPT_LEVEL_UNSPECIFIED)
        assert plain.level == SEQUENCED
        assert not here.is_witnessed(plain, other)
        proven(plain, other)
        # The level is no part of what the key stands for, and the signed part never changes.
        again = await here.send(other, "register-N-2", WITNESSED)
        assert (again.level, again.signed) == (WITNESSED, plain.signed)
        assert here.is_witnessed(again, other)
        assert await here.send(other, "register-N-2", SEQUENCED) == plain


async def test_a_lost_quorum_costs_the_level_and_the_wait_and_neither_the_record_nor_the_answer(tmp_path: Path) -> None:
    async with site(tmp_path, wait=1.0) as here:
        await here.register("N-0")
        await here.down(2)
        began = time.monotonic()
        record, receipt = await here.register("N-1")
        assert 0.9 < time.monotonic() - began < TIMEOUT
        assert receipt.level == SEQUENCED
        proven(receipt, record)
        assert not here.is_witnessed(receipt, record)
        await here.up(2)
        again, tries = receipt, 0
        while again.level != WITNESSED and tries < 20:
            again, tries = await here.send(record, "register-N-1", WITNESSED), tries + 1
            assert again.signed == receipt.signed
        assert here.is_witnessed(again, record)


async def test_the_callers_deadline_bounds_the_wait_and_is_kept(tmp_path: Path) -> None:
    async with site(tmp_path, wait=20.0) as here:
        await here.register("N-0")
        await here.down(1)
        await here.down(2)
        began = time.monotonic()
        _, receipt = await here.register("N-1", seconds=2.0)
        assert time.monotonic() - began < 2.0
        assert receipt.level == SEQUENCED


async def test_a_flood_of_waiters_is_answered_at_once_and_keeps_nobody_out(tmp_path: Path) -> None:
    async with site(tmp_path, wait=4.0, in_flight_max=8) as here:
        await here.register("N-0")
        await here.down(1)
        waiting = [asyncio.create_task(here.register(f"N-{n}")) for n in range(1, 5)]
        await asyncio.sleep(1.0)
        assert not any(task.done() for task in waiting), "four of eight calls may wait, and do"
        began = time.monotonic()
        _, one_more = await here.register("N-5")
        _, plain = await here.register("N-6", SEQUENCED)
        assert time.monotonic() - began < 2.0
        assert one_more.level == plain.level == SEQUENCED
        assert [receipt.level for _, receipt in await asyncio.gather(*waiting)] == [SEQUENCED] * 4


async def test_a_batch_waits_once_for_all_of_its_items(tmp_path: Path) -> None:
    async with site(tmp_path, wait=1.0) as here:
        stub = here.nodes.of_zone[ZONE].registry
        records = [make_record(f"{ZONE}/B-{n}", {"lot": "L1"}) for n in range(40)]
        items = [
            registry_pb2.RegisterRequest(idempotency_key=f"batch-key-{n}", record=wire.record_to_pb(one))
            for n, one in enumerate(records)
        ]
        items.append(registry_pb2.RegisterRequest(idempotency_key="batch-none", record=wire.record_to_pb(records[0])))
        request = registry_pb2.RegisterBatchRequest(items=items, wait_for=WITNESSED)
        results = (await stub.RegisterBatch(request, timeout=TIMEOUT)).results
        assert [one.WhichOneof("result") for one in results] == ["receipt"] * 40 + ["error"]
        assert {one.receipt.level for one in results[:40]} == {WITNESSED}
        for record, one in zip(records, results, strict=False):
            assert here.is_witnessed(one.receipt, record)
        await here.down(1)
        for n, item in enumerate(items):
            item.idempotency_key, later = f"later-key-{n}", make_record(f"{ZONE}/C-{n}", {"lot": "L1"})
            item.record.CopyFrom(wire.record_to_pb(later))
        began = time.monotonic()
        request = registry_pb2.RegisterBatchRequest(items=items, wait_for=WITNESSED)
        results = (await stub.RegisterBatch(request, timeout=TIMEOUT)).results
        assert time.monotonic() - began < 5.0, "one wait of a second, and not forty-one"
        assert {one.receipt.level for one in results} == {SEQUENCED}


async def test_a_sealed_batch_is_answered_under_the_checkpoint_that_the_quorum_has_seen(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        records = [make_record(f"{ZONE}/S-{n}", {"lot": "L1"}) for n in range(5)]
        key = signer(key_name(Role.RECORD, ZONE))
        places = seal([one.hash for one in records], Prefix.parse(ZONE), key, issued_at=int(time.time()))
        items = [
            registry_pb2.SealedItem(payload=one.signed.payload, values=wire.record_to_pb(one).values) for one in records
        ]
        request = registry_pb2.RegisterSealedRequest(
            idempotency_key="sealed-batch", seal=wire.signed_to_pb(places[0].seal), items=items, wait_for=WITNESSED
        )
        stub = here.nodes.of_zone[ZONE].registry
        answer = await stub.RegisterSealed(request, timeout=TIMEOUT)
        assert answer.level == WITNESSED
        note = Note.parse(answer.checkpoint)
        assert here.policy.witnessing(note, now=int(time.time())).met
        assert Checkpoint.parse(note.text).size >= max(one.log_position for one in answer.results)
        request.wait_for = SEQUENCED
        plain = await stub.RegisterSealed(request, timeout=TIMEOUT)
        assert (plain.level, list(plain.results)) == (SEQUENCED, list(answer.results))
        assert not here.policy.witnessing(Note.parse(plain.checkpoint), now=int(time.time())).met


async def test_without_witnesses_a_receipt_is_sequenced_and_without_a_log_it_names_no_level(tmp_path: Path) -> None:
    async with site(tmp_path, with_witnesses=False) as here:
        began = time.monotonic()
        record, receipt = await here.register("N-1")
        assert receipt.level == SEQUENCED
        proven(receipt, record)
        node = here.nodes.of_zone["88"].registry
        request = registry_pb2.RegisterRequest(
            idempotency_key="no-log-here",
            record=wire.record_to_pb(make_record("88/N-1", {"lot": "L1"})),
            wait_for=WITNESSED,
        )
        answer = (await node.Register(request, timeout=TIMEOUT)).receipt
        assert (answer.level, answer.HasField("proof")) == (pb.RECEIPT_LEVEL_UNSPECIFIED, False)
        assert time.monotonic() - began < TIMEOUT


async def test_a_level_that_there_is_not_is_refused_before_anything_is_committed(tmp_path: Path) -> None:
    async with site(tmp_path, with_witnesses=False) as here:
        record = make_record(f"{ZONE}/N-1", {"lot": "L1"})
        request = registry_pb2.RegisterRequest(
            idempotency_key="register-N-1",
            record=wire.record_to_pb(record),
            wait_for=cast("pb.ReceiptLevel.ValueType", 7),
        )
        refused = await reason_of(here.nodes.of_zone[ZONE].registry.Register(request, timeout=TIMEOUT))
        assert refused == (Reason.FIELD_MALFORMED, "wait_for")
        again = await here.send(make_record(f"{ZONE}/N-2", {"lot": "L1"}), "register-N-1", SEQUENCED)
        assert again.level == SEQUENCED, "the key was not used"


async def test_a_node_that_stops_answers_those_who_wait(tmp_path: Path) -> None:
    async with site(tmp_path, wait=20.0, drain_seconds=10.0) as here:
        await here.register("N-0")
        await here.down(1)
        waiting = asyncio.create_task(here.register("N-1", seconds=25.0))
        await asyncio.sleep(1.0)
        assert not waiting.done()
        began = time.monotonic()
        here.nodes.of_zone[ZONE].stop.set()
        _, receipt = await waiting
        assert receipt.level == SEQUENCED
        assert time.monotonic() - began < 5.0


async def test_what_an_earlier_policy_called_witnessed_is_not_called_so_by_a_stricter_one(tmp_path: Path) -> None:
    async with site(tmp_path, wait=0.5) as here:
        record, receipt = await here.witnessed("N-1")
        node = here.nodes.of_zone[ZONE]
        await node.end()
        third = KnownWitness("w3", witness_signer(3).key, f"http://127.0.0.1:{free_port()}")
        members = (*here.policy.witnesses, third)
        stricter = LogPolicy(here.policy.logs, members, (Group("all", 3, ("w1", "w2", "w3")),), "all")
        (tmp_path / "policy").write_bytes(stricter.encode())
        await node.start()
        again = await here.send(record, "register-N-1", WITNESSED)
        assert (again.level, again.signed) == (SEQUENCED, receipt.signed)
        (tmp_path / "policy").write_bytes(here.policy.encode())
        await node.end()
        await node.start()
        assert (await here.send(record, "register-N-1", WITNESSED)).level == WITNESSED


async def test_a_checkpoint_by_the_logs_earlier_key_makes_no_receipt_witnessed(tmp_path: Path) -> None:
    async with site(tmp_path, wait=0.5) as here:
        record, _ = await here.witnessed("N-1")
        node = here.nodes.of_zone[ZONE]
        await node.end()
        write_private_key(tmp_path / "next.key", private_key("next log key"), None)
        assert node.config.log is not None
        node.config = replace(node.config, log=replace(node.config.log, key=tmp_path / "next.key"))
        await node.start()  # the witnesses do not know this key and cosign nothing by it
        # nor does the delegation name it: whoever verifies from the root would not believe its proof
        assert (await here.send(record, "register-N-1", WITNESSED)).level == pb.RECEIPT_LEVEL_UNSPECIFIED

"""A real node with a log: whatever it commits is logged and provable, and what it says of its records can be held."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from idtrace import wire
from idtrace.audit import Replay
from idtrace.bundle import Bundle, Denied, Verdict
from idtrace.chain import Context
from idtrace.checkpoint import Checkpoint
from idtrace.delegation import Role, State, ZoneKey
from idtrace.entry import LOGGED_BODY_BYTES_MAX, Entry, EntryKind
from idtrace.errors import InputError, Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.logpolicy import KnownLog, LogPolicy
from idtrace.logproof import LogProof, check_logged, check_recorded
from idtrace.merkle import hash_leaf
from idtrace.note import Note, NoteKey
from idtrace.record import Record, RecordKind, Status
from idtrace.serving.keyfile import write_private_key
from idtrace.statements import Currency, Denial, PrefixStatus, enrol
from idtrace.tlogproof import verify_proof
from idtrace.v1 import registry_pb2
from idtrace.verification import verify_bundle
from registry.authority import verified
from registry.config import LogConfig
from registry.storage_sqlite import SqliteStorage
from tests.core_fixtures import signer
from tests.integration.test_registry import reason_of
from tests.nodes import TIMEOUT, Node, Nodes, key_name, make_record, private_key

ZONE = "88.118"
LOG = "log.example/88.118"
SECOND = "second record key"
KEYS = (Role.ZONE, Role.RECORD, Role.NODE, Role.CURRENCY, Role.LOG)
LOG_KEY = NoteKey.of(LOG, signer(key_name(Role.LOG, ZONE)).public_key.raw)
POLICY = LogPolicy((KnownLog(LOG_KEY),), (), (), "none")


def zone_keys(*more: ZoneKey) -> tuple[ZoneKey, ...]:
    return (*(ZoneKey(signer(key_name(role, ZONE)).public_key, frozenset({role})) for role in KEYS), *more)


class LoggedNodes(Nodes):
    """Nodes whose zone 88.118 has a log, and keys for it."""

    def delegation(self, zone: str, endpoints: tuple[str, ...], node_key_zone: str, **changes: Any) -> Any:
        given = {"keys": zone_keys(), "log": LOG} if zone == ZONE and changes.get("state") is not State.REVOKED else {}
        return super().delegation(zone, endpoints, node_key_zone, **given | changes)

    def enrolments(self, body: Any, node_key_zone: str) -> Any:
        names = [*(key_name(role, str(body.child)) for role in KEYS), key_name(Role.NODE, node_key_zone), SECOND]
        by_id = {signer(name).public_key.key_id: signer(name) for name in names}
        return [enrol(by_id[k.key.key_id], body.child, role) for k in body.keys for role in k.roles]


@asynccontextmanager
async def tree(folder: Path) -> AsyncIterator[LoggedNodes]:
    for role in (Role.LOG, Role.CURRENCY):
        write_private_key(folder / f"{role}.key", private_key(key_name(role, ZONE)), None)
    async with LoggedNodes(folder) as nodes:
        await nodes.registry("")
        await nodes.registry("88")
        await nodes.registry(ZONE, log={"origin": LOG, "key": "log.key", "currency_key": "currency.key"})
        yield nodes


@dataclass
class Read:
    """A node's log as it lies in its store."""

    entries: list[bytes]
    note: bytes

    @classmethod
    async def of(cls, node: Node) -> Read:
        store = SqliteStorage(node.config.data / "registry.sqlite3")
        try:
            edge = await store.log_edge()
            return cls(await store.log_entries(0, 10_000), edge.head.note)
        finally:
            await store.close()

    @property
    def kinds(self) -> list[EntryKind]:
        return [Entry.from_bytes(entry).kind for entry in self.entries]

    def replay(self) -> Replay:
        above = signer(key_name(Role.ZONE, "88")).public_key
        replay = Replay(outside={Prefix.parse("88"): {above.key_id: above}})
        replay.feed(self.entries)
        replay.end()
        checkpoint = Checkpoint.parse(Note.parse(self.note).text)
        assert (checkpoint.size, checkpoint.root) == (replay.size, replay.range.root())
        return replay


async def update(nodes: Nodes, record: Record, key: str) -> registry_pb2.UpdateResponse:
    request = registry_pb2.UpdateRequest(idempotency_key=key, record=wire.record_to_pb(record))
    return await nodes.of_zone[ZONE].registry.Update(request, timeout=TIMEOUT)


def proven(receipt: Any, record: Record) -> LogProof:
    """The receipt's proof, which an auditor who knows the log's key alone has verified."""
    proof = wire.proof_from_pb(receipt.proof)
    leaf = hash_leaf(proof.head + record.signed.payload)
    report = verify_proof(proof.to_text(), leaf, POLICY, now=int(time.time()))
    assert report.valid, report.checks
    return proof


async def test_whatever_a_node_commits_is_in_its_log_and_the_log_has_no_finding(tmp_path: Path) -> None:
    async with tree(tmp_path) as nodes:
        first = make_record(f"{ZONE}/A", {"lot": "L1"})
        receipts = [((await nodes.submit(first, "register-A")).receipt, first)]
        recall = make_record(f"{ZONE}/A", {"lot": "L1"}, previous=first, status=Status.RECALLED)
        receipts.append(((await update(nodes, recall, "recall-A1")).receipt, recall))
        end = make_record(f"{ZONE}/A", previous=recall, kind=RecordKind.TOMBSTONE, status=Status.RETIRED)
        request = registry_pb2.RetireRequest(idempotency_key="retire-A", record=wire.record_to_pb(end))
        retired = await nodes.of_zone[ZONE].registry.Retire(request, timeout=TIMEOUT)
        receipts.append((retired.receipt, end))
        await nodes.host("88.118.9", at=ZONE)
        below = make_record("88.118.9/B", {"lot": "L2"})
        receipts.append(((await nodes.submit(below, "register-B")).receipt, below))
        await nodes.set_status("88.118.9", PrefixStatus.DISABLED, "disable-9")
        await nodes.delegate(
            ZONE,
            (nodes.of_zone[ZONE].endpoint,),
            node_key_zone=ZONE,
            keys=zone_keys(ZoneKey(signer(SECOND).public_key, frozenset({Role.RECORD}))),
        )
        await nodes.until_adopted(nodes.of_zone[ZONE], ZONE, version=2)
        by_new = make_record(f"{ZONE}/C", by=signer(SECOND))
        receipts.append(((await nodes.submit(by_new, "register-C")).receipt, by_new))
        read = await Read.of(nodes.of_zone[ZONE])
        kinds = "keys record record record delegation record command keys record"
        assert " ".join(read.kinds) == kinds
        replay = read.replay()
        assert replay.findings == []
        assert replay.identifiers == 3
        assert [proven(receipt, record).index for receipt, record in receipts] == [1, 2, 3, 5, 8]


async def test_a_refused_write_leaves_nothing_in_the_log(tmp_path: Path) -> None:
    async with tree(tmp_path) as nodes:
        await nodes.register(f"{ZONE}/A")
        assert (await reason_of(nodes.submit(make_record(f"{ZONE}/A"), "another-key")))[0] is Reason.IDENTIFIER_TAKEN
        assert (await Read.of(nodes.of_zone[ZONE])).kinds == [EntryKind.KEYS, EntryKind.RECORD]


async def test_a_repetition_gives_the_very_same_receipt_though_the_log_has_grown(tmp_path: Path) -> None:
    async with tree(tmp_path) as nodes:
        record = make_record(f"{ZONE}/A", {"lot": "L1"})
        first = (await nodes.submit(record, "register-A")).SerializeToString(deterministic=True)
        for n in range(5):
            await nodes.register(f"{ZONE}/N-{n}")
        node = nodes.of_zone[ZONE]
        assert (await nodes.submit(record, "register-A")).SerializeToString(deterministic=True) == first
        await node.end()
        await node.start()
        assert (await nodes.submit(record, "register-A")).SerializeToString(deterministic=True) == first


async def test_every_receipt_of_a_batch_is_proven_under_the_checkpoint_of_its_commit(tmp_path: Path) -> None:
    async with tree(tmp_path) as nodes:
        records = [make_record(f"{ZONE}/N-{n}", {"lot": "L1"}) for n in range(300)]
        records[7] = make_record(f"{ZONE}/N-8")  # taken by the next one, or takes it
        items = [
            registry_pb2.RegisterRequest(idempotency_key=f"batch-{n}-key", record=wire.record_to_pb(record))
            for n, record in enumerate(records)
        ]
        request = registry_pb2.RegisterBatchRequest(items=items)
        results = (await nodes.of_zone[ZONE].registry.RegisterBatch(request, timeout=TIMEOUT)).results
        pairs = zip(results, records, strict=True)
        won = [(result.receipt, record) for result, record in pairs if result.HasField("receipt")]
        assert len(won) == 299
        assert [proven(receipt, record).index for receipt, record in won] == list(range(1, 300))
        again = (await nodes.of_zone[ZONE].registry.RegisterBatch(request, timeout=TIMEOUT)).results
        assert [r.receipt for r in again if r.HasField("receipt")] == [receipt for receipt, _ in won]


async def test_an_answer_is_proven_current_and_kept_as_a_bundle(tmp_path: Path) -> None:
    async with tree(tmp_path) as nodes:
        first = await nodes.register(f"{ZONE}/A", {"lot": "L1"})
        answer = await nodes.get(f"{ZONE}/A")
        assert answer.proof is not None
        assert answer.currency is not None
        context = Context.at(int(time.time()))
        chain = verified(nodes.anchor, answer.delegations, context)
        name = Identifier.parse(f"{ZONE}/A")
        check_recorded(first, name, chain, context, proof=answer.proof, currency=answer.currency)
        said = Currency.parse(answer.currency.payload)
        assert (said.version, said.log_size) == (1, 2)
        assert answer.currency.signatures[0].key_id == signer(key_name(Role.CURRENCY, ZONE)).public_key.key_id
        bundle = Bundle(name, answer.delegations, answer.outcome, answer.proof, answer.currency)
        report = verify_bundle(bundle, nodes.anchor, now=int(time.time()), policy=POLICY)
        assert (report.verdict, [check.made for check in report.checks]) == (Verdict.FOUND, [True] * len(report.checks))
        assert (await nodes.get(f"{ZONE}/A")).currency == answer.currency  # signed once in half a minute
        recall = make_record(f"{ZONE}/A", {"lot": "L1"}, previous=first, status=Status.RECALLED)
        await update(nodes, recall, "recall-A1")
        after = await nodes.get(f"{ZONE}/A")
        assert Currency.parse(after.currency.payload).version == 2
        check_recorded(recall, name, chain, context, proof=after.proof, currency=after.currency)
        old = await nodes.get(f"{ZONE}/A", version=1)
        assert old.currency is None
        assert check_logged(old.proof, first, chain, context).index == 1
        named = await nodes.get(f"{ZONE}/A", version=2)
        assert named.currency is not None
        read = await Read.of(nodes.of_zone[ZONE])
        replay = read.replay()
        assert [replay.against(one) for one in (said, Currency.parse(after.currency.payload))] == [None, None]


async def test_a_denial_names_the_size_of_the_log_and_is_signed_by_the_currency_key(tmp_path: Path) -> None:
    async with tree(tmp_path) as nodes:
        await nodes.register(f"{ZONE}/A")
        absent = f"{ZONE}/none"
        answer = await nodes.get(absent)
        assert isinstance(answer.outcome, Denied)
        context = Context.at(int(time.time()))
        chain = verified(nodes.anchor, answer.delegations, context)
        denial = chain.check_denial(answer.outcome.signed, Identifier.parse(absent), context)
        assert denial.log_size == 2
        await nodes.register(absent)
        replay = (await Read.of(nodes.of_zone[ZONE])).replay()
        assert replay.against(denial) is None


async def test_no_statement_is_ever_contradicted_by_the_log_while_versions_follow_each_other(tmp_path: Path) -> None:
    async with tree(tmp_path) as nodes:
        said: list[Currency | Denial] = []
        names = [f"{ZONE}/H-{n}" for n in range(3)]
        written = asyncio.Event()

        async def write(name: str) -> None:
            last = await nodes.register(name, {"lot": "0"})
            for n in range(1, 12):
                record = make_record(name, {"lot": str(n)}, previous=last)
                await update(nodes, record, f"next-{name}-{n}")
                last = record

        async def ask(name: str) -> None:
            while not written.is_set():
                answer = await nodes.get(name)
                if isinstance(answer.outcome, Denied):
                    said.append(Denial.parse(answer.outcome.signed.payload))
                elif answer.currency is not None:
                    said.append(Currency.parse(answer.currency.payload))

        asking = [asyncio.create_task(ask(name)) for name in names for _ in range(2)]
        await asyncio.gather(*map(write, names))
        written.set()
        await asyncio.gather(*asking)
        replay = (await Read.of(nodes.of_zone[ZONE])).replay()
        assert [finding for finding in map(replay.against, said) if finding is not None] == []
        assert len({(type(one), one.log_size) for one in said}) > 5


async def test_a_zone_that_does_not_name_the_log_is_shown_no_proof_and_its_answers_hold(tmp_path: Path) -> None:
    async with tree(tmp_path) as nodes:
        await nodes.host("88.118.9", at=ZONE)
        record = make_record("88.118.9/B")
        receipt = (await nodes.submit(record, "register-B")).receipt
        proven(receipt, record)  # the registrant gets it; whoever resolves would have no key to believe it by
        answer = await nodes.get("88.118.9/B")
        assert (answer.proof, answer.currency) == (None, None)
        denied = await nodes.get("88.118.9/none")
        context = Context.at(int(time.time()))
        chain = verified(nodes.anchor, denied.delegations, context)
        assert chain.check_denial(denied.outcome.signed, Identifier.parse("88.118.9/none"), context).log_size is None


async def test_a_body_that_no_entry_holds_is_refused_where_there_is_a_log(tmp_path: Path) -> None:
    async with tree(tmp_path) as nodes:
        many = {f"{n:03}{'t' * 125}": "x" for n in range(255)}
        record = make_record(f"{ZONE}/large", many)
        assert LOGGED_BODY_BYTES_MAX < len(record.signed.payload) <= 65_536
        assert await reason_of(nodes.submit(record, "register-large")) == (
            Reason.FIELD_TOO_LARGE,
            "record.signed.payload",
        )
        assert (await Read.of(nodes.of_zone[ZONE])).kinds == [EntryKind.KEYS]
        # A node without a log takes it.
        same = make_record("88/large", many)
        await nodes.submit(same, "register-large")


async def test_a_log_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with tree(tmp_path) as nodes:
        node = nodes.of_zone[ZONE]
        await nodes.register(f"{ZONE}/A")
        before = await Read.of(node)
        await node.end()
        await node.start()
        await nodes.register(f"{ZONE}/B")
        after = await Read.of(node)
        assert after.entries[: len(before.entries)] == before.entries
        assert after.kinds == [EntryKind.KEYS, EntryKind.RECORD, EntryKind.RECORD]
        assert after.replay().findings == []


async def test_a_log_that_is_begun_later_begins_with_the_keys_of_the_zones_that_are_held(tmp_path: Path) -> None:
    for role in (Role.LOG, Role.CURRENCY):
        write_private_key(tmp_path / f"{role}.key", private_key(key_name(role, ZONE)), None)
    async with LoggedNodes(tmp_path) as nodes:
        await nodes.registry("")
        await nodes.registry("88")
        node = await nodes.registry(ZONE)
        assert (await Read.of(node)).entries == []
        await node.end()
        log = LogConfig(LOG, tmp_path / "log.key", tmp_path / "currency.key")
        node.config = replace(node.config, log=log)
        await node.start()
        await nodes.register(f"{ZONE}/A")
        read = await Read.of(node)
        assert read.kinds == [EntryKind.KEYS, EntryKind.RECORD]
        assert read.replay().findings == []


async def test_the_nodes_own_key_is_no_key_for_its_log(tmp_path: Path) -> None:
    async with tree(tmp_path) as nodes:
        node = nodes.of_zone[ZONE]
        await node.end()
        node.config = replace(node.config, log=LogConfig(LOG, node.config.node_key, node.config.node_key))
        with pytest.raises(InputError) as caught:
            await node.start()
        assert (caught.value.reason, caught.value.field) == (Reason.FIELD_MALFORMED, "log.key")
        node.task = None

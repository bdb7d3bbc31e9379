"""A registry node over real gRPC and SQLite: what it takes, what it refuses, what it answers."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from idtrace import wire
from idtrace.bundle import Denied, Referred
from idtrace.chain import Context, TrustedChain
from idtrace.delegation import State
from idtrace.errors import Reason
from idtrace.identifier import Identifier
from idtrace.record import Record, RecordBody, RecordKind, Status
from idtrace.serving.errors import error_from_rpc
from idtrace.statements import DenialReason, PrefixStatus
from idtrace.template import FieldType, Template, TemplateField
from idtrace.v1 import registry_pb2
from registry.authority import verified
from tests.core_fixtures import signer
from tests.nodes import TIMEOUT, Nodes, make_record


async def reason_of(call: object) -> tuple[Reason, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]  # any awaitable
    error = error_from_rpc(caught.value)
    assert error is not None, caught.value
    return error.reason, error.field


async def tree(folder: Path) -> Nodes:
    nodes = Nodes(folder)
    await nodes.registry("")
    await nodes.registry("88")
    await nodes.registry("88.118")
    await nodes.registry("88.118.8")
    await nodes.host("88.118.9", at="88.118")
    return nodes


async def test_a_tree_registers_and_answers_with_verifiable_proof(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        for name in ("88.118.8/SN-1", "88.118.9/SN-1", "88.118/of-the-secondary", "88.118.7/undelegated"):
            record = make_record(
                name, {"lot": "L1"}, by=signer(f"record of {nodes.parent_zone(name.replace('/', '.'))}")
            )
            response = await nodes.submit(record, f"key-{name}")
            answer = await nodes.get(name)
            assert answer.outcome == record
            context = Context.at(record_time(record))
            chain = verified(nodes.anchor, answer.delegations, context)
            chain.check_record(record, Identifier.parse(name), context)
            chain.check_receipt(wire.signed_from_pb(response.receipt.signed, "receipt"), record, context)


def record_time(record: Record) -> int:
    return RecordBody.parse(record.signed.payload).issued_at


async def test_each_node_refers_strictly_down_and_denies_with_a_signature(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        question = "88.118.8/SN-404"
        visited = []
        for zone, known in (("", None), ("88", ""), ("88.118", "88")):
            answer = await nodes.get(question, nodes.of_zone[zone], **({} if known is None else {"known_zone": known}))
            assert isinstance(answer.outcome, Referred)
            visited.append((zone, str(answer.outcome.zone), len(answer.delegations)))
        assert visited == [("", "88", 2), ("88", "88.118", 2), ("88.118", "88.118.8", 2)]
        answer = await nodes.get(question)
        assert isinstance(answer.outcome, Denied)
        chain = verified(nodes.anchor, answer.delegations, Context.at(_now()))
        denial = chain.check_denial(answer.outcome.signed, Identifier.parse(question), Context.at(_now()))
        assert denial.reason is DenialReason.IDENTIFIER_ABSENT
        code = await reason_of(nodes.get("99.1/x", nodes.of_zone["88"]))
        assert code == (Reason.NOT_AUTHORITATIVE, "identifier")


def _now() -> int:
    return int(time.time())


async def test_known_zone_spares_what_the_asker_holds(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        await nodes.register("88.118.9/SN-1")
        node = nodes.of_zone["88.118"]
        for known, links in (("", 3), ("88", 2), ("88.118", 1), ("88.118.9", 0), ("88.7", 4)):
            assert len((await nodes.get("88.118.9/SN-1", node, known_zone=known)).delegations) == links


async def test_life_of_an_identifier(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        stub = nodes.of_zone["88.118.8"].registry
        first = await nodes.register("88.118.8/A", {"lot": "L1"})

        async def update(record: Record, key: str) -> None:
            request = registry_pb2.UpdateRequest(idempotency_key=key, record=wire.record_to_pb(record))
            await stub.Update(request, timeout=TIMEOUT)

        second = make_record("88.118.8/A", {"lot": "L1"}, previous=first, status=Status.RECALLED)
        await update(second, "update-to-2")
        assert (await nodes.get("88.118.8/A")).outcome == second
        assert (await nodes.get("88.118.8/A", version=1)).outcome == first
        assert await reason_of(nodes.get("88.118.8/A", version=9)) == (Reason.VERSION_UNKNOWN, "version")
        assert isinstance((await nodes.get("88.118.8/none", version=9)).outcome, Denied)
        assert await reason_of(update(second, "update-again")) == (Reason.VERSION_GAP, "record.version")
        gap = make_record("88.118.8/A", previous=second, version=4)
        assert (await reason_of(update(gap, "update-gap")))[0] is Reason.VERSION_GAP
        fork = make_record("88.118.8/A", previous=first, version=3)
        assert (await reason_of(update(fork, "update-fork")))[0] is Reason.PREVIOUS_HASH_MISMATCH
        kind = make_record("88.118.8/A", previous=second, kind=RecordKind.BLOCK)
        assert (await reason_of(update(kind, "update-kind")))[0] is Reason.KIND_CHANGED
        missing = make_record("88.118.8/B", previous=second)
        assert (await reason_of(update(missing, "update-none")))[0] is Reason.IDENTIFIER_UNKNOWN
        end = make_record("88.118.8/A", previous=second, kind=RecordKind.TOMBSTONE, status=Status.RETIRED)
        retire = registry_pb2.RetireRequest(idempotency_key="retire-A", record=wire.record_to_pb(end))
        await stub.Retire(retire, timeout=TIMEOUT)
        again = make_record("88.118.8/A", {"lot": "L2"})
        assert (await reason_of(nodes.submit(again, "again-key")))[0] is Reason.IDENTIFIER_RETIRED
        taken = await nodes.register("88.118.8/B")
        assert taken
        other = make_record("88.118.8/B", {"lot": "other"})
        assert (await reason_of(nodes.submit(other, "other-key")))[0] is Reason.IDENTIFIER_TAKEN


async def test_the_same_key_gives_the_same_receipt_and_another_request_is_refused(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        record = make_record("88.118.8/A", {"lot": "L1"})
        first = await nodes.submit(record, "same-key")
        assert (await nodes.submit(record, "same-key")) == first
        other = make_record("88.118.8/C", {"lot": "L1"})
        code = await reason_of(nodes.submit(other, "same-key"))
        assert code == (Reason.IDEMPOTENCY_KEY_REUSED, "idempotency_key")


@pytest.mark.parametrize(
    ("record", "key", "reason"),
    [
        (lambda: make_record("88.118.8/A"), "", Reason.FIELD_MISSING),
        (lambda: make_record("88.118.8/A"), "short", Reason.FIELD_MALFORMED),
        (lambda: make_record("88.118.8/A", by=signer("thief")), "key-12345", Reason.SIGNER_UNKNOWN),
        (lambda: make_record("88.118.8/A", by=signer("record of 88.118.9")), "key-12345", Reason.SIGNER_UNKNOWN),
        (lambda: make_record("88.118.8/A", by=signer("node of 88.118.8")), "key-12345", Reason.SIGNER_UNKNOWN),
        (lambda: make_record("88.118.8/A", issued_at=_now() + 3600), "key-12345", Reason.RECORD_FROM_FUTURE),
        (lambda: make_record("88.118.8/A", issued_at=_now() - 9 * 86400), "key-12345", Reason.ISSUED_AT_IMPLAUSIBLE),
        (lambda: Record(make_record("88.118.8/A", {"a": "b"}).signed, ()), "key-12345", Reason.VALUE_MISSING),
        (lambda: make_record("88.118.8/A", ttl_seconds=172_801), "key-12345", Reason.FIELD_MALFORMED),
    ],
)
async def test_what_is_refused_names_the_reason(tmp_path: Path, record: object, key: str, reason: Reason) -> None:
    async with await tree(tmp_path) as nodes:
        assert callable(record)
        code, _ = await reason_of(nodes.submit(record(), key, node=nodes.of_zone["88.118.8"]))
        assert code is reason


async def test_one_bad_item_never_sinks_a_batch(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        records = [make_record(f"88.118.8/N-{n}") for n in range(50)]
        records[7] = make_record("88.118.8/N-7", by=signer("thief"))
        records[8] = make_record("88.118.8/N-9")
        items = [
            registry_pb2.RegisterRequest(idempotency_key=f"batch-{n:04}", record=wire.record_to_pb(record))
            for n, record in enumerate(records)
        ]
        items[20].record.signed.payload = b"\xff"
        stub = nodes.of_zone["88.118.8"].registry
        request = registry_pb2.RegisterBatchRequest(items=items)
        results = (await stub.RegisterBatch(request, timeout=TIMEOUT)).results
        errors = {n: result.error.reason for n, result in enumerate(results) if result.HasField("error")}
        assert errors == {7: "SIGNER_UNKNOWN", 9: "IDENTIFIER_TAKEN", 20: "FIELD_MISSING"}
        again = (await stub.RegisterBatch(request, timeout=TIMEOUT)).results
        assert list(again) == list(results)
        too_many = registry_pb2.RegisterBatchRequest(items=[items[0]] * 2001)
        assert await reason_of(stub.RegisterBatch(too_many, timeout=TIMEOUT)) == (Reason.BATCH_TOO_LARGE, "items")


async def test_classes_are_templates(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        base = Template((TemplateField("maker", FieldType.TEXT, required=True, unique=False),), open=False)
        vaccine = Template(
            (
                TemplateField("lot", FieldType.TEXT, required=True, unique=False),
                TemplateField("serial", FieldType.TEXT, required=False, unique=True),
                TemplateField("expiry", FieldType.DATE, required=False, unique=False),
            ),
            open=False,
        )
        class_of: Any = {"kind": RecordKind.CLASS}
        base_id, vaccine_id = Identifier.parse("88.118.8/class.base"), Identifier.parse("88.118.8/class.vaccine")
        item = {"maker": "M", "lot": "L1", "serial": "S1", "expiry": "2027-01-31"}
        unknown = make_record("88.118.8/I-0", item, class_id=vaccine_id)
        assert await reason_of(nodes.submit(unknown, "item-key-0")) == (Reason.CLASS_UNKNOWN, "record.class")
        await nodes.register(str(base_id), {"idtrace.template": base.payload().decode()}, **class_of)
        await nodes.register(
            str(vaccine_id), {"idtrace.template": vaccine.payload().decode()}, class_id=base_id, **class_of
        )
        await nodes.submit(make_record("88.118.8/I-1", item, class_id=vaccine_id), "item-key-1")
        for n, (values, reason, field) in enumerate(
            [
                (item | {"serial": "S1"}, Reason.CLASS_FIELD_NOT_UNIQUE, "values.serial"),
                ({"lot": "L1"}, Reason.CLASS_FIELD_REQUIRED, "values.maker"),
                (item | {"serial": "S2", "expiry": "2027-02-30"}, Reason.CLASS_FIELD_TYPE, "values.expiry"),
                (item | {"serial": "S2", "colour": "red"}, Reason.CLASS_FIELD_UNKNOWN, "values.colour"),
            ]
        ):
            broken = make_record(f"88.118.8/J-{n}", values, class_id=vaccine_id)
            assert await reason_of(nodes.submit(broken, f"broken-key-{n}")) == (reason, field)
        malformed = make_record("88.118.8/class.bad", {"idtrace.template": "{}"}, **class_of)
        assert (await reason_of(nodes.submit(malformed, "class-bad-key")))[1].startswith("template")


async def test_restricted_values_never_leave_the_node(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        record = await nodes.register("88.118.8/A", {"lot": "L1", "price": "12.50"}, restricted=("price",))
        answer = await nodes.get("88.118.8/A")
        assert [value.data for value in answer.outcome.values] == [b"L1"]
        context = Context.at(_now())
        chain: TrustedChain = verified(nodes.anchor, answer.delegations, context)
        assert chain.check_record(answer.outcome, Identifier.parse("88.118.8/A"), context).withheld == (2,)
        assert len(record.values) == 2


async def test_a_recall_carries_over_what_its_owner_cannot_read_back(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        first = await nodes.register("88.118.8/A", {"lot": "L1", "price": "12.50"}, restricted=("price",))
        body = RecordBody.parse(first.signed.payload)
        recalled = make_record("88.118.8/A", previous=first, status=Status.RECALLED, kept=body.values)
        stub = nodes.of_zone["88.118.8"].registry

        async def update(record: Record, key: str) -> None:
            request = registry_pb2.UpdateRequest(idempotency_key=key, record=wire.record_to_pb(record))
            await stub.Update(request, timeout=TIMEOUT)

        changed = replace(body.values[1], digest=bytes(32))
        other = make_record("88.118.8/A", previous=first, kept=(body.values[0], changed))
        assert await reason_of(update(other, "update-other")) == (Reason.VALUE_MISSING, "record.values")
        await update(Record(recalled.signed, first.values[:1]), "update-recall")
        answer = await nodes.get("88.118.8/A")
        assert [value.data for value in answer.outcome.values] == [b"L1"]
        again = make_record("88.118.8/A", previous=recalled, kept=body.values)
        await update(Record(again.signed, ()), "update-active")


async def test_a_disabled_prefix_is_denied_and_takes_no_writes_until_it_is_enabled_again(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        await nodes.register("88.118.9/A")
        await nodes.set_status("88.118.9", PrefixStatus.DISABLED, "disable-1", "no licence")
        answer = await nodes.get("88.118.9/A", nodes.of_zone["88.118"])
        chain = verified(nodes.anchor, answer.delegations, Context.at(_now()))
        denial = chain.check_denial(answer.outcome.signed, Identifier.parse("88.118.9/A"), Context.at(_now()))
        assert denial.reason is DenialReason.PREFIX_DISABLED
        code, _ = await reason_of(nodes.submit(make_record("88.118.9/B"), "key-12345"))
        assert code is Reason.PREFIX_NOT_ENABLED
        await nodes.set_status("88.118.9", PrefixStatus.ENABLED, "enable-01")
        await nodes.register("88.118.9/B")
        assert (await reason_of(nodes.set_status("88.118.9", PrefixStatus.IN_REVIEW, "review-01")))[0] is (
            Reason.PREFIX_STATUS_TRANSITION
        )


async def test_what_was_committed_keeps_its_receipt_whatever_becomes_of_its_prefix(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        host = nodes.of_zone["88.118"]
        record = make_record("88.118.9/A", {"lot": "L1"})
        first = await nodes.submit(record, "key-of-A1")
        await nodes.set_status("88.118.9", PrefixStatus.DISABLED, "disable-1")
        assert await nodes.submit(record, "key-of-A1") == first
        other = await reason_of(nodes.submit(make_record("88.118.9/A", {"lot": "L2"}), "key-of-A1"))
        assert other == (Reason.PREFIX_NOT_ENABLED, "record.identifier")
        await nodes.set_status("88.118.9", PrefixStatus.ENABLED, "enable-01")
        moved = nodes.delegate("88.118.9", ("127.0.0.1:9",), node_key_zone="88.118", hosted=False)
        assert await reason_of(moved) == (Reason.ZONE_DELEGATED, "delegation.hosted")
        await nodes.delegate("88.118.9", (), node_key_zone="88.118", hosted=False, state=State.REVOKED, keys=())
        assert await nodes.submit(record, "key-of-A1", node=host) == first
        thief = make_record("88.118.9/A", {"lot": "L1"}, by=signer("thief"))
        assert (await reason_of(nodes.submit(thief, "key-of-A1", node=host)))[0] is Reason.ZONE_DELEGATED


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        record = await nodes.register("88.118.9/A", {"lot": "L1"})
        await nodes.set_status("88.118.9", PrefixStatus.DISABLED, "disable-1")
        await nodes.set_status("88.118.9", PrefixStatus.ENABLED, "enable-01")
        node = nodes.of_zone["88.118"]
        await node.end()
        await node.start()
        assert (await nodes.get("88.118.9/A")).outcome == record
        response = await nodes.submit(record, "key-88.118.9/A")
        assert response.receipt.signed.payload


async def test_a_call_without_a_deadline_is_refused(tmp_path: Path) -> None:
    async with Nodes(tmp_path) as nodes:
        node = await nodes.registry("")
        request = registry_pb2.RegistryServiceGetRequest(identifier="88/x")
        assert await reason_of(node.registry.Get(request)) == (Reason.DEADLINE_MISSING, "grpc-timeout")

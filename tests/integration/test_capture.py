"""Events captured at real nodes: what is kept is found and proven, and what is refused leaves nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from idtrace import wire
from idtrace.epcis.model import EventType
from idtrace.epcis.statement import EVENT_TYPE, event_identifier, join
from idtrace.errors import InputError, Reason, RefusedError
from idtrace.identifier import Prefix
from idtrace.party import PartyRole
from idtrace.record import Permission, Record, RecordBody, Status
from idtrace.serving.keyfile import write_private_key
from idtrace.v1 import capture_pb2, capture_pb2_grpc, registry_pb2, resolver_pb2, resolver_pb2_grpc
from idtrace.verification import verify_bundle
from registry.capturing import Capturing
from registry.storage_sqlite import SqliteStorage
from resolver import server as resolver_server
from resolver.config import ResolverConfig
from tests.capture_fixtures import (
    PROCEED,
    ROLLBACK,
    XML,
    a_party,
    bytes_of,
    event_record,
    identifier_of,
    license_record,
    observed,
    owner,
    sealed_request,
    signed_request,
)
from tests.integration.test_logged_node import POLICY, ZONE, LoggedNodes, tree
from tests.integration.test_registry import reason_of
from tests.nodes import TIMEOUT, Node, Nodes, make_record
from tests.unit.epcis.events import document, plain, to_bytes

MAKER, HOSTED, PARENT = "88.118.8", "88.118.9", "88.118"
REQUIRED = {"licences": "required"}
LONG = 25.0


def stub_of(node: Node) -> capture_pb2_grpc.CaptureServiceAsyncStub:
    stub: Any = capture_pb2_grpc.CaptureServiceStub(node.channel)
    return stub  # type: ignore[no-any-return]  # the stub of an aio channel is the async one


def told(response: capture_pb2.CaptureResponse) -> list[str]:
    """``kept``, ``again``, or the reason, of each event."""
    return [
        ("again" if one.captured.repeated_event else "kept") if one.HasField("captured") else one.refusal.error.reason
        for one in response.results
    ]


@pytest.fixture
async def logged(tmp_path: Path) -> AsyncIterator[LoggedNodes]:
    async with tree(tmp_path) as nodes:
        yield nodes


@asynccontextmanager
async def licensed(folder: Path) -> AsyncIterator[Nodes]:
    """A parent's node that hosts one party, and another party's own node; both ask for licences."""
    async with Nodes(folder) as nodes:
        await nodes.registry("")
        await nodes.registry("88")
        await nodes.registry(PARENT, capture=REQUIRED)
        await nodes.registry(MAKER, capture=REQUIRED)
        await nodes.host(HOSTED, at=PARENT)
        yield nodes


async def resolved(nodes: Nodes, folder: Path, names: list[str]) -> list[Any]:
    config = ResolverConfig.parse(
        {
            "listen": "127.0.0.1:0",
            "root_key": "root.pub",
            "root_endpoints": [nodes.of_zone[""].endpoint],
            "drain_seconds": 0.1,
        },
        folder,
    )
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    task = asyncio.create_task(resolver_server.run(config, on_ready=ready.set_result, stop=stop))
    try:
        async with grpc.aio.insecure_channel(await ready) as channel:
            stub = resolver_pb2_grpc.ResolverServiceStub(channel)
            return [await stub.Resolve(resolver_pb2.ResolveRequest(text=name), timeout=TIMEOUT) for name in names]
    finally:
        stop.set()
        await task


async def test_all_five_types_are_captured_and_found_through_the_tree_with_their_proofs(
    logged: LoggedNodes, tmp_path: Path
) -> None:
    events = [bytes_of(plain(kind)) for kind in EventType]
    response = await stub_of(logged.of_zone[ZONE]).Capture(
        signed_request([event_record(ZONE, data) for data in events]), timeout=TIMEOUT
    )
    assert told(response) == ["kept"] * 5
    names = [one.identifier for one in response.results]
    assert names == [str(event_identifier(Prefix.parse(ZONE), data)) for data in events]
    for answer, data, result in zip(await resolved(logged, tmp_path, names), events, response.results, strict=True):
        bundle = wire.bundle_from_pb(answer.bundle)
        assert verify_bundle(bundle, logged.anchor, now=int(time.time()), policy=POLICY).valid
        assert isinstance(bundle.outcome, Record)
        assert join(bundle.outcome.values) == data
        assert bundle.proof is not None
        assert bundle.proof.index == result.captured.log_position - 1 == result.captured.receipt.proof.index


async def test_a_mutated_event_is_refused_on_every_way_in(logged: LoggedNodes) -> None:
    node = logged.of_zone[ZONE]
    data = bytes_of(observed(1))
    record = event_record(ZONE, data)
    mutated = data.replace(b"SN-1", b"SN-2")
    body = RecordBody.parse(record.signed.payload)
    forged = replace(record, values=event_record(ZONE, mutated).values)  # other bytes than were signed
    resigned = make_record(  # the party itself under the name of another event
        str(body.identifier), {EVENT_TYPE: mutated.decode()}, by=owner(ZONE)
    )
    for bad, reasons in (
        (forged, {Reason.VALUE_CHANGED, Reason.FIELD_MALFORMED}),
        (resigned, {Reason.FIELD_MALFORMED}),
    ):
        request = registry_pb2.RegisterRequest(idempotency_key="mutated-1", record=wire.record_to_pb(bad))
        assert (await reason_of(node.registry.Register(request, timeout=TIMEOUT)))[0] in reasons
        batch = registry_pb2.RegisterBatchRequest(items=[request])
        result = (await node.registry.RegisterBatch(batch, timeout=TIMEOUT)).results[0]
        assert result.error.reason in reasons
        for behaviour in (ROLLBACK, PROCEED):
            response = await stub_of(node).Capture(signed_request([bad], behaviour), timeout=TIMEOUT)
            assert told(response)[0] in reasons
    sealed = sealed_request(ZONE, [resigned]).sealed
    again = registry_pb2.RegisterSealedRequest(idempotency_key="sealed-by-hand", seal=sealed.seal, items=sealed.items)
    registered = await node.registry.RegisterSealed(again, timeout=TIMEOUT)
    assert registered.results[0].error.reason == Reason.FIELD_MALFORMED
    response = await stub_of(node).Capture(sealed_request(ZONE, [resigned]), timeout=TIMEOUT)
    assert told(response) == [Reason.FIELD_MALFORMED]
    assert await is_absent(logged, str(body.identifier))


async def is_absent(nodes: Nodes, name: str, node: Node | None = None) -> bool:
    return not isinstance((await nodes.get(name, node)).outcome, Record)


async def test_the_same_event_twice_is_a_success_with_the_receipt_of_the_first_time(logged: LoggedNodes) -> None:
    stub, data = stub_of(logged.of_zone[ZONE]), bytes_of(observed(1))
    first = await stub.Capture(signed_request([event_record(ZONE, data)]), timeout=TIMEOUT)
    later = event_record(ZONE, data, issued_at=int(time.time()) - 1)  # signed anew, as other bytes
    second = await stub.Capture(signed_request([later, later]), timeout=TIMEOUT)
    assert (told(first), told(second)) == (["kept"], ["again", "again"])
    receipts = {one.captured.receipt.SerializeToString() for one in (*first.results, *second.results)}
    assert len(receipts) == 1
    assert second.results[0].captured.receipt.signed.payload
    sealed = await stub.Capture(sealed_request(ZONE, [later]), timeout=TIMEOUT)
    assert told(sealed) == ["again"]
    assert sealed.results[0].captured.log_position == first.results[0].captured.log_position


async def test_callers_who_bring_the_same_event_at_once_all_get_one_receipt(logged: LoggedNodes) -> None:
    stub, data, now = stub_of(logged.of_zone[ZONE]), bytes_of(observed(1)), int(time.time())
    calls = [
        stub.Capture(
            signed_request([event_record(ZONE, data, issued_at=now - n)], [ROLLBACK, PROCEED][n % 2]), timeout=TIMEOUT
        )
        for n in range(8)
    ]
    responses = await asyncio.gather(*calls)
    assert all(told(one)[0] in {"kept", "again"} for one in responses)
    assert len({one.results[0].captured.receipt.signed.payload for one in responses}) == 1


async def test_two_thousand_events_are_captured_under_one_seal(logged: LoggedNodes) -> None:
    stub = stub_of(logged.of_zone[ZONE])
    records = [event_record(ZONE, bytes_of(observed(n))) for n in range(2_000)]
    response = await stub.Capture(sealed_request(ZONE, records), timeout=LONG)
    assert told(response) == ["kept"] * 2_000
    positions = [one.captured.log_position for one in response.results]
    assert positions == list(range(positions[0], positions[0] + 2_000))
    assert response.checkpoint
    assert told(await stub.Capture(sealed_request(ZONE, records), timeout=LONG)) == ["again"] * 2_000
    fresh = event_record(ZONE, bytes_of(observed(2_000)))
    mixed = await stub.Capture(sealed_request(ZONE, [*records[:1_999], fresh], "another-seal"), timeout=LONG)
    assert told(mixed) == ["again"] * 1_999 + [Reason.SEAL_REFUSED]  # a seal's entry cannot name so many absent ones


@pytest.mark.parametrize("sealed", [False, True])
async def test_with_rollback_one_refused_event_leaves_nothing_and_with_proceed_only_itself(
    logged: LoggedNodes, *, sealed: bool
) -> None:
    node = logged.of_zone[ZONE]
    good = [event_record(ZONE, bytes_of(observed(n))) for n in range(3)]
    bad = event_record(ZONE, b'{"type":"ObjectEvent"}')
    sent = [*good[:2], bad, good[2]]

    def request(behaviour: Any, key: str) -> capture_pb2.CaptureRequest:
        return sealed_request(ZONE, sent, key, behaviour) if sealed else signed_request(sent, behaviour)

    refused = await stub_of(node).Capture(request(ROLLBACK, "all-or-none"), timeout=TIMEOUT)
    rolled = Reason.ROLLED_BACK
    assert [one for one in told(refused) if one != rolled] == [refused.results[2].refusal.error.reason]
    assert refused.results[2].refusal.index == 2
    assert refused.results[2].refusal.rule
    for record in sent:
        assert await is_absent(logged, str(identifier_of(record)))
    job = (await stub_of(node).GetJob(capture_pb2.GetJobRequest(job_id=refused.job_id), timeout=TIMEOUT)).job
    assert (job.running, job.success, job.events, job.captured, job.error_count) == (False, False, 4, 0, 4)
    kept = await stub_of(node).Capture(request(PROCEED, "what-can-be"), timeout=TIMEOUT)
    assert [one == "kept" for one in told(kept)] == [True, True, False, True]
    assert not await is_absent(logged, str(identifier_of(good[2])))


async def test_what_is_refused_at_the_very_commit_rolls_all_back(logged: LoggedNodes) -> None:
    node = logged.of_zone[ZONE]
    good = event_record(ZONE, bytes_of(observed(1)))
    ancient = event_record(ZONE, bytes_of(observed(2)), issued_at=1_000)  # only admission knows that
    response = await stub_of(node).Capture(signed_request([good, ancient]), timeout=TIMEOUT)
    assert told(response) == [Reason.ROLLED_BACK, Reason.ISSUED_AT_IMPLAUSIBLE]
    sealed = await stub_of(node).Capture(sealed_request(ZONE, [good, ancient]), timeout=TIMEOUT)
    assert told(sealed) == [Reason.ROLLED_BACK, Reason.ISSUED_AT_IMPLAUSIBLE]
    assert await is_absent(logged, str(identifier_of(good)))


async def test_only_events_are_captured_and_only_by_their_own_partys_key(logged: LoggedNodes) -> None:
    node = logged.of_zone[ZONE]
    other = make_record(f"{ZONE}/SN-1", {"lot": "L1"}, by=owner(ZONE))
    foreign = event_record(ZONE, bytes_of(observed(1)), by=owner("88"))
    response = await stub_of(node).Capture(signed_request([other, foreign], PROCEED), timeout=TIMEOUT)
    assert told(response) == [Reason.EVENT_RECORD, Reason.SIGNER_UNKNOWN]
    call = stub_of(node).Capture(sealed_request(ZONE, [other]), timeout=TIMEOUT)
    assert await reason_of(call) == (Reason.EVENT_RECORD, "sealed.items[0].identifier")


async def test_malformed_captures_are_refused_as_a_whole(logged: LoggedNodes) -> None:
    stub = stub_of(logged.of_zone[ZONE])
    some = event_record(ZONE, bytes_of(observed(1)))
    for request, reason in (
        (capture_pb2.CaptureRequest(), Reason.FIELD_MISSING),
        (signed_request([]), Reason.BATCH_TOO_LARGE),
        (signed_request([some], 9), Reason.FIELD_MALFORMED),
    ):
        assert (await reason_of(stub.Capture(request, timeout=TIMEOUT)))[0] is reason
    under_seal = wire.record_to_pb(some)
    under_seal.sealed.position = 1
    signed = capture_pb2.SignedEvents(records=[under_seal])
    response = await stub.Capture(capture_pb2.CaptureRequest(signed=signed), timeout=TIMEOUT)
    assert response.results[0].refusal.error.reason


async def test_an_event_has_one_version_for_ever(logged: LoggedNodes) -> None:
    node, data = logged.of_zone[ZONE], bytes_of(observed(1))
    record = event_record(ZONE, data)
    await stub_of(node).Capture(signed_request([record]), timeout=TIMEOUT)
    name = str(identifier_of(record))
    following = make_record(name, {EVENT_TYPE: data.decode()}, by=owner(ZONE), previous=record)
    update = registry_pb2.UpdateRequest(idempotency_key="update-event", record=wire.record_to_pb(following))
    assert (await reason_of(node.registry.Update(update, timeout=TIMEOUT)))[0] is Reason.EVENT_IMMUTABLE
    last = make_record(name, by=owner(ZONE), previous=record, kind="tombstone", status=Status.RETIRED)
    retire = registry_pb2.RetireRequest(idempotency_key="retire-event", record=wire.record_to_pb(last))
    assert (await reason_of(node.registry.Retire(retire, timeout=TIMEOUT)))[0] is Reason.EVENT_IMMUTABLE
    hidden = make_record(name, {EVENT_TYPE: data.decode()}, by=owner(ZONE), restricted=(EVENT_TYPE,))
    register = registry_pb2.RegisterRequest(idempotency_key="hidden-event", record=wire.record_to_pb(hidden))
    assert RecordBody.parse(hidden.signed.payload).values[0].permission is Permission.RESTRICTED
    assert (await reason_of(node.registry.Register(register, timeout=TIMEOUT)))[0] is Reason.EVENT_RECORD


async def test_a_stream_answers_each_message_when_its_events_are_durable(logged: LoggedNodes) -> None:
    node = logged.of_zone[ZONE]
    call = stub_of(node).CaptureStream()
    for start in range(0, 30, 10):
        records = [event_record(ZONE, bytes_of(observed(n))) for n in range(start, start + 10)]
        message = capture_pb2.CaptureStreamRequest(records=[wire.record_to_pb(one) for one in records])
        await call.write(message)
        answer: Any = await call.read()
        assert len([one for one in answer.results if one.captured.receipt.signed.payload]) == 10
        assert not await is_absent(logged, answer.results[9].identifier)
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    empty = stub_of(node).CaptureStream()
    await empty.write(capture_pb2.CaptureStreamRequest())
    assert (await reason_of(empty.read()))[0] is Reason.BATCH_TOO_LARGE


async def test_jobs_are_listed_latest_first_and_survive_a_restart(logged: LoggedNodes) -> None:
    node = logged.of_zone[ZONE]
    names = []
    for n in range(5):
        request = signed_request([event_record(ZONE, bytes_of(observed(n)))])
        names.append((await stub_of(node).Capture(request, timeout=TIMEOUT)).job_id)
    await node.end()
    await node.start()
    first = await stub_of(node).ListJobs(capture_pb2.ListJobsRequest(page_size=3), timeout=TIMEOUT)
    second = await stub_of(node).ListJobs(
        capture_pb2.ListJobsRequest(page_size=3, page_token=first.next_page_token), timeout=TIMEOUT
    )
    assert [job.job_id for job in (*first.jobs, *second.jobs)] == names[::-1]
    assert not second.next_page_token
    assert all(job.success and job.created_at_ms <= job.finished_at_ms for job in first.jobs)
    unknown = stub_of(node).GetJob(capture_pb2.GetJobRequest(job_id="none"), timeout=TIMEOUT)
    assert await reason_of(unknown) == (Reason.JOB_UNKNOWN, "job_id")


async def capture(nodes: Nodes, party: str, **fields: Any) -> list[str]:
    record = event_record(party, bytes_of(observed(1, **fields)))
    return told(await stub_of(nodes.of_zone[party]).Capture(signed_request([record]), timeout=TIMEOUT))


async def grant(nodes: Nodes, record: Record, call: str = "Register") -> None:
    node = nodes.of_zone[PARENT].registry
    message = getattr(registry_pb2, f"{call}Request")
    await getattr(node, call)(
        message(idempotency_key=record.hash.hex(), record=wire.record_to_pb(record)), timeout=TIMEOUT
    )


@pytest.mark.parametrize("party", [MAKER, HOSTED])
async def test_a_licence_of_the_parent_decides_at_its_own_node_and_at_the_partys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, party: str
) -> None:
    for name in ("FRESH_SECONDS", "FRESH_SECONDS_HERE", "FRESH_SECONDS_ABSENT"):
        monkeypatch.setattr(f"registry.licensing.{name}", 0)
    async with licensed(tmp_path) as nodes:
        assert await capture(nodes, party) == [Reason.PARTY_UNLICENSED]
        first = license_record(PARENT, a_party(party, PartyRole.CARRIER))
        await grant(nodes, first)
        assert await capture(nodes, party, bizStep="dispensing") == [Reason.ROLE_BIZ_STEP]
        assert await capture(nodes, party) == ["kept"]
        elsewhere = {"bizLocation": {"id": "idtrace:88.118.7/room-1"}}
        assert await capture(nodes, party, **elsewhere) == [Reason.LOCATION_OF_ANOTHER]
        old = {"eventTime": "2001-01-01T00:00:00Z"}
        assert await capture(nodes, party, **old) == [Reason.LICENCE_PERIOD]
        suspended = license_record(PARENT, a_party(party), previous=first, status=Status.SUSPENDED)
        await grant(nodes, suspended, "Update")
        assert await capture(nodes, party, bizStep="storing") == [Reason.PARTY_SUSPENDED]
        # Whichever call brings it.
        record = event_record(party, bytes_of(observed(7)))
        request = registry_pb2.RegisterRequest(idempotency_key="another-way", record=wire.record_to_pb(record))
        call = nodes.of_zone[party].registry.Register(request, timeout=TIMEOUT)
        assert (await reason_of(call))[0] is Reason.PARTY_SUSPENDED
        sealed = await stub_of(nodes.of_zone[party]).Capture(sealed_request(party, [record]), timeout=TIMEOUT)
        assert told(sealed) == [Reason.PARTY_SUSPENDED]


async def test_where_the_parent_cannot_be_reached_the_answer_is_to_come_back_later(tmp_path: Path) -> None:
    async with licensed(tmp_path) as nodes:
        await grant(nodes, license_record(PARENT, a_party(MAKER)))
        parent = nodes.of_zone[PARENT]
        await parent.end()
        record = event_record(MAKER, bytes_of(observed(1)))
        stub = stub_of(nodes.of_zone[MAKER])
        assert (await reason_of(stub.Capture(signed_request([record]), timeout=TIMEOUT)))[0] is (
            Reason.LICENCE_UNREACHABLE
        )
        proceeding = await stub.Capture(signed_request([record], PROCEED), timeout=TIMEOUT)
        assert proceeding.results[0].refusal.error.code == grpc.StatusCode.UNAVAILABLE.value[0]
        await parent.start()
        assert told(await stub.Capture(signed_request([record]), timeout=TIMEOUT)) == ["kept"]


async def test_what_the_node_knows_to_be_in_other_hands_is_refused_until_it_is_shipped(tmp_path: Path) -> None:
    async with licensed(tmp_path) as nodes:
        await nodes.host("88.118.10", at=PARENT)
        await grant(nodes, license_record(PARENT, a_party(HOSTED)))
        await grant(nodes, license_record(PARENT, a_party("88.118.10", PartyRole.CLINIC)))
        thing = {"epcList": ["idtrace:88.118.9/SN-1"]}

        async def report(party: str, step: str, minute: int, **fields: Any) -> list[str]:
            when = {"eventTime": f"2026-07-22T10:{minute:02}:00Z"}
            return await capture(nodes, party, bizStep=step, **(thing | when | fields))

        assert await report(HOSTED, "commissioning", 0, action="ADD") == ["kept"]
        box = {"parentID": "idtrace:88.118.9/BOX-1"}
        packing = plain("AggregationEvent") | box | {"childEPCs": thing["epcList"], "eventTime": "2026-07-22T10:01:00Z"}
        packed = event_record(HOSTED, bytes_of(packing))
        assert told(await stub_of(nodes.of_zone[PARENT]).Capture(signed_request([packed]), timeout=TIMEOUT)) == ["kept"]
        assert await report("88.118.10", "dispensing", 5) == [Reason.CUSTODY_ELSEWHERE]
        in_box = {"epcList": [box["parentID"]]}
        assert await report(HOSTED, "shipping", 2, **in_box) == ["kept"]
        assert await report("88.118.10", "receiving", 3, **in_box) == ["kept"]
        assert await report(HOSTED, "storing", 4) == [Reason.CUSTODY_ELSEWHERE]
        assert await report("88.118.10", "dispensing", 5) == ["kept"]


async def test_a_node_signs_for_tools_that_cannot_and_says_what_became_of_the_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Capturing] = []
    born = Capturing.__init__

    def remembered(self: Capturing, *parts: Any, **more: Any) -> None:
        born(self, *parts, **more)
        made.append(self)

    monkeypatch.setattr(Capturing, "__init__", remembered)
    write_private_key(tmp_path / "party.key", owner(PARENT)._private, None)  # type: ignore[attr-defined]
    async with Nodes(tmp_path) as nodes:
        await nodes.registry("")
        await nodes.registry("88")
        node = await nodes.registry(PARENT, capture={"key": "party.key", "party": PARENT})
        capturing, party = made[-1], Prefix.parse(PARENT)
        good = to_bytes(document(observed(1), observed(2)))
        job = await capturing.capture_document(good, "application/ld+json; charset=utf-8", rollback=True, party=party)
        assert (job.success, job.events, job.captured) == (True, 2, 2)
        broken = to_bytes(document(observed(3), {"type": "ObjectEvent"}, observed(4)))
        job = await capturing.capture_document(broken, "application/json", rollback=True, party=party)
        assert (job.success, job.captured, job.error_count) == (False, 0, 3)
        assert "epcisBody.eventList[1]" in job.errors[1].field
        begun = capturing.jobs.begin(rollback=False)
        job = await capturing.capture_document(broken, "application/json", rollback=False, party=party, job=begun)
        assert (job.name, job.success, job.captured, job.error_count) == (begun.name, False, 2, 1)
        assert job.errors[0].index == 1
        strange = capturing.capture_document(good, "text/csv", rollback=False, party=party)
        with pytest.raises(InputError):
            await strange
        unsigned = made[0]  # another node, without a key for others
        with pytest.raises(RefusedError) as refused:
            await unsigned.capture_document(good, "application/json", rollback=False, party=party)
        assert refused.value.reason is Reason.CAPTURE_UNSIGNED
        job = await capturing.capture_document(XML, "application/xml", rollback=True, party=party)
        assert (job.success, job.captured) == (True, 1)
        store = SqliteStorage(node.config.data / "registry.sqlite3")
        try:
            assert len(await store.events(0, 10)) == 5
        finally:
            await store.close()

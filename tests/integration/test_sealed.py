"""A batch under one seal at a real node: one commit, a result for each record, and the same results ever after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import grpc.aio
import pytest

from idtrace import signature, wire
from idtrace.bundle import Bundle, Verdict
from idtrace.checkpoint import Checkpoint
from idtrace.delegation import Role
from idtrace.entry import ABSENT_MAX, Entry, EntryKind, UnderSeal
from idtrace.errors import BusyError, Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.note import Note
from idtrace.record import Record, RecordKind, Sealed
from idtrace.seal import seal
from idtrace.signature import Kind, Signed
from idtrace.template import TEMPLATE_TYPE, Template
from idtrace.v1 import registry_pb2, registry_pb2_grpc, resolver_pb2, resolver_pb2_grpc
from idtrace.verification import verify_bundle
from registry import sequencer
from registry.storage_sqlite import SqliteStorage
from resolver import server as resolver_server
from resolver.config import ResolverConfig
from tests.core_fixtures import signer
from tests.integration.test_logged_node import LOG, POLICY, SECOND, ZONE, LoggedNodes, Read, tree, zone_keys
from tests.integration.test_registry import reason_of
from tests.nodes import TIMEOUT, Nodes, key_name, make_record
from tests.under_fire import RegistryProgram

OWNER = signer(key_name(Role.RECORD, ZONE))
KEY = "sealed-batch-1"
KILLS = 8
Request = registry_pb2.RegisterSealedRequest


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[LoggedNodes]:
    async with tree(tmp_path) as built:
        yield built


def records(count: int, stem: str = "S", **changes: Any) -> list[Record]:
    return [make_record(f"{ZONE}/{stem}-{n}", {"lot": f"L{n}"}, by=OWNER, **changes) for n in range(count)]


def sealed(batch: Sequence[Record], key: str = KEY, *, zone: str = ZONE, by: Any = OWNER) -> Request:
    """A batch as its owner sends it."""
    issued_at = 1_700_000_000
    places = seal([one.hash for one in batch], Prefix.parse(zone), by, issued_at=issued_at)
    items = [registry_pb2.SealedItem(payload=r.signed.payload, values=wire.record_to_pb(r).values) for r in batch]
    return Request(idempotency_key=key, seal=wire.signed_to_pb(places[0].seal), items=items)


async def send(nodes: Nodes, request: Request) -> registry_pb2.RegisterSealedResponse:
    return await nodes.of_zone[ZONE].registry.RegisterSealed(request, timeout=TIMEOUT)


async def refusal(nodes: Nodes, request: Request) -> tuple[Reason, str]:
    return await reason_of(send(nodes, request))


def told(response: registry_pb2.RegisterSealedResponse) -> list[int | str]:
    return [r.log_position if r.HasField("log_position") else r.error.reason for r in response.results]


async def answer(nodes: Nodes, name: str) -> Any:
    question = registry_pb2.RegistryServiceGetRequest(identifier=name)
    return (await nodes.of_zone[ZONE].registry.Get(question, timeout=TIMEOUT)).answer


async def test_a_sealed_batch_is_logged_behind_its_seal_and_every_record_verifies_offline(nodes: LoggedNodes) -> None:
    batch = records(5)
    before = len((await Read.of(nodes.of_zone[ZONE])).entries)
    response = await send(nodes, sealed(batch))
    assert told(response) == [before + 2 + n for n in range(5)]
    read = await Read.of(nodes.of_zone[ZONE])
    assert read.kinds[before:] == [EntryKind.SEAL, *[EntryKind.RECORD] * 5]
    assert read.replay().findings == []
    assert read.note == response.checkpoint
    assert Checkpoint.parse(Note.parse(response.checkpoint).text).size == before + 6
    for number, one in enumerate(batch):
        entry = Entry.from_bytes(read.entries[told(response)[number] - 1])  # type: ignore[operator]  # all are numbers
        assert entry.payload == one.signed.payload
        assert isinstance(entry.by, UnderSeal)
        assert entry.by.position == number
        name = f"{ZONE}/S-{number}"
        shown = wire.answer_from_pb(await answer(nodes, name))
        assert isinstance(shown.outcome, Record)
        assert isinstance(shown.outcome.sealed, Sealed)
        assert shown.outcome.signed.signatures == ()
        bundle = Bundle(Identifier.parse(name), shown.delegations, shown.outcome, shown.proof, shown.currency)
        report = verify_bundle(bundle, nodes.anchor, now=int(time.time()), policy=POLICY)
        assert report.verdict is Verdict.FOUND, report.checks
        lie = replace(bundle, outcome=replace(shown.outcome, sealed=replace(shown.outcome.sealed, position=number ^ 1)))
        assert verify_bundle(lie, nodes.anchor, now=int(time.time())).verdict is Verdict.BOGUS


async def test_a_repetition_gives_the_same_bytes_and_adds_nothing(nodes: LoggedNodes) -> None:
    await nodes.submit(make_record(f"{ZONE}/S-1", by=OWNER), "taken-before")
    request = sealed(records(4))
    first = await send(nodes, request)
    size = len((await Read.of(nodes.of_zone[ZONE])).entries)
    assert [await send(nodes, request) for _ in range(3)] == [first] * 3
    await nodes.of_zone[ZONE].end()
    await nodes.of_zone[ZONE].start()
    again = await send(nodes, request)
    assert again.SerializeToString(deterministic=True) == first.SerializeToString(deterministic=True)
    assert len((await Read.of(nodes.of_zone[ZONE])).entries) == size


async def test_each_record_fails_alone_and_the_seal_names_it(nodes: LoggedNodes) -> None:
    await nodes.submit(make_record(f"{ZONE}/S-1", by=OWNER), "taken-before")
    batch = records(3)
    twin = make_record(f"{ZONE}/S-2", {"lot": "other"}, by=OWNER)
    foreign, later = make_record("88.119/X"), make_record(f"{ZONE}/Y", by=OWNER, previous=batch[0])
    old, classless = (
        make_record(f"{ZONE}/Z", issued_at=1),
        make_record(f"{ZONE}/C", class_id=Identifier.parse("88.118/no")),
    )
    request = sealed([*batch, twin, foreign, later, old, classless])
    request.items[0].values[0].data = b"not what was signed"
    start = len((await Read.of(nodes.of_zone[ZONE])).entries)
    response = await send(nodes, request)
    assert told(response) == [
        Reason.VALUE_CHANGED,
        Reason.IDENTIFIER_TAKEN,
        start + 2,
        Reason.IDENTIFIER_TAKEN,
        Reason.NOT_AUTHORITATIVE,
        Reason.FIELD_MALFORMED,
        Reason.ISSUED_AT_IMPLAUSIBLE,
        Reason.CLASS_UNKNOWN,
    ]


async def test_whatever_is_wrong_with_the_seal_refuses_the_whole_batch(nodes: LoggedNodes) -> None:
    batch = records(4)
    sound = sealed(batch)
    start = len((await Read.of(nodes.of_zone[ZONE])).entries)

    def changed(change: Callable[[Request], object]) -> Request:
        request = Request.FromString(sound.SerializeToString())
        change(request)
        return request

    def swap(request: Request) -> None:
        items = [request.items[n] for n in (1, 0, 2, 3)]
        del request.items[:]
        request.items.extend(items)

    mine = wire.signed_from_pb(sound.seal, "seal")
    size = Signed(mine.payload_type, mine.payload.replace(b'"size":4', b'"size":5'), mine.signatures)
    lies: list[tuple[Request, Reason]] = [
        (changed(lambda r: r.items.pop()), Reason.SEAL_PATH),
        (changed(lambda r: r.items.append(r.items[0])), Reason.SEAL_PATH),
        (changed(swap), Reason.SEAL_PATH),
        (changed(lambda r: setattr(r.items[2], "payload", r.items[2].payload + b" ")), Reason.SEAL_PATH),
        (changed(lambda r: setattr(r.items[2], "payload", b"")), Reason.SEAL_PATH),
        (changed(lambda r: r.seal.CopyFrom(wire.signed_to_pb(size))), Reason.SIGNATURE_INVALID),
        (changed(lambda r: r.seal.ClearField("signatures")), Reason.SIGNATURE_MISSING),
        (changed(lambda r: r.seal.CopyFrom(wire.signed_to_pb(batch[0].signed))), Reason.FIELD_MISSING),
        (changed(lambda r: r.ClearField("seal")), Reason.FIELD_MISSING),
        (changed(lambda r: r.ClearField("items")), Reason.BATCH_TOO_LARGE),
        (changed(lambda r: setattr(r, "idempotency_key", "")), Reason.FIELD_MISSING),
        (changed(lambda r: setattr(r, "idempotency_key", "key with 0")), Reason.FIELD_MALFORMED),
        (sealed(batch, by=signer("thief")), Reason.SIGNER_UNKNOWN),
        (sealed(batch, by=signer(key_name(Role.NODE, ZONE))), Reason.SIGNER_UNKNOWN),
        (sealed(batch, zone="88.118.5"), Reason.SEAL_WRONG_ZONE),
        (sealed(batch, zone="99"), Reason.NOT_AUTHORITATIVE),
    ]
    for request, reason in lies:
        assert (await refusal(nodes, request))[0] is reason, reason
    assert len((await Read.of(nodes.of_zone[ZONE])).entries) == start
    assert told(await send(nodes, sound)) == [start + 2 + n for n in range(4)]


async def test_a_key_serves_one_batch_and_says_nothing_to_strangers(nodes: LoggedNodes) -> None:
    batch = records(2)
    await send(nodes, sealed(batch))
    assert (await refusal(nodes, sealed(records(2, "T"))))[0] is Reason.IDEMPOTENCY_KEY_REUSED
    assert (await refusal(nodes, sealed(batch, by=signer("thief"))))[0] is Reason.SIGNER_UNKNOWN
    assert told(await send(nodes, sealed(batch, "another-key"))) == [Reason.IDENTIFIER_TAKEN] * 2


async def test_what_was_refused_is_not_added_later_under_the_same_seal(nodes: LoggedNodes) -> None:
    kind = Identifier.parse(f"{ZONE}/class.box")
    batch = [*records(2), make_record(f"{ZONE}/boxed", by=OWNER, class_id=kind)]
    request = sealed(batch)
    first = await send(nodes, request)
    assert told(first)[2] == Reason.CLASS_UNKNOWN
    template = Template((), open=True).payload().decode()
    await nodes.submit(make_record(str(kind), {TEMPLATE_TYPE: template}, by=OWNER, kind=RecordKind.CLASS), "the-class")
    again = await send(nodes, request)
    assert told(again) == [*told(first)[:2], Reason.SEAL_CLOSED]
    assert again.checkpoint == first.checkpoint
    assert (await Read.of(nodes.of_zone[ZONE])).replay().findings == []


async def test_a_batch_of_which_too_many_are_refused_is_refused_whole(nodes: LoggedNodes) -> None:
    taken = await send(nodes, sealed(records(ABSENT_MAX + 1), "the-first-batch"))
    assert all(result.HasField("log_position") for result in taken.results)
    start = len((await Read.of(nodes.of_zone[ZONE])).entries)
    fresh = records(1, "fresh")
    assert (await refusal(nodes, sealed([*records(ABSENT_MAX + 1), *fresh])))[0] is Reason.SEAL_REFUSED
    assert len((await Read.of(nodes.of_zone[ZONE])).entries) == start
    most = sealed([*records(ABSENT_MAX), *fresh])
    response = await send(nodes, most)
    assert told(response) == [*[Reason.IDENTIFIER_TAKEN] * ABSENT_MAX, start + 2]
    assert response == await send(nodes, most)
    assert (await Read.of(nodes.of_zone[ZONE])).replay().findings == []


async def test_what_was_committed_is_told_again_when_the_owner_has_another_key(nodes: LoggedNodes) -> None:
    request = sealed(records(2))
    first = await send(nodes, request)
    new = signer(SECOND).public_key
    keys = tuple(replace(one, key=new) if Role.RECORD in one.roles else one for one in zone_keys())
    await nodes.delegate(ZONE, (nodes.of_zone[ZONE].endpoint,), node_key_zone=ZONE, keys=keys)
    await nodes.until_adopted(nodes.of_zone[ZONE], ZONE, version=2)
    assert await send(nodes, request) == first
    assert (await refusal(nodes, sealed(records(2, "T"), "after-the-change")))[0] is Reason.SIGNER_UNKNOWN


async def test_a_node_without_a_log_takes_batches_too(tmp_path: Path) -> None:
    async with Nodes(tmp_path) as plain:
        await plain.registry("")
        await plain.registry("88")
        await plain.registry(ZONE)
        await plain.submit(make_record(f"{ZONE}/S-1", by=OWNER), "taken-before")
        request = sealed(records(3))
        first = await send(plain, request)
        assert told(first) == [0, Reason.IDENTIFIER_TAKEN, 0]
        assert first.checkpoint == b""
        assert await send(plain, request) == first
        shown = wire.answer_from_pb(await answer(plain, f"{ZONE}/S-2"))
        assert isinstance(shown.outcome, Record)
        bundle = Bundle(Identifier.parse(f"{ZONE}/S-2"), shown.delegations, shown.outcome)
        assert verify_bundle(bundle, plain.anchor, now=int(time.time())).verdict is Verdict.FOUND


async def test_sealed_and_single_registrations_at_once_leave_every_seal_whole(nodes: LoggedNodes) -> None:
    batches = [sealed(records(40, f"B{n}"), f"batch-key-{n}") for n in range(6)]
    singles = [(make_record(f"{ZONE}/one-{n}", by=OWNER), f"single-key-{n}") for n in range(60)]
    sent = [send(nodes, batch) for batch in (*batches, *batches)]
    done = await asyncio.gather(*sent, *(nodes.submit(*single) for single in singles))
    assert done[: len(batches)] == done[len(batches) : 2 * len(batches)]
    read = await Read.of(nodes.of_zone[ZONE])
    assert read.replay().findings == []
    assert read.kinds.count(EntryKind.SEAL) == len(batches)


@pytest.mark.slow
async def test_a_batch_that_a_kill_has_met_is_there_whole_or_not_at_all_and_repeats(tmp_path: Path) -> None:
    async with tree(tmp_path) as nodes:
        await nodes.of_zone[ZONE].end()
        program = RegistryProgram(tmp_path / "killed.toml")
        settings = {"listen": "127.0.0.1:0", "data": "88.118.data", "root_key": "root.pub", "node_key": "88.118.key"}
        lines = [f'{key} = "{value}"' for key, value in settings.items()]
        log = ["[log]", f'origin = "{LOG}"', 'key = "log.key"', 'currency_key = "currency.key"']
        parents = nodes.parent(ZONE).endpoint
        program.config.write_text("\n".join([*lines, f'zones = ["{ZONE}"]', f'parents = ["{parents}"]', *log, ""]))
        requests = [sealed(records(200, f"K{n}"), f"killed-batch-{n}") for n in range(KILLS)]
        answered: dict[int, registry_pb2.RegisterSealedResponse] = {}
        for number, request in enumerate(requests):
            await program.start()
            async with grpc.aio.insecure_channel(program.endpoint) as channel:
                stub = registry_pb2_grpc.RegistryServiceStub(channel)
                for done in range(number):
                    again = await stub.RegisterSealed(requests[done], timeout=TIMEOUT)
                    assert answered.setdefault(done, again) == again
                call = asyncio.ensure_future(stub.RegisterSealed(request, timeout=TIMEOUT))
                await asyncio.sleep(0.012 * number)  # from before it is read until after it is answered
                await program.kill()
                for told_before in (await asyncio.gather(call, return_exceptions=True))[:1]:
                    if not isinstance(told_before, BaseException):
                        answered[number] = told_before
        read = await Read.of(nodes.of_zone[ZONE])
        assert read.replay().findings == []
        assert read.kinds.count(EntryKind.SEAL) in (len(answered), len(answered) + 1)
        assert read.kinds.count(EntryKind.RECORD) == 200 * read.kinds.count(EntryKind.SEAL)


async def test_a_resolver_finds_sealed_records_and_checks_their_seal_once(
    nodes: LoggedNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(nodes, sealed(records(3)))
    given = {"listen": "127.0.0.1:0", "root_key": "root.pub", "root_endpoints": [nodes.of_zone[""].endpoint]}
    config = ResolverConfig.parse(given | {"drain_seconds": 0.1}, tmp_path)
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop, seals, sound = asyncio.Event(), [], signature.valid

    def counted(key: signature.PublicKey, made: bytes, message: bytes) -> bool:
        seals.extend([made] * message.startswith(Kind.SEAL.domain))
        return sound(key, made, message)

    task = asyncio.create_task(resolver_server.run(config, on_ready=ready.set_result, stop=stop))
    try:
        async with grpc.aio.insecure_channel(await ready) as channel:
            monkeypatch.setattr(signature, "valid", counted)
            stub = resolver_pb2_grpc.ResolverServiceStub(channel)
            for number in range(3):
                question = resolver_pb2.ResolveRequest(text=f"{ZONE}/S-{number}")
                response = await stub.Resolve(question, timeout=TIMEOUT)
                assert response.verdict == resolver_pb2.VERDICT_FOUND, response.detail
                assert len(seals) == 1
                bundle = wire.bundle_from_pb(response.bundle)
                monkeypatch.setattr(signature, "valid", sound)
                assert verify_bundle(bundle, nodes.anchor, now=int(time.time()), policy=POLICY).valid
                monkeypatch.setattr(signature, "valid", counted)
    finally:
        stop.set()
        await task


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (RuntimeError("the disk has gone"), Reason.OUTCOME_UNKNOWN),
        (BusyError(Reason.CLOCK_BACK, "late"), Reason.CLOCK_BACK),
    ],
)
async def test_a_store_that_fails_is_the_whole_batchs_trouble_and_no_refusal_of_records(
    nodes: LoggedNodes, monkeypatch: pytest.MonkeyPatch, raised: Exception, reason: Reason
) -> None:
    request = sealed(records(ABSENT_MAX + 1))

    async def failing(*_: object) -> None:
        raise raised

    with monkeypatch.context() as broken:
        broken.setattr(SqliteStorage, "commit", failing)
        broken.setattr(sequencer, "log", Mock())  # a console's traceback shows all locals, here for a minute
        assert (await refusal(nodes, request))[0] is reason
    assert all(result.HasField("log_position") for result in (await send(nodes, request)).results)


async def test_an_item_with_a_value_that_is_none_fails_alone(nodes: LoggedNodes) -> None:
    request = sealed(records(2))
    request.items[0].values[0].salt = b"short"
    first = await send(nodes, request)
    assert told(first)[0] == Reason.FIELD_MALFORMED
    assert first.results[0].error.field == "items[0].values[0].salt"
    assert first.results[1].HasField("log_position")
    assert await send(nodes, request) == first

"""A dose in a box in a carton on a pallet in a truck, through four parties with real nodes: traced and verified."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from idtrace import wire
from idtrace.cli import trace as command
from idtrace.cli.exits import ExitCode
from idtrace.epcis.model import Event
from idtrace.epcis.parse import read_document
from idtrace.identifier import Identifier
from idtrace.provenance.assemble import history
from idtrace.provenance.history import Observed
from idtrace.provenance.reading import read_event
from idtrace.record import Record
from idtrace.v1 import pointer_pb2, pointer_pb2_grpc, resolver_pb2
from idtrace.verification import verify_bundle
from tests.cli import Ran, idtrace
from tests.nodes import TIMEOUT
from tests.trace_site import Site, site
from tests.unit.provenance.story import (
    BOX,
    CARRIER,
    CARTON,
    CENTRE,
    CLINIC,
    DOSE,
    FRIDGE,
    LOGGER,
    MAKER,
    PALLET,
    STORE,
    TRUCK,
    chain,
    made,
    packed,
)

THINGS = (DOSE, BOX, CARTON, PALLET, TRUCK, LOGGER, STORE, FRIDGE)


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[tuple[Site, list[Observed]]]:
    async with site(tmp_path) as built:
        await built.nodes.register(DOSE, {"lot": "L1"})
        recorded = await built.tell(chain())
        await built.until_pointed(recorded, THINGS)
        yield built, recorded


def kinds(parts: list[Any], kind: str) -> list[Any]:
    return [getattr(part, kind) for part in parts if part.WhichOneof("part") == kind]


def shown(ran: Ran) -> Any:
    """The command's JSON; nodes in this process write their log before it."""
    return json.loads(ran.out[ran.out.index("{\n") :])


async def run(built: Site, *arguments: object, columns: int = 160) -> Ran:
    options = ("--resolver", built.resolver, "--root", built.nodes.root_key)
    return await asyncio.to_thread(idtrace, "trace", DOSE, *options, *arguments, columns=columns)


async def test_every_event_comes_with_its_proof_and_the_history_is_the_one_that_was_told(
    told: tuple[Site, list[Observed]],
) -> None:
    built, recorded = told
    parts = await built.trace(DOSE)
    assert kinds(parts, "gap") == []
    assert kinds(parts, "contradiction") == []
    observed = []
    assert len(kinds(parts, "step")) == len(recorded) - 1
    fitting = next(one for one in recorded if one.event.type.value == "AssociationEvent")
    before = [paper for paper in kinds(parts, "paper") if paper.bundle.identifier == fitting.identifier]
    for told_of in (*kinds(parts, "step"), *before):
        bundle = wire.bundle_from_pb(told_of.bundle)
        assert verify_bundle(bundle, built.nodes.anchor, now=int(time.time())).valid
        assert isinstance(bundle.outcome, Record)
        observed.append(read_event(bundle.outcome, logged=False))
    now_ms = parts[-1].summary.now_ms
    expected = history(DOSE, recorded, now_ms=now_ms, parties={})
    found = history(DOSE, observed, now_ms=now_ms, parties={})
    assert [step.observed.identifier for step in found.steps] == [one.observed.identifier for one in expected.steps]
    assert found.holdings == expected.holdings
    assert found.insides == expected.insides
    papers = {wire.bundle_from_pb(paper.bundle).identifier for paper in kinds(parts, "paper")}
    assert {str(name) for name in papers} >= {
        DOSE,
        *(f"88.118/party/{party}" for party in (MAKER, CARRIER, CENTRE, CLINIC)),
        *(f"{zone}/recalls" for zone in ("88", "88.118", MAKER, CARRIER)),
    }
    summary = parts[-1].summary
    assert (summary.subject, summary.steps, summary.papers) == (DOSE, len(observed) - 1, len(papers))


async def test_the_command_shows_packages_hands_and_events_and_writes_them_for_others(
    told: tuple[Site, list[Observed]], tmp_path: Path
) -> None:
    built, _ = told
    file = tmp_path / "dose.json"
    narrow = await run(built, "--epcis", file, columns=80)
    ran = await run(built, columns=120)
    for shown_at, columns in ((narrow, 80), (ran, 120)):
        assert shown_at.code == ExitCode.OK, shown_at.said
        for name in (DOSE, BOX, CARTON, PALLET, TRUCK):
            assert name in shown_at.out
        assert max(len(line) for line in shown_at.out.splitlines()) <= columns
    assert "疫苗厂" in ran.out
    assert "4.0…4.5" in ran.out
    items = read_document(file.read_bytes()).items
    assert len(items) == 18
    assert all(isinstance(item, Event) for item in items)
    body = shown(await run(built, "--json"))
    assert [one["container"] for one in body["inside"]] == [BOX, CARTON, PALLET, TRUCK]
    assert [one["party"] for one in body["custody"]] == [MAKER, CARRIER, CENTRE, CLINIC]
    assert body["exit_code"] == 0
    assert (await run(built, "--tree")).out.count("departing") == 0
    assert (await run(built, "--table")).out.count("└") == 0


async def test_a_node_that_is_gone_leaves_gaps_and_the_rest_of_the_history(told: tuple[Site, list[Observed]]) -> None:
    built, recorded = told
    await built.nodes.of_zone[CARRIER].end()
    parts = await built.trace(DOSE)
    gaps = kinds(parts, "gap")
    lost = {one.identifier for one in recorded if one.party == CARRIER}
    assert {gap.kind for gap in gaps} == {"unreachable"}
    # The truck and its logger live at the node that is gone, so what only they lead to is never met.
    assert {gap.subject for gap in gaps} & lost
    assert len(kinds(parts, "step")) >= len(recorded) - len(lost)
    ran = await run(built)
    assert ran.code == ExitCode.UNREACHABLE
    assert "nobody answered" in ran.said


async def test_pointers_that_lie_are_shown_and_change_nothing(told: tuple[Site, list[Observed]]) -> None:
    built, _ = told
    stray = (await built.tell([made(3, f"{MAKER}/SN-77", place="")]))[0]
    lies = [
        pointer_pb2.Pointer(subject=DOSE, time_ms=stray.event.time_ms, event=stray.identifier, role="epc"),
        pointer_pb2.Pointer(subject=DOSE, time_ms=1, event=f"{CLINIC}/event/{'0' * 64}", role="epc"),
    ]
    stub: Any = pointer_pb2_grpc.PointerServiceStub(built.nodes.of_zone[MAKER].channel)
    answer = await stub.Deliver(pointer_pb2.DeliverRequest(pointers=lies), timeout=TIMEOUT)
    assert [one.is_new for one in answer.results] == [True, True]
    parts = await built.trace(DOSE)
    assert sorted((gap.kind, gap.subject) for gap in kinds(parts, "gap")) == [
        ("misfit", stray.identifier),
        ("unfounded", lies[1].event),
    ]
    assert len(kinds(parts, "step")) == 18


async def test_contradictions_are_told_and_so_is_a_thing_that_nobody_knows(told: tuple[Site, list[Observed]]) -> None:
    built, _ = told
    extra = await built.tell([packed(MAKER, 15, f"{MAKER}/BOX-9", DOSE)])
    await built.until_pointed(extra, (DOSE,))
    parts = await built.trace(DOSE)
    assert "two_parents" in {one.kind for one in kinds(parts, "contradiction")}
    assert "two_parents" in (await run(built)).said
    parts = await built.trace(f"{MAKER}/SN-404")
    assert [part.WhichOneof("part") for part in parts if part.WhichOneof("part") != "paper"] == ["summary"]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await built.trace("no code")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_resolver_cannot_invent_or_change_an_event(told: tuple[Site, list[Observed]]) -> None:
    built, _ = told
    parts = await built.trace(DOSE)
    anchor, at = built.nodes.anchor, int(time.time())

    def checked(changed: list[Any]) -> command.Checked:
        found = command.Checked(DOSE, anchor, at)
        found.take(changed)
        return found

    assert command.code_of(checked(parts)) is ExitCode.OK
    own = next(paper for paper in kinds(parts, "paper") if paper.bundle.identifier == DOSE)
    as_event = resolver_pb2.TraceResponse(step=resolver_pb2.TraceStep(bundle=own.bundle))
    assert command.code_of(checked([*parts, as_event])) is ExitCode.BOGUS
    no_proof = resolver_pb2.TraceResponse(step=resolver_pb2.TraceStep())
    assert command.code_of(checked([*parts, no_proof])) is ExitCode.BOGUS
    denied = next(paper for paper in kinds(parts, "paper") if paper.bundle.identifier == "88/recalls")
    absent = resolver_pb2.TraceResponse(step=resolver_pb2.TraceStep(bundle=denied.bundle))
    assert command.code_of(checked([absent])) is ExitCode.BOGUS
    changed = resolver_pb2.TraceResponse()
    changed.CopyFrom(next(part for part in parts if part.WhichOneof("part") == "step"))
    value = changed.step.bundle.record.values[0]
    value.data = value.data.replace(b"packing", b"holding") + b" "
    found = checked([*parts[1:], changed])
    assert command.code_of(found) is ExitCode.BOGUS
    assert found.forged == 1
    assert checked([resolver_pb2.TraceResponse(gap=resolver_pb2.TraceGap(kind="new"))]).gaps[0].kind == "refused"


async def test_facts_for_a_verdict_come_with_every_proof(told: tuple[Site, list[Observed]]) -> None:
    from resolver.pointing import GrpcPointers
    from resolver.server import build
    from resolver.tracing import Tracer

    built, recorded = told
    config = {
        "listen": "127.0.0.1:0",
        "root_key": "root.pub",
        "root_endpoints": [built.nodes.of_zone[""].endpoint],
    }
    resolver = build(command_config(config, built), {})
    tracer = Tracer(resolver, GrpcPointers())
    try:
        traced = await tracer.trace(Identifier.parse(DOSE))
    finally:
        await tracer.close()
        await resolver.close()
    facts = traced.facts()
    assert facts.lot == "L1"
    assert set(facts.parties) == {MAKER, CARRIER, CENTRE, CLINIC}
    assert facts.recalls_unknown == ()
    assert facts.gaps == ()
    assert {one.identifier for one in facts.observed} == {one.identifier for one in recorded}
    assert {str(bundle.identifier) for bundle in traced.bundles} >= {one.identifier for one in recorded}


def command_config(settings: dict[str, Any], built: Site) -> Any:
    from resolver.config import ResolverConfig

    return ResolverConfig.parse(settings, built.nodes.folder)

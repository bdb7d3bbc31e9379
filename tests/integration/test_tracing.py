"""What tracing does at its edges: no time, no room, no home, refusals, silence; each is a gap, and the rest is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import grpc.aio
import pytest

from idtrace.bundle import Bundle, Verdict
from idtrace.epcis.statement import event_body
from idtrace.epcis.write import event_bytes
from idtrace.errors import BusyError, IdtraceError, Reason, RefusedError
from idtrace.identifier import Identifier, Prefix
from idtrace.product import PRODUCT_TYPE
from idtrace.provenance.gather import GatherLimits, Pointer, Question, pointers_of
from idtrace.provenance.history import GapKind, Observed
from idtrace.provenance.reading import read_event
from idtrace.record import Permission, Record, build_values
from idtrace.signature import Signed
from idtrace.v1 import pointer_pb2, pointer_pb2_grpc
from resolver.driver import Resolver
from resolver.pointing import GrpcPointers
from resolver.resolution import Resolution
from resolver.trace_service import licences
from resolver.tracing import Traced, TraceLimits, Tracer
from tests.core_fixtures import salts
from tests.nodes import free_port, make_record
from tests.unit.provenance.story import BOX, CENTRE, DOSE, MAKER, about, at, chain, made, measured
from tests.unit.verdict.facts_builder import product

GATE = "https://example.com/gate"


@dataclass
class World:
    """A resolver and the pointers of all nodes, in memory; what is in ``broken`` fails in that way."""

    records: dict[str, Record] = field(default_factory=dict)
    pointers: dict[tuple[str, ...], list[Pointer]] = field(default_factory=dict)
    broken: dict[str, Any] = field(default_factory=dict)
    refusals: dict[str, IdtraceError] = field(default_factory=dict)
    slow: set[str] = field(default_factory=set)
    zones: set[str] = field(default_factory=lambda: {"88.118.8", "88.118.30", "88.118.20", "88.118.9"})
    more: bool = False
    clock: Any = field(default_factory=lambda: SimpleNamespace(wall_ms=lambda: at(1000)))
    asked: list[tuple[str, ...]] = field(default_factory=list)
    closed: bool = False

    def tell(self, told: Iterable[Observed], *, at_home: bool = True) -> list[Observed]:
        recorded = []
        for one in told:
            body, values = event_body(Prefix.parse(one.party), event_bytes(one.event), issued_at=1_770_000_000)
            record = Record(Signed("application/vnd.idtrace.record.v1+json", body.payload(), ()), values)
            observed = read_event(record, logged=False)
            self.records[observed.identifier] = record
            recorded.append(observed)
            for pointer in pointers_of((observed,)):
                home = pointer.subject.partition("/")[0] if at_home and pointer.subject[0] == "8" else one.party
                self.pointers.setdefault((f"{home}:1",), []).append(pointer)
        return recorded

    async def resolve(self, identifier: Identifier, *, fresh: bool = False) -> Any:
        text = str(identifier)
        if text in self.slow:
            await asyncio.Event().wait()  # nobody ever answers
        wrong = self.broken.get(text)
        if isinstance(wrong, IdtraceError):
            raise wrong
        if isinstance(wrong, Verdict):
            return SimpleNamespace(resolution=Resolution(identifier, wrong, Reason.NO_ANSWER, "silence"))
        zone = str(identifier.prefix) if str(identifier.prefix) in self.zones else ""
        endpoints = (f"{zone or 'root'}:1",)
        chain: Any = SimpleNamespace(zone=Prefix.parse(zone), delegation=SimpleNamespace(endpoints=endpoints))
        record = self.records.get(text)
        bundle = Bundle(identifier, (), record) if record is not None else None
        verdict = Verdict.FOUND if record is not None else Verdict.ABSENT
        return SimpleNamespace(resolution=Resolution(identifier, verdict, None, "denied", bundle, chain))

    async def ask(self, endpoints: Sequence[str], question: Question, timeout_ms: int) -> tuple[list[Pointer], bool]:
        self.asked.append(tuple(endpoints))
        refusal = self.refusals.get(question.subject)
        if refusal is not None:
            raise refusal
        kept = self.pointers.get(tuple(endpoints), [])
        found = [one for one in kept if one.subject == question.subject]
        return [one for one in found if question.start_ms <= one.time_ms <= question.end_ms], self.more

    async def close(self) -> None:
        self.closed = True

    def tracer(self, **limits: Any) -> Tracer:
        return Tracer(cast("Resolver", self), self, TraceLimits(**limits))


async def traced(world: World, **limits: Any) -> Traced:
    tracer = world.tracer(**limits)
    try:
        return await tracer.trace(Identifier.parse(DOSE))
    finally:
        await tracer.close()
        assert world.closed


def gaps(found: Traced) -> list[tuple[GapKind, str]]:
    return [(gap.kind, gap.subject) for gap in found.gaps]


async def test_all_of_a_chain_is_found() -> None:
    world = World()
    recorded = world.tell(chain())
    found = await traced(world)
    assert [one.identifier for one in found.observed] == [
        one.identifier for one in sorted(recorded, key=lambda one: (one.event.time_ms, one.identifier))
    ]
    assert gaps(found) == []


async def test_what_no_node_keeps_is_asked_of_those_who_have_reported_of_it() -> None:
    world = World()
    there = about(CENTRE, 10, "storing", DOSE, biz_location=GATE)
    read = measured(CENTRE, 60, "", (20, "5"), place=GATE)
    world.tell([made(0, DOSE), there, read])
    found = await traced(world)
    assert len(found.observed) == 3
    assert ("root:1",) not in world.asked
    world.broken[f"{CENTRE}/recalls"] = Verdict.UNREACHABLE
    assert (GapKind.UNREACHABLE, GATE) in gaps(await traced(world))


async def test_a_zone_that_nobody_has_is_no_home_and_its_reporters_are_asked() -> None:
    world = World()
    shelf = "86.1/SHELF"
    world.tell([made(0, DOSE, place=shelf), measured(MAKER, 60, "", (20, "5"), place=shelf)], at_home=True)
    world.pointers[("88.118.8:1",)] = [one for kept in world.pointers.values() for one in kept]
    found = await traced(world)
    assert len(found.observed) == 2
    assert ("root:1",) not in world.asked


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (Verdict.UNREACHABLE, GapKind.UNREACHABLE),
        (Verdict.BOGUS, GapKind.BOGUS),
        (Verdict.GONE, GapKind.MISSING),
        (BusyError(Reason.OVERLOADED, "full"), GapKind.UNREACHABLE),
    ],
)
async def test_an_event_or_a_home_that_cannot_be_had_is_a_gap_of_its_kind(wrong: Any, kind: GapKind) -> None:
    world = World()
    recorded = world.tell(chain())
    world.broken[recorded[-1].identifier] = wrong
    world.broken[BOX] = wrong
    found = await traced(world)
    assert set(gaps(found)) == {(kind, recorded[-1].identifier), (kind, BOX)}


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (RefusedError(Reason.NOT_AUTHORITATIVE, "no"), GapKind.REFUSED),
        (BusyError(Reason.NO_ANSWER, "silence"), GapKind.UNREACHABLE),
    ],
)
async def test_pointers_that_are_refused_or_never_come_are_a_gap(wrong: IdtraceError, kind: GapKind) -> None:
    world = World()
    world.tell(chain())
    world.refusals[BOX] = wrong
    assert gaps(await traced(world)) == [(kind, BOX)]


async def test_a_record_that_is_no_event_and_a_pointer_to_no_identifier_are_misfits() -> None:
    world = World()
    world.tell(chain())
    body, values = event_body(Prefix.parse(MAKER), b"{}", issued_at=1)
    world.records[str(body.identifier)] = Record(Signed("x", body.payload(), ()), values)
    for event in (str(body.identifier), "no identifier"):
        world.pointers[("88.118.8:1",)].append(Pointer(DOSE, at(1), event, "epc"))
    found = [(GapKind.UNFOUNDED, "no identifier"), (GapKind.UNREADABLE, str(body.identifier))]
    assert sorted(gaps(await traced(world))) == found


async def test_time_ends_in_gaps_and_never_in_nothing() -> None:
    world = World()
    recorded = world.tell(chain())
    world.slow.add(recorded[-1].identifier)
    started = asyncio.get_running_loop().time()
    found = await traced(world, total_ms=400, call_ms=200)
    assert asyncio.get_running_loop().time() - started < 5
    assert gaps(found)[0] == (GapKind.UNREACHABLE, recorded[-1].identifier)
    assert len(found.observed) == len(recorded) - 1


async def test_more_pointers_or_parties_than_the_limit_are_said_to_be() -> None:
    world = World(more=True)
    world.tell(chain()[:1])
    assert (GapKind.BOUND, DOSE) in gaps(await traced(world, gather=GatherLimits(pointers=5)))
    world = World()
    world.tell(chain())
    assert gaps(await traced(world, parties=3)) == [(GapKind.BOUND, DOSE)]
    assert gaps(await traced(world, parties=4)) == []


@pytest.mark.parametrize("paper", ["88.118.8/recalls", "88.118/party/88.118.8", "88.118.8/class/v1"])
async def test_a_paper_that_cannot_be_asked_for_is_a_gap_and_never_silence(paper: str) -> None:
    world = World()
    world.tell([made(0, DOSE)])
    world.records[DOSE] = make_record(DOSE, class_id=Identifier.parse("88.118.8/class/v1"))
    world.broken[paper] = BusyError(Reason.OVERLOADED, "too many walks")
    assert gaps(await traced(world)) == [(GapKind.UNREACHABLE, paper)]


async def test_classes_are_followed_to_the_zone_of_each_and_to_the_maker() -> None:
    world = World()
    world.tell([made(0, DOSE)])
    line = ["88.118.8/class/v1", "86.5/class/all", "86.6/class/x", "86.7/class/x", "86.8/class/too-deep"]
    world.records[DOSE] = make_record(DOSE, class_id=Identifier.parse(line[0]))
    for name, above in pairwise(line):
        world.records[name] = make_record(name, class_id=Identifier.parse(above))
    told = product(maker="87.1").payload()
    entries = [(PRODUCT_TYPE, told, Permission.PUBLIC)]
    digests, shown = build_values(entries, salts())
    of_family = make_record(line[1], kept=digests, class_id=Identifier.parse(line[2]))
    world.records[line[1]] = Record(of_family.signed, shown)
    papers = [str(one.identifier) for one in (await traced(world)).papers]
    assert papers[:4] == line[:4]
    assert line[4] not in papers, "classes inherit four deep"
    assert {"86/recalls", "86.5/recalls", "87.1/recalls", "87/recalls"} <= set(papers)


async def test_no_more_traces_at_once_than_the_limit_and_a_place_is_given_back() -> None:
    world = World()
    world.tell(chain())
    tracer = world.tracer(traces=1)
    first = asyncio.create_task(tracer.trace(Identifier.parse(DOSE)))
    await asyncio.sleep(0)
    with pytest.raises(BusyError, match="1 traces are under way"):
        await tracer.trace(Identifier.parse(DOSE))
    await first
    await tracer.trace(Identifier.parse(DOSE))
    assert tracer.under_way == 0


async def test_a_paper_that_is_no_licence_licenses_nobody() -> None:
    identifier = Identifier.parse(f"88.118/party/{MAKER}")
    body, values = event_body(Prefix.parse(MAKER), b"{}", issued_at=1)
    record = Record(Signed("x", replace(body, identifier=identifier).payload(), ()), values)
    paper = Resolution(identifier, Verdict.FOUND, None, "", Bundle(identifier, (), record))
    assert licences((paper, replace(paper, bundle=None))) == {}


class Pages(pointer_pb2_grpc.PointerServiceServicer):
    """A node that tells pointers two at a time, and never stops where it is told to repeat itself."""

    def __init__(self) -> None:
        self.kept = [pointer_pb2.Pointer(time_ms=n, event=f"e{n}", role="epc") for n in range(1, 8)]
        self.repeats = False

    async def List(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        after = (request.after.time_ms, request.after.event)
        left = self.kept if self.repeats else [one for one in self.kept if (one.time_ms, one.event) > after]
        if request.subject == "refused":
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        return pointer_pb2.PointerServiceListResponse(pointers=left[:2], more=self.repeats or len(left) > 2)


async def test_pages_are_read_to_the_end_of_the_time_or_the_limit() -> None:
    server, pages = grpc.aio.server(), Pages()  # type: ignore[abstract]  # nothing else is asked of it
    pointer_pb2_grpc.add_PointerServiceServicer_to_server(pages, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    here, nowhere = f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}"
    source = GrpcPointers(channels_max=1)

    async def ask(start: int, end: int, most: int, *endpoints: str, subject: str = "s") -> tuple[list[int], bool]:
        found, more = await source.ask(endpoints or (here,), Question(subject, start, end, most), 2_000)
        return [one.time_ms for one in found], more

    try:
        assert await ask(-(2**62), 2**62, 100) == ([1, 2, 3, 4, 5, 6, 7], False)
        assert await ask(3, 5, 100) == ([3, 4, 5], False)
        assert await ask(0, 100, 7) == ([1, 2, 3, 4, 5, 6, 7], False)
        assert await ask(0, 100, 6) == ([1, 2, 3, 4, 5, 6], True)
        assert await ask(0, 100, 6, nowhere, here) == ([1, 2, 3, 4, 5, 6], True)
        pages.repeats = True
        assert await ask(0, 100, 50) == ([1, 2, 1, 2], False)
        for endpoints, subject in (((nowhere,), "s"), ((here,), "refused")):
            with pytest.raises(BusyError):
                await ask(0, 100, 7, *endpoints, subject=subject)
        with pytest.raises(BusyError, match="no endpoint"):
            await source.ask((), Question("s", 0, 1, 1), 100)
    finally:
        await source.close()
        await server.stop(None)

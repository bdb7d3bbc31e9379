"""Who holds a recalled lot, on real nodes: from the recall's record to the clinics, by gRPC and by the command."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc.aio
import pytest
import typer
from typer.testing import CliRunner

from idtrace.bundle import Verdict
from idtrace.cli import recall_holders
from idtrace.cli.exits import ExitCode, Failure
from idtrace.cli.output import Output
from idtrace.coldchain.profiles import BUILT_IN
from idtrace.epcis.model import Action, Typed
from idtrace.errors import BusyError, IdtraceError, Reason, RefusedError, VerificationError
from idtrace.identifier import Identifier, Prefix
from idtrace.product import PRODUCT_TYPE, Product
from idtrace.provenance.history import GapKind, Observed
from idtrace.provenance.holders import HolderLimits
from idtrace.recall import RECALL_TYPE, Recall, Scope, ScopeKind, format_recall
from idtrace.record import RecordKind
from idtrace.v1 import resolver_pb2 as pb
from resolver.driver import Resolver
from resolver.holders import Holders, HoldersLimits
from resolver.tracing import TraceLimits
from tests.integration.test_judging import paper
from tests.integration.test_tracing import World
from tests.nodes import make_record
from tests.trace_site import Site, site
from tests.unit.provenance.story import CENTRE, CLINIC, MAKER, about, packed, received, shipped, unpacked, uri

CLASS = Identifier.parse(f"{MAKER}/class/v1")
RECALL = Recall(
    MAKER, "R-1", Scope(ScopeKind.LOT, str(CLASS), "L1"), 1, "glass", "玻璃", int(time.time()) - 60,
)  # fmt: skip
DOSES = [f"{MAKER}/SN-{number}" for number in range(8)]
CARTONS = [f"{MAKER}/C-{number}" for number in range(2)]
PALLET = f"{MAKER}/P-1"


def story() -> list[Observed]:
    """Two cartons of four on a pallet to the centre; one goes on to the clinic, which knows of the recall."""
    ilmd = {"cbvmda:lotNumber": "L1"}
    context = {"extensions": {"idtrace:recall": "R-1"}}
    return [
        about(MAKER, 0, "commissioning", *DOSES, action=Action.ADD, ilmd=ilmd),
        *(packed(MAKER, 5 + n, CARTONS[n], *DOSES[4 * n : 4 * n + 4]) for n in range(2)),
        packed(MAKER, 10, PALLET, *CARTONS),
        shipped(MAKER, 20, CENTRE, PALLET),
        received(CENTRE, 60, MAKER, PALLET, place=f"{CENTRE}/ROOM-1"),
        unpacked(CENTRE, 70, PALLET, CARTONS[1]),
        shipped(CENTRE, 80, CLINIC, CARTONS[1]),
        received(CLINIC, 90, CENTRE, CARTONS[1], place=f"{CLINIC}/FRIDGE"),
        about(
            CLINIC, 100, "holding", CARTONS[1], disposition="recalled",
            biz_transactions=(Typed("", uri(f"{MAKER}/recalls")),), **context,
        ),
    ]  # fmt: skip


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as built:
        product = Product(str(CLASS), "Vaccine", "疫苗", MAKER, 1, 0, BUILT_IN["2-8"])
        await built.nodes.submit(paper(str(CLASS), PRODUCT_TYPE, product.payload(), kind=RecordKind.CLASS), "class-key")
        await built.nodes.submit(make_record(DOSES[0], {"lot": "L1"}, class_id=CLASS), "dose-key-0")
        await built.nodes.submit(paper(f"{MAKER}/recalls", RECALL_TYPE, format_recall(RECALL)), "recall-key")
        recorded = await built.tell(story())
        await built.until_pointed(recorded, [DOSES[0], DOSES[7], *CARTONS, PALLET])
        yield built


async def run(built: Site, *more: str, name: str = "R-1") -> Any:
    """The command alone: the group that it belongs to has a file of its own."""
    app = typer.Typer()

    @app.callback()
    def begin(ctx: typer.Context) -> None:
        ctx.obj = ctx.obj or Output()

    app.command()(recall_holders.who_holds)
    root = str(built.nodes.root_key)
    options = ["who-holds", name, "--zone", MAKER, "--resolver", built.resolver, "--root", root, *more]
    return await asyncio.to_thread(CliRunner().invoke, app, options, env={"COLUMNS": "80", "NO_COLOR": "1"})


@pytest.mark.slow
async def test_holders_are_found_and_shown_with_who_knows_of_it(told: Site) -> None:
    parts = [part async for part in told.stub.WhoHolds(pb.WhoHoldsRequest(zone=MAKER, recall="R-1"), timeout=30)]
    kinds = [part.WhichOneof("part") for part in parts]
    assert kinds == ["recalls", "row", "row", "summary"]
    rows = {part.row.holder: part.row for part in parts if part.WhichOneof("part") == "row"}
    assert {holder: (row.packages, row.doses, row.place) for holder, row in rows.items()} == {
        CENTRE: (1, 4, f"{CENTRE}/ROOM-1"), CLINIC: (1, 4, f"{CLINIC}/FRIDGE"),
    }  # fmt: skip
    assert rows[CLINIC].HasField("acknowledged_ms")
    assert not rows[CENTRE].HasField("acknowledged_ms")
    assert (parts[-1].summary.doses, parts[-1].summary.rows, parts[-1].summary.gaps) == (8, 2, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("zone", "name", "reason"),
    [
        (MAKER, "R-2", "RECALL_ABSENT"), (CENTRE, "R-1", "RECALL_ABSENT"), (MAKER, "", "FIELD_MISSING"),
        (MAKER, "x" * 65, "FIELD_TOO_LARGE"), ("88..1", "R-1", "IDENTIFIER_MALFORMED"),
    ],
)  # fmt: skip
async def test_what_is_not_recalled_is_refused(told: Site, zone: str, name: str, reason: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [part async for part in told.stub.WhoHolds(pb.WhoHoldsRequest(zone=zone, recall=name), timeout=30)]
    assert reason in (caught.value.details() or "")


@pytest.mark.slow
async def test_the_command_shows_a_table_of_eighty_columns_with_its_total(told: Site) -> None:
    ran = await run(told)
    assert ran.exit_code == ExitCode.OK, ran.stdout
    lines = ran.stdout[ran.stdout.index("recall R-1 of") :].splitlines()
    assert max(len(line) for line in lines) <= 80
    assert "8 doses at 2 holders, 1 of which know of it; 0 were given or ended" in " ".join(lines)
    assert [line.split()[:2] for line in lines[2:4]] == [[CENTRE, "ROOM-1"], [CLINIC, "FRIDGE"]]
    shown = (await run(told, "--json")).stdout
    shown = json.loads(shown[shown.index("{\n") :])
    assert (shown["doses"], shown["gaps"], shown["exit_code"]) == (8, [], 0)
    assert [one["holder"] for one in shown["holders"]] == [CENTRE, CLINIC]
    assert shown["holders"][1]["acknowledged_ms"] is not None
    refused = (await run(told, name="R-2")).exception
    assert isinstance(refused, Failure)
    assert refused.code is ExitCode.REFUSED


# What goes wrong on the way, without nodes


def world() -> World:
    made = World()
    recorded = paper(f"{MAKER}/recalls", RECALL_TYPE, format_recall(RECALL))
    made.records[f"{MAKER}/recalls"] = recorded
    made.records[str(CLASS)] = paper(
        str(CLASS), PRODUCT_TYPE, Product(str(CLASS), "V", "疫", MAKER, 1, 0, BUILT_IN["2-8"]).payload(),
        kind=RecordKind.CLASS,
    )  # fmt: skip
    made.records[DOSES[0]] = make_record(DOSES[0], {"lot": "L1"}, class_id=CLASS)
    return made


def holders(of: World, **limits: Any) -> Holders:
    return Holders(cast("Resolver", of), of, HoldersLimits(trace=TraceLimits(**limits)))


async def test_gaps_are_told_and_the_rest_is_found() -> None:
    of = world()
    recorded = of.tell(story())
    of.broken[recorded[3].identifier] = Verdict.UNREACHABLE  # how the pallet was packed
    held = await holders(of).who_holds(Prefix.parse(MAKER), "R-1")
    assert (held.recall.name, held.found.doses) == ("R-1", 8)
    assert [(gap.kind, gap.subject) for gap in held.found.gaps] == [(GapKind.UNREACHABLE, recorded[3].identifier)]
    assert {row.holder for row in held.found.rows} == {MAKER, CLINIC}


@pytest.mark.parametrize(
    ("wrong", "expected", "reason"),
    [
        (Verdict.UNREACHABLE, BusyError, Reason.NO_ANSWER),
        (Verdict.BOGUS, VerificationError, Reason.NO_ANSWER),
        (None, RefusedError, Reason.RECALL_ABSENT),
    ],
)
async def test_a_recall_that_cannot_be_had_is_an_error_of_its_kind(
    wrong: Verdict | None, expected: type[IdtraceError], reason: Reason
) -> None:
    of = world()
    if wrong is None:
        del of.records[f"{MAKER}/recalls"]
        of.records[f"{MAKER}/recalls"] = make_record(f"{MAKER}/recalls", {"note": "x"})
    else:
        of.broken[f"{MAKER}/recalls"] = wrong
    with pytest.raises(expected) as caught:
        await holders(of).who_holds(Prefix.parse(MAKER), "R-1")
    assert caught.value.reason is reason


async def test_a_zone_that_has_no_say_over_the_product_finds_nothing_of_it_and_is_told() -> None:
    of = world()
    foreign = Recall(CLINIC, "R-1", RECALL.scope, 1, "glass", "玻璃", 1)
    of.records[f"{CLINIC}/recalls"] = paper(f"{CLINIC}/recalls", RECALL_TYPE, format_recall(foreign))
    of.tell(story())
    held = await holders(of).who_holds(Prefix.parse(CLINIC), "R-1")
    assert (held.found.doses, held.found.rows) == (0, ())
    assert GapKind.MISFIT in {gap.kind for gap in held.found.gaps}
    assert any("has no say over this product" in gap.detail for gap in held.found.gaps)


async def test_an_unknown_class_or_dose_is_a_gap_and_the_doses_count() -> None:
    of = world()
    of.tell(story())
    of.broken[str(CLASS)] = Verdict.UNREACHABLE
    of.broken[DOSES[0]] = Verdict.UNREACHABLE
    held = await holders(of).who_holds(Prefix.parse(MAKER), "R-1")
    assert held.found.doses == 8
    assert {(gap.kind, gap.subject) for gap in held.found.gaps} == {
        (GapKind.UNREACHABLE, str(CLASS)), (GapKind.UNREACHABLE, DOSES[0]),
    }  # fmt: skip


async def test_an_item_recall_asks_for_no_class_and_time_ends_it_with_a_gap() -> None:
    of = world()
    items = Recall(MAKER, "R-1", Scope(ScopeKind.ITEMS, items=tuple(DOSES[:2])), 1, "glass", "玻璃", 1)
    of.records[f"{MAKER}/recalls"] = paper(f"{MAKER}/recalls", RECALL_TYPE, format_recall(items))
    of.tell(story())
    of.broken[str(CLASS)] = Verdict.UNREACHABLE
    held = await holders(of).who_holds(Prefix.parse(MAKER), "R-1")
    assert (held.found.doses, held.found.gaps) == (2, ())
    late = await holders(of, total_ms=0).who_holds(Prefix.parse(MAKER), "R-1")
    assert [gap.kind for gap in late.found.gaps] == [GapKind.BOUND]
    assert "within 0 ms" in late.found.gaps[0].detail


async def test_no_more_searches_than_two_at_once_and_a_place_is_given_back() -> None:
    search = holders(world())
    search.under_way = 2
    with pytest.raises(BusyError):
        await search.who_holds(Prefix.parse(MAKER), "R-1")
    search.under_way = 1
    await search.who_holds(Prefix.parse(MAKER), "R-1")
    assert search.under_way == 1


async def test_limits_of_the_search_hold_here_too() -> None:
    of = world()
    of.tell(story())
    few = Holders(cast("Resolver", of), of, HoldersLimits(search=HolderLimits(events=2)))
    held = await few.who_holds(Prefix.parse(MAKER), "R-1")
    assert GapKind.BOUND in {gap.kind for gap in held.found.gaps}

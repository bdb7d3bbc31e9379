"""A thousand drug codes at real nodes: activated, packed, shipped, received, replaced, cancelled, queried."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from idtrace.cli.drug_query import Checked
from idtrace.cli.exits import ExitCode
from idtrace.delegation import Role
from idtrace.drugcode.acts import Activation, events_of
from idtrace.drugcode.codes import identifier_of
from idtrace.epcis.write import event_bytes
from idtrace.provenance.reading import read_event
from idtrace.v1 import drugcode_pb2, drugcode_pb2_grpc
from tests.capture_fixtures import event_record
from tests.cli import Ran, idtrace, key_file
from tests.nodes import key_name
from tests.trace_site import Site, site
from tests.unit.provenance.story import CENTRE, MAKER

CODES = tuple(f"8123456{number:013d}" for number in range(1, 1_001))
CARTONS, OLD, ENDED, BOXES = CODES[:20], CODES[20], CODES[21], CODES[22:]
NEW, ABSENT = "81234569000000000001", "81234569000000000002"
BEGIN = dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(hours=6)


def at(minutes: int) -> str:
    return (BEGIN + dt.timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def shown(ran: Ran) -> Any:
    return json.loads(ran.out[ran.out.index("{\n") :])


async def drug(built: Site, party: str, *arguments: object) -> Ran:
    key = key_file(built.nodes.folder, key_name(Role.RECORD, party))
    more = ("--party", party, "--key", key, "--node", built.nodes.of_zone[party].endpoint)
    ran = await asyncio.to_thread(idtrace, "drug", *arguments, *more)
    assert ran.code == ExitCode.OK, ran.said[-2_000:]
    return ran


async def ask(built: Site, *arguments: object) -> Ran:
    options = ("--resolver", built.resolver, "--root", built.nodes.root_key, "--json")
    return await asyncio.to_thread(idtrace, "drug", "query", *arguments, *options)


async def activated(built: Site) -> None:
    await built.nodes.registry("drug")
    await built.nodes.registry("drug.8123456")
    for start in range(0, 1_000, 50):
        codes = (*CODES[start : start + 50], *((NEW,) if not start else ()))
        await asyncio.gather(*(built.nodes.register(str(identifier_of(code)), {"lot": "L1"}) for code in codes))
    (event,) = events_of(Activation(CODES, int(BEGIN.timestamp() * 1000), 0, "L1", "2099-01-31"), MAKER)
    record = event_record(MAKER, event_bytes(event))
    await built.nodes.submit(record, read_event(record, logged=False).identifier[-32:])


async def lived(built: Site, folder: Path) -> None:
    """Packed by 49 to a carton, one replaced, one cancelled, the cartons shipped and received."""
    for number, carton in enumerate(CARTONS):
        inside = BOXES[number * 49 : number * 49 + 49]
        await drug(built, MAKER, "pack", carton, *inside, "--at", at(1 + number))
    await drug(built, MAKER, "replace", OLD, NEW, "--number", "R-1", "--at", at(40))
    await drug(built, MAKER, "cancel", ENDED, "--at", at(41))
    bill = folder / "out.json"
    bill.write_text(json.dumps({"bill": "CK-1", "time": at(60), "partner": CENTRE, "codes": CARTONS}), encoding="utf-8")
    await drug(built, MAKER, "bill", "out", bill)
    rows = folder / "in.csv"
    rows.write_text("\n".join(["code,lot", *(f"{carton},L1" for carton in CARTONS)]) + "\n", encoding="utf-8")
    await drug(built, CENTRE, "bill", "in", rows, "--bill", "RK-1", "--partner", MAKER, "--at", at(120))


async def settled(built: Site) -> Any:
    """The answer, once every pointer has come home."""
    file = built.nodes.folder / "codes.txt"
    file.write_text("\n".join(CODES) + "\n", encoding="utf-8")
    states: Counter[str] = Counter()
    for _ in range(20):
        ran = await ask(built, "--from", file)
        assert ran.code == ExitCode.OK, ran.said[-2_000:]
        body = shown(ran)
        states = Counter(one["state"] for one in body["codes"])
        if states == {"I": 998, "C": 2}:
            return body
        await asyncio.sleep(0.5)
    pytest.fail(f"the pointers have not come home: {states}")


async def test_a_thousand_codes_live_and_are_told_of_in_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with site(tmp_path) as built:
        await activated(built)
        await lived(built, tmp_path)
        body = await settled(built)
        by_code = {one["code"]: one for one in body["codes"]}
        assert list(by_code) == list(CODES)
        assert [one["breaches"] for one in body["codes"] if one["breaches"]] == []
        assert {(one["lot"], one["expiry"]) for one in body["codes"]} == {("L1", "2099-01-31")}
        assert (by_code[OLD]["replaced_by"], by_code[ENDED]["replaced_by"]) == (NEW, "")
        box, carton = by_code[BOXES[0]], by_code[CARTONS[0]]
        assert (box["level"], box["parent"], box["party"]) == (1, CARTONS[0], CENTRE)
        assert (carton["level"], carton["parent"]) == (2, "")
        some = shown(await ask(built, NEW, ABSENT, "12345", NEW))
        assert [(one["code"], one["state"]) for one in some["codes"]] == [(NEW, "A"), (ABSENT, "E")]
        assert [one["reason"] for one in some["unfit"]] == ["length", "twice"]
        await service_rules(built)


async def service_rules(built: Site) -> None:
    """Paging, bounds, and that a forged proof changes nothing but the exit code."""
    async with grpc.aio.insecure_channel(built.resolver) as channel:
        stub: Any = drugcode_pb2_grpc.DrugCodeServiceStub(channel)
        relation = await stub.QueryRelation(drugcode_pb2.QueryRelationRequest(code=CARTONS[0]), timeout=20)
        assert (relation.total, relation.level, len(relation.children)) == (49, 2, 49)
        assert set(relation.children) == set(BOXES[:49])
        beyond = await stub.QueryRelation(drugcode_pb2.QueryRelationRequest(code=CARTONS[0], page=1), timeout=20)
        assert (beyond.total, list(beyond.children)) == (49, [])
        for codes, verdict in (([], False), ([*CODES, NEW], False), (CODES[:51], True)):
            request = drugcode_pb2.QueryCodesRequest(codes=codes, verdict=verdict)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await anext(aiter(stub.QueryCodes(request, timeout=20)))
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        request = drugcode_pb2.QueryCodesRequest(codes=[BOXES[0], "1"], proofs=True, verdict=True)
        parts = [part async for part in stub.QueryCodes(request, timeout=25)]
        told = [part.code for part in parts if part.WhichOneof("part") == "code"]
        assert [(one.state, one.unfit, bool(one.use)) for one in told] == [("I", "", True), ("", "length", False)]
        now = int(dt.datetime.now(dt.UTC).timestamp())
        assert Checked(parts, built.nodes.anchor, now).entries([BOXES[0]], now)[0].state == "I"
        for part in parts:
            if part.WhichOneof("part") == "proof" and "/event/" in part.proof.identifier:
                value = part.proof.record.values[0]
                value.data = value.data.replace(b"receiving", b"shipping!")
        forged = Checked(parts, built.nodes.anchor, now)
        assert len(forged.forged) == 1
        # What does not verify counts for nothing: left is what the maker has truly said.
        left = forged.entries([BOXES[0]], now)[0]
        assert (left.state, left.party) == ("O", MAKER)

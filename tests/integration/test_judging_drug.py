"""A box with a drug trace code has a class under its own code, and a verdict like any other thing."""

from __future__ import annotations

import time
from pathlib import Path

from idtrace.coldchain.profiles import BUILT_IN
from idtrace.epcis.model import Action, SensorElement, SensorMetadata, SensorReport
from idtrace.identifier import Identifier
from idtrace.product import PRODUCT_TYPE, Product
from idtrace.provenance.history import Observed
from idtrace.record import RecordKind
from idtrace.v1 import resolver_pb2 as pb
from tests.integration.test_judging import paper
from tests.nodes import make_record
from tests.trace_site import site
from tests.unit.provenance.story import MAKER, about, uri

CODE = "81234567890123456789"
BOX = "drug.8123456/7890123456789"
CLASS = Identifier.parse("drug.8123456/class")


def measured(start_ms: int, end_ms: int) -> tuple[SensorElement, ...]:
    reports = tuple(
        SensorReport("Temperature", time_ms=at, device_id="urn:probe:1", value=4 + n % 3, uom="CEL")  # type: ignore[arg-type]  # a small whole number
        for n, at in enumerate(range(start_ms, end_ms + 1, 300_000))
    )
    return (SensorElement(SensorMetadata(), reports),)


def moved(told: Observed, time_ms: int) -> Observed:
    from dataclasses import replace

    return replace(told, event=replace(told.event, time_ms=time_ms))


async def test_a_sound_box_is_used_by_its_scanned_code(tmp_path: Path) -> None:
    now_ms = int(time.time()) * 1000
    begun_ms = now_ms - 3_600_000
    async with site(tmp_path) as built:
        await built.nodes.registry("drug")
        await built.nodes.registry("drug.8123456")
        product = Product(str(CLASS), "Vaccine", "疫苗", MAKER, 1, 0, BUILT_IN["2-8"])
        await built.nodes.submit(paper(str(CLASS), PRODUCT_TYPE, product.payload(), kind=RecordKind.CLASS), "class-key")
        lot = {"lot": "L1", "expiry": "2099-12-31"}
        await built.nodes.submit(make_record(BOX, lot, class_id=CLASS), "box-key-1")
        made = about(MAKER, 0, "commissioning", BOX, action=Action.ADD)
        warm = about(MAKER, 1, "sensor_reporting", BOX, sensors=measured(begun_ms, now_ms - 60_000))
        told = await built.tell([moved(made, begun_ms), moved(warm, now_ms - 60_000)])
        await built.until_pointed(told, [BOX])
        answer = await built.stub.Judge(pb.JudgeRequest(text=CODE, fresh=True), timeout=20)
        assert [one.code for one in answer.findings] == []
        assert (answer.identifier, answer.use) == (BOX, pb.USE_USE)
        assert uri(BOX) == f"idtrace:{BOX}"

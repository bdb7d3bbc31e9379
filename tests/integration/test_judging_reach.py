"""A recall by its maker reaches a dose with a GS1 number, and the first recall of a zone is not hidden."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from idtrace.coldchain.profiles import BUILT_IN
from idtrace.epcis.model import Action
from idtrace.epcis.uris import uri_of
from idtrace.identifier import Identifier
from idtrace.party import PARTY_TYPE, Party, PartyRole, format_party
from idtrace.product import PRODUCT_TYPE, Product
from idtrace.recall import RECALL_TYPE, Recall, Scope, ScopeKind, format_recall
from idtrace.record import Record, RecordKind
from idtrace.v1 import resolver_pb2 as pb
from tests.integration.test_judging import Site, found, paper
from tests.nodes import TIMEOUT, Nodes, make_record

GTIN = "gs1.01.09506000134352"
DOSE = f"{GTIN}/21.S1"
CLASS = Identifier.parse(f"{GTIN}/class")


class Numbered(Site):
    """As the site of a dose, whose number is GS1's and not its maker's."""

    async def event(self, at_ms: int, step: str, **fields: Any) -> Record:
        return await super().event(at_ms, step, **({"epcs": (uri_of(DOSE),)} | fields))

    async def tell(self) -> None:
        product = Product(str(CLASS), "Vaccine", "疫苗", "88.118.8", 1, 0, BUILT_IN["2-8"])
        now = self.now_ms // 1000
        licence = Party("88.118.8", "Maker", "厂", frozenset({PartyRole.MAKER}), (), now - 86_400, now + 86_400)
        await self.submit(paper("88.118/party/88.118.8", PARTY_TYPE, format_party(licence)))
        await self.submit(paper(str(CLASS), PRODUCT_TYPE, product.payload(), kind=RecordKind.CLASS))
        await self.submit(make_record(DOSE, {"lot": "L1", "expiry": "2099-12-31"}, class_id=CLASS))
        made_ms = self.now_ms - 3_600_000
        await self.event(made_ms, "commissioning", action=Action.ADD)
        await self.measured(made_ms, self.now_ms - 60_000)

    async def judge(self, **fields: Any) -> Any:
        return await self.stub.Judge(pb.JudgeRequest(text=DOSE, **fields), timeout=TIMEOUT)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Numbered]:
    async with Nodes(tmp_path) as nodes:
        for zone in ("", "88", "88.118", "gs1"):
            await nodes.registry(zone)
        await nodes.host("88.118.8", at="88.118")
        await nodes.host("88.118.9", at="88.118")
        await nodes.host(GTIN, at="gs1")
        site = Numbered(nodes, tmp_path)
        await site.tell()
        running = await site.start()
        try:
            yield site
        finally:
            await site.channel.close()
            site.stop.set()
            await running


def recalls(zone: str) -> Record:
    recall = Recall(zone, "R-1", Scope(ScopeKind.LOT, str(CLASS), "L1"), 1, "glass", "玻璃", int(time.time()))
    return paper(f"{zone}/recalls", RECALL_TYPE, format_recall(recall))


@pytest.mark.slow
async def test_the_first_recall_of_the_makers_zone_ends_a_kept_verdict_of_a_gs1_dose(site: Numbered) -> None:
    kept = await site.until_kept()
    assert (found(kept), kept.use, kept.identifier) == ([], pb.USE_USE, DOSE)
    # That 88.118.8 has no recalls was proven, and the denial and the verdict are in memory. A neighbour's word is not
    # even asked for, and changes nothing.
    await site.submit(recalls("88.118.9"))
    assert found(await site.until_kept()) == []
    began = time.monotonic()
    await site.submit(recalls("88.118.8"))
    recalled = await site.until(pb.USE_DO_NOT_USE, 5)
    # A denial is kept for up to 60 s: without the announcement this would be so long.
    assert time.monotonic() - began < 5
    assert found(recalled) == ["RECALLED"]
    assert recalled.findings[0].evidence == ["88.118.8/recalls"]

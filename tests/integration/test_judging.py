"""A dose, its papers and events on real nodes, judged by a real resolver and again by the command line."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from idtrace import wire
from idtrace.cli.exits import ExitCode
from idtrace.coldchain.profiles import BUILT_IN
from idtrace.epcis import statement as event_statement
from idtrace.epcis.model import Action, Event, EventType, SensorElement, SensorMetadata, SensorReport
from idtrace.epcis.write import event_bytes
from idtrace.identifier import Identifier, Prefix
from idtrace.party import PARTY_TYPE, Party, PartyRole, format_party
from idtrace.product import PRODUCT_TYPE, Product
from idtrace.recall import RECALL_TYPE, Recall, Scope, ScopeKind, format_recall
from idtrace.record import Permission, Record, RecordBody, RecordKind, Status, build_values
from idtrace.serving.keyfile import write_private_key, write_public_key
from idtrace.signature import Kind, sign
from idtrace.template import TEMPLATE_TYPE, Template
from idtrace.v1 import registry_pb2, resolver_pb2_grpc
from idtrace.v1 import resolver_pb2 as pb
from resolver import server as resolver_server
from resolver.config import ResolverConfig
from tests.cli import idtrace
from tests.core_fixtures import salts, signer
from tests.nodes import TIMEOUT, Nodes, free_port, make_record, private_key

DOSE = "88.118.8/SN-1"
CLASS = Identifier.parse("88.118.8/class/v1")
RESOLVER_KEY = "the resolver"


def reported(event: Event, by: str = "88.118.8") -> Record:
    data = event_bytes(event)
    identifier = event_statement.event_identifier(Prefix.parse(by), data)
    parts = event_statement.split(data)
    entries = [(event_statement.EVENT_TYPE, part, Permission.PUBLIC) for part in parts]
    digests, shown = build_values(entries, (event_statement.salt(data, n) for n in range(1, len(parts) + 1)))
    body = RecordBody(
        identifier, 1, b"", RecordKind.ITEM, Status.ACTIVE, int(time.time()), 3600, None, digests,
    )  # fmt: skip
    return Record(sign(Kind.RECORD, body.payload(), signer(f"record of {by}")), shown)


def paper(identifier: str, type_: str, data: bytes, **changes: Any) -> Record:
    entries = [(type_, data, Permission.PUBLIC)]
    if changes.get("kind") is RecordKind.CLASS:
        entries.append((TEMPLATE_TYPE, Template((), True).payload(), Permission.PUBLIC))
    digests, shown = build_values(entries, salts())
    record = make_record(identifier, kept=digests, **changes)
    return Record(record.signed, shown)


class Site:
    """The tree with a dose in it, and a resolver that judges."""

    def __init__(self, nodes: Nodes, folder: Path) -> None:
        self.nodes, self.folder = nodes, folder
        self.address = f"127.0.0.1:{free_port()}"
        self.stop = asyncio.Event()
        self.channel = grpc.aio.insecure_channel(
            self.address, options=[("grpc.max_receive_message_length", 33_554_432)]
        )
        self.stub = resolver_pb2_grpc.ResolverServiceStub(self.channel)
        self.now_ms = int(time.time() * 1000)
        self._keys = 0

    async def submit(self, record: Record) -> Record:
        self._keys += 1
        await self.nodes.submit(record, f"judged-{self._keys}")
        return record

    async def update(self, record: Record) -> None:
        self._keys += 1
        node = self.nodes.of_zone["88.118.8"]
        request = registry_pb2.UpdateRequest(idempotency_key=f"judged-{self._keys}", record=wire.record_to_pb(record))
        await node.registry.Update(request, timeout=TIMEOUT)

    async def event(self, at_ms: int, step: str, **fields: Any) -> Record:
        given = {"action": Action.OBSERVE, "epcs": ("idtrace:88.118.8/SN-1",), "biz_step": step} | fields
        return await self.submit(reported(Event(type=EventType.OBJECT, time_ms=at_ms, offset_minutes=480, **given)))

    async def measured(self, start_ms: int, end_ms: int) -> None:
        times = range(start_ms, end_ms + 1, 300_000)
        reports = tuple(
            SensorReport("Temperature", time_ms=at, device_id="urn:probe:1", value=4 + n % 5, uom="CEL")  # type: ignore[arg-type]  # a small whole number
            for n, at in enumerate(times)
        )
        await self.event(end_ms, "sensor_reporting", sensors=(SensorElement(SensorMetadata(), reports),))

    async def tell(self) -> None:
        """A sound dose: its papers, made an hour ago, measured since."""
        product = Product(str(CLASS), "Vaccine", "疫苗", "88.118.8", 1, 0, BUILT_IN["2-8"])
        now = self.now_ms // 1000
        licence = Party("88.118.8", "Maker", "厂", frozenset({PartyRole.MAKER}), (), now - 86_400, now + 86_400)
        await self.submit(paper("88.118/party/88.118.8", PARTY_TYPE, format_party(licence)))
        await self.submit(paper(str(CLASS), PRODUCT_TYPE, product.payload(), kind=RecordKind.CLASS))
        await self.submit(make_record(DOSE, {"lot": "L1", "expiry": "2099-12-31"}, class_id=CLASS))
        made_ms = self.now_ms - 3_600_000
        await self.event(made_ms, "commissioning", action=Action.ADD)
        await self.measured(made_ms, self.now_ms - 60_000)

    async def start(self, **verdict: object) -> asyncio.Task[None]:
        write_private_key(self.folder / "resolver.key", private_key(RESOLVER_KEY))
        write_public_key(self.folder / "resolver.pub", [signer(RESOLVER_KEY).public_key])
        config = ResolverConfig.parse(
            {
                "role": "resolver", "listen": self.address, "root_key": "root.pub",
                "root_endpoints": [self.nodes.of_zone[""].endpoint], "drain_seconds": 0.1,
                "verdict": {"key": "resolver.key"} | verdict,
            },
            self.folder,
        )  # fmt: skip
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(resolver_server.run(config, on_ready=ready.set_result, stop=self.stop))
        waiting: list[asyncio.Future[Any]] = [ready, running]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        return running

    async def judge(self, **fields: Any) -> Any:
        return await self.stub.Judge(pb.JudgeRequest(text=DOSE, **fields), timeout=TIMEOUT)

    async def until(self, use: int, seconds: float = TIMEOUT) -> Any:
        async with asyncio.timeout(seconds):
            while True:
                answer = await self.judge()
                if answer.use == use:
                    return answer
                await asyncio.sleep(0.05)

    async def until_kept(self) -> Any:
        """Watches begin with the first question; what was asked before them is not kept for long."""
        async with asyncio.timeout(20):
            while True:
                answer = await self.judge()
                if answer.source == pb.SOURCE_CACHE and not answer.HasField("unfollowed_ms"):
                    return answer
                await asyncio.sleep(0.2)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Nodes(tmp_path) as nodes:
        await nodes.registry("")
        await nodes.registry("88")
        await nodes.registry("88.118")
        await nodes.host("88.118.8", at="88.118")
        site = Site(nodes, tmp_path)
        await site.tell()
        running = await site.start()
        try:
            yield site
        finally:
            await site.channel.close()
            site.stop.set()
            await running


def found(answer: Any) -> list[str]:
    return [one.code for one in answer.findings]


@pytest.mark.slow
async def test_a_verdict_is_kept_until_a_recall_or_an_event_ends_it(site: Site) -> None:
    first = await site.judge()
    assert (found(first), first.use, first.source) == ([], pb.USE_USE, pb.SOURCE_WALK)
    assert (first.lot, first.expiry, first.product_zh) == ("L1", "2099-12-31", "疫苗")
    kept = await site.until_kept()
    assert (kept.use, kept.now_ms > 0) == (pb.USE_USE, True)
    # A recall, which touches no record of the dose.
    recall = Recall("88.118.8", "R-1", Scope(ScopeKind.LOT, str(CLASS), "L1"), 1, "glass", "玻璃", int(time.time()))
    one = await site.submit(paper("88.118.8/recalls", RECALL_TYPE, format_recall(recall)))
    recalled = await site.until(pb.USE_DO_NOT_USE)
    assert found(recalled) == ["RECALLED"]
    assert recalled.findings[0].text_zh.startswith("已被 88.118.8 召回")
    # It ends, and the dose is as it was.
    ended = replace(recall, ended_at=int(time.time()))
    await site.update(paper("88.118.8/recalls", RECALL_TYPE, format_recall(ended), previous=one))
    await site.until(pb.USE_USE)
    # An event.
    await site.event(int(time.time() * 1000), "inspecting", disposition="stolen")
    assert found(await site.until(pb.USE_DO_NOT_USE)) == ["STOLEN"]


@pytest.mark.slow
async def test_the_command_line_judges_again_and_the_file_judges_without_any_node(site: Site) -> None:
    root, saved, keys = site.folder / "root.pub", site.folder / "sn-1.verdict", site.folder / "resolver.pub"
    asked = ("judge", DOSE, "--resolver", site.address, "--root", str(root), "--resolver-key", str(keys))
    ran = await asyncio.to_thread(idtrace, *asked, "--evidence-out", str(saved))
    assert ran.code == ExitCode.OK, (ran.out, ran.err)
    assert "USE" in ran.out
    assert "可以使用" in ran.out
    offline = ("judge", "--check", str(saved), "--root", str(root), "--resolver-key", str(keys), "--json")
    ran = await asyncio.to_thread(idtrace, *offline)
    told = json.loads(ran.out)
    assert (ran.code, told["use"], told["findings"]) == (0, "USE", [])
    # A file that nobody stands for is no leave to use anything, nor is one of another time.
    bare = ("judge", "--check", str(saved), "--root", str(root))
    ran = await asyncio.to_thread(idtrace, *bare, "--json")
    told = json.loads(ran.out)
    assert (ran.code, told["use"], len(told["cautions"])) == (ExitCode.HOLD, "USE", 1)
    ran = await asyncio.to_thread(idtrace, *bare)
    assert (ran.code, "no leave to use it now" in ran.out) == (ExitCode.HOLD, True)
    ran = await asyncio.to_thread(idtrace, *asked, "--then")
    assert (ran.code, "--check" in ran.err) == (2, True)
    # What lies about it is not believed.
    other = site.folder / "other.pub"
    write_public_key(other, [signer("somebody else").public_key])
    ran = await asyncio.to_thread(
        idtrace, "judge", "--check", str(saved), "--root", str(root), "--resolver-key", str(other)
    )
    assert ran.code == ExitCode.BOGUS
    ran = await asyncio.to_thread(idtrace, "judge", "--check", str(saved), "--root", str(other))
    assert ran.code == ExitCode.BOGUS
    ran = await asyncio.to_thread(idtrace, "judge", "88.118.8/SN-2", "--resolver", site.address, "--root", str(root))
    assert ran.code == ExitCode.DO_NOT_USE
    assert "not registered" in ran.out
    await site.event(int(time.time() * 1000), "holding")
    await site.until(pb.USE_HOLD)
    ran = await asyncio.to_thread(idtrace, *asked, "--lang", "zh")
    assert ran.code == ExitCode.HOLD
    assert "暂停使用" in ran.out

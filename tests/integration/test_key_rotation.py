"""Every key of a zone is replaced on the command line while clients register and resolve: nothing true looks false."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import structlog

from idtrace import wire
from idtrace.bundle import Bundle, Verdict
from idtrace.cli.exits import ExitCode
from idtrace.delegation import Delegation, Role, ZoneKey
from idtrace.errors import IdtraceError, Reason
from idtrace.record import Record
from idtrace.serving.errors import error_from_rpc
from idtrace.v1 import delegation_pb2, resolver_pb2, resolver_pb2_grpc
from idtrace.verification import verify_bundle
from registry.config import LogConfig
from registry.standing import HEAD_SECONDS
from resolver import server as resolver_server
from resolver.config import ResolverConfig
from tests.cli import Ran, idtrace, key_file
from tests.core_fixtures import signer
from tests.integration.test_logged_node import ZONE, LoggedNodes, Read, tree, update
from tests.nodes import TIMEOUT, free_port, key_name, make_record

CHILD = "88.118.9"
# A node that starts again is not there for a moment, and says so; neither is an answer.
CUT_OFF = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}  # the latter: its 0.1 s to finish calls were over
NOT_NOW = {Reason.SHUTTING_DOWN, Reason.OUTCOME_UNKNOWN, Reason.OVERLOADED, Reason.CLOCK_BACK}


@pytest.fixture(autouse=True)
def _silent_nodes() -> Any:
    """Nodes run in this process, where the command line's output is read."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@dataclass
class Load:
    """One client that registers and one that resolves, until they are told to stop."""

    nodes: LoggedNodes
    asks: Any  # a stub of grpc.aio; its types are those of the synchronous one
    record_key: str = key_name(Role.RECORD, ZONE)
    registered: list[Record] = field(default_factory=list)
    saved: list[Bundle] = field(default_factory=list)
    false: list[str] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    clients: list[asyncio.Task[None]] = field(default_factory=list)

    def begin(self) -> None:
        self.clients = [asyncio.create_task(self.write()), asyncio.create_task(self.read())]

    async def stop(self) -> None:
        self.ended.set()
        await asyncio.gather(*self.clients)

    async def write(self) -> None:
        number = 0
        while not self.ended.is_set():
            number += 1
            record = make_record(f"{ZONE}/N{number}", {"n": str(number)}, by=signer(self.record_key))
            if await self.is_registered(record, number):
                self.registered.append(record)
            await asyncio.sleep(0.01)

    async def is_registered(self, record: Record, number: int) -> bool:
        """Tries with the same key until the node has answered."""
        while True:
            try:
                await self.nodes.submit(record, f"register-{number:06}")
            except grpc.aio.AioRpcError as error:
                known = error_from_rpc(error)
                if known.reason not in NOT_NOW if known else error.code() not in CUT_OFF:
                    self.false.append(f"register {number}: {known or error.code()}")
                    return False
                await asyncio.sleep(0.02)
            else:
                return True

    async def read(self) -> None:
        turn = 0
        while not self.ended.is_set():
            turn += 1
            if self.registered:
                await self.resolve(f"{ZONE}/N{1 + turn % len(self.registered)}", fresh=turn % 2 == 0)
            await asyncio.sleep(0.005)

    async def resolve(self, text: str, *, fresh: bool = True) -> int:
        answer = await self.asks.Resolve(resolver_pb2.ResolveRequest(text=text, fresh=fresh), timeout=TIMEOUT)
        if answer.verdict in {resolver_pb2.VERDICT_ABSENT, resolver_pb2.VERDICT_BOGUS, resolver_pb2.VERDICT_GONE}:
            self.false.append(f"resolve {text}: {answer.reason} {answer.detail}")
        if answer.verdict == resolver_pb2.VERDICT_FOUND:
            bundle = wire.bundle_from_pb(answer.bundle)
            report = verify_bundle(bundle, self.nodes.anchor, now=int(time.time()))
            if report.verdict is not Verdict.FOUND:
                self.false.append(f"verify {text}: {report.checks[-1]}")
            self.saved.append(bundle)
        return int(answer.verdict)


class Keys:
    """The people who hold keys, at the command line."""

    def __init__(self, nodes: LoggedNodes, folder: Path) -> None:
        self.nodes = nodes
        self.folder = folder
        self.version = 1

    async def run(self, *arguments: object) -> Ran:
        return await asyncio.to_thread(idtrace, *arguments)

    def file(self, name: str) -> Path:
        return key_file(self.folder, name)

    async def enrolled(self, role: Role, name: str) -> Path:
        out = self.folder / f"{role}.{name.replace(' ', '-')}.json"
        ran = await self.run("key", "enrol", self.file(name), "--zone", ZONE, "--role", role, "--out", out)
        assert ran.code == 0, ran.err
        return out

    async def turn(self, verb: str, role: Role, *more: object, old: str = "") -> Ran:
        """One step at the parent's node, and wait until the zone's node has taken it over."""
        ran = await self.run(
            *("key", verb, "--zone", ZONE, "--role", role, "--old", f"{self.file(old or key_name(role, ZONE))}.pub"),
            *("--key", self.file(key_name(Role.ZONE, "88")), "--node", self.nodes.of_zone["88"].endpoint),
            *("--root", self.nodes.root_key, *more),
        )
        assert ran.code == 0, ran
        self.version += 1
        await self.nodes.until_adopted(self.nodes.of_zone[ZONE], ZONE, self.version)
        return ran

    async def restart(self, **changes: Any) -> None:
        node = self.nodes.of_zone[ZONE]
        await node.end()
        node.config = replace(node.config, **changes)
        await node.start()

    async def checkpoint(self, item: str) -> Path:
        """The log's checkpoint as it comes with an answer."""
        answer = await self.nodes.get(item)
        assert answer.proof is not None
        path = self.folder / "checkpoint"
        path.write_bytes(answer.proof.checkpoint)
        return path


@asynccontextmanager
async def under_load(folder: Path) -> AsyncIterator[tuple[Keys, Load]]:
    async with tree(folder) as nodes:
        listen = f"127.0.0.1:{free_port()}"
        settings = {"listen": listen, "root_key": "root.pub", "root_endpoints": [nodes.of_zone[""].endpoint]}
        stop, ready = asyncio.Event(), asyncio.Event()
        config = ResolverConfig.parse({**settings, "drain_seconds": 0.0}, folder)
        serving = asyncio.create_task(resolver_server.run(config, on_ready=lambda _: ready.set(), stop=stop))
        async with asyncio.timeout(TIMEOUT):
            await ready.wait()
        people = folder / "people"
        people.mkdir()
        async with grpc.aio.insecure_channel(listen) as channel:
            load = Load(nodes, resolver_pb2_grpc.ResolverServiceStub(channel))
            load.begin()
            try:
                yield Keys(nodes, people), load
            finally:
                await load.stop()
        stop.set()
        await serving


async def grown(load: Load, by: int = 5) -> None:
    """Wait until so many more are registered and resolved."""
    registered, resolved = len(load.registered) + by, len(load.saved) + by
    async with asyncio.timeout(TIMEOUT):
        while len(load.registered) < registered or len(load.saved) < resolved:
            assert not load.false, load.false
            await asyncio.sleep(0.02)


async def test_all_keys_of_a_zone_are_replaced_under_load_without_one_false_answer(tmp_path: Path) -> None:
    async with under_load(tmp_path) as (keys, load):
        nodes, node = load.nodes, load.nodes.of_zone[ZONE]
        await nodes.host(CHILD, at=ZONE)
        await grown(load)
        before = list(load.saved)
        for role in (Role.RECORD, Role.NODE, Role.CURRENCY, Role.LOG, Role.ZONE):
            new = f"next {role}"
            await keys.turn("rotate", role, "--enrol", await keys.enrolled(role, new))
            await grown(load)
            end: list[object] = ["--end"]
            if role is Role.RECORD:
                load.record_key = new
                await grown(load)
                end += ["--log", await keys.checkpoint(f"{ZONE}/N{len(load.registered)}")]
            elif role is Role.NODE:
                await keys.restart(node_key=keys.file(new))
            elif role is Role.CURRENCY:
                assert node.config.log is not None
                await keys.restart(log=replace(node.config.log, currency_key=keys.file(new)))
            elif role is Role.LOG:
                log = node.config.log
                assert log is not None
                await keys.restart(log=LogConfig(log.origin, keys.file(new), log.currency_key))
                await grown(load)
                await asyncio.sleep(HEAD_SECONDS + 0.2)  # for so long a checkpoint by the old key is shown
            else:
                ran = await keys.run(
                    *("delegate", "--zone", ZONE, "--child", CHILD, "--key", keys.file(new), "--root", nodes.root_key),
                    *("--enrol", await hosts(keys), "--node", node.endpoint),
                )
                assert ran.code == 0, ran
            await grown(load)
            await keys.turn("rotate", role, *end)
            await grown(load)
        held = await zone_keys_of(nodes)
        assert {r for k in held if k.until is None for r in k.roles} == set(Role)
        assert not {k.key for k in held if k.until is None} & {signer(key_name(r, ZONE)).public_key for r in Role}
        assert load.false == []
        now = int(time.time())
        for bundle in before:
            assert verify_bundle(bundle, nodes.anchor, now=now).verdict is Verdict.FOUND, "a saved proof goes on"
        assert await load.resolve(f"{ZONE}/N1") == resolver_pb2.VERDICT_FOUND, "signed by the ended key, below its end"
        late = make_record(f"{ZONE}/late", {"n": "1"}, by=signer(key_name(Role.RECORD, ZONE)))
        assert await refused(nodes, late) is Reason.SIGNER_UNKNOWN


async def hosts(keys: Keys) -> Path:
    """The host's new node key asks for its role in the hosted zone."""
    out = keys.folder / "host.json"
    ran = await keys.run("key", "enrol", keys.file("next node"), "--zone", CHILD, "--role", "node", "--out", out)
    assert ran.code == 0
    return out


async def zone_keys_of(nodes: LoggedNodes) -> tuple[ZoneKey, ...]:
    request = delegation_pb2.DelegationServiceGetRequest(prefix=ZONE)
    chain = (await nodes.of_zone[ZONE].delegation.Get(request, timeout=TIMEOUT)).chain
    return Delegation.parse(chain[-1].payload).keys


async def refused(nodes: LoggedNodes, record: Record) -> Reason | None:
    try:
        await nodes.submit(record, "register-late")
    except grpc.aio.AioRpcError as error:
        known = error_from_rpc(error)
        assert isinstance(known, IdtraceError)
        return known.reason
    return None


async def test_a_theft_is_dated_back_and_the_owner_signs_anew_what_fell_with_it(tmp_path: Path) -> None:
    async with under_load(tmp_path) as (keys, load):
        nodes = load.nodes
        await grown(load)
        await load.stop()
        since = len(load.registered)  # of the log: its first entry is the zone's keys, so the last record falls
        first, last = load.registered[0], load.registered[-1]
        thief = make_record(f"{ZONE}/stolen", {"n": "1"})
        await nodes.submit(thief, "register-stolen")
        enrol = await keys.enrolled(Role.RECORD, "next record")
        ran = await keys.turn("revoke", Role.RECORD, "--since", since, "--enrol", enrol)
        assert "refused, whatever time stands in them" in ran.said
        assert await refused(nodes, make_record(f"{ZONE}/more", {"n": "2"})) is Reason.SIGNER_UNKNOWN
        assert await load.resolve(f"{ZONE}/N1") == resolver_pb2.VERDICT_FOUND
        assert load.false == []
        assert await load.resolve(f"{ZONE}/stolen") == resolver_pb2.VERDICT_BOGUS
        assert await load.resolve(f"{ZONE}/N{len(load.registered)}") == resolver_pb2.VERDICT_BOGUS
        anew = make_record(f"{ZONE}/N{len(load.registered)}", {"n": "x"}, previous=last, by=signer("next record"))
        await update(nodes, anew, "sign-anew-1")
        assert await load.resolve(f"{ZONE}/N{len(load.registered)}") == resolver_pb2.VERDICT_FOUND
        assert first.hash != last.hash


async def test_a_delegation_that_wants_two_signers_goes_from_hand_to_hand(tmp_path: Path) -> None:
    async with tree(tmp_path) as nodes:
        people = tmp_path / "people"
        people.mkdir()
        keys, node, draft = Keys(nodes, people), nodes.of_zone[ZONE], people / "draft.json"
        enrol = await keys.enrolled(Role.ZONE, "second zone")
        above = ("--zone", "88", "--child", ZONE, "--key", keys.file(key_name(Role.ZONE, "88")))
        parent = ("--node", nodes.of_zone["88"].endpoint, "--root", nodes.root_key)
        assert (await keys.run("delegate", *above, "--enrol", enrol, "--threshold", 2, *parent)).code == 0
        await nodes.until_adopted(node, ZONE, 2)
        one, two = keys.file(key_name(Role.ZONE, ZONE)), keys.file("second zone")
        owner, host = people / "child.json", people / "host.json"
        for out, key, role in (
            (owner, keys.file("child's own"), Role.RECORD),
            (host, keys.file(f"node of {ZONE}"), Role.NODE),
        ):
            assert (await keys.run("key", "enrol", key, "--zone", CHILD, "--role", role, "--out", out)).code == 0
        child = (
            "--zone",
            ZONE,
            "--child",
            CHILD,
            "--enrol",
            owner,
            "--enrol",
            host,
            "--endpoint",
            node.endpoint,
            "--hosted",
        )
        here = ("--node", node.endpoint, "--root", nodes.root_key)
        alone = await keys.run("delegate", *child, "--key", one, *here)
        assert (alone.code, "THRESHOLD_NOT_MET" in alone.err) == (ExitCode.REFUSED, True)
        assert (await keys.run("delegate", *child, "--key", one, "--draft", draft, *here)).code == 0
        sent = await keys.run("delegate", "--sign", draft, "--key", two, *here, "--json")
        assert (sent.code, sent.json["version"], sent.json["submitted_to"]) == (0, 1, node.endpoint), sent
        record = make_record(f"{CHILD}/A", {"n": "1"}, by=signer("child's own"))
        nodes.of_zone[CHILD] = node
        await nodes.submit(record, "register-A")
        disable = ("prefix", "set", CHILD, "--status", "disabled", "--node", node.endpoint, "--key", one)
        alone = await keys.run(*disable)
        assert (alone.code, "THRESHOLD_NOT_MET" in alone.err) == (ExitCode.REFUSED, True), alone
        twice = await keys.run(*disable, "--key", one)
        assert twice.code == ExitCode.REFUSED, "one key that signs twice is one signer"
        await nodes.submit(make_record(f"{CHILD}/B", {"n": "1"}, by=signer("child's own")), "register-B")
        assert (await keys.run(*disable, "--key", two)).code == 0
        late = make_record(f"{CHILD}/C", {"n": "1"}, by=signer("child's own"))
        assert await refused(nodes, late) is Reason.PREFIX_NOT_ENABLED
        assert (await Read.of(node)).replay().findings == [], "an auditor counts the signers of a command as well"

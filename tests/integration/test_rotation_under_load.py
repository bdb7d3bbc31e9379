"""All keys of a tree give way to others while people register, seal, resolve, verify and read the log.

Three zones, one of them hosted, one with a log and three witnesses; delegations below 88 are signed by two of its three
zone keys. Whoever is honest is never refused and never shown what does not verify; every proof kept on the way goes on
verifying as of its time; and what a key signs after its end is refused by everybody.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import structlog

from idtrace.audit import Replay
from idtrace.bundle import Bundle, Verdict
from idtrace.delegation import Delegation, Role
from idtrace.entry import Entry, EntryKind
from idtrace.errors import Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.logpolicy import LogPolicy
from idtrace.note import NoteKey, NoteSigner
from idtrace.record import Record, RecordBody
from idtrace.serving.keyfile import write_private_key
from idtrace.serving.rootfile import load_root_keys
from idtrace.v1 import delegation_pb2, resolver_pb2, resolver_pb2_grpc
from idtrace.verification import verify_bundle
from registry.config import LogConfig
from registry.standing import HEAD_SECONDS
from resolver import server as resolver_server
from resolver.config import ResolverConfig
from tests.cli import Ran, idtrace, key_file
from tests.core_fixtures import PINNED, public, signer
from tests.integration.test_key_rotation import refused
from tests.integration.test_logged_node import LOG, LOG_KEY, ZONE, LoggedNodes, Read
from tests.log_fixtures import witness_signer
from tests.nodes import TIMEOUT, Node, free_port, key_name, make_record, private_key
from tests.rotating_load import SteadyLoad
from tests.witness_fixtures import witness

HOSTED, OTHER = "88.118.9", "88.119"
NEXT_LOG_KEY = NoteKey.of(LOG, public("next log").raw)


@pytest.fixture(autouse=True)
def _silent_nodes() -> Any:
    """Nodes run in this process, where the command line's output is read."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


class Resolver:
    """One resolver on a port of its own, which starts again with what its root file says then."""

    def __init__(self, folder: Path, root: Node) -> None:
        self.listen = f"127.0.0.1:{free_port()}"
        settings = {"listen": self.listen, "root_key": "root.pub", "root_endpoints": [root.endpoint]}
        self.config = ResolverConfig.parse({**settings, "drain_seconds": 0.1}, folder)
        self.stop = asyncio.Event()
        self.serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.stop, ready = asyncio.Event(), asyncio.Event()
        run = resolver_server.run(self.config, on_ready=lambda _: ready.set(), stop=self.stop)
        self.serving = asyncio.create_task(run)
        async with asyncio.timeout(TIMEOUT):
            await ready.wait()

    async def end(self) -> None:
        self.stop.set()
        if self.serving is not None:
            await self.serving


class WitnessOf:
    """One witness of the log: cosigns with all the keys that it has at the time."""

    def __init__(self, folder: Path, number: int) -> None:
        self.state = folder / f"witness-{number}"
        self.listen = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.listen}"
        self._stack = AsyncExitStack()

    async def start(self, *signers: NoteSigner) -> None:
        now = lambda: int(time.time())  # noqa: E731 - a clock
        known = [LOG_KEY, NEXT_LOG_KEY]
        await self._stack.enter_async_context(witness(self.state, signers, known, clock=now, listen=self.listen))

    async def end(self) -> None:
        await self._stack.aclose()


@dataclass
class Story:
    """The people who hold keys, and what they have to act upon."""

    nodes: LoggedNodes
    people: Path
    witnesses: list[WitnessOf]
    resolver: Resolver
    parents: list[str] = field(default_factory=lambda: [key_name(Role.ZONE, "88")])  # who signs for 88
    versions: dict[str, int] = field(default_factory=dict)

    def file(self, name: str) -> Path:
        return key_file(self.people, name)

    def node(self, zone: str) -> Node:
        return self.nodes.of_zone[zone]

    async def run(self, *arguments: object) -> Ran:
        ran = await asyncio.to_thread(idtrace, *arguments)
        assert ran.code == 0, (arguments, ran)
        return ran

    async def enrolled(self, zone: str, role: Role, name: str) -> Path:
        out = self.people / f"{zone}.{role}.{name.replace(' ', '-')}.json"
        await self.run("key", "enrol", self.file(name), "--zone", zone, "--role", role, "--out", out)
        return out

    def signed_at(self, parent: str) -> tuple[object, ...]:
        """The options that sign for a parent zone and bring it to its node."""
        by = self.parents if parent == "88" else [key_name(Role.ZONE, parent)] if parent != ZONE else [self.zone_key]
        keys = [part for name in by for part in ("--key", self.file(name))]
        return (*keys, "--node", self.node(parent).endpoint, "--root", self.nodes.root_key)

    zone_key: str = key_name(Role.ZONE, ZONE)

    async def delegate(self, parent: str, child: str, *more: object) -> None:
        await self.run("delegate", "--zone", parent, "--child", child, *self.signed_at(parent), *more)
        await self.until_known(child)

    async def turn(self, verb: str, parent: str, zone: str, role: Role, old: str, *more: object) -> None:
        named = ("--zone", zone, "--role", role, "--old", f"{self.file(old)}.pub")
        await self.run("key", verb, *named, *self.signed_at(parent), *more)
        await self.until_known(zone)

    async def until_known(self, zone: str) -> None:
        """Until the zone's own node serves it by its newest version."""
        self.versions[zone] = self.versions.get(zone, 1) + 1
        await self.nodes.until_adopted(self.node(zone), zone, self.versions[zone])

    async def restart(self, *nodes: Node, **changes: Any) -> None:
        for node in nodes:
            await node.end()
            node.config = replace(node.config, **changes)
            await node.start()

    async def restart_everything(self) -> None:
        await self.restart(*dict.fromkeys(self.nodes.of_zone.values()))
        await self.restart_resolver()

    async def restart_resolver(self) -> None:
        await self.resolver.end()
        await self.resolver.start()

    def log_config(self) -> LogConfig:
        config = self.node(ZONE).config.log
        assert config is not None
        return config


def policy_of(witnesses: Sequence[WitnessOf], *, old: bool, new: bool, logs: Sequence[NoteKey]) -> bytes:
    """Two of three witnesses; the first by its old key, its new one, or either."""
    first, *others = witnesses
    lines = [f"log {key}" for key in logs]
    lines += [f"witness w1-old {witness_signer(1).key} {first.url}"] if old else []
    lines += [f"witness w1-new {witness_signer(4).key} {first.url}"] if new else []
    lines += [f"witness w{n} {witness_signer(n).key} {one.url}" for n, one in enumerate(others, start=2)]
    lines.append("group w1 any " + " ".join(["w1-old"] * old + ["w1-new"] * new))
    return "\n".join([*lines, "group two-of-three 2 w1 w2 w3", "quorum two-of-three", ""]).encode()


@asynccontextmanager
async def under_load(folder: Path) -> AsyncIterator[tuple[Story, SteadyLoad]]:
    people = folder / "people"
    people.mkdir()
    for role in (Role.LOG, Role.CURRENCY):
        write_private_key(folder / f"{role}.key", private_key(key_name(role, ZONE)), None)
    async with AsyncExitStack() as stack:
        witnesses = [WitnessOf(folder, number) for number in (1, 2, 3)]
        for number, one in enumerate(witnesses, start=1):
            await one.start(witness_signer(number))
            stack.push_async_callback(one.end)
        (folder / "policy").write_bytes(policy_of(witnesses, old=True, new=False, logs=[LOG_KEY]))
        nodes = await stack.enter_async_context(LoggedNodes(folder))
        log_listen = f"127.0.0.1:{free_port()}"
        for zone in ("", "88", OTHER):
            await nodes.registry(zone)
        table = {"origin": LOG, "key": "log.key", "currency_key": "currency.key"}
        await nodes.registry(ZONE, log={**table, "listen": log_listen, "policy": "policy"})
        await nodes.host(HOSTED, at=ZONE)
        resolver = Resolver(folder, nodes.of_zone[""])
        await resolver.start()
        stack.push_async_callback(resolver.end)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(resolver.listen))
        load = SteadyLoad(
            nodes,
            resolver_pb2_grpc.ResolverServiceStub(channel),
            zones=(ZONE, HOSTED, OTHER),
            sealing=ZONE,
            log_url=f"http://{log_listen}",
            policy=LogPolicy.parse((folder / "policy").read_bytes()),
            roots=load_root_keys(nodes.root_key),
        )
        load.begin()
        try:
            await load.settle()
            yield Story(nodes, people, witnesses, resolver), load
        finally:
            await load.stop()
            sys.stdout.write(f"{load.figures()}\n")


async def two_of_three_sign_for_88(story: Story, load: SteadyLoad) -> None:
    """Two more zone keys; what is handed out is signed by two before two are asked for."""
    for name in ("88 two", "88 three"):
        await story.delegate("", "88", "--enrol", await story.enrolled("88", Role.ZONE, name))
    story.parents.append("88 two")
    for child in (ZONE, OTHER):
        await story.delegate("88", child)
    await story.delegate("", "88", "--threshold", 2)
    alone = ("--key", story.file("88 two"), "--node", story.node("88").endpoint, "--root", story.nodes.root_key)
    ran = await asyncio.to_thread(idtrace, "delegate", "--zone", "88", "--child", OTHER, *alone)
    assert "THRESHOLD_NOT_MET" in ran.err, ran
    await load.settle()


async def the_node_key(story: Story, load: SteadyLoad) -> None:
    old, new = key_name(Role.NODE, ZONE), "next node"
    await story.turn("rotate", "88", ZONE, Role.NODE, old, "--enrol", await story.enrolled(ZONE, Role.NODE, new))
    await story.delegate(ZONE, HOSTED, "--enrol", await story.enrolled(HOSTED, Role.NODE, new))
    await story.restart(story.node(ZONE), node_key=story.file(new))
    await load.settle()
    await story.turn("rotate", "88", ZONE, Role.NODE, old, "--end")
    await story.delegate(ZONE, HOSTED, "--drop-key", public(old).key_id)
    await load.settle()


async def the_record_key(story: Story, load: SteadyLoad) -> None:
    old, new = key_name(Role.RECORD, ZONE), "next record"
    await story.turn("rotate", "88", ZONE, Role.RECORD, old, "--enrol", await story.enrolled(ZONE, Role.RECORD, new))
    load.owners[ZONE] = new
    await load.settle()
    await story.turn("rotate", "88", ZONE, Role.RECORD, old, "--end", "--log", load.log_url)
    await load.settle()


async def the_currency_key(story: Story, load: SteadyLoad) -> None:
    old, new = key_name(Role.CURRENCY, ZONE), "next currency"
    proof = await story.enrolled(ZONE, Role.CURRENCY, new)
    await story.turn("rotate", "88", ZONE, Role.CURRENCY, old, "--enrol", proof)
    await story.restart(story.node(ZONE), log=replace(story.log_config(), currency_key=story.file(new)))
    await load.settle()
    await story.turn("rotate", "88", ZONE, Role.CURRENCY, old, "--end")
    await load.settle()


async def the_log_key(story: Story, load: SteadyLoad) -> None:
    old, new = key_name(Role.LOG, ZONE), "next log"
    write_policy(story, load, old=True, new=False, logs=[LOG_KEY, NEXT_LOG_KEY])
    await story.turn("rotate", "88", ZONE, Role.LOG, old, "--enrol", await story.enrolled(ZONE, Role.LOG, new))
    await story.restart(story.node(ZONE), log=replace(story.log_config(), key=story.file(new)))
    await load.settle()
    await asyncio.sleep(HEAD_SECONDS + 0.2)  # for so long a checkpoint by the old key is shown
    await story.turn("rotate", "88", ZONE, Role.LOG, old, "--end")
    await load.settle()


def write_policy(story: Story, load: SteadyLoad, **changes: Any) -> None:
    """The log's operator and everybody who reads the log have this policy now."""
    text = policy_of(story.witnesses, **changes)
    (story.people.parent / "policy").write_bytes(text)
    load.policy = LogPolicy.parse(text)


async def a_witness_key(story: Story, load: SteadyLoad) -> None:
    """Whoever reads the log counts either key, the witness signs with both, and then the old one is gone."""
    first, logs = story.witnesses[0], [LOG_KEY, NEXT_LOG_KEY]
    for keys, counted in (
        ([witness_signer(1), witness_signer(4)], {"old": True, "new": True}),
        ([witness_signer(4)], {"old": False, "new": True}),
    ):
        await first.end()
        await first.start(*keys)
        write_policy(story, load, logs=logs, **counted)
        await story.restart(story.node(ZONE))
        await load.settle()
    await story.witnesses[2].end()  # the new key is needed for the quorum now
    await load.settle()


async def the_zone_key(story: Story, load: SteadyLoad) -> None:
    old, new = key_name(Role.ZONE, ZONE), "next zone"
    await story.turn("rotate", "88", ZONE, Role.ZONE, old, "--enrol", await story.enrolled(ZONE, Role.ZONE, new))
    story.zone_key = new
    await story.delegate(ZONE, HOSTED)
    await load.settle()
    await story.turn("rotate", "88", ZONE, Role.ZONE, old, "--end")
    await load.settle()


async def a_zone_key_of_two_in_three(story: Story, load: SteadyLoad) -> None:
    old, new = key_name(Role.ZONE, "88"), "88 four"
    proof = await story.enrolled("88", Role.ZONE, new)
    await story.turn("rotate", "", "88", Role.ZONE, old, "--enrol", proof)
    story.parents = ["88 two", new]
    for child in (ZONE, OTHER):
        await story.delegate("88", child)
    await load.settle()
    await story.turn("rotate", "", "88", Role.ZONE, old, "--end")
    await load.settle()


async def the_root_keys(story: Story, load: SteadyLoad) -> None:
    """Both keys first; the root's key set is signed anew; and when everybody has it, the new key alone."""
    root, file = story.nodes.root_key, story.people.parent
    for number, change in ((2, ("--add", f"{story.file('next root')}.pub")), (3, ("--drop", public(PINNED).key_id))):
        update = file / f"root-{number}.json"
        await story.run("key", "root-next", "--root", root, *change, "--out", update)
        keys = ("--key", story.file(PINNED), "--key", story.file("next root"))
        await story.run("key", "root-sign", update, "--root", root, *keys)
        await story.run("key", "root-update", "--root", root, "--update", update)
        load.follow_root(root)
        await story.restart_everything()
        await load.settle()
        if number == 2:
            by = ("--key", story.file("next root"), "--node", story.node("").endpoint, "--root", root)
            await story.run("delegate", "--root-zone", *by)
            for zone in ("88", OTHER, ZONE):
                await until_root(story.node(zone), zone, 2)
            await story.restart_resolver()  # or five minutes: so long it starts from chains that it has verified
            await load.settle()
            # Times are whole seconds: a proof kept in the second in which the old key is dropped must begin at the new.
            await asyncio.sleep(1.05 - time.time() % 1)


async def until_root(node: Node, zone: str, version: int) -> None:
    """Until a node shows its zone's chain below this version of the root's key set."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            request = delegation_pb2.DelegationServiceGetRequest(prefix=zone)
            chain = (await node.delegation.Get(request, timeout=TIMEOUT)).chain
            if Delegation.parse(chain[0].payload).version >= version:
                return
            await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_every_key_of_a_tree_is_replaced_under_load_without_one_false_failure(tmp_path: Path) -> None:
    async with under_load(tmp_path) as (story, load):
        for rotation in (
            two_of_three_sign_for_88,
            the_node_key,
            the_record_key,
            the_currency_key,
            the_log_key,
            a_witness_key,
            the_zone_key,
            a_zone_key_of_two_in_three,
            the_root_keys,
        ):
            began = time.monotonic()
            await rotation(story, load)
            assert load.false == [], rotation.__name__
            seconds, turns = time.monotonic() - began, sum(load.done.values())
            sys.stdout.write(f"{rotation.__name__}: {seconds:.1f} s, {turns} turns so far\n")
        await a_theft(story, load)
        await load.stop()
        for kept in load.saved:
            load.check_saved(kept)
        assert load.false == []
        keys = await zone_keys(story)
        assert {role for key in keys if key.until is None for role in key.roles} == set(Role)
        first = {public(key_name(role, ZONE)).key_id for role in Role}
        assert not {key.key.key_id for key in keys if key.until is None} & first


async def key_without_overlap(story: Story, load: SteadyLoad) -> None:
    """The record key ends at once; its owner hears of it by a refusal."""
    old = key_name(Role.RECORD, ZONE)
    proof = await story.enrolled(ZONE, Role.RECORD, "next record")
    await story.turn("revoke", "88", ZONE, Role.RECORD, old, "--log", load.log_url, "--enrol", proof)


async def child_not_signed_anew(story: Story, load: SteadyLoad) -> None:
    """The zone key ends while what it has handed out still rests on it."""
    old = key_name(Role.ZONE, ZONE)
    proof = await story.enrolled(ZONE, Role.ZONE, "next zone")
    await story.turn("revoke", "88", ZONE, Role.ZONE, old, "--enrol", proof)


async def root_before_its_key_set(story: Story, load: SteadyLoad) -> None:
    """Verifiers drop the old root key while all that there is still begins at it."""
    load.roots = load.roots.pinned([public("next root")])


async def policy_before_the_witness(story: Story, load: SteadyLoad) -> None:
    """Readers count a witness's new key alone, one of the others is down, and the witness has only its old key."""
    await story.witnesses[2].end()
    text = policy_of(story.witnesses, old=False, new=True, logs=[LOG_KEY])
    load.policy = LogPolicy.parse(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mistake", "seen"),
    [
        (key_without_overlap, "register"),
        (child_not_signed_anew, "88.118.9"),
        (root_before_its_key_set, "ROOT_MISMATCH"),
        (policy_before_the_witness, "without its quorum"),
    ],
)
async def test_the_load_notices_a_step_that_was_left_out(tmp_path: Path, mistake: Any, seen: str) -> None:
    async with under_load(tmp_path) as (story, load):
        await mistake(story, load)
        async with asyncio.timeout(2 * TIMEOUT):
            while not any(seen in false for false in load.false):  # noqa: ASYNC110 - clients write a list
                await asyncio.sleep(0.05)


async def zone_keys(story: Story) -> Any:
    request = delegation_pb2.DelegationServiceGetRequest(prefix=ZONE)
    return Delegation.parse((await story.node(ZONE).delegation.Get(request, timeout=TIMEOUT)).chain[-1].payload).keys


async def a_theft(story: Story, load: SteadyLoad) -> None:
    """A stolen key ends at the index of the thief's first record: refused by registry, resolver, verifier, auditor."""
    stolen, new = "next record", "third record"
    proof = await story.enrolled(ZONE, Role.RECORD, new)
    await story.turn("rotate", "88", ZONE, Role.RECORD, stolen, "--enrol", proof)
    load.owners[ZONE] = new
    await load.settle()
    thief = make_record(f"{ZONE}/stolen", {"n": "1"}, by=signer(stolen))
    position = (await story.nodes.submit(thief, "register-stolen")).receipt.proof.index
    assert (await load.verdict(f"{ZONE}/stolen")).verdict == resolver_pb2.VERDICT_FOUND, "nobody knows yet"
    await story.turn("revoke", "88", ZONE, Role.RECORD, stolen, "--since", position)
    more = make_record(f"{ZONE}/more", {"n": "2"}, by=signer(stolen), issued_at=thief_time(thief))
    assert await refused(story.nodes, more) is Reason.SIGNER_UNKNOWN
    assert (await load.verdict(f"{ZONE}/stolen")).verdict == resolver_pb2.VERDICT_BOGUS
    shown = await story.nodes.get(f"{ZONE}/stolen")
    assert isinstance(shown.outcome, Record)
    bundle = Bundle(Identifier.parse(f"{ZONE}/stolen"), shown.delegations, shown.outcome, shown.proof, shown.currency)
    report = verify_bundle(bundle, load.roots.anchor, now=int(time.time()))
    assert (report.verdict, report.checks[-1].reason) == (Verdict.BOGUS, Reason.SIGNER_UNKNOWN)
    before = next(kept for kept in reversed(load.saved) if kept.name.startswith(f"{ZONE}/N") and by(kept, stolen))
    assert (await load.verdict(before.name)).verdict == resolver_pb2.VERDICT_FOUND, "below the index, so it goes on"
    await load.settle()
    await as_an_auditor_sees_it(story, more)


def thief_time(record: Record) -> int:
    """Whatever a thief writes into a body: before the key ended."""
    return RecordBody.parse(record.signed.payload).issued_at - 3_600


def by(kept: Any, name: str) -> bool:
    outcome = kept.bundle.outcome
    return isinstance(outcome, Record) and [s.key_id for s in outcome.signed.signatures] == [public(name).key_id]


async def as_an_auditor_sees_it(story: Story, late: Record) -> None:
    """The whole log has no finding; with one more record by the revoked key it has that one."""
    log = await Read.of(story.node(ZONE))
    known = {public(name).key_id: public(name) for name in (key_name(Role.ZONE, "88"), "88 two", "88 four")}
    replay = Replay(outside={Prefix.parse("88"): known})
    replay.feed(log.entries)
    replay.end()
    assert replay.findings == []
    at = Entry.from_bytes(log.entries[-1]).committed_at
    entry = Entry(EntryKind.RECORD, Prefix.parse(ZONE), at, late.signed.payload, late.signed.signatures)
    replay.feed([entry.to_bytes()])
    assert [finding.reason for finding in replay.findings] == [Reason.SIGNER_UNKNOWN]

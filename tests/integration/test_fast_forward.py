"""A stolen zone key signs version 2**40 of a child's delegation; how the rightful owner gets the zone back, by CLI."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from idtrace import wire
from idtrace.bundle import NodeAnswer, Verdict
from idtrace.cli.exits import ExitCode
from idtrace.delegation import Delegation, Role, ZoneKey
from idtrace.errors import Reason
from idtrace.signature import Kind, Signed, sign
from idtrace.v1 import (
    delegation_pb2,
    delegation_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
    resolver_pb2,
    resolver_pb2_grpc,
)
from idtrace.verification import verify_bundle
from resolver import server as resolver_server
from resolver.config import ResolverConfig
from tests.cli import Ran, idtrace, key_file
from tests.core_fixtures import public, signer
from tests.integration.test_adoption import held
from tests.integration.test_registry import reason_of
from tests.nodes import TIMEOUT, Nodes, free_port, key_name, make_record

ZONE = "88.118"
STOLEN, NEW, THIEF = key_name(Role.ZONE, "88"), "next zone key of 88", "thief"
LEAP = 2**40


class ThiefsNode(registry_pb2_grpc.RegistryServiceServicer, delegation_pb2_grpc.DelegationServiceServicer):
    """Stands where the parent's node stood, with the stolen key's delegation and records under it."""

    def __init__(self, above: tuple[Signed, ...], leapt: Signed) -> None:
        self.chain = (*above, leapt)

    async def Get(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name, of both services
        del context
        if isinstance(request, delegation_pb2.DelegationServiceGetRequest):
            chain = [wire.signed_to_pb(signed) for signed in self.chain]
            return delegation_pb2.DelegationServiceGetResponse(chain=chain)
        record = make_record(request.identifier, {"made by": "the thief"}, by=signer(THIEF))
        answer = NodeAnswer(self.chain[-1:], record)
        return registry_pb2.RegistryServiceGetResponse(answer=wire.answer_to_pb(answer))


def thiefs_node(above: tuple[Signed, ...], leapt: Signed) -> ThiefsNode:
    return ThiefsNode(above, leapt)  # type: ignore[abstract]  # nobody calls what it does not implement


@asynccontextmanager
async def taken(story: Story) -> AsyncIterator[None]:
    """The parent's node is the thief's for a while."""
    parent, zone = story.nodes.of_zone["88"], story.nodes.of_zone[ZONE]
    known = Delegation.parse((await held(zone, ZONE))[-1].payload)
    keys = (ZoneKey(public(THIEF), frozenset({Role.ZONE, Role.RECORD, Role.NODE})),)
    body = replace(known, version=LEAP, previous=bytes(32), keys=keys, endpoints=(parent.endpoint,))
    thief: Any = thiefs_node((await held(parent, "88")), sign(Kind.DELEGATION, body.payload(), signer(STOLEN)))
    await parent.end()
    server = grpc.aio.server()
    registry_pb2_grpc.add_RegistryServiceServicer_to_server(thief, server)
    delegation_pb2_grpc.add_DelegationServiceServicer_to_server(thief, server)
    server.add_insecure_port(parent.endpoint)
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)
        await parent.start()


@dataclass
class Story:
    """A tree, a resolver, and the people who hold keys."""

    nodes: Nodes
    asks: Any
    people: Path

    async def run(self, *arguments: object) -> Ran:
        return await asyncio.to_thread(idtrace, *arguments, "--root", self.nodes.root_key)

    def file(self, name: str) -> Path:
        return key_file(self.people, name)

    async def resolved(self, name: str) -> tuple[int, str]:
        request = resolver_pb2.ResolveRequest(text=name, fresh=True)
        answer = await self.asks.Resolve(request, timeout=TIMEOUT)
        if answer.verdict == resolver_pb2.VERDICT_FOUND:
            report = verify_bundle(wire.bundle_from_pb(answer.bundle), self.nodes.anchor, now=int(time.time()))
            assert report.verdict is Verdict.FOUND
        return answer.verdict, answer.reason

    async def version(self) -> int:
        return Delegation.parse((await held(self.nodes.of_zone[ZONE], ZONE))[-1].payload).version

    async def until_version(self, version: int) -> None:
        async with asyncio.timeout(TIMEOUT):
            while await self.version() != version:  # noqa: ASYNC110 - another node's memory rings no bell
                await asyncio.sleep(0.05)

    async def revoke_the_stolen_key(self) -> None:
        """The grandparent ends the stolen key and names the parent's new one, in one step."""
        proof = self.people / "new.json"
        made = idtrace("key", "enrol", self.file(NEW), "--zone", "88", "--role", "zone", "--out", proof)
        assert made.code == 0, made
        ran = await self.run(
            *("key", "revoke", "--zone", "88", "--role", "zone", "--old", f"{self.file(STOLEN)}.pub"),
            *("--enrol", proof, "--key", self.file(key_name(Role.ZONE, ""))),
            *("--node", self.nodes.of_zone[""].endpoint),
        )
        assert ran.code == 0, ran
        assert "--former" in ran.said, "what has to be done next"
        await self.nodes.until_adopted(self.nodes.of_zone["88"], "88", 2)

    async def sign_anew(self, *more: object) -> Ran:
        parent = self.nodes.of_zone["88"].endpoint
        return await self.run(
            "delegate", "--zone", "88", "--child", ZONE, "--key", self.file(NEW), "--node", parent, *more
        )

    @property
    def former(self) -> tuple[object, ...]:
        return ("--former", f"{self.file(STOLEN)}.pub")


@asynccontextmanager
async def story_in(folder: Path) -> AsyncIterator[Story]:
    people = folder / "people"
    people.mkdir()
    async with Nodes(folder) as nodes:
        for zone in ("", "88", ZONE):
            await nodes.registry(zone)
        listen = f"127.0.0.1:{free_port()}"
        settings = {"listen": listen, "root_key": "root.pub", "root_endpoints": [nodes.of_zone[""].endpoint]}
        stop, ready = asyncio.Event(), asyncio.Event()
        config = ResolverConfig.parse({**settings, "drain_seconds": 0.0}, folder)
        serving = asyncio.create_task(resolver_server.run(config, on_ready=lambda _: ready.set(), stop=stop))
        async with asyncio.timeout(TIMEOUT):
            await ready.wait()
        async with grpc.aio.insecure_channel(listen) as channel:
            yield Story(nodes, resolver_pb2_grpc.ResolverServiceStub(channel), people)
        stop.set()
        await serving


async def test_after_a_leap_of_a_stolen_key_the_owner_gets_the_zone_back(tmp_path: Path) -> None:
    async with story_in(tmp_path) as story:
        nodes, found = story.nodes, (resolver_pb2.VERDICT_FOUND, "")
        await nodes.register(f"{ZONE}/A", {"lot": "L1"})
        async with taken(story):
            await story.until_version(LEAP)  # the zone's own node believes the parent's key, as it has to
            assert await story.resolved(f"{ZONE}/false") == found, "so does the resolver, and everybody who verifies"
        # The thief is gone, and what he has signed stands in the way of the truth.
        assert await story.resolved(f"{ZONE}/A") == (resolver_pb2.VERDICT_BOGUS, Reason.DELEGATION_ROLLED_BACK)
        assert await story.version() == LEAP
        refused, _ = await reason_of(nodes.submit(make_record(f"{ZONE}/B"), "register-B"))
        assert refused is Reason.SIGNER_UNKNOWN
        # Back: the stolen key ends, and the child is signed anew by the next one.
        await story.revoke_the_stolen_key()
        alone = await story.sign_anew()
        assert (alone.code, "SIGNER_UNKNOWN" in alone.err) == (ExitCode.BOGUS, True), alone
        signed = await story.sign_anew(*story.former)
        assert signed.code == 0, signed
        await story.until_version(2)
        assert await story.resolved(f"{ZONE}/A") == found
        await nodes.register(f"{ZONE}/B", {"lot": "L2"})
        assert await story.resolved(f"{ZONE}/B") == found
        # The same trick does nothing any more.
        async with taken(story):
            assert (await story.resolved(f"{ZONE}/false"))[0] != resolver_pb2.VERDICT_FOUND
            await asyncio.sleep(0.3)  # three times as long as the zone's node waits before it asks again
            assert await story.version() == 2
        assert await story.resolved(f"{ZONE}/A") == found


@pytest.mark.parametrize("hands", [1, 2])
async def test_what_a_thief_has_had_written_into_the_parents_own_books_is_named_and_taken_out(
    tmp_path: Path, hands: int
) -> None:
    """The honest parent's node takes the next version that the stolen key signs; in one step it cannot leap."""
    async with story_in(tmp_path) as story:
        nodes, parent = story.nodes, story.nodes.of_zone["88"].endpoint
        await nodes.register(f"{ZONE}/A", {"lot": "L1"})
        before = Delegation.parse((await held(nodes.of_zone[ZONE], ZONE))[-1].payload)
        proof, draft = story.people / "thief.json", story.people / "draft.json"
        made = idtrace("key", "enrol", story.file(THIEF), "--zone", ZONE, "--role", "record", "--out", proof)
        assert made.code == 0
        stolen = await story.run(
            *("delegate", "--zone", "88", "--child", ZONE, "--key", story.file(STOLEN), "--node", parent),
            *("--enrol", proof, "--endpoint", "thief.example:1"),
        )
        assert stolen.code == 0, stolen
        await story.until_version(2)
        await story.revoke_the_stolen_key()
        right = (*story.former, "--drop-key", public(THIEF).key_id, "--endpoint", before.endpoints[0])
        if hands == 1:
            assert (await story.sign_anew(*right)).code == 0
        else:  # first a draft, and then whoever signs it sees what the thief wrote
            shown = await story.sign_anew(*right, "--draft", draft)
            assert shown.code == 0
            assert f"key dropped {public(THIEF).key_id}" in shown.said
            assert "was thief.example:1" in shown.said
            again = ("delegate", "--sign", draft, "--node", parent)
            assert (await story.run(*again)).code == ExitCode.BOGUS, (
                "without --former the draft rests on a thief's word"
            )
            sent = await story.run(*again, *story.former)
            assert sent.code == 0, sent
        await story.until_version(3)
        after = Delegation.parse((await held(nodes.of_zone[ZONE], ZONE))[-1].payload)
        assert (after.keys, after.endpoints) == (before.keys, before.endpoints)
        assert (await story.resolved(f"{ZONE}/A"))[0] == resolver_pb2.VERDICT_FOUND


async def test_a_former_key_vouches_for_nothing_but_the_version_to_follow(tmp_path: Path) -> None:
    async with story_in(tmp_path) as story:
        other = ("--former", f"{story.file('another key')}.pub")
        await story.revoke_the_stolen_key()
        assert (await story.sign_anew(*other)).code == ExitCode.BOGUS
        by_stolen = await story.run(
            *("delegate", "--zone", "88", "--child", ZONE, "--key", story.file(STOLEN), *story.former),
            *("--node", story.nodes.of_zone["88"].endpoint),
        )
        assert (by_stolen.code, "SIGNER_UNKNOWN" in by_stolen.err) == (ExitCode.REFUSED, True), by_stolen

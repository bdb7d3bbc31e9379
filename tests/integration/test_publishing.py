"""A node's log as others see it: over HTTP, cosigned by a real witness, read again by an auditor who trusts neither."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx

from idtrace.audit import Replay
from idtrace.checkpoint import Checkpoint
from idtrace.delegation import Role
from idtrace.identifier import Prefix
from idtrace.logpolicy import KnownLog, KnownWitness, LogPolicy
from idtrace.merkle import hash_leaf, root_of
from idtrace.note import Note
from idtrace.serving.keyfile import write_private_key
from idtrace.tiles import bundles_of, split_bundle
from tests.core_fixtures import signer
from tests.engines.process import free_port
from tests.integration.test_logged_node import LOG, LOG_KEY, ZONE, LoggedNodes
from tests.log_fixtures import witness_signer
from tests.nodes import key_name, make_record, private_key
from tests.witness_fixtures import witness

WAIT_SECONDS = 20.0


async def grown(client: httpx.AsyncClient, size: int) -> Note:
    """The published checkpoint, once it is of a log of this size."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        answer = await client.get("/checkpoint")
        if answer.status_code == 200 and Checkpoint.parse(Note.parse(answer.content).text).size >= size:
            return Note.parse(answer.content)
        await asyncio.sleep(0.05)
    raise AssertionError(f"no checkpoint of {size} entries was published")


async def test_what_a_node_commits_is_published_witnessed_and_read_again_by_strangers(tmp_path: Path) -> None:
    for role in (Role.LOG, Role.CURRENCY):
        write_private_key(tmp_path / f"{role}.key", private_key(key_name(role, ZONE)), None)
    listen = f"127.0.0.1:{free_port()}"
    async with witness(tmp_path / "seen", logs=[LOG_KEY], clock=lambda: int(time.time())) as (url, _):
        asked = KnownWitness("w1", witness_signer(1).key, url)
        policy = LogPolicy((KnownLog(LOG_KEY),), (asked,), (), "w1")
        (tmp_path / "policy").write_bytes(policy.encode())
        async with LoggedNodes(tmp_path) as nodes, httpx.AsyncClient(base_url=f"http://{listen}") as client:
            await nodes.registry("")
            await nodes.registry("88")
            table = {"origin": LOG, "key": "log.key", "currency_key": "currency.key"}
            await nodes.registry(ZONE, log={**table, "listen": listen, "policy": "policy"})
            for number in range(5):
                await nodes.submit(make_record(f"{ZONE}/N-{number}", {"lot": "L1"}), f"register-{number}")
            note = await grown(client, 6)
            assert policy.witnessing(note, now=int(time.time())).met
            checkpoint = Checkpoint.parse(note.text)
            entries: list[bytes] = []
            for bundle in bundles_of(checkpoint.size):
                entries += split_bundle(bundle, (await client.get(f"/{bundle.path}")).content)
            assert root_of([hash_leaf(entry) for entry in entries]) == checkpoint.root
            above = signer(key_name(Role.ZONE, "88")).public_key
            replay = Replay(outside={Prefix.parse("88"): {above.key_id: above}})
            replay.feed(entries)
            replay.end()
            assert replay.findings == []
            assert replay.identifiers == 5

"""One log, two histories: a registry that is set back, two that run on one key; and who shows it to a third party."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from idtrace.auditing.evidence import Evidence, Fork
from idtrace.checkpoint import Checkpoint
from idtrace.cli.exits import ExitCode
from idtrace.errors import InputError
from idtrace.note import Note
from idtrace.witnessing import ADD_CHECKPOINT_PATH, AddCheckpoint
from registry.storage_sqlite import SqliteStorage
from tests.integration.test_logged_node import LOG, ZONE
from tests.logged_site import Site, site, size_of
from tests.nodes import Node, Nodes
from tests.witness_fixtures import READY_SECONDS

pytestmark = pytest.mark.slow


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as running:
        running.register(f"{ZONE}/BEFORE")
        running.until_witnessed()
        yield running


def copied(here: Site, to: str) -> Path:
    """A copy of the stopped node's data folder."""
    copy = here.folder / to
    shutil.copytree(here.node.config.data, copy)
    return copy


def start(here: Site) -> None:
    """Start the node again, and wait until the channel to it has noticed."""
    here.call(here.node.start())
    here.call(here.node.channel.channel_ready())


def set_back(here: Site, copy: Path) -> None:
    """Put an old copy in the place of the node's data, and start the node on it."""
    here.call(here.node.end())
    shutil.rmtree(here.node.config.data)
    shutil.copytree(copy, here.node.config.data)
    start(here)


def forks_at(witness: str) -> int:
    return int(httpx.get(f"{witness}/health", trust_env=False).json()["forks"])


def refusal(witness: str, note: Note, old_size: int, *proof: bytes) -> int:
    """How a witness answers to a checkpoint."""
    body = AddCheckpoint.of(old_size, proof, note).encode()
    return httpx.post(f"{witness}/{ADD_CHECKPOINT_PATH}", content=body, trust_env=False).status_code


def until(holds: Callable[[], bool], seconds: float = READY_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)


def notes_in(evidence: Path) -> list[tuple[str, int]]:
    """Origin and size of the two signed notes."""
    shown = Evidence.parse(evidence.read_bytes()).shown
    assert isinstance(shown, Fork)
    bodies = [Checkpoint.parse(Note.parse(note).text) for note in shown.notes]
    return [(body.origin, body.size) for body in bodies]


def test_a_registry_set_back_is_refused_by_witnesses_and_convicted_by_auditor_and_client(here: Site) -> None:
    """Entries: two key sets and BEFORE; then A and B, which everybody sees; and C, D, E instead of them."""
    seen, memory, saved = here.folder / "audits", here.folder / "remembered", here.folder / "c.json"
    policy = here.folder / "policy"
    here.call(here.node.end())
    old = copied(here, "old")
    start(here)
    here.register(f"{ZONE}/A")
    here.register(f"{ZONE}/B")
    assert size_of(here.until_witnessed()) == 5
    assert here.audit("--policy", policy, "--state", seen).code == 0
    assert here.resolve(f"{ZONE}/B", "--remember", memory).code == ExitCode.OK

    set_back(here, old)
    here.register(f"{ZONE}/C")
    here.register(f"{ZONE}/D")  # again five entries, and others
    folder = here.node.config.data / "evidence"
    until(lambda: len(list(folder.glob("fork-*.txt"))) >= 3)
    told = next(folder.glob("fork-*.txt")).read_text("utf-8")
    assert "it has seen a tree of 5, and the log has 4" in told, "the node has kept what was refused"
    assert f"{LOG}\n4\n" in told
    published = here.published()
    assert published is not None
    assert size_of(published) == 3, "what is witnessed stays where it was"
    head = here.call(_head(here.node))
    assert [refusal(one, head, 5) for one in here.witnesses] == [409] * 3, "of one size with another root"
    assert [forks_at(one) for one in here.witnesses] == [1] * 3

    # One size and two roots: proof at once, for a client that has nothing but its memory.
    ran = here.resolve(f"{ZONE}/D", "--remember", memory, "--save", saved, "--json")
    assert (ran.code, ran.json["reason"]) == (ExitCode.BOGUS, "LOG_INCONSISTENT"), ran.said
    (by_client,) = memory.glob("evidence_*.json")
    assert notes_in(by_client) == [(LOG, 5), (LOG, 5)]
    assert here.proves(by_client)

    # The auditor sees that the log goes back; with what the client has saved it has the proof too.
    alone = here.audit("--policy", policy, "--state", seen, "--json")
    assert alone.code == 1
    assert "CHECKPOINT_STALE" in [one["reason"] for one in alone.json["logs"][0]["findings"]]
    assert list(seen.glob("evidence_*.json")) == []
    helped = here.audit("--policy", policy, "--state", seen, "--statements", saved)
    assert helped.code == 1
    (by_auditor,) = seen.glob("evidence_*.json")
    assert sorted(notes_in(by_auditor)) == [(LOG, 5), (LOG, 5)]
    assert here.proves(by_auditor)

    # Of two sizes the log's own tiles give the proof.
    here.register(f"{ZONE}/E")
    ran = here.resolve(f"{ZONE}/E", "--remember", memory, "--log", here.log)
    assert ran.code == ExitCode.BOGUS, ran.said
    assert [refusal(one, here.call(_head(here.node)), 5, bytes(32)) for one in here.witnesses] == [422] * 3
    larger = next(one for one in memory.glob("evidence_*.json") if one != by_client)
    assert notes_in(larger) == [(LOG, 5), (LOG, 6)]
    assert here.proves(larger)


def test_a_client_without_an_address_keeps_what_it_cannot_compare_and_an_audit_of_its_folder_does(here: Site) -> None:
    memory = here.folder / "remembered"
    here.call(here.node.end())
    old = copied(here, "old")
    start(here)
    here.register(f"{ZONE}/A")
    here.until_witnessed()
    assert here.resolve(f"{ZONE}/A", "--remember", memory).code == ExitCode.OK
    set_back(here, old)
    here.register(f"{ZONE}/C")
    here.register(f"{ZONE}/D")
    ran = here.resolve(f"{ZONE}/D", "--remember", memory)
    assert ran.code == ExitCode.OK
    assert "could not be compared with 1 seen before" in ran.said
    ran = here.resolve(f"{ZONE}/D", "--remember", memory, "--log", here.log)
    assert ran.code == ExitCode.BOGUS
    (evidence,) = memory.glob("evidence_*.json")
    assert notes_in(evidence) == [(LOG, 4), (LOG, 5)]
    assert here.proves(evidence)


def test_a_second_node_on_one_key_and_one_store_does_not_run(here: Site) -> None:
    """That two writers which are on one store all the same make one log, test_storage_log.py shows of every engine."""

    async def second() -> None:
        other = Node(here.node.zones, here.node.endpoint, here.node.config)
        try:
            await other.start()
        finally:
            await other.channel.close()

    with pytest.raises(InputError, match=r"another"):
        here.call(second())

    here.register(f"{ZONE}/A")
    assert size_of(here.until_witnessed()) == 4


def test_two_nodes_on_one_key_and_two_stores_are_two_heads_of_which_witnesses_take_one(here: Site) -> None:
    """A copied folder: both go on from it, and the one that witnesses saw second is refused by all of them."""
    memory = here.folder / "remembered"
    here.call(here.node.end())
    copied(here, "twin-0.data")
    start(here)
    log = here.node.config.log
    assert log is not None

    async def twin() -> Node:
        return await Nodes.twin(here.nodes, _without_port(here.node))

    copy = here.call(twin())
    here.register(f"{ZONE}/A")
    here.until_witnessed()
    here.register(f"{ZONE}/B", node=copy)
    until(lambda: len(list((copy.config.data / "evidence").glob("fork-*.txt"))) == 3)
    assert [forks_at(one) for one in here.witnesses] == [1] * 3
    heads = [here.call(_head(one)) for one in (here.node, copy)]
    assert [size_of(head) for head in heads] == [4, 4]
    assert heads[0].text != heads[1].text
    published = here.published()
    assert published is not None
    assert published.text == heads[0].text, "the quorum stands behind one of the two"

    # A client that has met both, through one resolver, has both signed notes.
    assert here.resolve(f"{ZONE}/A", "--remember", memory).code == ExitCode.OK
    here.call(_point(here, copy.endpoint))
    ran = here.resolve(f"{ZONE}/B", "--remember", memory)
    assert ran.code == ExitCode.BOGUS, ran.said
    (found,) = memory.glob("evidence_*.json")
    assert notes_in(found) == [(LOG, 4), (LOG, 4)]
    assert here.proves(found)


def _without_port(node: Node) -> Node:
    """The same settings for a node that does not serve its log over HTTP, where the port is taken."""
    assert node.config.log is not None
    like = Node.__new__(Node)
    like.zones, like.config = node.zones, replace(node.config, log=replace(node.config.log, listen=""))
    return like


async def _head(node: Node) -> Note:
    store = SqliteStorage(node.config.data / "registry.sqlite3")
    try:
        return Note.parse((await store.log_edge()).head.note)
    finally:
        await store.close()


async def _point(here: Site, endpoint: str) -> None:
    """Let the proxy stand before another node."""
    address = here.proxy.address
    await here.proxy.stop()
    here.proxy._node = endpoint
    await here.proxy.start(address)

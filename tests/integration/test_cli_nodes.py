"""The whole command line against real nodes on loopback: from an empty prefix to a retired identifier."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from idtrace.cli.exits import ExitCode
from resolver import server as resolver_server
from resolver.config import ResolverConfig
from tests.cli import Ran, idtrace, key_file
from tests.core_fixtures import PINNED, USUAL
from tests.nodes import Nodes, free_port

ITEM = "88.118/SN-1"


@pytest.fixture(autouse=True)
def _silent_nodes() -> Any:
    """Node programs log to a stream of their own; in this process they would log into the command's output."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


def receipt_lines(source: Path) -> list[str]:
    return [line for line in journal_of(source).read_text().splitlines() if '"row"' in line]


def forget_last_lines(source: Path, count: int) -> None:
    kept = journal_of(source).read_text().splitlines(keepends=True)[:-count]
    journal_of(source).write_text("".join(kept))


def journal_of(source: Path) -> Path:
    return Path(f"{source}.idtrace-receipts.jsonl")


@dataclass
class Tree:
    """Root and 88 on nodes of their own, a resolver, and the commands of the people in it."""

    nodes: Nodes
    folder: Path
    resolver: str

    @property
    def root(self) -> Path:
        return self.nodes.root_key

    def key(self, name: str) -> Path:
        return key_file(self.folder, name)

    async def run(self, *arguments: object, **options: Any) -> Ran:
        return await asyncio.to_thread(idtrace, *arguments, **options)

    async def at(self, zone: str, *arguments: object, **options: Any) -> Ran:
        """A command to the node of a zone."""
        return await self.run(*arguments, "--node", self.nodes.of_zone[zone].endpoint, **options)

    async def resolve(self, *arguments: object, **options: Any) -> Ran:
        return await self.run(
            "resolve", *arguments, "--resolver", self.resolver, "--root", self.root, "--fresh", **options
        )

    async def enrolment(self, zone: str) -> Path:
        out = self.folder / f"{zone}.enrol.json"
        key = self.key(f"owner of {zone}")
        ran = await self.run(
            "key", "enrol", key, "--zone", zone, "--out", out, *(x for role in USUAL for x in ("--role", role))
        )
        assert ran.code == 0
        return out

    async def open_zone(self, zone: str = "88.118") -> None:
        """Delegate a hosted zone to a key that may do everything in it."""
        parent = self.nodes.parent_zone(zone)
        ran = await self.at(
            parent,
            "delegate",
            "--zone",
            parent,
            "--child",
            zone,
            "--key",
            self.key(f"zone of {parent}"),
            "--enrol",
            await self.enrolment(zone),
            "--enrol",
            await self.node_enrolment(zone, parent),
            "--endpoint",
            self.nodes.of_zone[parent].endpoint,
            "--hosted",
        )
        assert ran.code == 0, ran
        self.nodes.of_zone[zone] = self.nodes.of_zone[parent]

    async def node_enrolment(self, zone: str, parent: str) -> Path:
        """The host's node key asks for its role in the hosted zone."""
        out = self.folder / f"{zone}.node.json"
        key = self.key(f"node of {parent}")
        assert (await self.run("key", "enrol", key, "--zone", zone, "--role", "node", "--out", out)).code == 0
        return out

    async def register(self, identifier: str = ITEM, *arguments: object) -> Ran:
        return await self.at("88.118", "register", identifier, "--key", self.key("owner of 88.118"), *arguments)


@pytest.fixture
async def tree(tmp_path: Path) -> AsyncIterator[Tree]:
    async with Nodes(tmp_path) as nodes:
        root = await nodes.registry("")
        await nodes.registry("88")
        listen = f"127.0.0.1:{free_port()}"
        mapping = {"listen": listen, "root_key": "root.pub", "root_endpoints": [root.endpoint], "drain_seconds": 0.0}
        stop, ready = asyncio.Event(), asyncio.Event()
        config = ResolverConfig.parse(mapping, tmp_path)
        task = asyncio.create_task(resolver_server.run(config, on_ready=lambda _: ready.set(), stop=stop))
        async with asyncio.timeout(10):
            await ready.wait()
        folder = tmp_path / "people"
        folder.mkdir()
        yield Tree(nodes, folder, listen)
        stop.set()
        await task


async def test_from_an_application_to_a_zone(tree: Tree) -> None:
    owner = tree.key("owner of 88.118")
    endpoint = tree.nodes.of_zone["88"].endpoint
    apply = ("prefix", "apply", "88.118", "--key", owner, "--contact", "ops@maker.example", "--endpoint", endpoint)
    applied = await tree.at("88", *apply, "--hosted", "--enrol", await tree.enrolment("88.118"))
    assert applied.code == 0
    assert "status APPLIED" in applied.said
    admin = ("--key", tree.key("zone of 88"))
    refused = await tree.at("88", "delegate", "--zone", "88", "--child", "88.118", *admin, "--applied")
    assert refused.code == ExitCode.REFUSED
    assert "PREFIX_NOT_ENABLED" in refused.err
    assert "is not followed by" in (await tree.at("88", "prefix", "set", "88.118", "--status", "enabled", *admin)).err
    for status in ("in_review", "enabled"):
        moved = await tree.at(
            "88", "prefix", "set", "88.118", "--status", status, *admin, "--comment", "fine", "--json"
        )
        assert (moved.json["status"], moved.json["comment"]) == (status, "fine")
    shown = await tree.at("88", "prefix", "status", "88.118")
    assert "ops@maker.example" in shown.said
    assert "status ENABLED" in shown.said
    assert len((await tree.at("88", "prefix", "status", "88.118", "--json")).json["enrolments"]) == len(USUAL)
    hand_out = ("delegate", "--zone", "88", "--child", "88.118", *admin, "--applied", "--root", tree.root)
    hostless = await tree.at("88", *hand_out)
    assert hostless.code == ExitCode.REFUSED
    assert "host's node key" in hostless.said
    delegated = await tree.at("88", *hand_out, "--enrol", await tree.node_enrolment("88.118", "88"), "--json")
    assert delegated.code == 0, delegated
    assert (delegated.code, delegated.json["version"], delegated.json["state"]) == (0, 1, "active")
    stranger = await tree.at("88", "prefix", "set", "88.118", "--status", "disabled", "--key", owner)
    assert stranger.code == ExitCode.REFUSED
    assert "SIGNER_UNKNOWN" in stranger.err
    nobody = await tree.at("88", "prefix", "status", "88.7")
    assert "nobody has applied" in nobody.said
    missing = await tree.at("88", "delegate", "--zone", "88", "--child", "88.7", *admin, "--applied")
    assert (missing.code, "nobody has applied" in missing.err) == (ExitCode.REFUSED, True)


async def test_the_roots_key_set_comes_from_the_command_line(tree: Tree, tmp_path: Path) -> None:
    ran = await tree.at("", "delegate", "--root-zone", "--key", tree.key(PINNED), "--days", 9, "--json")
    assert (ran.code, ran.json["version"]) == (0, 2)
    kept = tmp_path / "root.json"
    again = await tree.at("", "delegate", "--child", "", "--key", tree.key(PINNED), "--out", kept, "--root", tree.root)
    assert again.code == 0
    assert f"kept in {kept}" in again.said
    assert "the root" in again.said


async def test_the_life_of_an_identifier(tree: Tree) -> None:
    await tree.open_zone()
    key = ("--key", tree.key("owner of 88.118"), "--root", tree.root)
    made = await tree.register(ITEM, "-v", "lot=L1", "-v", "URL=https://x.example/1", "--root", tree.root)
    assert made.code == 0
    assert "signed by zone 88.118" in made.said
    saved = tree.folder / "sn1.json"
    found = await tree.resolve(ITEM, "--save", saved)
    assert found.code == 0
    assert found.out.startswith(f"✓ FOUND {ITEM}")
    assert "https://x.example/1" in found.out
    assert "└──" in found.out
    assert (await tree.run("verify", saved, "--root", tree.root)).code == 0

    taken = await tree.register(ITEM, "-v", "lot=L2")
    assert taken.code == ExitCode.REFUSED
    assert "idtrace update" in taken.err

    recalled = await tree.at("88.118", "update", ITEM, "--status", "recalled", "-v", "notice=N7", *key)
    assert recalled.code == 0
    seen = (await tree.resolve(ITEM, "--json")).json["record"]
    assert (seen["status"], seen["version"]) == ("recalled", 2)
    assert [(v["type"], v["data"]) for v in seen["values"]] == [
        ("lot", "L1"),
        ("URL", "https://x.example/1"),
        ("notice", "N7"),
    ]
    assert (await tree.resolve(ITEM)).out.startswith(f"! FOUND, RECALLED {ITEM}")

    unsaid = await tree.at("88.118", "retire", ITEM, *key)
    assert unsaid.code == ExitCode.USAGE
    assert "for ever" in unsaid.err
    ended = await tree.at("88.118", "retire", ITEM, "--yes", *key, "--json")
    assert (ended.code, ended.json["status"], ended.json["version"]) == (0, "retired", 3)
    gone = await tree.resolve(ITEM)
    assert (gone.code, gone.out.split()[1]) == (ExitCode.PROVEN_NO, "GONE")
    for command in (("update", ITEM, "--ttl", 5), ("retire", ITEM, "--yes")):
        assert "IDENTIFIER_RETIRED" in (await tree.at("88.118", *command, *key)).err


async def test_restricted_values_are_withheld_and_an_update_carries_them_over(tree: Tree) -> None:
    await tree.open_zone()
    await tree.register(ITEM, "-v", "lot=L1", "-v", "tester=Li", "--restricted", "tester")
    found = await tree.resolve(ITEM)
    assert "tester withheld" in found.said
    key = ("--key", tree.key("owner of 88.118"))
    assert (await tree.at("88.118", "update", ITEM, "--status", "recalled", *key)).code == 0
    assert "tester withheld" in (await tree.resolve(ITEM, "--fresh")).said
    given = ("-v", "tester=Li", "--restricted", "tester")
    assert (await tree.at("88.118", "update", ITEM, "--status", "suspended", *given, *key)).code == 0
    assert (await tree.at("88.118", "update", ITEM, "--unset", "tester", *key)).code == 0
    assert len((await tree.resolve(ITEM, "--json")).json["record"]["values"]) == 1


async def test_nobody_signs_on_top_of_what_they_cannot_verify(tree: Tree) -> None:
    await tree.open_zone()
    await tree.register(ITEM, "-v", "lot=L1")
    second = ("--key", tree.key("record of 88.118"))
    update = ("update", ITEM, "--status", "suspended")
    unpinned = await tree.at("88.118", *update, *second, "--json")
    assert (unpinned.code, unpinned.json["error"]["reason"]) == (ExitCode.BOGUS, "SIGNER_UNKNOWN")
    assert "--root" in unpinned.json["error"]["hint"]
    other = Path(f"{tree.key('other root')}.pub")
    wrong = await tree.at("88.118", *update, *second, "--root", other)
    assert (wrong.code, "ROOT_MISMATCH" in wrong.err) == (ExitCode.BOGUS, True)
    pinned = await tree.at("88.118", *update, *second, "--root", tree.root)
    assert pinned.code == ExitCode.REFUSED, "the record is genuine, and the node does not know this key"


async def test_an_update_at_the_wrong_place_says_where_to_go(tree: Tree) -> None:
    await tree.open_zone()
    key = ("--key", tree.key("owner of 88.118"))
    absent = await tree.at("88.118", "update", "88.118/none", "--ttl", 5, *key)
    assert (absent.code, "IDENTIFIER_UNKNOWN" in absent.err) == (ExitCode.REFUSED, True)
    referred = await tree.at("", "update", "88.118/none", "--ttl", 5, *key)
    assert referred.code == ExitCode.REFUSED
    assert f"ask --node {tree.nodes.of_zone['88'].endpoint}" in referred.said
    for nothing in (["update", ITEM], ["update", ITEM, "--status", "retired"], ["update", ITEM, "--status", "x"]):
        assert (await tree.at("88.118", *nothing, *key)).code == ExitCode.USAGE


async def test_a_class_and_its_items(tree: Tree) -> None:
    await tree.open_zone()
    template = Path(__file__).parents[2] / "examples" / "template.json"
    assert (await tree.register("88.118/box", "--kind", "class", "--template", template)).code == 0
    refused = await tree.register("88.118/b-1", "--class", "88.118/box", "-v", "lot=L1")
    assert (refused.code, "CLASS_FIELD_REQUIRED" in refused.err) == (ExitCode.REFUSED, True)
    values = ("-v", "lot=L1", "-v", "made=2026-07-14")
    assert (await tree.register("88.118/b-1", "--class", "88.118/box", *values)).code == 0
    assert "class 88.118/box" in (await tree.resolve("88.118/b-1")).said


async def test_many_questions_have_many_answers_and_the_gravest_code(tree: Tree) -> None:
    await tree.open_zone()
    await tree.register()
    several = await tree.resolve(ITEM, "nonsense", "88.118/none", "--json")
    assert several.code == ExitCode.USAGE
    assert [answer.get("verdict", "error") for answer in several.json] == ["FOUND", "error", "ABSENT"]
    for_people = await tree.resolve(ITEM, "nonsense", "88.118/none")
    assert "○ ABSENT 88.118/none" in for_people.out
    assert "SCAN_UNKNOWN_SCHEME" in for_people.err
    assert (await tree.resolve(ITEM, "88.118/none")).code == ExitCode.PROVEN_NO
    assert (await tree.resolve(ITEM, ITEM, "--save", tree.folder / "x")).code == ExitCode.USAGE
    assert (await tree.resolve("nonsense", "--json")).json["error"]["reason"] == "SCAN_UNKNOWN_SCHEME"


async def test_under_another_root_key_every_answer_is_bogus(tree: Tree) -> None:
    await tree.open_zone()
    await tree.register()
    other = Path(f"{tree.key('other root')}.pub")
    asked = ("resolve", ITEM, "--resolver", tree.resolver, "--root", other)
    ran = await tree.run(*asked, "--save", tree.folder / "evidence.bundle")
    assert ran.code == ExitCode.BOGUS
    assert "Do not act on this answer" in ran.out
    assert "ROOT_MISMATCH" in ran.out
    assert "NOT verify" in ran.err
    assert (tree.folder / "evidence.bundle").exists()
    body = (await tree.run(*asked, "--json")).json
    assert (body["verdict"], body["exit_code"]) == ("BOGUS", 3)
    assert "record" not in body


async def test_a_scan_is_resolved_as_it_comes(tree: Tree) -> None:
    await tree.open_zone()
    await tree.register()
    asked = ("--resolver", tree.resolver, "--root", tree.root)
    ran = await tree.run("scan", "-", *asked, "--json", typed=f"{ITEM}\n88.118/none\nnonsense\n")
    assert [line.get("resolution", line.get("error"))["exit_code"] for line in ran.lines] == [0, 1, 2]
    one = await tree.run("scan", ITEM, *asked)
    assert (one.code, f"✓ FOUND {ITEM}" in one.said) == (0, True)


async def test_a_dead_node_is_unreachable_and_a_wrong_one_is_said_so(tree: Tree) -> None:
    await tree.open_zone()
    await tree.register()
    await tree.nodes.of_zone["88"].end()
    silent = await tree.resolve(ITEM)
    assert (silent.code, silent.out.split()[1]) == (ExitCode.UNREACHABLE, "UNREACHABLE")
    registry = tree.nodes.of_zone[""].endpoint
    wrong = await tree.run("resolve", ITEM, "--resolver", registry, "--root", tree.root)
    assert wrong.code == ExitCode.REFUSED
    assert "other kind of node" in wrong.err


async def test_a_zone_is_rotated_and_taken_back(tree: Tree) -> None:
    await tree.open_zone()
    await tree.register()
    admin = ("--zone", "88", "--child", "88.118", "--key", tree.key("zone of 88"), "--json")
    rotated = await tree.at("88", "delegate", *admin, "--days", 7)
    assert (rotated.code, rotated.json["version"]) == (0, 2)
    revoked = await tree.at("88", "delegate", *admin, "--revoke", "--root", tree.root)
    assert (revoked.code, revoked.json["state"], revoked.json["version"]) == (0, "revoked", 3)
    gone = await tree.resolve(ITEM)
    assert (gone.code, gone.out.split()[1]) == (ExitCode.PROVEN_NO, "GONE")
    assert "REVOKED" in gone.out


async def test_a_file_of_lines_goes_through_a_real_node(tree: Tree) -> None:
    await tree.open_zone()
    source = tree.folder / "items.jsonl"
    source.write_text("".join(f'{{"identifier": "88.118/B-{n}", "values": {{"n": {n}}}}}\n' for n in range(300)))
    bulk = ("register", "--from", source, "--key", tree.key("owner of 88.118"), "--root", tree.root, "--batch", 70)
    ran = await tree.at("88.118", *bulk)
    assert ran.code == 0, ran
    assert "registered 300" in ran.said
    kept = receipt_lines(source)
    assert len(kept) == 300
    forget_last_lines(source, 100)
    again = await tree.at("88.118", *bulk)
    assert (again.code, "registered 100" in again.said) == (0, True)
    assert sorted(receipt_lines(source)) == sorted(kept), "the same receipts, byte for byte"


async def test_wrong_ways_to_register_are_refused_before_anything_is_sent(tree: Tree) -> None:
    key = ("--key", tree.key("owner of 88.118"))
    source = tree.folder / "items.csv"
    source.write_text("identifier\n")
    for arguments in (
        [],
        [ITEM, "--from", source],
        ["--from", source, "-v", "a=b"],
        [ITEM, "--kind", "tombstone"],
        [ITEM, "-v", "a"],
        [ITEM, "--kind", "class", "--template", source],
        ["nonsense"],
    ):
        assert (await tree.at("88", "register", *arguments, *key)).code == ExitCode.USAGE
    foreign = await tree.at("88", "register", "99.1/x", *key)
    assert (foreign.code, "NOT_AUTHORITATIVE" in foreign.err) == (ExitCode.REFUSED, True)

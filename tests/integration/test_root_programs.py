"""The root's keys are replaced under three real programs: a root node, a node below it, and a resolver.

Nodes and resolvers read the file that pins the root when they start, so each step of the change is: update the file,
start again. Those who verify update their file, or name the updates beside the pin that they have always had.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from idtrace.cli.exits import ExitCode
from tests.cli import Ran, idtrace, key_file
from tests.core_fixtures import PINNED, public
from tests.integration.test_cli_program import start
from tests.nodes import TIMEOUT, free_port

NEXT = "next root"
NAME = "88/A"


class Tree:
    """Three programs in a folder; ``root.pub`` is theirs, and ``old.pub`` what a client has pinned for ever."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root, self.old = folder / "root.pub", folder / "old.pub"
        for file in (self.root, self.old):
            file.write_bytes(Path(f"{key_file(folder, PINNED)}.pub").read_bytes())
        self.at = {name: f"127.0.0.1:{free_port()}" for name in ("root", "88", "resolver")}
        self.updates: list[object] = []
        node = 'data = "{0}.data"\nroot_key = "root.pub"\nnode_key = "{1}"\nzones = ["{2}"]\nparents = [{3}]\n'
        parts = {
            "root": node.format("root", self.key("node of root").name, "", ""),
            "88": node.format("88", self.key("node of 88").name, "88", f'"{self.at["root"]}"')
            + "refresh_seconds = 0.1\n",
            "resolver": f'root_key = "root.pub"\nroot_endpoints = ["{self.at["root"]}"]\n',
        }
        for name, text in parts.items():
            (folder / f"{name}.toml").write_text(f'listen = "{self.at[name]}"\ndrain_seconds = 0.2\n{text}')

    def key(self, name: str) -> Path:
        return key_file(self.folder, name)

    @contextmanager
    def running(self) -> Iterator[None]:
        """All three, until they are told to stop; each has to end well."""
        with ExitStack() as stack:
            for name in self.at:
                role = "resolver" if name == "resolver" else "registry"
                process = start(["node", "run", "--role", role, "--config", f"{name}.toml"], self.folder)
                stack.callback(ended, process)
                assert process.stdout is not None
                assert process.stdout.readline() == f"ready {self.at[name]}\n"
            yield

    def hand_out(self, *where: object, zone: str, node: str, by: str, endpoint: str) -> None:
        proofs: list[object] = []
        for role in ("zone", "record", "node"):
            out = self.folder / f"{zone or 'root'}.{role}.json"
            key = self.key(f"node of {node}") if role == "node" else self.key(f"{role} of {zone}")
            assert idtrace("key", "enrol", key, "--zone", zone, "--role", role, "--out", out).code == 0
            proofs += ["--enrol", out]
        self.good("delegate", *where, *proofs, "--key", self.key(by), "--endpoint", endpoint, *self.root_node)

    @property
    def root_node(self) -> tuple[object, ...]:
        return ("--node", self.at["root"], "--root", self.root)

    def good(self, *arguments: object) -> Ran:
        ran = idtrace(*arguments)
        assert ran.code == 0, (arguments, ran)
        return ran

    def begin(self) -> None:
        """The root's key set, the zone below it, and the first record."""
        self.hand_out("--root-zone", zone="", node="root", by=PINNED, endpoint=self.at["root"])
        self.hand_out("--child", "88", zone="88", node="88", by="zone of ", endpoint=self.at["88"])
        self.registered()

    def registered(self) -> None:
        """As soon as the node has heard that the zone is its own."""
        end = time.monotonic() + TIMEOUT
        while True:
            ran = idtrace("register", NAME, "--node", self.at["88"], "--key", self.key("record of 88"), "-v", "lot=L1")
            if ran.code == 0:
                return
            assert time.monotonic() < end, ran
            time.sleep(0.1)

    def next_root(self, number: int, *change: object) -> None:
        """The next version, signed by both keys; the programs' file follows."""
        update = self.folder / f"root-{number}.json"
        self.good("key", "root-next", "--root", self.root, *change, "--out", update)
        keys = ("--key", self.key(PINNED), "--key", self.key(NEXT))
        self.good("key", "root-sign", update, "--root", self.root, *keys)
        self.good("key", "root-update", "--root", self.root, "--update", update)
        self.updates += ["--root-update", update]

    def everybody_is_right(self, turn: int) -> None:
        """Whoever has followed the root resolves, scans, registers and updates, by the file or by its updates."""
        asking, writing = (
            ("--resolver", self.at["resolver"]),
            ("--node", self.at["88"], "--key", self.key("record of 88")),
        )
        for pin in (("--root", self.root), ("--root", self.old, *self.updates)):
            assert self.good("resolve", NAME, *asking, *pin, "--json").json["verdict"] == "FOUND"
            self.good("scan", NAME, *asking, *pin)
            self.good("register", f"88/N{turn}", *writing, *pin)
            self.good("update", NAME, *writing, *pin, "-v", f"turn={turn}")
            self.good("delegate", "--child", "88", "--key", self.key("zone of "), "--node", self.at["root"], *pin)
            turn += 100

    def is_refused(self, *pin: object) -> None:
        ran = idtrace("resolve", NAME, "--resolver", self.at["resolver"], *pin)
        assert (ran.code, "ROOT_MISMATCH" in ran.said) == (ExitCode.BOGUS, True), ran


def ended(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors, errors


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_roots_keys_are_replaced_under_running_programs(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    with tree.running():
        tree.begin()
        tree.everybody_is_right(1)
    tree.next_root(2, "--add", f"{tree.key(NEXT)}.pub")
    with tree.running():
        tree.everybody_is_right(2)
        tree.good("delegate", "--root-zone", "--key", tree.key(NEXT), *tree.root_node)
    with tree.running():  # so that nobody starts from a chain under the old key any more
        tree.everybody_is_right(3)
        tree.is_refused("--root", tree.old)
    tree.next_root(3, "--drop", public(PINNED).key_id)
    with tree.running():
        tree.everybody_is_right(4)
        tree.is_refused("--root", tree.old)
        stolen = idtrace("delegate", "--root-zone", "--key", tree.key(PINNED), *tree.root_node)
        assert stolen.code == ExitCode.REFUSED, stolen


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_stolen_root_key_is_dropped_at_once_and_what_it_signed_is_signed_anew(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    with tree.running():
        tree.begin()
        tree.everybody_is_right(1)
    tree.next_root(2, "--add", f"{tree.key(NEXT)}.pub", "--drop", public(PINNED).key_id)
    with tree.running():
        tree.is_refused("--root", tree.root)  # all that there is rests on the stolen key
        again = ("delegate", "--root-zone", "--key", tree.key(NEXT), *tree.root_node)
        assert idtrace(*again).code == ExitCode.BOGUS
        tree.good(*again, "--former", f"{tree.key(PINNED)}.pub")
        end = time.monotonic() + 3 * TIMEOUT  # what has failed is asked again after a while
        while idtrace("resolve", NAME, "--resolver", tree.at["resolver"], "--root", tree.root).code != 0:
            assert time.monotonic() < end
            time.sleep(0.2)
        tree.everybody_is_right(2)
        tree.is_refused("--root", tree.old)

"""A whole tree of real nodes on this machine: one process a node, loopback gRPC, keys and stores in one folder.

::

    root ── top (88, gs1, drug) ── secondary (88.118, hosts 88.118.9 and a clinic)
                                     ├── maker (88.118.8, its GTIN, its drug code)
                                     └── centre (88.118.2), carrier (88.118.3), clinic (88.118.4)
    resolver-a, resolver-b: start at the root's key and trust nobody
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from idtrace.cli.client import connect
from idtrace.cli.demo_data import DRUG, GTIN
from idtrace.cli.demo_engines import Engines
from idtrace.cli.demo_vaccine_events import CARRIER, CENTRE, CLINIC, STRANGER
from idtrace.cli.exits import ExitCode, Failure
from idtrace.cli.trust import zone_of
from idtrace.delegation import Delegation
from idtrace.errors import BusyError, Reason
from idtrace.identifier import Prefix

HOST: Final = "127.0.0.1"
# A node imports gRPC and opens its store in about a second; a busy CI machine needs a multiple of that.
READY_SECONDS_MAX: Final = 120.0
STOP_SECONDS_MAX: Final = 15.0
POLL_SECONDS: Final = 0.05
# Between two starts of a node that has ended at once, for its store did not answer: what a supervisor waits.
RESTART_SECONDS: Final = 1.0
# Of a node's log, where it did not start: the last words tell why, and a screen shows 400 of an error's.
LOG_TAIL_CHARS: Final = 300

Command = Callable[..., object]


@dataclass(frozen=True, slots=True)
class NodePlan:
    """A node: its zones (none for a resolver) and whose node hands them out."""

    name: str
    zones: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ZonePlan:
    """A zone: which node serves it, which zone hands it out, and whether it is hosted there."""

    zone: str
    node: str
    parent: str
    hosted: bool = False


MAKER_ZONES: Final = ("88.118.8", f"gs1.01.{GTIN}", f"drug.{DRUG}")
NODES: Final = (
    NodePlan("root", ("",)),
    NodePlan("top", ("88", "gs1", "drug"), ("root",)),
    NodePlan("secondary", ("88.118",), ("top",)),
    NodePlan("maker", MAKER_ZONES, ("secondary", "top")),
    NodePlan("centre", (CENTRE,), ("secondary",)),
    NodePlan("carrier", (CARRIER,), ("secondary",)),
    NodePlan("clinic", (CLINIC,), ("secondary",)),
    NodePlan("resolver-a"),
    NodePlan("resolver-b"),
)
ZONES: Final = (
    ZonePlan("88", "top", ""),
    ZonePlan("gs1", "top", ""),
    ZonePlan("drug", "top", ""),
    ZonePlan("88.118", "secondary", "88"),
    ZonePlan("88.118.8", "maker", "88.118"),
    ZonePlan(f"gs1.01.{GTIN}", "maker", "gs1"),
    ZonePlan(f"drug.{DRUG}", "maker", "drug"),
    ZonePlan("88.118.9", "secondary", "88.118", hosted=True),
    ZonePlan(CENTRE, "centre", "88.118"),
    ZonePlan(CARRIER, "carrier", "88.118"),
    ZonePlan(CLINIC, "clinic", "88.118"),
    ZonePlan(STRANGER, "secondary", "88.118", hosted=True),
)


@dataclass(slots=True)
class DemoTree:
    """Processes and files of one demonstration. ``command`` runs one ``idtrace`` command, as a user would."""

    folder: Path
    command: Command
    engines: Engines = field(default_factory=Engines)
    endpoints: dict[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    has_tables: bool = False

    @property
    def root_key(self) -> Path:
        """The pinned root key, the one thing that is trusted."""
        return self.folder / "root.key.pub"

    def key(self, name: str) -> Path:
        """A private key file: ``zone``/``record`` keys by zone, ``node`` keys by node."""
        return self.folder / f"{name}.key"

    def owner_key(self, zone: str) -> Path:
        """The key of the zone's owner, which signs its records and its child zones; the maker has one for all."""
        return self.key("maker-owner" if zone in MAKER_ZONES else f"{zone or 'root-zone'}-owner")

    @property
    def shared_key(self) -> Path:
        """The secret that resolvers share who share a Redis."""
        return self.folder / "shared.secret"

    def prepare(self) -> None:
        """Make keys and configurations, and the tables of a Cassandra."""
        self.folder.mkdir(parents=True)
        self.engines.prepare(self.shared_key)
        owners = {self.owner_key(plan.zone) for plan in ZONES} | {self.owner_key("")}
        nodes = {self.key(f"{plan.name}-node") for plan in NODES if plan.zones}
        for path in sorted({self.key("root"), *owners, *nodes}):
            self.command("key", "new", str(path))
        self.endpoints = dict(zip((plan.name for plan in NODES), _free_endpoints(len(NODES)), strict=True))
        for plan in NODES:
            self._config_file(plan.name).write_text(self._config(plan), encoding="utf-8")
        if self.engines.cassandra:
            self.has_tables = True  # from here on, whether the command gets to its end or not
            self.command("store", "migrate", "--config", str(self._config_file(NODES[0].name)))

    def _config_file(self, name: str) -> Path:
        return self.folder / f"{name}.toml"

    def _config(self, plan: NodePlan) -> str:
        settings: dict[str, object] = {"listen": self.endpoints[plan.name], "root_key": self.root_key.name}
        if plan.zones:
            parents = [self.endpoints[name] for name in plan.parents]
            settings |= {"data": f"{plan.name}.data", "node_key": f"{plan.name}-node.key"}
            settings |= {"zones": list(plan.zones), "parents": parents, "refresh_seconds": 1.0}
        else:
            settings |= {"root_endpoints": [self.endpoints["root"]]}
        lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
        tables = (
            self.engines.registry_tables(plan.name) if plan.zones else self.engines.resolver_tables(self.shared_key)
        )
        return lines + tables

    def start(self) -> None:
        """Start every node and wait until each says that it is ready.

        Raises:
            Failure: UNREACHABLE, with the end of the node's log.
        """
        for plan in NODES:
            self._spawn(plan)
        deadline = time.monotonic() + READY_SECONDS_MAX
        for name, process in self.processes.items():
            self._await_ready(name, process, deadline)

    def kill(self, name: str) -> None:
        """Kill one node (-9), and wait until it is gone."""
        process = self.processes[name]
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def start_again(self, name: str) -> None:
        """Start a node that was killed, on what it has kept, at its old address; as a supervisor does, until it stays.

        Raises:
            Failure: as :meth:`start`.
        """
        plan = next(plan for plan in NODES if plan.name == name)
        deadline = time.monotonic() + READY_SECONDS_MAX
        while True:
            self._spawn(plan)
            try:
                self._await_ready(name, self.processes[name], deadline)
            except Failure:
                if time.monotonic() > deadline:
                    raise
            else:
                return
            self.kill(name)
            time.sleep(RESTART_SECONDS)

    def _spawn(self, plan: NodePlan) -> None:
        role = "registry" if plan.zones else "resolver"
        config = str(self._config_file(plan.name))
        with self._log(plan.name).open("ab") as log:
            self.processes[plan.name] = subprocess.Popen(
                [sys.executable, "-m", "idtrace", "node", "run", "--role", role, "--config", config],
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def _await_ready(self, name: str, process: subprocess.Popen[bytes], deadline: float) -> None:
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if readable and os.read(process.stdout.fileno(), 256).startswith(b"ready"):
            return
        tail = self._log(name).read_text("utf-8", "replace")[-LOG_TAIL_CHARS:]
        detail = f"node {name} did not start: {tail or 'it said nothing'}"
        raise Failure(ExitCode.UNREACHABLE, BusyError(Reason.NO_ANSWER, detail), title="the tree did not come up")

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def delegate(self) -> None:
        """Hand out every zone from the root down, each with proofs of possession of its keys."""
        for plan in (ZonePlan("", "root", ""), *ZONES):
            self._hand_out(plan)
            self._await_zone(plan)

    def _await_zone(self, plan: ZonePlan) -> None:
        """Wait until the node has fetched the delegation of its zone from its parent's node.

        Raises:
            Failure: UNREACHABLE.
        """
        zone = Prefix.parse(plan.zone)
        deadline = time.monotonic() + READY_SECONDS_MAX
        with connect(self.endpoints[plan.node], READY_SECONDS_MAX) as node:
            while time.monotonic() < deadline:
                chain = zone_of(node, zone).chain
                if chain and Delegation.parse(chain[-1].payload).child == zone:
                    return
                time.sleep(POLL_SECONDS)
        error = BusyError(Reason.NO_ANSWER, f"node {plan.node} did not learn of zone '{plan.zone}'")
        raise Failure(ExitCode.UNREACHABLE, error, title="the tree did not come up")

    def _hand_out(self, plan: ZonePlan) -> None:
        host = next(node for node in NODES if node.name == plan.node)
        name = plan.zone or "root-zone"
        owner, node_key = self.owner_key(plan.zone), self.key(f"{host.name}-node")
        enrolments = []
        for path, roles in ((owner, ("zone", "record")), (node_key, ("node",))):
            file = self.folder / f"{name}-{roles[-1]}.enrol.json"
            options = [part for role in roles for part in ("--role", role)]
            self.command("key", "enrol", str(path), "--zone", plan.zone, *options, "--out", str(file))
            enrolments += ["--enrol", str(file)]
        signer = self.key("root") if plan.zone == "" else self.owner_key(plan.parent)
        at = "root" if plan.zone == "" else next((z.node for z in ZONES if z.zone == plan.parent), "root")
        target = ["--root-zone"] if plan.zone == "" else ["--zone", plan.parent, "--child", plan.zone]
        hosted = ["--hosted"] if plan.hosted else []
        endpoint = ["--endpoint", self.endpoints[plan.node]]
        self.command(
            "delegate", *target, "--key", str(signer), *enrolments, *endpoint, *hosted, "--node", self.endpoints[at]
        )

    def stop(self) -> None:
        """End the processes that this object started, by their ids: first asked, then made to."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS_MAX
        for process in self.processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _free_endpoints(count: int) -> list[str]:
    """Addresses on loopback that were free a moment ago; all probed at once so that they differ."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((HOST, 0))
        return [f"{HOST}:{probe.getsockname()[1]}" for probe in probes]
    finally:
        for probe in probes:
            probe.close()

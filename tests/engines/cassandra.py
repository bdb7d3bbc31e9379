"""A real Apache Cassandra, of one node or of three on 127.0.0.1 to 127.0.0.3, on ports that nobody else uses.

Started as ordinary Java processes, with files under one folder. Measured on 2 cores: one node answers CQL after about
5 s, three after about 17 s; a heap of 768 MB is a process of 1.1 GB.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from tests.engines import EngineFailed, EngineUnavailable, may_install
from tests.engines.install import CASSANDRA, CONF, install_jars, install_programs, jars, java, locked
from tests.engines.process import Process, free_port, listens
from tests.engines.tls import STORE_PASSWORD, Identity

ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
# Three nodes are ready after 17 s on a machine of their own, and after 100 where twenty programs want its two cores.
READY_SECONDS = 180.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.1
HEAP_MB = {1: 768, 3: 512}
# Of memory that must be free before a start, for each node: what its process takes beyond the heap is 350 MB.
BEYOND_HEAP_MB = 400
TOKENS = 2**64


class CassandraCluster:
    """A cluster whose state is its folder: a second object on the same folder, in any process, is the same cluster.

    ``auth``: PasswordAuthenticator, with Cassandra's first account (``username``, ``password``), and roles may do what
    they were granted and no more; ``tls``: clients must speak TLS (``identity.ca``); ``mutual``: and show a certificate
    of their own (``identity.client_certificate``). Nodes are numbered from 0, as ``contact_points`` has them.
    """

    username = "cassandra"
    password = "cassandra"

    def __init__(
        self,
        folder: Path,
        nodes: Literal[1, 3] = 1,
        *,
        auth: bool = False,
        tls: bool = False,
        mutual: bool = False,
    ) -> None:
        self.folder = folder
        self.nodes = nodes
        self.auth = auth
        self.identity = Identity(folder / "tls") if tls or mutual else None
        self.mutual = mutual
        self.contact_points = list(ADDRESSES[:nodes])
        self._processes = [Process(folder / f"node{number}", "cassandra") for number in range(nodes)]
        self._file = folder / "cluster.json"

    @property
    def port(self) -> int:
        """Of CQL, at every address; known from ``start`` on."""
        return int(self._noted()["native"])

    @property
    def running(self) -> list[int]:
        """The nodes whose process is there, paused or not."""
        return [number for number, process in enumerate(self._processes) if process.pid is not None]

    # --- Life

    def install(self) -> Path:
        """The folder of the jars.

        Raises:
            EngineUnavailable: they are not here, and cannot or may not be fetched.
        """
        if may_install():
            install_programs(CASSANDRA)
        elif not jars().is_dir():
            raise EngineUnavailable("Cassandra is not installed here (make engines fetches it)")
        return install_jars()

    def start(self, timeout: float = READY_SECONDS) -> None:
        """Start what does not run, and wait until every node sees every other; nothing if all run.

        Raises:
            EngineUnavailable: it is not installed, or there is too little memory.
            EngineFailed: it does not start.
        """
        lib = self.install()
        with locked(self.folder / "start.lock"):
            if not self.running:
                self._ask_for_memory()
                # Only a cluster that has never run may move: the ports of the others stand in its own tables.
                if not self._file.exists():
                    self._choose_ports()
            deadline = time.monotonic() + timeout
            for number in range(self.nodes):
                self._spawn(number, lib)
                # The seed first, alone: the others join it.
                if number == 0:
                    self._wait_listening(0, deadline)
            self.wait_ready(deadline - time.monotonic())

    def wait_ready(self, timeout: float = READY_SECONDS) -> None:
        """Until every node answers, knows all others, and reaches all of them."""
        deadline = time.monotonic() + timeout
        for number in range(self.nodes):
            self._wait_listening(number, deadline)
            while (reason := self._not_ready(number)) is not None:
                self._give_up_after(deadline, number, reason)

    def stop(self) -> None:
        """SIGTERM (it writes out what it holds); past 30 s, SIGKILL. Data stays: ``start`` again finds it."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.stop(STOP_SECONDS)

    def kill(self, node: int) -> None:
        """kill -9, and wait until it is gone."""
        self._processes[node].kill()

    def pause(self, node: int) -> None:
        """SIGSTOP: its connections stay open and nothing answers."""
        self._processes[node].pause()

    def resume(self, node: int) -> None:
        self._processes[node].resume()

    def restart(self, node: int, timeout: float = READY_SECONDS) -> None:
        """Stop a node if it runs, start it with the data that it has, and wait until all see it again."""
        self._processes[node].stop(STOP_SECONDS)
        self.start(timeout)

    def mend(self) -> None:
        """Undo what a test has done to it: all nodes run, and see each other."""
        was_whole = len(self.running) == self.nodes and not any(process.paused for process in self._processes)
        if not was_whole:
            for process in self._processes:
                process.resume()
            self.start()

    # --- Clients

    @contextmanager
    def connected(self, node: int | None = None, **options: Any) -> Iterator[Any]:
        """A session of the driver, with all nodes or with one alone; ``options`` go to the driver's Cluster."""
        cluster = self.client(node, **options)
        try:
            yield cluster.connect()
        finally:
            cluster.shutdown()

    def client(self, node: int | None = None, **options: Any) -> Any:
        """The driver's ``Cluster``, not yet connected, with the account and the trust that this cluster asks for."""
        from cassandra.auth import PlainTextAuthProvider
        from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
        from cassandra.policies import WhiteListRoundRobinPolicy

        points = self.contact_points if node is None else [self.contact_points[node]]
        profile = ExecutionProfile(load_balancing_policy=WhiteListRoundRobinPolicy(points), request_timeout=30.0)
        given: dict[str, Any] = {
            "contact_points": points,
            "port": self.port,
            "execution_profiles": {EXEC_PROFILE_DEFAULT: profile},
            "protocol_version": 5,
            "auth_provider": PlainTextAuthProvider(self.username, self.password) if self.auth else None,
            "ssl_context": self.ssl_context() if self.identity else None,
        }
        return Cluster(**given | options)

    def ssl_context(self) -> ssl.SSLContext:
        assert self.identity is not None, "started without tls"
        context = self.identity.client_context()
        if self.mutual:
            context.load_cert_chain(self.identity.client_certificate, self.identity.client_key)
        return context

    def version(self) -> str:
        """Of the server that answers."""
        with self.connected() as session:
            return str(session.execute("SELECT release_version FROM system.local").one().release_version)

    def create_keyspace(self, name: str) -> None:
        """A keyspace with a replica on every node."""
        replication = f"{{'class': 'SimpleStrategy', 'replication_factor': {self.nodes}}}"
        with self.connected() as session:
            session.execute(f"CREATE KEYSPACE {name} WITH replication = {replication}")

    def drop_keyspace(self, name: str) -> None:
        with self.connected() as session:
            session.execute(f"DROP KEYSPACE IF EXISTS {name}")

    def nodetool(self, *words: str, node: int = 0) -> str:
        """What Cassandra's own tool for operators says, after a second or two: a Java starts for it."""
        scratch = self.folder / "nodetool"
        scratch.mkdir(parents=True, exist_ok=True)
        options = [
            f"@{CONF / 'nt.options'}",
            "-Xmx96m",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            f"{jars()}/*",
            f"-Duser.home={scratch}",
            f"-Dcassandra.logdir={scratch}",
            f"-Dlogback.configurationFile={(CONF / 'logback-tools.xml').as_uri()}",
        ]
        where = ["-h", "127.0.0.1", "-p", str(self._noted()["jmx"][node])]
        command = [java(), *options, "org.apache.cassandra.tools.NodeTool", *where, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise EngineFailed(f"nodetool {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    # --- How

    def _noted(self) -> dict[str, Any]:
        assert self._file.exists(), "this cluster was never started"
        noted: dict[str, Any] = json.loads(self._file.read_text("utf-8"))
        return noted

    def _choose_ports(self) -> None:
        chosen: list[int] = []
        while len(set(chosen)) < 2 + self.nodes:
            chosen.append(free_port(self.contact_points))
        native, storage, *jmx = dict.fromkeys(chosen)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file.write_text(
            json.dumps(
                {
                    "name": f"idtrace {uuid.uuid4()}",
                    "native": native,
                    "storage": storage,
                    "jmx": jmx,
                }
            ),
            "utf-8",
        )

    def _ask_for_memory(self) -> None:
        needed = self.nodes * (HEAP_MB[self.nodes] + BEYOND_HEAP_MB)
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
        free = next(int(line.split()[1]) // 1024 for line in lines if line.startswith("MemAvailable:"))
        if free < needed:
            raise EngineUnavailable(
                f"{self.nodes} node(s) of Cassandra take {needed} MB of memory, and {free} are free"
            )

    def _spawn(self, number: int, lib: Path) -> None:
        process = self._processes[number]
        if process.pid is not None:
            return
        folder = self.folder / f"node{number}"
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "cassandra.yaml"
        config.write_text(self._config(number, folder), "utf-8")
        heap = HEAP_MB[self.nodes]
        (agent,) = lib.glob("jamm-*.jar")
        settings = {
            "cassandra.config": config.as_uri(),
            "logback.configurationFile": (CONF / "logback.xml").as_uri(),
            "cassandra.logdir": folder,
            "cassandra.storagedir": folder,
            "cassandra-foreground": "yes",
            "cassandra.jmx.local.port": self._noted()["jmx"][number],
            "cassandra.skip_wait_for_gossip_to_settle": 0,
            "cassandra.ring_delay_ms": 1000,
            "cassandra.superuser_setup_delay_ms": 0,
            # How long a node that stops waits for the others to hear of it.
            "cassandra.shutdown_announce_in_ms": 0 if self.nodes == 1 else 500,
            "java.io.tmpdir": folder,
        }
        process.start([
            java(),
            f"-Xms{heap}M",
            f"-Xmx{heap}M",
            f"@{CONF / 'jvm17.options'}",
            f"-XX:ErrorFile={folder}/crash.log",
            f"-javaagent:{agent}",
            *(f"-D{name}={value}" for name, value in settings.items()),
            "-cp",
            f"{lib}/*",
            "org.apache.cassandra.service.CassandraDaemon",
        ])  # fmt: skip

    def _config(self, number: int, folder: Path) -> str:
        ports = self._noted()
        filled = {
            "@ADDR@": ADDRESSES[number],
            "@SEED@": f"{ADDRESSES[0]}:{ports['storage']}",
            "@TOKEN@": str(number * TOKENS // self.nodes - TOKENS // 2),
            "@DATA@": str(folder),
            "@NAME@": ports["name"],
            "@NATIVE@": str(ports["native"]),
            "@STORAGE@": str(ports["storage"]),
            "@AUTHENTICATOR@": "PasswordAuthenticator" if self.auth else "AllowAllAuthenticator",
            "@AUTHORIZER@": "CassandraAuthorizer" if self.auth else "AllowAllAuthorizer",
        }
        text = (CONF / "cassandra.yaml").read_text("utf-8")
        for name, value in filled.items():
            text = text.replace(name, value)
        if self.identity is None:
            return text
        self.identity.make()
        options = {"enabled": "true", "optional": "false", "keystore": self.identity.store}
        options |= {"keystore_password": STORE_PASSWORD, "store_type": "PKCS12"}
        if self.mutual:
            options |= {"require_client_auth": "true", "truststore": self.identity.trust}
            options |= {"truststore_password": STORE_PASSWORD}
        return "\n".join([text, "client_encryption_options:", *(f"  {key}: {value}" for key, value in options.items())])

    def _wait_listening(self, number: int, deadline: float) -> None:
        while not listens(self.contact_points[number], self.port):
            self._give_up_after(deadline, number, "does not listen")

    def _not_ready(self, number: int) -> str | None:
        """Why a node cannot be used yet, seen from itself; or None.

        1. It lets a client in (the first account is made some moments after it listens), and it is no other cluster
           that has taken the port.
        2. It knows all other nodes, and their schema is its own.
        3. A read from every replica through it succeeds: it holds all of them for alive, and they answer it. The table
           is one that Cassandra makes itself, with a replica on each of the first three nodes.
        """
        from cassandra import ConsistencyLevel, DriverException
        from cassandra.cluster import NoHostAvailable
        from cassandra.query import SimpleStatement

        everywhere = "SELECT * FROM system_distributed.view_build_status WHERE keyspace_name = '-' AND view_name = '-'"
        try:
            with self.connected(number, connect_timeout=20.0) as session:
                local = session.execute("SELECT cluster_name, schema_version FROM system.local").one()
                if local.cluster_name != self._noted()["name"]:
                    return f"its port is taken by {local.cluster_name}"
                peers = [row.schema_version for row in session.execute("SELECT schema_version FROM system.peers_v2")]
                same = peers.count(local.schema_version)
                if not same == len(peers) == self.nodes - 1:
                    return f"knows {len(peers)} of {self.nodes - 1} other nodes, {same} with its schema"
                if self.nodes > 1:
                    session.execute(SimpleStatement(everywhere, consistency_level=ConsistencyLevel.ALL))
        except (DriverException, NoHostAvailable, OSError) as error:
            return f"{type(error).__name__}: {error}"
        return None

    def _give_up_after(self, deadline: float, number: int, reason: str) -> None:
        process = self._processes[number]
        if process.pid is None or time.monotonic() > deadline:
            state = "has ended" if process.pid is None else reason
            raise EngineFailed(f"node {number} of Cassandra: {state}\n{process.log_tail()}")
        time.sleep(POLL_SECONDS)

"""A real redis-server of our own on a free port of loopback: never the service that a distribution may run."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.engines import EngineFailed, EngineUnavailable
from tests.engines.process import POLL_SECONDS, Process, free_port
from tests.engines.tls import Identity

READY_SECONDS = 20.0
STOP_SECONDS = 10.0
# Another process may take the port between our look and the start.
STARTS_MAX = 3


class RedisServer:
    """One server; what it holds is gone after ``kill`` or ``stop``, as in a cache.

    A folder is one server's: a second object on the same folder is the same server. ``maxmemory`` as Redis writes it
    ("64mb", evicting the least recently used); ``replica_of`` a server without a password and TLS; ``settings`` are
    lines of redis.conf for what nothing else here says.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        maxmemory: str | None = None,
        tls: bool = False,
        password: str | None = None,
        replica_of: RedisServer | None = None,
        client_certificates: bool = False,
        settings: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.password = password
        self.replica_of = replica_of
        self.identity = Identity(folder / "tls") if tls else None
        self._maxmemory = maxmemory
        self._client_certificates = client_certificates
        self._settings = tuple(settings)
        self._process = Process(folder, "redis")
        self._port_given = port != 0
        self._port_file = folder / "port"
        self.port = port or (int(self._port_file.read_text("utf-8")) if self._port_file.exists() else 0)

    @property
    def url(self) -> str:
        """For ``redis.from_url``, with the password and the certificate authority in it."""
        account = f":{self.password}@" if self.password else ""
        if self.identity is None:
            return f"redis://{account}{self.host}:{self.port}/0"
        ours = f"&ssl_certfile={self.identity.client_certificate}&ssl_keyfile={self.identity.client_key}"
        trusted = f"?ssl_ca_certs={self.identity.ca}"
        return f"rediss://{account}{self.host}:{self.port}/0{trusted}{ours if self._client_certificates else ''}"

    @property
    def running(self) -> bool:
        """Also while it is paused."""
        return self._process.pid is not None

    @property
    def version(self) -> str:
        """Of the program that is installed; EngineUnavailable without one."""
        shown = subprocess.run([binary(), "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
        found = re.search(r" v=(\S+)", shown)
        assert found, shown
        return found[1]

    def start(self) -> None:
        """Start it and wait until it answers; nothing if it runs already.

        Raises:
            EngineUnavailable: no redis-server is installed.
            EngineFailed: it does not start.
        """
        if self.running:
            return
        program = binary()
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in reversed(range(STARTS_MAX)):
            self.port = self.port or free_port()
            (self.folder / "redis.conf").write_text("\n".join(self._settings) + "\n", "utf-8")
            self._process.start([program, self.folder / "redis.conf", *self._options()])
            try:
                self.wait_ready()
            except EngineFailed:
                self._process.kill()
                if self._port_given or not left:
                    raise
                self.port = 0
            else:
                self._port_file.write_text(str(self.port), "utf-8")
                return

    def wait_ready(self, timeout: float = READY_SECONDS) -> None:
        end = time.monotonic() + timeout
        while not self.answers():
            if not self.running or time.monotonic() > end:
                raise EngineFailed(f"redis-server does not answer at port {self.port}:\n{self._process.log_tail()}")
            time.sleep(POLL_SECONDS)

    def answers(self) -> bool:
        """Whether this very server answers: whoever else has taken its port does not count."""
        import redis

        with redis.Redis.from_url(self.url, socket_timeout=2.0, socket_connect_timeout=2.0) as client:
            try:
                return int(client.info("server")["process_id"]) == self._process.pid
            except (redis.RedisError, OSError):
                return False

    def stop(self) -> None:
        self._process.stop(STOP_SECONDS)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self._process.kill()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._process.pause()

    def resume(self) -> None:
        self._process.resume()

    def restart(self) -> None:
        """Again on the same port, empty; also after ``kill`` or ``stop``."""
        self.stop()
        self.start()

    def mend(self) -> None:
        """Undo what a test has done to it."""
        self.resume()
        self.start()

    def ssl_context(self) -> ssl.SSLContext:
        assert self.identity is not None, "started without tls"
        return self.identity.client_context()

    def _options(self) -> list[str]:
        given = {
            "bind": self.host,
            "port": "0" if self.identity else str(self.port),
            "dir": str(self.folder),
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
            "repl-diskless-sync-delay": "0",  # a replica's first copy at once
        }
        if self.identity:
            self.identity.make()
            given |= {
                "tls-port": str(self.port),
                "tls-cert-file": str(self.identity.certificate),
                "tls-key-file": str(self.identity.key),
                "tls-ca-cert-file": str(self.identity.ca),
                "tls-auth-clients": "yes" if self._client_certificates else "no",
            }
        if self._maxmemory:
            given |= {"maxmemory": self._maxmemory, "maxmemory-policy": "allkeys-lru"}
        if self.password:
            given["requirepass"] = self.password
        words = [word for name, value in given.items() for word in (f"--{name}", value)]
        return words + (["--replicaof", self.replica_of.host, str(self.replica_of.port)] if self.replica_of else [])


class RedisSentinel:
    """One sentinel that watches ``master`` under the name ``name``; of three, two have to agree."""

    def __init__(self, folder: Path, master: RedisServer, name: str, *, down_after_ms: int) -> None:
        self.port = free_port()
        self._process = Process(folder, "sentinel")
        self._configuration = folder / "sentinel.conf"
        self._lines = [
            f"bind {RedisServer.host}",
            f"port {self.port}",
            f"dir {folder}",
            f"sentinel monitor {name} {master.host} {master.port} 2",
            f"sentinel down-after-milliseconds {name} {down_after_ms}",
            f"sentinel failover-timeout {name} 5000",
        ]

    def start(self) -> None:
        """Start it; it writes what it learns into its configuration."""
        self._configuration.parent.mkdir(parents=True, exist_ok=True)
        self._configuration.write_text("\n".join(self._lines) + "\n", "utf-8")
        self._process.start([binary(), self._configuration, "--sentinel"])

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self._process.kill()


def binary() -> str:
    found = shutil.which("redis-server")
    if found is None:
        raise EngineUnavailable("no redis-server is installed here (make engines installs it on Debian, as root)")
    return found

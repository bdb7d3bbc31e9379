"""Servers that a demonstration can use in place of its embedded defaults: a Cassandra for records, a Redis for answers.

Somebody else runs them; here is how they are named, looked at, and left as they were found.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from idtrace.cli.exits import ExitCode, Failure
from idtrace.delegation import check_endpoint
from idtrace.errors import BusyError, InputError, Reason, RefusedError

T = TypeVar("T")

DATACENTER: Final = "datacenter1"
# One demonstration's name in servers that others use too: a keyspace of Cassandra takes 48 characters.
_NAME_BYTES: Final = 6
# Counting a million rows takes Cassandra some seconds; a demonstration asks nothing else that is slow.
ASK_SECONDS: Final = 10.0
REDIS_SECONDS: Final = 2.0
# Six nodes, a Cassandra and a Redis share this machine with whoever asks 512 questions at once: what a resolver waits
# for is the processor, not the network. Its own limits (1 s a call, 3 s a question, 50 ms for Redis) are for machines
# of their own.
CALL_MS: Final = 5_000
OP_TIMEOUT_MS: Final = 1_000
# A resolver that has just begun to follow the zones has not heard what changed before, and by its own limit (5 s) takes
# nothing that another has found out earlier. Here both are as old as the demonstration.
UNFOLLOWED_SECONDS: Final = 600
QUESTION_MS: Final = 20_000
# A killed process has let go of its port at once; a container that is stopped takes some seconds.
KILLED_SECONDS_MAX: Final = 15.0
_POLL_SECONDS: Final = 0.05
_URL: Final = re.compile(r"redis://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})(/[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Engines:
    """Which servers a demonstration uses.

    Attributes:
        cassandra: host:port of one node of the ring; "": every registry keeps its records in SQLite.
        datacenter: the ring's name for the data centre that keeps them.
        redis: ``redis://HOST:PORT/DB``, what the resolvers share; "": nothing.
        kill_redis: command for the shell that kills this Redis; "": it is left alone.
        name: of the keyspace, and what every key in Redis begins with; no other demonstration has it.
    """

    cassandra: str = ""
    datacenter: str = DATACENTER
    redis: str = ""
    kill_redis: str = ""
    name: str = field(default_factory=lambda: f"idtrace_demo_{secrets.token_hex(_NAME_BYTES)}")

    def __post_init__(self) -> None:
        """Check what a person has typed.

        Raises:
            InputError: FIELD_MALFORMED, naming the option.
        """
        if self.cassandra:
            check_endpoint(self.cassandra, field="--cassandra")
        if self.redis and _URL.fullmatch(self.redis) is None:
            raise InputError(
                Reason.FIELD_MALFORMED, "the form is redis://HOST:PORT or redis://HOST:PORT/DB", field="--redis"
            )
        if self.kill_redis and not self.redis:
            raise InputError(Reason.FIELD_MISSING, "there is no --redis to kill", field="--kill-redis")

    def registry_tables(self, ledger: str) -> str:
        """What a registry's configuration says of its store, in TOML; "" for SQLite."""
        if not self.cassandra:
            return ""
        settings = "".join(f"{name} = {_toml(value)}\n" for name, value in self._storage(ledger).items())
        return f'\n[storage]\nengine = "cassandra"\n{settings}'

    def resolver_tables(self, shared_key: Path) -> str:
        """What a resolver's configuration says of its shared cache and its patience, in TOML; "" for our defaults."""
        tables: dict[str, dict[str, object]] = {}
        if self.cassandra:
            tables["limits"] = {"call_ms": CALL_MS, "question_ms": QUESTION_MS}
        if self.redis:
            tables.setdefault("limits", {})["unfollowed_seconds"] = UNFOLLOWED_SECONDS
            tables["redis"] = {"url": self.redis, "shared_key": shared_key.name, "prefix": f"{self.name}:"}
            tables["redis"]["op_timeout_ms"] = OP_TIMEOUT_MS
        return "".join(
            f"\n[{table}]\n" + "".join(f"{name} = {_toml(value)}\n" for name, value in lines.items())
            for table, lines in tables.items()
        )

    def prepare(self, shared_key: Path) -> None:
        """Make the secret that the resolvers share, in a file that only its owner can read."""
        if self.redis:
            with open(os.open(shared_key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 - a descriptor
                file.write(secrets.token_bytes(32))

    def _storage(self, ledger: str) -> dict[str, object]:
        host, _, port = self.cassandra.rpartition(":")
        return {
            "contact_points": [host.strip("[]")],
            "port": int(port),
            "keyspace": self.name,
            "ledger": ledger,
            "datacenter": self.datacenter,
            "replication": {self.datacenter: 1},
        }

    # --- Cassandra

    def cassandra_version(self) -> str:
        """Of the node that answers.

        Raises:
            Failure: UNREACHABLE, none does.
        """

        async def work(bridge: Any) -> str:
            rows = await bridge.run("SELECT release_version FROM system.local")
            return str(rows[0].release_version)

        return self._connected(work)

    def ledgers(self) -> dict[str, int]:
        """How many batches each ledger has committed.

        Raises:
            Failure: UNREACHABLE.
        """

        async def work(bridge: Any) -> dict[str, int]:
            rows = await bridge.run(f"SELECT ledger, seq FROM {self.name}.ledger_head")  # noqa: S608 - our own name
            return {row.ledger: row.seq for row in rows}

        return self._connected(work)

    def identifiers(self) -> int:
        """How many identifiers have a row, in all ledgers together.

        Raises:
            Failure: UNREACHABLE.
        """

        async def work(bridge: Any) -> int:
            rows = await bridge.run(f"SELECT count(*) AS rows FROM {self.name}.head")  # noqa: S608 - our own name
            return int(rows[0].rows)

        return self._connected(work)

    def drop(self) -> None:
        """Remove the keyspace, which nobody but this demonstration has used.

        Raises:
            Failure: UNREACHABLE.
        """
        if self.cassandra:
            from registry.cassandra_schema import change_schema

            self._connected(lambda bridge: change_schema(bridge, f"DROP KEYSPACE IF EXISTS {self.name}"))

    def _connected(self, work: Callable[[Any], Awaitable[T]]) -> T:
        from registry.cassandra_bridge import NO_CONNECTION, Bridge
        from registry.cassandra_settings import CassandraSettings

        settings = CassandraSettings.parse(
            self._storage("demo") | {"request_timeout_seconds": ASK_SECONDS},
            Path(),
        )

        async def run() -> T:
            bridge = await Bridge.connect(settings)
            try:
                return await work(bridge)
            finally:
                await bridge.close()

        try:
            return asyncio.run(run())
        except NO_CONNECTION as error:
            detail = (
                f"no Cassandra of data centre {self.datacenter} answers at {self.cassandra}: {type(error).__name__}"
            )
            raise Failure(ExitCode.UNREACHABLE, BusyError(Reason.NO_ANSWER, detail, field="--cassandra")) from error

    # --- Redis

    def redis_version(self) -> str:
        """Of the server that answers.

        Raises:
            Failure: UNREACHABLE, or REFUSED where it wants a password.
        """
        try:
            return self._redis_info("server")["redis_version"]
        except OSError as error:
            detail = f"no Redis answers at {self.redis}: {error.strerror or error}"
            raise Failure(ExitCode.UNREACHABLE, BusyError(Reason.NO_ANSWER, detail, field="--redis")) from None

    def redis_hits(self) -> int:
        """How many keys the server has found since it began, by its own count.

        Raises:
            OSError: it does not answer.
        """
        return int(self._redis_info("stats")["keyspace_hits"])

    def kill(self) -> bool:
        """Run the command that kills Redis; returns whether nobody answers there any more."""
        subprocess.run(["sh", "-c", self.kill_redis], check=False, stdin=subprocess.DEVNULL, capture_output=True)
        deadline = time.monotonic() + KILLED_SECONDS_MAX
        while time.monotonic() < deadline:
            try:
                self._redis_info("server")
            except OSError:
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def _redis_info(self, section: str) -> dict[str, str]:
        """The server's own words, asked for in its protocol (RESP 2): its driver belongs to the resolver alone."""
        match = _URL.fullmatch(self.redis)
        assert match, "checked when it was typed"
        place = (match[1].strip("[]"), int(match[2]))
        with socket.create_connection(place, REDIS_SECONDS) as connection, connection.makefile("rb") as answers:
            connection.sendall(f"INFO {section}\r\n".encode())
            header = answers.readline(256)
            if not header.startswith(b"$"):
                said = header.decode("utf-8", "replace").strip() or "nothing"
                refused = RefusedError(
                    Reason.ANSWER_MALFORMED, f"the server at {self.redis} says: {said}", field="--redis"
                )
                raise Failure(ExitCode.REFUSED, refused)
            text = answers.read(int(header[1:])).decode("utf-8", "replace")
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def _toml(value: object) -> str:
    """A string, a number, a list of them, or a table of numbers."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml(name)} = {_toml(item)}" for name, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)

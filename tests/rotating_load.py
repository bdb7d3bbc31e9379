"""A steady load while keys change: people who register, seal, resolve, keep proofs and read the log; and what they saw.

Nobody here gives up at once: a call that a starting node has cut off is repeated with the same bytes until its deadline
of 10 s, as the command line does. What then is refused, or does not verify, is written down as false.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio
import httpx

from idtrace import wire
from idtrace.bundle import Bundle, Verdict
from idtrace.checkpoint import Checkpoint
from idtrace.delegation import Role
from idtrace.logpolicy import LogPolicy
from idtrace.note import Note
from idtrace.rootkeys import RootKeys
from idtrace.serving.errors import error_from_rpc
from idtrace.serving.rootfile import load_root_keys
from idtrace.v1 import resolver_pb2
from idtrace.verification import verify_bundle
from tests.core_fixtures import signer
from tests.integration.test_key_rotation import CUT_OFF, NOT_NOW
from tests.integration.test_sealed import sealed
from tests.nodes import TIMEOUT, Nodes, key_name, make_record

T = TypeVar("T")

BATCH = 8


class FalseAnswerError(Exception):
    """An answer that no honest party should get."""


@dataclass(frozen=True)
class Saved:
    """A proof as somebody has kept it, and when."""

    at: int
    name: str
    bundle: Bundle


@dataclass
class SteadyLoad:
    """Clients of one tree; ``zones`` are written one record at a time, ``sealing`` in sealed batches as well."""

    nodes: Nodes
    asks: Any  # a resolver's stub of grpc.aio
    zones: tuple[str, ...]
    sealing: str
    log_url: str
    policy: LogPolicy
    roots: RootKeys
    owners: dict[str, str] = field(default_factory=dict)  # zone: name of the key that signs its records now
    done: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)
    false: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    saved: list[Saved] = field(default_factory=list)
    slowest_seconds: float = 0.0
    _ended: asyncio.Event = field(default_factory=asyncio.Event)
    _clients: list[asyncio.Task[None]] = field(default_factory=list)

    def begin(self) -> None:
        turns: list[tuple[str, Callable[[int], Awaitable[None]], float]] = [
            *((f"register in {zone}", self._register(zone), 0.03) for zone in self.zones),
            ("seal", self._seal, 0.06),
            ("resolve", self._resolve, 0.02),
            ("verify a saved proof", self._verify_saved, 0.03),
            ("read the log", self._read_log, 0.1),
        ]
        self.done.update({name: 0 for name, _, _ in turns})
        self._clients = [asyncio.create_task(self._endless(*turn)) for turn in turns]

    async def stop(self) -> None:
        self._ended.set()
        await asyncio.gather(*self._clients)

    def owner(self, zone: str) -> str:
        return self.owners.get(zone, key_name(Role.RECORD, zone))

    async def settle(self, turns: int = 3) -> None:
        """Wait until every client has gone round so many times more, so that nothing from before is on its way."""
        wanted = {name: count + turns for name, count in self.done.items()}
        async with asyncio.timeout(6 * TIMEOUT):
            while any(self.done[name] < count for name, count in wanted.items()):
                assert not self.false, self.false
                for client in self._clients:
                    assert not client.done(), client
                await asyncio.sleep(0.02)

    async def _endless(self, what: str, turn: Callable[[int], Awaitable[None]], pause: float) -> None:
        number = 0
        while not self._ended.is_set():
            number += 1
            await turn(number)
            self.done[what] += 1
            await asyncio.sleep(pause)

    async def patiently(self, what: str, call: Callable[[], Awaitable[T | None]]) -> T | None:
        """Repeat a call until it is answered, refused, or its deadline is over; None where it has failed."""
        began = time.monotonic()
        while True:
            refused = "was not answered"
            try:
                answer = await call()
                if answer is not None:
                    self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
                    return answer
            except FalseAnswerError as error:
                self.false.append(f"{what}: {error}")
                return None
            except grpc.aio.AioRpcError as error:
                known = error_from_rpc(error)
                refused = f"{known or error.code()}"
                if known.reason not in NOT_NOW if known else error.code() not in CUT_OFF:
                    self.false.append(f"{what}: {refused}")
                    return None
            if time.monotonic() - began > TIMEOUT:
                self.false.append(f"{what}: {refused} in {TIMEOUT} s")
                return None
            self.again[what.partition(" ")[0]] += 1
            await asyncio.sleep(0.05)

    # Writers

    def _register(self, zone: str) -> Callable[[int], Awaitable[None]]:
        async def one(number: int) -> None:
            name = f"{zone}/N{number}"
            record = make_record(name, {"n": str(number)}, by=signer(self.owner(zone)))
            node = self.nodes.of_zone[zone]
            key = f"{zone}-register-{number:06}"
            if await self.patiently(f"register {name}", lambda: self.nodes.submit(record, key, node=node)):
                self.names.append(name)

        return one

    async def _seal(self, number: int) -> None:
        zone, owner = self.sealing, signer(self.owner(self.sealing))
        batch = [make_record(f"{zone}/S{number}-{n}", {"n": str(n)}, by=owner) for n in range(BATCH)]
        request = sealed(batch, f"{zone}-seal-{number:06}", zone=zone, by=owner)
        registry = self.nodes.of_zone[zone].registry
        made: Any = await self.patiently(f"seal {number}", lambda: registry.RegisterSealed(request, timeout=TIMEOUT))
        if made is not None:
            refused = [one.error.reason for one in made.results if not one.HasField("log_position")]
            self.false += [f"seal {number}: {refused}"] if refused else []
            self.names.append(f"{zone}/S{number}-{number % BATCH}")

    # Readers

    async def _resolve(self, number: int) -> None:
        if not self.names:
            return
        # every third question is about the latest record, the others go through all that there are
        name = self.names[-1] if number % 3 == 0 else self.names[number * 7 % len(self.names)]
        bundle = await self.found(name, fresh=number % 2 == 0)
        if bundle is None:
            return
        anchor, now = self.roots.anchor, int(time.time())
        report = verify_bundle(bundle, anchor, now=now)
        if report.verdict is not Verdict.FOUND:
            self.false.append(f"verify {name}: {report.checks[-1]}")
        self.saved.append(Saved(now, name, bundle))

    async def found(self, name: str, *, fresh: bool) -> Bundle | None:
        async def ask() -> Bundle | None:
            answer = await self.verdict(name, fresh=fresh)
            if answer.verdict == resolver_pb2.VERDICT_UNREACHABLE:
                return None
            if answer.verdict != resolver_pb2.VERDICT_FOUND:
                raise FalseAnswerError(f"{answer.verdict} {answer.reason} {answer.detail}")
            return wire.bundle_from_pb(answer.bundle)

        return await self.patiently(f"resolve {name}", ask)

    async def verdict(self, name: str, *, fresh: bool = True) -> Any:
        return await self.asks.Resolve(resolver_pb2.ResolveRequest(text=name, fresh=fresh), timeout=TIMEOUT)

    async def _verify_saved(self, number: int) -> None:
        """Proofs of all ages, each as of the time at which it was kept."""
        if self.saved:
            self.check_saved(self.saved[number * 13 % len(self.saved)])

    def check_saved(self, kept: Saved) -> None:
        anchor = self.roots.in_force_at(kept.at).anchor
        report = verify_bundle(kept.bundle, anchor, now=kept.at)
        if report.verdict is not Verdict.FOUND:
            self.false.append(f"saved proof of {kept.name}: {report.checks[-1]}")

    async def _read_log(self, number: int) -> None:
        """The published checkpoint: what there is has the quorum of the policy that readers have now."""
        del number
        async with httpx.AsyncClient(base_url=self.log_url, trust_env=False, timeout=TIMEOUT) as client:

            async def ask() -> Note | None:
                try:
                    answer = await client.get("/checkpoint")
                except httpx.TransportError:
                    return None
                return Note.parse(answer.content) if answer.status_code == httpx.codes.OK else None

            note = await self.patiently("read the log's checkpoint", ask)
        if note is None:
            return
        self.policy.check_log(note, Checkpoint.parse(note.text))
        if not self.policy.witnessing(note, now=int(time.time())).met:
            self.false.append(f"checkpoint without its quorum: {note.text!r}")

    def follow_root(self, file: Path) -> None:
        """Everybody who verifies takes over the file that pins the root."""
        self.roots = load_root_keys(file)

    def figures(self) -> str:
        rows = [f"{count:>6}  {what}" for what, count in sorted(self.done.items())]
        rows.append(f"{len(self.names):>6}  identifiers resolved in turn, and {len(self.saved)} proofs kept")
        rows.append(f"{sum(self.again.values()):>6}  calls repeated ({dict(self.again)})")
        rows.append(f"{len(self.false):>6}  false failures; the slowest call took {self.slowest_seconds:.2f} s")
        return "\n".join(rows)

"""Many clients on few identifiers, through several sequencers on one store; and what is true of it afterwards.

Each client registers, updates and reads under keys of its own, and asks again with the same key, at any of the writers,
until it is told what has become of its write. Everything that it was told is kept: the history is judged by
tests/linearizability.py, and :func:`complaints` compares it with what is stored.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from idtrace import wire
from idtrace.errors import BusyError, OutcomeUnknownError, Reason
from idtrace.record import Record
from registry.admission import Proposal
from registry.sequencer import Result, Sequencer
from registry.storage import Earlier, Storage
from tests.core_fixtures import NOW, ZONE, signer
from tests.linearizability import Action, Operation, Told
from tests.registry_fixtures import body_of, proposal, typed_record

# A client waits no longer for one answer; its write may still be under way when it asks again elsewhere.
PATIENCE_SECONDS: Final = 8.0
PAUSE_SECONDS: Final = 0.2
# Refusals which say that another was there first.
CAME_SECOND: Final = {
    Reason.IDENTIFIER_TAKEN,
    Reason.IDENTIFIER_UNKNOWN,
    Reason.PREVIOUS_HASH_MISMATCH,
    Reason.VERSION_GAP,
    Reason.WRITE_CONFLICT,
}
# Half of all calls go to one identifier in so many.
HOTTEST: Final = 10
# Side by side when all is compared at the end.
COMPARED_AT_ONCE: Final = 64
KEYS_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Writer:
    """One of the registry's processes: its own handle on the store, and its own loop that commits."""

    storage: Storage
    sequencer: Sequencer


@asynccontextmanager
async def writing(*storages: Storage) -> AsyncIterator[list[Writer]]:
    """A sequencer on each handle."""
    writers = [Writer(storage, Sequencer(storage, signer(f"node of {ZONE}"), lambda: NOW)) for storage in storages]
    running = [asyncio.create_task(writer.sequencer.run()) for writer in writers]
    try:
        yield writers
    finally:
        for writer in writers:
            writer.sequencer.close()
        await asyncio.gather(*running)


@dataclass(frozen=True, slots=True)
class Submitted:
    """A write, and its receipt where it was acknowledged."""

    record: Record
    receipt: bytes | None

    @property
    def identifier(self) -> str:
        return str(body_of(self.record).identifier)

    @property
    def version(self) -> int:
        return body_of(self.record).version


@dataclass
class Account:
    """What all clients were told; the newest word of an answer stands last."""

    history: list[Operation] = field(default_factory=list)
    submitted: dict[str, Submitted] = field(default_factory=dict)  # by idempotency key
    acknowledged: int = 0
    unknown: int = 0  # answers that told nothing
    resolved: int = 0  # writes that were told in the end after such an answer

    def counts(self) -> Counter[tuple[Action, Told]]:
        return Counter((operation.action, operation.told) for operation in self.history)

    def longest_stall_seconds(self) -> float:
        """The longest time in which nobody was told that anything was committed."""
        ends = sorted(o.returned_ns for o in self.history if o.action is not Action.READ and o.told is Told.OK)
        return max((later - sooner for sooner, later in pairwise(ends)), default=0) / 1e9


@dataclass(frozen=True, slots=True)
class _Asked:
    """A write that is asked for until it is told."""

    proposal: Proposal
    previous: Record | None
    called_ns: int


class Client:
    """One caller. It knows of an identifier what it was told last, and acts on that, right or wrong."""

    def __init__(self, name: str, writers: Sequence[Writer], identifiers: Sequence[str], account: Account) -> None:
        self._name = name
        self._writers = writers
        self._identifiers = identifiers
        self._account = account
        self._random = random.Random(name)
        self._known: dict[str, Record] = {}
        self._count = 0
        self._hottest = max(1, len(identifiers) // HOTTEST)

    async def run(self, stop: asyncio.Event, width: int) -> None:
        """So many identifiers at a time, until stopped; what has been begun is asked for until it is told."""
        while not stop.is_set():
            reads: list[str] = []
            writes: list[str] = []
            hot = self._random.random() < 0.5
            for identifier in self._random.sample(
                self._identifiers[: self._hottest] if hot else self._identifiers, width
            ):
                wants_to_know = self._random.random() < (0.25 if identifier in self._known else 0.5)
                (reads if wants_to_know else writes).append(identifier)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write(writes))
                for identifier in reads:
                    group.create_task(self.read(identifier))

    async def read(self, identifier: str) -> None:
        called = time.monotonic_ns()
        stored: bytes | None = None
        while True:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    stored = await self._random.choice(self._writers).storage.record(identifier)
            except Exception:  # noqa: BLE001 - whatever the engine raises: nothing is known
                await self._told_nothing(1)
            else:
                break
        record = wire.record_from_bytes(stored) if stored is not None else None
        if record is not None:
            self._known[identifier] = record
        self._note(identifier, Action.READ, Told.OK, called, (record, None))

    async def _write(self, identifiers: Sequence[str]) -> None:
        """One call for all; those whose outcome is unknown once more, under the same keys, at any writer."""
        waiting = [self._asked(identifier) for identifier in identifiers]
        again = False
        while waiting:
            results: Sequence[Result | None] = [None] * len(waiting)
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    sequencer = self._random.choice(self._writers).sequencer
                    results = await sequencer.submit([asked.proposal for asked in waiting])
            except (TimeoutError, BusyError):
                pass
            left = []
            for asked, result in zip(waiting, results, strict=True):
                if result is None or isinstance(result, OutcomeUnknownError):
                    left.append(asked)
                else:
                    self._told(asked, result)
                    self._account.resolved += again
            waiting, again = left, True
            if waiting:
                await self._told_nothing(len(waiting))

    def _asked(self, identifier: str) -> _Asked:
        self._count += 1
        key = f"{self._name}-{self._count:06}"
        previous = self._known.get(identifier)
        record = typed_record(identifier, {"by": key}, previous=previous)
        return _Asked(proposal(record, key=key), previous, time.monotonic_ns())

    def _told(self, asked: _Asked, result: Result) -> None:
        record, key = asked.proposal.record, asked.proposal.idempotency_key
        identifier = str(asked.proposal.body.identifier)
        if isinstance(result, bytes):
            self._known[identifier] = record
        elif result.reason in CAME_SECOND:
            self._known.pop(identifier, None)
        else:
            raise AssertionError(f"{key} of {identifier}: {result!r}")
        receipt = result if isinstance(result, bytes) else None
        self._account.submitted[key] = Submitted(record, receipt)
        self._account.acknowledged += receipt is not None
        action = Action.UPDATE if asked.previous else Action.REGISTER
        told = Told.CONFLICT if receipt is None else Told.OK
        self._note(identifier, action, told, asked.called_ns, (record, asked.previous))

    async def _told_nothing(self, answers: int) -> None:
        self._account.unknown += answers
        await asyncio.sleep(PAUSE_SECONDS * (0.5 + self._random.random()))

    def _note(
        self, identifier: str, action: Action, told: Told, called_ns: int, records: tuple[Record | None, Record | None]
    ) -> None:
        """``records``: what was written or read, and what it was to replace."""
        now = time.monotonic_ns()
        value, expected = map(_value, records)
        self._account.history.append(
            Operation(identifier, action, told, called_ns, now, value, expected, client=self._name)
        )


def _value(record: Record | None) -> str | None:
    return record.hash.hex()[:20] if record is not None else None


async def contend(
    writers: Sequence[Writer],
    *,
    clients: int,
    identifiers: int,
    during: Callable[[Account], Awaitable[None]],
    width: int = 1,
) -> Account:
    """Let so many clients work on so many identifiers while ``during`` runs, and read each identifier at the end.

    A client asks for ``width`` identifiers at a time: the writes among them in one call.
    """
    account = Account()
    names = [f"{ZONE}/HOT-{n:05}" for n in range(identifiers)]
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for n in range(clients):
            group.create_task(Client(f"client-{n:02}", writers, names, account).run(stop, width))
        await during(account)
        stop.set()
    last = Client("last", writers, names, account)
    await _each(names, last.read)
    return account


async def complaints(storage: Storage, account: Account) -> list[str]:
    """What is stored against what was told, one line for each difference.

    1. Every acknowledged key still gives the same receipt; what was refused has left no key behind.
    2. No version was acknowledged twice.
    3. Versions go from 1 to the head without a gap, each naming the one before; each is, byte for byte, what was
       acknowledged to somebody; and every acknowledged one is there.
    """
    found = await _wrong_keys(storage, account)
    owners: dict[tuple[str, int], str] = {}
    for key, one in account.submitted.items():
        if one.receipt is not None and (other := owners.setdefault((one.identifier, one.version), key)) != key:
            found.append(f"{one.identifier} version {one.version}: acknowledged to {other} and to {key}")

    async def compare(identifier: str) -> None:
        head = (await storage.heads([identifier])).get(identifier)
        previous = b""
        for version in range(1, (head.version if head else 0) + 1):
            stored = await storage.record(identifier, version)
            owner = account.submitted.get(owners.pop((identifier, version), ""))
            if owner is None or stored != wire.record_to_bytes(owner.record):
                found.append(f"{identifier} version {version}: stored is not what was acknowledged")
            elif body_of(owner.record).previous != previous:
                found.append(f"{identifier} version {version}: names another before it")
            previous = wire.record_from_bytes(stored).hash if stored else b""
        if head is not None and head.record_hash != previous:
            found.append(f"{identifier}: the head is not the last version")

    await _each(sorted({one.identifier for one in account.submitted.values()}), compare)
    return found + [f"{key}: acknowledged, and its version is not there" for key in owners.values()]


async def _wrong_keys(storage: Storage, account: Account) -> list[str]:
    keys = list(account.submitted)
    earlier: dict[str, Earlier] = {}
    for start in range(0, len(keys), KEYS_AT_ONCE):
        earlier |= await storage.earlier(ZONE, keys[start : start + KEYS_AT_ONCE])
    receipts = {key: one.receipt for key, one in earlier.items()}
    return [
        f"{key}: its receipt is not the one that was given"
        for key, one in account.submitted.items()
        if receipts.get(key) != one.receipt
    ]


async def _each(items: Sequence[str], work: Callable[[str], Awaitable[None]]) -> None:
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(COMPARED_AT_ONCE):
            group.create_task(worker())

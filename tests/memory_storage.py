"""A store in memory that polices its caller, and fails on demand before or after it has persisted.

Held to the same contract as the real engines (tests/integration/test_storage_contract.py). It also watches what the
contract leaves to the caller: a commit at a time, nothing between a failed commit and ``reopen``, a record that is the
one its head and its receipt speak of, versions that chain, delegations that never go back. Whatever is broken stands in
``broken`` as well, since a caller may take the exception for the engine's own.
Model: Sunlight's MemoryBackend (fail-and-persist, fail-and-not-persist at each step).
"""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from idtrace import wire
from idtrace.delegation import Delegation
from idtrace.identifier import Identifier, Prefix
from idtrace.record import RecordBody
from idtrace.statements import PrefixStatus, Receipt
from registry.logbook import Edge, LogDraft, Stamp
from registry.storage import (
    EVENTS_A_COMMIT,
    SUBJECT_BYTES_MAX,
    Change,
    Claim,
    Delivery,
    DeliveryState,
    Earlier,
    Grant,
    Head,
    Logged,
    Mention,
    Outcome,
    Recorded,
    Stored,
    Write,
    changes_gone,
    deliveries_of,
    home,
    log_write,
    pack_subjects,
    unpack_change,
)
from tests.memory_log import MemoryLog

# a batch, a grant, a chain, pointers, deliveries
Attempt = Sequence[Write] | Grant | Sequence[bytes] | Sequence[Mention] | Sequence[Delivery]
Hook = Callable[[Attempt], bool]


class EngineError(Exception):
    """What the engine raises when a hook says so."""


def never(attempt: Attempt) -> bool:
    del attempt
    return False


def once(when: Hook = lambda _: True) -> Hook:
    """True for the first change of this kind, and never again."""
    left = [True]

    def hook(attempt: Attempt) -> bool:
        if not left or not when(attempt):
            return False
        left.clear()
        return True

    return hook


class MemoryStorage:
    """See the module. ``before_commit`` and the hooks run on a thread, so they may wait without holding the loop."""

    def __init__(self) -> None:
        self.fail_and_persist: Hook = never
        self.fail_and_not_persist: Hook = never
        self.before_commit: Callable[[Sequence[Write]], None] = lambda _: None
        self.broken: list[str] = []
        self.batches: list[int] = []
        self.reopened = 0
        self.unreadable = False  # reading raises, as where the engine is down
        self.changes_kept = 1_000
        self._changes: list[Change] = []  # all of them; what is not kept is not told
        self._versions: dict[str, list[bytes]] = {}
        self._indexes: dict[tuple[str, int], int] = {}  # in the log, by identifier and version
        self._log = MemoryLog()
        self._heads: dict[str, Head] = {}
        self._keys: dict[tuple[str, str], Earlier] = {}
        self._claims: dict[Claim, str] = {}
        self._grants: dict[str, Grant] = {}
        self._chains: dict[str, tuple[bytes, ...]] = {}
        self._pointers: set[Mention] = set()
        self._events: list[Recorded] = []
        self._outbox: dict[tuple[str, str], Delivery] = {}
        self._whole = threading.Lock()  # a reader sees whole commits only
        self._committing = threading.Lock()
        self._failed = False
        self._closed = False

    def another(self) -> Self:
        """A second handle on the same data, as another process has one. What is shared stands in containers."""
        other = copy.copy(self)
        other._committing = threading.Lock()
        other._failed = other._closed = False
        return other

    def _require(self, holds: bool, rule: str) -> None:
        if not holds:
            self.broken.append(rule)
            raise AssertionError(rule)

    @contextmanager
    def _seen(self) -> Iterator[None]:
        self._require(not self._closed, "the store was used after close")
        with self._whole:
            yield

    async def heads(self, identifiers: Sequence[str]) -> dict[str, Head]:
        with self._seen():
            return {name: self._heads[name] for name in identifiers if name in self._heads}

    async def record(self, identifier: str, version: int = 0) -> bytes | None:
        found = await self.stored(identifier, version)
        return found.record if found else None

    async def stored(self, identifier: str, version: int = 0) -> Stored | None:
        with self._seen():
            versions = self._versions.get(identifier, [])
            number = version or len(versions)
            if not 0 < number <= len(versions):
                return None
            return Stored(number, versions[number - 1], self._indexes.get((identifier, number)))

    async def earlier(self, zone: str, idempotency_keys: Sequence[str]) -> dict[str, Earlier]:
        with self._seen():
            return {key: self._keys[zone, key] for key in idempotency_keys if (zone, key) in self._keys}

    async def claimants(self, claims: Sequence[Claim]) -> dict[Claim, str]:
        with self._seen():
            return {claim: self._claims[claim] for claim in claims if claim in self._claims}

    async def commit(self, writes: Sequence[Write], stamp: Stamp | None = None) -> list[Outcome]:
        return await asyncio.shield(asyncio.to_thread(self._commit, writes, stamp))

    def _commit(self, writes: Sequence[Write], stamp: Stamp | None) -> list[Outcome]:
        self._require(self._committing.acquire(blocking=False), "two commits at once")
        try:
            self._require(not self._failed, "a commit after a failed one, without reopen")
            self.before_commit(writes)
            self._fail(self.fail_and_not_persist, writes, reopens=True)
            with self._seen():
                draft = self._log.draft(stamp)
                outcomes = [self._enter(write, self._apply(write), draft) for write in writes]
                self._log.take(draft)
                won = [w for w, outcome in zip(writes, outcomes, strict=True) if outcome is Outcome.COMMITTED]
                self._number(won)
                self._point([write for write in won if write.mentions])
            self.batches.append(len(writes))
            self._fail(self.fail_and_persist, writes, reopens=True)
            return outcomes
        finally:
            self._committing.release()

    def _point(self, writes: Sequence[Write]) -> None:
        """What comes with the events of a commit that has its number."""
        first = len(self._changes) * EVENTS_A_COMMIT
        self._events += [Recorded(first + n, w.mentions[0].time_ms, w.identifier) for n, w in enumerate(writes)]
        self._pointers.update(mention for write in writes for mention in write.mentions)
        self._outbox |= {delivery.key: delivery for write in writes for delivery in deliveries_of(write)}

    def _fail(self, hook: Hook, attempt: Attempt, *, reopens: bool = False) -> None:
        if hook(attempt):
            self._failed = reopens
            raise EngineError("the disk said no")

    def _enter(self, write: Write, outcome: Outcome, draft: LogDraft | None) -> Outcome:
        index = log_write(draft, write) if draft is not None and outcome is Outcome.COMMITTED else None
        if index is not None:
            self._indexes[write.identifier, write.head.version] = index
        return outcome

    def _apply(self, write: Write) -> Outcome:
        self._police(write)
        head = self._heads.get(write.identifier)
        if (write.zone, write.idempotency_key) in self._keys:
            return Outcome.KEY_USED
        if (head.version if head else 0) != write.expected:
            return Outcome.CONFLICT
        if any(self._is_delegated(prefix) for prefix in _between(write)):
            return Outcome.CONFLICT
        if any(self._claims.get(claim, write.identifier) != write.identifier for claim in write.claims):
            return Outcome.CLAIMED
        body = RecordBody.parse(wire.record_from_bytes(write.record).signed.payload)
        self._require(body.previous == (head.record_hash if head else b""), "a version that names another before it")
        self._versions.setdefault(write.identifier, []).append(write.record)
        self._heads[write.identifier] = write.head
        self._keys[write.zone, write.idempotency_key] = Earlier(write.request_hash, write.receipt)
        self._claims.update(dict.fromkeys(write.claims, write.identifier))
        return Outcome.COMMITTED

    def _is_delegated(self, prefix: str) -> bool:
        grant = self._grants.get(prefix)
        return grant is not None and grant.version > 0

    def _police(self, write: Write) -> None:
        record = wire.record_from_bytes(write.record)
        body = RecordBody.parse(record.signed.payload)
        head = Head(body.version, record.hash, body.kind, body.status, body.issued_at)
        self._require(str(body.identifier) == write.identifier, "a record under another identifier")
        self._require(body.identifier.prefix.within(Prefix.parse(write.zone)), "an identifier outside its zone")
        self._require(write.head == head, "a head that is not the record's")
        self._require(write.head.version == write.expected + 1, "a version that does not follow the expected one")
        self._require(len(record.values) == len(body.values), "a record without all of its values")
        if write.sealed is not None:
            self._require(write.receipt == b"", "a receipt for what is under a seal")
        else:
            receipt = Receipt.parse(wire.signed_from_bytes(write.receipt).payload)
            about = (receipt.identifier, receipt.version, receipt.record_hash, str(receipt.zone))
            named = (body.identifier, body.version, record.hash, write.zone)
            self._require(about == named, "a receipt about another one")
        subjects = {mention.subject for mention in write.mentions}
        self._require(subjects >= set(write.outbound), "a delivery of what the event does not mention")
        self._require(all(home(subject) is not None for subject in write.outbound), "a delivery without a home")
        self._require({m.event for m in write.mentions} <= {write.identifier}, "a mention by another event")
        self._require(len({m.time_ms for m in write.mentions}) <= 1, "an event of two times")
        self._require(all(len(s.encode()) <= SUBJECT_BYTES_MAX for s in subjects), "a subject that is too long")
        sizes = {32, len(write.request_hash), *(len(claim.digest) for claim in write.claims)}
        self._require(sizes == {32}, "a hash that is none")

    async def any_within(self, prefix: str) -> bool:
        with self._seen():
            return self._any_within(prefix)

    def _any_within(self, prefix: str) -> bool:
        return any(name.startswith((f"{prefix}.", f"{prefix}/")) for name in self._heads)

    async def grants(self, only: Sequence[str] | None = None) -> list[Grant]:
        self._require_engine()
        with self._seen():
            wanted = self._grants if only is None else [prefix for prefix in only if prefix in self._grants]
            return [self._grants[prefix] for prefix in wanted]

    async def put_grant(
        self,
        grant: Grant,
        expected: Grant | None,
        key: tuple[str, str],
        request_hash: bytes,
        logged: Logged | None = None,
    ) -> Outcome:
        return await asyncio.shield(asyncio.to_thread(self._put_or_fail, grant, expected, key, request_hash, logged))

    def _put_or_fail(
        self, grant: Grant, expected: Grant | None, key: tuple[str, str], request_hash: bytes, logged: Logged | None
    ) -> Outcome:
        self._fail(self.fail_and_not_persist, grant)
        with self._seen():
            draft = self._log.draft(logged.stamp if logged else None)
            outcome = self._put_grant(grant, expected, key, request_hash)
            if outcome is Outcome.COMMITTED:
                self._take(draft, logged)
        self._fail(self.fail_and_persist, grant)
        return outcome

    def _put_grant(self, grant: Grant, expected: Grant | None, key: tuple[str, str], request_hash: bytes) -> Outcome:
        self._require(expected is None or expected.prefix == grant.prefix, "a grant that replaces another prefix's")
        self._require((grant.version > 0) == bool(grant.delegation), "a version without its delegation")
        self._require(grant.status in tuple(PrefixStatus), "a status that is none")
        if grant.delegation:
            body = Delegation.parse(wire.signed_from_bytes(grant.delegation).payload)
            self._require((str(body.child), body.version) == (grant.prefix, grant.version), "another's delegation")
        if key in self._keys:
            return Outcome.KEY_USED
        if self._grants.get(grant.prefix) != expected:
            return Outcome.CONFLICT
        first = grant.version > 0 and (expected is None or expected.version == 0)
        if first and self._any_within(grant.prefix):
            return Outcome.CONFLICT
        self._require(expected is None or grant.version >= expected.version, "a delegation that goes back")
        self._grants[grant.prefix] = grant
        self._keys[key] = Earlier(request_hash, b"")
        self._number([], [grant])
        return Outcome.COMMITTED

    def _take(self, draft: LogDraft | None, logged: Logged | None) -> None:
        if draft is not None and logged is not None:
            draft.add(logged.entry)
            self._log.take(draft)

    async def log_edge(self) -> Edge:
        with self._seen():
            return self._log.edge

    async def log_tile(self, level: int, index: int) -> bytes | None:
        with self._seen():
            return self._log.tiles.get((level, index))

    async def log_entries(self, first: int, count: int) -> list[bytes]:
        with self._seen():
            return self._log.entries[first : first + count]

    async def log_note(self, size: int) -> bytes | None:
        with self._seen():
            return self._log.notes.get(size)

    async def witnessed(self) -> bytes | None:
        with self._seen():
            return self._log.witnessed[1] if self._log.witnessed else None

    async def put_witnessed(self, size: int, note: bytes) -> None:
        with self._seen():
            self._log.keep_witnessed(size, note)

    def _number(self, writes: Sequence[Write], grants: Sequence[Grant] = (), pointers: Sequence[Mention] = ()) -> None:
        if writes or grants or pointers:
            self._changes.append(unpack_change(len(self._changes) + 1, pack_subjects(writes, grants, pointers)))

    async def put_pointers(self, mentions: Sequence[Mention]) -> list[Mention]:
        self._require(all(home(mention.subject) is not None for mention in mentions), "a pointer that nobody asks for")
        self._fail(self.fail_and_not_persist, mentions)
        with self._seen():
            new = [mention for mention in dict.fromkeys(mentions) if mention not in self._pointers]
            self._pointers.update(new)
            self._number([], [], new)
        self._fail(self.fail_and_persist, mentions)
        return new

    async def pointers(self, subject: str, after: Mention | None, most: int) -> list[Mention]:
        with self._seen():
            found = sorted(mention for mention in self._pointers if mention.subject == subject)
            return [mention for mention in found if after is None or mention > after][:most]

    async def events(self, after_sequence: int, most: int) -> list[Recorded]:
        with self._seen():
            return [event for event in self._events if event.sequence > after_sequence][:most]

    async def events_between(
        self, start_ms: int, end_ms: int, after: tuple[int, str] | None, most: int
    ) -> list[Recorded]:
        with self._seen():
            found = sorted((e for e in self._events if start_ms <= e.time_ms < end_ms), key=_time_order)
            return [event for event in found if after is None or _time_order(event) > after][:most]

    async def deliveries(self, due_ms: int, most: int) -> list[Delivery]:
        self._require_engine()
        with self._seen():
            waiting = (d for d in self._outbox.values() if d.state is DeliveryState.WAITING)
            return sorted((d for d in waiting if d.next_at_ms <= due_ms), key=lambda d: d.next_at_ms)[:most]

    async def outbox(self, state: DeliveryState, most: int) -> list[Delivery]:
        with self._seen():
            return [delivery for delivery in self._outbox.values() if delivery.state is state][:most]

    async def settle(self, tried: Sequence[Delivery]) -> None:
        self._fail(self.fail_and_not_persist, tried)
        with self._seen():
            for delivery in tried:
                if delivery.state is DeliveryState.DONE:
                    self._outbox.pop(delivery.key, None)
                elif delivery.key in self._outbox:
                    self._outbox[delivery.key] = delivery
        self._fail(self.fail_and_persist, tried)

    def _require_engine(self) -> None:
        if self.unreadable:
            raise EngineError("nobody answers")

    async def sequence(self) -> int:
        self._require_engine()
        with self._seen():
            return len(self._changes)

    async def changes(self, after: int, most: int) -> list[Change]:
        self._require_engine()
        with self._seen():
            head = len(self._changes)
            self._require(after >= 0 and most > 0, "changes before the first, or none of them")
            if not max(0, head - self.changes_kept) <= after <= head:
                raise changes_gone(after, head)
            return self._changes[after : after + most]

    async def chains(self) -> dict[str, tuple[bytes, ...]]:
        with self._seen():
            return dict(self._chains)

    async def put_chain(self, zone: str, chain: Sequence[bytes], logged: Logged | None = None) -> None:
        self._fail(self.fail_and_not_persist, chain)
        self._put_chain(zone, chain, logged)
        self._fail(self.fail_and_persist, chain)

    def _put_chain(self, zone: str, chain: Sequence[bytes], logged: Logged | None) -> None:
        with self._seen():
            draft = self._log.draft(logged.stamp if logged else None)
            self._require(bool(chain), "a chain of no links")
            last = [
                Delegation.parse(wire.signed_from_bytes(links[-1]).payload)
                for links in (chain, self.chain(zone))
                if links
            ]
            self._require(str(last[0].child) == zone, "another zone's chain")
            self._require(last[0].version >= last[-1].version, "a chain that goes back")
            self._chains[zone] = tuple(chain)
            self._take(draft, logged)

    def chain(self, zone: str) -> tuple[bytes, ...]:
        """What is held for a zone, without the lock."""
        return self._chains.get(zone, ())

    async def reopen(self) -> None:
        with self._whole:
            self.reopened += 1
            self._failed = self._closed = False

    async def close(self) -> None:
        self._closed = True


def _time_order(event: Recorded) -> tuple[int, str]:
    return event.time_ms, event.event


def _between(write: Write) -> list[str]:
    """Prefixes on the way from the write's zone to its identifier."""
    identifier, zone = Identifier.parse(write.identifier), Prefix.parse(write.zone)
    return [str(prefix) for prefix in identifier.prefix.lineage() if prefix.strictly_within(zone)]

"""What a store promises to a registry; every adapter is held to it by one suite of tests.

1. **Durable.** What :meth:`Storage.commit` reports as COMMITTED survives a kill of the process and a loss of power.
2. **Whole.** A write is there with all its parts (version, head, idempotency key, claims) or with none of them.
3. **One winner.** For one identifier and version, one unique claim, or one idempotency key there is at most one
   COMMITTED write, whatever runs at the same time, in this process or in another.
4. **Alone.** A write that loses is reported and leaves the others of its batch as they are.
5. **Unknown is said.** If commit raises, the outcome of the whole batch is unknown: reopen, and let the callers ask
   again with their idempotency keys.
6. **Append-only.** A stored version, receipt or claim never changes and never goes away.
7. **One owner.** A first delegation conflicts with identifiers that lie in its prefix, and a write conflicts with a
   delegation that lies between its zone and its identifier, whichever of the two comes second.
8. **Told in order.** Every commit that changes a record or a grant has a sequence number, greater than all before it,
   in this process or in another. :meth:`Storage.changes` tells commits in that order, each once and whole, none left
   out, and none before its writes can be read. The numbers survive a restart.
9. **Logged with it.** What is committed with a stamp stands in the log from that very moment, at an index of its own;
   the log only grows, has one checkpoint a size, and no reader ever sees a record that is not in it. Whoever has been
   told of a head can read the writes of every commit up to it: statements of what is the latest rest on that.
10. **Pointed to.** A write that wins makes true with itself a pointer for each of its mentions, a delivery for each of
   its ``outbound`` subjects, and the event's place in the order of recording. Nothing of these is there without the
   write, and no delivery ever goes away but by :meth:`Storage.settle`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from functools import lru_cache
from typing import Final, Protocol

from idtrace.entry import Entry
from idtrace.errors import InputError, Reason, RefusedError
from idtrace.identifier import Identifier
from idtrace.record import RecordKind, Sealed, Status
from registry.logbook import Edge, LogDraft, Stamp

# An event's bytes (124 KiB, idtrace/epcis/statement.py) hold fewer: a URI of an instance has 20 characters or more.
MENTIONS_MAX: Final = 8_192
# Of an identifier 255; a Digital Link with all its qualifiers, or the URN of the longest location, has a tenth of it.
SUBJECT_BYTES_MAX: Final = 1_024
# Places of events in one commit: a batch has 2,000 writes (registry/sequencer.py), and 2**51 commits are left.
EVENTS_A_COMMIT: Final = 4_096
# Why a delivery failed, for an operator: two lines of a screen.
DELIVERY_ERROR_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Head:
    """Latest version of an identifier: number, record hash, and what admission has to know of it."""

    version: int
    record_hash: bytes
    kind: RecordKind
    status: Status
    issued_at: int


@dataclass(frozen=True, slots=True)
class Earlier:
    """What was answered to an idempotency key: hash of the request (32 bytes) and the receipt's bytes."""

    request_hash: bytes
    receipt: bytes


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """A value that is unique in a class: class identifier, field name, SHA-256 of the data."""

    class_id: str
    field: str
    digest: bytes


@dataclass(frozen=True, slots=True, order=True)
class Mention:
    """An event says something of a thing, a place or a device: a *pointer*, where the thing's own registry keeps it.

    Attributes:
        subject: key of what it is about (canonical identifier, or the URI where it is none).
        time_ms: event time, UTC.
        event: identifier of the event's record, ``PARTY/event/HEX``: who asks for it is led to the party's node.
        role: what the subject is in the event: ``epc``, ``parent``, ``child``, ``input``, ``output``, ``read_point``,
            ``biz_location``, ``device``, ``source``, ``destination``, ``transaction``, ``class``;
            ``fitted`` besides, where one was fitted to the other or taken off.
    """

    subject: str
    time_ms: int
    event: str
    role: str


@dataclass(frozen=True, slots=True)
class Write:
    """One record version to commit. ``expected`` is the version that has to be the head (0: none)."""

    identifier: str
    expected: int
    head: Head
    record: bytes
    zone: str
    idempotency_key: str
    request_hash: bytes
    receipt: bytes
    claims: tuple[Claim, ...] = ()
    entry: Entry | None = None
    sealed: SealedIn | None = None
    mentions: tuple[Mention, ...] = ()  # of an event's record
    outbound: tuple[str, ...] = ()  # those of their subjects whose home is another node


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event in the order of recording: ``sequence`` is its commit's number times 4,096 and its place there."""

    sequence: int
    time_ms: int
    event: str


class DeliveryState(StrEnum):
    """How a delivery stands; what is done is not kept."""

    WAITING = "waiting"
    DEAD = "dead"  # given up, until somebody says otherwise
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Delivery:
    """Pointers of one subject to one event that the subject's home node has to be told of.

    Attributes:
        subject, event, time_ms: as in :class:`Mention`.
        roles: what the subject is in the event, sorted.
        attempts, error: tries that have failed, and why the last one did.
        since_ms: when it was first tried and failed, UTC; 0 before.
        next_at_ms: not to be tried again before this, UTC.
        place: the store's own note of where it lies.
    """

    subject: str
    event: str
    time_ms: int
    roles: tuple[str, ...]
    state: DeliveryState = DeliveryState.WAITING
    attempts: int = 0
    since_ms: int = 0
    next_at_ms: int = 0
    error: str = ""
    place: int = field(default=0, compare=False)

    @property
    def key(self) -> tuple[str, str]:
        """Subject and event: what there is one delivery of."""
        return self.subject, self.event

    def mentions(self) -> tuple[Mention, ...]:
        """What the home is told."""
        return tuple(Mention(self.subject, self.time_ms, self.event, role) for role in self.roles)


@dataclass(frozen=True, slots=True)
class SealedIn:
    """The batch that a write was sealed in: its seal and place, and the record hashes of all that stood in it."""

    sealed: Sealed
    batch: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored version: its number, the record's bytes, and its index in the log (None: it was not logged)."""

    version: int
    record: bytes
    index: int | None


def between(write: Write) -> list[str]:
    """Prefixes on the way from the write's zone to its identifier; mostly none."""
    prefix = write.identifier.partition("/")[0]
    if prefix == write.zone:
        return []
    labels = prefix.split(".")
    depth = len(write.zone.split(".")) if write.zone else 0
    return [".".join(labels[:n]) for n in range(depth + 1, len(labels) + 1)]


class Outcome(Enum):
    """What became of one write."""

    COMMITTED = auto()
    CONFLICT = auto()  # the head is not the expected one
    KEY_USED = auto()  # the idempotency key is there already
    CLAIMED = auto()  # a claim belongs to another identifier


@dataclass(frozen=True, slots=True)
class Grant:
    """Where a child prefix stands at its parent's node: review, delegation (b"" for none yet), and papers filed."""

    prefix: str
    status: str
    hosted: bool
    comment: str
    changed_at: int
    version: int = 0
    delegation: bytes = b""
    application: bytes = b""
    enrolments: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Logged:
    """What a grant or a chain leaves in the log."""

    stamp: Stamp
    entry: Entry


@dataclass(frozen=True, slots=True)
class Change:
    """What one commit has changed: identifiers and prefixes, each with its latest version (a grant's delegation's).

    ``events``: identifiers of which there are more events now; their records are what they were.
    """

    sequence: int
    identifiers: tuple[tuple[str, int], ...] = ()
    prefixes: tuple[tuple[str, int], ...] = ()
    events: tuple[str, ...] = ()


def log_write(draft: LogDraft, write: Write) -> int | None:
    """Enter a write that has won; its index, or None where its caller wants it not logged."""
    if write.entry is None:
        return None
    if write.sealed is None:
        return draft.add(write.entry)
    return draft.add_sealed(write.entry, write.sealed.sealed, write.sealed.batch)


@lru_cache(maxsize=65_536)  # a shipment's boxes come again in the events that follow; 20 MB of the longest
def home(subject: str) -> Identifier | None:
    """The identifier that a subject is; None for a URI that is none, which has no home."""
    try:
        return Identifier.parse_canonical(subject)
    except InputError:
        return None


def deliveries_of(write: Write) -> list[Delivery]:
    """One for each outbound subject of a write, with all its roles in the event."""
    outbound = set(write.outbound)
    roles: dict[tuple[str, str, int], set[str]] = {}
    for mention in write.mentions:
        if mention.subject in outbound:
            roles.setdefault((mention.subject, mention.event, mention.time_ms), set()).add(mention.role)
    return [Delivery(*about, tuple(sorted(found))) for about, found in roles.items()]


def told_events(writes: Iterable[Write], pointers: Iterable[Mention] = ()) -> list[str]:
    """The identifiers of own zones that a commit's mentions are about, each once."""
    outbound: set[str] = set()
    subjects = [mention.subject for mention in pointers]
    for write in writes:
        if write.mentions:
            outbound.update(write.outbound)
            subjects += [mention.subject for mention in write.mentions]
    return [subject for subject in dict.fromkeys(subjects) if subject not in outbound and home(subject) is not None]


def pack_subjects(writes: Iterable[Write], grants: Iterable[Grant] = (), pointers: Iterable[Mention] = ()) -> bytes:
    """What a commit of these changes, in the form in which every engine keeps it.

    UTF-8 JSON, ``[[[identifier, version], …], [[prefix, version], …]]``, and a third list of identifiers where there
    are events to tell of; of what comes twice the last version counts.
    """
    writes = tuple(writes)
    identifiers = {write.identifier: write.head.version for write in writes}
    prefixes = {grant.prefix: grant.version for grant in grants}
    subjects: list[object] = [[*identifiers.items()], [*prefixes.items()]]
    if events := told_events(writes, pointers):
        subjects.append(events)
    return json.dumps(subjects, ensure_ascii=False, separators=(",", ":")).encode()


def unpack_change(sequence: int, subjects: bytes) -> Change:
    """The change whose subjects :func:`pack_subjects` has packed.

    Raises:
        ValueError: the engine has given back other bytes than it was given.
    """
    identifiers, prefixes, *events = json.loads(subjects)
    told = tuple(events[0]) if events else ()
    return Change(sequence, tuple(map(tuple, identifiers)), tuple(map(tuple, prefixes)), told)


def changes_gone(after: int, head: int) -> RefusedError:
    """Why nobody can tell what has changed since ``after``, where ``head`` is the last commit."""
    detail = (
        f"change {after} is yet to come, the last one is {head}"
        if after > head
        else f"not all changes after {after} are kept any more"
    )
    return RefusedError(Reason.CHANGES_GONE, detail, field="after")


class Storage(Protocol):
    """A registry's store. Called from the event loop; reads may run beside one commit.

    Every method may raise the engine's own error: a read that raises has told nothing, a write that raises may or may
    not be durable (guarantee 5).
    """

    async def heads(self, identifiers: Sequence[str]) -> dict[str, Head]:
        """Latest version of each identifier that has one."""
        ...

    async def record(self, identifier: str, version: int = 0) -> bytes | None:
        """Bytes of a version, or of the latest for 0."""
        ...

    async def earlier(self, zone: str, idempotency_keys: Sequence[str]) -> dict[str, Earlier]:
        """What was answered to each key that was used in the zone."""
        ...

    async def claimants(self, claims: Sequence[Claim]) -> dict[Claim, str]:
        """Identifier that holds each claim that is taken."""
        ...

    async def stored(self, identifier: str, version: int = 0) -> Stored | None:
        """A version, or the latest for 0, with its index in the log."""
        ...

    async def commit(self, writes: Sequence[Write], stamp: Stamp | None = None) -> list[Outcome]:
        """Commit a batch; one outcome a write, in order. Raises the engine's error where the outcome is unknown.

        With a stamp the writes that win are logged: their entries, the tiles and the next checkpoint become durable
        together with them, in their order.

        Raises:
            BusyError: CLOCK_BACK; nothing was written.
        """
        ...

    async def any_within(self, prefix: str) -> bool:
        """Whether an identifier of this prefix, or of one below it, is registered."""
        ...

    async def grants(self, only: Sequence[str] | None = None) -> list[Grant]:
        """All prefixes that were applied for or delegated, or those of them that are asked for."""
        ...

    async def put_grant(
        self,
        grant: Grant,
        expected: Grant | None,
        key: tuple[str, str],
        request_hash: bytes,
        logged: Logged | None = None,
    ) -> Outcome:
        """Insert or replace a grant durably if it still is the expected one; ``key`` is (zone, idempotency key)."""
        ...

    async def chains(self) -> dict[str, tuple[bytes, ...]]:
        """The node's own zones, each with its delegations as signed, root first."""
        ...

    async def put_chain(self, zone: str, chain: Sequence[bytes], logged: Logged | None = None) -> None:
        """Replace the chain of one of the node's own zones, durably."""
        ...

    async def log_edge(self) -> Edge:
        """Head of the log and its partial tiles, all of one commit."""
        ...

    async def log_tile(self, level: int, index: int) -> bytes | None:
        """Content of a tile, full or as wide as it now is."""
        ...

    async def log_entries(self, first: int, count: int) -> list[bytes]:
        """Entries from an index on; fewer where the log ends."""
        ...

    async def log_note(self, size: int) -> bytes | None:
        """The checkpoint of the commit with which the log had this size."""
        ...

    async def witnessed(self) -> bytes | None:
        """The last checkpoint that was kept with :meth:`put_witnessed`."""
        ...

    async def put_witnessed(self, size: int, note: bytes) -> None:
        """Keep a checkpoint that enough witnesses have cosigned, durably, unless one of a larger log is kept."""
        ...

    async def sequence(self) -> int:
        """Number of the last commit whose writes can be read; 0 before the first."""
        ...

    async def changes(self, after: int, most: int) -> list[Change]:
        """The commits after this number, the earliest first, at most so many of them.

        Raises:
            RefusedError: CHANGES_GONE where some of them are not kept any more, or where ``after`` is yet to come.
        """
        ...

    async def put_pointers(self, mentions: Sequence[Mention]) -> list[Mention]:
        """Keep pointers that came from elsewhere, durably, and tell of their subjects; those that were not here yet.

        Every subject is of an own zone. Where nothing is new nothing is written. Raises as :meth:`commit` does.
        """
        ...

    async def pointers(self, subject: str, after: Mention | None, most: int) -> list[Mention]:
        """Pointers of a subject in the order of time, event and role, those after ``after``, at most so many."""
        ...

    async def events(self, after_sequence: int, most: int) -> list[Recorded]:
        """The events recorded after a place (0: from the first), in that order, at most so many."""
        ...

    async def events_between(
        self, start_ms: int, end_ms: int, after: tuple[int, str] | None, most: int
    ) -> list[Recorded]:
        """The events of ``start_ms <= time < end_ms`` in the order of (time, identifier), those after ``after``."""
        ...

    async def deliveries(self, due_ms: int, most: int) -> list[Delivery]:
        """Waiting deliveries whose ``next_at_ms`` has come, at most so many; those that wait longest come first."""
        ...

    async def outbox(self, state: DeliveryState, most: int) -> list[Delivery]:
        """Deliveries that wait, due or not, or are dead, in any order, at most so many: for an operator."""
        ...

    async def settle(self, tried: Sequence[Delivery]) -> None:
        """Keep how deliveries stand now, durably: DONE ones go, of others the state is replaced. Twice does it once.

        Each is one that this store has told, with its ``place``.
        """
        ...

    async def reopen(self) -> None:
        """Start over after commit has raised."""
        ...

    async def close(self) -> None:
        """Release the engine."""
        ...

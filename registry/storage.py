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
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from idtrace.entry import Entry
from idtrace.errors import Reason, RefusedError
from idtrace.record import RecordKind, Sealed, Status
from registry.logbook import Edge, LogDraft, Stamp


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
            ``biz_location``, ``device``, ``source``, ``destination``, ``transaction``, ``class``.
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
    """What one commit has changed: identifiers and prefixes, each with its latest version (a grant's delegation's)."""

    sequence: int
    identifiers: tuple[tuple[str, int], ...] = ()
    prefixes: tuple[tuple[str, int], ...] = ()


def log_write(draft: LogDraft, write: Write) -> int | None:
    """Enter a write that has won; its index, or None where its caller wants it not logged."""
    if write.entry is None:
        return None
    if write.sealed is None:
        return draft.add(write.entry)
    return draft.add_sealed(write.entry, write.sealed.sealed, write.sealed.batch)


def pack_subjects(writes: Iterable[Write], grants: Iterable[Grant] = ()) -> bytes:
    """What a commit of these changes, in the form in which every engine keeps it.

    UTF-8 JSON, ``[[[identifier, version], …], [[prefix, version], …]]``; of what comes twice the last version counts.
    """
    identifiers = {write.identifier: write.head.version for write in writes}
    prefixes = {grant.prefix: grant.version for grant in grants}
    text = json.dumps([[*identifiers.items()], [*prefixes.items()]], ensure_ascii=False, separators=(",", ":"))
    return text.encode()


def unpack_change(sequence: int, subjects: bytes) -> Change:
    """The change whose subjects :func:`pack_subjects` has packed.

    Raises:
        ValueError: the engine has given back other bytes than it was given.
    """
    identifiers, prefixes = json.loads(subjects)
    return Change(sequence, tuple(map(tuple, identifiers)), tuple(map(tuple, prefixes)))


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

    async def reopen(self) -> None:
        """Start over after commit has raised."""
        ...

    async def close(self) -> None:
        """Release the engine."""
        ...

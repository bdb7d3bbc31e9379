"""What this node shows beside its answers: that a record is in the log, that it is the latest, and who says so.

A statement about "latest" or "absent" names the size of the log for which it is true. The size is therefore read
before the store is asked what it holds: whatever the store then shows was committed under that size or after it, so no
entry below it can contradict the statement. A size that is a second old makes a statement weaker and never false.

Proofs are shown only where the zone's delegation names this node's log and its key: anywhere else they would be lies.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, TypeVar

from idtrace import wire
from idtrace.checkpoint import Checkpoint
from idtrace.delegation import Delegation, Role
from idtrace.errors import Reason, RefusedError
from idtrace.identifier import Identifier, Prefix
from idtrace.logproof import LogProof
from idtrace.note import Note, NoteKey
from idtrace.signature import Kind, Signed, Signer, sign
from idtrace.statements import CURRENCY_SECONDS_MAX, DENIAL_SECONDS_MAX, Currency, Denial, DenialReason
from registry.authority import Authority
from registry.log_reading import LogReading
from registry.logbook import LogHead
from registry.storage import Storage, Stored

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# A statement is signed anew after half of its life, so whoever gets it can rely on it for as long again.
CURRENCY_KEPT_SECONDS: Final = CURRENCY_SECONDS_MAX // 2
# How old the size may be that statements name.
HEAD_SECONDS: Final = 1.0
# Statements of 600 bytes and proofs of 2 KiB: the records that everybody asks for.
SAID_KEPT: Final = 16_384
PROOFS_KEPT: Final = 4_096
# The checkpoint of a commit stands at the log's size after it: at most a batch further on, and mostly next door.
NOTES_AT_ONCE: Final = 32
COMMIT_ENTRIES_MAX: Final = 8_192
COMMITS_KEPT: Final = 16


@dataclass(frozen=True, slots=True)
class _Said:
    """A currency statement, by what it depends on."""

    about: tuple[Prefix, int, str]  # zone, version, key id
    issued_at: int
    signed: Signed


class Standing:
    """Proofs and short-lived statements of one node with a log. Belongs to one event loop.

    Args:
        store: where records and log lie.
        authority: which zones are ours, and which keys their delegations name.
        log_key: the log's name and key.
        node: signs for zones that name no currency key of ours.
        currency: signs for the others; may be the same key.
        clock: wall clock, s.
        monotonic: a clock that nobody sets, s.
    """

    def __init__(
        self,
        store: Storage,
        authority: Authority,
        log_key: NoteKey,
        *,
        node: Signer,
        currency: Signer,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self._store = store
        self._authority = authority
        self._log_key = log_key
        self._node = node
        self._currency = currency
        self._clock = clock
        self._monotonic = monotonic
        self._reading = LogReading(store)
        self._reading_head = asyncio.Lock()
        self._head: tuple[float, LogHead] | None = None  # when it was asked for, and what was told
        self._witnessed: tuple[float, int, bytes] | None = None  # when it was asked for, size and note; 0 and b"": none
        self._said: OrderedDict[str, _Said] = OrderedDict()
        self._proofs: OrderedDict[tuple[int, bytes], LogProof] = OrderedDict()
        self._commits: deque[tuple[int, int, bytes]] = deque(maxlen=COMMITS_KEPT)  # an index, the size, the note

    async def latest(self, identifier: Identifier) -> tuple[Stored | None, LogHead]:
        """The latest version of an identifier, and a head of the log of which it is the latest."""
        head = await self._current_head()
        stored = await self._store.stored(str(identifier))
        if stored is not None and stored.index is not None and stored.index >= head.size:
            head = await self._current_head(over=stored.index)
            stored = await self._store.stored(str(identifier))
        return stored, head

    async def head(self) -> LogHead:
        """A head of the log; ask the store for what a statement about it denies only afterwards."""
        return await self._current_head()

    async def proof(self, zone: Prefix, stored: Stored) -> LogProof | None:
        """Proof that a stored version is in the log, for those who know the zone's delegation; None: there is none."""
        if stored.index is None or not self.is_log_of(zone):
            return None
        kept = await self._witnessed_over(stored.index)
        if kept is not None:
            return await self.proof_under(stored.index, *kept)
        head = await self._current_head(over=stored.index)
        return await self.proof_under(stored.index, head.size, head.note)

    def is_log_of(self, zone: Prefix) -> bool:
        """Whether the zone's delegation names this log: a proof that it gives for another verifies nowhere."""
        try:
            return self._is_log_of(self._delegation(zone))
        except RefusedError:  # a zone that this node has lost
            return False

    async def index_of(self, identifier: Identifier, version: int) -> int | None:
        """Where a version stands in the log; None where it does not."""
        stored = await self._store.stored(str(identifier), version)
        return None if stored is None else stored.index

    def is_ours(self, note: bytes) -> bool:
        """Whether a checkpoint bears a line by the log's present key; those of an earlier one prove nothing now."""
        ours = (self._log_key.name, self._log_key.key_id)
        return ours in ((line.name, line.key_id) for line in Note.parse(note).signatures)

    def currency(self, identifier: Identifier, zone: Prefix, stored: Stored, head: LogHead) -> Signed | None:
        """The word that a version is the latest, as :meth:`latest` has found it; None: nobody would believe ours."""
        delegation, now = self._delegation(zone), self._clock()
        speaker = self._speaker(delegation)
        believed = delegation.keys_for(Role.CURRENCY) or delegation.keys_for(Role.NODE)
        if stored.index is None or stored.index >= head.size or not self._is_log_of(delegation):
            return None
        if speaker.public_key.key_id not in believed:
            return None
        about = (zone, stored.version, speaker.public_key.key_id)
        kept = self._said.get(str(identifier))
        if kept is not None and kept.about == about and 0 <= now - kept.issued_at < CURRENCY_KEPT_SECONDS:
            self._said.move_to_end(str(identifier))
            return kept.signed
        expires = now + CURRENCY_SECONDS_MAX
        record_hash = wire.record_from_bytes(stored.record).hash
        said = Currency(identifier, zone, stored.version, record_hash, head.size, now, expires)
        signed = sign(Kind.CURRENCY, said.payload(), speaker)
        _keep(self._said, str(identifier), _Said(about, now, signed), SAID_KEPT)
        return signed

    def deny(self, identifier: Identifier, zone: Prefix, reason: DenialReason, head: LogHead) -> Signed:
        """The word that there is no such identifier, of a log of this size where it is the zone's."""
        delegation, now = self._delegation(zone), self._clock()
        size = head.size if self._is_log_of(delegation) else None
        said = Denial(identifier, zone, reason, now, now + DENIAL_SECONDS_MAX, size)
        return sign(Kind.DENIAL, said.payload(), self._speaker(delegation))

    def _delegation(self, zone: Prefix) -> Delegation:
        return self._authority.chain_of(zone)[-1].delegation

    def _is_log_of(self, delegation: Delegation) -> bool:
        keys = (key.raw for key in delegation.keys_for(Role.LOG).values())
        return delegation.log == self._log_key.name and self._log_key.raw in keys

    def _speaker(self, delegation: Delegation) -> Signer:
        named = delegation.keys_for(Role.CURRENCY)
        return self._currency if self._currency.public_key.key_id in named else self._node

    async def _current_head(self, over: int = -1) -> LogHead:
        """A head that is at most a second old, and of a log that has the entry ``over``."""
        head = self._fresh_head(over)
        if head is None:
            async with self._reading_head:  # whoever comes while it is read uses what was read
                head = self._fresh_head(over)
                if head is None:
                    asked = self._monotonic()
                    head = (await self._store.log_edge()).head
                    self._head = (asked, head)
        return head

    def _fresh_head(self, over: int) -> LogHead | None:
        if self._head is None or self._monotonic() - self._head[0] > HEAD_SECONDS or self._head[1].size <= over:
            return None
        return self._head[1]

    async def _witnessed_over(self, index: int) -> tuple[int, bytes] | None:
        """Size and note of the checkpoint that witnesses have cosigned, at most a second old, if it covers an entry.

        With it an answer also satisfies those who ask for a quorum; the log's newest one nobody else has seen yet.
        """
        asked = self._monotonic()
        if self._witnessed is None or asked - self._witnessed[0] > HEAD_SECONDS:
            kept = await self._store.witnessed()
            note = Note.parse(kept) if kept else None
            # One under a key that the log had before is believed by nobody who knows the zone's keys of today.
            if note is not None and kept and self.is_ours(kept):
                self._witnessed = (asked, Checkpoint.parse(note.text).size, kept)
            else:
                self._witnessed = (asked, 0, b"")
        _, size, data = self._witnessed
        return (size, data) if index < size else None

    async def commit_of(self, index: int) -> tuple[int, bytes]:
        """Size of the log and its checkpoint (a note) with the commit of an entry: the same whenever it is asked for.

        Raises:
            RefusedError: NOT_LOGGED.
        """
        for low, size, note in self._commits:
            if low <= index < size:
                return size, note
        for start in range(index + 1, index + 1 + COMMIT_ENTRIES_MAX, NOTES_AT_ONCE):
            sizes = range(start, start + NOTES_AT_ONCE)
            for size, found in zip(sizes, await asyncio.gather(*map(self._store.log_note, sizes)), strict=True):
                if found is not None:
                    self._commits.append((index, size, found))
                    return size, found
        raise RefusedError(Reason.NOT_LOGGED, f"no checkpoint covers entry {index}", field="index")

    async def proof_under(self, index: int, size: int, note: bytes) -> LogProof:
        """Proof of an entry under a checkpoint (a note) of this log and this size, which covers it."""
        known = self._proofs.get((index, note))
        if known is not None:
            self._proofs.move_to_end((index, note))
            return known
        (entry,) = await self._store.log_entries(index, 1)
        head = entry[: entry.index(b"\n\n") + 2]
        proof = LogProof(index, await self._reading.inclusion(index, size), note, head)
        _keep(self._proofs, (index, note), proof, PROOFS_KEPT)
        return proof


def _keep(kept: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > most:
        kept.popitem(last=False)

"""What an auditor keeps while it replays a log: the word on each zone, the life of each identifier, the open seal.

An entry that could not be checked, for want of a key, is kept like any other, as *unclear*. A sound log holds nothing
that its registry has not verified, so such an entry is taken to say the truth until it breaks a rule; and if it breaks
one together with an entry that was checked, then one of the two should not be there, whoever signed what. So nothing
can hide behind an unclear entry, and nobody is accused for want of a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from idtrace import merkle
from idtrace.delegation import Delegation, Role
from idtrace.entry import EntryKind
from idtrace.errors import Reason
from idtrace.identifier import Prefix
from idtrace.record import RecordKind
from idtrace.seal import Seal
from idtrace.signature import PublicKey


class Doubt(NamedTuple):
    """Why an entry could be checked only in part."""

    reason: Reason
    detail: str


@dataclass(slots=True)
class ZoneWord:
    """The latest word of a log on a zone.

    Attributes:
        delegation: what it says.
        content: hash of it.
        floors: by id of a key that ever signed a word on this zone, the last version that it signed.
        doubt: why it could not be checked; what is signed by its keys alone is unclear too.
        whole: whether the zone's life stands in this log from its first record on.
    """

    delegation: Delegation
    content: bytes
    floors: dict[str, tuple[int, str]]
    doubt: Doubt | None
    whole: bool
    _record_keys: Mapping[str, PublicKey] = field(default_factory=dict)
    _count_from: int = 0
    _count_below: int = 0

    @staticmethod
    def is_whole(kind: EntryKind, delegation: Delegation) -> bool:
        """Whether the life of a zone whose first word in a log is this one stands in that log from its beginning.

        A zone that its parent's log hands out as version 1 begins there. A zone whose version 1 names a log has
        promised to keep every change in it. Else the zone may be older than the log: a registry can begin a log on a
        store that has records, and then the log begins with the keys that its zones have by then.
        """
        return delegation.version == 1 and (kind is EntryKind.DELEGATION or bool(delegation.log))

    def resurrected(self, before: ZoneWord) -> str:
        """Id of a key that had ended by the word before and counts here for longer; "" where there is none."""
        ends = {one.key.key_id: one.until for one in before.delegation.keys if one.until is not None}
        for one in self.delegation.keys:
            end = ends.get(one.key.key_id)
            if end is not None and (one.until is None or one.until > end):
                return one.key.key_id
        return ""

    def record_keys(self, index: int) -> Mapping[str, PublicKey]:
        """Keys that may sign records at an index; the very same object as long as they are the same."""
        if not self._count_from <= index < self._count_below:
            ends = {name: (k.key, k.until or 0) for name, k in self.delegation.ended_keys(Role.RECORD).items()}
            still = {name: key for name, (key, until) in ends.items() if index < until}
            self._record_keys = self.delegation.keys_for(Role.RECORD) | still
            self._count_from = index
            self._count_below = min((ends[name][1] for name in still), default=merkle.SIZE_MAX)
        return self._record_keys


@dataclass(slots=True)
class Life:
    """Where an identifier stands: whose, which version, its hash, what it is; and how it came there."""

    zone: Prefix
    version: int
    record_hash: bytes
    kind: RecordKind
    entries: list[tuple[int, int, bytes]]  # index in the log, version, record hash; ascending


@dataclass(slots=True)
class OpenSeal:
    """A seal whose records are being read; ``hashes`` by place, those of the absent ones too."""

    index: int
    seal_hash: bytes
    signers: frozenset[str]
    body: Seal
    hashes: dict[int, bytes]
    doubt: Doubt | None
    keys: Mapping[str, PublicKey] | None = None  # those that were last seen to have the signers among them
    next_position: int = 0

    def skip_absent(self) -> None:
        """Go on to the next place that a record has to fill."""
        while self.next_position in self.hashes:
            self.next_position += 1

    def is_full(self) -> bool:
        """Whether every place has its record or is called absent, and no place is named beyond the batch."""
        return len(self.hashes) == self.body.size and self.next_position == self.body.size

    def is_sound(self) -> bool:
        """Whether it is full and its hashes have the sealed root."""
        if not self.is_full():
            return False
        leaves = [merkle.hash_leaf(self.hashes[place]) for place in range(self.body.size)]
        return merkle.root_of(leaves) == self.body.root

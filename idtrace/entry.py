"""Log entries: what a leaf of a registry's log says. Everything that changes meaning stands in one, and no value does.

An entry is a head of text lines, an empty line, and the exact bytes that somebody signed::

    idtrace/entry/v1 record 88.118.8 1900000000
    signature 3b6a27bcceb6a42d62a3a8d02a6f0d73 ed25519 mF2u...==

    {"class":"","identifier":"88.118.8/SN-0001", ...}

The first line has the kind, the deciding zone ("." for the root) and the time of commit (s). A record under a batch
seal has ``seal HASH POSITION`` instead of signatures; the seal itself is the entry before the first of them, and says
in lines ``absent POSITION HASH`` which of its records were refused, so that its root can be computed again. Record
bodies carry salted digests of values and never the values, so a value can be erased everywhere while the log and every
proof stay valid. Whoever reads the log alone can therefore check every signature and every rule again.

The form is strict: an entry that is not byte for byte what :meth:`Entry.to_bytes` gives is refused. An entry has at
most 65,535 bytes (C2SP tlog-tiles: entries are framed by a uint16).
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Final

from idtrace.errors import InputError, Reason
from idtrace.identifier import Prefix
from idtrace.record import TIME_MAX
from idtrace.signature import SIGNATURES_MAX, Kind, Signature, Signed

ENTRY_BYTES_MAX: Final = 65_535
# Of a sealed batch so many may be refused and the others still be logged: their hashes fill one entry.
ABSENT_MAX: Final = 768
# What the head of another entry may take: eight signatures of 180 bytes and the first line, with room.
HEAD_BYTES_MAX: Final = 2_047
# So a body that is to be logged has at most this much; 480 value digests.
LOGGED_BODY_BYTES_MAX: Final = ENTRY_BYTES_MAX - HEAD_BYTES_MAX - 1
_FORMAT: Final = "idtrace/entry/v1"
_SEAL = re.compile(r"seal ([0-9a-f]{64}) (0|[1-9][0-9]{0,6})\Z")
_ABSENT = re.compile(r"absent (0|[1-9][0-9]{0,6}) ([0-9a-f]{64})\Z")
_SIGNATURE = re.compile(r"signature ([0-9a-f]{32}) ([a-z0-9-]{1,32}) ([A-Za-z0-9+/=]{4,344})\Z")
_TIME = re.compile(r"(0|[1-9][0-9]{0,11})\Z")
# The head of nearly all entries: a record under a seal, in the one form that we write; a zone in it is not the root.
_SEALED_HEAD = re.compile(
    rb"idtrace/entry/v1 record ([a-z0-9][a-z0-9._-]*) (0|[1-9][0-9]{0,11})\nseal ([0-9a-f]{64}) (0|[1-9][0-9]{0,6})\n\n"
)


class EntryKind(StrEnum):
    """What an entry is about: the kinds of signed things, each by whom it changes."""

    RECORD = "record"  # a version of an identifier
    SEAL = "seal"  # one signature over many records, before them
    KEYS = "keys"  # the zone's own delegation, as its parent gave it: these keys count from here on
    DELEGATION = "delegation"  # of a child zone
    COMMAND = "command"  # an administrator's move of a child prefix


SIGNED_KIND: Final = {
    EntryKind.RECORD: Kind.RECORD,
    EntryKind.SEAL: Kind.SEAL,
    EntryKind.KEYS: Kind.DELEGATION,
    EntryKind.DELEGATION: Kind.DELEGATION,
    EntryKind.COMMAND: Kind.COMMAND,
}


@dataclass(frozen=True, slots=True)
class UnderSeal:
    """Instead of signatures: hash of the seal's framed body, 32 bytes, and the record's place in its batch."""

    seal_hash: bytes
    position: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: kind, deciding zone, time of commit (s), the exact signed bytes, and who signed them.

    ``absent`` of a seal: place and record hash of those of its records that were refused, ascending.
    """

    kind: EntryKind
    zone: Prefix
    committed_at: int
    payload: bytes
    by: tuple[Signature, ...] | UnderSeal
    absent: tuple[tuple[int, bytes], ...] = ()

    @property
    def signed(self) -> Signed:
        """The signed thing; without signatures where the entry stands under a seal."""
        signatures = () if isinstance(self.by, UnderSeal) else self.by
        return Signed(SIGNED_KIND[self.kind].payload_type, self.payload, signatures)

    @property
    def head(self) -> bytes:
        """The lines above the payload, with the empty line: what a proof carries beside a record."""
        lines = [f"{_FORMAT} {self.kind} {self.zone if not self.zone.is_root else '.'} {self.committed_at}"]
        if isinstance(self.by, UnderSeal):
            lines.append(f"seal {self.by.seal_hash.hex()} {self.by.position}")
        else:
            lines += (f"signature {s.key_id} {s.algorithm} {base64.b64encode(s.signature).decode()}" for s in self.by)
            lines += (f"absent {position} {record_hash.hex()}" for position, record_hash in self.absent)
        return ("\n".join(lines) + "\n\n").encode()

    def to_bytes(self) -> bytes:
        """The leaf's data; the body was held to :data:`LOGGED_BODY_BYTES_MAX` when it was admitted."""
        data = self.head + self.payload
        assert len(data) <= ENTRY_BYTES_MAX, "what is too large was refused at admission"
        return data

    @classmethod
    def from_bytes(cls, data: bytes, *, field: str = "entry") -> Entry:
        """Read an entry.

        Raises:
            InputError: ENTRY_MALFORMED, or why the zone is no prefix.
        """
        if len(data) > ENTRY_BYTES_MAX:
            raise _malformed(field, f"has more than {ENTRY_BYTES_MAX} bytes")
        return _sealed_record(data, field) or cls.from_any_bytes(data, field=field)

    @classmethod
    def from_any_bytes(cls, data: bytes, *, field: str = "entry") -> Entry:
        """What :meth:`from_bytes` gives, by the long way, which knows every kind and what is wrong.

        ``data`` has been held to its size.
        """
        head, separator, payload = data.partition(b"\n\n")
        if not separator or not payload:
            raise _malformed(field, "has no payload after an empty line")
        try:
            first, *lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise _malformed(field, "has a head that is not ASCII") from None
        parts = first.split(" ")
        if len(parts) != 4 or parts[0] != _FORMAT:
            raise _malformed(field, f"does not begin with {_FORMAT}, a kind, a zone and a time")
        if parts[1] not in tuple(EntryKind):
            raise _malformed(field, "is of a kind that there is not")
        if _TIME.match(parts[3]) is None or int(parts[3]) > TIME_MAX:
            raise _malformed(field, "has no time of commit")
        zone = Prefix.parse_canonical("" if parts[2] == "." else parts[2], field=f"{field}.zone")
        absent = _absent(lines, field)
        entry = cls(
            EntryKind(parts[1]), zone, int(parts[3]), payload, _by(lines[: len(lines) - len(absent)], field), absent
        )
        if parts[2] == "" or entry.head != data[: len(head) + 2]:
            raise _malformed(field, "is not in the form that we write")
        if absent and entry.kind is not EntryKind.SEAL:
            raise _malformed(field, "lacks records and is no seal")
        if isinstance(entry.by, UnderSeal) and entry.kind is not EntryKind.RECORD:
            raise _malformed(field, "stands under a seal and is no record")
        return entry


def _sealed_record(data: bytes, field: str) -> Entry | None:
    """A record under a seal, by a short way; None where the long way has to decide."""
    found = _SEALED_HEAD.match(data)
    if found is None or found.end() == len(data) or int(found[2]) > TIME_MAX:
        return None
    zone = Prefix.parse_canonical(found[1].decode("ascii"), field=f"{field}.zone")
    place = UnderSeal(bytes.fromhex(found[3].decode("ascii")), int(found[4]))
    return Entry(EntryKind.RECORD, zone, int(found[2]), data[found.end() :], place)


def _absent(lines: list[str], field: str) -> tuple[tuple[int, bytes], ...]:
    found: list[tuple[int, bytes]] = []
    for line in lines:
        parts = _ABSENT.match(line)
        if parts is not None:
            found.append((int(parts[1]), bytes.fromhex(parts[2])))
    if len(found) > ABSENT_MAX or any(one[0] >= other[0] for one, other in pairwise(found)):
        raise _malformed(field, f"names at most {ABSENT_MAX} absent records, in their order")
    return tuple(found)


def _by(lines: list[str], field: str) -> tuple[Signature, ...] | UnderSeal:
    sealed = _SEAL.match(lines[0]) if len(lines) == 1 else None
    if sealed is not None:
        return UnderSeal(bytes.fromhex(sealed[1]), int(sealed[2]))
    if not 0 < len(lines) <= SIGNATURES_MAX:
        raise _malformed(field, f"has a seal or 1 to {SIGNATURES_MAX} signatures")
    signatures = []
    for line in lines:
        parts = _SIGNATURE.match(line)
        if parts is None:
            raise _malformed(field, "has a line that is no signature")
        try:
            signatures.append(Signature(parts[1], parts[2], base64.b64decode(parts[3], validate=True)))
        except (binascii.Error, ValueError):
            raise _malformed(field, "has a signature that is not base64") from None
    return tuple(signatures)


def _malformed(field: str, rule: str) -> InputError:
    return InputError(Reason.ENTRY_MALFORMED, f"a log entry {rule}", field=field)

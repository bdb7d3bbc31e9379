"""Entries of the cache that resolvers share: keys, bytes, authentication, versions, times. Pure policy, no I/O.

The shared cache (Redis) is **untrusted**: it may be old, dead, full, or in somebody else's hands. So an entry is

    version   16 digits      what compare-and-set orders by, first
    tick      16 digits      wall clock, ms, at which its question left for the authority; orders equal versions
    kind      1 byte         :class:`EntryKind`
    expires   16 digits      wall clock, s, from which nobody may use it, whatever the store's own clock says
    mac       32 bytes       HMAC-SHA-256 over the domain, the key and everything else
    body                     a bundle's binary form, or the links of a chain

with numbers as decimal digits of one width, which the store's script compares as numbers (2**53 - 1 fits; its string
comparison follows the locale). Every byte is under the MAC: an entry that was changed, cut, or moved to another key is
not ours, which is a miss and never an error.

**What is believed.** An entry is written only by a resolver that has verified every signature of it, under a key which
the resolvers of one operator share, derived once more for the root keys that they pin. A reader checks the MAC (2 µs in
place of 157 µs a signature), and still checks that the chain hangs together, is in force, and lies below no floor.

**What a stolen key could do.** Whoever has the shared key *and* can write to the store can make these resolvers hand
out a record that nobody signed, or remember a version that does not exist (until they restart with another key). It
does not make the lie true: every answer to a client is a bundle with its signatures, and a client that verifies it
against the root key finds it bogus. Without the key, a writer to the store can delete (a miss), forge (a miss), and put
back an entry that was ours: that one is old by no more than its own ``expires``, and no reader that has seen a newer
version takes it.

**Versions.** A record's is its own; a chain's is the last delegation's; a denial of an identifier has 0, below every
record. What is said of a whole prefix (disabled, revoked) has no place in that order: it is written at the version
that it replaces, with its own tick, and a record takes its place again only with a later one. To delete is to write a
tombstone: nothing, at the version below which everything is dead, for longer than the slowest answer can be under way.
A failure proves nothing and is never shared.

Sources: Nishtala et al., NSDI 2013 (leases against stale sets), RFC 2104 (HMAC), RFC 9520 (failures).
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import Enum
from typing import Final

from idtrace.canonical import INTEGER_MAX
from idtrace.chain import CLOCK_SKEW_SECONDS, LINKS_MAX, Anchor
from idtrace.errors import InputError
from idtrace.identifier import Identifier, Prefix

# 256 bits: as strong as the MAC. A longer one is hashed down by HMAC itself.
SHARED_KEY_BYTES_MIN: Final = 32
# By how much the clocks of those who share a cache may differ unnoticed: they are one operator's and follow NTP, unlike
# the strangers whom CLOCK_SKEW_SECONDS is for. It is taken off every entry's time, so a larger one would make a
# resolver that has just begun to follow a zone refuse what the others have found out, for that long. With a clock that
# is further ahead a zone's change can be missed until the entry of the zone itself is read, which goes along with every
# answer; versions of records are compared whatever the clocks say.
SHARED_SKEW_MS: Final = 2_000
# A bundle is 2 to 8 KiB. One large value delays every reader of a single-threaded store.
VALUE_BYTES_MAX: Final = 65_536
# How long a version is remembered at least: twice the longest question that a configuration allows (30 s).
REMEMBERED_SECONDS: Final = 60

_DIGITS: Final = 16
_HEADER: Final = 3 * _DIGITS + 1
_MAC_BYTES: Final = 32
_DOMAIN: Final = b"idtrace/shared-cache/v2\0"


class EntryKind(Enum):
    """What an entry holds; the value is its byte."""

    RECORD = b"r"
    ABSENT = b"a"
    PREFIX = b"p"  # a denial or a revocation that speaks of a whole prefix
    CHAIN = b"c"
    TOMBSTONE = b"t"


_KINDS: Final = {kind.value: kind for kind in EntryKind}


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as read or to be written; ``tick_ms`` and ``expires`` (s) are wall clock."""

    kind: EntryKind
    version: int
    tick_ms: int
    expires: int
    body: bytes

    def kept_ms(self, now: int) -> int:
        """How long the store keeps it: for as long as it may be used, and its version for a while in any case."""
        return max(self.expires - now, REMEMBERED_SECONDS) * 1000


class Miss(Enum):
    """Why a value of the store is of no use."""

    NOTHING = "nothing"
    FORGED = "forged"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Keys:
    """Names of entries, all below one prefix of the store."""

    prefix: bytes = b"idt:"

    def answer(self, identifier: Identifier) -> bytes:
        """Where the answer to a question is."""
        return self.prefix + b"a:" + str(identifier).encode()

    def zone(self, zone: Prefix) -> bytes:
        """Where the chain down to a zone is."""
        return self.prefix + b"z:" + str(zone).encode()

    def is_zone(self, key: bytes) -> bool:
        """Whether a key of ours is a zone's."""
        return key.startswith(self.prefix + b"z:")

    def named(self, key: bytes) -> Identifier | Prefix | None:
        """What a key is about; None for one that we would not write."""
        kind, rest = key[len(self.prefix) : len(self.prefix) + 2], key[len(self.prefix) + 2 :]
        if not key.startswith(self.prefix):
            return None
        try:
            if kind == b"a:":
                return Identifier.parse_canonical(rest.decode(), field="key")
            return Prefix.parse_canonical(rest.decode(), field="key") if kind == b"z:" else None
        except (InputError, UnicodeDecodeError):
            return None


class Seal:
    """Writes entries that only holders of the shared key can write, and reads only such.

    Args:
        shared_key: at least 32 secret bytes, the same for all resolvers of one operator.
        anchor: the pinned root keys; resolvers that pin other ones believe other things.
    """

    __slots__ = ("_key",)

    def __init__(self, shared_key: bytes, anchor: Anchor) -> None:
        assert len(shared_key) >= SHARED_KEY_BYTES_MIN, "whoever reads the key's file checks its length"
        pinned = "\0".join([str(anchor.threshold), *sorted(anchor.keys)]).encode()
        self._key = hmac.digest(shared_key, _DOMAIN + pinned, hashlib.sha256)

    def seal(self, key: bytes, entry: Entry) -> bytes:
        """The value to store under ``key``."""
        head = b"%016d%016d%b%016d" % (entry.version, entry.tick_ms, entry.kind.value, entry.expires)
        assert len(head) == _HEADER, "versions and times are within 2**53 - 1"
        return head + self._mac(key, head, entry.body) + entry.body

    def open(self, key: bytes, value: bytes | None, *, now: int) -> Entry | Miss:
        """Read what is stored under ``key``, or say why it is of no use at ``now`` (wall clock, s)."""
        if value is None:
            return Miss.NOTHING
        head, mac, body = value[:_HEADER], value[_HEADER : _HEADER + _MAC_BYTES], value[_HEADER + _MAC_BYTES :]
        if not hmac.compare_digest(mac, self._mac(key, head, body)):
            return Miss.FORGED
        version, tick_ms = int(head[:_DIGITS]), int(head[_DIGITS : 2 * _DIGITS])
        kind, expires = _KINDS[head[2 * _DIGITS : 2 * _DIGITS + 1]], int(head[2 * _DIGITS + 1 :])
        # One that is dated ahead of us would pass for younger than it is.
        if now >= expires or tick_ms > (now + CLOCK_SKEW_SECONDS) * 1000:
            return Miss.EXPIRED
        return Entry(kind, version, tick_ms, expires, body)

    def _mac(self, key: bytes, head: bytes, body: bytes) -> bytes:
        return hmac.digest(self._key, b"%b%b%b%b%b" % (_DOMAIN, struct.pack(">I", len(key)), key, head, body), "sha256")


def version_claimed(value: bytes | None) -> int:
    """The version that stands in front of a value, authentic or not; 0 where there is none."""
    digits = value[:_DIGITS] if value else b""
    return int(digits) if len(digits) == _DIGITS and digits.isdigit() else 0


def identity(value: bytes) -> bytes:
    """What tells an entry from every other: its header and its MAC."""
    return value[: _HEADER + _MAC_BYTES]


def tombstone(version: int) -> Entry:
    """Nothing, and whatever is below ``version`` is dead."""
    return Entry(EntryKind.TOMBSTONE, version, 0, 0, b"")


def supersedes(entry: Entry, held: Entry) -> bool:
    """Whether an entry takes the place of another: the rule of :data:`COMPARE_AND_SET`, to hold the script against."""
    if entry.version != held.version:
        later = entry.version > held.version
        return later and (held.kind is not EntryKind.PREFIX or entry.tick_ms > held.tick_ms)
    return entry.tick_ms >= held.tick_ms


# KEYS[1]; ARGV: value, time to live in ms. Replies 0 where the value now stands, else 1 + the version that stands.
# What does not look like an entry is overwritten, but not what may not be looked at: there could be a newer one.
# A number beyond 2**53 would not compare exactly, so it is none.
COMPARE_AND_SET: Final = f"""
local function head(value)
  if #value < {_HEADER} then return nil end
  local version, tick = string.match(value, '^(%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d)(%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d)%a')
  version, tick = tonumber(version), tonumber(tick)
  if not version or version > {INTEGER_MAX} or not tick or tick > {INTEGER_MAX} then return nil end
  return version, tick, string.sub(value, {2 * _DIGITS + 1}, {2 * _DIGITS + 1})
end
local held = redis.pcall('GETRANGE', KEYS[1], 0, {_HEADER - 1})
if type(held) == 'table' and not string.find(held.err, 'WRONGTYPE', 1, true) then return held end
if type(held) == 'string' then
  local version, tick, kind = head(held)
  if version then
    local new_version, new_tick = head(ARGV[1])
    local newer = new_tick >= tick
    if new_version ~= version then
      newer = new_version > version and (kind ~= 'p' or new_tick > tick)
    end
    if not newer then return string.format('%.0f', version + 1) end
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return '0'
"""
# KEYS[1]; ARGV: the value that was found there and is not ours. A forged version would otherwise keep ours out.
REMOVE_IF_SAME: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


def framed(parts: Iterable[bytes]) -> bytes:
    """Parts as one body, each with its length before it."""
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def unframed(body: bytes) -> tuple[bytes, ...] | None:
    """The parts of a body; None where these are not 1 to 9 of them."""
    parts: list[bytes] = []
    at = 0
    while at < len(body) and len(parts) < LINKS_MAX:
        (size,) = struct.unpack_from(">I", body, at) if len(body) - at >= 4 else (len(body),)
        part = body[at + 4 : at + 4 + size]
        if len(part) != size:
            return None
        parts.append(part)
        at += 4 + size
    return tuple(parts) if parts and at == len(body) else None


class Breaker:
    """Keeps hands off a store that fails: after some failures in a row it is left alone, then tried once (half-open).

    Told the time (monotonic, ms) with each call.
    """

    def __init__(self, *, failures_max: int = 3, open_ms: int = 1_000) -> None:
        # Three: one lost connection is an ordinary restart. One second: what a recall may wait for in any case.
        self._failures_max = failures_max
        self._open_ms = open_ms
        self._in_a_row = 0
        self._until_ms = 0

    def wait_ms(self, now_ms: int) -> int:
        """How long to leave the store alone yet; 0 where it may be tried."""
        return max(0, self._until_ms - now_ms)

    def failed(self, now_ms: int) -> None:
        """One more in a row; while half-open, one is enough."""
        self._in_a_row += 1
        if self._in_a_row >= self._failures_max:
            self._until_ms = now_ms + self._open_ms

    def succeeded(self) -> None:
        """The store does what it is for."""
        self._in_a_row = 0


@dataclass(slots=True)
class SharedCounters:
    """What has happened so far; read by the metrics page."""

    hits: int = 0
    misses: int = 0
    forged: int = 0
    expired: int = 0
    outdated: int = 0  # authentic, yet below a floor, or the chain is not in force any more
    written: int = 0
    superseded: int = 0  # not written: the store has a newer one
    refused: int = 0  # not written: the store says no (it is full, or a replica)
    dropped: int = 0  # not written: the store is away, or too many are waiting
    trips: int = 0
    failures: int = 0
    invalidated: int = 0
    lost: int = 0  # times that invalidation was lost, and what came from the store with it

    def items(self) -> tuple[tuple[str, int], ...]:
        """Name and count of each."""
        return tuple((f.name, getattr(self, f.name)) for f in fields(self))

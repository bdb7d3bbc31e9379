"""What goes into a referral walk and what comes out of it: limits, effects, events.

The walk (``resolver/walk.py``) emits one effect at a time and is told its outcome as one event. Two clocks, always by
name: ``now`` is the wall clock in whole seconds and decides about signed times; ``now_ms`` is monotonic and decides
about budgets and ages.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from idtrace.bundle import NodeAnswer
from idtrace.chain import CHECKS_MAX, TrustedChain, VerifiedRecord
from idtrace.delegation import Delegation, Role
from idtrace.errors import Reason
from idtrace.identifier import LABELS_MAX, Identifier, Prefix
from resolver.resolution import Resolution


@dataclass(frozen=True, slots=True)
class Floor:
    """Highest verified version, its hash, and whose keys signed it; ``zone`` None is the pinned root."""

    version: int
    content: bytes
    zone: Prefix | None
    signers: frozenset[str]

    @property
    def known(self) -> tuple[int, bytes]:
        """Version and hash, as :class:`idtrace.chain.Floors` says them."""
        return self.version, self.content

    def is_void(self, delegation: Delegation, role: Role) -> bool:
        """Whether a later version of its zone's delegation names none of the keys that signed it.

        What they signed proves nothing any more: a stolen key could otherwise sign version 2**53 - 1 and lock the true
        owner out for ever (the fast-forward attack of TUF §5.3.11).
        """
        return self.zone == delegation.child and self.signers.isdisjoint(delegation.keys_for(role))


class Memory(Protocol):
    """What was verified before a question, and by whose keys it was signed."""

    def zone_floor(self, zone: Prefix) -> Floor | None:
        """Of a zone's delegation."""
        ...

    def record_floor(self, identifier: Identifier) -> Floor | None:
        """Of an identifier's record."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What one question may cost, and how long its answer may be kept. One object a node; a walk never resets any."""

    # The tree in use is three deep; eight is the grammar's own limit, and a lower one here is a stricter policy.
    depth: int = LABELS_MAX
    # A cold walk of depth 8 with one dead endpoint a level and one restart needs 27; Knot and Unbound allow 100 to 200.
    upstream_calls: int = 32
    # A person with a scanner in the hand scans again after three seconds.
    question_ms: int = 3_000
    # A third of the question, so that one silent endpoint leaves time for its sibling and for the rest of the way.
    call_ms: int = 1_000
    # KeyTrap (CVE-2023-50387): verification is what a small answer can make expensive.
    signature_checks: int = CHECKS_MAX
    # NXNSAttack (CVE-2020-8616): of the four endpoints that a referral may name, two are tried.
    endpoints_tried: int = 2
    # Without a word from the registry this is how long a recall waits at worst; records may ask for less.
    answer_seconds: int = 300
    # How long a verified delegation is used without asking its parent again: what a revocation waits at worst.
    chain_seconds: int = 300
    # Where nobody tells of changes (no node that can, or not at the moment): what a recall waits then. A node restarts
    # in less, and every thing that is asked for is asked for again this often.
    unfollowed_seconds: int = 5
    # A failure under a cached chain younger than this is no rotation: a liar or a dead zone that is asked for random
    # names would otherwise send every question back to the root.
    restart_age_ms: int = 1_000


@dataclass(frozen=True, slots=True)
class Learned:
    """A verified chain and when (monotonic, ms) the first of its links was heard from its parent.

    Attributes:
        chain: the links, each verified.
        since_ms: when the question left whose answer held the oldest of them.
        links_ms: the same for each link; empty where all are as old as the oldest.
    """

    chain: TrustedChain
    since_ms: int
    links_ms: tuple[int, ...] = ()

    @property
    def asked_ms(self) -> tuple[int, ...]:
        """When each link was asked for, root first."""
        return self.links_ms or (self.since_ms,) * len(self.chain.links)


@dataclass(frozen=True, slots=True)
class ReadCache:
    """Effect: look for an answer to the identifier and for the deepest verified chain of these zones, deepest first."""

    identifier: Identifier
    zones: tuple[Prefix, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """Effect: ask the node at ``endpoint``; ``zone_known`` is the deepest zone verified so far, None for none yet."""

    endpoint: str
    zone_known: Prefix | None
    identifier: Identifier
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class Done:
    """Effect: the question is answered; remember what was verified on the way, whatever the verdict.

    Attributes:
        resolution: the answer.
        learned: every chain that was extended, the shortest first.
        record: the record that was verified.
        reached: the chain that a proven answer of this walk rests on.
        asked_ms: when the question left that this chain's last zone has answered (monotonic).
    """

    resolution: Resolution
    learned: tuple[Learned, ...] = ()
    record: VerifiedRecord | None = None
    reached: Learned | None = None
    asked_ms: int = 0


Effect = ReadCache | Ask | Done


class FailureKind(StrEnum):
    """Why a node gave no answer."""

    UNAVAILABLE = "unavailable"  # no connection, or it broke
    TIMEOUT = "timeout"
    BUSY = "busy"  # the node is at one of its limits
    REFUSED = "refused"  # the node says, unsigned, that it does not answer for this


@dataclass(frozen=True, slots=True)
class CacheRead:
    """Event: what the cache had."""

    answer: Resolution | None
    chain: Learned | None


@dataclass(frozen=True, slots=True)
class Answered:
    """Event: the node answered; nothing of it is believed yet."""

    answer: NodeAnswer


@dataclass(frozen=True, slots=True)
class Malformed:
    """Event: the node answered with something that is no answer."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Event: the node did not answer."""

    kind: FailureKind
    detail: str


Reply = Answered | Malformed | Failed
Event = CacheRead | Reply

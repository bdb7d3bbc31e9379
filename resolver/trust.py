"""What this resolver has verified and remembers: chains to start from, and floors that no older truth may undercut.

Only verified things get in: :class:`TrustedChain` objects (which exist only verified) and :class:`VerifiedRecord`
objects, through :meth:`TrustStore.accept` and :meth:`TrustStore.learn`, whether this resolver has verified them or one
that it shares a cache with. Everything is bounded and evicted least recently used first; what an
eviction costs stands beside each bound. All is lost with the process: a restarted resolver believes the first signed
version that it meets.

A floor is the highest version of a zone's delegation or of a record that was verified, with its hash and its signers:
a stolen key could sign version 2**53 - 1 and lock the true owner out for ever (the fast-forward attack of TUF §5.3.11).
So once a zone's new delegation names none of the keys that signed a floor, the floor is void: what those keys signed
proves nothing any more, and cannot be replayed either.

A cached chain is used for ``chain_seconds`` after its oldest link was heard from that link's parent, and only while the
nodes above it would tell of a change, or shortly after (``resolver/following.py``). A chain learned
on top of a cached one inherits that age, so a child that is asked again and again never prolongs its own delegation
(ghost domains: Jiang et al. 2012, Unbound CVE-2026-40622).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from idtrace.bundle import Verdict
from idtrace.chain import Link, TrustedChain, VerifiedRecord
from idtrace.delegation import Role, State
from idtrace.errors import Reason, VerificationError
from idtrace.identifier import Identifier, Prefix
from idtrace.signature import Kind, Signed, signed_hash
from resolver.below import Below
from resolver.effects import Done, Floor, Learned
from resolver.following import Following

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class TrustLimits:
    """Bounds of a :class:`TrustStore`."""

    # One chain is 2 to 5 KiB with its parsed keys; 10,000 enterprises under one top-level node are 50 MiB at worst. An
    # evicted chain costs one more call on the next walk.
    chains: int = 16_384
    # Half a KiB each. An evicted floor lets an old delegation pass once more, if it is still in force and still signed
    # by the parent's keys. To evict them all somebody has to sign as many delegations of his own.
    zones: int = 65_536
    # Records at version 1 are nearly all of them, and a floor at 1 only tells a fork, since nothing is lower than 1.
    # They have their own bound so that a day of ordinary scans evicts no floor that guards against a rollback.
    first_versions: int = 32_768
    # An evicted one lets a superseded version (a recall undone) pass once more if it is replayed.
    later_versions: int = 131_072


@dataclass(frozen=True, slots=True)
class Accepted:
    """What :meth:`TrustStore.accept` did.

    Attributes:
        latest: whether the resolution is still the latest word; False where a concurrent walk learned a newer one.
        changed: zones whose delegation has a new version: older answers below them are out of date.
    """

    latest: bool
    changed: tuple[Prefix, ...]


class Floored(Generic[K]):
    """Floors by key, the least recently used one evicted first; also found by whose keys signed them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._floors: OrderedDict[K, Floor] = OrderedDict()
        self._by_signer: dict[Prefix | None, dict[K, None]] = {}

    def get(self, key: K) -> Floor | None:
        """The floor, as it stands."""
        return self._floors.get(key)

    def read(self, key: K) -> Floor | None:
        """The floor; asking keeps it from being evicted."""
        floor = self._floors.get(key)
        if floor is not None:
            self._floors.move_to_end(key)
        return floor

    def write(self, key: K, floor: Floor) -> None:
        """Set a floor, and evict the one that was longest unused where there are too many."""
        self.drop(key)
        self._floors[key] = floor
        self._by_signer.setdefault(floor.zone, {})[key] = None
        if len(self._floors) > self._most:
            self.drop(next(iter(self._floors)))

    def drop(self, key: K) -> None:
        """Forget a floor, if there is one."""
        floor = self._floors.pop(key, None)
        if floor is not None:
            signed = self._by_signer[floor.zone]
            del signed[key]
            if not signed:
                del self._by_signer[floor.zone]

    def void(self, zone: Prefix, keys: frozenset[str]) -> None:
        """Drop what the zone has signed by none of these keys; looks at that zone's floors alone."""
        for key in list(self._by_signer.get(zone, ())):
            if self._floors[key].signers.isdisjoint(keys):
                self.drop(key)


class TrustStore:
    """Verified chains by zone, and floors by zone and by identifier (:class:`idtrace.chain.Floors`)."""

    def __init__(
        self, *, chain_seconds: int, limits: TrustLimits | None = None, following: Following | None = None
    ) -> None:
        self._chain_ms = chain_seconds * 1000
        self._following = Following() if following is None else following
        self._limits = limits or TrustLimits()
        self._chains: OrderedDict[Prefix, Learned] = OrderedDict()
        self._below: Below[Prefix] = Below()  # the zones of the chains
        self._zones: Floored[Prefix] = Floored(self._limits.zones)
        self._firsts: Floored[Identifier] = Floored(self._limits.first_versions)
        self._laters: Floored[Identifier] = Floored(self._limits.later_versions)

    def __len__(self) -> int:
        """Number of cached chains."""
        return len(self._chains)

    # idtrace.chain.Floors

    def zone(self, zone: Prefix) -> tuple[int, bytes] | None:
        """Highest verified version of a zone's delegation, and its hash."""
        floor = self.zone_floor(zone)
        return floor.known if floor else None

    def record(self, identifier: Identifier) -> tuple[int, bytes] | None:
        """Highest verified version of an identifier's record, and its hash."""
        floor = self.record_floor(identifier)
        return floor.known if floor else None

    # resolver.effects.Memory

    def zone_floor(self, zone: Prefix) -> Floor | None:
        """The floor of a zone's delegation."""
        return self._zones.read(zone)

    def record_floor(self, identifier: Identifier) -> Floor | None:
        """The floor of an identifier's record."""
        return self._laters.read(identifier) or self._firsts.read(identifier)

    # Chains

    def deepest(self, zones: Iterable[Prefix], *, now: int, now_ms: int) -> Learned | None:
        """The chain of the first of these zones that has a usable one: young enough, and in force at ``now``."""
        found: Learned | None = None
        for zone in zones:
            learned = self._chains.get(zone)
            if learned is None:
                continue
            # Touched from the deepest up, so that a parent, which serves more questions, is evicted after its child.
            self._chains.move_to_end(zone)
            if found is None and self._usable(learned, now, now_ms):
                found = learned
        return found

    def _usable(self, learned: Learned, now: int, now_ms: int) -> bool:
        try:
            learned.chain.in_force(now)
        except VerificationError:
            usable = False
        else:
            usable = now_ms - learned.since_ms < self._chain_ms
        if not usable:
            self._drop_chain(learned.chain.zone)
            return False
        # One that is not followed now stays: it is as good as before where its watches are resumed.
        basis = self._following.basis(learned, now_ms=now_ms)
        return basis.left_ms(basis.unfollowed_ms(now_ms)) > 0

    def held(self, zone: Prefix) -> Learned | None:
        """The chain that was kept last for this zone, usable or not."""
        return self._chains.get(zone)

    def forget(self, zone: Prefix) -> int:
        """Drop the chains to a zone and to all below it, to be asked for again; floors stay. Returns how many."""
        chains = self._below.of(zone)
        for below in chains:
            self._drop_chain(below)
        return len(chains)

    def accept(self, done: Done) -> Accepted:
        """Remember all that a walk has verified, whatever its verdict was."""
        changed: dict[Prefix, None] = {}
        for learned in done.learned:
            changed.update(dict.fromkeys(self.learn(learned)))
        resolution = done.resolution
        if done.record is not None and resolution.chain is not None:
            if self._is_outdated(resolution.chain):
                return Accepted(latest=False, changed=tuple(changed))
            return Accepted(self._remember_record(done.record, resolution.chain.zone), tuple(changed))
        denied = resolution.verdict is Verdict.ABSENT and resolution.reason is Reason.IDENTIFIER_ABSENT
        # A denial that set out before the registration and arrives after it is old news.
        return Accepted(not (denied and self.record(resolution.identifier)), tuple(changed))

    def learn(self, learned: Learned, *, floors_only: bool = False) -> list[Prefix]:
        """Raise the floors of all links and keep the chain; nothing happens where a newer link is known.

        With ``floors_only`` the chain is not kept to start a walk from. Returns zones whose delegation has a new
        version: older answers below them are out of date.
        """
        links = learned.chain.links
        floors = [_zone_floor(links, position) for position in range(len(links))]
        for link, floor in zip(links, floors, strict=True):
            held = self._zones.get(link.delegation.child)
            if held and held.version >= floor.version and held.content != floor.content:
                return []  # of two contents of one version the first one seen stays
        changed = []
        for link, floor in zip(links, floors, strict=True):
            zone = link.delegation.child
            held = self._zones.get(zone)
            if held is not None and held.version < floor.version:
                changed.append(zone)
                self._supersede(link)
            elif held is None:
                self._void(link)  # the floor may be the one that a new version of its parent has just made void
            self._zones.write(zone, floor)
        if not (floors_only or learned.chain.is_revoked or self._following.announced.doubts_chain(learned)):
            held_chain = self._chains.get(learned.chain.zone)
            if held_chain is None or held_chain.since_ms <= learned.since_ms:
                self._keep_chain(learned)
        return changed

    def _keep_chain(self, learned: Learned) -> None:
        zone = learned.chain.zone
        self._chains[zone] = learned
        self._chains.move_to_end(zone)
        self._below.add(zone, zone)
        if len(self._chains) > self._limits.chains:
            self._drop_chain(next(iter(self._chains)))

    def _drop_chain(self, zone: Prefix) -> None:
        del self._chains[zone]
        self._below.discard(zone, zone)

    def _supersede(self, link: Link) -> None:
        """Drop the chains through the zone's older delegation, and the floors that rest on keys it no longer has."""
        zone = link.delegation.child
        for below in self._below.of(zone):
            self._drop_chain(below)
        self._void(link)

    def _void(self, link: Link) -> None:
        zone = link.delegation.child
        if link.delegation.state is State.REVOKED:
            return  # it names no keys; which ones it ended is told by the delegation that may follow it
        self._zones.void(zone, frozenset(link.delegation.keys_for(Role.ZONE)))
        self._firsts.void(zone, frozenset(link.delegation.keys_for(Role.RECORD)))
        self._laters.void(zone, frozenset(link.delegation.keys_for(Role.RECORD)))

    def _is_outdated(self, chain: TrustedChain) -> bool:
        """Whether a newer version of a link is known: the record may be a thief's, and sets no floor."""
        floors = ((link.delegation.version, self._zones.get(link.delegation.child)) for link in chain.links)
        return any(floor is not None and version < floor.version for version, floor in floors)

    def _remember_record(self, verified: VerifiedRecord, zone: Prefix) -> bool:
        identifier, version = verified.body.identifier, verified.body.version
        held = self.record(identifier)
        if held is not None and held[0] > version:
            return False
        floor = Floor(version, verified.record.hash, zone, _signers(verified.record.signed))
        if version == 1:
            self._firsts.write(identifier, floor)
        else:
            self._firsts.drop(identifier)
            self._laters.write(identifier, floor)
        return True


def _zone_floor(links: tuple[Link, ...], position: int) -> Floor:
    link = links[position]
    by = links[position - 1].delegation.child if position else None
    content = signed_hash(Kind.DELEGATION, link.signed.payload)
    return Floor(link.delegation.version, content, by, _signers(link.signed))


def _signers(signed: Signed) -> frozenset[str]:
    return frozenset(signature.key_id for signature in signed.signatures)

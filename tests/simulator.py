"""A whole signed tree of nodes in memory: honest by default, and wrong in whichever way a test asks for.

    tree = Tree(now=NOW)                                    # has the root zone, served by node "root"
    tree.zone("88", node="top")                             # delegated by the nearest zone above
    tree.zone("88.118", node=("second-a", "second-b"))      # a zone on two nodes
    tree.zone("88.118.8", node="ent")
    tree.zone("88.118.9", hosted=True)                      # served by its parent's nodes
    tree.register("88.118.8/SN-1", values={"name": "vial"}, restricted={"price": "12"})
    tree.bundle("88.118.8/SN-1")                            # the proof, as an honest resolver would save it
    tree.answer("ent", Identifier.parse("88.118.8/SN-1"), Prefix.parse("88.118.8"))      # one node's honest answer
    tree.fault("ent", dead)                                 # or slow(…), garbage, tampering(…)
    tree.ask(Ask(…))                                        # what comes back over the simulated network

Every key comes from a fixed seed (``signer("name")``), so a tree is the same bytes in each run. Time stands still but
for what an ask takes and for :meth:`Tree.pass_time`. :class:`Client` drives the resolver's walk without an event loop;
:class:`TreeUpstream` serves the same tree to the driver.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from idtrace.bundle import Bundle, Denied, NodeAnswer, Referred, Revoked
from idtrace.chain import Anchor
from idtrace.delegation import Delegation, Role, State, ZoneKey
from idtrace.errors import Reason
from idtrace.identifier import ROOT, Identifier, Prefix
from idtrace.record import Permission, Record, RecordBody, RecordKind, Status, build_values
from idtrace.signature import Kind, MemorySigner, Signed, sign, signed_hash
from idtrace.statements import Denial, DenialReason
from resolver.cache import AnswerCache
from resolver.effects import (
    Answered,
    Ask,
    CacheRead,
    Done,
    Event,
    Failed,
    FailureKind,
    Limits,
    Malformed,
    ReadCache,
    Reply,
)
from resolver.resolution import Resolution
from resolver.trust import TrustStore
from resolver.walk import Walk
from tests.core_fixtures import USUAL

NOW = 1_800_000_000
DAY = 86_400
PORT = 7000


@lru_cache(maxsize=512)
def signer(seed: str) -> MemorySigner:
    """A key from a name: the same name is the same key."""
    return MemorySigner(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed.encode()).digest()))


def prefix_of(zone: Prefix | str) -> Prefix:
    return zone if isinstance(zone, Prefix) else Prefix.parse(zone)


def identifier_of(identifier: Identifier | str) -> Identifier:
    return identifier if isinstance(identifier, Identifier) else Identifier.parse(identifier)


@dataclass
class Zone:
    """One zone: its keys now, every version of its delegation (the last one is in force), and its records."""

    prefix: Prefix
    parent: Zone | None
    nodes: tuple[str, ...]
    hosted: bool
    generation: int = 1
    disabled: bool = False
    delegations: list[Signed] = field(default_factory=list)
    bodies: list[Delegation] = field(default_factory=list)
    records: dict[Identifier, list[Record]] = field(default_factory=dict)

    def key(self, role: Role) -> MemorySigner:
        """Signer of the current generation for a role."""
        return signer(f"{self.prefix}|{role}|{self.generation}")

    @property
    def revoked(self) -> bool:
        return self.bodies[-1].state is State.REVOKED

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(f"{node}:{PORT}" for node in self.nodes)

    def path(self) -> tuple[Zone, ...]:
        """The root first, this zone last."""
        return (*self.parent.path(), self) if self.parent else (self,)


Fault = Callable[["Tree", Ask], Reply]


class Tree:
    """Zones, nodes and the clock they share."""

    def __init__(self, now: int = NOW) -> None:
        self.now = now
        self.now_ms = 1_000_000
        self.latency_ms = 10
        self.zones: dict[Prefix, Zone] = {}
        self.faults: dict[str, Fault] = {}
        self.asked: list[Ask] = []
        self.root_key = signer("pinned root key")
        self.anchor = Anchor.of(self.root_key.public_key)
        self.root_endpoints: tuple[str, ...] = (f"root:{PORT}",)
        self.zone(ROOT, node="root")

    # Building

    def zone(
        self,
        prefix: Prefix | str,
        *,
        node: str | tuple[str, ...] = (),
        hosted: bool = False,
        lifetime: int = 365 * DAY,
        not_before: int | None = None,
        endpoints: tuple[str, ...] = (),
    ) -> Zone:
        """Delegate a zone from the nearest zone above it; a hosted one is served by its parent's nodes."""
        prefix = prefix_of(prefix)
        parent = self.covering(Prefix(prefix.labels[:-1])) if prefix.labels else None
        nodes = (node,) if isinstance(node, str) else node
        if hosted and parent:
            nodes = parent.nodes
        zone = Zone(prefix, parent, nodes or (f"node-{prefix}",), hosted)
        self.zones[prefix] = zone
        self.delegate(zone, lifetime=lifetime, not_before=not_before, endpoints=endpoints or zone.endpoints)
        return zone

    def delegation(self, zone: Zone, *, lifetime: int = 365 * DAY, not_before: int | None = None) -> Delegation:
        """The next version of a zone's delegation body, unsigned; change it with ``dataclasses.replace``."""
        keys = tuple(ZoneKey(zone.key(role).public_key, frozenset({role})) for role in USUAL)
        start = self.now - DAY if not_before is None else not_before
        return Delegation(
            child=zone.prefix,
            parent=zone.parent.prefix if zone.parent else ROOT,
            version=len(zone.bodies) + 1,
            previous=zone.bodies[-1].hash if zone.bodies else b"",
            state=State.ACTIVE,
            hosted=zone.hosted,
            keys=keys,
            zone_threshold=1,
            endpoints=zone.endpoints,
            issued_at=self.now,
            not_before=start,
            expires=self.now + lifetime,
        )

    def sign_delegation(self, zone: Zone, body: Delegation) -> Signed:
        """Sign a body as the zone's parent does (the root's own: as the pinned key does)."""
        by = zone.parent.key(Role.ZONE) if zone.parent else self.root_key
        return sign(Kind.DELEGATION, body.payload(), by)

    def install(self, zone: Zone, body: Delegation) -> Signed:
        """Sign a body and hand it out from now on."""
        signed = self.sign_delegation(zone, body)
        zone.bodies.append(body)
        zone.delegations.append(signed)
        return signed

    def delegate(
        self,
        zone: Zone,
        *,
        lifetime: int = 365 * DAY,
        not_before: int | None = None,
        endpoints: tuple[str, ...] = (),
    ) -> Signed:
        """A new version with the zone's current keys and endpoints."""
        body = self.delegation(zone, lifetime=lifetime, not_before=not_before)
        return self.install(zone, replace(body, endpoints=endpoints or zone.endpoints))

    def rotate(self, prefix: Prefix | str) -> Signed:
        """New keys for a zone; its records and the delegations of its children are signed again."""
        zone = self.zones[prefix_of(prefix)]
        zone.generation += 1
        signed = self.delegate(zone)
        for child in self.zones.values():
            if child.parent is zone:
                child.delegations[-1] = self.sign_delegation(child, child.bodies[-1])
        by = zone.key(Role.RECORD)
        for versions in zone.records.values():
            versions[-1] = replace(versions[-1], signed=sign(Kind.RECORD, versions[-1].signed.payload, by))
        return signed

    def revoke(self, prefix: Prefix | str) -> Signed:
        """Take a zone back."""
        zone = self.zones[prefix_of(prefix)]
        return self.install(zone, replace(self.delegation(zone), state=State.REVOKED, keys=(), endpoints=()))

    def disable(self, prefix: Prefix | str, *, disabled: bool = True) -> None:
        """The parent's administrator disables (or enables) a prefix."""
        self.zones[prefix_of(prefix)].disabled = disabled

    def register(
        self,
        identifier: Identifier | str,
        values: Mapping[str, str] | None = None,
        *,
        restricted: Mapping[str, str] | None = None,
        status: Status = Status.ACTIVE,
        kind: RecordKind = RecordKind.ITEM,
        ttl_seconds: int = 300,
        class_id: Identifier | None = None,
    ) -> Record:
        """The next version of an identifier (the first one registers it)."""
        identifier = identifier_of(identifier)
        zone = self.covering(identifier.prefix)
        versions = zone.records.setdefault(identifier, [])
        entries = [(t, d.encode(), Permission.PUBLIC) for t, d in (values or {}).items()]
        entries += [(t, d.encode(), Permission.RESTRICTED) for t, d in (restricted or {}).items()]
        seed = f"{identifier}|{len(versions)}|"
        salts = [hashlib.sha256(f"{seed}{n}".encode()).digest()[:16] for n in range(len(entries))]
        digests, clear = build_values(entries, salts)
        body = RecordBody(
            identifier=identifier,
            version=len(versions) + 1,
            previous=versions[-1].hash if versions else b"",
            kind=kind,
            status=status,
            issued_at=self.now,
            ttl_seconds=ttl_seconds,
            class_id=class_id,
            values=digests,
        )
        record = Record(sign(Kind.RECORD, body.payload(), zone.key(Role.RECORD)), clear)
        versions.append(record)
        return record

    def retire(self, identifier: Identifier | str) -> Record:
        """End an identifier with a tombstone."""
        return self.register(identifier, status=Status.RETIRED, kind=RecordKind.TOMBSTONE)

    def pass_time(self, *, seconds: int = 0, ms: int = 0) -> None:
        """Let both clocks run."""
        total = self.now_ms + seconds * 1000 + ms
        self.now += (total // 1000) - (self.now_ms // 1000)
        self.now_ms = total

    # What honest nodes say

    def covering(self, prefix: Prefix) -> Zone:
        """Deepest zone that covers a prefix."""
        return next(self.zones[above] for above in reversed(prefix.lineage()) if above in self.zones)

    def chain(self, zone: Zone | Prefix | str) -> tuple[Signed, ...]:
        """Delegations in force from the root down to a zone."""
        found = zone if isinstance(zone, Zone) else self.zones[prefix_of(zone)]
        return tuple(above.delegations[-1] for above in found.path())

    def deny(
        self,
        identifier: Identifier | str,
        zone: Zone | None = None,
        *,
        reason: DenialReason = DenialReason.IDENTIFIER_ABSENT,
        seconds: int = 60,
    ) -> Denied:
        """A denial by a zone's node key (default: by the deepest zone that covers the identifier)."""
        identifier = identifier_of(identifier)
        zone = zone or self.covering(identifier.prefix)
        body = Denial(identifier, zone.prefix, reason, self.now, self.now + seconds)
        return Denied(sign(Kind.DENIAL, body.payload(), zone.key(Role.NODE)))

    def outcome(self, identifier: Identifier, node: str | None) -> tuple[Zone, Record | Denied | Referred]:
        """The deciding zone and what it says; ``node`` None goes all the way down, else as far as that node serves."""
        path = self.covering(identifier.prefix).path()
        start = 0
        if node is not None:
            start = max((n for n, zone in enumerate(path) if node in zone.nodes), default=0)
        for zone in path:
            position = path.index(zone)
            if zone.parent and zone.disabled:
                return zone.parent, self.deny(identifier, zone.parent, reason=DenialReason.PREFIX_DISABLED)
            if zone.revoked or (node is not None and position > start):
                return zone, Referred(zone.prefix)
        zone = path[-1]
        versions = zone.records.get(identifier)
        return zone, versions[-1] if versions else self.deny(identifier, zone)

    def answer(self, node: str, identifier: Identifier | str, known: Prefix | None) -> NodeAnswer:
        """What an honest node answers."""
        zone, outcome = self.outcome(identifier_of(identifier), node)
        # Below what the asker knows; all of them where a zone above that decides.
        held = known if known is not None and zone.prefix.within(known) else None
        links = [z.delegations[-1] for z in zone.path() if held is None or z.prefix.strictly_within(held)]
        return NodeAnswer(tuple(links), outcome)

    def bundle(self, identifier: Identifier | str) -> Bundle:
        """The whole proof of what is true of an identifier."""
        identifier = identifier_of(identifier)
        zone, outcome = self.outcome(identifier, None)
        proven = Revoked(outcome.zone) if isinstance(outcome, Referred) else outcome
        return Bundle(identifier, self.chain(zone), proven)

    # The network

    def fault(self, node: str, fault: Fault | None) -> None:
        """Make a node wrong, or honest again with None."""
        self.faults.pop(node, None)
        if fault is not None:
            self.faults[node] = fault

    def honest(self, ask: Ask) -> Answered:
        """What the node at an endpoint would honestly say."""
        node = ask.endpoint.rpartition(":")[0]
        return Answered(self.answer(node, ask.identifier, ask.zone_known))

    def ask(self, ask: Ask) -> Reply:
        """Ask over the network: takes time, and may fail or lie."""
        self.asked.append(ask)
        node = ask.endpoint.rpartition(":")[0]
        self.pass_time(ms=self.latency_ms)
        fault = self.faults.get(node)
        if fault is not None:
            return fault(self, ask)
        if not any(node in zone.nodes for zone in self.zones.values()):
            return Failed(FailureKind.UNAVAILABLE, f"nobody listens at {ask.endpoint}")
        return self.honest(ask)


# Faults


def dead(tree: Tree, ask: Ask) -> Reply:
    """Nobody listens."""
    return Failed(FailureKind.UNAVAILABLE, f"nobody listens at {ask.endpoint}")


def refusing(tree: Tree, ask: Ask) -> Reply:
    """The node says, unsigned, that this is not its business."""
    return Failed(FailureKind.REFUSED, "NOT_AUTHORITATIVE")


def garbage(tree: Tree, ask: Ask) -> Reply:
    """The node sends bytes that are no answer."""
    return Malformed(Reason.ANSWER_MALFORMED, "these are not the bytes of an answer")


def ghost(tree: Tree, ask: Ask) -> Reply:
    """The node goes on answering for its zone, whatever the zone's parent has done with it."""
    assert ask.zone_known is not None
    zone = tree.zones[ask.zone_known]
    versions = zone.records.get(ask.identifier)
    return Answered(NodeAnswer((), versions[-1] if versions else tree.deny(ask.identifier, zone)))


def slow(delay_ms: int) -> Fault:
    """The node takes its time; beyond the ask's time-out nothing arrives."""

    def fault(tree: Tree, ask: Ask) -> Reply:
        tree.pass_time(ms=min(delay_ms, ask.timeout_ms))
        if delay_ms >= ask.timeout_ms:
            return Failed(FailureKind.TIMEOUT, f"no answer within {ask.timeout_ms} ms")
        return tree.honest(ask)

    return fault


def tampering(change: Callable[[Tree, Ask, NodeAnswer], NodeAnswer]) -> Fault:
    """The node, or somebody between, changes the honest answer."""
    return lambda tree, ask: Answered(change(tree, ask, tree.honest(ask).answer))


def replaying(answer: NodeAnswer) -> Fault:
    """The node says the same thing for ever."""
    return lambda tree, ask: Answered(answer)


def once(fault: Fault) -> Fault:
    """Wrong the first time, honest after that."""
    left = [fault]
    return lambda tree, ask: left.pop()(tree, ask) if left else tree.honest(ask)


# Forging


def resigned_delegation(tree: Tree, zone: Zone, by: MemorySigner, **changes: object) -> Signed:
    """The zone's delegation in force, changed and signed by any key."""
    return sign(Kind.DELEGATION, replace(zone.bodies[-1], **changes).payload(), by)  # type: ignore[arg-type]  # any field


def resigned_record(record: Record, by: MemorySigner, **changes: object) -> Record:
    """A record, changed and signed by any key."""
    body = replace(RecordBody.parse(record.signed.payload), **changes)  # type: ignore[arg-type]  # any field
    return Record(sign(Kind.RECORD, body.payload(), by), record.values)


def resigned_denial(denied: Denied, by: MemorySigner, **changes: object) -> Denied:
    """A denial, changed and signed by any key."""
    body = replace(Denial.parse(denied.signed.payload), **changes)  # type: ignore[arg-type]  # any field
    return Denied(sign(Kind.DENIAL, body.payload(), by))


def mangled(signed: Signed) -> Signed:
    """One bit of the first signature flipped."""
    first = signed.signatures[0]
    wrong = bytes([*first.signature[:-1], first.signature[-1] ^ 1])
    return replace(signed, signatures=(replace(first, signature=wrong), *signed.signatures[1:]))


def delegation_hash(signed: Signed) -> bytes:
    return signed_hash(Kind.DELEGATION, signed.payload)


class Client:
    """A resolver without an event loop: the real walk, trust store and cache over the simulated network."""

    def __init__(
        self,
        tree: Tree,
        *,
        limits: Limits | None = None,
        trust: TrustStore | None = None,
        cache: AnswerCache | None = None,
    ) -> None:
        self.tree = tree
        self.limits = limits or Limits()
        self.trust = TrustStore(chain_seconds=self.limits.chain_seconds) if trust is None else trust
        self.cache = AnswerCache() if cache is None else cache
        self.from_cache = False

    def resolve(self, identifier: Identifier | str, *, fresh: bool = False) -> Resolution:
        """As the driver does: the cache, else a walk, whose findings are kept."""
        tree, identifier = self.tree, identifier_of(identifier)
        hit = self.cache.get(identifier, now=tree.now, now_ms=tree.now_ms, fresh=fresh)
        self.from_cache = hit is not None
        if hit is not None:
            return replace(hit.resolution, upstream_calls=0, visited=())
        done = self.walk(identifier)
        accepted = self.trust.accept(done)
        for zone in accepted.changed:
            self.cache.purge(zone)
        if accepted.latest:
            self.cache.put(done.resolution, now_ms=tree.now_ms)
        return done.resolution

    def walk(self, identifier: Identifier | str) -> Done:
        """One walk from what is trusted now; keeps nothing."""
        tree, identifier = self.tree, identifier_of(identifier)
        walk = Walk(
            identifier,
            anchor=tree.anchor,
            root_endpoints=tree.root_endpoints,
            floors=self.trust,
            limits=self.limits,
        )
        effect = walk.begin(now_ms=tree.now_ms)
        while not isinstance(effect, Done):
            event: Event
            if isinstance(effect, ReadCache):
                event = CacheRead(None, self.trust.deepest(effect.zones, now=tree.now, now_ms=tree.now_ms))
            else:
                event = tree.ask(effect)
            effect = walk.receive(event, now=tree.now, now_ms=tree.now_ms)
        return effect


class TreeUpstream:
    """The tree as the driver's upstream: the same answers, after one turn of the event loop."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.hold: asyncio.Event | None = None
        self.hold_replies: asyncio.Event | None = None

    async def ask(self, ask: Ask) -> Reply:
        """The question arrives once ``hold`` is set, and the reply once ``hold_replies`` is (if there are any)."""
        if self.hold is not None:
            await self.hold.wait()
        await asyncio.sleep(0)
        reply = self.tree.ask(ask)
        if self.hold_replies is not None:
            await self.hold_replies.wait()
        return reply

    async def close(self) -> None:
        """Nothing to close."""

"""What a store has to answer, in a few dictionaries: the contract of registry/storage.py without an engine.

Written apart from the adapters and from tests/memory_storage.py, so that none of them judges itself. A copy costs
little, which is how a commit with an unknown outcome stays two truths until the store has told which of them holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from registry.storage import Claim, Delivery, DeliveryState, Earlier, Grant, Head, Mention, Outcome, Write


@dataclass(frozen=True)
class Told:
    """What one commit has changed, without its number: numbers have an order, and gaps as the engine likes."""

    identifiers: frozenset[tuple[str, int]] = frozenset()
    prefixes: frozenset[tuple[str, int]] = frozenset()
    events: frozenset[str] = frozenset()


@dataclass
class Truth:
    """Answers as :class:`registry.storage.Storage` gives them, method by method."""

    writes: dict[str, tuple[Write, ...]] = field(default_factory=dict)
    keys: dict[tuple[str, str], Earlier] = field(default_factory=dict)
    owners: dict[Claim, str] = field(default_factory=dict)
    granted: dict[str, Grant] = field(default_factory=dict)
    own_chains: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    told: tuple[Told, ...] = ()
    pointed: frozenset[Mention] = frozenset()
    recorded: tuple[tuple[int, str], ...] = ()  # time and name of each event
    waiting: dict[tuple[str, str], Delivery] = field(default_factory=dict)

    def copy(self) -> Truth:
        return Truth(
            dict(self.writes),
            dict(self.keys),
            dict(self.owners),
            dict(self.granted),
            dict(self.own_chains),
            self.told,
            self.pointed,
            self.recorded,
            dict(self.waiting),
        )

    # Changes

    def commit(self, writes: Sequence[Write]) -> list[Outcome]:
        outcomes = [self._commit(write) for write in writes]
        changed = {w.identifier: w.head.version for w, o in zip(writes, outcomes, strict=True) if o is _COMMITTED}
        if changed:
            events = [w for w, o in zip(writes, outcomes, strict=True) if o is _COMMITTED and w.mentions]
            self._point(events)
            near = {m.subject for w in events for m in w.mentions} - {name for w in events for name in w.outbound}
            told = frozenset(name for name in near if ":" not in name)
            self.told += (Told(identifiers=frozenset(changed.items()), events=told),)
        return outcomes

    def _point(self, events: Sequence[Write]) -> None:
        for write in events:
            self.pointed |= frozenset(write.mentions)
            self.recorded += ((write.mentions[0].time_ms, write.identifier),)
            for name in write.outbound:
                about = [m for m in write.mentions if m.subject == name]
                roles = tuple(sorted({m.role for m in about}))
                self.waiting[name, write.identifier] = Delivery(name, write.identifier, about[0].time_ms, roles)

    def _commit(self, write: Write) -> Outcome:
        before = self.writes.get(write.identifier, ())
        if (write.zone, write.idempotency_key) in self.keys:
            return Outcome.KEY_USED
        if len(before) != write.expected or self._handed_out_below(write):
            return Outcome.CONFLICT
        if {self.owners.get(claim, write.identifier) for claim in write.claims} - {write.identifier}:
            return Outcome.CLAIMED
        self.writes[write.identifier] = (*before, write)
        self.keys[write.zone, write.idempotency_key] = Earlier(write.request_hash, write.receipt)
        self.owners.update(dict.fromkeys(write.claims, write.identifier))
        return Outcome.COMMITTED

    def _handed_out_below(self, write: Write) -> bool:
        """Whether a delegation lies below the write's zone and holds its identifier."""
        return any(
            grant.version > 0 and _holds(prefix, write.identifier) and _holds(write.zone, f"{prefix}/")
            for prefix, grant in self.granted.items()
            if prefix != write.zone
        )

    def put_grant(self, grant: Grant, expected: Grant | None, key: tuple[str, str], request_hash: bytes) -> Outcome:
        if key in self.keys:
            return Outcome.KEY_USED
        held = self.granted.get(grant.prefix)
        first = grant.version > 0 and (held is None or held.version == 0)
        if held != expected or (first and self.any_within(grant.prefix)):
            return Outcome.CONFLICT
        self.granted[grant.prefix] = grant
        self.keys[key] = Earlier(request_hash, b"")
        self.told += (Told(prefixes=frozenset({(grant.prefix, grant.version)})),)
        return Outcome.COMMITTED

    def put_chain(self, zone: str, chain: Sequence[bytes]) -> None:
        self.own_chains[zone] = tuple(chain)

    def put_pointers(self, mentions: Sequence[Mention]) -> list[Mention]:
        new = [mention for mention in dict.fromkeys(mentions) if mention not in self.pointed]
        self.pointed |= frozenset(new)
        if new:
            self.told += (Told(events=frozenset(mention.subject for mention in new)),)
        return new

    def settle(self, tried: Sequence[Delivery]) -> None:
        for one in tried:
            if one.state is DeliveryState.DONE:
                self.waiting.pop(one.key, None)
            else:
                self.waiting[one.key] = one

    # Reads

    def pointers(self, subject: str, after: Mention | None, most: int) -> list[Mention]:
        found = sorted(mention for mention in self.pointed if mention.subject == subject)
        return [mention for mention in found if after is None or mention > after][:most]

    def events(self, after_sequence: int, most: int) -> list[tuple[int, str]]:
        return list(self.recorded[:most])  # asked from the first on: numbers are each engine's own

    def events_between(
        self, start_ms: int, end_ms: int, after: tuple[int, str] | None, most: int
    ) -> list[tuple[int, str]]:
        found = sorted(one for one in self.recorded if start_ms <= one[0] < end_ms)
        return [one for one in found if after is None or one > after][:most]

    def outbox(self, state: DeliveryState, most: int) -> list[Delivery]:
        return [one for one in self.waiting.values() if one.state is state][:most]

    def deliveries(self, due_ms: int, most: int) -> list[Delivery]:
        return [one for one in self.outbox(DeliveryState.WAITING, most) if one.next_at_ms <= due_ms]

    def heads(self, identifiers: Sequence[str]) -> dict[str, Head]:
        return {name: self.writes[name][-1].head for name in identifiers if name in self.writes}

    def record(self, identifier: str, version: int = 0) -> bytes | None:
        versions = self.writes.get(identifier, ())
        wanted = version or len(versions)
        return versions[wanted - 1].record if 0 < wanted <= len(versions) else None

    def earlier(self, zone: str, idempotency_keys: Sequence[str]) -> dict[str, Earlier]:
        return {key: self.keys[zone, key] for key in idempotency_keys if (zone, key) in self.keys}

    def claimants(self, claims: Sequence[Claim]) -> dict[Claim, str]:
        return {claim: self.owners[claim] for claim in claims if claim in self.owners}

    def any_within(self, prefix: str) -> bool:
        return any(_holds(prefix, identifier) for identifier in self.writes)

    def grants(self, only: Sequence[str] | None = None) -> list[Grant]:
        wanted = self.granted if only is None else self.granted.keys() & set(only)
        return [self.granted[prefix] for prefix in sorted(wanted)]

    def chains(self) -> dict[str, tuple[bytes, ...]]:
        return dict(self.own_chains)


_COMMITTED = Outcome.COMMITTED


def _holds(prefix: str, identifier: str) -> bool:
    """Whether an identifier lies in a prefix or below it, label by label."""
    labels, wanted = identifier.partition("/")[0].split("."), prefix.split(".")
    return labels[: len(wanted)] == wanted


def zones_of(keys: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Idempotency keys by their zone."""
    zones: dict[str, list[str]] = {}
    for zone, key in keys:
        zones.setdefault(zone, []).append(key)
    return zones

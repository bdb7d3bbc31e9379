"""What this node answers for: its zones, the zones it hosts, and the children it has handed to others.

Pure and in memory; loaded from the store at start and changed only by delegations that were checked and stored. The
deepest zone on the way to an identifier decides: held here (own or hosted), delegated elsewhere, or revoked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from idtrace.chain import Anchor, Context, Link, TrustedChain
from idtrace.delegation import Delegation, State
from idtrace.errors import Reason, RefusedError
from idtrace.identifier import Prefix
from idtrace.signature import SignatureMemory, Signed
from idtrace.statements import PrefixStatus


@dataclass(frozen=True, slots=True)
class Child:
    """A zone handed out by one of ours: the delegation in force, and how its prefix stands."""

    link: Link
    status: PrefixStatus

    @property
    def delegation(self) -> Delegation:
        """The body in force."""
        return self.link.delegation


class Authority:
    """Zones by prefix. ``own`` ones came from our parents, ``children`` we have signed out ourselves."""

    __slots__ = ("_trusted", "anchor", "children", "memory", "own", "wanted")

    def __init__(self, anchor: Anchor, wanted: frozenset[Prefix]) -> None:
        self.anchor = anchor
        self.wanted = wanted  # the zones that the operator has given to this node
        self.own: dict[Prefix, tuple[Link, ...]] = {}
        self.children: dict[Prefix, Child] = {}
        self.memory = SignatureMemory()  # so that the seal over 2,000 records is checked once
        self._trusted: dict[Prefix, TrustedChain] = {}

    def adopt(self, zone: Prefix, links: tuple[Link, ...]) -> None:
        """Take over checked and stored delegations of an own zone."""
        self.own[zone] = links
        self._trusted.clear()  # chains of zones below it hang on it

    def hand_out(self, child: Child) -> None:
        """Take over a checked and stored delegation of a child zone."""
        self.children[child.delegation.child] = child
        self._trusted.clear()

    def zone_of(self, prefix: Prefix) -> Prefix | None:
        """Deepest zone known here that covers a prefix; None where the node has nothing to do with it.

        Nothing counts below a zone that was taken back or disabled: what hangs on it goes with it.
        """
        deepest: Prefix | None = None
        for zone in prefix.lineage():
            child = self.children.get(zone)
            if child is not None or zone in self.own:
                deepest = zone
            if child is not None and (child.delegation.state is State.REVOKED or child.status is PrefixStatus.DISABLED):
                break
        return deepest

    def serves(self, zone: Prefix) -> bool:
        """Whether this node keeps the zone's records: its own or one that it hosts, and not taken back."""
        links = self.own.get(zone)
        if links:
            return links[-1].delegation.state is State.ACTIVE
        child = self.children.get(zone)
        return child is not None and child.delegation.hosted and child.delegation.state is State.ACTIVE

    def chain_of(self, zone: Prefix) -> tuple[Link, ...]:
        """Delegations from the root down to a zone known here.

        Raises:
            RefusedError: NOT_AUTHORITATIVE where a link above it is not known here (yet).
        """
        if zone in self.own:
            return self.own[zone]
        child = self.children.get(zone)
        if child is None:
            raise RefusedError(Reason.NOT_AUTHORITATIVE, f"this node does not know zone '{zone}'", field="identifier")
        return (*self.chain_of(child.delegation.parent), child.link)

    def trusted(self, zone: Prefix, context: Context) -> TrustedChain:
        """The chain of a zone, verified once and in force now: what a write is checked against.

        Raises:
            RefusedError: NOT_AUTHORITATIVE.
            VerificationError: where a link is no longer in force.
        """
        chain = self._trusted.get(zone)
        if chain is None:
            chain = self._trusted[zone] = verified(self.anchor, [link.signed for link in self.chain_of(zone)], context)
        chain.in_force(context.now)
        return chain

    def below(self, zone: Prefix, known: Prefix | None) -> tuple[Signed, ...]:
        """The links of a zone's chain that an asker lacks who has verified ``known`` (None: nothing yet)."""
        links = self.chain_of(zone)
        if known == zone and not self.serves(zone):
            return tuple(link.signed for link in links)  # what the asker knows of the zone is out of date
        held = [link.delegation.child for link in links]
        start = held.index(known) + 1 if known in held else 0
        return tuple(link.signed for link in links[start:])


def verified(anchor: Anchor, links: Sequence[Signed], context: Context) -> TrustedChain:
    """Put links through the checks of :mod:`idtrace.chain`, root first.

    Raises:
        VerificationError: at the first broken link.
        RefusedError: NOT_AUTHORITATIVE where there is none.
    """
    if not links:
        raise RefusedError(Reason.NOT_AUTHORITATIVE, "the zone has no delegation yet", field="zone")
    return TrustedChain.whole(anchor, links, context)

"""Bodies of shared entries ⇄ chains and outcomes, read as what they are: bytes that one of us wrote after verifying.

Two kinds of body. A *chain* is its links as signed, each with its length before it. An *answer* is two parts, each
with its length before it: such a chain, and the outcome with the identifier (``idtrace/wire.py``). The chain stands in
front in the same bytes for all answers of a zone, so a chain that was taken over once is found again by its bytes, and
nothing of it is parsed or hashed a second time. What may have changed since is looked at with every reading: whether
it is in force at ``now``, and whether our floors are still the ones that it has.

Only for bytes whose MAC has been checked (``Seal.open``): nobody else could have written them, so neither their form
nor their digest is checked again, which costs twice what all other steps of a reading do.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from idtrace import wire
from idtrace.bundle import Bundle
from idtrace.chain import Context, Floors, Link, TrustedChain
from idtrace.errors import InputError, Reason
from idtrace.identifier import Prefix
from idtrace.signature import CheckBudget, Kind, Signed, signed_hash
from resolver.shared_cache import framed, unframed

T = TypeVar("T")

# Parsed delegations, 2 KiB each, and chains of them, 3 KiB each: the zones of a day. All answers of a zone share them.
CHAINS_KEPT: Final = 4_096


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A chain, and the version and hash of each of its links; in force from ``begins`` to ``chain.expires`` (s)."""

    chain: TrustedChain
    begins: int
    floors: tuple[tuple[Prefix, tuple[int, bytes]], ...]

    @classmethod
    def of(cls, chain: TrustedChain) -> TakenOver:
        """What is looked at again with every reading."""
        links = [(link.delegation, signed_hash(Kind.DELEGATION, link.signed.payload)) for link in chain.links]
        floors = tuple((body.child, (body.version, content)) for body, content in links)
        return cls(chain, max(body.not_before for body, _ in links), floors)

    def is_still(self, floors: Floors, now: int) -> bool:
        """Whether to take it over anew would find the same, and teach nothing."""
        if not self.begins <= now < self.chain.expires:
            return False
        return all(floors.zone(zone) == held for zone, held in self.floors)


class SharedChains:
    """Chains that were taken over from entries, by their bytes; ``floors`` is what was verified before."""

    def __init__(self, floors: Floors) -> None:
        self._floors = floors
        self._chains: OrderedDict[bytes, TakenOver] = OrderedDict()
        self._links: OrderedDict[bytes, Link] = OrderedDict()

    def read(self, body: bytes, *, now: int) -> tuple[TrustedChain, bool]:
        """The chain of a body, and whether there may be something in it that our floors do not hold yet.

        Raises:
            IdtraceError: it is not what we write, or not in force, or below a floor.
        """
        taken = self._chains.get(body)
        if taken is not None and taken.is_still(self._floors, now):
            self._chains.move_to_end(body)
            return taken.chain, False
        parts = unframed(body)
        if parts is None:
            raise InputError(Reason.BUNDLE_MALFORMED, "these are not the links of a chain", field="entry")
        links = tuple(self._link(part) for part in parts)
        chain = TrustedChain.from_authenticated(links, Context(now, CheckBudget(0), self._floors))
        _keep(self._chains, body, TakenOver.of(chain))
        return chain, True

    def _link(self, part: bytes) -> Link:
        link = self._links.get(part)
        if link is None:
            link = Link.read(wire.signed_from_bytes(part))
            _keep(self._links, part, link)
        return link


def chain_body(links: Iterable[Signed]) -> bytes:
    """The body of a chain, root first."""
    return framed(wire.signed_to_bytes(signed) for signed in links)


def answer_body(bundle: Bundle) -> bytes:
    """The body of an answer."""
    return framed((chain_body(bundle.delegations), wire.outcome_to_bytes(bundle)))


def answer_parts(body: bytes) -> tuple[bytes, bytes]:
    """The chain and the outcome of an answer, both still as bytes.

    Raises:
        InputError: BUNDLE_MALFORMED where it is not these two.
    """
    parts = unframed(body)
    if parts is None or len(parts) != 2:
        raise InputError(Reason.BUNDLE_MALFORMED, "this is not a chain and an outcome", field="entry")
    return parts[0], parts[1]


def _keep(kept: OrderedDict[bytes, T], key: bytes, value: T) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > CHAINS_KEPT:
        kept.popitem(last=False)

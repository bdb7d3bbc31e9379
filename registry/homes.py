"""Finds the node that a subject's pointers go to: the home of the deepest zone that was handed out on the way to it.

Begins at the deepest zone that this node knows a verified delegation of (its own zones' chains and what they have
handed out), asks that zone's nodes for the chain down to the subject, verifies it from the pinned root, and goes on
from there until a node knows of nothing deeper. A pointer is a hint, and so no floors are held here: what an old
delegation could do is send a hint to a node that the zone has left, which refuses it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio

from idtrace import wire
from idtrace.chain import Context
from idtrace.errors import BusyError, IdtraceError, InputError, Reason, VerificationError
from idtrace.identifier import LABELS_MAX, Prefix
from idtrace.signature import Signed
from idtrace.v1 import delegation_pb2, delegation_pb2_grpc
from registry.adoption import CALL_SECONDS, CHAIN_BYTES_MAX
from registry.authority import Authority, verified

OPTIONS: Final = (
    ("grpc.max_receive_message_length", CHAIN_BYTES_MAX),
    ("grpc.enable_http_proxy", 0),  # nodes stand inside the network; a proxy for web pages is never meant
)
# A zone that moves is found again when its old node refuses; until then it is asked for once in five minutes.
KEPT_SECONDS: Final = 300
# Prefixes, 1 KB each.
KEPT_MAX: Final = 4_096


@dataclass(frozen=True, slots=True)
class Home:
    """The deepest zone on the way to a subject, and where its nodes are; ``here``: they are this one."""

    zone: Prefix
    endpoints: tuple[str, ...]
    here: bool = False


class Homes:
    """Homes by prefix. Belongs to one event loop."""

    def __init__(self, authority: Authority, parents: Sequence[str], clock: Callable[[], int]) -> None:
        self._authority = authority
        self._parents = tuple(parents)
        self._clock = clock
        self._kept: OrderedDict[Prefix, tuple[Home, int]] = OrderedDict()

    async def find(self, prefix: Prefix) -> Home:
        """The home of what has this prefix.

        Raises:
            BusyError: NO_ANSWER where none of a zone's nodes answers.
            IdtraceError: what the last of them said is refused, or does not verify.
        """
        zone = self._authority.zone_of(prefix)
        if zone is not None and self._authority.serves(zone):
            return Home(zone, (), here=True)
        now = self._clock()
        kept = self._kept.get(prefix)
        if kept is not None and now < kept[1]:
            return kept[0]
        home = await self._walk(prefix)
        self._kept[prefix] = (home, now + KEPT_SECONDS)
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return home

    def forget(self, home: Home) -> None:
        """It has not taken what was delivered: look again next time."""
        for prefix in [prefix for prefix, (kept, _) in self._kept.items() if kept == home]:
            del self._kept[prefix]

    def forget_prefix(self, prefix: Prefix) -> None:
        """Its home does not answer for it any more: look again next time."""
        self._kept.pop(prefix, None)

    async def _walk(self, prefix: Prefix) -> Home:
        home = self._begin(prefix)
        for _ in range(LABELS_MAX + 1):
            deeper = await self._ask_all(home, prefix)
            if deeper.zone == home.zone:
                return deeper
            home = deeper
        raise VerificationError(Reason.CHAIN_TOO_DEEP, f"the way to {prefix} does not end", field="chain")

    def _begin(self, prefix: Prefix) -> Home:
        """The deepest zone that is known here; its delegation says where to ask."""
        links = [link for chain in self._authority.own.values() for link in chain]
        known = {link.delegation.child: link.delegation for link in links}
        known |= {zone: child.delegation for zone, child in self._authority.children.items()}
        for zone in reversed(prefix.lineage()):
            delegation = known.get(zone)
            if delegation is not None and delegation.endpoints:
                return Home(zone, delegation.endpoints)
        return Home(Prefix(()), self._parents)  # nothing is adopted yet

    async def _ask_all(self, home: Home, prefix: Prefix) -> Home:
        """What the first of a zone's nodes that answers soundly knows."""
        last: IdtraceError = BusyError(Reason.NO_ANSWER, f"zone '{home.zone}' names no nodes", field="subject")
        for endpoint in home.endpoints:
            try:
                return self._verified(await ask_chain(endpoint, prefix), home, prefix)
            except grpc.aio.AioRpcError as error:
                detail = f"{endpoint}, a node of zone '{home.zone}', does not answer: {error.code().name}"
                last = BusyError(Reason.NO_ANSWER, detail, field="subject")
            except IdtraceError as error:
                last = error
        raise last

    def _verified(self, links: tuple[Signed, ...], home: Home, prefix: Prefix) -> Home:
        if not links:  # its parent's node knows it, and it has not heard of itself yet
            return home
        now = self._clock()
        chain = verified(self._authority.anchor, links, Context.at(now, memory=self._authority.memory))
        if not prefix.within(chain.zone):
            raise VerificationError(Reason.REFERRAL_SIDEWAYS, f"the chain ends at {chain.zone}", field="chain")
        if not chain.zone.within(home.zone):
            raise VerificationError(Reason.REFERRAL_UPWARD, f"the chain ends at {chain.zone}", field="chain")
        chain.in_force(now)
        return Home(chain.zone, chain.delegation.endpoints)


async def ask_chain(endpoint: str, prefix: Prefix) -> tuple[Signed, ...]:
    """The chain down to a prefix, as far as a node knows it.

    Raises:
        grpc.aio.AioRpcError: it does not answer.
        InputError: what it answers does not parse.
    """
    async with asyncio.timeout(2 * CALL_SECONDS), grpc.aio.insecure_channel(endpoint, options=OPTIONS) as channel:
        stub = delegation_pb2_grpc.DelegationServiceStub(channel)
        request = delegation_pb2.DelegationServiceGetRequest(prefix=str(prefix))
        response = await stub.Get(request, timeout=CALL_SECONDS)
    if response is None:  # what grpc.aio hands out for bytes that are no such message
        raise InputError(Reason.ANSWER_MALFORMED, "the answer does not parse", field="chain")
    return wire.delegations_from_pb(response.chain)

"""How a node learns of its own zones: it asks its parents' node for the chain, verifies it from the root, and keeps it.

Asked at start until every zone is there, and then every ``refresh_seconds``, so that a renewed delegation (new keys, a
later expiry) arrives without anybody touching this node. A version lower than the one held is refused (rollback).

The root asks nobody: its key set is brought to one of its nodes, and any other node on the same store reads it there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Sequence
from typing import Final

import grpc
import grpc.aio
import structlog

from idtrace import wire
from idtrace.chain import Anchor, Context, Link, TrustedChain
from idtrace.delegation import Delegation, Role
from idtrace.entry import Entry, EntryKind
from idtrace.errors import BusyError, IdtraceError, InputError, Reason, VerificationError
from idtrace.identifier import ROOT, Identifier, Prefix
from idtrace.signature import Signed
from idtrace.v1 import delegation_pb2, delegation_pb2_grpc
from registry.authority import Authority, verified
from registry.stamping import Stamper
from registry.storage import Logged, Storage

log = structlog.get_logger(__name__)

CALL_SECONDS: Final = 3.0
# A new zone waits for its parent's administrator: often at first, then patiently.
RETRY_SECONDS_FIRST: Final = 0.1
RETRY_SECONDS_MAX: Final = 0.5
# Nine delegations of a few KiB each.
CHAIN_BYTES_MAX: Final = 262_144


class Adoption:
    """Keeps the chains of ``authority.wanted`` current."""

    def __init__(
        self,
        storage: Storage,
        authority: Authority,
        parents: Sequence[str],
        clock: Callable[[], int],
        node_key_id: str = "",
        *,
        stamper: Stamper | None = None,
        on_commit: Callable[[], object] = lambda: None,
    ) -> None:
        self._storage = storage
        self._authority = authority
        self._on_commit = on_commit  # called when new keys are in the log
        self._parents = parents
        self._clock = clock
        self._node_key_id = node_key_id
        self._stamper = stamper  # where the node keeps a log
        self._told: dict[tuple[Prefix, str], str] = {}  # by zone and parent: what the log said last

    async def run(self, refresh_seconds: float) -> None:
        """Ask for ever; a parent that does not answer costs freshness and nothing else."""
        retry = RETRY_SECONDS_FIRST
        while True:
            for zone in sorted(self._authority.wanted):
                await (self._read_again() if zone.is_root else self._refresh(zone))
            missing = [zone for zone in self._authority.wanted if zone not in self._authority.own]
            await asyncio.sleep(retry if missing else refresh_seconds)
            retry = min(retry * 1.5, RETRY_SECONDS_MAX)

    async def _read_again(self) -> None:
        """Take over the root's key set where another node on this store has been given a newer one."""
        try:
            stored = (await self._storage.chains()).get(str(ROOT), ())
            links = tuple(wire.signed_from_bytes(link) for link in stored)
            chain = news(self._authority, ROOT, links, self._clock()) if links else None
            if chain is not None:
                self._authority.adopt(ROOT, chain.links)
                log.info("root's key set adopted", version=chain.delegation.version)
        except IdtraceError as error:
            self._tell(ROOT, "", "root's key set in the store refused", str(error.reason))
        except Exception:  # the store's own; the next round tries again
            log.exception("root's key set not read")
        else:
            self._told.pop((ROOT, ""), None)

    async def _refresh(self, zone: Prefix) -> None:
        for parent in self._parents:
            try:
                links = await self._ask(parent, zone)
                if links is None:
                    self._tell(zone, parent, "zone not delegated by this parent yet")
                    continue  # another of our parents may be the one that hands this zone out
                chain = news(self._authority, zone, links, self._clock())
                if chain is not None:
                    await self._keep(zone, links)
                    self._authority.adopt(zone, chain.links)
                    log.info("zone adopted", zone=str(zone), links=len(links))
                    if self._node_key_id and self._node_key_id not in chain.delegation.keys_for(Role.NODE):
                        # Every answer and receipt would be refused by whoever verifies it.
                        log.error("zone does not name this node's key", zone=str(zone), key=self._node_key_id)
            except grpc.aio.AioRpcError as error:
                self._tell(zone, parent, "parent does not answer", error.code().name)
            except IdtraceError as error:
                self._tell(zone, parent, "parent's answer refused", str(error.reason))
            except Exception:  # the store's own; the next round tries again
                log.exception("zone not stored", zone=str(zone))
            else:
                self._told.pop((zone, parent), None)
                return

    async def begin_log(self) -> None:
        """Begin an empty log with the keys of the own zones that are held already. Call it before anything commits.

        A log whose last checkpoint is by an earlier key goes on with such an entry under the new one: else nothing that
        is in it could be proven until somebody registers something. It is a commit like any other, so the log never has
        two checkpoints of one size, and a node that dies on the way makes up for it at its next start.
        """
        if self._stamper is None:
            return
        head = (await self._storage.log_edge()).head
        if head.size and self._stamper.writer.has_signed(head):
            return
        try:
            for zone, links in sorted(self._authority.own.items())[: 1 if head.size else None]:
                await self._keep(zone, [link.signed for link in links], begins=True)
        except BusyError as error:  # the clock is behind the last commit: the next one has to wait for it as well
            if not head.size:
                raise  # a log that does not begin with its zones' keys could never be checked
            log.warning("the log goes on without its keys", reason=str(error.reason), detail=error.detail)

    async def _keep(self, zone: Prefix, links: Sequence[Signed], *, begins: bool = False) -> None:
        """Store the chain of an own zone; a node with a log logs the zone's new keys before it serves it by them."""
        stored = [wire.signed_to_bytes(link) for link in links]
        if self._stamper is None:
            await self._storage.put_chain(str(zone), stored)
            return
        async with self._stamper.turn:
            stamp = self._stamper.stamp()
            own = links[-1]
            entry = Entry(EntryKind.KEYS, zone, stamp.now, own.payload, own.signatures)
            held = self._authority.own.get(zone, ())
            is_news = begins or not held or held[-1].signed != own  # else only a link above it is another
            await self._storage.put_chain(str(zone), stored, Logged(stamp, entry) if is_news else None)
        self._on_commit()

    def _tell(self, zone: Prefix, parent: str, event: str, reason: str = "") -> None:
        """Warn once until it changes: a node that lacks a zone asks twice a second."""
        if self._told.get((zone, parent)) != event + reason:
            self._told[zone, parent] = event + reason
            log.warning(event, parent=parent, zone=str(zone), reason=reason)

    async def _ask(self, parent: str, zone: Prefix) -> tuple[Signed, ...] | None:
        """The chain that ends at the zone; None where the parent has not delegated it (yet)."""
        options = (
            ("grpc.max_receive_message_length", CHAIN_BYTES_MAX),
            ("grpc.enable_http_proxy", 0),  # nodes stand inside the network; a proxy for web pages is never meant
        )
        async with grpc.aio.insecure_channel(parent, options=options) as channel:
            stub = delegation_pb2_grpc.DelegationServiceStub(channel)
            request = delegation_pb2.DelegationServiceGetRequest(prefix=str(zone))
            response = await stub.Get(request, timeout=CALL_SECONDS)
        if response is None:  # what grpc.aio hands out for bytes that are no such message
            raise InputError(Reason.ANSWER_MALFORMED, "the parent's answer does not parse", field="chain")
        links = wire.delegations_from_pb(response.chain)
        if not links or Delegation.parse(links[-1].payload).child != zone:
            return None
        return links


class _Held:
    """The chain that is held, as floors: no link may be older than it, and no version may have two contents.

    What the keys above no longer sign is no floor: a stolen zone key, or a stolen root key, could otherwise sign
    version 2**53 - 1 and keep this node from its own zone for ever (the fast-forward attack of TUF §5.3.11).
    """

    def __init__(self, links: Sequence[Link], anchor: Anchor) -> None:
        self._links = {link.delegation.child: link for link in links}
        self._drop_others(ROOT, anchor.keys)

    def learn(self, delegation: Delegation) -> None:
        """Take in a verified link: where it is newer than the one held, only what its keys have signed stays."""
        held = self._links.get(delegation.child)
        if held is None or held.delegation.version < delegation.version:
            for link in list(self._links.values()):
                if link.delegation.parent == delegation.child and not link.delegation.child.is_root:
                    self._drop_others(link.delegation.child, delegation.keys_for(Role.ZONE))

    def _drop_others(self, zone: Prefix, keys: Container[str]) -> None:
        link = self._links.get(zone)
        if link is not None and not any(signature.key_id in keys for signature in link.signed.signatures):
            del self._links[zone]

    def zone(self, zone: Prefix) -> tuple[int, bytes] | None:
        link = self._links.get(zone)
        return (link.delegation.version, link.delegation.hash) if link else None

    def record(self, identifier: Identifier) -> tuple[int, bytes] | None:
        del identifier
        return None


def news(authority: Authority, zone: Prefix, links: tuple[Signed, ...], now: int) -> TrustedChain | None:
    """Verify a chain for an own zone; None where it is held already. A revocation is news too: it ends the service.

    Raises:
        VerificationError: a broken link, another zone's chain, or a link that is older than, or differs from, the one
            held.
    """
    held = authority.own.get(zone, ())
    if tuple(link.signed for link in held) == links:
        return None
    floors = _Held(held, authority.anchor)
    context = Context.at(now, floors=floors)
    chain = verified(authority.anchor, links[:1], context)
    floors.learn(chain.delegation)
    for signed in links[1:]:
        chain = chain.extend(signed, context)
        floors.learn(chain.delegation)
    if chain.zone != zone:
        raise VerificationError(Reason.REFERRAL_SIDEWAYS, f"the chain ends at {chain.zone}", field="chain")
    return chain

"""The gRPC edge of pointers: what others deliver, what anybody asks for, and what the operator sees of the outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network
from typing import Any, Final
from urllib.parse import unquote

from idtrace.errors import IdtraceError, InputError, Reason
from idtrace.serving.errors import item_error
from idtrace.v1 import pointer_pb2, pointer_pb2_grpc, registry_pb2
from registry.authority import Authority
from registry.outbox import revived
from registry.pointers import DELIVERED_MAX, LISTED_MAX, TIME_MS_MAX, Floods, asked_subject, delivered, page_size
from registry.storage import DeliveryState, Mention, Storage

Context = Any  # as in registry/service.py

# What an operator reads at once.
OUTBOX_SHOWN: Final = 100
# What was given up is taken up again in such pieces, so many of them a call: half a second of a disk.
REVIVED_AT_ONCE: Final = 1_000
REVIVED_ROUNDS: Final = 10


class PointerService(pointer_pb2_grpc.PointerServiceServicer):
    """Pointers of what this node answers for, and its outbox. ``on_commit`` is called when there may be news."""

    def __init__(
        self,
        storage: Storage,
        authority: Authority,
        *,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float],
        on_commit: Callable[[], object],
    ) -> None:
        self._storage = storage
        self._authority = authority
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._on_commit = on_commit
        self._floods = Floods()

    async def Deliver(self, request: pointer_pb2.DeliverRequest, context: Context) -> pointer_pb2.DeliverResponse:
        """Keep pointers that another node delivers; each item succeeds or fails alone."""
        if not 0 < len(request.pointers) <= DELIVERED_MAX:
            detail = f"a call delivers 1 to {DELIVERED_MAX} pointers, this one {len(request.pointers)}"
            raise InputError(Reason.BATCH_TOO_LARGE, detail, field="pointers")
        caller = caller_of(context.peer())
        self._floods.require_caller(caller, len(request.pointers), self._monotonic())
        checked = self._checked(request.pointers, caller)
        sound = list(dict.fromkeys(one for one in checked if isinstance(one, Mention)))
        new = set(await asyncio.shield(self._storage.put_pointers(sound))) if sound else set()
        for one in sound:
            if one not in new:
                self._floods.was_here(caller, one.subject)
        if new:
            self._on_commit()
        return pointer_pb2.DeliverResponse(results=[_result(one, new) for one in checked])

    def _checked(self, pointers: Iterable[pointer_pb2.Pointer], caller: str) -> list[Mention | IdtraceError]:
        """Each by itself; one that is there twice is counted once."""
        found: dict[Mention, Mention | IdtraceError] = {}
        told = [Mention(one.subject, one.time_ms, one.event, one.role) for one in pointers]
        for mention in told:
            if mention in found:
                continue
            try:
                found[mention] = delivered(self._authority, mention)
                self._floods.require_subject(caller, mention.subject, self._monotonic())
            except IdtraceError as error:
                found[mention] = error
        return [found[mention] for mention in told]

    async def List(
        self, request: pointer_pb2.PointerServiceListRequest, context: Context
    ) -> pointer_pb2.PointerServiceListResponse:
        """Tell which events are known to be about a subject."""
        subject, most = asked_subject(request.subject), page_size(request.most, LISTED_MAX)
        after: Mention | None = None
        if request.HasField("after"):
            last = request.after
            if not 0 <= last.time_ms <= TIME_MS_MAX:
                raise InputError(Reason.FIELD_MALFORMED, "this is no time of a pointer", field="after.time_ms")
            after = Mention(subject, last.time_ms, last.event, last.role)
        found = await self._storage.pointers(subject, after, most + 1)
        pointers = [
            pointer_pb2.Pointer(subject=one.subject, time_ms=one.time_ms, event=one.event, role=one.role)
            for one in found[:most]
        ]
        return pointer_pb2.PointerServiceListResponse(pointers=pointers, more=len(found) > most)

    async def ListOutbox(
        self, request: pointer_pb2.ListOutboxRequest, context: Context
    ) -> pointer_pb2.ListOutboxResponse:
        """Tell what has not been delivered."""
        most = page_size(request.most, OUTBOX_SHOWN)
        state = DeliveryState.DEAD if request.dead else DeliveryState.WAITING
        found = await self._storage.outbox(state, most + 1)
        items = [
            pointer_pb2.OutboxItem(
                subject=one.subject,
                event=one.event,
                time_ms=one.time_ms,
                roles=one.roles,
                attempts=one.attempts,
                since_ms=one.since_ms,
                next_at_ms=one.next_at_ms,
                error=one.error,
            )
            for one in found[:most]
        ]
        return pointer_pb2.ListOutboxResponse(items=items, more=len(found) > most)

    async def RetryDead(self, request: pointer_pb2.RetryDeadRequest, context: Context) -> pointer_pb2.RetryDeadResponse:
        """Try again what was given up."""
        retried = 0
        for _ in range(REVIVED_ROUNDS):
            dead = await self._storage.outbox(DeliveryState.DEAD, REVIVED_AT_ONCE)
            if not dead:
                break
            now_ms = self._now_ms()
            await asyncio.shield(self._storage.settle([revived(one, now_ms=now_ms) for one in dead]))
            retried += len(dead)
        self._on_commit()
        return pointer_pb2.RetryDeadResponse(retried=retried)


def caller_of(peer: str) -> str:
    """The address of gRPC's ``ipv4:192.0.2.1:50123`` without its port, which is another one for each connection.

    Of IPv6 the first 64 bits: whoever has one address has all that share them (RFC 4291, section 2.5.1).
    """
    address = unquote(peer).rpartition(":")[0] or peer
    kind, _, host = address.partition(":")
    if kind != "ipv6":
        return address
    try:
        network = ip_network((ip_address(host.strip("[]").partition("%")[0]), 64), strict=False)
    except ValueError:
        return address
    return f"ipv6:{network}"


def _result(checked: Mention | IdtraceError, new: set[Mention]) -> pointer_pb2.DeliverResult:
    if isinstance(checked, Mention):
        return pointer_pb2.DeliverResult(is_new=checked in new)
    code, reason, field, detail = item_error(checked)
    error = registry_pb2.ItemError(code=code, reason=reason, field=field, detail=detail)
    return pointer_pb2.DeliverResult(error=error)

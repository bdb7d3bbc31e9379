"""The gRPC edge of a registry: parse, check, propose, answer; typed errors become statuses in the edge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

from idtrace import wire
from idtrace.bundle import Denied, NodeAnswer, Referred
from idtrace.canonical import INTEGER_MAX
from idtrace.delegation import State
from idtrace.errors import IdtraceError, InputError, Reason, RefusedError, VerificationError
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Permission, Record, RecordBody, peek_identifier
from idtrace.serving.errors import item_error
from idtrace.signature import Kind, Signed, Signer, sign
from idtrace.statements import DENIAL_SECONDS_MAX, Denial, DenialReason, PrefixStatus
from idtrace.v1 import delegation_pb2, registry_pb2, registry_pb2_grpc
from idtrace.v1 import record_pb2 as pb
from idtrace.v1.delegation_pb2_grpc import DelegationServiceServicer
from registry.admission import Intent, Proposal
from registry.authority import Authority
from registry.changes import NEXT_WITHIN_MS, Changes
from registry.delegating import ENROLMENTS_MAX, Step
from registry.grants import APPLICATION_KEYS_MAX, Grants
from registry.intake import request_hash, take
from registry.logbook import LogHead
from registry.receipts import Receipts, check_level
from registry.reporters import Reporters
from registry.sealing import Sealing
from registry.sequencer import BATCH_MAX, Result, Sequencer
from registry.standing import Standing
from registry.storage import Change, Grant, Storage

# Signatures are checked this many at a time between looks at the loop, so a batch delays a reader by ~4 ms at most.
CHECKED_AT_ONCE: Final = 16
_RESTRICTED: Final = b'"permission":"restricted"'

Context = Any  # grpc.aio.ServicerContext is generic in types that the generated base class leaves open


class RegistryService(registry_pb2_grpc.RegistryServiceServicer):
    """Registrations, answers and prefix reviews."""

    def __init__(
        self,
        *,
        storage: Storage,
        authority: Authority,
        sequencer: Sequencer,
        grants: Grants,
        changes: Changes,
        signer: Signer,
        clock: Callable[[], int],
        receipts: Receipts,
        deadline_seconds_max: float,
        sealing: Sealing,
        reporters: Reporters,
        standing: Standing | None = None,
    ) -> None:
        self._standing = standing  # where the node keeps a log
        self._storage = storage
        self._authority = authority
        self._sequencer = sequencer
        self._grants = grants
        self._changes = changes
        self._signer = signer
        self._clock = clock
        self._receipts = receipts
        self._deadline_seconds_max = deadline_seconds_max
        self._sealing = sealing
        self._reporters = reporters

    async def Register(self, request: registry_pb2.RegisterRequest, context: Context) -> registry_pb2.RegisterResponse:
        """Register version 1 of an identifier."""
        return registry_pb2.RegisterResponse(receipt=await self._write(Intent.REGISTER, request, context))

    async def Update(self, request: registry_pb2.UpdateRequest, context: Context) -> registry_pb2.UpdateResponse:
        """Add the next version of an identifier."""
        return registry_pb2.UpdateResponse(receipt=await self._write(Intent.UPDATE, request, context))

    async def Retire(self, request: registry_pb2.RetireRequest, context: Context) -> registry_pb2.RetireResponse:
        """End an identifier."""
        return registry_pb2.RetireResponse(receipt=await self._write(Intent.RETIRE, request, context))

    async def RegisterBatch(
        self, request: registry_pb2.RegisterBatchRequest, context: Context
    ) -> registry_pb2.RegisterBatchResponse:
        """Register up to 2,000 records; each succeeds or fails alone."""
        items, due = request.items, self._due(context)
        check_level(request.wait_for)
        if not 0 < len(items) <= BATCH_MAX:
            detail = f"a batch has 1 to {BATCH_MAX} items, this one {len(items)}"
            raise InputError(Reason.BATCH_TOO_LARGE, detail, field="items")
        taken: list[Taken] = []
        for position, item in enumerate(items):
            taken.append(await self._take(Intent.REGISTER, item))
            if position % CHECKED_AT_ONCE == 0:
                await asyncio.sleep(0)
        decided = iter(await self._sequencer.submit([t for t in taken if isinstance(t, Proposal)]))
        results = [next(decided) if isinstance(one, Proposal) else one for one in taken]
        signed = [one for one in results if not isinstance(one, IdtraceError)]
        receipts = iter(await self._receipts.of(signed, request.wait_for, due))
        return registry_pb2.RegisterBatchResponse(
            results=[
                _refused(one)
                if isinstance(one, IdtraceError)
                else registry_pb2.RegisterBatchResult(receipt=next(receipts))
                for one in results
            ]
        )

    async def RegisterSealed(
        self, request: registry_pb2.RegisterSealedRequest, context: Context
    ) -> registry_pb2.RegisterSealedResponse:
        """Register up to 2,000 records under one signature; each succeeds or fails alone."""
        return await self._sealing.register(request, self._due(context))

    def _due(self, context: Context) -> float:
        """Tick of the loop at which a call has to be answered; the edge lets none in without a deadline."""
        remaining: float = min(context.time_remaining(), self._deadline_seconds_max)
        return asyncio.get_running_loop().time() + remaining

    async def _write(self, intent: Intent, request: _Write, context: Context) -> pb.Receipt:
        due = self._due(context)
        check_level(request.wait_for)
        taken = await self._take(intent, request)
        result = (await self._sequencer.submit([taken]))[0] if isinstance(taken, Proposal) else taken
        if isinstance(result, IdtraceError):
            raise result
        return (await self._receipts.of([result], request.wait_for, due))[0]

    async def _take(self, intent: Intent, request: _Write) -> Taken:
        """A checked proposal, the receipt that the same request has had, or why it is refused."""
        try:
            record = wire.record_from_pb(request.record)
            message = request.record.SerializeToString(deterministic=True)
            hashed = request_hash(intent, message)
            try:
                proposal = take(
                    intent, request.idempotency_key, record, hashed=hashed, authority=self._authority, now=self._clock()
                )
                await self._reporters.check(proposal)
            except (RefusedError, VerificationError) as error:
                # A prefix that was disabled since, or a key that was rotated away, does not undo what was committed.
                identifier = peek_identifier(record.signed.payload)
                return await self._receipt(request.idempotency_key, identifier, hashed) or error
        except IdtraceError as error:
            return error
        return proposal

    async def _receipt(self, key: str, identifier: Identifier, hashed: bytes) -> bytes | None:
        """The receipt that this very request has had, in whichever zone it was; None where it had none."""
        for zone in reversed(identifier.prefix.lineage()):
            known = (await self._storage.earlier(str(zone), [key])).get(key)
            if known is not None and known.request_hash == hashed:
                return known.receipt
        return None

    async def Get(
        self, request: registry_pb2.RegistryServiceGetRequest, context: Context
    ) -> registry_pb2.RegistryServiceGetResponse:
        """Answer one question: a record, a denial or a referral."""
        identifier = Identifier.parse_canonical(request.identifier)
        known = (
            Prefix.parse_canonical(request.known_zone, field="known_zone") if request.HasField("known_zone") else None
        )
        if request.version > INTEGER_MAX:
            raise InputError(Reason.FIELD_MALFORMED, "there is no such version", field="version")
        zone = self._authority.zone_of(identifier.prefix)
        if zone is None:
            detail = f"this node knows nothing of {identifier.prefix}"
            raise RefusedError(Reason.NOT_AUTHORITATIVE, detail, field="identifier")
        answer = await self._answer(identifier, request.version, zone, known)
        return registry_pb2.RegistryServiceGetResponse(answer=answer)

    async def _answer(self, identifier: Identifier, version: int, zone: Prefix, known: Prefix | None) -> pb.NodeAnswer:
        child = self._authority.children.get(zone)
        if child is not None and child.status is PrefixStatus.DISABLED and child.delegation.state is State.ACTIVE:
            parent = child.delegation.parent
            head = await self._standing.head() if self._standing else None
            denial = self._deny(identifier, parent, DenialReason.PREFIX_DISABLED, head)
            return wire.answer_to_pb(NodeAnswer(self._authority.below(parent, known), Denied(denial)))
        links = self._authority.below(zone, known)
        if not self._authority.serves(zone):
            return wire.answer_to_pb(NodeAnswer(links, Referred(zone)))
        if self._standing is not None:
            return await self._logged_answer(self._standing, identifier, version, zone, links)
        record = await self._storage.record(str(identifier), version)
        if record is not None:
            return _record_pb(links, record)
        if version and await self._storage.record(str(identifier)) is not None:
            raise _no_version(identifier, version)
        denial = self._deny(identifier, zone, DenialReason.IDENTIFIER_ABSENT, None)
        return wire.answer_to_pb(NodeAnswer(links, Denied(denial)))

    async def _logged_answer(
        self, standing: Standing, identifier: Identifier, version: int, zone: Prefix, links: tuple[Signed, ...]
    ) -> pb.NodeAnswer:
        """The answer with its proof and, for the latest version, the word that it is the latest."""
        stored, head = await standing.latest(identifier)
        if stored is None:
            denial = self._deny(identifier, zone, DenialReason.IDENTIFIER_ABSENT, head)
            return wire.answer_to_pb(NodeAnswer(links, Denied(denial)))
        is_latest = version in (0, stored.version)
        if not is_latest:
            stored = await self._storage.stored(str(identifier), version)
        if stored is None:
            raise _no_version(identifier, version)
        message = _record_pb(links, stored.record)
        proof = await standing.proof(zone, stored)
        if proof is not None:
            message.proof.CopyFrom(wire.proof_to_pb(proof))
        said = standing.currency(identifier, zone, stored, head) if is_latest else None
        if said is not None:
            message.currency.CopyFrom(wire.signed_to_pb(said))
        return message

    def _deny(self, identifier: Identifier, zone: Prefix, reason: DenialReason, head: LogHead | None) -> Signed:
        if self._standing is not None and head is not None:
            return self._standing.deny(identifier, zone, reason, head)
        now = self._clock()
        return sign(
            Kind.DENIAL, Denial(identifier, zone, reason, now, now + DENIAL_SECONDS_MAX).payload(), self._signer
        )

    async def ApplyPrefix(
        self, request: registry_pb2.ApplyPrefixRequest, context: Context
    ) -> registry_pb2.ApplyPrefixResponse:
        """File an application for a prefix."""
        enrolments = _signed_list(request.enrolments, APPLICATION_KEYS_MAX, "enrolments")
        application = wire.signed_from_pb(request.application, "application")
        grant = await self._grants.apply(request.idempotency_key, application, enrolments)
        return registry_pb2.ApplyPrefixResponse(status=_status_pb(grant.prefix, grant))

    async def GetPrefixStatus(
        self, request: registry_pb2.GetPrefixStatusRequest, context: Context
    ) -> registry_pb2.GetPrefixStatusResponse:
        """Tell how far a prefix has come."""
        prefix = Prefix.parse_canonical(request.prefix)
        grant = self._grants.grant(prefix)
        response = registry_pb2.GetPrefixStatusResponse(status=_status_pb(str(prefix), grant))
        if grant is not None:
            response.enrolments.extend(pb.Signed.FromString(signed) for signed in grant.enrolments)
            if grant.application:
                response.application.MergeFromString(grant.application)
        return response

    async def SetPrefixStatus(
        self, request: registry_pb2.SetPrefixStatusRequest, context: Context
    ) -> registry_pb2.SetPrefixStatusResponse:
        """Move a prefix by an administrator's signed command."""
        command = wire.signed_from_pb(request.command, "command")
        grant = await self._grants.move(request.idempotency_key, command)
        return registry_pb2.SetPrefixStatusResponse(status=_status_pb(grant.prefix, grant))

    async def Watch(
        self, request: registry_pb2.WatchRequest, context: Context
    ) -> AsyncGenerator[registry_pb2.WatchResponse]:
        """Tell what changes in a zone and below it."""
        zone = Prefix.parse_canonical(request.zone, field="zone")
        after = request.after if request.HasField("after") else None
        async with aclosing(self._changes.watch(zone, after)) as told:
            async for change in told:
                yield _told_pb(change)


class DelegationService(DelegationServiceServicer):
    """Delegations that this node's zones hand out, and its own."""

    def __init__(self, authority: Authority, grants: Grants) -> None:
        self._authority = authority
        self._grants = grants

    async def Delegate(
        self, request: delegation_pb2.DelegateRequest, context: Context
    ) -> delegation_pb2.DelegateResponse:
        """Hand out a zone for the first time."""
        return delegation_pb2.DelegateResponse(delegation_hash=await self._hand_out(Step.DELEGATE, request))

    async def Rotate(self, request: delegation_pb2.RotateRequest, context: Context) -> delegation_pb2.RotateResponse:
        """Replace a delegation."""
        return delegation_pb2.RotateResponse(delegation_hash=await self._hand_out(Step.ROTATE, request))

    async def Revoke(self, request: delegation_pb2.RevokeRequest, context: Context) -> delegation_pb2.RevokeResponse:
        """Take a zone back."""
        signed = wire.signed_from_pb(request.delegation, "delegation")
        hashed = await self._grants.delegate(Step.REVOKE, request.idempotency_key, signed, ())
        return delegation_pb2.RevokeResponse(delegation_hash=hashed)

    async def _hand_out(
        self, step: Step, request: delegation_pb2.DelegateRequest | delegation_pb2.RotateRequest
    ) -> bytes:
        enrolments = _signed_list(request.enrolments, ENROLMENTS_MAX, "enrolments")
        signed = wire.signed_from_pb(request.delegation, "delegation")
        return await self._grants.delegate(step, request.idempotency_key, signed, enrolments)

    async def Get(
        self, request: delegation_pb2.DelegationServiceGetRequest, context: Context
    ) -> delegation_pb2.DelegationServiceGetResponse:
        """Give the chain down to a zone, as far as it is delegated."""
        prefix = Prefix.parse_canonical(request.prefix)
        zone = self._authority.zone_of(prefix)
        links = self._authority.chain_of(zone) if zone is not None else ()
        return delegation_pb2.DelegationServiceGetResponse(
            chain=[wire.signed_to_pb(link.signed) for link in links],
            status=_status_pb(str(prefix), self._grants.grant(prefix)),
        )


Taken = Proposal | Result
_Write = registry_pb2.RegisterRequest | registry_pb2.UpdateRequest | registry_pb2.RetireRequest


def _refused(error: IdtraceError) -> registry_pb2.RegisterBatchResult:
    code, reason, field, detail = item_error(error)
    return registry_pb2.RegisterBatchResult(
        error=registry_pb2.ItemError(code=code, reason=reason, field=field, detail=detail)
    )


def _no_version(identifier: Identifier, version: int) -> RefusedError:
    """A denial speaks of the identifier for ever after; this one lives."""
    return RefusedError(Reason.VERSION_UNKNOWN, f"{identifier} has no version {version}", field="version")


def _record_pb(links: Sequence[Signed], stored: bytes) -> pb.NodeAnswer:
    """The answer with a stored record, as anybody may read it."""
    if _RESTRICTED in stored:
        return wire.answer_to_pb(NodeAnswer(tuple(links), public_part(wire.record_from_bytes(stored))))
    message = pb.NodeAnswer(delegations=[wire.signed_to_pb(signed) for signed in links])
    message.record.MergeFromString(stored)
    return message


def public_part(record: Record) -> Record:
    """The record without the values that not everybody may read; the rest still verifies."""
    body = RecordBody.parse(record.signed.payload)
    public = {digest.index for digest in body.values if digest.permission is Permission.PUBLIC}
    return replace(record, values=tuple(value for value in record.values if value.index in public))


@lru_cache(maxsize=16)  # those who watch one zone are told the same; 16 full parts are a few MB
def _told_pb(told: Change) -> registry_pb2.WatchResponse:
    changes = [registry_pb2.Change(prefix=name, version=version) for name, version in told.prefixes]
    changes += [registry_pb2.Change(identifier=name, version=version) for name, version in told.identifiers]
    changes += [registry_pb2.Change(events=name) for name in told.events]
    return registry_pb2.WatchResponse(sequence=told.sequence, changes=changes, next_within_ms=NEXT_WITHIN_MS)


def _signed_list(messages: Sequence[pb.Signed], most: int, field: str) -> list[Signed]:
    if len(messages) > most:
        raise InputError(Reason.FIELD_TOO_LARGE, f"more than {most}", field=field)
    return [wire.signed_from_pb(message, f"{field}[{n}]") for n, message in enumerate(messages)]


def _status_pb(prefix: str, grant: Grant | None) -> registry_pb2.PrefixStatus:
    if grant is None:
        return registry_pb2.PrefixStatus(prefix=prefix)
    return registry_pb2.PrefixStatus(
        prefix=prefix,
        status=grant.status,
        hosted=grant.hosted,
        comment=grant.comment,
        changed_at=grant.changed_at,
    )

"""The gRPC edge of a resolver: parse, call, answer. Errors are raised and become statuses in the edge's interceptor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc.aio

from idtrace import wire
from idtrace.bundle import Verdict
from idtrace.errors import IdtraceError, InputError, Reason, RefusedError
from idtrace.identifier import Identifier
from idtrace.record import TIME_MAX
from idtrace.scan import scan
from idtrace.serving.errors import item_error
from idtrace.v1 import resolver_pb2 as pb
from idtrace.v1 import resolver_pb2_grpc
from idtrace.verification import Report, verify_bundle
from resolver.driver import Answer, Resolver, Source
from resolver.holders import Holders
from resolver.holders_service import asked_recall, holder_parts
from resolver.judge_service import judged_to_pb
from resolver.judging import Judging
from resolver.trace_service import parts
from resolver.tracing import Tracer

# The longest text that a scanner or a browser hands over in one piece; measured in UTF-8.
TEXT_BYTES_MAX: Final = 2_048
# One pallet's labels; a batch of more is cut by the caller, who sees progress.
BATCH_MAX: Final = 256
# Of one batch under way at once: 16 batches fill the resolver's bound on walks, and no one batch does.
BATCH_CONCURRENCY: Final = 64
_MS_MAX: Final = 2**32 - 1

_VERDICTS: Final = {
    Verdict.FOUND: pb.VERDICT_FOUND,
    Verdict.ABSENT: pb.VERDICT_ABSENT,
    Verdict.GONE: pb.VERDICT_GONE,
    Verdict.UNREACHABLE: pb.VERDICT_UNREACHABLE,
    Verdict.BOGUS: pb.VERDICT_BOGUS,
}
_SOURCES: Final = {
    Source.CACHE: pb.SOURCE_CACHE,
    Source.WALK: pb.SOURCE_WALK,
    Source.SHARED: pb.SOURCE_SHARED,
}


class ResolverService(resolver_pb2_grpc.ResolverServiceServicer):
    """``idtrace.v1.ResolverService`` over one :class:`Resolver`."""

    def __init__(
        self,
        resolver: Resolver,
        clock: Callable[[], float] = time.time,
        tracer: Tracer | None = None,
        judging: Judging | None = None,
        holders: Holders | None = None,
    ) -> None:
        self._resolver = resolver
        self._holders = holders
        self._tracer = tracer
        self._judging = judging
        self._clock = clock

    async def Resolve(
        self, request: pb.ResolveRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ResolveResponse:
        """Resolve one scanned text.

        Raises:
            InputError: the text is no identifier.
            BusyError: too many walks are under way.
        """
        del context
        return await self._resolve(request)

    async def ResolveBatch(
        self, request: pb.ResolveBatchRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ResolveBatchResponse:
        """Resolve 1 to 256 texts at the same time; each succeeds or fails alone.

        Raises:
            InputError: FIELD_MISSING or BATCH_TOO_LARGE.
        """
        del context
        if not request.items:
            raise InputError(Reason.FIELD_MISSING, "a batch has at least one item", field="items")
        if len(request.items) > BATCH_MAX:
            raise InputError(Reason.BATCH_TOO_LARGE, f"a batch has at most {BATCH_MAX} items", field="items")
        slots = asyncio.Semaphore(BATCH_CONCURRENCY)

        async def one(position: int, item: pb.ResolveRequest) -> pb.ResolveBatchResult:
            async with slots:
                try:
                    return pb.ResolveBatchResult(response=await self._resolve(item))
                except IdtraceError as error:
                    code, reason, field, detail = item_error(error)
                    where = f"items[{position}].{field}" if field else ""
                    return pb.ResolveBatchResult(
                        error=pb.ResolveError(code=code, reason=reason, field=where, detail=detail)
                    )

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(position, item)) for position, item in enumerate(request.items)]
        return pb.ResolveBatchResponse(results=[task.result() for task in tasks])

    async def Verify(self, request: pb.VerifyRequest, context: grpc.aio.ServicerContext[Any, Any]) -> pb.VerifyResponse:
        """Verify a bundle against this resolver's root key.

        Raises:
            InputError: the bytes are no bundle, or the time is none.
        """
        del context
        if not 0 <= request.at <= TIME_MAX:
            raise InputError(Reason.FIELD_MALFORMED, f"at is within 0 and {TIME_MAX}", field="at")
        bundle = wire.bundle_from_bytes(request.bundle)
        return _report_to_pb(verify_bundle(bundle, self._resolver.anchor, now=request.at or int(self._clock())))

    async def Trace(
        self, request: pb.TraceRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.TraceResponse]:
        """Tell where a thing has been.

        Raises:
            InputError: the text is no identifier.
            RefusedError: NOT_AUTHORITATIVE where this resolver does not trace.
            BusyError: too many traces or walks are under way.
        """
        del context
        if self._tracer is None:
            raise RefusedError(Reason.NOT_AUTHORITATIVE, "this resolver does not trace")
        traced = await self._tracer.trace(_identifier(request.text))
        for part in parts(traced):
            yield part

    async def Judge(self, request: pb.JudgeRequest, context: grpc.aio.ServicerContext[Any, Any]) -> pb.JudgeResponse:
        """Say whether a thing may be used.

        Raises:
            InputError: the text is no identifier, or the evidence is too large.
            RefusedError: NOT_AUTHORITATIVE where this resolver does not judge.
            BusyError: too many verdicts, traces or walks are under way.
        """
        del context
        if self._judging is None:
            raise RefusedError(Reason.NOT_AUTHORITATIVE, "this resolver does not judge")
        judged = await self._judging.judge(_identifier(request.text), fresh=request.fresh)
        evidence = self._judging.evidence(judged) if request.evidence else b""
        return judged_to_pb(judged, self._judging.policy, evidence)

    async def WhoHolds(
        self, request: pb.WhoHoldsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.WhoHoldsResponse]:
        """Tell who has what a recall reaches.

        Raises:
            InputError: zone or name is missing or malformed.
            RefusedError: NOT_AUTHORITATIVE where this resolver does not trace, RECALL_ABSENT.
            BusyError: too many searches or walks are under way, or the zone's node is silent.
            VerificationError: the zone's node lies.
        """
        del context
        if self._holders is None:
            raise RefusedError(Reason.NOT_AUTHORITATIVE, "this resolver does not trace")
        for part in holder_parts(await self._holders.who_holds(*asked_recall(request))):
            yield part

    async def _resolve(self, request: pb.ResolveRequest) -> pb.ResolveResponse:
        answer = await self._resolver.resolve(_identifier(request.text), fresh=request.fresh)
        return answer_to_pb(answer)


def _identifier(text: str) -> Identifier:
    if not text:
        raise InputError(Reason.FIELD_MISSING, "there is no text to resolve", field="text")
    if len(text) > TEXT_BYTES_MAX or len(text.encode()) > TEXT_BYTES_MAX:
        raise InputError(Reason.FIELD_TOO_LARGE, f"a text has at most {TEXT_BYTES_MAX} bytes", field="text")
    return scan(text).identifier


def answer_to_pb(answer: Answer) -> pb.ResolveResponse:
    """Domain to message."""
    resolution = answer.resolution
    return pb.ResolveResponse(
        identifier=str(resolution.identifier),
        verdict=_VERDICTS[resolution.verdict],
        reason=str(resolution.reason or ""),
        detail=resolution.detail,
        bundle=wire.bundle_to_pb(resolution.bundle) if resolution.bundle else None,
        source=_SOURCES[answer.source],
        age_ms=min(answer.age_ms, _MS_MAX),
        ttl_ms=min(answer.ttl_ms, _MS_MAX),
        # An answer from the cache took none; one that was shared took those of the walk.
        upstream_calls=0 if answer.source is Source.CACHE else resolution.upstream_calls,
        unfollowed_ms=None if answer.unfollowed_ms is None else min(answer.unfollowed_ms, _MS_MAX),
    )


def _report_to_pb(report: Report) -> pb.VerifyResponse:
    checks = [
        pb.Check(
            name=check.name,
            passed=check.passed,
            reason=str(check.reason or ""),
            detail=check.detail,
            not_made=not check.made,
        )
        for check in report.checks
    ]
    return pb.VerifyResponse(valid=report.valid, verdict=_VERDICTS[report.verdict], checks=checks)

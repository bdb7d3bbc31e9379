"""The gRPC edge of capture: requests to records, fates to results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

from idtrace import wire
from idtrace.errors import BusyError, IdtraceError, InputError, Reason, RefusedError
from idtrace.record import Record
from idtrace.v1 import capture_pb2 as cb
from idtrace.v1 import capture_pb2_grpc, registry_pb2
from idtrace.v1 import record_pb2 as pb
from registry.capture_jobs import PAGE_DEFAULT, Job, Refusal
from registry.capturing import Capturing, Fate, Kept, refusal, require_event
from registry.receipts import Receipts, check_level
from registry.sealing import Sealing
from registry.sequencer import BATCH_MAX, Result
from registry.storage import Storage

# A sender that has nothing to say for so long opens another stream; a node has 1,024 of them.
SILENCE_SECONDS_MAX: Final = 60.0

Context = Any  # grpc.aio.ServicerContext is generic in types that the generated base class leaves open


class CaptureService(capture_pb2_grpc.CaptureServiceServicer):
    """Captures events, and tells how captures went."""

    def __init__(
        self,
        storage: Storage,
        capturing: Capturing,
        sealing: Sealing,
        receipts: Receipts,
        *,
        deadline_seconds_max: float,
        silence_seconds_max: float = SILENCE_SECONDS_MAX,
    ) -> None:
        self._storage = storage
        self.capturing = capturing  # for other edges of the node: the same core
        self._sealing = sealing
        self._receipts = receipts
        self._deadline_seconds_max = deadline_seconds_max
        self._silence_seconds_max = silence_seconds_max

    async def Capture(self, request: cb.CaptureRequest, context: Context) -> cb.CaptureResponse:
        """Capture the events of one call."""
        remaining = min(context.time_remaining(), self._deadline_seconds_max)
        due = asyncio.get_running_loop().time() + remaining
        check_level(request.wait_for)
        rollback = _rolls_back(request.error_behaviour)
        match request.WhichOneof("events"):
            case "signed":
                job, fates = await self.capturing.capture(_records(request.signed.records), rollback=rollback)
                return cb.CaptureResponse(job_id=job.name, results=await self._results(fates, request.wait_for, due))
            case "sealed":
                return await self._sealed(request, due, rollback=rollback)
            case _:
                raise InputError(Reason.FIELD_MISSING, "a capture has events, signed or sealed", field="events")

    async def CaptureStream(
        self, request_iterator: AsyncIterator[cb.CaptureStreamRequest], context: Context
    ) -> AsyncGenerator[cb.CaptureStreamResponse]:
        """Capture message after message, each answered before the next is read."""
        while True:
            try:
                async with asyncio.timeout(self._silence_seconds_max):
                    request = await anext(request_iterator)
            except StopAsyncIteration:
                return
            except TimeoutError:
                detail = f"nothing came for {self._silence_seconds_max:.0f} s; open another stream"
                raise BusyError(Reason.OVERLOADED, detail) from None
            due = asyncio.get_running_loop().time() + self._deadline_seconds_max
            _, fates = await self.capturing.capture(_records(request.records), rollback=False)
            unwitnessed = pb.RECEIPT_LEVEL_UNSPECIFIED
            yield cb.CaptureStreamResponse(results=await self._results(fates, unwitnessed, due))

    async def GetJob(self, request: cb.GetJobRequest, context: Context) -> cb.GetJobResponse:
        """Tell how a job went."""
        return cb.GetJobResponse(job=_job_pb(self.capturing.jobs.get(request.job_id)))

    async def ListJobs(self, request: cb.ListJobsRequest, context: Context) -> cb.ListJobsResponse:
        """List jobs, the latest first."""
        jobs, following = self.capturing.jobs.page(request.page_size or PAGE_DEFAULT, request.page_token)
        return cb.ListJobsResponse(jobs=[_job_pb(job) for job in jobs], next_page_token=following)

    async def _sealed(self, request: cb.CaptureRequest, due: float, *, rollback: bool) -> cb.CaptureResponse:
        """As ``RegisterSealed``, but that an event which is here already is a success."""
        sealed = request.sealed
        names = [
            str(require_event(item.payload, field=f"sealed.items[{index}]")) for index, item in enumerate(sealed.items)
        ]
        here = await self.capturing.here(names)
        sending = registry_pb2.RegisterSealedRequest(
            idempotency_key=sealed.idempotency_key, seal=sealed.seal, items=sealed.items, wait_for=request.wait_for
        )
        results: list[Result] = []

        async def decide() -> list[Fate]:
            nonlocal here
            if not names or not all(name in here for name in names):
                results.extend(await self._decided(sending, [name in here for name in names], whole=rollback))
                here = await self.capturing.here(names)
            kept: Sequence[Result] = results or [b""] * len(names)
            return [_sealed_fate(result, name, here) for result, name in zip(kept, names, strict=True)]

        before = frozenset(here)
        job, fates = await self.capturing.under_job(decide, rollback=rollback)
        response = cb.CaptureResponse(job_id=job.name)
        if any(isinstance(result, bytes) for result in results):
            told = await self._sealing.respond(results, sending, due)
            response.checkpoint, response.level = told.checkpoint, told.level
        for index, fate in enumerate(fates):
            result = response.results.add(identifier=names[index])
            if isinstance(fate, IdtraceError):
                result.refusal.CopyFrom(_refusal_pb(refusal(index, fate)))
            else:
                result.captured.repeated_event = fate.identifier in before
                result.captured.log_position = await self._position(fate.identifier)
        return response

    async def _decided(
        self, sending: registry_pb2.RegisterSealedRequest, is_here: Sequence[bool], *, whole: bool
    ) -> list[Result]:
        """Where too many are here already for one seal's entry to name, the others want a seal without those."""
        try:
            return await self._sealing.decide(sending, whole=whole)
        except RefusedError as error:
            if error.reason is not Reason.SEAL_REFUSED or not any(is_here):
                raise
            taken = RefusedError(Reason.IDENTIFIER_TAKEN, "it is captured already", field="record.identifier")
            return [taken if known else error for known in is_here]

    async def _results(self, fates: Sequence[Fate], wait_for: int, due: float) -> list[cb.EventResult]:
        signed = [fate.receipt for fate in fates if isinstance(fate, Kept) and fate.receipt]
        receipts = iter(await self._receipts.of(signed, wait_for, due))
        results = []
        for index, fate in enumerate(fates):
            if isinstance(fate, IdtraceError):
                results.append(cb.EventResult(refusal=_refusal_pb(refusal(index, fate))))
                continue
            captured = cb.CapturedEvent(repeated_event=fate.repeated)
            if fate.receipt:
                captured.receipt.CopyFrom(next(receipts))
            captured.log_position = await self._position(fate.identifier)
            results.append(cb.EventResult(identifier=fate.identifier, captured=captured))
        return results

    async def _position(self, identifier: str) -> int:
        stored = await self._storage.stored(identifier, 1)
        return 0 if stored is None or stored.index is None else stored.index + 1


def _records(messages: Sequence[pb.Record]) -> list[Record | IdtraceError]:
    if not 0 < len(messages) <= BATCH_MAX:
        detail = f"a capture has 1 to {BATCH_MAX} events, this one {len(messages)}"
        raise InputError(Reason.BATCH_TOO_LARGE, detail, field="records")
    return [_each(_record, message) for message in messages]


def _record(message: pb.Record) -> Record:
    record = wire.record_from_pb(message)
    if record.sealed is not None:
        rule = "an event under a seal is captured with its batch"
        raise InputError(Reason.FIELD_MALFORMED, rule, field="record.sealed")
    return record


def _each(read: Callable[[pb.Record], Record], message: pb.Record) -> Record | IdtraceError:
    try:
        return read(message)
    except IdtraceError as error:
        return error


def _sealed_fate(result: Result, name: str, here: Mapping[str, Kept]) -> Fate:
    if isinstance(result, IdtraceError) and not (result.reason is Reason.IDENTIFIER_TAKEN and name in here):
        return result
    return here[name]


def _rolls_back(behaviour: int) -> bool:
    if behaviour not in cb.ErrorBehaviour.values():
        raise InputError(Reason.FIELD_MALFORMED, f"there is no behaviour {behaviour}", field="error_behaviour")
    return behaviour != cb.ERROR_BEHAVIOUR_PROCEED


def _refusal_pb(one: Refusal) -> cb.EventRefusal:
    error = registry_pb2.ItemError(code=one.code, reason=one.reason, field=one.field, detail=one.detail)
    return cb.EventRefusal(error=error, index=one.index, rule=one.rule)


def _job_pb(job: Job) -> cb.CaptureJob:
    behaviour = cb.ERROR_BEHAVIOUR_ROLLBACK if job.rollback else cb.ERROR_BEHAVIOUR_PROCEED
    return cb.CaptureJob(
        job_id=job.name,
        created_at_ms=job.created_ms,
        finished_at_ms=job.finished_ms,
        running=job.running,
        success=job.success,
        error_behaviour=behaviour,
        events=job.events,
        captured=job.captured,
        errors=[_refusal_pb(one) for one in job.errors],
        error_count=job.error_count,
    )

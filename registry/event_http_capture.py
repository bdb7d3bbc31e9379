"""Capture over HTTP (EPCIS 2.0, section 12.6): documents as jobs, single events at once.

The node signs what comes in here with the key of its configuration, as the one party that it names: whoever has a
token speaks for that party. A document is read before it is answered, so that what is malformed as a whole is refused
at once; what becomes of its events is told by its job. A job that the node's end cuts short says so after the next
start, and the same document sent again finds what is kept and keeps the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final
from urllib.parse import quote

import grpc
import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from idtrace.epcis.model import Event
from idtrace.epcis.parse import EventError
from idtrace.epcis.rules import DOCUMENT_BYTES_MAX
from idtrace.epcis.values import time_text
from idtrace.errors import IdtraceError
from idtrace.identifier import Prefix
from registry.capture_jobs import PAGE_DEFAULT, PAGE_MAX, Job, Refusal
from registry.capturing import Capturing, read_items
from registry.event_http_edge import Bodies, paging_of
from registry.event_http_headers import CAPTURE_DISCOVERY, document_type, rolls_back
from registry.event_http_paging import PageTokens
from registry.event_http_problems import RETRY_AFTER_SECONDS, Standard, parameters, refuse

log = structlog.get_logger(__name__)

# Documents that are worked on at once; the sequencer takes them one after another anyhow.
JOBS_AT_ONCE: Final = 32
# To read 64 KiB takes 20 ms; what is larger would keep the loop, and goes to a thread.
READ_INLINE_BYTES_MAX: Final = 65_536
# For jobs under way when the node stops.
DRAIN_SECONDS: Final = 3.0


class CapturePages:
    """The resources ``/capture`` and ``POST /events`` of a node. Belongs to one event loop."""

    def __init__(
        self, capturing: Capturing, party: Prefix | None, tokens: PageTokens, now_ms: Callable[[], int]
    ) -> None:
        self._capturing = capturing
        self._party = party
        self._tokens = tokens
        self._now_ms = now_ms
        self._bodies = Bodies()
        self._running: set[asyncio.Task[None]] = set()

    async def post_document(self, request: Request) -> Response:
        """Begin a job: 202, and where to ask how it went."""
        party, rollback = self._require_party(), rolls_back(request)
        if len(self._running) >= JOBS_AT_ONCE:
            headers = {"retry-after": str(RETRY_AFTER_SECONDS)}
            raise refuse(503, Standard.IMPLEMENTATION, "too many jobs are under way; come again", headers=headers)
        async with AsyncExitStack() as held:
            items = await self._items(request, held)
            job = self._capturing.jobs.begin(rollback=rollback)
            working = asyncio.create_task(self._work(job, items, party, held.pop_all()), name=f"capture {job.name}")
        self._running.add(working)
        working.add_done_callback(self._running.discard)
        return Response(status_code=202, headers={**CAPTURE_DISCOVERY, "location": f"/capture/{job.name}"})

    async def post_event(self, request: Request) -> Response:
        """Capture one bare event: 201, and where it is. The same event again is the same answer."""
        party = self._require_party()
        async with AsyncExitStack() as held:
            items = await self._items(request, held)
            if len(items) != 1:
                detail = f"one event is captured here, these are {len(items)}: POST /capture takes documents"
                raise refuse(400, Standard.VALIDATION, detail, field="document")
            _, (fate,) = await self._capturing.capture_items(items, rollback=False, party=party)
        if isinstance(fate, IdtraceError):
            raise fate
        return Response(status_code=201, headers={"location": event_path(fate.identifier)})

    async def get_jobs(self, request: Request) -> Response:
        """The jobs of this node's callers, the latest first, in pages."""
        paging = paging_of(request, self._tokens, self._now_ms())
        with parameters():
            paging.require_no_others()
            jobs, following = self._capturing.jobs.page(paging.size(PAGE_DEFAULT, PAGE_MAX), paging.cursor())
        return JSONResponse([job_json(job) for job in jobs], headers=paging.next(following or None))

    async def get_job(self, request: Request) -> Response:
        """How one job went, or that it runs."""
        return JSONResponse(job_json(self._capturing.jobs.get(request.path_params["job"])))

    async def close(self) -> None:
        """Let the jobs that run end, but not for ever; those that are cut short are kept as unknown."""
        if self._running:
            await asyncio.wait(self._running, timeout=DRAIN_SECONDS)
        for left in self._running:
            left.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _require_party(self) -> Prefix:
        self._capturing.require_signer()
        assert self._party is not None, "a key has its party (registry/config.py)"
        return self._party

    async def _items(self, request: Request, held: AsyncExitStack) -> Sequence[Event | EventError]:
        """The events of a body, which counts among all bodies until ``held`` is closed."""
        media_type = document_type(request)
        data = await held.enter_async_context(self._bodies.read(request, DOCUMENT_BYTES_MAX))
        if len(data) <= READ_INLINE_BYTES_MAX:
            return read_items(data, media_type)
        return await asyncio.to_thread(read_items, data, media_type)

    async def _work(self, job: Job, items: Sequence[Event | EventError], party: Prefix, held: AsyncExitStack) -> None:
        async with held:
            try:
                await self._capturing.capture_items(items, rollback=job.rollback, party=party, job=job)
            except IdtraceError as error:
                log.info("capture refused", job=job.name, reason=str(error.reason))  # the job says it too
            except Exception:  # the edge of a job: it has ended as unknown, and the node lives
                log.exception("capture failed", job=job.name)


def event_path(identifier: str) -> str:
    """Where an event is served."""
    return f"/events/{quote(identifier, safe='')}"


def job_json(job: Job) -> dict[str, Any]:
    """A job as the standard's EPCISCaptureJob, with how many events it had besides."""
    told = {
        "captureID": job.name,
        "createdAt": time_text(job.created_ms),
        "running": job.running,
        "success": job.success,
        "captureErrorBehaviour": "rollback" if job.rollback else "proceed",
        "errors": [_error_json(one) for one in job.errors],
        "errorCount": job.error_count,
        "eventCount": job.events,
        "capturedCount": job.captured,
    }
    return told if job.running else {**told, "finishedAt": time_text(job.finished_ms)}


def _error_json(one: Refusal) -> dict[str, Any]:
    """One refused event of a job: as it would have been told at once (``idtrace/serving/errors.py`` has its codes)."""
    kind = _BY_CODE.get(one.code, Standard.IMPLEMENTATION)
    members = {"index": one.index, "reason": one.reason, "field": one.field, "rule": one.rule}
    said = {name: value for name, value in members.items() if value != ""}
    return {"type": kind, "title": kind.partition(":")[2], "detail": one.detail, **said}


_BY_CODE: Final = {
    grpc.StatusCode.INVALID_ARGUMENT.value[0]: Standard.VALIDATION,
    grpc.StatusCode.ABORTED.value[0]: Standard.VALIDATION,  # rolled back for another's fault
    grpc.StatusCode.FAILED_PRECONDITION.value[0]: Standard.SECURITY,  # licences and holdings
    grpc.StatusCode.NOT_FOUND.value[0]: Standard.SECURITY,  # the party is none of this node's
    grpc.StatusCode.PERMISSION_DENIED.value[0]: Standard.SECURITY,
}

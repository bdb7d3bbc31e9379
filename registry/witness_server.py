"""Runs a witness: ``add-checkpoint`` of C2SP tlog-witness over HTTP, and a page for whoever watches the watcher.

A request is parsed and judged by :mod:`idtrace.witnessing`; the state is swapped durably; only then is it signed. Two
requests for one log that cross are put in order by the swap: the second is judged again, on what the first has left.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar, TypeVarTuple

import structlog
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from idtrace.errors import InputError, OutcomeUnknownError, Reason
from idtrace.note import NoteKey, NoteSigner
from idtrace.serving.http import HttpCounts, application, problem, serve_http
from idtrace.witnessing import (
    ADD_CHECKPOINT_PATH,
    REQUEST_BYTES_MAX,
    TEXT_TYPE,
    Accepted,
    AddCheckpoint,
    Refused,
    Seen,
    cosign,
    decide,
    malformed,
)
from registry.witness_config import WitnessConfig, load_cosigner, load_logs
from registry.witness_store import Evidence, WitnessStore, read_evidence

log = structlog.get_logger(__name__)
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

HEALTH_PATH: Final = "/health"
# A log has one request under way; three of its nodes that cross are a fault of theirs, and each is heard.
JUDGED_MAX: Final = 4
_LATER: Final = {"retry-after": "1"}


class Witness:
    """The pages of a witness. Belongs to one event loop; the store has a thread of its own."""

    def __init__(
        self,
        store: WitnessStore,
        logs: Mapping[str, Sequence[NoteKey]],
        signers: Sequence[NoteSigner],
        clock: Callable[[], int],
        *,
        in_flight_max: int,
    ) -> None:
        self._store = store
        self._logs = logs
        self._signers = signers
        self._clock = clock
        self._in_flight_max = in_flight_max
        self._in_flight = 0
        self._thread = ThreadPoolExecutor(1, "witness-store")
        self.counts = HttpCounts()
        self.forks = 0

    def application(self) -> Starlette:
        """The pages at the root of their port, which is the submission prefix."""
        return application(
            [
                Route(f"/{ADD_CHECKPOINT_PATH}", self._add_checkpoint, methods=["POST"]),
                Route(HEALTH_PATH, self._health, methods=["GET"]),
            ]
        )

    async def close(self) -> None:
        """Finish what the store is doing and close it."""
        await self._on_thread(self._store.close)
        self._thread.shutdown()

    async def _on_thread(self, work: Callable[[*Ts], T], *given: *Ts) -> T:
        """Run on the store's thread, to the end even where the caller leaves."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work, *given))

    async def _add_checkpoint(self, request: Request) -> Response:
        if self._in_flight >= self._in_flight_max:
            return problem(503, "too many checkpoints at once", Reason.OVERLOADED, _LATER)
        self._in_flight += 1
        try:
            body = await _read(request)
            return await self._answer(AddCheckpoint.parse(body))
        except InputError as error:
            return _refusal(malformed(error))
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        except OutcomeUnknownError as error:
            log.error("nothing was signed", error=error.detail)  # noqa: TRY400 - the place is known
            return problem(503, "the witness cannot keep its state", error.reason, _LATER)
        finally:
            self._in_flight -= 1

    async def _answer(self, request: AddCheckpoint) -> Response:
        origin, text = request.checkpoint.origin, request.note.text
        keys = self._logs.get(origin, ())
        for _ in range(JUDGED_MAX):
            verdict = decide(request, keys, await self._on_thread(self._store.seen, origin) if keys else Seen())
            if isinstance(verdict, Refused):
                await self._note_fork(request, verdict)
                return _refusal(verdict)
            able = [signer for signer in self._signers if _can_sign(signer, text)]
            if not able:
                detail = "no key of this witness can cosign a checkpoint with extension lines"
                return _refusal(Refused(400, Reason.CHECKPOINT_MALFORMED, detail))
            if await self._on_thread(self._store.swap, verdict):
                return self._cosigned(verdict, able)
        return problem(503, "other checkpoints of this log came in between", Reason.WRITE_CONFLICT, _LATER)

    def _cosigned(self, accepted: Accepted, able: Sequence[NoteSigner]) -> Response:
        return Response(cosign(accepted, able, now=self._clock()), 200, media_type=TEXT_TYPE)

    async def _note_fork(self, request: AddCheckpoint, refused: Refused) -> None:
        if refused.reason is Reason.LOG_INCONSISTENT:
            self.forks += 1
            if await self._on_thread(self._store.keep_evidence, request, self._clock()):
                log.error("a log has forked", origin=request.checkpoint.origin, size=request.checkpoint.size)

    async def _health(self, _request: Request) -> Response:
        try:
            seen = await self._on_thread(self._store.sizes)
        except OutcomeUnknownError as error:
            return problem(503, "the witness cannot read its state", error.reason)
        body = {
            "status": "ok",
            "keys": [str(signer.key) for signer in self._signers],
            "logs": {origin: seen.get(origin, 0) for origin in self._logs},
            "answers": {str(status): count for status, count in sorted(self.counts.by_status.items())},
            "forks": self.forks,
        }
        return Response(json.dumps(body).encode(), 200, {"cache-control": "no-store"}, "application/json")


def _can_sign(signer: NoteSigner, text: str) -> bool:
    try:
        signer.key.signed_bytes(text)
    except InputError:
        return False
    return True


async def _read(request: Request) -> bytes:
    """The body; of one that is too long only so much that the parser refuses it."""
    read = bytearray()
    async for piece in request.stream():
        read += piece
        if len(read) > REQUEST_BYTES_MAX:
            break
    return bytes(read)


def _refusal(refused: Refused) -> Response:
    headers = {
        "content-type": refused.content_type
    }  # given as a media type, Starlette adds a charset to text/x.tlog.size
    if refused.reason is Reason.FIELD_TOO_LARGE:
        headers["connection"] = "close"  # what was not read of the body would be taken for the next request
    return Response(refused.body, refused.status, headers)


def kept_evidence(config: WitnessConfig) -> list[Evidence]:
    """The forks that this witness has seen, whether it runs now or not.

    Raises:
        InputError: FIELD_MALFORMED where its state cannot be read.
    """
    return read_evidence(config.state)


async def run(
    config: WitnessConfig,
    clock: Callable[[], int],
    *,
    stop: asyncio.Event,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Run a witness until ``stop`` is set; ``clock`` tells s since 1970.

    Raises:
        InputError: a key file, the list of logs, the state or the address cannot be used; the field says which.
    """
    signers = [load_cosigner(path) for path in config.keys]
    logs = load_logs(config.logs)
    own = {signer.key.raw for signer in signers}
    if len(own) != len(signers) or any(key.raw in own for keys in logs.values() for key in keys):
        raise InputError(Reason.KEY_MALFORMED, "each key stands once, and for a witness or for a log", field="keys")
    witness = Witness(WitnessStore(config.state), logs, signers, clock, in_flight_max=config.in_flight_max)
    log.info("witness", keys=[str(signer.key) for signer in signers], logs=sorted(logs))
    try:
        await serve_http(witness.application(), config.listen, stop=stop, on_ready=on_ready, counts=witness.counts)
    finally:
        await witness.close()

"""Asks the witnesses over HTTP, keeps what they have cosigned, and tells who waits for it.

The order is the promise: enough cosignatures, then the checkpoint with them is durable in the store, then it is
published and those who wait are told. What decides stands in :mod:`registry.cosigning`; here is the network, the clock
and the folder in which evidence of a fork is kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Final, Protocol, TypeVar

import httpx
import structlog

from idtrace.errors import IdtraceError, Reason
from idtrace.logpolicy import LogPolicy
from idtrace.note import Note
from idtrace.witnessing import AddCheckpoint
from registry.cosigning import Answer, Ask, Cosigned, Cosigning, Failed, Forked, Heard, Stale, Witnessed
from registry.log_reading import LogReading
from registry.logbook import Edge

log = structlog.get_logger(__name__)
T = TypeVar("T")

# A witness answers in milliseconds; one that takes longer than this holds nobody up, if the quorum is met without it.
ANSWER_SECONDS: Final = 5.0
# Two cosignatures of ML-DSA-44 for each of two keys have 14 kB; lines by others are dropped anyway.
ANSWER_BYTES_MAX: Final = 65_536
# Each is two checkpoints and a few lines. One a witness and tree is enough; more of them prove nothing new.
EVIDENCE_FILES_MAX: Final = 256
# A store that is away is asked again after this long: its nodes are restarted within seconds.
STORE_PAUSE_SECONDS: Final = 0.5


class WitnessedStore(Protocol):
    """What of the store is needed; see :class:`registry.storage.Storage`."""

    async def log_edge(self) -> Edge:
        """Head of the log, with its last checkpoint."""
        ...

    async def witnessed(self) -> bytes | None:
        """The checkpoint that was kept last with :meth:`put_witnessed`."""
        ...

    async def put_witnessed(self, size: int, note: bytes) -> None:
        """Keep it durably, unless one of a larger tree is kept."""
        ...


@dataclass(slots=True)
class WitnessCounts:
    """What has happened since the start, for a page of metrics."""

    asked: int = 0
    cosigned: int = 0
    stale: int = 0
    failed: int = 0
    forked: int = 0
    published: int = 0


class Witnesses:
    """The witnesses of one log. Belongs to one event loop; :meth:`run` is its one task and ends by being cancelled."""

    def __init__(
        self,
        policy: LogPolicy,
        reading: LogReading,
        store: WitnessedStore,
        evidence: Path,
        clock: Callable[[], int],
        *,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        """Take a policy whose witnesses have addresses, and the folder for evidence (made when there is some).

        Raises:
            InputError: POLICY_MALFORMED.
        """
        self._cosigning = Cosigning(policy)
        self._reading = reading
        self._store = store
        self._evidence = evidence
        self._clock = clock
        self._answer_seconds = answer_seconds
        self._has_grown = True
        self._heard: deque[tuple[Ask, Answer | str]] = deque()  # one at most for each witness
        self._woken = asyncio.Event()
        self._published = asyncio.Event()  # replaced at each publication, so everybody who waits is told once
        self._failing: dict[str, Reason] = {}
        self._size = 0
        self._note = b""
        self._has_ended = False
        self.counts = WitnessCounts()

    @property
    def size(self) -> int:
        """Size of the largest tree whose checkpoint is witnessed and kept."""
        return self._size

    @property
    def note(self) -> bytes:
        """That checkpoint with its cosignatures, a note; b"" before the first."""
        return self._note

    def grow(self) -> None:
        """The log has a new checkpoint: call it after each commit."""
        self._has_grown = True
        self._woken.set()

    async def until(self, size: int, timeout_seconds: float) -> bool:
        """Wait until a tree of at least this size is witnessed, or nobody asks any more; whether it is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while self._size < size and not self._has_ended:
                    await self._published.wait()
        return self._size >= size

    async def run(self) -> None:
        """Ask, hear, publish, for ever.

        A store that cannot be asked for a while holds what is witnessed back, and loses nothing: it is asked again.

        Raises:
            VerificationError: COSIGNATURE_INVALID (what the store has kept is damaged).
        """
        try:
            await self._run()
        finally:
            self._has_ended = True
            self._published.set()  # a node that stops answers those who wait with what it has

    async def _run(self) -> None:
        if kept := await self._store.witnessed():
            note = Note.parse(kept)
            self._cosigning.restore(note)
            # It was witnessed by the policy of its time. What is said of it now has to be true of today's.
            if self._cosigning.is_witnessed(note, now=self._clock()):
                self._tell(self._cosigning.published_size, kept)
        tick = asyncio.get_running_loop().time
        async with _client() as client, asyncio.TaskGroup() as calls:
            while True:
                await self._look()
                for ask in self._cosigning.due(tick()):
                    self.counts.asked += 1
                    calls.create_task(self._ask(client, ask), name=f"witness {ask.url}")
                await self._wait(self._cosigning.wake_at())
                while self._heard:
                    await self._take(*self._heard.popleft())

    async def _look(self) -> None:
        if self._has_grown:
            self._has_grown = False
            note = (await self._stored(self._store.log_edge)).head.note
            if note:
                self._cosigning.offer(Note.parse(note))

    async def _stored(self, work: Callable[[], Awaitable[T]]) -> T:
        """What the store says, asked until it answers; doing any of it twice does it once."""
        told = False
        while True:
            try:
                return await work()
            except Exception as error:  # noqa: BLE001 - whatever the engine raises: it may answer the next time
                if not told:
                    log.warning("the store does not answer", error=type(error).__name__)
                told = True
                await asyncio.sleep(STORE_PAUSE_SECONDS)

    async def _wait(self, wake_at: float | None) -> None:
        """Until the log has grown, an answer is there, or it is time to ask again."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(wake_at):
                await self._woken.wait()
        self._woken.clear()

    async def _ask(self, client: httpx.AsyncClient, ask: Ask) -> None:
        answer: Answer | str
        try:
            async with asyncio.timeout(self._answer_seconds):
                proof = await self._reading.consistency(ask.old_size, ask.checkpoint.size)
                answer = await self._post(client, ask, proof)
        except TimeoutError:
            answer = f"no answer within {self._answer_seconds:g} s"
        except IdtraceError as error:
            answer = f"the proof could not be made: {error}"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            answer = f"it cannot be asked: {error or type(error).__name__}"
        except Exception as error:  # noqa: BLE001 - the store's own, while the proof was made
            answer = f"the proof could not be made: {type(error).__name__}"
        self._heard.append((ask, answer))
        self._woken.set()

    async def _post(self, client: httpx.AsyncClient, ask: Ask, proof: tuple[bytes, ...]) -> Answer | str:
        body = AddCheckpoint(ask.old_size, proof, ask.note, ask.checkpoint).encode()
        # As it is sent and no further: an answer that unpacks itself could be of any size.
        headers = {"content-type": "text/plain; charset=utf-8", "accept-encoding": "identity"}
        async with client.stream("POST", ask.url, content=body, headers=headers) as response:
            read = bytearray()
            async for piece in response.aiter_raw():
                read += piece
                if len(read) > ANSWER_BYTES_MAX:
                    return f"an answer of more than {ANSWER_BYTES_MAX} bytes"
            return Answer(response.status_code, response.headers.get("content-type", ""), bytes(read))

    async def _take(self, ask: Ask, answer: Answer | str) -> None:
        tick = asyncio.get_running_loop().time()
        heard: Heard
        if isinstance(answer, str):
            heard = self._cosigning.silent(ask, answer, tick=tick)
        else:
            heard = self._cosigning.heard(ask, answer, now=self._clock(), tick=tick)
        match heard:
            case Cosigned():
                self.counts.cosigned += 1
                self._recovered(ask.url)
            case Witnessed(size, note):
                self.counts.cosigned += 1
                self._recovered(ask.url)
                encoded = note.encode()
                await self._stored(lambda: self._store.put_witnessed(size, encoded))
                self.counts.published += 1
                self._tell(size, encoded)
            case Stale():
                self.counts.stale += 1
            case Failed(reason, detail):
                self.counts.failed += 1
                self._complain(ask.url, reason, detail)
            case Forked():
                await self._keep(ask, heard)
                self.counts.forked += 1

    def _tell(self, size: int, note: bytes) -> None:
        assert size >= self._size, "what is published never goes back"
        self._size, self._note = size, note
        self._published.set()
        self._published = asyncio.Event()

    def _complain(self, url: str, reason: Reason, detail: str) -> None:
        """One line when a witness begins to fail, or fails in another way; not one for each try."""
        if self._failing.get(url) is not reason:
            self._failing[url] = reason
            log.warning("witness fails", witness=url, reason=reason, detail=detail)

    def _recovered(self, url: str) -> None:
        if self._failing.pop(url, None) is not None:
            log.info("witness cosigns again", witness=url)

    async def _keep(self, ask: Ask, fork: Forked) -> None:
        path = self._evidence / evidence_name(ask)
        log.error("witness has seen another log", witness=ask.url, detail=fork.detail, evidence=str(path))
        try:
            await asyncio.to_thread(_write_evidence, path, evidence_text(ask, fork))
        except OSError as error:  # what cannot be kept was said, and the node goes on serving what it has
            log.exception("evidence could not be kept", evidence=str(path), error=error.strerror)


def _client() -> httpx.AsyncClient:
    """No proxies and no passwords from the environment, no redirects: who is asked stands in the policy alone."""
    client = httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=None)  # noqa: S113 - _ask times the whole
    client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))
    return client


def evidence_name(ask: Ask) -> str:
    """File name for what one witness has said about one tree: nothing of the outside stands in it but hexadecimal."""
    witness = hashlib.sha256(ask.url.encode()).hexdigest()[:16]
    return f"fork-{witness}-{ask.checkpoint.size}-{ask.checkpoint.root.hex()[:16]}.txt"


def evidence_text(ask: Ask, fork: Forked) -> bytes:
    """What happened, the refused checkpoint, and the last one that the witness has cosigned, all as signed notes."""
    head = f"witness {ask.url}\nold {ask.old_size}\nsays {fork.detail}\n"
    parts = [head.encode(), b"refused:\n\n", fork.refused.encode()]
    if fork.cosigned is not None:
        parts += [b"\ncosigned before:\n\n", fork.cosigned.encode()]
    return b"".join(parts)


def _write_evidence(path: Path, text: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() or sum(1 for _ in path.parent.glob("fork-*")) >= EVIDENCE_FILES_MAX:
        return
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)

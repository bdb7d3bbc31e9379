"""What the witnesses of a policy have seen of a log, asked of themselves.

A witness has no page to look at. But whoever sends it a checkpoint of the size that it has seen already (C2SP
tlog-witness: anybody may) gets the same tree cosigned again, a size where it has seen more or less, and a refusal where
it has seen another tree. Nothing changes for the witness, and we learn its view.
"""

from __future__ import annotations

import httpx

from idtrace.audit import Grade
from idtrace.auditing.fetching import TIMEOUT_SECONDS
from idtrace.auditing.findings import LogReport, Notice
from idtrace.auditing.forks import Sighting
from idtrace.errors import BusyError, IdtraceError, InputError, Reason
from idtrace.logpolicy import KnownWitness, LogPolicy
from idtrace.note import NOTE_BYTES_MAX, Note
from idtrace.witnessing import ADD_CHECKPOINT_PATH, AddCheckpoint, read_cosignatures, read_seen_size

_SEEN_ANOTHER_SIZE = 409


class WitnessRound:
    """Asks the witnesses of a policy that have an address."""

    def __init__(self, transport: httpx.BaseTransport | None = None, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        timeout = httpx.Timeout(min(5.0, timeout_seconds))
        self._client = httpx.Client(timeout=timeout, follow_redirects=False, trust_env=False, transport=transport)

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def ask(self, policy: LogPolicy, seen: Sighting, report: LogReport) -> None:
        """Hold the views of all witnesses against a checkpoint; one that does not answer has said nothing."""
        for witness in policy.witnesses:
            if not witness.url.startswith(("http://", "https://")):
                continue
            place = f"witness {witness.name}"
            try:
                report.checked.append(f"{place}: {self._view(witness, seen)}")
            except BusyError as error:
                report.checked.append(f"{place}: not asked: {error.detail}")
            except IdtraceError as error:
                report.add(Notice(place, Grade.MISBEHAVIOUR, error.reason, error.detail))
            except _AnotherTreeError:
                size = seen.checkpoint.size
                detail = f"it has seen another tree of {size} entries: the log shows each its own, or it lies"
                report.add(Notice(place, Grade.MISBEHAVIOUR, Reason.LOG_INCONSISTENT, detail))

    def _view(self, witness: KnownWitness, seen: Sighting) -> str:
        size = seen.checkpoint.size
        note = Note.parse(seen.note)
        status, body = self._post(witness, AddCheckpoint.of(size, (), note).encode())
        if status == httpx.codes.OK:
            read_cosignatures(body, note, [witness.key])
            return f"has seen this tree of {size} entries"
        if status == httpx.codes.UNPROCESSABLE_ENTITY:  # litewitness: from a size to itself nothing else can fail
            raise _AnotherTreeError
        if status != _SEEN_ANOTHER_SIZE:
            raise BusyError(Reason.NO_ANSWER, f"status {status}")
        try:
            told = read_seen_size(body)
        except InputError:  # with no size it says that the roots differ (tlog-witness)
            raise _AnotherTreeError from None
        if told == size:
            raise _AnotherTreeError
        return f"has seen {told} entries"

    def _post(self, witness: KnownWitness, content: bytes) -> tuple[int, bytes]:
        url = f"{witness.url.rstrip('/')}/{ADD_CHECKPOINT_PATH}"
        body = b""
        try:
            with self._client.stream("POST", url, content=content) as answer:
                for piece in answer.iter_raw():
                    body += piece
                    if len(body) > NOTE_BYTES_MAX:
                        raise BusyError(Reason.NO_ANSWER, "an answer without end")
                return answer.status_code, body
        except httpx.HTTPError as error:
            raise BusyError(Reason.NO_ANSWER, str(error) or "no answer in time") from None


class _AnotherTreeError(Exception):
    """The witness has cosigned another tree of the same size."""

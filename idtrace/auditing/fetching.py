"""Reads a log over HTTP (C2SP tlog-tiles): bounded in bytes and in time, whatever the server does.

A server that is audited may be hostile: it may answer without end, a byte a second, with another content, or with a
few bytes that unpack to gigabytes. So a body is read as it comes, unpacked here with a limit, and dropped at the first
byte too many; redirects are not followed, and no proxy or password of the environment is used.
"""

from __future__ import annotations

import threading
import time
import zlib
from typing import Final

import httpx

from idtrace.errors import BusyError, InputError, Reason, VerificationError, quoted
from idtrace.merkle import HASH_BYTES
from idtrace.note import NOTE_BYTES_MAX
from idtrace.tiles import BUNDLE_BYTES_MAX, CHECKPOINT_PATH, EntryBundle, Tile, split_bundle, split_tile

# A full bundle of a busy registry has 130 kB, so a link of 1 Mbit/s needs a second.
TIMEOUT_SECONDS: Final = 20.0
# A restart of the log's node, or a proxy that has lost its connection, is over within two pauses (0.3 s, 0.9 s).
ATTEMPTS: Final = 3
_FIRST_PAUSE_SECONDS: Final = 0.3
# Requests under way at once; each may hold a bundle of 16 MB at worst.
CONNECTIONS: Final = 4
_SERVER_TROUBLE: Final = 500
_TOO_MANY: Final = 429


class LogReader:
    """One log's address. Methods block, and may be called from several threads.

    Attributes:
        fetched_bytes: what came over the wire, packed.
    """

    def __init__(
        self, url: str, *, timeout_seconds: float = TIMEOUT_SECONDS, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self.fetched_bytes = 0
        self._timeout = timeout_seconds
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        try:
            scheme = httpx.URL(self.url).scheme
        except httpx.InvalidURL as error:
            raise InputError(Reason.FIELD_MALFORMED, f"{quoted(url)}: {error}", field="--log") from None
        if scheme not in {"http", "https"}:
            detail = f"{quoted(url)} does not begin with http:// or https://"
            raise InputError(Reason.FIELD_MALFORMED, detail, field="--log")
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout_seconds, connect=min(5.0, timeout_seconds)),
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
            headers={"accept-encoding": "gzip", "user-agent": "idtrace-audit"},
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )

    def close(self) -> None:
        """Give the connections back; what is under way in other threads ends without another attempt."""
        self._stopped.set()
        self._client.close()

    def checkpoint(self) -> bytes:
        """The signed checkpoint as served, unchecked.

        Raises:
            BusyError: NO_ANSWER (nobody answers, in time, or the server has none).
            VerificationError: ANSWER_MALFORMED (too long, or not what it is packed as).
        """
        return self._get(CHECKPOINT_PATH, NOTE_BYTES_MAX)

    def tile(self, tile: Tile) -> bytes:
        """Bytes of a tile, 32 for each of its width; whether they are the tree's is for others to check.

        Raises:
            BusyError: as for :meth:`checkpoint`.
            VerificationError: TILE_MALFORMED (another length), ANSWER_MALFORMED.
        """
        content = self._get(tile.path, tile.width * HASH_BYTES)
        try:
            split_tile(tile, content, 0, 0)
        except InputError as error:
            raise VerificationError(error.reason, error.detail, field=tile.path) from None
        return content

    def bundle(self, bundle: EntryBundle) -> tuple[bytes, ...]:
        """The entries of a bundle, unchecked.

        Raises:
            BusyError, VerificationError: as for :meth:`tile`.
        """
        content = self._get(bundle.path, BUNDLE_BYTES_MAX)
        try:
            return split_bundle(bundle, content)
        except InputError as error:
            raise VerificationError(error.reason, error.detail, field=bundle.path) from None

    def _get(self, path: str, bytes_max: int) -> bytes:
        for turn in range(ATTEMPTS):
            try:
                status, body = self._once(path, bytes_max)
            except (httpx.TransportError, TimeoutError) as error:
                detail = f"{self.url}/{path}: {error or 'no answer in time'}"
                # Time is not spent again on one who has used it up.
                retry = not isinstance(error, httpx.TimeoutException | TimeoutError)
            else:
                if status == httpx.codes.OK:
                    return body
                detail = f"{self.url}/{path}: status {status}"
                retry = status >= _SERVER_TROUBLE or status == _TOO_MANY
            if not retry or turn == ATTEMPTS - 1 or self._stopped.wait(_FIRST_PAUSE_SECONDS * 3**turn):
                raise BusyError(Reason.NO_ANSWER, detail, field=path)
        raise AssertionError("the last turn ends in an answer or an error")

    def _once(self, path: str, bytes_max: int) -> tuple[int, bytes]:
        end = time.monotonic() + self._timeout
        parts: list[bytes] = []
        left = bytes_max + 1
        with self._client.stream("GET", f"{self.url}/{path}") as answer:
            if answer.status_code != httpx.codes.OK:
                return answer.status_code, b""
            unpacked = _Unpacking(answer.headers.get("content-encoding", ""), path)
            # As they come: pieces of a given size would be waited for, and time would not be looked at meanwhile.
            for piece in answer.iter_raw():
                with self._lock:
                    self.fetched_bytes += len(piece)
                part = unpacked.part(piece, left)
                left -= len(part)
                parts.append(part)
                if left <= 0:
                    detail = f"{path} has more than {bytes_max} bytes"
                    raise VerificationError(Reason.ANSWER_MALFORMED, detail, field=path)
                if time.monotonic() > end:
                    raise TimeoutError(f"not complete after {self._timeout:g} s")
            unpacked.end()
        return httpx.codes.OK, b"".join(parts)


class _Unpacking:
    """A body as it comes, unpacked where it is packed."""

    def __init__(self, coding: str, path: str) -> None:
        if coding not in {"", "identity", "gzip"}:
            detail = f"{path} is packed as {quoted(coding)}, which nobody asked for"
            raise VerificationError(Reason.ANSWER_MALFORMED, detail, field=path)
        self._path = path
        self._gzip = zlib.decompressobj(16 + zlib.MAX_WBITS) if coding == "gzip" else None

    def part(self, piece: bytes, most: int) -> bytes:
        if self._gzip is None:
            return piece
        try:
            return self._gzip.decompress(piece, most)
        except zlib.error as error:
            raise VerificationError(Reason.ANSWER_MALFORMED, f"{self._path}: {error}", field=self._path) from None

    def end(self) -> None:
        if self._gzip is not None and not self._gzip.eof:
            raise VerificationError(Reason.ANSWER_MALFORMED, f"{self._path} ends too early", field=self._path)

"""The journal of a bulk registration: what makes a second run after a crash the same run.

A registration is repeated safely only as the same bytes, so salts and times of an unfinished line have to come out the
same again. The journal, JSON lines beside the source file, says before a batch leaves what it holds and its time
(``sent``), and afterwards each receipt, or that the node refused (``closed``). Lines are known by the digest of what
they ask for, so the source file may grow, shrink or be sorted between two runs. A torn last line is cut off.

Salts must not be guessable, or a withheld value could be found by trying. Nor may they lie in the journal, which people
keep and pass on as the proof of registration. Therefore: the header holds a random nonce (public), the record key signs
it under a domain of its own, the hash of that signature (never stored) is the secret, and
``salt = HMAC-SHA-256(secret, line digest ‖ index)``. Only the holder of the private key can make them again. This needs
what RFC 8032 promises, that the same key signs the same bytes the same way; ``salt_check`` notices a signer that does
not, or another key, and a new header begins: the unfinished lines of the old one then are new requests, of which the
node refuses those that it has.

A batch under a seal (:mod:`idtrace.cli.sealed`) can only be repeated whole. Its request, salts and all, is kept in a
file of its own beside the journal, for the owner alone, from before the journal says ``batch`` until it says
``sealed``: with what stands in the log then, where, and under which checkpoint.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from idtrace.bundle import signed_to_json
from idtrace.errors import InputError, Reason
from idtrace.identifier import Identifier
from idtrace.record import SALT_BYTES
from idtrace.signature import Signed, Signer
from idtrace.statements import Receipt

JOURNAL_FORMAT: Final = "idtrace-receipts/v1"
NONCE_BYTES: Final = 32
# Half a SHA-256 tells lines of one file apart, and a million of them fit in memory.
DIGEST_BYTES: Final = 16
# Enough of a batch's key to name a file by: a handful is unfinished at most.
_KEY_SHOWN: Final = 16
_SALT_DOMAIN: Final = b"idtrace/salts/v1\0"


@dataclass(frozen=True, slots=True)
class Held:
    """What a journal says to be registered: a version 1, and its record hash (32 bytes)."""

    identifier: Identifier
    record_hash: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """One record of a sealed batch that stands in the log: its number in the batch from 0, and its index plus one."""

    number: int
    identifier: str
    record_hash: bytes
    log_position: int


class Journal:
    """One source file's journal, locked while open. ``done`` are lines with a receipt, ``pending`` unfinished ones.

    ``batches`` are unfinished sealed batches: by their key, the lines (16 bytes each) in their order. Digests are 32
    bytes (:meth:`idtrace.cli.drafts.Draft.digest`); the sets hold their first 16.
    """

    def __init__(self, path: Path, signer: Signer) -> None:
        self.path = path
        self.done: set[bytes] = set()
        self.pending: dict[bytes, int] = {}
        self.batches: dict[str, tuple[bytes, ...]] = {}
        self._ends: list[dict[str, Any]] = []
        self._nonce = b""
        self._salt_check = ""
        self._file = _locked(path)
        try:
            self._load()
            self._forget_strays()
            self._begin(signer)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def salts(self, digest: bytes) -> Iterator[bytes]:
        """The salts of one line's values, in order; the same ones in every run."""
        for index in count(1):
            message = digest + struct.pack(">I", index)
            yield hmac.digest(self._secret, message, hashlib.sha256)[:SALT_BYTES]

    def issued_at(self, digest: bytes, now: int) -> int:
        """When a line's record was issued: the time of an earlier try whose outcome is unknown, else now."""
        return self.pending.get(digest[:DIGEST_BYTES], now)

    def is_done(self, digest: bytes) -> bool:
        """Whether the line has its receipt."""
        return digest[:DIGEST_BYTES] in self.done

    def held(self) -> tuple[Held, ...]:
        """The first and the last record that the file had when it was opened: they tell whose journal this is.

        Raises:
            InputError: one of them is damaged.
        """
        return tuple(self._held(body) for body in self._ends)

    def _held(self, body: dict[str, Any]) -> Held:
        if "receipt" in body:
            receipt = Receipt.parse(str(body["receipt"]["payload"]).encode(), field=str(self.path))
            return Held(receipt.identifier, receipt.record_hash)
        return Held(Identifier.parse(body["identifier"], field=str(self.path)), bytes.fromhex(body["record_hash"]))

    def send(self, lines: Sequence[tuple[bytes, int]]) -> None:
        """Say durably that these lines (digest, issued_at) are about to leave."""
        by_time: dict[int, list[str]] = {}
        for digest, issued_at in lines:
            if self.pending.setdefault(digest[:DIGEST_BYTES], issued_at) == issued_at:
                by_time.setdefault(issued_at, []).append(_short(digest))
        self._append({"sent": digests, "issued_at": issued_at} for issued_at, digests in by_time.items())

    def settle(self, receipts: Iterable[tuple[int, bytes, str, Signed]], refused: Iterable[bytes] = ()) -> None:
        """Keep receipts (line number, digest, identifier, receipt) durably, and close lines that were refused."""
        lines: list[dict[str, Any]] = []
        for number, digest, identifier, receipt in receipts:
            body = {"line": number, "row": _short(digest), "identifier": identifier}
            lines.append({**body, "receipt": signed_to_json(receipt)})
            self._finish(digest[:DIGEST_BYTES], has_receipt=True)
        closed = list(refused)
        if closed:
            lines.append({"closed": [_short(digest) for digest in closed]})
            for digest in closed:
                self._finish(digest[:DIGEST_BYTES], has_receipt=False)
        self._append(lines)

    def begin_batch(self, key: str, rows: Sequence[bytes], request: bytes) -> None:
        """Say durably that these lines are about to leave under one seal, as these bytes."""
        path = self._request_path(key)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - Path cannot open a descriptor
            file.write(request)
            file.flush()
            os.fsync(descriptor)
        _sync_folder(path.parent)
        self.batches[key] = tuple(rows)
        self._append([{"batch": key, "rows": [row.hex() for row in rows]}])

    def request_of(self, key: str) -> bytes:
        """The bytes of an unfinished batch.

        Raises:
            InputError: FIELD_MISSING where somebody has taken them away.
        """
        path = self._request_path(key)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            rule = "an unfinished batch has lost its bytes; put the file back, or move the journal away to begin anew"
            raise InputError(Reason.FIELD_MISSING, rule, field=str(path)) from None

    def finish_batch(self, key: str, places: Sequence[Place], checkpoint: bytes, level: str) -> None:
        """Keep what stands in the log, and forget the bytes. Without any place the batch has come to nothing."""
        records = [[p.number, p.identifier, p.record_hash.hex(), p.log_position] for p in places]
        self._append([{"sealed": key, "level": level, "checkpoint": checkpoint.decode(), "records": records}])
        rows = self.batches.pop(key)
        self.done.update(rows[place.number] for place in places)
        self._request_path(key).unlink(missing_ok=True)

    def _request_path(self, key: str) -> Path:
        return self.path.with_name(f"{self.path.name}.batch-{key[:_KEY_SHOWN]}")

    def _forget_strays(self) -> None:
        """Bytes of a batch that the journal does not name never left; those of a finished one have done their work."""
        kept = {self._request_path(key).name for key in self.batches}
        own = re.compile(re.escape(self.path.name) + rf"\.batch-[0-9a-f]{{{_KEY_SHOWN}}}")
        for path in self.path.absolute().parent.iterdir():
            if own.fullmatch(path.name) and path.name not in kept:
                path.unlink()

    def _finish(self, digest: bytes, *, has_receipt: bool) -> None:
        self.pending.pop(digest, None)
        if has_receipt:
            self.done.add(digest)

    def _append(self, lines: Iterable[dict[str, Any]]) -> None:
        text = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
        if text:
            self._file.write(text.encode())
            self._file.flush()
            os.fsync(self._file.fileno())

    def _begin(self, signer: Signer) -> None:
        """Go on under the last header if this signer makes its secret again, else write a new one."""
        if self._nonce:
            self._secret = _secret(signer, self._nonce)
            if _check_of(self._secret) == self._salt_check:
                return
            self.pending.clear()
        self._nonce = os.urandom(NONCE_BYTES)
        self._secret = _secret(signer, self._nonce)
        header = {"format": JOURNAL_FORMAT, "key_id": signer.public_key.key_id, "nonce": self._nonce.hex()}
        self._append([{**header, "salt_check": _check_of(self._secret)}])

    def _load(self) -> None:
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            try:
                self._read(json.loads(line))
            except (ValueError, KeyError, TypeError, IndexError):
                rule = f"line {number} is damaged; keep the file, and move it away to begin anew"
                raise InputError(Reason.FIELD_MALFORMED, rule, field=str(self.path)) from None
        self._file.truncate(whole)
        self._file.seek(0, os.SEEK_END)

    def _read(self, body: dict[str, Any]) -> None:
        if "format" in body:
            if body["format"] != JOURNAL_FORMAT:
                raise ValueError(body["format"])
            self._nonce = bytes.fromhex(body["nonce"])
            self._salt_check = str(body["salt_check"])
            self.pending.clear()
        elif "sent" in body:
            self.pending |= dict.fromkeys(map(bytes.fromhex, body["sent"]), int(body["issued_at"]))
        elif "closed" in body:
            for digest in body["closed"]:
                self._finish(bytes.fromhex(digest), has_receipt=False)
        elif "batch" in body:
            self.batches[str(body["batch"])] = tuple(map(bytes.fromhex, body["rows"]))
        elif "sealed" in body:
            rows = self.batches.pop(str(body["sealed"]))
            for number, identifier, record_hash, _ in body["records"]:
                self.done.add(rows[number])
                self._keep_end({"identifier": str(identifier), "record_hash": str(record_hash)})
        else:
            self._finish(bytes.fromhex(body["row"]), has_receipt=True)
            self._keep_end({"receipt": {"payload": str(body["receipt"]["payload"])}})

    def _keep_end(self, held: dict[str, Any]) -> None:
        self._ends = [*self._ends[:1], held]


def _locked(path: Path) -> BinaryIO:
    file = open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644), "r+b")  # noqa: PTH123, SIM115 - a descriptor; the journal closes it
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise InputError(
            Reason.FIELD_MALFORMED, "another run is registering from the same file", field=str(path)
        ) from None
    return file


def _secret(signer: Signer, nonce: bytes) -> bytes:
    return hashlib.sha256(_SALT_DOMAIN + signer.sign(_SALT_DOMAIN + nonce)).digest()


def _check_of(secret: bytes) -> str:
    return hmac.digest(secret, b"check", hashlib.sha256).hex()[:32]


def short(digest: bytes) -> bytes:
    """How a journal knows a line: the first 16 bytes of its digest."""
    return digest[:DIGEST_BYTES]


def _short(digest: bytes) -> str:
    return short(digest).hex()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

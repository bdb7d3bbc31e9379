"""What an auditor remembers of each log between two audits: one small file a log, whole or not there at all.

The file has the last checkpoint that was seen and consistent (a log that goes back behind it lies), how far the log was
replayed and the tree over that, and every chain that named the log's keys, so that what an old key signed can still be
judged. Entries are not kept, nor what they add up to: a new audit reads them all again. The file is replaced in one
step and synced with its folder before the audit goes on; an audit that is killed leaves the old file or the new one.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from idtrace.auditing.evidence import Chained, Evidence
from idtrace.canonical import Fields
from idtrace.errors import BusyError, InputError, Reason
from idtrace.logproof import CHECKPOINT_BYTES_MAX
from idtrace.merkle import CompactRange

FORMAT: Final = "idtrace-audit/v1"
# A key that changes weekly fills them in a year; each has a few delegations.
CHAINS_MAX: Final = 64
MEMORY_BYTES_MAX: Final = 8_388_608


@dataclass(frozen=True, slots=True)
class Memory:
    """What is known of one log; ``note`` is b"" before the first audit."""

    origin: str
    note: bytes = b""
    replayed: CompactRange = field(default_factory=CompactRange)
    chains: tuple[Chained, ...] = ()

    def encode(self) -> bytes:
        """The file, as :meth:`parse` reads it."""
        body: dict[str, Any] = {
            "format": FORMAT,
            "origin": self.origin,
            "checkpoint": self.note.decode(),
            "replayed": self.replayed.encode().hex(),
            "chains": [chain.to_json() for chain in self.chains],
        }
        return (json.dumps(body, ensure_ascii=False, indent=1) + "\n").encode()

    @classmethod
    def parse(cls, data: bytes, origin: str, place: str) -> Memory:
        """Read a file about this log.

        Raises:
            InputError: it is not one; the field begins with ``place``.
        """
        try:
            body = json.loads(data)
            fields = Fields(body, place) if isinstance(body, dict) else None
        except (ValueError, RecursionError):
            fields = None
        if fields is None or fields.text("format", most=64) != FORMAT or fields.text("origin", most=255) != origin:
            detail = f"this is not what an auditor remembers of {origin}; move it away to begin anew"
            raise InputError(Reason.FIELD_MALFORMED, detail, field=place)
        note = fields.text("checkpoint", most=CHECKPOINT_BYTES_MAX * 8).encode()
        try:
            replayed = CompactRange.decode(bytes.fromhex(fields.text("replayed", most=8_192)))
        except ValueError:
            raise InputError(Reason.FIELD_MALFORMED, "not hexadecimal", field=f"{place}.replayed") from None
        chains = tuple(Chained.read(item) for item in fields.objects("chains", most=CHAINS_MAX))
        fields.end()
        return cls(origin, note, replayed, chains)

    def with_chain(self, chain: Chained) -> tuple[Chained, ...]:
        """The chains with one more, if it says anything new; the oldest goes where there are too many."""
        known = {tuple(link.payload for link in one.delegations) for one in self.chains}
        if tuple(link.payload for link in chain.delegations) in known:
            return self.chains
        return (*self.chains, chain)[-CHAINS_MAX:]


class MemoryFolder:
    """A folder of such files, and of evidence."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder: two audits at once would each forget what the other has seen.

        Raises:
            BusyError: OVERLOADED where another audit holds it.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                detail = f"another audit is using {self._folder}"
                raise BusyError(Reason.OVERLOADED, detail, field="--state") from None
            yield
        finally:
            os.close(descriptor)

    def load(self, origin: str) -> Memory:
        """What is remembered of a log; nothing at first.

        Raises:
            InputError: the file is damaged. To begin anew unasked would forget what a log has to be held to.
        """
        path = self._path(origin)
        try:
            with path.open("rb") as file:
                data = file.read(MEMORY_BYTES_MAX)
        except FileNotFoundError:
            return Memory(origin)
        return Memory.parse(data, origin, str(path))

    def save(self, memory: Memory) -> None:
        """Replace a log's file, durably."""
        replace_durably(self._path(memory.origin), memory.encode())

    def keep(self, evidence: Evidence) -> Path:
        """Write evidence, unless the same is there already."""
        path = self._folder / evidence.name
        if not path.exists():
            replace_durably(path, evidence.encode())
        return path

    def _path(self, origin: str) -> Path:
        # Origins are lower-case paths (idtrace/delegation.py), so "+" makes no two of them one.
        return self._folder / f"{origin.replace('/', '+')}.json"


def replace_durably(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, and make the name durable too."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - Path cannot open a descriptor
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

"""What an auditor, or a client, remembers of each log: one small file a log, whole or not there at all.

The file has the last checkpoint that was seen and consistent (a log that goes back behind it lies), how far the log was
replayed and the tree over that, and every chain that named the log's keys, so that what an old key signed can still be
judged. A client keeps the checkpoints that its answers bore (:mod:`idtrace.auditing.remembering`); those that nobody
could compare yet stand beside the last one, for an audit with the same folder. The file is replaced in one step and
synced with its folder before the audit goes on; an audit that is killed leaves the old file or the new one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from idtrace.auditing.evidence import Chained, Evidence
from idtrace.auditing.snapshot import SNAPSHOT_BYTES_MAX
from idtrace.canonical import Fields
from idtrace.errors import BusyError, InputError, Reason
from idtrace.logproof import CHECKPOINT_BYTES_MAX
from idtrace.merkle import CompactRange

FORMAT: Final = "idtrace-audit/v1"
# A key that changes weekly fills them in a year; each has a few delegations.
CHAINS_MAX: Final = 64
# The first one that was seen, and of a log that commits each second the last minute's.
OTHERS_MAX: Final = 64
# 64 chains of 9 delegations take 1 MB as they are in use, and 40 MB where each has as many keys as it may.
MEMORY_BYTES_MAX: Final = 8_388_608
_HELD_PAUSE_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Memory:
    """What is known of one log; ``note`` is b"" before the first audit.

    ``note`` is the last checkpoint that an audit saw published; ``others`` are those that answers bore, each signed by
    the log, as far as nobody has found them to be the beginning of another. ``snapshot`` is the SHA-256 (hex) of the
    file with the replay's state, or "" (:mod:`idtrace.auditing.snapshot`).
    """

    origin: str
    note: bytes = b""
    replayed: CompactRange = field(default_factory=CompactRange)
    chains: tuple[Chained, ...] = ()
    others: tuple[bytes, ...] = ()
    snapshot: str = ""

    def encode(self) -> bytes:
        """The file, as :meth:`parse` reads it."""
        body: dict[str, Any] = {
            "format": FORMAT,
            "origin": self.origin,
            "checkpoint": self.note.decode(),
            "replayed": self.replayed.encode().hex(),
            "chains": [chain.to_json() for chain in self.chains],
            "others": [note.decode() for note in self.others],
            "snapshot": self.snapshot,
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
        except (ValueError, RecursionError):
            body = None
        fields = Fields(body, place) if isinstance(body, dict) else None
        if fields is None or fields.text("format", most=64) != FORMAT or fields.text("origin", most=255) != origin:
            detail = f"this is not what an auditor remembers of {origin}; move it away to begin anew"
            raise InputError(Reason.FIELD_MALFORMED, detail, field=place)
        note = fields.text("checkpoint", most=CHECKPOINT_BYTES_MAX * 8).encode()
        try:
            replayed = CompactRange.decode(bytes.fromhex(fields.text("replayed", most=8_192)))
        except ValueError:
            raise InputError(Reason.FIELD_MALFORMED, "not hexadecimal", field=f"{place}.replayed") from None
        chains = tuple(Chained.read(item) for item in fields.objects("chains", most=CHAINS_MAX))
        others = fields.texts("others", most=OTHERS_MAX) if "others" in body else []
        snapshot = fields.text("snapshot", most=64) if "snapshot" in body else ""
        fields.end()
        return cls(origin, note, replayed, chains, tuple(other.encode() for other in others), snapshot)

    def with_chain(self, chain: Chained) -> tuple[Chained, ...]:
        """The chains with one more, if it says anything new; the oldest goes where there are too many."""
        known = {tuple(link.payload for link in one.delegations) for one in self.chains}
        if tuple(link.payload for link in chain.delegations) in known:
            return self.chains
        return (*self.chains, chain)[-CHAINS_MAX:]

    def with_other(self, note: bytes) -> tuple[bytes, ...]:
        """The uncompared checkpoints with one more; where there are too many the first stays, and the second goes."""
        others = (*self.others, note)
        return others if len(others) <= OTHERS_MAX else (others[0], *others[2:])


class MemoryFolder:
    """A folder of such files, and of evidence."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def held(self, *, tries: int = 1, field: str = "--state") -> Iterator[None]:
        """Hold the folder: two audits at once would each forget what the other has seen.

        ``tries``: how often to look, 50 ms apart, whether it is free.

        Raises:
            BusyError: OVERLOADED where another audit holds it.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _locked(descriptor, tries):
                detail = f"another audit is using {self._folder}"
                raise BusyError(Reason.OVERLOADED, detail, field=field)
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
        """Replace a log's file, durably. One that would be too large to be read again loses its oldest chains first."""
        while len(data := memory.encode()) > MEMORY_BYTES_MAX and len(memory.chains) > 1:
            memory = replace(memory, chains=memory.chains[1:])
        replace_durably(self._path(memory.origin), data)

    def save_snapshot(self, origin: str, data: bytes) -> str:
        """Replace a log's file with the state of its replay, durably; its SHA-256 (hex) for the memory to name."""
        replace_durably(self._path(origin, ".replay"), data)
        return hashlib.sha256(data).hexdigest()

    def load_snapshot(self, origin: str) -> bytes:
        """The state of a log's replay as it was saved last; b"" where there is none."""
        try:
            with self._path(origin, ".replay").open("rb") as file:
                return file.read(SNAPSHOT_BYTES_MAX)
        except FileNotFoundError:
            return b""

    def keep(self, evidence: Evidence) -> Path:
        """Write evidence, unless the same is there already."""
        path = self._folder / evidence.name
        if not path.exists():
            replace_durably(path, evidence.encode())
        return path

    def _path(self, origin: str, suffix: str = ".json") -> Path:
        # Origins are lower-case paths (idtrace/delegation.py), so "+" makes no two of them one.
        return self._folder / f"{origin.replace('/', '+')}{suffix}"


def _locked(descriptor: int, tries: int) -> bool:
    """Whether a file could be locked; the lock ends with its descriptor, however the process ends."""
    for turn in range(tries):
        if turn:
            time.sleep(_HELD_PAUSE_SECONDS)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return True
    return False


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

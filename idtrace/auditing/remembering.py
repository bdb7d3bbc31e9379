"""A client that keeps the checkpoints which its answers bear: the log that showed it two histories is convicted.

Each log proof brings a checkpoint that the zone's log has signed. Whoever keeps the newest one and holds every later
one against it notices a log that shows him another history than before:

1. the checkpoint is signed by a log key that the answer's own chain names;
2. of one size with a kept one, it has the same root; two roots are proof at once;
3. of another size, it is the beginning of the kept one or the other way round, as tiles from one of the log's
   addresses show. Without an address that cannot be told: it is kept beside the others, and an audit with the same
   folder, or the next answer with an address, compares them all.

What is found is evidence (:mod:`idtrace.auditing.evidence`): both signed notes, with the chains that make the keys the
log's. An older checkpoint alone is none: answers from caches bear older ones, and every one of them stays true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from idtrace.auditing.evidence import Chained, Evidence, Fork, signed_checkpoint
from idtrace.auditing.forks import Sighting, fork_between
from idtrace.auditing.memory import Memory, MemoryFolder
from idtrace.auditing.tree import TileSource
from idtrace.bundle import Bundle
from idtrace.chain import Anchor
from idtrace.checkpoint import Checkpoint
from idtrace.errors import BusyError, Reason, VerificationError
from idtrace.note import Note
from idtrace.tiles import Tile

# A scanner beside us compares in milliseconds, or reads a log's tiles for a second or two: 5 s in all.
_TRIES: Final = 100


@dataclass(frozen=True, slots=True)
class Held:
    """What came of holding an answer against what is kept.

    Attributes:
        origin, size: of the log's checkpoint that the answer bore.
        compared: how many kept checkpoints it was found to be one log with.
        uncompared: how many could not be compared, for want of an address that serves the larger tree.
        evidence: where the proof of a fork was written; None where there is none.
        detail: one sentence about the fork, or "".
    """

    origin: str
    size: int
    compared: int = 0
    uncompared: int = 0
    evidence: Path | None = None
    detail: str = ""


class Remembering:
    """A folder of kept checkpoints, and where their logs can be read. Blocks; one process at a time has the folder."""

    def __init__(self, folder: MemoryFolder, anchor: Anchor, sources: Sequence[TileSource] = ()) -> None:
        self._folder = folder
        self._anchor = anchor
        self._sources = sources
        self._silent: set[int] = set()  # places of sources that have not answered: none is waited for twice

    def hold(self, bundle: Bundle, as_of: int) -> Held | None:
        """Hold a bundle that was verified as of a time (s) against what is kept; None: it bears no checkpoint.

        Raises:
            BusyError: OVERLOADED (an audit has had the folder for 5 s).
            InputError: what is kept is damaged.
            VerificationError: the checkpoint is not one of the log that the bundle's chain names.
        """
        if bundle.proof is None:
            return None
        chained = Chained(as_of, bundle.delegations)
        # 1. signed by the log
        note = _by_log_alone(bundle.proof.checkpoint)
        seen = Sighting("answer", note, signed_checkpoint(note, [chained.trusted(self._anchor)]))
        with self._folder.held(tries=_TRIES, field="--remember"):
            memory = self._folder.load(seen.checkpoint.origin)
            held, after = self._against(seen, chained, memory)
            if after != memory:
                self._folder.save(after)
        return held

    def _against(self, seen: Sighting, chained: Chained, memory: Memory) -> tuple[Held, Memory]:
        origin, size = seen.checkpoint.origin, seen.checkpoint.size
        kept = [Sighting("memory", note, _body_of(note)) for note in (memory.note, *memory.others) if note]
        linked: list[Sighting] = []
        for one in kept:
            try:
                fork = self._fork(one, seen)
            except (BusyError, VerificationError):
                continue
            if fork is not None:
                path = self._folder.keep(Evidence(fork, self._chains(fork, chained, memory)))
                detail = (
                    f"the log has signed one tree of {one.checkpoint.size} entries, which was seen before, and one of"
                    f" {size} that does not agree with it"
                )
                return Held(origin, size, evidence=path, detail=detail), memory
            linked.append(one)
        held = Held(origin, size, len(linked), len(kept) - len(linked))
        return held, replace(_grown(memory, seen, linked), chains=memory.with_chain(chained))

    def _fork(self, one: Sighting, seen: Sighting) -> Fork | None:
        """As :func:`fork_between`, with the first address that has the larger tree.

        Raises:
            BusyError, VerificationError: none of them shows it.
        """
        error: BusyError | VerificationError = BusyError(Reason.NO_ANSWER, "no address of the log answers")
        for place, source in enumerate(self._sources or (_NoTiles(),)):
            if place in self._silent:
                continue
            try:
                return fork_between(one, seen, source)
            except BusyError as failed:
                error = failed
                if self._sources:
                    self._silent.add(place)
            except VerificationError as failed:
                error = failed
        raise error

    def _chains(self, fork: Fork, chained: Chained, memory: Memory) -> tuple[Chained, ...]:
        """A chain for each note, that names the key which signed it."""
        found: list[Chained] = []
        for note in fork.notes:
            for one in (chained, *memory.chains):
                try:
                    signed_checkpoint(note, [one.trusted(self._anchor)])
                except VerificationError:
                    continue
                found.append(one)
                break
        return tuple(dict.fromkeys(found))


class _NoTiles:
    """Where no address is known."""

    def tile(self, tile: Tile) -> bytes:
        raise BusyError(Reason.NO_ANSWER, "no address of the log is known", field=tile.path)


def _grown(memory: Memory, seen: Sighting, linked: Sequence[Sighting]) -> Memory:
    """What is kept after a checkpoint that agrees with ``linked``; those that it continues need not be kept."""
    if any(one.checkpoint.size >= seen.checkpoint.size for one in linked):
        return memory
    notes = {one.note for one in linked}
    rest = replace(memory, others=tuple(note for note in memory.others if note not in notes))
    return replace(rest, others=rest.with_other(seen.note))


def _by_log_alone(data: bytes) -> bytes:
    """The note with the lines in its log's name alone: cosignatures come and go, and strangers can add some."""
    note = Note.parse(data, field="checkpoint")
    origin = Checkpoint.parse(note.text).origin
    return Note(note.text, tuple(line for line in note.signatures if line.name == origin)).encode()


def _body_of(note: bytes) -> Checkpoint:
    """The checkpoint of a kept note, whose signature was checked when it was taken."""
    return Checkpoint.parse(Note.parse(note).text)

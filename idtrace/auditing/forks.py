"""Two checkpoints of one log: can both be true? Asked of the larger one's own tree."""

from __future__ import annotations

from dataclasses import dataclass

from idtrace.auditing.evidence import Fork
from idtrace.auditing.tree import TileSource, TrustedTree
from idtrace.checkpoint import Checkpoint
from idtrace.merkle import EMPTY_ROOT, check_consistency, consistency_plan


@dataclass(frozen=True, slots=True)
class Sighting:
    """A checkpoint whose signature was checked, as the bytes that were signed, and where it was seen."""

    where: str
    note: bytes
    checkpoint: Checkpoint


def fork_between(one: Sighting, other: Sighting, source: TileSource) -> Fork | None:
    """What shows that the log has signed both and cannot have both; None where one is the beginning of the other.

    The proof is folded from tiles of the larger tree that have its root, so it holds, whichever way it speaks.

    Raises:
        BusyError: the log does not hand these tiles over.
        VerificationError: TILE_MALFORMED (they are not those of the larger tree).
    """
    small, large = sorted((one, other), key=lambda seen: seen.checkpoint.size)
    notes = (small.note, large.note)
    old, new = small.checkpoint, large.checkpoint
    if old.size == new.size:
        return Fork(notes) if old.root != new.root else None
    if old.size == 0:
        return Fork(notes) if old.root != EMPTY_ROOT else None
    tree = TrustedTree(new, source)
    beginning = tree.root_at(old.size)
    if beginning == old.root:
        return None
    proof = tree.fold(consistency_plan(old.size, new.size))
    check_consistency(old.size, beginning, new.size, new.root, proof)
    return Fork(notes, beginning, proof)

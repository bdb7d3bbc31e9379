"""The Merkle tree of a log or of a batch: hashes, compact ranges, proofs made and proofs checked.

The tree of RFC 6962 §2.1 over SHA-256: a leaf is ``SHA-256(0x00 ‖ entry)``, an inner node ``SHA-256(0x01 ‖ left ‖
right)``, and the empty tree has the hash of nothing. The left side of a node is always the largest complete tree that
fits, so every tree is a row of complete subtrees, and those never change once they are full.

A complete subtree is named by :class:`Node` (level, place): it covers ``2**level`` leaves from the leaf ``place <<
level`` on. Whoever stores the tree (tiles, table rows, memory) gives their hashes by that name. What a proof needs is
asked first (:func:`inclusion_plan`, :func:`consistency_plan`, :func:`root_plan`) and folded afterwards
(:func:`fold`), so a store that has to wait can fetch all nodes of a plan at once.

All hashes are 32 raw bytes; sizes and indices are counts of leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from idtrace.errors import InputError, Reason, VerificationError

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()
# Sizes are signed 64-bit numbers in the logs, witnesses and monitors that we have to work with.
SIZE_MAX: Final = 2**63 - 1
# The longest proof of a tree of up to 2**62 leaves; tlog-witness allows no more lines either.
PROOF_HASHES_MAX: Final = 63


class Node(NamedTuple):
    """A complete subtree: 2**level leaves, and its place in the row of its level, counted from 0."""

    level: int
    place: int


NodeReader = Callable[[Node], bytes]
"""The hash of a complete subtree, 32 bytes. Raises what its store raises where it has none."""

Plan = tuple[tuple[Node, ...], ...]
"""For each hash of a proof, the complete subtrees it is folded from, left to right."""


class Run(NamedTuple):
    """Neighbouring nodes of one level: the first one's place, and their hashes."""

    level: int
    first: int
    hashes: tuple[bytes, ...]


def hash_leaf(entry: bytes) -> bytes:
    """Hash of a log entry (0.8 µs for 200 bytes)."""
    return sha256(b"\0" + entry).digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node over its two children."""
    return sha256(b"\1" + left + right).digest()


def _pairs(row: Sequence[bytes]) -> list[bytes]:
    """Parents of a row of nodes; an odd last one has none."""
    return [sha256(b"\1" + left + right).digest() for left, right in zip(row[::2], row[1::2], strict=False)]


def _checked(hashes: Iterable[bytes], field: str) -> None:
    """Refuse what is no SHA-256: a longer or shorter hash shifts the boundary between left and right."""
    for number, one in enumerate(hashes):
        if len(one) != HASH_BYTES:
            raise InputError(Reason.PROOF_MALFORMED, f"a hash has {HASH_BYTES} bytes", field=f"{field}[{number}]")


def _folded(parts: Sequence[bytes]) -> bytes:
    """Root over complete subtrees of falling size, left to right."""
    root = parts[-1]
    for left in reversed(parts[:-1]):
        root = sha256(b"\1" + left + root).digest()
    return root


@dataclass(frozen=True, slots=True)
class CompactRange:
    """All that has to be known of a tree to go on appending: its size, and the roots of its complete subtrees.

    ``peaks`` stand left to right, the largest first: one for each 1 in the binary form of ``size``. A value: growing
    gives a new one, so a batch that fails to commit leaves nothing behind.
    """

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    @classmethod
    def restored(cls, size: int, peaks: Sequence[bytes]) -> CompactRange:
        """The range of a stored tree: of :meth:`encode`, or read by the names of :meth:`peak_nodes`.

        Raises:
            InputError: PROOF_MALFORMED (a size beyond 2**63 - 1, a wrong number of peaks, no hashes).
        """
        if not 0 <= size <= SIZE_MAX or size.bit_count() != len(peaks):
            raise InputError(Reason.PROOF_MALFORMED, f"{len(peaks)} peaks are not those of size {size}", field="peaks")
        _checked(peaks, "peaks")
        return cls(size, tuple(peaks))

    @staticmethod
    def peak_nodes(size: int) -> tuple[Node, ...]:
        """Names of the peaks of a tree of this size, left to right."""
        return _cover(0, size)

    @classmethod
    def decode(cls, data: bytes) -> CompactRange:
        """Read :meth:`encode`: u64 size (big-endian), then the peaks.

        Raises:
            InputError: PROOF_MALFORMED.
        """
        size, rest = int.from_bytes(data[:8], "big"), data[8:]
        if len(data) < 8 or len(rest) % HASH_BYTES:
            raise InputError(Reason.PROOF_MALFORMED, "not the bytes of a compact range", field="range")
        return cls.restored(size, [rest[at : at + HASH_BYTES] for at in range(0, len(rest), HASH_BYTES)])

    def encode(self) -> bytes:
        """8 + 32 x peaks bytes: what a store keeps beside its head."""
        return b"".join((self.size.to_bytes(8, "big"), *self.peaks))

    def root(self) -> bytes:
        """Root hash of the tree."""
        return _folded(self.peaks) if self.peaks else EMPTY_ROOT

    def append(self, leaf_hash: bytes) -> CompactRange:
        """The range with one leaf more (for many, :meth:`extend` costs a third)."""
        peaks, size = [*self.peaks, leaf_hash], self.size
        while size & 1:
            right = peaks.pop()
            peaks[-1] = sha256(b"\1" + peaks[-1] + right).digest()
            size >>= 1
        return CompactRange(self.size + 1, tuple(peaks))

    def extend(self, leaf_hashes: Sequence[bytes]) -> CompactRange:
        """The range with these leaves more."""
        return self.grow(leaf_hashes)[0]

    def grow(self, leaf_hashes: Sequence[bytes]) -> tuple[CompactRange, tuple[Run, ...]]:
        """The range with these leaves more, and all nodes that became complete, level by level from the leaves up.

        The runs are what a store has to keep; together with what it kept before they answer every plan of the new
        tree.
        """
        assert self.size + len(leaf_hashes) <= SIZE_MAX, "the log is full"
        assert all(len(one) == HASH_BYTES for one in leaf_hashes), "a leaf is appended by its hash"
        old = list(self.peaks)
        row, left, level = list(leaf_hashes), self.size, 0
        peaks: list[bytes] = []
        runs: list[Run] = []
        while row or left:
            if row:
                runs.append(Run(level, left, tuple(row)))
            if left & 1:  # the last old node of this level is a peak that waits for its right neighbour
                row.insert(0, old.pop())
            if len(row) & 1:
                peaks.append(row[-1])
            row, left, level = _pairs(row), left >> 1, level + 1
        peaks.reverse()
        return CompactRange(self.size + len(leaf_hashes), tuple(peaks)), tuple(runs)


def root_of(leaf_hashes: Sequence[bytes]) -> bytes:
    """Root over a list of leaf hashes; of none, the empty tree's."""
    return CompactRange().extend(leaf_hashes).root()


class BatchTree:
    """The whole tree of one batch in memory: its root, and the path of each leaf without hashing again.

    2,000 leaves cost 2,000 hashes once; a path is then a walk of 11 steps.
    """

    __slots__ = ("_rows", "root", "size")

    def __init__(self, leaf_hashes: Sequence[bytes]) -> None:
        assert all(len(one) == HASH_BYTES for one in leaf_hashes), "a leaf stands by its hash"
        rows = [list(leaf_hashes)]
        while len(rows[-1]) > 1:
            above = _pairs(rows[-1])
            if len(rows[-1]) & 1:  # the odd one rises unhashed until it finds a left neighbour
                above.append(rows[-1][-1])
            rows.append(above)
        self._rows = rows
        self.size = len(leaf_hashes)
        self.root = rows[-1][0] if leaf_hashes else EMPTY_ROOT

    def path(self, index: int) -> tuple[bytes, ...]:
        """Inclusion proof of a leaf (0 ≤ index < size), the leaf's sibling first."""
        assert 0 <= index < self.size, "no such leaf"
        found = []
        for row in self._rows[:-1]:
            beside = index ^ 1
            if beside < len(row):
                found.append(row[beside])
            index >>= 1
        return tuple(found)

    def paths(self) -> list[tuple[bytes, ...]]:
        """Inclusion proofs of all leaves, in order."""
        return [self.path(index) for index in range(self.size)]


def _cover(start: int, end: int) -> tuple[Node, ...]:
    """The complete subtrees over the leaves [start, end) of a node of the tree, left to right."""
    nodes = []
    while start < end:
        level = (end - start).bit_length() - 1
        nodes.append(Node(level, start >> level))
        start += 1 << level
    return tuple(nodes)


def _split(start: int, end: int) -> int:
    """Where RFC 6962 cuts a tree of two leaves or more: after the largest power of two below its size."""
    return start + (1 << (end - start - 1).bit_length() - 1)


def root_plan(size: int) -> Plan:
    """What the root of a tree of this size (> 0) is folded from; one hash."""
    assert 0 < size <= SIZE_MAX, "the empty tree has EMPTY_ROOT"
    return (_cover(0, size),)


def inclusion_plan(index: int, size: int) -> Plan:
    """What the inclusion proof of a leaf in a tree of this size is folded from (RFC 6962 §2.1.1).

    Raises:
        InputError: PROOF_MALFORMED (there is no such leaf).
    """
    if not 0 <= index < size <= SIZE_MAX:
        raise InputError(Reason.PROOF_MALFORMED, f"a tree of {size} leaves has no leaf {index}", field="index")
    start, end = 0, size
    found = []
    while end - start > 1:
        middle = _split(start, end)
        if index < middle:
            found.append(_cover(middle, end))
            end = middle
        else:
            found.append(_cover(start, middle))
            start = middle
    return tuple(reversed(found))


def consistency_plan(old_size: int, new_size: int) -> Plan:
    """What the proof that a tree is the beginning of another is folded from (RFC 6962 §2.1.2).

    From the empty tree and from a tree to itself there are no hashes to show.

    Raises:
        InputError: PROOF_MALFORMED (the new tree is the smaller one).
    """
    if not 0 <= old_size <= new_size <= SIZE_MAX:
        raise InputError(Reason.PROOF_MALFORMED, f"a log never goes from {old_size} to {new_size}", field="old_size")
    if old_size in {0, new_size}:
        return ()
    start, end = 0, new_size
    found = []
    while end != old_size:
        middle = _split(start, end)
        if old_size <= middle:
            found.append(_cover(middle, end))
            end = middle
        else:
            found.append(_cover(start, middle))
            start = middle
    if start:  # else the old root itself is the subtree that the proof starts from, and the checker has it
        found.append(_cover(start, end))
    return tuple(reversed(found))


def fold(plan: Plan, read: NodeReader) -> tuple[bytes, ...]:
    """The hashes of a proof, or of a root, from stored nodes."""
    return tuple(_folded([read(node) for node in nodes]) for nodes in plan)


def root_from_path(leaf_hash: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that a tree of ``size`` has if ``leaf_hash`` is its leaf ``index`` and ``path`` its proof.

    Raises:
        VerificationError: PROOF_INVALID (no path of such a leaf has this length; no hashes).
    """
    # Below the level where leaf and last leaf part, each step has a sibling; above it only those on the left.
    inner = (index ^ size - 1).bit_length() if 0 <= index < size <= SIZE_MAX else -1
    if inner < 0 or len(path) != inner + (index >> inner).bit_count():
        detail = f"{len(path)} hashes are no path of leaf {index} in a tree of {size}"
        raise VerificationError(Reason.PROOF_INVALID, detail, field="path")
    _genuine(leaf_hash, *path)
    root = leaf_hash
    for beside in path[:inner]:
        root = sha256(b"\1" + beside + root if index & 1 else b"\1" + root + beside).digest()
        index >>= 1
    for beside in path[inner:]:
        root = sha256(b"\1" + beside + root).digest()
    return root


def check_inclusion(leaf_hash: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check that the tree of this size and root has this leaf at this index (15 µs at depth 20).

    Raises:
        VerificationError: PROOF_INVALID.
    """
    if root_from_path(leaf_hash, index, size, path) != root:
        detail = f"leaf {index} is not in the tree of {size} leaves with this root"
        raise VerificationError(Reason.PROOF_INVALID, detail, field="path")


def check_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the old tree is the beginning of the new one.

    From the empty tree every tree can grow: a proof of that would be none, so it is refused like any false one, and
    who starts from nothing (a witness that meets a log) has to say so.

    Raises:
        VerificationError: LOG_INCONSISTENT (one size, two roots: no proof can mend that) or PROOF_INVALID.
    """
    if not 0 <= old_size <= new_size <= SIZE_MAX:
        raise VerificationError(Reason.PROOF_INVALID, f"a log never goes from {old_size} to {new_size}", field="proof")
    if old_size == 0 and (new_size or old_root != EMPTY_ROOT or new_root != EMPTY_ROOT):
        raise VerificationError(Reason.PROOF_INVALID, "nothing follows from the empty tree but itself", field="proof")
    if old_size == new_size and old_root != new_root:
        raise VerificationError(Reason.LOG_INCONSISTENT, f"two roots for the size {old_size}", field="root")
    if old_size == new_size:
        if proof:
            raise VerificationError(Reason.PROOF_INVALID, "here nothing is to be proved", field="proof")
        return
    if _roots_from_proof(old_size, old_root, new_size, proof) != (old_root, new_root):
        detail = f"the proof does not lead from the tree of {old_size} to this tree of {new_size}"
        raise VerificationError(Reason.PROOF_INVALID, detail, field="proof")


def _roots_from_proof(old_size: int, old_root: bytes, new_size: int, proof: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Both roots as the proof builds them, from the last complete subtree of the old tree upwards."""
    level = (old_size & -old_size).bit_length() - 1
    place = old_size - 1 >> level
    inner = (place ^ new_size - 1 >> level).bit_length()
    # Where the old tree is one complete subtree, its root is the start and is not sent.
    whole = old_size == 1 << level
    if len(proof) != inner + (place >> inner).bit_count() + (not whole):
        raise VerificationError(Reason.PROOF_INVALID, f"{len(proof)} hashes are not such a proof", field="proof")
    _genuine(old_root, *proof)
    old = new = old_root if whole else proof[0]
    rest = proof if whole else proof[1:]
    for beside in rest[:inner]:
        if place & 1:
            old = sha256(b"\1" + beside + old).digest()
            new = sha256(b"\1" + beside + new).digest()
        else:
            new = sha256(b"\1" + new + beside).digest()
        place >>= 1
    for beside in rest[inner:]:
        old = sha256(b"\1" + beside + old).digest()
        new = sha256(b"\1" + beside + new).digest()
    return old, new


def _genuine(*hashes: bytes) -> None:
    if any(len(one) != HASH_BYTES for one in hashes):
        raise VerificationError(Reason.PROOF_INVALID, f"a hash has {HASH_BYTES} bytes", field="path")

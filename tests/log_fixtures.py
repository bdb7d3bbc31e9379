"""A transparency log for tests of the pure core: a tree written from the RFC's sentences, and keys from fixed seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from idtrace.checkpoint import Checkpoint
from idtrace.errors import Reason
from idtrace.merkle import CompactRange, Node, hash_leaf
from idtrace.note import KeyType, Note, NoteSigner
from tests.core_fixtures import reason_of

ORIGIN = "log.example/88.118"
NOW = 1_900_000_000
COSIGNATURES = (KeyType.COSIGNATURE_ED25519, KeyType.COSIGNATURE_ML_DSA_44)


def refusal(action: Callable[..., object], *given: Any, **named: Any) -> Reason | None:
    """Why a call refused; None where it did not. Any other exception than our own goes through."""
    return reason_of(lambda: action(*given, **named))


_LEAVES = tuple(hash_leaf(f"entry {number}".encode()) for number in range(1_024))


def leaves(count: int) -> tuple[bytes, ...]:
    """Hashes of the entries ``entry 0``, ``entry 1`` …, up to 1,024 of them."""
    assert count <= len(_LEAVES), "make more leaves"
    return _LEAVES[:count]


def naive_root(hashes: Sequence[bytes]) -> bytes:
    """RFC 6962 §2.1, MTH, word for word."""
    if not hashes:
        return hashlib.sha256().digest()
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return hashlib.sha256(b"\x01" + naive_root(hashes[:k]) + naive_root(hashes[k:])).digest()


def naive_path(m: int, hashes: Sequence[bytes]) -> list[bytes]:
    """RFC 6962 §2.1.1, PATH, word for word."""
    if len(hashes) == 1:
        return []
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    if m < k:
        return [*naive_path(m, hashes[:k]), naive_root(hashes[k:])]
    return [*naive_path(m - k, hashes[k:]), naive_root(hashes[:k])]


def naive_proof(m: int, hashes: Sequence[bytes], whole: bool = True) -> list[bytes]:
    """RFC 6962 §2.1.2, SUBPROOF, word for word."""
    if m == len(hashes):
        return [] if whole else [naive_root(hashes)]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    if m <= k:
        return [*naive_proof(m, hashes[:k], whole), naive_root(hashes[k:])]
    return [*naive_proof(m - k, hashes[k:], False), naive_root(hashes[:k])]


def stored_nodes(count: int) -> dict[Node, bytes]:
    """All complete subtrees of a log of this size, as its growth hands them out."""
    _, runs = CompactRange().grow(leaves(count))
    return {Node(run.level, run.first + at): one for run in runs for at, one in enumerate(run.hashes)}


@cache
def note_signer(name: str, key_type: KeyType = KeyType.ED25519) -> NoteSigner:
    """The note key of this name and type, the same in every run."""
    seed = hashlib.sha256(f"{name} {key_type:d}".encode()).digest()
    return NoteSigner.from_seed(name, seed, key_type)


def log_signer() -> NoteSigner:
    """The key of the log under test; its name is the origin."""
    return note_signer(ORIGIN)


def witness_signer(number: int, key_type: KeyType = KeyType.COSIGNATURE_ED25519) -> NoteSigner:
    """The key of a witness."""
    return note_signer(f"witness.example/w{number}", key_type)


def checkpoint(size: int, **changes: Any) -> Checkpoint:
    """The honest checkpoint of the log at a size, with some fields replaced."""
    honest: dict[str, Any] = {"origin": ORIGIN, "size": size, "root": naive_root(leaves(size))}
    return Checkpoint(**honest | changes)


def signed(body: Checkpoint, *witnesses: NoteSigner, log: NoteSigner | None = None, at: int = NOW) -> Note:
    """A checkpoint signed by its log and cosigned by these witnesses at one time."""
    signers = (log or log_signer(), *witnesses)
    return Note(body.text, tuple(signer.sign(body.text, at) for signer in signers))

"""The tree against the RFC's sentences, against vectors that others wrote, and against every small lie."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.errors import InputError, Reason, VerificationError
from idtrace.merkle import (
    EMPTY_ROOT,
    PROOF_HASHES_MAX,
    SIZE_MAX,
    BatchTree,
    CompactRange,
    Node,
    check_consistency,
    check_inclusion,
    consistency_plan,
    fold,
    hash_leaf,
    hash_node,
    inclusion_plan,
    root_from_path,
    root_of,
    root_plan,
)
from tests.log_fixtures import leaves, naive_path, naive_proof, naive_root, refusal, stored_nodes
from tests.shared_data import shared_data

LAST = 130  # past two doublings of a byte's bits and one full tile's half: every shape of right edge is among them
OTHER = hash_leaf(b"not in the log")


def vectors(kind: str) -> list[tuple[str, dict[str, Any]]]:
    found = sorted(shared_data(f"merkle/{kind}").rglob("*.json"))
    return [(str(path), json.loads(path.read_text("utf-8"))) for path in found]


def unpacked(hashes: list[str] | None) -> list[bytes]:
    return [base64.b64decode(one) for one in hashes or []]


def test_the_published_inclusion_vectors_pass_and_fail_as_they_say() -> None:
    cases = vectors("inclusion")
    for name, case in cases:
        leaf, root = unpacked([case["leafHash"], case["root"]])
        given_path = unpacked(case["proof"])
        refused = refusal(check_inclusion, leaf, case["leafIdx"], case["treeSize"], given_path, root)
        assert refused is (Reason.PROOF_INVALID if case["wantErr"] else None), (name, case["desc"])
    assert len(cases) == 49


def test_the_published_consistency_vectors_pass_and_fail_as_they_say() -> None:
    cases = vectors("consistency")
    for name, case in cases:
        old, new = unpacked([case["root1"], case["root2"]])
        refused = refusal(check_consistency, case["size1"], old, case["size2"], new, unpacked(case["proof"]))
        assert (refused is not None) == case["wantErr"], (name, case["desc"], refused)
    assert len(cases) == 49


def test_the_known_hashes_of_the_rfc_are_ours() -> None:
    # From the test of Certificate Transparency's reference: nothing, an empty leaf, and two short strings as a node.
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert hash_leaf(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert hash_leaf(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    assert hash_node(b"N123", b"N456").hex() == "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"


def test_every_size_has_the_root_that_the_rfc_spells_out() -> None:
    grown, read = CompactRange(), stored_nodes(LAST).__getitem__
    for size in range(LAST + 1):
        expected = naive_root(leaves(size))
        assert root_of(leaves(size)) == expected
        assert grown.root() == expected
        assert BatchTree(leaves(size)).root == expected
        assert CompactRange.restored(grown.size, grown.peaks) == grown
        assert CompactRange.decode(grown.encode()) == grown
        if size:
            assert fold(root_plan(size), read) == (expected,)
        grown = grown.append(hash_leaf(f"entry {size}".encode()))


def test_growing_in_any_two_steps_ends_in_one_range_and_stores_every_node_once() -> None:
    everything = stored_nodes(LAST)
    for first in range(LAST + 1):
        before, runs = CompactRange().grow(leaves(first))
        after, more = before.grow(leaves(LAST)[first:])
        assert after == CompactRange().extend(leaves(LAST))
        named = [(Node(run.level, run.first + at), one) for run in (*runs, *more) for at, one in enumerate(run.hashes)]
        assert len(named) == len(everything)
        assert dict(named) == everything
        assert [everything[node] for node in CompactRange.peak_nodes(first)] == list(before.peaks)


def test_every_inclusion_proof_is_the_rfcs_and_verifies() -> None:
    read = stored_nodes(LAST).__getitem__
    for size in range(1, LAST + 1):
        batch, root = BatchTree(leaves(size)), naive_root(leaves(size))
        paths = batch.paths()
        for index, leaf in enumerate(leaves(size)):
            path = fold(inclusion_plan(index, size), read)
            assert path == paths[index]
            check_inclusion(leaf, index, size, path, root)
        assert list(paths[size // 3]) == naive_path(size // 3, leaves(size))


def test_every_consistency_proof_verifies_and_is_the_rfcs() -> None:
    read = stored_nodes(LAST).__getitem__
    roots = [naive_root(leaves(size)) for size in range(LAST + 1)]
    for new in range(LAST + 1):
        for old in range(new + 1):
            proof = fold(consistency_plan(old, new), read)
            if old or not new:
                check_consistency(old, roots[old], new, roots[new], proof)
            if new % 13 == 0 and old:
                assert list(proof) == naive_proof(old, leaves(new))


def mutations(hashes: tuple[bytes, ...]) -> list[tuple[bytes, ...]]:
    """Every way to spoil a proof by one step: a bit, a length, one left out, one twice, two swapped, one more."""
    found = [(*hashes, OTHER), (OTHER, *hashes), hashes[:-1] if hashes else (EMPTY_ROOT,)]
    for at, one in enumerate(hashes):
        before, after = hashes[:at], hashes[at + 1 :]
        flipped = (bytes([one[0] ^ 1]) + one[1:], one[:-1] + bytes([one[-1] ^ 128]))
        found += [(*before, spoilt, *after) for spoilt in (*flipped, one[:-1], one + b"\0", b"", EMPTY_ROOT)]
        found += [(*before, *after), (*before, one, one, *after)]
        if after:
            found.append((*before, after[0], one, *after[1:]))
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 11, 16, 31, 33, 64, 100, 130])
def test_no_mutation_of_an_inclusion_proof_passes(size: int) -> None:
    root = naive_root(leaves(size))
    for index in {0, 1, size // 2, size - 2, size - 1} & set(range(size)):
        leaf, path = leaves(size)[index], BatchTree(leaves(size)).path(index)
        for spoilt in mutations(path):
            assert refusal(check_inclusion, leaf, index, size, spoilt, root) is Reason.PROOF_INVALID
        for other in set(range(-2, size + 2)) - {index}:
            assert refusal(check_inclusion, leaf, other, size, path, root) is Reason.PROOF_INVALID
        for wrong in (OTHER, leaf[:-1], leaf + b"\0", b""):
            assert refusal(check_inclusion, wrong, index, size, path, root) is Reason.PROOF_INVALID
        assert refusal(check_inclusion, leaf, index, size, path, OTHER) is Reason.PROOF_INVALID
        # A path proves the root that follows from it; another size is caught only where it changes the path's shape.
        sizes = [other for other in range(size * 2 + 2) if other != size]
        passing = [other for other in sizes if refusal(check_inclusion, leaf, index, other, path, root) is None]
        assert all(len(naive_path(index, leaves(other))) == len(path) for other in passing)


@pytest.mark.parametrize("new", [2, 3, 4, 5, 7, 8, 11, 16, 31, 33, 64, 100, 130])
def test_no_mutation_of_a_consistency_proof_passes(new: int) -> None:
    read = stored_nodes(LAST).__getitem__
    for old in {1, 2, 3, new // 2, new - 1} & set(range(1, new)):
        roots = naive_root(leaves(old)), naive_root(leaves(new))
        proof = fold(consistency_plan(old, new), read)
        for spoilt in mutations(proof):
            refused = refusal(check_consistency, old, roots[0], new, roots[1], spoilt)
            assert refused is Reason.PROOF_INVALID
        for first, second in ((OTHER, roots[1]), (roots[0], OTHER), (roots[1], roots[0]), (roots[0][:-1], roots[1])):
            refused = refusal(check_consistency, old, first, new, second, proof)
            assert refused is Reason.PROOF_INVALID
        for other in set(range(-1, new + 1)) - {old, new}:
            refused = refusal(check_consistency, other, roots[0], new, roots[1], proof)
            assert refused is Reason.PROOF_INVALID


def test_hashes_of_other_lengths_cannot_share_a_node_between_them() -> None:
    left, right = leaves(2)
    root = hash_node(left, right)
    assert hash_node(left + right[:1], right[1:]) == root, "the bytes alone do not say where a child ends"
    assert refusal(check_inclusion, left + right[:1], 0, 2, (right[1:],), root) is Reason.PROOF_INVALID
    assert refusal(check_inclusion, left[:-1], 0, 2, (left[-1:] + right,), root) is Reason.PROOF_INVALID
    assert refusal(check_inclusion, right[1:], 1, 2, (left + right[:1],), root) is Reason.PROOF_INVALID
    assert refusal(check_inclusion, b"short", 0, 1, (), b"short") is Reason.PROOF_INVALID
    assert refusal(check_consistency, 1, left + right[:1], 2, root, (right[1:],)) is Reason.PROOF_INVALID


def test_one_size_with_two_roots_is_called_a_fork_and_not_a_bad_proof() -> None:
    assert refusal(check_consistency, 7, OTHER, 7, EMPTY_ROOT, ()) is Reason.LOG_INCONSISTENT
    assert refusal(check_consistency, 7, OTHER, 7, OTHER, ()) is None
    assert refusal(check_consistency, 7, OTHER, 7, OTHER, (OTHER,)) is Reason.PROOF_INVALID


def test_from_the_empty_tree_nothing_is_proved_but_itself() -> None:
    assert refusal(check_consistency, 0, EMPTY_ROOT, 5, OTHER, ()) is Reason.PROOF_INVALID
    assert refusal(check_consistency, 0, EMPTY_ROOT, 0, EMPTY_ROOT, ()) is None
    assert refusal(check_consistency, 0, EMPTY_ROOT, 5, OTHER, (OTHER,)) is Reason.PROOF_INVALID
    assert refusal(check_consistency, 0, OTHER, 5, OTHER, ()) is Reason.PROOF_INVALID
    assert refusal(check_consistency, 0, OTHER, 0, OTHER, ()) is Reason.PROOF_INVALID
    assert refusal(check_consistency, 0, EMPTY_ROOT, 0, OTHER, ()) is Reason.PROOF_INVALID


def test_a_log_that_shrinks_or_outgrows_its_numbers_is_refused() -> None:
    for old, new in ((2, 1), (-1, 1), (1, SIZE_MAX + 1)):
        assert refusal(check_consistency, old, OTHER, new, OTHER, ()) is Reason.PROOF_INVALID
        assert refusal(consistency_plan, old, new) is Reason.PROOF_MALFORMED
    for index, size in ((0, 0), (1, 1), (-1, 1), (0, SIZE_MAX + 1)):
        assert refusal(root_from_path, OTHER, index, size, ()) is Reason.PROOF_INVALID
        assert refusal(inclusion_plan, index, size) is Reason.PROOF_MALFORMED


def test_proofs_stay_within_their_bound_in_trees_that_nobody_will_fill() -> None:
    size = 2**62
    assert max(len(inclusion_plan(index, size)) for index in (0, 1, size // 2, size - 1)) == 62
    assert max(len(consistency_plan(old, size)) for old in (1, 2**61 - 1, size - 1)) == PROOF_HASHES_MAX
    assert len(CompactRange.peak_nodes(SIZE_MAX)) == 63
    assert len(inclusion_plan(0, SIZE_MAX)) == 63


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 7, b"\0" * 9, (1).to_bytes(8, "big"), (3).to_bytes(8, "big") + OTHER, b"\x80" + b"\0" * 7 + OTHER],
    ids=["empty", "short", "a byte too many", "no peak", "one of two peaks", "beyond 2**63 - 1"],
)
def test_bytes_that_are_no_range_are_refused(data: bytes) -> None:
    assert refusal(CompactRange.decode, data) is Reason.PROOF_MALFORMED


def test_a_peak_that_is_no_hash_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        CompactRange.restored(3, [OTHER, OTHER[:-1]])
    assert caught.value.field == "peaks[1]"


def test_our_own_slips_are_bugs_and_not_verdicts() -> None:
    for slip in (
        lambda: CompactRange(SIZE_MAX, ()).grow([OTHER]),
        lambda: CompactRange().grow([b"an entry, not its hash"]),
        lambda: BatchTree([b"an entry, not its hash"]),
        lambda: BatchTree([OTHER]).path(1),
        lambda: root_plan(0),
    ):
        with pytest.raises(AssertionError):
            slip()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_range_in_canonical_form_or_refused(data: bytes) -> None:
    refused = refusal(CompactRange.decode, data)
    assert refused is Reason.PROOF_MALFORMED or CompactRange.decode(data).encode() == data


@given(st.lists(st.integers(0, 40), max_size=8))
def test_batches_of_any_sizes_grow_to_the_tree_of_all(sizes: list[int]) -> None:
    edges = [0]
    for size in sizes:
        edges.append(edges[-1] + size)
    everything, grown = leaves(edges[-1]), CompactRange()
    for start, end in pairwise(edges):
        grown = grown.extend(everything[start:end])
    assert grown.root() == naive_root(everything)
    assert grown.size == edges[-1]


@given(st.integers(-5, 2**64), st.integers(-5, 2**64), st.lists(st.binary(max_size=40), max_size=70))
def test_any_claim_is_refused_with_the_one_reason(index: int, size: int, path: list[bytes]) -> None:
    with pytest.raises(VerificationError) as caught:
        check_inclusion(OTHER, index, size, path, EMPTY_ROOT)
    assert caught.value.reason is Reason.PROOF_INVALID
    refused = refusal(check_consistency, index, OTHER, size, EMPTY_ROOT, path)
    assert refused in {Reason.PROOF_INVALID, Reason.LOG_INCONSISTENT}

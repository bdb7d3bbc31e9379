"""Tiles: their paths in one spelling, all of a tree and nothing twice, and proofs read back from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.errors import Reason
from idtrace.merkle import SIZE_MAX, CompactRange, Node, consistency_plan, fold, inclusion_plan, root_of, root_plan
from idtrace.tiles import (
    ENTRY_BYTES_MAX,
    TILE_HEIGHT,
    EntryBundle,
    Tile,
    bundle_content,
    bundles_of,
    cache_control,
    grown_bundles,
    grown_tiles,
    node_reader,
    parse_path,
    row_reader,
    split_bundle,
    split_tile,
    tile_content,
    tile_of,
    tiles_for,
    tiles_of,
)
from tests.log_fixtures import leaves, naive_path, naive_proof, naive_root, refusal, stored_nodes

# The specification's own examples, and the ends of the ranges.
PATHS = {
    "tile/0/000": Tile(0, 0),
    "tile/0/x001/x234/067": Tile(0, 1_234_067),
    "tile/1/004.p/17": Tile(1, 4, 17),
    "tile/0/999.p/255": Tile(0, 999, 255),
    "tile/0/x001/000.p/1": Tile(0, 1000, 1),
    "tile/7/000.p/127": Tile(7, 0, 127),
    "tile/entries/000.p/8": EntryBundle(0, 8),
    "tile/entries/x001/x234/067": EntryBundle(1_234_067),
}
NO_PATHS = [
    "", "tile", "tile/0", "tile/0/", "tile/0/0", "tile/0/00", "tile/0/0000", "tile/0/x000/001", "tile/0/x01/001",
    "tile/0/x001", "tile/0/x001/", "tile/0/001/001", "tile/0/X001/001", "tile/00/000", "tile/01/000", "tile/-1/000",
    "tile/0/-01", "tile/64/000", "tile/100/000", "tile/0/000.p/0", "tile/0/000.p/01", "tile/0/000.p/256",
    "tile/0/000.p/", "tile/0/000.p", "tile/0/000.p/1/", "tile/0/000/", "/tile/0/000", "tile/0/000 ", "tile/0/000\n",
    "tile/entries", "tile/Entries/000", "tile/data/000", "tile/0/\u0660\u0660\u0660", "tile/0/000.p/\u0661",
    "tile/0/../000", "checkpoint", "tile/8/000", "tile/7/x001/000", "tile/7/000.p/128", "tile/7/000", "tile/63/000.p/1",
    "tile/0/" + "x999/" * 30 + "999", "tile/0/x036/x028/x797/x018/x963/968",
]  # fmt: skip


@pytest.mark.parametrize(("path", "resource"), PATHS.items())
def test_a_path_is_read_and_written_in_one_spelling(path: str, resource: Tile | EntryBundle) -> None:
    assert parse_path(path) == resource
    assert resource.path == path


@pytest.mark.parametrize("path", NO_PATHS)
def test_what_is_no_path_of_a_log_is_refused(path: str) -> None:
    assert refusal(parse_path, path) is Reason.TILE_MALFORMED


def test_the_last_tile_of_the_largest_tree_has_a_path() -> None:
    last = SIZE_MAX // 256
    assert parse_path(Tile(0, last, 255).path) == Tile(0, last, 255)
    assert refusal(parse_path, Tile(0, last + 1, 1).path) is Reason.TILE_MALFORMED


@given(st.integers(0, 6), st.integers(0, 2**14), st.integers(1, 256), st.booleans())
def test_every_tile_has_its_own_path(level: int, index: int, width: int, entries: bool) -> None:
    resource = EntryBundle(index, width) if entries else Tile(level, index, width)
    if not entries and level == 6:
        index %= 2**6
        resource = Tile(level, index, width)
    assert parse_path(resource.path) == resource


@given(st.text(alphabet="tile/entrisx0123456789.p", max_size=40) | st.text(max_size=30))
def test_any_text_is_a_canonical_path_or_refused(text: str) -> None:
    assert refusal(parse_path, text) is Reason.TILE_MALFORMED or parse_path(text).path == text


@given(st.sampled_from(sorted(PATHS)), st.data())
def test_a_path_with_one_character_changed_is_another_path_or_none(path: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(path) - 1))
    changed = path[:at] + data.draw(st.sampled_from("0189x/.p-\0 ")) + path[at + 1 :]
    assert refusal(parse_path, changed) is Reason.TILE_MALFORMED or parse_path(changed).path == changed


def test_the_trees_of_the_specification_have_the_tiles_that_it_counts() -> None:
    tiles = list(tiles_of(70_000))
    assert sum(tile.is_full for tile in tiles if tile.level == 0) == 273
    assert [tile for tile in tiles if not tile.is_full] == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert [tile for tile in tiles if tile.level == 1] == [Tile(1, 0), Tile(1, 1, 17)]
    assert list(tiles_of(256)) == [Tile(0, 0), Tile(1, 0, 1)]
    assert [*tiles_of(0), *bundles_of(0)] == []
    assert list(bundles_of(257)) == [EntryBundle(0), EntryBundle(1, 1)]


@given(st.integers(0, 70_000), st.integers(0, 70_000))
def test_growth_makes_the_tiles_that_were_not_there_before(one: int, other: int) -> None:
    old, new = sorted((one, other))
    made = list(grown_tiles(old, new))
    assert len(set(made)) == len(made)
    assert set(made) == set(tiles_of(new)) - set(tiles_of(old))
    bundles = list(grown_bundles(old, new))
    assert bundles == sorted(set(bundles_of(new)) - set(bundles_of(old)))
    assert [tile for tile in set(tiles_of(old)) - set(tiles_of(new)) if tile.is_full] == []


def log_of_tiles(size: int) -> dict[Tile, bytes]:
    """What a log has written after it grew to a size in batches of 7, 100 and the rest."""
    written: dict[Tile, bytes] = {}
    rows: dict[Node, bytes] = {}
    state = CompactRange()
    for end in (min(7, size), min(100, size), size):
        before = state.size
        state, runs = state.grow(leaves(size)[before:end])
        rows |= {
            Node(run.level, run.first + at): one
            for run in runs
            if run.level % TILE_HEIGHT == 0
            for at, one in enumerate(run.hashes)
        }
        for tile in grown_tiles(before, state.size):
            written[tile] = tile_content(tile, row_reader(rows))
    assert state.root() == naive_root(leaves(size))
    return written


@pytest.mark.parametrize("size", [1, 2, 7, 100, 255, 256, 257, 511, 512, 513, 700, 1000])
def test_proofs_and_roots_read_from_tiles_are_the_rfcs(size: int) -> None:
    tiles = log_of_tiles(size)
    read = node_reader(size, tiles.__getitem__)
    assert fold(root_plan(size), read) == (naive_root(leaves(size)),)
    for index in {0, 6, 99, 255, 256, size // 2, size - 1} & set(range(size)):
        plan = inclusion_plan(index, size)
        assert list(fold(plan, read)) == naive_path(index, leaves(size))
        fetched = {tile: tiles[tile] for tile in tiles_for(plan, size)}
        assert list(fold(plan, node_reader(size, fetched.__getitem__))) == naive_path(index, leaves(size))
    for old in {1, 7, 100, 255, 256, size - 1} & set(range(1, size)):
        assert list(fold(consistency_plan(old, size), read)) == naive_proof(old, leaves(size))
        # A tree that was: what it needs is in the tiles of today.
        assert fold(root_plan(old), read) == (naive_root(leaves(old)),)


def test_the_tiles_of_a_log_are_just_those_that_its_growth_wrote_last() -> None:
    assert set(tiles_of(700)) <= set(log_of_tiles(700))
    everything = stored_nodes(700)
    for tile in tiles_of(700):
        assert split_tile(tile, log_of_tiles(700)[tile]) == tuple(everything[node] for node in tile.nodes)


def test_rows_of_every_eighth_level_answer_for_all_levels() -> None:
    everything = stored_nodes(600)
    rows = {node: one for node, one in everything.items() if node.level % TILE_HEIGHT == 0}
    assert len(rows) < len(everything)
    assert {node: row_reader(rows)(node) for node in everything} == everything
    with pytest.raises(KeyError):
        row_reader(rows)(Node(0, 600))


@pytest.mark.parametrize("node", [Node(0, 5), Node(3, 0), Node(1, -1), Node(9, 0)])
def test_a_node_that_the_tree_has_not_is_our_own_bug(node: Node) -> None:
    with pytest.raises(AssertionError):
        tile_of(node, 5)


@pytest.mark.parametrize("spoil", [lambda c: c[:-1], lambda c: c + b"\0", lambda c: c + c, lambda c: b""])
def test_a_tile_of_another_length_is_refused(spoil: object) -> None:
    assert callable(spoil)
    tile = Tile(0, 0, 5)
    content = spoil(b"".join(leaves(5)))
    assert refusal(split_tile, tile, content) is Reason.TILE_MALFORMED
    assert refusal(node_reader(5, lambda _: content), Node(2, 0)) is Reason.TILE_MALFORMED


def test_a_changed_tile_gives_another_root() -> None:
    tiles = log_of_tiles(300)
    for tile, content in tiles.items():
        if tile not in tiles_for(root_plan(300), 300):
            continue
        spoilt = tiles | {tile: bytes([content[0] ^ 1]) + content[1:]}
        (root,) = fold(root_plan(300), node_reader(300, spoilt.__getitem__))
        assert root != root_of(leaves(300))


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
def test_a_bundle_gives_its_entries_back(entries: list[bytes]) -> None:
    content = bundle_content(entries)
    bundle = EntryBundle(0, len(entries))
    assert split_bundle(bundle, content) == tuple(entries)
    for spoilt in (content[:-1], content + b"\0", content + b"\0\0", content[1:]):
        found = refusal(split_bundle, bundle, spoilt)
        assert found is Reason.TILE_MALFORMED or bundle_content(split_bundle(bundle, spoilt)) == spoilt
    if len(entries) < 256:
        assert refusal(split_bundle, EntryBundle(0, len(entries) + 1), content) is Reason.TILE_MALFORMED
    if len(entries) > 1:
        assert refusal(split_bundle, EntryBundle(0, len(entries) - 1), content) is Reason.TILE_MALFORMED


@given(st.binary(max_size=80), st.integers(1, 6))
def test_any_bytes_are_a_canonical_bundle_or_refused(content: bytes, width: int) -> None:
    bundle = EntryBundle(3, width)
    refused = refusal(split_bundle, bundle, content)
    assert refused is Reason.TILE_MALFORMED or bundle_content(split_bundle(bundle, content)) == content


def test_entries_reach_their_limits_and_no_further() -> None:
    assert split_bundle(EntryBundle(0, 1), bundle_content([b"x" * ENTRY_BYTES_MAX])) == (b"x" * ENTRY_BYTES_MAX,)
    assert bundle_content([b""] * 256) == b"\0\0" * 256
    for entries in ([], [b""] * 257, [b"x" * (ENTRY_BYTES_MAX + 1)]):
        assert refusal(bundle_content, entries) is Reason.TILE_MALFORMED


def test_what_is_full_is_kept_for_a_year_and_what_is_not_for_a_minute() -> None:
    assert cache_control(Tile(0, 3)) == cache_control(EntryBundle(3)) == "public, max-age=31536000, immutable"
    assert cache_control(Tile(0, 3, 9)) == cache_control(EntryBundle(3, 9)) == "public, max-age=60, immutable"


@pytest.mark.parametrize("grow", [grown_tiles, grown_bundles])
def test_a_log_that_shrinks_is_our_own_bug(grow: object) -> None:
    assert callable(grow)
    with pytest.raises(AssertionError):
        list(grow(2, 1))

"""A log as static files: hash tiles, entry bundles, their paths and their lifetimes (C2SP tlog-tiles).

A tile holds up to 256 neighbouring nodes of every eighth level of the tree: tile (L, N) of a full log has the nodes of
level 8·L at the places 256·N … 256·N + 255. The levels between are hashed again by whoever reads. A bundle holds the
entries under one tile of level 0. Full tiles never change; the right edge of the tree stands in partial ones, whose
width is part of their name, so they never change either but are soon out of use::

    tile/0/x001/x234/067        tile/1/004.p/17        tile/entries/x001/x234/067.p/8        checkpoint
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from idtrace.errors import InputError, Reason, quoted
from idtrace.merkle import HASH_BYTES, SIZE_MAX, Node, NodeReader, Plan, root_of

TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 256
# The length of an entry is written in 16 bits.
ENTRY_BYTES_MAX: Final = 65_535
BUNDLE_BYTES_MAX: Final = TILE_WIDTH * (2 + ENTRY_BYTES_MAX)
# Seven groups of three digits hold every tile of such a tree; with the rest no sound path is longer.
PATH_CHARACTERS_MAX: Final = 64

CHECKPOINT_PATH: Final = "checkpoint"
CHECKPOINT_TYPE: Final = "text/plain; charset=utf-8"
TILE_TYPE: Final = "application/octet-stream"
# A checkpoint is what makes the rest current: a copy in between would hide growth.
CHECKPOINT_CACHE_CONTROL: Final = "no-cache"
# A year, the longest that caches honour; the content under a full tile's name can only be one.
FULL_SECONDS: Final = 31_536_000
# Immutable as well, but asked for only until the tile grows; kept no longer than a burst of readers lasts.
PARTIAL_SECONDS: Final = 60

_INDEX: Final = r"(?P<index>(?:x[0-9]{3}/)*[0-9]{3})"
_WIDTH: Final = r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
_PATH: Final = re.compile(rf"tile/(?P<level>entries|0|[1-9][0-9]?)/{_INDEX}{_WIDTH}")


def _index_path(index: int) -> str:
    """``1234067`` as ``x001/x234/067``: no folder grows large, and no file has the name of a folder."""
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    return "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """Up to 256 neighbouring nodes of the tree's level 8 x ``level``; of width 1 to 255 while it is partial."""

    level: int
    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """Where it is served, below the log's address."""
        return f"tile/{self.level}/{_index_path(self.index)}{_width_path(self.width)}"

    @property
    def is_full(self) -> bool:
        """Whether it has its 256 hashes and will never be asked for under another name."""
        return self.width == TILE_WIDTH

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes of the tree whose hashes it holds, in order."""
        first = self.index * TILE_WIDTH
        return tuple(Node(self.level * TILE_HEIGHT, place) for place in range(first, first + self.width))


@dataclass(frozen=True, slots=True, order=True)
class EntryBundle:
    """The entries under a tile of level 0: ``width`` of them, from entry 256 x ``index`` on."""

    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """Where it is served, below the log's address."""
        return f"tile/entries/{_index_path(self.index)}{_width_path(self.width)}"

    @property
    def is_full(self) -> bool:
        """Whether it has its 256 entries."""
        return self.width == TILE_WIDTH


def _width_path(width: int) -> str:
    return "" if width == TILE_WIDTH else f".p/{width}"


def parse_path(path: str) -> Tile | EntryBundle:
    """Read a path; :attr:`Tile.path` gives it back exactly.

    Raises:
        InputError: TILE_MALFORMED (no such path, or one that is spelled in another way).
    """
    found = _PATH.fullmatch(path) if len(path) <= PATH_CHARACTERS_MAX else None
    if found is None:
        raise InputError(Reason.TILE_MALFORMED, f"{quoted(path)} is no path of a tile or bundle", field="path")
    index, width = int(re.sub("[x/]", "", found["index"])), int(found["width"] or TILE_WIDTH)
    in_entries = found["level"] == "entries"
    level = 0 if in_entries else int(found["level"])
    resource = EntryBundle(index, width) if in_entries else Tile(level, index, width)
    # The path allows levels to 63, trees have them to 7. The second test is for groups of zeroes in front and ".p/256".
    if (index * TILE_WIDTH + width) << level * TILE_HEIGHT > SIZE_MAX or resource.path != path:
        raise InputError(Reason.TILE_MALFORMED, f"no log has {quoted(path)}", field="path")
    return resource


def cache_control(resource: Tile | EntryBundle) -> str:
    """HTTP ``Cache-Control`` of a tile or bundle; a checkpoint has :data:`CHECKPOINT_CACHE_CONTROL`."""
    return f"public, max-age={FULL_SECONDS if resource.is_full else PARTIAL_SECONDS}, immutable"


def tiles_of(size: int) -> Iterator[Tile]:
    """All tiles of a tree of this size, level by level, left to right; the partial one of a level last."""
    return grown_tiles(0, size)


def grown_tiles(old_size: int, new_size: int) -> Iterator[Tile]:
    """The tiles that a tree of the new size has and one of the old size has not: what growing has to write."""
    assert 0 <= old_size <= new_size <= SIZE_MAX, "a log never shrinks"
    level = 0
    while new_size:
        for bundle in grown_bundles(old_size, new_size):
            yield Tile(level, bundle.index, bundle.width)
        old_size, new_size, level = old_size >> TILE_HEIGHT, new_size >> TILE_HEIGHT, level + 1


def bundles_of(size: int) -> Iterator[EntryBundle]:
    """All entry bundles of a log of this size, in order."""
    return grown_bundles(0, size)


def grown_bundles(old_size: int, new_size: int) -> Iterator[EntryBundle]:
    """The bundles that a log of the new size has and one of the old size has not."""
    assert 0 <= old_size <= new_size <= SIZE_MAX, "a log never shrinks"
    if old_size == new_size:
        return
    for index in range(old_size // TILE_WIDTH, -(-new_size // TILE_WIDTH)):
        yield EntryBundle(index, min(TILE_WIDTH, new_size - index * TILE_WIDTH))


def tile_of(node: Node, size: int) -> Tile:
    """The tile of a tree of this size that holds a complete subtree, or the nodes that it is hashed from."""
    level, within = divmod(node.level, TILE_HEIGHT)
    row = size >> level * TILE_HEIGHT
    first = node.place << within
    assert 0 <= first <= row - (1 << within), "the tree has no such complete subtree"
    index = first // TILE_WIDTH
    return Tile(level, index, min(TILE_WIDTH, row - index * TILE_WIDTH))


def tiles_for(plan: Plan, size: int) -> tuple[Tile, ...]:
    """The tiles of a tree of this size that a plan of it reads, each once, in order: what to fetch before folding."""
    return tuple(sorted({tile_of(node, size) for nodes in plan for node in nodes}))


def node_reader(size: int, read_tile: Callable[[Tile], bytes]) -> NodeReader:
    """Answer for the complete subtrees of a tree of this size from its tiles (a mapping's ``__getitem__`` will do).

    Plans of smaller trees can be folded with it too: what is complete stays so. The reader raises InputError
    (TILE_MALFORMED) where a tile has the wrong length, and whatever ``read_tile`` raises.
    """

    def read(node: Node) -> bytes:
        tile = tile_of(node, size)
        within = node.level % TILE_HEIGHT
        first = (node.place << within) % TILE_WIDTH
        return root_of(split_tile(tile, read_tile(tile), first, first + (1 << within)))

    return read


def row_reader(rows: Mapping[Node, bytes]) -> NodeReader:
    """Answer from a mapping that has every eighth level, as a store of rows keeps it; the rest is hashed from there.

    The reader raises what the mapping raises where it has no such node.
    """

    def read(node: Node) -> bytes:
        within = node.level % TILE_HEIGHT
        stored, first = node.level - within, node.place << within
        return root_of([rows[Node(stored, place)] for place in range(first, first + (1 << within))])

    return read


def tile_content(tile: Tile, read: NodeReader) -> bytes:
    """Bytes of a tile from stored nodes: 32 for each of its width."""
    return b"".join(map(read, tile.nodes))


def split_tile(tile: Tile, content: bytes, start: int = 0, end: int = TILE_WIDTH) -> tuple[bytes, ...]:
    """The hashes of a tile, or those at the places [start, end) within it.

    They are believed once a root that is folded from them is a checkpoint's.

    Raises:
        InputError: TILE_MALFORMED (the length is not that of this tile).
    """
    if len(content) != tile.width * HASH_BYTES:
        detail = f"{tile.path} has {tile.width} hashes, not {len(content)} bytes"
        raise InputError(Reason.TILE_MALFORMED, detail, field="tile")
    return tuple(content[at * HASH_BYTES : (at + 1) * HASH_BYTES] for at in range(start, min(end, tile.width)))


def bundle_content(entries: Sequence[bytes]) -> bytes:
    """Bytes of a bundle: each entry behind its length (u16, big-endian).

    Raises:
        InputError: TILE_MALFORMED (no entry, more than 256, or one of more than 65,535 bytes).
    """
    if not 0 < len(entries) <= TILE_WIDTH:
        raise InputError(Reason.TILE_MALFORMED, f"a bundle has 1 to {TILE_WIDTH} entries", field="bundle")
    if any(len(entry) > ENTRY_BYTES_MAX for entry in entries):
        raise InputError(Reason.TILE_MALFORMED, f"an entry has at most {ENTRY_BYTES_MAX} bytes", field="bundle")
    return b"".join(part for entry in entries for part in (len(entry).to_bytes(2, "big"), entry))


def split_bundle(bundle: EntryBundle, content: bytes) -> tuple[bytes, ...]:
    """The entries of a bundle.

    Raises:
        InputError: TILE_MALFORMED (fewer or more entries or bytes than this bundle has).
    """
    entries = []
    at = 0
    for _ in range(bundle.width):
        start = at + 2
        at = start + int.from_bytes(content[at:start], "big")
        if at > len(content):
            break
        entries.append(content[start:at])
    if len(entries) != bundle.width or at != len(content):
        raise InputError(Reason.TILE_MALFORMED, f"{bundle.path} has {bundle.width} whole entries", field="bundle")
    return tuple(entries)

"""Reads a registry's log out of its store: tiles, entry bundles, proofs. Everything here was committed before.

What is full never changes and is kept in memory, as far as it is asked for; the right edge is read anew each time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Protocol

from idtrace import merkle
from idtrace.errors import Reason, RefusedError
from idtrace.merkle import Node, Plan
from idtrace.tiles import (
    TILE_HEIGHT,
    TILE_WIDTH,
    EntryBundle,
    Tile,
    bundle_content,
    split_tile,
    tile_of,
    tiles_for,
)
from registry.logbook import Edge

# 8 KiB each; a proof in a log of a billion entries reads four, and those of its upper levels are everybody's.
TILES_KEPT: Final = 2_048
# 35 KiB each: those that the proofs of one batch of 2,000 need, which then cost a few looks each and no hashing.
ROWS_KEPT: Final = 64


class LogStore(Protocol):
    """What a store tells of the log; see :class:`registry.storage.Storage`."""

    async def log_edge(self) -> Edge:
        """Head of the log and its partial tiles, all of one commit."""
        ...

    async def log_tile(self, level: int, index: int) -> bytes | None:
        """Content of a tile, full or as wide as it now is."""
        ...

    async def log_entries(self, first: int, count: int) -> list[bytes]:
        """Entries from an index on; fewer where the log ends."""
        ...


class LogReading:
    """Tiles and proofs of one log. Belongs to one event loop."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._full: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._rows: OrderedDict[Tile, list[list[bytes]]] = OrderedDict()  # a tile of one width never changes
        self._above: tuple[int, int, tuple[bytes, ...]] | None = None  # a full tile, a size, its path in that tree

    async def tile(self, tile: Tile) -> bytes:
        """Bytes of a tile of this width.

        Raises:
            RefusedError: NOT_LOGGED where the log has not grown that far.
        """
        content = self._full.get((tile.level, tile.index))
        if content is not None:
            self._full.move_to_end((tile.level, tile.index))
        else:
            content = await self._store.log_tile(tile.level, tile.index) or b""
            if len(content) == TILE_WIDTH * merkle.HASH_BYTES:
                self._keep(tile, content)
        wanted = tile.width * merkle.HASH_BYTES
        if len(content) < wanted:
            raise RefusedError(Reason.NOT_LOGGED, f"the log has no {tile.path}", field="path")
        return content[:wanted]

    async def bundle(self, bundle: EntryBundle) -> bytes:
        """Bytes of an entry bundle of this width.

        Raises:
            RefusedError: NOT_LOGGED where the log has not grown that far.
        """
        entries = await self._store.log_entries(bundle.index * TILE_WIDTH, bundle.width)
        if len(entries) < bundle.width:
            raise RefusedError(Reason.NOT_LOGGED, f"the log has no {bundle.path}", field="path")
        return bundle_content(entries)

    async def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """Path of an entry in the tree of this size.

        Raises:
            RefusedError: NOT_LOGGED where the log has not grown that far.
            InputError: PROOF_MALFORMED where a tree of that size has no such entry.
        """
        path = self._in_full_tile(index, size)
        if path is not None:
            return path
        plan = merkle.inclusion_plan(index, size)
        path = await self._folded(plan, size)
        if size >> TILE_HEIGHT > index >> TILE_HEIGHT:
            self._above = (index >> TILE_HEIGHT, size, path[TILE_HEIGHT:])
        return path

    def _in_full_tile(self, index: int, size: int) -> tuple[bytes, ...] | None:
        """The path, where the one asked for before was of the same full tile: above it the two have the same hashes."""
        if self._above is None or self._above[:2] != (index >> TILE_HEIGHT, size) or index < 0:
            return None
        rows = self._rows.get(Tile(0, index >> TILE_HEIGHT))
        if rows is None:
            return None
        within = index % TILE_WIDTH
        return (*(rows[level][within >> level ^ 1] for level in range(TILE_HEIGHT)), *self._above[2])

    async def consistency(self, old_size: int, new_size: int) -> tuple[bytes, ...]:
        """Proof that the tree of the old size is the beginning of that of the new one.

        Raises:
            RefusedError, InputError: as for :meth:`inclusion`.
        """
        return await self._folded(merkle.consistency_plan(old_size, new_size), new_size)

    async def _folded(self, plan: Plan, size: int) -> tuple[bytes, ...]:
        rows = await self._rows_of(tiles_for(plan, size))

        def read(node: Node) -> bytes:
            tile = tile_of(node, size)
            within = node.level % TILE_HEIGHT
            return rows[tile][within][node.place - (tile.index * TILE_WIDTH >> within)]

        return merkle.fold(plan, read)

    async def _rows_of(self, tiles: Sequence[Tile]) -> dict[Tile, list[list[bytes]]]:
        """Nodes of each tile, level by level; what neighbours have asked for just before is at hand."""
        unknown = [tile for tile in tiles if tile not in self._rows]
        if unknown:
            contents = await asyncio.gather(*map(self.tile, unknown))
            for tile, content in zip(unknown, contents, strict=True):
                self._rows[tile] = _rows(tile, content)
        found = {tile: self._rows[tile] for tile in tiles}
        while len(self._rows) > ROWS_KEPT:
            self._rows.popitem(last=False)
        return found

    def _keep(self, tile: Tile, content: bytes) -> None:
        self._full[tile.level, tile.index] = content
        if len(self._full) > TILES_KEPT:
            self._full.popitem(last=False)


def _rows(tile: Tile, content: bytes) -> list[list[bytes]]:
    """The nodes of a tile and the complete ones above them, up to the tile's own root."""
    rows = [list(split_tile(tile, content))]
    while len(rows[-1]) > 1:
        below = rows[-1]
        rows.append([merkle.hash_node(left, right) for left, right in zip(below[::2], below[1::2], strict=False)])
    return rows

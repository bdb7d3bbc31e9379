"""A log's tree behind one checkpoint, believed tile by tile: nothing is handed out that the root does not cover.

The partial tiles at the right edge fold to the root; a full tile hashes to one node of the tile above it, which was
checked before. So a wrong hash is found in its own tile, by name, and before anything is made of it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

from idtrace import merkle
from idtrace.checkpoint import Checkpoint
from idtrace.errors import BusyError, IdtraceError, Reason, VerificationError
from idtrace.merkle import Node, Plan
from idtrace.tiles import TILE_HEIGHT, TILE_WIDTH, Tile, node_reader, split_tile, tile_of

# 8 KiB each. What is read in order needs one tile a level, a random proof four; the rest is for those that come again.
TILES_KEPT: Final = 1_024


class TileSource(Protocol):
    """Where tiles come from; see :class:`idtrace.auditing.fetching.LogReader`."""

    def tile(self, tile: Tile) -> bytes:
        """Bytes of a tile, unchecked."""
        ...


class TrustedTree:
    """Checked tiles of the tree that one checkpoint names."""

    def __init__(self, checkpoint: Checkpoint, source: TileSource) -> None:
        self.checkpoint = checkpoint
        self._source = source
        self._edge: dict[Tile, bytes] = {}
        self._full: OrderedDict[Tile, bytes] = OrderedDict()
        self._is_open = False

    def open(self) -> None:
        """Fetch the right edge and hold it against the root.

        Raises:
            BusyError: as :meth:`LogReader.tile`.
            VerificationError: TILE_MALFORMED (the edge does not have this root).
        """
        if self._is_open:
            return
        size = self.checkpoint.size
        nodes = merkle.CompactRange.peak_nodes(size)
        edge = {tile: self._source.tile(tile) for tile in {tile_of(node, size) for node in nodes}}
        root = merkle.EMPTY_ROOT
        if size:
            (root,) = merkle.fold(merkle.root_plan(size), node_reader(size, edge.__getitem__))
        if root != self.checkpoint.root:
            raise VerificationError(Reason.TILE_MALFORMED, self._blame(edge), field=self._suspects(edge))
        self._edge, self._is_open = edge, True

    def tile(self, tile: Tile) -> bytes:
        """Bytes of a tile of this tree.

        Raises:
            BusyError, VerificationError: as :meth:`open`; the field is the path of the wrong tile.
        """
        self.open()
        known = self._edge.get(tile) or self._full.get(tile)
        if known is not None:
            return known
        content = self._source.tile(tile)
        self.check(tile, content)
        self._full[tile] = content
        if len(self._full) > TILES_KEPT:
            self._full.popitem(last=False)
        return content

    def check(self, tile: Tile, content: bytes) -> None:
        """Hold a tile's content against the checked tile above it, or a tile of the edge against the edge itself.

        Raises:
            BusyError, VerificationError: as :meth:`tile`.
        """
        self.open()
        if tile in self._edge:
            sound = content == self._edge[tile]
        else:
            above = tile_of(Node((tile.level + 1) * TILE_HEIGHT, tile.index), self.checkpoint.size)
            expected = split_tile(above, self.tile(above), tile.index % TILE_WIDTH, tile.index % TILE_WIDTH + 1)
            sound = (merkle.root_of(split_tile(tile, content)),) == expected
        if not sound:
            detail = f"{tile.path} is not the one under the checkpoint's root"
            raise VerificationError(Reason.TILE_MALFORMED, detail, field=tile.path)

    def fold(self, plan: Plan) -> tuple[bytes, ...]:
        """The hashes of a proof in this tree, or in one that is its beginning.

        Raises:
            BusyError, VerificationError: as :meth:`tile`.
        """
        return merkle.fold(plan, node_reader(self.checkpoint.size, self.tile))

    def root_at(self, size: int) -> bytes:
        """Root of this tree's beginning of so many leaves."""
        return self.fold(merkle.root_plan(size))[0] if size else merkle.EMPTY_ROOT

    def _suspects(self, edge: dict[Tile, bytes]) -> str:
        return ", ".join(tile.path for tile in sorted(edge)) or "checkpoint"

    def _blame(self, edge: dict[Tile, bytes]) -> str:
        """Which tile of the edge is wrong, where what lies below it tells; reads at most the last full tile a level."""
        for tile in sorted(edge):
            if tile.level == 0:
                continue
            below = Tile(tile.level - 1, tile.index * TILE_WIDTH + tile.width - 1)
            try:
                content = self._source.tile(below)
                (last,) = split_tile(tile, edge[tile], tile.width - 1, tile.width)
                if merkle.root_of(split_tile(below, content)) != last:
                    return f"{tile.path} is not that of the tree, or {below.path} below it"
            except BusyError:
                continue
            except IdtraceError as error:
                return f"{below.path}: {error.detail}"
        return f"{self._suspects(edge)} do not have the root that was signed for {self.checkpoint.size} entries"

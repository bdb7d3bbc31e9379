"""The registry's log in a ledger's tables, shown as far as it has been applied, and no further.

The rows of a batch come one after the other: its entries and its tiles, which are wider, before the log's head, and
that before the records. So every reader begins with the head, and waits until that head's batch is applied, by
whomever: then all that it counts is there, the records as well (a statement of what is the latest names a size of the
log), and whatever is there beyond it is cut off. Of a tile that is wider by now the first hashes are those that the
older head counts, for a tile only grows.

A log only grows: what was seen of its size saves the next reader from asking for as much.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from idtrace.merkle import HASH_BYTES
from idtrace.tiles import TILE_WIDTH
from registry.cassandra_bridge import each
from registry.cassandra_rules import tile_width
from registry.cassandra_tables import Tables, damaged
from registry.logbook import Edge, LogHead

Whole = Callable[[int], Awaitable[object]]


class AppliedLog:
    """One ledger's log. ``whole`` returns when a batch, by its number, is applied. Owned by one event loop."""

    def __init__(self, tables: Tables, whole: Whole) -> None:
        self._tables = tables
        self._whole = whole
        self._edge = Edge()  # of a batch that is applied; the latest whose tiles are known here
        self._size = 0  # of the largest log whose batch is known to be applied

    def grown(self, edge: Edge) -> None:
        """Take note of an edge whose batch has been applied."""
        if edge.head.size > self._edge.head.size:
            self._edge = edge
        self._size = max(self._size, edge.head.size)

    async def edge(self, whole: Whole | None = None) -> Edge:
        """Head and partial tiles, all of one batch; ``whole`` in the place of the one above, for who commits.

        Raises:
            RefusedError: INTERNAL where a tile has fewer hashes than the head counts.
        """
        head = await self._head(whole or self._whole)
        if head.note == self._edge.head.note:
            return self._edge
        partial = Edge.partial_tiles(head.size)
        contents = await each(self._cut(head.size, level, place) for level, place in partial.items())
        edge = Edge(head, dict(zip(partial, contents, strict=True)))
        self.grown(edge)
        return edge

    async def _head(self, whole: Whole) -> LogHead:
        head, seq = await self._tables.log_head()
        await whole(seq)
        self._size = max(self._size, head.size)
        return head

    async def _cut(self, size: int, level: int, place: int) -> bytes:
        """Of a tile what a log of this size has of it."""
        width = tile_width(size, level, place) * HASH_BYTES
        content = await self._tables.log_tile(level, place)
        if len(content) < width:
            raise damaged(f"tile {place} of level {level} has {len(content)} of {width} bytes at size {size}")
        return content[:width]

    async def tile(self, level: int, place: int) -> bytes | None:
        """Content of a tile as wide as it now is; None beyond the log. Raises RefusedError as :meth:`edge` does."""
        if tile_width(self._size, level, place) < TILE_WIDTH:  # else it is full for ever
            await self._head(self._whole)
        return await self._cut(self._size, level, place) if tile_width(self._size, level, place) else None

    async def entries(self, first: int, count: int) -> list[bytes]:
        """Entries from an index on; fewer where the log ends.

        Raises:
            RefusedError: INTERNAL where one of them is missing.
        """
        if first + count > self._size:
            await self._head(self._whole)
        end = min(first + count, self._size)
        if first >= end:
            return []
        found = await self._tables.log_entries(first, end)
        if [index for index, _ in found] != list(range(first, end)):
            raise damaged(f"of entries {first} to {end - 1} there are {len(found)}")
        return [entry for _, entry in found]

    async def note(self, size: int) -> bytes | None:
        """The checkpoint of the batch with which the log had this size."""
        found = await self._tables.log_note(size)
        if found is not None and size > self._size:
            await self._head(self._whole)
        return found if size <= self._size else None

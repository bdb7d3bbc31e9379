"""A registry's log in memory, for the store in memory: what a commit appends, kept and given out again."""

from __future__ import annotations

from registry.logbook import Appended, Edge, LogDraft, Stamp


class MemoryLog:
    """One log; every handle on the data holds the same object. Polices what it is given: nothing is ever rewritten."""

    def __init__(self) -> None:
        self.edge = Edge()
        self.entries: list[bytes] = []
        self.tiles: dict[tuple[int, int], bytes] = {}
        self.notes: dict[int, bytes] = {}
        self.witnessed: tuple[int, bytes] | None = None

    def draft(self, stamp: Stamp | None) -> LogDraft | None:
        """A draft at the edge, or None where nothing is to be logged; raises BusyError (CLOCK_BACK)."""
        return stamp.writer.draft(self.edge, stamp.now) if stamp else None

    def take(self, draft: LogDraft | None) -> None:
        """Keep a draft in which something stands."""
        if draft is not None and len(draft):
            self._append(draft.finish())

    def _append(self, appended: Appended) -> None:
        size = appended.edge.head.size
        assert appended.first == len(self.entries), "an entry has an index of its own"
        assert size == len(self.entries) + len(appended.entries), "the head counts the entries"
        assert size not in self.notes, "there is one checkpoint a size"
        self.entries += appended.entries
        for row in appended.tiles:
            before = self.tiles.get((row.level, row.index), b"")
            assert row.content.startswith(before), "a tile only grows"
            self.tiles[row.level, row.index] = row.content
        self.notes[size] = appended.edge.head.note
        self.edge = appended.edge

    def keep_witnessed(self, size: int, note: bytes) -> None:
        """Unless one of a larger log is kept."""
        if self.witnessed is None or size >= self.witnessed[0]:
            self.witnessed = (size, note)

"""What a commit appends: after any batches the tree, the tiles and every proof are those of the entries, in order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.audit import Replay
from idtrace.checkpoint import Checkpoint
from idtrace.delegation import Role
from idtrace.entry import ABSENT_MAX, Entry, EntryKind
from idtrace.errors import BusyError, Reason, RefusedError
from idtrace.identifier import Identifier, Prefix
from idtrace.merkle import check_consistency, check_inclusion, consistency_plan, fold, hash_leaf, inclusion_plan
from idtrace.note import Note, open_note
from idtrace.record import Record
from idtrace.tiles import TILE_WIDTH, Tile, node_reader, tile_content, tiles_of
from registry.logbook import Appended, Edge, LogDraft, LogHead, LogWriter, TileRow
from tests.core_fixtures import NOW, ZONE, delegate, delegation, public, record
from tests.log_fixtures import naive_root, refusal, stored_nodes
from tests.logged_fixtures import HERE, LOG, entry_of, log_signer, sealed_records

WRITER = LogWriter(log_signer())
SOUND = entry_of(record())


def numbered(count: int, first: int = 0) -> list[Entry]:
    """Different entries of this many."""
    return [entry_of(record(), payload=b"%d" % n) for n in range(first, first + count)]


class Kept:
    """What a store has been given, read again as tiles and entries."""

    def __init__(self) -> None:
        self.edge = Edge()
        self.entries: list[bytes] = []
        self.tiles: dict[tuple[int, int], bytes] = {}
        self.notes: dict[int, bytes] = {}

    def take(self, appended: Appended) -> None:
        assert appended.first == len(self.entries)
        self.entries += appended.entries
        for row in appended.tiles:
            assert row.content.startswith(self.tiles.get((row.level, row.index), b"")), "a tile only grows"
            self.tiles[row.level, row.index] = row.content
        self.edge = appended.edge
        assert self.edge.head.size not in self.notes, "one checkpoint a size"
        self.notes[self.edge.head.size] = self.edge.head.note

    def tile(self, tile: Tile) -> bytes:
        return self.tiles[tile.level, tile.index][: tile.width * 32]

    def batch(self, entries: Sequence[Entry], now: int = NOW) -> None:
        draft = WRITER.draft(self.edge, now)
        assert [draft.add(entry) for entry in entries] == [len(self.entries) + n for n in range(len(entries))]
        assert len(draft) == len(entries)
        self.take(draft.finish())


@given(st.lists(st.integers(1, 300), min_size=1, max_size=6))
def test_after_any_batches_all_is_as_if_the_log_had_been_written_at_once(batches: list[int]) -> None:
    kept = Kept()
    for count in batches:
        kept.batch(numbered(count, len(kept.entries)))
    size = sum(batches)
    hashes = [hash_leaf(entry) for entry in kept.entries]
    assert kept.entries == [entry.to_bytes() for entry in numbered(size)]
    assert kept.edge.head.range.root() == naive_root(hashes)
    once = Kept()
    once.batch(numbered(size))
    assert (once.tiles, once.edge.tiles, once.edge.head.range) == (kept.tiles, kept.edge.tiles, kept.edge.head.range)
    assert {(tile.level, tile.index): tile.width * 32 for tile in tiles_of(size)} == {
        place: len(content) for place, content in kept.tiles.items()
    }
    read = node_reader(size, kept.tile)
    for index in (0, size // 2, size - 1):
        path = fold(inclusion_plan(index, size), read)
        check_inclusion(hashes[index], index, size, path, kept.edge.head.range.root())
    for old in kept.notes:
        proof = fold(consistency_plan(old, size), read)
        check_consistency(old, naive_root(hashes[:old]), size, naive_root(hashes), proof)


def test_every_index_of_a_log_of_many_tiles_is_provable() -> None:
    kept = Kept()
    for count in (255, 1, 1, 255, 512, 3):
        kept.batch(numbered(count, len(kept.entries)))
    size = len(kept.entries)
    read, root = node_reader(size, kept.tile), kept.edge.head.range.root()
    for index, entry in enumerate(kept.entries):
        check_inclusion(hash_leaf(entry), index, size, fold(inclusion_plan(index, size), read), root)


def test_tiles_are_those_that_a_log_of_these_leaves_has() -> None:
    """The log's tiles beside those that :mod:`idtrace.tiles` cuts from all nodes of a tree of the same shape."""
    kept = Kept()
    for count in (7, 600, 1, 70):
        kept.batch(numbered(count, len(kept.entries)))
    size = len(kept.entries)
    shape = stored_nodes(size)
    wanted = {(tile.level, tile.index): len(tile_content(tile, shape.__getitem__)) for tile in tiles_of(size)}
    assert {place: len(content) for place, content in kept.tiles.items()} == wanted


@pytest.mark.parametrize("size", [1, 255, 256, 257, 65_535, 65_536, 65_537, 2**40 + 5])
def test_partial_tiles_are_named_by_size(size: int) -> None:
    found = Edge.partial_tiles(size)
    row, level = size, 0
    while row:
        assert found.pop(level, None) == (row // TILE_WIDTH if row % TILE_WIDTH else None)
        row, level = row >> 8, level + 1
    assert found == {}
    assert Edge.partial_tiles(0) == {}


@given(st.integers(0, 20))
def test_a_checkpoint_is_signed_by_the_log_and_about_its_tree(count: int) -> None:
    kept = Kept()
    kept.batch(numbered(count + 1))
    note = Note.parse(kept.edge.head.note)
    open_note(note, [log_signer().key])
    leaves = [hash_leaf(entry) for entry in kept.entries]
    assert Checkpoint.parse(note.text) == Checkpoint(LOG, count + 1, naive_root(leaves))
    assert WRITER.origin == LOG


def test_a_draft_changes_nothing_until_it_is_taken() -> None:
    kept = Kept()
    kept.batch(numbered(300))
    before = (kept.edge, dict(kept.edge.tiles), kept.edge.head.range.encode())
    lost = WRITER.draft(kept.edge, NOW)
    for entry in numbered(400, 1_000):
        lost.add(entry)
    lost.finish()
    assert (kept.edge, dict(kept.edge.tiles), kept.edge.head.range.encode()) == before
    kept.batch(numbered(1, 300))
    assert kept.edge.head.size == 301


@pytest.mark.parametrize(("now", "reason"), [(NOW - 1, Reason.CLOCK_BACK), (NOW, None), (NOW + 1, None)])
def test_time_never_goes_back(now: int, reason: Reason | None) -> None:
    edge = Edge(LogHead(committed_at=NOW))
    assert refusal(WRITER.draft, edge, now) is reason
    if reason:
        with pytest.raises(BusyError, match="1 s behind"):
            WRITER.draft(edge, now)


# Seals


def add_sealed(draft: LogDraft, records: Sequence[Record], kept: Sequence[int]) -> list[int]:
    batch = tuple(one.hash for one in records)
    indexes = []
    for number in kept:
        sealed = records[number].sealed
        assert sealed is not None
        indexes.append(draft.add_sealed(entry_of(records[number]), sealed, batch))
    return indexes


def keys_entry() -> Entry:
    signed = delegate(delegation(ZONE))
    return Entry(EntryKind.KEYS, HERE, NOW, signed.payload, signed.signatures)


@given(st.integers(1, 12), st.data())
def test_a_seal_stands_before_its_records_and_names_those_that_were_refused(count: int, data: st.DataObject) -> None:
    present = data.draw(st.lists(st.integers(0, count - 1), min_size=1, unique=True).map(sorted))
    records = sealed_records(count)
    draft = WRITER.draft(Edge(), NOW)
    assert draft.add(keys_entry()) == 0
    assert add_sealed(draft, records, present) == list(range(2, 2 + len(present)))
    last = record(Identifier.parse(f"{ZONE}/after"))
    assert draft.add(entry_of(last)) == 2 + len(present)
    appended = draft.finish()
    opening = Entry.from_bytes(appended.entries[1])
    assert opening.kind is EntryKind.SEAL
    assert opening.absent == tuple((n, records[n].hash) for n in range(count) if n not in present)
    parent = Prefix.parse("88.118")
    replay = Replay(outside={parent: {public(f"{Role.ZONE} of {parent}").key_id: public(f"{Role.ZONE} of {parent}")}})
    replay.feed(list(appended.entries))
    replay.end()
    assert replay.findings == []
    assert replay.identifiers == len(present) + 1


def test_two_seals_in_one_batch_have_an_entry_each() -> None:
    draft = WRITER.draft(Edge(), NOW)
    add_sealed(draft, sealed_records(3), [0, 1, 2])
    assert add_sealed(draft, sealed_records(4), [1]) == [5]
    kinds = [Entry.from_bytes(entry).kind for entry in draft.finish().entries]
    assert kinds == [EntryKind.SEAL, *[EntryKind.RECORD] * 3, EntryKind.SEAL, EntryKind.RECORD]


def test_a_record_without_its_seal_is_our_own_bug() -> None:
    sealed = sealed_records(1)[0].sealed
    assert sealed is not None
    with pytest.raises(AssertionError, match="names its seal"):
        WRITER.draft(Edge(), NOW).add_sealed(SOUND, sealed, (bytes(32),))


def test_as_many_may_be_refused_as_a_seals_entry_can_name() -> None:
    records = sealed_records(ABSENT_MAX + 1)
    draft = WRITER.draft(Edge(), NOW)
    add_sealed(draft, records, [ABSENT_MAX])
    assert len(Entry.from_bytes(draft.finish().entries[0]).absent) == ABSENT_MAX


def test_rows_of_tiles_are_what_has_changed_and_no_more() -> None:
    kept = Kept()
    kept.batch(numbered(257))
    draft = WRITER.draft(kept.edge, NOW)
    draft.add(SOUND)
    rows = draft.finish().tiles
    assert [(row.level, row.index, len(row.content)) for row in rows] == [(0, 1, 64)]
    assert rows[0] == TileRow(0, 1, rows[0].content)


def test_a_seal_that_lacks_more_than_its_entry_can_name_is_refused_and_never_written() -> None:
    records = sealed_records(ABSENT_MAX + 2)
    draft = WRITER.draft(Edge(), NOW)
    add_sealed(draft, records, [ABSENT_MAX])
    with pytest.raises(RefusedError) as caught:
        draft.finish()
    assert caught.value.reason is Reason.SEAL_REFUSED

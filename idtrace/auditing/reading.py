"""Entries of a log in order, each checked against the tree before anybody makes anything of it.

Bundles and their hash tiles are fetched ahead by a few threads, so many at a time and no more, and checked in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from idtrace import merkle
from idtrace.auditing.fetching import CONNECTIONS, LogReader
from idtrace.auditing.tree import TrustedTree
from idtrace.errors import Reason, VerificationError
from idtrace.tiles import TILE_WIDTH, EntryBundle, Tile, grown_bundles, split_tile

# Bundles fetched ahead: 2,048 entries, a tenth of a second of work; 128 MB where each had its utmost of 16 MB.
AHEAD: Final = 8

_Fetched = tuple[tuple[bytes, ...], bytes]


def tile_under(bundle: EntryBundle) -> Tile:
    """The tile with the hashes of a bundle's entries."""
    return Tile(0, bundle.index, bundle.width)


def entries_from(reader: LogReader, tree: TrustedTree, start: int) -> Iterator[list[bytes]]:
    """The entries from an index on to the end of the tree, in runs of at most 256, all of them genuine.

    Raises:
        BusyError: the log does not hand something over.
        VerificationError: a tile or an entry is not the one of the tree; the field names it.
    """
    tree.open()
    bundles = grown_bundles(start, tree.checkpoint.size)
    under_way: deque[tuple[EntryBundle, Future[_Fetched]]] = deque()
    pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="audit")

    def fetch(bundle: EntryBundle) -> _Fetched:
        return reader.bundle(bundle), reader.tile(tile_under(bundle))

    try:
        while True:
            while len(under_way) < AHEAD and (bundle := next(bundles, None)) is not None:
                under_way.append((bundle, pool.submit(fetch, bundle)))
            if not under_way:
                return
            bundle, fetched = under_way.popleft()
            entries, content = fetched.result()
            check_bundle(tree, bundle, entries, content)
            yield list(entries[max(0, start - bundle.index * TILE_WIDTH) :])
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def check_bundle(tree: TrustedTree, bundle: EntryBundle, entries: tuple[bytes, ...], content: bytes) -> None:
    """Hold a bundle and the content of its tile against the tree.

    Raises:
        BusyError, VerificationError: as :func:`entries_from`.
    """
    tile = tile_under(bundle)
    tree.check(tile, content)
    if b"".join(map(merkle.hash_leaf, entries)) == content:
        return
    hashes = split_tile(tile, content)
    place = next(n for n, entry in enumerate(entries) if merkle.hash_leaf(entry) != hashes[n])
    index = bundle.index * TILE_WIDTH + place
    detail = f"entry {index}, as {bundle.path} has it, is not the one under the checkpoint's root"
    raise VerificationError(Reason.ENTRY_MALFORMED, detail, field=f"entry {index}")


def proven_entry(reader: LogReader, tree: TrustedTree, index: int) -> tuple[bytes, tuple[bytes, ...]]:
    """An entry and its inclusion proof, which holds.

    Raises:
        BusyError, VerificationError: as :func:`entries_from`.
    """
    size = tree.checkpoint.size
    first = index // TILE_WIDTH
    bundle = EntryBundle(first, min(TILE_WIDTH, size - first * TILE_WIDTH))
    entries = reader.bundle(bundle)
    check_bundle(tree, bundle, entries, tree.tile(tile_under(bundle)))
    entry = entries[index % TILE_WIDTH]
    path = tree.fold(merkle.inclusion_plan(index, size))
    merkle.check_inclusion(merkle.hash_leaf(entry), index, size, path, tree.checkpoint.root)
    return entry, path

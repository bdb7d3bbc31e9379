"""How long a log was when a statement was signed, whatever size the statement names.

A statement says "the latest, in a log of so many entries". Whoever holds the key that signs it could name a size from
before what he hides, or none at all: as of that size it is true. But it also says when it was signed, each entry says
when it was committed, and those times never go back (step 1 of :mod:`idtrace.audit`). So a log that had grown past the
named size long before the signature shows what the signer knew, and no longer said.
"""

from __future__ import annotations

from idtrace.auditing.evidence import STALE_SECONDS
from idtrace.auditing.fetching import LogReader
from idtrace.auditing.reading import proven_entry
from idtrace.auditing.tree import TrustedTree
from idtrace.entry import Entry


def size_at(reader: LogReader, tree: TrustedTree, named: int, issued_at: int) -> int:
    """Size of the log that a statement had to know: the named one, or that of ten minutes before it was signed (s).

    Reads one entry where the statement is fresh, and else as many as a binary search needs.

    Raises:
        BusyError: the log does not hand something over.
        InputError, VerificationError: an entry is malformed, or not the one of the tree.
    """

    def was_known(index: int) -> bool:
        entry = Entry.from_bytes(proven_entry(reader, tree, index)[0])
        return entry.committed_at + STALE_SECONDS < issued_at

    low, high = named, tree.checkpoint.size
    if low >= high or not was_known(low):
        return named
    while high - low > 1:
        middle = (low + high) // 2
        if was_known(middle):
            low = middle
        else:
            high = middle
    return high

"""Proof that a record is in its zone's log, as it travels with an answer: checked against a verified chain.

The delegation of a zone names its log (origin) and the log's keys, so whoever has verified the chain knows whose
checkpoint to believe, without a policy. A policy says more: which witnesses have to have seen the same tree
(:mod:`idtrace.tlogproof`, whose text form :meth:`LogProof.to_text` gives with the same bytes).

Steps; the code carries the same numbers:

1. the head and the record's payload are an entry about this record: same zone, same signatures or same place under
   the same seal;
2. the checkpoint is the zone's log's, and signed by a log key that the delegation names; each line in the name of such
   a key costs one signature check of the question's budget;
3. the path leads from the entry to the checkpoint's root.

:func:`check_recorded` puts a record through all that came beside it: the proof first, since the index that it shows
says whether a key had ended (steps 6 to 9 of :mod:`idtrace.chain`), and the word that it is the latest last.

What a valid proof shows: the log's operator has bound himself to this record at this index, and cannot take it back
without contradicting what he has signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from idtrace.chain import Context, TrustedChain, VerifiedRecord, zone_name
from idtrace.checkpoint import Checkpoint
from idtrace.delegation import Role
from idtrace.entry import Entry, EntryKind, UnderSeal
from idtrace.errors import InputError, Reason, VerificationError
from idtrace.identifier import Identifier
from idtrace.merkle import check_inclusion, hash_leaf
from idtrace.note import Note, NoteKey, open_note
from idtrace.record import Record
from idtrace.signature import Signed
from idtrace.tlogproof import TlogProof

# A checkpoint and 64 cosignatures of Ed25519 are 10 KiB; ML-DSA-44 ones of eight witnesses 28 KiB.
CHECKPOINT_BYTES_MAX: Final = 32_768


@dataclass(frozen=True, slots=True)
class LogProof:
    """Index of the entry, its path (the leaf's sibling first), the checkpoint as a signed note, the entry's head."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    head: bytes

    def to_text(self) -> TlogProof:
        """The C2SP form; the entry's head stands in ``extra``.

        Raises:
            InputError: NOTE_MALFORMED.
        """
        return TlogProof(self.index, self.path, Note.parse(self.checkpoint, field="proof.checkpoint"), self.head)


@dataclass(frozen=True, slots=True)
class LoggedAt:
    """What a proof has shown: index and time of commit (s) of the record, and the checkpoint that covers it."""

    index: int
    committed_at: int
    checkpoint: Checkpoint
    note: Note


def log_keys(chain: TrustedChain) -> tuple[NoteKey, ...]:
    """Keys of the log that the chain's last delegation names; none where it names none."""
    origin = chain.delegation.log
    return tuple(NoteKey.of(origin, key.raw) for key in chain.delegation.keys_for(Role.LOG).values())


def check_logged(proof: LogProof, record: Record, chain: TrustedChain, context: Context) -> LoggedAt:
    """Check a proof for a record of the chain's zone; the record's own signatures are the chain's business.

    Raises:
        VerificationError: what the broken step says.
    """
    try:
        # 1. an entry about this record
        entry = Entry.from_bytes(proof.head + record.signed.payload, field="proof.head")
        _is_about(entry, record, chain)
        # 2. the zone's log has signed it
        note = Note.parse(proof.checkpoint, field="proof.checkpoint")
        checkpoint = Checkpoint.parse(note.text, field="proof.checkpoint")
        _is_signed(note, checkpoint, chain, context)
    except InputError as error:
        raise VerificationError(error.reason, error.detail, field=error.field) from error
    # 3. it is in the tree
    check_inclusion(hash_leaf(entry.to_bytes()), proof.index, checkpoint.size, proof.path, checkpoint.root)
    return LoggedAt(proof.index, entry.committed_at, checkpoint, note)


def check_recorded(
    record: Record,
    identifier: Identifier,
    chain: TrustedChain,
    context: Context,
    *,
    proof: LogProof | None = None,
    currency: Signed | None = None,
) -> VerifiedRecord:
    """Check a record with what came beside it; what did not come proves nothing and is no lie.

    Raises:
        VerificationError: the first broken step of the proof, the record or the currency statement.
    """
    index = check_logged(proof, record, chain, context).index if proof is not None else None
    verified = chain.check_record(record, identifier, context, index=index)
    if currency is not None:
        chain.check_currency(currency, record, context, index=index)
    return verified


def _is_signed(note: Note, checkpoint: Checkpoint, chain: TrustedChain, context: Context) -> None:
    if not chain.delegation.log or checkpoint.origin != chain.delegation.log:
        detail = f"zone {zone_name(chain.zone)} does not keep its records in this log"
        raise VerificationError(Reason.LOG_UNKNOWN, detail, field="proof.checkpoint")
    keys = log_keys(chain)
    names = {(key.name, key.key_id) for key in keys}
    for line in dict.fromkeys(note.signatures):
        if (line.name, line.key_id) in names:
            context.budget.spend()
    open_note(note, keys, field="proof.checkpoint")


def _is_about(entry: Entry, record: Record, chain: TrustedChain) -> None:
    sealed = record.sealed
    by = record.signed.signatures if sealed is None else UnderSeal(sealed.hash, sealed.position)
    if (entry.kind, entry.zone, entry.by) != (EntryKind.RECORD, chain.zone, by):
        raise VerificationError(Reason.PROOF_INVALID, "the entry is about something else", field="proof.head")

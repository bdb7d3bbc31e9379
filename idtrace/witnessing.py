"""What a witness decides, and what a log and a witness say to each other (C2SP tlog-witness, ``add-checkpoint``).

A witness remembers one thing a log: the largest tree that it has cosigned. It cosigns a checkpoint only if the log
proves that this tree is the beginning of the new one. Its steps, in the order that keeps the promise:

1. :meth:`AddCheckpoint.parse` reads the request;
2. :func:`decide` judges it against what was seen, and names what is to be remembered;
3. whoever keeps the state swaps ``before`` for ``after``, durably and only if ``before`` is still what is stored
   (else two requests that cross roll the log back), and if it is not, decides again;
4. only then :func:`cosign` makes the answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from idtrace.checkpoint import Checkpoint, in_base64, read_decimal, read_hash
from idtrace.errors import InputError, Reason, VerificationError
from idtrace.merkle import EMPTY_ROOT, PROOF_HASHES_MAX, check_consistency
from idtrace.note import NOTE_BYTES_MAX, Note, NoteKey, NoteSignature, NoteSigner, open_note

ADD_CHECKPOINT_PATH: Final = "add-checkpoint"
SIZE_TYPE: Final = "text/x.tlog.size"
TEXT_TYPE: Final = "text/plain; charset=utf-8"
# "old", 19 digits, 63 lines of 44 characters, and a note.
REQUEST_BYTES_MAX: Final = 32 + PROOF_HASHES_MAX * 45 + NOTE_BYTES_MAX


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A log's request: from the tree of ``old_size``, which the witness has seen, by ``proof`` to the checkpoint."""

    old_size: int
    proof: tuple[bytes, ...]
    note: Note
    checkpoint: Checkpoint

    @classmethod
    def of(cls, old_size: int, proof: Iterable[bytes], note: Note) -> AddCheckpoint:
        """A request around a signed checkpoint.

        Raises:
            InputError: CHECKPOINT_MALFORMED.
        """
        return cls(old_size, tuple(proof), note, Checkpoint.parse(note.text))

    @classmethod
    def parse(cls, body: bytes) -> AddCheckpoint:
        """Read a request body: ``old N``, at most 63 hashes, an empty line, a signed checkpoint.

        Raises:
            InputError: FIELD_TOO_LARGE, PROOF_MALFORMED, NOTE_MALFORMED or CHECKPOINT_MALFORMED; all are status 400.
        """
        if len(body) > REQUEST_BYTES_MAX:
            raise InputError(Reason.FIELD_TOO_LARGE, f"a request has at most {REQUEST_BYTES_MAX} bytes", field="body")
        head, _, rest = body.partition(b"\n\n")
        # What is not ASCII becomes what neither a number nor a hash can contain.
        first, *lines = head.decode("ascii", "replace").split("\n")
        if not first.startswith("old ") or len(lines) > PROOF_HASHES_MAX:
            detail = f"a request is 'old' and a size, at most {PROOF_HASHES_MAX} hashes, an empty line, a checkpoint"
            raise InputError(Reason.PROOF_MALFORMED, detail, field="body")
        malformed = Reason.PROOF_MALFORMED
        old_size = read_decimal(first.removeprefix("old "), malformed, field="old")
        proof = [read_hash(line, malformed, field=f"proof[{number}]") for number, line in enumerate(lines)]
        return cls.of(old_size, proof, Note.parse(rest, field="checkpoint"))

    def encode(self) -> bytes:
        """The request body, as :meth:`parse` reads it."""
        head = "".join((f"old {self.old_size}\n", *(f"{in_base64(one)}\n" for one in self.proof), "\n"))
        return head.encode() + self.note.encode()


@dataclass(frozen=True, slots=True)
class Seen:
    """The largest tree of a log that a witness has cosigned; of a log that it has not met, the empty one."""

    size: int = 0
    root: bytes = EMPTY_ROOT


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request is sound: swap ``before`` for ``after`` in the state of this origin, then :func:`cosign`."""

    origin: str
    before: Seen
    after: Seen
    note: Note


@dataclass(frozen=True, slots=True)
class Refused:
    """The answer to a request that is not cosigned.

    Attributes:
        status: HTTP status.
        reason: why; LOG_INCONSISTENT with a request that the log has signed is evidence against that log: keep it.
        detail: one sentence.
        seen_size: what the witness has seen, for the log to start its proof from (CHECKPOINT_STALE only).
    """

    status: int
    reason: Reason
    detail: str
    seen_size: int | None = None

    @property
    def body(self) -> bytes:
        """Body of the HTTP response."""
        return f"{self.detail if self.seen_size is None else self.seen_size}\n".encode()

    @property
    def content_type(self) -> str:
        """Media type of the body."""
        return TEXT_TYPE if self.seen_size is None else SIZE_TYPE


def malformed(error: InputError) -> Refused:
    """The answer to a request that could not be read."""
    return Refused(400, error.reason, error.detail)


def decide(request: AddCheckpoint, keys: Collection[NoteKey], seen: Seen) -> Accepted | Refused:
    """Judge a request, knowing the keys of the log with this origin (none: the log is unknown) and what was seen.

    A size that was cosigned already may be cosigned again: the log may have lost the first answer.
    """
    if not keys:
        return Refused(404, Reason.LOG_UNKNOWN, "no log with this origin is watched here")
    try:
        open_note(request.note, keys)
    except VerificationError as error:
        return Refused(403, error.reason, error.detail)
    if request.old_size > request.checkpoint.size:
        return Refused(400, Reason.PROOF_MALFORMED, "the old size is above that of the checkpoint")
    if request.old_size != seen.size:
        detail = f"the largest tree seen has {seen.size} leaves"
        return Refused(409, Reason.CHECKPOINT_STALE, detail, seen.size)
    return _proved(request, seen)


def _proved(request: AddCheckpoint, seen: Seen) -> Accepted | Refused:
    new = Seen(request.checkpoint.size, request.checkpoint.root)
    if not seen.size and new.size:  # from the empty tree every tree can grow, and no proof is due
        if request.proof:
            return Refused(422, Reason.PROOF_INVALID, "from the empty tree there is nothing to prove")
    else:
        try:
            check_consistency(seen.size, seen.root, new.size, new.root, request.proof)
        except VerificationError as error:
            # Two roots of one size are status 409 as well, and no size goes with it: from nowhere would a proof help.
            return Refused(409 if error.reason is Reason.LOG_INCONSISTENT else 422, error.reason, error.detail)
    return Accepted(request.checkpoint.origin, seen, new, request.note)


def cosign(accepted: Accepted, signers: Iterable[NoteSigner], *, now: int) -> bytes:
    """The answer with status 200: a cosignature line by each key, as of now (s). The new state has to be stored.

    Raises:
        InputError: CHECKPOINT_MALFORMED (an ML-DSA-44 key, and a checkpoint with extension lines).
    """
    return "".join(signer.sign(accepted.note.text, now).line for signer in signers).encode()


def read_cosignatures(answer: bytes, note: Note, keys: Collection[NoteKey]) -> tuple[NoteSignature, ...]:
    """For the log: the lines of a witness's answer that are by these keys and verify over its checkpoint.

    Lines by other keys are dropped, as the specification asks.

    Raises:
        InputError: NOTE_MALFORMED.
        VerificationError: COSIGNATURE_INVALID, or SIGNER_UNKNOWN (no line is by one of these keys).
    """
    answered = Note.parse(note.text.encode() + b"\n" + answer, field="answer")
    if answered.text != note.text:
        raise InputError(Reason.NOTE_MALFORMED, "a witness answers with signature lines alone", field="answer")
    open_note(answered, keys, field="answer")
    names = {(key.name, key.key_id) for key in keys}
    return tuple(line for line in answered.signatures if (line.name, line.key_id) in names)


def read_seen_size(answer: bytes) -> int:
    """For the log: the size in the answer with status 409, from which the next proof has to start.

    Raises:
        InputError: PROOF_MALFORMED.
    """
    line = answer.decode("ascii", "replace")
    if not line.endswith("\n"):
        raise InputError(Reason.PROOF_MALFORMED, "a size is a line with its newline", field="answer")
    return read_decimal(line[:-1], Reason.PROOF_MALFORMED, field="answer")

"""Proof that a log has an entry, for whoever is offline: index, path and witnessed checkpoint (C2SP tlog-proof@v1).

::

    c2sp.org/tlog-proof@v1
    extra YWJj
    index 73894
    gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
    B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=

    example.com/fancylog
    109482
    sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=

    — example.com/fancylog hI2DJw…
    — witness1.example mJirIk…

``extra`` is covered by no signature: it may help to find or rebuild the entry, and proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from idtrace.checkpoint import Checkpoint, in_base64, read_base64, read_decimal, read_hash
from idtrace.checks import Check
from idtrace.errors import InputError, Reason, VerificationError
from idtrace.logpolicy import NO_QUORUM, LogPolicy
from idtrace.merkle import PROOF_HASHES_MAX, check_inclusion
from idtrace.note import NOTE_BYTES_MAX, Note, NoteKey

FORMAT: Final = "c2sp.org/tlog-proof@v1"
# Room for what rebuilds a leaf (salts, a VRF proof); an entry itself travels in its own file.
EXTRA_BYTES_MAX: Final = 16_384
# Head lines, extra in base64, 63 hashes, and a note.
PROOF_BYTES_MAX: Final = 128 + EXTRA_BYTES_MAX * 4 // 3 + PROOF_HASHES_MAX * 45 + NOTE_BYTES_MAX

# What a part that is missing or false would have proven, for the auditor who reads the report.
CHECKPOINT_MEANS: Final = "it states the size and root of the log's tree"
LOG_MEANS: Final = "the log's signature shows that this log has bound itself to this tree"
INCLUSION_MEANS: Final = "the path shows that the entry is in the tree and cannot be taken out or changed unnoticed"
WITNESSES_MEAN: Final = (
    "the cosignatures show that others saw the same tree, so that the log does not show each its own"
)


@dataclass(frozen=True, slots=True)
class TlogProof:
    """The parts of a proof; holding one proves nothing: see :func:`verify_proof`.

    Attributes:
        index: of the entry in the log, from 0.
        path: inclusion proof, 32 bytes each, the leaf's sibling first.
        note: signed checkpoint with its cosignatures.
        extra: unauthenticated bytes (1 to 16,384), or None.
    """

    index: int
    path: tuple[bytes, ...]
    note: Note
    extra: bytes | None = None

    @classmethod
    def parse(cls, data: bytes) -> TlogProof:
        """Read the text form. The note's text is read as a checkpoint by :func:`verify_proof`.

        Raises:
            InputError: FIELD_TOO_LARGE, PROOF_MALFORMED or NOTE_MALFORMED.
        """
        malformed = Reason.PROOF_MALFORMED
        if len(data) > PROOF_BYTES_MAX:
            raise InputError(Reason.FIELD_TOO_LARGE, f"a proof has at most {PROOF_BYTES_MAX} bytes", field="proof")
        head, _, rest = data.partition(b"\n\n")
        # What is not ASCII becomes what neither a number nor a hash can contain.
        first, *lines = head.decode("ascii", "replace").split("\n")
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = read_base64(lines.pop(0).removeprefix("extra "), malformed, field="extra")
            if not 0 < len(extra) <= EXTRA_BYTES_MAX:
                detail = f"extra data has 1 to {EXTRA_BYTES_MAX} bytes, or its line is left out"
                raise InputError(malformed, detail, field="extra")
        if first != FORMAT or not lines or not lines[0].startswith("index ") or len(lines) > 1 + PROOF_HASHES_MAX:
            detail = f"a proof is {FORMAT}, perhaps extra, index, at most {PROOF_HASHES_MAX} hashes, a checkpoint"
            raise InputError(malformed, detail, field="proof")
        index = read_decimal(lines[0].removeprefix("index "), malformed, field="index")
        path = [read_hash(line, malformed, field=f"path[{number}]") for number, line in enumerate(lines[1:])]
        return cls(index, tuple(path), Note.parse(rest, field="checkpoint"), extra)

    def encode(self) -> bytes:
        """The text form, as :meth:`parse` reads it (``.tlog-proof``)."""
        extra = [] if self.extra is None else [f"extra {in_base64(self.extra)}"]
        head = [FORMAT, *extra, f"index {self.index}", *map(in_base64, self.path), ""]
        return "".join(f"{line}\n" for line in head).encode() + self.note.encode()


@dataclass(frozen=True, slots=True)
class ProofReport:
    """What a verification found; the checkpoint is to be used only where the report is valid.

    The checks, in this order: ``checkpoint``, ``log signature``, ``inclusion``, ``witnesses``. Without a readable
    checkpoint the others cannot be made and are not there.
    """

    checks: tuple[Check, ...]
    checkpoint: Checkpoint | None

    @property
    def valid(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


def verify_proof(
    proof: TlogProof, leaf_hash: bytes, policy: LogPolicy, *, now: int, log_keys: Iterable[NoteKey] = ()
) -> ProofReport:
    """Check that a log which the policy knows has this leaf (32 bytes), as enough witnesses saw it, at a time (s).

    ``log_keys`` are logs that are known from elsewhere than the policy, such as a verified delegation. A check that
    fails does not end the report: an unwitnessed proof still shows what it shows.
    """
    try:
        checkpoint = Checkpoint.parse(proof.note.text)
    except InputError as error:
        return ProofReport((_failed("checkpoint", error, CHECKPOINT_MEANS),), None)
    place = f"{checkpoint.origin}, {checkpoint.size} leaves"

    def log_signature() -> str:
        return f"signed by {policy.check_log(proof.note, checkpoint, log_keys).name}"

    def inclusion() -> str:
        check_inclusion(leaf_hash, proof.index, checkpoint.size, proof.path, checkpoint.root)
        return f"the entry is leaf {proof.index} of {checkpoint.size}"

    def witnesses() -> str:
        found = policy.witnessing(proof.note, now=now)
        if not found.met:
            raise VerificationError(Reason.WITNESS_QUORUM, "; ".join(found.shortfall), field="checkpoint")
        there = [standing.name for standing in found.standings if standing.cosigned_at is not None]
        return "the policy asks for none" if policy.quorum == NO_QUORUM else f"cosigned by {', '.join(there)}"

    return ProofReport(
        (
            Check("checkpoint", passed=True, detail=place),
            _made("log signature", log_signature, LOG_MEANS),
            _made("inclusion", inclusion, INCLUSION_MEANS),
            _made("witnesses", witnesses, WITNESSES_MEAN),
        ),
        checkpoint,
    )


def _made(name: str, check: Callable[[], str], meaning: str) -> Check:
    try:
        return Check(name, passed=True, detail=check())
    except (VerificationError, InputError) as error:
        return _failed(name, error, meaning)


def _failed(name: str, error: InputError | VerificationError, meaning: str) -> Check:
    return Check(name, passed=False, detail=f"{error.detail}; sound, {meaning}", reason=error.reason)

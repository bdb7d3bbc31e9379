"""Evidence: a file that shows to anybody, with the root key alone and years later, that a log or a zone has lied.

Two kinds. A **fork**: two checkpoints that one log has signed and that no append-only log can both have: one size with
two roots, or a larger tree that provably begins with another tree than the smaller one. A **statement**: a zone's
signed "this is the latest" or "there is none", and an entry of its log that was there and says otherwise: below the
size that the statement names, or committed long before it was signed (:mod:`idtrace.auditing.staleness`). (That a
version is *not* in a log shows from no single entry; such a finding names the statement and has no evidence.)

The file has the chains of delegations that make the keys the zone's, as they were verified at a time. Nothing in it is
believed; :func:`check_evidence` makes each step again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from idtrace.bundle import signed_from_fields, signed_to_json
from idtrace.canonical import Fields
from idtrace.chain import LINKS_MAX, Anchor, Context, TrustedChain, zone_name
from idtrace.checkpoint import Checkpoint
from idtrace.checks import Check
from idtrace.delegation import Role
from idtrace.entry import ENTRY_BYTES_MAX, Entry, EntryKind
from idtrace.errors import IdtraceError, InputError, Reason, VerificationError
from idtrace.logproof import log_keys
from idtrace.merkle import EMPTY_ROOT, PROOF_HASHES_MAX, check_consistency, check_inclusion, hash_leaf
from idtrace.note import NOTE_BYTES_MAX, Note, NoteKey, open_note
from idtrace.record import TIME_MAX, RecordBody
from idtrace.signature import CheckBudget, Kind, Signed, signed_hash, verify
from idtrace.statements import Currency, Denial

FORMAT: Final = "idtrace-evidence/v1"
# Two notes, four chains and an entry, base64 and JSON; what a person can attach to a letter.
EVIDENCE_BYTES_MAX: Final = 4_194_304
# Keys change now and then: the chains of both checkpoints, of the statement, and one to spare.
CHAINS_MAX: Final = 4
# An honest node names a size that is about a second old, and its clock may differ by 30 s from that of the node that
# committed. A commit whose outcome a store did not tell is settled within seconds of the store's return; ten minutes
# leave room for that. A lie that is worth telling is told for longer.
STALE_SECONDS: Final = 600
# Nobody believes a statement that is older: 60 s of life, and 30 s for each of two clocks. What was committed later is
# no word against it, whatever its place: a zone may have moved to another log, whose places are others.
EARLY_SECONDS: Final = 120
_HEX: Final = 64


@dataclass(frozen=True, slots=True)
class Chained:
    """Delegations from the root down, and a time (s) at which they were verified."""

    as_of: int
    delegations: tuple[Signed, ...]

    def trusted(self, anchor: Anchor) -> TrustedChain:
        """Verify them again, as of then.

        Raises:
            VerificationError: as :meth:`TrustedChain.whole`, or CHAIN_EMPTY.
        """
        if not self.delegations:
            raise VerificationError(Reason.CHAIN_EMPTY, "there is no delegation", field="chain")
        return TrustedChain.whole(anchor, self.delegations, Context.at(self.as_of))

    def to_json(self) -> dict[str, Any]:
        """The form in files."""
        return {"as_of": self.as_of, "delegations": [signed_to_json(signed) for signed in self.delegations]}

    @classmethod
    def read(cls, fields: Fields) -> Chained:
        """Read :meth:`to_json`; raises InputError."""
        as_of = fields.integer("as_of", most=TIME_MAX)
        links = tuple(signed_from_fields(item) for item in fields.objects("delegations", most=LINKS_MAX))
        fields.end()
        return cls(as_of, links)


@dataclass(frozen=True, slots=True)
class Fork:
    """Two signed checkpoints; of different sizes, also how the larger tree begins (root) and the proof of that."""

    notes: tuple[bytes, bytes]
    beginning: bytes = b""
    proof: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A signed statement; an entry of the log, its index and path, and the signed checkpoint that covers it."""

    statement: Signed
    entry: bytes
    index: int
    path: tuple[bytes, ...]
    note: bytes


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is shown, and the chains that say whose keys those are."""

    shown: Fork | Contradiction
    chains: tuple[Chained, ...]

    @property
    def name(self) -> str:
        """A file name that the same lie always gets; an origin has no underscore."""
        shown = self.shown
        if isinstance(shown, Fork):
            parts = sorted(Note.parse(note).text.encode() for note in shown.notes)
            return f"evidence_fork-{hashlib.sha256(b''.join(parts)).hexdigest()[:16]}.json"
        digest = hashlib.sha256(shown.statement.payload + shown.entry).hexdigest()[:16]
        return f"evidence_statement-{digest}.json"

    def encode(self) -> bytes:
        """The file, as :meth:`parse` reads it."""
        shown = self.shown
        body: dict[str, Any] = {"format": FORMAT, "chains": [chain.to_json() for chain in self.chains]}
        if isinstance(shown, Fork):
            body["fork"] = {
                "notes": [note.decode() for note in shown.notes],
                "beginning": shown.beginning.hex(),
                "proof": [one.hex() for one in shown.proof],
            }
        else:
            body["contradiction"] = {
                "statement": signed_to_json(shown.statement),
                "entry": base64.b64encode(shown.entry).decode(),
                "index": shown.index,
                "path": [one.hex() for one in shown.path],
                "checkpoint": shown.note.decode(),
            }
        return (json.dumps(body, ensure_ascii=False, indent=1) + "\n").encode()

    @classmethod
    def parse(cls, data: bytes) -> Evidence:
        """Read a file.

        Raises:
            InputError: FIELD_TOO_LARGE, FIELD_MALFORMED or a field's own reason.
        """
        if len(data) > EVIDENCE_BYTES_MAX:
            detail = f"evidence has at most {EVIDENCE_BYTES_MAX} bytes"
            raise InputError(Reason.FIELD_TOO_LARGE, detail, field="evidence")
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            raise InputError(Reason.FIELD_MALFORMED, "this is not a JSON file", field="evidence") from None
        if not isinstance(body, dict):
            raise InputError(Reason.FIELD_MALFORMED, "this is not a file of evidence", field="evidence")
        fields = Fields(body, "evidence")
        if fields.text("format", most=64) != FORMAT:
            raise InputError(Reason.FIELD_MALFORMED, f"the format is not {FORMAT}", field="evidence.format")
        chains = tuple(Chained.read(item) for item in fields.objects("chains", most=CHAINS_MAX))
        shown = _fork(fields.object("fork")) if "fork" in body else _contradiction(fields.object("contradiction"))
        fields.end()
        return cls(shown, chains)


def _fork(fields: Fields) -> Fork:
    notes = fields.texts("notes", least=2, most=2)
    beginning = fields.text("beginning", most=_HEX)
    fork = Fork(
        (notes[0].encode(), notes[1].encode()), _unhex(beginning, fields, "beginning"), _hashes(fields, "proof")
    )
    fields.end()
    return fork


def _contradiction(fields: Fields) -> Contradiction:
    try:
        entry = base64.b64decode(fields.text("entry", most=2 * ENTRY_BYTES_MAX), validate=True)
    except (binascii.Error, ValueError):
        raise InputError(Reason.FIELD_MALFORMED, "the entry is not base64", field=fields.path("entry")) from None
    found = Contradiction(
        signed_from_fields(fields.object("statement")),
        entry,
        fields.integer("index"),
        _hashes(fields, "path"),
        fields.text("checkpoint", most=NOTE_BYTES_MAX).encode(),
    )
    fields.end()
    return found


def _hashes(fields: Fields, name: str) -> tuple[bytes, ...]:
    return tuple(_unhex(text, fields, name) for text in fields.texts(name, most=PROOF_HASHES_MAX))


def _unhex(text: str, fields: Fields, name: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise InputError(Reason.FIELD_MALFORMED, f"{name} is not hexadecimal", field=fields.path(name)) from None


def check_evidence(evidence: Evidence, anchor: Anchor) -> tuple[Check, ...]:
    """Check every step against the pinned root keys; the lie is shown if all have passed. The first failure ends it."""
    checks: list[Check] = []

    def step(name: str, action: Callable[[], str]) -> None:
        try:
            checks.append(Check(name, passed=True, detail=action()))
        except IdtraceError as error:
            checks.append(Check(name, passed=False, detail=error.detail, reason=error.reason))
            raise

    chains: list[TrustedChain] = []

    def walked(one: Chained) -> str:
        chains.append(one.trusted(anchor))
        return f"{zone_name(chains[-1].zone)}, from the pinned root key"

    try:
        for one in evidence.chains:
            step("chain", lambda one=one: walked(one))  # type: ignore[misc] # the default binds it
        if isinstance(evidence.shown, Fork):
            _check_fork(evidence.shown, chains, step)
        else:
            _check_contradiction(evidence.shown, chains, step)
    except IdtraceError:
        pass
    return tuple(checks)


Step = Callable[[str, Callable[[], str]], None]


def keys_of(chains: Sequence[TrustedChain], origin: str) -> tuple[NoteKey, ...]:
    """All keys that these chains name for a log."""
    return tuple(dict.fromkeys(key for chain in chains for key in log_keys(chain) if key.name == origin))


def signed_checkpoint(data: bytes, chains: Sequence[TrustedChain]) -> Checkpoint:
    """A checkpoint that a log of these chains has signed.

    Raises:
        InputError: NOTE_MALFORMED or CHECKPOINT_MALFORMED.
        VerificationError: LOG_UNKNOWN, SIGNER_UNKNOWN or SIGNATURE_INVALID.
    """
    note = Note.parse(data, field="checkpoint")
    checkpoint = Checkpoint.parse(note.text)
    keys = keys_of(chains, checkpoint.origin)
    if not keys:
        detail = "the chains name no log by the checkpoint's origin"
        raise VerificationError(Reason.LOG_UNKNOWN, detail, field="checkpoint.origin")
    open_note(note, keys, field="checkpoint")
    return checkpoint


def _check_fork(fork: Fork, chains: Sequence[TrustedChain], step: Step) -> None:
    found: list[Checkpoint] = []

    def signed(note: bytes) -> str:
        found.append(signed_checkpoint(note, chains))
        return f"{found[-1].origin}, {found[-1].size} entries"

    for note in fork.notes:
        step("checkpoint", lambda note=note: signed(note))  # type: ignore[misc] # the default binds it
    small, large = sorted(found, key=lambda one: one.size)
    step("contradiction", lambda: _forked(small, large, fork))


def _forked(small: Checkpoint, large: Checkpoint, fork: Fork) -> str:
    if small.origin != large.origin:
        raise VerificationError(Reason.PROOF_INVALID, "the checkpoints are of two logs", field="notes")
    same = VerificationError(Reason.PROOF_INVALID, "both can be true of one log", field="notes")
    if small.size == large.size:
        if small.root == large.root:
            raise same
        return f"two roots for {small.size} entries"
    if small.size == 0:
        if small.root == EMPTY_ROOT:
            raise same
        return "a tree without entries has another root"
    check_consistency(small.size, fork.beginning, large.size, large.root, fork.proof)
    if fork.beginning == small.root:
        raise same
    return f"the tree of {large.size} entries does not begin with the tree of {small.size} that was signed"


def spoken(signed: Signed, chains: Sequence[TrustedChain]) -> tuple[Currency | Denial, TrustedChain]:
    """A statement, and the chain by whose keys it is signed; that it has expired does not make it less true.

    Raises:
        InputError: malformed.
        VerificationError: PAYLOAD_TYPE_UNKNOWN; SIGNER_UNKNOWN where no chain of its zone has the key;
            SIGNATURE_INVALID; DENIAL_WRONG_ZONE.
    """
    kinds = {kind.payload_type: kind for kind in (Kind.CURRENCY, Kind.DENIAL)}
    kind = kinds.get(signed.payload_type)
    if kind is None:
        detail = "neither a currency statement nor a denial"
        raise VerificationError(Reason.PAYLOAD_TYPE_UNKNOWN, detail, field="statement")
    # Parsed first to know whose it is; nothing of it is used until the signature has been checked.
    said = Currency.parse(signed.payload) if kind is Kind.CURRENCY else Denial.parse(signed.payload)
    if not said.identifier.prefix.within(said.zone):
        detail = f"zone {zone_name(said.zone)} speaks of {said.identifier}"
        raise VerificationError(Reason.DENIAL_WRONG_ZONE, detail, field="statement.zone")
    missing = VerificationError(
        Reason.SIGNER_UNKNOWN, f"no key of zone {zone_name(said.zone)} is known", field="statement"
    )
    for chain in chains:
        if chain.zone != said.zone:
            continue
        keys = chain.delegation.keys_for(Role.CURRENCY) or chain.delegation.keys_for(Role.NODE)
        try:
            verify(signed, kind, keys, budget=CheckBudget(LINKS_MAX), field="statement")
        except VerificationError as error:
            missing = error
        else:
            return said, chain
    raise missing


def _check_contradiction(shown: Contradiction, chains: Sequence[TrustedChain], step: Step) -> None:
    spoke: list[tuple[Currency | Denial, TrustedChain]] = []
    covered: list[Checkpoint] = []

    def statement() -> str:
        spoke.append(spoken(shown.statement, chains))
        return describe(spoke[0][0])

    def checkpoint() -> str:
        covered.append(signed_checkpoint(shown.note, chains))
        if covered[0].origin != spoke[0][1].delegation.log:
            raise VerificationError(Reason.LOG_UNKNOWN, "the checkpoint is of another log than the zone's")
        return f"{covered[0].origin}, {covered[0].size} entries"

    def inclusion() -> str:
        check_inclusion(hash_leaf(shown.entry), shown.index, covered[0].size, shown.path, covered[0].root)
        return f"the entry is number {shown.index} of the log"

    step("statement", statement)
    step("checkpoint", checkpoint)
    step("inclusion", inclusion)
    step("contradiction", lambda: contradicted(spoke[0][0], shown.entry, shown.index))


def describe(said: Currency | Denial) -> str:
    """What a statement claims, in a clause."""
    what = f"version {said.version} is its latest" if isinstance(said, Currency) else "there is none"
    where = "without naming a log" if said.log_size is None else f"in a log of {said.log_size} entries"
    return f"zone {zone_name(said.zone)} has signed of {said.identifier}: {what}, {where}"


def contradicted(said: Currency | Denial, data: bytes, index: int) -> str:
    """How an entry of the zone's log at an index shows that a statement was false when it was signed.

    It was there below the size that the statement names; or, whatever it names, long before it was signed.

    Raises:
        InputError, VerificationError: it does not.
    """
    entry = Entry.from_bytes(data)
    if entry.kind is not EntryKind.RECORD or entry.zone != said.zone:
        raise VerificationError(Reason.PROOF_INVALID, "the entry is not about a record of the zone", field="entry")
    body = RecordBody.parse(entry.payload)
    version, known = (said.version, said.record_hash) if isinstance(said, Currency) else (0, b"")
    is_other = body.version == version and signed_hash(Kind.RECORD, entry.payload) != known
    if body.identifier != said.identifier or not (body.version > version or is_other):
        raise VerificationError(Reason.PROOF_INVALID, "the entry does not speak against the statement", field="entry")
    what = f"entry {index} has version {body.version} of {body.identifier}"
    late = said.issued_at - entry.committed_at
    if said.log_size is not None and index < said.log_size and late >= -EARLY_SECONDS:
        return f"{what}, and was there when that was signed"
    if late <= STALE_SECONDS:
        raise VerificationError(Reason.PROOF_INVALID, "the entry came after the statement", field="index")
    return f"{what}, and had been committed {late} s before that was signed"

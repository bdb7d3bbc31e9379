"""Replay of a registry's log: every rule that the registry was to keep, checked again from the entries alone.

An auditor feeds a :class:`Replay` with all entries in order. It trusts no node: which keys a zone had at an index is
told by the log itself (a zone's delegation is an entry in its parent's log, and in its own from where it was taken
over). The keys of parents outside this log are given by who has audited them or walked the chain from the root, and
the root's own key set is checked against the pinned keys.

Checked at each entry, in this order; the code carries the same numbers:

1. the entry is well-formed, and the time of commit does not go back;
2. it is signed by keys that the deciding zone had at this index (a delegation: by enough of its parent's), or stands
   under a seal that is;
3. the body is well-formed, agrees with the head, and lies in the deciding zone and in no zone below it;
4. versions follow one another by one, each names the hash of the one before, and nothing follows an end;
5. an identifier belongs to the zone that registered it, for ever;
6. the records of a seal follow it in their places, and with the absent ones they have the sealed root.

What is broken is a :class:`Finding`: MISBEHAVIOUR if the entry itself, which the checkpoint's signature covers, shows
to anybody that a rule was broken; UNCLEAR where a key is missing that this auditor could not get, and for all that
rests on it until the zone's keys are known again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from idtrace import merkle
from idtrace.chain import CLOCK_SKEW_SECONDS, Anchor, zone_name
from idtrace.delegation import Delegation, Role, State
from idtrace.entry import SIGNED_KIND, Entry, EntryKind, UnderSeal
from idtrace.errors import IdtraceError, Reason, VerificationError
from idtrace.identifier import Identifier, Prefix
from idtrace.record import RecordBody, RecordKind
from idtrace.seal import Seal
from idtrace.signature import SIGNATURES_MAX, CheckBudget, Kind, PublicKey, SignatureMemory, signed_hash, verify
from idtrace.statements import Command, Currency, Denial, DenialReason

# What a report can hold and a person can read; counting goes on beyond.
FINDINGS_MAX: Final = 1_000


class Grade(StrEnum):
    """What a finding means for whoever reads the report."""

    MISBEHAVIOUR = "misbehaviour"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule: at which entry, which rule, and one sentence."""

    index: int
    grade: Grade
    reason: Reason
    detail: str


@dataclass(slots=True)
class _Zone:
    """What the log has said of a zone so far."""

    delegation: Delegation
    content: bytes  # hash of the delegation
    unclear: bool = False  # a later word has followed that this auditor could not check


@dataclass(slots=True)
class _Life:
    """Where an identifier stands: whose, which version, its hash, whether it has ended; and how it came there."""

    zone: str
    version: int
    record_hash: bytes
    kind: RecordKind
    entries: list[tuple[int, int, bytes]]  # index in the log, version, record hash; ascending


@dataclass(slots=True)
class _OpenSeal:
    """A seal whose records are being read."""

    index: int
    seal_hash: bytes
    signers: frozenset[str]
    body: Seal
    hashes: dict[int, bytes]
    next_position: int = 0

    def skip_absent(self) -> None:
        while self.next_position in self.hashes:
            self.next_position += 1


@dataclass(slots=True)
class Replay:
    """The state of a log as an auditor sees it, entry by entry.

    Attributes:
        outside: zone keys of parents that are not in this log, by zone: all that were ever seen to be theirs.
        anchor: the pinned root keys; needed where this is the root's own log.
        size: entries that were fed.
        range: the tree over them.
        findings: the first thousand; ``broken`` counts all.
    """

    outside: Mapping[Prefix, Mapping[str, PublicKey]] = field(default_factory=dict)
    anchor: Anchor | None = None
    size: int = 0
    range: merkle.CompactRange = field(default_factory=merkle.CompactRange)
    findings: list[Finding] = field(default_factory=list)
    broken: int = 0
    _time: int = 0
    _zones: dict[Prefix, _Zone] = field(default_factory=dict)
    _lives: dict[str, _Life] = field(default_factory=dict)
    _seal: _OpenSeal | None = None
    _memory: SignatureMemory = field(default_factory=SignatureMemory)

    @property
    def zones(self) -> tuple[Prefix, ...]:
        """Zones that the log has spoken of."""
        return tuple(self._zones)

    @property
    def identifiers(self) -> int:
        """How many identifiers have a record."""
        return len(self._lives)

    def feed(self, entries: list[bytes]) -> None:
        """Check the next entries, in order."""
        self.range = self.range.extend([merkle.hash_leaf(data) for data in entries])
        for data in entries:
            try:
                self._check(data)
            except IdtraceError as error:
                self._found(Grade.MISBEHAVIOUR, error.reason, error.detail)
            except _UnclearError as unclear:
                self._found(Grade.UNCLEAR, Reason.SIGNER_UNKNOWN, str(unclear))
            self.size += 1

    def end(self) -> None:
        """Nothing follows: a seal must not be left open."""
        if self._seal is not None:
            self._close_seal()

    def zone_keys(self, zone: Prefix) -> Mapping[str, PublicKey]:
        """Zone keys as of the last entry."""
        known = self._zones.get(zone)
        return known.delegation.keys_for(Role.ZONE) if known else {}

    def against(self, statement: Currency | Denial) -> Finding | None:
        """How the log contradicts a statement that was signed when it had ``statement.log_size`` entries.

        Its signature, and that it speaks of this log, were checked before. An entry that was there and that the
        statement hides contradicts it at once; that there is no such entry as it claims, only once the log has been
        read so far.
        """
        size = statement.log_size
        if size is None or (isinstance(statement, Denial) and statement.reason is not DenialReason.IDENTIFIER_ABSENT):
            return None  # made without a log, or about a prefix
        life = self._lives.get(str(statement.identifier))
        before = [entry for entry in life.entries if entry[0] < size] if life else []
        there = before[-1] if before else (size - 1, 0, b"")
        said = (statement.version, statement.record_hash) if isinstance(statement, Currency) else (0, b"")
        if there[1:] == said or (there[1] < said[0] and self.size < size):
            return None
        what = f"version {said[0]} the latest" if said[0] else "absent"
        then = f"version {there[1]} was its latest, at entry {there[0]}" if before else "there was none"
        detail = f"{statement.identifier} was said to be {what} in a log of {size} entries, and {then}"
        return Finding(there[0], Grade.MISBEHAVIOUR, Reason.STATEMENT_CONTRADICTED, detail)

    def _found(self, grade: Grade, reason: Reason, detail: str, index: int | None = None) -> None:
        self.broken += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(self.size if index is None else index, grade, reason, detail))

    def _check(self, data: bytes) -> None:
        # 1. well-formed, and time does not go back
        entry = Entry.from_bytes(data)
        if self._seal is not None and not isinstance(entry.by, UnderSeal):
            self._close_seal()
        if entry.committed_at < self._time:
            detail = f"the time of commit goes back from {self._time} to {entry.committed_at}"
            self._found(Grade.MISBEHAVIOUR, Reason.LOG_TIME, detail)
        self._time = max(self._time, entry.committed_at)
        match entry.kind:
            case EntryKind.RECORD:
                self._check_record(entry)
            case EntryKind.SEAL:
                self._open_seal(entry)
            case EntryKind.KEYS | EntryKind.DELEGATION:
                self._check_delegation(entry)
            case _:  # an administrator's command
                self._verify_spoken(entry, entry.zone)
                self._lies_below(Command.parse(entry.payload).prefix, entry.zone)

    # Records

    def _check_record(self, entry: Entry) -> None:
        record_hash = signed_hash(Kind.RECORD, entry.payload)
        # 2. signed, or under a seal in its place
        if isinstance(entry.by, UnderSeal):
            self._take_place(entry.by, entry.zone, record_hash)
        else:
            self._verify(entry, self._record_keys(entry.zone))
        # 3. well-formed, in the zone
        body = RecordBody.parse(entry.payload)
        self._lies_in(body.identifier, entry.zone)
        if body.issued_at > entry.committed_at + CLOCK_SKEW_SECONDS:
            raise VerificationError(Reason.RECORD_FROM_FUTURE, f"{body.identifier} was dated after its commit")
        # 4. and 5. one life
        self._follow(str(body.identifier), str(entry.zone), body, record_hash)

    def _follow(self, name: str, zone: str, body: RecordBody, record_hash: bytes) -> None:
        life = self._lives.get(name)
        here = (self.size, body.version, record_hash)
        if life is None:
            self._lives[name] = _Life(zone, body.version, record_hash, body.kind, [here])
            if body.version != 1:
                raise VerificationError(Reason.VERSION_GAP, f"{name} begins with version {body.version}")
            return
        broken: VerificationError | None = None
        if life.zone != zone:
            detail = f"{name} belongs to zone {life.zone}, and zone {zone} has registered it again"
            broken = VerificationError(Reason.IDENTIFIER_TAKEN, detail)
        elif life.kind is RecordKind.TOMBSTONE:
            detail = f"{name} had ended at entry {life.entries[-1][0]}"
            broken = VerificationError(Reason.IDENTIFIER_RETIRED, detail)
        elif body.version != life.version + 1:
            detail = f"{name}: version {body.version} follows version {life.version}"
            broken = VerificationError(Reason.VERSION_GAP, detail)
        elif body.previous != life.record_hash:
            detail = f"{name}: version {body.version} does not name version {life.version}"
            broken = VerificationError(Reason.PREVIOUS_HASH_MISMATCH, detail)
        elif body.kind not in (life.kind, RecordKind.TOMBSTONE):
            broken = VerificationError(Reason.KIND_CHANGED, f"{name}: a {life.kind} became a {body.kind}")
        # What follows is judged by what stands there, so that one broken rule is found once.
        life.version, life.record_hash, life.kind = body.version, record_hash, body.kind
        life.entries.append(here)
        if broken is not None:
            raise broken

    def _lies_below(self, prefix: Prefix, zone: Prefix) -> None:
        if not prefix.strictly_within(zone):
            detail = f"a command of zone {zone_name(zone)} about {prefix}, which does not lie below it"
            raise VerificationError(Reason.REFERRAL_SIDEWAYS, detail)

    def _lies_in(self, identifier: Identifier, zone: Prefix) -> None:
        if not identifier.prefix.within(zone):
            raise VerificationError(Reason.RECORD_OUT_OF_ZONE, f"{identifier} does not lie in zone {zone}")
        for prefix in identifier.prefix.lineage()[len(zone.labels) + 1 :]:
            if prefix in self._zones:
                detail = f"{identifier} lies in zone {prefix}, which is delegated"
                raise VerificationError(Reason.ZONE_DELEGATED, detail)

    # Seals

    def _open_seal(self, entry: Entry) -> None:
        self._verify(entry, self._record_keys(entry.zone))
        body = Seal.parse(entry.payload)
        if body.zone != entry.zone:
            raise VerificationError(Reason.SEAL_WRONG_ZONE, f"the seal is zone {body.zone}'s")
        hashes = dict(entry.absent)
        signers = frozenset(signature.key_id for signature in entry.signed.signatures)
        self._seal = _OpenSeal(self.size, signed_hash(Kind.SEAL, entry.payload), signers, body, hashes)
        self._seal.skip_absent()

    def _take_place(self, place: UnderSeal, zone: Prefix, record_hash: bytes) -> None:
        seal = self._seal
        if seal is None or seal.seal_hash != place.seal_hash or seal.body.zone != zone:
            raise VerificationError(Reason.SEAL_PATH, "the record does not follow the seal that it names")
        if seal.next_position != place.position or place.position >= seal.body.size:
            detail = f"number {place.position} of the seal stands where number {seal.next_position} has to"
            raise VerificationError(Reason.SEAL_PATH, detail)
        if not seal.signers <= self._record_keys(zone).keys():
            raise VerificationError(Reason.SIGNER_UNKNOWN, "a key of the seal ends before this record of it")
        seal.hashes[place.position] = record_hash
        seal.skip_absent()
        if seal.next_position == seal.body.size:
            self._close_seal()

    def _close_seal(self) -> None:
        # 6. all places are filled, and they have the sealed root
        seal, self._seal = self._seal, None
        assert seal is not None, "it was open"
        whole = len(seal.hashes) == seal.body.size and seal.next_position == seal.body.size
        leaves = [merkle.hash_leaf(seal.hashes[place]) for place in range(seal.body.size)] if whole else []
        if not whole or merkle.root_of(leaves) != seal.body.root:
            detail = "the records after the seal and those that it calls absent are not the batch that was sealed"
            self._found(Grade.MISBEHAVIOUR, Reason.SEAL_PATH, detail, seal.index)

    # Delegations and keys

    def _check_delegation(self, entry: Entry) -> None:
        # 2. signed by the parent
        body = Delegation.parse(entry.payload)
        deciding = body.child if entry.kind is EntryKind.KEYS else body.parent
        if entry.zone != deciding:
            detail = f"the entry is zone {zone_name(entry.zone)}'s, not {zone_name(deciding)}'s"
            raise VerificationError(Reason.REFERRAL_SIDEWAYS, detail)
        known = self._zones.get(body.child)
        try:
            if body.child.is_root:
                self._verify_root(entry)
            else:
                self._verify_spoken(entry, body.parent)
        except _UnclearError:
            if known is not None:
                known.unclear = True
            raise
        # 4. one version after the other
        content = signed_hash(Kind.DELEGATION, entry.payload)
        if known is None or body.version > known.delegation.version:
            self._zones[body.child] = _Zone(body, content)
        self._check_succession(body, content, known, whole=entry.kind is EntryKind.DELEGATION)

    def _check_succession(self, body: Delegation, content: bytes, known: _Zone | None, *, whole: bool) -> None:
        """``whole``: every version is there, as in the parent's log; a node may have missed some of its own zone."""
        name, version = zone_name(body.child), body.version
        if known is None:
            if whole and version != 1:
                raise VerificationError(Reason.VERSION_GAP, f"zone {name} begins with version {version}")
            return
        last = known.delegation.version
        if (version, content) == (last, known.content):
            return  # the same word, in its parent's and in its own zone's name
        if version <= last:
            raise VerificationError(Reason.DELEGATION_ROLLED_BACK, f"zone {name}: version {version} after {last}")
        if whole and version != last + 1:
            raise VerificationError(Reason.VERSION_GAP, f"zone {name}: version {version} follows version {last}")
        if version == last + 1 and body.previous != known.content:
            detail = f"zone {name}: version {version} does not name the one before"
            raise VerificationError(Reason.PREVIOUS_HASH_MISMATCH, detail)

    def _keys_of(self, zone: Prefix) -> tuple[Mapping[str, PublicKey], int]:
        """Keys that may speak for a zone as a parent as of this entry, and how many have to.

        Of a parent outside nobody here knows when which key counted, so any of them will do.
        """
        known = self._zones.get(zone)
        if known is None:
            return self.outside.get(zone, {}), 1
        if known.unclear:
            raise _UnclearError(f"the log has gone on to keys of zone {zone_name(zone)} that could not be checked")
        return known.delegation.keys_for(Role.ZONE), known.delegation.zone_threshold

    def _record_keys(self, zone: Prefix) -> Mapping[str, PublicKey]:
        known = self._zones.get(zone)
        if known is None or known.unclear:
            raise _UnclearError(f"the log has not said, or not provably, which keys zone {zone_name(zone)} has")
        if known.delegation.state is State.REVOKED:
            raise VerificationError(Reason.DELEGATION_REVOKED, f"zone {zone_name(zone)} had been taken back")
        ended = known.delegation.ended_keys(Role.RECORD)
        before = {name: k.key for name, k in ended.items() if k.until is not None and self.size < k.until}
        return known.delegation.keys_for(Role.RECORD) | before

    def _verify_root(self, entry: Entry) -> None:
        """Step 2 for the root's own key set, which the pinned keys sign."""
        if self.anchor is None:
            raise _UnclearError("the pinned root keys are not given")
        self._verify(entry, self.anchor.keys, self.anchor.threshold)

    def _verify_spoken(self, entry: Entry, zone: Prefix) -> None:
        """Step 2 for what a zone says as a parent."""
        keys, threshold = self._keys_of(zone)
        outside = zone not in self._zones
        if outside and not all(signature.key_id in keys for signature in entry.signed.signatures):
            raise _UnclearError(f"not all keys are known that may have signed for zone {zone_name(zone)}")
        self._verify(entry, keys, threshold)

    def _verify(self, entry: Entry, keys: Mapping[str, PublicKey], threshold: int = 1) -> None:
        budget = CheckBudget(SIGNATURES_MAX, self._memory)
        verify(entry.signed, SIGNED_KIND[entry.kind], keys, budget=budget, threshold=threshold, field="entry")


class _UnclearError(Exception):
    """A rule could not be checked for want of a key."""

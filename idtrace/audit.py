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

What is broken is a :class:`Finding`: MISBEHAVIOUR if the entries themselves, which the checkpoint's signature covers,
show to anybody that a rule was broken; UNCLEAR where a key is missing that this auditor could not get, and for all that
rests on it until the zone's keys are known again. Of an unclear entry only rule 2 is left open: all others are checked
of it, and it is kept as if it were sound, for what follows has to agree with it (:mod:`idtrace.auditstate` says why).
Unclear is also an identifier, or a child zone, that begins above version 1 in a log that may be younger than its zone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import Final

from idtrace import merkle
from idtrace.auditstate import Doubt, Life, OpenSeal, ZoneWord
from idtrace.chain import CLOCK_SKEW_SECONDS, Anchor, zone_name
from idtrace.delegation import Delegation, Role, State
from idtrace.entry import SIGNED_KIND, Entry, EntryKind, UnderSeal
from idtrace.errors import IdtraceError, Reason, VerificationError
from idtrace.identifier import Identifier, Prefix
from idtrace.record import RecordKind
from idtrace.recordhead import RecordHead, read_head
from idtrace.seal import Seal
from idtrace.signature import SIGNATURES_MAX, CheckBudget, Kind, PublicKey, SignatureMemory, signed_hash, verify
from idtrace.statements import Command, Currency, Denial, DenialReason

# What a report can hold and a person can read, of each grade: a thousand unclear ones must not crowd out a lie.
# Counting goes on beyond.
FINDINGS_MAX: Final = 1_000
# A log speaks of few zones, entry after entry.
_lineage = lru_cache(maxsize=1_024)(Prefix.lineage)


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


@dataclass(frozen=True, slots=True)
class ReplayState:
    """What a replay without doubts has come to: all that the next entries are judged by."""

    range: merkle.CompactRange
    findings: list[Finding]
    time: int
    zones: dict[Prefix, ZoneWord]
    lives: dict[str, Life]


@dataclass(slots=True)
class Replay:
    """The state of a log as an auditor sees it, entry by entry.

    Attributes:
        outside: zone keys of parents that are not in this log, by zone: all that were ever seen to be theirs.
        anchor: the pinned root keys; needed where this is the root's own log.
        size: entries that were fed.
        range: the tree over them.
        findings: the first thousand of each grade; ``broken`` counts all.
    """

    outside: Mapping[Prefix, Mapping[str, PublicKey]] = field(default_factory=dict)
    anchor: Anchor | None = None
    size: int = 0
    range: merkle.CompactRange = field(default_factory=merkle.CompactRange)
    findings: list[Finding] = field(default_factory=list)
    broken: int = 0
    _time: int = 0
    _zones: dict[Prefix, ZoneWord] = field(default_factory=dict)
    _lives: dict[str, Life] = field(default_factory=dict)
    _seal: OpenSeal | None = None
    _found_of: Counter[Grade] = field(default_factory=Counter)
    _memory: SignatureMemory = field(default_factory=SignatureMemory)

    @property
    def zones(self) -> tuple[Prefix, ...]:
        """Zones of which the log has said, in a way that could be checked, which keys they have."""
        return tuple(zone for zone, word in self._zones.items() if word.doubt is None)

    @property
    def identifiers(self) -> int:
        """How many identifiers have a record."""
        return len(self._lives)

    def feed(self, entries: list[bytes]) -> None:
        """Check the next entries, in order."""
        self.range = self.range.extend([merkle.hash_leaf(data) for data in entries])
        for data in entries:
            try:
                doubt = self._check(data)
            except IdtraceError as error:
                self._found(Grade.MISBEHAVIOUR, error.reason, error.detail)
            else:
                if doubt is not None:
                    self._found(Grade.UNCLEAR, doubt.reason, doubt.detail)
            self.size += 1

    def end(self) -> None:
        """Nothing follows: a seal must not be left open."""
        if self._seal is not None:
            self._close_seal()

    def state(self) -> ReplayState | None:
        """Where the replay stands; None where something was unclear, or more was found than is kept."""
        if self._seal is not None or self._found_of[Grade.UNCLEAR] or self.broken > len(self.findings):
            return None
        return ReplayState(self.range, self.findings, self._time, self._zones, self._lives)

    @classmethod
    def resumed(cls, state: ReplayState, anchor: Anchor) -> Replay:
        """A replay that goes on from there, under the same pinned root keys."""
        return cls(
            anchor=anchor,
            size=state.range.size,
            range=state.range,
            findings=state.findings,
            broken=len(state.findings),
            _time=state.time,
            _zones=state.zones,
            _lives=state.lives,
            _found_of=Counter(one.grade for one in state.findings),
        )

    def zone_keys(self, zone: Prefix) -> Mapping[str, PublicKey]:
        """Zone keys as of the last entry; none where they are not known for sure."""
        known = self._zones.get(zone)
        return known.delegation.keys_for(Role.ZONE) if known and known.doubt is None else {}

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
        self._found_of[grade] += 1
        if self._found_of[grade] <= FINDINGS_MAX:
            self.findings.append(Finding(self.size if index is None else index, grade, reason, detail))

    def _check(self, data: bytes) -> Doubt | None:
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
                return self._check_record(entry)
            case EntryKind.SEAL:
                return self._open_seal(entry)
            case EntryKind.KEYS | EntryKind.DELEGATION:
                return self._check_delegation(entry)
            case _:  # an administrator's command
                doubt = self._verify_spoken(entry, entry.zone)
                self._lies_below(Command.parse(entry.payload).prefix, entry.zone)
                return doubt

    # Records

    def _check_record(self, entry: Entry) -> Doubt | None:
        record_hash = signed_hash(Kind.RECORD, entry.payload)
        # 2. signed, or under a seal in its place
        if isinstance(entry.by, UnderSeal):
            doubt = self._take_place(entry.by, entry.zone, record_hash)
        else:
            doubt = self._verify_owned(entry)
        # 3. well-formed, in the zone
        body = read_head(entry.payload)
        self._lies_in(body.identifier, entry.zone)
        if body.issued_at > entry.committed_at + CLOCK_SKEW_SECONDS:
            raise VerificationError(Reason.RECORD_FROM_FUTURE, f"{body.identifier} was dated after its commit")
        # 4. and 5. one life
        return self._follow(body, entry.zone, record_hash) or doubt

    def _follow(self, body: RecordHead, zone: Prefix, record_hash: bytes) -> Doubt | None:
        name = str(body.identifier)
        life = self._lives.get(name)
        here = (self.size, body.version, record_hash)
        if life is None:
            self._lives[name] = Life(zone, body.version, record_hash, body.kind, [here])
            return None if body.version == 1 else self._begins_late(name, body.version, zone)
        broken = _broken(life, body, zone)
        # What follows is judged by what stands there, so that one broken rule is found once.
        life.version, life.record_hash, life.kind = body.version, record_hash, body.kind
        life.entries.append(here)
        if broken is not None:
            raise broken
        return None

    def _begins_late(self, name: str, version: int, zone: Prefix) -> Doubt:
        """What it means that something of a zone begins above version 1: a gap, or a log younger than the zone."""
        known = self._zones.get(zone)
        detail = f"{name} begins with version {version}"
        if known is not None and known.whole:
            raise VerificationError(Reason.VERSION_GAP, detail)
        return Doubt(Reason.VERSION_GAP, f"{detail}, and zone {zone_name(zone)} may be older than the log")

    def _lies_below(self, prefix: Prefix, zone: Prefix) -> None:
        if not prefix.strictly_within(zone):
            detail = f"a command of zone {zone_name(zone)} about {prefix}, which does not lie below it"
            raise VerificationError(Reason.REFERRAL_SIDEWAYS, detail)

    def _lies_in(self, identifier: Identifier, zone: Prefix) -> None:
        if not identifier.prefix.within(zone):
            raise VerificationError(Reason.RECORD_OUT_OF_ZONE, f"{identifier} does not lie in zone {zone}")
        if identifier.prefix == zone:
            return
        for prefix in identifier.prefix.lineage()[len(zone.labels) + 1 :]:
            if prefix in self._zones:
                detail = f"{identifier} lies in zone {prefix}, which is delegated"
                raise VerificationError(Reason.ZONE_DELEGATED, detail)

    # Seals

    def _open_seal(self, entry: Entry) -> Doubt | None:
        doubt = self._verify_owned(entry)
        body = Seal.parse(entry.payload)
        if body.zone != entry.zone:
            raise VerificationError(Reason.SEAL_WRONG_ZONE, f"the seal is zone {body.zone}'s")
        signers, content = _signers(entry), signed_hash(Kind.SEAL, entry.payload)
        self._seal = OpenSeal(self.size, content, signers, body, dict(entry.absent), doubt)
        self._seal.skip_absent()
        return doubt

    def _take_place(self, place: UnderSeal, zone: Prefix, record_hash: bytes) -> Doubt | None:
        seal = self._seal
        if seal is None or seal.seal_hash != place.seal_hash or seal.body.zone != zone:
            raise VerificationError(Reason.SEAL_PATH, "the record does not follow the seal that it names")
        if seal.next_position != place.position or place.position >= seal.body.size:
            detail = f"number {place.position} of the seal stands where number {seal.next_position} has to"
            raise VerificationError(Reason.SEAL_PATH, detail)
        keys = self._record_keys(zone)
        if keys is not seal.keys:
            if keys is not None and not seal.signers <= keys.keys():
                raise VerificationError(Reason.SIGNER_UNKNOWN, "a key of the seal ends before this record of it")
            seal.keys = keys
        seal.hashes[place.position] = record_hash
        seal.skip_absent()
        if seal.next_position == seal.body.size:
            self._close_seal()
        return seal.doubt

    def _close_seal(self) -> None:
        # 6. all places are filled, and they have the sealed root
        seal, self._seal = self._seal, None
        assert seal is not None, "it was open"
        if not seal.is_sound():
            detail = "the records after the seal and those that it calls absent are not the batch that was sealed"
            self._found(Grade.MISBEHAVIOUR, Reason.SEAL_PATH, detail, seal.index)

    # Delegations and keys

    def _check_delegation(self, entry: Entry) -> Doubt | None:
        # 2. signed by the parent
        body = Delegation.parse(entry.payload)
        deciding = body.child if entry.kind is EntryKind.KEYS else body.parent
        if entry.zone != deciding:
            detail = f"the entry is zone {zone_name(entry.zone)}'s, not {zone_name(deciding)}'s"
            raise VerificationError(Reason.REFERRAL_SIDEWAYS, detail)
        doubt = self._verify_root(entry) if body.child.is_root else self._verify_spoken(entry, body.parent)
        # 4. one version after the other
        known = self._zones.get(body.child)
        whole = known.whole if known is not None else ZoneWord.is_whole(entry.kind, body)
        floors = known.floors if known is not None else {}
        before = max(floors.get(signer, (0, "")) for signer in _signers(entry))
        word = ZoneWord(body, signed_hash(Kind.DELEGATION, entry.payload), floors, doubt, whole)
        if known is None or body.version > known.delegation.version:
            self._zones[body.child] = word
            floors.update(dict.fromkeys(_signers(entry), (body.version, word.content.hex())))
        return self._check_succession(word, known, entry, before) or doubt

    def _check_succession(
        self, word: ZoneWord, known: ZoneWord | None, entry: Entry, before: tuple[int, str]
    ) -> Doubt | None:
        """A parent's log has every version of its child zones; a node may have missed some of its own zone.

        ``before`` is the highest version, and its hash, that any of the word's signers had signed.
        """
        body, in_parents = word.delegation, entry.kind is EntryKind.DELEGATION
        name, version = zone_name(body.child), body.version
        if known is None:
            begins_late = in_parents and version != 1
            return self._begins_late(f"zone {name}", version, body.parent) if begins_late else None
        last = known.delegation.version
        if (version, word.content) == (last, known.content):
            if word.doubt is None:
                known.doubt = None
            return None  # the same word, in its parent's and in its own zone's name
        if version <= last:
            return self._went_back(word, entry, before, f"zone {name}: version {version} after {last}")
        if in_parents and (again := word.resurrected(known)):
            raise VerificationError(Reason.SIGNER_UNKNOWN, f"zone {name}: key {again} had ended, and came back")
        if in_parents and version != last + 1:
            raise VerificationError(Reason.VERSION_GAP, f"zone {name}: version {version} follows version {last}")
        if version == last + 1 and body.previous != known.content:
            detail = f"zone {name}: version {version} does not name the one before"
            if word.doubt is None and before[0] < last and body.parent not in self._zones:
                return Doubt(Reason.PREVIOUS_HASH_MISMATCH, detail)  # the one before may have been a thief's
            raise VerificationError(Reason.PREVIOUS_HASH_MISMATCH, detail)
        return None

    def _went_back(self, word: ZoneWord, entry: Entry, before: tuple[int, str], detail: str) -> Doubt:
        """A version that is no higher than the last: a rollback, or the end of a thief.

        With a parent's stolen key a thief can sign version 2**53 - 1. Once the parent has dropped the key, a node takes
        what the parent signs with its others, however low the version. Of a parent outside this log nobody here knows
        when it dropped which key, so this may be what has happened, unless one and the same key goes back:
        ``before`` is the highest version, and its hash, that any of its signers has signed: that very word may come
        back, once a thief's has fallen away.
        """
        outside = word.delegation.parent not in self._zones
        said = (word.delegation.version, word.content.hex())
        if not outside or said[0] < before[0] or (said[0] == before[0] and said != before):
            raise VerificationError(Reason.DELEGATION_ROLLED_BACK, detail)
        doubt = Doubt(Reason.DELEGATION_ROLLED_BACK, f"{detail}, signed by other keys of a parent outside this log")
        word.floors.update(dict.fromkeys(_signers(entry), said))
        self._zones[word.delegation.child] = replace(word, doubt=doubt)
        return doubt

    def _record_keys(self, zone: Prefix) -> Mapping[str, PublicKey] | None:
        """Keys that may sign records of a zone as of this entry; None where the log has not told."""
        known = self._zones.get(zone)
        if known is None:
            return None
        for name in _lineage(zone):  # what lies below a zone that was taken back takes no records either
            above = self._zones.get(name)
            if above is not None and above.delegation.state is State.REVOKED:
                raise VerificationError(Reason.DELEGATION_REVOKED, f"zone {zone_name(name)} had been taken back")
        return known.record_keys(self.size)

    def _verify_owned(self, entry: Entry) -> Doubt | None:
        """Step 2 for what a zone signs with its record keys."""
        keys = self._record_keys(entry.zone)
        if keys is None:
            return Doubt(Reason.SIGNER_UNKNOWN, f"the log has not said which keys zone {zone_name(entry.zone)} has")
        self._verify(entry, keys)
        return self._doubt_of(entry.zone)

    def _verify_root(self, entry: Entry) -> Doubt | None:
        """Step 2 for the root's own key set, which the pinned keys sign.

        Before the first that today's pinned keys have signed, those before them may have.
        """
        if self.anchor is None:
            return Doubt(Reason.SIGNER_UNKNOWN, "the pinned root keys are not given")
        known, signers = self._zones.get(entry.zone), _signers(entry)
        if (known is None or known.doubt is not None) and not signers <= self.anchor.keys.keys():
            return Doubt(Reason.SIGNER_UNKNOWN, "not signed by the pinned root keys, perhaps by those before them")
        self._verify(entry, self.anchor.keys, self.anchor.threshold)
        return None

    def _verify_spoken(self, entry: Entry, zone: Prefix) -> Doubt | None:
        """Step 2 for what a zone says as a parent.

        Of a parent outside nobody here knows when which key counted, so any of them will do.
        """
        known = self._zones.get(zone)
        if known is not None:
            self._verify(entry, known.delegation.keys_for(Role.ZONE), known.delegation.zone_threshold)
            return self._doubt_of(zone)
        keys = self.outside.get(zone, {})
        if _signers(entry) <= keys.keys():
            self._verify(entry, keys)
            return None
        assert not isinstance(entry.by, UnderSeal), "records alone stand under a seal"
        judged = tuple(signature for signature in entry.by if signature.key_id in keys)
        if judged:  # a false signature does not become a riddle by another one beside it
            self._verify(replace(entry, by=judged), keys)
        return Doubt(Reason.SIGNER_UNKNOWN, f"not all keys are known that may have signed for zone {zone_name(zone)}")

    def _doubt_of(self, zone: Prefix) -> Doubt | None:
        """The doubt of what the zone's keys of today have signed."""
        if self._zones[zone].doubt is None:
            return None
        return Doubt(Reason.SIGNER_UNKNOWN, f"the keys that zone {zone_name(zone)} has by now could not be checked")

    def _verify(self, entry: Entry, keys: Mapping[str, PublicKey], threshold: int = 1) -> None:
        budget = CheckBudget(SIGNATURES_MAX, self._memory)
        verify(entry.signed, SIGNED_KIND[entry.kind], keys, budget=budget, threshold=threshold, field="entry")


def _signers(entry: Entry) -> frozenset[str]:
    return frozenset(signature.key_id for signature in entry.signed.signatures)


def _broken(life: Life, body: RecordHead, zone: Prefix) -> VerificationError | None:
    """Which of rules 4 and 5 the next record of an identifier breaks."""
    name = body.identifier
    if life.zone != zone:
        detail = f"{name} belongs to zone {life.zone}, and zone {zone} has registered it again"
        return VerificationError(Reason.IDENTIFIER_TAKEN, detail)
    if life.kind is RecordKind.TOMBSTONE:
        return VerificationError(Reason.IDENTIFIER_RETIRED, f"{name} had ended at entry {life.entries[-1][0]}")
    if body.version != life.version + 1:
        return VerificationError(Reason.VERSION_GAP, f"{name}: version {body.version} follows version {life.version}")
    if body.previous != life.record_hash:
        detail = f"{name}: version {body.version} does not name version {life.version}"
        return VerificationError(Reason.PREVIOUS_HASH_MISMATCH, detail)
    if body.kind not in (life.kind, RecordKind.TOMBSTONE):
        return VerificationError(Reason.KIND_CHANGED, f"{name}: a {life.kind} became a {body.kind}")
    return None

"""One log's audit, and the next one of the same log: what is asked in which order, and what each answer comes to.

1. The checkpoint: signed by a key that a verified chain names for this log, now or in an audit before.
2. Its witnesses, as the policy asks, and what they say when they are asked themselves.
3. Every other checkpoint of this log that we hold (the last one seen, those in saved bundles): no two contradict.
4. What was seen is remembered before anything that takes long.
5. All entries from the first, checked against the tree and replayed; or some of them, drawn by chance.
6. Saved statements against what the log says.

A second run replays only what has come since; a new process with the same folder too, from what the one before has left
(:mod:`idtrace.auditing.snapshot`), unless something in the log was unclear: then it reads from the first entry again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from idtrace.audit import Finding, Grade, Replay
from idtrace.auditing.evidence import (
    CHAINS_MAX,
    EARLY_SECONDS,
    Chained,
    Contradiction,
    Evidence,
    contradicted,
    describe,
    signed_checkpoint,
    spoken,
)
from idtrace.auditing.fetching import LogReader
from idtrace.auditing.findings import LogReport, Notice
from idtrace.auditing.forks import Sighting, fork_between
from idtrace.auditing.memory import Memory, MemoryFolder
from idtrace.auditing.reading import entries_from, proven_entry
from idtrace.auditing.snapshot import SHARE, resumed, snapshot_of
from idtrace.auditing.staleness import size_at
from idtrace.auditing.tree import TrustedTree
from idtrace.auditing.witnesses import WitnessRound
from idtrace.chain import Anchor, TrustedChain, zone_name
from idtrace.checkpoint import Checkpoint
from idtrace.delegation import Role
from idtrace.entry import Entry
from idtrace.errors import BusyError, IdtraceError, InputError, Reason, VerificationError, quoted
from idtrace.identifier import Prefix
from idtrace.logpolicy import LogPolicy
from idtrace.note import Note
from idtrace.signature import PublicKey, Signed
from idtrace.statements import Currency, Denial, DenialReason

# What would decide is missing; everything else that fails is a lie.
_MISSING: Final = frozenset({Reason.SIGNER_UNKNOWN, Reason.LOG_UNKNOWN, Reason.NOTE_MALFORMED})
_BORNE: Final = "a checkpoint that an answer bore"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Saved:
    """Something that somebody has kept: a signed statement, a log's checkpoint, a chain; each may be missing."""

    place: str
    statement: Signed | None = None
    note: bytes = b""
    chain: Chained | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What an audit rests on: pinned keys, the chains of the zones in question, a policy, what was saved."""

    anchor: Anchor
    chains: tuple[Chained, ...]
    policy: LogPolicy | None = None
    saved: tuple[Saved, ...] = ()


@dataclass(frozen=True, slots=True)
class _View:
    """The log as one audit sees it: its checkpoint, the tree behind that, and the chains that name its keys."""

    seen: Sighting
    tree: TrustedTree
    chains: tuple[TrustedChain, ...]

    def chains_with(self, saved: Saved, anchor: Anchor) -> tuple[TrustedChain, ...]:
        """These chains behind the one that came with something saved."""
        return (*([saved.chain.trusted(anchor)] if saved.chain else []), *self.chains)


@dataclass(slots=True)
class LogAudit:
    """The audits of one log's address. ``folder``: where to remember; without one, only as long as this lives."""

    reader: LogReader
    asked: Asked
    folder: MemoryFolder | None = None
    witnesses: WitnessRound | None = None
    judged: set[str] = field(default_factory=set)
    _memory: Memory | None = None
    _replay: Replay | None = None
    _is_torn: bool = False  # something was shown that does not go with what was replayed
    _saved_size: int = 0  # how far the replay goes that is saved

    def run(self, now: int, *, sample: int = 0, progress: Progress = lambda _done, _all: None) -> LogReport:
        """Audit the log as it now (s) is.

        Raises:
            InputError: what is remembered is damaged, or belongs to another root key.
        """
        report = LogReport(self.reader.url)
        start = time.perf_counter()
        try:
            self._run(report, now, sample, progress)
        except (BusyError, VerificationError) as error:
            report.add(_notice("log", error))
        report.seconds = time.perf_counter() - start
        return report

    def _run(self, report: LogReport, now: int, sample: int, progress: Progress) -> None:
        trusted = [(one, one.trusted(self.asked.anchor)) for one in self.asked.chains]
        seen = self._checkpoint(report, [chain for _, chain in trusted])
        if seen is None:
            return
        origin = seen.checkpoint.origin
        own = [(one, chain) for one, chain in trusted if chain.delegation.log == origin]
        report.zones = tuple(zone_name(chain.zone) for _, chain in own)
        chains = [chain for _, chain in own] + self._kept_chains(origin)
        if not self._is_signed(report, seen, chains):
            return
        self._witnessed(report, seen, now)
        tree = TrustedTree(seen.checkpoint, self.reader)
        self._compare(report, seen, chains)
        self._remember(report, seen, [one for one, _ in own])
        if sample:
            self._draw(report, tree, sample, progress)
        else:
            self._read(report, tree, chains, progress)
        for saved in self.asked.saved:
            if saved.statement is not None:
                self._judge(report, saved, saved.statement, _View(seen, tree, tuple(chains)))

    # 1. The checkpoint

    def _checkpoint(self, report: LogReport, chains: Sequence[TrustedChain]) -> Sighting | None:
        data = self.reader.checkpoint()
        try:
            checkpoint = _checkpoint_of(data)
        except InputError as error:
            detail = f"what is served there is no checkpoint: {error.detail}"
            report.add(Notice("checkpoint", Grade.UNCLEAR, error.reason, detail))
            return None
        report.origin, report.size, report.root = checkpoint.origin, checkpoint.size, checkpoint.root
        if not any(chain.delegation.log == checkpoint.origin for chain in chains):
            detail = f"none of the zones keeps its changes in the log {quoted(checkpoint.origin)}"
            report.add(Notice("checkpoint", Grade.UNCLEAR, Reason.LOG_UNKNOWN, detail))
            return None
        return Sighting("checkpoint", data, checkpoint)

    def _kept_chains(self, origin: str) -> list[TrustedChain]:
        if self._memory is None:
            self._memory = self.folder.load(origin) if self.folder else Memory(origin)
        if self._memory.origin != origin:
            detail = f"the address served the log {self._memory.origin} before, and now {origin}"
            raise VerificationError(Reason.LOG_UNKNOWN, detail, field="checkpoint")
        vouched: list[TrustedChain] = []
        failed: VerificationError | None = None
        for one in self._memory.chains:  # those from before a root key was given up do not verify any more
            try:
                vouched.append(one.trusted(self.asked.anchor))
            except VerificationError as error:
                failed = error
        if failed is not None and not vouched:
            detail = f"what is remembered of {origin} does not belong to this root key: {failed.detail}"
            raise InputError(failed.reason, detail, field="--state") from failed
        return vouched

    def _is_signed(self, report: LogReport, seen: Sighting, chains: Sequence[TrustedChain]) -> bool:
        try:
            signed_checkpoint(seen.note, chains)
        except IdtraceError as error:
            report.add(_notice("checkpoint", error))
            return False
        report.checked.append(f"the checkpoint of {seen.checkpoint.size} entries is signed by the log's key")
        return True

    # 2. Witnesses

    def _witnessed(self, report: LogReport, seen: Sighting, now: int) -> None:
        policy = self.asked.policy
        if policy is None:
            return
        try:
            found = policy.witnessing(Note.parse(seen.note), now=now)
        except VerificationError as error:
            report.add(_notice("checkpoint", error))
            return
        report.cosigned = tuple(one.name for one in found.standings if one.cosigned_at is not None)
        if found.met:
            report.checked.append(f"cosigned as the policy asks: {', '.join(report.cosigned) or 'it asks for none'}")
        else:
            detail = f"too few of the policy's witnesses have cosigned: {'; '.join(found.shortfall)}"
            report.add(Notice("checkpoint", Grade.UNCLEAR, Reason.WITNESS_QUORUM, detail))
        if self.witnesses is not None:
            self.witnesses.ask(policy, seen, report)

    # 3. Other checkpoints

    def _compare(self, report: LogReport, seen: Sighting, chains: Sequence[TrustedChain]) -> None:
        assert self._memory is not None, "it was loaded with the chains"
        heads = [seen]
        if self._memory.note:
            before = Sighting("the checkpoint seen before", self._memory.note, _checkpoint_of(self._memory.note))
            report.seen_size = before.checkpoint.size
            self._against(report, seen, before, self._memory.chains)
            if seen.checkpoint.size < before.checkpoint.size:
                detail = (
                    f"the log goes back from {before.checkpoint.size} entries, seen before, to {seen.checkpoint.size}"
                )
                report.add(Notice("checkpoint", Grade.MISBEHAVIOUR, Reason.CHECKPOINT_STALE, detail))
                heads.append(before)  # what is published now hides what was signed since
        for other, chain in (*self._borne(heads[-1]), *self._kept(report, seen, chains)):
            for head in heads:
                self._against(report, head, other, chain)

    def _borne(self, largest: Sighting) -> list[tuple[Sighting, tuple[Chained, ...]]]:
        """Checkpoints that clients kept (``remembering.py``); answers run ahead of what is published."""
        assert self._memory is not None, "it was loaded with the chains"
        found = [Sighting(_BORNE, note, _checkpoint_of(note)) for note in self._memory.others]
        chains = self._memory.chains
        return [(one, chains) for one in found if one.checkpoint.size <= largest.checkpoint.size]

    def _kept(
        self, report: LogReport, seen: Sighting, chains: Sequence[TrustedChain]
    ) -> list[tuple[Sighting, tuple[Chained, ...]]]:
        """Checkpoints of this log in what somebody saved, each signed by a key that its chain or ours names."""
        found: list[tuple[Sighting, tuple[Chained, ...]]] = []
        for saved in self.asked.saved:
            if not saved.note:
                continue
            try:
                more = [*chains, *([saved.chain.trusted(self.asked.anchor)] if saved.chain else [])]
                checkpoint = _checkpoint_of(saved.note)
                if checkpoint.origin != seen.checkpoint.origin:
                    continue
                signed_checkpoint(saved.note, more)
            except IdtraceError as error:
                detail = f"its checkpoint cannot be held against the log: {error.detail}"
                report.add(Notice(saved.place, Grade.UNCLEAR, error.reason, detail))
                continue
            found.append((Sighting(saved.place, saved.note, checkpoint), (saved.chain,) if saved.chain else ()))
        return found

    def _against(self, report: LogReport, seen: Sighting, other: Sighting, more: Sequence[Chained]) -> None:
        sizes = f"{other.checkpoint.size} entries and that of {seen.checkpoint.size}"
        try:
            fork = fork_between(other, seen, self.reader)
        except (BusyError, VerificationError) as error:
            report.add(_notice(other.where, error))
            return
        if fork is None:
            report.checked.append(f"{other.where}: the trees of {sizes} are one log")
            return
        detail = f"the log has signed the tree of {sizes}, and no log can have both"
        evidence = Evidence(fork, self._shown_chains(fork.notes, more))
        report.add(Notice(other.where, Grade.MISBEHAVIOUR, Reason.LOG_INCONSISTENT, detail, evidence))

    def _shown_chains(self, notes: Sequence[bytes], more: Sequence[Chained]) -> tuple[Chained, ...]:
        """The first chain for each note that names the key which signed it."""
        assert self._memory is not None, "it was loaded with the chains"
        found: list[Chained] = []
        for note in notes:
            found += self._first_chain(more, lambda chain, note=note: signed_checkpoint(note, [chain]))  # type: ignore[misc] # the default binds it
        return tuple(dict.fromkeys(found))[:CHAINS_MAX]

    def _first_chain(self, more: Sequence[Chained], passes: Callable[[TrustedChain], object]) -> tuple[Chained, ...]:
        """The first chain that a check takes; it took one of them before."""
        assert self._memory is not None, "it was loaded with the chains"
        for one in (*more, *self.asked.chains, *self._memory.chains):
            try:
                passes(one.trusted(self.asked.anchor))
            except VerificationError:
                continue
            return (one,)
        return ()

    # 4. Memory

    def _remember(self, report: LogReport, seen: Sighting, chains: Sequence[Chained]) -> None:
        assert self._memory is not None, "it was loaded with the chains"
        went_wrong = any(notice.grade is Grade.MISBEHAVIOUR for notice in report.notices)
        memory = self._memory
        for one in chains:
            memory = replace(memory, chains=memory.with_chain(one))
        if went_wrong:
            self._replay, self._is_torn = None, True  # of what tree, nobody can say now
        elif report.seen_size is None or seen.checkpoint.size >= report.seen_size:
            # What could not be compared is still there, and so is what this log has not published yet.
            unclear = any(notice.place == _BORNE for notice in report.notices)
            ahead = tuple(note for note in memory.others if _checkpoint_of(note).size > seen.checkpoint.size)
            memory = replace(memory, note=seen.note, others=memory.others if unclear else ahead)
        self._save(memory)

    def _save(self, memory: Memory) -> None:
        if self.folder is not None and memory != self._memory:
            self.folder.save(memory)
        self._memory = memory

    # 5. Entries

    def _read(self, report: LogReport, tree: TrustedTree, chains: Sequence[TrustedChain], progress: Progress) -> None:
        size = tree.checkpoint.size
        replay = self._replay
        if replay is None:
            replay = self._resumed()
        if replay is None or replay.size > size:
            replay = Replay(anchor=self.asked.anchor)
        self._replay = replay
        replay.outside = zone_keys(chains)
        start = replay.size
        try:
            for entries in entries_from(self.reader, tree, start):
                replay.feed(entries)
                progress(replay.size - start, size - start)
        except (BusyError, VerificationError) as error:
            report.add(_notice("log", error))
        else:
            replay.end()
            self._replayed(report, tree, replay, chains)
        report.entries, report.identifiers = replay.size - start, replay.identifiers
        for finding in replay.findings:
            report.add(Notice(f"entry {finding.index}", finding.grade, finding.reason, finding.detail))
        report.broken += replay.broken - len(replay.findings)

    def _replayed(self, report: LogReport, tree: TrustedTree, replay: Replay, chains: Sequence[TrustedChain]) -> None:
        assert self._memory is not None, "it was loaded with the chains"
        if replay.range.root() != tree.checkpoint.root:
            detail = "the entries do not have the root that was signed"
            report.add(Notice("checkpoint", Grade.MISBEHAVIOUR, Reason.LOG_INCONSISTENT, detail))
            self._replay = None
            return
        report.checked.append(f"all {replay.size} entries have the root that was signed, and all tiles over them")
        for zone in dict.fromkeys(chain.zone for chain in chains):
            if zone not in replay.zones:
                detail = f"the log has not said, or not provably, which keys zone {zone_name(zone)} has"
                report.add(Notice(f"zone {zone_name(zone)}", Grade.UNCLEAR, Reason.NOT_LOGGED, detail))
        if replay.size >= self._memory.replayed.size and not self._is_torn:
            self._save(replace(self._memory, replayed=replay.range, snapshot=self._snapshot(replay)))

    def _resumed(self) -> Replay | None:
        """The replay that an audit before has left; None: it begins at the first entry."""
        memory = self._memory
        if self.folder is None or memory is None or not memory.snapshot or self._is_torn:
            return None
        replay = resumed(self.folder.load_snapshot(memory.origin), memory.snapshot, self.asked.anchor)
        self._saved_size = replay.size if replay else 0
        return replay

    def _snapshot(self, replay: Replay) -> str:
        """Save where the replay stands if it has gone on by a fair share; the SHA-256 (hex) of what is saved, or ""."""
        assert self._memory is not None, "it was loaded with the chains"
        if self.folder is None or (replay.size - self._saved_size) * SHARE < replay.size or not replay.size:
            return self._memory.snapshot
        data = snapshot_of(replay, self.asked.anchor)
        if data is None:
            return ""
        self._saved_size = replay.size
        return self.folder.save_snapshot(self._memory.origin, data)

    def _draw(self, report: LogReport, tree: TrustedTree, sample: int, progress: Progress) -> None:
        """Some entries, drawn so that the log cannot know which: each well-formed and in the tree."""
        size, chance = tree.checkpoint.size, secrets.SystemRandom()
        drawn = sorted(chance.sample(range(size), min(sample, size)))
        report.sampled = True
        for count, index in enumerate(drawn, start=1):
            try:
                Entry.from_bytes(proven_entry(self.reader, tree, index)[0])
            except InputError as error:
                report.add(Notice(f"entry {index}", Grade.MISBEHAVIOUR, error.reason, error.detail))
            except (BusyError, VerificationError) as error:
                report.add(_notice(f"entry {index}", error))
            report.entries = count
            progress(count, len(drawn))
        report.checked.append(f"{len(drawn)} of {size} entries were drawn by chance and looked up in the tree")

    # 6. Statements

    def _judge(self, report: LogReport, saved: Saved, statement: Signed, view: _View) -> None:
        try:
            said, chain = spoken(statement, view.chains_with(saved, self.asked.anchor))
        except IdtraceError as error:
            # Perhaps it is another log's: whoever asked learns of statements that no log has judged.
            if error.reason is not Reason.SIGNER_UNKNOWN:
                self.judged.add(saved.place)
                detail = f"nobody can be held to it: {error.detail}"
                report.add(Notice(saved.place, Grade.UNCLEAR, error.reason, detail))
            return
        if chain.delegation.log != view.seen.checkpoint.origin:
            return
        self.judged.add(saved.place)
        try:
            finding = self._contradiction(said, view)
        except IdtraceError as error:
            report.add(_notice(saved.place, error))
            return
        if finding is not None:
            evidence = self._shows(saved, statement, view, finding.index)
            report.add(Notice(saved.place, finding.grade, finding.reason, finding.detail, evidence))
        elif why := _unjudgeable(said, self._replay):
            report.add(Notice(saved.place, Grade.UNCLEAR, Reason.CHECKPOINT_STALE, f"{describe(said)}; {why}"))
        else:
            report.checked.append(f"{saved.place}: {describe(said)}; so it was")

    def _contradiction(self, said: Currency | Denial, view: _View) -> Finding | None:
        """How the replayed log contradicts a statement, as of the size that its signer had to know.

        Raises:
            IdtraceError: an entry cannot be looked up.
        """
        if self._replay is None:
            return None
        if _is_about_prefix(said):
            return None
        known = size_at(self.reader, view.tree, said.log_size or 0, said.issued_at)
        # What was known long before shows in an entry, where there is one; what the named size shows may not.
        finding = self._replay.against(replace(said, log_size=known)) or self._replay.against(said)
        if finding is None:
            return None
        entry, _ = proven_entry(self.reader, view.tree, finding.index)
        if Entry.from_bytes(entry).committed_at <= said.issued_at + EARLY_SECONDS:
            return finding
        later = f"{finding.detail}; but that entry came after the statement, which may be about a log before this one"
        return replace(finding, grade=Grade.UNCLEAR, reason=Reason.CHECKPOINT_STALE, detail=later)

    def _shows(self, saved: Saved, statement: Signed, view: _View, index: int) -> Evidence | None:
        """Evidence that an entry contradicts a statement; None where no single entry does."""
        more = (saved.chain,) if saved.chain else ()
        spoke = self._first_chain(more, lambda chain: spoken(statement, [chain]))
        chains = tuple(dict.fromkeys((*spoke, *self._shown_chains((view.seen.note,), ()))))
        try:
            entry, path = proven_entry(self.reader, view.tree, index)
            contradicted(spoken(statement, view.chains_with(saved, self.asked.anchor))[0], entry, index)
        except IdtraceError:
            return None
        return Evidence(Contradiction(statement, entry, index, path, view.seen.note), chains)


def _is_about_prefix(said: Currency | Denial) -> bool:
    return isinstance(said, Denial) and said.reason is not DenialReason.IDENTIFIER_ABSENT


def _unjudgeable(said: Currency | Denial, replay: Replay | None) -> str:
    """Why a statement cannot be held against what was read; "" where it can."""
    if _is_about_prefix(said):
        return "that is about a prefix, and no entry speaks of it"
    if said.log_size is None:
        return "it names no size of the log"
    if replay is None:
        return "a sample does not tell; audit the log whole"
    return f"{replay.size} entries have been read" if replay.size < said.log_size else ""


def zone_keys(chains: Sequence[TrustedChain]) -> Mapping[Prefix, Mapping[str, PublicKey]]:
    """Keys with which the zones on these chains have spoken as parents."""
    found: dict[Prefix, dict[str, PublicKey]] = {}
    for chain in chains:
        for link in chain.links:
            found.setdefault(link.delegation.child, {}).update(link.delegation.keys_for(Role.ZONE))
    return found


def _checkpoint_of(note: bytes) -> Checkpoint:
    """The checkpoint of a note, unchecked; raises InputError."""
    return Checkpoint.parse(Note.parse(note).text)


def _notice(place: str, error: IdtraceError) -> Notice:
    unclear = isinstance(error, BusyError) or error.reason in _MISSING
    return Notice(error.field or place, Grade.UNCLEAR if unclear else Grade.MISBEHAVIOUR, error.reason, error.detail)

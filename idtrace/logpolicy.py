"""Whom an auditor believes about a log: the policy file, and whether a checkpoint meets it (C2SP tlog-policy).

::

    log example.com/log+a1b2c3d4+AR…
    witness X1 x1.example+…  https://x1.example/
    witness X2 x2.example+…
    group X any X1 X2
    quorum X

A checkpoint is valid if one of the logs has signed it and enough witnesses have cosigned it. Octets above 0x7F are
opaque: two spellings that look alike are two names. Stricter than the specification in one point: a log's key that
stands among the witnesses too is refused, since a log would then vouch for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from idtrace.checkpoint import Checkpoint
from idtrace.errors import IdtraceError, InputError, Reason, VerificationError, quoted
from idtrace.note import KeyType, Note, NoteKey, open_note, verified_signatures

# The specification asks for 32 of each at least; 64 cosignatures are also what a note of ours may carry.
POLICY_LINES_MAX: Final = 64
# 128 ML-DSA-44 keys in text have 230 kB; what remains is for names, URLs and comments.
POLICY_BYTES_MAX: Final = 524_288
# Clocks of witnesses and auditors differ a little; as much as for every other time that is signed.
COSIGNATURE_SKEW_SECONDS: Final = 30
NO_QUORUM: Final = "none"
_OCTETS: Final = re.compile(rb"[\t\n\x20-\x7e\x80-\xff]*")
_WHITE: Final = re.compile(r"[ \t]+")
_THRESHOLD: Final = re.compile(r"[1-9][0-9]{0,3}")


@dataclass(frozen=True, slots=True)
class KnownLog:
    """A log that is believed: its key, whose name is the origin, and perhaps where it is."""

    key: NoteKey
    url: str = ""


@dataclass(frozen=True, slots=True)
class KnownWitness:
    """A witness by its name within the policy, its key, and perhaps where it is."""

    name: str
    key: NoteKey
    url: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Witnesses whenever ``threshold`` of its members (witnesses or groups, by name) have."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """One witness of the quorum: as of when it cosigned (s; 0: it states no time), or why it does not count."""

    name: str
    cosigned_at: int | None
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Witnessing:
    """How far a checkpoint is witnessed.

    Attributes:
        met: whether the quorum is reached.
        standings: every witness that the quorum counts, in the order of the file.
        shortfall: one line for each group (or witness) of the quorum that is not reached, the outermost first.
    """

    met: bool
    standings: tuple[Standing, ...]
    shortfall: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Witnesses of the quorum whose cosignature is not there or does not count."""
        return tuple(standing.name for standing in self.standings if standing.cosigned_at is None)


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """A policy that :meth:`parse` has checked: names are defined before use, once, and keys stand for one thing."""

    logs: tuple[KnownLog, ...]
    witnesses: tuple[KnownWitness, ...]
    groups: tuple[Group, ...]
    quorum: str

    @classmethod
    def parse(cls, data: bytes, *, field: str = "policy") -> LogPolicy:
        """Read a policy file, which errors call ``field``.

        Raises:
            InputError: POLICY_MALFORMED (the field says in which line).
        """
        if len(data) > POLICY_BYTES_MAX or not _OCTETS.fullmatch(data) or not data.endswith(b"\n"):
            detail = (
                f"a policy is lines, each with its newline, at most {POLICY_BYTES_MAX} bytes, no control characters"
            )
            raise InputError(Reason.POLICY_MALFORMED, detail, field=field)
        draft = _Draft()
        # Octets that are no UTF-8 stay what they are, one stand-in character for each.
        for number, line in enumerate(data.decode("utf-8", "surrogateescape").split("\n"), start=1):
            stripped = line.strip(" \t")
            if stripped and not stripped.startswith("#"):
                draft.add(_WHITE.split(stripped), f"{field}.line[{number}]")
        if draft.quorum is None:
            detail = "a policy has a quorum line: a name that stands above, or none"
            raise InputError(Reason.POLICY_MALFORMED, detail, field=field)
        return cls(tuple(draft.logs), tuple(draft.witnesses), tuple(draft.groups), draft.quorum)

    def encode(self) -> bytes:
        """The file without comments, as :meth:`parse` reads it."""
        lines = [
            *(f"log {log.key} {log.url}" for log in self.logs),
            *(f"witness {witness.name} {witness.key} {witness.url}" for witness in self.witnesses),
            *(f"group {group.name} {group.threshold} {' '.join(group.members)}" for group in self.groups),
            f"quorum {self.quorum}",
        ]
        return "".join(f"{line.rstrip(' ')}\n" for line in lines).encode("utf-8", "surrogateescape")

    def check_log(self, note: Note, checkpoint: Checkpoint, keys: Iterable[NoteKey] = ()) -> NoteKey:
        """The key with which a known log of this origin has signed; ``keys`` are logs known from elsewhere.

        Raises:
            VerificationError: LOG_UNKNOWN, SIGNER_UNKNOWN, SIGNATURE_INVALID or COSIGNATURE_INVALID.
        """
        known = [key for key in (*(log.key for log in self.logs), *keys) if key.name == checkpoint.origin]
        if not known:
            detail = f"no log is known by the origin {quoted(checkpoint.origin)}"
            raise VerificationError(Reason.LOG_UNKNOWN, detail, field="checkpoint.origin")
        return open_note(note, known, field="checkpoint")[0].key

    def witnessing(self, note: Note, *, now: int) -> Witnessing:
        """How far a note with a checkpoint is witnessed at a time (s). A cosignature from the future does not count.

        Raises:
            VerificationError: COSIGNATURE_INVALID (a line by a known witness is false: the note is refused whole).
        """
        names = {witness.key: witness.name for witness in self.witnesses}
        times: dict[str, list[int]] = {}
        for verified in verified_signatures(note, names, field="checkpoint"):
            times.setdefault(names[verified.key], []).append(verified.timestamp_seconds or 0)
        counted = self._counted()
        standings = []
        for witness in self.witnesses:
            if witness.name in counted:
                stated = times.get(witness.name, [])
                past = [at for at in stated if at <= now + COSIGNATURE_SKEW_SECONDS]
                reason = Reason.COSIGNATURE_FROM_FUTURE if stated else Reason.WITNESS_QUORUM
                standings.append(
                    Standing(witness.name, max(past), None) if past else Standing(witness.name, None, reason)
                )
        shortfall = self._shortfall({standing.name for standing in standings if standing.cosigned_at is not None})
        return Witnessing(not shortfall, tuple(standings), shortfall)

    def _counted(self) -> set[str]:
        """Names that the quorum rests on; groups come after their members, so one pass backwards finds them."""
        names = {self.quorum}
        for group in reversed(self.groups):
            if group.name in names:
                names.update(group.members)
        return names

    def _shortfall(self, cosigned: set[str]) -> tuple[str, ...]:
        """What the quorum lacks, given the witnesses that have cosigned."""
        met = cosigned | {NO_QUORUM}
        for group in self.groups:
            if sum(member in met for member in group.members) >= group.threshold:
                met.add(group.name)
        if self.quorum in met:
            return ()
        lacking, lines = {self.quorum}, []
        for group in reversed(self.groups):
            if group.name in lacking:
                absent = [member for member in group.members if member not in met]
                there, names = len(group.members) - len(absent), ", ".join(map(quoted, absent))
                lines.append(f"{quoted(group.name)} has {there} of {group.threshold}, without {names}")
                lacking.update(absent)
        return tuple(lines) or (f"without {quoted(self.quorum)}",)


_Known = Sequence[KnownLog] | Sequence[KnownWitness]


@dataclass(slots=True)
class _Draft:
    """A policy while its lines are read."""

    logs: list[KnownLog] = field(default_factory=list)
    witnesses: list[KnownWitness] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    quorum: str | None = None
    _defined: set[str] = field(default_factory=set)
    _members: set[str] = field(default_factory=set)

    def add(self, words: list[str], place: str) -> None:
        match words:
            case ["log", key, *url] if len(url) < 2:
                self._room(self.logs, place)
                known = self._key(key, KeyType.COSIGNATURE_ED25519, self.logs, self.witnesses, place)
                self.logs.append(KnownLog(known, *url))
            case ["witness", name, key, *url] if len(url) < 2:
                self._room(self.witnesses, place)
                known = self._key(key, KeyType.ED25519, self.witnesses, self.logs, place)
                self.witnesses.append(KnownWitness(self._define(name, place), known, *url))
            case ["group", name, threshold, *members] if members:
                self._room(self.groups, place)
                self._add_group(name, threshold, tuple(members), place)
            case ["quorum", name] if self.quorum is None:
                if name != NO_QUORUM and name not in self._defined:
                    raise _malformed(f"{quoted(name)} is not defined above", place)
                self.quorum = name
            case _:
                raise _malformed(f"a line that begins with {quoted(words[0])} does not look like this", place)

    def _add_group(self, name: str, threshold: str, members: tuple[str, ...], place: str) -> None:
        for member in members:
            if member not in self._defined:
                raise _malformed(f"{quoted(member)} is not defined above", place)
            if member in self._members:
                raise _malformed(f"{quoted(member)} is a member already, and would count twice", place)
            self._members.add(member)
        digits = {"any": "1", "all": str(len(members))}.get(threshold, threshold)
        if not _THRESHOLD.fullmatch(digits) or int(digits) > len(members):
            raise _malformed(f"a group asks for 1 to {len(members)} of its members", place)
        self.groups.append(Group(self._define(name, place), int(digits), members))

    def _define(self, name: str, place: str) -> str:
        if name == NO_QUORUM or name in self._defined:
            raise _malformed(f"the name {quoted(name)} is taken", place)
        self._defined.add(name)
        return name

    @staticmethod
    def _key(text: str, wrong: KeyType, same: _Known, others: _Known, place: str) -> NoteKey:
        try:
            key = NoteKey.parse(text, field=place)
        except IdtraceError as error:
            raise _malformed(f"not a key: {error.detail}", place) from None
        if key.type is wrong:
            raise _malformed("a witness cosigns and a log signs: this key is for the other", place)
        if any(key.raw == known.key.raw for known in others):
            raise _malformed("a log that is its own witness would vouch for itself", place)
        for known in same:
            if key.raw == known.key.raw or (key.name, key.key_id) == (known.key.name, known.key.key_id):
                raise _malformed("this key, or one with its name and id, stands in the file already", place)
        return key

    @staticmethod
    def _room(lines: Sequence[object], place: str) -> None:
        if len(lines) >= POLICY_LINES_MAX:
            raise _malformed(f"more than {POLICY_LINES_MAX} lines of this kind", place)


def _malformed(detail: str, place: str) -> InputError:
    return InputError(Reason.POLICY_MALFORMED, detail, field=place)

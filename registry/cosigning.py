"""What a log asks of its witnesses, and what their answers mean. Pure: told the time, sends nothing.

Checkpoints come faster than witnesses answer. So all are asked about one checkpoint, the *target*, until enough have
cosigned it or nobody's answer is outstanding; then the newest one takes its place, and those between are never sent.
Were each witness asked about whatever is newest when it is free, two that answer at different speeds might never
cosign the same one.

A witness is asked again at once after status 409, which says from where it wants the proof; after a failure it is left
alone for a while, twice as long each time. A cosignature counts only if it verifies. One that comes after the quorum
was met is still added to the published checkpoint, for readers who ask for more than the log does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from idtrace.checkpoint import Checkpoint
from idtrace.errors import IdtraceError, InputError, Reason, quoted
from idtrace.logpolicy import NO_QUORUM, LogPolicy
from idtrace.note import Note, NoteKey, verified_signatures
from idtrace.witnessing import ADD_CHECKPOINT_PATH, SIZE_TYPE, read_cosignatures, read_seen_size

# A witness that is being restarted is asked again before anybody has noticed.
BACK_OFF_SECONDS_MIN: Final = 0.5
# A witness that has been away for an hour is in use again within a minute.
BACK_OFF_SECONDS_MAX: Final = 60.0
# One answer tells the size; if the next one tells another, the witness does not know itself.
STALE_IN_A_ROW_MAX: Final = 2


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to ``add-checkpoint``: this checkpoint, with a proof from the tree of ``old_size``."""

    url: str
    old_size: int
    note: Note
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, media type and body of a witness's answer."""

    status: int
    content_type: str
    body: bytes

    @property
    def media_type(self) -> str:
        """The type without its parameters."""
        return self.content_type.partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Cosigned:
    """The witness has cosigned, and nothing is to be done yet."""


@dataclass(frozen=True, slots=True)
class Stale:
    """The witness has seen a tree of another size than was thought; it is asked again at once."""


@dataclass(frozen=True, slots=True)
class Witnessed:
    """Enough witnesses have cosigned: store this note durably, then publish it."""

    size: int
    note: Note


@dataclass(frozen=True, slots=True)
class Failed:
    """No cosignature; the witness is asked again later."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Forked:
    """The witness has cosigned a tree that this checkpoint does not continue: keep all of it as evidence.

    Attributes:
        detail: one sentence.
        refused: our checkpoint.
        cosigned: the last one of ours that this witness has cosigned, with that cosignature, if it is known.
    """

    detail: str
    refused: Note
    cosigned: Note | None


Heard = Cosigned | Stale | Witnessed | Failed | Forked


@dataclass(slots=True)
class _Seat:
    """One address at which one or several witnesses of the policy are asked, and where we stand with it.

    ``confirmed``: size of the largest tree that it is thought to have seen; ``cosigned``: its last cosignature that we
    hold.
    """

    url: str
    names: set[str] = field(default_factory=set)
    keys: list[NoteKey] = field(default_factory=list)
    confirmed: int = 0
    cosigned: Note | None = None
    cosigned_size: int = 0
    asking: Ask | None = None
    failures: int = 0
    stale_in_a_row: int = 0
    asleep_until: float = 0.0

    def sleep(self, seconds: float, tick: float) -> None:
        self.failures += 1
        self.stale_in_a_row = 0
        self.asleep_until = tick + seconds

    def fail(self, reason: Reason, detail: str, tick: float) -> Failed:
        doublings = min(self.failures, 16)
        self.sleep(min(BACK_OFF_SECONDS_MAX, BACK_OFF_SECONDS_MIN * 2**doublings), tick)
        return Failed(reason, detail)

    def fork(self, ask: Ask, detail: str, tick: float) -> Forked:
        self.confirmed = 0  # it will say again what it has seen, should it have been mended
        self.sleep(BACK_OFF_SECONDS_MAX, tick)
        return Forked(detail, ask.note, self.cosigned)


@dataclass(slots=True)
class _Round:
    """A checkpoint and the cosignatures that have come for it."""

    size: int
    note: Note
    met: bool = False


class Cosigning:
    """The log's side towards all witnesses of a policy. Times: ``now`` s since 1970, ``tick`` s of a steady clock."""

    def __init__(self, policy: LogPolicy) -> None:
        """Take a policy in which every witness has its address.

        Raises:
            InputError: POLICY_MALFORMED (no quorum of witnesses; a witness without an http or https address).
        """
        if policy.quorum == NO_QUORUM:
            raise InputError(Reason.POLICY_MALFORMED, "the quorum of a log's witnesses is 'none'", field="quorum")
        self._policy = policy
        self._seats: dict[str, _Seat] = {}
        for witness in policy.witnesses:
            url = submission_url(witness.url, field=f"witness {witness.name}")
            seat = self._seats.setdefault(url, _Seat(url))
            seat.names.add(witness.name)
            seat.keys.append(witness.key)
        self._newest: _Round | None = None
        self._target: _Round | None = None
        self._published: _Round | None = None

    @property
    def published_size(self) -> int:
        """Size of the last checkpoint that met the quorum."""
        return self._published.size if self._published else 0

    def is_witnessed(self, note: Note, *, now: int) -> bool:
        """Whether the policy's quorum has cosigned this checkpoint.

        Raises:
            VerificationError: COSIGNATURE_INVALID.
        """
        return self._policy.witnessing(note, now=now).met

    def restore(self, note: Note) -> None:
        """Begin with the checkpoint that was published last, before the first one is offered.

        Raises:
            InputError: CHECKPOINT_MALFORMED.
            VerificationError: COSIGNATURE_INVALID.
        """
        size = Checkpoint.parse(note.text).size
        self._published = _Round(size, note, met=True)
        for seat in self._seats.values():
            if verified_signatures(note, seat.keys):
                seat.confirmed = seat.cosigned_size = size
                seat.cosigned = note

    def offer(self, note: Note) -> None:
        """The log has this checkpoint; nothing happens if it is not larger than the last one offered.

        Raises:
            InputError: CHECKPOINT_MALFORMED.
        """
        size = Checkpoint.parse(note.text).size
        if size > max(self._newest.size if self._newest else 0, self.published_size):
            self._newest = _Round(size, note)
        elif self._published and size == self.published_size and self._newest is None:
            self._newest = self._published  # for those who have not cosigned it yet

    def due(self, tick: float) -> tuple[Ask, ...]:
        """The requests that go out now; each has to end in :meth:`heard` or :meth:`silent`."""
        self._choose()
        if self._target is None:
            return ()
        asks = []
        for seat in self._seats.values():
            if self._is_wanted(seat) and seat.asleep_until <= tick:
                checkpoint = Checkpoint.parse(self._target.note.text)
                # The log's own lines alone: a witness has no use for what others have said.
                assert seat.confirmed <= checkpoint.size, "it has seen no more than it was shown, and targets grow"
                seat.asking = Ask(seat.url, seat.confirmed, self._asked_note(), checkpoint)
                asks.append(seat.asking)
        return tuple(asks)

    def wake_at(self) -> float | None:
        """The tick at which the next request is due if nothing is heard until then."""
        return min((seat.asleep_until for seat in self._seats.values() if self._is_wanted(seat)), default=None)

    def silent(self, ask: Ask, detail: str, *, tick: float) -> Failed:
        """A request has brought no answer: no connection, too late, too long."""
        return self._taken(ask).fail(Reason.NO_ANSWER, detail, tick)

    def heard(self, ask: Ask, answer: Answer, *, now: int, tick: float) -> Heard:
        """A request has brought an answer."""
        seat = self._taken(ask)
        if answer.status == 200:
            return self._cosigned(seat, ask, answer.body, now, tick)
        if answer.status == 409 and answer.media_type != SIZE_TYPE and ask.old_size == ask.checkpoint.size:
            return seat.fork(ask, f"it has seen another tree of {ask.old_size}", tick)
        if answer.status == 409:
            return self._stale(seat, ask, answer, tick)
        if answer.status == 422:
            detail = f"it refuses the proof from {ask.old_size} to {ask.checkpoint.size}"
            return seat.fork(ask, detail, tick)
        reason = {403: Reason.SIGNER_UNKNOWN, 404: Reason.LOG_UNKNOWN}.get(answer.status, Reason.NO_ANSWER)
        return seat.fail(reason, f"it answers with status {answer.status}", tick)

    def _choose(self) -> None:
        """Take the newest checkpoint as target unless answers about the present one are outstanding and needed."""
        if self._newest is None or self._newest is self._target:
            return
        outstanding = any(
            seat.asking and self._target and seat.asking.checkpoint.size == self._target.size
            for seat in self._seats.values()
        )
        if self._target is None or self._target.met or not outstanding:
            self._target = self._newest

    def _is_wanted(self, seat: _Seat) -> bool:
        return self._target is not None and seat.asking is None and seat.cosigned_size < self._target.size

    def _asked_note(self) -> Note:
        assert self._target is not None, "there is one"
        note = self._target.note
        witnesses = {(key.name, key.key_id) for seat in self._seats.values() for key in seat.keys}
        return Note(note.text, tuple(one for one in note.signatures if (one.name, one.key_id) not in witnesses))

    def _taken(self, ask: Ask) -> _Seat:
        seat = self._seats[ask.url]
        assert seat.asking is ask, "one request is under way for each witness"
        seat.asking = None
        return seat

    def _cosigned(self, seat: _Seat, ask: Ask, body: bytes, now: int, tick: float) -> Heard:
        try:
            lines = read_cosignatures(body, ask.note, seat.keys)
        except IdtraceError as error:
            return seat.fail(error.reason, error.detail, tick)
        seat.confirmed = ask.checkpoint.size
        note = ask.note.signed(*lines)
        standings = self._policy.witnessing(note, now=now).standings
        if any(one.name in seat.names and one.reason is Reason.COSIGNATURE_FROM_FUTURE for one in standings):
            return seat.fail(Reason.COSIGNATURE_FROM_FUTURE, "it states a time that has not come", tick)
        seat.cosigned, seat.cosigned_size = note, ask.checkpoint.size
        seat.failures = seat.stale_in_a_row = 0
        for known in (self._target, self._published):
            if known is not None and known.size == ask.checkpoint.size >= self.published_size:
                known.note = known.note.signed(*lines)
                if self._policy.witnessing(known.note, now=now).met:
                    known.met = True
                    self._published = known
                    return Witnessed(known.size, known.note)
        return Cosigned()

    @staticmethod
    def _stale(seat: _Seat, ask: Ask, answer: Answer, tick: float) -> Heard:
        try:
            seen_size = _seen_size(answer)
        except InputError as error:
            return seat.fail(error.reason, error.detail, tick)
        size, before = ask.checkpoint.size, seat.cosigned_size
        if seen_size > size:
            return seat.fork(ask, f"it has seen a tree of {seen_size}, and the log has {size}", tick)
        if seen_size == ask.old_size == size:
            return seat.fork(ask, f"it has seen another tree of {size}", tick)
        seat.confirmed = seen_size
        seat.stale_in_a_row += 1
        detail = ""
        if seen_size < before:
            detail = f"it has cosigned {before} and says now that it has seen {seen_size}"
        elif seen_size == ask.old_size or seat.stale_in_a_row > STALE_IN_A_ROW_MAX:
            detail = "it names one size after the other"
        return seat.fail(Reason.ANSWER_CONTRADICTS_ITSELF, detail, tick) if detail else Stale()


def _seen_size(answer: Answer) -> int:
    if answer.media_type != SIZE_TYPE:
        raise InputError(Reason.ANSWER_MALFORMED, f"it answers with status 409 and not with {SIZE_TYPE}")
    return read_seen_size(answer.body)


def submission_url(url: str, *, field: str) -> str:
    """Where a witness takes checkpoints, below the address that the policy gives.

    Raises:
        InputError: POLICY_MALFORMED.
    """
    try:
        parts = urlsplit(url)
        # What the parser passes over (tabs, spaces) or a server never sees (fragments) has no place in an address.
        sound = url.isascii() and url.isprintable() and " " not in url and parts.port != 0
    except ValueError:
        sound = False
    else:
        sound = sound and parts.scheme in {"http", "https"} and bool(parts.hostname)
        sound = sound and not (parts.query or parts.fragment or parts.username is not None)
    if not sound:
        detail = f"{quoted(url)} is no http or https address of a witness"
        raise InputError(Reason.POLICY_MALFORMED, detail, field=field)
    return f"{url.rstrip('/')}/{ADD_CHECKPOINT_PATH}"

"""What verified events say of one thing: the values that provenance makes and that verdicts are made of.

``subject`` and every other name of a thing, place or device here is its *key*: the canonical identifier where the URI
means one (``88.118.8/SN-1``, ``gs1.01.09506000134352/21.S1``), and else the URI itself
(:func:`idtrace.epcis.uris.key`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from idtrace.coldchain.readings import Leg, Reading
from idtrace.epcis.model import Event


@dataclass(frozen=True, slots=True)
class Observed:
    """An event whose record was verified from the root key down.

    Attributes:
        event: what was reported.
        identifier: of its record, ``PARTY/event/HEX``: the evidence.
        party: prefix of the reporting party.
        reported_at: ``issued_at`` of the record, s.
        logged: whether a proof shows it in the party's log.
    """

    event: Event
    identifier: str
    party: str
    reported_at: int
    logged: bool = False


class GapKind(StrEnum):
    """Why something that should be known is not."""

    UNREACHABLE = "unreachable"  # no node answered
    REFUSED = "refused"  # the node says that it will not tell
    BOGUS = "bogus"  # what it gave does not verify
    MISSING = "missing"  # it should be there, and is not
    UNREADABLE = "unreadable"  # what was signed is not what it should be, or of a form that is not known here
    UNFOUNDED = "unfounded"  # a pointer names an event, and its party's zone proves that there is none
    MISFIT = "misfit"  # the event is genuine and says nothing of what the pointer names it for
    BOUND = "bound"  # a limit of this walk was reached


# A pointer is anybody's word. One that names no event, or one about something else, leaves nothing unknown.
IDLE_GAPS: Final = frozenset({GapKind.UNFOUNDED, GapKind.MISFIT})


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that could not be had; shown, never hidden."""

    kind: GapKind
    subject: str  # what was asked for: an identifier, an event's identifier
    detail: str
    node: str = ""


@dataclass(frozen=True, slots=True)
class Inside:
    """The thing was inside a container from an event on until another one (None: as far as is known)."""

    child: str
    container: str
    start_ms: int
    end_ms: int | None
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Holding:
    """The thing was in a party's hands. ``received`` is None where it began with the making."""

    party: str
    start_ms: int
    end_ms: int | None
    place: str
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the time line: an event, seen from the subject.

    Attributes:
        at_ms: event time.
        observed: the event.
        via: what it was reported of: the subject itself, or a container, a source material, a place or a device.
        depth: how many containers lie between (0: the subject itself; -1 and below: what it was made of).
    """

    at_ms: int
    observed: Observed
    via: str
    depth: int


class Clash(StrEnum):
    """In what events contradict each other, or what should be there and is not: :attr:`Contradiction.kind`."""

    TWO_PARENTS = "two_parents"  # packed into one while inside another
    NOT_INSIDE = "not_inside"  # unpacked from where it was not
    CYCLE = "cycle"  # inside itself, through others
    MADE_TWICE = "made_twice"
    NO_SHIPPER = "no_shipper"  # received, and nobody (or not the one it is said to be from) has shipped it
    NO_RECEIPT = "no_receipt"  # shipped, handled or shipped on there, and never received
    WRONG_RECEIVER = "wrong_receiver"
    OVERLAP = "overlap"  # handled or shipped by who had given it away
    STRANGER = "stranger"  # handled by who never had it


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two events that cannot both be true, and in what they contradict each other; ``kind`` is a :class:`Clash`."""

    kind: str
    at_ms: int
    detail: str
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class History:
    """All that the events say of the subject, up to the time of asking."""

    subject: str
    steps: tuple[Step, ...] = ()
    insides: tuple[Inside, ...] = ()
    holdings: tuple[Holding, ...] = ()
    legs: tuple[Leg, ...] = ()
    readings: tuple[Reading, ...] = ()
    contradictions: tuple[Contradiction, ...] = ()
    voided: tuple[Observed, ...] = ()  # taken back by an error declaration
    containers: tuple[str, ...] = ()  # every package it was ever in, the innermost first
    sources: tuple[str, ...] = ()  # what it was made of

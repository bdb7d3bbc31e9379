"""What a verdict is made of: values that were verified, and what could not be had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from idtrace.bundle import Verdict
from idtrace.party import Party
from idtrace.product import Product
from idtrace.provenance.history import Gap, Observed
from idtrace.recall import Recall, Thing
from idtrace.record import Status

# "88.118.8/SN-1" and the URI of a device are keys alike; longer ones are no key of ours.
KEY_CHARACTERS_MAX: Final = 2_048


@dataclass(frozen=True, slots=True)
class Answered:
    """What the tree says of the subject's identifier.

    Attributes:
        verdict: FOUND, ABSENT, GONE, UNREACHABLE or BOGUS.
        status: of the record, where there is one.
        reason: stable reason of every verdict but FOUND.
        version: of the record, 0 for none.
    """

    verdict: Verdict
    status: Status | None = None
    reason: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the engine is told. The same facts give the same verdict, on every machine and at any time.

    Attributes:
        subject: canonical identifier of the dose (or package) that was scanned.
        now_ms: time of judging, UTC.
        answer: whether it is genuine.
        lot, expiry: as its record says, "" for not told; expiry as YYYY-MM-DD, the last day of use, in UTC+8.
        product: None where it names no class or the class tells no product.
        observed: every verified event about the subject, about whatever it was in or came from, and about the places
            and devices it was near; in any order.
        parties: licences by prefix, of all parties that reported or are named.
        recalls: of every zone that has a say (see ``idtrace/recall.py``), those that have ended too.
        recalls_unknown: zones whose recalls could not be had.
        gaps: what else could not be had.
        classes: the class that its record names, that class's own, and so on, whether their records could be had or
            not; () for none, or where only ``product`` says it.
        origins: of what it was made of, what has a record that names a class, each with classes and lot.
    """

    subject: str
    now_ms: int
    answer: Answered
    lot: str = ""
    expiry: str = ""
    product: Product | None = None
    observed: tuple[Observed, ...] = ()
    parties: Mapping[str, Party] = field(default_factory=dict)
    recalls: tuple[Recall, ...] = ()
    recalls_unknown: tuple[str, ...] = ()
    gaps: tuple[Gap, ...] = ()
    classes: tuple[str, ...] = ()
    origins: tuple[Thing, ...] = ()

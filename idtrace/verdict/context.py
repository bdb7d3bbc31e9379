"""What every check is given: the facts, the history made of them, and what several checks ask of both."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from idtrace.bundle import Verdict
from idtrace.coldchain.report import ThermalReport
from idtrace.epcis.lots import master_text
from idtrace.epcis.model import Action, Event, EventType
from idtrace.epcis.uris import key, party_of
from idtrace.errors import InputError
from idtrace.party import PartyRole
from idtrace.product import parse_expiry
from idtrace.provenance.history import History, Step
from idtrace.recall import Thing
from idtrace.verdict.facts import Facts
from idtrace.verdict.findings import Code

DAY_MS: Final = 86_400_000
# Expiry dates are dates of China: the last day of use ends at midnight there.
CHINA_MS: Final = 8 * 3_600_000
_LOOKING: Final = frozenset({PartyRole.AUTHORITY, PartyRole.LABORATORY})
ENDING_STEPS: Final = {"decommissioning": Code.DECOMMISSIONED, "destroying": Code.DESTROYED}
# Dispositions of CBV 2.0, section 7.2, that end the use of a thing and of all that is inside it.
ENDING: Final = {
    "stolen": Code.STOLEN,
    "damaged": Code.DAMAGED,
    "destroyed": Code.DESTROYED,
    "expired": Code.EXPIRED,
    "recalled": Code.RECALLED,
    "disposed": Code.DESTROYED,
}
DOUBTS: Final = frozenset({"non_conformant", "non_sellable_other", "mismatch_instance", "mismatch_class"})
CLEARS: Final = frozenset({"conformant", "active", "sellable_accessible"})
_EPOCH_ORDINAL: Final = dt.date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class Context:
    """Facts and history, and of its steps those about the thing itself or a package that it was in.

    Attributes:
        facts: what was learned.
        history: what its events say.
        thermal: what temperature rules say, None where there is no product and so no rule.
        about: steps of the thing and of its packages, by time.
        own: those that name the thing itself.
        positions: latitude and longitude by key of the place, of the licences.
        strangers: parties that report of it and have no part in it, see :func:`_strangers`.
    """

    facts: Facts
    history: History
    thermal: ThermalReport | None
    about: tuple[Step, ...]
    own: tuple[Step, ...]
    positions: Mapping[str, tuple[float, float]]
    strangers: frozenset[str] = frozenset()

    @classmethod
    def of(cls, facts: Facts, history: History, thermal: ThermalReport | None) -> Context:
        """The context of one judgement."""
        near = {history.subject, *history.containers}
        about = tuple(step for step in history.steps if step.depth >= 0 and step.via in near)
        own = tuple(step for step in about if step.via == history.subject)
        return cls(facts, history, thermal, about, own, _positions(facts), _strangers(facts, history, about))

    @property
    def found(self) -> bool:
        """Whether the identifier has a record."""
        return self.facts.answer.verdict is Verdict.FOUND

    @property
    def lot(self) -> str:
        """The lot, by its record, else by the event that made it; "" where neither says."""
        return self.facts.lot or next((lot for lot, _, _ in self.told() if lot), "")

    @property
    def expiry(self) -> str:
        """The last day of use as YYYY-MM-DD, by its record, else by the event that made it; "" where neither says."""
        return self.facts.expiry or next((expiry for _, expiry, _ in self.told() if expiry), "")

    def made(self) -> Iterator[Step]:
        """The events that say that it was made."""
        for step in self.own:
            event = step.observed.event
            if event.type is EventType.TRANSFORMATION:
                if any(key(uri) == self.history.subject for uri in event.outputs):
                    yield step
            elif event.type is EventType.OBJECT and event.action is Action.ADD and event.biz_step == "commissioning":
                yield step

    def told(self) -> Iterator[tuple[str, str, Step]]:
        """Lot and expiry as the events that made it say, "" for nothing said, by the earliest first."""
        for step in self.made():
            ilmd = step.observed.event.ilmd
            lot, expiry = master_text(ilmd, "lotNumber"), master_text(ilmd, "itemExpirationDate")
            yield lot, day(expiry), step

    def thing(self) -> Thing:
        """What a recall may reach."""
        product = self.facts.product
        classes = self.facts.classes or ((product.identifier,) if product is not None else ("",))
        return Thing(
            self.facts.subject,
            classes[0],
            self.lot,
            self.history.sources,
            tuple(stays(self.history)),
            classes[1:],
            self.facts.origins,
            product.maker if product is not None else "",
        )


def day(text: str) -> str:
    """YYYY-MM-DD of a date, or a time, as it stands in records and events; "" for what is none."""
    try:
        return parse_expiry(text[:10] if text[4:5] == "-" else text)
    except InputError:
        return ""


def ends_ms(expiry: str) -> int:
    """The first millisecond after the last day of use, in China (UTC+8)."""
    return (dt.date.fromisoformat(expiry).toordinal() - _EPOCH_ORDINAL + 1) * DAY_MS - CHINA_MS


def stays(history: History) -> Iterator[tuple[str, int, int | None]]:
    """Every stay of the subject in a container, at any depth: (container, start, end), end None for open."""
    reached: list[tuple[str, int, int | None]] = [(history.subject, -(2**62), None)]
    seen = set(reached)
    while reached:
        child, start, end = reached.pop()
        for inside in history.insides:
            if inside.child != child:
                continue
            first = max(start, inside.start_ms)
            last = inside.end_ms if end is None else end if inside.end_ms is None else min(end, inside.end_ms)
            stay = (inside.container, first, last)
            if (last is None or first < last) and stay not in seen:
                seen.add(stay)
                reached.append(stay)
                yield stay


def doses_of(event: Event) -> int:
    """How many doses a dispensing speaks of: the extension ``idtrace:doses``, else one."""
    for name, value in event.extensions.items():
        if name == "idtrace:doses" or name.endswith(("/doses", "#doses")):
            text = str(value)
            if text.isascii() and text.isdecimal() and int(text[:9]) > 0:
                return int(text[:9])
    return 1


def evidence_of(steps: Iterable[Step]) -> tuple[str, ...]:
    """Identifiers of the events' records, sorted."""
    return tuple(sorted({step.observed.identifier for step in steps}))


def _strangers(facts: Facts, history: History, about: Iterable[Step]) -> frozenset[str]:
    """Parties whose word about this thing is anybody's word.

    They never held it, were not named by a holder as who it goes to or comes from, are neither the owner of its
    identifier nor its maker, and hold no licence as an authority or a laboratory, who look at things of others.
    """
    held = {holding.party for holding in history.holdings}
    named = {
        party_of(end.id)
        for step in about
        if step.observed.party in held
        for end in (*step.observed.event.sources, *step.observed.event.destinations)
    }
    known = held | named | ({facts.product.maker} if facts.product is not None else set())
    strangers = set()
    for prefix in {step.observed.party for step in about} - known:
        party = facts.parties.get(prefix)
        looks = party is not None and party.active and not party.roles.isdisjoint(_LOOKING)
        if not looks and not is_under(facts.subject, prefix):
            strangers.add(prefix)
    return frozenset(strangers)


def is_under(key: str, party: str) -> bool:
    """Whether an identifier lies in a party's zone or below it."""
    prefix = key.partition("/")[0]
    return prefix == party or prefix.startswith(f"{party}.")


def _positions(facts: Facts) -> Mapping[str, tuple[float, float]]:
    return {
        key(place.id): (place.latitude, place.longitude)
        for _, party in sorted(facts.parties.items())
        for place in party.locations
        if place.latitude is not None and place.longitude is not None
    }

"""What is answered of a code, out of verified records and events: state, package, product, lot. Pure.

A resolver answers by it, and whoever asked makes the same answer again of the proofs: nobody has to believe it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from idtrace.bundle import Bundle, Verdict
from idtrace.drugcode.states import Breach, State, makes, standing
from idtrace.epcis.model import EventType
from idtrace.provenance.assemble import history
from idtrace.provenance.history import History, Observed
from idtrace.provenance.seen import Seen, seen, without_voided
from idtrace.provenance.survey import Memo
from idtrace.verdict.context import day
from idtrace.verdict.evidence import facts_of
from idtrace.verdict.facts import Answered

# Dose, box, carton, pallet, container: five levels, and as many again for what nobody has thought of.
LEVELS_MAX = 10


@dataclass(frozen=True, slots=True)
class Entry:
    """One code as it stands; every text is "" and every number 0 where it is not known."""

    key: str
    state: State
    level: int = 0
    parent: str = ""
    product_zh: str = ""
    product_en: str = ""
    lot: str = ""
    expiry: str = ""
    party: str = ""
    at_ms: int = 0
    replaced_by: str = ""
    breaches: tuple[Breach, ...] = ()


@dataclass(slots=True)
class Book:
    """Verified events by whom they name, for many codes."""

    now_ms: int
    about: dict[str, list[Observed]] = field(default_factory=dict)
    memo: Memo = field(default_factory=Memo)

    @classmethod
    def of(cls, observed: Iterable[Observed], now_ms: int) -> Book:
        """A book of these events; what was taken back is not in it."""
        book = cls(now_ms)
        valid, _ = without_voided(observed)
        for one in valid:
            for thing in book.memo.keys(one).things:
                book.about.setdefault(thing, []).append(one)
        return book

    def near(self, key: str) -> list[Observed]:
        """Events about a thing and whatever it was ever packed in."""
        found: dict[str, Observed] = {}
        names, done = [key], {key}
        while names:
            name = names.pop()
            for one in self.about.get(name, ()):
                found[one.identifier] = one
                parent = self.packed(one, name)
                if parent and parent not in done:
                    done.add(parent)
                    names.append(parent)
        return list(found.values())

    def packed(self, one: Observed, name: str) -> str:
        """The package that an event puts a thing in, "" for none."""
        keys = self.memo.keys(one)
        packs = keys.groups and not keys.removes and name in keys.children
        return keys.parent if packs else ""

    def children(self, key: str) -> tuple[str, ...]:
        """What is packed in a thing now, in order."""
        inside: set[str] = set()
        for one in _in_order(self.about.get(key, ())):
            if one.parent != key or one.event.type is not EventType.AGGREGATION:
                continue
            if one.takes_all:
                inside.clear()
            elif one.removes:
                inside -= one.children
            else:  # seen inside is inside, as provenance has it
                inside |= one.children
        return tuple(sorted(inside))

    def level(self, key: str) -> int:
        """1 for what holds nothing, and one more than its first child else."""
        names: list[str] = [key]
        while (inside := self.children(names[-1])) and len(names) < LEVELS_MAX:
            names.append(inside[0])
        return len(names)

    def history(self, key: str) -> History:
        """Of a thing."""
        self.memo.room()
        return history(key, self.near(key), now_ms=self.now_ms, parties={}, memo=self.memo)


def parent_of(told: History) -> str:
    """The innermost package that the subject is in now, "" for none."""
    open_ = [one for one in told.insides if one.child == told.subject and one.end_ms is None]
    return open_[-1].container if open_ else ""


def entry(key: str, papers: Sequence[Bundle], book: Book, unproven: Answered | None = None) -> Entry:
    """How a code stands.

    Args:
        key: its identifier.
        papers: the bundles of its record and its classes.
        book: events.
        unproven: what to say where no bundle is about it.
    """
    facts = facts_of(key, papers, (), now_ms=book.now_ms, unproven=unproven)
    told = book.history(key)
    found = standing(facts.answer.verdict, told)
    if facts.answer.verdict not in (Verdict.FOUND, Verdict.GONE):
        return Entry(key, found.state, breaches=found.breaches)
    master = _master(told)
    product = facts.product
    return Entry(
        key,
        found.state,
        book.level(key),
        parent_of(told),
        product.name_zh if product else "",
        product.name_en if product else "",
        facts.lot or master.get("lot", ""),
        facts.expiry or master.get("expiry", ""),
        found.party,
        found.at_ms,
        found.replaced_by,
        found.breaches,
    )


def _master(told: History) -> Mapping[str, str]:
    """Lot and expiry as the event that made the code says them."""
    for step in told.steps:
        event = step.observed.event
        if step.depth == 0 and makes(event, told.subject):
            lot, expiry = event.ilmd.get("cbvmda:lotNumber", ""), event.ilmd.get("cbvmda:itemExpirationDate", "")
            return {
                "lot": lot if isinstance(lot, str) else "",
                "expiry": day(expiry) if isinstance(expiry, str) else "",
            }
    return {}


def _in_order(observed: Iterable[Observed]) -> list[Seen]:
    return sorted((seen(one) for one in observed), key=lambda one: one.order)

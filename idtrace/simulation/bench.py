"""Puts doses to the verdict engine: facts as a resolver would have gathered them, and what the engine says of them.

The events that concern a dose are chosen by the scopes in which they were told, which is fast; :func:`gathered` chooses
them as a resolver does, by pointers alone, and a test holds that both lead to the same judgement. What doses share
(containers, rooms, vehicles) is worked out once a chain and kept beside it; each dose is judged by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from idtrace.coldchain.alarms import acknowledgements
from idtrace.coldchain.assess import concluded, examine
from idtrace.coldchain.readings import Leg, Reading
from idtrace.coldchain.report import ThermalReport
from idtrace.provenance.assemble import history
from idtrace.provenance.gather import (
    AskPointers,
    EventsFetched,
    FetchEvents,
    Gather,
    Gathered,
    Pointer,
    PointersRead,
    pointers_of,
)
from idtrace.provenance.history import History, Observed
from idtrace.provenance.survey import Memo
from idtrace.simulation.model import Chain, Dose
from idtrace.verdict.facts import Facts
from idtrace.verdict.findings import Judgement
from idtrace.verdict.judge import judge
from idtrace.verdict.policy import Policy


class Bench:
    """One chain at the engine."""

    def __init__(self, chain: Chain, policy: Policy) -> None:
        self.chain = chain
        self.policy = policy
        self._told = frozenset(entry.scope for entry in chain.entries)
        self._observed: dict[frozenset[str], tuple[Observed, ...]] = {}
        self._memo = Memo()
        # The readings stand beside their examination: while they are kept, nothing else can have their identity.
        self._examined: dict[tuple[int, tuple[Leg, ...]], tuple[tuple[Reading, ...], ThermalReport]] = {}

    def facts_for(self, dose: Dose) -> Facts:
        """All that a resolver would learn of a dose."""
        return facts_of(self.chain, dose, self._observed_for(dose))

    def judge(self, dose: Dose) -> Judgement:
        """The engine's word on a dose, with what it shares with others worked out once."""
        facts = self.facts_for(dose)
        made = self.history_of(facts)
        return judge(facts, self.policy, history=made, thermal=self._thermal(facts, made))

    def history_of(self, facts: Facts) -> History:
        """What the events of these facts say."""
        return history(facts.subject, facts.observed, now_ms=facts.now_ms, parties=facts.parties, memo=self._memo)

    def _observed_for(self, dose: Dose) -> tuple[Observed, ...]:
        scopes = dose.scopes & self._told
        known = self._observed.get(scopes)
        if known is None:
            known = tuple(entry.observed for entry in self.chain.entries if entry.scope in scopes)
            self._observed[scopes] = known
        return known

    def _thermal(self, facts: Facts, made: History) -> ThermalReport | None:
        if facts.product is None:
            return None
        place = (id(made.readings), made.legs)
        known = self._examined.get(place)
        if known is None:
            examined = examine(facts.product.profile, made.legs, made.readings, now_ms=facts.now_ms)
            known = self._examined[place] = (made.readings, examined)
        examined = known[1]
        words = acknowledgements(facts.observed) if examined.alarms else ()
        return concluded(facts.subject, examined, words)


def facts_of(chain: Chain, dose: Dose, observed: tuple[Observed, ...]) -> Facts:
    """The facts of a dose with these events."""
    return Facts(
        subject=dose.identifier,
        now_ms=chain.now_ms,
        answer=dose.answer,
        lot=dose.lot,
        expiry=dose.expiry,
        product=chain.product if dose.has_product else None,
        observed=observed,
        parties=chain.parties,
        recalls=chain.recalls,
        recalls_unknown=dose.recalls_unknown,
        gaps=dose.gaps,
    )


class Registry:
    """All pointers of a chain, as the homes of its things would hold them, and its events by identifier."""

    def __init__(self, chain: Chain) -> None:
        observed: Sequence[Observed] = [entry.observed for entry in chain.entries]
        self.events = {one.identifier: one for one in observed}
        self.pointers: dict[str, list[Pointer]] = {}
        for pointer in pointers_of(observed):
            self.pointers.setdefault(pointer.subject, []).append(pointer)


def gathered(chain: Chain, dose: Dose, registry: Registry, memo: Memo | None = None) -> Facts:
    """The facts of a dose with the events that a resolver finds when it follows pointers from the dose's own key."""
    gather = Gather(dose.identifier, now_ms=chain.now_ms, memo=memo)
    effect = gather.begin()
    while not isinstance(effect, Gathered):
        if isinstance(effect, AskPointers):
            found = [
                pointer
                for question in effect.questions
                for pointer in registry.pointers.get(question.subject, ())
                if question.start_ms <= pointer.time_ms <= question.end_ms
            ]
            effect = gather.receive(PointersRead(tuple(found)))
        else:
            assert isinstance(effect, FetchEvents), "a gathering asks, fetches or ends"
            effect = gather.receive(EventsFetched(tuple(registry.events[name] for name in effect.identifiers)))
    return facts_of(chain, dose, effect.observed)

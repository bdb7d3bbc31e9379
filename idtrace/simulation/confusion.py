"""What the engine made of known truth: for each kind of fault how many doses it stopped, and whether it saw why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from idtrace.simulation.bench import Bench
from idtrace.simulation.model import EXPECTED, Chain, Dose, Fault, Trait
from idtrace.verdict.findings import Judgement, Use
from idtrace.verdict.policy import Policy

# Errors that are told one by one; the rest are counted.
ERRORS_KEPT_MAX = 1_000


class Wrong(StrEnum):
    """In what the engine can be wrong about a dose."""

    PASSED = "a faulty dose passed"
    CAUSE_MISSED = "the injected cause is not among the findings"
    SOUND_BLOCKED = "a sound dose is blocked"


@dataclass(frozen=True, slots=True)
class Mistake:
    """One dose about which the engine is wrong, with all that it takes to see it again."""

    wrong: Wrong
    seed: int
    chain: int
    dose: str
    fault: Fault | None
    traits: tuple[Trait, ...]
    judgement: Judgement


@dataclass(slots=True)
class Row:
    """Doses of one kind by verdict, and how many had their cause found."""

    doses: int = 0
    by_use: dict[Use, int] = field(default_factory=lambda: dict.fromkeys(Use, 0))
    cause_found: int = 0

    def add(self, use: Use, *, found: bool) -> None:
        """Count a dose."""
        self.doses += 1
        self.by_use[use] += 1
        self.cause_found += found


@dataclass(slots=True)
class Confusion:
    """The matrix over many chains."""

    chains: int = 0
    doses: int = 0
    faulty: int = 0
    sound: Row = field(default_factory=Row)
    faults: dict[Fault, Row] = field(default_factory=dict)
    traits: dict[Trait, Row] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    mistaken: int = 0

    def add(self, chain: Chain, dose: Dose, judgement: Judgement) -> None:
        """Count a judged dose, and keep what is wrong about it."""
        codes = {finding.code for finding in judgement.findings}
        self.doses += 1
        self.faulty += bool(dose.faults)
        for fault in sorted(dose.faults):
            found = bool(codes & EXPECTED[fault])
            self.faults.setdefault(fault, Row()).add(judgement.use, found=found)
            if judgement.use is Use.USE:
                self._keep(Wrong.PASSED, chain, dose, fault, judgement)
            if not found:
                self._keep(Wrong.CAUSE_MISSED, chain, dose, fault, judgement)
        if not dose.faults:
            self.sound.add(judgement.use, found=True)
            for trait in dose.traits:
                self.traits.setdefault(trait, Row()).add(judgement.use, found=True)
            if judgement.use is not Use.USE:
                self._keep(Wrong.SOUND_BLOCKED, chain, dose, None, judgement)

    def _keep(self, wrong: Wrong, chain: Chain, dose: Dose, fault: Fault | None, judgement: Judgement) -> None:
        self.mistaken += 1
        if len(self.mistakes) < ERRORS_KEPT_MAX:
            traits = tuple(sorted(dose.traits))
            self.mistakes.append(Mistake(wrong, chain.seed, chain.number, dose.identifier, fault, traits, judgement))


def judge_all(chains: Iterable[Chain], policy: Policy) -> Iterator[Confusion]:
    """Every dose of every chain, judged; the matrix so far after each chain, always the same one."""
    confusion = Confusion()
    for chain in chains:
        bench = Bench(chain, policy)
        for dose in chain.doses:
            confusion.add(chain, dose, bench.judge(dose))
        confusion.chains += 1
        yield confusion


def findings_of(judgement: Judgement) -> list[Mapping[str, object]]:
    """A judgement's findings as JSON."""
    return [
        {
            "code": str(finding.code),
            "at_ms": finding.at_ms,
            "values": dict(finding.values),
            "evidence": list(finding.evidence),
            "source": finding.source,
        }
        for finding in judgement.findings
    ]

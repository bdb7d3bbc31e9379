"""``idtrace simulate``: supply chains with known truth, and what the verdict engine makes of every dose in them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import Progress

from idtrace.cli.exits import ExitCode
from idtrace.cli.options import JsonOption, output_of
from idtrace.cli.output import Output, listing, pairs, plain
from idtrace.cli.simulate_files import write_chain
from idtrace.errors import InputError, Reason
from idtrace.simulation.bench import Bench
from idtrace.simulation.chain import DOSES_MAX, DOSES_MIN, simulate
from idtrace.simulation.confusion import Confusion, Mistake, Row, findings_of, judge_all
from idtrace.simulation.model import EXPECTED, Chain, Dose
from idtrace.verdict.findings import Judgement, Use
from idtrace.verdict.policy import Policy
from idtrace.verdict.texts import EN, TITLES, ZH, text

# All kinds of faults come about in some thirty chains; these are judged within half a minute.
CHAINS: Final = 30
DOSES: Final = 200
# A day's work of one core.
CHAINS_MAX: Final = 10_000
# Mistakes that are shown in full; all of them stand in --json.
SHOWN_MAX: Final = 10


def simulate_chains(
    ctx: typer.Context,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same chains.")] = 1,
    chains: Annotated[int, typer.Option("--chains", min=1, max=CHAINS_MAX, help="How many chains.")] = CHAINS,
    doses: Annotated[int, typer.Option("--doses", min=DOSES_MIN, max=DOSES_MAX, help="Doses a chain.")] = DOSES,
    chain: Annotated[int | None, typer.Option("--chain", min=0, metavar="C", help="This chain alone.")] = None,
    dose: Annotated[str | None, typer.Option("--dose", metavar="CODE", help="This dose alone, with --chain.")] = None,
    judge: Annotated[bool, typer.Option("--judge", help="Judge every dose, and compare with the truth.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show the findings and the history of --dose.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write each chain's EPCIS documents and truth.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate vaccine supply chains with injected faults, and judge every dose.

    Example: idtrace simulate --seed 7 --judge

    A faulty dose that passes, a cause that is not found and a sound dose that is blocked end it with exit code 1, and
    each is named with all that it takes to see it again.
    """
    del as_json
    output = output_of(ctx)
    if (dose is not None or explain) and (chain is None or dose is None):
        raise typer.BadParameter("a dose is one of a chain: name both", param_hint="--dose, --chain")
    numbers = range(chains) if chain is None else range(chain, chain + 1)
    made = _made(seed, numbers, doses, out)
    if dose is not None:
        raise typer.Exit(_one(output, next(made), dose, explain=explain))
    if judge:
        raise typer.Exit(_judged(output, made, len(numbers), doses))
    _told(output, made)


def _made(seed: int, numbers: range, doses: int, out: Path | None) -> Iterator[Chain]:
    for number in numbers:
        chain = simulate(seed, number, doses)
        if out is not None:
            write_chain(out, chain)
        yield chain


def _told(output: Output, chains: Iterator[Chain]) -> None:
    table = listing("chain", "product", "codes", "doses", "faulty", "events", "readings", "faults")
    rows: list[dict[str, Any]] = []
    for chain in chains:
        sensors = [element for entry in chain.entries for element in entry.observed.event.sensors]
        row = {
            "chain": chain.number,
            "product": chain.product.name_en,
            "codes": str(chain.scheme),
            "doses": len(chain.doses),
            "faulty": sum(bool(dose.faults) for dose in chain.doses),
            "events": len(chain.entries),
            "readings": sum(len(element.reports) for element in sensors),
            "faults": [str(fault) for fault in chain.injected],
        }
        rows.append(row)
        table.add_row(*(", ".join(each) if isinstance(each, list) else str(each) for each in row.values()))
    output.document({"chains": rows})
    output.show(table)


def _judged(output: Output, chains: Iterator[Chain], count: int, doses: int) -> ExitCode:
    begun = time.perf_counter()
    confusion = Confusion()
    with Progress(console=output.notes, transient=True, disable=output.as_json) as progress:
        task = progress.add_task("chains", total=count)
        for confusion in judge_all(chains, Policy()):  # noqa: B007 - the last one is the whole
            progress.advance(task)
    seconds = time.perf_counter() - begun
    output.document(_as_json(confusion, seconds))
    output.show(_matrix(confusion), "", _summary(confusion, seconds))
    for mistake in confusion.mistakes[:SHOWN_MAX]:
        output.show("", _mistake(mistake, doses))
    return ExitCode.PROVEN_NO if confusion.mistaken else ExitCode.OK


def _matrix(confusion: Confusion) -> Any:
    table = listing("", "doses", "USE", "HOLD", "DO NOT USE", "cause found", "finding expected")
    for trait, row in sorted(confusion.traits.items()):
        table.add_row(*_cells(f"sound: {trait}", row), "", "")
    table.add_row(*_cells("sound: all", confusion.sound), "", "", style="bold")
    for fault, row in sorted(confusion.faults.items(), key=lambda each: list(EXPECTED).index(each[0])):
        found = "yes" if row.cause_found == row.doses else f"NO: {row.doses - row.cause_found} not"
        style = "" if row.cause_found == row.doses and not row.by_use[Use.USE] else "red"
        table.add_row(*_cells(str(fault), row), found, " | ".join(sorted(EXPECTED[fault])), style=style)
    return table


def _cells(name: str, row: Row) -> list[str]:
    return [name, f"{row.doses:,}", *(f"{row.by_use[use]:,}" if row.by_use[use] else "·" for use in Use)]


def _summary(confusion: Confusion, seconds: float) -> Any:
    blocked = confusion.sound.doses - confusion.sound.by_use[Use.USE]
    return pairs(
        [
            ("chains", f"{confusion.chains:,}"),
            ("doses", f"{confusion.doses:,}, of which {confusion.faulty:,} faulty by {len(confusion.faults)} kinds"),
            ("faulty passed", f"{sum(row.by_use[Use.USE] for row in confusion.faults.values()):,}"),
            ("causes missed", f"{sum(row.doses - row.cause_found for row in confusion.faults.values()):,}"),
            ("sound blocked", f"{blocked:,} of {confusion.sound.doses:,}"),
            ("time", f"{seconds:.1f} s, {1000 * seconds / max(1, confusion.doses):.2f} ms a dose"),
        ]
    )


def _mistake(mistake: Mistake, doses: int) -> Any:
    again = (
        f"idtrace simulate --seed {mistake.seed} --doses {doses} --chain {mistake.chain} --dose {mistake.dose}"
        " --judge --explain"
    )
    return pairs(
        [
            ("wrong", str(mistake.wrong)),
            ("truth", str(mistake.fault) if mistake.fault else f"sound ({', '.join(mistake.traits) or 'plain'})"),
            ("verdict", TITLES[mistake.judgement.use][EN]),
            ("findings", ", ".join(finding.code for finding in mistake.judgement.findings) or "none"),
            ("again", again),
        ]
    )


def _one(output: Output, chain: Chain, code: str, *, explain: bool) -> ExitCode:
    dose = next((each for each in chain.doses if code in {each.identifier, each.uri}), None)
    if dose is None:
        detail = f"chain {chain.number} of seed {chain.seed} has no dose {code}"
        raise InputError(Reason.FIELD_MALFORMED, detail, field="--dose")
    bench = Bench(chain, Policy())
    judgement = bench.judge(dose)
    confusion = Confusion()
    confusion.add(chain, dose, judgement)
    output.document(
        {
            "dose": dose.identifier,
            "faults": sorted(dose.faults),
            "traits": sorted(dose.traits),
            "use": judgement.use.name,
            "findings": findings_of(judgement),
            "mistakes": [str(mistake.wrong) for mistake in confusion.mistakes],
        }
    )
    output.show(_verdict(dose, judgement))
    if explain:
        output.show("", _time_line(bench, dose))
    return ExitCode.PROVEN_NO if confusion.mistaken else ExitCode.OK


def _verdict(dose: Dose, judgement: Judgement) -> Any:
    truth = ", ".join(sorted(dose.faults)) or f"sound ({', '.join(sorted(dose.traits)) or 'plain'})"
    rows: list[tuple[str, Any]] = [
        ("dose", dose.identifier),
        ("truth", truth),
        ("verdict", " ".join(TITLES[judgement.use])),
    ]
    for finding in judgement.findings:
        rows.append((finding.code, plain(text(finding, EN))))
        rows.append(("", plain(text(finding, ZH))))
    return pairs(rows)


def _time_line(bench: Bench, dose: Dose) -> Any:
    table = listing("time (UTC)", "step", "by", "of", "disposition")
    for step in bench.history_of(bench.facts_for(dose)).steps:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(step.at_ms / 1000))
        event = step.observed.event
        table.add_row(at, event.biz_step, step.observed.party, plain(step.via), event.disposition)
    return table


def _as_json(confusion: Confusion, seconds: float) -> dict[str, Any]:
    def row(of: Row) -> dict[str, Any]:
        by_use = {use.name: count for use, count in of.by_use.items()}
        return {"doses": of.doses, **by_use, "cause_found": of.cause_found}

    return {
        "chains": confusion.chains,
        "doses": confusion.doses,
        "faulty": confusion.faulty,
        "mistaken": confusion.mistaken,
        "seconds": round(seconds, 3),
        "sound": row(confusion.sound),
        "traits": {str(trait): row(of) for trait, of in sorted(confusion.traits.items())},
        "faults": {str(fault): row(of) for fault, of in sorted(confusion.faults.items())},
        "mistakes": [
            {
                "wrong": str(mistake.wrong),
                "seed": mistake.seed,
                "chain": mistake.chain,
                "dose": mistake.dose,
                "fault": str(mistake.fault or ""),
                "use": mistake.judgement.use.name,
                "findings": findings_of(mistake.judgement),
            }
            for mistake in confusion.mistakes
        ],
    }

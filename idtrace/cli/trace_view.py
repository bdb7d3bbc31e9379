"""A history as a person reads it: packages as a tree, hands and places, and every event with what was measured."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from idtrace.bundle import Verdict
from idtrace.cli.output import listing, plain
from idtrace.cli.show import verdict_line
from idtrace.coldchain.readings import Reading
from idtrace.epcis import uris
from idtrace.epcis.model import Action
from idtrace.party import Party
from idtrace.provenance.history import Gap, GapKind, History, Inside, Step
from idtrace.provenance.seen import MEASURED

# Below this many columns the year and the words that a reader can do without are left out.
WIDE: Final = 110
_GAPS: Final = {
    GapKind.UNREACHABLE: "nobody answered",
    GapKind.REFUSED: "a node refused",
    GapKind.BOGUS: "does not verify",
    GapKind.MISSING: "named, and not there",
    GapKind.UNREADABLE: "cannot be read",
    GapKind.UNFOUNDED: "there is no such event",
    GapKind.MISFIT: "says nothing of it",
    GapKind.BOUND: "a limit was reached",
}


@dataclass(frozen=True, slots=True)
class Trail:
    """A history with what stands around it; ``at_ms`` is the time of asking."""

    history: History
    verdict: Verdict
    gaps: tuple[Gap, ...]
    parties: Mapping[str, Party]
    at_ms: int


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: an event, or a run of measurements of one thing that follow each other."""

    steps: tuple[Step, ...]
    readings: tuple[Reading, ...]

    @property
    def step(self) -> Step:
        """The first of them."""
        return self.steps[0]


def trail_view(trail: Trail, width: int, *, with_tree: bool, with_table: bool) -> Iterator[RenderableType]:
    """The whole answer; times are UTC."""
    history, wide = trail.history, width >= WIDE
    yield verdict_line(trail.verdict, history.subject)
    if with_tree and history.steps:
        yield from ("", _packages(history, wide=wide))
        yield from ("", _hands(trail, wide=wide))
    if with_table and history.steps:
        yield from ("", _events(trail, wide=wide))
    if history.contradictions:
        yield from ("", _contradictions(history))
    if history.voided:
        yield from (
            "",
            Text(f"{len(history.voided)} events were taken back, or take one back; they count for nothing."),
        )
    if trail.gaps:
        yield from ("", _missing(trail.gaps))
    proven = sum(step.observed.logged for step in history.steps)
    told = f"{len(history.steps)} events verified here from the root key, {proven} of them shown in their log; UTC"
    yield from ("", Text(told if history.steps else "no event is known of it", style="dim"), "")


def lines(history: History) -> list[Line]:
    """Events in order of time; measurements of one thing that nothing else comes between are one line."""
    measured: dict[str, list[Reading]] = {}
    for reading in history.readings:
        measured.setdefault(reading.evidence, []).append(reading)
    runs: list[list[Step]] = []
    for step in history.steps:
        last = runs[-1][-1] if runs else None
        if last is not None and _measures(last) and _measures(step) and _alike(last, step):
            runs[-1].append(step)
        else:
            runs.append([step])
    return [
        Line(tuple(run), tuple(one for step in run for one in measured.get(step.observed.identifier, ())))
        for run in runs
    ]


def degrees(readings: Sequence[Reading]) -> str:
    """``2.5…7.9``, or "" for none; what a probe itself calls an error is none."""
    values = [one.celsius for one in readings if not one.error]
    if not values:
        return ""
    low, high = min(values), max(values)
    return _decimal(low) if low == high else f"{_decimal(low)}…{_decimal(high)}"


def trail_json(trail: Trail) -> dict[str, Any]:
    """The whole history for a program; times are RFC 3339, UTC."""
    history = trail.history
    measured: dict[str, list[Reading]] = {}
    for reading in history.readings:
        measured.setdefault(reading.evidence, []).append(reading)
    return {
        "subject": history.subject,
        "verdict": trail.verdict,
        "asked_at": _iso(trail.at_ms),
        "steps": [_step_json(step, measured.get(step.observed.identifier, ())) for step in history.steps],
        "inside": [
            {
                "what": one.child,
                "container": one.container,
                **_span_json(one.start_ms, one.end_ms),
                "evidence": [*one.evidence],
            }
            for one in history.insides
        ],
        "custody": [
            {
                "party": one.party,
                **_span_json(one.start_ms, one.end_ms),
                "place": one.place,
                "evidence": [*one.evidence],
            }
            for one in history.holdings
        ],
        "legs": [
            {"mode": one.mode, **_span_json(one.start_ms, one.end_ms), "custodian": one.custodian, "place": one.place}
            for one in history.legs
        ],
        "sources": [*history.sources],
        "contradictions": [
            {"kind": one.kind, "at": _iso(one.at_ms), "detail": one.detail, "evidence": [*one.evidence]}
            for one in history.contradictions
        ],
        "voided": [one.identifier for one in history.voided],
        "gaps": [
            {"kind": one.kind, "subject": one.subject, "detail": one.detail, "node": one.node} for one in trail.gaps
        ],
    }


def _packages(history: History, *, wide: bool) -> Tree:
    """Dose in box in carton in pallet in truck, each with its times."""
    root = Tree(Text(plain(history.subject), style="bold"), guide_style="dim")
    if not history.insides:
        root.add(Text("in no package that anybody has told of", style="dim"))
    _grow(root, history.subject, history.insides, None, wide=wide, depth=0)
    for source in history.sources:
        root.add(Text.assemble(("made of ", "dim"), plain(source)))
    return root


def _grow(
    branch: Tree, child: str, insides: Sequence[Inside], window: Inside | None, *, wide: bool, depth: int
) -> None:
    for inside in insides:
        if inside.child != child or (window is not None and not _overlap(window, inside)) or depth > len(insides):
            continue
        during = (_when(inside.start_ms, wide=wide), " → ", _when(inside.end_ms, wide=wide))
        twig = branch.add(Text.assemble(("in ", "dim"), plain(inside.container), "  ", ("".join(during), "cyan")))
        _grow(twig, inside.container, insides, inside, wide=wide, depth=depth + 1)


def _hands(trail: Trail, *, wide: bool) -> Table:
    """Each leg of the way: mode, in whose hands, where, and between which temperatures."""
    table = listing("from", "until", "", "in the hands of", "where", "°C")
    for column in table.columns[:3]:
        column.no_wrap = True
    for leg in trail.history.legs:
        during = [one for one in trail.history.readings if leg.start_ms <= one.time_ms <= leg.end_ms]
        last = leg.end_ms >= trail.at_ms
        table.add_row(
            Text(_when(leg.start_ms, wide=wide), style="cyan"),
            Text("now" if last else _when(leg.end_ms, wide=wide), style="cyan"),
            leg.mode.value,
            _name(leg.custodian, trail.parties, wide=wide) if leg.custodian else Text("on its way", style="dim"),
            plain(leg.place) if leg.place else Text("not told", style="dim"),
            degrees(during) or Text("none read", style="yellow"),
        )
    return table


def _events(trail: Trail, *, wide: bool) -> Table:
    table = listing("time", "what", "who", "of or at", "°C", "proof")
    for index in (0, 5):
        table.columns[index].no_wrap = True
    for line in lines(trail.history):
        step = line.step
        logged = all(one.observed.logged for one in line.steps)
        table.add_row(
            Text(_when(step.at_ms, wide=wide), style="cyan"),
            _what(line),
            _name(step.observed.party, trail.parties, wide=wide),
            _where(step, trail.history.subject, wide=wide),
            degrees(line.readings),
            Text("✓ logged" if logged and wide else "✓ log" if logged else "✓ signed" if wide else "✓", style="green"),
        )
    return table


def _what(line: Line) -> Text:
    event = line.step.observed.event
    text = Text(plain(event.biz_step) or plain(event.type.value))
    if event.action is Action.DELETE and not event.biz_step.startswith("un"):
        text.append(" (ends)")
    if len(line.steps) > 1:
        text.append(f", {len(line.steps)} times")
    if event.disposition and event.disposition not in {"active", "in_progress", "in_transit"}:
        text.append(f", {plain(event.disposition)}", style="bold")
    return text


def _where(step: Step, subject: str, *, wide: bool) -> Text:
    """What was reported of, where it is not the thing itself, and the place."""
    event = step.observed.event
    of = "" if step.via == subject else plain(step.via)
    if step.depth < 0:
        of = f"{of} (source)"
    if event.parent and uris.key(event.parent) != step.via:
        parent = f"{'←' if event.action is Action.DELETE else '→'} {plain(uris.key(event.parent))}"
        return Text(f"{of} {parent}" if of and wide else parent)
    place = plain(uris.key(event.biz_location or event.read_point)) if event.biz_location or event.read_point else ""
    if place == of or (of and not wide):
        place = ""
    return Text.assemble(of, " at " if of and place else "", (place, "" if of else "dim"))


def _contradictions(history: History) -> Table:
    table = Table.grid(padding=(0, 2))
    for one in history.contradictions:
        table.add_row(Text("✗ contradiction", style="bold red"), Text(f"{one.kind}: {plain(one.detail)}"))
    return table


def _missing(gaps: Sequence[Gap]) -> Table:
    table = Table.grid(padding=(0, 2))
    for gap in gaps:
        what = Text.assemble(
            plain(gap.subject), ": ", plain(gap.detail), (f" ({plain(gap.node)})" if gap.node else "", "dim")
        )
        table.add_row(Text(f"? {_GAPS[gap.kind]}", style="bold yellow"), what)
    return table


def _name(prefix: str, parties: Mapping[str, Party], *, wide: bool) -> Text:
    party = parties.get(prefix)
    if party is None or not wide:
        return Text(plain(prefix))
    return Text.assemble(plain(party.name_zh or party.name_en, 40), (f" {plain(prefix)}", "dim"))


def _measures(step: Step) -> bool:
    return step.observed.event.biz_step == MEASURED


def _alike(one: Step, other: Step) -> bool:
    return (one.via, one.observed.party) == (other.via, other.observed.party)


def _overlap(one: Inside, other: Inside) -> bool:
    return (other.end_ms is None or one.start_ms <= other.end_ms) and (
        one.end_ms is None or other.start_ms <= one.end_ms
    )


def _decimal(value: Decimal) -> str:
    return f"{value.quantize(Decimal('0.1')):f}"


def _when(at_ms: int | None, *, wide: bool) -> str:
    if at_ms is None:
        return "now"
    return _time(at_ms).strftime("%Y-%m-%d %H:%M" if wide else "%m-%d %H:%M")


def _time(at_ms: int) -> dt.datetime:
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=at_ms)


def _iso(at_ms: int) -> str:
    return _time(at_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _span_json(start_ms: int, end_ms: int | None) -> dict[str, str | None]:
    return {"from": _iso(start_ms), "until": None if end_ms is None else _iso(end_ms)}


def _step_json(step: Step, readings: Sequence[Reading]) -> dict[str, Any]:
    event = step.observed.event
    celsius = [one.celsius for one in readings if not one.error]
    return {
        "at": _iso(step.at_ms),
        "event": step.observed.identifier,
        "type": event.type,
        "action": event.action,
        "biz_step": event.biz_step,
        "disposition": event.disposition,
        "party": step.observed.party,
        "via": step.via,
        "depth": step.depth,
        "read_point": event.read_point,
        "biz_location": event.biz_location,
        "logged": step.observed.logged,
        "readings": len(readings),
        "celsius_min": str(min(celsius)) if celsius else None,
        "celsius_max": str(max(celsius)) if celsius else None,
    }

"""An audit's report: for a person on the screen, for a program as JSON, for a file as one page of HTML."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import RenderableType
from rich.text import Text

from idtrace.audit import Grade
from idtrace.auditing.findings import LogReport, Notice, Outcome
from idtrace.cli.output import listing, pairs, plain
from idtrace.cli.show import utc

# A screen holds so many; --json and --report have all that were kept.
SHOWN_MAX: Final = 20
_WORDS: Final = {
    Outcome.CONSISTENT: ("✓", "CONSISTENT", "bold green"),
    Outcome.MISBEHAVIOUR: ("✗", "MISBEHAVIOUR", "bold white on red"),
    Outcome.UNCLEAR: ("?", "COULD NOT TELL", "bold yellow"),
}
_GRADES: Final = {Grade.MISBEHAVIOUR: ("✗", "bold red"), Grade.UNCLEAR: ("?", "yellow")}
# Notices in the order in which they matter.
_RANK: Final = {Grade.MISBEHAVIOUR: 0, Grade.UNCLEAR: 1}

Paths = Mapping[str, str]
"""Where evidence was written, by its name."""


def view(report: LogReport, evidence: Paths) -> list[RenderableType]:
    """One log's report as a person reads it."""
    mark, word, style = _WORDS[report.outcome]
    head = Text.assemble((f"{mark} {word} ", style), (plain(report.origin or report.url), "bold"))
    rows = [(name, plain(value)) for name, value in _facts(report)]
    parts: list[RenderableType] = [head, pairs(rows)]
    parts += [Text.assemble(("  ✓ ", "green"), plain(line)) for line in report.checked]
    if report.notices:
        table = listing("", "where", "finding")
        for notice in _sorted(report.notices)[:SHOWN_MAX]:
            sign, colour = _GRADES[notice.grade]
            finding = Text(plain(notice.detail)).append(f"  {notice.reason}", style=colour)
            if notice.evidence is not None:
                finding.append(f"\nevidence: {evidence.get(notice.evidence.name, '')}", style="bold")
            table.add_row(Text(sign, style=colour), Text(plain(notice.place)), finding)
        parts += ["", table]
        more = report.broken - min(SHOWN_MAX, len(report.notices))
        parts += [Text(f"and {more} more", style="dim")] if more else []
    return parts


def as_json(report: LogReport, evidence: Paths) -> dict[str, Any]:
    """One log's report for programs."""
    return {
        "origin": report.origin,
        "url": report.url,
        "zones": list(report.zones),
        "outcome": report.outcome.name.lower(),
        "size": report.size,
        "root": report.root.hex(),
        "seen_size": report.seen_size,
        "entries": report.entries,
        "sampled": report.sampled,
        "identifiers": report.identifiers,
        "seconds": round(report.seconds, 3),
        "cosigned": list(report.cosigned),
        "checked": report.checked,
        "found": report.broken,
        "findings": [
            {
                "place": notice.place,
                "grade": notice.grade,
                "reason": notice.reason,
                "detail": notice.detail,
                "evidence": evidence.get(notice.evidence.name, "") if notice.evidence else "",
            }
            for notice in _sorted(report.notices)
        ],
    }


def as_html(reports: Sequence[LogReport], evidence: Paths, moment: int) -> str:
    """A page that needs nothing but itself."""
    body = "\n".join(_section(report, evidence) for report in reports)
    return _PAGE.format(when=html.escape(utc(moment)), body=body)


def _section(report: LogReport, evidence: Paths) -> str:
    _, word, _ = _WORDS[report.outcome]
    facts = "".join(f"<tr><th>{_safe(name)}</th><td>{_safe(value)}</td></tr>" for name, value in _facts(report))
    checked = "".join(f"<li>{_safe(line)}</li>" for line in report.checked)
    rows = "".join(_row(notice, evidence) for notice in _sorted(report.notices))
    table = f"<table><tr><th>grade<th>where<th>finding<th>rule<th>evidence</tr>{rows}</table>" if rows else ""
    more = report.broken - len(report.notices)
    beyond = f"<p>and {more} more findings, which are counted and not kept</p>" if more else ""
    return (
        f'<section><h2 class="{report.outcome.name.lower()}">{word}: {_safe(report.origin or report.url)}</h2>'
        f"<table>{facts}</table><h3>In order</h3><ul>{checked}</ul>"
        f"<h3>Findings: {report.broken}</h3>{table}{beyond}</section>"
    )


def _row(notice: Notice, evidence: Paths) -> str:
    path = evidence.get(notice.evidence.name, "") if notice.evidence else ""
    cells = (notice.grade, notice.place, notice.detail, notice.reason, path)
    return f'<tr class="{notice.grade}">' + "".join(f"<td>{_safe(cell)}</td>" for cell in cells) + "</tr>"


def _facts(report: LogReport) -> list[tuple[str, str]]:
    rate = f", {report.entries / report.seconds:,.0f} a second" if report.entries and report.seconds else ""
    read = "drawn by chance" if report.sampled else "read and replayed"
    facts = [
        ("zones", ", ".join(report.zones) or "none"),
        ("address", report.url),
        ("checkpoint", f"{report.size} entries, root {report.root.hex()}" if report.root else "none"),
        ("seen before", "nothing" if report.seen_size is None else f"{report.seen_size} entries"),
        (read, f"{report.entries} entries in {report.seconds:.1f} s{rate}"),
    ]
    return [*facts, ("identifiers", str(report.identifiers))] if report.identifiers else facts


def _sorted(notices: Sequence[Notice]) -> list[Notice]:
    return sorted(notices, key=lambda notice: _RANK[notice.grade])


def _safe(text: str) -> str:
    return html.escape(plain(text, limit=2_000))


_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Audit of {when}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; overflow-wrap: anywhere }}
th {{ font-weight: 600; color: #555; white-space: nowrap }}
h2 {{ padding: .4rem .8rem; border-radius: .3rem; color: #fff; background: #777; overflow-wrap: anywhere }}
h2.consistent {{ background: #1a7f37 }} h2.misbehaviour {{ background: #c01c28 }} h2.unclear {{ background: #9a6700 }}
tr.misbehaviour td:first-child {{ color: #c01c28; font-weight: 600 }}
tr.unclear td:first-child {{ color: #9a6700; font-weight: 600 }}
</style></head><body>
<h1>Audit of {when}</h1>
{body}
</body></html>
"""

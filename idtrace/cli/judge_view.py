"""A verdict on one screen: whether, why in words, what it rests on. The word says it; the colour only helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from rich.align import Align
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.text import Text

from idtrace.cli.output import pairs, plain
from idtrace.cli.show import span, unfollowed_text, utc
from idtrace.verdict.findings import Finding, Use
from idtrace.verdict.statement import VerdictReport
from idtrace.verdict.texts import EN, TITLES, ZH, text

# Of one finding; --json and the saved file have them all.
EVIDENCE_SHOWN: Final = 3
_STYLES: Final = {Use.USE: "bold white on green", Use.HOLD: "bold black on yellow", Use.DO_NOT_USE: "bold white on red"}
_MARKS: Final = {Use.USE: ("·", "green"), Use.HOLD: ("!", "bold yellow"), Use.DO_NOT_USE: ("✗", "bold red")}


class Language(StrEnum):
    """In which languages reasons are shown."""

    EN = "en"
    ZH = "zh"
    BOTH = "both"


_SHOWN: Final = {Language.EN: (EN,), Language.ZH: (ZH,), Language.BOTH: (EN, ZH)}


def verdict_view(
    report: VerdictReport, language: Language, origin: Mapping[str, Any], warned: Sequence[str] = ()
) -> list[RenderableType]:
    """A verdict that has been judged again here; ``warned`` says why it is no leave to use it all the same."""
    judgement, facts = report.judgement, report.facts
    assert judgement is not None, "only valid reports are shown"
    assert facts is not None, "the same"
    title = "   ".join(TITLES[judgement.use][one] for one in _SHOWN[language])
    style = _STYLES[judgement.use]
    if warned:
        title, style = f"{title}\nas the file says, and no leave to use it now", "bold black on yellow"
    product = facts.product
    names = [] if product is None else [(product.name_en, product.name_zh)[one] for one in _SHOWN[language]]
    head: list[tuple[str, RenderableType]] = [
        ("code", Text(plain(judgement.subject), style="bold")),
        ("product", plain(" ".join(names)) if names else "unknown"),
        ("lot", plain(facts.lot) or "unknown"),
        ("expires", facts.expiry or "unknown"),
    ]
    shown: list[RenderableType] = [
        Panel(Align.center(Text(title, justify="center")), style=style),
        *(Text(f"! {one}", style="bold yellow") for one in warned),
        pairs(head),
        "",
        *(_reason(one, report.policy.severity(one.code), language) for one in judgement.findings),
    ]
    if not judgement.findings:
        shown.append(Text("Nothing speaks against it, and all of its history is known.", style="green"))
    return [*shown, "", *_footer(report, origin), ""]


def _reason(finding: Finding, severity: Use, language: Language) -> RenderableType:
    mark, style = _MARKS[severity]
    first, *others = (plain(text(finding, one)) for one in _SHOWN[language])
    lines: list[RenderableType] = [Text.assemble((f"{mark} ", style), (first, "bold"))]
    lines += [Padding(Text(other), (0, 0, 0, 2)) for other in others]
    when = utc(finding.at_ms // 1000) + "  " if finding.at_ms is not None and finding.at_ms >= 0 else ""
    dim = f"{when}{finding.code}  {plain(finding.source)}"
    lines.append(Padding(Text(dim, style="dim"), (0, 0, 0, 2)))
    for one in finding.evidence[:EVIDENCE_SHOWN]:
        lines.append(Padding(Text(plain(one), style="dim", overflow="fold"), (0, 0, 0, 4)))
    more = len(finding.evidence) - EVIDENCE_SHOWN
    if more > 0:
        lines.append(Padding(Text(f"and {more} more", style="dim"), (0, 0, 0, 4)))
    return Group(*lines)


def _footer(report: VerdictReport, origin: Mapping[str, Any]) -> list[RenderableType]:
    judgement = report.judgement
    assert judgement is not None, "as above"
    proofs = next((check.detail for check in report.checks if check.name == "proofs"), "")
    age = f", {span(origin['age_ms'] / 1000)} old" if origin.get("age_ms") else ""
    lines: list[RenderableType] = [
        Text(f"judged again here of {proofs}; {plain(str(origin['source']))}{age}", style="dim"),
        Text(f"as of {utc(judgement.now_ms // 1000)}, policy {judgement.policy[:16]}", style="dim"),
    ]
    if judgement.until_ms is not None:
        lines.append(Text(f"time alone may change it at {utc(judgement.until_ms // 1000)}", style="dim"))
    if origin.get("unfollowed_ms") is not None:
        lines.append(unfollowed_text(origin["unfollowed_ms"]))
    return lines


def verdict_json(report: VerdictReport, origin: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a program."""
    judgement, facts = report.judgement, report.facts
    assert judgement is not None, "only valid reports are shown"
    assert facts is not None, "the same"
    product = facts.product
    return {
        "identifier": judgement.subject,
        "use": judgement.use.name,
        "product": {"en": product.name_en, "zh": product.name_zh} if product else None,
        "lot": facts.lot,
        "expiry": facts.expiry,
        "findings": [
            {
                "code": one.code,
                "severity": report.policy.severity(one.code).name,
                "at_ms": one.at_ms,
                "en": text(one, EN),
                "zh": text(one, ZH),
                "evidence": list(one.evidence),
                "source": one.source,
            }
            for one in judgement.findings
        ],
        "policy": judgement.policy,
        "now_ms": judgement.now_ms,
        "until_ms": judgement.until_ms,
        "checks": [
            {"name": check.name, "passed": check.passed, "made": check.made, "detail": check.detail}
            for check in report.checks
        ],
        **origin,
    }

"""What ``idtrace trace`` shows: runs of measurements as one line, gaps and contradictions in words, nothing raw."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from rich.console import Console

from idtrace.bundle import Verdict
from idtrace.cli import trace as command
from idtrace.cli.exits import ExitCode, Failure
from idtrace.cli.trace_view import Trail, degrees, lines, trail_json, trail_view
from idtrace.coldchain.readings import Reading
from idtrace.party import PartyRole
from idtrace.provenance.assemble import history
from idtrace.provenance.history import Gap, GapKind, Observed
from idtrace.v1 import resolver_pb2 as pb
from tests.capture_fixtures import a_party
from tests.unit.provenance.story import (
    BOX,
    CLINIC,
    DOSE,
    FRIDGE,
    MAKER,
    about,
    at,
    chain,
    made,
    measured,
    packed,
    taken_back,
    unpacked,
)


def trail(*events: Observed, gaps: tuple[Gap, ...] = (), verdict: Verdict = Verdict.FOUND) -> Trail:
    parties = {MAKER: a_party(MAKER, PartyRole.MAKER)}
    made_of = history(DOSE, events, now_ms=at(1000), parties=parties)
    return Trail(made_of, verdict, gaps, parties, at(1000))


def shown(found: Trail, width: int = 120, **parts: bool) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - closed with the test
    console.print(*trail_view(found, width, **({"with_tree": True, "with_table": True} | parts)), sep="\n")
    console.file.close()
    return console.export_text()


def test_measurements_that_nothing_comes_between_are_one_line_with_their_range() -> None:
    runs = [measured(MAKER, minute, DOSE, (minute, str(2 + minute / 10))) for minute in (1, 2, 3)]
    other = measured(CLINIC, 4, DOSE, (4, "9"))
    found = trail(made(0, DOSE), *runs, other, about(MAKER, 5, "storing", DOSE), measured(MAKER, 6, DOSE, (6, "3")))
    assert [len(line.steps) for line in lines(found.history)] == [1, 3, 1, 1, 1]
    text = shown(found)
    assert "sensor_reporting, 3 times" in text
    assert "2.1…2.3" in text


def test_what_a_probe_calls_an_error_is_no_temperature() -> None:
    sound = Reading(1, Decimal("4.04"), "d", "e")
    assert degrees([]) == ""
    assert degrees([sound]) == "4.0"
    assert degrees([sound, replace(sound, celsius=Decimal(99), error=True)]) == "4.0"
    assert degrees([replace(sound, error=True)]) == ""


@pytest.mark.parametrize("width", [80, 120])
def test_the_whole_chain_fits_its_width_and_says_where_there_is_no_reading(width: int) -> None:
    text = shown(trail(*chain()), width)
    assert max(map(len, text.splitlines())) <= width
    assert "none read" in text
    assert "in 88.118.30/TRUCK-1" in text
    assert ("Maker" in text or "疫苗厂" in text) == (width >= 110)


def test_gaps_contradictions_and_what_was_taken_back_are_said_in_words() -> None:
    gaps = tuple(Gap(kind, f"{CLINIC}/event/{kind}", "detail \x1b[31m", "10.0.0.1:7000") for kind in GapKind)
    wrong = about(MAKER, 20, "storing", DOSE, biz_location=FRIDGE)
    found = trail(
        made(0, DOSE),
        packed(MAKER, 5, BOX, DOSE),
        packed(MAKER, 50, f"{MAKER}/BOX-9", DOSE),
        unpacked(MAKER, 90, f"{MAKER}/BOX-9", DOSE, step="staging_outbound"),
        wrong,
        taken_back(wrong, 30),
        gaps=gaps,
    )
    text = shown(found, 200)
    for words in (
        "nobody answered",
        "a node refused",
        "does not verify",
        "named, and not there",
        "a limit was reached",
    ):
        assert words in text
    assert "two_parents" in text
    assert "2 events were taken back" in text
    assert "staging_outbound (ends)" in text
    assert "\x1b" not in text
    body = trail_json(found)
    assert [gap["kind"] for gap in body["gaps"]] == [gap.kind for gap in gaps]
    assert len(body["voided"]) == 2
    assert body["steps"][0]["at"] == "2025-10-09T08:53:20.000Z"


def test_a_thing_without_events_and_packages_says_so() -> None:
    assert "no event is known of it" in shown(trail(verdict=Verdict.ABSENT))
    assert "in no package" in shown(trail(made(0, DOSE)))
    bulk = about(MAKER, -5, "inspecting", "urn:bulk")
    assert "made of urn:bulk" in shown(trail(bulk, _filled("urn:bulk")))
    assert "(source)" in shown(trail(bulk, _filled("urn:bulk")))


def _filled(source: str) -> Observed:
    from idtrace.epcis.model import EventType
    from tests.unit.provenance.story import make

    return make(MAKER, EventType.TRANSFORMATION, 0, inputs=[source], outputs=[DOSE])


class Torn:
    """A stream of a trace that ends as it is told to."""

    def __init__(self, parts: list[Any], error: Exception | None = None) -> None:
        self.parts, self.error = parts, error

    def unary_stream(self, *_: Any, **__: Any) -> Any:
        def call(request: Any, timeout: float) -> Any:
            yield from self.parts
            if self.error is not None:
                raise self.error

        return call

    def unary_unary(self, *_: Any, **__: Any) -> Any:
        return None


class Silent(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "gone"

    def trailing_metadata(self) -> tuple[()]:
        return ()


def node(parts: list[Any], error: Exception | None = None) -> Any:
    return SimpleNamespace(channel=Torn(parts, error), timeout_seconds=1.0, address="10.0.0.1:7000")


END = pb.TraceResponse(summary=pb.TraceSummary(subject=DOSE))
GAP = pb.TraceResponse(gap=pb.TraceGap(kind="missing", subject=DOSE, detail="denied"))


def test_a_stream_that_breaks_off_or_never_ends_is_no_history(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command.ask(node([GAP, END]), DOSE) == [GAP, END]
    for parts in ([], [GAP], [END, GAP]):
        with pytest.raises(Failure) as torn:
            command.ask(node(parts), DOSE)
        assert torn.value.code is ExitCode.UNREACHABLE
    with pytest.raises(Failure) as silent:
        command.ask(node([GAP], Silent()), DOSE)
    assert silent.value.code is ExitCode.UNREACHABLE
    monkeypatch.setattr(command, "PARTS_MAX", 3)
    with pytest.raises(Failure):
        command.ask(node([GAP] * 5 + [END]), DOSE)

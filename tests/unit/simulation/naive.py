"""A checker of its own for simulated chains: lists and loops over raw events, nothing of the engine's.

It knows no tolerances but a handover's, and no rules but those of a plain good chain.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise

from idtrace.epcis.model import Action, Event, EventType
from idtrace.epcis.uris import key
from idtrace.simulation.model import MINUTE_MS, Chain, Dose

HANDOVER_MS = 10 * MINUTE_MS


def events_of(chain: Chain, dose: Dose) -> list[tuple[str, Event]]:
    """Reporter and event, without what was taken back, in order of time."""
    told = [entry.observed for entry in chain.entries if entry.scope in dose.scopes]
    taken_back = [(one.party, one.event.time_ms, one.event.event_id) for one in told if one.event.error]
    standing = [one for one in told if (one.party, one.event.time_ms, one.event.event_id) not in taken_back]
    return sorted(((one.party, one.event) for one in standing), key=lambda each: each[1].time_ms)


def complaints(chain: Chain, dose: Dose) -> Iterator[str]:
    """What a plain good chain would not have."""
    events = events_of(chain, dose)
    packages = _packages(events, dose)
    yield from _made(events, dose)
    yield from _handed_over(events, packages)
    yield from _cold(chain, events, packages)


def _packages(events: list[tuple[str, Event]], dose: Dose) -> set[str]:
    """The dose and all that it was ever in."""
    inside = {dose.identifier}
    packed = [event for _, event in events if event.type is EventType.AGGREGATION and event.action is Action.ADD]
    for _ in range(6):
        inside |= {key(event.parent) for event in packed if inside & {key(child) for child in event.children}}
    return inside


def _made(events: list[tuple[str, Event]], dose: Dose) -> Iterator[str]:
    made = [
        event
        for _, event in events
        if event.biz_step == "commissioning" and dose.identifier in {key(uri) for uri in (*event.epcs, *event.outputs)}
    ]
    if len(made) != 1:
        yield f"made {len(made)} times"
        return
    if made[0].ilmd["cbvmda:lotNumber"] != dose.lot or made[0].ilmd["cbvmda:itemExpirationDate"] != dose.expiry:
        yield "its record and its making name different lots or expiries"


def _handed_over(events: list[tuple[str, Event]], packages: set[str]) -> Iterator[str]:
    holder, towards = "", ""
    for party, event in events:
        if not packages & {key(uri) for uri in (*event.epcs, *event.outputs)}:
            continue
        match event.biz_step:
            case "commissioning" | "void_shipping":
                holder, towards = party, ""
            case "shipping":
                if holder != party:
                    yield f"{party} ships what {holder} has"
                holder, towards = "", event.destinations[0].id.removeprefix("idtrace:")
            case "receiving":
                if towards != party:
                    yield f"{party} receives what was sent to {towards or 'nobody'}"
                holder, towards = party, ""
            case "storing" | "dispensing" if holder != party:
                yield f"{party} has what {holder} holds"
    if towards:
        yield "still on its way"


def _stays(chain: Chain, events: list[tuple[str, Event]], packages: set[str]) -> Iterator[tuple[str, int, int, bool]]:
    """Where it was, from when until when, and whether that is a vehicle."""
    place, since, on_the_way = "", 0, False
    for _, event in events:
        about = packages & {key(uri) for uri in (*event.epcs, *event.outputs)}
        loaded = event.biz_step == "loading" and packages & {key(child) for child in event.children}
        if loaded or (about and event.biz_step in {"commissioning", "receiving"}):
            if place:
                yield place, since, event.time_ms, on_the_way
            place = key(event.parent or event.biz_location)
            since, on_the_way = event.time_ms, bool(loaded)
    yield place, since, chain.now_ms, on_the_way


def _cold(chain: Chain, events: list[tuple[str, Event]], packages: set[str]) -> Iterator[str]:
    """Never far beyond the label, and never silent where it was."""
    profile = chain.product.profile
    for place, start_ms, end_ms, on_the_way in _stays(chain, events, packages):
        allowed_ms = (6 if on_the_way else 31) * MINUTE_MS
        within = sorted(one for one in _readings(events, place) if start_ms <= one[0] <= end_ms)
        times = [start_ms, *(time_ms for time_ms, _ in within), end_ms]
        for one_ms, next_ms in pairwise(times):
            at_an_end = one_ms == start_ms or next_ms == end_ms
            if next_ms - one_ms > max(allowed_ms, HANDOVER_MS if at_an_end else 0):
                yield f"silent for {(next_ms - one_ms) // MINUTE_MS} minutes at {place}"
        for _, celsius in within:
            if not profile.low - 4 <= celsius <= profile.high + 4:
                yield f"{celsius} °C at {place}"


def _readings(events: list[tuple[str, Event]], place: str) -> Iterator[tuple[int, Decimal]]:
    for _, event in events:
        if key(event.read_point) == place:
            for element in event.sensors:
                for report in element.reports:
                    assert report.time_ms is not None
                    assert report.value is not None
                    yield report.time_ms, report.value

"""How parties report: events with their clocks, record identifiers and the scope of whom they concern."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from idtrace.epcis.model import Action, Event, EventType, SensorElement, Typed
from idtrace.provenance.history import Observed
from idtrace.simulation.climate import Point, Probe, element
from idtrace.simulation.model import SECOND_MS, Entry
from idtrace.simulation.network import Site

CHINA_MINUTES: Final = 8 * 60
# A report is captured within minutes of what it tells.
_DELAY_SECONDS_MAX: Final = 300


@dataclass(slots=True)
class Voice:
    """Writes down what parties say, in the order in which they say it."""

    label: str  # of the chain: makes the identifiers of its events its own
    random: Random
    entries: list[Entry] = field(default_factory=list)

    def say(
        self, site: Site, at_ms: int, scope: str, kind: EventType, action: Action | None, step: str, **fields: Any
    ) -> Event:  # fmt: skip
        """One event by a party at a true time, told on the party's clock."""
        told_ms = at_ms + site.skew_ms
        event_id = f"urn:uuid:{_uuid(self.label, len(self.entries))}"
        event = Event(
            kind, action, told_ms, CHINA_MINUTES, biz_step=step, **{"event_id": event_id, **fields}
        )  # fmt: skip
        self.add(site, event, scope)
        return event

    def add(self, site: Site, event: Event, scope: str) -> None:
        """An event that was made already, as this party's."""
        digest = hashlib.sha256(f"{self.label}/{len(self.entries)}".encode()).hexdigest()
        reported_at = event.time_ms // SECOND_MS + self.random.randint(1, _DELAY_SECONDS_MAX)
        observed = Observed(event, f"{site.prefix}/event/{digest}", site.prefix, reported_at, logged=True)
        self.entries.append(Entry(scope, observed))

    def observe(self, site: Site, at_ms: int, scope: str, step: str, things: Sequence[str], **fields: Any) -> Event:
        """An ObjectEvent that observes things."""
        return self.say(site, at_ms, scope, EventType.OBJECT, Action.OBSERVE, step, epcs=tuple(things), **fields)

    def pack(
        self, site: Site, at_ms: int, scope: str, parent: str, children: Iterable[str], step: str = "packing",
        **fields: Any,
    ) -> Event:  # fmt: skip
        """Things go into a package or onto a vehicle."""
        given = {"parent": parent, "children": tuple(children), **fields}
        return self.say(site, at_ms, scope, EventType.AGGREGATION, Action.ADD, step, **given)

    def unpack(
        self, site: Site, at_ms: int, scope: str, parent: str, children: Iterable[str], step: str = "unpacking",
        **fields: Any,
    ) -> Event:  # fmt: skip
        """They come out; without children, all of them."""
        given = {"parent": parent, "children": tuple(children), **fields}
        return self.say(site, at_ms, scope, EventType.AGGREGATION, Action.DELETE, step, **given)

    def sense(
        self, site: Site, scope: str, probes: Sequence[Probe], place: str, points_max: int, **fields: Any
    ) -> None:
        """What probes have recorded, in events of so many readings a probe, each at the time of its last reading."""
        longest = max((probe.points for probe in probes), key=len)
        for first in range(0, len(longest), points_max):
            elements = tuple(on_clock(site, probe, probe.points[first : first + points_max]) for probe in probes)
            last_ms = longest[min(first + points_max, len(longest)) - 1][0]
            self.observe(site, last_ms, scope, "sensor_reporting", (), read_point=place, sensors=elements, **fields)


def on_clock(site: Site, probe: Probe, points: Sequence[Point], uom: str = "CEL") -> SensorElement:
    """What a probe of this party recorded, on the party's clock."""
    return element(probe, [(time_ms + site.skew_ms, tenths) for time_ms, tenths in points], uom=uom)


def possessing(site: Site) -> tuple[Typed, ...]:
    """A source or destination list with this party in it."""
    return (Typed("possessing_party", site.uri),)


def _uuid(label: str, number: int) -> str:
    digest = hashlib.sha256(f"uuid/{label}/{number}".encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}"

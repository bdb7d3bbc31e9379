"""One sound dose, made, shipped, received and kept cold; every test spoils one thing of it.

The dose is made by 88.118.8 (Shanghai) at hour 0, shipped to the clinic 88.118.9 at hour 2, received at hour 3, and
measured every ten minutes until it is judged at hour 5.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from idtrace.bundle import Verdict
from idtrace.coldchain.profiles import BUILT_IN
from idtrace.epcis.model import Action, Event, EventType, SensorElement, SensorMetadata, SensorReport, Typed
from idtrace.party import Location, LocationKind, Party, PartyRole
from idtrace.product import Product
from idtrace.provenance.history import Observed
from idtrace.record import Status
from idtrace.verdict.facts import Answered, Facts
from idtrace.verdict.findings import Code, Finding, Judgement, Use
from idtrace.verdict.judge import judge
from idtrace.verdict.policy import Policy

HOUR = 3_600_000
MINUTE = 60_000
T0 = 1_780_000_000_000  # 2026-05-28
DOSE = "88.118.8/SN-1"
DOSE_URI = "idtrace:88.118.8/SN-1"
MAKER, CLINIC, CARRIER, OTHER = "88.118.8", "88.118.9", "88.118.7", "88.118.6"
CLASS = "88.118.8/class/v1"
POLICY = Policy()
SITES = {MAKER: ("31.2304", "121.4737"), CLINIC: ("31.3", "121.5"), OTHER: ("39.9042", "116.4074")}


def site(party: str) -> str:
    return f"idtrace:{party}/site"


def party(prefix: str, *roles: PartyRole, **changes: Any) -> Party:
    at = SITES.get(prefix)
    places = (Location(site(prefix), LocationKind.SITE, float(at[0]), float(at[1])),) if at else ()
    made = Party(
        prefix, prefix, prefix, frozenset(roles), places, T0 // 1000 - 86_400, T0 // 1000 + 400 * 86_400,
        evidence=f"88.118/party/{prefix}",
    )  # fmt: skip
    return replace(made, **changes)


def observed(event: Event, by: str, reported_at: int | None = None) -> Observed:
    digest = hashlib.sha256(repr((by, event)).encode()).hexdigest()
    return Observed(
        event, f"{by}/event/{digest}", by, event.time_ms // 1000 + 1 if reported_at is None else reported_at
    )


def event(
    at_ms: int, step: str = "", by: str = MAKER, *, type_: EventType = EventType.OBJECT, **fields: Any
) -> Observed:
    reported_at = fields.pop("reported_at", None)
    given = {"action": Action.OBSERVE, "epcs": (DOSE_URI,), "read_point": site(by), "biz_step": step} | fields
    return observed(Event(type=type_, time_ms=at_ms, offset_minutes=480, **given), by, reported_at)


def made(at_ms: int = T0, by: str = MAKER, **fields: Any) -> Observed:
    return event(at_ms, "commissioning", by, **({"action": Action.ADD, "biz_location": site(by)} | fields))


def shipped(at_ms: int, by: str, to: str) -> Observed:
    ends = (Typed("possessing_party", f"idtrace:{to}"),)
    return event(at_ms, "shipping", by, disposition="in_transit", destinations=ends)


def received(at_ms: int, by: str, sender: str) -> Observed:
    ends = (Typed("possessing_party", f"idtrace:{sender}"),)
    return event(at_ms, "receiving", by, sources=ends, biz_location=site(by))


def dispensed(at_ms: int, by: str = CLINIC, **fields: Any) -> Observed:
    return event(at_ms, "dispensing", by, disposition="dispensed", **fields)


def measured(start_ms: int, end_ms: int, by: str, celsius: str | None = None, every_ms: int = 5 * MINUTE) -> Observed:
    reports, time = [], start_ms
    while time <= end_ms:
        # A living probe: no two readings in a row are the same.
        value = Decimal(celsius) if celsius else Decimal("4.0") + Decimal(time // every_ms % 5) / 10
        reports.append(SensorReport("Temperature", time_ms=time, device_id="urn:probe:1", value=value, uom="CEL"))
        time += every_ms
    element = SensorElement(SensorMetadata(), tuple(reports))
    return event(end_ms, "sensor_reporting", by, sensors=(element,), read_point="")


def product(**changes: Any) -> Product:
    made = Product(CLASS, "Vaccine", "疫苗", MAKER, 1, 0, BUILT_IN["2-8"])
    return replace(made, **changes)


@dataclass
class Story:
    """A dose's facts on the way; change a field and judge."""

    events: list[Observed] = field(
        default_factory=lambda: [
            made(),
            shipped(T0 + 2 * HOUR, MAKER, CLINIC),
            received(T0 + 3 * HOUR, CLINIC, MAKER),
            measured(T0, T0 + 2 * HOUR, MAKER),
            measured(T0 + 2 * HOUR, T0 + 5 * HOUR, CLINIC),
        ]
    )
    now_ms: int = T0 + 5 * HOUR
    changes: dict[str, Any] = field(default_factory=dict)

    def facts(self) -> Facts:
        parties = {
            MAKER: party(MAKER, PartyRole.MAKER),
            CLINIC: party(CLINIC, PartyRole.CLINIC),
            CARRIER: party(CARRIER, PartyRole.CARRIER),
            OTHER: party(OTHER, PartyRole.CLINIC),
        }
        facts = Facts(
            DOSE, self.now_ms, Answered(Verdict.FOUND, Status.ACTIVE, version=1), "L1", "2027-05-31", product(),
            tuple(self.events), parties,
        )  # fmt: skip
        return replace(facts, **self.changes)

    def judged(self, policy: Policy = POLICY) -> Judgement:
        return judge(self.facts(), policy)

    def finding(self, code: Code) -> Finding | None:
        return next((one for one in self.judged().findings if one.code is code), None)

    def has(self, code: Code) -> bool:
        return self.finding(code) is not None


def story(*more: Observed, now_ms: int = T0 + 5 * HOUR, **changes: Any) -> Story:
    told = Story(now_ms=now_ms, changes=changes)
    told.events.extend(more)
    return told


def codes(told: Story) -> list[Code]:
    return [one.code for one in told.judged().findings]


def use(told: Story) -> Use:
    return told.judged().use

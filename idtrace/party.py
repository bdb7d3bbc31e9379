"""Parties: who may report what. A party's licence is a record in its *parent's* zone, ``88.118/party/88.118.8``.

So nobody licenses itself: the parent's record key signs it, its log has it, and a suspension reaches every resolver
like any other change. The record has one value of type ``idtrace.party``, canonical JSON::

    {"name": {"en": …, "zh": …}, "party": "88.118.8", "roles": ["maker"],
     "locations": [{"id": URI, "kind": "site", "lat": "31.2304", "lon": "121.4737"}],
     "valid_from": seconds, "valid_until": seconds}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NoReturn

from idtrace import canonical
from idtrace.errors import InputError, Reason, VerificationError
from idtrace.identifier import Identifier, Prefix
from idtrace.record import TIME_MAX, VALUE_BYTES_MAX, Record, RecordBody, Status

PARTY_TYPE: Final = "idtrace.party"
PARTY_PATH: Final = "party/"
# A value has 4,096 bytes, and a place without coordinates takes 60 of them: a party with more sites has more zones.
LOCATIONS_MAX: Final = 64
NAME_CHARS_MAX: Final = 200
LOCATION_ID_MAX: Final = 255
# What happened on a licence's last day is reported by the end of the next.
LATE_SECONDS: Final = 86_400
# Degrees as text, so that no reader rounds them: 7 decimals are a centimetre.
_DEGREES: Final = re.compile(r"-?(0|[1-9][0-9]{0,2})(\.[0-9]{1,7})?\Z")
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]+\Z")


class PartyRole(StrEnum):
    """What a party does in the chain (Vaccine Administration Law 2019; DB31/T 1206-2020: the parties)."""

    MAKER = "maker"  # 上市许可持有人: commissions, fills, packs, ships
    DISTRIBUTOR = "distributor"  # CDC of a province or district, wholesaler: receives, stores, repacks, ships
    CARRIER = "carrier"  # third-party logistics: transports and measures, never opens
    CLINIC = "clinic"  # 接种单位: receives, stores, dispenses
    LABORATORY = "laboratory"  # inspects, samples
    AUTHORITY = "authority"  # recalls, holds, inspects


# What anybody does who has goods or watches over them.
_WATCHING: Final = frozenset(
    {"sensor_reporting", "inspecting", "holding", "installing", "removing", "entering_exiting", "other"}
)
# Who transports never opens (GSP 附录 5, DB31/T 1206-2020); it takes over, moves, measures and hands over.
_MOVING: Final = frozenset({"accepting", "loading", "departing", "transporting", "arriving", "unloading"})
_KEEPING: Final = frozenset(
    {
        "receiving", "storing", "stocking", "stock_taking", "cycle_counting", "picking", "reserving", "replacing",
        "collecting", "packing", "unpacking", "shipping", "void_shipping", "staging_outbound", "consigning", "sampling",
        "decommissioning", "destroying",
    }
)  # fmt: skip
_MAKING: Final = frozenset(
    {
        "commissioning", "encoding", "creating_class_instance", "assembling", "disassembling", "transforming",
        "repackaging", "repairing", "killing",
    }
)  # fmt: skip
# Which role reports which bizStep (CBV 2.0, section 7.1; Vaccine Administration Law 2019, articles 36 to 41 and 45: who
# stores, transports, hands over and gives vaccines). Given and never sold over a counter: retail_selling is nobody's.
STEPS_OF_ROLE: Final[Mapping[PartyRole, frozenset[str]]] = MappingProxyType(
    {
        PartyRole.MAKER: _WATCHING | _MOVING | _KEEPING | _MAKING,
        PartyRole.DISTRIBUTOR: _WATCHING | _MOVING | _KEEPING | {"repackaging"},
        PartyRole.CARRIER: _WATCHING | _MOVING,
        PartyRole.CLINIC: _WATCHING | _MOVING | _KEEPING | {"dispensing"},
        PartyRole.LABORATORY: _WATCHING | {"receiving", "accepting", "storing", "unpacking", "sampling", "destroying"},
        PartyRole.AUTHORITY: _WATCHING | {"sampling", "collecting", "decommissioning", "destroying"},
    }
)
RULED_STEPS: Final = frozenset({"retail_selling"}).union(*STEPS_OF_ROLE.values())


def is_late_word(party: Party, reported_at: int) -> bool:
    """Whether something was reported (UTC, s) so long after the licence ended that its date is but a claim."""
    return reported_at >= party.valid_until + LATE_SECONDS


def may_report(roles: Iterable[PartyRole], biz_step: str) -> bool:
    """Whether one of these roles may report this bizStep (bare CBV word).

    "" and steps of somebody else's vocabulary say nothing to us, so there is no rule for them.
    """
    return biz_step not in RULED_STEPS or any(biz_step in STEPS_OF_ROLE[role] for role in roles)


class LocationKind(StrEnum):
    """What a location is; a vehicle has no fixed place."""

    SITE = "site"
    ROOM = "room"
    VEHICLE = "vehicle"


@dataclass(frozen=True, slots=True)
class Location:
    """A place of a party: URI, kind, and WGS 84 degrees (None for a vehicle, or where it is not told)."""

    id: str
    kind: LocationKind
    latitude: float | None = None
    longitude: float | None = None


@dataclass(frozen=True, slots=True)
class Party:
    """A licence. ``prefix`` is the party's zone, times are s since the epoch, ``evidence`` the licence's identifier."""

    prefix: str
    name_en: str
    name_zh: str
    roles: frozenset[PartyRole]
    locations: tuple[Location, ...]
    valid_from: int
    valid_until: int
    active: bool = True  # the record's status
    evidence: str = ""


def license_identifier(parent: Prefix, party: Prefix) -> Identifier:
    """Where a party's licence stands: ``88.118/party/88.118.8``."""
    return Identifier.parse(f"{parent}/{PARTY_PATH}{party}")


def format_party(party: Party) -> bytes:
    """The value of a licence; status and evidence are the record's and not the value's.

    Raises:
        InputError: what :func:`parse_party` would say of it.
    """
    locations: list[canonical.Json] = [_location(place) for place in party.locations]
    data = canonical.encode(
        {
            "name": {"en": party.name_en, "zh": party.name_zh},
            "party": party.prefix,
            "roles": sorted(party.roles),
            "locations": locations,
            "valid_from": party.valid_from,
            "valid_until": party.valid_until,
        }
    )
    parse_party(data)
    return data


def parse_party(data: bytes, *, active: bool = True, evidence: str = "", field: str = "party") -> Party:
    """Read the value of a licence strictly.

    Raises:
        InputError: naming field and rule.
    """
    if len(data) > VALUE_BYTES_MAX:
        raise InputError(Reason.FIELD_TOO_LARGE, f"a licence has at most {VALUE_BYTES_MAX} bytes", field=field)
    fields = canonical.decode(data, field=field)
    name = fields.object("name")
    party = Party(
        prefix=str(fields.prefix("party")),
        name_en=name.text("en", least=1, most=NAME_CHARS_MAX),
        name_zh=name.text("zh", most=NAME_CHARS_MAX),
        roles=_roles(fields, field),
        locations=tuple(_place(place) for place in fields.objects("locations", most=LOCATIONS_MAX)),
        valid_from=fields.integer("valid_from", most=TIME_MAX),
        valid_until=fields.integer("valid_until", most=TIME_MAX),
        active=active,
        evidence=evidence,
    )
    name.end()
    fields.end()
    if not party.prefix:
        _refuse("a party has a zone of its own, and the root is nobody's", f"{field}.party")
    if party.valid_from >= party.valid_until:
        _refuse("a licence ends after it has begun", f"{field}.valid_until")
    if len({place.id for place in party.locations}) < len(party.locations):
        _refuse("a place stands once in a licence", f"{field}.locations")
    return party


def read_license(record: Record, body: RecordBody) -> Party:
    """The licence in a verified record of a party's parent.

    Raises:
        InputError: the record has not exactly one value of a licence, or what :func:`parse_party` says.
        VerificationError: RECORD_WRONG_IDENTIFIER where it licenses another party than its identifier names.
    """
    types = {digest.index: digest.type for digest in body.values}
    found = [value.data for value in record.values if types.get(value.index) == PARTY_TYPE]
    if len(found) != 1:
        _refuse(f"a licence has one value of type {PARTY_TYPE}", "party")
    party = parse_party(found[0], active=body.status is Status.ACTIVE, evidence=str(body.identifier))
    if body.identifier.suffix != PARTY_PATH + party.prefix:
        detail = f"{body.identifier} licenses {party.prefix}"
        raise VerificationError(Reason.RECORD_WRONG_IDENTIFIER, detail, field="party.party")
    return party


def check_place(place: Location, *, field: str = "location") -> Location:
    """A place that may stand in a licence, as it was given.

    Raises:
        InputError: FIELD_MALFORMED or FIELD_TOO_LARGE.
    """
    if len(place.id) > LOCATION_ID_MAX:
        raise InputError(Reason.FIELD_TOO_LARGE, f"a place's URI has at most {LOCATION_ID_MAX} characters", field=field)
    if _URI.match(place.id) is None:
        _refuse("a place is named by a URI", f"{field}.id")
    if (place.latitude is None) != (place.longitude is None):
        _refuse("latitude and longitude go together", field)
    if place.latitude is not None and place.kind is LocationKind.VEHICLE:
        _refuse("a vehicle has no fixed place", field)
    return place


def degrees(text: str, most: int, *, field: str) -> float:
    """WGS 84 degrees within ``-most`` and ``most``, of decimal text with at most 7 decimals.

    Raises:
        InputError: FIELD_MALFORMED.
    """
    if _DEGREES.match(text) is None or not -most <= float(text) <= most:
        _refuse(f"degrees are a decimal number within -{most} and {most} with at most 7 decimals", field)
    return float(text)


def _place(fields: canonical.Fields) -> Location:
    lat, lon = fields.optional_text("lat", most=12), fields.optional_text("lon", most=12)
    place = Location(
        id=fields.text("id", least=1, most=LOCATION_ID_MAX),
        kind=fields.choice("kind", LocationKind),
        latitude=degrees(lat, 90, field=fields.path("lat")) if lat else None,
        longitude=degrees(lon, 180, field=fields.path("lon")) if lon else None,
    )
    fields.end()
    return check_place(place, field=fields.path("id").removesuffix(".id"))


def _location(place: Location) -> dict[str, canonical.Json]:
    body: dict[str, canonical.Json] = {"id": place.id, "kind": place.kind}
    for name, value in (("lat", place.latitude), ("lon", place.longitude)):
        if value is not None:
            body[name] = f"{value:.7f}".rstrip("0").rstrip(".")
    return body


def _roles(fields: canonical.Fields, field: str) -> frozenset[PartyRole]:
    texts = fields.texts("roles", least=1, most=len(PartyRole))
    for position, text in enumerate(texts):
        if text not in tuple(PartyRole):
            _refuse(f"is not one of {', '.join(PartyRole)}", f"{field}.roles[{position}]")
    if texts != sorted(set(texts)):
        _refuse("roles stand once each, in the order of the alphabet", f"{field}.roles")
    return frozenset(PartyRole(text) for text in texts)


def _refuse(rule: str, field: str) -> NoReturn:
    raise InputError(Reason.FIELD_MALFORMED, rule, field=field)

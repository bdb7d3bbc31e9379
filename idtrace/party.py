"""Parties: who may report what. A party's licence is a record in its *parent's* zone, ``88.118/party/88.118.8``.

So nobody licenses itself: the parent's record key signs it, its log has it, and a suspension reaches every resolver
like any other change. The record has one value of type ``idtrace.party``, canonical JSON::

    {"name": {"en": …, "zh": …}, "party": "88.118.8", "roles": ["maker"],
     "locations": [{"id": URI, "kind": "site", "lat": "31.2304", "lon": "121.4737"}],
     "valid_from": seconds, "valid_until": seconds}
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

PARTY_TYPE: Final = "idtrace.party"
PARTY_PATH: Final = "party/"


class PartyRole(StrEnum):
    """What a party does in the chain (Vaccine Administration Law 2019; DB31/T 1206-2020: the parties)."""

    MAKER = "maker"  # 上市许可持有人: commissions, fills, packs, ships
    DISTRIBUTOR = "distributor"  # CDC of a province or district, wholesaler: receives, stores, repacks, ships
    CARRIER = "carrier"  # third-party logistics: transports and measures, never opens
    CLINIC = "clinic"  # 接种单位: receives, stores, dispenses
    LABORATORY = "laboratory"  # inspects, samples
    AUTHORITY = "authority"  # recalls, holds, inspects


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

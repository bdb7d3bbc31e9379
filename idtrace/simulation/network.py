"""The parties of a chain: a maker, the CDCs of a province and a district, clinics, a carrier; licences and clocks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from idtrace.party import Location, LocationKind, Party, PartyRole
from idtrace.simulation.geography import MAKERS, PROVINCES, City, beside
from idtrace.simulation.model import SECOND_MS

ZONE: Final = "88.118"
MAKER: Final = "88.118.8"
PROVINCE: Final = "88.118.20"
DISTRICT: Final = "88.118.30"
CARRIER: Final = "88.118.40"
# Licensed as any distributor, and has nothing to do with the chain.
STRANGER: Final = "88.118.60"
_FIRST_CLINIC: Final = 100
# Warehouse systems are set by hand or once a day: two of them differ by up to four minutes.
SKEW_SECONDS_MAX: Final = 120
# More than ever are on the road at once.
_VEHICLES: Final = 16
_YEAR_SECONDS: Final = 365 * 86_400


@dataclass(slots=True)
class Site:
    """A party at work: its prefix, city, cold room or refrigerator, and how far its clock is ahead."""

    prefix: str
    role: PartyRole
    city: City
    skew_ms: int
    name_en: str
    name_zh: str

    @property
    def uri(self) -> str:
        """The party, as events write it."""
        return f"idtrace:{self.prefix}"

    @property
    def room(self) -> str:
        """Its cold room, as events write it."""
        return f"idtrace:{self.prefix}/room/1"

    def vehicle(self, number: int) -> str:
        """One of its vehicles."""
        return f"idtrace:{self.prefix}/vehicle/{number}"

    def device(self, name: str) -> str:
        """One of its probes or loggers."""
        return f"idtrace:{self.prefix}/probe/{name}"


@dataclass(slots=True)
class Network:
    """All parties of a chain, and their licences as they will be told."""

    maker: Site
    province: Site
    district: Site
    carrier: Site
    stranger: Site
    clinics: list[Site]
    random: Random
    begin_ms: int
    parties: dict[str, Party] = field(default_factory=dict)

    def clinic(self) -> Site:
        """A further clinic within an hour or two of the district's centre."""
        prefix = f"{ZONE}.{_FIRST_CLINIC + len(self.clinics)}"
        place = beside(self.district.city, self.random.uniform(-40, 40), self.random.uniform(-40, 40))
        number = len(self.clinics) + 1
        names = (f"{place.name_en} clinic {number}", f"{place.name_zh}第{number}接种门诊")
        site = _site(self.random, prefix, PartyRole.CLINIC, place, *names)
        self.clinics.append(site)
        return site

    def license_all(self) -> dict[str, Party]:
        """A licence for every site; made last, when each is where the story wants it."""
        sites = (self.maker, self.province, self.district, self.carrier, self.stranger, *self.clinics)
        return {site.prefix: _licence(site, self.begin_ms) for site in sites}


def network(random: Random, begin_ms: int) -> Network:
    """The parties of one chain but for its clinics; licences were given a year before ``begin_ms``, for five."""
    city, (capital, towns) = random.choice(MAKERS), random.choice(PROVINCES)
    town = random.choice(towns)
    distributor = PartyRole.DISTRIBUTOR
    return Network(
        maker=_site(
            random, MAKER, PartyRole.MAKER, city, f"{city.name_en} Biological Products", f"{city.name_zh}生物制品"
        ),
        province=_site(
            random, PROVINCE, distributor, capital, f"CDC at {capital.name_en}", f"{capital.name_zh}省疾控中心"
        ),
        district=_site(random, DISTRICT, distributor, town, f"{town.name_en} CDC", f"{town.name_zh}疾控中心"),
        carrier=_site(random, CARRIER, PartyRole.CARRIER, capital, "Cold Chain Express", "冷链物流"),
        stranger=_site(random, STRANGER, distributor, capital, "Passing Trade", "某医药公司"),
        clinics=[],
        random=random,
        begin_ms=begin_ms,
    )


def _site(random: Random, prefix: str, role: PartyRole, city: City, name_en: str, name_zh: str) -> Site:
    skew_ms = random.randint(-SKEW_SECONDS_MAX, SKEW_SECONDS_MAX) * SECOND_MS
    return Site(prefix, role, city, skew_ms, name_en, name_zh)


def _licence(site: Site, begin_ms: int) -> Party:
    place = Location(site.uri + "/site/1", LocationKind.SITE, site.city.latitude, site.city.longitude)
    room = replace(place, id=site.room, kind=LocationKind.ROOM)
    vehicles = tuple(Location(site.vehicle(number), LocationKind.VEHICLE) for number in range(1, _VEHICLES + 1))
    begin = begin_ms // SECOND_MS
    return Party(
        prefix=site.prefix,
        name_en=site.name_en,
        name_zh=site.name_zh,
        roles=frozenset({site.role}),
        locations=(place, room, *vehicles),
        valid_from=begin - _YEAR_SECONDS,
        valid_until=begin + 4 * _YEAR_SECONDS,
        evidence=f"{ZONE}/party/{site.prefix}",
    )

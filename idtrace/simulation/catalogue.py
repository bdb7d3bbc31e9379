"""What is shipped: products with their temperature profiles, and the codes that doses and packages carry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from idtrace.coldchain.profiles import BUILT_IN
from idtrace.epcis import uris
from idtrace.product import Product
from idtrace.scan import Scheme
from idtrace.simulation.climate import Range
from idtrace.simulation.network import MAKER

SCHEMES: Final = (Scheme.NATIVE, Scheme.GS1, Scheme.DRUG)
_GTIN: Final = "09506000134352"
_EPC_CLASS: Final = "9506000.013435"
_DRUG: Final = "8123456"


@dataclass(frozen=True, slots=True)
class Article:
    """A product, how cold it is kept, and how many days it lasts."""

    name_en: str
    name_zh: str
    profile: str
    doses: int
    vial_hours: int
    held: Range
    shelf_days: int
    budget_seconds: int = 0


_FRIDGE: Final = Range(5.0, 0.25, 2.0, 8.0)
_FREEZER: Final = Range(-20.0, 0.4, -25.0, -15.0)
_DEEP: Final = Range(-75.0, 0.8, -90.0, -60.0)
ARTICLES: Final = (
    Article("Hepatitis B vaccine", "重组乙型肝炎疫苗", "2-8", 1, 0, _FRIDGE, 1_095),
    Article("Rabies vaccine", "人用狂犬病疫苗", "2-8", 1, 0, _FRIDGE, 730, budget_seconds=86_400),
    Article("Measles and rubella vaccine, 10 doses", "麻疹风疹联合减毒活疫苗(10人份)", "2-8", 10, 6, _FRIDGE, 730),
    Article("Live varicella vaccine", "水痘减毒活疫苗", "-20", 1, 0, _FREEZER, 730),
    Article("mRNA vaccine, 6 doses", "新型冠状病毒mRNA疫苗(6人份)", "-70", 6, 6, _DEEP, 270),
)


def product(article: Article, number: int) -> Product:
    """The article's class record."""
    profile = BUILT_IN[article.profile]
    if article.budget_seconds:
        profile = replace(profile, budget_seconds=article.budget_seconds)
    return Product(
        identifier=f"{MAKER}/class/{number}",
        name_en=article.name_en,
        name_zh=article.name_zh,
        maker=MAKER,
        doses=article.doses,
        vial_hours=article.vial_hours,
        profile=profile,
    )


def dose_uri(scheme: Scheme, serial: int) -> str:
    """How events write a dose; GS1 codes come as EPC URN or Digital Link, as reporters like it."""
    if scheme is Scheme.DRUG:
        return f"idtrace:drug.{_DRUG}/{serial:013d}"
    if scheme is Scheme.GS1:
        return f"urn:epc:id:sgtin:{_EPC_CLASS}.{serial:012d}"
    return f"idtrace:{MAKER}/V{serial:012d}"


def other_spelling(uri: str) -> str:
    """The same code as another reporter writes it."""
    return uris.uri_of(uris.key(uri))


def pallet_uri(scheme: Scheme, serial: int) -> str:
    """How events write a pallet: an SSCC where the maker uses GS1 keys."""
    if scheme is Scheme.GS1:
        return f"urn:epc:id:sscc:9506000.1{serial % 10**9:09d}"
    return f"idtrace:{MAKER}/pallet/{serial}"


def package_uri(prefix: str, kind: str, serial: int) -> str:
    """How events write a box, a carton or a tote of this party."""
    return f"idtrace:{prefix}/{kind}/{serial}"

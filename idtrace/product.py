"""Products and doses: master data that verdicts need, in values of the class record and of the item's own record.

The item's class record (``88.118.8/class/…``) has a value of type ``idtrace.product``, canonical JSON::

    {"name": {"en": …, "zh": …}, "maker": "88.118.8", "doses": 1, "temperature": {… see idtrace/coldchain/profile.py …},
     "vial_hours": 6}

The item's own record (or the lot's commissioning event, as ILMD) says lot and expiry: values of the types ``lot``
(text) and ``expiry`` (YYYY-MM-DD or YYYYMMDD or YYMMDD, the last day of use; local date of China, UTC+8).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from idtrace import canonical
from idtrace.canonical import Fields
from idtrace.coldchain import profile as profiles
from idtrace.coldchain.profile import Profile
from idtrace.errors import InputError, Reason

PRODUCT_TYPE: Final = "idtrace.product"
LOT_TYPE: Final = "lot"
EXPIRY_TYPE: Final = "expiry"
NAME_MAX: Final = 256
# The largest vials of vaccine have 20 doses, the largest smallest packages some hundred.
DOSES_MAX: Final = 1_000
# WHO's multi-dose vial policy ends at 28 days (WHO/IVB/14.07).
VIAL_HOURS_MAX: Final = 28 * 24
_EXPIRY = re.compile(r"(?P<year>[0-9]{4})(?P<dash>-?)(?P<month>[0-9]{2})(?P=dash)(?P<day>[0-9]{2})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Product:
    """What a class record says of all its items.

    Attributes:
        identifier: of the class record.
        doses: how many doses a smallest package has (a code may be dispensed that often, and no more).
        vial_hours: how long an opened multi-dose vial may be used (WHO multi-dose vial policy), 0: no rule.
        profile: temperature limits and rules.
    """

    identifier: str
    name_en: str
    name_zh: str
    maker: str
    doses: int
    vial_hours: int
    profile: Profile

    def payload(self) -> bytes:
        """Canonical bytes: the data of the class record's value of type ``idtrace.product``."""
        return canonical.encode(
            {
                "name": {"en": self.name_en, "zh": self.name_zh},
                "maker": self.maker,
                "doses": self.doses,
                "temperature": profiles.body_of(self.profile),
                "vial_hours": self.vial_hours,
            }
        )

    @classmethod
    def parse(cls, data: bytes, *, identifier: str, field: str = "product") -> Product:
        """Read a value of type ``idtrace.product``; ``identifier`` is that of the class record that holds it.

        Raises:
            InputError: no canonical JSON, or a field is missing, malformed or unknown; ``field`` names it.
        """
        body = canonical.decode(data, field=field)
        name = body.object("name")
        product = cls(
            identifier=identifier,
            name_en=_name(name, "en"),
            name_zh=_name(name, "zh"),
            maker=str(body.prefix("maker")),
            doses=body.integer("doses", least=1, most=DOSES_MAX),
            vial_hours=body.integer("vial_hours", most=VIAL_HOURS_MAX),
            profile=profiles.read(body.object("temperature")),
        )
        if not product.maker:
            raise InputError(Reason.FIELD_MALFORMED, "the root makes nothing", field=body.path("maker"))
        name.end()
        body.end()
        return product


def parse_expiry(text: str, *, field: str = EXPIRY_TYPE) -> str:
    """The last day of use as ``YYYY-MM-DD``, out of any of its spellings.

    Six digits are of this century, since nothing that expired before it is still about; day 00 is the last of its month
    (GS1 General Specifications 7.12, AI 17).

    Raises:
        InputError: FIELD_MALFORMED.
    """
    whole = f"20{text}" if len(text) == 6 else text
    match = _EXPIRY.match(whole)
    rule = "an expiry is a date, YYYY-MM-DD, YYYYMMDD or YYMMDD"
    if match is None:
        raise InputError(Reason.FIELD_MALFORMED, rule, field=field)
    year, month, day = int(match["year"]), int(match["month"]), int(match["day"])
    try:
        if day == 0:
            following = date(year + month // 12, month % 12 + 1, 1) if 1 <= month <= 12 else date(year, month, 1)
            return (following - timedelta(days=1)).isoformat()
        return date(year, month, day).isoformat()
    except (ValueError, OverflowError):
        raise InputError(Reason.FIELD_MALFORMED, rule, field=field) from None


def _name(body: Fields, language: str) -> str:
    text = body.text(language, most=NAME_MAX, least=1)
    if not text.isprintable() or text != text.strip():
        rule = "a name is printable and has no space around it"
        raise InputError(Reason.FIELD_MALFORMED, rule, field=body.path(language))
    return text

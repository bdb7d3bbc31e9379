"""Products and doses: master data that verdicts need, in values of the class record and of the item's own record.

The item's class record (``88.118.8/class/…``) has a value of type ``idtrace.product``, canonical JSON::

    {"name": {"en": …, "zh": …}, "maker": "88.118.8", "doses": 1, "temperature": {… see idtrace/coldchain/profile.py …},
     "vial_hours": 6}

The item's own record (or the lot's commissioning event, as ILMD) says lot and expiry: values of the types ``lot``
(text) and ``expiry`` (YYYY-MM-DD or YYYYMMDD or YYMMDD, the last day of use; local date of China, UTC+8).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from idtrace.coldchain.profile import Profile

PRODUCT_TYPE: Final = "idtrace.product"
LOT_TYPE: Final = "lot"
EXPIRY_TYPE: Final = "expiry"


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

"""Lots in events: the master data that names one, and the key under which a lot's making can be found again.

Nothing in an event of single things says of which lot they are but the master data of their making (ILMD,
``cbvmda:lotNumber``). So the making is also kept under the lot's key: for GS1 numbers that of GTIN and lot (AI 01 and
10), else ``PREFIX/lot/LOT`` with the prefix of the things. Who has to find a lot asks for one subject and no dose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from idtrace.epcis.model import Action, Event, EventType, Json
from idtrace.errors import InputError
from idtrace.gs1 import GS1_LABEL
from idtrace.identifier import Identifier

LOT_PATH: Final = "lot/"
_GTIN: Final = f"{GS1_LABEL}.01."


def master_text(fields: Mapping[str, Json], name: str) -> str:
    """Text of a master data field, whatever prefix or URI stands before its name; "" where there is none."""
    for full, value in sorted(fields.items()):
        if full.replace("#", "/").replace(":", "/").rpartition("/")[2] == name and isinstance(value, str | int):
            return str(value)
    return ""


def lot_key(prefix: str, lot: str) -> str:
    """The key of a lot of things with this prefix; "" where no identifier can be made of it."""
    suffix = f"10.{lot}" if prefix.startswith(_GTIN) else f"{LOT_PATH}{lot}"
    try:
        return str(Identifier.parse(f"{prefix}/{suffix}"))
    except InputError:
        return ""


def made_by(event: Event) -> tuple[str, ...]:
    """URIs of the single things that an event makes: a commissioning's objects, or a transformation's outputs."""
    if event.type is EventType.TRANSFORMATION:
        return event.outputs
    if event.type is EventType.OBJECT and event.action is Action.ADD and event.biz_step == "commissioning":
        return event.epcs
    return ()


def lot_keys(event: Event, made: tuple[str, ...]) -> Iterator[str]:
    """Keys of the lots that an event makes; ``made`` are the keys of :func:`made_by`."""
    lot = master_text(event.ilmd, "lotNumber") if made else ""
    if lot:
        prefixes = dict.fromkeys(one.partition("/")[0] for one in made if ":" not in one)
        yield from (found for prefix in prefixes if (found := lot_key(prefix, lot)))

"""URIs in events: which thing each of them names, and how a thing is written as one.

A *key* is the text by which all parts of idtrace know a thing: its canonical identifier (``88.118.8/SN-1``,
``gs1.01.09506000134352/21.X``, ``drug.8123456/0000000000001``) where the URI means one, else the URI itself. Read are
EPC URNs of all schemes and classes (TDS 1.13), GS1 Digital Links of any domain, and ``idtrace:`` URIs, whose path is an
identifier, percent-encoded as RFC 3986 has it. A party is ``idtrace:88.118.8``, without a "/": no identifier, so its
key is the URI, in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote

from idtrace.epcis.lots import lot_keys, made_by
from idtrace.epcis.model import Event, EventType
from idtrace.errors import InputError, Reason
from idtrace.gs1 import GS1_LABEL, to_digital_link
from idtrace.identifier import Identifier, Prefix
from idtrace.scan import TEXT_CHARS_MAX, check_scheme, scan

SCHEME: Final = "idtrace:"
# An event has at most 124 KiB, and one that names things in the shortest URIs there are has about this many of them; a
# pallet of 1,500 cartons takes a fifth. Each mention becomes a row and, elsewhere, a message.
MENTIONS_MAX: Final = 8_192
_GS1_URI = re.compile(r"(?:https?://|urn:epc:)", re.IGNORECASE)
_OURS = re.compile(r"idtrace:(?P<path>(?:[^%?#\s]|%[0-9A-Fa-f]{2})*)\Z", re.IGNORECASE)
# What RFC 3986 section 3.3 lets stand in a path as it is, besides letters and digits.
_PATH_SAFE: Final = "/-._~!$&'()*+,;=:@"


def key(uri: str) -> str:
    """The key of what a URI names; any other text comes back as it is. Never raises."""
    # Longer ones are no identifiers, and must not fill the memory below.
    return _key(uri) if len(uri) <= TEXT_CHARS_MAX else uri


# Things of one site come again and again: a shipment is packed, loaded and received with the same URIs.
@lru_cache(maxsize=16_384)
def _key(uri: str) -> str:
    if (ours := _OURS.match(uri)) is not None:
        return _key_of_ours(uri, ours["path"])
    # A reader's line end is not part of a URI, and scan would drop it.
    if _GS1_URI.match(uri) is None or uri.endswith(("\r", "\n")):
        return uri
    try:
        return str(scan(uri).identifier)
    except InputError:
        return uri


def _key_of_ours(uri: str, path: str) -> str:
    try:
        text = unquote(path, errors="strict")
        if "/" not in text:
            party = Prefix.parse(text)
            return uri if party.is_root else f"{SCHEME}{party}"
        identifier = Identifier.parse(text)
        check_scheme(identifier)
    except (InputError, UnicodeDecodeError):
        return uri
    return str(identifier)


def uri_of(key: str) -> str:
    """The URI to write for a key: ``https://id.gs1.org/…`` for GS1 keys, else ``idtrace:…``; a URI stays as it is."""
    try:
        identifier = Identifier.parse_canonical(key)
        check_scheme(identifier)
    except InputError:
        return key
    if identifier.prefix.labels[0] == GS1_LABEL:
        return to_digital_link(identifier)
    return f"{SCHEME}{identifier.prefix}/{quote(identifier.suffix, safe=_PATH_SAFE)}"


def same(one: str, other: str) -> bool:
    """Whether two URIs name one thing."""
    return key(one) == key(other)


def party_of(uri: str) -> str | None:
    """The prefix of the party that a URI names (``idtrace:88.118.8``), None where it names none of ours."""
    party = key(uri)
    if not party.startswith(SCHEME):
        return None
    try:
        return str(Prefix.parse_canonical(party.removeprefix(SCHEME))) or None
    except InputError:
        return None


def mentions(event: Event) -> tuple[tuple[str, str], ...]:
    """What an event mentions: (key, role), each key once a role, in the event's order; roles as in ``Mention``.

    The lots that it makes (``idtrace/epcis/lots.py``) come last, in the role of a class.

    Raises:
        InputError: FIELD_TOO_LARGE: more than ``MENTIONS_MAX`` of them.
    """
    named = dict.fromkeys((key(uri), role) for uri, role in (*_named(event), *_fitted(event)) if uri)
    lots = lot_keys(event, tuple(key(uri) for uri in made_by(event)))
    found = tuple(dict.fromkeys((*named, *((lot, "class") for lot in lots))))
    if len(found) > MENTIONS_MAX:
        rule = f"an event mentions at most {MENTIONS_MAX} things, this one {len(found)}: report it in parts"
        raise InputError(Reason.FIELD_TOO_LARGE, rule, field="event")
    return found


def _fitted(event: Event) -> Iterator[tuple[str, str]]:
    """Besides, in a role of their own: what was fitted long ago is found among all that has happened since."""
    if event.type is EventType.ASSOCIATION:
        for uri in (event.parent, *event.children):
            yield uri, "fitted"


def _named(event: Event) -> Iterator[tuple[str, str]]:
    yield event.parent, "parent"
    for role, uris in (
        ("epc", event.epcs),
        ("child", event.children),
        ("input", event.inputs),
        ("output", event.outputs),
    ):
        for uri in uris:
            yield uri, role
    for quantities in (event.quantities, event.child_quantities, event.input_quantities, event.output_quantities):
        for quantity in quantities:
            yield quantity.epc_class, "class"
    yield event.read_point, "read_point"
    yield event.biz_location, "biz_location"
    for role, typed in (
        ("transaction", event.biz_transactions),
        ("source", event.sources),
        ("destination", event.destinations),
    ):
        for one in typed:
            yield one.id, role
    for sensor in event.sensors:
        yield sensor.metadata.device_id, "device"
        for report in sensor.reports:
            yield report.device_id, "device"

"""The event hash of CBV 2.0 (section 8.9): the same event has the same hash, whoever writes it down and however.

It serves as an ``eventID`` and to find an event again. It is an alias: it leaves out who reported the event and what
was said of it later, so two statements can share it, and idtrace identifies neither events nor evidence by it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

from idtrace.epcis.model import Json
from idtrace.epcis.prehash import pre_hash


def event_hash(event: Mapping[str, Json], *, context: Json = None, ignore: Collection[str] = ()) -> str:
    """``ni:///sha-256;HEX?ver=CBV2.0`` of one event; arguments and errors as of :func:`pre_hash`."""
    text = pre_hash(event, context=context, ignore=ignore)
    # Lone surrogates can stand in JSON and in no UTF-8; they are hashed as what they are, and never refused here.
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"ni:///sha-256;{digest}?ver=CBV2.0"


def ignored(document: Mapping[str, Json]) -> tuple[str, ...]:
    """Names of fields that a repository has added, as its document says in ``PREFIX:ignoreFields``."""
    found: list[str] = []
    for name, value in document.items():
        if name.endswith(":ignoreFields") and isinstance(value, list | tuple):
            found.extend(field for field in value if isinstance(field, str))
    return tuple(found)

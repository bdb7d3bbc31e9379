"""Events as a store takes them: writes with mentions, and what is then to be delivered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from registry.storage import Mention, Write
from tests.core_fixtures import NOW, ZONE
from tests.registry_fixtures import typed_record, write_of

NOW_MS = NOW * 1000
PARTY = ZONE


def event_name(number: int | str, party: str = PARTY) -> str:
    return f"{party}/event/{hashlib.sha256(str(number).encode()).hexdigest()}"


def mentions_of(event: str, subjects: Iterable[tuple[str, str]], time_ms: int = NOW_MS) -> tuple[Mention, ...]:
    return tuple(Mention(subject, time_ms, event, role) for subject, role in subjects)


def event_write(
    number: int | str,
    *subjects: tuple[str, str],
    outbound: tuple[str, ...] = (),
    time_ms: int = NOW_MS,
    party: str = PARTY,
    key: str = "",
) -> Write:
    """An event's write; what a subject is stands beside it."""
    name = event_name(number, party)
    write = write_of(typed_record(name, {"epcis.event": str(number)}), key or f"key-{name[-20:]}", zone=party)
    return replace(write, mentions=mentions_of(name, subjects, time_ms), outbound=outbound)

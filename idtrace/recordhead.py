"""What the rules of a log need of a record's body, read by a short way where the body has the usual form.

Whoever replays a log reads millions of bodies and asks five things of each. :meth:`RecordBody.parse` builds all of a
body, every value digest too, which takes twice as long. Nearly all bodies have one shape: canonical JSON of printable
ASCII without escapes. One regular expression recognises that shape whole, and the rules that it cannot express are
checked after it. Whatever it does not recognise, and whatever breaks a rule, goes the long way, so there is one truth
about what is refused and why; a fuzz test holds both ways against each other: the same value, or the same error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from operator import lt
from typing import Final, NamedTuple

from idtrace.canonical import BODY_BYTES_MAX
from idtrace.errors import InputError
from idtrace.identifier import IDENTIFIER_BYTES_MAX, Identifier
from idtrace.record import TIME_MAX, TTL_SECONDS_MAX, VALUE_TYPE_MAX, VALUES_MAX, RecordBody, RecordKind, Status

# Printable ASCII but for the space, the quotation mark and the backslash: what JSON writes as it stands.
_PLAIN: Final = r"[!#-\[\]-~]"
_COUNT: Final = "(0|[1-9][0-9]{0,11})"
# Indexes of up to four digits: no record has more than 256 values, and hardly any leaves gaps.
_VALUE: Final = (
    r'\{"digest":"[0-9a-f]{64}","index":[1-9][0-9]{0,3},"permission":"(?:public|restricted)",'
    rf'"type":"{_PLAIN}{{1,{VALUE_TYPE_MAX}}}"}}'
)
_BODY: Final = re.compile(
    rf'{{"class":"({_PLAIN}{{0,{IDENTIFIER_BYTES_MAX}}})","identifier":"({_PLAIN}{{1,{IDENTIFIER_BYTES_MAX}}})",'
    rf'"issued_at":{_COUNT},"kind":"([a-z]+)","previous":"([0-9a-f]{{64}}|)","status":"([a-z]+)",'
    rf'"ttl_seconds":{_COUNT},"values":\[((?:{_VALUE}(?:,{_VALUE})*+)?)\],"version":([1-9][0-9]{{0,8}})}}'
)
# A type has no quotation mark, so this finds indexes and nothing else.
_INDEX: Final = re.compile(r'"index":([0-9]+)')
# A tombstone is rare and has rules of its own.
_KINDS: Final[Mapping[str, RecordKind]] = {str(kind): kind for kind in RecordKind if kind is not RecordKind.TOMBSTONE}
_STATUSES: Final = frozenset(str(status) for status in Status if status is not Status.RETIRED)


class RecordHead(NamedTuple):
    """What a body says of itself: whose, which version, hash of the one before (b"" for 1), kind, time (s)."""

    identifier: Identifier
    version: int
    previous: bytes
    kind: RecordKind
    issued_at: int


def read_head(payload: bytes) -> RecordHead:
    """Read a body as :meth:`RecordBody.parse` does, all of its rules included; check its signature first.

    Raises:
        InputError: naming field and rule, as there.
    """
    head = _short(payload)
    if head is not None:
        return head
    body = RecordBody.parse(payload)
    return RecordHead(body.identifier, body.version, body.previous, body.kind, body.issued_at)


def _short(payload: bytes) -> RecordHead | None:
    """The head of a body that has the usual form and keeps every rule; None of any other."""
    if len(payload) > BODY_BYTES_MAX or not payload.isascii():
        return None
    found = _BODY.fullmatch(payload.decode("ascii"))
    if found is None:
        return None
    class_text, text, issued_at, kind_text, previous, status, ttl_seconds, values, version = found.groups()
    kind = _KINDS.get(kind_text)
    if (
        kind is None
        or status not in _STATUSES
        or (version == "1") != (previous == "")
        or int(issued_at) > TIME_MAX
        or int(ttl_seconds) > TTL_SECONDS_MAX
        or not _ascending(values)
    ):
        return None
    try:
        if class_text:
            Identifier.parse_canonical(class_text)
        identifier = Identifier.parse_canonical(text)
    except InputError:
        return None
    return RecordHead(identifier, int(version), bytes.fromhex(previous), kind, int(issued_at))


def _ascending(values: str) -> bool:
    indexes = [int(index) for index in _INDEX.findall(values)]
    return len(indexes) <= VALUES_MAX and all(map(lt, indexes, indexes[1:]))

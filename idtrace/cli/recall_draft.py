"""The next version of a zone's recalls: pure, given salts and a time.

A recall keeps its value, salt and index, as long as it says the same, so that a version differs from the one before in
what has changed and nothing else. Names are never given twice while both can be seen, for whoever acknowledges or ends
one names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from idtrace.cli.drafts import Draft
from idtrace.errors import InputError, Reason, RefusedError, quoted
from idtrace.identifier import Identifier
from idtrace.recall import RECALL_TYPE, Recall, format_recall, parse_recall
from idtrace.record import (
    VALUES_MAX,
    Permission,
    Record,
    RecordBody,
    RecordKind,
    Value,
    ValueDigest,
    build_values,
    withheld_public,
)

# A resolver that follows no zone asks again after so long; those that follow are told at once.
TTL_SECONDS: Final = 60


def recalls_of(record: Record, body: RecordBody) -> tuple[Recall, ...]:
    """All recalls of a verified record ``ZONE/recalls``, in its order.

    Raises:
        InputError: one cannot be read, or is left out: to sign the others alone would end it silently.
    """
    hidden = withheld_public(record, body)
    if hidden:
        rule = "a value of these recalls is left out; ask another node"
        raise InputError(Reason.VALUE_WITHHELD, rule, field="recalls")
    return tuple(recall for _, _, recall in _held(record, body))


def declared(recalls: Sequence[Recall], recall: Recall) -> list[Recall]:
    """With one more.

    Raises:
        RefusedError: IDENTIFIER_TAKEN where the name is in use.
        InputError: FIELD_TOO_LARGE where there are as many as a record has values.
    """
    if any(one.name == recall.name for one in recalls):
        detail = f"{recall.zone} has a recall {quoted(recall.name)}; give this one another name"
        raise RefusedError(Reason.IDENTIFIER_TAKEN, detail, field="NAME")
    if len(recalls) >= VALUES_MAX:
        rule = f"a zone has at most {VALUES_MAX} recalls at a time; --forget-ended 30 drops those that ended long ago"
        raise InputError(Reason.FIELD_TOO_LARGE, rule, field="NAME")
    return [*recalls, recall]


def ended(recalls: Sequence[Recall], name: str, now: int) -> list[Recall]:
    """With one of them ended.

    Raises:
        RefusedError: IDENTIFIER_UNKNOWN where there is none of this name, or it has ended.
    """
    found = next((one for one in recalls if one.name == name), None)
    if found is None or not found.stands(now):
        detail = f"{quoted(name)} ended before" if found is not None else f"there is no recall {quoted(name)}"
        raise RefusedError(Reason.IDENTIFIER_UNKNOWN, detail, field="NAME")
    at = max(now, found.issued_at)
    return [replace(one, ended_at=at) if one.name == name else one for one in recalls]


def without_ended(recalls: Iterable[Recall], before: int) -> list[Recall]:
    """Without those that had ended by a time (s); they stand in earlier versions for ever."""
    return [one for one in recalls if one.ended_at == 0 or one.ended_at > before]


def next_recalls(
    identifier: Identifier,
    current: tuple[Record, RecordBody] | None,
    recalls: Sequence[Recall],
    salts: Iterable[bytes],
    now: int,
) -> tuple[RecordBody, tuple[Value, ...]]:
    """The version that says these recalls.

    Args:
        identifier: ``ZONE/recalls``.
        current: the version before, None for none.
        recalls: all that it is to say.
        salts: a fresh one for each at least.
        now: s.

    Raises:
        InputError: a rule of records or recalls.
        RefusedError: IDENTIFIER_RETIRED.
    """
    wanted = [format_recall(recall) for recall in recalls]
    for data in wanted:
        parse_recall(data, zone=str(identifier.prefix))
    if current is None:
        entries = tuple((RECALL_TYPE, data, Permission.PUBLIC) for data in wanted)
        return Draft(identifier, entries, ttl_seconds=TTL_SECONDS).body(salts, now)
    record, body = current
    if body.kind is RecordKind.TOMBSTONE:
        raise RefusedError(Reason.IDENTIFIER_RETIRED, f"{identifier} has ended and recalls nothing again", field="zone")
    kept = {value.data: (digest, value) for digest, value, _ in _held(record, body)}
    parts = [kept[data] for data in wanted if data in kept]
    fresh = [(RECALL_TYPE, data, Permission.PUBLIC) for data in wanted if data not in kept]
    free = max((digest.index for digest in body.values), default=0) + 1
    for offset, (entry, salt) in enumerate(zip(fresh, salts, strict=False)):
        (digest,), (value,) = build_values([entry], [salt])
        parts.append((replace(digest, index=free + offset), replace(value, index=free + offset)))
    # What is no recall stays; a restricted value is not shown here, and the node carries it over.
    others = {digest.index: digest for digest in body.values if digest.type != RECALL_TYPE}
    values = [value for _, value in parts] + [value for value in record.values if value.index in others]
    digests = [digest for digest, _ in parts] + list(others.values())
    following = replace(
        body,
        version=body.version + 1,
        previous=record.hash,
        issued_at=max(now, body.issued_at),
        ttl_seconds=TTL_SECONDS,
        values=tuple(sorted(digests, key=lambda digest: digest.index)),
    )
    return RecordBody.parse(following.payload()), tuple(sorted(values, key=lambda value: value.index))


def _held(record: Record, body: RecordBody) -> Iterator[tuple[ValueDigest, Value, Recall]]:
    digests = {digest.index: digest for digest in body.values if digest.type == RECALL_TYPE}
    zone = str(body.identifier.prefix)
    for value in record.values:
        if value.index in digests:
            yield digests[value.index], value, parse_recall(value.data, zone=zone, version=body.version)

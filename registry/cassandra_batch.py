"""A batch as it is staged before its ledger's head is swapped, so that anybody can finish it afterwards.

Bytes: one byte format, then nested values, then SHA-256 over all before it. A value is a tag and a big-endian length
or number: ``B`` bytes, ``S`` UTF-8 text, ``I`` signed 64-bit integer, ``T`` count of values that follow. Our own few
lines and not a serialiser of a library, because a store outlives the versions of its program and has to be readable
by the next one.

Format 1 holds writes, grants and chains; format 2 also what the batch adds to the log; format 3 also what events
mention, and pointers from elsewhere. A batch is staged in the least format that holds it, so that a program from before
there was a log, or there were events, can finish it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from idtrace.errors import InputError
from idtrace.merkle import CompactRange
from idtrace.record import RecordKind, Status
from registry.logbook import Appended, Edge, LogHead, TileRow
from registry.storage import Claim, Grant, Head, Mention, Write

FORMAT: Final = 1
FORMAT_LOGGED: Final = 2
FORMAT_POINTED: Final = 3
_PARTS: Final = {FORMAT: 3, FORMAT_LOGGED: 5, FORMAT_POINTED: 7}
# Half of the 1 MiB that a cell should not exceed (docs.datastax.com, "Planning partition size"), and far below the
# largest mutation a server takes: half a commit log segment, 16 MiB by default.
CHUNK_BYTES: Final = 524_288
_DIGEST_BYTES: Final = 32
# A batch is a tuple of tuples of tuples; deeper bytes were not written by us.
_DEPTH_MAX: Final = 8

Value = bytes | str | int | tuple["Value", ...]
_LENGTH: Final = struct.Struct(">cI")
_INTEGER: Final = struct.Struct(">cq")


class StagedBatchError(Exception):
    """Staged bytes are torn, damaged, or of a newer program: the ledger must not go on over them."""


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant that replaces what is held of its prefix, and the idempotency key that it uses up."""

    grant: Grant
    zone: str
    idempotency_key: str
    request_hash: bytes


@dataclass(frozen=True, slots=True)
class Chain:
    """The delegations of one of the node's own zones, root first."""

    zone: str
    links: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one swap of the head makes true. Everything in it has been decided: applying it asks nothing.

    Attributes:
        writes: versions to write; ``entry`` and ``sealed`` of them have gone into ``appended`` and are not staged.
        grants, chains: to be replaced.
        appended: what the log grows by; None where nothing is logged. Its edge's partial tiles are not staged: they
            are for the batch after this one, and whoever finishes this one reads them from the tables.
        indexes: of each write that is logged, by its place among the writes.
        pointers: that came from elsewhere.
    """

    writes: tuple[Write, ...] = ()
    grants: tuple[Granted, ...] = ()
    chains: tuple[Chain, ...] = ()
    appended: Appended | None = None
    indexes: tuple[tuple[int, int], ...] = ()
    pointers: tuple[Mention, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.writes or self.grants or self.chains or self.pointers)


def pack(batch: Batch) -> bytes:
    """The bytes of a batch."""
    parts: tuple[Value, ...] = (
        tuple(_write_values(write) for write in batch.writes),
        tuple(_granted_values(granted) for granted in batch.grants),
        tuple((chain.zone, chain.links) for chain in batch.chains),
    )
    appended = () if batch.appended is None else _appended_values(batch.appended)
    pointed = tuple(
        (number, _mention_values(write.mentions), write.outbound)
        for number, write in enumerate(batch.writes)
        if write.mentions
    )
    if pointed or batch.pointers:
        out = [bytes([FORMAT_POINTED])]
        parts = (*parts, appended, batch.indexes, pointed, _mention_values(batch.pointers))
    elif appended:
        out = [bytes([FORMAT_LOGGED])]
        parts = (*parts, appended, batch.indexes)
    else:
        out = [bytes([FORMAT])]
    _put(out, parts)
    body = b"".join(out)
    return body + hashlib.sha256(body).digest()


def unpack(data: bytes) -> Batch:
    """The batch of these bytes.

    Raises:
        StagedBatchError: see there.
    """
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise StagedBatchError("the staged batch is torn or damaged: its digest does not fit")
    if not body or body[0] not in _PARTS:
        raise StagedBatchError(f"the staged batch has format {body[:1].hex()}: a newer program has staged it")
    try:
        value, end = _take(body, 1, _DEPTH_MAX)
        writes, grants, chains, *more = _fields(value, (tuple,) * _PARTS[body[0]])
        missing: list[Any] = [()] * (4 - len(more))
        appended, indexes, pointed, pointers = [*more, *missing]
        batch = Batch(
            _pointed([_write(item) for item in writes], pointed),
            tuple(_granted(item) for item in grants),
            tuple(_chain(item) for item in chains),
            _appended(appended) if appended or body[0] == FORMAT_LOGGED else None,
            tuple(_index(item, len(writes)) for item in indexes),
            _mentions(pointers),
        )
    except (ValueError, struct.error, InputError) as error:
        raise StagedBatchError(f"the staged batch is malformed: {error}") from error
    if end != len(body):
        raise StagedBatchError("the staged batch is malformed: bytes follow it")
    return batch


def chunks(data: bytes) -> list[bytes]:
    """Pieces of at most :data:`CHUNK_BYTES`; there is at least one."""
    return [data[start : start + CHUNK_BYTES] for start in range(0, max(len(data), 1), CHUNK_BYTES)]


def _put(out: list[bytes], value: Value) -> None:
    if isinstance(value, bytes):
        out += (_LENGTH.pack(b"B", len(value)), value)
    elif isinstance(value, str):
        text = value.encode()
        out += (_LENGTH.pack(b"S", len(text)), text)
    elif isinstance(value, int):
        out.append(_INTEGER.pack(b"I", value))
    else:
        out.append(_LENGTH.pack(b"T", len(value)))
        for item in value:
            _put(out, item)


def _take(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    """The value at an offset, and the offset after it."""
    if data[at : at + 1] == b"I":
        return int(_INTEGER.unpack_from(data, at)[1]), at + _INTEGER.size
    tag, size = _LENGTH.unpack_from(data, at)
    at += _LENGTH.size
    if tag == b"T" and depth > 0:
        items: list[Value] = []
        for _ in range(size):
            item, at = _take(data, at, depth - 1)
            items.append(item)
        return tuple(items), at
    end = at + size
    if tag not in {b"B", b"S"} or end > len(data):
        raise ValueError(f"no value at byte {at - _LENGTH.size}")
    return (data[at:end] if tag == b"B" else data[at:end].decode()), end


def _fields(value: Value, kinds: Sequence[type]) -> list[Any]:
    """The fields of a value, each of its type; they are ``Any`` because it is checked here and nowhere else."""
    if not isinstance(value, tuple) or [type(field) for field in value] != list(kinds):
        raise ValueError("fields do not have their types")
    return list(value)


def _write_values(write: Write) -> Value:
    head = write.head
    return (
        write.identifier,
        write.expected,
        (head.version, head.record_hash, str(head.kind), str(head.status), head.issued_at),
        write.record,
        write.zone,
        write.idempotency_key,
        write.request_hash,
        write.receipt,
        tuple((claim.class_id, claim.field, claim.digest) for claim in write.claims),
    )


def _write(value: Value) -> Write:
    identifier, expected, head, record, zone, key, request_hash, receipt, claims = _fields(
        value, (str, int, tuple, bytes, str, str, bytes, bytes, tuple)
    )
    version, record_hash, kind, status, issued_at = _fields(head, (int, bytes, str, str, int))
    return Write(
        identifier=identifier,
        expected=expected,
        head=Head(version, record_hash, RecordKind(kind), Status(status), issued_at),
        record=record,
        zone=zone,
        idempotency_key=key,
        request_hash=request_hash,
        receipt=receipt,
        claims=tuple(Claim(*_fields(claim, (str, str, bytes))) for claim in claims),
    )


def _granted_values(granted: Granted) -> Value:
    grant = granted.grant
    return (
        (
            grant.prefix,
            grant.status,
            int(grant.hosted),
            grant.comment,
            grant.changed_at,
            grant.version,
            grant.delegation,
            grant.application,
            grant.enrolments,
        ),
        granted.zone,
        granted.idempotency_key,
        granted.request_hash,
    )


def _granted(value: Value) -> Granted:
    grant, zone, key, request_hash = _fields(value, (tuple, str, str, bytes))
    prefix, status, hosted, comment, changed_at, version, delegation, application, enrolments = _fields(
        grant, (str, str, int, str, int, int, bytes, bytes, tuple)
    )
    return Granted(
        Grant(
            prefix=prefix,
            status=status,
            hosted=bool(hosted),
            comment=comment,
            changed_at=changed_at,
            version=version,
            delegation=delegation,
            application=application,
            enrolments=_byte_strings(enrolments),
        ),
        zone,
        key,
        request_hash,
    )


def _chain(value: Value) -> Chain:
    zone, links = _fields(value, (str, tuple))
    return Chain(zone, _byte_strings(links))


def _appended_values(appended: Appended) -> Value:
    head = appended.edge.head
    return (
        appended.first,
        appended.entries,
        tuple((tile.level, tile.index, tile.content) for tile in appended.tiles),
        (head.range.encode(), head.note, head.committed_at),
    )


def _appended(value: Value) -> Appended:
    first, entries, tiles, head = _fields(value, (int, tuple, tuple, tuple))
    grown, note, committed_at = _fields(head, (bytes, bytes, int))
    return Appended(
        first,
        _byte_strings(entries),
        tuple(TileRow(*_fields(tile, (int, int, bytes))) for tile in tiles),
        Edge(LogHead(CompactRange.decode(grown), note, committed_at)),
    )


def _index(value: Value, writes: int) -> tuple[int, int]:
    position, index = _fields(value, (int, int))
    if not 0 <= position < writes:
        raise ValueError("an index of no write")
    return position, index


def _mention_values(mentions: Sequence[Mention]) -> Value:
    return tuple((one.subject, one.time_ms, one.event, one.role) for one in mentions)


def _mentions(value: tuple[Value, ...]) -> tuple[Mention, ...]:
    return tuple(Mention(*_fields(item, (str, int, str, str))) for item in value)


def _pointed(writes: list[Write], value: tuple[Value, ...]) -> tuple[Write, ...]:
    """The writes, those of events with what they mention."""
    for item in value:
        position, mentions, outbound = _fields(item, (int, tuple, tuple))
        if not 0 <= position < len(writes):
            raise ValueError("mentions of no write")
        subjects = tuple(_fields(outbound, [str] * len(outbound)))
        writes[position] = replace(writes[position], mentions=_mentions(mentions), outbound=subjects)
    return tuple(writes)


def _byte_strings(value: tuple[Value, ...]) -> tuple[bytes, ...]:
    return tuple(_fields(value, [bytes] * len(value)))

"""A sound log for measurements: batches of 2,000 records under a seal, written as a registry's logbook writes them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from idtrace.delegation import Delegation, Role, State, ZoneKey
from idtrace.entry import Entry, EntryKind, UnderSeal
from idtrace.identifier import Identifier, Prefix
from idtrace.merkle import HASH_BYTES
from idtrace.note import NoteSigner
from idtrace.record import Permission, RecordBody, RecordKind, Sealed, Status, Value, build_values
from idtrace.seal import seal
from idtrace.signature import Kind, MemorySigner, Signed, sign, signed_hash
from idtrace.tiles import TILE_WIDTH, Tile, bundle_content, parse_path
from registry.logbook import Appended, Edge, LogDraft, LogWriter

BATCH: Final = 2_000
ZONE: Final = Prefix.parse("88.118.8")
ORIGIN: Final = "log.example/88.118.8"
NOW: Final = 1_900_000_000
ROOT: Final = "root"


def signer(name: str) -> MemorySigner:
    """The key of this name, the same in every run."""
    return MemorySigner(Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest()))


def _delegation(zone: Prefix) -> Delegation:
    roles = tuple(Role) if zone == ZONE else (Role.ZONE, Role.RECORD, Role.NODE)
    keys = tuple(ZoneKey(signer(f"{role} of {zone}").public_key, frozenset({role})) for role in roles)
    return Delegation(
        child=zone,
        parent=zone if zone.is_root else zone.lineage()[-2],
        version=1,
        previous=b"",
        state=State.ACTIVE,
        hosted=False,
        keys=keys,
        zone_threshold=1,
        endpoints=("node.example:7001",),
        issued_at=NOW - 100,
        not_before=NOW - 100,
        expires=NOW + 86_400,
        log=ORIGIN if zone == ZONE else "",
    )


def chain() -> tuple[Signed, ...]:
    """Delegations from the root down to the zone, the first by the pinned key ``ROOT``."""
    lineage = ZONE.lineage()
    by = [ROOT, *(f"zone of {zone}" for zone in lineage)]
    links = zip(lineage, by, strict=False)
    return tuple(sign(Kind.DELEGATION, _delegation(zone).payload(), signer(name)) for zone, name in links)


@dataclass(slots=True)
class BenchLog:
    """Entries in order, tiles by level and index, the last signed checkpoint."""

    entries: list[bytes] = field(default_factory=list)
    tiles: dict[tuple[int, int], bytes] = field(default_factory=dict)
    edge: Edge = field(default_factory=Edge)

    @classmethod
    def of(cls, records: int) -> BenchLog:
        """A log of the zone's keys and of so many records, in sealed batches."""
        log, writer, last = cls(), LogWriter(NoteSigner.of(ORIGIN, signer(f"log of {ZONE}"))), chain()[-1]
        draft = writer.draft(log.edge, NOW)
        draft.add(Entry(EntryKind.KEYS, ZONE, NOW, last.payload, last.signatures))
        log._take(draft.finish())
        for first in range(0, records, BATCH):
            draft = writer.draft(log.edge, NOW)
            _add_batch(draft, first, min(BATCH, records - first))
            log._take(draft.finish())
        return log

    def _take(self, appended: Appended) -> None:
        self.entries += appended.entries
        self.tiles.update({(row.level, row.index): row.content for row in appended.tiles})
        self.edge = appended.edge

    def content(self, path: str) -> bytes:
        """What the log serves at a path."""
        if path == "checkpoint":
            return self.edge.head.note
        resource = parse_path(path)
        if isinstance(resource, Tile):
            return self.tiles[resource.level, resource.index][: resource.width * HASH_BYTES]
        first = resource.index * TILE_WIDTH
        return bundle_content(self.entries[first : first + resource.width])

    @property
    def transport(self) -> httpx.MockTransport:
        """The log as the auditor's client meets it, without a network."""
        return httpx.MockTransport(
            lambda request: httpx.Response(200, stream=httpx.ByteStream(self.content(request.url.path[1:])))
        )


def _add_batch(draft: LogDraft, first: int, count: int) -> None:
    payloads = [payload_and_values(number)[0] for number in range(first, first + count)]
    hashes = tuple(signed_hash(Kind.RECORD, payload) for payload in payloads)
    places: tuple[Sealed, ...] = seal(hashes, ZONE, signer(f"record of {ZONE}"), issued_at=NOW)
    for payload, place in zip(payloads, places, strict=True):
        entry = Entry(EntryKind.RECORD, ZONE, NOW, payload, UnderSeal(place.hash, place.position))
        draft.add_sealed(entry, replace(place, path=()), hashes)


def payload_and_values(number: int) -> tuple[bytes, tuple[Value, ...]]:
    """The record of this number: its body, and the values beside it."""
    salts = [sha256(f"{number} {n}".encode()).digest()[:16] for n in range(2)]
    given = [("product", b"Vaccine, 1 dose", Permission.PUBLIC), ("lot", b"LOT-7", Permission.PUBLIC)]
    digests, values = build_values(given, salts)
    body = RecordBody(
        identifier=Identifier(ZONE, f"SN-{number:08}"),
        version=1,
        previous=b"",
        kind=RecordKind.ITEM,
        status=Status.ACTIVE,
        issued_at=NOW - 50,
        ttl_seconds=3_600,
        class_id=None,
        values=digests,
    )
    return body.payload(), values

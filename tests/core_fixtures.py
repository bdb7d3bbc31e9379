"""Signed things for tests of the pure core: keys from fixed seeds, and one tree root → 88 → 88.118 → 88.118.8.

Everything is made by the core's own ``payload()`` and ``sign()``; a test that lies changes one part of it. A key's
name says what it is for: ``signer("record of 88.118.8")``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from idtrace.bundle import Bundle, Denied, Revoked
from idtrace.chain import Anchor, Context, TrustedChain
from idtrace.delegation import Delegation, Role, State, ZoneKey
from idtrace.errors import IdtraceError, Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Permission, Record, RecordBody, RecordKind, Status, Value, build_values
from idtrace.signature import Kind, MemorySigner, PublicKey, Signed, sign
from idtrace.statements import Denial, DenialReason, Receipt
from idtrace.verification import Report, verify_bundle

NOW = 1_900_000_000
ZONE = "88.118.8"
ITEM = Identifier.parse("88.118.8/SN-0001")
PINNED = "pinned root"
# Order of the Ed25519 base point (RFC 8032 §5.1): S + L gives a second signature wherever S is not checked against it.
L = 2**252 + 27742317777372353535851937790883648493
# All 14 encodings of the 8 points of low order, little-endian hex (CCTV ed25519/README.md): written down here and
# checked by arithmetic in test_signature.py, so that no slip in the code's own list goes unnoticed.
LOW_ORDER = tuple(
    bytes.fromhex(text)
    for text in (
        "01" + "00" * 31,
        "01" + "00" * 30 + "80",
        "ec" + "ff" * 30 + "7f",
        "ec" + "ff" * 31,
        "00" * 32,
        "00" * 31 + "80",
        "ed" + "ff" * 30 + "7f",
        "ed" + "ff" * 31,
        "ee" + "ff" * 30 + "7f",
        "ee" + "ff" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    )
)


@cache
def signer(name: str) -> MemorySigner:
    """The key of this name, the same in every run."""
    return MemorySigner(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))


def public(name: str) -> PublicKey:
    """Public half of :func:`signer`."""
    return signer(name).public_key


# What every zone has; keys for currency and log belong to zones with a log.
USUAL = (Role.ZONE, Role.RECORD, Role.NODE)


def zone_keys(zone: str, roles: Iterable[Role] = USUAL) -> tuple[ZoneKey, ...]:
    """One key for each role."""
    return tuple(ZoneKey(public(f"{role} of {zone}"), frozenset({role})) for role in roles)


def parent_of(zone: str) -> str:
    """The zone one label up; the root's parent is the root."""
    return zone.rpartition(".")[0]


def delegation(zone: str, /, **changes: Any) -> Delegation:
    """A sound body, with some fields replaced."""
    body = Delegation(
        child=Prefix.parse(zone),
        parent=Prefix.parse(parent_of(zone)),
        version=1,
        previous=b"",
        state=State.ACTIVE,
        hosted=False,
        keys=zone_keys(zone),
        zone_threshold=1,
        endpoints=("node.example:7001", "[2001:db8::1]:7001"),
        issued_at=NOW - 100,
        not_before=NOW - 100,
        expires=NOW + 86_400,
    )
    return replace(body, **changes)


def revocation(zone: str, /, **changes: Any) -> Delegation:
    """Version 2 of a delegation: the zone is taken back."""
    previous = delegation(zone).hash
    ended: dict[str, Any] = {"state": State.REVOKED, "keys": (), "endpoints": (), "version": 2, "previous": previous}
    return delegation(zone, **{**ended, **changes})


def delegate(body: Delegation, *names: str) -> Signed:
    """Sign a delegation, by default with the key that may: the pinned root key, or the parent's zone key."""
    usual = PINNED if body.child.is_root else f"{Role.ZONE} of {body.parent}"
    return sign(Kind.DELEGATION, body.payload(), *(signer(name) for name in names or (usual,)))


@cache
def link(zone: str) -> Signed:
    """The sound delegation of a zone."""
    return delegate(delegation(zone))


@cache
def links(zone: str = ZONE) -> tuple[Signed, ...]:
    """Sound delegations from the root's own key set down to the zone."""
    return tuple(link(str(prefix)) for prefix in Prefix.parse(zone).lineage())


def anchor() -> Anchor:
    """The pinned root key."""
    return Anchor.of(public(PINNED))


def trusted(delegations: Iterable[Signed] = links(), context: Context | None = None) -> TrustedChain:
    """The verified chain over these delegations."""
    context = context or Context.at(NOW)
    first, *others = links() if delegations is None else delegations
    chain = TrustedChain.begin(anchor(), first, context)
    for signed in others:
        chain = chain.extend(signed, context)
    return chain


def salts() -> Iterable[bytes]:
    """Endless, different, the same in every run."""
    number = 0
    while True:
        yield hashlib.sha256(f"salt {number}".encode()).digest()[:16]
        number += 1


def body_and_values(
    identifier: Identifier = ITEM, data: Iterable[str] = ("Vaccine, 1 dose", "LOT-7"), **changes: Any
) -> tuple[RecordBody, tuple[Value, ...]]:
    """A sound record body over these values, with some fields replaced."""
    entries = [(f"field.{n}", text.encode(), Permission.PUBLIC) for n, text in enumerate(data)]
    digests, values = build_values(entries, salts())
    body = RecordBody(
        identifier=identifier,
        version=1,
        previous=b"",
        kind=RecordKind.ITEM,
        status=Status.ACTIVE,
        issued_at=NOW - 50,
        ttl_seconds=3_600,
        class_id=None,
        values=digests,
    )
    return replace(body, **changes), values


def record(identifier: Identifier = ITEM, by: str = "", data: Iterable[str] = ("a", "b"), **changes: Any) -> Record:
    """A record signed by its zone's record key, or by the key named ``by``."""
    body, values = body_and_values(identifier, data, **changes)
    return signed_record(body.payload(), values, by or f"{Role.RECORD} of {identifier.prefix}")


def signed_record(payload: bytes, values: Iterable[Value] = (), by: str = f"{Role.RECORD} of {ZONE}") -> Record:
    """Any bytes, signed as a record."""
    return Record(sign(Kind.RECORD, payload, signer(by)), tuple(values))


def tombstone(identifier: Identifier = ITEM) -> Record:
    """The last record of an identifier."""
    ended: dict[str, Any] = {"version": 2, "previous": bytes(32), "kind": RecordKind.TOMBSTONE}
    return record(identifier, data=(), status=Status.RETIRED, **ended)


def denial(identifier: Identifier = ITEM, by: str = "", zone: str = ZONE, **changes: Any) -> Signed:
    """A denial signed by the zone's node key, or by the key named ``by``."""
    said = Denial(identifier, Prefix.parse(zone), DenialReason.IDENTIFIER_ABSENT, NOW - 5, NOW + 55)
    return sign(Kind.DENIAL, replace(said, **changes).payload(), signer(by or f"{Role.NODE} of {zone}"))


def receipt(of: Record, by: str = f"{Role.NODE} of {ZONE}", **changes: Any) -> Signed:
    """A receipt for a record signed by the zone's node key, or by the key named ``by``."""
    body = RecordBody.parse(of.signed.payload)
    said = Receipt(Prefix.parse(ZONE), body.identifier, body.version, of.hash, NOW - 10)
    return sign(Kind.RECEIPT, replace(said, **changes).payload(), signer(by))


def bundle(
    outcome: Record | Denied | Revoked | None = None,
    delegations: tuple[Signed, ...] | None = None,
    identifier: Identifier = ITEM,
) -> Bundle:
    """A bundle; sound where its parts are."""
    chain = links(str(identifier.prefix)) if delegations is None else delegations
    return Bundle(identifier, chain, outcome or record(identifier))


def report(of: Bundle, now: int = NOW) -> Report:
    """The offline verdict against the pinned root key."""
    return verify_bundle(of, anchor(), now=now)


def with_last(*last: Signed) -> tuple[Signed, ...]:
    """The sound chain down to 88.118, then these."""
    return (*links("88.118"), *last)


def last_changed(*by: str, **changes: Any) -> Bundle:
    """A bundle whose last delegation, otherwise sound, says something else or is signed by other keys."""
    return bundle(delegations=with_last(delegate(delegation(ZONE, **changes), *(by or ("zone of 88.118",)))))


def denied(signed: Signed, delegations: tuple[Signed, ...] | None = None, identifier: Identifier = ITEM) -> Bundle:
    """A bundle that ends with this denial."""
    return bundle(Denied(signed), delegations, identifier)


def with_signature(signed: Signed, raw: bytes) -> Signed:
    """The same statement with other signature bytes under the first key."""
    first, *others = signed.signatures
    return replace(signed, signatures=(replace(first, signature=raw), *others))


def reason_of(action: Callable[[], object]) -> Reason | None:
    """Why a call refused, or why what it gave does not verify; None where it was accepted.

    Any other exception than our own goes through: it is a bug wherever it shows.
    """
    try:
        outcome = action()
    except IdtraceError as error:
        return error.reason
    if isinstance(outcome, Bundle):
        outcome = report(outcome)
    if isinstance(outcome, Report) and not outcome.valid:
        return outcome.checks[-1].reason
    return None


@dataclass(frozen=True)
class Lie:
    """A lie by its name, the one reason with which it has to end, and the call that tells it."""

    name: str
    reason: Reason
    told: Callable[[], object]

    def __str__(self) -> str:
        return self.name

"""Lies about signatures, keys, records, values, denials and receipts: each is refused for its own reason.

Lies about the chain stand in ``test_chain.py``, those inside a body in ``test_canonical.py``, and torn files in
``test_bundle.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from idtrace.bundle import Bundle, Revoked, Verdict
from idtrace.chain import Context
from idtrace.delegation import Role, ZoneKey
from idtrace.errors import Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Record, RecordBody, Status, Value
from idtrace.signature import Algorithm, Kind, PublicKey, Signature, Signed, sign
from tests.core_fixtures import (
    ITEM,
    LOW_ORDER,
    NOW,
    ZONE,
    L,
    Lie,
    body_and_values,
    bundle,
    delegate,
    delegation,
    denial,
    denied,
    last_changed,
    link,
    links,
    public,
    reason_of,
    receipt,
    record,
    report,
    revocation,
    signed_record,
    signer,
    tombstone,
    trusted,
    with_last,
    with_signature,
    zone_keys,
)

R = Reason
OTHER = Identifier.parse("88.118.8/SN-0002")
LOWER = Identifier.parse("88.118.8/sn-0001")
SIBLING = Identifier.parse("88.118.9/SN-0001")
ABOVE = Identifier.parse("88.118/SN-0001")
ALIKE = Identifier.parse("88.118.80/SN-0001")
OWNER, NODE = f"record of {ZONE}", f"node of {ZONE}"
RECORD_TYPE, DENIAL_TYPE = Kind.RECORD.payload_type, Kind.DENIAL.payload_type


def with_values(change: Callable[[tuple[Value, ...]], tuple[Value, ...]]) -> Bundle:
    sound = record()
    return bundle(replace(sound, values=change(sound.values)))


def with_signed(change: Callable[[Signed], Signed]) -> Bundle:
    sound = record()
    return bundle(replace(sound, signed=change(sound.signed)))


def rewritten(**changes: Any) -> Bundle:
    """The signed bytes say something else under the old signature."""
    body = RecordBody.parse(record().signed.payload)
    return with_signed(lambda s: replace(s, payload=replace(body, **changes).payload()))


def misplaced(identifier: Identifier) -> Bundle:
    """The zone's own key speaks about what lies outside its zone."""
    return bundle(record(identifier, by=OWNER), links(), identifier)


def replayed(payload: bytes, signed_as: Kind, by: str, shown_as: str) -> Signed:
    """A genuine signature over one kind of statement, shown as another."""
    return replace(sign(signed_as, payload, signer(by)), payload_type=shown_as)


def with_receipt(**changes: Any) -> object:
    return trusted().check_receipt(receipt(record(), **changes), record(), Context.at(NOW))


def with_key(key: PublicKey) -> Bundle:
    """The parent hands this key out for the zone, and the record carries the signature that suits a weak one."""
    forged = Signature(key.key_id, "ed25519", (1).to_bytes(32, "little") + bytes(32))
    body, values = body_and_values()
    claimed = Record(Signed(RECORD_TYPE, body.payload(), (forged,)), values)
    keys = (ZoneKey(key, frozenset({Role.RECORD})), *zone_keys(ZONE)[-1:])
    return bundle(claimed, with_last(delegate(delegation(ZONE, keys=keys))))


def two_of_three(child: Signed) -> Bundle:
    """88.118 has three zone keys and wants two of them under each delegation."""
    owners = tuple(ZoneKey(public(f"owner {n}"), frozenset({Role.ZONE})) for n in (1, 2, 3))
    middle = delegate(delegation("88.118", keys=(*owners, *zone_keys("88.118")[1:]), zone_threshold=2))
    return bundle(delegations=(link(""), link("88"), middle, child))


def owned(*names: str) -> Signed:
    return delegate(delegation(ZONE), *names)


def repeated(signed: Signed, times: int = 2) -> Signed:
    return replace(signed, signatures=signed.signatures * times)


def renamed(signed: Signed, **changes: Any) -> Signed:
    return replace(signed, signatures=(replace(signed.signatures[0], **changes),))


def forged(signed: Signed) -> Signed:
    """A thief's signature under the owner's key id."""
    return renamed(sign(Kind.RECORD, signed.payload, signer("thief")), key_id=public(OWNER).key_id)


def resized(by: int) -> Callable[[Signed], Signed]:
    return lambda s: with_signature(s, (s.signatures[0].signature + b"\0")[: 64 + by])


def s_plus_l(signed: Signed) -> Signed:
    raw = signed.signatures[0].signature
    return with_signature(signed, raw[:32] + (int.from_bytes(raw[32:], "little") + L).to_bytes(32, "little"))


def swapped(values: tuple[Value, ...]) -> tuple[Value, ...]:
    """Each value's salt and data under the other's index."""
    return replace(values[1], index=values[0].index), replace(values[0], index=values[1].index)


def cut_elsewhere(values: tuple[Value, ...]) -> tuple[Value, ...]:
    """The same bytes under the digest: a longer salt, shorter data."""
    first = values[0]
    return Value(first.index, first.salt + first.data[:1], first.data[1:]), *values[1:]


SIGNERS = [
    Lie("record signed by the sibling's key", R.SIGNER_UNKNOWN, lambda: bundle(record(by="record of 88.118.9"))),
    Lie("record signed by the parent's record key", R.SIGNER_UNKNOWN, lambda: bundle(record(by="record of 88.118"))),
    Lie("record signed by the node key", R.SIGNER_UNKNOWN, lambda: bundle(record(by=NODE))),
    Lie("record signed by the zone key", R.SIGNER_UNKNOWN, lambda: bundle(record(by=f"zone of {ZONE}"))),
    Lie("denial signed by the record key", R.SIGNER_UNKNOWN, lambda: denied(denial(by=OWNER))),
    Lie("denial signed by the zone key", R.SIGNER_UNKNOWN, lambda: denied(denial(by=f"zone of {ZONE}"))),
    Lie("denial signed by the parent's node", R.SIGNER_UNKNOWN, lambda: denied(denial(by="node of 88.118"))),
    Lie("receipt signed by the record key", R.SIGNER_UNKNOWN, lambda: with_receipt(by=OWNER)),
    Lie("delegation signed by the record key", R.SIGNER_UNKNOWN, lambda: last_changed("record of 88.118")),
    Lie("delegation signed by the node key", R.SIGNER_UNKNOWN, lambda: last_changed("node of 88.118")),
    Lie("delegation signed by the child itself", R.SIGNER_UNKNOWN, lambda: last_changed(f"zone of {ZONE}")),
    Lie("delegation signed by the grandparent", R.SIGNER_UNKNOWN, lambda: last_changed("zone of 88")),
    Lie("delegation signed by the pinned key", R.SIGNER_UNKNOWN, lambda: last_changed("pinned root")),
    Lie("unknown signer beside the good one", R.SIGNER_UNKNOWN, lambda: last_changed("zone of 88.118", "thief")),
    Lie("owner's key id on a thief's signature", R.SIGNATURE_INVALID, lambda: with_signed(forged)),
    Lie("other algorithm on it", R.SIGNER_UNKNOWN, lambda: with_signed(lambda s: renamed(s, algorithm="none"))),
    Lie("algorithm in capitals", R.SIGNER_UNKNOWN, lambda: with_signed(lambda s: renamed(s, algorithm="ED25519"))),
    Lie("no signature", R.SIGNATURE_MISSING, lambda: with_signed(lambda s: replace(s, signatures=()))),
    Lie("record signed twice by one key", R.SIGNER_UNKNOWN, lambda: with_signed(repeated)),
    Lie("nine signatures", R.TOO_MANY_SIGNATURES, lambda: with_signed(lambda s: repeated(s, 9))),
    Lie("threshold not met", R.THRESHOLD_NOT_MET, lambda: two_of_three(owned("owner 3"))),
    Lie("one owner counted twice", R.SIGNER_UNKNOWN, lambda: two_of_three(repeated(owned("owner 1")))),
    Lie("owner and thief", R.SIGNER_UNKNOWN, lambda: two_of_three(owned("owner 1", "thief"))),
]

BYTES = [
    Lie(
        "record signed as a delegation",
        R.SIGNATURE_INVALID,
        lambda: with_signed(lambda s: replayed(s.payload, Kind.DELEGATION, OWNER, RECORD_TYPE)),
    ),
    Lie(
        "denial signed as a record",
        R.SIGNATURE_INVALID,
        lambda: denied(replayed(denial().payload, Kind.RECORD, NODE, DENIAL_TYPE)),
    ),
    Lie(
        "denial signed as a receipt",
        R.SIGNATURE_INVALID,
        lambda: denied(replayed(denial().payload, Kind.RECEIPT, NODE, DENIAL_TYPE)),
    ),
    Lie("receipt in place of a denial", R.PAYLOAD_TYPE_UNKNOWN, lambda: denied(receipt(record()))),
    Lie("record in place of a delegation", R.PAYLOAD_TYPE_UNKNOWN, lambda: bundle(None, with_last(record().signed))),
    Lie("delegation in place of a record", R.PAYLOAD_TYPE_UNKNOWN, lambda: with_signed(lambda _: link(ZONE))),
    Lie("denial's body signed as a record", R.FIELD_MISSING, lambda: bundle(signed_record(denial().payload))),
    Lie(
        "payload type changed",
        R.PAYLOAD_TYPE_UNKNOWN,
        lambda: with_signed(lambda s: replace(s, payload_type="application/json")),
    ),
    Lie(
        "payload type in capitals",
        R.PAYLOAD_TYPE_UNKNOWN,
        lambda: with_signed(lambda s: replace(s, payload_type=RECORD_TYPE.upper())),
    ),
    Lie("status changed", R.SIGNATURE_INVALID, lambda: rewritten(status=Status.SUSPENDED)),
    Lie("record re-dated", R.SIGNATURE_INVALID, lambda: rewritten(issued_at=NOW - 1)),
    Lie("record with a longer life", R.SIGNATURE_INVALID, lambda: rewritten(ttl_seconds=172_800)),
    Lie("record under another name", R.SIGNATURE_INVALID, lambda: rewritten(identifier=OTHER)),
    Lie(
        "denial under another name",
        R.SIGNATURE_INVALID,
        lambda: denied(replace(denial(OTHER), payload=denial().payload)),
    ),
    Lie("S raised by the group's order", R.SIGNATURE_INVALID, lambda: with_signed(s_plus_l)),
    Lie("signature of 63 bytes", R.SIGNATURE_INVALID, lambda: with_signed(resized(-1))),
    Lie("signature of 65 bytes", R.SIGNATURE_INVALID, lambda: with_signed(resized(1))),
    Lie("empty signature", R.SIGNATURE_INVALID, lambda: with_signed(resized(-64))),
]

VALUES = [
    Lie("value added", R.VALUE_UNSIGNED, lambda: with_values(lambda v: (*v, Value(3, bytes(16), b"genuine")))),
    Lie("value changed", R.VALUE_CHANGED, lambda: with_values(lambda v: (replace(v[0], data=b"x"), v[1]))),
    Lie("salt changed", R.VALUE_CHANGED, lambda: with_values(lambda v: (replace(v[0], salt=bytes(16)), v[1]))),
    Lie("salt and data cut elsewhere", R.VALUE_CHANGED, lambda: with_values(cut_elsewhere)),
    Lie("values under each other's index", R.VALUE_CHANGED, lambda: with_values(swapped)),
    Lie("value under a free index", R.VALUE_UNSIGNED, lambda: with_values(lambda v: (replace(v[0], index=7),))),
    Lie("value shown twice", R.VALUE_DUPLICATE, lambda: with_values(lambda v: (v[0], *v))),
    Lie("values in another order", R.VALUE_DUPLICATE, lambda: with_values(lambda v: v[::-1])),
    Lie("value with index 0", R.VALUE_DUPLICATE, lambda: with_values(lambda v: (replace(v[0], index=0), *v))),
    Lie("value with a negative index", R.VALUE_DUPLICATE, lambda: with_values(lambda v: (replace(v[0], index=-1), *v))),
]

NAMES = [
    Lie("record of another identifier", R.RECORD_WRONG_IDENTIFIER, lambda: bundle(record(OTHER))),
    Lie("record in another case", R.RECORD_WRONG_IDENTIFIER, lambda: bundle(record(LOWER))),
    Lie("record beside the zone", R.RECORD_OUT_OF_ZONE, lambda: misplaced(SIBLING)),
    Lie("record above the zone", R.RECORD_OUT_OF_ZONE, lambda: misplaced(ABOVE)),
    Lie("prefix that only begins alike", R.RECORD_OUT_OF_ZONE, lambda: misplaced(ALIKE)),
    Lie("record from the future", R.RECORD_FROM_FUTURE, lambda: bundle(record(issued_at=NOW + 31))),
    Lie("receipt for another record", R.RECEIPT_WRONG_RECORD, lambda: with_receipt(record_hash=bytes(32))),
    Lie("receipt of another zone", R.RECEIPT_WRONG_RECORD, lambda: with_receipt(zone=SIBLING.prefix)),
    Lie("receipt that names another identifier", R.RECEIPT_WRONG_RECORD, lambda: with_receipt(identifier=OTHER)),
    Lie("receipt that names another version", R.RECEIPT_WRONG_RECORD, lambda: with_receipt(version=2)),
    Lie("denial of another name", R.DENIAL_WRONG_IDENTIFIER, lambda: denied(denial(OTHER))),
    Lie("denial for another zone", R.DENIAL_WRONG_ZONE, lambda: denied(denial(zone="88.118", by=NODE))),
    Lie("denial beside its zone", R.DENIAL_WRONG_ZONE, lambda: denied(denial(SIBLING), links(), SIBLING)),
    Lie("denial for 61 s", R.DENIAL_TOO_LONG, lambda: denied(denial(issued_at=NOW, expires=NOW + 61))),
    Lie("denial that ends early", R.DENIAL_TOO_LONG, lambda: denied(denial(issued_at=NOW + 9, expires=NOW + 8))),
    Lie("expired denial", R.DENIAL_EXPIRED, lambda: denied(denial(issued_at=NOW - 60, expires=NOW - 1))),
    Lie("post-dated denial", R.DENIAL_NOT_YET_VALID, lambda: denied(denial(issued_at=NOW + 31, expires=NOW + 60))),
]

LIES = [*SIGNERS, *BYTES, *VALUES, *NAMES]


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_lie_is_refused_for_its_own_reason(lie: Lie) -> None:
    assert reason_of(lie.told) is lie.reason


def test_each_lie_is_told_once() -> None:
    assert len({lie.name for lie in LIES}) == len(LIES)


@pytest.mark.parametrize("raw", LOW_ORDER, ids=bytes.hex)
def test_no_key_of_low_order_is_believed_though_it_verifies_everything(raw: bytes) -> None:
    assert reason_of(lambda: with_key(PublicKey(Algorithm.ED25519, raw, "0" * 32))) is R.KEY_LOW_ORDER


@pytest.mark.parametrize("raw", LOW_ORDER, ids=bytes.hex)
def test_no_r_of_low_order_verifies(raw: bytes) -> None:
    lie = with_signed(lambda s: with_signature(s, raw + s.signatures[0].signature[32:]))
    assert reason_of(lambda: lie) is R.SIGNATURE_INVALID


@pytest.mark.parametrize("y", [2**255 - 19 + 2, 2**255 - 19 + 3, 2**255 - 1])
@pytest.mark.parametrize("x_is_odd", [0, 1])
def test_no_key_in_another_encoding_is_believed(y: int, x_is_odd: int) -> None:
    raw = (y | x_is_odd << 255).to_bytes(32, "little")
    assert reason_of(lambda: with_key(PublicKey(Algorithm.ED25519, raw, "0" * 32))) is R.KEY_MALFORMED


def test_a_key_off_the_curve_verifies_nothing() -> None:
    assert reason_of(lambda: with_key(PublicKey.of((2).to_bytes(32, "little")))) is R.SIGNATURE_INVALID


def test_the_truth_is_accepted() -> None:
    assert report(bundle()).verdict is Verdict.FOUND
    assert report(bundle(tombstone())).verdict is Verdict.GONE
    assert report(denied(denial())).verdict is Verdict.ABSENT
    ended = bundle(Revoked(Prefix.parse(ZONE)), with_last(delegate(revocation(ZONE))))
    assert report(ended).verdict is Verdict.GONE
    assert report(two_of_three(owned("owner 1", "owner 3"))).verdict is Verdict.FOUND
    assert report(with_values(lambda v: v[1:])).withheld == (1,)
    checked = trusted().check_receipt(receipt(record()), record(), Context.at(NOW))
    assert (checked.identifier, checked.version) == (ITEM, 1)


def test_limits_of_time_are_exact() -> None:
    assert report(bundle(record(issued_at=NOW + 30))).valid
    assert report(denied(denial(issued_at=NOW + 30, expires=NOW + 90))).valid
    assert report(denied(denial(issued_at=NOW - 60, expires=NOW))).valid

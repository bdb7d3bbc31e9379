"""Intake: whose zone, whose signature, which body; and nothing of the body is believed before the check."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from idtrace import signature
from idtrace.errors import IdtraceError, InputError, Reason, RefusedError, VerificationError
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Record, Value
from idtrace.seal import seal
from idtrace.statements import PrefixStatus
from registry.admission import Intent, Proposal
from registry.authority import Authority
from registry.intake import (
    Batch,
    OpenedBatch,
    Taking,
    check_key,
    open_sealed,
    request_hash,
    take,
    take_sealed,
    writable_zone,
)
from registry.storage import SealedIn
from tests.core_fixtures import NOW, delegation, record, revocation, signed_record, signer
from tests.registry_fixtures import authority_for, body_of, hand_out, hosted, mangled, typed_record

R = Reason
A = "88.118.8/A"


def taken(given: Record, authority: Authority | None = None, key: str = "key-00001", now: int = NOW) -> Proposal:
    own = authority or authority_for("88.118.8")
    return take(Intent.REGISTER, key, given, hashed=request_hash(Intent.REGISTER, b"as sent"), authority=own, now=now)


def refusal(action: Callable[[], object]) -> tuple[type[IdtraceError], Reason, str]:
    with pytest.raises(IdtraceError) as caught:
        action()
    return type(caught.value), caught.value.reason, caught.value.field


def test_a_sound_record_becomes_a_proposal_of_its_deepest_zone() -> None:
    given = typed_record(A, {"lot": "L1"})
    request_hash = hashlib.sha256(b"register\0as sent").digest()
    expected = Proposal(Intent.REGISTER, "88.118.8", "key-00001", request_hash, given, body_of(given))
    assert taken(given) == expected
    below = typed_record("88.118.8.5/A", by="record of 88.118.8")
    assert taken(below).zone == "88.118.8"


def test_the_request_hash_tells_calls_and_bodies_apart() -> None:
    assert len({request_hash(intent, request) for intent in Intent for request in (b"", b"a")}) == 6


def test_a_class_of_a_zone_that_is_hosted_below_is_no_class_of_ours() -> None:
    own = authority_for("88.118.8", "88.118.8.5")
    with pytest.raises(RefusedError) as caught:
        taken(typed_record(A, class_id=Identifier.parse("88.118.8.5/class.x")), own)
    assert (caught.value.reason, caught.value.field) == (R.CLASS_UNKNOWN, "record.class")
    assert taken(typed_record(A, class_id=Identifier.parse("88.118.8.4/class.x")), own).zone == "88.118.8"


FORGED = typed_record(A, {"lot": "L1"})


@pytest.mark.parametrize(
    ("family", "reason", "field", "given"),
    [
        (InputError, R.FIELD_MISSING, "record.identifier", signed_record(b"\xff")),
        (InputError, R.FIELD_MALFORMED, "record.identifier", signed_record(b'{"identifier":1}')),
        (InputError, R.IDENTIFIER_NOT_CANONICAL, "record.identifier", signed_record(b'{"identifier":"A.b/c"}')),
        (RefusedError, R.NOT_AUTHORITATIVE, "record.identifier", typed_record("99.1/A")),
        (VerificationError, R.SIGNER_UNKNOWN, "record", typed_record(A, by="thief")),
        (VerificationError, R.SIGNER_UNKNOWN, "record", typed_record(A, by="record of 88.118")),
        (VerificationError, R.SIGNER_UNKNOWN, "record", typed_record(A, by="node of 88.118.8")),
        (VerificationError, R.SIGNER_UNKNOWN, "record", typed_record(A, by="zone of 88.118.8")),
        (VerificationError, R.SIGNATURE_INVALID, "record", replace(FORGED, signed=mangled(FORGED.signed))),
        (
            VerificationError,
            R.FIELD_MISSING,
            "record.version",
            signed_record(b'{"identifier":"88.118.8/A"}', by="record of 88.118.8"),
        ),
        (
            VerificationError,
            R.VALUE_CHANGED,
            "record.values[1]",
            replace(FORGED, values=(Value(1, FORGED.values[0].salt, b"L2"),)),
        ),
        (VerificationError, R.RECORD_FROM_FUTURE, "record.issued_at", typed_record(A, issued_at=NOW + 31)),
        (
            InputError,
            R.IDENTIFIER_MALFORMED,
            "record.identifier",
            typed_record("0195012345678903.1/A", by="record of "),
        ),
    ],
)
def test_each_broken_rule_has_its_reason_and_field(
    family: type[IdtraceError], reason: Reason, field: str, given: Record
) -> None:
    own = authority_for("") if reason is R.IDENTIFIER_MALFORMED else None
    assert refusal(lambda: taken(given, own)) == (family, reason, field)


@pytest.mark.parametrize("key", ["12345678", "k" * 64, "!~-_:;/+", "a" * 8])
def test_a_key_of_printable_ascii_is_taken(key: str) -> None:
    check_key(key)


@pytest.mark.parametrize(
    "key", ["1234567", "k" * 65, "with spaces", "line\nbreaks", "12345678\n", "zoë-12345", "\0" * 8]
)
def test_other_keys_are_refused(key: str) -> None:
    wanted = (InputError, R.FIELD_MALFORMED, "idempotency_key")
    assert refusal(lambda: check_key(key)) == refusal(lambda: taken(typed_record(A), key=key)) == wanted


def test_a_write_without_a_key_is_refused() -> None:
    assert refusal(lambda: check_key("")) == (InputError, R.FIELD_MISSING, "idempotency_key")


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        ("88.118", None),
        ("88.118.5", None),
        ("88.118.9", None),
        ("88.118.9.1", None),
        ("88.118.8", R.ZONE_DELEGATED),
        ("88.118.8.1", R.ZONE_DELEGATED),
        ("88.118.7", R.ZONE_DELEGATED),
        ("88.118.6", R.PREFIX_NOT_ENABLED),
        ("88.118.6.1", R.PREFIX_NOT_ENABLED),
        ("88", R.NOT_AUTHORITATIVE),
    ],
)
def test_writes_go_to_zones_that_are_held_here_and_enabled(prefix: str, reason: Reason | None) -> None:
    authority = authority_for("88.118")
    hand_out(authority, hosted("88.118.9"))
    hand_out(authority, delegation("88.118.8"))
    hand_out(authority, revocation("88.118.7"))
    hand_out(authority, hosted("88.118.6"), PrefixStatus.DISABLED)
    if reason is None:
        assert writable_zone(Prefix.parse(prefix), authority).within(Prefix.parse("88.118"))
        return
    wanted = (RefusedError, reason, "record.identifier")
    assert refusal(lambda: writable_zone(Prefix.parse(prefix), authority)) == wanted


def test_a_zone_below_a_disabled_one_takes_no_writes() -> None:
    authority = authority_for("88.118")
    hand_out(authority, hosted("88.118.6"), PrefixStatus.DISABLED)
    hand_out(authority, hosted("88.118.6.1"))
    wanted = (RefusedError, R.PREFIX_NOT_ENABLED, "record.identifier")
    assert refusal(lambda: writable_zone(Prefix.parse("88.118.6.1"), authority)) == wanted


def test_a_zone_whose_delegation_has_ended_takes_no_writes() -> None:
    late = record(issued_at=NOW)
    assert refusal(lambda: taken(late, now=NOW + 86_400))[1] is R.DELEGATION_EXPIRED


def batch_of(*records: Record, by: str = "record of 88.118.8", zone: str = "88.118.8", **changes: int) -> Batch:
    places = seal([one.hash for one in records], Prefix.parse(zone), signer(by), **{"issued_at": NOW} | changes)
    return Batch.of("key-00001", places[0].seal, [one.signed.payload for one in records], b"the seal as sent")


THREE = tuple(typed_record(f"88.118.8/{n}", {"lot": "L1"}) for n in range(3))


def opened(batch: Batch, authority: Authority | None = None) -> OpenedBatch:
    return open_sealed(batch, authority=authority or authority_for("88.118.8"), now=NOW)


def test_a_seal_over_what_was_sent_gives_each_record_its_place() -> None:
    own = authority_for("88.118.8")
    found = opened(batch_of(*THREE), own)
    assert found.zone == Prefix.parse("88.118.8")
    for number, one in enumerate(THREE):
        sent = Record(replace(one.signed, signatures=()), one.values, found.places[number])
        made = take_sealed(found, sent, b"hash", authority=own, now=NOW)
        hashes = tuple(record.hash for record in THREE)
        sealed_in = SealedIn(found.places[number], hashes)
        key = f"key-00001 {number}"
        assert made == Proposal(Intent.REGISTER, "88.118.8", key, b"hash", sent, body_of(one), sealed_in)
        with pytest.raises(InputError):
            check_key(key)  # no caller can choose it


def test_records_that_are_taken_together_are_what_they_are_alone_and_what_is_wrong_with_one_stays_its_own() -> None:
    own = authority_for("88.118.8")
    found = opened(batch_of(*THREE), own)
    taking = Taking(found, own, NOW)
    sent = [Record(replace(r.signed, signatures=()), r.values, found.places[n]) for n, r in enumerate(THREE)]
    with pytest.raises(VerificationError) as caught:
        taking.take(replace(sent[0], signed=sent[1].signed), b"hash")  # another body than the one that was sealed there
    assert caught.value.reason is R.SEAL_PATH
    together = [taking.take(one, b"hash") for one in sent]
    assert together == [take_sealed(found, one, b"hash", authority=own, now=NOW) for one in sent]
    path = replace(found.places[0], path=found.places[1].path)
    with pytest.raises(VerificationError) as caught:
        taking.take(replace(sent[0], sealed=path), b"hash")
    assert caught.value.reason is R.SEAL_PATH


def test_a_seal_is_checked_once_and_its_records_never_by_a_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    checks: list[bytes] = []
    sound = signature.valid

    def counted(key: signature.PublicKey, given: bytes, message: bytes) -> bool:
        checks.append(given)
        return sound(key, given, message)

    monkeypatch.setattr(signature, "valid", counted)
    own = authority_for("88.118.8")
    found = opened(batch_of(*THREE), own)
    links = len(checks) - 1
    for number, one in enumerate(THREE):
        sent = Record(replace(one.signed, signatures=()), one.values, found.places[number])
        take_sealed(found, sent, b"hash", authority=own, now=NOW)
    assert len(checks) == links + 1
    assert links == 4  # the chain down to the zone, once as well


def test_a_sealed_record_is_not_taken_without_its_batch() -> None:
    """The log would hold it under a seal that it does not hold, which is the mark of a lying node."""
    hashes = [one.hash for one in THREE]
    place = seal(hashes, Prefix.parse("88.118.8"), signer("record of 88.118.8"), issued_at=NOW)[0]
    alone = replace(THREE[0], signed=replace(THREE[0].signed, signatures=()), sealed=place)
    assert refusal(lambda: taken(alone)) == (InputError, R.FIELD_MALFORMED, "record.sealed")


@pytest.mark.parametrize(
    ("batch", "reason", "field"),
    [
        (batch_of(*THREE, by="thief"), R.SIGNER_UNKNOWN, "seal"),
        (batch_of(*THREE, by="node of 88.118.8"), R.SIGNER_UNKNOWN, "seal"),
        (batch_of(*THREE, issued_at=NOW + 31), R.RECORD_FROM_FUTURE, "seal.issued_at"),
        (batch_of(*THREE, zone="88.118.8.5"), R.SEAL_WRONG_ZONE, "seal.zone"),
        (batch_of(*THREE, zone="99.1"), R.NOT_AUTHORITATIVE, "seal.zone"),
        (replace(batch_of(*THREE), hashes=batch_of(*THREE[:2]).hashes), R.SEAL_PATH, "seal.size"),
        (replace(batch_of(*THREE), hashes=batch_of(*THREE[::-1]).hashes), R.SEAL_PATH, "seal.root"),
        (replace(batch_of(*THREE), seal=THREE[0].signed), R.FIELD_MISSING, "seal.zone"),
        (replace(batch_of(*THREE), seal=replace(batch_of(*THREE).seal, signatures=())), R.SIGNATURE_MISSING, "seal"),
    ],
)
def test_no_record_of_a_batch_is_looked_at_under_a_seal_that_is_not_its_own(
    batch: Batch, reason: Reason, field: str
) -> None:
    assert refusal(lambda: opened(batch))[1:] == (reason, field)


def test_a_sealed_record_that_carries_more_or_belongs_elsewhere_is_refused_alone() -> None:
    own = authority_for("88.118.8", "88.118.9")
    other = typed_record("88.118.9/A")
    found = opened(batch_of(THREE[0], other), own)

    def reason(one: Record, place: int, **changes: Any) -> Reason:
        sent = Record(replace(one.signed, signatures=()), one.values, found.places[place])
        sent = replace(sent, **changes)
        return refusal(lambda: take_sealed(found, sent, b"hash", authority=own, now=NOW))[1]

    assert reason(other, 1) is R.SIGNER_UNKNOWN
    assert reason(THREE[0], 0, signed=THREE[0].signed) is R.PAYLOAD_TYPE_UNKNOWN
    assert reason(THREE[0], 1) is R.SEAL_PATH
    assert reason(THREE[1], 0) is R.SEAL_PATH


def test_keys_and_hashes_of_items_tell_batches_seals_and_items_apart() -> None:
    one, other = batch_of(*THREE), replace(batch_of(*THREE), sent_hash=bytes(32))
    assert (
        len({one.item_hash(b"a"), one.item_hash(b"b"), other.item_hash(b"a"), request_hash(Intent.REGISTER, b"a")}) == 4
    )
    assert refusal(lambda: Batch.of("short", one.seal, [], b""))[1] is R.FIELD_MALFORMED

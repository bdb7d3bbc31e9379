"""Protobuf ⇄ domain: the only core module that knows the schema.

Reading is strict about sizes and presence and changes nothing: payload bytes go through as they came. Messages are
taken from gRPC as parsed; :func:`bundle_from_bytes` also refuses bytes that do not come out the same when written again
(unknown fields, other spellings of a length), so that no byte of a bundle file may change unnoticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from google.protobuf.message import DecodeError

from idtrace.bundle import BUNDLE_BYTES_MAX, Bundle, Denied, NodeAnswer, Referred, Revoked
from idtrace.canonical import BODY_BYTES_MAX
from idtrace.chain import LINKS_MAX
from idtrace.entry import HEAD_BYTES_MAX
from idtrace.errors import InputError, Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.logproof import CHECKPOINT_BYTES_MAX, LogProof
from idtrace.merkle import HASH_BYTES, PROOF_HASHES_MAX
from idtrace.record import (
    SALT_BYTES,
    SEAL_PATH_MAX,
    VALUE_BYTES_MAX,
    VALUE_INDEX_MAX,
    VALUES_MAX,
    Record,
    Sealed,
    Value,
)
from idtrace.signature import SIGNATURES_MAX, Signature, Signed
from idtrace.v1 import record_pb2 as pb

BUNDLE_FORMAT: Final = 1
_BYTE: Final = [bytes((number,)) for number in range(0x80)]
# So that a value with its frame of 22 bytes has a length of one byte.
_USUAL_DATA_MAX: Final = 0x7F - 22


def signed_to_pb(signed: Signed) -> pb.Signed:
    """Domain to message."""
    return pb.Signed(
        payload_type=signed.payload_type,
        payload=signed.payload,
        signatures=[
            pb.Signature(key_id=s.key_id, algorithm=s.algorithm, signature=s.signature) for s in signed.signatures
        ],
    )


def signed_from_pb(message: pb.Signed, field: str) -> Signed:
    """Message to domain.

    Raises:
        InputError: FIELD_MISSING (no payload) or FIELD_TOO_LARGE.
    """
    if not message.payload:
        raise InputError(Reason.FIELD_MISSING, "there is no payload", field=f"{field}.payload")
    _at_most(len(message.payload), BODY_BYTES_MAX, "bytes", f"{field}.payload")
    _at_most(len(message.signatures), SIGNATURES_MAX, "signatures", f"{field}.signatures")
    signatures = tuple(Signature(s.key_id, s.algorithm, s.signature) for s in message.signatures)
    return Signed(message.payload_type, message.payload, signatures)


def record_to_pb(record: Record) -> pb.Record:
    """Domain to message."""
    values = [pb.Value(index=v.index, salt=v.salt, data=v.data) for v in record.values]
    sealed = record.sealed
    if sealed is None:
        return pb.Record(signed=signed_to_pb(record.signed), values=values)
    under = pb.Sealed(seal=signed_to_pb(sealed.seal), position=sealed.position, path=sealed.path)
    return pb.Record(signed=signed_to_pb(record.signed), values=values, sealed=under)


def record_from_pb(message: pb.Record, field: str = "record") -> Record:
    """Message to domain.

    Raises:
        InputError: FIELD_MISSING, FIELD_TOO_LARGE or FIELD_MALFORMED.
    """
    values = values_from_pb(message.values, f"{field}.values")
    sealed = sealed_from_pb(message.sealed, f"{field}.sealed") if message.HasField("sealed") else None
    return Record(signed_from_pb(message.signed, f"{field}.signed"), values, sealed)


def sealed_from_pb(message: pb.Sealed, field: str) -> Sealed:
    """Message to domain.

    Raises:
        InputError: FIELD_MISSING, FIELD_TOO_LARGE or FIELD_MALFORMED.
    """
    _at_most(len(message.path), SEAL_PATH_MAX, "hashes", f"{field}.path")
    return Sealed(signed_from_pb(message.seal, f"{field}.seal"), message.position, tuple(message.path))


def values_from_pb(messages: Sequence[pb.Value], field: str) -> tuple[Value, ...]:
    """Messages to domain.

    Raises:
        InputError: FIELD_TOO_LARGE or FIELD_MALFORMED.
    """
    _at_most(len(messages), VALUES_MAX, "values", field)
    values = []
    for position, message in enumerate(messages):
        value = Value(message.index, message.salt, message.data)
        if not 0 < value.index <= VALUE_INDEX_MAX or len(value.salt) != SALT_BYTES or len(value.data) > VALUE_BYTES_MAX:
            _refuse_value(value, f"{field}[{position}]")
        values.append(value)
    return tuple(values)


def _refuse_value(value: Value, where: str) -> None:
    if not 0 < value.index <= VALUE_INDEX_MAX:
        raise InputError(Reason.FIELD_MALFORMED, "an index is within 1 and 2**31 - 1", field=f"{where}.index")
    if len(value.salt) != SALT_BYTES:
        raise InputError(Reason.FIELD_MALFORMED, f"a salt has {SALT_BYTES} bytes", field=f"{where}.salt")
    _at_most(len(value.data), VALUE_BYTES_MAX, "bytes", f"{where}.data")


def proof_to_pb(proof: LogProof) -> pb.LogProof:
    """Domain to message."""
    return pb.LogProof(index=proof.index, path=proof.path, checkpoint=proof.checkpoint, head=proof.head)


def proof_from_pb(message: pb.LogProof, field: str = "proof") -> LogProof:
    """Message to domain.

    Raises:
        InputError: FIELD_TOO_LARGE.
    """
    _at_most(len(message.path), PROOF_HASHES_MAX, "hashes", f"{field}.path")
    _at_most(len(message.checkpoint), CHECKPOINT_BYTES_MAX, "bytes", f"{field}.checkpoint")
    _at_most(len(message.head), HEAD_BYTES_MAX, "bytes", f"{field}.head")
    return LogProof(message.index, tuple(message.path), message.checkpoint, message.head)


def record_to_bytes(record: Record) -> bytes:
    """The form in which a store keeps a record."""
    values = _usual_values(record.values)
    sealed = b"" if record.sealed is None else _usual_sealed(record.sealed)
    if values is None or sealed is None:
        return record_to_pb(record).SerializeToString(deterministic=True)
    signed = signed_to_bytes(record.signed)
    return b"".join((b"\x0a", _varint(len(signed)), signed, *values, sealed))


# The bytes of the message put together by hand, where lengths and numbers are those that nearly all have: a third of
# what it costs to make the messages first, and a test holds both to the same bytes.
def _usual_values(values: Sequence[Value]) -> list[bytes] | None:
    parts: list[bytes] = []
    for value in values:
        index, salt, data = value.index, value.salt, value.data
        size = len(data)
        if not (0 < index < 0x80 and len(salt) == SALT_BYTES and 0 < size <= _USUAL_DATA_MAX):
            return None
        # values = 2 { index = 1; salt = 2 of 16 bytes; data = 3 }
        parts += (b"\x12", _BYTE[size + 22], b"\x08", _BYTE[index], b"\x12\x10", salt, b"\x1a", _BYTE[size], data)
    return parts


def _usual_sealed(sealed: Sealed) -> bytes | None:
    path = sealed.path
    if not sealed.position or not path or {*map(len, path)} != {HASH_BYTES}:
        return None
    # sealed = 3 { seal = 1; position = 2; path = 3, each of 32 bytes }
    body = b"".join((_seal_part(sealed.seal), b"\x10", _varint(sealed.position), b"\x1a\x20", b"\x1a\x20".join(path)))
    return b"".join((b"\x1a", _varint(len(body)), body))


@lru_cache(maxsize=64)  # of 500 bytes: a batch's seal is kept with each of its 2,000 records
def _seal_part(seal: Signed) -> bytes:
    data = signed_to_bytes(seal)
    return b"\x0a" + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    """A number (> 0) in groups of seven bits, the lowest first (protobuf.dev, Encoding)."""
    groups = bytearray()
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def record_from_bytes(data: bytes) -> Record:
    """Read what :func:`record_to_bytes` wrote.

    Raises:
        InputError: FIELD_MALFORMED where the bytes are something else, or a part's own reason.
    """
    try:
        message = pb.Record.FromString(data)
    except DecodeError:
        raise InputError(Reason.FIELD_MALFORMED, "these are not the bytes of a record", field="record") from None
    return record_from_pb(message)


def signed_to_bytes(signed: Signed) -> bytes:
    """The form in which a store or a file keeps a signed statement."""
    return signed_to_pb(signed).SerializeToString(deterministic=True)


def signed_from_bytes(data: bytes, field: str = "signed") -> Signed:
    """Read what :func:`signed_to_bytes` wrote.

    Raises:
        InputError: FIELD_MALFORMED where the bytes are something else.
    """
    try:
        message = pb.Signed.FromString(data)
    except DecodeError:
        raise InputError(Reason.FIELD_MALFORMED, "these are not the bytes of a signed statement", field=field) from None
    return signed_from_pb(message, field)


def delegations_from_pb(messages: Sequence[pb.Signed], field: str = "delegations") -> tuple[Signed, ...]:
    """Messages to domain, at most nine.

    Raises:
        InputError: CHAIN_TOO_DEEP, or what :func:`signed_from_pb` raises.
    """
    if len(messages) > LINKS_MAX:
        raise InputError(Reason.CHAIN_TOO_DEEP, f"a chain has at most {LINKS_MAX} links", field=field)
    return tuple(signed_from_pb(message, f"{field}[{position}]") for position, message in enumerate(messages))


def answer_to_pb(answer: NodeAnswer) -> pb.NodeAnswer:
    """Domain to message."""
    message = pb.NodeAnswer(delegations=[signed_to_pb(signed) for signed in answer.delegations])
    _set_standing(message, answer.proof, answer.currency)
    match answer.outcome:
        case Record() as record:
            message.record.CopyFrom(record_to_pb(record))
        case Denied(signed):
            message.denial.signed.CopyFrom(signed_to_pb(signed))
        case referred:
            message.referral.zone = str(referred.zone)
            message.referral.SetInParent()
    return message


def answer_from_pb(message: pb.NodeAnswer) -> NodeAnswer:
    """Message to domain.

    Raises:
        InputError: ANSWER_EMPTY where no outcome is set, or a part's own reason.
    """
    delegations = delegations_from_pb(message.delegations, "answer.delegations")
    match message.WhichOneof("outcome"):
        case "record":
            record = record_from_pb(message.record, "answer.record")
            return NodeAnswer(delegations, record, *_standing(message, "answer"))
        case "denial":
            return NodeAnswer(delegations, Denied(signed_from_pb(message.denial.signed, "answer.denial")))
        case "referral":
            zone = Prefix.parse_canonical(message.referral.zone, field="answer.referral.zone")
            return NodeAnswer(delegations, Referred(zone))
        case _:
            raise InputError(Reason.ANSWER_EMPTY, "the answer says nothing", field="answer.outcome")


def bundle_to_pb(bundle: Bundle) -> pb.Bundle:
    """Domain to message."""
    message = pb.Bundle(
        format=BUNDLE_FORMAT,
        identifier=str(bundle.identifier),
        delegations=[signed_to_pb(signed) for signed in bundle.delegations],
        digest=bundle.digest(),
    )
    _set_outcome(message, bundle.outcome)
    _set_standing(message, bundle.proof, bundle.currency)
    return message


def bundle_from_pb(message: pb.Bundle) -> Bundle:
    """Message to domain; the digest is checked.

    Raises:
        InputError: BUNDLE_MALFORMED, BUNDLE_DIGEST, or a part's own reason.
    """
    if message.format != BUNDLE_FORMAT:
        raise InputError(Reason.BUNDLE_MALFORMED, f"the format is not {BUNDLE_FORMAT}", field="bundle.format")
    identifier = Identifier.parse_canonical(message.identifier, field="bundle.identifier")
    delegations = delegations_from_pb(message.delegations, "bundle.delegations")
    bundle = Bundle(identifier, delegations, _outcome(message), *_standing(message, "bundle"))
    if message.digest != bundle.digest():
        raise InputError(Reason.BUNDLE_DIGEST, "the bundle is torn: its digest differs", field="bundle.digest")
    return bundle


def bundle_to_bytes(bundle: Bundle) -> bytes:
    """Binary form of a bundle file."""
    return bundle_to_pb(bundle).SerializeToString(deterministic=True)


def bundle_from_bytes(data: bytes) -> Bundle:
    """Read the binary form, strictly.

    Raises:
        InputError: BUNDLE_MALFORMED, BUNDLE_DIGEST, or a part's own reason.
    """
    if len(data) > BUNDLE_BYTES_MAX:
        raise InputError(Reason.BUNDLE_MALFORMED, f"a bundle has at most {BUNDLE_BYTES_MAX} bytes", field="bundle")
    try:
        message = pb.Bundle.FromString(data)
    except DecodeError:
        raise InputError(Reason.BUNDLE_MALFORMED, "these are not the bytes of a bundle", field="bundle") from None
    bundle = bundle_from_pb(message)
    if bundle_to_bytes(bundle) != data:
        raise InputError(Reason.BUNDLE_MALFORMED, "the bundle is not in the form we write", field="bundle")
    return bundle


@dataclass(frozen=True, slots=True)
class Said:
    """What a zone has said: about whom (text), what, and what came beside it; a bundle without its delegations."""

    about: str
    outcome: Record | Denied | Revoked
    proof: LogProof | None
    currency: Signed | None


def outcome_to_bytes(bundle: Bundle) -> bytes:
    """A bundle without its delegations and its digest: what :func:`outcome_from_authenticated` reads."""
    message = pb.Bundle(identifier=str(bundle.identifier))
    _set_outcome(message, bundle.outcome)
    _set_standing(message, bundle.proof, bundle.currency)
    return message.SerializeToString(deterministic=True)


def outcome_from_authenticated(data: bytes) -> Said:
    """What :func:`outcome_to_bytes` has written, from bytes that are **known to be our own**.

    For ``resolver/shared_bodies.py`` alone, after a MAC has shown that a holder of the shared key wrote these very
    bytes. There is no digest, and the form is not checked: strictness about the form keeps strangers from changing a
    file unnoticed, costs as much as all the rest of a reading, and here the MAC has covered every byte already.
    Whoever has bytes from anywhere else calls :func:`bundle_from_bytes`.

    Raises:
        InputError: BUNDLE_MALFORMED, or a part's own reason.
    """
    try:
        message = pb.Bundle.FromString(data)
    except DecodeError:
        raise InputError(Reason.BUNDLE_MALFORMED, "these are not the bytes of an outcome", field="outcome") from None
    return Said(message.identifier, _outcome(message), *_standing(message, "outcome"))


def _set_outcome(message: pb.Bundle, outcome: Record | Denied | Revoked) -> None:
    match outcome:
        case Record() as record:
            message.record.CopyFrom(record_to_pb(record))
        case Denied(signed):
            message.denial.signed.CopyFrom(signed_to_pb(signed))
        case revoked:
            message.revocation.zone = str(revoked.zone)
            message.revocation.SetInParent()


def _outcome(message: pb.Bundle) -> Record | Denied | Revoked:
    match message.WhichOneof("outcome"):
        case "record":
            return record_from_pb(message.record, "bundle.record")
        case "denial":
            return Denied(signed_from_pb(message.denial.signed, "bundle.denial"))
        case "revocation":
            return Revoked(Prefix.parse_canonical(message.revocation.zone, field="bundle.revocation.zone"))
        case _:
            raise InputError(Reason.BUNDLE_MALFORMED, "the bundle has no outcome", field="bundle.outcome")


def _set_standing(message: pb.Bundle | pb.NodeAnswer, proof: LogProof | None, currency: Signed | None) -> None:
    if proof is not None:
        message.proof.CopyFrom(proof_to_pb(proof))
    if currency is not None:
        message.currency.CopyFrom(signed_to_pb(currency))


def _standing(message: pb.Bundle | pb.NodeAnswer, field: str) -> tuple[LogProof | None, Signed | None]:
    proof = proof_from_pb(message.proof, f"{field}.proof") if message.HasField("proof") else None
    currency = signed_from_pb(message.currency, f"{field}.currency") if message.HasField("currency") else None
    return proof, currency


def _at_most(count: int, most: int, unit: str, field: str) -> None:
    if count > most:
        raise InputError(Reason.FIELD_TOO_LARGE, f"{count} {unit} are more than {most}", field=field)

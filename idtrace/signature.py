"""Keys, and signatures over exact bytes.

What is signed is ``domain ‖ 0x00 ‖ u32 len(type) ‖ type ‖ u64 len(payload) ‖ payload`` (big-endian): every kind of
statement has its own domain, and lengths frame the parts, so a signature over one thing is never one over another.
The hash of a signed thing is SHA-256 over the same bytes. A payload is checked as received and never re-serialised.

Ed25519 as in RFC 8032, and stricter than the usual library: a public key or an R of low order is refused. The identity
point as a key "verifies" every message, and verifiers differ on such inputs, so ours takes the side of "no" (CCTV
ed25519 edge vectors; Chalkias et al., "Taming the many EdDSAs").
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import lru_cache
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from idtrace.errors import InputError, Reason, VerificationError, quoted

# A zone key set has few signers; the bound keeps one answer from costing more than a handful of checks (KeyTrap).
SIGNATURES_MAX: Final = 8
_P: Final = 2**255 - 19


class Algorithm(StrEnum):
    """Signature algorithms that may be used; the allow-list, with room for ML-DSA and SM2."""

    ED25519 = "ed25519"


class Kind(Enum):
    """What a signature is about: (domain, payload type)."""

    RECORD = ("idtrace/record/v1", "application/vnd.idtrace.record.v1+json")
    DELEGATION = ("idtrace/delegation/v1", "application/vnd.idtrace.delegation.v1+json")
    DENIAL = ("idtrace/denial/v1", "application/vnd.idtrace.denial.v1+json")
    RECEIPT = ("idtrace/receipt/v1", "application/vnd.idtrace.receipt.v1+json")
    ENROLMENT = ("idtrace/enrolment/v1", "application/vnd.idtrace.enrolment.v1+json")
    APPLICATION = ("idtrace/application/v1", "application/vnd.idtrace.application.v1+json")
    SEAL = ("idtrace/seal/v1", "application/vnd.idtrace.seal.v1+json")
    CURRENCY = ("idtrace/currency/v1", "application/vnd.idtrace.currency.v1+json")
    COMMAND = ("idtrace/command/v1", "application/vnd.idtrace.command.v1+json")
    ROOT_KEYS = ("idtrace/root-keys/v1", "application/vnd.idtrace.root-keys.v1+json")
    VERDICT = ("idtrace/verdict/v1", "application/vnd.idtrace.verdict.v1+json")

    @property
    def domain(self) -> bytes:
        """Domain string of the signature."""
        return self.value[0].encode()

    @property
    def payload_type(self) -> str:
        """Media type of the payload."""
        return self.value[1]


def _low_order_encodings() -> frozenset[bytes]:
    """The 14 encodings of the 8 points of small order: canonical ones, and those with y + p or a set sign bit on x = 0.

    The y coordinates are 0, 1, -1 and the two of order 8 (RFC 8032 §5.1; list checked in CCTV ed25519/README.md).
    """
    order8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
    encodings = set()
    for y in (0, 1, _P - 1, order8, _P - order8, _P, _P + 1):
        for sign in (0, 1):
            encodings.add((y | sign << 255).to_bytes(32, "little"))
    return frozenset(encodings)


def _frame(kind: Kind) -> bytes:
    """What stands before length and payload of every signed thing of a kind."""
    name = kind.payload_type.encode()
    return b"".join((kind.domain, b"\0", struct.pack(">I", len(name)), name))


_FRAMES: Final = {kind: _frame(kind) for kind in Kind}
# One signature stands for many questions: worth remembering.
_REPEATING: Final = frozenset({Kind.SEAL, Kind.DELEGATION})
LOW_ORDER: Final = _low_order_encodings()


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key that may sign: right length, canonical, not of low order.

    Text form: ``ed25519:`` and 44 characters of base64.
    """

    algorithm: Algorithm
    raw: bytes
    key_id: str

    @classmethod
    def of(cls, raw: bytes, algorithm: Algorithm = Algorithm.ED25519, *, field: str = "key") -> PublicKey:
        """Check 32 raw bytes.

        Raises:
            InputError: KEY_MALFORMED or KEY_LOW_ORDER.
        """
        if len(raw) != 32:
            raise InputError(Reason.KEY_MALFORMED, "an ed25519 public key has 32 bytes", field=field)
        if raw in LOW_ORDER:
            raise InputError(Reason.KEY_LOW_ORDER, "a key of low order would verify forged signatures", field=field)
        if int.from_bytes(raw, "little") & (2**255 - 1) >= _P:
            raise InputError(Reason.KEY_MALFORMED, "the key is not in canonical encoding", field=field)
        named = algorithm.encode() + b"\0" + raw
        return cls(algorithm, raw, hashlib.sha256(b"idtrace/key/v1\0" + named).hexdigest()[:32])

    @classmethod
    def parse(cls, text: str, *, field: str = "key") -> PublicKey:
        """Read the text form.

        Raises:
            InputError: ALGORITHM_UNKNOWN, KEY_MALFORMED or KEY_LOW_ORDER.
        """
        name, _, encoded = text.partition(":")
        if name not in tuple(Algorithm):
            raise InputError(Reason.ALGORITHM_UNKNOWN, f"no such algorithm as {quoted(name)}", field=field)
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise InputError(Reason.KEY_MALFORMED, "the key is not in base64", field=field) from None
        key = cls.of(raw, Algorithm(name), field=field)
        if str(key) != text:
            raise InputError(Reason.KEY_MALFORMED, "the key is not in canonical base64", field=field)
        return key

    def __str__(self) -> str:
        return f"{self.algorithm}:{base64.b64encode(self.raw).decode()}"


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature: 16-byte key id in hex, algorithm name, 64 bytes."""

    key_id: str
    algorithm: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class Signed:
    """Exact bytes, their media type, and who signed them. Holding one proves nothing: see :func:`verify`."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]


class Signer(Protocol):
    """Whatever can sign with a private key: a file's content, or a hardware module."""

    @property
    def public_key(self) -> PublicKey:
        """Key that verifies what :meth:`sign` makes."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Signature over the message; for ed25519 64 bytes."""
        ...


class MemorySigner:
    """A signer whose private key lies in this process's memory."""

    __slots__ = ("_private", "public_key")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public_key = PublicKey.of(private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Ed25519 over the message (44 µs)."""
        return self._private.sign(message)


class SignatureMemory:
    """Signatures that have been found valid, by what a check depends on: key, signature and exact bytes.

    For those that come again and again, seals and delegations: a check costs 157 µs and a look here 2 µs. Only what is
    valid gets in, so nobody can put a lie here, and what is forgotten is checked again.
    """

    # A digest of 32 bytes takes 150 in all; the seals and delegations of a day's hot set.
    MOST: Final = 16_384

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, None] = {}

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._known

    def add(self, digest: bytes) -> None:
        """Remember; the oldest is forgotten where there are too many."""
        self._known[digest] = None
        if len(self._known) > self.MOST:
            del self._known[next(iter(self._known))]


class CheckBudget:
    """How many signature checks one question may still cost; one object a question, never reset.

    With a ``memory`` a seal or a delegation that it knows costs nothing.
    """

    __slots__ = ("left", "memory")

    def __init__(self, checks: int, memory: SignatureMemory | None = None) -> None:
        self.left = checks
        self.memory = memory

    def spend(self) -> None:
        """Pay for one check.

        Raises:
            VerificationError: TOO_MUCH_CRYPTO.
        """
        if self.left <= 0:
            raise VerificationError(Reason.TOO_MUCH_CRYPTO, "the answer needs more signature checks than one may cost")
        self.left -= 1


def framed(kind: Kind, payload: bytes) -> bytes:
    """The bytes that are signed and hashed for a payload of this kind."""
    return b"".join((_FRAMES[kind], len(payload).to_bytes(8, "big"), payload))


def signed_hash(kind: Kind, payload: bytes) -> bytes:
    """SHA-256, 32 bytes, of a signed thing; for records this is the record hash of design and log."""
    return hashlib.sha256(framed(kind, payload)).digest()


def sign(kind: Kind, payload: bytes, *signers: Signer) -> Signed:
    """Sign a payload with one or more keys."""
    message = framed(kind, payload)
    signatures = tuple(Signature(s.public_key.key_id, str(s.public_key.algorithm), s.sign(message)) for s in signers)
    return Signed(kind.payload_type, payload, signatures)


def verify(
    signed: Signed,
    kind: Kind,
    keys: Mapping[str, PublicKey],
    *,
    budget: CheckBudget,
    threshold: int = 1,
    field: str = "signed",
) -> None:
    """Check that the exact payload is signed by at least ``threshold`` of ``keys`` (by key id), and by nobody else.

    A signature that is present has to be valid and by a known key: one that is ignored could be changed by anyone.

    Raises:
        VerificationError: PAYLOAD_TYPE_UNKNOWN, SIGNATURE_MISSING, TOO_MANY_SIGNATURES, SIGNER_UNKNOWN,
            SIGNATURE_INVALID, THRESHOLD_NOT_MET or TOO_MUCH_CRYPTO.
    """
    if signed.payload_type != kind.payload_type:
        raise VerificationError(
            Reason.PAYLOAD_TYPE_UNKNOWN, f"expected {kind.payload_type}, got {quoted(signed.payload_type)}", field=field
        )
    if not signed.signatures:
        raise VerificationError(Reason.SIGNATURE_MISSING, "there is no signature", field=field)
    if len(signed.signatures) > SIGNATURES_MAX:
        raise VerificationError(Reason.TOO_MANY_SIGNATURES, f"more than {SIGNATURES_MAX} signatures", field=field)
    message = framed(kind, signed.payload)
    seen: set[str] = set()
    for signature in signed.signatures:
        key = keys.get(signature.key_id)
        if key is None or key.algorithm != signature.algorithm or signature.key_id in seen:
            raise VerificationError(
                Reason.SIGNER_UNKNOWN, f"key {quoted(signature.key_id)} may not sign this", field=field
            )
        if not _checked(key, signature.signature, message, budget, repeats=kind in _REPEATING):
            raise VerificationError(
                Reason.SIGNATURE_INVALID,
                f"the signature by key {signature.key_id} is not one over these bytes",
                field=field,
            )
        seen.add(signature.key_id)
    if len(seen) < threshold:
        raise VerificationError(Reason.THRESHOLD_NOT_MET, f"{len(seen)} of {threshold} signatures", field=field)


@lru_cache(maxsize=4096)  # a loaded key costs 7 µs; a node meets few thousand zones' keys in its hot set
def _loaded(raw: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(raw)


def _checked(key: PublicKey, signature: bytes, message: bytes, budget: CheckBudget, *, repeats: bool) -> bool:
    memory = budget.memory if repeats else None
    if memory is None:
        budget.spend()
        return valid(key, signature, message)
    digest = hashlib.sha256(b"".join((key.raw, len(signature).to_bytes(8, "big"), signature, message))).digest()
    if digest in memory:
        return True
    budget.spend()
    sound = valid(key, signature, message)
    if sound:
        memory.add(digest)
    return sound


def valid(key: PublicKey, signature: bytes, message: bytes) -> bool:
    """Whether this is the key's signature (64 bytes) over exactly this message; one of another length is none.

    For formats that frame what they sign themselves, such as notes; our own statements go through :func:`verify`.
    """
    if len(signature) != 64 or signature[:32] in LOW_ORDER:
        return False
    try:
        _loaded(key.raw).verify(signature, message)
    except InvalidSignature:
        return False
    return True

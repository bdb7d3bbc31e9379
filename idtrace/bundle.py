"""Answers and bundles: what a node says, and the file that proves it years later without any node.

A bundle holds the identifier, the delegations from the root down, and the outcome (record, denial or revocation). Its
``digest`` covers all of that in a framing that both forms share; it proves nothing about who wrote the file, but a torn
or truncated one is found before any signature is checked. Two forms with the same bytes inside: binary (the protobuf
message ``Bundle``; ``idtrace/wire.py``) and JSON (here), where payloads are readable text. Both are read strictly:
whatever does not come out the same when written again is refused, so no byte of a bundle may change unnoticed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from idtrace.canonical import Fields, Json
from idtrace.chain import LINKS_MAX
from idtrace.entry import HEAD_BYTES_MAX
from idtrace.errors import InputError, Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.logproof import CHECKPOINT_BYTES_MAX, LogProof
from idtrace.merkle import PROOF_HASHES_MAX
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

# Nine delegations and a record with 256 values of 4 KiB, base64: what a scanner has to hold in memory at worst.
BUNDLE_BYTES_MAX: Final = 2_097_152
JSON_FORMAT: Final = "idtrace-bundle/v1"


class Verdict(StrEnum):
    """What is true of an identifier. BOGUS (someone lied) is never merged with UNREACHABLE (nobody answered)."""

    FOUND = "FOUND"
    ABSENT = "ABSENT"
    GONE = "GONE"
    UNREACHABLE = "UNREACHABLE"
    BOGUS = "BOGUS"


@dataclass(frozen=True, slots=True)
class Denied:
    """Outcome: a signed denial."""

    signed: Signed


@dataclass(frozen=True, slots=True)
class Referred:
    """Outcome of a node's answer: ask the zone that the last delegation names."""

    zone: Prefix


@dataclass(frozen=True, slots=True)
class Revoked:
    """Outcome of a bundle: the last delegation takes this zone back."""

    zone: Prefix


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """A registry's answer as received; believe it only after a :class:`TrustedChain` has taken every part of it."""

    delegations: tuple[Signed, ...]
    outcome: Record | Denied | Referred
    proof: LogProof | None = None
    currency: Signed | None = None


@dataclass(frozen=True, slots=True)
class Bundle:
    """An answer with its whole chain. Proves nothing until :func:`idtrace.verification.verify_bundle` has passed it."""

    identifier: Identifier
    delegations: tuple[Signed, ...]
    outcome: Record | Denied | Revoked
    proof: LogProof | None = None
    currency: Signed | None = None

    def digest(self) -> bytes:
        """SHA-256, 32 bytes, over every part, each framed by its length."""
        sha = hashlib.sha256(b"idtrace/bundle/v1\0")
        for part in _parts(self):
            sha.update(struct.pack(">Q", len(part)) + part)
        return sha.digest()

    def to_json(self) -> str:
        """JSON form, ending in a line feed."""
        body: dict[str, Json] = {
            "format": JSON_FORMAT,
            "identifier": str(self.identifier),
            "delegations": [signed_to_json(signed) for signed in self.delegations],
        }
        match self.outcome:
            case Record(signed, values, sealed):
                shown: dict[str, Json] = {
                    "signed": signed_to_json(signed),
                    "values": [{"index": v.index, "salt": _b64(v.salt), "data": _b64(v.data)} for v in values],
                }
                body["record"] = shown | _sealed_to_json(sealed)
            case Denied(signed):
                body["denial"] = signed_to_json(signed)
            case revoked:
                body["revocation"] = str(revoked.zone)
        if self.proof is not None:
            body["proof"] = {
                "index": self.proof.index,
                "path": [one.hex() for one in self.proof.path],
                "checkpoint": _text(self.proof.checkpoint),
                "head": _text(self.proof.head),
            }
        if self.currency is not None:
            body["currency"] = signed_to_json(self.currency)
        body["digest"] = self.digest().hex()
        return json.dumps(body, ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Bundle:
        """Read the JSON form.

        Raises:
            InputError: BUNDLE_MALFORMED, BUNDLE_DIGEST, or a field's own reason.
        """
        if len(text) > BUNDLE_BYTES_MAX or len(text.encode("utf-8", "surrogatepass")) > BUNDLE_BYTES_MAX:
            raise InputError(Reason.BUNDLE_MALFORMED, "the bundle is too large", field="bundle")
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError):
            raise InputError(Reason.BUNDLE_MALFORMED, "the bundle is not JSON", field="bundle") from None
        if not isinstance(parsed, dict):
            raise InputError(Reason.BUNDLE_MALFORMED, "the bundle is not a JSON object", field="bundle")
        bundle, digest = _read(Fields(parsed, "bundle"), parsed)
        if digest != bundle.digest():
            raise InputError(Reason.BUNDLE_DIGEST, "the bundle is torn: its digest differs", field="bundle.digest")
        if bundle.to_json() != text:
            raise InputError(Reason.BUNDLE_MALFORMED, "the bundle is not in the form we write", field="bundle")
        return bundle


def _parts(bundle: Bundle) -> Iterator[bytes]:
    yield str(bundle.identifier).encode()
    yield str(len(bundle.delegations)).encode()
    for signed in bundle.delegations:
        yield from _signed_parts(signed)
    match bundle.outcome:
        case Record(signed, values, sealed):
            yield b"record"
            yield from _signed_parts(signed)
            for value in values:
                yield str(value.index).encode()
                yield value.salt
                yield value.data
            if sealed is not None:
                yield b"sealed"
                yield from _signed_parts(sealed.seal)
                yield f"{sealed.position} {len(sealed.path)}".encode()
                yield from sealed.path
        case Denied(signed):
            yield b"denial"
            yield from _signed_parts(signed)
        case revoked:
            yield b"revocation"
            yield str(revoked.zone).encode()
    if bundle.proof is not None:
        yield b"proof"
        yield f"{bundle.proof.index} {len(bundle.proof.path)}".encode()
        yield from (*bundle.proof.path, bundle.proof.checkpoint, bundle.proof.head)
    if bundle.currency is not None:
        yield b"currency"
        yield from _signed_parts(bundle.currency)


def _signed_parts(signed: Signed) -> Iterator[bytes]:
    yield signed.payload_type.encode()
    yield signed.payload
    yield str(len(signed.signatures)).encode()
    for signature in signed.signatures:
        yield signature.key_id.encode()
        yield signature.algorithm.encode()
        yield signature.signature


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        rule = "a payload is not UTF-8, so the bundle has no JSON form"
        raise InputError(Reason.BUNDLE_MALFORMED, rule, field="bundle") from None


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def signed_to_json(signed: Signed) -> dict[str, Json]:
    """A signed statement as it stands in a JSON bundle, payload as readable text.

    Raises:
        InputError: BUNDLE_MALFORMED where the payload is not text.
    """
    return {
        "payload_type": signed.payload_type,
        "payload": _text(signed.payload),
        "signatures": [
            {"key_id": s.key_id, "algorithm": s.algorithm, "signature": _b64(s.signature)} for s in signed.signatures
        ],
    }


def _sealed_to_json(sealed: Sealed | None) -> dict[str, Json]:
    if sealed is None:
        return {}
    path = [one.hex() for one in sealed.path]
    return {"sealed": {"seal": signed_to_json(sealed.seal), "position": sealed.position, "path": path}}


def _sealed_from_fields(fields: Fields) -> Sealed:
    sealed = Sealed(
        signed_from_fields(fields.object("seal")),
        fields.integer("position", most=2**SEAL_PATH_MAX),
        _hashes(fields, "path", SEAL_PATH_MAX),
    )
    fields.end()
    return sealed


def _proof_from_fields(fields: Fields) -> LogProof:
    proof = LogProof(
        fields.integer("index"),
        _hashes(fields, "path", PROOF_HASHES_MAX),
        fields.text("checkpoint", most=CHECKPOINT_BYTES_MAX).encode(),
        fields.text("head", most=HEAD_BYTES_MAX).encode(),
    )
    fields.end()
    return proof


def _hashes(fields: Fields, name: str, most: int) -> tuple[bytes, ...]:
    try:
        return tuple(bytes.fromhex(text) for text in fields.texts(name, most=most))
    except ValueError:
        raise InputError(Reason.BUNDLE_MALFORMED, f"{name} is not hexadecimal", field=fields.path(name)) from None


def _read(fields: Fields, parsed: dict[str, Any]) -> tuple[Bundle, bytes]:
    if fields.text("format", most=64) != JSON_FORMAT:
        raise InputError(Reason.BUNDLE_MALFORMED, f"the format is not {JSON_FORMAT}", field="bundle.format")
    identifier = fields.identifier("identifier")
    delegations = tuple(signed_from_fields(item) for item in fields.objects("delegations", most=LINKS_MAX))
    outcome: Record | Denied | Revoked
    if "record" in parsed:
        record = fields.object("record")
        signed = signed_from_fields(record.object("signed"))
        values = tuple(_read_value(item) for item in record.objects("values", most=VALUES_MAX))
        inside = parsed["record"]
        sealed = _sealed_from_fields(record.object("sealed")) if "sealed" in inside else None
        outcome = Record(signed, values, sealed)
        record.end()
    elif "denial" in parsed:
        outcome = Denied(signed_from_fields(fields.object("denial")))
    else:
        outcome = Revoked(fields.prefix("revocation"))
    proof = _proof_from_fields(fields.object("proof")) if "proof" in parsed else None
    currency = signed_from_fields(fields.object("currency")) if "currency" in parsed else None
    digest = fields.digest("digest")
    fields.end()
    return Bundle(identifier, delegations, outcome, proof, currency), digest


def signed_from_fields(fields: Fields) -> Signed:
    """Read what :func:`signed_to_json` gives; raises InputError naming the field."""
    payload = fields.text("payload", most=BUNDLE_BYTES_MAX).encode()
    payload_type = fields.text("payload_type", most=128)
    signatures = []
    for item in fields.objects("signatures", most=SIGNATURES_MAX):
        raw = _unb64(item, "signature")
        signatures.append(Signature(item.text("key_id", most=64), item.text("algorithm", most=32), raw))
        item.end()
    fields.end()
    return Signed(payload_type, payload, tuple(signatures))


def _read_value(fields: Fields) -> Value:
    index = fields.integer("index", least=1, most=VALUE_INDEX_MAX)
    value = Value(index, _unb64(fields, "salt"), _unb64(fields, "data"))
    if len(value.salt) != SALT_BYTES or len(value.data) > VALUE_BYTES_MAX:
        rule = f"a value has a salt of {SALT_BYTES} bytes and at most {VALUE_BYTES_MAX} bytes of data"
        raise InputError(Reason.FIELD_MALFORMED, rule, field=fields.path("data"))
    fields.end()
    return value


def _unb64(fields: Fields, name: str) -> bytes:
    try:
        return base64.b64decode(fields.text(name, most=BUNDLE_BYTES_MAX), validate=True)
    except (binascii.Error, ValueError):
        raise InputError(Reason.BUNDLE_MALFORMED, f"{name} is not base64", field=fields.path(name)) from None

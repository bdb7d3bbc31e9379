"""Signed notes: text, and below it the signatures of logs and witnesses (C2SP signed-note, tlog-cosignature).

::

    example.com/behind-the-sofa
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+Z…
    — witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZC…

A signature line names its key by name and key id, ``SHA-256(name ‖ 0x0A ‖ type ‖ public key)[:4]``. Four bytes name a
key and prove nothing: a key is believed because it was configured. Lines by unknown keys are passed over, so keys can
be rotated and witnesses can add theirs; a line by a known key that does not verify refuses the whole note.

Three types of key: 0x01 signs the text; 0x04 (Ed25519) and 0x06 (ML-DSA-44) sign a checkpoint together with a time, "as
of then this is the largest tree of this log that I saw, and it is consistent with all I saw before". The Ed25519
cosignature does not cover the cosigner's name, so no two cosigners may share a key (:mod:`idtrace.logpolicy` sees to
it); the ML-DSA-44 one does not cover extension lines, so with those it is refused.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from idtrace.checkpoint import Checkpoint, in_base64, is_note_text, read_base64
from idtrace.errors import InputError, Reason, VerificationError, quoted
from idtrace.merkle import SIZE_MAX

# The check itself, without the framing of our own statements: a note has the framing of its own format.
from idtrace.signature import MemorySigner, PublicKey, Signer, valid

# A policy knows up to 64 witnesses, and each may sign; the specification asks for 16 at least.
NOTE_SIGNATURES_MAX: Final = 64
# 64 ML-DSA-44 signatures have 210 kB; what remains is far more than a checkpoint needs.
NOTE_BYTES_MAX: Final = 262_144
# ML-DSA cosignatures carry the cosigner's name behind a length of one byte.
KEY_NAME_BYTES_MAX: Final = 255
_PRIVATE: Final = "PRIVATE+KEY+"
_KEY_ID: Final = re.compile(r"[0-9a-f]{8}")


class KeyType(IntEnum):
    """Signature types that we know; the byte stands before the key in its text form and in its id."""

    ED25519 = 0x01
    COSIGNATURE_ED25519 = 0x04
    COSIGNATURE_ML_DSA_44 = 0x06

    @property
    def is_cosignature(self) -> bool:
        """Whether the signature carries a time and is about a checkpoint."""
        return self is not KeyType.ED25519

    @property
    def public_bytes(self) -> int:
        """Length of a public key."""
        return 1312 if self is KeyType.COSIGNATURE_ML_DSA_44 else 32


def is_key_name(name: str) -> bool:
    """Whether a key may bear this name: something, without "+" and without any of Unicode's spaces."""
    plain = is_note_text(name) and "+" not in name and not any(map(str.isspace, name))
    return plain and 0 < len(name.encode()) <= KEY_NAME_BYTES_MAX


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A public key that a note may be signed with, and the name that it signs under.

    Text form ("vkey"): ``name+8 hex digits+base64(type ‖ key)``.
    """

    name: str
    type: KeyType
    raw: bytes
    key_id: bytes

    @classmethod
    def of(cls, name: str, raw: bytes, key_type: KeyType = KeyType.ED25519, *, field: str = "key") -> NoteKey:
        """Check a name and raw key bytes (32, or 1,312 for ML-DSA-44).

        Raises:
            InputError: KEY_MALFORMED or KEY_LOW_ORDER.
        """
        if not is_key_name(name):
            raise InputError(Reason.KEY_MALFORMED, f"a key cannot be named {quoted(name)}", field=field)
        if key_type is not KeyType.COSIGNATURE_ML_DSA_44:
            PublicKey.of(raw, field=field)  # refuses other lengths, other spellings and low order
        elif len(raw) != key_type.public_bytes:
            raise InputError(Reason.KEY_MALFORMED, f"an ML-DSA-44 key has {key_type.public_bytes} bytes", field=field)
        named = name.encode() + b"\n" + bytes([key_type]) + raw
        return cls(name, key_type, raw, hashlib.sha256(named).digest()[:4])

    @classmethod
    def parse(cls, text: str, *, field: str = "key") -> NoteKey:
        """Read the text form.

        Raises:
            InputError: KEY_MALFORMED, KEY_LOW_ORDER or ALGORITHM_UNKNOWN.
        """
        key = cls.of(*_read_key(text, field), field=field)
        if str(key) != text:
            raise InputError(Reason.KEY_MALFORMED, "the key id is not that of this name and key", field=field)
        return key

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{in_base64(bytes([self.type]) + self.raw)}"

    def signed_bytes(self, text: str, timestamp_seconds: int = 0) -> bytes:
        """What this key signs for a note text; a time (s) counts for cosignatures only.

        Raises:
            InputError: CHECKPOINT_MALFORMED (a cosignature is about a checkpoint, by ML-DSA one without extensions).
        """
        if self.type is KeyType.ED25519:
            return text.encode()
        checkpoint = Checkpoint.parse(text)
        if self.type is KeyType.COSIGNATURE_ED25519:
            return f"cosignature/v1\ntime {timestamp_seconds}\n{text}".encode()
        if checkpoint.extensions:
            detail = "an ML-DSA-44 cosignature would leave the extension lines unsigned"
            raise InputError(Reason.CHECKPOINT_MALFORMED, detail, field="checkpoint.extensions")
        name, origin = self.name.encode(), checkpoint.origin.encode()
        return struct.pack(
            f">12sB{len(name)}sQB{len(origin)}sQQ32s",
            *(b"subtree/v1\n\0", len(name), name, timestamp_seconds, len(origin), origin),
            *(0, checkpoint.size, checkpoint.root),
        )


def _read_key(text: str, field: str) -> tuple[str, bytes, KeyType]:
    """Name, key bytes and type of a key's text form; of the key id only that there is one."""
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    if not _KEY_ID.fullmatch(key_id):
        raise InputError(Reason.KEY_MALFORMED, "a key is name+8 hex digits+base64", field=field)
    data = read_base64(encoded, Reason.KEY_MALFORMED, field=field)
    if data[:1] not in {bytes([known]) for known in KeyType}:
        raise InputError(Reason.ALGORITHM_UNKNOWN, f"no such key type as {quoted(data[:1].hex())}", field=field)
    return name, data[1:], KeyType(data[0])


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: who is said to have signed, and the bytes behind the key id (at least one)."""

    name: str
    key_id: bytes
    value: bytes

    @classmethod
    def parse_lines(cls, block: str, *, field: str = "note.signatures") -> tuple[NoteSignature, ...]:
        """Read lines, each with its newline: the end of a note, or what a witness answers.

        Raises:
            InputError: NOTE_MALFORMED.
        """
        *lines, last = block.split("\n")
        if last or not lines or len(lines) > NOTE_SIGNATURES_MAX or not is_note_text(block):
            detail = f"a note has 1 to {NOTE_SIGNATURES_MAX} signature lines, each with its newline"
            raise InputError(Reason.NOTE_MALFORMED, detail, field=field)
        found = []
        for number, line in enumerate(lines):
            place = f"{field}[{number}]"
            dash, *words = line.split(" ")
            if dash != "—" or len(words) != 2 or not is_key_name(words[0]):
                raise InputError(Reason.NOTE_MALFORMED, "not a signature line: — name base64", field=place)
            data = read_base64(words[1], Reason.NOTE_MALFORMED, field=place)
            if len(data) < 5:
                raise InputError(Reason.NOTE_MALFORMED, "a key id has 4 bytes and a signature some more", field=place)
            found.append(cls(words[0], data[:4], data[4:]))
        return tuple(found)

    @property
    def line(self) -> str:
        """The line with its newline, as :meth:`parse_lines` reads it."""
        return f"— {self.name} {in_base64(self.key_id + self.value)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """Text and signature lines. Holding one proves nothing: see :func:`open_note`."""

    text: str
    signatures: tuple[NoteSignature, ...]

    @classmethod
    def parse(cls, data: bytes, *, field: str = "note") -> Note:
        """Read a note: text, an empty line, signature lines.

        Raises:
            InputError: NOTE_MALFORMED (and too long: FIELD_TOO_LARGE).
        """
        if len(data) > NOTE_BYTES_MAX:
            raise InputError(Reason.FIELD_TOO_LARGE, f"a note has at most {NOTE_BYTES_MAX} bytes", field=field)
        try:
            whole = data.decode()
        except UnicodeDecodeError:
            raise InputError(Reason.NOTE_MALFORMED, "a note is UTF-8", field=field) from None
        # The text may have empty lines of its own: the last one is the border.
        text, border, block = whole.rpartition("\n\n")
        if not border or not is_note_text(text):
            detail = "a note is text, an empty line and signature lines, without control characters"
            raise InputError(Reason.NOTE_MALFORMED, detail, field=field)
        return cls(text + "\n", NoteSignature.parse_lines(block, field=f"{field}.signatures"))

    def encode(self) -> bytes:
        """The note as :meth:`parse` reads it; it has to be signed."""
        assert self.signatures, "a note without signatures is none"
        assert self.text.endswith("\n"), "the text of a note ends with a newline"
        return "".join((self.text, "\n", *(signature.line for signature in self.signatures))).encode()

    def signed(self, *more: NoteSignature) -> Note:
        """The note with further signature lines, each line once."""
        return replace(self, signatures=tuple(dict.fromkeys((*self.signatures, *more))))


@dataclass(frozen=True, slots=True)
class Verified:
    """A signature that was checked: whose, and for a cosignature as of when (s since 1970; 0: it does not say)."""

    key: NoteKey
    timestamp_seconds: int | None


def open_note(note: Note, keys: Iterable[NoteKey], *, field: str = "note") -> tuple[Verified, ...]:
    """Check a note against the keys that count: at least one of them has signed it, and no line of theirs is false.

    Raises:
        VerificationError: SIGNER_UNKNOWN (no line is by such a key), or as :func:`verified_signatures`.
        InputError: KEY_MALFORMED.
    """
    found = verified_signatures(note, keys, field=field)
    if not found:
        raise VerificationError(Reason.SIGNER_UNKNOWN, "no signature is by a key that counts here", field=field)
    return found


def verified_signatures(note: Note, keys: Iterable[NoteKey], *, field: str = "note") -> tuple[Verified, ...]:
    """Check every signature line by one of these keys (157 µs each); lines by other keys are passed over.

    Returns what verified, in the order of the lines, perhaps nothing; a key that cosigned at two times stands twice.

    Raises:
        VerificationError: SIGNATURE_INVALID or COSIGNATURE_INVALID (a line by a known key is not one over this text),
            ALGORITHM_UNKNOWN (this machine's library lacks ML-DSA-44).
        InputError: KEY_MALFORMED (two of the keys have one name and one id).
    """
    known: dict[tuple[str, bytes], NoteKey] = {}
    for key in keys:
        if known.setdefault((key.name, key.key_id), key) != key:
            detail = f"two keys are named {quoted(key.name)} and share an id"
            raise InputError(Reason.KEY_MALFORMED, detail, field="key")
    found = []
    for signature in dict.fromkeys(note.signatures):
        signer = known.get((signature.name, signature.key_id))
        if signer is not None:
            found.append(_verified(signer, note.text, signature.value, field))
    return tuple(found)


def _verified(key: NoteKey, text: str, value: bytes, field: str) -> Verified:
    time_bytes = 8 if key.type.is_cosignature else 0
    timestamp = int.from_bytes(value[:time_bytes], "big")
    try:
        message = key.signed_bytes(text, timestamp)
        # The specification bounds times by the same 2**63 - 1 as sizes.
        sound = timestamp <= SIZE_MAX and _checks(key, value[time_bytes:], message)
    except InputError:  # a cosignature over what cannot be cosigned
        sound = False
    if not sound:
        reason = Reason.COSIGNATURE_INVALID if key.type.is_cosignature else Reason.SIGNATURE_INVALID
        raise VerificationError(reason, f"the signature by {quoted(key.name)} is not one over this text", field=field)
    return Verified(key, timestamp if key.type.is_cosignature else None)


def _checks(key: NoteKey, signature: bytes, message: bytes) -> bool:
    """Whether this is the key's signature; one of another length is none."""
    if key.type is not KeyType.COSIGNATURE_ML_DSA_44:
        return valid(PublicKey.of(key.raw), signature, message)
    try:
        MLDSA44PublicKey.from_public_bytes(key.raw).verify(signature, message)
    except InvalidSignature:
        return False
    except UnsupportedAlgorithm:
        detail = "the cryptographic library of this machine has no ML-DSA-44"
        raise VerificationError(Reason.ALGORITHM_UNKNOWN, detail, field="key") from None
    return True


class NoteSigner:
    """Signs notes under a name. For Ed25519 any :class:`~idtrace.signature.Signer` does, a hardware module too."""

    __slots__ = ("_sign", "key")

    def __init__(self, key: NoteKey, sign: Callable[[bytes], bytes]) -> None:
        self.key = key
        self._sign = sign

    @classmethod
    def of(cls, name: str, signer: Signer, key_type: KeyType = KeyType.ED25519) -> NoteSigner:
        """An Ed25519 key of ours under a name: as a log (0x01) or as a witness (0x04).

        Raises:
            InputError: KEY_MALFORMED (the name).
        """
        assert key_type is not KeyType.COSIGNATURE_ML_DSA_44, "an ML-DSA-44 key is read from its text form"
        return cls(NoteKey.of(name, signer.public_key.raw, key_type), signer.sign)

    @classmethod
    def parse(cls, text: str, *, field: str = "key") -> NoteSigner:
        """Read a private key's text form ("skey"): ``PRIVATE+KEY+name+8 hex digits+base64(type ‖ 32-byte seed)``.

        Raises:
            InputError: KEY_MALFORMED or ALGORITHM_UNKNOWN; nothing of the key is quoted.
        """
        if not text.startswith(_PRIVATE):
            raise InputError(Reason.KEY_MALFORMED, f"a private note key begins with {_PRIVATE}", field=field)
        try:
            name, seed, key_type = _read_key(text.removeprefix(_PRIVATE), field)
            found = cls.from_seed(name, seed, key_type, field=field) if len(seed) == 32 else None
        except InputError as error:
            raise InputError(error.reason, "not a private note key of a known type", field=field) from None
        if found is None or private_text(found.key, seed) != text:
            raise InputError(Reason.KEY_MALFORMED, "seed, name and key id do not belong together", field=field)
        return found

    @classmethod
    def from_seed(cls, name: str, seed: bytes, key_type: KeyType, *, field: str = "key") -> NoteSigner:
        """The key of a 32-byte seed (RFC 8032 private key, FIPS 204 ξ).

        Raises:
            InputError: KEY_MALFORMED, or ALGORITHM_UNKNOWN where this machine's library lacks ML-DSA-44.
        """
        if key_type is not KeyType.COSIGNATURE_ML_DSA_44:
            signer = MemorySigner(Ed25519PrivateKey.from_private_bytes(seed))
            return cls(NoteKey.of(name, signer.public_key.raw, key_type, field=field), signer.sign)
        try:
            private = MLDSA44PrivateKey.from_seed_bytes(seed)
        except UnsupportedAlgorithm:
            detail = "the cryptographic library of this machine has no ML-DSA-44"
            raise InputError(Reason.ALGORITHM_UNKNOWN, detail, field=field) from None
        raw = private.public_key().public_bytes_raw()
        return cls(NoteKey.of(name, raw, key_type, field=field), private.sign)

    def sign(self, text: str, timestamp_seconds: int = 0) -> NoteSignature:
        """Sign a note text; a cosignature states its time (s), and a log that signs with ML-DSA-44 may leave it 0.

        Raises:
            InputError: NOTE_MALFORMED, or CHECKPOINT_MALFORMED for a cosignature.
        """
        assert 0 <= timestamp_seconds <= SIZE_MAX, "a time is in seconds since 1970"
        if not text.endswith("\n") or not is_note_text(text):
            detail = "the text of a note is lines, each with its newline, without control characters"
            raise InputError(Reason.NOTE_MALFORMED, detail, field="note.text")
        value = self._sign(self.key.signed_bytes(text, timestamp_seconds))
        if self.key.type.is_cosignature:
            value = timestamp_seconds.to_bytes(8, "big") + value
        return NoteSignature(self.key.name, self.key.key_id, value)


def private_text(key: NoteKey, seed: bytes) -> str:
    """The text form of a private key, for the file that only its owner reads."""
    return f"{_PRIVATE}{key.name}+{key.key_id.hex()}+{in_base64(bytes([key.type]) + seed)}"
